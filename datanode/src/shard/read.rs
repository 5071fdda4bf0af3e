//! Serves a range of a chunk: whole blocks with their stored checksums, so that the reader checks end to end.

use std::ops::Range;
use std::rc::Rc;
use std::sync::atomic::Ordering;

use distrifs_engine::io::SendHalf;
use distrifs_engine::store::{ChunkReader, StoreError};
use distrifs_proto::ErrorCode;
use distrifs_proto::frame::{self, ErrorBody, Header, Op, PAYLOAD_START};
use distrifs_proto::limits::FRAME_PAYLOAD_BYTES_MAX;
use distrifs_proto::types::{ChunkId, GenerationStamp};

use super::Shard;
use super::trail::Trail;
use crate::node::Counters;
use crate::stage::Stage;

/// A read of so many bytes goes past the page cache when its chunk is read for the first time and is not there.
const PAST_CACHE_BYTES_MIN: u64 = FRAME_PAYLOAD_BYTES_MAX as u64;

/// Why a read ended early.
pub(crate) enum ReadEnd {
    /// To be told to the reader.
    Refused(ErrorBody),
    /// The reader is gone.
    Gone,
}

/// Answers one `Read`. While a piece is on its way to the reader, the next is read.
pub(crate) async fn serve(shard: &Rc<Shard>, request: Header, send: &mut SendHalf) -> Result<(), ReadEnd> {
    let counters = &shard.node.counters;
    Counters::add(&counters.reads, 1);
    Counters::add(&counters.open_reads, 1);
    let trail = Trail::begin(shard, &request);
    let served = stream(shard, request, send, &trail).await;
    trail.end();
    counters.open_reads.fetch_sub(1, Ordering::Relaxed);
    if let Err(ReadEnd::Refused(error)) = &served {
        Counters::add(&counters.reads_failed, 1);
        tracing::debug!(chunk = %request.chunk, error = error.text, "a read was refused");
    }
    served
}

async fn stream(
    shard: &Rc<Shard>,
    request: Header,
    send: &mut SendHalf,
    trail: &Trail,
) -> Result<(), ReadEnd> {
    let refuse = |code, text| ReadEnd::Refused(ErrorBody { code, node: shard.node.id, text });
    let opened = trail.stage(Stage::ReadOpen, open(shard, request.chunk)).await;
    let (reader, disk) = opened.map_err(|e| refuse(e.code(), e.to_string()))?;
    let own = reader.header().generation;
    if request.generation != GenerationStamp(0) && request.generation != own {
        let text = format!(
            "chunk {}: generation {} was asked for, this is {own}",
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
    let device = past_cache(shard, request.chunk, &reader, disk, &covered).await;
    let mut at = covered.start;
    let mut ready = None;
    loop {
        let piece = at..covered.end.min(at + FRAME_PAYLOAD_BYTES_MAX as u64);
        let reading = async {
            if piece.is_empty() {
                return None;
            }
            let length = (piece.end - piece.start) as usize;
            let buffer = trail.stage(Stage::ReadQueue, shard.buffers.for_read(length)).await;
            let from = device.as_ref().filter(|_| !reader.is_cached(&piece)).unwrap_or(&reader);
            Some(trail.stage(Stage::ReadDisk, from.read(buffer, PAYLOAD_START, &piece)).await)
        };
        let sending = async {
            match ready.take() {
                Some((buffer, range)) => trail.stage(Stage::ReadSend, send.send_all(buffer, range)).await,
                None => Ok(()),
            }
        };
        let (sent, read) = tokio::join!(sending, reading);
        sent.map_err(|_| ReadEnd::Gone)?;
        let Some((read, mut buffer)) = read else { return Ok(()) };
        if let Err(error) = read {
            shard.readers.borrow_mut().remove(request.chunk);
            shard.judge(disk, &error);
            return Err(refuse(error.code(), error.to_string()));
        }
        let mut header = request.answer(Op::ReadData);
        header.generation = own;
        header.offset = piece.start;
        header.length = (piece.end - piece.start) as u32;
        header.flags = if piece.end == covered.end { Header::LAST } else { 0 };
        let sealed = async { frame::seal_with(&mut buffer, &header, reader.crcs(&piece).iter().copied()) };
        let range = trail.stage(Stage::ReadSeal, sealed).await;
        Counters::add(&shard.node.counters.bytes_sent, u64::from(header.length));
        ready = Some((buffer.share(), range));
        at = piece.end;
    }
}

/// The same chunk for reads past the page cache, if `bytes` are to be read so.
async fn past_cache(
    shard: &Shard,
    chunk: ChunkId,
    reader: &ChunkReader,
    disk: usize,
    bytes: &Range<u64>,
) -> Option<Rc<ChunkReader>> {
    let large = bytes.end - bytes.start >= PAST_CACHE_BYTES_MIN;
    if !large || reader.is_cached(bytes) || !shard.first_reads.borrow_mut().is_first(chunk) {
        return None;
    }
    let &cluster = shard.node.cluster.get()?;
    match shard.disks[disk].open_direct(cluster, chunk).await {
        Ok(opened) => Some(Rc::new(opened)),
        // The page cache is as good a way.
        Err(error) => {
            tracing::debug!(%chunk, %error, "is read through the page cache");
            None
        }
    }
}

/// The chunk, from the cache or from the disk that has it.
async fn open(shard: &Rc<Shard>, chunk: ChunkId) -> Result<(Rc<ChunkReader>, usize), StoreError> {
    if let Some((reader, disk)) = shard.readers.borrow_mut().get(chunk) {
        return Ok((reader, disk));
    }
    let missing = StoreError::NoSuchChunk { chunk };
    let Some(&cluster) = shard.node.cluster.get() else { return Err(missing) };
    let mut worst = missing;
    for (disk, store) in shard.disks.iter().enumerate() {
        match store.open(cluster, chunk).await {
            Ok(reader) => {
                let reader = Rc::new(reader);
                shard.readers.borrow_mut().insert(chunk, reader.clone(), disk);
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
