//! `demo`: the main job in one command, on a real cluster of processes, with every claim checked.

mod report;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use distrifs_client::{Client, ClientConfig, FileStatus, GetTarget, NoProgress, PutOptions, PutSource};
use distrifs_proto::SplitMix;
use hdrhistogram::Histogram;
use tempfile::TempDir;

use self::report::{Latency, Phase, Report};
use crate::context::{Context, system_user};
use crate::error::CommandError;
use crate::local_cluster::{LocalCluster, LocalClusterConfig};
use crate::local_target::LocalTarget;
use crate::options::bytes;
use crate::output::{Output, human_bytes};
use crate::random_file::{first_difference, write_random_file};
use crate::usage::Usage;

/// Replicas of everything that the demo stores.
const REPLICAS: u32 = 3;
/// How long the cluster may take until it takes writes.
const READY_DEADLINE: Duration = Duration::from_secs(60);
/// Between two questions whether it does.
const POLL: Duration = Duration::from_millis(20);
/// The size of small files and of small reads.
const SMALL_BYTES: u64 = 4096;
/// How often each small operation is timed.
const SMALL_PUTS: u64 = 200;
/// See [`SMALL_PUTS`].
const SMALL_READS: u64 = 1000;
/// See [`SMALL_PUTS`].
const STATS: u64 = 1000;
/// Beside the file itself, its replicas and its copy: logs, preallocation, small files.
const SPARE_BYTES: u64 = 1 << 30;
/// Where the file is stored.
const REMOTE: &str = "/demo/random.bin";

/// Show it all: start a cluster, store a file three times, lose a datanode, read it back, measure.
#[derive(Debug, Args)]
#[command(
    after_help = "Everything happens in a temporary folder (below TMPDIR) on free ports; nothing is left behind.\n\n\
    Example:\n  distrifs demo --size 1G --datanodes 4"
)]
pub(crate) struct Demo {
    /// How many bytes to store; K, M, G and T are understood
    #[arg(long, value_name = "BYTES", default_value = "256M", value_parser = bytes)]
    size: u64,
    /// How many datanodes
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(3..=16))]
    datanodes: u32,
    /// Keep the folder, to look at what is on the disks
    #[arg(long)]
    keep: bool,
}

/// The cluster and what is measured of it. The cluster goes first when this is dropped, its folder last.
struct Stage<'a> {
    cluster: LocalCluster,
    client: Client,
    usage: Usage,
    source: PathBuf,
    copy: PathBuf,
    size: u64,
    quiet: bool,
    output: &'a mut Output,
    _folder: &'a TempDir,
}

impl Demo {
    pub(crate) async fn run(self, context: &Context, output: &mut Output) -> Result<(), CommandError> {
        let parent = std::env::temp_dir();
        let mut folder = tempfile::Builder::new()
            .prefix("distrifs-demo-")
            .tempdir_in(&parent)
            .map_err(|e| CommandError::local(&parent, "create a folder in it", e))?;
        folder.disable_cleanup(self.keep);
        require_space(folder.path(), self.size.saturating_mul(u64::from(REPLICAS) + 2))?;
        let report = self.play(context, output, &folder).await?;
        if output.json() {
            output.object(&report)?;
        } else {
            report.print(output)?;
        }
        if self.keep {
            tell(output, format_args!("kept {}", folder.path().display()))?;
            return Ok(());
        }
        let path = folder.path().to_owned();
        folder.close().map_err(|e| CommandError::local(&path, "remove it", e))
    }

    async fn play(
        &self,
        context: &Context,
        output: &mut Output,
        folder: &TempDir,
    ) -> Result<Report, CommandError> {
        tell(output, format_args!("DistriFS demo in {}", folder.path().display()))?;
        let source = folder.path().join("source.bin");
        let (path, size) = (source.clone(), self.size);
        run_blocking(move || {
            write_random_file(&path, size).map_err(|e| CommandError::local(&path, "write it", e))
        })
        .await?;
        tell(output, format_args!("made {} of pseudo-random bytes", human_bytes(self.size)))?;

        let mut stage = self.start(context, output, folder, source).await?;
        let mut report = Report::new(self.size, self.datanodes, REPLICAS);
        report.phases.push(stage.put().await?);
        report.replicas_verified = stage.verify_replicas().await?;
        report.phases.push(stage.get_and_compare("get").await?);
        report.latencies = stage.latencies().await?;

        let victim = stage.cluster.datanodes().len() / 2;
        stage.usage.sample(&stage.cluster);
        let killed = stage.cluster.kill_datanode(victim);
        stage.say(format_args!("killed {killed} with SIGKILL"))?;
        report.phases.push(stage.get_and_compare("get, one datanode dead").await?);

        stage.usage.sample(&stage.cluster);
        report.memory = stage.usage.memory();
        stage.cluster.stop().await;
        Ok(report)
    }

    async fn start<'a>(
        &self,
        context: &Context,
        output: &'a mut Output,
        folder: &'a TempDir,
        source: PathBuf,
    ) -> Result<Stage<'a>, CommandError> {
        let config = LocalClusterConfig {
            folder: folder.path().join("cluster"),
            datanodes: self.datanodes,
            port: 0,
            environment: vec![("DISTRIFS_REPLICATION_FACTOR", REPLICAS.to_string())],
            without: &["DISTRIFS_MASTER_WAL", "DISTRIFS_MASTER_LOCK_PATH"],
            settings: None,
            links: Vec::new(),
            standby: false,
        };
        let cluster = LocalCluster::start(&config).await?;
        let settings = &context.settings;
        let client = Client::new(ClientConfig {
            socket_timeout: settings.socket_timeout,
            retries: settings.client_retry,
            chunk_size: settings.chunk_size,
            replication: Some(REPLICAS),
            ..ClientConfig::new(vec![cluster.address().clone()], system_user())
        });
        wait_writable(&client, self.datanodes).await?;
        let usage = Usage::start(&cluster);
        let copy = folder.path().join("copy.bin");
        let (size, quiet) = (self.size, context.options.quiet);
        let mut stage = Stage { cluster, client, usage, source, copy, size, quiet, output, _folder: folder };
        stage.say(format_args!(
            "1 master and {} datanodes serve, each a process of its own",
            self.datanodes
        ))?;
        Ok(stage)
    }
}

impl Stage<'_> {
    fn say(&mut self, text: std::fmt::Arguments<'_>) -> Result<(), CommandError> {
        tell(self.output, text)
    }

    /// Stores the file.
    async fn put(&mut self) -> Result<Phase, CommandError> {
        self.client.mkdir("/demo", false, 0o755).await?;
        let bar = crate::progress::TransferBar::new(self.quiet, "put");
        let file = File::open(&self.source).map_err(|e| CommandError::local(&self.source, "open it", e))?;
        self.usage.sample(&self.cluster);
        let (cpu, began) = (self.usage.cpu(), Instant::now());
        let done =
            self.client.put(PutSource::File(file, self.size), REMOTE, PutOptions::default(), &bar).await;
        let seconds = began.elapsed().as_secs_f64();
        bar.finish();
        let status = done?;
        self.usage.sample(&self.cluster);
        let phase = Phase::new("put, fsynced on 3 disks", self.size, seconds, self.usage.cpu() - cpu);
        self.say(format_args!("put: acknowledged, {} chunks, crc32c {}", status.chunk_count, crc(&status)))?;
        Ok(phase)
    }

    /// Has every replica of every chunk read and checked where it is.
    async fn verify_replicas(&mut self) -> Result<u64, CommandError> {
        let (_, chunks) = self.client.chunks(REMOTE).await?;
        let mut verified = 0;
        for chunk in &chunks {
            if chunk.replicas.len() != REPLICAS as usize {
                let found = chunk.replicas.len();
                return Err(CommandError::Check(format!("chunk {} has {found} replicas", chunk.id)));
            }
            for node in &chunk.replicas {
                let found = self.client.verify_replica(chunk, node).await?;
                if found != chunk.crc32c {
                    return Err(CommandError::Check(format!("chunk {} on {}: {found}", chunk.id, node.id)));
                }
                verified += 1;
            }
        }
        self.say(format_args!("verified {verified} replicas of {} chunks, block by block", chunks.len()))?;
        Ok(verified)
    }

    /// Fetches the file as `get` does, and compares it with the source byte by byte.
    async fn get_and_compare(&mut self, name: &'static str) -> Result<Phase, CommandError> {
        let bar = crate::progress::TransferBar::new(self.quiet, name);
        self.usage.sample(&self.cluster);
        let (cpu, began) = (self.usage.cpu(), Instant::now());
        let target = LocalTarget::at(&self.copy, false, 0o600)?;
        let done = crate::commands::get::fetch(&self.client, REMOTE, target, &bar).await;
        let seconds = began.elapsed().as_secs_f64();
        bar.finish();
        done?;
        self.usage.sample(&self.cluster);
        let phase = Phase::new(name, self.size, seconds, self.usage.cpu() - cpu);
        let (source, copy) = (self.source.clone(), self.copy.clone());
        let difference = run_blocking(move || {
            let found = first_difference(&source, &copy);
            let found = found.map_err(|e| CommandError::local(&copy, "compare it", e))?;
            std::fs::remove_file(&copy).map_err(|e| CommandError::local(&copy, "remove it", e))?;
            Ok(found)
        })
        .await?;
        if let Some(offset) = difference {
            return Err(CommandError::Check(format!(
                "{name}: it differs from what was put at byte {offset}"
            )));
        }
        self.say(format_args!("{name}: identical, byte for byte"))?;
        Ok(phase)
    }

    /// Times small operations, one after the other.
    async fn latencies(&mut self) -> Result<Vec<Latency>, CommandError> {
        let small = self.source.with_file_name("small.bin");
        run_blocking({
            let small = small.clone();
            move || {
                write_random_file(&small, SMALL_BYTES).map_err(|e| CommandError::local(&small, "write it", e))
            }
        })
        .await?;
        let mut puts = recorder()?;
        for number in 0..SMALL_PUTS {
            let file = File::open(&small).map_err(|e| CommandError::local(&small, "open it", e))?;
            let (path, source) = (format!("/demo/small-{number}"), PutSource::File(file, SMALL_BYTES));
            let began = Instant::now();
            self.client.put(source, &path, PutOptions::default(), &NoProgress).await?;
            record(&mut puts, began);
        }
        let mut reads = recorder()?;
        let (mut random, length) = (SplitMix::new(1), SMALL_BYTES.min(self.size));
        for _ in 0..if length > 0 { SMALL_READS } else { 0 } {
            let offset = random.next() % (self.size - length + 1);
            let target = GetTarget::Stream(Box::new(tokio::io::sink()));
            let began = Instant::now();
            self.client.get(REMOTE, Some((offset, length)), target, &NoProgress).await?;
            record(&mut reads, began);
        }
        let mut stats = recorder()?;
        for _ in 0..STATS {
            let began = Instant::now();
            self.client.stat(REMOTE).await?;
            record(&mut stats, began);
        }
        let counts = (puts.len(), reads.len(), stats.len());
        self.say(format_args!(
            "timed {} small puts, {} small reads, {} stats",
            counts.0, counts.1, counts.2
        ))?;
        Ok(vec![
            Latency::new("put 4 KiB, fsynced on 3 disks", &puts),
            Latency::new("get 4 KiB of the large file", &reads),
            Latency::new("stat", &stats),
        ])
    }
}

/// Says how far the demo is; with `--json` only the report is a result.
pub(super) fn tell(output: &mut Output, text: std::fmt::Arguments<'_>) -> Result<(), CommandError> {
    if output.json() {
        return Ok(());
    }
    output.line(text)?;
    output.flush()
}

fn crc(status: &FileStatus) -> String {
    status.crc32c.map_or_else(|| "none".to_owned(), |crc| crc.to_string())
}

/// Microseconds up to a minute, three digits.
fn recorder() -> Result<Histogram<u64>, CommandError> {
    Histogram::new_with_bounds(1, 60_000_000, 3).map_err(|e| CommandError::Check(e.to_string()))
}

fn record(histogram: &mut Histogram<u64>, began: Instant) {
    histogram.saturating_record(u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX));
}

pub(super) async fn wait_writable(client: &Client, datanodes: u32) -> Result<(), CommandError> {
    let deadline = Instant::now() + READY_DEADLINE;
    loop {
        let status = client.cluster_status().await?;
        if status.writable && status.live_nodes >= datanodes {
            return Ok(());
        }
        if Instant::now() > deadline {
            let why = format!("{} of {datanodes} datanodes; {}", status.live_nodes, status.why_not_writable);
            return Err(CommandError::TimedOut(format!("the cluster takes no writes: {why}")));
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Refuses to begin what would fill the disk.
pub(super) fn require_space(folder: &Path, bytes: u64) -> Result<(), CommandError> {
    let found = rustix::fs::statvfs(folder)
        .map_err(|e| CommandError::local(folder, "ask how full its file system is", e.into()))?;
    let (free, needed) = (found.f_bavail.saturating_mul(found.f_frsize), bytes.saturating_add(SPARE_BYTES));
    if free < needed {
        let (free, needed) = (human_bytes(free), human_bytes(needed));
        let folder = folder.display();
        return Err(CommandError::Check(format!(
            "{folder}: {free} free, {needed} needed: set TMPDIR to a larger file system, or take a smaller --size"
        )));
    }
    Ok(())
}

async fn run_blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, CommandError> + Send + 'static,
) -> Result<T, CommandError> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|e| Err(CommandError::Check(e.to_string())))
}
