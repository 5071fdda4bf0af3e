//! What can change the namespace, as logged and replayed: time, ids and the caller are fields, never looked up.

use std::fmt;
use std::sync::Arc;

use distrifs_proto::types::{ChunkId, Crc32c, Epoch, FileId, GenerationStamp, RequestId};

use super::loss::past_lost;
use super::names::NameId;
use super::path::NsPath;
use super::query::BodyStatus;
use super::reserve::past_reserved;
use crate::permission::Caller;

/// One change.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Command {
    /// The leader's time, in milliseconds since 1970.
    pub(crate) at_ms: i64,
    /// The client's request; `None` for what the master does by itself.
    pub(crate) request: Option<RequestId>,
    /// Who asked.
    pub(crate) caller: Arc<Caller>,
    /// What to do.
    pub(crate) operation: Operation,
}

/// What to do.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Operation {
    /// Makes a directory; with `parents` also those on the way, and an existing one is fine.
    Mkdir {
        /// Where.
        path: NsPath,
        /// `mkdir -p`.
        parents: bool,
        /// Permission bits of the last; those on the way get the default.
        mode: u16,
    },
    /// Opens a file for writing; it is not visible before it is completed.
    Create {
        /// Where it will appear.
        path: NsPath,
        /// Whether it may replace a file.
        overwrite: bool,
        /// Permission bits of a new file; a replaced one keeps its own, and its owner.
        mode: u16,
        /// Replicas of each chunk.
        replication: u8,
        /// Length of every chunk but the last.
        chunk_size: u32,
        /// Until when the writer holds it without renewal.
        lease_until_ms: i64,
        /// The first chunk, if it is wanted in the same step.
        chunk: Option<ChunkId>,
    },
    /// Adds a chunk to an unfinished file.
    AllocateChunk {
        /// Which file.
        file: FileId,
        /// The new chunk.
        chunk: ChunkId,
        /// A chunk of the file whose pipeline failed.
        abandon: Option<ChunkId>,
    },
    /// Makes an unfinished file appear with these chunks, in order.
    Complete {
        /// Which file.
        file: FileId,
        /// Its chunks.
        chunks: Vec<WrittenChunk>,
    },
    /// Gives up an unfinished file.
    Abandon {
        /// Which file.
        file: FileId,
    },
    /// Extends leases.
    RenewLeases {
        /// Of which files.
        files: Vec<FileId>,
        /// Until when.
        until_ms: i64,
    },
    /// Gives up unfinished files whose lease ended at or before this time: a bounded number of them, those that ended
    /// first. The answer is empty when none is left.
    ExpireLeases {
        /// This time.
        before_ms: i64,
    },
    /// Moves a file or a directory with all below it.
    Rename {
        /// From.
        source: NsPath,
        /// To: the exact new path.
        target: NsPath,
        /// Whether a file there may be replaced.
        overwrite: bool,
    },
    /// Removes a file, or with `recursive` a directory with all below it. No path leads there any more; what exceeds a
    /// small tree is freed by [`Operation::Reap`].
    Remove {
        /// What.
        path: NsPath,
        /// `rm -r`.
        recursive: bool,
    },
    /// Makes a file that refers to the chunks of another.
    Copy {
        /// The file.
        source: NsPath,
        /// The exact path of the copy.
        target: NsPath,
        /// Whether a file there may be replaced.
        overwrite: bool,
    },
    /// Sets permission bits.
    SetMode {
        /// Of what.
        path: NsPath,
        /// All of them.
        mode: u16,
    },
    /// Gives something to another user or group.
    SetOwner {
        /// What.
        path: NsPath,
        /// The new owner, if it changes.
        owner: Option<String>,
        /// The new group, if it changes.
        group: Option<String>,
    },
    /// Sets how many replicas are wanted of a file.
    SetReplication {
        /// Which file.
        path: NsPath,
        /// How many.
        replication: u8,
    },
    /// Forgets dereferenced chunks of which no replica is left.
    ForgetTombstones {
        /// Which.
        chunks: Vec<ChunkId>,
    },
    /// Moves the high-water mark of chunk ids up: the leader may grant those below it without logging each.
    ReserveChunks {
        /// By so many.
        count: u32,
    },
    /// Makes a file of at most one chunk, which was granted and is written, appear in one step.
    PutWhole {
        /// Where.
        path: NsPath,
        /// Whether it may replace a file.
        overwrite: bool,
        /// Permission bits of a new file; a replaced one keeps its own, and its owner.
        mode: u16,
        /// Replicas of its chunk.
        replication: u8,
        /// As of every file: no chunk is longer.
        chunk_size: u32,
        /// All its bytes; `None` for an empty file.
        chunk: Option<WrittenChunk>,
    },
    /// Makes tombstones of chunks that were granted and became no file: replicas may have been written.
    BuryChunks {
        /// Which; those that a file refers to after all are passed over.
        chunks: Vec<ChunkId>,
    },
    /// Gives up what the log had lost: from here on it counts without that.
    AcceptLoss {
        /// What datanodes were shown in lower ones is no evidence any more.
        epoch: Epoch,
    },
    /// Frees a piece of the trees that were removed; the first one turns the bounded rules on (`Namespace::bounded`).
    Reap {
        /// How many inodes and references to chunks at most.
        items: u32,
    },
}

/// A chunk as all hops of its pipeline committed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct WrittenChunk {
    /// Which.
    pub(crate) chunk: ChunkId,
    /// Its version.
    pub(crate) generation: GenerationStamp,
    /// Its length in bytes.
    pub(crate) length: u64,
    /// Of its bytes.
    pub(crate) crc: Crc32c,
}

/// What a command answered.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Answer {
    /// Done; nothing more to say.
    Done,
    /// A file was opened.
    Created {
        /// Its id.
        file: FileId,
        /// Its first chunk.
        chunk: Option<ChunkId>,
    },
    /// A chunk was added.
    Allocated {
        /// To this file.
        file: FileId,
        /// The chunk.
        chunk: ChunkId,
    },
    /// A file appeared.
    Completed(Arc<Completed>),
    /// Leases were extended, but for those that had ended.
    Renewed {
        /// Those.
        expired: Vec<FileId>,
    },
    /// Files were given up.
    Expired {
        /// Which.
        files: Vec<FileId>,
    },
    /// Tombstones were forgotten.
    Forgotten,
    /// Chunk ids were reserved.
    Reserved(Reserved),
}

/// Chunk ids that a leader may grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reserved {
    /// The first.
    pub(crate) first: ChunkId,
    /// Behind the last.
    pub(crate) end: ChunkId,
    /// What had been accepted as lost when they were reserved: see [`Operation::AcceptLoss`].
    pub(crate) history: Epoch,
}

/// A file as it appeared. It is remembered for a retry: the file may have changed or gone since.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Completed {
    /// Its id.
    pub(crate) file: FileId,
    /// Where it appeared.
    pub(crate) path: NsPath,
    /// Its owner.
    pub(super) owner: NameId,
    /// Its group.
    pub(super) group: NameId,
    /// Permission bits.
    pub(super) mode: u16,
    /// When.
    pub(super) mtime_ms: i64,
    /// Its bytes.
    pub(super) body: BodyStatus,
}

/// What a command is about, for messages. Cheap to make: every command has its own ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// What it names, or what it is to move.
    Path(NsPath),
    /// A file that is being written.
    File(FileId),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => path.fmt(f),
            Self::File(file) => write!(f, "file {file}"),
        }
    }
}

impl Command {
    /// A change that nobody asked for.
    pub(crate) fn own(at_ms: i64, operation: Operation) -> Self {
        let caller = Arc::new(Caller { user: String::new(), groups: Vec::new(), superuser: true });
        Self { at_ms, request: None, caller, operation }
    }

    /// Gives the command the next chunk id, if it hands one out. Behind one that accepts a loss, or reserves some, they
    /// begin anew.
    pub(crate) fn assign_chunk(&mut self, next: &mut ChunkId) {
        let chunk = match &mut self.operation {
            Operation::Create { chunk: Some(chunk), .. } | Operation::AllocateChunk { chunk, .. } => chunk,
            Operation::AcceptLoss { .. } => return *next = past_lost(*next),
            Operation::ReserveChunks { count } => return *next = past_reserved(*next, *count),
            _ => return,
        };
        *chunk = *next;
        *next = next.next();
    }

    /// Where it acts, for error texts.
    pub(crate) fn place(&self) -> Place {
        match &self.operation {
            Operation::Mkdir { path, .. }
            | Operation::Create { path, .. }
            | Operation::PutWhole { path, .. }
            | Operation::Remove { path, .. }
            | Operation::SetMode { path, .. }
            | Operation::SetOwner { path, .. }
            | Operation::SetReplication { path, .. }
            | Operation::Copy { source: path, .. }
            | Operation::Rename { source: path, .. } => Place::Path(path.clone()),
            Operation::AllocateChunk { file, .. }
            | Operation::Complete { file, .. }
            | Operation::Abandon { file } => Place::File(*file),
            Operation::RenewLeases { .. }
            | Operation::ExpireLeases { .. }
            | Operation::ForgetTombstones { .. }
            | Operation::ReserveChunks { .. }
            | Operation::BuryChunks { .. }
            | Operation::AcceptLoss { .. }
            | Operation::Reap { .. } => Place::Path(NsPath::root()),
        }
    }

    /// Whether it frees space, on datanodes or in what the master holds: such goes on when the disk is full (R21).
    pub(crate) fn frees_space(&self) -> bool {
        matches!(
            self.operation,
            Operation::Remove { .. }
                | Operation::Abandon { .. }
                | Operation::ExpireLeases { .. }
                | Operation::BuryChunks { .. }
                | Operation::ForgetTombstones { .. }
                | Operation::Reap { .. }
        )
    }

    /// Whether it is the one change that a master which is behind makes.
    pub(crate) fn accepts_loss(&self) -> bool {
        matches!(self.operation, Operation::AcceptLoss { .. })
    }

    /// Whether `answer` is one that this kind of command gives.
    pub(crate) fn fits(&self, answer: &Answer) -> bool {
        match (&self.operation, answer) {
            (Operation::Create { .. }, Answer::Created { .. }) => true,
            (Operation::AllocateChunk { file, .. }, Answer::Allocated { file: of, .. }) => file == of,
            (Operation::Complete { file, .. }, Answer::Completed(completed)) => *file == completed.file,
            (Operation::PutWhole { path, .. }, Answer::Completed(completed)) => *path == completed.path,
            (
                Operation::Mkdir { .. }
                | Operation::Abandon { .. }
                | Operation::Rename { .. }
                | Operation::Remove { .. }
                | Operation::Copy { .. }
                | Operation::SetMode { .. }
                | Operation::SetOwner { .. }
                | Operation::SetReplication { .. },
                Answer::Done,
            ) => true,
            _ => false,
        }
    }
}
