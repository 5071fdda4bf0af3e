//! One operation, hop by hop: what the client noted and what master and datanodes remember of its trace, put on one
//! time axis and charged by `sweep`. Pure, but for `gather`, which asks.
//!
//! Clocks of several machines are not compared. A hop begins when the one before told it to; a call of the master lies
//! in the middle of the call as the client saw it.

mod gather;
mod sweep;

use std::borrow::Cow;
use std::time::Duration;

use distrifs_proto::latency::TracedOperation;
use distrifs_proto::types::{ChunkId, NodeId};

use crate::tracer::{ClientStage, Notes, Requested};
pub(crate) use gather::gather;
use sweep::{Piece, charge, within};

/// Who passed a stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Who {
    /// This process.
    Client,
    /// The master, in this call.
    Master {
        /// The method.
        call: &'static str,
    },
    /// A datanode.
    Datanode {
        /// Which one.
        node: NodeId,
        /// Its place in the pipeline, from 1.
        hop: usize,
    },
}

/// A stage and its share of the time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Who passed it.
    pub who: Who,
    /// For which chunk.
    pub chunk: Option<ChunkId>,
    /// Its name.
    pub stage: Cow<'static, str>,
    /// How much of the wall time it is charged with: the rows add up to what is accounted for.
    pub charged: Duration,
    /// How long it took, with what others did at the same time, and all its passes added up.
    pub busy: Duration,
}

/// Where the time of one operation went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// From the begin of the operation until it was done.
    pub wall: Duration,
    /// Who waited for what: the client's stages, the master's calls, then chunk by chunk and hop by hop.
    pub rows: Vec<Row>,
    /// Traces that were asked for and not there, by node: what they did is not accounted for.
    pub missing: Vec<NodeId>,
}

impl Explanation {
    /// The part of the wall time that a stage was charged with.
    #[must_use]
    pub fn accounted(&self) -> Duration {
        self.rows.iter().map(|row| row.charged).sum()
    }
}

/// What a process remembers of a request.
#[derive(Debug, Clone)]
pub(crate) struct Remembered {
    /// The number of the request, and of the hop in it.
    pub(crate) request: usize,
    pub(crate) hop: usize,
    pub(crate) operation: TracedOperation,
}

/// Everything that is known.
#[derive(Debug, Default)]
pub(crate) struct Known {
    pub(crate) notes: Notes,
    pub(crate) hops: Vec<Remembered>,
    /// By the number of the call.
    pub(crate) calls: Vec<TracedOperation>,
}

/// Stages of a hop in which it takes bytes: only then whoever sends to it is the one that is waited for.
const TAKES_BYTES: &[&str] = &["write.await", "write.receive"];
/// Whoever sends is waited for while the other side takes bytes: all the time where that is at least half of it.
const SENDS: &[&str] = &["write.forward", "read.send"];
/// Not work: it is waited for the side that sends.
const AWAITS: &[&str] = &["write.await"];
/// From the end of the next hop on its answer is on its way, or not looked at.
const ACK: &str = "write.ack";
/// Calls as a whole, with stages in them.
const WHOLE: &[&str] = &["change", "read"];
/// What the client does between its stages.
const OWN: &str = "own";
/// The way of a call to the master and back.
const RPC: &str = "rpc";

/// Explains an operation that took `wall_us`.
pub(crate) fn explain(known: &Known, wall_us: u64, missing: Vec<NodeId>) -> Explanation {
    let mut axis = Axis::default();
    axis.client(known);
    axis.own(known, wall_us);
    axis.calls(known);
    for (number, request) in known.notes.requests.iter().enumerate() {
        axis.request(known, number, request);
    }
    let charged = charge(&axis.pieces, axis.rows.len(), wall_us);
    for (row, us) in axis.rows.iter_mut().zip(charged) {
        row.charged = Duration::from_micros(us);
    }
    let rows = axis.rows.into_iter().filter(|row| !row.busy.is_zero()).collect();
    Explanation { wall: Duration::from_micros(wall_us), rows, missing }
}

/// Rows and their pieces on the client's time.
#[derive(Default)]
struct Axis {
    rows: Vec<Row>,
    pieces: Vec<Piece>,
}

impl Axis {
    /// The row of a stage.
    fn row(&mut self, who: Who, chunk: Option<ChunkId>, stage: Cow<'static, str>) -> usize {
        let same = |row: &Row| row.who == who && row.chunk == chunk && row.stage == stage;
        self.rows.iter().position(same).unwrap_or_else(|| {
            self.rows.push(Row { who, chunk, stage, charged: Duration::ZERO, busy: Duration::ZERO });
            self.rows.len() - 1
        })
    }

    fn add(&mut self, piece: Piece) {
        self.rows[piece.row].busy += Duration::from_micros(piece.end_us.saturating_sub(piece.start_us));
        self.pieces.push(piece);
    }

    /// A send to a side that takes bytes at these times.
    fn add_send(&mut self, row: usize, times: (u64, u64), takes: &[(u64, u64)]) {
        let open: u64 = within(times, takes).iter().map(|(start, end)| end - start).sum();
        // Mostly waited for: had the other side been ready a little sooner, nothing would have come sooner.
        let whole = [times];
        let counts = if open * 2 >= times.1 - times.0 { &whole[..] } else { takes };
        // What is received while it is sent is one transfer: the side that takes longer holds it up.
        let shorter = |other: &&(u64, u64)| {
            other.0 < times.1 && times.0 < other.1 && other.1 - other.0 < times.1 - times.0
        };
        let ends = takes
            .iter()
            .filter(shorter)
            .map(|other| other.1)
            .fold(times.1, |ends, other| ends.max(other + 1));
        self.add_parts(row, times, counts, ends);
    }

    /// Work that counts only within these times.
    fn add_within(&mut self, row: usize, times: (u64, u64), ready: &[(u64, u64)]) {
        self.add_parts(row, times, ready, times.1);
    }

    fn add_parts(&mut self, row: usize, times: (u64, u64), ready: &[(u64, u64)], whole_end_us: u64) {
        self.rows[row].busy += Duration::from_micros(times.1.saturating_sub(times.0));
        for (start_us, end_us) in within(times, ready) {
            self.pieces.push(Piece { start_us, end_us, whole_end_us, ..Piece::work(row, times) });
        }
    }

    fn client(&mut self, known: &Known) {
        for pass in &known.notes.passes {
            let times = (pass.start_us, pass.end_us);
            let row = self.row(Who::Client, None, name_of(pass.stage).into());
            let first = pass.request.and_then(|request| known.hop(request, 0));
            match (pass.stage, first) {
                (ClientStage::Send, Some((begin, hop))) => {
                    self.add_send(row, times, &takes_bytes(begin, hop));
                }
                (ClientStage::Ack, Some((begin, hop))) => {
                    let ended = begin + u64::from(hop.took_us);
                    self.add_within(row, times, &[(ended, u64::MAX)]);
                }
                (ClientStage::Receive, _) => self.add(Piece::wait(row, times)),
                _ => self.add(Piece::work(row, times)),
            }
        }
    }

    /// Where the client is in none of its stages and waits for nobody, it does what lies between them: it hands work to
    /// its threads, checks plans, notes what came. That is its own time.
    fn own(&mut self, known: &Known, wall_us: u64) {
        let passes = known.notes.passes.iter().map(|pass| (pass.start_us, pass.end_us));
        let calls = known.notes.calls.iter().map(|call| (call.start_us, call.end_us));
        let mut times: Vec<(u64, u64)> = passes.chain(calls).collect();
        times.sort_unstable();
        let row = self.row(Who::Client, None, OWN.into());
        let mut until = 0;
        for (start, end) in times.into_iter().chain([(wall_us, wall_us)]) {
            if start > until {
                self.add(Piece::wait(row, (until, start)));
            }
            until = until.max(end);
        }
    }

    fn calls(&mut self, known: &Known) {
        for call in &known.notes.calls {
            let who = Who::Master { call: call.method };
            let times = (call.start_us, call.end_us);
            let rpc = self.row(who.clone(), None, RPC.into());
            let Some(operation) = known.calls.iter().find(|operation| operation.part == call.part) else {
                self.add(Piece::work(rpc, times));
                continue;
            };
            let took = u64::from(operation.took_us).min(times.1 - times.0);
            let begin = times.0 + (times.1 - times.0 - took) / 2;
            self.add(Piece::work(rpc, (times.0, begin)));
            self.add(Piece::work(rpc, (begin + took, times.1)));
            for span in &operation.spans {
                let row = self.row(who.clone(), None, span.stage.clone());
                let times = (begin + u64::from(span.start_us), begin + u64::from(span.end_us));
                let whole = WHOLE.contains(&span.stage.as_ref());
                self.add(Piece { waits: whole, ..Piece::work(row, times) });
            }
        }
    }

    fn request(&mut self, known: &Known, number: usize, request: &Requested) {
        for (hop, node) in request.hops.iter().enumerate() {
            let Some((begin, operation)) = known.hop(number, hop) else { return };
            let next = known.hop(number, hop + 1);
            let reader = known
                .notes
                .passes
                .iter()
                .filter(|pass| pass.request == Some(number) && pass.stage == ClientStage::Receive);
            let reader: Vec<(u64, u64)> = reader.map(|pass| (pass.start_us, pass.end_us)).collect();
            let who = Who::Datanode { node: node.id, hop: hop + 1 };
            for span in &operation.spans {
                let row = self.row(who.clone(), Some(request.chunk), span.stage.clone());
                let times = (begin + u64::from(span.start_us), begin + u64::from(span.end_us));
                match (span.stage.as_ref(), next) {
                    (stage, _) if AWAITS.contains(&stage) => self.add(Piece::wait(row, times)),
                    (stage, Some((begin, next))) if SENDS.contains(&stage) => {
                        self.add_send(row, times, &takes_bytes(begin, next));
                    }
                    ("read.send", None) => self.add_send(row, times, &reader),
                    (ACK, Some((begin, next))) => {
                        self.add_within(row, times, &[(begin + u64::from(next.took_us), u64::MAX)]);
                    }
                    _ => self.add(Piece::work(row, times)),
                }
            }
        }
    }
}

impl Known {
    /// When a hop of a request began, on the client's time, and what it remembers.
    fn hop(&self, request: usize, hop: usize) -> Option<(u64, &TracedOperation)> {
        let of = |hop| {
            let those = self.hops.iter().find(|it| it.request == request && it.hop == hop);
            those.map(|it| &it.operation)
        };
        let mut begin = self.notes.requests.get(request)?.at_us;
        for before in 0..hop {
            begin += u64::from(of(before)?.next_us?);
        }
        Some((begin, of(hop)?))
    }
}

fn takes_bytes(begin: u64, hop: &TracedOperation) -> Vec<(u64, u64)> {
    let spans = hop.spans.iter().filter(|span| TAKES_BYTES.contains(&span.stage.as_ref()));
    spans.map(|span| (begin + u64::from(span.start_us), begin + u64::from(span.end_us))).collect()
}

fn name_of(stage: ClientStage) -> &'static str {
    match stage {
        ClientStage::Source => "source",
        ClientStage::Connect => "connect",
        ClientStage::Send => "send",
        ClientStage::Ack => "ack",
        ClientStage::Receive => "receive",
        ClientStage::Land => "land",
    }
}

#[cfg(test)]
#[path = "../explain_test.rs"]
mod tests;
