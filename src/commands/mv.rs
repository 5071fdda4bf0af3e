//! `mv`: rename, or move into a directory.

use clap::Args;
use distrifs_client::FileKind;
use distrifs_proto::ErrorCode;

use crate::context::Context;
use crate::error::CommandError;
use crate::exit_status::ExitStatus;
use crate::remote_path::RemotePath;

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
        let target = match client.stat(self.target.as_str()).await {
            Ok(status) if status.kind == FileKind::Directory && self.target != self.source => {
                self.target.join(self.source.name())
            }
            Ok(_) => self.target.to_string(),
            Err(e) if e.code() == ErrorCode::NotFound && !self.target.trailing_slash() => {
                self.target.to_string()
            }
            Err(e) if e.code() == ErrorCode::NotFound => {
                // `mv FILE NEW/` asks for a directory; `mv DIR NEW/` may name the new directory.
                let source = client.stat(self.source.as_str()).await?;
                if source.kind == FileKind::File {
                    return Err(CommandError::Remote {
                        path: self.target.to_string(),
                        status: ExitStatus::NotFound,
                        why: "no such directory".to_owned(),
                    });
                }
                self.target.to_string()
            }
            Err(e) => return Err(e.into()),
        };
        client.rename(self.source.as_str(), &target, self.force).await?;
        Ok(())
    }
}
