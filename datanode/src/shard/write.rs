//! Drives one chunk through this hop: receive, check, store and forward from the same buffer, commit, answer.
//!
//! What to take and what to answer is [`Pipeline`]'s to decide. Tasks stand around it: those of the disk writes,
//! the forwarder that owns the sending half to the next hop, and the commit. None of them is ever cancelled; on a
//! failure they run out by themselves and the chunk's name goes when the last write is done.

use std::cell::Cell;
use std::ops::Range;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use distrifs_engine::io::{Buf, Io, SendHalf, Shared};
use distrifs_engine::store::{ChunkWriter, ReplicaInfo, StoreError};
use distrifs_proto::ErrorCode;
use distrifs_proto::frame::{
    self, ErrorBody, FrameError, HEADER_BYTES, Header, Hop, Op, PROGRESS_INTERVAL, Placement, WriteAck,
    WriteOpen, block_crc,
};
use distrifs_proto::limits::BLOCK_BYTES;
use tokio::sync::{mpsc, oneshot};

use super::buffers::WriteBuffers;
use super::disk_writes::DiskWrites;
use super::intake::Intake;
use super::peer::{Answer, LinkParts, PeerLink};
use super::trail::Trail;
use super::wire::{WireError, recv_body, send_control};
use super::{Shard, ShardEvent};
use crate::node::Counters;
use crate::pipeline::{Pipeline, Verdict};
use crate::stage::{Stage, WRITE_AWAIT};

/// How long a hop may take to make a received chunk durable before it gives up.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(60);
/// How long an upstream may send nothing in the middle of a chunk.
const UPSTREAM_IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// Frames on their way to the next hop; the buffers of a write are fewer.
const FORWARD_QUEUE_MAX: usize = 16;

/// How a write ended.
pub(crate) enum Outcome {
    /// To be acknowledged.
    Done(WriteAck),
    /// To be refused; then the connection closes.
    Refused(ErrorBody),
    /// The upstream is gone: nobody is left to tell.
    Gone,
}

/// The next hop of one chunk, while the chunk is on its way.
struct Downstream {
    frames: Option<mpsc::Sender<(Shared, Range<usize>)>>,
    answers: mpsc::Receiver<Answer>,
    /// The link comes back here when the forwarder is done.
    done: Option<oneshot::Receiver<Result<SendHalf, std::io::Error>>>,
    link_parts: LinkParts,
    /// When the hop last took bytes or said something.
    heard: Rc<Cell<Duration>>,
    /// How long it may be silent while it owes something.
    patience: Duration,
    /// Frames it has not taken yet.
    queued: Rc<Cell<usize>>,
    answered: bool,
    /// Dropped with the chunk: a forwarder that is stuck in a send must not keep the chunk's buffers.
    _in_use: oneshot::Sender<()>,
}

/// What came of a commit, and when.
type Committed = (Result<ReplicaInfo, StoreError>, Duration);

/// One chunk at this hop.
struct Write<'a> {
    shard: &'a Rc<Shard>,
    trail: Trail,
    request: Header,
    pipeline: Pipeline,
    buffers: WriteBuffers,
    writer: Option<ChunkWriter>,
    disk: usize,
    disk_writes: DiskWrites,
    downstream: Option<Downstream>,
    commit: Option<oneshot::Receiver<Committed>>,
    /// When the last frame was taken.
    all_taken: Duration,
    /// When the own commit was done, or the next hop's acknowledgement came if that was later.
    done_at: Duration,
}

/// Takes the chunk that `request` and `open` begin.
pub(crate) async fn serve(
    shard: &Rc<Shard>,
    request: Header,
    open: WriteOpen,
    intake: &mut Intake,
    send: &mut SendHalf,
) -> Outcome {
    Counters::add(&shard.node.counters.open_writes, 1);
    let below = open.hops.len() as u64;
    let trail = Trail::begin(shard, &request);
    let begun = Write::begin(shard, request, open, trail.clone());
    let outcome = match at_work(shard, send, &request, below, begun).await {
        (Ok(mut write), listens) => {
            let outcome = if listens { write.run(intake, send).await } else { Outcome::Gone };
            let (acknowledged, done_at) = (matches!(outcome, Outcome::Done(_)), write.done_at);
            write.finish(acknowledged).await;
            if acknowledged {
                trail.hold_up(Stage::WriteAnswer).await;
                trail.passed(Stage::WriteAnswer, done_at);
            }
            outcome
        }
        (Err(error), _) => Outcome::Refused(error),
    };
    trail.end();
    let counters = &shard.node.counters;
    counters.open_writes.fetch_sub(1, std::sync::atomic::Ordering::Relaxed);
    let count = if matches!(outcome, Outcome::Done(_)) {
        &counters.chunks_committed
    } else {
        &counters.writes_failed
    };
    Counters::add(count, 1);
    outcome
}

/// Waits for the chunk's beginning, which a full house, a slow disk or the next hop may hold up, and says meanwhile that
/// this hop is at work. Also, whether the upstream still listens.
async fn at_work<T>(
    shard: &Shard,
    send: &mut SendHalf,
    request: &Header,
    below: u64,
    beginning: impl Future<Output = T>,
) -> (T, bool) {
    let mut beginning = pin!(beginning);
    let mut listens = true;
    loop {
        tokio::select! {
            biased;
            begun = &mut beginning => return (begun, listens),
            () = shard.io.sleep(PROGRESS_INTERVAL), if listens => {
                listens = say_progress(send, request, below).await.is_ok();
            }
        }
    }
}

impl<'a> Write<'a> {
    async fn begin(
        shard: &'a Rc<Shard>,
        request: Header,
        open: WriteOpen,
        trail: Trail,
    ) -> Result<Self, ErrorBody> {
        let node = &shard.node;
        let refuse = |code, text: String| ErrorBody { code, node: node.id, text };
        let mut pipeline = Pipeline::open(node.id, &request, &open, node.epoch_seen())?;
        let Some(&cluster) = node.cluster.get() else {
            return Err(refuse(ErrorCode::Unavailable, "this datanode has not joined a cluster yet".into()));
        };
        let admitted = shard.buffers.admit_write(&shard.io, open.reserve);
        let Some(buffers) = trail.stage(Stage::WriteQueue, admitted).await else {
            return Err(refuse(ErrorCode::Busy, "all places for writes are taken".into()));
        };
        let Some(disk) = node.disk_for(open.reserve) else {
            return Err(refuse(ErrorCode::NoSpace, format!("no disk takes {} bytes", open.reserve)));
        };
        let store = &shard.disks[disk];
        let creating = store.create(cluster, request.chunk, request.generation, open.reserve);
        let creating = trail.stage(Stage::WriteCreate, creating);
        let (created, linked) = tokio::join!(creating, Self::link(shard, &request, &open, &trail));
        let writer = created.map_err(|error| {
            shard.judge(disk, &error);
            refuse(error.code(), error.to_string())
        })?;
        let downstream = match linked {
            Ok(downstream) => downstream,
            Err(error) => {
                writer.abort().await;
                pipeline.downstream_lost(&error.to_string());
                let Verdict::Fail(body) = pipeline.verdict() else { unreachable!("the hop behind is lost") };
                return Err(body);
            }
        };
        let disk_writes = DiskWrites::new(trail.clone());
        let (writer, commit) = (Some(writer), None);
        Ok(Self {
            shard,
            trail,
            request,
            pipeline,
            buffers,
            writer,
            disk,
            disk_writes,
            downstream,
            commit,
            all_taken: shard.io.now(),
            done_at: Duration::ZERO,
        })
    }

    /// Opens the chunk at the next hop.
    async fn link(
        shard: &Rc<Shard>,
        request: &Header,
        open: &WriteOpen,
        trail: &Trail,
    ) -> std::io::Result<Option<Downstream>> {
        let Some((next, rest)) = open.hops.split_first() else { return Ok(None) };
        let cluster = shard.node.cluster.get().copied().unwrap_or_default();
        let rest: Vec<Hop> = rest.to_vec();
        let patience = frame::patience(shard.socket_timeout, rest.len());
        let body = WriteOpen { reserve: open.reserve, hops: rest }.encode();
        let linking = async {
            let mut link: PeerLink = shard.peers.link(next, cluster).await?;
            // Before, not after: the next hop must not seem to have begun later than it did.
            trail.opened_next();
            send_control(&mut link.send, *request, &body).await?;
            Ok::<_, std::io::Error>(link)
        };
        let link = trail.stage(Stage::WriteLink, linking).await?;
        let (send, answers, link_parts) = link.into_parts();
        let heard = Rc::new(Cell::new(shard.io.now()));
        let queued = Rc::new(Cell::new(0));
        let (frames, queue) = mpsc::channel(FORWARD_QUEUE_MAX);
        let (tell, done) = oneshot::channel();
        let (in_use, given_up) = oneshot::channel();
        let (io, now_heard, still_queued) = (shard.io.clone(), heard.clone(), queued.clone());
        let trail = trail.clone();
        shard.io.spawn(async move {
            // Whoever waited may be gone: then the half is dropped here, and the connection closes.
            let _ = tell.send(
                forward(queue, send, given_up, &trail, || {
                    now_heard.set(io.now());
                    still_queued.set(still_queued.get() - 1);
                })
                .await,
            );
        });
        Ok(Some(Downstream {
            frames: Some(frames),
            answers,
            done: Some(done),
            link_parts,
            heard,
            patience,
            queued,
            answered: false,
            _in_use: in_use,
        }))
    }

    async fn run(&mut self, intake: &mut Intake, send: &mut SendHalf) -> Outcome {
        let io = &self.shard.io;
        let mut upstream_heard = io.now();
        while !self.pipeline.ended() {
            let received = match self.next_step(intake, send, upstream_heard).await {
                Step::Received(received) => received,
                Step::DiskFailed => return Outcome::Refused(self.commit_failure().await),
                Step::Ends(outcome) => return outcome,
            };
            upstream_heard = io.now();
            if let Err(refused) = self.take(received).await {
                return refused;
            }
        }
        self.begin_commit();
        let deadline = io.now() + COMMIT_TIMEOUT;
        // Outlives the answers: whoever answers once a second must not keep this hop silent.
        let mut tick = pin!(io.sleep(PROGRESS_INTERVAL));
        loop {
            match self.pipeline.verdict() {
                Verdict::Ack(ack) => return Outcome::Done(ack),
                Verdict::Fail(error) => return Outcome::Refused(error),
                Verdict::Pending => {}
            }
            tokio::select! {
                biased;
                answer = next_answer(&mut self.downstream) => {
                    let acknowledged = is_ack(answer.as_ref());
                    if acknowledged {
                        self.trail.hold_up(Stage::WriteAck).await;
                    }
                    let below = note_answer(io, &mut self.pipeline, &mut self.downstream, answer);
                    if acknowledged {
                        self.trail.passed(Stage::WriteAck, self.all_taken);
                        self.done_at = self.done_at.max(io.now());
                    }
                    if relay_progress(send, &self.request, below).await.is_err() {
                        return Outcome::Gone;
                    }
                }
                committed = next_commit(&mut self.commit) => self.note_commit(committed),
                () = &mut tick => {
                    tick.set(io.sleep(PROGRESS_INTERVAL));
                    if io.now() > deadline {
                        let text = format!("the disk did not finish within {COMMIT_TIMEOUT:?}");
                        self.pipeline.local_failed(ErrorCode::Disk, text);
                    } else if say_progress(send, &self.request, self.pipeline.hops_below()).await.is_err() {
                        return Outcome::Gone;
                    }
                    watch(io, &mut self.pipeline, self.downstream.as_ref());
                }
            }
        }
    }

    /// Waits for the next frame, and meanwhile for whatever ends the chunk early.
    async fn next_step(
        &mut self,
        intake: &mut Intake,
        send: &mut SendHalf,
        upstream_heard: Duration,
    ) -> Step {
        let io = &self.shard.io;
        // Polled to its end unless the chunk ends here: a receive that was dropped may have taken bytes.
        let mut next = pin!(next_frame(intake, &self.buffers, &self.trail));
        let mut tick = pin!(io.sleep(PROGRESS_INTERVAL));
        loop {
            tokio::select! {
                biased;
                answer = next_answer(&mut self.downstream) => {
                    let below = note_answer(io, &mut self.pipeline, &mut self.downstream, answer);
                    if relay_progress(send, &self.request, below).await.is_err() {
                        return Step::Ends(Outcome::Gone);
                    }
                }
                received = &mut next => return Step::Received(received),
                () = &mut tick => {
                    tick.set(io.sleep(PROGRESS_INTERVAL));
                    let idle = io.now() - upstream_heard > UPSTREAM_IDLE_TIMEOUT;
                    let below = self.pipeline.hops_below();
                    if idle || say_progress(send, &self.request, below).await.is_err() {
                        return Step::Ends(Outcome::Gone);
                    }
                    watch(io, &mut self.pipeline, self.downstream.as_ref());
                }
            }
            if self.writer.as_ref().is_some_and(ChunkWriter::has_failed) {
                return Step::DiskFailed;
            }
            if let Verdict::Fail(error) = self.pipeline.verdict() {
                return Step::Ends(Outcome::Refused(error));
            }
        }
    }

    /// Stores and forwards a received frame.
    async fn take(&mut self, received: Result<(Header, Placement, Shared), Refusal>) -> Result<(), Outcome> {
        let node = &self.shard.node;
        let (header, place, frame) = match received {
            Ok(frame) => frame,
            Err(Refusal::Wire(WireError::Frame(error))) => {
                Counters::add(&node.counters.frames_refused, 1);
                // The bytes were right when the sender sealed them: whoever is between is not known here.
                let code = if matches!(error, FrameError::BlockChecksum { .. }) {
                    ErrorCode::Corrupt
                } else {
                    ErrorCode::Protocol
                };
                return Err(Outcome::Refused(ErrorBody { code, node: node.id, text: error.to_string() }));
            }
            Err(Refusal::Wire(error)) => {
                tracing::debug!(chunk = %self.request.chunk, %error, "the upstream went away");
                return Err(Outcome::Gone);
            }
            Err(Refusal::TooLong(length)) => {
                let text = format!("a frame of {length} bytes in a chunk of few");
                return Err(Outcome::Refused(ErrorBody { code: ErrorCode::Protocol, node: node.id, text }));
            }
        };
        self.pipeline.data(&header).map_err(Outcome::Refused)?;
        Counters::add(&node.counters.bytes_received, u64::from(header.length));
        let blocks = header.payload_bytes().div_ceil(BLOCK_BYTES);
        let crcs = (0..blocks).map(|block| block_crc(&frame, &place, block));
        let writer = self.writer.as_mut().expect("a chunk that is not committed yet");
        if blocks > 0 {
            match writer.append(frame.clone(), place.payload.clone(), crcs) {
                Ok(Some(write)) => self.disk_writes.begin(&self.shard.io, write),
                Ok(None) => {}
                Err(error) => {
                    let (code, text) = (error.code(), error.to_string());
                    return Err(Outcome::Refused(ErrorBody { code, node: node.id, text }));
                }
            }
        }
        if let Some(downstream) = &self.downstream
            && let Some(frames) = &downstream.frames
        {
            if downstream.queued.get() == 0 {
                // It owes something from now on, however long the upstream had nothing for it.
                downstream.heard.set(self.shard.io.now());
            }
            downstream.queued.set(downstream.queued.get() + 1);
            // A forwarder that has ended says why through its answers or its result.
            let _ = frames.send((frame, place.frame())).await;
        }
        Ok(())
    }

    /// Nothing more comes: the own commit runs beside the hops behind.
    fn begin_commit(&mut self) {
        if let Some(downstream) = &mut self.downstream {
            downstream.frames = None;
            downstream.heard.set(self.shard.io.now());
        }
        self.all_taken = self.shard.io.now();
        let mut writer = self.writer.take().expect("a chunk is committed once");
        let (tell, told) = oneshot::channel();
        let (shard, disk, in_flight) = (self.shard.clone(), self.disk, self.disk_writes.in_flight());
        let trail = self.trail.clone();
        self.shard.io.spawn(async move {
            in_flight.drained().await;
            let began = shard.io.now();
            trail.stage(Stage::WriteSync, writer.sync()).await;
            let committed = trail.stage(Stage::WritePublish, writer.commit()).await;
            let done_at = shard.io.now();
            shard.node.disks[disk].committed_in(done_at.saturating_sub(began));
            // Told from here: the replica counts whether or not the upstream still waits for it.
            match &committed {
                Ok(replica) => shard.tell(ShardEvent::Committed { replica: *replica, disk }).await,
                Err(error) => shard.judge(disk, error),
            }
            // Whoever waited may be gone; the master's gc finds the replica.
            let _ = tell.send((committed, done_at));
        });
        self.commit = Some(told);
    }

    fn note_commit(&mut self, committed: Option<Committed>) {
        let (committed, done_at) = committed.unzip();
        self.done_at = self.done_at.max(done_at.unwrap_or_default());
        match committed {
            Some(Ok(replica)) => self.pipeline.committed(replica.length, replica.crc),
            Some(Err(error)) => self.pipeline.local_failed(error.code(), error.to_string()),
            None => {
                self.pipeline.local_failed(ErrorCode::Internal, "the commit ended without a result".into());
            }
        }
    }

    /// A write has failed: the commit says how, and cleans up.
    async fn commit_failure(&mut self) -> ErrorBody {
        self.begin_commit();
        let committed = next_commit(&mut self.commit).await;
        self.note_commit(committed);
        match self.pipeline.verdict() {
            Verdict::Fail(error) => error,
            _ => ErrorBody {
                code: ErrorCode::Internal,
                node: self.shard.node.id,
                text: "a failed write was committed".into(),
            },
        }
    }

    /// Gives back what the write held.
    async fn finish(mut self, acknowledged: bool) {
        if let Some(writer) = self.writer.take() {
            let in_flight = self.disk_writes.in_flight();
            self.shard.io.spawn(async move {
                in_flight.drained().await;
                writer.abort().await;
            });
        }
        // Only a connection whose chunk was acknowledged is in a known state.
        if let (true, Some(mut downstream)) = (acknowledged, self.downstream.take())
            && let Some(done) = downstream.done.take()
            // A hop that acknowledged has taken everything; one that did not tell the truth is not waited for.
            && let Ok(Ok(Ok(send))) = self.shard.io.timeout(PROGRESS_INTERVAL, done).await
        {
            self.shard.peers.keep(PeerLink::from_parts(send, downstream.answers, downstream.link_parts));
        }
    }
}

/// Blames the next hop once it owes something and was silent for too long.
fn watch(io: &Io, pipeline: &mut Pipeline, downstream: Option<&Downstream>) {
    let Some(downstream) = downstream else { return };
    let owes = downstream.queued.get() > 0 || downstream.frames.is_none();
    let silent = io.now().saturating_sub(downstream.heard.get());
    if owes && !downstream.answered && silent > downstream.patience {
        pipeline.downstream_lost(&format!("silent for {} s", silent.as_secs()));
    }
}

/// What came of waiting for a frame.
enum Step {
    Received(Result<(Header, Placement, Shared), Refusal>),
    DiskFailed,
    Ends(Outcome),
}

/// Why a frame was not taken.
enum Refusal {
    Wire(WireError),
    TooLong(u32),
}

async fn next_frame(
    intake: &mut Intake,
    buffers: &WriteBuffers,
    trail: &Trail,
) -> Result<(Header, Placement, Shared), Refusal> {
    let buffer = buffers.get().await;
    let waits = trail.now();
    let header = intake.header().await.map_err(Refusal::Wire)?;
    trail.waited(WRITE_AWAIT, waits);
    if header.payload_bytes() > buffers.payload_max() {
        return Err(Refusal::TooLong(header.length));
    }
    let (place, mut buffer) = trail.stage(Stage::WriteReceive, recv_body(intake, &header, buffer)).await;
    let place = place.map_err(Refusal::Wire)?;
    let checked = trail.stage(Stage::WriteCrc, async { frame::verify(&buffer, &place) }).await;
    checked.map_err(|error| Refusal::Wire(error.into()))?;
    // O_DIRECT writes whole blocks; the commit cuts the file.
    let end = place.payload.end;
    buffer[end..end.next_multiple_of(BLOCK_BYTES)].fill(0);
    Ok((header, place, buffer.share()))
}

async fn forward(
    mut queue: mpsc::Receiver<(Shared, Range<usize>)>,
    mut send: SendHalf,
    mut given_up: oneshot::Receiver<()>,
    trail: &Trail,
    taken: impl Fn(),
) -> Result<SendHalf, std::io::Error> {
    while let Some((frame, range)) = queue.recv().await {
        tokio::select! {
            biased;
            sent = trail.stage(Stage::WriteForward, send.send_all(frame, range)) => sent?,
            // An unknown part is sent: the connection closes here.
            _ = &mut given_up => return Err(std::io::ErrorKind::ConnectionAborted.into()),
        }
        taken();
    }
    Ok(send)
}

fn is_ack(answer: Option<&Answer>) -> bool {
    matches!(answer, Some(Ok((header, _))) if header.op == Op::WriteAck)
}

/// The next answer from the hop behind; never, when there is none or it has answered.
async fn next_answer(downstream: &mut Option<Downstream>) -> Option<Answer> {
    match downstream {
        Some(downstream) if !downstream.answered => downstream.answers.recv().await,
        _ => std::future::pending().await,
    }
}

/// The result of the own commit; never, when none runs.
async fn next_commit(commit: &mut Option<oneshot::Receiver<Committed>>) -> Option<Committed> {
    match commit {
        Some(told) => {
            let result = told.await.ok();
            *commit = None;
            result
        }
        None => std::future::pending().await,
    }
}

/// Takes an answer of the hop behind; of a progress, how many hops stand below the one that works.
fn note_answer(
    io: &Io,
    pipeline: &mut Pipeline,
    downstream: &mut Option<Downstream>,
    answer: Option<Answer>,
) -> Option<u64> {
    let downstream = downstream.as_mut()?;
    downstream.heard.set(io.now());
    let answered = match answer {
        Some(Ok((header, _))) if header.op == Op::WriteProgress && header.offset < pipeline.hops_below() => {
            return Some(header.offset);
        }
        // Of another chunk, or of bytes that were never sent: nothing of this one is durable there.
        Some(Ok((header, _)))
            if header.op == Op::WriteAck
                && (!pipeline.is_of_request(&header) || downstream.frames.is_some()) =>
        {
            pipeline.downstream_lost("acknowledged what it was not sent");
            Ok(())
        }
        Some(Ok((header, body))) if header.op == Op::WriteAck => WriteAck::decode(&body).map(|ack| {
            pipeline.downstream_acked(ack);
        }),
        Some(Ok((header, body))) if header.op == Op::Error => ErrorBody::decode(&body).map(|error| {
            pipeline.downstream_failed(error);
        }),
        Some(Ok((header, _))) => {
            pipeline.downstream_lost(&format!("answered {:?} to a chunk", header.op));
            Ok(())
        }
        Some(Err(error)) => {
            pipeline.downstream_lost(&error.to_string());
            Ok(())
        }
        None => {
            pipeline.downstream_lost("the connection ended");
            Ok(())
        }
    };
    if let Err(error) = answered {
        pipeline.downstream_lost(&error.to_string());
    }
    downstream.answered = true;
    None
}

/// Says upstream that a hop with `below` further ones below it is at work.
async fn say_progress(send: &mut SendHalf, request: &Header, below: u64) -> std::io::Result<()> {
    let frame = Header { offset: below, ..request.answer(Op::WriteProgress) }.encode();
    let mut buffer = Buf::alloc(HEADER_BYTES);
    buffer[..HEADER_BYTES].copy_from_slice(&frame);
    send.send_all(buffer.share(), 0..HEADER_BYTES).await
}

/// Passes on what a hop further down said, so that the client knows of each that it works.
async fn relay_progress(send: &mut SendHalf, request: &Header, below: Option<u64>) -> std::io::Result<()> {
    match below {
        Some(below) => say_progress(send, request, below).await,
        None => Ok(()),
    }
}
