//! What clients, peers and the master's own probe observe of a node counts as evidence beside its heartbeats: a node
//! that heartbeats while its data port hangs is out of placement and last for reads (gray failure; Huang et al., HotOS
//! 2017). Pure.
//!
//! - A node is distrusted once complaints of weight [`WEIGHT_MIN`] came within [`WINDOW_MS`], and stays so for at least
//!   [`DISTRUST_MS`] and until nobody has complained for [`REST_MS`]: what was slow is slow again soon (Dean, Barroso:
//!   The Tail at Scale, 2013), so it does not come and go.
//! - When half of the nodes or more would be distrusted (one always may be), nobody is: then the network or the whole
//!   cluster is slow, and leaving nodes out would only make it slower.

use std::collections::{BTreeSet, HashMap, VecDeque};

use distrifs_proto::types::NodeId;

/// A client's pipeline failed at the node: it asked for another plan without it.
pub(crate) const WEIGHT_WRITE: u32 = 2;
/// A reader did not get an answer and went to another replica.
pub(crate) const WEIGHT_READ: u32 = 1;
/// So much within the window, and a node is distrusted.
const WEIGHT_MIN: u32 = 2;
const WINDOW_MS: u64 = 10_000;
/// For how long it is distrusted at least.
const DISTRUST_MS: u64 = 600_000;
/// And until nobody has complained for so long.
const REST_MS: u64 = 60_000;
/// Complaints kept of one node.
const COMPLAINTS_MAX: usize = 16;
/// Nodes with complaints; beyond it new ones are not kept.
const NODES_MAX: usize = super::NODES_MAX;

#[derive(Debug, Default)]
struct Record {
    complaints: VecDeque<(u64, u32)>,
    last_ms: u64,
    distrusted_since: Option<u64>,
    /// Its time in [`Trust::ends`], if it is one of those.
    looked_at_ms: Option<u64>,
}

impl Record {
    /// When its distrust ends, unless there are more complaints; `None`: it is trusted.
    fn ends_ms(&self) -> Option<u64> {
        let since = self.distrusted_since?;
        Some(since.saturating_add(DISTRUST_MS).max(self.last_ms.saturating_add(REST_MS)))
    }

    fn is_distrusted(&self, now_ms: u64) -> bool {
        self.ends_ms().is_some_and(|ends| now_ms < ends)
    }
}

/// The complaints of late.
#[derive(Debug, Default)]
pub(super) struct Trust {
    of: HashMap<NodeId, Record>,
    /// When to look at each distrusted node again. Their number says whether they are too many, so that a question about
    /// one node does not go through all.
    ends: BTreeSet<(u64, NodeId)>,
}

impl Trust {
    /// A client, a peer or the probe could not reach `node`.
    pub(super) fn complain(&mut self, now_ms: u64, node: NodeId, weight: u32) {
        if self.of.len() >= NODES_MAX && !self.of.contains_key(&node) {
            return;
        }
        let record = self.of.entry(node).or_default();
        if record.distrusted_since.is_some() && !record.is_distrusted(now_ms) {
            let looked_at_ms = record.looked_at_ms;
            *record = Record { looked_at_ms, ..Record::default() };
        }
        record.complaints.retain(|(at, _)| now_ms.saturating_sub(*at) < WINDOW_MS);
        if record.complaints.len() >= COMPLAINTS_MAX {
            record.complaints.pop_front();
        }
        record.complaints.push_back((now_ms, weight));
        record.last_ms = now_ms;
        if record.complaints.iter().map(|(_, weight)| weight).sum::<u32>() >= WEIGHT_MIN {
            record.distrusted_since.get_or_insert(now_ms);
        }
        if record.looked_at_ms.is_none()
            && let Some(ends) = record.ends_ms()
        {
            record.looked_at_ms = Some(ends);
            self.ends.insert((ends, node));
        }
    }

    /// The node has restarted: what was said of it before is over.
    pub(super) fn forget(&mut self, node: NodeId) {
        if let Some(ends) = self.of.remove(&node).and_then(|record| record.looked_at_ms) {
            self.ends.remove(&(ends, node));
        }
    }

    /// A node whose distrust has ended by now, once.
    pub(super) fn next_ended(&mut self, now_ms: u64) -> Option<NodeId> {
        while let Some((ends, node)) = self.ends.first().copied().filter(|(ends, _)| *ends <= now_ms) {
            self.ends.remove(&(ends, node));
            let Some(record) = self.of.get_mut(&node) else { continue };
            match record.ends_ms() {
                // More complaints came meanwhile.
                Some(later) if later > now_ms => {
                    record.looked_at_ms = Some(later);
                    self.ends.insert((later, node));
                }
                _ => {
                    self.of.remove(&node);
                    return Some(node);
                }
            }
        }
        None
    }

    /// Whether `node` is distrusted, were it not for how many there are.
    pub(super) fn is_distrusted(&self, now_ms: u64, node: NodeId) -> bool {
        self.of.get(&node).is_some_and(|record| record.is_distrusted(now_ms))
    }

    /// Whether so many of `nodes` are distrusted that none is.
    pub(super) fn are_too_many(&self, nodes: usize) -> bool {
        self.ends.len() > (nodes.saturating_sub(1) / 2).max(1)
    }

    /// For how long there was no complaint of a node that is distrusted, of `nodes` that there are; `None`: it is
    /// trusted.
    pub(super) fn distrusted(&self, now_ms: u64, node: NodeId, nodes: usize) -> Option<u64> {
        let own = self.of.get(&node).filter(|record| record.is_distrusted(now_ms))?;
        (!self.are_too_many(nodes)).then_some(now_ms.saturating_sub(own.last_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: NodeId = NodeId(1);
    const B: NodeId = NodeId(2);

    #[test]
    fn evidence_of_late_decides_and_is_not_forgotten_at_once() {
        for (name, complaints, at, expected) in [
            ("nothing", &[][..], 0, false),
            ("one reader", &[(0, WEIGHT_READ)], 1, false),
            ("two readers", &[(0, WEIGHT_READ), (5_000, WEIGHT_READ)], 5_001, true),
            ("two readers, long apart", &[(0, WEIGHT_READ), (10_000, WEIGHT_READ)], 10_001, false),
            ("one writer", &[(0, WEIGHT_WRITE)], 1, true),
            ("still, a while later", &[(0, WEIGHT_WRITE)], 599_999, true),
            ("trusted again", &[(0, WEIGHT_WRITE)], 600_000, false),
            ("complaints do not end", &[(0, WEIGHT_WRITE), (570_000, WEIGHT_READ)], 629_999, true),
            ("now they have", &[(0, WEIGHT_WRITE), (570_000, WEIGHT_READ)], 630_000, false),
            ("afterwards it begins anew", &[(0, WEIGHT_WRITE), (600_000, WEIGHT_READ)], 600_001, false),
        ] {
            let mut trust = Trust::default();
            for (ms, weight) in complaints {
                trust.complain(*ms, A, *weight);
            }
            assert_eq!(trust.distrusted(at, A, 5).is_some(), expected, "{name}");
            assert_eq!(trust.distrusted(at, B, 5), None, "{name}: of another");
        }
    }

    #[test]
    fn when_too_many_are_slow_nobody_is_distrusted() {
        let mut trust = Trust::default();
        trust.complain(0, A, WEIGHT_WRITE);
        trust.complain(0, B, WEIGHT_WRITE);
        assert_eq!(trust.distrusted(1, A, 4), None, "two of four");
        assert!(trust.distrusted(1, A, 5).is_some(), "two of five");
        trust.forget(B);
        assert!(trust.distrusted(1, A, 2).is_some(), "one may always be");
    }

    #[test]
    fn a_distrust_that_ended_is_seen_once_and_counts_no_more() {
        let mut trust = Trust::default();
        trust.complain(0, A, WEIGHT_WRITE);
        trust.complain(570_000, A, WEIGHT_READ);
        trust.complain(10, B, WEIGHT_WRITE);
        assert_eq!(trust.next_ended(600_000), None, "complaints did not end");
        assert!(trust.are_too_many(4));
        assert_eq!((trust.next_ended(600_010), trust.next_ended(600_010)), (Some(B), None));
        assert!(!trust.are_too_many(4) && trust.is_distrusted(600_010, A));
        trust.forget(A);
        assert_eq!((trust.next_ended(u64::MAX), trust.ends.len()), (None, 0));
    }

    #[test]
    fn complaints_are_bounded() {
        let mut trust = Trust::default();
        for ms in 0..1000 {
            trust.complain(ms, A, WEIGHT_READ);
        }
        assert_eq!(trust.of[&A].complaints.len(), COMPLAINTS_MAX);
    }
}
