//! Forks: power cuts at every operation, an old writer that goes on, forks of forks, full disks, readings that are torn.

use std::cell::{Cell, RefCell};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use distrifs_proto::types::{Epoch, Lsn};

use super::super::error::{Corruption, LogError, RecoverError};
use super::super::fork::{Forking, REREADS_MAX};
use super::super::format::{
    SECTOR_BYTES, WITNESS_NAME, fork_name, segment_name, segment_sequence, unfinished_fork_name,
};
use super::super::handle::Log;
use super::super::recovery::{Recovered, recover_in};
use super::{CLUSTER, Records, block_on, fresh, record, start_sim};
use crate::folder::{Fault, Folder, SimDisk};

/// A header block and two groups.
const SEGMENT_BYTES: u64 = 3 * 4096;
/// Three segments in use, the last one half full, and one that is ready.
const RECORDS: usize = 5;

fn root(disk: &SimDisk) -> Folder {
    Folder::Sim(disk.clone())
}

fn forking(disk: &SimDisk, after: u64, epoch: u64) -> Forking {
    Forking { root: root(disk), cluster: CLUSTER, after: Lsn(after), epoch: Epoch(epoch) }
}

fn fork_after(disk: &SimDisk, after: u64, epoch: u64) -> (Records, Result<Recovered, RecoverError>) {
    let mut records = Vec::new();
    let recovered = forking(disk, after, epoch).run(&mut || Ok(()), &mut || (), &mut |lsn, epoch, record| {
        records.push((lsn, epoch, record.to_vec()));
        Ok(())
    });
    (records, recovered)
}

fn fork(disk: &SimDisk, epoch: u64) -> (Records, Recovered) {
    let (records, recovered) = fork_after(disk, 0, epoch);
    (records, recovered.expect("a fork"))
}

fn recover_after(disk: &SimDisk, after: u64) -> (Records, Result<Recovered, RecoverError>) {
    let mut records = Vec::new();
    let recovered = recover_in(&root(disk), CLUSTER, Lsn(after), &mut |lsn, epoch, record| {
        records.push((lsn, epoch, record.to_vec()));
        Ok(())
    });
    (records, recovered)
}

/// The folder of the fork with this epoch.
fn home(disk: &SimDisk, epoch: u64) -> SimDisk {
    disk.within(&fork_name(Epoch(epoch)))
}

fn start(disk: &SimDisk, recovered: Recovered, epoch: u64) -> Log {
    let home = recovered.fork().map_or_else(|| disk.clone(), |fork| home(disk, fork.0));
    start_sim(&home, recovered, epoch, SEGMENT_BYTES).expect("a log")
}

async fn append(log: &Log, number: usize) -> Result<(), LogError> {
    let lsns = log.append(vec![record(number, 100)]).await?;
    assert_eq!(lsns.start, Lsn(number as u64 + 1));
    Ok(())
}

/// A log with some records that is still running.
fn built(seed: u64) -> (SimDisk, Log) {
    let (disk, log) = fresh(seed, SEGMENT_BYTES);
    block_on(async {
        for number in 0..RECORDS {
            append(&log, number).await.expect("an append");
        }
        // The segment that is ready is made in the background.
        while log.stats().kept_segments < 4 {
            tokio::task::yield_now().await;
        }
    });
    (disk, log)
}

/// Exactly the records with these numbers.
fn assert_numbers(found: &Records, expected: std::ops::Range<usize>, what: &str) {
    let found: Vec<_> = found.iter().map(|(lsn, _, bytes)| (lsn.0, Bytes::copy_from_slice(bytes))).collect();
    let expected: Vec<_> = expected.map(|number| (number as u64 + 1, record(number, 100))).collect();
    assert_eq!(found, expected, "{what}");
}

fn names(disk: &SimDisk) -> Vec<String> {
    let files = root(disk).list().expect("a list").into_iter().map(|(name, _)| name);
    files.chain(root(disk).folders().expect("a list")).collect()
}

#[test]
fn a_fork_hands_out_all_records_and_is_the_log_from_then_on() {
    let (disk, old) = built(1);
    let before = disk.content(&segment_name(3));
    let (found, recovered) = fork(&disk, 7);
    assert_numbers(&found, 0..RECORDS, "forked");
    assert_eq!((recovered.fork(), recovered.last_lsn()), (Some(Epoch(7)), Lsn(RECORDS as u64)));
    assert_eq!(recovered.home, recovered.dir.join(fork_name(Epoch(7))));
    // As the old one was, without what was ready; and the old one is gone.
    assert_eq!(names(&disk), [fork_name(Epoch(7))]);
    let mut taken = names(&home(&disk, 7));
    taken.sort();
    assert_eq!(taken, [segment_name(1), segment_name(2), segment_name(3), WITNESS_NAME.to_owned()]);
    assert!(home(&disk, 7).content(&segment_name(3)) == before);
    drop(recovered);
    let (found, recovered) = recover_after(&disk, 0);
    assert_numbers(&found, 0..RECORDS, "recovered");
    assert_eq!(recovered.expect("a log").fork(), Some(Epoch(7)));
    drop(old);
}

#[test]
fn records_that_a_checkpoint_holds_are_not_handed_out_and_released_segments_stay_gone() {
    let (disk, old) = built(1);
    assert_eq!(block_on(old.release(Lsn(2))).expect("released").segments, 1);
    for after in 2..=RECORDS {
        let disk = disk.snapshot();
        let (found, recovered) = fork_after(&disk, after as u64, 2);
        assert_eq!(recovered.expect("a fork").first_lsn(), Lsn(3));
        assert_numbers(&found, after..RECORDS, "forked");
        assert_numbers(&recover_after(&disk, after as u64).0, after..RECORDS, "recovered");
    }
    // Refusals are those of a recovery, and leave the log as it is.
    let before = names(&disk);
    assert!(matches!(fork_after(&disk, 0, 2).1, Err(RecoverError::Released { first: Lsn(3), .. })));
    assert!(matches!(
        fork_after(&disk, 9, 2).1,
        Err(RecoverError::Corrupt { what: Corruption::EndLost { known: Lsn(9) }, .. })
    ));
    assert_eq!(names(&disk), before);
}

/// One power cut, and what a recovery finds after it; `None` when the cut came after the fork.
fn cut_at(base: &SimDisk, cut: u64, epoch: u64, lie: Option<Fault>) -> (bool, Result<Records, String>) {
    let disk = base.snapshot();
    lie.into_iter().for_each(|lie| disk.set(lie, true));
    disk.cut_after(cut);
    let (_, recovered) = fork_after(&disk, 0, epoch);
    let whole = recovered.is_ok();
    drop(recovered);
    // Another operation of anybody: it tells whether the power is still on.
    let ended = whole && root(&disk).folders().is_ok();
    let after = disk.after_power_cut();
    // By a recovery in place, on a copy, and by another fork.
    let (found, recovered) = recover_after(&after.snapshot(), 0);
    let found = recovered.map(|_| found).map_err(|error| error.to_string());
    let (again, forked) = fork_after(&after, 0, epoch + 1);
    let again = forked.map(|_| again).map_err(|error| error.to_string());
    if lie.is_none() {
        assert_eq!(found, again, "cut {cut}");
    }
    (ended, found)
}

#[test]
fn a_power_cut_at_every_operation_of_a_fork_loses_nothing() {
    for seed in 0..12 {
        let (disk, _old) = built(seed);
        // Of a log without forks, and of one that has one, and what an interrupted fork has left.
        let forked = disk.snapshot();
        drop(fork(&forked, 2));
        root(&forked).create_folder(&unfinished_fork_name(Epoch(2))).expect("made");
        forked.within(&unfinished_fork_name(Epoch(2)));
        for base in [disk.snapshot(), forked] {
            let mut ended = false;
            for cut in 0.. {
                let (end, found) = cut_at(&base, cut, 3, None);
                let found = found.unwrap_or_else(|error| panic!("seed {seed} cut {cut}: {error}"));
                assert_numbers(&found, 0..RECORDS, &format!("seed {seed} cut {cut}"));
                ended = end;
                if ended {
                    assert!(cut > 20, "a fork has more operations than {cut}");
                    break;
                }
            }
            assert!(ended);
        }
    }
}

#[test]
fn a_power_cut_at_every_operation_of_a_recovery_that_cleans_up_loses_nothing() {
    for seed in 0..12 {
        let (disk, _old) = built(seed);
        disk.set(Fault::NoRemove, true);
        drop(fork(&disk, 2));
        drop(fork(&disk, 4));
        root(&disk).create_folder(&unfinished_fork_name(Epoch(3))).expect("made");
        let half = root(&disk).within(&unfinished_fork_name(Epoch(3)));
        half.create(&segment_name(1), b"half").expect("made");
        let mut cut = 0;
        loop {
            let disk = disk.snapshot();
            disk.cut_after(cut);
            drop(recover_after(&disk, 0));
            let ended = root(&disk).folders().is_ok();
            let after = disk.after_power_cut();
            let (found, recovered) = recover_after(&after, 0);
            assert_numbers(&found, 0..RECORDS, &format!("seed {seed} cut {cut}"));
            assert_eq!(recovered.expect("a log").fork(), Some(Epoch(4)));
            assert_eq!(names(&after), [fork_name(Epoch(4))]);
            if ended {
                break;
            }
            cut += 1;
        }
        assert!(cut > 15, "it has more operations than {cut}");
    }
}

/// The test of a fork's power cuts must be able to fail.
#[test]
fn a_fork_that_is_not_synced_is_caught() {
    for lie in [Fault::LyingFolderSync, Fault::LyingSync] {
        let found = (0..12).flat_map(|seed| {
            let (disk, _old) = built(seed);
            (0..60).map(move |cut| cut_at(&disk.snapshot(), cut, 3, Some(lie)).1)
        });
        let lost = found.filter(|found| found.as_ref().map_or(true, |records| records.len() < RECORDS));
        assert!(lost.count() > 0, "{lie:?} was not noticed");
    }
}

#[test]
fn what_is_appended_to_a_fork_survives_power_cuts() {
    for seed in 0..20 {
        let (disk, _old) = built(seed);
        let log = start(&disk, fork(&disk, 2).1, 2);
        for number in RECORDS..RECORDS + seed as usize % 5 + 1 {
            block_on(append(&log, number)).expect("an append");
        }
        let found = recover_after(&disk.after_power_cut(), 0).0;
        assert_numbers(&found, 0..RECORDS + seed as usize % 5 + 1, "after the power cut");
    }
}

/// The fork has its name, but not for certain, when its maker dies; the next leader goes on in it.
#[test]
fn a_recovery_makes_sure_of_the_fork_that_it_goes_on_in() {
    for seed in 0..20 {
        let (disk, _old) = built(seed);
        disk.set(Fault::OuterSyncError, true);
        assert!(matches!(fork_after(&disk, 0, 2).1, Err(RecoverError::Io { doing: "sync", .. })));
        assert!(matches!(recover_after(&disk, 0).1, Err(RecoverError::Io { doing: "sync", .. })));
        disk.set(Fault::OuterSyncError, false);
        let (found, recovered) = recover_after(&disk, 0);
        assert_numbers(&found, 0..RECORDS, "recovered");
        let recovered = recovered.expect("a log");
        assert_eq!(recovered.fork(), Some(Epoch(2)));
        let log = start(&disk, recovered, 3);
        block_on(append(&log, RECORDS)).expect("an append");
        assert_numbers(&recover_after(&disk.after_power_cut(), 0).0, 0..RECORDS + 1, "after the power cut");
    }
}

#[test]
fn a_fork_goes_on_through_segments_releases_ends_and_forks() {
    let (disk, _old) = built(3);
    let (mut number, mut released) = (RECORDS, 0);
    for epoch in 2..7 {
        let (found, recovered) = fork_after(&disk, released, epoch);
        assert_numbers(&found, released as usize..number, "forked");
        let log = start(&disk, recovered.expect("a fork"), epoch);
        block_on(async {
            for _ in 0..7 {
                append(&log, number).await.expect("an append");
                number += 1;
            }
            released = number as u64 - 4;
            assert!(log.release(Lsn(released)).await.expect("released").segments > 0);
            append(&log, number).await.expect("an append");
            number += 1;
            // Every other one is taken over while it runs.
            if epoch % 2 == 0 {
                log.close().await.expect("a clean end");
            }
        });
        assert_eq!(names(&disk), [fork_name(Epoch(epoch))], "one log at a time");
        let (found, recovered) = recover_after(&disk.snapshot(), released);
        assert_numbers(&found, released as usize..number, "recovered");
        assert_eq!(recovered.expect("a log").last_lsn(), Lsn(number as u64));
    }
}

/// How an old writer goes on.
#[derive(Debug, Clone, Copy)]
struct GoesOn {
    /// What it left behind is still there when it does.
    remains_stay: bool,
    /// It was itself in a fork.
    in_fork: bool,
    /// The new one has appended before.
    late: bool,
}

/// What an old writer may still do, all of it: a group, the header of the next segment and more segments, a release, a
/// witness.
fn old_writer_goes_on(seed: u64, how: GoesOn) {
    let (disk, mut old) = built(seed);
    if how.in_fork {
        old = start(&disk, fork(&disk, 2).1, 2);
    }
    disk.set(Fault::NoRemove, how.remains_stay);
    let (found, recovered) = fork(&disk, 5);
    disk.set(Fault::NoRemove, false);
    assert_numbers(&found, 0..RECORDS, "forked");
    let look = |expected, what: &str| {
        let (found, recovered) = recover_after(&disk.snapshot(), 0);
        assert_numbers(&found, 0..expected, &format!("{how:?} {what}"));
        assert_eq!(recovered.expect("a log").fork(), Some(Epoch(5)));
    };
    block_on(async {
        let new = start(&disk, recovered, 5);
        let mut next = RECORDS;
        if how.late {
            append(&new, next).await.expect("an append");
            next += 1;
        }
        // Into the segment that was in use, at the place where the new one writes, too.
        old.append(vec![Bytes::from_static(b"of the old writer")]).await.expect("it has its file");
        look(next, "group");
        // And into the next ones.
        for _ in 0..5 {
            let result = old.append(vec![Bytes::from_static(b"of the old writer")]).await;
            assert_eq!(result.is_ok(), how.remains_stay, "its segments are there or gone");
        }
        look(next, "segments");
        let _ = old.release(Lsn(5)).await;
        look(next, "release");
        let _ = old.close().await;
        look(next, "witness");
        for _ in 0..6 {
            append(&new, next).await.expect("an append");
            next += 1;
        }
        new.close().await.expect("a clean end");
        look(next, "goes on");
    });
    // A recovery in place removes what the old one has made.
    assert!(recover_after(&disk, 0).1.is_ok());
    assert_eq!(names(&disk), [fork_name(Epoch(5))], "{how:?}");
}

#[test]
fn an_old_writer_that_goes_on_reaches_nothing_of_the_fork() {
    for bits in 0..8 {
        let how = GoesOn { remains_stay: bits & 1 == 1, in_fork: bits & 2 == 2, late: bits & 4 == 4 };
        (0..4).for_each(|seed| old_writer_goes_on(seed, how));
    }
}

#[test]
fn where_files_have_one_name_only_they_are_copied() {
    let (disk, old) = built(4);
    disk.set(Fault::NoLinks, true);
    drop(fork(&disk, 2));
    drop(old);
    assert_numbers(&recover_after(&disk.after_power_cut(), 0).0, 0..RECORDS, "copied");
}

#[test]
fn a_torn_last_write_is_left_out_and_stays_where_it_was() {
    let (disk, _old) = built(5);
    let last = segment_name(3);
    for missing in 1..255u32 {
        let torn = disk.snapshot();
        torn.tamper(&last, |bytes| {
            for sector in (0..8).filter(|sector| missing >> sector & 1 == 1) {
                bytes[4096 + sector * SECTOR_BYTES..][..SECTOR_BYTES].fill(0);
            }
        });
        torn.set(Fault::NoRemove, true);
        let before = torn.content(&last);
        let (found, recovered) = fork(&torn, 2);
        assert_numbers(&found, 0..RECORDS - 1, "forked");
        let cut = recovered.cut().expect("something was left out");
        assert_eq!((cut.sequence, cut.offset, cut.bytes), (3, 4096, 4096));
        assert!(torn.content(&last) == before, "the old log is left alone");
        let copied = home(&torn, 2).content(&last);
        assert_eq!(copied.len(), before.len());
        assert!(copied[4096..].iter().all(|byte| *byte == 0));
        block_on(append(&start(&torn, recovered, 2), RECORDS - 1)).expect("an append");
    }
}

/// The old writer was stopped while it wrote the header of the next segment, or right behind it.
#[test]
fn a_torn_header_leaves_the_segment_behind_that_was_made_ready() {
    let (disk, old) = built(5);
    for number in [RECORDS, RECORDS + 1] {
        block_on(append(&old, number)).expect("an append");
    }
    let next = segment_name(4);
    for missing in 0..256u32 {
        let torn = disk.snapshot();
        torn.tamper(&next, |bytes| {
            bytes[4096..].fill(0);
            for sector in (0..8).filter(|sector| missing >> sector & 1 == 1) {
                bytes[sector * SECTOR_BYTES..][..SECTOR_BYTES].fill(0);
            }
        });
        // The one after it is no header's business.
        root(&torn).remove(&segment_name(5)).ok();
        let (found, recovered) = fork(&torn, 2);
        assert_numbers(&found, 0..RECORDS + 1, &format!("without the sectors {missing:b}"));
        assert_eq!(names(&home(&torn, 2)).contains(&next), missing == 0, "the header was whole");
        block_on(append(&start(&torn, recovered, 2), RECORDS + 1)).expect("an append");
    }
}

/// While the old writer is in the middle of something, a reading may look like damage.
#[test]
fn a_torn_reading_is_read_again_and_nothing_is_handed_out_twice() {
    let (disk, _old) = built(6);
    let damages: [fn(&SimDisk); 2] = [
        |disk| disk.tamper(&segment_name(3), |bytes| bytes[4100] ^= 1),
        |disk| root(disk).rename(&segment_name(2), "aside").expect("renamed"),
    ];
    let repairs: [fn(&SimDisk); 2] = [
        |disk| disk.tamper(&segment_name(3), |bytes| bytes[4100] ^= 1),
        |disk| root(disk).rename("aside", &segment_name(2)).expect("renamed"),
    ];
    for (damage, repair) in damages.into_iter().zip(repairs) {
        for whole_after in [1, REREADS_MAX, REREADS_MAX + 1] {
            let disk = disk.snapshot();
            damage(&disk);
            let before = names(&disk);
            let rests = Cell::new(0);
            let records = RefCell::new(Vec::new());
            let mut rest = || {
                rests.set(rests.get() + 1);
                if rests.get() == whole_after {
                    repair(&disk);
                }
            };
            let forked = forking(&disk, 0, 2).run(&mut || Ok(()), &mut rest, &mut |lsn, epoch, record| {
                records.borrow_mut().push((lsn, epoch, record.to_vec()));
                Ok(())
            });
            assert_eq!(rests.get(), whole_after.min(REREADS_MAX));
            if whole_after <= REREADS_MAX {
                assert!(forked.is_ok(), "{:?}", forked.err());
                assert_numbers(&records.into_inner(), 0..RECORDS, "once");
            } else {
                // It is believed in the end.
                assert!(matches!(
                    forked,
                    Err(RecoverError::Corrupt { .. } | RecoverError::MissingSegment { .. })
                ));
                assert_eq!((records.into_inner().len(), names(&disk)), (0, before));
            }
        }
    }
}

/// The old writer finishes its group while the log is handed out: the fork has what was read before.
#[test]
fn what_the_old_writer_adds_meanwhile_is_not_in_the_fork() {
    let (disk, old) = built(7);
    let mut found = 0;
    let recovered = forking(&disk, 0, 2).run(&mut || Ok(()), &mut || (), &mut |_, _, _| {
        found += 1;
        if found == 1 {
            block_on(append(&old, RECORDS)).expect("an append");
        }
        Ok(())
    });
    assert_eq!((found, recovered.expect("a fork").last_lsn()), (RECORDS, Lsn(RECORDS as u64)));
    assert_numbers(&recover_after(&disk, 0).0, 0..RECORDS, "recovered");
}

#[test]
fn a_full_disk_is_told_and_leaves_the_old_log_as_it_was() {
    let (disk, _old) = built(8);
    // The old log, and from nothing to a whole segment more.
    for room in [0, 512, SEGMENT_BYTES - 1, SEGMENT_BYTES, SEGMENT_BYTES + 511] {
        let disk = disk.snapshot();
        disk.set_capacity(4 * SEGMENT_BYTES + room);
        let before = names(&disk);
        let (found, refused) = fork_after(&disk, 0, 2);
        let refused = refused.expect_err("no room").to_string();
        assert!(refused.contains("cannot fork the log to") && refused.contains("No space left"), "{refused}");
        assert_eq!((found.len(), names(&disk)), (0, before));
        disk.set_capacity(5 * SEGMENT_BYTES + 512);
        let (found, _) = fork(&disk, 2);
        assert_numbers(&found, 0..RECORDS, "once there is room");
    }
}

#[test]
fn a_record_that_is_not_taken_ends_the_fork() {
    let (disk, _old) = built(9);
    let before = names(&disk);
    let refused = forking(&disk, 0, 2).run(&mut || Ok(()), &mut || (), &mut |lsn, _, _| match lsn {
        Lsn(3) => Err("no room".into()),
        _ => Ok(()),
    });
    assert!(matches!(refused, Err(RecoverError::Replay { lsn: Lsn(3), .. })));
    assert_eq!(names(&disk), before);
}

#[test]
fn a_fork_of_an_epoch_that_has_been_is_refused() {
    let (disk, _old) = built(10);
    drop(fork(&disk, 5));
    for (asked, found) in [(4, 5), (5, 5)] {
        match fork_after(&disk, 0, asked).1 {
            Err(RecoverError::StaleFork { asked: Epoch(a), found: Epoch(f), .. }) => {
                assert_eq!((a, f), (asked, found));
            }
            other => panic!("{:?}", other.map(|it| it.last_lsn())),
        }
    }
    let log = start(&disk, recover_after(&disk, 0).1.expect("a log"), 9);
    block_on(append(&log, RECORDS)).expect("an append");
    drop(log);
    assert!(matches!(fork_after(&disk, 0, 8).1, Err(RecoverError::StaleFork { found: Epoch(9), .. })));
    drop(fork(&disk, 9));
    assert_eq!(names(&disk), [fork_name(Epoch(9))]);
}

#[test]
fn an_empty_log_can_be_forked_and_is_still_seen() {
    let disk = SimDisk::new(1);
    let (_, recovered) = fork(&disk, 1);
    assert_eq!(recovered.last_lsn(), Lsn(0));
    let log = start(&disk, recovered, 1);
    let (found, recovered) = fork(&disk, 2);
    assert_eq!((found.len(), recovered.last_lsn()), (0, Lsn(0)));
    // Before it is started.
    let segments = names(&home(&disk, 2)).iter().filter(|name| segment_sequence(name).is_some()).count();
    assert_eq!(segments, 1);
    drop(log);
    let log = start(&disk, recovered, 2);
    block_on(append(&log, 0)).expect("an append");
    block_on(log.close()).expect("a clean end");
    assert_numbers(&recover_after(&disk, 0).0, 0..1, "recovered");
}

/// A leader that is replaced in the middle of a fork must not finish it beneath the next leader.
#[test]
fn nobody_goes_on_in_a_log_while_it_is_being_forked() {
    let (disk, _old) = built(11);
    let mut looked = 0;
    let recovered = forking(&disk, 0, 2).run(&mut || Ok(()), &mut || (), &mut |_, _, _| {
        // The old writer is dead by now: nothing but the fork is locked.
        let inside = disk.clone();
        let refused = recover_after(&inside, 0).1;
        assert!(matches!(refused, Err(RecoverError::InUse { .. })), "the fork is being made");
        looked += 1;
        Ok(())
    });
    assert_eq!(looked, RECORDS);
    // Now the fork itself is locked.
    assert!(matches!(recover_after(&disk, 0).1, Err(RecoverError::InUse { .. })));
    drop(recovered);
    assert!(recover_after(&disk, 0).1.is_ok());
}

#[test]
fn the_proof_comes_when_the_fork_can_be_seen_and_before_anything_is_read() {
    let (disk, _old) = built(12);
    let before = names(&disk);
    let mut proofs = 0;
    let refused = forking(&disk, 0, 2).run(
        &mut || {
            proofs += 1;
            assert!(matches!(recover_after(&disk, 0).1, Err(RecoverError::InUse { .. })));
            // It would be refused for that, were it read.
            disk.tamper(&segment_name(1), |bytes| bytes[100] ^= 1);
            Err("epoch 3 leads".into())
        },
        &mut || panic!("it is not read"),
        &mut |_, _, _| panic!("it is not read"),
    );
    let refused = refused.expect_err("another leads");
    assert!(matches!(refused, RecoverError::NotLeading { .. }));
    assert!(refused.to_string().ends_with("is not forked: epoch 3 leads"), "{refused}");
    assert_eq!((proofs, names(&disk)), (1, before));
}

/// The log is forked away between the look for it and its lock.
#[test]
fn a_log_that_moves_while_it_is_being_locked_is_found() {
    for (locked, expected) in [(false, Some(3)), (true, None)] {
        let (disk, _old) = built(15);
        drop(fork(&disk, 2));
        let (other, kept) = (disk.clone(), Arc::new(Mutex::new(None)));
        let keep = kept.clone();
        disk.before_lock(move || {
            let recovered = fork(&other, 3).1;
            *keep.lock().expect("no panic") = locked.then_some(recovered);
        });
        let (found, recovered) = recover_after(&disk, 0);
        match expected {
            Some(epoch) => {
                assert_numbers(&found, 0..RECORDS, "recovered");
                assert_eq!(recovered.expect("a log").fork(), Some(Epoch(epoch)));
            }
            None => assert!(matches!(recovered, Err(RecoverError::InUse { .. }))),
        }
        drop(kept);
    }
    // The older one is still there.
    let (disk, _old) = built(16);
    let other = disk.clone();
    disk.before_lock(move || {
        other.set(Fault::NoRemove, true);
        drop(fork(&other, 2));
    });
    assert_eq!(recover_after(&disk, 0).1.expect("a log").fork(), Some(Epoch(2)));
}

/// A leader of epoch 2 that was replaced finishes its fork and removes what it has forked while epoch 3 reads that.
#[test]
fn a_log_that_is_forked_away_while_it_is_read_is_read_again() {
    for (late, expected) in [(2, Ok(3)), (4, Err(()))] {
        let (disk, _old) = built(18);
        let other = disk.clone();
        let mut prove = || {
            let other = other.clone();
            disk.before_list(move || drop(fork(&other, late)));
            Ok(())
        };
        let mut found = Vec::new();
        let forked = forking(&disk, 0, 3).run(&mut prove, &mut || (), &mut |lsn, epoch, record| {
            found.push((lsn, epoch, record.to_vec()));
            Ok(())
        });
        match expected {
            Ok(epoch) => {
                assert_eq!(forked.expect("a fork").fork(), Some(Epoch(epoch)));
                assert_numbers(&found, 0..RECORDS, "handed out");
                assert_numbers(&recover_after(&disk, 0).0, 0..RECORDS, "recovered");
            }
            Err(()) => {
                let stale = matches!(forked, Err(RecoverError::StaleFork { found: Epoch(4), .. }));
                assert!(stale && found.is_empty(), "{forked:?}");
            }
        }
    }
}

/// Whoever is replaced while it recovers does not go on with what nobody reads any more.
#[test]
fn a_recovery_ends_when_the_log_is_forked_away_beneath_it() {
    let (disk, _old) = built(17);
    drop(fork(&disk, 2));
    let mut newer = None;
    let refused = recover_in(&root(&disk), CLUSTER, Lsn(0), &mut |lsn, _, _| {
        if lsn == Lsn(2) {
            disk.set(Fault::NoRemove, true);
            newer = Some(fork(&disk, 3).1);
        }
        Ok(())
    });
    assert!(matches!(refused, Err(RecoverError::InUse { .. })));
    disk.set(Fault::NoRemove, false);
    drop(newer);
    assert_eq!(recover_after(&disk, 0).1.expect("a log").fork(), Some(Epoch(3)));
}

/// A newer leader may have a fork in the making; an older one that comes late leaves it alone.
#[test]
fn unfinished_forks_are_removed_unless_somebody_newer_or_alive_makes_them() {
    let (disk, _old) = built(13);
    for epoch in [2, 4, 8] {
        root(&disk).create_folder(&unfinished_fork_name(Epoch(epoch))).expect("made");
    }
    let unfinished = disk.within(&unfinished_fork_name(Epoch(2)));
    Folder::Sim(unfinished).create(&segment_name(1), b"half").expect("made");
    let living = root(&disk).within(&unfinished_fork_name(Epoch(4))).lock().expect("a lock");
    drop(fork(&disk, 6));
    let left = [unfinished_fork_name(Epoch(4)), fork_name(Epoch(6)), unfinished_fork_name(Epoch(8))];
    assert_eq!(names(&disk), left);
    assert!(matches!(recover_after(&disk, 0).1, Err(RecoverError::InUse { .. })), "somebody makes one");
    drop(living);
    assert!(recover_after(&disk, 0).1.is_ok());
    assert_eq!(names(&disk), [fork_name(Epoch(6))], "nobody makes one");
}

/// A fork that a replaced leader finishes late is older than the one of its successor, and no matter.
#[test]
fn a_fork_that_is_finished_late_is_not_the_log() {
    let (disk, _old) = built(14);
    let mut newer = None;
    let late = forking(&disk, 0, 2).run(&mut || Ok(()), &mut || (), &mut |lsn, _, _| {
        if lsn == Lsn(1) {
            let log = start(&disk, fork(&disk, 3).1, 3);
            block_on(append(&log, RECORDS)).expect("an append");
            newer = Some(log);
        }
        Ok(())
    });
    assert!(matches!(late, Err(RecoverError::StaleFork { asked: Epoch(2), found: Epoch(3), .. })));
    block_on(newer.expect("a log").close()).expect("a clean end");
    let (found, recovered) = recover_after(&disk, 0);
    assert_numbers(&found, 0..RECORDS + 1, "recovered");
    assert_eq!(recovered.expect("a log").fork(), Some(Epoch(3)));
    assert_eq!(names(&disk), [fork_name(Epoch(3))]);
}
