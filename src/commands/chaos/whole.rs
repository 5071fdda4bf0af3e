//! Whether a cluster is whole again.

use distrifs_client::{Client, UnhealthyFile};

use super::lane::Lane;

/// Replicas of everything.
pub(super) const REPLICAS: u32 = 3;

/// Whether everything has all its replicas, each read where it lies.
#[derive(Debug, Default)]
pub(super) struct Whole {
    healthy: bool,
    /// Replicas that were read.
    pub(super) replicas: u64,
    bad: u64,
    /// Replicas that are sound and yet not what the namespace says.
    pub(super) divergent: u64,
}

impl Whole {
    pub(super) fn is_whole(&self) -> bool {
        self.healthy && self.bad == 0 && self.divergent == 0
    }

    /// Asks the master, then every replica.
    pub(super) async fn look(client: &Client, lanes: &[Lane]) -> Self {
        let mut whole = Self::default();
        let note = |file: UnhealthyFile| tracing::info!(?file, "not healthy yet");
        let Ok(sums) = client.check_files("/", note).await else { return whole };
        let Ok(status) = client.cluster_status().await else { return whole };
        whole.healthy = sums.healthy == sums.files && status.chunks_to_trim == 0;
        tracing::info!(?sums, to_trim = status.chunks_to_trim, safe_mode = status.safe_mode, "a look");
        if !whole.healthy {
            return whole;
        }
        for path in lanes.iter().flat_map(|lane| lane.ledger.paths()) {
            // One that is not there is the ledger's to judge.
            let Ok((_, chunks)) = client.chunks(&path).await else { continue };
            for chunk in &chunks {
                whole.bad += u64::from(chunk.replicas.len() != REPLICAS as usize);
                for node in &chunk.replicas {
                    match client.verify_replica(chunk, node).await {
                        Ok(crc) => {
                            whole.replicas += 1;
                            whole.divergent += u64::from(crc != chunk.crc32c);
                        }
                        Err(error) => {
                            tracing::info!(%error, "a replica is not sound yet");
                            whole.bad += 1;
                        }
                    }
                }
            }
        }
        whole
    }
}
