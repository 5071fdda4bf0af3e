//! One hop of a chunk's pipeline, decided without I/O: which frames are taken, and what the answer is.
//!
//! A hop answers `WriteAck` only when its own replica is committed **and** the hop behind it has acknowledged the
//! same length and checksum. Anything else is an `Error` that names the node at fault, so that the client knows
//! whom to leave out when it plans the chunk anew.

use distrifs_proto::ErrorCode;
use distrifs_proto::frame::{ErrorBody, Header, Hop, Op, WriteAck, WriteOpen};
use distrifs_proto::limits::{BLOCK_BYTES, CHUNK_BYTES_MAX, REPLICATION_MAX};
use distrifs_proto::types::{ChunkId, Crc32c, Epoch, GenerationStamp, NodeId};

/// The state of one hop.
#[derive(Debug)]
pub(crate) struct Pipeline {
    node: NodeId,
    request: Header,
    reserve: u64,
    received: u64,
    ended: bool,
    local: Part<(u64, Crc32c)>,
    downstream: Part<WriteAck>,
    /// The hops behind, in order.
    behind: Vec<NodeId>,
}

#[derive(Debug)]
enum Part<T> {
    Pending,
    Done(T),
    Failed(ErrorBody),
}

/// What is to be answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nothing yet.
    Pending,
    /// The chunk is durable here and on every hop behind.
    Ack(WriteAck),
    /// It is not, and will not be.
    Fail(ErrorBody),
}

impl Pipeline {
    /// Judges the opening of a chunk at `node`, which has been shown the epoch `seen`.
    ///
    /// # Errors
    /// What to answer instead: a stale writer, or a request beyond the limits.
    pub(crate) fn open(
        node: NodeId,
        header: &Header,
        open: &WriteOpen,
        seen: Epoch,
    ) -> Result<Self, ErrorBody> {
        let fail = |code, text: String| Err(ErrorBody { code, node, text });
        if header.epoch < seen {
            let text = format!("epoch {} is over: epoch {seen} leads; ask the master again", header.epoch);
            return fail(ErrorCode::StaleEpoch, text);
        }
        if header.chunk == ChunkId(0) || header.generation == GenerationStamp(0) {
            return fail(ErrorCode::Protocol, "a chunk has an id and a generation".into());
        }
        if open.reserve == 0 || open.reserve > CHUNK_BYTES_MAX {
            let text = format!("{} bytes to reserve: 1 to {CHUNK_BYTES_MAX}", open.reserve);
            return fail(ErrorCode::Protocol, text);
        }
        if open.hops.len() >= REPLICATION_MAX as usize {
            let text = format!("a pipeline of {} nodes: the limit is {REPLICATION_MAX}", open.hops.len() + 1);
            return fail(ErrorCode::Protocol, text);
        }
        let repeated = |i: usize, hop: &Hop| open.hops[..i].iter().any(|other| other.node == hop.node);
        if open.hops.iter().enumerate().any(|(i, hop)| hop.node == node || repeated(i, hop)) {
            return fail(ErrorCode::Protocol, "a node appears twice in the pipeline".into());
        }
        Ok(Self {
            node,
            request: *header,
            reserve: open.reserve,
            received: 0,
            ended: false,
            local: Part::Pending,
            downstream: Part::Pending,
            behind: open.hops.iter().map(|hop| hop.node).collect(),
        })
    }

    /// Judges the header of the next frame from upstream.
    ///
    /// # Errors
    /// What to answer instead.
    pub(crate) fn data(&mut self, header: &Header) -> Result<(), ErrorBody> {
        let r = &self.request;
        let same = (header.request_id, header.chunk, header.generation, header.epoch)
            == (r.request_id, r.chunk, r.generation, r.epoch);
        let (length, block) = (u64::from(header.length), BLOCK_BYTES as u64);
        let complaint = if header.op != Op::WriteData || !same {
            Some(format!("{:?} in the middle of chunk {}", header.op, r.chunk))
        } else if self.ended {
            Some("bytes behind the last frame".into())
        } else if header.offset != self.received {
            Some(format!("bytes at {}: {} were expected", header.offset, self.received))
        } else if length > self.reserve - self.received {
            Some(format!("more than the {} bytes reserved", self.reserve))
        } else if !header.is_last() && (length == 0 || !length.is_multiple_of(block)) {
            Some(format!("a frame of {length} bytes before the last"))
        } else if header.is_last() && self.received + length == 0 {
            Some("a chunk without bytes".into())
        } else {
            None
        };
        if let Some(text) = complaint {
            return Err(ErrorBody { code: ErrorCode::Protocol, node: self.node, text });
        }
        self.received += length;
        self.ended = header.is_last();
        Ok(())
    }

    /// Whether the last frame was taken.
    #[must_use]
    pub(crate) fn ended(&self) -> bool {
        self.ended
    }

    /// The own replica is durable.
    pub(crate) fn committed(&mut self, length: u64, crc: Crc32c) {
        self.local = Part::Done((length, crc));
    }

    /// The own replica failed.
    pub(crate) fn local_failed(&mut self, code: ErrorCode, text: String) {
        self.local = Part::Failed(ErrorBody { code, node: self.node, text });
    }

    /// How many hops stand behind this one.
    #[must_use]
    pub(crate) fn hops_below(&self) -> u64 {
        self.behind.len() as u64
    }

    /// Whether an answer is about this chunk.
    #[must_use]
    pub(crate) fn is_of_request(&self, answer: &Header) -> bool {
        let r = &self.request;
        (answer.request_id, answer.chunk, answer.generation) == (r.request_id, r.chunk, r.generation)
    }

    /// The hop behind answered.
    pub(crate) fn downstream_acked(&mut self, ack: WriteAck) {
        if ack.nodes == self.behind {
            self.downstream = Part::Done(ack);
        } else {
            self.downstream_lost("acknowledged for other nodes than those of the pipeline");
        }
    }

    /// The hop behind, or one further on, says that it failed.
    pub(crate) fn downstream_failed(&mut self, error: ErrorBody) {
        self.downstream = Part::Failed(error);
    }

    /// The hop behind cannot be reached, went silent or went away.
    pub(crate) fn downstream_lost(&mut self, why: &str) {
        let node = self.behind.first().copied().unwrap_or(self.node);
        let text = format!("node {node}: {why}");
        self.downstream = Part::Failed(ErrorBody { code: ErrorCode::HopFailed, node, text });
    }

    /// What is to be answered now.
    #[must_use]
    pub(crate) fn verdict(&self) -> Verdict {
        // The own failure first: it is certain, while the hop behind may only have noticed that we stopped.
        if let Part::Failed(error) = &self.local {
            return Verdict::Fail(error.clone());
        }
        if let Part::Failed(error) = &self.downstream {
            return Verdict::Fail(error.clone());
        }
        let Part::Done((length, crc)) = self.local else { return Verdict::Pending };
        let mut nodes = vec![self.node];
        match (&self.downstream, self.behind.first()) {
            (_, None) => {}
            (Part::Done(ack), Some(next)) => {
                if (ack.length, ack.crc) != (length, crc) {
                    let text = format!(
                        "node {next} committed {} bytes with checksum {}, node {} {length} with {crc}",
                        ack.length, ack.crc, self.node
                    );
                    return Verdict::Fail(ErrorBody { code: ErrorCode::Corrupt, node: *next, text });
                }
                nodes.extend(&ack.nodes);
            }
            (_, Some(_)) => return Verdict::Pending,
        }
        Verdict::Ack(WriteAck { length, crc, nodes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u32 = 1 << 20;

    fn request() -> Header {
        Header {
            chunk: ChunkId(5),
            generation: GenerationStamp(1),
            epoch: Epoch(3),
            ..Header::new(Op::WriteOpen, 9)
        }
    }

    fn open_with(hops: &[u64]) -> WriteOpen {
        let address = "127.0.0.1:1".parse().unwrap();
        let hop = |&n: &u64| Hop { node: NodeId(n), address: Clone::clone(&address) };
        WriteOpen { reserve: 4 << 20, hops: hops.iter().map(hop).collect() }
    }

    fn pipeline(hops: &[u64]) -> Pipeline {
        Pipeline::open(NodeId(1), &request(), &open_with(hops), Epoch(3)).unwrap()
    }

    fn data(offset: u64, length: u32, flags: u16) -> Header {
        Header { op: Op::WriteData, offset, length, flags, ..request() }
    }

    #[test]
    fn a_stale_writer_is_refused() {
        let refused = Pipeline::open(NodeId(1), &request(), &open_with(&[]), Epoch(4)).unwrap_err();
        assert_eq!(refused.code, ErrorCode::StaleEpoch);
        assert!(Pipeline::open(NodeId(1), &request(), &open_with(&[]), Epoch(3)).is_ok());
    }

    #[test]
    fn a_node_stands_once_in_a_pipeline() {
        for hops in [&[1][..], &[2, 2], &[2, 3, 1]] {
            let refused = Pipeline::open(NodeId(1), &request(), &open_with(hops), Epoch(0));
            assert_eq!(refused.unwrap_err().code, ErrorCode::Protocol, "{hops:?}");
        }
    }

    #[test]
    fn an_acknowledgement_is_believed_of_the_own_pipeline_only() {
        for nodes in [&[][..], &[2], &[3, 2], &[2, 3, 4], &[9; 16]] {
            let mut p = pipeline(&[2, 3]);
            p.committed(7, Crc32c(8));
            let nodes = nodes.iter().map(|&n| NodeId(n)).collect();
            p.downstream_acked(WriteAck { length: 7, crc: Crc32c(8), nodes });
            assert!(matches!(p.verdict(), Verdict::Fail(e) if e.node == NodeId(2)));
        }
        let other = Header { chunk: ChunkId(6), ..request() };
        assert!(pipeline(&[2]).is_of_request(&request()) && !pipeline(&[2]).is_of_request(&other));
    }

    #[test]
    fn a_pipeline_longer_than_any_replication_is_refused() {
        let hops: Vec<u64> = (2..=17).collect();
        assert!(Pipeline::open(NodeId(1), &request(), &open_with(&hops[..15]), Epoch(0)).is_ok());
        let refused = Pipeline::open(NodeId(1), &request(), &open_with(&hops), Epoch(0)).unwrap_err();
        assert_eq!(refused.code, ErrorCode::Protocol);
    }

    #[test]
    fn frames_are_taken_in_order_and_within_the_reserve() {
        let mut p = pipeline(&[]);
        p.data(&data(0, MIB, 0)).unwrap();
        for (what, header) in [
            ("a gap", data(u64::from(MIB) * 2, MIB, 0)),
            ("a repetition", data(0, MIB, 0)),
            ("a short frame in the middle", data(u64::from(MIB), 5, 0)),
            ("an empty frame in the middle", data(u64::from(MIB), 0, 0)),
            ("another chunk", Header { chunk: ChunkId(6), ..data(u64::from(MIB), MIB, 0) }),
            ("an older epoch", Header { epoch: Epoch(2), ..data(u64::from(MIB), MIB, 0) }),
            ("another op", Header { op: Op::Read, ..data(u64::from(MIB), MIB, 0) }),
            ("beyond the reserve", data(u64::from(MIB), 3 * MIB + 1, Header::LAST)),
        ] {
            assert_eq!(p.data(&header).unwrap_err().code, ErrorCode::Protocol, "{what}");
        }
        p.data(&data(u64::from(MIB), 0, Header::LAST)).unwrap();
        assert!(p.ended());
        assert!(p.data(&data(u64::from(MIB), MIB, 0)).is_err());
        assert!(pipeline(&[]).data(&data(0, 0, Header::LAST)).is_err(), "an empty chunk");
    }

    #[test]
    fn the_answer_waits_for_both_and_names_who_failed() {
        let ack = |nodes: &[u64], crc| WriteAck {
            length: 7,
            crc: Crc32c(crc),
            nodes: nodes.iter().map(|&n| NodeId(n)).collect(),
        };
        let mut alone = pipeline(&[]);
        assert_eq!(alone.verdict(), Verdict::Pending);
        alone.committed(7, Crc32c(8));
        assert_eq!(alone.verdict(), Verdict::Ack(ack(&[1], 8)));

        let mut p = pipeline(&[2, 3]);
        p.committed(7, Crc32c(8));
        assert_eq!(p.verdict(), Verdict::Pending, "acknowledged before the hop behind did");
        p.downstream_acked(ack(&[2, 3], 8));
        assert_eq!(p.verdict(), Verdict::Ack(ack(&[1, 2, 3], 8)));

        let mut p = pipeline(&[2, 3]);
        p.downstream_acked(ack(&[2, 3], 8));
        assert_eq!(p.verdict(), Verdict::Pending, "acknowledged before the own commit");
        p.committed(7, Crc32c(9));
        assert!(
            matches!(p.verdict(), Verdict::Fail(e) if e.code == ErrorCode::Corrupt && e.node == NodeId(2))
        );

        let mut p = pipeline(&[2, 3]);
        p.downstream_lost("connection refused");
        assert!(
            matches!(p.verdict(), Verdict::Fail(e) if e.code == ErrorCode::HopFailed && e.node == NodeId(2))
        );
        p.local_failed(ErrorCode::NoSpace, "full".into());
        assert!(
            matches!(p.verdict(), Verdict::Fail(e) if e.code == ErrorCode::NoSpace && e.node == NodeId(1))
        );
    }
}
