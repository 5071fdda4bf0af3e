//! The decisions of reading a range of one chunk: which replica next, whether a frame is what was asked for, and
//! when to give up. No I/O, no clock, no chance.
//!
//! Bytes are asked for and checked in whole blocks. What one replica delivered soundly is not asked of the next,
//! unless the checksum of the whole chunk turns out wrong in the end. A replica that is damaged at one place is asked
//! again once another one has helped over that place: replicas that are damaged at different places still make a
//! whole.

use std::collections::VecDeque;
use std::ops::Range;

use distrifs_proto::ErrorCode;
use distrifs_proto::frame::{ErrorBody, Header, Op};
use distrifs_proto::limits::BLOCK_BYTES;
use distrifs_proto::types::{Crc32c, NodeId};

use crate::status::{ChunkLocation, Node};

const BLOCK: u64 = BLOCK_BYTES as u64;

/// Why a replica did not deliver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) code: ErrorCode,
    pub(crate) text: String,
}

impl Fault {
    pub(crate) fn new(code: ErrorCode, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }

    /// Whether the master should hear of it; a busy node or an old plan is no fault of the replica.
    pub(crate) fn is_of_replica(&self) -> bool {
        !matches!(self.code, ErrorCode::Busy | ErrorCode::StaleEpoch)
    }
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Choice {
    /// Ask this replica.
    Read(Node),
    /// None left that may deliver now: ask the master again, a little later.
    Replan,
    /// All that there are hold damaged bytes.
    Corrupt,
}

/// How the last frame left the chunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End {
    /// All bytes are sound.
    Sound,
    /// The chunk's checksum is wrong, and it is unclear whose part is to blame: again, from the start, from this
    /// replica alone.
    Again,
    /// The chunk's checksum is wrong.
    Fault(Fault),
}

/// A frame's place in what was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Part {
    /// Bytes of the frame.
    pub(crate) length: u64,
    /// Which of them are wanted.
    pub(crate) cut: Range<usize>,
    /// Where those belong, counted from the first wanted byte.
    pub(crate) at: u64,
    /// Whether it is the last one.
    pub(crate) last: bool,
}

/// A range of one chunk on its way in.
#[derive(Debug)]
pub(crate) struct ReaderState {
    chunk: ChunkLocation,
    wanted: Range<u64>,
    /// The blocks that hold it.
    cover: Range<u64>,
    /// Up to where frames of the current answer have come.
    received: u64,
    /// Up to where bytes are sound.
    verified: u64,
    /// Of the bytes from the start of the cover to `verified`.
    crc: Crc32c,
    /// Who delivered the first sound byte.
    begun_by: Option<NodeId>,
    request_id: u64,
    left: VecDeque<Node>,
    /// Replicas that are damaged: from where on they did not deliver; `None`: nowhere do they.
    corrupt: Vec<(NodeId, Option<u64>)>,
    /// How often the whole was begun anew.
    begun_anew: usize,
    /// The last fault of each replica that had one.
    faults: Vec<(NodeId, Fault)>,
}

impl ReaderState {
    /// For `wanted` bytes of a chunk, which are at least one and end within it.
    pub(crate) fn new(chunk: ChunkLocation, wanted: Range<u64>) -> Self {
        assert!(wanted.start < wanted.end && wanted.end <= chunk.length, "{wanted:?} of {}", chunk.length);
        let start = wanted.start / BLOCK * BLOCK;
        let cover = start..(wanted.end.div_ceil(BLOCK) * BLOCK).min(chunk.length);
        Self {
            left: chunk.replicas.iter().cloned().collect(),
            chunk,
            wanted,
            received: cover.start,
            verified: cover.start,
            cover,
            crc: Crc32c::default(),
            begun_by: None,
            request_id: 0,
            corrupt: Vec::new(),
            begun_anew: 0,
            faults: Vec::new(),
        }
    }

    /// Which replica to ask next; each is asked once per plan, and again when another has helped it over its damage.
    pub(crate) fn choose(&mut self) -> Choice {
        while let Some(node) = self.left.pop_front() {
            if !self.is_damaged_here(node.id) {
                return Choice::Read(node);
            }
        }
        let helped = |node: &&Node| self.is_damaged(node.id) && !self.is_damaged_here(node.id);
        if let Some(node) = self.chunk.replicas.iter().find(helped) {
            return Choice::Read(node.clone());
        }
        let all_corrupt = self.chunk.replicas.iter().all(|node| self.is_damaged_here(node.id));
        // While some are away, nobody knows that none is good.
        if all_corrupt && !self.corrupt.is_empty() && self.chunk.away == 0 {
            Choice::Corrupt
        } else {
            Choice::Replan
        }
    }

    fn is_damaged(&self, node: NodeId) -> bool {
        self.corrupt.iter().any(|(other, _)| *other == node)
    }

    /// Whether a replica has nothing to give for the next byte.
    fn is_damaged_here(&self, node: NodeId) -> bool {
        self.corrupt.iter().any(|(other, at)| *other == node && at.is_none_or(|at| at == self.verified))
    }

    /// The master's newer word on who has the chunk.
    pub(crate) fn on_plan(&mut self, replicas: Vec<Node>, away: u32) {
        self.left = replicas.iter().cloned().collect();
        (self.chunk.replicas, self.chunk.away) = (replicas, away);
    }

    /// Whether another replica is left when the one that was chosen does not deliver.
    pub(crate) fn has_alternative(&self) -> bool {
        self.left.iter().any(|node| !self.is_damaged_here(node.id))
    }

    /// Another replica to be asked beside the one that was chosen; it is to be given back if it was not needed.
    pub(crate) fn take_alternative(&mut self) -> Option<Node> {
        let at = self.left.iter().position(|node| !self.is_damaged_here(node.id))?;
        self.left.remove(at)
    }

    /// A replica was asked and not needed: it is none the worse for it.
    pub(crate) fn give_back(&mut self, node: Node) {
        self.left.push_back(node);
    }

    /// What to ask of the replica that was chosen: offset and length.
    pub(crate) fn ask(&mut self, request_id: u64) -> (u64, u32) {
        self.request_id = request_id;
        self.received = self.verified;
        let length = self.cover.end - self.verified;
        (self.verified, u32::try_from(length).expect("a chunk is at most CHUNK_BYTES_MAX long"))
    }

    /// A frame's header: the place of its bytes, or why it does not belong here.
    pub(crate) fn on_header(&mut self, header: &Header) -> Result<Part, Fault> {
        let violation = |text: String| Err(Fault::new(ErrorCode::Protocol, text));
        if header.op != Op::ReadData {
            return violation(format!("{:?} in answer to a read", header.op));
        }
        if header.request_id != self.request_id || header.chunk != self.chunk.id {
            let (request, chunk) = (header.request_id, header.chunk);
            return violation(format!("data of request {request}, chunk {chunk}, which was not asked for"));
        }
        if header.generation != self.chunk.generation {
            let text = format!("generation {}, wanted is {}", header.generation, self.chunk.generation);
            return Err(Fault::new(ErrorCode::StaleGeneration, text));
        }
        let length = u64::from(header.length);
        if header.offset != self.received || length == 0 || length > self.cover.end - self.received {
            return violation(format!(
                "{length} bytes at {}, expected some of {}..{}",
                header.offset, self.received, self.cover.end
            ));
        }
        let from = self.received;
        let to = from + length;
        let last = to == self.cover.end;
        if header.is_last() != last {
            return violation(format!("the stream ends at {to} or not, expected {}", self.cover.end));
        }
        if !last && !length.is_multiple_of(BLOCK) {
            return violation(format!("{length} bytes are no whole blocks"));
        }
        self.received = to;
        let wanted = self.wanted.start.max(from)..self.wanted.end.min(to);
        Ok(Part {
            length,
            cut: (wanted.start - from) as usize..(wanted.end - from) as usize,
            at: wanted.start - self.wanted.start,
            last,
        })
    }

    /// The replica answered with an error frame.
    pub(crate) fn on_refusal(&self, header: &Header, body: &[u8]) -> Fault {
        // 0 is that of the Hello.
        if ![0, self.request_id].contains(&header.request_id) {
            let text = format!("an error of request {}, which was not asked", header.request_id);
            return Fault::new(ErrorCode::Protocol, text);
        }
        match ErrorBody::decode(body) {
            Ok(error) => Fault::new(error.code, error.text),
            Err(error) => Fault::new(ErrorCode::Protocol, error.to_string()),
        }
    }

    /// The checksum of all the bytes that were taken, once the range is whole.
    pub(crate) fn crc(&self) -> Crc32c {
        self.crc
    }

    /// The bytes of a frame are what their checksums say; `crc` is that of all of them. In the order of the frames.
    pub(crate) fn on_verified(&mut self, node: NodeId, length: u64, crc: Crc32c) {
        self.begun_by.get_or_insert(node);
        self.crc = self.crc.concat(crc, length);
        self.verified += length;
        assert!(self.verified <= self.received, "verified bytes were received before");
    }

    /// All frames of `node` are verified: is the chunk what the master says it is?
    pub(crate) fn on_end(&mut self, node: NodeId) -> End {
        assert_eq!(self.verified, self.cover.end, "the last frame ends the cover");
        let whole = self.cover == (0..self.chunk.length);
        if !whole || self.crc == self.chunk.crc32c {
            return End::Sound;
        }
        let text = format!("the chunk has checksum {}, the file says {}", self.crc, self.chunk.crc32c);
        let alone = self.begun_by == Some(node);
        self.verified = self.cover.start;
        self.crc = Crc32c::default();
        self.begun_by = None;
        self.begun_anew += 1;
        // Alone it is to blame; and if it never is alone for its damage, this has to end, too.
        if alone || self.begun_anew > 2 * self.chunk.replicas.len() {
            self.corrupt.retain(|(other, _)| *other != node);
            self.corrupt.push((node, None));
            return End::Fault(Fault::new(ErrorCode::Corrupt, text));
        }
        End::Again
    }

    /// The replica that was asked did not deliver.
    pub(crate) fn on_fault(&mut self, node: NodeId, fault: Fault) {
        if fault.code == ErrorCode::Corrupt && !self.corrupt.contains(&(node, None)) {
            self.corrupt.retain(|(other, _)| *other != node);
            self.corrupt.push((node, Some(self.verified)));
        }
        self.faults.retain(|(other, _)| *other != node);
        self.faults.push((node, fault));
    }

    /// Wanted bytes that are sound.
    pub(crate) fn wanted_verified(&self) -> u64 {
        self.verified.clamp(self.wanted.start, self.wanted.end) - self.wanted.start
    }

    /// Whether nothing sound has come yet.
    pub(crate) fn is_at_start(&self) -> bool {
        self.verified == self.cover.start
    }

    /// What was tried, on one line.
    pub(crate) fn tried(&self) -> String {
        if self.faults.is_empty() {
            return "no live datanode has reported one".into();
        }
        let tried: Vec<String> =
            self.faults.iter().map(|(node, fault)| format!("{node}: {}", fault.text)).collect();
        tried.join("; ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use distrifs_proto::types::{ChunkId, GenerationStamp};
    use proptest::prelude::*;

    fn node(id: u64) -> Node {
        Node { id: NodeId(id), address: "127.0.0.1:9100".parse().unwrap() }
    }

    fn chunk(length: u64, replicas: &[u64]) -> ChunkLocation {
        ChunkLocation {
            index: 0,
            id: ChunkId(4),
            generation: GenerationStamp(2),
            length,
            crc32c: Crc32c::of(&vec![0; length as usize]),
            replicas: replicas.iter().map(|&id| node(id)).collect(),
            damaged: Vec::new(),
            away: 0,
        }
    }

    fn data(offset: u64, length: u32, last: bool) -> Header {
        Header {
            chunk: ChunkId(4),
            generation: GenerationStamp(2),
            flags: if last { Header::LAST } else { 0 },
            offset,
            length,
            ..Header::new(Op::ReadData, 1)
        }
    }

    /// All of it, of zeros, from `node`.
    fn deliver(state: &mut ReaderState, node: u64) {
        let (offset, length) = state.ask(1);
        let part = state.on_header(&data(offset, length, true)).expect("what was asked");
        state.on_verified(NodeId(node), part.length, Crc32c::of(&vec![0; part.length as usize]));
    }

    #[test]
    fn whole_blocks_are_asked_for_and_cut_to_what_is_wanted() {
        // Length of the chunk, wanted, asked (offset, length), cut, at.
        let cases = [
            (10_000, 0..10_000, (0, 10_000), 0..10_000),
            (10_000, 9_999..10_000, (8_192, 1_808), 1_807..1_808),
            (10_000, 1..2, (0, 4_096), 1..2),
            (10_000, 4_095..4_097, (0, 8_192), 4_095..4_097),
            (10_000, 4_096..8_192, (4_096, 4_096), 0..4_096),
            (1, 0..1, (0, 1), 0..1),
        ];
        for (length, wanted, asked, cut) in cases {
            let mut state = ReaderState::new(chunk(length, &[1]), wanted.clone());
            assert_eq!(state.ask(1), asked, "{wanted:?} of {length}");
            let part = state.on_header(&data(asked.0, asked.1, true)).expect("what was asked");
            assert_eq!((part.cut, part.at, part.last), (cut, 0, true), "{wanted:?} of {length}");
        }
    }

    #[test]
    fn a_frame_that_was_not_asked_for_is_a_violation() {
        let good = data(4_096, 4_096, false);
        let cases = [
            ("another offset", Header { offset: 0, ..good }),
            ("a hole", Header { offset: 8_192, ..good }),
            ("empty", Header { length: 0, ..good }),
            ("too long", data(4_096, 16_384, true)),
            ("half a block", Header { length: 100, ..good }),
            ("ends early", Header { flags: Header::LAST, ..good }),
            ("does not end", data(4_096, 12_288, false)),
            ("another request", Header { request_id: 2, ..good }),
            ("another chunk", Header { chunk: ChunkId(5), ..good }),
            ("another op", Header { op: Op::WriteAck, ..good }),
        ];
        for (name, header) in cases {
            let mut state = ReaderState::new(chunk(20_000, &[1]), 5_000..16_000);
            state.ask(1);
            let got = state.on_header(&header).map_err(|fault| fault.code);
            assert_eq!(got, Err(ErrorCode::Protocol), "{name}");
        }
        let mut state = ReaderState::new(chunk(20_000, &[1]), 5_000..16_000);
        state.ask(1);
        let stale = state.on_header(&Header { generation: GenerationStamp(1), ..good });
        assert_eq!(stale.map_err(|fault| fault.code), Err(ErrorCode::StaleGeneration));
        assert_eq!(state.on_header(&good).map(|part| (part.cut, part.at)), Ok((904..4_096, 0)));
        assert_eq!(
            state.on_header(&data(8_192, 8_192, true)).map(|part| (part.cut, part.at)),
            Ok((0..7_808, 3_192))
        );
    }

    #[test]
    fn the_next_replica_goes_on_where_the_last_one_stopped() {
        let mut state = ReaderState::new(chunk(20_000, &[1, 2]), 0..20_000);
        assert_eq!(state.choose(), Choice::Read(node(1)));
        assert!(state.has_alternative());
        state.ask(1);
        for offset in [0, 4_096] {
            state.on_header(&data(offset, 4_096, false)).expect("what was asked");
        }
        state.on_verified(NodeId(1), 4_096, Crc32c::of(&[0; 4_096]));
        state.on_fault(NodeId(1), Fault::new(ErrorCode::Corrupt, "block 1"));
        assert_eq!(state.choose(), Choice::Read(node(2)));
        assert!(!state.has_alternative());
        assert_eq!(state.ask(1), (4_096, 15_904));
        assert_eq!(state.wanted_verified(), 4_096);
        deliver(&mut state, 2);
        assert_eq!(state.on_end(NodeId(2)), End::Sound);
    }

    #[test]
    fn corrupt_is_said_only_when_all_replicas_are() {
        use ErrorCode::{Corrupt, NoSuchChunk, Unavailable};
        let cases: [(&[ErrorCode], Choice); 4] = [
            (&[Corrupt, Corrupt], Choice::Corrupt),
            (&[Corrupt, Unavailable], Choice::Replan),
            (&[NoSuchChunk, NoSuchChunk], Choice::Replan),
            (&[], Choice::Replan),
        ];
        for (codes, expected) in cases {
            let ids: Vec<u64> = (1..).take(codes.len()).collect();
            let mut state = ReaderState::new(chunk(100, &ids), 0..100);
            for &code in codes {
                let Choice::Read(node) = state.choose() else { panic!("a replica was left") };
                state.on_fault(node.id, Fault::new(code, "x"));
            }
            assert_eq!(state.choose(), expected, "{codes:?}");
        }
    }

    #[test]
    fn a_new_plan_leaves_out_those_known_to_be_corrupt() {
        let mut state = ReaderState::new(chunk(100, &[1]), 0..100);
        state.choose();
        state.on_fault(NodeId(1), Fault::new(ErrorCode::Corrupt, "x"));
        state.on_plan(vec![node(1), node(3)], 0);
        assert_eq!(state.choose(), Choice::Read(node(3)));
        state.on_fault(NodeId(3), Fault::new(ErrorCode::Unavailable, "x"));
        assert_eq!(state.choose(), Choice::Replan);
        state.on_plan(Vec::new(), 1);
        assert_eq!(state.choose(), Choice::Replan, "one that is away may be good");
        state.on_plan(Vec::new(), 0);
        assert_eq!(state.choose(), Choice::Corrupt, "the only one ever found is damaged");
    }

    #[test]
    fn replicas_damaged_at_different_places_make_a_whole() {
        // Each delivers up to its damage, block by block.
        let damage = [(1, vec![1, 6]), (2, vec![2, 3]), (3, vec![4])];
        let whole = |state: &mut ReaderState, damage: &[(u64, Vec<u64>)]| {
            let mut turns = 0;
            loop {
                turns += 1;
                assert!(turns < 20, "it does not end");
                let Choice::Read(chosen) = state.choose() else { return state.choose() };
                let bad = &damage.iter().find(|(id, _)| NodeId(*id) == chosen.id).expect("known").1;
                state.ask(1);
                for block in state.verified / 4_096..8 {
                    if bad.contains(&block) {
                        state.on_fault(chosen.id, Fault::new(ErrorCode::Corrupt, "a block"));
                        break;
                    }
                    state.on_header(&data(block * 4_096, 4_096, block == 7)).expect("what was asked");
                    state.on_verified(chosen.id, 4_096, Crc32c::of(&[0; 4_096]));
                    if block == 7 {
                        assert_eq!(state.on_end(chosen.id), End::Sound);
                        return Choice::Read(chosen);
                    }
                }
            }
        };
        let mut state = ReaderState::new(chunk(32_768, &[1, 2, 3]), 0..32_768);
        assert!(matches!(whole(&mut state, &damage), Choice::Read(_)));
        let all = [(1, vec![1, 5]), (2, vec![2, 5]), (3, vec![5])];
        let mut state = ReaderState::new(chunk(32_768, &[1, 2, 3]), 0..32_768);
        assert_eq!(whole(&mut state, &all), Choice::Corrupt);
        assert_eq!(state.wanted_verified(), 5 * 4_096, "what is before the damage of all is sound");
    }

    #[test]
    fn replicas_whose_checksums_lie_are_given_up_in_the_end() {
        let wrong = ChunkLocation { crc32c: Crc32c(1), ..chunk(8_192, &[1, 2]) };
        let mut state = ReaderState::new(wrong, 0..8_192);
        let mut turns = 0;
        while let Choice::Read(chosen) = state.choose() {
            turns += 1;
            assert!(turns < 50, "it does not end");
            // Node 1 is damaged in its second block, node 2 in its first; together they are wrong.
            loop {
                state.ask(1);
                let at = state.verified;
                if (chosen.id, at) == (NodeId(1), 4_096) || (chosen.id, at) == (NodeId(2), 0) {
                    state.on_fault(chosen.id, Fault::new(ErrorCode::Corrupt, "a block"));
                    break;
                }
                state.on_header(&data(at, 4_096, at == 4_096)).expect("what was asked");
                state.on_verified(chosen.id, 4_096, Crc32c::of(&[0; 4_096]));
                if at == 4_096 {
                    match state.on_end(chosen.id) {
                        End::Again => {}
                        End::Fault(fault) => {
                            state.on_fault(chosen.id, fault);
                            break;
                        }
                        End::Sound => panic!("it is not"),
                    }
                }
            }
        }
    }

    #[test]
    fn a_wrong_chunk_checksum_is_the_fault_of_who_delivered_all_of_it() {
        let wrong = ChunkLocation { crc32c: Crc32c(1), ..chunk(8_192, &[1, 2]) };
        let mut state = ReaderState::new(wrong, 0..8_192);
        state.ask(1);
        state.on_header(&data(0, 4_096, false)).expect("what was asked");
        state.on_verified(NodeId(1), 4_096, Crc32c(0));
        state.on_fault(NodeId(1), Fault::new(ErrorCode::Unavailable, "gone"));
        deliver(&mut state, 2);
        assert_eq!(state.on_end(NodeId(2)), End::Again, "half of it came from node 1");
        assert!(state.is_at_start());
        deliver(&mut state, 2);
        assert!(matches!(state.on_end(NodeId(2)), End::Fault(fault) if fault.code == ErrorCode::Corrupt));
        assert!(state.is_at_start());
    }

    proptest! {
        #[test]
        fn whatever_frames_come_only_what_was_asked_for_is_taken(
            frames in proptest::collection::vec((0u64..6, 0u32..6, any::<bool>(), 0u32..3), 1..20),
        ) {
            let mut state = ReaderState::new(chunk(16_484, &[1]), 5_000..16_000);
            state.ask(1);
            let mut next = 0;
            for (offset, blocks, last, odd) in frames {
                let header = data(offset * 4_096, blocks * 4_096 + odd * 50, last);
                let Ok(part) = state.on_header(&header) else { continue };
                prop_assert_eq!(part.at, next, "no hole and no overlap");
                prop_assert!(part.cut.end as u64 <= part.length);
                next += part.cut.len() as u64;
                state.on_verified(NodeId(1), part.length, Crc32c(0));
                prop_assert_eq!(state.wanted_verified(), next);
                prop_assert_eq!(part.last, next == 11_000);
            }
        }
    }
}
