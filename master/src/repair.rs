//! The driver of repair: looks through all files in time, keeps what is not as it should be, and sends out what
//! `cluster::repair` decides, fewest copies first.
//!
//! A look goes over the files in slices, so that nobody waits for it; a full one every interval, or as much of it as
//! [`SLICES_PER_LOOK_MAX`] allows, then from there on. Between two looks whatever datanodes answer lets the next
//! orders of those chunks out.

use std::cmp::Ordering;
use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use distrifs_proto::grpc::v1;
use distrifs_proto::limits::ORDERS_MAX;
use distrifs_proto::types::ChunkId;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use crate::cluster::{Candidate, RepairOrder, SessionId};
use crate::namespace::ChunkState;
use crate::state::State;

/// Files and chunks looked at while the cores are held; of the last file all chunks.
const SLICE: usize = 4096;
/// Slices in one look.
const SLICES_PER_LOOK_MAX: usize = 512;
/// Chunks that are kept between two looks: those with fewest copies.
const CANDIDATES_MAX: usize = 1 << 14;
/// Chunks that several files share and all of them have too many of, in one look; further ones keep their surplus.
const SHARED_MAX: usize = 1 << 16;
/// Answers that come within this time are seen to together.
const GATHER: Duration = Duration::from_millis(20);

/// What the last complete look found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Found {
    /// Chunks that lack good replicas.
    pub(crate) to_repair: u64,
    /// Chunks with surplus or damaged ones.
    pub(crate) to_trim: u64,
    /// Good replicas that lack, of all chunks.
    missing: u64,
}

/// Repairs until `stop` turns true.
pub(crate) async fn run(state: Arc<State>, mut stop: watch::Receiver<bool>) {
    let mut ticks = tokio::time::interval(state.config.recovery_interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut look = Look::default();
    loop {
        let looks = tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            _ = ticks.tick() => true,
            () = state.repair_woken() => false,
        };
        if looks {
            look.over_files(&state).await;
        } else {
            tokio::time::sleep(GATHER).await;
        }
        look.act(&state);
    }
}

/// Where a look is, and what it found.
#[derive(Debug, Default)]
struct Look {
    next_slot: u32,
    found: Found,
    candidates: Vec<Candidate>,
    /// While it goes on: the one with most copies first, so that it goes when there are too many.
    fewest: BinaryHeap<ByCopies>,
    shared: Shared,
}

/// Chunks of several files, each of which has more replicas than the file wants: by how many files was that said, and
/// what does the one want that wants most.
#[derive(Debug, Default)]
struct Shared(HashMap<ChunkId, (u32, u32)>);

impl Shared {
    /// One more file says so of a chunk that `refs` have; what all of them together want, once all have said it.
    fn said(&mut self, id: ChunkId, refs: u32, wanted: u32) -> Option<u32> {
        if self.0.len() >= SHARED_MAX && !self.0.contains_key(&id) {
            return None;
        }
        let (files, most) = self.0.entry(id).or_default();
        (*files, *most) = (*files + 1, wanted.max(*most));
        (*files == refs).then_some(*most)
    }
}

/// Ordered by the copies that there are.
#[derive(Debug)]
struct ByCopies(Candidate);

impl Ord for ByCopies {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.0.good, self.0.id).cmp(&(other.0.good, other.0.id))
    }
}

impl PartialOrd for ByCopies {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for ByCopies {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for ByCopies {}

impl Look {
    async fn over_files(&mut self, state: &State) {
        if state.cluster().safe_mode(state.clock.now_ms()).is_some() {
            return;
        }
        if self.next_slot == 0 {
            self.found = Found::default();
            self.shared = Shared::default();
        }
        state.cluster().forget_waits();
        for _ in 0..SLICES_PER_LOOK_MAX {
            if self.slice(state) {
                state.set_repair_found(self.found);
                state.cluster().set_copies_missing(self.found.missing);
                self.next_slot = 0;
                break;
            }
            tokio::task::yield_now().await;
        }
        let fewest = std::mem::take(&mut self.fewest).into_sorted_vec();
        self.candidates = fewest.into_iter().map(|ByCopies(it)| it).collect();
    }

    /// Looks at some files; whether they were the last ones.
    fn slice(&mut self, state: &State) -> bool {
        let now_ms = state.clock.now_ms();
        let namespace = state.namespace();
        let cluster = state.cluster();
        let mut seen = 0;
        for (slot, file) in namespace.files_from(self.next_slot) {
            if seen >= SLICE {
                return false;
            }
            (self.next_slot, seen) = (slot + 1, seen + 1);
            let Some((wanted, chunks)) = namespace.chunks_of(file) else { continue };
            for (id, chunk) in chunks {
                seen += 1;
                let (mut wanted, mut trims) = (u32::from(wanted), chunk.refs == 1);
                if chunk.refs > 1
                    && cluster.inspect(now_ms, id, chunk, wanted, true).is_some_and(|it| it.good > wanted)
                    && let Some(most) = self.shared.said(id, chunk.refs, wanted)
                {
                    (wanted, trims) = (most, true);
                }
                let Some(found) = cluster.inspect(now_ms, id, chunk, wanted, trims) else { continue };
                let lacks = found.good < found.wanted;
                self.found.missing += u64::from(found.wanted.saturating_sub(found.good));
                self.found.to_repair += u64::from(lacks);
                self.found.to_trim += u64::from(!lacks);
                self.fewest.push(ByCopies(found));
                if self.fewest.len() > CANDIDATES_MAX {
                    self.fewest.pop();
                }
            }
        }
        true
    }

    /// Orders what can be ordered now.
    fn act(&mut self, state: &State) {
        let now_ms = state.clock.now_ms();
        let namespace = state.namespace();
        let mut cluster = state.cluster();
        cluster.forget_jobs(now_ms);
        let mut orders = cluster.check_claims(now_ms);
        self.candidates.retain(|it| {
            // The file may have gone meanwhile, and the chunk with it.
            let ChunkState::Referenced(chunk) = namespace.chunk(it.id) else { return false };
            // Another file may have it by now, and want more.
            let trims = it.trims && chunk.refs == it.chunk.refs;
            let Some(found) = cluster.inspect(now_ms, it.id, chunk, it.wanted, trims) else { return false };
            orders.extend(cluster.repair(now_ms, found, rand::random()));
            true
        });
        drop((cluster, namespace));
        send(state, orders);
    }
}

fn send(state: &State, mut orders: Vec<(SessionId, RepairOrder)>) {
    orders.sort_by_key(|(session, _)| *session);
    for of_session in orders.chunk_by(|(one, _), (other, _)| one == other) {
        for part in of_session.chunks(ORDERS_MAX) {
            let mut message = v1::Orders::default();
            part.iter().for_each(|(_, order)| add(&mut message, order));
            state.order(part[0].0, message);
        }
    }
}

fn add(message: &mut v1::Orders, order: &RepairOrder) {
    match order {
        RepairOrder::Copy { replica, target } => message.replicate.push(v1::ReplicateChunk {
            chunk_id: replica.chunk.0,
            generation: replica.generation.0,
            length: replica.length,
            crc32c: replica.crc.0,
            target_node_id: target.node.0,
            target_address: target.address.clone(),
        }),
        RepairOrder::Verify { chunk } => message.verify.push(chunk.0),
        RepairOrder::Drop { chunk, generation, corrupt } => message.drop.push(v1::DropReplica {
            chunk_id: chunk.0,
            generation: generation.0,
            corrupt: *corrupt,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_file_that_wants_most_wants_is_known_when_all_have_spoken() {
        let mut shared = Shared::default();
        let (a, b) = (ChunkId(1), ChunkId(2));
        assert_eq!(shared.said(a, 3, 2), None);
        assert_eq!(shared.said(b, 2, 1), None);
        assert_eq!(shared.said(a, 3, 5), None);
        assert_eq!(shared.said(a, 3, 3), Some(5));
        assert_eq!(shared.said(b, 2, 1), Some(1));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut shared = Shared::default();
        for id in 0..SHARED_MAX as u64 + 10 {
            assert_eq!(shared.said(ChunkId(id), 2, 3), None);
        }
        assert_eq!(shared.0.len(), SHARED_MAX);
        assert_eq!(shared.said(ChunkId(0), 2, 3), Some(3));
    }
}
