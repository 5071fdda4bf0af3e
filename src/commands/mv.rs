//! `mv`: rename, or move into a directory.

use clap::Args;

use crate::context::Context;
use crate::error::CommandError;
use crate::remote_path::RemotePath;
use crate::remote_target::resolve;

/// Rename or move a file or directory.
#[derive(Debug, Args)]
#[command(after_help = "If TARGET is a directory, SOURCE goes into it.\n\n\
    Example:\n  distrifs mv /incoming/report.pdf /archive/")]
pub(crate) struct Mv {
    /// Replace a file that is there
    #[arg(short, long)]
    force: bool,
    /// What to move
    source: RemotePath,
    /// Its new path, or the directory to move it into
    target: RemotePath,
}

impl Mv {
    pub(crate) async fn run(self, context: &Context) -> Result<(), CommandError> {
        let client = context.client();
        let target = resolve(&client, &self.source, &self.target).await?;
        client.rename(self.source.as_str(), &target, self.force).await?;
        Ok(())
    }
}
