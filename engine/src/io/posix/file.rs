//! Files of the POSIX body: each operation is one system call on a thread of the pool, or on the loop's own. An operation
//! whose future is dropped runs to its end; the thread owns buffer and descriptor.

use std::fs;
use std::future::pending;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::io::buf::{Buf, Shared};
use crate::io::drain::Operations;
use crate::io::file::{DirEntry, Open, Space};
use crate::io::page_cache;
use crate::io::small_files::{FileBytes, PathError};
use crate::io::syscall;
use crate::io::window::Window;

use super::{Place, Posix};

impl Posix {
    pub(in crate::io) async fn open(&self, path: &Path, how: Open) -> io::Result<PosixFile> {
        let path = path.to_owned();
        let (file, direct) = run(&self.files, move || syscall::open(&path, how)).await?;
        Ok(PosixFile { file: Arc::new(file), direct, files: self.files.clone() })
    }

    pub(in crate::io) async fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (from, to) = (from.to_owned(), to.to_owned());
        run(&self.files, move || fs::rename(from, to)).await
    }

    pub(in crate::io) async fn create_files(&self, files: Vec<FileBytes>) -> Result<(), PathError> {
        run(&self.files, move || syscall::create_files(&files)).await
    }

    pub(in crate::io) async fn rename_all(&self, renames: Vec<(PathBuf, PathBuf)>) -> Result<(), PathError> {
        run(&self.files, move || syscall::rename_all(renames)).await
    }

    pub(in crate::io) async fn unlink(&self, path: &Path) -> io::Result<()> {
        let path = path.to_owned();
        run(&self.files, move || fs::remove_file(path)).await
    }

    pub(in crate::io) async fn create_dir(&self, path: &Path) -> io::Result<()> {
        let path = path.to_owned();
        run(&self.files, move || fs::create_dir(path)).await
    }

    pub(in crate::io) async fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let path = path.to_owned();
        run(&self.files, move || syscall::read_dir(&path)).await
    }

    pub(in crate::io) async fn fsync_dir(&self, path: &Path) -> io::Result<()> {
        let path = path.to_owned();
        run(&self.files, move || syscall::fsync_dir(&path)).await
    }

    pub(in crate::io) async fn open_fs(&self, path: &Path) -> io::Result<PosixFileSystem> {
        let path = path.to_owned();
        let directory = run(&self.files, move || syscall::open_dir(&path)).await?;
        Ok(PosixFileSystem { directory: Arc::new(directory), files: self.files.clone() })
    }

    pub(in crate::io) async fn free_space(&self, path: &Path) -> io::Result<Space> {
        let path = path.to_owned();
        run(&self.files, move || syscall::free_space(&path)).await
    }
}

/// An open file.
pub(in crate::io) struct PosixFile {
    file: Arc<fs::File>,
    direct: bool,
    files: Place,
}

impl PosixFile {
    pub(in crate::io) async fn read_once(
        &self,
        mut buf: Buf,
        range: Range<usize>,
        offset: u64,
    ) -> (io::Result<usize>, Buf) {
        let file = Arc::clone(&self.file);
        run(&self.files, move || {
            let result = file.read_at(&mut buf[range], offset);
            (result, buf)
        })
        .await
    }

    pub(in crate::io) fn try_read_once(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        syscall::try_read(&*self.file, buf, offset)
    }

    /// Quick system calls that read memory.
    pub(in crate::io) fn window(&self, head: usize, range: &Range<u64>) -> io::Result<Window> {
        Window::map(&*self.file, head, range)
    }

    pub(in crate::io) async fn write_once(
        &self,
        buf: Shared,
        range: Range<usize>,
        offset: u64,
    ) -> io::Result<usize> {
        let file = Arc::clone(&self.file);
        run(&self.files, move || file.write_at(&buf[range], offset)).await
    }

    pub(in crate::io) async fn fdatasync(&self) -> io::Result<()> {
        let file = Arc::clone(&self.file);
        run(&self.files, move || file.sync_data()).await
    }

    pub(in crate::io) async fn fallocate(&self, len: u64) -> io::Result<()> {
        let file = Arc::clone(&self.file);
        run(&self.files, move || syscall::fallocate(&*file, len)).await
    }

    pub(in crate::io) async fn set_len(&self, len: u64) -> io::Result<()> {
        let file = Arc::clone(&self.file);
        run(&self.files, move || file.set_len(len)).await
    }

    /// One quick system call that reads memory: not worth a thread.
    pub(in crate::io) fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    /// One quick system call that reads memory.
    pub(in crate::io) fn cached_pages(&self, range: &Range<u64>) -> io::Result<u64> {
        page_cache::cached_pages(&*self.file, range)
    }

    pub(in crate::io) fn is_direct(&self) -> bool {
        self.direct
    }

    /// Waits for a thread, so that a removed file's blocks are freed there and not on the loop.
    pub(in crate::io) async fn close(self) -> io::Result<()> {
        run(&self.files, move || drop(self.file)).await;
        Ok(())
    }
}

/// An open file system.
pub(in crate::io) struct PosixFileSystem {
    directory: Arc<fs::File>,
    files: Place,
}

impl PosixFileSystem {
    /// Two quick system calls that read memory.
    pub(in crate::io) fn keeps_its_word(&self) -> bool {
        syscall::sync_fs_keeps_its_word(&*self.directory)
    }

    /// Takes as long as there is to write: never on the loop's own thread.
    pub(in crate::io) async fn sync(&self) -> io::Result<()> {
        let directory = Arc::clone(&self.directory);
        on_thread(&self.files.operations, move || syscall::sync_fs(&*directory)).await
    }
}

async fn run<T: Send + 'static>(place: &Place, work: impl FnOnce() -> T + Send + 'static) -> T {
    if place.inline { work() } else { on_thread(&place.operations, work).await }
}

async fn on_thread<T: Send + 'static>(
    operations: &Operations,
    work: impl FnOnce() -> T + Send + 'static,
) -> T {
    let underway = operations.begin().await;
    let done = tokio::task::spawn_blocking(move || {
        let output = work();
        drop(underway);
        output
    })
    .await;
    match done {
        Ok(output) => output,
        Err(error) if error.is_panic() => resume_unwind(error.into_panic()),
        // The runtime is going, and this task with it.
        Err(_) => pending().await,
    }
}
