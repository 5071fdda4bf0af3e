//! `bench put`: large files, durable on all replicas, against the bare chain and the raw disk.

use clap::Args;

use super::ceiling;
use super::cost::Span;
use super::figures::{Bare, BareSample, By, Figures, KEYS, report};
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

/// What a client has put may be on the disks so many times: what was overwritten is there for a moment.
const TIMES_MAX: u64 = 3;
/// What datanodes leave free on their disk, and as much for what they do not know yet of what is on its way.
const LEFT_FREE_BYTES: u64 = 2 << 30;

/// Puts of large files.
#[derive(Debug, Args)]
#[command(
    after_help = format!("Each client puts the same file again and again, each time in the place of the one before. The \
    bytes are made in memory before the clock runs. What --ceiling measures comes first, one after the other, and is \
    removed before the first put: an embedded cluster needs room for the copies only.\n\n{KEYS}\n\n\
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
    /// Bytes that an embedded cluster, or before it the bare chain, will hold at once at most.
    pub(super) fn needs(&self) -> u64 {
        let clients = self.load.clients(1);
        // No more is on the disks than was ever put.
        let puts = self.load.pace(1, clients).ops().unwrap_or(u64::MAX).min(TIMES_MAX * clients);
        let put = puts.saturating_mul(self.size);
        let chain = if self.load.ceiling { self.bare().hop_bytes() } else { 0 };
        put.max(chain).saturating_mul(u64::from(self.load.datanodes())).saturating_add(LEFT_FREE_BYTES)
    }

    /// What the bare chain takes: one file of each client.
    fn bare(&self) -> Rounds {
        Rounds { streams: self.load.clients(1), rounds: 1, bytes: self.size }
    }

    pub(super) async fn run(
        self,
        context: &Context,
        target: &Target,
        output: &mut Output,
    ) -> Result<(), CommandError> {
        let (load, clients) = (&self.load, self.load.clients(1));
        let bar = TransferBar::new(context.options.quiet, "bench put");
        let lanes = Lanes::start(target, clients, self.size, load.seed, load.replication, bar).await?;
        let copies = target.replication(load.replication).await?;
        let ceilings = if load.ceiling { self.ceilings(target, copies, &lanes).await? } else { Vec::new() };
        let pace = load.pace(1, clients);
        let span = Span::begin(target).await?;
        let putting = lanes.clone();
        let sample = run(&pace, move |lane, _| putting.clone().put(lane, format!("file-{lane}"))).await?;
        let cost = span.end().await?;
        lanes.finish();
        let figures = Figures::new("put", "put", &pace, self.size, &sample);
        let mut figures = figures.replicated(Some(copies)).at_cost(cost);
        figures.ceiling = ceilings.iter().map(|bare| Bare::beside(&figures, bare)).collect();
        report(output, &[figures])
    }

    /// Each removes what it wrote before the next one begins.
    async fn ceilings(
        &self,
        target: &Target,
        copies: u32,
        lanes: &Lanes,
    ) -> Result<Vec<BareSample>, CommandError> {
        let chain = ceiling::chain(target, copies, self.bare(), None, By::Bytes).await?;
        let fed = ceiling::chain(target, copies, self.bare(), Some(lanes.content()), By::Bytes).await?;
        Ok(vec![chain, fed, ceiling::disk_write(target, self.size, copies).await?])
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        put: Put,
    }

    #[test]
    fn a_file_needs_room_for_its_copies_and_those_of_the_ones_before_it() {
        let needs = |options: &[&str]| {
            let line = Line::try_parse_from(["put", "--size", "10G"].iter().chain(options)).unwrap();
            (line.put.needs() - LEFT_FREE_BYTES) >> 30
        };
        // With its ceilings a lone put needs no more: they are measured before it.
        for (options, gib) in [
            (&["--ops", "1"][..], 30),
            (&["--ops", "1", "--ceiling"], 30),
            (&["--ops", "2", "--ceiling"], 60),
            (&["--ops", "9"], 90),
            (&["--duration", "9", "--ceiling"], 90),
            (&["--clients", "2", "--replication", "1"], 20),
            (&["--clients", "4", "--ops", "1", "--ceiling"], 120),
        ] {
            assert_eq!(needs(options), gib, "{options:?}");
        }
        let line = Line::try_parse_from(["put", "--size", "2M", "--ceiling"]).unwrap();
        assert_eq!(line.put.needs() - LEFT_FREE_BYTES, 3 * (64 << 20), "the bare chain's files");
    }
}
