use distrifs_proto::limits::ORDERS_MAX;
use distrifs_proto::types::{ChunkId, ClusterId, Crc32c, Epoch, GenerationStamp, Lsn, NodeId};
use distrifs_proto::{ErrorCode, InventoryDigest};

use super::{
    Ages, Cluster, Dir, GcOrders, Leader, Load, NodeState, PlacementRefusal, RegisterRefusal, Registration,
    Replica, SessionId, Timing, Verdict, Wanted,
};
use crate::namespace::Tombstone;

const TIMING: Timing = Timing { heartbeat_interval_ms: 10, heartbeat_timeout_ms: 30, return_ms: 0 };
const LEADER: Leader =
    Leader { cluster: ClusterId(7), epoch: Epoch(5), durable: Lsn(100), history: Epoch(0) };
const AGES: Ages = Ages { delay_ms: 10, straggler_ms: 50, absent_ms: 5000 };

fn registration(id: u64, address: &str) -> Registration {
    Registration {
        cluster: Some(ClusterId(7)),
        id: NodeId(id),
        address: address.to_owned(),
        rack: String::new(),
        epoch_seen: Epoch(5),
        lsn_seen: Lsn(100),
    }
}

fn load(free: u64) -> Load {
    let dir = Dir { healthy: true, free_bytes: free, capacity_bytes: free, ..Dir::default() };
    Load { dirs: vec![dir], ..Load::default() }
}

fn replica(chunk: u64) -> Replica {
    let (generation, crc) = (GenerationStamp(1), Crc32c(chunk as u32));
    Replica { chunk: ChunkId(chunk), generation, length: 9, crc, corrupt: false }
}

/// Nodes `1..=count` with a heartbeat and an empty report, racks by `rack`.
fn cluster(count: u64, free: u64, rack: impl Fn(u64) -> String) -> (Cluster, Vec<SessionId>) {
    let mut it = Cluster::new(TIMING, 0);
    let mut sessions = Vec::new();
    for id in 1..=count {
        let node = Registration { rack: rack(id), ..registration(id, &format!("n{id}:1")) };
        let session = it.register(0, LEADER, node).expect("joins");
        it.heartbeat(0, session, load(free));
        it.report_part(0, session, &[], (true, true), |_| Verdict::Fine).expect("reports");
        sessions.push(session);
    }
    (it, sessions)
}

fn holders(it: &Cluster, now_ms: u64, chunk: u64) -> Vec<u64> {
    let found = it.locate(now_ms, ChunkId(chunk), GenerationStamp(1), 9, Crc32c(chunk as u32), 0);
    found.into_iter().map(|place| place.node.0).collect()
}

fn wanted(replicas: usize, bytes: u64, exclude: &[NodeId]) -> Wanted<'_> {
    Wanted { replicas, bytes, exclude }
}

fn tomb(at_ms: i64, completed: bool) -> Tombstone {
    Tombstone { generation: GenerationStamp(1), at_ms, completed }
}

#[test]
fn session_and_silence_decide_about_life() {
    let cases = [
        (0, true, NodeState::Live),
        (20, true, NodeState::Live),
        (21, true, NodeState::Suspect),
        (30, true, NodeState::Suspect),
        (31, true, NodeState::Dead),
        (0, false, NodeState::Suspect),
        (31, false, NodeState::Dead),
    ];
    for (now, connected, expected) in cases {
        let (mut it, sessions) = cluster(1, 100, |_| String::new());
        if !connected {
            it.session_ended(sessions[0]);
        }
        assert_eq!(it.views(now)[0].state, expected, "at {now}, connected {connected}");
    }
}

#[test]
fn who_may_join() {
    let (mut it, old) = cluster(1, 100, |_| String::new());
    let other = Registration { cluster: Some(ClusterId(8)), ..registration(2, "n2:1") };
    assert!(matches!(it.register(0, LEADER, other), Err(RegisterRefusal::WrongCluster { .. })));
    let copy = it.register(0, LEADER, registration(1, "elsewhere:1"));
    assert!(matches!(copy, Err(RegisterRefusal::Duplicate { .. })), "{copy:?}");
    let new = Registration { cluster: None, ..registration(2, "n2:1") };
    assert!(it.register(0, LEADER, new).is_ok());
    let again = it.register(0, LEADER, registration(1, "n1:1")).expect("reconnects");
    assert!(!it.is_current(old[0]) && it.is_current(again));
    it.session_ended(old[0]);
    assert_eq!(it.views(0)[0].state, NodeState::Live, "the end of the old session changes nothing");
    it.session_ended(again);
    assert!(it.register(0, LEADER, registration(1, "moved:1")).is_ok(), "restarted elsewhere");
}

/// Many small files between two heartbeats: each may become a whole chunk until it has arrived, and is then what it is.
#[test]
fn room_is_kept_for_what_is_on_its_way_and_taken_by_what_has_arrived() {
    let (mut it, s) = cluster(1, 350, |_| String::new());
    let place = |it: &mut Cluster| it.place(0, wanted(1, 100, &[]), 0);
    for chunk in 0..20 {
        assert!(place(&mut it).is_ok(), "chunk {chunk}");
        it.changed(0, s[0], &[replica(chunk)], &[]).expect("fine");
    }
    // 180 bytes have arrived; one more may be on its way.
    assert!(place(&mut it).is_ok());
    assert!(matches!(place(&mut it), Err(PlacementRefusal::NoSpace { .. })));
    it.heartbeat(0, s[0], load(350));
    for _ in 0..3 {
        assert!(place(&mut it).is_ok());
    }
    assert!(matches!(place(&mut it), Err(PlacementRefusal::NoSpace { .. })));
}

#[test]
fn a_full_report_replaces_only_with_its_last_part() {
    let (mut it, s) = cluster(1, 100, |_| String::new());
    it.changed(0, s[0], &[replica(1), replica(2)], &[]).expect("fine");
    it.report_part(0, s[0], &[replica(2)], (true, false), |_| Verdict::Fine).expect("fine");
    assert_eq!((holders(&it, 0, 1), holders(&it, 0, 2)), (vec![1], vec![1]));
    it.changed(0, s[0], &[replica(5)], &[ChunkId(2)]).expect("fine");
    it.completed(replica(6), &[NodeId(1)]);
    let judge = |it: &Replica| if it.chunk == ChunkId(3) { Verdict::Unknown } else { Verdict::Fine };
    it.report_part(0, s[0], &[replica(3)], (false, true), judge).expect("fine");
    let there: Vec<bool> = (1..=6).map(|chunk| !holders(&it, 0, chunk).is_empty()).collect();
    assert_eq!(there, [false, false, true, false, true, true]);
    assert_eq!((it.views(0)[0].oddities.unknown, it.replica_counts()), (1, (3, 3)));
    assert!(it.report_part(0, s[0], &[], (false, true), |_| Verdict::Fine).is_err(), "no first part");
}

#[test]
fn readers_get_live_before_suspect_damaged_last_and_no_other_bytes() {
    let (mut it, s) = cluster(5, 100, |_| String::new());
    for session in &s {
        it.changed(0, *session, &[replica(1)], &[]).expect("fine");
    }
    it.session_ended(s[0]);
    it.changed(0, s[1], &[Replica { corrupt: true, ..replica(1) }], &[]).expect("fine");
    it.changed(0, s[2], &[Replica { crc: Crc32c(9), ..replica(1) }], &[]).expect("fine");
    assert_eq!(holders(&it, 0, 1), [4, 5, 1, 2]);
    assert_eq!(it.damaged(ChunkId(1)).collect::<Vec<_>>(), [NodeId(2)]);
    let turned = it.locate(0, ChunkId(1), GenerationStamp(1), 9, Crc32c(1), 2);
    assert_eq!(turned.iter().map(|place| place.node.0).collect::<Vec<_>>(), [4, 5, 1, 2]);
    it.blame(0, ChunkId(1), NodeId(4));
    assert_eq!(holders(&it, 0, 1), [5, 1, 4, 2]);
    assert_eq!(holders(&it, 31, 1), Vec::<u64>::new(), "the dead are not offered");
    let newer = it.locate(0, ChunkId(1), GenerationStamp(2), 9, Crc32c(1), 0);
    assert!(newer.is_empty(), "a stale generation is not offered");
}

#[test]
fn placement_is_distinct_in_nodes_and_racks() {
    for seed in 0..200 {
        let (mut it, _) = cluster(6, 1000, |id| format!("r{}", id % 3));
        let hops = it.place(0, wanted(3, 100, &[]), seed).expect("placed");
        let mut racks: Vec<u64> = hops.iter().map(|hop| hop.node.0 % 3).collect();
        racks.sort_unstable();
        assert_eq!(racks, [0, 1, 2], "seed {seed}");
        let all = it.place(0, wanted(6, 100, &[]), seed).expect("placed");
        let mut nodes: Vec<u64> = all.iter().map(|hop| hop.node.0).collect();
        nodes.sort_unstable();
        assert_eq!(nodes, [1, 2, 3, 4, 5, 6], "racks twice when there are too few");
        let (mut it, _) = cluster(4, 1000, |_| String::new());
        let hops = it.place(0, wanted(3, 100, &[NodeId(2)]), seed).expect("placed");
        assert!(hops.iter().all(|hop| hop.node != NodeId(2)), "the excluded is not needed");
        let hops = it.place(0, wanted(4, 100, &[NodeId(2)]), seed).expect("placed");
        assert_eq!(hops[3].node, NodeId(2), "the excluded comes last");
    }
}

#[test]
fn placement_prefers_room() {
    let (mut it, s) = cluster(2, 1000, |_| String::new());
    it.heartbeat(0, s[1], load(9000));
    let mut second = 0;
    for seed in 0..1000 {
        it.heartbeat(0, s[0], load(1000));
        it.heartbeat(0, s[1], load(9000));
        let hops = it.place(0, wanted(1, 100, &[]), seed).expect("placed");
        second += usize::from(hops[0].node == NodeId(2));
    }
    assert!((800..990).contains(&second), "9 of 10 expected, {second} of 1000 seen");
}

#[test]
fn placement_prefers_quick_disks_and_leaves_nobody_out() {
    let slow = |commit_us: u64| {
        let mut load = load(1000);
        load.dirs[0].commit_us = commit_us;
        load
    };
    let of_the_first = |us: [u64; 4]| {
        let (mut it, s) = cluster(4, 1000, |_| String::new());
        let mut first = 0;
        for seed in 0..1000 {
            us.iter().zip(&s).for_each(|(us, session)| it.heartbeat(0, *session, slow(*us)));
            let hops = it.place(0, wanted(1, 100, &[]), seed).expect("placed");
            first += usize::from(hops[0].node == NodeId(1));
        }
        first
    };
    for (name, us, expected) in [
        ("nine times as slow", [900_000, 100_000, 100_000, 100_000], 10..80),
        ("small times are chance", [9_000, 1_000, 1_000, 1_000], 200..300),
        ("all are slow", [900_000, 900_000, 900_000, 900_000], 200..300),
        ("nothing is known of the others", [900_000, 0, 0, 0], 200..300),
    ] {
        let first = of_the_first(us);
        assert!(expected.contains(&first), "{name}: {first} of 1000");
    }
}

#[test]
fn placement_refuses_with_facts() {
    let (mut it, s) = cluster(3, 1000, |_| String::new());
    it.session_ended(s[0]);
    let few = it.place(0, wanted(3, 100, &[]), 0).expect_err("refused");
    assert_eq!(few, PlacementRefusal::NotEnoughDatanodes { live: 2, wanted: 3 });
    it.heartbeat(0, s[1], load(99));
    let full = it.place(0, wanted(2, 100, &[]), 0).expect_err("refused");
    assert_eq!(full, PlacementRefusal::NoSpace { roomy: 1, live: 2, wanted: 2, bytes: 100 });
    assert_eq!((few.code(), full.code()), (ErrorCode::NotEnoughDatanodes, ErrorCode::NoSpace));
    let unhealthy =
        Load { dirs: vec![Dir { healthy: false, free_bytes: 1000, ..Dir::default() }], ..load(0) };
    it.heartbeat(0, s[1], unhealthy);
    assert!(it.placeable(0, wanted(2, 100, &[])).is_err());
}

#[test]
fn deletions_wait_for_time_reports_and_age() {
    let (mut it, s) = cluster(2, 100, |_| String::new());
    it.changed(0, s[0], &[replica(1)], &[]).expect("fine");
    let list = || [(ChunkId(1), tomb(0, true))].into_iter();
    assert_eq!(it.gc(29, 1000, AGES, list()).orders, [], "before the heartbeat timeout");
    assert_eq!(it.gc(30, 9, AGES, list()).orders, [], "too young");
    let order = (s[0], vec![(ChunkId(1), GenerationStamp(1))]);
    assert_eq!(it.gc(30, 10, AGES, list()).orders, std::slice::from_ref(&order));
    assert_eq!(it.gc(30, 10, AGES, list()).orders, [order], "repeated until it is gone");
    let again = it.register(30, LEADER, registration(1, "n1:1")).expect("reconnects");
    assert_eq!(it.gc(30, 10, AGES, list()), super::GcStep::default(), "no report of this session yet");
    it.report_part(30, again, &[], (true, true), |_| Verdict::Fine).expect("fine");
    let step = it.gc(30, 10, AGES, list());
    assert_eq!((step.orders, step.forget), (vec![], vec![ChunkId(1)]), "gone everywhere");
}

#[test]
fn stragglers_are_remembered_longer_and_newer_generations_kept() {
    let (mut it, s) = cluster(1, 100, |_| String::new());
    let unfinished = || [(ChunkId(1), tomb(0, false))].into_iter();
    assert!(it.gc(30, 49, AGES, unfinished()).forget.is_empty());
    assert_eq!(it.gc(30, 50, AGES, unfinished()).forget, [ChunkId(1)]);
    it.changed(0, s[0], &[Replica { generation: GenerationStamp(2), ..replica(1) }], &[]).expect("fine");
    assert_eq!(it.gc(30, 50, AGES, unfinished()), super::GcStep::default());
}

#[test]
fn a_master_that_is_behind_deletes_nothing() {
    for (epoch_seen, lsn_seen, behind) in [(5, 100, false), (6, 0, true), (5, 101, true)] {
        let (mut it, _) = cluster(1, 100, |_| String::new());
        let (epoch_seen, lsn_seen) = (Epoch(epoch_seen), Lsn(lsn_seen));
        let node = Registration { epoch_seen, lsn_seen, ..registration(2, "n2:1") };
        let session = it.register(0, LEADER, node).expect("joins");
        it.report_part(0, session, &[replica(1)], (true, true), |_| Verdict::Fine).expect("fine");
        let step = it.gc(30, 1000, AGES, [(ChunkId(1), tomb(0, true))].into_iter());
        assert_eq!(
            (it.behind().is_some(), step.orders.is_empty()),
            (behind, behind),
            "{epoch_seen} {lsn_seen}"
        );
    }
}

#[test]
fn what_a_witness_proves() {
    // The leader is in epoch 5 at LSN 100. What the node has seen, since when the history counts, whether that proves a
    // loss.
    let cases = [
        ("nothing new", 5, 100, 0, false),
        ("less", 4, 90, 0, false),
        ("a higher LSN", 4, 101, 0, true),
        ("a higher LSN in this epoch", 5, 101, 0, true),
        ("a higher epoch", 6, 90, 0, true),
        ("both", 6, 101, 0, true),
        ("a higher LSN in an epoch before the acceptance", 2, 101, 3, false),
        ("a higher LSN in the epoch of the acceptance", 3, 101, 3, true),
        ("a higher LSN after it", 4, 101, 3, true),
        ("a higher epoch after it", 6, 90, 3, true),
        ("nothing new since", 4, 100, 3, false),
        ("accepted in this epoch: before it", 4, 101, 5, false),
        ("accepted in this epoch: in it", 5, 101, 5, true),
        ("accepted in this epoch: a higher one", 6, 90, 5, true),
        ("an epoch file of before the acceptance: before it", 6, 101, 7, false),
        ("an epoch file of before the acceptance: in it", 7, 90, 7, true),
    ];
    for (name, epoch_seen, lsn_seen, history, behind) in cases {
        for of_the_cluster in [true, false] {
            let mut it = Cluster::new(TIMING, 0);
            let leader = Leader { history: Epoch(history), ..LEADER };
            let cluster = of_the_cluster.then_some(ClusterId(7));
            let (epoch_seen, lsn_seen) = (Epoch(epoch_seen), Lsn(lsn_seen));
            let node = Registration { cluster, epoch_seen, lsn_seen, ..registration(1, "n1:1") };
            it.register(0, leader, node).expect("joins");
            assert_eq!(it.behind().is_some(), behind && of_the_cluster, "{name}: {:?}", it.behind());
        }
    }
}

#[test]
fn the_strongest_evidence_stands_until_the_loss_is_accepted_above_it() {
    let mut it = Cluster::new(TIMING, 0);
    let mut shown = |id, epoch, lsn| {
        let (epoch_seen, lsn_seen) = (Epoch(epoch), Lsn(lsn));
        let node = Registration { epoch_seen, lsn_seen, ..registration(id, &format!("n{id}:1")) };
        it.register(0, LEADER, node).expect("joins");
        it.behind().map(|behind| (behind.node.0, behind.epoch_seen.0, behind.lsn_seen.0))
    };
    assert_eq!(shown(1, 5, 100), None);
    assert_eq!(shown(2, 4, 101), Some((2, 4, 101)));
    assert_eq!(shown(3, 3, 200), Some((2, 4, 101)));
    assert_eq!(shown(4, 4, 120), Some((4, 4, 120)));
    assert_eq!(it.loss_accepted(Epoch(4)), None);
    assert!(it.behind().is_some_and(|behind| behind.to_string().contains("--accept-data-loss")));
    assert_eq!(it.loss_accepted(Epoch(5)).map(|behind| behind.node), Some(NodeId(4)));
    assert_eq!(it.behind(), None);
}

#[test]
fn orders_are_cut_into_messages() {
    let (mut it, s) = cluster(1, 100, |_| String::new());
    let count = ORDERS_MAX as u64 + 1;
    let all: Vec<Replica> = (1..=count).map(replica).collect();
    it.changed(0, s[0], &all, &[]).expect("fine");
    let step = it.gc(30, 1000, AGES, (1..=count).map(|chunk| (ChunkId(chunk), tomb(0, true))));
    let mut orders = GcOrders::default();
    orders.add(step.orders);
    let mut lengths = Vec::new();
    while let Some(message) = orders.message(s[0]) {
        lengths.push(message.len());
        orders.sent(s[0]);
    }
    assert_eq!((lengths, orders.len()), (vec![ORDERS_MAX, 1], 0));
}

#[test]
fn a_tombstone_waits_for_a_node_that_is_away_but_not_for_ever() {
    let (mut it, s) = cluster(2, 100, |_| String::new());
    it.session_ended(s[1]);
    it.changed(200, s[0], &[], &[]).expect("fine");
    let list = || [(ChunkId(1), tomb(0, true))].into_iter();
    let forgets = |it: &Cluster, wall_ms| !it.gc(200, wall_ms, AGES, list()).forget.is_empty();
    assert!(!forgets(&it, 1000), "the dead node may have committed what it did not report");
    assert!(forgets(&it, 5000), "too long ago");
    let back = it.register(200, LEADER, registration(2, "n2:1")).expect("rejoins");
    it.report_part(200, back, &[replica(1)], (true, true), |_| Verdict::Fine).expect("fine");
    let step = it.gc(200, 1000, AGES, list());
    assert_eq!(step.orders, [(back, vec![(ChunkId(1), GenerationStamp(1))])]);
    it.changed(200, back, &[], &[ChunkId(1)]).expect("fine");
    assert!(forgets(&it, 1000));
}

#[test]
fn after_a_restart_the_nodes_are_waited_for() {
    let mut it = Cluster::new(Timing { return_ms: 1000, ..TIMING }, 0);
    let list = || [(ChunkId(1), tomb(0, true))].into_iter();
    assert!(it.gc(999, 4000, AGES, list()).forget.is_empty(), "nobody is back yet");
    assert_eq!(it.gc(1000, 4000, AGES, list()).forget, [ChunkId(1)]);
    let early = it.place(29, wanted(1, 10, &[]), 0).expect_err("nobody is back yet");
    assert!(early.code().retryable(), "{early}");
    let late = it.place(30, wanted(1, 10, &[]), 0).expect_err("nobody came back");
    assert_eq!(late.code(), ErrorCode::NotEnoughDatanodes);
    let session = it.register(5, LEADER, registration(1, "n1:1")).expect("joins");
    it.heartbeat(5, session, load(100));
    assert!(it.place(5, wanted(1, 10, &[]), 0).is_ok());
}

#[test]
fn a_digest_stands_for_the_list_of_what_was_told() {
    let digest = |replicas: &[Replica]| {
        replicas.iter().fold(InventoryDigest::default(), |sum, it| {
            sum.plus(InventoryDigest::of(it.chunk, it.generation, it.length, it.crc, it.corrupt))
        })
    };
    let (mut it, s) = cluster(2, 100, |_| String::new());
    assert!(it.digest_report(1, s[0], digest(&[])));
    it.changed(1, s[0], &[replica(1), replica(2)], &[]).expect("fine");
    it.changed(1, s[1], &[replica(1)], &[]).expect("fine");
    assert!(it.digest_report(1, s[0], digest(&[replica(2), replica(1)])));
    assert!(it.digest_report(1, s[1], digest(&[replica(1)])));
    let rotten = Replica { corrupt: true, ..replica(1) };
    assert!(!it.digest_report(1, s[0], digest(&[replica(2), rotten])), "it was not told");
    it.changed(1, s[0], &[rotten], &[ChunkId(2)]).expect("fine");
    assert!(it.digest_report(1, s[0], digest(&[rotten])));
    it.report_part(1, s[0], &[replica(7)], (true, false), |_| Verdict::Fine).expect("fine");
    assert!(it.digest_report(1, s[0], digest(&[])), "a list is on its way");
    it.report_part(1, s[0], &[], (false, true), |_| Verdict::Fine).expect("fine");
    assert!(it.digest_report(1, s[0], digest(&[replica(7)])));
}
