//! Files and directories.

use std::collections::BTreeMap;

use compact_str::CompactString;
use distrifs_proto::types::{ChunkId, Crc32c, FileId};

use super::names::NameId;

/// A name in a directory: without a heap allocation up to 24 bytes, as most names are.
pub(crate) type Name = CompactString;

/// The children of a directory, sorted by name.
pub(crate) type Children = BTreeMap<Name, FileId>;

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
