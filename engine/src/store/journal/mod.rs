//! The journal of a data folder: one device write and one sync for all small chunks that come at once.
//!
//! As the data journal of a file system. The files of a chunk are written in `tmp/` through the page cache, **without**
//! syncs; its record (data and sidecar) is made durable here; then the files get their names, and the chunk is
//! acknowledged. The driver does
//! all of it, on one thread: handing a few small files to others would cost more than writing them. A later
//! *checkpoint* makes all those files durable with one sync of the file system, and the records are void. What a crash
//! leaves is brought back at the next start (`recovery.rs`): the files of a record are written again, whatever is there.
//!
//! ```text
//! journal/segment-0, journal/segment-1      (format.rs)
//!
//! commit --> files in tmp/ --> group of records --> one write, one sync --> files renamed --> answered
//! segment closed (many records, old, wanted; between two groups) --> file system synced --> header rewritten: void
//! ```
//!
//! The orders that count:
//! - The record is durable before a name of its chunk is in `chunks/`: what a power cut leaves torn there has a record.
//! - Files in place, then the file system synced, then the header rewritten and synced: no record is void before its
//!   files are durable. A cut in between repeats them, which changes nothing.
//! - A chunk is deleted after its record is void (`settle`): none comes back.
//!
//! A write or sync that fails poisons the journal: it answers with [`StoreError::SyncFailed`] until the next start.

mod driver;
mod format;
mod ledger;
mod recovery;
mod segment;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use distrifs_proto::limits::BLOCK_BYTES;
use distrifs_proto::types::ChunkId;
use tokio::sync::{mpsc, oneshot};

use super::{Counters, StoreError, layout};

pub use driver::JournalDriver;
pub use recovery::Recovered;
pub(super) use recovery::replay;

/// The segments of a journal: one takes records while the other is made void.
const SEGMENTS: usize = 2;
/// The default size of a segment.
pub const SEGMENT_BYTES_DEFAULT: u64 = 16 << 20;
/// The smallest segment: a header and the largest record.
pub const SEGMENT_BYTES_MIN: u64 = (1 + format::RECORD_BLOCKS_MAX as u64) * BLOCK_BYTES as u64;
/// The largest segment. Recovery reads all of them into memory.
pub const SEGMENT_BYTES_MAX: u64 = 64 << 20;
/// Requests that wait for the driver.
const REQUESTS_MAX: usize = 256;

const _: () =
    assert!(SEGMENT_BYTES_MIN <= SEGMENT_BYTES_DEFAULT && SEGMENT_BYTES_DEFAULT <= SEGMENT_BYTES_MAX);

/// What is asked of the driver.
enum Request {
    Commit { record: Record, tell: oneshot::Sender<Result<Option<Record>, StoreError>> },
    Settle { chunk: ChunkId, tell: oneshot::Sender<Result<(), StoreError>> },
    Stop { tell: oneshot::Sender<Result<(), StoreError>> },
}

/// A chunk on its way into the journal.
pub(super) struct Record {
    pub(super) chunk: ChunkId,
    pub(super) sidecar: Vec<u8>,
    pub(super) data: Vec<u8>,
}

/// The handle of a folder's journal. Cheap to clone; goes to any thread.
#[derive(Clone)]
pub struct Journal {
    root: Arc<Path>,
    requests: mpsc::Sender<Request>,
    counters: Arc<Counters>,
}

impl Journal {
    /// The journal of a folder whose recovery is done, and the driver that has to run for it: on a thread of its own,
    /// or beside its users. Whatever is counted in this folder comes into `counters`. `segment_bytes` is for new
    /// segments, a multiple of 4096 from [`SEGMENT_BYTES_MIN`] to [`SEGMENT_BYTES_MAX`]; `salt` is by chance.
    ///
    /// # Panics
    /// On another size of segments.
    #[must_use]
    pub fn new(
        recovered: Recovered,
        segment_bytes: u64,
        salt: u64,
        counters: Arc<Counters>,
    ) -> (Self, JournalDriver) {
        assert!((SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&segment_bytes), "a segment's size");
        assert!(segment_bytes.is_multiple_of(BLOCK_BYTES as u64), "a segment of whole blocks");
        let (requests, received) = mpsc::channel(REQUESTS_MAX);
        let root: Arc<Path> = recovered.root.clone().into();
        let driver = JournalDriver::new(recovered, segment_bytes, salt, received, counters.clone());
        (Self { root, requests, counters }, driver)
    }

    /// Commits a chunk: its record is durable and its files are in place. It comes back when there is no room for a
    /// journal: nothing was done, and it goes without one.
    ///
    /// # Errors
    /// [`StoreError::Exists`] when it is committed or being written, [`StoreError::NoSpace`], [`StoreError::Io`]: nothing of
    /// it is visible. [`StoreError::SyncFailed`]; whether the record is durable is then unknown.
    pub(super) async fn commit(&self, record: Record) -> Result<Option<Record>, StoreError> {
        self.ask(|tell| Request::Commit { record, tell }).await
    }

    /// Waits until no record of a chunk counts any more, however the next start comes about.
    ///
    /// # Errors
    /// [`StoreError::SyncFailed`]: one may come back.
    pub(super) async fn settle(&self, chunk: ChunkId) -> Result<(), StoreError> {
        self.ask(|tell| Request::Settle { chunk, tell }).await
    }

    /// Makes the files of all records durable, and ends the driver: the next start has nothing to bring back.
    ///
    /// # Errors
    /// [`StoreError::SyncFailed`]; [`StoreError::Io`] when it has ended already.
    pub async fn stop(&self) -> Result<(), StoreError> {
        self.ask(|tell| Request::Stop { tell }).await
    }

    async fn ask<T>(
        &self,
        request: impl FnOnce(oneshot::Sender<Result<T, StoreError>>) -> Request,
    ) -> Result<T, StoreError> {
        let (tell, told) = oneshot::channel();
        let ended = || StoreError::io("journal", &self.root, std::io::Error::other("has ended"));
        self.requests.send(request(tell)).await.map_err(|_| ended())?;
        told.await.map_err(|_| ended())?
    }

    pub(super) fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }
}

fn dir(root: &Path) -> PathBuf {
    root.join(layout::JOURNAL)
}

fn segment_path(root: &Path, segment: usize) -> PathBuf {
    dir(root).join(format!("segment-{segment}"))
}
