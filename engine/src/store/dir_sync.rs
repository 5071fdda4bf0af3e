//! One fsync of a directory for all commits that wait for it.
//!
//! A caller's entries are covered by any sync that *begins* after they were made. So whoever comes while a sync
//! runs waits for the next one, which serves all of them.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::oneshot;

use super::Counters;
use crate::io::Io;

type Outcome = Result<(), (io::ErrorKind, String)>;

#[derive(Clone)]
pub(super) struct DirSync {
    io: Io,
    counters: Arc<Counters>,
    /// Those who wait for the next sync of a directory; an entry exists while a sync of it runs.
    waiting: Rc<RefCell<HashMap<PathBuf, Vec<oneshot::Sender<Outcome>>>>>,
}

impl DirSync {
    pub(super) fn new(io: Io, counters: Arc<Counters>) -> Self {
        Self { io, counters, waiting: Rc::default() }
    }

    /// Makes the entries of `dir` that are there now durable.
    pub(super) async fn sync(&self, dir: &Path) -> io::Result<()> {
        let (tell, told) = oneshot::channel();
        let lead = {
            let mut waiting = self.waiting.borrow_mut();
            let lead = !waiting.contains_key(dir);
            waiting.entry(dir.to_owned()).or_default().push(tell);
            lead
        };
        if lead {
            // A task of its own: the sync serves others too and must not end with whoever asked first.
            let (this, dir) = (self.clone(), dir.to_owned());
            self.io.spawn(async move { this.run(dir).await });
        }
        match told.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err((kind, text))) => Err(io::Error::new(kind, text)),
            Err(_) => Err(io::Error::other("the thread ends")),
        }
    }

    async fn run(&self, dir: PathBuf) {
        loop {
            let group = {
                let mut waiting = self.waiting.borrow_mut();
                match waiting.get_mut(&dir) {
                    Some(group) if !group.is_empty() => std::mem::take(group),
                    _ => {
                        waiting.remove(&dir);
                        return;
                    }
                }
            };
            self.counters.synced();
            let outcome = self.io.fsync_dir(&dir).await.map_err(|e| (e.kind(), e.to_string()));
            for tell in group {
                // Whoever no longer waits does not need to know.
                let _ = tell.send(outcome.clone());
            }
        }
    }
}
