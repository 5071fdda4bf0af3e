//! The pieces of the data path alone: checksums, frames, the chunk store on each I/O body.
//!
//! `cargo bench --bench data_path`; `cargo test --benches` runs each once.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use distrifs_engine::io::{Body, Buf, IoMode, Shared, block_on};
use distrifs_engine::store::{ChunkStore, Folder};
use distrifs_proto::frame::{FRAME_BUFFER_BYTES, Header, Op, Placement, seal, verify};
use distrifs_proto::limits::FRAME_PAYLOAD_BYTES_MAX;
use distrifs_proto::types::{ChunkId, ClusterId, Crc32c, GenerationStamp, NodeId, block_crcs};

fn checksums(c: &mut Criterion) {
    let mut group = c.benchmark_group("crc32c");
    let bytes = vec![0x5a; 1 << 20];
    for len in [4 << 10, 64 << 10, 1 << 20] {
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_with_input(BenchmarkId::from_parameter(len), &len, |b, &len| {
            b.iter(|| Crc32c::of(black_box(&bytes[..len])));
        });
    }
    let blocks: Vec<_> = block_crcs(&bytes).collect();
    group.throughput(Throughput::Elements(blocks.len() as u64));
    group.bench_function("compose blocks", |b| {
        b.iter(|| Crc32c::of_blocks(black_box(&blocks).iter().copied(), 1 << 20));
    });
    group.finish();
}

fn frames(c: &mut Criterion) {
    let mut group = c.benchmark_group("frame");
    let mut buffer = vec![0x5a; FRAME_BUFFER_BYTES];
    for len in [4 << 10, FRAME_PAYLOAD_BYTES_MAX] {
        let header = Header { length: len as u32, ..Header::new(Op::WriteData, 1) };
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_with_input(BenchmarkId::new("seal", len), &header, |b, header| {
            b.iter(|| seal(black_box(&mut buffer), header));
        });
        seal(&mut buffer, &header);
        let place = Placement::of(len);
        group.bench_with_input(BenchmarkId::new("verify", len), &place, |b, place| {
            b.iter(|| verify(black_box(&buffer), place).is_ok());
        });
    }
    let bytes = Header::new(Op::Read, 1).encode();
    group.throughput(Throughput::Elements(1));
    group.bench_function("decode header", |b| b.iter(|| Header::decode(black_box(&bytes)).is_ok()));
    group.finish();
}

/// Bytes of a chunk of the benchmark.
const CHUNK: usize = 8 << 20;

fn store(c: &mut Criterion) {
    let mut group = c.benchmark_group("store");
    group
        .sample_size(10)
        .measurement_time(Duration::from_secs(3))
        .throughput(Throughput::Bytes(CHUNK as u64));
    for mode in [IoMode::Uring, IoMode::Posix] {
        let Ok(body) = mode.resolve() else {
            println!("store/{mode}: does not work here");
            continue;
        };
        group.bench_function(BenchmarkId::new("write and commit 8 MiB", mode), |b| {
            b.iter_custom(|rounds| write_chunks(&body, rounds));
        });
        group.bench_function(BenchmarkId::new("read and verify 8 MiB, cached", mode), |b| {
            b.iter_custom(|rounds| read_chunk(&body, rounds));
        });
    }
    group.finish();
}

const CLUSTER: ClusterId = ClusterId(1);
const GENERATION: GenerationStamp = GenerationStamp(1);

/// Writes and commits a chunk.
async fn write_chunk(store: &ChunkStore, chunk: ChunkId, piece: &Shared, crcs: &[Crc32c]) {
    let mut writer = store.create(CLUSTER, chunk, GENERATION, CHUNK as u64).await.expect("create");
    for _ in 0..CHUNK / FRAME_PAYLOAD_BYTES_MAX {
        let write = writer.append(piece.clone(), 0..piece.len(), crcs.iter().copied());
        write.expect("append").expect("a large chunk is a file").run().await;
    }
    writer.commit().await.expect("commit");
}

/// Opens and reads one chunk `rounds` times, each block checked; the writing does not count, nor the first reading.
fn read_chunk(body: &Body, rounds: u64) -> Duration {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let folder = Folder::open(dir.path(), NodeId(1)).expect("a data folder");
    let root = folder.root().to_owned();
    let spent = block_on(body.clone(), |io| async move {
        let store = ChunkStore::attach(io.clone(), root, None);
        let piece = Buf::alloc(FRAME_PAYLOAD_BYTES_MAX).share();
        let crcs: Vec<_> = block_crcs(&piece).collect();
        write_chunk(&store, ChunkId(1), &piece, &crcs).await;
        let mut buffer = Buf::alloc(FRAME_PAYLOAD_BYTES_MAX);
        let mut begun = io.now();
        for round in 0..=rounds {
            if round == 1 {
                begun = io.now();
            }
            let reader = store.open(CLUSTER, ChunkId(1)).await.expect("open");
            for at in (0..CHUNK as u64).step_by(FRAME_PAYLOAD_BYTES_MAX) {
                let bytes = at..at + FRAME_PAYLOAD_BYTES_MAX as u64;
                let (read, back) = reader.read(buffer, 0, &bytes).await;
                read.expect("read");
                reader.verify(&back, &bytes).expect("verified");
                buffer = back;
            }
        }
        io.now() - begun
    });
    spent.expect("the I/O body runs")
}

/// Writes, commits and deletes `rounds` chunks; only writing and committing counts.
fn write_chunks(body: &Body, rounds: u64) -> Duration {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let folder = Folder::open(dir.path(), NodeId(1)).expect("a data folder");
    let root = folder.root().to_owned();
    let spent = block_on(body.clone(), |io| async move {
        let store = ChunkStore::attach(io.clone(), root, None);
        let piece = Buf::alloc(FRAME_PAYLOAD_BYTES_MAX).share();
        let crcs: Vec<_> = block_crcs(&piece).collect();
        let mut spent = Duration::ZERO;
        for n in 1..=rounds {
            let begun = io.now();
            write_chunk(&store, ChunkId(n), &piece, &crcs).await;
            spent += io.now() - begun;
            store.delete(ChunkId(n), GENERATION).await.expect("delete");
        }
        spent
    });
    spent.expect("the I/O body runs")
}

criterion_group!(benches, checksums, frames, store);
criterion_main!(benches);
