//! A segment's name and its header block.
//!
//! ```text
//!  0  magic "DFSWAL\r\n"   8  version           12  0             16  cluster id
//! 32  sequence            40  first LSN         48  epoch         56  salt
//! 64  bytes of the segment 72  seal of the group before its first (0 at the very first)
//! ```
//! The header block is laid out in sectors like a group, with salt 0, since its own salt is not known before
//! it is read. The magic and the version keep their places in every version to come.

use distrifs_proto::types::{ClusterId, Crc32c, Epoch, Lsn};

use super::super::limits::LSN_MAX;
use super::{BLOCK_BYTES, VERSION, gather, spread, u32_at, u64_at, u128_at};

const MAGIC: [u8; 8] = *b"DFSWAL\r\n";
const HEADER_BYTES: usize = 76;

/// The facts in a segment's header, written when the segment comes into use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) cluster: ClusterId,
    pub(crate) sequence: u64,
    pub(crate) first_lsn: Lsn,
    pub(crate) epoch: Epoch,
    pub(crate) salt: u64,
    pub(crate) bytes: u64,
    pub(crate) previous: Crc32c,
}

/// Why a header block, all of whose sectors are as written, is not one of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BadHeader {
    /// Another magic.
    Magic,
    /// A version that this code does not know.
    Version(u32),
}

impl SegmentHeader {
    /// The header block.
    pub(crate) fn encode(&self, block: &mut [u8]) {
        assert_eq!(block.len(), BLOCK_BYTES);
        let mut out = [0; HEADER_BYTES];
        out[0..8].copy_from_slice(&MAGIC);
        out[8..12].copy_from_slice(&VERSION.to_le_bytes());
        out[16..32].copy_from_slice(&self.cluster.0.to_le_bytes());
        out[32..40].copy_from_slice(&self.sequence.to_le_bytes());
        out[40..48].copy_from_slice(&self.first_lsn.0.to_le_bytes());
        out[48..56].copy_from_slice(&self.epoch.0.to_le_bytes());
        out[56..64].copy_from_slice(&self.salt.to_le_bytes());
        out[64..72].copy_from_slice(&self.bytes.to_le_bytes());
        out[72..76].copy_from_slice(&self.previous.0.to_le_bytes());
        spread(&out, 0, 0, block);
    }

    /// The header in a block whose sectors were judged before.
    pub(crate) fn decode(block: &[u8]) -> Result<Self, BadHeader> {
        let stream = gather(block);
        if stream.len() < HEADER_BYTES || stream[0..8] != MAGIC {
            return Err(BadHeader::Magic);
        }
        let version = u32_at(&stream, 8);
        if version != VERSION {
            return Err(BadHeader::Version(version));
        }
        Ok(Self {
            cluster: ClusterId(u128_at(&stream, 16)),
            sequence: u64_at(&stream, 32),
            first_lsn: Lsn(u64_at(&stream, 40)),
            epoch: Epoch(u64_at(&stream, 48)),
            salt: u64_at(&stream, 56),
            bytes: u64_at(&stream, 64),
            previous: Crc32c(u32_at(&stream, 72)),
        })
    }
}

/// The file name of a segment.
pub(crate) fn segment_name(sequence: u64) -> String {
    format!("wal-{sequence:016x}.log")
}

/// The sequence in a segment's file name, from 1 on; `None` for any other name.
pub(crate) fn segment_sequence(name: &str) -> Option<u64> {
    let digits = name.strip_prefix("wal-")?.strip_suffix(".log")?;
    let sequence = u64::from_str_radix(digits, 16).ok()?;
    let sane = (1..=LSN_MAX.0).contains(&sequence);
    (sane && segment_name(sequence) == name).then_some(sequence)
}

#[cfg(test)]
mod tests {
    use distrifs_proto::types::{ClusterId, Crc32c, Epoch, Lsn};

    use super::super::{BLOCK_BYTES, GroupHeader, SECTOR_BYTES, encode_group, spread};
    use super::{BadHeader, SegmentHeader, segment_name, segment_sequence};

    fn header() -> SegmentHeader {
        SegmentHeader {
            cluster: ClusterId(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff),
            sequence: 2,
            first_lsn: Lsn(1000),
            epoch: Epoch(7),
            salt: 0x0123_4567_89ab_cdef,
            bytes: 16 << 20,
            previous: Crc32c(0xcafe_f00d),
        }
    }

    #[test]
    fn a_header_survives_the_way_through_bytes() {
        let mut block = vec![0; BLOCK_BYTES];
        header().encode(&mut block);
        assert_eq!(SegmentHeader::decode(&block), Ok(header()));
        block[0] ^= 1;
        assert_eq!(SegmentHeader::decode(&block), Err(BadHeader::Magic));
        block[0] ^= 1;
        block[8] = 9;
        assert_eq!(SegmentHeader::decode(&block), Err(BadHeader::Version(9)));
    }

    #[test]
    fn names_and_sequences_are_one_to_one() {
        for sequence in [1, 2, 0xabc, 1 << 62] {
            assert_eq!(segment_sequence(&segment_name(sequence)), Some(sequence));
        }
        for name in [
            "wal-1.log",
            "wal-000000000000000A.log",
            "wal-0000000000000001.log.tmp",
            "wal-+000000000000001.log",
            "witness",
            "wal-0000000000000000.log",
            "wal-ffffffffffffffff.log",
        ] {
            assert_eq!(segment_sequence(name), None, "{name}");
        }
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The layout of version 1, byte for byte: a change here needs a new version.
    #[test]
    fn golden_segment_header_and_group() {
        let mut block = vec![0; BLOCK_BYTES];
        header().encode(&mut block);
        assert_eq!(hex(&block[..76]), GOLDEN_HEADER);
        assert_eq!(hex(&block[SECTOR_BYTES - 8..SECTOR_BYTES]), GOLDEN_HEADER_SECTOR_0);
        assert_eq!(hex(&block[BLOCK_BYTES - 8..]), GOLDEN_HEADER_SECTOR_7);

        let facts = GroupHeader {
            count: 0,
            salt: header().salt,
            first_lsn: Lsn(1000),
            epoch: Epoch(7),
            body_len: 0,
            previous: Crc32c(0xcafe_f00d),
            body_crc: Crc32c(0),
        };
        let mut stream = Vec::new();
        let seal = encode_group(facts, [&b"mkdir /a"[..], &b""[..]].into_iter(), &mut stream);
        spread(&stream, header().salt, 8, &mut block);
        assert_eq!(hex(&block[..64]), GOLDEN_GROUP);
        assert_eq!(hex(&block[SECTOR_BYTES - 8..SECTOR_BYTES]), GOLDEN_GROUP_SECTOR_0);
        assert_eq!(hex(&seal.0.to_le_bytes()), GOLDEN_GROUP[88..96]);
    }

    const GOLDEN_HEADER: &str = concat!(
        "44465357414c0d0a0100000000000000ffeeddccbbaa99887766554433221100",
        "0200000000000000e8030000000000000700000000000000efcdab8967452301",
        "00000001000000000df0feca",
    );
    const GOLDEN_HEADER_SECTOR_0: &str = "000000003b537960";
    const GOLDEN_HEADER_SECTOR_7: &str = "0700000053015ebe";
    const GOLDEN_GROUP: &str = concat!(
        "4446574702000000efcdab8967452301e8030000000000000700000000000000",
        "100000000df0feca6978010329a9be34080000006d6b646972202f6100000000",
    );
    const GOLDEN_GROUP_SECTOR_0: &str = "00000000c364d1ba";
}
