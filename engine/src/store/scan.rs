//! What a folder holds when a datanode starts.

use std::collections::BTreeMap;
use std::path::Path;

use distrifs_proto::types::{ChunkId, ClusterId};

use super::layout::{self, Name};
use super::reader::check_place;
use super::{ReplicaInfo, SIDECAR_HEADER_BYTES, SidecarHeader, StoreError};
use crate::io::{Buf, Io, Open};

/// The committed chunks of a folder.
#[derive(Debug, Default)]
pub struct Inventory {
    /// In order of ids.
    pub replicas: Vec<ReplicaInfo>,
    /// Those of them that were found damaged before, in order of ids.
    pub damaged: Vec<ChunkId>,
    /// What was moved to `quarantine/`: the name and why.
    pub quarantined: Vec<(String, String)>,
    /// Chunks that are in `quarantine/` now, of whatever time.
    pub in_quarantine: u64,
    /// What this process may not read or move, and is left where it is: the name and why.
    pub unreadable: Vec<(String, String)>,
}

/// What a pair of files turned out to be.
enum Checked {
    Replica(ReplicaInfo),
    /// It does not fit together, and why.
    Misfit(String),
    /// It may be sound, but nobody can tell, and why.
    Unreadable(String),
}

pub(super) async fn inventory(io: &Io, root: &Path, cluster: ClusterId) -> Result<Inventory, StoreError> {
    let mut found = Inventory::default();
    for number in 0..layout::CHUNK_DIRS {
        scan_dir(io, root, cluster, number, &mut found).await?;
    }
    found.replicas.sort_unstable_by_key(|r| r.chunk);
    let quarantine = root.join(layout::QUARANTINE);
    let is_chunk = |name: &std::ffi::OsStr| matches!(layout::parse(name), Name::Data(_));
    match io.read_dir(&quarantine).await {
        Ok(kept) => found.in_quarantine = kept.iter().filter(|it| is_chunk(&it.name)).count() as u64,
        // For people only: no reason not to serve.
        Err(error) => tracing::warn!(path = %quarantine.display(), %error, "cannot be counted"),
    }
    found.damaged.sort_unstable();
    Ok(found)
}

#[derive(Default)]
struct Pair {
    data_len: Option<u64>,
    meta: bool,
    mark: bool,
}

async fn scan_dir(
    io: &Io,
    root: &Path,
    cluster: ClusterId,
    number: u64,
    found: &mut Inventory,
) -> Result<(), StoreError> {
    let dir = layout::numbered_dir(root, number);
    let entries = io.read_dir(&dir).await.map_err(|e| StoreError::io("list", &dir, e))?;
    let mut pairs = BTreeMap::<ChunkId, Pair>::new();
    for entry in entries {
        match layout::parse(&entry.name) {
            // A link, a directory or a device of that name is no chunk, wherever it leads.
            Name::Data(chunk) if entry.is_file => {
                pairs.entry(chunk).or_default().data_len = Some(entry.len);
            }
            Name::Meta(chunk) if entry.is_file => pairs.entry(chunk).or_default().meta = true,
            Name::Mark(chunk) if entry.is_file => pairs.entry(chunk).or_default().mark = true,
            _ => tracing::warn!(path = %dir.join(&entry.name).display(), "not a chunk: left alone"),
        }
    }
    for (chunk, pair) in pairs {
        let (data, meta) = (pair.data_len.is_some(), pair.meta);
        let checked = match (pair.data_len, pair.meta) {
            (Some(len), true) => check_pair(io, root, cluster, chunk, len, number).await?,
            (Some(_), false) => Checked::Misfit("its sidecar is missing".into()),
            (None, true) => Checked::Misfit("a sidecar without its chunk".into()),
            (None, false) => {
                remove_mark(io, &dir, chunk).await;
                continue;
            }
        };
        let why = match checked {
            Checked::Replica(replica) => {
                found.replicas.push(replica);
                found.damaged.extend(pair.mark.then_some(chunk));
                continue;
            }
            Checked::Misfit(why) => match quarantine(io, root, chunk, number, (data, meta)).await {
                Ok(()) => {
                    if pair.mark {
                        remove_mark(io, &dir, chunk).await;
                    }
                    tracing::warn!(%chunk, why, "moved to quarantine");
                    found.quarantined.push((chunk.to_string(), why));
                    continue;
                }
                Err(error) if error.suspects_folder() => return Err(error),
                Err(error) => format!("{why}; cannot be moved to quarantine: {error}"),
            },
            Checked::Unreadable(why) => why,
        };
        tracing::warn!(%chunk, why, "a replica counts as lost and is left where it is");
        found.unreadable.push((chunk.to_string(), why));
    }
    Ok(())
}

/// What a pair of data file and sidecar is.
async fn check_pair(
    io: &Io,
    root: &Path,
    cluster: ClusterId,
    chunk: ChunkId,
    data_len: u64,
    number: u64,
) -> Result<Checked, StoreError> {
    if layout::chunk_dir(root, chunk) != layout::numbered_dir(root, number) {
        return Ok(Checked::Misfit("it lies in another chunk's directory".into()));
    }
    let header = match read_header(io, &layout::meta_path(root, chunk)).await {
        Ok(header) => header,
        Err(error @ (StoreError::Corrupt { .. } | StoreError::NoSuchChunk { .. })) => {
            return Ok(Checked::Misfit(error.to_string()));
        }
        Err(error) if error.is_denied() => {
            return Ok(Checked::Unreadable(format!("{error}: give the file back to the datanode's user")));
        }
        // A disk that does not answer says nothing about the replica: it stays where it is.
        Err(error) => return Err(error),
    };
    Ok(match check_place(&header, cluster, chunk) {
        Err(error) => Checked::Misfit(error.to_string()),
        Ok(()) if header.length != data_len => {
            let own = header.length;
            Checked::Misfit(format!("the data file has {data_len} bytes, its sidecar says {own}"))
        }
        Ok(()) => Checked::Replica(header.replica()),
    })
}

/// The header alone of the sidecar at `path`.
pub(super) async fn read_header(io: &Io, path: &Path) -> Result<SidecarHeader, StoreError> {
    let name = path.file_name().map(layout::parse);
    let chunk = match name {
        Some(Name::Meta(chunk)) => chunk,
        _ => ChunkId(0),
    };
    let file = match io.open(path, Open::READ).await {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(StoreError::NoSuchChunk { chunk });
        }
        Err(error) => return Err(StoreError::io("open", path, error)),
    };
    let (read, buffer) = file.read_at(Buf::alloc(SIDECAR_HEADER_BYTES), 0..SIDECAR_HEADER_BYTES, 0).await;
    let read = read.map_err(|e| StoreError::io("read", path, e))?;
    SidecarHeader::decode(&buffer[..read]).map_err(|what| StoreError::Corrupt { chunk, what })
}

/// Moves the files of a chunk, data and sidecar, out of the way; nothing is deleted.
pub(super) async fn quarantine(
    io: &Io,
    root: &Path,
    chunk: ChunkId,
    number: u64,
    (data, meta): (bool, bool),
) -> Result<(), StoreError> {
    let from = layout::numbered_dir(root, number);
    let to = root.join(layout::QUARANTINE);
    let names = [(data, format!("chunk-{chunk}")), (meta, format!("chunk-{chunk}.meta"))];
    let names: Vec<String> = names.into_iter().filter_map(|(there, name)| there.then_some(name)).collect();
    for name in &names {
        // A rename would replace it.
        let path = to.join(name);
        match io.open(&path, Open::READ).await {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(StoreError::io("open", &path, error)),
            Ok(_) => {
                let why = "is there from an earlier time: look at it and take it away".into();
                return Err(StoreError::Folder { path, why });
            }
        }
    }
    for name in names {
        match io.rename(&from.join(&name), &to.join(&name)).await {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(StoreError::io("rename", &to.join(&name), error)),
        }
    }
    Ok(())
}

/// What a mark speaks of is gone: it would be taken for one of a later replica.
async fn remove_mark(io: &Io, dir: &Path, chunk: ChunkId) {
    let mark = dir.join(format!("chunk-{chunk}.bad"));
    if let Err(error) = io.unlink(&mark).await {
        tracing::warn!(path = %mark.display(), %error, "a mark without its chunk stays");
    }
}

pub(super) async fn clear_tmp(io: &Io, root: &Path) -> Result<usize, StoreError> {
    let tmp = root.join(layout::TMP);
    let entries = io.read_dir(&tmp).await.map_err(|e| StoreError::io("list", &tmp, e))?;
    let mut removed = 0;
    for entry in entries {
        let path = tmp.join(&entry.name);
        let unfinished = matches!(layout::parse(&entry.name), Name::Data(_) | Name::Meta(_));
        if !entry.is_file || !unfinished {
            tracing::warn!(path = %path.display(), "not ours: left alone");
            continue;
        }
        io.unlink(&path).await.map_err(|e| StoreError::io("unlink", &path, e))?;
        removed += 1;
    }
    Ok(removed)
}
