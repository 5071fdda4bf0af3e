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
use super::limits::{SEGMENTS_MAX, append_bytes_max};
use super::prepare::{prepare_segment, write_witness};
use super::queue::{Append, Request};
use super::recovery::{ActiveSegment, Kept, Position};
use super::release::{Released, Releasing, plan};
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
    pub(super) first_sequence: u64,
    pub(super) active: Option<ActiveSegment>,
    /// The segments with records, the one in use last.
    pub(super) kept: VecDeque<Kept>,
    /// The segment that is ready: sequence and size.
    pub(super) unused: (u64, u64),
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
    poison: Option<Poison>,
    /// A release that is being carried out by a thread of its own.
    releasing: Option<Releasing>,
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
        start.counters.keeps(&start.kept, start.position.next_lsn);
        let bytes = group_blocks(append_bytes_max(start.segment_bytes)) * BLOCK_BYTES;
        Ok(Self {
            requests,
            held: None,
            position: start.position,
            open,
            next: Next::Ready(start.unused.1),
            next_sequence: start.unused.0,
            poison: None,
            releasing: None,
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
                Some(Request::Release(upto, answer)) => self.release(upto, answer),
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
        if let Some(releasing) = self.releasing.take() {
            self.released(releasing.end().await);
        }
        let result = self.clean_end(close.is_some());
        close.map(|answer| (answer, result))
    }

    /// Those that came after the close were never taken in.
    async fn refuse_the_rest(&mut self) {
        self.requests.close();
        while let Some(request) = self.requests.recv().await {
            match request {
                Request::Append(append) => append.answer(Err(LogError::Closed)),
                Request::Release(_, answer) => {
                    let _ = answer.send(Err(LogError::Closed));
                }
                Request::Close(answer) => {
                    let _ = answer.send(Err(LogError::Closed));
                }
            }
        }
    }

    /// Begins to remove what is not needed any more. A thread of its own does the work: unlinking segments takes
    /// the time of many appends.
    fn release(&mut self, upto: Lsn, answer: oneshot::Sender<Result<Released, LogError>>) {
        self.look_at_release();
        let first = plan(&self.start.kept, upto);
        let outcome = match (&self.poison, first) {
            (Some(poison), _) => Err(poison.clone().into()),
            (None, Some(first)) if self.releasing.is_none() => {
                let witness = Witness { first_sequence: first, ..self.witness() };
                let from = self.start.first_sequence.max(1);
                self.releasing = Some(Releasing::begin(
                    self.start.folder.clone(),
                    from,
                    witness,
                    &self.start.kept,
                    answer,
                ));
                return;
            }
            // Nothing to do, or one is under way: its caller hears of it.
            (None, _) => Ok(Released::default()),
        };
        // The caller may have gone.
        let _ = answer.send(outcome);
    }

    /// Notices the end of a release.
    fn look_at_release(&mut self) {
        if let Some(first) = self.releasing.as_mut().and_then(Releasing::look) {
            self.releasing = None;
            self.released(first);
        }
    }

    /// The segments below `first` are gone, if it says so: the witness is durable.
    fn released(&mut self, first: Option<u64>) {
        let Some(first) = first else { return };
        self.start.first_sequence = first;
        self.start.kept.retain(|kept| kept.sequence >= first);
        self.start.counters.keeps(&self.start.kept, self.position.next_lsn);
    }

    /// How far the log reaches now: everything up to here is durable.
    fn witness(&self) -> Witness {
        Witness {
            cluster: self.start.cluster,
            first_sequence: self.start.first_sequence,
            last_lsn: Lsn(self.position.next_lsn.0 - 1),
            seal: self.position.seal,
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

    /// Writes this append with all that wait behind it, as far as they fit.
    async fn append(&mut self, first: Append) {
        let mut batch = Batch::new(append_bytes_max(self.start.segment_bytes));
        let fits = batch.take(first.bytes, first.records.len());
        debug_assert!(fits, "the caller's side refuses what does not fit");
        let mut appends = vec![first];
        while let Ok(request) = self.requests.try_recv() {
            match request {
                Request::Append(append) if batch.take(append.bytes, append.records.len()) => {
                    appends.push(append);
                }
                other => {
                    self.held = Some(other);
                    break;
                }
            }
        }
        match self.commit(&appends, batch).await {
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
    async fn commit(&mut self, appends: &[Append], batch: Batch) -> Result<(), LogError> {
        if let Some(poison) = &self.poison {
            return Err(poison.clone().into());
        }
        let len = group_blocks(batch.bytes()) * BLOCK_BYTES;
        let fits = |open: &Open| open.segment.end + len as u64 <= open.segment.bytes;
        if !self.open.as_ref().is_some_and(fits)
            && let Err(error) = self.switch().await
        {
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
        self.look_at_release();
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
        self.start.kept.push_back(Kept { sequence, first_lsn: self.position.next_lsn, bytes });
        self.start.counters.keeps(&self.start.kept, self.position.next_lsn);
        self.next = self.begin_next();
        self.start.counters.switched(began.elapsed());
        Ok(())
    }

    /// Waits until the next segment is there, and says its size.
    async fn ready(&mut self) -> Result<u64, LogError> {
        if self.next_sequence - self.start.first_sequence >= SEGMENTS_MAX as u64 - 1 {
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
        let make = move || {
            // The log may have gone meanwhile.
            let _ = done.send(prepare_segment(&folder, sequence, bytes));
        };
        match std::thread::Builder::new().name("log-prepare".into()).spawn(make) {
            Ok(_) => Next::Coming(made),
            Err(_) => Next::None,
        }
    }
}
