//! The reads that are under way on one link, and the answers to them. No I/O, no clock.
//!
//! Answers may come in any order; each is one frame. A read whose answer is not what was asked for, or is not sound, is
//! missed, and the others go on; what fits no read at all ends the link.

use std::ops::Range;

use distrifs_proto::frame::{HEADER_BYTES, Header, Op, PAYLOAD_START, Placement, verify};
use distrifs_proto::limits::{BLOCK_BYTES, FRAME_CONTROL_BYTES_MAX};
use slab::Slab;

/// Bytes that a read over a link may want.
pub(crate) const LINK_READ_BYTES_MAX: usize = 64 << 10;
/// Whole blocks around as many.
const PAYLOAD_BYTES_MAX: usize = LINK_READ_BYTES_MAX + BLOCK_BYTES;
/// A frame of a link.
pub(crate) const LINK_FRAME_BYTES_MAX: usize = PAYLOAD_START + PAYLOAD_BYTES_MAX;

const _: () = assert!(FRAME_CONTROL_BYTES_MAX <= PAYLOAD_BYTES_MAX);

/// What is asked, and what of the answer is wanted.
#[derive(Debug, Clone)]
pub(crate) struct LinkRead {
    /// The request, but for its number; it asks for whole blocks.
    pub(crate) header: Header,
    /// The wanted bytes of the answer.
    pub(crate) cut: Range<usize>,
}

/// Why a read was not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Missed {
    /// Refused, damaged, or the link has ended.
    Fault,
    /// The link has ended while nobody read over it.
    Ended,
    /// The node said nothing for too long.
    Silent,
}

/// What follows from the bytes that have arrived.
#[derive(Debug)]
pub(crate) enum Arrived<T> {
    /// The answer to a read: as many bytes as its frame has.
    Answer(T, LinkAnswer),
    /// More bytes are needed.
    Part,
    /// No answer to any read: the link ends.
    Violation,
}

/// An answer that is whole, and not checked yet.
#[derive(Debug)]
pub(crate) struct LinkAnswer {
    read: LinkRead,
    header: Header,
    place: Placement,
}

/// Low bits of a request's number that say where its read is kept; those above say how many requests went before it.
const PLACE_BITS: u32 = 16;
/// Reads that may be under way on a link.
pub(crate) const LINK_READS_MAX: usize = 1 << PLACE_BITS;

/// The reads under way, each with what belongs to it.
#[derive(Debug)]
pub(crate) struct LinkState<T> {
    /// Requests so far.
    requests: u64,
    under_way: Slab<UnderWay<T>>,
}

#[derive(Debug)]
struct UnderWay<T> {
    request: u64,
    read: LinkRead,
    owner: T,
}

impl<T> Default for LinkState<T> {
    fn default() -> Self {
        Self { requests: 0, under_way: Slab::new() }
    }
}

fn place_of(request: u64) -> usize {
    request as usize % LINK_READS_MAX
}

impl<T> LinkState<T> {
    /// A read begins, as one of at most [`LINK_READS_MAX`]: the bytes of its request.
    pub(crate) fn begin(&mut self, read: LinkRead, owner: T) -> [u8; HEADER_BYTES] {
        self.requests += 1;
        let place = self.under_way.vacant_entry();
        let request = self.requests << PLACE_BITS | place.key() as u64;
        debug_assert_eq!(place_of(request), place.key());
        let header = Header { request_id: request, ..read.header };
        place.insert(UnderWay { request, read, owner });
        header.encode()
    }

    /// Whether none is under way.
    pub(crate) fn is_idle(&self) -> bool {
        self.under_way.is_empty()
    }

    /// All that were under way; they will not be answered.
    pub(crate) fn end(&mut self) -> impl Iterator<Item = T> + use<T> {
        std::mem::take(&mut self.under_way).into_iter().map(|(_, read)| read.owner)
    }

    /// Takes the first frame of these bytes.
    pub(crate) fn arrived(&mut self, bytes: &[u8]) -> Arrived<T> {
        let Some(head) = bytes.first_chunk() else { return Arrived::Part };
        let Ok(header) = Header::decode(head) else { return Arrived::Violation };
        let payload = header.payload_bytes();
        let asked = self.under_way.get(place_of(header.request_id));
        if payload > PAYLOAD_BYTES_MAX || asked.is_none_or(|read| read.request != header.request_id) {
            return Arrived::Violation;
        }
        let place = Placement::at(0, payload);
        if bytes.len() < place.payload.end {
            return Arrived::Part;
        }
        // A stream of several frames, or a request: what follows cannot be told apart.
        if header.op != Op::Error && (header.op != Op::ReadData || !header.is_last()) {
            return Arrived::Violation;
        }
        let UnderWay { read, owner, .. } = self.under_way.remove(place_of(header.request_id));
        Arrived::Answer(owner, LinkAnswer { read, header, place })
    }
}

impl LinkAnswer {
    /// The bytes of its frame.
    pub(crate) fn length(&self) -> usize {
        self.place.payload.end
    }

    /// The wanted bytes, if the answer is what was asked for and sound.
    pub(crate) fn check(&self, frame: &[u8]) -> Result<Vec<u8>, Missed> {
        let Self { read: LinkRead { header: asked, cut }, header, place } = self;
        let fits = header.op == Op::ReadData
            && header.chunk == asked.chunk
            && header.generation == asked.generation
            && header.offset == asked.offset
            && header.length == asked.length;
        if !fits || verify(frame, place).is_err() {
            return Err(Missed::Fault);
        }
        Ok(frame[place.payload.clone()][cut.clone()].to_vec())
    }
}

#[cfg(test)]
mod tests {
    use distrifs_proto::ErrorCode;
    use distrifs_proto::frame::{ErrorBody, control_frame, seal_at};
    use distrifs_proto::types::{ChunkId, GenerationStamp, NodeId, block_crcs};

    use super::*;

    fn read(offset: u64) -> LinkRead {
        let header = Header {
            chunk: ChunkId(7),
            generation: GenerationStamp(2),
            offset,
            length: 4096,
            ..Header::new(Op::Read, 0)
        };
        LinkRead { header, cut: 10..20 }
    }

    /// The number of the request that was the `nth` of those begun by [`begun`].
    fn request(nth: u64) -> u64 {
        nth << PLACE_BITS | (nth - 1)
    }

    fn answer(nth: u64, read: &LinkRead) -> Vec<u8> {
        let header =
            Header { request_id: request(nth), flags: Header::LAST, ..read.header.answer(Op::ReadData) };
        sealed(Header { offset: read.header.offset, length: read.header.length, ..header })
    }

    fn sealed(header: Header) -> Vec<u8> {
        let place = Placement::at(0, header.payload_bytes());
        let mut frame = vec![(header.offset / 4096) as u8; place.payload.end];
        let crcs: Vec<_> = block_crcs(&frame[place.payload.clone()]).collect();
        seal_at(&mut frame, &place, &header, crcs.into_iter());
        frame
    }

    /// What comes of these bytes, and whether the link goes on.
    fn outcomes(state: &mut LinkState<u64>, mut bytes: &[u8]) -> (Vec<(u64, Option<u8>)>, bool) {
        let mut all = Vec::new();
        loop {
            match state.arrived(bytes) {
                Arrived::Answer(owner, answer) => {
                    let outcome = answer.check(bytes);
                    assert!(
                        outcome.as_ref().is_ok_and(|got| got.len() == 10) || outcome == Err(Missed::Fault)
                    );
                    all.push((owner, outcome.ok().map(|got| got[0])));
                    bytes = &bytes[answer.length()..];
                }
                Arrived::Part => return (all, bytes.is_empty()),
                Arrived::Violation => return (all, false),
            }
        }
    }

    fn begun(count: u64) -> LinkState<u64> {
        let mut state = LinkState::default();
        for number in 1..=count {
            let asked = state.begin(read(number * 4096), number * 100);
            assert_eq!(Header::decode(&asked).map(|header| header.request_id), Ok(request(number)));
        }
        state
    }

    #[test]
    fn answers_come_in_any_order_and_one_that_is_damaged_or_refused_spoils_no_other() {
        let mut state = begun(4);
        let mut damaged = answer(1, &read(4096));
        *damaged.last_mut().expect("a payload") ^= 1;
        let error = ErrorBody { code: ErrorCode::Busy, node: NodeId(3), text: "later".into() };
        let refused = control_frame(Header::new(Op::Error, request(2)), &error.encode());
        let bytes = [answer(3, &read(3 * 4096)), damaged, refused, answer(4, &read(4 * 4096))].concat();
        let (got, goes_on) = outcomes(&mut state, &bytes);
        assert_eq!(got, [(300, Some(3)), (100, None), (200, None), (400, Some(4))]);
        assert!(goes_on && state.is_idle());
    }

    #[test]
    fn a_frame_is_waited_for_until_its_last_byte() {
        let frame = answer(1, &read(4096));
        let mut state = begun(1);
        for end in 0..frame.len() {
            assert!(matches!(state.arrived(&frame[..end]), Arrived::Part), "{end}");
        }
        assert!(
            matches!(state.arrived(&frame), Arrived::Answer(100, answer) if answer.check(&frame).is_ok())
        );
    }

    #[test]
    fn an_answer_to_another_question_is_missed() {
        let good =
            Header { request_id: request(1), flags: Header::LAST, ..read(4096).header.answer(Op::ReadData) };
        let good = Header { offset: 4096, length: 4096, ..good };
        let others = [
            Header { chunk: ChunkId(8), ..good },
            Header { generation: GenerationStamp(1), ..good },
            Header { offset: 8192, ..good },
            Header { length: 4095, ..good },
            Header { length: 8192, ..good },
        ];
        for other in others {
            assert_eq!(outcomes(&mut begun(1), &sealed(other)), (vec![(100, None)], true), "{other:?}");
        }
        assert_eq!(outcomes(&mut begun(1), &sealed(good)), (vec![(100, Some(1))], true));
    }

    #[test]
    fn what_fits_no_read_ends_the_link_and_leaves_the_reads_to_be_told() {
        let good = Header { request_id: request(1), flags: Header::LAST, length: 4096, ..read(4096).header };
        let violations = [
            sealed(Header { op: Op::ReadData, request_id: request(9), ..good }),
            // Its place, but of a request that was answered long ago.
            sealed(Header { op: Op::ReadData, request_id: place_of(request(1)) as u64, ..good }),
            sealed(Header { op: Op::ReadData, flags: 0, ..good }),
            sealed(Header { op: Op::ReadData, length: (PAYLOAD_BYTES_MAX + 1) as u32, ..good }),
            Header { op: Op::Pong, length: 0, ..good }.encode().to_vec(),
            vec![0x55; HEADER_BYTES],
        ];
        for bytes in violations {
            let mut state = begun(2);
            assert!(matches!(state.arrived(&bytes), Arrived::Violation), "{:?}", &bytes[..8]);
            let mut left: Vec<u64> = state.end().collect();
            left.sort_unstable();
            assert_eq!((left, state.is_idle()), (vec![100, 200], true));
        }
    }
}
