//! The names in a data folder.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use distrifs_proto::types::ChunkId;

pub(super) const CHUNKS: &str = "chunks";
pub(super) const TMP: &str = "tmp";
pub(super) const QUARANTINE: &str = "quarantine";
pub(super) const JOURNAL: &str = "journal";
/// Directories below `chunks/`.
pub(super) const CHUNK_DIRS: u64 = 256;

/// `chunks/XX`. XX is the second lowest byte of the id: 256 chunks in a row share a directory, so that the
/// commits of many small files share its sync.
pub(super) fn chunk_dir(root: &Path, chunk: ChunkId) -> PathBuf {
    numbered_dir(root, chunk_dir_number(chunk))
}

pub(super) fn chunk_dir_number(chunk: ChunkId) -> u64 {
    chunk.0 >> 8 & 0xff
}

pub(super) fn numbered_dir(root: &Path, number: u64) -> PathBuf {
    root.join(CHUNKS).join(format!("{number:02x}"))
}

pub(super) fn data_path(root: &Path, chunk: ChunkId) -> PathBuf {
    chunk_dir(root, chunk).join(format!("chunk-{chunk}"))
}

pub(super) fn meta_path(root: &Path, chunk: ChunkId) -> PathBuf {
    chunk_dir(root, chunk).join(format!("chunk-{chunk}.meta"))
}

pub(super) fn mark_path(root: &Path, chunk: ChunkId) -> PathBuf {
    chunk_dir(root, chunk).join(format!("chunk-{chunk}.bad"))
}

pub(super) fn tmp_data_path(root: &Path, chunk: ChunkId) -> PathBuf {
    root.join(TMP).join(format!("chunk-{chunk}"))
}

pub(super) fn tmp_meta_path(root: &Path, chunk: ChunkId) -> PathBuf {
    root.join(TMP).join(format!("chunk-{chunk}.meta"))
}

/// What a finished chunk is renamed by, from `tmp/` to `chunks/`. The data file's name appears last: a chunk that can be
/// seen has its sidecar.
pub(super) fn renames(root: &Path, chunk: ChunkId) -> Vec<(PathBuf, PathBuf)> {
    vec![
        (tmp_meta_path(root, chunk), meta_path(root, chunk)),
        (tmp_data_path(root, chunk), data_path(root, chunk)),
    ]
}

/// What a name in `chunks/XX` stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Name {
    Data(ChunkId),
    Meta(ChunkId),
    /// The replica was found damaged.
    Mark(ChunkId),
    Foreign,
}

pub(super) fn parse(name: &OsStr) -> Name {
    let Some(rest) = name.to_str().and_then(|n| n.strip_prefix("chunk-")) else { return Name::Foreign };
    let (digits, suffix) =
        rest.split_once('.').map_or((rest, None), |(digits, suffix)| (digits, Some(suffix)));
    let Ok(chunk) = digits.parse::<ChunkId>() else { return Name::Foreign };
    match suffix {
        // Only the spelling that we write: upper case digits would be a second name for the same chunk.
        _ if chunk.to_string() != digits => Name::Foreign,
        None => Name::Data(chunk),
        Some("meta") => Name::Meta(chunk),
        Some("bad") => Name::Mark(chunk),
        Some(_) => Name::Foreign,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_again() {
        let chunk = ChunkId(0x1234_5678);
        let name = |p: PathBuf| parse(p.file_name().expect("a file name"));
        assert_eq!(name(data_path(Path::new("/d"), chunk)), Name::Data(chunk));
        assert_eq!(name(meta_path(Path::new("/d"), chunk)), Name::Meta(chunk));
        assert_eq!(name(mark_path(Path::new("/d"), chunk)), Name::Mark(chunk));
        assert_eq!(data_path(Path::new("/d"), chunk), Path::new("/d/chunks/56/chunk-0000000012345678"));
    }

    #[test]
    fn other_names_are_foreign() {
        for name in [
            "",
            "x",
            "chunk-",
            "chunk-12",
            "chunk-00000000000000AB",
            "chunk-00000000000000AB.bad",
            "chunk-0000000000000001.",
            "chunk-0000000000000001.tmp",
            "chunk-0000000000000001.bad.meta",
        ] {
            assert_eq!(parse(OsStr::new(name)), Name::Foreign, "{name}");
        }
    }
}
