//! The POSIX body: tokio on one thread for tasks, time and sockets; a bounded pool of threads for files.

mod file;
mod net;

use std::future::Future;
use std::io;
use std::panic::resume_unwind;
use std::time::{Duration, Instant};

use tokio::task::LocalSet;

use super::drain::Operations;
use super::handle::{Io, Kind};
use super::tasks::Tasks;

pub(super) use file::{PosixFile, PosixFileSystem};
pub(super) use net::{PosixListener, PosixRecv, PosixSend, PosixStream};

/// Threads that carry out file operations; more would only queue at the device.
const FILE_THREADS_MAX: usize = 16;
/// File operations that run or wait for a thread.
const FILE_OPERATIONS_MAX: u32 = 256;

/// Where file operations run.
#[derive(Clone)]
struct Place {
    /// On the loop's own thread, but for those that take long.
    inline: bool,
    operations: Operations,
}

/// Runs `main` to its end, then finishes the file operations in flight. `inline`: those that do not take long run on
/// this very thread, one after the other.
pub(super) fn block_on<F: Future>(inline: bool, main: impl FnOnce(Io) -> F) -> io::Result<F::Output> {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_all().max_blocking_threads(FILE_THREADS_MAX).build()?;
    let body = Posix {
        started: Instant::now(),
        files: Place { inline, operations: Operations::new(FILE_OPERATIONS_MAX) },
        tasks: Tasks::default(),
    };
    let result = LocalSet::new().block_on(&runtime, async {
        let io = Io(Kind::Posix(body.clone()));
        let result = body.tasks.run(async move { main(io).await }).await;
        body.files.operations.drain().await;
        result
    });
    drop(runtime);
    Ok(result.unwrap_or_else(|panic| resume_unwind(panic)))
}

/// This thread's body.
#[derive(Clone)]
pub(super) struct Posix {
    started: Instant,
    files: Place,
    tasks: Tasks,
}

impl Posix {
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        tokio::task::spawn_local(self.tasks.wrap(task));
    }

    pub(super) async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }

    pub(super) fn now(&self) -> Duration {
        self.started.elapsed()
    }

    pub(super) async fn timeout<T>(&self, limit: Duration, work: impl Future<Output = T>) -> Option<T> {
        tokio::time::timeout(limit, work).await.ok()
    }
}
