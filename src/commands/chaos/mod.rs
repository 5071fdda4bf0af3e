//! `chaos`: faults by chance on a cluster that works, and the proof that nothing acknowledged was lost.

mod lane;
mod ledger;
mod relay;
mod schedule;
mod small_disks;
mod stage;
mod whole;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use clap::Args;
use distrifs_client::{Client, ClientConfig};
use serde::Serialize;

use self::lane::{Done, Lane};
use self::schedule::Schedule;
use self::stage::Stage;
use self::whole::Whole;
use crate::commands::demo::wait_writable;
use crate::context::{Context, system_user};
use crate::error::CommandError;
use crate::options::seconds;
use crate::output::Output;

/// Between two looks whether everything is whole again.
const POLL: Duration = Duration::from_millis(500);
/// Lines of what is wrong that are printed.
const WRONG_TOLD_MAX: usize = 20;

/// Cause faults by chance and prove that nothing acknowledged is lost.
#[derive(Debug, Args)]
#[command(
    after_help = "It starts a cluster of its own in a temporary folder (TMPDIR). Clients put, overwrite, move, copy, read and \
    remove files, while by chance datanodes are killed, paused, cut off, or their data ports alone, or their disks filled \
    (never more than two at once), bytes of replicas turn over or their files go (once in a chunk), and the master \
    that leads is killed or stopped, for another one to take over. Two datanodes have small disks in memory to be filled, where \
    `unshare` may make a mount namespace; elsewhere no disk is filled. What was acknowledged is kept \
    outside the cluster, and compared byte for byte during the run and after it, when all replicas must be there, alike \
    and sound again. With --master it works on that cluster, in a directory of its own below /, without faults.\n\
    The status is 0 only if nothing was lost or wrong and all replicas are back.\n\n\
    Example:\n  distrifs chaos --seed 7 --duration 60"
)]
pub(crate) struct Chaos {
    /// Decides which faults and operations come when
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// For how long, in seconds
    #[arg(long, default_value = "60", value_parser = duration)]
    duration: Duration,
    /// Datanodes of its own cluster
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(5..=16))]
    datanodes: u32,
    /// Clients at once
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=64))]
    clients: u32,
    /// How long all replicas may take to be back afterwards, in seconds
    #[arg(long, default_value = "120", value_parser = duration)]
    settle: Duration,
    /// Keep the folder, to look at what is on the disks
    #[arg(long)]
    keep: bool,
}

/// Seconds, with or without an `s`.
fn duration(text: &str) -> Result<Duration, String> {
    seconds(text.strip_suffix('s').unwrap_or(text))
}

/// What a run was and what came of it; the keys of `--json` are stable.
#[derive(Debug, Serialize)]
struct Report {
    seed: u64,
    seconds: f64,
    operations: BTreeMap<&'static str, u64>,
    failed_operations: BTreeMap<&'static str, u64>,
    faults: BTreeMap<&'static str, u64>,
    checked_during: u64,
    files_checked: u64,
    replicas_checked: u64,
    lost: usize,
    divergent: u64,
    restored: bool,
    settle_seconds: f64,
    longest_put_ms: u128,
    longest_get_ms: u128,
    reads: u64,
    hedged_reads: u64,
    again: String,
}

impl Chaos {
    pub(crate) async fn run(self, context: &Context, output: &mut Output) -> Result<(), CommandError> {
        if context.options.master.is_empty() {
            small_disks::enter_namespace()?;
        }
        let parent = std::env::temp_dir();
        let mut folder = tempfile::Builder::new()
            .prefix("distrifs-chaos-")
            .tempdir_in(&parent)
            .map_err(|e| CommandError::local(&parent, "create a folder in it", e))?;
        folder.disable_cleanup(self.keep);
        let outcome = self.play(context, folder.path()).await;
        let path = folder.path().to_owned();
        if !self.keep {
            folder.close().map_err(|e| CommandError::local(&path, "remove it", e))?;
        }
        let (report, wrong) = outcome?;
        print(output, &report)?;
        if self.keep {
            tracing::warn!(folder = %path.display(), "kept");
        }
        output.flush()?;
        for line in wrong.iter().take(WRONG_TOLD_MAX) {
            eprintln!("distrifs: chaos: {line}");
        }
        if report.lost > 0 || report.divergent > 0 {
            let found = report.lost as u64 + report.divergent;
            return Err(CommandError::Check(format!("{found} findings; again: {}", report.again)));
        }
        if !report.restored {
            let why = format!("not all replicas are back within {:?}; again: {}", self.settle, report.again);
            return Err(CommandError::TimedOut(why));
        }
        Ok(())
    }

    async fn play(&self, context: &Context, folder: &Path) -> Result<(Report, Vec<String>), CommandError> {
        let given = !context.options.master.is_empty();
        let mut stage = if given { None } else { Some(Stage::start(folder, self.datanodes).await?) };
        let client = match &stage {
            Some(stage) => Client::new(ClientConfig::new(stage.masters().to_vec(), system_user())),
            None => context.client(),
        };
        if stage.is_some() {
            wait_writable(&client, self.datanodes).await?;
        }
        let root = format!("/chaos-{}-{:08x}", self.seed, std::process::id());
        client.mkdir(&root, true, 0o755).await?;
        let began = Instant::now();
        let until = began + self.duration;
        let mut lanes = tokio::task::JoinSet::new();
        for number in 0..self.clients {
            let directory = format!("{root}/client-{number}");
            client.mkdir(&directory, true, 0o755).await?;
            let seed = self.seed.wrapping_mul(1_000_003).wrapping_add(u64::from(number));
            lanes.spawn(Lane::new(client.clone(), directory, seed, folder).run(until));
        }
        if let Some(stage) = &mut stage {
            let schedule = Schedule::new(self.seed, self.datanodes as usize, stage.small_disks());
            stage.cause_faults(schedule, began, until).await?;
        }
        let mut ended = Vec::new();
        while let Some(lane) = lanes.join_next().await {
            let lane = lane.map_err(|e| CommandError::Check(format!("a client ended abnormally: {e}")))?;
            ended.push(lane?);
        }
        let seconds = began.elapsed().as_secs_f64();

        let calm = Instant::now();
        let mut restored = false;
        let mut whole = Whole::default();
        while !restored && calm.elapsed() < self.settle {
            tokio::time::sleep(POLL).await;
            whole = Whole::look(&client, &ended).await;
            restored = whole.is_whole();
        }
        let settle_seconds = calm.elapsed().as_secs_f64();
        let mut done = Done::default();
        let mut files_checked = 0;
        for mut lane in ended {
            let before = lane.done.checked;
            for path in lane.ledger.paths() {
                lane.read(&path, false).await?;
            }
            files_checked += lane.done.checked - before;
            done.add(lane.done);
        }
        if given {
            client.remove(&root, true).await?;
        }
        let (reads, hedged_reads) = client.read_counts();
        let faults = stage.as_ref().map(Stage::faults).unwrap_or_default();
        if let Some(stage) = stage {
            stage.stop().await;
        }
        let report = Report {
            seed: self.seed,
            seconds,
            operations: done.operations,
            failed_operations: done.failed,
            faults,
            checked_during: done.checked - files_checked,
            files_checked,
            replicas_checked: whole.replicas,
            lost: done.wrong.len(),
            divergent: whole.divergent,
            restored,
            settle_seconds,
            longest_put_ms: done.longest_put.as_millis(),
            longest_get_ms: done.longest_get.as_millis(),
            reads,
            hedged_reads,
            again: format!(
                "distrifs chaos --seed {} --duration {} --datanodes {} --clients {}",
                self.seed,
                self.duration.as_secs_f64(),
                self.datanodes,
                self.clients
            ),
        };
        Ok((report, done.wrong))
    }
}

fn print(output: &mut Output, report: &Report) -> Result<(), CommandError> {
    if output.json() {
        return output.object(report);
    }
    let list = |counts: &BTreeMap<&'static str, u64>| {
        let all: Vec<String> = counts.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
        if all.is_empty() { "none".to_owned() } else { all.join(", ") }
    };
    output.line(format_args!("seed         {} for {:.1} s", report.seed, report.seconds))?;
    output.line(format_args!("operations   {}", list(&report.operations)))?;
    output.line(format_args!("failed       {}", list(&report.failed_operations)))?;
    output.line(format_args!("faults       {}", list(&report.faults)))?;
    output.line(format_args!(
        "checked      {} files during the run, {} at the end, byte for byte; {} replicas where they lie",
        report.checked_during, report.files_checked, report.replicas_checked
    ))?;
    output.line(format_args!(
        "longest      put {} ms, get {} ms; {} of {} reads hedged",
        report.longest_put_ms, report.longest_get_ms, report.hedged_reads, report.reads
    ))?;
    output.line(format_args!("lost         {}, divergent replicas {}", report.lost, report.divergent))?;
    output.line(format_args!(
        "replicas     {} after {:.1} s",
        if report.restored { "all back" } else { "NOT all back" },
        report.settle_seconds
    ))?;
    output.line(format_args!("again        {}", report.again))
}
