//! `du`: how much there is below a path.

use clap::Args;
use serde::Serialize;

use crate::context::Context;
use crate::error::CommandError;
use crate::output::{Output, Table, human_bytes};
use crate::remote_path::RemotePath;

/// Show how much there is below a path.
#[derive(Debug, Args)]
#[command(
    after_help = "\"stored\" counts each byte once for each replica that is wanted of it; files that share \
    their chunks (cp) count each on its own.\n\n\
    Example:\n  distrifs du /backups\n  distrifs du --json / | jq .bytes"
)]
pub(crate) struct Du {
    /// A file or directory
    path: RemotePath,
}

/// The stable keys of `--json`.
#[derive(Serialize)]
struct Row<'a> {
    path: &'a str,
    bytes: u64,
    stored_bytes: u64,
    files: u64,
    directories: u64,
}

impl Du {
    pub(crate) async fn run(self, context: &Context, output: &mut Output) -> Result<(), CommandError> {
        let path = self.path.as_str();
        let usage = context.client().usage(path).await?;
        if output.json() {
            return output.object(&Row {
                path,
                bytes: usage.bytes,
                stored_bytes: usage.stored_bytes,
                files: usage.files,
                directories: usage.directories,
            });
        }
        let mut table = Table::new(&[0, 1, 2, 3]);
        table.row(["bytes", "stored", "files", "directories", "path"].map(str::to_owned));
        table.row([
            human_bytes(usage.bytes),
            human_bytes(usage.stored_bytes),
            usage.files.to_string(),
            usage.directories.to_string(),
            output.name(path).into_owned(),
        ]);
        table.lines().try_for_each(|line| output.line(line))
    }
}
