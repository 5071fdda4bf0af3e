//! A running datanode: starts its threads in order, and stops them in the other.

use std::collections::HashSet;
use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use distrifs_engine::io::{Body, block_on_inline};
use distrifs_engine::store::StoreError;
use distrifs_engine::store::journal::{Journal, JournalDriver, Recovered, SEGMENT_BYTES_DEFAULT};
use distrifs_proto::latency::{Delay, Stages};
use distrifs_proto::types::{HostPort, NodeId};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle as Task;

use crate::config::DatanodeConfig;
use crate::control::Control;
use crate::folders::Folders;
use crate::node::{Counters, Node};
use crate::pace::Quiet;
use crate::scrub::Scrub;
use crate::shard::{self, SHARD_QUEUE_MAX, ShardCommand, ShardConfig};
use crate::stage::Stage;
use crate::{acceptor, http};

/// Connections that wait to be accepted.
const LISTEN_BACKLOG: i32 = 1024;
/// Events of the shards that wait for the control plane.
const EVENTS_MAX: usize = 4096;
/// How long the control plane and http may take to end; a client in the middle of a request is not waited for.
const TASK_STOP_MAX: Duration = Duration::from_secs(2);
/// How long the shards may take to end: their grace for open writes, and some for the operations in flight.
const SHARD_STOP_MAX: Duration = Duration::from_secs(10);
/// How long the journals may take to make their chunks' files durable; what they do not manage the next start does.
const JOURNAL_STOP_MAX: Duration = Duration::from_secs(10);
const STOP_POLL: Duration = Duration::from_millis(5);

/// Why a datanode did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A data folder cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The folders are not of one node.
    #[error("{path}: belongs to {found}, another of the data folders to {expected}")]
    MixedFolders {
        /// The folder that differs.
        path: String,
        /// Whose it is.
        found: String,
        /// Whose the others are.
        expected: String,
    },
    /// The configuration is wrong.
    #[error("{0}")]
    Config(String),
    /// An address cannot be taken.
    #[error("{address}: {source}")]
    Listen {
        /// The address.
        address: HostPort,
        /// As the system says it.
        source: io::Error,
    },
    /// The system refused a thread, a ring or memory.
    #[error("{what}: {source}")]
    System {
        /// What was asked for.
        what: &'static str,
        /// As the system says it.
        source: io::Error,
    },
}

/// A running datanode. Dropped without [`stop`](Self::stop), its threads go on until the process ends.
pub struct Datanode {
    node: Arc<Node>,
    data_address: SocketAddr,
    http_address: Option<SocketAddr>,
    stop: watch::Sender<bool>,
    shards: Vec<mpsc::Sender<ShardCommand>>,
    threads: Vec<JoinHandle<()>>,
    journals: Vec<Journal>,
    tasks: Vec<Task<()>>,
    failure: oneshot::Receiver<String>,
}

impl Datanode {
    /// Opens the folders, takes the addresses and serves. The master may come later: it is looked for until found.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left running.
    pub async fn start(config: DatanodeConfig) -> Result<Self, StartError> {
        if config.data_dirs.is_empty() || config.masters.is_empty() {
            return Err(StartError::Config("a datanode needs a data folder and a master".into()));
        }
        let body = config.io.resolve().map_err(|source| StartError::System { what: "I/O body", source })?;
        let (folders, inventory) = Folders::open(&config.data_dirs)?.scan(&body).await?;
        let identity = folders.identity();
        let Folders { serving: folders, journals, left_out, in_quarantine, witness, .. } = folders;
        let latency = shard_latency(&config)?;
        let node = Arc::new(Node::new(identity.node, identity.cluster, witness.epoch, folders.len()));
        Counters::add(&node.counters.folders_left_out, left_out.len() as u64);
        Counters::add(&node.counters.chunks_in_quarantine, in_quarantine);
        let damaged = journals.iter().map(|journal| journal.damaged).sum();
        Counters::add(&node.counters.journal_damaged, damaged);
        node.latency.get_or_init(|| latency);
        Control::measure_room(&node, &folders);
        let listener = listen(&config.listen)?;
        let http_listener = config.http.as_ref().map(listen).transpose()?;
        let address = |listener: &TcpListener| {
            listener.local_addr().map_err(|source| StartError::System { what: "own address", source })
        };
        let data_address = address(&listener)?;
        let http_address = http_listener.as_ref().map(address).transpose()?;
        let io_body = body.name();
        tracing::info!(node = %node.id, io = io_body, chunks = inventory.len(), %data_address, "datanode");

        let (stop, stopped) = watch::channel(false);
        let (fail, failure) = mpsc::channel(1);
        let (tell, events) = mpsc::channel(EVENTS_MAX);
        let journals = start_journals(&body, &node, journals, &fail)?;
        let roots = folders.iter().map(|folder| folder.root().to_owned());
        let with_journals: Vec<_> = roots.zip(journals.iter().cloned()).collect();
        let (shards, threads) = start_shards(&config, &body, &node, &with_journals, &tell, &fail)?;
        let control = Control {
            node: node.clone(),
            folders,
            left_out,
            witness,
            inventory,
            shards: shards.clone(),
            events,
            masters: config.masters,
            data_address: config.advertise.unwrap_or_else(|| HostPort {
                port: data_address.port(),
                ..advertised(&config.listen, data_address)
            }),
            rack: config.rack,
            io_body,
            incarnation: rand::random(),
            scrub: Scrub::new(config.scrub_interval, Duration::ZERO),
            quiet: Quiet::default(),
            dropped: HashSet::new(),
            lost_disks: vec![false; node.disks.len()],
            started: Instant::now(),
            socket_timeout: config.socket_timeout,
            stop: stopped.clone(),
        };
        let running = tokio::spawn(control.run());
        let mut tasks = vec![tokio::spawn(async move {
            let reason = match running.await {
                Ok(Ok(())) => return,
                Ok(Err(fatal)) => fatal.to_string(),
                Err(error) => format!("control plane: {error}"),
            };
            // The first reason is told; a second one finds the place taken.
            let _ = fail.try_send(reason);
        })];
        let system = |source| StartError::System { what: "listener", source };
        let listener = tokio::net::TcpListener::from_std(listener).map_err(system)?;
        tasks.push(tokio::spawn(acceptor::run(listener, shards.clone(), stopped.clone())));
        if let Some(listener) = http_listener {
            let listener = tokio::net::TcpListener::from_std(listener).map_err(system)?;
            let router = http::router(node.clone(), io_body);
            let mut stopped = stopped;
            tasks.push(tokio::spawn(async move {
                let until = async move { drop(stopped.wait_for(|&stop| stop).await) };
                if let Err(error) = axum::serve(listener, router).with_graceful_shutdown(until).await {
                    tracing::error!(%error, "http ended");
                }
            }));
        }
        let failure = first_failure(failure);
        Ok(Self { node, data_address, http_address, stop, shards, threads, journals, tasks, failure })
    }

    /// Its identity, the same for its whole life.
    #[must_use]
    pub fn node_id(&self) -> NodeId {
        self.node.id
    }

    /// Where it serves chunks.
    #[must_use]
    pub fn data_address(&self) -> SocketAddr {
        self.data_address
    }

    /// Where it serves health and metrics.
    #[must_use]
    pub fn http_address(&self) -> Option<SocketAddr> {
        self.http_address
    }

    /// Resolves when it cannot go on, with the reason on one line; never otherwise.
    pub async fn failed(&mut self) -> String {
        match (&mut self.failure).await {
            Ok(reason) => reason,
            Err(_) => std::future::pending().await,
        }
    }

    /// Finishes the writes in progress, within a few seconds, and ends.
    pub async fn stop(self) {
        // Nobody listens any more when the tasks have ended by themselves.
        let _ = self.stop.send(true);
        for shard in &self.shards {
            let _ = shard.send(ShardCommand::Stop).await;
        }
        // Not joined: a disk that never answers must not keep the process, which ends with or without that shard.
        let deadline = Instant::now() + SHARD_STOP_MAX;
        while self.threads.iter().any(|thread| !thread.is_finished()) {
            if Instant::now() > deadline {
                tracing::error!("a disk operation does not end: it is left behind");
                break;
            }
            tokio::time::sleep(STOP_POLL).await;
        }
        // After the shards: nobody appends any more. Their threads end with their answer.
        let deadline = tokio::time::Instant::now() + JOURNAL_STOP_MAX;
        for journal in &self.journals {
            match tokio::time::timeout_at(deadline, journal.stop()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::error!(%error, "a journal is left for the next start"),
                Err(_) => tracing::error!("a journal does not end: it is left for the next start"),
            }
        }
        for mut task in self.tasks {
            match tokio::time::timeout(TASK_STOP_MAX, &mut task).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::error!(%error, "a task of the control plane ended badly"),
                Err(_) => task.abort(),
            }
        }
    }
}

fn first_failure(mut reasons: mpsc::Receiver<String>) -> oneshot::Receiver<String> {
    let (tell, told) = oneshot::channel();
    tokio::spawn(async move {
        if let Some(reason) = reasons.recv().await {
            let _ = tell.send(reason);
        }
    });
    told
}

/// How many shards there are to be.
fn shard_count(config: &DatanodeConfig) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    config.shards.unwrap_or(cores).max(1)
}

/// The histograms of each shard.
fn shard_latency(config: &DatanodeConfig) -> Result<Vec<Arc<Stages<Stage>>>, StartError> {
    for Delay { stage, by } in &config.delays {
        tracing::warn!(stage, ?by, "every pass of this stage is held up, as --delay asks for");
    }
    let stages = |_| Stages::with_delays(&config.delays).map(Arc::new);
    (0..shard_count(config))
        .map(stages)
        .collect::<Result<_, _>>()
        .map_err(|e| StartError::Config(e.to_string()))
}

type Shards = (Vec<mpsc::Sender<ShardCommand>>, Vec<JoinHandle<()>>);

fn start_shards(
    config: &DatanodeConfig,
    body: &Body,
    node: &Arc<Node>,
    folders: &[(PathBuf, Journal)],
    events: &mpsc::Sender<shard::ShardEvent>,
    fail: &mpsc::Sender<String>,
) -> Result<Shards, StartError> {
    let count = shard_count(config);
    let (mut shards, mut threads) = (Vec::with_capacity(count), Vec::with_capacity(count));
    for index in 0..count {
        let (command, commands) = mpsc::channel(SHARD_QUEUE_MAX);
        let shard_config = ShardConfig {
            index,
            folders: folders.to_vec(),
            node: node.clone(),
            events: events.clone(),
            socket_timeout: config.socket_timeout,
        };
        let (body, fail) = (body.clone(), fail.clone());
        let spawned = std::thread::Builder::new().name(format!("shard-{index}")).spawn(move || {
            told(&format!("shard {index}"), &fail, || shard::run(body, shard_config, commands));
        });
        threads.push(spawned.map_err(|source| StartError::System { what: "shard thread", source })?);
        shards.push(command);
    }
    Ok((shards, threads))
}

/// Starts the journal of each folder, on a thread of its own: all shards share it.
fn start_journals(
    body: &Body,
    node: &Arc<Node>,
    recovered: Vec<Recovered>,
    fail: &mpsc::Sender<String>,
) -> Result<Vec<Journal>, StartError> {
    let start = |(disk, recovered): (usize, Recovered)| {
        let counters = node.disks[disk].store.clone();
        let (journal, driver) = Journal::new(recovered, SEGMENT_BYTES_DEFAULT, rand::random(), counters);
        let (body, node, fail) = (body.clone(), node.clone(), fail.clone());
        std::thread::Builder::new()
            .name(format!("journal-{disk}"))
            .spawn(move || told(&format!("journal {disk}"), &fail, || run_journal(body, driver, &node, disk)))
            .map_err(|source| StartError::System { what: "journal thread", source })?;
        Ok(journal)
    };
    recovered.into_iter().enumerate().map(start).collect()
}

fn run_journal(body: Body, driver: JournalDriver, node: &Node, disk: usize) -> io::Result<()> {
    block_on_inline(body, |io| {
        driver.run(io, |error| {
            tracing::error!(%error, "takes no more writes");
            node.disks[disk].suspect();
        })
    })
}

/// Runs a shard or a journal and tells how it failed. A panic too: a datanode that goes on without one of its shards
/// would refuse every connection that is that one's turn.
fn told(name: &str, fail: &mpsc::Sender<String>, thread: impl FnOnce() -> io::Result<()>) {
    let reason = match catch_unwind(AssertUnwindSafe(thread)) {
        Ok(Ok(())) => return,
        Ok(Err(error)) => error.to_string(),
        Err(_) => "panicked; the lines above say where".into(),
    };
    // The first reason is told; a second one finds the place taken.
    let _ = fail.try_send(format!("{name}: {reason}"));
}

/// Takes an address. Without SO_REUSEPORT, so that a port in use is noticed.
fn listen(address: &HostPort) -> Result<TcpListener, StartError> {
    let bind = || {
        let found = (address.host.as_str(), address.port).to_socket_addrs()?.next();
        let at = found.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the name has no address"))?;
        let socket = Socket::new(Domain::for_address(at), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        socket.bind(&at.into())?;
        socket.listen(LISTEN_BACKLOG)?;
        socket.set_nonblocking(true)?;
        Ok(TcpListener::from(socket))
    };
    bind().map_err(|source| StartError::Listen { address: address.clone(), source })
}

/// How others reach us: the host as it was configured; for "every address", what the system says.
fn advertised(configured: &HostPort, bound: SocketAddr) -> HostPort {
    if configured.host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_unspecified()) {
        let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
        return HostPort { host: name, port: bound.port() };
    }
    configured.clone()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shard_that_fails_or_panics_is_told() {
        let (fail, mut reasons) = mpsc::channel(1);
        told("shard 0", &fail, || Ok(()));
        assert!(reasons.try_recv().is_err());
        told("shard 1", &fail, || Err(io::Error::other("no ring")));
        assert_eq!(reasons.try_recv().as_deref(), Ok("shard 1: no ring"));
        told("shard 2", &fail, || panic!("a broken promise"));
        assert!(reasons.try_recv().is_ok_and(|reason| reason.starts_with("shard 2: panicked")));
    }
}
