//! `nodes`: the datanodes as the master sees them.

use std::time::Duration;

use clap::Args;
use distrifs_client::{DataDir, NodeState, NodeStatus};
use serde::Serialize;

use crate::context::Context;
use crate::error::CommandError;
use crate::output::{Output, Table, human_bytes};

/// Show the datanodes.
#[derive(Debug, Args)]
#[command(
    after_help = "scrubbed: how much of its chunks the running pass of the scrub has read whole; oldest: for how long \
    the one has gone unread that was read longest ago, or since the start; corrupt: damaged ones that were found.\n\nExample:\n  distrifs nodes --json | jq 'select(.state != \"live\")'"
)]
pub(crate) struct Nodes {}

/// The stable keys of `--json`.
#[derive(Serialize)]
pub(super) struct Row<'a> {
    id: String,
    address: &'a str,
    rack: &'a str,
    state: &'static str,
    chunks: u64,
    used_bytes: u64,
    free_bytes: u64,
    data_dirs: Vec<Dir<'a>>,
    why_suspect: &'a str,
    chunks_in_quarantine: u64,
    scrub: Scrub,
}

#[derive(Serialize)]
struct Scrub {
    replicas_checked: u64,
    bytes_checked: u64,
    found_corrupt: u64,
    oldest_unchecked_ms: u128,
    pass_permille: u32,
}

#[derive(Serialize)]
struct Dir<'a> {
    path: &'a str,
    capacity_bytes: u64,
    used_bytes: u64,
    free_bytes: u64,
    healthy: bool,
    commit_us: u128,
}

impl Nodes {
    pub(crate) async fn run(self, context: &Context, output: &mut Output) -> Result<(), CommandError> {
        let nodes = context.client().nodes().await?;
        if output.json() {
            return nodes.iter().try_for_each(|node| output.object(&Row::new(node)));
        }
        let mut table = Table::new(&[3, 4, 5, 7, 8, 9, 10]);
        let heads = [
            "id", "address", "state", "chunks", "used", "free", "io", "heard", "scrubbed", "oldest",
            "corrupt", "rack",
        ];
        table.row(heads.map(str::to_owned));
        for node in &nodes {
            table.row([
                node.id.to_string(),
                node.address.clone(),
                state_name(node.state).to_owned(),
                node.chunks.to_string(),
                human_bytes(node.used_bytes),
                human_bytes(node.free_bytes),
                node.io_body.clone(),
                format!("{:.1} s ago", node.since_heartbeat.as_secs_f64()),
                format!("{:.1} %", f64::from(node.scrub.pass_permille) / 10.0),
                human_age(node.scrub.oldest_unchecked),
                node.scrub.found_corrupt.to_string(),
                node.rack.clone(),
            ]);
        }
        table.lines().try_for_each(|line| output.line(line))
    }
}

impl<'a> Row<'a> {
    pub(super) fn new(node: &'a NodeStatus) -> Self {
        Self {
            id: node.id.to_string(),
            address: &node.address,
            rack: &node.rack,
            state: state_name(node.state),
            chunks: node.chunks,
            used_bytes: node.used_bytes,
            free_bytes: node.free_bytes,
            data_dirs: node.data_dirs.iter().map(dir).collect(),
            why_suspect: &node.why_suspect,
            chunks_in_quarantine: node.chunks_in_quarantine,
            scrub: Scrub {
                replicas_checked: node.scrub.replicas_checked,
                bytes_checked: node.scrub.bytes_checked,
                found_corrupt: node.scrub.found_corrupt,
                oldest_unchecked_ms: node.scrub.oldest_unchecked.as_millis(),
                pass_permille: node.scrub.pass_permille,
            },
        }
    }
}

fn dir(dir: &DataDir) -> Dir<'_> {
    Dir {
        path: &dir.path,
        capacity_bytes: dir.capacity_bytes,
        used_bytes: dir.used_bytes,
        free_bytes: dir.free_bytes,
        healthy: dir.healthy,
        commit_us: dir.commit.as_micros(),
    }
}

/// How long ago, to two digits or so.
fn human_age(age: Duration) -> String {
    match age.as_secs() {
        seconds @ 0..=119 => format!("{seconds} s"),
        seconds @ 120..=7199 => format!("{} min", seconds / 60),
        seconds @ 7200..=172_799 => format!("{} h", seconds / 3600),
        seconds => format!("{} d", seconds / 86_400),
    }
}

/// The stable name of a state.
pub(super) fn state_name(state: NodeState) -> &'static str {
    match state {
        NodeState::Live => "live",
        NodeState::Suspect => "suspect",
        NodeState::Dead => "dead",
        NodeState::Unknown => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_short() {
        for (seconds, text) in [(0, "0 s"), (119, "119 s"), (120, "2 min"), (7200, "2 h"), (259_200, "3 d")] {
            assert_eq!(human_age(Duration::from_secs(seconds)), text);
        }
    }
}
