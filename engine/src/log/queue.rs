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

/// What the log's thread is asked to do.
#[derive(Debug)]
pub(super) enum Request {
    /// Append records.
    Append(Append),
    /// Remove the segments whose records all are at or below this one.
    Release(Lsn, oneshot::Sender<Result<Released, LogError>>),
    /// Finish what came before, and end.
    Close(oneshot::Sender<Result<(), LogError>>),
}
