//! One session with the leader: register, report everything, then heartbeats, changes and orders.

use std::time::Duration;

use distrifs_proto::frame::Hop;
use distrifs_proto::grpc::v1::datanode_service_client::DatanodeServiceClient;
use distrifs_proto::grpc::v1::from_datanode::Body as Say;
use distrifs_proto::grpc::v1::to_datanode::Body as Hear;
use distrifs_proto::grpc::{self, v1};
use distrifs_proto::limits::{GRPC_MESSAGE_BYTES_MAX, REPORT_PART_MAX};
use distrifs_proto::types::{ChunkId, ClusterId, Crc32c, Epoch, GenerationStamp, HostPort, NodeId};
use distrifs_proto::{ErrorCode, InventoryDigest};
use tokio::sync::mpsc;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, sleep_until, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Endpoint;
use tonic::{Status, Streaming};

use super::inventory::Held;
use super::leader::LeaderWatch;
use super::{Control, DROPPED_MAX, Fatal};
use crate::shard::{Copy, Fate, Removal, SHARD_QUEUE_FOR_CONNECTIONS, ShardCommand, ShardEvent};

/// Messages to the master that wait for the network.
const OUTBOUND_MAX: usize = 16;
/// The pause between two incremental reports: what happens meanwhile is told together. What follows a longer silence is
/// told at once, so that the master hears of a commit within this time. Under a load of small files each commit would
/// cost a wake here and one at the master, on the cores that the next commit waits for.
const CHANGES_PAUSE: Duration = Duration::from_millis(10);
/// The shortest heartbeat interval a master may ask for.
const HEARTBEAT_INTERVAL_MIN: Duration = Duration::from_millis(10);

/// How a session ended without the datanode having to end.
pub(super) enum SessionEnd {
    Stopped,
    /// The master holds this node for alive elsewhere: a copied folder, or a session of before that broke in
    /// silence, as in a power cut, and will be found dead.
    Taken(String),
    Lost {
        text: String,
        was_registered: bool,
    },
}

/// An open session.
struct Session {
    say: mpsc::Sender<v1::FromDatanode>,
    hear: Streaming<v1::ToDatanode>,
    heartbeat: Interval,
    report: Interval,
    patience: Duration,
    /// Whether the full report was sent.
    reported: bool,
    /// From when on changes are told again.
    changes_from: Instant,
    watch: LeaderWatch,
}

/// Why a session is over.
enum Over {
    Lost(String),
    Taken(String),
    Fatal(Fatal),
}

impl From<Fatal> for Over {
    fn from(fatal: Fatal) -> Self {
        Self::Fatal(fatal)
    }
}

/// The leader says nothing, and another master leads.
fn silent(other: &HostPort) -> Over {
    Over::Lost(format!("silent, and {other} leads"))
}

impl Control {
    pub(super) async fn session(&mut self, master: &HostPort) -> Result<SessionEnd, Fatal> {
        let mut stop = self.stop.clone();
        let (mut watch, seen) = (LeaderWatch::new(self.masters_beside(master)), self.witness.epoch);
        let opened = tokio::select! {
            _ = stop.changed() => return Ok(SessionEnd::Stopped),
            opened = self.open(master) => opened,
            // One that said that it leads may stand still before it has said more.
            other = watch.other_leads(seen) => Err(silent(&other)),
        };
        let (over, was_registered) = match opened {
            Ok(mut session) => {
                tracing::info!(%master, epoch = %self.witness.epoch, "registered");
                tokio::select! {
                    _ = stop.changed() => return Ok(SessionEnd::Stopped),
                    over = self.converse(&mut session) => (over, true),
                }
            }
            Err(over) => (over, false),
        };
        match over {
            Over::Lost(text) => Ok(SessionEnd::Lost { text, was_registered }),
            Over::Taken(text) => Ok(SessionEnd::Taken(text)),
            Over::Fatal(fatal) => Err(fatal),
        }
    }

    async fn open(&mut self, master: &HostPort) -> Result<Session, Over> {
        let lost = |what: &str| Over::Lost(what.to_owned());
        let patience = self.socket_timeout;
        let endpoint = Endpoint::from_shared(format!("http://{master}"))
            .map_err(|e| Over::Lost(e.to_string()))?
            .connect_timeout(patience)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(patience / 4)
            .keep_alive_timeout(patience / 2)
            .keep_alive_while_idle(true);
        let channel = endpoint.connect().await.map_err(|e| Over::Lost(cause(&e)))?;
        let mut client =
            DatanodeServiceClient::new(channel).max_decoding_message_size(GRPC_MESSAGE_BYTES_MAX);
        let (say, queue) = mpsc::channel(OUTBOUND_MAX);
        let register = Say::Register(self.registration());
        say.send(v1::FromDatanode { body: Some(register) }).await.map_err(|_| lost("closed"))?;
        let greeted = timeout(patience, async {
            let mut hear = client.session(ReceiverStream::new(queue)).await?.into_inner();
            Ok::<_, Status>((hear.message().await?, hear))
        });
        let (first, hear) = match greeted.await {
            Ok(Ok(greeted)) => greeted,
            Ok(Err(status)) => return Err(refusal(master, &status)),
            Err(_) => return Err(lost("no answer to the registration")),
        };
        let first = first.ok_or_else(|| lost("closed by the master"))?;
        self.check_epoch(&first)?;
        let Some(Hear::Registered(registered)) = &first.body else {
            return Err(lost("orders before the registration was confirmed"));
        };
        self.join(ClusterId::from_halves(registered.cluster_id_high, registered.cluster_id_low))?;
        self.witness(&first)?;
        let every = |ms: u64| {
            let mut ticks = interval(Duration::from_millis(ms).max(HEARTBEAT_INTERVAL_MIN));
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            ticks
        };
        let heartbeat = every(registered.heartbeat_interval_ms);
        let report = every(registered.block_report_interval_ms);
        let interval = Duration::from_millis(registered.heartbeat_interval_ms);
        let watch = LeaderWatch::of_session(self.masters_beside(master), interval);
        let changes_from = Instant::now();
        Ok(Session { say, hear, heartbeat, report, patience, reported: false, changes_from, watch })
    }

    async fn converse(&mut self, session: &mut Session) -> Over {
        loop {
            // The first tick of both comes at once: the full report, then a heartbeat.
            let done = tokio::select! {
                biased;
                message = session.hear.message() => match message {
                    Ok(Some(message)) => {
                        session.watch.heard();
                        self.obey(session, message).await
                    }
                    Ok(None) => Err(Over::Lost("closed by the master".into())),
                    Err(status) => Err(Over::Lost(grpc::text_of(&status))),
                },
                _ = session.report.tick() => {
                    // The whole list once; afterwards the master asks for it when it has another picture.
                    if std::mem::replace(&mut session.reported, true) {
                        self.report_digest(session).await
                    } else {
                        self.report(session).await
                    }
                }
                _ = session.heartbeat.tick() => {
                    let heartbeat = self.heartbeat();
                    match session.tell(Say::Heartbeat(heartbeat)).await {
                        Ok(()) => self.report_lost_disks(session).await,
                        over => over,
                    }
                }
                other = session.watch.other_leads(self.witness.epoch) => {
                    Err(silent(&other))
                }
                () = sleep_until((self.started + self.scrub.due()).into()) => {
                    self.scrub();
                    Ok(())
                }
                event = next_event(&mut self.events, session.changes_from) => match event {
                    Some(event) => self.tell_changes(session, event).await,
                    None => Err(Over::Lost("the shards have ended".into())),
                },
            };
            if let Err(over) = done {
                return over;
            }
        }
    }

    /// What a message must show before it is looked at: the orders of a replaced master are refused.
    fn check_epoch(&self, message: &v1::ToDatanode) -> Result<(), Over> {
        let (own, shown) = (self.witness.epoch, Epoch(message.epoch));
        if shown < own {
            return Err(Over::Lost(format!("its epoch {shown} is over: epoch {own} was shown here")));
        }
        Ok(())
    }

    async fn obey(&mut self, session: &mut Session, message: v1::ToDatanode) -> Result<(), Over> {
        self.check_epoch(&message)?;
        self.witness(&message)?;
        let Some(Hear::Orders(orders)) = message.body else { return Ok(()) };
        // An order may be about a chunk that was committed this moment: it is not to be taken for missing.
        self.tell_waiting(session).await?;
        for (orders, fate) in [(orders.delete, Fate::Deleted), (orders.quarantine, Fate::Quarantined)] {
            for order in orders {
                self.remove(ChunkId(order.chunk_id), GenerationStamp(order.generation), fate);
            }
        }
        let mut gone = v1::ReplicaChanges::default();
        for order in orders.drop {
            self.drop_replica(&order, &mut gone);
        }
        for chunk in orders.verify.into_iter().map(ChunkId) {
            if self.inventory.get(chunk).is_none() {
                gone.removed.push(chunk.0);
            } else if !self.check(chunk, None) {
                tracing::debug!(%chunk, "a shard is busy: the check waits for the next order");
            }
        }
        for order in orders.replicate {
            self.replicate(&order, &mut gone);
        }
        if gone != v1::ReplicaChanges::default() {
            session.tell(Say::Changes(gone)).await?;
        }
        if orders.report {
            self.report(session).await?;
        }
        Ok(())
    }

    /// A replica of a chunk that lives on goes. From here on it counts for nobody, so that another one is not told to go
    /// in its place while this one waits for its disk.
    fn drop_replica(&mut self, order: &v1::DropReplica, changes: &mut v1::ReplicaChanges) {
        let chunk = ChunkId(order.chunk_id);
        // What the master thinks of the replica must be what is known of it here.
        let agreed = self.inventory.get(chunk).is_some_and(|held| held.corrupt == order.corrupt);
        if agreed
            && self.dropped.len() < DROPPED_MAX
            && self.remove(chunk, GenerationStamp(order.generation), Fate::Deleted)
        {
            self.dropped.insert(chunk);
            self.inventory.remove(chunk);
            changes.removed.push(chunk.0);
        }
    }

    /// Begins a copy, or says at once why there will be none.
    fn replicate(&self, order: &v1::ReplicateChunk, changes: &mut v1::ReplicaChanges) {
        let (chunk, target) = (ChunkId(order.chunk_id), NodeId(order.target_node_id));
        let mut refuse = |code: ErrorCode, text: String| {
            changes.replicated.push(v1::Replicated {
                chunk_id: chunk.0,
                target_node_id: target.0,
                code: u32::from(code.number()),
                text,
                failed_node_id: self.node.id.0,
            });
        };
        let Ok(address) = order.target_address.parse::<HostPort>() else {
            return refuse(ErrorCode::Protocol, format!("{:?} is no address", order.target_address));
        };
        let held = match self.inventory.get(chunk) {
            None => return refuse(ErrorCode::NoSuchChunk, "there is no such replica".into()),
            Some(held) if held.corrupt => {
                return refuse(ErrorCode::Corrupt, "the replica is damaged".into());
            }
            Some(held) => held,
        };
        let copy = Copy {
            chunk,
            disk: held.disk,
            generation: GenerationStamp(order.generation),
            length: order.length,
            crc: Crc32c(order.crc32c),
            target: Hop { node: target, address },
        };
        if !self.order(chunk, ShardCommand::Copy(copy)) {
            refuse(ErrorCode::Busy, "a shard is busy".into());
        }
    }

    /// Has a replica removed that is not newer; whether its shard takes the order.
    fn remove(&self, chunk: ChunkId, up_to: GenerationStamp, fate: Fate) -> bool {
        let Some(disk) = self.inventory.disk_of(chunk, up_to) else { return false };
        let by_shard = (chunk.0 % self.shards.len() as u64) as usize;
        let mut taken = false;
        for (at, shard) in self.shards.iter().enumerate() {
            // The shards tell this task what they did: waiting for one that is busy could stop both. The order
            // comes again.
            let has_room = shard.capacity() > SHARD_QUEUE_FOR_CONNECTIONS;
            let remove = ShardCommand::Remove { removal: Removal { chunk, up_to, disk, fate }, by_shard };
            if has_room && shard.try_send(remove).is_ok() {
                taken |= at == by_shard;
            } else {
                tracing::debug!(%chunk, "a shard is busy: the removal waits for the next order");
            }
        }
        taken
    }

    /// The whole list, behind what waits: of the ends of what the master ordered it says nothing.
    async fn report(&mut self, session: &mut Session) -> Result<(), Over> {
        self.tell_waiting(session).await?;
        for part in self.inventory.report() {
            session.tell(Say::BlockReport(part)).await?;
        }
        Ok(())
    }

    /// Tells what waits for the end of the pause: what comes next builds on it.
    async fn tell_waiting(&mut self, session: &mut Session) -> Result<(), Over> {
        // Once: all that waits is told together, and what comes meanwhile must not hold up what follows.
        match self.events.try_recv() {
            Ok(event) => self.tell_changes(session, event).await,
            Err(_) => Ok(()),
        }
    }

    /// This event and all that wait behind it.
    async fn tell_changes(&mut self, session: &mut Session, first: ShardEvent) -> Result<(), Over> {
        let changes = self.changes(first);
        session.changes_from = Instant::now() + CHANGES_PAUSE;
        session.tell(Say::Changes(changes)).await
    }

    /// What was told, in two numbers. The master may know of a commit from the client already.
    async fn report_digest(&mut self, session: &mut Session) -> Result<(), Over> {
        self.tell_waiting(session).await?;
        let InventoryDigest { count, sum } = self.inventory.digest();
        let digest = Some(v1::InventoryDigest { count, sum });
        session.tell(Say::BlockReport(v1::BlockReport { digest, ..v1::BlockReport::default() })).await
    }

    /// This event and all that wait behind it, as one incremental report.
    fn changes(&mut self, first: ShardEvent) -> v1::ReplicaChanges {
        let mut changes = v1::ReplicaChanges::default();
        let mut next = Some(first);
        while let Some(event) = next {
            self.note(event, &mut changes);
            let told = [
                changes.added.len(),
                changes.removed.len(),
                changes.verified.len(),
                changes.replicated.len(),
            ];
            let room = told.iter().sum::<usize>() < REPORT_PART_MAX;
            next = if room { self.events.try_recv().ok() } else { None };
        }
        changes
    }

    /// Tells the master that what is on a disk which lost bytes does not count any more.
    async fn report_lost_disks(&mut self, session: &Session) -> Result<(), Over> {
        for disk in 0..self.node.disks.len() {
            if self.node.disks[disk].is_healthy() || std::mem::replace(&mut self.lost_disks[disk], true) {
                continue;
            }
            let lost: Vec<v1::Replica> = self.inventory.lose_disk(disk).iter().map(Held::message).collect();
            tracing::error!(folder = %self.folders[disk].root().display(), replicas = lost.len(), "is lost");
            for part in lost.chunks(REPORT_PART_MAX) {
                let added = part.to_vec();
                session.tell(Say::Changes(v1::ReplicaChanges { added, ..Default::default() })).await?;
            }
        }
        Ok(())
    }

    fn registration(&self) -> v1::Register {
        let (cluster_id_high, cluster_id_low) =
            self.node.cluster.get().copied().unwrap_or_default().to_halves();
        v1::Register {
            cluster_id_high,
            cluster_id_low,
            node_id: self.node.id.0,
            data_address: self.data_address.to_string(),
            rack: self.rack.clone(),
            epoch_seen: self.witness.epoch.0,
            lsn_seen: self.witness.lsn.0,
            version: env!("CARGO_PKG_VERSION").into(),
            incarnation: self.incarnation,
        }
    }

    fn heartbeat(&mut self) -> v1::Heartbeat {
        Self::measure_room(&self.node, &self.folders);
        let volume = self.volume();
        let scrub = self.scrub.status(self.started.elapsed(), volume);
        let dir = |(i, (disk, folder)): (usize, (&crate::node::Disk, &distrifs_engine::store::Folder))| {
            v1::DataDir {
                path: folder.root().to_string_lossy().into_owned(),
                capacity_bytes: disk.room().0,
                free_bytes: disk.room_for_chunks(),
                used_bytes: self.inventory.used_bytes(i),
                healthy: disk.is_healthy(),
                commit_us: disk.commit_us(),
            }
        };
        let left_out = self.left_out.iter().map(|path| v1::DataDir {
            path: path.to_string_lossy().into_owned(),
            healthy: false,
            ..v1::DataDir::default()
        });
        let counters = &self.node.counters;
        let now = |counter: &std::sync::atomic::AtomicU64| {
            u32::try_from(counter.load(std::sync::atomic::Ordering::Relaxed)).unwrap_or(u32::MAX)
        };
        v1::Heartbeat {
            data_dirs: self
                .node
                .disks
                .iter()
                .zip(&self.folders)
                .enumerate()
                .map(dir)
                .chain(left_out)
                .collect(),
            chunks: self.inventory.len() as u64,
            connections: now(&counters.connections),
            io_body: self.io_body.into(),
            open_writes: now(&counters.open_writes),
            chunks_in_quarantine: u64::from(now(&counters.chunks_in_quarantine)),
            scrub: Some(v1::Scrub {
                replicas_checked: scrub.replicas_checked,
                bytes_checked: scrub.bytes_checked,
                found_corrupt: scrub.found_corrupt,
                oldest_unchecked_ms: scrub.oldest_unchecked.as_millis() as u64,
                pass_permille: scrub.pass_permille,
            }),
        }
    }
}

/// What a shard tells, from a moment on. Until then the shards' messages wait, and wake nobody.
async fn next_event(events: &mut mpsc::Receiver<ShardEvent>, from: Instant) -> Option<ShardEvent> {
    sleep_until(from).await;
    events.recv().await
}

impl Session {
    async fn tell(&self, body: Say) -> Result<(), Over> {
        let message = v1::FromDatanode { body: Some(body) };
        match timeout(self.patience, self.say.send(message)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(Over::Lost("closed by the master".into())),
            Err(_) => Err(Over::Lost("the master takes no messages".into())),
        }
    }
}

/// A refusal that no later attempt will change ends the datanode; anything else is tried again.
fn refusal(master: &HostPort, status: &Status) -> Over {
    let text = grpc::text_of(status);
    match grpc::code_of(status) {
        ErrorCode::AlreadyExists => Over::Taken(text),
        ErrorCode::WrongCluster | ErrorCode::InvalidArgument => {
            Over::Fatal(Fatal::Refused { master: master.clone(), text })
        }
        _ => Over::Lost(text),
    }
}

/// The innermost reason of a transport error: the outer ones only say "transport error".
fn cause(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::Arc;

    use distrifs_engine::store::{ReplicaInfo, Witness};
    use tokio::sync::watch;
    use tonic::body::Body;
    use tonic::codec::{DecodeBuf, Decoder};

    use super::super::Inventory;
    use super::*;
    use crate::node::Node;
    use crate::pace::Quiet;
    use crate::scrub::Scrub;
    use crate::shard::Found;

    /// Longer than any test takes.
    const LONG: Duration = Duration::from_secs(3600);

    /// Of a master that says nothing.
    struct Silence;

    impl Decoder for Silence {
        type Item = v1::ToDatanode;
        type Error = Status;

        fn decode(&mut self, _: &mut DecodeBuf<'_>) -> Result<Option<Self::Item>, Status> {
            Ok(None)
        }
    }

    /// A control plane without shards, with one disk, in a session.
    struct Scene {
        control: Control,
        session: Session,
        shard: mpsc::Sender<ShardEvent>,
        told: mpsc::Receiver<v1::FromDatanode>,
    }

    impl Scene {
        fn set() -> Self {
            let (shard, events) = mpsc::channel(OUTBOUND_MAX);
            let (say, told) = mpsc::channel(OUTBOUND_MAX);
            let control = Control {
                node: Arc::new(Node::new(NodeId(1), None, Epoch(0), 1)),
                folders: Vec::new(),
                left_out: Vec::new(),
                witness: Witness::default(),
                inventory: Inventory::new(1),
                shards: Vec::new(),
                events,
                masters: Vec::new(),
                data_address: "127.0.0.1:1".parse().expect("an address"),
                rack: String::new(),
                io_body: "none",
                incarnation: 0,
                scrub: Scrub::new(LONG, Duration::ZERO),
                quiet: Quiet::default(),
                dropped: HashSet::new(),
                lost_disks: vec![false],
                started: std::time::Instant::now(),
                socket_timeout: LONG,
                stop: watch::channel(false).1,
            };
            let session = Session {
                say,
                hear: Streaming::new_empty(Silence, Body::empty()),
                heartbeat: interval(LONG),
                report: interval(LONG),
                patience: LONG,
                reported: true,
                changes_from: Instant::now(),
                watch: LeaderWatch::of_session(Vec::new(), LONG),
            };
            Self { control, session, shard, told }
        }

        fn happens(&self, event: ShardEvent) {
            self.shard.try_send(event).expect("there is room");
        }

        fn commit(&self, chunk: u64) {
            self.happens(ShardEvent::Committed { replica: replica(chunk), disk: 0 });
        }

        /// What is told next.
        fn next(&mut self) -> Say {
            self.told.try_recv().ok().and_then(|message| message.body).expect("something is told")
        }
    }

    fn replica(chunk: u64) -> ReplicaInfo {
        ReplicaInfo {
            chunk: ChunkId(chunk),
            generation: GenerationStamp(1),
            length: 100 + chunk,
            crc: Crc32c(7),
        }
    }

    #[tokio::test]
    async fn what_was_ordered_and_has_ended_is_told_before_the_list() {
        let mut scene = Scene::set();
        scene.control.inventory.add(replica(1), 0);
        let (chunk, target) = (ChunkId(1), NodeId(2));
        scene.happens(ShardEvent::Checked { chunk, disk: 0, found: Found::Sound(replica(1)), bytes: 101 });
        scene.happens(ShardEvent::Copied { chunk, target, outcome: Ok(()) });
        assert!(scene.control.report(&mut scene.session).await.is_ok());
        let Say::Changes(changes) = scene.next() else { panic!("the ends first") };
        assert_eq!(changes.verified.len(), 1);
        assert_eq!(changes.replicated.len(), 1);
        let Say::BlockReport(report) = scene.next() else { panic!("then the list") };
        assert_eq!(report.replicas.len(), 1);
    }

    fn digest(chunk: u64, corrupt: bool) -> InventoryDigest {
        let it = replica(chunk);
        InventoryDigest::of(it.chunk, it.generation, it.length, it.crc, corrupt)
    }

    /// R4: else each small put that the writer told of first would cost a whole list.
    #[tokio::test]
    async fn while_commits_come_steadily_the_digest_is_of_all_that_were_acknowledged() {
        let mut scene = Scene::set();
        // What the master knows from the writers, who were answered, and what it was told here.
        let (mut known, mut told) = (InventoryDigest::default(), InventoryDigest::default());
        for round in 0..10 {
            for chunk in 3 * round..3 * round + 3 {
                scene.commit(chunk);
                known = known.plus(digest(chunk, false));
            }
            assert!(scene.control.report_digest(&mut scene.session).await.is_ok());
            let Say::Changes(changes) = scene.next() else { panic!("the commits first") };
            for it in changes.added {
                told = told.plus(digest(it.chunk_id, it.corrupt));
            }
            let Say::BlockReport(report) = scene.next() else { panic!("then the digest") };
            let sum = report.digest.map(|it| InventoryDigest { count: it.count, sum: it.sum });
            assert_eq!((sum, told), (Some(known), known), "no reason to ask for the list");
        }
    }

    #[tokio::test]
    async fn what_a_disk_took_last_before_it_was_lost_is_told_as_damaged() {
        let mut scene = Scene::set();
        scene.commit(1);
        scene.control.node.disks[0].suspect();
        assert!(scene.control.tell_waiting(&mut scene.session).await.is_ok());
        let Say::Changes(changes) = scene.next() else { panic!("the commit") };
        assert!(changes.added.iter().all(|it| it.corrupt) && changes.added.len() == 1, "{changes:?}");
        assert_eq!(scene.control.inventory.digest(), digest(1, true), "as it was told");
    }
}
