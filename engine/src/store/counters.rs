//! What happens in a data folder, counted by all who work on it.

use std::sync::atomic::{AtomicU64, Ordering};

/// Shared by the stores and the journal of one folder. All count from the start of the process.
#[derive(Debug, Default)]
pub struct Counters {
    syncs: AtomicU64,
    journal_records: AtomicU64,
    journal_syncs: AtomicU64,
}

impl Counters {
    /// Requests to the device to make something durable: of data, of sidecars, of directories, of the journal, of the
    /// file system.
    #[must_use]
    pub fn syncs(&self) -> u64 {
        self.syncs.load(Ordering::Relaxed)
    }

    /// Chunks that became durable in the journal.
    #[must_use]
    pub fn journal_records(&self) -> u64 {
        self.journal_records.load(Ordering::Relaxed)
    }

    /// The syncs that made them so: one for each group of chunks. These are among [`syncs`](Self::syncs), too.
    #[must_use]
    pub fn journal_syncs(&self) -> u64 {
        self.journal_syncs.load(Ordering::Relaxed)
    }

    pub(super) fn synced(&self) {
        self.syncs.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn journaled(&self, records: u64) {
        self.synced();
        self.journal_records.fetch_add(records, Ordering::Relaxed);
        self.journal_syncs.fetch_add(1, Ordering::Relaxed);
    }
}
