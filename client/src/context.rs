//! What the transfers of one client share.

use std::sync::Arc;
use std::time::Instant;

use crate::buffer::Buffers;
use crate::config::ClientConfig;
use crate::hedge::Hedge;
use crate::master_link::MasterLink;
use crate::pool::Pool;
use crate::reports::Reports;

/// The client's connections and buffers.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) config: Arc<ClientConfig>,
    pub(crate) master: MasterLink,
    pub(crate) pool: Pool,
    pub(crate) buffers: Buffers,
    pub(crate) reports: Reports,
    pub(crate) hedge: Hedge,
    /// Before everything; times are counted from here.
    pub(crate) started: Instant,
}

impl Context {
    pub(crate) fn new(config: ClientConfig) -> Arc<Self> {
        let config = Arc::new(config);
        Arc::new(Self {
            master: MasterLink::new(config.clone()),
            config,
            pool: Pool::default(),
            buffers: Buffers::default(),
            reports: Reports::default(),
            hedge: Hedge::default(),
            started: Instant::now(),
        })
    }
}
