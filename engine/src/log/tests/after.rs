//! Recovery from a checkpoint on: older records are checked and not handed out, a log that cannot give what is
//! asked for is refused.

use distrifs_proto::types::Lsn;

use super::super::error::{Corruption, RecoverError};
use super::super::format::{WITNESS_NAME, segment_name};
use super::{block_on, fresh, record, recover_after};
use crate::folder::{Folder, SimDisk};

const RECORDS: u64 = 40;
const SEGMENT_BYTES: u64 = 3 * 4096;

/// Forty records, one in each group, two groups in each segment.
fn built() -> SimDisk {
    let (disk, log) = fresh(3, SEGMENT_BYTES);
    block_on(async {
        for i in 0..RECORDS as usize {
            log.append(vec![record(i, 100)]).await.expect("an append");
        }
        log.close().await.expect("a clean end");
    });
    disk
}

#[test]
fn only_later_records_are_handed_out() {
    let disk = built();
    for after in 0..=RECORDS {
        let (found, recovered) = recover_after(&disk, after);
        let recovered = recovered.expect("a whole log");
        assert_eq!((recovered.first_lsn(), recovered.last_lsn()), (Lsn(1), Lsn(RECORDS)));
        let lsns: Vec<_> = found.iter().map(|(lsn, _, _)| lsn.0).collect();
        assert_eq!(lsns, (after + 1..=RECORDS).collect::<Vec<_>>());
        assert!(found.iter().all(|(lsn, _, bytes)| *bytes == record(lsn.0 as usize - 1, 100)));
    }
}

#[test]
fn older_records_are_checked_all_the_same() {
    let disk = built();
    disk.tamper(&segment_name(2), |bytes| bytes[5000] ^= 1);
    let (_, refused) = recover_after(&disk, 30);
    assert!(matches!(
        refused,
        Err(RecoverError::Corrupt { lsn: Lsn(3), offset: 4608, what: Corruption::RottenSector, .. })
    ));
}

#[test]
fn a_log_that_ends_before_the_checkpoint_is_refused() {
    for disk in [built(), SimDisk::new(1)] {
        let (_, refused) = recover_after(&disk, RECORDS + 1);
        match refused {
            Err(RecoverError::Corrupt { what: Corruption::EndLost { known }, .. }) => {
                assert_eq!(known, Lsn(RECORDS + 1));
            }
            other => panic!("{:?}", other.map(|r| r.last_lsn())),
        }
    }
    let beyond_belief = recover_after(&built(), u64::MAX).1;
    assert!(matches!(beyond_belief, Err(RecoverError::Corrupt { .. })));
}

#[test]
fn a_log_that_begins_after_what_is_needed_is_refused() {
    let disk = built();
    let folder = Folder::Sim(disk.clone());
    for sequence in 1..=5 {
        folder.remove(&segment_name(sequence)).expect("a segment");
    }
    // The witness knows that they were not released.
    assert!(matches!(recover_after(&disk, 20).1, Err(RecoverError::MissingSegment { .. })));
    folder.remove(WITNESS_NAME).expect("the witness");
    assert!(matches!(recover_after(&disk.snapshot(), 0).1, Err(RecoverError::MissingSegment { .. })));
    match recover_after(&disk.snapshot(), 9).1 {
        Err(RecoverError::Released { first, needed, .. }) => assert_eq!((first, needed), (Lsn(11), Lsn(10))),
        other => panic!("{:?}", other.map(|r| r.last_lsn())),
    }
    let (found, recovered) = recover_after(&disk, 10);
    let recovered = recovered.expect("nothing after the checkpoint is missing");
    assert_eq!((recovered.first_lsn(), recovered.last_lsn(), found.len()), (Lsn(11), Lsn(40), 30));
}
