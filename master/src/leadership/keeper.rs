//! Keeps a leadership: renews its lease, and notices when it is over.
//!
//! On a thread of its own, so that a busy runtime costs no leadership. It begins right after the claim: a start that
//! replays for minutes is not taken for a leader that stands still.

use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::watch;

use super::Leadership;
use super::lease::{Authority, Lease, RENEWALS_PER_LEASE, give_up, now};
use super::lock::LeaderLock;
use crate::error::{MasterFailure, StartError};

/// Holds the leader's lock and renews its lease until it is dropped.
#[derive(Debug)]
pub(crate) struct Keeper {
    authority: Authority,
    lost: watch::Receiver<Option<MasterFailure>>,
    /// Without a lease: nothing has to be done.
    _lock: Option<LeaderLock>,
    /// With a lease: the thread, which holds the lock, and ends when the sender is dropped.
    renewal: Option<(mpsc::Sender<()>, JoinHandle<()>)>,
}

impl Keeper {
    /// Begins. The first renewal is done when this returns.
    ///
    /// # Errors
    /// [`StartError::Deposed`] when somebody else leads already; [`StartError::Folder`], [`StartError::Thread`].
    pub(crate) fn begin(
        leadership: Leadership,
        lock: LeaderLock,
        lease: Option<Duration>,
    ) -> Result<Self, StartError> {
        let Some(length) = lease else {
            give_up(leadership.data_dir(), leadership.epoch())?;
            let (_, lost) = watch::channel(None);
            return Ok(Self { authority: Authority::unbounded(), lost, _lock: Some(lock), renewal: None });
        };
        let authority = Authority::over();
        let mut renewal = Renewal { leadership, lock, length, renewals: 0, authority: authority.clone() };
        renewal.renew().map_err(|error| match error {
            NotRenewed::Lost(failure) => StartError::Deposed(failure),
            NotRenewed::Refused(error) => error,
        })?;
        let (tell, lost) = watch::channel(None);
        let (stop, stopped) = mpsc::channel();
        let thread = std::thread::Builder::new().name("lease".into());
        let thread = thread.spawn(move || renewal.run(&stopped, &tell)).map_err(StartError::Thread)?;
        Ok(Self { authority, lost, _lock: None, renewal: Some((stop, thread)) })
    }

    /// Ends it: when this returns, the lock is free. It waits for a renewal that is under way.
    pub(crate) fn end(self) {
        if let Some((stop, thread)) = self.renewal {
            drop(stop);
            // A renewal that panicked has let go of the lock as well.
            let _ = thread.join();
        }
    }

    /// Until when this master may answer.
    pub(crate) fn authority(&self) -> Authority {
        self.authority.clone()
    }

    /// Why the leadership was lost, as soon as it is.
    pub(crate) fn lost(&self) -> watch::Receiver<Option<MasterFailure>> {
        self.lost.clone()
    }
}

struct Renewal {
    leadership: Leadership,
    lock: LeaderLock,
    length: Duration,
    renewals: u64,
    authority: Authority,
}

enum NotRenewed {
    /// Another one leads.
    Lost(MasterFailure),
    /// The folder refused.
    Refused(StartError),
}

impl Renewal {
    /// Token, lease, token: a claim before the second look is seen here, and who claims after it sees the lease that was
    /// just written, and waits for its end before it answers anybody.
    fn renew(&mut self) -> Result<(), NotRenewed> {
        let began = now();
        self.leadership.prove().map_err(NotRenewed::Lost)?;
        self.lock.keep_in_place().map_err(NotRenewed::Refused)?;
        self.renewals += 1;
        let lease = Lease { epoch: self.leadership.epoch(), renewals: self.renewals, length: self.length };
        lease.write(self.leadership.data_dir()).map_err(NotRenewed::Refused)?;
        self.leadership.prove().map_err(NotRenewed::Lost)?;
        self.authority.extend(began + self.length);
        Ok(())
    }

    fn run(mut self, stopped: &mpsc::Receiver<()>, tell: &watch::Sender<Option<MasterFailure>>) {
        let mut refused = false;
        while stopped.recv_timeout(self.length / RENEWALS_PER_LEASE) == Err(mpsc::RecvTimeoutError::Timeout) {
            let lost = match self.renew() {
                Ok(()) => {
                    refused = false;
                    continue;
                }
                Err(NotRenewed::Lost(failure)) => failure,
                Err(NotRenewed::Refused(error)) if self.authority.holds() => {
                    if !std::mem::replace(&mut refused, true) {
                        tracing::warn!(%error, "the leader's lease was not renewed: tried again until it runs out");
                    }
                    continue;
                }
                Err(NotRenewed::Refused(error)) => MasterFailure::LeaseRanOut { why: error.to_string() },
            };
            // Whoever waits ends this master.
            tell.send_replace(Some(lost));
            return;
        }
    }
}
