//! The cluster as the datanodes report it: who is alive, who holds which replica, where the next chunk goes and
//! what may be deleted. Soft truth, rebuilt from registrations and block reports after each start. Pure: event
//! and time in, state and effects out; `now_ms` is monotonic, seeds are arguments.
//!
//! Promises:
//! - A node is suspect at once when its session ends and dead after the heartbeat timeout; nothing is placed on
//!   either, suspects are read last, the dead not at all.
//! - A full report replaces what was known of a node only with its last part.
//! - A delete order names a replica that its node reported in this session, of a chunk with a tombstone that is
//!   old enough. A chunk that the namespace does not know is counted, and moved to quarantine at its node once it
//!   has been unknown for long enough; never deleted.

mod candidates;
mod commit_times;
mod gc;
mod grants;
mod health;
mod jobs;
mod membership;
mod node;
mod orphans;
#[cfg(test)]
mod orphans_test;
mod outage;
mod pace;
mod placement;
mod plans;
mod repair;
#[cfg(test)]
mod repair_test;
mod replicas;
mod report;
mod reserved;
#[cfg(test)]
mod scale_test;
#[cfg(test)]
mod session_test;
mod trust;
mod weights;

use std::collections::{BTreeSet, HashMap};

use distrifs_proto::ErrorCode;
use distrifs_proto::types::{ChunkId, Crc32c, Epoch, GenerationStamp, Lsn, NodeId};

use candidates::Candidates;
use commit_times::CommitTimes;
#[cfg(test)]
use gc::GcStep;
pub(crate) use gc::{Ages, GcOrders};
use grants::Grants;
pub(crate) use grants::{GRANTS_MAX, RESERVED_IDS};
pub(crate) use health::{Problem, ReplicaState, ReplicaView};
use membership::{Deadlines, Listening};
pub(crate) use membership::{LastHeard, NodeSums, Space};
use node::Node;
pub(crate) use node::{
    Dir, Leader, Load, NodeState, NodeView, RegisterRefusal, Registration, Scrub, SessionId,
};
use orphans::Orphans;
use outage::Outage;
pub(crate) use placement::{PlacementRefusal, Wanted};
pub(crate) use plans::Plans;
use repair::Repairs;
pub(crate) use repair::{Candidate, CopyFailure, RepairOrder};
use replicas::Replicas;
pub(crate) use report::{BadReport, FullReport, Verdict};
use trust::Trust;
pub(crate) use trust::WEIGHT_READ;

/// Datanodes that are remembered at once. One that is dead and holds nothing is forgotten in time, and at once when its
/// place is needed.
pub(crate) const NODES_MAX: usize = 1 << 16;
/// Nodes in one page of [`Cluster::views_page`].
pub(crate) const VIEWS_PAGE: usize = 64;
/// Replicas in the full report of one node.
pub(crate) const REPORT_REPLICAS_MAX: usize = 1 << 24;

/// The times that decide about life and death.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timing {
    /// How often a node should be heard.
    pub(crate) heartbeat_interval_ms: u64,
    /// Silence after which it is dead.
    pub(crate) heartbeat_timeout_ms: u64,
    /// After a restart: for how long nodes of the time before are waited for. 0 for a cluster that is new.
    pub(crate) return_ms: u64,
}

/// A replica as a datanode reports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Replica {
    /// Of which chunk.
    pub(crate) chunk: ChunkId,
    /// Its version.
    pub(crate) generation: GenerationStamp,
    /// Its length in bytes.
    pub(crate) length: u64,
    /// Of its bytes.
    pub(crate) crc: Crc32c,
    /// Whether the node found it damaged.
    pub(crate) corrupt: bool,
}

/// A datanode that has seen more than this master knows: the log lost acknowledged records.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "this master is behind datanode {node}, which has seen epoch {epoch_seen} and LSN {lsn_seen} (here epoch \
     {epoch}, LSN {lsn}): its log lost records; nothing is written or deleted until the right log is back: stop it and \
     put the newest data folder back in place; if that is gone for good, start it with --accept-data-loss"
)]
pub(crate) struct Behind {
    /// Who has seen more.
    pub(crate) node: NodeId,
    /// The highest epoch it was shown.
    pub(crate) epoch_seen: Epoch,
    /// The highest LSN it was shown.
    pub(crate) lsn_seen: Lsn,
    /// Ours.
    pub(crate) epoch: Epoch,
    /// Ours.
    pub(crate) lsn: Lsn,
}

/// Where a reader finds a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// The node.
    pub(crate) node: NodeId,
    /// HOST:PORT of its data plane.
    pub(crate) address: String,
}

/// Everything known of the datanodes.
#[derive(Debug)]
pub(crate) struct Cluster {
    started_ms: u64,
    listening: Listening,
    /// By index; an index is used again when its node is forgotten.
    nodes: Vec<Option<Node>>,
    free: Vec<u32>,
    by_id: HashMap<NodeId, u32>,
    deadlines: Deadlines,
    sums: NodeSums,
    candidates: Candidates,
    usual_commit: CommitTimes,
    /// How often this master did not listen.
    stalls: u64,
    /// Dead nodes that hold nothing.
    unused: BTreeSet<u32>,
    away: gc::Away,
    outage: Outage,
    /// Until when repair waits for nodes that vanished together, and why.
    paused: Option<(u64, String)>,
    sessions: HashMap<SessionId, u32>,
    next_session: u64,
    replicas: Replicas,
    behind: Option<Behind>,
    trust: Trust,
    repairs: Repairs,
    orphans: Orphans,
    /// Chunks of these unfinished files and where they were planned.
    pub(crate) plans: Plans,
    /// Chunks that may be written before their files are known.
    pub(crate) grants: Grants,
    /// Full reports that tests send in parts.
    #[cfg(test)]
    test_reports: HashMap<SessionId, FullReport>,
}

impl Cluster {
    /// Nobody known yet.
    pub(crate) fn new(timing: Timing, now_ms: u64) -> Self {
        Self {
            started_ms: now_ms,
            listening: Listening { timing, since_ms: 0 },
            nodes: Vec::new(),
            free: Vec::new(),
            by_id: HashMap::new(),
            deadlines: Deadlines::default(),
            sums: NodeSums::default(),
            candidates: Candidates::default(),
            usual_commit: CommitTimes::default(),
            stalls: 0,
            unused: BTreeSet::new(),
            away: gc::Away::default(),
            outage: Outage::default(),
            paused: None,
            sessions: HashMap::new(),
            next_session: 1,
            replicas: Replicas::default(),
            behind: None,
            trust: Trust::default(),
            repairs: Repairs::default(),
            orphans: Orphans::default(),
            plans: Plans::default(),
            grants: Grants::default(),
            #[cfg(test)]
            test_reports: HashMap::new(),
        }
    }

    fn node(&self, index: u32) -> Option<&Node> {
        self.nodes.get(index as usize)?.as_ref()
    }

    /// The strongest evidence that this master's log lost records, if there is any.
    pub(crate) fn behind(&self) -> Option<&Behind> {
        self.behind.as_ref()
    }

    /// The loss is accepted as of `history`: what was shown in epochs before it is evidence no more. Gives back what was.
    pub(crate) fn loss_accepted(&mut self, history: Epoch) -> Option<Behind> {
        self.grants.loss_accepted(history);
        self.behind.take_if(|behind| behind.epoch_seen < history)
    }

    /// Every node, sorted by id.
    #[cfg(test)]
    pub(crate) fn views(&self, now_ms: u64) -> Vec<NodeView> {
        let mut views: Vec<NodeView> =
            self.nodes.iter().flatten().map(|node| self.view(now_ms, node)).collect();
        views.sort_by_key(|view| view.id);
        views
    }

    /// At most [`VIEWS_PAGE`] nodes from an index on, in no order, and the index behind them; `None`: these were the last.
    /// A node that joins meanwhile may be missed.
    pub(crate) fn views_page(&self, now_ms: u64, from: usize) -> (Vec<NodeView>, Option<usize>) {
        let end = self.nodes.len().min(from.saturating_add(VIEWS_PAGE));
        let page = self.nodes.get(from..end).unwrap_or_default();
        let views = page.iter().flatten().map(|node| self.view(now_ms, node)).collect();
        (views, (end < self.nodes.len()).then_some(end))
    }

    fn view(&self, now_ms: u64, node: &Node) -> NodeView {
        let mut view = node.view(now_ms, self.listening);
        view.state = self.state_of(now_ms, node);
        view.why_suspect = match (view.state, self.distrusted(now_ms, node)) {
            (NodeState::Suspect, Some(rest)) => {
                format!("its data port did not answer or its disk failed, last {} s ago", rest / 1000)
            }
            (NodeState::Suspect, None) if node.session.is_none() => "its session ended".to_owned(),
            (NodeState::Suspect, None) => "its heartbeat is late".to_owned(),
            _ => String::new(),
        };
        view
    }

    /// Whether a node is trusted with work: by its own word, and by what others saw of it.
    fn state_of(&self, now_ms: u64, node: &Node) -> NodeState {
        match node.state(now_ms, self.listening) {
            NodeState::Live if self.distrusted(now_ms, node).is_some() => NodeState::Suspect,
            state => state,
        }
    }

    /// For how long nobody has complained of a node that is distrusted.
    fn distrusted(&self, now_ms: u64, node: &Node) -> Option<u64> {
        self.trust.distrusted(now_ms, node.id, self.by_id.len())
    }

    /// Somebody could not reach a node, or it did not answer in time.
    pub(crate) fn complain(&mut self, now_ms: u64, node: NodeId, weight: u32) {
        if self.by_id.contains_key(&node) {
            self.trust.complain(now_ms, node, weight);
            self.refresh_id(now_ms, node);
        }
    }

    /// A client's pipeline failed at a node, which said so with this code or did not answer. A full disk is an ordinary
    /// state, which the node tells itself, and so is a folder that it has taken out: neither is a reason to leave out
    /// the node.
    pub(crate) fn write_failed(&mut self, now_ms: u64, node: NodeId, code: Option<ErrorCode>) {
        let lost_a_folder = || {
            let load = self.by_id.get(&node).and_then(|at| self.node(*at)?.load.as_ref());
            load.is_some_and(|load| load.dirs.iter().any(|dir| !dir.healthy))
        };
        match code {
            Some(ErrorCode::NoSpace) => {}
            Some(ErrorCode::Disk) if lost_a_folder() => {}
            _ => self.complain(now_ms, node, trust::WEIGHT_WRITE),
        }
    }

    /// Whether a node says of itself that it is alive.
    fn is_heard(&self, now_ms: u64, node: &Node) -> bool {
        node.session.is_some() && node.state(now_ms, self.listening) != NodeState::Dead
    }

    /// Nodes that say of themselves that they are alive, in pages as [`Cluster::views_page`].
    pub(crate) fn heard_page(&self, now_ms: u64, from: usize) -> (Vec<Endpoint>, Option<usize>) {
        let end = self.nodes.len().min(from.saturating_add(VIEWS_PAGE));
        let page = self.nodes.get(from..end).unwrap_or_default().iter().flatten();
        let endpoint = |node: &Node| Endpoint { node: node.id, address: node.address.clone() };
        let heard = page.filter(|node| self.is_heard(now_ms, node)).map(endpoint).collect();
        (heard, (end < self.nodes.len()).then_some(end))
    }

    /// Whether a node says of itself that it is alive, at this address.
    pub(crate) fn hears(&self, now_ms: u64, at: &Endpoint) -> bool {
        let node = self.by_id.get(&at.node).and_then(|index| self.node(*index));
        node.is_some_and(|node| node.address == at.address && self.is_heard(now_ms, node))
    }

    /// Whether nodes of the time before a restart may still be on their way, `within_ms` after the start.
    fn returning(&self, now_ms: u64, within_ms: u64) -> bool {
        now_ms.saturating_sub(self.started_ms) < within_ms.min(self.listening.timing.return_ms)
    }

    /// The session that a node has now.
    pub(crate) fn session_of(&self, node: NodeId) -> Option<SessionId> {
        self.node(*self.by_id.get(&node)?)?.session
    }

    /// Whether a node was registered since the start.
    pub(crate) fn knows(&self, node: NodeId) -> bool {
        self.by_id.contains_key(&node)
    }

    /// Where a node is reached.
    pub(crate) fn endpoint_of(&self, node: NodeId) -> Option<Endpoint> {
        let index = *self.by_id.get(&node)?;
        self.node(index).map(|it| Endpoint { node, address: it.address.clone() })
    }

    fn node_of(&mut self, session: SessionId) -> Option<(u32, &mut Node)> {
        let index = *self.sessions.get(&session)?;
        Some((index, self.nodes.get_mut(index as usize)?.as_mut()?))
    }

    /// Where the replicas of a chunk are, best first: live before suspect, then those that readers complained of, and
    /// last those that are damaged, of which most blocks may be good; otherwise turned by `seed` so that the load spreads.
    pub(crate) fn locate(
        &self,
        now_ms: u64,
        chunk: ChunkId,
        generation: GenerationStamp,
        length: u64,
        crc: Crc32c,
        seed: u64,
    ) -> Vec<Endpoint> {
        let mut ranked: Vec<(u8, &Node)> = Vec::new();
        for held in self.replicas.of(chunk) {
            // Of a damaged one most blocks are good, and each is checked: better than none.
            let damaged = held.replica.corrupt;
            let undamaged = Replica { corrupt: false, ..held.replica };
            if undamaged != (Replica { chunk, generation, length, crc, corrupt: false }) {
                continue;
            }
            let Some(node) = self.node(held.node) else { continue };
            let rank = match self.state_of(now_ms, node) {
                NodeState::Dead => continue,
                NodeState::Live => 0,
                NodeState::Suspect => 1,
            };
            let blamed = self.replicas.is_blamed(now_ms, chunk, held.node);
            ranked.push((rank + 2 * u8::from(blamed) + 4 * u8::from(damaged), node));
        }
        if !ranked.is_empty() {
            let turn = (seed % ranked.len() as u64) as usize;
            ranked.rotate_left(turn);
        }
        ranked.sort_by_key(|(rank, _)| *rank);
        ranked
            .into_iter()
            .map(|(_, node)| Endpoint { node: node.id, address: node.address.clone() })
            .collect()
    }

    /// Who found its replica of a chunk damaged.
    pub(crate) fn damaged(&self, chunk: ChunkId) -> impl Iterator<Item = NodeId> + '_ {
        let damaged = self.replicas.of(chunk).filter(|held| held.replica.corrupt);
        damaged.filter_map(|held| Some(self.node(held.node)?.id))
    }

    /// A reader says that a replica is bad or out of reach: it is offered last for a while. One reader's word is
    /// no reason to delete.
    pub(crate) fn blame(&mut self, now_ms: u64, chunk: ChunkId, node: NodeId) {
        if let Some(index) = self.by_id.get(&node) {
            self.replicas.blame(now_ms, chunk, *index);
        }
    }

    /// A file was completed: these nodes committed the chunk, whether or not their own report has arrived.
    pub(crate) fn completed(&mut self, replica: Replica, nodes: &[NodeId]) {
        for id in nodes {
            let Some(index) = self.by_id.get(id).copied() else { continue };
            let Some(node) = self.nodes.get_mut(index as usize).and_then(Option::as_mut) else { continue };
            if self.replicas.holds(replica.chunk, index) {
                continue;
            }
            node.note(report::Change::Added(replica));
            node.held.insert(replica.chunk, ());
            self.replicas.put(index, replica);
        }
    }

    /// Chunks of which some node reported a replica, and the number of replicas.
    pub(crate) fn replica_counts(&self) -> (u64, u64) {
        self.replicas.counts()
    }
}
