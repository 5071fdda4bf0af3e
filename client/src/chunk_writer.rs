//! Writes one chunk: streams it to the first hop, watches what comes back, and goes on with another pipeline when
//! one fails. The decisions are [`WriterState`]'s. A small chunk is [fanned out](crate::fan_out).

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use distrifs_proto::ErrorCode;
use distrifs_proto::frame::{Header, Hop, Op, PAYLOAD_START, WriteOpen, patience, verify};
use distrifs_proto::grpc::v1;
use distrifs_proto::limits::{FRAME_CONTROL_BYTES_MAX, SMALL_CHUNK_BYTES_MAX};
use distrifs_proto::types::{ChunkId, Crc32c, FileId, NodeId};
use tokio::io::AsyncWriteExt;
use tokio::net::tcp::ReadHalf;
use tokio::time::{sleep, sleep_until};

use crate::connection::{Connection, ReceiveError, Receiver};
use crate::context::Context;
use crate::error::{ClientError, Result};
use crate::fan_out::fan_out;
use crate::master_link::new_request_id;
use crate::meter::Meter;
use crate::plan::Plan;
use crate::retry::Retry;
use crate::source::{ChunkSource, SourceError};
use crate::tracer::{ClientStage, timed};
use crate::writer_state::{Attempts, Failure, Next, WriterState};

/// Nodes that a put remembers to have failed; the oldest is forgotten.
const EXCLUDED_MAX: usize = 64;

/// Nodes whose places for writes are all taken are waited for, for so many socket timeouts: five minutes by default.
const BUSY_TIMEOUTS_MAX: u32 = 25;

/// Who plans the chunks of a file.
#[derive(Debug)]
pub(crate) enum Origin {
    /// The file is open, and chunks are allocated for it.
    Opened(FileId),
    /// Nothing is known of the file; its chunk is granted to whoever asks this.
    Granted(Box<v1::GrantChunkRequest>),
}

/// The unfinished file that chunks are written for; shared by its writers.
#[derive(Debug)]
pub(crate) struct OpenFile {
    pub(crate) path: String,
    origin: Origin,
    pub(crate) replication: u32,
    trace_id: u64,
    /// Nodes seen to fail during this put, and how: no later chunk should wait for them again.
    excluded: Mutex<Vec<(NodeId, ErrorCode)>>,
}

impl OpenFile {
    pub(crate) fn new(path: &str, origin: Origin, replication: u32) -> Self {
        let excluded = Mutex::default();
        Self { path: path.to_owned(), origin, replication, trace_id: rand::random(), excluded }
    }

    fn exclude(&self, node: NodeId, code: ErrorCode) {
        let mut excluded = self.excluded.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(before) = excluded.iter_mut().find(|(it, _)| *it == node) {
            before.1 = code;
            return;
        }
        if excluded.len() == EXCLUDED_MAX {
            excluded.remove(0);
        }
        excluded.push((node, code));
    }

    fn excluded(&self) -> (Vec<u64>, Vec<u32>) {
        let excluded = self.excluded.lock().unwrap_or_else(PoisonError::into_inner);
        excluded.iter().map(|(node, code)| (node.0, u32::from(code.number()))).unzip()
    }

    /// Another pipeline, in the place of one that failed with this chunk.
    async fn plan(&self, context: &Context, failed: Option<ChunkId>) -> Result<Plan> {
        let (exclude, exclude_codes) = self.excluded();
        let failed = failed.map(|chunk| chunk.0);
        let (plan, epoch) = match &self.origin {
            Origin::Opened(file) => {
                let message = v1::AllocateChunkRequest {
                    request_id: new_request_id(),
                    file_id: file.0,
                    exclude,
                    abandon_chunk: failed,
                    exclude_codes,
                };
                let reply = context.master.allocate_chunk(&self.path, message).await?;
                (reply.plan, reply.epoch)
            }
            Origin::Granted(ask) => {
                let ask = v1::GrantChunkRequest::clone(ask);
                let message = v1::GrantChunkRequest { exclude, exclude_codes, give_up_chunk: failed, ..ask };
                let reply = context.master.grant_chunk(&self.path, message).await?;
                (reply.plans.into_iter().next(), reply.epoch)
            }
        };
        Plan::check(plan, epoch, self.replication).map_err(|what| self.malformed(what))
    }

    /// What the headers of a chunk's frames have in common, and the flags of the opening one.
    pub(crate) fn data_header(&self, context: &Context, plan: &Plan, request_id: u64) -> (Header, u16) {
        let (trace_id, traced) = context.trace(self.trace_id);
        let header = Header {
            trace_id,
            chunk: plan.chunk,
            generation: plan.generation,
            epoch: plan.epoch,
            ..Header::new(Op::WriteData, request_id)
        };
        (header, traced)
    }

    /// A message of the master that makes no sense.
    pub(crate) fn malformed(&self, what: String) -> ClientError {
        ClientError::Protocol { path: self.path.clone(), peer: "the master".into(), what }
    }
}

/// Why one pipeline failed: a matter of nodes, or one that no other pipeline helps.
pub(crate) enum Stopped {
    Pipeline(Failure),
    Source(SourceError),
}

impl From<Failure> for Stopped {
    fn from(failure: Failure) -> Self {
        Self::Pipeline(failure)
    }
}

/// Writes one chunk on as many pipelines as it takes, the first of them planned already or not. `plan` is the last one
/// afterwards, whatever came of it.
pub(crate) async fn write_chunk(
    context: &Context,
    file: &OpenFile,
    index: u64,
    source: &mut ChunkSource,
    plan: &mut Option<Plan>,
    meter: &Meter,
) -> Result<v1::WrittenChunk> {
    let busy_max = context.config.socket_timeout.saturating_mul(BUSY_TIMEOUTS_MAX);
    let mut attempts = Attempts::new(context.config.retries, busy_max);
    let mut pauses = Retry::new(Duration::MAX, 1);
    let begun = Instant::now();
    // Replayed bytes count once.
    let mut told = 0;
    let mut failed = None;
    loop {
        // A kept connection that breaks is blamed on nobody, so that the same node may come again: then over a new one,
        // which is blamed on it.
        let anew = attempts.anew();
        let plan = match plan {
            Some(plan) if failed.is_none() => plan,
            _ => plan.insert(file.plan(context, failed.take()).await?),
        };
        let sent = if source.length() <= SMALL_CHUNK_BYTES_MAX {
            fan_out(context, file, plan, source, anew).await
        } else {
            stream(context, file, plan, source, anew, meter, &mut told).await
        };
        let failure = match sent {
            Ok(crc32c) => {
                meter.add(source.length().saturating_sub(told));
                return Ok(v1::WrittenChunk {
                    chunk_id: plan.chunk.0,
                    generation: plan.generation.0,
                    length: source.length(),
                    crc32c: crc32c.0,
                    nodes: plan.hops.iter().map(|hop| hop.id.0).collect(),
                });
            }
            Err(Stopped::Source(error)) => return Err(source_failed(&file.path, error)),
            Err(Stopped::Pipeline(failure)) => failure,
        };
        tracing::debug!(path = file.path, index, chunk = %plan.chunk, ?failure, "a pipeline failed");
        if let Some(node) = failure.blame {
            file.exclude(node, failure.code);
            context.grants().node_failed(node);
        }
        match attempts.on_failure(&failure, Instant::now()) {
            Next::GiveUp { tries } => {
                let (path, last) = (file.path.clone(), failure.text);
                return Err(ClientError::NotWritten { path, index, tries, code: failure.code, last });
            }
            Next::Replan { pause } => {
                if pause && let Some(pause) = pauses.after_failure(begun.elapsed(), rand::random()) {
                    sleep(pause).await;
                }
            }
        }
        failed = Some(plan.chunk);
    }
}

pub(crate) fn source_failed(path: &str, error: SourceError) -> ClientError {
    let path = path.to_owned();
    match error {
        SourceError::Shrunk(_) => ClientError::SourceChanged { path, what: error.to_string() },
        SourceError::Io(cause) => ClientError::Source { path, cause },
        SourceError::Thread(error) => ClientError::Task { path, text: error.to_string() },
    }
}

/// Sends the chunk through one pipeline and waits until all of it has committed. Returns the chunk's checksum.
async fn stream(
    context: &Context,
    file: &OpenFile,
    plan: &Plan,
    source: &mut ChunkSource,
    anew: bool,
    meter: &Meter,
    told: &mut u64,
) -> Result<Crc32c, Stopped> {
    let timeout = context.config.socket_timeout;
    // A hop that waits for the next one has the same patience and knows better whom to blame: it speaks first.
    let silence = patience(timeout, plan.hops.len().saturating_sub(1));
    let tracer = context.tracer.as_deref();
    let connecting = context.pool.connect(&plan.hops[0], anew, silence);
    let connected = timed(tracer, ClientStage::Connect, None, connecting).await;
    let fresh = |request| WriterState::new(request, plan.chunk, plan.nodes(), silence, Instant::now());
    let mut connection = connected.map_err(|error| fresh(0).on_lost(&error.to_string()))?;
    let request_id = connection.next_request_id();
    let length = source.length();
    let (header, traced) = file.data_header(context, plan, request_id);
    let hops = plan.hops[1..].iter().map(|hop| Hop { node: hop.id, address: hop.address.clone() }).collect();
    let open = WriteOpen { reserve: length, hops }.encode();
    let opening = connection.opening(Header { op: Op::WriteOpen, flags: traced, ..header }, &open);
    let request = tracer.and_then(|tracer| tracer.requested(plan.chunk, 0, plan.hops.clone()));

    let mut pipeline = Pipeline::new(&mut connection, fresh(request_id));
    pipeline.send(&opening).await?;
    let (mut offset, mut crc) = (0, Crc32c::default());
    while offset < length {
        let frame = timed(tracer, ClientStage::Source, None, source.frame(offset)).await;
        let frame = frame.map_err(Stopped::Source)?;
        let bytes = frame.len() as u64;
        let flags = if offset + bytes == length { Header::LAST } else { 0 };
        crc = crc.concat(frame.crc(), bytes);
        let bytes_out = frame.bytes(&Header { flags, offset, length: bytes as u32, ..header });
        timed(tracer, ClientStage::Send, request, pipeline.send(bytes_out)).await?;
        offset += bytes;
        meter.add(offset.saturating_sub(*told));
        *told = offset.max(*told);
    }
    pipeline.state.on_all_sent(length, crc, Instant::now());
    timed(tracer, ClientStage::Ack, request, pipeline.committed()).await?;
    context.pool.give_back(connection);
    Ok(crc)
}

/// One connection while a chunk goes out over it.
pub(crate) struct Pipeline<'a> {
    read: ReadHalf<'a>,
    write: tokio::net::tcp::WriteHalf<'a>,
    receiver: Receiver,
    /// Takes any answer to a write.
    answer: Box<[u8]>,
    pub(crate) state: WriterState,
}

impl<'a> Pipeline<'a> {
    pub(crate) fn new(connection: &'a mut Connection, state: WriterState) -> Self {
        let state = state.over_kept(connection.is_reused());
        let (read, write) = connection.stream.split();
        let answer = vec![0; PAYLOAD_START + FRAME_CONTROL_BYTES_MAX].into_boxed_slice();
        Self { read, write, receiver: Receiver::default(), answer, state }
    }

    /// Sends all of `bytes` unless an answer ends the write first.
    pub(crate) async fn send(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let mut sent = 0;
        while sent < bytes.len() {
            let deadline = self.state.deadline().into();
            tokio::select! {
                biased;
                received = self.receiver.receive(&mut self.read, &mut self.answer) => {
                    self.on_received(received)?;
                }
                taken = self.write.write(&bytes[sent..]) => match taken {
                    Ok(n) => {
                        sent += n;
                        self.state.on_sent(Instant::now());
                    }
                    Err(error) => return Err(self.last_words(&error).await),
                },
                () = sleep_until(deadline) => self.on_time()?,
            }
        }
        Ok(())
    }

    /// Waits for the acknowledgement.
    pub(crate) async fn committed(&mut self) -> Result<(), Failure> {
        loop {
            let deadline = self.state.deadline().into();
            tokio::select! {
                biased;
                received = self.receiver.receive(&mut self.read, &mut self.answer) => {
                    if self.on_received(received)? {
                        return Ok(());
                    }
                }
                () = sleep_until(deadline) => self.on_time()?,
            }
        }
    }

    fn on_time(&self) -> Result<(), Failure> {
        self.state.on_time(Instant::now()).map_or(Ok(()), Err)
    }

    fn on_received(
        &mut self,
        received: Result<(Header, distrifs_proto::frame::Placement), ReceiveError>,
    ) -> Result<bool, Failure> {
        let (header, place) = match received {
            Ok(frame) => frame,
            Err(error @ (ReceiveError::Closed | ReceiveError::Io(_))) => {
                return Err(self.state.on_lost(&error.to_string()));
            }
            Err(error) => return Err(self.state.violation(error.to_string())),
        };
        verify(&self.answer, &place).map_err(|error| self.state.violation(error.to_string()))?;
        self.state.on_answer(&header, &self.answer[place.payload], Instant::now())
    }

    /// The peer stopped listening: it may have said why before, naming another hop.
    async fn last_words(&mut self, error: &std::io::Error) -> Failure {
        loop {
            let deadline = self.state.deadline().into();
            let received = tokio::select! {
                biased;
                received = self.receiver.receive(&mut self.read, &mut self.answer) => received,
                () = sleep_until(deadline) => return self.state.on_lost(&error.to_string()),
            };
            if let Err(ReceiveError::Io(_) | ReceiveError::Closed) = received {
                return self.state.on_lost(&error.to_string());
            }
            if let Err(failure) = self.on_received(received) {
                return failure;
            }
        }
    }
}
