//! `bench small`: many small files, each durable, against the bare chain and the bare fan of as small pieces.

use clap::Args;

use super::ceiling;
use super::cost::Span;
use super::figures::{Bare, By, Figures, KEYS, report};
use super::lanes::Lanes;
use super::load::{Pace, run};
use super::pump::{PIECE, Rounds};
use super::target::Target;
use super::workload::Workload;
use crate::context::Context;
use crate::error::CommandError;
use crate::options::bytes;
use crate::output::Output;
use crate::progress::TransferBar;

/// Clients, if nobody says otherwise.
const CLIENTS: u64 = 16;
/// Files, if nobody says otherwise.
const OPS: u64 = 2_000;
/// Rounds of the bare chain in all, and of the bare fan.
const BARE_ROUNDS_MAX: u64 = 2_000;

/// Puts, and gets, of many small files.
#[derive(Debug, Args)]
#[command(
    after_help = format!("All files are new and in one directory. \"Log syncs\" are durable writes of the master's log, \
    \"syncs\" those of the datanodes as well.\n\n\
    The bare chain of --ceiling creates a file on each of its hops for each piece, one hop after the other. The bare fan, for files of \
    up to 1 MiB, is the fewest steps to a file on as many disks and in a log: all hops are sent it at once and write it, \
    each over the blocks of a file that has them, and sync it; when all have answered, one more hop does the same with a \
    block of 4 KiB. Each client's puts are synced by themselves there: many at once may share their syncs and be faster.\n\n{KEYS}\n\n\
    Example:\n  distrifs bench small --clients 32 --duration 10 --get --ceiling")
)]
pub(crate) struct Small {
    /// Bytes of a file; K, M, G and T are understood
    #[arg(long, value_name = "BYTES", default_value = "4K", value_parser = bytes)]
    pub(super) size: u64,
    /// Get all of them back afterwards, each compared with what was put
    #[arg(long)]
    pub(super) get: bool,
    #[command(flatten)]
    pub(super) load: Workload,
}

impl Small {
    pub(super) async fn run(
        self,
        context: &Context,
        target: &Target,
        output: &mut Output,
    ) -> Result<(), CommandError> {
        let (load, clients) = (&self.load, self.load.clients(CLIENTS));
        let bar = TransferBar::new(context.options.quiet, "bench small");
        let lanes = Lanes::start(target, clients, self.size, load.seed, load.replication, bar).await?;
        let copies = target.replication(load.replication).await?;
        let pace = load.pace(CLIENTS, OPS);
        let span = Span::begin(target).await?;
        let putting = lanes.clone();
        let sample = run(&pace, move |lane, n| putting.clone().put(lane, format!("small-{n}"))).await?;
        let put = Figures::new("small", "small put", &pace, self.size, &sample);
        let mut all = vec![put.replicated(Some(copies)).at_cost(span.end().await?)];
        if self.get {
            all.push(self.get(target, &lanes, sample.ops).await?.replicated(Some(copies)));
        }
        lanes.finish();
        if load.ceiling {
            let chain = bare(target, &pace, copies, self.size, By::Ops).await?;
            let mut ceilings = vec![chain];
            if self.size <= PIECE as u64 {
                let what = bare_rounds(&pace, self.size);
                ceilings.push(ceiling::fan(target, copies, what).await?);
            }
            ceilings.push(ceiling::device(target).await?);
            all[0].ceiling = ceilings.iter().map(|bare| Bare::beside(&all[0], bare)).collect();
        }
        report(output, &all)
    }

    async fn get(&self, target: &Target, lanes: &Lanes, files: u64) -> Result<Figures, CommandError> {
        let pace = Pace::closed(lanes.count(), files);
        let span = Span::begin(target).await?;
        let getting = lanes.clone();
        let get = move |lane, n| getting.clone().compare(lane, format!("small-{n}"));
        let sample = run(&pace, get).await?;
        Ok(Figures::new("small", "small get", &pace, self.size, &sample).at_cost(span.end().await?))
    }
}

/// The bare chain of as large pieces with as many in flight, each synced by all hops before it is answered.
pub(super) async fn bare(
    target: &Target,
    pace: &Pace,
    copies: u32,
    size: u64,
    by: By,
) -> Result<super::figures::BareSample, CommandError> {
    ceiling::chain(target, copies, bare_rounds(pace, size), None, by).await
}

fn bare_rounds(pace: &Pace, size: u64) -> Rounds {
    let rounds = (BARE_ROUNDS_MAX / pace.clients).min((1 << 28) / size.max(1) / pace.clients).max(1);
    Rounds { streams: pace.clients, rounds, bytes: size }
}
