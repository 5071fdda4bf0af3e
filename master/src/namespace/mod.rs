//! The namespace: the durable truth of the cluster. Pure: no I/O, no clock, no randomness, no threads.
//!
//! Promises:
//! - [`Namespace::apply`] is total and deterministic: the same commands in the same order give the same state and
//!   the same answers. A command that is refused changes nothing.
//! - A chunk id is handed out once; a request id is executed once.
//! - Each chunk is unfinished (belongs to one open file), referenced (by so many files) or a tombstone with a
//!   time, never two of them. Only a tombstone may be deleted. One that was granted ahead is none of them before its
//!   file appears or it is buried: see `reserve`.
//! - After a loss was accepted, no chunk id is handed out that the lost records may have handed out.
//!
//! It does not know where replicas are: that is `cluster`'s.

mod attributes;
mod command;
mod copy;
mod error;
mod files;
mod fingerprint;
pub(crate) mod format;
pub(crate) mod image;
mod inode;
mod invariants;
mod loss;
#[cfg(test)]
mod loss_test;
#[cfg(test)]
mod model_test;
mod names;
mod open_files;
mod path;
mod query;
mod reap;
#[cfg(test)]
mod reap_test;
mod requests;
mod reserve;
mod resolve;
#[cfg(test)]
mod rules_test;
mod slab;
mod table;
mod tree;
mod whole;

use std::collections::BTreeMap;

use distrifs_proto::types::{ChunkId, Crc32c, Epoch, FileId, GenerationStamp, Lsn};

use crate::chunk_map::ChunkMap;
pub(crate) use command::{Answer, Command, Completed, Operation, Place, Reserved, WrittenChunk};
pub(crate) use error::NamespaceError;
use inode::{Children, Content, Inode};
use names::Names;
use open_files::{OpenFile, OpenFiles};
pub(crate) use path::NsPath;
pub(crate) use query::Status;
use reap::DoomedStack;
pub(crate) use reap::REAP_ITEMS_MAX;
use requests::Requests;
use slab::Slab;
use table::Table;

/// The generation of a chunk when it is handed out.
pub(crate) const FIRST_GENERATION: GenerationStamp = GenerationStamp(1);
/// Unfinished files at once.
pub(crate) const OPEN_FILES_MAX: usize = 1 << 20;
/// The mode of new directories whose creator names none.
pub(crate) const DIRECTORY_MODE: u16 = 0o755;
/// The mode of new files whose creator names none.
pub(crate) const FILE_MODE: u16 = 0o644;

/// A chunk that files refer to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Chunk {
    /// Its version.
    pub(crate) generation: GenerationStamp,
    /// Its length in bytes.
    pub(crate) length: u32,
    /// Of its bytes.
    pub(crate) crc: Crc32c,
    /// How many files refer to it.
    pub(crate) refs: u32,
}

/// A [`Chunk`] as it is kept: there are as many as files, and more.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Packed {
    generation: u32,
    length: u32,
    crc: Crc32c,
    refs: u32,
}

impl Packed {
    /// Of a chunk that one file refers to. Generations are given by the master and grow by one.
    fn new(generation: GenerationStamp, length: u32, crc: Crc32c) -> Self {
        let generation = u32::try_from(generation.0).unwrap_or(u32::MAX);
        Self { generation, length, crc, refs: 1 }
    }

    fn unpacked(self) -> Chunk {
        let generation = GenerationStamp(u64::from(self.generation));
        Chunk { generation, length: self.length, crc: self.crc, refs: self.refs }
    }
}

/// A chunk that nothing refers to any more.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Tombstone {
    /// The version that may be deleted, with all lower ones.
    pub(crate) generation: GenerationStamp,
    /// Since when.
    pub(crate) at_ms: i64,
    /// Whether it was ever part of a visible file; if not, a straggling writer may still commit a replica.
    pub(crate) completed: bool,
}

/// What the namespace says of a chunk.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum ChunkState {
    /// Part of a visible file.
    Referenced(Chunk),
    /// Of a file being written.
    Unfinished,
    /// To be deleted.
    Dereferenced(Tombstone),
    /// Never handed out, granted and not part of a file yet, or forgotten. Not a reason to delete anything.
    Unknown,
}

/// The whole state.
#[derive(Debug, PartialEq)]
#[cfg_attr(test, derive(Clone))]
pub(crate) struct Namespace {
    applied: Lsn,
    slab: Slab,
    names: Names,
    root: FileId,
    /// The high-water mark: every id below it was handed out, or is reserved to be granted.
    next_chunk: ChunkId,
    chunks: Table<ChunkMap<Packed>>,
    open: OpenFiles,
    open_chunks: ChunkMap<FileId>,
    tombstones: Table<BTreeMap<ChunkId, Tombstone>>,
    requests: Requests,
    counts: Counts,
    /// The epoch at which a loss was last accepted; 0: never.
    history: Epoch,
    /// Detached trees that wait to be freed.
    doomed: DoomedStack,
    /// Whether a single command does bounded work only: removal, expiry, the permission check of a removal. The first
    /// [`Operation::Reap`] turns it on for good. What was logged before it was executed by a release that freed slots
    /// in another order, and later records of that log name files by those slots: replay has to do the same.
    bounded: bool,
}

/// How much there is. What was removed counts until it is freed, piece by piece: see [`Operation::Reap`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Counts {
    /// Files that were completed.
    pub(crate) files: u64,
    /// Directories, with the root.
    pub(crate) directories: u64,
    /// Bytes of those files.
    pub(crate) bytes: u64,
}

impl Namespace {
    /// An empty namespace whose root belongs to `superuser`.
    ///
    /// The name is not logged: whoever runs the master owns the root.
    pub(crate) fn new(superuser: &str) -> Self {
        let mut names = Names::default();
        let owner = names.intern(superuser);
        let mut slab = Slab::default();
        let root = slab.insert(Inode {
            owner,
            group: owner,
            mode: DIRECTORY_MODE,
            mtime_ms: 0,
            content: Content::Directory(Children::new()),
        });
        Self {
            applied: Lsn(0),
            slab,
            names,
            root,
            next_chunk: ChunkId(1),
            chunks: Table::default(),
            open: OpenFiles::default(),
            open_chunks: ChunkMap::default(),
            tombstones: Table::default(),
            requests: Requests::default(),
            counts: Counts { directories: 1, ..Counts::default() },
            history: Epoch(0),
            doomed: DoomedStack::default(),
            bounded: false,
        }
    }

    /// What [`Namespace::apply`] would say now without changing anything: `Some` when the answer is known
    /// (executed before, or nothing to do), `None` when it is to be logged.
    ///
    /// # Errors
    /// As `apply`.
    pub(crate) fn check(&self, command: &Command) -> Result<Option<Answer>, NamespaceError> {
        if let Some(answer) = self.remembered(command)? {
            return Ok(Some(answer));
        }
        let caller = &command.caller;
        match &command.operation {
            Operation::Mkdir { path, parents, .. } => {
                Ok(self.plan_mkdir(caller, path, *parents)?.is_none().then_some(Answer::Done))
            }
            Operation::Create { path, overwrite, chunk_size, replication, .. } => {
                self.plan_create(caller, path, *overwrite, *chunk_size, *replication).map(|_| None)
            }
            Operation::AllocateChunk { file, abandon, .. } => {
                self.plan_allocate(caller, *file, *abandon).map(|()| None)
            }
            Operation::Complete { file, chunks } => self.plan_complete(caller, *file, chunks).map(|_| None),
            Operation::Abandon { file } => self.open_of(caller, *file).map(|_| None),
            Operation::RenewLeases { files, .. } => {
                let expired = self.expired_of(caller, files);
                Ok((expired.len() == files.len()).then_some(Answer::Renewed { expired }))
            }
            Operation::ExpireLeases { before_ms } => {
                let none = self.open.ended(*before_ms).next().is_none();
                Ok(none.then_some(Answer::Expired { files: Vec::new() }))
            }
            Operation::Rename { source, target, overwrite } => {
                Ok(self.plan_rename(caller, source, target, *overwrite)?.is_none().then_some(Answer::Done))
            }
            Operation::Remove { path, recursive } => self.plan_remove(caller, path, *recursive).map(|_| None),
            Operation::Copy { source, target, overwrite } => {
                self.plan_copy(caller, source, target, *overwrite).map(|_| None)
            }
            Operation::SetMode { path, mode } => self.plan_set_mode(caller, path, *mode).map(|_| None),
            Operation::SetOwner { path, owner, group } => {
                self.plan_set_owner(caller, path, owner.as_deref(), group.as_deref()).map(|_| None)
            }
            Operation::SetReplication { path, replication } => {
                self.plan_set_replication(caller, path, *replication).map(|_| None)
            }
            Operation::ForgetTombstones { chunks } => {
                let none = !chunks.iter().any(|chunk| self.tombstones.contains(*chunk));
                Ok(none.then_some(Answer::Forgotten))
            }
            Operation::ReserveChunks { .. } => Ok(None),
            Operation::PutWhole { path, overwrite, replication, chunk_size, chunk, .. } => {
                let body = (*chunk_size, *replication);
                self.plan_put_whole(caller, path, *overwrite, body, chunk.as_ref()).map(|_| None)
            }
            Operation::BuryChunks { chunks } => {
                Ok((!chunks.iter().any(|chunk| self.is_spare(*chunk))).then_some(Answer::Done))
            }
            Operation::AcceptLoss { epoch } => Ok((*epoch <= self.history).then_some(Answer::Done)),
            Operation::Reap { .. } => Ok((self.bounded && self.doomed.is_empty()).then_some(Answer::Done)),
        }
    }

    /// Executes a durable command. The same state and command give the same result, live and in replay.
    ///
    /// # Errors
    /// The refusal; nothing but the position in the log has changed.
    pub(crate) fn apply(&mut self, lsn: Lsn, command: &Command) -> Result<Answer, NamespaceError> {
        self.applied = lsn;
        if let Some(answer) = self.remembered(command)? {
            return Ok(answer);
        }
        let at_ms = command.at_ms;
        let caller = &command.caller;
        let answer = match &command.operation {
            Operation::Mkdir { path, parents, mode } => self.mkdir(at_ms, caller, path, *parents, *mode)?,
            Operation::Create { path, overwrite, mode, replication, chunk_size, lease_until_ms, chunk } => {
                let plan = self.plan_create(caller, path, *overwrite, *chunk_size, *replication)?;
                self.refuse_reuse(path, *chunk)?;
                self.create(at_ms, caller, plan, *mode, *lease_until_ms, *chunk)
            }
            Operation::AllocateChunk { file, chunk, abandon } => {
                self.allocate(at_ms, caller, *file, *chunk, *abandon)?
            }
            Operation::Complete { file, chunks } => self.complete(at_ms, caller, *file, chunks)?,
            Operation::Abandon { file } => {
                self.open_of(caller, *file)?;
                self.give_up(at_ms, *file);
                Answer::Done
            }
            Operation::RenewLeases { files, until_ms } => self.renew(caller, files, *until_ms),
            Operation::ExpireLeases { before_ms } => self.expire(at_ms, *before_ms),
            Operation::Rename { source, target, overwrite } => {
                self.rename(at_ms, caller, source, target, *overwrite)?
            }
            Operation::Remove { path, recursive } => self.remove(at_ms, caller, path, *recursive)?,
            Operation::Copy { source, target, overwrite } => {
                self.copy(at_ms, caller, source, target, *overwrite)?
            }
            Operation::SetMode { path, mode } => self.set_mode(caller, path, *mode)?,
            Operation::SetOwner { path, owner, group } => {
                self.set_owner(caller, path, owner.as_deref(), group.as_deref())?
            }
            Operation::SetReplication { path, replication } => {
                self.set_replication(caller, path, *replication)?
            }
            Operation::ForgetTombstones { chunks } => {
                for chunk in chunks {
                    self.tombstones.remove(*chunk);
                }
                Answer::Forgotten
            }
            Operation::ReserveChunks { count } => self.reserve(*count),
            Operation::PutWhole { path, overwrite, mode, replication, chunk_size, chunk } => {
                let body = (*chunk_size, *replication);
                let plan = self.plan_put_whole(caller, path, *overwrite, body, chunk.as_ref())?;
                self.put_whole(at_ms, caller, path, plan, *mode, chunk.as_ref())
            }
            Operation::BuryChunks { chunks } => self.bury_spare(at_ms, chunks),
            Operation::AcceptLoss { epoch } => self.accept_loss(*epoch),
            Operation::Reap { items } => self.reap(at_ms, *items),
        };
        if let Some(request) = command.request
            && command.fits(&answer)
        {
            self.requests.remember(request, fingerprint::of(command), answer.clone());
        }
        Ok(answer)
    }

    fn remembered(&self, command: &Command) -> Result<Option<Answer>, NamespaceError> {
        let Some((print, answer)) = command.request.and_then(|request| self.requests.answer(request)) else {
            return Ok(None);
        };
        if print != fingerprint::of(command) {
            return Err(NamespaceError::RequestReused { place: command.place() });
        }
        Ok(Some(answer.clone()))
    }

    /// The position in the log up to which this state goes.
    pub(crate) fn applied(&self) -> Lsn {
        self.applied
    }

    /// The lowest chunk id that was neither handed out nor reserved.
    pub(crate) fn next_chunk(&self) -> ChunkId {
        self.next_chunk
    }

    /// What is known of a chunk.
    pub(crate) fn chunk(&self, id: ChunkId) -> ChunkState {
        if let Some(chunk) = self.chunks.get(id) {
            ChunkState::Referenced(chunk.unpacked())
        } else if self.open_chunks.get(id).is_some() {
            ChunkState::Unfinished
        } else if let Some(tombstone) = self.tombstones.get(id) {
            ChunkState::Dereferenced(*tombstone)
        } else {
            ChunkState::Unknown
        }
    }

    /// Dereferenced chunks behind `after`, in order.
    pub(crate) fn tombstones_after(&self, after: ChunkId) -> impl Iterator<Item = (ChunkId, Tombstone)> + '_ {
        self.tombstones.iter_after(Some(after)).map(|(id, tombstone)| (id, *tombstone))
    }

    /// How many dereferenced chunks wait for gc.
    pub(crate) fn tombstone_count(&self) -> u64 {
        self.tombstones.len() as u64
    }

    /// How many chunks visible files refer to.
    pub(crate) fn chunk_count(&self) -> u64 {
        self.chunks.len() as u64
    }

    /// How many files are being written.
    pub(crate) fn open_count(&self) -> u64 {
        self.open.len() as u64
    }

    /// How much there is.
    pub(crate) fn counts(&self) -> Counts {
        self.counts
    }
}
