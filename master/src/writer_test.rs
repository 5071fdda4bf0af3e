use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use distrifs_engine::log::{Log, LogOptions, recover};
use distrifs_proto::types::{ClusterId, Epoch, Lsn, RequestId};
use tokio::sync::watch;

use super::{Proposer, QUEUE_MAX, Writer};
use crate::clock::Clock;
use crate::cluster::{Cluster, Timing};
use crate::config::MasterConfig;
use crate::error::MasterFailure;
use crate::groups::Groups;
use crate::leadership::Leadership;
use crate::namespace::{Answer, Command, Namespace, NsPath, Operation};
use crate::permission::Caller;
use crate::refusal::Refusal;
use crate::state::State;

fn mkdir(index: u128) -> Command {
    let path = NsPath::parse(&format!("/d{index}")).expect("a path");
    Command {
        at_ms: 1,
        request: Some(RequestId(index + 1)),
        caller: Groups::nobody("op").caller("op"),
        operation: Operation::Mkdir { path, parents: false, mode: 0o755 },
    }
}

/// A writer that is not running yet, its log and state, in a folder of its own.
fn writer(dir: &Path) -> (Writer, Proposer, Log, Arc<State>) {
    writer_with(dir, |_| {})
}

fn writer_with(dir: &Path, change: impl FnOnce(&mut LogOptions)) -> (Writer, Proposer, Log, Arc<State>) {
    let wal = dir.join("wal");
    std::fs::create_dir(&wal).expect("made");
    Leadership::format(dir).expect("formatted");
    let leadership = Leadership::begin(dir).expect("leads");
    let recovered = recover(&wal, ClusterId(1), Lsn(0), &mut |_, _, _| Ok(())).expect("empty");
    let mut options = LogOptions::new(wal, ClusterId(1), Epoch(1));
    change(&mut options);
    let log = Log::start(options, recovered).expect("starts");
    let timing = Timing { heartbeat_interval_ms: 1, heartbeat_timeout_ms: 2, return_ms: 0 };
    let (cluster, namespace) = (Cluster::new(timing, 0), Namespace::new("op"));
    let config = MasterConfig::new(dir, "op");
    let state = State::new(config, ClusterId(1), Epoch(1), namespace, cluster, Clock::new());
    let state = Arc::new(state);
    let (writer, proposer) = Writer::new(state.clone(), log.clone(), leadership);
    (writer, proposer, log, state)
}

#[tokio::test]
async fn what_waits_together_shares_one_sync() {
    let dir = tempfile::tempdir().expect("a folder");
    let (writer, proposer, log, state) = writer(dir.path());
    let mut waiting = tokio::task::JoinSet::new();
    for index in 0..64 {
        let proposer = proposer.clone();
        waiting.spawn(async move { proposer.propose(mkdir(index)).await });
    }
    while proposer.queue.capacity() > QUEUE_MAX - 64 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(state.namespace().counts().directories, 1, "nothing is visible before it is durable");
    let (stop, stopped) = watch::channel(false);
    let running = tokio::spawn(writer.run_beside_the_log(stopped));
    while let Some(answer) = waiting.join_next().await {
        assert_eq!(answer.expect("no panic"), Ok(Answer::Done));
    }
    assert_eq!((log.stats().groups, log.stats().records), (1, 64));
    assert_eq!((state.durable().0, state.namespace().counts().directories), (64, 65));
    stop.send_replace(true);
    running.await.expect("ends");
    let late = proposer.propose(mkdir(99)).await;
    assert!(late.is_err(), "a stopped writer takes nothing");
}

#[tokio::test]
async fn a_log_that_fails_ends_the_master_and_acknowledges_nothing() {
    let dir = tempfile::tempdir().expect("a folder");
    let (writer, proposer, log, state) = writer(dir.path());
    log.close().await.expect("closes");
    let (_stop, stopped) = watch::channel(false);
    let running = tokio::spawn(writer.run_beside_the_log(stopped));
    let unknown = proposer.propose(mkdir(1)).await;
    assert!(matches!(unknown, Err(Refusal::Unknown { .. })), "{unknown:?}");
    running.await.expect("ends by itself");
    assert!(matches!(*state.failure().borrow(), Some(MasterFailure::Log { .. })));
    assert_eq!((state.durable().0, state.namespace().counts().directories), (0, 1));
    let later = proposer.propose(mkdir(2)).await;
    assert!(matches!(later, Err(Refusal::Stopping { .. })), "{later:?}");
}

#[tokio::test]
async fn a_change_that_no_log_takes_is_refused_alone() {
    let dir = tempfile::tempdir().expect("a folder");
    let (writer, proposer, log, state) = writer(dir.path());
    let (_stop, stopped) = watch::channel(false);
    let running = tokio::spawn(writer.run_beside_the_log(stopped));
    let path = NsPath::parse("/x").expect("a path");
    let caller = Caller {
        groups: vec!["g".repeat(log.append_bytes_max())],
        ..Caller::clone(&Groups::nobody("op").caller("op"))
    };
    let caller = Arc::new(caller);
    let operation = Operation::Mkdir { path, parents: false, mode: 0o755 };
    let huge = proposer.propose(Command { caller, operation, ..mkdir(1) }).await;
    assert!(matches!(huge, Err(Refusal::TooLarge { .. })), "{huge:?}");
    assert_eq!(proposer.propose(mkdir(2)).await, Ok(Answer::Done));
    assert_eq!((state.durable().0, running.is_finished()), (1, false));
}

#[tokio::test]
async fn what_frees_space_is_done_when_the_log_has_no_room_for_more() {
    let dir = tempfile::tempdir().expect("a folder");
    // Two segments of 15 groups and no third one: the last quarter is kept back.
    let (writer, proposer, log, state) = writer_with(dir.path(), |options| {
        (options.segment_bytes, options.segments_max) = (16 * 4096, 3);
    });
    let (_stop, stopped) = watch::channel(false);
    let running = tokio::spawn(writer.run_beside_the_log(stopped));
    let remove = |index| {
        let Operation::Mkdir { path, .. } = mkdir(index).operation else { unreachable!() };
        let operation = Operation::Remove { path, recursive: true };
        proposer.propose(Command { operation, request: Some(RequestId(1000 + index)), ..mkdir(index) })
    };
    let mut made = 0;
    let refused = loop {
        match proposer.propose(mkdir(made)).await {
            Ok(_) => made += 1,
            Err(refusal) => break refusal,
        }
    };
    assert!(matches!(refused, Refusal::LogFull { .. }), "{refused:?}");
    assert_eq!(log.stats().groups, 15 + 15 - 4);
    let (removed, grown) = tokio::join!(remove(0), proposer.propose(mkdir(99)));
    assert_eq!(removed, Ok(Answer::Done));
    assert!(matches!(grown, Err(Refusal::LogFull { .. })), "{grown:?}");
    for index in 1..4 {
        assert_eq!(remove(index).await, Ok(Answer::Done));
    }
    let end = remove(4).await;
    assert!(matches!(end, Err(Refusal::LogFull { .. })), "{end:?}");
    let kept = state.namespace().counts().directories;
    assert_eq!((u128::from(kept), running.is_finished()), (1 + made - 4, false));
}
