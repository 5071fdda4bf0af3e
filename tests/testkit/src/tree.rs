//! A folder's whole content, to compare two of them.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// What is at a path of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// A directory.
    Directory,
    /// A file: its permission bits and its bytes.
    File(u32, Vec<u8>),
}

/// Everything below `root`, by relative path.
///
/// # Panics
/// When something cannot be read.
#[must_use]
pub fn tree_of(root: &Path) -> BTreeMap<String, Entry> {
    let mut tree = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display())) {
            let path = entry.expect("an entry").path();
            let name = path.strip_prefix(root).expect("below the root").to_string_lossy().into_owned();
            let metadata = path.symlink_metadata().expect("metadata");
            if metadata.is_dir() {
                tree.insert(name, Entry::Directory);
                folders.push(path);
            } else {
                let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
                tree.insert(name, Entry::File(metadata.permissions().mode() & 0o777, bytes));
            }
        }
    }
    tree
}

/// Every file below a folder.
///
/// # Panics
/// When it cannot be listed.
#[must_use]
pub fn files_below(folder: &Path) -> Vec<PathBuf> {
    let (mut files, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry")) {
            let is_dir = entry.file_type().expect("its type").is_dir();
            if is_dir { &mut folders } else { &mut files }.push(entry.path());
        }
    }
    files
}
