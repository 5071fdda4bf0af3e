//! A connection to one datanode that carries many small reads at once. Requests of all who read are gathered into one
//! send, and answers are taken out of what one receive brings.
//!
//! Whoever reads alone sends by himself; where others read, he leaves it to the link's own task, which sends once all who
//! can run have had their turn. It also receives, checks and hands out.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use distrifs_proto::limits::BLOCK_BYTES;
use tokio::io::AsyncReadExt;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Notify, Semaphore, SemaphorePermit, oneshot};
use tokio::task::yield_now;

use crate::connection::Connection;
use crate::link_state::{Arrived, LINK_FRAME_BYTES_MAX, LINK_READS_MAX, LinkRead, LinkState, Missed};
use crate::status::Node;

/// Blocks that are asked for at once; whoever wants more waits. Each read wants at least one.
const BLOCKS_MAX: usize = 512;
/// What one receive brings at most.
const RECEIVE_BYTES: usize = 256 << 10;

const _: () = assert!(LINK_FRAME_BYTES_MAX <= RECEIVE_BYTES);
const _: () = assert!(BLOCKS_MAX <= LINK_READS_MAX);

type Answer = Result<Vec<u8>, Missed>;

/// Who waits for an answer, and the blocks that he may ask for again when it is here.
#[derive(Debug)]
struct Reader {
    tell: oneshot::Sender<Answer>,
    blocks: usize,
}

/// The blocks that a read asks for.
fn blocks_of(read: &LinkRead) -> usize {
    (read.header.length as usize).div_ceil(BLOCK_BYTES)
}

/// What may be expected of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Reads are under way.
    Busy,
    /// None is, and nothing has been heard for so long.
    Idle(Duration),
    /// It was closed for this reason.
    Closed(Missed),
}

/// The link. Its task ends when it is closed.
#[derive(Debug)]
pub(crate) struct ReadLink {
    node: Node,
    table: Mutex<Table>,
    send: OnceLock<OwnedWriteHalf>,
    /// The task has something else to do than to receive.
    changed: Notify,
    room: Semaphore,
}

#[derive(Debug)]
struct Table {
    reads: LinkState<Reader>,
    /// Requests that were not sent yet.
    out: Vec<u8>,
    /// Sent last; its memory is used again.
    spare: Vec<u8>,
    /// Somebody sends, or is about to: others leave their requests to him.
    sending: bool,
    /// It is the task that is about to.
    gathering: bool,
    /// The kernel takes no more: it is the task's to wait until it does.
    blocked: bool,
    closed: Option<Missed>,
    /// When something was received last.
    heard: Instant,
}

impl ReadLink {
    /// A link to this node, which is connected to within `patience` by a task of its own.
    pub(crate) fn open(node: &Node, patience: Duration) -> Arc<Self> {
        let table = Table {
            reads: LinkState::default(),
            out: Vec::new(),
            spare: Vec::new(),
            sending: true,
            gathering: false,
            blocked: false,
            closed: None,
            heard: Instant::now(),
        };
        let link = Arc::new(Self {
            node: node.clone(),
            table: Mutex::new(table),
            send: OnceLock::new(),
            changed: Notify::new(),
            room: Semaphore::new(BLOCKS_MAX),
        });
        let closing = Closing(link.clone());
        tokio::spawn(async move {
            if let Err(error) = closing.0.serve(patience).await {
                tracing::debug!(node = %closing.0.node.id, %error, "a link of small reads has ended");
            }
        });
        link
    }

    /// Where it leads.
    pub(crate) fn node(&self) -> &Node {
        &self.node
    }

    /// Waits until there is room for this read: a queue of the client's own, of which the node knows nothing.
    pub(crate) async fn room(&self, read: &LinkRead) -> Result<SemaphorePermit<'_>, Missed> {
        let room = self.room.acquire_many(blocks_of(read) as u32).await;
        room.map_err(|_| self.why())
    }

    /// The wanted bytes, which have passed their checksums; for whom has the [`room`](Self::room). Whoever stops waiting
    /// disturbs nobody.
    pub(crate) async fn read(&self, read: LinkRead, room: SemaphorePermit<'_>) -> Answer {
        let blocks = blocks_of(&read);
        let (tell, told) = oneshot::channel();
        {
            let mut table = self.table();
            if let Some(why) = table.closed {
                return Err(why);
            }
            // It comes back with the answer.
            room.forget();
            let alone = table.reads.is_idle();
            let request = table.reads.begin(read, Reader { tell, blocks });
            table.out.extend(request);
            let sends = !std::mem::replace(&mut table.sending, true);
            table.gathering |= sends && !alone;
            drop(table);
            match (sends, alone) {
                (true, true) => self.send(),
                (true, false) => self.changed.notify_one(),
                (false, _) => {}
            }
        }
        told.await.unwrap_or_else(|_| Err(self.why()))
    }

    /// Ends it; reads under way are missed for this reason.
    pub(crate) fn close(&self, why: Missed) {
        let mut table = self.table();
        if table.closed.is_some() {
            return;
        }
        let readers: Vec<Reader> = table.reads.end().collect();
        table.closed = Some(if readers.is_empty() { Missed::Ended } else { why });
        drop(table);
        self.room.close();
        self.changed.notify_one();
        for reader in readers {
            // He may be gone.
            let _ = reader.tell.send(Err(why));
        }
    }

    /// Whether nothing at all was received for so long.
    pub(crate) fn is_silent(&self, patience: Duration, now: Instant) -> bool {
        now.saturating_duration_since(self.table().heard) >= patience
    }

    /// Why it was closed, where it was.
    pub(crate) fn closed(&self) -> Option<Missed> {
        self.table().closed
    }

    /// Whether it may be read over: why it was closed, or for how long it has been of no use to anybody.
    pub(crate) fn standing(&self, now: Instant) -> Standing {
        let table = self.table();
        match table.closed {
            Some(why) => Standing::Closed(why),
            None if table.reads.is_idle() => Standing::Idle(now.saturating_duration_since(table.heard)),
            None => Standing::Busy,
        }
    }

    /// Why a read that is not answered was missed.
    fn why(&self) -> Missed {
        self.closed().unwrap_or(Missed::Fault)
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends what there is to send; only for whom has set `sending`.
    fn send(&self) {
        let Some(send) = self.send.get() else { return };
        let mut batch = Vec::new();
        loop {
            let mut table = self.table();
            if batch.capacity() > 0 {
                table.spare = batch;
            }
            if table.out.is_empty() {
                table.sending = false;
                return;
            }
            batch = std::mem::take(&mut table.spare);
            std::mem::swap(&mut batch, &mut table.out);
            drop(table);
            let sent = match send.try_write(&batch) {
                Ok(sent) => sent,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
                Err(_) => return self.close(Missed::Fault),
            };
            if sent < batch.len() {
                let mut table = self.table();
                batch.drain(..sent);
                batch.append(&mut table.out);
                table.out = batch;
                table.blocked = true;
                drop(table);
                self.changed.notify_one();
                return;
            }
            batch.clear();
        }
    }

    async fn serve(&self, patience: Duration) -> io::Result<()> {
        let mut connection = Connection::open(&self.node, patience).await?;
        let hello = connection.hello();
        let (mut recv, send) = connection.stream.into_split();
        self.table().out.splice(0..0, hello);
        let send = self.send.get_or_init(|| send);
        self.send();
        let (mut buffer, mut there) = (vec![0; RECEIVE_BYTES], 0..0);
        loop {
            if buffer.len() - there.end < LINK_FRAME_BYTES_MAX {
                buffer.copy_within(there.clone(), 0);
                there = 0..there.len();
            }
            let Some(received) = self.receive(&mut recv, send, &mut buffer[there.end..]).await? else {
                continue;
            };
            there.end += received;
            there.start += self.hand_out(&buffer[there.clone()]).await?;
            if there.is_empty() {
                there = 0..0;
            }
        }
    }

    /// Receives; or does what else there is to do, and receives nothing.
    async fn receive(
        &self,
        recv: &mut OwnedReadHalf,
        send: &OwnedWriteHalf,
        into: &mut [u8],
    ) -> io::Result<Option<usize>> {
        let blocked = self.table().blocked;
        tokio::select! {
            biased;
            received = recv.read(into) => match received? {
                0 => Err(io::ErrorKind::UnexpectedEof.into()),
                received => Ok(Some(received)),
            },
            () = self.changed.notified() => {
                if self.closed().is_some() {
                    return Err(io::ErrorKind::ConnectionAborted.into());
                }
                self.gather().await;
                Ok(None)
            }
            writable = send.writable(), if blocked => {
                writable?;
                self.table().blocked = false;
                self.send();
                Ok(None)
            }
        }
    }

    /// Sends what was left to the task, and what those leave to it who run first.
    async fn gather(&self) {
        if std::mem::take(&mut self.table().gathering) {
            yield_now().await;
            self.send();
        }
    }

    /// Hands out the answers that are whole; how many bytes they were.
    async fn hand_out(&self, bytes: &[u8]) -> io::Result<usize> {
        let (mut answers, mut at) = (Vec::new(), 0);
        let violated = {
            let mut table = self.table();
            let violated = loop {
                match table.reads.arrived(&bytes[at..]) {
                    Arrived::Answer(reader, answer) => {
                        let end = at + answer.length();
                        answers.push((reader, answer, at..end));
                        at = end;
                    }
                    Arrived::Part => break false,
                    Arrived::Violation => break true,
                }
            };
            table.heard = Instant::now();
            // One alone asks again without a detour.
            if answers.len() > 1 && !table.sending {
                (table.sending, table.gathering) = (true, true);
            }
            violated
        };
        self.room.add_permits(answers.iter().map(|(reader, ..)| reader.blocks).sum());
        for (reader, answer, frame) in answers {
            // He may be gone.
            let _ = reader.tell.send(answer.check(&bytes[frame]));
        }
        self.gather().await;
        if violated { Err(io::ErrorKind::InvalidData.into()) } else { Ok(at) }
    }
}

/// Closes the link with its task, however that ends.
struct Closing(Arc<ReadLink>);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.close(Missed::Fault);
    }
}
