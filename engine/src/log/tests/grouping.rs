//! Group commit, counted and not timed: the disk waits until it is told to go on.

use distrifs_proto::types::Lsn;
use tokio::sync::Semaphore;

use super::super::limits::{GROUP_BYTES_MAX, QUEUE_BYTES_MAX, SEGMENT_BYTES_DEFAULT};
use super::{block_on, fresh, record, recover_sim, submit};

/// R15: at 64 concurrent appends at most one sync per 16.
#[test]
fn concurrent_appends_share_writes() {
    const ROUNDS: u64 = 10;
    const APPENDERS: u64 = 64;
    let (disk, log) = fresh(1, SEGMENT_BYTES_DEFAULT);
    let mut next = 1;
    for round in 0..ROUNDS {
        let gate = disk.close_gate();
        let appends: Vec<_> = (0..APPENDERS).map(|i| submit(&log, vec![record(i as usize, 100)])).collect();
        gate.add_permits(Semaphore::MAX_PERMITS);
        block_on(async {
            for append in appends {
                let lsns = append.await.expect("an append");
                assert_eq!((lsns.start, lsns.end), (Lsn(next), Lsn(next + 1)), "round {round}");
                next += 1;
            }
        });
    }
    let stats = log.stats();
    assert_eq!((stats.appends, stats.records), (ROUNDS * APPENDERS, ROUNDS * APPENDERS));
    assert!(stats.syncs <= ROUNDS * APPENDERS / 16, "{stats:?}");
    // The first of a round may go alone; those that wait behind it go together.
    assert!(stats.groups <= 2 * ROUNDS, "{stats:?}");
}

/// R15: a lone append costs one durable write.
#[test]
fn a_lone_append_costs_one_write_of_one_block() {
    let (_, log) = fresh(1, SEGMENT_BYTES_DEFAULT);
    block_on(log.append(vec![record(0, 100)])).expect("an append");
    let before = log.stats();
    for i in 0..10 {
        block_on(log.append(vec![record(i, 3900)])).expect("an append");
    }
    let after = log.stats();
    assert_eq!((after.syncs - before.syncs, after.bytes - before.bytes), (10, 10 * 4096));
    assert_eq!((after.groups, after.segments, after.body), (11, 1, "simulated"));
}

#[test]
fn a_full_queue_pushes_back_and_loses_nothing() {
    let (disk, log) = fresh(1, SEGMENT_BYTES_DEFAULT);
    let gate = disk.close_gate();
    let most = QUEUE_BYTES_MAX / GROUP_BYTES_MAX;
    let mut appends: Vec<_> =
        (0..3 * most).map(|i| submit(&log, vec![record(i, GROUP_BYTES_MAX - 4)])).collect();
    // Those that did not fit into the queue are still with their callers: dropped, they never reach the log.
    let waiting: Vec<_> = appends.drain(..most).collect();
    drop(appends);
    gate.add_permits(Semaphore::MAX_PERMITS);
    block_on(async {
        for append in waiting {
            append.await.expect("an append");
        }
        log.close().await.expect("a clean end");
    });
    let (found, _) = recover_sim(&disk);
    assert_eq!(found.len(), most);
}
