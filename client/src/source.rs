//! The bytes of one chunk, frame by frame, as often as they are needed.
//!
//! Frames of a file are read and given their checksums beside the sending of the frame before. Those of a stream
//! were read once and stay in memory until the chunk is committed.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use distrifs_proto::frame::{Header, Op, Placement, block_crc, seal};
use distrifs_proto::limits::FRAME_PAYLOAD_BYTES_MAX;
use distrifs_proto::types::Crc32c;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::OwnedSemaphorePermit;

use crate::buffer::{Buffers, FrameBuffer};
use crate::file_thread::{FileThread, ThreadEnded};

/// Frames up to this are read where they are needed; the way to another thread would cost more.
const INLINE_BYTES_MAX: usize = 64 << 10;

/// Why the source has no such bytes.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SourceError {
    #[error("it ends at {0} bytes now")]
    Shrunk(u64),
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Thread(#[from] ThreadEnded),
}

/// A part of a chunk in a buffer, its checksums in place; the header is the writer's.
#[derive(Debug)]
pub(crate) struct Frame {
    buffer: FrameBuffer,
    place: Placement,
    crc: Crc32c,
}

impl Frame {
    /// Around `len` bytes of payload that lie in `buffer`.
    fn new(mut buffer: FrameBuffer, len: usize) -> Self {
        let header = Header { length: len as u32, ..Header::new(Op::WriteData, 0) };
        seal(&mut buffer, &header);
        let place = Placement::of(len);
        let crcs = (0..place.table.len() / 4).map(|block| block_crc(&buffer, &place, block));
        let crc = Crc32c::of_blocks(crcs, len as u64);
        Self { buffer, place, crc }
    }

    /// Bytes of payload.
    pub(crate) fn len(&self) -> usize {
        self.place.payload.len()
    }

    /// The checksum of the payload.
    pub(crate) fn crc(&self) -> Crc32c {
        self.crc
    }

    /// Appends the whole frame, under this header.
    pub(crate) fn append_to(&self, out: &mut Vec<u8>, header: &Header) {
        out.extend(header.encode());
        out.extend(&self.buffer[self.place.body()]);
    }

    /// The whole frame, under this header.
    pub(crate) fn bytes(&mut self, header: &Header) -> &[u8] {
        self.buffer[self.place.header.clone()].copy_from_slice(&header.encode());
        &self.buffer[self.place.frame()]
    }
}

/// Reads a stream until `len` bytes are there or it ends.
pub(crate) async fn read_frame(
    stream: &mut (impl AsyncRead + Unpin),
    buffers: &Buffers,
    len: usize,
) -> io::Result<Option<Frame>> {
    let mut buffer = buffers.take();
    let payload = buffer.payload_mut(len);
    let mut filled = 0;
    while filled < len {
        match stream.read(&mut payload[filled..]).await? {
            0 => break,
            n => filled += n,
        }
    }
    Ok((filled > 0).then(|| Frame::new(buffer, filled)))
}

/// The bytes of one chunk.
#[derive(Debug)]
pub(crate) enum ChunkSource {
    /// A part of a file.
    File(FileChunk),
    /// All of it; never empty. Those of a stream go before the room that they take.
    Memory { frames: Vec<Frame>, _room: Option<OwnedSemaphorePermit> },
}

/// A part of a file, read at most one frame ahead.
#[derive(Debug)]
pub(crate) struct FileChunk {
    part: FilePart,
    current: Option<Frame>,
    thread: Option<FileThread<u64, Result<Frame, SourceError>>>,
    /// Where in the chunk the frame begins that the thread was given last.
    ahead: u64,
}

/// Which part of which file.
#[derive(Debug, Clone)]
struct FilePart {
    file: Arc<File>,
    start: u64,
    length: u64,
    buffers: Buffers,
}

impl ChunkSource {
    /// `length` bytes of the file from `start`; `length` is not 0.
    pub(crate) fn of_file(file: Arc<File>, start: u64, length: u64, buffers: Buffers) -> Self {
        let part = FilePart { file, start, length, buffers };
        Self::File(FileChunk { part, current: None, thread: None, ahead: 0 })
    }

    /// These bytes, no more than one frame takes, and not none.
    pub(crate) fn of_bytes(bytes: &[u8], buffers: &Buffers) -> Self {
        let mut buffer = buffers.take();
        buffer.payload_mut(bytes.len()).copy_from_slice(bytes);
        Self::Memory { frames: vec![Frame::new(buffer, bytes.len())], _room: None }
    }

    /// Bytes of the chunk.
    pub(crate) fn length(&self) -> u64 {
        match self {
            Self::File(chunk) => chunk.part.length,
            Self::Memory { frames, .. } => frames.iter().map(|frame| frame.len() as u64).sum(),
        }
    }

    /// The frame that begins at `offset`, a multiple of the frame size below the length.
    pub(crate) async fn frame(&mut self, offset: u64) -> Result<&mut Frame, SourceError> {
        match self {
            Self::File(chunk) => chunk.frame(offset).await,
            Self::Memory { frames, .. } => {
                Ok(&mut frames[(offset / FRAME_PAYLOAD_BYTES_MAX as u64) as usize])
            }
        }
    }
}

impl FileChunk {
    async fn frame(&mut self, offset: u64) -> Result<&mut Frame, SourceError> {
        // Back to the pool first, so that the read ahead takes it.
        self.current = None;
        let frame = if self.part.frame_bytes(offset) <= INLINE_BYTES_MAX && !self.is_ahead(offset) {
            self.part.read(offset)?
        } else {
            self.read_beside(offset).await?
        };
        let next = offset + frame.len() as u64;
        if next < self.part.length {
            self.read_ahead(next)?;
        }
        Ok(self.current.insert(frame))
    }

    /// Has the thread, which is idle, read the frame that begins at `offset`.
    fn read_ahead(&mut self, offset: u64) -> Result<(), SourceError> {
        self.ahead = offset;
        Ok(self.thread()?.give(offset)?)
    }

    fn is_ahead(&self, offset: u64) -> bool {
        self.ahead == offset && self.thread.as_ref().is_some_and(FileThread::is_busy)
    }

    /// What the thread reads, or has read; another frame than was wanted goes. Dropped, it can be called again.
    async fn read_beside(&mut self, offset: u64) -> Result<Frame, SourceError> {
        if !self.is_ahead(offset) {
            if let Some(thread) = self.thread.as_mut().filter(|thread| thread.is_busy()) {
                // Of a chunk that begins anew; whether it could be read is no matter.
                drop(thread.take().await?);
            }
            self.read_ahead(offset)?;
        }
        self.thread()?.take().await?
    }

    fn thread(&mut self) -> io::Result<&mut FileThread<u64, Result<Frame, SourceError>>> {
        match &mut self.thread {
            Some(thread) => Ok(thread),
            none => {
                let part = self.part.clone();
                Ok(none.insert(FileThread::start(move |offset| part.read(offset))?))
            }
        }
    }
}

impl FilePart {
    fn frame_bytes(&self, offset: u64) -> usize {
        (self.length - offset).min(FRAME_PAYLOAD_BYTES_MAX as u64) as usize
    }

    fn read(&self, offset: u64) -> Result<Frame, SourceError> {
        let (at, len) = (self.start + offset, self.frame_bytes(offset));
        let mut buffer = self.buffers.take();
        let payload = buffer.payload_mut(len);
        let mut filled = 0;
        while filled < len {
            match self.file.read_at(&mut payload[filled..], at + filled as u64) {
                Ok(0) => return Err(SourceError::Shrunk(at + filled as u64)),
                Ok(n) => filled += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Frame::new(buffer, len))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[tokio::test]
    async fn a_file_gives_the_same_frames_again_and_tells_when_it_shrank() {
        let bytes: Vec<u8> = (0..3_000_000u32).map(|i| ((i * 7) >> 3) as u8).collect();
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(&bytes).expect("room");
        let file = Arc::new(file);
        let mut source = ChunkSource::of_file(file.clone(), 100, 2_500_000, Buffers::default());
        for _ in 0..2 {
            let (mut offset, mut crc) = (0, Crc32c::default());
            while offset < source.length() {
                let frame = source.frame(offset).await.expect("bytes");
                crc = crc.concat(frame.crc(), frame.len() as u64);
                offset += frame.len() as u64;
            }
            assert_eq!(crc, Crc32c::of(&bytes[100..2_500_100]));
        }
        // Whoever asks and does not wait leaves a frame behind that is not the next one's.
        for offset in [1 << 20, 0, 2 << 20, 1 << 20, 0] {
            let mut asked = Box::pin(source.frame(offset));
            let waker = &mut std::task::Context::from_waker(std::task::Waker::noop());
            let _ = asked.as_mut().poll(waker);
        }
        let frame = source.frame(1 << 20).await.expect("bytes");
        assert_eq!(frame.crc(), Crc32c::of(&bytes[100 + (1 << 20)..100 + (2 << 20)]));
        file.set_len(1_500_000).expect("shrinks");
        source.frame(0).await.expect("is there");
        let outcome = source.frame(1 << 20).await.map(|frame| frame.len());
        assert!(matches!(outcome, Err(SourceError::Shrunk(1_500_000))), "{outcome:?}");
    }
}
