//! Why something was refused: stable numbers, the same in gRPC statuses and in data-plane frames.
//!
//! In gRPC the number travels in the metadata key [`METADATA_KEY`] of the status, beside a one-line message.

use std::fmt;

/// The key under which a gRPC status carries the number of its [`ErrorCode`].
pub const METADATA_KEY: &str = "x-distrifs-code";

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $text:literal;)*) => {
        /// Why something was refused. Numbers are never reused.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u16)]
        pub enum ErrorCode {
            $($(#[$doc])* $name = $number,)*
        }

        impl ErrorCode {
            /// All of them, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The code of a number from the wire; `None` for one that a newer version may know.
            #[must_use]
            pub fn from_number(number: u16) -> Option<Self> {
                match number {
                    $($number => Some(Self::$name),)*
                    _ => None,
                }
            }
        }

        impl fmt::Display for ErrorCode {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self {
                    $(Self::$name => $text,)*
                })
            }
        }
    };
}

codes! {
    /// The request itself is malformed: fix the request.
    InvalidArgument = 1, "invalid argument";
    /// No such file or directory.
    NotFound = 2, "no such file or directory";
    /// The target exists and was not to be replaced.
    AlreadyExists = 3, "already exists";
    /// A directory where a file is meant.
    IsADirectory = 4, "is a directory";
    /// A file where a directory is meant.
    NotADirectory = 5, "is not a directory";
    /// A directory that has entries.
    NotEmpty = 6, "directory not empty";
    /// The caller may not.
    PermissionDenied = 7, "permission denied";
    /// Fewer live datanodes than the replication factor.
    NotEnoughDatanodes = 8, "not enough datanodes";
    /// No room on the disks that would have to take it.
    NoSpace = 9, "no space left";
    /// The master still gathers reports.
    SafeMode = 10, "the master is in safe mode";
    /// The writer's lease ended or belongs to another.
    LeaseExpired = 11, "the lease has expired";
    /// The epoch is lower than one seen before: a replaced master or a stale writer.
    StaleEpoch = 12, "stale epoch";
    /// The generation stamp is lower than the chunk's.
    StaleGeneration = 13, "stale generation";
    /// A checksum does not match.
    Corrupt = 14, "checksum mismatch";
    /// The datanode has no such replica.
    NoSuchChunk = 15, "no such chunk";
    /// The peer speaks out of turn or another version.
    Protocol = 16, "protocol violation";
    /// A disk failed under the operation.
    Disk = 17, "disk error";
    /// A hop of the pipeline could not be reached or went away.
    HopFailed = 18, "a hop of the pipeline failed";
    /// Nobody answers now; the same request may succeed later.
    Unavailable = 19, "unavailable";
    /// A limit of the system was reached.
    LimitExceeded = 20, "limit exceeded";
    /// Nothing more is known than that it failed on their side: report a bug.
    Internal = 21, "internal error";
    /// The folder or peer belongs to another cluster.
    WrongCluster = 22, "another cluster";
    /// It may or may not have happened; ask again with the same request id.
    Unknown = 23, "outcome unknown";
    /// The peer has all the work it may hold; try again shortly.
    Busy = 24, "busy";
}

impl ErrorCode {
    /// The number on the wire.
    #[must_use]
    pub fn number(self) -> u16 {
        self as u16
    }

    /// Whether the same request, unchanged, may succeed a little later.
    #[must_use]
    pub fn retryable(self) -> bool {
        matches!(self, Self::Unavailable | Self::Busy | Self::Unknown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_survive_the_wire_and_unknown_ones_are_not_guessed() {
        for &code in ErrorCode::ALL {
            assert_eq!(ErrorCode::from_number(code.number()), Some(code));
        }
        assert_eq!(ErrorCode::from_number(0), None);
        assert_eq!(ErrorCode::from_number(999), None);
    }
}
