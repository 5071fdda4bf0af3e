//! `bench get`: large files back, from the page cache or the disk.

use clap::Args;

use super::ceiling;
use super::cost::{Cost, Span};
use super::figures::{Bare, BareSample, By, Figures, KEYS, report};
use super::lanes::Lanes;
use super::load::{Limit, Pace, Sample, run};
use super::page_cache;
use super::pump::Rounds;
use super::target::Target;
use super::workload::Workload;
use crate::context::Context;
use crate::error::CommandError;
use crate::options::bytes;
use crate::output::Output;
use crate::progress::TransferBar;

/// Gets of large files.
#[derive(Debug, Args)]
#[command(
    after_help = format!("Each client has a file of its own, put before the clock runs; the first get of each is \
    compared with what was put and does not count. Bytes that have passed their checksums go nowhere. With --cold each \
    get is the first one of a new file; the next one, which does not count, is compared; with --ceiling the raw disk is \
    read beside each get.\n\n{KEYS}\n\n\
    Example:\n  distrifs bench get --size 256M --cold --ceiling")
)]
pub(crate) struct Get {
    /// Bytes of a file; K, M, G and T are understood
    #[arg(long, value_name = "BYTES", default_value = "256M", value_parser = bytes)]
    pub(super) size: u64,
    /// Each get is the first one of its file, with nothing of it in the page cache; the clients get new files in rounds
    #[arg(long, conflicts_with = "rate")]
    pub(super) cold: bool,
    #[command(flatten)]
    pub(super) load: Workload,
}

impl Get {
    /// # Errors
    /// What cannot be asked of a cluster that runs.
    pub(super) fn check(&self, running: bool) -> Result<(), CommandError> {
        if self.cold && running {
            let why = "--cold drops pages of this machine: leave --master and --running away for an embedded cluster";
            return Err(CommandError::Usage(why.to_owned()));
        }
        Ok(())
    }

    pub(super) async fn run(
        self,
        context: &Context,
        target: &Target,
        output: &mut Output,
    ) -> Result<(), CommandError> {
        let (load, clients) = (&self.load, self.load.clients(1));
        let bar = TransferBar::new(context.options.quiet, "bench get");
        let lanes = Lanes::start(target, clients, self.size, load.seed, load.replication, bar).await?;
        let pace = load.pace(1, clients);
        let (sample, cost, disk) = if self.cold {
            let size = load.ceiling.then_some(self.size);
            cold(target, &lanes, &pace, size).await?
        } else {
            let (sample, cost) = warm(target, &lanes, &pace).await?;
            (sample, cost, None)
        };
        lanes.finish();
        let phase = if self.cold { "get, cold" } else { "get" };
        let copies = target.replication(load.replication).await?;
        let figures = Figures::new("get", phase, &pace, self.size, &sample);
        let mut figures = figures.replicated(Some(copies)).at_cost(cost);
        if load.ceiling {
            let what = Rounds { streams: clients, rounds: 1, bytes: self.size };
            let cached = ceiling::cached(target, lanes.content(), what, (1, load.seed), By::Bytes).await?;
            let disk = match disk {
                Some(beside_gets) => beside_gets,
                None => ceiling::disk_read(target, self.size).await?,
            };
            figures.ceiling = [cached, disk].iter().map(|bare| Bare::beside(&figures, bare)).collect();
        }
        report(output, &[figures])
    }
}

/// The name of a client's file.
fn name(lane: u64) -> String {
    format!("file-{lane}")
}

/// Each client its own file again and again.
async fn warm(target: &Target, lanes: &Lanes, pace: &Pace) -> Result<(Sample, Cost), CommandError> {
    each(lanes, |lanes, lane| lanes.put(lane, name(lane))).await?;
    each(lanes, |lanes, lane| lanes.compare(lane, name(lane))).await?;
    page_cache(target, true).await?;
    let span = Span::begin(target).await?;
    let getting = lanes.clone();
    let sample = run(pace, move |lane, _| getting.clone().get(lane, name(lane))).await?;
    Ok((sample, span.end().await?))
}

/// Rounds in each of which every client gets a new file once; what is between them does not count. With `size`, each round
/// also has the raw disk read as many bytes (1 GiB at most) that were just written, in turns before the gets and after
/// them: what else the disk has to do changes from second to second.
async fn cold(
    target: &Target,
    lanes: &Lanes,
    pace: &Pace,
    size: Option<u64>,
) -> Result<(Sample, Cost, Option<BareSample>), CommandError> {
    let (mut all, mut cost, mut disk) = (Sample::default(), Cost::default(), None::<BareSample>);
    let mut disk_first = false;
    let is_over = |all: &Sample| match pace.limit {
        Limit::Ops(ops) => all.ops >= ops,
        Limit::Time(time) => all.ops > 0 && all.seconds >= time.as_secs_f64(),
    };
    while !is_over(&all) {
        each(lanes, |lanes, lane| lanes.put(lane, name(lane))).await?;
        page_cache(target, false).await?;
        if disk_first {
            disk = disk_read(target, size, disk).await?;
        }
        let span = Span::begin(target).await?;
        all.merge(&each(lanes, |lanes, lane| lanes.get(lane, name(lane))).await?, false);
        cost = cost.and(span.end().await?);
        if !disk_first {
            disk = disk_read(target, size, disk).await?;
        }
        disk_first = !disk_first;
        each(lanes, |lanes, lane| lanes.compare(lane, name(lane))).await?;
    }
    Ok((all, cost, disk))
}

/// One more read by the raw disk, if it is to be measured.
async fn disk_read(
    target: &Target,
    size: Option<u64>,
    before: Option<BareSample>,
) -> Result<Option<BareSample>, CommandError> {
    let Some(size) = size else { return Ok(before) };
    let read = ceiling::disk_read(target, size).await?;
    Ok(Some(match before {
        Some(before) => before.and(&read),
        None => read,
    }))
}

/// Every client does it once, all at the same time. By number: a quick task may take two turns.
async fn each<F>(
    lanes: &Lanes,
    work: impl Fn(Lanes, u64) -> F + Clone + Send + 'static,
) -> Result<Sample, CommandError>
where
    F: Future<Output = Result<(), CommandError>> + Send + 'static,
{
    let lanes = lanes.clone();
    run(&Pace::closed(lanes.count(), lanes.count()), move |_, number| work(lanes.clone(), number)).await
}

/// Brings all replicas of an embedded cluster into the page cache, or out of it. Of another one it cannot be told: there
/// the first get has brought in what it read.
pub(super) async fn page_cache(target: &Target, filled: bool) -> Result<(), CommandError> {
    let Some(folder) = target.folder().map(std::path::Path::to_owned) else { return Ok(()) };
    let work = move |_: &_| {
        let done = if filled { page_cache::fill(&folder) } else { page_cache::forget(&folder) };
        done.map_err(|e| CommandError::local(&folder, "read the chunks below it", e))
    };
    target.blocking.run(work).await
}
