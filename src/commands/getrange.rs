//! `getrange`: some bytes of a file.

use std::path::PathBuf;

use clap::Args;
use distrifs_client::{FileKind, NoProgress};

use crate::commands::get::is_directory;
use crate::context::Context;
use crate::error::CommandError;
use crate::exit_status::ExitStatus;
use crate::local_target::LocalTarget;
use crate::options::bytes;
use crate::remote_path::RemotePath;

/// Fetch a range of a file.
#[derive(Debug, Args)]
#[command(
    after_help = "A range that reaches over the end gives what there is, and one that begins at the end gives \
    nothing; one that begins beyond the end is refused. Sizes take K, M, G and T.\n\n\
    Example:\n  distrifs getrange /videos/film.mp4 1M 4096 part.bin\n  distrifs getrange /videos/film.mp4 0 16 - | xxd"
)]
pub(crate) struct Getrange {
    /// Replace a file that is there
    #[arg(short, long)]
    force: bool,
    /// The file
    remote: RemotePath,
    /// Where the range begins, in bytes
    #[arg(value_parser = bytes)]
    offset: u64,
    /// How many bytes
    #[arg(value_parser = bytes)]
    length: u64,
    /// A file, a directory to put it into, or `-` for standard output
    out: PathBuf,
}

impl Getrange {
    pub(crate) async fn run(self, context: &Context) -> Result<(), CommandError> {
        let client = context.client();
        let status = client.stat(self.remote.as_str()).await?;
        if status.kind == FileKind::Directory {
            return Err(is_directory(self.remote.as_str(), "is a directory"));
        }
        if self.offset > status.size {
            return Err(CommandError::Remote {
                path: self.remote.to_string(),
                status: ExitStatus::Failed,
                why: format!("the range begins at {}, beyond the end at {}", self.offset, status.size),
            });
        }
        let length = self.length.min(status.size - self.offset);
        let target = LocalTarget::decide(&self.out, self.remote.name(), self.force, status.mode)?;
        // A length of 0 means "to the end" to nobody here: nothing is asked for.
        if length > 0 {
            let range = Some((self.offset, length));
            client.get(self.remote.as_str(), range, target.writer()?, &NoProgress).await?;
        }
        target.publish()
    }
}
