//! A simulated datanode: the real session with the master, and an inventory of chunk ids instead of bytes.
//!
//! It registers, sends its full block report, heartbeats and incremental reports, and obeys orders as
//! `datanode::control::session` does. A copy takes no time: the source reports it done and the target reports the new
//! replica.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use distrifs_master::bench_support::{PlantedChunk, planted_chunk};
use distrifs_proto::grpc::v1::datanode_service_client::DatanodeServiceClient;
use distrifs_proto::grpc::v1::from_datanode::Body as Say;
use distrifs_proto::grpc::v1::to_datanode::Body as Hear;
use distrifs_proto::grpc::{text_of, v1};
use distrifs_proto::limits::{GRPC_MESSAGE_BYTES_MAX, REPORT_PART_MAX};
use distrifs_proto::types::{ChunkId, HostPort};
use distrifs_proto::{ErrorCode, InventoryDigest};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, sleep, sleep_until, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::{Channel, Endpoint};

use super::fleet::Shared;

/// Messages to the master that wait for the network, as in the real datanode.
const OUTBOUND_MAX: usize = 16;
/// Pause between two incremental reports, as in the real datanode: what happens meanwhile is sent in one message.
const CHANGES_PAUSE: Duration = Duration::from_millis(10);
/// Retry pause of a node without a session: the first, and the longest.
const RETRY_PAUSE_MIN: Duration = Duration::from_millis(100);
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(2);
/// The shortest heartbeat interval that a master may ask for.
const HEARTBEAT_INTERVAL_MIN: Duration = Duration::from_millis(10);
/// What its one folder claims to have: more than any run places on it.
const CAPACITY_BYTES: u64 = 4 << 40;

/// One simulated datanode; one task runs it.
pub(super) struct SimNode {
    pub(super) fleet: Arc<Shared>,
    pub(super) index: u64,
    /// Chunks that were written to it by clients or by other nodes.
    pub(super) stored: mpsc::Receiver<u64>,
    inventory: BTreeSet<u64>,
    /// 0 until it has joined one.
    cluster: (u64, u64),
    /// The highest epoch and LSN that it was shown.
    epoch_seen: u64,
    lsn_seen: u64,
}

/// An open session, as one side of a connection.
pub(super) struct Link {
    say: mpsc::Sender<v1::FromDatanode>,
    hear: Streaming<v1::ToDatanode>,
    pub(super) registered: v1::Registered,
    /// Epoch and LSN of the first message.
    shown: (u64, u64),
}

/// A session after its registration.
struct Session {
    link: Link,
    heartbeat: Interval,
    digest: Interval,
    /// Opens when block reports may be sent.
    reports: watch::Receiver<bool>,
    reported: bool,
    changes_from: Instant,
}

impl Link {
    /// A connection as a datanode opens it.
    pub(super) async fn connect(master: &HostPort, patience: Duration) -> Result<Channel, String> {
        let endpoint = Endpoint::from_shared(format!("http://{master}")).map_err(|e| e.to_string())?;
        let endpoint = endpoint
            .connect_timeout(patience)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(patience / 4)
            .keep_alive_timeout(patience / 2)
            .keep_alive_while_idle(true);
        endpoint.connect().await.map_err(|e| e.to_string())
    }

    /// Registers over this connection and waits for the confirmation.
    pub(super) async fn open(
        channel: Channel,
        register: v1::Register,
        patience: Duration,
    ) -> Result<Self, String> {
        let mut client =
            DatanodeServiceClient::new(channel).max_decoding_message_size(GRPC_MESSAGE_BYTES_MAX);
        let (say, queue) = mpsc::channel(OUTBOUND_MAX);
        let register = v1::FromDatanode { body: Some(Say::Register(register)) };
        say.try_send(register).map_err(|_| "the session closed at once".to_owned())?;
        let greeted = timeout(patience, async {
            let mut hear = client.session(ReceiverStream::new(queue)).await?.into_inner();
            Ok::<_, tonic::Status>((hear.message().await?, hear))
        });
        let (first, hear) = match greeted.await {
            Ok(Ok((Some(first), hear))) => (first, hear),
            Ok(Ok((None, _))) => return Err("closed by the master".to_owned()),
            Ok(Err(status)) => return Err(text_of(&status)),
            Err(_) => return Err(format!("no answer to the registration within {patience:?}")),
        };
        match first.body {
            Some(Hear::Registered(registered)) => {
                Ok(Self { say, hear, registered, shown: (first.epoch, first.lsn) })
            }
            _ => Err("orders before the registration was confirmed".to_owned()),
        }
    }
}

impl SimNode {
    pub(super) fn new(fleet: Arc<Shared>, index: u64, stored: mpsc::Receiver<u64>) -> Self {
        let inventory = fleet.planted_on(index).into_iter().collect();
        Self { fleet, index, stored, inventory, cluster: (0, 0), epoch_seen: 0, lsn_seen: 0 }
    }

    /// Keeps a session while the node is up; a node that is down keeps its inventory. Ends with the fleet.
    pub(super) async fn run(mut self) {
        let (mut power, index) = (self.fleet.power.subscribe(), self.index);
        let mut pause = RETRY_PAUSE_MIN;
        while power.wait_for(|down| *down <= index).await.is_ok() {
            let mut registered = false;
            let ended = tokio::select! {
                ended = self.session(&mut registered) => ended,
                // Dropping the session drops its connection, in the middle of whatever it did.
                _ = power.wait_for(|down| *down > index) => continue,
            };
            let Err(why) = ended;
            tracing::debug!(node = self.fleet.id_of(index), why, "no session");
            self.fleet.note_failure(why);
            pause = if registered { RETRY_PAUSE_MIN } else { (pause * 2).min(RETRY_PAUSE_MAX) };
            sleep(pause).await;
        }
    }

    async fn session(&mut self, registered: &mut bool) -> Result<Infallible, String> {
        let fleet = self.fleet.clone();
        let link = {
            // Ends with the fleet only, which ends this task, too.
            let _turn = fleet.registering.acquire().await.map_err(|error| error.to_string())?;
            let channel = Link::connect(&fleet.master, fleet.patience).await?;
            Link::open(channel, self.registration(), fleet.patience).await?
        };
        self.witness(link.shown.0, link.shown.1)?;
        self.cluster = (link.registered.cluster_id_high, link.registered.cluster_id_low);
        *registered = true;
        let _counted = fleet.count_session();
        let beat = Duration::from_millis(link.registered.heartbeat_interval_ms).max(HEARTBEAT_INTERVAL_MIN);
        let digest = Duration::from_millis(link.registered.block_report_interval_ms.max(1));
        let mut session = Session {
            heartbeat: every(fleet.next_beat(self.index, beat), beat),
            digest: every(Instant::now() + digest, digest),
            reports: fleet.reports.subscribe(),
            reported: false,
            changes_from: Instant::now(),
            link,
        };
        self.converse(&mut session).await
    }

    async fn converse(&mut self, session: &mut Session) -> Result<Infallible, String> {
        loop {
            tokio::select! {
                biased;
                message = session.link.hear.message() => match message {
                    Ok(Some(message)) => self.obey(session, message).await?,
                    Ok(None) => return Err("closed by the master".to_owned()),
                    Err(status) => return Err(text_of(&status)),
                },
                _ = session.heartbeat.tick() => self.beat(session).await?,
                () = reports_open(&mut session.reports), if !session.reported => {
                    session.reported = true;
                    self.report(session).await?;
                    // Without a heartbeat the master knows of no free space and places nothing here.
                    self.beat(session).await?;
                }
                _ = session.digest.tick(), if session.reported => {
                    let digest = Some(self.digest());
                    let report = v1::BlockReport { digest, ..v1::BlockReport::default() };
                    self.tell(session, Say::BlockReport(report)).await?;
                }
                Some(chunk) = next_stored(&mut self.stored, session.changes_from) => {
                    self.report_stored(session, Some(chunk)).await?;
                }
            }
        }
    }

    fn registration(&self) -> v1::Register {
        v1::Register {
            cluster_id_high: self.cluster.0,
            cluster_id_low: self.cluster.1,
            node_id: self.fleet.id_of(self.index),
            data_address: self.fleet.data_address.clone(),
            rack: format!("rack-{}", self.fleet.layout.rack_of(self.index)),
            epoch_seen: self.epoch_seen,
            lsn_seen: self.lsn_seen,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            incarnation: self.index,
        }
    }

    fn witness(&mut self, epoch: u64, lsn: u64) -> Result<(), String> {
        if epoch < self.epoch_seen {
            return Err(format!("its epoch {epoch} is over: epoch {} was shown here", self.epoch_seen));
        }
        self.epoch_seen = epoch;
        self.lsn_seen = self.lsn_seen.max(lsn);
        Ok(())
    }

    async fn tell(&self, session: &Session, body: Say) -> Result<(), String> {
        let message = v1::FromDatanode { body: Some(body) };
        match timeout(self.fleet.patience, session.link.say.send(message)).await {
            Ok(Ok(())) => {
                self.fleet.note_sent(self.index);
                Ok(())
            }
            Ok(Err(_)) => Err("the session is closed".to_owned()),
            Err(_) => Err(format!("the master takes nothing for {:?}", self.fleet.patience)),
        }
    }

    async fn beat(&self, session: &Session) -> Result<(), String> {
        let chunks = self.inventory.len() as u64;
        let used_bytes = chunks << 15;
        let dir = v1::DataDir {
            path: "/simulated".to_owned(),
            capacity_bytes: CAPACITY_BYTES,
            free_bytes: CAPACITY_BYTES.saturating_sub(used_bytes),
            used_bytes,
            healthy: true,
            commit_us: 1000,
        };
        let heartbeat = v1::Heartbeat {
            data_dirs: vec![dir],
            chunks,
            io_body: "posix".to_owned(),
            ..v1::Heartbeat::default()
        };
        self.tell(session, Say::Heartbeat(heartbeat)).await
    }

    async fn report(&self, session: &Session) -> Result<(), String> {
        let mut chunks = self.inventory.iter().copied().peekable();
        let mut first = true;
        loop {
            let replicas = chunks.by_ref().take(REPORT_PART_MAX).map(replica).collect();
            let last = chunks.peek().is_none();
            let part = v1::BlockReport { replicas, first, last, digest: None };
            self.tell(session, Say::BlockReport(part)).await?;
            if last {
                return Ok(());
            }
            first = false;
        }
    }

    fn digest(&self) -> v1::InventoryDigest {
        let of = |chunk: &u64| {
            let PlantedChunk { generation, length, crc } = planted_chunk(ChunkId(*chunk));
            InventoryDigest::of(ChunkId(*chunk), generation, length, crc, false)
        };
        let sum = self.inventory.iter().map(of).fold(InventoryDigest::default(), InventoryDigest::plus);
        v1::InventoryDigest { count: sum.count, sum: sum.sum }
    }

    /// Reports new replicas, as many as wait.
    async fn report_stored(&mut self, session: &mut Session, first: Option<u64>) -> Result<(), String> {
        let mut changes = v1::ReplicaChanges::default();
        let mut next = first.or_else(|| self.stored.try_recv().ok());
        while let Some(chunk) = next {
            self.inventory.insert(chunk);
            changes.added.push(replica(chunk));
            let has_space = changes.added.len() < REPORT_PART_MAX;
            next = if has_space { self.stored.try_recv().ok() } else { None };
        }
        if changes.added.is_empty() {
            return Ok(());
        }
        session.changes_from = Instant::now() + CHANGES_PAUSE;
        self.tell(session, Say::Changes(changes)).await
    }

    async fn obey(&mut self, session: &mut Session, message: v1::ToDatanode) -> Result<(), String> {
        self.witness(message.epoch, message.lsn)?;
        let Some(Hear::Orders(orders)) = message.body else { return Ok(()) };
        // An order may be about a chunk that was stored this moment.
        self.report_stored(session, None).await?;
        let mut changes = v1::ReplicaChanges::default();
        let removals = orders.delete.iter().chain(&orders.quarantine).map(|order| order.chunk_id);
        let drops = orders.drop.iter().filter(|order| !order.corrupt).map(|order| order.chunk_id);
        changes.removed.extend(removals.chain(drops).filter(|chunk| self.inventory.remove(chunk)));
        for chunk in orders.verify {
            match self.inventory.contains(&chunk) {
                true => changes.verified.push(replica(chunk)),
                false => changes.removed.push(chunk),
            }
        }
        self.fleet.note_copies(orders.replicate.len());
        changes.replicated.extend(orders.replicate.iter().map(|order| self.replicate(order)));
        if changes != v1::ReplicaChanges::default() {
            self.tell(session, Say::Changes(changes)).await?;
        }
        if orders.report && session.reported {
            self.report(session).await?;
        }
        Ok(())
    }

    /// Hands the chunk to its target, which reports it over its own session.
    fn replicate(&self, order: &v1::ReplicateChunk) -> v1::Replicated {
        let own = self.fleet.id_of(self.index);
        let failure = if self.inventory.contains(&order.chunk_id) {
            let stored = self.fleet.try_store(order.target_node_id, order.chunk_id);
            stored.err().map(|code| (code, order.target_node_id))
        } else {
            Some((ErrorCode::NoSuchChunk, own))
        };
        v1::Replicated {
            chunk_id: order.chunk_id,
            target_node_id: order.target_node_id,
            code: failure.map_or(0, |(code, _)| u32::from(code.number())),
            text: failure.map(|(code, _)| code.to_string()).unwrap_or_default(),
            failed_node_id: failure.map_or(0, |(_, node)| node),
        }
    }
}

fn replica(chunk: u64) -> v1::Replica {
    let PlantedChunk { generation, length, crc } = planted_chunk(ChunkId(chunk));
    v1::Replica { chunk_id: chunk, generation: generation.0, length, crc32c: crc.0, corrupt: false }
}

fn every(first: Instant, period: Duration) -> Interval {
    let mut ticks = interval_at(first, period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// Resolves when block reports may be sent.
async fn reports_open(reports: &mut watch::Receiver<bool>) {
    // An error is the end of the fleet, and so of this task.
    let _ = reports.wait_for(|open| *open).await;
}

/// The next stored chunk, not before `from`.
async fn next_stored(stored: &mut mpsc::Receiver<u64>, from: Instant) -> Option<u64> {
    sleep_until(from).await;
    stored.recv().await
}

/// Sessions that are counted end with this.
pub(super) struct CountedSession(pub(super) Arc<Shared>);

impl Drop for CountedSession {
    fn drop(&mut self) {
        self.0.sessions.fetch_sub(1, Ordering::Relaxed);
    }
}
