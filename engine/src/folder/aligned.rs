//! Memory aligned for O_DIRECT, without `unsafe`: a vector with some bytes to spare in front.

use std::ops::{Deref, DerefMut};

use tokio_uring::buf::{BoundedBuf, Slice};

use distrifs_proto::limits::BLOCK_BYTES;

/// `len` bytes that start at a multiple of [`BLOCK_BYTES`]. The vector never grows, so they stay there.
pub(crate) struct AlignedBuf {
    bytes: Vec<u8>,
    start: usize,
    len: usize,
}

impl AlignedBuf {
    /// Zeros.
    pub(crate) fn zeroed(len: usize) -> Self {
        let bytes = vec![0; len + BLOCK_BYTES];
        let start = bytes.as_ptr().align_offset(BLOCK_BYTES);
        assert!(start < BLOCK_BYTES, "byte pointers can be aligned");
        Self { bytes, start, len }
    }

    /// Forgets all but the first `len` bytes.
    pub(crate) fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// The first `len` bytes as the ring wants them, and this buffer's length.
    pub(crate) fn into_slice(self, len: usize) -> (Slice<Vec<u8>>, usize) {
        assert!(len <= self.len && len > 0);
        (self.bytes.slice(self.start..self.start + len), self.len)
    }

    /// The way back.
    pub(crate) fn from_slice(slice: Slice<Vec<u8>>, len: usize) -> Self {
        let start = slice.begin();
        Self { bytes: slice.into_inner(), start, len }
    }
}

impl Deref for AlignedBuf {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.bytes[self.start..self.start + self.len]
    }
}

impl DerefMut for AlignedBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.start + self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::{AlignedBuf, BLOCK_BYTES};

    #[test]
    fn bytes_are_aligned_also_after_the_way_through_the_ring() {
        for len in [1, BLOCK_BYTES, 3 * BLOCK_BYTES] {
            let mut buf = AlignedBuf::zeroed(len);
            buf[len - 1] = 7;
            let (slice, whole) = buf.into_slice(1);
            let buf = AlignedBuf::from_slice(slice, whole);
            assert_eq!(buf.as_ptr().align_offset(BLOCK_BYTES), 0);
            assert_eq!((buf.len(), buf[len - 1]), (len, 7));
        }
    }
}
