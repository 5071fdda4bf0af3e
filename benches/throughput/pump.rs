//! The bare pump: what sockets, CRC32C, O_DIRECT files and fdatasync alone can do, as the ceiling.
//!
//! A chain of processes, each receiving 1 MiB pieces, checking their blocks, writing them to preallocated files
//! and passing them on; blocking calls on threads, nothing else: no protocol, no names, no answers but the last
//! one. Also the bare cached read: a file from the page cache into a socket, checked by the receiver.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, ensure};
use crossbeam::channel::{Receiver, Sender, bounded};
use distrifs_engine::io::Buf;
use distrifs_proto::limits::BLOCK_BYTES;

pub(crate) const PIECE: usize = 1 << 20;
/// Pieces of one file of the pump, as large as a default chunk.
const PIECES_PER_FILE: u64 = 64;
/// Pieces between two steps of a hop.
const DEPTH: usize = 8;

/// The argument that makes this program a hop of the chain.
pub(crate) const HOP_ARGUMENT: &str = "--pump-hop";

/// Runs a hop: `DIRECTORY BYTES [NEXT_PORT]`; says its port on standard output.
pub(crate) fn hop(arguments: &[String]) -> anyhow::Result<()> {
    let [directory, bytes, rest @ ..] = arguments else { anyhow::bail!("DIRECTORY BYTES [NEXT_PORT]") };
    let bytes: u64 = bytes.parse()?;
    let mut next = match rest.first() {
        Some(port) => Some(connect(port.parse()?)?),
        None => None,
    };
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("{}", listener.local_addr()?.port());
    io::stdout().flush()?;
    let (mut upstream, _) = listener.accept()?;
    prepare(&upstream)?;
    let forward_to = next.as_ref().map(TcpStream::try_clone).transpose()?;
    let pieces = bytes / PIECE as u64;

    let (free, buffers) = bounded::<Buf>(DEPTH);
    for _ in 0..DEPTH {
        free.send(Buf::alloc(PIECE))?;
    }
    let (store, to_store) = bounded::<Arc<Returning>>(DEPTH);
    let (forward, to_forward) = bounded::<Arc<Returning>>(DEPTH);
    let directory = directory.clone();
    let writer = std::thread::spawn(move || write_files(Path::new(&directory), &to_store));
    let forwarder = std::thread::spawn(move || match forward_to {
        Some(stream) => send_pieces(stream, &to_forward),
        None => to_forward.iter().try_for_each(|_| Ok(())),
    });
    for _ in 0..pieces {
        let mut buffer = buffers.recv()?;
        upstream.read_exact(&mut buffer)?;
        std::hint::black_box(check(&buffer));
        let shared = Arc::new(Returning { buffer: Some(buffer), home: free.clone() });
        store.send(shared.clone())?;
        forward.send(shared)?;
    }
    drop((store, forward));
    writer.join().map_err(|_| anyhow::anyhow!("the writer panicked"))??;
    forwarder.join().map_err(|_| anyhow::anyhow!("the forwarder panicked"))??;
    if let Some(next) = &mut next {
        next.read_exact(&mut [0])?;
    }
    upstream.write_all(&[1])?;
    Ok(())
}

/// A piece that writer and forwarder share; it goes home when both are done.
struct Returning {
    buffer: Option<Buf>,
    home: Sender<Buf>,
}

impl Returning {
    fn bytes(&self) -> &[u8] {
        self.buffer.as_deref().expect("held until the drop")
    }
}

impl Drop for Returning {
    fn drop(&mut self) {
        if let Some(buffer) = self.buffer.take() {
            // At the end of the run nobody waits for it any more.
            let _ = self.home.send(buffer);
        }
    }
}

fn write_files(directory: &Path, pieces: &Receiver<Arc<Returning>>) -> anyhow::Result<()> {
    let mut current: Option<File> = None;
    for (n, piece) in (0..).zip(pieces) {
        let at = n % PIECES_PER_FILE;
        if at == 0 {
            sync(current.take())?;
            let path = directory.join(format!("pump-{}", n / PIECES_PER_FILE));
            let direct = rustix::fs::OFlags::DIRECT.bits() as i32;
            let file = File::options().write(true).create_new(true).custom_flags(direct).open(path)?;
            let length = PIECES_PER_FILE * PIECE as u64;
            rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, length)?;
            current = Some(file);
        }
        let file = current.as_ref().context("a file for the first piece")?;
        file.write_all_at(piece.bytes(), at * PIECE as u64)?;
    }
    sync(current)
}

fn sync(file: Option<File>) -> anyhow::Result<()> {
    Ok(file.map_or(Ok(()), |file| file.sync_data())?)
}

fn send_pieces(mut stream: TcpStream, pieces: &Receiver<Arc<Returning>>) -> anyhow::Result<()> {
    for piece in pieces {
        stream.write_all(piece.bytes())?;
    }
    Ok(())
}

fn check(piece: &[u8]) -> u32 {
    piece.chunks(BLOCK_BYTES).fold(0, |sum, block| sum ^ crc32c::crc32c(block))
}

fn connect(port: u16) -> anyhow::Result<TcpStream> {
    let stream = TcpStream::connect(("127.0.0.1", port))?;
    prepare(&stream)?;
    Ok(stream)
}

fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = socket2::SockRef::from(stream);
    socket.set_recv_buffer_size(PIECE)?;
    socket.set_send_buffer_size(PIECE)
}

/// Pumps `bytes` through a chain of `hops` processes, each with a directory of its own below `directory`; returns
/// the seconds until the last one has synced.
pub(crate) fn chain(directory: &Path, hops: usize, bytes: u64) -> anyhow::Result<f64> {
    let bytes = bytes.next_multiple_of(PIECE as u64);
    let mut children = Vec::new();
    let mut next: Option<u16> = None;
    for i in 0..hops {
        let own = directory.join(format!("hop-{i}"));
        std::fs::create_dir_all(&own)?;
        let mut command = std::process::Command::new(std::env::current_exe()?);
        command.arg(HOP_ARGUMENT).arg(own).arg(bytes.to_string()).args(next.map(|port| port.to_string()));
        let mut child = command.stdout(std::process::Stdio::piped()).spawn()?;
        let mut line = String::new();
        let stdout = child.stdout.take().context("a hop's output")?;
        io::BufRead::read_line(&mut io::BufReader::new(stdout), &mut line)?;
        next = Some(line.trim().parse().context("a hop's port")?);
        children.push(child);
    }
    let mut stream = connect(next.context("at least one hop")?)?;
    let piece = vec![0x5a; PIECE];
    let begun = Instant::now();
    for _ in 0..bytes / PIECE as u64 {
        std::hint::black_box(check(&piece));
        stream.write_all(&piece)?;
    }
    stream.read_exact(&mut [0])?;
    let seconds = begun.elapsed().as_secs_f64();
    for mut child in children {
        ensure!(child.wait()?.success(), "a hop failed");
    }
    Ok(seconds)
}

/// Sends a cached file over a socket to a receiver that checks it; returns the seconds.
pub(crate) fn cached_read(path: &Path) -> anyhow::Result<f64> {
    let file = File::open(path)?;
    let bytes = file.metadata()?.len();
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    let sender = std::thread::spawn(move || -> anyhow::Result<()> {
        let (mut stream, _) = listener.accept()?;
        prepare(&stream)?;
        let mut piece = vec![0; PIECE];
        for at in (0..bytes).step_by(PIECE) {
            let n = PIECE.min((bytes - at) as usize);
            file.read_exact_at(&mut piece[..n], at)?;
            stream.write_all(&piece[..n])?;
        }
        Ok(())
    });
    let mut stream = connect(port)?;
    let mut piece = vec![0; PIECE];
    let begun = Instant::now();
    for at in (0..bytes).step_by(PIECE) {
        let n = PIECE.min((bytes - at) as usize);
        stream.read_exact(&mut piece[..n])?;
        std::hint::black_box(check(&piece[..n]));
    }
    let seconds = begun.elapsed().as_secs_f64();
    sender.join().map_err(|_| anyhow::anyhow!("the sender panicked"))??;
    Ok(seconds)
}
