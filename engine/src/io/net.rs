//! [`Stream`] and [`Listener`]: TCP on owned buffers, whole or with an error, over any body.

use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::time::Duration;

use super::buf::{Buf, Shared};
use super::window::Window;
use super::{posix, sim, uring};

/// Connections that wait to be accepted.
pub const LISTEN_BACKLOG: u32 = 1024;
/// The send and the receive buffer of each connection.
pub const SOCKET_BUFFER_BYTES: usize = 1 << 20;
/// A peer that acknowledges nothing for this long, or takes nothing, is gone: on a half-open link `send` would
/// succeed. Far beyond the patience of those who watch a transfer: they know whether a hop that takes nothing
/// works or is dead, and whom to blame; the kernel knows neither and cuts every link of a pipeline at once.
pub const SOCKET_USER_TIMEOUT: Duration = Duration::from_secs(60);

/// Waits for connections.
pub struct Listener {
    kind: ListenerKind,
}

enum ListenerKind {
    Uring(uring::UringListener),
    Posix(posix::PosixListener),
    Sim(sim::SimListener),
}

impl Listener {
    pub(super) fn uring(listener: uring::UringListener) -> Self {
        Self { kind: ListenerKind::Uring(listener) }
    }

    pub(super) fn posix(listener: posix::PosixListener) -> Self {
        Self { kind: ListenerKind::Posix(listener) }
    }

    pub(super) fn sim(listener: sim::SimListener) -> Self {
        Self { kind: ListenerKind::Sim(listener) }
    }

    /// The next connection and where it comes from.
    pub async fn accept(&self) -> io::Result<(Stream, SocketAddr)> {
        match &self.kind {
            ListenerKind::Uring(listener) => {
                listener.accept().await.map(|(stream, from)| (Stream::uring(stream), from))
            }
            ListenerKind::Posix(listener) => {
                listener.accept().await.map(|(stream, from)| (Stream::posix(stream), from))
            }
            ListenerKind::Sim(listener) => {
                listener.accept().await.map(|(stream, from)| (Stream::sim(stream), from))
            }
        }
    }

    /// Where it listens.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        match &self.kind {
            ListenerKind::Uring(listener) => listener.local_addr(),
            ListenerKind::Posix(listener) => listener.local_addr(),
            ListenerKind::Sim(listener) => Ok(listener.local_addr()),
        }
    }
}

/// A connection. It closes when it, or both its halves, are dropped.
pub struct Stream {
    kind: StreamKind,
}

enum StreamKind {
    Uring(uring::UringStream),
    Posix(posix::PosixStream),
    Sim(sim::SimStream),
}

impl Stream {
    pub(super) fn uring(stream: uring::UringStream) -> Self {
        Self { kind: StreamKind::Uring(stream) }
    }

    pub(super) fn posix(stream: posix::PosixStream) -> Self {
        Self { kind: StreamKind::Posix(stream) }
    }

    pub(super) fn sim(stream: sim::SimStream) -> Self {
        Self { kind: StreamKind::Sim(stream) }
    }

    /// The two directions, for two tasks.
    #[must_use]
    pub fn into_split(self) -> (RecvHalf, SendHalf) {
        let (recv, send) = match self.kind {
            StreamKind::Uring(stream) => {
                let (recv, send) = stream.into_split();
                (RecvKind::Uring(recv), SendKind::Uring(send))
            }
            StreamKind::Posix(stream) => {
                let (recv, send) = stream.into_split();
                (RecvKind::Posix(recv), SendKind::Posix(send))
            }
            StreamKind::Sim(stream) => {
                let (recv, send) = stream.into_split();
                (RecvKind::Sim(recv), SendKind::Sim(send))
            }
        };
        (RecvHalf { kind: recv }, SendHalf { kind: send })
    }

    /// Who is at the other end.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        match &self.kind {
            StreamKind::Uring(stream) => stream.peer_addr(),
            StreamKind::Posix(stream) => stream.peer_addr(),
            StreamKind::Sim(stream) => Ok(stream.peer_addr()),
        }
    }
}

/// The receiving direction of a [`Stream`].
pub struct RecvHalf {
    kind: RecvKind,
}

enum RecvKind {
    Uring(uring::UringRecv),
    Posix(posix::PosixRecv),
    Sim(sim::SimRecv),
}

impl RecvHalf {
    /// Receives what there is, at least a byte, into `range` of the buffer, which is not empty. `Ok(0)`: the peer
    /// closed. Dropped before its end, it may have consumed bytes: close the connection.
    pub async fn recv(&mut self, mut buf: Buf, range: Range<usize>) -> (io::Result<usize>, Buf) {
        assert!(range.start < range.end && range.end <= buf.len(), "a range of the buffer");
        loop {
            let result;
            (result, buf) = self.recv_once(buf, range.clone()).await;
            match result {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return (result, buf),
            }
        }
    }

    /// Fills `range` of the buffer. `Ok(0)`: the peer closed before the first byte; in the middle that is
    /// `UnexpectedEof`. Dropped before its end, it may have consumed bytes: close the connection.
    pub async fn recv_exact(&mut self, mut buf: Buf, range: Range<usize>) -> (io::Result<usize>, Buf) {
        assert!(range.start <= range.end && range.end <= buf.len(), "a range of the buffer");
        let mut at = range.start;
        while at < range.end {
            let result;
            (result, buf) = self.recv_once(buf, at..range.end).await;
            match result {
                Ok(0) if at == range.start => return (Ok(0), buf),
                Ok(0) => {
                    let (got, want) = (at - range.start, range.len());
                    let text = format!("the peer closed after {got} of {want} bytes");
                    return (Err(io::Error::new(io::ErrorKind::UnexpectedEof, text)), buf);
                }
                Ok(received) => at += received,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return (Err(error), buf),
            }
        }
        (Ok(range.len()), buf)
    }

    async fn recv_once(&mut self, buf: Buf, range: Range<usize>) -> (io::Result<usize>, Buf) {
        match &mut self.kind {
            RecvKind::Uring(stream) => stream.recv_once(buf, range).await,
            RecvKind::Posix(stream) => stream.recv_once(buf, range).await,
            RecvKind::Sim(stream) => stream.recv_once(buf, range).await,
        }
    }
}

/// The sending direction of a [`Stream`]. Dropping it tells the peer that nothing more comes.
pub struct SendHalf {
    kind: SendKind,
}

enum SendKind {
    Uring(uring::UringSend),
    Posix(posix::PosixSend),
    Sim(sim::SimSend),
}

impl SendHalf {
    /// Hands `range` of the buffer to the network: all of it, or an error and an unknown part.
    pub async fn send_all(&mut self, buf: Shared, range: Range<usize>) -> io::Result<()> {
        assert!(range.start <= range.end && range.end <= buf.len(), "a range of the buffer");
        let once = async |buf: Shared, rest| {
            let sent = match &mut self.kind {
                SendKind::Uring(stream) => stream.send_once(buf.clone(), rest).await,
                SendKind::Posix(stream) => stream.send_once(buf.clone(), rest).await,
                SendKind::Sim(stream) => stream.send_once(buf.clone(), rest).await,
            };
            (sent, buf)
        };
        in_parts(buf, range, once).await
    }

    /// Hands `range` of the window to the network: all of it, or an error and an unknown part. The file's bytes are in
    /// the page cache, as a rule; those that had to leave it meanwhile are read again, and hold up all tasks for so long.
    ///
    /// # Errors
    /// Also where they can no longer be read ([`Window::is_unreadable`]).
    pub async fn send_window(&mut self, window: Window, range: Range<usize>) -> io::Result<()> {
        assert!(range.start <= range.end && range.end <= window.len(), "a range of the window");
        let once = async |window, rest| match &mut self.kind {
            SendKind::Uring(stream) => stream.send_window_once(window, rest).await,
            SendKind::Posix(stream) => stream.send_window_once(window, rest).await,
            SendKind::Sim(stream) => stream.send_window_once(window, rest).await,
        };
        in_parts(window, range, once).await
    }

    /// Tells the peer that nothing more comes; what it sends can still be received.
    pub async fn shutdown(&mut self) -> io::Result<()> {
        match &mut self.kind {
            SendKind::Uring(stream) => stream.shutdown().await,
            SendKind::Posix(stream) => stream.shutdown(),
            SendKind::Sim(stream) => stream.shutdown(),
        }
    }
}

/// Sends all of `range`, as much at `once` as it takes.
async fn in_parts<T>(
    mut what: T,
    range: Range<usize>,
    mut once: impl AsyncFnMut(T, Range<usize>) -> (io::Result<usize>, T),
) -> io::Result<()> {
    let mut at = range.start;
    while at < range.end {
        let result;
        (result, what) = once(what, at..range.end).await;
        match result {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(sent) => at += sent,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
