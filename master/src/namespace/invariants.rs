//! What must hold after every command. Walks everything: for tests, and for what debug builds recover.

use std::collections::{HashMap, HashSet};

use distrifs_proto::types::{ChunkId, Crc32c, Epoch, FileId};

use super::inode::{Content, FileBody};
use super::loss::past_lost;
use super::{Counts, Namespace};

impl Namespace {
    /// Checks the tree, the references of chunks, the unfinished files and the counts.
    ///
    /// # Errors
    /// The first thing that does not hold, in words.
    pub(crate) fn check_invariants(&self) -> Result<(), String> {
        let mut seen: HashSet<FileId> = HashSet::new();
        let mut refs: HashMap<ChunkId, u32> = HashMap::new();
        let mut counts = Counts::default();
        let mut todo = vec![self.root];
        while let Some(id) = todo.pop() {
            if !seen.insert(id) {
                return Err(format!("file {id} is named twice"));
            }
            let Some(inode) = self.slab.get(id) else {
                return Err(format!("file {id} is named but does not exist"));
            };
            match &inode.content {
                Content::Directory(children) => {
                    counts.directories += 1;
                    todo.extend(children.values());
                }
                Content::File(body) => {
                    counts.files += 1;
                    counts.bytes += body.size;
                    self.check_body(id, body)?;
                    for chunk in body.chunks.as_slice() {
                        *refs.entry(*chunk).or_default() += 1;
                    }
                }
            }
        }
        if counts != self.counts {
            return Err(format!("counted {counts:?}, kept {:?}", self.counts));
        }
        let inodes = seen.len() + self.open.len();
        if inodes != self.slab.len() {
            return Err(format!("{} inodes, but {inodes} are named or open", self.slab.len()));
        }
        for (chunk, count) in &refs {
            let kept = self.chunks.get(*chunk).map(|chunk| chunk.refs);
            if kept != Some(*count) {
                return Err(format!("chunk {chunk} is referred to {count} times, kept as {kept:?}"));
            }
        }
        if refs.len() != self.chunks.len() {
            return Err(format!("{} chunks kept, {} referred to", self.chunks.len(), refs.len()));
        }
        if self.history > Epoch(0) && self.next_chunk <= past_lost(ChunkId(0)) {
            let (history, next) = (self.history, self.next_chunk);
            return Err(format!("a loss was accepted in epoch {history}, but chunk {next} comes next"));
        }
        self.check_open(&seen)?;
        self.check_chunk_states()
    }

    fn check_body(&self, id: FileId, body: &FileBody) -> Result<(), String> {
        let (mut size, mut crc) = (0, Crc32c::default());
        for chunk in body.chunks.as_slice() {
            let Some(chunk) = self.chunks.get(*chunk) else {
                return Err(format!("file {id} refers to chunk {chunk}, which is not kept"));
            };
            size += u64::from(chunk.length);
            crc = crc.concat(chunk.crc, u64::from(chunk.length));
        }
        if (size, crc) != (body.size, body.crc) {
            return Err(format!("file {id} is not the sum of its chunks"));
        }
        Ok(())
    }

    fn check_open(&self, named: &HashSet<FileId>) -> Result<(), String> {
        let mut chunks = 0;
        for (id, open) in self.open.iter() {
            if named.contains(&id) || self.slab.get(id).is_none() {
                return Err(format!("unfinished file {id} is visible or has no inode"));
            }
            chunks += open.chunks.len();
            for chunk in &open.chunks {
                if self.open_chunks.get(*chunk) != Some(&id) {
                    return Err(format!("chunk {chunk} of unfinished file {id} is not kept as such"));
                }
            }
        }
        if chunks != self.open_chunks.len() {
            return Err(format!("{} unfinished chunks kept, {chunks} in files", self.open_chunks.len()));
        }
        Ok(())
    }

    fn check_chunk_states(&self) -> Result<(), String> {
        let referenced = self.chunks.iter().map(|(chunk, _)| chunk);
        let dead = self.tombstones.iter().map(|(chunk, _)| chunk);
        let all = referenced.chain(self.open_chunks.iter().map(|(chunk, _)| chunk)).chain(dead);
        let mut seen = HashSet::new();
        for chunk in all {
            if !seen.insert(chunk) {
                return Err(format!("chunk {chunk} is in two states"));
            }
            if chunk >= self.next_chunk {
                return Err(format!("chunk {chunk} is not below the mark {}", self.next_chunk));
            }
        }
        Ok(())
    }
}
