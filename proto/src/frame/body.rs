//! The bodies of control frames. Each is at most [`FRAME_CONTROL_BYTES_MAX`] bytes; unknown bytes behind the last
//! field are ignored, so that a newer peer may say more.
//!
//! Numbers are little-endian; text and tokens are a `u16` length and their bytes.

use crate::error_code::ErrorCode;
use crate::limits::{ERROR_TEXT_BYTES_MAX, FRAME_CONTROL_BYTES_MAX, REPLICATION_MAX};
use crate::types::{ClusterId, Crc32c, HostPort, NodeId};

use super::FrameError;

/// Begins a connection: whom the caller means to speak to. A port may have passed to another process since the
/// caller was told about it, so the callee checks that it is the one meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// The datanode that is meant.
    pub node: NodeId,
    /// The cluster, or 0 when the caller does not know it.
    pub cluster: ClusterId,
    /// Room for an access token; empty for now.
    pub token: Vec<u8>,
}

/// One datanode of a pipeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hop {
    /// Its identity.
    pub node: NodeId,
    /// Its data plane.
    pub address: HostPort,
}

/// Begins a chunk: what to reserve and where to forward to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WriteOpen {
    /// Bytes to reserve on the disk; the chunk may turn out shorter, never longer.
    pub reserve: u64,
    /// The hops behind the receiver, in order; empty at the end of the pipeline.
    pub hops: Vec<Hop>,
}

/// The chunk is committed on the sender and on every hop behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WriteAck {
    /// Its length in bytes.
    pub length: u64,
    /// Of the whole chunk.
    pub crc: Crc32c,
    /// Who committed it, the answering hop first.
    pub nodes: Vec<NodeId>,
}

/// Why a request failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorBody {
    /// The reason.
    pub code: ErrorCode,
    /// Whose fault it is, as far as the sender can tell.
    pub node: NodeId,
    /// One line for a person.
    pub text: String,
}

impl Hello {
    /// The bytes on the wire.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(32);
        out.extend(self.node.0.to_le_bytes());
        out.extend(self.cluster.0.to_le_bytes());
        put_bytes(&mut out, &self.token);
        out
    }

    /// From the bytes on the wire.
    ///
    /// # Errors
    /// [`FrameError::Body`] for anything else.
    pub fn decode(bytes: &[u8]) -> Result<Self, FrameError> {
        let mut fields = Fields(bytes);
        let parse = |f: &mut Fields<'_>| {
            Some(Self { node: NodeId(f.u64()?), cluster: ClusterId(f.u128()?), token: f.bytes()?.to_vec() })
        };
        parse(&mut fields).ok_or(FrameError::Body("Hello"))
    }
}

impl WriteOpen {
    /// The bytes on the wire.
    ///
    /// # Panics
    /// With more than [`REPLICATION_MAX`] hops: the caller's mistake.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        assert!(self.hops.len() <= REPLICATION_MAX as usize, "a pipeline of {} hops", self.hops.len());
        let mut out = Vec::with_capacity(128);
        out.extend(self.reserve.to_le_bytes());
        out.push(self.hops.len() as u8);
        for hop in &self.hops {
            out.extend(hop.node.0.to_le_bytes());
            put_bytes(&mut out, hop.address.to_string().as_bytes());
        }
        out
    }

    /// From the bytes on the wire.
    ///
    /// # Errors
    /// [`FrameError::Body`] for anything else.
    pub fn decode(bytes: &[u8]) -> Result<Self, FrameError> {
        let mut fields = Fields(bytes);
        let parse = |f: &mut Fields<'_>| {
            let reserve = f.u64()?;
            let count = f.u8()?;
            if u32::from(count) > REPLICATION_MAX {
                return None;
            }
            let hops = (0..count)
                .map(|_| Some(Hop { node: NodeId(f.u64()?), address: f.text()?.parse().ok()? }))
                .collect::<Option<_>>()?;
            Some(Self { reserve, hops })
        };
        parse(&mut fields).ok_or(FrameError::Body("WriteOpen"))
    }
}

impl WriteAck {
    /// The bytes on the wire.
    ///
    /// # Panics
    /// With more than [`REPLICATION_MAX`] nodes: the caller's mistake.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        assert!(self.nodes.len() <= REPLICATION_MAX as usize, "{} nodes", self.nodes.len());
        let mut out = Vec::with_capacity(64);
        out.extend(self.length.to_le_bytes());
        out.extend(self.crc.0.to_le_bytes());
        out.push(self.nodes.len() as u8);
        for node in &self.nodes {
            out.extend(node.0.to_le_bytes());
        }
        out
    }

    /// From the bytes on the wire.
    ///
    /// # Errors
    /// [`FrameError::Body`] for anything else.
    pub fn decode(bytes: &[u8]) -> Result<Self, FrameError> {
        let mut fields = Fields(bytes);
        let parse = |f: &mut Fields<'_>| {
            let (length, crc, count) = (f.u64()?, Crc32c(f.u32()?), f.u8()?);
            if u32::from(count) > REPLICATION_MAX {
                return None;
            }
            let nodes = (0..count).map(|_| f.u64().map(NodeId)).collect::<Option<_>>()?;
            Some(Self { length, crc, nodes })
        };
        parse(&mut fields).ok_or(FrameError::Body("WriteAck"))
    }
}

impl ErrorBody {
    /// The bytes on the wire; text beyond [`ERROR_TEXT_BYTES_MAX`] is cut.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let text = self.text.as_bytes();
        let mut out = Vec::with_capacity(16 + text.len());
        out.extend(self.code.number().to_le_bytes());
        out.extend(self.node.0.to_le_bytes());
        put_bytes(&mut out, &text[..text.len().min(ERROR_TEXT_BYTES_MAX)]);
        out
    }

    /// From the bytes on the wire. A code from a newer peer becomes [`ErrorCode::Internal`].
    ///
    /// # Errors
    /// [`FrameError::Body`] for anything else.
    pub fn decode(bytes: &[u8]) -> Result<Self, FrameError> {
        let mut fields = Fields(bytes);
        let parse = |f: &mut Fields<'_>| {
            let code = ErrorCode::from_number(f.u16()?).unwrap_or(ErrorCode::Internal);
            let node = NodeId(f.u64()?);
            let text = String::from_utf8_lossy(f.bytes()?).replace(|c: char| c.is_control(), " ");
            Some(Self { code, node, text })
        };
        parse(&mut fields).ok_or(FrameError::Body("Error"))
    }
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    let len = u16::try_from(bytes.len()).expect("a field of a control frame");
    assert!(out.len() + bytes.len() + 2 <= FRAME_CONTROL_BYTES_MAX, "a control frame beyond its limit");
    out.extend(len.to_le_bytes());
    out.extend(bytes);
}

/// What is left of a body.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*first)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take().map(u8::from_le_bytes)
    }

    fn u16(&mut self) -> Option<u16> {
        self.take().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    fn u128(&mut self) -> Option<u128> {
        self.take().map(u128::from_le_bytes)
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let len = usize::from(self.u16()?);
        let (field, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(field)
    }

    fn text(&mut self) -> Option<&'a str> {
        std::str::from_utf8(self.bytes()?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn open() -> WriteOpen {
        let hop =
            |n: u64| Hop { node: NodeId(n), address: HostPort { host: "127.0.0.1".into(), port: 9100 } };
        WriteOpen { reserve: 64 << 20, hops: vec![hop(1), hop(2)] }
    }

    #[test]
    fn bodies_survive_the_wire() {
        let hello = Hello { node: NodeId(7), cluster: ClusterId(8), token: b"secret".to_vec() };
        let ack = WriteAck { length: 5, crc: Crc32c(6), nodes: vec![NodeId(1), NodeId(2), NodeId(3)] };
        let error = ErrorBody { code: ErrorCode::HopFailed, node: NodeId(2), text: "node 2: gone".into() };
        assert_eq!(Hello::decode(&hello.encode()), Ok(hello));
        assert_eq!(WriteOpen::decode(&open().encode()), Ok(open()));
        assert_eq!(WriteAck::decode(&ack.encode()), Ok(ack));
        assert_eq!(ErrorBody::decode(&error.encode()), Ok(error));
    }

    #[test]
    fn the_golden_open() {
        let one = WriteOpen { reserve: 0x1000, hops: open().hops[..1].to_vec() };
        let hex: String = one.encode().iter().map(|b| format!("{b:02x}")).collect();
        let golden =
            concat!("0010000000000000", "01", "0100000000000000", "0e00", "3132372e302e302e313a39313030");
        assert_eq!(hex, golden);
    }

    #[test]
    fn every_cut_body_is_refused() {
        let bytes = open().encode();
        for cut in 0..bytes.len() {
            assert!(WriteOpen::decode(&bytes[..cut]).is_err(), "cut at {cut}");
        }
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = (Hello::decode(&bytes), WriteOpen::decode(&bytes));
            let _ = (WriteAck::decode(&bytes), ErrorBody::decode(&bytes));
        }
    }
}
