//! Carries out what the [`ledger`](super::ledger) decides: groups of records to the disk, segments made and made void.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use distrifs_proto::limits::BLOCK_BYTES;
use distrifs_proto::types::{ChunkId, NodeId};
use tokio::sync::{mpsc, oneshot};

use super::format::{SegmentHeader, Use, encode_record, record_blocks};
use super::ledger::{Ledger, Room};
use super::{Counters, Record, Recovered, Request, SEGMENTS, dir, segment_path};
use crate::io::{Buf, File, FileSystem, Io, Open};
use crate::store::writer::{give_up, write_tmp};
use crate::store::{StoreError, layout};

/// What one write carries at most; not less than the largest record.
const GROUP_BYTES_MAX: usize = 1 << 20;
/// Records that wait for their group; their callers wait for them.
const PENDING_MAX: usize = 256;
/// Callers that wait for a record to be void.
const SETTLES_MAX: usize = 1024;
/// How long the journal does without a segment that could not be made.
const MAKE_AGAIN_AFTER: Duration = Duration::from_secs(20);
/// Zeros are written in pieces of this size.
const ZEROS_BYTES: usize = 1 << 20;

type Tell<T> = oneshot::Sender<Result<T, StoreError>>;

/// What has to run for the journal of a folder to answer.
pub struct JournalDriver {
    root: PathBuf,
    node: NodeId,
    segment_bytes: u64,
    salt: u64,
    /// The highest sequence that was ever used.
    sequence: u64,
    /// The lengths of the segments that are there; 0: none.
    lengths: [u64; SEGMENTS],
    /// And their uses.
    uses: [Use; SEGMENTS],
    requests: mpsc::Receiver<Request>,
    counters: Arc<Counters>,
}

impl JournalDriver {
    pub(super) fn new(
        recovered: Recovered,
        segment_bytes: u64,
        salt: u64,
        requests: mpsc::Receiver<Request>,
        counters: Arc<Counters>,
    ) -> Self {
        let Recovered { root, node, sequence, segments, .. } = recovered;
        let lengths = segments.map(|it| it.map_or(0, |it| it.bytes));
        let uses = segments.map(|it| it.map_or(Use { sequence: 0, salt }, |it| it.of));
        Self { root, node, segment_bytes, salt, sequence, lengths, uses, requests, counters }
    }

    /// Runs until [`Journal::stop`](super::Journal::stop) is answered or the last handle is gone; then without a
    /// checkpoint. `poisoned` is told at once when the folder can take no more writes.
    pub async fn run(self, io: Io, poisoned: impl FnOnce(&StoreError)) {
        let mut running = Running {
            ledger: Ledger::new([0; SEGMENTS]),
            io,
            journal: self,
            file_system: None,
            files: Default::default(),
            pending: VecDeque::new(),
            settles: Vec::new(),
            stops: Vec::new(),
            checkpoint: None,
            make_again_at: Duration::ZERO,
            unsuited: false,
        };
        let Err(poison) = running.serve().await else { return };
        poisoned(&poison.error());
        running.refuse(&poison).await;
    }
}

/// A failed write or sync: the same answer for everybody.
struct Poison {
    what: &'static str,
    path: PathBuf,
    errno: Option<i32>,
    text: String,
}

impl Poison {
    fn new(what: &'static str, path: PathBuf, source: &io::Error) -> Self {
        Self { what, path, errno: source.raw_os_error(), text: source.to_string() }
    }

    fn error(&self) -> StoreError {
        let source =
            self.errno.map_or_else(|| io::Error::other(self.text.clone()), io::Error::from_raw_os_error);
        StoreError::sync(self.what, &self.path, source)
    }
}

struct Commit {
    record: Record,
    /// The record comes back where there is no journal for it.
    tell: Tell<Option<Record>>,
}

struct Checkpoint {
    segment: usize,
    of: Use,
    done: oneshot::Receiver<Result<(), Poison>>,
}

struct Running {
    io: Io,
    journal: JournalDriver,
    ledger: Ledger,
    /// Open since before the first record: its sync tells of every write-back that failed since.
    file_system: Option<Rc<FileSystem>>,
    files: [Option<Rc<File>>; SEGMENTS],
    pending: VecDeque<Commit>,
    settles: Vec<(ChunkId, Tell<()>)>,
    stops: Vec<Tell<()>>,
    checkpoint: Option<Checkpoint>,
    make_again_at: Duration,
    /// Its file system cannot be relied on to sync all files at once: there is no journal on it.
    unsuited: bool,
}

impl Running {
    async fn serve(&mut self) -> Result<(), Poison> {
        self.open().await?;
        loop {
            if self.checkpoint.is_some() {
                // Its task is on this thread, too, and other operations here leave it no turn.
                tokio::task::yield_now().await;
            }
            let room = self.make_progress().await?;
            if !self.stops.is_empty() && self.pending.is_empty() && self.ledger.is_empty() {
                self.stops.drain(..).for_each(|tell| answer(tell, Ok(())));
                return Ok(());
            }
            if room && !self.pending.is_empty() {
                continue;
            }
            let takes = self.pending.len() < PENDING_MAX && self.settles.len() < SETTLES_MAX;
            let idle = self.ledger.due_at().filter(|_| self.checkpoint.is_none());
            let left = idle.map(|at| at.saturating_sub(self.io.now()));
            tokio::select! {
                biased;
                (checkpoint, outcome) = next_checkpoint(&mut self.checkpoint) => {
                    outcome?;
                    self.released(checkpoint.0, checkpoint.1);
                }
                request = self.journal.requests.recv(), if takes => match request {
                    Some(request) => self.take(request),
                    None => return Ok(()),
                },
                () = self.io.sleep(left.unwrap_or_default()), if left.is_some() => {}
            }
        }
    }

    /// Takes a request, and those that came with it: they share a group.
    fn take(&mut self, first: Request) {
        let mut next = Some(first);
        while let Some(request) = next {
            match request {
                Request::Commit { record, tell } => self.pending.push_back(Commit { record, tell }),
                Request::Settle { chunk, tell } if self.ledger.is_live(chunk) => {
                    self.settles.push((chunk, tell));
                }
                // A commit of it that is pending is later.
                Request::Settle { tell, .. } => answer(tell, Ok(())),
                Request::Stop { tell } => self.stops.push(tell),
            }
            let full = self.pending.len() >= PENDING_MAX || self.settles.len() >= SETTLES_MAX;
            next = if full { None } else { self.journal.requests.try_recv().ok() };
        }
    }

    /// Writes one group and begins a checkpoint, where there is cause; whether more can be written at once.
    async fn make_progress(&mut self) -> Result<bool, Poison> {
        let mut room = true;
        let mut full = false;
        if let Some(first) = self.pending.front() {
            let may_make = !self.unsuited && self.io.now() >= self.make_again_at;
            match self.ledger.room(blocks_of(&first.record), may_make) {
                Room::Here(segment) => self.write_group(segment).await?,
                Room::Make(segment) => self.make(segment).await?,
                Room::None if !self.ledger.has_segments() => self.do_without(),
                Room::None => (room, full) = (false, true),
            }
        }
        let wanted = !self.stops.is_empty() && self.pending.is_empty();
        let chunks = self.settles.iter().map(|(chunk, _)| chunk);
        if let Some(segment) = self.ledger.close_due(full, wanted, chunks, self.io.now()) {
            self.begin_checkpoint(segment);
            room = true;
        }
        Ok(room)
    }

    async fn write_group(&mut self, segment: usize) -> Result<(), Poison> {
        let path = segment_path(&self.journal.root, segment);
        let file = self.files[segment].clone().expect("a segment with room is open");
        let of = self.journal.uses[segment];
        let group = self.ledger.next_block(segment);
        let (mut members, mut places, mut bytes) = (Vec::new(), Vec::new(), 0);
        while let Some(next) = self.pending.front() {
            let blocks = blocks_of(&next.record);
            let length = blocks as usize * BLOCK_BYTES;
            let fits =
                self.ledger.room(blocks, false) == Room::Here(segment) && bytes + length <= GROUP_BYTES_MAX;
            let Some(member) = self.pending.pop_front_if(|_| fits) else { break };
            // Before the record: one that is refused, for want of room too, must not come back after a crash.
            let Record { chunk, sidecar, data } = &member.record;
            let (root, sidecar, data) = (&self.journal.root, sidecar.clone(), data.clone());
            if let Err(error) = write_tmp(&self.io, root, *chunk, sidecar, data).await {
                answer(member.tell, Err(error));
                continue;
            }
            let place = self.ledger.place(segment, group, member.record.chunk, blocks, self.io.now());
            places.push((place, bytes..bytes + length));
            bytes += length;
            members.push(member);
        }
        if members.is_empty() {
            return Ok(());
        }
        let mut buffer = Buf::alloc(bytes);
        for ((place, range), Commit { record, .. }) in places.into_iter().zip(&members) {
            encode_record(&mut buffer[range], of, place, &record.sidecar, &record.data);
        }
        let written =
            match file.write_at(buffer.share(), 0..bytes, u64::from(group) * BLOCK_BYTES as u64).await {
                Ok(()) => file.fdatasync().await,
                Err(error) => Err(error),
            };
        if let Err(error) = written {
            let poison = Poison::new("journal", path, &error);
            for member in members {
                self.give_up(member.record.chunk, false).await;
                answer(member.tell, Err(poison.error()));
            }
            return Err(poison);
        }
        self.journal.counters.journaled(members.len() as u64);
        for Commit { record, tell } in members {
            let placed = self.put_in_place(record.chunk).await;
            answer(tell, placed.map(|()| None));
        }
        Ok(())
    }

    /// Gives the files of a chunk whose record is durable their names; all or none.
    async fn put_in_place(&self, chunk: ChunkId) -> Result<(), StoreError> {
        let root = &self.journal.root;
        if let Err(error) = self.io.rename_all(layout::renames(root, chunk)).await {
            self.give_up(chunk, true).await;
            return Err(StoreError::io("rename", &error.path, error.source));
        }
        Ok(())
    }

    async fn give_up(&self, chunk: ChunkId, renamed: bool) {
        give_up(&self.io, &self.journal.root, chunk, renamed).await;
    }

    /// There is no room for a journal: chunks go without one for a while.
    fn do_without(&mut self) {
        self.pending.drain(..).for_each(|it| answer(it.tell, Ok(Some(it.record))));
    }

    /// Opens what is there. What cannot be opened for another reason than its disk is made anew when it is needed.
    async fn open(&mut self) -> Result<(), Poison> {
        match self.open_file_system().await {
            Ok(file_system) if file_system.keeps_its_word() => {}
            Ok(_) => {
                let folder = self.journal.root.display();
                tracing::warn!(%folder, "its file system or kernel has no syncfs to rely on: small chunks take longer");
                self.unsuited = true;
                return Ok(());
            }
            Err(error) if error.suspects_folder() => return Err(self.poison(0, &error)),
            // Tried again with the first segment.
            Err(error) => tracing::warn!(%error, "the journal's file system cannot be opened"),
        }
        for segment in 0..SEGMENTS {
            let bytes = self.journal.lengths[segment];
            if bytes == 0 {
                continue;
            }
            match self.open_segment(segment).await {
                Ok(file) => {
                    self.files[segment] = Some(Rc::new(file));
                    self.ledger.made(segment, (bytes / BLOCK_BYTES as u64) as u32);
                }
                Err(error) if error.suspects_folder() => return Err(self.poison(segment, &error)),
                Err(error) => tracing::warn!(%error, "a segment of the journal is not used"),
            }
        }
        Ok(())
    }

    async fn open_segment(&mut self, segment: usize) -> Result<File, StoreError> {
        self.open_file_system().await?;
        let path = segment_path(&self.journal.root, segment);
        let how = Open { create_new: false, ..Open::CREATE_DIRECT };
        self.io.open(&path, how).await.map_err(|e| StoreError::io("open", &path, e))
    }

    async fn open_file_system(&mut self) -> Result<Rc<FileSystem>, StoreError> {
        if let Some(open) = &self.file_system {
            return Ok(open.clone());
        }
        let chunks = self.journal.root.join(layout::CHUNKS);
        let opened = self.io.open_fs(&chunks).await.map_err(|e| StoreError::io("open", &chunks, e))?;
        Ok(self.file_system.insert(Rc::new(opened)).clone())
    }

    fn poison(&self, segment: usize, error: &StoreError) -> Poison {
        let source = io::Error::other(error.to_string());
        Poison::new("journal", segment_path(&self.journal.root, segment), &source)
    }

    /// Makes a segment. Where there is no room for one, the journal does without for a while.
    async fn make(&mut self, segment: usize) -> Result<(), Poison> {
        match self.write_segment(segment).await {
            Ok(file) => {
                self.files[segment] = Some(Rc::new(file));
                self.ledger.made(segment, (self.journal.segment_bytes / BLOCK_BYTES as u64) as u32);
            }
            Err(error) if error.suspects_folder() => return Err(self.poison(segment, &error)),
            Err(error) => {
                tracing::warn!(%error, "no room for a journal: small chunks take longer");
                // What there is of it only takes room; where it stays, it is found when it is made again.
                let _ = self.io.unlink(&segment_path(&self.journal.root, segment)).await;
                self.make_again_at = self.io.now() + MAKE_AGAIN_AFTER;
            }
        }
        Ok(())
    }

    async fn write_segment(&mut self, segment: usize) -> Result<File, StoreError> {
        self.open_file_system().await?;
        let path = segment_path(&self.journal.root, segment);
        let bytes = self.journal.segment_bytes;
        match self.io.unlink(&path).await {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(StoreError::io("unlink", &path, error)),
        }
        let file =
            self.io.open(&path, Open::CREATE_DIRECT).await.map_err(|e| StoreError::io("create", &path, e))?;
        file.fallocate(bytes).await.map_err(|e| StoreError::io("fallocate", &path, e))?;
        // Written once with zeros, its blocks need no change of metadata later: a sync is one flush.
        let zeros = Buf::alloc(ZEROS_BYTES).share();
        let mut at = 0;
        while at < bytes {
            let piece = (bytes - at).min(ZEROS_BYTES as u64);
            let written = file.write_at(zeros.clone(), 0..piece as usize, at).await;
            written.map_err(|e| StoreError::io("write", &path, e))?;
            at += piece;
        }
        let of = self.next_use();
        let header = self.header_block(of, bytes);
        file.write_at(header.share(), 0..BLOCK_BYTES, 0)
            .await
            .map_err(|e| StoreError::io("write", &path, e))?;
        self.journal.counters.synced();
        file.fdatasync().await.map_err(|e| StoreError::sync("journal", &path, e))?;
        let dir = dir(&self.journal.root);
        self.journal.counters.synced();
        self.io.fsync_dir(&dir).await.map_err(|e| StoreError::sync("directory", &dir, e))?;
        self.journal.uses[segment] = of;
        self.journal.lengths[segment] = bytes;
        Ok(file)
    }

    fn next_use(&mut self) -> Use {
        self.journal.sequence += 1;
        Use { sequence: self.journal.sequence, salt: self.journal.salt }
    }

    fn header_block(&self, of: Use, bytes: u64) -> Buf {
        let mut block = Buf::alloc(BLOCK_BYTES);
        SegmentHeader { node: self.journal.node, of, bytes }.encode(&mut block);
        block
    }

    /// Makes the files of a closed segment durable and its records void, beside what else there is to do.
    fn begin_checkpoint(&mut self, segment: usize) {
        let of = self.next_use();
        let header = self.header_block(of, self.journal.lengths[segment]);
        let (tell, done) = oneshot::channel();
        self.checkpoint = Some(Checkpoint { segment, of, done });
        let file = self.files[segment].clone().expect("a segment with records is open");
        let file_system = self.file_system.clone().expect("opened before the first record");
        let counters = self.journal.counters.clone();
        let path = segment_path(&self.journal.root, segment);
        self.io.spawn(async move {
            counters.synced();
            let mut outcome =
                file_system.sync().await.map_err(|e| Poison::new("file system", path.clone(), &e));
            if outcome.is_ok() {
                let written = match file.write_at(header.share(), 0..BLOCK_BYTES, 0).await {
                    Ok(()) => {
                        counters.synced();
                        file.fdatasync().await
                    }
                    Err(error) => Err(error),
                };
                outcome = written.map_err(|e| Poison::new("journal", path, &e));
            }
            // The driver may have been poisoned meanwhile.
            let _ = tell.send(outcome);
        });
    }

    fn released(&mut self, segment: usize, of: Use) {
        self.journal.uses[segment] = of;
        self.ledger.released(segment);
        for (chunk, tell) in std::mem::take(&mut self.settles) {
            if self.ledger.is_live(chunk) {
                self.settles.push((chunk, tell));
            } else {
                answer(tell, Ok(()));
            }
        }
    }

    /// Answers whoever comes, until nobody can come any more. Chunks without a record can still go.
    async fn refuse(&mut self, poison: &Poison) {
        self.pending.drain(..).for_each(|it| answer(it.tell, Err(poison.error())));
        self.settles.drain(..).for_each(|(_, tell)| answer(tell, Err(poison.error())));
        self.stops.drain(..).for_each(|tell| answer(tell, Err(poison.error())));
        while let Some(request) = self.journal.requests.recv().await {
            match request {
                Request::Commit { tell, .. } => answer(tell, Err(poison.error())),
                Request::Settle { chunk, tell } if !self.ledger.is_live(chunk) => answer(tell, Ok(())),
                Request::Settle { tell, .. } => answer(tell, Err(poison.error())),
                Request::Stop { tell } => return answer(tell, Err(poison.error())),
            }
        }
    }
}

fn answer<T>(tell: Tell<T>, outcome: Result<T, StoreError>) {
    // Whoever no longer waits does not need to know.
    let _ = tell.send(outcome);
}

fn blocks_of(record: &Record) -> u32 {
    record_blocks(record.sidecar.len(), record.data.len())
}

/// The end of the checkpoint that runs; never, when none does.
async fn next_checkpoint(checkpoint: &mut Option<Checkpoint>) -> ((usize, Use), Result<(), Poison>) {
    let Some(Checkpoint { segment, of, done }) = checkpoint else { return std::future::pending().await };
    let (of_which, outcome) = ((*segment, *of), done.await);
    *checkpoint = None;
    let ended = || Poison::new("file system", PathBuf::new(), &io::Error::other("the thread ends"));
    (of_which, outcome.unwrap_or_else(|_| Err(ended())))
}
