//! The bytes of a checkpoint's file; nothing else knows them. All numbers are little-endian.
//!
//! ```text
//! checkpoint-<16 hex digits of the LSN>.ckpt
//! header  4096 bytes:  0 crc | 4 version = 1 | 8 magic "DFSCKPT\n" | 16 cluster id | 32 LSN | 40 epoch | zeros
//! block   0 crc | 4 bytes of payload | 8 number from 0 on | 16 payload | zeros up to a multiple of 4096
//! footer  4096 bytes:  0 crc | 4 0xffffffff | 8 count of blocks | 16 bytes of payload of all | 24 LSN
//!                      | 32 CRC32C of the crcs of all blocks | zeros
//! ```
//! A crc is the CRC32C of everything behind it in its header, block (padding included) or footer. All blocks but
//! the last are of [`BLOCK_UNIT_BYTES`].

use distrifs_proto::limits::BLOCK_BYTES;
use distrifs_proto::types::{ClusterId, Crc32c, Epoch, Lsn};

pub(super) const VERSION: u32 = 1;
/// The length of a full block, with its header.
pub(super) const BLOCK_UNIT_BYTES: usize = 1 << 20;
pub(super) const BLOCK_HEADER_BYTES: usize = 16;
/// The payload of a full block.
pub(super) const PAYLOAD_BYTES_MAX: usize = BLOCK_UNIT_BYTES - BLOCK_HEADER_BYTES;
/// The end of the names of unfinished checkpoints.
pub(super) const TEMPORARY_SUFFIX: &str = ".ckpt.tmp";

const MAGIC: [u8; 8] = *b"DFSCKPT\n";
/// In the place of a length: the footer.
const FOOTER: u32 = u32::MAX;
const NAME_PREFIX: &str = "checkpoint-";
const NAME_SUFFIX: &str = ".ckpt";

/// What a checkpoint says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Of which cluster.
    pub cluster: ClusterId,
    /// The position of the log that it shows.
    pub lsn: Lsn,
    /// The leadership that wrote it.
    pub epoch: Epoch,
}

/// What stands at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Footer {
    pub(super) blocks: u64,
    pub(super) payload: u64,
    pub(super) lsn: Lsn,
    pub(super) crc_of_crcs: Crc32c,
}

/// What a header is that is not ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BadHeader {
    Version(u32),
    Damaged(&'static str),
}

/// One piece of the file behind the header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Piece {
    /// A block whose payload has this length; with its crc.
    Block { payload: usize, crc: Crc32c },
    /// The end.
    Footer(Footer),
}

pub(super) fn checkpoint_name(lsn: Lsn) -> String {
    format!("{NAME_PREFIX}{:016x}{NAME_SUFFIX}", lsn.0)
}

/// The LSN that a file's name says, if it is the name of a finished checkpoint.
pub(super) fn checkpoint_lsn(name: &str) -> Option<Lsn> {
    let digits = name.strip_prefix(NAME_PREFIX)?.strip_suffix(NAME_SUFFIX)?;
    let hex = digits.len() == 16 && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    u64::from_str_radix(digits, 16).ok().filter(|_| hex).map(Lsn)
}

/// Bytes that a block of this payload takes.
pub(super) fn unit(payload: usize) -> usize {
    (BLOCK_HEADER_BYTES + payload).next_multiple_of(BLOCK_BYTES)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap_or_default())
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap_or_default())
}

fn seal(bytes: &mut [u8]) -> Crc32c {
    let crc = Crc32c::of(&bytes[4..]);
    bytes[..4].copy_from_slice(&crc.0.to_le_bytes());
    crc
}

fn is_sealed(bytes: &[u8]) -> bool {
    Crc32c::of(&bytes[4..]).0 == u32_at(bytes, 0)
}

/// Fills `out`, of [`BLOCK_BYTES`] zeros.
pub(super) fn encode_header(header: &Header, out: &mut [u8]) {
    out[4..8].copy_from_slice(&VERSION.to_le_bytes());
    out[8..16].copy_from_slice(&MAGIC);
    out[16..32].copy_from_slice(&header.cluster.0.to_le_bytes());
    out[32..40].copy_from_slice(&header.lsn.0.to_le_bytes());
    out[40..48].copy_from_slice(&header.epoch.0.to_le_bytes());
    seal(out);
}

pub(super) fn decode_header(bytes: &[u8]) -> Result<Header, BadHeader> {
    if bytes.len() != BLOCK_BYTES {
        return Err(BadHeader::Damaged("the file is shorter than its header"));
    }
    if bytes[8..16] != MAGIC {
        return Err(BadHeader::Damaged("not a checkpoint"));
    }
    if !is_sealed(bytes) {
        return Err(BadHeader::Damaged("the header fails its checksum"));
    }
    match u32_at(bytes, 4) {
        VERSION => {}
        found if found > VERSION => return Err(BadHeader::Version(found)),
        _ => return Err(BadHeader::Damaged("the version is 0")),
    }
    let cluster = u128::from_le_bytes(bytes[16..32].try_into().unwrap_or_default());
    let (lsn, epoch) = (Lsn(u64_at(bytes, 32)), Epoch(u64_at(bytes, 40)));
    Ok(Header { cluster: ClusterId(cluster), lsn, epoch })
}

/// Puts the header of block `number` in front of the payload that is there, in `out`, of [`unit`] bytes.
pub(super) fn encode_block(number: u64, payload: usize, out: &mut [u8]) -> Crc32c {
    out[4..8].copy_from_slice(&(payload as u32).to_le_bytes());
    out[8..16].copy_from_slice(&number.to_le_bytes());
    seal(out)
}

/// Fills `out`, of [`BLOCK_BYTES`] zeros.
pub(super) fn encode_footer(footer: &Footer, out: &mut [u8]) {
    out[4..8].copy_from_slice(&FOOTER.to_le_bytes());
    out[8..16].copy_from_slice(&footer.blocks.to_le_bytes());
    out[16..24].copy_from_slice(&footer.payload.to_le_bytes());
    out[24..32].copy_from_slice(&footer.lsn.0.to_le_bytes());
    out[32..36].copy_from_slice(&footer.crc_of_crcs.0.to_le_bytes());
    seal(out);
}

/// What `bytes`, up to [`BLOCK_UNIT_BYTES`] from where piece `number` begins, begins with.
pub(super) fn decode_piece(bytes: &[u8], number: u64) -> Result<Piece, &'static str> {
    if bytes.len() < BLOCK_BYTES {
        return Err("the file ends too early");
    }
    let payload = u32_at(bytes, 4);
    let end = if payload == FOOTER { BLOCK_BYTES } else { unit(payload as usize) };
    if payload != FOOTER && payload as usize > PAYLOAD_BYTES_MAX {
        return Err("a length beyond every bound");
    }
    let Some(piece) = bytes.get(..end) else {
        return Err("the file ends too early");
    };
    if !is_sealed(piece) {
        return Err("a block fails its checksum");
    }
    if payload == FOOTER {
        return Ok(Piece::Footer(Footer {
            blocks: u64_at(piece, 8),
            payload: u64_at(piece, 16),
            lsn: Lsn(u64_at(piece, 24)),
            crc_of_crcs: Crc32c(u32_at(piece, 32)),
        }));
    }
    if u64_at(piece, 8) != number {
        return Err("a block in the wrong place");
    }
    Ok(Piece::Block { payload: payload as usize, crc: Crc32c(u32_at(piece, 0)) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_the_position() {
        assert_eq!(checkpoint_name(Lsn(0xab)), "checkpoint-00000000000000ab.ckpt");
        let cases = [
            ("checkpoint-00000000000000ab.ckpt", Some(Lsn(0xab))),
            ("checkpoint-00000000000000AB.ckpt", None),
            ("checkpoint-ab.ckpt", None),
            ("checkpoint-00000000000000ab.ckpt.tmp", None),
            ("wal-00000000000000ab.log", None),
        ];
        for (name, lsn) in cases {
            assert_eq!(checkpoint_lsn(name), lsn, "{name}");
        }
    }

    #[test]
    fn the_bytes_of_version_1() {
        let mut header = vec![0; BLOCK_BYTES];
        let facts = Header { cluster: ClusterId(0x0102), lsn: Lsn(3), epoch: Epoch(4) };
        encode_header(&facts, &mut header);
        assert_eq!(header[4..16], *b"\x01\0\0\0DFSCKPT\n");
        assert_eq!((header[16], header[17], header[32], header[40]), (2, 1, 3, 4));
        assert_eq!(header[..4], Crc32c::of(&header[4..]).0.to_le_bytes());
        assert_eq!(decode_header(&header), Ok(facts));
        let mut block = vec![0; unit(5)];
        block[16..21].copy_from_slice(b"bytes");
        let crc = encode_block(7, 5, &mut block);
        assert_eq!(block[4..21], *b"\x05\0\0\0\x07\0\0\0\0\0\0\0bytes");
        assert_eq!(decode_piece(&block, 7), Ok(Piece::Block { payload: 5, crc }));
        assert!(decode_piece(&block, 8).is_err(), "in a wrong place");
        let footer = Footer { blocks: 8, payload: 9, lsn: Lsn(3), crc_of_crcs: Crc32c(6) };
        let mut bytes = vec![0; BLOCK_BYTES];
        encode_footer(&footer, &mut bytes);
        assert_eq!(bytes[4..9], *b"\xff\xff\xff\xff\x08");
        assert_eq!(decode_piece(&bytes, 8), Ok(Piece::Footer(footer)));
    }

    #[test]
    fn a_newer_version_is_told_from_damage() {
        let mut header = vec![0; BLOCK_BYTES];
        encode_header(&Header { cluster: ClusterId(1), lsn: Lsn(1), epoch: Epoch(1) }, &mut header);
        header[4] = 2;
        assert_eq!(decode_header(&header), Err(BadHeader::Damaged("the header fails its checksum")));
        seal(&mut header);
        assert_eq!(decode_header(&header), Err(BadHeader::Version(2)));
    }
}
