//! The blocking system calls that the POSIX body makes on its threads and the ring body where the ring has
//! no operation for them.

use std::fs;
use std::io::{self, IoSliceMut, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, Mode, OFlags};
use rustix::io::{Errno, ReadWriteFlags};

use super::file::{DirEntry, Open, Space};
use super::file_system::is_relied_on;
use super::small_files::{FileBytes, PathError, is_gone};

/// The mode of new files.
pub(super) const FILE_MODE: u32 = 0o644;

/// The flags of [`Open`], save O_DIRECT, which [`opened`] adds.
pub(super) fn open_flags(how: Open) -> OFlags {
    let access = match (how.read, how.write) {
        (true, true) => OFlags::RDWR,
        (false, true) => OFlags::WRONLY,
        (_, false) => OFlags::RDONLY,
    };
    let creation = if how.create_new { OFlags::CREATE | OFlags::EXCL } else { OFlags::empty() };
    access | creation | OFlags::CLOEXEC | OPEN_PLAINLY
}

/// What `open` must neither follow nor wait for. [`opened`] takes the second back.
pub(super) const OPEN_PLAINLY: OFlags = OFlags::NOFOLLOW.union(OFlags::NONBLOCK);

/// Opens a file; also says whether it goes past the page cache.
pub(super) fn open(path: &Path, how: Open) -> io::Result<(fs::File, bool)> {
    let file = fs::File::from(rustix::fs::open(path, open_flags(how), Mode::from_raw_mode(FILE_MODE))?);
    let direct = opened(&file, how)?;
    Ok((file, direct))
}

/// Makes the reads and writes of an open file wait for the disk, and go past the page cache where that was asked for
/// and can be done; whether they do. O_DIRECT is not asked for in `open`: where that refuses it, the file may have
/// been created.
pub(super) fn opened(file: impl AsFd, how: Open) -> io::Result<bool> {
    let file = file.as_fd();
    if how.direct {
        match rustix::fs::fcntl_setfl(file, OFlags::DIRECT) {
            Ok(()) => return Ok(true),
            Err(Errno::INVAL) => {}
            Err(error) => return Err(error.into()),
        }
    }
    rustix::fs::fcntl_setfl(file, OFlags::empty())?;
    Ok(false)
}

/// Reads what the page cache has at `offset`, and waits for nothing.
pub(super) fn try_read(file: impl AsFd, buf: &mut [u8], offset: u64) -> io::Result<usize> {
    Ok(rustix::io::preadv2(file, &mut [IoSliceMut::new(buf)], offset, ReadWriteFlags::NOWAIT)?)
}

pub(super) fn fallocate(file: impl AsFd, len: u64) -> io::Result<()> {
    if len == 0 {
        return Ok(());
    }
    loop {
        match rustix::fs::fallocate(file.as_fd(), FallocateFlags::empty(), 0, len) {
            Ok(()) | Err(Errno::OPNOTSUPP) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

pub(super) fn create_files(files: &[FileBytes]) -> Result<(), PathError> {
    for at in 0..files.len() {
        if let Err((error, is_ours)) = create_file(&files[at]) {
            // The first goes last: its name keeps others out.
            for made in files[..at + usize::from(is_ours)].iter().rev() {
                is_gone(&made.path, fs::remove_file(&made.path));
            }
            return Err(error);
        }
    }
    Ok(())
}

/// With an error comes whether the file was made.
fn create_file(file: &FileBytes) -> Result<(), (PathError, bool)> {
    let (mut created, _) = open(&file.path, Open::CREATE).map_err(|error| (file.failed(error), false))?;
    if let Some(other) = &file.unless {
        let looked = fs::symlink_metadata(other).map(drop);
        file.beside(other, looked).map_err(|error| (error, true))?;
    }
    created.write_all(&file.bytes).map_err(|error| (file.failed(error), true))
}

pub(super) fn rename_all(renames: Vec<(PathBuf, PathBuf)>) -> Result<(), PathError> {
    for (from, path) in renames {
        fs::rename(from, &path).map_err(|source| PathError { path, source })?;
    }
    Ok(())
}

pub(super) fn fsync_dir(path: &Path) -> io::Result<()> {
    open_dir(path)?.sync_all()
}

/// Opens a directory; it also stands for its file system.
pub(super) fn open_dir(path: &Path) -> io::Result<fs::File> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    Ok(fs::File::from(rustix::fs::open(path, flags, Mode::empty())?))
}

/// Whether a sync of its file system is to be relied on.
pub(super) fn sync_fs_keeps_its_word(on: impl AsFd) -> bool {
    let release = rustix::system::uname();
    let magic = rustix::fs::fstatfs(on).map(|it| it.f_type);
    magic.is_ok_and(|magic| is_relied_on(magic, &release.release().to_string_lossy()))
}

pub(super) fn sync_fs(on: impl AsFd) -> io::Result<()> {
    Ok(rustix::fs::syncfs(on)?)
}

pub(super) fn read_dir(path: &Path) -> io::Result<Vec<DirEntry>> {
    let mut entries = Vec::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        // Of the entry itself: a symbolic link is not followed.
        match entry.metadata() {
            Ok(metadata) => entries.push(DirEntry {
                name: entry.file_name(),
                is_file: metadata.is_file(),
                is_dir: metadata.is_dir(),
                len: metadata.len(),
            }),
            // Removed since it was listed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    entries.sort_unstable_by(|left, right| left.name.cmp(&right.name));
    Ok(entries)
}

pub(super) fn free_space(path: &Path) -> io::Result<Space> {
    let stat = rustix::fs::statvfs(path)?;
    Ok(Space {
        total: stat.f_blocks.saturating_mul(stat.f_frsize),
        available: stat.f_bavail.saturating_mul(stat.f_frsize),
    })
}
