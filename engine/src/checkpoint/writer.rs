//! Writing a checkpoint, from the first byte to the file that is durable, checked and has its name.

use std::path::PathBuf;

use distrifs_proto::types::{Crc32c, Lsn};

use super::error::CheckpointError;
use super::format::{
    BLOCK_HEADER_BYTES, BLOCK_PAYLOAD_MAX, CheckpointHeader, EDGE_BYTES, PIECE_BYTES, Sums, block_bytes,
    checkpoint_name, seal_block, temporary_name,
};
use super::reader::CheckpointReader;
use crate::folder::{AlignedBuf, Folder, LongFile};

/// A checkpoint that is durable and was read back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Its LSN.
    pub lsn: Lsn,
    /// The file.
    pub path: PathBuf,
    /// The length of the file.
    pub bytes: u64,
    /// The blocks in it.
    pub blocks: u64,
    /// What was written into it, in bytes.
    pub payload: u64,
}

/// A checkpoint that is being written. Dropped before [`Self::finish`] it leaves nothing behind.
pub struct CheckpointWriter {
    folder: Folder,
    header: CheckpointHeader,
    temporary: String,
    file: LongFile,
    seal: Crc32c,
    /// The next block: room for its header, then what was written into it so far.
    buf: AlignedBuf,
    filled: usize,
    at: u64,
    sums: Sums,
    /// The file has its name: it is not to be removed.
    named: bool,
}

impl CheckpointWriter {
    pub(super) fn create(folder: &Folder, header: CheckpointHeader) -> Result<Self, CheckpointError> {
        let temporary = temporary_name(header.lsn, header.epoch);
        let created = folder.create_long(&temporary);
        let file = created.map_err(|source| {
            // A full disk may have left an empty one.
            let _ = folder.remove(&temporary);
            CheckpointError::Io { path: folder.file(&temporary), doing: "create", source }
        })?;
        let mut buf = AlignedBuf::zeroed(PIECE_BYTES);
        let seal = header.encode(&mut buf[..EDGE_BYTES]);
        let mut writer = Self {
            folder: folder.clone(),
            header,
            temporary,
            file,
            seal,
            buf,
            filled: 0,
            at: 0,
            sums: Sums::default(),
            named: false,
        };
        writer.put(EDGE_BYTES)?;
        Ok(writer)
    }

    /// Appends bytes, as many as wanted. They go to the disk a mebibyte at a time.
    ///
    /// # Errors
    /// [`CheckpointError::Io`]; then drop the writer.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), CheckpointError> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let (now, later) = rest.split_at(rest.len().min(BLOCK_PAYLOAD_MAX - self.filled));
            let from = BLOCK_HEADER_BYTES + self.filled;
            self.buf[from..from + now.len()].copy_from_slice(now);
            self.filled += now.len();
            rest = later;
            if self.filled == BLOCK_PAYLOAD_MAX {
                self.flush()?;
            }
        }
        Ok(())
    }

    /// Writes what is left, makes all durable, reads it back from the disk and checks every block, and only then gives
    /// the file its name, durably. A checkpoint of the same LSN is replaced.
    ///
    /// # Errors
    /// [`CheckpointError::Io`], or [`CheckpointError::Corrupt`] when what was read back is not what was written. One of
    /// kind `NotFound` says that a newer leader has removed what was written so far. There is then no such checkpoint, except that after a failed sync of the folder there may be one, which is whole.
    pub fn finish(mut self) -> Result<Written, CheckpointError> {
        if self.filled > 0 {
            self.flush()?;
        }
        self.sums.encode(self.seal, &mut self.buf[..EDGE_BYTES]);
        self.put(EDGE_BYTES)?;
        self.file.sync().map_err(|source| self.failed("sync", source))?;
        self.read_back()?;
        let name = checkpoint_name(self.header.lsn);
        self.folder.rename(&self.temporary, &name).map_err(|source| self.failed("rename", source))?;
        self.named = true;
        self.folder.sync_folder().map_err(|source| CheckpointError::Io {
            path: self.folder.path().to_owned(),
            doing: "sync the folder",
            source,
        })?;
        Ok(Written {
            lsn: self.header.lsn,
            path: self.folder.file(&name),
            bytes: self.at,
            blocks: self.sums.blocks,
            payload: self.sums.payload,
        })
    }

    /// What is on the disk is what was meant to be: header, every block, the sums.
    fn read_back(&self) -> Result<(), CheckpointError> {
        let mut reader = CheckpointReader::open_in(&self.folder, &self.temporary, Some(self.header.cluster))?;
        reader.verify()?;
        if reader.header() != self.header || !reader.sums_are(&self.sums) {
            // Somebody else wrote under the same name.
            let source = std::io::Error::other("another checkpoint was read back");
            return Err(self.failed("verify", source));
        }
        Ok(())
    }

    /// Writes the block that was filled so far.
    fn flush(&mut self) -> Result<(), CheckpointError> {
        let len = block_bytes(self.filled);
        let crc = seal_block(&mut self.buf[..len], self.filled, self.sums.blocks, self.seal);
        self.sums.add(self.filled, crc);
        self.filled = 0;
        self.put(len)
    }

    fn put(&mut self, len: usize) -> Result<(), CheckpointError> {
        self.file.write_at(&self.buf, len, self.at).map_err(|source| self.failed("write", source))?;
        self.at += len as u64;
        Ok(())
    }

    fn failed(&self, doing: &'static str, source: std::io::Error) -> CheckpointError {
        CheckpointError::Io { path: self.folder.file(&self.temporary), doing, source }
    }
}

impl Drop for CheckpointWriter {
    fn drop(&mut self) {
        if !self.named {
            // What stays is removed by the next `retain`.
            let _ = self.folder.remove(&self.temporary);
        }
    }
}
