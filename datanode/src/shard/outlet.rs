//! What leaves on a connection: the answers of several reads share it, and each goes out whole.

use std::io;
use std::rc::Rc;

use distrifs_engine::io::{Io, SendHalf, Shared, Window};
use tokio::sync::{Mutex, MutexGuard};

use super::buffers::SMALL_READS_MAX;
use super::in_flight::InFlight;

/// Reads of one connection that wait for the disk at once.
const READS_MAX: usize = 32;
/// Of the buffers that the reads of all connections leave free, one may take this part, but always one: many whose peers
/// do not read leave some to others.
const SHARE_OF_FREE: usize = 4;

/// The sending half of a connection. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Outlet {
    send: Rc<Mutex<SendHalf>>,
    reads: InFlight,
    /// Those of all connections of the shard.
    all_reads: InFlight,
}

impl Outlet {
    pub(crate) fn new(send: SendHalf, all_reads: InFlight) -> Self {
        Self { send: Rc::new(Mutex::new(send)), reads: InFlight::default(), all_reads }
    }

    /// Sends whole frames.
    pub(crate) async fn send(&self, frames: Shared, range: std::ops::Range<usize>) -> io::Result<()> {
        self.send.lock().await.send_all(frames, range).await
    }

    /// Sends a whole frame whose payload is in the page cache.
    pub(crate) async fn send_window(&self, frame: Window, range: std::ops::Range<usize>) -> io::Result<()> {
        self.send.lock().await.send_window(frame, range).await
    }

    /// Whether [`begin`](Self::begin) would have to wait.
    pub(crate) fn is_full(&self) -> bool {
        self.reads.count() >= self.reads_max()
    }

    /// How many reads may be under way here.
    fn reads_max(&self) -> usize {
        let free = SMALL_READS_MAX.saturating_sub(self.all_reads.count());
        (free / SHARE_OF_FREE).clamp(1, READS_MAX)
    }

    /// Has a read answered beside what comes next, as soon as there are few enough.
    pub(crate) async fn begin(&self, io: &Io, read: impl Future<Output = ()> + 'static) {
        while self.is_full() {
            self.reads.fewer_than(self.reads.count()).await;
        }
        self.reads.spawn(io, self.all_reads.counted(read));
    }

    /// The sending half alone, once all reads are answered.
    pub(crate) async fn alone(&self) -> MutexGuard<'_, SendHalf> {
        self.reads.drained().await;
        self.send.lock().await
    }
}
