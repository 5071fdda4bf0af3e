//! The io_uring body: monoio on one thread. What the ring has no operation for and can take long (listing a
//! directory, cutting a file, syncing a file system) runs on threads beside it, and so do the operations on small files: the
//! ring itself would hand each of their steps to a thread.

mod file;
mod lanes;
mod lent;
mod net;

use std::future::Future;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::panic::resume_unwind;
use std::time::{Duration, Instant};

use monoio::blocking::DefaultThreadPool;
use monoio::{IoUringDriver, RuntimeBuilder};

use super::drain::Operations;
use super::handle::{Io, Kind};
use super::tasks::Tasks;
use lanes::Lanes;

pub(super) use file::{UringFile, UringFileSystem};
pub(super) use net::{UringListener, UringRecv, UringSend, UringStream};

/// Submission entries of the ring; more operations than that are submitted in turns.
const RING_ENTRIES: u32 = 1024;
/// Threads beside the ring.
const SIDE_THREADS: usize = 4;
/// File operations at a time, on the ring and beside it.
const FILE_OPERATIONS_MAX: u32 = 256;
/// Sends and receives at a time: two of each connection, and no limit on connections of its own.
const SOCKET_OPERATIONS_MAX: u32 = 1 << 20;

/// Runs `main` to its end, then finishes or cancels the operations in flight and waits for the kernel to
/// give back the last buffer.
pub(super) fn block_on<F: Future>(main: impl FnOnce(Io) -> F) -> io::Result<F::Output> {
    let mut runtime = RuntimeBuilder::<IoUringDriver>::new()
        .with_entries(RING_ENTRIES)
        .attach_thread_pool(Box::new(DefaultThreadPool::new(SIDE_THREADS)))
        .enable_timer()
        .build()?;
    let body = Uring {
        started: Instant::now(),
        files: Operations::new(FILE_OPERATIONS_MAX),
        lanes: Lanes::default(),
        sockets: Operations::new(SOCKET_OPERATIONS_MAX),
        tasks: Tasks::default(),
    };
    let result = runtime.block_on(async {
        let io = Io(Kind::Uring(body.clone()));
        let result = body.tasks.run(async move { main(io).await }).await;
        body.files.drain().await;
        // A task that waits when the runtime goes would be leaked.
        body.lanes.close().await;
        body.sockets.drain().await;
        result
    });
    drop(runtime);
    Ok(result.unwrap_or_else(|panic| resume_unwind(panic)))
}

/// This thread's body.
#[derive(Clone)]
pub(super) struct Uring {
    started: Instant,
    files: Operations,
    lanes: Lanes,
    sockets: Operations,
    tasks: Tasks,
}

impl Uring {
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        drop(monoio::spawn(self.tasks.wrap(task)));
    }

    pub(super) async fn sleep(&self, duration: Duration) {
        monoio::time::sleep(duration).await;
    }

    pub(super) fn now(&self) -> Duration {
        self.started.elapsed()
    }

    pub(super) async fn timeout<T>(&self, limit: Duration, work: impl Future<Output = T>) -> Option<T> {
        monoio::time::timeout(limit, work).await.ok()
    }
}

/// The descriptor of one of monoio's files or sockets, for a system call that the ring lacks.
#[allow(unsafe_code)]
fn descriptor(owner: &impl AsRawFd) -> BorrowedFd<'_> {
    // SAFETY: the owner keeps the descriptor open for as long as it is borrowed.
    unsafe { BorrowedFd::borrow_raw(owner.as_raw_fd()) }
}
