//! The driver of repair: looks through all files in time, keeps what is not as it should be, and sends out what
//! `cluster::repair` decides, fewest copies first.
//!
//! - A look goes over the files in slices, between which the locks are free; a full one every interval, or as much of it as
//!   [`SLICES_PER_LOOK_MAX`] allows, then from there on. Without a reason to hurry it takes a tenth of a processor.
//! - When a datanode is declared dead a look begins at once, and orders go out while it is still under way: of a rack that
//!   died among thousands of nodes the first copies are ordered after the first slice, not after the last.
//! - Between two looks the answers of datanodes let the next orders of their chunks out.

mod backlog;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use distrifs_proto::grpc::v1;
use distrifs_proto::limits::ORDERS_MAX;
use distrifs_proto::types::ChunkId;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use crate::cluster::{Candidate, RepairOrder, SessionId};
use crate::hold;
use crate::namespace::{Chunk, ChunkState};
use crate::state::State;
use backlog::Backlog;

/// Slots and chunks looked at in one slice, while both locks are held.
const SLOTS_PER_SLICE: usize = 128;
const CHUNKS_PER_SLICE: usize = 128;
/// Slices in one look.
const SLICES_PER_LOOK_MAX: usize = 1 << 14;
/// Slices between two yields.
const SLICES_PER_POLL: usize = 4;
/// Slices after which orders go out while a look is under way, and after which it rests.
const SLICES_PER_TURN: usize = 16;
/// Of the time that its slices took, so often a look rests. In a hurry a quarter of a processor is enough: the first orders
/// go out after the first slices, and datanodes take longer to copy than a look takes to find.
const REST_TURNS: u32 = 9;
const REST_TURNS_IN_HURRY: u32 = 3;
/// Chunks that are planned in one slice, while both locks are held.
const PLANS_PER_SLICE: usize = 16;
/// Chunks that are planned in one turn, and turns are at least [`GATHER`] apart: 4,800 copies a second at most, a third of
/// that on a busy machine. HDFS orders about 2,700 at 4,000 datanodes. The answers to a turn come at once, and calls of clients wait behind them.
const PLANS_PER_TURN_MAX: usize = 96;
/// Chunks for which all datanodes had enough to do: then the rest of the turn is not tried.
const BUSY_MAX: usize = 64;
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
    let mut repair = Repair::default();
    loop {
        let is_due = tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            _ = ticks.tick() => true,
            () = state.repair_woken() => false,
        };
        if !is_due {
            tokio::time::sleep(GATHER).await;
        }
        if is_due || repair.sees_deaths(&state) {
            repair.look(&state, &stop).await;
        }
        repair.act(&state).await;
    }
}

/// A chunk of a file, and the replicas that the file wants of it.
type Wanted = (ChunkId, Chunk, u32);

/// Where a look is, what it found, and what is to be done.
#[derive(Debug, Default)]
struct Repair {
    next_slot: u32,
    /// Of the file in that slot: files with very many chunks take several slices.
    next_chunk: usize,
    found: Found,
    shared: Shared,
    backlog: Backlog,
    /// When orders last went out.
    acted: Option<Instant>,
    /// Deaths that the look under way, or the last one, began with.
    deaths: u64,
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

impl Repair {
    fn sees_deaths(&self, state: &State) -> bool {
        state.cluster().sums().deaths != self.deaths
    }

    /// Goes through all files, once more if nodes died meanwhile. Orders go out in between.
    async fn look(&mut self, state: &State, stop: &watch::Receiver<bool>) {
        // They may be many: they are dropped when the lock is free again.
        drop({ state.cluster() }.take_waits());
        let hurries = self.sees_deaths(state);
        let mut began = Instant::now();
        for slice in 1..=SLICES_PER_LOOK_MAX {
            if *stop.borrow() || state.cluster().is_repair_paused(state.clock.now_ms()) {
                return;
            }
            if self.next_slot == 0 && self.next_chunk == 0 {
                (self.found, self.shared) = (Found::default(), Shared::default());
                self.deaths = state.cluster().sums().deaths;
            }
            let is_last = self.slice(state);
            if is_last {
                state.set_repair_found(self.found);
                state.cluster().set_copies_missing(self.found.missing);
                if !self.sees_deaths(state) {
                    return;
                }
            }
            if slice.is_multiple_of(SLICES_PER_TURN) || is_last {
                if self.backlog.len() > 0 && self.acted.is_none_or(|acted| acted.elapsed() >= GATHER) {
                    self.act(state).await;
                }
                let hurries = hurries || self.sees_deaths(state);
                let rests = if hurries { REST_TURNS_IN_HURRY } else { REST_TURNS };
                tokio::time::sleep(began.elapsed() * rests).await;
                began = Instant::now();
            }
            if slice.is_multiple_of(SLICES_PER_POLL) {
                tokio::task::yield_now().await;
            }
        }
    }

    /// Looks at some files; whether they were the last ones.
    fn slice(&mut self, state: &State) -> bool {
        let (chunks, next) = self.next_chunks(state);
        let now_ms = state.clock.now_ms();
        let cluster = state.cluster();
        for (id, chunk, replication) in chunks {
            let (mut wanted, mut trims) = (replication, chunk.refs == 1);
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
            self.backlog.insert(found);
        }
        (self.next_slot, self.next_chunk) = next.unwrap_or((0, 0));
        next.is_none()
    }

    /// The chunks of the next files with the replicas wanted of each, and where to go on; `None`: these were the last. The
    /// namespace is free again before the cluster is asked, so that no hold of it contains a wait for the other lock.
    fn next_chunks(&self, state: &State) -> (Vec<Wanted>, Option<(u32, usize)>) {
        let namespace = state.namespace();
        let (files, next) = namespace.files_slice(self.next_slot, SLOTS_PER_SLICE);
        let mut found = Vec::with_capacity(CHUNKS_PER_SLICE);
        let mut left = CHUNKS_PER_SLICE;
        for (slot, file, replication, chunks) in files {
            hold::count(1);
            let first = if slot == self.next_slot { self.next_chunk } else { 0 };
            let some = namespace.some_chunks_of(file, first, left);
            found.extend(some.map(|(id, chunk)| (id, chunk, u32::from(replication))));
            let seen = left.min(chunks.saturating_sub(first));
            left -= seen;
            if left == 0 {
                // The rest of this file, or the next one.
                let is_over = first + seen >= chunks;
                return (found, Some(if is_over { (slot + 1, 0) } else { (slot, first + seen) }));
            }
        }
        (found, next.map(|slot| (slot, 0)))
    }

    /// Orders what can be ordered now.
    async fn act(&mut self, state: &State) {
        self.acted = Some(Instant::now());
        for chunk in state.take_touched() {
            self.backlog.revive(chunk);
        }
        while state.cluster().forget_jobs(state.clock.now_ms()) {
            tokio::task::yield_now().await;
        }
        let claims = state.cluster().check_claims(state.clock.now_ms());
        send(state, claims);
        let mut busy = Vec::new();
        let mut more = true;
        for _ in 0..PLANS_PER_TURN_MAX / PLANS_PER_SLICE {
            let some = self.backlog.take(PLANS_PER_SLICE);
            more = !some.is_empty() && self.plan(state, some, &mut busy) && busy.len() < BUSY_MAX;
            if !more {
                break;
            }
            tokio::task::yield_now().await;
        }
        busy.into_iter().for_each(|chunk| self.backlog.revive(chunk));
        if more {
            // The next turn, also when no datanode answers before.
            state.wake_repair();
        }
    }

    /// Plans some chunks and sends out what is to be done; whether more can be done now.
    fn plan(&mut self, state: &State, some: Vec<Candidate>, busy: &mut Vec<ChunkId>) -> bool {
        let chunks: Vec<ChunkState> = {
            let namespace = state.namespace();
            some.iter().map(|it| namespace.chunk(it.id)).collect()
        };
        let now_ms = state.clock.now_ms();
        let mut cluster = state.cluster();
        if cluster.is_repair_paused(now_ms) {
            busy.extend(some.iter().map(|it| it.id));
            return false;
        }
        let mut orders = Vec::new();
        for (it, chunk) in some.into_iter().zip(chunks) {
            // The file may have gone meanwhile, and the chunk with it.
            let ChunkState::Referenced(chunk) = chunk else {
                self.backlog.remove(it.id);
                continue;
            };
            // Another file may have it by now, and want more.
            let trims = it.trims && chunk.refs == it.chunk.refs;
            let Some(found) = cluster.inspect(now_ms, it.id, chunk, it.wanted, trims) else {
                self.backlog.remove(it.id);
                continue;
            };
            let of_this = cluster.repair(now_ms, found, rand::random());
            busy.extend((of_this.is_empty() && cluster.is_busy(it.id)).then_some(it.id));
            orders.extend(of_this);
        }
        let more = !cluster.has_all_jobs();
        drop(cluster);
        send(state, orders);
        more
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
