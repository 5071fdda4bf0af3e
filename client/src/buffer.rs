//! Buffers that each take one frame, used again and again.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};

use distrifs_proto::frame::{FRAME_BUFFER_BYTES, PAYLOAD_START};

/// Buffers kept for later; those that come back beyond it are freed. Those in use are bounded by their users: the
/// most, 96 and a few with chunks of the default size, by a `put` of a stream. Fresh ones would be paged in for every
/// chunk again.
const IDLE_MAX: usize = 104;

/// Where frame buffers come from and go back to.
#[derive(Debug, Clone, Default)]
pub(crate) struct Buffers {
    idle: Arc<Mutex<Vec<Box<[u8]>>>>,
}

/// Room for one frame, its payload at [`PAYLOAD_START`]; goes back to its pool when dropped.
#[derive(Debug)]
pub(crate) struct FrameBuffer {
    bytes: Box<[u8]>,
    home: Buffers,
}

impl Buffers {
    /// One that is free, or a new one.
    pub(crate) fn take(&self) -> FrameBuffer {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let bytes = idle.unwrap_or_else(|| vec![0; FRAME_BUFFER_BYTES].into_boxed_slice());
        FrameBuffer { bytes, home: self.clone() }
    }
}

impl FrameBuffer {
    /// Where the first `len` bytes of the payload are.
    pub(crate) fn payload_mut(&mut self, len: usize) -> &mut [u8] {
        &mut self.bytes[PAYLOAD_START..PAYLOAD_START + len]
    }
}

impl Drop for FrameBuffer {
    fn drop(&mut self) {
        let mut idle = self.home.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE_MAX {
            idle.push(std::mem::take(&mut self.bytes));
        }
    }
}

impl Deref for FrameBuffer {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl DerefMut for FrameBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_come_back_and_no_more_than_the_limit_are_kept() {
        let buffers = Buffers::default();
        let many: Vec<FrameBuffer> = (0..IDLE_MAX + 3).map(|_| buffers.take()).collect();
        drop(many);
        assert_eq!(buffers.idle.lock().unwrap().len(), IDLE_MAX);
        let first = buffers.take();
        assert_eq!(first.len(), FRAME_BUFFER_BYTES);
        assert_eq!(buffers.idle.lock().unwrap().len(), IDLE_MAX - 1);
    }
}
