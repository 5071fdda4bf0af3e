//! Times one operation's stages: into the shard's histograms always, into a trace where the caller asked for one.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use distrifs_proto::frame::Header;
use distrifs_proto::latency::TracedOperation;

use super::Shard;
use crate::stage::Stage;

/// The way of one operation through this node. Clones are the same way; without a trace one costs no allocation.
#[derive(Clone)]
pub(super) struct Trail {
    shard: Rc<Shard>,
    began: Duration,
    trace: Option<Rc<(u64, RefCell<TracedOperation>)>>,
}

impl Trail {
    /// The operation that `request` begins now.
    pub(super) fn begin(shard: &Rc<Shard>, request: &Header) -> Self {
        let operation =
            || TracedOperation { chunk: request.chunk.0, part: request.offset, ..TracedOperation::default() };
        let trace = request.is_traced().then(|| Rc::new((request.trace_id, RefCell::new(operation()))));
        Self { shard: shard.clone(), began: shard.io.now(), trace }
    }

    /// The shard's time.
    pub(super) fn now(&self) -> Duration {
        self.shard.io.now()
    }

    /// Does `work` as this stage.
    pub(super) async fn stage<T>(&self, stage: Stage, work: impl Future<Output = T>) -> T {
        let started = self.shard.io.now();
        self.hold_up(stage).await;
        let done = work.await;
        self.passed(stage, started);
        done
    }

    /// A stage that began at `started` ends now.
    pub(super) fn passed(&self, stage: Stage, started: Duration) {
        let now = self.shard.io.now();
        self.shard.latency.record(stage, now.saturating_sub(started));
        if let Some(trace) = &self.trace {
            let since = |time: Duration| time.saturating_sub(self.began);
            let name = distrifs_proto::latency::Stage::name(stage);
            trace.1.borrow_mut().passed(name, since(started), since(now));
        }
    }

    /// A wait that began at `started`, and is no stage of this node, ends now.
    pub(super) fn waited(&self, name: &'static str, started: Duration) {
        if let Some(trace) = &self.trace {
            let since = |time: Duration| time.saturating_sub(self.began);
            trace.1.borrow_mut().passed(name, since(started), since(self.shard.io.now()));
        }
    }

    /// Waits for as long as a test wants this stage to take.
    pub(super) async fn hold_up(&self, stage: Stage) {
        if let Some(delay) = self.shard.latency.delay(stage) {
            self.shard.io.sleep(delay).await;
        }
    }

    /// The next hop has been told to begin.
    pub(super) fn opened_next(&self) {
        if let Some(trace) = &self.trace {
            trace.1.borrow_mut().opened_next(self.shard.io.now().saturating_sub(self.began));
        }
    }

    /// The operation has ended; its trace can be asked for.
    pub(super) fn end(&self) {
        if let Some(trace) = &self.trace {
            let mut operation = trace.1.take();
            operation.ended(self.shard.io.now().saturating_sub(self.began));
            self.shard.node.traces().keep(trace.0, operation);
        }
    }
}
