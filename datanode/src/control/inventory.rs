//! What the node holds: the one list that block reports are cut from.

use std::collections::BTreeMap;
use std::ops::Bound;

use distrifs_engine::store::ReplicaInfo;
use distrifs_proto::InventoryDigest;
use distrifs_proto::grpc::v1;
use distrifs_proto::limits::REPORT_PART_MAX;
use distrifs_proto::types::{ChunkId, GenerationStamp};

/// A replica that the node holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) replica: ReplicaInfo,
    /// The index of its data folder.
    pub(crate) disk: usize,
    /// Found damaged, or on a disk that lost bytes: to be replaced, and never copied.
    pub(crate) corrupt: bool,
}

impl Held {
    fn digest(&self) -> InventoryDigest {
        let it = &self.replica;
        InventoryDigest::of(it.chunk, it.generation, it.length, it.crc, self.corrupt)
    }

    /// As reports tell it.
    pub(crate) fn message(&self) -> v1::Replica {
        v1::Replica {
            chunk_id: self.replica.chunk.0,
            generation: self.replica.generation.0,
            length: self.replica.length,
            crc32c: self.replica.crc.0,
            corrupt: self.corrupt,
        }
    }
}

/// The committed replicas of all data folders, by chunk.
#[derive(Debug, Default)]
pub(crate) struct Inventory {
    replicas: BTreeMap<ChunkId, Held>,
    used_bytes: Vec<u64>,
    digest: InventoryDigest,
    /// Where [`Self::bytes_behind`] was asked for last, and the bytes behind it.
    behind: (ChunkId, u64),
}

impl Inventory {
    pub(crate) fn new(disks: usize) -> Self {
        Self { used_bytes: vec![0; disks], ..Self::default() }
    }

    /// Adds a replica. Where two disks have the same chunk, the newer generation counts.
    pub(crate) fn add(&mut self, replica: ReplicaInfo, disk: usize) {
        if let Some(old) = self.replicas.get(&replica.chunk)
            && old.replica.generation > replica.generation
        {
            return;
        }
        self.remove(replica.chunk);
        self.used_bytes[disk] += replica.length;
        if replica.chunk > self.behind.0 {
            self.behind.1 += replica.length;
        }
        let held = Held { replica, disk, corrupt: false };
        self.digest = self.digest.plus(held.digest());
        self.replicas.insert(replica.chunk, held);
    }

    pub(crate) fn remove(&mut self, chunk: ChunkId) {
        if let Some(old) = self.replicas.remove(&chunk) {
            self.used_bytes[old.disk] -= old.replica.length;
            if chunk > self.behind.0 {
                self.behind.1 -= old.replica.length;
            }
            self.digest = self.digest.minus(old.digest());
        }
    }

    /// Marks the replica of a chunk on this disk; it, and whether that is news.
    pub(crate) fn mark(&mut self, chunk: ChunkId, disk: usize, corrupt: bool) -> Option<(Held, bool)> {
        let held = self.replicas.get_mut(&chunk).filter(|held| held.disk == disk)?;
        let news = held.corrupt != corrupt;
        self.digest = self.digest.minus(held.digest());
        held.corrupt = corrupt;
        self.digest = self.digest.plus(held.digest());
        Some((*held, news))
    }

    /// Marks all replicas on a disk as lost; those that were not.
    pub(crate) fn lose_disk(&mut self, disk: usize) -> Vec<Held> {
        let lost = self.replicas.values().filter(|held| held.disk == disk && !held.corrupt);
        let lost: Vec<ChunkId> = lost.map(|held| held.replica.chunk).collect();
        lost.into_iter().filter_map(|chunk| Some(self.mark(chunk, disk, true)?.0)).collect()
    }

    /// Of everything that is held, as it is told.
    pub(crate) fn digest(&self) -> InventoryDigest {
        self.digest
    }

    pub(crate) fn len(&self) -> usize {
        self.replicas.len()
    }

    pub(crate) fn used_bytes(&self, disk: usize) -> u64 {
        self.used_bytes[disk]
    }

    /// Bytes of all replicas.
    pub(crate) fn bytes(&self) -> u64 {
        self.used_bytes.iter().sum()
    }

    /// Bytes of the replicas behind `after`. Cheap for who goes on from where it was asked last, or comes back to the
    /// beginning.
    pub(crate) fn bytes_behind(&mut self, after: ChunkId) -> u64 {
        if after < self.behind.0 {
            self.behind = (ChunkId(0), self.bytes());
        }
        let (from, behind) = self.behind;
        let passed = self.replicas.range((Bound::Excluded(from), Bound::Included(after)));
        let passed: u64 = passed.map(|(_, held)| held.replica.length).sum();
        self.behind = (after, behind - passed);
        self.behind.1
    }

    pub(crate) fn get(&self, chunk: ChunkId) -> Option<&Held> {
        self.replicas.get(&chunk)
    }

    /// The first chunk behind `after`.
    pub(crate) fn next(&self, after: ChunkId) -> Option<ChunkId> {
        self.replicas.range((Bound::Excluded(after), Bound::Unbounded)).next().map(|(chunk, _)| *chunk)
    }

    /// Which disk has a replica of this chunk that is not newer than `up_to`.
    pub(crate) fn disk_of(&self, chunk: ChunkId, up_to: GenerationStamp) -> Option<usize> {
        self.replicas.get(&chunk).filter(|held| held.replica.generation <= up_to).map(|held| held.disk)
    }

    /// The full report, in parts; an empty inventory is one empty part.
    pub(crate) fn report(&self) -> Vec<v1::BlockReport> {
        let all: Vec<_> = self.replicas.values().map(Held::message).collect();
        let mut parts: Vec<_> = all.chunks(REPORT_PART_MAX).map(<[_]>::to_vec).collect();
        if parts.is_empty() {
            parts.push(Vec::new());
        }
        let last = parts.len() - 1;
        let part = |(i, replicas)| v1::BlockReport { replicas, first: i == 0, last: i == last, digest: None };
        parts.into_iter().enumerate().map(part).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use distrifs_proto::types::Crc32c;

    fn replica(chunk: u64, generation: u64) -> ReplicaInfo {
        let (chunk, generation) = (ChunkId(chunk), GenerationStamp(generation));
        ReplicaInfo { chunk, generation, length: 10, crc: Crc32c(1) }
    }

    #[test]
    fn the_report_is_complete_ordered_and_marked() {
        let empty = Inventory::new(1).report();
        assert_eq!((empty.len(), empty[0].first, empty[0].last), (1, true, true));

        let mut inventory = Inventory::new(1);
        let count = REPORT_PART_MAX as u64 + 5;
        (0..count).rev().for_each(|n| inventory.add(replica(n, 1), 0));
        let parts = inventory.report();
        let marks: Vec<_> = parts.iter().map(|p| (p.first, p.last, p.replicas.len())).collect();
        assert_eq!(marks, [(true, false, REPORT_PART_MAX), (false, true, 5)]);
        let told = parts.iter().flat_map(|p| &p.replicas).fold(InventoryDigest::default(), |digest, it| {
            let (chunk, generation) = (ChunkId(it.chunk_id), GenerationStamp(it.generation));
            digest.plus(InventoryDigest::of(chunk, generation, it.length, Crc32c(it.crc32c), it.corrupt))
        });
        assert_eq!(inventory.digest(), told);
        let ids: Vec<_> = parts.iter().flat_map(|p| &p.replicas).map(|r| r.chunk_id).collect();
        assert!(ids.is_sorted() && ids.len() as u64 == count);
    }

    #[test]
    fn the_newer_generation_counts_and_a_newer_replica_is_not_found_for_deletion() {
        let mut inventory = Inventory::new(2);
        inventory.add(replica(1, 2), 0);
        inventory.add(replica(1, 1), 1);
        assert_eq!((inventory.used_bytes(0), inventory.used_bytes(1)), (10, 0));
        assert_eq!(inventory.disk_of(ChunkId(1), GenerationStamp(1)), None);
        assert_eq!(inventory.disk_of(ChunkId(1), GenerationStamp(2)), Some(0));
        inventory.remove(ChunkId(1));
        assert_eq!((inventory.len(), inventory.used_bytes(0)), (0, 0));
    }

    #[test]
    fn bytes_behind_a_chunk_follow_what_comes_and_goes() {
        let mut inventory = Inventory::new(2);
        [2, 4, 6].into_iter().for_each(|id| inventory.add(replica(id, 1), id as usize / 3 % 2));
        for (after, bytes) in [(0, 30), (1, 30), (2, 20), (5, 10), (2, 20), (6, 0), (0, 30), (4, 10)] {
            assert_eq!(inventory.bytes_behind(ChunkId(after)), bytes, "behind {after}");
        }
        inventory.add(replica(3, 1), 0);
        inventory.add(replica(9, 1), 0);
        inventory.add(replica(6, 2), 0);
        assert_eq!(inventory.bytes_behind(ChunkId(4)), 20);
        [2, 4, 6].into_iter().for_each(|id| inventory.remove(ChunkId(id)));
        assert_eq!((inventory.bytes_behind(ChunkId(4)), inventory.bytes_behind(ChunkId(0))), (10, 20));
        assert_eq!(inventory.bytes(), 20);
    }

    #[test]
    fn marks_are_of_one_disk_and_go_with_the_replica() {
        let mut inventory = Inventory::new(2);
        inventory.add(replica(1, 2), 0);
        inventory.add(replica(2, 2), 1);
        assert_eq!(inventory.mark(ChunkId(1), 1, true), None, "on another disk");
        assert!(inventory.mark(ChunkId(1), 0, true).is_some_and(|(held, news)| held.corrupt && news));
        assert!(inventory.mark(ChunkId(1), 0, true).is_some_and(|(_, news)| !news));
        let told: Vec<bool> = inventory.report()[0].replicas.iter().map(|it| it.corrupt).collect();
        assert_eq!(told, [true, false]);
        assert!(inventory.lose_disk(0).is_empty(), "it is known already");
        let before = inventory.digest();
        assert_eq!(inventory.lose_disk(1).len(), 1);
        assert_ne!(inventory.digest(), before);
        inventory.add(replica(1, 2), 0);
        assert!(inventory.get(ChunkId(1)).is_some_and(|held| !held.corrupt), "a new one");
        let in_order = [inventory.next(ChunkId(0)), inventory.next(ChunkId(1)), inventory.next(ChunkId(2))];
        assert_eq!(in_order, [Some(ChunkId(1)), Some(ChunkId(2)), None]);
    }
}
