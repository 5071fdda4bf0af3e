//! A range of a buffer while the kernel has it.
#![allow(unsafe_code)]

use std::ops::Range;

use monoio::buf::{IoBuf, IoBufMut};

use crate::io::buf::{Buf, Shared};
use crate::io::drain::Underway;
use crate::io::window::Window;

/// Lives as long as the kernel may touch the buffer: an operation that is dropped leaves it to the driver,
/// which keeps it until the completion. So `_underway` counts what the kernel has, not what callers await.
pub(super) struct Lent<B> {
    pub(super) buf: B,
    range: Range<usize>,
    _underway: Underway,
}

impl<B: std::ops::Deref<Target = [u8]>> Lent<B> {
    pub(super) fn new(buf: B, range: Range<usize>, underway: Underway) -> Self {
        assert!(range.start <= range.end && range.end <= buf.len(), "a range of the buffer");
        Self { buf, range, _underway: underway }
    }
}

impl Lent<Window> {
    pub(super) fn window(buf: Window, range: Range<usize>, underway: Underway) -> Self {
        assert!(range.start <= range.end && range.end <= buf.len(), "a range of the window");
        Self { buf, range, _underway: underway }
    }
}

// SAFETY: the memory behind a `Buf` does not move with it, is initialised, and lives until it is dropped;
// `new` checked the range.
unsafe impl IoBufMut for Lent<Buf> {
    fn write_ptr(&mut self) -> *mut u8 {
        self.buf[self.range.clone()].as_mut_ptr()
    }

    fn bytes_total(&mut self) -> usize {
        self.range.len()
    }

    unsafe fn set_init(&mut self, _len: usize) {}
}

// SAFETY: as above; every share of a `Shared` reads only.
unsafe impl IoBuf for Lent<Shared> {
    fn read_ptr(&self) -> *const u8 {
        self.buf[self.range.clone()].as_ptr()
    }

    fn bytes_init(&self) -> usize {
        self.range.len()
    }
}

// SAFETY: the addresses of a `Window` do not move with it and are mapped until it is dropped; `window` checked the range.
// Where a page of it cannot be read the kernel, which alone reads it, answers with an error.
unsafe impl IoBuf for Lent<Window> {
    fn read_ptr(&self) -> *const u8 {
        self.buf.start().wrapping_add(self.range.start)
    }

    fn bytes_init(&self) -> usize {
        self.range.len()
    }
}
