//! Reads one segment after the other, follows the tables' verdicts, and changes nothing before the end.

use distrifs_proto::types::{ClusterId, Crc32c, Epoch, Lsn};

use super::super::error::{Corruption, RecoverError};
use super::super::format::{
    BLOCK_BYTES, BadHeader, SegmentHeader, VERSION, Witness, is_zero, records, segment_name,
};
use super::super::limits::{LSN_MAX, SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN};
use super::super::release::KeptSegment;
use super::recovered::{ActiveSegment, CutTail, Tail};
use super::scan::{Position, Segment, header_rotten_at, header_state};
use super::table::{GroupVerdict, HeaderFacts, HeaderState, HeaderVerdict, classify_group, classify_header};
use super::{Replay, failed};
use crate::folder::{AlignedBuf, Folder};

/// Reads segments one after the other.
pub(super) struct Reader<'a> {
    folder: &'a Folder,
    cluster: ClusterId,
    /// Records up to here are not handed out.
    after: Lsn,
    pub(super) first_lsn: Option<Lsn>,
    pub(super) position: Position,
    pub(super) tail: Tail,
    pub(super) cut: Option<CutTail>,
    /// Whether the bytes of the segment in use are wanted.
    keeps_active: bool,
    pub(super) active_bytes: Option<AlignedBuf>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(folder: &'a Folder, cluster: ClusterId, after: Lsn, keeps_active: bool) -> Self {
        Self {
            folder,
            cluster,
            after,
            first_lsn: None,
            position: Position { next_lsn: Lsn(1), seal: Crc32c(0), epoch: Epoch(0) },
            tail: Tail::default(),
            cut: None,
            keeps_active,
            active_bytes: None,
        }
    }

    fn corrupt(&self, sequence: u64, offset: u64, what: Corruption) -> RecoverError {
        let file = self.folder.file(&segment_name(sequence));
        RecoverError::Corrupt { file, offset, lsn: self.position.next_lsn, what }
    }

    /// Reads the next segment; `later` says whether one after it was in use.
    pub(super) fn segment(
        &mut self,
        sequence: u64,
        last: bool,
        later: bool,
        replay: &mut Replay<'_>,
    ) -> Result<(), RecoverError> {
        let name = segment_name(sequence);
        // One byte more shows a file that is too long.
        let most = SEGMENT_BYTES_MAX as usize + 1;
        let file = self.folder.read(&name, most).map_err(failed(self.folder, &name, "read"))?;
        let found = file.len() as u64;
        if !(SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&found)
            || !found.is_multiple_of(BLOCK_BYTES as u64)
        {
            return Err(self.corrupt(sequence, found, Corruption::Length { expected: 0, found }));
        }
        let (block, body) = file.split_at(BLOCK_BYTES);
        let facts = HeaderFacts { header: header_state(block), body: !is_zero(body), last };
        match classify_header(facts) {
            HeaderVerdict::Refuse(what) => {
                let at = if facts.header == HeaderState::Rotten { header_rotten_at(block) } else { 0 };
                return Err(self.corrupt(sequence, at, what));
            }
            HeaderVerdict::Unused => self.tail.unused = Some((sequence, found)),
            HeaderVerdict::CutHeader => {
                self.tail.unused = Some((sequence, found));
                self.cut = Some(CutTail { sequence, offset: 0, bytes: BLOCK_BYTES as u64 });
            }
            HeaderVerdict::Read => {
                let header = self.header(sequence, block, found)?;
                self.groups(&file, &header, later, replay)?;
                if self.keeps_active {
                    // As far as anybody knows yet: a later one may take its place.
                    self.active_bytes = Some(file);
                }
            }
        }
        Ok(())
    }

    /// The header, when it belongs here.
    fn header(&mut self, sequence: u64, block: &[u8], found: u64) -> Result<SegmentHeader, RecoverError> {
        let file = || self.folder.file(&segment_name(sequence));
        let header = match SegmentHeader::decode(block) {
            Ok(header) => header,
            Err(BadHeader::Version(found)) if found > VERSION => {
                return Err(RecoverError::NewerVersion { file: file(), found, known: VERSION });
            }
            Err(_) => return Err(self.corrupt(sequence, 0, Corruption::HeaderContradiction)),
        };
        if header.cluster != self.cluster {
            let found = header.cluster;
            return Err(RecoverError::WrongCluster { file: file(), expected: self.cluster, found });
        }
        if header.bytes != found {
            return Err(self.corrupt(sequence, found, Corruption::Length { expected: header.bytes, found }));
        }
        if self.first_lsn.is_none() {
            // The first segment that is kept says itself where it begins; the very first begins at 1.
            let begins = sequence != 1 || (header.first_lsn == Lsn(1) && header.previous == Crc32c(0));
            if header.first_lsn == Lsn(0) || header.first_lsn > LSN_MAX || !begins {
                return Err(self.corrupt(sequence, 0, Corruption::HeaderContradiction));
            }
            let needed = Lsn(self.after.0.saturating_add(1));
            if header.first_lsn > needed {
                return Err(RecoverError::Released { file: file(), first: header.first_lsn, needed });
            }
            self.first_lsn = Some(header.first_lsn);
            self.position.next_lsn = header.first_lsn;
            self.position.seal = header.previous;
        }
        if header.first_lsn > self.position.next_lsn
            && let Some(before) = &self.tail.active
        {
            // The end of the segment before is missing, and this header is the proof.
            let known = Lsn(header.first_lsn.0 - 1);
            return Err(self.corrupt(before.sequence, before.end, Corruption::EndLost { known }));
        }
        let fits = header.sequence == sequence
            && header.first_lsn == self.position.next_lsn
            && header.previous == self.position.seal
            && header.epoch >= self.position.epoch;
        if !fits {
            return Err(self.corrupt(sequence, 0, Corruption::HeaderContradiction));
        }
        self.position.epoch = header.epoch;
        Ok(header)
    }

    fn groups(
        &mut self,
        file: &[u8],
        header: &SegmentHeader,
        later: bool,
        replay: &mut Replay<'_>,
    ) -> Result<(), RecoverError> {
        let sequence = header.sequence;
        let segment = Segment::new(file, header.salt);
        let mut at = BLOCK_BYTES;
        let state = loop {
            let group = match segment.group(at, &self.position) {
                Ok(group) => group,
                Err(state) => break state,
            };
            let Ok(found) = records(&group.body, group.header.count) else {
                return Err(self.corrupt(sequence, at as u64, Corruption::Contradiction));
            };
            for (lsn, record) in (group.header.first_lsn.0..).map(Lsn).zip(found) {
                if lsn <= self.after {
                    continue;
                }
                replay(lsn, group.header.epoch, record)
                    .map_err(|source| RecoverError::Replay { lsn, source })?;
            }
            self.position.next_lsn.0 += u64::from(group.header.count);
            self.position.seal = group.seal;
            self.position.epoch = group.header.epoch;
            at = group.end;
        };
        match classify_group(segment.facts(at, state, later)) {
            GroupVerdict::End | GroupVerdict::NextSegment => {}
            GroupVerdict::Cut => {
                let bytes = (segment.used_end() - at) as u64;
                self.cut = Some(CutTail { sequence, offset: at as u64, bytes });
            }
            GroupVerdict::Refuse(what) => {
                let rotten = segment.rotten_at(at).filter(|_| what == Corruption::RottenSector);
                return Err(self.corrupt(sequence, rotten.unwrap_or(at as u64), what));
            }
        }
        self.tail.kept.push(KeptSegment { sequence, first_lsn: header.first_lsn, bytes: header.bytes });
        self.tail.active =
            Some(ActiveSegment { sequence, salt: header.salt, bytes: header.bytes, end: at as u64 });
        Ok(())
    }

    /// How far the log reaches, to be written down.
    pub(super) fn end(&self, first_sequence: u64) -> Witness {
        Witness {
            cluster: self.cluster,
            first_sequence,
            last_lsn: Lsn(self.position.next_lsn.0 - 1),
            seal: self.position.seal,
        }
    }

    /// The log reaches as far as it once did.
    pub(super) fn check_witness(&self, witness: &Witness) -> Result<(), RecoverError> {
        let last = Lsn(self.position.next_lsn.0 - 1);
        let (sequence, end) = self.tail.active.map_or((witness.first_sequence, 0), |a| (a.sequence, a.end));
        if last < witness.last_lsn {
            return Err(self.corrupt(sequence, end, Corruption::EndLost { known: witness.last_lsn }));
        }
        if last == witness.last_lsn && self.position.seal != witness.seal {
            return Err(self.corrupt(sequence, end, Corruption::Contradiction));
        }
        Ok(())
    }

    /// The log reaches as far as its caller knows.
    pub(super) fn check_reaches(&self, known: Lsn, first_sequence: u64) -> Result<(), RecoverError> {
        let (sequence, end) = self.tail.active.map_or((first_sequence, 0), |a| (a.sequence, a.end));
        if self.position.next_lsn <= known {
            return Err(self.corrupt(sequence, end, Corruption::EndLost { known }));
        }
        Ok(())
    }

    /// Zeroes the remains of a torn write, so that the next group finds the segment as it was made.
    pub(super) fn cut_tail(&self) -> Result<(), RecoverError> {
        let Some(cut) = &self.cut else { return Ok(()) };
        let name = segment_name(cut.sequence);
        let zeros = AlignedBuf::zeroed(cut.bytes as usize);
        tracing::warn!(
            file = %self.folder.file(&name).display(), offset = cut.offset, bytes = cut.bytes,
            last_lsn = self.position.next_lsn.0 - 1, "the last write of the log was torn: cut"
        );
        self.folder.write_durably(&name, &zeros, cut.offset).map_err(failed(
            self.folder,
            &name,
            "cut the torn tail of",
        ))
    }
}
