//! What the drivers share: the two cores behind their locks, and how to reach datanodes.
//!
//! Locks are taken in this order, never held over an await: namespace, cluster, sessions.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use distrifs_engine::checkpoint::Written;
use distrifs_engine::log::{LogStats, SyncTimes};
use distrifs_proto::grpc::v1;
use distrifs_proto::latency::{BadDelay, Delay, Stages, TraceRing};
use distrifs_proto::types::{ChunkId, ClusterId, Epoch, Lsn};
use tokio::sync::{Notify, Semaphore, mpsc, watch};
use tonic::Status;

use crate::checkpoint::CheckpointStats;
use crate::clock::Clock;
use crate::cluster::{Cluster, Leader, NodeView, SessionId};
use crate::config::MasterConfig;
use crate::error::MasterFailure;
use crate::groups::Groups;
use crate::hold::{Held, HoldStats};
use crate::leadership::lease::Authority;
use crate::metrics::Metrics;
use crate::namespace::Namespace;
use crate::repair::Found;
use crate::stage::Stage;

/// Messages that wait for one datanode.
pub(crate) const SESSION_QUEUE_MAX: usize = 64;

/// Full reports that are taken at once. The others wait with their nodes' heartbeats counted: thousands come after a restart,
/// and each costs processor time that calls of clients need.
const REPORTS_AT_ONCE: usize = 4;
/// Chunks of [`State::touch_repair`] that are kept; of further ones the next look over all files learns.
const TOUCHED_MAX: usize = 1 << 16;
/// Sessions that are looked at in one hold.
const SESSIONS_PAGE: usize = 64;

/// Some of what the cluster has by index, and the index behind; `None`: that was the last.
type Page<T> = (Vec<T>, Option<usize>);

/// What is sent to a datanode.
pub(crate) type ToSession = mpsc::Sender<Result<v1::ToDatanode, Status>>;

/// The locks that heartbeats, reads and mutations wait for, and what is known of their holds.
#[derive(Debug, Default)]
pub(crate) struct Locks {
    namespace_read: HoldStats,
    namespace_write: HoldStats,
    cluster: HoldStats,
    sessions: HoldStats,
}

impl Locks {
    /// Each with the name it has in metrics.
    pub(crate) fn each(&self) -> [(&'static str, &HoldStats); 4] {
        [
            ("namespace_read", &self.namespace_read),
            ("namespace_write", &self.namespace_write),
            ("cluster", &self.cluster),
            ("sessions", &self.sessions),
        ]
    }
}

/// What the drivers share.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) config: MasterConfig,
    pub(crate) cluster_id: ClusterId,
    pub(crate) epoch: Epoch,
    pub(crate) groups: Groups,
    pub(crate) clock: Clock,
    pub(crate) metrics: Metrics,
    /// How long calls take. All threads count in the same place: a call costs thousands of times more.
    pub(crate) latency: Stages<Stage>,
    /// Of calls whose caller wants to know; others do not come here.
    traces: Mutex<TraceRing>,
    authority: Authority,
    namespace: RwLock<Namespace>,
    cluster: Mutex<Cluster>,
    sessions: Mutex<BTreeMap<SessionId, ToSession>>,
    pub(crate) locks: Locks,
    durable: AtomicU64,
    history: AtomicU64,
    /// One registration at a time decides about a loss: see [`loss`](crate::loss).
    pub(crate) settling: tokio::sync::Mutex<()>,
    /// One reservation of chunk ids at a time.
    pub(crate) reserving: tokio::sync::Mutex<()>,
    log_stats: Mutex<Option<LogStats>>,
    log_syncs: OnceLock<SyncTimes>,
    checkpoints: Mutex<CheckpointStats>,
    failure: watch::Sender<Option<MasterFailure>>,
    repair: Notify,
    repair_found: Mutex<Found>,
    /// Chunks of which datanodes have answered something: repair goes on with these.
    touched: Mutex<Vec<ChunkId>>,
    /// Full reports that are taken at once.
    pub(crate) reports: Semaphore,
}

impl State {
    /// The state of a master that has just recovered.
    pub(crate) fn new(
        config: MasterConfig,
        cluster_id: ClusterId,
        epoch: Epoch,
        namespace: Namespace,
        cluster: Cluster,
        clock: Clock,
    ) -> Self {
        Self {
            groups: Groups::new(&config.superuser, config.groups.clone()),
            config,
            cluster_id,
            epoch,
            clock,
            metrics: Metrics::default(),
            latency: Stages::default(),
            traces: Mutex::default(),
            authority: Authority::unbounded(),
            durable: AtomicU64::new(namespace.applied().0),
            history: AtomicU64::new(namespace.history().0),
            settling: tokio::sync::Mutex::default(),
            reserving: tokio::sync::Mutex::default(),
            namespace: RwLock::new(namespace),
            cluster: Mutex::new(cluster),
            sessions: Mutex::default(),
            locks: Locks::default(),
            log_stats: Mutex::new(None),
            log_syncs: OnceLock::new(),
            checkpoints: Mutex::new(CheckpointStats::default()),
            failure: watch::Sender::new(None),
            repair: Notify::new(),
            repair_found: Mutex::default(),
            touched: Mutex::default(),
            reports: Semaphore::new(REPORTS_AT_ONCE),
        }
    }

    /// As it is, of a leader that may answer no longer than this.
    pub(crate) fn with_authority(self, authority: Authority) -> Self {
        Self { authority, ..self }
    }

    /// As it is, with these stages held up.
    ///
    /// # Errors
    /// For a stage that is not there.
    pub(crate) fn with_delays(self, delays: &[Delay]) -> Result<Self, BadDelay> {
        Ok(Self { latency: Stages::with_delays(delays)?, ..self })
    }

    /// What is remembered of traced calls.
    pub(crate) fn traces(&self) -> MutexGuard<'_, TraceRing> {
        self.traces.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this master may answer and give orders: another one leads for certain only after that has ended.
    pub(crate) fn may_answer(&self) -> bool {
        self.authority.holds()
    }

    /// The namespace, to be asked.
    #[track_caller]
    pub(crate) fn namespace(&self) -> Held<'_, RwLockReadGuard<'_, Namespace>> {
        self.locks.namespace_read.held(self.namespace.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The namespace, to be changed: the writer's alone.
    #[track_caller]
    pub(crate) fn namespace_mut(&self) -> Held<'_, RwLockWriteGuard<'_, Namespace>> {
        self.locks.namespace_write.held(self.namespace.write().unwrap_or_else(PoisonError::into_inner))
    }

    /// The cluster.
    #[track_caller]
    pub(crate) fn cluster(&self) -> Held<'_, MutexGuard<'_, Cluster>> {
        self.locks.cluster.held(self.cluster.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The open sessions.
    #[track_caller]
    pub(crate) fn sessions(&self) -> Held<'_, MutexGuard<'_, BTreeMap<SessionId, ToSession>>> {
        self.locks.sessions.held(self.sessions.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The last LSN known to be durable.
    pub(crate) fn durable(&self) -> Lsn {
        Lsn(self.durable.load(Ordering::Acquire))
    }

    /// Everything up to `lsn` is durable.
    pub(crate) fn set_durable(&self, lsn: Lsn) {
        self.durable.fetch_max(lsn.0, Ordering::AcqRel);
    }

    /// The epoch at which a loss was last accepted.
    pub(crate) fn history(&self) -> Epoch {
        Epoch(self.history.load(Ordering::Acquire))
    }

    /// A loss was accepted; after [`set_durable`](Self::set_durable) with the position of its record.
    pub(crate) fn set_history(&self, epoch: Epoch) {
        self.history.fetch_max(epoch.0, Ordering::AcqRel);
    }

    /// What the log counted when it was last asked.
    pub(crate) fn log_stats(&self) -> Option<LogStats> {
        *self.log_stats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The times of the log's durable writes, in HdrHistogram's encoding.
    pub(crate) fn log_syncs(&self) -> Option<Vec<u8>> {
        self.log_syncs.get().map(SyncTimes::encode)
    }

    /// Whose durable writes are told.
    pub(crate) fn set_log(&self, times: SyncTimes) {
        // Set once, with the one writer.
        let _ = self.log_syncs.set(times);
    }

    /// Keeps what the log counts.
    pub(crate) fn set_log_stats(&self, stats: LogStats) {
        *self.log_stats.lock().unwrap_or_else(PoisonError::into_inner) = Some(stats);
    }

    /// What is known of checkpoints.
    pub(crate) fn checkpoint_stats(&self) -> CheckpointStats {
        *self.checkpoints.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A checkpoint was finished.
    pub(crate) fn checkpoint_taken(&self, written: &Written, took: Duration) {
        let mut stats = self.checkpoints.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = stats.taken + 1;
        *stats = CheckpointStats { taken, lsn: written.lsn, bytes: written.bytes, took, ..*stats };
    }

    /// A checkpoint was not finished.
    pub(crate) fn checkpoint_failed(&self) {
        self.checkpoints.lock().unwrap_or_else(PoisonError::into_inner).failed += 1;
    }

    /// Something happened that may let repair go on.
    pub(crate) fn wake_repair(&self) {
        self.repair.notify_one();
    }

    /// Datanodes have answered something about these chunks.
    pub(crate) fn touch_repair(&self, chunks: impl Iterator<Item = ChunkId>) {
        let mut touched = self.touched.lock().unwrap_or_else(PoisonError::into_inner);
        let room = TOUCHED_MAX.saturating_sub(touched.len());
        touched.extend(chunks.take(room));
        drop(touched);
        self.wake_repair();
    }

    /// Takes the chunks out of which datanodes have answered something.
    pub(crate) fn take_touched(&self) -> Vec<ChunkId> {
        std::mem::take(&mut self.touched.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// All datanodes, sorted by id. The lock is let go of after each page, so nodes may change in between.
    pub(crate) fn node_views(&self) -> Vec<NodeView> {
        let mut views = self.pages(Cluster::views_page);
        views.sort_by_key(|view| view.id);
        views
    }

    /// All that the cluster gives in pages, from an index on each. The lock is let go of after each page.
    pub(crate) fn pages<T>(&self, page: fn(&Cluster, u64, usize) -> Page<T>) -> Vec<T> {
        let mut all = Vec::new();
        let mut from = Some(0);
        while let Some(at) = from {
            let (some, next) = page(&self.cluster(), self.clock.now_ms(), at);
            all.extend(some);
            from = next;
        }
        all
    }

    /// Sends a message to each datanode; what a full queue does not take is not sent.
    pub(crate) fn send_to_all(&self, message: impl Fn() -> v1::ToDatanode) {
        let mut after = None;
        loop {
            let behind = (after.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded);
            let page: Vec<(SessionId, ToSession)> = {
                let sessions = self.sessions();
                let page = sessions.range(behind).take(SESSIONS_PAGE);
                page.map(|(session, sender)| (*session, sender.clone())).collect()
            };
            let Some((last, _)) = page.last() else { return };
            after = Some(*last);
            for (_, sender) in &page {
                let _ = sender.try_send(Ok(message()));
            }
        }
    }

    /// Resolves when something happened that may let repair go on.
    pub(crate) async fn repair_woken(&self) {
        self.repair.notified().await;
    }

    /// What the last look of repair over all files found.
    pub(crate) fn repair_found(&self) -> Found {
        *self.repair_found.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A look of repair over all files has ended.
    pub(crate) fn set_repair_found(&self, found: Found) {
        *self.repair_found.lock().unwrap_or_else(PoisonError::into_inner) = found;
    }

    /// How this master introduces itself to datanodes.
    pub(crate) fn leader(&self) -> Leader {
        // Before the position: who sees the acceptance sees its record, too.
        let history = self.history();
        Leader { cluster: self.cluster_id, epoch: self.epoch, durable: self.durable(), history }
    }

    /// A message to a datanode, with the epochs and the durable LSN that it is to remember.
    pub(crate) fn to_datanode(&self, body: v1::to_datanode::Body) -> v1::ToDatanode {
        let Leader { epoch, durable, history, .. } = self.leader();
        v1::ToDatanode { epoch: epoch.0, lsn: durable.0, history: history.0, body: Some(body) }
    }

    /// The answer to a heartbeat; without the durable LSN it costs the datanode no write.
    pub(crate) fn sign_of_life(&self, with_lsn: bool) -> v1::ToDatanode {
        let Leader { epoch, durable, history, .. } = self.leader();
        let lsn = if with_lsn { durable.0 } else { 0 };
        v1::ToDatanode { epoch: epoch.0, lsn, history: history.0, body: None }
    }

    /// Gives orders to a datanode, as long as this master leads for certain. A full queue, or a session that has ended, is
    /// no harm: what is not carried out is ordered again.
    /// Says whether they are on their way.
    pub(crate) fn order(&self, session: SessionId, orders: v1::Orders) -> bool {
        if !self.may_answer() {
            return false;
        }
        let message = self.to_datanode(v1::to_datanode::Body::Orders(orders));
        let sender = self.sessions().get(&session).cloned();
        sender.is_some_and(|sender| sender.try_send(Ok(message)).is_ok())
    }

    /// The master gives up; the first reason stays.
    pub(crate) fn fail(&self, failure: MasterFailure) {
        tracing::error!(%failure, "the master gives up");
        self.failure.send_if_modified(|known| {
            let first = known.is_none();
            if first {
                *known = Some(failure);
            }
            first
        });
    }

    /// Why the master gave up, as soon as it does.
    pub(crate) fn failure(&self) -> watch::Receiver<Option<MasterFailure>> {
        self.failure.subscribe()
    }
}
