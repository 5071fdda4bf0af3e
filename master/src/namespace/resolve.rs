//! From a path to an inode, with the permission to pass each directory of the way.
//!
//! The permission to search a directory is asked before the directory is looked into: who may not enter learns
//! nothing of what is inside, not even that it does not exist.

use distrifs_proto::types::FileId;

use super::inode::Inode;
use super::path::NsPath;
use super::{Namespace, NamespaceError};
use crate::permission::{Caller, EXECUTE, Ownership, WRITE};

/// Names in most paths, with the root.
const USUAL_DEPTH: usize = 8;

/// How far a path goes.
#[derive(Debug)]
pub(super) struct Walk {
    /// The inodes of the way: `chain[i]` is the one of the first `i` names, the root first.
    pub(super) chain: Vec<FileId>,
    /// How many names the path has; all exist when the chain is one longer.
    names: usize,
}

/// The place of a name in a directory.
#[derive(Debug)]
pub(super) struct Place {
    /// The directory.
    pub(super) parent: FileId,
    /// How many names lead to the directory.
    pub(super) parent_depth: usize,
    /// What the name names now.
    pub(super) target: Option<FileId>,
}

impl Walk {
    /// How many names of the path exist.
    pub(super) fn found(&self) -> usize {
        self.chain.len() - 1
    }

    /// The last inode found.
    pub(super) fn deepest(&self) -> FileId {
        self.chain[self.chain.len() - 1]
    }

    /// Whether the whole path exists.
    pub(super) fn is_whole(&self) -> bool {
        self.found() == self.names
    }

    /// The place of the last name of `path`, which was walked.
    pub(super) fn place(&self, path: &NsPath) -> Result<Place, NamespaceError> {
        if self.names == 0 {
            return Err(NamespaceError::Root);
        }
        if self.found() + 1 < self.names {
            return Err(not_found(path, self.found()));
        }
        let target = self.is_whole().then(|| self.deepest());
        let parent_depth = self.names - 1;
        Ok(Place { parent: self.chain[parent_depth], parent_depth, target })
    }
}

impl Namespace {
    /// Follows `path` as far as it exists.
    pub(super) fn walk(&self, caller: &Caller, path: &NsPath) -> Result<Walk, NamespaceError> {
        let mut chain = Vec::with_capacity(USUAL_DEPTH);
        chain.push(self.root);
        let mut names = 0;
        let mut missing = false;
        for (depth, name) in path.names().enumerate() {
            names += 1;
            if missing {
                continue;
            }
            let here = chain[depth];
            let Some(children) = self.slab.get(here).and_then(Inode::children) else {
                return Err(NamespaceError::NotADirectory { path: path.clone(), at: path.prefix(depth) });
            };
            self.demand(caller, here, EXECUTE, path, depth)?;
            match children.get(name) {
                Some(child) => chain.push(*child),
                None => missing = true,
            }
        }
        Ok(Walk { chain, names })
    }

    /// The inode of a path that must exist.
    pub(super) fn existing(&self, caller: &Caller, path: &NsPath) -> Result<FileId, NamespaceError> {
        let walk = self.walk(caller, path)?;
        if !walk.is_whole() {
            return Err(not_found(path, walk.found()));
        }
        Ok(walk.deepest())
    }

    /// The place of the last name of a path whose parent must exist and be a directory.
    pub(super) fn place(&self, caller: &Caller, path: &NsPath) -> Result<Place, NamespaceError> {
        self.walk(caller, path)?.place(path)
    }

    /// Whose `id` is.
    pub(super) fn ownership(&self, id: FileId) -> Option<Ownership<'_>> {
        let inode = self.slab.get(id)?;
        Some(Ownership {
            owner: self.names.text(inode.owner),
            group: self.names.text(inode.group),
            mode: inode.mode,
        })
    }

    /// Refuses unless `caller` has `need` on `id`, which the first `depth` names of `path` name.
    pub(super) fn demand(
        &self,
        caller: &Caller,
        id: FileId,
        need: u16,
        path: &NsPath,
        depth: usize,
    ) -> Result<(), NamespaceError> {
        if self.ownership(id).is_some_and(|it| it.allows(caller, need)) {
            return Ok(());
        }
        let (user, on) = (caller.user.clone(), path.prefix(depth));
        Err(NamespaceError::PermissionDenied { path: path.clone(), user, need, on })
    }

    /// Refuses unless `caller` may add names to the directory of `place`.
    pub(super) fn demand_add(
        &self,
        caller: &Caller,
        place: &Place,
        path: &NsPath,
    ) -> Result<(), NamespaceError> {
        self.demand(caller, place.parent, WRITE | EXECUTE, path, place.parent_depth)
    }

    /// Refuses unless `caller` may take the entry `target` out of the directory of `place`.
    pub(super) fn demand_take(
        &self,
        caller: &Caller,
        place: &Place,
        target: FileId,
        path: &NsPath,
    ) -> Result<(), NamespaceError> {
        self.demand_add(caller, place, path)?;
        self.demand_unstuck(caller, place.parent, target, path)
    }

    /// Refuses when the sticky bit of `parent` keeps `caller` from taking `entry` out of it.
    pub(super) fn demand_unstuck(
        &self,
        caller: &Caller,
        parent: FileId,
        entry: FileId,
        path: &NsPath,
    ) -> Result<(), NamespaceError> {
        let owner = self.ownership(entry).map_or("", |it| it.owner);
        if self.ownership(parent).is_some_and(|it| it.sticky_keeps(caller, owner)) {
            let (user, on) = (caller.user.clone(), path.to_string());
            return Err(NamespaceError::Sticky { path: path.clone(), user, on });
        }
        Ok(())
    }
}

/// The refusal of a path of which the first `found` names exist.
pub(super) fn not_found(path: &NsPath, found: usize) -> NamespaceError {
    NamespaceError::NotFound { path: path.clone(), missing: path.prefix(found + 1) }
}
