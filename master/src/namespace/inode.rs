//! Files and directories.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::Arc;

use compact_str::CompactString;
use distrifs_proto::types::{ChunkId, Crc32c, FileId};

use super::names::NameId;

/// A name in a directory: without a heap allocation up to 24 bytes, as most names are.
pub(crate) type Name = CompactString;

/// The children of a directory, sorted by name, and where it lies. Read as the map that it wraps; only
/// [`Slab`](super::slab::Slab) changes it, which keeps both sides of a link consistent.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Children {
    names: BTreeMap<Name, FileId>,
    /// Derived from the names of all directories, as `directories`: neither is part of an image.
    parent: FileId,
    directories: u32,
}

impl Children {
    /// None, of a directory that nothing names.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Of these names, which are sorted: the tree is built full, without a search for each.
    pub(super) fn from_sorted(names: impl Iterator<Item = (Name, FileId)>) -> Self {
        Self { names: names.collect(), ..Self::default() }
    }

    /// The directory that names this one; 0 for the root and for one that is detached.
    pub(crate) fn parent(&self) -> FileId {
        self.parent
    }

    /// How many of the children are directories.
    pub(crate) fn directories(&self) -> u32 {
        self.directories
    }

    /// The ids in the order of their names.
    pub(super) fn into_ids(self) -> impl Iterator<Item = FileId> {
        self.names.into_values()
    }

    /// For the slab: adds a name, and gives back what had it.
    pub(super) fn insert(&mut self, name: &str, child: FileId) -> Option<FileId> {
        self.names.insert(name.into(), child)
    }

    /// For the slab: forgets a name, and gives back what had it.
    pub(super) fn remove(&mut self, name: &str) -> Option<FileId> {
        self.names.remove(name)
    }

    /// For the slab: says where the directory lies.
    pub(super) fn set_parent(&mut self, parent: FileId) {
        self.parent = parent;
    }

    /// For the slab: says how many children are directories.
    pub(super) fn set_directories(&mut self, directories: u32) {
        self.directories = directories;
    }
}

impl Deref for Children {
    type Target = BTreeMap<Name, FileId>;

    fn deref(&self) -> &Self::Target {
        &self.names
    }
}

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
    /// Two and more. Shared, so that a copy of a file and the list of one being freed cost no copy of a million ids.
    Many(Arc<[ChunkId]>),
}

impl ChunkList {
    /// From ids in file order.
    pub(crate) fn new(mut ids: impl Iterator<Item = ChunkId>) -> Self {
        match (ids.next(), ids.next()) {
            (None, _) => Self::None,
            (Some(one), None) => Self::One(one),
            (Some(one), Some(two)) => Self::Many([one, two].into_iter().chain(ids).collect()),
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
