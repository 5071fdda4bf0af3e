//! `rm`: remove a file, or a directory with everything below it.

use clap::Args;

use crate::context::Context;
use crate::error::CommandError;
use crate::remote_path::RemotePath;

/// Remove a file or a tree.
#[derive(Debug, Args)]
#[command(after_help = "A tree is removed by one command of the master: whole or not at all.\n\n\
    Example:\n  distrifs rm -r /backups/2019")]
pub(crate) struct Rm {
    /// Remove a directory and everything below it
    #[arg(short, long)]
    recursive: bool,
    /// What to remove
    path: RemotePath,
}

impl Rm {
    pub(crate) async fn run(self, context: &Context) -> Result<(), CommandError> {
        context.client().remove(self.path.as_str(), self.recursive).await?;
        Ok(())
    }
}
