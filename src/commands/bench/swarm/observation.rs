//! What clients and operators see of the main master while nodes fail, return, or the master itself restarts.

use std::time::Duration;

use distrifs_master::bench_support::planted_path;
use distrifs_proto::SplitMix;
use distrifs_proto::grpc::v1;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::closed_loop::{Calls, Lanes, run_until};
use super::fleet::Fleet;
use super::metrics::Scrape;
use super::namespace_calls::NamespaceCalls;
use crate::error::CommandError;

/// Clients that stat files, and that make directories, meanwhile.
const STAT_LANES: u64 = 8;
const MKDIR_LANES: u64 = 4;
/// How often the metrics are scraped.
const SCRAPE_INTERVAL: Duration = Duration::from_millis(100);
/// How often the nodes are listed while something is waited for.
const LIST_INTERVAL: Duration = Duration::from_millis(250);
/// Where directories are made.
const MKDIR_ROOT: &str = "/swarm-mkdir";

/// The files that are looked up.
#[derive(Debug, Clone, Copy)]
pub(super) struct StatLoad {
    pub(super) files: u64,
    pub(super) seed: u64,
    /// Stats and mkdirs a second, together; 0: as fast as they go.
    pub(super) rate: f64,
}

impl StatLoad {
    /// The lanes of one kind of call, with their part of the rate.
    fn lanes(self, count: u64) -> Lanes {
        Lanes::at_rate(count, self.rate * count as f64 / (STAT_LANES + MKDIR_LANES) as f64)
    }

    /// Stats one file, chosen by lane and number.
    async fn call(self, calls: NamespaceCalls, lane: u64, number: u64) -> Result<(), CommandError> {
        let chosen = SplitMix::new(self.seed ^ lane << 32 ^ number).next() % self.files;
        calls.stat(lane, planted_path(chosen)).await
    }

    /// Stats files until `until` resolves.
    pub(super) async fn run_until<T>(
        self,
        calls: &NamespaceCalls,
        until: impl Future<Output = T>,
    ) -> Result<(Calls, T), CommandError> {
        let calls = calls.clone();
        run_until(self.lanes(STAT_LANES), move |lane, number| self.call(calls.clone(), lane, number), until)
            .await
    }
}

/// How many nodes the metrics showed as dead.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Deaths {
    /// At most, at any time, beyond those that were down and silent for long enough.
    pub(super) unexpected: u64,
    /// When the first one was seen.
    pub(super) first_seen: Option<Instant>,
}

impl Deaths {
    /// Scrapes the metrics until `until`.
    pub(super) async fn watch(http: &str, fleet: &Fleet, timeout: Duration, until: Instant) -> Self {
        let mut deaths = Self::default();
        let mut ticks = interval(SCRAPE_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while Instant::now() < until {
            ticks.tick().await;
            let scrape = match Scrape::fetch(http).await {
                Ok(scrape) => scrape,
                Err(error) => {
                    tracing::warn!(%error, "a scrape failed");
                    continue;
                }
            };
            let dead = scrape.nodes("dead");
            if dead > 0 {
                deaths.first_seen.get_or_insert_with(Instant::now);
            }
            deaths.unexpected = deaths.unexpected.max(dead.saturating_sub(fleet.may_be_dead(timeout)));
        }
        deaths
    }
}

/// What was seen after some nodes were killed.
pub(super) struct Observation {
    pub(super) stat: Calls,
    pub(super) mkdir: Calls,
    pub(super) deaths: Deaths,
}

/// Measures stats and mkdirs, and watches the metrics meanwhile.
pub(super) async fn observe(
    calls: &NamespaceCalls,
    http: &str,
    fleet: &Fleet,
    stat: StatLoad,
    (timeout, watch): (Duration, Duration),
) -> Result<Observation, CommandError> {
    let until = Instant::now() + watch;
    let mkdir_calls = calls.clone();
    let mkdir = move |lane: u64, number: u64| {
        let calls = mkdir_calls.clone();
        async move { calls.mkdir(lane, format!("{MKDIR_ROOT}/{lane}-{number}")).await }
    };
    let mkdirs = run_until(stat.lanes(MKDIR_LANES), mkdir, tokio::time::sleep_until(until));
    let stats = stat.run_until(calls, tokio::time::sleep_until(until));
    let deaths = Deaths::watch(http, fleet, timeout, until);
    let (mkdirs, stats, deaths) = tokio::join!(mkdirs, stats, deaths);
    Ok(Observation { stat: stats?.0, mkdir: mkdirs?.0, deaths })
}

/// Makes the directory that [`observe`] works in.
pub(super) async fn prepare(calls: &NamespaceCalls) -> Result<(), CommandError> {
    calls.mkdir(0, MKDIR_ROOT.to_owned()).await
}

/// Waits until the master has the full report of every node that is up.
pub(super) async fn wait_reported(
    calls: &NamespaceCalls,
    fleet: &Fleet,
    within: Duration,
) -> Result<(), CommandError> {
    let deadline = Instant::now() + within;
    // From its registration on, a node counts as reported only by the report of its new session.
    let wanted = fleet.wait_registered(within).await?;
    loop {
        let nodes = calls.nodes().await?;
        let reported = nodes.iter().filter(|node| node.reported && !fleet.is_down(node.node_id)).count();
        if reported as u64 >= wanted {
            return Ok(());
        }
        if Instant::now() >= deadline {
            let text = format!("{reported} of {wanted} datanodes have reported within {within:?}");
            return Err(CommandError::TimedOut(text));
        }
        sleep(LIST_INTERVAL).await;
    }
}

/// Dead nodes by the master's list: those that are down, and others.
pub(super) async fn dead_nodes(calls: &NamespaceCalls, fleet: &Fleet) -> Result<(u64, u64), CommandError> {
    let nodes = calls.nodes().await?;
    let dead = nodes.iter().filter(|node| node.state == v1::NodeState::Dead as i32);
    let (down, others): (Vec<_>, Vec<_>) = dead.partition(|node| fleet.is_down(node.node_id));
    Ok((down.len() as u64, others.len() as u64))
}
