//! The chunks that are to be repaired or trimmed, those with fewest copies first. Pure.
//!
//! A chunk is *ready* when something may be done about it, or *waiting* when orders are out or nothing can be done before
//! something has changed: then it is looked at again when a datanode answers about it, or a look over the files finds it
//! once more. So what is done between two looks costs as much as has changed, not as much as is broken.

use std::collections::{BTreeSet, HashMap};

use distrifs_proto::types::ChunkId;

use crate::cluster::Candidate;

/// Chunks that are kept: those with fewest copies. The next look finds the others.
pub(super) const BACKLOG_MAX: usize = 1 << 16;

/// Chunks that are not as they should be.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    of: HashMap<ChunkId, Candidate>,
    ready: BTreeSet<(u32, ChunkId)>,
    /// All, by the copies that there are.
    order: BTreeSet<(u32, ChunkId)>,
}

impl Backlog {
    /// A chunk was found, or found to be otherwise: it is ready.
    pub(super) fn insert(&mut self, found: Candidate) {
        self.remove(found.id);
        if self.of.len() >= BACKLOG_MAX {
            let Some(last) = self.order.last().copied().filter(|last| last.0 > found.good) else { return };
            self.remove(last.1);
        }
        self.of.insert(found.id, found);
        self.order.insert((found.good, found.id));
        self.ready.insert((found.good, found.id));
    }

    /// A chunk is as it should be, or gone.
    pub(super) fn remove(&mut self, chunk: ChunkId) {
        if let Some(known) = self.of.remove(&chunk) {
            self.order.remove(&(known.good, chunk));
            self.ready.remove(&(known.good, chunk));
        }
    }

    /// Datanodes have answered about a chunk: something may be done again.
    pub(super) fn revive(&mut self, chunk: ChunkId) {
        if let Some(known) = self.of.get(&chunk) {
            self.ready.insert((known.good, chunk));
        }
    }

    /// Takes out ready chunks with fewest copies, which wait from now on.
    pub(super) fn take(&mut self, most: usize) -> Vec<Candidate> {
        let next = std::iter::from_fn(|| self.ready.pop_first()).take(most);
        next.filter_map(|(_, chunk)| self.of.get(&chunk)).copied().collect()
    }

    /// Chunks that are kept.
    pub(super) fn len(&self) -> usize {
        self.of.len()
    }
}

#[cfg(test)]
mod tests {
    use distrifs_proto::types::{Crc32c, GenerationStamp};

    use super::*;
    use crate::namespace::Chunk;

    fn found(id: u64, good: u32) -> Candidate {
        let chunk = Chunk { generation: GenerationStamp(1), length: 9, crc: Crc32c(0), refs: 1 };
        Candidate { id: ChunkId(id), chunk, wanted: 3, good, trims: true }
    }

    fn ids(taken: &[Candidate]) -> Vec<u64> {
        taken.iter().map(|it| it.id.0).collect()
    }

    #[test]
    fn fewest_copies_go_first_and_what_waits_comes_again_when_it_is_touched() {
        let mut backlog = Backlog::default();
        for (id, good) in [(1, 2), (2, 1), (3, 2), (4, 0)] {
            backlog.insert(found(id, good));
        }
        assert_eq!(ids(&backlog.take(3)), [4, 2, 1]);
        backlog.revive(ChunkId(2));
        backlog.revive(ChunkId(99));
        assert_eq!(ids(&backlog.take(9)), [2, 3]);
        backlog.insert(found(1, 1));
        assert_eq!((ids(&backlog.take(9)), backlog.len()), (vec![1], 4), "found again, with fewer copies");
        backlog.remove(ChunkId(1));
        backlog.revive(ChunkId(1));
        assert_eq!((backlog.take(9), backlog.len()), (vec![], 3));
    }

    #[test]
    fn of_too_many_those_with_most_copies_are_left_to_the_next_look() {
        let mut backlog = Backlog::default();
        (0..BACKLOG_MAX as u64).for_each(|id| backlog.insert(found(id, 2)));
        backlog.insert(found(1 << 40, 2));
        assert_eq!(backlog.len(), BACKLOG_MAX);
        assert_eq!(backlog.of.get(&ChunkId(1 << 40)), None);
        backlog.insert(found(1 << 41, 1));
        assert_eq!((backlog.len(), ids(&backlog.take(1))), (BACKLOG_MAX, vec![1 << 41]));
        assert_eq!((backlog.order.len(), backlog.ready.len()), (BACKLOG_MAX, BACKLOG_MAX - 1));
    }
}
