//! Counts the operations in flight, so that a body can wait for the last of them before it goes: a ring that
//! goes earlier lets the kernel write into freed memory.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A bounded number of operations at a time.
#[derive(Clone)]
pub(super) struct Operations {
    slots: Arc<Semaphore>,
    slots_max: u32,
}

/// Held by an operation until the operating system is done with its memory. May cross threads.
pub(super) struct Underway {
    _slot: OwnedSemaphorePermit,
}

impl Operations {
    pub(super) fn new(slots_max: u32) -> Self {
        Self { slots: Arc::new(Semaphore::new(slots_max as usize)), slots_max }
    }

    /// Waits for a free slot, first come first served.
    pub(super) async fn begin(&self) -> Underway {
        let slot = Arc::clone(&self.slots).acquire_owned().await;
        Underway { _slot: slot.expect("the semaphore is never closed") }
    }

    /// Waits until none is underway. Whoever could begin another is gone by then.
    pub(super) async fn drain(&self) {
        let all = self.slots.acquire_many(self.slots_max).await;
        drop(all.expect("the semaphore is never closed"));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Operations;

    #[tokio::test]
    async fn drain_waits_for_the_last_operation() {
        let operations = Operations::new(2);
        let (first, second) = (operations.begin().await, operations.begin().await);
        let limit = Duration::from_millis(1);
        assert!(tokio::time::timeout(limit, operations.begin()).await.is_err());
        drop(first);
        assert!(tokio::time::timeout(limit, operations.drain()).await.is_err());
        drop(second);
        operations.drain().await;
    }
}
