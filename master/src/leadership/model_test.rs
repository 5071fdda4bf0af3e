//! Why no acknowledged change is lost when leaders follow each other, and a model checker that tries all orders.
//!
//! The **token** is a name with a number, the epoch; a claim renames n to n + 1, so that of all who saw n one succeeds. A
//! **fork** is a log under the epoch of who leads it; the log of record is the finished fork of the highest epoch. The
//! **lock** of a fork is held by its writer until that process is gone and its last write has come to rest. The
//! **lease** is a hint when to claim and nothing else: here it has always run out. Any process may pause between any
//! two steps, for ever, or be killed.
//!
//! 1. *What a leader acknowledged, every later one has read.* A leader writes, then looks at the token, then
//!    acknowledges; a claimant moves the token, then reads. If the leader still saw its epoch, its write was there before
//!    the token moved, and so before any later leader read. If not, it acknowledges nothing. The pause between the look
//!    and the answer does no harm: what is answered was read by then.
//! 2. *What a late leader publishes hides nothing.* A claimant that was itself replaced before it published may still
//!    publish: under its old epoch, below the fork of who replaced it. It has read what was acknowledged before its own
//!    epoch, and nothing is ever acknowledged under that. For this, every leader puts its epoch on the log it
//!    leads *before* the first change: a copy is published under it, a log that goes on in place is renamed to it.
//!    A log that went on under its old name would be hidden by the late fork.
//! 3. *A log has one writer.* A fork is published with its lock held. A claimant goes on in place only in a fork whose lock
//!    it had before it read: whoever wrote there is gone, and nothing comes in behind the reading. Who has no lock
//!    copies what it read and leaves the fork to its writer, which writes on unseen until it looks at the token.
//! 4. *A log's epoch only grows.* A claimant that finds a fork of a higher epoch than its own has been replaced and gives
//!    up; else it could get the lock of the newest fork when its writer dies, and put its own, lower, epoch on it.
//!
//! Each rule is also broken, one at a time, and the checker must find the harm. What is not in the model: a loss of
//! power, for which the folder of the token is synced before anything is read, and of a fork before it is led; what a
//! replaced leader answers to who only reads; and how forks are removed that are of no use any more.

use std::sync::atomic::{AtomicU32, Ordering};

use stateright::{Checker, HasDiscoveries, Model, Property};

const PROCESSES: usize = 3;
/// Changes that are begun in a run, and so LSNs.
const CHANGES: usize = 3;

/// A number of a change; 0 is none.
type Change = u8;
/// What stands in a log at each LSN. A write overwrites what was at its place, as on a disk.
type Records = [Change; CHANGES];

/// The LSN that is written next.
fn end(records: &Records) -> usize {
    records.iter().position(|change| *change == 0).unwrap_or(CHANGES)
}

/// What a process has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
enum Step {
    #[default]
    Waits,
    /// Has seen the token.
    Saw,
    /// The token has its epoch.
    Claimed,
    /// Knows which fork is the log of record.
    Listed,
    /// Has its records in memory, and may be making a copy of them: nobody sees it before it is published.
    Read,
    /// Its log has its epoch.
    Leads,
    /// A write is under way.
    Writes,
    /// It is durable.
    Landed,
    /// The token was still its own.
    Proved,
    /// Killed with a write under way.
    Dies,
}

/// What is done next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Do {
    TakeLock,
    Look,
    Claim,
    List,
    Read,
    Publish,
    Write,
    Land,
    Prove,
    Acknowledge,
    Kill,
    /// The last write of a killed process does not reach the disk.
    LoseWrite,
}

/// A process and what it does.
type Action = (usize, Do);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
struct Process {
    step: Step,
    /// The epoch it claimed; the one it saw, before that.
    epoch: u8,
    /// The fork whose lock it holds: a place in [`State::forks`].
    lock: Option<usize>,
    /// The fork it reads from, and then the one it writes to.
    fork: Option<usize>,
    memory: Records,
    /// Not yet acknowledged.
    change: Change,
}

impl Process {
    /// Whether a write of it can still reach its fork.
    fn can_write(&self) -> bool {
        self.step >= Step::Leads
    }

    /// Whether it has read the log and is alive.
    fn has_memory(&self) -> bool {
        (Step::Read..=Step::Proved).contains(&self.step)
    }
}

/// A log that was published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Fork {
    /// Its name.
    epoch: u8,
    records: Records,
    /// Whether it began as a copy.
    is_copy: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Acknowledged {
    epoch: u8,
    lsn: usize,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct State {
    token: u8,
    /// By epoch: the last is the log of record. Those that nobody will look at any more are left out.
    forks: Vec<Fork>,
    processes: [Process; PROCESSES],
    /// By change, from 1.
    acknowledged: [Option<Acknowledged>; CHANGES],
    changes_begun: u8,
    kills: u8,
}

impl State {
    fn begin() -> Self {
        Self {
            token: 0,
            forks: vec![Fork { epoch: 0, records: Records::default(), is_copy: false }],
            processes: Default::default(),
            acknowledged: [None; CHANGES],
            changes_begun: 0,
            kills: 0,
        }
    }

    fn newest(&self) -> usize {
        self.forks.len() - 1
    }

    /// The changes that were acknowledged.
    fn acknowledgements(&self) -> impl Iterator<Item = (Change, Acknowledged)> {
        (1..).zip(self.acknowledged).filter_map(|(change, it)| Some((change, it?)))
    }

    /// Sorts the forks by epoch and drops what nobody will look at any more.
    fn tidy(&mut self) {
        if self.forks.len() == 1 {
            return;
        }
        let newest = (0..self.forks.len()).max_by_key(|at| self.forks[*at].epoch);
        let used = |at: &usize| {
            Some(*at) == newest || self.processes.iter().any(|it| [it.lock, it.fork].contains(&Some(*at)))
        };
        let mut kept: Vec<usize> = (0..self.forks.len()).filter(used).collect();
        kept.sort_by_key(|at| self.forks[*at].epoch);
        self.forks = kept.iter().map(|at| self.forks[*at]).collect();
        let place = |fork: Option<usize>| kept.iter().position(|at| Some(*at) == fork);
        for process in &mut self.processes {
            (process.lock, process.fork) = (place(process.lock), place(process.fork));
        }
    }

    /// The same for all ways of numbering the processes.
    fn representative(&self) -> Self {
        let mut sorted = self.clone();
        sorted.processes.sort_unstable();
        sorted
    }
}

/// A rule of the protocol that is not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Broken {
    /// Nobody looks at the token before the answer.
    NoProof,
    /// The token is looked at before the write, not after it.
    ProofBeforeWrite,
    /// The log is read before the token is moved.
    ReadBeforeClaim,
    /// The token is read and written anew, not renamed.
    ClaimByWriting,
    /// Who takes over by the lease goes on in the log of who may still write there.
    InPlaceWithoutLock,
    /// The lock is taken after the log was read.
    LockAfterRead,
    /// The lock of a killed process is free before its last write has come to rest.
    LockBeforeRest,
    /// One lock for all forks, which who takes over by the lease replaces when it begins to lead.
    OneLock,
    /// A log that goes on in place keeps the epoch of who led it before.
    InPlaceUnderOldEpoch,
    /// Who finds a fork of a higher epoch than its own goes on all the same.
    FollowNewer,
    /// The copy is made of a second reading, and memory is of the first.
    CopyReadsAgain,
}

/// What must have been tried, lest the checker agree for want of trouble. Steps killed in follow behind.
#[derive(Debug, Clone, Copy)]
enum Tried {
    ClaimLost,
    InPlaceInCopy,
    CopyOfCopy,
    PublishedLate,
    GaveUpToNewer,
    SteppedDown,
    KilledIn,
}

/// How long runs may be.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    /// Claims that succeed.
    epochs: u8,
    /// Changes that are begun.
    changes: u8,
    /// Processes that are killed.
    kills: u8,
}

/// The protocol and its bounds.
#[derive(Debug)]
struct Leadership {
    broken: Option<Broken>,
    bounds: Bounds,
    /// Bits of [`Tried`], of the whole run and so no part of a state.
    tried: AtomicU32,
}

impl Leadership {
    fn new(broken: Option<Broken>, bounds: Bounds) -> Self {
        Self { broken, bounds, tried: AtomicU32::new(0) }
    }

    fn breaks(&self, rule: Broken) -> bool {
        self.broken == Some(rule)
    }

    fn note(&self, what: Tried, step: usize) {
        self.tried.fetch_or(1 << (what as usize + step), Ordering::Relaxed);
    }

    fn was_tried(&self, what: Tried) -> bool {
        self.tried.load(Ordering::Relaxed) & (1 << what as usize) != 0
    }

    fn was_killed_in_each_step(&self) -> bool {
        let killed = self.tried.load(Ordering::Relaxed) >> Tried::KilledIn as usize;
        (Step::Saw as usize..=Step::Proved as usize).all(|step| killed & (1 << step) != 0)
    }

    /// What a process can do by itself.
    fn next_of(&self, state: &State, process: &Process) -> Option<Do> {
        let proof_first = self.breaks(Broken::ProofBeforeWrite);
        Some(match process.step {
            Step::Waits if state.token < self.bounds.epochs => Do::Look,
            Step::Waits => return None,
            Step::Saw => Do::Claim,
            Step::Claimed => Do::List,
            Step::Listed => Do::Read,
            Step::Read => Do::Publish,
            Step::Leads if proof_first => Do::Prove,
            Step::Leads | Step::Proved
                if state.changes_begun < self.bounds.changes && process.change == 0 =>
            {
                Do::Write
            }
            Step::Leads => return None,
            Step::Writes | Step::Dies => Do::Land,
            Step::Landed if proof_first || self.breaks(Broken::NoProof) => Do::Acknowledge,
            Step::Landed => Do::Prove,
            Step::Proved if proof_first => return None,
            Step::Proved => Do::Acknowledge,
        })
    }

    fn in_place(&self, process: &Process) -> bool {
        process.lock == process.fork || self.breaks(Broken::InPlaceWithoutLock)
    }

    /// The lock that a process can take.
    fn free_lock(&self, state: &State, process: &Process) -> Option<usize> {
        let wanted = match process.step {
            Step::Waits | Step::Claimed => state.newest(),
            Step::Read if self.breaks(Broken::LockAfterRead) => process.fork?,
            _ => return None,
        };
        let one = self.breaks(Broken::OneLock);
        let is_free = |it: &Process| if one { it.lock.is_none() } else { it.lock != Some(wanted) };
        (process.lock.is_none() && state.processes.iter().all(is_free)).then_some(wanted)
    }

    fn look(&self, state: &mut State, at: usize) {
        let newest = state.newest();
        let process = &mut state.processes[at];
        (process.step, process.epoch) = (Step::Saw, state.token);
        if self.breaks(Broken::ReadBeforeClaim) {
            process.fork = Some(newest);
            process.memory = state.forks[newest].records;
            process.lock = process.lock.filter(|lock| *lock == newest);
        }
    }

    fn claim(&self, state: &mut State, at: usize) {
        let process = &mut state.processes[at];
        if state.token != process.epoch && !self.breaks(Broken::ClaimByWriting) {
            self.note(Tried::ClaimLost, 0);
            *process = Process { lock: process.lock, ..Process::default() };
            return;
        }
        process.epoch += 1;
        state.token = process.epoch;
        process.step = if self.breaks(Broken::ReadBeforeClaim) { Step::Read } else { Step::Claimed };
    }

    /// Finds the log of record. A lock of another fork is of no use any more.
    fn list(&self, state: &mut State, at: usize) {
        let newest = state.newest();
        let process = &mut state.processes[at];
        if state.forks[newest].epoch > process.epoch && !self.breaks(Broken::FollowNewer) {
            self.note(Tried::GaveUpToNewer, 0);
            *process = Process::default();
            return;
        }
        process.fork = Some(newest);
        process.lock = if self.breaks(Broken::OneLock) {
            process.lock.and(process.fork)
        } else {
            process.lock.filter(|lock| *lock == newest)
        };
        process.step = Step::Listed;
    }

    fn publish(&self, state: &mut State, at: usize) {
        let epoch = state.processes[at].epoch;
        if state.forks.iter().any(|fork| fork.epoch == epoch) {
            // The name is taken, and the rename refused.
            state.processes[at] = Process::default();
            return;
        }
        if !self.in_place(&state.processes[at]) {
            self.publish_copy(state, at);
        } else if let Some(own) = state.processes[at].fork
            && !self.breaks(Broken::InPlaceUnderOldEpoch)
        {
            if state.forks[own].is_copy {
                self.note(Tried::InPlaceInCopy, 0);
            }
            state.forks[own].epoch = epoch;
        }
        state.processes[at].step = Step::Leads;
    }

    fn publish_copy(&self, state: &mut State, at: usize) {
        let Process { epoch, fork, memory, .. } = state.processes[at];
        if state.forks.iter().any(|fork| fork.epoch > epoch) {
            self.note(Tried::PublishedLate, 0);
        }
        let source = fork.map(|source| state.forks[source]);
        if source.is_some_and(|source| source.is_copy) {
            self.note(Tried::CopyOfCopy, 0);
        }
        let second_reading = source.filter(|_| self.breaks(Broken::CopyReadsAgain));
        let records = second_reading.map_or(memory, |source| source.records);
        if self.breaks(Broken::OneLock) {
            state.processes.iter_mut().for_each(|it| it.lock = None);
        }
        let own = Some(state.forks.len());
        state.forks.push(Fork { epoch, records, is_copy: true });
        (state.processes[at].fork, state.processes[at].lock) = (own, own);
    }

    /// Who is replaced exits, and waits when it is started again.
    fn prove(&self, state: &mut State, at: usize) {
        let process = &mut state.processes[at];
        if process.epoch == state.token {
            process.step = Step::Proved;
        } else {
            self.note(Tried::SteppedDown, 0);
            *process = Process::default();
        }
    }

    fn kill(&self, state: &mut State, at: usize) {
        let process = &mut state.processes[at];
        self.note(Tried::KilledIn, process.step as usize);
        state.kills += 1;
        if process.step != Step::Writes {
            *process = Process::default();
            return;
        }
        process.step = Step::Dies;
        if self.breaks(Broken::LockBeforeRest) {
            process.lock = None;
        }
    }

    fn act(&self, state: &mut State, (at, what): Action) {
        let lock = self.free_lock(state, &state.processes[at]);
        let process = &mut state.processes[at];
        match what {
            Do::TakeLock => process.lock = lock,
            Do::Look => self.look(state, at),
            Do::Claim => self.claim(state, at),
            Do::List => self.list(state, at),
            Do::Read => {
                process.memory = process.fork.map_or(process.memory, |fork| state.forks[fork].records);
                process.step = Step::Read;
            }
            Do::Publish => self.publish(state, at),
            Do::Write => {
                state.changes_begun += 1;
                (process.step, process.change) = (Step::Writes, state.changes_begun);
            }
            Do::Land => land(state, at),
            Do::Prove => self.prove(state, at),
            Do::Acknowledge => acknowledge(state, at),
            Do::Kill => self.kill(state, at),
            Do::LoseWrite => *process = Process::default(),
        }
    }
}

fn land(state: &mut State, at: usize) {
    let process = &mut state.processes[at];
    if let (Some(fork), lsn @ 0..CHANGES) = (process.fork, end(&process.memory)) {
        state.forks[fork].records[lsn] = process.change;
    }
    if process.step == Step::Dies {
        *process = Process::default();
    } else {
        process.step = Step::Landed;
    }
}

fn acknowledge(state: &mut State, at: usize) {
    let process = &mut state.processes[at];
    let (change, lsn) = (std::mem::take(&mut process.change), end(&process.memory));
    state.acknowledged[usize::from(change) - 1] = Some(Acknowledged { epoch: process.epoch, lsn });
    process.memory[lsn] = change;
    process.step = Step::Leads;
}

// What must never be otherwise.
const IN_THE_LOG: &str = "what was acknowledged is in the log of record";
const IN_MEMORY: &str = "what was acknowledged is known to all leaders from then on";
const ONE_WRITER: &str = "a log has one writer";
const ONE_CHANGE: &str = "under an LSN one change was acknowledged";
const MEMORY_IS_LOG: &str = "what a leader knows is what its log has";

fn all_in_the_log(_: &Leadership, state: &State) -> bool {
    let records = &state.forks[state.newest()].records;
    state.acknowledgements().all(|(change, it)| records[it.lsn] == change)
}

/// Also of an acknowledgement that an earlier leader gives after a later one has read.
fn all_in_memory(_: &Leadership, state: &State) -> bool {
    state.processes.iter().filter(|it| it.has_memory()).all(|leader| {
        let mut before = state.acknowledgements().filter(|(_, it)| it.epoch <= leader.epoch);
        before.all(|(change, it)| leader.memory[it.lsn] == change)
    })
}

fn one_writer(_: &Leadership, state: &State) -> bool {
    let mut taken = [false; PROCESSES * 2 + 1];
    let mut forks = state.processes.iter().filter(|it| it.can_write()).filter_map(|it| it.fork);
    forks.all(|fork| !std::mem::replace(&mut taken[fork], true))
}

fn one_change_for_an_lsn(_: &Leadership, state: &State) -> bool {
    let mut taken = [false; CHANGES];
    state.acknowledgements().all(|(_, it)| !std::mem::replace(&mut taken[it.lsn], true))
}

fn memory_is_the_log(_: &Leadership, state: &State) -> bool {
    let mut leaders = state.processes.iter().filter(|it| it.step == Step::Leads);
    leaders.all(|it| it.fork.is_some_and(|fork| state.forks[fork].records == it.memory))
}

/// A leader was paused, replaced by the lease, has gone on, and will find it out.
fn replaced_leader_goes_on(_: &Leadership, state: &State) -> bool {
    let old = state.processes.iter().find(|it| it.step == Step::Landed && it.epoch < state.token);
    let new = state.processes.iter().find(|it| it.step == Step::Leads && it.epoch == state.token);
    old.zip(new).is_some_and(|(old, new)| old.fork != new.fork && old.lock.is_some())
}

fn two_leaders_acknowledged(_: &Leadership, state: &State) -> bool {
    let mut epochs = state.acknowledgements().map(|(_, it)| it.epoch);
    let first = epochs.next();
    epochs.any(|epoch| Some(epoch) != first)
}

impl Model for Leadership {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State::begin()]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for (at, process) in state.processes.iter().enumerate() {
            actions.extend(self.next_of(state, process).map(|next| (at, next)));
            if self.free_lock(state, process).is_some() {
                actions.push((at, Do::TakeLock));
            }
            if process.step == Step::Dies {
                actions.push((at, Do::LoseWrite));
            } else if state.kills < self.bounds.kills && process.step != Step::Waits {
                actions.push((at, Do::Kill));
            }
        }
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let mut next = state.clone();
        self.act(&mut next, action);
        next.tidy();
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let tried = Property::<Self>::sometimes;
        vec![
            Property::always(IN_THE_LOG, all_in_the_log),
            Property::always(IN_MEMORY, all_in_memory),
            Property::always(ONE_WRITER, one_writer),
            Property::always(ONE_CHANGE, one_change_for_an_lsn),
            Property::always(MEMORY_IS_LOG, memory_is_the_log),
            tried("a replaced leader goes on writing", replaced_leader_goes_on),
            tried("a replaced leader steps down", |it, _| it.was_tried(Tried::SteppedDown)),
            tried("two leaders acknowledged", two_leaders_acknowledged),
            tried("a claim is lost to another", |it, _| it.was_tried(Tried::ClaimLost)),
            tried("a copy goes on in place", |it, _| it.was_tried(Tried::InPlaceInCopy)),
            tried("a copy is copied", |it, _| it.was_tried(Tried::CopyOfCopy)),
            tried("a copy is published too late", |it, _| it.was_tried(Tried::PublishedLate)),
            tried("a claimant gives up to a newer one", |it, _| it.was_tried(Tried::GaveUpToNewer)),
            tried("a process is killed in each step", |it, _| it.was_killed_in_each_step()),
        ]
    }
}

/// All runs within the bounds.
fn assert_safe(bounds: Bounds) {
    let model = Leadership::new(None, bounds);
    let checked = model.checker().symmetry_fn(State::representative).spawn_dfs().join();
    println!("{bounds:?}: {} states", checked.unique_state_count());
    checked.assert_properties();
}

#[test]
fn nothing_acknowledged_is_lost_in_any_order() {
    assert_safe(Bounds { epochs: 4, changes: 2, kills: 1 });
}

/// Minutes in a debug build: for who changes the protocol.
#[test]
#[ignore = "millions of states"]
fn nothing_acknowledged_is_lost_in_longer_orders() {
    assert_safe(Bounds { epochs: 4, changes: 3, kills: 2 });
}

/// A short run in which not keeping the rule breaks the property.
fn assert_found(broken: Broken, property: &'static str, bounds: Bounds) {
    let model = Leadership::new(Some(broken), bounds);
    let found = model.checker().finish_when(HasDiscoveries::AnyOf([property].into())).spawn_bfs().join();
    let path = found.discovery(property).unwrap_or_else(|| panic!("{broken:?}: {property}: not found"));
    println!("{broken:?}, {property}, {} states: {:?}", found.unique_state_count(), path.into_actions());
}

#[test]
fn each_rule_is_needed() {
    let two_leaders = Bounds { epochs: 2, changes: 1, kills: 0 };
    let two_changes = Bounds { changes: 2, ..two_leaders };
    for (broken, property, bounds) in [
        (Broken::NoProof, IN_THE_LOG, two_leaders),
        (Broken::NoProof, IN_MEMORY, two_leaders),
        (Broken::ProofBeforeWrite, IN_THE_LOG, two_leaders),
        (Broken::ReadBeforeClaim, IN_THE_LOG, two_leaders),
        (Broken::ClaimByWriting, IN_THE_LOG, two_leaders),
        (Broken::InPlaceWithoutLock, ONE_WRITER, two_leaders),
        (Broken::InPlaceWithoutLock, IN_THE_LOG, two_changes),
        (Broken::LockAfterRead, MEMORY_IS_LOG, two_leaders),
        (Broken::LockBeforeRest, IN_THE_LOG, Bounds { kills: 1, ..two_changes }),
        (Broken::OneLock, IN_THE_LOG, Bounds { epochs: 3, changes: 2, kills: 1 }),
        (Broken::InPlaceUnderOldEpoch, IN_THE_LOG, two_leaders),
        (Broken::FollowNewer, IN_THE_LOG, Bounds { epochs: 3, changes: 1, kills: 1 }),
        (Broken::CopyReadsAgain, MEMORY_IS_LOG, two_leaders),
    ] {
        assert_found(broken, property, bounds);
    }
}
