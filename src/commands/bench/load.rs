//! A closed load: so many operations in flight, each followed by the next.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use hdrhistogram::Histogram;
use tokio::task::JoinSet;

use crate::error::CommandError;

/// What a load did.
pub(super) struct Sample {
    /// Operations.
    pub(super) ops: u64,
    /// From the first to the last.
    pub(super) seconds: f64,
    /// Of each, in nanoseconds.
    pub(super) times: Histogram<u64>,
}

impl Default for Sample {
    fn default() -> Self {
        Self { ops: 0, seconds: 0.0, times: histogram() }
    }
}

impl Sample {
    /// One more operation, which ended now.
    pub(super) fn add(&mut self, began: Instant) {
        self.ops += 1;
        self.seconds += began.elapsed().as_secs_f64();
        record(&mut self.times, began);
    }

    /// Operations per second.
    pub(super) fn rate(&self) -> f64 {
        self.ops as f64 / self.seconds.max(1e-9)
    }
}

/// Nanoseconds up to a minute, three digits.
pub(super) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("constant bounds")
}

/// Keeps the time since `began`.
pub(super) fn record(times: &mut Histogram<u64>, began: Instant) {
    times.saturating_record(u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX));
}

/// Runs the operations 0..`ops`, `clients` in flight. The first failure ends it.
pub(super) async fn run<F>(
    clients: u64,
    ops: u64,
    operation: impl Fn(u64, u64) -> F + Clone + Send + 'static,
) -> Result<Sample, CommandError>
where
    F: Future<Output = Result<(), CommandError>> + Send,
{
    let next = Arc::new(AtomicU64::new(0));
    let mut lanes = JoinSet::new();
    let began = Instant::now();
    for lane in 0..clients.min(ops) {
        let (next, operation) = (next.clone(), operation.clone());
        lanes.spawn(async move {
            let mut times = histogram();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= ops {
                    return Ok::<_, CommandError>(times);
                }
                let began = Instant::now();
                operation(lane, number).await?;
                record(&mut times, began);
            }
        });
    }
    let mut times = histogram();
    while let Some(lane) = lanes.join_next().await {
        let of_lane =
            lane.map_err(|error| CommandError::Check(format!("a load ended abnormally: {error}")))?;
        times.add(of_lane?).map_err(|error| CommandError::Check(error.to_string()))?;
    }
    Ok(Sample { ops, seconds: began.elapsed().as_secs_f64(), times })
}
