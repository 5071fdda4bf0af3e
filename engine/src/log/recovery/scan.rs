//! Reading one segment that is in memory: whole groups in order, and the facts about where they end.

use distrifs_proto::types::{Crc32c, Epoch, Lsn};

use super::super::format::{
    BLOCK_BYTES, GROUP_HEADER_BYTES, GroupHeader, SECTOR_BYTES, SECTORS_PER_BLOCK, Sector, gather,
    group_blocks, judge,
};
use super::super::limits::{GROUP_BYTES_MAX, LSN_MAX};
use super::table::{GroupFacts, GroupState, HeaderState};

/// How far the log has been read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Position {
    /// The LSN of the next record.
    pub(crate) next_lsn: Lsn,
    /// The seal of the last group.
    pub(crate) seal: Crc32c,
    /// The epoch of the last group.
    pub(crate) epoch: Epoch,
}

/// One whole group.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) header: GroupHeader,
    pub(crate) seal: Crc32c,
    /// The records, still encoded.
    pub(crate) body: Vec<u8>,
    /// Where it ends, in bytes of the segment.
    pub(crate) end: usize,
}

/// A segment in memory with the judgement of each of its sectors.
pub(crate) struct Segment<'a> {
    bytes: &'a [u8],
    salt: u64,
    sectors: Vec<Sector>,
}

/// What the header block is.
pub(crate) fn header_state(block: &[u8]) -> HeaderState {
    let sectors: Vec<_> =
        block.chunks_exact(SECTOR_BYTES).enumerate().map(|(i, sector)| judge(sector, 0, i as u64)).collect();
    let is = |i: usize| sectors[i] == Sector::Written { place: i as u32 };
    if sectors.iter().all(|sector| *sector == Sector::Zero) {
        HeaderState::Zero
    } else if (0..sectors.len()).all(is) {
        HeaderState::Whole
    } else if (0..sectors.len()).all(|i| is(i) || sectors[i] == Sector::Zero) {
        HeaderState::Partial
    } else {
        HeaderState::Rotten
    }
}

/// Where the first sector is that is not what was written, in a header block.
pub(crate) fn header_rotten_at(block: &[u8]) -> u64 {
    let rotten = |(i, sector): (usize, &[u8])| match judge(sector, 0, i as u64) {
        Sector::Zero => false,
        Sector::Rotten => true,
        Sector::Written { place } => place as usize != i,
    };
    let at = block.chunks_exact(SECTOR_BYTES).enumerate().position(rotten);
    (at.unwrap_or(0) * SECTOR_BYTES) as u64
}

impl<'a> Segment<'a> {
    /// `bytes` is the whole file, of whole blocks.
    pub(crate) fn new(bytes: &'a [u8], salt: u64) -> Self {
        let judged = bytes.chunks_exact(SECTOR_BYTES).enumerate();
        // The header block has been judged before, with another salt.
        let sectors =
            judged.map(
                |(i, sector)| {
                    if i < SECTORS_PER_BLOCK { Sector::Zero } else { judge(sector, salt, i as u64) }
                },
            );
        Self { bytes, salt, sectors: sectors.collect() }
    }

    /// The sector in which the group of sector `i` begins.
    fn start_of(&self, i: usize) -> Option<i64> {
        match self.sectors[i] {
            Sector::Written { place } => Some(i as i64 - i64::from(place)),
            Sector::Zero | Sector::Rotten => None,
        }
    }

    /// The group at `at`, when it is whole and follows `position`; otherwise what is there instead.
    pub(crate) fn group(&self, at: usize, position: &Position) -> Result<Group, GroupState> {
        let first = at / SECTOR_BYTES;
        let own = |i: usize| self.start_of(i) == Some(first as i64);
        if first >= self.sectors.len() || !own(first) {
            let any = (first..self.sectors.len()).any(own);
            return Err(if any { GroupState::Partial } else { GroupState::Absent });
        }
        let contradictory = GroupState::Contradictory;
        let head = gather(&self.bytes[at..at + SECTOR_BYTES]);
        let (header, seal) = GroupHeader::decode(&head).map_err(|_| contradictory)?;
        let body_len = header.body_len as usize;
        let end = at + group_blocks(body_len) * BLOCK_BYTES;
        let follows = header.salt == self.salt
            && header.first_lsn == position.next_lsn
            && header.previous == position.seal
            && header.epoch >= position.epoch
            && header.count > 0
            && header.first_lsn <= LSN_MAX;
        if !follows || body_len > GROUP_BYTES_MAX || end > self.bytes.len() {
            return Err(contradictory);
        }
        if !(first..end / SECTOR_BYTES).all(own) {
            return Err(GroupState::Partial);
        }
        let mut stream = gather(&self.bytes[at..end]);
        stream.truncate(GROUP_HEADER_BYTES + body_len);
        let body = stream.split_off(GROUP_HEADER_BYTES);
        if Crc32c::of(&body) != header.body_crc {
            return Err(contradictory);
        }
        Ok(Group { header, seal, body, end })
    }

    /// The facts about `at`, where there is no whole group but `group`.
    pub(crate) fn facts(&self, at: usize, group: GroupState, later: bool) -> GroupFacts {
        let first = at / SECTOR_BYTES;
        let beyond = |i: usize| self.start_of(i).is_some_and(|start| start != first as i64);
        GroupFacts {
            group,
            rotten: self.rotten_at(at).is_some(),
            beyond: (first..self.sectors.len()).any(beyond),
            later,
        }
    }

    /// The first rotten sector from `at` on, in bytes.
    pub(crate) fn rotten_at(&self, at: usize) -> Option<u64> {
        let first = at / SECTOR_BYTES;
        let found = (first..self.sectors.len()).find(|i| self.sectors[*i] == Sector::Rotten);
        found.map(|i| (i * SECTOR_BYTES) as u64)
    }

    /// The end of the last block that is not zero, in bytes.
    pub(crate) fn used_end(&self) -> usize {
        let last = self.sectors.iter().rposition(|sector| *sector != Sector::Zero);
        last.map_or(BLOCK_BYTES, |i| (i / SECTORS_PER_BLOCK + 1) * BLOCK_BYTES)
    }
}

#[cfg(test)]
mod tests {
    use distrifs_proto::types::{Crc32c, Epoch, Lsn};

    use super::super::super::format::{BLOCK_BYTES, GroupHeader, SECTOR_BYTES, encode_group, spread};
    use super::super::super::limits::LSN_MAX;
    use super::{GroupState, Position, Segment};

    type Change = fn(&mut GroupHeader);

    const SALT: u64 = 77;
    const POSITION: Position = Position { next_lsn: Lsn(10), seal: Crc32c(5), epoch: Epoch(3) };

    /// A segment of a header block, one group of one block that follows [`POSITION`], and an empty block.
    fn segment(change: impl FnOnce(&mut GroupHeader, &mut Vec<u8>)) -> Vec<u8> {
        let mut header = GroupHeader {
            count: 0,
            salt: SALT,
            first_lsn: POSITION.next_lsn,
            epoch: POSITION.epoch,
            body_len: 0,
            previous: POSITION.seal,
            body_crc: Crc32c(0),
        };
        let mut stream = Vec::new();
        encode_group(header, [&b"a record"[..]].into_iter(), &mut stream);
        header = GroupHeader::decode(&stream).expect("a group").0;
        change(&mut header, &mut stream);
        let mut bytes = vec![0; 3 * BLOCK_BYTES];
        spread(&stream, SALT, (BLOCK_BYTES / SECTOR_BYTES) as u64, &mut bytes[BLOCK_BYTES..2 * BLOCK_BYTES]);
        bytes
    }

    fn read(bytes: &[u8]) -> Result<Lsn, GroupState> {
        Segment::new(bytes, SALT).group(BLOCK_BYTES, &POSITION).map(|group| group.header.first_lsn)
    }

    #[test]
    fn a_group_that_follows_is_whole() {
        assert_eq!(read(&segment(|_, _| ())), Ok(Lsn(10)));
    }

    #[test]
    fn a_group_that_does_not_follow_is_contradictory() {
        let cases: [(&str, Change); 10] = [
            ("an older LSN", |header| header.first_lsn = Lsn(9)),
            ("a later LSN", |header| header.first_lsn = Lsn(11)),
            ("an LSN beyond belief", |header| header.first_lsn = Lsn(LSN_MAX.0 + 1)),
            ("another predecessor", |header| header.previous = Crc32c(6)),
            ("an older epoch", |header| header.epoch = Epoch(2)),
            ("another salt", |header| header.salt = SALT + 1),
            ("no records", |header| header.count = 0),
            ("a body with another checksum", |header| header.body_crc = Crc32c(1)),
            ("a body past the segment's end", |header| header.body_len = 3 * BLOCK_BYTES as u32),
            ("a body past every bound", |header| header.body_len = u32::MAX),
        ];
        for (what, change) in cases {
            let bytes = segment(|header, stream| {
                change(header);
                stream[..header.encode().len()].copy_from_slice(&header.encode());
            });
            assert_eq!(read(&bytes), Err(GroupState::Contradictory), "{what}");
        }
        let noise = segment(|_, stream| stream.fill(0xaa));
        assert_eq!(read(&noise), Err(GroupState::Contradictory), "no header");
    }

    #[test]
    fn a_group_that_was_never_written_or_only_in_part_is_told() {
        assert_eq!(read(&vec![0; 3 * BLOCK_BYTES]), Err(GroupState::Absent));
        for sector in 0..8 {
            let mut bytes = segment(|_, _| ());
            bytes[BLOCK_BYTES + sector * SECTOR_BYTES..][..SECTOR_BYTES].fill(0);
            assert_eq!(read(&bytes), Err(GroupState::Partial), "without sector {sector}");
        }
    }
}
