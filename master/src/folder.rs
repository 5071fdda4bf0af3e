//! The master's folder: whose it is.
//!
//! `VERSION` is text, so that an operator can read it:
//! ```text
//! distrifs-master
//! layout 1
//! cluster <32 hex digits>
//! crc32c <8 hex digits of the lines above>
//! ```
//! It is written last when a folder is formatted: a folder without it was never used.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use distrifs_engine::durable_file;
use distrifs_proto::types::{ClusterId, Crc32c};

use crate::error::StartError;

/// The newest layout that is read here, and the one that is written.
const LAYOUT: u32 = 1;
const MAGIC: &str = "distrifs-master";
/// Our small files are shorter; a longer one is none of ours.
const SMALL_FILE_BYTES_MAX: u64 = 4096;
/// What may be in a folder that is still to be formatted.
const HARMLESS: [&str; 5] = ["leader.lock", "lost+found", "epoch", "epoch.new", "VERSION.new"];

/// Makes a folder with its parents, durably.
///
/// # Errors
/// [`StartError::Folder`].
pub(crate) fn make_folder(path: &Path) -> Result<(), StartError> {
    if path.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(path).map_err(|source| refused(path, "make the folder", source))?;
    match path.parent() {
        Some(parent) if parent != Path::new("") => sync_folder(parent),
        _ => Ok(()),
    }
}

/// The identity of a folder; `None` when it is empty and may be formatted.
///
/// # Errors
/// [`StartError::NotOurs`], [`StartError::Newer`] or [`StartError::Damaged`]: the folder is not touched.
pub(crate) fn identity(data_dir: &Path) -> Result<Option<ClusterId>, StartError> {
    let path = data_dir.join("VERSION");
    if let Some(bytes) = read_small(&path)? {
        return parse(&path, &bytes).map(Some);
    }
    let entries = fs::read_dir(data_dir).map_err(|source| refused(data_dir, "list", source))?;
    for entry in entries {
        let name = entry.map_err(|source| refused(data_dir, "list", source))?.file_name();
        if !HARMLESS.iter().any(|harmless| name == *harmless) {
            return Err(StartError::NotOurs { path: data_dir.to_owned() });
        }
    }
    Ok(None)
}

/// Makes the folder that of `cluster`. Everything else that a master needs must be there already.
///
/// # Errors
/// [`StartError::Folder`].
pub(crate) fn format(data_dir: &Path, cluster: ClusterId) -> Result<(), StartError> {
    write_durably(&data_dir.join("VERSION"), text(LAYOUT, cluster).as_bytes())
}

fn text(layout: u32, cluster: ClusterId) -> String {
    let lines = format!("{MAGIC}\nlayout {layout}\ncluster {cluster}\n");
    let crc = Crc32c::of(lines.as_bytes());
    format!("{lines}crc32c {crc}\n")
}

fn parse(path: &Path, bytes: &[u8]) -> Result<ClusterId, StartError> {
    let damaged = |why: &str| StartError::Damaged { path: path.to_owned(), why: why.to_owned() };
    let content = std::str::from_utf8(bytes).map_err(|_| damaged("not text"))?;
    let mut lines = content.lines();
    if lines.next() != Some(MAGIC) {
        return Err(damaged("not the VERSION of a master's folder"));
    }
    let layout = lines.next().and_then(|line| line.strip_prefix("layout ")).and_then(|it| it.parse().ok());
    match layout {
        Some(LAYOUT) => {}
        Some(found) if found > LAYOUT => {
            return Err(StartError::Newer { path: path.to_owned(), found, known: LAYOUT });
        }
        _ => return Err(damaged("no layout")),
    }
    let cluster = lines.next().and_then(|line| line.strip_prefix("cluster ")).and_then(|it| it.parse().ok());
    let cluster = cluster.ok_or_else(|| damaged("no cluster id"))?;
    if content != text(LAYOUT, cluster) {
        return Err(damaged("checksum mismatch"));
    }
    Ok(cluster)
}

/// A small file of ours; `None` when there is none.
pub(crate) fn read_small(path: &Path) -> Result<Option<Vec<u8>>, StartError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(refused(path, "open", source)),
    };
    let mut bytes = Vec::new();
    file.take(SMALL_FILE_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(|source| refused(path, "read", source))?;
    if bytes.len() as u64 > SMALL_FILE_BYTES_MAX {
        return Err(StartError::Damaged { path: path.to_owned(), why: "too long".to_owned() });
    }
    Ok(Some(bytes))
}

/// Replaces a small file so that after a crash it has the old content or the new, and after success the new.
pub(crate) fn write_durably(path: &Path, bytes: &[u8]) -> Result<(), StartError> {
    durable_file::replace(path, bytes).map_err(|source| refused(path, "replace", source))
}

/// As [`write_durably`], for a file within one sector, which the disk writes whole or not at all: on a disk without
/// room for a new file it is written over.
pub(crate) fn write_durably_in_any_room(path: &Path, bytes: &[u8]) -> Result<(), StartError> {
    durable_file::replace_or_overwrite(path, bytes).map_err(|source| refused(path, "replace", source))
}

fn sync_folder(path: &Path) -> Result<(), StartError> {
    durable_file::sync_dir(path).map_err(|source| refused(path, "sync", source))
}

fn refused(path: &Path, doing: &'static str, source: io::Error) -> StartError {
    StartError::Folder { path: path.to_owned(), doing, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_keeps_its_identity() {
        let dir = tempfile::tempdir().expect("a folder");
        assert!(matches!(identity(dir.path()), Ok(None)));
        format(dir.path(), ClusterId(5)).expect("formatted");
        assert!(matches!(identity(dir.path()), Ok(Some(ClusterId(5)))));
    }

    #[test]
    fn the_bytes_of_version_1() {
        let golden = "distrifs-master\nlayout 1\ncluster 000000000000000000000000000000ab\ncrc32c 8ca7da0e\n";
        assert_eq!(text(1, ClusterId(0xab)), golden);
    }

    #[test]
    fn what_is_not_ours_is_refused() {
        let newer = text(2, ClusterId(1));
        let flipped = text(1, ClusterId(1)).replace("0001\n", "0002\n");
        type Expected = fn(&StartError) -> bool;
        let cases: [(&str, &str, Expected); 4] = [
            ("VERSION", &newer, |e| matches!(e, StartError::Newer { found: 2, known: 1, .. })),
            ("VERSION", &flipped, |e| matches!(e, StartError::Damaged { .. })),
            ("VERSION", "", |e| matches!(e, StartError::Damaged { .. })),
            ("holiday.jpg", "", |e| matches!(e, StartError::NotOurs { .. })),
        ];
        for (name, content, expected) in cases {
            let dir = tempfile::tempdir().expect("a folder");
            fs::write(dir.path().join(name), content).expect("written");
            let error = identity(dir.path()).expect_err("refused");
            assert!(expected(&error), "{name} {content:?}: {error}");
        }
    }
}
