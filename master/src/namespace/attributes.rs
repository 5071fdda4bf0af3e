//! Owner, group, permission bits, replication factor.

use distrifs_proto::limits::REPLICATION_MAX;
use distrifs_proto::types::FileId;

use super::command::Answer;
use super::inode::{Content, Inode};
use super::path::NsPath;
use super::tree::full;
use super::{Namespace, NamespaceError};
use crate::permission::{Caller, MODE_MAX, WRITE, bad_name};

impl Namespace {
    /// The inode whose bits are changed: its owner's right, and the superuser's.
    pub(super) fn plan_set_mode(
        &self,
        caller: &Caller,
        path: &NsPath,
        mode: u16,
    ) -> Result<FileId, NamespaceError> {
        if mode > MODE_MAX {
            let what = format!("mode {mode:o} is larger than {MODE_MAX:o}");
            return Err(NamespaceError::Invalid { path: path.to_string(), what });
        }
        let id = self.existing(caller, path)?;
        let owned = self.ownership(id).is_some_and(|it| it.owner == caller.user);
        if !owned && !caller.superuser {
            let (path, user) = (path.clone(), caller.user.clone());
            return Err(NamespaceError::NotOwner { path, user });
        }
        Ok(id)
    }

    pub(super) fn set_mode(
        &mut self,
        caller: &Caller,
        path: &NsPath,
        mode: u16,
    ) -> Result<Answer, NamespaceError> {
        let id = self.plan_set_mode(caller, path, mode)?;
        if let Some(inode) = self.slab.get_mut(id) {
            inode.mode = mode;
        }
        Ok(Answer::Done)
    }

    /// The inode that is given away: the superuser's right alone.
    pub(super) fn plan_set_owner(
        &self,
        caller: &Caller,
        path: &NsPath,
        owner: Option<&str>,
        group: Option<&str>,
    ) -> Result<FileId, NamespaceError> {
        let invalid = |what: String| Err(NamespaceError::Invalid { path: path.to_string(), what });
        if owner.is_none() && group.is_none() {
            return invalid("neither an owner nor a group is given".to_owned());
        }
        for (kind, name) in [("user", owner), ("group", group)] {
            if let Some(why) = name.and_then(bad_name) {
                return invalid(format!("the {kind}'s name {why}"));
            }
        }
        // The way there first: who may not see it learns nothing.
        let id = self.existing(caller, path)?;
        if !caller.superuser {
            let (path, user) = (path.clone(), caller.user.clone());
            return Err(NamespaceError::NotSuperuser { path, user });
        }
        if !self.names.has_room(2) {
            return Err(full(path));
        }
        Ok(id)
    }

    pub(super) fn set_owner(
        &mut self,
        caller: &Caller,
        path: &NsPath,
        owner: Option<&str>,
        group: Option<&str>,
    ) -> Result<Answer, NamespaceError> {
        let id = self.plan_set_owner(caller, path, owner, group)?;
        let owner = owner.map(|name| self.names.intern(name));
        let group = group.map(|name| self.names.intern(name));
        if let Some(inode) = self.slab.get_mut(id) {
            inode.owner = owner.unwrap_or(inode.owner);
            inode.group = group.unwrap_or(inode.group);
        }
        Ok(Answer::Done)
    }

    /// The file of which more or fewer replicas are wanted: for who may write it.
    pub(super) fn plan_set_replication(
        &self,
        caller: &Caller,
        path: &NsPath,
        replication: u8,
    ) -> Result<FileId, NamespaceError> {
        if !(1..=REPLICATION_MAX).contains(&u32::from(replication)) {
            let what = format!("replication factor {replication} is not in 1..={REPLICATION_MAX}");
            return Err(NamespaceError::Invalid { path: path.to_string(), what });
        }
        let id = self.existing(caller, path)?;
        self.demand(caller, id, WRITE, path, path.names().count())?;
        if self.slab.get(id).is_some_and(Inode::is_directory) {
            return Err(NamespaceError::IsADirectory { path: path.clone(), hint: "" });
        }
        Ok(id)
    }

    pub(super) fn set_replication(
        &mut self,
        caller: &Caller,
        path: &NsPath,
        replication: u8,
    ) -> Result<Answer, NamespaceError> {
        let id = self.plan_set_replication(caller, path, replication)?;
        if let Some(Content::File(body)) = self.slab.get_mut(id).map(|inode| &mut inode.content) {
            body.replication = replication;
        }
        Ok(Answer::Done)
    }
}
