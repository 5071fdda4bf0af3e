//! `latency`: how long each stage of every operation takes, on each node.

mod asking;
mod hgrm;
mod hlog;
mod page;
mod snapshot;
mod table;

use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use clap::Args;

pub(super) use table::human_us;

use crate::context::Context;
use crate::error::CommandError;
use crate::output::Output;
use asking::Asking;
use hlog::IntervalLog;
use snapshot::Snapshot;

/// Between two looks of `--watch`, in seconds.
const WATCH_SECONDS_DEFAULT: &str = "2";
const WATCH_SECONDS_MAX: f64 = 3600.0;
/// Home, and everything from there on gone.
const CLEAR_TERMINAL: &str = "\x1b[H\x1b[2J";

/// Show how long the stages of operations take, on each node.
#[derive(Debug, Args)]
#[command(
    after_help = "Master and datanodes count every pass of every stage since their start, in HdrHistograms of \
    microseconds with two digits; this asks all of them and merges. A node that does not answer in time is named on \
    standard error, and the rest is shown.\n\n\
    write.queue: a chunk waits for its place · create: its file is made and its room reserved · link: the next hop is \
    connected to · receive, crc, disk, forward: of each frame (1 MiB), from its header to its last byte, its checksums, its \
    disk write, its way into the socket of the next hop · sync: data and sidecar · publish: names and directory · ack: from \
    the last frame until the next hop acknowledged, which has the stages of all hops behind in it · answer: from then, or the own commit, until the answer goes.\n\
    read.open: the chunk's file and sidecar · queue: a buffer · disk: a piece is read, from the page cache or the disk · \
    seal: header and checksums · send: its way into the socket.\n\
    change.queue, log, prove, apply, answer: the way of a change in the master: until its batch goes, is durable, is known \
    to be of the leader, is applied, is told · change, read: calls as a whole · log.sync: the log's durable writes, each of \
    which may carry many changes.\n\n\
    --hgrm writes HdrHistogram's percentile text, which its plotters read, one file for each stage: with more than one the \
    stage's name stands before the extension. --hlog writes its interval log (V2), an interval for each look, tagged \
    STAGE@NODE. --html writes one page that needs nothing else.\n\n\
    `distrifs put --explain` and `distrifs get --explain` show where the time of one operation went.\n\n\
    Example:\n  distrifs latency --stage write --html latency.html\n  distrifs latency --watch 5 --stage write.sync --stage log.sync\n  \
    distrifs latency --json | jq 'select(.node == \"all\" and .p99_us > 10000)'"
)]
pub(crate) struct Latency {
    /// Only of this datanode, or of `master`; more than once for several
    #[arg(long, value_name = "ID")]
    node: Vec<String>,
    /// Only this stage, or all of an operation (`write`, `read`, `change`); more than once for several
    #[arg(long, value_name = "NAME")]
    stage: Vec<String>,
    /// Look again every so many seconds, and show what came between, until it is stopped
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = WATCH_SECONDS_DEFAULT)]
    watch: Option<f64>,
    /// Write percentiles as text in HdrHistogram's format
    #[arg(long, value_name = "FILE")]
    hgrm: Option<PathBuf>,
    /// Write an interval log in HdrHistogram's format
    #[arg(long, value_name = "FILE")]
    hlog: Option<PathBuf>,
    /// Write a page to look at
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

impl Latency {
    pub(crate) async fn run(self, context: &Context, output: &mut Output) -> Result<(), CommandError> {
        let pause = self.watch.map(watch_pause).transpose()?;
        let asking = Asking::new(context.client(), self.node.clone());
        let mut log = self.hlog.as_deref().map(IntervalLog::create).transpose()?;
        let (mut before, mut since) = (self.look(&asking).await?, SystemTime::UNIX_EPOCH);
        if pause.is_none() {
            return self.show(&before, (since, SystemTime::now()), log.as_mut(), output);
        }
        while let Some(pause) = pause {
            since = SystemTime::now();
            let next = Instant::now() + pause;
            tokio::time::sleep_until(next.into()).await;
            let now = self.look(&asking).await?;
            if std::io::stdout().is_terminal() && !output.json() {
                output.line(CLEAR_TERMINAL)?;
            }
            self.show(&now.since(&before), (since, SystemTime::now()), log.as_mut(), output)?;
            before = now;
        }
        Ok(())
    }

    async fn look(&self, asking: &Asking) -> Result<Snapshot, CommandError> {
        let (snapshot, silent) = asking.ask().await?;
        for node in silent {
            eprintln!("distrifs: latency: {node}");
        }
        snapshot.only(&self.stage).map_err(CommandError::Usage)
    }

    fn show(
        &self,
        snapshot: &Snapshot,
        (from, to): (SystemTime, SystemTime),
        log: Option<&mut IntervalLog>,
        output: &mut Output,
    ) -> Result<(), CommandError> {
        table::print(snapshot, output)?;
        output.flush()?;
        if let Some(file) = &self.hgrm {
            hgrm::write(file, snapshot)?;
        }
        if let Some(log) = log {
            log.append(snapshot, from, to)?;
        }
        if let Some(file) = &self.html {
            let page = page::render(snapshot, to);
            std::fs::write(file, page).map_err(|e| CommandError::local(file, "write the page", e))?;
        }
        Ok(())
    }
}

fn watch_pause(seconds: f64) -> Result<Duration, CommandError> {
    if seconds > 0.0 && seconds <= WATCH_SECONDS_MAX {
        return Ok(Duration::from_secs_f64(seconds));
    }
    Err(CommandError::Usage(format!(
        "--watch {seconds}: more than 0 and at most {WATCH_SECONDS_MAX} seconds"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watch_has_a_pause() {
        assert_eq!(watch_pause(0.5).unwrap(), Duration::from_millis(500));
        for seconds in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(watch_pause(seconds).is_err(), "{seconds}");
        }
    }
}
