//! The decisions of writing one chunk: what an answer means, whom silence is blamed on, and what to do next.
//!
//! [`WriterState`] follows one pipeline, [`Attempts`] the pipelines of one chunk. No I/O, no clock, no chance.

use std::time::{Duration, Instant};

use distrifs_proto::ErrorCode;
use distrifs_proto::frame::{ErrorBody, Header, Op, WriteAck};
use distrifs_proto::types::{ChunkId, Crc32c, NodeId};

/// A pipeline may say that work goes on for this many times the silence it is allowed, then it is given up: every
/// call ends.
const SYNC_SILENCES_MAX: u32 = 10;

/// Why a pipeline did not commit its chunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) code: ErrorCode,
    pub(crate) text: String,
    /// Whom the next plan should leave out.
    pub(crate) blame: Option<NodeId>,
    /// All that broke is a connection that was kept from an earlier request: a new one may do.
    pub(crate) kept: bool,
}

/// One chunk on its way through one pipeline.
#[derive(Debug)]
pub(crate) struct WriterState {
    request_id: u64,
    chunk: ChunkId,
    /// Whom we speak to first.
    hops: Vec<NodeId>,
    /// When each hop was last known to be at work.
    heard: Vec<Instant>,
    /// When anything at all last moved.
    moved: Instant,
    silence: Duration,
    sent: Option<Sent>,
    /// The connection was kept from an earlier request, and this one is unanswered.
    kept: bool,
}

/// The whole chunk, as it went out.
#[derive(Debug)]
struct Sent {
    length: u64,
    crc: Crc32c,
    at: Instant,
}

impl WriterState {
    /// A pipeline that is about to be opened. `hops` is not empty.
    pub(crate) fn new(
        request_id: u64,
        chunk: ChunkId,
        hops: Vec<NodeId>,
        silence: Duration,
        now: Instant,
    ) -> Self {
        let heard = vec![now; hops.len()];
        Self { request_id, chunk, hops, heard, moved: now, silence, sent: None, kept: false }
    }

    /// The same over a connection that was kept from an earlier request, or was not.
    pub(crate) fn over_kept(self, kept: bool) -> Self {
        Self { kept, ..self }
    }

    /// When silence becomes a failure.
    pub(crate) fn deadline(&self) -> Instant {
        let silent = self.moved + self.silence;
        match &self.sent {
            Some(sent) => silent.min(sent.at + self.silence * SYNC_SILENCES_MAX),
            None => silent,
        }
    }

    /// The first hop's socket took more bytes.
    pub(crate) fn on_sent(&mut self, now: Instant) {
        self.moved = now;
    }

    /// The last byte is out.
    pub(crate) fn on_all_sent(&mut self, length: u64, crc: Crc32c, now: Instant) {
        self.moved = now;
        self.sent = Some(Sent { length, crc, at: now });
    }

    /// A frame that came back. `Ok(true)` when the chunk is committed on every hop.
    pub(crate) fn on_answer(&mut self, header: &Header, body: &[u8], now: Instant) -> Result<bool, Failure> {
        // An error may also be the answer to the Hello, which is of no request and no chunk.
        let refused = header.op == Op::Error && [0, self.request_id].contains(&header.request_id);
        if !refused && (header.request_id != self.request_id || header.chunk != self.chunk) {
            return Err(self.violation(format!(
                "{:?} for request {} of chunk {}, asked was {} of {}",
                header.op, header.request_id, header.chunk, self.request_id, self.chunk
            )));
        }
        self.kept = false;
        match header.op {
            Op::WriteProgress => {
                let below = usize::try_from(header.offset).unwrap_or(usize::MAX);
                let Some(hop) = self.hops.len().checked_sub(1).and_then(|last| last.checked_sub(below))
                else {
                    return Err(self.violation(format!("progress of a hop with {below} below it")));
                };
                self.heard[hop] = now;
                self.moved = now;
                Ok(false)
            }
            Op::WriteAck => {
                let ack = WriteAck::decode(body).map_err(|error| self.violation(error.to_string()))?;
                self.on_ack(&ack).map(|()| true)
            }
            Op::Error => {
                let error = ErrorBody::decode(body).map_err(|error| self.violation(error.to_string()))?;
                Err(self.on_error(&error))
            }
            op => Err(self.violation(format!("{op:?} in answer to a write"))),
        }
    }

    fn on_ack(&self, ack: &WriteAck) -> Result<(), Failure> {
        let Some(sent) = &self.sent else {
            return Err(self.violation("an acknowledgement before the last byte"));
        };
        if ack.length != sent.length {
            return Err(self.violation(format!("{} bytes acknowledged of {}", ack.length, sent.length)));
        }
        if ack.nodes != self.hops {
            let nodes: Vec<String> = ack.nodes.iter().map(ToString::to_string).collect();
            return Err(
                self.violation(format!("acknowledged by [{}], not by the whole pipeline", nodes.join(" ")))
            );
        }
        if ack.crc != sent.crc {
            let text = format!("acknowledged with checksum {}, sent was {}", ack.crc, sent.crc);
            return Err(Failure { code: ErrorCode::Corrupt, text, blame: Some(self.hops[0]), kept: false });
        }
        Ok(())
    }

    fn on_error(&self, error: &ErrorBody) -> Failure {
        let blame = match error.code {
            // The plan is at fault or the moment is, no node.
            ErrorCode::StaleEpoch
            | ErrorCode::StaleGeneration
            | ErrorCode::LeaseExpired
            | ErrorCode::AlreadyExists
            | ErrorCode::Busy => None,
            _ if self.hops.contains(&error.node) => Some(error.node),
            // Named is nobody we know: the one who says it answers for it.
            _ => Some(self.hops[0]),
        };
        let text = format!("node {}: {}", error.node, error.text);
        Failure { code: error.code, text, blame, kept: false }
    }

    /// The connection broke, or could not be made. A kept one that breaks before anything came says nothing of the node:
    /// that may have been started again meanwhile.
    pub(crate) fn on_lost(&self, why: &str) -> Failure {
        let first = self.hops[0];
        let blame = (!self.kept).then_some(first);
        Failure { code: ErrorCode::HopFailed, text: format!("node {first}: {why}"), blame, kept: self.kept }
    }

    /// The first hop sent what is no sound frame, or not one that belongs here.
    pub(crate) fn violation(&self, what: impl Into<String>) -> Failure {
        let (first, what) = (self.hops[0], what.into());
        let text = format!("node {first}: {what}");
        Failure { code: ErrorCode::Protocol, text, blame: Some(first), kept: false }
    }

    /// Whether it is too late now. Total silence is the fault of the hop we speak to, since it should have said who
    /// keeps it waiting; a pipeline that only ever says "soon" is the fault of the hop that said it longest ago.
    pub(crate) fn on_time(&self, now: Instant) -> Option<Failure> {
        if now < self.deadline() {
            return None;
        }
        let silent = now >= self.moved + self.silence;
        let slowest = (0..self.hops.len()).rev().min_by_key(|&hop| self.heard[hop]).unwrap_or(0);
        let hop = self.hops[if silent { 0 } else { slowest }];
        let text = match &self.sent {
            Some(sent) if !silent => {
                format!("node {hop}: no acknowledgement {} s after the last byte", (now - sent.at).as_secs())
            }
            _ => format!("node {hop}: silent for {} ms", (now - self.moved).as_millis()),
        };
        Some(Failure { code: ErrorCode::HopFailed, text, blame: Some(hop), kept: false })
    }
}

/// The pipelines that one chunk was tried on.
#[derive(Debug)]
pub(crate) struct Attempts {
    made: u32,
    retries: u32,
    busy_max: Duration,
    busy_since: Option<Instant>,
    /// A kept connection broke: from now on new ones are taken.
    anew: bool,
}

/// What to do after a pipeline failed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Ask for another plan; with a pause first when the same nodes may do it a little later.
    Replan { pause: bool },
    /// Enough was tried.
    GiveUp { tries: u32 },
}

impl Attempts {
    /// At most `retries` plans after the first. Nodes that are busy are no failure of a plan: they are waited for,
    /// `busy_max` at a stretch. Nor is the first kept connection that breaks.
    pub(crate) fn new(retries: u32, busy_max: Duration) -> Self {
        Self { made: 0, retries, busy_max, busy_since: None, anew: false }
    }

    /// Whether connections that are kept are to be left alone.
    pub(crate) fn anew(&self) -> bool {
        self.anew
    }

    /// A pipeline failed.
    pub(crate) fn on_failure(&mut self, failure: &Failure, now: Instant) -> Next {
        if failure.code == ErrorCode::Busy && self.retries > 0 {
            let since = *self.busy_since.get_or_insert(now);
            if now.saturating_duration_since(since) < self.busy_max {
                return Next::Replan { pause: true };
            }
        } else {
            self.busy_since = None;
        }
        if failure.kept && !std::mem::replace(&mut self.anew, true) && self.retries > 0 {
            return Next::Replan { pause: false };
        }
        self.made += 1;
        if self.made > self.retries {
            return Next::GiveUp { tries: self.made };
        }
        Next::Replan { pause: failure.blame.is_none() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CHUNK: ChunkId = ChunkId(9);
    const SILENCE: Duration = Duration::from_secs(12);

    fn state(now: Instant) -> WriterState {
        WriterState::new(5, CHUNK, vec![NodeId(1), NodeId(2), NodeId(3)], SILENCE, now)
    }

    fn header(op: Op) -> Header {
        Header { chunk: CHUNK, ..Header::new(op, 5) }
    }

    fn ack(length: u64, crc: u32, nodes: &[u64]) -> Vec<u8> {
        let nodes = nodes.iter().map(|&n| NodeId(n)).collect();
        WriteAck { length, crc: Crc32c(crc), nodes }.encode()
    }

    #[test]
    fn only_an_acknowledgement_of_all_bytes_by_all_hops_commits() {
        use ErrorCode::{Corrupt, Protocol};
        let cases: [(&str, Vec<u8>, Result<bool, ErrorCode>); 7] = [
            ("sound", ack(10, 7, &[1, 2, 3]), Ok(true)),
            ("short", ack(9, 7, &[1, 2, 3]), Err(Protocol)),
            ("damaged", ack(10, 8, &[1, 2, 3]), Err(Corrupt)),
            ("a hop is missing", ack(10, 7, &[1, 2]), Err(Protocol)),
            ("another order", ack(10, 7, &[1, 3, 2]), Err(Protocol)),
            ("one twice", ack(10, 7, &[1, 2, 2]), Err(Protocol)),
            ("garbage", vec![1, 2, 3], Err(Protocol)),
        ];
        let now = Instant::now();
        for (name, body, expected) in cases {
            let mut state = state(now);
            state.on_all_sent(10, Crc32c(7), now);
            let got = state.on_answer(&header(Op::WriteAck), &body, now).map_err(|failure| failure.code);
            assert_eq!(got, expected, "{name}");
        }
        let early = state(now).on_answer(&header(Op::WriteAck), &ack(0, 0, &[1, 2, 3]), now);
        assert_eq!(early.map_err(|failure| failure.code), Err(Protocol), "before the last byte");
    }

    #[test]
    fn errors_blame_the_hop_they_name_if_it_is_one_of_ours() {
        let cases = [
            (ErrorCode::HopFailed, 2, Some(2)),
            (ErrorCode::Disk, 3, Some(3)),
            (ErrorCode::NoSpace, 1, Some(1)),
            (ErrorCode::Internal, 77, Some(1)),
            (ErrorCode::HopFailed, 0, Some(1)),
            (ErrorCode::Busy, 2, None),
            (ErrorCode::StaleEpoch, 2, None),
        ];
        let now = Instant::now();
        for (code, node, blame) in cases {
            let body = ErrorBody { code, node: NodeId(node), text: "x".into() }.encode();
            let failure = state(now).on_answer(&header(Op::Error), &body, now).expect_err("an error");
            assert_eq!((failure.code, failure.blame), (code, blame.map(NodeId)), "{code:?} of {node}");
        }
    }

    #[test]
    fn frames_that_do_not_belong_here_are_violations_of_the_first_hop() {
        let now = Instant::now();
        let frames = [
            Header { request_id: 6, ..header(Op::WriteProgress) },
            Header { chunk: ChunkId(8), ..header(Op::WriteProgress) },
            Header { offset: 3, ..header(Op::WriteProgress) },
            Header { offset: u64::MAX, ..header(Op::WriteProgress) },
            header(Op::ReadData),
            header(Op::Hello),
        ];
        for frame in frames {
            let failure = state(now).on_answer(&frame, &[], now).expect_err("a violation");
            assert_eq!((failure.code, failure.blame), (ErrorCode::Protocol, Some(NodeId(1))), "{frame:?}");
        }
    }

    #[test]
    fn a_lost_connection_is_the_fault_of_the_first_hop_unless_it_was_kept_and_is_unanswered() {
        let now = Instant::now();
        for (kept, answered, blame) in
            [(false, false, Some(1)), (false, true, Some(1)), (true, false, None), (true, true, Some(1))]
        {
            let mut state = state(now).over_kept(kept);
            if answered {
                state.on_answer(&header(Op::WriteProgress), &[], now).expect("progress");
            }
            let failure = state.on_lost("gone");
            let expected = (ErrorCode::HopFailed, blame.map(NodeId));
            assert_eq!((failure.code, failure.blame), expected, "kept: {kept}, answered: {answered}");
        }
    }

    #[test]
    fn silence_blames_the_first_hop_and_progress_puts_it_off() {
        let start = Instant::now();
        let mut state = state(start);
        assert_eq!(state.on_time(start + SILENCE - Duration::from_millis(1)), None);
        let at = start + Duration::from_secs(10);
        state.on_answer(&Header { offset: 1, ..header(Op::WriteProgress) }, &[], at).expect("progress");
        assert_eq!(state.on_time(start + SILENCE), None);
        let failure = state.on_time(at + SILENCE).expect("silence");
        assert_eq!((failure.code, failure.blame), (ErrorCode::HopFailed, Some(NodeId(1))));
    }

    #[test]
    fn a_pipeline_that_only_says_soon_is_the_fault_of_the_hop_that_said_it_longest_ago() {
        let start = Instant::now();
        let mut state = state(start);
        state.on_all_sent(10, Crc32c(7), start);
        let mut now = start;
        while now < start + SILENCE * SYNC_SILENCES_MAX {
            assert_eq!(state.on_time(now), None);
            now += Duration::from_secs(4);
            for below in [2, 0] {
                let progress = Header { offset: below, ..header(Op::WriteProgress) };
                state.on_answer(&progress, &[], now).expect("progress");
            }
        }
        assert_eq!(state.on_time(now).and_then(|failure| failure.blame), Some(NodeId(2)));
    }

    #[test]
    fn a_chunk_is_replanned_so_often_and_no_more() {
        let failure = |blame| Failure { code: ErrorCode::Disk, text: String::new(), blame, kept: false };
        let now = Instant::now();
        let mut attempts = Attempts::new(2, SILENCE);
        assert_eq!(attempts.on_failure(&failure(Some(NodeId(1))), now), Next::Replan { pause: false });
        assert_eq!(attempts.on_failure(&failure(None), now), Next::Replan { pause: true });
        assert_eq!(attempts.on_failure(&failure(None), now), Next::GiveUp { tries: 3 });
        assert_eq!(Attempts::new(0, SILENCE).on_failure(&failure(None), now), Next::GiveUp { tries: 1 });
    }

    #[test]
    fn the_first_kept_connection_that_breaks_costs_no_retry_and_no_other_is_taken() {
        let lost = Failure { code: ErrorCode::HopFailed, text: String::new(), blame: None, kept: true };
        let (now, mut attempts) = (Instant::now(), Attempts::new(1, SILENCE));
        assert!(!attempts.anew());
        assert_eq!(attempts.on_failure(&lost, now), Next::Replan { pause: false });
        assert!(attempts.anew());
        assert_eq!(attempts.on_failure(&lost, now), Next::Replan { pause: true });
        assert_eq!(attempts.on_failure(&lost, now), Next::GiveUp { tries: 2 });
        assert_eq!(Attempts::new(0, SILENCE).on_failure(&lost, now), Next::GiveUp { tries: 1 });
    }

    #[test]
    fn busy_nodes_are_waited_for_but_not_for_ever() {
        let busy = Failure { code: ErrorCode::Busy, text: String::new(), blame: None, kept: false };
        let (start, mut attempts) = (Instant::now(), Attempts::new(1, SILENCE));
        for second in 0..SILENCE.as_secs() {
            let now = start + Duration::from_secs(second);
            assert_eq!(attempts.on_failure(&busy, now), Next::Replan { pause: true }, "{second}");
        }
        let mut rounds = 0;
        while attempts.on_failure(&busy, start + SILENCE) != (Next::GiveUp { tries: 2 }) {
            rounds += 1;
            assert!(rounds < 3, "waits for ever");
        }
        assert_eq!(Attempts::new(0, SILENCE).on_failure(&busy, start), Next::GiveUp { tries: 1 });
    }

    proptest! {
        #[test]
        fn no_answer_whatsoever_commits_unsent_bytes_or_panics(
            op in 0usize..4,
            ids in prop::array::uniform4(prop::sample::select(vec![0u64, 1, 2, 5, 9, u64::MAX])),
            sent: bool,
            body in proptest::collection::vec(any::<u8>(), 0..80),
        ) {
            let now = Instant::now();
            let mut state = state(now);
            if sent {
                state.on_all_sent(10, Crc32c(7), now);
            }
            let op = [Op::WriteAck, Op::WriteProgress, Op::Error, Op::ReadData][op];
            let header = Header {
                chunk: ChunkId(ids[1]),
                offset: ids[2],
                length: body.len() as u32,
                ..Header::new(op, ids[0])
            };
            prop_assert_ne!(state.on_answer(&header, &body, now), Ok(true));
        }
    }
}
