//! A datanode: its session, its life, its load.

use std::collections::VecDeque;

use distrifs_proto::types::{ChunkId, ClusterId, Epoch, Lsn, NodeId};

use super::membership::{Counted, LastHeard, Listening};
use super::report::{Change, Oddities};
use super::reserved::Reserved;
use super::{Behind, Cluster, NODES_MAX};
use crate::chunk_map::ChunkMap;
use crate::hold;

/// One connection of a datanode; a later one of the same node has a higher number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct SessionId(pub(crate) u64);

/// Whether a node is trusted with work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NodeState {
    /// Heard lately over an open session.
    Live,
    /// Its session ended, or it is late.
    Suspect,
    /// Not heard for the heartbeat timeout.
    Dead,
}

/// How a node introduces itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Registration {
    /// `None`: its folders are new.
    pub(crate) cluster: Option<ClusterId>,
    /// Who it is.
    pub(crate) id: NodeId,
    /// HOST:PORT of its data plane.
    pub(crate) address: String,
    /// Where it stands; empty: unknown.
    pub(crate) rack: String,
    /// The highest epoch it was ever shown.
    pub(crate) epoch_seen: Epoch,
    /// The highest LSN it was ever shown.
    pub(crate) lsn_seen: Lsn,
}

/// Who answers a registration.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Leader {
    /// Of this cluster.
    pub(crate) cluster: ClusterId,
    /// In this epoch.
    pub(crate) epoch: Epoch,
    /// With this much durable.
    pub(crate) durable: Lsn,
    /// Which counts since this epoch, when a loss was last accepted; 0: since ever.
    pub(crate) history: Epoch,
}

impl Leader {
    /// What the node was shown, if it was more than this leader has. In an epoch before the loss was accepted it may have
    /// been shown what is given up.
    fn is_behind(&self, node: &Registration) -> Option<Behind> {
        let ahead = node.epoch_seen > self.epoch || node.lsn_seen > self.durable;
        // Only a node of this cluster can be a witness; a new one has seen nothing.
        let counts = node.cluster.is_some() && node.epoch_seen >= self.history;
        (ahead && counts).then_some(Behind {
            node: node.id,
            epoch_seen: node.epoch_seen,
            lsn_seen: node.lsn_seen,
            epoch: self.epoch,
            lsn: self.durable,
        })
    }
}

/// Why a node may not join.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RegisterRefusal {
    /// Its folders belong elsewhere.
    #[error("datanode {node} belongs to cluster {theirs}, this is {ours}: give it an empty folder")]
    WrongCluster {
        /// Who.
        node: NodeId,
        /// Its cluster.
        theirs: ClusterId,
        /// This cluster.
        ours: ClusterId,
    },
    /// Another process with the same identity is alive: a copied folder.
    #[error("datanode {node} is alive at {there}: {here} runs on a copy of its folder; give it its own")]
    Duplicate {
        /// Who.
        node: NodeId,
        /// Where it is alive.
        there: String,
        /// Where the newcomer is.
        here: String,
    },
    /// No identity or no address.
    #[error("datanode {node} at {address:?}: a node id and an address are needed")]
    Nameless {
        /// Who.
        node: NodeId,
        /// Where.
        address: String,
    },
    /// More nodes than can be kept.
    #[error("datanode {node}: more than {NODES_MAX} datanodes")]
    TooMany {
        /// Who.
        node: NodeId,
    },
}

/// A data folder of a node.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Dir {
    /// On the node.
    pub(crate) path: String,
    /// Its size.
    pub(crate) capacity_bytes: u64,
    /// What is left.
    pub(crate) free_bytes: u64,
    /// What chunks take.
    pub(crate) used_bytes: u64,
    /// Whether it takes writes.
    pub(crate) healthy: bool,
    /// How long the commits of late took, in microseconds; 0: there were none.
    pub(crate) commit_us: u64,
}

/// What a heartbeat tells.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Load {
    /// Its data folders.
    pub(crate) dirs: Vec<Dir>,
    /// Replicas it has.
    pub(crate) chunks: u64,
    /// Writes in flight.
    pub(crate) open_writes: u32,
    /// How it does its I/O.
    pub(crate) io_body: String,
    /// How far it has checked its replicas.
    pub(crate) scrub: Scrub,
    /// Moved out of the way, for a person to look at.
    pub(crate) chunks_in_quarantine: u64,
}

/// How far a node has checked its replicas.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Scrub {
    /// Replicas read whole.
    pub(crate) replicas_checked: u64,
    /// Bytes of these.
    pub(crate) bytes_checked: u64,
    /// Damaged ones among them.
    pub(crate) found_corrupt: u64,
    /// For how long the oldest has gone unread.
    pub(crate) oldest_unchecked_ms: u64,
    /// How much of the present pass is done, of 1000.
    pub(crate) pass_permille: u32,
}

/// What is known of a node.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) id: NodeId,
    pub(super) address: String,
    pub(super) rack: String,
    pub(super) session: Option<SessionId>,
    pub(super) heard: LastHeard,
    /// When it was declared dead, if it is.
    pub(super) died_ms: Option<u64>,
    /// When it is to be looked at: the entry of this time among the deadlines is its own.
    pub(super) deadline_ms: Option<u64>,
    /// What it adds to the sums over all nodes.
    pub(super) counted: Counted,
    /// Whether the full report of this session has been applied.
    pub(super) reported: bool,
    /// While a full report is on its way: what changed since it began, to be repeated on top of it.
    pub(super) noted: Option<VecDeque<Change>>,
    pub(super) oddities: Oddities,
    /// `None` until the first heartbeat of this session.
    pub(super) load: Option<Load>,
    /// How long its slowest healthy folder took of late, in microseconds; 0: nothing is known.
    pub(super) commit_us: u64,
    /// What was placed on it since its last heartbeat.
    pub(super) reserved: Reserved,
    pub(super) held: ChunkMap<()>,
    /// While it is away: no chunk of this id or a higher one can be on it.
    pub(super) away_mark: Option<ChunkId>,
}

/// What operators see of a node.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct NodeView {
    /// Who.
    pub(crate) id: NodeId,
    /// HOST:PORT of its data plane.
    pub(crate) address: String,
    /// Where it stands.
    pub(crate) rack: String,
    /// Whether it is trusted with work.
    pub(crate) state: NodeState,
    /// Replicas known of it.
    pub(crate) chunks: u64,
    /// What its last heartbeat told.
    pub(crate) load: Load,
    /// Since it was heard.
    pub(crate) silent_ms: u64,
    /// Whether the full report of this session has arrived.
    pub(crate) reported: bool,
    /// What did not fit the namespace in its last full report.
    pub(crate) oddities: Oddities,
    /// Why it is suspect; empty when it is not.
    pub(crate) why_suspect: String,
}

impl Node {
    pub(super) fn state(&self, now_ms: u64, listening: Listening) -> NodeState {
        hold::count(1);
        listening.state(now_ms, self.heard.ms(), self.died_ms, self.session.is_some())
    }

    pub(super) fn view(&self, now_ms: u64, listening: Listening) -> NodeView {
        NodeView {
            id: self.id,
            address: self.address.clone(),
            rack: self.rack.clone(),
            state: self.state(now_ms, listening),
            chunks: self.held.len() as u64,
            load: self.load.clone().unwrap_or_default(),
            silent_ms: now_ms.saturating_sub(self.heard.ms()),
            reported: self.reported,
            oddities: self.oddities,
            why_suspect: String::new(),
        }
    }

    /// Keeps a change that arrives between the parts of a full report: the report may not have it yet.
    pub(super) fn note(&mut self, change: Change) {
        if let Some(noted) = &mut self.noted {
            noted.push_back(change);
        }
    }

    /// A replica that comes was placed here, nearly always.
    pub(super) fn arrived(&mut self, change: Change) {
        if let Change::Added(replica) = change
            && !replica.corrupt
        {
            self.reserved.arrived(replica.length);
        }
    }
}

/// How long the slowest healthy folder took of late; 0: nothing is known.
fn commit_us(load: &Load) -> u64 {
    load.dirs.iter().filter(|dir| dir.healthy).map(|dir| dir.commit_us).max().unwrap_or(0)
}

impl Cluster {
    /// A node introduces itself. A session of the same node at the same address is taken for broken and ends.
    ///
    /// # Errors
    /// [`RegisterRefusal`]; nothing has changed.
    pub(crate) fn register(
        &mut self,
        now_ms: u64,
        leader: Leader,
        node: Registration,
    ) -> Result<SessionId, RegisterRefusal> {
        if let Some(theirs) = node.cluster.filter(|theirs| *theirs != leader.cluster) {
            return Err(RegisterRefusal::WrongCluster { node: node.id, theirs, ours: leader.cluster });
        }
        if node.id == NodeId(0) || node.address.is_empty() {
            return Err(RegisterRefusal::Nameless { node: node.id, address: node.address });
        }
        let known = self.by_id.get(&node.id).copied();
        if let Some(old) = known.and_then(|index| self.node(index)) {
            let alive = old.session.is_some() && old.state(now_ms, self.listening) != NodeState::Dead;
            if alive && old.address != node.address {
                let (there, here) = (old.address.clone(), node.address);
                return Err(RegisterRefusal::Duplicate { node: node.id, there, here });
            }
        }
        if known.is_none() && self.by_id.len() >= NODES_MAX && !self.forget_an_unused() {
            return Err(RegisterRefusal::TooMany { node: node.id });
        }
        if let Some(behind) = leader.is_behind(&node) {
            let seen = |it: &Behind| (it.epoch_seen, it.lsn_seen);
            if self.behind.as_ref().is_none_or(|known| seen(known) < seen(&behind)) {
                self.behind = Some(behind);
            }
        }
        let session = SessionId(self.next_session);
        self.next_session += 1;
        let index = known.or_else(|| self.free.pop()).unwrap_or(self.nodes.len() as u32);
        if index as usize == self.nodes.len() {
            self.nodes.push(None);
        }
        self.candidates.join(index, &node.rack);
        if let Some(old) = self.nodes[index as usize].as_mut() {
            if let Some(ended) = old.session.replace(session) {
                self.sessions.remove(&ended);
            }
            (old.address, old.rack) = (node.address, node.rack);
            // A cell of its own: the session of before may still be about to set it.
            old.heard = LastHeard::at(now_ms);
            if let Some(died) = old.died_ms.take() {
                self.outage.returned(died);
                self.unused.remove(&index);
            }
            (old.reported, old.noted, old.load) = (false, None, None);
            old.reserved = Reserved::default();
            self.usual_commit.replace(std::mem::take(&mut old.commit_us), 0);
            // What was ordered over the session before has no answer any more.
            let lost = self.repairs.node_went(index);
            self.repairs.count_failed(lost);
            // What was said of the session before may have been why it ended.
            self.trust.forget(node.id);
        } else {
            self.by_id.insert(node.id, index);
            self.nodes[index as usize] = Some(Node {
                id: node.id,
                address: node.address,
                rack: node.rack,
                session: Some(session),
                heard: LastHeard::at(now_ms),
                died_ms: None,
                deadline_ms: None,
                counted: Counted::default(),
                reported: false,
                noted: None,
                oddities: Oddities::default(),
                load: None,
                commit_us: 0,
                reserved: Reserved::default(),
                held: ChunkMap::default(),
                away_mark: None,
            });
        }
        self.sessions.insert(session, index);
        self.refresh(now_ms, index);
        Ok(session)
    }

    /// A session ended; a later one of the same node is not touched.
    pub(crate) fn session_ended(&mut self, session: SessionId) {
        if let Some(index) = self.sessions.remove(&session)
            && let Some(node) = self.nodes.get_mut(index as usize).and_then(Option::as_mut)
            && node.session == Some(session)
        {
            (node.session, node.noted) = (None, None);
            let heard_ms = node.heard.ms();
            let lost = self.repairs.node_went(index);
            self.repairs.count_failed(lost);
            // By the time at which it was heard: a look at the present is taken when its deadline has come.
            self.refresh(heard_ms, index);
            // One that was declared dead over its open session has no deadline that would see to this.
            if self.node(index).is_some_and(|node| node.died_ms.is_some()) {
                self.watch_unused(heard_ms, index);
            }
        }
    }

    /// Whether a session is still the one of its node.
    pub(crate) fn is_current(&self, session: SessionId) -> bool {
        self.sessions.contains_key(&session)
    }

    /// A heartbeat.
    pub(crate) fn heartbeat(&mut self, now_ms: u64, session: SessionId, load: Load) {
        let Some((index, node)) = self.node_of(session) else { return };
        let broken = |load: &Load| load.dirs.iter().filter(|dir| !dir.healthy).count();
        let found_broken = broken(&load) > node.load.as_ref().map_or(0, broken);
        let (id, before_us) = (node.id, node.commit_us);
        let after_us = commit_us(&load);
        node.heard.heard(now_ms);
        (node.load, node.commit_us, node.reserved) = (Some(load), after_us, Reserved::default());
        self.usual_commit.replace(before_us, after_us);
        if found_broken {
            // What was said of the node was of that folder, which takes nothing more.
            self.trust.forget(id);
        }
        self.refresh(now_ms, index);
    }
}
