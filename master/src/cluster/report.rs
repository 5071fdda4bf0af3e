//! Block reports: the full inventory in parts, and the changes in between.

use distrifs_proto::InventoryDigest;
use distrifs_proto::types::ChunkId;

use super::{Cluster, REPORT_REPLICAS_MAX, Replica, SessionId};

/// One change of a node's replicas.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Change {
    /// New or different.
    Added(Replica),
    /// Gone.
    Removed(ChunkId),
}

/// A full report on its way.
#[derive(Debug, Default)]
pub(super) struct Incoming {
    replicas: Vec<Replica>,
    /// What happened after its first part, to be repeated on top of it.
    pub(super) changes: Vec<Change>,
}

/// What the namespace says of a reported replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// As expected, or not to be judged yet.
    Fine,
    /// No such chunk is known: counted here; what becomes of it is `orphans`' to say.
    Unknown,
    /// A lower generation than the chunk has.
    Stale,
    /// Another length or checksum than the chunk has.
    Differs,
}

/// What did not fit the namespace in a full report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Oddities {
    /// Replicas of chunks that the namespace does not know.
    pub(crate) unknown: u64,
    /// Replicas of an older generation.
    pub(crate) stale: u64,
    /// Replicas with other bytes.
    pub(crate) differing: u64,
    /// Replicas that the node itself found damaged.
    pub(crate) corrupt: u64,
}

/// A report that breaks the rules; the session ends.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadReport {
    /// A part without a first one before.
    #[error("a part of a full report came before its first one")]
    NoFirst,
    /// More than can be kept.
    #[error("a full report names more than {REPORT_REPLICAS_MAX} replicas")]
    TooLong,
}

impl Cluster {
    /// One part of a full report; what it replaces is replaced with the last part.
    ///
    /// # Errors
    /// [`BadReport`]; what was known before stays.
    pub(crate) fn report_part(
        &mut self,
        now_ms: u64,
        session: SessionId,
        replicas: &[Replica],
        (first, last): (bool, bool),
        judge: impl Fn(&Replica) -> Verdict,
    ) -> Result<(), BadReport> {
        let Some(index) = self.sessions.get(&session).copied() else { return Ok(()) };
        let Some(node) = self.nodes.get_mut(index as usize) else { return Ok(()) };
        node.heard_ms = now_ms;
        if first {
            node.incoming = Some(Incoming::default());
        }
        let Some(incoming) = node.incoming.as_mut() else {
            return Err(BadReport::NoFirst);
        };
        if incoming.replicas.len() + replicas.len() > REPORT_REPLICAS_MAX {
            node.incoming = None;
            return Err(BadReport::TooLong);
        }
        incoming.replicas.extend_from_slice(replicas);
        if !last {
            return Ok(());
        }
        let Some(report) = node.incoming.take() else { return Ok(()) };
        node.reported = true;
        node.oddities = count(&report.replicas, |replica| match judge(replica) {
            Verdict::Unknown if self.grants.holds(replica.chunk) => Verdict::Fine,
            verdict => verdict,
        });
        let mut gone = std::mem::take(&mut node.held);
        for replica in &report.replicas {
            node.held.insert(replica.chunk, ());
        }
        for replica in &report.replicas {
            gone.remove(replica.chunk);
            self.replicas.put(index, *replica);
        }
        for (chunk, ()) in gone.iter() {
            self.replicas.take(index, chunk);
            self.repairs.removed(chunk, index);
        }
        for change in report.changes {
            self.change(index, change);
        }
        Ok(())
    }

    /// The digest of what a node has told; whether it is what is known of it here. While its list is on its way nothing
    /// can be said.
    pub(crate) fn digest_report(&mut self, now_ms: u64, session: SessionId, digest: InventoryDigest) -> bool {
        let Some((index, node)) = self.node_of(session) else { return true };
        node.heard_ms = now_ms;
        node.incoming.is_some() || self.replicas.digest(index) == digest
    }

    /// What changed on a node since its last message.
    ///
    /// # Errors
    /// [`BadReport`] when more changed during a full report than can be kept.
    pub(crate) fn changed(
        &mut self,
        now_ms: u64,
        session: SessionId,
        added: &[Replica],
        removed: &[ChunkId],
    ) -> Result<(), BadReport> {
        let Some((index, node)) = self.node_of(session) else { return Ok(()) };
        node.heard_ms = now_ms;
        let kept = node.incoming.as_ref().map_or(0, |incoming| incoming.changes.len());
        if kept + added.len() + removed.len() > REPORT_REPLICAS_MAX {
            node.incoming = None;
            return Err(BadReport::TooLong);
        }
        let changes: Vec<Change> = added
            .iter()
            .map(|it| Change::Added(*it))
            .chain(removed.iter().map(|it| Change::Removed(*it)))
            .collect();
        for change in changes {
            if let Some(node) = self.nodes.get_mut(index as usize) {
                node.note(change);
                node.arrived(change);
            }
            self.change(index, change);
        }
        Ok(())
    }

    fn change(&mut self, index: u32, change: Change) {
        let Some(node) = self.nodes.get_mut(index as usize) else { return };
        match change {
            Change::Added(replica) => {
                node.held.insert(replica.chunk, ());
                self.replicas.put(index, replica);
            }
            Change::Removed(chunk) => {
                node.held.remove(chunk);
                self.replicas.take(index, chunk);
                self.repairs.removed(chunk, index);
            }
        }
    }
}

fn count(replicas: &[Replica], judge: impl Fn(&Replica) -> Verdict) -> Oddities {
    let mut oddities = Oddities::default();
    for replica in replicas {
        oddities.corrupt += u64::from(replica.corrupt);
        match judge(replica) {
            Verdict::Fine => {}
            Verdict::Unknown => oddities.unknown += 1,
            Verdict::Stale => oddities.stale += 1,
            Verdict::Differs => oddities.differing += 1,
        }
    }
    oddities
}
