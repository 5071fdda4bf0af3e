//! Reading a checkpoint: every block verified before it is handed out. A thread reads ahead.

use std::sync::mpsc::{Receiver, sync_channel};

use distrifs_proto::limits::BLOCK_BYTES;
use distrifs_proto::types::{ClusterId, Crc32c};

use super::error::{CheckpointError, failed};
use super::format::{
    BLOCK_HEADER_BYTES, BLOCK_UNIT_BYTES, BadHeader, Header, Piece, VERSION, decode_header, decode_piece,
    unit,
};
use crate::folder::{AlignedBuf, Folder};

/// Blocks read ahead.
const AHEAD_MAX: usize = 4;

/// A block and the length of its payload.
type Block = (AlignedBuf, usize);

/// A checkpoint that is being read.
#[derive(Debug)]
pub struct CheckpointReader {
    header: Header,
    blocks: Receiver<Result<Block, CheckpointError>>,
    current: Option<Block>,
}

impl CheckpointReader {
    pub(super) fn begin(
        folder: &Folder,
        name: &str,
        expected: Option<ClusterId>,
    ) -> Result<Self, CheckpointError> {
        let path = folder.file(name);
        let block = folder.read_at(name, 0, BLOCK_BYTES).map_err(failed(folder, name, "read"))?;
        let header = match decode_header(&block) {
            Ok(header) => header,
            Err(BadHeader::Version(found)) => {
                return Err(CheckpointError::NewerVersion { path, found, known: VERSION });
            }
            Err(BadHeader::Damaged(what)) => {
                return Err(CheckpointError::Corrupt { path, offset: 0, what });
            }
        };
        match expected {
            Some(expected) if expected != header.cluster => {
                return Err(CheckpointError::WrongCluster { path, expected, found: header.cluster });
            }
            _ => {}
        }
        if super::format::checkpoint_name(header.lsn) != name {
            let what = "its name says another position than its header";
            return Err(CheckpointError::Corrupt { path, offset: 32, what });
        }
        let (sender, blocks) = sync_channel(AHEAD_MAX);
        let spawned = {
            let (folder, name) = (folder.clone(), name.to_owned());
            std::thread::Builder::new().name("checkpoint-read".into()).spawn(move || {
                let mut ahead = Ahead::new(folder, name, header);
                while let Some(block) = ahead.next().transpose() {
                    // The reader may have gone.
                    if sender.send(block).is_err() {
                        return;
                    }
                }
            })
        };
        spawned.map_err(failed(folder, name, "start a thread to read"))?;
        Ok(Self { header, blocks, current: None })
    }

    /// What it says of itself.
    #[must_use]
    pub fn header(&self) -> Header {
        self.header
    }

    /// The next piece of the image; `None` once all of it was read and the end was verified.
    ///
    /// # Errors
    /// [`CheckpointError`]: the image cannot be trusted, nor what was read of it.
    pub fn next_block(&mut self) -> Result<Option<&[u8]>, CheckpointError> {
        // The thread ends with the footer verified, or with an error.
        self.current = self.blocks.recv().ok().transpose()?;
        Ok(self
            .current
            .as_ref()
            .map(|(block, payload)| &block[BLOCK_HEADER_BYTES..BLOCK_HEADER_BYTES + payload]))
    }
}

/// The thread that reads.
struct Ahead {
    folder: Folder,
    name: String,
    header: Header,
    offset: u64,
    blocks: u64,
    payload: u64,
    crc_of_crcs: Crc32c,
    ended: bool,
}

impl Ahead {
    fn new(folder: Folder, name: String, header: Header) -> Self {
        let offset = BLOCK_BYTES as u64;
        Self {
            folder,
            name,
            header,
            offset,
            blocks: 0,
            payload: 0,
            crc_of_crcs: Crc32c::default(),
            ended: false,
        }
    }

    fn corrupt(&self, what: &'static str) -> CheckpointError {
        CheckpointError::Corrupt { path: self.folder.file(&self.name), offset: self.offset, what }
    }

    fn next(&mut self) -> Result<Option<Block>, CheckpointError> {
        if self.ended {
            return Ok(None);
        }
        let result = self.piece();
        self.ended = !matches!(result, Ok(Some(_)));
        result
    }

    fn piece(&mut self) -> Result<Option<Block>, CheckpointError> {
        let read = self.folder.read_at(&self.name, self.offset, BLOCK_UNIT_BYTES);
        let bytes = read.map_err(failed(&self.folder, &self.name, "read"))?;
        match decode_piece(&bytes, self.blocks) {
            Ok(Piece::Block { payload, crc }) => {
                self.crc_of_crcs = self.crc_of_crcs.concat(Crc32c::of(&crc.0.to_le_bytes()), 4);
                self.blocks += 1;
                self.payload += payload as u64;
                self.offset += unit(payload) as u64;
                Ok(Some((bytes, payload)))
            }
            Ok(Piece::Footer(footer)) => {
                let found = (self.blocks, self.payload, self.header.lsn, self.crc_of_crcs);
                if (footer.blocks, footer.payload, footer.lsn, footer.crc_of_crcs) != found {
                    return Err(self.corrupt("the end does not fit the blocks before it"));
                }
                if bytes.len() > BLOCK_BYTES {
                    self.offset += BLOCK_BYTES as u64;
                    return Err(self.corrupt("bytes behind the end"));
                }
                Ok(None)
            }
            Err(what) => Err(self.corrupt(what)),
        }
    }
}
