//! The 64 bytes that begin every frame.
//!
//! ```text
//!  0 magic "DFSF"   4 version   5 op   6 flags (2)      8 request id (8)   16 trace id (8)   24 chunk id (8)
//! 32 generation (8)   40 epoch (8)   48 offset (8)     56 length (4)      60 CRC32C of bytes 0..60 (4)
//! ```

use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::FrameError;
use crate::limits::{CHUNK_BYTES_MAX, FRAME_CONTROL_BYTES_MAX, FRAME_PAYLOAD_BYTES_MAX};
use crate::types::{ChunkId, Crc32c, Epoch, GenerationStamp};

/// Bytes of a header.
pub const HEADER_BYTES: usize = 64;
pub(super) const VERSION: u8 = 1;
const MAGIC: u32 = u32::from_le_bytes(*b"DFSF");
const CHECKED_BYTES: usize = 60;

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Layout {
    magic: U32,
    version: u8,
    op: u8,
    flags: U16,
    request_id: U64,
    trace_id: U64,
    chunk_id: U64,
    generation: U64,
    epoch: U64,
    offset: U64,
    length: U32,
    crc: U32,
}

const _: () = assert!(size_of::<Layout>() == HEADER_BYTES);
const _: () = assert!(std::mem::offset_of!(Layout, crc) == CHECKED_BYTES);

/// What a frame asks or answers. Numbers are never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Op {
    /// Begins a connection: whom the caller means to speak to. Body: [`super::Hello`].
    Hello = 1,
    /// Begins a chunk: its pipeline. Body: [`super::WriteOpen`].
    WriteOpen = 2,
    /// Bytes of the chunk at `offset`, in order. With [`Header::LAST`] the chunk ends here and is to be committed.
    WriteData = 3,
    /// The chunk is committed on every hop. Body: [`super::WriteAck`].
    WriteAck = 4,
    /// Work goes on at a hop: nobody is to be blamed yet. `offset` is the number of hops below the sender.
    WriteProgress = 5,
    /// Asks for `length` bytes at `offset`; no payload.
    Read = 6,
    /// Whole blocks that cover the range, or its next part, with their stored checksums.
    ReadData = 7,
    /// The request failed. Body: [`super::ErrorBody`].
    Error = 8,
    /// Asks for a sign of life; no payload.
    Ping = 9,
    /// The sign of life; no payload.
    Pong = 10,
    /// Asks how long the stages of the node take; no payload.
    Latency = 11,
    /// A histogram for each stage. Body: [`super::LatencyReport`].
    LatencyReport = 12,
    /// Asks what the node remembers of the trace of this header; no payload.
    Trace = 13,
    /// The operations of that trace. Body: [`super::TraceReport`].
    TraceReport = 14,
}

impl Op {
    const ALL: [Self; 14] = [
        Self::Hello,
        Self::WriteOpen,
        Self::WriteData,
        Self::WriteAck,
        Self::WriteProgress,
        Self::Read,
        Self::ReadData,
        Self::Error,
        Self::Ping,
        Self::Pong,
        Self::Latency,
        Self::LatencyReport,
        Self::Trace,
        Self::TraceReport,
    ];

    fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|&op| op as u8 == number)
    }

    /// The largest `length` a header of this op may say.
    #[must_use]
    pub fn length_max(self) -> u32 {
        match self {
            Self::Hello | Self::WriteOpen | Self::WriteAck | Self::Error => FRAME_CONTROL_BYTES_MAX as u32,
            Self::WriteData | Self::ReadData | Self::LatencyReport | Self::TraceReport => {
                FRAME_PAYLOAD_BYTES_MAX as u32
            }
            Self::WriteProgress | Self::Ping | Self::Pong | Self::Latency | Self::Trace => 0,
            Self::Read => CHUNK_BYTES_MAX as u32,
        }
    }

    /// Whether `length` bytes of payload follow; a `Read` only names a length.
    #[must_use]
    pub fn has_payload(self) -> bool {
        !matches!(
            self,
            Self::Read | Self::WriteProgress | Self::Ping | Self::Pong | Self::Latency | Self::Trace
        )
    }
}

/// A header, decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// What is asked or answered.
    pub op: Op,
    /// [`Header::LAST`], [`Header::TRACED`] and [`Header::DIRECT`]; unknown bits are ignored.
    pub flags: u16,
    /// Chosen by the asker, unique on its connection; answers repeat it.
    pub request_id: u64,
    /// Follows one user operation through every process.
    pub trace_id: u64,
    /// The chunk it is about, 0 for none.
    pub chunk: ChunkId,
    /// The version of the chunk.
    pub generation: GenerationStamp,
    /// The leader's epoch under which the asker acts.
    pub epoch: Epoch,
    /// Where in the chunk, in bytes.
    pub offset: u64,
    /// Bytes of payload; of a `Read`, bytes wanted.
    pub length: u32,
}

impl Header {
    /// The flag of the last frame of a stream.
    pub const LAST: u16 = 1;
    /// The flag of a request that is to be remembered under its trace, for whoever asks with [`Op::Trace`].
    pub const TRACED: u16 = 2;
    /// The flag of a `Read` that is to be served from the device, past the page cache. An older datanode serves it from
    /// the page cache: the bytes are the same.
    pub const DIRECT: u16 = 4;

    /// A header of this op, for no chunk, everything else 0.
    #[must_use]
    pub fn new(op: Op, request_id: u64) -> Self {
        Self {
            op,
            flags: 0,
            request_id,
            trace_id: 0,
            chunk: ChunkId(0),
            generation: GenerationStamp(0),
            epoch: Epoch(0),
            offset: 0,
            length: 0,
        }
    }

    /// An answer to `self`: same request, trace, chunk, generation and epoch.
    #[must_use]
    pub fn answer(&self, op: Op) -> Self {
        Self { op, flags: 0, offset: 0, length: 0, ..*self }
    }

    /// Whether this is the last frame of its stream.
    #[must_use]
    pub fn is_last(&self) -> bool {
        self.flags & Self::LAST != 0
    }

    /// Whether what happens is to be remembered under the trace.
    #[must_use]
    pub fn is_traced(&self) -> bool {
        self.flags & Self::TRACED != 0
    }

    /// Whether a read goes past the page cache.
    #[must_use]
    pub fn is_direct(&self) -> bool {
        self.flags & Self::DIRECT != 0
    }

    /// The bytes of payload that follow the header.
    #[must_use]
    pub fn payload_bytes(&self) -> usize {
        if self.op.has_payload() { self.length as usize } else { 0 }
    }

    /// The bytes on the wire.
    #[must_use]
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut layout = Layout {
            magic: MAGIC.into(),
            version: VERSION,
            op: self.op as u8,
            flags: self.flags.into(),
            request_id: self.request_id.into(),
            trace_id: self.trace_id.into(),
            chunk_id: self.chunk.0.into(),
            generation: self.generation.0.into(),
            epoch: self.epoch.0.into(),
            offset: self.offset.into(),
            length: self.length.into(),
            crc: 0.into(),
        };
        layout.crc = Crc32c::of(&layout.as_bytes()[..CHECKED_BYTES]).0.into();
        zerocopy::transmute!(layout)
    }

    /// From the bytes on the wire.
    ///
    /// # Errors
    /// Whatever is not a sound header of a known op within its limits.
    pub fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Self, FrameError> {
        let layout: &Layout = zerocopy::transmute_ref!(bytes);
        if layout.magic.get() != MAGIC {
            return Err(FrameError::Magic(layout.magic.get()));
        }
        let (expected, got) = (Crc32c(layout.crc.get()), Crc32c::of(&bytes[..CHECKED_BYTES]));
        if layout.version != VERSION {
            return Err(FrameError::Version(layout.version));
        }
        if expected != got {
            return Err(FrameError::HeaderChecksum { expected, got });
        }
        let op = Op::from_number(layout.op).ok_or(FrameError::Op(layout.op))?;
        let (length, max) = (layout.length.get(), op.length_max());
        if length > max {
            return Err(FrameError::TooLong { op, length, max });
        }
        Ok(Self {
            op,
            flags: layout.flags.get(),
            request_id: layout.request_id.get(),
            trace_id: layout.trace_id.get(),
            chunk: ChunkId(layout.chunk_id.get()),
            generation: GenerationStamp(layout.generation.get()),
            epoch: Epoch(layout.epoch.get()),
            offset: layout.offset.get(),
            length,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample() -> Header {
        Header {
            op: Op::WriteData,
            flags: Header::LAST,
            request_id: 0x0102_0304_0506_0708,
            trace_id: 0x1112_1314_1516_1718,
            chunk: ChunkId(0x2122_2324_2526_2728),
            generation: GenerationStamp(3),
            epoch: Epoch(4),
            offset: 0x0010_0000,
            length: 5000,
        }
    }

    #[test]
    fn the_golden_header() {
        let golden = concat!(
            "4446534601030100",
            "0807060504030201",
            "1817161514131211",
            "2827262524232221",
            "0300000000000000",
            "0400000000000000",
            "0000100000000000",
            "88130000",
        );
        let bytes = sample().encode();
        let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(&hex[..120], golden);
        assert_eq!(bytes[60..], Crc32c::of(&bytes[..60]).0.to_le_bytes());
        assert_eq!(Header::decode(&bytes), Ok(sample()));
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let bytes = sample().encode();
        for bit in 0..HEADER_BYTES * 8 {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(Header::decode(&flipped).is_err(), "bit {bit} went unnoticed");
        }
    }

    #[test]
    fn a_length_beyond_its_limit_is_refused() {
        for op in Op::ALL {
            let fits = Header { op, length: op.length_max(), ..sample() };
            assert_eq!(Header::decode(&fits.encode()), Ok(fits));
            let long = Header { length: op.length_max() + 1, ..fits };
            let refused = Header::decode(&long.encode());
            assert!(matches!(refused, Err(FrameError::TooLong { .. })), "{op:?}: {refused:?}");
        }
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes: [u8; 32], more: [u8; 32]) {
            let mut all = [0; HEADER_BYTES];
            all[..32].copy_from_slice(&bytes);
            all[32..].copy_from_slice(&more);
            prop_assert!(Header::decode(&all).is_err());
        }
    }
}
