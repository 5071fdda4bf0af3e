//! The sessions of datanodes: registration, reports and heartbeats in, orders out.

use std::sync::Arc;
use std::time::{Duration, Instant};

use distrifs_proto::grpc::v1::datanode_service_server::DatanodeService;
use distrifs_proto::grpc::v1::from_datanode::Body;
use distrifs_proto::grpc::{status, v1};
use distrifs_proto::limits::REPORT_PART_MAX;
use distrifs_proto::types::{ChunkId, ClusterId, Epoch, Lsn, NodeId};
use distrifs_proto::{ErrorCode, InventoryDigest};
use tokio::sync::{SemaphorePermit, mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::{Api, convert};
use crate::cluster::{
    BadReport, FullReport, LastHeard, Load, RegisterRefusal, Registration, Replica, SessionId, Verdict,
};
use crate::loss;
use crate::namespace::{Chunk, ChunkState, Namespace};
use crate::state::{SESSION_QUEUE_MAX, State, ToSession};

/// How long a new connection may take to introduce itself.
const REGISTER_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a datanode is shown the durable LSN, which it writes down: what was lost behind that is noticed.
const SHOW_LSN_EVERY: Duration = Duration::from_secs(1);
/// Data folders of one node.
const DIRS_MAX: usize = 256;
/// Changes that are taken while the locks are held.
const CHANGES_SLICE: usize = 64;
/// Slices of a full report between two yields.
const SLICES_PER_POLL: usize = 8;
/// For how long a node that reports keeps others waiting, when it does not get on with it.
const REPORT_TURN: Duration = Duration::from_secs(30);
/// An address or a rack's name, in bytes.
const NAME_MAX: usize = 512;

/// The service of datanodes.
#[derive(Debug, Clone)]
pub(crate) struct DatanodeApi(pub(crate) Api);

#[tonic::async_trait]
impl DatanodeService for DatanodeApi {
    type SessionStream = ReceiverStream<Result<v1::ToDatanode, Status>>;

    async fn session(
        &self,
        request: Request<Streaming<v1::FromDatanode>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let outcome = self.begin(request.into_inner()).await;
        self.0.counted("Session", outcome)
    }
}

impl DatanodeApi {
    async fn begin(
        &self,
        mut inbound: Streaming<v1::FromDatanode>,
    ) -> Result<ReceiverStream<Result<v1::ToDatanode, Status>>, Status> {
        let first = tokio::time::timeout(REGISTER_TIMEOUT, inbound.message()).await;
        let Ok(Some(v1::FromDatanode { body: Some(Body::Register(register)) })) =
            first.map_err(|_| protocol("no registration in time"))?
        else {
            return Err(protocol("a session begins with a registration"));
        };
        let state = self.0.state.clone();
        let (node, address) = (NodeId(register.node_id), register.data_address.clone());
        let (version, incarnation) = (register.version.clone(), register.incarnation);
        let (session, replaced) = register_node(&state, register)?;
        if let Err(refusal) = loss::settle(&state, &self.0.proposer).await {
            state.cluster().session_ended(session);
            return Err(refusal.into());
        }
        let (sender, receiver) = mpsc::channel(SESSION_QUEUE_MAX);
        let registered = state.to_datanode(v1::to_datanode::Body::Registered(registered(&state)));
        if sender.try_send(Ok(registered)).is_err() {
            state.cluster().session_ended(session);
            return Err(protocol("the session ended at once"));
        }
        {
            let mut sessions = state.sessions();
            // A session that this one replaces ends now.
            if let Some(replaced) = replaced {
                sessions.remove(&replaced);
            }
            sessions.insert(session, sender.clone());
        }
        tracing::info!(%node, address, version, incarnation, "datanode joined");
        let stop = self.0.stop.clone();
        tokio::spawn(async move {
            let why = serve(&state, session, inbound, &sender, stop).await;
            state.sessions().remove(&session);
            state.cluster().session_ended(session);
            tracing::info!(%node, why, "datanode's session ended");
        });
        Ok(ReceiverStream::new(receiver))
    }
}

/// The new session, and the one that it replaces.
fn register_node(state: &State, register: v1::Register) -> Result<(SessionId, Option<SessionId>), Status> {
    if register.version.len() > NAME_MAX
        || register.data_address.len() > NAME_MAX
        || register.rack.len() > NAME_MAX
    {
        return Err(protocol("an address or rack is too long"));
    }
    let cluster = ClusterId::from_halves(register.cluster_id_high, register.cluster_id_low);
    let registration = Registration {
        cluster: (cluster != ClusterId::default()).then_some(cluster),
        id: NodeId(register.node_id),
        address: register.data_address,
        rack: register.rack,
        epoch_seen: Epoch(register.epoch_seen),
        lsn_seen: Lsn(register.lsn_seen),
    };
    let mut cluster = state.cluster();
    let was_behind = cluster.behind().is_some();
    let replaced = cluster.session_of(registration.id);
    let session = cluster.register(state.clock.now_ms(), state.leader(), registration);
    if let Some(behind) = cluster.behind().filter(|_| !was_behind) {
        tracing::error!(%behind, "read-only from now on");
    }
    drop(cluster);
    session.map(|session| (session, replaced)).map_err(|refusal| {
        let code = match &refusal {
            RegisterRefusal::WrongCluster { .. } => ErrorCode::WrongCluster,
            RegisterRefusal::Duplicate { .. } => ErrorCode::AlreadyExists,
            RegisterRefusal::Nameless { .. } => ErrorCode::InvalidArgument,
            RegisterRefusal::TooMany { .. } => ErrorCode::LimitExceeded,
        };
        tracing::warn!(%refusal, "a datanode was refused");
        status(code, refusal.to_string())
    })
}

fn registered(state: &State) -> v1::Registered {
    let (cluster_id_high, cluster_id_low) = state.cluster_id.to_halves();
    let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    v1::Registered {
        cluster_id_high,
        cluster_id_low,
        heartbeat_interval_ms: ms(state.config.heartbeat_interval),
        block_report_interval_ms: ms(state.config.block_report_interval),
    }
}

/// A full report on its way, and the permit to send it.
struct Report<'a> {
    report: FullReport,
    began: Instant,
    permit: Option<SemaphorePermit<'a>>,
}

/// One session of a datanode.
struct Session<'a> {
    state: &'a State,
    id: SessionId,
    /// When the node was heard is noted here, without the cluster's lock.
    heard: LastHeard,
    report: Option<Report<'a>>,
}

/// Takes what a datanode says until the session ends; says why it did.
async fn serve(
    state: &Arc<State>,
    session: SessionId,
    mut inbound: Streaming<v1::FromDatanode>,
    sender: &ToSession,
    mut stop: watch::Receiver<bool>,
) -> &'static str {
    let silence = state.config.heartbeat_timeout;
    let mut lsn_shown = Instant::now();
    let Some(heard) = state.cluster().last_heard(session) else { return "replaced by a newer one" };
    let mut session = Session { state, id: session, heard, report: None };
    loop {
        let message = tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return "the master stops",
            message = tokio::time::timeout(silence, inbound.message()) => message,
        };
        let body = match message {
            Err(_) => return "silent for the heartbeat timeout",
            Ok(Err(_)) => return "the connection broke",
            Ok(Ok(None)) => return "the datanode closed it",
            Ok(Ok(Some(message))) => message.body,
        };
        // Before any lock: a node whose message waits for one is not silent.
        session.heard.heard(state.clock.now_ms());
        if !state.cluster().is_current(session.id) {
            return "replaced by a newer one";
        }
        let is_heartbeat = matches!(body, Some(Body::Heartbeat(_)));
        if is_heartbeat && state.may_answer() {
            let with_lsn = lsn_shown.elapsed() >= SHOW_LSN_EVERY;
            // What a full queue holds says the same.
            if sender.try_send(Ok(state.sign_of_life(with_lsn))).is_ok() && with_lsn {
                lsn_shown = Instant::now();
            }
        }
        let taken = tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return "the master stops",
            taken = session.take(body) => taken,
        };
        if let Err(refused) = taken {
            // The stream ends anyway when this cannot be told.
            let _ = sender.try_send(Err(refused));
            return "it broke the protocol";
        }
    }
}

impl<'a> Session<'a> {
    async fn take(&mut self, body: Option<Body>) -> Result<(), Status> {
        let state = self.state;
        // One that began a report and does not go on is not to keep the others waiting.
        if let Some(report) = self.report.as_mut().filter(|report| report.began.elapsed() > REPORT_TURN) {
            report.permit = None;
        }
        match body {
            Some(Body::Heartbeat(beat)) => {
                if beat.data_dirs.len() > DIRS_MAX || beat.io_body.len() > NAME_MAX {
                    return Err(protocol("a heartbeat names too many folders"));
                }
                let load = Load {
                    dirs: beat.data_dirs.into_iter().map(convert::dir).collect(),
                    chunks: beat.chunks,
                    open_writes: beat.open_writes,
                    chunks_in_quarantine: beat.chunks_in_quarantine,
                    io_body: beat.io_body,
                    scrub: beat.scrub.map(convert::scrub).unwrap_or_default(),
                };
                state.cluster().heartbeat(state.clock.now_ms(), self.id, load);
                Ok(())
            }
            Some(Body::BlockReport(v1::BlockReport { digest: Some(digest), .. })) => {
                let digest = InventoryDigest { count: digest.count, sum: digest.sum };
                if !state.cluster().digest_report(state.clock.now_ms(), self.id, digest) {
                    tracing::info!(
                        "a datanode's inventory differs from what is known: its list is requested"
                    );
                    state.order(self.id, v1::Orders { report: true, ..v1::Orders::default() });
                }
                Ok(())
            }
            Some(Body::BlockReport(report)) => self.report(&report).await,
            Some(Body::Changes(changes)) => {
                let told = [
                    changes.added.len(),
                    changes.removed.len(),
                    changes.verified.len(),
                    changes.replicated.len(),
                ];
                if told.iter().sum::<usize>() > 2 * REPORT_PART_MAX {
                    return Err(protocol("a report of changes is too long"));
                }
                self.changes(&changes).await
            }
            Some(Body::Register(_)) => Err(protocol("a second registration in one session")),
            // From a newer datanode: not an error, not understood.
            None => Ok(()),
        }
    }

    /// Takes one part of a full report, and with the last one applies all of it in slices.
    async fn report(&mut self, part: &v1::BlockReport) -> Result<(), Status> {
        if part.replicas.len() > REPORT_PART_MAX {
            return Err(protocol("a part of a report is too long"));
        }
        if part.first {
            let permit = self.turn().await;
            self.state.cluster().report_begins(self.id);
            let (report, began) = (FullReport::default(), Instant::now());
            self.report = Some(Report { report, began, permit });
        }
        let Some(taken) = self.report.as_mut() else {
            return Err(protocol(&BadReport::NoFirst.to_string()));
        };
        let replicas = part.replicas.iter().map(convert::replica).collect();
        taken.report.push(replicas).map_err(|error| protocol(&error.to_string()))?;
        if !part.last {
            return Ok(());
        }
        let Some(Report { mut report, permit, .. }) = self.report.take() else { return Ok(()) };
        if report.is_unsorted() {
            let sorted = tokio::task::spawn_blocking(move || {
                report.sort();
                report
            });
            report = sorted.await.map_err(|error| protocol(&error.to_string()))?;
        }
        let replicas = report.len();
        loop {
            let more = (0..SLICES_PER_POLL).all(|_| {
                // One lock after the other: a hold of the namespace is not to contain a wait for the cluster.
                let verdicts = {
                    let namespace = self.state.namespace();
                    report.next().map(|replica| judge(&namespace, &replica)).collect()
                };
                let now_ms = self.state.clock.now_ms();
                self.state.cluster().apply_report(now_ms, self.id, &mut report, verdicts)
            });
            if !more {
                break;
            }
            // What this master takes its time for is not the node's silence.
            self.heard.heard(self.state.clock.now_ms());
            tokio::task::yield_now().await;
        }
        drop(permit);
        tracing::debug!(replicas, "a full report was applied");
        self.state.wake_repair();
        Ok(())
    }

    /// Waits for the turn to report. The node's messages wait behind its report, so it counts as heard meanwhile.
    async fn turn(&self) -> Option<SemaphorePermit<'a>> {
        let state: &'a State = self.state;
        let permit = state.reports.acquire();
        tokio::pin!(permit);
        let mut ticks = tokio::time::interval(self.state.config.heartbeat_interval);
        loop {
            tokio::select! {
                permit = &mut permit => return permit.ok(),
                _ = ticks.tick() => self.heard.heard(self.state.clock.now_ms()),
            }
        }
    }

    /// Takes a report of changes, a few of them per hold of the locks.
    async fn changes(&self, changes: &v1::ReplicaChanges) -> Result<(), Status> {
        let state = self.state;
        let broken = |error: BadReport| protocol(&error.to_string());
        for some in changes.added.chunks(CHANGES_SLICE) {
            let added: Vec<Replica> = some.iter().map(convert::replica).collect();
            state.cluster().changed(state.clock.now_ms(), self.id, &added, &[]).map_err(broken)?;
            let corrupt = added.iter().filter(|replica| replica.corrupt).map(|replica| replica.chunk);
            touch(state, corrupt);
            tokio::task::yield_now().await;
        }
        for some in changes.removed.chunks(CHANGES_SLICE) {
            let removed: Vec<ChunkId> = some.iter().copied().map(ChunkId).collect();
            state.cluster().changed(state.clock.now_ms(), self.id, &[], &removed).map_err(broken)?;
            touch(state, removed.into_iter());
            tokio::task::yield_now().await;
        }
        for some in changes.verified.chunks(CHANGES_SLICE) {
            let verified: Vec<Replica> = some.iter().map(convert::replica).collect();
            state.cluster().verified(state.clock.now_ms(), self.id, &verified);
            touch(state, verified.iter().map(|replica| replica.chunk));
            tokio::task::yield_now().await;
        }
        for some in changes.replicated.chunks(CHANGES_SLICE) {
            take_copies(state, some);
            tokio::task::yield_now().await;
        }
        Ok(())
    }
}

fn touch(state: &State, chunks: impl Iterator<Item = ChunkId>) {
    let mut chunks = chunks.peekable();
    if chunks.peek().is_some() {
        state.touch_repair(chunks);
    }
}

fn take_copies(state: &State, ends: &[v1::Replicated]) {
    let chunks: Vec<Option<Chunk>> = {
        let namespace = state.namespace();
        let chunk = |end: &v1::Replicated| match namespace.chunk(ChunkId(end.chunk_id)) {
            ChunkState::Referenced(chunk) => Some(chunk),
            _ => None,
        };
        ends.iter().map(chunk).collect()
    };
    let now_ms = state.clock.now_ms();
    let mut cluster = state.cluster();
    let mut failed = Vec::new();
    for (end, chunk) in ends.iter().zip(chunks) {
        let (id, target) = (ChunkId(end.chunk_id), NodeId(end.target_node_id));
        let outcome = convert::copied(end).map(|()| chunk);
        if let Err(failure) = &outcome {
            failed.push((id, target, failure.text.clone()));
        }
        cluster.replicated(now_ms, id, target, outcome);
    }
    drop(cluster);
    for (chunk, target, why) in failed {
        tracing::warn!(%chunk, %target, why, "a copy was not made");
    }
    touch(state, ends.iter().map(|end| ChunkId(end.chunk_id)));
}

/// What the namespace says of a replica.
fn judge(namespace: &Namespace, replica: &Replica) -> Verdict {
    match namespace.chunk(replica.chunk) {
        ChunkState::Unknown => Verdict::Unknown,
        ChunkState::Unfinished | ChunkState::Dereferenced(_) => Verdict::Fine,
        ChunkState::Referenced(chunk) if replica.generation < chunk.generation => Verdict::Stale,
        ChunkState::Referenced(chunk) => {
            let same = replica.length == u64::from(chunk.length) && replica.crc == chunk.crc;
            if same { Verdict::Fine } else { Verdict::Differs }
        }
    }
}

fn protocol(text: &str) -> Status {
    status(ErrorCode::Protocol, text)
}
