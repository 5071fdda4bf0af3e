//! The data port of all nodes of a fleet: one listener that answers the master's probe, a hello and a ping.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use distrifs_proto::frame::{HEADER_BYTES, Header, Hello, Op, Placement};
use distrifs_proto::limits::FRAME_CONTROL_BYTES_MAX;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use super::fleet::Shared;

/// Connections that are served at once; further ones wait in the backlog.
const CONNECTIONS_MAX: usize = 1024;
/// How long a caller may take until it has asked.
const ASK_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause after a failed accept: there may be no file descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves until the fleet's runtime ends.
pub(super) async fn serve(listener: std::net::TcpListener, fleet: Arc<Shared>) {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return fleet.note_failure(format!("data port: {error}")),
    };
    let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    // The semaphore is never closed.
    while let Ok(turn) = connections.clone().acquire_owned().await {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::debug!(%error, "the data port takes no connection");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let fleet = fleet.clone();
        tokio::spawn(async move {
            match timeout(ASK_TIMEOUT, answer(stream, &fleet)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!(%error, "a connection to the data port broke"),
                Err(_) => tracing::debug!("a connection to the data port was idle"),
            }
            drop(turn);
        });
    }
}

/// Answers the ping behind a hello that names a node with power; for another one the connection closes unanswered, as
/// that of a machine that is gone.
async fn answer(mut stream: TcpStream, fleet: &Shared) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (header, body) = read_frame(&mut stream).await?;
    if header.op != Op::Hello {
        return Err(io::Error::other(format!("{:?} instead of a hello", header.op)));
    }
    let hello = Hello::decode(&body).map_err(io::Error::other)?;
    if !fleet.is_up(hello.node.0) {
        return Ok(());
    }
    let (ping, _) = read_frame(&mut stream).await?;
    if ping.op != Op::Ping {
        return Err(io::Error::other(format!("{:?}: a simulated datanode has no bytes", ping.op)));
    }
    stream.write_all(&Header::new(Op::Pong, ping.request_id).encode()).await?;
    // Closes first, so that the connection's time-wait state does not use up the master's ports.
    stream.shutdown().await
}

async fn read_frame(stream: &mut TcpStream) -> io::Result<(Header, Vec<u8>)> {
    let mut bytes = [0; HEADER_BYTES];
    stream.read_exact(&mut bytes).await?;
    let header = Header::decode(&bytes).map_err(io::Error::other)?;
    let length = header.payload_bytes();
    if length > FRAME_CONTROL_BYTES_MAX {
        return Err(io::Error::other(format!("{:?} of {length} bytes", header.op)));
    }
    if length == 0 {
        return Ok((header, Vec::new()));
    }
    let place = Placement::at(0, length);
    let mut frame = vec![0; place.payload.end - HEADER_BYTES];
    stream.read_exact(&mut frame).await?;
    Ok((header, frame.split_off(place.payload.start - HEADER_BYTES)))
}

#[cfg(test)]
mod tests {
    use distrifs_proto::frame::control_frame;
    use distrifs_proto::types::NodeId;

    use super::*;

    #[tokio::test]
    async fn a_hello_frame_is_read_as_the_master_sends_it() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let mut caller = TcpStream::connect(listener.local_addr().expect("bound")).await.expect("connected");
        let (mut stream, _) = listener.accept().await.expect("accepted");
        let hello = Hello { node: NodeId(77), cluster: Default::default(), token: Vec::new() };
        let mut request = control_frame(Header::new(Op::Hello, 0), &hello.encode());
        request.extend(Header::new(Op::Ping, 1).encode());
        caller.write_all(&request).await.expect("sent");
        let (header, body) = read_frame(&mut stream).await.expect("a frame");
        assert_eq!((header.op, Hello::decode(&body)), (Op::Hello, Ok(hello)));
        let (header, body) = read_frame(&mut stream).await.expect("a frame");
        assert_eq!((header.op, header.request_id, body.len()), (Op::Ping, 1, 0));
    }
}
