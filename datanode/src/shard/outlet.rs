//! What leaves on a connection: the answers of several reads share it, and each goes out whole.

use std::cell::RefCell;
use std::io;
use std::ops::Range;
use std::rc::Rc;

use distrifs_engine::io::{Buf, Io, SendHalf, Shared, Window};
use tokio::sync::{Mutex, MutexGuard};
use tokio::task::yield_now;

use super::buffers::SMALL_READS_MAX;
use super::in_flight::InFlight;

/// Reads of one connection that wait for the disk at once.
const READS_MAX: usize = 32;
/// Of the buffers that the reads of all connections leave free, one may take this part, but always one: many whose peers
/// do not read leave some to others.
const SHARE_OF_FREE: usize = 4;
/// Frames up to this are copied to go out with others: a send of its own costs more.
const GATHERED_BYTES_MAX: usize = 16 << 10;

/// Whole frames, where they lie in a buffer.
type Frames = (Buf, Range<usize>);

/// What became of a frame that was to be gathered.
enum Gathered {
    /// The others come behind it, and it is to be sent with them.
    First,
    /// It goes out with another.
    Behind,
    NoRoom(Buf, Range<usize>),
}

/// The sending half of a connection. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Outlet {
    send: Rc<Mutex<SendHalf>>,
    /// Frames that are about to go out, behind each other in the buffer of the first.
    gathered: Rc<RefCell<Option<Frames>>>,
    reads: InFlight,
    /// Those of all connections of the shard.
    all_reads: InFlight,
}

impl Outlet {
    pub(crate) fn new(send: SendHalf, all_reads: InFlight) -> Self {
        let (send, gathered) = (Rc::new(Mutex::new(send)), Rc::default());
        Self { send, gathered, reads: InFlight::default(), all_reads }
    }

    /// Sends a whole frame, a small one with others that are ready by the time it can go: whoever was ready first sends
    /// for all, and for the others this is done when he has their bytes.
    pub(crate) async fn send_gathered(&self, frame: Buf, range: Range<usize>) -> io::Result<()> {
        if range.len() > GATHERED_BYTES_MAX {
            return self.send(frame.share(), range).await;
        }
        match self.gather(frame, range) {
            Gathered::First => self.send_those_gathered().await,
            Gathered::Behind => Ok(()),
            Gathered::NoRoom(frame, range) => self.send(frame.share(), range).await,
        }
    }

    fn gather(&self, frame: Buf, range: Range<usize>) -> Gathered {
        let mut gathered = self.gathered.borrow_mut();
        let Some((buffer, there)) = &mut *gathered else {
            *gathered = Some((frame, range));
            return Gathered::First;
        };
        let after = there.end + range.len();
        let Some(room) = buffer.get_mut(there.end..after) else { return Gathered::NoRoom(frame, range) };
        room.copy_from_slice(&frame[range]);
        there.end = after;
        Gathered::Behind
    }

    async fn send_those_gathered(&self) -> io::Result<()> {
        // Whose bytes the disk has delivered too is heard first.
        yield_now().await;
        let mut send = self.send.lock().await;
        let Some((buffer, range)) = self.gathered.take() else { return Ok(()) };
        send.send_all(buffer.share(), range).await
    }

    /// Sends whole frames.
    pub(crate) async fn send(&self, frames: Shared, range: Range<usize>) -> io::Result<()> {
        self.send.lock().await.send_all(frames, range).await
    }

    /// Sends a whole frame whose payload is in the page cache.
    pub(crate) async fn send_window(&self, frame: Window, range: Range<usize>) -> io::Result<()> {
        self.send.lock().await.send_window(frame, range).await
    }

    /// Whether [`begin`](Self::begin) would have to wait.
    pub(crate) fn is_full(&self) -> bool {
        self.reads.count() >= self.reads_max()
    }

    /// How many reads may be under way here.
    fn reads_max(&self) -> usize {
        let free = SMALL_READS_MAX.saturating_sub(self.all_reads.count());
        (free / SHARE_OF_FREE).clamp(1, READS_MAX)
    }

    /// Has a read answered beside what comes next, as soon as there are few enough.
    pub(crate) async fn begin(&self, io: &Io, read: impl Future<Output = ()> + 'static) {
        while self.is_full() {
            self.reads.fewer_than(self.reads.count()).await;
        }
        self.reads.spawn(io, self.all_reads.counted(read));
    }

    /// The sending half alone, once all reads are answered.
    pub(crate) async fn alone(&self) -> MutexGuard<'_, SendHalf> {
        self.reads.drained().await;
        self.send.lock().await
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use distrifs_engine::io::{Body, SimWorld, block_on};

    use super::*;

    const ROOM: usize = 4096;
    const FRAME: usize = 1000;
    const FRAMES: u8 = 5;

    fn frame(number: u8) -> Buf {
        let mut frame = Buf::alloc(ROOM);
        frame[..FRAME].fill(number);
        frame
    }

    /// Four find room in the buffer of the first; the fifth goes alone. Nobody but the first waits for them.
    #[test]
    fn frames_that_are_ready_while_another_is_sent_go_out_together() {
        let most = usize::from(FRAMES) * FRAME;
        let sent = block_on(Body::Sim(SimWorld::new(1)), |io| async move {
            let listener = io.listen("127.0.0.1:0".parse().expect("an address")).await.expect("a port");
            let near = io.connect(listener.local_addr().expect("a port")).await.expect("it listens");
            let (far, _) = listener.accept().await.expect("a connection");
            let outlet = Outlet::new(near.into_split().1, InFlight::default());
            let busy = outlet.send.lock().await;
            let over = Rc::new(Cell::new(0));
            for number in 0..FRAMES {
                let (own, over) = (outlet.clone(), over.clone());
                let read = async move {
                    own.send_gathered(frame(number), 0..FRAME).await.expect("it is taken");
                    over.set(over.get() + 1);
                };
                outlet.begin(&io, read).await;
            }
            for _ in 0..100 {
                yield_now().await;
            }
            let gathered = outlet.gathered.borrow().as_ref().map(|(_, range)| range.clone());
            assert_eq!((over.get(), gathered), (3, Some(0..4 * FRAME)));
            drop(busy);
            drop(outlet.alone().await);
            assert_eq!((over.get(), outlet.gathered.borrow().is_none()), (usize::from(FRAMES), true));
            let (received, bytes) = far.into_split().0.recv_exact(Buf::alloc(2 * ROOM), 0..most).await;
            assert_eq!(received.expect("all are sent"), most);
            bytes[..most].to_vec()
        });
        let mut numbers: Vec<u8> = sent
            .expect("it runs")
            .chunks(FRAME)
            .map(|frame| {
                assert!(frame.iter().all(|byte| *byte == frame[0]), "frames are whole");
                frame[0]
            })
            .collect();
        numbers.sort_unstable();
        assert_eq!(numbers, (0..FRAMES).collect::<Vec<u8>>());
    }
}
