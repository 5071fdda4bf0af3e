//! Reads replicas whole, from the device, and says what they are: because somebody complained, because somebody
//! relies on them, or in the course of the scrub. One at a time in each shard, so that it never crowds out others. The
//! scrub makes way for users and for the other checks between any two pieces.

use std::rc::Rc;
use std::time::Duration;

use distrifs_engine::store::{ChunkReader, ReplicaInfo, StoreError};
use distrifs_proto::frame::PAYLOAD_START;
use distrifs_proto::limits::FRAME_PAYLOAD_BYTES_MAX;
use distrifs_proto::types::ChunkId;
use tokio::sync::mpsc;

use super::{Shard, ShardEvent};
use crate::node::Counters;
use crate::pace::{Pace, Progress, Quiet};

/// Checks that wait for their turn in one shard.
pub(super) const CHECKS_MAX: usize = 1024;
/// The same of the scrub, which gives one and waits for its end, unless that takes too long.
pub(super) const SCRUBS_MAX: usize = 4;
/// Between two looks at users who are waited for.
const LOOK: Duration = Duration::from_millis(20);

/// A replica to be read whole.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Check {
    pub(crate) chunk: ChunkId,
    pub(crate) disk: usize,
    /// It counted as damaged when this was ordered.
    pub(crate) marked: bool,
    /// For the scrub. Without it somebody waits.
    pub(crate) pace: Option<Pace>,
}

/// What a replica was found to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Found {
    /// As it was committed.
    Sound(ReplicaInfo),
    /// Damaged, or on a disk that does not give it.
    Corrupt,
    /// Not there.
    Gone,
}

/// A replica on its way through the scrub.
struct Scrubbed {
    check: Check,
    pace: Pace,
    reader: ChunkReader,
    began: Duration,
    progress: Progress,
}

impl Shard {
    /// Checks one after the other: those that somebody waits for, and between their pieces those of the scrub.
    pub(super) async fn check_all(
        self: Rc<Self>,
        mut asked: mpsc::Receiver<Check>,
        mut scrubs: mpsc::Receiver<Check>,
    ) {
        let mut quiet = Quiet::default();
        let mut scrubbed: Option<Scrubbed> = None;
        loop {
            let Some(it) = &mut scrubbed else {
                tokio::select! {
                    biased;
                    Some(check) = asked.recv() => self.check(check).await,
                    Some(check) = scrubs.recv() => scrubbed = self.begin_scrub(check).await,
                    else => return,
                }
                continue;
            };
            let quiet = quiet.look(self.io.now(), self.node.counters.load());
            let wait = it.pace.wait(self.io.now() - it.began, &it.progress, quiet);
            let check = if wait.is_zero() {
                asked.try_recv().ok()
            } else {
                self.io.timeout(wait.min(LOOK), asked.recv()).await.ok().flatten()
            };
            if let Some(check) = check {
                self.check(check).await;
                // What is told of it by now is newer than the pieces that were read before.
                scrubbed = scrubbed.filter(|it| it.check.chunk != check.chunk);
            } else if wait.is_zero() && self.scrub_piece(it).await {
                scrubbed = None;
            }
        }
    }

    async fn begin_scrub(&self, check: Check) -> Option<Scrubbed> {
        let Some(pace) = check.pace else {
            self.check(check).await;
            return None;
        };
        match self.open_direct(check.chunk, check.disk).await {
            Ok(reader) => {
                Some(Scrubbed { check, pace, reader, began: self.io.now(), progress: Progress::default() })
            }
            Err(error) => {
                self.conclude(check, Err(error), 0).await;
                None
            }
        }
    }

    /// Reads the next piece; whether that was the last one.
    async fn scrub_piece(&self, it: &mut Scrubbed) -> bool {
        let (began, at) = (self.io.now() - it.began, it.progress.bytes);
        let read = self.check_piece(&it.reader, at).await;
        if let Ok(bytes) = read {
            it.progress = Progress { bytes: at + bytes, last: (began, bytes) };
        }
        let header = it.reader.header();
        if read.is_ok() && it.progress.bytes < header.length {
            return false;
        }
        self.conclude(it.check, read.map(|_| header.replica()), it.progress.bytes).await;
        true
    }

    /// Reads a replica whole, at once.
    async fn check(&self, check: Check) {
        let mut bytes = 0;
        let found = async {
            let reader = self.open_direct(check.chunk, check.disk).await?;
            while bytes < reader.header().length {
                bytes += self.check_piece(&reader, bytes).await?;
            }
            Ok(reader.header().replica())
        };
        let found = found.await;
        self.conclude(check, found, bytes).await;
    }

    /// Reads the piece at `at`; its length.
    async fn check_piece(&self, reader: &ChunkReader, at: u64) -> Result<u64, StoreError> {
        let piece = piece_at(reader, at);
        let buffer = self.buffers.for_check().await;
        let (read, buffer) = reader.read(buffer, PAYLOAD_START, &piece).await;
        read?;
        let length = piece.end - piece.start;
        reader.verify(&buffer[PAYLOAD_START..PAYLOAD_START + length as usize], &piece)?;
        Counters::add(&self.node.counters.bytes_checked, length);
        Ok(length)
    }

    /// Notes and tells what a replica was found to be after `bytes` of it.
    async fn conclude(&self, check: Check, found: Result<ReplicaInfo, StoreError>, bytes: u64) {
        let Check { chunk, disk, marked, .. } = check;
        let found = match found {
            Ok(replica) => {
                if marked || self.marked.borrow().contains(&chunk) {
                    self.remember(chunk, disk, false).await;
                }
                Found::Sound(replica)
            }
            Err(StoreError::NoSuchChunk { .. }) => {
                // The mark would speak of the next replica.
                if marked || self.marked.borrow().contains(&chunk) {
                    self.remember(chunk, disk, false).await;
                }
                Found::Gone
            }
            Err(error) => {
                tracing::warn!(%chunk, folder = %self.disks[disk].root().display(), %error, "a replica is damaged");
                self.judge(disk, &error);
                self.readers.borrow_mut().remove(chunk);
                // Of a disk that does not answer this says nothing about the next start.
                if matches!(error, StoreError::Corrupt { .. }) {
                    self.remember(chunk, disk, true).await;
                }
                Found::Corrupt
            }
        };
        self.tell(ShardEvent::Checked { chunk, disk, found, bytes }).await;
    }

    /// Has the next start know what was found of a replica. Where that cannot be written, a later check finds it again.
    pub(super) async fn remember(&self, chunk: ChunkId, disk: usize, damaged: bool) {
        if !self.node.disks[disk].is_healthy() {
            return;
        }
        let store = &self.disks[disk];
        let noted = if damaged { store.mark_damaged(chunk).await } else { store.clear_mark(chunk).await };
        if let Err(error) = noted {
            tracing::warn!(%chunk, damaged, %error, "the next start will not know what was found of a replica");
            self.judge(disk, &error);
        } else if damaged {
            self.marked.borrow_mut().insert(chunk);
        } else {
            self.marked.borrow_mut().remove(&chunk);
        }
    }

    /// A replica on one disk, past the page cache, which may hide what has become of it.
    pub(super) async fn open_direct(&self, chunk: ChunkId, disk: usize) -> Result<ChunkReader, StoreError> {
        let Some(&cluster) = self.node.cluster.get() else { return Err(StoreError::NoSuchChunk { chunk }) };
        self.disks[disk].open_direct(cluster, chunk).await
    }
}

/// The next piece of a replica from `at` on: as much as a frame takes.
pub(super) fn piece_at(reader: &ChunkReader, at: u64) -> std::ops::Range<u64> {
    at..reader.header().length.min(at + FRAME_PAYLOAD_BYTES_MAX as u64)
}
