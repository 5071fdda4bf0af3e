//! Accepts connections of the data plane and hands them to the shards in turn.

use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};

use crate::shard::ShardCommand;

/// After an accept that failed (out of descriptors, for one), before the next.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(50);

/// Accepts until told to stop.
pub(crate) async fn run(
    listener: TcpListener,
    shards: Vec<mpsc::Sender<ShardCommand>>,
    mut stop: watch::Receiver<bool>,
) {
    let mut turn = 0;
    loop {
        let accepted = tokio::select! {
            _ = stop.wait_for(|&stop| stop) => return,
            accepted = listener.accept() => accepted,
        };
        let socket = match accepted.and_then(|(socket, _)| socket.into_std()) {
            Ok(socket) => socket,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(PAUSE_AFTER_FAILURE).await;
                continue;
            }
        };
        turn += 1;
        // A shard that has no room for one more message has no time for one more connection either.
        if shards[turn % shards.len()].try_send(ShardCommand::Serve(socket)).is_err() {
            tracing::warn!("a connection was refused: the shard is busy");
        }
    }
}
