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

/// A frame that was checked and, if so, brought to its place.
pub(crate) struct Landed {
    /// Its wanted bytes, wherever they go.
    pub(crate) piece: Piece,
    pub(crate) part: Part,
    pub(crate) outcome: Result<Crc32c, LandError>,
}

/// Why it is not there.
pub(crate) enum LandError {
    /// A block does not have its checksum.
    Damaged(FrameError),
    /// The target does not take it.
    Target(io::Error),
}

/// Checks a frame and writes its wanted bytes.
pub(crate) fn land(buffer: FrameBuffer, place: &Placement, part: Part, file: Option<(&File, u64)>) -> Landed {
    let outcome = match verify(&buffer, place) {
        Err(error) => Err(LandError::Damaged(error)),
        Ok(()) => {
            let blocks = place.payload.len().div_ceil(BLOCK_BYTES);
            let crcs = (0..blocks).map(|block| block_crc(&buffer, place, block));
            let crc = Crc32c::of_blocks(crcs, part.length);
            let written = match file {
                Some((file, at)) => {
                    file.write_all_at(&buffer[place.payload.clone()][part.cut.clone()], at + part.at)
                }
                None => Ok(()),
            };
            written.map(|()| crc).map_err(LandError::Target)
        }
    };
    let wanted = PAYLOAD_START + part.cut.start..PAYLOAD_START + part.cut.end;
    Landed { piece: Piece { buffer, wanted }, part, outcome }
}
