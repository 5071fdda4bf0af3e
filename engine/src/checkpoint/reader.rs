//! Reading a checkpoint from its start to its end, with every byte checked.

use std::path::Path;

use distrifs_proto::limits::BLOCK_BYTES;
use distrifs_proto::types::{ClusterId, Crc32c};

use super::error::{CheckpointError, Damage};
use super::format::{
    BLOCK_HEADER_BYTES, BadHeader, CheckpointHeader, EDGE_BYTES, PIECE_BYTES, Sums, VERSION, name_lsn,
    open_block,
};
use crate::folder::{AlignedBuf, Folder, LongFile, RealFolder};

/// An open checkpoint. Nothing that it gave is to be believed before [`Self::next_block`] has said `None`.
pub struct CheckpointReader {
    folder: Folder,
    name: String,
    file: LongFile,
    header: CheckpointHeader,
    seal: Crc32c,
    bytes: u64,
    /// Where the next block is, or the footer.
    at: u64,
    sums: Sums,
    ended: bool,
    buf: AlignedBuf,
}

impl CheckpointReader {
    /// Opens the file and checks its header, and that it is `expected_cluster`'s when that is given.
    ///
    /// # Errors
    /// [`CheckpointError`].
    pub fn open(path: &Path, expected_cluster: Option<ClusterId>) -> Result<Self, CheckpointError> {
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let name = path.file_name().and_then(|name| name.to_str()).ok_or_else(|| CheckpointError::Io {
            path: path.to_owned(),
            doing: "open",
            source: std::io::Error::new(std::io::ErrorKind::InvalidInput, "not the path of a file"),
        })?;
        Self::open_in(&Folder::Real(RealFolder::new(parent.to_owned())), name, expected_cluster)
    }

    pub(super) fn open_in(
        folder: &Folder,
        name: &str,
        expected_cluster: Option<ClusterId>,
    ) -> Result<Self, CheckpointError> {
        let io = |doing| move |source| CheckpointError::Io { path: folder.file(name), doing, source };
        let corrupt = |offset, what| CheckpointError::Corrupt { file: folder.file(name), offset, what };
        let file = folder.open_long(name).map_err(io("open"))?;
        let bytes = file.len().map_err(io("read"))?;
        let mut buf = AlignedBuf::zeroed(PIECE_BYTES);
        let found = file.read_at(&mut buf, EDGE_BYTES, 0).map_err(io("read"))?;
        if found != EDGE_BYTES {
            return Err(corrupt(found as u64, Damage::Length { found: bytes }));
        }
        let (header, seal) = match CheckpointHeader::decode(&buf[..EDGE_BYTES]) {
            Ok(found) => found,
            Err(BadHeader::Damaged) => return Err(corrupt(0, Damage::Header)),
            Err(BadHeader::Version(found)) => {
                return Err(CheckpointError::NewerVersion { file: folder.file(name), found, known: VERSION });
            }
        };
        if let Some(expected) = expected_cluster
            && expected != header.cluster
        {
            let found = header.cluster;
            return Err(CheckpointError::WrongCluster { file: folder.file(name), expected, found });
        }
        if name_lsn(name).is_some_and(|lsn| lsn != header.lsn) {
            return Err(corrupt(32, Damage::Name { found: header.lsn }));
        }
        if bytes < 2 * EDGE_BYTES as u64 || !bytes.is_multiple_of(BLOCK_BYTES as u64) {
            return Err(corrupt(bytes, Damage::Length { found: bytes }));
        }
        Ok(Self {
            folder: folder.clone(),
            name: name.to_owned(),
            file,
            header,
            seal,
            bytes,
            at: EDGE_BYTES as u64,
            sums: Sums::default(),
            ended: false,
            buf,
        })
    }

    /// What it says about itself.
    #[must_use]
    pub fn header(&self) -> CheckpointHeader {
        self.header
    }

    /// The length of the file.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// How many blocks were read so far, and how many bytes of payload.
    #[must_use]
    pub fn read_so_far(&self) -> (u64, u64) {
        (self.sums.blocks, self.sums.payload)
    }

    /// The payload of the next block, at most [`BLOCK_PAYLOAD_MAX`](super::BLOCK_PAYLOAD_MAX) bytes and never none;
    /// `None` after the last one, when the footer has confirmed that it was the last.
    ///
    /// # Errors
    /// [`CheckpointError::Corrupt`] and [`CheckpointError::Io`]; drop what was built from the blocks before.
    pub fn next_block(&mut self) -> Result<Option<&[u8]>, CheckpointError> {
        if self.ended {
            return Ok(None);
        }
        let footer_at = self.bytes - EDGE_BYTES as u64;
        let len = (footer_at - self.at).min(PIECE_BYTES as u64) as usize;
        if len == 0 {
            self.read(EDGE_BYTES)?;
            let sums = Sums::decode(self.seal, &self.buf[..EDGE_BYTES]);
            let sums = sums.ok_or_else(|| self.corrupt(Damage::Footer))?;
            if sums != self.sums {
                return Err(self.corrupt(Damage::Sum));
            }
            self.ended = true;
            return Ok(None);
        }
        self.read(len)?;
        let number = self.sums.blocks;
        let block = open_block(&self.buf[..len], self.seal);
        let block = block.ok_or_else(|| self.corrupt(Damage::Block { number }))?;
        if block.number != number {
            return Err(self.corrupt(Damage::Order { expected: number, found: block.number }));
        }
        self.sums.add(block.payload, block.crc);
        self.at += len as u64;
        Ok(Some(&self.buf[BLOCK_HEADER_BYTES..BLOCK_HEADER_BYTES + block.payload]))
    }

    /// Reads all that is left, for the sake of the checks alone.
    ///
    /// # Errors
    /// As [`Self::next_block`].
    pub fn verify(&mut self) -> Result<(), CheckpointError> {
        while self.next_block()?.is_some() {}
        Ok(())
    }

    /// Whether exactly these blocks were read.
    pub(super) fn sums_are(&self, sums: &Sums) -> bool {
        self.sums == *sums
    }

    fn read(&mut self, len: usize) -> Result<(), CheckpointError> {
        let found = self.file.read_at(&mut self.buf, len, self.at).map_err(|source| CheckpointError::Io {
            path: self.folder.file(&self.name),
            doing: "read",
            source,
        })?;
        if found != len {
            // It was as long when it was opened.
            return Err(self.corrupt(Damage::Length { found: self.at + found as u64 }));
        }
        Ok(())
    }

    fn corrupt(&self, what: Damage) -> CheckpointError {
        CheckpointError::Corrupt { file: self.folder.file(&self.name), offset: self.at, what }
    }
}
