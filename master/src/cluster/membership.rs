//! Which datanodes are live, suspect or dead, kept by events and deadlines. Pure.
//!
//! - Each node has one deadline: the time at which it would be late, then the one at which it would be dead. A look at a
//!   moment takes the nodes whose deadline has passed, a few per step, and never goes over all nodes.
//! - When a node was last heard stands in a cell that its session sets without the cluster's lock, as soon as a message has
//!   arrived: a lock that is held for long cannot make live nodes look dead.
//! - Silence counts only while this master listened. After it was itself stalled (paused, swapped out, starved of
//!   processor time) no node is declared dead until a full timeout of undisturbed listening has passed.
//! - What is known in sums (live nodes, missing reports, capacity) is adjusted when a node changes, and never added up.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use distrifs_proto::types::NodeId;

use super::candidates::Share;
use super::node::{Load, Node};
use super::outage::{Membership, TIMEOUTS};
use super::weights::Leaf;
use super::{Cluster, NodeState, Timing};
use crate::hold;

/// Nodes that are looked at in one step: the lock is held meanwhile.
pub(crate) const STEP_NODES: usize = 64;
/// A node that is dead, holds no replica and was silent for so long is forgotten; under pressure, at once.
const UNUSED_MS: u64 = 600_000;

/// When a node was last heard, in milliseconds of the master's clock.
#[derive(Debug, Clone, Default)]
pub(crate) struct LastHeard(Arc<AtomicU64>);

impl LastHeard {
    /// Begins at a time.
    pub(super) fn at(now_ms: u64) -> Self {
        Self(Arc::new(AtomicU64::new(now_ms)))
    }

    /// The node was heard; never goes back.
    pub(crate) fn heard(&self, now_ms: u64) {
        self.0.fetch_max(now_ms, Ordering::Relaxed);
    }

    /// When that was.
    pub(super) fn ms(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// How silence is judged.
#[derive(Debug, Clone, Copy)]
pub(super) struct Listening {
    pub(super) timing: Timing,
    /// Silence before this does not count: the master itself was stalled.
    pub(super) since_ms: u64,
}

impl Listening {
    /// Between the interval, which every healthy node reaches, and the timeout.
    fn late_ms(&self) -> u64 {
        (self.timing.heartbeat_interval_ms + self.timing.heartbeat_timeout_ms) / 2
    }

    /// The state of a node that was last heard at `heard_ms` and was declared dead at `died_ms`.
    pub(super) fn state(
        &self,
        now_ms: u64,
        heard_ms: u64,
        died_ms: Option<u64>,
        has_session: bool,
    ) -> NodeState {
        let silent = now_ms.saturating_sub(heard_ms.max(self.since_ms));
        // Of a node that was declared dead a stall of the master makes no live one: it has to be heard.
        let is_declared = died_ms.is_some_and(|died| heard_ms <= died);
        if is_declared || silent > self.timing.heartbeat_timeout_ms {
            NodeState::Dead
        } else if !has_session || silent > self.late_ms() {
            NodeState::Suspect
        } else {
            NodeState::Live
        }
    }

    /// When the state of such a node would next become worse.
    fn deadline(&self, heard_ms: u64, state: NodeState) -> u64 {
        let limit = match state {
            NodeState::Live => self.late_ms(),
            NodeState::Suspect | NodeState::Dead => self.timing.heartbeat_timeout_ms,
        };
        heard_ms.max(self.since_ms).saturating_add(limit).saturating_add(1)
    }
}

/// What a node adds to the sums.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Counted {
    /// Live, and has reported its load.
    live: bool,
    /// Live, and others could not reach it.
    distrusted: bool,
    suspect: bool,
    dead: bool,
    /// It has a session, whose full report is not in.
    unreported: bool,
    /// Of nodes that are not dead.
    space: Space,
}

/// Disk space.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Space {
    /// Of all folders.
    pub(crate) capacity_bytes: u64,
    /// Taken by chunks.
    pub(crate) used_bytes: u64,
    /// For new chunks.
    pub(crate) free_bytes: u64,
}

impl Space {
    /// Of the folders that serve: a broken one holds nothing and takes nothing.
    pub(crate) fn of(load: &Load) -> Self {
        let sum = |of: fn(&super::Dir) -> u64| {
            let healthy = load.dirs.iter().filter(|dir| dir.healthy);
            healthy.map(of).fold(0, u64::saturating_add)
        };
        Self {
            capacity_bytes: sum(|dir| dir.capacity_bytes),
            used_bytes: sum(|dir| dir.used_bytes),
            free_bytes: sum(|dir| dir.free_bytes),
        }
    }
}

/// Sums over all nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct NodeSums {
    /// Live ones that have reported their load.
    pub(crate) live: u64,
    /// Of these, such as others could not reach.
    distrusted: u64,
    /// Late ones, and those whose session ended.
    pub(crate) suspect: u64,
    /// Dead ones.
    pub(crate) dead: u64,
    /// Those with a session whose full report is not in.
    pub(crate) unreported: u64,
    /// Declared dead since the start, however often.
    pub(crate) deaths: u64,
    capacity_bytes: u128,
    used_bytes: u128,
    free_bytes: u128,
}

impl NodeSums {
    fn change(&mut self, before: &Counted, after: &Counted) {
        let step =
            |sum: &mut u64, before: bool, after: bool| *sum = *sum + u64::from(after) - u64::from(before);
        step(&mut self.live, before.live, after.live);
        step(&mut self.distrusted, before.distrusted, after.distrusted);
        step(&mut self.suspect, before.suspect, after.suspect);
        step(&mut self.dead, before.dead, after.dead);
        step(&mut self.unreported, before.unreported, after.unreported);
        let bytes =
            |sum: &mut u128, before: u64, after: u64| *sum = *sum + u128::from(after) - u128::from(before);
        bytes(&mut self.capacity_bytes, before.space.capacity_bytes, after.space.capacity_bytes);
        bytes(&mut self.used_bytes, before.space.used_bytes, after.space.used_bytes);
        bytes(&mut self.free_bytes, before.space.free_bytes, after.space.free_bytes);
    }

    /// Of nodes that are not dead.
    pub(crate) fn space(&self) -> Space {
        let bytes = |sum: u128| u64::try_from(sum).unwrap_or(u64::MAX);
        Space {
            capacity_bytes: bytes(self.capacity_bytes),
            used_bytes: bytes(self.used_bytes),
            free_bytes: bytes(self.free_bytes),
        }
    }
}

/// Nodes by the time at which they are to be looked at.
#[derive(Debug, Default)]
pub(super) struct Deadlines(BinaryHeap<Reverse<(u64, u32)>>);

impl Cluster {
    /// Brings up to date who is late or dead, a few nodes per call; whether there is more to do. Drivers call it in a
    /// loop, and let go of the lock in between.
    pub(crate) fn advance(&mut self, now_ms: u64) -> bool {
        for _ in 0..STEP_NODES {
            if let Some(node) = self.trust.next_ended(now_ms) {
                self.refresh_id(now_ms, node);
                continue;
            }
            let Some(Reverse((due, index))) = self.deadlines.0.peek().copied().filter(|it| it.0.0 <= now_ms)
            else {
                self.look_for_outage(now_ms);
                return false;
            };
            self.deadlines.0.pop();
            self.look_at(now_ms, due, index);
        }
        self.is_behind_deadlines(now_ms)
    }

    /// Whether nodes are still to be looked at: their states are not settled.
    pub(super) fn is_behind_deadlines(&self, now_ms: u64) -> bool {
        self.deadlines.0.peek().is_some_and(|Reverse((due, _))| *due <= now_ms)
    }

    fn look_at(&mut self, now_ms: u64, due: u64, index: u32) {
        let listening = self.listening;
        let Some(node) = self.nodes.get_mut(index as usize).and_then(Option::as_mut) else { return };
        // Of an index that was used again the deadlines of before are void.
        if node.deadline_ms != Some(due) {
            return;
        }
        node.deadline_ms = None;
        if node.state(now_ms, listening) == NodeState::Dead {
            if node.died_ms.is_none_or(|died| node.heard.ms() > died) {
                node.died_ms = Some(now_ms);
                self.outage.died(now_ms);
                self.sums.deaths += 1;
                let lost = self.repairs.node_went(index);
                self.repairs.count_failed(lost);
            }
            self.watch_unused(now_ms, index);
        }
        // Sets the next deadline as well.
        self.refresh(now_ms, index);
    }

    fn set_deadline(&mut self, index: u32, due: u64) {
        let Some(node) = self.nodes.get_mut(index as usize).and_then(Option::as_mut) else { return };
        if node.deadline_ms.is_none_or(|now| due < now) {
            node.deadline_ms = Some(due);
            self.deadlines.0.push(Reverse((due, index)));
        }
    }

    /// A dead node that holds nothing is forgotten after a while.
    pub(super) fn watch_unused(&mut self, now_ms: u64, index: u32) {
        let Some(node) = self.nodes.get(index as usize).and_then(Option::as_ref) else { return };
        if node.session.is_some() || node.held.len() > 0 {
            return;
        }
        let over = node.heard.ms().saturating_add(UNUSED_MS);
        if over <= now_ms {
            self.forget_node(index);
        } else {
            self.unused.insert(index);
            self.set_deadline(index, over);
        }
    }

    /// Makes room for one more node by forgetting one that is dead and holds nothing.
    pub(super) fn forget_an_unused(&mut self) -> bool {
        while let Some(index) = self.unused.pop_first() {
            let unused = |node: &Node| node.session.is_none() && node.held.len() == 0;
            if self.nodes.get(index as usize).and_then(Option::as_ref).is_some_and(unused) {
                self.forget_node(index);
                return true;
            }
        }
        false
    }

    fn forget_node(&mut self, index: u32) {
        self.unused.remove(&index);
        let Some(node) = self.nodes.get_mut(index as usize).and_then(Option::take) else { return };
        self.sums.change(&node.counted, &Counted::default());
        self.candidates.leave(index);
        self.usual_commit.replace(node.commit_us, 0);
        self.by_id.remove(&node.id);
        self.trust.forget(node.id);
        self.away.is_back(index, node.away_mark);
        if let Some(died) = node.died_ms {
            self.outage.returned(died);
        }
        self.free.push(index);
    }

    /// This master did not listen for a while: silence counts from now on.
    pub(crate) fn stalled(&mut self, now_ms: u64) {
        self.stalls += 1;
        self.listening.since_ms = self.listening.since_ms.max(now_ms);
    }

    /// The cell in which a session notes that its node was heard.
    pub(crate) fn last_heard(&self, session: super::SessionId) -> Option<LastHeard> {
        let index = *self.sessions.get(&session)?;
        self.node(index).map(|node| node.heard.clone())
    }

    /// How often this master did not listen.
    pub(crate) fn stalls(&self) -> u64 {
        self.stalls
    }

    /// Live nodes that are trusted with work.
    pub(crate) fn trusted_live(&self) -> u64 {
        let too_many = self.trust.are_too_many(self.by_id.len());
        self.sums.live - if too_many { 0 } else { self.sums.distrusted }
    }

    /// Sums over all nodes.
    pub(crate) fn sums(&self) -> NodeSums {
        self.sums
    }

    pub(super) fn refresh_id(&mut self, now_ms: u64, node: NodeId) {
        if let Some(index) = self.by_id.get(&node).copied() {
            self.refresh(now_ms, index);
        }
    }

    /// A node has changed: its part in the sums, its place among the candidates and its next deadline follow.
    pub(super) fn refresh(&mut self, now_ms: u64, index: u32) {
        let listening = self.listening;
        let distrusted = |id: NodeId| self.trust.is_distrusted(now_ms, id);
        let usual_us = self.usual_commit.median();
        let Some(node) = self.nodes.get_mut(index as usize).and_then(Option::as_mut) else { return };
        hold::count(1);
        let state = node.state(now_ms, listening);
        let live = state == NodeState::Live && node.load.is_some();
        let share = if distrusted(node.id) { Share::Distrusted } else { Share::Trusted };
        let mut counted = Counted {
            live,
            distrusted: live && share == Share::Distrusted,
            suspect: state == NodeState::Suspect,
            dead: state == NodeState::Dead,
            unreported: node.session.is_some() && !node.reported,
            space: Space::default(),
        };
        if let Some(load) = node.load.as_ref().filter(|_| state != NodeState::Dead) {
            counted.space = Space::of(load);
        }
        if state != NodeState::Dead
            && let Some(died) = node.died_ms.take()
        {
            self.outage.returned(died);
            self.unused.remove(&index);
        }
        let away = node.session.is_none();
        let mark = if away { node.away_mark } else { node.away_mark.take() };
        let before = std::mem::replace(&mut node.counted, counted);
        let leaf = node.leaf(usual_us).filter(|_| live);
        let (named, next) = (!node.rack.is_empty(), listening.deadline(node.heard.ms(), state));
        self.sums.change(&before, &counted);
        self.candidates.set(index, leaf.map(|leaf| (share, leaf)));
        match away {
            true => self.away.went(index, mark),
            false => self.away.is_back(index, mark),
        }
        if let Some((rack, is_live)) =
            self.candidates.count_live(index, state == NodeState::Live).filter(|_| named)
        {
            match is_live {
                true => self.outage.rack_returned(rack),
                false => self.outage.rack_vanished(now_ms, rack),
            }
        }
        if state != NodeState::Dead {
            self.set_deadline(index, next);
        }
    }

    /// Applies the rule of mass failures, now that it is settled who is dead.
    fn look_for_outage(&mut self, now_ms: u64) {
        let present = self.sums.live + self.sums.suspect;
        let now = Membership { present, suspects: self.sums.suspect };
        let timeout_ms = self.listening.timing.heartbeat_timeout_ms;
        let found = self.outage.look(now_ms, timeout_ms, now);
        self.paused = found.map(|(missing, rest_ms)| {
            let why = format!(
                "{} of {} datanodes vanished at once ({} whole racks): repair waits for {} s from the last loss, or until \
                 enough of them are back: start them again, or mend the network",
                missing.nodes,
                present - now.suspects + missing.nodes,
                missing.racks,
                (TIMEOUTS * timeout_ms).div_ceil(1000)
            );
            (now_ms.saturating_add(rest_ms), why)
        });
    }
}

impl Node {
    /// How it may be drawn: in proportion to its free space, less where many writes are open or the disks are slow.
    fn leaf(&self, usual_us: u64) -> Option<Leaf> {
        let load = self.load.as_ref()?;
        let healthy = || load.dirs.iter().filter(|dir| dir.healthy).map(|dir| dir.free_bytes);
        let (total, largest) = (healthy().fold(0, u64::saturating_add), healthy().max()?);
        let room = largest.min(total.saturating_sub(self.reserved.bytes()));
        let busy = u64::from(load.open_writes) + u64::from(self.reserved.count());
        // A disk that takes as long again as is usual gets half as much.
        let slowness = (self.commit_us / usual_us.max(super::placement::COMMIT_US_MIN)).max(1);
        let weight = (total / (1 + busy) / slowness).max(1);
        Some(Leaf { weight: u128::from(weight), room })
    }
}
