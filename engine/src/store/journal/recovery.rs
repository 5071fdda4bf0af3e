//! What a crash left in the journal is brought back before anything is served: the files of every record are written
//! anew, over whatever is there (what the page cache shows after a failed write-back proves nothing), made durable, and
//! the records are made void. A crash on the way repeats it, which changes nothing.

use std::io;
use std::path::{Path, PathBuf};

use distrifs_proto::limits::BLOCK_BYTES;
use distrifs_proto::types::{ClusterId, NodeId};

use super::format::{BadHeader, Record, SegmentHeader, Use};
use super::segment::read_segment;
use super::{SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN, SEGMENTS, segment_path};
use crate::io::{Buf, Io, Open};
use crate::store::writer::give_up;
use crate::store::{Sidecar, StoreError, layout, scan};

/// A journal without records that count, ready to be used.
#[derive(Debug)]
pub struct Recovered {
    pub(super) root: PathBuf,
    pub(super) node: NodeId,
    /// The highest sequence that was ever used.
    pub(super) sequence: u64,
    /// What is there and can be used again.
    pub(super) segments: [Option<Segment>; SEGMENTS],
    /// Records that were found, and whose chunks are there now.
    pub records: u64,
    /// Places where a record that was durable could not be read.
    pub damaged: u64,
}

/// A segment whose records are void.
#[derive(Debug, Clone, Copy)]
pub(super) struct Segment {
    pub(super) bytes: u64,
    pub(super) of: Use,
}

/// What a segment has: its use, its number, its length and its records.
type Found<'a> = (Use, usize, u64, Vec<Record<'a>>);

/// Brings back what is in the journal of a folder. Nothing else works on it.
///
/// # Errors
/// [`StoreError::Folder`] for the journal of another node or cluster or of a newer version, of which nothing is touched;
/// [`StoreError::NoSpace`], [`StoreError::SyncFailed`], [`StoreError::Io`]: it is there for the next start.
pub(in crate::store) async fn replay(
    io: &Io,
    root: &Path,
    node: NodeId,
    cluster: Option<ClusterId>,
) -> Result<Recovered, StoreError> {
    let mut recovered = Recovered {
        root: root.to_owned(),
        node,
        sequence: 0,
        segments: [None; SEGMENTS],
        records: 0,
        damaged: 0,
    };
    let mut raw = Vec::new();
    for segment in 0..SEGMENTS {
        if let Some((length, buffer)) = read(io, &segment_path(root, segment)).await? {
            raw.push((segment, length, buffer));
        }
    }
    let mut found: Vec<Found<'_>> = Vec::new();
    for (segment, length, buffer) in &raw {
        let content = read_segment(&buffer[..*length]);
        let path = segment_path(root, *segment);
        check(&path, &content.header, node)?;
        for block in &content.damaged {
            let (path, offset) = (path.display(), u64::from(*block) * BLOCK_BYTES as u64);
            tracing::error!(%path, offset, "the journal is damaged: chunks that were in it may be lost here");
            recovered.damaged += 1;
        }
        recovered.sequence = recovered.sequence.max(content.of.map_or(0, |of| of.sequence));
        let usable =
            content.header.is_ok_and(|it| it.bytes == *length as u64 && it.bytes >= SEGMENT_BYTES_MIN);
        let of = content.of.filter(|_| usable);
        recovered.segments[*segment] = of.map(|of| Segment { bytes: *length as u64, of });
        if let (Some(of), false) = (content.of, content.records.is_empty()) {
            found.push((of, *segment, *length as u64, content.records));
        }
    }
    if found.is_empty() {
        return Ok(recovered);
    }
    found.sort_unstable_by_key(|(of, ..)| of.sequence);
    // Open before the first write, so that its sync tells of all of them.
    let chunks = root.join(layout::CHUNKS);
    let file_system = io.open_fs(&chunks).await.map_err(|e| StoreError::io("open", &chunks, e))?;
    for (_, segment, _, records) in &found {
        for record in records {
            bring_back(io, root, cluster, &segment_path(root, *segment), record).await?;
            recovered.records += 1;
        }
    }
    if file_system.keeps_its_word() {
        file_system.sync().await.map_err(|e| StoreError::sync("file system", &chunks, e))?;
    } else {
        sync_each(io, root, &found).await?;
    }
    for (of, segment, bytes, _) in &found {
        make_void(io, &mut recovered, *segment, *of, *bytes).await?;
    }
    tracing::info!(folder = %root.display(), records = recovered.records, "brought back from the journal");
    Ok(recovered)
}

/// A whole segment, past the page cache, and its length; `None` where there is none.
async fn read(io: &Io, path: &Path) -> Result<Option<(usize, Buf)>, StoreError> {
    let file = match io.open(path, Open::READ_DIRECT).await {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(StoreError::io("open", path, error)),
    };
    let length = file.len().await.map_err(|e| StoreError::io("stat", path, e))?;
    if length > SEGMENT_BYTES_MAX {
        let why = format!("has {length} bytes, more than a segment of the journal: put it away");
        return Err(StoreError::Folder { path: path.to_owned(), why });
    }
    let whole = (length as usize).next_multiple_of(BLOCK_BYTES);
    let (read, buffer) = file.read_at(Buf::alloc(whole), 0..whole, 0).await;
    let read = read.map_err(|e| StoreError::io("read", path, e))?;
    Ok(Some((read, buffer)))
}

/// Whether a segment may be read as this folder's.
fn check(path: &Path, header: &Result<SegmentHeader, BadHeader>, node: NodeId) -> Result<(), StoreError> {
    let why = match header {
        Ok(header) if header.node != node => {
            format!(
                "belongs to node {}, the folder to {node}: put the folder's own journal there",
                header.node
            )
        }
        Err(BadHeader::Version(version)) => {
            format!("version {version} of the journal: use a newer DistriFS")
        }
        _ => return Ok(()),
    };
    Err(StoreError::Folder { path: path.to_owned(), why })
}

/// Writes the files of one record, unless there is a later version of the chunk.
async fn bring_back(
    io: &Io,
    root: &Path,
    cluster: Option<ClusterId>,
    segment: &Path,
    record: &Record<'_>,
) -> Result<(), StoreError> {
    let offset = u64::from(record.place.block) * BLOCK_BYTES as u64;
    let refuse = |why: String| StoreError::Folder {
        path: segment.to_owned(),
        why: format!("the record at {offset} {why}: put the folder's own journal there"),
    };
    let header = *Sidecar::decode(record.sidecar).map_err(|why| refuse(format!("has a {why}")))?.header();
    if header.length != record.data.len() as u64 {
        return Err(refuse(format!("has {} bytes of a chunk of {}", record.data.len(), header.length)));
    }
    if Some(header.cluster) != cluster {
        return Err(refuse(format!("belongs to cluster {}", header.cluster)));
    }
    let chunk = header.chunk;
    let meta = layout::meta_path(root, chunk);
    match scan::read_header(io, &meta).await {
        Ok(there) if there.generation > header.generation => return Ok(()),
        Ok(_) | Err(StoreError::NoSuchChunk { .. } | StoreError::Corrupt { .. }) => {}
        // It is to be replaced: what cannot be read of it is no matter.
        Err(_) => {}
    }
    let (tmp_meta, tmp_data) = (layout::tmp_meta_path(root, chunk), layout::tmp_data_path(root, chunk));
    let data = layout::data_path(root, chunk);
    let written = match write(io, &tmp_meta, record.sidecar).await {
        Ok(()) => write(io, &tmp_data, record.data).await,
        failed => failed,
    };
    match written {
        Err(StoreError::NoSpace { .. }) => {
            // Over what is there it takes no room. A crash on the way finds the record again.
            give_up(io, root, chunk, false).await;
            write_over(io, &data, record.data).await?;
            return write_over(io, &meta, record.sidecar).await;
        }
        written => written?,
    }
    let renamed = io.rename_all(layout::renames(root, chunk)).await;
    renamed.map_err(|e| StoreError::io("rename", &e.path, e.source))?;
    Ok(())
}

async fn write(io: &Io, path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let mut buffer = Buf::alloc(bytes.len());
    buffer.copy_from_slice(bytes);
    let file = io.open(path, Open::CREATE).await.map_err(|e| StoreError::io("create", path, e))?;
    let written = file.write_at(buffer.share(), 0..bytes.len(), 0).await;
    written.map_err(|e| StoreError::io("write", path, e))
}

/// Writes all bytes of a file that is there, with as many, in their place.
async fn write_over(io: &Io, path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let full = || StoreError::NoSpace { path: path.to_owned() };
    let how = Open { create_new: false, ..Open::CREATE };
    let file = match io.open(path, how).await {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(full()),
        file => file.map_err(|e| StoreError::io("open", path, e))?,
    };
    if file.len().await.map_err(|e| StoreError::io("stat", path, e))? != bytes.len() as u64 {
        return Err(full());
    }
    let mut buffer = Buf::alloc(bytes.len());
    buffer.copy_from_slice(bytes);
    let written = file.write_at(buffer.share(), 0..bytes.len(), 0).await;
    written.map_err(|e| StoreError::io("write", path, e))
}

/// Makes what was brought back durable file by file.
async fn sync_each(io: &Io, root: &Path, found: &[Found<'_>]) -> Result<(), StoreError> {
    for record in found.iter().flat_map(|(.., records)| records) {
        let Ok(sidecar) = Sidecar::decode(record.sidecar) else { continue };
        let chunk = sidecar.header().chunk;
        for path in [layout::data_path(root, chunk), layout::meta_path(root, chunk)] {
            let how = Open { create_new: false, ..Open::CREATE };
            let file = io.open(&path, how).await.map_err(|e| StoreError::io("open", &path, e))?;
            file.fdatasync().await.map_err(|e| StoreError::sync("chunk", &path, e))?;
        }
        let dir = layout::chunk_dir(root, chunk);
        io.fsync_dir(&dir).await.map_err(|e| StoreError::sync("directory", &dir, e))?;
    }
    Ok(())
}

/// Gives a segment, durably, a use of which it has no records.
async fn make_void(
    io: &Io,
    recovered: &mut Recovered,
    segment: usize,
    before: Use,
    bytes: u64,
) -> Result<(), StoreError> {
    let path = segment_path(&recovered.root, segment);
    recovered.sequence += 1;
    let of = Use { sequence: recovered.sequence, ..before };
    let mut block = Buf::alloc(BLOCK_BYTES);
    SegmentHeader { node: recovered.node, of, bytes }.encode(&mut block);
    let how = Open { create_new: false, ..Open::CREATE_DIRECT };
    let file = io.open(&path, how).await.map_err(|e| StoreError::io("open", &path, e))?;
    file.write_at(block.share(), 0..BLOCK_BYTES, 0).await.map_err(|e| StoreError::io("write", &path, e))?;
    file.fdatasync().await.map_err(|e| StoreError::sync("journal", &path, e))?;
    recovered.segments[segment] = (bytes >= SEGMENT_BYTES_MIN).then_some(Segment { bytes, of });
    Ok(())
}
