//! Small files that are put and removed at once at full speed: does garbage collection keep up?

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use distrifs_proto::limits::GRANTS_PER_CALL_MAX;
use tokio::time::{Instant, sleep};

use super::closed_loop::{Lanes, run_until};
use super::fleet::{Fleet, Shared};
use super::master_process::MasterProcess;
use super::namespace_calls::NamespaceCalls;
use crate::error::CommandError;

const TOMBSTONES: &str = "distrifs_namespace_tombstones";

/// What was done in the measured span.
pub(super) struct DeleteRates {
    /// Files put a second; each is removed at once.
    pub(super) creates_per_s: f64,
    /// Tombstones of removed files that were forgotten a second, since all their replicas are gone.
    pub(super) deletes_per_s: f64,
    /// Calls that failed.
    pub(super) errors: u64,
}

/// Files put and removed so far.
#[derive(Debug, Default)]
struct Counts {
    put: AtomicU64,
    removed: AtomicU64,
}

/// A look at the master in the middle of the load.
#[derive(Debug, Clone, Copy)]
struct Look {
    at: Instant,
    put: u64,
    removed: u64,
    tombstones: f64,
}

impl Look {
    async fn take(master: &MasterProcess, counts: &Counts) -> Result<Self, CommandError> {
        let scrape = master.scrape().await?;
        let tombstones = scrape.value(TOMBSTONES);
        let tombstones =
            tombstones.ok_or_else(|| CommandError::Check(format!("the master exports no {TOMBSTONES}")))?;
        let count = |of: &AtomicU64| of.load(Ordering::Relaxed);
        Ok(Self { at: Instant::now(), put: count(&counts.put), removed: count(&counts.removed), tombstones })
    }

    /// Each removal makes a tombstone; those that the master has not more of at the end were forgotten.
    fn rates(self, end: Self) -> (f64, f64) {
        let seconds = (end.at - self.at).as_secs_f64().max(1e-9);
        let made = (end.removed - self.removed) as f64;
        let deleted = (made - (end.tombstones - self.tombstones)).max(0.0);
        ((end.put - self.put) as f64 / seconds, deleted / seconds)
    }
}

/// Loads the master, whose namespace must be empty, for four windows, and measures the last three: in the first one
/// what is removed is still protected by the gc delay.
pub(super) async fn measure(
    master: &MasterProcess,
    calls: &NamespaceCalls,
    fleet: &Fleet,
    lanes: u64,
    window: Duration,
) -> Result<DeleteRates, CommandError> {
    for lane in 0..lanes {
        calls.mkdir(lane, directory(lane)).await?;
    }
    let counts = Arc::new(Counts::default());
    let batch = {
        let (calls, nodes, counts) = (calls.clone(), fleet.shared(), counts.clone());
        move |lane: u64, number: u64| {
            let (calls, nodes, counts) = (calls.clone(), nodes.clone(), counts.clone());
            async move { put_and_remove(&calls, &nodes, &counts, lane, number).await }
        }
    };
    let looks = async {
        sleep(window).await;
        let begin = Look::take(master, &counts).await?;
        sleep(3 * window).await;
        Ok::<_, CommandError>((begin, Look::take(master, &counts).await?))
    };
    let (done, looks) = run_until(Lanes::closed(lanes), batch, looks).await?;
    let done = done.some_succeeded()?;
    let (begin, end) = looks?;
    let (creates_per_s, deletes_per_s) = begin.rates(end);
    Ok(DeleteRates { creates_per_s, deletes_per_s, errors: done.errors })
}

fn directory(lane: u64) -> String {
    format!("/deletes-{lane}")
}

/// As many files as one grant allows: written to the planned nodes, put, removed.
async fn put_and_remove(
    calls: &NamespaceCalls,
    nodes: &Shared,
    counts: &Counts,
    lane: u64,
    number: u64,
) -> Result<(), CommandError> {
    let path = format!("{}/{number}", directory(lane));
    let granted = calls.grant(lane, &path, GRANTS_PER_CALL_MAX).await?;
    for plan in granted.plans {
        for hop in &plan.hops {
            nodes.store(hop.node_id, plan.chunk_id).await;
        }
        calls.put(lane, &path, granted.epoch, plan).await?;
        counts.put.fetch_add(1, Ordering::Relaxed);
        calls.remove(lane, &path).await?;
        counts.removed.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_removed_and_not_left_as_a_tombstone_was_deleted() {
        let at = Instant::now();
        let begin = Look { at, put: 100, removed: 90, tombstones: 50.0 };
        for (removed, tombstones, deletes) in
            [(290, 50.0, 20.0), (290, 250.0, 0.0), (290, 150.0, 10.0), (290, 0.0, 25.0), (90, 60.0, 0.0)]
        {
            let end = Look { at: at + Duration::from_secs(10), put: 300, removed, tombstones };
            assert_eq!(begin.rates(end), (20.0, deletes));
        }
    }
}
