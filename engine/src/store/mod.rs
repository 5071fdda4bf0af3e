//! The chunk store of one data folder: create, write, commit, read a range, delete, inventory.
//!
//! ```text
//! VERSION                       cluster id, node id, layout version   (folder.rs)
//! WITNESS                       highest epoch and LSN shown           (folder.rs)
//! chunks/XX/chunk-<16 hex>      exactly the chunk's bytes
//! chunks/XX/chunk-<16 hex>.meta its sidecar                           (sidecar.rs)
//! chunks/XX/chunk-<16 hex>.bad  empty: the replica was found damaged
//! tmp/                          what is not committed; emptied at start
//! journal/                      small chunks whose files are not durable yet   (journal/)
//! quarantine/                   what does not fit together; kept for a person
//! ```
//!
//! A chunk exists from the moment its data file's name is durable in `chunks/`, which is the last step of
//! [`commit`](ChunkWriter::commit). A small one exists once its record is durable in the journal: whatever a crash does
//! to its files, the next start ([`replay`](ChunkStore::replay)) brings them back. Its length and checksums come from the sidecar, never from the file's size.
//! A store never overwrites a committed chunk.
//!
//! Each shard has a [`ChunkStore`] of its own on the same folder; they share nothing but the file system. That two
//! writers cannot make the same chunk is held by the exclusive creation of its name in `tmp/`.

mod counters;
mod dir_sync;
mod error;
mod folder;
pub mod journal;
mod layout;
mod reader;
mod scan;
mod sidecar;
mod writer;

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use distrifs_proto::types::{ChunkId, ClusterId, Crc32c, GenerationStamp, NodeId};

use crate::io::{Io, Open, Space};
use dir_sync::DirSync;
use journal::{Journal, Recovered};

pub use counters::Counters;
pub use error::StoreError;
pub use folder::{Folder, Identity, Witness};
pub use reader::ChunkReader;
pub use scan::Inventory;
pub use sidecar::{SIDECAR_HEADER_BYTES, Sidecar, SidecarHeader};
pub use writer::{ChunkWriter, WriteInFlight};

/// A committed replica, as reports tell it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplicaInfo {
    /// Which chunk.
    pub chunk: ChunkId,
    /// Its version.
    pub generation: GenerationStamp,
    /// Its length in bytes.
    pub length: u64,
    /// Of all its bytes.
    pub crc: Crc32c,
}

/// The chunks of one data folder, for one thread.
#[derive(Clone)]
pub struct ChunkStore {
    io: Io,
    root: Rc<Path>,
    dir_sync: DirSync,
    journal: Option<Journal>,
    counters: Arc<Counters>,
}

impl ChunkStore {
    /// A store on a folder that [`Folder::open`] prepared. Its small chunks go through the journal, the same one for
    /// all stores of the folder; without one they are committed as the others. Whoever ever used one deletes with it.
    #[must_use]
    pub fn attach(io: Io, root: PathBuf, journal: Option<Journal>) -> Self {
        let counters = journal.as_ref().map_or_else(Arc::default, |it| it.counters().clone());
        let dir_sync = DirSync::new(io.clone(), counters.clone());
        Self { io, root: root.into(), dir_sync, journal, counters }
    }

    /// Where it is.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The room of its file system.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub async fn free_space(&self) -> Result<Space, StoreError> {
        self.io.free_space(&self.root).await.map_err(|e| StoreError::io("statvfs", &self.root, e))
    }

    /// Begins a chunk: a file in `tmp/` with room for `reserve` bytes.
    ///
    /// # Errors
    /// [`StoreError::Exists`] when the chunk is committed or being written, [`StoreError::NoSpace`], or
    /// [`StoreError::Io`]. Nothing is left behind.
    pub async fn create(
        &self,
        cluster: ClusterId,
        chunk: ChunkId,
        generation: GenerationStamp,
        reserve: u64,
    ) -> Result<ChunkWriter, StoreError> {
        ChunkWriter::create(self.clone(), cluster, chunk, generation, reserve).await
    }

    /// Opens a committed chunk for reading.
    ///
    /// # Errors
    /// [`StoreError::NoSuchChunk`]; [`StoreError::Corrupt`] when the sidecar is damaged, belongs to another
    /// chunk or cluster, or the data file has another length; [`StoreError::Io`].
    pub async fn open(&self, cluster: ClusterId, chunk: ChunkId) -> Result<ChunkReader, StoreError> {
        ChunkReader::open(&self.io, &self.root, cluster, chunk).await
    }

    /// As [`open`](Self::open), past the page cache: what is read is what the device has now.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub async fn open_direct(&self, cluster: ClusterId, chunk: ChunkId) -> Result<ChunkReader, StoreError> {
        ChunkReader::open_as(&self.io, &self.root, cluster, chunk, Open::READ_DIRECT).await
    }

    /// Deletes a chunk of this or a lower generation; one that is not there is done. Durable when it returns.
    ///
    /// # Errors
    /// [`StoreError::NewerGeneration`] when the replica is of a higher one; [`StoreError::SyncFailed`],
    /// [`StoreError::Io`].
    pub async fn delete(&self, chunk: ChunkId, up_to: GenerationStamp) -> Result<(), StoreError> {
        let data = layout::data_path(&self.root, chunk);
        let meta = layout::meta_path(&self.root, chunk);
        self.settle(chunk).await?;
        // Behind it: that may take a while.
        self.check_not_newer(chunk, up_to).await?;
        // Data first: while its name is there the chunk exists, and must have its sidecar.
        // The mark goes last: it must not be lost before what it speaks of.
        let mark = layout::mark_path(&self.root, chunk);
        let mut changed = false;
        for path in [&data, &meta, &mark] {
            match self.io.unlink(path).await {
                Ok(()) => changed = true,
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(StoreError::io("unlink", path, error)),
            }
        }
        if changed {
            self.sync_dir_of(chunk).await?;
        }
        Ok(())
    }

    /// Moves a chunk of this or a lower generation to `quarantine/`, for a person to look at; one that is not there is
    /// done. Durable when it returns.
    ///
    /// # Errors
    /// As [`delete`](Self::delete).
    pub async fn quarantine(&self, chunk: ChunkId, up_to: GenerationStamp) -> Result<(), StoreError> {
        self.settle(chunk).await?;
        // Behind it: that may take a while.
        self.check_not_newer(chunk, up_to).await?;
        scan::quarantine(&self.io, &self.root, chunk, layout::chunk_dir_number(chunk), (true, true)).await?;
        self.remove_mark(&layout::mark_path(&self.root, chunk)).await?;
        let to = self.root.join(layout::QUARANTINE);
        self.dir_sync.sync(&to).await.map_err(|e| StoreError::sync("directory", &to, e))?;
        self.sync_dir_of(chunk).await
    }

    /// What goes must not come back with the journal.
    async fn settle(&self, chunk: ChunkId) -> Result<(), StoreError> {
        match &self.journal {
            Some(journal) => journal.settle(chunk).await,
            None => Ok(()),
        }
    }

    async fn check_not_newer(&self, chunk: ChunkId, up_to: GenerationStamp) -> Result<(), StoreError> {
        match scan::read_header(&self.io, &layout::meta_path(&self.root, chunk)).await {
            Ok(header) if header.generation > up_to => {
                Err(StoreError::NewerGeneration { chunk, found: header.generation, up_to })
            }
            // A sidecar that cannot be read does not keep a chunk where it is of which the master has no need.
            Ok(_) | Err(StoreError::NoSuchChunk { .. } | StoreError::Corrupt { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Remembers, durably, that a replica was found damaged: the next start knows it at once. One that is deleted
    /// meanwhile leaves no mark.
    ///
    /// # Errors
    /// [`StoreError::NoSpace`] on a full disk, [`StoreError::SyncFailed`], [`StoreError::Io`]. Nothing but the memory
    /// is lost.
    pub async fn mark_damaged(&self, chunk: ChunkId) -> Result<(), StoreError> {
        let mark = layout::mark_path(&self.root, chunk);
        match self.io.open(&mark, Open::CREATE).await {
            Ok(file) => file.close().await.map_err(|e| StoreError::io("close", &mark, e))?,
            Err(error) if error.kind() == ErrorKind::AlreadyExists => return Ok(()),
            Err(error) => return Err(StoreError::io("create", &mark, error)),
        }
        // A deletion removes the mark after the data: either it finds this one, or the data is seen to be gone. A mark
        // that stayed would speak of a later replica.
        match self.io.open(&layout::data_path(&self.root, chunk), Open::READ).await {
            Err(error) if error.kind() == ErrorKind::NotFound => self.remove_mark(&mark).await.map(drop),
            _ => self.sync_dir_of(chunk).await,
        }
    }

    /// Forgets, durably, that a replica was found damaged: it was found sound.
    ///
    /// # Errors
    /// [`StoreError::SyncFailed`], [`StoreError::Io`].
    pub async fn clear_mark(&self, chunk: ChunkId) -> Result<(), StoreError> {
        if self.remove_mark(&layout::mark_path(&self.root, chunk)).await? {
            self.sync_dir_of(chunk).await?;
        }
        Ok(())
    }

    /// Whether it was there.
    async fn remove_mark(&self, mark: &Path) -> Result<bool, StoreError> {
        match self.io.unlink(mark).await {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(StoreError::io("unlink", mark, error)),
        }
    }

    async fn sync_dir_of(&self, chunk: ChunkId) -> Result<(), StoreError> {
        let parent = layout::chunk_dir(&self.root, chunk);
        self.dir_sync.sync(&parent).await.map_err(|e| StoreError::sync("directory", &parent, e))
    }

    /// Every committed chunk, in order of ids. What does not fit together is moved to `quarantine/` and counted.
    ///
    /// # Errors
    /// [`StoreError::Io`] when a directory cannot be read.
    pub async fn inventory(&self, cluster: ClusterId) -> Result<Inventory, StoreError> {
        scan::inventory(&self.io, &self.root, cluster).await
    }

    /// Brings back the small chunks whose files a crash may have damaged. For the start, after
    /// [`clear_tmp`](Self::clear_tmp) and before anything else; `node` and `cluster` are the folder's.
    ///
    /// # Errors
    /// [`StoreError::Folder`] for a journal that is not this folder's or a newer one, [`StoreError::NoSpace`],
    /// [`StoreError::SyncFailed`], [`StoreError::Io`]. The journal is then as it was.
    pub async fn replay(&self, node: NodeId, cluster: Option<ClusterId>) -> Result<Recovered, StoreError> {
        journal::replay(&self.io, &self.root, node, cluster).await
    }

    /// Removes what was not committed before a crash.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub async fn clear_tmp(&self) -> Result<usize, StoreError> {
        scan::clear_tmp(&self.io, &self.root).await
    }
}
