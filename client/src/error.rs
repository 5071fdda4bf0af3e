//! Why a call of the client failed: facts, an [`ErrorCode`] for programs, one line for people.

use std::io;
use std::time::Duration;

use distrifs_proto::ErrorCode;
use distrifs_proto::types::{ChunkId, Crc32c, NodeId};

/// The outcome of a call of the client.
pub type Result<T, E = ClientError> = std::result::Result<T, E>;

/// Why a call failed. The text is one line: the path, the cause and, where there is one, the way out.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The master refused, and said why.
    #[error("{}", with_path(path, text))]
    Refused {
        /// What the call was about.
        path: String,
        /// The master's reason.
        code: ErrorCode,
        /// The master's words.
        text: String,
    },
    /// No master gave an answer in time.
    #[error(
        "{path}: no master answered within {:.1} s: {last}; asked {masters}: check the address and that it runs",
        waited.as_secs_f64()
    )]
    NoMaster {
        /// What the call was about.
        path: String,
        /// Who was asked.
        masters: String,
        /// For how long.
        waited: Duration,
        /// What the last attempt met.
        last: String,
    },
    /// A chunk could not be written on enough datanodes.
    #[error("{path}: chunk {index} was given up after {tries} tries: {last}; see `distrifs nodes`")]
    NotWritten {
        /// The file.
        path: String,
        /// Which chunk, from 0.
        index: u64,
        /// How many pipelines were tried.
        tries: u32,
        /// What the last one failed with.
        code: ErrorCode,
        /// The same in words.
        last: String,
    },
    /// No replica of a chunk passes its checksum.
    #[error(
        "{path}: chunk {index} ({chunk}): no replica passes its checksum: {tried}; restore the file from a copy"
    )]
    Corrupt {
        /// The file.
        path: String,
        /// Which chunk, from 0.
        index: u64,
        /// Its identity.
        chunk: ChunkId,
        /// What was tried.
        tried: String,
    },
    /// No replica of a chunk could be read in time.
    #[error("{path}: chunk {index} ({chunk}): no replica within reach: {tried}; see `distrifs nodes`")]
    Unreachable {
        /// The file.
        path: String,
        /// Which chunk, from 0.
        index: u64,
        /// Its identity.
        chunk: ChunkId,
        /// What was tried.
        tried: String,
    },
    /// The path names another file than when the get began.
    #[error("{path}: the file was replaced or removed while it was read: get it again")]
    Replaced {
        /// The file.
        path: String,
    },
    /// One named replica failed.
    #[error("chunk {chunk}: node {node}: {text}")]
    Replica {
        /// The chunk.
        chunk: ChunkId,
        /// Where its replica is.
        node: NodeId,
        /// Why it failed.
        code: ErrorCode,
        /// The same in words.
        text: String,
    },
    /// A datanode does not tell of itself.
    #[error("node {node}: {text}")]
    Datanode {
        /// Which one.
        node: NodeId,
        /// Why.
        code: ErrorCode,
        /// The same in words.
        text: String,
    },
    /// The source is not what it was when the put began.
    #[error("{path}: the source changed while it was read: {what}; put it again once it is at rest")]
    SourceChanged {
        /// The file to be written.
        path: String,
        /// What was noticed.
        what: String,
    },
    /// The source could not be read.
    #[error("{path}: cannot read the source: {cause}")]
    Source {
        /// The file to be written.
        path: String,
        /// Why.
        cause: io::Error,
    },
    /// The target could not be written.
    #[error("{path}: cannot write the target: {cause}")]
    Target {
        /// The file that was read.
        path: String,
        /// Why.
        cause: io::Error,
    },
    /// The call itself makes no sense.
    #[error("{path}: {what}")]
    Invalid {
        /// What the call was about.
        path: String,
        /// What is wrong with it.
        what: String,
    },
    /// A peer said what no sound peer says: report a bug.
    #[error("{path}: {peer} broke the protocol: {what}")]
    Protocol {
        /// What the call was about.
        path: String,
        /// Who.
        peer: String,
        /// How.
        what: String,
    },
    /// Every chunk is as the master says, but the file they make is not.
    #[error(
        "{path}: data corrupt: the bytes have checksum {found}, the file's is {expected}: nothing of it is kept"
    )]
    WholeCorrupt {
        /// The file.
        path: String,
        /// Of the bytes that were read.
        found: Crc32c,
        /// Of the file when it was completed.
        expected: Crc32c,
    },
    /// The master's record of the file is not what was sent.
    #[error("{path}: sent {sent}, but the master recorded {recorded}: report this")]
    Mismatch {
        /// The file.
        path: String,
        /// Checksum and length of what was sent.
        sent: Crc32c,
        /// What the master holds for the file's checksum.
        recorded: Crc32c,
    },
    /// A task of this client ended abnormally: report a bug.
    #[error("{path}: a transfer task ended abnormally: {text}")]
    Task {
        /// What the call was about.
        path: String,
        /// What is known.
        text: String,
    },
}

impl ClientError {
    /// The reason, as a stable number.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Refused { code, .. }
            | Self::NotWritten { code, .. }
            | Self::Replica { code, .. }
            | Self::Datanode { code, .. } => *code,
            Self::NoMaster { .. } | Self::Unreachable { .. } | Self::Replaced { .. } => {
                ErrorCode::Unavailable
            }
            Self::Corrupt { .. } | Self::WholeCorrupt { .. } => ErrorCode::Corrupt,
            Self::SourceChanged { .. } | Self::Invalid { .. } => ErrorCode::InvalidArgument,
            Self::Source { .. } | Self::Target { .. } => ErrorCode::Disk,
            Self::Protocol { .. } => ErrorCode::Protocol,
            Self::Mismatch { .. } | Self::Task { .. } => ErrorCode::Internal,
        }
    }
}

/// The master's words, behind the path unless they begin with it; in them a control character is a question mark.
fn with_path(path: &str, text: &str) -> String {
    let begins = text.starts_with(&path.replace(char::is_control, "?"));
    if begins || path.is_empty() { text.to_owned() } else { format!("{path}: {text}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_is_named_once() {
        let refused = |text: &str| {
            let code = ErrorCode::PermissionDenied;
            ClientError::Refused { path: "/a".into(), code, text: text.into() }.to_string()
        };
        assert_eq!(refused("/a: permission denied"), "/a: permission denied");
        assert_eq!(refused("permission denied"), "/a: permission denied");
        let (path, text) = ("/x\ny".to_owned(), "/x?y: no such file or directory".to_owned());
        let refused = ClientError::Refused { path, code: ErrorCode::NotFound, text };
        assert_eq!(refused.to_string(), "/x?y: no such file or directory");
    }
}
