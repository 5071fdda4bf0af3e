//! Every maximum of the system, in one place. Beyond it the answer is an error, never a larger allocation.

/// The checksum block: each has its own CRC32C, on disk and on the wire.
pub const BLOCK_BYTES: usize = 4096;

/// The payload of one data frame, and the unit of disk writes.
pub const FRAME_PAYLOAD_BYTES_MAX: usize = 1 << 20;

/// Block checksums in one frame.
pub const FRAME_BLOCKS_MAX: usize = FRAME_PAYLOAD_BYTES_MAX / BLOCK_BYTES;

/// The payload of an opening, answer or error frame.
pub const FRAME_CONTROL_BYTES_MAX: usize = 8192;

/// The default chunk size.
pub const CHUNK_BYTES_DEFAULT: u64 = 64 << 20;
/// The smallest and the largest chunk size; always a multiple of [`BLOCK_BYTES`].
pub const CHUNK_BYTES_MIN: u64 = 64 << 10;
/// See [`CHUNK_BYTES_MIN`].
pub const CHUNK_BYTES_MAX: u64 = 1 << 30;

/// A chunk of up to this is small: the client sends it to each of its nodes itself, in one frame; a datanode takes it in
/// a small buffer and makes it durable in its folder's journal. It may grow, but never shrink: the next start would take
/// larger records in a journal for none, and their chunks would be lost.
pub const SMALL_CHUNK_BYTES_MAX: u64 = 64 << 10;

/// The default number of replicas, and the largest.
pub const REPLICATION_DEFAULT: u32 = 3;
/// See [`REPLICATION_DEFAULT`].
pub const REPLICATION_MAX: u32 = 16;

/// One name of a path, in bytes, as on ext4.
pub const NAME_BYTES_MAX: usize = 255;
/// A whole path, in bytes, as it is given. A directory that is moved takes what is below it along, however long the
/// paths become, as on other file systems.
pub const PATH_BYTES_MAX: usize = 4096;
/// Names in a path, as it is given; see [`PATH_BYTES_MAX`].
pub const PATH_DEPTH_MAX: usize = 256;
/// Chunks of one file: with the default chunk size, 64 TiB.
pub const FILE_CHUNKS_MAX: usize = 1 << 20;

/// Entries in one page of a listing.
pub const LIST_PAGE_MAX: usize = 1000;
/// Chunks in one page of a read plan.
pub const PLAN_CHUNKS_MAX: usize = 1024;
/// Chunks granted in one call.
pub const GRANTS_PER_CALL_MAX: u32 = 16;
/// Replicas named in one part of a block report.
pub const REPORT_PART_MAX: usize = 8192;
/// Orders in one message to a datanode.
pub const ORDERS_MAX: usize = 1024;
/// A gRPC message, encoded: the largest is the completion of a file of [`FILE_CHUNKS_MAX`] chunks.
pub const GRPC_MESSAGE_BYTES_MAX: usize = 128 << 20;
/// Text that explains an error.
pub const ERROR_TEXT_BYTES_MAX: usize = 1024;

const _: () = assert!(FRAME_PAYLOAD_BYTES_MAX.is_multiple_of(BLOCK_BYTES));
const _: () = assert!(FRAME_CONTROL_BYTES_MAX <= FRAME_PAYLOAD_BYTES_MAX);
const _: () = assert!(SMALL_CHUNK_BYTES_MAX <= FRAME_PAYLOAD_BYTES_MAX as u64);
const _: () = assert!(CHUNK_BYTES_MIN.is_multiple_of(BLOCK_BYTES as u64));
const _: () = assert!(CHUNK_BYTES_MIN <= CHUNK_BYTES_DEFAULT && CHUNK_BYTES_DEFAULT <= CHUNK_BYTES_MAX);
const _: () = assert!(REPLICATION_DEFAULT <= REPLICATION_MAX);
const _: () = assert!(ERROR_TEXT_BYTES_MAX + 64 <= FRAME_CONTROL_BYTES_MAX);
// The longest pipeline of the longest addresses.
const _: () = assert!(REPLICATION_MAX as usize * 300 + 64 <= FRAME_CONTROL_BYTES_MAX);
