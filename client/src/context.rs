//! What the transfers of one client share.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use distrifs_proto::frame::Header;

use crate::buffer::Buffers;
use crate::config::ClientConfig;
use crate::grants::Grants;
use crate::hedge::Hedge;
use crate::master_link::MasterLink;
use crate::pool::Pool;
use crate::read_links::ReadLinks;
use crate::reports::Reports;
use crate::tracer::Tracer;

/// The client's connections and buffers.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) config: Arc<ClientConfig>,
    pub(crate) master: MasterLink,
    pub(crate) pool: Pool,
    pub(crate) links: ReadLinks,
    pub(crate) buffers: Buffers,
    pub(crate) reports: Reports,
    pub(crate) hedge: Hedge,
    grants: Mutex<Grants>,
    /// Before everything; times are counted from here.
    pub(crate) started: Instant,
    /// Of the one operation that this context is for, where that is to be explained.
    pub(crate) tracer: Option<Arc<Tracer>>,
}

impl Context {
    pub(crate) fn new(config: ClientConfig) -> Arc<Self> {
        Self::with_tracer(Arc::new(config), None)
    }

    /// For one operation, which begins now and is to be explained.
    pub(crate) fn traced(config: Arc<ClientConfig>) -> (Arc<Self>, Arc<Tracer>) {
        let tracer = Tracer::begin();
        (Self::with_tracer(config, Some(tracer.clone())), tracer)
    }

    fn with_tracer(config: Arc<ClientConfig>, tracer: Option<Arc<Tracer>>) -> Arc<Self> {
        Arc::new(Self {
            master: MasterLink::new(config.clone(), tracer.clone()),
            tracer,
            config,
            pool: Pool::default(),
            links: ReadLinks::default(),
            buffers: Buffers::default(),
            reports: Reports::default(),
            hedge: Hedge::default(),
            grants: Mutex::default(),
            started: Instant::now(),
        })
    }

    /// What is kept of grants.
    pub(crate) fn grants(&self) -> MutexGuard<'_, Grants> {
        self.grants.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of the trace and the flags of a request to a datanode: those of an operation that is explained, or
    /// `otherwise`.
    pub(crate) fn trace(&self, otherwise: u64) -> (u64, u16) {
        self.tracer.as_ref().map_or((otherwise, 0), |tracer| (tracer.id, Header::TRACED))
    }
}
