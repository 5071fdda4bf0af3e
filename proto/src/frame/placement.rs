//! Where a frame lies in a buffer: the payload at a 4 KiB-aligned place, its checksums and header right before it.
//!
//! ```text
//! | unused | header | checksums | payload ...        |
//!                             ^ PAYLOAD_START = 4096
//! ```
//!
//! So one buffer serves the receive, the O_DIRECT write of the payload, and the forwarding of the whole frame as
//! one run of bytes, without a copy.

use std::ops::Range;

use super::{FrameError, HEADER_BYTES, Header};
use crate::limits::{BLOCK_BYTES, FRAME_BLOCKS_MAX, FRAME_PAYLOAD_BYTES_MAX};
use crate::types::{Crc32c, block_crcs};

/// Where the payload begins in a frame buffer.
pub const PAYLOAD_START: usize = BLOCK_BYTES;
/// The length of a buffer that takes any frame.
pub const FRAME_BUFFER_BYTES: usize = PAYLOAD_START + FRAME_PAYLOAD_BYTES_MAX;
const CRC_BYTES: usize = 4;

const _: () = assert!(HEADER_BYTES + FRAME_BLOCKS_MAX * CRC_BYTES <= PAYLOAD_START);

/// The places of one frame's parts in its buffer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    /// The header.
    pub header: Range<usize>,
    /// The checksums.
    pub table: Range<usize>,
    /// The payload.
    pub payload: Range<usize>,
}

impl Placement {
    /// For a payload of this many bytes.
    ///
    /// # Panics
    /// Beyond [`FRAME_PAYLOAD_BYTES_MAX`]: the caller's mistake, a decoded header is within.
    #[must_use]
    pub fn of(payload_bytes: usize) -> Self {
        assert!(payload_bytes <= FRAME_PAYLOAD_BYTES_MAX, "a payload of {payload_bytes} bytes");
        let table = PAYLOAD_START - payload_bytes.div_ceil(BLOCK_BYTES) * CRC_BYTES..PAYLOAD_START;
        Self {
            header: table.start - HEADER_BYTES..table.start,
            table,
            payload: PAYLOAD_START..PAYLOAD_START + payload_bytes,
        }
    }

    /// For a payload of this many bytes in a frame that begins at `start`: one of several in a run, whose payload is
    /// not aligned.
    ///
    /// # Panics
    /// As [`of`](Self::of).
    #[must_use]
    pub fn at(start: usize, payload_bytes: usize) -> Self {
        let there = Self::of(payload_bytes);
        let moved = |range: Range<usize>| {
            start + range.start - there.header.start..start + range.end - there.header.start
        };
        Self {
            table: moved(there.table.clone()),
            payload: moved(there.payload.clone()),
            header: moved(there.header.clone()),
        }
    }

    /// What follows the header: checksums and payload.
    #[must_use]
    pub fn body(&self) -> Range<usize> {
        self.table.start..self.payload.end
    }

    /// The whole frame.
    #[must_use]
    pub fn frame(&self) -> Range<usize> {
        self.header.start..self.payload.end
    }
}

/// Completes the frame around a payload that lies at its place: computes and writes checksums and header.
/// Returns the frame's place.
pub fn seal(buffer: &mut [u8], header: &Header) -> Range<usize> {
    let place = Placement::of(header.payload_bytes());
    let (front, payload) = buffer[..place.payload.end].split_at_mut(PAYLOAD_START);
    for (entry, crc) in front[place.table.clone()].chunks_exact_mut(CRC_BYTES).zip(block_crcs(payload)) {
        entry.copy_from_slice(&crc.0.to_le_bytes());
    }
    front[place.header.clone()].copy_from_slice(&header.encode());
    place.frame()
}

/// A whole frame around a small body. The length of a `Read` is the caller's.
///
/// # Panics
/// When the body is larger than any control frame's: the caller's mistake.
#[must_use]
pub fn control_frame(mut header: Header, body: &[u8]) -> Vec<u8> {
    if !header.op.has_payload() {
        return header.encode().to_vec();
    }
    header.length = u32::try_from(body.len()).expect("bodies are bounded by their encoders");
    let mut buffer = vec![0; PAYLOAD_START + body.len()];
    buffer[PAYLOAD_START..].copy_from_slice(body);
    let frame = seal(&mut buffer, &header);
    buffer.drain(..frame.start);
    buffer
}

/// As [`seal`], with checksums that are known already: the stored ones of a chunk, so that damage done on the
/// disk is found by the receiver.
///
/// # Panics
/// When there are not as many checksums as blocks: the caller's mistake.
pub fn seal_with(
    buffer: &mut [u8],
    header: &Header,
    crcs: impl ExactSizeIterator<Item = Crc32c>,
) -> Range<usize> {
    seal_at(buffer, &Placement::of(header.payload_bytes()), header, crcs)
}

/// As [`seal_with`], of a frame in this place.
///
/// # Panics
/// As [`seal_with`].
pub fn seal_at(
    buffer: &mut [u8],
    place: &Placement,
    header: &Header,
    crcs: impl ExactSizeIterator<Item = Crc32c>,
) -> Range<usize> {
    assert_eq!(crcs.len() * CRC_BYTES, place.table.len(), "as many checksums as blocks");
    for (entry, crc) in buffer[place.table.clone()].chunks_exact_mut(CRC_BYTES).zip(crcs) {
        entry.copy_from_slice(&crc.0.to_le_bytes());
    }
    buffer[place.header.clone()].copy_from_slice(&header.encode());
    place.frame()
}

/// Checks a received payload against the checksums before it.
///
/// # Errors
/// [`FrameError::BlockChecksum`] for the first block that differs.
pub fn verify(buffer: &[u8], place: &Placement) -> Result<(), FrameError> {
    for (block, got) in block_crcs(&buffer[place.payload.clone()]).enumerate() {
        let expected = block_crc(buffer, place, block);
        if expected != got {
            return Err(FrameError::BlockChecksum { block, expected, got });
        }
    }
    Ok(())
}

/// The checksum of a block as the table says it.
///
/// # Panics
/// When the frame has no such block: the caller's mistake.
#[must_use]
pub fn block_crc(buffer: &[u8], place: &Placement, block: usize) -> Crc32c {
    let entry = &buffer[place.table.clone()][block * CRC_BYTES..(block + 1) * CRC_BYTES];
    Crc32c(u32::from_le_bytes([entry[0], entry[1], entry[2], entry[3]]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Op;
    use proptest::prelude::*;

    #[test]
    fn the_payload_of_every_frame_is_aligned_and_the_frame_is_one_run() {
        for bytes in [0, 1, 4095, 4096, 4097, FRAME_PAYLOAD_BYTES_MAX] {
            let place = Placement::of(bytes);
            assert_eq!(place.payload.start % BLOCK_BYTES, 0);
            assert_eq!(place.header.end, place.table.start);
            assert_eq!(place.table.end, place.payload.start);
            assert_eq!(place.body().end, place.frame().end);
        }
    }

    #[test]
    fn a_frame_anywhere_in_a_run_is_the_same_frame() {
        for bytes in [0, 9, 4096, 5000] {
            let header = Header { length: bytes as u32, ..Header::new(Op::WriteData, 7) };
            let (mut buffer, mut run) = (vec![0x5a; FRAME_BUFFER_BYTES], vec![0x5a; 20_000]);
            let frame = seal(&mut buffer, &header);
            for start in [0, 1, 777] {
                let place = Placement::at(start, bytes);
                let crcs: Vec<Crc32c> = block_crcs(&run[place.payload.clone()]).collect();
                let at = seal_at(&mut run, &place, &header, crcs.into_iter());
                assert_eq!((at.start, &run[at.clone()]), (start, &buffer[frame.clone()]));
                assert_eq!(verify(&run, &place), Ok(()));
            }
        }
    }

    #[test]
    fn the_golden_frame() {
        let mut buffer = vec![0; FRAME_BUFFER_BYTES];
        buffer[PAYLOAD_START..PAYLOAD_START + 9].copy_from_slice(b"123456789");
        let header = Header { length: 9, flags: Header::LAST, ..Header::new(Op::WriteData, 7) };
        let at = seal(&mut buffer, &header);
        let hex: String = buffer[at].iter().map(|b| format!("{b:02x}")).collect();
        let golden = concat!(
            "4446534601030100",
            "0700000000000000",
            "0000000000000000",
            "0000000000000000",
            "0000000000000000",
            "0000000000000000",
            "0000000000000000",
            "09000000",
        );
        assert_eq!(&hex[..120], golden);
        // The check value of CRC-32C, then the bytes themselves.
        assert_eq!(&hex[128..], concat!("839206e3", "313233343536373839"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn a_flipped_bit_of_body_or_table_is_noticed(len in 1usize..20_000, at: prop::sample::Index, bit in 0u8..8) {
            let mut buffer = vec![0x5a; FRAME_BUFFER_BYTES];
            let header = Header { length: len as u32, ..Header::new(Op::WriteData, 1) };
            seal(&mut buffer, &header);
            let place = Placement::of(len);
            prop_assert_eq!(verify(&buffer, &place), Ok(()));
            let body = place.body();
            buffer[body.start + at.index(body.len())] ^= 1 << bit;
            prop_assert!(verify(&buffer, &place).is_err());
        }
    }
}
