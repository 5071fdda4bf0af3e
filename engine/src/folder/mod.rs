//! The seam over the disk of the log and of the checkpoints: a folder of files, the one segment that is being
//! written, and a long file that is written or read from its start to its end.
//!
//! [`Folder`] holds what may block: recovery, the preparation of segments and the checkpoints use it, never the log's
//! thread between two writes. [`SegmentFile`] is that thread's: one write at a time, durable when it returns.
//! [`LongFile`] leaves the page cache alone, and what it reads comes from the disk.

mod aligned;
mod real;
#[cfg(test)]
mod sim;

use std::io;
use std::path::{Path, PathBuf};

pub(crate) use aligned::AlignedBuf;
pub(crate) use real::RealFolder;
#[cfg(test)]
pub(crate) use sim::{Fault, SimDisk};

/// How a segment's file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Body {
    /// By tokio-uring, on its own runtime.
    Uring,
    /// By `pwrite`.
    Posix,
    /// In memory.
    #[cfg(test)]
    Sim,
}

impl Body {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Uring => "io_uring",
            Self::Posix => "posix",
            #[cfg(test)]
            Self::Sim => "simulated",
        }
    }
}

/// A folder. Clones are the same folder.
#[derive(Clone)]
pub(crate) enum Folder {
    /// Of the operating system.
    Real(RealFolder),
    /// In memory, with faults and power cuts.
    #[cfg(test)]
    Sim(SimDisk),
}

/// Calls the same method of whichever body it is.
macro_rules! each {
    ($self:ident, $folder:ident => $call:expr) => {
        match $self {
            Self::Real($folder) => $call,
            #[cfg(test)]
            Self::Sim($folder) => $call,
        }
    };
}

impl Folder {
    /// The folder's path, for messages.
    pub(crate) fn path(&self) -> &Path {
        each!(self, folder => folder.path())
    }

    /// The path of a file in it, for messages.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    /// Names and lengths of the files, in no order.
    pub(crate) fn list(&self) -> io::Result<Vec<(String, u64)>> {
        each!(self, folder => folder.list())
    }

    /// The first `len` bytes, from the disk and not from a cache; fewer when the file is shorter.
    pub(crate) fn read(&self, name: &str, len: usize) -> io::Result<AlignedBuf> {
        each!(self, folder => folder.read(name, len))
    }

    /// Makes (or empties) a file of `len` zeros, whose space is allocated. Nothing is durable yet.
    pub(crate) fn create_zeroed(&self, name: &str, len: u64) -> io::Result<()> {
        each!(self, folder => folder.create_zeroed(name, len))
    }

    /// Overwrites part of a file; durable when it returns.
    pub(crate) fn write_durably(&self, name: &str, bytes: &AlignedBuf, offset: u64) -> io::Result<()> {
        each!(self, folder => folder.write_durably(name, bytes, offset))
    }

    /// Makes a small file with this content. Nothing is durable yet.
    pub(crate) fn create(&self, name: &str, content: &[u8]) -> io::Result<()> {
        each!(self, folder => folder.create(name, content))
    }

    /// Makes a file's content durable, down through the drive's cache.
    pub(crate) fn sync(&self, name: &str) -> io::Result<()> {
        each!(self, folder => folder.sync(name))
    }

    /// Renames a file, replacing what has the new name, or a folder.
    pub(crate) fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        each!(self, folder => folder.rename(from, to))
    }

    /// Removes a file.
    pub(crate) fn remove(&self, name: &str) -> io::Result<()> {
        each!(self, folder => folder.remove(name))
    }

    /// Names of the folders in this one, in no order.
    pub(crate) fn folders(&self) -> io::Result<Vec<String>> {
        each!(self, folder => folder.folders())
    }

    /// A folder in this one, whether it is there or not.
    pub(crate) fn within(&self, name: &str) -> Self {
        match self {
            Self::Real(folder) => Self::Real(folder.within(name)),
            #[cfg(test)]
            Self::Sim(disk) => Self::Sim(disk.within(name)),
        }
    }

    /// Makes a folder in this one, which must not be there. Nothing is durable yet.
    pub(crate) fn create_folder(&self, name: &str) -> io::Result<()> {
        each!(self, folder => folder.create_folder(name))
    }

    /// Removes an empty folder in this one.
    pub(crate) fn remove_folder(&self, name: &str) -> io::Result<()> {
        each!(self, folder => folder.remove_folder(name))
    }

    /// Gives a file its name in another folder as well, which is on the same file system: the same file from then on.
    pub(crate) fn link(&self, name: &str, to: &Self) -> io::Result<()> {
        match (self, to) {
            (Self::Real(from), Self::Real(to)) => from.link(name, to),
            #[cfg(test)]
            (Self::Sim(from), Self::Sim(to)) => from.link(name, to),
            #[cfg(test)]
            (Self::Real(_), Self::Sim(_)) | (Self::Sim(_), Self::Real(_)) => {
                panic!("a simulated disk and a real one")
            }
        }
    }

    /// Locks the folder itself, by whichever name it goes; `None` when somebody else has it.
    pub(crate) fn lock(&self) -> io::Result<Option<FolderLock>> {
        match self {
            Self::Real(folder) => Ok(folder.lock()?.map(FolderLock::Real)),
            #[cfg(test)]
            Self::Sim(disk) => Ok(disk.lock()?.map(|locked| FolderLock::Sim(disk.clone(), locked))),
        }
    }

    /// The same folder, whose files are [read](Self::read) also while somebody writes to them.
    pub(crate) fn regardless_of_locks(&self) -> Self {
        match self {
            Self::Real(folder) => Self::Real(folder.regardless_of_locks()),
            #[cfg(test)]
            Self::Sim(disk) => Self::Sim(disk.clone()),
        }
    }

    /// Makes creations, renames and removals of its own entries durable.
    pub(crate) fn sync_folder(&self) -> io::Result<()> {
        each!(self, folder => folder.sync_folder())
    }

    /// Makes or empties a file to be written from its start to its end.
    pub(crate) fn create_long(&self, name: &str) -> io::Result<LongFile> {
        match self {
            Self::Real(folder) => folder.create_long(name).map(LongFile::Real),
            #[cfg(test)]
            Self::Sim(disk) => {
                disk.create(name, &[])?;
                Ok(LongFile::Sim(disk.clone(), name.to_owned()))
            }
        }
    }

    /// Opens a file to be read from its start to its end.
    pub(crate) fn open_long(&self, name: &str) -> io::Result<LongFile> {
        match self {
            Self::Real(folder) => folder.open_long(name).map(LongFile::Real),
            #[cfg(test)]
            Self::Sim(disk) => disk.len(name).map(|_| LongFile::Sim(disk.clone(), name.to_owned())),
        }
    }

    /// Opens a segment for the log's thread.
    pub(crate) fn open_segment(&self, name: &str, body: Body) -> io::Result<SegmentFile> {
        match self {
            Self::Real(folder) => {
                let file = folder.open_for_writes(name)?;
                Ok(match body {
                    Body::Uring => {
                        let lock = file.try_clone()?;
                        SegmentFile::Uring(tokio_uring::fs::File::from_std(file), lock)
                    }
                    _ => SegmentFile::Posix(file),
                })
            }
            #[cfg(test)]
            Self::Sim(disk) => Ok(SegmentFile::Sim(disk.clone(), disk.inode_of(name)?)),
        }
    }
}

/// As long as it lives nobody else recovers or writes the log in this folder.
#[derive(Debug)]
pub(crate) enum FolderLock {
    /// Of the operating system.
    Real(std::fs::File),
    /// In memory.
    #[cfg(test)]
    Sim(SimDisk, usize),
}

impl Drop for FolderLock {
    fn drop(&mut self) {
        match self {
            Self::Real(folder) => real::unlock(folder),
            #[cfg(test)]
            Self::Sim(disk, locked) => disk.unlock(*locked),
        }
    }
}

/// Up to this, a write does not take the way over the ring.
const INLINE_BYTES_MAX: usize = 64 << 10;

/// The segment in use.
pub(crate) enum SegmentFile {
    /// On the ring of this thread; and the same file once more, for small writes and to unlock it.
    Uring(tokio_uring::fs::File, std::fs::File),
    /// By `pwrite`; it blocks the log's thread, which has nothing else to do.
    Posix(std::fs::File),
    /// In memory: the file itself, whatever becomes of its name.
    #[cfg(test)]
    Sim(SimDisk, usize),
}

impl SegmentFile {
    /// Writes the first `len` bytes of `buf`, once. What it returns was durable; fewer than `len` is a fault that
    /// the caller must not repair by writing again.
    pub(crate) async fn write_once(
        &self,
        buf: AlignedBuf,
        len: usize,
        offset: u64,
    ) -> (io::Result<usize>, AlignedBuf) {
        match self {
            // A small durable write is done before the ring's completion would have come back through a kernel worker
            // and a wake (measured: 77 against 141 us). The thread has nothing else to do that could not wait so long.
            Self::Uring(_, file) if len <= INLINE_BYTES_MAX => {
                let result = real::write_once(file, &buf[..len], offset);
                (result, buf)
            }
            Self::Uring(file, _) => {
                let (slice, aligned) = buf.into_slice(len);
                let (result, slice) = file.write_at(slice, offset).submit().await;
                (result, AlignedBuf::from_slice(slice, aligned))
            }
            Self::Posix(file) => {
                let result = real::write_once(file, &buf[..len], offset);
                (result, buf)
            }
            #[cfg(test)]
            Self::Sim(disk, inode) => {
                let result = disk.write_once(*inode, &buf[..len], offset).await;
                (result, buf)
            }
        }
    }

    /// Closes the file; all writes have returned.
    pub(crate) async fn close(self) {
        match self {
            Self::Uring(file, lock) => {
                // The bytes are durable already; a close that fails changes nothing.
                let _ = file.close().await;
                real::unlock(&lock);
            }
            Self::Posix(file) => real::unlock(&file),
            #[cfg(test)]
            Self::Sim(..) => {}
        }
    }
}

/// A file that is written or read in pieces at multiples of [`BLOCK_BYTES`](distrifs_proto::limits::BLOCK_BYTES).
pub(crate) enum LongFile {
    /// With O_DIRECT, where the file system knows it.
    Real(std::fs::File),
    /// In memory.
    #[cfg(test)]
    Sim(SimDisk, String),
}

impl LongFile {
    /// The length in bytes.
    pub(crate) fn len(&self) -> io::Result<u64> {
        match self {
            Self::Real(file) => Ok(file.metadata()?.len()),
            #[cfg(test)]
            Self::Sim(disk, name) => disk.len(name),
        }
    }

    /// Writes the first `len` bytes of `buf`, whole blocks. Not durable before [`Self::sync`].
    pub(crate) fn write_at(&self, buf: &AlignedBuf, len: usize, offset: u64) -> io::Result<()> {
        match self {
            Self::Real(file) => std::os::unix::fs::FileExt::write_all_at(file, &buf[..len], offset),
            #[cfg(test)]
            Self::Sim(disk, name) => disk.write_long(name, &buf[..len], offset),
        }
    }

    /// Fills the first `len` bytes of `buf`, whole blocks, and says how many there were before the file's end.
    pub(crate) fn read_at(&self, buf: &mut AlignedBuf, len: usize, offset: u64) -> io::Result<usize> {
        match self {
            Self::Real(file) => real::read_at(file, &mut buf[..len], offset),
            #[cfg(test)]
            Self::Sim(disk, name) => disk.read_long(name, &mut buf[..len], offset),
        }
    }

    /// Makes what was written durable, down through the drive's cache. Not to be repeated after a failure.
    pub(crate) fn sync(&self) -> io::Result<()> {
        match self {
            Self::Real(file) => file.sync_all(),
            #[cfg(test)]
            Self::Sim(disk, name) => disk.sync(name),
        }
    }
}

/// Builds a ring on a thread of its own, since a denied one can panic. The reason is one line.
pub(crate) fn probe_uring() -> Result<(), String> {
    let probe = || -> io::Result<()> {
        let runtime = tokio_uring::Runtime::new(&tokio_uring::builder())?;
        runtime.block_on(tokio_uring::no_op())
    };
    let thread = std::thread::Builder::new().name("log-probe".into()).spawn(probe);
    match thread.map(std::thread::JoinHandle::join) {
        Ok(Ok(Ok(()))) => Ok(()),
        Ok(Ok(Err(error))) | Err(error) => Err(error.to_string()),
        Ok(Err(_)) => Err("building a ring panicked".to_owned()),
    }
}
