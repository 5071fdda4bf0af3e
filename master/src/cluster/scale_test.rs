//! What a step costs as the cluster grows, counted in items and not by a clock: nodes, chunks and replicas looked at while
//! the lock is held. A loop over all nodes in any of these steps fails the bounds.

use distrifs_proto::types::{ChunkId, ClusterId, Crc32c, Epoch, GenerationStamp, Lsn, NodeId};

use super::membership::STEP_NODES;
use super::report::REPORT_SLICE;
use super::{
    Candidate, Cluster, Dir, FullReport, Leader, Load, NODES_MAX, NodeState, Registration, Replica,
    SessionId, Timing, VIEWS_PAGE, Verdict, Wanted,
};
use crate::hold::{ITEMS_PER_HOLD_MAX, counted};
use crate::namespace::Chunk;

const TIMING: Timing = Timing { heartbeat_interval_ms: 3_000, heartbeat_timeout_ms: 9_000, return_ms: 0 };
const LEADER: Leader =
    Leader { cluster: ClusterId(7), epoch: Epoch(5), durable: Lsn(100), history: Epoch(0) };
const RACKS: u64 = 10;
/// After safe mode.
const NOW: u64 = 10_000;
/// Items of one placed or copied chunk: its draws, the looks at the nodes drawn, and their refreshes.
const ITEMS_PER_CHUNK_MAX: u64 = 32;

fn registration(id: u64) -> Registration {
    Registration {
        cluster: Some(ClusterId(7)),
        id: NodeId(id),
        address: format!("n{id}:1"),
        rack: format!("r{}", id % RACKS),
        epoch_seen: Epoch(5),
        lsn_seen: Lsn(100),
    }
}

fn chunk() -> Chunk {
    Chunk { generation: GenerationStamp(1), length: 9, crc: Crc32c(5), refs: 1 }
}

fn replica(id: u64) -> Replica {
    Replica { chunk: ChunkId(id), generation: GenerationStamp(1), length: 9, crc: Crc32c(5), corrupt: false }
}

/// The most items of one step, and those of all.
#[derive(Debug, Default)]
struct Work {
    most: u64,
    all: u64,
}

impl Work {
    fn of<T>(&mut self, step: impl FnOnce() -> T) -> T {
        let before = counted();
        let done = step();
        let items = counted() - before;
        self.most = self.most.max(items);
        self.all += items;
        done
    }
}

struct World {
    cluster: Cluster,
    sessions: Vec<SessionId>,
    chunks: u64,
}

impl World {
    /// So many nodes in ten racks, each with 30 of the replicas of `10 * nodes` chunks, each in three racks.
    fn new(nodes: u64) -> Self {
        let mut it = Self { cluster: Cluster::new(TIMING, 0), sessions: Vec::new(), chunks: 10 * nodes };
        let mut held: Vec<Vec<Replica>> = (0..nodes).map(|_| Vec::new()).collect();
        for id in 1..=it.chunks {
            for turn in 0..3 {
                held[((id + turn) % nodes) as usize].push(replica(id));
            }
        }
        for (id, held) in held.iter().enumerate() {
            // 0 is no node's id, so node `n` of this world has the id `n + 1`, in rack `n % RACKS`.
            let node =
                Registration { rack: format!("r{}", id as u64 % RACKS), ..registration(id as u64 + 1) };
            let session = it.cluster.register(NOW, LEADER, node).expect("joins");
            it.sessions.push(session);
            it.beat(NOW, id as u64);
            it.cluster.report_part(NOW, session, held, (true, true), |_| Verdict::Fine).expect("reports");
        }
        it
    }

    fn beat(&mut self, now_ms: u64, node: u64) {
        let dir = Dir { healthy: true, free_bytes: 1 << 40, capacity_bytes: 1 << 40, ..Dir::default() };
        let load = Load { dirs: vec![dir], ..Load::default() };
        self.cluster.heartbeat(now_ms, self.sessions[node as usize], load);
    }

    /// Brings up to date who is dead.
    fn settle(&mut self, now_ms: u64, work: &mut Work) {
        while work.of(|| self.cluster.advance(now_ms)) {}
    }
}

#[test]
fn placing_a_chunk_costs_the_same_among_hundred_and_ten_thousand_nodes() {
    for nodes in [100, 10_000] {
        let mut it = Cluster::new(TIMING, 0);
        for id in 1..=nodes {
            let session = it.register(NOW, LEADER, registration(id)).expect("joins");
            let dir = Dir { healthy: true, free_bytes: 1 << 40, ..Dir::default() };
            it.heartbeat(NOW, session, Load { dirs: vec![dir], ..Load::default() });
        }
        // A tenth hangs: their distrust costs nothing either.
        (1..=nodes / 10).for_each(|node| it.complain(NOW, NodeId(node), super::trust::WEIGHT_WRITE));
        let mut work = Work::default();
        for seed in 0..500 {
            let exclude = [NodeId(seed % nodes + 1)];
            let wanted = Wanted { replicas: 3, bytes: 1 << 26, exclude: &exclude };
            let hops = work.of(|| it.place(NOW, wanted, seed)).expect("placed");
            assert!(hops.iter().all(|hop| hop.node.0 > nodes / 10 && hop.node != exclude[0]), "seed {seed}");
            let mut racks: Vec<u64> = hops.iter().map(|hop| hop.node.0 % RACKS).collect();
            racks.sort_unstable();
            racks.dedup();
            assert_eq!(racks.len(), 3, "seed {seed}");
            let located = work.of(|| it.locate(NOW, ChunkId(1), GenerationStamp(1), 9, Crc32c(5), seed));
            assert!(located.is_empty());
        }
        assert!(work.most <= ITEMS_PER_CHUNK_MAX, "{nodes} nodes: {work:?}");
    }
}

/// A rack of a tenth of the nodes dies. All of it is declared dead and no other node, in bounded steps, and each copy is
/// planned at the same cost in a cluster ten times as large.
#[test]
fn the_death_of_a_rack_costs_in_proportion_to_the_rack() {
    let mut per_node = Vec::new();
    for nodes in [200, 2_000] {
        let mut world = World::new(nodes);
        let dead = |node: u64| node % RACKS == 3;
        let mut work = Work::default();
        let later = NOW + 9_001;
        for node in 0..nodes {
            if dead(node) {
                let session = world.sessions[node as usize];
                world.cluster.session_ended(session);
            } else {
                let beat = later - node % 3_000;
                world.beat(beat, node);
            }
        }
        world.settle(later, &mut work);
        assert!(work.most <= 4 * STEP_NODES as u64, "{work:?}");
        per_node.push(work.all / nodes);
        let sums = world.cluster.sums();
        assert_eq!(
            (sums.dead, sums.deaths, sums.live),
            (nodes / RACKS, nodes / RACKS, nodes - nodes / RACKS)
        );
        let mut plans = Work::default();
        let mut copies = 0;
        for id in 1..=world.chunks {
            let found: Option<Candidate> =
                plans.of(|| world.cluster.inspect(later, ChunkId(id), chunk(), 3, true));
            let Some(found) = found else { continue };
            copies += plans.of(|| world.cluster.repair(later, found, id)).len() as u64;
        }
        assert_eq!(copies, world.chunks * 3 / RACKS, "one copy of each chunk that the rack held");
        assert!(plans.most <= 2 * ITEMS_PER_CHUNK_MAX, "{nodes} nodes: {plans:?}");
    }
    assert!(per_node[1] <= per_node[0] + 1, "items per node: {per_node:?}");
}

#[test]
fn more_than_a_third_of_the_nodes_is_waited_for() {
    let mut world = World::new(30);
    let beats = |world: &mut World, at: u64, all: u64| (0..all).for_each(|node| world.beat(at, node));
    let died = NOW + 9_001;
    beats(&mut world, died, 19);
    let mut work = Work::default();
    world.settle(died, &mut work);
    let why = world.cluster.safe_mode(died).expect("repair waits");
    assert!(why.contains("11 of 30 datanodes vanished at once"), "{why}");
    let lacking = |world: &World, now_ms: u64| {
        let found = |id| world.cluster.inspect(now_ms, ChunkId(id), chunk(), 3, true);
        (1..=world.chunks).find_map(found).expect("copies are missing")
    };
    let under = lacking(&world, died);
    assert!(world.cluster.repair(died, under, 1).is_empty());
    // One of them returns: ten of thirty are repaired at once.
    beats(&mut world, died + 100, 20);
    world.settle(died + 100, &mut work);
    assert_eq!(world.cluster.safe_mode(died + 100), None);
    let under = lacking(&world, died + 100);
    assert!(!world.cluster.repair(died + 100, under, 1).is_empty());
}

#[test]
fn a_master_that_was_stalled_declares_no_node_dead() {
    let mut world = World::new(30);
    let mut work = Work::default();
    // 20 s pass in which this master reads no message.
    let back = NOW + 20_000;
    world.cluster.stalled(back);
    world.settle(back, &mut work);
    assert_eq!((world.cluster.sums().deaths, world.cluster.sums().live), (0, 30));
    world.settle(back + 9_000, &mut work);
    assert_eq!((world.cluster.sums().dead, world.cluster.sums().suspect), (0, 30), "late, not dead");
    (1..30).for_each(|node| world.beat(back + 9_000, node));
    world.settle(back + 9_001, &mut work);
    assert_eq!((world.cluster.sums().dead, world.cluster.sums().live), (1, 29));
    // Of a node that is dead a stall makes no live one.
    world.cluster.stalled(back + 9_500);
    world.settle(back + 9_500, &mut work);
    assert_eq!(world.cluster.views(back + 9_500)[0].state, NodeState::Dead);
    assert_eq!(world.cluster.sums().dead, 1);
}

#[test]
fn a_node_that_is_heard_without_the_lock_is_not_declared_dead() {
    let mut world = World::new(3);
    let heard = world.cluster.last_heard(world.sessions[0]).expect("a session");
    let later = NOW + 9_001;
    heard.heard(later);
    let mut work = Work::default();
    world.settle(later, &mut work);
    let dead: Vec<bool> =
        world.cluster.views(later).iter().map(|view| view.state == NodeState::Dead).collect();
    assert_eq!((dead, world.cluster.sums().dead), (vec![false, true, true], 2));
}

#[test]
fn a_long_report_is_applied_in_slices() {
    let mut world = World::new(10);
    let session = world.cluster.register(NOW, LEADER, registration(2)).expect("rejoins");
    assert_eq!(world.cluster.sums().unreported, 1);
    let mut report = FullReport::default();
    let count = 100_000;
    for first in (0..count).step_by(8192) {
        report.push((first..count.min(first + 8192)).map(|id| replica(1000 + id)).collect()).expect("short");
    }
    world.cluster.report_begins(session);
    let mut work = Work::default();
    loop {
        let verdicts = report.next().map(|_| Verdict::Fine).collect();
        if !work.of(|| world.cluster.apply_report(NOW, session, &mut report, verdicts)) {
            break;
        }
    }
    assert!(work.most <= REPORT_SLICE as u64 + 8 && work.most <= ITEMS_PER_HOLD_MAX, "{work:?}");
    assert!(work.all < 2 * count, "{work:?}");
    let view = &world.cluster.views(NOW)[1];
    assert_eq!((view.chunks, view.reported), (count, true), "what it held before is gone");
}

#[test]
fn pages_of_nodes_are_bounded_and_complete() {
    let world = World::new(150);
    let (mut work, mut seen, mut from) = (Work::default(), 0, Some(0));
    while let Some(at) = from {
        let (views, next) = work.of(|| world.cluster.views_page(NOW, at));
        seen += views.len() as u64;
        from = next;
    }
    assert_eq!(seen, 150);
    assert!(work.most <= 2 * VIEWS_PAGE as u64, "{work:?}");
}

/// Ids that register once and never again are evicted when their places are needed; nodes that hold replicas keep theirs.
#[test]
fn more_nodes_than_there_are_places_can_register_one_after_another() {
    let mut world = World::new(100);
    let mut now_ms = NOW;
    let mut work = Work::default();
    for id in 0..NODES_MAX as u64 + 5_000 {
        let node = registration(1_000_000 + id);
        let session = work.of(|| world.cluster.register(now_ms, LEADER, node)).expect("joins");
        work.of(|| world.cluster.session_ended(session));
        if id.is_multiple_of(1_000) {
            now_ms += 9_001;
            (0..100).for_each(|node| world.beat(now_ms, node));
            while work.of(|| world.cluster.advance(now_ms)) {}
        }
    }
    assert!(work.most <= 4 * STEP_NODES as u64, "{work:?}");
    assert_eq!(world.cluster.sums().live, 100);
    assert_eq!(world.cluster.replica_counts(), (1_000, 3_000));
    // Those that are not needed at once go in time.
    now_ms += 600_000;
    (0..100).for_each(|node| world.beat(now_ms, node));
    while work.of(|| world.cluster.advance(now_ms)) {}
    now_ms += 9_001;
    while work.of(|| world.cluster.advance(now_ms)) {}
    assert_eq!(world.cluster.views(now_ms).len(), 100);
}

/// The connection of a node that went silent is closed after the node was declared dead, as with a cut network.
#[test]
fn a_node_that_died_over_an_open_session_expires_as_well() {
    let mut world = World::new(3);
    let session = world.cluster.register(NOW, LEADER, registration(9)).expect("joins");
    let mut work = Work::default();
    let died = NOW + 9_001;
    (0..3).for_each(|node| world.beat(died, node));
    world.settle(died, &mut work);
    assert_eq!(world.cluster.sums().dead, 1);
    world.cluster.session_ended(session);
    let late = NOW + 600_000;
    (0..3).for_each(|node| world.beat(late, node));
    world.settle(late, &mut work);
    assert_eq!((world.cluster.views(late).len(), world.cluster.sums().dead), (3, 0));
}
