//! A load: so many operations in flight, each followed by the next, at once or at its time.
//!
//! Closed loop: an operation begins when the one before it in its lane has ended, so that a server that stands still is
//! asked less and a pause counts once. Open loop (`--rate`): operation `n` is meant to begin at `n / rate`, and its time
//! counts from there whoever kept it waiting.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::error::CommandError;

/// When a load ends.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Limit {
    /// After so many operations.
    Ops(u64),
    /// When this time is over; what was begun is ended.
    Time(Duration),
}

/// How operations follow each other.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Pace {
    /// In flight at most.
    pub(super) clients: u64,
    /// When it ends.
    pub(super) limit: Limit,
    /// Open loop: so many are meant to begin in a second.
    pub(super) rate: Option<f64>,
}

impl Pace {
    /// So many operations, one after the other in each lane.
    pub(super) fn closed(clients: u64, ops: u64) -> Self {
        Self { clients, limit: Limit::Ops(ops), rate: None }
    }

    /// How many operations there will be, where that is known. An open loop does all that were meant to begin,
    /// however long that takes.
    pub(super) fn ops(&self) -> Option<u64> {
        match (self.limit, self.rate) {
            (Limit::Ops(ops), _) => Some(ops),
            (Limit::Time(time), Some(rate)) => Some(((time.as_secs_f64() * rate) as u64).max(1)),
            (Limit::Time(_), None) => None,
        }
    }
}

/// What a load did.
pub(super) struct Sample {
    /// Operations.
    pub(super) ops: u64,
    /// From the first to the last.
    pub(super) seconds: f64,
    /// Of each, in nanoseconds.
    pub(super) times: Histogram<u64>,
    /// Times count from the intended starts.
    pub(super) open: bool,
    /// What the slowest client did in a second as a share of what the fastest did, where each has its own pace.
    pub(super) fairness: Option<f64>,
}

impl Default for Sample {
    fn default() -> Self {
        Self { ops: 0, seconds: 0.0, times: histogram(), open: false, fairness: None }
    }
}

impl Sample {
    /// One more operation, which ended now.
    pub(super) fn add(&mut self, began: Instant) {
        self.ops += 1;
        let took = began.elapsed();
        self.seconds += took.as_secs_f64();
        record(&mut self.times, took);
    }

    /// Another part of the same load: its time comes behind, or is the same with `beside`.
    pub(super) fn merge(&mut self, other: &Self, beside: bool) {
        self.ops += other.ops;
        self.seconds = if beside { self.seconds.max(other.seconds) } else { self.seconds + other.seconds };
        self.open |= other.open;
        self.fairness =
            self.fairness.map_or(other.fairness, |own| Some(own.min(other.fairness.unwrap_or(own))));
        // The bounds are the same: nothing can be refused.
        let _ = self.times.add(&other.times);
    }

    /// Operations per second.
    pub(super) fn rate(&self) -> f64 {
        rate(self.ops, Duration::from_secs_f64(self.seconds))
    }

    /// The times as someone who asks at a steady pace would have seen them. An open loop has measured just that; for a
    /// closed one, an operation that took longer than the mean stands for all that would have been asked meanwhile.
    pub(super) fn corrected(&self) -> Histogram<u64> {
        if self.open || self.times.is_empty() {
            return self.times.clone();
        }
        self.times.clone_correct((self.times.mean() as u64).max(1))
    }
}

/// Nanoseconds up to a minute, three digits.
pub(super) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("constant bounds")
}

/// Keeps a time.
pub(super) fn record(times: &mut Histogram<u64>, took: Duration) {
    times.saturating_record(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
}

/// Runs operations of one kind. The first failure ends it.
pub(super) async fn run<F>(
    pace: &Pace,
    operation: impl Fn(u64, u64) -> F + Clone + Send + 'static,
) -> Result<Sample, CommandError>
where
    F: Future<Output = Result<(), CommandError>> + Send,
{
    let one_kind = move |lane, number| {
        let done = operation(lane, number);
        async move { done.await.map(|()| 0) }
    };
    let [sample] = run_kinds::<1, _>(pace, one_kind).await?;
    Ok(sample)
}

/// Runs operations, each of which says in the end of which of `KINDS` it was; numbers count from 0 without a gap. The
/// first failure ends it.
pub(super) async fn run_kinds<const KINDS: usize, F>(
    pace: &Pace,
    operation: impl Fn(u64, u64) -> F + Clone + Send + 'static,
) -> Result<[Sample; KINDS], CommandError>
where
    F: Future<Output = Result<usize, CommandError>> + Send,
{
    let turns = Arc::new(Turns::new(pace));
    let mut lanes = JoinSet::new();
    for lane in 0..pace.clients.min(turns.ops.unwrap_or(u64::MAX)) {
        let (turns, operation) = (turns.clone(), operation.clone());
        lanes.spawn(async move {
            let mut times: [Histogram<u64>; KINDS] = std::array::from_fn(|_| histogram());
            let (mut ops, mut last) = (0, turns.began);
            while let Some((number, began)) = turns.next().await {
                let kind = operation(lane, number).await?;
                (ops, last) = (ops + 1, Instant::now());
                record(&mut times[kind], last - began);
            }
            Ok::<_, CommandError>((times, rate(ops, last - turns.began)))
        });
    }
    let mut samples: [Sample; KINDS] = std::array::from_fn(|_| Sample::default());
    let mut rates = Vec::new();
    while let Some(lane) = lanes.join_next().await {
        let of_lane =
            lane.map_err(|error| CommandError::Check(format!("a load ended abnormally: {error}")))?;
        let (times, rate) = of_lane?;
        rates.push(rate);
        for (sample, times) in samples.iter_mut().zip(times) {
            sample.merge(&Sample { ops: times.len(), times, ..Sample::default() }, true);
        }
    }
    let seconds = turns.began.elapsed().as_secs_f64();
    for sample in &mut samples {
        (sample.seconds, sample.open) = (seconds, pace.rate.is_some());
        sample.fairness = fairness(&rates).filter(|_| pace.rate.is_none());
    }
    Ok(samples)
}

fn rate(ops: u64, time: Duration) -> f64 {
    ops as f64 / time.as_secs_f64().max(1e-9)
}

/// The slowest as a share of the fastest; one alone is compared with nobody.
fn fairness(rates: &[f64]) -> Option<f64> {
    let (least, most) =
        rates.iter().fold((f64::MAX, 0.0_f64), |(least, most), rate| (least.min(*rate), most.max(*rate)));
    (rates.len() > 1 && most > 0.0).then(|| least / most)
}

/// Who does what next, and since when it counts.
struct Turns {
    began: Instant,
    until: Option<Instant>,
    ops: Option<u64>,
    next: AtomicU64,
    /// Open loop: a permit for each operation whose time has come.
    due: Option<(Arc<Semaphore>, f64)>,
}

impl Turns {
    fn new(pace: &Pace) -> Self {
        let (began, ops) = (Instant::now(), pace.ops());
        let until = match pace.limit {
            Limit::Time(time) if ops.is_none() => Some(began + time),
            _ => None,
        };
        let due = pace.rate.map(|rate| (keep_time(began, rate, ops.unwrap_or_default()), rate));
        Self { began, until, ops, next: AtomicU64::new(0), due }
    }

    /// The next number, and from when on its time counts.
    async fn next(&self) -> Option<(u64, Instant)> {
        let now = Instant::now();
        if self.until.is_some_and(|until| now >= until) {
            return None;
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        if self.ops.is_some_and(|ops| number >= ops) {
            return None;
        }
        let Some((due, rate)) = &self.due else { return Some((number, now)) };
        due.acquire().await.ok()?.forget();
        Some((number, self.began + intended(number, *rate)))
    }
}

/// When an operation of an open loop is meant to begin.
fn intended(number: u64, rate: f64) -> Duration {
    Duration::from_secs_f64(number as f64 / rate)
}

/// A permit at each intended start. A thread of its own: tokio's timer knows milliseconds only.
fn keep_time(began: Instant, rate: f64, ops: u64) -> Arc<Semaphore> {
    let due = Arc::new(Semaphore::new(0));
    let weak = Arc::downgrade(&due);
    std::thread::spawn(move || {
        for number in 0..ops {
            std::thread::sleep((began + intended(number, rate)).saturating_duration_since(Instant::now()));
            // Nobody waits any more when the load was given up.
            let Some(due) = weak.upgrade() else { return };
            due.add_permits(1);
        }
    });
    due
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_counts_for_all_who_would_have_asked_meanwhile() {
        let mut closed = Sample::default();
        for _ in 0..99 {
            closed.times.record(1_000_000).unwrap();
        }
        closed.times.record(1_000_000_000).unwrap();
        let corrected = closed.corrected();
        // Once a mean of 11 ms from 1 s down to it.
        assert!((180..=200).contains(&corrected.len()), "{}", corrected.len());
        assert!(corrected.value_at_quantile(0.9) > 700_000_000);
        assert_eq!(closed.times.value_at_quantile(0.9) / 100_000, 10);
        let open = Sample { open: true, ..closed };
        assert_eq!(open.corrected().len(), 100);
        assert!(Sample::default().corrected().is_empty());
    }

    #[test]
    fn an_open_loop_begins_at_its_times_and_does_all_of_them() {
        assert_eq!(intended(0, 50.0), Duration::ZERO);
        assert_eq!(intended(25, 50.0), Duration::from_millis(500));
        let pace = |limit, rate| Pace { clients: 1, limit, rate };
        assert_eq!(pace(Limit::Time(Duration::from_secs(3)), Some(50.0)).ops(), Some(150));
        assert_eq!(pace(Limit::Time(Duration::from_secs(3)), None).ops(), None);
        assert_eq!(pace(Limit::Ops(7), Some(50.0)).ops(), Some(7));
    }

    #[test]
    fn the_slowest_client_is_compared_with_the_fastest() {
        for (rates, expected) in [
            (vec![], None),
            (vec![7.0], None),
            (vec![2.0, 4.0, 3.0], Some(0.5)),
            (vec![0.0, 4.0], Some(0.0)),
            (vec![0.0, 0.0], None),
        ] {
            assert_eq!(fairness(&rates), expected, "{rates:?}");
        }
        let of = |fairness| Sample { fairness, ..Sample::default() };
        let mut all = of(None);
        for (next, expected) in
            [(None, None), (Some(0.9), Some(0.9)), (Some(0.5), Some(0.5)), (None, Some(0.5))]
        {
            all.merge(&of(next), false);
            assert_eq!(all.fairness, expected);
        }
    }

    #[tokio::test]
    async fn numbers_have_no_gap_and_kinds_are_told_apart() {
        let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
        let keep = seen.clone();
        let operation = move |_, number: u64| {
            keep.lock().unwrap().push(number);
            async move { Ok(number.is_multiple_of(3).into()) }
        };
        for pace in [Pace::closed(4, 30), Pace { rate: Some(1e6), ..Pace::closed(4, 30) }] {
            let [others, thirds] = run_kinds::<2, _>(&pace, operation.clone()).await.unwrap();
            assert_eq!((others.ops, thirds.ops), (20, 10));
            let mut numbers = std::mem::take(&mut *seen.lock().unwrap());
            numbers.sort_unstable();
            assert_eq!(numbers, (0..30).collect::<Vec<_>>());
        }
        let fails = |_, _| async { Err(CommandError::Check("no".into())) };
        assert!(run(&Pace::closed(2, 5), fails).await.is_err());
    }
}
