//! Watches the datanodes' deadlines, and whether this master itself listens.
//!
//! A master that was paused, swapped out or starved of processor time has heard no heartbeat meanwhile. It sees that by its
//! own ticks, which came late, and then counts the silence of datanodes from now on: none is declared dead before a full
//! timeout of undisturbed listening has passed.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use crate::state::State;

/// The longest and the shortest time between two looks.
const LOOK_MAX: Duration = Duration::from_millis(100);
const LOOK_MIN: Duration = Duration::from_millis(5);
/// A look that comes later than by this part of what a heartbeat may be late is a stall.
const STALL_SHARE: u32 = 4;
/// Chance alone delays a task of a busy machine by as much.
const STALL_MIN: Duration = Duration::from_millis(100);

/// Looks until `stop` turns true.
pub(crate) async fn run(state: Arc<State>, mut stop: watch::Receiver<bool>) {
    let (interval, timeout) = (state.config.heartbeat_interval, state.config.heartbeat_timeout);
    let look = (interval / 4).clamp(LOOK_MIN, LOOK_MAX);
    let stall = look + (timeout.saturating_sub(interval) / STALL_SHARE).max(STALL_MIN);
    let mut ticks = tokio::time::interval(look);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last_ms = state.clock.now_ms();
    let mut deaths = 0;
    loop {
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            _ = ticks.tick() => {}
        }
        let now_ms = state.clock.now_ms();
        let since = Duration::from_millis(now_ms.saturating_sub(last_ms));
        if since > stall {
            tracing::warn!(?since, "this master did not listen: silence of datanodes counts from now on");
            state.cluster().stalled(now_ms);
        }
        // The locks that it waits for belong to what is watched: a hold that lasts delays the next look.
        while state.cluster().advance(now_ms) {
            tokio::task::yield_now().await;
        }
        let sums = state.cluster().sums();
        if sums.deaths != deaths {
            tracing::warn!(
                declared = sums.deaths - deaths,
                dead = sums.dead,
                live = sums.live,
                suspect = sums.suspect,
                "datanodes declared dead"
            );
            deaths = sums.deaths;
            state.wake_repair();
        }
        last_ms = now_ms;
    }
}
