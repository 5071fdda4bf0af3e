//! Reads a range of one chunk from whichever replica delivers it soundly. The decisions are [`ReaderState`]'s.
//!
//! A frame is received while the one before is checked and written; nothing reaches the target unchecked.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use distrifs_proto::ErrorCode;
use distrifs_proto::frame::{FrameError, Header, Op, Placement, verify};
use distrifs_proto::limits::CHUNK_BYTES_MAX;
use distrifs_proto::types::{Crc32c, Epoch, FileId, NodeId};
use tokio::io::AsyncWriteExt;
use tokio::time::{sleep, timeout};

use crate::buffer::FrameBuffer;
use crate::config::ClientConfig;
use crate::connection::{Connection, ReceiveError, Receiver};
use crate::context::Context;
use crate::error::{ClientError, Result};
use crate::file_thread::FileThread;
use crate::meter::Meter;
use crate::read_plan::locate;
use crate::reader_state::{Choice, End, Fault, Part, ReaderState};
use crate::retry::Retry;
use crate::sink::{LandError, Landed, Sink, land};
use crate::status::{ChunkLocation, Node};
use crate::tracer::{ClientStage, Tracer, timed};

/// Frames up to this are checked and written where they arrive; the way to another thread would cost more.
const INLINE_BYTES_MAX: usize = 64 << 10;

/// While another replica is left, one is given this part of the patience that the last one gets.
const PATIENCE_PARTS: u32 = 3;

/// The file that chunks are read of; shared by its readers.
#[derive(Debug)]
pub(crate) struct ReadFile {
    pub(crate) path: String,
    pub(crate) file_id: FileId,
    pub(crate) trace_id: u64,
}

/// One range of one chunk.
#[derive(Debug)]
pub(crate) struct ChunkRange {
    pub(crate) chunk: ChunkLocation,
    /// Of the leader that named the replicas.
    pub(crate) epoch: Epoch,
    /// Where the chunk begins in its file.
    pub(crate) start: u64,
    /// Wanted bytes of the chunk.
    pub(crate) wanted: Range<u64>,
    /// Past the page cache of the datanode.
    pub(crate) direct: bool,
}

/// Brings frames that have arrived to their places in a file.
type Landing = FileThread<(FrameBuffer, Placement, Part), Landed>;

/// Why one replica's delivery ended early.
enum Stopped {
    Fault(Fault),
    /// The target does not take the bytes.
    Target(io::Error),
    Task(String),
}

impl From<Fault> for Stopped {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// How long a replica may say nothing.
pub(crate) fn patience(config: &ClientConfig, has_alternative: bool) -> Duration {
    let whole = config.socket_timeout;
    if has_alternative { whole / PATIENCE_PARTS } else { whole }
}

/// Reads the range into the sink, trying replicas until one delivers, and gives the sink back.
pub(crate) async fn read_chunk(
    context: Arc<Context>,
    file: Arc<ReadFile>,
    range: ChunkRange,
    mut sink: Sink,
    meter: Arc<Meter>,
) -> Result<(Sink, Crc32c)> {
    let mut state = ReaderState::new(range.chunk.clone(), range.wanted.clone());
    let mut retry = Retry::new(context.config.socket_timeout, 1);
    let mut waiting_since = None;
    // Bytes that are read again count once.
    let mut told = 0;
    let facts = || (file.path.clone(), range.chunk.index, range.chunk.id);
    loop {
        let node = match state.choose() {
            Choice::Read(node) => node,
            Choice::Corrupt => {
                let (path, index, chunk) = facts();
                return Err(ClientError::Corrupt { path, index, chunk, tried: state.tried() });
            }
            Choice::Replan => {
                let since = *waiting_since.get_or_insert_with(Instant::now);
                let pause = retry.after_failure(since.elapsed(), rand::random());
                let Some(pause) = pause.filter(|_| context.config.retries > 0) else {
                    let (path, index, chunk) = facts();
                    return Err(ClientError::Unreachable { path, index, chunk, tried: state.tried() });
                };
                sleep(pause).await;
                let offset = range.start + range.wanted.start;
                let found = locate(&context, &file.path, file.file_id, offset, &range.chunk).await?;
                state.on_plan(found.replicas, found.away);
                continue;
            }
        };
        let (node, outcome) = loop {
            let mut delivery =
                Delivery { context: &context, range: &range, state: &mut state, sink: &mut sink };
            match delivery.run(&node, file.trace_id, &meter, &mut told).await {
                // Each further round is from this replica alone.
                (_, Ok(End::Again)) => {}
                outcome => break outcome,
            }
        };
        let fault = match outcome {
            Ok(End::Fault(fault)) | Err(Stopped::Fault(fault)) => fault,
            Err(Stopped::Target(cause)) => {
                return Err(ClientError::Target { path: file.path.clone(), cause });
            }
            Err(Stopped::Task(text)) => return Err(ClientError::Task { path: file.path.clone(), text }),
            Ok(End::Sound | End::Again) => return Ok((sink, state.crc())),
        };
        tracing::debug!(path = file.path, chunk = %range.chunk.id, node = %node.id, ?fault, "a replica failed");
        if fault.is_of_replica() {
            context.report_bad_replica(range.chunk.id, node.id, fault.code);
        }
        state.on_fault(node.id, fault);
    }
}

/// Reads one replica whole and checks it; the only replica it asks is this.
pub(crate) async fn verify_replica(
    context: &Arc<Context>,
    chunk: &ChunkLocation,
    node: &Node,
) -> Result<Crc32c> {
    let epoch = context.master.epoch();
    let range = ChunkRange { chunk: chunk.clone(), epoch, start: 0, wanted: 0..chunk.length, direct: false };
    let failed = |code, text| ClientError::Replica { chunk: chunk.id, node: node.id, code, text };
    if chunk.length == 0 || chunk.length > CHUNK_BYTES_MAX {
        return Err(failed(ErrorCode::InvalidArgument, format!("a chunk of {} bytes", chunk.length)));
    }
    // No replica is left but this one, so that it gets all the patience there is.
    let alone = ChunkLocation { replicas: Vec::new(), ..chunk.clone() };
    let mut state = ReaderState::new(alone, 0..chunk.length);
    let (mut sink, meter, trace_id) = (Sink::Nowhere, Meter::default(), rand::random());
    loop {
        let mut delivery = Delivery { context, range: &range, state: &mut state, sink: &mut sink };
        return match delivery.run(node, trace_id, &meter, &mut 0).await.1 {
            Ok(End::Sound) => Ok(chunk.crc32c),
            Ok(End::Again) => continue,
            Ok(End::Fault(fault)) | Err(Stopped::Fault(fault)) => Err(failed(fault.code, fault.text)),
            Err(Stopped::Target(error)) => Err(failed(ErrorCode::Disk, error.to_string())),
            Err(Stopped::Task(text)) => Err(failed(ErrorCode::Internal, text)),
        };
    }
}

/// One replica's turn.
struct Delivery<'a> {
    context: &'a Context,
    range: &'a ChunkRange,
    state: &'a mut ReaderState,
    sink: &'a mut Sink,
}

/// An answer whose first frame is here.
struct Opened {
    connection: Connection,
    receiver: Receiver,
    request_id: u64,
    /// Its number among those that are traced.
    request: Option<usize>,
    buffer: FrameBuffer,
    first: (Header, Placement),
}

/// The same without its connection.
struct Begun {
    receiver: Receiver,
    buffer: FrameBuffer,
    first: (Header, Placement),
    request: Option<usize>,
}

impl Opened {
    /// Whether it begins with bytes, and not with a refusal.
    fn delivers(&self) -> bool {
        self.first.0.op == Op::ReadData
    }
}

/// What is asked of a replica, but for the connection's own number.
#[derive(Clone, Copy)]
struct Ask {
    header: Header,
    patience: Duration,
}

/// Asks one replica and waits for its first frame. A connection kept from an earlier request that breaks before
/// anything came says nothing of the replica: another one is opened.
async fn open(context: &Context, node: &Node, ask: Ask) -> Result<Opened, Fault> {
    let lost = |text: String| Fault::new(ErrorCode::Unavailable, text);
    let patience = ask.patience;
    loop {
        let tracer = context.tracer.as_deref();
        let connecting = context.pool.connect(node, false, patience);
        let connected = timed(tracer, ClientStage::Connect, None, connecting).await;
        let mut connection = connected.map_err(|error| lost(error.to_string()))?;
        let request_id = connection.next_request_id();
        let opening = connection.opening(Header { request_id, ..ask.header }, &[]);
        let (chunk, offset) = (ask.header.chunk, ask.header.offset);
        let request = tracer.and_then(|tracer| tracer.requested(chunk, offset, vec![node.clone()]));
        let late = || lost(format!("silent for {} ms", patience.as_millis()));
        let sent = timeout(patience, connection.stream.write_all(&opening)).await.map_err(|_| late())?;
        if let Err(error) = sent {
            if connection.is_reused() {
                continue;
            }
            return Err(lost(error.to_string()));
        }
        let (mut receiver, mut buffer) = (Receiver::default(), context.buffers.take());
        let receiving = receiver.receive_within(&mut connection.stream, &mut buffer, patience);
        match timed(tracer, ClientStage::Receive, request, receiving).await {
            Ok(first) => return Ok(Opened { connection, receiver, request_id, request, buffer, first }),
            Err(ReceiveError::Closed | ReceiveError::Io(_)) if connection.is_reused() => {}
            Err(error) => return Err(receive_fault(&error)),
        }
    }
}

/// As [`land`], noted if anybody wants to know.
fn traced_land(
    tracer: Option<&Tracer>,
    buffer: FrameBuffer,
    place: &Placement,
    part: &Part,
    file: Option<(&File, u64)>,
) -> Landed {
    let start_us = tracer.map(Tracer::now_us);
    let landed = land(buffer, place, part, file);
    if let (Some(tracer), Some(start_us)) = (tracer, start_us) {
        tracer.passed(ClientStage::Land, None, start_us);
    }
    landed
}

fn receive_fault(error: &ReceiveError) -> Fault {
    let code = match error {
        ReceiveError::Frame(_) | ReceiveError::TooLong { .. } => ErrorCode::Protocol,
        ReceiveError::Closed | ReceiveError::Silent(_) | ReceiveError::Io(_) => ErrorCode::Unavailable,
    };
    Fault::new(code, error.to_string())
}

impl Delivery<'_> {
    /// Reads from `node`, or from another replica that answers first; says who it was.
    async fn run(
        &mut self,
        node: &Node,
        trace_id: u64,
        meter: &Meter,
        told: &mut u64,
    ) -> (Node, Result<End, Stopped>) {
        if self.state.is_at_start()
            && let Sink::Memory(pieces) = self.sink
        {
            pieces.clear();
        }
        let (offset, length) = self.state.ask(0);
        let (trace_id, flags) = self.context.trace(trace_id);
        let flags = flags | if self.range.direct { Header::DIRECT } else { 0 };
        let header = Header {
            trace_id,
            flags,
            chunk: self.range.chunk.id,
            generation: self.range.chunk.generation,
            epoch: self.range.epoch,
            offset,
            length,
            ..Header::new(Op::Read, 0)
        };
        let (node, opened) = self.first_answer(node, Ask { header, patience: self.patience() }).await;
        let outcome = match opened {
            Ok(opened) => self.deliver(opened, node.id, &mut Told { meter, told }).await,
            Err(fault) => Err(fault.into()),
        };
        (node, outcome)
    }

    /// Waits for the first frame; when that takes longer than usual, another replica is asked as well.
    async fn first_answer(&mut self, node: &Node, ask: Ask) -> (Node, Result<Opened, Fault>) {
        let context = self.context;
        let began = Instant::now();
        let delay = context.hedge.begin(ask.header.length);
        let mut first = pin!(open(context, node, ask));
        if let Ok(opened) = timeout(delay, &mut first).await {
            self.note_answer(ask, began, opened.as_ref());
            return (node.clone(), opened);
        }
        let other = match self.state.take_alternative() {
            Some(other) if context.hedge.allows(context.started.elapsed()) => other,
            unused => {
                unused.into_iter().for_each(|other| self.state.give_back(other));
                let opened = first.await;
                self.note_answer(ask, began, opened.as_ref());
                return (node.clone(), opened);
            }
        };
        tracing::debug!(chunk = %ask.header.chunk, slow = %node.id, other = %other.id, "a read is hedged");
        let mut second = pin!(open(context, &other, ask));
        let (opened, second_won) = tokio::select! {
            biased;
            opened = &mut first => (opened, false),
            opened = &mut second => (opened, true),
        };
        // One that does not deliver leaves it to the other; what it says of itself is heard when it is asked again.
        let (opened, second_won) = match (opened.as_ref().is_ok_and(Opened::delivers), second_won) {
            (true, _) => (opened, second_won),
            (false, false) => (second.await, true),
            (false, true) => (first.await, false),
        };
        self.note_answer(ask, began, opened.as_ref());
        let (winner, loser) =
            if second_won { (other.clone(), node.clone()) } else { (node.clone(), other.clone()) };
        self.state.give_back(loser);
        (winner, opened)
    }

    fn note_answer(&self, ask: Ask, began: Instant, opened: Result<&Opened, &Fault>) {
        if opened.is_ok_and(Opened::delivers) {
            self.context.hedge.answered(ask.header.length, began.elapsed());
        }
    }

    /// Takes the answer to its end.
    async fn deliver(
        &mut self,
        opened: Opened,
        node: NodeId,
        progress: &mut Told<'_>,
    ) -> Result<End, Stopped> {
        let Opened { mut connection, receiver, request_id, request, buffer, first } = opened;
        self.state.ask(request_id);
        let mut landing = None;
        let begun = Begun { receiver, buffer, first, request };
        let received = self.receive_all(&mut connection, begun, node, &mut landing, progress).await;
        // What is under way ends before anything else is decided: its bytes may be the last sound ones.
        self.settle(&mut landing, node, progress).await?;
        received?;
        self.context.pool.give_back(connection);
        Ok(self.state.on_end(node))
    }

    fn patience(&self) -> Duration {
        patience(&self.context.config, self.state.has_alternative())
    }

    /// Receives up to the last frame, with at most one frame on its way to the target.
    async fn receive_all(
        &mut self,
        connection: &mut Connection,
        Begun { mut receiver, mut buffer, first, request }: Begun,
        node: NodeId,
        landing: &mut Option<Landing>,
        progress: &mut Told<'_>,
    ) -> Result<(), Stopped> {
        let patience = self.patience();
        let mut next = first;
        loop {
            let (header, place) = next;
            if header.op == Op::Error {
                let broken = |error: FrameError| Fault::new(ErrorCode::Protocol, error.to_string());
                verify(&buffer, &place).map_err(broken)?;
                let fault = self.state.on_refusal(&header, &buffer[place.payload]);
                if fault.code == ErrorCode::Busy {
                    self.context.hedge.busy(self.context.started.elapsed());
                }
                return Err(fault.into());
            }
            let part = self.state.on_header(&header)?;
            let last = part.last;
            self.settle(landing, node, progress).await?;
            match self.sink {
                Sink::File(file, at) if place.payload.len() > INLINE_BYTES_MAX => {
                    let (file, at) = (file.clone(), *at);
                    let thread = match landing.as_mut() {
                        Some(thread) => thread,
                        None => landing.insert(self.start_landing(file, at)?),
                    };
                    thread.give((buffer, place, part)).map_err(|error| Stopped::Task(error.to_string()))?;
                }
                Sink::File(file, at) => {
                    let tracer = self.context.tracer.as_deref();
                    let landed = traced_land(tracer, buffer, &place, &part, Some((file, *at)));
                    self.on_landed(landed, node, progress)?;
                }
                Sink::Memory(_) | Sink::Nowhere => {
                    let landed = traced_land(self.context.tracer.as_deref(), buffer, &place, &part, None);
                    self.on_landed(landed, node, progress)?;
                }
            }
            if last {
                return Ok(());
            }
            buffer = self.context.buffers.take();
            let tracer = self.context.tracer.as_deref();
            let receiving = receiver.receive_within(&mut connection.stream, &mut buffer, patience);
            let received = timed(tracer, ClientStage::Receive, request, receiving).await;
            next = received.map_err(|error| receive_fault(&error))?;
        }
    }

    fn start_landing(&self, file: Arc<File>, at: u64) -> Result<Landing, Stopped> {
        let tracer = self.context.tracer.clone();
        let land = move |(buffer, place, part): (FrameBuffer, Placement, Part)| {
            traced_land(tracer.as_deref(), buffer, &place, &part, Some((&file, at)))
        };
        FileThread::start(land)
            .map_err(|error| Stopped::Task(format!("no thread to write the file: {error}")))
    }

    /// Waits for a frame that is on its way to the target, if there is one.
    async fn settle(
        &mut self,
        landing: &mut Option<Landing>,
        node: NodeId,
        progress: &mut Told<'_>,
    ) -> Result<(), Stopped> {
        let Some(thread) = landing.as_mut().filter(|thread| thread.is_busy()) else { return Ok(()) };
        let landed = thread.take().await.map_err(|error| Stopped::Task(error.to_string()))?;
        self.on_landed(landed, node, progress)
    }

    fn on_landed(&mut self, landed: Landed, node: NodeId, progress: &mut Told<'_>) -> Result<(), Stopped> {
        let Landed { outcome, sound, crc, piece } = landed;
        if let Err(LandError::Target(error)) = outcome {
            return Err(Stopped::Target(error));
        }
        if sound > 0 {
            self.state.on_verified(node, sound, crc);
            progress.reached(self.state.wanted_verified());
            if let Sink::Memory(pieces) = self.sink {
                pieces.push(piece);
            }
        }
        match outcome {
            Err(LandError::Damaged(error)) => Err(Fault::new(ErrorCode::Corrupt, error.to_string()).into()),
            _ => Ok(()),
        }
    }
}

/// Bytes of a range that were counted; those that are read again count once.
struct Told<'a> {
    meter: &'a Meter,
    told: &'a mut u64,
}

impl Told<'_> {
    fn reached(&mut self, bytes: u64) {
        self.meter.add(bytes.saturating_sub(*self.told));
        *self.told = bytes.max(*self.told);
    }
}
