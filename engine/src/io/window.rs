//! [`Window`]: bytes of a file that go to a peer from where the page cache has them, behind a head of one's own.
//!
//! They are mapped and never read here: the kernel copies them once, into the socket. A read into a buffer costs one copy
//! more. `sendfile` costs none, but takes longer all in all where both ends are on one machine: the receiver then copies
//! page by page what no processor has at hand, and it was 1.5 times the CPU of read and send.
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::fmt;
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd};
use std::ptr::{NonNull, null_mut};

use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, mmap_anonymous, munmap};

use super::buf::Buf;
use super::{page_cache, syscall};

/// A head to be written, and bytes of a file behind it, as one run of bytes to be sent.
///
/// Of the file only the kernel reads: it answers with an error where the disk fails, which would otherwise end the
/// process.
pub struct Window {
    place: Place,
    head: usize,
    len: usize,
}

enum Place {
    Mapped(Mapping),
    Copied(Buf),
}

impl Window {
    /// Maps `range` of a file, all of which the page cache has; head and range begin and the head ends at a page.
    ///
    /// # Errors
    /// Where that cannot be done without waiting for the disk, or at all.
    pub(super) fn map(file: impl AsFd, head: usize, range: &Range<u64>) -> io::Result<Self> {
        let (file, page) = (file.as_fd(), rustix::param::page_size());
        let invalid = || io::Error::from(io::ErrorKind::InvalidInput);
        let bytes = range.end.checked_sub(range.start).filter(|bytes| *bytes > 0).ok_or_else(invalid)?;
        let bytes = usize::try_from(bytes).map_err(|_| invalid())?;
        if !head.is_multiple_of(page) || !range.start.is_multiple_of(page as u64) {
            return Err(invalid());
        }
        let len = head.checked_add(bytes).ok_or_else(invalid)?;
        // Pages that are being read ahead count as cached, and the last of them arrives last. Behind the end of the file
        // the last page would show zeros: there is no byte to be read.
        let cached = page_cache::cached_pages(file, range)? >= bytes.div_ceil(page) as u64;
        if !cached || syscall::try_read(file, &mut [0], range.end - 1)? == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let mut mapping = Mapping::reserve(len)?;
        mapping.fill(file, head..len, range.start)?;
        Ok(Self { place: Place::Mapped(mapping), head, len })
    }

    /// The same of bytes that were read into a buffer behind the head.
    pub(super) fn copied(buf: Buf, head: usize) -> Self {
        Self { len: buf.len(), place: Place::Copied(buf), head }
    }

    /// How long head and bytes are together.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "there is none without bytes")]
    pub fn len(&self) -> usize {
        self.len
    }

    /// The head, zeroed at first.
    pub fn head_mut(&mut self) -> &mut [u8] {
        match &mut self.place {
            // SAFETY: the head's pages are private, zeroed by the kernel and within the mapping, which is exclusively
            // borrowed; the file's pages begin behind them.
            Place::Mapped(mapping) => unsafe {
                std::slice::from_raw_parts_mut(mapping.start.as_ptr().cast::<u8>(), self.head)
            },
            Place::Copied(buf) => &mut buf[..self.head],
        }
    }

    /// Whether an error of a send is the file's: its bytes could not be read.
    #[must_use]
    pub fn is_unreadable(error: &io::Error) -> bool {
        error.raw_os_error() == Some(Errno::FAULT.raw_os_error())
    }

    /// Where the kernel finds its bytes; valid for [`len`](Self::len) of them for as long as the window lives. Not to be
    /// read by this process.
    pub(super) fn start(&self) -> *const u8 {
        match &self.place {
            Place::Mapped(mapping) => mapping.start.as_ptr().cast::<u8>(),
            Place::Copied(buf) => buf.as_ptr(),
        }
    }

    /// The bytes of one that was [`copied`](Self::copied).
    pub(super) fn bytes(&self) -> Option<&[u8]> {
        match &self.place {
            Place::Mapped(_) => None,
            Place::Copied(buf) => Some(buf),
        }
    }

    /// Sends what the socket takes of `range` at once.
    pub(super) fn send_to(&self, socket: impl AsFd, range: Range<usize>) -> io::Result<usize> {
        assert!(range.start <= range.end && range.end <= self.len, "a range of the window");
        let socket = socket.as_fd().as_raw_fd();
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        // SAFETY: the range lies in the window, which outlives the call; the kernel reads it and keeps nothing of it.
        let sent = unsafe { libc::send(socket, self.start().add(range.start).cast(), range.len(), flags) };
        usize::try_from(sent).map_err(|_| io::Error::last_os_error())
    }
}

impl fmt::Debug for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Window").field("head", &self.head).field("len", &self.len).finish_non_exhaustive()
    }
}

/// Addresses of our own.
struct Mapping {
    start: NonNull<c_void>,
    len: usize,
}

impl Mapping {
    /// Private memory, which costs nothing until it is touched.
    fn reserve(len: usize) -> io::Result<Self> {
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a fresh private mapping at an address of the kernel's choice touches no existing memory.
        let start = unsafe { mmap_anonymous(null_mut(), len, access, MapFlags::PRIVATE)? };
        let start = NonNull::new(start).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { start, len })
    }

    /// Puts the file's bytes from `offset` on into this range, which begins at a page, with every page at hand.
    fn fill(&mut self, file: impl AsFd, range: Range<usize>, offset: u64) -> io::Result<()> {
        assert!(range.start <= range.end && range.end <= self.len, "a range of the mapping");
        // SAFETY: the range lies in our mapping, and begins at a page as that does.
        let at = unsafe { self.start.as_ptr().cast::<u8>().add(range.start) }.cast::<c_void>();
        let flags = MapFlags::SHARED | MapFlags::FIXED;
        // SAFETY: what is replaced is a part of our mapping, of which nobody has a reference yet.
        if let Err(error) = unsafe { mmap(at, range.len(), ProtFlags::READ, flags, file, offset) } {
            // What was to be replaced may be gone, and be another's by now: those addresses are given up.
            self.len = range.start;
            return Err(error.into());
        }
        // Before anything is sent, so that a page that cannot be read is noticed while there is another way.
        // SAFETY: the range is mapped; this advice changes no content.
        Ok(unsafe { madvise(at, range.len(), Advice::LinuxPopulateRead) }?)
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if self.len == 0 {
            return;
        }
        // SAFETY: mapped in `reserve` with at least this length, all of it still ours; whoever sends it holds the window.
        let unmapped = unsafe { munmap(self.start.as_ptr(), self.len) };
        debug_assert!(unmapped.is_ok());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether this address is mapped in this process.
    fn is_mapped(address: usize) -> bool {
        let maps = std::fs::read_to_string("/proc/self/maps").expect("it is mounted");
        let hex = |text: &str| usize::from_str_radix(text, 16).expect("an address");
        let ranges = maps.lines().filter_map(|line| line.split_once(' ')?.0.split_once('-'));
        ranges.into_iter().any(|(start, end)| (hex(start)..hex(end)).contains(&address))
    }

    /// Another thread's memory may be there by now.
    #[test]
    fn addresses_that_could_not_be_filled_are_not_unmapped() {
        let page = rustix::param::page_size();
        let file = tempfile::NamedTempFile::new().expect("a file");
        // What is open for writing only cannot be mapped.
        let unreadable = std::fs::File::options().write(true).open(file.path()).expect("it is opened");
        let mut mapping = Mapping::reserve(3 * page).expect("reserved");
        let start = mapping.start.as_ptr() as usize;
        assert!(mapping.fill(&unreadable, page..3 * page, 0).is_err());
        assert_eq!(mapping.len, page, "the head is still ours");
        drop(mapping);
        assert!(is_mapped(start + page) && is_mapped(start + 2 * page), "given up, not given back");
    }
}
