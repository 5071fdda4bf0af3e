//! A datanode in memory that keeps to the protocol, or breaks it as it is told to.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use distrifs_proto::ErrorCode;
use distrifs_proto::frame::{
    ErrorBody, FRAME_BUFFER_BYTES, HEADER_BYTES, Header, Hello, Op, PAYLOAD_START, Placement, WriteAck,
    WriteOpen, seal, verify,
};
use distrifs_proto::grpc::v1;
use distrifs_proto::limits::{BLOCK_BYTES, FRAME_PAYLOAD_BYTES_MAX};
use distrifs_proto::types::{Crc32c, NodeId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Barrier;

/// How a datanode behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Manners {
    /// As it should.
    #[default]
    Good,
    /// Answers the first data frame of every write with an error that names this node.
    FailsWrites(u64),
    /// The same once; after that it is [`Manners::Good`].
    FailsOnce(u64),
    /// Refuses the connection's opening frame.
    RefusesHello,
    /// Takes everything and says nothing.
    Silent,
    /// Says so often that work goes on, then commits.
    Slow(u32),
    /// Answers one read after the other, each so many milliseconds later and in one frame.
    Steady(u64),
    /// Acknowledges another checksum.
    LiesAboutChecksum,
    /// Acknowledges for itself alone.
    ForgetsHops,
    /// Answers with bytes that are no frame.
    Garbage,
    /// Flips a bit in the block of this offset, behind the checksums.
    Damages(u64),
    /// Delivers bytes of its own with sound block checksums.
    Diverged,
    /// Closes after the first frame of a read.
    HangsUp,
    /// Has no chunk.
    Empty,
    /// Closes a connection without a word when a write comes on it that is not its first request.
    LosesKept,
    /// The same when any write comes.
    LosesAll,
}

#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) manners: Manners,
    /// Of a whole pipeline, for only the first hop is spoken to.
    pub(crate) chunks: HashMap<u64, Vec<u8>>,
    /// Connections that were accepted.
    pub(crate) connections: usize,
    /// `(offset, length)` of each read.
    pub(crate) reads: Vec<(u64, u32)>,
    /// Of these, how many past the page cache.
    pub(crate) direct_reads: usize,
    pub(crate) hops: HashSet<usize>,
    /// Writes wait here for each other before they are acknowledged.
    pub(crate) together: Option<Arc<Barrier>>,
}

#[derive(Clone)]
pub(crate) struct FakeDatanode {
    pub(crate) node: v1::Node,
    pub(crate) state: Arc<Mutex<State>>,
}

impl FakeDatanode {
    pub(crate) async fn start(id: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let data_address = listener.local_addr().unwrap().to_string();
        let node = Self { node: v1::Node { node_id: id, data_address }, state: Arc::default() };
        let server = node.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                server.state.lock().unwrap().connections += 1;
                let server = server.clone();
                tokio::spawn(async move { server.serve(stream).await });
            }
        });
        node
    }

    pub(crate) fn behave(&self, manners: Manners) {
        self.state.lock().unwrap().manners = manners;
    }

    fn manners(&self) -> Manners {
        self.state.lock().unwrap().manners
    }

    /// Ends with the connection.
    async fn serve(&self, mut stream: TcpStream) -> Option<()> {
        let mut buffer = vec![0; FRAME_BUFFER_BYTES];
        let (hello, place) = receive(&mut stream, &mut buffer).await?;
        assert_eq!(hello.op, Op::Hello);
        if self.manners() == Manners::RefusesHello {
            let node = NodeId(self.node.node_id);
            let error = ErrorBody { code: ErrorCode::WrongCluster, node, text: "another cluster".into() };
            send(&mut stream, hello.answer(Op::Error), &error.encode()).await?;
            while stream.read(&mut buffer).await.ok()? > 0 {}
            return None;
        }
        let hello = Hello::decode(&buffer[place.payload]).unwrap();
        assert_eq!(hello.node.0, self.node.node_id);
        let mut kept = false;
        loop {
            let (header, place) = receive(&mut stream, &mut buffer).await?;
            match self.manners() {
                Manners::LosesKept if kept && header.op == Op::WriteOpen => return None,
                Manners::LosesAll if header.op == Op::WriteOpen => return None,
                _ => kept = true,
            }
            if self.manners() == Manners::Garbage {
                stream.write_all(&[0x55; 4096]).await.ok()?;
                stream.shutdown().await.ok()?;
                // Until the client hangs up, so that it reads this and no reset.
                while stream.read(&mut buffer).await.ok()? > 0 {}
                return None;
            }
            match header.op {
                Op::WriteOpen => {
                    let open = WriteOpen::decode(&buffer[place.payload]).unwrap();
                    self.write(&mut stream, header, open).await?;
                }
                Op::Read => self.read(&mut stream, header).await?,
                op => panic!("{op:?} where a request belongs"),
            }
        }
    }

    async fn write(&self, stream: &mut TcpStream, open: Header, body: WriteOpen) -> Option<()> {
        self.state.lock().unwrap().hops.insert(body.hops.len());
        let (mut bytes, mut buffer) = (Vec::new(), vec![0; FRAME_BUFFER_BYTES]);
        loop {
            let (header, place) = receive(stream, &mut buffer).await?;
            assert_eq!(
                (header.op, header.request_id, header.chunk),
                (Op::WriteData, open.request_id, open.chunk)
            );
            assert_eq!(header.offset, bytes.len() as u64);
            bytes.extend(&buffer[place.payload]);
            if let Manners::FailsWrites(blamed) | Manners::FailsOnce(blamed) = self.manners() {
                if self.manners() == Manners::FailsOnce(blamed) {
                    self.behave(Manners::Good);
                }
                let text = "the disk is gone".to_owned();
                let error = ErrorBody { code: ErrorCode::HopFailed, node: NodeId(blamed), text };
                send(stream, open.answer(Op::Error), &error.encode()).await?;
                stream.shutdown().await.ok()?;
                while stream.read(&mut buffer).await.ok()? > 0 {}
                return None;
            }
            if header.is_last() {
                break;
            }
        }
        assert!(bytes.len() as u64 <= body.reserve);
        let mut nodes = vec![NodeId(self.node.node_id)];
        nodes.extend(body.hops.iter().map(|hop| hop.node));
        let mut ack = WriteAck { length: bytes.len() as u64, crc: Crc32c::of(&bytes), nodes };
        match self.manners() {
            Manners::Silent => std::future::pending().await,
            Manners::Slow(times) => {
                for _ in 0..times {
                    tokio::time::sleep(Duration::from_millis(200)).await;
                    let progress =
                        Header { offset: body.hops.len() as u64, ..open.answer(Op::WriteProgress) };
                    stream.write_all(&progress.encode()).await.ok()?;
                }
            }
            Manners::LiesAboutChecksum => ack.crc = Crc32c(!ack.crc.0),
            Manners::ForgetsHops => ack.nodes.truncate(1),
            _ => {}
        }
        let together = {
            let mut state = self.state.lock().unwrap();
            state.chunks.insert(open.chunk.0, bytes);
            state.together.clone()
        };
        if let Some(together) = together {
            together.wait().await;
        }
        send(stream, open.answer(Op::WriteAck), &ack.encode()).await
    }

    async fn read(&self, stream: &mut TcpStream, ask: Header) -> Option<()> {
        let manners = self.manners();
        let chunk = {
            let mut state = self.state.lock().unwrap();
            state.reads.push((ask.offset, ask.length));
            state.direct_reads += usize::from(ask.is_direct());
            state.chunks.get(&ask.chunk.0).cloned().filter(|_| manners != Manners::Empty)
        };
        let Some(mut chunk) = chunk else {
            let node = NodeId(self.node.node_id);
            let error = ErrorBody { code: ErrorCode::NoSuchChunk, node, text: "no such chunk".into() };
            return send(stream, ask.answer(Op::Error), &error.encode()).await;
        };
        if manners == Manners::Silent {
            std::future::pending::<()>().await;
        }
        if let Manners::Steady(pause) = manners {
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
        if manners == Manners::Diverged {
            chunk.iter_mut().for_each(|byte| *byte = !*byte);
        }
        let block = BLOCK_BYTES as u64;
        let mut at = ask.offset / block * block;
        let end = ((ask.offset + u64::from(ask.length)).div_ceil(block) * block).min(chunk.len() as u64);
        let mut buffer = vec![0; FRAME_BUFFER_BYTES];
        // Small frames of small chunks, so that they have several.
        let whole = chunk.len() > 1 << 20 || matches!(manners, Manners::Steady(_));
        let frame_max = if whole { FRAME_PAYLOAD_BYTES_MAX as u64 } else { 5 * block };
        while at < end {
            let length = (end - at).min(frame_max) as usize;
            let payload = PAYLOAD_START..PAYLOAD_START + length;
            buffer[payload].copy_from_slice(&chunk[at as usize..at as usize + length]);
            let flags = if at + length as u64 == end { Header::LAST } else { 0 };
            let header = Header { offset: at, length: length as u32, flags, ..ask.answer(Op::ReadData) };
            let frame = seal(&mut buffer, &header);
            if let Manners::Damages(offset) = manners
                && (at..at + length as u64).contains(&offset)
            {
                buffer[PAYLOAD_START + (offset - at) as usize] ^= 1;
            }
            stream.write_all(&buffer[frame]).await.ok()?;
            if manners == Manners::HangsUp {
                return None;
            }
            at += length as u64;
        }
        Some(())
    }
}

async fn send(stream: &mut TcpStream, header: Header, body: &[u8]) -> Option<()> {
    let mut buffer = vec![0; FRAME_BUFFER_BYTES];
    buffer[PAYLOAD_START..PAYLOAD_START + body.len()].copy_from_slice(body);
    let frame = seal(&mut buffer, &Header { length: body.len() as u32, ..header });
    stream.write_all(&buffer[frame]).await.ok()
}

async fn receive(stream: &mut TcpStream, buffer: &mut [u8]) -> Option<(Header, Placement)> {
    let mut head = [0; HEADER_BYTES];
    stream.read_exact(&mut head).await.ok()?;
    let header = Header::decode(&head).unwrap();
    let place = Placement::of(header.payload_bytes());
    stream.read_exact(&mut buffer[place.body()]).await.ok()?;
    verify(buffer, &place).unwrap();
    Some((header, place))
}
