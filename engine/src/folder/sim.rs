//! A folder in memory that loses what was not synced, tears writes by sector, and fails on demand.
//!
//! Everything that happens by chance comes from one seed. A power cut happens *within* the operation it is
//! set for: a part of that operation may have reached the disk, and every later one fails.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use rustix::io::Errno;
use tokio::sync::Semaphore;

use super::AlignedBuf;

/// What a power cut leaves whole.
const SECTOR_BYTES: usize = 512;

/// What can go wrong, or be wrong, with the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Fault {
    /// The next write of the log's thread fails, and leaves some of its sectors.
    WriteError,
    /// The next write of the log's thread stops in the middle and says so.
    ShortWrite,
    /// No space for new files until it is lifted.
    NoSpace,
    /// Mutant: writes return before they are durable.
    LyingWrites,
    /// Mutant: the folder's sync does nothing.
    LyingFolderSync,
    /// Mutant: the sync of a long file does nothing.
    LyingSync,
    /// Files cannot be removed.
    NoRemove,
}

#[derive(Default, Clone)]
struct Inode {
    /// What survives a power cut.
    durable: Vec<u8>,
    /// What a reader sees now.
    now: Vec<u8>,
}

#[derive(Clone)]
enum Change {
    Link(String, usize),
    Rename(String, String),
    Remove(String),
}

fn apply(names: &mut BTreeMap<String, usize>, change: &Change) {
    match change {
        Change::Link(name, inode) => {
            names.insert(name.clone(), *inode);
        }
        Change::Rename(from, to) => {
            if let Some(inode) = names.remove(from) {
                names.insert(to.clone(), inode);
            }
        }
        Change::Remove(name) => {
            names.remove(name);
        }
    }
}

#[derive(Default)]
struct State {
    seed: u64,
    inodes: Vec<Inode>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    /// Changes of names that are not durable yet, in order.
    pending: Vec<Change>,
    faults: HashMap<Fault, bool>,
    writes: u64,
    refused: u64,
    /// Bytes that fit.
    capacity: Option<u64>,
    power: Arc<Mutex<Power>>,
}

/// The power of all folders of one machine.
#[derive(Default)]
struct Power {
    operations: u64,
    cut_at: Option<u64>,
    off: bool,
}

/// The simulated folder. Clones are the same folder.
#[derive(Clone)]
pub(crate) struct SimDisk {
    path: PathBuf,
    state: Arc<Mutex<State>>,
    /// Where writes of the log's thread wait for a permit, when there is a gate.
    gate: Arc<Mutex<Option<Arc<Semaphore>>>>,
    /// Removals wait for it.
    removals: Arc<Mutex<()>>,
}

impl State {
    fn chance(&mut self) -> u64 {
        // splitmix64
        self.seed = self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.seed;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn has(&self, fault: Fault) -> bool {
        self.faults.get(&fault).copied().unwrap_or(false)
    }

    /// Whether the power goes off in this operation.
    fn step(&mut self) -> io::Result<bool> {
        let mut power = self.power.lock().expect("no panic while the lock is held");
        if power.off {
            return Err(Errno::IO.into());
        }
        power.operations += 1;
        power.off = power.cut_at == Some(power.operations);
        Ok(power.off)
    }

    /// Whether there is no room for `more` bytes.
    fn full(&self, more: usize) -> bool {
        let used: usize = self.names.values().map(|i| self.inodes[*i].now.len()).sum();
        let over = self.capacity.is_some_and(|most| (used + more) as u64 > most);
        over || self.has(Fault::NoSpace)
    }

    fn inode(&self, name: &str) -> io::Result<usize> {
        self.names.get(name).copied().ok_or_else(|| Errno::NOENT.into())
    }

    fn change(&mut self, change: Change) {
        apply(&mut self.names, &change);
        self.pending.push(change);
    }

    /// Some of the sectors that differ become durable.
    fn tear(&mut self, inode: usize) {
        let Inode { mut durable, now } = self.inodes[inode].clone();
        if now.len() > durable.len() {
            let grown = durable.len() + self.chance() as usize % (now.len() - durable.len() + 1);
            durable.resize(grown, 0);
        }
        let sectors = durable.len().min(now.len()).div_ceil(SECTOR_BYTES);
        // Mostly all, mostly none, or half of them.
        let share = [8, 64, 120][self.chance() as usize % 3];
        for sector in 0..sectors {
            let range = sector * SECTOR_BYTES..durable.len().min(now.len()).min((sector + 1) * SECTOR_BYTES);
            if durable[range.clone()] != now[range.clone()] && self.chance() % 128 < share {
                durable[range.clone()].copy_from_slice(&now[range]);
            }
        }
        self.inodes[inode].durable = durable;
    }
}

impl SimDisk {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            path: PathBuf::from("/simulated/wal"),
            state: Arc::new(Mutex::new(State { seed, ..State::default() })),
            gate: Arc::default(),
            removals: Arc::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic while the lock is held")
    }

    pub(crate) fn set(&self, fault: Fault, on: bool) {
        self.state().faults.insert(fault, on);
    }

    /// The power goes off within the operation that comes after `operations` more.
    pub(crate) fn cut_after(&self, operations: u64) {
        let power = self.state().power.clone();
        let mut power = power.lock().expect("no panic while the lock is held");
        power.cut_at = Some(power.operations + operations + 1);
    }

    /// The disk has room for this many bytes.
    pub(crate) fn set_capacity(&self, bytes: u64) {
        self.state().capacity = Some(bytes);
    }

    /// As long as the guard lives, files are not removed: whoever wants to waits.
    pub(crate) fn hold_removals(&self) -> MutexGuard<'_, ()> {
        self.removals.lock().expect("no panic while the lock is held")
    }

    /// This folder, as one of the same machine as `other`: they lose their power together.
    pub(crate) fn with_power_of(self, other: &Self) -> Self {
        let power = other.state().power.clone();
        self.state().power = power;
        self
    }

    /// How many files could not be made for want of space.
    pub(crate) fn refused(&self) -> u64 {
        self.state().refused
    }

    /// How many writes of the log's thread there were.
    pub(crate) fn writes(&self) -> u64 {
        self.state().writes
    }

    /// From now on writes of the log's thread wait for permits.
    pub(crate) fn close_gate(&self) -> Arc<Semaphore> {
        let gate = Arc::new(Semaphore::new(0));
        *self.gate.lock().expect("no panic while the lock is held") = Some(gate.clone());
        gate
    }

    /// The disk as the next start finds it: what was not synced is there, or not, by chance.
    pub(crate) fn after_power_cut(&self) -> Self {
        let mut state = self.state();
        for inode in 0..state.inodes.len() {
            state.tear(inode);
        }
        // The file system's journal keeps the order of changes of names.
        let survive = state.chance() as usize % (state.pending.len() + 1);
        let mut names = state.durable_names.clone();
        for change in &state.pending[..survive] {
            apply(&mut names, change);
        }
        let inodes =
            state.inodes.iter().map(|i| Inode { durable: i.durable.clone(), now: i.durable.clone() });
        let inodes = inodes.collect();
        let next =
            State { seed: state.chance(), inodes, durable_names: names.clone(), names, ..State::default() };
        Self { path: self.path.clone(), state: Arc::new(Mutex::new(next)), ..Self::new(0) }
    }

    /// A copy of the disk as it is now, all of it durable.
    pub(crate) fn snapshot(&self) -> Self {
        let state = self.state();
        let next = State {
            seed: state.seed,
            inodes: state
                .inodes
                .iter()
                .map(|i| Inode { durable: i.now.clone(), now: i.now.clone() })
                .collect(),
            names: state.names.clone(),
            durable_names: state.names.clone(),
            ..State::default()
        };
        Self { path: self.path.clone(), state: Arc::new(Mutex::new(next)), ..Self::new(0) }
    }

    /// Changes a file behind the log's back.
    pub(crate) fn tamper(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut state = self.state();
        let inode = state.inode(name).expect("a file");
        change(&mut state.inodes[inode].now);
        state.inodes[inode].durable = state.inodes[inode].now.clone();
    }

    /// What a file holds now.
    pub(crate) fn content(&self, name: &str) -> Vec<u8> {
        let state = self.state();
        state.inodes[state.inode(name).expect("a file")].now.clone()
    }

    /// One write of the log's thread.
    pub(super) async fn write_once(&self, name: &str, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let gate = self.gate.lock().expect("no panic while the lock is held").clone();
        if let Some(gate) = gate {
            gate.acquire().await.expect("gates are not closed").forget();
        }
        let mut state = self.state();
        state.writes += 1;
        let cut = state.step()?;
        let inode = state.inode(name)?;
        let at = offset as usize;
        let mut len = bytes.len();
        if state.has(Fault::ShortWrite) {
            state.faults.remove(&Fault::ShortWrite);
            len = state.chance() as usize % (len / SECTOR_BYTES) * SECTOR_BYTES;
        }
        assert!(
            at + bytes.len() <= state.inodes[inode].now.len(),
            "the log never writes past a segment's end"
        );
        state.inodes[inode].now[at..at + len].copy_from_slice(&bytes[..len]);
        let failed = state.faults.remove(&Fault::WriteError).unwrap_or(false);
        if cut || failed {
            state.tear(inode);
            return Err(Errno::IO.into());
        }
        if !state.has(Fault::LyingWrites) {
            let Inode { durable, now } = &mut state.inodes[inode];
            durable[at..at + len].copy_from_slice(&now[at..at + len]);
        }
        Ok(len)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn list(&self) -> io::Result<Vec<(String, u64)>> {
        let mut state = self.state();
        state.step()?;
        Ok(state.names.iter().map(|(name, i)| (name.clone(), state.inodes[*i].now.len() as u64)).collect())
    }

    pub(super) fn read(&self, name: &str, len: usize) -> io::Result<AlignedBuf> {
        let state = self.state();
        let now = &state.inodes[state.inode(name)?].now;
        let n = len.min(now.len());
        let mut buf = AlignedBuf::zeroed(n);
        buf.copy_from_slice(&now[..n]);
        Ok(buf)
    }

    pub(super) fn create_zeroed(&self, name: &str, len: u64) -> io::Result<()> {
        self.create_with(name, vec![0; len as usize])
    }

    pub(super) fn create(&self, name: &str, content: &[u8]) -> io::Result<()> {
        self.create_with(name, content.to_vec())
    }

    fn create_with(&self, name: &str, content: Vec<u8>) -> io::Result<()> {
        let mut state = self.state();
        let cut = state.step()?;
        let full = state.full(content.len());
        state.refused += u64::from(full);
        let inode = state.inodes.len();
        let now = if full { Vec::new() } else { content };
        state.inodes.push(Inode { durable: Vec::new(), now });
        state.change(Change::Link(name.to_owned(), inode));
        match (cut, full) {
            (true, _) => Err(Errno::IO.into()),
            (_, true) => Err(Errno::NOSPC.into()),
            _ => Ok(()),
        }
    }

    pub(super) fn write_durably(&self, name: &str, bytes: &AlignedBuf, offset: u64) -> io::Result<()> {
        let mut state = self.state();
        let cut = state.step()?;
        let inode = state.inode(name)?;
        let at = offset as usize;
        state.inodes[inode].now[at..at + bytes.len()].copy_from_slice(bytes);
        if cut {
            state.tear(inode);
            return Err(Errno::IO.into());
        }
        let Inode { durable, now } = &mut state.inodes[inode];
        durable[at..at + bytes.len()].copy_from_slice(&now[at..at + bytes.len()]);
        Ok(())
    }

    pub(super) fn sync(&self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        let cut = state.step()?;
        let inode = state.inode(name)?;
        if cut {
            state.tear(inode);
            return Err(Errno::IO.into());
        }
        if !state.has(Fault::LyingSync) {
            state.inodes[inode].durable = state.inodes[inode].now.clone();
        }
        Ok(())
    }

    pub(super) fn len(&self, name: &str) -> io::Result<u64> {
        let state = self.state();
        Ok(state.inodes[state.inode(name)?].now.len() as u64)
    }

    /// Not durable before the sync; may lengthen the file.
    pub(super) fn write_long(&self, name: &str, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.state();
        let cut = state.step()?;
        let inode = state.inode(name)?;
        if state.full(bytes.len()) {
            return Err(Errno::NOSPC.into());
        }
        let (now, at) = (&mut state.inodes[inode].now, offset as usize);
        now.resize(now.len().max(at + bytes.len()), 0);
        now[at..at + bytes.len()].copy_from_slice(bytes);
        if cut { Err(Errno::IO.into()) } else { Ok(()) }
    }

    pub(super) fn read_long(&self, name: &str, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let state = self.state();
        if state.power.lock().expect("no panic while the lock is held").off {
            return Err(Errno::IO.into());
        }
        let now = &state.inodes[state.inode(name)?].now;
        let from = now.len().min(offset as usize);
        let n = buf.len().min(now.len() - from);
        buf[..n].copy_from_slice(&now[from..from + n]);
        Ok(n)
    }

    pub(super) fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state();
        let cut = state.step()?;
        state.inode(from)?;
        state.change(Change::Rename(from.to_owned(), to.to_owned()));
        if cut { Err(Errno::IO.into()) } else { Ok(()) }
    }

    pub(super) fn remove(&self, name: &str) -> io::Result<()> {
        drop(self.hold_removals());
        let mut state = self.state();
        let cut = state.step()?;
        if state.has(Fault::NoRemove) {
            return Err(Errno::IO.into());
        }
        state.inode(name)?;
        state.change(Change::Remove(name.to_owned()));
        if cut { Err(Errno::IO.into()) } else { Ok(()) }
    }

    pub(super) fn sync_folder(&self) -> io::Result<()> {
        let mut state = self.state();
        if state.step()? {
            return Err(Errno::IO.into());
        }
        if !state.has(Fault::LyingFolderSync) {
            state.durable_names = state.names.clone();
            state.pending.clear();
        }
        Ok(())
    }
}
