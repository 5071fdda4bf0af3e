//! A folder of the log, or of the checkpoints, on a real file system.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Once;

use rustix::fs::{FallocateFlags, FlockOperation, OFlags};
use rustix::io::Errno;

use super::AlignedBuf;
use crate::log::SEGMENTS_MAX;
use distrifs_proto::limits::BLOCK_BYTES;

/// Said once.
static NO_DIRECT: Once = Once::new();

/// Files in a folder: twice the segments of a log, and some more.
const FILES_MAX: usize = 2 * SEGMENTS_MAX + 16;

/// How much is zeroed or read at once.
const TRANSFER_BYTES: usize = 1 << 20;

/// A folder of the operating system.
#[derive(Debug, Clone)]
pub(crate) struct RealFolder {
    path: PathBuf,
    /// Whether a file is not read while somebody writes to it.
    heeds_locks: bool,
}

/// Gives a lock back by word and not only by closing: a child of this process that is just being started has a
/// copy of every open file, and would keep the lock until it runs its own program.
pub(super) fn unlock(file: &File) {
    // A lock that cannot be given back goes with the file.
    let _ = rustix::fs::flock(file, FlockOperation::Unlock);
}

/// O_DSYNC. Where its number is known to us it is not taken from rustix, which (1.1) names O_SYNC so: that makes the
/// file's times durable too, which nobody reads.
const DSYNC: OFlags = if cfg!(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64")) {
    OFlags::from_bits_retain(0o10000)
} else {
    OFlags::DSYNC
};

/// The flags of every file that holds log bytes, where the file system knows O_DIRECT.
fn flags(direct: bool, durable: bool) -> i32 {
    let mut flags = OFlags::CLOEXEC | OFlags::NOFOLLOW;
    if direct {
        flags |= OFlags::DIRECT;
    }
    if durable {
        flags |= DSYNC;
    }
    // The kernel's own type of these flags.
    flags.bits() as i32
}

/// One `pwrite`, repeated only when a signal came before the first byte.
pub(super) fn write_once(file: &File, bytes: &[u8], offset: u64) -> io::Result<usize> {
    loop {
        match file.write_at(bytes, offset) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// Reads until `buf` is full or the file ends, and says how much it was.
pub(super) fn read_at(file: &File, buf: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < buf.len() {
        match file.read_at(&mut buf[done..], offset + done as u64) {
            Ok(n) => {
                done += n;
                // O_DIRECT goes on at a block's start only: anything else is the end of the file.
                if n == 0 || !n.is_multiple_of(BLOCK_BYTES) {
                    break;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

impl RealFolder {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, heeds_locks: true }
    }

    pub(super) fn regardless_of_locks(&self) -> Self {
        Self { path: self.path.clone(), heeds_locks: false }
    }

    pub(super) fn within(&self, name: &str) -> Self {
        Self { path: self.path.join(name), heeds_locks: self.heeds_locks }
    }

    /// Makes the folder when it is not there, durably.
    pub(crate) fn create_if_missing(&self) -> io::Result<()> {
        match std::fs::create_dir(&self.path) {
            Ok(()) => match self.path.parent() {
                Some(parent) if !parent.as_os_str().is_empty() => File::open(parent)?.sync_all(),
                _ => File::open(".")?.sync_all(),
            },
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// `None` when somebody else has it.
    pub(super) fn lock(&self) -> io::Result<Option<File>> {
        let folder = File::open(&self.path)?;
        match rustix::fs::flock(&folder, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(folder)),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn open(&self, name: &str, options: &mut OpenOptions, durable: bool) -> io::Result<File> {
        let path = self.path.join(name);
        match options.custom_flags(flags(true, durable)).open(&path) {
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                NO_DIRECT.call_once(|| {
                    tracing::warn!(
                        path = %path.display(),
                        "no O_DIRECT on this file system: after a failed write, recovery may read from a cache"
                    );
                });
                options.custom_flags(flags(false, durable)).open(&path)
            }
            result => result,
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn list(&self) -> io::Result<Vec<(String, u64)>> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(&self.path)? {
            let entry = entry?;
            let metadata = match entry.metadata() {
                // Somebody has removed it just now: where two work in the folder, that is no fault.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                metadata => metadata?,
            };
            // Names that are not text are not ours.
            if let (true, Ok(name)) = (metadata.is_file(), entry.file_name().into_string()) {
                found.push((name, metadata.len()));
            }
            if found.len() > FILES_MAX {
                return Err(io::Error::other("too many files"));
            }
        }
        Ok(found)
    }

    pub(super) fn folders(&self) -> io::Result<Vec<String>> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(&self.path)? {
            let entry = entry?;
            if let (true, Ok(name)) = (entry.file_type()?.is_dir(), entry.file_name().into_string()) {
                found.push(name);
            }
            if found.len() > FILES_MAX {
                return Err(io::Error::other("too many folders"));
            }
        }
        Ok(found)
    }

    pub(super) fn create_folder(&self, name: &str) -> io::Result<()> {
        std::fs::create_dir(self.path.join(name))
    }

    pub(super) fn remove_folder(&self, name: &str) -> io::Result<()> {
        std::fs::remove_dir(self.path.join(name))
    }

    pub(super) fn link(&self, name: &str, to: &Self) -> io::Result<()> {
        std::fs::hard_link(self.path.join(name), to.path.join(name))
    }

    pub(super) fn read(&self, name: &str, len: usize) -> io::Result<AlignedBuf> {
        let file = self.open(name, OpenOptions::new().read(true), false)?;
        if !self.heeds_locks {
            return Self::read_open(&file, len);
        }
        // Fails while a write of a killed process is still on its way: see `open_for_writes`.
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared)?;
        let result = Self::read_open(&file, len);
        unlock(&file);
        result
    }

    fn read_open(file: &File, len: usize) -> io::Result<AlignedBuf> {
        let file_len = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
        let len = len.min(file_len);
        let mut buf = AlignedBuf::zeroed(len.next_multiple_of(BLOCK_BYTES));
        let whole = buf.len();
        let mut done = 0;
        while done < len {
            let end = whole.min(done + TRANSFER_BYTES);
            match file.read_at(&mut buf[done..end], done as u64) {
                Ok(n) if done + n >= len => done = len,
                // O_DIRECT goes on at a block's start only.
                Ok(n) if n >= BLOCK_BYTES => done += n / BLOCK_BYTES * BLOCK_BYTES,
                Ok(_) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        buf.truncate(len);
        Ok(buf)
    }

    pub(super) fn create_zeroed(&self, name: &str, len: u64) -> io::Result<()> {
        let file = self.open(name, OpenOptions::new().write(true).create(true).truncate(true), false)?;
        match rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, len) {
            Ok(()) | Err(Errno::OPNOTSUPP) => {}
            Err(error) => return Err(error.into()),
        }
        let zeros = AlignedBuf::zeroed(TRANSFER_BYTES);
        let mut done = 0;
        while done < len {
            let n = (len - done).min(TRANSFER_BYTES as u64) as usize;
            file.write_all_at(&zeros[..n], done)?;
            done += n as u64;
        }
        Ok(())
    }

    /// Locked, since a write on a ring outlives a killed process: it keeps this file open, and so the lock, until
    /// it has come to rest. Whoever recovers must not read before that.
    pub(super) fn open_for_writes(&self, name: &str) -> io::Result<File> {
        let file = self.open(name, OpenOptions::new().write(true), true)?;
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        Ok(file)
    }

    pub(super) fn write_durably(&self, name: &str, bytes: &AlignedBuf, offset: u64) -> io::Result<()> {
        let file = self.open_for_writes(name)?;
        let result = file.write_all_at(bytes, offset);
        unlock(&file);
        result
    }

    /// Makes or empties a file for a long write from its start to its end, which is to leave the page cache alone.
    pub(super) fn create_long(&self, name: &str) -> io::Result<File> {
        self.open(name, OpenOptions::new().write(true).create(true).truncate(true), false)
    }

    /// Opens a file for a long read from its start to its end.
    pub(super) fn open_long(&self, name: &str) -> io::Result<File> {
        self.open(name, OpenOptions::new().read(true), false)
    }

    pub(super) fn create(&self, name: &str, content: &[u8]) -> io::Result<()> {
        std::fs::write(self.path.join(name), content)
    }

    pub(super) fn sync(&self, name: &str) -> io::Result<()> {
        File::open(self.path.join(name))?.sync_all()
    }

    pub(super) fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.path.join(from), self.path.join(to))
    }

    pub(super) fn remove(&self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.path.join(name))
    }

    pub(super) fn sync_folder(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }
}
