//! Letting go of the oldest segments, once a checkpoint holds what is in them.
//!
//! The order survives a power cut at every step: the witness with the first sequence that is kept is durable
//! first, then the files go, then the folder is synced. Files that stay, after a crash or a failure, are below the
//! witness's first sequence: the next release or recovery removes them.
//!
//! All of this runs on a thread of its own, beside the log's: three syncs and the unlinks of many megabytes would
//! make appends wait. Only the plan is made on the log's thread, which takes no I/O.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use distrifs_proto::types::Lsn;

use super::error::{LogError, is_no_space};
use super::format::{WITNESS_NAME, Witness, segment_name};
use super::prepare::write_witness;
use super::stats::Counters;
use crate::folder::Folder;

/// What a release removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Released {
    /// Segments that are gone.
    pub segments: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Segments that are no longer part of the log but could not be removed. The next release tries again.
    pub left: u64,
    /// The first record that is kept, or would be.
    pub first_lsn: Lsn,
}

/// A segment that is or was in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct KeptSegment {
    pub(crate) sequence: u64,
    /// Its first record; when it has none, the next one's.
    pub(crate) first_lsn: Lsn,
    pub(crate) bytes: u64,
}

/// How many segments from the oldest on hold no record after `upto`. The last one is in use: it never counts.
pub(super) fn releasable(kept: &VecDeque<KeptSegment>, upto: Lsn) -> usize {
    let next = upto.0.saturating_add(1);
    kept.iter().skip(1).take_while(|following| following.first_lsn.0 <= next).count()
}

/// What the thread is to do.
pub(super) struct Job {
    pub(super) folder: Folder,
    /// With the first sequence that is kept.
    pub(super) witness: Witness,
    pub(super) first_lsn: Lsn,
    /// Oldest first.
    pub(super) remove: Vec<KeptSegment>,
    pub(super) counters: Arc<Counters>,
}

impl Job {
    /// Does it, and says which segments are still there.
    pub(super) fn run(self) -> (Result<Released, LogError>, Vec<KeptSegment>) {
        let file = self.folder.file(WITNESS_NAME);
        if let Err(error) = write_witness(&self.folder, &self.witness) {
            let cause = Arc::new(error);
            let error = match is_no_space(&cause) {
                true => LogError::NoSpace { segment: file, cause },
                false => LogError::Io { path: file, doing: "write the witness", cause },
            };
            return (Err(error), self.remove);
        }
        self.counters.begins_with(self.first_lsn);
        let mut released = Released { segments: 0, bytes: 0, left: 0, first_lsn: self.first_lsn };
        let mut left = Vec::new();
        for segment in self.remove {
            let name = segment_name(segment.sequence);
            match self.folder.remove(&name) {
                Ok(()) => {
                    released.segments += 1;
                    released.bytes += segment.bytes;
                }
                // Somebody was faster; it is gone.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    tracing::warn!(file = %self.folder.file(&name).display(), %error, "a released log segment stays");
                    released.left += 1;
                    left.push(segment);
                    continue;
                }
            }
            self.counters.removed(segment.bytes);
        }
        let synced = self.folder.sync_folder().map_err(|cause| LogError::Io {
            path: self.folder.path().to_owned(),
            doing: "sync the folder of the released segments in",
            cause: Arc::new(cause),
        });
        (synced.map(|()| released), left)
    }
}

#[cfg(test)]
mod tests {
    use distrifs_proto::types::Lsn;

    use super::{KeptSegment, releasable};

    #[test]
    fn only_segments_without_a_later_record_count_and_never_the_one_in_use() {
        let kept = |firsts: &[u64]| {
            let segment = |(i, first): (usize, &u64)| KeptSegment {
                sequence: i as u64 + 5,
                first_lsn: Lsn(*first),
                bytes: 8192,
            };
            firsts.iter().enumerate().map(segment).collect()
        };
        let cases: [(&[u64], u64, usize); 12] = [
            (&[], 100, 0),
            (&[1], 100, 0),
            (&[1, 11], 9, 0),
            (&[1, 11], 10, 1),
            (&[1, 11, 21], 19, 1),
            (&[1, 11, 21], 20, 2),
            (&[1, 11, 21], u64::MAX, 2),
            (&[11, 21, 31], 5, 0),
            (&[11, 21, 31], 20, 1),
            // A segment without records.
            (&[1, 11, 11, 21], 9, 0),
            (&[1, 11, 11, 21], 10, 2),
            (&[1, 1, 11], 0, 1),
        ];
        for (firsts, upto, expected) in cases {
            assert_eq!(releasable(&kept(firsts), Lsn(upto)), expected, "{firsts:?} {upto}");
        }
    }
}
