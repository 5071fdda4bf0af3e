//! Copies of files: the copy refers to the same chunks, no byte moves.

use distrifs_proto::types::FileId;

use super::command::Answer;
use super::inode::{Content, FileBody, Inode};
use super::path::NsPath;
use super::resolve::Place;
use super::tree::full;
use super::{Namespace, NamespaceError};
use crate::permission::{Caller, READ};

/// A copy that may be made.
#[derive(Debug)]
pub(super) struct Copy {
    from: FileId,
    body: FileBody,
    target: Place,
}

impl Namespace {
    pub(super) fn plan_copy(
        &self,
        caller: &Caller,
        source: &NsPath,
        target: &NsPath,
        overwrite: bool,
    ) -> Result<Copy, NamespaceError> {
        let from = self.existing(caller, source)?;
        let Some(body) = self.slab.get(from).and_then(Inode::file) else {
            let hint = ": only files are copied";
            return Err(NamespaceError::IsADirectory { path: source.clone(), hint });
        };
        self.demand(caller, from, READ, source, source.names().count())?;
        let place = self.place(caller, target).map_err(|error| match error {
            NamespaceError::Root => NamespaceError::IsADirectory { path: target.clone(), hint: "" },
            other => other,
        })?;
        match place.target {
            Some(there) if there == from => {
                let what = format!("is the same file as {source}");
                return Err(NamespaceError::Invalid { path: target.to_string(), what });
            }
            Some(there) => self.demand_replace(caller, there, target, overwrite)?,
            None => self.demand_add(caller, &place, target)?,
        }
        if !self.slab.has_room(1) || !self.names.has_room(2) {
            return Err(full(target));
        }
        let worn = |chunk| self.chunks.get(chunk).is_none_or(|it| it.refs == u32::MAX);
        if body.chunks.as_slice().iter().copied().any(worn) {
            let (path, max) = (source.to_string(), u64::from(u32::MAX));
            return Err(NamespaceError::Limit { path, what: "copies of a file", max });
        }
        Ok(Copy { from, body: body.clone(), target: place })
    }

    /// The copy belongs to the caller and has the permission bits of its source; a file that it replaces keeps its
    /// own, as when it is written in place.
    pub(super) fn copy(
        &mut self,
        at_ms: i64,
        caller: &Caller,
        source: &NsPath,
        target: &NsPath,
        overwrite: bool,
    ) -> Result<Answer, NamespaceError> {
        let plan = self.plan_copy(caller, source, target, overwrite)?;
        let owner = self.names.intern(&caller.user);
        let group = self.names.intern(caller.primary_group());
        let mode = self.slab.get(plan.from).map_or(0, |inode| inode.mode);
        let replaced = plan.target.target;
        let (owner, group, mode) = self.kept(replaced).unwrap_or((owner, group, mode));
        // Before anything is dropped: what is replaced may share the chunks.
        for chunk in plan.body.chunks.as_slice() {
            self.reference(*chunk);
        }
        let size = plan.body.size;
        let content = Content::File(plan.body);
        let file = self.slab.insert(Inode { owner, group, mode, mtime_ms: at_ms, content });
        self.appear(at_ms, plan.target.parent, target, (file, size), replaced);
        Ok(Answer::Done)
    }
}
