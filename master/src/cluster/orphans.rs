//! Replicas of chunks that the namespace does not know. Pure.
//!
//! That nobody knows a chunk is no reason to delete it: a master whose log lost its tail knows nothing of the newest files.
//! So they are counted, and what stays unknown for long enough is moved out of the way at its node, to `quarantine/`, where
//! a person finds it (LESSONS, R19). What this leader granted is known to it. Nothing is moved in safe mode, by a master that is behind what any node was shown, or
//! at a node that has not reported in this session.

use std::collections::BTreeMap;
use std::ops::Bound;

use distrifs_proto::limits::ORDERS_MAX;
use distrifs_proto::types::{ChunkId, GenerationStamp};

use super::{Cluster, SessionId};
use crate::hold;

/// Reported chunks looked at in one step, while the locks are held; the next step goes on behind them.
const SLICE: usize = 256;
/// Unknown chunks that are remembered; further ones wait until these are gone.
const ORPHANS_MAX: usize = 1 << 16;

/// Unknown chunks and when they were first seen to be.
#[derive(Debug, Default)]
pub(super) struct Orphans {
    since: BTreeMap<ChunkId, u64>,
    after: Option<ChunkId>,
}

/// Replicas to be moved, by the session of their node.
pub(crate) type OrphanOrders = Vec<(SessionId, Vec<(ChunkId, GenerationStamp)>)>;

impl Cluster {
    /// The reported chunks that the next step looks at; none when nothing may be moved now. Whether each is known is asked
    /// without the cluster's lock.
    pub(crate) fn next_reported(&self, now_ms: u64) -> Vec<ChunkId> {
        if self.safe_mode(now_ms).is_some() {
            return Vec::new();
        }
        self.replicas.chunks_after(self.orphans.after).take(SLICE).collect()
    }

    /// Looks at some more of the reported chunks; what has been unknown for `age_ms` is to be moved to quarantine. An order
    /// is repeated in later steps until its node reports the replica gone.
    pub(crate) fn orphans(
        &mut self,
        now_ms: u64,
        age_ms: u64,
        is_unknown: impl Fn(ChunkId) -> bool,
    ) -> OrphanOrders {
        if self.safe_mode(now_ms).is_some() {
            return OrphanOrders::new();
        }
        let (orphans, replicas, grants) = (&mut self.orphans, &self.replicas, &self.grants);
        let began = orphans.after;
        let mut seen = 0;
        let mut moved: BTreeMap<SessionId, Vec<(ChunkId, GenerationStamp)>> = BTreeMap::new();
        for chunk in replicas.chunks_after(orphans.after).take(SLICE) {
            (seen, orphans.after) = (seen + 1, Some(chunk));
            hold::count(1);
            if !is_unknown(chunk) || grants.holds(chunk) {
                orphans.since.remove(&chunk);
                continue;
            }
            if orphans.since.len() >= ORPHANS_MAX && !orphans.since.contains_key(&chunk) {
                continue;
            }
            let since = *orphans.since.entry(chunk).or_insert(now_ms);
            if now_ms.saturating_sub(since) < age_ms {
                continue;
            }
            for held in replicas.of(chunk) {
                let Some(node) = self.nodes.get(held.node as usize).and_then(Option::as_ref) else {
                    continue;
                };
                let Some(session) = node.session.filter(|_| node.reported) else { continue };
                let orders = moved.entry(session).or_default();
                if orders.len() < ORDERS_MAX {
                    orders.push((chunk, held.replica.generation));
                }
            }
        }
        if seen < SLICE {
            orphans.after = None;
        }
        // Those that went are not among the reported ones. Of very many the next pass sees to the rest.
        let passed = (
            began.map_or(Bound::Unbounded, Bound::Excluded),
            orphans.after.map_or(Bound::Unbounded, Bound::Included),
        );
        let passed = orphans.since.range(passed).map(|(chunk, _)| *chunk).take(2 * SLICE);
        let gone: Vec<ChunkId> = passed.filter(|chunk| replicas.of(*chunk).next().is_none()).collect();
        gone.iter().for_each(|chunk| {
            orphans.since.remove(chunk);
        });
        moved.into_iter().collect()
    }

    /// Whether the last step did not come to the end of the reported chunks.
    pub(crate) fn has_more_orphans(&self) -> bool {
        self.orphans.after.is_some()
    }

    /// Chunks that datanodes hold and the namespace does not know, as far as they were looked at.
    pub(crate) fn orphan_count(&self) -> u64 {
        self.orphans.since.len() as u64
    }
}
