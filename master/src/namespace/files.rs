//! Files being written: create, allocate, complete, abandon, leases; and what becomes of their chunks.

use std::sync::Arc;

use distrifs_proto::limits::{FILE_CHUNKS_MAX, REPLICATION_MAX};
use distrifs_proto::types::{ChunkId, Crc32c, FileId};

use super::command::{Answer, Completed, WrittenChunk};
use super::inode::{ChunkList, Content, FileBody, Inode};
use super::names::NameId;
use super::path::NsPath;
use super::query::BodyStatus;
use super::resolve::Place;
use super::tree::full;
use super::{FIRST_GENERATION, Namespace, NamespaceError, OPEN_FILES_MAX, OpenFile, Packed, Tombstone};
use crate::config::{chunk_size_fits, chunk_size_rule};
use crate::permission::{Caller, EXECUTE, WRITE};

/// Unfinished files that one command gives up; sweeping goes on until none is left.
pub(crate) const EXPIRE_FILES_MAX: usize = 256;
/// Chunks of such files with which a command ends early, behind the file that reaches it.
const EXPIRE_CHUNKS_MAX: usize = 1024;

/// A file that may be opened.
#[derive(Debug)]
pub(super) struct Create {
    path: NsPath,
    parent: FileId,
    overwrite: bool,
    body: FileBody,
}

/// A file that may appear.
#[derive(Debug)]
pub(super) struct Completion {
    size: u64,
    crc: Crc32c,
    /// What it replaces.
    replaced: Option<FileId>,
}

impl Namespace {
    pub(super) fn plan_create(
        &self,
        caller: &Caller,
        path: &NsPath,
        overwrite: bool,
        chunk_size: u32,
        replication: u8,
    ) -> Result<Create, NamespaceError> {
        let (place, body) = self.plan_file(caller, path, overwrite, chunk_size, replication)?;
        if self.open.len() >= OPEN_FILES_MAX {
            let max = OPEN_FILES_MAX as u64;
            return Err(NamespaceError::Limit { path: path.to_string(), what: "unfinished files", max });
        }
        Ok(Create { path: path.clone(), parent: place.parent, overwrite, body })
    }

    /// Where a file may be made, and the file without its bytes.
    pub(super) fn plan_file(
        &self,
        caller: &Caller,
        path: &NsPath,
        overwrite: bool,
        chunk_size: u32,
        replication: u8,
    ) -> Result<(Place, FileBody), NamespaceError> {
        let invalid = |what: String| Err(NamespaceError::Invalid { path: path.to_string(), what });
        if !chunk_size_fits(u64::from(chunk_size)) {
            return invalid(format!("chunk size {}", chunk_size_rule(u64::from(chunk_size))));
        }
        if !(1..=REPLICATION_MAX).contains(&u32::from(replication)) {
            return invalid(format!("replication factor {replication} is not in 1..={REPLICATION_MAX}"));
        }
        let place = self.place(caller, path).map_err(|error| match error {
            NamespaceError::Root => NamespaceError::IsADirectory { path: path.clone(), hint: "" },
            other => other,
        })?;
        match place.target {
            Some(there) => {
                self.demand_replace(caller, there, path, overwrite)?;
            }
            None => self.demand_add(caller, &place, path)?,
        }
        if !self.slab.has_room(1) || !self.names.has_room(2) {
            return Err(full(path));
        }
        let body = FileBody {
            size: 0,
            crc: Crc32c::default(),
            chunk_size,
            replication,
            chunks: ChunkList::default(),
        };
        Ok((place, body))
    }

    /// Refuses unless `caller` may replace the content of what is at `path`.
    pub(super) fn demand_replace(
        &self,
        caller: &Caller,
        there: FileId,
        path: &NsPath,
        overwrite: bool,
    ) -> Result<(), NamespaceError> {
        if self.slab.get(there).is_some_and(Inode::is_directory) {
            return Err(NamespaceError::IsADirectory { path: path.clone(), hint: "" });
        }
        if !overwrite {
            let hint = ": replace it with -f";
            return Err(NamespaceError::AlreadyExists { path: path.clone(), hint });
        }
        self.demand(caller, there, WRITE, path, path.names().count())
    }

    /// Refuses a chunk id below the high-water mark.
    pub(super) fn refuse_reuse(&self, path: &NsPath, chunk: Option<ChunkId>) -> Result<(), NamespaceError> {
        match chunk {
            Some(chunk) if chunk < self.next_chunk || chunk.0 == u64::MAX => {
                Err(NamespaceError::ChunkIdReused { path: path.clone(), chunk })
            }
            _ => Ok(()),
        }
    }

    pub(super) fn create(
        &mut self,
        at_ms: i64,
        caller: &Caller,
        plan: Create,
        mode: u16,
        lease_until_ms: i64,
        chunk: Option<ChunkId>,
    ) -> Answer {
        let owner = self.names.intern(&caller.user);
        let group = self.names.intern(caller.primary_group());
        let content = Content::File(plan.body);
        let file = self.slab.insert(Inode { owner, group, mode, mtime_ms: at_ms, content });
        let (path, parent, overwrite) = (plan.path, plan.parent, plan.overwrite);
        let chunks = Vec::new();
        self.open.insert(file, OpenFile { path, parent, overwrite, writer: owner, lease_until_ms, chunks });
        if let Some(chunk) = chunk {
            self.hand_out(file, chunk);
        }
        Answer::Created { file, chunk }
    }

    fn hand_out(&mut self, file: FileId, chunk: ChunkId) {
        self.next_chunk = chunk.next();
        if let Some(chunks) = self.open.chunks_mut(file) {
            // Ids ascend: the list stays sorted.
            chunks.push(chunk);
            self.open_chunks.insert(chunk, file);
        }
    }

    /// The unfinished file, if `caller` is the one who writes it.
    pub(super) fn open_of(&self, caller: &Caller, file: FileId) -> Result<&OpenFile, NamespaceError> {
        let open = self.open.get(file);
        match open {
            Some(open) if caller.superuser || self.names.text(open.writer) == caller.user => Ok(open),
            // Whether another user's file of this id exists is none of the caller's business.
            _ => Err(NamespaceError::NotOpen { path: format!("file {file}"), user: caller.user.clone() }),
        }
    }

    pub(super) fn plan_allocate(
        &self,
        caller: &Caller,
        file: FileId,
        abandon: Option<ChunkId>,
    ) -> Result<(), NamespaceError> {
        let open = self.open_of(caller, file)?;
        if let Some(abandon) = abandon
            && !open.has(abandon)
        {
            let why = format!("chunk {abandon} to abandon is not one of this file's");
            return Err(NamespaceError::Chunks { path: open.path.clone(), why });
        }
        if open.chunks.len() >= FILE_CHUNKS_MAX && abandon.is_none() {
            let (path, max) = (open.path.to_string(), FILE_CHUNKS_MAX as u64);
            return Err(NamespaceError::Limit { path, what: "chunks of a file", max });
        }
        Ok(())
    }

    pub(super) fn allocate(
        &mut self,
        at_ms: i64,
        caller: &Caller,
        file: FileId,
        chunk: ChunkId,
        abandon: Option<ChunkId>,
    ) -> Result<Answer, NamespaceError> {
        self.plan_allocate(caller, file, abandon)?;
        let path = self.open_of(caller, file)?.path.clone();
        self.refuse_reuse(&path, Some(chunk))?;
        if let Some(abandon) = abandon {
            self.bury_unfinished(at_ms, file, abandon);
        }
        self.hand_out(file, chunk);
        Ok(Answer::Allocated { file, chunk })
    }

    pub(super) fn plan_complete(
        &self,
        caller: &Caller,
        file: FileId,
        chunks: &[WrittenChunk],
    ) -> Result<Completion, NamespaceError> {
        let open = self.open_of(caller, file)?;
        let path = &open.path;
        let refuse = |why: String| Err(NamespaceError::Chunks { path: path.clone(), why });
        let Some(body) = self.slab.get(file).and_then(Inode::file) else {
            return refuse(format!("file {file} has no body"));
        };
        if chunks.len() > FILE_CHUNKS_MAX {
            return refuse(format!("{} chunks are more than {FILE_CHUNKS_MAX}", chunks.len()));
        }
        let full_length = u64::from(body.chunk_size);
        if let Some(chunk) = named_twice(chunks) {
            return refuse(format!("chunk {chunk} is named twice"));
        }
        let (mut size, mut crc) = (0, Crc32c::default());
        for (index, written) in chunks.iter().enumerate() {
            let WrittenChunk { chunk, generation, length, crc: chunk_crc } = *written;
            if !open.has(chunk) {
                return refuse(format!("chunk {chunk} was not handed out for this file"));
            }
            if generation != FIRST_GENERATION {
                return refuse(format!("chunk {chunk} has generation {FIRST_GENERATION}, not {generation}"));
            }
            let last = index + 1 == chunks.len();
            let fits = if last { (1..=full_length).contains(&length) } else { length == full_length };
            if !fits {
                return refuse(format!("chunk {chunk} at {index} has {length} bytes of {full_length}"));
            }
            size += length;
            crc = crc.concat(chunk_crc, length);
        }
        Ok(Completion { size, crc, replaced: self.replaced_by(caller, open)? })
    }

    /// What the completed file would take the place of, if it may: the directory must still be there.
    fn replaced_by(&self, caller: &Caller, open: &OpenFile) -> Result<Option<FileId>, NamespaceError> {
        let path = &open.path;
        let depth = path.names().count();
        self.demand_attached(open.parent, path)?;
        let (Some(children), Some(name)) =
            (self.slab.get(open.parent).and_then(Inode::children), path.last())
        else {
            let missing = path.prefix(depth.saturating_sub(1));
            return Err(NamespaceError::NotFound { path: path.clone(), missing });
        };
        match children.get(name) {
            Some(there) => {
                self.demand_replace(caller, *there, path, open.overwrite)?;
                Ok(Some(*there))
            }
            None => {
                self.demand(caller, open.parent, WRITE | EXECUTE, path, depth.saturating_sub(1))?;
                Ok(None)
            }
        }
    }

    pub(super) fn complete(
        &mut self,
        at_ms: i64,
        caller: &Caller,
        file: FileId,
        chunks: &[WrittenChunk],
    ) -> Result<Answer, NamespaceError> {
        let plan = self.plan_complete(caller, file, chunks)?;
        let Some(open) = self.open.remove(file) else {
            let user = caller.user.clone();
            return Err(NamespaceError::NotOpen { path: format!("file {file}"), user });
        };
        for written in chunks {
            self.open_chunks.remove(written.chunk);
            let (generation, crc, length) = (written.generation, written.crc, written.length as u32);
            self.chunks.insert(written.chunk, Packed::new(generation, length, crc));
        }
        for spare in &open.chunks {
            if self.open_chunks.remove(*spare).is_some() {
                self.bury(at_ms, *spare, false);
            }
        }
        let kept = self.kept(plan.replaced);
        let Some(inode) = self.slab.get_mut(file) else {
            let user = caller.user.clone();
            return Err(NamespaceError::NotOpen { path: open.path.to_string(), user });
        };
        inode.mtime_ms = at_ms;
        if let Some((owner, group, mode)) = kept {
            (inode.owner, inode.group, inode.mode) = (owner, group, mode);
        }
        let (owner, group, mode, mtime_ms) = (inode.owner, inode.group, inode.mode, at_ms);
        let Content::File(body) = &mut inode.content else {
            let user = caller.user.clone();
            return Err(NamespaceError::NotOpen { path: open.path.to_string(), user });
        };
        let ids = chunks.iter().map(|written| written.chunk);
        (body.size, body.crc, body.chunks) = (plan.size, plan.crc, ChunkList::new(ids));
        let body = BodyStatus::from(&*body);
        self.appear(at_ms, open.parent, &open.path, (file, plan.size), plan.replaced);
        let path = open.path;
        Ok(Answer::Completed(Arc::new(Completed { file, path, owner, group, mode, mtime_ms, body })))
    }

    /// A replaced file keeps whose it was and who may what, as when it is written in place.
    pub(super) fn kept(&self, replaced: Option<FileId>) -> Option<(NameId, NameId, u16)> {
        let inode = self.slab.get(replaced?)?;
        Some((inode.owner, inode.group, inode.mode))
    }

    /// Gives a file of `size` bytes its name, in the place of what has it now.
    pub(super) fn appear(
        &mut self,
        at_ms: i64,
        parent: FileId,
        path: &NsPath,
        (file, size): (FileId, u64),
        replaced: Option<FileId>,
    ) {
        if let Some(name) = path.last() {
            self.link(at_ms, parent, name, file);
        }
        self.counts.files += 1;
        self.counts.bytes += size;
        if let Some(replaced) = replaced {
            self.drop_tree(at_ms, replaced);
        }
    }

    /// Takes an unfinished file away; its chunks become tombstones.
    pub(super) fn give_up(&mut self, at_ms: i64, file: FileId) {
        let Some(open) = self.open.remove(file) else { return };
        for chunk in open.chunks {
            self.open_chunks.remove(chunk);
            self.bury(at_ms, chunk, false);
        }
        self.slab.remove(file);
    }

    fn bury_unfinished(&mut self, at_ms: i64, file: FileId, chunk: ChunkId) {
        if let Some(chunks) = self.open.chunks_mut(file)
            && let Ok(at) = chunks.binary_search(&chunk)
        {
            chunks.remove(at);
            self.open_chunks.remove(chunk);
            self.bury(at_ms, chunk, false);
        }
    }

    pub(super) fn bury(&mut self, at_ms: i64, chunk: ChunkId, completed: bool) {
        self.tombstones.insert(chunk, Tombstone { generation: FIRST_GENERATION, at_ms, completed });
    }

    /// One file more refers to `chunk`.
    pub(super) fn reference(&mut self, chunk: ChunkId) {
        if let Some(held) = self.chunks.get_mut(chunk) {
            held.refs += 1;
        }
    }

    /// One file less refers to `chunk`.
    pub(super) fn dereference(&mut self, at_ms: i64, chunk: ChunkId) {
        let Some(held) = self.chunks.get_mut(chunk) else { return };
        held.refs -= 1;
        if held.refs == 0 {
            let generation = held.unpacked().generation;
            self.chunks.remove(chunk);
            self.tombstones.insert(chunk, Tombstone { generation, at_ms, completed: true });
        }
    }

    /// Those of `files` that `caller` does not write (any more).
    pub(super) fn expired_of(&self, caller: &Caller, files: &[FileId]) -> Vec<FileId> {
        files.iter().copied().filter(|file| self.open_of(caller, *file).is_err()).collect()
    }

    pub(super) fn renew(&mut self, caller: &Caller, files: &[FileId], until_ms: i64) -> Answer {
        let expired = self.expired_of(caller, files);
        for file in files {
            if self.open_of(caller, *file).is_ok() {
                self.open.renew(*file, until_ms);
            }
        }
        Answer::Renewed { expired }
    }

    /// The unfinished files that an expiry at this time gives up.
    fn ended(&self, before_ms: i64) -> Vec<FileId> {
        if !self.bounded {
            // All of them, by id: as releases did on whose logs replay depends, see `Namespace::bounded`.
            let mut files: Vec<FileId> = self.open.ended(before_ms).collect();
            files.sort_unstable();
            return files;
        }
        let mut chunks = 0;
        let files = self.open.ended(before_ms).take(EXPIRE_FILES_MAX).take_while(|file| {
            let fits = chunks < EXPIRE_CHUNKS_MAX;
            chunks += self.open.get(*file).map_or(0, |open| open.chunks.len());
            fits
        });
        files.collect()
    }

    pub(super) fn expire(&mut self, at_ms: i64, before_ms: i64) -> Answer {
        let files = self.ended(before_ms);
        for file in &files {
            self.give_up(at_ms, *file);
        }
        Answer::Expired { files }
    }
}

/// A chunk that stands in the list more than once.
fn named_twice(chunks: &[WrittenChunk]) -> Option<ChunkId> {
    // Nearly always one, or in the order in which they were handed out.
    if chunks.is_sorted_by(|a, b| a.chunk < b.chunk) {
        return None;
    }
    let mut ids: Vec<ChunkId> = chunks.iter().map(|it| it.chunk).collect();
    ids.sort_unstable();
    ids.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| pair[0])
}
