//! Where one chunk is to be written, as the master planned it and this client checked it.

use distrifs_proto::grpc::v1;
use distrifs_proto::types::{ChunkId, Epoch, GenerationStamp, NodeId};

use crate::status::{Malformed, Node, nodes_of};

/// The pipeline of one chunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) chunk: ChunkId,
    pub(crate) generation: GenerationStamp,
    /// Of the leader that made the plan.
    pub(crate) epoch: Epoch,
    /// As many distinct nodes as the file wants replicas, the one we speak to first.
    pub(crate) hops: Vec<Node>,
}

impl Plan {
    /// A plan as it came; one that would not give `replication` copies is not accepted.
    pub(crate) fn check(
        plan: Option<v1::WritePlan>,
        epoch: u64,
        replication: u32,
    ) -> Result<Self, Malformed> {
        let plan = plan.ok_or("no plan in the answer")?;
        let hops = nodes_of(plan.hops)?;
        let distinct = hops.iter().enumerate().all(|(i, hop)| hops[..i].iter().all(|h| h.id != hop.id));
        if hops.is_empty() || hops.len() < replication as usize || !distinct {
            let ids: Vec<String> = hops.iter().map(|hop| hop.id.to_string()).collect();
            return Err(format!("a pipeline of [{}] for {replication} replicas", ids.join(" ")));
        }
        Ok(Self {
            chunk: ChunkId(plan.chunk_id),
            generation: GenerationStamp(plan.generation),
            epoch: Epoch(epoch),
            hops,
        })
    }

    /// The identities of the hops, in order.
    pub(crate) fn nodes(&self) -> Vec<NodeId> {
        self.hops.iter().map(|hop| hop.id).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_of_too_few_or_the_same_nodes_is_not_accepted() {
        let plan = |ids: &[u64]| {
            let hop = |&id: &u64| v1::Node { node_id: id, data_address: "127.0.0.1:1".into() };
            Some(v1::WritePlan { chunk_id: 1, generation: 1, hops: ids.iter().map(hop).collect() })
        };
        let many: Vec<u64> = (1..=17).collect();
        assert!(Plan::check(plan(&[1, 2, 3]), 1, 3).is_ok());
        for (ids, replication) in [(&[][..], 0), (&[1, 2], 3), (&[1, 2, 1], 3), (&many, 3)] {
            assert!(Plan::check(plan(ids), 1, replication).is_err(), "{ids:?} was accepted");
        }
        assert!(Plan::check(None, 1, 1).is_err());
    }
}
