//! The model: a map from paths, and what is being written.

use std::collections::{BTreeMap, BTreeSet};

use distrifs_proto::types::{ChunkId, Crc32c, FileId};

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Node {
    Dir(u64),
    File { size: u64, crc: Crc32c },
}

/// Path to content; directories have an identity that a rename keeps.
#[derive(Debug)]
pub(super) struct Model {
    pub(super) nodes: BTreeMap<String, Node>,
    pub(super) open: Vec<Open>,
    /// Reserved chunks, whatever has become of them.
    pub(super) reserved: Vec<ChunkId>,
    /// Those of them that were used or buried.
    pub(super) spent: BTreeSet<ChunkId>,
    pub(super) next_dir: u64,
}

#[derive(Debug)]
pub(super) struct Open {
    pub(super) file: FileId,
    pub(super) parent: u64,
    pub(super) name: String,
    pub(super) overwrite: bool,
    pub(super) opened_ms: i64,
    pub(super) chunks: Vec<ChunkId>,
}

pub(super) fn split(path: &str) -> (&str, &str) {
    let (parent, name) = path.rsplit_once('/').expect("absolute");
    (if parent.is_empty() { "/" } else { parent }, name)
}

pub(super) fn child(parent: &str, name: &str) -> String {
    format!("{}/{name}", parent.trim_end_matches('/'))
}

impl Model {
    pub(super) fn new() -> Self {
        let nodes = BTreeMap::from([("/".to_owned(), Node::Dir(0))]);
        Self { nodes, open: Vec::new(), reserved: Vec::new(), spent: BTreeSet::new(), next_dir: 1 }
    }

    pub(super) fn dir(&self, path: &str) -> Option<u64> {
        match self.nodes.get(path) {
            Some(Node::Dir(id)) => Some(*id),
            _ => None,
        }
    }

    pub(super) fn below(&self, path: &str) -> Vec<String> {
        let prefix = format!("{path}/");
        self.nodes.keys().filter(|key| key.starts_with(&prefix)).cloned().collect()
    }

    pub(super) fn may_take(&self, path: &str, overwrite: bool) -> bool {
        match self.nodes.get(path) {
            None => true,
            Some(Node::Dir(_)) => false,
            Some(Node::File { .. }) => overwrite,
        }
    }

    pub(super) fn make(&mut self, path: &str) {
        self.nodes.insert(path.to_owned(), Node::Dir(self.next_dir));
        self.next_dir += 1;
    }

    pub(super) fn mkdir(&mut self, path: &str, parents: bool) -> bool {
        if !parents {
            let fine = self.dir(split(path).0).is_some() && !self.nodes.contains_key(path);
            if fine {
                self.make(path);
            }
            return fine;
        }
        let ends: Vec<usize> =
            path.match_indices('/').map(|(at, _)| at).skip(1).chain([path.len()]).collect();
        let prefixes: Vec<String> = ends.iter().map(|end| path[..*end].to_owned()).collect();
        if prefixes.iter().any(|it| matches!(self.nodes.get(it), Some(Node::File { .. }))) {
            return false;
        }
        for prefix in prefixes {
            if !self.nodes.contains_key(&prefix) {
                self.make(&prefix);
            }
        }
        true
    }

    pub(super) fn rename(&mut self, source: &str, target: &str, overwrite: bool) -> bool {
        let Some(moved) = self.nodes.get(source).cloned() else { return false };
        let moves_dir = matches!(moved, Node::Dir(_));
        let fine = self.dir(split(target).0).is_some()
            && !(moves_dir && (target == source || target.starts_with(&format!("{source}/"))))
            && self.may_take(target, overwrite && !moves_dir);
        if fine && source != target {
            for old in self.below(source) {
                let node = self.nodes.remove(&old).expect("listed");
                self.nodes.insert(format!("{target}{}", &old[source.len()..]), node);
            }
            self.nodes.remove(source);
            self.nodes.insert(target.to_owned(), moved);
        }
        fine
    }

    pub(super) fn copy(&mut self, source: &str, target: &str, overwrite: bool) -> bool {
        let Some(Node::File { size, crc }) = self.nodes.get(source).cloned() else { return false };
        let fine =
            self.dir(split(target).0).is_some() && source != target && self.may_take(target, overwrite);
        if fine {
            self.nodes.insert(target.to_owned(), Node::File { size, crc });
        }
        fine
    }

    pub(super) fn remove(&mut self, path: &str, recursive: bool) -> bool {
        let fine = match self.nodes.get(path) {
            None => false,
            Some(Node::File { .. }) => true,
            Some(Node::Dir(_)) => recursive,
        };
        if fine {
            for below in self.below(path) {
                self.nodes.remove(&below);
            }
            self.nodes.remove(path);
        }
        fine
    }
}
