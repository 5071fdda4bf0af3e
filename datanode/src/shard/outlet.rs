//! What leaves on a connection: the answers of several reads share it, and each goes out whole.

use std::io;
use std::rc::Rc;

use distrifs_engine::io::{Io, SendHalf, Shared};
use tokio::sync::{Mutex, MutexGuard};

use super::in_flight::InFlight;

/// Reads of one connection that wait for the disk at once.
const READS_MAX: usize = 32;

/// The sending half of a connection. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Outlet {
    send: Rc<Mutex<SendHalf>>,
    reads: InFlight,
}

impl Outlet {
    pub(crate) fn new(send: SendHalf) -> Self {
        Self { send: Rc::new(Mutex::new(send)), reads: InFlight::default() }
    }

    /// Sends whole frames.
    pub(crate) async fn send(&self, frames: Shared, range: std::ops::Range<usize>) -> io::Result<()> {
        self.send.lock().await.send_all(frames, range).await
    }

    /// Whether [`begin`](Self::begin) would have to wait.
    pub(crate) fn is_full(&self) -> bool {
        self.reads.count() >= READS_MAX
    }

    /// Has a read answered beside what comes next, as soon as there are fewer than [`READS_MAX`].
    pub(crate) async fn begin(&self, io: &Io, read: impl Future<Output = ()> + 'static) {
        self.reads.fewer_than(READS_MAX).await;
        self.reads.spawn(io, read);
    }

    /// The sending half alone, once all reads are answered.
    pub(crate) async fn alone(&self) -> MutexGuard<'_, SendHalf> {
        self.reads.drained().await;
        self.send.lock().await
    }
}
