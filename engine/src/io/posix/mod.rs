//! The POSIX body: tokio on one thread for tasks, time and sockets; a bounded pool of threads for files.

mod file;
mod net;

use std::any::Any;
use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::task::LocalSet;

use super::drain::Operations;
use super::handle::{Io, Kind};

pub(super) use file::PosixFile;
pub(super) use net::{PosixListener, PosixStream};

/// Threads that carry out file operations; more would only queue at the device.
const FILE_THREADS_MAX: usize = 16;
/// File operations that run or wait for a thread.
const FILE_OPERATIONS_MAX: u32 = 256;

/// Runs `main` to its end, then finishes the file operations in flight.
pub(super) fn block_on<F: Future>(main: impl FnOnce(Io) -> F) -> io::Result<F::Output> {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_all().max_blocking_threads(FILE_THREADS_MAX).build()?;
    let body = Posix {
        started: Instant::now(),
        operations: Operations::new(FILE_OPERATIONS_MAX),
        panics: Rc::new(Panics::default()),
    };
    let tasks = LocalSet::new();
    let output = tasks.block_on(&runtime, async {
        let io = Io(Kind::Posix(body.clone()));
        let output = body.panics.watch(async move { main(io).await }).await;
        body.operations.drain().await;
        output
    });
    Ok(output)
}

/// This thread's body.
#[derive(Clone)]
pub(super) struct Posix {
    started: Instant,
    operations: Operations,
    panics: Rc<Panics>,
}

impl Posix {
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        let panics = Rc::clone(&self.panics);
        tokio::task::spawn_local(async move { panics.catch(task).await });
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

/// tokio keeps the panic of a spawned task to itself; here, as on the ring, it ends `block_on`.
#[derive(Default)]
pub(super) struct Panics {
    first: RefCell<Option<Box<dyn Any + Send>>>,
    caught: Notify,
}

impl Panics {
    pub(super) async fn catch(&self, task: impl Future<Output = ()>) {
        if let Err(panic) = Caught(Box::pin(task)).await {
            self.first.borrow_mut().get_or_insert(panic);
            self.caught.notify_one();
        }
    }

    pub(super) async fn watch<T>(&self, main: impl Future<Output = T>) -> T {
        let mut main = pin!(main);
        tokio::select! {
            biased;
            () = self.caught.notified() => {}
            output = &mut main => return output,
        }
        let panic = self.first.borrow_mut().take();
        resume_unwind(panic.unwrap_or_else(|| Box::new("a spawned task panicked")))
    }
}

struct Caught<F>(Pin<Box<F>>);

impl<F: Future<Output = ()>> Future for Caught<F> {
    type Output = Result<(), Box<dyn Any + Send>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let task = self.0.as_mut();
        match catch_unwind(AssertUnwindSafe(|| task.poll(context))) {
            Ok(Poll::Ready(())) => Poll::Ready(Ok(())),
            Ok(Poll::Pending) => Poll::Pending,
            Err(panic) => Poll::Ready(Err(panic)),
        }
    }
}
