//! `bench mixed`: range reads, small puts, stats and removes at once.

use std::sync::{Arc, Mutex, PoisonError};

use clap::Args;

use super::ceiling;
use super::cost::{Cost, Span};
use super::figures::{Bare, By, Figures, KEYS, report};
use super::get::page_cache;
use super::lanes::{LaneFile, Lanes};
use super::load::{Pace, Sample, run_kinds};
use super::mix::{Mix, Operation, starts};
use super::read::{self, FILE, Ranges};
use super::small;
use super::target::Target;
use super::workload::Workload;
use crate::context::Context;
use crate::error::CommandError;
use crate::output::Output;
use crate::progress::TransferBar;

/// Clients, if nobody says otherwise.
const CLIENTS: u64 = 16;
/// Operations, if nobody says otherwise.
const OPS: u64 = 5_000;
/// Of operations, in the order of [`kind_of`].
const KINDS: [&str; 4] = ["range read", "small put", "stat", "remove"];

/// Several kinds of operations at once.
#[derive(Debug, Args)]
#[command(
    after_help = format!("Of 100 operations 70 read a random range of a large file that is in the page cache, 20 put a \
    new small file of as many bytes, 5 ask for the state of a small file and 5 remove one, in an order that the seed gives \
    for each client. With --ceiling only times are compared: the bare pump does one thing at a time.\n\n{KEYS}\n\n\
    Example:\n  distrifs bench mixed --clients 16 --duration 10 --rate 500")
)]
pub(crate) struct Mixed {
    #[command(flatten)]
    pub(super) ranges: Ranges,
    #[command(flatten)]
    pub(super) load: Workload,
}

impl Mixed {
    /// # Errors
    /// A range that does not fit.
    pub(super) fn check(&self) -> Result<(), CommandError> {
        self.ranges.check()
    }

    pub(super) async fn run(
        self,
        context: &Context,
        target: &Target,
        output: &mut Output,
    ) -> Result<(), CommandError> {
        let (load, clients) = (&self.load, self.load.clients(CLIENTS));
        let bar = TransferBar::new(context.options.quiet, "bench mixed");
        let large =
            Lanes::start(target, clients, self.ranges.size, load.seed, load.replication, bar.clone()).await?;
        let small =
            Lanes::start(target, clients, self.ranges.range, load.seed, load.replication, bar).await?;
        large.clone().put(0, FILE.to_owned()).await?;
        page_cache(target, true).await?;
        let pace = load.pace(CLIENTS, OPS);
        let files = large.open(FILE, false, false).await?;
        let span = Span::begin(target).await?;
        let samples = self.mix(&large, files, &small, &pace).await?;
        let cost = span.end().await?;
        large.finish();
        let copies = target.replication(load.replication).await?;
        let rows = self.rows(&pace, &samples, cost).into_iter();
        let mut rows: Vec<Figures> = rows.map(|row| row.replicated(Some(copies))).collect();
        if load.ceiling {
            let ranges = read::bare_rounds(&pace, self.ranges.range);
            let cached = ceiling::cached(target, large.content(), ranges, (1, load.seed), By::Time).await?;
            let chain = small::bare(target, &pace, copies, self.ranges.range, By::Time).await?;
            for (row, bare) in rows[1..].iter_mut().zip([cached, chain]) {
                row.ceiling = vec![Bare::beside(row, &bare)];
            }
        }
        report(output, &rows)
    }

    async fn mix(
        &self,
        large: &Lanes,
        files: Vec<Arc<LaneFile>>,
        small: &Lanes,
        pace: &Pace,
    ) -> Result<[Sample; 4], CommandError> {
        let mixes: Arc<[Mutex<Mix>]> = (0..large.count())
            .map(|lane| {
                Mutex::new(Mix::new(self.load.seed, lane, starts(self.ranges.size, self.ranges.range, 1)))
            })
            .collect();
        let (small, range) = (small.clone(), self.ranges.range);
        let operation = move |lane: u64, _| {
            // Only this lane takes it, and never while it waits for anything.
            let next = mixes[lane as usize].lock().unwrap_or_else(PoisonError::into_inner).next();
            execute(files[lane as usize].clone(), range, small.clone(), lane, next)
        };
        run_kinds(pace, operation).await
    }

    /// All together first, then each kind.
    fn rows(&self, pace: &Pace, samples: &[Sample; 4], cost: Cost) -> Vec<Figures> {
        let mut whole = Sample::default();
        samples.iter().for_each(|sample| whole.merge(sample, true));
        // How many bytes an operation of all kinds has is an average at best.
        let mut rows = vec![Figures::new("mixed", "mixed", pace, 0, &whole).at_cost(cost)];
        for (kind, sample) in KINDS.iter().zip(samples) {
            let size = if matches!(*kind, "range read" | "small put") { self.ranges.range } else { 0 };
            rows.push(Figures::new("mixed", kind, pace, size, sample));
        }
        rows
    }
}

async fn execute(
    large: Arc<LaneFile>,
    range: u64,
    small: Lanes,
    lane: u64,
    operation: Operation,
) -> Result<usize, CommandError> {
    let name = |number: u64| format!("small-{lane}-{number}");
    match operation {
        Operation::Read(from) => large.read(from, range, true).await,
        Operation::Put(number) => small.put(lane, name(number)).await,
        Operation::Stat(number) => small.stat(lane, name(number)).await,
        Operation::Remove(number) => small.remove(lane, name(number)).await,
    }?;
    Ok(kind_of(operation))
}

fn kind_of(operation: Operation) -> usize {
    match operation {
        Operation::Read(_) => 0,
        Operation::Put(_) => 1,
        Operation::Stat(_) => 2,
        Operation::Remove(_) => 3,
    }
}
