//! The sidecar: what a chunk's data file must be. All numbers little-endian.
//!
//! ```text
//!   0 magic "DFSMETA\0"   8 version (4)   12 block size (4)   16 cluster id (16)   32 chunk id (8)
//!  40 generation (8)     48 length (8)    56 chunk CRC (4)    60 CRC of the table (4)
//!  64 zeros, for later versions          124 CRC of bytes 0..124 (4)
//! 128 CRC32C of each 4 KiB block (4 each)
//! ```
//!
//! The header can be read and checked alone: the inventory at start reads no table.

use distrifs_proto::limits::{BLOCK_BYTES, CHUNK_BYTES_MAX};
use distrifs_proto::types::{ChunkId, ClusterId, Crc32c, GenerationStamp};
use zerocopy::byteorder::little_endian::{U32, U64, U128};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::ReplicaInfo;

/// Bytes before the table.
pub const SIDECAR_HEADER_BYTES: usize = 128;
const MAGIC: [u8; 8] = *b"DFSMETA\0";
const VERSION: u32 = 1;
const CHECKED_BYTES: usize = 124;

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Layout {
    magic: [u8; 8],
    version: U32,
    block_bytes: U32,
    cluster: U128,
    chunk: U64,
    generation: U64,
    length: U64,
    chunk_crc: U32,
    table_crc: U32,
    reserved: [u8; 60],
    header_crc: U32,
}

const _: () = assert!(size_of::<Layout>() == SIDECAR_HEADER_BYTES);
const _: () = assert!(std::mem::offset_of!(Layout, header_crc) == CHECKED_BYTES);

/// The first part of a sidecar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SidecarHeader {
    /// Whose chunk.
    pub cluster: ClusterId,
    /// Which chunk: a well-formed chunk in the wrong place fails.
    pub chunk: ChunkId,
    /// Its version.
    pub generation: GenerationStamp,
    /// Bytes of the data file.
    pub length: u64,
    /// Of all its bytes.
    pub crc: Crc32c,
    table_crc: Crc32c,
}

impl SidecarHeader {
    /// As reports tell it.
    #[must_use]
    pub fn replica(&self) -> ReplicaInfo {
        ReplicaInfo { chunk: self.chunk, generation: self.generation, length: self.length, crc: self.crc }
    }

    /// From the first [`SIDECAR_HEADER_BYTES`] of a sidecar.
    ///
    /// # Errors
    /// What is wrong with it, for the log.
    pub fn decode(bytes: &[u8]) -> Result<Self, String> {
        let Ok((layout, _)) = Layout::ref_from_prefix(bytes) else {
            return Err(format!(
                "sidecar of {} bytes: its header alone has {SIDECAR_HEADER_BYTES}",
                bytes.len()
            ));
        };
        if layout.magic != MAGIC {
            return Err("not a sidecar: wrong magic".into());
        }
        let (expected, got) = (Crc32c(layout.header_crc.get()), Crc32c::of(&bytes[..CHECKED_BYTES]));
        if expected != got {
            return Err(format!("sidecar header checksum: expected {expected}, got {got}"));
        }
        if layout.version.get() != VERSION || layout.block_bytes.get() as usize != BLOCK_BYTES {
            let (version, block) = (layout.version.get(), layout.block_bytes.get());
            return Err(format!(
                "sidecar version {version} with blocks of {block} bytes: a newer DistriFS wrote it"
            ));
        }
        let length = layout.length.get();
        if length == 0 || length > CHUNK_BYTES_MAX {
            return Err(format!("sidecar says {length} bytes"));
        }
        Ok(Self {
            cluster: ClusterId(layout.cluster.get()),
            chunk: ChunkId(layout.chunk.get()),
            generation: GenerationStamp(layout.generation.get()),
            length,
            crc: Crc32c(layout.chunk_crc.get()),
            table_crc: Crc32c(layout.table_crc.get()),
        })
    }
}

/// A whole sidecar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sidecar {
    header: SidecarHeader,
    blocks: Vec<Crc32c>,
}

impl Sidecar {
    /// Of a chunk of `length` bytes whose blocks have these checksums; the chunk's own is composed from them.
    ///
    /// # Panics
    /// When the number of blocks is not that of `length`: the caller's mistake.
    #[must_use]
    pub fn new(
        cluster: ClusterId,
        chunk: ChunkId,
        generation: GenerationStamp,
        length: u64,
        blocks: Vec<Crc32c>,
    ) -> Self {
        let crc = Crc32c::of_blocks(blocks.iter().copied(), length);
        let table_crc = Crc32c::of(&table_bytes(&blocks));
        Self { header: SidecarHeader { cluster, chunk, generation, length, crc, table_crc }, blocks }
    }

    /// Its header.
    #[must_use]
    pub fn header(&self) -> &SidecarHeader {
        &self.header
    }

    /// The checksums of the chunk's blocks, in order.
    #[must_use]
    pub fn blocks(&self) -> &[Crc32c] {
        &self.blocks
    }

    /// The bytes on the disk.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let h = &self.header;
        let mut layout = Layout {
            magic: MAGIC,
            version: VERSION.into(),
            block_bytes: (BLOCK_BYTES as u32).into(),
            cluster: h.cluster.0.into(),
            chunk: h.chunk.0.into(),
            generation: h.generation.0.into(),
            length: h.length.into(),
            chunk_crc: h.crc.0.into(),
            table_crc: h.table_crc.0.into(),
            reserved: [0; 60],
            header_crc: 0.into(),
        };
        layout.header_crc = Crc32c::of(&layout.as_bytes()[..CHECKED_BYTES]).0.into();
        [layout.as_bytes(), &table_bytes(&self.blocks)].concat()
    }

    /// From the bytes on the disk.
    ///
    /// # Errors
    /// What is wrong with it, for the log.
    pub fn decode(bytes: &[u8]) -> Result<Self, String> {
        let header = SidecarHeader::decode(bytes)?;
        let table = &bytes[SIDECAR_HEADER_BYTES..];
        let blocks = header.length.div_ceil(BLOCK_BYTES as u64);
        if table.len() as u64 != blocks * 4 {
            return Err(format!("sidecar table of {} bytes for {blocks} blocks", table.len()));
        }
        let got = Crc32c::of(table);
        if got != header.table_crc {
            return Err(format!("sidecar table checksum: expected {}, got {got}", header.table_crc));
        }
        let (entries, _) = table.as_chunks::<4>();
        let blocks: Vec<_> = entries.iter().map(|e| Crc32c(u32::from_le_bytes(*e))).collect();
        Ok(Self { header, blocks })
    }

    /// Bytes of the sidecar of a chunk of `length` bytes.
    #[must_use]
    pub const fn encoded_bytes(length: u64) -> usize {
        SIDECAR_HEADER_BYTES + length.div_ceil(BLOCK_BYTES as u64) as usize * 4
    }
}

fn table_bytes(blocks: &[Crc32c]) -> Vec<u8> {
    blocks.iter().flat_map(|crc| crc.0.to_le_bytes()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use distrifs_proto::types::block_crcs;

    fn sample() -> Sidecar {
        let bytes = vec![7; 5000];
        let blocks = block_crcs(&bytes).collect();
        Sidecar::new(ClusterId(0xc1), ChunkId(0xab), GenerationStamp(3), 5000, blocks)
    }

    #[test]
    fn a_sidecar_survives_its_bytes_and_composes_the_chunk_checksum() {
        let sidecar = sample();
        let bytes = sidecar.encode();
        assert_eq!(bytes.len(), Sidecar::encoded_bytes(5000));
        assert_eq!(Sidecar::decode(&bytes), Ok(sidecar.clone()));
        assert_eq!(SidecarHeader::decode(&bytes[..SIDECAR_HEADER_BYTES]), Ok(*sidecar.header()));
        assert_eq!(sidecar.header().crc, Crc32c::of(&[7; 5000]));
    }

    #[test]
    fn the_golden_sidecar() {
        let hex: String = sample().encode()[..56].iter().map(|b| format!("{b:02x}")).collect();
        let golden = concat!(
            "4446534d45544100",
            "01000000",
            "00100000",
            "c1000000000000000000000000000000",
            "ab00000000000000",
            "0300000000000000",
            "8813000000000000",
        );
        assert_eq!(hex, golden);
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let bytes = sample().encode();
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(Sidecar::decode(&flipped).is_err(), "bit {bit} went unnoticed");
        }
        for cut in 0..bytes.len() {
            assert!(Sidecar::decode(&bytes[..cut]).is_err(), "cut at {cut} went unnoticed");
        }
    }
}
