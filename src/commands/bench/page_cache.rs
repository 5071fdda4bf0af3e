//! The page cache of an embedded cluster's chunks: filled, or emptied.

use std::fs::File;
use std::io;
use std::path::Path;

use rustix::fs::{Advice, fadvise};

/// Reads all chunks below the folder of a cluster once, whichever replica will be asked.
pub(super) fn fill(folder: &Path) -> io::Result<()> {
    each_chunk(folder, &mut |file| io::copy(&mut &*file, &mut io::sink()).map(drop))
}

/// Has the kernel forget the pages of all chunks. They are synced: none is kept for being dirty.
pub(super) fn forget(folder: &Path) -> io::Result<()> {
    each_chunk(folder, &mut |file| Ok(fadvise(file, 0, None, Advice::DontNeed)?))
}

/// Every file below a `chunks` folder. One that goes meanwhile is passed over.
fn each_chunk(folder: &Path, work: &mut dyn FnMut(&File) -> io::Result<()>) -> io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            each_chunk(&path, work)?;
        } else if path.components().any(|part| part.as_os_str() == "chunks") {
            match File::open(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                file => work(&file?)?,
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_chunks_are_looked_at() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["datanode-1/chunks/ab", "datanode-1/tmp", "master/wal"] {
            let path = folder.path().join(name);
            std::fs::create_dir_all(&path).unwrap();
            std::fs::write(path.join("file"), name).unwrap();
        }
        let mut seen = 0;
        each_chunk(folder.path(), &mut |file| {
            seen += file.metadata()?.len();
            Ok(())
        })
        .unwrap();
        assert_eq!(seen, "datanode-1/chunks/ab".len() as u64);
        fill(folder.path()).unwrap();
        forget(folder.path()).unwrap();
    }
}
