//! The buffers of one shard, and who may have them.
//!
//! A write is let in only with all the buffers it will ever use, so no write waits for another's: chains of nodes
//! that forward to each other in circles cannot lock each other out. Writes that find no place within
//! [`ADMISSION_TIMEOUT`] are told to come again (`Busy`).

use std::io;
use std::rc::Rc;
use std::time::Duration;

use distrifs_engine::io::{Buf, BufPool, Io};
use distrifs_proto::frame::{FRAME_BUFFER_BYTES, PAYLOAD_START};
use distrifs_proto::limits::SMALL_CHUNK_BYTES_MAX;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Long writes at once, each with this many buffers of a whole frame.
const LARGE_WRITES_MAX: usize = 12;
const LARGE_WRITE_BUFFERS: usize = 4;
/// Short writes at once, each with one small buffer.
const SMALL_WRITES_MAX: usize = 128;
/// Reads at once.
const LARGE_READS_MAX: usize = 16;
pub(super) const SMALL_READS_MAX: usize = 256;
/// One check at a time, and a piece for each of the copies at once, with one on its way.
const CHECK_BUFFERS: usize = 1;
const COPY_BUFFERS: usize = 4;
/// The payload of a small buffer: a small chunk, whole, or as much of any chunk where it is read.
pub(super) const SMALL_PAYLOAD_BYTES: usize = SMALL_CHUNK_BYTES_MAX as usize;
const SMALL_BUFFER_BYTES: usize = PAYLOAD_START + SMALL_PAYLOAD_BYTES;
/// How long a write waits for a place.
const ADMISSION_TIMEOUT: Duration = Duration::from_secs(2);

/// All buffers of a shard.
pub(crate) struct Buffers {
    large_writes: Rc<BufPools>,
    small_writes: Rc<BufPools>,
    large_reads: BufPool,
    small_reads: BufPool,
    checks: BufPool,
    copies: BufPool,
}

/// Sets of buffers, one set a write; last in, first out, so that idle sets are never touched.
struct BufPools {
    free: std::cell::RefCell<Vec<BufPool>>,
    places: std::sync::Arc<Semaphore>,
    payload_max: usize,
}

/// The buffers of one write; they come back when it is dropped.
pub(crate) struct WriteBuffers {
    pool: Option<BufPool>,
    home: Rc<BufPools>,
    _place: OwnedSemaphorePermit,
}

impl BufPools {
    fn new(writes: usize, buffers: usize, bytes: usize) -> io::Result<Rc<Self>> {
        let pools = (0..writes).map(|_| BufPool::new(buffers, bytes)).collect::<io::Result<Vec<_>>>()?;
        Ok(Rc::new(Self {
            free: pools.into(),
            places: std::sync::Arc::new(Semaphore::new(writes)),
            payload_max: bytes - PAYLOAD_START,
        }))
    }
}

impl Buffers {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            large_writes: BufPools::new(LARGE_WRITES_MAX, LARGE_WRITE_BUFFERS, FRAME_BUFFER_BYTES)?,
            small_writes: BufPools::new(SMALL_WRITES_MAX, 1, SMALL_BUFFER_BYTES)?,
            large_reads: BufPool::new(LARGE_READS_MAX, FRAME_BUFFER_BYTES)?,
            small_reads: BufPool::new(SMALL_READS_MAX, SMALL_BUFFER_BYTES)?,
            checks: BufPool::new(CHECK_BUFFERS, FRAME_BUFFER_BYTES)?,
            copies: BufPool::new(COPY_BUFFERS, FRAME_BUFFER_BYTES)?,
        })
    }

    /// A place for a write of at most `bytes`; `None` when all were taken for too long.
    pub(crate) async fn admit_write(&self, io: &Io, bytes: u64) -> Option<WriteBuffers> {
        let home = if bytes <= SMALL_PAYLOAD_BYTES as u64 { &self.small_writes } else { &self.large_writes };
        let place = io.timeout(ADMISSION_TIMEOUT, home.places.clone().acquire_owned()).await.ok()?.ok()?;
        let pool = home.free.borrow_mut().pop();
        assert!(pool.is_some(), "as many sets as places");
        Some(WriteBuffers { pool, home: home.clone(), _place: place })
    }

    /// A buffer for a piece of a replica that is checked.
    pub(crate) async fn for_check(&self) -> Buf {
        self.checks.get().await
    }

    /// A buffer for a piece of a replica that is copied.
    pub(crate) async fn for_copy(&self) -> Buf {
        self.copies.get().await
    }

    /// A buffer for a read of `bytes` at once.
    pub(crate) async fn for_read(&self, bytes: usize) -> Buf {
        if bytes <= SMALL_PAYLOAD_BYTES { self.small_reads.get().await } else { self.large_reads.get().await }
    }
}

impl WriteBuffers {
    /// The largest payload that fits.
    pub(crate) fn payload_max(&self) -> usize {
        self.home.payload_max
    }

    /// The next buffer that disk and forward are done with.
    pub(crate) async fn get(&self) -> Buf {
        self.pool.as_ref().expect("held until the drop").get().await
    }
}

impl Drop for WriteBuffers {
    fn drop(&mut self) {
        // Buffers still in flight find their way back by themselves; the next write waits for them.
        self.home.free.borrow_mut().extend(self.pool.take());
    }
}
