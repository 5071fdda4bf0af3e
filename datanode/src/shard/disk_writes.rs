//! The disk writes of one chunk. A few tasks carry them out, kept while the chunk is written, so that a frame costs no
//! allocation. None is ever cancelled.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use distrifs_engine::io::Io;
use distrifs_engine::store::WriteInFlight;
use tokio::sync::Notify;

use super::in_flight::InFlight;
use super::trail::Trail;
use crate::stage::Stage;

/// The writes of a chunk, bounded by its buffers, and so are the tasks: one for each write at once. What was begun runs
/// to its end after this is dropped.
pub(super) struct DiskWrites(Rc<State>);

struct State {
    trail: Trail,
    queue: RefCell<VecDeque<WriteInFlight>>,
    /// The queued ones too.
    in_flight: InFlight,
    tasks: Cell<usize>,
    /// Something was queued, or nothing will be.
    changed: Notify,
    over: Cell<bool>,
}

impl DiskWrites {
    pub(super) fn new(trail: Trail) -> Self {
        Self(Rc::new(State {
            trail,
            queue: RefCell::default(),
            in_flight: InFlight::default(),
            tasks: Cell::new(0),
            changed: Notify::new(),
            over: Cell::new(false),
        }))
    }

    /// Has this carried out, at once.
    pub(super) fn begin(&self, io: &Io, write: WriteInFlight) {
        let state = &self.0;
        state.in_flight.begun();
        state.queue.borrow_mut().push_back(write);
        if state.tasks.get() < state.in_flight.count() {
            state.tasks.set(state.tasks.get() + 1);
            io.spawn(state.clone().run());
        } else {
            state.changed.notify_one();
        }
    }

    /// To wait for all that were begun.
    pub(super) fn in_flight(&self) -> InFlight {
        self.0.in_flight.clone()
    }
}

impl Drop for DiskWrites {
    fn drop(&mut self) {
        self.0.over.set(true);
        self.0.changed.notify_waiters();
    }
}

impl State {
    async fn run(self: Rc<Self>) {
        loop {
            let write = self.queue.borrow_mut().pop_front();
            match write {
                Some(write) => {
                    self.trail.stage(Stage::WriteDisk, write.run()).await;
                    self.in_flight.ended();
                }
                None if self.over.get() => return,
                None => self.changed.notified().await,
            }
        }
    }
}
