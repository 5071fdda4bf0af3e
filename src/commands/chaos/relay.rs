//! A relay between a datanode and the others, that can be cut: then nothing passes in either direction, and nobody is
//! told, as when a cable is pulled. What was on its way passes when it is mended.

use std::io;

use distrifs_proto::types::HostPort;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Bytes that are on their way in one direction of a connection.
const PIECE_BYTES: usize = 64 << 10;
/// Connections of one relay; further ones wait to be accepted.
const CONNECTIONS_MAX: usize = 1024;

/// Whether bytes pass, and where new connections go.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Route {
    cut: bool,
    /// `None` until it is known: connections wait.
    target: Option<HostPort>,
}

/// A running relay; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct Relay {
    address: HostPort,
    route: watch::Sender<Route>,
    _connections: JoinSet<()>,
}

impl Relay {
    /// Listens at a free port of this machine.
    pub(super) async fn start() -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = HostPort { host: "127.0.0.1".into(), port: listener.local_addr()?.port() };
        let (route, routes) = watch::channel(Route::default());
        let mut accepting = JoinSet::new();
        accepting.spawn(accept(listener, routes));
        Ok(Self { address, route, _connections: accepting })
    }

    /// Where it listens.
    pub(super) fn address(&self) -> &HostPort {
        &self.address
    }

    /// Where connections go from now on.
    pub(super) fn lead_to(&self, target: HostPort) {
        self.route.send_modify(|route| route.target = Some(target));
    }

    /// Lets nothing pass, or everything.
    pub(super) fn cut(&self, cut: bool) {
        self.route.send_modify(|route| route.cut = cut);
    }
}

async fn accept(listener: TcpListener, routes: watch::Receiver<Route>) {
    let mut connections = JoinSet::new();
    loop {
        while connections.len() >= CONNECTIONS_MAX {
            connections.join_next().await;
        }
        while connections.try_join_next().is_some() {}
        let Ok((near, _)) = listener.accept().await else {
            // Out of descriptors, for one: a little later there may be some.
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            continue;
        };
        let routes = routes.clone();
        connections.spawn(async move {
            if let Err(error) = pass(near, routes).await {
                tracing::debug!(%error, "a relayed connection ended");
            }
        });
    }
}

async fn pass(near: TcpStream, mut routes: watch::Receiver<Route>) -> io::Result<()> {
    let gone = |_| io::Error::from(io::ErrorKind::NotConnected);
    let open = routes.wait_for(|route| !route.cut && route.target.is_some());
    let target = open.await.map_err(gone)?.target.clone();
    let Some(HostPort { host, port }) = target else { return Ok(()) };
    let far = TcpStream::connect((host, port)).await?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    let (near_read, near_write) = near.into_split();
    let (far_read, far_write) = far.into_split();
    let there = copy(near_read, far_write, routes.clone());
    let back = copy(far_read, near_write, routes);
    // An end in one direction is passed on; an error in one ends both.
    tokio::try_join!(there, back).map(drop)
}

/// Copies while the route is not cut. One that ends meanwhile is seen to end when the route is mended.
async fn copy(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut routes: watch::Receiver<Route>,
) -> io::Result<()> {
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let read = from.read(&mut piece).await;
        let open = routes.wait_for(|route| !route.cut).await.is_ok();
        match read? {
            0 => return to.shutdown().await,
            _ if !open => return Ok(()),
            n => to.write_all(&piece[..n]).await?,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn bytes_wait_while_it_is_cut_and_pass_afterwards() {
        let server = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let relay = Relay::start().await.expect("a port");
        let at = relay.address().clone();
        let mut client = TcpStream::connect((at.host.as_str(), at.port)).await.expect("it listens");
        client.write_all(b"one").await.expect("sent");
        let port = server.local_addr().expect("bound").port();
        relay.lead_to(HostPort { host: "127.0.0.1".into(), port });
        let (mut served, _) = server.accept().await.expect("a connection");
        let mut three = [0; 3];
        served.read_exact(&mut three).await.expect("bytes");
        assert_eq!(&three, b"one");

        relay.cut(true);
        client.write_all(b"two").await.expect("sent");
        served.write_all(b"six").await.expect("sent");
        let late = timeout(Duration::from_millis(100), served.read_exact(&mut three)).await;
        assert!(late.is_err(), "cut");
        relay.cut(false);
        served.read_exact(&mut three).await.expect("bytes");
        assert_eq!(&three, b"two");
        client.read_exact(&mut three).await.expect("bytes");
        assert_eq!(&three, b"six");

        drop(served);
        assert_eq!(client.read(&mut three).await.expect("its end"), 0);
    }
}
