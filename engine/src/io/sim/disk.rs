//! The disk operations of the simulated world, each atomic and at once. When they happen is `file`'s matter.

use std::cell::Cell;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::rc::Rc;

use rustix::io::Errno;

use crate::io::buf::BUF_ALIGN;
use crate::io::file::{DirEntry, Open, Space};

use super::faults::SimOperation;
use super::tree::{Inode, errno};
use super::world::World;

/// What an operation of a file knows of it.
#[derive(Clone)]
pub(super) struct Handle {
    pub(super) boot: u64,
    pub(super) inode: Inode,
    pub(super) path: std::path::PathBuf,
    pub(super) how: Open,
}

/// What a sync of the file system knows of it.
#[derive(Clone)]
pub(super) struct FileSystemHandle {
    boot: u64,
    path: std::path::PathBuf,
    /// How many failed write-backs were told, or were there when it was opened.
    failures_told: Rc<Cell<u64>>,
}

fn powerless() -> io::Error {
    io::Error::other("the power is cut")
}

impl World {
    /// Counts an operation, cuts the power when its time has come, and strikes with what is planned.
    fn admit(&mut self, boot: u64, operation: SimOperation, path: &Path) -> io::Result<()> {
        if !self.alive(boot) {
            return Err(powerless());
        }
        if self.plan.cut_at.is_some_and(|at| self.operations >= at) {
            self.cut();
            return Err(powerless());
        }
        self.operations += 1;
        self.plan.strike(operation, path)
    }

    pub(super) fn open(&mut self, boot: u64, path: &Path, how: Open) -> io::Result<Handle> {
        self.admit(boot, SimOperation::Open, path)?;
        let inode = if how.create_new { self.tree.create_file(path)? } else { self.tree.find(path)? };
        if how.write && self.tree.is_dir(inode) {
            return Err(errno(Errno::ISDIR));
        }
        Ok(Handle { boot, inode, path: path.to_owned(), how })
    }

    pub(super) fn rename(&mut self, boot: u64, from: &Path, to: &Path) -> io::Result<()> {
        self.admit(boot, SimOperation::Rename, from)?;
        self.tree.rename(from, to)
    }

    pub(super) fn unlink(&mut self, boot: u64, path: &Path) -> io::Result<()> {
        self.admit(boot, SimOperation::Unlink, path)?;
        self.tree.unlink(path)
    }

    pub(super) fn create_dir(&mut self, boot: u64, path: &Path) -> io::Result<()> {
        self.admit(boot, SimOperation::CreateDir, path)?;
        self.tree.create_dir(path).map(drop)
    }

    pub(super) fn read_dir(&mut self, boot: u64, path: &Path) -> io::Result<Vec<DirEntry>> {
        self.admit(boot, SimOperation::List, path)?;
        self.list(path)
    }

    pub(super) fn fsync_dir(&mut self, boot: u64, path: &Path) -> io::Result<()> {
        let admitted = self.admit(boot, SimOperation::Sync, path);
        if !self.alive(boot) {
            return admitted;
        }
        let dir = self.tree.find(path)?;
        self.tree.names(dir)?;
        match admitted {
            Ok(()) if self.plan.lying_syncs => {}
            Ok(()) => self.tree.sync_dir(dir),
            Err(error) => {
                self.tree.sync_dir_failed(dir);
                return Err(error);
            }
        }
        Ok(())
    }

    pub(super) fn open_fs(&mut self, boot: u64, path: &Path) -> io::Result<FileSystemHandle> {
        self.admit(boot, SimOperation::Open, path)?;
        let dir = self.tree.find(path)?;
        self.tree.names(dir)?;
        let failures_told = Rc::new(Cell::new(self.write_back_failures));
        Ok(FileSystemHandle { boot, path: path.to_owned(), failures_told })
    }

    pub(super) fn sync_fs(&mut self, on: &FileSystemHandle) -> io::Result<()> {
        let admitted = self.admit(on.boot, SimOperation::Sync, &on.path);
        if !self.alive(on.boot) {
            return admitted;
        }
        match admitted {
            Ok(()) if self.plan.lying_syncs => {}
            Ok(()) => self.tree.sync_all(),
            Err(error) => {
                self.tree.sync_all_failed();
                return Err(error);
            }
        }
        let told = on.failures_told.replace(self.write_back_failures);
        if told == self.write_back_failures { Ok(()) } else { Err(errno(Errno::IO)) }
    }

    pub(super) fn free_space(&mut self, boot: u64, path: &Path) -> io::Result<Space> {
        self.admit(boot, SimOperation::List, path)?;
        self.tree.find(path)?;
        let total = self.plan.capacity;
        Ok(Space { total, available: total.saturating_sub(self.tree.used_bytes()) })
    }

    pub(super) fn read(
        &mut self,
        file: &Handle,
        buf: &mut [u8],
        range: Range<usize>,
        offset: u64,
    ) -> io::Result<usize> {
        self.admit(file.boot, SimOperation::Read, &file.path)?;
        if !file.how.read {
            return Err(errno(Errno::BADF));
        }
        check_alignment(file, &range, offset)?;
        let wanted = self.transfer_len(file, range.len());
        let bytes = self.tree.content(file.inode)?.now();
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
        let len = wanted.min(bytes.len() - start);
        buf[range.start..range.start + len].copy_from_slice(&bytes[start..start + len]);
        Ok(len)
    }

    pub(super) fn write(
        &mut self,
        file: &Handle,
        buf: &[u8],
        range: Range<usize>,
        offset: u64,
    ) -> io::Result<usize> {
        self.admit(file.boot, SimOperation::Write, &file.path)?;
        if !file.how.write {
            return Err(errno(Errno::BADF));
        }
        check_alignment(file, &range, offset)?;
        let len = self.transfer_len(file, range.len());
        let start = usize::try_from(offset).map_err(|_| errno(Errno::FBIG))?;
        let end = start.checked_add(len).ok_or_else(|| errno(Errno::FBIG))?;
        self.make_room(file, end)?;
        self.tree.content_mut(file.inode)?.write(start, &buf[range.start..range.start + len]);
        Ok(len)
    }

    pub(super) fn fdatasync(&mut self, file: &Handle) -> io::Result<()> {
        let admitted = self.admit(file.boot, SimOperation::Sync, &file.path);
        if !self.alive(file.boot) {
            return admitted;
        }
        let lying = self.plan.lying_syncs;
        let content = self.tree.content_mut(file.inode)?;
        match admitted {
            Ok(()) if lying => {}
            Ok(()) => content.sync(),
            Err(error) => {
                content.sync_failed();
                self.write_back_failures += 1;
                return Err(error);
            }
        }
        Ok(())
    }

    pub(super) fn fallocate(&mut self, file: &Handle, len: u64) -> io::Result<()> {
        let len = self.resize(file, len)?;
        self.make_room(file, len)?;
        let content = self.tree.content_mut(file.inode)?;
        if len > content.len() {
            content.set_len(len);
        }
        Ok(())
    }

    pub(super) fn set_len(&mut self, file: &Handle, len: u64) -> io::Result<()> {
        let len = self.resize(file, len)?;
        self.make_room(file, len)?;
        self.tree.content_mut(file.inode)?.set_len(len);
        Ok(())
    }

    fn resize(&mut self, file: &Handle, len: u64) -> io::Result<usize> {
        self.admit(file.boot, SimOperation::Resize, &file.path)?;
        if !file.how.write {
            return Err(errno(Errno::BADF));
        }
        usize::try_from(len).map_err(|_| errno(Errno::FBIG))
    }

    pub(super) fn len(&self, file: &Handle) -> io::Result<u64> {
        if !self.alive(file.boot) {
            return Err(powerless());
        }
        Ok(self.tree.content(file.inode)?.len() as u64)
    }

    /// Room for a file to be `end` bytes long.
    fn make_room(&self, file: &Handle, end: usize) -> io::Result<()> {
        let more = end.saturating_sub(self.tree.content(file.inode)?.len()) as u64;
        if more > 0 && self.tree.used_bytes().saturating_add(more) > self.plan.capacity {
            return Err(errno(Errno::NOSPC));
        }
        Ok(())
    }

    /// All of it, or a part by chance; past the cache only whole blocks.
    fn transfer_len(&mut self, file: &Handle, len: usize) -> usize {
        if !self.plan.short_transfers || len == 0 {
            return len;
        }
        let part = 1 + self.chance.below(len as u64) as usize;
        if file.how.direct { part.next_multiple_of(BUF_ALIGN).min(len) } else { part }
    }
}

/// What O_DIRECT demands; a device of 4 KiB sectors demands no less.
fn check_alignment(file: &Handle, range: &Range<usize>, offset: u64) -> io::Result<()> {
    let aligned = range.start.is_multiple_of(BUF_ALIGN)
        && range.len().is_multiple_of(BUF_ALIGN)
        && offset.is_multiple_of(BUF_ALIGN as u64);
    if file.how.direct && !aligned { Err(errno(Errno::INVAL)) } else { Ok(()) }
}
