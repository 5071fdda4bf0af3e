//! What a log is started with.

use std::path::PathBuf;

use distrifs_proto::types::{ClusterId, Epoch};

use crate::io::IoMode;

use super::limits::{SEGMENT_BYTES_DEFAULT, SEGMENTS_MAX};

/// What a log is started with.
#[derive(Debug, Clone)]
pub struct LogOptions {
    /// The folder of the log; the one that was recovered.
    pub dir: PathBuf,
    /// The cluster whose log this is.
    pub cluster: ClusterId,
    /// The leadership in whose name records are appended; it never goes back.
    pub epoch: Epoch,
    /// How to write.
    pub mode: IoMode,
    /// The size of new segments: a multiple of 4096 within
    /// [`SEGMENT_BYTES_MIN`](super::SEGMENT_BYTES_MIN) and [`SEGMENT_BYTES_MAX`](super::SEGMENT_BYTES_MAX).
    pub segment_bytes: u64,
    /// The most segments on disk, from 3 to [`SEGMENTS_MAX`]. An append that needs one more gets
    /// [`LogError::NoSpace`](super::LogError::NoSpace) until some are released.
    pub segments_max: usize,
}

impl LogOptions {
    /// The defaults for the log in `dir`.
    #[must_use]
    pub fn new(dir: PathBuf, cluster: ClusterId, epoch: Epoch) -> Self {
        Self {
            dir,
            cluster,
            epoch,
            mode: IoMode::Auto,
            segment_bytes: SEGMENT_BYTES_DEFAULT,
            segments_max: SEGMENTS_MAX,
        }
    }
}
