//! What the master does by itself, in time: leases and grants expire, tombstones become orders.

use std::sync::Arc;
use std::time::Duration;

use distrifs_proto::grpc::v1;
use distrifs_proto::types::{ChunkId, GenerationStamp, Lsn};
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use crate::cluster::{Ages, GcStep};
use crate::namespace::{Answer, ChunkState, Command, Operation};
use crate::state::State;
use crate::writer::Proposer;

/// Tombstones looked at in one step; the next step goes on behind them.
const SCAN_MAX: usize = 1 << 17;
/// Leases and grants are looked through so often while they last.
const LEASE_LOOKS: u32 = 8;
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
        let before_ms = state.clock.wall_ms();
        match proposer.propose(Command::own(before_ms, Operation::ExpireLeases { before_ms })).await {
            Ok(Answer::Expired { files }) if !files.is_empty() => {
                tracing::info!(count = files.len(), "unfinished files were given up");
            }
            Ok(_) => {}
            Err(refusal) => tracing::debug!(%refusal, "leases were not looked through"),
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

/// Sends delete orders and forgets what is gone, until `stop` turns true.
pub(crate) async fn collect_garbage(state: Arc<State>, proposer: Proposer, mut stop: watch::Receiver<bool>) {
    let mut ticks = ticks(state.config.gc_interval);
    let mut after = ChunkId(0);
    let mut told = Lsn(0);
    while next(&mut ticks, &mut stop).await {
        let step = plan(&state, &mut after);
        send(&state, &step, &mut told);
        quarantine_orphans(&state);
        if step.forget.is_empty() {
            continue;
        }
        let forget = Operation::ForgetTombstones { chunks: step.forget };
        if let Err(refusal) = proposer.propose(Command::own(state.clock.wall_ms(), forget)).await {
            tracing::warn!(%refusal, "tombstones were not forgotten");
        }
    }
}

fn plan(state: &State, after: &mut ChunkId) -> GcStep {
    let ms = |time: Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
    let config = &state.config;
    let delay_ms = ms(config.gc_delay);
    let ages = Ages {
        delay_ms,
        straggler_ms: delay_ms.max(ms(config.pending_timeout)),
        absent_ms: ms(ABSENT_MAX).max(delay_ms),
    };
    let (now_ms, wall_ms) = (state.clock.now_ms(), state.clock.wall_ms());
    let namespace = state.namespace();
    let mut cluster = state.cluster();
    cluster.forget_plans(|chunk| namespace.chunk(chunk) == ChunkState::Unfinished);
    let mut last = ChunkId(0);
    let mut seen = 0;
    let tombstones = namespace.tombstones_after(*after).take(SCAN_MAX).inspect(|(chunk, _)| {
        (last, seen) = (*chunk, seen + 1);
    });
    let step = cluster.gc(now_ms, wall_ms, ages, tombstones);
    *after = if seen == SCAN_MAX { last } else { ChunkId(0) };
    step
}

/// Has moved out of the way what the namespace has not known for as long as an unfinished file may last.
fn quarantine_orphans(state: &State) {
    let age = state.config.gc_delay.max(state.config.pending_timeout);
    let age_ms = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
    let orders = {
        let (now_ms, namespace) = (state.clock.now_ms(), state.namespace());
        let is_unknown = |chunk| namespace.chunk(chunk) == ChunkState::Unknown;
        state.cluster().orphans(now_ms, age_ms, is_unknown)
    };
    for (session, orphans) in orders {
        tracing::warn!(count = orphans.len(), "replicas that nobody knows are moved to quarantine");
        let quarantine = orphans.iter().map(|(chunk, generation)| order(*chunk, *generation)).collect();
        state.order(session, v1::Orders { quarantine, ..v1::Orders::default() });
    }
}

/// Whoever gets no order hears of the durable LSN all the same,
/// as a witness against a master that comes back with an older log.
fn send(state: &State, step: &GcStep, told: &mut Lsn) {
    for (session, orders) in step.messages() {
        let delete = orders.iter().map(|(chunk, generation)| order(*chunk, *generation)).collect();
        state.order(session, v1::Orders { delete, ..v1::Orders::default() });
    }
    let durable = state.durable();
    if *told < durable {
        *told = durable;
        for sender in state.sessions().values() {
            let nothing = v1::to_datanode::Body::Orders(v1::Orders::default());
            let _ = sender.try_send(Ok(state.to_datanode(nothing)));
        }
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
