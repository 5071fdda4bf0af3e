//! [`Io`]: what a task holds to reach the body of its thread.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::buf::Buf;
use super::file::{DirEntry, File, Open, Space};
use super::file_system::FileSystem;
use super::net::{Listener, Stream};
use super::small_files::{FileBytes, PathError, is_gone};
use super::{posix, sim, uring};

/// The handle of this thread's body. Cheap to clone; it does not leave its thread.
#[derive(Clone)]
pub struct Io(pub(super) Kind);

#[derive(Clone)]
pub(super) enum Kind {
    Uring(uring::Uring),
    Posix(posix::Posix),
    Sim(sim::Sim),
}

/// The time limit of [`Io::timeout`] passed first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the time limit of {after:?} has passed")]
pub struct Elapsed {
    /// The limit.
    pub after: Duration,
}

impl Io {
    /// Which body this is, for logs, heartbeats and metrics.
    #[must_use]
    pub fn body_name(&self) -> &'static str {
        match &self.0 {
            Kind::Uring(_) => "io_uring",
            Kind::Posix(_) => "posix",
            Kind::Sim(_) => "simulated",
        }
    }

    /// Runs a task beside the caller, on this thread. It ends with the body at the latest.
    pub fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        match &self.0 {
            Kind::Uring(body) => body.spawn(task),
            Kind::Posix(body) => body.spawn(task),
            Kind::Sim(body) => body.spawn(task),
        }
    }

    /// Waits.
    pub async fn sleep(&self, duration: Duration) {
        match &self.0 {
            Kind::Uring(body) => body.sleep(duration).await,
            Kind::Posix(body) => body.sleep(duration).await,
            Kind::Sim(body) => body.sleep(duration).await,
        }
    }

    /// Monotonic time since the body started.
    #[must_use]
    pub fn now(&self) -> Duration {
        match &self.0 {
            Kind::Uring(body) => body.now(),
            Kind::Posix(body) => body.now(),
            Kind::Sim(body) => body.now(),
        }
    }

    /// Waits for `work`, at most for `limit`; then `work` is dropped. For the network only.
    pub async fn timeout<T>(&self, limit: Duration, work: impl Future<Output = T>) -> Result<T, Elapsed> {
        let done = match &self.0 {
            Kind::Uring(body) => body.timeout(limit, work).await,
            Kind::Posix(body) => body.timeout(limit, work).await,
            Kind::Sim(body) => body.timeout(limit, work).await,
        };
        done.ok_or(Elapsed { after: limit })
    }

    /// Opens a file.
    pub async fn open(&self, path: &Path, how: Open) -> io::Result<File> {
        match &self.0 {
            Kind::Uring(body) => body.open(path, how).await.map(File::uring),
            Kind::Posix(body) => body.open(path, how).await.map(File::posix),
            Kind::Sim(body) => body.open(path, how).await.map(File::sim),
        }
    }

    /// Renames a file, replacing what was there. Durable once both directories are synced.
    pub async fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        match &self.0 {
            Kind::Uring(body) => body.rename(from, to).await,
            Kind::Posix(body) => body.rename(from, to).await,
            Kind::Sim(body) => body.rename(from, to).await,
        }
    }

    /// Creates small files through the page cache, in this order: all of them or, after a failure, none. (What cannot be
    /// removed again stays, and is told in the log.)
    pub async fn create_files(&self, files: Vec<FileBytes>) -> Result<(), PathError> {
        match &self.0 {
            Kind::Uring(body) => body.create_files(files).await,
            Kind::Posix(body) => body.create_files(files).await,
            Kind::Sim(_) => {
                for at in 0..files.len() {
                    if let Err((error, is_ours)) = self.create_file(&files[at]).await {
                        for made in files[..at + usize::from(is_ours)].iter().rev() {
                            is_gone(&made.path, self.unlink(&made.path).await);
                        }
                        return Err(error);
                    }
                }
                Ok(())
            }
        }
    }

    /// With an error comes whether the file was made.
    async fn create_file(&self, file: &FileBytes) -> Result<(), (PathError, bool)> {
        let created = self.open(&file.path, Open::CREATE).await;
        let created = created.map_err(|error| (file.failed(error), false))?;
        if let Some(other) = &file.unless {
            let looked = self.open(other, Open::READ).await.map(drop);
            file.beside(other, looked).map_err(|error| (error, true))?;
        }
        let mut buffer = Buf::alloc(file.bytes.len());
        buffer.copy_from_slice(&file.bytes);
        let written = created.write_at(buffer.share(), 0..file.bytes.len(), 0).await;
        written.map_err(|error| (file.failed(error), true))
    }

    /// Renames files from the first path of each pair to the second as [`rename`](Self::rename) does, in this order,
    /// up to the first failure.
    pub async fn rename_all(&self, renames: Vec<(PathBuf, PathBuf)>) -> Result<(), PathError> {
        match &self.0 {
            Kind::Uring(body) => body.rename_all(renames).await,
            Kind::Posix(body) => body.rename_all(renames).await,
            Kind::Sim(_) => {
                for (from, path) in renames {
                    let renamed = self.rename(&from, &path).await;
                    renamed.map_err(|source| PathError { path, source })?;
                }
                Ok(())
            }
        }
    }

    /// Removes a file. Durable once its directory is synced.
    pub async fn unlink(&self, path: &Path) -> io::Result<()> {
        match &self.0 {
            Kind::Uring(body) => body.unlink(path).await,
            Kind::Posix(body) => body.unlink(path).await,
            Kind::Sim(body) => body.unlink(path).await,
        }
    }

    /// Creates a directory; an existing one is an error.
    pub async fn create_dir(&self, path: &Path) -> io::Result<()> {
        match &self.0 {
            Kind::Uring(body) => body.create_dir(path).await,
            Kind::Posix(body) => body.create_dir(path).await,
            Kind::Sim(body) => body.create_dir(path).await,
        }
    }

    /// All entries of a directory, sorted by name.
    pub async fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        match &self.0 {
            Kind::Uring(body) => body.read_dir(path).await,
            Kind::Posix(body) => body.read_dir(path).await,
            Kind::Sim(body) => body.read_dir(path).await,
        }
    }

    /// Makes the entries of a directory durable: creations, renames and removals.
    pub async fn fsync_dir(&self, path: &Path) -> io::Result<()> {
        match &self.0 {
            Kind::Uring(body) => body.fsync_dir(path).await,
            Kind::Posix(body) => body.fsync_dir(path).await,
            Kind::Sim(body) => body.fsync_dir(path).await,
        }
    }

    /// Opens the file system that the directory `path` lies on, to make all of it durable.
    pub async fn open_fs(&self, path: &Path) -> io::Result<FileSystem> {
        match &self.0 {
            Kind::Uring(body) => body.open_fs(path).await.map(FileSystem::uring),
            Kind::Posix(body) => body.open_fs(path).await.map(FileSystem::posix),
            Kind::Sim(body) => body.open_fs(path).await.map(FileSystem::sim),
        }
    }

    /// How much room the file system of `path` has.
    pub async fn free_space(&self, path: &Path) -> io::Result<Space> {
        match &self.0 {
            Kind::Uring(body) => body.free_space(path).await,
            Kind::Posix(body) => body.free_space(path).await,
            Kind::Sim(body) => body.free_space(path).await,
        }
    }

    /// Connects to a server.
    pub async fn connect(&self, to: SocketAddr) -> io::Result<Stream> {
        match &self.0 {
            Kind::Uring(body) => body.connect(to).await.map(Stream::uring),
            Kind::Posix(body) => body.connect(to).await.map(Stream::posix),
            Kind::Sim(body) => body.connect(to).await.map(Stream::sim),
        }
    }

    /// Listens on an address; port 0 picks a free one.
    pub async fn listen(&self, at: SocketAddr) -> io::Result<Listener> {
        match &self.0 {
            Kind::Uring(body) => body.listen(at).map(Listener::uring),
            Kind::Posix(body) => body.listen(at).map(Listener::posix),
            Kind::Sim(body) => body.listen(at).await.map(Listener::sim),
        }
    }

    /// Takes over a connection that was accepted elsewhere. The simulated body has no place for one.
    pub fn adopt(&self, socket: std::net::TcpStream) -> io::Result<Stream> {
        match &self.0 {
            Kind::Uring(body) => body.adopt(socket).map(Stream::uring),
            Kind::Posix(body) => body.adopt(socket).map(Stream::posix),
            Kind::Sim(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }
}
