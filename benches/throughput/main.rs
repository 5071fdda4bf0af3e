//! `put` and `get` of one large file with three replicas, against the bare pump on the same machine in the same
//! run. Throughputs and CPU seconds are read as ratios: the machine's own speed varies.
//!
//! `cargo bench --bench throughput -- [--size MIB] [--rounds N]`; without the `--bench` that cargo bench adds, as
//! under `cargo test --benches`, a few MiB once. Everything is kept in a temporary folder (TMPDIR) of about seven times the size.

mod cluster;
mod cpu;
/// The same pump that `distrifs bench --ceiling` has.
#[allow(dead_code, reason = "each program takes its part")]
#[path = "../../src/commands/bench/pump.rs"]
mod pump;

use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use anyhow::{Context, ensure};
use cluster::{cache_replicas, peak_memory};
use cpu::CpuSeconds;
use distrifs_testkit::Local;
use pump::{Feed, Rounds};

const REPLICAS: u64 = 3;
const MIB: u64 = 1 << 20;
const SIZE_MIB_DEFAULT: u64 = 1024;
const SIZE_MIB_TEST: u64 = 8;
const ROUNDS_DEFAULT: usize = 3;

/// One measured run of one thing.
struct Sample {
    seconds: f64,
    cpu: f64,
}

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let value = |name: &str| {
        let at = arguments.iter().position(|a| a == name)?;
        arguments.get(at + 1)
    };
    // As criterion tells the two apart.
    let test = !arguments.iter().any(|a| a == "--bench");
    let size = match value("--size") {
        Some(text) => text.parse().context("--size MIB")?,
        None if test => SIZE_MIB_TEST,
        None => SIZE_MIB_DEFAULT,
    };
    let rounds = match value("--rounds") {
        Some(text) => text.parse().context("--rounds N")?,
        None if test => 1,
        None => ROUNDS_DEFAULT,
    };
    run(size * MIB, rounds)
}

fn run(bytes: u64, rounds: usize) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let source = folder.path().join("source");
    write_source(&source, bytes)?;
    let data_dir = folder.path().join("cluster");
    let cluster = Local::start(env!("CARGO_BIN_EXE_distrifs"), &data_dir, &[]);
    let pids = cluster.pids();
    let (mut chain, mut put, mut read, mut get) = (vec![], vec![], vec![], vec![]);
    for round in 0..rounds {
        let pumped = folder.path().join(format!("pump-{round}"));
        chain.push(measure(&[], || bare_chain(&pumped, bytes))?);
        std::fs::remove_dir_all(&pumped)?;

        let remote = format!("/file-{round}");
        put.push(measure(&pids, || {
            timed(cluster.command(&["put", "-q", &source.to_string_lossy(), &remote]))
        })?);
        // Chunks are written past the page cache: bring all replicas into it, whichever will be read.
        cache_replicas(&data_dir)?;
        read.push(measure(&[], || bare_read(&source, bytes))?);
        get.push(measure(&pids, || timed(cluster.command(&["get", "-q", &remote, "-"])))?);
        ensure!(cluster.command(&["rm", &remote]).status()?.success(), "rm {remote}");
    }
    let memory = peak_memory(&pids)?;
    cluster.stop();

    println!("{} MiB, {REPLICAS} replicas, median of {rounds}", bytes / MIB);
    println!("{:<34} {:>8} {:>14}", "", "MiB/s", "CPU-s per GiB");
    let chain = report("bare chain of three", bytes, &mut chain);
    let put = report("put", bytes, &mut put);
    let read = report("bare cached read", bytes, &mut read);
    let get = report("get", bytes, &mut get);
    println!("put / bare chain:  throughput {:.2}, CPU {:.2}", put.0 / chain.0, put.1 / chain.1);
    println!("get / bare read:   throughput {:.2}, CPU {:.2}", get.0 / read.0, get.1 / read.1);
    println!("peak memory, MiB:  {memory}");
    Ok(())
}

fn bare_chain(folder: &Path, bytes: u64) -> anyhow::Result<f64> {
    let program = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_distrifs"));
        command.args(["bench", "pump-hop"]);
        Ok(command)
    };
    let what = Rounds { streams: 1, rounds: 1, bytes };
    Ok(pump::chain(&program, folder, REPLICAS, what, Feed::BARE, &AtomicBool::new(false))?.seconds)
}

fn bare_read(source: &Path, bytes: u64) -> anyhow::Result<f64> {
    let what = Rounds { streams: 1, rounds: 1, bytes };
    Ok(pump::ranges(&File::open(source)?, what, &|_, _| 0, &AtomicBool::new(false))?.seconds)
}

/// Runs `work`, which tells its own seconds, and adds up the CPU of this process, of the children it waits for,
/// and of `daemons`.
fn measure(daemons: &[u32], work: impl FnOnce() -> anyhow::Result<f64>) -> anyhow::Result<Sample> {
    let before = CpuSeconds::of(daemons)?;
    let seconds = work()?;
    Ok(Sample { seconds, cpu: CpuSeconds::of(daemons)?.since(&before) })
}

fn timed(mut command: Command) -> anyhow::Result<f64> {
    let begun = Instant::now();
    ensure!(command.stdout(Stdio::null()).status()?.success(), "{command:?} failed");
    Ok(begun.elapsed().as_secs_f64())
}

/// Prints the median of the samples; returns MiB/s and CPU seconds per GiB.
fn report(what: &str, bytes: u64, samples: &mut [Sample]) -> (f64, f64) {
    let mib = bytes as f64 / MIB as f64;
    samples.sort_by(|a, b| a.seconds.total_cmp(&b.seconds));
    let speed = mib / samples[samples.len() / 2].seconds;
    samples.sort_by(|a, b| a.cpu.total_cmp(&b.cpu));
    let cpu = samples[samples.len() / 2].cpu * 1024.0 / mib;
    println!("{what:<34} {speed:>8.0} {cpu:>14.2}");
    (speed, cpu)
}

/// Bytes that neither compress nor repeat, written once and left in the page cache.
fn write_source(path: &Path, bytes: u64) -> anyhow::Result<()> {
    let mut file = std::io::BufWriter::new(File::create(path)?);
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..bytes / 8 {
        // xorshift64 (Marsaglia 2003): fast and good enough to fool a compressing disk.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        std::io::Write::write_all(&mut file, &state.to_le_bytes())?;
    }
    std::io::Write::flush(&mut file)?;
    // Written back now, not in the middle of a measurement.
    file.get_ref().sync_all()?;
    Ok(())
}
