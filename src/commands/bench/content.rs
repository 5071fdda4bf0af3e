//! The bytes that are put, and the check of what comes back.

use std::fs::File;
use std::io::{self, Seek, Write};
use std::os::unix::fs::FileExt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use distrifs_client::{GetTarget, PutSource};
use distrifs_proto::SplitMix;
use rustix::fs::{MemfdFlags, memfd_create};
use tokio::io::AsyncWrite;

use crate::error::CommandError;

/// How much is made or compared at once.
const PIECE_BYTES: usize = 1 << 20;
/// Bytes that one number of the sequence gives.
const WORD_BYTES: u64 = 8;

/// Pseudo-random bytes of a seed in a file that is memory alone: no disk is read while a put is measured.
#[derive(Debug)]
pub(super) struct Content {
    file: File,
    size: u64,
    seed: u64,
}

impl Content {
    /// `size` bytes of this seed.
    pub(super) fn new(size: u64, seed: u64) -> io::Result<Self> {
        let mut file: File = memfd_create("distrifs-bench", MemfdFlags::CLOEXEC)?.into();
        let (mut random, mut left) = (SplitMix::new(seed), size);
        let mut piece = vec![0; PIECE_BYTES];
        while left > 0 {
            for word in piece.chunks_exact_mut(8) {
                word.copy_from_slice(&random.next().to_le_bytes());
            }
            let now = left.min(PIECE_BYTES as u64);
            file.write_all(&piece[..now as usize])?;
            left -= now;
        }
        Ok(Self { file, size, seed })
    }

    /// The bytes, as a file.
    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// How many.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Whether these are its bytes at `from`. They are made once more: to read them from the file would cost as much as
    /// to read them from the cluster.
    pub(super) fn has(&self, bytes: &[u8], from: u64) -> bool {
        if from.checked_add(bytes.len() as u64).is_none_or(|end| end > self.size) {
            return false;
        }
        let mut random = SplitMix::new(self.seed);
        random.skip(from / WORD_BYTES);
        let (first, rest) =
            bytes.split_at(bytes.len().min(((WORD_BYTES - from % WORD_BYTES) % WORD_BYTES) as usize));
        if !first.is_empty() {
            let at = (from % WORD_BYTES) as usize;
            if random.next().to_le_bytes()[at..at + first.len()] != *first {
                return false;
            }
        }
        let (words, last) = rest.as_chunks::<8>();
        words.iter().all(|word| random.next().to_le_bytes() == *word)
            && (last.is_empty() || random.next().to_le_bytes()[..last.len()] == *last)
    }

    /// Writes all of them.
    pub(super) fn copy_to(&self, file: &mut File) -> io::Result<()> {
        let mut own = self.file.try_clone()?;
        own.rewind()?;
        io::copy(&mut own, file).map(drop)
    }

    /// For a put of all of it.
    pub(super) fn source(&self) -> Result<PutSource, CommandError> {
        let file = self.file.try_clone().map_err(|e| CommandError::Check(format!("the source: {e}")))?;
        Ok(PutSource::File(file, self.size))
    }
}

/// Whether what a get brought is what was put.
pub(super) struct Comparison {
    seen: Arc<AtomicU64>,
    size: u64,
}

impl Comparison {
    /// For all of it; the target compares what it is given and keeps none of it.
    pub(super) fn new(content: &Arc<Content>) -> (Self, GetTarget) {
        let seen = Arc::new(AtomicU64::new(0));
        let target = Comparing { content: content.clone(), at: 0, seen: seen.clone(), piece: Vec::new() };
        (Self { seen, size: content.size }, GetTarget::Stream(Box::new(target)))
    }

    /// To be asked when the get has succeeded: a difference has failed it already, but not a lack.
    pub(super) fn finish(&self, path: &str) -> Result<(), CommandError> {
        let (seen, size) = (self.seen.load(Ordering::Relaxed), self.size);
        if seen == size {
            return Ok(());
        }
        Err(CommandError::Check(format!("{path}: {seen} bytes of {size} came back")))
    }
}

struct Comparing {
    content: Arc<Content>,
    at: u64,
    seen: Arc<AtomicU64>,
    piece: Vec<u8>,
}

impl Comparing {
    fn compare(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.piece.resize(bytes.len(), 0);
        // Behind its end there is nothing to compare with: that is a difference as well.
        self.content.file.read_exact_at(&mut self.piece, self.at)?;
        if let Some(at) = self.piece.iter().zip(bytes).position(|(put, got)| put != got) {
            let at = self.at + at as u64;
            return Err(io::Error::other(format!("it differs from what was put at byte {at}")));
        }
        self.at += bytes.len() as u64;
        self.seen.store(self.at, Ordering::Relaxed);
        Ok(())
    }
}

impl AsyncWrite for Comparing {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let now = bytes.len().min(PIECE_BYTES);
        Poll::Ready(self.compare(&bytes[..now]).map(|()| now))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    #[tokio::test]
    async fn what_came_back_is_compared_byte_by_byte() {
        let size = PIECE_BYTES as u64 + 10;
        let content = Arc::new(Content::new(size, 7).unwrap());
        let mut all = vec![0; size as usize];
        content.file().read_exact_at(&mut all, 0).unwrap();
        assert_eq!(Content::new(size, 7).unwrap().file().metadata().unwrap().len(), size);
        let compare = |bytes: Vec<u8>| {
            let content = content.clone();
            async move {
                let (comparison, target) = Comparison::new(&content);
                let GetTarget::Stream(mut stream) = target else { panic!("a stream") };
                stream.write_all(&bytes).await.map_err(|e| e.to_string())?;
                comparison.finish("/a").map_err(|e| e.to_string())
            }
        };
        assert!(content.has(&all, 0) && content.has(&all[5..9], 5) && !content.has(&all[5..9], 4));
        assert!(!content.has(&all, 1), "behind its end there is nothing");
        for (from, length) in
            [(0, 1), (3, 2), (3, 9), (8, 8), (13, 4096), (4095, 4100), (size as usize - 11, 11)]
        {
            let mut range = all[from..from + length].to_vec();
            assert!(content.has(&range, from as u64), "{length} at {from}");
            for at in [0, length / 2, length - 1] {
                range[at] ^= 0x10;
                assert!(!content.has(&range, from as u64), "{length} at {from}, of which {at} differs");
                range[at] ^= 0x10;
            }
        }
        assert_eq!(compare(all.clone()).await, Ok(()));
        assert!(compare(all[..3].to_vec()).await.unwrap_err().contains("3 bytes of"));
        let mut wrong = all.clone();
        wrong[PIECE_BYTES + 3] ^= 1;
        assert!(compare(wrong).await.unwrap_err().contains(&format!("byte {}", PIECE_BYTES + 3)));
        all.push(0);
        assert!(compare(all).await.is_err());
    }
}
