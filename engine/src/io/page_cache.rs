//! How much of a file the page cache has.
#![allow(unsafe_code)]

use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd};

/// `cachestat` (Linux 6.5): the same number on every architecture that Rust's standard library knows, and not in the
/// `libc` crate for all of them.
const SYS_CACHESTAT: libc::c_long = 451;

/// The kernel's `struct cachestat_range`.
#[repr(C)]
struct CacheRange {
    offset: u64,
    length: u64,
}

/// The kernel's `struct cachestat`, in pages.
#[repr(C)]
#[derive(Default)]
struct CacheStat {
    cached: u64,
    dirty: u64,
    writeback: u64,
    evicted: u64,
    recently_evicted: u64,
}

/// Pages of the page cache that hold bytes of this range. It reads memory and starts nothing: neither a read nor a
/// read-ahead, as a read that must not wait would.
///
/// # Errors
/// [`io::ErrorKind::Unsupported`] before Linux 6.5; what the file system says.
pub(super) fn cached_pages(file: impl AsFd, range: &Range<u64>) -> io::Result<u64> {
    let range = CacheRange { offset: range.start, length: range.end.saturating_sub(range.start) };
    let mut found = CacheStat::default();
    // SAFETY: the descriptor is borrowed for the call; both structures have the kernel's layout, outlive the call and
    // are not kept by the kernel. A kernel without the call answers ENOSYS and touches nothing.
    let answer = unsafe {
        libc::syscall(SYS_CACHESTAT, file.as_fd().as_raw_fd(), &raw const range, &raw mut found, 0)
    };
    if answer == 0 { Ok(found.cached) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn pages_that_were_written_are_there_and_a_hole_is_not() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[1; 8192]).unwrap();
        file.set_len(1 << 20).unwrap();
        match cached_pages(&file, &(0..8192)) {
            Ok(pages) => {
                let page = rustix::param::page_size() as u64;
                assert_eq!(pages, 8192_u64.div_ceil(page));
                assert_eq!(cached_pages(&file, &(512 << 10..1 << 20)).unwrap(), 0);
            }
            Err(error) => {
                let kinds = [io::ErrorKind::Unsupported, io::ErrorKind::PermissionDenied];
                assert!(kinds.contains(&error.kind()), "{error}");
            }
        }
    }
}
