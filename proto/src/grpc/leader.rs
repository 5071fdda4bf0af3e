//! Finding the master that leads among those that may.

use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::timeout;
use tonic::transport::Channel;

use super::v1;
use super::v1::admin_service_client::AdminServiceClient;
use crate::types::Epoch;

/// Asks all of these masters at once, and returns index and epoch of the first that answers and is of the epoch `seen` or
/// a later one; if none is within `patience`, of the latest that answers, if any does. One that waits for its turn does not answer, and neither does one
/// that stands still, though its machine still takes connections in.
pub async fn leading(
    masters: &[(usize, Channel)],
    seen: Epoch,
    patience: Duration,
) -> Option<(usize, Epoch)> {
    let mut asked = JoinSet::new();
    for (index, master) in masters.iter().cloned() {
        asked.spawn(async move {
            let answer = timeout(patience, AdminServiceClient::new(master).ping(v1::PingRequest {})).await;
            answer.ok()?.ok().map(|reply| (index, Epoch(reply.into_inner().epoch)))
        });
    }
    let mut latest = None;
    while let Some(answered) = asked.join_next().await {
        let Ok(Some((index, epoch))) = answered else { continue };
        if latest.is_none_or(|(_, known)| epoch > known) {
            latest = Some((index, epoch));
        }
        if epoch >= seen {
            break;
        }
    }
    latest
}
