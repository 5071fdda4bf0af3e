//! The control plane of a datanode: one task that owns the inventory and speaks with the master.
//!
//! Everything passes through this task in order, so that a full report and the changes after it cannot cross.

mod inventory;
mod session;

use std::sync::Arc;
use std::time::{Duration, Instant};

use distrifs_engine::store::{Folder, StoreError, Witness};
use distrifs_proto::types::{ClusterId, Epoch, HostPort, Lsn};
use tokio::sync::{mpsc, watch};

use crate::node::Node;
use crate::shard::{ShardCommand, ShardEvent};
pub(crate) use inventory::Inventory;
use session::SessionEnd;

/// Between two attempts to find the leader; the pause doubles up to the second.
const RETRY_PAUSE_MIN: Duration = Duration::from_millis(100);
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(2);

/// Why the datanode cannot go on at all.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fatal {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the master at {master} refused this datanode: {text}")]
    Refused { master: HostPort, text: String },
}

/// The state of the control plane.
pub(crate) struct Control {
    pub(crate) node: Arc<Node>,
    pub(crate) folders: Vec<Folder>,
    pub(crate) witness: Witness,
    pub(crate) inventory: Inventory,
    pub(crate) shards: Vec<mpsc::Sender<ShardCommand>>,
    pub(crate) events: mpsc::Receiver<ShardEvent>,
    pub(crate) masters: Vec<HostPort>,
    pub(crate) data_address: HostPort,
    pub(crate) rack: String,
    pub(crate) io_body: &'static str,
    pub(crate) incarnation: u64,
    pub(crate) socket_timeout: Duration,
    pub(crate) stop: watch::Receiver<bool>,
}

impl Control {
    /// Keeps a session with the leader until told to stop.
    pub(crate) async fn run(mut self) -> Result<(), Fatal> {
        let mut pause = RETRY_PAUSE_MIN;
        let mut taken_since = None;
        for turn in 0.. {
            if *self.stop.borrow() {
                break;
            }
            let master = self.masters[turn % self.masters.len()].clone();
            let ended = self.session(&master).await;
            if !matches!(ended, Ok(SessionEnd::Taken(_))) {
                taken_since = None;
            }
            match ended {
                Ok(SessionEnd::Stopped) => break,
                Ok(SessionEnd::Taken(text)) => {
                    if taken_since.get_or_insert_with(Instant::now).elapsed() >= self.socket_timeout {
                        return Err(Fatal::Refused { master, text });
                    }
                    tracing::warn!(%master, text, "waits for the master to notice that this is not so");
                    pause = (pause * 2).min(RETRY_PAUSE_MAX);
                }
                Ok(SessionEnd::Lost { text, was_registered }) => {
                    tracing::warn!(%master, text, "no session with the master");
                    pause = if was_registered { RETRY_PAUSE_MIN } else { (pause * 2).min(RETRY_PAUSE_MAX) };
                }
                Err(fatal) => return Err(fatal),
            }
            self.idle(pause).await;
        }
        self.drain();
        Ok(())
    }

    /// Without a session the inventory still follows what the shards do; the next full report tells it all.
    async fn idle(&mut self, pause: Duration) {
        let over = tokio::time::sleep(pause);
        tokio::pin!(over);
        loop {
            tokio::select! {
                () = &mut over => return,
                _ = self.stop.changed() => return,
                Some(event) = self.events.recv() => self.note(&event),
            }
        }
    }

    fn drain(&mut self) {
        while let Ok(event) = self.events.try_recv() {
            self.note(&event);
        }
    }

    fn note(&mut self, event: &ShardEvent) {
        match event {
            ShardEvent::Committed { replica, disk } => self.inventory.add(*replica, *disk),
            ShardEvent::Deleted { chunk } => self.inventory.remove(*chunk),
        }
    }

    /// Remembers what a master has shown before anything else is done with its message. A few synced writes, now
    /// and then; nothing else waits on this task meanwhile.
    fn witness(&mut self, epoch: Epoch, lsn: Lsn) -> Result<(), Fatal> {
        let seen = Witness { epoch: self.witness.epoch.max(epoch), lsn: self.witness.lsn.max(lsn) };
        if seen != self.witness {
            for (disk, folder) in self.node.disks.iter().zip(&self.folders) {
                match folder.set_witness(seen) {
                    Ok(()) => {}
                    // A broken disk takes its folder out, not the node.
                    Err(error) if self.folders.len() > 1 => {
                        tracing::error!(%error, "takes no more writes");
                        disk.suspect();
                    }
                    Err(error) => return Err(error.into()),
                }
            }
            self.witness = seen;
        }
        self.node.raise_epoch(epoch);
        Ok(())
    }

    /// Makes every folder one of this cluster, or fails when one is another's.
    fn join(&mut self, cluster: ClusterId) -> Result<(), Fatal> {
        for folder in &mut self.folders {
            folder.join(cluster)?;
        }
        // Set before: then it is the same, or a folder would have refused.
        let _ = self.node.cluster.set(cluster);
        Ok(())
    }

    /// Asks the file systems how much room there is.
    pub(crate) fn measure_room(node: &Node, folders: &[Folder]) {
        for (disk, folder) in node.disks.iter().zip(folders) {
            match rustix::fs::statvfs(folder.root()) {
                Ok(fs) => disk.set_room(fs.f_blocks * fs.f_frsize, fs.f_bavail * fs.f_frsize),
                Err(error) => tracing::warn!(folder = %folder.root().display(), %error, "room unknown"),
            }
        }
    }
}
