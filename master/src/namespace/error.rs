//! Why the namespace refuses a command or a question: facts, and the code that a caller sees.

use distrifs_proto::ErrorCode;
use distrifs_proto::types::ChunkId;

use super::command::Place;
use super::path::NsPath;
use crate::permission::need_text;

/// Why the namespace refuses. Nothing has changed when it does.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NamespaceError {
    /// The path, or a directory on its way, does not exist.
    #[error("{path}: no such file or directory{}", if missing == path.as_str() { String::new() } else { format!(": {missing} does not exist") })]
    NotFound {
        /// What was asked for.
        path: NsPath,
        /// The first part that does not exist.
        missing: String,
    },
    /// Something is there already.
    #[error("{path}: already exists{hint}")]
    AlreadyExists {
        /// Where.
        path: NsPath,
        /// The way out.
        hint: &'static str,
    },
    /// A directory where a file is meant.
    #[error("{path}: is a directory{hint}")]
    IsADirectory {
        /// Where.
        path: NsPath,
        /// The way out.
        hint: &'static str,
    },
    /// A file where a directory is meant.
    #[error("{path}: {at} is not a directory")]
    NotADirectory {
        /// What was asked for.
        path: NsPath,
        /// The part that is a file.
        at: String,
    },
    /// A directory that still has entries.
    #[error("{path}: directory not empty: remove it recursively (rm -r)")]
    NotEmpty {
        /// Which.
        path: NsPath,
    },
    /// The caller lacks a permission.
    #[error("{path}: permission denied: {user} needs {} on {on}", need_text(*need))]
    PermissionDenied {
        /// What was asked for.
        path: NsPath,
        /// Who asked.
        user: String,
        /// The bits needed.
        need: u16,
        /// The directory or file that denies them.
        on: String,
    },
    /// The sticky bit keeps an entry of somebody else's.
    #[error(
        "{path}: permission denied: {user} is neither owner of {on} nor of its directory, which is sticky"
    )]
    Sticky {
        /// What was asked for.
        path: NsPath,
        /// Who asked.
        user: String,
        /// The entry.
        on: String,
    },
    /// Only the owner changes the bits.
    #[error("{path}: permission denied: {user} is not its owner")]
    NotOwner {
        /// What was asked for.
        path: NsPath,
        /// Who asked.
        user: String,
    },
    /// Only the superuser gives things away.
    #[error("{path}: permission denied: {user} is not the superuser, who alone changes owners and groups")]
    NotSuperuser {
        /// What was asked for.
        path: NsPath,
        /// Who asked.
        user: String,
    },
    /// A rename of a directory below itself.
    #[error("{path}: cannot be moved into itself ({target})")]
    IntoItself {
        /// The directory.
        path: NsPath,
        /// The new path.
        target: NsPath,
    },
    /// What lies there has no path that could be given.
    #[error("{at}: limit exceeded: what is below has paths that are too long to be given: move it up")]
    TooDeep {
        /// The directory that holds it.
        at: String,
    },
    /// The root is neither made, renamed nor removed.
    #[error("/: the root directory stays as it is")]
    Root,
    /// No unfinished file of this id: completed, given up, expired, or another user's.
    #[error("{path}: the lease has expired: it is not being written by {user} (any more): write it again")]
    NotOpen {
        /// The path, where it is known.
        path: String,
        /// Who asked.
        user: String,
    },
    /// The chunks of a completion are not those of the file.
    #[error("{path}: chunk list refused: {why}")]
    Chunks {
        /// Which file.
        path: NsPath,
        /// What does not fit.
        why: String,
    },
    /// A chunk id below the high-water mark: a mistake of the leader's.
    #[error("{path}: chunk id {chunk} was handed out before")]
    ChunkIdReused {
        /// Which file.
        path: NsPath,
        /// The id.
        chunk: ChunkId,
    },
    /// A chunk that no file can be made of: its grant was given up, or a file has it.
    #[error("{path}: the lease has expired: chunk {chunk} is not to be written (any more): write it again")]
    NotSpare {
        /// Which file.
        path: NsPath,
        /// The chunk.
        chunk: ChunkId,
    },
    /// A limit of the namespace.
    #[error("{path}: limit exceeded: {what} (at most {max})")]
    Limit {
        /// Where.
        path: String,
        /// Of what.
        what: &'static str,
        /// How many.
        max: u64,
    },
    /// The request id was used for another kind of request.
    #[error("{place}: request id used before for another request: draw a new one for each")]
    RequestReused {
        /// Where.
        place: Place,
    },
    /// The path names another file than when the reader began.
    #[error("{path}: no such file or directory: what was being read was replaced or removed: read it again")]
    Replaced {
        /// Which.
        path: NsPath,
    },
    /// A field that does not fit.
    #[error("{path}: {what}")]
    Invalid {
        /// Where.
        path: String,
        /// What does not fit.
        what: String,
    },
}

impl NamespaceError {
    /// The number that a caller sees.
    pub(crate) fn code(&self) -> ErrorCode {
        match self {
            Self::NotFound { .. } | Self::Replaced { .. } => ErrorCode::NotFound,
            Self::AlreadyExists { .. } => ErrorCode::AlreadyExists,
            Self::IsADirectory { .. } => ErrorCode::IsADirectory,
            Self::NotADirectory { .. } => ErrorCode::NotADirectory,
            Self::NotEmpty { .. } => ErrorCode::NotEmpty,
            Self::PermissionDenied { .. }
            | Self::Sticky { .. }
            | Self::NotOwner { .. }
            | Self::NotSuperuser { .. } => ErrorCode::PermissionDenied,
            Self::NotOpen { .. } | Self::NotSpare { .. } => ErrorCode::LeaseExpired,
            Self::Limit { .. } | Self::TooDeep { .. } => ErrorCode::LimitExceeded,
            Self::ChunkIdReused { .. } => ErrorCode::Internal,
            Self::IntoItself { .. }
            | Self::Root
            | Self::Chunks { .. }
            | Self::RequestReused { .. }
            | Self::Invalid { .. } => ErrorCode::InvalidArgument,
        }
    }
}
