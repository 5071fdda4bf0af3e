//! [`Faults`]: what the test wants to go wrong.

use std::io;
use std::path::Path;

use rustix::io::Errno;

use super::tree::errno;
use super::world::{SimWorld, World};

/// The kinds of disk operations that can be made to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SimOperation {
    /// Opening or creating a file.
    Open,
    /// Reading bytes.
    Read,
    /// Writing bytes.
    Write,
    /// `fdatasync`, and the sync of a directory or, by the path it was opened with, of the file system. After a failed one the bytes are in the cache, clean, and
    /// will never reach the disk, though the next sync succeeds.
    Sync,
    /// `fallocate` and `set_len`.
    Resize,
    /// Renaming.
    Rename,
    /// Removing.
    Unlink,
    /// Creating a directory.
    CreateDir,
    /// Listing a directory, and asking for free space.
    List,
}

/// What a new disk has room for.
const CAPACITY_DEFAULT: u64 = 1 << 40;

/// The faults that are planned.
pub(super) struct Plan {
    pub(super) cut_at: Option<u64>,
    pub(super) capacity: u64,
    pub(super) short_transfers: bool,
    pub(super) lying_syncs: bool,
    failures: Vec<Failure>,
}

struct Failure {
    operation: SimOperation,
    pattern: String,
    times: u64,
    errno: Errno,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            cut_at: None,
            capacity: CAPACITY_DEFAULT,
            short_transfers: false,
            lying_syncs: false,
            failures: Vec::new(),
        }
    }
}

impl Plan {
    /// Whether an operation fails.
    pub(super) fn strike(&mut self, operation: SimOperation, path: &Path) -> io::Result<()> {
        let path = path.to_string_lossy();
        let hit = self.failures.iter_mut().find(|failure| {
            failure.operation == operation && failure.times > 0 && path.contains(&failure.pattern)
        });
        match hit {
            Some(failure) => {
                failure.times -= 1;
                Err(errno(failure.errno))
            }
            None => Ok(()),
        }
    }
}

/// Plans faults of a [`SimWorld`]. A file is known by the path it was opened with.
#[derive(Debug, Clone)]
pub struct Faults(SimWorld);

impl Faults {
    pub(super) fn new(world: SimWorld) -> Self {
        Self(world)
    }

    /// The next `times` operations of a kind on a path that contains `pattern` fail with EIO
    /// (`u64::MAX`: all of them).
    pub fn fail(&self, operation: SimOperation, pattern: &str, times: u64) {
        self.plan(operation, pattern, times, Errno::IO);
    }

    /// As [`fail`](Self::fail), with EACCES: what a file or directory of the wrong mode or owner answers.
    pub fn deny(&self, operation: SimOperation, pattern: &str, times: u64) {
        self.plan(operation, pattern, times, Errno::ACCESS);
    }

    fn plan(&self, operation: SimOperation, pattern: &str, times: u64, errno: Errno) {
        let failure = Failure { operation, pattern: pattern.to_owned(), times, errno };
        self.with(|world| world.plan.failures.push(failure));
    }

    /// Nothing more goes wrong, save a full disk.
    pub fn clear(&self) {
        self.with(|world| {
            world.plan = Plan { capacity: world.plan.capacity, ..Plan::default() };
        });
    }

    /// How many bytes all files together can have; beyond it writes fail with ENOSPC.
    pub fn capacity(&self, bytes: u64) {
        self.with(|world| world.plan.capacity = bytes);
    }

    /// Reads and writes, of files and connections, move less than was asked for, as they may.
    pub fn short_transfers(&self, on: bool) {
        self.with(|world| world.plan.short_transfers = on);
    }

    /// Syncs say that they worked and do nothing: with this on, a crash test has to fail.
    pub fn lying_syncs(&self, on: bool) {
        self.with(|world| world.plan.lying_syncs = on);
    }

    /// Turns one bit of a file, on the disk and in the cache. An error where there is no such byte.
    pub fn flip(&self, path: &Path, byte: u64, bit: u8) -> io::Result<()> {
        self.with(|world| {
            let inode = world.tree.find(path)?;
            let byte = usize::try_from(byte).map_err(|_| errno(Errno::INVAL))?;
            let flipped = world.tree.content_mut(inode)?.flip(byte, bit);
            if flipped { Ok(()) } else { Err(errno(Errno::INVAL)) }
        })
    }

    /// The next `operations` disk operations are carried out; then the power is cut, as by
    /// [`SimWorld::power_cut`], and the operation that finds it so fails, as do all after it.
    pub fn cut_after(&self, operations: u64) {
        self.with(|world| world.plan.cut_at = Some(world.operations.saturating_add(operations)));
    }

    fn with<T>(&self, act: impl FnOnce(&mut World) -> T) -> T {
        act(&mut self.0.lock())
    }
}
