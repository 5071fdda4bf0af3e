//! Damage of every kind at every place: all that was acknowledged is found, or the log is refused with the
//! place named; a log whose end vanished without a trace says where it ends. Every single bit and every cut:
//! `every_bit.rs`.

use distrifs_proto::types::{ClusterId, Epoch, Lsn};

use super::super::error::{Corruption, RecoverError};
use super::super::format::{SECTOR_BYTES, SegmentHeader, WITNESS_NAME, segment_name, spread};
use super::super::recovery::recover_folder;
use super::{CLUSTER, block_on, fresh, record, recover_sim};
use crate::folder::{Folder, SimDisk};

const APPENDS: usize = 6;
const RECORDS: usize = 50;
/// A header block and two groups.
const SEGMENT_BYTES: u64 = 3 * 4096;
/// Three segments in use, one made ready.
const SEGMENTS: u64 = 4;

/// A log of 300 records in six groups of one block, in three segments.
fn built(close: bool) -> SimDisk {
    let (disk, log) = fresh(1, SEGMENT_BYTES);
    block_on(async {
        for append in 0..APPENDS {
            let records = (0..RECORDS).map(|i| record(append * RECORDS + i, 60)).collect();
            log.append(records).await.expect("an append");
        }
        // Closing also waits until the next segment is ready.
        log.close().await.expect("a clean end");
    });
    if !close {
        let without = disk.snapshot();
        Folder::Sim(without.clone()).remove(WITNESS_NAME).expect("the witness");
        return without;
    }
    disk
}

fn files() -> impl Iterator<Item = String> {
    (1..=SEGMENTS).map(segment_name)
}

/// All records are found, or the refusal names one of the log's files.
fn all_or_refused(disk: &SimDisk, what: &str) -> bool {
    let (found, recovered) = recover_sim(disk);
    match recovered {
        Ok(recovered) => {
            assert_eq!(recovered.last_lsn(), Lsn((APPENDS * RECORDS) as u64), "{what}: silent loss");
            for (i, (lsn, _, bytes)) in found.iter().enumerate() {
                assert_eq!((lsn.0, bytes), (i as u64 + 1, &record(i, 60).to_vec()), "{what}");
            }
            true
        }
        Err(RecoverError::Corrupt { file, offset, lsn, .. }) => {
            let name = file.file_name().and_then(|name| name.to_str()).expect("a name").to_owned();
            assert!(files().any(|known| known == name) || name == WITNESS_NAME, "{what}: names {name}");
            assert!(offset <= SEGMENT_BYTES && lsn <= Lsn((APPENDS * RECORDS) as u64 + 1), "{what}");
            false
        }
        Err(error) => panic!("{what}: {error}"),
    }
}

#[test]
fn a_whole_log_is_recovered() {
    for close in [true, false] {
        assert!(all_or_refused(&built(close), "undamaged"));
    }
}

#[test]
fn a_file_cut_short_is_refused_or_harmless() {
    for close in [true, false] {
        let disk = built(close);
        for name in files() {
            let whole = disk.content(&name).len();
            for len in (0..whole).step_by(SECTOR_BYTES) {
                let cut = disk.snapshot();
                cut.tamper(&name, |bytes| bytes.truncate(len));
                let fine = all_or_refused(&cut, &format!("{name} cut to {len}"));
                assert!(
                    !fine || name == segment_name(SEGMENTS),
                    "only the unused one is harmless: {name} {len}"
                );
            }
        }
    }
}

#[test]
fn zeros_from_anywhere_on_are_refused_when_the_log_was_closed() {
    let disk = built(true);
    for (i, name) in files().take(3).enumerate() {
        for from in (0..SEGMENT_BYTES as usize).step_by(SECTOR_BYTES) {
            for following in [false, true] {
                let cut = disk.snapshot();
                cut.tamper(&name, |bytes| bytes[from..].fill(0));
                for later in files().skip(i + 1).filter(|_| following) {
                    cut.tamper(&later, |bytes| bytes.fill(0));
                }
                let what = format!("{name} zero from {from}, following {following}");
                assert!(!all_or_refused(&cut, &what), "{what}: taken for whole");
            }
        }
    }
}

/// Without a witness this cannot be told from a log that never went further; `last_lsn` says where it ends, and
/// everything up to there is as it was.
#[test]
fn without_a_witness_a_vanished_end_shows_in_the_last_lsn() {
    let disk = built(false);
    let (mut refused, mut shorter) = (0, 0);
    for (i, name) in files().take(3).enumerate() {
        for from in (0..SEGMENT_BYTES as usize).step_by(SECTOR_BYTES) {
            let cut = disk.snapshot();
            cut.tamper(&name, |bytes| bytes[from..].fill(0));
            let last = i == 2;
            let (found, recovered) = recover_sim(&cut);
            match recovered {
                Ok(recovered) => {
                    assert!(last, "{name} zero from {from}: later segments prove the loss");
                    assert_eq!(recovered.last_lsn().0, found.len() as u64);
                    assert!(recovered.last_lsn() < Lsn((APPENDS * RECORDS) as u64));
                    assert!(found.iter().enumerate().all(|(i, (_, _, bytes))| *bytes == record(i, 60)));
                    // A cut in the middle of a group was removed: the next recovery finds a clean end.
                    drop(recovered);
                    let (again, recovered) = recover_sim(&cut);
                    assert_eq!(again, found);
                    assert_eq!(recovered.expect("a clean end").cut(), None);
                    shorter += 1;
                }
                Err(RecoverError::Corrupt { .. }) => refused += 1,
                Err(error) => panic!("{name} zero from {from}: {error}"),
            }
        }
    }
    // Refused: all cuts of the first two segments. Shorter: those behind the header of the last one.
    assert!(refused >= 48 && shorter >= 16, "{refused} refused, {shorter} shorter");
}

#[test]
fn a_torn_last_write_is_cut_and_the_log_goes_on() {
    let disk = built(false);
    let last = segment_name(3);
    // Any set of sectors of the last group may be missing, but not none and not all.
    for missing in 1..255u32 {
        let torn = disk.snapshot();
        torn.tamper(&last, |bytes| {
            for sector in (0..8).filter(|sector| missing >> sector & 1 == 1) {
                bytes[8192 + sector * SECTOR_BYTES..][..SECTOR_BYTES].fill(0);
            }
        });
        let (found, recovered) = recover_sim(&torn);
        let recovered = recovered.expect("a torn tail");
        assert_eq!(found.len(), (APPENDS - 1) * RECORDS);
        let cut = recovered.cut().expect("something was cut");
        assert_eq!((cut.sequence, cut.offset, cut.bytes), (3, 8192, 4096));
        assert!(torn.content(&last)[8192..].iter().all(|byte| *byte == 0));

        let log = super::start_sim(&torn, recovered, 2, SEGMENT_BYTES).expect("a log");
        let lsns = block_on(log.append(vec![record(9, 9)])).expect("an append");
        assert_eq!(lsns.start, Lsn(((APPENDS - 1) * RECORDS) as u64 + 1));
    }
}

#[test]
fn a_torn_write_with_anything_behind_it_is_refused() {
    let disk = built(false);
    for (name, at, what) in [
        (segment_name(3), 4096, Corruption::IncompleteBeforeOthers),
        (segment_name(2), 8192, Corruption::IncompleteBeforeOthers),
        (segment_name(1), 4096, Corruption::IncompleteBeforeOthers),
    ] {
        let torn = disk.snapshot();
        torn.tamper(&name, |bytes| bytes[at + SECTOR_BYTES..at + 2 * SECTOR_BYTES].fill(0));
        match recover_sim(&torn).1 {
            Err(RecoverError::Corrupt { offset, what: found, .. }) => {
                assert_eq!((offset, found), (at as u64, what));
            }
            other => panic!("{name}: {:?}", other.map(|r| r.last_lsn())),
        }
        let hole = disk.snapshot();
        hole.tamper(&name, |bytes| bytes[at..at + 4096].fill(0));
        match recover_sim(&hole).1 {
            Err(RecoverError::Corrupt { offset, what, .. }) => {
                assert_eq!(offset, at as u64);
                assert!(matches!(what, Corruption::Hole | Corruption::EndLost { .. }), "{what:?}");
            }
            other => panic!("{name}: {:?}", other.map(|r| r.last_lsn())),
        }
    }
}

#[test]
fn a_missing_segment_is_refused_by_name() {
    for missing in 1..=3 {
        let disk = built(true);
        Folder::Sim(disk.clone()).remove(&segment_name(missing)).expect("a segment");
        match recover_sim(&disk).1 {
            Err(RecoverError::MissingSegment { missing: file, .. }) => {
                assert!(file.ends_with(segment_name(missing)));
            }
            other => panic!("{missing}: {:?}", other.map(|r| r.last_lsn())),
        }
    }
    // The unused one may go.
    let disk = built(true);
    Folder::Sim(disk.clone()).remove(&segment_name(SEGMENTS)).expect("a segment");
    assert!(all_or_refused(&disk, "without the unused segment"));
}

#[test]
fn swapped_segments_are_refused() {
    let disk = built(false);
    let (one, two) = (disk.content(&segment_name(2)), disk.content(&segment_name(3)));
    disk.tamper(&segment_name(2), |bytes| *bytes = two);
    disk.tamper(&segment_name(3), |bytes| *bytes = one);
    assert!(!all_or_refused(&disk, "swapped"));
}

#[test]
fn another_cluster_is_refused() {
    for close in [true, false] {
        let other = ClusterId(0xc2);
        match recover_folder(&Folder::Sim(built(close)), other, Lsn(0), &mut |_, _, _| Ok(())) {
            Err(RecoverError::WrongCluster { expected, found, .. }) => {
                assert_eq!((expected, found), (other, CLUSTER));
            }
            result => panic!("{:?}", result.map(|r| r.last_lsn())),
        }
    }
}

#[test]
fn a_newer_version_is_refused() {
    let disk = built(false);
    let mut block = vec![0; 4096];
    let header = SegmentHeader {
        cluster: CLUSTER,
        sequence: 1,
        first_lsn: Lsn(1),
        epoch: Epoch(1),
        salt: 1,
        bytes: SEGMENT_BYTES,
        previous: Default::default(),
    };
    header.encode(&mut block);
    let mut stream = block[..100].to_vec();
    stream[8] = 2;
    spread(&stream, 0, 0, &mut block);
    disk.tamper(&segment_name(1), |bytes| bytes[..4096].copy_from_slice(&block));
    match recover_sim(&disk).1 {
        Err(RecoverError::NewerVersion { found, known, .. }) => assert_eq!((found, known), (2, 1)),
        other => panic!("{:?}", other.map(|r| r.last_lsn())),
    }
}

#[test]
fn a_record_that_is_not_taken_ends_the_recovery() {
    let result = recover_folder(&Folder::Sim(built(true)), CLUSTER, Lsn(0), &mut |lsn, _, _| match lsn {
        Lsn(7) => Err("no room".into()),
        _ => Ok(()),
    });
    assert!(matches!(result, Err(RecoverError::Replay { lsn: Lsn(7), .. })));
}
