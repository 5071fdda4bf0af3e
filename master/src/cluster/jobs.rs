//! What datanodes were told to do for repair and have not answered yet. Pure.

use std::collections::HashMap;

use distrifs_proto::types::ChunkId;

/// Orders without an answer, of all nodes.
const JOBS_MAX: usize = 1 << 14;
/// Of one kind at one node: its queue, so that it always has something to do, and not more than it will do soon.
const PER_NODE_MAX: u32 = 16;
/// An order that was not answered for so long is forgotten, and planned anew; one to drop is given again, to the same
/// node: it may still be carried out, and two replicas must not go where one was meant.
const PATIENCE_MS: u64 = 60_000;
/// The slowest copying that is waited for, in bytes per millisecond.
const COPY_BYTES_PER_MS_MIN: u64 = 4 << 10;

/// What is being done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
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
}

impl Jobs {
    /// Whether a node takes one more order of this kind.
    pub(super) fn has_room(&self, node: u32, kind: Kind) -> bool {
        self.count < JOBS_MAX && self.load(node, kind) < PER_NODE_MAX
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
        self.rest(node, kind);
        if let Some(source) = job.source {
            self.rest(source, Kind::CopyFrom);
        }
        true
    }

    fn rest(&mut self, node: u32, kind: Kind) {
        if let Some(busy) = self.busy.get_mut(&(node, kind)) {
            *busy -= 1;
            if *busy == 0 {
                self.busy.remove(&(node, kind));
            }
        }
    }

    /// Forgets what is overdue, but for orders to drop, and all orders of these nodes; how many copies were among them.
    pub(super) fn forget(&mut self, now_ms: u64, gone: impl Fn(u32) -> bool) -> u64 {
        let before = self.copies;
        let is_over = |job: &Job| {
            let overdue = job.until_ms <= now_ms && job.kind != Kind::Drop;
            overdue || gone(job.node) || job.source.is_some_and(&gone)
        };
        let all = self.jobs.iter().flat_map(|(chunk, jobs)| jobs.iter().map(move |job| (*chunk, *job)));
        let over: Vec<(ChunkId, Job)> = all.filter(|(_, job)| is_over(job)).collect();
        for (chunk, job) in over {
            self.end(chunk, job.node, job.kind);
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
            assert!(jobs.has_room(1, Kind::CopyFrom) && jobs.has_room(2, Kind::CopyTo));
            jobs.copy(0, ChunkId(chunk), 1, 2, 100);
        }
        assert!(!jobs.has_room(1, Kind::CopyFrom) && !jobs.has_room(2, Kind::CopyTo));
        assert!(jobs.has_room(1, Kind::CopyTo) && jobs.has_room(2, Kind::Verify), "other kinds are free");
        jobs.copy(0, ChunkId(3), 1, 2, 100);
        assert!(jobs.end(ChunkId(3), 2, Kind::CopyTo) && !jobs.end(ChunkId(3), 2, Kind::CopyTo));
        assert!(jobs.has_room(1, Kind::CopyFrom) && jobs.has_room(2, Kind::CopyTo));
        assert_eq!(jobs.copies(), u64::from(PER_NODE_MAX) - 1);
    }

    #[test]
    fn what_is_overdue_or_of_a_node_that_is_gone_is_forgotten() {
        let mut jobs = Jobs::default();
        jobs.copy(0, ChunkId(1), 1, 2, 4 << 20);
        jobs.copy(0, ChunkId(2), 3, 4, 1);
        jobs.begin(0, ChunkId(1), 5, Kind::Verify);
        assert_eq!(jobs.forget(1, |node| node == 3), 1, "the source is gone");
        assert_eq!(jobs.forget(PATIENCE_MS, |_| false), 0, "the larger copy may take longer");
        assert!(!jobs.runs(ChunkId(1), 5, Kind::Verify) && jobs.runs(ChunkId(1), 2, Kind::CopyTo));
        assert_eq!(jobs.forget(PATIENCE_MS + 1024, |_| false), 1);
        jobs.begin(0, ChunkId(1), 5, Kind::Drop);
        assert!(!jobs.is_overdue(PATIENCE_MS - 1, ChunkId(1), 5, Kind::Drop));
        assert!(jobs.is_overdue(PATIENCE_MS, ChunkId(1), 5, Kind::Drop));
        jobs.forget(u64::MAX, |_| false);
        assert!(jobs.runs(ChunkId(1), 5, Kind::Drop), "it may still be carried out");
        jobs.forget(0, |node| node == 5);
        assert!(jobs.jobs.is_empty() && jobs.busy.is_empty());
    }
}
