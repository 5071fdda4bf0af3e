//! The log's thread: takes what waits, writes it as one group, answers, and goes on.
//!
//! One write is in flight at a time and none is ever repeated. The next segment is made by a thread of its own
//! as soon as the last one comes into use, so that a change costs one small write: the new segment's header.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use distrifs_proto::types::{ClusterId, Crc32c, Epoch, Lsn};
use tokio::sync::{mpsc, oneshot};

use super::batch::Batch;
use super::error::{LogError, is_no_space};
use super::format::{
    BLOCK_BYTES, GroupHeader, SECTOR_BYTES, SegmentHeader, Witness, encode_group, group_blocks, segment_name,
    spread,
};
use super::limits::{append_bytes_max, reserve_bytes};
use super::prepare::{prepare_segment, write_witness};
use super::queue::{Append, Release, Request};
use super::recovery::{ActiveSegment, Position};
use super::release::{Job, KeptSegment, Released, releasable};
use super::stats::Counters;
use crate::folder::{AlignedBuf, Body, Folder, FolderLock, SegmentFile};

/// How often the next segment is tried before the appends that need it are refused. Twice, since what was tried
/// in the background may have failed long ago, and there may be room by now.
const PREPARE_TRIES: u32 = 2;

/// Everything the thread begins with.
pub(super) struct Start {
    pub(super) folder: Folder,
    pub(super) body: Body,
    pub(super) cluster: ClusterId,
    pub(super) epoch: Epoch,
    pub(super) segment_bytes: u64,
    pub(super) position: Position,
    pub(super) segments_max: usize,
    /// The segments that were in use, oldest first; the last is the active one.
    pub(super) kept: VecDeque<KeptSegment>,
    pub(super) active: Option<ActiveSegment>,
    /// The sequence of the next segment, and its size when it is ready.
    pub(super) next_sequence: u64,
    pub(super) unused: Option<u64>,
    pub(super) salt: fn() -> u64,
    pub(super) lock: Option<FolderLock>,
    pub(super) counters: Arc<Counters>,
}

/// A segment that may be written.
struct Open {
    segment: ActiveSegment,
    file: SegmentFile,
}

/// The segment after the one in use.
enum Next {
    /// Nobody makes it: the last attempt failed.
    None,
    /// It is being made.
    Coming(oneshot::Receiver<io::Result<()>>),
    /// It is ready; its size.
    Ready(u64),
}

/// A release that is under way.
struct Releasing {
    /// What it was told to remove.
    remove: Vec<KeptSegment>,
    /// What of that is still there when it has ended.
    left: oneshot::Receiver<Vec<KeptSegment>>,
}

/// Why the thread can write no more.
#[derive(Clone)]
struct Poison {
    since: Lsn,
    cause: Arc<io::Error>,
}

impl From<Poison> for LogError {
    fn from(poison: Poison) -> Self {
        Self::Poisoned { since: poison.since, cause: poison.cause }
    }
}

pub(super) struct Writer {
    start: Start,
    requests: mpsc::Receiver<Request>,
    /// A request that was taken from the queue and did not fit into the last group.
    held: Option<Request>,
    position: Position,
    open: Option<Open>,
    next: Next,
    next_sequence: u64,
    /// Segments that were released and may still be there.
    left: Vec<KeptSegment>,
    releasing: Option<Releasing>,
    poison: Option<Poison>,
    buf: AlignedBuf,
    /// The group before it is laid out in sectors; kept for its memory.
    stream: Vec<u8>,
}

/// What is left to say when the thread has let go of everything.
pub(super) type Farewell = Option<(oneshot::Sender<Result<(), LogError>>, Result<(), LogError>)>;

impl Writer {
    /// To be called on the log's thread, within its runtime.
    pub(super) fn new(start: Start, requests: mpsc::Receiver<Request>) -> io::Result<Self> {
        let open = match start.active {
            Some(segment) => {
                let file = start.folder.open_segment(&segment_name(segment.sequence), start.body)?;
                Some(Open { segment, file })
            }
            None => None,
        };
        let bytes = group_blocks(append_bytes_max(start.segment_bytes)) * BLOCK_BYTES;
        Ok(Self {
            requests,
            held: None,
            position: start.position,
            open,
            next: start.unused.map_or(Next::None, Next::Ready),
            next_sequence: start.next_sequence,
            left: Vec::new(),
            releasing: None,
            poison: None,
            buf: AlignedBuf::zeroed(bytes),
            stream: Vec::new(),
            start,
        })
    }

    /// Serves until the log is closed or nobody holds it any more.
    pub(super) async fn run(mut self) -> Farewell {
        let close = loop {
            let request = match self.held.take() {
                Some(request) => Some(request),
                None => self.requests.recv().await,
            };
            match request {
                Some(Request::Append(append)) => self.append(append).await,
                Some(Request::Release(release)) => self.release(release).await,
                Some(Request::Run(beside)) => (beside.0)(),
                Some(Request::Close(answer)) => break Some(answer),
                None => break None,
            }
        };
        self.refuse_the_rest().await;
        if let Some(open) = self.open.take() {
            open.file.close().await;
        }
        if let Next::Coming(made) = std::mem::replace(&mut self.next, Next::None) {
            // Nobody may work in the folder once the lock is gone. Its outcome no longer matters.
            let _ = made.await;
        }
        self.settle().await;
        let result = self.clean_end(close.is_some());
        close.map(|answer| (answer, result))
    }

    /// Those that came after the close were never taken in.
    async fn refuse_the_rest(&mut self) {
        self.requests.close();
        while let Some(request) = self.requests.recv().await {
            match request {
                Request::Append(append) => append.answer(Err(LogError::Closed)),
                Request::Release(release) => {
                    let _ = release.answer.send(Err(LogError::Closed));
                }
                Request::Run(_) => {}
                Request::Close(answer) => {
                    let _ = answer.send(Err(LogError::Closed));
                }
            }
        }
    }

    /// Writes the witness.
    fn clean_end(&self, wanted: bool) -> Result<(), LogError> {
        if let Some(poison) = &self.poison {
            return Err(poison.clone().into());
        }
        let last_lsn = Lsn(self.position.next_lsn.0 - 1);
        if !wanted || last_lsn == Lsn(0) {
            return Ok(());
        }
        write_witness(&self.start.folder, &self.witness()).map_err(|cause| LogError::Io {
            path: self.start.folder.path().to_owned(),
            doing: "write the witness",
            cause: Arc::new(cause),
        })
    }

    /// What is known to be durable now.
    fn witness(&self) -> Witness {
        Witness {
            cluster: self.start.cluster,
            first_sequence: self.start.kept.front().map_or(self.next_sequence, |first| first.sequence),
            last_lsn: Lsn(self.position.next_lsn.0 - 1),
            seal: self.position.seal,
        }
    }

    /// Plans a release and has it done by a thread of its own.
    async fn release(&mut self, release: Release) {
        let Release { upto, answer, turn } = release;
        if let Some(poison) = &self.poison {
            // What the next recovery finds is unknown: let it find as much as there is.
            let _ = answer.send(Err(poison.clone().into()));
            return;
        }
        // The one before has ended, since it had the turn; its word may still be unread.
        self.settle().await;
        let count = releasable(&self.start.kept, upto);
        let first_lsn = self.start.kept.get(count).map_or(self.position.next_lsn, |first| first.first_lsn);
        self.left.extend(self.start.kept.drain(..count));
        let remove = std::mem::take(&mut self.left);
        if remove.is_empty() {
            let _ = answer.send(Ok(Released { segments: 0, bytes: 0, left: 0, first_lsn }));
            return;
        }
        let job = Job {
            folder: self.start.folder.clone(),
            witness: self.witness(),
            first_lsn,
            remove: remove.clone(),
            counters: self.start.counters.clone(),
        };
        let (done, left) = oneshot::channel();
        let work = move || {
            let (result, left) = job.run();
            // The log may have gone meanwhile, and so may the caller.
            let _ = done.send(left);
            drop(turn);
            let _ = answer.send(result);
        };
        match std::thread::Builder::new().name("log-release".into()).spawn(work) {
            Ok(_) => self.releasing = Some(Releasing { remove, left }),
            Err(error) => {
                // The answer went with it: the caller hears of it so.
                tracing::error!(%error, "no thread for a release of log segments");
                self.left = remove;
            }
        }
    }

    /// Waits until no release is under way.
    async fn settle(&mut self) {
        if let Some(releasing) = self.releasing.take() {
            // A thread that died may have removed them or not; the next one finds out.
            self.left = releasing.left.await.unwrap_or(releasing.remove);
        }
    }

    /// How many segments may be on disk, without the one that is made ready.
    fn on_disk(&self) -> usize {
        let releasing = self.releasing.as_ref().map_or(0, |releasing| releasing.remove.len());
        self.start.kept.len() + self.left.len() + releasing
    }

    /// Writes this append with all that wait behind it, as far as they fit.
    async fn append(&mut self, first: Append) {
        let mut batch = Batch::new(append_bytes_max(self.start.segment_bytes));
        let from_reserve = first.from_reserve;
        let fits = batch.take(first.bytes, first.records.len());
        debug_assert!(fits, "the caller's side refuses what does not fit");
        let mut appends = vec![first];
        while let Ok(request) = self.requests.try_recv() {
            match request {
                // Of one kind: an append that may not take the reserve must not have the others refused.
                Request::Append(append)
                    if append.from_reserve == from_reserve
                        && batch.take(append.bytes, append.records.len()) =>
                {
                    appends.push(append);
                }
                other => {
                    self.held = Some(other);
                    break;
                }
            }
        }
        match self.commit(&appends, batch, from_reserve).await {
            Ok(()) => {
                let mut next = self.position.next_lsn.0 - batch.records() as u64;
                for append in appends {
                    let first = Lsn(next);
                    next += append.records.len() as u64;
                    append.answer(Ok(first..Lsn(next)));
                }
            }
            Err(error) => {
                for append in appends {
                    append.answer(Err(error.clone()));
                }
            }
        }
    }

    /// Writes one group. When this returns `Ok` it is durable, and the position is behind it.
    async fn commit(&mut self, appends: &[Append], batch: Batch, from_reserve: bool) -> Result<(), LogError> {
        if let Some(poison) = &self.poison {
            return Err(poison.clone().into());
        }
        let len = group_blocks(batch.bytes()) * BLOCK_BYTES;
        let room = self.open.as_ref().map(|open| (open.segment.end + len as u64, open.segment.bytes));
        let made_room = match room {
            Some((end, bytes)) if end + reserve_bytes(bytes) <= bytes || (from_reserve && end <= bytes) => {
                Ok(())
            }
            // Not into the reserve as long as no segment follows.
            Some((end, bytes)) if end <= bytes => self.ready().await.map(drop),
            _ => self.switch().await,
        };
        if let Err(error) = made_room {
            if let LogError::NoSpace { .. } = error {
                self.start.counters.no_space(appends.len());
            }
            return Err(error);
        }
        let Some(open) = &self.open else { return Err(LogError::Closed) };
        let header = GroupHeader {
            count: 0,
            salt: open.segment.salt,
            first_lsn: self.position.next_lsn,
            epoch: self.start.epoch,
            body_len: 0,
            previous: self.position.seal,
            body_crc: Crc32c(0),
        };
        let at = open.segment.end;
        let records = appends.iter().flat_map(|append| append.records.iter().map(Bytes::as_ref));
        let seal = encode_group(header, records, &mut self.stream);
        spread(&self.stream, open.segment.salt, at / SECTOR_BYTES as u64, &mut self.buf[..len]);
        self.write(len, at).await?;

        if let Some(open) = &mut self.open {
            open.segment.end = at + len as u64;
        }
        self.position.next_lsn.0 += batch.records() as u64;
        self.position.seal = seal;
        self.position.epoch = self.start.epoch;
        self.start.counters.group(appends.len(), batch.records());
        Ok(())
    }

    /// One durable write of the buffer's first `len` bytes; anything else than success poisons the log.
    async fn write(&mut self, len: usize, at: u64) -> Result<(), LogError> {
        let Some(open) = &self.open else { return Err(LogError::Closed) };
        let buf = std::mem::replace(&mut self.buf, AlignedBuf::zeroed(0));
        let began = Instant::now();
        let (result, buf) = open.file.write_once(buf, len, at).await;
        self.buf = buf;
        match result {
            Ok(written) if written == len => {
                self.start.counters.synced(len, began.elapsed());
                Ok(())
            }
            Ok(written) => {
                let text = format!("short write: {written} of {len} bytes");
                Err(self.poisoned(io::Error::new(io::ErrorKind::WriteZero, text)))
            }
            Err(error) => Err(self.poisoned(error)),
        }
    }

    fn poisoned(&mut self, cause: io::Error) -> LogError {
        let poison = Poison { since: self.position.next_lsn, cause: Arc::new(cause) };
        tracing::error!(since = poison.since.0, cause = %poison.cause, "the log is poisoned");
        self.poison = Some(poison.clone());
        poison.into()
    }

    /// Takes the next segment into use.
    async fn switch(&mut self) -> Result<(), LogError> {
        let began = Instant::now();
        let bytes = self.ready().await?;
        let sequence = self.next_sequence;
        let file = match self.start.folder.open_segment(&segment_name(sequence), self.start.body) {
            Ok(file) => file,
            Err(error) => return Err(self.poisoned(error)),
        };
        let salt = (self.start.salt)();
        let segment = ActiveSegment { sequence, salt, bytes, end: BLOCK_BYTES as u64 };
        if let Some(before) = self.open.replace(Open { segment, file }) {
            before.file.close().await;
        }
        self.next = Next::None;
        self.next_sequence = sequence + 1;
        let header = SegmentHeader {
            cluster: self.start.cluster,
            sequence,
            first_lsn: self.position.next_lsn,
            epoch: self.start.epoch,
            salt,
            bytes,
            previous: self.position.seal,
        };
        header.encode(&mut self.buf[..BLOCK_BYTES]);
        // Durable before the first group: a group whose header is missing could not be told from rot.
        self.write(BLOCK_BYTES, 0).await?;
        let first_lsn = self.position.next_lsn;
        self.start.kept.push_back(KeptSegment { sequence, first_lsn, bytes });
        self.next = self.begin_next();
        self.start.counters.switched(began.elapsed());
        Ok(())
    }

    /// Waits until the next segment is there, and says its size.
    async fn ready(&mut self) -> Result<u64, LogError> {
        // The one that is ready, and one more that is made as soon as that one is in use.
        let full = |writer: &Self| writer.on_disk() + 2 > writer.start.segments_max;
        if full(self) {
            self.settle().await;
        }
        if full(self) {
            let cause = io::Error::new(io::ErrorKind::StorageFull, "the log has as many segments as it may");
            return Err(self.no_space(cause));
        }
        let mut cause = io::Error::other("no thread could be started to make it");
        for _ in 0..PREPARE_TRIES {
            let made = match std::mem::replace(&mut self.next, Next::None) {
                Next::Ready(bytes) => {
                    self.next = Next::Ready(bytes);
                    return Ok(bytes);
                }
                Next::Coming(made) => made,
                Next::None => match self.begin_next() {
                    Next::Coming(made) => made,
                    Next::None | Next::Ready(_) => continue,
                },
            };
            match made.await {
                Ok(Ok(())) => self.next = Next::Ready(self.start.segment_bytes),
                Ok(Err(error)) => cause = error,
                Err(_) => cause = io::Error::other("the thread that makes it died"),
            }
            if let Next::Ready(bytes) = self.next {
                return Ok(bytes);
            }
        }
        if is_no_space(&cause) {
            return Err(self.no_space(cause));
        }
        Err(self.poisoned(cause))
    }

    fn no_space(&self, cause: io::Error) -> LogError {
        let segment = self.start.folder.file(&segment_name(self.next_sequence));
        LogError::NoSpace { segment, cause: Arc::new(cause) }
    }

    /// Has the next segment made in the background.
    fn begin_next(&self) -> Next {
        let (done, made) = oneshot::channel();
        let (folder, sequence, bytes) =
            (self.start.folder.clone(), self.next_sequence, self.start.segment_bytes);
        let counters = self.start.counters.clone();
        let make = move || {
            let result = prepare_segment(&folder, sequence, bytes);
            if result.is_ok() {
                counters.made(bytes);
            }
            // The log may have gone meanwhile.
            let _ = done.send(result);
        };
        match std::thread::Builder::new().name("log-prepare".into()).spawn(make) {
            Ok(_) => Next::Coming(made),
            Err(_) => Next::None,
        }
    }
}
