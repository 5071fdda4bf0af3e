//! The names of the simulated disk: directories, and the changes to them that no sync has made durable yet.
//!
//! A change (creation, removal, rename) is atomic, as on every journalling file system: a rename leaves the
//! old name or the new one. A power cut keeps any subset of the pending changes, save that a change is lost
//! with any earlier one of the same name or file.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Component, Path, PathBuf};

use rustix::io::Errno;

use super::chance::Chance;
use super::content::Content;

/// A file or directory, whatever its names.
pub(super) type Inode = u64;
type Names = BTreeMap<OsString, Inode>;

const ROOT: Inode = 0;

pub(super) enum Node {
    File(Content),
    Dir { now: Names, durable: Names },
}

struct Change {
    /// The directory whose sync makes it durable: of a rename, the one it goes to.
    home: Inode,
    entries: Vec<(Inode, OsString, Option<Inode>)>,
    /// The file it is about.
    inode: Inode,
}

impl Change {
    /// Whether it builds on `earlier`.
    fn follows(&self, earlier: &Change) -> bool {
        self.inode == earlier.inode
            || self.entries.iter().any(|(dir, name, _)| {
                earlier.entries.iter().any(|(other, other_name, _)| dir == other && name == other_name)
            })
    }
}

pub(super) struct Tree {
    nodes: BTreeMap<Inode, Node>,
    next: Inode,
    pending: Vec<Change>,
}

pub(super) fn errno(errno: Errno) -> io::Error {
    io::Error::from_raw_os_error(errno.raw_os_error())
}

impl Tree {
    pub(super) fn new() -> Self {
        let root = Node::Dir { now: Names::new(), durable: Names::new() };
        Self { nodes: BTreeMap::from([(ROOT, root)]), next: ROOT + 1, pending: Vec::new() }
    }

    pub(super) fn find(&self, path: &Path) -> io::Result<Inode> {
        let mut at = ROOT;
        for part in path.components() {
            match part {
                Component::RootDir => {}
                Component::Normal(name) => {
                    at = *self.names(at)?.get(name).ok_or_else(|| errno(Errno::NOENT))?;
                }
                _ => return Err(errno(Errno::INVAL)),
            }
        }
        Ok(at)
    }

    /// The directory of a path, and the last name.
    fn split<'a>(&self, path: &'a Path) -> io::Result<(Inode, &'a OsStr)> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(errno(Errno::INVAL));
        };
        Ok((self.find(parent)?, name))
    }

    pub(super) fn names(&self, dir: Inode) -> io::Result<&Names> {
        match self.nodes.get(&dir) {
            Some(Node::Dir { now, .. }) => Ok(now),
            _ => Err(errno(Errno::NOTDIR)),
        }
    }

    pub(super) fn content(&self, inode: Inode) -> io::Result<&Content> {
        match self.nodes.get(&inode) {
            Some(Node::File(content)) => Ok(content),
            _ => Err(errno(Errno::ISDIR)),
        }
    }

    pub(super) fn content_mut(&mut self, inode: Inode) -> io::Result<&mut Content> {
        match self.nodes.get_mut(&inode) {
            Some(Node::File(content)) => Ok(content),
            _ => Err(errno(Errno::ISDIR)),
        }
    }

    pub(super) fn is_dir(&self, inode: Inode) -> bool {
        matches!(self.nodes.get(&inode), Some(Node::Dir { .. }))
    }

    /// What the files that have a name take up.
    pub(super) fn used_bytes(&self) -> u64 {
        let mut reached = BTreeSet::new();
        self.reach(ROOT, &mut reached);
        let contents = reached.into_iter().filter_map(|inode| self.content(inode).ok());
        contents.map(|content| content.len() as u64).sum()
    }

    pub(super) fn create_file(&mut self, path: &Path) -> io::Result<Inode> {
        self.create(path, Node::File(Content::default()))
    }

    pub(super) fn create_dir(&mut self, path: &Path) -> io::Result<Inode> {
        self.create(path, Node::Dir { now: Names::new(), durable: Names::new() })
    }

    fn create(&mut self, path: &Path, node: Node) -> io::Result<Inode> {
        let (dir, name) = self.split(path)?;
        if self.names(dir)?.contains_key(name) {
            return Err(errno(Errno::EXIST));
        }
        let inode = self.next;
        self.next += 1;
        self.nodes.insert(inode, node);
        self.change(Change { home: dir, entries: vec![(dir, name.to_owned(), Some(inode))], inode });
        Ok(inode)
    }

    pub(super) fn unlink(&mut self, path: &Path) -> io::Result<()> {
        let inode = self.find(path)?;
        if self.is_dir(inode) {
            return Err(errno(Errno::ISDIR));
        }
        let (dir, name) = self.split(path)?;
        self.change(Change { home: dir, entries: vec![(dir, name.to_owned(), None)], inode });
        Ok(())
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let inode = self.find(from)?;
        let (from_dir, from_name) = self.split(from)?;
        let (to_dir, to_name) = self.split(to)?;
        if let Some(target) = self.names(to_dir)?.get(to_name) {
            if *target == inode {
                return Ok(());
            }
            match (self.is_dir(inode), self.is_dir(*target)) {
                (false, true) => return Err(errno(Errno::ISDIR)),
                (true, false) => return Err(errno(Errno::NOTDIR)),
                (true, true) if !self.names(*target)?.is_empty() => return Err(errno(Errno::NOTEMPTY)),
                _ => {}
            }
        }
        if self.is_dir(inode) && to.starts_with(from) {
            return Err(errno(Errno::INVAL));
        }
        let entries = vec![(from_dir, from_name.to_owned(), None), (to_dir, to_name.to_owned(), Some(inode))];
        self.change(Change { home: to_dir, entries, inode });
        Ok(())
    }

    fn change(&mut self, change: Change) {
        apply(&mut self.nodes, &change, false);
        self.pending.push(change);
    }

    /// Makes the changes of a directory durable, and what they build on. Not the directory's own name: that
    /// is its parent's.
    pub(super) fn sync_dir(&mut self, dir: Inode) {
        self.sync_changes(|change| change.home == dir);
    }

    /// Makes the names of one file or directory durable.
    pub(super) fn sync_names(&mut self, inode: Inode) {
        self.sync_changes(|change| change.inode == inode);
    }

    fn sync_changes(&mut self, which: impl Fn(&Change) -> bool) {
        let mut wanted: Vec<bool> = self.pending.iter().map(which).collect();
        for later in (0..self.pending.len()).rev() {
            for earlier in 0..later {
                if wanted[later] && self.pending[later].follows(&self.pending[earlier]) {
                    wanted[earlier] = true;
                }
            }
        }
        self.settle(&wanted);
    }

    /// The sync of a directory failed: its changes are forgotten by the journal, and seen until a power cut.
    pub(super) fn sync_dir_failed(&mut self, dir: Inode) {
        self.pending.retain(|change| change.home != dir);
    }

    /// Makes every change and all bytes durable.
    pub(super) fn sync_all(&mut self) {
        self.settle(&vec![true; self.pending.len()]);
        self.contents_mut().for_each(Content::sync);
    }

    /// A sync of everything failed: whatever was not durable before is lost with the next power cut.
    pub(super) fn sync_all_failed(&mut self) {
        self.pending.clear();
        self.contents_mut().for_each(Content::sync_failed);
    }

    fn contents_mut(&mut self) -> impl Iterator<Item = &mut Content> {
        self.nodes.values_mut().filter_map(|node| match node {
            Node::File(content) => Some(content),
            Node::Dir { .. } => None,
        })
    }

    fn settle(&mut self, wanted: &[bool]) {
        let mut wanted = wanted.iter();
        self.pending.retain(|change| {
            let settled = wanted.next().copied().unwrap_or(false);
            if settled {
                apply(&mut self.nodes, change, true);
            }
            !settled
        });
    }

    /// What the power cut leaves: reads and syncs see the same afterwards.
    pub(super) fn cut(&mut self, chance: &mut Chance) {
        let mut survives: Vec<bool> = Vec::with_capacity(self.pending.len());
        for (index, change) in self.pending.iter().enumerate() {
            let ground = self.pending[..index].iter().zip(&survives);
            let sound = ground.into_iter().all(|(earlier, kept)| *kept || !change.follows(earlier));
            survives.push(chance.coin() && sound);
        }
        self.settle(&survives);
        self.pending.clear();
        for node in self.nodes.values_mut() {
            match node {
                Node::File(content) => content.cut(chance),
                Node::Dir { now, durable } => now.clone_from(durable),
            }
        }
        let mut reached = BTreeSet::new();
        self.reach(ROOT, &mut reached);
        self.nodes.retain(|inode, _| reached.contains(inode));
    }

    fn reach(&self, from: Inode, reached: &mut BTreeSet<Inode>) {
        if reached.insert(from) {
            for inode in self.names(from).into_iter().flat_map(Names::values) {
                self.reach(*inode, reached);
            }
        }
    }

    /// Every file by path: what reads see, or what is durable whatever happens.
    pub(super) fn files(&self, durable: bool) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut files = BTreeMap::new();
        self.collect(ROOT, Path::new("/"), durable, &mut files);
        files
    }

    fn collect(&self, at: Inode, path: &Path, durable: bool, files: &mut BTreeMap<PathBuf, Vec<u8>>) {
        match self.nodes.get(&at) {
            Some(Node::File(content)) => {
                let bytes = if durable { content.synced() } else { content.now() };
                files.insert(path.to_owned(), bytes.to_vec());
            }
            Some(Node::Dir { now, durable: synced }) => {
                for (name, inode) in if durable { synced } else { now } {
                    self.collect(*inode, &path.join(name), durable, files);
                }
            }
            None => {}
        }
    }
}

fn apply(nodes: &mut BTreeMap<Inode, Node>, change: &Change, durably: bool) {
    for (dir, name, inode) in &change.entries {
        let Some(Node::Dir { now, durable }) = nodes.get_mut(dir) else { continue };
        let names = if durably { durable } else { now };
        match inode {
            Some(inode) => names.insert(name.clone(), *inode),
            None => names.remove(name),
        };
    }
}
