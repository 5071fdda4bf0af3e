//! Counts a chunk's disk writes, so that its commit, or its end, waits for all of them.

use std::cell::Cell;
use std::future::Future;
use std::rc::Rc;

use distrifs_engine::io::Io;
use tokio::sync::Notify;

/// The disk writes of one chunk. They are as many as the write's buffers at most.
#[derive(Clone, Default)]
pub(crate) struct InFlight(Rc<State>);

#[derive(Default)]
struct State {
    count: Cell<usize>,
    one_less: Notify,
}

impl InFlight {
    /// Runs a write as a task of its own: it must never be cancelled.
    pub(crate) fn spawn(&self, io: &Io, work: impl Future<Output = ()> + 'static) {
        let state = self.0.clone();
        state.count.set(state.count.get() + 1);
        io.spawn(async move {
            work.await;
            state.count.set(state.count.get() - 1);
            state.one_less.notify_one();
        });
    }

    /// When none is left.
    pub(crate) async fn drained(&self) {
        while self.0.count.get() > 0 {
            self.0.one_less.notified().await;
        }
    }
}
