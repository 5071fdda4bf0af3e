//! Where a new chunk goes: distinct live nodes, distinct racks where there are racks, more to those with more
//! room, less to write and quicker disks; nodes that the writer saw fail come last.

use distrifs_proto::types::NodeId;
use distrifs_proto::{ErrorCode, SplitMix};

use super::node::NodeState;
use super::repair::Repairs;
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
pub(super) const COMMIT_US_MIN: u64 = 10_000;
/// Nodes that a copy may turn down because they have enough to do: then the copy waits.
const TARGETS_TRIED_MAX: usize = 16;

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
        let chosen = self.chosen(now_ms, wanted, seed)?;
        let mut hops = Vec::with_capacity(chosen.len());
        for index in chosen {
            let Some(node) = self.nodes.get_mut(index as usize).and_then(Option::as_mut) else { continue };
            node.reserved.reserve(wanted.bytes);
            hops.push(Endpoint { node: node.id, address: node.address.clone() });
            self.refresh(now_ms, index);
        }
        Ok(hops)
    }

    /// Whether [`Cluster::place`] would refuse now.
    ///
    /// # Errors
    /// The refusal.
    pub(crate) fn placeable(&mut self, now_ms: u64, wanted: Wanted<'_>) -> Result<(), PlacementRefusal> {
        self.chosen(now_ms, wanted, 0).map(|_| ())
    }

    fn chosen(&mut self, now_ms: u64, wanted: Wanted<'_>, seed: u64) -> Result<Vec<u32>, PlacementRefusal> {
        self.advance(now_ms);
        let mut random = SplitMix::new(seed);
        let chosen = self.drawn(now_ms, wanted, &mut || random.next());
        let (roomy, bytes, wanted) = (chosen.len(), wanted.bytes, wanted.replicas);
        if roomy == wanted {
            return Ok(chosen);
        }
        // The draw went on until there was none left, so these are all that have room.
        let live = self.sums.live as usize;
        // A put that was under way must not fail for a restart of the master alone.
        if self.returning(now_ms, self.listening.timing.heartbeat_timeout_ms) {
            return Err(PlacementRefusal::Returning { roomy, wanted });
        }
        if live < wanted {
            return Err(PlacementRefusal::NotEnoughDatanodes { live, wanted });
        }
        Err(PlacementRefusal::NoSpace { roomy, live, wanted, bytes })
    }

    /// As many nodes as are wanted, or all that have room. A rack twice is worse than none, a node that the writer saw
    /// fail, or that others could not reach, worse than a rack twice.
    fn drawn(&mut self, now_ms: u64, wanted: Wanted<'_>, random: &mut impl FnMut() -> u64) -> Vec<u32> {
        let both = self.trust.are_too_many(self.by_id.len());
        let excluded: Vec<u32> =
            wanted.exclude.iter().filter_map(|node| self.by_id.get(node).copied()).collect();
        let mut chosen: Vec<u32> = Vec::with_capacity(wanted.replicas);
        let mut late: Vec<u32> = Vec::new();
        let (nodes, listening) = (&self.nodes, self.listening);
        let mut is_live = |node: u32| {
            let it = nodes.get(node as usize).and_then(Option::as_ref);
            let live = it.is_some_and(|it| it.state(now_ms, listening) == NodeState::Live);
            // Its deadline has just passed.
            late.extend((!live).then_some(node));
            live
        };
        for excludes in [true, false] {
            let mut draw = self.candidates.draw(wanted.bytes, both || !excludes);
            let hidden = if excludes { &excluded } else { &chosen };
            hidden.iter().for_each(|node| draw.hide(*node));
            let racks: Vec<u32> = chosen.iter().filter_map(|node| draw.rack_of(*node)).collect();
            racks.into_iter().for_each(|rack| draw.hide_rack(rack));
            let mut new_racks = true;
            while chosen.len() < wanted.replicas {
                match draw.next(random, &mut is_live) {
                    Some(node) => {
                        draw.hide(node);
                        if let Some(rack) = draw.rack_of(node).filter(|_| new_racks) {
                            draw.hide_rack(rack);
                        }
                        chosen.push(node);
                    }
                    None if std::mem::replace(&mut new_racks, false) => draw.show_racks(),
                    None => break,
                }
            }
        }
        late.into_iter().for_each(|node| self.refresh(now_ms, node));
        chosen
    }

    /// Where one more replica of `bytes` goes, beside those on `holders`: in a rack that has none if there is one.
    pub(super) fn target_for(
        &mut self,
        now_ms: u64,
        bytes: u64,
        holders: &[u32],
        takes: impl Fn(&Repairs, u32) -> bool,
        seed: u64,
    ) -> Target {
        let both = self.trust.are_too_many(self.by_id.len());
        let mut random = SplitMix::new(seed);
        let mut busy = 0;
        let (nodes, listening, repairs) = (&self.nodes, self.listening, &self.repairs);
        let mut fits = |node: u32| {
            let it = nodes.get(node as usize).and_then(Option::as_ref);
            let live = it.is_some_and(|it| it.state(now_ms, listening) == NodeState::Live);
            if live && busy < TARGETS_TRIED_MAX && !takes(repairs, node) {
                busy += 1;
            } else if live {
                return true;
            }
            false
        };
        let mut draw = self.candidates.draw(bytes, both);
        holders.iter().for_each(|node| draw.hide(*node));
        let racks: Vec<u32> = holders.iter().filter_map(|node| draw.rack_of(*node)).collect();
        racks.into_iter().for_each(|rack| draw.hide_rack(rack));
        let mut random = || random.next();
        let found = draw.next(&mut random, &mut fits).or_else(|| {
            draw.show_racks();
            draw.next(&mut random, &mut fits)
        });
        match found {
            Some(node) if busy < TARGETS_TRIED_MAX => Target::Node(node),
            Some(_) => Target::Busy,
            None if busy > 0 => Target::Busy,
            None => Target::None,
        }
    }
}

/// Where one more replica may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    /// To this node.
    Node(u32),
    /// Nodes have room, but enough to do.
    Busy,
    /// No other node has room.
    None,
}
