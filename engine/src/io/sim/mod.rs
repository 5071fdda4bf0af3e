//! The simulated body, for tests: a disk that forgets what was not synced, a network of its own, a clock that
//! does not wait, and chance from a seed. [`SimWorld`] is the machine; faults are planned with [`Faults`].

mod chance;
mod content;
mod disk;
mod executor;
mod faults;
mod file;
mod net;
mod tree;
mod world;

use std::future::Future;
use std::io;
use std::panic::resume_unwind;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use self::chance::Chance;
use self::executor::Executor;

use super::drain::Operations;
use super::handle::{Io, Kind};
use super::tasks::Tasks;

pub use faults::{Faults, SimOperation};
pub(super) use file::{SimFile, SimFileSystem};
pub(super) use net::{SimListener, SimRecv, SimSend, SimStream};
pub use world::SimWorld;

/// File operations at a time, as in the other bodies.
const FILE_OPERATIONS_MAX: u32 = 256;

/// Turns the power on if it was cut, and runs `main` to its end.
pub(super) fn block_on<F: Future>(world: &SimWorld, main: impl FnOnce(Io) -> F) -> io::Result<F::Output> {
    let (chance, started, boot) = {
        let mut state = world.lock();
        state.power_on();
        (Chance::new(state.chance.next()), state.now, state.boot)
    };
    let body = Sim {
        world: world.clone(),
        executor: Executor::new(chance, started),
        operations: Operations::new(FILE_OPERATIONS_MAX),
        tasks: Tasks::default(),
        started,
        boot,
    };
    let result = body.executor.run(async {
        let io = Io(Kind::Sim(body.clone()));
        let result = body.tasks.run(async move { main(io).await }).await;
        body.operations.drain().await;
        result
    });
    let now = body.executor.now();
    let mut state = world.lock();
    state.now = state.now.max(now);
    drop(state);
    Ok(result.unwrap_or_else(|panic| resume_unwind(panic)))
}

/// This thread's body.
#[derive(Clone)]
pub(super) struct Sim {
    world: SimWorld,
    executor: Rc<Executor>,
    operations: Operations,
    tasks: Tasks,
    started: Duration,
    boot: u64,
}

impl Sim {
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        self.executor.spawn(self.tasks.wrap(task));
    }

    pub(super) async fn sleep(&self, duration: Duration) {
        self.executor.sleep(duration).await;
    }

    pub(super) fn now(&self) -> Duration {
        self.executor.now() - self.started
    }

    pub(super) async fn timeout<T>(&self, limit: Duration, work: impl Future<Output = T>) -> Option<T> {
        let mut work = pin!(work);
        tokio::select! {
            biased;
            output = &mut work => Some(output),
            () = self.executor.sleep(limit) => None,
        }
    }

    fn transfer_len(&self, len: usize) -> usize {
        let mut world = self.world.lock();
        if world.plan.short_transfers && len > 0 { 1 + world.chance.below(len as u64) as usize } else { len }
    }
}
