//! Block reports: the full inventory in parts, and the changes in between.

use std::collections::VecDeque;

use distrifs_proto::InventoryDigest;
use distrifs_proto::types::ChunkId;

use super::node::Node;
use super::{Cluster, REPORT_REPLICAS_MAX, Replica, SessionId};
use crate::hold;

/// One change of a node's replicas.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Change {
    /// New or different.
    Added(Replica),
    /// Gone.
    Removed(ChunkId),
}

/// A full report of one session, gathered by the driver and applied in slices. What was known of the node stays until
/// its last part has arrived.
#[derive(Debug, Default)]
pub(crate) struct FullReport {
    parts: VecDeque<Vec<Replica>>,
    count: usize,
    last: Option<ChunkId>,
    is_unsorted: bool,
    /// The place in the first part.
    at: usize,
    /// What was known is compared up to here.
    after: Option<ChunkId>,
    oddities: Oddities,
}

/// Replicas that are applied in one slice: the locks are held meanwhile.
pub(crate) const REPORT_SLICE: usize = 128;

impl FullReport {
    /// One more part.
    ///
    /// # Errors
    /// [`BadReport::TooLong`].
    pub(crate) fn push(&mut self, part: Vec<Replica>) -> Result<(), BadReport> {
        self.count += part.len();
        if self.count > REPORT_REPLICAS_MAX {
            return Err(BadReport::TooLong);
        }
        for replica in &part {
            self.is_unsorted |= self.last.is_some_and(|last| replica.chunk < last);
            self.last = Some(replica.chunk);
        }
        if !part.is_empty() {
            self.parts.push_back(part);
        }
        Ok(())
    }

    /// Sorts what a node did not send in order, as it should have: no lock is to be held meanwhile.
    pub(crate) fn sort(&mut self) {
        if std::mem::take(&mut self.is_unsorted) {
            let mut all: Vec<Replica> = std::mem::take(&mut self.parts).into_iter().flatten().collect();
            // Stable: of a chunk that is named twice the last word counts.
            all.sort_by_key(|replica| replica.chunk);
            self.parts.push_back(all);
        }
    }

    /// Whether [`FullReport::sort`] has something to do.
    pub(crate) fn is_unsorted(&self) -> bool {
        self.is_unsorted
    }

    /// Replicas of all parts.
    pub(crate) fn len(&self) -> usize {
        self.count
    }

    /// The replicas of the next slice, at most: each wants the namespace's verdict before.
    pub(crate) fn next(&self) -> impl Iterator<Item = Replica> + '_ {
        let rest = self.parts.iter().enumerate();
        let rest = rest.flat_map(|(part, all)| &all[if part == 0 { self.at } else { 0 }..]);
        rest.take(REPORT_SLICE).copied()
    }

    fn peek(&self) -> Option<Replica> {
        self.parts.front().and_then(|part| part.get(self.at)).copied()
    }

    fn pop(&mut self) {
        self.at += 1;
        if self.parts.front().is_some_and(|part| self.at >= part.len()) {
            self.parts.pop_front();
            self.at = 0;
        }
    }
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
    /// The first part of a full report has arrived: what changes from now on is repeated on top of it.
    pub(crate) fn report_begins(&mut self, session: SessionId) {
        if let Some((_, node)) = self.node_of(session) {
            node.noted = Some(VecDeque::new());
        }
    }

    /// Applies a slice of a full report, with a verdict of the namespace on each of [`FullReport::next`]; whether there is
    /// more of it. The report and what is known are sorted, so both are
    /// walked together: what only the report has is added, what only was known is removed.
    pub(crate) fn apply_report(
        &mut self,
        now_ms: u64,
        session: SessionId,
        report: &mut FullReport,
        verdicts: Vec<Verdict>,
    ) -> bool {
        // A later session of the node sends a report of its own.
        let Some((index, node)) = self.node_of(session) else { return false };
        if node.noted.is_none() {
            return false;
        }
        let held_after = |node: &Node, after| node.held.iter_after(after).next().map(|(chunk, ())| chunk);
        let mut known = held_after(node, report.after);
        let mut verdicts = verdicts.into_iter();
        for _ in 0..REPORT_SLICE {
            hold::count(1);
            let Some(node) = self.nodes.get_mut(index as usize).and_then(Option::as_mut) else {
                return false;
            };
            match (report.peek(), known) {
                (Some(replica), known_now) if known_now.is_none_or(|known| replica.chunk <= known) => {
                    let verdict = match verdicts.next() {
                        Some(Verdict::Unknown) if self.grants.holds(replica.chunk) => Verdict::Fine,
                        Some(verdict) => verdict,
                        // Its turn comes with the next slice.
                        None => return true,
                    };
                    report.oddities.add(&replica, verdict);
                    node.held.insert(replica.chunk, ());
                    report.after = report.after.max(Some(replica.chunk));
                    report.pop();
                    if known_now == Some(replica.chunk) {
                        known = held_after(node, report.after);
                    }
                    self.replicas.put(index, replica);
                }
                (_, Some(gone)) => {
                    node.held.remove(gone);
                    known = held_after(node, report.after);
                    self.replicas.take(index, gone);
                    self.repairs.removed(gone, index);
                }
                _ => match node.noted.as_mut().and_then(VecDeque::pop_front) {
                    Some(change) => self.change(index, change),
                    None => {
                        (node.noted, node.reported, node.oddities) = (None, true, report.oddities);
                        self.refresh(now_ms, index);
                        return false;
                    }
                },
            }
        }
        true
    }

    /// One part of a full report, applied at once with the last one.
    ///
    /// # Errors
    /// [`BadReport`]; what was known before stays.
    #[cfg(test)]
    pub(crate) fn report_part(
        &mut self,
        now_ms: u64,
        session: SessionId,
        replicas: &[Replica],
        (first, last): (bool, bool),
        judge: impl Fn(&Replica) -> Verdict,
    ) -> Result<(), BadReport> {
        if let Some((_, node)) = self.node_of(session) {
            node.heard.heard(now_ms);
        }
        if first {
            self.test_reports.insert(session, FullReport::default());
            self.report_begins(session);
        }
        self.test_reports.get_mut(&session).ok_or(BadReport::NoFirst)?.push(replicas.to_vec())?;
        if last && let Some(mut report) = self.test_reports.remove(&session) {
            report.sort();
            loop {
                let verdicts = report.next().map(|replica| judge(&replica)).collect();
                if !self.apply_report(now_ms, session, &mut report, verdicts) {
                    break;
                }
            }
        }
        Ok(())
    }

    /// The digest of what a node has told; whether it is what is known of it here. While its list is on its way nothing
    /// can be said.
    pub(crate) fn digest_report(&mut self, now_ms: u64, session: SessionId, digest: InventoryDigest) -> bool {
        let Some((index, node)) = self.node_of(session) else { return true };
        node.heard.heard(now_ms);
        node.noted.is_some() || self.replicas.digest(index) == digest
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
        node.heard.heard(now_ms);
        let kept = node.noted.as_ref().map_or(0, VecDeque::len);
        if kept + added.len() + removed.len() > REPORT_REPLICAS_MAX {
            node.noted = None;
            return Err(BadReport::TooLong);
        }
        let changes: Vec<Change> = added
            .iter()
            .map(|it| Change::Added(*it))
            .chain(removed.iter().map(|it| Change::Removed(*it)))
            .collect();
        for change in changes {
            hold::count(1);
            if let Some(node) = self.nodes.get_mut(index as usize).and_then(Option::as_mut) {
                node.note(change);
                node.arrived(change);
            }
            self.change(index, change);
        }
        // What arrived takes less than was reserved for it.
        self.refresh(now_ms, index);
        Ok(())
    }

    fn change(&mut self, index: u32, change: Change) {
        let Some(node) = self.nodes.get_mut(index as usize).and_then(Option::as_mut) else { return };
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

impl Oddities {
    fn add(&mut self, replica: &Replica, verdict: Verdict) {
        self.corrupt += u64::from(replica.corrupt);
        match verdict {
            Verdict::Fine => {}
            Verdict::Unknown => self.unknown += 1,
            Verdict::Stale => self.stale += 1,
            Verdict::Differs => self.differing += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use distrifs_proto::types::{Crc32c, GenerationStamp};

    use super::*;

    fn replica(chunk: u64, length: u64) -> Replica {
        let (generation, crc) = (GenerationStamp(1), Crc32c(0));
        Replica { chunk: ChunkId(chunk), generation, length, crc, corrupt: false }
    }

    #[test]
    fn a_report_out_of_order_is_sorted_and_the_last_word_counts() {
        let mut report = FullReport::default();
        for part in [vec![replica(5, 1), replica(9, 1)], vec![], vec![replica(2, 1), replica(5, 2)]] {
            report.push(part).expect("short");
        }
        report.sort();
        let mut found = Vec::new();
        while let Some(it) = report.peek() {
            found.push((it.chunk.0, it.length));
            report.pop();
        }
        assert_eq!((found, report.len()), (vec![(2, 1), (5, 1), (5, 2), (9, 1)], 4));
    }
}
