//! A read into memory, which goes over the link of a node if it is small and all is well. Whatever goes wrong there,
//! [`read_chunk`] reads once more, and says what is wrong and with whom.

use std::ops::Range;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use distrifs_proto::ErrorCode;
use distrifs_proto::frame::{Header, Op};
use distrifs_proto::limits::BLOCK_BYTES;
use distrifs_proto::types::Epoch;
use tokio::time::timeout_at;

use crate::chunk_reader::{ChunkRange, ReadFile, patience, read_chunk};
use crate::context::Context;
use crate::error::Result;
use crate::link_state::{LINK_READ_BYTES_MAX, LinkRead, Missed};
use crate::meter::Meter;
use crate::read_link::ReadLink;
use crate::read_links::Way;
use crate::sink::Sink;
use crate::status::{ChunkLocation, Node};

/// A range of one chunk.
pub(crate) struct SmallRead<'a> {
    pub(crate) context: &'a Arc<Context>,
    pub(crate) file: &'a Arc<ReadFile>,
    pub(crate) chunk: &'a ChunkLocation,
    /// Of the leader that named the replicas.
    pub(crate) epoch: Epoch,
    /// Where the chunk begins in its file.
    pub(crate) start: u64,
    /// Wanted bytes of the chunk.
    pub(crate) wanted: Range<u64>,
    /// Past the page cache of the datanode.
    pub(crate) direct: bool,
}

impl SmallRead<'_> {
    /// The wanted bytes.
    pub(crate) async fn run(self) -> Result<Vec<u8>> {
        let small = self.wanted.end - self.wanted.start <= LINK_READ_BYTES_MAX as u64;
        // The same that `ReaderState` asks first.
        let Some(node) = self.chunk.replicas.first().filter(|_| small && self.context.tracer.is_none())
        else {
            return self.alone(false).await;
        };
        let patience = patience(&self.context.config, self.chunk.replicas.len() > 1);
        let now = Instant::now();
        let link = match self.context.links.way(node, patience, now) {
            Way::Link(link) => link,
            Way::Alone(why) => return self.alone(why == Some(Missed::Silent)).await,
        };
        self.over(&link, node, now).await
    }

    async fn over(&self, link: &ReadLink, node: &Node, now: Instant) -> Result<Vec<u8>> {
        let context = self.context;
        let others = self.chunk.replicas.len() > 1;
        let patience = patience(&context.config, others);
        let (read, bytes) = self.link_read();
        let room = match timeout_at((now + patience).into(), link.room(&read)).await {
            Ok(Ok(room)) => room,
            Ok(Err(missed)) => return self.alone(missed == Missed::Silent).await,
            Err(_) => return self.late(link, node, patience).await,
        };
        // Only now does the node hear of it: it is not blamed for the time before.
        let began = Instant::now();
        let delay = context.hedge.begin(bytes).min(patience);
        let answered = |bytes_read: Vec<u8>| {
            context.hedge.answered(bytes, began.elapsed());
            Ok(bytes_read)
        };
        let mut answer = pin!(link.read(read, room));
        let missed = match timeout_at((began + delay).into(), &mut answer).await {
            Ok(Ok(bytes)) => return answered(bytes),
            Ok(Err(missed)) => missed,
            Err(_) if others && context.hedge.allows(context.started.elapsed()) => {
                tracing::debug!(chunk = %self.chunk.id, slow = %node.id, "a read is hedged");
                let mut other = pin!(self.alone(true));
                return tokio::select! {
                    biased;
                    Ok(bytes) = &mut answer => answered(bytes),
                    read = &mut other => read,
                };
            }
            Err(_) => match timeout_at((began + patience).into(), &mut answer).await {
                Ok(Ok(bytes)) => return answered(bytes),
                Ok(Err(missed)) => missed,
                Err(_) => return self.late(link, node, patience).await,
            },
        };
        self.alone(missed == Missed::Silent).await
    }

    /// Its patience has ended. A node that has said something meanwhile, to whomever, has much to do: this read alone leaves
    /// it. One that was silent is left by all.
    async fn late(&self, link: &ReadLink, node: &Node, patience: Duration) -> Result<Vec<u8>> {
        if link.is_silent(patience, Instant::now()) {
            link.close(Missed::Silent);
            self.context.report_bad_replica(self.chunk.id, node.id, ErrorCode::Unavailable);
        }
        self.alone(true).await
    }

    /// What is asked over a link, and how many bytes that is.
    fn link_read(&self) -> (LinkRead, u32) {
        let block = BLOCK_BYTES as u64;
        let from = self.wanted.start / block * block;
        let to = self.wanted.end.next_multiple_of(block).min(self.chunk.length);
        let length = (to - from) as u32;
        let header = Header {
            trace_id: self.file.trace_id,
            flags: if self.direct { Header::DIRECT } else { 0 },
            chunk: self.chunk.id,
            generation: self.chunk.generation,
            epoch: self.epoch,
            offset: from,
            length,
            ..Header::new(Op::Read, 0)
        };
        let cut = (self.wanted.start - from) as usize..(self.wanted.end - from) as usize;
        (LinkRead { header, cut }, length)
    }

    /// Over a connection of its own, the usual replica first or, with `others_first`, last.
    async fn alone(&self, others_first: bool) -> Result<Vec<u8>> {
        let mut chunk = self.chunk.clone();
        if others_first && !chunk.replicas.is_empty() {
            chunk.replicas.rotate_left(1);
        }
        let (epoch, start, wanted, direct) = (self.epoch, self.start, self.wanted.clone(), self.direct);
        let range = ChunkRange { chunk, epoch, start, wanted, direct };
        let (context, file) = (self.context.clone(), self.file.clone());
        let read = read_chunk(context, file, range, Sink::Memory(Vec::new()), Arc::new(Meter::default()));
        let (Sink::Memory(pieces), _) = read.await? else { unreachable!("the sink comes back") };
        let pieces: Vec<&[u8]> = pieces.iter().map(|piece| piece.bytes()).collect();
        Ok(pieces.concat())
    }
}
