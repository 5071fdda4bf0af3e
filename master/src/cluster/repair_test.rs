use std::collections::BTreeMap;

use distrifs_proto::ErrorCode;
use distrifs_proto::types::{ChunkId, ClusterId, Crc32c, Epoch, GenerationStamp, Lsn, NodeId};

use super::{
    Candidate, Cluster, CopyFailure, Dir, Leader, Load, NodeState, Registration, RepairOrder, Replica,
    SessionId, Timing, Verdict,
};
use crate::namespace::Chunk;

const TIMING: Timing = Timing { heartbeat_interval_ms: 10, heartbeat_timeout_ms: 30, return_ms: 0 };
const LEADER: Leader =
    Leader { cluster: ClusterId(7), epoch: Epoch(5), durable: Lsn(100), history: Epoch(0) };
const ID: ChunkId = ChunkId(1);
/// After safe mode.
const NOW: u64 = 100;

fn chunk(refs: u32) -> Chunk {
    Chunk { generation: GenerationStamp(2), length: 9, crc: Crc32c(5), refs }
}

fn replica(kind: &str) -> Replica {
    let good =
        Replica { chunk: ID, generation: GenerationStamp(2), length: 9, crc: Crc32c(5), corrupt: false };
    match kind {
        "good" => good,
        "corrupt" => Replica { corrupt: true, ..good },
        "stale" => Replica { generation: GenerationStamp(1), ..good },
        _ => panic!("{kind}"),
    }
}

/// A cluster whose nodes 1.. have these racks and replicas ("" for none).
struct World {
    cluster: Cluster,
    sessions: Vec<SessionId>,
}

impl World {
    fn new(nodes: &[(&str, &str)]) -> Self {
        let mut it = Self { cluster: Cluster::new(TIMING, 0), sessions: Vec::new() };
        for (at, (rack, _)) in nodes.iter().enumerate() {
            let id = at as u64 + 1;
            let registration = Registration {
                cluster: Some(ClusterId(7)),
                id: NodeId(id),
                address: format!("n{id}:1"),
                rack: (*rack).to_owned(),
                epoch_seen: Epoch(5),
                lsn_seen: Lsn(100),
            };
            let session = it.cluster.register(NOW, LEADER, registration).expect("joins");
            it.sessions.push(session);
            it.beat(NOW, id, 1 << 30);
            let held = nodes[at].1;
            let held: Vec<Replica> = if held.is_empty() { Vec::new() } else { vec![replica(held)] };
            it.cluster.report_part(NOW, session, &held, (true, true), |_| Verdict::Fine).expect("reports");
        }
        it
    }

    fn beat(&mut self, now_ms: u64, node: u64, free_bytes: u64) {
        let dir = Dir { healthy: true, free_bytes, capacity_bytes: 1 << 30, ..Dir::default() };
        let load = Load { dirs: vec![dir], ..Load::default() };
        self.cluster.heartbeat(now_ms, self.session(node), load);
    }

    fn session(&self, node: u64) -> SessionId {
        self.sessions[node as usize - 1]
    }

    fn orders(&mut self, now_ms: u64, wanted: u32, refs: u32) -> Vec<String> {
        let Some(found) = self.cluster.inspect(now_ms, ID, chunk(refs), wanted, refs == 1) else {
            return Vec::new();
        };
        let orders = self.cluster.repair(now_ms, found, 3);
        let text = |(session, order): (SessionId, RepairOrder)| {
            let node = self.sessions.iter().position(|it| *it == session).expect("a session") + 1;
            match order {
                RepairOrder::Copy { target, .. } => format!("copy {node}>{}", target.node.0),
                RepairOrder::Verify { .. } => format!("verify {node}"),
                RepairOrder::Drop { generation, corrupt, .. } => {
                    format!("drop {node} g{generation}{}", if corrupt { " corrupt" } else { "" })
                }
            }
        };
        let mut texts: Vec<String> = orders.into_iter().map(text).collect();
        texts.sort();
        texts
    }

    fn why(&self, now_ms: u64) -> String {
        self.cluster.why_unrepaired(now_ms, ID)
    }
}

/// A case: its name, rack and replica of each node, replicas wanted, files that refer to it, the orders.
type Row = (&'static str, &'static [(&'static str, &'static str)], u32, u32, &'static [&'static str]);

#[test]
fn what_is_ordered_first() {
    let rows: &[Row] = &[
        ("all is well", &[("a", "good"), ("b", "good"), ("c", "")], 2, 1, &[]),
        ("one lacks", &[("a", "good"), ("b", "good"), ("c", "")], 3, 1, &["copy 1>3"]),
        ("two lack", &[("a", "good"), ("b", ""), ("c", "")], 3, 1, &["copy 1>2", "copy 1>3"]),
        ("the rack that helps", &[("a", "good"), ("a", ""), ("b", "")], 2, 1, &["copy 1>3"]),
        ("no node is left", &[("a", "good"), ("b", "good")], 3, 1, &[]),
        ("a damaged one is no source", &[("a", "corrupt"), ("b", "good"), ("c", "")], 2, 1, &["copy 2>3"]),
        ("only damaged ones are left", &[("a", "corrupt"), ("b", "stale"), ("c", "")], 2, 1, &[]),
        ("it goes when enough are good", &[("a", "corrupt"), ("b", "good")], 1, 1, &["drop 1 g2 corrupt"]),
        ("a stale one goes", &[("a", "stale"), ("b", "good")], 1, 1, &["drop 1 g1"]),
        ("it stands in the last place", &[("a", "corrupt"), ("b", "good")], 2, 1, &["verify 2"]),
        ("too many", &[("a", "good"), ("b", "good"), ("b", "good")], 2, 1, &["verify 1", "verify 2"]),
        ("another file may want more", &[("a", "good"), ("b", "good"), ("b", "good")], 2, 2, &[]),
    ];
    for (name, nodes, wanted, refs, expected) in rows {
        let mut world = World::new(nodes);
        assert_eq!(world.orders(NOW, *wanted, *refs), *expected, "{name}");
        assert_eq!(world.orders(NOW, *wanted, *refs), Vec::<String>::new(), "{name}: not twice");
    }
}

#[test]
fn what_may_be_on_nodes_that_are_not_there() {
    let mut world = World::new(&[("a", "good"), ("b", "corrupt"), ("c", "good")]);
    assert_eq!(world.cluster.away(NOW, ID, &chunk(1), 3), 0);
    world.beat(NOW + 40, 3, 1);
    assert_eq!(world.cluster.away(NOW + 40, ID, &chunk(1), 3), 1, "the good one of two that are dead");
    let returning = Timing { return_ms: 1000, ..TIMING };
    let early = Cluster::new(returning, 0);
    assert_eq!((early.away(29, ID, &chunk(1), 3), early.away(30, ID, &chunk(1), 3)), (3, 0));
}

#[test]
fn nothing_is_done_in_safe_mode_and_it_says_so() {
    let mut world = World::new(&[("a", "good"), ("b", "")]);
    assert!(world.orders(29, 2, 1).is_empty());
    assert!(world.why(29).contains("safe mode: the master has just started"), "{}", world.why(29));
    let late = Registration {
        cluster: Some(ClusterId(7)),
        id: NodeId(9),
        address: "n9:1".into(),
        rack: String::new(),
        epoch_seen: Epoch(5),
        lsn_seen: Lsn(101),
    };
    let reporting = Registration { lsn_seen: Lsn(100), id: NodeId(8), ..late.clone() };
    world.cluster.register(NOW, LEADER, reporting).expect("joins");
    assert!(world.orders(NOW, 2, 1).is_empty());
    assert!(world.why(NOW).contains("reports of 1 datanodes"), "{}", world.why(NOW));
    let mut world = World::new(&[("a", "good"), ("b", "")]);
    world.cluster.register(NOW, LEADER, late).expect("joins");
    assert!(world.orders(NOW, 2, 1).is_empty(), "a master that is behind");
    assert!(world.why(NOW).contains("behind"), "{}", world.why(NOW));
}

#[test]
fn a_copy_counts_when_it_was_made_and_is_tried_again_when_not() {
    let mut world = World::new(&[("a", "good"), ("b", "")]);
    assert_eq!(world.orders(NOW, 2, 1), ["copy 1>2"]);
    assert_eq!(world.why(NOW), "a copy is being made");
    let failure = CopyFailure { code: ErrorCode::NoSpace, node: NodeId(2), text: "full".into() };
    world.cluster.replicated(NOW, ID, NodeId(2), Err(failure));
    assert!(world.orders(NOW, 2, 1).is_empty());
    assert!(world.why(NOW).contains("full"), "{}", world.why(NOW));
    let later = NOW + 2_000;
    for node in [1, 2] {
        world.beat(later, node, 1 << 30);
    }
    assert_eq!(world.orders(later, 2, 1), ["copy 1>2"]);
    world.cluster.replicated(later, ID, NodeId(2), Ok(Some(chunk(1))));
    assert!(world.orders(later, 2, 1).is_empty(), "before the target's own report");
    let stats = world.cluster.repair_stats(NOW);
    assert_eq!((stats.running, stats.done, stats.failed), (0, 1, 1));
    // Nobody asked for this one.
    world.cluster.replicated(later, ID, NodeId(1), Ok(None));
    assert_eq!(world.cluster.repair_stats(NOW).done, 1);
}

#[test]
fn an_order_that_nobody_answers_is_given_to_another() {
    let mut world = World::new(&[("a", "good"), ("b", "")]);
    assert_eq!(world.orders(NOW, 2, 1), ["copy 1>2"]);
    let later = NOW + 60_001;
    for node in [1, 2] {
        world.beat(later, node, 1 << 30);
    }
    world.cluster.forget_jobs(later);
    assert_eq!(world.orders(later, 2, 1), ["copy 1>2"]);
    world.cluster.session_ended(world.session(2));
    world.cluster.forget_jobs(later);
    assert_eq!(world.cluster.repair_stats(NOW).running, 0, "of a node that went");
}

#[test]
fn a_restarted_node_is_told_again_at_once() {
    let mut world = World::new(&[("a", "good"), ("b", "good"), ("c", "")]);
    assert_eq!(world.orders(NOW, 3, 1), ["copy 1>3"]);
    for node in [1, 3] {
        let registration = Registration {
            cluster: Some(ClusterId(7)),
            id: NodeId(node),
            address: format!("n{node}:2"),
            rack: "a".into(),
            epoch_seen: Epoch(5),
            lsn_seen: Lsn(100),
        };
        world.cluster.session_ended(world.session(node));
        let session = world.cluster.register(NOW, LEADER, registration).expect("joins");
        world.sessions[node as usize - 1] = session;
        world.beat(NOW, node, 1 << 30);
        let held: Vec<Replica> = if node == 1 { vec![replica("good")] } else { Vec::new() };
        world.cluster.report_part(NOW, session, &held, (true, true), |_| Verdict::Fine).expect("reports");
        assert_eq!(world.orders(NOW, 3, 1).len(), 1, "after node {node} came back");
    }
}

#[test]
fn a_surplus_replica_goes_only_when_the_others_were_read_whole() {
    let mut world = World::new(&[("a", "good"), ("b", "good"), ("b", "good")]);
    assert_eq!(world.orders(NOW, 2, 1), ["verify 1", "verify 2"]);
    world.cluster.verified(NOW, world.session(1), &[replica("good")]);
    assert!(world.orders(NOW, 2, 1).is_empty(), "one of two");
    world.cluster.verified(NOW, world.session(2), &[replica("good")]);
    assert_eq!(world.orders(NOW, 2, 1), ["drop 3 g2"]);
    // Without an answer the same one is told again, whatever speaks for another one by now.
    let later = NOW + 60_000;
    for (node, free) in [(1, 1), (2, 1 << 30), (3, 1 << 30)] {
        world.beat(later, node, free);
    }
    world.cluster.blame(later, ID, NodeId(2));
    world.cluster.forget_jobs(later);
    assert!(world.orders(later - 1, 2, 1).is_empty());
    assert_eq!(world.orders(later, 2, 1), ["drop 3 g2"]);
    for node in [1, 2, 3] {
        world.beat(NOW, node, 1 << 30);
    }
    world.cluster.changed(NOW, world.session(3), &[], &[ID]).expect("fine");
    assert!(world.orders(NOW, 2, 1).is_empty());

    // One that stays turns out rotten: it goes in its place.
    let mut world = World::new(&[("a", "good"), ("b", "good"), ("b", "good")]);
    assert_eq!(world.orders(NOW, 2, 1).len(), 2);
    let (one, rotten) = (world.session(1), replica("corrupt"));
    world.cluster.changed(NOW, one, &[rotten], &[]).expect("fine");
    world.cluster.verified(NOW, one, &[rotten]);
    assert_eq!(world.orders(NOW, 2, 1), ["drop 1 g2 corrupt"]);
}

#[test]
fn a_damaged_replica_in_the_last_place_goes_when_a_good_one_was_read_whole() {
    let mut world = World::new(&[("a", "corrupt"), ("b", "good")]);
    assert_eq!(world.orders(NOW, 2, 1), ["verify 2"]);
    world.cluster.verified(NOW, world.session(2), &[replica("good")]);
    assert_eq!(world.orders(NOW, 2, 1), ["drop 1 g2 corrupt"]);
    assert!(world.orders(NOW, 2, 1).is_empty(), "no copy before it is gone");
    world.cluster.changed(NOW, world.session(1), &[], &[ID]).expect("fine");
    assert_eq!(world.orders(NOW, 2, 1), ["copy 2>1"]);
}

#[test]
fn what_readers_say_is_checked_at_the_node_and_counts_then() {
    let mut world = World::new(&[("a", "good"), ("b", "good")]);
    world.cluster.claim(ID, NodeId(2));
    world.cluster.claim(ID, NodeId(2));
    world.cluster.claim(ChunkId(9), NodeId(2));
    world.cluster.claim(ID, NodeId(9));
    let orders = world.cluster.check_claims(NOW);
    assert_eq!(orders, [(world.session(2), RepairOrder::Verify { chunk: ID })]);
    assert!(world.orders(NOW, 2, 1).is_empty(), "a claim alone changes nothing");
    assert!(world.cluster.check_claims(NOW).is_empty());
    world.cluster.blame(NOW, ID, NodeId(2));
    world.cluster.verified(NOW, world.session(2), &[replica("good")]);
    let views = world.cluster.replica_views(NOW, ID, &chunk(1));
    assert!(!views[1].blamed, "found sound");
}

/// Writes fail at a node with one folder that has room, and one that is broken or not (yet).
#[test]
fn a_full_disk_or_a_lost_folder_does_not_make_its_node_suspect() {
    use ErrorCode::{Disk, HopFailed, NoSpace};
    for (name, broken_before, code, broken_after, suspect) in [
        ("full", false, Some(NoSpace), false, false),
        ("its disk failed, and it does not know of it", false, Some(Disk), false, true),
        ("its disk failed, as it tells then", false, Some(Disk), true, false),
        ("its disk failed, as it told before", true, Some(Disk), true, false),
        ("it was not reached", true, Some(HopFailed), true, true),
        ("an earlier client", false, None, false, true),
    ] {
        let mut world = World::new(&[("a", "good"), ("b", "good"), ("c", "")]);
        let beat = |world: &mut World, broken: bool| {
            let dir = |healthy| Dir { healthy, free_bytes: 1 << 20, ..Dir::default() };
            let load = Load { dirs: vec![dir(true), dir(!broken)], ..Load::default() };
            world.cluster.heartbeat(NOW, world.session(1), load);
        };
        beat(&mut world, broken_before);
        world.cluster.write_failed(NOW, NodeId(1), code);
        beat(&mut world, broken_after);
        let view = &world.cluster.views(NOW)[0];
        assert_eq!(view.state == NodeState::Suspect, suspect, "{name}: {}", view.why_suspect);
    }
}

#[test]
fn a_node_that_others_cannot_reach_is_no_source_and_no_target() {
    let mut world = World::new(&[("a", "good"), ("b", "good"), ("c", ""), ("d", "")]);
    for node in [1, 3] {
        world.cluster.write_failed(NOW, NodeId(node), None);
    }
    assert_eq!(world.orders(NOW, 3, 1).len(), 1, "two of four: nobody is left out");
    let mut world = World::new(&[("a", "good"), ("b", "good"), ("c", ""), ("d", "")]);
    world.cluster.write_failed(NOW, NodeId(3), None);
    assert_eq!(world.orders(NOW, 3, 1), ["copy 1>4"]);
    assert!(world.cluster.views(NOW)[2].why_suspect.contains("did not answer"));
    let mut world = World::new(&[("a", "good"), ("b", "good"), ("c", "")]);
    world.cluster.write_failed(NOW, NodeId(1), None);
    assert_eq!(world.orders(NOW, 3, 1), ["copy 2>3"]);
    // Where nobody else has it, a slow source is better than none.
    let mut world = World::new(&[("a", "good"), ("b", ""), ("c", "")]);
    world.cluster.write_failed(NOW, NodeId(1), None);
    assert_eq!(world.orders(NOW, 2, 1).len(), 1);
    // Its surplus replica is the one that goes, and it needs no look at it.
    let mut world = World::new(&[("a", "good"), ("b", "good"), ("b", "good")]);
    world.cluster.write_failed(NOW, NodeId(1), None);
    assert_eq!(world.orders(NOW, 2, 1), ["verify 2", "verify 3"]);
    for node in [2, 3] {
        world.cluster.verified(NOW, world.session(node), &[replica("good")]);
    }
    assert_eq!(world.orders(NOW, 2, 1), ["drop 1 g2"]);
}

/// Nodes that die, come back and rot by chance, and do what they are told or fail at it: at the end every chunk has
/// as many good replicas as are wanted, no node was ever told to drop the last good ones, and nothing is left to do.
#[test]
fn every_chunk_gets_its_replicas_back_whatever_happens() {
    for seed in 0..40 {
        simulate(seed);
    }
}

fn simulate(seed: u64) {
    const NODES: u64 = 5;
    const WANTED: u32 = 3;
    const ROUNDS: u64 = 80;
    const CHUNKS: u64 = 12;
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut random = |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    };
    let mut world = World::new(&[("a", ""), ("a", ""), ("b", ""), ("b", ""), ("c", "")]);
    let of = |id: u64, corrupt: bool| Replica { chunk: ChunkId(id), corrupt, ..replica("good") };
    // The truth on the disks: by node and chunk, whether it is rotten, and whether the node knows.
    let mut disks: BTreeMap<(u64, u64), (bool, bool)> = BTreeMap::new();
    for id in 1..=CHUNKS {
        for node in (0..u64::from(WANTED)).map(|it| (id + it) % NODES + 1) {
            disks.insert((node, id), (false, false));
            world.cluster.changed(NOW, world.session(node), &[of(id, false)], &[]).expect("fine");
        }
    }
    let mut dead: BTreeMap<u64, u64> = BTreeMap::new();
    let mut now_ms = NOW;
    for round in 0..ROUNDS {
        now_ms += 3_000;
        let calm = round > ROUNDS - 30;
        // One node may be away, one replica of a chunk rotten.
        if !calm && dead.is_empty() && random(4) == 0 {
            let node = random(NODES) + 1;
            dead.insert(node, round + 1 + random(6));
            world.cluster.session_ended(world.session(node));
        }
        let back: Vec<u64> =
            dead.iter().filter(|(_, until)| **until <= round || calm).map(|(n, _)| *n).collect();
        for node in back {
            dead.remove(&node);
            let registration = Registration {
                cluster: Some(ClusterId(7)),
                id: NodeId(node),
                address: format!("n{node}:1"),
                rack: ["a", "a", "b", "b", "c"][node as usize - 1].to_owned(),
                epoch_seen: Epoch(5),
                lsn_seen: Lsn(100),
            };
            let session = world.cluster.register(now_ms, LEADER, registration).expect("joins");
            world.sessions[node as usize - 1] = session;
            let held: Vec<Replica> =
                disks.range((node, 0)..(node + 1, 0)).map(|((_, id), (_, known))| of(*id, *known)).collect();
            world.cluster.report_part(now_ms, session, &held, (true, true), |_| Verdict::Fine).expect("fine");
        }
        for node in (1..=NODES).filter(|node| !dead.contains_key(node)) {
            world.beat(now_ms, node, 1 << 30);
        }
        if !calm && random(3) == 0 {
            let id = random(CHUNKS) + 1;
            let clean: Vec<u64> =
                (1..=NODES).filter(|node| disks.get(&(*node, id)) == Some(&(false, false))).collect();
            let rotten = (1..=NODES).any(|node| disks.get(&(node, id)).is_some_and(|it| it.0));
            if clean.len() >= 3 && !rotten && dead.is_empty() {
                disks.insert((clean[random(clean.len() as u64) as usize], id), (true, false));
                // A reader notices.
                let node = (1..=NODES).find(|node| disks.get(&(*node, id)) == Some(&(true, false)));
                world.cluster.claim(ChunkId(id), NodeId(node.expect("just now")));
            }
        }
        world.cluster.forget_jobs(now_ms);
        let mut orders = world.cluster.check_claims(now_ms);
        for id in 1..=CHUNKS {
            let found: Option<Candidate> = world.cluster.inspect(now_ms, ChunkId(id), chunk(1), WANTED, true);
            if let Some(found) = found {
                orders.extend(world.cluster.repair(now_ms, found, random(1 << 40)));
            }
        }
        for (session, order) in orders {
            let node =
                world.sessions.iter().position(|it| *it == session).expect("a session of now") as u64 + 1;
            assert!(!dead.contains_key(&node), "seed {seed}: an order for a node that is away");
            match order {
                RepairOrder::Verify { chunk } => {
                    let Some(it) = disks.get_mut(&(node, chunk.0)) else { continue };
                    it.1 = it.0;
                    let found = of(chunk.0, it.0);
                    if it.0 {
                        world.cluster.changed(now_ms, session, &[found], &[]).expect("fine");
                    }
                    world.cluster.verified(now_ms, session, &[found]);
                }
                RepairOrder::Copy { replica, target } => {
                    let fails = !calm && random(5) == 0;
                    let source = disks.get_mut(&(node, replica.chunk.0)).expect("a source has it");
                    if source.0 {
                        source.1 = true;
                        let rotten = of(replica.chunk.0, true);
                        world.cluster.changed(now_ms, session, &[rotten], &[]).expect("fine");
                    }
                    let rotten = source.0;
                    let outcome = if fails || rotten || dead.contains_key(&target.node.0) {
                        Err(CopyFailure { code: ErrorCode::HopFailed, node: target.node, text: "no".into() })
                    } else {
                        let before = disks.insert((target.node.0, replica.chunk.0), (false, false));
                        assert_eq!(before, None, "seed {seed}: a copy over a replica");
                        Ok(Some(chunk(1)))
                    };
                    world.cluster.replicated(now_ms, replica.chunk, target.node, outcome);
                }
                RepairOrder::Drop { chunk, corrupt, .. } => {
                    if disks.get(&(node, chunk.0)).is_some_and(|it| it.1 == corrupt) {
                        disks.remove(&(node, chunk.0));
                        let sound = disks.iter().filter(|((_, id), it)| *id == chunk.0 && !it.0).count();
                        assert!(sound >= 1, "seed {seed}: the last good replica was dropped");
                        world.cluster.changed(now_ms, session, &[], &[chunk]).expect("fine");
                    }
                }
            }
        }
    }
    for id in 1..=CHUNKS {
        let there: Vec<bool> = disks.iter().filter(|((_, of), _)| *of == id).map(|(_, it)| it.0).collect();
        assert_eq!(there, [false; WANTED as usize], "seed {seed}: chunk {id} at the end");
        assert_eq!(world.cluster.inspect(now_ms, ChunkId(id), chunk(1), WANTED, true), None, "seed {seed}");
    }
}
