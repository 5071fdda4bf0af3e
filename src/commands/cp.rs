//! `cp`: a file that shares the chunks of another.

use clap::Args;

use crate::context::Context;
use crate::error::CommandError;
use crate::remote_path::RemotePath;
use crate::remote_target::resolve;

/// Copy a file without moving its data.
#[derive(Debug, Args)]
#[command(
    after_help = "The copy refers to the same chunks, which stay until the last file that needs them is \
    removed. If TARGET is a directory, the copy goes into it.\n\n\
    Example:\n  distrifs cp /models/v7.bin /models/best.bin"
)]
pub(crate) struct Cp {
    /// Replace a file that is there
    #[arg(short, long)]
    force: bool,
    /// The file to copy
    source: RemotePath,
    /// The path of the copy, or the directory to copy into
    target: RemotePath,
}

impl Cp {
    pub(crate) async fn run(self, context: &Context) -> Result<(), CommandError> {
        let client = context.client();
        let target = resolve(&client, &self.source, &self.target).await?;
        client.copy(self.source.as_str(), &target, self.force).await?;
        Ok(())
    }
}
