//! The bytes of a checkpoint on disk; nothing else knows them. All numbers are little-endian.
//!
//! ```text
//! checkpoint-<16 hex digits of its LSN>.ckpt; while it is being written
//! checkpoint-<16 hex digits of its LSN>-<16 hex digits of the writer's epoch>.ckpt.tmp, which no other leader's has
//! +--------------+-----------------+-----------------+- ... -+------------------------+--------------+
//! | header 4 KiB | block 0: 1 MiB  | block 1: 1 MiB  |       | last block, n * 4 KiB  | footer 4 KiB |
//! +--------------+-----------------+-----------------+- ... -+------------------------+--------------+
//! header:  0 magic "DFSCKPT\n"  8 version  12 0  16 cluster id  32 LSN  40 epoch  48 zeros  4092 CRC32C of 0..4092
//! block:   0 magic "DFCB"       4 bytes of payload          8 number from 0 on     16 zeros
//!         28 CRC32C of the header's CRC, of 0..28 and of all behind 32            32 payload, zeros
//! footer:  0 magic "DFCKPEND"   8 count of blocks          16 bytes of payload
//!         24 CRC32C of all the blocks' CRCs in order       28 zeros
//!       4092 CRC32C of the header's CRC and of 0..4092
//! ```
//! Every byte of the file is under some checksum. All blocks but the last are full, and everything starts at a multiple
//! of 4 KiB, so that both sides use O_DIRECT without copying. Since the header's CRC is part of all others, nothing of
//! another checkpoint passes for a part of this one. The header's magic, version and CRC keep their places in every
//! version to come.

use distrifs_proto::limits::BLOCK_BYTES;
use distrifs_proto::types::{ClusterId, Crc32c, Epoch, Lsn};

/// The version of the layout that this code writes, and the newest it reads.
pub(super) const VERSION: u32 = 1;
/// What is written and read at once, and what a full block takes on disk.
pub(super) const PIECE_BYTES: usize = 1 << 20;
/// In front of a block's payload.
pub(super) const BLOCK_HEADER_BYTES: usize = 32;
/// The payload of a full block.
pub const BLOCK_PAYLOAD_MAX: usize = PIECE_BYTES - BLOCK_HEADER_BYTES;
/// The header; the footer has the same.
pub(super) const EDGE_BYTES: usize = BLOCK_BYTES;
/// No LSN is believed beyond it.
pub(super) const LSN_MAX: Lsn = Lsn(1 << 62);

const HEADER_MAGIC: [u8; 8] = *b"DFSCKPT\n";
const BLOCK_MAGIC: [u8; 4] = *b"DFCB";
const FOOTER_MAGIC: [u8; 8] = *b"DFCKPEND";
const BLOCK_CRC_AT: usize = BLOCK_HEADER_BYTES - 4;
const EDGE_CRC_AT: usize = EDGE_BYTES - 4;
const SUFFIX: &str = ".ckpt";
const TEMPORARY_SUFFIX: &str = ".ckpt.tmp";
const _: () = assert!(PIECE_BYTES.is_multiple_of(BLOCK_BYTES));

/// What a checkpoint says about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CheckpointHeader {
    /// Whose state it is.
    pub cluster: ClusterId,
    /// The last record whose effect is in it.
    pub lsn: Lsn,
    /// The leadership that wrote it.
    pub epoch: Epoch,
}

/// Why a header block is not one that this code reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BadHeader {
    /// Not as written, or not ours.
    Damaged,
    /// A version that this code does not know.
    Version(u32),
}

impl CheckpointHeader {
    /// Fills a block, and returns its seal, which is part of every other checksum of the file.
    pub(super) fn encode(&self, block: &mut [u8]) -> Crc32c {
        assert_eq!(block.len(), EDGE_BYTES);
        block.fill(0);
        block[0..8].copy_from_slice(&HEADER_MAGIC);
        block[8..12].copy_from_slice(&VERSION.to_le_bytes());
        block[16..32].copy_from_slice(&self.cluster.0.to_le_bytes());
        block[32..40].copy_from_slice(&self.lsn.0.to_le_bytes());
        block[40..48].copy_from_slice(&self.epoch.0.to_le_bytes());
        let seal = Crc32c::of(&block[..EDGE_CRC_AT]);
        block[EDGE_CRC_AT..].copy_from_slice(&seal.0.to_le_bytes());
        seal
    }

    /// The header in a block, and its seal.
    pub(super) fn decode(block: &[u8]) -> Result<(Self, Crc32c), BadHeader> {
        assert_eq!(block.len(), EDGE_BYTES);
        let seal = Crc32c::of(&block[..EDGE_CRC_AT]);
        if block[0..8] != HEADER_MAGIC || u32_at(block, EDGE_CRC_AT) != seal.0 {
            return Err(BadHeader::Damaged);
        }
        let version = u32_at(block, 8);
        if version > VERSION {
            return Err(BadHeader::Version(version));
        }
        let mut cluster = [0; 16];
        cluster.copy_from_slice(&block[16..32]);
        let lsn = Lsn(u64_at(block, 32));
        if version != VERSION || lsn > LSN_MAX {
            return Err(BadHeader::Damaged);
        }
        let (cluster, epoch) = (ClusterId(u128::from_le_bytes(cluster)), Epoch(u64_at(block, 40)));
        Ok((Self { cluster, lsn, epoch }, seal))
    }
}

/// What a block with this much payload takes on disk.
pub(super) fn block_bytes(payload: usize) -> usize {
    (BLOCK_HEADER_BYTES + payload).next_multiple_of(BLOCK_BYTES)
}

fn block_crc(seal: Crc32c, block: &[u8]) -> Crc32c {
    let head = Crc32c::of(&seal.0.to_le_bytes()).append(&block[..BLOCK_CRC_AT]);
    head.append(&block[BLOCK_HEADER_BYTES..])
}

/// Puts header and padding around the payload that stands in `block` from [`BLOCK_HEADER_BYTES`] on; `block` is what
/// [`block_bytes`] says. Returns the block's CRC.
pub(super) fn seal_block(block: &mut [u8], payload: usize, number: u64, seal: Crc32c) -> Crc32c {
    assert_eq!(block.len(), block_bytes(payload));
    let length = u32::try_from(payload).expect("a block is far below 4 GiB");
    block[..BLOCK_HEADER_BYTES].fill(0);
    block[0..4].copy_from_slice(&BLOCK_MAGIC);
    block[4..8].copy_from_slice(&length.to_le_bytes());
    block[8..16].copy_from_slice(&number.to_le_bytes());
    block[BLOCK_HEADER_BYTES + payload..].fill(0);
    let crc = block_crc(seal, block);
    block[BLOCK_CRC_AT..BLOCK_HEADER_BYTES].copy_from_slice(&crc.0.to_le_bytes());
    crc
}

/// A block whose checksum is right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Block {
    pub(super) payload: usize,
    pub(super) number: u64,
    pub(super) crc: Crc32c,
}

/// The block that fills `block`; `None` when it is not as written.
pub(super) fn open_block(block: &[u8], seal: Crc32c) -> Option<Block> {
    if block.len() < BLOCK_HEADER_BYTES || block[0..4] != BLOCK_MAGIC {
        return None;
    }
    let crc = Crc32c(u32_at(block, BLOCK_CRC_AT));
    let payload = u32_at(block, 4) as usize;
    let whole = crc == block_crc(seal, block) && payload > 0 && block_bytes(payload) == block.len();
    whole.then(|| Block { payload, number: u64_at(block, 8), crc })
}

/// The sums over all blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Sums {
    pub(super) blocks: u64,
    pub(super) payload: u64,
    crc: Crc32c,
}

impl Sums {
    /// Counts the next block.
    pub(super) fn add(&mut self, payload: usize, crc: Crc32c) {
        self.blocks += 1;
        self.payload += payload as u64;
        self.crc = self.crc.append(&crc.0.to_le_bytes());
    }

    /// The footer that says so.
    pub(super) fn encode(&self, seal: Crc32c, block: &mut [u8]) {
        assert_eq!(block.len(), EDGE_BYTES);
        block.fill(0);
        block[0..8].copy_from_slice(&FOOTER_MAGIC);
        block[8..16].copy_from_slice(&self.blocks.to_le_bytes());
        block[16..24].copy_from_slice(&self.payload.to_le_bytes());
        block[24..28].copy_from_slice(&self.crc.0.to_le_bytes());
        let crc = Crc32c::of(&seal.0.to_le_bytes()).append(&block[..EDGE_CRC_AT]);
        block[EDGE_CRC_AT..].copy_from_slice(&crc.0.to_le_bytes());
    }

    /// The sums in a footer; `None` when it is not one, or not as written.
    pub(super) fn decode(seal: Crc32c, block: &[u8]) -> Option<Self> {
        assert_eq!(block.len(), EDGE_BYTES);
        let crc = Crc32c::of(&seal.0.to_le_bytes()).append(&block[..EDGE_CRC_AT]);
        if block[0..8] != FOOTER_MAGIC || u32_at(block, EDGE_CRC_AT) != crc.0 {
            return None;
        }
        Some(Self { blocks: u64_at(block, 8), payload: u64_at(block, 16), crc: Crc32c(u32_at(block, 24)) })
    }
}

/// The name of the finished file.
pub(super) fn checkpoint_name(lsn: Lsn) -> String {
    format!("checkpoint-{:016x}{SUFFIX}", lsn.0)
}

/// The name while it is being written. A leader that was replaced may go on writing its own, so no two share one.
pub(super) fn temporary_name(lsn: Lsn, epoch: Epoch) -> String {
    format!("checkpoint-{:016x}-{:016x}{TEMPORARY_SUFFIX}", lsn.0, epoch.0)
}

/// The LSN in the name of a finished file; `None` for any other name.
pub(super) fn name_lsn(name: &str) -> Option<Lsn> {
    let digits = name.strip_prefix("checkpoint-")?.strip_suffix(SUFFIX)?;
    let lsn = Lsn(u64::from_str_radix(digits, 16).ok()?);
    (lsn <= LSN_MAX && checkpoint_name(lsn) == name).then_some(lsn)
}

/// Whether it is the name of an unfinished file that a leader of this epoch may remove: not of a newer leader. Those
/// without an epoch are of a version before, and nobody writes them any more.
pub(super) fn is_abandoned(name: &str, epoch: Epoch) -> bool {
    let middle = name.strip_prefix("checkpoint-").and_then(|name| name.strip_suffix(TEMPORARY_SUFFIX));
    let Some(middle) = middle else { return false };
    let writer = middle.split_once('-').and_then(|(_, digits)| u64::from_str_radix(digits, 16).ok());
    writer.is_none_or(|writer| Epoch(writer) <= epoch)
}

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

#[cfg(test)]
mod tests {
    use distrifs_proto::types::{ClusterId, Crc32c, Epoch, Lsn};

    use super::{
        BadHeader, Block, CheckpointHeader, EDGE_BYTES, Sums, block_bytes, checkpoint_name, is_abandoned,
        name_lsn, open_block, seal_block, temporary_name,
    };

    const HEADER: CheckpointHeader = CheckpointHeader {
        cluster: ClusterId(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff),
        lsn: Lsn(0x1234),
        epoch: Epoch(7),
    };

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn the_bytes_are_these_and_stay_so() {
        let mut block = vec![0xee; EDGE_BYTES];
        let seal = HEADER.encode(&mut block);
        let header = "44465343 4b50540a 01000000 00000000 ffeeddcc bbaa9988 77665544 33221100 \
                      34120000 00000000 07000000 00000000";
        assert_eq!(hex(&block[..48]), header.replace(' ', ""));
        assert!(block[48..4092].iter().all(|byte| *byte == 0));
        assert_eq!(hex(&block[4092..]), hex(&seal.0.to_le_bytes()));
        assert_eq!(seal, Crc32c::of(&block[..4092]));

        block.fill(0xee);
        block[32..35].copy_from_slice(b"abc");
        let crc = seal_block(&mut block, 3, 5, seal);
        assert_eq!(hex(&block[..28]), "44464342030000000500000000000000000000000000000000000000");
        assert_eq!((&block[32..35], hex(&block[28..32])), (&b"abc"[..], hex(&crc.0.to_le_bytes())));
        assert!(block[35..].iter().all(|byte| *byte == 0));

        let mut sums = Sums::default();
        sums.add(3, crc);
        sums.encode(seal, &mut block);
        assert_eq!(hex(&block[..24]), "4446434b50454e4401000000000000000300000000000000");
        assert_eq!(hex(&block[24..28]), hex(&Crc32c::of(&crc.0.to_le_bytes()).0.to_le_bytes()));
        assert!(block[28..4092].iter().all(|byte| *byte == 0));
        assert_eq!(golden(), "ad8d9329 4b6339cc cc8e2cc4");
    }

    /// The checksums of the three kinds of blocks.
    fn golden() -> String {
        let mut block = vec![0; EDGE_BYTES];
        let seal = HEADER.encode(&mut block);
        block.fill(0);
        block[32..35].copy_from_slice(b"abc");
        let crc = seal_block(&mut block, 3, 5, seal);
        let mut sums = Sums::default();
        sums.add(3, crc);
        sums.encode(seal, &mut block);
        format!("{:08x} {:08x} {}", seal.0, crc.0, hex(&block[4092..]))
    }

    #[test]
    fn everything_survives_the_way_through_bytes_and_no_flipped_bit_does() {
        let mut block = vec![0; EDGE_BYTES];
        let seal = HEADER.encode(&mut block);
        assert_eq!(CheckpointHeader::decode(&block), Ok((HEADER, seal)));
        for bit in 0..EDGE_BYTES * 8 {
            block[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(CheckpointHeader::decode(&block), Err(BadHeader::Damaged), "bit {bit}");
            block[bit / 8] ^= 1 << (bit % 8);
        }
        let crc = seal_block(&mut block, 4000, 9, seal);
        assert_eq!(open_block(&block, seal), Some(Block { payload: 4000, number: 9, crc }));
        assert_eq!(open_block(&block, Crc32c(seal.0 ^ 1)), None, "a block of another file");
        for bit in 0..EDGE_BYTES * 8 {
            block[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(open_block(&block, seal), None, "bit {bit}");
            block[bit / 8] ^= 1 << (bit % 8);
        }
        let mut sums = Sums::default();
        sums.add(4000, crc);
        sums.encode(seal, &mut block);
        assert_eq!(Sums::decode(seal, &block), Some(sums));
        for bit in 0..EDGE_BYTES * 8 {
            block[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Sums::decode(seal, &block), None, "bit {bit}");
            block[bit / 8] ^= 1 << (bit % 8);
        }
    }

    #[test]
    fn a_newer_version_is_told_from_damage() {
        let mut block = vec![0; EDGE_BYTES];
        HEADER.encode(&mut block);
        block[8] = 2;
        let crc = Crc32c::of(&block[..4092]);
        block[4092..].copy_from_slice(&crc.0.to_le_bytes());
        assert_eq!(CheckpointHeader::decode(&block), Err(BadHeader::Version(2)));
    }

    #[test]
    fn a_block_takes_whole_pages() {
        let cases = [(1, 4096), (4064, 4096), (4065, 8192), (super::BLOCK_PAYLOAD_MAX, super::PIECE_BYTES)];
        for (payload, bytes) in cases {
            assert_eq!(block_bytes(payload), bytes, "{payload}");
        }
    }

    #[test]
    fn names_and_lsns_are_one_to_one() {
        for lsn in [Lsn(0), Lsn(1), Lsn(0xabc), Lsn(1 << 62)] {
            assert_eq!(name_lsn(&checkpoint_name(lsn)), Some(lsn));
            assert!(!is_abandoned(&checkpoint_name(lsn), Epoch(u64::MAX)));
            for epoch in [0, 1, 0xabc, u64::MAX] {
                let name = temporary_name(lsn, Epoch(epoch));
                assert_eq!(name_lsn(&name), None);
                for by in [0, 1, 2, 0xabb, 0xabc, u64::MAX] {
                    assert_eq!(is_abandoned(&name, Epoch(by)), epoch <= by, "{name} by {by}");
                }
            }
        }
        for name in [
            "checkpoint-1.ckpt",
            "checkpoint-000000000000000A.ckpt",
            "checkpoint-ffffffffffffffff.ckpt",
            "wal-0000000000000001.log.tmp",
        ] {
            assert_eq!((name_lsn(name), is_abandoned(name, Epoch(u64::MAX))), (None, false), "{name}");
        }
        assert!(is_abandoned("checkpoint-0000000000000009.ckpt.tmp", Epoch(0)), "of a version before");
    }
}
