//! The master's state at scale, in one process: the cost of `apply`, the memory of a file, what a checkpoint does to
//! running mutations, and how long a start takes.
//!
//! `cargo bench --bench namespace -- [--files N]`; without the `--bench` that cargo bench adds, as under
//! `cargo test --benches`, a few thousand files. The temporary folder (TMPDIR) takes about 2.5 KiB a file, nearly all
//! of it log, until the end.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use distrifs_master::bench_support::{Applied, BareNamespace, Inside, Seen, resident_bytes};
use distrifs_master::{Master, MasterConfig};
use distrifs_proto::types::HostPort;

const FILES_DEFAULT: u64 = 5_000_000;
const FILES_TEST: u64 = 3_000;
const CHURN: u64 = 100_000;
/// Files that are opened before they are completed: fewer than may be open at once.
const SLICE: u64 = 500_000;
/// Proposals that are in flight while files are made: full groups.
const FILL_IN_FLIGHT: u64 = 2000;
/// As many clients at once as the checkpoint is measured with.
const CLIENTS: u64 = 64;
/// Records behind the checkpoint of the last start.
const RECORDS: u64 = 100_000;

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // As criterion tells the two apart.
    let test = !arguments.iter().any(|argument| argument == "--bench");
    let files = match arguments.iter().position(|argument| argument == "--files") {
        Some(at) => arguments.get(at + 1).context("--files N")?.parse().context("--files N")?,
        None if test => FILES_TEST,
        None => FILES_DEFAULT,
    };
    apply(files)?;
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(scale(files, test))
}

fn print(at: &str, applied: Applied) {
    let nanos = applied.took.as_nanos() as f64 / applied.commands.max(1) as f64;
    let rate = 1e9 / nanos.max(0.001) / 1e6;
    println!("  {at:>14}  {:<9} {nanos:>7.0} ns each, {rate:>6.2} million a second", applied.kind);
}

/// The commands alone, on one core, with few files and with many.
fn apply(files: u64) -> anyhow::Result<()> {
    println!("apply, one core (goal: 1 million commands a second)");
    let mut bare = BareNamespace::default();
    let mut there = 0;
    for target in [files / 50, files / 5, files] {
        let mut sums: Vec<Applied> = Vec::new();
        while there < target {
            let more = (target - there).min(SLICE);
            for (at, applied) in bare.fill(more).into_iter().enumerate() {
                match sums.get_mut(at) {
                    Some(sum) => {
                        sum.commands += applied.commands;
                        sum.took += applied.took;
                    }
                    None => sums.push(applied),
                }
            }
            there += more;
        }
        sums.into_iter().for_each(|applied| print(&format!("to {target} files"), applied));
        for applied in bare.churn(CHURN.min(files / 10)) {
            print(&format!("at {target} files"), applied);
        }
        print(&format!("at {target} files"), bare.stat(CHURN.min(files)));
    }
    ensure!(there == files, "all were made");
    Ok(())
}

fn config(dir: &std::path::Path, checkpoint_log_bytes: u64) -> MasterConfig {
    MasterConfig {
        listen: HostPort { host: "127.0.0.1".to_owned(), port: 0 },
        http: None,
        checkpoint_log_bytes,
        ..MasterConfig::new(dir, "bench")
    }
}

fn percentile(seen: &mut Seen, share: f64) -> Duration {
    seen.latencies.sort_unstable();
    let at = ((seen.latencies.len() as f64 * share) as usize).min(seen.latencies.len().saturating_sub(1));
    seen.latencies.get(at).copied().unwrap_or_default()
}

fn tell(what: &str, seen: &mut Seen) {
    let (p50, p99) = (percentile(seen, 0.5), percentile(seen, 0.99));
    let (p999, count) = (percentile(seen, 0.999), seen.latencies.len());
    println!("  {what:<22} {count:>8} mutations, p50 {p50:>9.1?}, p99 {p99:>9.1?}, p99.9 {p999:>9.1?}");
}

async fn scale(files: u64, test: bool) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let dir = folder.path().join("master");
    println!("\n{files} files of one chunk with three replicas, names of 16 characters, through the log");
    let before = resident_bytes();
    let inside = Inside::new(Master::start(config(&dir, u64::MAX)).await?);
    let began = Instant::now();
    inside.fill(0..files, FILL_IN_FLIGHT).await;
    let took = began.elapsed();
    ensure!(inside.files() == files, "{} files", inside.files());
    let rate = 2.0 * files as f64 / took.as_secs_f64();
    println!("  made in {took:.1?}: {rate:.0} durable commands a second");
    let each = (resident_bytes() - before) as f64 / files as f64;
    println!("  memory: {each:.0} bytes a file, everything included (goal: at most 240)");
    inside.stop().await;

    let began = Instant::now();
    let threshold = if test { 4096 } else { MasterConfig::new(&dir, "bench").checkpoint_log_bytes };
    let master = Master::start(config(&dir, threshold)).await?;
    println!("  start from the log alone: {:.2?}", began.elapsed());
    let inside = Inside::new(master);
    // The log that was replayed makes a checkpoint due at once: the first load sees it.
    let resident = resident_bytes();
    let mut during = inside.mutate(CLIENTS, |it| it.checkpoints() > 0).await;
    let grown = during.resident_max.saturating_sub(resident) as f64 / resident as f64 * 100.0;
    let (bytes, took) = inside.checkpoint();
    let (mib, until) =
        (bytes / (1 << 20), Instant::now() + if test { Duration::from_millis(50) } else { took });
    let mut after = inside.mutate(CLIENTS, |_| Instant::now() >= until).await;
    println!("  checkpoint: {mib} MiB in {took:.2?}, {grown:.1} % more memory (goal: at most 30)");
    tell("without a checkpoint", &mut after);
    tell("during the checkpoint", &mut during);
    let ratio =
        percentile(&mut during, 0.99).as_secs_f64() / percentile(&mut after, 0.99).as_secs_f64().max(1e-9);
    println!("  p99 during / without: {ratio:.1} (goal: at most 5)");
    inside.fill(files..files + (RECORDS / 2).min(files), FILL_IN_FLIGHT).await;
    let expected = inside.files();
    inside.stop().await;

    let began = Instant::now();
    let master = Master::start(config(&dir, u64::MAX)).await?;
    println!(
        "  start from the checkpoint and the log behind it: {:.2?} (goal: at most 5 s)",
        began.elapsed()
    );
    let inside = Inside::new(master);
    ensure!(inside.files() == expected, "{} files of {expected}", inside.files());
    inside.stop().await;
    Ok(())
}
