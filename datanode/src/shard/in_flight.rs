//! Counts what is under way for one owner: a chunk's disk writes, so that its commit, or its end, waits for all of them;
//! the reads of a connection, and of all.

use std::cell::Cell;
use std::future::Future;
use std::rc::Rc;

use distrifs_engine::io::Io;
use tokio::sync::Notify;

/// Tasks of one owner, who bounds them: a write by its buffers.
#[derive(Clone, Default)]
pub(crate) struct InFlight(Rc<State>);

#[derive(Default)]
struct State {
    count: Cell<usize>,
    one_less: Notify,
}

impl InFlight {
    /// Runs work as a task of its own: it must never be cancelled.
    pub(crate) fn spawn(&self, io: &Io, work: impl Future<Output = ()> + 'static) {
        io.spawn(self.counted(work));
    }

    /// The work, which counts from now to its end: it must never be cancelled.
    pub(crate) fn counted(
        &self,
        work: impl Future<Output = ()> + 'static,
    ) -> impl Future<Output = ()> + 'static {
        let this = self.clone();
        this.begun();
        async move {
            work.await;
            this.ended();
        }
    }

    /// One more has begun, which must never be cancelled; it counts until [`ended`](Self::ended) is called for it.
    pub(crate) fn begun(&self) {
        self.0.count.set(self.0.count.get() + 1);
    }

    /// One has ended.
    pub(crate) fn ended(&self) {
        self.0.count.set(self.0.count.get() - 1);
        self.0.one_less.notify_one();
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.0.count.get()
    }

    /// When there are fewer than so many. One waits at a time.
    pub(crate) async fn fewer_than(&self, most: usize) {
        while self.0.count.get() >= most {
            self.0.one_less.notified().await;
        }
    }

    /// When none is left.
    pub(crate) async fn drained(&self) {
        self.fewer_than(1).await;
    }
}
