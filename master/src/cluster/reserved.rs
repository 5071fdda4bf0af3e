//! The space of a datanode that is promised to chunks on their way. Pure.
//!
//! Between two heartbeats a node's free bytes are those that it last reported, less what was placed on it since. Each chunk
//! is charged what it may become; when it has arrived, what it is. The next heartbeat has all of it in its free bytes.

use std::collections::BTreeMap;

/// Reservations of different lengths that are kept apart; further ones join the next longer one.
const LENGTHS_MAX: usize = 1024;

/// What is reserved on one node since its last heartbeat.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Reserved {
    /// Chunks by the length that each may have.
    lengths: BTreeMap<u64, u32>,
    count: u32,
    bytes: u64,
    arrived_bytes: u64,
}

impl Reserved {
    /// A chunk of up to `bytes` was placed on the node.
    pub(super) fn reserve(&mut self, bytes: u64) {
        let bytes = match self.lengths.len() < LENGTHS_MAX || self.lengths.contains_key(&bytes) {
            true => bytes,
            // Longer: too much is reserved for a moment, never too little.
            false => self.lengths.range(bytes..).next().map_or(bytes, |(length, _)| *length),
        };
        *self.lengths.entry(bytes).or_default() += 1;
        self.count = self.count.saturating_add(1);
        self.bytes = self.bytes.saturating_add(bytes);
    }

    /// A chunk has arrived: it takes its length from now on, and no longer what was reserved for it.
    pub(super) fn arrived(&mut self, length: u64) {
        self.arrived_bytes = self.arrived_bytes.saturating_add(length);
        // The shortest that it fits in is the one that was made for it, nearly always.
        let Some((reserved, _)) = self.lengths.range(length..).next() else { return };
        let reserved = *reserved;
        if let Some(count) = self.lengths.get_mut(&reserved) {
            *count -= 1;
            if *count == 0 {
                self.lengths.remove(&reserved);
            }
        }
        self.count -= 1;
        self.bytes = self.bytes.saturating_sub(reserved);
    }

    /// Chunks on their way.
    pub(super) fn count(&self) -> u32 {
        self.count
    }

    /// Bytes that are reserved or have arrived.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.saturating_add(self.arrived_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_chunk_is_charged_what_it_reserved_and_then_what_it_is() {
        let mut it = Reserved::default();
        for bytes in [64, 4, 64, 8] {
            it.reserve(bytes);
        }
        assert_eq!((it.count(), it.bytes()), (4, 140));
        it.arrived(4);
        assert_eq!((it.count(), it.bytes()), (3, 140), "a chunk of its full length");
        it.arrived(10);
        assert_eq!((it.count(), it.bytes()), (2, 86), "64 were reserved for it");
        it.arrived(100);
        assert_eq!((it.count(), it.bytes()), (2, 186), "a chunk that was not placed here");
    }

    #[test]
    fn lengths_that_are_told_apart_are_bounded() {
        let mut it = Reserved::default();
        let count = 2 * LENGTHS_MAX as u64;
        (1..=count).rev().for_each(|bytes| it.reserve(bytes));
        assert_eq!((it.lengths.len(), u64::from(it.count())), (LENGTHS_MAX, count));
        assert!(it.bytes() >= count * (count + 1) / 2, "never too little");
    }
}
