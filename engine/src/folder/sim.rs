//! A folder in memory that loses what was not synced, tears writes by sector, and fails on demand.
//!
//! Everything that happens by chance comes from one seed. A power cut happens *within* the operation it is
//! set for: a part of that operation may have reached the disk, and every later one fails.
//!
//! There are folders in it, one deep. Each folder's sync is its own: what was changed in another one and not synced
//! there is lost or not by another chance. Renaming a folder is one change of the folder it is in.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
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
    /// The sync of the outermost folder fails, and makes nothing durable.
    OuterSyncError,
    /// Mutant: the sync of a long file does nothing.
    LyingSync,
    /// Files cannot be removed.
    NoRemove,
    /// A file cannot have two names.
    NoLinks,
}

#[derive(Default, Clone)]
struct Inode {
    /// What survives a power cut.
    durable: Vec<u8>,
    /// What a reader sees now.
    now: Vec<u8>,
}

/// What has a name in a folder.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Entry {
    File(usize),
    Folder(usize),
}

#[derive(Clone)]
enum Change {
    Link(String, Entry),
    Rename(String, String),
    Remove(String),
}

fn apply(names: &mut BTreeMap<String, Entry>, change: &Change) {
    match change {
        Change::Link(name, entry) => {
            names.insert(name.clone(), *entry);
        }
        Change::Rename(from, to) => {
            if let Some(entry) = names.remove(from) {
                names.insert(to.clone(), entry);
            }
        }
        Change::Remove(name) => {
            names.remove(name);
        }
    }
}

/// The names in one folder.
#[derive(Default, Clone)]
struct Names {
    now: BTreeMap<String, Entry>,
    durable: BTreeMap<String, Entry>,
    /// Changes that are not durable yet, in order.
    pending: Vec<Change>,
}

impl Names {
    fn files(&self) -> impl Iterator<Item = (&String, usize)> {
        self.now.iter().filter_map(|(name, entry)| match entry {
            Entry::File(inode) => Some((name, *inode)),
            Entry::Folder(_) => None,
        })
    }

    fn at_rest(names: BTreeMap<String, Entry>) -> Self {
        Self { durable: names.clone(), now: names, pending: Vec::new() }
    }
}

/// The outermost folder.
const ROOT: usize = 0;

struct State {
    seed: u64,
    inodes: Vec<Inode>,
    /// The first is the outermost.
    folders: Vec<Names>,
    /// Folders that somebody has locked.
    locked: BTreeSet<usize>,
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

/// What somebody else does, once.
type Meanwhile = Arc<Mutex<Option<Box<dyn FnOnce() + Send>>>>;

fn happen(meanwhile: &Meanwhile) {
    let other = meanwhile.lock().expect("no panic while the lock is held").take();
    if let Some(other) = other {
        other();
    }
}

/// The simulated folder. Clones are the same folder.
#[derive(Clone)]
pub(crate) struct SimDisk {
    path: PathBuf,
    /// The folder in the outermost one, by its name at any time.
    within: Option<String>,
    state: Arc<Mutex<State>>,
    /// Where writes of the log's thread wait for a permit, when there is a gate.
    gate: Arc<Mutex<Option<Arc<Semaphore>>>>,
    /// Removals wait for it.
    removals: Arc<Mutex<()>>,
    /// What somebody else does just before a folder is locked, or its files are listed.
    before_lock: Meanwhile,
    before_list: Meanwhile,
}

impl fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimDisk").field("path", &self.path).finish_non_exhaustive()
    }
}

impl State {
    fn new(seed: u64, inodes: Vec<Inode>, folders: Vec<Names>) -> Self {
        Self {
            seed,
            inodes,
            folders,
            locked: BTreeSet::new(),
            faults: HashMap::new(),
            writes: 0,
            refused: 0,
            capacity: None,
            power: Arc::default(),
        }
    }

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
        // A file with two names takes its room once.
        let mut files = BTreeSet::new();
        for entry in self.folders[ROOT].now.values() {
            match entry {
                Entry::File(inode) => files.extend([*inode]),
                Entry::Folder(inner) => files.extend(self.folders[*inner].files().map(|(_, inode)| inode)),
            }
        }
        let used: usize = files.into_iter().map(|inode| self.inodes[inode].now.len()).sum();
        let over = self.capacity.is_some_and(|most| (used + more) as u64 > most);
        over || self.has(Fault::NoSpace)
    }

    /// The folder with this name in the outermost one, or that one.
    fn folder(&self, within: Option<&str>) -> io::Result<usize> {
        match within.map(|name| self.folders[ROOT].now.get(name)) {
            None => Ok(ROOT),
            Some(Some(Entry::Folder(folder))) => Ok(*folder),
            Some(Some(Entry::File(_))) => Err(Errno::NOTDIR.into()),
            Some(None) => Err(Errno::NOENT.into()),
        }
    }

    fn inode(&self, folder: usize, name: &str) -> io::Result<usize> {
        match self.folders[folder].now.get(name) {
            Some(Entry::File(inode)) => Ok(*inode),
            Some(Entry::Folder(_)) => Err(Errno::ISDIR.into()),
            None => Err(Errno::NOENT.into()),
        }
    }

    fn change(&mut self, folder: usize, change: Change) {
        let names = &mut self.folders[folder];
        apply(&mut names.now, &change);
        names.pending.push(change);
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
            within: None,
            state: Arc::new(Mutex::new(State::new(seed, Vec::new(), vec![Names::default()]))),
            gate: Arc::default(),
            removals: Arc::default(),
            before_lock: Arc::default(),
            before_list: Arc::default(),
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

    /// Just before the next folder is locked, this is done.
    pub(crate) fn before_lock(&self, other: impl FnOnce() + Send + 'static) {
        *self.before_lock.lock().expect("no panic while the lock is held") = Some(Box::new(other));
    }

    /// Just before the files of a folder are listed the next time, this is done.
    pub(crate) fn before_list(&self, other: impl FnOnce() + Send + 'static) {
        *self.before_list.lock().expect("no panic while the lock is held") = Some(Box::new(other));
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
        let mut folders = Vec::with_capacity(state.folders.len());
        for folder in 0..state.folders.len() {
            // The file system's journal keeps the order of changes of names.
            let survive = state.chance() as usize % (state.folders[folder].pending.len() + 1);
            let mut names = state.folders[folder].durable.clone();
            for change in &state.folders[folder].pending[..survive] {
                apply(&mut names, change);
            }
            folders.push(Names::at_rest(names));
        }
        let inodes =
            state.inodes.iter().map(|i| Inode { durable: i.durable.clone(), now: i.durable.clone() });
        let inodes = inodes.collect();
        self.with_state(State::new(state.chance(), inodes, folders))
    }

    /// A copy of the disk as it is now, all of it durable.
    pub(crate) fn snapshot(&self) -> Self {
        let state = self.state();
        let inodes = state.inodes.iter().map(|i| Inode { durable: i.now.clone(), now: i.now.clone() });
        let folders = state.folders.iter().map(|names| Names::at_rest(names.now.clone()));
        self.with_state(State::new(state.seed, inodes.collect(), folders.collect()))
    }

    fn with_state(&self, state: State) -> Self {
        let state = Arc::new(Mutex::new(state));
        Self { path: self.path.clone(), within: self.within.clone(), state, ..Self::new(0) }
    }

    /// This folder in a state that was taken before, and whether it is there.
    fn here(&self, state: &State) -> io::Result<usize> {
        state.folder(self.within.as_deref())
    }

    /// Changes a file behind the log's back.
    pub(crate) fn tamper(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut state = self.state();
        let inode = self.here(&state).and_then(|here| state.inode(here, name)).expect("a file");
        change(&mut state.inodes[inode].now);
        state.inodes[inode].durable = state.inodes[inode].now.clone();
    }

    /// What a file holds now.
    pub(crate) fn content(&self, name: &str) -> Vec<u8> {
        let state = self.state();
        let inode = self.here(&state).and_then(|here| state.inode(here, name)).expect("a file");
        state.inodes[inode].now.clone()
    }

    /// One write of the log's thread.
    pub(super) async fn write_once(&self, inode: usize, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let gate = self.gate.lock().expect("no panic while the lock is held").clone();
        if let Some(gate) = gate {
            gate.acquire().await.expect("gates are not closed").forget();
        }
        let mut state = self.state();
        state.writes += 1;
        let cut = state.step()?;
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
        happen(&self.before_list);
        let mut state = self.state();
        state.step()?;
        let files = state.folders[self.here(&state)?].files();
        Ok(files.map(|(name, inode)| (name.clone(), state.inodes[inode].now.len() as u64)).collect())
    }

    pub(super) fn read(&self, name: &str, len: usize) -> io::Result<AlignedBuf> {
        let state = self.state();
        let now = &state.inodes[state.inode(self.here(&state)?, name)?].now;
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
        let here = self.here(&state)?;
        let full = state.full(content.len());
        state.refused += u64::from(full);
        let inode = state.inodes.len();
        let now = if full { Vec::new() } else { content };
        state.inodes.push(Inode { durable: Vec::new(), now });
        state.change(here, Change::Link(name.to_owned(), Entry::File(inode)));
        match (cut, full) {
            (true, _) => Err(Errno::IO.into()),
            (_, true) => Err(Errno::NOSPC.into()),
            _ => Ok(()),
        }
    }

    pub(super) fn write_durably(&self, name: &str, bytes: &AlignedBuf, offset: u64) -> io::Result<()> {
        let mut state = self.state();
        let cut = state.step()?;
        let inode = state.inode(self.here(&state)?, name)?;
        let at = offset as usize;
        state.inodes[inode].now[at..at + bytes.len()].copy_from_slice(bytes);
        if cut {
            state.tear(inode);
            return Err(Errno::IO.into());
        }
        let Inode { durable, now } = &mut state.inodes[inode];
        // As far as it has to be, the length becomes durable, too.
        durable.resize(durable.len().max(at + bytes.len()), 0);
        durable[at..at + bytes.len()].copy_from_slice(&now[at..at + bytes.len()]);
        Ok(())
    }

    pub(super) fn sync(&self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        let cut = state.step()?;
        let inode = state.inode(self.here(&state)?, name)?;
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
        Ok(state.inodes[state.inode(self.here(&state)?, name)?].now.len() as u64)
    }

    /// Not durable before the sync; may lengthen the file.
    pub(super) fn write_long(&self, name: &str, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.state();
        let cut = state.step()?;
        let inode = state.inode(self.here(&state)?, name)?;
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
        let now = &state.inodes[state.inode(self.here(&state)?, name)?].now;
        let from = now.len().min(offset as usize);
        let n = buf.len().min(now.len() - from);
        buf[..n].copy_from_slice(&now[from..from + n]);
        Ok(n)
    }

    pub(super) fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state();
        let cut = state.step()?;
        let here = self.here(&state)?;
        let names = &state.folders[here].now;
        let moved = names.get(from).copied().ok_or(Errno::NOENT)?;
        if matches!(moved, Entry::Folder(_)) && names.contains_key(to) {
            return Err(Errno::EXIST.into());
        }
        state.change(here, Change::Rename(from.to_owned(), to.to_owned()));
        if cut { Err(Errno::IO.into()) } else { Ok(()) }
    }

    pub(super) fn remove(&self, name: &str) -> io::Result<()> {
        drop(self.hold_removals());
        let mut state = self.state();
        let cut = state.step()?;
        if state.has(Fault::NoRemove) {
            return Err(Errno::IO.into());
        }
        let here = self.here(&state)?;
        state.inode(here, name)?;
        state.change(here, Change::Remove(name.to_owned()));
        if cut { Err(Errno::IO.into()) } else { Ok(()) }
    }

    pub(super) fn sync_folder(&self) -> io::Result<()> {
        let mut state = self.state();
        if state.step()? {
            return Err(Errno::IO.into());
        }
        let here = self.here(&state)?;
        if here == ROOT && state.has(Fault::OuterSyncError) {
            return Err(Errno::IO.into());
        }
        if !state.has(Fault::LyingFolderSync) {
            state.folders[here] = Names::at_rest(state.folders[here].now.clone());
        }
        Ok(())
    }

    pub(crate) fn within(&self, name: &str) -> Self {
        assert!(self.within.is_none(), "folders are one deep");
        Self { path: self.path.join(name), within: Some(name.to_owned()), ..self.clone() }
    }

    pub(super) fn folders(&self) -> io::Result<Vec<String>> {
        let mut state = self.state();
        state.step()?;
        let names = &state.folders[self.here(&state)?].now;
        let folders = names.iter().filter(|(_, entry)| matches!(entry, Entry::Folder(_)));
        Ok(folders.map(|(name, _)| name.clone()).collect())
    }

    pub(super) fn create_folder(&self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        let cut = state.step()?;
        let here = self.here(&state)?;
        if state.folders[here].now.contains_key(name) {
            return Err(Errno::EXIST.into());
        }
        if state.full(0) {
            return Err(Errno::NOSPC.into());
        }
        let made = state.folders.len();
        state.folders.push(Names::default());
        state.change(here, Change::Link(name.to_owned(), Entry::Folder(made)));
        if cut { Err(Errno::IO.into()) } else { Ok(()) }
    }

    pub(super) fn remove_folder(&self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        let cut = state.step()?;
        if state.has(Fault::NoRemove) {
            return Err(Errno::IO.into());
        }
        if !state.folders[state.folder(Some(name))?].now.is_empty() {
            return Err(Errno::NOTEMPTY.into());
        }
        let here = self.here(&state)?;
        state.change(here, Change::Remove(name.to_owned()));
        if cut { Err(Errno::IO.into()) } else { Ok(()) }
    }

    pub(super) fn link(&self, name: &str, to: &Self) -> io::Result<()> {
        assert!(Arc::ptr_eq(&self.state, &to.state), "of one disk");
        let mut state = self.state();
        let cut = state.step()?;
        if state.has(Fault::NoLinks) {
            return Err(Errno::PERM.into());
        }
        let inode = state.inode(self.here(&state)?, name)?;
        let there = to.here(&state)?;
        if state.folders[there].now.contains_key(name) {
            return Err(Errno::EXIST.into());
        }
        state.change(there, Change::Link(name.to_owned(), Entry::File(inode)));
        if cut { Err(Errno::IO.into()) } else { Ok(()) }
    }

    /// The folder that is locked now; `None` when it was before.
    pub(super) fn lock(&self) -> io::Result<Option<usize>> {
        happen(&self.before_lock);
        let mut state = self.state();
        let here = self.here(&state)?;
        Ok(state.locked.insert(here).then_some(here))
    }

    pub(super) fn unlock(&self, folder: usize) {
        // Not while a failed test unwinds.
        if let Ok(mut state) = self.state.lock() {
            state.locked.remove(&folder);
        }
    }

    /// A file, whatever name it will have.
    pub(super) fn inode_of(&self, name: &str) -> io::Result<usize> {
        let state = self.state();
        state.inode(self.here(&state)?, name)
    }
}
