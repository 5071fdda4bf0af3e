//! Asks the data port of each datanode for a sign of life: a heartbeat says that its control plane lives, not that its
//! data can be had (gray failure; Huang et al., HotOS 2017). What comes of it is evidence as the complaints of clients
//! are: a port that hangs is noticed within [`INTERVAL`] and twice [`PATIENCE`], whether or not anybody uses it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use distrifs_proto::frame::{HEADER_BYTES, Header, Hello, Op, control_frame};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, timeout};

use crate::cluster::{Endpoint, WEIGHT_READ};
use crate::state::State;

/// Between two rounds.
const INTERVAL: Duration = Duration::from_secs(2);
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_millis(2500);
/// Nodes that are asked at once.
const PROBES_MAX: usize = 64;

/// Probes until `stop` turns true.
pub(crate) async fn run(state: Arc<State>, mut stop: watch::Receiver<bool>) {
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            _ = ticks.tick() => {}
        }
        let nodes = state.cluster().heard(state.clock.now_ms());
        let mut probes = JoinSet::new();
        for node in nodes {
            if probes.len() >= PROBES_MAX {
                probes.join_next().await;
            }
            probes.spawn(probe(state.clone(), node));
        }
        // Dropped, and with it what is under way, when the master stops.
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            () = async { while probes.join_next().await.is_some() {} } => {}
        }
    }
}

/// Asks twice before the node is distrusted.
async fn probe(state: Arc<State>, at: Endpoint) {
    for _ in 0..2 {
        let answer = timeout(PATIENCE, ask(&at)).await;
        let why = match answer {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.to_string(),
            Err(elapsed) => elapsed.to_string(),
        };
        // One whose heartbeats have stopped as well is judged by these.
        if !state.cluster().heard(state.clock.now_ms()).contains(&at) {
            return;
        }
        tracing::warn!(node = %at.node, address = at.address, why, "its data port gives no sign of life");
        state.cluster().complain(state.clock.now_ms(), at.node, WEIGHT_READ);
    }
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
