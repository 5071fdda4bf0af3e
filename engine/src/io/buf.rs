//! Buffers: aligned for O_DIRECT, owned by the operation that uses them, bounded by their pool.
//!
//! The pool and its buffers may cross threads (the POSIX body hands them to its file threads), so they
//! count with atomics; one uncontended lock per buffer of a megabyte is not seen in any profile.
#![allow(unsafe_code)]

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::fmt;
use std::io;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};
use tokio::sync::Semaphore;

/// The alignment of every buffer's first byte: a page, which every O_DIRECT device accepts.
pub const BUF_ALIGN: usize = 4096;
/// What the pool's memory is aligned to, so that the kernel can back it with huge pages.
const HUGE_PAGE_BYTES: usize = 2 << 20;

/// An owned buffer of fixed length, aligned to [`BUF_ALIGN`]. Dropped, it returns to its pool.
///
/// A pooled buffer holds whatever its last user left in it.
pub struct Buf {
    start: NonNull<u8>,
    len: usize,
    home: Home,
}

enum Home {
    Pool(Arc<Core>),
    Heap(Layout),
}

// SAFETY: a `Buf` is the only owner of its bytes; `Core` is `Send + Sync`.
unsafe impl Send for Buf {}
// SAFETY: through `&Buf` the bytes can only be read.
unsafe impl Sync for Buf {}

impl Buf {
    /// A zeroed buffer of its own, outside any pool.
    #[must_use]
    pub fn alloc(len: usize) -> Self {
        let layout = Layout::from_size_align(len.max(1), BUF_ALIGN).expect("a buffer's length is a size");
        // SAFETY: the layout's size is at least 1.
        let start = unsafe { alloc_zeroed(layout) };
        let Some(start) = NonNull::new(start) else { handle_alloc_error(layout) };
        Self { start, len, home: Home::Heap(layout) }
    }

    /// Makes the buffer readable from several places; it goes home when the last of them is dropped.
    #[must_use]
    pub fn share(self) -> Shared {
        Shared(Arc::new(self))
    }
}

impl Deref for Buf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `start` is valid for `len` initialised bytes (zeroed by the allocator or by mmap) for as
        // long as `home` lives, and this `Buf` is their only owner.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl DerefMut for Buf {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`; `&mut self` makes the access exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

impl Drop for Buf {
    fn drop(&mut self) {
        match &self.home {
            Home::Pool(core) => core.put_back(Slot(self.start)),
            // SAFETY: allocated in `alloc` with this layout, and nobody else owns it.
            Home::Heap(layout) => unsafe { dealloc(self.start.as_ptr(), *layout) },
        }
    }
}

impl fmt::Debug for Buf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let home = match self.home {
            Home::Pool(_) => "pool",
            Home::Heap(_) => "heap",
        };
        f.debug_struct("Buf").field("len", &self.len).field("home", &home).finish()
    }
}

/// A buffer that is read from several places at once, such as the disk and the next replica.
#[derive(Clone, Debug)]
pub struct Shared(Arc<Buf>);

impl Deref for Shared {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl From<Buf> for Shared {
    fn from(buf: Buf) -> Self {
        buf.share()
    }
}

/// A fixed number of buffers in one region of memory. An empty pool makes its callers wait, in order.
#[derive(Clone)]
pub struct BufPool(Arc<Core>);

struct Core {
    region: Region,
    buf_len: usize,
    count: usize,
    /// As many permits as `free` has slots, save between the two steps of taking and putting back.
    permits: Semaphore,
    free: Mutex<Vec<Slot>>,
}

struct Slot(NonNull<u8>);

// SAFETY: a slot is the exclusive right to its bytes of the region; moving it moves that right.
unsafe impl Send for Slot {}

impl BufPool {
    /// A pool of `count` buffers of `len` bytes each; `len` is a multiple of [`BUF_ALIGN`].
    pub fn new(count: usize, len: usize) -> io::Result<Self> {
        let bytes = count.checked_mul(len).filter(|bytes| *bytes > 0 && len.is_multiple_of(BUF_ALIGN));
        let Some(bytes) = bytes else {
            let text = format!("a pool of {count} buffers of {len} bytes is not possible");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        };
        let region = Region::map(bytes)?;
        // The last slot is handed out first: start with the lowest addresses.
        let free = (0..count).rev().map(|index| region.slot(index * len)).collect();
        Ok(Self(Arc::new(Core {
            region,
            buf_len: len,
            count,
            permits: Semaphore::new(count),
            free: Mutex::new(free),
        })))
    }

    /// Takes a buffer; waits, first come first served, while there is none.
    pub async fn get(&self) -> Buf {
        self.0.permits.acquire().await.expect("the pool's semaphore is never closed").forget();
        self.take()
    }

    /// Takes a buffer if one is free and nobody waits for it.
    #[must_use]
    pub fn try_get(&self) -> Option<Buf> {
        self.0.permits.try_acquire().ok()?.forget();
        Some(self.take())
    }

    /// How many buffers are free now.
    #[must_use]
    pub fn free(&self) -> usize {
        self.0.permits.available_permits()
    }

    /// How many buffers there are.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.0.count
    }

    /// How long each buffer is.
    #[must_use]
    pub fn buf_len(&self) -> usize {
        self.0.buf_len
    }

    fn take(&self) -> Buf {
        let slot = self.0.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let slot = slot.expect("a permit stands for a free slot");
        Buf { start: slot.0, len: self.0.buf_len, home: Home::Pool(Arc::clone(&self.0)) }
    }
}

impl fmt::Debug for BufPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BufPool").field("capacity", &self.0.count).field("free", &self.free()).finish()
    }
}

impl Core {
    fn put_back(&self, slot: Slot) {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        debug_assert!(self.region.holds(&slot) && free.len() < self.count);
        free.push(slot);
        drop(free);
        self.permits.add_permits(1);
    }
}

/// Anonymous memory, zeroed, its `start` aligned to a huge page.
struct Region {
    mapped: NonNull<u8>,
    mapped_len: usize,
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: the region is plain memory; who may touch which bytes is ruled by the slots.
unsafe impl Send for Region {}
// SAFETY: as above; `&Region` gives out addresses only.
unsafe impl Sync for Region {}

impl Region {
    fn map(bytes: usize) -> io::Result<Self> {
        let too_large = || io::Error::new(io::ErrorKind::OutOfMemory, "a buffer pool larger than memory");
        let mapped_len = bytes.checked_add(HUGE_PAGE_BYTES).ok_or_else(too_large)?;
        // SAFETY: a fresh private mapping at an address of the kernel's choice touches no existing memory.
        let mapped = unsafe {
            mmap_anonymous(
                std::ptr::null_mut(),
                mapped_len,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE,
            )?
        };
        let mapped = NonNull::new(mapped.cast::<u8>()).ok_or_else(too_large)?;
        let skip = mapped.as_ptr().align_offset(HUGE_PAGE_BYTES);
        // SAFETY: the mapping is a huge page longer than `bytes`, and `skip` is less than a huge page.
        let start = unsafe { mapped.add(skip) };
        // A hint: a kernel without huge pages refuses it, and small pages do as well.
        // SAFETY: the range lies in our mapping, and this advice keeps its content.
        let _ = unsafe { madvise(start.as_ptr().cast(), bytes, Advice::LinuxHugepage) };
        Ok(Self { mapped, mapped_len, start, len: bytes })
    }

    fn slot(&self, offset: usize) -> Slot {
        debug_assert!(offset < self.len);
        // SAFETY: `offset` lies in the region.
        Slot(unsafe { self.start.add(offset) })
    }

    fn holds(&self, slot: &Slot) -> bool {
        let at = slot.0.as_ptr() as usize;
        let start = self.start.as_ptr() as usize;
        at >= start && at < start + self.len
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: mapped in `map` with this length; every buffer holds the core, so none is left.
        let unmapped = unsafe { munmap(self.mapped.as_ptr().cast(), self.mapped_len) };
        debug_assert!(unmapped.is_ok());
    }
}

#[cfg(test)]
mod tests {
    use super::{BUF_ALIGN, Buf, BufPool};

    #[test]
    fn buffers_are_aligned_zeroed_and_apart() {
        let pool = BufPool::new(3, 2 * BUF_ALIGN).unwrap();
        let mut bufs: Vec<Buf> = (0..3).map(|_| pool.try_get().unwrap()).collect();
        bufs.push(Buf::alloc(100));
        for (fill, buf) in (1..).zip(&mut bufs) {
            assert!((buf.as_ptr() as usize).is_multiple_of(BUF_ALIGN));
            assert!(buf.iter().all(|byte| *byte == 0));
            buf.fill(fill);
        }
        for (fill, buf) in (1..).zip(&bufs) {
            assert!(buf.iter().all(|byte| *byte == fill));
        }
    }

    #[test]
    fn a_dropped_buffer_goes_home_once_its_last_share_is_gone() {
        let pool = BufPool::new(1, BUF_ALIGN).unwrap();
        let shared = pool.try_get().unwrap().share();
        let second = shared.clone();
        drop(shared);
        assert!(pool.try_get().is_none());
        drop(second);
        assert_eq!(pool.free(), 1);
        assert!(pool.try_get().is_some());
    }

    #[test]
    fn the_memory_outlives_the_pool_while_a_buffer_lives() {
        let pool = BufPool::new(2, BUF_ALIGN).unwrap();
        let mut buf = pool.try_get().unwrap();
        drop(pool);
        buf.fill(7);
        assert_eq!(buf[BUF_ALIGN - 1], 7);
    }

    #[test]
    fn impossible_pools_are_refused() {
        assert!(BufPool::new(0, BUF_ALIGN).is_err());
        assert!(BufPool::new(1, BUF_ALIGN - 1).is_err());
        assert!(BufPool::new(usize::MAX, BUF_ALIGN).is_err());
    }

    #[test]
    fn an_empty_buffer_is_possible() {
        assert_eq!(Buf::alloc(0).len(), 0);
    }
}
