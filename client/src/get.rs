//! Reads a whole file or a range of it: several chunks at a time, into a file at their places or into a stream in
//! order.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::ops::Range;
use std::sync::Arc;

use distrifs_proto::types::Crc32c;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::task::JoinSet;

use crate::chunk_reader::{ChunkRange, ReadFile, read_chunk};
use crate::context::Context;
use crate::error::{ClientError, Result};
use crate::meter::Meter;
use crate::progress::Progress;
use crate::read_plan::ReadPlan;
use crate::sink::Sink;
use crate::status::{ChunkLocation, FileStatus};
use crate::transfer::GetTarget;

/// Chunks that are read at once into a file.
const CHUNKS_IN_FLIGHT_MAX: u64 = 4;
/// Parts of chunks that are read at once for a stream, with those that wait for their turn.
const STREAM_PARTS_MAX: u64 = 6;
/// What a stream may hold in memory: a part is held whole until it is checked and its turn has come.
const STREAM_BYTES_MAX: u64 = 96 << 20;
/// A chunk of a stream is read in parts of at most this, whole blocks each.
const STREAM_PART_BYTES_MAX: u64 = 16 << 20;
/// A chunk of a stream up to this is compared with its checksum before any of its bytes go out; longer ones, which
/// would not fit, are checked block by block.
const STREAM_HELD_BYTES_MAX: u64 = 64 << 20;

const _: () = assert!(STREAM_HELD_BYTES_MAX <= STREAM_PARTS_MAX * STREAM_PART_BYTES_MAX);
const _: () = assert!(STREAM_PARTS_MAX * STREAM_PART_BYTES_MAX <= STREAM_BYTES_MAX);

/// Where the parts go.
enum Target {
    File(Arc<File>),
    Stream(Box<dyn AsyncWrite + Send + Unpin>),
}

/// Parts whose bytes go out together.
struct Batch {
    parts: usize,
    /// The chunk that they are, if they are to be compared with its checksum.
    whole: Option<ChunkRange>,
}

/// A part that was read, its checksum and its length.
type Read = (Sink, Crc32c, u64);

/// Reads a file, or `(offset, length)` of it.
pub(crate) async fn get(
    context: &Arc<Context>,
    path: &str,
    range: Option<(u64, u64)>,
    target: GetTarget,
    progress: &dyn Progress,
) -> Result<FileStatus> {
    let plan = ReadPlan::open(context, path, range).await?;
    let status = plan.status.clone();
    progress.started(Some(plan.range.end - plan.range.start));
    let target = match target {
        GetTarget::File(file) => Target::File(Arc::new(file)),
        GetTarget::Stream(stream) => Target::Stream(stream),
    };
    let outcome = read_all(context, path, plan, target, progress).await;
    context.flush_reports().await;
    outcome.map(|()| status)
}

async fn read_all(
    context: &Arc<Context>,
    path: &str,
    mut plan: ReadPlan,
    mut target: Target,
    progress: &dyn Progress,
) -> Result<()> {
    let file = ReadFile { path: path.to_owned(), file_id: plan.status.file_id, trace_id: rand::random() };
    let file = Arc::new(file);
    let in_flight_max = target.in_flight_max(plan.status.chunk_size);
    let meter = Arc::new(Meter::default());
    let mut waiting: VecDeque<ChunkRange> = VecDeque::new();
    // Dropped on an error, which ends the readers.
    let mut readers = JoinSet::new();
    // Read, but not their turn yet.
    let mut held: BTreeMap<u64, Read> = BTreeMap::new();
    let mut batches: VecDeque<Batch> = VecDeque::new();
    let mut crc = Crc32c::default();
    // Of a whole file the file's own checksum is known, which no datanode and no plan of a chunk can change.
    let expected = plan.status.crc32c.filter(|_| plan.range == (0..plan.status.size));
    let (mut started, mut emitted) = (0u64, 0u64);
    loop {
        if waiting.is_empty()
            && let Some(page) = plan.next_page(context).await?
        {
            for chunk in &page {
                let parts = parts(&plan, chunk, target.part_bytes_max());
                batches.extend(batches_of(chunk, &parts));
                waiting.extend(parts);
            }
        }
        while started - emitted < in_flight_max
            && let Some(range) = waiting.pop_front()
        {
            let sink = target.sink(range.start + range.wanted.start - plan.range.start);
            let (context, file, meter, index) = (context.clone(), file.clone(), meter.clone(), started);
            let length = range.wanted.end - range.wanted.start;
            readers
                .spawn(async move { (index, length, read_chunk(context, file, range, sink, meter).await) });
            started += 1;
        }
        if readers.is_empty() {
            break;
        }
        tokio::select! {
            Some(ended) = readers.join_next() => {
                let failed = |text| ClientError::Task { path: path.to_owned(), text };
                let (index, length, outcome) = ended.map_err(|error| failed(error.to_string()))?;
                let (sink, crc) = outcome?;
                held.insert(index, (sink, crc, length));
            }
            () = meter.changed() => {}
        }
        meter.tell(progress);
        while let Some(batch) =
            batches.pop_front_if(|batch| (emitted..).take(batch.parts).all(|part| held.contains_key(&part)))
        {
            let after = emitted + batch.parts as u64;
            let mut ready: Vec<Read> = (emitted..after).filter_map(|part| held.remove(&part)).collect();
            if let Some(whole) = batch.whole.filter(|whole| together(&ready) != whole.chunk.crc32c) {
                // Some replica's blocks are sound and not of this chunk; as one part the chunk is compared as it is
                // read, and whoever is to blame is left for another.
                ready.clear();
                let (length, uncounted) = (whole.chunk.length, Arc::new(Meter::default()));
                let again = read_chunk(context.clone(), file.clone(), whole, target.sink(0), uncounted);
                let (sink, crc) = again.await?;
                ready.push((sink, crc, length));
            }
            for (sink, of_part, length) in ready {
                crc = crc.concat(of_part, length);
                target
                    .emit(sink)
                    .await
                    .map_err(|cause| ClientError::Target { path: path.to_owned(), cause })?;
            }
            emitted = after;
        }
    }
    meter.tell(progress);
    if let Some(expected) = expected.filter(|expected| *expected != crc) {
        return Err(ClientError::WholeCorrupt { path: path.to_owned(), found: crc, expected });
    }
    target.finish().await.map_err(|cause| ClientError::Target { path: path.to_owned(), cause })
}

/// What goes out together of a chunk that is read in these parts: all of them when they are the chunk and it may be held,
/// else each by itself. One that is a single part is compared as it is read.
fn batches_of(chunk: &ChunkLocation, parts: &[ChunkRange]) -> Vec<Batch> {
    match parts {
        [first, _, ..]
            if first.wanted.start == 0
                && parts.last().is_some_and(|last| last.wanted.end == chunk.length)
                && chunk.length <= STREAM_HELD_BYTES_MAX =>
        {
            let whole = ChunkRange { wanted: 0..chunk.length, chunk: chunk.clone(), ..*first };
            vec![Batch { parts: parts.len(), whole: Some(whole) }]
        }
        _ => parts.iter().map(|_| Batch { parts: 1, whole: None }).collect(),
    }
}

fn together(parts: &[Read]) -> Crc32c {
    parts.iter().fold(Crc32c::default(), |crc, (_, of_part, length)| crc.concat(*of_part, *length))
}

/// What is wanted of a chunk, in parts.
fn parts(plan: &ReadPlan, chunk: &ChunkLocation, bytes_max: u64) -> Vec<ChunkRange> {
    let range = |wanted: Range<u64>| ChunkRange {
        chunk: chunk.clone(),
        epoch: plan.epoch,
        start: chunk.index * plan.status.chunk_size,
        wanted,
        direct: false,
    };
    split(plan.wanted(chunk), bytes_max).map(range).collect()
}

/// A range in parts that end at multiples of `bytes_max`.
fn split(wanted: Range<u64>, bytes_max: u64) -> impl Iterator<Item = Range<u64>> {
    let mut at = wanted.start;
    std::iter::from_fn(move || {
        let from = at;
        at = (from / bytes_max + 1).saturating_mul(bytes_max).min(wanted.end);
        (from < at).then_some(from..at)
    })
}

impl Target {
    fn part_bytes_max(&self) -> u64 {
        match self {
            Self::File(_) => u64::MAX,
            Self::Stream(_) => STREAM_PART_BYTES_MAX,
        }
    }

    fn in_flight_max(&self, chunk_size: u64) -> u64 {
        match self {
            Self::File(_) => CHUNKS_IN_FLIGHT_MAX,
            Self::Stream(_) => {
                let part = chunk_size.clamp(1, STREAM_PART_BYTES_MAX);
                (STREAM_BYTES_MAX / part).clamp(1, STREAM_PARTS_MAX)
            }
        }
    }

    /// For a part that begins at this offset of the target.
    fn sink(&self, at: u64) -> Sink {
        match self {
            Self::File(file) => Sink::File(file.clone(), at),
            Self::Stream(_) => Sink::Memory(Vec::new()),
        }
    }

    /// A part whose turn has come.
    async fn emit(&mut self, sink: Sink) -> std::io::Result<()> {
        let (Self::Stream(stream), Sink::Memory(pieces)) = (self, sink) else { return Ok(()) };
        for piece in pieces {
            stream.write_all(piece.bytes()).await?;
        }
        Ok(())
    }

    async fn finish(&mut self) -> std::io::Result<()> {
        match self {
            Self::File(_) => Ok(()),
            Self::Stream(stream) => stream.flush().await,
        }
    }
}

/// A file and all its chunks.
pub(crate) async fn chunks(context: &Context, path: &str) -> Result<(FileStatus, Vec<ChunkLocation>)> {
    let mut plan = ReadPlan::open(context, path, None).await?;
    let mut chunks = Vec::new();
    while let Some(page) = plan.next_page(context).await? {
        chunks.extend(page);
    }
    Ok((plan.status, chunks))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_cover_a_range_without_a_gap() {
        let borders =
            |range, max| split(range, max).flat_map(|part| [part.start, part.end]).collect::<Vec<u64>>();
        assert_eq!(borders(5..25, 10), [5, 10, 10, 20, 20, 25]);
        assert_eq!(borders(0..10, 10), [0, 10]);
        assert_eq!(borders(3..4, 10), [3, 4]);
        assert_eq!(borders(0..100, u64::MAX), [0, 100]);
    }
}
