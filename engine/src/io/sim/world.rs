//! [`SimWorld`]: the machine that simulated bodies run on. It outlives them, as a disk outlives a process.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::io::file::DirEntry;

use super::chance::Chance;
use super::faults::{Faults, Plan};
use super::net::Net;
use super::tree::Tree;

/// A simulated disk, network and clock, shared by the [`block_on`](crate::io::block_on) runs of one test.
///
/// What happens is decided by the seed, down to the order in which tasks run, as long as one thread at a
/// time uses the world. The disk begins as an empty `/`.
///
/// The methods reach the disk from outside, at once, powered or not, and what they write is durable.
#[derive(Clone)]
pub struct SimWorld(Arc<Mutex<World>>);

pub(super) struct World {
    pub(super) tree: Tree,
    pub(super) net: Net,
    pub(super) plan: Plan,
    pub(super) chance: Chance,
    pub(super) now: Duration,
    pub(super) powered: bool,
    /// Counts the starts after a power cut: what was opened in an earlier one is dead.
    pub(super) boot: u64,
    /// Files whose bytes could not be brought to the disk, so far.
    pub(super) write_back_failures: u64,
    /// Disk operations so far.
    pub(super) operations: u64,
}

impl SimWorld {
    /// A new machine.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(World {
            tree: Tree::new(),
            net: Net::default(),
            plan: Plan::default(),
            chance: Chance::new(seed),
            now: Duration::ZERO,
            powered: true,
            boot: 0,
            write_back_failures: 0,
            operations: 0,
        })))
    }

    /// Cuts the power. Of what was not synced, each 512-byte sector, each file's length and each change of a
    /// directory survives or not, by the seed. All that is open is dead, and every operation fails until
    /// the next `block_on` turns the power on again.
    pub fn power_cut(&self) {
        self.lock().cut();
    }

    /// Whether the power is on.
    #[must_use]
    pub fn powered(&self) -> bool {
        self.lock().powered
    }

    /// How many disk operations were carried out so far.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.lock().operations
    }

    /// What goes wrong.
    #[must_use]
    pub fn faults(&self) -> Faults {
        Faults::new(self.clone())
    }

    /// Every file by its path, as the next power cut leaves it at the very least.
    #[must_use]
    pub fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        self.lock().tree.files(true)
    }

    /// Every file by its path, as reads see it now.
    #[must_use]
    pub fn files_now(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        self.lock().tree.files(false)
    }

    /// A whole file, as reads see it now.
    pub fn read_file(&self, path: &Path) -> io::Result<Vec<u8>> {
        let world = self.lock();
        Ok(world.tree.content(world.tree.find(path)?)?.now().to_vec())
    }

    /// Creates or replaces a file, and the directories above it.
    ///
    /// # Panics
    /// Where a directory or a file is in the way.
    pub fn write_file(&self, path: &Path, bytes: &[u8]) {
        if let Some(parent) = path.parent() {
            self.create_dir_all(parent);
        }
        let mut world = self.lock();
        let tree = &mut world.tree;
        let inode = tree.find(path).or_else(|_| tree.create_file(path));
        let inode = inode.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        tree.sync_names(inode);
        let content = tree.content_mut(inode);
        let content = content.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        content.set_len(0);
        content.write(0, bytes);
        content.sync();
    }

    /// Removes a file.
    pub fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut world = self.lock();
        let inode = world.tree.find(path)?;
        world.tree.unlink(path)?;
        world.tree.sync_names(inode);
        Ok(())
    }

    /// Creates a directory and those above it; existing ones stay.
    ///
    /// # Panics
    /// Where a file is in the way.
    pub fn create_dir_all(&self, path: &Path) {
        let mut world = self.lock();
        let tree = &mut world.tree;
        let mut at = PathBuf::from("/");
        for part in path.components() {
            at.push(part);
            let inode = tree.find(&at).or_else(|_| tree.create_dir(&at));
            let inode = inode.unwrap_or_else(|error| panic!("{}: {error}", at.display()));
            tree.sync_names(inode);
        }
    }

    /// The entries of a directory, sorted by name.
    pub fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        self.lock().list(path)
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for SimWorld {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let world = self.lock();
        let mut debug = f.debug_struct("SimWorld");
        debug.field("powered", &world.powered).field("boot", &world.boot);
        debug.field("operations", &world.operations).finish_non_exhaustive()
    }
}

impl World {
    pub(super) fn power_on(&mut self) {
        if !self.powered {
            self.powered = true;
            self.boot += 1;
        }
    }

    pub(super) fn cut(&mut self) {
        if self.powered {
            self.powered = false;
            self.plan.cut_at = None;
            let mut chance = Chance::new(self.chance.next());
            self.tree.cut(&mut chance);
            self.net.cut();
        }
    }

    /// Whether what was opened in this boot is still alive.
    pub(super) fn alive(&self, boot: u64) -> bool {
        self.powered && self.boot == boot
    }

    pub(super) fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let names = self.tree.names(self.tree.find(path)?)?;
        let entries = names.iter().map(|(name, inode)| DirEntry {
            name: name.clone(),
            is_file: !self.tree.is_dir(*inode),
            is_dir: self.tree.is_dir(*inode),
            len: self.tree.content(*inode).map_or(0, |content| content.len() as u64),
        });
        Ok(entries.collect())
    }
}
