//! One TCP connection to a datanode's data plane, and the frames on it.
//!
//! The opening `Hello` waits for the first request and goes out with it: no round trip is spent on it.

use std::io;
use std::time::Duration;

use distrifs_proto::frame::{
    FrameError, HEADER_BYTES, Header, Hello, Op, PAYLOAD_START, Placement, control_frame,
};
use distrifs_proto::limits::BLOCK_BYTES;
use distrifs_proto::types::{ClusterId, NodeId};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::{TcpSocket, TcpStream, lookup_host};
use tokio::time::timeout;

use crate::status::Node;

/// Asked of the kernel for what is sent; it gave 3.6 instead of 2.6 GB/s on loopback.
const SEND_BUFFER_BYTES: usize = 1 << 20;
/// The same for what arrives: a whole frame while the one before is checked, so that a reader is woken less often. With
/// the half of it a reader takes a seventh more of the CPU, with the double no less.
const RECV_BUFFER_BYTES: usize = 2 << 20;
/// A host that is off sends nothing back; another one is tried sooner than it takes to be sure.
const CONNECT_TIMEOUT_MAX: Duration = Duration::from_secs(3);
/// Far beyond any patience with a transfer: a node that takes nothing because one behind it stands still must get
/// to name that one before the kernel cuts the link.
const USER_TIMEOUT: Duration = Duration::from_secs(60);

/// A connection to one datanode; carries one request at a time, unless it becomes a link.
#[derive(Debug)]
pub(crate) struct Connection {
    /// The socket.
    pub(crate) stream: TcpStream,
    /// Whom it leads to.
    pub(crate) node: NodeId,
    said_hello: bool,
    last_request: u64,
}

/// Why no frame arrived.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReceiveError {
    #[error("the connection was closed")]
    Closed,
    #[error("silent for {} ms", .0.as_millis())]
    Silent(Duration),
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Frame(#[from] FrameError),
    #[error("{op:?} frame of {length} bytes where none of that size belongs")]
    TooLong { op: Op, length: u32 },
}

impl Connection {
    /// Connects, within `patience` and [`CONNECT_TIMEOUT_MAX`].
    pub(crate) async fn open(node: &Node, patience: Duration) -> io::Result<Self> {
        let connect = async {
            let mut last = io::Error::new(io::ErrorKind::NotFound, "the host name has no address");
            for address in lookup_host((node.address.host.as_str(), node.address.port)).await? {
                let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
                socket.set_nonblocking(true)?;
                socket.set_tcp_nodelay(true)?;
                socket.set_send_buffer_size(SEND_BUFFER_BYTES)?;
                socket.set_recv_buffer_size(RECV_BUFFER_BYTES)?;
                // On a half-open link sends succeed; this bounds for how long.
                socket.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
                match TcpSocket::from_std_stream(socket.into()).connect(address).await {
                    Ok(stream) => return Ok(stream),
                    Err(error) => last = error,
                }
            }
            Err(last)
        };
        let late = || io::Error::new(io::ErrorKind::TimedOut, "no answer to the connection attempt");
        let stream = timeout(patience.min(CONNECT_TIMEOUT_MAX), connect).await.map_err(|_| late())??;
        Ok(Self { stream, node: node.id, said_hello: false, last_request: 0 })
    }

    /// A request id that this connection has not carried yet.
    pub(crate) fn next_request_id(&mut self) -> u64 {
        self.last_request += 1;
        self.last_request
    }

    /// Whether it carried a request before the current one.
    pub(crate) fn is_reused(&self) -> bool {
        self.last_request > 1
    }

    /// The bytes of an opening request, behind the `Hello` if that was not said yet.
    pub(crate) fn opening(&mut self, header: Header, body: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(512);
        if !self.said_hello {
            out.extend(self.hello());
        }
        out.extend(control_frame(header, body));
        out
    }

    /// The bytes of the `Hello`, which is said once.
    pub(crate) fn hello(&mut self) -> Vec<u8> {
        self.said_hello = true;
        let hello = Hello { node: self.node, cluster: ClusterId(0), token: Vec::new() };
        control_frame(Header::new(Op::Hello, 0), &hello.encode())
    }

    /// Whether the peer has said nothing and not hung up since the last request was answered.
    pub(crate) fn is_quiet(&self) -> bool {
        let mut byte = [0];
        matches!(self.stream.try_read(&mut byte), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }
}

/// Takes frames off a connection. What arrived of a frame is kept when a receive is dropped, so it may stand in a
/// `select!`.
#[derive(Debug)]
pub(crate) struct Receiver {
    head: [u8; HEADER_BYTES],
    head_filled: usize,
    /// The header, once it is whole, and how much of the body has arrived.
    body: Option<(Header, Placement, usize)>,
    /// Bytes that arrived so far.
    arrived: u64,
}

impl Default for Receiver {
    fn default() -> Self {
        Self { head: [0; HEADER_BYTES], head_filled: 0, body: None, arrived: 0 }
    }
}

impl Receiver {
    /// As [`Self::receive`], unless nothing at all arrives for so long.
    pub(crate) async fn receive_within(
        &mut self,
        stream: &mut (impl AsyncRead + Unpin),
        buffer: &mut [u8],
        silence: Duration,
    ) -> Result<(Header, Placement), ReceiveError> {
        loop {
            let before = self.arrived;
            match timeout(silence, self.receive(stream, buffer)).await {
                Ok(received) => return received,
                Err(_) if self.arrived > before => {}
                Err(_) => return Err(ReceiveError::Silent(silence)),
            }
        }
    }

    /// The next frame, its body at its place in `buffer`, its checksums not compared yet. The same buffer must be
    /// given until a frame is whole.
    pub(crate) async fn receive(
        &mut self,
        stream: &mut (impl AsyncRead + Unpin),
        buffer: &mut [u8],
    ) -> Result<(Header, Placement), ReceiveError> {
        loop {
            let Some((header, place, filled)) = &mut self.body else {
                match stream.read(&mut self.head[self.head_filled..]).await? {
                    0 => return Err(ReceiveError::Closed),
                    n => {
                        self.head_filled += n;
                        self.arrived += n as u64;
                    }
                }
                if self.head_filled == HEADER_BYTES {
                    self.head_filled = 0;
                    let header = Header::decode(&self.head)?;
                    let place = Placement::of(header.payload_bytes());
                    if place.payload.end > buffer.len() {
                        return Err(ReceiveError::TooLong { op: header.op, length: header.length });
                    }
                    self.body = Some((header, place, 0));
                }
                continue;
            };
            let body = place.body();
            if *filled == body.len() {
                let (header, place) = (*header, place.clone());
                self.body = None;
                return Ok((header, place));
            }
            match stream.read(&mut buffer[body.start + *filled..body.end]).await? {
                0 => return Err(ReceiveError::Closed),
                n => {
                    *filled += n;
                    self.arrived += n as u64;
                }
            }
        }
    }
}

const _: () = assert!(PAYLOAD_START.is_multiple_of(BLOCK_BYTES));

#[cfg(test)]
mod tests {
    use super::*;
    use distrifs_proto::ErrorCode;
    use distrifs_proto::frame::{ErrorBody, FRAME_BUFFER_BYTES, verify};

    fn error_frame() -> Vec<u8> {
        let body = ErrorBody { code: ErrorCode::Busy, node: NodeId(3), text: "later".into() };
        control_frame(Header::new(Op::Error, 9), &body.encode())
    }

    #[tokio::test]
    async fn frames_arrive_whole_from_bytes_in_any_pieces() {
        let bytes = [error_frame(), error_frame()].concat();
        for piece in [1, 7, 63, 64, 65, 1000] {
            let (mut near, mut far) = tokio::io::duplex(piece);
            let sent = bytes.clone();
            let sender = async move {
                tokio::io::AsyncWriteExt::write_all(&mut far, &sent).await.expect("the other end listens");
            };
            let receiver = async {
                let (mut receiver, mut buffer) = (Receiver::default(), vec![0; FRAME_BUFFER_BYTES]);
                for _ in 0..2 {
                    let (header, place) = receiver.receive(&mut near, &mut buffer).await.expect("a frame");
                    assert_eq!((header.op, verify(&buffer, &place)), (Op::Error, Ok(())));
                    assert_eq!(ErrorBody::decode(&buffer[place.payload]).map(|b| b.text), Ok("later".into()));
                }
                assert!(matches!(receiver.receive(&mut near, &mut buffer).await, Err(ReceiveError::Closed)));
            };
            tokio::join!(sender, receiver);
        }
    }

    #[tokio::test]
    async fn a_frame_beyond_the_buffer_is_an_error() {
        let frame = error_frame();
        let mut small = vec![0; PAYLOAD_START + 4];
        let outcome = Receiver::default().receive(&mut frame.as_slice(), &mut small).await;
        assert!(matches!(outcome, Err(ReceiveError::TooLong { op: Op::Error, .. })), "{outcome:?}");
        let outcome = Receiver::default().receive(&mut [7u8; 64].as_slice(), &mut small).await;
        assert!(matches!(outcome, Err(ReceiveError::Frame(FrameError::Magic(_)))), "{outcome:?}");
    }
}
