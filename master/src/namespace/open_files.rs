//! The files being written, by id and by the end of their lease.

use std::collections::{BTreeMap, BTreeSet};

use distrifs_proto::types::{ChunkId, FileId};

use super::names::NameId;
use super::path::NsPath;
use super::table::Table;

/// A file being written: its inode exists, but no directory names it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct OpenFile {
    /// As its writer named it.
    pub(super) path: NsPath,
    /// The directory that will name it.
    pub(super) parent: FileId,
    /// Whether it may replace a file.
    pub(super) overwrite: bool,
    /// Who writes it.
    pub(super) writer: NameId,
    /// Until when it is not given up.
    pub(super) lease_until_ms: i64,
    /// Handed out and not abandoned, sorted.
    pub(super) chunks: Vec<ChunkId>,
}

impl OpenFile {
    /// Whether a chunk was handed out for it and not abandoned.
    pub(super) fn has(&self, chunk: ChunkId) -> bool {
        self.chunks.binary_search(&chunk).is_ok()
    }
}

/// All of them.
#[derive(Debug, Default, PartialEq)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct OpenFiles {
    files: Table<BTreeMap<FileId, OpenFile>>,
    /// Derived from `files`, so no part of an image: expiry looks at what has ended, not at all files.
    leases: BTreeSet<(i64, FileId)>,
}

impl OpenFiles {
    /// These.
    pub(super) fn new(files: BTreeMap<FileId, OpenFile>) -> Self {
        let leases = files.iter().map(|(file, open)| (open.lease_until_ms, *file)).collect();
        Self { files: Table::new(files), leases }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.files.len()
    }

    /// The one of this id.
    pub(super) fn get(&self, file: FileId) -> Option<&OpenFile> {
        self.files.get(file)
    }

    /// All of them, by id.
    pub(super) fn iter(&self) -> impl Iterator<Item = (FileId, &OpenFile)> {
        self.files.iter()
    }

    /// By the end of the lease.
    pub(super) fn leases(&self) -> impl Iterator<Item = (i64, FileId)> + '_ {
        self.leases.iter().copied()
    }

    /// Opens a file.
    pub(super) fn insert(&mut self, file: FileId, open: OpenFile) {
        self.leases.insert((open.lease_until_ms, file));
        self.files.insert(file, open);
    }

    /// Closes a file.
    pub(super) fn remove(&mut self, file: FileId) -> Option<OpenFile> {
        let open = self.files.remove(file)?;
        self.leases.remove(&(open.lease_until_ms, file));
        Some(open)
    }

    /// The chunks of a file, to be changed.
    pub(super) fn chunks_mut(&mut self, file: FileId) -> Option<&mut Vec<ChunkId>> {
        self.files.get_mut(file).map(|open| &mut open.chunks)
    }

    /// Extends a lease. It never becomes shorter: the clock may have been set back.
    pub(super) fn renew(&mut self, file: FileId, until_ms: i64) {
        let Some(open) = self.files.get_mut(file) else { return };
        if open.lease_until_ms < until_ms {
            self.leases.remove(&(open.lease_until_ms, file));
            self.leases.insert((until_ms, file));
            open.lease_until_ms = until_ms;
        }
    }

    /// The files whose lease ended at or before this time, those that ended first in front.
    pub(super) fn ended(&self, before_ms: i64) -> impl Iterator<Item = FileId> + '_ {
        self.leases.range(..=(before_ms, FileId(u64::MAX))).map(|(_, file)| *file)
    }

    /// From here on pages show what is open now.
    pub(super) fn freeze(&mut self) {
        self.files.freeze();
    }

    /// Ends the snapshot, as [`Table::thaw`].
    pub(super) fn thaw(&mut self) -> impl Sized + use<> {
        self.files.thaw()
    }

    /// Hands out more of the snapshot, as [`Table::page`].
    pub(super) fn page(&mut self, take: impl FnMut(FileId, &OpenFile) -> bool) -> bool {
        self.files.page(take)
    }
}
