//! Takes checkpoints in the background, and lets the log's beginning go behind them.
//!
//! The namespace is locked for one small page at a time; between two pages the thread rests as long as a page
//! took, and it runs at a low priority, so mutations go on. Two checkpoints are kept, and the log from the older
//! one on: a checkpoint that turns out unreadable costs a longer replay and nothing else.
//!
//! The order: the image durable, renamed, read back and verified; older ones removed; then, after proof that this
//! master still leads, the log's segments up to the *older* kept checkpoint.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use distrifs_engine::checkpoint::{CheckpointError, CheckpointFolder, Written};
use distrifs_engine::log::{Log, LogStats};
use distrifs_proto::types::Lsn;
use tokio::sync::{oneshot, watch};

use crate::error::MasterFailure;
use crate::leadership::Leadership;
use crate::namespace::image::{PAGE_BYTES, Snapshot};
use crate::state::State;

/// Checkpoints that are kept.
pub(crate) const KEPT: usize = 2;
/// How often it is looked whether one is due.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// How long a failed one waits before the next attempt.
const RETRY_AFTER: Duration = Duration::from_secs(30);
/// The longest rest between two pages.
const REST_MAX: Duration = Duration::from_millis(20);
/// The thread's niceness.
const NICE: i32 = 10;

/// What is known of checkpoints, for the metrics.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct CheckpointStats {
    /// Finished since the start.
    pub(crate) taken: u64,
    /// Failed since the start.
    pub(crate) failed: u64,
    /// The position that the newest one shows.
    pub(crate) lsn: Lsn,
    /// Its length.
    pub(crate) bytes: u64,
    /// How long it took, from the first page until it was verified.
    pub(crate) took: Duration,
}

/// Why a checkpoint was not finished.
#[derive(Debug, thiserror::Error)]
enum Unfinished {
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    #[error(transparent)]
    Deposed(#[from] MasterFailure),
    #[error("cannot start a thread for it: {0}")]
    Thread(std::io::Error),
    #[error("the master is stopping")]
    Stopping,
}

/// Where the last checkpoint left the log.
#[derive(Debug, Clone, Copy)]
struct Last {
    lsn: Lsn,
    /// Of the log, when it was taken.
    bytes: u64,
    /// Appends refused for want of space until then.
    no_space: u64,
}

/// Whether the next one is due. A log without space wants one at once: it is what gives space back.
fn due(last: Last, now: LogStats, applied: Lsn, log_bytes: u64) -> bool {
    let gathered = now.bytes.saturating_sub(last.bytes) >= log_bytes;
    let full = now.no_space > last.no_space;
    applied > last.lsn && (gathered || full)
}

/// Takes checkpoints until `stop` turns true. `from` is the one that the start was built upon.
pub(crate) async fn run(
    state: Arc<State>,
    log: Log,
    leadership: Leadership,
    from: Lsn,
    mut stop: watch::Receiver<bool>,
) {
    let log_bytes = state.config.checkpoint_log_bytes;
    let stats = log.stats();
    let mut last = Last { lsn: from, bytes: stats.bytes, no_space: 0 };
    // What was replayed at this start counts, too: restarts in a row do not let the log grow.
    let mut owed = if stats.kept_bytes >= log_bytes.saturating_mul(2) { log_bytes } else { 0 };
    let mut not_before = Instant::now();
    let mut ticks = tokio::time::interval(LOOK_INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            _ = ticks.tick() => {}
        }
        let (now, applied) = (log.stats(), state.namespace().applied());
        if Instant::now() < not_before || !due(last, now, applied, log_bytes.saturating_sub(owed)) {
            continue;
        }
        let began = Instant::now();
        match take(&state, &leadership, &mut stop).await {
            Ok(written) => {
                owed = 0;
                last = Last { lsn: written.lsn, bytes: now.bytes, no_space: now.no_space };
                let took = began.elapsed();
                tracing::info!(lsn = %written.lsn, bytes = written.bytes, ?took, "checkpoint taken");
                state.checkpoint_taken(&written, took);
                release(&state, &log, &leadership).await;
            }
            Err(Unfinished::Stopping) => return,
            Err(error) => {
                tracing::error!(%error, "no checkpoint was taken: the log grows until one is");
                state.checkpoint_failed();
                not_before = Instant::now() + RETRY_AFTER;
            }
        }
    }
}

/// Takes one on a thread of its own.
async fn take(
    state: &Arc<State>,
    leadership: &Leadership,
    stop: &mut watch::Receiver<bool>,
) -> Result<Written, Unfinished> {
    let (done, result) = oneshot::channel();
    let give_up = Arc::new(AtomicBool::new(false));
    let work = {
        let (state, leadership, give_up) = (state.clone(), leadership.clone(), give_up.clone());
        move || {
            yield_to_others();
            // Nobody waits any more when the master was dropped.
            let _ = done.send(write(&state, &leadership, &give_up));
        }
    };
    let thread = std::thread::Builder::new().name("checkpoint".into()).spawn(work);
    thread.map_err(Unfinished::Thread)?;
    tokio::pin!(result);
    let ended = tokio::select! {
        ended = &mut result => Some(ended),
        _ = stop.wait_for(|stop| *stop) => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            give_up.store(true, Ordering::Relaxed);
            // The thread looks between two pages: the folder is left alone before the lock goes.
            result.await
        }
    };
    ended.unwrap_or(Err(Unfinished::Stopping))
}

/// The bulk of the work may wait; what it holds while the namespace is locked is short.
fn yield_to_others() {
    let thread = rustix::thread::gettid();
    if let Err(error) = rustix::process::setpriority_process(Some(thread), NICE) {
        tracing::debug!(%error, "the checkpoint runs at the usual priority");
    }
}

fn write(state: &State, leadership: &Leadership, give_up: &AtomicBool) -> Result<Written, Unfinished> {
    let folder = CheckpointFolder::open(&state.config.checkpoint_dir())?;
    // Makes room first: an unfinished one of the process before may be in the way on a full disk.
    folder.retain(KEPT, state.epoch)?;
    let mut snapshot = Frozen::begin(state);
    let lsn = snapshot.snapshot.applied();
    let mut writer = folder.create(state.cluster_id, lsn, state.epoch)?;
    let mut page = Vec::with_capacity(2 * PAGE_BYTES);
    loop {
        if give_up.load(Ordering::Relaxed) {
            return Err(Unfinished::Stopping);
        }
        page.clear();
        let began = Instant::now();
        let more = snapshot.page(&mut page);
        let took = began.elapsed();
        if !more {
            break;
        }
        writer.write(&page)?;
        std::thread::sleep(took.min(REST_MAX));
    }
    drop(snapshot);
    leadership.prove()?;
    let written = writer.finish()?;
    folder.retain(KEPT, state.epoch)?;
    Ok(written)
}

/// The snapshot ends with it, however it ends.
struct Frozen<'a> {
    state: &'a State,
    snapshot: Snapshot,
}

impl<'a> Frozen<'a> {
    fn begin(state: &'a State) -> Self {
        let snapshot = state.namespace_mut().freeze();
        Self { state, snapshot }
    }

    fn page(&mut self, out: &mut Vec<u8>) -> bool {
        self.state.namespace_mut().page(&mut self.snapshot, PAGE_BYTES, out)
    }
}

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        // In a statement of its own: the lock is released before what was kept is dropped.
        let kept = self.state.namespace_mut().thaw();
        drop(kept);
    }
}

/// Lets go of the log up to the older of the kept checkpoints.
async fn release(state: &State, log: &Log, leadership: &Leadership) {
    let dir = state.config.checkpoint_dir();
    let listed = tokio::task::spawn_blocking(move || CheckpointFolder::open(&dir)?.list()).await;
    let older = match listed {
        Ok(Ok(listed)) if listed.len() >= KEPT => listed[KEPT - 1].lsn,
        Ok(Ok(_)) => return,
        Ok(Err(error)) => return tracing::warn!(%error, "the log stays as long as it is"),
        Err(error) => return tracing::warn!(%error, "the log stays as long as it is"),
    };
    if let Err(failure) = leadership.prove() {
        // The writer finds out, too, and ends this master.
        return tracing::warn!(%failure, "the log is another's now");
    }
    match log.release(older).await {
        Ok(released) => {
            tracing::info!(upto = %older, segments = released.segments, bytes = released.bytes, "log released");
        }
        Err(error) => tracing::warn!(%error, "the log stays as long as it is"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stats(bytes: u64, no_space: u64) -> LogStats {
        LogStats {
            body: "none",
            appends: 0,
            records: 0,
            groups: 0,
            syncs: 0,
            bytes,
            group_records_max: 0,
            sync_nanos: 0,
            sync_nanos_max: 0,
            segments: 0,
            switch_nanos: 0,
            no_space,
            kept_segments: 0,
            kept_bytes: 0,
            first_lsn: Lsn(1),
        }
    }

    #[test]
    fn one_is_due_when_enough_log_gathered_or_there_is_no_room_for_more() {
        let last = Last { lsn: Lsn(5), bytes: 100, no_space: 1 };
        let cases = [
            ("little log", 150, 1, 9, false),
            ("enough log", 200, 1, 9, true),
            ("enough, but nothing in it", 200, 1, 5, false),
            ("no room", 101, 2, 9, true),
            ("no room, but nothing new", 101, 2, 5, false),
        ];
        for (name, bytes, no_space, applied, expected) in cases {
            assert_eq!(due(last, stats(bytes, no_space), Lsn(applied), 100), expected, "{name}");
        }
    }
}
