//! Where the chunks of unfinished files were planned: the leader's memory, gone with a restart.

use std::collections::BTreeMap;
use std::ops::Bound;

use distrifs_proto::types::{ChunkId, NodeId};

use crate::hold;

/// Plans that are looked at in one step.
const PLANS_STEP: usize = 256;

/// The planned nodes of each unfinished chunk.
#[derive(Debug, Default)]
pub(crate) struct Plans {
    by_chunk: BTreeMap<ChunkId, Vec<NodeId>>,
}

impl Plans {
    /// Remembers where a chunk was planned.
    pub(crate) fn remember(&mut self, chunk: ChunkId, nodes: Vec<NodeId>) {
        self.by_chunk.insert(chunk, nodes);
    }

    /// The planned nodes; `None` when this leader did not plan the chunk.
    pub(crate) fn of(&self, chunk: ChunkId) -> Option<&[NodeId]> {
        self.by_chunk.get(&chunk).map(Vec::as_slice)
    }

    /// The file of a chunk was completed, or gives it up.
    pub(crate) fn forget(&mut self, chunk: ChunkId) {
        self.by_chunk.remove(&chunk);
    }

    /// At most [`PLANS_STEP`] planned chunks behind `after`, in order.
    pub(crate) fn next(&self, after: Option<ChunkId>) -> Vec<ChunkId> {
        let behind = (after.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded);
        let next: Vec<ChunkId> =
            self.by_chunk.range(behind).map(|(chunk, _)| *chunk).take(PLANS_STEP).collect();
        hold::count(next.len() as u64);
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plans_of_chunks_that_are_not_written_any_more_go_in_steps() {
        let mut plans = Plans::default();
        let count = 2 * PLANS_STEP as u64 + 10;
        (1..=count).for_each(|chunk| plans.remember(ChunkId(chunk), vec![NodeId(chunk)]));
        let (mut after, mut lengths) = (None, Vec::new());
        loop {
            let next = plans.next(after);
            let Some(last) = next.last() else { break };
            after = Some(*last);
            lengths.push(next.len());
            next.into_iter().filter(|chunk| !chunk.0.is_multiple_of(2)).for_each(|chunk| plans.forget(chunk));
        }
        assert_eq!((lengths, plans.by_chunk.len() as u64), (vec![PLANS_STEP, PLANS_STEP, 10], count / 2));
        assert_eq!((plans.of(ChunkId(2)), plans.of(ChunkId(3))), (Some(&[NodeId(2)][..]), None));
    }
}
