//! Notes where the time of one operation goes at the client, and whom it asked, so that they can be asked in turn.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use distrifs_proto::types::ChunkId;

use crate::status::Node;

/// Passes of the client's stages that are kept; a file of 1 GiB has some thousand.
const PASSES_MAX: usize = 1 << 17;
/// Requests to datanodes that are kept, and calls to the master.
const REQUESTS_MAX: usize = 4096;
/// Calls that run beside the operation: nobody waits for them.
const BESIDE: &[&str] = &["renew_lease", "give_up_grant", "report_bad_replica"];

/// A stage of the client; what each means is said where the explanation is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ClientStage {
    /// Reading what is to be sent, and its checksums.
    Source,
    /// Connecting to a datanode.
    Connect,
    /// Bytes of a write go out.
    Send,
    /// All is sent; the acknowledgement is waited for.
    Ack,
    /// Bytes of a read are waited for.
    Receive,
    /// What came is checked and written to the target.
    Land,
}

/// A pass of a stage, in microseconds since the operation began.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pass {
    pub(crate) stage: ClientStage,
    /// The request it belongs to, where it belongs to one.
    pub(crate) request: Option<usize>,
    pub(crate) start_us: u64,
    pub(crate) end_us: u64,
}

/// A chunk that was asked of one datanode, or given to a pipeline of several.
#[derive(Debug, Clone)]
pub(crate) struct Requested {
    pub(crate) chunk: ChunkId,
    /// Where it begins in the chunk.
    pub(crate) part: u64,
    /// Who works on it, the one we speak to first.
    pub(crate) hops: Vec<Node>,
    /// When it went out.
    pub(crate) at_us: u64,
}

/// A call to the master that was answered.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Call {
    pub(crate) method: &'static str,
    /// Its number in the trace.
    pub(crate) part: u64,
    pub(crate) start_us: u64,
    pub(crate) end_us: u64,
}

/// What was noted.
#[derive(Debug, Default, Clone)]
pub(crate) struct Notes {
    pub(crate) passes: Vec<Pass>,
    pub(crate) requests: Vec<Requested>,
    pub(crate) calls: Vec<Call>,
}

/// The notes of one operation.
#[derive(Debug)]
pub(crate) struct Tracer {
    /// Under which all processes remember it.
    pub(crate) id: u64,
    began: Instant,
    calls: AtomicU64,
    notes: Mutex<Notes>,
}

impl Tracer {
    /// The operation begins now.
    pub(crate) fn begin() -> Arc<Self> {
        Arc::new(Self {
            id: rand::random(),
            began: Instant::now(),
            calls: AtomicU64::new(0),
            notes: Mutex::default(),
        })
    }

    /// Microseconds since the operation began.
    pub(crate) fn now_us(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// What was noted so far.
    pub(crate) fn notes(&self) -> Notes {
        self.lock().clone()
    }

    /// The number of the next call, and its metadata.
    pub(crate) fn next_call(&self) -> (u64, String) {
        let part = self.calls.fetch_add(1, Ordering::Relaxed);
        (part, format!("{:016x}-{part}", self.id))
    }

    /// A call that began at `start_us` was answered.
    pub(crate) fn called(&self, method: &'static str, part: u64, start_us: u64) {
        let mut notes = self.lock();
        if notes.calls.len() < REQUESTS_MAX && !BESIDE.contains(&method) {
            notes.calls.push(Call { method, part, start_us, end_us: self.now_us() });
        }
    }

    /// A request goes out; its number among them.
    pub(crate) fn requested(&self, chunk: ChunkId, part: u64, hops: Vec<Node>) -> Option<usize> {
        let mut notes = self.lock();
        if notes.requests.len() == REQUESTS_MAX {
            return None;
        }
        notes.requests.push(Requested { chunk, part, hops, at_us: self.now_us() });
        Some(notes.requests.len() - 1)
    }

    /// A stage that began at `start_us` ends now.
    pub(crate) fn passed(&self, stage: ClientStage, request: Option<usize>, start_us: u64) {
        let mut notes = self.lock();
        if notes.passes.len() < PASSES_MAX {
            notes.passes.push(Pass { stage, request, start_us, end_us: self.now_us() });
        }
    }

    fn lock(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Does `work` as a stage, noted if anybody wants to know.
pub(crate) async fn timed<T>(
    tracer: Option<&Tracer>,
    stage: ClientStage,
    request: Option<usize>,
    work: impl Future<Output = T>,
) -> T {
    let start_us = tracer.map(Tracer::now_us);
    let done = work.await;
    if let (Some(tracer), Some(start_us)) = (tracer, start_us) {
        tracer.passed(stage, request, start_us);
    }
    done
}
