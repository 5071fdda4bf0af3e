//! Several steps on small files as one operation: beside the ring, or on a thread, each operation costs more than the
//! system calls in it.

use std::io;
use std::path::PathBuf;

/// What is written to a small file.
#[derive(Debug)]
pub struct FileBytes {
    /// The file.
    pub path: PathBuf,
    /// Create it; an existing one is an error. Otherwise it is there, and empty.
    pub create_new: bool,
    /// All of its bytes.
    pub bytes: Vec<u8>,
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
