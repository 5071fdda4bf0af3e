//! Counts the operations in flight, so that a body can wait for the last of them before it goes.

use std::cell::Cell;
use std::future::pending;
use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A bounded number of operations at a time. After [`Operations::drain`] none begins any more.
#[derive(Clone)]
pub(super) struct Operations {
    slots: Arc<Semaphore>,
    slots_max: u32,
    closed: Rc<Cell<bool>>,
}

/// Held by an operation until the operating system is done with its memory. May cross threads.
pub(super) struct Underway {
    _slot: OwnedSemaphorePermit,
}

impl Operations {
    pub(super) fn new(slots_max: u32) -> Self {
        let slots = Arc::new(Semaphore::new(slots_max as usize));
        Self { slots, slots_max, closed: Rc::new(Cell::new(false)) }
    }

    /// Waits for a free slot, in order. Once the body is closing it never returns: the task that asked is
    /// about to be dropped, and an error would only make it try again.
    pub(super) async fn begin(&self) -> Underway {
        let slot = Arc::clone(&self.slots).acquire_owned().await.expect("the semaphore is never closed");
        if self.closed.get() {
            drop(slot);
            pending::<()>().await;
            unreachable!("a pending future does not return");
        }
        Underway { _slot: slot }
    }

    /// Lets no further operation begin and waits until none is underway.
    pub(super) async fn drain(&self) {
        self.closed.set(true);
        let all = self.slots.acquire_many(self.slots_max).await;
        drop(all.expect("the semaphore is never closed"));
    }
}
