//! Recovery: reads every segment, hands out the records in order, decides by the table, cuts a torn tail.
//!
//! Before this returns, what was handed out is durable for certain: the last segment is synced (a crash may
//! leave a group in the drive's cache that was never acknowledged), and the witness says how far it goes.

mod inspect;
mod reader;
mod recovered;
mod scan;
mod table;

use std::path::Path;

use distrifs_proto::types::{ClusterId, Epoch, Lsn};

use super::error::{Corruption, RecoverError, ReplayError, is_no_space};
use super::format::{
    BLOCK_BYTES, BadHeader, SECTOR_BYTES, TEMPORARY_SUFFIX, VERSION, WITNESS_NAME, Witness, is_zero,
    segment_name, segment_sequence,
};
use super::home::Home;
use super::limits::SEGMENTS_MAX;
use super::prepare::write_witness;
use crate::folder::{AlignedBuf, Folder, RealFolder};
#[cfg(test)]
pub(crate) use inspect::inspect_in;
pub use inspect::{InspectedGroup, InspectedHeader, Inspection, SegmentVerdict, inspect};
use reader::Reader;
pub(crate) use recovered::ActiveSegment;
pub(super) use recovered::Tail;
pub use recovered::{CutTail, Recovered};
pub(crate) use scan::Position;

/// Takes one record; an error ends the recovery.
pub type Replay<'a> = dyn FnMut(Lsn, Epoch, &[u8]) -> Result<(), ReplayError> + 'a;

/// Reads the log of `cluster` in `dir`, which is made when it is missing, and hands each record *after* `after` to
/// `replay` in order: [`Lsn`]`(0)` for all, the LSN of a checkpoint for what it does not hold. The others are checked
/// as well, as far as they are kept. A torn tail is cut durably before this returns, and the remains of a
/// [release](crate::log::Log::release) or of a [fork](crate::log::recover_forked) that a crash interrupted are removed.
/// It blocks, and keeps one segment in memory at a time.
///
/// Where the log was forked, this is about its newest fork, and so is the lock. It is refused as in use while somebody
/// is making a fork. Whoever leads in terms of epochs must have made its own epoch known before it calls this.
///
/// `after` is also a witness: a log that ends before it has lost records, and one that begins later than right
/// after it cannot give what is asked for. Both are refused.
///
/// After a crash every acknowledged record is handed out, in order and with its LSN, and after them at most the
/// records of the one group that was being written. Any other damage is refused with the file, the offset and
/// the first LSN in doubt.
///
/// One damage no log can see by itself: when *everything* from some place in the last groups on has become zero,
/// it looks as if it had never been written, or as one torn write. The witness file beside the segments catches
/// that for all that the last recovery or clean end had seen. For what came after those, compare
/// [`Recovered::last_lsn`] with whoever may know better: a checkpoint, a standby, the datanodes.
///
/// # Errors
/// See [`RecoverError`]. Records may have been handed out before: drop what was built from them.
pub fn recover(
    dir: &Path,
    cluster: ClusterId,
    after: Lsn,
    replay: &mut Replay<'_>,
) -> Result<Recovered, RecoverError> {
    recover_in(&open_root(dir)?, cluster, after, replay)
}

/// The log's folder, made when it is missing.
pub(super) fn open_root(dir: &Path) -> Result<Folder, RecoverError> {
    let real = RealFolder::new(dir.to_owned());
    let io = |source| RecoverError::Io { path: dir.to_owned(), doing: "make the folder", source };
    real.create_if_missing().map_err(io)?;
    Ok(Folder::Real(real))
}

/// As [`recover`].
pub(crate) fn recover_in(
    root: &Folder,
    cluster: ClusterId,
    after: Lsn,
    replay: &mut Replay<'_>,
) -> Result<Recovered, RecoverError> {
    let home = Home::lock(root)?;
    let recovered = recover_folder(&home.folder, cluster, after, replay)?;
    let (fork, lock) = home.settle(root)?;
    Ok(Recovered { dir: root.path().to_owned(), fork, lock: Some(lock), ..recovered })
}

/// As [`recover`] for a log in this very folder, without the lock.
pub(crate) fn recover_folder(
    folder: &Folder,
    cluster: ClusterId,
    after: Lsn,
    replay: &mut Replay<'_>,
) -> Result<Recovered, RecoverError> {
    let Examined { listed, released, witness, first_sequence, reader } =
        examine(folder, cluster, after, false, replay)?;
    // Nothing was changed so far; from here on nothing is refused any more.
    for name in &listed.temporary {
        folder.remove(name).map_err(failed(folder, name, "remove"))?;
    }
    for name in released.into_iter().map(segment_name) {
        folder.remove(&name).map_err(failed(folder, &name, "remove"))?;
    }
    reader.cut_tail()?;
    let end = reader.end(first_sequence);
    if let Some(active) = &reader.tail.active {
        let name = segment_name(active.sequence);
        folder.sync(&name).map_err(failed(folder, &name, "sync"))?;
        if witness != Some(end) {
            match write_witness(folder, &end) {
                // The one before stays true, it only says less; a full disk is no reason not to serve.
                Err(error) if is_no_space(&error) => {
                    tracing::warn!(%error, folder = %folder.path().display(), "no room for the log's new witness");
                }
                written => written.map_err(failed(folder, WITNESS_NAME, "write"))?,
            }
        }
    }
    Ok(Recovered {
        dir: folder.path().to_owned(),
        home: folder.path().to_owned(),
        fork: None,
        cluster,
        first_lsn: reader.first_lsn.unwrap_or(Lsn(1)),
        position: reader.position,
        tail: Box::new(reader.tail),
        cut: reader.cut,
        lock: None,
    })
}

/// A log that was read to its end.
pub(super) struct Examined<'a> {
    listed: Listed,
    /// What a release has left.
    released: Vec<u64>,
    witness: Option<Witness>,
    first_sequence: u64,
    reader: Reader<'a>,
}

/// Reads and checks everything, and changes nothing.
fn examine<'a>(
    folder: &'a Folder,
    cluster: ClusterId,
    after: Lsn,
    keeps_active: bool,
    replay: &mut Replay<'_>,
) -> Result<Examined<'a>, RecoverError> {
    let mut listed = list(folder)?;
    let witness = if listed.witness { Some(read_witness(folder, cluster)?) } else { None };
    // Without a witness a log may begin anywhere, when the reader finds that nothing is missing after `after`.
    let first_sequence = match (&witness, listed.sequences.first()) {
        (Some(witness), _) => witness.first_sequence,
        (None, Some(first)) if after > Lsn(0) => *first,
        (None, _) => 1,
    };
    let kept = listed.sequences.partition_point(|sequence| *sequence < first_sequence);
    let released: Vec<_> = listed.sequences.drain(..kept).collect();
    let sequences = &listed.sequences;
    check_sequences(folder, sequences, first_sequence, witness.is_some(), after)?;

    let mut reader = Reader::new(folder, cluster, after, keeps_active);
    let in_use = headers_in_use(folder, sequences)?;
    for (i, sequence) in sequences.iter().enumerate() {
        let later = in_use[i + 1..].contains(&true);
        reader.segment(*sequence, sequences.len() == i + 1, later, replay)?;
    }
    if let Some(witness) = &witness {
        reader.check_witness(witness)?;
    }
    reader.check_reaches(after, first_sequence)?;
    Ok(Examined { listed, released, witness, first_sequence, reader })
}

/// All that a fork is made of.
pub(super) struct Sound {
    /// How far it reaches.
    pub(super) end: Witness,
    pub(super) epoch: Epoch,
    pub(super) tail: Tail,
    pub(super) cut: Option<CutTail>,
    /// The segment in use, as it was read.
    pub(super) active_bytes: Option<AlignedBuf>,
}

/// Reads and checks everything, hands out nothing, and changes nothing.
pub(super) fn check(folder: &Folder, cluster: ClusterId, after: Lsn) -> Result<Sound, RecoverError> {
    let examined = examine(folder, cluster, after, true, &mut |_, _, _| Ok(()))?;
    let reader = examined.reader;
    Ok(Sound {
        end: reader.end(examined.first_sequence),
        epoch: reader.position.epoch,
        tail: reader.tail,
        cut: reader.cut,
        active_bytes: reader.active_bytes,
    })
}

/// What is in the folder.
struct Listed {
    /// Of the segments, in order.
    sequences: Vec<u64>,
    witness: bool,
    temporary: Vec<String>,
}

/// Puts the file and what was tried around the operating system's error.
pub(super) fn failed<'a>(
    folder: &'a Folder,
    name: &'a str,
    doing: &'static str,
) -> impl Fn(std::io::Error) -> RecoverError + 'a {
    move |source| match source.kind() {
        // A write of the process before this one has not come to rest.
        std::io::ErrorKind::WouldBlock => RecoverError::InUse { dir: folder.path().to_owned() },
        _ => RecoverError::Io { path: folder.file(name), doing, source },
    }
}

fn list(folder: &Folder) -> Result<Listed, RecoverError> {
    let mut listed = Listed { sequences: Vec::new(), witness: false, temporary: Vec::new() };
    for (name, _) in folder.list().map_err(failed(folder, "", "list"))? {
        if let Some(sequence) = segment_sequence(&name) {
            listed.sequences.push(sequence);
        } else if name == WITNESS_NAME {
            listed.witness = true;
        } else if name.ends_with(TEMPORARY_SUFFIX) {
            listed.temporary.push(name);
        }
    }
    listed.sequences.sort_unstable();
    Ok(listed)
}

fn read_witness(folder: &Folder, cluster: ClusterId) -> Result<Witness, RecoverError> {
    let file = folder.file(WITNESS_NAME);
    // One byte more shows a file that is too long.
    let bytes = folder.read(WITNESS_NAME, SECTOR_BYTES + 1).map_err(failed(folder, WITNESS_NAME, "read"))?;
    match Witness::decode(&bytes) {
        Some(Ok(witness)) if witness.cluster == cluster => Ok(witness),
        Some(Ok(witness)) => {
            Err(RecoverError::WrongCluster { file, expected: cluster, found: witness.cluster })
        }
        Some(Err(BadHeader::Version(found))) if found > VERSION => {
            Err(RecoverError::NewerVersion { file, found, known: VERSION })
        }
        Some(Err(_)) | None => {
            Err(RecoverError::Corrupt { file, offset: 0, lsn: Lsn(1), what: Corruption::Witness })
        }
    }
}

/// Segments have no gaps, and begin where they must.
fn check_sequences(
    folder: &Folder,
    sequences: &[u64],
    first: u64,
    witness: bool,
    after: Lsn,
) -> Result<(), RecoverError> {
    if sequences.len() > SEGMENTS_MAX {
        return Err(RecoverError::TooManySegments { dir: folder.path().to_owned(), max: SEGMENTS_MAX });
    }
    let missing = |sequence, because: String| RecoverError::MissingSegment {
        missing: folder.file(&segment_name(sequence)),
        because: folder.file(&because),
        lsn: Lsn(after.0.saturating_add(1)),
    };
    match (sequences.first(), witness) {
        (Some(found), _) if *found > first => return Err(missing(first, segment_name(*found))),
        (None, true) => return Err(missing(first, WITNESS_NAME.to_owned())),
        (Some(_), _) | (None, false) => {}
    }
    for pair in sequences.windows(2) {
        if pair[0] + 1 != pair[1] {
            return Err(missing(pair[0] + 1, segment_name(pair[1])));
        }
    }
    Ok(())
}

/// Which segments have anything in their header block.
fn headers_in_use(folder: &Folder, sequences: &[u64]) -> Result<Vec<bool>, RecoverError> {
    let mut in_use = Vec::with_capacity(sequences.len());
    for sequence in sequences {
        let name = segment_name(*sequence);
        let block = folder.read(&name, BLOCK_BYTES).map_err(failed(folder, &name, "read"))?;
        in_use.push(!is_zero(&block));
    }
    Ok(in_use)
}
