//! Files of the io_uring body.
//!
//! All but reads run in a task, of their own or kept for writes: an operation whose future is dropped is not cancelled
//! half way but runs to its end, and owns what it needs for that.

use std::fs;
use std::future::Future;
use std::io;
use std::ops::Range;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use monoio::fs::{File, OpenOptions};
use rustix::fs::OFlags;

use crate::io::buf::{Buf, Shared};
use crate::io::drain::Operations;
use crate::io::file::{DirEntry, Open, Space};
use crate::io::page_cache;
use crate::io::small_files::{FileBytes, PathError};
use crate::io::syscall::{self, FILE_MODE, OPEN_PLAINLY};
use crate::io::window::Window;

use super::lanes::Lanes;
use super::lent::Lent;
use super::{Uring, descriptor};

impl Uring {
    pub(in crate::io) async fn open(&self, path: &Path, how: Open) -> io::Result<UringFile> {
        let path = path.to_owned();
        let file = on_ring(&self.files, async move { options(how).open(path).await }).await?;
        let direct = syscall::opened(descriptor(&file), how)?;
        Ok(UringFile {
            file: Rc::new(file),
            direct,
            operations: self.files.clone(),
            lanes: self.lanes.clone(),
        })
    }

    pub(in crate::io) async fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (from, to) = (from.to_owned(), to.to_owned());
        on_ring(&self.files, async move { monoio::fs::rename(from, to).await }).await
    }

    pub(in crate::io) async fn create_files(&self, files: Vec<FileBytes>) -> Result<(), PathError> {
        beside_ring(&self.files, move || syscall::create_files(&files)).await
    }

    pub(in crate::io) async fn rename_all(&self, renames: Vec<(PathBuf, PathBuf)>) -> Result<(), PathError> {
        beside_ring(&self.files, move || syscall::rename_all(renames)).await
    }

    pub(in crate::io) async fn unlink(&self, path: &Path) -> io::Result<()> {
        let path = path.to_owned();
        on_ring(&self.files, async move { monoio::fs::remove_file(path).await }).await
    }

    pub(in crate::io) async fn create_dir(&self, path: &Path) -> io::Result<()> {
        let path = path.to_owned();
        on_ring(&self.files, async move { monoio::fs::create_dir(path).await }).await
    }

    pub(in crate::io) async fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let path = path.to_owned();
        beside_ring(&self.files, move || syscall::read_dir(&path)).await
    }

    pub(in crate::io) async fn fsync_dir(&self, path: &Path) -> io::Result<()> {
        let path = path.to_owned();
        on_ring(&self.files, async move {
            let mut options = OpenOptions::new();
            options.read(true).custom_flags(bits(OFlags::DIRECTORY | OFlags::NOFOLLOW));
            let directory = options.open(path).await?;
            let result = directory.sync_all().await;
            directory.close().await?;
            result
        })
        .await
    }

    pub(in crate::io) async fn open_fs(&self, path: &Path) -> io::Result<UringFileSystem> {
        let path = path.to_owned();
        let directory = beside_ring(&self.files, move || syscall::open_dir(&path)).await?;
        Ok(UringFileSystem { directory: Arc::new(directory), operations: self.files.clone() })
    }

    pub(in crate::io) async fn free_space(&self, path: &Path) -> io::Result<Space> {
        let path = path.to_owned();
        beside_ring(&self.files, move || syscall::free_space(&path)).await
    }
}

/// An open file.
pub(in crate::io) struct UringFile {
    file: Rc<File>,
    direct: bool,
    operations: Operations,
    lanes: Lanes,
}

impl UringFile {
    pub(in crate::io) async fn read_once(
        &self,
        buf: Buf,
        range: Range<usize>,
        offset: u64,
    ) -> (io::Result<usize>, Buf) {
        let lent = Lent::new(buf, range, self.operations.begin().await);
        let (result, lent) = self.file.read_at(lent, offset).await;
        (result, lent.buf)
    }

    pub(in crate::io) fn try_read_once(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        syscall::try_read(descriptor(&*self.file), buf, offset)
    }

    /// Quick system calls that read memory.
    pub(in crate::io) fn window(&self, head: usize, range: &Range<u64>) -> io::Result<Window> {
        Window::map(descriptor(&*self.file), head, range)
    }

    pub(in crate::io) async fn write_once(
        &self,
        buf: Shared,
        range: Range<usize>,
        offset: u64,
    ) -> io::Result<usize> {
        let lent = Lent::new(buf, range, self.operations.begin().await);
        self.lanes.write(Rc::clone(&self.file), lent, offset).await
    }

    pub(in crate::io) async fn fdatasync(&self) -> io::Result<()> {
        let file = Rc::clone(&self.file);
        on_ring(&self.operations, async move { file.sync_data().await }).await
    }

    /// Inline: the ring's operation is out of monoio's reach, and this takes 40 us for a chunk.
    pub(in crate::io) fn fallocate(&self, len: u64) -> io::Result<()> {
        syscall::fallocate(descriptor(&*self.file), len)
    }

    pub(in crate::io) async fn set_len(&self, len: u64) -> io::Result<()> {
        let file = fs::File::from(descriptor(&*self.file).try_clone_to_owned()?);
        beside_ring(&self.operations, move || file.set_len(len)).await
    }

    /// One quick system call that reads memory.
    pub(in crate::io) fn len(&self) -> io::Result<u64> {
        let stat = rustix::fs::fstat(descriptor(&*self.file))?;
        u64::try_from(stat.st_size).map_err(|_| io::ErrorKind::InvalidData.into())
    }

    /// One quick system call that reads memory.
    pub(in crate::io) fn cached_pages(&self, range: &Range<u64>) -> io::Result<u64> {
        page_cache::cached_pages(descriptor(&*self.file), range)
    }

    pub(in crate::io) fn is_direct(&self) -> bool {
        self.direct
    }

    pub(in crate::io) async fn close(self) -> io::Result<()> {
        match Rc::try_unwrap(self.file) {
            Ok(file) => on_ring(&self.operations, file.close()).await,
            // An operation that nobody awaits is still underway; the last of them closes the file.
            Err(_) => Ok(()),
        }
    }
}

/// An open file system.
pub(in crate::io) struct UringFileSystem {
    directory: Arc<fs::File>,
    operations: Operations,
}

impl UringFileSystem {
    /// Two quick system calls that read memory.
    pub(in crate::io) fn keeps_its_word(&self) -> bool {
        syscall::sync_fs_keeps_its_word(&*self.directory)
    }

    pub(in crate::io) async fn sync(&self) -> io::Result<()> {
        let directory = Arc::clone(&self.directory);
        beside_ring(&self.operations, move || syscall::sync_fs(&*directory)).await
    }
}

fn options(how: Open) -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(how.read).write(how.write).create_new(how.create_new);
    options.mode(FILE_MODE).custom_flags(bits(OPEN_PLAINLY));
    options
}

fn bits(flags: OFlags) -> i32 {
    flags.bits().cast_signed()
}

async fn on_ring<T: 'static>(operations: &Operations, work: impl Future<Output = T> + 'static) -> T {
    let underway = operations.begin().await;
    monoio::spawn(async move {
        let output = work.await;
        drop(underway);
        output
    })
    .await
}

async fn beside_ring<T: Send + 'static, E: From<io::Error> + Send + 'static>(
    operations: &Operations,
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, E> {
    let underway = operations.begin().await;
    let done = monoio::spawn_blocking(move || {
        let output = work();
        drop(underway);
        output
    });
    done.await.unwrap_or_else(|_| Err(io::Error::other("the thread beside the ring is gone").into()))
}
