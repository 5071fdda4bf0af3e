//! [`File`]: positioned reads and writes on owned buffers, whole or with an error, over any body.

use std::ffi::OsString;
use std::io;
use std::ops::Range;

use rustix::io::Errno;

use super::buf::{BUF_ALIGN, Buf, Shared};
use super::window::Window;
use super::{posix, sim, uring};

/// How to open a file. Always close-on-exec, never through a symbolic link, and without waiting for the other end of
/// a pipe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Open {
    /// For reading.
    pub read: bool,
    /// For writing.
    pub write: bool,
    /// Create it (mode 0644); an existing one is an error.
    pub create_new: bool,
    /// Past the page cache; buffered where the file system cannot. Buffers, offsets and lengths are then
    /// multiples of [`BUF_ALIGN`].
    pub direct: bool,
}

impl Open {
    /// For reading, through the page cache.
    pub const READ: Self = Self { read: true, write: false, create_new: false, direct: false };
    /// For reading, from the device.
    pub const READ_DIRECT: Self = Self { read: true, write: false, create_new: false, direct: true };
    /// A new file for writing, through the page cache.
    pub const CREATE: Self = Self { read: false, write: true, create_new: true, direct: false };
    /// A new file for writing, to the device.
    pub const CREATE_DIRECT: Self = Self { read: false, write: true, create_new: true, direct: true };
}

/// One entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirEntry {
    /// Its name, without the path.
    pub name: OsString,
    /// Whether it is a regular file.
    pub is_file: bool,
    /// Whether it is a directory.
    pub is_dir: bool,
    /// The length of a file; of anything else what the file system says.
    pub len: u64,
}

/// The room of a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// All of it, in bytes.
    pub total: u64,
    /// What an unprivileged user can still take, in bytes.
    pub available: u64,
}

/// An open file. Several operations may be in flight at once; share it in an `Rc`.
pub struct File {
    kind: Kind,
}

enum Kind {
    Uring(uring::UringFile),
    Posix(posix::PosixFile),
    Sim(sim::SimFile),
}

impl File {
    pub(super) fn uring(file: uring::UringFile) -> Self {
        Self { kind: Kind::Uring(file) }
    }

    pub(super) fn posix(file: posix::PosixFile) -> Self {
        Self { kind: Kind::Posix(file) }
    }

    pub(super) fn sim(file: sim::SimFile) -> Self {
        Self { kind: Kind::Sim(file) }
    }

    /// Fills `range` of the buffer from `offset` on; fewer bytes only where the file ends.
    pub async fn read_at(&self, mut buf: Buf, range: Range<usize>, offset: u64) -> (io::Result<usize>, Buf) {
        assert!(range.start <= range.end && range.end <= buf.len(), "a range of the buffer");
        let mut at = range.start;
        while at < range.end {
            let from = offset + (at - range.start) as u64;
            let result;
            (result, buf) = match &self.kind {
                Kind::Uring(file) => file.read_once(buf, at..range.end, from).await,
                Kind::Posix(file) => file.read_once(buf, at..range.end, from).await,
                Kind::Sim(file) => file.read_once(buf, at..range.end, from).await,
            };
            match result {
                Ok(0) => break,
                Ok(read) => at += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return (Err(error), buf),
            }
            // At the end of the file a direct read stops at an unaligned place, and to go on from there
            // would be refused.
            if at < range.end && self.is_direct() && !at.is_multiple_of(BUF_ALIGN) {
                match self.len().await {
                    Ok(len) if offset + (at - range.start) as u64 >= len => break,
                    Ok(_) => {}
                    Err(error) => return (Err(error), buf),
                }
            }
        }
        (Ok(at - range.start), buf)
    }

    /// Fills all of the buffer from `offset` on, at once, from the page cache; `None` where that would have to wait, or
    /// cannot be done: nothing is known then, and the buffer holds anything.
    pub fn try_read_at(&self, buf: &mut [u8], offset: u64) -> Option<io::Result<()>> {
        if self.is_direct() {
            return None;
        }
        let read = match &self.kind {
            Kind::Uring(file) => file.try_read_once(buf, offset),
            Kind::Posix(file) => file.try_read_once(buf, offset),
            Kind::Sim(file) => file.try_read_once(buf, offset),
        };
        match read {
            Ok(read) if read == buf.len() => Some(Ok(())),
            // The file ends here, or the next page is not there: only the ordinary way tells.
            Ok(_) => None,
            Err(error) => {
                let waits = [Errno::AGAIN, Errno::OPNOTSUPP, Errno::NOSYS, Errno::INTR];
                let waits = waits.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()));
                (!waits).then_some(Err(error))
            }
        }
    }

    /// Bytes of the file behind room for a head, to be sent from where the page cache has them. `None` where that would
    /// have to wait, or cannot be done: not all of the range is cached, or it reaches past the end of the file, or head
    /// and range are not of whole pages, save the end of the range.
    #[must_use]
    pub fn window(&self, head: usize, range: &Range<u64>) -> Option<Window> {
        if self.is_direct() {
            return None;
        }
        let window = match &self.kind {
            Kind::Uring(file) => file.window(head, range),
            Kind::Posix(file) => file.window(head, range),
            Kind::Sim(file) => file.window(head, range),
        };
        window.ok()
    }

    /// Writes `range` of the buffer at `offset`: all of it, or an error and an unknown part.
    pub async fn write_at(&self, buf: Shared, range: Range<usize>, offset: u64) -> io::Result<()> {
        assert!(range.start <= range.end && range.end <= buf.len(), "a range of the buffer");
        let mut at = range.start;
        while at < range.end {
            let to = offset + (at - range.start) as u64;
            let result = match &self.kind {
                Kind::Uring(file) => file.write_once(buf.clone(), at..range.end, to).await,
                Kind::Posix(file) => file.write_once(buf.clone(), at..range.end, to).await,
                Kind::Sim(file) => file.write_once(buf.clone(), at..range.end, to).await,
            };
            match result {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => at += written,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Makes content and length durable. After an error nothing is known about either: do not try again.
    pub async fn fdatasync(&self) -> io::Result<()> {
        match &self.kind {
            Kind::Uring(file) => file.fdatasync().await,
            Kind::Posix(file) => file.fdatasync().await,
            Kind::Sim(file) => file.fdatasync().await,
        }
    }

    /// Takes room for `len` bytes and makes the file that long; does nothing where the file system cannot.
    pub async fn fallocate(&self, len: u64) -> io::Result<()> {
        match &self.kind {
            Kind::Uring(file) => file.fallocate(len),
            Kind::Posix(file) => file.fallocate(len).await,
            Kind::Sim(file) => file.fallocate(len).await,
        }
    }

    /// Cuts the file, or makes it longer with zeros.
    pub async fn set_len(&self, len: u64) -> io::Result<()> {
        match &self.kind {
            Kind::Uring(file) => file.set_len(len).await,
            Kind::Posix(file) => file.set_len(len).await,
            Kind::Sim(file) => file.set_len(len).await,
        }
    }

    /// How long the file is.
    pub async fn len(&self) -> io::Result<u64> {
        match &self.kind {
            Kind::Uring(file) => file.len(),
            Kind::Posix(file) => file.len(),
            Kind::Sim(file) => file.len(),
        }
    }

    /// Whether the file is empty.
    pub async fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len().await? == 0)
    }

    /// Whether the page cache has bytes of each page of this range; `true` where that cannot be told. Starts nothing.
    #[must_use]
    pub fn is_cached(&self, range: &Range<u64>) -> bool {
        let cached = match &self.kind {
            Kind::Uring(file) => file.cached_pages(range),
            Kind::Posix(file) => file.cached_pages(range),
            Kind::Sim(_) => return true,
        };
        let page = rustix::param::page_size() as u64;
        let pages = range.end.div_ceil(page).saturating_sub(range.start / page);
        !cached.is_ok_and(|cached| cached < pages)
    }

    /// Whether the file goes past the page cache (it was asked for, and the file system can).
    #[must_use]
    pub fn is_direct(&self) -> bool {
        match &self.kind {
            Kind::Uring(file) => file.is_direct(),
            Kind::Posix(file) => file.is_direct(),
            Kind::Sim(file) => file.is_direct(),
        }
    }

    /// Closes the file once its operations are done. Dropping it does the same, unseen.
    pub async fn close(self) -> io::Result<()> {
        match self.kind {
            Kind::Uring(file) => file.close().await,
            Kind::Posix(file) => file.close().await,
            Kind::Sim(_) => Ok(()),
        }
    }
}
