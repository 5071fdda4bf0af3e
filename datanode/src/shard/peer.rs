//! Connections to the next hop: opened once, used for many chunks.
//!
//! A task reads each connection for as long as it is open, in use or not, so that one which the peer has closed
//! is known before a chunk is entrusted to it.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::rc::Rc;
use std::time::Duration;

use distrifs_engine::io::{Io, RecvHalf, SendHalf};
use distrifs_proto::frame::{Header, Hello, Hop, Op};
use distrifs_proto::types::{ClusterId, HostPort, NodeId};
use tokio::sync::{mpsc, oneshot};

use super::intake::Intake;
use super::wire::{WireError, recv_control, send_control};

/// Idle connections kept per peer.
const IDLE_LINKS_MAX: usize = 16;
/// Answers that wait to be looked at; a peer that sends more is held back.
const ANSWERS_MAX: usize = 16;

/// An answer of the next hop: header and body, or why there will be none.
pub(crate) type Answer = Result<(Header, Vec<u8>), WireError>;

/// A connection to the next hop, used by one chunk at a time.
pub(crate) struct PeerLink {
    pub(crate) send: SendHalf,
    pub(crate) answers: mpsc::Receiver<Answer>,
    parts: LinkParts,
}

/// A link without its halves, while they are used by tasks of their own.
pub(crate) struct LinkParts {
    closed: Rc<Cell<bool>>,
    peer: (NodeId, HostPort),
}

impl PeerLink {
    pub(crate) fn into_parts(self) -> (SendHalf, mpsc::Receiver<Answer>, LinkParts) {
        (self.send, self.answers, self.parts)
    }

    pub(crate) fn from_parts(send: SendHalf, answers: mpsc::Receiver<Answer>, parts: LinkParts) -> Self {
        Self { send, answers, parts }
    }
}

/// The idle connections of a shard.
pub(crate) struct PeerPool {
    io: Io,
    connect_timeout: Duration,
    idle: RefCell<HashMap<(NodeId, HostPort), Vec<PeerLink>>>,
    requests: Cell<u64>,
}

impl PeerPool {
    pub(crate) fn new(io: Io, connect_timeout: Duration) -> Self {
        Self { io, connect_timeout, idle: RefCell::default(), requests: Cell::new(0) }
    }

    /// A number for a request of this node's own.
    pub(crate) fn next_request_id(&self) -> u64 {
        self.requests.set(self.requests.get() + 1);
        self.requests.get()
    }

    /// A connection to `hop`, an idle one or a new one.
    pub(crate) async fn link(&self, hop: &Hop, cluster: ClusterId) -> io::Result<PeerLink> {
        let peer = (hop.node, hop.address.clone());
        while let Some(link) = self.idle.borrow_mut().get_mut(&peer).and_then(Vec::pop) {
            if !link.parts.closed.get() {
                return Ok(link);
            }
        }
        let connecting = self.connect(peer, cluster);
        match self.io.timeout(self.connect_timeout, connecting).await {
            Ok(linked) => linked,
            Err(elapsed) => Err(io::Error::new(io::ErrorKind::TimedOut, elapsed)),
        }
    }

    async fn connect(&self, peer: (NodeId, HostPort), cluster: ClusterId) -> io::Result<PeerLink> {
        let address = resolve(&peer.1).await?;
        let (recv, mut send) = self.io.connect(address).await?.into_split();
        let hello = Hello { node: peer.0, cluster, token: Vec::new() };
        send_control(&mut send, Header::new(Op::Hello, 0), &hello.encode()).await?;
        let (tell, answers) = mpsc::channel(ANSWERS_MAX);
        let closed = Rc::new(Cell::new(false));
        self.io.spawn(read_answers(recv, tell, closed.clone()));
        Ok(PeerLink { send, answers, parts: LinkParts { closed, peer } })
    }

    /// Keeps a connection whose last chunk was acknowledged.
    pub(crate) fn keep(&self, link: PeerLink) {
        let mut idle = self.idle.borrow_mut();
        let links = idle.entry(link.parts.peer.clone()).or_default();
        links.retain(|link| !link.parts.closed.get());
        if links.len() < IDLE_LINKS_MAX && !link.parts.closed.get() {
            links.push(link);
        }
    }
}

async fn read_answers(recv: RecvHalf, tell: mpsc::Sender<Answer>, closed: Rc<Cell<bool>>) {
    let mut intake = Intake::new(recv);
    loop {
        let next = tokio::select! {
            biased;
            // Whoever used the connection gave it up: it ends with this task.
            () = tell.closed() => break,
            header = intake.request() => header,
        };
        let answer = match next {
            Ok(header) => recv_control(&mut intake, &header).await.map(|body| (header, body)),
            Err(error) => Err(error),
        };
        let ends = answer.is_err();
        if ends {
            closed.set(true);
        }
        if tell.send(answer).await.is_err() || ends {
            break;
        }
    }
    closed.set(true);
}

/// Names are looked up on a thread of their own: the look-up blocks.
async fn resolve(address: &HostPort) -> io::Result<SocketAddr> {
    if let Ok(ip) = address.host.parse() {
        return Ok(SocketAddr::new(ip, address.port));
    }
    let (tell, told) = oneshot::channel();
    let address = address.clone();
    std::thread::Builder::new().name("resolve".into()).spawn(move || {
        let found = (address.host.as_str(), address.port).to_socket_addrs().map(|mut all| all.next());
        // Whoever asked may have given up.
        let _ = tell.send(found);
    })?;
    let found = told.await.map_err(|_| io::Error::other("the look-up ended"))??;
    found.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the name has no address"))
}
