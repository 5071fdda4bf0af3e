//! A closed loop of measured calls that goes on through failures, until something else has happened.

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

/// Calls `operation(lane, number)` in each of `lanes` lanes, one after the other, until `until` resolves; gives its
/// outcome, too.
pub(super) async fn run_until<F, T>(
    lanes: u64,
    operation: impl Fn(u64, u64) -> F + Clone + Send + 'static,
    until: impl Future<Output = T>,
) -> Result<(Calls, T), CommandError>
where
    F: Future<Output = Result<(), CommandError>> + Send,
{
    let stop = Stop(Arc::new(AtomicBool::new(false)));
    let mut running = JoinSet::new();
    let began = Instant::now();
    for lane in 0..lanes {
        let (operation, stop) = (operation.clone(), stop.0.clone());
        running.spawn(async move {
            let mut calls = Calls::default();
            let mut number = 0;
            while !stop.load(Ordering::Relaxed) {
                let called = Instant::now();
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
    calls.sample.seconds = began.elapsed().as_secs_f64();
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
        let (calls, outcome) = run_until(3, operation, until).await.expect("done");
        assert_eq!((calls.errors, outcome), (3, 7));
        assert!(calls.sample.ops > 3 && calls.p99_ms().is_some() && calls.max_ms().is_some());
        assert!(calls.some_succeeded().is_ok());
        let refused = |_, _| async { Err(CommandError::Check("no".to_owned())) };
        let (calls, ()) = run_until(1, refused, tokio::time::sleep(ERROR_PAUSE)).await.expect("done");
        assert_eq!((calls.p99_ms(), calls.max_ms()), (None, None));
        assert!(calls.some_succeeded().is_err());
    }
}
