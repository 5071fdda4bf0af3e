//! Reading a committed chunk, by whole blocks.

use std::ops::Range;
use std::path::Path;

use distrifs_proto::limits::{BLOCK_BYTES, CHUNK_BYTES_MAX};
use distrifs_proto::types::{ChunkId, ClusterId, Crc32c, block_crcs};

use super::{Sidecar, SidecarHeader, StoreError, layout};
use crate::io::{Buf, File, Io, Open, Window};

/// An open chunk: its data file and its sidecar, which was checked.
pub struct ChunkReader {
    sidecar: Sidecar,
    data: File,
}

impl ChunkReader {
    pub(super) async fn open(
        io: &Io,
        root: &Path,
        cluster: ClusterId,
        chunk: ChunkId,
    ) -> Result<Self, StoreError> {
        Self::open_as(io, root, cluster, chunk, Open::READ).await
    }

    pub(super) async fn open_as(
        io: &Io,
        root: &Path,
        cluster: ClusterId,
        chunk: ChunkId,
        how: Open,
    ) -> Result<Self, StoreError> {
        let data_path = layout::data_path(root, chunk);
        let data = match io.open(&data_path, how).await {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(StoreError::NoSuchChunk { chunk });
            }
            Err(error) => return Err(StoreError::io("open", &data_path, error)),
        };
        let sidecar = match read_sidecar(io, root, cluster, chunk).await {
            Ok(sidecar) => sidecar,
            // Removed meanwhile, the data first?
            Err(error) => match io.open(&data_path, Open::READ).await {
                Err(gone) if gone.kind() == std::io::ErrorKind::NotFound => {
                    return Err(StoreError::NoSuchChunk { chunk });
                }
                _ => return Err(error),
            },
        };
        let found = data.len().await.map_err(|e| StoreError::io("stat", &data_path, e))?;
        let expected = sidecar.header().length;
        if found != expected {
            let what = format!("the data file has {found} bytes, its sidecar says {expected}");
            return Err(StoreError::Corrupt { chunk, what });
        }
        Ok(Self { sidecar, data })
    }

    /// What the sidecar says of it.
    #[must_use]
    pub fn header(&self) -> &SidecarHeader {
        self.sidecar.header()
    }

    /// The whole blocks that cover `length` bytes at `offset`, as a range of bytes of the chunk: cut at its end,
    /// empty when the offset lies behind it.
    #[must_use]
    pub fn covering(&self, offset: u64, length: u64) -> Range<u64> {
        let (block, end) = (BLOCK_BYTES as u64, self.header().length);
        let from = offset.min(end) / block * block;
        let to = offset.saturating_add(length).min(end);
        if offset >= to {
            return offset.min(end)..offset.min(end);
        }
        from..to.next_multiple_of(block).min(end)
    }

    /// The stored checksums of the blocks of `bytes`, a range from [`covering`](Self::covering) or a part of it
    /// that begins at a block.
    #[must_use]
    pub fn crcs(&self, bytes: &Range<u64>) -> &[Crc32c] {
        let block = BLOCK_BYTES as u64;
        &self.sidecar.blocks()[(bytes.start / block) as usize..bytes.end.div_ceil(block) as usize]
    }

    /// Reads `bytes` into the buffer at `at`. **Unchecked**: send them with [`crcs`](Self::crcs), so that the
    /// receiver checks them end to end, or check them with [`verify`](Self::verify).
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] when the file ends too early, [`StoreError::Io`].
    pub async fn read(&self, buffer: Buf, at: usize, bytes: &Range<u64>) -> (Result<(), StoreError>, Buf) {
        let length = (bytes.end - bytes.start) as usize;
        // From the device only whole blocks come; the file ends within the last one.
        let asked = if self.data.is_direct() { length.next_multiple_of(BLOCK_BYTES) } else { length };
        let (read, buffer) = self.data.read_at(buffer, at..at + asked, bytes.start).await;
        let outcome = match read {
            Ok(n) if n >= length => Ok(()),
            Ok(n) => {
                let chunk = self.header().chunk;
                let what = format!("the data file ends at {}", bytes.start + n as u64);
                Err(StoreError::Corrupt { chunk, what })
            }
            Err(error) => Err(self.read_error(error)),
        };
        (outcome, buffer)
    }

    /// Whether the page cache has all of `bytes`; `true` where that cannot be told.
    #[must_use]
    pub fn is_cached(&self, bytes: &Range<u64>) -> bool {
        self.data.is_cached(bytes)
    }

    /// As [`read`](Self::read), but at once, from the page cache; `None` where that would have to wait, or cannot be
    /// done.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn try_read(&self, buffer: &mut [u8], bytes: &Range<u64>) -> Option<Result<(), StoreError>> {
        let read = self.data.try_read_at(buffer, bytes.start)?;
        Some(read.map_err(|error| self.read_error(error)))
    }

    /// `bytes` behind room for a head, to be sent from the page cache without reading them; `None` where that cannot be
    /// done at once. **Unchecked**, as what [`read`](Self::read) brings: send them with [`crcs`](Self::crcs).
    #[must_use]
    pub fn window(&self, head: usize, bytes: &Range<u64>) -> Option<Window> {
        self.data.window(head, bytes)
    }

    fn read_error(&self, error: std::io::Error) -> StoreError {
        StoreError::Io { what: "read", path: self.header().chunk.to_string().into(), source: error }
    }

    /// Checks what [`read`](Self::read) brought.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] for the first block that is not what was committed.
    pub fn verify(&self, content: &[u8], bytes: &Range<u64>) -> Result<(), StoreError> {
        let first = bytes.start / BLOCK_BYTES as u64;
        for (i, (got, &expected)) in block_crcs(content).zip(self.crcs(bytes)).enumerate() {
            if got != expected {
                let what = format!("block {}: expected checksum {expected}, got {got}", first + i as u64);
                return Err(StoreError::Corrupt { chunk: self.header().chunk, what });
            }
        }
        Ok(())
    }
}

async fn read_sidecar(
    io: &Io,
    root: &Path,
    cluster: ClusterId,
    chunk: ChunkId,
) -> Result<Sidecar, StoreError> {
    let path = layout::meta_path(root, chunk);
    let corrupt = |what: String| StoreError::Corrupt { chunk, what };
    let file = match io.open(&path, Open::READ).await {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(corrupt("its sidecar is missing".into()));
        }
        Err(error) => return Err(StoreError::io("open", &path, error)),
    };
    let length = file.len().await.map_err(|e| StoreError::io("stat", &path, e))?;
    if length > Sidecar::encoded_bytes(CHUNK_BYTES_MAX) as u64 {
        return Err(corrupt(format!("a sidecar of {length} bytes")));
    }
    let length = length as usize;
    let (read, buffer) = file.read_at(Buf::alloc(length.max(1)), 0..length, 0).await;
    let read = read.map_err(|e| StoreError::io("read", &path, e))?;
    let sidecar = Sidecar::decode(&buffer[..read]).map_err(corrupt)?;
    check_place(sidecar.header(), cluster, chunk)?;
    Ok(sidecar)
}

/// A well-formed chunk in the wrong place fails (R20).
pub(super) fn check_place(
    header: &SidecarHeader,
    cluster: ClusterId,
    chunk: ChunkId,
) -> Result<(), StoreError> {
    if header.chunk != chunk {
        let what = format!("its sidecar is that of chunk {}", header.chunk);
        return Err(StoreError::Corrupt { chunk, what });
    }
    if header.cluster != cluster {
        let what = format!("it belongs to cluster {}", header.cluster);
        return Err(StoreError::Corrupt { chunk, what });
    }
    Ok(())
}
