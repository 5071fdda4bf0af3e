//! `df`: how full the cluster is.

use clap::Args;
use serde::Serialize;

use crate::context::Context;
use crate::error::CommandError;
use crate::output::{Output, Table, human_bytes};

/// Show how full the cluster is.
#[derive(Debug, Args)]
#[command(after_help = "Every byte of a file counts once for each of its replicas.\n\n\
    Example:\n  distrifs df --json")]
pub(crate) struct Df {}

/// The stable keys of `--json`.
#[derive(Serialize)]
struct Row {
    capacity_bytes: u64,
    used_bytes: u64,
    free_bytes: u64,
    live_nodes: u32,
    dead_nodes: u32,
}

impl Df {
    pub(crate) async fn run(self, context: &Context, output: &mut Output) -> Result<(), CommandError> {
        let status = context.client().cluster_status().await?;
        if output.json() {
            return output.object(&Row {
                capacity_bytes: status.capacity_bytes,
                used_bytes: status.used_bytes,
                free_bytes: status.free_bytes,
                live_nodes: status.live_nodes,
                dead_nodes: status.dead_nodes,
            });
        }
        let mut table = Table::new(&[0, 1, 2, 3, 4]);
        table.row(["capacity", "used", "free", "live nodes", "dead nodes"].map(str::to_owned));
        table.row([
            human_bytes(status.capacity_bytes),
            human_bytes(status.used_bytes),
            human_bytes(status.free_bytes),
            status.live_nodes.to_string(),
            status.dead_nodes.to_string(),
        ]);
        table.lines().try_for_each(|line| output.line(line))
    }
}
