//! `bench put`: large files, durable on all replicas, against the bare chain and the raw disk.

use clap::Args;

use super::ceiling;
use super::cost::Span;
use super::figures::{Bare, By, Figures, KEYS, report};
use super::lanes::Lanes;
use super::load::run;
use super::pump::Rounds;
use super::target::Target;
use super::workload::Workload;
use crate::context::Context;
use crate::error::CommandError;
use crate::options::bytes;
use crate::output::Output;
use crate::progress::TransferBar;

/// Puts of large files.
#[derive(Debug, Args)]
#[command(
    after_help = format!("Each client puts the same file again and again, each time in the place of the one before. The \
    bytes are made in memory before the clock runs.\n\n{KEYS}\n\n\
    Example:\n  distrifs bench put --size 64M --clients 4 --duration 10 --ceiling")
)]
pub(crate) struct Put {
    /// Bytes of a file; K, M, G and T are understood
    #[arg(long, value_name = "BYTES", default_value = "256M", value_parser = bytes)]
    pub(super) size: u64,
    #[command(flatten)]
    pub(super) load: Workload,
}

impl Put {
    pub(super) async fn run(
        self,
        context: &Context,
        target: &Target,
        output: &mut Output,
    ) -> Result<(), CommandError> {
        let (load, clients) = (&self.load, self.load.clients(1));
        let bar = TransferBar::new(context.options.quiet, "bench put");
        let lanes = Lanes::start(target, clients, self.size, load.seed, load.replication, bar).await?;
        let pace = load.pace(1, clients);
        let span = Span::begin(target).await?;
        let putting = lanes.clone();
        let sample = run(&pace, move |lane, _| putting.clone().put(lane, format!("file-{lane}"))).await?;
        let cost = span.end().await?;
        lanes.finish();
        let copies = target.replication(load.replication).await?;
        let figures = Figures::new("put", "put", &pace, self.size, &sample);
        let mut figures = figures.replicated(Some(copies)).at_cost(cost);
        if load.ceiling {
            let what = Rounds { streams: clients, rounds: 1, bytes: self.size };
            let chain = ceiling::chain(target, copies, what, None, By::Bytes).await?;
            let fed = ceiling::chain(target, copies, what, Some(lanes.content()), By::Bytes).await?;
            let disk = ceiling::raw_disk(target, self.size).await?;
            let name = format!("raw disk, {copies} copies");
            let disk = ceiling::of_disk(name, disk.bytes, disk.write_seconds, copies);
            figures.ceiling = [chain, fed, disk].iter().map(|bare| Bare::beside(&figures, bare)).collect();
        }
        report(output, &[figures])
    }
}
