//! An allocator that counts for each thread, the system's behind it. A test makes it its own:
//! `#[global_allocator] static ALLOCATOR: CountingAllocator = CountingAllocator;`.
#![allow(unsafe_code, reason = "an allocator cannot be had without")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicI32, AtomicU64, AtomicUsize, Ordering};

/// Of all threads that this process ever has, the first so many are counted.
const THREADS_MAX: usize = 4096;

struct Thread {
    id: AtomicI32,
    allocations: AtomicU64,
}

static THREADS: [Thread; THREADS_MAX] =
    [const { Thread { id: AtomicI32::new(0), allocations: AtomicU64::new(0) } }; THREADS_MAX];
static SEEN: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static PLACE: Cell<Option<usize>> = const { Cell::new(None) };
}

/// Counts what is allocated and what is made larger.
#[derive(Debug)]
pub struct CountingAllocator;

/// Must not allocate.
fn count() {
    let index = PLACE.get().unwrap_or_else(|| {
        let index = SEEN.fetch_add(1, Ordering::Relaxed);
        PLACE.set(Some(index));
        if let Some(thread) = THREADS.get(index) {
            thread.id.store(rustix::thread::gettid().as_raw_pid(), Ordering::Relaxed);
        }
        index
    });
    if let Some(thread) = THREADS.get(index) {
        thread.allocations.fetch_add(1, Ordering::Relaxed);
    }
}

// SAFETY: the system's allocator does all of it.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller keeps the contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller keeps the contract.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: the caller keeps the contract.
        unsafe { System.realloc(at, layout, size) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract.
        unsafe { System.dealloc(at, layout) }
    }
}

/// Allocations so far of the living threads with such a beginning of their name.
#[must_use]
pub fn allocations_of_threads(name: &str) -> u64 {
    let seen = SEEN.load(Ordering::Relaxed).min(THREADS_MAX);
    let named = |id: i32| {
        let found = std::fs::read_to_string(format!("/proc/self/task/{id}/comm"));
        found.is_ok_and(|found| found.starts_with(name))
    };
    let counted = THREADS[..seen].iter().filter(|thread| named(thread.id.load(Ordering::Relaxed)));
    counted.map(|thread| thread.allocations.load(Ordering::Relaxed)).sum()
}

/// Allocations so far of all threads, those that have ended too.
#[must_use]
pub fn allocations() -> u64 {
    THREADS.iter().map(|thread| thread.allocations.load(Ordering::Relaxed)).sum()
}
