//! `checksum`: the CRC32C of a whole file, from metadata alone.

use clap::Args;
use serde::Serialize;

use crate::context::Context;
use crate::error::CommandError;
use crate::exit_status::ExitStatus;
use crate::output::Output;
use crate::remote_path::RemotePath;

/// Show the CRC32C of a file.
#[derive(Debug, Args)]
#[command(
    after_help = "It was composed from the checksums of the file's chunks when the file was completed, and \
    equals the CRC32C (Castagnoli) of its bytes: no data is read.\n\n\
    Example:\n  distrifs checksum /backups/home.tar"
)]
pub(crate) struct Checksum {
    /// The file
    path: RemotePath,
}

/// The stable keys of `--json`.
#[derive(Serialize)]
struct Row<'a> {
    path: &'a str,
    crc32c: String,
    size: u64,
}

impl Checksum {
    pub(crate) async fn run(self, context: &Context, output: &mut Output) -> Result<(), CommandError> {
        let path = self.path.as_str();
        let status = context.client().stat(path).await?;
        let Some(crc) = status.crc32c else {
            return Err(CommandError::Remote {
                path: path.to_owned(),
                status: ExitStatus::WrongKind,
                why: "is a directory".to_owned(),
            });
        };
        if output.json() {
            return output.object(&Row { path, crc32c: crc.to_string(), size: status.size });
        }
        let shown = output.name(path).into_owned();
        output.line(format_args!("{crc}  {shown}"))
    }
}
