//! Removing segments that a checkpoint has made superfluous.
//!
//! The order that a power cut may interrupt anywhere: the witness that names the first segment that must exist is
//! durable before the first one below it goes; the segments go in order; the folder is synced. A recovery removes
//! what is left below the witness's first.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use distrifs_proto::types::Lsn;
use tokio::sync::oneshot;

use super::error::LogError;
use super::format::{Witness, segment_name};
use super::prepare::write_witness;
use super::recovery::Kept;
use crate::folder::Folder;

/// What a release removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Released {
    /// Segments.
    pub segments: u64,
    /// Their bytes on the disk.
    pub bytes: u64,
}

/// The first sequence to be kept when everything up to `upto` may go; `None`: nothing can go. The last segment is
/// the one in use.
pub(super) fn plan(kept: &VecDeque<Kept>, upto: Lsn) -> Option<u64> {
    let goes = |next: &Kept| next.first_lsn.0 <= upto.0.saturating_add(1);
    let first = kept.iter().skip(1).take_while(|next| goes(next)).last()?;
    Some(first.sequence)
}

/// A release on its way. It resolves to the new first sequence once its witness is durable.
pub(super) struct Releasing {
    done: oneshot::Receiver<Option<u64>>,
}

impl Releasing {
    /// Has everything from `from` up to the witness's first sequence removed, and tells the caller.
    pub(super) fn begin(
        folder: Folder,
        from: u64,
        witness: Witness,
        kept: &VecDeque<Kept>,
        answer: oneshot::Sender<Result<Released, LogError>>,
    ) -> Self {
        let first = witness.first_sequence;
        let gone = kept.iter().filter(|kept| kept.sequence < first);
        let released = gone.fold(Released::default(), |sum, kept| Released {
            segments: sum.segments + 1,
            bytes: sum.bytes + kept.bytes,
        });
        let (tell, done) = oneshot::channel();
        let work = move || {
            let failed =
                |doing, cause| LogError::Io { path: folder.path().to_owned(), doing, cause: Arc::new(cause) };
            if let Err(cause) = write_witness(&folder, &witness) {
                let _ = tell.send(None);
                let _ = answer.send(Err(failed("write the witness", cause)));
                return;
            }
            let removed = remove(&folder, from..first);
            // The log's thread first: whoever hears of the release may rely on its effect.
            let _ = tell.send(Some(first));
            let _ = answer.send(removed.map(|()| released).map_err(|cause| failed("remove segments", cause)));
        };
        // Without a thread both ends are dropped: nothing was released.
        let _ = std::thread::Builder::new().name("log-release".into()).spawn(work);
        Self { done }
    }

    /// What became of it, if it has ended: the new first sequence, or none when it failed.
    pub(super) fn look(&mut self) -> Option<Option<u64>> {
        match self.done.try_recv() {
            Ok(first) => Some(first),
            Err(oneshot::error::TryRecvError::Empty) => None,
            Err(oneshot::error::TryRecvError::Closed) => Some(None),
        }
    }

    /// Waits for its end.
    pub(super) async fn end(self) -> Option<u64> {
        self.done.await.unwrap_or_default()
    }
}

fn remove(folder: &Folder, sequences: std::ops::Range<u64>) -> io::Result<()> {
    for sequence in sequences {
        match folder.remove(&segment_name(sequence)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    folder.sync_folder()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_covered_goes_and_never_the_one_in_use() {
        let kept = |firsts: &[u64]| {
            let kept = firsts.iter().enumerate();
            kept.map(|(i, first)| Kept { sequence: i as u64 + 5, first_lsn: Lsn(*first), bytes: 1 }).collect()
        };
        let cases: [(&[u64], u64, Option<u64>); 9] = [
            (&[], 100, None),
            (&[1], 100, None),
            (&[1, 11], 9, None),
            (&[1, 11], 10, Some(6)),
            (&[1, 11], 100, Some(6)),
            (&[1, 11, 21], 19, Some(6)),
            (&[1, 11, 21], 20, Some(7)),
            (&[1, 11, 11, 11], 10, Some(8)),
            (&[1, 11], u64::MAX, Some(6)),
        ];
        for (firsts, upto, expected) in cases {
            assert_eq!(plan(&kept(firsts), Lsn(upto)), expected, "{firsts:?} {upto}");
        }
    }
}
