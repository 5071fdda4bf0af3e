//! The trace of one call, where its caller wants to know where the time goes.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use distrifs_proto::grpc::TRACE_KEY;
use distrifs_proto::latency::{Stage as _, TracedOperation};
use tonic::metadata::MetadataMap;

use crate::stage::Stage;
use crate::state::State;

tokio::task_local! {
    /// Of the call that this task serves.
    static TRAIL: Arc<Trail>;
}

/// The way of one call.
#[derive(Debug)]
pub(crate) struct Trail {
    trace: u64,
    began: Instant,
    operation: Mutex<TracedOperation>,
}

impl Trail {
    /// Of the call that this task serves, if it is traced.
    pub(crate) fn current() -> Option<Arc<Self>> {
        TRAIL.try_with(Clone::clone).ok()
    }

    /// A stage was passed.
    pub(crate) fn passed(&self, stage: Stage, start: Instant, end: Instant) {
        let since = |time: Instant| time.saturating_duration_since(self.began);
        self.operation().passed(stage.name(), since(start), since(end));
    }

    fn operation(&self) -> std::sync::MutexGuard<'_, TracedOperation> {
        self.operation.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Serves one call as `stage`: counted, and remembered if its caller asked for that.
pub(crate) async fn serve<T>(
    state: &State,
    stage: Option<Stage>,
    metadata: &MetadataMap,
    call: impl Future<Output = T>,
) -> T {
    let began = Instant::now();
    let trail = traced(metadata).map(|(trace, part)| {
        let operation = Mutex::new(TracedOperation { part, ..TracedOperation::default() });
        Arc::new(Trail { trace, began, operation })
    });
    let call = async {
        if let Some(delay) = stage.and_then(|stage| state.latency.delay(stage)) {
            tokio::time::sleep(delay).await;
        }
        call.await
    };
    let answer = follow(trail.clone(), call).await;
    let ended = Instant::now();
    if let Some(stage) = stage {
        state.latency.record(stage, ended - began);
        if let Some(trail) = trail {
            trail.passed(stage, began, ended);
            let mut operation = std::mem::take(&mut *trail.operation());
            operation.ended(ended - began);
            state.traces().keep(trail.trace, operation);
        }
    }
    answer
}

/// Does some of a call's work in another task, whose stages are the call's.
pub(crate) async fn follow<T>(trail: Option<Arc<Trail>>, work: impl Future<Output = T>) -> T {
    match trail {
        Some(trail) => TRAIL.scope(trail, work).await,
        None => work.await,
    }
}

/// The trace, and which of its calls this is; whoever sends nonsense is not traced.
fn traced(metadata: &MetadataMap) -> Option<(u64, u64)> {
    let (trace, part) = metadata.get(TRACE_KEY)?.to_str().ok()?.split_once('-')?;
    Some((u64::from_str_radix(trace, 16).ok()?, part.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_is_a_number_and_the_call() {
        let mut metadata = MetadataMap::new();
        assert_eq!(traced(&metadata), None);
        for (text, expected) in [("00ff-3", Some((255, 3))), ("x-3", None), ("3", None), ("1-", None)] {
            metadata.insert(TRACE_KEY, text.parse().expect("metadata"));
            assert_eq!(traced(&metadata), expected, "{text}");
        }
    }
}
