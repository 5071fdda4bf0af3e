//! Where the chunks of unfinished files were planned: the leader's memory, gone with a restart.

use std::collections::HashMap;

use distrifs_proto::types::{ChunkId, NodeId};

/// The planned nodes of each unfinished chunk.
#[derive(Debug, Default)]
pub(crate) struct Plans {
    by_chunk: HashMap<ChunkId, Vec<NodeId>>,
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

    /// Forgets the chunks that are not being written any more.
    pub(crate) fn retain(&mut self, is_unfinished: impl Fn(ChunkId) -> bool) {
        self.by_chunk.retain(|chunk, _| is_unfinished(*chunk));
    }
}
