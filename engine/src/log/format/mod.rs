//! The bytes of the log on disk; nothing else knows them. All numbers are little-endian.
//!
//! ```text
//! segment wal-<16 hex digits of its sequence>.log, zero-filled before use
//! +-------------+---------------------+---------------------+----------- ... -+
//! | header block| group: 1..n blocks  | group               | zeros           |
//! +-------------+---------------------+---------------------+----------- ... -+
//! block  = 4096 bytes = 8 sectors; every group starts on a fresh block
//! sector = 504 bytes of content | u32 place in its group | u32 check
//! group  = 48 bytes of header | records, each: u32 length, bytes | zeros up to the end of its last block
//! ```
//!
//! A written sector is never all zero, so that recovery tells "never written" from "rotten": see [`sector`].
//! A group's header carries the checksum of its body and of the group before it, across segments.
//!
//! ```text
//! the log's folder
//! +-- wal-*.log, witness                   the log, as long as there is no fork
//! +-- fork-<16 hex digits of an epoch>/    the log, once it is there: the newest fork counts, all else are remains
//! |   +-- wal-*.log, witness               segments that are written no more may be files of the log before as well
//! +-- fork-<...>.tmp/                      a fork that is not finished; locked as long as somebody works on it
//! ```

mod fork;
mod group;
mod sector;
mod segment;
mod witness;

pub(crate) use fork::{fork_epoch, fork_name, unfinished_fork_epoch, unfinished_fork_name};
pub(crate) use group::{
    GROUP_HEADER_BYTES, GroupHeader, RECORD_HEADER_BYTES, encode_group, group_blocks, group_capacity, records,
};
pub(crate) use sector::{SECTOR_BYTES, SECTORS_PER_BLOCK, Sector, gather, is_zero, judge, spread};
pub(crate) use segment::{BadHeader, SegmentHeader, segment_name, segment_sequence};
pub(crate) use witness::{WITNESS_NAME, Witness};

pub(crate) use distrifs_proto::limits::BLOCK_BYTES;

/// The version of the layout that this code writes, and the newest it reads.
pub(crate) const VERSION: u32 = 1;

/// The end of the names of files that are not in use yet; removed at start.
pub(crate) const TEMPORARY_SUFFIX: &str = ".tmp";

/// The number at `at`; the caller has checked that the bytes are there.
fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut raw = [0; 4];
    raw.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(raw)
}

/// As [`u32_at`].
fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut raw = [0; 8];
    raw.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(raw)
}

/// As [`u32_at`].
fn u128_at(bytes: &[u8], at: usize) -> u128 {
    let mut raw = [0; 16];
    raw.copy_from_slice(&bytes[at..at + 16]);
    u128::from_le_bytes(raw)
}
