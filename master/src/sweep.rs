//! What the master does by itself, in time: leases and grants expire, tombstones become orders.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use distrifs_proto::grpc::v1;
use distrifs_proto::types::{ChunkId, Epoch, GenerationStamp, Lsn};
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use crate::cluster::{Ages, GcOrders, SessionId};
use crate::namespace::{Answer, ChunkState, Command, Operation, REAP_ITEMS_MAX, Tombstone};
use crate::state::State;
use crate::writer::Proposer;

/// Tombstones looked at in one slice, while both locks are held.
const SLICE: usize = 128;
/// Slices between two yields: under load a yield lets hundreds of other tasks go first, and takes milliseconds.
const SLICES_PER_POLL: usize = 8;
/// Of the time that its slices took, so often a pass over orphans rests: it takes a twentieth of a processor.
const ORPHAN_REST_TURNS: u32 = 19;
/// Tombstones forgotten by one command, which is applied in one hold of the namespace.
const FORGET_MAX: usize = 1024;
/// Delete orders that are gathered before they are sent: with thousands of datanodes a slice has one or two for each.
const ORDERS_GATHERED_MAX: usize = 1 << 16;
/// How often datanodes with a full queue are tried again, and the pause before.
const SEND_TRIES: u32 = 50;
const SEND_PAUSE: Duration = Duration::from_millis(20);
/// Leases and grants are looked through so often while they last.
const LEASE_LOOKS: u32 = 8;
/// Between two looks for removed trees: where there were some the last time, and else.
const REAP_INTERVAL: Duration = Duration::from_millis(20);
const REAP_IDLE_INTERVAL: Duration = Duration::from_millis(200);
/// Items that one command frees: a tenth of a millisecond's work, and nearly a whole one's during a checkpoint, for which
/// everything that changes is kept.
const REAP_ITEMS: u32 = REAP_ITEMS_MAX / 2;
/// For how long a tombstone waits for nodes that are away.
const ABSENT_MAX: Duration = Duration::from_secs(7 * 24 * 3600);

/// Gives up the unfinished files whose lease has ended, until `stop` turns true.
pub(crate) async fn expire_leases(state: Arc<State>, proposer: Proposer, mut stop: watch::Receiver<bool>) {
    let timeout = state.config.pending_timeout;
    let mut ticks = ticks(look(timeout));
    // Nobody could renew while the master was away: everybody gets the whole time once more.
    let grace_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
    while next(&mut ticks, &mut stop).await {
        if state.clock.now_ms() < grace_ms {
            continue;
        }
        // One command gives up a bounded number of files.
        while !*stop.borrow() && expire_some(&state, &proposer).await {}
    }
}

/// Says whether there may be more.
async fn expire_some(state: &State, proposer: &Proposer) -> bool {
    let before_ms = state.clock.wall_ms();
    match proposer.propose(Command::own(before_ms, Operation::ExpireLeases { before_ms })).await {
        Ok(Answer::Expired { files }) => {
            if !files.is_empty() {
                tracing::info!(count = files.len(), "unfinished files were given up");
            }
            !files.is_empty()
        }
        Ok(_) => false,
        Err(refusal) => {
            tracing::debug!(%refusal, "leases were not looked through");
            false
        }
    }
}

/// Frees removed trees piece by piece, until `stop` turns true.
pub(crate) fn reap_removed(
    state: Arc<State>,
    proposer: Proposer,
    stop: watch::Receiver<bool>,
) -> impl Future<Output = ()> + Send {
    // Before the first request is served.
    let recovered = state.durable();
    reap_behind(recovered, state, proposer, stop)
}

/// As [`reap_removed`], by a master whose log ended at `recovered` when it started.
async fn reap_behind(recovered: Lsn, state: Arc<State>, proposer: Proposer, mut stop: watch::Receiver<bool>) {
    let grace_ms = u64::try_from(state.config.heartbeat_timeout.as_millis()).unwrap_or(u64::MAX);
    let mut interval = REAP_IDLE_INTERVAL;
    loop {
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            () = tokio::time::sleep(interval) => {}
        }
        // A log that lost records is recognized by the higher position that a datanode saw. Commands of the master's own
        // must not make up the difference before the datanodes could register.
        let may_begin = state.durable() > recovered || state.clock.now_ms() >= grace_ms;
        interval = REAP_IDLE_INTERVAL;
        while may_begin && !*stop.borrow() && state.namespace().reap_is_due() {
            if !reap_some(&state, &proposer).await {
                interval = REAP_IDLE_INTERVAL;
                break;
            }
            interval = REAP_INTERVAL;
            // Proposals of clients get in between two pieces.
            tokio::task::yield_now().await;
        }
    }
}

/// Says whether the next piece may follow at once.
async fn reap_some(state: &State, proposer: &Proposer) -> bool {
    let no_space = || state.log_stats().map_or(0, |stats| stats.no_space);
    let (reap, before) = (Operation::Reap { items: REAP_ITEMS }, no_space());
    match proposer.propose(Command::own(state.clock.wall_ms(), reap)).await {
        // A log without space took it from its reserve, which is for the removals of clients as well.
        Ok(_) => no_space() == before,
        Err(refusal) => {
            tracing::debug!(%refusal, "removed trees were not freed");
            false
        }
    }
}

/// Has chunks buried that were granted and became no file, until `stop` turns true.
pub(crate) async fn bury_grants(state: Arc<State>, proposer: Proposer, mut stop: watch::Receiver<bool>) {
    let mut ticks = ticks(look(state.config.pending_timeout));
    while next(&mut ticks, &mut stop).await {
        while !*stop.borrow() && bury_some(&state, &proposer).await {}
    }
}

/// Says whether there may be more.
async fn bury_some(state: &State, proposer: &Proposer) -> bool {
    let (burying, ended) = {
        let mut cluster = state.cluster();
        // Lost records may have used the same ids.
        if cluster.behind().is_some() {
            return false;
        }
        let ended = cluster.grants.take_ended(state.clock.now_ms());
        if ended.chunks.is_empty() {
            return false;
        }
        let bury = Operation::BuryChunks { chunks: ended.chunks.clone() };
        // Before the lock is let go of: whoever finds the grant gone has the burial in front of all that he asks for,
        // and a loss that is accepted has it behind.
        (proposer.propose(Command::own(state.clock.wall_ms(), bury)), ended)
    };
    let count = ended.chunks.len();
    match burying.await {
        Ok(_) => {
            tracing::info!(count, "granted chunks that became no file were given up");
            true
        }
        Err(refusal) => {
            tracing::debug!(%refusal, count, "granted chunks were not given up");
            state.cluster().grants.put_back(ended);
            false
        }
    }
}

/// Sends delete orders and forgets what is gone, until `stop` turns true. Each interval all tombstones are passed over
/// once, in slices between which the locks are free: however many there are, those of chunks that are gone everywhere are
/// forgotten in the same pass, so that replacing files at any rate does not let them gather.
pub(crate) async fn collect_garbage(state: Arc<State>, proposer: Proposer, mut stop: watch::Receiver<bool>) {
    let mut ticks = ticks(state.config.gc_interval);
    let mut told = Lsn(0);
    while next(&mut ticks, &mut stop).await {
        Pass::new(&state).run(&state, &proposer, &stop).await;
        show_durable(&state, &mut told);
        forget_plans(&state).await;
    }
}

/// Has orphans moved out of the way, until `stop` turns true.
pub(crate) async fn quarantine_orphans(state: Arc<State>, mut stop: watch::Receiver<bool>) {
    let mut ticks = ticks(state.config.gc_interval);
    while next(&mut ticks, &mut stop).await {
        pass_over_orphans(&state, &stop).await;
    }
}

/// One pass over all tombstones.
#[derive(Debug)]
struct Pass {
    /// What had been accepted as lost when it began: tombstones of before a later loss may be gone, and count for nothing.
    history: Epoch,
    after: ChunkId,
    forget: Vec<ChunkId>,
    orders: GcOrders,
    /// Datanodes that did not take their orders in time: they get the rest with the next pass.
    slow: HashSet<SessionId>,
}

impl Pass {
    fn new(state: &State) -> Self {
        let (history, after) = (state.history(), ChunkId(0));
        Self { history, after, forget: Vec::new(), orders: GcOrders::default(), slow: HashSet::new() }
    }

    /// Whether what was gathered may still be ordered. A datanode may have shown meanwhile that this master's log lost
    /// records, or the loss may have been accepted.
    fn holds(&self, state: &State) -> bool {
        state.cluster().deletes(state.clock.now_ms()) && state.history() == self.history
    }

    async fn run(mut self, state: &State, proposer: &Proposer, stop: &watch::Receiver<bool>) {
        let next_chunk = state.namespace().next_chunk();
        while state.cluster().mark_away(next_chunk) {
            tokio::task::yield_now().await;
        }
        let mut more = state.cluster().deletes(state.clock.now_ms());
        while more && !*stop.borrow() {
            more = (0..SLICES_PER_POLL).all(|_| self.slice(state));
            if self.orders.len() >= ORDERS_GATHERED_MAX || !more {
                self.send(state).await;
            }
            if self.forget.len() >= FORGET_MAX || !more {
                self.forget(state, proposer).await;
            }
            tokio::task::yield_now().await;
        }
    }

    /// Looks at some tombstones; whether there are more.
    fn slice(&mut self, state: &State) -> bool {
        let some: Vec<(ChunkId, Tombstone)> =
            { state.namespace() }.tombstones_after(self.after).take(SLICE).collect();
        let (now_ms, wall_ms, ages) = (state.clock.now_ms(), state.clock.wall_ms(), ages(state));
        let step = state.cluster().gc(now_ms, wall_ms, ages, some.iter().copied());
        let Some((last, _)) = some.last().copied() else { return false };
        self.after = last;
        self.forget.extend(step.forget);
        self.orders.add(step.orders);
        some.len() == SLICE
    }

    /// Sends what was gathered. Datanodes whose queues are full are waited for a little, all at once.
    async fn send(&mut self, state: &State) {
        for turn in 0..=SEND_TRIES {
            for session in self.orders.sessions() {
                if !self.holds(state) {
                    self.orders = GcOrders::default();
                    return;
                }
                if self.slow.contains(&session) {
                    self.orders.drop_session(session);
                }
                while let Some(message) = self.orders.message(session) {
                    let delete =
                        message.iter().map(|(chunk, generation)| order(*chunk, *generation)).collect();
                    if !state.order(session, v1::Orders { delete, ..v1::Orders::default() }) {
                        break;
                    }
                    self.orders.sent(session);
                }
                tokio::task::yield_now().await;
            }
            if self.orders.len() == 0 {
                return;
            }
            if turn < SEND_TRIES {
                tokio::time::sleep(SEND_PAUSE).await;
            }
        }
        self.slow.extend(self.orders.sessions());
        self.orders = GcOrders::default();
    }

    async fn forget(&mut self, state: &State, proposer: &Proposer) {
        for chunks in std::mem::take(&mut self.forget).chunks(FORGET_MAX) {
            if !self.holds(state) {
                return;
            }
            let forget = Operation::ForgetTombstones { chunks: chunks.to_vec() };
            match proposer.propose(Command::own(state.clock.wall_ms(), forget)).await {
                Ok(_) => state.metrics.tombstones_forgotten(chunks.len() as u64),
                Err(refusal) => return tracing::warn!(%refusal, "tombstones were not forgotten"),
            }
        }
    }
}

fn ages(state: &State) -> Ages {
    let ms = |time: Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
    let config = &state.config;
    let delay_ms = ms(config.gc_delay);
    Ages {
        delay_ms,
        straggler_ms: delay_ms.max(ms(config.pending_timeout)),
        absent_ms: ms(ABSENT_MAX).max(delay_ms),
    }
}

/// Forgets where chunks were planned that are not being written any more.
async fn forget_plans(state: &State) {
    let mut after = None;
    loop {
        for _ in 0..SLICES_PER_POLL {
            let chunks = state.cluster().plans.next(after);
            let over: Vec<ChunkId> = {
                let namespace = state.namespace();
                let is_over = |chunk: &&ChunkId| namespace.chunk(**chunk) != ChunkState::Unfinished;
                chunks.iter().filter(is_over).copied().collect()
            };
            let mut cluster = state.cluster();
            over.into_iter().for_each(|chunk| cluster.plans.forget(chunk));
            after = chunks.last().copied();
            if after.is_none() {
                return;
            }
        }
        tokio::task::yield_now().await;
    }
}

/// Has moved out of the way what the namespace has not known for as long as an unfinished file may last: in one pass over
/// all chunks that are reported, slice by slice.
async fn pass_over_orphans(state: &State, stop: &watch::Receiver<bool>) {
    let age = state.config.gc_delay.max(state.config.pending_timeout);
    let age_ms = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
    while !*stop.borrow() {
        let began = Instant::now();
        for _ in 0..SLICES_PER_POLL {
            let chunks = state.cluster().next_reported(state.clock.now_ms());
            if chunks.is_empty() {
                // None is left, or nothing may be moved now.
                state.cluster().orphans(state.clock.now_ms(), age_ms, |_| false);
                return;
            }
            let unknown: BTreeSet<ChunkId> = {
                let namespace = state.namespace();
                let is_unknown = |chunk: &ChunkId| namespace.chunk(*chunk) == ChunkState::Unknown;
                chunks.into_iter().filter(is_unknown).collect()
            };
            let (orders, more) = {
                let (now_ms, mut cluster) = (state.clock.now_ms(), state.cluster());
                // What was reported meanwhile counts as known until the next pass.
                let orders = cluster.orphans(now_ms, age_ms, |chunk| unknown.contains(&chunk));
                (orders, cluster.has_more_orphans())
            };
            for (session, orphans) in orders {
                tracing::warn!(count = orphans.len(), "replicas of unknown chunks are moved to quarantine");
                let quarantine =
                    orphans.iter().map(|(chunk, generation)| order(*chunk, *generation)).collect();
                state.order(session, v1::Orders { quarantine, ..v1::Orders::default() });
            }
            if !more {
                return;
            }
        }
        // Nothing waits for orphans.
        tokio::time::sleep(began.elapsed() * ORPHAN_REST_TURNS).await;
    }
}

/// Every datanode is shown the durable LSN, also one that got no order: as a witness against a master that comes back with
/// an older log.
fn show_durable(state: &State, told: &mut Lsn) {
    let durable = state.durable();
    if *told < durable {
        *told = durable;
        state.send_to_all(|| state.to_datanode(v1::to_datanode::Body::Orders(v1::Orders::default())));
    }
}

fn order(chunk: ChunkId, generation: GenerationStamp) -> v1::DeleteReplica {
    v1::DeleteReplica { chunk_id: chunk.0, generation: generation.0 }
}

/// Between two looks at what ends after `timeout`.
fn look(timeout: Duration) -> Duration {
    (timeout / LEASE_LOOKS).clamp(Duration::from_millis(10), Duration::from_secs(5))
}

fn ticks(period: Duration) -> tokio::time::Interval {
    let mut ticks = tokio::time::interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// Waits for the next tick; false when it is time to stop.
async fn next(ticks: &mut tokio::time::Interval, stop: &mut watch::Receiver<bool>) -> bool {
    tokio::select! {
        _ = stop.wait_for(|stop| *stop) => false,
        _ = ticks.tick() => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve_test::{config, folder, start};

    #[tokio::test(flavor = "multi_thread")]
    async fn orders_gathered_before_a_loss_was_accepted_are_not_sent() {
        let dir = folder();
        let mut config = config(dir.path());
        config.heartbeat_interval = Duration::from_millis(1);
        config.heartbeat_timeout = Duration::from_millis(2);
        let master = start(config).await;
        let state = master.state();
        while !state.cluster().deletes(state.clock.now_ms()) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let mut pass = Pass::new(state);
        assert!(pass.holds(state));
        pass.orders.add(vec![(SessionId(7), vec![(ChunkId(1), GenerationStamp(1))])]);
        state.set_history(Epoch(9));
        pass.send(state).await;
        assert_eq!((pass.orders.len(), pass.slow.len()), (0, 0), "dropped, and no datanode was waited for");
        master.stop().await;
    }
}
