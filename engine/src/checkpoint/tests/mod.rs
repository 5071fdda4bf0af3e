//! Checkpoints over the simulated disk and a real one: whole ways through, damage, faults.

mod damage;
mod joint;
mod store;

use distrifs_proto::types::{ClusterId, Epoch, Lsn};

use super::error::CheckpointError;
use super::reader::CheckpointReader;
use super::store::CheckpointFolder;
use super::writer::Written;
use crate::folder::{Folder, SimDisk};

const CLUSTER: ClusterId = ClusterId(0xc1);

fn sim(disk: &SimDisk) -> CheckpointFolder {
    CheckpointFolder::within(Folder::Sim(disk.clone()))
}

/// Bytes that differ from one place to the next.
fn image(len: usize, salt: u64) -> Vec<u8> {
    (0..len as u64).map(|i| (i.wrapping_mul(0x9e37_79b9).wrapping_add(salt) >> 11) as u8).collect()
}

fn write(folder: &CheckpointFolder, lsn: u64, content: &[u8]) -> Result<Written, CheckpointError> {
    let mut writer = folder.create(CLUSTER, Lsn(lsn), Epoch(3))?;
    for part in content.chunks(70_001) {
        writer.write(part)?;
    }
    writer.finish()
}

fn read_all(mut reader: CheckpointReader) -> Result<Vec<u8>, CheckpointError> {
    let mut content = Vec::new();
    while let Some(block) = reader.next_block()? {
        content.extend_from_slice(block);
    }
    Ok(content)
}

fn read_sim(disk: &SimDisk, name: &str) -> Result<Vec<u8>, CheckpointError> {
    read_all(CheckpointReader::open_in(&Folder::Sim(disk.clone()), name, Some(CLUSTER))?)
}
