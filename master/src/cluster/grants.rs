//! Grants: chunks that may be written before anything of their file is known, each by one user, until a time. Pure.
//!
//! A grant is the leader's word, gone with it, and logged nowhere: only the ids are reserved. So of a chunk that was
//! granted in vain nothing is known but by who granted it, who therefore has it buried: its replicas are then deleted
//! as those of any unfinished file. What an earlier leader granted in vain stays unknown, and is moved to quarantine at
//! its node as everything that nobody knows: see [`super::orphans`].

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use distrifs_proto::types::{ChunkId, Epoch, NodeId};

use crate::namespace::Reserved;
use crate::permission::Caller;

/// Grants at once, with those that have ended and are not buried yet; beyond it files are opened.
pub(crate) const GRANTS_MAX: usize = 1 << 16;
/// Chunk ids reserved in one step.
pub(crate) const RESERVED_IDS: u32 = 4096;
/// With fewer left the next ones are reserved.
const IDS_LEFT_MIN: u64 = 1024;
/// Chunks that become tombstones in one step: one command, which is applied in one hold of the namespace.
const BURIED_MAX: usize = 1024;

/// The right to write one chunk.
#[derive(Debug)]
struct Grant {
    to: Arc<Caller>,
    nodes: Vec<NodeId>,
    until_ms: u64,
}

/// Chunks that were granted in vain.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Ended {
    /// Which; in order.
    pub(crate) chunks: Vec<ChunkId>,
    history: Epoch,
}

/// The grants of this leader.
#[derive(Debug, Default)]
pub(crate) struct Grants {
    /// What had been accepted as lost when all of it began.
    history: Epoch,
    reserved: VecDeque<Range<u64>>,
    /// Ids ascend, and all grants last as long: they end in this order.
    live: BTreeMap<ChunkId, Grant>,
    ended: BTreeSet<ChunkId>,
}

impl Grants {
    /// Whether chunk ids should be reserved soon.
    pub(crate) fn runs_low(&self) -> bool {
        self.reserved.iter().map(|ids| ids.end - ids.start).sum::<u64>() < IDS_LEFT_MIN
    }

    /// Whether there is no id to grant.
    pub(crate) fn is_dry(&self) -> bool {
        self.reserved.is_empty()
    }

    /// Whether there are as many grants as there may be.
    pub(crate) fn is_full(&self) -> bool {
        self.live.len() + self.ended.len() >= GRANTS_MAX
    }

    /// These ids were reserved, durably. If a loss was accepted since, they are none to be granted any more.
    pub(crate) fn reserved(&mut self, ids: Reserved) {
        if ids.history >= self.history && ids.first < ids.end {
            self.reserved.push_back(ids.first.0..ids.end.0);
        }
    }

    /// Grants a chunk on these nodes; `None` when no id is left.
    pub(crate) fn grant(&mut self, to: Arc<Caller>, nodes: Vec<NodeId>, until_ms: u64) -> Option<ChunkId> {
        let ids = self.reserved.front_mut()?;
        let chunk = ChunkId(ids.start);
        ids.start += 1;
        if ids.is_empty() {
            self.reserved.pop_front();
        }
        self.live.insert(chunk, Grant { to, nodes, until_ms });
        Some(chunk)
    }

    /// Where `caller` may have written a chunk; `None` when it is not granted (any more), or to somebody else.
    pub(crate) fn nodes_of(&self, now_ms: u64, caller: &Caller, chunk: ChunkId) -> Option<&[NodeId]> {
        let grant = self.live.get(&chunk)?;
        (now_ms < grant.until_ms && grant.to.user == caller.user).then_some(&grant.nodes)
    }

    /// Whether a chunk is granted, or was and is still to be buried.
    pub(crate) fn holds(&self, chunk: ChunkId) -> bool {
        self.live.contains_key(&chunk) || self.ended.contains(&chunk)
    }

    /// `caller` makes no file of a chunk.
    pub(crate) fn give_up(&mut self, caller: &Caller, chunk: ChunkId) {
        if self.live.get(&chunk).is_some_and(|grant| grant.to.user == caller.user) {
            self.live.remove(&chunk);
            self.ended.insert(chunk);
        }
    }

    /// A file has the chunk.
    pub(crate) fn used(&mut self, chunk: ChunkId) {
        self.live.remove(&chunk);
    }

    /// Takes out chunks that were granted in vain, to be buried: the oldest first, and not all at once if they are many.
    pub(crate) fn take_ended(&mut self, now_ms: u64) -> Ended {
        while self.ended.len() < BURIED_MAX
            && let Some(oldest) = self.live.first_entry()
            && oldest.get().until_ms <= now_ms
        {
            self.ended.insert(oldest.remove_entry().0);
        }
        let chunks: Vec<ChunkId> = self.ended.iter().copied().take(BURIED_MAX).collect();
        chunks.iter().for_each(|chunk| {
            self.ended.remove(chunk);
        });
        Ended { chunks, history: self.history }
    }

    /// They were not buried. If a loss was accepted since, they are left alone: see [`Grants::loss_accepted`].
    pub(crate) fn put_back(&mut self, ended: Ended) {
        if ended.history == self.history {
            self.ended.extend(ended.chunks);
        }
    }

    /// A loss was accepted: what was lost may have used the same ids, so nothing is granted or buried of those before.
    pub(crate) fn loss_accepted(&mut self, history: Epoch) {
        *self = Self { history, ..Self::default() };
    }

    /// How many there are, with those that have ended and are not buried yet.
    pub(crate) fn count(&self) -> u64 {
        (self.live.len() + self.ended.len()) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(user: &str) -> Arc<Caller> {
        Arc::new(Caller { user: user.into(), groups: Vec::new(), superuser: false })
    }

    fn reserved(first: u64, end: u64, history: u64) -> Reserved {
        Reserved { first: ChunkId(first), end: ChunkId(end), history: Epoch(history) }
    }

    fn ids(ended: &Ended) -> Vec<u64> {
        ended.chunks.iter().map(|chunk| chunk.0).collect()
    }

    #[test]
    fn each_reserved_id_is_granted_once_and_no_other() {
        let mut grants = Grants::default();
        assert!(grants.is_dry() && grants.runs_low());
        assert_eq!(grants.grant(caller("al"), Vec::new(), 9), None);
        grants.reserved(reserved(5, 7, 0));
        grants.reserved(reserved(90, 90 + IDS_LEFT_MIN, 0));
        let mut granted = Vec::new();
        while let Some(chunk) = grants.grant(caller("al"), Vec::new(), 9) {
            assert_eq!(grants.runs_low(), granted.len() >= 2, "behind {granted:?}");
            granted.push(chunk.0);
        }
        assert_eq!(granted, (5..7).chain(90..90 + IDS_LEFT_MIN).collect::<Vec<_>>());
    }

    #[test]
    fn a_grant_is_one_users_until_its_time_and_ends_once() {
        let (al, bo, nodes) = (caller("al"), caller("bo"), vec![NodeId(1), NodeId(2)]);
        let mut grants = Grants::default();
        grants.reserved(reserved(5, 9, 0));
        let chunks: Vec<ChunkId> =
            (0..4).map_while(|i| grants.grant(al.clone(), nodes.clone(), 100 + i)).collect();
        let [used, given_up, expired, live] = chunks[..] else { panic!("{chunks:?}") };
        assert_eq!(grants.nodes_of(99, &al, used), Some(&nodes[..]));
        assert_eq!(grants.nodes_of(100, &al, used), None, "too late");
        assert_eq!(grants.nodes_of(99, &bo, used), None, "another user");
        assert_eq!(grants.nodes_of(99, &al, ChunkId(77)), None, "never granted");
        grants.used(used);
        grants.give_up(&bo, given_up);
        assert!(grants.nodes_of(99, &al, given_up).is_some(), "not bo's to give up");
        grants.give_up(&al, given_up);
        assert_eq!(grants.nodes_of(99, &al, given_up), None);
        assert!(grants.holds(given_up) && grants.holds(live) && !grants.holds(used));
        let ended = grants.take_ended(102);
        assert_eq!(ids(&ended), [given_up.0, expired.0]);
        assert_eq!((ids(&grants.take_ended(102)), grants.count()), (vec![], 1));
        grants.put_back(ended);
        assert_eq!(ids(&grants.take_ended(102)), [given_up.0, expired.0], "what was not buried comes again");
    }

    #[test]
    fn nothing_of_before_a_loss_is_granted_used_or_buried() {
        let al = caller("al");
        let mut grants = Grants::default();
        grants.reserved(reserved(5, 9, 0));
        let early = grants.grant(al.clone(), Vec::new(), 1).expect("reserved");
        let ended = grants.take_ended(1);
        assert_eq!(ids(&ended), [early.0]);
        let live = grants.grant(al.clone(), Vec::new(), 100).expect("reserved");
        grants.loss_accepted(Epoch(3));
        assert!(grants.is_dry() && grants.nodes_of(2, &al, live).is_none());
        grants.put_back(ended);
        grants.reserved(reserved(9, 12, 0));
        assert_eq!((grants.is_dry(), ids(&grants.take_ended(1000))), (true, vec![]));
        grants.reserved(reserved(1 << 41, (1 << 41) + 1, 3));
        assert_eq!(grants.grant(al, Vec::new(), 100), Some(ChunkId(1 << 41)));
    }
}
