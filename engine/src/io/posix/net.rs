//! Sockets of the POSIX body: tokio's epoll.

use std::io;
use std::net::{Shutdown, SocketAddr};
use std::ops::Range;
use std::rc::Rc;

use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::io::buf::{Buf, Shared};
use crate::io::net::SOCKET_BUFFER_BYTES;
use crate::io::socket;
use crate::io::window::Window;

use super::Posix;

impl Posix {
    pub(in crate::io) async fn connect(&self, to: SocketAddr) -> io::Result<PosixStream> {
        let socket = if to.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        // Before the handshake, which tells the peer how far the window may grow.
        let bytes = u32::try_from(SOCKET_BUFFER_BYTES).unwrap_or(u32::MAX);
        socket.set_send_buffer_size(bytes)?;
        socket.set_recv_buffer_size(bytes)?;
        PosixStream::new(socket.connect(to).await?)
    }

    pub(in crate::io) fn listen(&self, at: SocketAddr) -> io::Result<PosixListener> {
        let listener = socket::listen(at)?;
        listener.set_nonblocking(true)?;
        Ok(PosixListener(TcpListener::from_std(listener)?))
    }

    pub(in crate::io) fn adopt(&self, socket: std::net::TcpStream) -> io::Result<PosixStream> {
        socket.set_nonblocking(true)?;
        PosixStream::new(TcpStream::from_std(socket)?)
    }
}

/// A listening socket.
pub(in crate::io) struct PosixListener(TcpListener);

impl PosixListener {
    pub(in crate::io) async fn accept(&self) -> io::Result<(PosixStream, SocketAddr)> {
        let (stream, from) = self.0.accept().await?;
        Ok((PosixStream::new(stream)?, from))
    }

    pub(in crate::io) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

/// A connection.
pub(in crate::io) struct PosixStream(TcpStream);

impl PosixStream {
    fn new(stream: TcpStream) -> io::Result<Self> {
        socket::tune(&stream)?;
        Ok(Self(stream))
    }

    pub(in crate::io) fn into_split(self) -> (PosixRecv, PosixSend) {
        let shared = Rc::new(self.0);
        (PosixRecv(Rc::clone(&shared)), PosixSend(shared))
    }

    pub(in crate::io) fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.0.peer_addr()
    }
}

/// The receiving half.
pub(in crate::io) struct PosixRecv(Rc<TcpStream>);

impl PosixRecv {
    pub(in crate::io) async fn recv_once(
        &self,
        mut buf: Buf,
        range: Range<usize>,
    ) -> (io::Result<usize>, Buf) {
        // A peer that never lets the socket run dry must not keep the other tasks waiting.
        tokio::task::coop::consume_budget().await;
        loop {
            match self.0.try_read(&mut buf[range.clone()]) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return (result, buf),
            }
            if let Err(error) = self.0.readable().await {
                return (Err(error), buf);
            }
        }
    }
}

/// The sending half.
pub(in crate::io) struct PosixSend(Rc<TcpStream>);

impl PosixSend {
    pub(in crate::io) async fn send_once(&self, buf: Shared, range: Range<usize>) -> io::Result<usize> {
        tokio::task::coop::consume_budget().await;
        loop {
            match self.0.try_write(&buf[range.clone()]) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return result,
            }
            self.0.writable().await?;
        }
    }

    pub(in crate::io) async fn send_window_once(
        &self,
        window: Window,
        range: Range<usize>,
    ) -> (io::Result<usize>, Window) {
        tokio::task::coop::consume_budget().await;
        let send = || window.send_to(&*self.0, range.clone());
        let sent = self.0.async_io(Interest::WRITABLE, send).await;
        (sent, window)
    }

    pub(in crate::io) fn shutdown(&self) -> io::Result<()> {
        match SockRef::from(&*self.0).shutdown(Shutdown::Write) {
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
            result => result,
        }
    }
}

impl Drop for PosixSend {
    fn drop(&mut self) {
        // Of a connection that is already broken there is nothing to tell.
        let _ = self.shutdown();
    }
}
