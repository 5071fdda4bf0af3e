//! Keeps the right to write a file while a put runs.

use std::sync::Arc;
use std::time::Duration;

use distrifs_proto::grpc::v1;
use distrifs_proto::types::FileId;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::context::Context;
use crate::master_link::new_request_id;

/// Renewals in the time that a lease holds: two may be lost.
const RENEWALS_PER_LEASE: u32 = 3;
/// Whatever a master says, renewals are no closer than this, and no further apart than [`INTERVAL_MAX`].
const INTERVAL_MIN: Duration = Duration::from_millis(100);
const INTERVAL_MAX: Duration = Duration::from_secs(600);

/// Renews a file's lease until dropped.
#[derive(Debug)]
pub(crate) struct Lease {
    renewal: JoinHandle<()>,
}

impl Lease {
    /// Of a file that was just opened, with a lease of this length.
    pub(crate) fn keep(context: Arc<Context>, path: String, file_id: FileId, lease: Duration) -> Self {
        let interval = (lease / RENEWALS_PER_LEASE).clamp(INTERVAL_MIN, INTERVAL_MAX);
        let renewal = tokio::spawn(async move {
            loop {
                sleep(interval).await;
                let message =
                    v1::RenewLeaseRequest { request_id: new_request_id(), file_ids: vec![file_id.0] };
                match context.master.renew_lease(&path, message).await {
                    // The next call about this file is refused and ends the put.
                    Ok(reply) if reply.expired.contains(&file_id.0) => return,
                    Ok(_) => {}
                    Err(error) => tracing::debug!(path, %error, "a lease was not renewed"),
                }
            }
        });
        Self { renewal }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.renewal.abort();
    }
}
