//! The settings that every socket gets, whichever body owns it.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

use super::net::{LISTEN_BACKLOG, SOCKET_BUFFER_BYTES, SOCKET_USER_TIMEOUT};

/// Small answers at once, large ones in large steps, and a dead peer noticed.
pub(super) fn tune(socket: &impl AsFd) -> io::Result<()> {
    let socket = SockRef::from(socket);
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_user_timeout(Some(SOCKET_USER_TIMEOUT))?;
    // Nothing is sent on an idle connection: without this one whose peer's machine is off would stay for good.
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(SOCKET_USER_TIMEOUT))?;
    socket.set_send_buffer_size(SOCKET_BUFFER_BYTES)?;
    socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES)
}

/// A listening socket; what it accepts inherits its buffer sizes, which the handshake needs to know.
pub(super) fn listen(at: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(at), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_send_buffer_size(SOCKET_BUFFER_BYTES)?;
    socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES)?;
    socket.bind(&at.into())?;
    socket.listen(i32::try_from(LISTEN_BACKLOG).unwrap_or(i32::MAX))?;
    Ok(socket.into())
}
