//! Where the bytes of a transfer come from and go to.

use std::fmt;
use std::fs::File;

use tokio::io::{AsyncRead, AsyncWrite};

/// What a put reads.
pub enum PutSource {
    /// A regular file of this length: read at offsets, several chunks at once, and again where a chunk is replayed.
    /// One that changes while it is read fails the put.
    File(File, u64),
    /// Bytes of unknown number. A chunk stays in memory until it is committed.
    Stream(Box<dyn AsyncRead + Send + Sync + Unpin>),
}

impl fmt::Debug for PutSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(file, len) => f.debug_tuple("File").field(file).field(len).finish(),
            Self::Stream(_) => f.write_str("Stream"),
        }
    }
}

/// What a get writes.
pub enum GetTarget {
    /// A file, written at offsets from 0, in parallel; the caller created it and removes it if the get fails.
    File(File),
    /// Written strictly in order, and flushed at the end.
    Stream(Box<dyn AsyncWrite + Send + Unpin>),
}

impl fmt::Debug for GetTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(file) => f.debug_tuple("File").field(file).finish(),
            Self::Stream(_) => f.write_str("Stream"),
        }
    }
}

/// How a put makes its file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PutOptions {
    /// Replace, atomically, a file that is there.
    pub overwrite: bool,
    /// Permission bits of the new file.
    pub mode: u32,
    /// Replicas; `None` takes [`crate::ClientConfig::replication`].
    pub replication: Option<u32>,
    /// Bytes of a chunk; `None` takes [`crate::ClientConfig::chunk_size`].
    pub chunk_size: Option<u64>,
}

impl Default for PutOptions {
    fn default() -> Self {
        Self { overwrite: false, mode: 0o644, replication: None, chunk_size: None }
    }
}
