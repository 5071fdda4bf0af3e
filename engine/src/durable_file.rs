//! Replacing a small file so that a power cut leaves either the old content or the new, never a part.
//!
//! For the few files outside the data path (identities, epochs): blocking, on the standard library.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::OFlags;

const SUFFIX: &str = ".new";

/// Opens a regular file: never through a symbolic link, which may lead anywhere, and without waiting for the other
/// end of a pipe.
///
/// # Errors
/// As the system says; [`io::ErrorKind::InvalidInput`] for what is no regular file.
pub fn open_plain(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = options.custom_flags(flags.bits().cast_signed()).open(path)?;
    if file.metadata()?.is_file() {
        return Ok(file);
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"))
}

/// Reads a small text, at most so many bytes of it.
///
/// # Errors
/// As [`open_plain`]; [`io::ErrorKind::InvalidData`] for what is no text.
pub fn read_text(path: &Path, bytes_max: u64) -> io::Result<String> {
    let mut text = String::new();
    open_plain(OpenOptions::new().read(true), path)?.take(bytes_max).read_to_string(&mut text)?;
    Ok(text)
}

/// Replaces `path`: temporary beside it, synced, renamed, directory synced. Durable when it returns.
///
/// # Errors
/// As the system says; the old content is then still there, unless the last step, the directory's sync, failed.
pub fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not the path of a file"));
    };
    let mut temporary = name.to_owned();
    temporary.push(SUFFIX);
    let temporary = dir.join(temporary);
    // A leftover, or not ours at all: what a link there leads to must not be written to.
    match fs::remove_file(&temporary) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let mut file = OpenOptions::new().write(true).create_new(true).open(&temporary)?;
    file.write_all(content)?;
    file.sync_all()?;
    drop(file);
    fs::rename(&temporary, path)?;
    sync_dir(if dir.as_os_str().is_empty() { Path::new(".") } else { dir })
}

/// As [`replace`]; where there is no place for a new file, writes over the one that is there, which needs no room on
/// the disk. For a few bytes: they lie in the file's one block, mostly in one sector, and whoever reads them checks a
/// checksum all the same.
///
/// # Errors
/// As the system says; which content is there is unknown when it was the overwriting that failed.
pub fn replace_or_overwrite(path: &Path, content: &[u8]) -> io::Result<()> {
    match replace(path, content) {
        Err(error) if has_no_place(&error) => overwrite(path, content),
        replaced => replaced,
    }
}

/// Whether there was only no place for a new file: the disk is full, which is an ordinary state, or a directory of
/// somebody else stands where the file would go.
fn has_no_place(error: &io::Error) -> bool {
    use io::ErrorKind::{IsADirectory, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | IsADirectory)
}

fn overwrite(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = open_plain(OpenOptions::new().write(true), path)?;
    file.write_all(content)?;
    file.set_len(content.len() as u64)?;
    file.sync_all()
}

/// Makes the entries of a directory durable.
///
/// # Errors
/// As the system says.
pub fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Whether a file of this name is what an interrupted [`replace`] leaves behind.
#[must_use]
pub fn is_temporary(name: &OsStr) -> bool {
    name.to_str().is_some_and(|n| n.ends_with(SUFFIX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_full_disk_or_a_taken_place_is_written_over() {
        use rustix::io::Errno;
        for (errno, over) in [
            (Errno::NOSPC, true),
            (Errno::DQUOT, true),
            (Errno::ISDIR, true),
            (Errno::IO, false),
            (Errno::ACCESS, false),
            (Errno::ROFS, false),
        ] {
            let error = io::Error::from_raw_os_error(errno.raw_os_error());
            assert_eq!(has_no_place(&error), over, "{error}");
        }
    }
}
