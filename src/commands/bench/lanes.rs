//! The clients of a load, each with connections of its own, and what they do to files.

use std::sync::Arc;

use distrifs_client::{Client, GetTarget, OpenFile, PutOptions};

use super::content::{Comparison, Content};
use super::target::Target;
use crate::error::CommandError;
use crate::progress::TransferBar;

/// The clients. Cheap to clone.
#[derive(Clone)]
pub(super) struct Lanes {
    clients: Arc<[Client]>,
    content: Arc<Content>,
    directory: Arc<str>,
    replication: Option<u32>,
    bar: TransferBar,
}

impl Lanes {
    /// So many clients, which have found the master, for files of `size` bytes of this seed. The bytes are made here.
    pub(super) async fn start(
        target: &Target,
        clients: u64,
        size: u64,
        seed: u64,
        replication: Option<u32>,
        bar: TransferBar,
    ) -> Result<Self, CommandError> {
        let make = move |_: &_| {
            let why = |e| CommandError::Check(format!("cannot make {size} bytes in memory: {e}"));
            Content::new(size, seed).map(Arc::new).map_err(why)
        };
        let content = target.blocking.run(make).await?;
        let clients: Arc<[Client]> = (0..clients).map(|_| target.another_client()).collect();
        for client in clients.iter() {
            client.stat(&target.directory).await?;
        }
        let directory = target.directory.as_str().into();
        Ok(Self { clients, content, directory, replication, bar })
    }

    /// The bytes of every file.
    pub(super) fn content(&self) -> &Arc<Content> {
        &self.content
    }

    /// How many clients.
    pub(super) fn count(&self) -> u64 {
        self.clients.len() as u64
    }

    /// Takes the progress from the screen.
    pub(super) fn finish(&self) {
        self.bar.finish();
    }

    fn client(&self, lane: u64) -> &Client {
        &self.clients[lane as usize]
    }

    fn path(&self, name: &str) -> String {
        format!("{}/{name}", self.directory)
    }

    /// Puts all bytes under a name, in the place of what is there.
    pub(super) async fn put(self, lane: u64, name: String) -> Result<(), CommandError> {
        let options = PutOptions { overwrite: true, replication: self.replication, ..PutOptions::default() };
        let source = self.content.source()?;
        self.client(lane).put(source, &self.path(&name), options, &self.bar).await?;
        Ok(())
    }

    /// Gets a file; its bytes are checked by their checksums and go nowhere.
    pub(super) async fn get(self, lane: u64, name: String) -> Result<(), CommandError> {
        let target = GetTarget::Stream(Box::new(tokio::io::sink()));
        self.client(lane).get(&self.path(&name), None, target, &self.bar).await?;
        Ok(())
    }

    /// Gets a file, and compares it with what was put.
    pub(super) async fn compare(self, lane: u64, name: String) -> Result<(), CommandError> {
        let path = self.path(&name);
        let (comparison, target) = Comparison::new(&self.content);
        self.client(lane).get(&path, None, target, &self.bar).await?;
        comparison.finish(&path)
    }

    /// Opens a file for each lane, by the client of that lane or with `together` all by one, past the page cache of the
    /// datanodes or not.
    pub(super) async fn open(
        &self,
        name: &str,
        together: bool,
        direct: bool,
    ) -> Result<Vec<Arc<LaneFile>>, CommandError> {
        let mut files = Vec::new();
        for lane in 0..self.clients.len() as u64 {
            let (client, path) = (self.client(if together { 0 } else { lane }), self.path(name));
            let file = if direct { client.open_direct(&path).await? } else { client.open(&path).await? };
            files.push(Arc::new(LaneFile { file, content: self.content.clone() }));
        }
        Ok(files)
    }

    /// What is known of a file.
    pub(super) async fn stat(self, lane: u64, name: String) -> Result<(), CommandError> {
        self.client(lane).stat(&self.path(&name)).await?;
        Ok(())
    }

    /// Removes a file.
    pub(super) async fn remove(self, lane: u64, name: String) -> Result<(), CommandError> {
        self.client(lane).remove(&self.path(&name), false).await?;
        Ok(())
    }
}

/// A file that is open for a lane, to read ranges of it: what all lanes have in common is not touched for each read, for that
/// costs more than it looks where the lanes run on several cores.
pub(super) struct LaneFile {
    file: OpenFile,
    content: Arc<Content>,
}

impl LaneFile {
    /// Reads a range; with `compare` it is held against what was put, else its checksums are all.
    pub(super) async fn read(
        self: Arc<Self>,
        from: u64,
        length: u64,
        compare: bool,
    ) -> Result<(), CommandError> {
        let bytes = self.file.read_at(from, length).await?;
        if bytes.len() as u64 == length && (!compare || self.content.has(&bytes, from)) {
            return Ok(());
        }
        let path = &self.file.status().path;
        Err(CommandError::Check(format!(
            "{path}: what came back of {length} bytes at {from} is not what was put"
        )))
    }
}
