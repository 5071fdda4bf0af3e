//! A data folder as a whole: who may use it (lock), whose it is (`VERSION`), what its node was shown (`WITNESS`).
//!
//! Both files are short text for people, closed by their own checksum:
//! ```text
//! distrifs-datanode 2                           1: without a journal; it becomes 2 when it is opened
//! cluster 00000000000000000000000000000000     zeros until the node has joined a cluster
//! node 0123456789abcdef
//! crc32c 89abcdef
//!
//! distrifs-witness 1
//! epoch 3
//! lsn 44
//! history 0                                     missing in older ones, which is the same
//! crc32c 89abcdef
//! ```
//! These few steps at start and on change use the standard library: they run outside the shards.
//!
//! The folder itself may be reached through a symbolic link; inside it there is none (R23): one would make the datanode
//! write, truncate or delete elsewhere.

use std::fs::{self, File, FileType, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use distrifs_proto::types::{ClusterId, Crc32c, Epoch, Lsn, NodeId};

use super::{StoreError, layout};
use crate::durable_file;

const VERSION_FILE: &str = "VERSION";
const WITNESS_FILE: &str = "WITNESS";
const LOCK_FILE: &str = "lock";
const VERSION_MAGIC: &str = "distrifs-datanode";
const WITNESS_MAGIC: &str = "distrifs-witness";
/// Of the folder. A build that knows only 1 would ignore the journal, and must not open it.
const LAYOUT_VERSION: &str = "2";
const LAYOUT_VERSION_BEFORE: &str = "1";
const WITNESS_VERSION: &str = "1";
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
///
/// An operator may let a master go on without that part. From then on, `history`, LSNs count anew: those that were
/// shown in epochs before it are of records that are given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Witness {
    /// The epoch.
    pub epoch: Epoch,
    /// The LSN.
    pub lsn: Lsn,
    /// The epoch at which a loss was last accepted; 0: never.
    pub history: Epoch,
}

impl Witness {
    /// What both together are evidence of: the highest of each number, but no LSN of before the acceptance that either
    /// of them knows of.
    ///
    /// Merely the pair with the higher epoch would not do: of two folders that took turns in being broken one may have
    /// been shown the higher LSN and the other, by a master that had lost it, a higher epoch. Without an acceptance
    /// the higher LSN has to stand. The order does not matter, nor how often one is taken in: a crash between the
    /// writes to two folders, or a folder that was away meanwhile, leaves an older witness of the same node, which
    /// adds nothing to a newer one.
    #[must_use]
    pub fn joined(self, other: Self) -> Self {
        let history = self.history.max(other.history);
        let lsn_of = |it: Self| if it.epoch < history { Lsn(0) } else { it.lsn };
        Self { epoch: self.epoch.max(other.epoch), lsn: lsn_of(self).max(lsn_of(other)), history }
    }
}

/// A data folder that this process holds, until it is dropped.
#[derive(Debug)]
pub struct Folder {
    root: PathBuf,
    identity: Identity,
    _lock: File,
}

impl Folder {
    /// Whose folder it is, without taking it; `None` where it was not made ready yet.
    ///
    /// # Errors
    /// [`StoreError::Folder`] when its `VERSION` is damaged, newer or no file; [`StoreError::Io`].
    pub fn owner(root: &Path) -> Result<Option<Identity>, StoreError> {
        let path = root.join(VERSION_FILE);
        if is_there(&path, Kind::File)? { read_version(&path) } else { Ok(None) }
    }

    /// Takes the folder for this process; a missing or empty one is made ready for `fresh_node`.
    ///
    /// # Errors
    /// [`StoreError::Folder`] when another process holds it, when it has other things in it, when something in it is
    /// a symbolic link or missing, or when it was written by a newer version; [`StoreError::Io`]. One of an older
    /// version is not one any more afterwards.
    pub fn open(root: &Path, fresh_node: NodeId) -> Result<Self, StoreError> {
        match fs::create_dir_all(root) {
            Ok(()) => {}
            Err(error)
                if matches!(error.kind(), io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory) =>
            {
                let why = "is not a directory, or leads to none: choose another folder";
                return Err(refuse(root, why.into()));
            }
            Err(error) => return Err(StoreError::io("create directory", root, error)),
        }
        let root = root.canonicalize().map_err(|e| StoreError::io("resolve", root, e))?;
        for name in [LOCK_FILE, VERSION_FILE, WITNESS_FILE] {
            is_there(&root.join(name), Kind::File)?;
        }
        let lock_path = root.join(LOCK_FILE);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let lock = durable_file::open_plain(&mut options, &lock_path)
            .map_err(|e| StoreError::io("create", &lock_path, e))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let why = "the folder is in use by another datanode: stop it or choose another folder";
                return Err(refuse(&root, why.into()));
            }
            Err(TryLockError::Error(error)) => return Err(StoreError::io("lock", &lock_path, error)),
        }
        let version_path = root.join(VERSION_FILE);
        let identity = match read_version(&version_path)? {
            Some(identity) => {
                check_dirs(&root)?;
                upgrade(&version_path, identity)?;
                identity
            }
            None => {
                let identity = Identity { node: fresh_node, cluster: None };
                format(&root, identity)?;
                let (folder, node) = (root.display(), fresh_node);
                tracing::warn!(%folder, %node, "was empty and is new now: chunks that it held before are lost");
                identity
            }
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
        match durable_file::read_text(&path, TEXT_BYTES_MAX) {
            Ok(text) => parse_witness(&text).map_err(|why| StoreError::Folder { path, why }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Witness::default()),
            Err(error) => Err(unreadable(&path, error)),
        }
    }

    /// Remembers, durably, what the node was shown.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn set_witness(&self, seen: Witness) -> Result<(), StoreError> {
        let path = self.root.join(WITNESS_FILE);
        let Witness { epoch, lsn, history } = seen;
        let content = close(&format!(
            "{WITNESS_MAGIC} {WITNESS_VERSION}\nepoch {epoch}\nlsn {lsn}\nhistory {history}\n"
        ));
        // On a full disk as well: the orders that this is written for may be to delete.
        durable_file::replace_or_overwrite(&path, content.as_bytes())
            .map_err(|e| StoreError::io("write", &path, e))
    }
}

fn refuse(path: &Path, why: String) -> StoreError {
    StoreError::Folder { path: path.to_owned(), why }
}

/// A file whose content makes no sense is told as such, not as a failure of the disk.
fn unreadable(path: &Path, error: io::Error) -> StoreError {
    match error.kind() {
        io::ErrorKind::InvalidData => refuse(path, "is not text: restore the file from a backup".into()),
        _ => StoreError::io("read", path, error),
    }
}

/// What a name in the folder must stand for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    File,
    Directory,
}

/// Whether something is there; refused when it is anything else than that.
fn is_there(path: &Path, kind: Kind) -> Result<bool, StoreError> {
    let found = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata.file_type(),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(false);
        }
        Err(error) => return Err(StoreError::io("stat", path, error)),
    };
    let (fits, wanted) = match kind {
        Kind::File => (found.is_file(), "file"),
        Kind::Directory => (found.is_dir(), "directory"),
    };
    if fits {
        return Ok(true);
    }
    let found = name_of(found);
    let why = format!(
        "is {found} where a {wanted} belongs, and is not touched: put the {wanted} itself there or choose another \
         data folder (which may be reached through a link, but has none in it)"
    );
    Err(refuse(path, why))
}

fn name_of(found: FileType) -> &'static str {
    match found {
        it if it.is_symlink() => "a symbolic link",
        it if it.is_dir() => "a directory",
        it if it.is_file() => "a file",
        it if it.is_fifo() => "a pipe",
        it if it.is_socket() => "a socket",
        _ => "a device",
    }
}

fn chunk_dirs(root: &Path) -> impl Iterator<Item = PathBuf> {
    let numbered = (0..layout::CHUNK_DIRS).map(|n| layout::numbered_dir(root, n)).collect::<Vec<_>>();
    std::iter::once(root.join(layout::CHUNKS)).chain(numbered)
}

/// The directories of a folder that was made ready before.
fn check_dirs(root: &Path) -> Result<(), StoreError> {
    for dir in chunk_dirs(root) {
        if !is_there(&dir, Kind::Directory)? {
            let why = "is missing, and the chunks in it: put it back (is something not mounted?), or empty the whole \
                       data folder, which then counts as lost and is made anew";
            return Err(refuse(&dir, why.into()));
        }
    }
    // Nothing that counts is in these; whoever looked through the quarantine may have removed it.
    for name in [layout::TMP, layout::QUARANTINE, layout::JOURNAL] {
        let dir = root.join(name);
        if is_there(&dir, Kind::Directory)? {
            continue;
        }
        match fs::create_dir(&dir).map_err(|e| StoreError::io("create directory", &dir, e)) {
            Ok(()) => durable_file::sync_dir(root).map_err(|e| StoreError::sync("directory", root, e))?,
            // A full disk is an ordinary state, and a folder can do without this one.
            Err(StoreError::NoSpace { .. }) if name == layout::JOURNAL => {
                tracing::warn!(path = %dir.display(), "no room for a journal");
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Makes a folder of the version before, durably, one of this version.
fn upgrade(path: &Path, identity: Identity) -> Result<(), StoreError> {
    let text = durable_file::read_text(path, TEXT_BYTES_MAX).map_err(|e| unreadable(path, e))?;
    let first = text.lines().next().unwrap_or_default();
    if first == format!("{VERSION_MAGIC} {LAYOUT_VERSION}") {
        return Ok(());
    }
    // On a full disk as well: it is served all the same.
    durable_file::replace_or_overwrite(path, version_text(identity).as_bytes())
        .map_err(|e| StoreError::io("write", path, e))
}

fn format(root: &Path, identity: Identity) -> Result<(), StoreError> {
    let listing = fs::read_dir(root).map_err(|e| StoreError::io("list", root, e))?;
    for entry in listing {
        let name = entry.map_err(|e| StoreError::io("list", root, e))?.file_name();
        // What an interrupted formatting, or a fresh file system, leaves behind.
        let ours =
            [LOCK_FILE, layout::CHUNKS, layout::TMP, layout::QUARANTINE, layout::JOURNAL, "lost+found"];
        if !ours.iter().any(|&own| name == own) && !durable_file::is_temporary(&name) {
            let why = format!(
                "has {name:?} in it but no {VERSION_FILE} file: not a datanode's folder; choose an empty one"
            );
            return Err(StoreError::Folder { path: root.to_owned(), why });
        }
    }
    let others = [layout::TMP, layout::QUARANTINE, layout::JOURNAL].map(|name| root.join(name));
    let dirs: Vec<PathBuf> = chunk_dirs(root).chain(others).collect();
    for dir in &dirs {
        is_there(dir, Kind::Directory)?;
    }
    let holds_chunks = |dir: &Path| fs::read_dir(dir).is_ok_and(|mut d| d.next().is_some());
    if (0..layout::CHUNK_DIRS).any(|n| holds_chunks(&layout::numbered_dir(root, n))) {
        let why = format!("has chunks in it but no {VERSION_FILE} file: restore that file from a backup");
        return Err(StoreError::Folder { path: root.to_owned(), why });
    }
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
    let text = version_text(identity);
    durable_file::replace(&path, text.as_bytes()).map_err(|e| StoreError::io("write", &path, e))
}

fn version_text(identity: Identity) -> String {
    let cluster = identity.cluster.unwrap_or_default();
    close(&format!("{VERSION_MAGIC} {LAYOUT_VERSION}\ncluster {cluster}\nnode {}\n", identity.node))
}

/// The text with its checksum as the last line.
fn close(body: &str) -> String {
    format!("{body}crc32c {}\n", Crc32c::of(body.as_bytes()))
}

/// Whose folder it is; `None` where it was not made ready yet.
fn read_version(path: &Path) -> Result<Option<Identity>, StoreError> {
    match durable_file::read_text(path, TEXT_BYTES_MAX) {
        Ok(text) => parse_version(&text).map(Some).map_err(|why| refuse(path, why)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(unreadable(path, error)),
    }
}

/// The values of the lines between the magic and the checksum, in order.
fn parse_text<const N: usize>(
    text: &str,
    magic: &str,
    versions: &[&str],
    keys: [&str; N],
) -> Result<[String; N], String> {
    let first = text.lines().next().unwrap_or_default();
    let version = first.strip_prefix(magic).map(str::trim).ok_or(format!("does not begin with {magic:?}"))?;
    if !versions.contains(&version) {
        let known = versions.join(" and ");
        return Err(format!("layout version {version:?}: this build knows {known}; use a newer DistriFS"));
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
    let versions = [LAYOUT_VERSION_BEFORE, LAYOUT_VERSION];
    let [cluster, node] = parse_text(text, VERSION_MAGIC, &versions, ["cluster", "node"])?;
    let cluster: ClusterId = cluster.parse().map_err(|e| format!("{e}"))?;
    let node = node.parse().map_err(|e| format!("{e}"))?;
    Ok(Identity { node, cluster: (cluster != ClusterId::default()).then_some(cluster) })
}

fn parse_witness(text: &str) -> Result<Witness, String> {
    let [epoch, lsn] = parse_text(text, WITNESS_MAGIC, &[WITNESS_VERSION], ["epoch", "lsn"])?;
    let history = text.lines().find_map(|line| line.strip_prefix("history ")).unwrap_or("0");
    let number = |text: &str| text.parse::<u64>().map_err(|e| format!("{text:?}: {e}"));
    Ok(Witness { epoch: Epoch(number(&epoch)?), lsn: Lsn(number(&lsn)?), history: Epoch(number(history)?) })
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
        let seen = Witness { epoch: Epoch(3), lsn: Lsn(44), history: Epoch(2) };
        folder.set_witness(seen).unwrap();
        drop(folder);
        let folder = Folder::open(&root, NodeId(8)).unwrap();
        assert_eq!(folder.identity(), Identity { node: NodeId(7), cluster: Some(ClusterId(9)) });
        assert_eq!(folder.witness().unwrap(), seen);
    }

    #[test]
    fn a_witness_has_the_bytes_it_always_had_and_older_ones_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let folder = open(dir.path()).unwrap();
        let seen = Witness { epoch: Epoch(3), lsn: Lsn(44), history: Epoch(2) };
        folder.set_witness(seen).unwrap();
        let path = dir.path().join(WITNESS_FILE);
        let golden = "distrifs-witness 1\nepoch 3\nlsn 44\nhistory 2\ncrc32c 05e7d035\n";
        assert_eq!(fs::read_to_string(&path).unwrap(), golden);
        fs::write(&path, "distrifs-witness 1\nepoch 3\nlsn 44\ncrc32c b7d3e330\n").unwrap();
        assert_eq!(folder.witness().unwrap(), Witness { history: Epoch(0), ..seen });
    }

    #[test]
    fn a_folder_of_the_version_before_becomes_one_of_this_version() {
        let dir = tempfile::tempdir().unwrap();
        drop(open(dir.path()).unwrap());
        let path = dir.path().join(VERSION_FILE);
        let golden = "distrifs-datanode 2\ncluster 00000000000000000000000000000000\nnode 0000000000000007\n\
                      crc32c 797ede17\n";
        assert_eq!(fs::read_to_string(&path).unwrap(), golden);
        let body = golden.replace("datanode 2", "datanode 1").split("crc32c").next().unwrap().to_owned();
        for full in [false, true] {
            fs::write(&path, close(&body)).unwrap();
            fs::remove_dir(dir.path().join("journal")).unwrap();
            if full {
                // As on a full disk, there is no place for a new file.
                fs::create_dir(dir.path().join("VERSION.new")).unwrap();
            }
            assert_eq!(open(dir.path()).unwrap().identity().node, NodeId(7));
            assert_eq!(fs::read_to_string(&path).unwrap(), golden, "full: {full}");
            assert!(dir.path().join("journal").is_dir());
        }
    }

    #[test]
    fn what_two_witnesses_prove_together() {
        // Each as epoch, LSN and history.
        type It = (u64, u64, u64);
        let cases: [(&str, It, It, It); 11] = [
            ("nothing shown yet", (0, 0, 0), (3, 40, 0), (3, 40, 0)),
            ("the later of one chain", (3, 40, 0), (3, 44, 0), (3, 44, 0)),
            ("the next epoch", (3, 40, 0), (4, 41, 0), (4, 41, 0)),
            ("a master that is merely behind", (3, 40, 0), (4, 30, 0), (4, 40, 0)),
            ("the loss is accepted", (3, 40, 0), (4, 30, 4), (4, 30, 4)),
            ("accepted after it was seen to be behind", (4, 40, 0), (5, 30, 5), (5, 30, 5)),
            ("accepted while the node was away", (3, 40, 0), (6, 35, 4), (6, 35, 4)),
            ("shown in the epoch of the acceptance, before it", (4, 29, 0), (4, 30, 4), (4, 30, 4)),
            ("one of before", (6, 35, 4), (3, 99, 0), (6, 35, 4)),
            ("a master that lost the acceptance", (6, 35, 4), (7, 20, 0), (7, 35, 4)),
            ("accepted once more", (7, 35, 4), (8, 20, 8), (8, 20, 8)),
        ];
        let of = |(epoch, lsn, history): It| Witness {
            epoch: Epoch(epoch),
            lsn: Lsn(lsn),
            history: Epoch(history),
        };
        for (name, one, other, expected) in cases {
            let (one, other, expected) = (of(one), of(other), of(expected));
            assert_eq!(one.joined(other), expected, "{name}");
            assert_eq!(other.joined(one), expected, "{name}, the other way round");
            assert_eq!(expected.joined(one).joined(other), expected, "{name}, once more");
        }
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
            (text.replace("datanode 2", "datanode 3"), "newer"),
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

    /// R23: whatever stands in the place of our files and directories, nothing elsewhere changes.
    #[test]
    fn what_is_no_plain_file_or_directory_is_refused_and_nothing_behind_it_touched() {
        let names =
            [LOCK_FILE, VERSION_FILE, WITNESS_FILE, "chunks", "chunks/7f", "tmp", "quarantine", "journal"];
        for (name, formatted) in names.iter().flat_map(|&name| [(name, true), (name, false)]) {
            let dir = tempfile::tempdir().unwrap();
            let (root, elsewhere) = (dir.path().join("data"), dir.path().join("elsewhere"));
            fs::create_dir_all(elsewhere.join("00")).unwrap();
            fs::write(elsewhere.join("precious"), "precious").unwrap();
            let path = root.join(name);
            if formatted {
                drop(open(&root).unwrap().set_witness(Witness::default()));
                fs::rename(&path, dir.path().join("away")).unwrap();
            }
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            let is_file = [LOCK_FILE, VERSION_FILE, WITNESS_FILE].contains(&name);
            let target = if is_file { elsewhere.join("precious") } else { elsewhere.clone() };
            std::os::unix::fs::symlink(&target, &path).unwrap();
            let error = open(&root).unwrap_err();
            assert!(matches!(error, StoreError::Folder { .. }), "{name}: {error}");
            let text = error.to_string();
            assert!(text.contains("is a symbolic link") && text.contains(name), "{text}");
            fs::remove_file(&path).unwrap();
            // And the other kind.
            if is_file { fs::create_dir(&path) } else { fs::write(&path, "") }.unwrap();
            let text = open(&root).unwrap_err().to_string();
            assert!(text.contains("where a") && text.contains(name), "{text}");
            assert_eq!(fs::read_to_string(elsewhere.join("precious")).unwrap(), "precious", "{name}");
            assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 2, "{name}");
        }
    }

    #[test]
    fn a_leftover_link_is_not_written_through() {
        let dir = tempfile::tempdir().unwrap();
        let (root, precious) = (dir.path().join("data"), dir.path().join("precious"));
        fs::write(&precious, "precious").unwrap();
        let mut folder = open(&root).unwrap();
        for name in ["VERSION.new", "WITNESS.new"] {
            std::os::unix::fs::symlink(&precious, root.join(name)).unwrap();
        }
        folder.join(ClusterId(9)).unwrap();
        let seen = Witness { epoch: Epoch(3), lsn: Lsn(44), history: Epoch(2) };
        folder.set_witness(seen).unwrap();
        assert_eq!(fs::read_to_string(&precious).unwrap(), "precious");
        assert_eq!(folder.witness().unwrap(), seen);
        assert!(!root.join("WITNESS").is_symlink());
        // Where no new file can be made, the old one is written over, but never what a link leads to.
        fs::create_dir(root.join("WITNESS.new")).unwrap();
        let later = Witness { epoch: Epoch(4), lsn: Lsn(45), history: Epoch(2) };
        folder.set_witness(later).unwrap();
        assert_eq!(folder.witness().unwrap(), later);
        fs::remove_file(root.join("WITNESS")).unwrap();
        std::os::unix::fs::symlink(&precious, root.join("WITNESS")).unwrap();
        folder.set_witness(seen).unwrap_err();
        folder.witness().unwrap_err();
        assert_eq!(fs::read_to_string(&precious).unwrap(), "precious");
    }

    #[test]
    fn a_folder_reached_through_a_link_is_as_good_as_any() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("disk")).unwrap();
        std::os::unix::fs::symlink(dir.path().join("disk"), dir.path().join("link")).unwrap();
        drop(open(&dir.path().join("link")).unwrap());
        assert!(dir.path().join("disk/VERSION").is_file());
        open(&dir.path().join("disk")).unwrap();
    }

    #[test]
    fn what_is_missing_is_refused_or_made_anew() {
        let dir = tempfile::tempdir().unwrap();
        drop(open(dir.path()).unwrap());
        for name in ["tmp", "quarantine", "journal"] {
            fs::remove_dir(dir.path().join(name)).unwrap();
        }
        drop(open(dir.path()).unwrap());
        assert!(["tmp", "quarantine", "journal"].iter().all(|name| dir.path().join(name).is_dir()));
        fs::remove_dir(dir.path().join("chunks/a0")).unwrap();
        let text = open(dir.path()).unwrap_err().to_string();
        assert!(text.contains("chunks/a0: is missing"), "{text}");
        fs::write(dir.path().join("file"), "").unwrap();
        for wrong in ["file", "file/below"] {
            let error = open(&dir.path().join(wrong)).unwrap_err();
            assert!(matches!(error, StoreError::Folder { .. }), "{error}");
        }
        // Not even text.
        fs::write(dir.path().join(VERSION_FILE), [0xff; 8]).unwrap();
        assert!(open(dir.path()).unwrap_err().to_string().contains("VERSION: is not text"));
    }

    #[test]
    fn a_folder_with_other_things_in_it_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("thesis.tex"), "precious").unwrap();
        assert!(open(dir.path()).unwrap_err().to_string().contains("thesis.tex"));
        assert!(!dir.path().join(VERSION_FILE).exists());
    }
}
