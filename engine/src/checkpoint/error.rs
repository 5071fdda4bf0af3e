//! What can go wrong with a checkpoint.

use std::io;
use std::path::PathBuf;

use distrifs_proto::types::{ClusterId, Lsn};

/// Why a checkpoint was not written, or cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The operating system failed.
    #[error("{path}: cannot {doing}: {source}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// What it said.
        source: io::Error,
    },
    /// Bytes that are not what was written. Nothing in the file is to be believed: take an older checkpoint.
    #[error("{file} is corrupt at byte {offset}: {what}")]
    Corrupt {
        /// The file.
        file: PathBuf,
        /// Where in the file.
        offset: u64,
        /// What was found there.
        what: Damage,
    },
    /// Written by a newer version of the program.
    #[error("{file} has format version {found}, newest known is {known}: start the newer program")]
    NewerVersion {
        /// The file.
        file: PathBuf,
        /// Its version.
        found: u32,
        /// What this program knows.
        known: u32,
    },
    /// A checkpoint of another cluster.
    #[error("{file} belongs to cluster {found}, expected {expected}")]
    WrongCluster {
        /// The file.
        file: PathBuf,
        /// Whose was asked for.
        expected: ClusterId,
        /// Whose it is.
        found: ClusterId,
    },
    /// An LSN that no log reaches.
    #[error("{lsn} is not the LSN of a checkpoint")]
    BadLsn {
        /// What was asked for.
        lsn: Lsn,
    },
}

impl CheckpointError {
    /// Whether the disk is full: an ordinary state, after which a later attempt may succeed.
    #[must_use]
    pub fn is_no_space(&self) -> bool {
        match self {
            Self::Io { source, .. } => {
                matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
            }
            _ => false,
        }
    }
}

/// In which way a checkpoint contradicts what was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// The header is not one, or fails its checksum.
    #[error("the header fails its check")]
    Header,
    /// The file has a length that no checkpoint has.
    #[error("the file has {found} bytes, which no whole checkpoint has")]
    Length {
        /// Its length.
        found: u64,
    },
    /// The file's name says another LSN than its header.
    #[error("the header says LSN {found}, the name another")]
    Name {
        /// What the header says.
        found: Lsn,
    },
    /// A block fails its checksum.
    #[error("block {number} fails its check")]
    Block {
        /// Counted from 0.
        number: u64,
    },
    /// A whole block stands where another belongs.
    #[error("block {found} stands in the place of block {expected}")]
    Order {
        /// The block that belongs here.
        expected: u64,
        /// The one that is here.
        found: u64,
    },
    /// There is no footer, or it fails its checksum: the file was cut, or something was added.
    #[error("the footer fails its check: the file was cut, or bytes were added")]
    Footer,
    /// The footer counts other blocks than were there.
    #[error("the footer contradicts the blocks before it")]
    Sum,
}
