//! SIGINT and SIGTERM: daemons stop cleanly, commands leave nothing half done behind.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::error::CommandError;
use crate::exit_status::ExitStatus;

/// The signals that ask a process to end.
pub(crate) struct EndSignals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl EndSignals {
    /// From here on the signals do not kill the process any more; they are to be awaited.
    pub(crate) fn listen() -> Result<Self, CommandError> {
        let listen =
            |kind| signal(kind).map_err(|e| CommandError::Daemon(format!("cannot listen for signals: {e}")));
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            hangup: listen(SignalKind::hangup())?,
        })
    }

    /// Resolves at the next of them, with the status of a command that it ends.
    pub(crate) async fn next(&mut self) -> ExitStatus {
        tokio::select! {
            _ = self.interrupt.recv() => ExitStatus::Signalled(2),
            _ = self.terminate.recv() => ExitStatus::Signalled(15),
            _ = self.hangup.recv() => ExitStatus::Signalled(1),
        }
    }
}
