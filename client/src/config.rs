//! What a client is told about its cluster and its patience.

use std::time::Duration;

use distrifs_proto::types::HostPort;

/// How a [`crate::Client`] finds and treats its cluster.
#[derive(Debug, Clone)]
pub struct ClientConfig {
    /// The masters, in the order in which they are tried; at least one.
    pub masters: Vec<HostPort>,
    /// On whose behalf.
    pub user: String,
    /// Of new files; `None` leaves it to the master.
    pub chunk_size: Option<u64>,
    /// Of new files; `None` leaves it to the master.
    pub replication: Option<u32>,
    /// How long a peer may be silent before it is given up, and how long a call to the masters is retried.
    pub socket_timeout: Duration,
    /// How often a chunk's pipeline is planned anew before the put fails. With 0 nothing is ever tried again.
    pub retries: u32,
}

impl ClientConfig {
    /// The contract's default of [`ClientConfig::socket_timeout`].
    pub const SOCKET_TIMEOUT_DEFAULT: Duration = Duration::from_secs(12);
    /// The contract's default of [`ClientConfig::retries`].
    pub const RETRIES_DEFAULT: u32 = 5;

    /// The defaults, for this user of these masters.
    #[must_use]
    pub fn new(masters: Vec<HostPort>, user: impl Into<String>) -> Self {
        Self {
            masters,
            user: user.into(),
            chunk_size: None,
            replication: None,
            socket_timeout: Self::SOCKET_TIMEOUT_DEFAULT,
            retries: Self::RETRIES_DEFAULT,
        }
    }
}
