//! A running master: wiring only.
//!
//! Start: lock, identity, epoch, lease, addresses, log, services. Stop: no new requests, sessions end, what is queued
//! becomes durable, the log is closed, the lock goes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use distrifs_engine::log::{Log, RecoverError};
use distrifs_proto::grpc::v1;
use distrifs_proto::grpc::v1::admin_service_server::AdminServiceServer;
use distrifs_proto::grpc::v1::client_service_server::ClientServiceServer;
use distrifs_proto::grpc::v1::datanode_service_server::DatanodeServiceServer;
use distrifs_proto::latency::Delay;
use distrifs_proto::limits::GRPC_MESSAGE_BYTES_MAX;
use distrifs_proto::types::{ClusterId, Epoch, HostPort};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

use crate::clock::Clock;
use crate::cluster::{Cluster, Timing};
use crate::config::MasterConfig;
use crate::error::{MasterFailure, StartError};
use crate::folder::{format, identity, make_folder};
use crate::leadership::lease::Sight;
use crate::leadership::{Keeper, LeaderLock, Leadership};
use crate::namespace::Namespace;
use crate::recovery::Predecessor;
use crate::service::{AdminApi, Api, ClientApi, DatanodeApi};
use crate::state::State;
use crate::writer::{Proposer, Writer};
use crate::{checkpoint, http, loss, probe, recovery, repair, sweep, vigil};

/// How long requests in flight may take at a clean stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);
/// For how long after a restart the nodes of the time before are waited for before tombstones are forgotten.
const RETURN_TIMEOUT: Duration = Duration::from_secs(3600);
/// How long the last write of a leader that is gone may take to come to rest, and how often that is looked at.
const LOG_REST_MAX: Duration = Duration::from_secs(10);
const LOG_REST_LOOK: Duration = Duration::from_millis(20);
/// How often it is looked whether there is room for a fork.
const ROOM_LOOK: Duration = Duration::from_secs(1);
/// How often what a leader that may still write has left is read again before it is refused.
const READ_AGAIN_MAX: u32 = 3;
/// Requests in flight on one connection.
const STREAMS_MAX: u32 = 4096;
/// How often an idle connection is asked whether it is alive, and how long it may think.
const KEEPALIVE: Duration = Duration::from_secs(10);

/// A running master. Dropping it without [`Master::stop`] is as a crash: what was acknowledged is durable.
#[derive(Debug)]
pub struct Master {
    grpc: SocketAddr,
    http: Option<SocketAddr>,
    state: Arc<State>,
    stop_serving: watch::Sender<bool>,
    stop_writing: watch::Sender<bool>,
    servers: Vec<JoinHandle<()>>,
    writer: Option<JoinHandle<()>>,
    proposer: Proposer,
    /// The lock and the lease go with it.
    keeper: Option<Keeper>,
}

/// How a master came to lead.
#[derive(Debug)]
pub(crate) enum Seat {
    /// The lock was free: whoever led before is gone.
    Free(LeaderLock),
    /// The lease had run out, and the epoch is raised: whoever led before may still be there.
    Taken {
        /// In the place of the old one.
        lock: LeaderLock,
        /// By the claim that raised the epoch.
        leadership: Leadership,
        /// The one before may answer for so long.
        believed: Duration,
    },
}

/// What the disk gave.
struct Opened {
    cluster_id: ClusterId,
    leadership: Leadership,
    keeper: Keeper,
    predecessor: Predecessor,
    /// Whoever led before may answer until then.
    answers_from: Instant,
}

impl Master {
    /// Takes the lock, recovers what was acknowledged, binds and serves.
    ///
    /// # Errors
    /// One line that names the place; nothing is left running.
    pub async fn start(config: MasterConfig) -> Result<Self, StartError> {
        config.check()?;
        make_folder(&config.data_dir)?;
        let lock = LeaderLock::take(&config.lock_path())?;
        Self::start_seated(config, Seat::Free(lock), None).await
    }

    /// As [`start`](Self::start), with a lock that was taken, and an address for http that is listened on already.
    ///
    /// # Errors
    /// [`StartError::Deposed`] when somebody else took over meanwhile; as [`start`](Self::start).
    pub(crate) async fn start_seated(
        config: MasterConfig,
        seat: Seat,
        http: Option<(TcpListener, SocketAddr)>,
    ) -> Result<Self, StartError> {
        let clock = Clock::new();
        let (config, opened) =
            blocking(move || open_folder(&config, seat).map(|opened| (config, opened))).await?;
        let Opened { cluster_id, leadership, keeper, predecessor, answers_from } = opened;
        let epoch = leadership.epoch();
        let (grpc_listener, grpc) = bind(&config.listen).await?;
        let http_listener = match (http, &config.http) {
            (Some(http), _) => Some(http),
            (None, Some(address)) => Some(bind(address).await?),
            (None, None) => None,
        };
        let (config, leadership, recovered) = blocking(move || {
            let recovered = recover(&config, cluster_id, &leadership, predecessor)?;
            Ok((config, leadership, recovered))
        })
        .await?;
        let recovery::Opened { log, namespace, checkpoint: base } = recovered;
        loss::check_epoch(&config.data_dir, epoch, namespace.history())?;
        tracing::info!(%cluster_id, %epoch, lsn = %namespace.applied(), checkpoint = %base, "recovered");
        tokio::time::sleep_until(answers_from.into()).await;
        leadership.prove().map_err(StartError::Deposed)?;
        for Delay { stage, by } in &config.delays {
            tracing::warn!(stage, ?by, "every pass of this stage is held up, as --delay asks for");
        }
        let delays = config.delays.clone();
        let state = new_state(config, cluster_id, epoch, namespace, clock);
        let state = state
            .with_delays(&delays)
            .map_err(|error| StartError::Config { what: "--delay", why: error.to_string() })?;
        let state = Arc::new(state.with_authority(keeper.authority()));
        let (stop_serving, serving) = watch::channel(false);
        let (stop_writing, writing) = watch::channel(false);
        let checkpoints =
            checkpoint::run(state.clone(), log.clone(), leadership.clone(), base, serving.clone());
        let (writer, proposer) = new_writer(&state, log, leadership);
        let lost = keeper.lost();
        let mut master = Self {
            grpc,
            http: http_listener.as_ref().map(|(_, address)| *address),
            state: state.clone(),
            stop_serving,
            stop_writing,
            servers: Vec::new(),
            writer: Some(tokio::spawn(writer.run_beside_the_log(writing))),
            proposer: proposer.clone(),
            keeper: Some(keeper),
        };
        master.watch_writer();
        master.spawn("leadership", watch_leadership(lost, state.clone(), serving.clone()));
        master.spawn("lease expiry", sweep::expire_leases(state.clone(), proposer.clone(), serving.clone()));
        master.spawn("grant expiry", sweep::bury_grants(state.clone(), proposer.clone(), serving.clone()));
        master.spawn("reaper", sweep::reap_removed(state.clone(), proposer.clone(), serving.clone()));
        master.spawn("checkpoints", checkpoints);
        master.spawn("repair", repair::run(state.clone(), serving.clone()));
        master.spawn("vigil", vigil::run(state.clone(), serving.clone()));
        master.spawn("probe", probe::run(state.clone(), serving.clone()));
        master.spawn("gc", sweep::collect_garbage(state.clone(), proposer.clone(), serving.clone()));
        master.spawn("orphans", sweep::quarantine_orphans(state.clone(), serving.clone()));
        if let Some((listener, _)) = http_listener {
            let served = http::serve(listener, state.clone(), serving.clone());
            master.spawn("http", async move {
                if let Err(error) = served.await {
                    tracing::error!(%error, "http ended");
                }
            });
        }
        let api = Api::new(state, proposer, serving.clone());
        master.spawn("grpc", async move {
            if let Err(error) = serve_grpc(grpc_listener, api, serving).await {
                tracing::error!(%error, "grpc ended");
            }
        });
        Ok(master)
    }

    /// Where the control plane listens.
    #[must_use]
    pub fn grpc_address(&self) -> SocketAddr {
        self.grpc
    }

    /// Where health and metrics are served.
    #[must_use]
    pub fn http_address(&self) -> Option<SocketAddr> {
        self.http
    }

    /// The epoch of this start.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.state.epoch
    }

    /// The cluster that this master leads.
    #[must_use]
    pub fn cluster_id(&self) -> ClusterId {
        self.state.cluster_id
    }

    /// Resolves when the master gave up by itself; the process should then exit non-zero.
    pub async fn failed(&self) -> MasterFailure {
        let mut failure = self.state.failure();
        let known = failure.wait_for(Option::is_some).await.ok().and_then(|failure| failure.clone());
        match known {
            Some(failure) => failure,
            // The sender lives in the state, which lives as long as this.
            None => std::future::pending().await,
        }
    }

    /// Stops cleanly: no new work, what is in flight finishes, the log is closed.
    pub async fn stop(mut self) {
        self.stop_serving.send_replace(true);
        let deadline = tokio::time::Instant::now() + STOP_TIMEOUT;
        for mut server in std::mem::take(&mut self.servers) {
            if tokio::time::timeout_at(deadline, &mut server).await.is_err() {
                server.abort();
            }
        }
        self.stop_writing.send_replace(true);
        if let Some(mut writer) = self.writer.take()
            && tokio::time::timeout(STOP_TIMEOUT, &mut writer).await.is_err()
        {
            tracing::warn!("the log did not close in time");
            writer.abort();
        }
        if let Some(keeper) = self.keeper.take() {
            let ended = tokio::task::spawn_blocking(move || keeper.end());
            if tokio::time::timeout(STOP_TIMEOUT, ended).await.is_err() {
                tracing::warn!("the leader's lock was not let go of in time");
            }
        }
    }

    /// What its drivers share.
    pub(crate) fn state(&self) -> &State {
        &self.state
    }

    /// The way of a change.
    pub(crate) fn proposer(&self) -> &Proposer {
        &self.proposer
    }

    fn spawn(&mut self, task: &'static str, work: impl Future<Output = ()> + Send + 'static) {
        let state = self.state.clone();
        let stopping = self.stop_serving.subscribe();
        let work = tokio::spawn(work);
        self.servers.push(tokio::spawn(supervise(task, work, state, stopping)));
    }

    /// The writer reports its own failures; here only its death by panic is noticed.
    fn watch_writer(&mut self) {
        let Some(writer) = self.writer.take() else { return };
        let (state, stopping) = (self.state.clone(), self.stop_writing.subscribe());
        self.writer = Some(tokio::spawn(supervise("writer", writer, state, stopping)));
    }
}

impl Drop for Master {
    fn drop(&mut self) {
        for task in self.servers.iter().chain(&self.writer) {
            task.abort();
        }
    }
}

/// Aborts the work when the supervisor is aborted.
struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A task that ends before it is told to is the end of the master.
async fn supervise(
    task: &'static str,
    work: JoinHandle<()>,
    state: Arc<State>,
    stopping: watch::Receiver<bool>,
) {
    let mut work = AbortOnDrop(work);
    let ended = (&mut work.0).await;
    if !*stopping.borrow() {
        let why = ended.err().map_or("it returned".to_owned(), |error| error.to_string());
        state.fail(MasterFailure::Task { task, why });
    }
}

/// A leadership that is lost is the end of the master.
async fn watch_leadership(
    mut lost: watch::Receiver<Option<MasterFailure>>,
    state: Arc<State>,
    mut stop: watch::Receiver<bool>,
) {
    let failure = tokio::select! {
        failure = lost.wait_for(Option::is_some) => failure.ok().and_then(|failure| failure.clone()),
        _ = stop.wait_for(|stop| *stop) => return,
    };
    // Without a lease nothing is ever told here.
    if let Some(failure) = failure {
        state.fail(failure);
    }
    let _ = stop.wait_for(|stop| *stop).await;
}

fn open_folder(config: &MasterConfig, seat: Seat) -> Result<Opened, StartError> {
    let cluster_id = match identity(&config.data_dir)? {
        Some(cluster_id) => cluster_id,
        None => {
            // 0 means "none" on the wire.
            let cluster_id = ClusterId(rand::random::<u128>() | 1);
            Leadership::format(&config.data_dir)?;
            format(&config.data_dir, cluster_id)?;
            cluster_id
        }
    };
    let (lock, leadership, predecessor, believed) = match seat {
        Seat::Free(lock) => {
            let leadership = Leadership::begin(&config.data_dir)?;
            let believed = match lock.is_in_place()? {
                true => Duration::ZERO,
                // Somebody has taken over from whoever had this lock before, just before this one did.
                false => Sight::of(&config.data_dir)?.believed(),
            };
            (lock, leadership, Predecessor::Gone, believed)
        }
        Seat::Taken { lock, leadership, believed } => (lock, leadership, Predecessor::MayWrite, believed),
    };
    let answers_from = Instant::now() + believed;
    let keeper = Keeper::begin(leadership.clone(), lock, config.lease)?;
    Ok(Opened { cluster_id, leadership, keeper, predecessor, answers_from })
}

/// As [`recovery::open`]. Whose predecessor's process is gone has the log to itself, but the last write of one that was
/// killed may still be on its way to the disk, and keeps the log in use until it has come to rest. If it does not, or
/// somebody else works on the log who was stopped in the middle of that, the log is forked, unless there is no lease: that
/// says that the file system is not fit for it.
fn recover(
    config: &MasterConfig,
    cluster: ClusterId,
    leadership: &Leadership,
    mut predecessor: Predecessor,
) -> Result<recovery::Opened, StartError> {
    let deadline = Instant::now() + LOG_REST_MAX;
    let (mut read_again, mut waits, mut told) = (0, false, false);
    loop {
        let error = match recovery::open(config, cluster, leadership, predecessor) {
            Ok(opened) => return Ok(opened),
            Err(error) => error,
        };
        leadership.prove().map_err(StartError::Deposed)?;
        match (&error, predecessor) {
            (StartError::Recover(RecoverError::InUse { .. }), _) if Instant::now() < deadline => {
                if !std::mem::replace(&mut waits, true) {
                    tracing::info!(%error, "waits for whoever has the log");
                }
                std::thread::sleep(LOG_REST_LOOK);
            }
            (StartError::Recover(RecoverError::InUse { .. }), Predecessor::Gone)
                if config.lease.is_some() =>
            {
                predecessor = Predecessor::MayWrite;
            }
            // A fork needs room. What goes on in place does not, as soon as the predecessor's process is gone.
            (StartError::Recover(refused), Predecessor::MayWrite) if refused.is_no_space() => {
                if !std::mem::replace(&mut told, true) {
                    tracing::error!(%error, "make room, or end the leader that stands still: this master waits for either");
                }
                std::thread::sleep(ROOM_LOOK);
                predecessor = Predecessor::Gone;
            }
            // It may just have taken its last checkpoint, and let go of the log behind the one that was read here.
            (StartError::Refused { .. }, Predecessor::MayWrite) if read_again < READ_AGAIN_MAX => {
                read_again += 1;
            }
            _ => return Err(error),
        }
    }
}

fn new_state(
    config: MasterConfig,
    cluster_id: ClusterId,
    epoch: Epoch,
    namespace: Namespace,
    clock: Clock,
) -> State {
    let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let timing = Timing {
        heartbeat_interval_ms: ms(config.heartbeat_interval),
        heartbeat_timeout_ms: ms(config.heartbeat_timeout),
        // The first epoch has no nodes before it.
        return_ms: if epoch > Epoch(1) { ms(RETURN_TIMEOUT) } else { 0 },
    };
    let cluster = Cluster::new(timing, clock.now_ms());
    State::new(config, cluster_id, epoch, namespace, cluster, clock)
}

fn new_writer(state: &Arc<State>, log: Log, leadership: Leadership) -> (Writer, Proposer) {
    state.set_log_stats(log.stats());
    state.set_log(log.sync_times());
    Writer::new(state.clone(), log, leadership)
}

pub(crate) async fn bind(address: &HostPort) -> Result<(TcpListener, SocketAddr), StartError> {
    let refused = |source| StartError::Bind { address: address.clone(), source };
    let listener = TcpListener::bind((address.host.as_str(), address.port)).await.map_err(refused)?;
    let bound = listener.local_addr().map_err(refused)?;
    Ok((listener, bound))
}

pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StartError> + Send + 'static,
) -> Result<T, StartError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| StartError::Broken(error.to_string()))?
}

async fn serve_grpc(
    listener: TcpListener,
    api: Api,
    mut stop: watch::Receiver<bool>,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let client = ClientServiceServer::new(ClientApi(api.clone()))
        .max_decoding_message_size(GRPC_MESSAGE_BYTES_MAX)
        .max_encoding_message_size(GRPC_MESSAGE_BYTES_MAX);
    let datanode = DatanodeServiceServer::new(DatanodeApi(api.clone()))
        .max_decoding_message_size(GRPC_MESSAGE_BYTES_MAX)
        .max_encoding_message_size(GRPC_MESSAGE_BYTES_MAX);
    let admin = AdminServiceServer::new(AdminApi(api));
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter.set_serving::<ClientServiceServer<ClientApi>>().await;
    reporter.set_serving::<DatanodeServiceServer<DatanodeApi>>().await;
    reporter.set_serving::<AdminServiceServer<AdminApi>>().await;
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(v1::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()?;
    let stopped = async move {
        // A dropped sender means the same.
        let _ = stop.wait_for(|stop| *stop).await;
    };
    Server::builder()
        .max_concurrent_streams(STREAMS_MAX)
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE))
        .add_service(health)
        .add_service(reflection)
        .add_service(client)
        .add_service(datanode)
        .add_service(admin)
        .serve_with_incoming_shutdown(TcpIncoming::from(listener).with_nodelay(Some(true)), stopped)
        .await?;
    Ok(())
}
