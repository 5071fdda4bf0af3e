//! What must hold after every command. Walks everything: for tests, and for what debug builds recover.

use std::collections::{HashMap, HashSet};

use distrifs_proto::types::{ChunkId, Crc32c, Epoch, FileId};

use super::inode::{Children, Content, FileBody, Inode};
use super::loss::past_lost;
use super::reap::Doomed;
use super::{Counts, Namespace};

/// What a walk found.
#[derive(Default)]
struct Seen {
    inodes: HashSet<FileId>,
    refs: HashMap<ChunkId, u32>,
    counts: Counts,
}

impl Namespace {
    /// Checks the visible tree and the doomed ones, the references of chunks, the unfinished files and the counts.
    ///
    /// # Errors
    /// The first thing that does not hold, in words.
    pub(crate) fn check_invariants(&self) -> Result<(), String> {
        let mut seen = Seen::default();
        self.walk_from(self.root, 0, &mut seen)?;
        for Doomed { top, freed } in self.doomed.iter() {
            self.walk_from(top, freed as usize, &mut seen)?;
        }
        let Seen { inodes: named, refs, counts } = seen;
        if counts != self.counts {
            return Err(format!("counted {counts:?}, kept {:?}", self.counts));
        }
        let inodes = named.len() + self.open.len();
        if inodes != self.slab.len() {
            return Err(format!("{} inodes, but {inodes} are named, doomed or open", self.slab.len()));
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
        self.check_open(&named)?;
        self.check_chunk_states()
    }

    /// Walks over a tree whose top nothing names. Of a file as the top, `freed` chunks are dereferenced.
    fn walk_from(&self, top: FileId, freed: usize, seen: &mut Seen) -> Result<(), String> {
        let mut todo = vec![(top, FileId::default())];
        while let Some((id, parent)) = todo.pop() {
            if !seen.inodes.insert(id) {
                return Err(format!("file {id} is named twice"));
            }
            let Some(inode) = self.slab.get(id) else {
                return Err(format!("file {id} is named but does not exist"));
            };
            match &inode.content {
                Content::Directory(children) => {
                    seen.counts.directories += 1;
                    self.check_derived(id, children, parent)?;
                    todo.extend(children.values().map(|child| (*child, id)));
                }
                Content::File(body) => {
                    seen.counts.files += 1;
                    seen.counts.bytes += body.size;
                    let freed = if id == top { freed } else { 0 };
                    if freed == 0 {
                        self.check_body(id, body)?;
                    }
                    let Some(held) = body.chunks.as_slice().get(freed..) else {
                        return Err(format!("{freed} chunks of file {id} are freed, more than it has"));
                    };
                    for chunk in held {
                        *seen.refs.entry(*chunk).or_default() += 1;
                    }
                }
            }
        }
        Ok(())
    }

    fn check_derived(&self, id: FileId, children: &Children, parent: FileId) -> Result<(), String> {
        if children.parent() != parent {
            return Err(format!("directory {id} lies in {parent}, kept as in {}", children.parent()));
        }
        let is_directory = |id: &&FileId| self.slab.get(**id).is_some_and(Inode::is_directory);
        let directories = children.values().filter(is_directory).count();
        if directories != children.directories() as usize {
            let kept = children.directories();
            return Err(format!("{directories} directories in {id}, kept as {kept}"));
        }
        Ok(())
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
        let by_lease = self.open.leases().map(|(until_ms, file)| (file, until_ms)).collect();
        let leases: HashMap<FileId, i64> = self.open.iter().map(|(id, it)| (id, it.lease_until_ms)).collect();
        if leases != by_lease || leases.len() != self.open.leases().count() {
            return Err(format!("leases {leases:?}, kept as {by_lease:?}"));
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
