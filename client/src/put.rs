//! Writes a whole file: opens it, writes its chunks several at a time, closes it; or gives it up without a trace. A
//! small one is made in one step, see [`crate::whole`].

use std::collections::BTreeMap;
use std::fs::{File, Metadata};
use std::io::Cursor;
use std::os::unix::fs::MetadataExt;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use distrifs_proto::grpc::v1;
use distrifs_proto::limits::{BLOCK_BYTES, CHUNK_BYTES_MAX, FILE_CHUNKS_MAX, FRAME_PAYLOAD_BYTES_MAX};
use distrifs_proto::types::{Crc32c, FileId};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::chunk_writer::{OpenFile, Origin, source_failed, write_chunk};
use crate::context::Context;
use crate::error::{ClientError, Result};
use crate::grants::Shape;
use crate::lease::Lease;
use crate::master_link::new_request_id;
use crate::meter::Meter;
use crate::plan::Plan;
use crate::progress::Progress;
use crate::source::{ChunkSource, SourceError, read_frame};
use crate::status::FileStatus;
use crate::transfer::{PutOptions, PutSource};
use crate::whole::{SMALL_FILE_BYTES_MAX, put_whole};

/// Chunks on their way at once: one is made durable while the next streams. With four, clients beside each other drove
/// each other's frames out of the processors' caches: a tenth less throughput for more CPU.
const CHUNKS_IN_FLIGHT_MAX: usize = 2;
/// What the chunks of a stream may take in memory, by whole frames: one of the default size and the beginning of the
/// next. One chunk is always allowed.
const STREAM_BYTES_MAX: u64 = 96 << 20;

/// By how much the room for the beginning of a stream grows.
const FIRST_READ_BYTES: usize = 64 << 10;
/// How long the beginning of a stream is waited for when it pauses: that it is small is worth no more.
const FIRST_READ_PAUSE_MAX: Duration = Duration::from_millis(20);

type Stream = Box<dyn AsyncRead + Send + Sync + Unpin>;

/// What is left of the source.
pub(crate) enum Feed {
    File {
        file: Arc<File>,
        length: u64,
        before: Metadata,
    },
    /// Its first bytes were read, and put back in front, before the file was opened.
    Stream {
        stream: Stream,
        /// All of it, if it ended early enough.
        small: Option<Arc<[u8]>>,
    },
}

/// Writes a file.
pub(crate) async fn put(
    context: &Arc<Context>,
    source: PutSource,
    path: &str,
    options: &PutOptions,
    progress: &dyn Progress,
) -> Result<FileStatus> {
    let mut feed = Feed::new(source, path).await?;
    progress.started(feed.length());
    if feed.is_small(options.chunk_size.or(context.config.chunk_size))
        && let Some(outcome) = put_whole(context, &feed, path, options, progress).await
    {
        return outcome;
    }
    let asked = Shape::asked(options, &context.config);
    let opened = context.master.create(
        path,
        v1::CreateRequest {
            request_id: new_request_id(),
            path: path.to_owned(),
            overwrite: options.overwrite,
            mode: options.mode,
            replication: asked.replication,
            chunk_size: asked.chunk_size,
            first_chunk: !feed.is_empty(),
        },
    );
    let opened = opened.await?;
    let file_id = FileId(opened.file_id);
    let file = Arc::new(OpenFile::new(path, Origin::Opened(file_id), opened.replication));
    let lease = Duration::from_millis(opened.lease_ms);
    let _lease = Lease::keep(context.clone(), path.to_owned(), file_id, lease);

    let written = write_all(context, &file, opened, &mut feed, progress).await;
    let unchanged = written.and_then(|chunks| feed.check_unchanged(path).map(|()| chunks));
    let closed = match unchanged {
        Ok(chunks) => close(context, path, file_id, chunks).await,
        Err(error) => Err(error),
    };
    if closed.is_err() {
        let message = v1::AbandonRequest { request_id: new_request_id(), file_id: file_id.0 };
        if let Err(error) = context.master.abandon(path, message).await {
            // Nothing is visible anyway; the lease will end.
            tracing::debug!(path, %error, "an unfinished file was not given up");
        }
    }
    closed
}

impl Feed {
    async fn new(source: PutSource, path: &str) -> Result<Self> {
        let failed = |cause| ClientError::Source { path: path.to_owned(), cause };
        match source {
            PutSource::File(file, length) => {
                let before = file.metadata().map_err(failed)?;
                Ok(Self::File { file: Arc::new(file), length, before })
            }
            PutSource::Stream(mut stream) => {
                let mut first = Vec::new();
                let ended = read_beginning(&mut stream, &mut first).await.map_err(failed)?;
                let first: Arc<[u8]> = first.into();
                let small = ended.then(|| first.clone());
                let stream = Box::new(Cursor::new(first).chain(stream));
                Ok(Self::Stream { stream, small })
            }
        }
    }

    fn length(&self) -> Option<u64> {
        match self {
            Self::File { length, .. } => Some(*length),
            Self::Stream { .. } => None,
        }
    }

    fn is_empty(&self) -> bool {
        match self {
            Self::File { length, .. } => *length == 0,
            Self::Stream { small, .. } => small.as_ref().is_some_and(|bytes| bytes.is_empty()),
        }
    }

    /// Whether it is worth to be put in one step, and may fit into one chunk: the master's default size is not known.
    fn is_small(&self, chunk_size: Option<u64>) -> bool {
        let length = match self {
            Self::File { length, .. } => *length,
            Self::Stream { small: Some(bytes), .. } => bytes.len() as u64,
            Self::Stream { small: None, .. } => return false,
        };
        length <= SMALL_FILE_BYTES_MAX && chunk_size.is_none_or(|size| length <= size)
    }

    /// All of a small one, `None` when it is empty.
    pub(crate) fn small_chunk(&self, context: &Context) -> Option<ChunkSource> {
        let buffers = context.buffers.clone();
        match self {
            Self::File { file, length, .. } if *length > 0 => {
                Some(ChunkSource::of_file(file.clone(), 0, *length, buffers))
            }
            Self::Stream { small: Some(bytes), .. } if !bytes.is_empty() => {
                Some(ChunkSource::of_bytes(bytes, &buffers))
            }
            _ => None,
        }
    }

    /// The chunk of this index, `None` behind the last. Asked for in order. That of a stream takes its frames' room, for
    /// which it waits frame by frame, until it is dropped.
    async fn chunk(
        &mut self,
        context: &Context,
        index: u64,
        size: u64,
        room: &Arc<Semaphore>,
    ) -> Result<Option<ChunkSource>, SourceError> {
        match self {
            Self::File { file, length, .. } => {
                let start = index.saturating_mul(size);
                let left = length.saturating_sub(start);
                let buffers = context.buffers.clone();
                Ok((left > 0).then(|| ChunkSource::of_file(file.clone(), start, left.min(size), buffers)))
            }
            Self::Stream { stream, .. } => {
                let (mut taken, mut frames) = (None::<OwnedSemaphorePermit>, Vec::new());
                let mut left = size;
                while left > 0 {
                    let want = left.min(FRAME_PAYLOAD_BYTES_MAX as u64) as usize;
                    let more = room.clone().acquire_owned().await.expect("never closed");
                    let Some(frame) = read_frame(stream, &context.buffers, want).await? else { break };
                    match &mut taken {
                        Some(taken) => taken.merge(more),
                        None => taken = Some(more),
                    }
                    let len = frame.len();
                    left -= len as u64;
                    frames.push(frame);
                    if len < want {
                        break;
                    }
                }
                Ok((!frames.is_empty()).then_some(ChunkSource::Memory { frames, _room: taken }))
            }
        }
    }

    /// Whether the source is still what was put.
    pub(crate) fn check_unchanged(&self, path: &str) -> Result<()> {
        let Self::File { file, length, before } = self else { return Ok(()) };
        let after = file.metadata().map_err(|cause| ClientError::Source { path: path.to_owned(), cause })?;
        let times = |m: &Metadata| (m.mtime(), m.mtime_nsec());
        let changed = |what: String| Err(ClientError::SourceChanged { path: path.to_owned(), what });
        if after.len() != *length {
            return changed(format!("it had {length} bytes and has {} now", after.len()));
        }
        if times(&after) != times(before) {
            return changed("it was written to".into());
        }
        Ok(())
    }
}

/// Frames of a stream that may be in memory at once: what is sent must be there to be sent again.
fn stream_frames_max(chunk_size: u64) -> usize {
    STREAM_BYTES_MAX.max(chunk_size).div_ceil(FRAME_PAYLOAD_BYTES_MAX as u64) as usize
}

/// Writes all chunks; in file order.
async fn write_all(
    context: &Arc<Context>,
    file: &Arc<OpenFile>,
    opened: v1::CreateReply,
    feed: &mut Feed,
    progress: &dyn Progress,
) -> Result<Vec<v1::WrittenChunk>> {
    let size = opened.chunk_size;
    if size == 0 || size > CHUNK_BYTES_MAX || !size.is_multiple_of(BLOCK_BYTES as u64) {
        return Err(file.malformed(format!("a chunk size of {size} bytes")));
    }
    if opened.replication == 0 {
        return Err(file.malformed("a replication factor of 0".into()));
    }
    let mut planned = match opened.first_chunk {
        Some(plan) if !feed.is_empty() => {
            let plan = Plan::check(Some(plan), opened.epoch, opened.replication);
            Some(plan.map_err(|what| file.malformed(what))?)
        }
        _ => None,
    };
    let room = Arc::new(Semaphore::new(stream_frames_max(size)));
    let meter = Arc::new(Meter::default());
    // Dropped on an error, which ends the writers.
    let mut writers = Writers { tasks: JoinSet::new(), written: BTreeMap::new() };
    let (mut index, mut more) = (0, !feed.is_empty());
    loop {
        if !more && writers.tasks.is_empty() {
            break;
        }
        if !more || writers.tasks.len() >= CHUNKS_IN_FLIGHT_MAX {
            tokio::select! {
                outcome = writers.next() => outcome.map_err(|text| task_failed(file, text))??,
                () = meter.changed() => {}
            }
            meter.tell(progress);
            continue;
        }
        let chunk = {
            // A slow stream must not hide what becomes of the chunks before.
            let mut reading = pin!(feed.chunk(context, index, size, &room));
            loop {
                tokio::select! {
                    chunk = &mut reading => break chunk,
                    outcome = writers.next(), if !writers.tasks.is_empty() => {
                        outcome.map_err(|text| task_failed(file, text))??;
                    }
                    () = meter.changed() => {}
                }
                meter.tell(progress);
            }
        };
        let Some(source) = chunk.map_err(|error| source_failed(&file.path, error))? else {
            more = false;
            continue;
        };
        if index >= FILE_CHUNKS_MAX as u64 {
            let what = format!("more than {FILE_CHUNKS_MAX} chunks of {size} bytes: take larger chunks");
            return Err(ClientError::Invalid { path: file.path.clone(), what });
        }
        // A shorter chunk is the last one.
        more = source.length() == size;
        let (context, file, meter) = (context.clone(), file.clone(), meter.clone());
        let (at, mut source, mut plan) = (index, source, planned.take());
        writers.tasks.spawn(async move {
            (at, write_chunk(&context, &file, at, &mut source, &mut plan, &meter).await)
        });
        index += 1;
    }
    meter.tell(progress);
    Ok(writers.written.into_values().collect())
}

/// The chunks on their way, and those that arrived by their place in the file.
struct Writers {
    tasks: JoinSet<(u64, Result<v1::WrittenChunk>)>,
    written: BTreeMap<u64, v1::WrittenChunk>,
}

impl Writers {
    /// Waits for one to end; the outer error is that of a task that ended abnormally.
    async fn next(&mut self) -> Result<Result<()>, String> {
        match self.tasks.join_next().await {
            None => Ok(Ok(())),
            Some(Err(error)) => Err(error.to_string()),
            Some(Ok((index, Ok(chunk)))) => {
                self.written.insert(index, chunk);
                Ok(Ok(()))
            }
            Some(Ok((_, Err(error)))) => Ok(Err(error)),
        }
    }
}

fn task_failed(file: &OpenFile, text: String) -> ClientError {
    ClientError::Task { path: file.path.clone(), text }
}

/// Reads what a small file may have; says whether the stream has ended. One that pauses is not waited for.
async fn read_beginning(stream: &mut Stream, first: &mut Vec<u8>) -> std::io::Result<bool> {
    while first.len() as u64 <= SMALL_FILE_BYTES_MAX {
        first.reserve(FIRST_READ_BYTES);
        // What there is at all is waited for: an empty file is made without a plan.
        let pause = if first.is_empty() { Duration::MAX } else { FIRST_READ_PAUSE_MAX };
        let Ok(n) = timeout(pause, stream.read_buf(first)).await else { return Ok(false) };
        if n? == 0 {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Makes the file appear, and compares what the master recorded with what was sent.
async fn close(
    context: &Context,
    path: &str,
    file_id: FileId,
    chunks: Vec<v1::WrittenChunk>,
) -> Result<FileStatus> {
    let (sent, length) = chunks.iter().fold((Crc32c::default(), 0), |(crc, length), chunk| {
        (crc.concat(Crc32c(chunk.crc32c), chunk.length), length + chunk.length)
    });
    let message = v1::CompleteRequest { request_id: new_request_id(), file_id: file_id.0, chunks };
    let reply = context.master.complete(path, message).await?;
    check_recorded(path, reply.status, sent, length)
}

/// The status of a file that has just appeared, if it is what was sent.
pub(crate) fn check_recorded(
    path: &str,
    status: Option<v1::FileStatus>,
    sent: Crc32c,
    length: u64,
) -> Result<FileStatus> {
    let malformed = |what| ClientError::Protocol { path: path.to_owned(), peer: "the master".into(), what };
    let status = status.ok_or_else(|| malformed("no status in the answer".into()))?;
    let status = FileStatus::try_from(status).map_err(malformed)?;
    if status.size != length {
        return Err(malformed(format!("{length} bytes were written, {} recorded", status.size)));
    }
    match status.crc32c {
        Some(recorded) if recorded != sent => {
            Err(ClientError::Mismatch { path: path.to_owned(), sent, recorded })
        }
        _ => Ok(status),
    }
}

#[cfg(test)]
mod tests {
    use tokio::task::yield_now;

    use super::*;
    use crate::config::ClientConfig;

    const FRAME: u64 = FRAME_PAYLOAD_BYTES_MAX as u64;

    #[test]
    fn a_stream_may_hold_one_chunk_and_the_beginning_of_the_next() {
        for (chunk, frames) in [(4096, 96), (64 << 20, 96), (96 << 20, 96), (100 << 20, 100)] {
            assert_eq!(stream_frames_max(chunk), frames, "{chunk}");
        }
        assert_eq!(stream_frames_max((100 << 20) + 4096), 101, "the last frame of a chunk takes a whole one");
    }

    #[tokio::test]
    async fn a_stream_is_read_no_further_than_there_is_room_until_a_chunk_has_gone() {
        let context = Context::new(ClientConfig::new(Vec::new(), "tester"));
        let (room, size) = (Arc::new(Semaphore::new(5)), 3 * FRAME);
        let source = PutSource::Stream(Box::new(tokio::io::repeat(7).take(2 * size + 1)));
        let mut feed = Feed::new(source, "/a").await.unwrap();
        let first = feed.chunk(&context, 0, size, &room).await.unwrap().unwrap();
        assert_eq!((first.length(), room.available_permits()), (size, 2));
        {
            let mut second = pin!(feed.chunk(&context, 1, size, &room));
            while room.available_permits() > 0 {
                tokio::select! {
                    biased;
                    _ = &mut second => panic!("there is no room for all of it"),
                    () = yield_now() => {}
                }
            }
            drop(first);
            let second = second.await.unwrap().unwrap();
            assert_eq!((second.length(), room.available_permits()), (size, 2));
        }
        // Of what is shorter no more is taken than it has, and behind the end nothing.
        let last = feed.chunk(&context, 2, size, &room).await.unwrap().unwrap();
        assert_eq!((last.length(), room.available_permits()), (1, 4));
        assert!(feed.chunk(&context, 3, size, &room).await.unwrap().is_none());
        drop(last);
        assert_eq!(room.available_permits(), 5);
    }
}
