//! Frames over a connection of the I/O seam.

use std::io;

use distrifs_engine::io::{Buf, RecvHalf, SendHalf};
use distrifs_proto::frame::{self, FrameError, HEADER_BYTES, Header, PAYLOAD_START, Placement};

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

/// Receives one header. `scratch` is any buffer of at least [`HEADER_BYTES`]; it is put back.
pub(crate) async fn recv_header(recv: &mut RecvHalf, scratch: &mut Option<Buf>) -> Result<Header, WireError> {
    let buffer = scratch.take().unwrap_or_else(|| Buf::alloc(HEADER_BYTES));
    let (received, buffer) = recv.recv_exact(buffer, 0..HEADER_BYTES).await;
    let mut bytes = [0; HEADER_BYTES];
    bytes.copy_from_slice(&buffer[..HEADER_BYTES]);
    *scratch = Some(buffer);
    match received? {
        0 => Err(WireError::Closed),
        _ => Ok(Header::decode(&bytes)?),
    }
}

/// Receives what follows `header` into its place in `buffer`, and the header before it. Its checksums are to be
/// compared.
pub(crate) async fn recv_body(
    recv: &mut RecvHalf,
    header: &Header,
    mut buffer: Buf,
) -> (Result<Placement, WireError>, Buf) {
    let place = Placement::of(header.payload_bytes());
    buffer[place.header.clone()].copy_from_slice(&header.encode());
    if place.payload.is_empty() {
        return (Ok(place), buffer);
    }
    let (received, buffer) = recv.recv_exact(buffer, place.body()).await;
    let received = match received {
        Ok(0) => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
        Ok(_) => Ok(place),
        Err(error) => Err(error.into()),
    };
    (received, buffer)
}

/// Receives the body of a control frame.
pub(crate) async fn recv_control(recv: &mut RecvHalf, header: &Header) -> Result<Vec<u8>, WireError> {
    let buffer = Buf::alloc(PAYLOAD_START + header.payload_bytes());
    let (place, buffer) = recv_body(recv, header, buffer).await;
    let place = place?;
    frame::verify(&buffer, &place)?;
    Ok(buffer[place.payload].to_vec())
}

/// Sends a frame with this body.
pub(crate) async fn send_control(send: &mut SendHalf, mut header: Header, body: &[u8]) -> io::Result<()> {
    let mut buffer = Buf::alloc(PAYLOAD_START + body.len());
    buffer[PAYLOAD_START..PAYLOAD_START + body.len()].copy_from_slice(body);
    header.length = u32::try_from(body.len()).expect("a control frame is within its limit");
    let frame = frame::seal(&mut buffer, &header);
    send.send_all(buffer.share(), frame).await
}
