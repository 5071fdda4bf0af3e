//! The exit status of a command: numbers that scripts rely on, and which error gives which.

use std::process::ExitCode;

use distrifs_proto::ErrorCode;

/// What the shell sees. The numbers are public and never change their meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ExitStatus {
    /// Done.
    Done,
    /// Any other failure.
    Failed,
    /// The command line, the environment or the configuration file is wrong.
    Usage,
    /// No such file or directory.
    NotFound,
    /// Already exists, not empty, is a directory, is not a directory.
    WrongKind,
    /// Permission denied.
    PermissionDenied,
    /// Too few datanodes, safe mode, or no space.
    WriteDenied,
    /// No replica passes its checksum.
    Corrupt,
    /// No master or no replica reachable in time.
    Unavailable,
    /// Ended by this signal, as shells report it.
    Signalled(u8),
}

impl ExitStatus {
    /// The number.
    pub(crate) fn number(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::NotFound => 3,
            Self::WrongKind => 4,
            Self::PermissionDenied => 5,
            Self::WriteDenied => 6,
            Self::Corrupt => 7,
            Self::Unavailable => 8,
            Self::Signalled(signal) => 128 + signal,
        }
    }

    /// What a refusal by the cluster means to the shell.
    pub(crate) fn of(code: ErrorCode) -> Self {
        match code {
            // The path or a value on the command line is malformed: a retry cannot help, another line does.
            ErrorCode::InvalidArgument => Self::Usage,
            ErrorCode::NotFound => Self::NotFound,
            ErrorCode::AlreadyExists
            | ErrorCode::IsADirectory
            | ErrorCode::NotADirectory
            | ErrorCode::NotEmpty => Self::WrongKind,
            ErrorCode::PermissionDenied => Self::PermissionDenied,
            ErrorCode::NotEnoughDatanodes | ErrorCode::NoSpace | ErrorCode::SafeMode => Self::WriteDenied,
            ErrorCode::Corrupt => Self::Corrupt,
            ErrorCode::Unavailable
            | ErrorCode::HopFailed
            | ErrorCode::NoSuchChunk
            | ErrorCode::StaleEpoch
            | ErrorCode::Unknown
            | ErrorCode::Busy => Self::Unavailable,
            ErrorCode::LeaseExpired
            | ErrorCode::StaleGeneration
            | ErrorCode::Protocol
            | ErrorCode::Disk
            | ErrorCode::LimitExceeded
            | ErrorCode::Internal
            | ErrorCode::WrongCluster => Self::Failed,
        }
    }
}

impl From<ExitStatus> for ExitCode {
    fn from(status: ExitStatus) -> Self {
        Self::from(status.number())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The contract's table, written out once more: a changed number must be changed here too.
    const TABLE: &[(ErrorCode, u8)] = &[
        (ErrorCode::InvalidArgument, 2),
        (ErrorCode::NotFound, 3),
        (ErrorCode::AlreadyExists, 4),
        (ErrorCode::IsADirectory, 4),
        (ErrorCode::NotADirectory, 4),
        (ErrorCode::NotEmpty, 4),
        (ErrorCode::PermissionDenied, 5),
        (ErrorCode::NotEnoughDatanodes, 6),
        (ErrorCode::NoSpace, 6),
        (ErrorCode::SafeMode, 6),
        (ErrorCode::LeaseExpired, 1),
        (ErrorCode::StaleEpoch, 8),
        (ErrorCode::StaleGeneration, 1),
        (ErrorCode::Corrupt, 7),
        (ErrorCode::NoSuchChunk, 8),
        (ErrorCode::Protocol, 1),
        (ErrorCode::Disk, 1),
        (ErrorCode::HopFailed, 8),
        (ErrorCode::Unavailable, 8),
        (ErrorCode::LimitExceeded, 1),
        (ErrorCode::Internal, 1),
        (ErrorCode::WrongCluster, 1),
        (ErrorCode::Unknown, 8),
        (ErrorCode::Busy, 8),
    ];

    #[test]
    fn every_error_code_has_the_status_of_the_contract() {
        for &code in ErrorCode::ALL {
            let expected = TABLE.iter().find(|(known, _)| *known == code).map(|(_, number)| *number);
            assert_eq!(Some(ExitStatus::of(code).number()), expected, "{code:?}");
        }
        assert_eq!(TABLE.len(), ErrorCode::ALL.len());
    }

    #[test]
    fn signals_are_reported_as_shells_do() {
        assert_eq!(ExitStatus::Signalled(2).number(), 130);
        assert_eq!(ExitStatus::Signalled(15).number(), 143);
        assert_eq!(ExitStatus::Done.number(), 0);
    }
}
