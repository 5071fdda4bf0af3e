//! What a log is started with.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use distrifs_proto::types::{ClusterId, Epoch};

use super::limits::SEGMENT_BYTES_DEFAULT;

/// How the log's thread writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogMode {
    /// io_uring where it works, POSIX where it is denied.
    #[default]
    Auto,
    /// io_uring, or an error.
    Uring,
    /// `pwrite`.
    Posix,
}

/// Text that is not a mode.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an I/O mode: {0:?}: expected auto, uring or posix")]
pub struct BadMode(pub String);

impl FromStr for LogMode {
    type Err = BadMode;
    fn from_str(text: &str) -> Result<Self, BadMode> {
        match text {
            "auto" => Ok(Self::Auto),
            "uring" => Ok(Self::Uring),
            "posix" => Ok(Self::Posix),
            _ => Err(BadMode(text.chars().take(80).collect())),
        }
    }
}

impl fmt::Display for LogMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Uring => "uring",
            Self::Posix => "posix",
        })
    }
}

/// What a log is started with.
#[derive(Debug, Clone)]
pub struct LogOptions {
    /// The folder of the segments; the one that was recovered.
    pub dir: PathBuf,
    /// The cluster whose log this is.
    pub cluster: ClusterId,
    /// The leadership in whose name records are appended; it never goes back.
    pub epoch: Epoch,
    /// How to write.
    pub mode: LogMode,
    /// The size of new segments: a multiple of 4096 within
    /// [`SEGMENT_BYTES_MIN`](super::SEGMENT_BYTES_MIN) and [`SEGMENT_BYTES_MAX`](super::SEGMENT_BYTES_MAX).
    pub segment_bytes: u64,
}

impl LogOptions {
    /// The defaults for the log in `dir`.
    #[must_use]
    pub fn new(dir: PathBuf, cluster: ClusterId, epoch: Epoch) -> Self {
        Self { dir, cluster, epoch, mode: LogMode::Auto, segment_bytes: SEGMENT_BYTES_DEFAULT }
    }
}

#[cfg(test)]
mod tests {
    use super::LogMode;

    #[test]
    fn modes_survive_the_way_through_text() {
        for mode in [LogMode::Auto, LogMode::Uring, LogMode::Posix] {
            assert_eq!(mode.to_string().parse(), Ok(mode));
        }
        assert!("URING".parse::<LogMode>().is_err());
    }
}
