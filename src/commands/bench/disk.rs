//! The raw disk: 1 MiB at a time past the page cache, into a preallocated file that is synced at the end, and back.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use distrifs_engine::io::Buf;

const PIECE: usize = 1 << 20;
/// More would tell the same.
const BYTES_MAX: u64 = 1 << 30;

/// What the disk did.
pub(super) struct RawDisk {
    /// Bytes of each way.
    pub(super) bytes: u64,
    /// Written and synced within.
    pub(super) write_seconds: f64,
    /// Read within.
    pub(super) read_seconds: f64,
}

/// Measures the file system of `folder` with up to `bytes`.
pub(super) fn measure(folder: &Path, bytes: u64, stop: &AtomicBool) -> io::Result<RawDisk> {
    let path = folder.join("bench-disk");
    let file = open(&path);
    // It has no name from now on: nothing is left, however this ends.
    let removed = std::fs::remove_file(&path);
    let (file, pieces) = (file?, bytes.clamp(1, BYTES_MAX).div_ceil(PIECE as u64));
    removed?;
    let mut piece = Buf::alloc(PIECE);
    piece.fill(0x5a);
    rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, pieces * PIECE as u64)?;
    let write_seconds = timed(|| {
        each(pieces, stop, |at| file.write_all_at(&piece, at))?;
        file.sync_data()
    })?;
    let read_seconds = timed(|| each(pieces, stop, |at| file.read_exact_at(&mut piece, at)))?;
    Ok(RawDisk { bytes: pieces * PIECE as u64, write_seconds, read_seconds })
}

fn open(path: &Path) -> io::Result<File> {
    let open = |flags| {
        File::options().read(true).write(true).create(true).truncate(true).custom_flags(flags).open(path)
    };
    // Memory file systems know no O_DIRECT.
    open(rustix::fs::OFlags::DIRECT.bits() as i32).or_else(|_| open(0))
}

fn timed(work: impl FnOnce() -> io::Result<()>) -> io::Result<f64> {
    let began = Instant::now();
    work()?;
    Ok(began.elapsed().as_secs_f64())
}

fn each(pieces: u64, stop: &AtomicBool, mut work: impl FnMut(u64) -> io::Result<()>) -> io::Result<()> {
    for piece in 0..pieces {
        if stop.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        work(piece * PIECE as u64)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_pieces_go_both_ways_and_nothing_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let measured = measure(folder.path(), PIECE as u64 + 1, &AtomicBool::new(false)).unwrap();
        assert_eq!(measured.bytes, 2 * PIECE as u64);
        assert!(measure(folder.path(), 1, &AtomicBool::new(true)).is_err());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
