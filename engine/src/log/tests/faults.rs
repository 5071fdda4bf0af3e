//! Faults of the disk: a failed write poisons, a full disk does not.

use bytes::Bytes;
use distrifs_proto::types::{Epoch, Lsn};
use tokio::sync::Semaphore;

use super::super::error::LogError;
use super::super::format::BLOCK_BYTES;
use super::super::limits::{GROUP_BYTES_MAX, GROUP_RECORDS_MAX, SEGMENT_BYTES_DEFAULT, SEGMENT_BYTES_MIN};
use super::{block_on, fresh, record, recover_sim, start_sim, submit};
use crate::folder::{Fault, SimDisk};

#[test]
fn after_a_failed_or_short_write_nothing_is_acknowledged() {
    for (fault, seed) in
        [Fault::WriteError, Fault::ShortWrite].into_iter().flat_map(|f| (0..20).map(move |s| (f, s)))
    {
        let (disk, log) = fresh(seed, 65536);
        let good = block_on(log.append(vec![record(1, 10), record(2, 10)])).expect("an append");
        assert_eq!((good.start, good.end), (Lsn(1), Lsn(3)));

        let gate = disk.close_gate();
        let waiting: Vec<_> = (0..10).map(|i| submit(&log, vec![record(i, 2000)])).collect();
        disk.set(fault, true);
        gate.add_permits(Semaphore::MAX_PERMITS);
        block_on(async {
            for append in waiting {
                match append.await {
                    Err(LogError::Poisoned { since, .. }) => assert_eq!(since, Lsn(3)),
                    other => panic!("{fault:?}: {other:?}"),
                }
            }
            let writes = disk.writes();
            assert!(matches!(log.append(vec![record(3, 10)]).await, Err(LogError::Poisoned { .. })));
            assert_eq!(disk.writes(), writes, "no write is tried again");
            assert!(matches!(log.close().await, Err(LogError::Poisoned { .. })));
        });

        let (found, recovered) = recover_sim(&disk.after_power_cut());
        assert!(recovered.is_ok(), "{fault:?} seed {seed}: {:?}", recovered.err());
        assert_eq!(found[1].2, record(2, 10));
        assert!(found.len() <= 12, "at most the group in flight, whole");
    }
}

#[test]
fn a_full_disk_refuses_what_needs_a_segment_and_heals() {
    // One group a segment.
    let (disk, log) = fresh(1, SEGMENT_BYTES_MIN);
    block_on(async {
        let mut acknowledged = vec![];
        disk.set(Fault::NoSpace, true);
        // One segment was made ready by the start; the one after that cannot be.
        for i in 0.. {
            match log.append(vec![record(i, 3000)]).await {
                Ok(lsns) => acknowledged.push((lsns.start, record(i, 3000).to_vec())),
                Err(LogError::NoSpace { .. }) => break,
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!(acknowledged.len(), 1);
        assert!(matches!(log.append(vec![record(50, 10)]).await, Err(LogError::NoSpace { .. })));
        assert_eq!(log.stats().no_space, 2);

        disk.set(Fault::NoSpace, false);
        for i in 100..105 {
            let lsns = log.append(vec![record(i, 3000)]).await.expect("room again");
            acknowledged.push((lsns.start, record(i, 3000).to_vec()));
        }
        log.close().await.expect("a clean end");
        let (found, recovered) = recover_sim(&disk);
        assert_eq!(recovered.expect("a log").last_lsn(), Lsn(6));
        assert_eq!(found.into_iter().map(|(lsn, _, r)| (lsn, r)).collect::<Vec<_>>(), acknowledged);
    });
}

/// The next segment was tried in the background while the disk was full; by the time it is needed there is room.
#[test]
fn an_append_is_not_refused_for_a_want_of_space_that_has_passed() {
    let (disk, log) = fresh(1, SEGMENT_BYTES_MIN);
    disk.set(Fault::NoSpace, true);
    block_on(log.append(vec![record(1, 10)])).expect("the first segment is there");
    while disk.refused() == 0 {
        std::thread::yield_now();
    }
    disk.set(Fault::NoSpace, false);
    block_on(log.append(vec![record(2, 10)])).expect("there is room");
    assert_eq!(log.stats().no_space, 0);
}

/// The last quarter of the last segment is for what frees space (R21), before and after a start on the full disk.
#[test]
fn what_frees_space_goes_on_for_a_while_on_a_full_disk() {
    const BLOCKS: usize = 17;
    let (disk, log) = fresh(1, (BLOCKS * BLOCK_BYTES) as u64);
    let one = |i| vec![record(i, 3000)];
    let mut kept = 0;
    block_on(async {
        disk.set(Fault::NoSpace, true);
        while log.append(one(kept)).await.is_ok() {
            kept += 1;
        }
        assert_eq!(kept, BLOCKS - 1 - BLOCKS / 4, "a header, the groups, and what is kept back");
        // Beside one that is refused.
        let (refused, taken) = tokio::join!(log.append(one(50)), log.append_from_reserve(one(kept)));
        assert!(matches!(refused, Err(LogError::NoSpace { .. })));
        taken.expect("kept back for it");
        kept += 1;
        log.close().await.expect_err("the witness has no room");
    });
    let (_, recovered) = recover_sim(&disk);
    let log =
        start_sim(&disk, recovered.expect("a log"), 2, (BLOCKS * BLOCK_BYTES) as u64).expect("it goes on");
    block_on(async {
        assert!(matches!(log.append(one(50)).await, Err(LogError::NoSpace { .. })));
        while log.append_from_reserve(one(kept)).await.is_ok() {
            kept += 1;
        }
        assert_eq!(kept, BLOCKS - 1, "to the last block");
        disk.set(Fault::NoSpace, false);
        log.append(one(kept)).await.expect("room again");
        log.close().await.expect("a clean end");
    });
    let (found, recovered) = recover_sim(&disk);
    assert_eq!(recovered.expect("a log").last_lsn(), Lsn(BLOCKS as u64));
    assert!(
        found.iter().enumerate().all(|(i, (_, _, bytes))| *bytes == record(i, 3000)),
        "all, and no other"
    );
}

#[test]
fn a_log_is_not_started_on_a_full_disk() {
    let disk = SimDisk::new(1);
    disk.set(Fault::NoSpace, true);
    let recovered = recover_sim(&disk).1.expect("an empty log");
    assert!(matches!(start_sim(&disk, recovered, 1, 65536), Err(LogError::NoSpace { .. })));
    disk.set(Fault::NoSpace, false);
    let recovered = recover_sim(&disk).1.expect("an empty log");
    let log = start_sim(&disk, recovered, 1, 65536).expect("a log");
    assert_eq!(block_on(log.append(vec![record(1, 1)])).expect("an append").start, Lsn(1));
}

#[test]
fn what_cannot_be_appended_is_refused_and_writes_nothing() {
    let (_, log) = fresh(1, SEGMENT_BYTES_DEFAULT);
    block_on(async {
        assert!(matches!(log.append(vec![]).await, Err(LogError::Empty)));
        let most = Bytes::from(vec![7; GROUP_BYTES_MAX - 4]);
        let more = Bytes::from(vec![7; GROUP_BYTES_MAX - 3]);
        assert!(matches!(log.append(vec![more]).await, Err(LogError::TooLarge { .. })));
        let many = vec![Bytes::new(); GROUP_RECORDS_MAX + 1];
        assert!(matches!(log.append(many).await, Err(LogError::TooLarge { .. })));
        assert_eq!(log.stats().syncs, 0);
        assert_eq!(log.append(vec![most]).await.expect("the largest").end, Lsn(2));
        assert_eq!(log.append(vec![Bytes::new(); GROUP_RECORDS_MAX]).await.expect("the most").start, Lsn(2));
    });
}

#[test]
fn a_closed_log_takes_nothing() {
    let (_, log) = fresh(1, 65536);
    let other = log.clone();
    block_on(async {
        log.close().await.expect("a clean end");
        assert!(matches!(other.append(vec![record(1, 1)]).await, Err(LogError::Closed)));
        assert!(matches!(other.close().await, Err(LogError::Closed)));
    });
}

#[test]
fn epochs_never_go_back_and_are_handed_out_with_the_records() {
    let (disk, log) = fresh(1, SEGMENT_BYTES_MIN);
    block_on(log.append(vec![record(1, 1)])).expect("an append");
    block_on(log.close()).expect("a clean end");
    let recovered = recover_sim(&disk).1.expect("a log");
    let log = start_sim(&disk, recovered, 7, SEGMENT_BYTES_MIN).expect("a log");
    block_on(log.append(vec![record(2, 1)])).expect("an append");
    block_on(log.close()).expect("a clean end");
    let (found, recovered) = recover_sim(&disk);
    assert_eq!(found.iter().map(|(_, epoch, _)| *epoch).collect::<Vec<_>>(), [Epoch(1), Epoch(7)]);
    let recovered = recovered.expect("a log");
    assert_eq!(recovered.last_epoch(), Epoch(7));
    let stale = start_sim(&disk, recovered, 6, SEGMENT_BYTES_MIN);
    assert!(matches!(stale, Err(LogError::StaleEpoch { asked: Epoch(6), found: Epoch(7) })));
}

#[test]
fn a_change_of_the_segment_size_takes_effect() {
    let (disk, log) = fresh(1, SEGMENT_BYTES_MIN);
    block_on(log.append(vec![record(1, 1)])).expect("an append");
    block_on(log.close()).expect("a clean end");
    for (i, bytes) in [65536, SEGMENT_BYTES_MIN, 3 * 4096].into_iter().enumerate() {
        let recovered = recover_sim(&disk).1.expect("a log");
        let log = start_sim(&disk, recovered, 1, bytes).expect("a log");
        for _ in 0..20 {
            block_on(log.append(vec![record(2, 3000)])).expect("an append");
        }
        block_on(log.close()).expect("a clean end");
        assert_eq!(recover_sim(&disk).0.len(), 1 + 20 * (i + 1));
    }
    let recovered = recover_sim(&disk).1.expect("a log");
    assert!(matches!(start_sim(&disk, recovered, 1, 5000), Err(LogError::BadOptions(_))));
}
