//! What is to be done so that every chunk has as many good replicas as are wanted, and no other ones. Pure.
//!
//! - Missing copies are made from a good replica on a node that is live, to a node that has none, in a rack that
//!   helps; the source verifies what it copies.
//! - A damaged replica (rotten, stale or of other bytes) is removed once enough good ones stand beside it; where it
//!   blocks the only place left for a copy, once a good one was read whole and found sound.
//! - A surplus replica is removed only when all that stay were read whole and found sound a short while ago; of a chunk
//!   that several files share, only beyond what the one that wants most of them wants.
//! - Until the reports are in after a start, and for a master that is behind, nothing is done at all.

use std::collections::{HashMap, HashSet, VecDeque};

use distrifs_proto::ErrorCode;
use distrifs_proto::types::{ChunkId, Crc32c, GenerationStamp, NodeId};

use super::jobs::{Jobs, Kind};
use super::pace::Pace;
use super::placement::Target;
use super::replicas::Held;
use super::trust::WEIGHT_READ;
use super::{Cluster, Endpoint, NodeState, Replica, ReplicaState, SessionId};
use crate::hold;
use crate::namespace::Chunk;

/// For how long a replica that was read whole counts as sound.
const SOUND_MS: u64 = 3_600_000;
/// Replicas remembered as sound; the oldest are forgotten first.
const SOUND_MAX: usize = 1 << 16;
/// Chunks of which it is remembered why they wait.
const WAITS_MAX: usize = 1 << 14;
/// After a failed copy a chunk rests for so long.
const REST_MS: u64 = 2_000;
/// Replicas that readers complained of and that are to be read whole.
const CLAIMS_MAX: usize = 1 << 12;
/// Of these, ordered in one step.
const CLAIMS_STEP: usize = 64;

/// A chunk that is not as it should be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Candidate {
    /// Which.
    pub(crate) id: ChunkId,
    /// As the namespace has it.
    pub(crate) chunk: Chunk,
    /// Replicas asked for.
    pub(crate) wanted: u32,
    /// Good ones that there are: the fewer, the sooner.
    pub(crate) good: u32,
    /// Whether no file wants more of them, so that surplus ones may go.
    pub(crate) trims: bool,
}

/// What a node is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RepairOrder {
    /// Copy its replica, which must be this, to `target`.
    Copy { replica: Replica, target: Endpoint },
    /// Read its replica whole.
    Verify { chunk: ChunkId },
    /// Remove its replica.
    Drop { chunk: ChunkId, generation: GenerationStamp, corrupt: bool },
}

/// Why nothing more is done about a chunk now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Wait {
    /// Nothing to copy from.
    #[error("no replica is known: start the datanodes that had it")]
    NoReplica,
    /// Nothing good to copy from.
    #[error(
        "all {0} known replicas are damaged: start a datanode that has a good one, or write the file again"
    )]
    OnlyDamaged(u32),
    /// The good ones are on nodes that do not answer well.
    #[error("the good replicas are on datanodes that are not live now")]
    SourceNotLive,
    /// Nobody to copy to.
    #[error(
        "no datanode for one more replica: {live} live, {holding} hold one, {roomy} of the others have room"
    )]
    NoTarget { live: usize, holding: usize, roomy: usize },
    /// Enough is being done.
    #[error("in the queue: the datanodes concerned have enough to do")]
    Busy,
    /// A copy failed a moment ago.
    #[error("the last try failed: {0}")]
    Failed(String),
    /// Orders are out.
    #[error("{0}")]
    Running(&'static str),
}

/// Sums for operators.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct RepairStats {
    /// Copies on their way.
    pub(crate) running: u64,
    /// Copies made since the start.
    pub(crate) done: u64,
    /// Copies that failed or were given up since the start.
    pub(crate) failed: u64,
    /// Replicas found damaged by whoever read them whole, since the start.
    pub(crate) found_corrupt: u64,
    /// Surplus and damaged replicas ordered to be removed, since the start.
    pub(crate) dropped: u64,
    /// Copies that are missing, as far as is known.
    pub(crate) missing: u64,
    /// How long they will take at the pace of the last minute; `None`: no copy was made in it.
    pub(crate) seconds_left: Option<u64>,
}

/// The memory of repair.
#[derive(Debug, Default)]
pub(super) struct Repairs {
    jobs: Jobs,
    sound: HashMap<(ChunkId, u32), u64>,
    sound_order: VecDeque<(ChunkId, u32, u64)>,
    waits: HashMap<ChunkId, Wait>,
    resting: HashMap<ChunkId, (u64, String)>,
    /// The same, in the order in which they end.
    resting_order: VecDeque<(u64, ChunkId)>,
    claims: VecDeque<(ChunkId, u32)>,
    /// The same, to be found.
    claimed: HashSet<(ChunkId, u32)>,
    stats: RepairStats,
    pace: Pace,
}

impl Repairs {
    fn is_sound(&self, now_ms: u64, chunk: ChunkId, node: u32) -> bool {
        self.sound.get(&(chunk, node)).is_some_and(|until| *until > now_ms)
    }

    fn found_sound(&mut self, now_ms: u64, chunk: ChunkId, node: u32) {
        while self.sound_order.len() >= SOUND_MAX {
            let Some((chunk, node, until)) = self.sound_order.pop_front() else { break };
            if self.sound.get(&(chunk, node)) == Some(&until) {
                self.sound.remove(&(chunk, node));
            }
        }
        let until = now_ms.saturating_add(SOUND_MS);
        self.sound.insert((chunk, node), until);
        self.sound_order.push_back((chunk, node, until));
    }

    /// A node died, or its session is over: its orders will not be answered. How many copies were among them.
    pub(super) fn node_went(&mut self, node: u32) -> u64 {
        self.jobs.forget_node(node)
    }

    /// So many copies failed.
    pub(super) fn count_failed(&mut self, copies: u64) {
        self.stats.failed += copies;
    }

    fn rest(&mut self, now_ms: u64, chunk: ChunkId, why: String) {
        while let Some((until, chunk)) = self.resting_order.front().copied()
            && (until <= now_ms || self.resting_order.len() >= WAITS_MAX)
        {
            self.resting_order.pop_front();
            if self.resting.get(&chunk).is_some_and(|(of, _)| *of == until) {
                self.resting.remove(&chunk);
            }
        }
        let until = now_ms.saturating_add(REST_MS);
        self.resting_order.push_back((until, chunk));
        self.resting.insert(chunk, (until, why));
    }

    /// A node reports a replica gone.
    pub(super) fn removed(&mut self, chunk: ChunkId, node: u32) {
        self.jobs.end(chunk, node, Kind::Drop);
        self.jobs.end(chunk, node, Kind::Verify);
        self.sound.remove(&(chunk, node));
    }
}

/// A replica with what is known of it and its node.
#[derive(Debug, Clone, Copy)]
struct Seen {
    held: Held,
    state: ReplicaState,
    node_state: NodeState,
    session: Option<SessionId>,
    /// Its node takes orders and is heard in time, whatever others say of its data port.
    heard: bool,
    blamed: bool,
}

impl Seen {
    fn node(&self) -> u32 {
        self.held.node
    }

    fn is_good(&self) -> bool {
        self.state == ReplicaState::Good
    }

    /// Good, on a node that takes orders and does them well.
    fn is_source(&self) -> bool {
        self.is_good() && self.node_state == NodeState::Live && self.session.is_some()
    }
}

type Orders = Vec<(SessionId, RepairOrder)>;

impl Cluster {
    /// Why nothing is repaired or trimmed at all now; `None`: it is.
    pub(crate) fn safe_mode(&self, now_ms: u64) -> Option<String> {
        if let Some(behind) = &self.behind {
            return Some(behind.to_string());
        }
        let since = now_ms.saturating_sub(self.started_ms);
        let timeout_ms = self.listening.timing.heartbeat_timeout_ms;
        if since < timeout_ms {
            let rest = (timeout_ms - since).div_ceil(1000);
            return Some(format!("the master has just started: it waits {rest} s more for datanodes"));
        }
        let missing = self.sums.unreported;
        if missing > 0 {
            return Some(format!("the block reports of {missing} datanodes are not in yet"));
        }
        self.paused.as_ref().filter(|(until_ms, _)| *until_ms > now_ms).map(|(_, why)| why.clone())
    }

    /// Whether nothing is repaired or trimmed at all now, for certain or because it is not settled yet who is dead.
    pub(crate) fn is_repair_paused(&mut self, now_ms: u64) -> bool {
        self.advance(now_ms) || self.safe_mode(now_ms).is_some()
    }

    /// Whether something is to be done about a chunk; `trims`: no file wants more than `wanted`.
    pub(crate) fn inspect(
        &self,
        now_ms: u64,
        id: ChunkId,
        chunk: Chunk,
        wanted: u32,
        trims: bool,
    ) -> Option<Candidate> {
        hold::count(1);
        let health = self.health(now_ms, id, &chunk);
        let good = health.good;
        let surplus = good > wanted && trims;
        let it = Candidate { id, chunk, wanted, good, trims };
        (good < wanted || health.damaged > 0 || surplus).then_some(it)
    }

    /// What nodes are to be told about a chunk now, and remembers it. Nothing, when it waits or is as it should be.
    pub(crate) fn repair(&mut self, now_ms: u64, it: Candidate, seed: u64) -> Orders {
        if self.is_repair_paused(now_ms) {
            return Orders::new();
        }
        match self.plan_repair(now_ms, it, seed) {
            Ok(orders) => {
                self.repairs.waits.remove(&it.id);
                orders
            }
            Err(wait) => {
                if self.repairs.waits.len() < WAITS_MAX || self.repairs.waits.contains_key(&it.id) {
                    self.repairs.waits.insert(it.id, wait);
                }
                Orders::new()
            }
        }
    }

    fn plan_repair(&mut self, now_ms: u64, it: Candidate, seed: u64) -> Result<Orders, Wait> {
        let seen = self.seen(now_ms, it.id, &it.chunk);
        let there: Vec<Seen> =
            seen.iter().copied().filter(|replica| replica.node_state != NodeState::Dead).collect();
        let good: Vec<Seen> = there.iter().copied().filter(Seen::is_good).collect();
        let damaged: Vec<Seen> = there.iter().copied().filter(|replica| !replica.is_good()).collect();
        let (wanted, found) = (it.wanted as usize, good.len());
        if found < wanted {
            let missing = wanted - found;
            let running = self.copies_of(it.id);
            if running >= missing {
                return Err(Wait::Running("a copy is being made"));
            }
            return self.plan_copies(now_ms, it, &there, missing - running, seed);
        }
        if !damaged.is_empty() {
            return self.drop_replicas(now_ms, it.id, &damaged);
        }
        if found > wanted && it.trims {
            return self.trim(now_ms, it, &good);
        }
        Ok(Orders::new())
    }

    fn seen(&self, now_ms: u64, id: ChunkId, chunk: &Chunk) -> Vec<Seen> {
        let mut seen: Vec<Seen> = self
            .replicas
            .of(id)
            .filter_map(|held| {
                let node = self.node(held.node)?;
                Some(Seen {
                    state: ReplicaState::of(&held, chunk),
                    node_state: self.state_of(now_ms, node),
                    session: node.session.filter(|_| node.reported),
                    heard: node.reported && node.state(now_ms, self.listening) == NodeState::Live,
                    blamed: self.replicas.is_blamed(now_ms, id, held.node),
                    held,
                })
            })
            .collect();
        seen.sort_by_key(Seen::node);
        seen
    }

    fn copies_of(&self, id: ChunkId) -> usize {
        self.repairs.jobs.nodes(id, Kind::CopyTo).count()
    }

    fn plan_copies(
        &mut self,
        now_ms: u64,
        it: Candidate,
        there: &[Seen],
        missing: usize,
        seed: u64,
    ) -> Result<Orders, Wait> {
        let good = there.iter().filter(|replica| replica.is_good()).count();
        match (good, there.len()) {
            (0, 0) => return Err(Wait::NoReplica),
            (0, damaged) => return Err(Wait::OnlyDamaged(damaged as u32)),
            _ => {}
        }
        if let Some((until, text)) = self.repairs.resting.get(&it.id) {
            if *until > now_ms {
                return Err(Wait::Failed(text.clone()));
            }
            self.repairs.resting.remove(&it.id);
        }
        let mut sources: Vec<&Seen> = there.iter().filter(|replica| replica.is_source()).collect();
        if sources.is_empty() {
            // Better from a node that is slow than not at all.
            sources = there.iter().filter(|replica| replica.is_good() && replica.session.is_some()).collect();
        }
        if sources.is_empty() {
            return Err(Wait::SourceNotLive);
        }
        let is_urgent = good == 1;
        sources.retain(|replica| self.repairs.jobs.has_room(replica.node(), Kind::CopyFrom, is_urgent));
        // Those that nobody complains of first, then those with least to do.
        sources.sort_by_key(|replica| {
            (replica.blamed, self.repairs.jobs.load(replica.node(), Kind::CopyFrom), replica.node())
        });
        if sources.is_empty() {
            return Err(Wait::Busy);
        }
        let length = u64::from(it.chunk.length);
        let mut holders: Vec<u32> = there.iter().map(Seen::node).collect();
        for kind in [Kind::CopyTo, Kind::Drop] {
            holders.extend(self.repairs.jobs.nodes(it.id, kind));
        }
        let mut orders = Orders::new();
        let mut is_busy = false;
        for turn in 0..missing {
            let source = sources[turn % sources.len()];
            let Some(session) = source.session else { break };
            let takes = |repairs: &Repairs, node: u32| repairs.jobs.has_room(node, Kind::CopyTo, is_urgent);
            let target = match self.target_for(now_ms, length, &holders, takes, seed ^ turn as u64) {
                Target::Node(target) => target,
                Target::Busy => {
                    is_busy = true;
                    break;
                }
                Target::None => break,
            };
            let Some(node) = self.node(target) else { break };
            let endpoint = Endpoint { node: node.id, address: node.address.clone() };
            let replica = expected(it.id, &it.chunk);
            orders.push((session, RepairOrder::Copy { replica, target: endpoint }));
            self.repairs.jobs.copy(now_ms, it.id, source.node(), target, length);
            holders.push(target);
        }
        if !orders.is_empty() {
            return Ok(orders);
        }
        // A damaged replica may stand in the only place that is left.
        let damaged: Vec<Seen> = there.iter().copied().filter(|replica| !replica.is_good()).collect();
        if is_busy {
            return Err(Wait::Busy);
        }
        if damaged.is_empty() {
            let live = self.sums.live as usize;
            return Err(Wait::NoTarget { live, holding: holders.len(), roomy: 0 });
        }
        let mut sources = there.iter().filter(|replica| replica.is_source());
        if sources.clone().any(|replica| self.repairs.is_sound(now_ms, it.id, replica.node())) {
            return self.drop_replicas(now_ms, it.id, &damaged);
        }
        match sources.next() {
            Some(source) => self.verify(now_ms, it.id, &[*source]),
            None => Err(Wait::SourceNotLive),
        }
    }

    /// These replicas go; their nodes must hold them for what we hold them for.
    fn drop_replicas(&mut self, now_ms: u64, id: ChunkId, damaged: &[Seen]) -> Result<Orders, Wait> {
        let mut orders = Orders::new();
        for replica in damaged {
            let node = replica.node();
            let Some(session) = replica.session else { continue };
            let jobs = &self.repairs.jobs;
            let takes = if jobs.runs(id, node, Kind::Drop) {
                jobs.is_overdue(now_ms, id, node, Kind::Drop)
            } else {
                jobs.has_room(node, Kind::Drop, true)
            };
            if !takes {
                continue;
            }
            self.repairs.jobs.begin(now_ms, id, node, Kind::Drop);
            self.repairs.stats.dropped += 1;
            let (generation, corrupt) = (replica.held.replica.generation, replica.held.replica.corrupt);
            orders.push((session, RepairOrder::Drop { chunk: id, generation, corrupt }));
        }
        if orders.is_empty() {
            return Err(Wait::Running("a replica is being removed"));
        }
        Ok(orders)
    }

    fn verify(&mut self, now_ms: u64, id: ChunkId, replicas: &[Seen]) -> Result<Orders, Wait> {
        let mut orders = Orders::new();
        for replica in replicas {
            let node = replica.node();
            let Some(session) = replica.session else { continue };
            if self.repairs.jobs.runs(id, node, Kind::Verify)
                || !self.repairs.jobs.has_room(node, Kind::Verify, true)
            {
                continue;
            }
            self.repairs.jobs.begin(now_ms, id, node, Kind::Verify);
            orders.push((session, RepairOrder::Verify { chunk: id }));
        }
        if orders.is_empty() {
            return Err(Wait::Running("the good replicas are being read whole"));
        }
        Ok(orders)
    }

    /// One replica too many goes, when all the others were found sound.
    fn trim(&mut self, now_ms: u64, it: Candidate, good: &[Seen]) -> Result<Orders, Wait> {
        // Those that are heard now; whose data ports do not answer goes first.
        let heard: Vec<Seen> = good.iter().copied().filter(|replica| replica.heard).collect();
        if heard.len() <= it.wanted as usize {
            return Err(Wait::SourceNotLive);
        }
        // What was ordered once may still be carried out: no other one goes before it has.
        let ordered = |replica: &&Seen| self.repairs.jobs.runs(it.id, replica.node(), Kind::Drop);
        if let Some(ordered) = good.iter().find(ordered).copied() {
            return self.drop_replicas(now_ms, it.id, &[ordered]);
        }
        let rack_of = |replica: &Seen| self.node(replica.node()).map_or("", |node| node.rack.as_str());
        let twins = |replica: &Seen| heard.iter().filter(|other| rack_of(other) == rack_of(replica)).count();
        let free = |replica: &Seen| {
            let load = self.node(replica.node()).and_then(|node| node.load.as_ref());
            load.map_or(0, |load| load.dirs.iter().map(|dir| dir.free_bytes).fold(0, u64::saturating_add))
        };
        // Of the rack that has most of them, the node with least room.
        let worst = |replica: &&Seen| {
            (!replica.is_source(), replica.blamed, twins(replica), std::cmp::Reverse(free(replica)))
        };
        let Some(victim) = heard.iter().max_by_key(worst).copied() else { return Err(Wait::SourceNotLive) };
        let unsound: Vec<Seen> = heard
            .iter()
            .copied()
            .filter(|replica| replica.node() != victim.node())
            .filter(|replica| !self.repairs.is_sound(now_ms, it.id, replica.node()))
            .collect();
        if !unsound.is_empty() {
            return self.verify(now_ms, it.id, &unsound);
        }
        self.drop_replicas(now_ms, it.id, &[victim])
    }

    /// Forgets some orders without an answer in time; whether there are more of them.
    pub(crate) fn forget_jobs(&mut self, now_ms: u64) -> bool {
        let (lost, more) = self.repairs.jobs.forget_overdue(now_ms);
        self.repairs.count_failed(lost);
        more
    }

    /// Takes out why chunks wait, since a new look at all of them begins. They may be many: the caller drops them without
    /// the lock.
    pub(crate) fn take_waits(&mut self) -> impl Sized + use<> {
        std::mem::take(&mut self.repairs.waits)
    }

    /// Whether no node takes one more order to copy, even of a chunk with a single copy left.
    pub(crate) fn has_all_jobs(&self) -> bool {
        self.repairs.jobs.is_full(true)
    }

    /// A reader says that a replica is bad: its node is to read it whole.
    pub(crate) fn claim(&mut self, chunk: ChunkId, node: NodeId) {
        if let Some(index) = self.by_id.get(&node).copied()
            && self.repairs.claims.len() < CLAIMS_MAX
            && self.replicas.holds(chunk, index)
            && self.repairs.claimed.insert((chunk, index))
        {
            self.repairs.claims.push_back((chunk, index));
        }
    }

    /// Orders to read what readers complained of.
    pub(crate) fn check_claims(&mut self, now_ms: u64) -> Orders {
        let mut orders = Orders::new();
        for _ in 0..self.repairs.claims.len().min(CLAIMS_STEP) {
            let Some((chunk, index)) = self.repairs.claims.pop_front() else { break };
            hold::count(1);
            self.repairs.claimed.remove(&(chunk, index));
            let Some(node) = self.node(index) else { continue };
            let Some(session) = node.session.filter(|_| node.reported) else { continue };
            if self.repairs.jobs.runs(chunk, index, Kind::Verify) {
                continue;
            }
            if !self.repairs.jobs.has_room(index, Kind::Verify, true) {
                self.repairs.claims.push_back((chunk, index));
                self.repairs.claimed.insert((chunk, index));
                continue;
            }
            self.repairs.jobs.begin(now_ms, chunk, index, Kind::Verify);
            orders.push((session, RepairOrder::Verify { chunk }));
        }
        orders
    }

    /// A node has read replicas whole.
    pub(crate) fn verified(&mut self, now_ms: u64, session: SessionId, replicas: &[Replica]) {
        let Some((index, _)) = self.node_of(session) else { return };
        for replica in replicas {
            self.repairs.jobs.end(replica.chunk, index, Kind::Verify);
            if replica.corrupt {
                self.repairs.stats.found_corrupt += 1;
                self.repairs.sound.remove(&(replica.chunk, index));
            } else {
                self.repairs.found_sound(now_ms, replica.chunk, index);
                self.replicas.unblame(replica.chunk, index);
            }
        }
    }

    /// A node says what came of a copy that it was to make; `chunk` is what the namespace says of it.
    pub(crate) fn replicated(
        &mut self,
        now_ms: u64,
        id: ChunkId,
        target: NodeId,
        outcome: Result<Option<Chunk>, CopyFailure>,
    ) {
        let Some(index) = self.by_id.get(&target).copied() else { return };
        if !self.repairs.jobs.end(id, index, Kind::CopyTo) {
            return;
        }
        match outcome {
            Ok(chunk) => {
                self.repairs.stats.done += 1;
                self.repairs.pace.made(now_ms);
                // Its own report may still be on its way.
                if let Some(chunk) = chunk {
                    self.completed(expected(id, &chunk), &[target]);
                }
            }
            Err(failure) => {
                self.repairs.stats.failed += 1;
                let is_of_link = matches!(failure.code, ErrorCode::HopFailed | ErrorCode::Unavailable);
                if is_of_link && failure.node == target {
                    self.complain(now_ms, target, WEIGHT_READ);
                }
                self.repairs.rest(now_ms, id, failure.text);
            }
        }
    }

    /// Why a chunk that is not as it should be is not repaired yet.
    pub(crate) fn why_unrepaired(&self, now_ms: u64, id: ChunkId) -> String {
        if let Some(why) = self.safe_mode(now_ms) {
            return format!("safe mode: {why}");
        }
        let not_yet = || "not looked at yet: the next look will see to it".to_owned();
        let why = self.why_waiting(id).unwrap_or_else(not_yet);
        if !matches!(self.repairs.waits.get(&id), None | Some(Wait::Busy | Wait::Running(_))) {
            return why;
        }
        match self.repairs.pace.seconds_left(now_ms) {
            Some(seconds) => format!("{why}; at the pace of the last minute all is done in {seconds} s"),
            None => why,
        }
    }

    /// All chunks were looked at: so many copies are missing.
    pub(crate) fn set_copies_missing(&mut self, copies: u64) {
        self.repairs.pace.set_missing(copies);
    }

    /// What is done about a chunk, or why it waits, as far as anything was to be done at the last look.
    pub(crate) fn why_waiting(&self, id: ChunkId) -> Option<String> {
        if self.copies_of(id) > 0 {
            return Some(Wait::Running("a copy is being made").to_string());
        }
        self.repairs.waits.get(&id).map(Wait::to_string)
    }

    /// Whether nothing was ordered for a chunk because the datanodes concerned have enough to do.
    pub(crate) fn is_busy(&self, id: ChunkId) -> bool {
        self.repairs.waits.get(&id) == Some(&Wait::Busy)
    }

    /// Sums for operators.
    pub(crate) fn repair_stats(&self, now_ms: u64) -> RepairStats {
        let pace = &self.repairs.pace;
        let (missing, seconds_left) = (pace.missing(), pace.seconds_left(now_ms));
        RepairStats { running: self.repairs.jobs.copies(), missing, seconds_left, ..self.repairs.stats }
    }
}

/// Why a copy was not made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CopyFailure {
    /// The kind.
    pub(crate) code: ErrorCode,
    /// At which node.
    pub(crate) node: NodeId,
    /// In words.
    pub(crate) text: String,
}

fn expected(id: ChunkId, chunk: &Chunk) -> Replica {
    let (length, crc): (u64, Crc32c) = (u64::from(chunk.length), chunk.crc);
    Replica { chunk: id, generation: chunk.generation, length, crc, corrupt: false }
}
