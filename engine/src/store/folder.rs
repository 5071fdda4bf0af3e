//! A data folder as a whole: who may use it (lock), whose it is (`VERSION`), what its node was shown (`WITNESS`).
//!
//! Both files are short text for people, closed by their own checksum:
//! ```text
//! distrifs-datanode 1
//! cluster 00000000000000000000000000000000     zeros until the node has joined a cluster
//! node 0123456789abcdef
//! crc32c 89abcdef
//! ```
//! These few steps at start and on change use the standard library: they run outside the shards.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use distrifs_proto::types::{ClusterId, Crc32c, Epoch, Lsn, NodeId};

use super::{StoreError, layout};
use crate::durable_file;

const VERSION_FILE: &str = "VERSION";
const WITNESS_FILE: &str = "WITNESS";
const LOCK_FILE: &str = "lock";
const VERSION_MAGIC: &str = "distrifs-datanode";
const WITNESS_MAGIC: &str = "distrifs-witness";
const LAYOUT_VERSION: &str = "1";
const TEXT_BYTES_MAX: u64 = 4096;

/// Whose folder it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// The datanode.
    pub node: NodeId,
    /// Its cluster; `None` until it has joined one.
    pub cluster: Option<ClusterId>,
}

/// The highest epoch and LSN the node was ever shown. A master that is behind has lost a part of its log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Witness {
    /// The epoch.
    pub epoch: Epoch,
    /// The LSN.
    pub lsn: Lsn,
}

/// A data folder that this process holds, until it is dropped.
#[derive(Debug)]
pub struct Folder {
    root: PathBuf,
    identity: Identity,
    _lock: File,
}

impl Folder {
    /// Takes the folder for this process; a missing or empty one is made ready for `fresh_node`.
    ///
    /// # Errors
    /// [`StoreError::Folder`] when another process holds it, when it has other things in it, or when it was
    /// written by a newer version; [`StoreError::Io`].
    pub fn open(root: &Path, fresh_node: NodeId) -> Result<Self, StoreError> {
        fs::create_dir_all(root).map_err(|e| StoreError::io("create directory", root, e))?;
        let root = root.canonicalize().map_err(|e| StoreError::io("resolve", root, e))?;
        let refuse = |path: &Path, why: String| StoreError::Folder { path: path.to_owned(), why };
        let lock_path = root.join(LOCK_FILE);
        let lock = File::create(&lock_path).map_err(|e| StoreError::io("create", &lock_path, e))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let why = "the folder is in use by another datanode: stop it or choose another folder";
                return Err(refuse(&root, why.into()));
            }
            Err(TryLockError::Error(error)) => return Err(StoreError::io("lock", &lock_path, error)),
        }
        let version_path = root.join(VERSION_FILE);
        let identity = match read_text(&version_path) {
            Ok(text) => parse_version(&text).map_err(|why| refuse(&version_path, why))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let identity = Identity { node: fresh_node, cluster: None };
                format(&root, identity)?;
                identity
            }
            Err(error) => return Err(StoreError::io("read", &version_path, error)),
        };
        Ok(Self { root, identity, _lock: lock })
    }

    /// Where it is.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Whose it is.
    #[must_use]
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// Makes it, durably, a folder of this cluster.
    ///
    /// # Errors
    /// [`StoreError::Folder`] when it is another cluster's; [`StoreError::Io`].
    pub fn join(&mut self, cluster: ClusterId) -> Result<(), StoreError> {
        match self.identity.cluster {
            Some(own) if own == cluster => return Ok(()),
            Some(own) => {
                let why = format!("the folder belongs to cluster {own}, the master leads {cluster}");
                return Err(StoreError::Folder { path: self.root.clone(), why });
            }
            None => {}
        }
        let identity = Identity { cluster: Some(cluster), ..self.identity };
        write_version(&self.root, identity)?;
        self.identity = identity;
        Ok(())
    }

    /// What the node was shown; the default where it was shown nothing.
    ///
    /// # Errors
    /// [`StoreError::Folder`] when the file is damaged; [`StoreError::Io`].
    pub fn witness(&self) -> Result<Witness, StoreError> {
        let path = self.root.join(WITNESS_FILE);
        match read_text(&path) {
            Ok(text) => parse_witness(&text).map_err(|why| StoreError::Folder { path, why }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Witness::default()),
            Err(error) => Err(StoreError::io("read", &path, error)),
        }
    }

    /// Remembers, durably, what the node was shown.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn set_witness(&self, seen: Witness) -> Result<(), StoreError> {
        let path = self.root.join(WITNESS_FILE);
        let body = format!("{WITNESS_MAGIC} {LAYOUT_VERSION}\nepoch {}\nlsn {}\n", seen.epoch, seen.lsn);
        let content = close(&body);
        let written = match durable_file::replace(&path, content.as_bytes()) {
            // A full disk is an ordinary state: the orders that this is written for may be to delete.
            Err(e) if e.kind() == io::ErrorKind::StorageFull => {
                durable_file::overwrite(&path, content.as_bytes())
            }
            written => written,
        };
        written.map_err(|e| StoreError::io("write", &path, e))
    }
}

fn format(root: &Path, identity: Identity) -> Result<(), StoreError> {
    let listing = fs::read_dir(root).map_err(|e| StoreError::io("list", root, e))?;
    for entry in listing {
        let name = entry.map_err(|e| StoreError::io("list", root, e))?.file_name();
        // What an interrupted formatting, or a fresh file system, leaves behind.
        let ours = [LOCK_FILE, layout::CHUNKS, layout::TMP, layout::QUARANTINE, "lost+found"];
        if !ours.iter().any(|&own| name == own) && !durable_file::is_temporary(&name) {
            let why = format!(
                "has {name:?} in it but no {VERSION_FILE} file: not a datanode's folder; choose an empty one"
            );
            return Err(StoreError::Folder { path: root.to_owned(), why });
        }
    }
    let holds_chunks = |dir: &Path| fs::read_dir(dir).is_ok_and(|mut d| d.next().is_some());
    if (0..layout::CHUNK_DIRS).any(|n| holds_chunks(&layout::numbered_dir(root, n))) {
        let why = format!("has chunks in it but no {VERSION_FILE} file: restore that file from a backup");
        return Err(StoreError::Folder { path: root.to_owned(), why });
    }
    let mut dirs = vec![root.join(layout::CHUNKS), root.join(layout::TMP), root.join(layout::QUARANTINE)];
    dirs.extend((0..layout::CHUNK_DIRS).map(|n| layout::numbered_dir(root, n)));
    for dir in &dirs {
        fs::create_dir_all(dir).map_err(|e| StoreError::io("create directory", dir, e))?;
    }
    for dir in [&dirs[0], root] {
        durable_file::sync_dir(dir).map_err(|e| StoreError::sync("directory", dir, e))?;
    }
    // Last: a folder with this file is complete.
    write_version(root, identity)
}

fn write_version(root: &Path, identity: Identity) -> Result<(), StoreError> {
    let path = root.join(VERSION_FILE);
    let cluster = identity.cluster.unwrap_or_default();
    let body = format!("{VERSION_MAGIC} {LAYOUT_VERSION}\ncluster {cluster}\nnode {}\n", identity.node);
    durable_file::replace(&path, close(&body).as_bytes()).map_err(|e| StoreError::io("write", &path, e))
}

/// The text with its checksum as the last line.
fn close(body: &str) -> String {
    format!("{body}crc32c {}\n", Crc32c::of(body.as_bytes()))
}

fn read_text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(TEXT_BYTES_MAX).read_to_string(&mut text)?;
    Ok(text)
}

/// The values of the lines between the magic and the checksum, in order.
fn parse_text<const N: usize>(text: &str, magic: &str, keys: [&str; N]) -> Result<[String; N], String> {
    let first = text.lines().next().unwrap_or_default();
    let version = first.strip_prefix(magic).map(str::trim).ok_or(format!("does not begin with {magic:?}"))?;
    if version != LAYOUT_VERSION {
        return Err(format!(
            "layout version {version:?}: this build knows {LAYOUT_VERSION}; use a newer DistriFS"
        ));
    }
    let body_end = text.rfind("crc32c ").ok_or("has no checksum")?;
    let (body, last) = text.split_at(body_end);
    if last != format!("crc32c {}\n", Crc32c::of(body.as_bytes())) {
        return Err("its checksum does not match: restore the file from a backup".into());
    }
    let mut lines = body.lines().skip(1);
    let mut values = [const { String::new() }; N];
    for (value, key) in values.iter_mut().zip(keys) {
        let line = lines.next().unwrap_or_default();
        let (found, text) = line.split_once(' ').unwrap_or_default();
        if found != key {
            return Err(format!("has no {key}"));
        }
        text.clone_into(value);
    }
    Ok(values)
}

fn parse_version(text: &str) -> Result<Identity, String> {
    let [cluster, node] = parse_text(text, VERSION_MAGIC, ["cluster", "node"])?;
    let cluster: ClusterId = cluster.parse().map_err(|e| format!("{e}"))?;
    let node = node.parse().map_err(|e| format!("{e}"))?;
    Ok(Identity { node, cluster: (cluster != ClusterId::default()).then_some(cluster) })
}

fn parse_witness(text: &str) -> Result<Witness, String> {
    let [epoch, lsn] = parse_text(text, WITNESS_MAGIC, ["epoch", "lsn"])?;
    let number = |text: &str| text.parse::<u64>().map_err(|e| format!("{text:?}: {e}"));
    Ok(Witness { epoch: Epoch(number(&epoch)?), lsn: Lsn(number(&lsn)?) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(root: &Path) -> Result<Folder, StoreError> {
        Folder::open(root, NodeId(7))
    }

    #[test]
    fn a_folder_keeps_its_identity_and_witness() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("new/data");
        let mut folder = open(&root).unwrap();
        assert_eq!(folder.identity(), Identity { node: NodeId(7), cluster: None });
        folder.join(ClusterId(9)).unwrap();
        let seen = Witness { epoch: Epoch(3), lsn: Lsn(44) };
        folder.set_witness(seen).unwrap();
        drop(folder);
        let folder = Folder::open(&root, NodeId(8)).unwrap();
        assert_eq!(folder.identity(), Identity { node: NodeId(7), cluster: Some(ClusterId(9)) });
        assert_eq!(folder.witness().unwrap(), seen);
    }

    #[test]
    fn what_cannot_be_used_safely_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let mut folder = open(dir.path()).unwrap();
        assert!(open(dir.path()).unwrap_err().to_string().contains("in use"));
        folder.join(ClusterId(1)).unwrap();
        assert!(folder.join(ClusterId(2)).unwrap_err().to_string().contains("belongs to cluster"));
        drop(folder);

        let version = dir.path().join(VERSION_FILE);
        let text = fs::read_to_string(&version).unwrap();
        for (damaged, complaint) in [
            (text.replace("datanode 1", "datanode 2"), "newer"),
            (text.replace("node 0", "node 1"), "checksum"),
            (text[..text.len() - 3].to_owned(), "checksum"),
            ("hello\n".to_owned(), "does not begin"),
        ] {
            fs::write(&version, damaged).unwrap();
            let error = open(dir.path()).unwrap_err().to_string();
            assert!(error.contains(complaint), "{error}");
        }
        fs::remove_file(&version).unwrap();
        fs::write(layout::numbered_dir(dir.path(), 0).join("chunk-0000000000000001"), "x").unwrap();
        assert!(open(dir.path()).unwrap_err().to_string().contains("has chunks"));
    }

    #[test]
    fn a_folder_with_other_things_in_it_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("thesis.tex"), "precious").unwrap();
        assert!(open(dir.path()).unwrap_err().to_string().contains("thesis.tex"));
        assert!(!dir.path().join(VERSION_FILE).exists());
    }
}
