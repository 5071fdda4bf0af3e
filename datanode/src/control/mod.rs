//! The control plane of a datanode: one task that owns the inventory and speaks with the master.
//!
//! Everything passes through this task in order, so that a full report and the changes after it cannot cross.

mod inventory;
mod leader;
mod session;

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use distrifs_engine::store::{Folder, StoreError, Witness};
use distrifs_proto::grpc::v1;
use distrifs_proto::types::{ChunkId, ClusterId, Epoch, HostPort, Lsn};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, watch};

use crate::node::{Counters, Node};
use crate::pace::{Pace, Quiet};
use crate::scrub::{Scrub, Volume};
use crate::shard::{Check, Found, SHARD_QUEUE_FOR_CONNECTIONS, ShardCommand, ShardEvent};
use inventory::Held;
pub(crate) use inventory::Inventory;
use session::SessionEnd;

/// Between two attempts to find the leader; the pause doubles up to the second.
const RETRY_PAUSE_MIN: Duration = Duration::from_millis(100);
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(2);
/// The pause until the masters are asked again which of them leads.
const LEADER_PAUSE: Duration = Duration::from_millis(100);
/// Replicas that are being dropped at once. One whose deletion fails stays among them until the next start, which finds
/// it again.
const DROPPED_MAX: usize = 1 << 16;

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
    /// Data folders that do not serve since the start: told, and nothing else.
    pub(crate) left_out: Vec<PathBuf>,
    pub(crate) witness: Witness,
    pub(crate) inventory: Inventory,
    pub(crate) shards: Vec<mpsc::Sender<ShardCommand>>,
    pub(crate) events: mpsc::Receiver<ShardEvent>,
    pub(crate) masters: Vec<HostPort>,
    pub(crate) data_address: HostPort,
    pub(crate) rack: String,
    pub(crate) io_body: &'static str,
    pub(crate) incarnation: u64,
    pub(crate) scrub: Scrub,
    /// Whether users are away.
    pub(crate) quiet: Quiet,
    /// Replicas that were reported gone and are still being deleted.
    pub(crate) dropped: HashSet<ChunkId>,
    /// Disks whose replicas were reported lost.
    pub(crate) lost_disks: Vec<bool>,
    /// Times of the scrub are counted from here.
    pub(crate) started: Instant,
    pub(crate) socket_timeout: Duration,
    pub(crate) stop: watch::Receiver<bool>,
}

impl Control {
    /// Keeps a session with the leader until told to stop.
    pub(crate) async fn run(mut self) -> Result<(), Fatal> {
        let mut pause = RETRY_PAUSE_MIN;
        let (mut taken_since, mut searching) = (None, false);
        while !*self.stop.borrow() {
            let Some(master) = self.leader().await else {
                if !std::mem::replace(&mut searching, true) {
                    tracing::warn!(masters = ?self.masters, "no master leads: asked again until one does");
                }
                self.idle(LEADER_PAUSE).await;
                continue;
            };
            searching = false;
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

    /// The master; of several the one that says that it leads. One that stands still would be waited for long.
    async fn leader(&self) -> Option<HostPort> {
        if let [only] = &self.masters[..] {
            return Some(only.clone());
        }
        let mut stop = self.stop.clone();
        tokio::select! {
            _ = stop.changed() => None,
            found = leader::find(&self.masters, self.witness.epoch) => found.map(|(master, _)| master),
        }
    }

    /// The other masters.
    fn masters_beside(&self, master: &HostPort) -> Vec<HostPort> {
        self.masters.iter().filter(|other| *other != master).cloned().collect()
    }

    /// Without a session the inventory still follows what the shards do; the next full report tells what is held. How
    /// orders ended that end now is told to nobody: the master that gave them gives them again when it has waited enough.
    async fn idle(&mut self, pause: Duration) {
        let over = tokio::time::sleep(pause);
        tokio::pin!(over);
        loop {
            tokio::select! {
                () = &mut over => return,
                _ = self.stop.changed() => return,
                Some(event) = self.events.recv() => self.note(event, &mut v1::ReplicaChanges::default()),
            }
        }
    }

    fn drain(&mut self) {
        while let Ok(event) = self.events.try_recv() {
            self.note(event, &mut v1::ReplicaChanges::default());
        }
    }

    /// Takes what a shard tells into the inventory, and into what is told to the master.
    fn note(&mut self, event: ShardEvent, changes: &mut v1::ReplicaChanges) {
        match event {
            ShardEvent::Committed { replica, disk } => {
                // Of a disk that lost bytes nothing counts as sound, not even what it took last.
                let corrupt = !self.node.disks[disk].is_healthy();
                self.inventory.add(replica, disk);
                self.inventory.mark(replica.chunk, disk, corrupt);
                changes.added.push(Held { replica, disk, corrupt }.message());
            }
            ShardEvent::Removed { chunk } => {
                let forgotten = self.forget(chunk);
                // Told when it was ordered; by now the node may have got a new one.
                if self.dropped.remove(&chunk) {
                    return;
                }
                // The master hears of it last: after that the node may get a new one. Else the order comes again.
                if forgotten {
                    self.inventory.remove(chunk);
                    changes.removed.push(chunk.0);
                }
            }
            ShardEvent::Checked { chunk, disk, found, bytes } => {
                self.checked(chunk, disk, &found, bytes, changes);
            }
            ShardEvent::Copied { chunk, target, outcome } => {
                let counters = &self.node.counters;
                let count = if outcome.is_ok() { &counters.copies_made } else { &counters.copies_failed };
                Counters::add(count, 1);
                let error = outcome.err();
                changes.replicated.push(v1::Replicated {
                    chunk_id: chunk.0,
                    target_node_id: target.0,
                    code: error.as_ref().map_or(0, |error| u32::from(error.code.number())),
                    failed_node_id: error.as_ref().map_or(0, |error| error.node.0),
                    text: error.map(|error| error.text).unwrap_or_default(),
                });
            }
        }
    }

    /// Has every shard forget a chunk that was removed; whether all will, before anything that is told to them later.
    fn forget(&self, chunk: ChunkId) -> bool {
        let told = self.shards.iter().map(|shard| match shard.try_send(ShardCommand::Forget(chunk)) {
            // One that has ended serves nobody.
            Ok(()) | Err(TrySendError::Closed(_)) => true,
            Err(TrySendError::Full(_)) => {
                tracing::warn!(%chunk, "a shard is busy: the removal is told after the next order");
                false
            }
        });
        told.fold(true, |all, one| all & one)
    }

    fn checked(
        &mut self,
        chunk: ChunkId,
        disk: usize,
        found: &Found,
        bytes: u64,
        changes: &mut v1::ReplicaChanges,
    ) {
        // Of a disk that lost bytes nothing counts as sound.
        let corrupt = *found == Found::Corrupt || !self.node.disks[disk].is_healthy();
        let counters = &self.node.counters;
        Counters::add(&counters.scrub_replicas, 1);
        Counters::add(&counters.scrub_corrupt, u64::from(corrupt));
        self.scrub.checked(self.started.elapsed(), chunk, bytes, corrupt);
        if *found == Found::Gone {
            if self.inventory.get(chunk).is_some_and(|held| held.disk == disk) {
                tracing::error!(%chunk, disk, "a replica is not there any more");
                self.inventory.remove(chunk);
            }
            changes.removed.push(chunk.0);
            return;
        }
        // One that was deleted meanwhile is not spoken of.
        let Some((held, news)) = self.inventory.mark(chunk, disk, corrupt) else { return };
        if news {
            changes.added.push(held.message());
        }
        changes.verified.push(held.message());
    }

    /// Gives the scrub its next replica when it is time.
    fn scrub(&mut self) {
        let now = self.started.elapsed();
        let (quiet, volume) = (self.quiet.look(now, self.node.counters.load()), self.volume());
        let inventory = &self.inventory;
        let next = self.scrub.next(now, quiet, volume, |after| inventory.next(after));
        let status = self.scrub.status(now, volume);
        let counters = &self.node.counters;
        counters.scrub_oldest_seconds.store(status.oldest_unchecked.as_secs(), Ordering::Relaxed);
        counters.scrub_pass_permille.store(u64::from(status.pass_permille), Ordering::Relaxed);
        if let Some((chunk, pace)) = next
            && !self.check(chunk, Some(pace))
        {
            self.scrub.put_off(now);
        }
    }

    /// What the scrub has behind it and before it.
    fn volume(&mut self) -> Volume {
        Volume { total: self.inventory.bytes(), unread: self.inventory.bytes_behind(self.scrub.after()) }
    }

    /// Has a replica read whole; whether a shard takes the order.
    fn check(&self, chunk: ChunkId, pace: Option<Pace>) -> bool {
        let Some(held) = self.inventory.get(chunk) else { return false };
        let check = Check { chunk, disk: held.disk, marked: held.corrupt, pace };
        self.order(chunk, ShardCommand::Check(check))
    }

    /// Gives an order to the shard of a chunk. One that is busy is not waited for: the shards tell this task what
    /// they did, and waiting could stop both.
    fn order(&self, chunk: ChunkId, command: ShardCommand) -> bool {
        let shard = &self.shards[(chunk.0 % self.shards.len() as u64) as usize];
        shard.capacity() > SHARD_QUEUE_FOR_CONNECTIONS && shard.try_send(command).is_ok()
    }

    /// Remembers what a master has shown before anything else is done with its message. A few synced writes, now
    /// and then; nothing else waits on this task meanwhile.
    ///
    /// Nothing is forgotten because a master shows less: that one is behind, and has to hear of it the next time, too.
    /// Only one that says that its loss was accepted makes what was shown before count no more.
    fn witness(&mut self, message: &v1::ToDatanode) -> Result<(), Fatal> {
        let (epoch, lsn) = (Epoch(message.epoch), Lsn(message.lsn));
        let seen = self.witness.joined(Witness { epoch, lsn, history: Epoch(message.history) });
        if seen != self.witness {
            self.on_every_folder(|folder| folder.set_witness(seen))?;
            self.witness = seen;
        }
        self.node.raise_epoch(epoch);
        Ok(())
    }

    /// Makes every folder one of this cluster, or fails when one is another's.
    fn join(&mut self, cluster: ClusterId) -> Result<(), Fatal> {
        self.on_every_folder(|folder| folder.join(cluster))?;
        // Set before: then it is the same, or a folder would have refused.
        let _ = self.node.cluster.set(cluster);
        Ok(())
    }

    /// Does this to every folder. A broken disk takes its folder out, not the node, unless no other took it; it is
    /// asked again only then.
    fn on_every_folder(
        &mut self,
        act: impl Fn(&mut Folder) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let (mut done, mut failure) = (0, None);
        let mut pairs: Vec<_> = self.node.disks.iter().zip(&mut self.folders).collect();
        pairs.sort_by_key(|(disk, _)| !disk.is_healthy());
        for (disk, folder) in pairs {
            if done > 0 && !disk.is_healthy() {
                break;
            }
            match act(folder) {
                Ok(()) => done += 1,
                Err(error @ StoreError::Folder { .. }) => return Err(error),
                Err(error) => {
                    tracing::error!(%error, "takes no more writes");
                    disk.suspect();
                    failure.get_or_insert(error);
                }
            }
        }
        failure.filter(|_| done == 0).map_or(Ok(()), Err)
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
