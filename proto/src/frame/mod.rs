//! The data plane's frames: the bytes between clients and datanodes, and between datanodes of a pipeline.
//!
//! ```text
//! | header, 64 bytes | CRC32C of each 4 KiB block of the payload, 4 bytes each | payload, at most 1 MiB |
//! ```
//!
//! All numbers are little-endian. The codec does no I/O: the client on tokio, the datanode as server and the
//! datanode as peer use the same one. A receiver reads 64 bytes, gets a [`Header`] from [`Header::decode`], reads
//! the body into the place that [`Placement`] names, and checks it with [`verify`]. A length beyond its op's
//! limit is an error of `decode`, so nothing is ever allocated for it.
//!
//! A connection begins with [`Op::Hello`], which may be followed at once by the first request. Then:
//!
//! | request | answers |
//! |---|---|
//! | `WriteOpen`, `WriteData`..., the last flagged [`Header::LAST`] | `WriteProgress`..., then one `WriteAck` or `Error` |
//! | `Read` (offset, length; no payload) | `ReadData`..., the last flagged [`Header::LAST`], or `Error` |
//! | `Ping` | `Pong` |
//! | `Latency` | `LatencyReport` |
//! | `Trace` (trace id) | `TraceReport` |
//!
//! Reads may be asked for before others are answered; those of few bytes are answered in any order, each by one frame.
//! Answers carry the request id of what they answer. After an `Error` to a write, and after any violation of the
//! protocol, the connection is closed by the side that noticed.

mod body;
mod header;
mod patience;
mod placement;
mod report;

pub use body::{ErrorBody, Hello, Hop, WriteAck, WriteOpen};
pub use header::{HEADER_BYTES, Header, Op};
pub use patience::{PROGRESS_INTERVAL, patience};
pub use placement::{
    FRAME_BUFFER_BYTES, PAYLOAD_START, Placement, block_crc, control_frame, seal, seal_at, seal_with, verify,
};
pub use report::{LatencyReport, STAGES_MAX, TraceReport};

use crate::types::Crc32c;

/// What is wrong with a frame. The connection it came from cannot be trusted any further.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The first bytes are not ours.
    #[error("not a DistriFS frame: magic {0:08x}")]
    Magic(u32),
    /// A version that this build does not speak.
    #[error("frame version {0}: this build speaks {version}", version = header::VERSION)]
    Version(u8),
    /// The header was damaged on the way.
    #[error("frame header checksum: expected {expected}, got {got}")]
    HeaderChecksum {
        /// As the header says.
        expected: Crc32c,
        /// As the bytes are.
        got: Crc32c,
    },
    /// An op that this build does not know.
    #[error("unknown op {0}")]
    Op(u8),
    /// A length beyond the limit of its op.
    #[error("{op:?} frame of {length} bytes: the limit is {max}")]
    TooLong {
        /// The op.
        op: Op,
        /// What the header says.
        length: u32,
        /// What it may say.
        max: u32,
    },
    /// A block of the payload does not have its checksum.
    #[error("block {block} of the frame: expected checksum {expected}, got {got}")]
    BlockChecksum {
        /// Which block of the payload, from 0.
        block: usize,
        /// As the table says.
        expected: Crc32c,
        /// As the bytes are.
        got: Crc32c,
    },
    /// The body of a control frame does not parse.
    #[error("malformed {0} body")]
    Body(&'static str),
}
