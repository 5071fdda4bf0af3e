//! Bytes counted by the tasks of a transfer, told to its caller by the task that waits for them.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Notify;

use crate::progress::Progress;

/// The bytes that are through.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    untold: AtomicU64,
    changed: Notify,
}

impl Meter {
    /// So many more bytes.
    pub(crate) fn add(&self, bytes: u64) {
        if bytes > 0 {
            self.untold.fetch_add(bytes, Ordering::Relaxed);
            self.changed.notify_one();
        }
    }

    /// Waits until there is something to tell.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Tells what was added since the last time.
    pub(crate) fn tell(&self, progress: &dyn Progress) {
        let bytes = self.untold.swap(0, Ordering::Relaxed);
        if bytes > 0 {
            progress.advanced(bytes);
        }
    }
}
