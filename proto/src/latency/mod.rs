//! How long things take: a histogram for each stage of an operation, and the trace of one operation.
//!
//! A [`Stage`] is a part of the way that an operation takes through a process; each process has one list of its own.
//! [`Stages`] counts every pass, [`TracedOperation`] keeps one operation's passes where a user asked for them.

mod delay;
mod recorder;
mod stages;
mod trace;

pub use delay::{BadDelay, Delay};
pub use recorder::{HISTOGRAM_BYTES_MAX, MICROS_MAX, Recorder, encode_merged};
pub use stages::{Stage, StageHistogram, Stages};
pub use trace::{SPANS_MAX, Span, TRACES_MAX, TraceRing, TracedOperation};
