//! What a recovery leaves for the log that continues.

use std::path::PathBuf;

use distrifs_proto::types::{ClusterId, Epoch, Lsn};

use super::super::release::KeptSegment;
use super::scan::Position;
use crate::folder::FolderLock;

/// A log that was read to its end and can be continued by [`Log::start`](crate::log::Log::start). It keeps the
/// folder that the log is in locked.
#[derive(Debug)]
pub struct Recovered {
    /// The log's folder, as the caller named it.
    pub(crate) dir: PathBuf,
    /// The folder where the log is: that one or a fork in it.
    pub(crate) home: PathBuf,
    pub(crate) fork: Option<Epoch>,
    pub(crate) cluster: ClusterId,
    pub(crate) first_lsn: Lsn,
    pub(crate) position: Position,
    pub(crate) tail: Box<Tail>,
    pub(crate) cut: Option<CutTail>,
    pub(crate) lock: Option<FolderLock>,
}

/// The remains of a write that the crash tore, and which were removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CutTail {
    /// The sequence of the segment.
    pub sequence: u64,
    /// Where in the file.
    pub offset: u64,
    /// How many bytes were zeroed.
    pub bytes: u64,
}

/// Where the log goes on.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tail {
    /// The segments that were in use, oldest first; the last is the active one.
    pub(crate) kept: Vec<KeptSegment>,
    /// The segment in use, if any is.
    pub(crate) active: Option<ActiveSegment>,
    /// The one that was made ready: sequence and size.
    pub(crate) unused: Option<(u64, u64)>,
}

/// The segment in use.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ActiveSegment {
    pub(crate) sequence: u64,
    pub(crate) salt: u64,
    pub(crate) bytes: u64,
    /// Where the next group goes.
    pub(crate) end: u64,
}

impl Recovered {
    /// The last record; 0 when there is none.
    #[must_use]
    pub fn last_lsn(&self) -> Lsn {
        Lsn(self.position.next_lsn.0 - 1)
    }

    /// The first record that is kept, or would be.
    #[must_use]
    pub fn first_lsn(&self) -> Lsn {
        self.first_lsn
    }

    /// The newest epoch in the log; 0 when it is empty.
    #[must_use]
    pub fn last_epoch(&self) -> Epoch {
        self.position.epoch
    }

    /// The fork that the log is in, if it was ever forked.
    #[must_use]
    pub fn fork(&self) -> Option<Epoch> {
        self.fork
    }

    /// The torn write that was removed, or not taken along into a fork, if there was one.
    #[must_use]
    pub fn cut(&self) -> Option<CutTail> {
        self.cut
    }
}
