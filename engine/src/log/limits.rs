//! The bounds of the log: beyond them the answer is an error or waiting, never more memory.

use distrifs_proto::types::Lsn;

use super::format::{BLOCK_BYTES, GROUP_HEADER_BYTES, RECORD_HEADER_BYTES, group_blocks, group_capacity};

/// The default size of a segment.
pub const SEGMENT_BYTES_DEFAULT: u64 = 16 << 20;
/// The smallest segment: a header block and one block of records.
pub const SEGMENT_BYTES_MIN: u64 = 2 * BLOCK_BYTES as u64;
/// The largest segment. Recovery reads one segment at a time into memory.
pub const SEGMENT_BYTES_MAX: u64 = 64 << 20;

/// The records of one group, encoded (each with its length in front): what one write carries at most.
pub const GROUP_BYTES_MAX: usize = 1 << 20;
/// The number of records in one group.
pub const GROUP_RECORDS_MAX: usize = 1 << 16;

/// Appends that wait for the log's thread; further callers wait before they are taken in.
pub const QUEUE_APPENDS_MAX: usize = 1024;
/// Encoded bytes of records that wait for the log's thread.
pub const QUEUE_BYTES_MAX: usize = 8 << 20;

/// Segments in one log folder, which bounds what recovery lists. With as many, appends get
/// [`LogError::NoSpace`](super::LogError::NoSpace).
pub const SEGMENTS_MAX: usize = 1 << 16;
/// The fewest that a log works with: one in use, one ready, and one to change to.
pub(crate) const SEGMENTS_MIN: usize = 3;

/// Beyond it neither an LSN nor a segment's sequence is believed: no log lives long enough to count so far.
pub(crate) const LSN_MAX: Lsn = Lsn(1 << 62);

const _: () =
    assert!(SEGMENT_BYTES_MIN <= SEGMENT_BYTES_DEFAULT && SEGMENT_BYTES_DEFAULT <= SEGMENT_BYTES_MAX);
const _: () = assert!(SEGMENT_BYTES_MIN.is_multiple_of(BLOCK_BYTES as u64));
const _: () = assert!(SEGMENT_BYTES_MAX.is_multiple_of(BLOCK_BYTES as u64));
const _: () = assert!(GROUP_BYTES_MAX <= QUEUE_BYTES_MAX && QUEUE_BYTES_MAX <= u32::MAX as usize);
const _: () =
    assert!(group_blocks(GROUP_BYTES_MAX) * BLOCK_BYTES + BLOCK_BYTES <= SEGMENT_BYTES_DEFAULT as usize);
const _: () = assert!(group_capacity(1) + GROUP_HEADER_BYTES < BLOCK_BYTES);

/// What one append may bring at most, encoded, in a log whose segments have `segment_bytes`.
pub(crate) fn append_bytes_max(segment_bytes: u64) -> usize {
    let blocks = (segment_bytes.min(SEGMENT_BYTES_MAX) as usize / BLOCK_BYTES).saturating_sub(1);
    group_capacity(blocks).min(GROUP_BYTES_MAX)
}

/// What is kept back at the end of a segment while the next one is missing, for what frees space: on a full disk it
/// must go on (R21), and it needs the log, too.
pub(crate) fn reserve_bytes(segment_bytes: u64) -> u64 {
    let block = BLOCK_BYTES as u64;
    segment_bytes / 4 / block * block
}

/// What these records need, encoded.
pub(crate) fn encoded_bytes(records: &[bytes::Bytes]) -> usize {
    records.iter().map(|record| record.len() + RECORD_HEADER_BYTES).sum()
}
