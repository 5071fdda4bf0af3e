//! `cat`: a file on standard output.

use std::path::Path;

use clap::Args;
use distrifs_client::NoProgress;

use crate::context::Context;
use crate::error::CommandError;
use crate::local_target::LocalTarget;
use crate::remote_path::RemotePath;

/// Write a file to standard output.
#[derive(Debug, Args)]
#[command(after_help = "Only bytes that passed their checksums are written.\n\n\
    Example:\n  distrifs cat /logs/today.gz | zcat | tail")]
pub(crate) struct Cat {
    /// The file
    path: RemotePath,
}

impl Cat {
    pub(crate) async fn run(self, context: &Context) -> Result<(), CommandError> {
        let target = LocalTarget::decide(Path::new("-"), "", false, 0)?;
        context.client().get(self.path.as_str(), None, target.writer()?, &NoProgress).await?;
        Ok(())
    }
}
