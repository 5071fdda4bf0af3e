//! Nonsense on the data port.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};

use distrifs_proto::frame::{HEADER_BYTES, Header, Op};
use distrifs_testkit::{Cluster, DEADLINE, random_bytes};

use crate::BINARY;

/// Whether the peer closes the connection by itself after these bytes, whatever it says before.
fn is_closed_after(address: &str, bytes: &[u8]) -> bool {
    let mut stream = TcpStream::connect(address).expect("it listens");
    stream.set_read_timeout(Some(DEADLINE)).expect("a timeout");
    // It may close before all of it is sent.
    let _ = stream.write_all(bytes);
    let mut answer = [0; 4096];
    loop {
        match stream.read(&mut answer) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(e) => return e.kind() == ErrorKind::ConnectionReset,
        }
    }
}

/// A header that is sound but for its length.
fn header_with_length(op: Op, length: u32) -> [u8; HEADER_BYTES] {
    Header { length, ..Header::new(op, 1) }.encode()
}

#[test]
fn garbage_and_absurd_lengths_close_the_connection_and_harm_nobody() {
    let mut cluster = Cluster::start(BINARY);
    let address = cluster.datanode(0).field("data").to_owned();
    assert!(is_closed_after(&address, &random_bytes(1 << 20, 1)), "noise");
    assert!(is_closed_after(
        &address,
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n0123456789012345678901234567890123456789"
    ));
    assert!(is_closed_after(&address, &[0; 256]), "zeros");
    for op in [Op::Hello, Op::WriteOpen, Op::WriteData] {
        for length in [u32::MAX, 1 << 30] {
            assert!(is_closed_after(&address, &header_with_length(op, length)), "{op:?} of {length} bytes");
        }
    }
    // Half a header, and then nothing more ever.
    let half = TcpStream::connect(&address).expect("it listens");
    (&half).write_all(&header_with_length(Op::Hello, 0)[..40]).expect("sent");
    half.shutdown(Shutdown::Write).expect("shut");
    // Many that say nothing at all.
    let silent: Vec<TcpStream> = (0..50).map(|_| TcpStream::connect(&address).expect("it listens")).collect();

    assert!(cluster.datanode(0).runs());
    let bytes = random_bytes(700_000, 2);
    let _ = cluster.run_with_stdin(&["put", "-", "/f"], &bytes).ok();
    assert!(cluster.run(&["cat", "/f"]).ok().stdout == bytes);
    drop(silent);
}
