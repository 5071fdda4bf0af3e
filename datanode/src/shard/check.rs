//! Reads replicas whole, from the device, and says what they are: because somebody complained, because somebody
//! relies on them, or in the course of the scrub. One at a time in each shard, so that it never crowds out others.

use std::rc::Rc;
use std::time::Duration;

use distrifs_engine::store::{ChunkReader, ReplicaInfo, StoreError};
use distrifs_proto::frame::PAYLOAD_START;
use distrifs_proto::limits::FRAME_PAYLOAD_BYTES_MAX;
use distrifs_proto::types::ChunkId;
use tokio::sync::mpsc;

use super::{Shard, ShardEvent};
use crate::node::Counters;

/// Checks that wait for their turn in one shard.
pub(super) const CHECKS_MAX: usize = 1024;

/// A replica to be read whole.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Check {
    pub(crate) chunk: ChunkId,
    pub(crate) disk: usize,
    /// It counted as damaged when this was ordered.
    pub(crate) marked: bool,
    /// For the scrub: no faster than so many bytes in a second.
    pub(crate) bytes_per_second: Option<u64>,
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

impl Shard {
    /// Checks one after the other.
    pub(super) async fn check_all(self: Rc<Self>, mut checks: mpsc::Receiver<Check>) {
        while let Some(check) = checks.recv().await {
            let Check { chunk, disk, marked, .. } = check;
            let mut bytes = 0;
            let found = match self.check(check, &mut bytes).await {
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

    async fn check(&self, check: Check, bytes: &mut u64) -> Result<ReplicaInfo, StoreError> {
        let reader = self.open_direct(check.chunk, check.disk).await?;
        let began = self.io.now();
        while *bytes < reader.header().length {
            let piece = piece_at(&reader, *bytes);
            let buffer = self.buffers.for_check().await;
            let (read, buffer) = reader.read(buffer, PAYLOAD_START, &piece).await;
            read?;
            let length = (piece.end - piece.start) as usize;
            reader.verify(&buffer[PAYLOAD_START..PAYLOAD_START + length], &piece)?;
            drop(buffer);
            *bytes = piece.end;
            Counters::add(&self.node.counters.bytes_checked, length as u64);
            if let Some(rate) = check.bytes_per_second {
                let due = Duration::from_secs_f64(*bytes as f64 / rate.max(1) as f64);
                self.io.sleep((began + due).saturating_sub(self.io.now())).await;
            }
        }
        Ok(reader.header().replica())
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
