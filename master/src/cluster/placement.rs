//! Where a new chunk goes: distinct live nodes, distinct racks where there are racks, more to those with more
//! room, less to write and quicker disks; nodes that the writer saw fail come last.

use distrifs_proto::types::NodeId;
use distrifs_proto::{ErrorCode, SplitMix};

use super::node::{Node, NodeState};
use super::{Cluster, Endpoint};

/// What is to be placed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted<'a> {
    /// On so many nodes.
    pub(crate) replicas: usize,
    /// So many bytes on each.
    pub(crate) bytes: u64,
    /// Nodes that the writer saw fail.
    pub(crate) exclude: &'a [NodeId],
}

/// Why nothing can be placed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PlacementRefusal {
    /// Fewer live nodes than replicas.
    #[error(
        "write denied: not enough datanodes: {live} live, {wanted} needed: start more or ask for fewer copies"
    )]
    NotEnoughDatanodes {
        /// Live ones that told their load.
        live: usize,
        /// Replicas asked for.
        wanted: usize,
    },
    /// The master has just restarted, and the nodes are not back yet.
    #[error(
        "the master has just restarted: {roomy} of {wanted} datanodes with room are back: try again shortly"
    )]
    Returning {
        /// Live ones with room.
        roomy: usize,
        /// Replicas asked for.
        wanted: usize,
    },
    /// Enough live nodes, but not enough with room.
    #[error(
        "write denied: no space left: {roomy} of {live} live datanodes have {bytes} bytes free, {wanted} needed"
    )]
    NoSpace {
        /// Live ones with room.
        roomy: usize,
        /// Live ones.
        live: usize,
        /// Replicas asked for.
        wanted: usize,
        /// Bytes on each.
        bytes: u64,
    },
}

impl PlacementRefusal {
    /// The number that a caller sees.
    pub(crate) fn code(&self) -> ErrorCode {
        match self {
            Self::Returning { .. } => ErrorCode::Unavailable,
            Self::NotEnoughDatanodes { .. } => ErrorCode::NotEnoughDatanodes,
            Self::NoSpace { .. } => ErrorCode::NoSpace,
        }
    }
}

/// Commits are not told apart below this, in microseconds: it is chance.
const COMMIT_US_MIN: u64 = 10_000;

#[derive(Debug, Clone, Copy)]
struct Candidate {
    index: usize,
    weight: u64,
    excluded: bool,
}

impl Cluster {
    /// The hops of a pipeline, in order. The same state and seed give the same hops.
    ///
    /// # Errors
    /// [`PlacementRefusal`] with the facts; nothing is left behind.
    pub(crate) fn place(
        &mut self,
        now_ms: u64,
        wanted: Wanted<'_>,
        seed: u64,
    ) -> Result<Vec<Endpoint>, PlacementRefusal> {
        let mut left = self.candidates(now_ms, wanted)?;
        let mut random = SplitMix::new(seed);
        let mut chosen: Vec<usize> = Vec::with_capacity(wanted.replicas);
        while chosen.len() < wanted.replicas {
            let best = |all: &[Candidate], only: &dyn Fn(&Candidate) -> bool| -> Vec<Candidate> {
                all.iter().copied().filter(|it| only(it)).collect()
            };
            let new_rack = |it: &Candidate| {
                let rack = &self.nodes[it.index].rack;
                !chosen.iter().any(|&other| self.nodes[other].rack == *rack)
            };
            // What the writer saw fail is worse than a rack twice.
            let mut pool = best(&left, &|it| !it.excluded && new_rack(it));
            if pool.is_empty() {
                pool = best(&left, &|it| !it.excluded);
            }
            if pool.is_empty() {
                pool = best(&left, &new_rack);
            }
            if pool.is_empty() {
                pool = left.clone();
            }
            let Some(picked) = pick(&pool, &mut random) else { break };
            left.retain(|it| it.index != picked);
            chosen.push(picked);
        }
        for index in &chosen {
            self.nodes[*index].assigned = self.nodes[*index].assigned.saturating_add(1);
        }
        let place = |index: usize| {
            let node = &self.nodes[index];
            Endpoint { node: node.id, address: node.address.clone() }
        };
        Ok(chosen.into_iter().map(place).collect())
    }

    /// Whether [`Cluster::place`] would refuse now.
    ///
    /// # Errors
    /// The refusal.
    pub(crate) fn placeable(&self, now_ms: u64, wanted: Wanted<'_>) -> Result<(), PlacementRefusal> {
        self.candidates(now_ms, wanted).map(|_| ())
    }

    /// Where one more replica of `bytes` goes, beside those on `holders`: in a rack that has none if there is one.
    pub(super) fn target_for(
        &self,
        now_ms: u64,
        bytes: u64,
        holders: &[u32],
        takes: impl Fn(u32) -> bool,
        seed: u64,
    ) -> Option<u32> {
        let mut pool = self.roomy(now_ms, bytes, &[]);
        pool.retain(|it| !it.excluded && !holders.contains(&(it.index as u32)) && takes(it.index as u32));
        let racks: Vec<&str> =
            holders.iter().filter_map(|at| self.nodes.get(*at as usize)).map(|it| it.rack.as_str()).collect();
        let elsewhere: Vec<Candidate> =
            pool.iter().copied().filter(|it| !racks.contains(&self.nodes[it.index].rack.as_str())).collect();
        let pool = if elsewhere.is_empty() { pool } else { elsewhere };
        pick(&pool, &mut SplitMix::new(seed)).map(|index| index as u32)
    }

    /// How many nodes are live, and how many of them have room for `bytes` and are not among `holders`.
    pub(super) fn live_and_roomy(&self, now_ms: u64, bytes: u64, holders: &[u32]) -> (usize, usize) {
        let roomy = self.roomy(now_ms, bytes, &[]);
        let free = roomy.iter().filter(|it| !it.excluded && !holders.contains(&(it.index as u32))).count();
        (self.live(now_ms).count(), free)
    }

    /// Those that are live and have told their load: without it nothing is known of their room.
    fn live(&self, now_ms: u64) -> impl Iterator<Item = (usize, &Node)> + '_ {
        self.nodes.iter().enumerate().filter(move |(_, node)| {
            node.state(now_ms, self.timing) == NodeState::Live && node.load.is_some()
        })
    }

    fn roomy(&self, now_ms: u64, bytes: u64, exclude: &[NodeId]) -> Vec<Candidate> {
        let usual_us =
            median(self.live(now_ms).map(|(_, node)| commit_us(node)).filter(|us| *us > 0).collect());
        let candidate = |(index, node): (usize, &Node)| {
            let room = room(node, bytes)?;
            let busy = node.load.as_ref().map_or(0, |load| u64::from(load.open_writes));
            // A disk that takes as long again as is usual gets half as much.
            let slowness = (commit_us(node) / usual_us.max(COMMIT_US_MIN)).max(1);
            let weight = (room / (1 + busy + u64::from(node.assigned)) / slowness).max(1);
            // One that others could not reach is better than none.
            let excluded = exclude.contains(&node.id) || self.distrusted(now_ms, node).is_some();
            Some(Candidate { index, weight, excluded })
        };
        self.live(now_ms).filter_map(candidate).collect()
    }

    fn candidates(&self, now_ms: u64, wanted: Wanted<'_>) -> Result<Vec<Candidate>, PlacementRefusal> {
        let live = self.live(now_ms).count();
        let candidates = self.roomy(now_ms, wanted.bytes, wanted.exclude);
        let (roomy, bytes, wanted) = (candidates.len(), wanted.bytes, wanted.replicas);
        // A put that was under way must not fail for a restart of the master alone.
        if roomy < wanted && self.returning(now_ms, self.timing.heartbeat_timeout_ms) {
            return Err(PlacementRefusal::Returning { roomy, wanted });
        }
        if live < wanted {
            return Err(PlacementRefusal::NotEnoughDatanodes { live, wanted });
        }
        if roomy < wanted {
            return Err(PlacementRefusal::NoSpace { roomy, live, wanted, bytes });
        }
        Ok(candidates)
    }
}

/// The free bytes of a node, if one of its healthy folders takes `bytes` beside what is on its way to the node.
fn room(node: &Node, bytes: u64) -> Option<u64> {
    let load = node.load.as_ref()?;
    let healthy = load.dirs.iter().filter(|dir| dir.healthy);
    let largest = healthy.clone().map(|dir| dir.free_bytes).max()?;
    // What is on its way may become as long as this one may; what has arrived is as long as it is.
    let pending = bytes.saturating_mul(u64::from(node.assigned)).saturating_add(node.arrived_bytes);
    let total = healthy.map(|dir| dir.free_bytes).fold(0, u64::saturating_add);
    (largest >= bytes && total.saturating_sub(pending) >= bytes).then_some(total)
}

/// How long the slowest healthy folder of a node took of late; 0: nothing is known.
fn commit_us(node: &Node) -> u64 {
    let dirs = node.load.iter().flat_map(|load| &load.dirs).filter(|dir| dir.healthy);
    dirs.map(|dir| dir.commit_us).max().unwrap_or(0)
}

/// The middle one; 0 of none.
fn median(mut all: Vec<u64>) -> u64 {
    all.sort_unstable();
    all.get(all.len() / 2).copied().unwrap_or(0)
}

/// One of the pool, each as probable as it is heavy.
fn pick(pool: &[Candidate], random: &mut SplitMix) -> Option<usize> {
    let total: u128 = pool.iter().map(|it| u128::from(it.weight)).sum();
    if total == 0 {
        return None;
    }
    let mut at = u128::from(random.next()) % total;
    for it in pool {
        let weight = u128::from(it.weight);
        if at < weight {
            return Some(it.index);
        }
        at -= weight;
    }
    None
}
