//! The face of the crate: one method for each thing a user does.

use std::sync::Arc;

use distrifs_proto::types::Crc32c;

use crate::config::ClientConfig;
use crate::error::{ClientError, Result};
use crate::progress::Progress;
use crate::status::{ChunkLocation, ClusterStatus, FileStatus, Node, NodeStatus};
use crate::transfer::{GetTarget, PutOptions, PutSource};

/// A user of one cluster. Cheap to clone; clones share connections.
#[derive(Debug, Clone)]
pub struct Client {
    config: Arc<ClientConfig>,
}

impl Client {
    /// Connects nowhere yet: the first call does.
    #[must_use]
    pub fn new(config: ClientConfig) -> Self {
        Self { config: Arc::new(config) }
    }

    fn later<T>(&self, path: &str) -> Result<T> {
        Err(ClientError::Invalid { path: path.into(), what: format!("not yet, {}", self.config.user) })
    }

    /// Makes a directory; with `parents` also those above it, and one that is there is taken for done.
    ///
    /// # Errors
    /// As the master refuses it, or [`ClientError::NoMaster`].
    pub async fn mkdir(&self, path: &str, _parents: bool, _mode: u32) -> Result<()> {
        self.later(path)
    }

    /// What is at a path.
    ///
    /// # Errors
    /// As the master refuses it, or [`ClientError::NoMaster`].
    pub async fn stat(&self, path: &str) -> Result<FileStatus> {
        self.later(path)
    }

    /// A page of a directory behind `start_after`, sorted by name, and whether there is more; `recursive`: of the
    /// whole tree, with paths relative to `path`. The next page starts after the last entry's `path`.
    ///
    /// # Errors
    /// As the master refuses it, or [`ClientError::NoMaster`].
    pub async fn list_page(
        &self,
        path: &str,
        _recursive: bool,
        _start_after: &str,
    ) -> Result<(Vec<FileStatus>, bool)> {
        self.later(path)
    }

    /// Gives a file or directory the exact path `target`.
    ///
    /// # Errors
    /// As the master refuses it, or [`ClientError::NoMaster`].
    pub async fn rename(&self, source: &str, _target: &str, _overwrite: bool) -> Result<()> {
        self.later(source)
    }

    /// Removes a file, an empty directory, or with `recursive` a whole tree.
    ///
    /// # Errors
    /// As the master refuses it, or [`ClientError::NoMaster`].
    pub async fn remove(&self, path: &str, _recursive: bool) -> Result<()> {
        self.later(path)
    }

    /// A file and all its chunks with their replicas.
    ///
    /// # Errors
    /// As the master refuses it, [`ClientError::NoMaster`], or [`ClientError::Replaced`] between two pages.
    pub async fn chunks(&self, path: &str) -> Result<(FileStatus, Vec<ChunkLocation>)> {
        self.later(path)
    }

    /// The datanodes, sorted by id.
    ///
    /// # Errors
    /// [`ClientError::NoMaster`].
    pub async fn nodes(&self) -> Result<Vec<NodeStatus>> {
        self.later("nodes")
    }

    /// The cluster as a whole.
    ///
    /// # Errors
    /// [`ClientError::NoMaster`].
    pub async fn cluster_status(&self) -> Result<ClusterStatus> {
        self.later("cluster")
    }

    /// Writes a file. It appears whole, or not at all when this fails.
    ///
    /// # Errors
    /// As the master refuses it, [`ClientError::NotWritten`], or an error of the source.
    pub async fn put(
        &self,
        _source: PutSource,
        path: &str,
        _options: PutOptions,
        _progress: &dyn Progress,
    ) -> Result<FileStatus> {
        self.later(path)
    }

    /// Reads a file, or `(offset, length)` of it cut at its end. What reaches the target has passed its checksums.
    ///
    /// # Errors
    /// As the master refuses it, [`ClientError::Corrupt`], [`ClientError::Unreachable`],
    /// [`ClientError::Replaced`], or an error of the target.
    pub async fn get(
        &self,
        path: &str,
        _range: Option<(u64, u64)>,
        _target: GetTarget,
        _progress: &dyn Progress,
    ) -> Result<FileStatus> {
        self.later(path)
    }

    /// Reads one replica whole and checks every block and the checksum of the chunk.
    ///
    /// # Errors
    /// [`ClientError::Replica`].
    pub async fn verify_replica(&self, chunk: &ChunkLocation, _node: &Node) -> Result<Crc32c> {
        self.later(&chunk.id.to_string())
    }
}
