//! The device's own time for one durable write: 4 KiB, O_DIRECT and O_DSYNC, each to a fresh block of a file that was
//! filled with zeros before.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;

const BLOCK: usize = 4096;
/// The kernel's number of O_DSYNC on the machines that we know.
const DSYNC: i32 = 0o10000;

/// A file to be written to, removed in the end.
pub(super) struct Device {
    file: File,
    block: Vec<u8>,
    start: usize,
    blocks: u64,
    next: u64,
}

impl Device {
    /// A file of `blocks` blocks in `folder`.
    pub(super) fn new(folder: &Path, blocks: u64) -> io::Result<Self> {
        let path = folder.join("bench-device");
        let zeros = vec![0; BLOCK];
        let file = File::create(&path)?;
        for at in 0..blocks {
            file.write_all_at(&zeros, at * BLOCK as u64)?;
        }
        file.sync_all()?;
        let direct =
            OpenOptions::new().write(true).custom_flags(OFlags::DIRECT.bits() as i32 | DSYNC).open(&path);
        // Memory file systems know no O_DIRECT.
        let file = direct.or_else(|_| OpenOptions::new().write(true).custom_flags(DSYNC).open(&path))?;
        std::fs::remove_file(&path)?;
        let block = vec![7; 2 * BLOCK];
        let start = block.as_ptr().align_offset(BLOCK).min(BLOCK);
        Ok(Self { file, block, start, blocks, next: 0 })
    }

    /// One write.
    pub(super) fn write(&mut self) -> io::Result<()> {
        let at = self.next % self.blocks * BLOCK as u64;
        self.next += 1;
        self.file.write_all_at(&self.block[self.start..self.start + BLOCK], at)
    }
}
