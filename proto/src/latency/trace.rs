//! What one operation passed through in one process, kept for a while for whoever asked for it.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::time::Duration;

/// Operations that a process remembers; the oldest is forgotten.
pub const TRACES_MAX: usize = 256;
/// Spans of one operation; further ones are not kept. A chunk of 64 MiB has about 400.
pub const SPANS_MAX: usize = 8192;

/// One pass of a stage, in microseconds since the operation began in this process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// The name of the stage.
    pub stage: Cow<'static, str>,
    /// Its begin.
    pub start_us: u32,
    /// Its end.
    pub end_us: u32,
}

/// One operation in one process: a chunk that is written or read, a call.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TracedOperation {
    /// The chunk; 0 for none.
    pub chunk: u64,
    /// Which operation of that: of a read where it begins in the chunk, of a call the caller's number.
    pub part: u64,
    /// When the next hop was told to begin, where there is one.
    pub next_us: Option<u32>,
    /// When it ended.
    pub took_us: u32,
    /// What it passed through; spans may overlap.
    pub spans: Vec<Span>,
}

impl TracedOperation {
    /// A stage was passed, in times since the operation began. A span beyond [`SPANS_MAX`] is left out.
    pub fn passed(&mut self, stage: &'static str, start: Duration, end: Duration) {
        if self.spans.len() < SPANS_MAX {
            self.spans.push(Span { stage: stage.into(), start_us: micros(start), end_us: micros(end) });
        }
    }

    /// The next hop was told to begin.
    pub fn opened_next(&mut self, at: Duration) {
        self.next_us = Some(micros(at));
    }

    /// The operation has ended.
    pub fn ended(&mut self, at: Duration) {
        self.took_us = micros(at);
    }
}

/// More than an hour counts as that.
fn micros(time: Duration) -> u32 {
    u32::try_from(time.as_micros()).unwrap_or(u32::MAX)
}

/// The last operations that somebody wanted to know about, by the number of their trace.
#[derive(Debug, Default)]
pub struct TraceRing {
    operations: VecDeque<(u64, TracedOperation)>,
}

impl TraceRing {
    /// Keeps an operation.
    pub fn keep(&mut self, trace: u64, operation: TracedOperation) {
        if self.operations.len() == TRACES_MAX {
            self.operations.pop_front();
        }
        self.operations.push_back((trace, operation));
    }

    /// The operations of one trace, oldest first.
    #[must_use]
    pub fn of(&self, trace: u64) -> Vec<TracedOperation> {
        let those = self.operations.iter().filter(|(of, _)| *of == trace);
        those.map(|(_, operation)| operation.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_operations_are_forgotten() {
        let mut ring = TraceRing::default();
        for part in 0..TRACES_MAX as u64 + 3 {
            ring.keep(part % 2, TracedOperation { part, ..TracedOperation::default() });
        }
        let kept: Vec<u64> = ring.of(1).iter().map(|operation| operation.part).collect();
        assert_eq!((kept.first(), kept.len()), (Some(&3), TRACES_MAX / 2));
        assert!(ring.of(2).is_empty());
    }

    #[test]
    fn spans_are_bounded() {
        let mut operation = TracedOperation::default();
        (0..SPANS_MAX + 2).for_each(|_| operation.passed("a", Duration::ZERO, Duration::MAX));
        assert_eq!((operation.spans.len(), operation.spans[0].end_us), (SPANS_MAX, u32::MAX));
    }
}
