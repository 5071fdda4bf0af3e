//! Why a request is refused, by whichever part refuses; one line, and the number that the caller sees.

use distrifs_proto::ErrorCode;
use distrifs_proto::grpc::status;
use distrifs_proto::types::{ChunkId, NodeId};
use tonic::Status;

use crate::cluster::{Behind, PlacementRefusal};
use crate::namespace::{NamespaceError, NsPath, Place};

/// Why a request is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    /// The namespace says no.
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
    /// There is nowhere to write.
    #[error("{path}: {source}")]
    Placement {
        /// What was to be written.
        path: NsPath,
        /// Why not.
        source: PlacementRefusal,
    },
    /// After a restart of the master: the copies cannot be vouched for before their nodes are back.
    #[error("{path}: datanode {node} has not registered with this master yet: try again shortly")]
    Unregistered {
        /// What was written.
        path: NsPath,
        /// On which node.
        node: NodeId,
    },
    /// The grant of a chunk has ended, with its time or with the leader that gave it; or it is another user's.
    #[error("{path}: the lease has expired: chunk {chunk} is not granted (any more): write it again")]
    NotGranted {
        /// What was written.
        path: NsPath,
        /// In which chunk.
        chunk: ChunkId,
    },
    /// This master must not change anything.
    #[error("{0}")]
    Behind(#[from] Behind),
    /// The request itself is malformed.
    #[error("{0}")]
    Invalid(String),
    /// More is waiting than may wait.
    #[error("{place}: the master is busy: try again shortly")]
    Busy {
        /// What was asked for.
        place: Place,
    },
    /// The master is stopping and did not take it.
    #[error("{place}: the master is stopping: nothing was changed")]
    Stopping {
        /// What was asked for.
        place: Place,
    },
    /// The log failed, leadership was lost or time ran out while it was on its way to the disk.
    #[error("{place}: outcome unknown: ask again with the same request id")]
    Unknown {
        /// What was asked for.
        place: Place,
    },
    /// No room for the log.
    #[error(
        "{place}: no space left for the master's log: {why}: nothing was changed; make room on that file system, it \
         then goes on by itself"
    )]
    LogFull {
        /// What was asked for.
        place: Place,
        /// What the log said.
        why: String,
    },
    /// One command that is longer than the log takes.
    #[error("{place}: limit exceeded: {found} bytes of metadata in one change (at most {max})")]
    TooLarge {
        /// What was asked for.
        place: Place,
        /// How long it is.
        found: usize,
        /// The limit.
        max: usize,
    },
}

impl Refusal {
    /// The number that the caller sees.
    pub(crate) fn code(&self) -> ErrorCode {
        match self {
            Self::Namespace(error) => error.code(),
            Self::Placement { source, .. } => source.code(),
            Self::Behind(_) => ErrorCode::SafeMode,
            Self::NotGranted { .. } => ErrorCode::LeaseExpired,
            Self::Invalid(_) => ErrorCode::InvalidArgument,
            Self::Busy { .. } => ErrorCode::Busy,
            Self::Stopping { .. } | Self::Unregistered { .. } => ErrorCode::Unavailable,
            Self::Unknown { .. } => ErrorCode::Unknown,
            Self::LogFull { .. } => ErrorCode::NoSpace,
            Self::TooLarge { .. } => ErrorCode::LimitExceeded,
        }
    }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        // A name may contain a line feed; an error is one line.
        let text = refusal.to_string().replace(|c: char| c.is_control(), "?");
        status(refusal.code(), text)
    }
}
