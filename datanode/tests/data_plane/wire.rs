//! A client that speaks frames by hand, right and wrong.

use distrifs_proto::ErrorCode;
use distrifs_proto::frame::{
    self, ErrorBody, HEADER_BYTES, Header, Hello, Hop, Op, PAYLOAD_START, Placement, WriteAck, WriteOpen,
};
use distrifs_proto::limits::{BLOCK_BYTES, CHUNK_BYTES_MAX, FRAME_PAYLOAD_BYTES_MAX};
use distrifs_proto::types::{ChunkId, ClusterId, Crc32c, Epoch, GenerationStamp, NodeId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

pub(crate) struct WriteRequest {
    pub(crate) chunk: ChunkId,
    pub(crate) generation: GenerationStamp,
    pub(crate) epoch: Epoch,
    pub(crate) content: Vec<u8>,
    pub(crate) hops: Vec<Hop>,
}

#[derive(Debug)]
pub(crate) enum Answer {
    Acked(WriteAck),
    Refused(ErrorBody),
    Closed,
}

pub(crate) struct Peer {
    stream: TcpStream,
    requests: u64,
}

impl Peer {
    pub(crate) async fn connect(hop: &Hop) -> Self {
        let stream = TcpStream::connect((hop.address.host.as_str(), hop.address.port)).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let mut peer = Self { stream, requests: 0 };
        let hello = Hello { node: hop.node, cluster: ClusterId(0), token: Vec::new() };
        peer.send(Header::new(Op::Hello, 0), &hello.encode(), false).await;
        peer
    }

    pub(crate) async fn send(&mut self, mut header: Header, payload: &[u8], damaged: bool) {
        if header.op.has_payload() {
            header.length = payload.len() as u32;
        }
        let mut buffer = vec![0; PAYLOAD_START + payload.len()];
        buffer[PAYLOAD_START..].copy_from_slice(payload);
        let range = frame::seal(&mut buffer, &header);
        if damaged {
            buffer[PAYLOAD_START + payload.len() / 2] ^= 1;
        }
        // A datanode that refuses may have closed already; its answer is read all the same.
        let _ = self.stream.write_all(&buffer[range]).await;
    }

    async fn open(&mut self, request: &WriteRequest) -> Header {
        self.requests += 1;
        let header = Header {
            chunk: request.chunk,
            generation: request.generation,
            epoch: request.epoch,
            ..Header::new(Op::WriteOpen, self.requests)
        };
        let open = WriteOpen { reserve: request.content.len() as u64, hops: request.hops.clone() };
        self.send(header, &open.encode(), false).await;
        header
    }

    pub(crate) async fn write(&mut self, request: &WriteRequest) -> Answer {
        self.write_with(request, false).await.0
    }

    pub(crate) async fn write_damaged(&mut self, request: &WriteRequest) -> Answer {
        self.write_with(request, true).await.0
    }

    /// The answer, and what the frames of progress before it said.
    pub(crate) async fn write_watched(&mut self, request: &WriteRequest) -> (Answer, Vec<u64>) {
        self.write_with(request, false).await
    }

    async fn write_with(&mut self, request: &WriteRequest, damaged: bool) -> (Answer, Vec<u64>) {
        let open = self.open(request).await;
        let pieces = request.content.chunks(FRAME_PAYLOAD_BYTES_MAX).enumerate();
        let last = request.content.len().div_ceil(FRAME_PAYLOAD_BYTES_MAX) - 1;
        for (i, piece) in pieces {
            let flags = if i == last { Header::LAST } else { 0 };
            let offset = (i * FRAME_PAYLOAD_BYTES_MAX) as u64;
            self.send(Header { op: Op::WriteData, flags, offset, ..open }, piece, damaged && i == last).await;
        }
        let mut progress = Vec::new();
        let answer = loop {
            match self.answer().await {
                Some((header, _)) if header.op == Op::WriteProgress => progress.push(header.offset),
                Some((header, body)) if header.op == Op::WriteAck => {
                    assert_eq!(header.request_id, open.request_id);
                    break Answer::Acked(WriteAck::decode(&body).unwrap());
                }
                Some((header, body)) if header.op == Op::Error => {
                    break Answer::Refused(ErrorBody::decode(&body).unwrap());
                }
                Some((header, _)) => panic!("{header:?} to a write"),
                None => break Answer::Closed,
            }
        };
        (answer, progress)
    }

    /// Opens the chunk and sends its first bytes only.
    pub(crate) async fn begin(&mut self, request: &WriteRequest, first: usize) {
        let open = self.open(request).await;
        self.send(Header { op: Op::WriteData, ..open }, &request.content[..first], false).await;
    }

    /// Sends requests without a payload, all at once.
    pub(crate) async fn ask_all(&mut self, requests: &[Header]) {
        let all: Vec<u8> = requests.iter().flat_map(Header::encode).collect();
        self.stream.write_all(&all).await.unwrap();
    }

    /// Exactly the bytes asked for, checked block by block.
    pub(crate) async fn read(
        &mut self,
        chunk: ChunkId,
        offset: u64,
        length: usize,
    ) -> Result<Vec<u8>, ErrorCode> {
        self.requests += 1;
        assert!(length as u64 <= CHUNK_BYTES_MAX);
        let length32 = length as u32;
        let header = Header { chunk, offset, length: length32, ..Header::new(Op::Read, self.requests) };
        self.send(header, &[], false).await;
        let mut blocks = Vec::new();
        let first = offset / BLOCK_BYTES as u64 * BLOCK_BYTES as u64;
        loop {
            let Some((answer, body)) = self.raw_answer().await else { return Err(ErrorCode::Unavailable) };
            if answer.op == Op::Error {
                return Err(ErrorBody::decode(&body[PAYLOAD_START..]).unwrap().code);
            }
            assert_eq!((answer.op, answer.offset), (Op::ReadData, first + blocks.len() as u64));
            if frame::verify(&body, &Placement::of(answer.payload_bytes())).is_err() {
                return Err(ErrorCode::Corrupt);
            }
            blocks.extend_from_slice(&body[PAYLOAD_START..]);
            if answer.is_last() {
                let from = (offset - first) as usize;
                return Ok(blocks[from..blocks.len().min(from + length)].to_vec());
            }
        }
    }

    async fn answer(&mut self) -> Option<(Header, Vec<u8>)> {
        let (header, buffer) = self.raw_answer().await?;
        frame::verify(&buffer, &Placement::of(header.payload_bytes())).unwrap();
        Some((header, buffer[PAYLOAD_START..].to_vec()))
    }

    /// A header, and a buffer with the body at its place, unchecked.
    pub(crate) async fn raw_answer(&mut self) -> Option<(Header, Vec<u8>)> {
        let mut bytes = [0; HEADER_BYTES];
        self.stream.read_exact(&mut bytes).await.ok()?;
        let header = Header::decode(&bytes).unwrap();
        let place = Placement::of(header.payload_bytes());
        let mut buffer = vec![0; place.payload.end];
        self.stream.read_exact(&mut buffer[place.body()]).await.ok()?;
        Some((header, buffer))
    }
}

/// A hop of a pipeline whose answers the test gives.
pub(crate) struct FakeHop {
    listener: TcpListener,
    pub(crate) hop: Hop,
}

impl FakeHop {
    pub(crate) async fn start(node: NodeId) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().into();
        Self { listener, hop: Hop { node, address } }
    }

    /// Takes a connection, and nothing from it.
    pub(crate) async fn accept(&self) -> Peer {
        Peer { stream: self.listener.accept().await.unwrap().0, requests: 0 }
    }

    /// Takes one whole chunk; the header of its opening.
    pub(crate) async fn take_chunk(&self) -> (Peer, Header) {
        let mut peer = self.accept().await;
        let mut open = None;
        loop {
            let (header, _) = peer.raw_answer().await.unwrap();
            match header.op {
                Op::WriteOpen => open = Some(header),
                Op::WriteData if header.is_last() => return (peer, open.unwrap()),
                _ => {}
            }
        }
    }
}

/// A header whose checksum is right and whose length is not.
pub(crate) fn absurd_length() -> Vec<u8> {
    let mut bytes = Header::new(Op::Hello, 1).encode();
    bytes[56..60].copy_from_slice(&u32::MAX.to_le_bytes());
    let crc = Crc32c::of(&bytes[..60]);
    bytes[60..].copy_from_slice(&crc.0.to_le_bytes());
    bytes.to_vec()
}

/// Whether the datanode ends the connection after these bytes.
pub(crate) async fn is_closed_after(hop: &Hop, bytes: &[u8]) -> bool {
    let mut stream = TcpStream::connect((hop.address.host.as_str(), hop.address.port)).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut rest = Vec::new();
    // Closed with bytes unread, the connection is reset: closed all the same.
    tokio::time::timeout(crate::PATIENCE, stream.read_to_end(&mut rest)).await.is_ok()
}
