//! Removal in bounded steps: a tree is unlinked at its top, and freed piece by piece.
//!
//! [`Namespace::drop_tree`] pushes the detached top on a stack, [`DoomedStack`], and frees the first
//! [`REAP_INLINE_ITEMS`] items in the same command; the rest waits for [`Operation::Reap`](super::Operation::Reap). An
//! item is an inode or one reference of a file to a chunk. The stack is part of the replicated state and its order
//! depends on the commands alone, so each replica and each replay frees the same slots in the same order.
//!
//! Depth first: a directory loses one name after the other, the child that it named goes on top of the stack, and the
//! directory is freed when it is empty. So the stack is as high as the deepest tree plus the tops that wait.
//!
//! No path leads to a doomed inode. It still counts in [`Counts`](super::Counts), and its chunks are still referenced,
//! until it is freed.

use std::collections::BTreeMap;

use distrifs_proto::types::FileId;

use super::command::Answer;
use super::inode::{Content, Inode};
use super::table::Table;
use super::{Namespace, NamespaceError, NsPath};

/// Items that a removal frees by itself: small trees are gone, and their chunks tombstones, when it is answered.
pub(crate) const REAP_INLINE_ITEMS: u32 = 64;
/// Items that one `Reap` frees at most, whatever it says.
pub(crate) const REAP_ITEMS_MAX: u32 = 1024;
/// Levels that [`Namespace::demand_attached`] climbs. Renames nest directories deeper than a path can name them, and
/// each level may cost a cache miss.
const CLIMB_MAX: usize = 1 << 14;

/// A detached inode that waits to be freed, with all below it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Doomed {
    /// A file, or a directory with what is left in it.
    pub(super) top: FileId,
    /// How many chunks of a file are dereferenced already, from its first on.
    pub(super) freed: u32,
}

/// What waits to be freed, the next one last. A table by height, so that a snapshot shows one moment of it.
#[derive(Debug, Default, PartialEq)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct DoomedStack(Table<BTreeMap<u32, Doomed>>);

impl DoomedStack {
    /// A stack of these entries, by height.
    pub(super) fn new(entries: BTreeMap<u32, Doomed>) -> Self {
        Self(Table::new(entries))
    }

    /// How high it is.
    pub(super) fn len(&self) -> u32 {
        // Each entry has an inode of its own, and there are no more of those.
        self.0.len() as u32
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// From the bottom to the top.
    pub(super) fn iter(&self) -> impl Iterator<Item = Doomed> + '_ {
        self.0.iter().map(|(_, entry)| *entry)
    }

    fn last(&self) -> Option<Doomed> {
        self.0.get(self.len().checked_sub(1)?).copied()
    }

    fn push(&mut self, top: FileId) {
        self.0.insert(self.len(), Doomed { top, freed: 0 });
    }

    fn pop(&mut self) {
        if let Some(last) = self.len().checked_sub(1) {
            self.0.remove(last);
        }
    }

    fn set_freed(&mut self, freed: u32) {
        if let Some(last) = self.len().checked_sub(1)
            && let Some(entry) = self.0.get_mut(last)
        {
            entry.freed = freed;
        }
    }

    /// From here on pages show what waits now.
    pub(super) fn freeze(&mut self) {
        self.0.freeze();
    }

    /// Ends the snapshot, as [`Table::thaw`].
    pub(super) fn thaw(&mut self) -> impl Sized + use<> {
        self.0.thaw()
    }

    /// Hands out more of the snapshot from the bottom up, as [`Table::page`].
    pub(super) fn page(&mut self, mut take: impl FnMut(&Doomed) -> bool) -> bool {
        self.0.page(|_, entry| take(entry))
    }
}

impl Namespace {
    /// Frees an unlinked inode with all below it: at once where that is little work, else what exceeds
    /// [`REAP_INLINE_ITEMS`] later.
    pub(super) fn drop_tree(&mut self, at_ms: i64, top: FileId) {
        if !self.bounded {
            return self.drop_at_once(at_ms, top);
        }
        self.doomed.push(top);
        self.free_doomed(at_ms, REAP_INLINE_ITEMS);
    }

    /// Executes a `Reap`.
    pub(super) fn reap(&mut self, at_ms: i64, items: u32) -> Answer {
        self.bounded = true;
        self.free_doomed(at_ms, items.min(REAP_ITEMS_MAX));
        Answer::Done
    }

    /// Frees at most `items` items. Descents have the same limit of their own: a chain of nested directories frees
    /// nothing before its end is reached.
    fn free_doomed(&mut self, at_ms: i64, items: u32) {
        let (mut freed, mut descents) = (0, 0);
        while freed < items && descents < items {
            let Some(Doomed { top, freed: done }) = self.doomed.last() else { return };
            match self.slab.get(top).map(|inode| &inode.content) {
                Some(Content::File(body)) => {
                    // Shared, not copied: see `ChunkList`.
                    let chunks = body.chunks.clone();
                    let rest = chunks.as_slice().get(done as usize..).unwrap_or_default();
                    let piece = &rest[..rest.len().min((items - freed) as usize)];
                    for chunk in piece {
                        self.dereference(at_ms, *chunk);
                    }
                    freed += piece.len() as u32;
                    if piece.len() < rest.len() || freed == items {
                        self.doomed.set_freed(done + piece.len() as u32);
                        continue;
                    }
                }
                Some(Content::Directory(_)) => {
                    if let Some(child) = self.slab.unlink_first(top) {
                        self.doomed.push(child);
                        descents += 1;
                        continue;
                    }
                }
                None => {}
            }
            self.doomed.pop();
            self.free_inode(top);
            freed += 1;
        }
    }

    fn free_inode(&mut self, id: FileId) {
        match self.slab.remove(id).map(|inode| inode.content) {
            Some(Content::Directory(_)) => self.counts.directories -= 1,
            Some(Content::File(body)) => {
                self.counts.files -= 1;
                self.counts.bytes -= body.size;
            }
            None => {}
        }
    }

    /// As releases did that knew no `Reap`: the slots come free in another order, on which the ids in the rest of
    /// such a log depend.
    fn drop_at_once(&mut self, at_ms: i64, top: FileId) {
        let mut todo = vec![top];
        while let Some(id) = todo.pop() {
            let Some(inode) = self.slab.remove(id) else { continue };
            match inode.content {
                Content::Directory(children) => {
                    self.counts.directories -= 1;
                    todo.extend(children.into_ids());
                }
                Content::File(body) => {
                    self.counts.files -= 1;
                    self.counts.bytes -= body.size;
                    for chunk in body.chunks.as_slice() {
                        self.dereference(at_ms, *chunk);
                    }
                }
            }
        }
    }

    /// How many detached trees, and directories within one, wait to be freed.
    pub(crate) fn doomed_count(&self) -> u64 {
        u64::from(self.doomed.len())
    }

    /// Whether a `Reap` has something to free.
    pub(crate) fn reap_is_due(&self) -> bool {
        self.doomed_count() > 0
    }

    /// Whether the bounded rules are to be turned on, by a first `Reap`. Where everything together is no more than a
    /// removal frees by itself, there is no need yet.
    pub(crate) fn wants_bounded_rules(&self) -> bool {
        !self.bounded && self.slab.len() + self.chunks.len() > REAP_INLINE_ITEMS as usize
    }

    /// Refuses unless `directory`, which was the parent of `path`, is still part of the visible tree.
    pub(super) fn demand_attached(&self, directory: FileId, path: &NsPath) -> Result<(), NamespaceError> {
        let parent = || path.prefix(path.names().count().saturating_sub(1));
        let missing = || Err(NamespaceError::NotFound { path: path.clone(), missing: parent() });
        if self.doomed.is_empty() {
            // Then each directory that there is belongs to the visible tree.
            return if self.slab.get(directory).is_some() { Ok(()) } else { missing() };
        }
        let mut here = directory;
        for _ in 0..CLIMB_MAX {
            if here == self.root {
                return Ok(());
            }
            let Some(children) = self.slab.get(here).and_then(Inode::children) else { return missing() };
            here = children.parent();
        }
        Err(NamespaceError::TooDeep { at: parent() })
    }
}
