//! Sockets of the io_uring body: bytes through the ring. Connecting and accepting only wait on the ring and
//! then make a system call that does not block, so that a dropped one leaves the kernel no address to fill.

use std::io;
use std::net::{Shutdown, SocketAddr};
use std::ops::Range;

use monoio::io::{AsyncReadRent, AsyncWriteRent, OwnedReadHalf, OwnedWriteHalf, Splitable};
use monoio::net::{TcpListener, TcpStream};
use rustix::io::Errno;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::io::buf::{Buf, Shared};
use crate::io::drain::Operations;
use crate::io::net::SOCKET_BUFFER_BYTES;
use crate::io::socket;
use crate::io::window::Window;

use super::lent::Lent;
use super::{Uring, descriptor};

impl Uring {
    pub(in crate::io) async fn connect(&self, to: SocketAddr) -> io::Result<UringStream> {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
        // Before the handshake, which tells the peer how far the window may grow.
        socket.set_send_buffer_size(SOCKET_BUFFER_BYTES)?;
        socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES)?;
        socket.set_nonblocking(true)?;
        let connected = match socket.connect(&to.into()) {
            Ok(()) => true,
            Err(error) if error.raw_os_error() == Some(Errno::INPROGRESS.raw_os_error()) => false,
            Err(error) => return Err(error),
        };
        let stream = TcpStream::from_std(socket.into())?;
        if !connected {
            stream.writable(false).await?;
            if let Some(error) = SockRef::from(&descriptor(&stream)).take_error()? {
                return Err(error);
            }
        }
        self.stream(stream)
    }

    pub(in crate::io) fn listen(&self, at: SocketAddr) -> io::Result<UringListener> {
        let listener = socket::listen(at)?;
        listener.set_nonblocking(true)?;
        let waiter = TcpListener::from_std(listener.try_clone()?)?;
        Ok(UringListener { listener, waiter, body: self.clone() })
    }

    pub(in crate::io) fn adopt(&self, socket: std::net::TcpStream) -> io::Result<UringStream> {
        self.stream(TcpStream::from_std(socket)?)
    }

    fn stream(&self, stream: TcpStream) -> io::Result<UringStream> {
        let socket = descriptor(&stream);
        // The ring waits for a blocking socket; on the other kind it fails with EAGAIN.
        SockRef::from(&socket).set_nonblocking(false)?;
        socket::tune(&socket)?;
        Ok(UringStream { stream, operations: self.sockets.clone() })
    }
}

/// A listening socket.
pub(in crate::io) struct UringListener {
    listener: std::net::TcpListener,
    /// The same socket, for waiting on the ring.
    waiter: TcpListener,
    body: Uring,
}

impl UringListener {
    pub(in crate::io) async fn accept(&self) -> io::Result<(UringStream, SocketAddr)> {
        loop {
            match self.listener.accept() {
                Ok((stream, from)) => return Ok((self.body.adopt(stream)?, from)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
            self.waiter.readable(false).await?;
        }
    }

    pub(in crate::io) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

impl Drop for UringListener {
    fn drop(&mut self) {
        // The ring closes `waiter` a moment later; until then connections would still be taken.
        let _ = SockRef::from(&self.listener).shutdown(Shutdown::Both);
    }
}

/// A connection.
pub(in crate::io) struct UringStream {
    stream: TcpStream,
    operations: Operations,
}

impl UringStream {
    pub(in crate::io) fn into_split(self) -> (UringRecv, UringSend) {
        let (recv, send) = self.stream.into_split();
        let recv = UringRecv { half: recv, operations: self.operations.clone() };
        (recv, UringSend { half: send, operations: self.operations })
    }

    pub(in crate::io) fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.stream.peer_addr()
    }
}

/// The receiving half.
pub(in crate::io) struct UringRecv {
    half: OwnedReadHalf<TcpStream>,
    operations: Operations,
}

impl UringRecv {
    pub(in crate::io) async fn recv_once(
        &mut self,
        buf: Buf,
        range: Range<usize>,
    ) -> (io::Result<usize>, Buf) {
        let lent = Lent::new(buf, range, self.operations.begin().await);
        let (result, lent) = self.half.read(lent).await;
        (result, lent.buf)
    }
}

/// The sending half.
pub(in crate::io) struct UringSend {
    half: OwnedWriteHalf<TcpStream>,
    operations: Operations,
}

impl UringSend {
    pub(in crate::io) async fn send_once(&mut self, buf: Shared, range: Range<usize>) -> io::Result<usize> {
        let lent = Lent::new(buf, range, self.operations.begin().await);
        self.half.write(lent).await.0
    }

    pub(in crate::io) async fn send_window_once(
        &mut self,
        window: Window,
        range: Range<usize>,
    ) -> (io::Result<usize>, Window) {
        let lent = Lent::window(window, range, self.operations.begin().await);
        let (result, lent) = self.half.write(lent).await;
        (result, lent.buf)
    }

    /// monoio also does this when the half is dropped.
    pub(in crate::io) async fn shutdown(&mut self) -> io::Result<()> {
        match self.half.shutdown().await {
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
            result => result,
        }
    }
}
