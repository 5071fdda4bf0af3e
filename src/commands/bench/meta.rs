//! `bench meta`: the namespace over gRPC, against an empty call to the same master and the device's own sync.
//!
//! Every round measures all operations and the empty call before, between and after them; a ratio is of one round,
//! and the median of the rounds is shown: the machine's own speed varies.

use std::time::Instant;

use clap::Args;
use hdrhistogram::Histogram;
use serde::Serialize;

use super::calls::Calls;
use super::device::Device;
use super::load::{Pace, Sample, histogram, run};
use super::target::Target;
use crate::context::Context;
use crate::error::CommandError;
use crate::output::{Output, Table};
use crate::progress::TransferBar;

/// Writes to the device, and lone operations, in one round at most.
const LONE_OPS_MAX: u64 = 300;

/// Operations of the namespace.
#[derive(Debug, Args)]
#[command(after_help = "A cluster of its own has one datanode.\n\
    Shown are medians of the rounds; \"of empty\" is the rate of an operation through that of an empty call with as \
    many in flight in the same round.\n\n\
    Example:\n  distrifs bench meta --clients 64 --ops 20000")]
pub(crate) struct Meta {
    /// Operations in flight
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..=4096))]
    clients: u64,
    /// Operations of each kind in a round
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    ops: u64,
    /// Rounds
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=1000))]
    rounds: u64,
    /// For the ids of requests
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Also measure the device below this folder (an embedded cluster's own by default)
    #[arg(long, value_name = "DIR")]
    sync_dir: Option<std::path::PathBuf>,
}

/// What a round measures, in this order. The empty call comes again and again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Empty,
    Mkdir,
    Create,
    Complete,
    Stat,
    ReadPlan,
    Rename,
    Remove,
}

const ROUND: [Phase; 10] = [
    Phase::Empty,
    Phase::Mkdir,
    Phase::Create,
    Phase::Complete,
    Phase::Empty,
    Phase::Stat,
    Phase::ReadPlan,
    Phase::Rename,
    Phase::Remove,
    Phase::Empty,
];

impl Phase {
    fn name(self) -> &'static str {
        match self {
            Self::Empty => "empty call",
            Self::Mkdir => "mkdir",
            Self::Create => "create",
            Self::Complete => "complete",
            Self::Stat => "stat",
            Self::ReadPlan => "read plan",
            Self::Rename => "rename",
            Self::Remove => "rm",
        }
    }

    fn goal(self) -> Option<f64> {
        match self {
            Self::Create => Some(0.7),
            Self::Stat | Self::ReadPlan => Some(0.8),
            _ => None,
        }
    }
}

/// All rounds of one thing.
struct Measured {
    name: &'static str,
    clients: u64,
    rates: Vec<f64>,
    ratios: Vec<f64>,
    ratio_to: Option<&'static str>,
    syncs: Vec<f64>,
    /// CPU seconds of all processes, per operation.
    cpu: Vec<f64>,
    goal: Option<f64>,
    times: Histogram<u64>,
    ops: u64,
}

impl Measured {
    fn new(name: &'static str, clients: u64) -> Self {
        let (rates, ratios, syncs, cpu) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Self {
            name,
            clients,
            rates,
            ratios,
            ratio_to: None,
            syncs,
            cpu,
            goal: None,
            times: histogram(),
            ops: 0,
        }
    }

    fn add(&mut self, sample: &Sample) {
        self.rates.push(sample.rate());
        self.ops += sample.ops;
        // The bounds are the same: nothing can be refused.
        let _ = self.times.add(&sample.times);
    }
}

/// The stable keys of `--json`.
#[derive(Serialize)]
struct Row {
    phase: &'static str,
    clients: u64,
    ops: u64,
    ops_per_second: f64,
    p50_us: f64,
    p90_us: f64,
    p99_us: f64,
    p999_us: f64,
    max_us: f64,
    /// Rate through that of an empty call; of lone operations: p50 through that of the device's sync and an empty call.
    ratio: Option<f64>,
    ratio_to: Option<&'static str>,
    syncs_per_op: Option<f64>,
    /// CPU time of this process and the embedded cluster's; of a cluster that runs elsewhere nothing is known.
    cpu_us_per_op: Option<f64>,
    goal: Option<f64>,
}

impl Meta {
    pub(super) async fn run(
        self,
        context: &Context,
        target: &Target,
        output: &mut Output,
    ) -> Result<(), CommandError> {
        let measured = self.measure(context, target).await?;
        report(output, &measured)
    }

    async fn measure(&self, context: &Context, target: &Target) -> Result<Vec<Measured>, CommandError> {
        let sync_dir = self.sync_dir.as_deref().or(target.folder());
        let device = |dir: &std::path::Path| {
            Device::new(dir, LONE_OPS_MAX * self.rounds)
                .map_err(|e| CommandError::local(dir, "measure the device below it", e))
        };
        let mut device = sync_dir.map(device).transpose()?;
        let mut all: Vec<Measured> = Vec::new();
        let bar = TransferBar::new(context.options.quiet, "bench meta");
        for round in 0..self.rounds {
            let folder = format!("{}/{round}", target.directory);
            target.client.mkdir(&folder, false, 0o755).await?;
            let files = self.ops;
            let (user, seed) = (&target.user, self.seed.wrapping_add(round));
            let calls = Calls::connect(&target.address, user, &folder, self.clients, files, seed).await?;
            self.round(target, &calls, &mut all).await?;
            lone(&calls, self.ops.min(LONE_OPS_MAX), device.as_mut(), &mut all).await?;
        }
        bar.finish();
        Ok(all)
    }

    /// All operations with many in flight.
    async fn round(
        &self,
        target: &Target,
        calls: &Calls,
        all: &mut Vec<Measured>,
    ) -> Result<(), CommandError> {
        let mut samples = Vec::new();
        for phase in ROUND {
            let before = calls.log_counts().await?;
            let cpu = target.cpu();
            let sample = phase_of(phase, calls, &Pace::closed(self.clients, self.ops)).await?;
            let cpu = cpu.zip(target.cpu()).map(|(before, after)| (after - before) / sample.ops as f64);
            let after = calls.log_counts().await?;
            let syncs = (after.0 > before.0).then(|| (after.1 - before.1) as f64 / sample.ops as f64);
            samples.push((phase, sample, syncs, cpu));
        }
        let empty: Vec<f64> = samples
            .iter()
            .filter(|(phase, ..)| *phase == Phase::Empty)
            .map(|(_, it, ..)| it.rate())
            .collect();
        let empty = median(&empty);
        for (phase, sample, syncs, cpu) in samples {
            let measured = entry(all, phase.name(), self.clients);
            measured.add(&sample);
            measured.syncs.extend(syncs);
            measured.cpu.extend(cpu);
            measured.goal = phase.goal();
            if phase != Phase::Empty {
                measured.ratios.push(sample.rate() / empty);
                measured.ratio_to = Some("rate of the empty call");
            }
        }
        Ok(())
    }
}

fn entry<'a>(all: &'a mut Vec<Measured>, name: &'static str, clients: u64) -> &'a mut Measured {
    let at = all.iter().position(|it| it.name == name).unwrap_or_else(|| {
        all.push(Measured::new(name, clients));
        all.len() - 1
    });
    &mut all[at]
}

async fn phase_of(phase: Phase, calls: &Calls, pace: &Pace) -> Result<Sample, CommandError> {
    let calls = calls.clone();
    match phase {
        Phase::Empty => run(pace, move |lane, _| calls.clone().ping(lane)).await,
        Phase::Mkdir => run(pace, move |lane, n| calls.clone().mkdir(lane, n)).await,
        Phase::Create => run(pace, move |lane, n| calls.clone().create(lane, n)).await,
        Phase::Complete => run(pace, move |lane, n| calls.clone().complete(lane, n)).await,
        Phase::Stat => run(pace, move |lane, n| calls.clone().stat(lane, n)).await,
        Phase::ReadPlan => run(pace, move |lane, n| calls.clone().read_plan(lane, n)).await,
        Phase::Rename => run(pace, move |lane, n| calls.clone().rename(lane, n)).await,
        Phase::Remove => run(pace, move |lane, n| calls.clone().remove(lane, n)).await,
    }
}

/// One operation at a time: the empty call, the device, a create, and again. In turns, since a device that was idle
/// for a moment takes longer than one that is kept busy.
async fn lone(
    calls: &Calls,
    ops: u64,
    device: Option<&mut Device>,
    all: &mut Vec<Measured>,
) -> Result<(), CommandError> {
    let (mut empty, mut create, mut sync) = (Sample::default(), Sample::default(), Sample::default());
    let mut device = device;
    for number in 0..ops {
        let began = Instant::now();
        calls.clone().ping(0).await?;
        empty.add(began);
        if let Some(device) = device.as_deref_mut() {
            let began = Instant::now();
            let path = std::path::Path::new("bench-device");
            tokio::task::block_in_place(|| device.write())
                .map_err(|e| CommandError::local(path, "write it", e))?;
            sync.add(began);
        }
        let began = Instant::now();
        calls.clone().create(0, number).await?;
        create.add(began);
    }
    entry(all, "empty call, alone", 1).add(&empty);
    if sync.ops > 0 {
        let p50 = |sample: &Sample| sample.times.value_at_quantile(0.5) as f64;
        let ratio = p50(&create) / (p50(&sync) + p50(&empty));
        entry(all, "device sync, alone", 1).add(&sync);
        let measured = entry(all, "create, alone", 1);
        measured.ratios.push(ratio);
        measured.ratio_to = Some("p50 of a device sync and an empty call");
        measured.goal = Some(1.5);
    }
    entry(all, "create, alone", 1).add(&create);
    Ok(())
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

fn report(output: &mut Output, all: &[Measured]) -> Result<(), CommandError> {
    let rows = all.iter().map(|it| {
        let us = |quantile: f64| it.times.value_at_quantile(quantile) as f64 / 1000.0;
        Row {
            phase: it.name,
            clients: it.clients,
            ops: it.ops,
            ops_per_second: median(&it.rates),
            p50_us: us(0.5),
            p90_us: us(0.9),
            p99_us: us(0.99),
            p999_us: us(0.999),
            max_us: it.times.max() as f64 / 1000.0,
            ratio: (!it.ratios.is_empty()).then(|| median(&it.ratios)),
            ratio_to: it.ratio_to,
            syncs_per_op: (!it.syncs.is_empty()).then(|| median(&it.syncs)),
            cpu_us_per_op: (!it.cpu.is_empty()).then(|| median(&it.cpu) * 1e6),
            goal: it.goal,
        }
    });
    if output.json() {
        return rows.into_iter().try_for_each(|row| output.object(&row));
    }
    let mut table = Table::new(&[1, 2, 3, 4, 5, 6, 7, 8, 9]);
    table.row(
        ["", "in flight", "ops/s", "p50 us", "p99 us", "max us", "ratio", "goal", "syncs/op", "CPU us/op"]
            .map(str::to_owned),
    );
    for row in rows {
        let optional =
            |value: Option<f64>, digits: usize| value.map_or_else(String::new, |it| format!("{it:.digits$}"));
        table.row([
            row.phase.to_owned(),
            row.clients.to_string(),
            format!("{:.0}", row.ops_per_second),
            format!("{:.0}", row.p50_us),
            format!("{:.0}", row.p99_us),
            format!("{:.0}", row.max_us),
            optional(row.ratio, 2),
            optional(row.goal, 1),
            optional(row.syncs_per_op, 3),
            optional(row.cpu_us_per_op, 1),
        ]);
    }
    table.lines().try_for_each(|line| output.line(line))
}
