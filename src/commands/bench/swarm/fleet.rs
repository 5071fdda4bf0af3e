//! All simulated datanodes of one master: their threads, their power switch, and what they saw.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use distrifs_proto::ErrorCode;
use distrifs_proto::types::HostPort;
use tokio::runtime::Runtime;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::data_port;
use super::layout::Layout;
use super::sim_node::{CountedSession, SimNode};
use crate::error::CommandError;

/// Threads of a fleet.
const THREADS: usize = 2;
/// Niceness of these threads.
const NICE: i32 = 10;
/// Nodes that register at once: more would only queue up in the master's accept backlog.
pub(super) const REGISTERING_MAX: usize = 64;
/// Replicas that wait for their node; a copy that finds the queue full fails as busy.
const STORED_MAX: usize = 4096;
/// How often the state of the fleet is looked at while something is waited for.
const POLL: Duration = Duration::from_millis(20);
/// How often the fleet looks how late its threads are.
const LAG_INTERVAL: Duration = Duration::from_millis(50);
/// Of no copy order.
const NEVER: u64 = u64::MAX;

/// What a fleet is made of.
pub(super) struct FleetConfig {
    pub(super) layout: Layout,
    pub(super) master: HostPort,
    /// Identity of the first node; those of the others follow.
    pub(super) first_id: u64,
    /// The chunk that the layout calls 0; `None`: the nodes begin empty.
    pub(super) first_chunk: Option<u64>,
    /// How long the master may take to answer a registration or to take a message.
    pub(super) patience: Duration,
}

/// A running fleet. Dropping it ends all nodes.
pub(super) struct Fleet {
    shared: Arc<Shared>,
    runtime: Option<Runtime>,
}

/// What the nodes of a fleet share.
pub(super) struct Shared {
    pub(super) layout: Layout,
    pub(super) master: HostPort,
    pub(super) patience: Duration,
    pub(super) data_address: String,
    /// Nodes with a lower index are down.
    pub(super) power: watch::Sender<u64>,
    /// Whether block reports may be sent.
    pub(super) reports: watch::Sender<bool>,
    pub(super) registering: Semaphore,
    /// Nodes with a session.
    pub(super) sessions: AtomicU64,
    first_id: u64,
    first_chunk: Option<u64>,
    origin: Instant,
    nodes: Vec<Slot>,
    copies_ordered: AtomicU64,
    /// Microseconds since the origin.
    first_copy: AtomicU64,
    lag_max_us: AtomicU64,
    last_failure: Mutex<String>,
}

/// One node as the others see it.
struct Slot {
    stored: mpsc::Sender<u64>,
    /// When its last message and the one before were handed to the network, in microseconds since the origin.
    last_sent: AtomicU64,
    sent_before: AtomicU64,
}

impl Fleet {
    /// Starts all nodes; they register at once, and send block reports after [`Self::open_reports`].
    ///
    /// Their threads have a lower priority than the master's: real datanodes would not take processor time from it.
    /// The clients that are measured stay on the caller's runtime at the usual priority, since their own waiting for a
    /// processor would count as the master's latency.
    pub(super) fn start(config: FleetConfig) -> Result<Self, CommandError> {
        let failed = |error: std::io::Error| CommandError::Daemon(format!("simulated datanodes: {error}"));
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(THREADS)
            .thread_name("fleet")
            .on_thread_start(lower_priority)
            .enable_all()
            .build()
            .map_err(failed)?;
        let listener = std::net::TcpListener::bind("127.0.0.1:0").map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let data_address = listener.local_addr().map_err(failed)?.to_string();
        let (mut nodes, mut queues) = (Vec::new(), Vec::new());
        for _ in 0..config.layout.nodes() {
            let (stored, queue) = mpsc::channel(STORED_MAX);
            nodes.push(Slot { stored, last_sent: AtomicU64::new(0), sent_before: AtomicU64::new(0) });
            queues.push(queue);
        }
        let shared = Arc::new(Shared {
            layout: config.layout,
            master: config.master,
            patience: config.patience,
            data_address,
            power: watch::Sender::new(0),
            reports: watch::Sender::new(false),
            registering: Semaphore::new(REGISTERING_MAX),
            sessions: AtomicU64::new(0),
            first_id: config.first_id,
            first_chunk: config.first_chunk,
            origin: Instant::now(),
            nodes,
            copies_ordered: AtomicU64::new(0),
            first_copy: AtomicU64::new(NEVER),
            lag_max_us: AtomicU64::new(0),
            last_failure: Mutex::new(String::new()),
        });
        runtime.spawn(data_port::serve(listener, shared.clone()));
        runtime.spawn(watch_lag(shared.clone()));
        for (index, queue) in queues.into_iter().enumerate() {
            let shared = shared.clone();
            // The inventory is made on the fleet's threads, too.
            runtime.spawn(async move { SimNode::new(shared, index as u64, queue).run().await });
        }
        Ok(Self { shared, runtime: Some(runtime) })
    }

    /// Waits until every node that is up has a session; says how many these are.
    pub(super) async fn wait_registered(&self, within: Duration) -> Result<u64, CommandError> {
        let deadline = Instant::now() + within;
        let wanted = self.shared.layout.nodes() - *self.shared.power.borrow();
        loop {
            let sessions = self.shared.sessions.load(Ordering::Relaxed);
            if sessions >= wanted {
                return Ok(wanted);
            }
            if Instant::now() >= deadline {
                let why = self.last_failure();
                let text = format!(
                    "{sessions} of {wanted} simulated datanodes registered within {within:?}; last failure: {why}"
                );
                return Err(CommandError::TimedOut(text));
            }
            sleep(POLL).await;
        }
    }

    /// Lets the nodes send their block reports.
    pub(super) fn open_reports(&self) {
        self.shared.reports.send_replace(true);
    }

    /// Cuts the power of the first `count` nodes: all their connections are dropped.
    pub(super) fn kill(&self, count: u64) {
        self.shared.first_copy.store(NEVER, Ordering::Relaxed);
        self.shared.power.send_replace(count);
    }

    /// Gives all nodes their power back: they register again, with the inventory that they had.
    pub(super) fn power_on(&self) {
        self.shared.power.send_replace(0);
    }

    /// When the first of the nodes that are down is silent for `timeout`; `None` when all are up.
    pub(super) fn first_death(&self, timeout: Duration) -> Option<Instant> {
        let sent = self.down().iter().map(|slot| slot.last_sent.load(Ordering::Relaxed)).min()?;
        Some(self.shared.origin + Duration::from_micros(sent) + timeout)
    }

    /// How many nodes may be declared dead by now: they are down, and silent for `timeout`. The last message of each
    /// is not relied on, since the power may have been cut before it left.
    pub(super) fn may_be_dead(&self, timeout: Duration) -> u64 {
        let now = self.shared.micros();
        let timeout = micros(timeout);
        let silent = |slot: &&Slot| slot.sent_before.load(Ordering::Relaxed).saturating_add(timeout) <= now;
        self.down().iter().filter(silent).count() as u64
    }

    fn down(&self) -> &[Slot] {
        &self.shared.nodes[..*self.shared.power.borrow() as usize]
    }

    /// Whether the node with this identity is down.
    pub(super) fn is_down(&self, id: u64) -> bool {
        self.shared.index_of(id).is_some_and(|index| index < *self.shared.power.borrow())
    }

    /// Orders to copy a chunk so far.
    pub(super) fn copies_ordered(&self) -> u64 {
        self.shared.copies_ordered.load(Ordering::Relaxed)
    }

    /// When the first order to copy a chunk came since the last [`Self::kill`].
    pub(super) fn first_copy(&self) -> Option<Instant> {
        let at = self.shared.first_copy.load(Ordering::Relaxed);
        (at != NEVER).then(|| self.shared.origin + Duration::from_micros(at))
    }

    /// How late a timer of the fleet was at most, for want of processor time: by so much heartbeats were late through no
    /// fault of the master.
    pub(super) fn lag_max(&self) -> Duration {
        Duration::from_micros(self.shared.lag_max_us.load(Ordering::Relaxed))
    }

    fn last_failure(&self) -> String {
        self.shared.last_failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A way to write chunks to the nodes.
    pub(super) fn shared(&self) -> Arc<Shared> {
        self.shared.clone()
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        // A runtime must not be waited for on a thread of another one.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Shared {
    pub(super) fn id_of(&self, index: u64) -> u64 {
        self.first_id + index
    }

    fn index_of(&self, id: u64) -> Option<u64> {
        id.checked_sub(self.first_id).filter(|index| *index < self.layout.nodes())
    }

    /// Whether this is a node of the fleet that has power.
    pub(super) fn is_up(&self, id: u64) -> bool {
        self.index_of(id).is_some_and(|index| index >= *self.power.borrow())
    }

    /// The chunks that a node begins with.
    pub(super) fn planted_on(&self, index: u64) -> Vec<u64> {
        let Some(first) = self.first_chunk else { return Vec::new() };
        let mut chunks = self.layout.chunks_on(index);
        chunks.iter_mut().for_each(|chunk| *chunk += first);
        chunks
    }

    /// Gives a chunk to a node, if it is up and keeps up.
    pub(super) fn try_store(&self, id: u64, chunk: u64) -> Result<(), ErrorCode> {
        let index = self.index_of(id).filter(|_| self.is_up(id)).ok_or(ErrorCode::Unavailable)?;
        self.nodes[index as usize].stored.try_send(chunk).map_err(|_| ErrorCode::Busy)
    }

    /// Gives a chunk to a node, as soon as it takes it.
    pub(super) async fn store(&self, id: u64, chunk: u64) {
        if let Some(index) = self.index_of(id) {
            // The queue is closed only when the fleet ends.
            let _ = self.nodes[index as usize].stored.send(chunk).await;
        }
    }

    /// When a node's next heartbeat is due: those of all nodes are spread evenly over the interval.
    pub(super) fn next_beat(&self, index: u64, interval: Duration) -> Instant {
        let interval = micros(interval).max(1);
        let (now, phase) = (self.micros(), interval * index / self.layout.nodes());
        let wait = (phase + interval - now % interval) % interval;
        self.origin + Duration::from_micros(now + wait)
    }

    pub(super) fn count_session(self: &Arc<Self>) -> CountedSession {
        self.sessions.fetch_add(1, Ordering::Relaxed);
        CountedSession(self.clone())
    }

    pub(super) fn note_sent(&self, index: u64) {
        let slot = &self.nodes[index as usize];
        let before = slot.last_sent.swap(self.micros(), Ordering::Relaxed);
        slot.sent_before.store(before, Ordering::Relaxed);
    }

    pub(super) fn note_copies(&self, ordered: usize) {
        if ordered > 0 {
            self.first_copy.fetch_min(self.micros(), Ordering::Relaxed);
            self.copies_ordered.fetch_add(ordered as u64, Ordering::Relaxed);
        }
    }

    pub(super) fn note_failure(&self, why: String) {
        *self.last_failure.lock().unwrap_or_else(PoisonError::into_inner) = why;
    }

    fn micros(&self) -> u64 {
        micros(self.origin.elapsed())
    }
}

/// Apart from the nodes: their own timers also wait while the master takes no message.
async fn watch_lag(fleet: Arc<Shared>) {
    let mut ticks = interval(LAG_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let lag = ticks.tick().await.elapsed();
        fleet.lag_max_us.fetch_max(micros(lag), Ordering::Relaxed);
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

fn lower_priority() {
    let thread = rustix::thread::gettid();
    if let Err(error) = rustix::process::setpriority_process(Some(thread), NICE) {
        tracing::warn!(%error, "simulated datanodes compete with the master for the processors");
    }
}
