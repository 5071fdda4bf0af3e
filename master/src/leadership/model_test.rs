//! Why no acknowledged change is lost when leaders follow each other, and a model checker that tries all orders.
//!
//! The **token** is a name with a number, the epoch; a claim renames n to n + 1, so that of all who saw n one succeeds. A
//! **fork** is a log in a folder of its own, named after the epoch of who made it and finished by a rename; fork 0 is the
//! log that was there first. The log of record is the newest finished fork. The **lock** of a fork stays with its
//! folder through the rename, and is held by its maker or by who goes on in it until that process is gone and its last
//! write has come to rest. The **lease** is a hint when to claim and nothing else: here it has always run out. Any
//! process may pause between any two steps, for ever, or be killed.
//!
//! Who has claimed an epoch either **goes on in place**: locks the newest fork; looks that no process is making one;
//! looks that it is still the newest; reads; looks again. What it writes is then in a fork of a lower epoch than its
//! own. Or it **forks**: makes the folder under an unfinished name and locks it; proves that the token is still its own;
//! reads the newest fork, whoever has that; looks that it is still the newest; renames its own.
//!
//! 1. *What a leader acknowledged, every later one has read.* A leader writes, then looks at the token, then
//!    acknowledges; a claimant moves the token, then reads. If the leader still saw its epoch, its write was there before
//!    the token moved, and so before any later leader read. If not, it acknowledges nothing. The pause between the look
//!    and the answer does no harm: what is answered was read by then.
//! 2. *No fork comes late above a log that somebody goes on in.* Let A make a fork of an epoch below that of C, who goes
//!    on in place. A locks, then looks at the token; C moves the token, then looks for locks. So A finds that it was
//!    replaced, or C finds the lock and makes a fork instead, or A had finished, and C finds a newer fork when it looks
//!    again. A fork above C's epoch means that C was replaced. It is all the same whether C takes the lock of the log
//!    before it looks for forks or after, as long as both come after its claim.
//! 3. *What a late fork hides is nothing.* A was replaced before it finished, by B, who forks, too. Until B's fork is
//!    there, A's is the log of record, and has what was acknowledged before A's epoch, and nothing ever was under that.
//! 4. *A log has one writer.* Who goes on in place has had the lock since before it read: whoever wrote there is gone, and
//!    nothing comes in behind the reading. Who has no lock copies what it read and leaves the fork to its writer,
//!    which writes on unseen until it looks at the token.
//! 5. *What is removed is read by nobody.* A late fork removes the ones below it, and one of those may be what B is just
//!    reading: it would find less than there was, and hide the rest beneath its own fork. A fork is removed only when there
//!    is a newer one, so that whoever still finds the newest after it has read has read all of it.
//! 6. *Who goes on in a fork of a newer epoch than its own does no harm.* It was replaced and acknowledges nothing. While it
//!    has the lock everybody else forks; when it is gone, its write is one more that was never acknowledged.
//!
//! Each rule is also broken, one at a time, and the checker must find the harm. Of the two looks of who goes on in place
//! the second suffices; the first saves the reading.
//!
//! What the model leaves open, so that it tries more than there is: who has claimed may always fork, also where it
//! could go on in place, and begin again as often as it likes; who finds its own fork below a newer one leads until it
//! looks at the token; records of a newer epoch in the log stop nobody. Whoever removes abandoned forks holds their
//! locks meanwhile; whom that keeps from going on in place makes a fork, as it may at any time, and whoever was about to
//! lock one of them gives up, as if it were gone. One who forks removes only abandoned ones of lower epochs: their
//! makers would find that they were replaced.
//!
//! What is not in the model: a loss of power, for which the folder of the token is synced before anything is read, and
//! that of the forks before one is led in; what a replaced leader answers to who only reads.

use std::sync::atomic::{AtomicU64, Ordering};

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
    /// The token has its epoch. From here it goes on in place, or makes a fork.
    Claimed,
    /// In place: knows the newest fork.
    Listed,
    /// In place: has its lock.
    Locked,
    /// In place: nobody was making a fork.
    Looked,
    /// Forking: the folder of the fork is there, under its unfinished name.
    Made,
    /// Forking: and locked.
    Guarded,
    /// Forking: and then the token was still its own.
    Certain,
    /// Knows which fork it reads. In place: it was still the newest.
    Chosen,
    /// Has the records in memory; forking: and in its fork.
    Read,
    /// Forking: what it read was still the newest.
    Checked,
    /// May write.
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
    Look,
    Claim,
    List,
    TakeLock,
    LookAtUnfinished,
    /// And remove those that are not locked.
    RemoveUnfinished,
    LookAgain,
    MakeFork,
    LockFork,
    ProveFork,
    Choose,
    Read,
    Publish,
    Lead,
    /// What lower forks are there.
    RemoveOlder,
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

    /// Whether it leads, or believes so, and is alive.
    fn has_memory(&self) -> bool {
        (Step::Leads..=Step::Proved).contains(&self.step)
    }

    /// Back to the beginning with the epoch that it has.
    fn restart(&mut self) {
        *self = Self { step: Step::Claimed, epoch: self.epoch, memory: self.memory, ..Self::default() };
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
    /// Its files are unlinked: who reads it finds nothing, and writes to it are lost.
    is_removed: bool,
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
            forks: vec![Fork { epoch: 0, records: Records::default(), is_copy: false, is_removed: false }],
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
    /// Who has locked its unfinished fork does not look at the token.
    ForkWithoutProof,
    /// The token is looked at before the unfinished fork is locked, not after it.
    ForkProofBeforeLock,
    /// What is forked may have been replaced and removed while it was read.
    ForkWithoutLookAgain,
    /// Who goes on in place does not look for unfinished forks.
    InPlaceWithoutLook,
    /// Who goes on in place has looked for them before its claim.
    InPlaceLookBeforeClaim,
    /// Who goes on in place does not look whether the fork is still the newest, neither before it reads nor after.
    InPlaceWithoutLookAgain,
    /// It looks before it reads, and not after.
    InPlaceWithoutSecondLookAgain,
    /// The copy is made of a second reading, and memory is of the first.
    CopyReadsAgain,
}

/// What must have been tried, lest the checker agree for want of trouble. Steps killed in follow behind.
#[derive(Debug, Clone, Copy)]
enum Tried {
    ClaimLost,
    InPlaceInCopy,
    InPlaceInNewer,
    CopyOfCopy,
    PublishedLate,
    GaveUpToNewer,
    GaveUpFork,
    LostUnfinished,
    SawUnfinished,
    BeganAgain,
    ReadAgain,
    Removed,
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
    tried: AtomicU64,
}

impl Leadership {
    fn new(broken: Option<Broken>, bounds: Bounds) -> Self {
        Self { broken, bounds, tried: AtomicU64::new(0) }
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
        (Step::Saw as usize..Step::Dies as usize).all(|step| killed & (1 << step) != 0)
    }

    /// What a process can do by itself.
    fn next_of(&self, state: &State, process: &Process) -> Option<Do> {
        let proof_first = self.breaks(Broken::ProofBeforeWrite);
        let fork_proof_first = self.breaks(Broken::ForkProofBeforeLock);
        Some(match process.step {
            Step::Waits if state.token < self.bounds.epochs => Do::Look,
            Step::Waits => return None,
            Step::Saw => Do::Claim,
            Step::Claimed => Do::List,
            Step::Listed => Do::TakeLock,
            Step::Locked => Do::LookAtUnfinished,
            Step::Looked => Do::LookAgain,
            Step::Made if fork_proof_first => Do::ProveFork,
            Step::Made => Do::LockFork,
            Step::Guarded if fork_proof_first => Do::LockFork,
            Step::Guarded => Do::ProveFork,
            Step::Certain => Do::Choose,
            Step::Chosen => Do::Read,
            Step::Read if self.in_place(process) => Do::Lead,
            Step::Read => Do::LookAgain,
            Step::Checked => Do::Publish,
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

    /// What it can do instead.
    fn other_of(&self, state: &State, process: &Process) -> Option<Do> {
        let looks = self.next_of(state, process) == Some(Do::LookAtUnfinished);
        Some(match process.step {
            Step::Claimed if !self.breaks(Broken::InPlaceWithoutLock) => Do::MakeFork,
            Step::Leads if older(state, process).next().is_some() => Do::RemoveOlder,
            _ if looks && state.processes.iter().any(|it| self.has_unlocked_fork(it)) => Do::RemoveUnfinished,
            _ => return None,
        })
    }

    fn in_place(&self, process: &Process) -> bool {
        process.lock == process.fork || self.breaks(Broken::InPlaceWithoutLock)
    }

    /// Whether it lives, and its unfinished fork is not locked.
    fn has_unlocked_fork(&self, process: &Process) -> bool {
        let late = process.step == Step::Guarded && self.breaks(Broken::ForkProofBeforeLock);
        process.step == Step::Made || late
    }

    /// Whether it lives, and its unfinished fork is locked.
    fn has_locked_fork(&self, process: &Process) -> bool {
        match process.step {
            Step::Guarded => !self.has_unlocked_fork(process),
            Step::Certain | Step::Checked => true,
            Step::Chosen | Step::Read => !self.in_place(process),
            _ => false,
        }
    }

    fn is_free(&self, state: &State, fork: Option<usize>) -> bool {
        let one = self.breaks(Broken::OneLock);
        state.processes.iter().all(|it| it.lock.is_none() || !one && it.lock != fork)
    }

    fn look(&self, state: &mut State, at: usize) {
        let unfinished = state.processes.iter().any(|it| self.has_locked_fork(it));
        if unfinished && self.breaks(Broken::InPlaceLookBeforeClaim) {
            return;
        }
        let records = state.forks[state.newest()].records;
        let process = &mut state.processes[at];
        (process.step, process.epoch) = (Step::Saw, state.token);
        if self.breaks(Broken::ReadBeforeClaim) {
            process.memory = records;
        }
    }

    fn claim(&self, state: &mut State, at: usize) {
        let process = &mut state.processes[at];
        if state.token != process.epoch && !self.breaks(Broken::ClaimByWriting) {
            self.note(Tried::ClaimLost, 0);
            *process = Process::default();
            return;
        }
        process.epoch += 1;
        state.token = process.epoch;
        process.step = Step::Claimed;
    }

    /// Finds the log of record, to go on in it, whatever its epoch.
    fn list(&self, state: &mut State, at: usize) {
        let newest = state.newest();
        let records = state.forks[newest].records;
        let process = &mut state.processes[at];
        (process.step, process.fork) = (Step::Listed, Some(newest));
        if self.breaks(Broken::LockAfterRead) {
            process.memory = records;
        }
    }

    /// Who does not get it has the choice again.
    fn take_lock(&self, state: &mut State, at: usize) {
        let fork = state.processes[at].fork;
        let is_free = self.is_free(state, fork);
        let process = &mut state.processes[at];
        if is_free {
            (process.step, process.lock) = (Step::Locked, fork);
        } else if self.breaks(Broken::InPlaceWithoutLock) {
            process.step = Step::Locked;
        } else {
            process.restart();
        }
    }

    fn look_at_unfinished(&self, state: &mut State, at: usize) {
        let looked_before =
            self.breaks(Broken::InPlaceWithoutLook) || self.breaks(Broken::InPlaceLookBeforeClaim);
        let unfinished = state.processes.iter().any(|it| self.has_locked_fork(it));
        let process = &mut state.processes[at];
        if unfinished && !looked_before {
            self.note(Tried::SawUnfinished, 0);
            process.restart();
        } else {
            process.step = Step::Looked;
        }
    }

    /// Who makes them finds that they are locked, or gone.
    fn remove_unfinished(&self, state: &mut State, at: usize) {
        for process in &mut state.processes {
            if self.has_unlocked_fork(process) {
                self.note(Tried::LostUnfinished, 0);
                *process = Process::default();
            }
        }
        self.look_at_unfinished(state, at);
    }

    /// Whether what it reads, or is to read, is still the newest.
    fn look_again(&self, state: &mut State, at: usize) {
        let is_newest = state.processes[at].fork == Some(state.newest());
        let process = &mut state.processes[at];
        let neither = self.breaks(Broken::InPlaceWithoutLookAgain);
        match process.step {
            Step::Looked if is_newest || neither => {
                process.step = Step::Chosen;
            }
            Step::Read if !self.in_place(process) => {
                let goes_on = is_newest || self.breaks(Broken::ForkWithoutLookAgain);
                if !goes_on {
                    self.note(Tried::ReadAgain, 0);
                }
                process.step = if goes_on { Step::Checked } else { Step::Certain };
            }
            Step::Read if is_newest || neither || self.breaks(Broken::InPlaceWithoutSecondLookAgain) => {
                process.step = Step::Leads;
            }
            _ => {
                self.note(Tried::BeganAgain, 0);
                process.restart();
            }
        }
    }

    /// Whether it may fork. If there is a fork of its epoch or a newer one, it was replaced.
    fn may_fork(&self, state: &mut State, at: usize) -> bool {
        let newest = state.forks[state.newest()].epoch;
        let process = &mut state.processes[at];
        if newest < process.epoch {
            return true;
        }
        self.note(Tried::GaveUpToNewer, 0);
        *process = Process::default();
        false
    }

    fn prove_fork(&self, state: &mut State, at: usize) {
        let process = &mut state.processes[at];
        let is_replaced = process.epoch != state.token && !self.breaks(Broken::ForkWithoutProof);
        let next = if process.step == Step::Made { Step::Guarded } else { Step::Certain };
        if is_replaced {
            self.note(Tried::GaveUpFork, 0);
            *process = Process::default();
        } else {
            process.step = next;
        }
    }

    fn read(&self, state: &mut State, at: usize) {
        let process = &mut state.processes[at];
        let has_read = self.breaks(Broken::ReadBeforeClaim)
            || self.breaks(Broken::LockAfterRead) && process.lock.is_some();
        if let (Some(fork), false) = (process.fork, has_read) {
            process.memory = state.forks[fork].records;
        }
        process.step = Step::Read;
    }

    fn lead_in_place(&self, state: &mut State, at: usize) {
        self.look_again(state, at);
        let process = &state.processes[at];
        if let (Step::Leads, Some(own)) = (process.step, process.fork) {
            if state.forks[own].is_copy {
                self.note(Tried::InPlaceInCopy, 0);
            }
            if state.forks[own].epoch > process.epoch {
                self.note(Tried::InPlaceInNewer, 0);
            }
        }
    }

    fn publish(&self, state: &mut State, at: usize) {
        let Process { epoch, fork, memory, .. } = state.processes[at];
        if state.forks.iter().any(|fork| fork.epoch == epoch) {
            // The name is taken, and the rename refused.
            state.processes[at] = Process::default();
            return;
        }
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
        state.forks.push(Fork { epoch, records, is_copy: true, is_removed: false });
        let process = &mut state.processes[at];
        (process.step, process.fork, process.lock) = (Step::Leads, own, own);
    }

    fn remove_older(&self, state: &mut State, at: usize) {
        self.note(Tried::Removed, 0);
        let removed: Vec<usize> = older(state, &state.processes[at]).collect();
        for fork in removed {
            (state.forks[fork].records, state.forks[fork].is_removed) = (Records::default(), true);
        }
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
        match what {
            Do::Look => self.look(state, at),
            Do::Claim => self.claim(state, at),
            Do::List => self.list(state, at),
            Do::TakeLock => self.take_lock(state, at),
            Do::LookAtUnfinished => self.look_at_unfinished(state, at),
            Do::RemoveUnfinished => self.remove_unfinished(state, at),
            Do::LookAgain => self.look_again(state, at),
            Do::MakeFork if self.may_fork(state, at) => state.processes[at].step = Step::Made,
            Do::LockFork => {
                let process = &mut state.processes[at];
                process.step = if process.step == Step::Made { Step::Guarded } else { Step::Certain };
            }
            Do::ProveFork => self.prove_fork(state, at),
            Do::Choose if self.may_fork(state, at) => {
                let newest = Some(state.newest());
                let process = &mut state.processes[at];
                (process.step, process.fork) = (Step::Chosen, newest);
            }
            Do::MakeFork | Do::Choose => {}
            Do::Read => self.read(state, at),
            Do::Publish => self.publish(state, at),
            Do::Lead => self.lead_in_place(state, at),
            Do::RemoveOlder => self.remove_older(state, at),
            Do::Write => {
                state.changes_begun += 1;
                let process = &mut state.processes[at];
                (process.step, process.change) = (Step::Writes, state.changes_begun);
            }
            Do::Land => land(state, at),
            Do::Prove => self.prove(state, at),
            Do::Acknowledge => acknowledge(state, at),
            Do::Kill => self.kill(state, at),
            Do::LoseWrite => state.processes[at] = Process::default(),
        }
    }
}

/// The forks below the one that it leads in.
fn older(state: &State, process: &Process) -> impl Iterator<Item = usize> {
    (0..process.fork.unwrap_or(0)).filter(|at| !state.forks[*at].is_removed)
}

fn land(state: &mut State, at: usize) {
    let process = &mut state.processes[at];
    if let (Some(fork), lsn @ 0..CHANGES) = (process.fork, end(&process.memory))
        && !state.forks[fork].is_removed
    {
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
const MEMORY_IS_LOG: &str = "what a leader knows is what its log has, until that is removed";

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
    leaders.all(|it| {
        it.fork.is_some_and(|fork| state.forks[fork].records == it.memory || state.forks[fork].is_removed)
    })
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
            actions.extend(self.other_of(state, process).map(|other| (at, other)));
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
            tried("one goes on in a fork of a newer epoch", |it, _| it.was_tried(Tried::InPlaceInNewer)),
            tried("an unfinished fork is seen", |it, _| it.was_tried(Tried::SawUnfinished)),
            tried("an unfinished fork is removed", |it, _| it.was_tried(Tried::LostUnfinished)),
            tried("a fork is given up", |it, _| it.was_tried(Tried::GaveUpFork)),
            tried("a fork comes before one goes on in place", |it, _| it.was_tried(Tried::BeganAgain)),
            tried("what is forked is read again", |it, _| it.was_tried(Tried::ReadAgain)),
            tried("a fork is removed while it is used", |it, _| it.was_tried(Tried::Removed)),
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
    assert_safe(Bounds { epochs: 3, changes: 2, kills: 1 });
}

/// Minutes in a debug build: for who changes the protocol.
#[test]
#[ignore = "millions of states"]
fn nothing_acknowledged_is_lost_in_longer_orders() {
    assert_safe(Bounds { epochs: 4, changes: 3, kills: 2 });
}

/// A run in which not keeping the rule breaks the property.
fn assert_found(broken: Broken, property: &'static str, bounds: Bounds) {
    let model = Leadership::new(Some(broken), bounds);
    let checker = model.checker().symmetry_fn(State::representative);
    let found = checker.finish_when(HasDiscoveries::AnyOf([property].into())).spawn_dfs().join();
    let path = found.discovery(property).unwrap_or_else(|| panic!("{broken:?}: {property}: not found"));
    println!("{broken:?}, {property}, {} states: {:?}", found.unique_state_count(), path.into_actions());
}

#[test]
fn each_rule_is_needed() {
    let two_leaders = Bounds { epochs: 2, changes: 1, kills: 0 };
    let two_changes = Bounds { changes: 2, ..two_leaders };
    let three_leaders = Bounds { epochs: 3, ..two_leaders };
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
        (Broken::ForkWithoutProof, IN_THE_LOG, two_leaders),
        (Broken::ForkProofBeforeLock, IN_THE_LOG, two_leaders),
        (Broken::ForkWithoutLookAgain, IN_THE_LOG, three_leaders),
        (Broken::InPlaceWithoutLook, IN_THE_LOG, two_leaders),
        (Broken::InPlaceLookBeforeClaim, IN_THE_LOG, two_leaders),
        (Broken::InPlaceWithoutLookAgain, IN_THE_LOG, two_leaders),
        (Broken::InPlaceWithoutSecondLookAgain, IN_MEMORY, Bounds { kills: 1, ..three_leaders }),
        (Broken::CopyReadsAgain, MEMORY_IS_LOG, two_leaders),
    ] {
        assert_found(broken, property, bounds);
    }
}
