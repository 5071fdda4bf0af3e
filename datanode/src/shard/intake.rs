//! What arrives on a connection. Requests are received as many at a time as have come; the frames of a chunk one part
//! at a time, so that each payload lands in the buffer it is written from.

use std::io;
use std::ops::Range;

use distrifs_engine::io::{Buf, RecvHalf};
use distrifs_proto::frame::{HEADER_BYTES, Header};

use super::wire::WireError;

/// Headers that are received at once.
const HEADERS_MAX: usize = 64;
const BUFFER_BYTES: usize = HEADERS_MAX * HEADER_BYTES;

/// The receiving half of a connection, and what has arrived on it and was not taken yet. A receive that was dropped may
/// have taken bytes: the connection is to be closed.
pub(crate) struct Intake {
    recv: RecvHalf,
    buffer: Option<Buf>,
    /// The bytes of the buffer that were not taken.
    there: Range<usize>,
}

impl Intake {
    pub(crate) fn new(recv: RecvHalf) -> Self {
        Self { recv, buffer: None, there: 0..0 }
    }

    /// The next header, and nothing behind it that has not arrived yet.
    pub(crate) async fn header(&mut self) -> Result<Header, WireError> {
        self.arrive(HEADER_BYTES).await?;
        self.take()
    }

    /// The next header; what has come behind it is received as well.
    pub(crate) async fn request(&mut self) -> Result<Header, WireError> {
        self.arrive(BUFFER_BYTES).await?;
        self.take()
    }

    /// The next header, if it is here and is sound; it is still to be taken.
    pub(crate) fn next_here(&self) -> Option<Header> {
        Header::decode(&self.first()?).ok()
    }

    /// Takes the header that is here.
    pub(crate) fn take(&mut self) -> Result<Header, WireError> {
        let bytes = self.first().ok_or(WireError::Closed)?;
        self.there.start += HEADER_BYTES;
        Ok(Header::decode(&bytes)?)
    }

    /// Fills a range of a buffer with what comes next, as [`RecvHalf::recv_exact`] does.
    pub(crate) async fn body(&mut self, mut into: Buf, range: Range<usize>) -> (io::Result<usize>, Buf) {
        let here = self.there.len().min(range.len());
        if let Some(buffer) = &self.buffer {
            let from = self.there.start;
            into[range.start..range.start + here].copy_from_slice(&buffer[from..from + here]);
        }
        self.there.start += here;
        if here == range.len() {
            return (Ok(here), into);
        }
        let (received, into) = self.recv.recv_exact(into, range.start + here..range.end).await;
        let received = match received {
            Ok(0) if here > 0 => Err(io::ErrorKind::UnexpectedEof.into()),
            received => received.map(|n| n + here),
        };
        (received, into)
    }

    fn first(&self) -> Option<[u8; HEADER_BYTES]> {
        let bytes = &self.buffer.as_ref()?[self.there.clone()];
        bytes.first_chunk().copied()
    }

    /// Waits until a header is here; takes as much from the kernel as makes `most` bytes.
    async fn arrive(&mut self, most: usize) -> Result<(), WireError> {
        while self.there.len() < HEADER_BYTES {
            let mut buffer = self.buffer.take().unwrap_or_else(|| Buf::alloc(BUFFER_BYTES));
            buffer.copy_within(self.there.clone(), 0);
            self.there = 0..self.there.len();
            let received;
            (received, buffer) = self.recv.recv(buffer, self.there.end..most).await;
            self.buffer = Some(buffer);
            match received? {
                0 if self.there.is_empty() => return Err(WireError::Closed),
                0 => {
                    let text = format!("the peer closed after {} bytes of a header", self.there.len());
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, text).into());
                }
                received => self.there.end += received,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use distrifs_engine::io::{Body, SimWorld, block_on};
    use distrifs_proto::frame::Op;

    use super::*;

    const BODY: usize = 10_000;

    fn header(number: u64) -> Header {
        Header { length: BODY as u32, ..Header::new(Op::WriteData, number) }
    }

    /// Headers, a body behind one of them, and more headers: the simulated network cuts them anywhere.
    #[test]
    fn headers_and_bodies_are_told_apart_in_whatever_pieces_they_come() {
        for seed in 0..20 {
            let body: Vec<u8> = (0..BODY).map(|at| (at % 251) as u8).collect();
            let sent = [
                (0..100).flat_map(|number| header(number).encode()).collect::<Vec<u8>>(),
                body.clone(),
                (100..180).flat_map(|number| header(number).encode()).collect(),
                vec![7; 10],
            ];
            let sent = sent.concat();
            block_on(Body::Sim(SimWorld::new(seed)), |io| async move {
                let listener = io.listen("127.0.0.1:0".parse().expect("an address")).await.expect("a port");
                let near = io.connect(listener.local_addr().expect("a port")).await.expect("it listens");
                let (far, _) = listener.accept().await.expect("a connection");
                io.spawn(async move {
                    let (_, mut send) = near.into_split();
                    let mut all = Buf::alloc(sent.len());
                    all.copy_from_slice(&sent);
                    let end = all.len();
                    send.send_all(all.share(), 0..end).await.expect("it is taken");
                });
                let mut intake = Intake::new(far.into_split().0);
                let mut together = 0;
                for number in 0..180 {
                    let here = intake.next_here();
                    let got = if number == 99 { intake.header().await } else { intake.request().await };
                    let got = got.expect("a header");
                    assert_eq!(got, header(number), "seed {seed}");
                    assert!(here.is_none_or(|here| here == got));
                    together += usize::from(here.is_some());
                    if number == 99 {
                        let (received, filled) = intake.body(Buf::alloc(BODY + 3), 3..BODY + 3).await;
                        assert_eq!((received.expect("the body"), &filled[3..]), (BODY, &body[..]));
                    }
                }
                assert!(together > 0, "some have come together");
                assert!(intake.next_here().is_none());
                let cut = intake.request().await.expect_err("ten bytes are no header");
                assert!(matches!(&cut, WireError::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof));
            })
            .expect("it runs");
        }
    }
}
