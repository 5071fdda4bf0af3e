//! Looking at one checkpoint, for people who want to know whether it is whole.

use std::path::Path;

use super::error::CheckpointError;
use super::format::CheckpointHeader;
use super::reader::CheckpointReader;

/// What one checkpoint says and holds.
#[derive(Debug)]
pub struct CheckpointFacts {
    /// What its header says.
    pub header: CheckpointHeader,
    /// The length of the file.
    pub bytes: u64,
    /// The whole blocks from its start on.
    pub blocks: u64,
    /// What they hold, in bytes.
    pub payload: u64,
    /// Why it is not whole; `None` when every byte was checked.
    pub damage: Option<CheckpointError>,
}

/// Reads a checkpoint of whichever cluster to its end, or to where it is damaged, and changes nothing.
///
/// # Errors
/// As [`CheckpointReader::open`]: there is nothing to tell when even the header cannot be read.
pub fn inspect(path: &Path) -> Result<CheckpointFacts, CheckpointError> {
    let mut reader = CheckpointReader::open(path, None)?;
    let damage = reader.verify().err();
    let (blocks, payload) = reader.read_so_far();
    Ok(CheckpointFacts { header: reader.header(), bytes: reader.bytes(), blocks, payload, damage })
}
