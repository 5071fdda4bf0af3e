//! Lanes: tasks that carry out one write at a time each, to its end, whatever becomes of who asked for it. They are
//! kept from write to write, so that in the long run a write costs no allocation.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;

use monoio::fs::File;
use tokio::sync::Notify;

use crate::io::buf::Shared;

use super::lent::Lent;

/// The lanes of one body: as many as there were writes at once, which the file operations bound.
#[derive(Clone, Default)]
pub(super) struct Lanes(Rc<State>);

#[derive(Default)]
struct State {
    idle: RefCell<Vec<Rc<Lane>>>,
    /// Tasks that have not ended.
    open: Cell<usize>,
    one_less: Notify,
}

/// What a lane's task and its caller have in common.
#[derive(Default)]
struct Lane {
    load: RefCell<Load>,
    /// For the task: a write, or the end.
    given: Notify,
    /// Whether the caller is still there.
    awaited: Cell<bool>,
    /// For the caller.
    written: Notify,
}

#[derive(Default)]
enum Load {
    #[default]
    Idle,
    Write {
        file: Rc<File>,
        lent: Lent<Shared>,
        offset: u64,
    },
    Underway,
    /// What was lent counts as lent until the result is taken: the lane is not idle before.
    Written {
        result: io::Result<usize>,
        _lent: Lent<Shared>,
    },
    Close,
}

impl Lanes {
    /// Writes. Dropped, the write still runs to its end.
    pub(super) async fn write(&self, file: Rc<File>, lent: Lent<Shared>, offset: u64) -> io::Result<usize> {
        let idle = self.0.idle.borrow_mut().pop();
        let lane = idle.unwrap_or_else(|| self.open());
        lane.awaited.set(true);
        lane.give(Load::Write { file, lent, offset });
        let ride = Ride { lanes: self, lane };
        // A wake may be left over from a caller that went before it.
        while !matches!(*ride.lane.load.borrow(), Load::Written { .. }) {
            ride.lane.written.notified().await;
        }
        match ride.lane.load.take() {
            Load::Written { result, .. } => result,
            _ => unreachable!("it was there"),
        }
    }

    /// Ends all lanes. Nothing is being written any more, and nobody is left who would.
    pub(super) async fn close(&self) {
        for lane in self.0.idle.take() {
            lane.give(Load::Close);
        }
        while self.0.open.get() > 0 {
            self.0.one_less.notified().await;
        }
    }

    fn open(&self) -> Rc<Lane> {
        let lane = Rc::new(Lane::default());
        self.0.open.set(self.0.open.get() + 1);
        drop(monoio::spawn(self.clone().run(lane.clone())));
        lane
    }

    async fn run(self, lane: Rc<Lane>) {
        loop {
            lane.given.notified().await;
            let (file, lent, offset) = match lane.load.replace(Load::Underway) {
                Load::Write { file, lent, offset } => (file, lent, offset),
                Load::Close => break,
                _ => unreachable!("the task is woken when it is given something"),
            };
            let (result, lent) = file.write_at(lent, offset).await;
            // First of all: whoever learns of the result may want to close the file.
            drop(file);
            lane.load.replace(Load::Written { result, _lent: lent });
            if lane.awaited.get() {
                lane.written.notify_one();
            } else {
                self.put_back(lane.clone());
            }
        }
        self.0.open.set(self.0.open.get() - 1);
        self.0.one_less.notify_one();
    }

    /// Takes a lane back that has written.
    fn put_back(&self, lane: Rc<Lane>) {
        lane.load.replace(Load::Idle);
        self.0.idle.borrow_mut().push(lane);
    }
}

impl Lane {
    fn give(&self, load: Load) {
        self.load.replace(load);
        self.given.notify_one();
    }
}

/// A lane and its caller.
struct Ride<'a> {
    lanes: &'a Lanes,
    lane: Rc<Lane>,
}

impl Drop for Ride<'_> {
    fn drop(&mut self) {
        let runs = matches!(*self.lane.load.borrow(), Load::Write { .. } | Load::Underway);
        if runs {
            self.lane.awaited.set(false);
        } else {
            self.lanes.put_back(self.lane.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use crate::io::buf::BufPool;
    use crate::io::file::Open;
    use crate::io::handle::{Io, Kind};
    use crate::io::probe_uring;
    use crate::io::uring::block_on;

    fn lanes(io: &Io) -> (usize, usize) {
        let Kind::Uring(body) = &io.0 else { unreachable!("this is io_uring") };
        (body.lanes.0.open.get(), body.lanes.0.idle.borrow().len())
    }

    #[test]
    fn a_lane_serves_one_write_after_the_other() {
        if let Err(reason) = probe_uring() {
            println!("skipped: no io_uring here: {reason}");
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        block_on(|io| async move {
            let file = Rc::new(io.open(&path, Open::CREATE).await.unwrap());
            let pool = BufPool::new(4, 4096).unwrap();
            for at in 0..20 {
                file.write_at(pool.get().await.share(), 0..4096, at * 4096).await.unwrap();
            }
            assert_eq!(lanes(&io), (1, 1));
            // As many at once as there are buffers, and some whose callers go.
            for at in 0..20 {
                let (buf, file) = (pool.get().await.share(), file.clone());
                io.spawn(async move {
                    let write = file.write_at(buf, 0..4096, at * 4096);
                    if at % 2 == 0 {
                        write.await.unwrap();
                    } else {
                        let limit = std::time::Duration::ZERO;
                        let _ = tokio::select! { biased; done = write => done, () = monoio::time::sleep(limit) => Ok(()) };
                    }
                });
            }
            let mut all = Vec::new();
            for _ in 0..4 {
                all.push(pool.get().await);
            }
            let (open, idle) = lanes(&io);
            assert!(open == idle && (1..=4).contains(&open), "{idle} of {open} lanes are idle");
        })
        .unwrap();
    }
}
