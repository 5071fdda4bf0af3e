//! What the log counts. Sums only: whoever asks twice has the rates.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use distrifs_proto::latency::{Recorder, encode_merged};
use distrifs_proto::types::Lsn;

/// A reading of the counters since the log was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogStats {
    /// How the thread writes: `io_uring`, `posix` or `simulated`.
    pub body: &'static str,
    /// Appends acknowledged.
    pub appends: u64,
    /// Records acknowledged.
    pub records: u64,
    /// Groups acknowledged. Each is one durable write: records / groups is the mean size of a group.
    pub groups: u64,
    /// Durable writes: groups, and one for each segment's header.
    pub syncs: u64,
    /// Bytes written, with headers and padding.
    pub bytes: u64,
    /// The most records that shared one group.
    pub group_records_max: u64,
    /// The time of all durable writes together, in nanoseconds.
    pub sync_nanos: u64,
    /// The longest of them.
    pub sync_nanos_max: u64,
    /// Segments taken into use.
    pub segments: u64,
    /// The time that appends stood still for the change of a segment, in nanoseconds.
    pub switch_nanos: u64,
    /// Appends refused for want of space.
    pub no_space: u64,
    /// Segments on disk now: those in use before, the one in use, the one that is ready, and released ones that
    /// could not be removed.
    pub kept_segments: u64,
    /// Their bytes.
    pub kept_bytes: u64,
    /// The first record that is kept, or would be.
    pub first_lsn: Lsn,
}

/// Written by the log's thread, read by anybody.
#[derive(Debug, Default)]
pub(super) struct Counters {
    appends: AtomicU64,
    records: AtomicU64,
    groups: AtomicU64,
    syncs: AtomicU64,
    bytes: AtomicU64,
    group_records_max: AtomicU64,
    sync_nanos: AtomicU64,
    sync_nanos_max: AtomicU64,
    segments: AtomicU64,
    switch_nanos: AtomicU64,
    no_space: AtomicU64,
    kept_segments: AtomicU64,
    kept_bytes: AtomicU64,
    first_lsn: AtomicU64,
    sync: Recorder,
}

/// The times of a log's durable writes since its start; keeps neither the log nor its thread.
#[derive(Debug, Clone)]
pub struct SyncTimes(pub(super) Arc<Counters>);

impl SyncTimes {
    /// As a histogram of microseconds, in HdrHistogram's encoding V2.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        encode_merged(std::iter::once(&self.0.sync))
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

impl Counters {
    pub(super) fn synced(&self, bytes: usize, time: Duration) {
        self.syncs.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        self.sync_nanos.fetch_add(nanos(time), Ordering::Relaxed);
        self.sync_nanos_max.fetch_max(nanos(time), Ordering::Relaxed);
        self.sync.record(time);
    }

    pub(super) fn group(&self, appends: usize, records: usize) {
        self.groups.fetch_add(1, Ordering::Relaxed);
        self.appends.fetch_add(appends as u64, Ordering::Relaxed);
        self.records.fetch_add(records as u64, Ordering::Relaxed);
        self.group_records_max.fetch_max(records as u64, Ordering::Relaxed);
    }

    pub(super) fn switched(&self, time: Duration) {
        self.segments.fetch_add(1, Ordering::Relaxed);
        self.switch_nanos.fetch_add(nanos(time), Ordering::Relaxed);
    }

    pub(super) fn no_space(&self, appends: usize) {
        self.no_space.fetch_add(appends as u64, Ordering::Relaxed);
    }

    /// A segment is there.
    pub(super) fn made(&self, bytes: u64) {
        self.kept_segments.fetch_add(1, Ordering::Relaxed);
        self.kept_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// A segment that was there is gone.
    pub(super) fn removed(&self, bytes: u64) {
        self.kept_segments.fetch_sub(1, Ordering::Relaxed);
        self.kept_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    pub(super) fn begins_with(&self, lsn: Lsn) {
        self.first_lsn.store(lsn.0, Ordering::Relaxed);
    }

    pub(super) fn read(&self, body: &'static str) -> LogStats {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        LogStats {
            body,
            appends: get(&self.appends),
            records: get(&self.records),
            groups: get(&self.groups),
            syncs: get(&self.syncs),
            bytes: get(&self.bytes),
            group_records_max: get(&self.group_records_max),
            sync_nanos: get(&self.sync_nanos),
            sync_nanos_max: get(&self.sync_nanos_max),
            segments: get(&self.segments),
            switch_nanos: get(&self.switch_nanos),
            no_space: get(&self.no_space),
            kept_segments: get(&self.kept_segments),
            kept_bytes: get(&self.kept_bytes),
            first_lsn: Lsn(get(&self.first_lsn)),
        }
    }
}
