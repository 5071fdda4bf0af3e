//! Copies a replica to another node: the source's side. Every block is checked before it leaves, the target checks it
//! again and commits as for any other writer; what either finds wrong never becomes a replica (GFS: silent corruption
//! must not be copied).

use std::cell::RefCell;
use std::collections::HashSet;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use distrifs_engine::store::StoreError;
use distrifs_proto::ErrorCode;
use distrifs_proto::frame::{self, ErrorBody, Header, Hop, Op, PAYLOAD_START, WriteAck, WriteOpen};
use distrifs_proto::types::{ChunkId, Crc32c, GenerationStamp, NodeId};
use tokio::sync::{Semaphore, mpsc};

use super::check::piece_at;
use super::peer::{Answer, PeerLink};
use super::wire::send_control;
use super::{Shard, ShardEvent};

/// Copies that wait for their turn in one shard.
pub(super) const COPIES_MAX: usize = 256;
/// Copies at once in one shard: the rest of the disk and of the wire is for users.
const COPIES_AT_ONCE_MAX: usize = 2;
/// How long a target that closed the connection is listened to.
const LAST_WORD_TIMEOUT: Duration = Duration::from_secs(1);

/// A replica to be copied, and where to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Copy {
    pub(crate) chunk: ChunkId,
    pub(crate) disk: usize,
    /// What it must be.
    pub(crate) generation: GenerationStamp,
    pub(crate) length: u64,
    pub(crate) crc: Crc32c,
    pub(crate) target: Hop,
}

/// The copies that wait or run, so that an order that is repeated is not carried out twice.
pub(super) type Copying = Rc<RefCell<HashSet<(ChunkId, NodeId)>>>;

impl Shard {
    /// Copies a few at a time.
    pub(super) async fn copy_all(self: Rc<Self>, mut copies: mpsc::Receiver<Copy>, copying: Copying) {
        let places = Arc::new(Semaphore::new(COPIES_AT_ONCE_MAX));
        while let Some(copy) = copies.recv().await {
            let Ok(place) = places.clone().acquire_owned().await else { return };
            let (this, copying) = (self.clone(), copying.clone());
            self.io.spawn(async move {
                let (chunk, target) = (copy.chunk, copy.target.node);
                let outcome = this.copy(&copy).await;
                copying.borrow_mut().remove(&(chunk, target));
                if let Err(error) = &outcome {
                    tracing::warn!(%chunk, %target, failed = %error.node, error = error.text, "a copy was not made");
                    if error.node == this.node.id && error.code == ErrorCode::Corrupt {
                        let found = super::check::Found::Corrupt;
                        let (disk, bytes) = (copy.disk, 0);
                        this.remember(chunk, disk, true).await;
                        this.tell(ShardEvent::Checked { chunk, disk, found, bytes }).await;
                    }
                }
                this.tell(ShardEvent::Copied { chunk, target, outcome }).await;
                drop(place);
            });
        }
    }

    async fn copy(&self, copy: &Copy) -> Result<(), ErrorBody> {
        let own = self.node.id;
        let refuse = |error: StoreError| {
            self.judge(copy.disk, &error);
            ErrorBody { code: error.code(), node: own, text: error.to_string() }
        };
        let reader = self.open_direct(copy.chunk, copy.disk).await.map_err(refuse)?;
        let header = reader.header();
        if (header.generation, header.length, header.crc) != (copy.generation, copy.length, copy.crc) {
            let text = format!(
                "the replica is of generation {}, {} bytes, checksum {}; asked for were {}, {}, {}",
                header.generation, header.length, header.crc, copy.generation, copy.length, copy.crc
            );
            return Err(ErrorBody { code: ErrorCode::StaleGeneration, node: own, text });
        }
        let lost = |why: String| {
            let node = copy.target.node;
            ErrorBody { code: ErrorCode::HopFailed, node, text: format!("node {node}: {why}") }
        };
        let cluster = self.node.cluster.get().copied().unwrap_or_default();
        let link = self.peers.link(&copy.target, cluster).await.map_err(|error| lost(error.to_string()))?;
        let (mut send, mut answers, parts) = link.into_parts();
        let request = Header {
            chunk: copy.chunk,
            generation: copy.generation,
            epoch: self.node.epoch_seen(),
            ..Header::new(Op::WriteOpen, self.peers.next_request_id())
        };
        let patience = self.socket_timeout;
        let open = WriteOpen { reserve: copy.length, hops: Vec::new() }.encode();
        let opened = self.io.timeout(patience, send_control(&mut send, request, &open)).await;
        opened.map_err(|_| lost("takes nothing".into()))?.map_err(|error| lost(error.to_string()))?;
        let mut at = 0;
        while at < copy.length {
            let piece = piece_at(&reader, at);
            let length = (piece.end - piece.start) as usize;
            let (read, mut buffer) = reader.read(self.buffers.for_copy().await, PAYLOAD_START, &piece).await;
            read.map_err(refuse)?;
            // The link is dropped with the chunk half sent: the target gives it up.
            reader.verify(&buffer[PAYLOAD_START..PAYLOAD_START + length], &piece).map_err(refuse)?;
            at = piece.end;
            let flags = if at == copy.length { Header::LAST } else { 0 };
            let data =
                Header { op: Op::WriteData, offset: piece.start, length: length as u32, flags, ..request };
            let range = frame::seal_with(&mut buffer, &data, reader.crcs(&piece).iter().copied());
            let sent = self.io.timeout(patience, send.send_all(buffer.share(), range)).await;
            let sent = sent.map_err(|_| lost(format!("took nothing for {} s", patience.as_secs())))?;
            if let Err(error) = sent {
                // It said why before it closed, perhaps, and the word is still on its way to us.
                let said = self.io.timeout(LAST_WORD_TIMEOUT, last_word(&mut answers)).await.ok().flatten();
                return Err(said.unwrap_or_else(|| lost(error.to_string())));
            }
            if let Some(error) = refusal(&mut answers) {
                return Err(error);
            }
        }
        loop {
            let next = self.io.timeout(patience, answers.recv()).await;
            let next = next.map_err(|_| lost(format!("silent for {} s", patience.as_secs())))?;
            let (header, body) = match next {
                Some(Ok(answer)) => answer,
                Some(Err(error)) => return Err(lost(error.to_string())),
                None => return Err(lost("the connection ended".into())),
            };
            match header.op {
                Op::WriteProgress => {}
                Op::WriteAck => {
                    let ack = WriteAck::decode(&body).map_err(|error| lost(error.to_string()))?;
                    let expected =
                        WriteAck { length: copy.length, crc: copy.crc, nodes: vec![copy.target.node] };
                    if ack != expected || header.request_id != request.request_id {
                        return Err(lost("acknowledged another chunk than was sent".into()));
                    }
                    self.peers.keep(PeerLink::from_parts(send, answers, parts));
                    return Ok(());
                }
                Op::Error => {
                    return Err(ErrorBody::decode(&body).unwrap_or_else(|error| lost(error.to_string())));
                }
                op => return Err(lost(format!("answered {op:?} to a chunk"))),
            }
        }
    }
}

/// A refusal that has come before the last frame was sent.
fn refusal(answers: &mut mpsc::Receiver<Answer>) -> Option<ErrorBody> {
    while let Ok(answer) = answers.try_recv() {
        if let Some(error) = refused(&answer) {
            return Some(error);
        }
    }
    None
}

/// The refusal for which the target closed, if it gave one.
async fn last_word(answers: &mut mpsc::Receiver<Answer>) -> Option<ErrorBody> {
    while let Some(answer) = answers.recv().await {
        if let Some(error) = refused(&answer) {
            return Some(error);
        }
    }
    None
}

fn refused(answer: &Answer) -> Option<ErrorBody> {
    match answer {
        Ok((header, body)) if header.op == Op::Error => ErrorBody::decode(body).ok(),
        _ => None,
    }
}
