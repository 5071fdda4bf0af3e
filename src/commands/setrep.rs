//! `setrep`: how many replicas are wanted of a file.

use clap::Args;

use crate::context::Context;
use crate::error::CommandError;
use crate::remote_path::RemotePath;

/// Set how many replicas are wanted of a file.
#[derive(Debug, Args)]
#[command(
    after_help = "Write permission on the file is needed. The number is recorded durably at once. Replicas \
    that are missing are not made, nor superfluous ones removed, by this version.\n\n\
    Example:\n  distrifs setrep 5 /models/best.bin"
)]
pub(crate) struct Setrep {
    /// How many
    #[arg(value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    replication: u32,
    /// The file
    path: RemotePath,
}

impl Setrep {
    pub(crate) async fn run(self, context: &Context) -> Result<(), CommandError> {
        context.client().set_replication(self.path.as_str(), self.replication).await?;
        Ok(())
    }
}
