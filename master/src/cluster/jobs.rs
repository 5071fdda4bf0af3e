//! What datanodes were told to do for repair and have not answered yet. Pure.

use std::collections::{BTreeSet, HashMap};

use distrifs_proto::types::ChunkId;

use crate::hold;

/// Orders without an answer, of all nodes.
const JOBS_MAX: usize = 1 << 14;
/// Of one kind at one node: its queue, so that it always has something to do, and not more than it will do soon.
const PER_NODE_MAX: u32 = 16;
/// Of both maxima one part in so many is kept for chunks that have a single good copy left: after the loss of a rack those
/// with two are found in millions, and must not be in the way (LESSONS, R3).
const URGENT_SHARE: u32 = 4;
/// Overdue orders that are forgotten in one step.
const FORGET_STEP: usize = 64;
/// An order that was not answered for so long is forgotten, and planned anew; one to drop is given again, to the same
/// node: it may still be carried out, and two replicas must not go where one was meant.
const PATIENCE_MS: u64 = 60_000;
/// The slowest copying that is waited for, in bytes per millisecond.
const COPY_BYTES_PER_MS_MIN: u64 = 4 << 10;

/// What is being done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Kind {
    /// The node gets a copy from another.
    CopyTo,
    /// The node gives a copy to another.
    CopyFrom,
    /// The node reads its replica whole.
    Verify,
    /// The node removes its replica.
    Drop,
}

/// One order. Of a copy the node is the target.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Job {
    node: u32,
    kind: Kind,
    until_ms: u64,
    /// Where a copy comes from.
    source: Option<u32>,
}

/// All orders without an answer, by chunk: at most one of a kind at a node.
#[derive(Debug, Default)]
pub(super) struct Jobs {
    jobs: HashMap<ChunkId, Vec<Job>>,
    count: usize,
    copies: u64,
    busy: HashMap<(u32, Kind), u32>,
    /// All but those to drop, by the time until which they are waited for.
    due: BTreeSet<(u64, ChunkId, u32, Kind)>,
    /// By node: those that it carries out, and those of which it is the source. At most [`PER_NODE_MAX`] of each kind.
    of_node: HashMap<u32, BTreeSet<(ChunkId, u32, Kind)>>,
}

impl Jobs {
    /// Whether a node takes one more order of this kind; what is not urgent leaves room for what is.
    pub(super) fn has_room(&self, node: u32, kind: Kind, is_urgent: bool) -> bool {
        let kept = if is_urgent { 0 } else { 1 };
        let per_node = PER_NODE_MAX - kept * PER_NODE_MAX / URGENT_SHARE;
        !self.is_full(is_urgent) && self.load(node, kind) < per_node
    }

    /// Whether no node takes one more.
    pub(super) fn is_full(&self, is_urgent: bool) -> bool {
        let kept = if is_urgent { 0 } else { JOBS_MAX / URGENT_SHARE as usize };
        self.count >= JOBS_MAX - kept
    }

    /// Orders of this kind at a node.
    pub(super) fn load(&self, node: u32, kind: Kind) -> u32 {
        self.busy.get(&(node, kind)).copied().unwrap_or(0)
    }

    /// A copy of `bytes` was ordered.
    pub(super) fn copy(&mut self, now_ms: u64, chunk: ChunkId, source: u32, target: u32, bytes: u64) {
        let until_ms = now_ms + PATIENCE_MS + bytes / COPY_BYTES_PER_MS_MIN;
        self.insert(chunk, Job { node: target, kind: Kind::CopyTo, until_ms, source: Some(source) });
    }

    /// Something else was ordered.
    pub(super) fn begin(&mut self, now_ms: u64, chunk: ChunkId, node: u32, kind: Kind) {
        self.insert(chunk, Job { node, kind, until_ms: now_ms + PATIENCE_MS, source: None });
    }

    fn insert(&mut self, chunk: ChunkId, job: Job) {
        self.end(chunk, job.node, job.kind);
        self.count += 1;
        self.copies += u64::from(job.kind == Kind::CopyTo);
        *self.busy.entry((job.node, job.kind)).or_default() += 1;
        if let Some(source) = job.source {
            *self.busy.entry((source, Kind::CopyFrom)).or_default() += 1;
            self.of_node.entry(source).or_default().insert((chunk, job.node, job.kind));
        }
        self.of_node.entry(job.node).or_default().insert((chunk, job.node, job.kind));
        if job.kind != Kind::Drop {
            self.due.insert((job.until_ms, chunk, job.node, job.kind));
        }
        self.jobs.entry(chunk).or_default().push(job);
    }

    /// The nodes that have such an order about a chunk.
    pub(super) fn nodes(&self, chunk: ChunkId, kind: Kind) -> impl Iterator<Item = u32> + '_ {
        let jobs = self.jobs.get(&chunk).into_iter().flatten();
        jobs.filter(move |job| job.kind == kind).map(|job| job.node)
    }

    /// Whether such an order is without an answer.
    pub(super) fn runs(&self, chunk: ChunkId, node: u32, kind: Kind) -> bool {
        self.nodes(chunk, kind).any(|of| of == node)
    }

    /// Whether such an order has been without an answer for too long.
    pub(super) fn is_overdue(&self, now_ms: u64, chunk: ChunkId, node: u32, kind: Kind) -> bool {
        let mut jobs = self.jobs.get(&chunk).into_iter().flatten();
        jobs.any(|job| (job.node, job.kind) == (node, kind) && job.until_ms <= now_ms)
    }

    /// An order was answered, or is not waited for any more; whether there was one.
    pub(super) fn end(&mut self, chunk: ChunkId, node: u32, kind: Kind) -> bool {
        let Some(jobs) = self.jobs.get_mut(&chunk) else { return false };
        let Some(at) = jobs.iter().position(|job| (job.node, job.kind) == (node, kind)) else { return false };
        let job = jobs.swap_remove(at);
        if jobs.is_empty() {
            self.jobs.remove(&chunk);
        }
        self.count -= 1;
        self.copies -= u64::from(kind == Kind::CopyTo);
        self.due.remove(&(job.until_ms, chunk, node, kind));
        self.rest(node, kind);
        self.unlist(node, chunk, &job);
        if let Some(source) = job.source {
            self.rest(source, Kind::CopyFrom);
            self.unlist(source, chunk, &job);
        }
        true
    }

    fn unlist(&mut self, node: u32, chunk: ChunkId, job: &Job) {
        if let Some(jobs) = self.of_node.get_mut(&node) {
            jobs.remove(&(chunk, job.node, job.kind));
            if jobs.is_empty() {
                self.of_node.remove(&node);
            }
        }
    }

    fn rest(&mut self, node: u32, kind: Kind) {
        if let Some(busy) = self.busy.get_mut(&(node, kind)) {
            *busy -= 1;
            if *busy == 0 {
                self.busy.remove(&(node, kind));
            }
        }
    }

    /// Forgets a few of the orders that are overdue, but for those to drop. Says how many copies were among them, and whether
    /// there are more.
    pub(super) fn forget_overdue(&mut self, now_ms: u64) -> (u64, bool) {
        let before = self.copies;
        for _ in 0..FORGET_STEP {
            let Some((_, chunk, node, kind)) = self.due.first().copied().filter(|due| due.0 <= now_ms) else {
                return (before - self.copies, false);
            };
            hold::count(1);
            self.end(chunk, node, kind);
        }
        (before - self.copies, true)
    }

    /// Forgets all orders of a node that is gone, and those of which it is the source; how many copies were among them.
    pub(super) fn forget_node(&mut self, node: u32) -> u64 {
        let before = self.copies;
        for (chunk, of, kind) in self.of_node.get(&node).cloned().unwrap_or_default() {
            hold::count(1);
            self.end(chunk, of, kind);
        }
        before - self.copies
    }

    /// How many copies are on their way.
    pub(super) fn copies(&self) -> u64 {
        self.copies
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ends_makes_room_at_source_and_target() {
        let mut jobs = Jobs::default();
        for chunk in 0..u64::from(PER_NODE_MAX) {
            assert!(jobs.has_room(1, Kind::CopyFrom, true) && jobs.has_room(2, Kind::CopyTo, true));
            jobs.copy(0, ChunkId(chunk), 1, 2, 100);
        }
        assert!(!jobs.has_room(1, Kind::CopyFrom, true) && !jobs.has_room(2, Kind::CopyTo, true));
        assert!(
            jobs.has_room(1, Kind::CopyTo, false) && jobs.has_room(2, Kind::Verify, false),
            "other kinds are free"
        );
        jobs.copy(0, ChunkId(3), 1, 2, 100);
        assert!(jobs.end(ChunkId(3), 2, Kind::CopyTo) && !jobs.end(ChunkId(3), 2, Kind::CopyTo));
        assert!(jobs.has_room(1, Kind::CopyFrom, true) && jobs.has_room(2, Kind::CopyTo, true));
        assert_eq!(jobs.copies(), u64::from(PER_NODE_MAX) - 1);
    }

    #[test]
    fn what_is_overdue_or_of_a_node_that_is_gone_is_forgotten() {
        let mut jobs = Jobs::default();
        jobs.copy(0, ChunkId(1), 1, 2, 4 << 20);
        jobs.copy(0, ChunkId(2), 3, 4, 1);
        jobs.begin(0, ChunkId(1), 5, Kind::Verify);
        assert_eq!(jobs.forget_node(3), 1, "the source is gone");
        assert_eq!(jobs.forget_overdue(PATIENCE_MS), (0, false), "the larger copy may take longer");
        assert!(!jobs.runs(ChunkId(1), 5, Kind::Verify) && jobs.runs(ChunkId(1), 2, Kind::CopyTo));
        assert_eq!(jobs.forget_overdue(PATIENCE_MS + 1024), (1, false));
        jobs.begin(0, ChunkId(1), 5, Kind::Drop);
        assert!(!jobs.is_overdue(PATIENCE_MS - 1, ChunkId(1), 5, Kind::Drop));
        assert!(jobs.is_overdue(PATIENCE_MS, ChunkId(1), 5, Kind::Drop));
        jobs.forget_overdue(u64::MAX);
        assert!(jobs.runs(ChunkId(1), 5, Kind::Drop), "it may still be carried out");
        jobs.forget_node(5);
        assert!(jobs.jobs.is_empty() && jobs.busy.is_empty());
        assert!(jobs.due.is_empty() && jobs.of_node.is_empty());
    }

    #[test]
    fn what_is_not_urgent_leaves_room_and_overdue_orders_go_in_steps() {
        let mut jobs = Jobs::default();
        let mut chunk = 0;
        let mut fill = |jobs: &mut Jobs, is_urgent: bool| {
            let before = jobs.copies();
            for node in 0..2000 {
                while jobs.has_room(node, Kind::CopyTo, is_urgent) {
                    chunk += 1;
                    jobs.copy(0, ChunkId(chunk), 10_000 + node, node, 1);
                }
            }
            jobs.copies() - before
        };
        let usual = fill(&mut jobs, false);
        assert_eq!(usual, (JOBS_MAX - JOBS_MAX / URGENT_SHARE as usize) as u64);
        assert!(jobs.is_full(false) && !jobs.is_full(true));
        assert_eq!(jobs.load(0, Kind::CopyTo), PER_NODE_MAX - PER_NODE_MAX / URGENT_SHARE);
        assert_eq!(usual + fill(&mut jobs, true), JOBS_MAX as u64);
        assert_eq!(jobs.load(0, Kind::CopyTo), PER_NODE_MAX);
        assert_eq!(jobs.forget_overdue(u64::MAX), (FORGET_STEP as u64, true));
    }
}
