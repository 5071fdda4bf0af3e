//! A single-threaded executor with a clock of its own: time passes only when no task can run, and then at
//! once. Which of the ready tasks runs next is decided by the seed.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use super::chance::Chance;

/// How long a body with no task to run and no timer waits for a wake from another thread before it says so.
const STUCK_AFTER: Duration = Duration::from_secs(10);

type Task = Pin<Box<dyn Future<Output = ()>>>;

/// The executor of one `block_on`.
pub(super) struct Executor {
    ready: Arc<Ready>,
    tasks: RefCell<BTreeMap<u64, (Task, Arc<Wakeup>)>>,
    next_id: Cell<u64>,
    now: Cell<Duration>,
    timers: RefCell<BTreeMap<(Duration, u64), Waker>>,
    chance: RefCell<Chance>,
}

struct Ready {
    queue: Mutex<Vec<u64>>,
    thread: Thread,
}

struct Wakeup {
    id: u64,
    queued: AtomicBool,
    ready: Arc<Ready>,
}

impl Wake for Wakeup {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.queued.swap(true, Ordering::AcqRel) {
            self.ready.queue.lock().unwrap_or_else(PoisonError::into_inner).push(self.id);
            self.ready.thread.unpark();
        }
    }
}

/// The task that `run` itself is.
const MAIN: u64 = 0;

impl Executor {
    pub(super) fn new(chance: Chance, now: Duration) -> Rc<Self> {
        let ready = Arc::new(Ready { queue: Mutex::new(Vec::new()), thread: thread::current() });
        Rc::new(Self {
            ready,
            tasks: RefCell::default(),
            next_id: Cell::new(MAIN + 1),
            now: Cell::new(now),
            timers: RefCell::default(),
            chance: RefCell::new(chance),
        })
    }

    pub(super) fn now(&self) -> Duration {
        self.now.get()
    }

    pub(super) fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        let id = self.take_id();
        let wakeup = self.wakeup(id);
        self.tasks.borrow_mut().insert(id, (Box::pin(task), Arc::clone(&wakeup)));
        wakeup.wake();
    }

    pub(super) async fn sleep(&self, duration: Duration) {
        let key = (self.now.get() + duration, self.take_id());
        let mut timer = Timer { executor: self, key: None };
        poll_fn(|context| {
            if self.now.get() >= key.0 {
                return Poll::Ready(());
            }
            self.timers.borrow_mut().insert(key, context.waker().clone());
            timer.key = Some(key);
            Poll::Pending
        })
        .await;
    }

    /// Runs until `main` is done. What was spawned and is not, is dropped.
    pub(super) fn run<T>(&self, main: impl Future<Output = T>) -> T {
        let mut main = pin!(main);
        let main_wakeup = self.wakeup(MAIN);
        let main_waker = Waker::from(Arc::clone(&main_wakeup));
        main_wakeup.wake_by_ref();
        loop {
            let id = self.next_ready();
            if id == MAIN {
                main_wakeup.queued.store(false, Ordering::Release);
                if let Poll::Ready(output) = main.as_mut().poll(&mut Context::from_waker(&main_waker)) {
                    let left = self.tasks.take();
                    drop(left);
                    return output;
                }
            } else {
                self.poll_task(id);
            }
        }
    }

    fn poll_task(&self, id: u64) {
        // Taken out while it runs: it may spawn others. A task that is done may still be woken.
        let Some((mut task, wakeup)) = self.tasks.borrow_mut().remove(&id) else { return };
        wakeup.queued.store(false, Ordering::Release);
        let waker = Waker::from(Arc::clone(&wakeup));
        if task.as_mut().poll(&mut Context::from_waker(&waker)).is_pending() {
            self.tasks.borrow_mut().insert(id, (task, wakeup));
        }
    }

    fn next_ready(&self) -> u64 {
        let mut idle_since: Option<Instant> = None;
        loop {
            {
                let mut queue = self.ready.queue.lock().unwrap_or_else(PoisonError::into_inner);
                if !queue.is_empty() {
                    let chosen = self.chance.borrow_mut().below(queue.len() as u64);
                    return queue.swap_remove(usize::try_from(chosen).unwrap_or(0));
                }
            }
            if self.advance() {
                continue;
            }
            let since = *idle_since.get_or_insert_with(Instant::now);
            assert!(
                since.elapsed() < STUCK_AFTER,
                "the simulated body is stuck: no task can run, no timer is set"
            );
            thread::park_timeout(STUCK_AFTER);
        }
    }

    /// Lets time pass up to the next timer.
    fn advance(&self) -> bool {
        let Some(((at, _), waker)) = self.timers.borrow_mut().pop_first() else { return false };
        self.now.set(self.now.get().max(at));
        waker.wake();
        true
    }

    fn wakeup(&self, id: u64) -> Arc<Wakeup> {
        Arc::new(Wakeup { id, queued: AtomicBool::new(false), ready: Arc::clone(&self.ready) })
    }

    fn take_id(&self) -> u64 {
        let id = self.next_id.get();
        self.next_id.set(id + 1);
        id
    }
}

/// Takes an unfinished sleep out of the clock when it is dropped.
struct Timer<'a> {
    executor: &'a Executor,
    key: Option<(Duration, u64)>,
}

impl Drop for Timer<'_> {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            self.executor.timers.borrow_mut().remove(&key);
        }
    }
}
