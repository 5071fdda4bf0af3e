//! A thread that does for one chunk what may wait for a file, one piece after the other. It is the chunk's own: kept from
//! the runtime's pool it would be missing there, and asked for anew for each frame it would cost an allocation each time.

use std::io;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;

use tokio::sync::mpsc::{Receiver, channel};

/// The thread, and the piece of work that it has at most. It ends when this is dropped, after that piece.
#[derive(Debug)]
pub(crate) struct FileThread<J, R> {
    jobs: SyncSender<J>,
    done: Receiver<R>,
    busy: bool,
}

/// The thread has ended before its time: it panicked.
#[derive(Debug, thiserror::Error)]
#[error("the thread that reads or writes the file has ended")]
pub(crate) struct ThreadEnded;

impl<J: Send + 'static, R: Send + 'static> FileThread<J, R> {
    /// Starts it.
    pub(crate) fn start(mut work: impl FnMut(J) -> R + Send + 'static) -> io::Result<Self> {
        let ((jobs, next), (tell, done)) = (sync_channel(1), channel(1));
        thread::Builder::new().name("chunk-file".to_owned()).spawn(move || {
            while let Ok(job) = next.recv() {
                if tell.blocking_send(work(job)).is_err() {
                    break;
                }
            }
        })?;
        Ok(Self { jobs, done, busy: false })
    }

    /// Gives it a piece of work. What came of the one before was taken.
    pub(crate) fn give(&mut self, job: J) -> Result<(), ThreadEnded> {
        debug_assert!(!self.busy, "one at a time");
        self.busy = true;
        // There is room: nothing is waited for.
        self.jobs.send(job).map_err(|_| ThreadEnded)
    }

    /// Whether there is something to take.
    pub(crate) fn is_busy(&self) -> bool {
        self.busy
    }

    /// Waits until the piece of work is done. Dropped, it can be called again.
    pub(crate) async fn take(&mut self) -> Result<R, ThreadEnded> {
        let done = self.done.recv().await.ok_or(ThreadEnded);
        self.busy = false;
        done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn pieces_are_done_in_turn_by_one_thread_and_its_panic_is_told() {
        let mut thread = FileThread::start(|job: u32| {
            assert!(job < 3, "as the test wants it");
            (job * 2, thread::current().id())
        })
        .expect("a thread");
        let mut ids = Vec::new();
        for job in 0..3 {
            assert!(!thread.is_busy());
            thread.give(job).expect("it is there");
            assert!(thread.is_busy());
            let (done, id) = thread.take().await.expect("done");
            assert_eq!(done, job * 2);
            ids.push(id);
        }
        assert!(ids.iter().all(|id| *id == ids[0] && *id != thread::current().id()));
        thread.give(3).expect("it is there");
        assert!(thread.take().await.is_err());
        assert!(thread.give(0).is_err() && thread.take().await.is_err());
    }
}
