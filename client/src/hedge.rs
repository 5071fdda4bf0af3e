//! When a second replica is asked before the first has answered, and how often at most. Pure. The idea is that of
//! hedged requests (Dean, Barroso: The Tail at Scale, 2013).
//!
//! - A read waits for its first frame as long as 95 of 100 reads of its class did of late; then another replica is
//!   asked, and whoever answers first delivers.
//! - At most one in twenty reads is hedged; when a node says that it is busy, none is for a while: a cluster that is
//!   saturated is not helped by more requests.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Reads up to this many bytes are one class, larger ones the other: their first frames differ in size.
const SMALL_BYTES_MAX: u32 = 64 << 10;
/// Times that are remembered of a class.
const TIMES_MAX: usize = 256;
/// With fewer times nothing is known yet.
const TIMES_MIN: usize = 20;
/// While nothing is known, a read waits for so long.
const FIRST_DELAY: Duration = Duration::from_millis(200);
/// No read is hedged sooner.
const DELAY_MIN: Duration = Duration::from_millis(2);
/// The 95th of 100 is worked out again when this part of the times is new.
const REFRESH_PART: usize = 4;
/// Each read earns this part of a hedge.
const READS_PER_HEDGE: u32 = 20;
/// Hedges that can be saved up; the first is free.
const SAVED_HEDGES_MAX: u32 = 8;
/// After a busy answer nothing is hedged for so long.
const BUSY_REST: Duration = Duration::from_secs(5);

#[derive(Debug)]
struct Class {
    times: VecDeque<Duration>,
    since_refresh: usize,
    delay: Duration,
}

#[derive(Debug)]
struct State {
    classes: [Class; 2],
    /// In parts of a hedge.
    saved: u32,
    busy_until: Duration,
    reads: u64,
    hedges: u64,
}

/// What the reads of one client have seen; shared by all of them. Times are since any moment, the same for all.
#[derive(Debug)]
pub(crate) struct Hedge(Mutex<State>);

impl Default for Hedge {
    fn default() -> Self {
        let class = || Class { times: VecDeque::new(), since_refresh: 0, delay: FIRST_DELAY };
        let state = State {
            classes: [class(), class()],
            saved: READS_PER_HEDGE,
            busy_until: Duration::ZERO,
            reads: 0,
            hedges: 0,
        };
        Self(Mutex::new(state))
    }
}

fn class_of(bytes: u32) -> usize {
    usize::from(bytes > SMALL_BYTES_MAX)
}

impl Hedge {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A read of so many bytes begins: how long to wait before a second replica is asked.
    pub(crate) fn begin(&self, bytes: u32) -> Duration {
        let mut state = self.state();
        state.reads += 1;
        state.saved = (state.saved + 1).min(SAVED_HEDGES_MAX * READS_PER_HEDGE);
        state.classes[class_of(bytes)].delay
    }

    /// The wait is over: whether another replica may be asked.
    pub(crate) fn allows(&self, now: Duration) -> bool {
        let mut state = self.state();
        if state.saved < READS_PER_HEDGE || now < state.busy_until {
            return false;
        }
        state.saved -= READS_PER_HEDGE;
        state.hedges += 1;
        true
    }

    /// The first frame of a read came after so long.
    pub(crate) fn answered(&self, bytes: u32, took: Duration) {
        let mut state = self.state();
        let class = &mut state.classes[class_of(bytes)];
        if class.times.len() >= TIMES_MAX {
            class.times.pop_front();
        }
        class.times.push_back(took);
        class.since_refresh += 1;
        if class.times.len() >= TIMES_MIN && class.since_refresh * REFRESH_PART >= class.times.len() {
            class.since_refresh = 0;
            let mut times: Vec<Duration> = class.times.iter().copied().collect();
            let at = times.len() * 95 / 100;
            class.delay = (*times.select_nth_unstable(at).1).max(DELAY_MIN);
        }
    }

    /// A node said that it is busy.
    pub(crate) fn busy(&self, now: Duration) {
        self.state().busy_until = now + BUSY_REST;
    }

    /// Reads, and how many of them were hedged.
    pub(crate) fn counts(&self) -> (u64, u64) {
        let state = self.state();
        (state.reads, state.hedges)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn the_delay_is_what_most_reads_of_the_class_took() {
        let hedge = Hedge::default();
        assert_eq!(hedge.begin(100), FIRST_DELAY, "nothing is known");
        for at in 0..100 {
            hedge.answered(100, ms(if at % 10 == 9 { 500 } else { 10 }));
        }
        assert_eq!(hedge.begin(SMALL_BYTES_MAX), ms(500), "more than the slowest twentieth");
        for _ in 0..400 {
            hedge.answered(100, ms(10));
        }
        assert_eq!(hedge.begin(100), ms(10));
        assert_eq!(hedge.begin(SMALL_BYTES_MAX + 1), FIRST_DELAY, "the other class has no times");
        for _ in 0..400 {
            hedge.answered(100, ms(0));
        }
        assert_eq!(hedge.begin(100), DELAY_MIN);
    }

    #[test]
    fn one_read_in_twenty_is_hedged_at_most() {
        let hedge = Hedge::default();
        let mut hedges = 0;
        for _ in 0..1000 {
            hedge.begin(1);
            hedges += u32::from(hedge.allows(ms(0)));
        }
        assert_eq!(hedges, 1000 / READS_PER_HEDGE + 1, "and the first one");
        assert_eq!(hedge.counts(), (1000, u64::from(hedges)));
        for _ in 0..10_000 {
            hedge.begin(1);
        }
        let saved = (0..100).filter(|_| hedge.allows(ms(0))).count();
        assert_eq!(saved, SAVED_HEDGES_MAX as usize);
    }

    #[test]
    fn a_busy_cluster_gets_no_second_requests() {
        let hedge = Hedge::default();
        hedge.begin(1);
        hedge.busy(ms(1000));
        assert!(!hedge.allows(ms(5999)));
        assert!(hedge.allows(ms(6000)));
    }
}
