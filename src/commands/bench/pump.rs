//! The bare pump: what sockets, CRC32C, O_DIRECT files and fdatasync alone can do, as the ceiling.
//!
//! A chain of processes, each receiving pieces of at most 1 MiB, checking their blocks, writing them to preallocated
//! files and passing them on; blocking calls on threads, nothing else: no protocol, no names, no answer but a byte when
//! a round is synced here and behind. Also a fan for small pieces, the fewest steps to as many disks and a log: all hops
//! are sent the piece at once and write it into a file that has its blocks, and then a log does the same with a block.
//! Also the bare cached read: ranges of a file from the page cache into a socket, checked by the receiver.
//!
//! Nothing of this program but the seam's buffers and its checksums is used: the benchmarks of the package include this
//! very file. Its tests are in `pump_test.rs`, for they have no test harness.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use crossbeam::channel::{Receiver, Sender, bounded};
use distrifs_engine::io::Buf;
use distrifs_proto::limits::BLOCK_BYTES;
use distrifs_proto::types::block_crcs;
use hdrhistogram::Histogram;

/// What is received, written and sent at once, at most.
pub(crate) const PIECE: usize = 1 << 20;
/// Pieces of one file of the pump, as large as a default chunk.
const PIECES_PER_FILE: u64 = 64;
/// Pieces between two steps of a hop.
const DEPTH: usize = 8;
/// What a hop of a fan has on the disk at most; behind its end it begins anew.
const JOURNAL_BYTES: u64 = 16 << 20;
/// A hop that has answered for the last time ends within a moment.
const GONE: &str = "a hop of the bare pump ended too early";

/// What is pumped: by each of `streams` at once so many rounds, each answered before the next begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rounds {
    /// Connections.
    pub(crate) streams: u64,
    /// Rounds of each.
    pub(crate) rounds: u64,
    /// Bytes of a round; a chain takes whole blocks, and above a piece whole pieces.
    pub(crate) bytes: u64,
}

/// What a chain is fed with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Feed<'a> {
    /// Read piece by piece, as a user's file; without one the same bytes go out again and again.
    pub(crate) source: Option<&'a File>,
    /// Whether anybody computes checksums.
    pub(crate) checksums: bool,
}

impl Feed<'_> {
    /// Nothing but sockets, checksums and files.
    pub(crate) const BARE: Self = Self { source: None, checksums: true };

    /// Brings the piece that begins at `at` of a round; behind the end of the file there are the bytes of before.
    pub(crate) fn bring(&self, piece: &mut [u8], at: u64) -> io::Result<()> {
        match self.source.map_or(Ok(()), |file| file.read_exact_at(piece, at)) {
            Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => return Err(error),
            _ => {}
        }
        if self.checksums {
            check(piece);
        }
        Ok(())
    }
}

/// What came of it.
pub(crate) struct Pumped {
    /// Bytes of the user, not of the hops.
    pub(crate) bytes: u64,
    /// From the first byte to the last answer.
    pub(crate) seconds: f64,
    /// Of each round, in nanoseconds.
    pub(crate) times: Histogram<u64>,
}

impl Rounds {
    /// As a chain takes them.
    pub(crate) fn whole(self) -> Self {
        let unit = if self.bytes <= PIECE as u64 { BLOCK_BYTES } else { PIECE };
        Self { bytes: self.bytes.max(1).next_multiple_of(unit as u64), ..self }
    }

    /// What one hop of a chain has on its disk in the end.
    pub(crate) fn hop_bytes(self) -> u64 {
        let unit =
            if self.bytes <= PIECE as u64 { BLOCK_BYTES as u64 } else { PIECES_PER_FILE * PIECE as u64 };
        let round = self.bytes.max(1).div_ceil(unit).saturating_mul(unit);
        self.streams.saturating_mul(self.rounds).saturating_mul(round)
    }

    /// The user's, of all streams.
    pub(crate) fn all_bytes(self) -> u64 {
        self.streams * self.rounds * self.bytes
    }
}

/// Where a hop writes what it receives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Each round into files of its own.
    Files,
    /// All rounds behind each other into one file, each a piece at most.
    Journal,
}

impl Kind {
    const ALL: [Self; 2] = [Self::Files, Self::Journal];

    /// As a hop is told it.
    fn word(self) -> &'static str {
        match self {
            Self::Files => "files",
            Self::Journal => "journal",
        }
    }
}

/// Runs a hop as a process of its own: `KIND DIRECTORY STREAMS ROUNDS BYTES CHECKSUMS [NEXT_PORT]`, `KIND` `files` or
/// `journal`, `CHECKSUMS` 0 or 1. It says its port on standard output, and ends when its standard input does.
///
/// # Errors
/// Wrong arguments, and what the operating system refuses.
#[allow(dead_code, reason = "the binary's part")]
pub(crate) fn hop(arguments: &[String]) -> io::Result<()> {
    let wrong = || {
        io::Error::other(
            "expected files or journal, then DIRECTORY STREAMS ROUNDS BYTES CHECKSUMS [NEXT_PORT]",
        )
    };
    let [kind, directory, numbers @ ..] = arguments else { return Err(wrong()) };
    let kind = Kind::ALL.into_iter().find(|it| it.word() == kind).ok_or_else(wrong)?;
    let numbers: Result<Vec<u64>, _> = numbers.iter().map(|text| text.parse()).collect();
    let numbers = numbers.map_err(|_| wrong())?;
    let (&[streams, rounds, bytes, checksums], next) = numbers.split_first_chunk::<4>().ok_or_else(wrong)?;
    let next = next.first().map(|port| u16::try_from(*port).map_err(|_| wrong())).transpose()?;
    let directory = Path::new(directory);
    let journal = match kind {
        Kind::Files => None,
        Kind::Journal => {
            let room = JOURNAL_BYTES.min(streams.saturating_mul(rounds).saturating_mul(bytes));
            Some(Arc::new(Journal::create(&directory.join("journal"), room, bytes)?))
        }
    };
    std::thread::spawn(|| {
        // No hop outlives who started it.
        let _ = io::copy(&mut io::stdin(), &mut io::sink());
        std::process::exit(1);
    });
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("{}", listener.local_addr()?.port());
    io::stdout().flush()?;
    let mut threads = Vec::new();
    for stream in 0..streams {
        let (upstream, _) = listener.accept()?;
        prepare(&upstream)?;
        let next = next.map(connect).transpose()?;
        let store = match &journal {
            Some(journal) => Store::Journal(journal.clone()),
            None => {
                let files = directory.join(format!("stream-{stream}"));
                std::fs::create_dir_all(&files)?;
                Store::Files(files)
            }
        };
        threads.push(std::thread::spawn(move || {
            HopStream { upstream, next, store, checksums: checksums != 0 }.run(rounds, bytes)
        }));
    }
    threads.into_iter().try_for_each(joined)
}

/// A file whose blocks are all written before: a sync of what is written over them needs no metadata.
pub(crate) struct Journal {
    file: File,
    piece: u64,
    places: u64,
    next: AtomicU64,
}

impl Journal {
    /// A new one, with room for pieces of `piece` bytes in `room`, at least for one. Both are whole blocks.
    pub(crate) fn create(path: &Path, room: u64, piece: u64) -> io::Result<Self> {
        let places = (room / piece).max(1);
        let (file, bytes) = (create(path, places * piece)?, places * piece);
        let zeros = Buf::alloc(PIECE);
        for at in (0..bytes).step_by(PIECE) {
            file.write_all_at(&zeros[..(bytes - at).min(PIECE as u64) as usize], at)?;
        }
        file.sync_all()?;
        Ok(Self { file, piece, places, next: AtomicU64::new(0) })
    }

    /// Writes a piece behind the one before, or at the beginning again, and syncs it. Nobody reads it: should more be
    /// in flight than have room, they may meet.
    pub(crate) fn append(&self, piece: &[u8]) -> io::Result<()> {
        let place = self.next.fetch_add(1, Ordering::Relaxed) % self.places;
        self.file.write_all_at(piece, place * self.piece)?;
        self.file.sync_data()
    }
}

/// What a stream of a hop writes to.
#[allow(dead_code, reason = "the binary's part")]
enum Store {
    /// Below a directory of its own.
    Files(PathBuf),
    /// Shared by all streams.
    Journal(Arc<Journal>),
}

#[allow(dead_code, reason = "the binary's part")]
struct HopStream {
    upstream: TcpStream,
    next: Option<TcpStream>,
    store: Store,
    checksums: bool,
}

impl HopStream {
    fn check(&self, piece: &[u8]) {
        if self.checksums {
            check(piece);
        }
    }

    fn run(mut self, rounds: u64, bytes: u64) -> io::Result<()> {
        let mut buffer = Buf::alloc(PIECE);
        for round in 0..rounds {
            match &self.store {
                Store::Files(files) if bytes > PIECE as u64 => {
                    let files = files.join(format!("round-{round}"));
                    self.large_round(&files, bytes / PIECE as u64)?;
                }
                _ => self.small_round(round, &mut buffer[..bytes as usize])?,
            }
            if let Some(next) = &mut self.next {
                next.read_exact(&mut [0])?;
            }
            self.upstream.write_all(&[1])?;
        }
        Ok(())
    }

    /// One piece: other threads would only cost.
    fn small_round(&mut self, round: u64, piece: &mut [u8]) -> io::Result<()> {
        self.upstream.read_exact(piece)?;
        self.check(piece);
        if let Some(next) = &mut self.next {
            next.write_all(piece)?;
        }
        match &self.store {
            Store::Files(files) => {
                let file = create(&files.join(format!("round-{round}")), piece.len() as u64)?;
                file.write_all_at(piece, 0)?;
                file.sync_data()
            }
            Store::Journal(journal) => journal.append(piece),
        }
    }

    /// Many pieces: one is received while others are written and sent.
    fn large_round(&mut self, files: &Path, pieces: u64) -> io::Result<()> {
        let (free, buffers) = bounded::<Buf>(DEPTH);
        for _ in 0..DEPTH {
            let _ = free.send(Buf::alloc(PIECE));
        }
        let (store, to_store) = bounded::<Arc<Returning>>(DEPTH);
        let (forward, to_forward) = bounded::<Arc<Returning>>(DEPTH);
        let gone = |_| io::Error::other(GONE);
        let checksums = self.checksums;
        std::thread::scope(|scope| {
            let writer = scope.spawn(move || write_files(files, &to_store));
            let next = self.next.as_mut();
            let forwarder = scope.spawn(move || match next {
                Some(stream) => to_forward.iter().try_for_each(|piece| stream.write_all(piece.bytes())),
                None => to_forward.iter().try_for_each(|_| Ok(())),
            });
            for _ in 0..pieces {
                let mut buffer = buffers.recv().map_err(|_| io::Error::other(GONE))?;
                self.upstream.read_exact(&mut buffer)?;
                if checksums {
                    check(&buffer);
                }
                let shared = Arc::new(Returning { buffer: Some(buffer), home: free.clone() });
                store.send(shared.clone()).map_err(|_| io::Error::other(GONE))?;
                forward.send(shared).map_err(|_| io::Error::other(GONE))?;
            }
            drop((store, forward));
            writer.join().map_err(gone)??;
            forwarder.join().map_err(|_| io::Error::other(GONE))?
        })
    }
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

fn write_files(prefix: &Path, pieces: &Receiver<Arc<Returning>>) -> io::Result<()> {
    let mut current: Option<File> = None;
    for (n, piece) in (0..).zip(pieces) {
        let at = n % PIECES_PER_FILE;
        if at == 0 {
            current.take().map_or(Ok(()), |file| file.sync_data())?;
            let path = prefix.with_extension((n / PIECES_PER_FILE).to_string());
            current = Some(create(&path, PIECES_PER_FILE * PIECE as u64)?);
        }
        let file = current.as_ref().expect("made for the first piece");
        file.write_all_at(piece.bytes(), at * PIECE as u64)?;
    }
    current.map_or(Ok(()), |file| file.sync_data())
}

/// A new file with room for `bytes`, written past the page cache where the file system knows that.
fn create(path: &Path, bytes: u64) -> io::Result<File> {
    let direct = rustix::fs::OFlags::DIRECT.bits() as i32;
    let open = |flags| File::options().write(true).create(true).truncate(true).custom_flags(flags).open(path);
    let file = open(direct).or_else(|_| open(0))?;
    rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, bytes)?;
    Ok(file)
}

fn check(piece: &[u8]) {
    block_crcs(piece).for_each(|crc| {
        std::hint::black_box(crc);
    });
}

fn connect(port: u16) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(("127.0.0.1", port))?;
    prepare(&stream)?;
    Ok(stream)
}

fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    rustix::net::sockopt::set_socket_recv_buffer_size(stream, PIECE)?;
    rustix::net::sockopt::set_socket_send_buffer_size(stream, PIECE)?;
    Ok(())
}

fn joined<T>(thread: std::thread::JoinHandle<io::Result<T>>) -> io::Result<T> {
    thread.join().unwrap_or_else(|_| Err(io::Error::other("a thread of the bare pump panicked")))
}

/// What a hop is started with.
struct HopPlan {
    kind: Kind,
    what: Rounds,
    checksums: bool,
    /// The port of the hop behind it.
    next: Option<u16>,
}

/// The processes of a chain or a fan; killed where they have not ended by themselves.
struct Hops(Vec<Child>);

impl Hops {
    /// One more, with a directory of its own. Returns its port: it is ready.
    fn start(
        &mut self,
        program: &dyn Fn() -> io::Result<Command>,
        directory: &Path,
        plan: &HopPlan,
    ) -> io::Result<u16> {
        std::fs::create_dir_all(directory)?;
        let mut command = program()?;
        let HopPlan { kind, what, checksums, next } = plan;
        let numbers = [what.streams, what.rounds, what.bytes, u64::from(*checksums)];
        command.arg(kind.word()).arg(directory).args(numbers.map(|number| number.to_string()));
        command.args(next.map(|port| port.to_string()));
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        self.0.push(child);
        let stdout = self.0.last_mut().and_then(|child| child.stdout.take());
        let mut line = String::new();
        io::BufRead::read_line(&mut io::BufReader::new(stdout.expect("it is piped")), &mut line)?;
        line.trim().parse().map_err(|_| io::Error::other(GONE))
    }

    fn wait(mut self) -> io::Result<()> {
        for child in &mut self.0 {
            // `Child::wait` would close its standard input first, which ends it.
            let stdin = child.stdin.take();
            let ended = child.wait();
            drop(stdin);
            if !ended?.success() {
                return Err(io::Error::other(GONE));
            }
        }
        Ok(())
    }
}

impl Drop for Hops {
    fn drop(&mut self) {
        for child in &mut self.0 {
            // It may have ended.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Pumps through a chain of `hops` processes of `program`, which runs [`hop`] with the arguments that it is given; each
/// has a directory of its own below `directory`. `stop` ends it with an error.
pub(crate) fn chain(
    program: &dyn Fn() -> io::Result<Command>,
    directory: &Path,
    hops: u64,
    what: Rounds,
    feed: Feed<'_>,
    stop: &AtomicBool,
) -> io::Result<Pumped> {
    let what = what.whole();
    let (mut started, mut first) = (Hops(Vec::new()), None);
    // The last one first: each is told the port of the one behind it.
    for hop in 0..hops.max(1) {
        let plan = HopPlan { kind: Kind::Files, what, checksums: feed.checksums, next: first };
        first = Some(started.start(program, &directory.join(format!("hop-{hop}")), &plan)?);
    }
    let first = first.expect("at least one hop");
    let pumped = streams(what, |_| {
        let mut stream = connect(first)?;
        let mut piece = vec![0x5a; PIECE];
        Ok(move |_| {
            let mut left = what.bytes;
            while left > 0 {
                go_on(stop)?;
                let now = left.min(PIECE as u64);
                feed.bring(&mut piece[..now as usize], what.bytes - left)?;
                stream.write_all(&piece[..now as usize])?;
                left -= now;
            }
            stream.read_exact(&mut [0])
        })
    })?;
    started.wait()?;
    Ok(pumped)
}

/// Sends small pieces, of at most 1 MiB, to `hops` processes of `program` at the same time, as in [`chain`]; when all
/// have written and synced one, a further process, the log, does so with a block. Nobody waits for another stream, nor
/// syncs for it.
pub(crate) fn fan(
    program: &dyn Fn() -> io::Result<Command>,
    directory: &Path,
    hops: u64,
    what: Rounds,
    stop: &AtomicBool,
) -> io::Result<Pumped> {
    let what = what.whole();
    if what.bytes > PIECE as u64 {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut started = Hops(Vec::new());
    let mut start = |name: &str, bytes: u64| {
        let plan =
            HopPlan { kind: Kind::Journal, what: Rounds { bytes, ..what }, checksums: true, next: None };
        started.start(program, &directory.join(name), &plan)
    };
    let ports: io::Result<Vec<u16>> =
        (0..hops.max(1)).map(|hop| start(&format!("hop-{hop}"), what.bytes)).collect();
    let (ports, log) = (ports?, start("log", BLOCK_BYTES as u64)?);
    let pumped = streams(what, |_| {
        let replicas: io::Result<Vec<TcpStream>> = ports.iter().map(|port| connect(*port)).collect();
        let (mut replicas, mut log) = (replicas?, connect(log)?);
        let mut piece = vec![0x5a; what.bytes as usize];
        Ok(move |_| {
            go_on(stop)?;
            Feed::BARE.bring(&mut piece, 0)?;
            replicas.iter_mut().try_for_each(|hop| hop.write_all(&piece))?;
            replicas.iter_mut().try_for_each(|hop| hop.read_exact(&mut [0]))?;
            log.write_all(&piece[..BLOCK_BYTES])?;
            log.read_exact(&mut [0])
        })
    })?;
    started.wait()?;
    Ok(pumped)
}

/// Sends ranges of a file over sockets to receivers that check them; `start` of a round says where each begins. The file
/// is in the page cache, or is read past it.
pub(crate) fn ranges(
    file: &File,
    what: Rounds,
    start: &(dyn Fn(u64, u64) -> u64 + Sync),
    stop: &AtomicBool,
) -> io::Result<Pumped> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    std::thread::scope(|scope| {
        streams(what, |number| {
            let mut stream = connect(port)?;
            let (upstream, _) = listener.accept()?;
            prepare(&upstream)?;
            scope.spawn(|| serve_ranges(upstream, file));
            let mut piece = vec![0; PIECE];
            Ok(move |round| {
                let mut request = [0; 16];
                request[..8].copy_from_slice(&start(number, round).to_le_bytes());
                request[8..].copy_from_slice(&what.bytes.to_le_bytes());
                stream.write_all(&request)?;
                let mut left = what.bytes;
                while left > 0 {
                    go_on(stop)?;
                    let now = left.min(PIECE as u64);
                    stream.read_exact(&mut piece[..now as usize])?;
                    check(&piece[..now as usize]);
                    left -= now;
                }
                Ok(())
            })
        })
    })
}

/// Answers requests for ranges until the other side is done.
fn serve_ranges(mut stream: TcpStream, file: &File) -> io::Result<()> {
    // Whole blocks, for a file that is read past the page cache gives nothing else.
    let (mut request, mut piece) = ([0; 16], Buf::alloc(PIECE + 2 * BLOCK_BYTES));
    let direct = rustix::fs::fcntl_getfl(file)?.contains(rustix::fs::OFlags::DIRECT);
    loop {
        stream.read_exact(&mut request)?;
        let number = |at: usize| u64::from_le_bytes(request[at..at + 8].try_into().expect("eight bytes"));
        let (mut at, mut left) = (number(0), number(8));
        while left > 0 {
            let now = left.min(PIECE as u64);
            let before = if direct { at % BLOCK_BYTES as u64 } else { 0 };
            let (from, to) = (before as usize, (before + now) as usize);
            if direct {
                let read = file.read_at(&mut piece[..to.next_multiple_of(BLOCK_BYTES)], at - before)?;
                if read < to {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            } else {
                file.read_exact_at(&mut piece[..to], at)?;
            }
            stream.write_all(&piece[from..to])?;
            (at, left) = (at + now, left - now);
        }
    }
}

fn go_on(stop: &AtomicBool) -> io::Result<()> {
    if stop.load(Ordering::Relaxed) { Err(io::ErrorKind::Interrupted.into()) } else { Ok(()) }
}

/// Opens all streams, then lets each run its rounds on a thread of its own.
fn streams<R>(what: Rounds, mut open: impl FnMut(u64) -> io::Result<R>) -> io::Result<Pumped>
where
    R: FnMut(u64) -> io::Result<()> + Send,
{
    let opened = (0..what.streams).map(&mut open).collect::<io::Result<Vec<R>>>()?;
    let began = Instant::now();
    let times = std::thread::scope(|scope| {
        let timed = |mut round: R| {
            move || -> io::Result<Histogram<u64>> {
                let mut times = histogram();
                for number in 0..what.rounds {
                    let began = Instant::now();
                    round(number)?;
                    times.saturating_record(u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX));
                }
                Ok(times)
            }
        };
        let threads: Vec<_> = opened.into_iter().map(|round| scope.spawn(timed(round))).collect();
        let mut all = histogram();
        for thread in threads {
            let times = thread.join().map_err(|_| io::Error::other("a stream panicked"))??;
            // The bounds are the same: nothing can be refused.
            let _ = all.add(&times);
        }
        Ok::<_, io::Error>(all)
    })?;
    Ok(Pumped { bytes: what.all_bytes(), seconds: began.elapsed().as_secs_f64(), times })
}

/// Nanoseconds up to a minute, three digits.
fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("constant bounds")
}
