//! The bytes of one simulated file: what reads see, and what a power cut leaves.

use std::collections::BTreeSet;

use super::chance::Chance;

/// What a disk writes whole or not at all.
pub(super) const SECTOR: usize = 512;

/// Content as the page cache has it, and as the device has it.
#[derive(Debug, Clone, Default)]
pub(super) struct Content {
    now: Vec<u8>,
    durable: Vec<u8>,
    /// Sectors that were written since the last sync.
    dirty: BTreeSet<usize>,
}

impl Content {
    pub(super) fn durable(bytes: Vec<u8>) -> Self {
        Self { durable: bytes.clone(), now: bytes, dirty: BTreeSet::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.now.len()
    }

    pub(super) fn now(&self) -> &[u8] {
        &self.now
    }

    pub(super) fn synced(&self) -> &[u8] {
        &self.durable
    }

    pub(super) fn write(&mut self, offset: usize, bytes: &[u8]) {
        let end = offset + bytes.len();
        if end > self.now.len() {
            self.set_len(end);
        }
        self.now[offset..end].copy_from_slice(bytes);
        self.touch(offset, end);
    }

    pub(super) fn set_len(&mut self, len: usize) {
        let (low, high) = (self.now.len().min(len), self.now.len().max(len));
        self.now.resize(len, 0);
        // What was cut and grown again is zeros, which have to reach the device like any write.
        self.touch(low, high);
    }

    fn touch(&mut self, start: usize, end: usize) {
        self.dirty.extend(start / SECTOR..end.div_ceil(SECTOR));
    }

    pub(super) fn sync(&mut self) {
        self.durable.resize(self.now.len(), 0);
        for sector in std::mem::take(&mut self.dirty) {
            copy_sector(&self.now, &mut self.durable, sector);
        }
    }

    /// A failed sync: the pages are clean afterwards, the next sync succeeds, and the bytes are nowhere.
    pub(super) fn sync_failed(&mut self) {
        self.dirty.clear();
    }

    pub(super) fn flip(&mut self, byte: usize, bit: u8) -> bool {
        let mask = 1 << (bit % 8);
        for bytes in [&mut self.now, &mut self.durable] {
            if let Some(byte) = bytes.get_mut(byte) {
                *byte ^= mask;
            }
        }
        byte < self.now.len()
    }

    /// Each unsynced sector survives or not, and so does the length.
    pub(super) fn cut(&mut self, chance: &mut Chance) {
        let (low, high) = (self.now.len().min(self.durable.len()), self.now.len().max(self.durable.len()));
        let len = match chance.below(3) {
            0 => self.durable.len(),
            1 => self.now.len(),
            _ => low + chance.below((high - low) as u64 + 1) as usize,
        };
        let mut left = std::mem::take(&mut self.durable);
        left.resize(left.len().max(self.now.len()), 0);
        for sector in std::mem::take(&mut self.dirty) {
            if chance.coin() {
                copy_sector(&self.now, &mut left, sector);
            }
        }
        left.resize(len, 0);
        *self = Self::durable(left);
    }
}

fn copy_sector(from: &[u8], to: &mut [u8], sector: usize) {
    let start = sector * SECTOR;
    let end = (start + SECTOR).min(from.len()).min(to.len());
    if start < end {
        to[start..end].copy_from_slice(&from[start..end]);
    }
}

#[cfg(test)]
mod tests {
    use super::{Chance, Content, SECTOR};

    #[test]
    fn synced_bytes_survive_and_unsynced_sectors_are_whole_or_absent() {
        let (mut lost, mut kept, mut mixed) = (0, 0, 0);
        for seed in 0..200 {
            let mut content = Content::default();
            content.write(0, &[1; 4 * SECTOR]);
            content.sync();
            content.write(SECTOR, &[2; 2 * SECTOR]);
            content.cut(&mut Chance::new(seed));
            let left = content.now();
            assert_eq!(left.len(), 4 * SECTOR);
            assert!(left[..SECTOR].iter().chain(&left[3 * SECTOR..]).all(|byte| *byte == 1));
            let sectors = [left[SECTOR], left[2 * SECTOR]];
            for (index, first) in sectors.iter().enumerate() {
                assert!(left[(index + 1) * SECTOR..(index + 2) * SECTOR].iter().all(|byte| byte == first));
            }
            match sectors {
                [1, 1] => lost += 1,
                [2, 2] => kept += 1,
                _ => mixed += 1,
            }
        }
        assert!(lost > 0 && kept > 0 && mixed > 0, "{lost} {kept} {mixed}");
    }

    #[test]
    fn after_a_failed_sync_the_bytes_are_nowhere() {
        let mut content = Content::default();
        content.write(0, &[1; SECTOR]);
        content.sync();
        content.write(0, &[2; SECTOR]);
        content.sync_failed();
        content.sync();
        assert_eq!(content.now(), &[2; SECTOR]);
        content.cut(&mut Chance::new(0));
        assert_eq!(content.now(), &[1; SECTOR]);
    }

    #[test]
    fn cut_and_grown_again_is_zeros() {
        let mut content = Content::default();
        content.write(0, &[1; 700]);
        content.sync();
        content.set_len(600);
        content.set_len(700);
        content.sync();
        assert_eq!(content.synced()[599..602], [1, 0, 0]);
    }
}
