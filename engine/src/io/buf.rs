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
use std::sync::atomic::{AtomicUsize, Ordering, fence};
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
    /// The only handle of its memory.
    home: Home,
}

enum Home {
    Pool(Place),
    Heap(Memory),
}

// SAFETY: a `Buf` is the only owner of its bytes; its home is only counted and freed, from any thread.
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
        Self { start, len, home: Home::Heap(Memory { start, layout }) }
    }

    /// Makes the buffer readable from several places; it goes home when the last of them is dropped. Costs a pooled
    /// buffer no allocation.
    #[must_use]
    pub fn share(self) -> Shared {
        let home = match self.home {
            Home::Pool(place) => SharedHome::Pool(place),
            Home::Heap(memory) => SharedHome::Heap(Arc::new(memory)),
        };
        Shared { start: self.start, len: self.len, home }
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
#[derive(Clone)]
pub struct Shared {
    start: NonNull<u8>,
    len: usize,
    /// One of the handles of its memory.
    home: SharedHome,
}

#[derive(Clone)]
#[expect(dead_code, reason = "held until the last share is gone")]
enum SharedHome {
    Pool(Place),
    Heap(Arc<Memory>),
}

// SAFETY: the bytes can only be read; their home is only counted and freed, by whoever is the last, on any thread.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Deref for Shared {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `start` is valid for `len` initialised bytes for as long as `home` lives; the one `Buf` that could
        // write them has become this share, and those that were cloned from it only read.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let home = match self.home {
            SharedHome::Pool(_) => "pool",
            SharedHome::Heap(_) => "heap",
        };
        f.debug_struct("Shared").field("len", &self.len).field("home", &home).finish()
    }
}

impl From<Buf> for Shared {
    fn from(buf: Buf) -> Self {
        buf.share()
    }
}

/// Memory from the heap.
struct Memory {
    start: NonNull<u8>,
    layout: Layout,
}

// SAFETY: a `Memory` is the only owner of what it frees, which any thread may do; it gives no access to the bytes.
unsafe impl Send for Memory {}
// SAFETY: as above; `&Memory` has nothing to offer.
unsafe impl Sync for Memory {}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: allocated in `Buf::alloc` with this layout, and nobody else owns it.
        unsafe { dealloc(self.start.as_ptr(), self.layout) }
    }
}

/// A fixed number of buffers in one region of memory. An empty pool makes its callers wait, in order.
#[derive(Clone)]
pub struct BufPool(Arc<Core>);

struct Core {
    region: Region,
    buf_len: usize,
    /// Of each buffer, how many handles there are.
    handles: Box<[AtomicUsize]>,
    /// As many permits as `free` has buffers, save between the two steps of taking and putting back.
    permits: Semaphore,
    free: Mutex<Vec<usize>>,
}

/// A handle of a buffer of a pool: with the last of them it goes back.
struct Place {
    core: Arc<Core>,
    index: usize,
}

impl Clone for Place {
    fn clone(&self) -> Self {
        // Whoever has a handle may pass it on by itself: nothing is to be seen that came before.
        self.core.handles[self.index].fetch_add(1, Ordering::Relaxed);
        Self { core: Arc::clone(&self.core), index: self.index }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // What was read through this handle was read before the buffer has its next user.
        if self.core.handles[self.index].fetch_sub(1, Ordering::Release) == 1 {
            fence(Ordering::Acquire);
            self.core.put_back(self.index);
        }
    }
}

impl BufPool {
    /// A pool of `count` buffers of `len` bytes each; `len` is a multiple of [`BUF_ALIGN`].
    pub fn new(count: usize, len: usize) -> io::Result<Self> {
        let bytes = count.checked_mul(len).filter(|bytes| *bytes > 0 && len.is_multiple_of(BUF_ALIGN));
        let Some(bytes) = bytes else {
            let text = format!("a pool of {count} buffers of {len} bytes is not possible");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        };
        Ok(Self(Arc::new(Core {
            region: Region::map(bytes)?,
            buf_len: len,
            handles: (0..count).map(|_| AtomicUsize::new(0)).collect(),
            permits: Semaphore::new(count),
            // The last one is handed out first: start with the lowest addresses.
            free: Mutex::new((0..count).rev().collect()),
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
        self.0.handles.len()
    }

    /// How long each buffer is.
    #[must_use]
    pub fn buf_len(&self) -> usize {
        self.0.buf_len
    }

    fn take(&self) -> Buf {
        let core = &self.0;
        let index = core.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let index = index.expect("a permit stands for a free buffer");
        // Relaxed: the lock has told us of whoever put it back.
        let before = core.handles[index].swap(1, Ordering::Relaxed);
        debug_assert_eq!(before, 0, "a free buffer has no handle");
        let start = core.region.at(index * core.buf_len);
        Buf { start, len: core.buf_len, home: Home::Pool(Place { core: Arc::clone(core), index }) }
    }
}

impl fmt::Debug for BufPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BufPool").field("capacity", &self.capacity()).field("free", &self.free()).finish()
    }
}

impl Core {
    fn put_back(&self, index: usize) {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        debug_assert!(free.len() < self.handles.len());
        free.push(index);
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

// SAFETY: the region is plain memory; who may touch which bytes is ruled by the handles of its buffers.
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

    fn at(&self, offset: usize) -> NonNull<u8> {
        debug_assert!(offset < self.len);
        // SAFETY: `offset` lies in the region.
        unsafe { self.start.add(offset) }
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
    use std::sync::atomic::Ordering;

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
    fn shares_on_many_threads_keep_their_bytes_and_let_the_last_one_return_the_buffer() {
        const ROUNDS: usize = 500;
        let pool = BufPool::new(2, BUF_ALIGN).unwrap();
        std::thread::scope(|scope| {
            for fill in 1..=2 {
                let pool = pool.clone();
                scope.spawn(move || {
                    for round in 0..ROUNDS {
                        let mut buf = loop {
                            match pool.try_get() {
                                Some(buf) => break buf,
                                None => std::thread::yield_now(),
                            }
                        };
                        let value = fill + 2 * (round % 100) as u8;
                        buf.fill(value);
                        let shared = buf.share();
                        std::thread::scope(|readers| {
                            for _ in 0..2 {
                                let share = shared.clone();
                                readers.spawn(move || assert!(share.clone().iter().all(|b| *b == value)));
                            }
                            drop(shared);
                        });
                    }
                });
            }
        });
        assert_eq!(pool.free(), 2);
        assert!(pool.0.handles.iter().all(|handles| handles.load(Ordering::Relaxed) == 0));
    }

    #[test]
    fn a_share_of_the_heap_outlives_the_others() {
        let mut buf = Buf::alloc(10);
        buf.fill(3);
        let shared = buf.share();
        let second = shared.clone();
        let reader = std::thread::spawn(move || second.iter().all(|byte| *byte == 3));
        drop(shared);
        assert!(reader.join().unwrap());
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
