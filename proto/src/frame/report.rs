//! The bodies of reports: how long the stages of a node take, and what it remembers of one trace. They are longer than
//! control frames, and bounded by [`FRAME_PAYLOAD_BYTES_MAX`].
//!
//! Numbers are little-endian; names are a `u8` length and their bytes.

use std::borrow::Cow;

use super::FrameError;
use crate::latency::{HISTOGRAM_BYTES_MAX, Span, StageHistogram, TracedOperation};
use crate::limits::FRAME_PAYLOAD_BYTES_MAX;

/// Stages in one report; a datanode has fewer.
pub const STAGES_MAX: usize = 32;

const _: () = assert!(STAGES_MAX * (HISTOGRAM_BYTES_MAX + 256 + 4) < FRAME_PAYLOAD_BYTES_MAX);

/// How long each stage took since the start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LatencyReport {
    /// One for each stage, in the order of an operation's way.
    pub stages: Vec<StageHistogram>,
}

/// What a node remembers of one trace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceReport {
    /// Oldest first.
    pub operations: Vec<TracedOperation>,
}

impl LatencyReport {
    /// The bytes on the wire.
    ///
    /// # Panics
    /// With more than [`STAGES_MAX`] stages: the caller's mistake.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        assert!(self.stages.len() <= STAGES_MAX, "{} stages", self.stages.len());
        let mut out = vec![self.stages.len() as u8];
        for stage in &self.stages {
            put_name(&mut out, &stage.name);
            out.extend((stage.v2.len() as u32).to_le_bytes());
            out.extend(&stage.v2);
        }
        out
    }

    /// From the bytes on the wire.
    ///
    /// # Errors
    /// [`FrameError::Body`] for anything else.
    pub fn decode(bytes: &[u8]) -> Result<Self, FrameError> {
        let mut fields = Fields(bytes);
        let mut parse = || {
            let count = usize::from(fields.u8()?);
            let stage = |fields: &mut Fields<'_>| {
                let name = fields.name()?;
                let len = fields.u32()? as usize;
                Some(StageHistogram { name, v2: fields.bytes(len)?.to_vec() })
            };
            (count <= STAGES_MAX).then(|| (0..count).map(|_| stage(&mut fields)).collect::<Option<_>>())?
        };
        parse().map(|stages| Self { stages }).ok_or(FrameError::Body("LatencyReport"))
    }
}

impl TraceReport {
    /// The bytes on the wire; the oldest operations are left out where all of them do not fit.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut names: Vec<&str> = Vec::new();
        let mut parts = Vec::new();
        let mut bytes = 0;
        for operation in self.operations.iter().rev() {
            let part = encode_operation(operation, &mut names);
            bytes += part.len();
            let table: usize = names.iter().map(|name| name.len() + 1).sum();
            if bytes + table + 16 > FRAME_PAYLOAD_BYTES_MAX {
                break;
            }
            parts.push(part);
        }
        let mut out = vec![names.len() as u8];
        names.iter().for_each(|name| put_name(&mut out, name));
        out.extend((parts.len() as u32).to_le_bytes());
        parts.iter().rev().for_each(|part| out.extend(part));
        out
    }

    /// From the bytes on the wire.
    ///
    /// # Errors
    /// [`FrameError::Body`] for anything else.
    pub fn decode(bytes: &[u8]) -> Result<Self, FrameError> {
        let mut fields = Fields(bytes);
        let mut parse = || {
            let names: Vec<Cow<'static, str>> =
                (0..fields.u8()?).map(|_| fields.name()).collect::<Option<_>>()?;
            let count = fields.u32()?;
            (0..count).map(|_| decode_operation(&mut fields, &names)).collect::<Option<Vec<_>>>()
        };
        parse().map(|operations| Self { operations }).ok_or(FrameError::Body("TraceReport"))
    }
}

fn encode_operation<'a>(operation: &'a TracedOperation, names: &mut Vec<&'a str>) -> Vec<u8> {
    let mut out = Vec::with_capacity(40 + operation.spans.len() * 9);
    out.extend(operation.chunk.to_le_bytes());
    out.extend(operation.part.to_le_bytes());
    out.push(u8::from(operation.next_us.is_some()));
    out.extend(operation.next_us.unwrap_or_default().to_le_bytes());
    out.extend(operation.took_us.to_le_bytes());
    out.extend((operation.spans.len() as u32).to_le_bytes());
    for span in &operation.spans {
        let known = names.iter().position(|name| *name == span.stage);
        let at = known.unwrap_or_else(|| {
            names.push(&span.stage);
            names.len() - 1
        });
        out.push(u8::try_from(at).expect("fewer stages than that"));
        out.extend(span.start_us.to_le_bytes());
        out.extend(span.end_us.to_le_bytes());
    }
    out
}

fn decode_operation(fields: &mut Fields<'_>, names: &[Cow<'static, str>]) -> Option<TracedOperation> {
    let (chunk, part) = (fields.u64()?, fields.u64()?);
    let (has_next, next_us) = (fields.u8()? != 0, fields.u32()?);
    let took_us = fields.u32()?;
    let count = fields.u32()?;
    let span = |fields: &mut Fields<'_>| {
        let stage = names.get(usize::from(fields.u8()?))?.clone();
        Some(Span { stage, start_us: fields.u32()?, end_us: fields.u32()? })
    };
    let spans = (0..count).map(|_| span(fields)).collect::<Option<_>>()?;
    Some(TracedOperation { chunk, part, next_us: has_next.then_some(next_us), took_us, spans })
}

fn put_name(out: &mut Vec<u8>, name: &str) {
    out.push(u8::try_from(name.len()).expect("the short name of a stage"));
    out.extend(name.as_bytes());
}

/// What is left of a body.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn bytes(&mut self, len: usize) -> Option<&'a [u8]> {
        let (first, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(first)
    }

    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.bytes(N)?.try_into().ok()
    }

    fn u8(&mut self) -> Option<u8> {
        self.take().map(u8::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    /// A name, without what a terminal would obey.
    fn name(&mut self) -> Option<Cow<'static, str>> {
        let len = usize::from(self.u8()?);
        let text = String::from_utf8_lossy(self.bytes(len)?).replace(|c: char| c.is_control(), " ");
        Some(text.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::latency::SPANS_MAX;
    use proptest::prelude::*;

    fn operation(part: u64, spans: usize) -> TracedOperation {
        let span = |i: usize| Span { stage: ["a", "b"][i % 2].into(), start_us: i as u32, end_us: u32::MAX };
        TracedOperation {
            chunk: 9,
            part,
            next_us: Some(3),
            took_us: 7,
            spans: (0..spans).map(span).collect(),
        }
    }

    #[test]
    fn reports_arrive_as_they_were() {
        let stage = |name: &'static str| StageHistogram { name: name.into(), v2: vec![1, 2, 3] };
        let report = LatencyReport { stages: vec![stage("write.sync"), stage("read")] };
        assert_eq!(LatencyReport::decode(&report.encode()), Ok(report));
        let alone = TracedOperation { next_us: None, ..operation(1, 0) };
        let report = TraceReport { operations: vec![operation(0, 5), alone] };
        assert_eq!(TraceReport::decode(&report.encode()), Ok(report));
    }

    #[test]
    fn of_too_much_the_newest_is_told() {
        let report = TraceReport { operations: (0..100).map(|part| operation(part, SPANS_MAX)).collect() };
        let bytes = report.encode();
        assert!(bytes.len() <= FRAME_PAYLOAD_BYTES_MAX);
        let told = TraceReport::decode(&bytes).unwrap().operations;
        assert!(told.len() > 5 && told.last() == report.operations.last());
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = (LatencyReport::decode(&bytes), TraceReport::decode(&bytes));
        }
    }
}
