//! Replicas as files on the datanodes' disks.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

/// A replica of a chunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicaFile {
    /// The place of the chunk in the file.
    pub index: u64,
    /// The chunk.
    pub chunk: String,
    /// Which datanode of the cluster, from 0.
    pub datanode: usize,
    /// The file with exactly the chunk's bytes.
    pub path: PathBuf,
}

impl ReplicaFile {
    /// Flips all bits of one byte, as a bad sector or a cosmic ray might.
    ///
    /// # Panics
    /// When the file cannot be changed there.
    pub fn flip_byte(&self, offset: u64) {
        let file = OpenOptions::new().read(true).write(true).open(&self.path).expect("the replica's file");
        let mut byte = [0];
        file.read_exact_at(&mut byte, offset).expect("a byte there");
        byte[0] = !byte[0];
        file.write_all_at(&byte, offset).expect("it can be written");
        file.sync_all().expect("it can be synced");
    }
}
