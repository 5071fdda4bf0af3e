//! Open chunks of a shard, so that small reads of one chunk open it once.

use std::collections::HashMap;
use std::rc::Rc;

use distrifs_engine::store::ChunkReader;
use distrifs_proto::types::ChunkId;

/// Open chunks kept; each holds a descriptor and 64 KiB of checksums for 64 MiB of data.
const OPEN_CHUNKS_MAX: usize = 128;

struct Entry {
    used: u64,
    reader: Rc<ChunkReader>,
    disk: usize,
}

/// The chunks read last, and on which disk they are.
#[derive(Default)]
pub(crate) struct ReaderCache {
    /// By chunk, and whether it is read past the page cache.
    entries: HashMap<(ChunkId, bool), Entry>,
    clock: u64,
    /// Chunks forgotten so far.
    forgotten: u64,
}

impl ReaderCache {
    pub(crate) fn get(&mut self, chunk: ChunkId, direct: bool) -> Option<(Rc<ChunkReader>, usize)> {
        self.clock += 1;
        let entry = self.entries.get_mut(&(chunk, direct))?;
        entry.used = self.clock;
        Some((entry.reader.clone(), entry.disk))
    }

    /// Chunks forgotten so far: a chunk that was being opened meanwhile may be one of them.
    pub(crate) fn forgotten(&self) -> u64 {
        self.forgotten
    }

    pub(crate) fn insert(&mut self, chunk: ChunkId, direct: bool, reader: Rc<ChunkReader>, disk: usize) {
        self.clock += 1;
        if self.entries.len() >= OPEN_CHUNKS_MAX {
            let oldest = self.entries.iter().min_by_key(|(_, entry)| entry.used).map(|(&key, _)| key);
            if let Some(oldest) = oldest {
                self.entries.remove(&oldest);
            }
        }
        self.entries.insert((chunk, direct), Entry { used: self.clock, reader, disk });
    }

    pub(crate) fn remove(&mut self, chunk: ChunkId) {
        self.forgotten += 1;
        self.entries.remove(&(chunk, false));
        self.entries.remove(&(chunk, true));
    }
}
