//! Datanodes that join for a moment and go: how many identities does a master take over its life?

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use distrifs_proto::grpc::v1;
use distrifs_proto::types::HostPort;
use tokio::task::JoinSet;

use super::fleet::REGISTERING_MAX;
use super::sim_node::Link;
use crate::error::CommandError;

/// The first identity; those of the fleets are far below.
const FIRST_ID: u64 = 1 << 40;

/// How many of the registrations the master took, and why it refused the first that it did not.
#[derive(Debug, Default)]
pub(super) struct Registrations {
    pub(super) taken: u64,
    pub(super) refusal: Option<String>,
}

/// Registers `count` new nodes, each for a moment. Their sessions follow one another on a few connections.
pub(super) async fn register(
    master: &HostPort,
    count: u64,
    data_address: &str,
    patience: Duration,
) -> Result<Registrations, CommandError> {
    let next = Arc::new(AtomicU64::new(0));
    let mut lanes = JoinSet::new();
    for _ in 0..(REGISTERING_MAX as u64).min(count) {
        let unreachable = |why| CommandError::Daemon(format!("{master}: {why}"));
        let channel = Link::connect(master, patience).await.map_err(unreachable)?;
        let (next, data_address) = (next.clone(), data_address.to_owned());
        lanes.spawn(async move {
            let mut of_lane = Registrations::default();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= count {
                    return of_lane;
                }
                let register = v1::Register {
                    node_id: FIRST_ID + number,
                    data_address: data_address.clone(),
                    version: env!("CARGO_PKG_VERSION").to_owned(),
                    incarnation: number,
                    ..v1::Register::default()
                };
                match Link::open(channel.clone(), register, patience).await {
                    Ok(_) => of_lane.taken += 1,
                    Err(why) => drop(of_lane.refusal.get_or_insert(why)),
                }
            }
        });
    }
    let mut all = Registrations::default();
    while let Some(lane) = lanes.join_next().await {
        let lane = lane.map_err(|error| CommandError::Check(format!("a lane ended abnormally: {error}")))?;
        all.taken += lane.taken;
        all.refusal = all.refusal.or(lane.refusal);
    }
    Ok(all)
}
