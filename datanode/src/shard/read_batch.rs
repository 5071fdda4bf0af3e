//! Small reads that have arrived together are answered together: those whose bytes are in the page cache out of one
//! buffer by one send, at once, on the shard's thread; the others each as soon as the disk has delivered.

use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use distrifs_engine::io::Buf;
use distrifs_proto::frame::{Header, Op, Placement, seal_at};

use super::Shard;
use super::buffers::SMALL_PAYLOAD_BYTES;
use super::intake::Intake;
use super::outlet::Outlet;
use super::read;
use super::wire::WireError;
use crate::node::Counters;
use crate::stage::Stage;

/// Reads that are taken before other connections have their turn.
const READS_MAX: usize = 64;

/// Whether a request is a read that may be answered beside others.
pub(crate) fn is_small_read(request: &Header) -> bool {
    request.op == Op::Read && request.length as usize <= SMALL_PAYLOAD_BYTES
}

/// Answers a small read and those that have arrived behind it.
pub(crate) async fn serve(
    shard: &Rc<Shard>,
    first: Header,
    intake: &mut Intake,
    outlet: &Outlet,
) -> Result<(), WireError> {
    let mut batch = Batch { shard, outlet, buffer: None, filled: 0, ready: Vec::new(), bytes: 0 };
    let (mut request, mut taken) = (first, 1);
    loop {
        if !batch.take(&request).await? {
            if outlet.is_full() {
                batch.send().await?;
            }
            let (shard, outlet) = (shard.clone(), outlet.clone());
            // In a box: it is large, and would be moved from hand to hand until it runs.
            let reading = Box::pin(async move {
                // Where the reader is gone, the connection finds out by itself.
                let _ = read::serve(&shard, request, &outlet).await;
            });
            batch.outlet.begin(&batch.shard.io, reading).await;
        }
        match intake.next_here() {
            Some(next) if taken < READS_MAX && is_small_read(&next) => request = intake.take()?,
            _ => break,
        }
        taken += 1;
    }
    batch.send().await?;
    Ok(())
}

/// Answers that go out together.
struct Batch<'a> {
    shard: &'a Rc<Shard>,
    outlet: &'a Outlet,
    buffer: Option<Buf>,
    filled: usize,
    /// When each was ready.
    ready: Vec<Duration>,
    bytes: u64,
}

impl Batch<'_> {
    /// Takes a read if all it needs is in memory, and nobody wants to see how it passes from stage to stage.
    async fn take(&mut self, request: &Header) -> std::io::Result<bool> {
        let shard = self.shard;
        if request.is_traced() || request.is_direct() || shard.holds_up_reads() {
            return Ok(false);
        }
        let began = shard.io.now();
        let Some((reader, _)) = shard.readers.borrow_mut().get(request.chunk, false) else {
            return Ok(false);
        };
        let Ok(bytes) = read::covered(shard.node.id, request, &reader) else { return Ok(false) };
        let length = (bytes.end - bytes.start) as usize;
        if length > SMALL_PAYLOAD_BYTES {
            return Ok(false);
        }
        let opened = shard.io.now();
        let room = self.buffer.as_ref().map_or(0, |buffer| buffer.len() - self.filled);
        if Placement::at(0, length).payload.end > room {
            self.send().await?;
            self.buffer = Some(shard.buffers.for_read(length).await);
        }
        let Some(buffer) = &mut self.buffer else { return Ok(false) };
        let place = Placement::at(self.filled, length);
        let queued = shard.io.now();
        // Damaged or not to be read: the ordinary way says what is wrong.
        let Some(Ok(())) = reader.try_read(&mut buffer[place.payload.clone()], &bytes) else {
            return Ok(false);
        };
        let read = shard.io.now();
        let header = read::answer(request, &reader, &bytes, true);
        self.filled = seal_at(buffer, &place, &header, reader.crcs(&bytes).iter().copied()).end;
        let sealed = shard.io.now();
        let stages = [
            (Stage::ReadOpen, opened - began),
            (Stage::ReadQueue, queued - opened),
            (Stage::ReadDisk, read - queued),
            (Stage::ReadSeal, sealed - read),
        ];
        stages.into_iter().for_each(|(stage, took)| shard.latency.record(stage, took));
        self.ready.push(sealed);
        self.bytes += length as u64;
        Ok(true)
    }

    /// Sends what is ready.
    async fn send(&mut self) -> std::io::Result<()> {
        let Some(buffer) = self.buffer.take() else { return Ok(()) };
        let end = std::mem::take(&mut self.filled);
        if end == 0 {
            return Ok(());
        }
        let (counters, reads) = (&self.shard.node.counters, self.ready.len() as u64);
        Counters::add(&counters.reads, reads);
        Counters::add(&counters.open_reads, reads);
        Counters::add(&counters.bytes_sent, std::mem::take(&mut self.bytes));
        let sent = self.outlet.send(buffer.share(), 0..end).await;
        let now = self.shard.io.now();
        for ready in self.ready.drain(..) {
            self.shard.latency.record(Stage::ReadSend, now.saturating_sub(ready));
        }
        counters.open_reads.fetch_sub(reads, Ordering::Relaxed);
        sent
    }
}
