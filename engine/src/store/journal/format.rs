//! The bytes of the journal on disk; nothing else knows them. All numbers little-endian.
//!
//! ```text
//! segment-<digit>: zero-filled before use
//! +--------------+---------------------+---------------------+----------- ... -+
//! | header block | record: 1..n blocks | record              | zeros, or older |
//! +--------------+---------------------+---------------------+----------- ... -+
//! block = 4096 bytes; every record starts on a fresh one and ends with zeros up to a block's end
//!
//! header    0 magic "DFSJRNL\0"   8 version (4)   12 zeros (4)   16 node (8)   24 sequence (8)   32 salt (8)
//!          40 bytes of the segment (8)   48 zeros (12)   60 CRC of bytes 0..60 (4)   64 zeros
//! record    0 magic "DFSJREC\0"   8 sequence (8)   16 salt (8)   24 its block (4)   28 first block of its group (4)
//!          32 bytes of the sidecar (4)   36 bytes of the data (4)   40 zeros (20)   60 CRC of all its blocks but this (4)
//!          64 sidecar, data, zeros
//! ```
//! The header lies in one sector, so that a power cut leaves the old one or the new one. A record counts only with the
//! sequence and the salt of the header: a header with a higher sequence voids all of them at once. The salt keeps a
//! chunk whose bytes look like a record from being taken for one.

use distrifs_proto::limits::{BLOCK_BYTES, SMALL_CHUNK_BYTES_MAX};
use distrifs_proto::types::{Crc32c, NodeId};
use zerocopy::byteorder::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::store::Sidecar;

/// The blocks of the largest record.
pub(super) const RECORD_BLOCKS_MAX: u32 =
    record_blocks(Sidecar::encoded_bytes(SMALL_CHUNK_BYTES_MAX), SMALL_CHUNK_BYTES_MAX as usize);

/// No journal gets there by counting.
const SEQUENCE_MAX: u64 = 1 << 62;
const VERSION: u32 = 1;
const HEADER_MAGIC: [u8; 8] = *b"DFSJRNL\0";
const RECORD_MAGIC: [u8; 8] = *b"DFSJREC\0";
/// Of a segment's header and of a record's, before the checksum.
const CHECKED_BYTES: usize = 60;
const RECORD_HEADER_BYTES: usize = 64;

/// What distinguishes one use of a segment from all others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Use {
    /// Higher than that of any earlier use of any segment of the journal.
    pub(super) sequence: u64,
    /// By chance.
    pub(super) salt: u64,
}

/// The facts in a segment's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    pub(super) node: NodeId,
    pub(super) of: Use,
    /// The segment's length.
    pub(super) bytes: u64,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct HeaderLayout {
    magic: [u8; 8],
    version: U32,
    zeros: [u8; 4],
    node: U64,
    sequence: U64,
    salt: U64,
    bytes: U64,
    more_zeros: [u8; 12],
    crc: U32,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RecordLayout {
    magic: [u8; 8],
    sequence: U64,
    salt: U64,
    block: U32,
    group: U32,
    sidecar_bytes: U32,
    data_bytes: U32,
    zeros: [u8; 20],
    crc: U32,
}

const _: () = assert!(std::mem::offset_of!(HeaderLayout, crc) == CHECKED_BYTES);
const _: () = assert!(std::mem::offset_of!(RecordLayout, crc) == CHECKED_BYTES);
const _: () = assert!(size_of::<RecordLayout>() == RECORD_HEADER_BYTES);

/// Why a header block is none of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BadHeader {
    /// Nothing was ever written there.
    Zeros,
    /// It is not what was written.
    Damaged,
    /// A newer DistriFS wrote it.
    Version(u32),
}

impl SegmentHeader {
    /// The header block.
    pub(super) fn encode(&self, block: &mut [u8]) {
        let mut layout = HeaderLayout {
            magic: HEADER_MAGIC,
            version: VERSION.into(),
            zeros: [0; 4],
            node: self.node.0.into(),
            sequence: self.of.sequence.into(),
            salt: self.of.salt.into(),
            bytes: self.bytes.into(),
            more_zeros: [0; 12],
            crc: 0.into(),
        };
        layout.crc = Crc32c::of(&layout.as_bytes()[..CHECKED_BYTES]).0.into();
        block.fill(0);
        block[..size_of::<HeaderLayout>()].copy_from_slice(layout.as_bytes());
    }

    /// The header in the first block of a segment, or in what there is of it.
    pub(super) fn decode(block: &[u8]) -> Result<Self, BadHeader> {
        if block.iter().all(|&byte| byte == 0) {
            return Err(BadHeader::Zeros);
        }
        let Ok((layout, rest)) = HeaderLayout::ref_from_prefix(block) else { return Err(BadHeader::Damaged) };
        let whole = block.len() == BLOCK_BYTES && rest.iter().all(|&byte| byte == 0);
        let sound = layout.crc.get() == Crc32c::of(&block[..CHECKED_BYTES]).0;
        if !whole || !sound || layout.magic != HEADER_MAGIC || layout.sequence.get() > SEQUENCE_MAX {
            return Err(BadHeader::Damaged);
        }
        match layout.version.get() {
            VERSION => Ok(Self {
                node: NodeId(layout.node.get()),
                of: Use { sequence: layout.sequence.get(), salt: layout.salt.get() },
                bytes: layout.bytes.get(),
            }),
            other => Err(BadHeader::Version(other)),
        }
    }
}

/// The blocks of a record.
pub(super) const fn record_blocks(sidecar_bytes: usize, data_bytes: usize) -> u32 {
    (RECORD_HEADER_BYTES + sidecar_bytes + data_bytes).div_ceil(BLOCK_BYTES) as u32
}

/// Where a record lies, in blocks from the segment's beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RecordPlace {
    pub(super) block: u32,
    /// The first block of the records that were written with it, at once.
    pub(super) group: u32,
}

/// Writes a record into its blocks, which are zeros.
pub(super) fn encode_record(blocks: &mut [u8], of: Use, place: RecordPlace, sidecar: &[u8], data: &[u8]) {
    let mut layout = RecordLayout {
        magic: RECORD_MAGIC,
        sequence: of.sequence.into(),
        salt: of.salt.into(),
        block: place.block.into(),
        group: place.group.into(),
        sidecar_bytes: (sidecar.len() as u32).into(),
        data_bytes: (data.len() as u32).into(),
        zeros: [0; 20],
        crc: 0.into(),
    };
    let data_at = RECORD_HEADER_BYTES + sidecar.len();
    blocks[RECORD_HEADER_BYTES..data_at].copy_from_slice(sidecar);
    blocks[data_at..data_at + data.len()].copy_from_slice(data);
    layout.crc = checksum(layout.as_bytes(), &blocks[RECORD_HEADER_BYTES..]).0.into();
    blocks[..RECORD_HEADER_BYTES].copy_from_slice(layout.as_bytes());
}

fn checksum(header: &[u8], body: &[u8]) -> Crc32c {
    Crc32c::of(&header[..CHECKED_BYTES]).append(body)
}

/// A record that is as it was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Record<'a> {
    pub(super) of: Use,
    pub(super) place: RecordPlace,
    pub(super) blocks: u32,
    pub(super) sidecar: &'a [u8],
    pub(super) data: &'a [u8],
}

/// The record that begins at a block of a segment; `None` where there is none that is as it was written.
pub(super) fn decode_record(segment: &[u8], block: u32) -> Option<Record<'_>> {
    let bytes = segment.get(block as usize * BLOCK_BYTES..)?;
    let (layout, _) = RecordLayout::ref_from_prefix(bytes).ok()?;
    let (sidecar_bytes, data_bytes) = (layout.sidecar_bytes.get() as usize, layout.data_bytes.get() as usize);
    if layout.magic != RECORD_MAGIC
        || layout.block.get() != block
        || layout.sequence.get() > SEQUENCE_MAX
        || data_bytes as u64 > SMALL_CHUNK_BYTES_MAX
        || sidecar_bytes != Sidecar::encoded_bytes(data_bytes as u64)
    {
        return None;
    }
    let blocks = record_blocks(sidecar_bytes, data_bytes);
    let bytes = bytes.get(..blocks as usize * BLOCK_BYTES)?;
    if layout.crc.get() != checksum(bytes, &bytes[RECORD_HEADER_BYTES..]).0 {
        return None;
    }
    let (sidecar, rest) = bytes[RECORD_HEADER_BYTES..].split_at(sidecar_bytes);
    Some(Record {
        of: Use { sequence: layout.sequence.get(), salt: layout.salt.get() },
        place: RecordPlace { block, group: layout.group.get() },
        blocks,
        sidecar,
        data: &rest[..data_bytes],
    })
}

#[cfg(test)]
pub(super) mod tests {
    use distrifs_proto::types::{ChunkId, ClusterId, GenerationStamp, block_crcs};

    use super::*;

    const OF: Use = Use { sequence: 7, salt: 0x0123_4567_89ab_cdef };

    /// The sidecar and the data of a chunk.
    pub(in super::super) fn chunk(id: u64, len: usize) -> (Vec<u8>, Vec<u8>) {
        let data: Vec<u8> =
            (0..len as u64).map(|i| (i ^ id).wrapping_mul(0x9e37_79b9).to_le_bytes()[2]).collect();
        let blocks = block_crcs(&data).collect();
        let sidecar = Sidecar::new(ClusterId(0xc1), ChunkId(id), GenerationStamp(1), len as u64, blocks);
        (sidecar.encode(), data)
    }

    fn header() -> (SegmentHeader, Vec<u8>) {
        let header = SegmentHeader { node: NodeId(0xab), of: OF, bytes: 16 << 20 };
        let mut block = vec![0xee; BLOCK_BYTES];
        header.encode(&mut block);
        (header, block)
    }

    fn segment(len: usize) -> (Vec<u8>, Vec<u8>, Vec<u8>) {
        let (sidecar, data) = chunk(5, len);
        let blocks = record_blocks(sidecar.len(), data.len()) as usize;
        let mut segment = vec![0; (1 + blocks) * BLOCK_BYTES];
        let place = RecordPlace { block: 1, group: 1 };
        encode_record(&mut segment[BLOCK_BYTES..], OF, place, &sidecar, &data);
        (segment, sidecar, data)
    }

    #[test]
    fn the_golden_bytes() {
        let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
        let golden = concat!(
            "4446534a524e4c00",
            "01000000",
            "00000000",
            "ab00000000000000",
            "0700000000000000",
            "efcdab8967452301",
            "0000000100000000",
            "000000000000000000000000",
        );
        assert_eq!(hex(&header().1[..60]), golden);
        let golden = concat!(
            "4446534a52454300",
            "0700000000000000",
            "efcdab8967452301",
            "01000000",
            "01000000",
            "84000000",
            "90010000",
            "0000000000000000000000000000000000000000",
        );
        assert_eq!(hex(&segment(400).0[BLOCK_BYTES..BLOCK_BYTES + 60]), golden);
    }

    #[test]
    fn what_was_written_is_read() {
        let (header, block) = header();
        assert_eq!(SegmentHeader::decode(&block), Ok(header));
        for len in [1, 400, 4096, 65_536] {
            let (segment, sidecar, data) = segment(len);
            let record = decode_record(&segment, 1).unwrap();
            assert_eq!((record.of, record.sidecar, record.data), (OF, &sidecar[..], &data[..]));
            assert_eq!((1 + record.blocks) as usize * BLOCK_BYTES, segment.len());
            assert!(record.blocks <= RECORD_BLOCKS_MAX);
        }
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let (_, block) = header();
        let (segment, ..) = segment(400);
        assert_eq!(SegmentHeader::decode(&[0; BLOCK_BYTES]), Err(BadHeader::Zeros));
        for bit in 0..BLOCK_BYTES * 8 {
            let flip = |bytes: &[u8], from: usize| {
                let mut flipped = bytes.to_vec();
                flipped[from + bit / 8] ^= 1 << (bit % 8);
                flipped
            };
            assert_eq!(SegmentHeader::decode(&flip(&block, 0)), Err(BadHeader::Damaged), "bit {bit}");
            assert_eq!(decode_record(&flip(&segment, BLOCK_BYTES), 1), None, "bit {bit}");
        }
        for cut in 0..BLOCK_BYTES {
            assert!(SegmentHeader::decode(&block[..cut]).is_err(), "cut at {cut}");
            assert_eq!(decode_record(&segment[..BLOCK_BYTES + cut], 1), None, "cut at {cut}");
        }
        // The right record at the wrong place.
        let moved = [&[0; BLOCK_BYTES][..], &segment].concat();
        assert_eq!(decode_record(&moved, 2), None);
    }

    #[test]
    fn a_newer_header_is_told_as_such() {
        let (_, mut block) = header();
        block[8] = 2;
        let crc = Crc32c::of(&block[..CHECKED_BYTES]);
        block[CHECKED_BYTES..64].copy_from_slice(&crc.0.to_le_bytes());
        assert_eq!(SegmentHeader::decode(&block), Err(BadHeader::Version(2)));
    }
}
