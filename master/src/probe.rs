//! Asks the data port of each datanode for a sign of life: a heartbeat says that its control plane lives, not that its
//! data can be had (gray failure; Huang et al., HotOS 2017). What comes of it is evidence as the complaints of clients
//! are: a port that hangs is noticed within [`INTERVAL`] and twice [`PATIENCE`], whether or not anybody uses it. When half
//! of them do not answer it is the network, or this master, that is slow: then nobody is complained of.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use distrifs_proto::frame::{HEADER_BYTES, Header, Hello, Op, control_frame};
use distrifs_proto::types::NodeId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, timeout};

use crate::cluster::{Cluster, Endpoint, WEIGHT_READ};
use crate::state::State;

/// Between two signs of life of a node.
const INTERVAL: Duration = Duration::from_millis(1500);
/// Nodes that are asked in a second; beyond 750 nodes each is asked less often, and the evidence of clients counts more.
/// A probe is a connection of its own, which costs this master about 150 us.
const PROBES_PER_SECOND: usize = 500;
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_millis(3500);
/// So often a node is asked before it is distrusted.
const TRIES: u32 = 2;
/// Nodes that are asked at once; the others have their turn a little later.
const PROBES_MAX: usize = 256;

/// Probes until `stop` turns true.
pub(crate) async fn run(state: Arc<State>, mut stop: watch::Receiver<bool>) {
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut probes = JoinSet::new();
    let mut asked = HashSet::new();
    // Nodes that have not answered the try before.
    let silent = Arc::new(AtomicUsize::new(0));
    loop {
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            Some(probe) = probes.join_next() => {
                // One that panicked is not asked again by this master.
                if let Ok(node) = probe {
                    asked.remove(&node);
                }
                continue;
            }
            _ = ticks.tick() => {}
        }
        let heard = state.pages(Cluster::heard_page);
        let nodes = heard.len();
        let pause = Duration::from_millis((nodes * 1000 / PROBES_PER_SECOND) as u64);
        ticks.reset_after(pause.max(INTERVAL));
        for node in heard {
            if asked.contains(&node.node) {
                continue;
            }
            if probes.len() >= PROBES_MAX {
                let ended: Option<Result<NodeId, _>> = probes.join_next().await;
                if let Some(Ok(node)) = ended {
                    asked.remove(&node);
                }
            }
            asked.insert(node.node);
            probes.spawn(probe(state.clone(), node, nodes, silent.clone()));
        }
    }
}

/// Asks one of so many nodes, and complains of it when it stays silent and the others do not.
async fn probe(state: Arc<State>, at: Endpoint, nodes: usize, silent: Arc<AtomicUsize>) -> NodeId {
    for turn in 0..TRIES {
        let answer = timeout(PATIENCE, ask(&at)).await;
        let why = match answer {
            Ok(Ok(())) => {
                if turn > 0 {
                    silent.fetch_sub(1, Ordering::Relaxed);
                }
                return at.node;
            }
            Ok(Err(error)) => error.to_string(),
            Err(elapsed) => elapsed.to_string(),
        };
        if turn == 0 {
            silent.fetch_add(1, Ordering::Relaxed);
        }
        let mut cluster = state.cluster();
        // One whose heartbeats have stopped as well is judged by these.
        let heard = cluster.hears(state.clock.now_ms(), &at);
        if heard && are_few(silent.load(Ordering::Relaxed), nodes) {
            tracing::warn!(node = %at.node, address = at.address, why, "its data port gives no sign of life");
            cluster.complain(state.clock.now_ms(), at.node, WEIGHT_READ);
        }
    }
    silent.fetch_sub(1, Ordering::Relaxed);
    at.node
}

/// Whether so many silent ones are a fault of theirs; one always is.
fn are_few(silent: usize, nodes: usize) -> bool {
    silent <= 1 || silent * 2 < nodes
}

async fn ask(at: &Endpoint) -> io::Result<()> {
    let mut stream = TcpStream::connect(&at.address).await?;
    stream.set_nodelay(true)?;
    let hello = Hello { node: at.node, cluster: Default::default(), token: Vec::new() };
    let mut request = control_frame(Header::new(Op::Hello, 0), &hello.encode());
    request.extend(Header::new(Op::Ping, 1).encode());
    stream.write_all(&request).await?;
    let mut answer = [0; HEADER_BYTES];
    stream.read_exact(&mut answer).await?;
    match Header::decode(&answer).map_err(io::Error::other)? {
        Header { op: Op::Pong, request_id: 1, .. } => Ok(()),
        other => Err(io::Error::other(format!("answered {:?} to a ping", other.op))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_half_are_silent_it_is_not_they() {
        for (silent, nodes, expected) in [
            (1, 1, true),
            (1, 3, true),
            (2, 3, false),
            (2, 4, false),
            (2, 5, true),
            (3, 5, false),
            (3, 7, true),
        ] {
            assert_eq!(are_few(silent, nodes), expected, "{silent} of {nodes}");
        }
    }
}
