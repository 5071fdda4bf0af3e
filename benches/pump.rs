//! The bare pump: what sockets, CRC32C, O_DIRECT files and `fdatasync` alone can do here, in a chain of one hop and of
//! three, in a fan of three and a log, and ranges of a cached file. `distrifs bench --ceiling` has the same beside a cluster.
//!
//! `cargo bench --bench pump`; `cargo test --benches` runs each once, tiny. Everything is kept in a temporary folder
//! (TMPDIR).

use std::process::Command;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use criterion::{BenchmarkGroup, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

#[allow(dead_code, reason = "each program takes its part")]
#[path = "../src/commands/bench/pump.rs"]
mod pump;

use criterion::measurement::WallTime;
use pump::{Feed, Pumped, Rounds};

const MIB: u64 = 1 << 20;

/// As criterion tells the two apart.
fn is_test() -> bool {
    !std::env::args().any(|argument| argument == "--bench")
}

/// The pump tells its own time: starting its processes does not count.
fn measured(rounds: u64, pump: impl Fn() -> std::io::Result<Pumped>) -> Duration {
    (0..rounds).map(|_| Duration::from_secs_f64(pump().expect("the pump runs").seconds)).sum()
}

fn hop() -> std::io::Result<Command> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_distrifs"));
    command.args(["bench", "pump-hop"]);
    Ok(command)
}

fn chains(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, what: Rounds, feed: Feed<'_>) {
    for hops in [1, 3] {
        group.bench_with_input(BenchmarkId::new(name, hops), &hops, |bencher, &hops| {
            bencher.iter_custom(|rounds| {
                measured(rounds, || {
                    let folder = tempfile::tempdir()?;
                    pump::chain(&hop, folder.path(), hops, what, feed, &AtomicBool::new(false))
                })
            });
        });
    }
}

fn pumps(criterion: &mut Criterion) {
    let large = Rounds { streams: 1, rounds: 1, bytes: if is_test() { 2 * MIB } else { 64 * MIB } };
    let mut group = criterion.benchmark_group("pump");
    group.sample_size(10).measurement_time(Duration::from_secs(3));
    group.throughput(Throughput::Bytes(large.bytes));
    chains(&mut group, "large file, hops", large, Feed::BARE);
    let unchecked = Feed { checksums: false, ..Feed::BARE };
    chains(&mut group, "large file without checksums, hops", large, unchecked);
    let small = Rounds { streams: 1, rounds: if is_test() { 2 } else { 50 }, bytes: 4096 };
    group.throughput(Throughput::Elements(small.rounds));
    chains(&mut group, "files of 4 KiB, hops", small, Feed::BARE);
    group.bench_function("pieces of 4 KiB, fan of 3 and a log", |bencher| {
        bencher.iter_custom(|rounds| {
            measured(rounds, || {
                let folder = tempfile::tempdir()?;
                pump::fan(&hop, folder.path(), 3, small, &AtomicBool::new(false))
            })
        });
    });
    let file = tempfile::tempfile().expect("a file");
    file.set_len(MIB).expect("room");
    let ranges = Rounds { rounds: if is_test() { 2 } else { 1000 }, ..small };
    group.throughput(Throughput::Elements(ranges.rounds));
    group.bench_function("cached ranges of 4 KiB", |bencher| {
        let at = |_, round: u64| round * 4096 % (MIB - 4096);
        bencher.iter_custom(|rounds| {
            measured(rounds, || pump::ranges(&file, ranges, &at, &AtomicBool::new(false)))
        });
    });
    group.finish();
}

criterion_group!(benches, pumps);
criterion_main!(benches);
