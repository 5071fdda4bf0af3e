//! What can go wrong: while the log is read ([`RecoverError`]), and while it is written ([`LogError`]).

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use distrifs_proto::types::{ClusterId, Epoch, Lsn};

/// Why a log was not recovered. Nothing of it was changed.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// Another process, or another [`Log`](super::Log) of this one, has the folder. Right after a process was
    /// killed this lasts until its last write has come to rest: try again.
    #[error("the log in {dir} is in use by another process")]
    InUse {
        /// The folder.
        dir: PathBuf,
    },
    /// The operating system failed.
    #[error("{path}: cannot {doing}: {source}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// What the operating system said.
        source: io::Error,
    },
    /// Bytes that are not what was written. Records from `lsn` on are in doubt; repair from a copy.
    #[error("{file} is corrupt at byte {offset} (from LSN {lsn} on): {what}")]
    Corrupt {
        /// The file.
        file: PathBuf,
        /// Where in the file.
        offset: u64,
        /// The first record in doubt.
        lsn: Lsn,
        /// What was found there.
        what: Corruption,
    },
    /// A segment is missing although one after it, or the witness, says that it existed.
    #[error("{missing} is missing (from LSN {lsn} on), but {because} says that it existed")]
    MissingSegment {
        /// The file that should be there.
        missing: PathBuf,
        /// The file that proves it.
        because: PathBuf,
        /// The first record in doubt.
        lsn: Lsn,
    },
    /// The log begins later than the records that are asked for: they were released, since a checkpoint held them.
    #[error(
        "{file} is where the log begins, with LSN {first}, but records from LSN {needed} on are needed: start from a checkpoint that holds them"
    )]
    Released {
        /// The first segment that is kept.
        file: PathBuf,
        /// Its first record.
        first: Lsn,
        /// The first record that is needed.
        needed: Lsn,
    },
    /// The log of another cluster.
    #[error("{file} belongs to cluster {found}, expected {expected}")]
    WrongCluster {
        /// The file.
        file: PathBuf,
        /// Whose log was asked for.
        expected: ClusterId,
        /// Whose log it is.
        found: ClusterId,
    },
    /// Written by a newer version of the program.
    #[error("{file} has format version {found}, newest known is {known}: start the newer program")]
    NewerVersion {
        /// The file.
        file: PathBuf,
        /// Its version.
        found: u32,
        /// What this program knows.
        known: u32,
    },
    /// More segments than the log ever has.
    #[error("{dir} holds more than {max} segments")]
    TooManySegments {
        /// The folder.
        dir: PathBuf,
        /// The bound.
        max: usize,
    },
    /// The log was forked, or written, in the name of this epoch or of a newer one: another leader has been here.
    #[error("the log in {dir} cannot be forked for epoch {asked}: it was taken over in epoch {found}")]
    StaleFork {
        /// The folder.
        dir: PathBuf,
        /// The epoch of the fork that was asked for.
        asked: Epoch,
        /// The newest one there.
        found: Epoch,
    },
    /// The caller could not prove that it still leads, so the log was not forked.
    #[error("the log in {dir} is not forked: {source}")]
    NotLeading {
        /// The folder.
        dir: PathBuf,
        /// What the caller said.
        source: ReplayError,
    },
    /// The caller did not take a record.
    #[error("record {lsn} was not taken: {source}")]
    Replay {
        /// The record.
        lsn: Lsn,
        /// What the caller said.
        source: ReplayError,
    },
}

impl RecoverError {
    /// Whether there was only no room on the disk.
    #[must_use]
    pub fn is_no_space(&self) -> bool {
        matches!(self, Self::Io { source, .. } if is_no_space(source))
    }
}

/// What a caller of [`recover`](super::recover) answers to a record it cannot take, and one of
/// [`recover_forked`](super::recover_forked) when it does not lead any more.
pub type ReplayError = Box<dyn std::error::Error + Send + Sync>;

/// In which way a file contradicts what was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Corruption {
    /// A sector is neither zero nor as written.
    #[error("a sector fails its check")]
    RottenSector,
    /// A group is missing, but later ones are there.
    #[error("records are missing here, and later ones exist")]
    Hole,
    /// A group is incomplete, but later ones are there.
    #[error("records are incomplete here, and later ones exist")]
    IncompleteBeforeOthers,
    /// All sectors are as written, but what they say does not fit what stands before them.
    #[error("records contradict those before them")]
    Contradiction,
    /// The header block is missing or incomplete, but the segment was in use.
    #[error("the segment's header is missing, and its records exist")]
    HeaderLost,
    /// The header does not fit the file's name or the segment before it.
    #[error("the segment's header contradicts its name or the segment before it")]
    HeaderContradiction,
    /// The file has another length than it was made with.
    #[error("the file has {found} bytes, expected {expected}")]
    Length {
        /// The length it was made with; 0 when unknown.
        expected: u64,
        /// Its length now.
        found: u64,
    },
    /// The log ends before a record that is known to have been durable.
    #[error("the log ends here, but record {known} was durable")]
    EndLost {
        /// The record.
        known: Lsn,
    },
    /// The witness is not as written. Whoever knows that the log is whole may remove it; a log that was released in
    /// part is then only recovered from a checkpoint on.
    #[error("the witness of the log's end fails its check")]
    Witness,
}

/// Why records were not appended.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LogError {
    /// A write or sync failed. Whether the records of this call will be found by the next recovery is
    /// *unknown*. Nothing is ever acknowledged after this; the process should end and start again.
    #[error("the log is poisoned since LSN {since}, the outcome is unknown: {cause}")]
    Poisoned {
        /// The first record whose outcome is unknown.
        since: Lsn,
        /// What failed.
        cause: Arc<io::Error>,
    },
    /// There is no room for the next segment. These records were not written; later ones may be.
    #[error("no space for the next log segment {segment}: {cause}")]
    NoSpace {
        /// The segment that could not be made.
        segment: PathBuf,
        /// What the operating system said.
        cause: Arc<io::Error>,
    },
    /// One call brought more than fits in one group. Nothing was written.
    #[error(
        "{found} bytes in {records} records are more than one append may bring: {max} bytes, {records_max} records"
    )]
    TooLarge {
        /// Encoded bytes: each record with 4 more.
        found: usize,
        /// The bound of the bytes.
        max: usize,
        /// The number of records.
        records: usize,
        /// The bound of that number.
        records_max: usize,
    },
    /// An append without records.
    #[error("an append without records")]
    Empty,
    /// The log was closed. These records were not written.
    #[error("the log is closed")]
    Closed,
    /// The epoch is older than one in the log: another leader has been here.
    #[error("epoch {asked} is older than epoch {found}, which is in the log")]
    StaleEpoch {
        /// The epoch of the options.
        asked: Epoch,
        /// The newest one in the log.
        found: Epoch,
    },
    /// The options do not fit the recovered log, or each other.
    #[error("bad log options: {0}")]
    BadOptions(&'static str),
    /// io_uring was asked for and is not to be had.
    #[error("io_uring is not available: {0}")]
    NoUring(String),
    /// The operating system failed before anything was appended.
    #[error("{path}: cannot {doing}: {cause}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// What it said.
        cause: Arc<io::Error>,
    },
}

/// Whether an error means that the disk is full: an ordinary state, not a fault.
pub(crate) fn is_no_space(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
