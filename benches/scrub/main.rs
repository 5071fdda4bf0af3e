//! What the scrub reads, and what users notice of it: random reads of 4 KiB and puts of 1 MiB on a cluster of three
//! datanodes, without a scrub, with one that is always behind its schedule, and with the usual interval. The phases
//! take turns, several rounds of them, so that the machine's own moods fall on all alike.
//!
//! `cargo bench --bench scrub -- [--size MIB] [--seconds N] [--rounds N]`; without the `--bench` that cargo bench adds,
//! as under `cargo test --benches`, a few MiB for a moment. Everything is kept in a temporary folder (TMPDIR) of about
//! three times the size and all puts of one phase. Each read begins with nothing of the replicas in the page cache.

mod cluster;
mod load;

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use cluster::{checked_bytes, forget_cached};
use distrifs_client::Client;
use distrifs_testkit::Local;
use load::{Files, Load, PUTS, PUTS_IN_FLIGHT, READS_IN_FLIGHT};

const MIB: u64 = 1 << 20;
/// How long what was put may take to be gone.
const GONE_DEADLINE: Duration = Duration::from_secs(120);

/// The scrub's interval in seconds, and what that is. The second is too short for any disk.
const PHASES: [(&str, &str); 3] = [("0", "off"), ("0.05", "always behind"), ("604800", "within a week")];
const LOADS: [Load; 3] = [Load::None, Load::Reads, Load::Puts];

struct Options {
    files: Files,
    length: Duration,
    rounds: usize,
}

/// One load in one phase of one round.
struct Sample {
    a_second: f64,
    p50: f64,
    p99: f64,
    /// MiB a second of all datanodes together.
    scrub: f64,
}

fn main() -> anyhow::Result<()> {
    let options = options()?;
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(run(&options))
}

fn options() -> anyhow::Result<Options> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // As criterion tells the two apart.
    let test = !arguments.iter().any(|argument| argument == "--bench");
    let value = |name: &str, usual: u64, in_test: u64| match arguments.iter().position(|a| a == name) {
        Some(at) => {
            arguments.get(at + 1).and_then(|text| text.parse().ok()).with_context(|| format!("{name} N"))
        }
        None => Ok(if test { in_test } else { usual }),
    };
    let (size, chunk) = (value("--size", 1024, 8)?, if test { 1 } else { 64 });
    let length = match value("--seconds", 10, 0)? {
        0 => Duration::from_millis(200),
        seconds => Duration::from_secs(seconds),
    };
    let files = Files { count: size.div_ceil(chunk).max(1), bytes: chunk * MIB };
    Ok(Options { files, length, rounds: value("--rounds", 3, 1)?.max(1) as usize })
}

async fn run(options: &Options) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let cluster = cluster::start(folder.path(), "0");
    options.files.put(&cluster::client(&cluster)?).await?;
    cluster.stop();
    // By load, phase and round.
    let mut samples = LOADS.map(|_| PHASES.map(|_| Vec::new()));
    for round in 0..options.rounds {
        for (phase, (interval, _)) in PHASES.iter().enumerate() {
            let cluster = cluster::start(folder.path(), interval);
            for (at, load) in LOADS.into_iter().enumerate() {
                samples[at][phase].push(measure(&cluster, folder.path(), load, options, round).await?);
            }
            cluster.stop();
        }
    }
    report(options, &samples);
    Ok(())
}

async fn measure(
    cluster: &Local,
    folder: &Path,
    load: Load,
    options: &Options,
    round: usize,
) -> anyhow::Result<Sample> {
    let client = cluster::client(cluster)?;
    forget_cached(folder)?;
    if load == Load::Puts {
        client.mkdir(PUTS, true, 0o755).await?;
    }
    let (began, before) = (Instant::now(), checked_bytes(cluster)?);
    let latencies = load.run(&client, options.files, round as u64, options.length).await?;
    let checked = checked_bytes(cluster)? - before;
    let scrub = checked as f64 / MIB as f64 / began.elapsed().as_secs_f64();
    if load == Load::Puts {
        client.remove(PUTS, true).await?;
        wait_until_gone(&client, options.files).await?;
    }
    let millis = |quantile| latencies.value_at_quantile(quantile) as f64 / 1000.0;
    let a_second = latencies.len() as f64 / options.length.as_secs_f64();
    Ok(Sample { a_second, p50: millis(0.5), p99: millis(0.99), scrub })
}

/// Until nothing but the files of the beginning is stored.
async fn wait_until_gone(client: &Client, files: Files) -> anyhow::Result<()> {
    let deadline = Instant::now() + GONE_DEADLINE;
    while client.nodes().await?.iter().any(|node| node.used_bytes > files.count * files.bytes) {
        ensure!(Instant::now() < deadline, "what was put is not collected");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

fn report(options: &Options, samples: &[[Vec<Sample>; PHASES.len()]; LOADS.len()]) {
    let Options { files, length, rounds } = options;
    let (size, chunk) = (files.count * files.bytes / MIB, files.bytes / MIB);
    println!("{size} MiB on each of 3 datanodes in chunks of {chunk} MiB, median of {rounds} x {length:?}");
    println!(
        "{:<22} {:<14} {:>9} {:>8} {:>8} {:>10} {:>13}",
        "users", "scrub", "a second", "p50 ms", "p99 ms", "p99 / off", "scrub MiB/s"
    );
    for (load, phases) in LOADS.iter().zip(samples) {
        let users = match load {
            Load::None => "none".to_owned(),
            Load::Reads => format!("4 KiB reads, {READS_IN_FLIGHT} at once"),
            Load::Puts => format!("1 MiB puts, {PUTS_IN_FLIGHT} at once"),
        };
        for ((_, phase), rounds) in PHASES.iter().zip(phases) {
            let of = |value: fn(&Sample) -> f64| median(rounds.iter().map(value));
            // Round by round: what disturbed one phase of a round likely disturbed the others, too.
            let ratio = median(rounds.iter().zip(&phases[0]).map(|(it, off)| it.p99 / off.p99));
            let scrub = of(|it| it.scrub);
            if *load == Load::None {
                println!("{users:<22} {phase:<14} {:>9} {:>8} {:>8} {:>10} {scrub:>13.1}", "", "", "", "");
                continue;
            }
            let (a_second, p50, p99) = (of(|it| it.a_second), of(|it| it.p50), of(|it| it.p99));
            println!(
                "{users:<22} {phase:<14} {a_second:>9.0} {p50:>8.2} {p99:>8.2} {ratio:>10.2} {scrub:>13.1}"
            );
        }
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
