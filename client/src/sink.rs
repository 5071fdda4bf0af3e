//! Where checked bytes go, and the check that stands before it.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use distrifs_proto::frame::{FrameError, PAYLOAD_START, Placement, block_crc, verify};
use distrifs_proto::limits::BLOCK_BYTES;
use distrifs_proto::types::Crc32c;

use crate::buffer::FrameBuffer;
use crate::reader_state::Part;

/// Checked bytes in memory.
#[derive(Debug)]
pub(crate) struct Piece {
    buffer: FrameBuffer,
    wanted: Range<usize>,
}

impl Piece {
    /// The bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.buffer[self.wanted.clone()]
    }
}

/// Where checked bytes go.
#[derive(Debug)]
pub(crate) enum Sink {
    /// Into a file, the first wanted byte at this offset.
    File(Arc<File>, u64),
    /// Into memory, in order.
    Memory(Vec<Piece>),
    /// Nowhere.
    Nowhere,
}

/// A frame that was checked, and brought to its place as far as it is sound.
pub(crate) struct Landed {
    /// Its sound wanted bytes, wherever they go.
    pub(crate) piece: Piece,
    /// Sound bytes from its start: all of it, or the whole blocks before the damage.
    pub(crate) sound: u64,
    /// Of these.
    pub(crate) crc: Crc32c,
    pub(crate) outcome: Result<(), LandError>,
}

/// Why it is not there.
pub(crate) enum LandError {
    /// A block does not have its checksum.
    Damaged(FrameError),
    /// The target does not take it.
    Target(io::Error),
}

/// Checks a frame and writes its wanted bytes, as far as they are sound.
pub(crate) fn land(
    buffer: FrameBuffer,
    place: &Placement,
    part: &Part,
    file: Option<(&File, u64)>,
) -> Landed {
    let checked = verify(&buffer, place);
    let sound = match &checked {
        Ok(()) => place.payload.len(),
        Err(FrameError::BlockChecksum { block, .. }) => block * BLOCK_BYTES,
        Err(_) => 0,
    };
    let crcs = (0..sound.div_ceil(BLOCK_BYTES)).map(|block| block_crc(&buffer, place, block));
    let crc = Crc32c::of_blocks(crcs, sound as u64);
    let cut = part.cut.start.min(sound)..part.cut.end.min(sound);
    let written = match file {
        Some((file, at)) => file.write_all_at(&buffer[place.payload.clone()][cut.clone()], at + part.at),
        None => Ok(()),
    };
    let outcome = written.map_err(LandError::Target).and(checked.map_err(LandError::Damaged));
    let wanted = PAYLOAD_START + cut.start..PAYLOAD_START + cut.end;
    Landed { piece: Piece { buffer, wanted }, sound: sound as u64, crc, outcome }
}
