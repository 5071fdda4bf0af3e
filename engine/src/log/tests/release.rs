//! Letting go of segments: which ones, in which order with the appends, and what happens when it fails.

use distrifs_proto::types::{Epoch, Lsn};

use super::super::error::{LogError, RecoverError};
use super::super::format::{segment_name, segment_sequence};
use super::super::handle::Log;
use super::super::limits::SEGMENT_BYTES_MIN;
use super::super::options::LogOptions;
use super::super::release::Released;
use super::{CLUSTER, block_on, fresh, record, recover_after, recover_sim, start_sim};
use crate::folder::{Body, Fault, Folder, SimDisk};

fn sequences(disk: &SimDisk) -> Vec<u64> {
    let names = Folder::Sim(disk.clone()).list().expect("a list");
    names.iter().filter_map(|(name, _)| segment_sequence(name)).collect()
}

/// One record, in a segment of its own when those are the smallest.
async fn append(log: &Log, number: usize) -> Result<Lsn, LogError> {
    log.append(vec![record(number, 3000)]).await.map(|lsns| lsns.start)
}

/// A log with ten records, each in a segment of its own, and one segment that is ready.
fn ten() -> (SimDisk, Log) {
    let (disk, log) = fresh(5, SEGMENT_BYTES_MIN);
    block_on(async {
        for i in 0..10 {
            append(&log, i).await.expect("an append");
        }
    });
    (disk, log)
}

#[test]
fn whole_segments_go_and_never_the_one_in_use() {
    for (upto, expected) in [(0, 0), (1, 1), (7, 7), (9, 9), (10, 9), (u64::MAX, 9)] {
        let (disk, log) = ten();
        block_on(async {
            let released = log.release(Lsn(upto)).await.expect("released");
            let first_lsn = Lsn(expected + 1);
            let bytes = expected * SEGMENT_BYTES_MIN;
            assert_eq!(released, Released { segments: expected, bytes, left: 0, first_lsn }, "{upto}");
            assert_eq!(log.stats().first_lsn, first_lsn);
            let again = log.release(Lsn(upto)).await.expect("released");
            assert_eq!((again.segments, again.first_lsn), (0, first_lsn));
            assert_eq!(append(&log, 10).await.expect("an append"), Lsn(11));
            log.close().await.expect("a clean end");
        });
        assert_eq!(sequences(&disk), (expected + 1..=12).collect::<Vec<_>>());
        let (found, recovered) = recover_after(&disk, expected);
        let recovered = recovered.expect("a log");
        assert_eq!((recovered.first_lsn(), recovered.last_lsn()), (Lsn(expected + 1), Lsn(11)));
        assert_eq!(found.len() as u64, 11 - expected);
        let log = start_sim(&disk, recovered, 1, SEGMENT_BYTES_MIN).expect("a log");
        let stats = log.stats();
        assert_eq!(stats.kept_segments, 12 - expected);
        assert_eq!((stats.kept_bytes, stats.first_lsn), ((12 - expected) * 8192, Lsn(expected + 1)));
        if expected > 0 {
            block_on(log.close()).expect("a clean end");
            assert!(matches!(recover_sim(&disk).1, Err(RecoverError::Released { needed: Lsn(1), .. })));
        }
    }
}

#[test]
fn a_log_that_was_released_and_gets_no_more_records_keeps_its_place() {
    let (disk, log) = ten();
    block_on(async {
        log.release(Lsn(10)).await.expect("released");
        log.close().await.expect("a clean end");
    });
    for life in 2..5 {
        let (found, recovered) = recover_after(&disk, 10);
        let recovered = recovered.expect("a log");
        assert_eq!((found.len(), recovered.first_lsn(), recovered.last_lsn()), (0, Lsn(10), Lsn(10)));
        let log = start_sim(&disk, recovered, life, SEGMENT_BYTES_MIN).expect("a log");
        block_on(log.close()).expect("a clean end");
    }
    // Losing the one segment with a record is noticed, whether it is zero or gone.
    let zeroed = disk.snapshot();
    zeroed.tamper(&segment_name(10), |bytes| bytes.fill(0));
    assert!(recover_after(&zeroed, 10).1.is_err());
    Folder::Sim(disk.clone()).remove(&segment_name(10)).expect("a segment");
    assert!(matches!(recover_after(&disk, 10).1, Err(RecoverError::MissingSegment { .. })));
}

#[test]
fn appends_go_on_while_segments_are_being_removed() {
    let (disk, log) = ten();
    let held = disk.hold_removals();
    block_on(async {
        let releasing = tokio::task::LocalSet::new();
        let other = log.clone();
        let released = releasing.spawn_local(async move { other.release(Lsn(5)).await });
        releasing
            .run_until(async {
                tokio::task::yield_now().await;
                for i in 10..20 {
                    append(&log, i).await.expect("an append");
                }
                assert!(!released.is_finished());
                drop(held);
                assert_eq!(released.await.expect("a task").expect("released").segments, 5);
            })
            .await;
        log.close().await.expect("a clean end");
    });
    assert_eq!(recover_after(&disk, 5).0.len(), 15);
}

#[test]
fn a_dropped_release_is_carried_out_and_a_close_waits_for_it() {
    let (disk, log) = ten();
    block_on(async {
        let mut release = Box::pin(log.release(Lsn(4)));
        // Handed over; mostly dropped before it has come to an end.
        let _ = futures_poll(release.as_mut());
        drop(release);
        log.close().await.expect("a clean end");
    });
    assert_eq!(sequences(&disk)[0], 5);
}

fn futures_poll<F: Future>(future: std::pin::Pin<&mut F>) -> std::task::Poll<F::Output> {
    future.poll(&mut std::task::Context::from_waker(std::task::Waker::noop()))
}

#[test]
fn segments_that_cannot_be_removed_poison_nothing_and_are_tried_again() {
    let (disk, log) = ten();
    block_on(async {
        // The segment after the one in use is made in the background, and counts once it is there.
        while log.stats().kept_segments < 11 {
            tokio::task::yield_now().await;
        }
        disk.set(Fault::NoRemove, true);
        let released = log.release(Lsn(3)).await.expect("the log goes on");
        assert_eq!((released.segments, released.left, released.first_lsn), (0, 3, Lsn(4)));
        assert_eq!(log.stats().kept_segments, 11);
        append(&log, 10).await.expect("an append");
        disk.set(Fault::NoRemove, false);
        let released = log.release(Lsn(3)).await.expect("released");
        assert_eq!((released.segments, released.left), (3, 0));
        disk.set(Fault::NoRemove, true);
        assert_eq!(log.release(Lsn(6)).await.expect("the log goes on").left, 3);
        log.close().await.expect("a clean end");
    });
    // The next recovery finishes it.
    disk.set(Fault::NoRemove, false);
    assert_eq!(sequences(&disk)[0], 4);
    let (found, recovered) = recover_after(&disk, 6);
    assert_eq!((found.len(), recovered.expect("a log").first_lsn()), (5, Lsn(7)));
    assert_eq!(sequences(&disk)[0], 7);
}

#[test]
fn a_witness_that_cannot_be_written_keeps_all_segments() {
    let (disk, log) = ten();
    block_on(async {
        // The segment after this one is ready, so that nothing else wants space.
        while log.stats().kept_segments < 11 {
            tokio::task::yield_now().await;
        }
        disk.set(Fault::NoSpace, true);
        assert!(matches!(log.release(Lsn(3)).await, Err(LogError::NoSpace { .. })));
        assert_eq!(sequences(&disk).len(), 11);
        disk.set(Fault::NoSpace, false);
        assert_eq!(log.release(Lsn(3)).await.expect("released").segments, 3);
        log.close().await.expect("a clean end");
    });
}

#[test]
fn a_poisoned_log_releases_nothing() {
    let (disk, log) = ten();
    block_on(async {
        disk.set(Fault::WriteError, true);
        assert!(matches!(append(&log, 10).await, Err(LogError::Poisoned { .. })));
        assert!(matches!(log.release(Lsn(3)).await, Err(LogError::Poisoned { .. })));
    });
    assert_eq!(sequences(&disk)[0], 1);
}

#[test]
fn appends_that_were_refused_for_want_of_segments_go_on() {
    let disk = SimDisk::new(8);
    let recovered = recover_sim(&disk).1.expect("an empty log");
    let options = LogOptions {
        segment_bytes: SEGMENT_BYTES_MIN,
        segments_max: 5,
        ..LogOptions::new(std::path::PathBuf::new(), CLUSTER, Epoch(1))
    };
    let log = Log::start_in(Folder::Sim(disk.clone()), Body::Sim, &options, recovered, rand::random);
    let log = log.expect("a log");
    block_on(async {
        let mut last = Lsn(0);
        for _ in 0..3 {
            let refused = loop {
                match append(&log, last.0 as usize).await {
                    Ok(lsn) => last = lsn,
                    Err(refused) => break refused,
                }
                assert!(sequences(&disk).len() <= 5);
            };
            assert!(matches!(refused, LogError::NoSpace { .. }), "{refused}");
            assert!(log.release(last).await.expect("released").segments > 0);
        }
        assert_eq!(last, Lsn(4 + 2 * 3), "four fit, then each time as many as were released");
        log.close().await.expect("a clean end");
    });
}

#[test]
fn appends_that_were_refused_for_want_of_space_go_on() {
    let (disk, log) = fresh(8, SEGMENT_BYTES_MIN);
    disk.set_capacity(6 * SEGMENT_BYTES_MIN + 1024);
    let last = block_on(async {
        let mut last = Lsn(0);
        for _ in 0..3 {
            let refused = loop {
                match append(&log, last.0 as usize).await {
                    Ok(lsn) => last = lsn,
                    Err(refused) => break refused,
                }
            };
            assert!(matches!(refused, LogError::NoSpace { .. }), "{refused}");
            assert!(log.release(last).await.expect("released").segments > 0);
        }
        assert!(last > Lsn(15), "{last}");
        log.close().await.expect("a clean end");
        last
    });
    let (found, recovered) = recover_after(&disk, last.0 - 1);
    assert_eq!((recovered.expect("a log").last_lsn(), found.len()), (last, 1));
}
