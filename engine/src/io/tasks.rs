//! The life of the tasks of one body, the same on every runtime: they end with `main` at the latest, and a
//! panic in one of them ends `main`.
//!
//! No runtime does either by itself: tokio keeps a task's panic to itself, monoio lets it unwind through its
//! ring, and monoio leaks the tasks that still wait for an operation, with their buffers.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};

use tokio::sync::Notify;

/// What a panic carries.
pub(super) type Panic = Box<dyn Any + Send>;

/// The tasks of one `block_on`.
#[derive(Clone, Default)]
pub(super) struct Tasks(Rc<Shared>);

#[derive(Default)]
struct Shared {
    closing: Cell<bool>,
    close: Notify,
    alive: Cell<usize>,
    idle: Notify,
    panic: RefCell<Option<Panic>>,
    panicked: Notify,
}

impl Tasks {
    /// The task as it is given to the runtime.
    pub(super) fn wrap(
        &self,
        task: impl Future<Output = ()> + 'static,
    ) -> impl Future<Output = ()> + 'static {
        let alive = Alive::new(Rc::clone(&self.0));
        async move {
            let shared = &alive.0;
            tokio::select! {
                biased;
                () = shared.closed() => {}
                result = Caught(Box::pin(task)) => {
                    if let Err(panic) = result {
                        shared.panic.borrow_mut().get_or_insert(panic);
                        shared.panicked.notify_one();
                    }
                }
            }
        }
    }

    /// Runs `main` to its end or to the first panic; then every task is dropped, where it waits.
    pub(super) async fn run<T>(&self, main: impl Future<Output = T>) -> Result<T, Panic> {
        let shared = &self.0;
        let mut main = Caught(Box::pin(main));
        let result = tokio::select! {
            biased;
            () = shared.panicked.notified() => Err(shared.panic.take().expect("noted before the wake")),
            result = &mut main => result,
        };
        drop(main);
        shared.closing.set(true);
        shared.close.notify_waiters();
        while shared.alive.get() > 0 {
            shared.idle.notified().await;
        }
        result
    }
}

impl Shared {
    async fn closed(&self) {
        let mut close = pin!(self.close.notified());
        close.as_mut().enable();
        if !self.closing.get() {
            close.await;
        }
    }
}

/// Counts a task from its spawning until it is dropped.
struct Alive(Rc<Shared>);

impl Alive {
    fn new(shared: Rc<Shared>) -> Self {
        shared.alive.set(shared.alive.get() + 1);
        Self(shared)
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.alive.set(self.0.alive.get() - 1);
        if self.0.alive.get() == 0 {
            self.0.idle.notify_one();
        }
    }
}

struct Caught<F>(Pin<Box<F>>);

impl<F: Future> Future for Caught<F> {
    type Output = Result<F::Output, Panic>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let inner = self.0.as_mut();
        // Unwind safe: after a panic the future is only dropped.
        match catch_unwind(AssertUnwindSafe(|| inner.poll(context))) {
            Ok(Poll::Ready(output)) => Poll::Ready(Ok(output)),
            Ok(Poll::Pending) => Poll::Pending,
            Err(panic) => Poll::Ready(Err(panic)),
        }
    }
}
