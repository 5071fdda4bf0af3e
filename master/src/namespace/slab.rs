//! All inodes, compactly, and readable as they were at one moment while they go on changing.
//!
//! A [`FileId`] is a slot and how often the slot was used before, so an id never names a second file. The choice
//! of slots depends only on the order of commands: replay gives the same ids.
//!
//! A snapshot works as in [`super::table`]: what a slot, or a name in a directory, was when it began is kept at
//! its first change. Names are kept one by one, so that a change in a directory of a million costs one name.

use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Unbounded};

use distrifs_proto::types::FileId;

use super::inode::{Children, Content, Inode, Name};
use super::table::PAGE_SKIPS_MAX;

/// All inodes.
#[derive(Debug, Default)]
#[cfg_attr(test, derive(Clone))]
pub(crate) struct Slab {
    slots: Vec<Slot>,
    /// The first of the chain of free slots.
    free: Option<u32>,
    used: usize,
    frozen: Option<Frozen>,
}

#[derive(Debug, PartialEq)]
#[cfg_attr(test, derive(Clone))]
enum Slot {
    Used { use_count: u32, inode: Inode },
    Free { use_count: u32, next: Option<u32> },
}

/// 100 million files with one chunk each must fit in 24 GiB: 240 bytes a file, of which the benchmark `scale`
/// finds about 200 in use.
const _: () = assert!(size_of::<Slot>() <= 80);

/// A snapshot under way: what was, as far as it has changed and was not handed out.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
struct Frozen {
    /// How many slots there were.
    slots: u32,
    /// The first slot that was not handed out.
    next: u32,
    /// The directory whose names are being handed out.
    within: Option<Within>,
    /// Slots; directories without their names.
    old: BTreeMap<u32, Slot>,
    /// Names in directories; `None`: not there.
    old_names: BTreeMap<u32, BTreeMap<Name, Option<FileId>>>,
}

#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
struct Within {
    slot: u32,
    use_count: u32,
    after: Option<Name>,
}

/// One piece of a snapshot; the names of a directory follow it, sorted.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum SlabRecord<'a> {
    /// A slot that is free.
    Free {
        /// How often it was used.
        use_count: u32,
        /// The next free one.
        next: Option<u32>,
    },
    /// A slot in use. A directory comes without its names.
    Used {
        /// How often it was used.
        use_count: u32,
        /// What is in it.
        inode: &'a Inode,
    },
    /// A name in the directory before.
    Entry {
        /// The name.
        name: &'a str,
        /// What it names.
        child: FileId,
    },
}

/// A snapshot under way is no part of the state.
impl PartialEq for Slab {
    fn eq(&self, other: &Self) -> bool {
        (&self.slots, self.free, self.used) == (&other.slots, other.free, other.used)
    }
}

fn id_of(slot: u32, use_count: u32) -> FileId {
    FileId(u64::from(use_count) << 32 | u64::from(slot))
}

fn slot_of(id: FileId) -> (usize, u32) {
    ((id.0 & u64::from(u32::MAX)) as usize, (id.0 >> 32) as u32)
}

impl Slab {
    /// How many inodes can be held at once.
    pub(crate) const MAX: u64 = u32::MAX as u64;

    /// Whether so many more fit.
    pub(crate) fn has_room(&self, more: usize) -> bool {
        (self.slots.len() + more) as u64 <= Self::MAX
    }

    /// How many inodes there are.
    pub(crate) fn len(&self) -> usize {
        self.used
    }

    /// Keeps `inode`; the caller has asked [`Slab::has_room`].
    pub(crate) fn insert(&mut self, inode: Inode) -> FileId {
        self.used += 1;
        if let Some(slot) = self.free
            && let Some(Slot::Free { use_count, next }) = self.slots.get(slot as usize)
        {
            let (use_count, next) = (use_count + 1, *next);
            self.keep_slot(slot);
            self.free = next;
            self.slots[slot as usize] = Slot::Used { use_count, inode };
            return id_of(slot, use_count);
        }
        let slot = self.slots.len() as u32;
        self.slots.push(Slot::Used { use_count: 1, inode });
        id_of(slot, 1)
    }

    /// Forgets an inode and gives it back. A slot whose count is used up is never used again.
    pub(crate) fn remove(&mut self, id: FileId) -> Option<Inode> {
        self.get(id)?;
        let (slot, use_count) = slot_of(id);
        self.keep_slot(slot as u32);
        self.keep_names(slot as u32, use_count);
        let retired = use_count == u32::MAX;
        let next = if retired { None } else { self.free };
        let old = std::mem::replace(&mut self.slots[slot], Slot::Free { use_count, next });
        if !retired {
            self.free = Some(slot as u32);
        }
        self.used -= 1;
        match old {
            Slot::Used { inode, .. } => Some(inode),
            Slot::Free { .. } => None,
        }
    }

    /// The inode of `id`, if it still is.
    pub(crate) fn get(&self, id: FileId) -> Option<&Inode> {
        let (slot, count) = slot_of(id);
        match self.slots.get(slot) {
            Some(Slot::Used { use_count, inode }) if *use_count == count => Some(inode),
            _ => None,
        }
    }

    /// Slot, id and inode of what is used of `most` slots from `slot` on, and the slot behind them; `None`: there is none.
    /// Slots that are free count, too: after a large removal there may be millions in a row.
    pub(crate) fn slice(
        &self,
        slot: u32,
        most: usize,
    ) -> (impl Iterator<Item = (u32, FileId, &Inode)>, Option<u32>) {
        let first = slot as usize;
        let end = first.saturating_add(most).min(self.slots.len());
        let some = self.slots.get(first..end).unwrap_or_default().iter().enumerate();
        let used = some.filter_map(move |(at, it)| match it {
            Slot::Used { use_count, inode } => {
                let slot = (first + at) as u32;
                Some((slot, id_of(slot, *use_count), inode))
            }
            Slot::Free { .. } => None,
        });
        (used, (end < self.slots.len()).then_some(end as u32))
    }

    /// The inode of `id`, to be changed, but for the names in a directory.
    pub(crate) fn get_mut(&mut self, id: FileId) -> Option<&mut Inode> {
        if self.frozen.is_some() && self.get(id).is_some() {
            self.keep_slot(slot_of(id).0 as u32);
        }
        self.inode_mut(id)
    }

    fn inode_mut(&mut self, id: FileId) -> Option<&mut Inode> {
        let (slot, count) = slot_of(id);
        match self.slots.get_mut(slot) {
            Some(Slot::Used { use_count, inode }) if *use_count == count => Some(inode),
            _ => None,
        }
    }

    /// Gives `child` a name in a directory, taking it from what had it.
    pub(crate) fn link(&mut self, directory: FileId, name: &str, child: FileId) {
        self.keep_name(directory, name);
        let Some(children) = self.children_mut(directory) else { return };
        let before = children.insert(name, child);
        if let Some(before) = before {
            self.detach(directory, before);
        }
        if let Some(moved) = self.children_mut(child) {
            moved.set_parent(directory);
            self.count_directory(directory, 1);
        }
    }

    /// Takes a name out of a directory; gives back what it named.
    pub(crate) fn unlink(&mut self, directory: FileId, name: &str) -> Option<FileId> {
        self.keep_name(directory, name);
        let child = self.children_mut(directory)?.remove(name)?;
        self.detach(directory, child);
        Some(child)
    }

    /// As [`Slab::unlink`], of the first name in a directory.
    pub(crate) fn unlink_first(&mut self, directory: FileId) -> Option<FileId> {
        let name = self.get(directory)?.children()?.first_key_value()?.0.clone();
        self.unlink(directory, &name)
    }

    /// `child` is not in `directory` any more.
    fn detach(&mut self, directory: FileId, child: FileId) {
        if let Some(children) = self.children_mut(child)
            && children.parent() == directory
        {
            children.set_parent(FileId::default());
            self.count_directory(directory, -1);
        }
    }

    fn count_directory(&mut self, parent: FileId, more: i32) {
        if let Some(children) = self.children_mut(parent) {
            children.set_directories(children.directories().saturating_add_signed(more));
        }
    }

    /// Names are kept one by one for a snapshot, and what is derived from them is no part of it.
    fn children_mut(&mut self, directory: FileId) -> Option<&mut Children> {
        match &mut self.inode_mut(directory)?.content {
            Content::Directory(children) => Some(children),
            Content::File(_) => None,
        }
    }

    fn keep_slot(&mut self, slot: u32) {
        let Some(frozen) = &mut self.frozen else { return };
        if (frozen.next..frozen.slots).contains(&slot) && !frozen.old.contains_key(&slot) {
            let old = match &self.slots[slot as usize] {
                Slot::Free { use_count, next } => Slot::Free { use_count: *use_count, next: *next },
                Slot::Used { use_count, inode } => {
                    Slot::Used { use_count: *use_count, inode: without_names(inode) }
                }
            };
            frozen.old.insert(slot, old);
        }
    }

    fn keep_name(&mut self, directory: FileId, name: &str) {
        let Some(frozen) = &mut self.frozen else { return };
        let (slot, use_count) = slot_of(directory);
        if let Some(Slot::Used { inode, .. }) = self.slots.get(slot)
            && let Some(children) = inode.children()
        {
            frozen.keep_name(slot as u32, use_count, name, children.get(name).copied());
        }
    }

    /// All names of a directory that goes: none in a bounded removal, which has emptied it name by name.
    fn keep_names(&mut self, slot: u32, use_count: u32) {
        let Some(frozen) = &mut self.frozen else { return };
        if let Some(Slot::Used { inode, .. }) = self.slots.get(slot as usize) {
            for (name, child) in inode.children().into_iter().flat_map(|it| it.iter()) {
                frozen.keep_name(slot, use_count, name, Some(*child));
            }
        }
    }

    /// How many slots there are, used or free, and the first free one: what a snapshot begins with.
    pub(crate) fn shape(&self) -> (u32, Option<u32>) {
        (self.slots.len() as u32, self.free)
    }

    /// From here on pages show what there is now.
    pub(crate) fn freeze(&mut self) {
        let slots = self.slots.len() as u32;
        let (old, old_names) = (BTreeMap::new(), BTreeMap::new());
        self.frozen = Some(Frozen { slots, next: 0, within: None, old, old_names });
    }

    /// Ends the snapshot. Gives back what was kept for it, to be dropped without the lock.
    pub(crate) fn thaw(&mut self) -> impl Sized + use<> {
        self.frozen.take()
    }

    /// Hands out more records of the snapshot for as long as `take` wants more; says whether there may be more.
    pub(crate) fn page(&mut self, mut take: impl FnMut(SlabRecord<'_>) -> bool) -> bool {
        let Some(frozen) = &mut self.frozen else { return false };
        let mut wanted = true;
        while wanted {
            if let Some(within) = &mut frozen.within {
                let old = frozen.old_names.entry(within.slot).or_default();
                let now = match &self.slots[within.slot as usize] {
                    Slot::Used { use_count, inode } if *use_count == within.use_count => inode.children(),
                    _ => None,
                };
                wanted = within.page(now, old, &mut take);
                if wanted {
                    frozen.old_names.remove(&within.slot);
                    frozen.within = None;
                }
                continue;
            }
            if frozen.next == frozen.slots {
                return false;
            }
            let slot = frozen.next;
            let old = frozen.old.remove(&slot);
            frozen.next += 1;
            match old.as_ref().unwrap_or(&self.slots[slot as usize]) {
                Slot::Free { use_count, next } => {
                    wanted = take(SlabRecord::Free { use_count: *use_count, next: *next });
                }
                Slot::Used { use_count, inode } => {
                    wanted = take(SlabRecord::Used { use_count: *use_count, inode });
                    if inode.is_directory() {
                        frozen.within = Some(Within { slot, use_count: *use_count, after: None });
                    }
                }
            }
        }
        true
    }

    /// A slab of what a snapshot handed out, in the same order.
    pub(crate) fn restore(free: Option<u32>) -> Restore {
        Restore { slab: Self { free, ..Self::default() }, names: Vec::new() }
    }
}

fn without_names(inode: &Inode) -> Inode {
    let content = match &inode.content {
        Content::Directory(_) => Content::Directory(Children::new()),
        Content::File(body) => Content::File(body.clone()),
    };
    Inode { content, ..*inode }
}

impl Frozen {
    /// Keeps what a name was, unless it was handed out, is kept already, or belongs to a directory that was not
    /// there when the snapshot began.
    fn keep_name(&mut self, slot: u32, use_count: u32, name: &str, was: Option<FileId>) {
        let waits = if (self.next..self.slots).contains(&slot) {
            match self.old.get(&slot) {
                Some(Slot::Used { use_count: then, .. }) => *then == use_count,
                Some(Slot::Free { .. }) => false,
                None => true,
            }
        } else {
            let here = |it: &&Within| (it.slot, it.use_count) == (slot, use_count);
            let within = self.within.as_ref().filter(here);
            within.is_some_and(|it| it.after.as_deref().is_none_or(|after| after < name))
        };
        if waits {
            self.old_names.entry(slot).or_default().entry(name.into()).or_insert(was);
        }
    }
}

impl Within {
    /// Hands out names behind `after` for as long as `take` wants more; says whether that was all of them.
    fn page(
        &mut self,
        now: Option<&Children>,
        old: &mut BTreeMap<Name, Option<FileId>>,
        take: &mut impl FnMut(SlabRecord<'_>) -> bool,
    ) -> bool {
        let none = Children::new();
        let now = now.unwrap_or(&none);
        let from = self.after.as_ref().map_or(Unbounded, Excluded);
        let mut now = now.range::<Name, _>((from, Unbounded)).peekable();
        let mut changed = old.range::<Name, _>((from, Unbounded)).peekable();
        let (mut wanted, mut last, mut skips) = (true, None, 0);
        while wanted {
            let is_changed = match (now.peek(), changed.peek()) {
                (None, None) => break,
                (Some((now, _)), Some((old, _))) => old <= now,
                (now, _) => now.is_none(),
            };
            let (name, child) = if is_changed {
                let Some((name, child)) = changed.next() else { break };
                now.next_if(|(now, _)| *now == name);
                (name, *child)
            } else {
                let Some((name, child)) = now.next() else { break };
                (name, Some(*child))
            };
            last = Some(name);
            match child {
                Some(child) => wanted = take(SlabRecord::Entry { name, child }),
                None => {
                    skips += 1;
                    wanted = skips < PAGE_SKIPS_MAX;
                }
            }
        }
        let last = last.cloned();
        drop((now, changed));
        if let Some(last) = last {
            *old = old.split_off(&last);
            old.remove(&last);
            self.after = Some(last);
        }
        wanted
    }
}

/// A slab that is being put together again.
#[derive(Debug)]
pub(crate) struct Restore {
    slab: Slab,
    /// Of the last directory.
    names: Vec<(Name, FileId)>,
}

impl Restore {
    /// The next slot.
    pub(crate) fn free(&mut self, use_count: u32, next: Option<u32>) {
        self.finish_directory();
        self.slab.slots.push(Slot::Free { use_count, next });
    }

    /// The next slot; of a directory without its names.
    pub(crate) fn used(&mut self, use_count: u32, inode: Inode) {
        self.finish_directory();
        self.slab.used += 1;
        self.slab.slots.push(Slot::Used { use_count, inode });
    }

    /// A name of the directory before; false when there is none.
    pub(crate) fn entry(&mut self, name: &str, child: FileId) -> bool {
        self.names.push((name.into(), child));
        matches!(self.slab.slots.last(), Some(Slot::Used { inode, .. }) if inode.is_directory())
    }

    fn finish_directory(&mut self) {
        if self.names.is_empty() {
            return;
        }
        if let Some(Slot::Used { inode, .. }) = self.slab.slots.last_mut() {
            inode.content = Content::Directory(Children::from_sorted(self.names.drain(..)));
        }
    }

    /// The slab.
    pub(crate) fn finish(mut self) -> Slab {
        self.finish_directory();
        self.link_directories();
        self.slab
    }

    /// Derives where each directory lies and how many are in it. The bitmap spares a cache miss for each file's slot.
    fn link_directories(&mut self) {
        let slots = &self.slab.slots;
        let is_directory = |it: &Slot| matches!(it, Slot::Used { inode, .. } if inode.is_directory());
        let mut directories = vec![0u64; slots.len().div_ceil(64)];
        for (slot, _) in slots.iter().enumerate().filter(|(_, it)| is_directory(it)) {
            directories[slot / 64] |= 1 << (slot % 64);
        }
        let in_bitmap = |id: FileId| {
            let slot = slot_of(id).0;
            directories.get(slot / 64).is_some_and(|word| word >> (slot % 64) & 1 != 0)
        };
        let mut links: Vec<(FileId, FileId)> = Vec::new();
        for (_, id, inode) in self.slab.slice(0, usize::MAX).0 {
            let children = inode.children().into_iter().flat_map(|it| it.values());
            links.extend(children.filter(|child| in_bitmap(**child)).map(|child| (id, *child)));
        }
        for (parent, child) in links {
            if let Some(children) = self.slab.children_mut(child) {
                children.set_parent(parent);
                self.slab.count_directory(parent, 1);
            }
        }
    }
}

#[cfg(test)]
#[path = "slab_test.rs"]
mod tests;
