use std::sync::Arc;
use std::time::Duration;

use distrifs_engine::log::{Log, LogOptions, recover};
use distrifs_proto::types::{ClusterId, Epoch, RequestId};
use tokio::sync::watch;

use super::{QUEUE_MAX, Writer};
use crate::clock::Clock;
use crate::cluster::{Cluster, Timing};
use crate::config::MasterConfig;
use crate::epoch::Leadership;
use crate::namespace::{Answer, Command, Namespace, NsPath, Operation};
use crate::permission::Groups;
use crate::state::State;

fn mkdir(index: u128) -> Command {
    let path = NsPath::parse(&format!("/d{index}")).expect("a path");
    Command {
        at_ms: 1,
        request: Some(RequestId(index + 1)),
        caller: Groups::new("op").caller("op"),
        operation: Operation::Mkdir { path, parents: false, mode: 0o755 },
    }
}

#[tokio::test]
async fn what_waits_together_shares_one_sync() {
    let dir = tempfile::tempdir().expect("a folder");
    let wal = dir.path().join("wal");
    std::fs::create_dir(&wal).expect("made");
    Leadership::format(dir.path()).expect("formatted");
    let leadership = Leadership::begin(dir.path()).expect("leads");
    let recovered = recover(&wal, ClusterId(1), &mut |_, _, _| Ok(())).expect("empty");
    let log = Log::start(LogOptions::new(wal, ClusterId(1), Epoch(1)), recovered).expect("starts");
    let timing = Timing { heartbeat_interval_ms: 1, heartbeat_timeout_ms: 2 };
    let config = MasterConfig::new(dir.path(), "op");
    let (cluster, namespace) = (Cluster::new(timing, 0), Namespace::new("op"));
    let state = Arc::new(State::new(config, ClusterId(1), Epoch(1), namespace, cluster, Clock::new()));
    let (writer, proposer) = Writer::new(state.clone(), log.clone(), leadership);
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
    let running = tokio::spawn(writer.run(stopped));
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
