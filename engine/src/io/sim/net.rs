//! The simulated network: one host, streams by port, with bounded buffers. A power cut resets all of them.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::Notify;

use crate::io::buf::{Buf, Shared};
use crate::io::net::LISTEN_BACKLOG;
use crate::io::window::Window;

use super::Sim;

/// What one direction of a connection holds at most.
const PIPE_BYTES_MAX: usize = 256 << 10;
/// How long a step of the network takes at most.
const NET_MICROS_MAX: u64 = 50;
/// Ports that are given out for port 0, and to clients.
const PORTS_FREE: Range<u16> = 32_768..61_000;

/// The listeners and connections of a world.
#[derive(Default)]
pub(super) struct Net {
    listeners: BTreeMap<u16, Arc<Queue>>,
    pipes: Vec<Weak<Pipe>>,
    clients: u16,
}

impl Net {
    pub(super) fn cut(&mut self) {
        for queue in std::mem::take(&mut self.listeners).into_values() {
            queue.changed.notify_waiters();
        }
        for pipe in self.pipes.drain(..).filter_map(|pipe| pipe.upgrade()) {
            pipe.lock().reset = true;
            pipe.changed.notify_waiters();
        }
    }

    fn pipe(&mut self) -> Arc<Pipe> {
        let pipe = Arc::new(Pipe::default());
        self.pipes.retain(|pipe| pipe.strong_count() > 0);
        self.pipes.push(Arc::downgrade(&pipe));
        pipe
    }
}

#[derive(Default)]
struct Queue {
    waiting: Mutex<VecDeque<(Ends, SocketAddr)>>,
    changed: Notify,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, VecDeque<(Ends, SocketAddr)>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One direction.
#[derive(Default)]
struct Pipe {
    state: Mutex<PipeState>,
    changed: Notify,
}

#[derive(Default)]
struct PipeState {
    bytes: VecDeque<u8>,
    /// The sender sends no more.
    ended: bool,
    /// The receiver is gone.
    unwanted: bool,
    reset: bool,
}

impl Pipe {
    fn lock(&self) -> MutexGuard<'_, PipeState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One side of a connection, until both its halves are gone.
struct Ends {
    incoming: Arc<Pipe>,
    outgoing: Arc<Pipe>,
}

impl Ends {
    fn end(&self) {
        self.outgoing.lock().ended = true;
        self.outgoing.changed.notify_waiters();
    }
}

impl Drop for Ends {
    fn drop(&mut self) {
        self.end();
        self.incoming.lock().unwanted = true;
        self.incoming.changed.notify_waiters();
    }
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

impl Sim {
    async fn network_step(&self) -> io::Result<()> {
        let micros = self.world.lock().chance.below(NET_MICROS_MAX);
        self.executor.sleep(Duration::from_micros(micros)).await;
        if self.world.lock().alive(self.boot) { Ok(()) } else { Err(io::ErrorKind::ConnectionReset.into()) }
    }

    pub(in crate::io) async fn connect(&self, to: SocketAddr) -> io::Result<SimStream> {
        self.network_step().await?;
        let net = &mut self.world.lock().net;
        let queue = net.listeners.get(&to.port()).map(Arc::clone).ok_or(io::ErrorKind::ConnectionRefused)?;
        if queue.lock().len() >= LISTEN_BACKLOG as usize {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        let (there, back) = (net.pipe(), net.pipe());
        net.clients = (net.clients + 1) % (u16::MAX - PORTS_FREE.end);
        let from = local(PORTS_FREE.end + net.clients);
        let server = Ends { incoming: Arc::clone(&there), outgoing: Arc::clone(&back) };
        queue.lock().push_back((server, from));
        queue.changed.notify_waiters();
        Ok(SimStream {
            body: self.clone(),
            ends: Ends { incoming: back, outgoing: there },
            peer: local(to.port()),
        })
    }

    pub(in crate::io) async fn listen(&self, at: SocketAddr) -> io::Result<SimListener> {
        self.network_step().await?;
        let listeners = &mut self.world.lock().net.listeners;
        let port = match at.port() {
            0 => PORTS_FREE.into_iter().find(|port| !listeners.contains_key(port)),
            port => (!listeners.contains_key(&port)).then_some(port),
        };
        let port = port.ok_or(io::ErrorKind::AddrInUse)?;
        let queue = Arc::new(Queue::default());
        listeners.insert(port, Arc::clone(&queue));
        Ok(SimListener { body: self.clone(), queue, port })
    }
}

/// A listening port.
pub(in crate::io) struct SimListener {
    body: Sim,
    queue: Arc<Queue>,
    port: u16,
}

impl SimListener {
    pub(in crate::io) async fn accept(&self) -> io::Result<(SimStream, SocketAddr)> {
        loop {
            let mut changed = pin!(self.queue.changed.notified());
            changed.as_mut().enable();
            self.body.network_step().await?;
            if let Some((ends, from)) = self.queue.lock().pop_front() {
                return Ok((SimStream { body: self.body.clone(), ends, peer: from }, from));
            }
            changed.await;
        }
    }

    pub(in crate::io) fn local_addr(&self) -> SocketAddr {
        local(self.port)
    }
}

impl Drop for SimListener {
    fn drop(&mut self) {
        let mut world = self.body.world.lock();
        let listeners = &mut world.net.listeners;
        // After a power cut the port may be another's.
        if listeners.get(&self.port).is_some_and(|queue| Arc::ptr_eq(queue, &self.queue)) {
            listeners.remove(&self.port);
        }
    }
}

/// A connection.
pub(in crate::io) struct SimStream {
    body: Sim,
    ends: Ends,
    peer: SocketAddr,
}

impl SimStream {
    pub(in crate::io) fn into_split(self) -> (SimRecv, SimSend) {
        let ends = Arc::new(self.ends);
        let recv = SimRecv { body: self.body.clone(), ends: Arc::clone(&ends) };
        (recv, SimSend { body: self.body, ends })
    }

    pub(in crate::io) fn peer_addr(&self) -> SocketAddr {
        self.peer
    }
}

/// The receiving half.
pub(in crate::io) struct SimRecv {
    body: Sim,
    ends: Arc<Ends>,
}

impl SimRecv {
    pub(in crate::io) async fn recv_once(
        &self,
        mut buf: Buf,
        range: Range<usize>,
    ) -> (io::Result<usize>, Buf) {
        let pipe = &self.ends.incoming;
        loop {
            let mut changed = pin!(pipe.changed.notified());
            changed.as_mut().enable();
            if let Err(error) = self.body.network_step().await {
                return (Err(error), buf);
            }
            let most = self.body.transfer_len(range.len());
            {
                let mut state = pipe.lock();
                if state.reset {
                    return (Err(io::ErrorKind::ConnectionReset.into()), buf);
                }
                let len = most.min(state.bytes.len());
                if len > 0 || state.ended {
                    for (place, byte) in buf[range].iter_mut().zip(state.bytes.drain(..len)) {
                        *place = byte;
                    }
                    pipe.changed.notify_waiters();
                    drop(state);
                    return (Ok(len), buf);
                }
            }
            changed.await;
        }
    }
}

/// The sending half.
pub(in crate::io) struct SimSend {
    body: Sim,
    ends: Arc<Ends>,
}

impl SimSend {
    pub(in crate::io) async fn send_once(&self, buf: Shared, range: Range<usize>) -> io::Result<usize> {
        self.send_bytes(&buf[range]).await
    }

    pub(in crate::io) async fn send_window_once(
        &self,
        window: Window,
        range: Range<usize>,
    ) -> (io::Result<usize>, Window) {
        let sent = match window.bytes() {
            Some(bytes) => self.send_bytes(&bytes[range]).await,
            None => Err(io::ErrorKind::Unsupported.into()),
        };
        (sent, window)
    }

    async fn send_bytes(&self, bytes: &[u8]) -> io::Result<usize> {
        let pipe = &self.ends.outgoing;
        loop {
            let mut changed = pin!(pipe.changed.notified());
            changed.as_mut().enable();
            self.body.network_step().await?;
            let most = self.body.transfer_len(bytes.len());
            {
                let mut state = pipe.lock();
                if state.reset {
                    return Err(io::ErrorKind::ConnectionReset.into());
                }
                if state.ended || state.unwanted {
                    return Err(io::ErrorKind::BrokenPipe.into());
                }
                let len = most.min(PIPE_BYTES_MAX - state.bytes.len());
                if len > 0 {
                    state.bytes.extend(&bytes[..len]);
                    pipe.changed.notify_waiters();
                    return Ok(len);
                }
            }
            changed.await;
        }
    }

    pub(in crate::io) fn shutdown(&self) -> io::Result<()> {
        self.ends.end();
        Ok(())
    }
}

impl Drop for SimSend {
    fn drop(&mut self) {
        self.ends.end();
    }
}
