//! Loops of measured calls, closed or at a given rate, that go on through failures until something else has happened.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::commands::bench::load::{Sample, record};
use crate::error::CommandError;

/// Pause after a failed call, so that a master that refuses everything is not flooded.
const ERROR_PAUSE: Duration = Duration::from_millis(10);

/// What the calls of a loop came to.
#[derive(Default)]
pub(super) struct Calls {
    /// Of the calls that succeeded.
    pub(super) sample: Sample,
    /// Calls that failed.
    pub(super) errors: u64,
    /// The first of these.
    pub(super) first_error: Option<CommandError>,
}

impl Calls {
    /// The 99th percentile in milliseconds, corrected for coordinated omission; `None` without a success.
    pub(super) fn p99_ms(&self) -> Option<f64> {
        let times = self.sample.corrected();
        (!times.is_empty()).then(|| times.value_at_quantile(0.99) as f64 / 1e6)
    }

    /// The longest call in milliseconds.
    pub(super) fn max_ms(&self) -> Option<f64> {
        (self.sample.ops > 0).then(|| self.sample.times.max() as f64 / 1e6)
    }

    /// Itself, unless every call failed: then there is nothing to report but why.
    pub(super) fn some_succeeded(self) -> Result<Self, CommandError> {
        match self.first_error {
            Some(error) if self.sample.ops == 0 => Err(error),
            _ => Ok(self),
        }
    }

    fn add(&mut self, other: Self) {
        self.sample.merge(&other.sample, true);
        self.errors += other.errors;
        if self.first_error.is_none() {
            self.first_error = other.first_error;
        }
    }
}

/// Ends the lanes also when the caller is dropped or fails.
struct Stop(Arc<AtomicBool>);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// How many calls are in flight at once, and how often each lane calls.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lanes {
    pub(super) count: u64,
    /// `None`: as soon as the call before has ended.
    pub(super) every: Option<Duration>,
}

impl Lanes {
    /// As fast as it goes.
    pub(super) fn closed(count: u64) -> Self {
        Self { count, every: None }
    }

    /// So many calls a second, all lanes together; 0: as fast as it goes.
    pub(super) fn at_rate(count: u64, rate: f64) -> Self {
        Self { count, every: (rate > 0.0).then(|| Duration::from_secs_f64(count as f64 / rate)) }
    }
}

/// Calls `operation(lane, number)` in each lane, one after the other, until `until` resolves; gives its outcome, too. At a
/// rate, times count from the moment at which a call was meant to begin, so that one that is late delays no other.
pub(super) async fn run_until<F, T>(
    lanes: Lanes,
    operation: impl Fn(u64, u64) -> F + Clone + Send + 'static,
    until: impl Future<Output = T>,
) -> Result<(Calls, T), CommandError>
where
    F: Future<Output = Result<(), CommandError>> + Send,
{
    let stop = Stop(Arc::new(AtomicBool::new(false)));
    let mut running = JoinSet::new();
    let began = Instant::now();
    for lane in 0..lanes.count {
        let (operation, stop) = (operation.clone(), stop.0.clone());
        running.spawn(async move {
            let mut calls = Calls::default();
            let mut number = 0;
            // Lanes take turns.
            let first =
                lanes.every.map_or(Duration::ZERO, |every| every.mul_f64(lane as f64 / lanes.count as f64));
            while !stop.load(Ordering::Relaxed) {
                let called = match lanes.every {
                    None => Instant::now(),
                    Some(every) => {
                        let meant = began + first + every.mul_f64(number as f64);
                        tokio::time::sleep_until(meant.into()).await;
                        meant
                    }
                };
                match operation(lane, number).await {
                    Ok(()) => {
                        calls.sample.ops += 1;
                        record(&mut calls.sample.times, called.elapsed());
                    }
                    Err(error) => {
                        calls.errors += 1;
                        calls.first_error.get_or_insert(error);
                        tokio::time::sleep(ERROR_PAUSE).await;
                    }
                }
                number += 1;
            }
            calls
        });
    }
    let outcome = until.await;
    drop(stop);
    let mut calls = Calls::default();
    while let Some(lane) = running.join_next().await {
        calls.add(lane.map_err(|error| CommandError::Check(format!("a load ended abnormally: {error}")))?);
    }
    (calls.sample.seconds, calls.sample.open) = (began.elapsed().as_secs_f64(), lanes.every.is_some());
    Ok((calls, outcome))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn failures_are_counted_and_do_not_end_the_loop() {
        let operation = |_, number: u64| async move {
            tokio::task::yield_now().await;
            match number {
                0 => Err(CommandError::Check("the first one".to_owned())),
                _ => Ok(()),
            }
        };
        let until = async {
            tokio::time::sleep(5 * ERROR_PAUSE).await;
            7
        };
        let (calls, outcome) = run_until(Lanes::closed(3), operation, until).await.expect("done");
        assert_eq!((calls.errors, outcome), (3, 7));
        assert!(calls.sample.ops > 3 && calls.p99_ms().is_some() && calls.max_ms().is_some());
        assert!(calls.some_succeeded().is_ok());
        let refused = |_, _| async { Err(CommandError::Check("no".to_owned())) };
        let (calls, ()) =
            run_until(Lanes::closed(1), refused, tokio::time::sleep(ERROR_PAUSE)).await.expect("done");
        assert_eq!((calls.p99_ms(), calls.max_ms()), (None, None));
        assert!(calls.some_succeeded().is_err());
    }

    #[tokio::test]
    async fn at_a_rate_the_lanes_share_it_and_times_are_those_of_an_open_loop() {
        assert_eq!(Lanes::at_rate(4, 200.0).every, Some(Duration::from_millis(20)));
        assert_eq!(Lanes::at_rate(4, 0.0).every, None);
        let until = tokio::time::sleep(Duration::from_millis(20));
        let (calls, ()) =
            run_until(Lanes::at_rate(2, 1e4), |_, _| async { Ok(()) }, until).await.expect("done");
        assert!(calls.sample.open && calls.sample.ops > 0);
    }
}
