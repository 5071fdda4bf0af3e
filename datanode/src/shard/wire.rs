//! Frames over a connection of the I/O seam.

use std::io;
use std::ops::Range;

use distrifs_engine::io::{Buf, SendHalf, Shared};
use distrifs_proto::frame::{self, FrameError, Header, PAYLOAD_START, Placement};

use super::intake::Intake;

/// Why nothing more is read from a connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WireError {
    /// The peer closed, at the end of a frame.
    #[error("the connection was closed")]
    Closed,
    /// The connection broke.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// What came is no frame of ours.
    #[error(transparent)]
    Frame(#[from] FrameError),
}

/// Receives what follows `header` into its place in `buffer`, and the header before it. Its checksums are to be
/// compared.
pub(crate) async fn recv_body(
    intake: &mut Intake,
    header: &Header,
    mut buffer: Buf,
) -> (Result<Placement, WireError>, Buf) {
    let place = Placement::of(header.payload_bytes());
    buffer[place.header.clone()].copy_from_slice(&header.encode());
    if place.payload.is_empty() {
        return (Ok(place), buffer);
    }
    let (received, buffer) = intake.body(buffer, place.body()).await;
    let received = match received {
        Ok(0) => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
        Ok(_) => Ok(place),
        Err(error) => Err(error.into()),
    };
    (received, buffer)
}

/// Receives the body of a control frame.
pub(crate) async fn recv_control(intake: &mut Intake, header: &Header) -> Result<Vec<u8>, WireError> {
    let buffer = Buf::alloc(PAYLOAD_START + header.payload_bytes());
    let (place, buffer) = recv_body(intake, header, buffer).await;
    let place = place?;
    frame::verify(&buffer, &place)?;
    Ok(buffer[place.payload].to_vec())
}

/// A frame with this body, and its place.
pub(crate) fn control(mut header: Header, body: &[u8]) -> (Shared, Range<usize>) {
    let mut buffer = Buf::alloc(PAYLOAD_START + body.len());
    buffer[PAYLOAD_START..PAYLOAD_START + body.len()].copy_from_slice(body);
    header.length = u32::try_from(body.len()).expect("a control frame is within its limit");
    let frame = frame::seal(&mut buffer, &header);
    (buffer.share(), frame)
}

/// Sends a frame with this body.
pub(crate) async fn send_control(send: &mut SendHalf, header: Header, body: &[u8]) -> io::Result<()> {
    let (buffer, frame) = control(header, body);
    send.send_all(buffer, frame).await
}
