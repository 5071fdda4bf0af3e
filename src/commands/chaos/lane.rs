//! One client: it writes, overwrites, moves, copies, reads and removes files in a directory of its own, and keeps the
//! ledger of what it was told.

use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use distrifs_client::{Client, ClientError, GetTarget, NoProgress, PutOptions, PutSource};
use distrifs_proto::{ErrorCode, SplitMix};

use super::ledger::{Content, Ended, Ledger};
use crate::error::CommandError;

/// Names in one directory: few, so that they are overwritten.
const NAMES: u64 = 16;
/// The largest file.
const FILE_BYTES_MAX: u64 = 5 << 20;
/// After a failed operation: a cluster that is down is not asked in a loop.
const REST: Duration = Duration::from_millis(200);

/// What was done and what came of it.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Done {
    /// Acknowledged operations by kind.
    pub(super) operations: BTreeMap<&'static str, u64>,
    /// Operations that failed, by kind: allowed while there are faults.
    pub(super) failed: BTreeMap<&'static str, u64>,
    /// Files compared byte for byte.
    pub(super) checked: u64,
    /// What was found and must not be: each a line.
    pub(super) wrong: Vec<String>,
    /// The longest put and get that succeeded.
    pub(super) longest_put: Duration,
    /// See [`Done::longest_put`].
    pub(super) longest_get: Duration,
}

impl Done {
    /// Adds what another client did.
    pub(super) fn add(&mut self, other: Self) {
        for (kind, count) in other.operations {
            *self.operations.entry(kind).or_default() += count;
        }
        for (kind, count) in other.failed {
            *self.failed.entry(kind).or_default() += count;
        }
        self.checked += other.checked;
        self.wrong.extend(other.wrong);
        self.longest_put = self.longest_put.max(other.longest_put);
        self.longest_get = self.longest_get.max(other.longest_get);
    }
}

/// One client and its directory.
pub(super) struct Lane {
    client: Client,
    directory: String,
    random: SplitMix,
    scratch: PathBuf,
    pub(super) ledger: Ledger,
    pub(super) done: Done,
}

/// How an error leaves an operation.
fn ended(error: &ClientError) -> Ended {
    match error {
        ClientError::NotWritten { .. } => Ended::Refused,
        ClientError::Refused { code, .. } if *code != ErrorCode::Unknown && !code.retryable() => {
            Ended::Refused
        }
        _ => Ended::Unknown,
    }
}

impl Lane {
    /// A client that works below `directory` and keeps what it reads below `scratch` for a moment.
    pub(super) fn new(client: Client, directory: String, seed: u64, scratch: &Path) -> Self {
        Self {
            client,
            directory,
            random: SplitMix::new(seed),
            scratch: scratch.to_owned(),
            ledger: Ledger::default(),
            done: Done::default(),
        }
    }

    /// One operation after the other until the time is over.
    pub(super) async fn run(mut self, until: Instant) -> Result<Self, CommandError> {
        while Instant::now() < until {
            let path = self.name();
            match self.random.next() % 12 {
                0..=4 => self.put(&path).await?,
                5..=8 => self.read(&path, true).await?,
                9 => self.remove(&path).await,
                10 => self.copy(&path, true).await,
                _ => self.copy(&path, false).await,
            }
        }
        Ok(self)
    }

    fn name(&mut self) -> String {
        format!("{}/file-{}", self.directory, self.random.next() % NAMES)
    }

    async fn note(&mut self, kind: &'static str, outcome: Result<(), &ClientError>) -> Ended {
        let Err(error) = outcome else {
            *self.done.operations.entry(kind).or_default() += 1;
            return Ended::Done;
        };
        tracing::info!(kind, %error, "failed");
        *self.done.failed.entry(kind).or_default() += 1;
        tokio::time::sleep(REST).await;
        ended(error)
    }

    async fn put(&mut self, path: &str) -> Result<(), CommandError> {
        // Many small ones, some empty, some of several chunks.
        let bits = self.random.next() % 24;
        let length = (self.random.next() % (1 << bits)).min(FILE_BYTES_MAX) as usize;
        let content = Content { seed: self.random.next(), length };
        let file = self.temporary()?;
        let write = file.write_all_at(&content.bytes(), 0);
        write.map_err(|e| CommandError::local(&self.scratch, "write a file in it", e))?;
        let options = PutOptions { overwrite: true, ..PutOptions::default() };
        let began = Instant::now();
        let source = PutSource::File(file, length as u64);
        let outcome = self.client.put(source, path, options, &NoProgress).await;
        if outcome.is_ok() {
            self.done.longest_put = self.done.longest_put.max(began.elapsed());
        }
        let ended = self.note("put", outcome.as_ref().map(drop)).await;
        self.ledger.wrote(path, content, ended);
        Ok(())
    }

    async fn remove(&mut self, path: &str) {
        let outcome = self.client.remove(path, false).await;
        if self.is_missing(path, "rm", outcome.as_ref().err()) {
            return;
        }
        let ended = self.note("rm", outcome.as_ref().map(drop)).await;
        self.ledger.removed(path, ended);
    }

    async fn copy(&mut self, source: &str, moves: bool) {
        let target = self.name();
        if target == source {
            return;
        }
        let (kind, outcome) = if moves {
            ("mv", self.client.rename(source, &target, true).await)
        } else {
            ("cp", self.client.copy(source, &target, true).await)
        };
        if self.is_missing(source, kind, outcome.as_ref().err()) {
            return;
        }
        let ended = self.note(kind, outcome.as_ref().map(drop)).await;
        self.ledger.copied(source, &target, moves, ended);
    }

    /// Whether the answer was that nothing is there; that nothing may be there is checked.
    fn is_missing(&mut self, path: &str, kind: &str, error: Option<&ClientError>) -> bool {
        let missing = error.is_some_and(|error| error.code() == ErrorCode::NotFound);
        if missing && !self.ledger.allows(path, None) {
            self.done.wrong.push(format!("{kind}: {path}: an acknowledged file is not there"));
        }
        missing
    }

    /// Reads a path and compares it with the ledger. While there are faults a read may fail; it may never be wrong.
    pub(super) async fn read(&mut self, path: &str, may_fail: bool) -> Result<(), CommandError> {
        let file = self.temporary()?;
        let target =
            file.try_clone().map_err(|e| CommandError::local(&self.scratch, "open a file twice", e))?;
        let began = Instant::now();
        let outcome = self.client.get(path, None, GetTarget::File(target), &NoProgress).await;
        if self.is_missing(path, "get", outcome.as_ref().err()) {
            return Ok(());
        }
        match &outcome {
            Ok(status) => {
                self.done.longest_get = self.done.longest_get.max(began.elapsed());
                let mut bytes = vec![0; status.size as usize];
                let read = file.read_exact_at(&mut bytes, 0);
                read.map_err(|e| CommandError::local(&self.scratch, "read a file in it", e))?;
                self.done.checked += 1;
                if !self.ledger.allows(path, Some(&bytes)) {
                    let length = bytes.len();
                    self.done.wrong.push(format!("get: {path}: {length} bytes that were never acknowledged"));
                }
            }
            Err(error) if !may_fail => self.done.wrong.push(format!("get: {error}")),
            Err(_) => {}
        }
        let _ = self.note("get", outcome.as_ref().map(drop)).await;
        Ok(())
    }

    fn temporary(&self) -> Result<std::fs::File, CommandError> {
        tempfile::tempfile_in(&self.scratch)
            .map_err(|e| CommandError::local(&self.scratch, "make a file in it", e))
    }
}
