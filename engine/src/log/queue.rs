//! What callers hand to the log's thread.

use std::ops::Range;

use bytes::Bytes;
use distrifs_proto::types::Lsn;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::error::LogError;
use super::release::Released;

/// The answer to one append: its LSNs, once they are durable.
pub(super) type Answer = Result<Range<Lsn>, LogError>;

/// One append that waits.
#[derive(Debug)]
pub(super) struct Append {
    pub(super) records: Vec<Bytes>,
    /// Encoded bytes of the records.
    pub(super) bytes: usize,
    /// Whether it may take what is kept back for the case that the disk is full.
    pub(super) from_reserve: bool,
    pub(super) answer: oneshot::Sender<Answer>,
    /// Its share of the queue, given back when it is answered.
    pub(super) _share: OwnedSemaphorePermit,
}

impl Append {
    /// Tells the caller, who may have gone: the records are in the log all the same.
    pub(super) fn answer(self, answer: Answer) {
        let _ = self.answer.send(answer);
    }
}

/// A wish to let go of segments.
#[derive(Debug)]
pub(super) struct Release {
    pub(super) upto: Lsn,
    pub(super) answer: oneshot::Sender<Result<Released, LogError>>,
    /// One release at a time: given back when it has come to an end, whether or not its caller still waits.
    pub(super) turn: OwnedSemaphorePermit,
}

/// What the log's thread is asked to do.
#[derive(Debug)]
pub(super) enum Request {
    /// Append records.
    Append(Append),
    /// Let go of the segments that hold nothing after an LSN.
    Release(Release),
    /// Begin a task on the log's thread.
    Run(Beside),
    /// Finish what came before, and end.
    Close(oneshot::Sender<Result<(), LogError>>),
}

/// Begins a task on the thread that calls it.
pub(super) struct Beside(pub(super) Box<dyn FnOnce() + Send>);

impl std::fmt::Debug for Beside {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Beside").finish_non_exhaustive()
    }
}
