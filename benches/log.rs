//! The master's log: what an append costs, alone and with others in flight.
//!
//! `cargo bench --bench log`; with `--test`, as `cargo test --benches` runs it, once each.

use std::hint::black_box;

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use distrifs_engine::log::{Log, LogOptions, recover};
use distrifs_proto::types::{ClusterId, Epoch, Lsn};
use tokio::task::JoinSet;

/// A usual record: a directory or a file that is made.
const RECORD_BYTES: usize = 120;

fn appends(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let folder = tempfile::tempdir().expect("a folder");
    let recovered =
        recover(folder.path(), ClusterId(1), Lsn(0), &mut |_, _, _| Ok(())).expect("an empty log");
    let options = LogOptions::new(folder.path().to_owned(), ClusterId(1), Epoch(1));
    let log = Log::start(options, recovered).expect("a log");
    let record = Bytes::from(vec![7; RECORD_BYTES]);
    let mut group = criterion.benchmark_group("append");
    for in_flight in [1usize, 8, 64] {
        group.throughput(Throughput::Elements(in_flight as u64));
        group.bench_with_input(BenchmarkId::from_parameter(in_flight), &in_flight, |bencher, in_flight| {
            bencher.to_async(Tokio(&runtime)).iter(|| {
                let (log, record, in_flight) = (log.clone(), record.clone(), *in_flight);
                async move {
                    let mut tasks = JoinSet::new();
                    for _ in 0..in_flight {
                        let (log, record) = (log.clone(), record.clone());
                        tasks.spawn(async move { log.append(vec![record]).await.expect("durable") });
                    }
                    while let Some(range) = tasks.join_next().await {
                        black_box(range.expect("appended"));
                    }
                    // What is benchmarked stays small on the disk.
                    if log.stats().kept_segments > 4 {
                        log.release(Lsn(u64::MAX - 1)).await.expect("released");
                    }
                }
            });
        });
    }
    group.finish();
}

/// Criterion's seam over runtimes, for the one that is here.
struct Tokio<'a>(&'a tokio::runtime::Runtime);

impl criterion::async_executor::AsyncExecutor for Tokio<'_> {
    fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.0.block_on(future)
    }
}

criterion_group!(benches, appends);
criterion_main!(benches);
