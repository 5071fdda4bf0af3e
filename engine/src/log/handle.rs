//! The handle of a running log: takes records in, waits for the log's thread.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use distrifs_proto::types::Lsn;
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::error::{LogError, is_no_space};
use super::format::{BLOCK_BYTES, segment_name};
use super::limits::{
    GROUP_RECORDS_MAX, QUEUE_APPENDS_MAX, QUEUE_BYTES_MAX, SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN,
    SEGMENTS_MAX, SEGMENTS_MIN, append_bytes_max, encoded_bytes,
};
use super::options::LogOptions;
use super::prepare::prepare_segment;
use super::queue::{Append, Beside, Release, Request};
use super::recovery::Recovered;
use super::release::Released;
use super::stats::{Counters, LogStats, SyncTimes};
use super::writer::{Farewell, Start, Writer};
use crate::folder::{Body, Folder, RealFolder, probe_uring};
use crate::io::IoMode;

/// A running log. Clones are the same log; when the last one is dropped its thread finishes what was taken in
/// and ends.
#[derive(Debug, Clone)]
pub struct Log {
    requests: mpsc::Sender<Request>,
    /// Bytes that may still be taken in.
    room: Arc<Semaphore>,
    /// One permit: releases take turns.
    turns: Arc<Semaphore>,
    counters: Arc<Counters>,
    body: &'static str,
    /// For messages.
    dir: Arc<Path>,
    append_bytes_max: usize,
}

impl Log {
    /// Continues a recovered log: makes its first segment when there is none, and starts the log's thread.
    ///
    /// It blocks for as long as that takes. On a full disk a log that has a segment in use goes on in that one; where
    /// there is none, this is refused.
    ///
    /// # Errors
    /// [`LogError::BadOptions`], [`LogError::StaleEpoch`], [`LogError::NoUring`], [`LogError::NoSpace`] or
    /// [`LogError::Io`]: nothing was started.
    pub fn start(mut options: LogOptions, recovered: Recovered) -> Result<Self, LogError> {
        let body = match options.mode {
            IoMode::Posix => Body::Posix,
            IoMode::Uring => probe_uring().map(|()| Body::Uring).map_err(LogError::NoUring)?,
            IoMode::Auto => match probe_uring() {
                Ok(()) => Body::Uring,
                Err(reason) => {
                    tracing::info!(reason, "no io_uring: the log writes by pwrite");
                    Body::Posix
                }
            },
        };
        if options.dir != recovered.dir {
            return Err(LogError::BadOptions("the log in another folder was recovered"));
        }
        options.dir.clone_from(&recovered.home);
        let folder = Folder::Real(RealFolder::new(std::mem::take(&mut options.dir)));
        Self::start_in(folder, body, &options, recovered, rand::random)
    }

    pub(crate) fn start_in(
        folder: Folder,
        body: Body,
        options: &LogOptions,
        recovered: Recovered,
        salt: fn() -> u64,
    ) -> Result<Self, LogError> {
        check(options, &recovered)?;
        let wanted = options.segment_bytes;
        let last = recovered.tail.active.map_or(0, |active| active.sequence);
        let (next_sequence, unused) = match recovered.tail.unused {
            Some((sequence, bytes)) if bytes == wanted => (sequence, Some(bytes)),
            _ => {
                let sequence = last + 1;
                let segment = folder.file(&segment_name(sequence));
                match prepare_segment(&folder, sequence, wanted).map_err(Arc::new) {
                    Ok(()) => (sequence, Some(wanted)),
                    // What was logged can be served, and the rest of the segment in use is there.
                    Err(cause) if is_no_space(&cause) && recovered.tail.active.is_some() => {
                        tracing::warn!(segment = %segment.display(), %cause, "the next log segment waits for room");
                        (sequence, None)
                    }
                    Err(cause) if is_no_space(&cause) => return Err(LogError::NoSpace { segment, cause }),
                    Err(cause) => {
                        return Err(LogError::Io { path: segment, doing: "make the segment", cause });
                    }
                }
            }
        };
        let counters = Arc::new(Counters::default());
        counters.begins_with(recovered.first_lsn);
        unused.into_iter().for_each(|bytes| counters.made(bytes));
        recovered.tail.kept.iter().for_each(|segment| counters.made(segment.bytes));
        let (requests, queue) = mpsc::channel(QUEUE_APPENDS_MAX);
        let path = folder.path().to_owned();
        let start = Start {
            folder,
            body,
            cluster: options.cluster,
            epoch: options.epoch,
            segment_bytes: wanted,
            position: recovered.position,
            segments_max: options.segments_max,
            kept: recovered.tail.kept.into(),
            active: recovered.tail.active,
            next_sequence,
            unused,
            salt,
            lock: recovered.lock,
            counters: counters.clone(),
        };
        spawn(start, queue, &path)?;
        Ok(Self {
            requests,
            room: Arc::new(Semaphore::new(QUEUE_BYTES_MAX)),
            turns: Arc::new(Semaphore::new(1)),
            counters,
            body: body.name(),
            dir: path.into(),
            append_bytes_max: append_bytes_max(wanted),
        })
    }

    /// Appends records, together in one group, and resolves when they are durable: after a crash all of them
    /// are found, or none if this did not return. Concurrent calls share one write. A full queue makes this
    /// wait.
    ///
    /// A dropped call may or may not append its records.
    ///
    /// # Errors
    /// After [`LogError::Poisoned`] the outcome is unknown; after any other error nothing was written.
    pub async fn append(&self, records: Vec<Bytes>) -> Result<Range<Lsn>, LogError> {
        self.enqueue(records, false).await
    }

    /// As [`append`](Self::append), for records that free space in the end: they may also take what the log keeps
    /// back of its last segment when the disk has no room for another.
    ///
    /// # Errors
    /// As [`append`](Self::append).
    pub async fn append_from_reserve(&self, records: Vec<Bytes>) -> Result<Range<Lsn>, LogError> {
        self.enqueue(records, true).await
    }

    async fn enqueue(&self, records: Vec<Bytes>, from_reserve: bool) -> Result<Range<Lsn>, LogError> {
        if records.is_empty() {
            return Err(LogError::Empty);
        }
        let found = encoded_bytes(&records);
        if found > self.append_bytes_max || records.len() > GROUP_RECORDS_MAX {
            let (records, records_max) = (records.len(), GROUP_RECORDS_MAX);
            return Err(LogError::TooLarge { found, max: self.append_bytes_max, records, records_max });
        }
        let share = u32::try_from(found).expect("the queue's bound is below 4 GiB: see limits");
        let share = self.room.clone().acquire_many_owned(share).await.map_err(|_| LogError::Closed)?;
        let (answer, answered) = oneshot::channel();
        let append = Append { records, bytes: found, from_reserve, answer, _share: share };
        self.requests.send(Request::Append(append)).await.map_err(|_| LogError::Closed)?;
        answered.await.unwrap_or_else(|_| Err(thread_died()))
    }

    /// Lets go of all whole segments whose records are `upto` or older, because a checkpoint holds those records
    /// for good; never of the segment in use, nor of the one after it. Appends go on meanwhile. It resolves when
    /// the files are gone for good; a crash in between leaves either, and the next recovery finishes what was
    /// begun. Appends that were refused for want of segments or of space go on afterwards.
    ///
    /// A segment that cannot be removed is counted in [`Released::left`] and tried again by the next release or
    /// recovery. A dropped call is carried out all the same.
    ///
    /// # Errors
    /// [`LogError::NoSpace`] or [`LogError::Io`] when the witness could not be written, and then nothing was
    /// removed, or when the removal may not be durable; [`LogError::Poisoned`] and [`LogError::Closed`] as for
    /// appends. No failure of a release poisons the log.
    pub async fn release(&self, upto: Lsn) -> Result<Released, LogError> {
        let turn = self.turns.clone().acquire_owned().await.map_err(|_| LogError::Closed)?;
        let (answer, answered) = oneshot::channel();
        let release = Release { upto, answer, turn };
        self.requests.send(Request::Release(release)).await.map_err(|_| LogError::Closed)?;
        answered.await.unwrap_or_else(|_| {
            let cause = Arc::new(std::io::Error::other("no thread could be started, or it died"));
            Err(LogError::Io { path: self.dir.to_path_buf(), doing: "release segments of the log in", cause })
        })
    }

    /// What one append may bring at most: the sum of its records, each with 4 bytes more.
    #[must_use]
    pub fn append_bytes_max(&self) -> usize {
        self.append_bytes_max
    }

    /// Runs a future on the log's thread, beside the log: it appends, and hears of its appends, without waking another
    /// thread, which can take as long as the disk does. It must not block for long, and must not [`close`](Self::close)
    /// the log: it is dropped, finished or not, when the log ends.
    ///
    /// # Errors
    /// [`LogError::Closed`]: the future was not begun.
    pub async fn run_beside<F>(&self, make: impl FnOnce() -> F + Send + 'static) -> Result<(), LogError>
    where
        F: Future<Output = ()> + 'static,
    {
        let begin = Box::new(move || drop(tokio::task::spawn_local(make())));
        self.requests.send(Request::Run(Beside(begin))).await.map_err(|_| LogError::Closed)
    }

    /// The times of its durable writes.
    #[must_use]
    pub fn sync_times(&self) -> SyncTimes {
        SyncTimes(self.counters.clone())
    }

    /// A reading of the counters.
    #[must_use]
    pub fn stats(&self) -> LogStats {
        self.counters.read(self.body)
    }

    /// Finishes all appends that were taken in, writes down where the log ends, and lets go of the folder.
    /// Appends that come later get [`LogError::Closed`].
    ///
    /// # Errors
    /// [`LogError::Poisoned`] when the log was; [`LogError::Io`] when only the witness could not be written,
    /// in which case every acknowledged record is durable all the same.
    pub async fn close(self) -> Result<(), LogError> {
        let (answer, answered) = oneshot::channel();
        self.requests.send(Request::Close(answer)).await.map_err(|_| LogError::Closed)?;
        answered.await.unwrap_or_else(|_| Err(thread_died()))
    }
}

/// The thread can only have panicked: what it was doing is unknown.
fn thread_died() -> LogError {
    LogError::Poisoned { since: Lsn(0), cause: Arc::new(std::io::Error::other("the log's thread died")) }
}

fn check(options: &LogOptions, recovered: &Recovered) -> Result<(), LogError> {
    let bytes = options.segment_bytes;
    let whole = bytes.is_multiple_of(BLOCK_BYTES as u64);
    if !whole || !(SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&bytes) {
        return Err(LogError::BadOptions("segment_bytes is out of its bounds or not a multiple of 4096"));
    }
    if !(SEGMENTS_MIN..=SEGMENTS_MAX).contains(&options.segments_max) {
        return Err(LogError::BadOptions("segments_max is out of its bounds"));
    }
    if options.cluster != recovered.cluster {
        return Err(LogError::BadOptions("the log of another cluster was recovered"));
    }
    if options.epoch < recovered.last_epoch() {
        return Err(LogError::StaleEpoch { asked: options.epoch, found: recovered.last_epoch() });
    }
    Ok(())
}

/// Starts the log's thread and waits until it is ready.
fn spawn(start: Start, queue: mpsc::Receiver<Request>, path: &Path) -> Result<(), LogError> {
    let (ready, began) = std::sync::mpsc::sync_channel(1);
    let io = |doing| move |cause| LogError::Io { path: path.to_owned(), doing, cause: Arc::new(cause) };
    let main = move || {
        let begin = |writer: std::io::Result<Writer>| match writer {
            Ok(writer) => {
                // The starter waits for this message.
                let _ = ready.send(Ok(()));
                Some(writer)
            }
            Err(error) => {
                let _ = ready.send(Err(error));
                None
            }
        };
        let farewell = run(start, queue, begin);
        if let Some((answer, result)) = farewell {
            // Whoever closed the log may have gone.
            let _ = answer.send(result);
        }
    };
    std::thread::Builder::new().name("log".into()).spawn(main).map_err(io("start a thread for"))?;
    match began.recv() {
        Ok(result) => result.map_err(io("open the log in")),
        Err(_) => Err(io("open the log in")(std::io::Error::other("the log's thread died"))),
    }
}

/// The life of the log's thread. The folder's lock goes last.
fn run(
    mut start: Start,
    queue: mpsc::Receiver<Request>,
    begin: impl Fn(std::io::Result<Writer>) -> Option<Writer>,
) -> Farewell {
    let lock = start.lock.take();
    let serve = |start: Start| async {
        match begin(Writer::new(start, queue)) {
            Some(writer) => writer.run().await,
            None => None,
        }
    };
    let farewell = match start.body {
        Body::Uring => match tokio_uring::Runtime::new(&tokio_uring::builder()) {
            Ok(runtime) => runtime.block_on(serve(start)),
            Err(error) => {
                begin(Err(error));
                None
            }
        },
        _ => match tokio::runtime::Builder::new_current_thread().build() {
            // As the ring's runtime has it: for what runs beside.
            Ok(runtime) => tokio::task::LocalSet::new().block_on(&runtime, serve(start)),
            Err(error) => {
                begin(Err(error));
                None
            }
        },
    };
    drop(lock);
    farewell
}
