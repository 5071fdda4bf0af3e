//! Writing a checkpoint: under a temporary name, synced, renamed, the folder synced, read back.

use distrifs_proto::limits::BLOCK_BYTES;
use distrifs_proto::types::{Crc32c, Lsn};

use super::error::{CheckpointError, failed};
use super::format::{
    BLOCK_HEADER_BYTES, BLOCK_UNIT_BYTES, Footer, Header, PAYLOAD_BYTES_MAX, TEMPORARY_SUFFIX,
    checkpoint_name, encode_block, encode_footer, encode_header, unit,
};
use super::reader::CheckpointReader;
use crate::folder::{AlignedBuf, Folder};

/// A checkpoint that is being written. Dropping it before [`CheckpointWriter::finish`] leaves nothing behind.
#[derive(Debug)]
pub struct CheckpointWriter {
    folder: Folder,
    header: Header,
    temporary: String,
    block: AlignedBuf,
    /// Bytes of payload in `block`.
    filled: usize,
    offset: u64,
    blocks: u64,
    payload: u64,
    crcs: Vec<u8>,
    crc_of_crcs: Crc32c,
    finished: bool,
}

/// A checkpoint that is durable and was verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// The position of the log that it shows.
    pub lsn: Lsn,
    /// The length of its file.
    pub bytes: u64,
}

impl CheckpointWriter {
    pub(super) fn begin(folder: Folder, header: Header) -> Result<Self, CheckpointError> {
        let digits = checkpoint_name(header.lsn);
        let temporary = format!("{}{TEMPORARY_SUFFIX}", digits.trim_end_matches(".ckpt"));
        folder.create(&temporary, &[]).map_err(failed(&folder, &temporary, "create"))?;
        let mut writer = Self {
            folder,
            header,
            temporary,
            block: AlignedBuf::zeroed(BLOCK_UNIT_BYTES),
            filled: 0,
            offset: 0,
            blocks: 0,
            payload: 0,
            crcs: Vec::new(),
            crc_of_crcs: Crc32c::default(),
            finished: false,
        };
        let mut block = AlignedBuf::zeroed(BLOCK_BYTES);
        encode_header(&header, &mut block);
        writer.put(&block)?;
        Ok(writer)
    }

    /// Appends to the image.
    ///
    /// # Errors
    /// [`CheckpointError::Io`]: drop it and begin anew.
    pub fn write(&mut self, mut bytes: &[u8]) -> Result<(), CheckpointError> {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(PAYLOAD_BYTES_MAX - self.filled));
            let at = BLOCK_HEADER_BYTES + self.filled;
            self.block[at..at + now.len()].copy_from_slice(now);
            self.filled += now.len();
            bytes = later;
            if self.filled == PAYLOAD_BYTES_MAX {
                self.flush()?;
            }
        }
        Ok(())
    }

    /// Makes the checkpoint durable under its name, then reads it back from the disk.
    ///
    /// # Errors
    /// See [`CheckpointError`]; whatever covers less of the log must stay.
    pub fn finish(mut self) -> Result<Written, CheckpointError> {
        if self.filled > 0 {
            self.flush()?;
        }
        let mut block = AlignedBuf::zeroed(BLOCK_BYTES);
        let footer = Footer {
            blocks: self.blocks,
            payload: self.payload,
            lsn: self.header.lsn,
            crc_of_crcs: self.crc_of_crcs,
        };
        encode_footer(&footer, &mut block);
        self.put(&block)?;
        let name = checkpoint_name(self.header.lsn);
        let (folder, temporary) = (&self.folder, &self.temporary);
        folder.sync(temporary).map_err(failed(folder, temporary, "sync"))?;
        folder.rename(temporary, &name).map_err(failed(folder, temporary, "rename"))?;
        self.finished = true;
        let folder = &self.folder;
        folder.sync_folder().map_err(failed(folder, &name, "sync the folder of"))?;
        let mut reader = CheckpointReader::begin(folder, &name, Some(self.header.cluster))?;
        while reader.next_block()?.is_some() {}
        Ok(Written { lsn: self.header.lsn, bytes: self.offset })
    }

    fn flush(&mut self) -> Result<(), CheckpointError> {
        let end = unit(self.filled);
        self.block[BLOCK_HEADER_BYTES + self.filled..end].fill(0);
        let crc = encode_block(self.blocks, self.filled, &mut self.block[..end]);
        self.crcs.clear();
        self.crcs.extend_from_slice(&crc.0.to_le_bytes());
        self.crc_of_crcs = self.crc_of_crcs.concat(Crc32c::of(&self.crcs), self.crcs.len() as u64);
        self.blocks += 1;
        self.payload += self.filled as u64;
        self.filled = 0;
        let mut block = std::mem::replace(&mut self.block, AlignedBuf::zeroed(0));
        block.truncate(end);
        let result = self.put(&block);
        self.block = if end == BLOCK_UNIT_BYTES { block } else { AlignedBuf::zeroed(BLOCK_UNIT_BYTES) };
        result
    }

    fn put(&mut self, bytes: &AlignedBuf) -> Result<(), CheckpointError> {
        let written = self.folder.write(&self.temporary, bytes, self.offset);
        written.map_err(failed(&self.folder, &self.temporary, "write"))?;
        self.offset += bytes.len() as u64;
        Ok(())
    }
}

impl Drop for CheckpointWriter {
    fn drop(&mut self) {
        if !self.finished {
            // A full disk gets its space back. What stays is removed by the next `retain`.
            let _ = self.folder.remove(&self.temporary);
        }
    }
}
