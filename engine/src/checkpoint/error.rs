//! What can go wrong with a checkpoint.

use std::io;
use std::path::PathBuf;

use distrifs_proto::types::ClusterId;

use crate::folder::Folder;

/// Why a checkpoint was not written or not read.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The operating system failed.
    #[error("{path}: cannot {doing}: {source}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// What the operating system said.
        source: io::Error,
    },
    /// Bytes that are not what was written. An older checkpoint and the log behind it may still do.
    #[error("{path} is corrupt at byte {offset}: {what}", path = path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Where in the file.
        offset: u64,
        /// What was found there.
        what: &'static str,
    },
    /// Written by a newer version of the program.
    #[error("{path} has format version {found}, newest known is {known}: start the newer program", path = path.display())]
    NewerVersion {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// What this program knows.
        known: u32,
    },
    /// The checkpoint of another cluster.
    #[error("{path} belongs to cluster {found}, expected {expected}", path = path.display())]
    WrongCluster {
        /// The file.
        path: PathBuf,
        /// Whose checkpoint was asked for.
        expected: ClusterId,
        /// Whose it is.
        found: ClusterId,
    },
}

/// Puts the file and what was tried around the operating system's error.
pub(super) fn failed<'a>(
    folder: &'a Folder,
    name: &'a str,
    doing: &'static str,
) -> impl Fn(io::Error) -> CheckpointError + 'a {
    move |source| CheckpointError::Io { path: folder.file(name), doing, source }
}
