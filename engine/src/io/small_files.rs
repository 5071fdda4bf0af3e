//! Several steps on small files as one operation: beside the ring, or on a thread, each operation costs more than the
//! system calls in it.

use std::io;
use std::path::{Path, PathBuf};

/// A small file that is created; an existing one is an error of the kind `AlreadyExists`.
#[derive(Debug)]
pub struct FileBytes {
    /// The file.
    pub path: PathBuf,
    /// Where this exists, the error is `AlreadyExists`, too, and the file goes again. It is asked for after the creation:
    /// of several at once that create the same file, one succeeds.
    pub unless: Option<PathBuf>,
    /// All of its bytes.
    pub bytes: Vec<u8>,
}

impl FileBytes {
    pub(super) fn failed(&self, source: io::Error) -> PathError {
        PathError { path: self.path.clone(), source }
    }

    /// What it means for this file that `other`, which must not exist, was looked for with this result.
    pub(super) fn beside(&self, other: &Path, looked: io::Result<()>) -> Result<(), PathError> {
        match looked {
            Ok(()) => Err(self.failed(io::ErrorKind::AlreadyExists.into())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(source) => Err(PathError { path: other.to_owned(), source }),
        }
    }
}

/// Which of several steps failed, and how.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {source}")]
pub struct PathError {
    /// The file.
    pub path: PathBuf,
    /// As the system says it.
    pub source: io::Error,
}

impl From<io::Error> for PathError {
    fn from(source: io::Error) -> Self {
        Self { path: PathBuf::new(), source }
    }
}

/// Whether a file that was given up is gone, its removal having come to this. One that stays is told in the log.
pub(crate) fn is_gone(path: &Path, removed: io::Result<()>) -> bool {
    match removed {
        Ok(()) => true,
        Err(error) if error.kind() == io::ErrorKind::NotFound => true,
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "what was given up stays behind");
            false
        }
    }
}
