//! Bytes that do not compress, the same in every run, and the comparison of two files.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use distrifs_proto::SplitMix;

/// How much is made or compared at once.
const PIECE_BYTES: usize = 1 << 20;

/// Writes `size` pseudo-random bytes.
pub(crate) fn write_random_file(path: &Path, size: u64) -> io::Result<()> {
    let mut file = File::create(path)?;
    let mut random = SplitMix::new(size);
    let mut piece = vec![0; PIECE_BYTES];
    let mut left = size;
    while left > 0 {
        for word in piece.chunks_exact_mut(8) {
            word.copy_from_slice(&random.next().to_le_bytes());
        }
        let now = usize::try_from(left).unwrap_or(PIECE_BYTES).min(PIECE_BYTES);
        file.write_all(&piece[..now])?;
        left -= now as u64;
    }
    Ok(())
}

/// Where two files differ first; the end of the shorter one where they do not.
pub(crate) fn first_difference(one: &Path, other: &Path) -> io::Result<Option<u64>> {
    let (mut one, mut other) = (File::open(one)?, File::open(other)?);
    let (mut left, mut right) = (vec![0; PIECE_BYTES], vec![0; PIECE_BYTES]);
    let mut offset = 0;
    loop {
        let (a, b) = (fill(&mut one, &mut left)?, fill(&mut other, &mut right)?);
        if left[..a] != right[..b] {
            let same = left[..a].iter().zip(&right[..b]).take_while(|(a, b)| a == b).count();
            return Ok(Some(offset + same as u64));
        }
        if a == 0 {
            return Ok(None);
        }
        offset += a as u64;
    }
}

fn fill(file: &mut File, piece: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < piece.len() {
        match file.read(&mut piece[filled..])? {
            0 => break,
            read => filled += read,
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_have_their_size_and_differences_are_found() {
        let folder = tempfile::tempdir().unwrap();
        let (one, other) = (folder.path().join("one"), folder.path().join("other"));
        for size in [0, 1, PIECE_BYTES as u64 + 3] {
            write_random_file(&one, size).unwrap();
            std::fs::copy(&one, &other).unwrap();
            assert_eq!(std::fs::metadata(&one).unwrap().len(), size);
            assert_eq!(first_difference(&one, &other).unwrap(), None);
        }
        let mut bytes = std::fs::read(&one).unwrap();
        bytes[PIECE_BYTES + 1] ^= 1;
        std::fs::write(&other, &bytes).unwrap();
        assert_eq!(first_difference(&one, &other).unwrap(), Some(PIECE_BYTES as u64 + 1));
        std::fs::write(&other, &bytes[..10]).unwrap();
        assert_eq!(first_difference(&one, &other).unwrap(), Some(10));
    }
}
