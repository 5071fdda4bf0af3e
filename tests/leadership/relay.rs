//! A relay in front of a master that can hold what the master says, and let it go later.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};

#[derive(Default)]
struct Route {
    target: Mutex<Option<u16>>,
    held: Mutex<bool>,
    let_go: Condvar,
    /// Bytes that wait.
    waiting: AtomicUsize,
}

/// A running relay. Its threads end with their connections.
pub(crate) struct Relay {
    port: u16,
    route: Arc<Route>,
}

impl Relay {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let route = Arc::new(Route::default());
        let relay = Self { port, route: route.clone() };
        std::thread::spawn(move || {
            for near in listener.incoming().map_while(Result::ok) {
                let target = *route.target.lock().expect("nobody panicked");
                // As if nobody listened there.
                let Some(far) = target.and_then(|port| TcpStream::connect(("127.0.0.1", port)).ok()) else {
                    continue;
                };
                let clones = || Some((near.try_clone().ok()?, far.try_clone().ok()?));
                let Some((near_again, far_again)) = clones() else { continue };
                let route = route.clone();
                std::thread::spawn(move || pass(near_again, far_again, None));
                std::thread::spawn(move || pass(far, near, Some(&route)));
            }
        });
        relay
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Where new connections go.
    pub(crate) fn lead_to(&self, port: u16) {
        *self.route.target.lock().expect("nobody panicked") = Some(port);
    }

    /// Holds what the master says, or lets it go.
    pub(crate) fn hold(&self, hold: bool) {
        *self.route.held.lock().expect("nobody panicked") = hold;
        self.route.let_go.notify_all();
    }

    /// How many bytes are held.
    pub(crate) fn held(&self) -> usize {
        self.route.waiting.load(Ordering::SeqCst)
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, holds: Option<&Route>) {
    let mut piece = [0; 16 << 10];
    while let Ok(read @ 1..) = from.read(&mut piece) {
        if let Some(route) = holds {
            let mut held = route.held.lock().expect("nobody panicked");
            if *held {
                route.waiting.fetch_add(read, Ordering::SeqCst);
            }
            while *held {
                held = route.let_go.wait(held).expect("nobody panicked");
            }
        }
        if to.write_all(&piece[..read]).is_err() {
            break;
        }
    }
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}
