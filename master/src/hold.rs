//! Lock holds, measured: how long each hold of a shared lock lasts and how many items it looks at.
//!
//! Heartbeats, reads and mutations wait for these locks, so each hold must be bounded whatever the number of nodes, files
//! or replicas. Two figures per lock make that visible: the longest hold in wall time, which also contains the time in
//! which the holding thread was preempted, and the most *items* of one hold: nodes, chunks, replicas or tombstones that
//! were looked at, as counted by [`count`] where they are looked at. The second does not depend on the machine, so tests
//! assert on it.

use std::cell::Cell;
use std::ops::{Deref, DerefMut};
use std::panic::Location;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// No hold looks at more items, however large the cluster is: less than a millisecond's work. What drivers look at in one
/// slice is chosen so that it keeps to this, and tests assert on it.
#[cfg(test)]
pub(crate) const ITEMS_PER_HOLD_MAX: u64 = 1024;
/// Of one hold in so many the processor time is taken, too: that costs two system calls.
const CPU_EVERY: u32 = 16;
/// Holds are counted by these times: the bound that is aimed at, and what is beyond it.
pub(crate) const BUCKETS: [Duration; 4] = [
    Duration::from_millis(1),
    Duration::from_millis(5),
    Duration::from_millis(25),
    Duration::from_millis(100),
];

/// A hold beyond this is logged, for those who look for the reason.
const LOGGED: Duration = BUCKETS[1];

thread_local! {
    /// Items looked at by this thread; holds take differences.
    static ITEMS: Cell<u64> = const { Cell::new(0) };
    /// Holds of this thread, to choose those whose processor time is taken.
    static HOLDS: Cell<u32> = const { Cell::new(0) };
}

/// The processor time of this thread, of one hold in [`CPU_EVERY`].
fn cpu_of_some() -> Option<Duration> {
    let number = HOLDS.with(|holds| holds.replace(holds.get().wrapping_add(1)));
    number.is_multiple_of(CPU_EVERY).then(cpu)
}

fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

/// `items` nodes, chunks, replicas or tombstones were looked at.
pub(crate) fn count(items: u64) {
    ITEMS.with(|all| all.set(all.get().wrapping_add(items)));
}

/// Items looked at by this thread so far.
pub(crate) fn counted() -> u64 {
    ITEMS.with(Cell::get)
}

/// What is known of the holds of one lock since the start.
#[derive(Debug, Default)]
pub(crate) struct HoldStats {
    holds: AtomicU64,
    /// Beyond each of [`BUCKETS`].
    beyond: [AtomicU64; BUCKETS.len()],
    nanos: AtomicU64,
    nanos_max: AtomicU64,
    cpu_nanos_max: AtomicU64,
    items: AtomicU64,
    items_max: AtomicU64,
}

/// A copy of [`HoldStats`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Holds {
    /// Holds.
    pub(crate) holds: u64,
    /// Those beyond each of [`BUCKETS`].
    pub(crate) beyond: [u64; BUCKETS.len()],
    /// Nanoseconds of all of them.
    pub(crate) nanos: u64,
    /// Nanoseconds of the longest.
    pub(crate) nanos_max: u64,
    /// Nanoseconds of processor time of the longest of those whose processor time was taken, one in 16. The rest of the
    /// longest hold is time in which its thread did not run.
    pub(crate) cpu_nanos_max: u64,
    /// Items of all of them.
    pub(crate) items: u64,
    /// Items of the one with most.
    pub(crate) items_max: u64,
}

impl HoldStats {
    /// Wraps a guard that was just taken.
    #[track_caller]
    pub(crate) fn held<G>(&self, guard: G) -> Held<'_, G> {
        Held {
            guard,
            since: Instant::now(),
            cpu: cpu_of_some(),
            items: counted(),
            stats: self,
            taken_at: Location::caller(),
        }
    }

    /// The figures now.
    pub(crate) fn read(&self) -> Holds {
        let get = |of: &AtomicU64| of.load(Ordering::Relaxed);
        Holds {
            holds: get(&self.holds),
            beyond: std::array::from_fn(|at| get(&self.beyond[at])),
            nanos: get(&self.nanos),
            nanos_max: get(&self.nanos_max),
            cpu_nanos_max: get(&self.cpu_nanos_max),
            items: get(&self.items),
            items_max: get(&self.items_max),
        }
    }

    fn record(&self, took: Duration, cpu: Option<Duration>, items: u64) {
        let nanos = nanos_of(took);
        if let Some(cpu) = cpu {
            self.cpu_nanos_max.fetch_max(nanos_of(cpu), Ordering::Relaxed);
        }
        self.holds.fetch_add(1, Ordering::Relaxed);
        self.nanos.fetch_add(nanos, Ordering::Relaxed);
        self.items.fetch_add(items, Ordering::Relaxed);
        for (_, beyond) in BUCKETS.iter().zip(&self.beyond).take_while(|(limit, _)| took > **limit) {
            beyond.fetch_add(1, Ordering::Relaxed);
        }
        // A plain load first: nearly no hold is the longest, and the line stays shared between the processors.
        if nanos > self.nanos_max.load(Ordering::Relaxed) {
            self.nanos_max.fetch_max(nanos, Ordering::Relaxed);
        }
        if items > self.items_max.load(Ordering::Relaxed) {
            self.items_max.fetch_max(items, Ordering::Relaxed);
        }
    }
}

fn nanos_of(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// A guard that records its hold when it is dropped. It must not live across an await, as no lock guard may.
#[derive(Debug)]
pub(crate) struct Held<'a, G> {
    guard: G,
    since: Instant,
    cpu: Option<Duration>,
    items: u64,
    stats: &'a HoldStats,
    taken_at: &'static Location<'static>,
}

impl<G: Deref> Deref for Held<'_, G> {
    type Target = G::Target;

    fn deref(&self) -> &G::Target {
        &self.guard
    }
}

impl<G: DerefMut> DerefMut for Held<'_, G> {
    fn deref_mut(&mut self) -> &mut G::Target {
        &mut self.guard
    }
}

impl<G> Drop for Held<'_, G> {
    fn drop(&mut self) {
        let used = self.cpu.map(|before| cpu().saturating_sub(before));
        let (took, items) = (self.since.elapsed(), counted().wrapping_sub(self.items));
        self.stats.record(took, used, items);
        if took > LOGGED {
            tracing::debug!(taken_at = %self.taken_at, ?took, cpu = ?used, items, "a lock was held for long");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn a_hold_records_the_items_of_its_own_thread() {
        let (stats, lock) = (HoldStats::default(), Mutex::new(0));
        count(5);
        for items in [3, 7, 2] {
            let mut held = stats.held(lock.lock().expect("not poisoned"));
            *held += items;
            count(items);
            std::thread::spawn(|| count(100)).join().expect("counted");
        }
        count(9);
        let holds = stats.read();
        assert_eq!((holds.holds, holds.items, holds.items_max), (3, 12, 7));
        assert!(holds.nanos_max > 0 && holds.nanos >= holds.nanos_max);
        assert_eq!(*lock.lock().expect("not poisoned"), 12);
    }

    #[test]
    fn long_holds_are_counted() {
        let stats = HoldStats::default();
        stats.record(BUCKETS[0], Some(Duration::from_nanos(7)), 0);
        stats.record(BUCKETS[0] + Duration::from_nanos(1), None, 0);
        stats.record(BUCKETS[2] + Duration::from_nanos(1), None, 0);
        let holds = stats.read();
        assert_eq!((holds.beyond, holds.nanos_max, holds.cpu_nanos_max), ([2, 1, 1, 0], 25_000_001, 7));
    }
}
