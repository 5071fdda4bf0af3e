//! What the node holds: the one list that block reports are cut from.

use std::collections::BTreeMap;

use distrifs_engine::store::ReplicaInfo;
use distrifs_proto::grpc::v1;
use distrifs_proto::limits::REPORT_PART_MAX;
use distrifs_proto::types::{ChunkId, GenerationStamp};

/// The committed replicas of all data folders, by chunk.
#[derive(Debug, Default)]
pub(crate) struct Inventory {
    replicas: BTreeMap<ChunkId, (ReplicaInfo, usize)>,
    used_bytes: Vec<u64>,
}

impl Inventory {
    pub(crate) fn new(disks: usize) -> Self {
        Self { replicas: BTreeMap::new(), used_bytes: vec![0; disks] }
    }

    /// Adds a replica. Where two disks have the same chunk, the newer generation counts.
    pub(crate) fn add(&mut self, replica: ReplicaInfo, disk: usize) {
        if let Some((old, _)) = self.replicas.get(&replica.chunk)
            && old.generation > replica.generation
        {
            return;
        }
        self.remove(replica.chunk);
        self.used_bytes[disk] += replica.length;
        self.replicas.insert(replica.chunk, (replica, disk));
    }

    pub(crate) fn remove(&mut self, chunk: ChunkId) {
        if let Some((old, disk)) = self.replicas.remove(&chunk) {
            self.used_bytes[disk] -= old.length;
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.replicas.len()
    }

    pub(crate) fn used_bytes(&self, disk: usize) -> u64 {
        self.used_bytes[disk]
    }

    /// Which disk has a replica of this chunk that is not newer than `up_to`.
    pub(crate) fn disk_of(&self, chunk: ChunkId, up_to: GenerationStamp) -> Option<usize> {
        self.replicas.get(&chunk).filter(|(r, _)| r.generation <= up_to).map(|&(_, disk)| disk)
    }

    /// The full report, in parts; an empty inventory is one empty part.
    pub(crate) fn report(&self) -> Vec<v1::BlockReport> {
        let all: Vec<_> = self.replicas.values().map(|(replica, _)| message(replica)).collect();
        let mut parts: Vec<_> = all.chunks(REPORT_PART_MAX).map(<[_]>::to_vec).collect();
        if parts.is_empty() {
            parts.push(Vec::new());
        }
        let last = parts.len() - 1;
        let part = |(i, replicas)| v1::BlockReport { replicas, first: i == 0, last: i == last };
        parts.into_iter().enumerate().map(part).collect()
    }
}

/// A replica as reports tell it.
pub(crate) fn message(replica: &ReplicaInfo) -> v1::Replica {
    v1::Replica {
        chunk_id: replica.chunk.0,
        generation: replica.generation.0,
        length: replica.length,
        crc32c: replica.crc.0,
        corrupt: false,
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
}
