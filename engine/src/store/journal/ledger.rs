//! What the journal's segments are in, and what is to be done next. Pure: time is an argument.

use std::collections::HashSet;
use std::time::Duration;

use distrifs_proto::types::ChunkId;

use super::SEGMENTS;
use super::format::RecordPlace;

/// How old a record may become before its files are made durable.
pub(super) const RECORD_AGE_MAX: Duration = Duration::from_secs(20);

/// A segment with records up to this block is closed if none is at that moment: the fewer files a checkpoint makes
/// durable, the shorter it holds up those that are made meanwhile. The rest of a segment is for those that come while a
/// checkpoint takes long.
const CHECKPOINT_BLOCKS: u32 = 256;

/// Where the next record can go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Room {
    /// Into this segment.
    Here(usize),
    /// Into this one, once it is made.
    Make(usize),
    /// Nowhere before a segment is free again.
    None,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Missing,
    Free,
    /// Takes records.
    Active,
    /// Takes no more, and is free once its records are not needed any more.
    Closed,
}

#[derive(Debug)]
struct Slot {
    state: State,
    blocks: u32,
    next: u32,
    /// The chunks whose records count.
    live: HashSet<ChunkId>,
    /// When its first record came.
    since: Duration,
}

/// The segments of a journal. At most one is active, and at most one is closed.
#[derive(Debug)]
pub(super) struct Ledger {
    slots: [Slot; SEGMENTS],
}

impl Ledger {
    /// Free segments of so many blocks each; 0: not made yet.
    pub(super) fn new(blocks: [u32; SEGMENTS]) -> Self {
        let slot = |blocks| {
            let state = if blocks == 0 { State::Missing } else { State::Free };
            Slot { state, blocks, next: 1, live: HashSet::new(), since: Duration::ZERO }
        };
        Self { slots: blocks.map(slot) }
    }

    /// Where a record of so many blocks goes. `may_make`: a segment may be made for it.
    pub(super) fn room(&self, blocks: u32, may_make: bool) -> Room {
        if let Some(active) = self.active() {
            let slot = &self.slots[active];
            return if slot.next + blocks <= slot.blocks { Room::Here(active) } else { Room::None };
        }
        if let Some(free) = self.find(State::Free) {
            return Room::Here(free);
        }
        self.find(State::Missing).filter(|_| may_make).map_or(Room::None, Room::Make)
    }

    /// Whether any segment is there or in use.
    pub(super) fn has_segments(&self) -> bool {
        self.slots.iter().any(|slot| slot.state != State::Missing)
    }

    /// A segment is made.
    pub(super) fn made(&mut self, segment: usize, blocks: u32) {
        let slot = &mut self.slots[segment];
        (slot.state, slot.blocks) = (State::Free, blocks);
    }

    /// The block at which the next record of a segment begins.
    pub(super) fn next_block(&self, segment: usize) -> u32 {
        self.slots[segment].next
    }

    /// Puts a record where [`room`](Self::room) said. It counts from now on, whether or not its write succeeds.
    pub(super) fn place(
        &mut self,
        segment: usize,
        group: u32,
        chunk: ChunkId,
        blocks: u32,
        now: Duration,
    ) -> RecordPlace {
        let slot = &mut self.slots[segment];
        assert!(slot.next + blocks <= slot.blocks, "a record where there is room for it");
        slot.state = State::Active;
        if slot.live.is_empty() {
            slot.since = now;
        }
        slot.live.insert(chunk);
        let place = RecordPlace { block: slot.next, group };
        slot.next += blocks;
        place
    }

    /// Closes the active segment if that is due: it is full, old, wanted, has many records or one of one of `chunks`. Not while
    /// another is closed: those who come meanwhile share the next one.
    pub(super) fn close_due<'a>(
        &mut self,
        full: bool,
        wanted: bool,
        chunks: impl IntoIterator<Item = &'a ChunkId>,
        now: Duration,
    ) -> Option<usize> {
        if self.find(State::Closed).is_some() {
            return None;
        }
        let active = self.active()?;
        let slot = &mut self.slots[active];
        let old = slot.since + RECORD_AGE_MAX <= now;
        let many = slot.next >= CHECKPOINT_BLOCKS;
        let due = full || wanted || old || many || chunks.into_iter().any(|chunk| slot.live.contains(chunk));
        due.then(|| {
            slot.state = State::Closed;
            active
        })
    }

    /// The records of a closed segment do not count any more.
    pub(super) fn released(&mut self, segment: usize) {
        let slot = &mut self.slots[segment];
        assert_eq!(slot.state, State::Closed, "a closed segment is released");
        slot.state = State::Free;
        slot.next = 1;
        slot.live.clear();
    }

    /// Whether a record of this chunk counts.
    pub(super) fn is_live(&self, chunk: ChunkId) -> bool {
        self.slots.iter().any(|slot| slot.live.contains(&chunk))
    }

    /// Whether no record counts.
    pub(super) fn is_empty(&self) -> bool {
        self.slots.iter().all(|slot| slot.live.is_empty())
    }

    /// When the active segment becomes too old.
    pub(super) fn due_at(&self) -> Option<Duration> {
        self.active().map(|active| self.slots[active].since + RECORD_AGE_MAX)
    }

    fn active(&self) -> Option<usize> {
        self.find(State::Active)
    }

    fn find(&self, state: State) -> Option<usize> {
        self.slots.iter().position(|slot| slot.state == state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: [&ChunkId; 0] = [];

    fn place(ledger: &mut Ledger, segment: usize, chunk: u64) -> u32 {
        let group = ledger.next_block(segment);
        ledger.place(segment, group, ChunkId(chunk), 2, Duration::from_secs(1)).block
    }

    #[test]
    fn segments_are_made_filled_closed_and_used_again() {
        let (mut ledger, now) = (Ledger::new([0, 0]), Duration::from_secs(1));
        assert!(!ledger.has_segments());
        assert_eq!(ledger.room(2, false), Room::None);
        assert_eq!(ledger.room(2, true), Room::Make(0));
        ledger.made(0, 5);
        assert_eq!(ledger.room(2, true), Room::Here(0));
        assert_eq!((place(&mut ledger, 0, 1), place(&mut ledger, 0, 2)), (1, 3));
        assert_eq!(ledger.room(1, true), Room::None);
        assert_eq!(ledger.close_due(false, false, NONE, now), None);
        assert_eq!(ledger.close_due(true, false, NONE, now), Some(0));
        assert_eq!(ledger.room(2, true), Room::Make(1));
        ledger.made(1, 5);
        place(&mut ledger, 1, 3);
        // One at a time.
        assert_eq!(ledger.close_due(true, true, [&ChunkId(3)], now), None);
        assert!(ledger.is_live(ChunkId(1)) && ledger.is_live(ChunkId(3)) && !ledger.is_empty());
        ledger.released(0);
        assert!(!ledger.is_live(ChunkId(1)) && ledger.is_live(ChunkId(3)));
        assert_eq!(ledger.close_due(false, false, [&ChunkId(1)], now), None);
        assert_eq!(ledger.close_due(false, false, [&ChunkId(3)], now), Some(1));
        ledger.released(1);
        assert!(ledger.is_empty());
        assert_eq!((ledger.room(2, true), ledger.next_block(0)), (Room::Here(0), 1));
    }

    #[test]
    fn many_records_are_made_void_unless_others_are_just_then() {
        let (mut ledger, now) = (Ledger::new([4096, 4096]), Duration::ZERO);
        ledger.place(0, 1, ChunkId(1), CHECKPOINT_BLOCKS - 2, now);
        assert_eq!(ledger.close_due(false, false, NONE, now), None);
        ledger.place(0, CHECKPOINT_BLOCKS - 1, ChunkId(2), 1, now);
        assert_eq!(ledger.close_due(false, false, NONE, now), Some(0));
        ledger.place(1, 1, ChunkId(3), CHECKPOINT_BLOCKS, now);
        assert_eq!(ledger.close_due(false, false, NONE, now), None, "one at a time");
        assert_eq!(ledger.room(1, false), Room::Here(1), "those that come meanwhile have room");
        ledger.released(0);
        assert_eq!(ledger.close_due(false, false, NONE, now), Some(1));
    }

    #[test]
    fn a_segment_is_as_old_as_its_first_record() {
        let mut ledger = Ledger::new([9, 9]);
        assert_eq!(ledger.due_at(), None);
        let first = Duration::from_secs(5);
        ledger.place(0, 1, ChunkId(1), 1, first);
        ledger.place(0, 2, ChunkId(2), 1, first * 2);
        assert_eq!(ledger.due_at(), Some(first + RECORD_AGE_MAX));
        let almost = first + RECORD_AGE_MAX - Duration::from_nanos(1);
        assert_eq!(ledger.close_due(false, false, NONE, almost), None);
        assert_eq!(ledger.close_due(false, false, NONE, first + RECORD_AGE_MAX), Some(0));
    }
}
