//! A group: the records of one write.
//!
//! ```text
//!  0  magic "DFWG"        4  count of records      8  salt of the segment   16  first LSN
//! 24  epoch              32  bytes of the body    36  seal of the group before (0 at the very first)
//! 40  CRC32C of the body 44  CRC32C of bytes 0..44: the seal of this group
//! 48  records, each: u32 length, bytes
//! ```

use distrifs_proto::types::{Crc32c, Epoch, Lsn};

use super::sector::CONTENT_BYTES;
use super::{SECTORS_PER_BLOCK, u32_at, u64_at};

/// The length in front of each record.
pub(crate) const RECORD_HEADER_BYTES: usize = 4;
/// What stands in front of a group's records.
pub(crate) const GROUP_HEADER_BYTES: usize = 48;

const MAGIC: [u8; 4] = *b"DFWG";
const SEAL_AT: usize = GROUP_HEADER_BYTES - 4;
const BLOCK_CONTENT_BYTES: usize = SECTORS_PER_BLOCK * CONTENT_BYTES;
const _: () = assert!(GROUP_HEADER_BYTES <= CONTENT_BYTES);

/// How many blocks a group takes whose records need `body` bytes.
pub(crate) const fn group_blocks(body: usize) -> usize {
    (GROUP_HEADER_BYTES + body).div_ceil(BLOCK_CONTENT_BYTES)
}

/// How many bytes of records fit into a group of `blocks`.
pub(crate) const fn group_capacity(blocks: usize) -> usize {
    (blocks * BLOCK_CONTENT_BYTES).saturating_sub(GROUP_HEADER_BYTES)
}

/// The facts in a group's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct GroupHeader {
    pub(crate) count: u32,
    pub(crate) salt: u64,
    pub(crate) first_lsn: Lsn,
    pub(crate) epoch: Epoch,
    pub(crate) body_len: u32,
    pub(crate) previous: Crc32c,
    pub(crate) body_crc: Crc32c,
}

/// How a group contradicts itself although all its sectors are as written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BadGroup {
    /// The header is not one, or its CRC is wrong.
    Header,
    /// The records do not fill the body, or their count is another.
    Records,
}

impl GroupHeader {
    /// The header's bytes, sealed.
    pub(crate) fn encode(&self) -> [u8; GROUP_HEADER_BYTES] {
        let mut out = [0; GROUP_HEADER_BYTES];
        out[0..4].copy_from_slice(&MAGIC);
        out[4..8].copy_from_slice(&self.count.to_le_bytes());
        out[8..16].copy_from_slice(&self.salt.to_le_bytes());
        out[16..24].copy_from_slice(&self.first_lsn.0.to_le_bytes());
        out[24..32].copy_from_slice(&self.epoch.0.to_le_bytes());
        out[32..36].copy_from_slice(&self.body_len.to_le_bytes());
        out[36..40].copy_from_slice(&self.previous.0.to_le_bytes());
        out[40..44].copy_from_slice(&self.body_crc.0.to_le_bytes());
        let seal = Crc32c::of(&out[..SEAL_AT]);
        out[SEAL_AT..].copy_from_slice(&seal.0.to_le_bytes());
        out
    }

    /// The header at the start of `stream`, and its seal.
    pub(crate) fn decode(stream: &[u8]) -> Result<(Self, Crc32c), BadGroup> {
        if stream.len() < GROUP_HEADER_BYTES || stream[0..4] != MAGIC {
            return Err(BadGroup::Header);
        }
        let seal = Crc32c(u32_at(stream, SEAL_AT));
        if seal != Crc32c::of(&stream[..SEAL_AT]) {
            return Err(BadGroup::Header);
        }
        let header = Self {
            count: u32_at(stream, 4),
            salt: u64_at(stream, 8),
            first_lsn: Lsn(u64_at(stream, 16)),
            epoch: Epoch(u64_at(stream, 24)),
            body_len: u32_at(stream, 32),
            previous: Crc32c(u32_at(stream, 36)),
            body_crc: Crc32c(u32_at(stream, 40)),
        };
        Ok((header, seal))
    }
}

/// Puts a group into `stream`, which it clears first, and returns its seal. `count`, `body_len` and `body_crc`
/// of `header` are computed here.
pub(crate) fn encode_group<'a>(
    mut header: GroupHeader,
    records: impl Iterator<Item = &'a [u8]>,
    stream: &mut Vec<u8>,
) -> Crc32c {
    stream.clear();
    stream.resize(GROUP_HEADER_BYTES, 0);
    header.count = 0;
    for record in records {
        header.count += 1;
        let length = u32::try_from(record.len()).expect("records are bounded far below 4 GiB");
        stream.extend_from_slice(&length.to_le_bytes());
        stream.extend_from_slice(record);
    }
    let body = &stream[GROUP_HEADER_BYTES..];
    header.body_len = u32::try_from(body.len()).expect("groups are bounded far below 4 GiB");
    header.body_crc = Crc32c::of(body);
    let encoded = header.encode();
    stream[..GROUP_HEADER_BYTES].copy_from_slice(&encoded);
    Crc32c(u32_at(&encoded, SEAL_AT))
}

/// The records of a body whose CRC was checked.
pub(crate) fn records(body: &[u8], count: u32) -> Result<Vec<&[u8]>, BadGroup> {
    let mut found = Vec::new();
    let mut rest = body;
    while !rest.is_empty() {
        let (length, after) = rest.split_at_checked(RECORD_HEADER_BYTES).ok_or(BadGroup::Records)?;
        let length = u32_at(length, 0) as usize;
        let (record, after) = after.split_at_checked(length).ok_or(BadGroup::Records)?;
        found.push(record);
        rest = after;
    }
    if found.is_empty() || found.len() as u64 != u64::from(count) {
        return Err(BadGroup::Records);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use distrifs_proto::types::{Crc32c, Epoch, Lsn};
    use proptest::prelude::{any, prop_assert_eq, proptest};

    use super::{
        BadGroup, GROUP_HEADER_BYTES, GroupHeader, encode_group, group_blocks, group_capacity, records,
    };

    fn header() -> GroupHeader {
        GroupHeader {
            count: 0,
            salt: 0x0123_4567_89ab_cdef,
            first_lsn: Lsn(41),
            epoch: Epoch(3),
            body_len: 0,
            previous: Crc32c(0xdead_beef),
            body_crc: Crc32c(0),
        }
    }

    #[test]
    fn a_block_is_enough_for_a_small_group_and_not_for_one_byte_more() {
        for blocks in 1..300 {
            let most = group_capacity(blocks);
            assert_eq!(group_blocks(most), blocks);
            assert_eq!(group_blocks(most + 1), blocks + 1);
        }
        assert_eq!(group_capacity(0), 0);
    }

    #[test]
    fn bodies_that_are_not_records_are_refused() {
        let cases: [(&[u8], u32); 6] = [
            (&[], 0),
            (&[1, 0, 0], 1),
            (&[2, 0, 0, 0, 9], 1),
            (&[0, 0, 0, 0], 2),
            (&[0, 0, 0, 0, 0, 0, 0, 0], 1),
            (&[0xff; 8], 1),
        ];
        for (body, count) in cases {
            assert_eq!(records(body, count), Err(BadGroup::Records), "{body:?} {count}");
        }
    }

    proptest! {
        #[test]
        fn a_group_survives_the_way_through_bytes(
            bodies in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 1..40)
        ) {
            let mut stream = vec![1, 2, 3];
            let seal = encode_group(header(), bodies.iter().map(Vec::as_slice), &mut stream);
            let (back, back_seal) = GroupHeader::decode(&stream).expect("a group");
            prop_assert_eq!(seal, back_seal);
            prop_assert_eq!(back.first_lsn, Lsn(41));
            prop_assert_eq!(back.previous, Crc32c(0xdead_beef));
            let body = &stream[GROUP_HEADER_BYTES..];
            prop_assert_eq!(back.body_len as usize, body.len());
            prop_assert_eq!(back.body_crc, Crc32c::of(body));
            let found = records(body, back.count).expect("records");
            prop_assert_eq!(found, bodies.iter().map(Vec::as_slice).collect::<Vec<_>>());
        }

        #[test]
        fn no_bytes_make_decoding_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), count: u32) {
            let _ = GroupHeader::decode(&bytes);
            let _ = records(&bytes, count);
        }
    }

    #[test]
    fn every_flipped_bit_of_a_header_is_noticed() {
        let mut stream = Vec::new();
        encode_group(header(), [&b"record"[..]].into_iter(), &mut stream);
        for bit in 0..GROUP_HEADER_BYTES * 8 {
            stream[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(GroupHeader::decode(&stream), Err(BadGroup::Header), "bit {bit}");
            stream[bit / 8] ^= 1 << (bit % 8);
        }
    }
}
