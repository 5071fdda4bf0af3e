//! A loss that was accepted: the log had lost acknowledged records, and goes on without them.

use distrifs_proto::types::{ChunkId, Epoch, FileId};

use super::{Answer, Namespace};

/// Chunk ids that are never handed out because lost records may have handed them out: more than any log has room for.
const LOST_CHUNK_IDS: u64 = 1 << 40;

/// The first chunk id that lost records cannot have handed out.
pub(super) fn past_lost(next: ChunkId) -> ChunkId {
    ChunkId(next.0.saturating_add(LOST_CHUNK_IDS))
}

impl Namespace {
    /// The epoch at which a loss was last accepted; 0: never.
    pub(crate) fn history(&self) -> Epoch {
        self.history
    }

    /// From here on the state counts without what was lost; once for each epoch.
    ///
    /// An unfinished file may have been completed in the lost records, or its writer goes on without being known here.
    /// So its chunks do not become tombstones, which may be deleted: they are forgotten, as those are whose files are
    /// altogether unknown. For the same reason tombstones of chunks go that no visible file ever had: between the loss
    /// and this moment their files may have been given up.
    pub(super) fn accept_loss(&mut self, epoch: Epoch) -> Answer {
        if epoch <= self.history {
            return Answer::Done;
        }
        self.history = epoch;
        self.next_chunk = past_lost(self.next_chunk);
        let open: Vec<FileId> = self.open.iter().map(|(file, _)| file).collect();
        for file in open {
            let chunks = self.open.remove(file).map(|open| open.chunks).unwrap_or_default();
            for chunk in chunks {
                self.open_chunks.remove(chunk);
            }
            self.slab.remove(file);
        }
        let unseen = self.tombstones.iter().filter(|(_, it)| !it.completed);
        let unseen: Vec<ChunkId> = unseen.map(|(chunk, _)| chunk).collect();
        for chunk in unseen {
            self.tombstones.remove(chunk);
        }
        Answer::Done
    }
}
