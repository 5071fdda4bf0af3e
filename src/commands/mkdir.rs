//! `mkdir`: make a directory.

use clap::Args;

use crate::context::Context;
use crate::error::CommandError;
use crate::remote_path::RemotePath;

/// Permission bits of new directories.
const DIRECTORY_MODE: u32 = 0o755;

/// Make a directory.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  distrifs mkdir -p /backups/2026")]
pub(crate) struct Mkdir {
    /// Make missing parents too, and take a directory that is there for done
    #[arg(short, long)]
    parents: bool,
    /// The directory to make
    path: RemotePath,
}

impl Mkdir {
    pub(crate) async fn run(self, context: &Context) -> Result<(), CommandError> {
        context.client().mkdir(self.path.as_str(), self.parents, DIRECTORY_MODE).await?;
        Ok(())
    }
}
