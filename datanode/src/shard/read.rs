//! Serves a range of a chunk: whole blocks with their stored checksums, so that the reader checks end to end.

use std::io;
use std::ops::Range;
use std::rc::Rc;
use std::sync::atomic::Ordering;

use distrifs_engine::io::{Buf, Window};
use distrifs_engine::store::{ChunkReader, StoreError};
use distrifs_proto::ErrorCode;
use distrifs_proto::frame::{self, ErrorBody, Header, Op, PAYLOAD_START};
use distrifs_proto::limits::FRAME_PAYLOAD_BYTES_MAX;
use distrifs_proto::types::{ChunkId, GenerationStamp, NodeId};

use super::Shard;
use super::buffers::SMALL_PAYLOAD_BYTES;
use super::outlet::Outlet;
use super::trail::Trail;
use super::wire::control;
use crate::node::Counters;
use crate::stage::Stage;

/// A read of so many bytes goes past the page cache when its chunk is read for the first time and is not there.
const PAST_CACHE_BYTES_MIN: u64 = FRAME_PAYLOAD_BYTES_MAX as u64;

/// Why a read ended early.
enum ReadEnd {
    /// To be told to the reader.
    Refused(ErrorBody),
    /// The reader is gone.
    Gone(io::Error),
}

/// Where the payload of a frame is.
enum Payload {
    /// In its buffer.
    Read(Buf),
    /// In the page cache, from where it is sent. Its buffer is not used, and keeps its place among the reads.
    Cached(Window, Buf),
}

impl Payload {
    /// What is before the payload.
    fn head_mut(&mut self) -> &mut [u8] {
        match self {
            Self::Read(buffer) => &mut buffer[..PAYLOAD_START],
            Self::Cached(window, _) => window.head_mut(),
        }
    }

    /// Sends the frame, with others if it may be `gathered`.
    async fn send(self, outlet: &Outlet, range: Range<usize>, gathered: bool) -> io::Result<()> {
        match self {
            Self::Read(buffer) if gathered => outlet.send_gathered(buffer, range).await,
            Self::Read(buffer) => outlet.send(buffer.share(), range).await,
            Self::Cached(window, _place) => outlet.send_window(window, range).await,
        }
    }
}

/// Answers one `Read`, with a refusal if need be. While a piece is on its way to the reader, the next is read.
pub(crate) async fn serve(shard: &Rc<Shard>, request: Header, outlet: &Outlet) -> io::Result<()> {
    let counters = &shard.node.counters;
    Counters::add(&counters.reads, 1);
    Counters::add(&counters.open_reads, 1);
    let trail = Trail::begin(shard, &request);
    let served = stream(shard, request, outlet, &trail).await;
    trail.end();
    counters.open_reads.fetch_sub(1, Ordering::Relaxed);
    match served {
        Ok(()) => Ok(()),
        Err(ReadEnd::Gone(error)) => Err(error),
        Err(ReadEnd::Refused(error)) => {
            Counters::add(&counters.reads_failed, 1);
            tracing::debug!(chunk = %request.chunk, error = error.text, "a read was refused");
            let (frame, place) = control(request.answer(Op::Error), &error.encode());
            outlet.send(frame, place).await
        }
    }
}

/// The whole blocks that a read is answered with.
pub(crate) fn covered(own: NodeId, request: &Header, reader: &ChunkReader) -> Result<Range<u64>, ErrorBody> {
    let refuse = |code, text| ErrorBody { code, node: own, text };
    let generation = reader.header().generation;
    if request.generation != GenerationStamp(0) && request.generation != generation {
        let text = format!(
            "chunk {}: generation {} was asked for, this is {generation}",
            request.chunk, request.generation
        );
        return Err(refuse(ErrorCode::StaleGeneration, text));
    }
    let covered = reader.covering(request.offset, u64::from(request.length));
    if covered.is_empty() {
        let length = reader.header().length;
        let text = format!("{} bytes at {}: the chunk has {length}", request.length, request.offset);
        return Err(refuse(ErrorCode::InvalidArgument, text));
    }
    Ok(covered)
}

/// The header of a piece of the answer.
pub(crate) fn answer(request: &Header, reader: &ChunkReader, piece: &Range<u64>, last: bool) -> Header {
    Header {
        generation: reader.header().generation,
        offset: piece.start,
        length: (piece.end - piece.start) as u32,
        flags: if last { Header::LAST } else { 0 },
        ..request.answer(Op::ReadData)
    }
}

async fn stream(shard: &Rc<Shard>, request: Header, outlet: &Outlet, trail: &Trail) -> Result<(), ReadEnd> {
    let refuse = |code, text| ReadEnd::Refused(ErrorBody { code, node: shard.node.id, text });
    let opened = trail.stage(Stage::ReadOpen, open(shard, request.chunk, request.is_direct())).await;
    let (reader, disk) = opened.map_err(|e| refuse(e.code(), e.to_string()))?;
    let covered = covered(shard.node.id, &request, &reader).map_err(ReadEnd::Refused)?;
    let device = past_cache(shard, &request, &reader, &covered).await;
    // Whoever wants to see how it passes from stage to stage would miss the end of its send.
    let gathered = !request.is_traced();
    let mut at = covered.start;
    let mut ready: Option<(Payload, Range<usize>)> = None;
    loop {
        let piece = at..covered.end.min(at + FRAME_PAYLOAD_BYTES_MAX as u64);
        let reading = async {
            if piece.is_empty() {
                return None;
            }
            let length = (piece.end - piece.start) as usize;
            let buffer = trail.stage(Stage::ReadQueue, shard.buffers.for_read(length)).await;
            Some(trail.stage(Stage::ReadDisk, fetch(&reader, device.as_deref(), buffer, &piece)).await)
        };
        let sending = async {
            match ready.take() {
                Some((payload, range)) => {
                    trail.stage(Stage::ReadSend, payload.send(outlet, range, gathered)).await
                }
                None => Ok(()),
            }
        };
        let (sent, read) = tokio::join!(sending, reading);
        if let Err(error) = sent {
            if Window::is_unreadable(&error) {
                // Its buffer first: those who hold one and wait for another would wait for each other.
                drop(read);
                let before = covered.start.max(at.saturating_sub(FRAME_PAYLOAD_BYTES_MAX as u64))..at;
                judge_unreadable(shard, request.chunk, (&reader, disk), &before).await;
            }
            return Err(ReadEnd::Gone(error));
        }
        let Some((read, mut payload)) = read else { return Ok(()) };
        if let Err(error) = read {
            judge_failed(shard, request.chunk, disk, &error);
            return Err(refuse(error.code(), error.to_string()));
        }
        let header = answer(&request, &reader, &piece, piece.end == covered.end);
        let sealed =
            async { frame::seal_with(payload.head_mut(), &header, reader.crcs(&piece).iter().copied()) };
        let range = trail.stage(Stage::ReadSeal, sealed).await;
        Counters::add(&shard.node.counters.bytes_sent, u64::from(header.length));
        ready = Some((payload, range));
        at = piece.end;
    }
}

/// Gets hold of a piece: in the page cache where it is worth a mapping, else through it or, if it is not there, from the
/// device.
async fn fetch(
    reader: &ChunkReader,
    device: Option<&ChunkReader>,
    buffer: Buf,
    piece: &Range<u64>,
) -> (Result<(), StoreError>, Payload) {
    if piece.end - piece.start > SMALL_PAYLOAD_BYTES as u64
        && let Some(window) = reader.window(PAYLOAD_START, piece)
    {
        return (Ok(()), Payload::Cached(window, buffer));
    }
    let from = device.filter(|_| !reader.is_cached(piece)).unwrap_or(reader);
    let (read, buffer) = from.read(buffer, PAYLOAD_START, piece).await;
    (read, Payload::Read(buffer))
}

fn judge_failed(shard: &Shard, chunk: ChunkId, disk: usize, error: &StoreError) {
    shard.readers.borrow_mut().remove(chunk);
    shard.judge(disk, error);
}

/// Judges a disk that did not give back what left the page cache on its way to the reader. The send does not say why,
/// an ordinary read does.
async fn judge_unreadable(
    shard: &Shard,
    chunk: ChunkId,
    (reader, disk): (&ChunkReader, usize),
    bytes: &Range<u64>,
) {
    let buffer = shard.buffers.for_read((bytes.end - bytes.start) as usize).await;
    if let (Err(error), _) = reader.read(buffer, PAYLOAD_START, bytes).await {
        tracing::warn!(%chunk, %error, "could not be read while it was sent");
        judge_failed(shard, chunk, disk, &error);
    }
}

/// The same chunk for reads past the page cache, if `bytes` are to be read so.
async fn past_cache(
    shard: &Rc<Shard>,
    request: &Header,
    reader: &ChunkReader,
    bytes: &Range<u64>,
) -> Option<Rc<ChunkReader>> {
    let large = bytes.end - bytes.start >= PAST_CACHE_BYTES_MIN;
    if !large || request.is_direct() || reader.is_cached(bytes) {
        return None;
    }
    if !shard.first_reads.borrow_mut().is_first(request.chunk, bytes) {
        return None;
    }
    match open(shard, request.chunk, true).await {
        Ok((opened, _)) => Some(opened),
        // The page cache is as good a way.
        Err(error) => {
            tracing::debug!(chunk = %request.chunk, %error, "is read through the page cache");
            None
        }
    }
}

/// The chunk, from the cache of open ones or from the disk that has it.
async fn open(
    shard: &Rc<Shard>,
    chunk: ChunkId,
    direct: bool,
) -> Result<(Rc<ChunkReader>, usize), StoreError> {
    if let Some((reader, disk)) = shard.readers.borrow_mut().get(chunk, direct) {
        return Ok((reader, disk));
    }
    let missing = StoreError::NoSuchChunk { chunk };
    let Some(&cluster) = shard.node.cluster.get() else { return Err(missing) };
    let mut worst = missing;
    let forgotten = shard.readers.borrow().forgotten();
    for (disk, store) in shard.disks.iter().enumerate() {
        let opened =
            if direct { store.open_direct(cluster, chunk).await } else { store.open(cluster, chunk).await };
        match opened {
            Ok(reader) => {
                let reader = Rc::new(reader);
                let mut readers = shard.readers.borrow_mut();
                if readers.forgotten() == forgotten {
                    readers.insert(chunk, direct, reader.clone(), disk);
                }
                return Ok((reader, disk));
            }
            Err(StoreError::NoSuchChunk { .. }) => {}
            Err(error) => {
                shard.judge(disk, &error);
                worst = error;
            }
        }
    }
    if worst.code() == ErrorCode::Corrupt {
        tracing::warn!(%chunk, error = %worst, "a replica is corrupt");
    }
    Err(worst)
}
