//! Connections.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::rc::Rc;

use distrifs_engine::io::{Body, Buf, File, Io, Open, Stream, Window, block_on};
use tokio::sync::mpsc;

use crate::stage::{Stage, pattern, real_bodies, shared};

fn any_port() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

async fn pair(io: &Io) -> (Stream, Stream) {
    let listener = io.listen(any_port()).await.unwrap();
    let client = io.connect(listener.local_addr().unwrap()).await.unwrap();
    let (server, from) = listener.accept().await.unwrap();
    assert_eq!(client.peer_addr().unwrap(), listener.local_addr().unwrap());
    assert_eq!(server.peer_addr().unwrap(), from);
    (client, server)
}

pub(crate) async fn exact_receive_over_many_sends(stage: Stage) {
    let (client, server) = pair(&stage.io).await;
    let (_recv, mut send) = client.into_split();
    let io = stage.io.clone();
    stage.io.spawn(async move {
        let bytes = pattern(10_000, 5).share();
        for start in (0..10_000).step_by(97) {
            send.send_all(bytes.clone(), start..(start + 97).min(10_000)).await.unwrap();
            io.sleep(std::time::Duration::from_micros(50)).await;
        }
    });
    let (mut recv, _send) = server.into_split();
    let mut buf = Buf::alloc(10_100);
    for range in [50..51, 51..4_050, 4_050..10_050] {
        let received;
        (received, buf) = recv.recv_exact(buf, range.clone()).await;
        assert_eq!(received.unwrap(), range.len());
    }
    assert_eq!(buf[50..10_050], pattern(10_000, 5)[..]);
    assert!(buf[..50].iter().chain(&buf[10_050..]).all(|byte| *byte == 0));
}

/// As much as is there, at least a byte; then nothing, for the peer has closed.
pub(crate) async fn a_receive_takes_what_is_there(stage: Stage) {
    let (near, far) = pair(&stage.io).await;
    let (mut send, mut recv) = (near.into_split().1, far.into_split().0);
    send.send_all(shared(b"0123456789"), 0..10).await.unwrap();
    drop(send);
    let (mut buf, mut all) = (Buf::alloc(64), Vec::<u8>::new());
    loop {
        let received;
        (received, buf) = recv.recv(buf, 3..10).await;
        match received.unwrap() {
            0 => break,
            n => all.extend(&buf[3..3 + n]),
        }
    }
    assert_eq!(all, b"0123456789");
}

pub(crate) async fn a_close_in_the_middle_is_unexpected(stage: Stage) {
    let (client, server) = pair(&stage.io).await;
    let (recv, mut send) = client.into_split();
    send.send_all(shared(b"abc"), 0..3).await.unwrap();
    drop((recv, send));
    let (mut recv, _send) = server.into_split();
    let (received, _) = recv.recv_exact(Buf::alloc(10), 0..10).await;
    assert_eq!(received.unwrap_err().kind(), ErrorKind::UnexpectedEof);
}

pub(crate) async fn a_clean_close_is_zero(stage: Stage) {
    let (client, server) = pair(&stage.io).await;
    let (recv, mut send) = client.into_split();
    send.send_all(shared(b"abc"), 0..3).await.unwrap();
    drop((recv, send));
    let (mut recv, _send) = server.into_split();
    let (received, buf) = recv.recv_exact(Buf::alloc(3), 0..3).await;
    assert_eq!((received.unwrap(), &buf[..]), (3, &b"abc"[..]));
    for _ in 0..2 {
        let (received, _) = recv.recv_exact(Buf::alloc(3), 0..3).await;
        assert_eq!(received.unwrap(), 0);
    }
}

pub(crate) async fn shutdown_ends_one_direction_only(stage: Stage) {
    let (client, server) = pair(&stage.io).await;
    let (mut client_recv, mut client_send) = client.into_split();
    let (mut server_recv, mut server_send) = server.into_split();
    client_send.shutdown().await.unwrap();
    assert_eq!(server_recv.recv_exact(Buf::alloc(1), 0..1).await.0.unwrap(), 0);
    server_send.send_all(shared(b"answer"), 0..6).await.unwrap();
    let (received, buf) = client_recv.recv_exact(Buf::alloc(6), 0..6).await;
    assert_eq!((received.unwrap(), &buf[..]), (6, &b"answer"[..]));
    assert!(client_send.send_all(shared(b"x"), 0..1).await.is_err());
}

pub(crate) async fn dropping_the_sending_half_ends_the_direction(stage: Stage) {
    let (client, server) = pair(&stage.io).await;
    let (mut client_recv, client_send) = client.into_split();
    let (mut server_recv, mut server_send) = server.into_split();
    drop(client_send);
    assert_eq!(server_recv.recv_exact(Buf::alloc(1), 0..1).await.0.unwrap(), 0);
    server_send.send_all(shared(b"y"), 0..1).await.unwrap();
    assert_eq!(client_recv.recv_exact(Buf::alloc(1), 0..1).await.0.unwrap(), 1);
}

pub(crate) async fn nobody_listening_is_refused(stage: Stage) {
    let listener = stage.io.listen(any_port()).await.unwrap();
    let at = listener.local_addr().unwrap();
    drop(listener);
    let error = stage.io.connect(at).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
}

pub(crate) async fn large_transfers_both_ways_at_once(stage: Stage) {
    const FRAME: usize = 1 << 20;
    const FRAMES: u8 = 16;
    let (client, server) = pair(&stage.io).await;
    let (done, mut finished) = mpsc::channel(4);
    for (salt, stream) in [(0, client), (100, server)] {
        let (mut recv, mut send) = stream.into_split();
        let sent = done.clone();
        stage.io.spawn(async move {
            for index in 0..FRAMES {
                send.send_all(pattern(FRAME, salt + index).share(), 0..FRAME).await.unwrap();
            }
            sent.send(()).await.unwrap();
        });
        let received = done.clone();
        stage.io.spawn(async move {
            let mut buf = Buf::alloc(FRAME);
            for index in 0..FRAMES {
                let result;
                (result, buf) = recv.recv_exact(buf, 0..FRAME).await;
                assert_eq!(result.unwrap(), FRAME);
                assert!(buf[..] == pattern(FRAME, 100 - salt + index)[..]);
            }
            assert_eq!(recv.recv_exact(buf, 0..1).await.0.unwrap(), 0);
            received.send(()).await.unwrap();
        });
    }
    for _ in 0..4 {
        finished.recv().await.unwrap();
    }
}

pub(crate) async fn many_connections_at_once(stage: Stage) {
    const CONNECTIONS: usize = 300;
    let listener = Rc::new(stage.io.listen(any_port()).await.unwrap());
    let at = listener.local_addr().unwrap();
    let io = stage.io.clone();
    stage.io.spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            io.spawn(async move {
                let (mut recv, mut send) = stream.into_split();
                let (received, buf) = recv.recv_exact(Buf::alloc(8), 0..8).await;
                received.unwrap();
                send.send_all(buf.share(), 0..8).await.unwrap();
            });
        }
    });
    let mut streams = Vec::new();
    for _ in 0..CONNECTIONS {
        streams.push(stage.io.connect(at).await.unwrap().into_split());
    }
    // All receives of the server are in flight: file operations still find room.
    let file = stage.io.open(&stage.path("file"), Open::CREATE).await.unwrap();
    file.write_at(shared(b"x"), 0..1, 0).await.unwrap();
    for (index, (recv, send)) in streams.iter_mut().enumerate() {
        let bytes = (index as u64).to_le_bytes();
        send.send_all(shared(&bytes), 0..8).await.unwrap();
        let (received, buf) = recv.recv_exact(Buf::alloc(8), 0..8).await;
        assert_eq!((received.unwrap(), &buf[..]), (8, &bytes[..]));
    }
}

pub(crate) async fn a_port_is_free_again(stage: Stage) {
    let (client, server) = pair(&stage.io).await;
    drop((client, server));
    let listener = stage.io.listen(any_port()).await.unwrap();
    let at = listener.local_addr().unwrap();
    let error = stage.io.listen(at).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::AddrInUse);
    drop(listener);
    while stage.io.listen(at).await.is_err() {
        stage.io.sleep(std::time::Duration::from_millis(1)).await;
    }
}

const HEAD: usize = 4096;

/// A file with these bytes, as the page cache has them.
async fn cached(stage: &Stage, len: usize) -> File {
    let file = stage.io.open(&stage.path("file"), Open { read: true, ..Open::CREATE }).await.unwrap();
    file.write_at(pattern(len, 9).share(), 0..len, 0).await.unwrap();
    file
}

/// In the simulation bytes are in the page cache by chance; elsewhere they are, or it cannot be told.
async fn window(stage: &Stage, file: &File, range: std::ops::Range<u64>) -> Option<Window> {
    let tries = if stage.io.body_name() == "simulated" { 200 } else { 1 };
    let window = (0..tries).find_map(|_| file.window(HEAD, &range));
    if window.is_none() {
        println!("skipped: no window here");
        assert!(stage.io.body_name() != "simulated");
    }
    window
}

pub(crate) async fn a_window_arrives_behind_its_head(stage: Stage) {
    const LEN: usize = 100_000;
    let file = cached(&stage, LEN).await;
    let (client, server) = pair(&stage.io).await;
    let ((_recv, mut send), (mut recv, _send)) = (client.into_split(), server.into_split());
    for (from, to) in [(0, LEN), (0, 1), (4096, 8192), (65_536, 65_537), (8192, LEN)] {
        let Some(mut window) = window(&stage, &file, from as u64..to as u64).await else { return };
        assert_eq!((window.len(), window.head_mut().len()), (HEAD + to - from, HEAD));
        assert!(window.head_mut().iter().all(|byte| *byte == 0));
        window.head_mut()[HEAD - 5..].copy_from_slice(b"head:");
        let sent = HEAD - 5..window.len();
        let wanted = sent.len();
        send.send_window(window, sent).await.unwrap();
        let (received, buf) = recv.recv_exact(Buf::alloc(wanted), 0..wanted).await;
        assert_eq!((received.unwrap(), &buf[..5]), (wanted, &b"head:"[..]));
        assert!(buf[5..] == pattern(LEN, 9)[from..to]);
    }
}

/// More than both sockets hold, again and again, to one that takes its time; the other direction has a receive that
/// waits for bytes all the while.
pub(crate) async fn a_window_waits_for_a_slow_reader_and_disturbs_no_receive(stage: Stage) {
    const LEN: usize = 1 << 20;
    const ROUNDS: usize = 24;
    let file = cached(&stage, LEN).await;
    let Some(first) = window(&stage, &file, 0..LEN as u64).await else { return };
    let (client, server) = pair(&stage.io).await;
    let ((mut back, mut send), (mut recv, mut answer)) = (client.into_split(), server.into_split());
    let (done, mut finished) = mpsc::channel(2);
    let received = done.clone();
    stage.io.spawn(async move {
        let (got, buf) = back.recv_exact(Buf::alloc(3), 0..3).await;
        assert_eq!((got.unwrap(), &buf[..]), (3, &b"end"[..]));
        received.send(()).await.unwrap();
    });
    let io = stage.io.clone();
    stage.io.spawn(async move {
        let mut buf = Buf::alloc(LEN);
        for round in 0..ROUNDS {
            io.sleep(std::time::Duration::from_millis(if round < 3 { 30 } else { 1 })).await;
            let result;
            (result, buf) = recv.recv_exact(buf, 0..LEN).await;
            assert_eq!(result.unwrap(), LEN);
            assert!(buf[..] == pattern(LEN, 9)[..], "round {round}");
        }
        answer.send_all(shared(b"end"), 0..3).await.unwrap();
        done.send(()).await.unwrap();
    });
    send.send_window(first, HEAD..HEAD + LEN).await.unwrap();
    for _ in 1..ROUNDS {
        let next = window(&stage, &file, 0..LEN as u64).await.unwrap();
        send.send_window(next, HEAD..HEAD + LEN).await.unwrap();
    }
    finished.recv().await.unwrap();
    finished.recv().await.unwrap();
}

pub(crate) async fn a_window_to_a_peer_that_goes_away_is_an_error(stage: Stage) {
    const LEN: usize = 1 << 20;
    let file = cached(&stage, LEN).await;
    let (client, server) = pair(&stage.io).await;
    let (_recv, mut send) = client.into_split();
    let io = stage.io.clone();
    stage.io.spawn(async move {
        let (mut recv, send) = server.into_split();
        let (received, _) = recv.recv_exact(Buf::alloc(10_000), 0..10_000).await;
        assert_eq!(received.unwrap(), 10_000);
        io.sleep(std::time::Duration::from_millis(20)).await;
        drop((recv, send));
    });
    // More than what is between them can hold.
    for _ in 0..64 {
        let Some(window) = window(&stage, &file, 0..LEN as u64).await else { return };
        if let Err(error) = send.send_window(window, HEAD..HEAD + LEN).await {
            assert!(!Window::is_unreadable(&error), "{error}");
            return;
        }
    }
    panic!("64 MiB were sent to nobody");
}

/// What the kernel can no longer read of the file is an error of the send, and not the end of the process.
pub(crate) async fn a_window_of_a_file_that_was_cut_is_an_error(stage: Stage) {
    const LEN: usize = 64 << 10;
    let file = cached(&stage, LEN).await;
    let Some(window) = window(&stage, &file, 0..LEN as u64).await else { return };
    file.set_len(8192).await.unwrap();
    let (client, server) = pair(&stage.io).await;
    let ((_recv, mut send), (mut recv, _send)) = (client.into_split(), server.into_split());
    let sent = send.send_window(window, HEAD..HEAD + LEN).await;
    drop((send, _recv));
    if stage.io.body_name() == "simulated" {
        return sent.unwrap();
    }
    assert!(Window::is_unreadable(&sent.unwrap_err()));
    // A part of what was there may have come, and nothing else.
    let (received, buf) = recv.recv_exact(Buf::alloc(LEN), 0..LEN).await;
    match received {
        Ok(n) => assert_eq!(n, 0),
        Err(error) => assert_eq!(error.kind(), ErrorKind::UnexpectedEof),
    }
    assert!(buf[8192..].iter().all(|byte| *byte == 0));
}

pub(crate) async fn there_is_no_window_on_what_is_not_there(stage: Stage) {
    const LEN: u64 = 10_000;
    let file = cached(&stage, LEN as usize).await;
    for _ in 0..50 {
        for range in [0..LEN + 1, 4096..1 << 20, LEN..LEN, 0..0] {
            assert!(file.window(HEAD, &range).is_none(), "{range:?}");
        }
    }
    let direct = stage.io.open(&stage.path("file"), Open::READ_DIRECT).await.unwrap();
    if direct.is_direct() {
        assert!(direct.window(HEAD, &(0..4096)).is_none());
    }
    let write_only = stage.io.open(&stage.path("other"), Open::CREATE).await.unwrap();
    write_only.write_at(shared(b"x"), 0..1, 0).await.unwrap();
    assert!((0..50).all(|_| write_only.window(HEAD, &(0..1)).is_none()));
    if stage.io.body_name() != "simulated" {
        // Head and range begin at pages.
        assert!(file.window(HEAD, &(1..4096)).is_none() && file.window(HEAD - 1, &(0..4096)).is_none());
    }
}

async fn echo_once(io: &Io, socket: std::net::TcpStream) {
    let stream = io.adopt(socket).unwrap();
    let (mut recv, mut send) = stream.into_split();
    let (received, buf) = recv.recv_exact(Buf::alloc(5), 0..5).await;
    assert_eq!(received.unwrap(), 5);
    send.send_all(buf.share(), 0..5).await.unwrap();
}

/// How a shard gets its connections: accepted on another thread, sent through a channel.
fn adopts_what_another_thread_accepted(body: Body) {
    use std::io::{Read, Write};
    let listener = std::net::TcpListener::bind(any_port()).unwrap();
    let at = listener.local_addr().unwrap();
    let (send, mut sockets) = mpsc::channel(1);
    let acceptor = std::thread::spawn(move || {
        for nonblocking in [false, true] {
            // The other side has gone to sleep by now, or not: both must wake.
            std::thread::sleep(std::time::Duration::from_millis(20));
            let (socket, _) = listener.accept().unwrap();
            socket.set_nonblocking(nonblocking).unwrap();
            send.blocking_send(socket).unwrap();
        }
    });
    let client = std::thread::spawn(move || {
        for _ in 0..2 {
            let mut socket = std::net::TcpStream::connect(at).unwrap();
            std::thread::sleep(std::time::Duration::from_millis(20));
            socket.write_all(b"hello").unwrap();
            let mut answer = [0; 5];
            socket.read_exact(&mut answer).unwrap();
            assert_eq!(&answer, b"hello");
        }
    });
    block_on(body, |io| async move {
        while let Some(socket) = sockets.recv().await {
            echo_once(&io, socket).await;
        }
    })
    .unwrap();
    acceptor.join().unwrap();
    client.join().unwrap();
}

#[test]
fn adopted_connections_work_on_every_real_body() {
    real_bodies().into_iter().for_each(adopts_what_another_thread_accepted);
}
