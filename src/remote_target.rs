//! Where `mv` and `cp` put something: the path itself, or a name in the directory that it is.

use distrifs_client::{Client, FileKind};
use distrifs_proto::ErrorCode;

use crate::error::CommandError;
use crate::exit_status::ExitStatus;
use crate::remote_path::RemotePath;

/// The exact new path of `source` for a target as a user gives it.
///
/// # Errors
/// The target cannot be looked at; or it ends with `/`, is not there, and `source` is a file.
pub(crate) async fn resolve(
    client: &Client,
    source: &RemotePath,
    target: &RemotePath,
) -> Result<String, CommandError> {
    match client.stat(target.as_str()).await {
        Ok(status) if status.kind == FileKind::Directory && target != source => {
            Ok(target.join(source.name()))
        }
        Ok(_) => Ok(target.to_string()),
        Err(e) if e.code() == ErrorCode::NotFound && !target.trailing_slash() => Ok(target.to_string()),
        Err(e) if e.code() == ErrorCode::NotFound => {
            // `mv FILE NEW/` asks for a directory; `mv DIR NEW/` may name the new directory.
            if client.stat(source.as_str()).await?.kind == FileKind::File {
                return Err(CommandError::Remote {
                    path: target.to_string(),
                    status: ExitStatus::NotFound,
                    why: "no such directory".to_owned(),
                });
            }
            Ok(target.to_string())
        }
        Err(e) => Err(e.into()),
    }
}
