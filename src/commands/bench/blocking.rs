//! Work that keeps a thread busy: it can be told to end, and waited for.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Semaphore;

use crate::error::CommandError;

/// One such work at a time.
#[derive(Clone)]
pub(super) struct Blocking {
    stop: Arc<AtomicBool>,
    idle: Arc<Semaphore>,
}

impl Default for Blocking {
    fn default() -> Self {
        Self { stop: Arc::default(), idle: Arc::new(Semaphore::new(1)) }
    }
}

impl Blocking {
    /// Runs it; it looks at the flag it is given now and then, and ends soon after that is set.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&AtomicBool) -> Result<T, CommandError> + Send + 'static,
    ) -> Result<T, CommandError> {
        let failed = |error: &dyn std::fmt::Display| CommandError::Check(error.to_string());
        let permit = self.idle.clone().acquire_owned().await.map_err(|e| failed(&e))?;
        let stop = self.stop.clone();
        let worked = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            work(&stop)
        });
        worked.await.unwrap_or_else(|e| Err(failed(&e)))
    }

    /// Tells it to end, and waits until it has: also where nobody waits for its outcome any more.
    pub(super) async fn end(&self) {
        self.stop.store(true, Ordering::Relaxed);
        // It is never closed.
        let _ = self.idle.acquire().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_that_nobody_waits_for_is_ended_before_its_place_goes() {
        let blocking = Blocking::default();
        let ended = Arc::new(AtomicBool::new(false));
        let (begun, begins) = tokio::sync::oneshot::channel();
        let (keep, other) = (ended.clone(), blocking.clone());
        let waiting = tokio::spawn(async move {
            let work = move |stop: &AtomicBool| {
                let _ = begun.send(());
                while !stop.load(Ordering::Relaxed) {
                    std::thread::yield_now();
                }
                keep.store(true, Ordering::Relaxed);
                Ok(())
            };
            other.run(work).await
        });
        begins.await.unwrap();
        waiting.abort();
        blocking.end().await;
        assert!(ended.load(Ordering::Relaxed));
    }
}
