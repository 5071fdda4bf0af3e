//! The sessions of datanodes: registration, reports and heartbeats in, orders out.

use std::sync::Arc;
use std::time::{Duration, Instant};

use distrifs_proto::grpc::v1::datanode_service_server::DatanodeService;
use distrifs_proto::grpc::v1::from_datanode::Body;
use distrifs_proto::grpc::{status, v1};
use distrifs_proto::limits::REPORT_PART_MAX;
use distrifs_proto::types::{ChunkId, ClusterId, Epoch, Lsn, NodeId};
use distrifs_proto::{ErrorCode, InventoryDigest};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::{Api, convert};
use crate::cluster::{Load, RegisterRefusal, Registration, Replica, SessionId, Verdict};
use crate::loss;
use crate::namespace::{ChunkState, Namespace};
use crate::state::{SESSION_QUEUE_MAX, State, ToSession};

/// How long a new connection may take to introduce itself.
const REGISTER_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a datanode is shown the durable LSN, which it writes down: what was lost behind that is noticed.
const SHOW_LSN_EVERY: Duration = Duration::from_secs(1);
/// Data folders of one node.
const DIRS_MAX: usize = 256;
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
        let session = register_node(&state, register)?;
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
            let cluster = state.cluster();
            let mut sessions = state.sessions();
            // A session that this one replaces ends now.
            sessions.retain(|known, _| cluster.is_current(*known));
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

fn register_node(state: &State, register: v1::Register) -> Result<SessionId, Status> {
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
    let session = cluster.register(state.clock.now_ms(), state.leader(), registration);
    if let Some(behind) = cluster.behind().filter(|_| !was_behind) {
        tracing::error!(%behind, "read-only from now on");
    }
    session.map_err(|refusal| {
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
        if !state.cluster().is_current(session) {
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
        if let Err(refused) = take(state, session, body) {
            // The stream ends anyway when this cannot be told.
            let _ = sender.try_send(Err(refused));
            return "it broke the protocol";
        }
    }
}

fn take(state: &State, session: SessionId, body: Option<Body>) -> Result<(), Status> {
    let now_ms = state.clock.now_ms();
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
            state.cluster().heartbeat(now_ms, session, load);
            Ok(())
        }
        Some(Body::BlockReport(v1::BlockReport { digest: Some(digest), .. })) => {
            let digest = InventoryDigest { count: digest.count, sum: digest.sum };
            if !state.cluster().digest_report(now_ms, session, digest) {
                tracing::info!("a datanode holds something else than is known here: its list is asked for");
                state.order(session, v1::Orders { report: true, ..v1::Orders::default() });
            }
            Ok(())
        }
        Some(Body::BlockReport(report)) => {
            if report.replicas.len() > REPORT_PART_MAX {
                return Err(protocol("a part of a report is too long"));
            }
            let replicas: Vec<Replica> = report.replicas.iter().map(convert::replica).collect();
            let namespace = state.namespace();
            let mut cluster = state.cluster();
            let judge = |replica: &Replica| judge(&namespace, replica);
            let ends = (report.first, report.last);
            let taken = cluster.report_part(now_ms, session, &replicas, ends, judge);
            taken.map_err(|error| protocol(&error.to_string()))
        }
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
            take_changes(state, now_ms, session, &changes)
        }
        Some(Body::Register(_)) => Err(protocol("a second registration in one session")),
        // From a newer datanode: not an error, not understood.
        None => Ok(()),
    }
}

fn take_changes(
    state: &State,
    now_ms: u64,
    session: SessionId,
    changes: &v1::ReplicaChanges,
) -> Result<(), Status> {
    let added: Vec<Replica> = changes.added.iter().map(convert::replica).collect();
    let removed: Vec<ChunkId> = changes.removed.iter().copied().map(ChunkId).collect();
    let verified: Vec<Replica> = changes.verified.iter().map(convert::replica).collect();
    let namespace = state.namespace();
    let mut cluster = state.cluster();
    cluster.changed(now_ms, session, &added, &removed).map_err(|error| protocol(&error.to_string()))?;
    cluster.verified(now_ms, session, &verified);
    for end in &changes.replicated {
        let (id, target) = (ChunkId(end.chunk_id), NodeId(end.target_node_id));
        let outcome = match convert::copied(end) {
            Ok(()) => Ok(match namespace.chunk(id) {
                ChunkState::Referenced(chunk) => Some(chunk),
                _ => None,
            }),
            Err(failure) => {
                tracing::warn!(chunk = %id, %target, why = failure.text, "a copy was not made");
                Err(failure)
            }
        };
        cluster.replicated(now_ms, id, target, outcome);
    }
    let corrupt = added.iter().filter(|replica| replica.corrupt).count();
    let ended = changes.replicated.len() + verified.len() + removed.len() + corrupt;
    drop((cluster, namespace));
    if ended > 0 {
        state.wake_repair();
    }
    Ok(())
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
