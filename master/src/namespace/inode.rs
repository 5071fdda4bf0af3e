//! Files and directories, kept compactly in a slab.
//!
//! A [`FileId`] is a slot and how often the slot was used before, so an id never names a second file. The choice
//! of slots depends only on the order of commands: replay gives the same ids.

use std::collections::BTreeMap;

use distrifs_proto::types::{ChunkId, Crc32c, FileId};

use super::names::NameId;

/// The children of a directory, sorted by name.
pub(crate) type Children = BTreeMap<Box<str>, FileId>;

/// A file or directory. Its name is kept by its parent.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Inode {
    /// Whose it is.
    pub(crate) owner: NameId,
    /// Its group.
    pub(crate) group: NameId,
    /// Permission bits.
    pub(crate) mode: u16,
    /// Last change of the content, in milliseconds since 1970.
    pub(crate) mtime_ms: i64,
    /// What is inside.
    pub(crate) content: Content,
}

/// What an inode holds.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Content {
    /// Names.
    Directory(Children),
    /// Bytes.
    File(FileBody),
}

/// The bytes of a file, as far as the master knows them.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct FileBody {
    /// Length in bytes.
    pub(crate) size: u64,
    /// Of all of it.
    pub(crate) crc: Crc32c,
    /// Length of every chunk but the last.
    pub(crate) chunk_size: u32,
    /// Replicas asked for.
    pub(crate) replication: u8,
    /// In file order.
    pub(crate) chunks: ChunkList,
}

/// The chunks of a file; nearly all files have one.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) enum ChunkList {
    /// An empty file, or one not yet completed.
    #[default]
    None,
    /// One chunk, without a heap allocation.
    One(ChunkId),
    /// Two and more.
    Many(Box<[ChunkId]>),
}

impl ChunkList {
    /// From ids in file order.
    pub(crate) fn new(ids: &[ChunkId]) -> Self {
        match ids {
            [] => Self::None,
            [one] => Self::One(*one),
            many => Self::Many(many.into()),
        }
    }

    /// The ids in file order.
    pub(crate) fn as_slice(&self) -> &[ChunkId] {
        match self {
            Self::None => &[],
            Self::One(id) => std::slice::from_ref(id),
            Self::Many(ids) => ids,
        }
    }
}

impl Inode {
    /// The children of a directory.
    pub(crate) fn children(&self) -> Option<&Children> {
        match &self.content {
            Content::Directory(children) => Some(children),
            Content::File(_) => None,
        }
    }

    /// The bytes of a file.
    pub(crate) fn file(&self) -> Option<&FileBody> {
        match &self.content {
            Content::Directory(_) => None,
            Content::File(body) => Some(body),
        }
    }

    /// Whether it is a directory.
    pub(crate) fn is_directory(&self) -> bool {
        matches!(self.content, Content::Directory(_))
    }
}

/// All inodes.
#[derive(Debug, Default, PartialEq)]
#[cfg_attr(test, derive(Clone))]
pub(crate) struct Slab {
    slots: Vec<Slot>,
    /// The first of the chain of free slots.
    free: Option<u32>,
    used: usize,
}

#[derive(Debug, PartialEq)]
#[cfg_attr(test, derive(Clone))]
enum Slot {
    Used { use_count: u32, inode: Inode },
    Free { use_count: u32, next: Option<u32> },
}

/// 100 million files with one chunk each must fit in 24 GiB: 257 bytes a file. Beside this, a file takes its name
/// and 24 bytes in its directory, and its chunk 33 bytes at the load of a hash table.
const _: () = assert!(size_of::<Slot>() <= 80);

fn id_of(slot: u32, use_count: u32) -> FileId {
    FileId(u64::from(use_count) << 32 | u64::from(slot))
}

fn slot_of(id: FileId) -> (usize, u32) {
    ((id.0 & u64::from(u32::MAX)) as usize, (id.0 >> 32) as u32)
}

impl Slab {
    /// How many inodes can be held at once.
    pub(crate) const MAX: u64 = u32::MAX as u64;

    /// Whether one more fits.
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

    /// The inode of `id`, to be changed.
    pub(crate) fn get_mut(&mut self, id: FileId) -> Option<&mut Inode> {
        let (slot, count) = slot_of(id);
        match self.slots.get_mut(slot) {
            Some(Slot::Used { use_count, inode }) if *use_count == count => Some(inode),
            _ => None,
        }
    }

    /// The children of a directory, to be changed.
    pub(crate) fn children_mut(&mut self, id: FileId) -> Option<&mut Children> {
        match &mut self.get_mut(id)?.content {
            Content::Directory(children) => Some(children),
            Content::File(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inode() -> Inode {
        Inode {
            owner: NameId(0),
            group: NameId(0),
            mode: 0,
            mtime_ms: 0,
            content: Content::Directory(Children::new()),
        }
    }

    #[test]
    fn an_id_never_names_a_second_file() {
        let mut slab = Slab::default();
        let first = slab.insert(inode());
        assert!(slab.remove(first).is_some());
        let second = slab.insert(inode());
        assert_ne!(first, second);
        assert_eq!(slot_of(first).0, slot_of(second).0, "the slot is used again");
        assert!(slab.get(first).is_none() && slab.remove(first).is_none() && slab.get(second).is_some());
        assert_ne!(first, FileId(0), "0 means none on the wire");
    }
}
