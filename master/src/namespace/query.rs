//! Questions: stat, list, read plan, and what the leader asks about files being written.

use std::ops::Bound;

use distrifs_proto::limits::{PATH_BYTES_MAX, PATH_DEPTH_MAX};
use distrifs_proto::types::{ChunkId, Crc32c, FileId};

use super::command::Completed;
use super::inode::{Children, Content, FileBody, Inode, Name};
use super::path::NsPath;
use super::{Chunk, Namespace, NamespaceError};
use crate::permission::{Caller, EXECUTE, READ};

/// What there is to say of a file or directory.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Status {
    /// The path, or the name in a listing.
    pub(crate) path: String,
    /// Its id.
    pub(crate) file: FileId,
    /// Its owner.
    pub(crate) owner: String,
    /// Its group.
    pub(crate) group: String,
    /// Permission bits.
    pub(crate) mode: u16,
    /// Last change of the content, in milliseconds since 1970.
    pub(crate) mtime_ms: i64,
    /// `None` for directories.
    pub(crate) body: Option<BodyStatus>,
}

/// What there is to say of a file's bytes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct BodyStatus {
    /// Length in bytes.
    pub(crate) size: u64,
    /// Of all of it.
    pub(crate) crc: Crc32c,
    /// Length of every chunk but the last.
    pub(crate) chunk_size: u32,
    /// Replicas asked for.
    pub(crate) replication: u8,
    /// How many chunks.
    pub(crate) chunks: u64,
}

impl From<&FileBody> for BodyStatus {
    fn from(body: &FileBody) -> Self {
        Self {
            size: body.size,
            crc: body.crc,
            chunk_size: body.chunk_size,
            replication: body.replication,
            chunks: body.chunks.as_slice().len() as u64,
        }
    }
}

/// One page of a listing.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ListPage {
    /// In the order of names, a directory before what is inside.
    pub(crate) entries: Vec<Status>,
    /// Whether another page follows.
    pub(crate) more: bool,
}

/// The chunks that cover a range.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct PlannedRange {
    /// Of the file.
    pub(crate) status: Status,
    /// Index in the file, id, and what is known of it.
    pub(crate) chunks: Vec<(u64, ChunkId, Chunk)>,
}

/// What the leader needs to place a chunk of a file being written.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Writing {
    /// As its writer named it.
    pub(crate) path: NsPath,
    /// Replicas of each chunk.
    pub(crate) replication: u8,
    /// Length of every chunk but the last.
    pub(crate) chunk_size: u32,
}

impl Namespace {
    /// The status of an inode under the name `path`.
    pub(super) fn status_of(&self, file: FileId, path: &str) -> Option<Status> {
        let inode = self.slab.get(file)?;
        let body = match &inode.content {
            Content::Directory(_) => None,
            Content::File(body) => Some(body.into()),
        };
        Some(Status {
            path: path.to_owned(),
            file,
            owner: self.names.text(inode.owner).to_owned(),
            group: self.names.text(inode.group).to_owned(),
            mode: inode.mode,
            mtime_ms: inode.mtime_ms,
            body,
        })
    }

    /// The status of a file as it was when it appeared.
    pub(crate) fn status_when(&self, completed: &Completed) -> Status {
        Status {
            path: completed.path.to_string(),
            file: completed.file,
            owner: self.names.text(completed.owner).to_owned(),
            group: self.names.text(completed.group).to_owned(),
            mode: completed.mode,
            mtime_ms: completed.mtime_ms,
            body: Some(completed.body),
        }
    }

    /// What is at `path`.
    ///
    /// # Errors
    /// Not found, or the way there is closed to `caller`.
    pub(crate) fn stat(&self, caller: &Caller, path: &NsPath) -> Result<Status, NamespaceError> {
        let id = self.existing(caller, path)?;
        self.status_of(id, path.as_str()).ok_or_else(|| gone(path))
    }

    /// At most `limit` entries of a directory behind `after`; recursive: of the tree, with paths relative to it.
    /// A file lists itself.
    ///
    /// # Errors
    /// Not found, a directory that `caller` may not read, or entries that no path can name: a tree that was moved may
    /// be deeper than it could have been made.
    pub(crate) fn list(
        &self,
        caller: &Caller,
        path: &NsPath,
        recursive: bool,
        after: &str,
        limit: usize,
    ) -> Result<ListPage, NamespaceError> {
        let top = self.existing(caller, path)?;
        let Some(children) = self.slab.get(top).and_then(Inode::children) else {
            let name = path.last().unwrap_or("/");
            let entries = if after.is_empty() { self.status_of(top, name) } else { None };
            return Ok(ListPage { entries: entries.into_iter().collect(), more: false });
        };
        if after.len() > PATH_BYTES_MAX {
            let what = format!("the entry to continue behind is longer than {PATH_BYTES_MAX} bytes");
            return Err(NamespaceError::Invalid { path: path.to_string(), what });
        }
        let depth = path.names().count();
        let need = if recursive { READ | EXECUTE } else { READ };
        self.demand(caller, top, need, path, depth)?;
        let mut levels: Vec<Level<'_>> = Vec::new();
        let mut here = Some(children);
        let mut prefix = String::new();
        for name in after.split('/').filter(|name| !name.is_empty()) {
            let Some(children) = here.take() else { break };
            levels.push(Level { prefix: prefix.clone(), rest: behind(children, name) });
            prefix = joined(&prefix, name);
            if recursive && let Some(child) = children.get(name) {
                here = self.slab.get(*child).and_then(Inode::children);
                if here.is_some() {
                    self.demand_listing(caller, *child, path, &prefix)?;
                }
            }
            if !recursive {
                break;
            }
        }
        if let Some(children) = here {
            levels
                .push(Level { prefix, rest: children.range::<str, _>((Bound::Unbounded, Bound::Unbounded)) });
        }
        self.fill_page(caller, path, recursive, levels, limit)
    }

    fn fill_page<'a>(
        &'a self,
        caller: &Caller,
        path: &NsPath,
        recursive: bool,
        mut levels: Vec<Level<'a>>,
        limit: usize,
    ) -> Result<ListPage, NamespaceError> {
        let (depth, above) = (path.names().count(), path.as_str().len() + 1);
        let mut entries = Vec::new();
        loop {
            let height = levels.len();
            let Some(level) = levels.last_mut() else { break };
            let Some((name, child)) = level.rest.next() else {
                levels.pop();
                continue;
            };
            if entries.len() == limit {
                return Ok(ListPage { entries, more: true });
            }
            let relative = joined(&level.prefix, name);
            if recursive && (depth + height > PATH_DEPTH_MAX || above + relative.len() > PATH_BYTES_MAX) {
                return Err(NamespaceError::TooDeep { at: below(path, &level.prefix) });
            }
            entries.extend(self.status_of(*child, &relative));
            if recursive && let Some(children) = self.slab.get(*child).and_then(Inode::children) {
                self.demand_listing(caller, *child, path, &relative)?;
                let rest = children.range::<str, _>((Bound::Unbounded, Bound::Unbounded));
                levels.push(Level { prefix: relative, rest });
            }
        }
        Ok(ListPage { entries, more: false })
    }

    /// A closed directory ends a recursive listing: a copy made from it must not silently lack a part.
    fn demand_listing(
        &self,
        caller: &Caller,
        directory: FileId,
        path: &NsPath,
        relative: &str,
    ) -> Result<(), NamespaceError> {
        let need = READ | EXECUTE;
        if self.ownership(directory).is_some_and(|it| it.allows(caller, need)) {
            return Ok(());
        }
        let on = below(path, relative);
        Err(NamespaceError::PermissionDenied { path: path.clone(), user: caller.user.clone(), need, on })
    }

    /// The first `limit` chunks that cover `length` bytes from `offset` (0: all that follow).
    ///
    /// # Errors
    /// Not found, not a file, not readable by `caller`, or not `expected` any more.
    pub(crate) fn read_plan(
        &self,
        caller: &Caller,
        path: &NsPath,
        (offset, length): (u64, u64),
        expected: Option<FileId>,
        limit: usize,
    ) -> Result<PlannedRange, NamespaceError> {
        let id = self.existing(caller, path)?;
        let Some(body) = self.slab.get(id).and_then(Inode::file) else {
            return Err(NamespaceError::IsADirectory { path: path.clone(), hint: "" });
        };
        self.demand(caller, id, READ, path, path.names().count())?;
        if expected.is_some_and(|expected| expected != id) {
            return Err(NamespaceError::Replaced { path: path.clone() });
        }
        let status = self.status_of(id, path.as_str()).ok_or_else(|| gone(path))?;
        let end = if length == 0 { body.size } else { offset.saturating_add(length).min(body.size) };
        let mut chunks = Vec::new();
        if offset < end {
            let chunk_size = u64::from(body.chunk_size);
            let (first, last) = (offset / chunk_size, (end - 1) / chunk_size);
            for index in (first..=last).take(limit) {
                let id = body.chunks.as_slice().get(index as usize);
                let Some((id, chunk)) = id.and_then(|id| Some((*id, self.chunks.get(*id)?.unpacked())))
                else {
                    break;
                };
                chunks.push((index, id, chunk));
            }
        }
        Ok(PlannedRange { status, chunks })
    }

    /// The chunks of a visible file, in order, and the replicas that are wanted of each; `None` for anything else.
    pub(crate) fn chunks_of(
        &self,
        file: FileId,
    ) -> Option<(u8, impl Iterator<Item = (ChunkId, Chunk)> + '_)> {
        let body = self.slab.get(file).and_then(Inode::file)?;
        let known = |id: &ChunkId| Some((*id, self.chunks.get(*id)?.unpacked()));
        Some((body.replication, body.chunks.as_slice().iter().filter_map(known)))
    }

    /// At most `most` chunks of a visible file from the `first` on, in order.
    pub(crate) fn some_chunks_of(
        &self,
        file: FileId,
        first: usize,
        most: usize,
    ) -> impl Iterator<Item = (ChunkId, Chunk)> + '_ {
        let ids = self.slab.get(file).and_then(Inode::file).map_or(&[][..], |body| body.chunks.as_slice());
        let some = ids.get(first..).unwrap_or_default().iter().take(most);
        some.filter_map(|id| Some((*id, self.chunks.get(*id)?.unpacked())))
    }

    /// The files that have one of `most` slots from `slot` on, with slot, replicas wanted and number of chunks, and the slot
    /// behind; `None`: there is none. Open files have no chunks yet. A file whose tree was removed a moment ago may still be
    /// among them.
    pub(crate) fn files_slice(
        &self,
        slot: u32,
        most: usize,
    ) -> (impl Iterator<Item = (u32, FileId, u8, usize)> + '_, Option<u32>) {
        let (used, next) = self.slab.slice(slot, most);
        let file = |(slot, id, inode): (u32, FileId, &Inode)| {
            let body = inode.file()?;
            Some((slot, id, body.replication, body.chunks.as_slice().len()))
        };
        (used.filter_map(file), next)
    }

    /// What `caller` is writing as `file`.
    ///
    /// # Errors
    /// It is not open for `caller`.
    pub(crate) fn writing(&self, caller: &Caller, file: FileId) -> Result<Writing, NamespaceError> {
        let open = self.open_of(caller, file)?;
        let Some(body) = self.slab.get(file).and_then(Inode::file) else {
            return Err(gone(&open.path));
        };
        let (replication, chunk_size) = (body.replication, body.chunk_size);
        Ok(Writing { path: open.path.clone(), replication, chunk_size })
    }
}

/// A directory on the way of a listing, and what is left of it.
struct Level<'a> {
    prefix: String,
    rest: std::collections::btree_map::Range<'a, Name, FileId>,
}

fn behind<'a>(children: &'a Children, name: &str) -> std::collections::btree_map::Range<'a, Name, FileId> {
    children.range::<str, _>((Bound::Excluded(name), Bound::Unbounded))
}

/// The path of what is at `relative` below a directory.
fn below(path: &NsPath, relative: &str) -> String {
    format!("{}/{relative}", path.as_str().trim_end_matches('/'))
}

fn joined(prefix: &str, name: &str) -> String {
    if prefix.is_empty() { name.to_owned() } else { format!("{prefix}/{name}") }
}

fn gone(path: &NsPath) -> NamespaceError {
    NamespaceError::NotFound { path: path.clone(), missing: path.to_string() }
}
