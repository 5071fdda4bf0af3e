//! `bench read`: random ranges of one file, against the bare cached read of the same ranges.

use std::sync::Arc;

use clap::Args;
use distrifs_proto::SplitMix;

use super::ceiling;
use super::cost::Span;
use super::figures::{Bare, By, Figures, KEYS, report};
use super::get::page_cache;
use super::lanes::{LaneFile, Lanes};
use super::load::{Pace, run};
use super::mix::starts;
use super::pump::Rounds;
use super::target::Target;
use super::workload::Workload;
use crate::context::Context;
use crate::error::CommandError;
use crate::options::bytes;
use crate::output::Output;
use crate::progress::TransferBar;

/// The file.
pub(super) const FILE: &str = "large";
/// Clients, if nobody says otherwise.
const CLIENTS: u64 = 16;
/// Ranges, if nobody says otherwise.
const OPS: u64 = 20_000;
/// One range in so many is compared with what was put: to make its bytes anew is work that the bare read is spared.
const COMPARED_EVERY: u64 = 16;
/// Rounds of the bare read in all.
const BARE_ROUNDS_MAX: u64 = 40_000;

/// The ranges of one large file.
#[derive(Debug, Clone, Copy, Args)]
pub(super) struct Ranges {
    /// Bytes of the large file; K, M, G and T are understood
    #[arg(long, value_name = "BYTES", default_value = "256M", value_parser = bytes)]
    pub(super) size: u64,
    /// Bytes of a range, and of a small file where there are any
    #[arg(long, value_name = "BYTES", default_value = "4K", value_parser = bytes)]
    pub(super) range: u64,
}

impl Ranges {
    /// # Errors
    /// A range that does not fit.
    pub(super) fn check(self) -> Result<(), CommandError> {
        let Self { size, range } = self;
        if range == 0 || range > size {
            return Err(CommandError::Usage(format!(
                "--range {range}: expected 1 to the {size} bytes of --size"
            )));
        }
        Ok(())
    }
}

/// Reads of random ranges.
#[derive(Debug, Args)]
#[command(
    after_help = format!("The file is put before the clock runs, and is in the page cache. It is opened once for each \
    read in flight (`open` of the SDK), by one client of the SDK for all of them, as in one program, or with --apart by \
    one each; each read asks a datanode for its range. The client checks all that comes back by its checksums, and one range in \
    {COMPARED_EVERY} is compared with what was put.\n\n{KEYS}\n\n\
    Example:\n  distrifs bench read --range 4K --clients 32 --duration 10 --ceiling")
)]
pub(crate) struct Read {
    #[command(flatten)]
    pub(super) ranges: Ranges,
    /// Each read by a client of its own with connections of its own; else one client reads them all
    #[arg(long)]
    pub(super) apart: bool,
    /// Ranges begin at multiples of so many bytes; a block of checksums has 4K, and blocks travel whole
    #[arg(long, value_name = "BYTES", default_value = "1", value_parser = bytes)]
    pub(super) align: u64,
    /// Past the page cache: the datanodes, and the bare read, take the bytes from the disk
    #[arg(long)]
    pub(super) direct: bool,
    #[command(flatten)]
    pub(super) load: Workload,
}

impl Read {
    /// # Errors
    /// A range that does not fit.
    pub(super) fn check(&self) -> Result<(), CommandError> {
        if self.align == 0 {
            return Err(CommandError::Usage("--align 0: expected 1 or more".to_owned()));
        }
        self.ranges.check()
    }

    pub(super) async fn run(
        self,
        context: &Context,
        target: &Target,
        output: &mut Output,
    ) -> Result<(), CommandError> {
        let (load, clients) = (&self.load, self.load.clients(CLIENTS));
        let bar = TransferBar::new(context.options.quiet, "bench read");
        let lanes = Lanes::start(target, clients, self.ranges.size, load.seed, load.replication, bar).await?;
        lanes.clone().put(0, FILE.to_owned()).await?;
        page_cache(target, true).await?;
        let pace = load.pace(CLIENTS, OPS);
        let files = lanes.open(FILE, !self.apart, self.direct).await?;
        let span = Span::begin(target).await?;
        let (length, align, seed) = (self.ranges.range, self.align, load.seed);
        let places = starts(self.ranges.size, length, align);
        let files: Arc<[Arc<LaneFile>]> = files.into();
        let read = move |lane: u64, number| {
            let from = place(seed, number, places) * align;
            files[lane as usize].clone().read(from, length, number % COMPARED_EVERY == 0)
        };
        let sample = run(&pace, read).await?;
        let cost = span.end().await?;
        lanes.finish();
        let copies = target.replication(load.replication).await?;
        let phase = if self.direct { "read, direct" } else { "read" };
        let figures = Figures::new("read", phase, &pace, self.ranges.range, &sample);
        let mut figures = figures.replicated(Some(copies)).at_cost(cost);
        if load.ceiling {
            let what = bare_rounds(&pace, self.ranges.range);
            let content = lanes.content();
            let bare = if self.direct {
                ceiling::direct(target, content, what, (align, seed), By::Ops).await?
            } else {
                ceiling::cached(target, content, what, (align, seed), By::Ops).await?
            };
            figures.ceiling.push(Bare::beside(&figures, &bare));
        }
        report(output, &[figures])
    }
}

/// At which of the places the range of this number begins.
fn place(seed: u64, number: u64, places: u64) -> u64 {
    SplitMix::new(SplitMix::new(seed).next() ^ number).next() % places
}

/// The bare read of ranges of so many bytes, with as many in flight.
pub(super) fn bare_rounds(pace: &Pace, range: u64) -> Rounds {
    // As much as a large range moves in a moment.
    let rounds = (BARE_ROUNDS_MAX / pace.clients).min((1 << 30) / range / pace.clients).max(1);
    Rounds { streams: pace.clients, rounds, bytes: range }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_spread_by_the_seed_and_every_range_fits() {
        let places: Vec<u64> = (0..1000).map(|number| place(1, number, starts(10_000, 4096, 1))).collect();
        assert!(places.iter().all(|from| from + 4096 <= 10_000));
        assert_eq!(places[7], place(1, 7, starts(10_000, 4096, 1)));
        assert_ne!(places, (0..1000).map(|n| place(2, n, starts(10_000, 4096, 1))).collect::<Vec<_>>());
        let below = places.iter().filter(|from| **from < 2952).count();
        assert!((400..600).contains(&below), "{below}");
        let check = |size, range| Ranges { size, range }.check();
        assert!(check(4096, 4096).is_ok());
        assert!(check(4096, 4097).is_err() && check(4096, 0).is_err());
    }
}
