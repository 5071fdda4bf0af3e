//! What the bytes of one segment say: which records count, and what is missing among them. Pure.

use distrifs_proto::limits::BLOCK_BYTES;

use super::format::{BadHeader, Record, SegmentHeader, Use, decode_record};

/// What a segment holds.
#[derive(Debug)]
pub(super) struct SegmentContent<'a> {
    /// Its header, or why it has none.
    pub(super) header: Result<SegmentHeader, BadHeader>,
    /// The use that its records are of; `None` where there is nothing to tell it by.
    pub(super) of: Option<Use>,
    /// In the order in which they were written.
    pub(super) records: Vec<Record<'a>>,
    /// The blocks from which on something that was durable cannot be read.
    pub(super) damaged: Vec<u32>,
}

/// Reads a segment. A group is written when the one before it is durable. So what cannot be read before a later group
/// was durable once, and is damaged; what cannot be read in the last one is what a power cut leaves.
pub(super) fn read_segment(bytes: &[u8]) -> SegmentContent<'_> {
    let header = SegmentHeader::decode(&bytes[..bytes.len().min(BLOCK_BYTES)]);
    let mut damaged = Vec::new();
    let of = match &header {
        Ok(header) => Some(header.of),
        Err(BadHeader::Version(_)) => None,
        // The first record has its place for certain, and knows as much.
        Err(BadHeader::Zeros | BadHeader::Damaged) => decode_record(bytes, 1).map(|record| record.of),
    };
    // A file that is shorter was never finished: it holds nothing yet.
    let rotten = header == Err(BadHeader::Damaged) && bytes.len() >= BLOCK_BYTES;
    if rotten || (of.is_some() && header.is_err()) {
        damaged.push(0);
    }
    let (mut records, mut block, mut bad) = (Vec::new(), 1, None);
    let blocks = (bytes.len() / BLOCK_BYTES) as u32;
    while block < blocks {
        let Some(record) = decode_record(bytes, block).filter(|record| Some(record.of) == of) else {
            bad = bad.or(Some(block));
            block += 1;
            continue;
        };
        if let Some(bad) = bad.take_if(|bad| *bad < record.place.group) {
            damaged.push(bad);
        }
        bad = None;
        block += record.blocks;
        records.push(record);
    }
    SegmentContent { header, of, records, damaged }
}

#[cfg(test)]
mod tests {
    use distrifs_proto::types::NodeId;

    use super::super::format::tests::chunk;
    use super::super::format::{RecordPlace, encode_record};
    use super::*;

    const OF: Use = Use { sequence: 9, salt: 3 };
    const OLD: Use = Use { sequence: 8, salt: 3 };

    /// A segment with these records, each of one block: its use, its block, its group.
    fn segment(records: &[(Use, u32, u32)]) -> Vec<u8> {
        let mut bytes = vec![0; 8 * BLOCK_BYTES];
        let header = SegmentHeader { node: NodeId(1), of: OF, bytes: bytes.len() as u64 };
        header.encode(&mut bytes[..BLOCK_BYTES]);
        for &(of, block, group) in records {
            let (sidecar, data) = chunk(u64::from(block), 100);
            let at = block as usize * BLOCK_BYTES;
            let place = RecordPlace { block, group };
            encode_record(&mut bytes[at..at + BLOCK_BYTES], of, place, &sidecar, &data);
        }
        bytes
    }

    fn found(bytes: &[u8]) -> (Vec<u32>, Vec<u32>) {
        let content = read_segment(bytes);
        (content.records.iter().map(|record| record.place.block).collect(), content.damaged)
    }

    #[test]
    fn what_counts_and_what_is_damage() {
        type Records<'a> = &'a [(Use, u32, u32)];
        let cases: [(&str, Records<'_>, &[u32], &[u32]); 7] = [
            ("nothing", &[], &[], &[]),
            ("two groups", &[(OF, 1, 1), (OF, 2, 1), (OF, 3, 3)], &[1, 2, 3], &[]),
            ("those of an earlier use", &[(OLD, 1, 1), (OLD, 2, 2)], &[], &[]),
            ("and behind those of this one", &[(OF, 1, 1), (OLD, 2, 2)], &[1], &[]),
            ("a torn last group", &[(OF, 1, 1), (OF, 3, 2)], &[1, 3], &[]),
            ("a hole", &[(OF, 1, 1), (OF, 3, 3)], &[1, 3], &[2]),
            ("a hole and a torn group", &[(OF, 1, 1), (OF, 3, 3), (OF, 5, 4)], &[1, 3, 5], &[2]),
        ];
        for (name, records, expected, damaged) in cases {
            assert_eq!(found(&segment(records)), (expected.to_vec(), damaged.to_vec()), "{name}");
        }
    }

    #[test]
    fn without_its_header_the_first_record_says_which_count() {
        let mut bytes = segment(&[(OF, 1, 1), (OF, 2, 2), (OLD, 3, 3)]);
        bytes[20] ^= 1;
        assert_eq!(found(&bytes), (vec![1, 2], vec![0]));
        bytes[..BLOCK_BYTES].fill(0);
        assert_eq!(found(&bytes), (vec![1, 2], vec![0]));
        bytes[BLOCK_BYTES..].fill(0);
        bytes[20] = 1;
        assert_eq!(found(&bytes), (vec![], vec![0]));
        // Half made.
        assert_eq!(found(&[0; 4 * BLOCK_BYTES]), (vec![], vec![]));
        assert_eq!(found(&[0; 100]), (vec![], vec![]));
    }

    #[test]
    fn a_chunk_that_looks_like_a_record_is_none() {
        // Whoever wrote it knows all but the salt.
        let guessed = Use { salt: 0, ..OF };
        let bytes = segment(&[(OF, 1, 1), (guessed, 3, 3), (OF, 4, 4)]);
        assert_eq!(found(&bytes), (vec![1, 4], vec![2]));
    }
}
