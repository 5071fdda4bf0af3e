//! What the threads of one datanode share: its identity, what it was shown, and counters.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use distrifs_engine::store;
use distrifs_proto::frame::LatencyReport;
use distrifs_proto::latency::{Stages, TraceRing};
use distrifs_proto::types::{ClusterId, Epoch, NodeId};

use crate::pace::Load;
use crate::stage::Stage;

/// Room that new chunks leave on a disk, so that deletes and sidecars never lack it: a fiftieth, at most this.
const DISK_RESERVE_BYTES_MAX: u64 = 1 << 30;

/// Shared by the shards and the control plane. Numbers are for decisions that tolerate their age.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) id: NodeId,
    /// Set once, when the node has joined; before that it takes no chunk.
    pub(crate) cluster: OnceLock<ClusterId>,
    epoch_seen: AtomicU64,
    pub(crate) disks: Vec<Disk>,
    pub(crate) counters: Counters,
    /// The histograms of each shard, set once: see [`Stages`](distrifs_proto::latency).
    pub(crate) latency: OnceLock<Vec<Arc<Stages<Stage>>>>,
    /// Of operations whose caller wants to know; others do not come here.
    traces: Mutex<TraceRing>,
}

/// One data folder, as the shards see it.
#[derive(Debug, Default)]
pub(crate) struct Disk {
    /// False once a write or sync failed: nothing new is put there before the next start.
    suspect: AtomicBool,
    available: AtomicU64,
    capacity: AtomicU64,
    /// The commits of late, in microseconds.
    commit_us: AtomicU64,
    /// What its stores and its journal count.
    pub(crate) store: Arc<store::Counters>,
}

/// What happened since the start.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) connections: AtomicU64,
    pub(crate) open_writes: AtomicU64,
    pub(crate) open_reads: AtomicU64,
    pub(crate) chunks_committed: AtomicU64,
    pub(crate) writes_failed: AtomicU64,
    pub(crate) bytes_received: AtomicU64,
    pub(crate) bytes_sent: AtomicU64,
    pub(crate) reads: AtomicU64,
    pub(crate) reads_failed: AtomicU64,
    pub(crate) frames_refused: AtomicU64,
    pub(crate) connections_refused: AtomicU64,
    pub(crate) bytes_checked: AtomicU64,
    pub(crate) copies_made: AtomicU64,
    pub(crate) copies_failed: AtomicU64,
    pub(crate) scrub_replicas: AtomicU64,
    pub(crate) scrub_corrupt: AtomicU64,
    pub(crate) scrub_oldest_seconds: AtomicU64,
    pub(crate) scrub_pass_permille: AtomicU64,
    pub(crate) folders_left_out: AtomicU64,
    pub(crate) chunks_in_quarantine: AtomicU64,
    pub(crate) journal_damaged: AtomicU64,
}

impl Node {
    pub(crate) fn new(id: NodeId, cluster: Option<ClusterId>, epoch_seen: Epoch, disks: usize) -> Self {
        Self {
            id,
            cluster: cluster.map(OnceLock::from).unwrap_or_default(),
            epoch_seen: AtomicU64::new(epoch_seen.0),
            disks: (0..disks).map(|_| Disk::default()).collect(),
            counters: Counters::default(),
            latency: OnceLock::new(),
            traces: Mutex::default(),
        }
    }

    /// What is remembered of traced operations.
    pub(crate) fn traces(&self) -> MutexGuard<'_, TraceRing> {
        self.traces.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The histograms of all shards, as one for each stage.
    pub(crate) fn latency_report(&self) -> LatencyReport {
        let shards = self.latency.get().map(Vec::as_slice).unwrap_or_default();
        let shards: Vec<&Stages<Stage>> = shards.iter().map(AsRef::as_ref).collect();
        LatencyReport { stages: Stages::report(&shards) }
    }

    /// The highest epoch a master has shown.
    pub(crate) fn epoch_seen(&self) -> Epoch {
        Epoch(self.epoch_seen.load(Ordering::Acquire))
    }

    /// A master has shown this epoch, and it is durable. Frames of clients never raise it: one forged epoch
    /// would shut every writer out.
    pub(crate) fn raise_epoch(&self, epoch: Epoch) {
        self.epoch_seen.fetch_max(epoch.0, Ordering::AcqRel);
    }

    /// The disk with most room that can take `bytes` more.
    pub(crate) fn disk_for(&self, bytes: u64) -> Option<usize> {
        let roomy = self.disks.iter().enumerate().filter(|(_, d)| d.is_healthy() && d.has_room(bytes));
        roomy.max_by_key(|(_, d)| d.available.load(Ordering::Relaxed)).map(|(i, _)| i)
    }
}

impl Disk {
    pub(crate) fn is_healthy(&self) -> bool {
        !self.suspect.load(Ordering::Acquire)
    }

    pub(crate) fn suspect(&self) {
        self.suspect.store(true, Ordering::Release);
    }

    pub(crate) fn set_room(&self, capacity: u64, available: u64) {
        self.capacity.store(capacity, Ordering::Relaxed);
        self.available.store(available, Ordering::Relaxed);
    }

    pub(crate) fn room(&self) -> (u64, u64) {
        (self.capacity.load(Ordering::Relaxed), self.available.load(Ordering::Relaxed))
    }

    /// A commit took so long. The mean moves by an eighth each time, as that of a round trip does (RFC 6298).
    pub(crate) fn committed_in(&self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1);
        let moved = |mean: u64| Some(if mean == 0 { us } else { mean - mean / 8 + us / 8 });
        // It is never refused.
        let _ = self.commit_us.fetch_update(Ordering::Relaxed, Ordering::Relaxed, moved);
    }

    /// How long the commits of late took, in microseconds; 0 before the first one.
    pub(crate) fn commit_us(&self) -> u64 {
        self.commit_us.load(Ordering::Relaxed)
    }

    /// What new chunks may take: the reserve is not told to the master as free, or it would plan with it.
    pub(crate) fn room_for_chunks(&self) -> u64 {
        let (capacity, available) = self.room();
        available.saturating_sub((capacity / 50).min(DISK_RESERVE_BYTES_MAX))
    }

    fn has_room(&self, bytes: u64) -> bool {
        self.room_for_chunks() >= bytes.max(1)
    }
}

impl Counters {
    pub(crate) fn add(counter: &AtomicU64, n: u64) {
        counter.fetch_add(n, Ordering::Relaxed);
    }

    /// What users ask for just now.
    pub(crate) fn load(&self) -> Load {
        let now = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let ended = now(&self.chunks_committed).wrapping_add(now(&self.writes_failed));
        Load {
            in_flight: now(&self.open_reads) + now(&self.open_writes),
            seen: now(&self.reads).wrapping_add(ended),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commits_of_late_count() {
        let disk = Disk::default();
        assert_eq!(disk.commit_us(), 0);
        disk.committed_in(Duration::from_millis(8));
        assert_eq!(disk.commit_us(), 8000);
        disk.committed_in(Duration::from_millis(16));
        assert_eq!(disk.commit_us(), 9000);
        (0..100).for_each(|_| disk.committed_in(Duration::from_micros(100)));
        assert!(disk.commit_us() < 200, "{}", disk.commit_us());
    }

    #[test]
    fn chunks_go_to_the_healthy_disk_with_most_room() {
        let node = Node::new(NodeId(1), None, Epoch(0), 3);
        assert_eq!(node.disk_for(1), None, "no disk has told its room yet");
        for (disk, available) in node.disks.iter().zip([500, 900, 700]) {
            disk.set_room(1000, available);
        }
        assert_eq!(node.disk_for(100), Some(1));
        node.disks[1].suspect();
        assert_eq!(node.disk_for(100), Some(2));
        assert_eq!(node.disks[2].room_for_chunks(), 680);
        assert_eq!((node.disk_for(680), node.disk_for(681)), (Some(2), None), "the reserve is left");
    }
}
