//! Directories and names: mkdir, rename, remove.

use std::collections::btree_map::Iter;

use distrifs_proto::limits::PATH_BYTES_MAX;
use distrifs_proto::types::FileId;

use super::command::Answer;
use super::inode::{Children, Content, Inode, Name};
use super::path::NsPath;
use super::resolve::Place;
use super::slab::Slab;
use super::{DIRECTORY_MODE, Namespace, NamespaceError};
use crate::permission::{Caller, EXECUTE, READ, WRITE};

/// Entries that the permission check of one recursive removal visits: about a millisecond's work.
pub(super) const EMPTYING_ITEMS_MAX: u64 = 1 << 14;

/// A rename that may happen.
#[derive(Debug)]
pub(super) struct Rename {
    source: Place,
    target: Place,
    moved: FileId,
}

impl Namespace {
    /// Where the missing directories begin: the deepest existing one and the number of names that lead to it;
    /// `None` when there is nothing to do.
    pub(super) fn plan_mkdir(
        &self,
        caller: &Caller,
        path: &NsPath,
        parents: bool,
    ) -> Result<Option<(FileId, usize)>, NamespaceError> {
        let walk = self.walk(caller, path)?;
        let (deepest, found) = (walk.deepest(), walk.found());
        if walk.is_whole() {
            if parents && self.slab.get(deepest).is_some_and(Inode::is_directory) {
                return Ok(None);
            }
            return Err(NamespaceError::AlreadyExists { path: path.clone(), hint: "" });
        }
        let missing = path.names().count() - found;
        if missing > 1 && !parents {
            return Err(NamespaceError::NotFound { path: path.clone(), missing: path.prefix(found + 1) });
        }
        if !self.slab.has_room(missing) || !self.names.has_room(2) {
            return Err(full(path));
        }
        self.demand(caller, deepest, WRITE | EXECUTE, path, found)?;
        Ok(Some((deepest, found)))
    }

    pub(super) fn mkdir(
        &mut self,
        at_ms: i64,
        caller: &Caller,
        path: &NsPath,
        parents: bool,
        mode: u16,
    ) -> Result<Answer, NamespaceError> {
        let Some((mut here, found)) = self.plan_mkdir(caller, path, parents)? else {
            return Ok(Answer::Done);
        };
        let owner = self.names.intern(&caller.user);
        let group = self.names.intern(caller.primary_group());
        let last = path.names().count() - 1;
        for (depth, name) in path.names().enumerate().skip(found) {
            let mode = if depth == last { mode } else { DIRECTORY_MODE };
            let content = Content::Directory(Children::new());
            let child = self.slab.insert(Inode { owner, group, mode, mtime_ms: at_ms, content });
            self.link(at_ms, here, name, child);
            self.counts.directories += 1;
            here = child;
        }
        Ok(Answer::Done)
    }

    /// `None` when source and target are the same file and replacing it is allowed.
    pub(super) fn plan_rename(
        &self,
        caller: &Caller,
        source: &NsPath,
        target: &NsPath,
        overwrite: bool,
    ) -> Result<Option<Rename>, NamespaceError> {
        let from = self.place(caller, source)?;
        let Some(moved) = from.target else {
            return Err(NamespaceError::NotFound { path: source.clone(), missing: source.to_string() });
        };
        self.demand_take(caller, &from, moved, source)?;
        // Asked before the walk: below the source there is nothing to look for.
        let walk = self.walk(caller, target)?;
        let itself = walk.chain[..walk.chain.len() - usize::from(walk.is_whole())].contains(&moved);
        if itself && self.slab.get(moved).is_some_and(Inode::is_directory) {
            return Err(NamespaceError::IntoItself { path: source.clone(), target: target.clone() });
        }
        let to = walk.place(target).map_err(|error| match error {
            NamespaceError::Root => {
                NamespaceError::AlreadyExists { path: target.clone(), hint: ": give the new path itself" }
            }
            other => other,
        })?;
        self.demand_add(caller, &to, target)?;
        if let Some(there) = to.target {
            if self.slab.get(there).is_some_and(Inode::is_directory) {
                let hint = " (a directory): give the new path itself";
                return Err(NamespaceError::AlreadyExists { path: target.clone(), hint });
            }
            if !overwrite {
                return Err(NamespaceError::AlreadyExists { path: target.clone(), hint: "" });
            }
            if there == moved {
                return Ok(None);
            }
            if self.slab.get(moved).is_some_and(Inode::is_directory) {
                let at = target.to_string();
                return Err(NamespaceError::NotADirectory { path: target.clone(), at });
            }
            self.demand_unstuck(caller, to.parent, there, target)?;
        }
        Ok(Some(Rename { source: from, target: to, moved }))
    }

    pub(super) fn rename(
        &mut self,
        at_ms: i64,
        caller: &Caller,
        source: &NsPath,
        target: &NsPath,
        overwrite: bool,
    ) -> Result<Answer, NamespaceError> {
        let Some(plan) = self.plan_rename(caller, source, target, overwrite)? else {
            return Ok(Answer::Done);
        };
        let (Some(old_name), Some(new_name)) = (source.last(), target.last()) else {
            return Err(NamespaceError::Root);
        };
        self.unlink(at_ms, plan.source.parent, old_name);
        self.link(at_ms, plan.target.parent, new_name, plan.moved);
        if let Some(replaced) = plan.target.target {
            self.drop_tree(at_ms, replaced);
        }
        Ok(Answer::Done)
    }

    pub(super) fn plan_remove(
        &self,
        caller: &Caller,
        path: &NsPath,
        recursive: bool,
    ) -> Result<(FileId, FileId), NamespaceError> {
        let place = self.place(caller, path)?;
        let Some(target) = place.target else {
            return Err(NamespaceError::NotFound { path: path.clone(), missing: path.to_string() });
        };
        self.demand_take(caller, &place, target, path)?;
        if let Some(children) = self.slab.get(target).and_then(Inode::children) {
            if !recursive && !children.is_empty() {
                return Err(NamespaceError::NotEmpty { path: path.clone() });
            }
            if !recursive {
                let hint = ": remove it with rm -r";
                return Err(NamespaceError::IsADirectory { path: path.clone(), hint });
            }
            if !caller.superuser {
                self.demand_emptying(caller, target, path)?;
            }
        }
        Ok((place.parent, target))
    }

    /// Refuses unless `caller` may empty each directory below `top` that has something in it, and `top` itself.
    ///
    /// Names are looked at only where a subdirectory, or an entry that the sticky bit protects, may be among them.
    fn demand_emptying(&self, caller: &Caller, top: FileId, path: &NsPath) -> Result<(), NamespaceError> {
        let mut visited = 0;
        // The directories of the way, each with what is left of it: a tree can be deeper than a path is long.
        let mut way: Vec<Level<'_>> = Vec::new();
        let mut here = Some((top, ""));
        loop {
            if let Some((directory, name)) = here.take()
                && let Some(children) = self.slab.get(directory).and_then(Inode::children)
                && !children.is_empty()
            {
                let ownership = self.ownership(directory);
                let sticky = ownership.is_some_and(|it| it.guards_entries(caller));
                way.push(Level { name, rest: children.iter(), sticky, left: children.directories() });
                let need = READ | WRITE | EXECUTE;
                if !ownership.is_some_and(|it| it.allows(caller, need)) {
                    let (path, user, on) = (path.clone(), caller.user.clone(), text_of(path, &way, ""));
                    return Err(NamespaceError::PermissionDenied { path, user, need, on });
                }
            }
            let Some(level) = way.last_mut() else { return Ok(()) };
            let next = if level.sticky || level.left > 0 { level.rest.next() } else { None };
            let Some((name, child)) = next else {
                way.pop();
                continue;
            };
            visited += 1;
            if self.bounded && visited > EMPTYING_ITEMS_MAX {
                let what = "entries that one removal checks, remove its subdirectories first";
                let (path, max) = (path.to_string(), EMPTYING_ITEMS_MAX);
                return Err(NamespaceError::Limit { path, what, max });
            }
            let Some(inode) = self.slab.get(*child) else { continue };
            if inode.is_directory() {
                level.left = level.left.saturating_sub(1);
                here = Some((*child, name));
            }
            if level.sticky && self.names.text(inode.owner) != caller.user {
                let (path, user, on) = (path.clone(), caller.user.clone(), text_of(path, &way, name));
                return Err(NamespaceError::Sticky { path, user, on });
            }
        }
    }

    pub(super) fn remove(
        &mut self,
        at_ms: i64,
        caller: &Caller,
        path: &NsPath,
        recursive: bool,
    ) -> Result<Answer, NamespaceError> {
        let (parent, target) = self.plan_remove(caller, path, recursive)?;
        let Some(name) = path.last() else {
            return Err(NamespaceError::Root);
        };
        self.unlink(at_ms, parent, name);
        self.drop_tree(at_ms, target);
        Ok(Answer::Done)
    }

    /// Gives `child` a name in a directory.
    pub(super) fn link(&mut self, at_ms: i64, parent: FileId, name: &str, child: FileId) {
        self.slab.link(parent, name, child);
        self.touch(at_ms, parent);
    }

    fn unlink(&mut self, at_ms: i64, parent: FileId, name: &str) {
        self.slab.unlink(parent, name);
        self.touch(at_ms, parent);
    }

    fn touch(&mut self, at_ms: i64, directory: FileId) {
        if let Some(inode) = self.slab.get_mut(directory) {
            inode.mtime_ms = at_ms;
        }
    }
}

/// A directory on the way of [`Namespace::demand_emptying`].
struct Level<'a> {
    name: &'a str,
    rest: Iter<'a, Name, FileId>,
    /// Whether the sticky bit protects entries of other owners from the caller.
    sticky: bool,
    /// Subdirectories among the rest.
    left: u32,
}

/// The path of `name` at the end of a way that begins at `top`, as far as a path goes.
fn text_of(top: &NsPath, way: &[Level<'_>], name: &str) -> String {
    let mut text = top.to_string();
    let names = way.iter().map(|level| level.name).chain([name]);
    for name in names.filter(|name| !name.is_empty()) {
        if text.len() + 1 + name.len() > PATH_BYTES_MAX {
            break;
        }
        text.push('/');
        text.push_str(name);
    }
    text
}

/// The refusal of one inode more than there can be.
pub(super) fn full(path: &NsPath) -> NamespaceError {
    NamespaceError::Limit {
        path: path.to_string(),
        what: "files, directories and names of users",
        max: Slab::MAX,
    }
}
