//! The way of a change: queue, check, batch, log, prove leadership, apply, answer. One task does all of it.
//!
//! While one batch is on its way to the disk the next one gathers: that is the group commit. Nothing is applied,
//! and so visible, before it is durable. After a failed append nothing is applied or acknowledged any more.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use distrifs_engine::log::{Log, LogError};
use distrifs_proto::types::{ChunkId, Epoch, Lsn};
use tokio::sync::{mpsc, oneshot, watch};

use crate::error::MasterFailure;
use crate::leadership::Leadership;
use crate::namespace::{Answer, Command, NamespaceError, Operation, format};
use crate::refusal::Refusal;
use crate::stage::Stage;
use crate::state::State;
use crate::trail::Trail;

/// Changes that wait for the writer.
const QUEUE_MAX: usize = 4096;
/// Changes in one batch.
const BATCH_MAX: usize = 1024;
/// Changes applied in one hold of the namespace's lock; readers and heartbeats get it between two slices.
const APPLY_SLICE: usize = 32;
/// After this time a slice ends early. Most changes take a microsecond, but one that frees items may take as long as
/// fifty others.
const APPLY_HOLD_MAX: Duration = Duration::from_micros(500);
/// How often a batch lets others come before it goes.
const GATHER_YIELDS_MAX: usize = 64;
/// What the log adds to each record.
const RECORD_OVERHEAD: usize = 4;
/// How long a caller waits: beyond it the outcome is unknown to it.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

type Outcome = oneshot::Sender<Told>;

/// An answer, and since when the writer is done with it, where it went all the way.
type Told = (Result<Answer, Refusal>, Option<Instant>);

/// A change on its way.
#[derive(Debug)]
struct Proposal {
    command: Command,
    outcome: Outcome,
    proposed: Instant,
    trail: Option<Arc<Trail>>,
}

/// Takes changes in.
#[derive(Debug, Clone)]
pub(crate) struct Proposer {
    queue: mpsc::Sender<Proposal>,
    state: Arc<State>,
}

impl Proposer {
    /// Executes a change durably and gives its answer. It is begun at once, and goes on when nobody waits for it.
    ///
    /// # Errors
    /// The refusal; after [`Refusal::Unknown`] it may have happened.
    pub(crate) fn propose(
        &self,
        command: Command,
    ) -> impl Future<Output = Result<Answer, Refusal>> + Send + use<> {
        let place = command.place();
        let (outcome, answered) = oneshot::channel();
        let (trail, proposed) = (Trail::current(), Instant::now());
        let proposal = Proposal { command, outcome, proposed, trail: trail.clone() };
        let state = self.state.clone();
        let taken = self.queue.try_send(proposal).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Refused::Busy,
            mpsc::error::TrySendError::Closed(_) => Refused::Stopping,
        });
        // Small: the command is not in it.
        async move {
            match taken {
                Ok(()) => match tokio::time::timeout(ANSWER_TIMEOUT, answered).await {
                    Ok(Ok((answer, done))) => {
                        if let Some(done) = done {
                            note(&state, trail.as_deref(), Stage::ChangeAnswer, (done, Instant::now()));
                        }
                        answer
                    }
                    Ok(Err(_)) | Err(_) => Err(Refusal::Unknown { place }),
                },
                Err(Refused::Busy) => Err(Refusal::Busy { place }),
                Err(Refused::Stopping) => Err(Refusal::Stopping { place }),
            }
        }
    }
}

/// Why the queue did not take a change.
enum Refused {
    Busy,
    Stopping,
}

/// The one that changes the namespace.
#[derive(Debug)]
pub(crate) struct Writer {
    state: Arc<State>,
    log: Log,
    leadership: Leadership,
    queue: mpsc::Receiver<Proposal>,
    /// Whether the batch before was of several changes.
    was_shared: bool,
    /// Did not fit into the batch before.
    held_over: Option<(Proposal, Bytes)>,
}

/// How the writer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    /// It was told to stop, and did all that was taken in.
    Cleanly,
    /// It gave up, and has said why.
    Failed,
}

#[derive(Debug, Default)]
struct Batch {
    proposals: Vec<Proposal>,
    records: Vec<Bytes>,
    bytes: usize,
}

impl Writer {
    /// A writer, and the way to it.
    pub(crate) fn new(state: Arc<State>, log: Log, leadership: Leadership) -> (Self, Proposer) {
        let (sender, queue) = mpsc::channel(QUEUE_MAX);
        let writer =
            Self { state: state.clone(), log, leadership, queue, was_shared: false, held_over: None };
        (writer, Proposer { queue: sender, state })
    }

    /// Works on the log's thread, which saves two wakes of a thread for each batch. Resolves when it has ended: with
    /// the log closed after a clean stop.
    pub(crate) async fn run_beside_the_log(self, stop: watch::Receiver<bool>) {
        let (log, state) = (self.log.clone(), self.state.clone());
        let (done, ended) = oneshot::channel();
        let begun = log
            .run_beside(move || async move {
                // Nobody waits any more when the master was dropped.
                let _ = done.send(self.run(stop).await);
            })
            .await;
        if let Err(error) = begun {
            return state.fail(MasterFailure::Log { why: error.to_string() });
        }
        if ended.await == Ok(Ended::Cleanly)
            && let Err(error) = log.close().await
        {
            tracing::warn!(%error, "the log was not closed cleanly; everything acknowledged is durable");
        }
    }

    /// Works until `stop` turns true and the queue is empty, or until the log or the leadership is lost.
    async fn run(mut self, mut stop: watch::Receiver<bool>) -> Ended {
        let mut stopping = false;
        loop {
            let mut batch = Batch::default();
            if self.held_over.is_none() {
                let first = tokio::select! {
                    first = self.queue.recv() => first,
                    _ = stop.wait_for(|stop| *stop), if !stopping => {
                        // What is in the queue is still done; nothing new is taken.
                        self.queue.close();
                        stopping = true;
                        continue;
                    }
                };
                let Some(first) = first else { break };
                self.take(&mut batch, first);
                if self.was_shared {
                    self.let_others_come();
                }
            }
            self.gather(&mut batch);
            if batch.records.is_empty() {
                continue;
            }
            self.was_shared = batch.records.len() > 1;
            self.turn_bounded_rules_on(&mut batch);
            if let Err(failure) = self.commit(batch).await {
                self.state.fail(failure);
                self.refuse_rest();
                return Ended::Failed;
            }
        }
        Ended::Cleanly
    }

    /// The mutation after which commands do bounded work (`Namespace::bounded`) rides with one of a client: by itself it
    /// would cost a sync, and a command of the master's own could hide from the datanodes that the log lost its tail.
    fn turn_bounded_rules_on(&mut self, batch: &mut Batch) {
        if self.state.namespace().wants_bounded_rules() {
            let command = Command::own(self.state.clock.wall_ms(), Operation::Reap { items: 0 });
            let (outcome, _) = oneshot::channel();
            self.take(batch, Proposal { command, outcome, proposed: Instant::now(), trail: None });
        }
    }

    /// Gives the processor to whoever brings more changes, as long as they do: those of many clients arrive in a row,
    /// and one durable write for all of them is cheaper than one for the first and one for the rest. Where the
    /// processors are idle it returns at once, and a lone client's changes do not come here.
    fn let_others_come(&self) {
        let mut waiting = self.queue.len();
        for _ in 0..GATHER_YIELDS_MAX {
            std::thread::yield_now();
            let now = self.queue.len();
            if now <= waiting || now >= BATCH_MAX {
                return;
            }
            waiting = now;
        }
    }

    /// Fills the batch with what waits.
    fn gather(&mut self, batch: &mut Batch) {
        if let Some((proposal, record)) = self.held_over.take() {
            self.put(batch, proposal, record);
        }
        while batch.records.len() < BATCH_MAX && self.held_over.is_none() {
            let Ok(next) = self.queue.try_recv() else { break };
            self.take(batch, next);
        }
    }

    /// Answers a change at once if it needs no log, or puts it into the batch.
    fn take(&mut self, batch: &mut Batch, mut proposal: Proposal) {
        let behind = { self.state.cluster() }.behind().cloned();
        let checked = match behind.filter(|_| !proposal.command.accepts_loss()) {
            Some(behind) => Err(Refusal::Behind(behind)),
            None => self.state.namespace().check(&proposal.command).map_err(Refusal::Namespace),
        };
        match checked {
            Ok(None) => {
                // The real ids come with the batch; the length is the same.
                proposal.command.assign_chunk(&mut ChunkId(u64::MAX - 1));
                let record = format::encode(&proposal.command);
                self.put(batch, proposal, record);
            }
            Ok(Some(answer)) => answer_with(proposal.outcome, Ok(answer)),
            Err(refusal) => answer_with(proposal.outcome, Err(refusal)),
        }
    }

    fn put(&mut self, batch: &mut Batch, proposal: Proposal, record: Bytes) {
        let (found, max) = (record.len() + RECORD_OVERHEAD, self.log.append_bytes_max());
        if found > max {
            let place = proposal.command.place();
            answer_with(proposal.outcome, Err(Refusal::TooLarge { place, found, max }));
        } else if batch.bytes + found > max {
            self.held_over = Some((proposal, record));
        } else {
            batch.bytes += found;
            batch.records.push(record);
            batch.proposals.push(proposal);
        }
    }

    /// Makes a batch durable, applies it and answers.
    async fn commit(&mut self, mut batch: Batch) -> Result<(), MasterFailure> {
        let mut lap = Lap::new(&self.state);
        lap.hold_up(Stage::ChangeQueue);
        lap.ends(&batch.proposals, Stage::ChangeQueue);
        let mut next_chunk = self.state.namespace().next_chunk();
        for (proposal, record) in batch.proposals.iter_mut().zip(&mut batch.records) {
            let before = next_chunk;
            proposal.command.assign_chunk(&mut next_chunk);
            if next_chunk != before {
                *record = format::encode(&proposal.command);
            }
        }
        lap.hold_up(Stage::ChangeLog);
        let mut appended = self.log.append(batch.records).await;
        if let Err(error @ LogError::NoSpace { .. }) = &appended {
            let (freeing, growing) =
                batch.proposals.into_iter().partition(|proposal| proposal.command.frees_space());
            refuse_for_space(growing, error);
            batch.proposals = freeing;
            if !batch.proposals.is_empty() {
                // Numbers of chunks are handed out by the others alone.
                let records = batch.proposals.iter().map(|proposal| format::encode(&proposal.command));
                appended = self.log.append_from_reserve(records.collect()).await;
            }
        }
        self.state.set_log_stats(self.log.stats());
        let range = match appended {
            Ok(range) => range,
            Err(error @ LogError::NoSpace { .. }) => {
                refuse_for_space(batch.proposals, &error);
                return Ok(());
            }
            Err(error) => return Err(give_up(batch.proposals, error.to_string())),
        };
        lap.ends(&batch.proposals, Stage::ChangeLog);
        lap.hold_up(Stage::ChangeProve);
        // The disk has it, but an answer is given only by who leads: another start may have begun meanwhile.
        if let Err(failure) = self.leadership.prove() {
            refuse_all(batch.proposals);
            return Err(failure);
        }
        lap.ends(&batch.proposals, Stage::ChangeProve);
        lap.hold_up(Stage::ChangeApply);
        let expected = batch.proposals.len() as u64;
        if range.end.0.checked_sub(range.start.0) != Some(expected) {
            let why = format!("{expected} records got the positions {range:?}");
            return Err(give_up(batch.proposals, why));
        }
        let (answers, history) = self.apply(&batch.proposals, range.start);
        self.state.set_durable(Lsn(range.end.0 - 1));
        self.state.set_history(history);
        lap.ends(&batch.proposals, Stage::ChangeApply);
        lap.hold_up(Stage::ChangeAnswer);
        for (proposal, answer) in batch.proposals.into_iter().zip(answers) {
            // The change stands all the same when whoever asked has gone.
            let _ = proposal.outcome.send((answer.map_err(Refusal::Namespace), Some(lap.since)));
        }
        Ok(())
    }

    /// Applies a durable batch in order, and gives back the epoch of the last accepted loss with the answers.
    ///
    /// A reader may see the state between two slices: all of the batch is durable, so what it sees stays.
    fn apply(&self, proposals: &[Proposal], first: Lsn) -> (Vec<Result<Answer, NamespaceError>>, Epoch) {
        let mut answers = Vec::with_capacity(proposals.len());
        let mut rest = proposals.iter().zip(first.0..);
        while answers.len() < proposals.len() {
            if !answers.is_empty() {
                // The lock is not fair: without a pause it is taken again before a waiting reader has woken.
                std::thread::yield_now();
            }
            let mut namespace = self.state.namespace_mut();
            let held = Instant::now();
            for (proposal, lsn) in rest.by_ref().take(APPLY_SLICE) {
                answers.push(namespace.apply(Lsn(lsn), &proposal.command));
                if held.elapsed() >= APPLY_HOLD_MAX {
                    break;
                }
            }
        }
        (answers, self.state.namespace().history())
    }

    /// Nothing more is taken; what waits was not begun.
    fn refuse_rest(&mut self) {
        self.queue.close();
        let held_over = self.held_over.take().map(|(proposal, _)| proposal);
        let waiting = std::iter::from_fn(|| self.queue.try_recv().ok());
        for proposal in held_over.into_iter().chain(waiting) {
            let place = proposal.command.place();
            answer_with(proposal.outcome, Err(Refusal::Stopping { place }));
        }
    }
}

/// The way of one batch, stage by stage: each change of it passes each at the same time.
struct Lap<'a> {
    state: &'a State,
    since: Instant,
}

impl<'a> Lap<'a> {
    fn new(state: &'a State) -> Self {
        Self { state, since: Instant::now() }
    }

    /// A stage ends for all of these, and the next one begins. In the queue each has been for as long as it was there.
    fn ends(&mut self, proposals: &[Proposal], stage: Stage) {
        let now = Instant::now();
        for proposal in proposals {
            let since = if stage == Stage::ChangeQueue { proposal.proposed } else { self.since };
            note(self.state, proposal.trail.as_deref(), stage, (since, now));
        }
        self.since = now;
    }

    /// Waits for as long as a test wants this stage to take: the log's thread has no timer, and nothing else to do.
    fn hold_up(&self, stage: Stage) {
        if let Some(delay) = self.state.latency.delay(stage) {
            std::thread::sleep(delay);
        }
    }
}

fn note(state: &State, trail: Option<&Trail>, stage: Stage, (from, to): (Instant, Instant)) {
    state.latency.record(stage, to.saturating_duration_since(from));
    if let Some(trail) = trail {
        trail.passed(stage, from, to);
    }
}

fn refuse_for_space(proposals: Vec<Proposal>, error: &LogError) {
    for proposal in proposals {
        let (place, why) = (proposal.command.place(), error.to_string());
        answer_with(proposal.outcome, Err(Refusal::LogFull { place, why }));
    }
}

fn give_up(proposals: Vec<Proposal>, why: String) -> MasterFailure {
    refuse_all(proposals);
    MasterFailure::Log { why }
}

/// They are on the disk or not: nobody knows.
fn refuse_all(proposals: Vec<Proposal>) {
    for proposal in proposals {
        let place = proposal.command.place();
        answer_with(proposal.outcome, Err(Refusal::Unknown { place }));
    }
}

fn answer_with(outcome: Outcome, answer: Result<Answer, Refusal>) {
    // Whoever asked may have gone; the change stands all the same.
    let _ = outcome.send((answer, None));
}

#[cfg(test)]
#[path = "writer_test.rs"]
mod tests;
