//! Looking at one segment without changing anything: for people who want to know what is in it.

use std::fmt;
use std::path::{Path, PathBuf};

use distrifs_proto::types::{ClusterId, Epoch, Lsn};

use super::super::error::{Corruption, RecoverError};
use super::super::format::{
    BLOCK_BYTES, BadHeader, SegmentHeader, VERSION, is_zero, records, segment_sequence,
};
use super::super::limits::{SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN};
use super::failed;
use super::scan::{Position, Segment, header_rotten_at, header_state};
use super::table::{GroupVerdict, HeaderFacts, HeaderState, HeaderVerdict, classify_group, classify_header};
use crate::folder::{Folder, RealFolder};

/// What one segment holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspection {
    /// The file.
    pub path: PathBuf,
    /// Its length.
    pub bytes: u64,
    /// What its header says; `None` when it was never in use, or the header is damaged.
    pub header: Option<InspectedHeader>,
    /// The whole groups from its start on.
    pub groups: Vec<InspectedGroup>,
    /// How it ends, or where it is damaged.
    pub verdict: SegmentVerdict,
}

/// A segment's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InspectedHeader {
    /// Whose log it is.
    pub cluster: ClusterId,
    /// The number of the segment in the log.
    pub sequence: u64,
    /// Its first record.
    pub first_lsn: Lsn,
    /// The leadership that took it into use.
    pub epoch: Epoch,
}

/// One group: the records of one write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InspectedGroup {
    /// Where it begins in the file.
    pub offset: u64,
    /// What it takes there.
    pub bytes: u64,
    /// Its first record.
    pub first_lsn: Lsn,
    /// The leadership that wrote it.
    pub epoch: Epoch,
    /// The records.
    pub records: Vec<Vec<u8>>,
}

/// What recovery would say of the segment, were it the last one of its log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SegmentVerdict {
    /// It was made ready and never used.
    Unused,
    /// After the last group there is nothing.
    Clean {
        /// Where the next group would go.
        offset: u64,
        /// The next record.
        next: Lsn,
    },
    /// The last write was torn by a crash; its records were never acknowledged. Damage if another segment follows.
    Torn {
        /// Where it begins.
        offset: u64,
        /// The next record.
        next: Lsn,
    },
    /// Damage.
    Corrupt {
        /// Where.
        offset: u64,
        /// The first record in doubt; 0 when even the header does not say.
        lsn: Lsn,
        /// What was found there.
        what: Corruption,
    },
}

impl fmt::Display for SegmentVerdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unused => f.write_str("made ready, never used"),
            Self::Clean { offset, next } => write!(f, "ends cleanly at byte {offset}, before LSN {next}"),
            Self::Torn { offset, next } => write!(f, "torn write at byte {offset}, before LSN {next}"),
            Self::Corrupt { offset, lsn, what } => {
                write!(f, "corrupt at byte {offset} (from LSN {lsn} on): {what}")
            }
        }
    }
}

/// Reads one segment of a log, of whichever cluster, and changes nothing. Where a log has its segments says
/// [`current_folder`](crate::log::current_folder).
///
/// Damage is no error here: it is the verdict.
///
/// # Errors
/// [`RecoverError::Io`]; [`RecoverError::InUse`] while a running log writes to it;
/// [`RecoverError::NewerVersion`].
pub fn inspect(path: &Path) -> Result<Inspection, RecoverError> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = path.file_name().and_then(|name| name.to_str()).ok_or_else(|| RecoverError::Io {
        path: path.to_owned(),
        doing: "read",
        source: std::io::Error::new(std::io::ErrorKind::InvalidInput, "not the path of a file"),
    })?;
    inspect_in(&Folder::Real(RealFolder::new(parent.to_owned())), name)
}

/// As [`inspect`].
pub(crate) fn inspect_in(folder: &Folder, name: &str) -> Result<Inspection, RecoverError> {
    let file = folder.read(name, SEGMENT_BYTES_MAX as usize + 1).map_err(failed(folder, name, "read"))?;
    let bytes = file.len() as u64;
    let mut inspection = Inspection {
        path: folder.file(name),
        bytes,
        header: None,
        groups: Vec::new(),
        verdict: SegmentVerdict::Unused,
    };
    let corrupt = |offset, lsn, what| SegmentVerdict::Corrupt { offset, lsn, what };
    let whole = bytes.is_multiple_of(BLOCK_BYTES as u64);
    if !whole || !(SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&bytes) {
        let what = Corruption::Length { expected: 0, found: bytes };
        inspection.verdict = corrupt(bytes, Lsn(0), what);
        return Ok(inspection);
    }
    let (block, body) = file.split_at(BLOCK_BYTES);
    let facts = HeaderFacts { header: header_state(block), body: !is_zero(body), last: true };
    let header = match classify_header(facts) {
        HeaderVerdict::Unused => return Ok(inspection),
        HeaderVerdict::CutHeader => {
            inspection.verdict = SegmentVerdict::Torn { offset: 0, next: Lsn(0) };
            return Ok(inspection);
        }
        HeaderVerdict::Refuse(what) => {
            let at = if facts.header == HeaderState::Rotten { header_rotten_at(block) } else { 0 };
            inspection.verdict = corrupt(at, Lsn(0), what);
            return Ok(inspection);
        }
        HeaderVerdict::Read => match SegmentHeader::decode(block) {
            Ok(header) => header,
            Err(BadHeader::Version(found)) if found > VERSION => {
                return Err(RecoverError::NewerVersion { file: inspection.path, found, known: VERSION });
            }
            Err(_) => {
                inspection.verdict = corrupt(0, Lsn(0), Corruption::HeaderContradiction);
                return Ok(inspection);
            }
        },
    };
    let SegmentHeader { cluster, sequence, first_lsn, epoch, .. } = header;
    inspection.header = Some(InspectedHeader { cluster, sequence, first_lsn, epoch });
    inspection.verdict = if segment_sequence(name).is_some_and(|named| named != sequence) {
        corrupt(0, first_lsn, Corruption::HeaderContradiction)
    } else if header.bytes != bytes {
        corrupt(bytes, first_lsn, Corruption::Length { expected: header.bytes, found: bytes })
    } else {
        groups(&file, &header, &mut inspection.groups)
    };
    Ok(inspection)
}

/// Takes the whole groups, and says what is behind them.
fn groups(file: &[u8], header: &SegmentHeader, found: &mut Vec<InspectedGroup>) -> SegmentVerdict {
    let mut position = Position { next_lsn: header.first_lsn, seal: header.previous, epoch: header.epoch };
    let segment = Segment::new(file, header.salt);
    let mut at = BLOCK_BYTES;
    let state = loop {
        let group = match segment.group(at, &position) {
            Ok(group) => group,
            Err(state) => break state,
        };
        let Ok(records) = records(&group.body, group.header.count) else {
            let what = Corruption::Contradiction;
            return SegmentVerdict::Corrupt { offset: at as u64, lsn: position.next_lsn, what };
        };
        found.push(InspectedGroup {
            offset: at as u64,
            bytes: (group.end - at) as u64,
            first_lsn: group.header.first_lsn,
            epoch: group.header.epoch,
            records: records.into_iter().map(<[u8]>::to_vec).collect(),
        });
        position.next_lsn.0 += u64::from(group.header.count);
        position.seal = group.seal;
        position.epoch = group.header.epoch;
        at = group.end;
    };
    let (offset, next) = (at as u64, position.next_lsn);
    match classify_group(segment.facts(at, state, false)) {
        GroupVerdict::End | GroupVerdict::NextSegment => SegmentVerdict::Clean { offset, next },
        GroupVerdict::Cut => SegmentVerdict::Torn { offset, next },
        GroupVerdict::Refuse(what) => {
            let rotten = segment.rotten_at(at).filter(|_| what == Corruption::RottenSector);
            SegmentVerdict::Corrupt { offset: rotten.unwrap_or(offset), lsn: next, what }
        }
    }
}
