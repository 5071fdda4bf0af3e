//! The write-ahead log of the master, with group commit.
//!
//! It stores opaque records under contiguous [`Lsn`](distrifs_proto::types::Lsn)s from 1 and promises:
//! - **An append that returned is durable** and is found by every later [`recover`], in order, or the recovery
//!   refuses with the file, the offset and the LSN. The limits of that promise: [`recover`].
//! - The records of one append survive together or not at all.
//! - **Each group of appends is one write** to blocks that were never written before: a lone small append costs
//!   one durable write of 4 KiB, concurrent ones share it.
//! - **A failed or short write poisons the log**: the outcome of what was in flight is unknown, and nothing is
//!   acknowledged after it, ever. A full disk does not poison.
//!
//! - **Segments that are no longer needed go when the caller says so** ([`Log::release`]), in an order that survives
//!   a power cut at every step.
//! - **It can be taken from a writer that may still live** ([`recover_forked`]): it goes on in a fork, a folder within
//!   its folder, out of the reach of that writer. The newest fork is the log.
//!
//! It does not know what its records mean, when they may be dropped, or who leads.
//!
//! Reading order: `limits.rs`, `format/`, `recovery/table.rs`, the rest of `recovery/`, `home.rs` and `fork.rs`, then
//! the thread in `writer.rs`. One thread does the writes, by tokio-uring or, where io_uring is denied, by `pwrite`; `crate::folder` is
//! the seam below both, with a simulated disk for the tests.

mod batch;
mod error;
mod fork;
mod format;
mod handle;
mod home;
mod limits;
mod options;
mod prepare;
mod queue;
mod recovery;
mod release;
mod stats;
#[cfg(test)]
mod tests;
mod writer;

pub use error::{Corruption, LogError, RecoverError, ReplayError};
pub use fork::{Prove, recover_forked};
pub use handle::Log;
pub use home::{current_folder, exists};
pub use limits::{
    GROUP_BYTES_MAX, GROUP_RECORDS_MAX, QUEUE_APPENDS_MAX, QUEUE_BYTES_MAX, SEGMENT_BYTES_DEFAULT,
    SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN, SEGMENTS_MAX,
};
pub use options::LogOptions;
#[cfg(test)]
pub(crate) use recovery::recover_folder;
pub use recovery::{
    CutTail, InspectedGroup, InspectedHeader, Inspection, Recovered, Replay, SegmentVerdict, inspect, recover,
};
pub use release::Released;
pub use stats::{LogStats, SyncTimes};
