//! What can go wrong in the chunk store, and who must act.

use std::io;
use std::path::{Path, PathBuf};

use distrifs_proto::ErrorCode;
use distrifs_proto::types::{ChunkId, GenerationStamp};
use rustix::io::Errno;

/// What a disk or its file system says when it is at fault. The block layer has a word for each cause, which direct I/O
/// gets to see; ext4, xfs and btrfs have two for metadata that makes no sense.
const DISK_FAILURES: [Errno; 10] = [
    Errno::IO,
    Errno::ROFS,
    Errno::NODEV,
    // A bad sector, a bad target, a lost path, a command without an answer, a failed integrity check.
    Errno::NODATA,
    Errno::REMOTEIO,
    Errno::NOLINK,
    Errno::TIMEDOUT,
    Errno::ILSEQ,
    // EFSCORRUPTED and EFSBADCRC.
    Errno::UCLEAN,
    Errno::BADMSG,
];

/// A failure of the chunk store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is no committed chunk of this id here.
    #[error("chunk {chunk}: not in this folder")]
    NoSuchChunk {
        /// The chunk.
        chunk: ChunkId,
    },
    /// The chunk is committed already, or somebody writes it now.
    #[error("chunk {chunk}: exists already")]
    Exists {
        /// The chunk.
        chunk: ChunkId,
    },
    /// The replica is newer than what was to be deleted.
    #[error("chunk {chunk}: generation {found} is newer than {up_to}")]
    NewerGeneration {
        /// The chunk.
        chunk: ChunkId,
        /// Of the replica.
        found: GenerationStamp,
        /// Of the order.
        up_to: GenerationStamp,
    },
    /// The bytes on the disk are not what was committed.
    #[error("chunk {chunk}: corrupt: {what}")]
    Corrupt {
        /// The chunk.
        chunk: ChunkId,
        /// What does not match.
        what: String,
    },
    /// Longer than what was reserved for it: the caller's mistake.
    #[error("chunk {chunk}: {length} bytes, but {reserved} were reserved")]
    TooLong {
        /// The chunk.
        chunk: ChunkId,
        /// What it would become.
        length: u64,
        /// What was reserved.
        reserved: u64,
    },
    /// The disk is full.
    #[error("{path}: no space left")]
    NoSpace {
        /// The file.
        path: PathBuf,
    },
    /// A sync failed: what was written may be lost although a later sync would succeed. The folder takes no
    /// more writes until it was checked by a new start.
    #[error("{path}: sync of the {what} failed: {source}: the folder takes no more writes")]
    SyncFailed {
        /// Data, sidecar or directory.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// As the system says it.
        source: io::Error,
    },
    /// Anything else from the disk.
    #[error("{path}: {what}: {source}")]
    Io {
        /// The operation.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// As the system says it.
        source: io::Error,
    },
    /// The folder cannot be used: another process has it, another node or cluster owns it, or it is newer.
    #[error("{path}: {why}")]
    Folder {
        /// The folder or the file in it.
        path: PathBuf,
        /// Why, and what to do.
        why: String,
    },
}

impl StoreError {
    pub(super) fn io(what: &'static str, path: &Path, source: io::Error) -> Self {
        if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
            return Self::NoSpace { path: path.to_owned() };
        }
        Self::Io { what, path: path.to_owned(), source }
    }

    /// A name in `tmp/` could not be made.
    pub(super) fn not_created(chunk: ChunkId, path: &Path, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::AlreadyExists => Self::Exists { chunk },
            _ => Self::io("create", path, source),
        }
    }

    pub(super) fn sync(what: &'static str, path: &Path, source: io::Error) -> Self {
        Self::SyncFailed { what, path: path.to_owned(), source }
    }

    /// Whether the file's mode or owner is in the way.
    pub(super) fn is_denied(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied)
    }

    /// How peers are told.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::NoSuchChunk { .. } => ErrorCode::NoSuchChunk,
            Self::Exists { .. } => ErrorCode::AlreadyExists,
            Self::NewerGeneration { .. } => ErrorCode::StaleGeneration,
            Self::Corrupt { .. } => ErrorCode::Corrupt,
            Self::TooLong { .. } => ErrorCode::Protocol,
            Self::NoSpace { .. } => ErrorCode::NoSpace,
            Self::SyncFailed { .. } | Self::Io { .. } | Self::Folder { .. } => ErrorCode::Disk,
        }
    }

    /// Whether the folder must leave the write set: its disk lost or may have lost bytes.
    #[must_use]
    pub fn suspects_folder(&self) -> bool {
        match self {
            Self::SyncFailed { .. } => true,
            // Not for want of descriptors or memory: that says nothing about the disk.
            Self::Io { source, .. } => {
                Errno::from_io_error(source).is_some_and(|errno| DISK_FAILURES.contains(&errno))
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_against_the_folder() {
        for (errno, code, suspects) in [
            (Errno::IO, ErrorCode::Disk, true),
            (Errno::ROFS, ErrorCode::Disk, true),
            // A bad sector, as direct I/O sees it.
            (Errno::NODATA, ErrorCode::Disk, true),
            (Errno::UCLEAN, ErrorCode::Disk, true),
            (Errno::BADMSG, ErrorCode::Disk, true),
            (Errno::MFILE, ErrorCode::Disk, false),
            // A socket that somebody put in the place of a chunk.
            (Errno::NXIO, ErrorCode::Disk, false),
            (Errno::NOMEM, ErrorCode::Disk, false),
            (Errno::ACCESS, ErrorCode::Disk, false),
            (Errno::NOSPC, ErrorCode::NoSpace, false),
            (Errno::DQUOT, ErrorCode::NoSpace, false),
        ] {
            let error = StoreError::io("write", Path::new("chunk"), errno.into());
            assert_eq!((error.code(), error.suspects_folder()), (code, suspects), "{error}");
        }
    }
}
