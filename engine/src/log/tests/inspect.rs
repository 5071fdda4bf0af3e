//! Looking at a segment: all that is in it, what recovery would say, and nothing is changed.

use distrifs_proto::types::{Epoch, Lsn};

use super::super::error::{Corruption, RecoverError};
use super::super::format::segment_name;
use super::super::recovery::{SegmentVerdict, inspect_in};
use super::{CLUSTER, block_on, fresh, record};
use crate::folder::{Folder, SimDisk};

const SEGMENT_BYTES: u64 = 4 * 4096;

/// Two groups of three records in the first segment, one block to spare, one segment ready.
fn built() -> SimDisk {
    let (disk, log) = fresh(4, SEGMENT_BYTES);
    block_on(async {
        for group in 0..2 {
            log.append((0..3).map(|i| record(group * 3 + i, 20)).collect()).await.expect("an append");
        }
        log.close().await.expect("a clean end");
    });
    disk
}

fn verdict(disk: &SimDisk) -> SegmentVerdict {
    let before = disk.content(&segment_name(1));
    let found = inspect_in(&Folder::Sim(disk.clone()), &segment_name(1)).expect("an inspection");
    assert!(disk.content(&segment_name(1)) == before, "nothing is changed");
    found.verdict
}

#[test]
fn a_whole_segment_shows_its_header_and_all_records() {
    let disk = built();
    let folder = Folder::Sim(disk);
    let found = inspect_in(&folder, &segment_name(1)).expect("an inspection");
    let header = found.header.expect("in use");
    assert_eq!((header.cluster, header.sequence, header.first_lsn), (CLUSTER, 1, Lsn(1)));
    let groups: Vec<_> = found.groups.iter().map(|g| (g.offset, g.bytes, g.first_lsn, g.epoch)).collect();
    assert_eq!(groups, [(4096, 4096, Lsn(1), Epoch(1)), (8192, 4096, Lsn(4), Epoch(1))]);
    let records: Vec<_> = found.groups.into_iter().flat_map(|group| group.records).collect();
    assert_eq!(records, (0..6).map(|i| record(i, 20).to_vec()).collect::<Vec<_>>());
    assert_eq!(found.verdict, SegmentVerdict::Clean { offset: 12288, next: Lsn(7) });
    let unused = inspect_in(&folder, &segment_name(2)).expect("an inspection");
    assert_eq!((unused.header, unused.verdict), (None, SegmentVerdict::Unused));
    assert!(matches!(inspect_in(&folder, "nothing"), Err(RecoverError::Io { .. })));
}

#[test]
fn torn_writes_and_damage_are_named_with_their_place() {
    type Change = fn(&mut Vec<u8>);
    let corrupt = |offset, lsn, what| SegmentVerdict::Corrupt { offset, lsn: Lsn(lsn), what };
    let cases: [(Change, SegmentVerdict); 7] = [
        (|bytes| bytes[8704..9216].fill(0), SegmentVerdict::Torn { offset: 8192, next: Lsn(4) }),
        (|bytes| bytes[4608] ^= 1, corrupt(4608, 1, Corruption::RottenSector)),
        (|bytes| bytes[9000] ^= 1, corrupt(8704, 4, Corruption::RottenSector)),
        (|bytes| bytes[600] ^= 1, corrupt(512, 0, Corruption::RottenSector)),
        (|bytes| bytes[4096..8192].fill(0), corrupt(4096, 1, Corruption::Hole)),
        (|bytes| bytes[..4096].fill(0), corrupt(0, 0, Corruption::HeaderLost)),
        (
            |bytes| bytes.truncate(12288),
            corrupt(12288, 1, Corruption::Length { expected: SEGMENT_BYTES, found: 12288 }),
        ),
    ];
    for (change, expected) in cases {
        let disk = built();
        disk.tamper(&segment_name(1), change);
        assert_eq!(verdict(&disk), expected);
    }
    let text = corrupt(8704, 4, Corruption::RottenSector).to_string();
    assert_eq!(text, "corrupt at byte 8704 (from LSN 4 on): a sector fails its check");
}
