//! A shard: one thread with its own I/O body, buffers, connections and open chunks. Shards share nothing but the
//! file system and a few counters; messages pass by channels.
//!
//! One acceptor hands connections to the shards in turn. A listener per shard with SO_REUSEPORT would let the
//! kernel hash two connections onto one shard while another idles (FINDINGS, trap 9), and would let a second
//! daemon share the port without either of them noticing.

mod buffers;
mod check;
mod connection;
mod disk_writes;
mod first_reads;
mod in_flight;
mod intake;
mod outlet;
mod peer;
mod read;
mod read_batch;
mod reader_cache;
mod replicate;
mod trail;
mod wire;
mod write;

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::io;
use std::net::TcpStream;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use distrifs_engine::io::{Body, Io, block_on};
use distrifs_engine::store::journal::Journal;
use distrifs_engine::store::{ChunkStore, ReplicaInfo, StoreError};
use distrifs_proto::frame::{ErrorBody, patience};
use distrifs_proto::latency::Stages;
use distrifs_proto::types::{ChunkId, GenerationStamp, NodeId};
use tokio::sync::{Semaphore, mpsc};

use crate::node::{Counters, Node};
use crate::stage::Stage;
use buffers::Buffers;
pub(crate) use check::{Check, Found};
use first_reads::FirstReads;
use in_flight::InFlight;
use peer::PeerPool;
use reader_cache::ReaderCache;
pub(crate) use replicate::Copy;

/// Connections of one shard; further ones are closed at once.
const CONNECTIONS_MAX: usize = 4096;
/// Messages that wait for a shard.
pub(crate) const SHARD_QUEUE_MAX: usize = 1024;
/// Of these, so many are kept free of removals: a connection that finds no place is refused.
pub(crate) const SHARD_QUEUE_FOR_CONNECTIONS: usize = SHARD_QUEUE_MAX / 2;
/// Removals that are carried out at once.
const REMOVALS_AT_ONCE_MAX: usize = 8;
/// Removals that wait for their turn.
const REMOVALS_MAX: usize = 4096;
/// How long writes in progress may still take when the datanode stops.
const STOP_GRACE: Duration = Duration::from_secs(5);

/// What a shard is told.
#[derive(Debug)]
pub(crate) enum ShardCommand {
    /// Serve this connection.
    Serve(TcpStream),
    /// Forget an open chunk; the one shard that is named also removes it.
    Remove { removal: Removal, by_shard: usize },
    /// Forget an open chunk that was removed: until then a read may have opened it again.
    Forget(ChunkId),
    /// Read a replica whole and tell what it is.
    Check(Check),
    /// Copy a replica to another node and tell what came of it.
    Copy(Copy),
    /// Finish what is being written and end.
    Stop,
}

/// A replica that goes, unless it is newer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Removal {
    pub(crate) chunk: ChunkId,
    pub(crate) up_to: GenerationStamp,
    pub(crate) disk: usize,
    pub(crate) fate: Fate,
}

/// What becomes of a replica that is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Nothing is left of it.
    Deleted,
    /// It is kept for a person to look at.
    Quarantined,
}

/// What a shard tells.
#[derive(Debug)]
pub(crate) enum ShardEvent {
    /// A replica is durable.
    Committed { replica: ReplicaInfo, disk: usize },
    /// A replica is durably gone.
    Removed { chunk: ChunkId },
    /// A replica was read whole, as far as it could be: so many bytes.
    Checked { chunk: ChunkId, disk: usize, found: Found, bytes: u64 },
    /// A copy to `target` has ended.
    Copied { chunk: ChunkId, target: NodeId, outcome: Result<(), ErrorBody> },
}

/// What a shard is made of.
pub(crate) struct ShardConfig {
    pub(crate) index: usize,
    /// The data folders and the journal of each.
    pub(crate) folders: Vec<(PathBuf, Journal)>,
    pub(crate) node: Arc<Node>,
    pub(crate) events: mpsc::Sender<ShardEvent>,
    pub(crate) socket_timeout: Duration,
}

/// The state of a shard, shared by its tasks.
pub(crate) struct Shard {
    io: Io,
    node: Arc<Node>,
    latency: Arc<Stages<Stage>>,
    disks: Vec<ChunkStore>,
    buffers: Buffers,
    /// Those that are answered beside others, of all connections.
    small_reads: InFlight,
    peers: PeerPool,
    readers: RefCell<ReaderCache>,
    first_reads: RefCell<FirstReads>,
    /// Replicas that this shard has marked: of these orders that were on their way do not know. As many as are damaged.
    marked: RefCell<HashSet<ChunkId>>,
    events: mpsc::Sender<ShardEvent>,
    connections: Cell<usize>,
    socket_timeout: Duration,
}

/// Runs a shard on this thread until it is told to stop.
pub(crate) fn run(body: Body, config: ShardConfig, commands: mpsc::Receiver<ShardCommand>) -> io::Result<()> {
    block_on(body, |io| serve(io, config, commands))?
}

async fn serve(io: Io, config: ShardConfig, mut commands: mpsc::Receiver<ShardCommand>) -> io::Result<()> {
    let attach = |(root, journal)| ChunkStore::attach(io.clone(), root, Some(journal));
    let shards = config.node.latency.get().map(Vec::as_slice).unwrap_or_default();
    let shard = Rc::new(Shard {
        latency: shards.get(config.index).cloned().unwrap_or_default(),
        node: config.node,
        disks: config.folders.into_iter().map(attach).collect(),
        buffers: Buffers::new()?,
        small_reads: InFlight::default(),
        peers: PeerPool::new(io.clone(), patience(config.socket_timeout, 0)),
        readers: RefCell::default(),
        first_reads: RefCell::default(),
        marked: RefCell::default(),
        events: config.events,
        connections: Cell::new(0),
        socket_timeout: config.socket_timeout,
        io,
    });
    let (remove, removals) = mpsc::channel(REMOVALS_MAX);
    shard.io.spawn(shard.clone().remove_all(removals));
    let (check, checks) = mpsc::channel(check::CHECKS_MAX);
    let (scrub, scrubs) = mpsc::channel(check::SCRUBS_MAX);
    shard.io.spawn(shard.clone().check_all(checks, scrubs));
    let (copy, copies) = mpsc::channel(replicate::COPIES_MAX);
    let copying = replicate::Copying::default();
    shard.io.spawn(shard.clone().copy_all(copies, copying.clone()));
    while let Some(command) = commands.recv().await {
        match command {
            ShardCommand::Serve(socket) => shard.accept(socket),
            ShardCommand::Remove { removal, by_shard } => {
                shard.readers.borrow_mut().remove(removal.chunk);
                if by_shard == config.index && remove.try_send(removal).is_err() {
                    tracing::debug!(chunk = %removal.chunk, "many removals wait: this one waits for the next order");
                }
            }
            ShardCommand::Forget(chunk) => shard.readers.borrow_mut().remove(chunk),
            ShardCommand::Check(it) => {
                let queue = if it.pace.is_some() { &scrub } else { &check };
                if queue.try_send(it).is_err() {
                    tracing::debug!(chunk = %it.chunk, "many checks wait: this one waits for the next order");
                }
            }
            ShardCommand::Copy(it) => {
                let key = (it.chunk, it.target.node);
                if copying.borrow_mut().insert(key) && copy.try_send(it).is_err() {
                    copying.borrow_mut().remove(&key);
                    tracing::debug!(chunk = %key.0, "many copies wait: this one waits for the next order");
                }
            }
            ShardCommand::Stop => break,
        }
    }
    let deadline = shard.io.now() + STOP_GRACE;
    while shard.node.counters.open_writes.load(Ordering::Relaxed) > 0 && shard.io.now() < deadline {
        shard.io.sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

impl Shard {
    fn accept(self: &Rc<Self>, socket: TcpStream) {
        if self.connections.get() >= CONNECTIONS_MAX {
            Counters::add(&self.node.counters.connections_refused, 1);
            return;
        }
        self.connections.set(self.connections.get() + 1);
        Counters::add(&self.node.counters.connections, 1);
        let this = self.clone();
        self.io.spawn(async move {
            connection::serve(this.clone(), socket).await;
            this.connections.set(this.connections.get() - 1);
            this.node.counters.connections.fetch_sub(1, Ordering::Relaxed);
        });
    }

    /// Removes a few at a time: those of one directory share its sync, and they must not crowd out reads and
    /// writes. Beside the commands: connections must not wait for removals.
    async fn remove_all(self: Rc<Self>, mut removals: mpsc::Receiver<Removal>) {
        let places = Arc::new(Semaphore::new(REMOVALS_AT_ONCE_MAX));
        while let Some(removal) = removals.recv().await {
            let Ok(place) = places.clone().acquire_owned().await else { return };
            let this = self.clone();
            self.io.spawn(async move {
                this.remove(removal).await;
                drop(place);
            });
        }
    }

    async fn remove(&self, Removal { chunk, up_to, disk, fate }: Removal) {
        let store = &self.disks[disk];
        let removed = match fate {
            Fate::Deleted => store.delete(chunk, up_to).await,
            Fate::Quarantined => store.quarantine(chunk, up_to).await,
        };
        match removed {
            Ok(()) => {
                self.marked.borrow_mut().remove(&chunk);
                let kept = u64::from(fate == Fate::Quarantined);
                Counters::add(&self.node.counters.chunks_in_quarantine, kept);
                self.tell(ShardEvent::Removed { chunk }).await;
            }
            Err(error) => {
                tracing::warn!(%chunk, ?fate, %error, "a replica could not be removed");
                self.judge(disk, &error);
            }
        }
    }

    async fn tell(&self, event: ShardEvent) {
        if self.events.send(event).await.is_err() {
            tracing::debug!("the control plane has ended");
        }
    }

    /// Whether a test wants a stage of reads to take longer.
    fn holds_up_reads(&self) -> bool {
        let stages = [Stage::ReadOpen, Stage::ReadQueue, Stage::ReadDisk, Stage::ReadSeal, Stage::ReadSend];
        stages.into_iter().any(|stage| self.latency.delay(stage).is_some())
    }

    /// Takes a disk out of the write set when an error says that it lost, or may have lost, bytes.
    fn judge(&self, disk: usize, error: &StoreError) {
        if error.suspects_folder() && self.node.disks[disk].is_healthy() {
            tracing::error!(folder = %self.disks[disk].root().display(), %error, "takes no more writes");
            self.node.disks[disk].suspect();
        }
    }
}
