//! Files of the simulated body: each operation takes some simulated time and happens at its end, whether
//! somebody still waits for it or not.

use std::future::pending;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use rustix::io::Errno;
use tokio::sync::oneshot;

use crate::io::buf::{Buf, Shared};
use crate::io::file::{DirEntry, Open, Space};
use crate::io::window::Window;

use super::Sim;
use super::disk::{FileSystemHandle, Handle};
use super::world::World;

/// How long a disk operation takes at most.
const DISK_MICROS_MAX: u64 = 200;

impl Sim {
    pub(in crate::io) async fn open(&self, path: &Path, how: Open) -> io::Result<SimFile> {
        let (path, boot) = (path.to_owned(), self.boot);
        let handle = self.on_disk(move |world| world.open(boot, &path, how)).await?;
        Ok(SimFile { body: self.clone(), handle })
    }

    pub(in crate::io) async fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (from, to, boot) = (from.to_owned(), to.to_owned(), self.boot);
        self.on_disk(move |world| world.rename(boot, &from, &to)).await
    }

    pub(in crate::io) async fn unlink(&self, path: &Path) -> io::Result<()> {
        let (path, boot) = (path.to_owned(), self.boot);
        self.on_disk(move |world| world.unlink(boot, &path)).await
    }

    pub(in crate::io) async fn create_dir(&self, path: &Path) -> io::Result<()> {
        let (path, boot) = (path.to_owned(), self.boot);
        self.on_disk(move |world| world.create_dir(boot, &path)).await
    }

    pub(in crate::io) async fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let (path, boot) = (path.to_owned(), self.boot);
        self.on_disk(move |world| world.read_dir(boot, &path)).await
    }

    pub(in crate::io) async fn fsync_dir(&self, path: &Path) -> io::Result<()> {
        let (path, boot) = (path.to_owned(), self.boot);
        self.on_disk(move |world| world.fsync_dir(boot, &path)).await
    }

    pub(in crate::io) async fn open_fs(&self, path: &Path) -> io::Result<SimFileSystem> {
        let (path, boot) = (path.to_owned(), self.boot);
        let handle = self.on_disk(move |world| world.open_fs(boot, &path)).await?;
        Ok(SimFileSystem { body: self.clone(), handle })
    }

    pub(in crate::io) async fn free_space(&self, path: &Path) -> io::Result<Space> {
        let (path, boot) = (path.to_owned(), self.boot);
        self.on_disk(move |world| world.free_space(boot, &path)).await
    }

    async fn on_disk<T: 'static>(&self, work: impl FnOnce(&mut World) -> T + 'static) -> T {
        let underway = self.operations.begin().await;
        let (send, receive) = oneshot::channel();
        let body = self.clone();
        self.executor.spawn(async move {
            let micros = body.world.lock().chance.below(DISK_MICROS_MAX);
            body.executor.sleep(Duration::from_micros(micros)).await;
            let output = work(&mut body.world.lock());
            drop(underway);
            // Nobody waits for a dropped operation.
            let _ = send.send(output);
        });
        match receive.await {
            Ok(output) => output,
            // The body is going, and this task with it.
            Err(_) => pending().await,
        }
    }
}

/// An open file.
pub(in crate::io) struct SimFile {
    body: Sim,
    handle: Handle,
}

impl SimFile {
    pub(in crate::io) async fn read_once(
        &self,
        mut buf: Buf,
        range: Range<usize>,
        offset: u64,
    ) -> (io::Result<usize>, Buf) {
        let handle = self.handle.clone();
        self.body
            .on_disk(move |world| {
                let result = world.read(&handle, &mut buf, range, offset);
                (result, buf)
            })
            .await
    }

    /// The page is there, or not, by chance.
    pub(in crate::io) fn try_read_once(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut world = self.body.world.lock();
        if world.chance.below(2) == 0 {
            return Err(Errno::AGAIN.into());
        }
        world.read(&self.handle, buf, 0..buf.len(), offset)
    }

    /// A copy of the bytes, as far as they are there.
    pub(in crate::io) fn window(&self, head: usize, range: &Range<u64>) -> io::Result<Window> {
        let bytes = range.end.saturating_sub(range.start) as usize;
        let mut buf = Buf::alloc(head + bytes);
        match self.try_read_once(&mut buf[head..], range.start)? {
            read if read == bytes && bytes > 0 => Ok(Window::copied(buf, head)),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    pub(in crate::io) async fn write_once(
        &self,
        buf: Shared,
        range: Range<usize>,
        offset: u64,
    ) -> io::Result<usize> {
        let handle = self.handle.clone();
        self.body.on_disk(move |world| world.write(&handle, &buf, range, offset)).await
    }

    pub(in crate::io) async fn fdatasync(&self) -> io::Result<()> {
        let handle = self.handle.clone();
        self.body.on_disk(move |world| world.fdatasync(&handle)).await
    }

    pub(in crate::io) async fn fallocate(&self, len: u64) -> io::Result<()> {
        let handle = self.handle.clone();
        self.body.on_disk(move |world| world.fallocate(&handle, len)).await
    }

    pub(in crate::io) async fn set_len(&self, len: u64) -> io::Result<()> {
        let handle = self.handle.clone();
        self.body.on_disk(move |world| world.set_len(&handle, len)).await
    }

    pub(in crate::io) fn len(&self) -> io::Result<u64> {
        self.body.world.lock().len(&self.handle)
    }

    pub(in crate::io) fn is_direct(&self) -> bool {
        self.handle.how.direct
    }
}

/// The file system of the one disk.
pub(in crate::io) struct SimFileSystem {
    body: Sim,
    handle: FileSystemHandle,
}

impl SimFileSystem {
    pub(in crate::io) async fn sync(&self) -> io::Result<()> {
        let handle = self.handle.clone();
        self.body.on_disk(move |world| world.sync_fs(&handle)).await
    }
}
