//! Files of at most one chunk that appear in one step: a creation and a completion at the same moment.

use std::sync::Arc;

use distrifs_proto::types::FileId;

use super::command::{Answer, Completed, WrittenChunk};
use super::inode::{ChunkList, Content, FileBody, Inode};
use super::path::NsPath;
use super::query::BodyStatus;
use super::{FIRST_GENERATION, Namespace, NamespaceError, Packed};
use crate::permission::Caller;

/// A file that may appear.
#[derive(Debug)]
pub(super) struct Whole {
    parent: FileId,
    body: FileBody,
    /// What it replaces.
    replaced: Option<FileId>,
}

impl Namespace {
    pub(super) fn plan_put_whole(
        &self,
        caller: &Caller,
        path: &NsPath,
        overwrite: bool,
        (chunk_size, replication): (u32, u8),
        chunk: Option<&WrittenChunk>,
    ) -> Result<Whole, NamespaceError> {
        let (place, mut body) = self.plan_file(caller, path, overwrite, chunk_size, replication)?;
        if let Some(WrittenChunk { chunk, generation, length, crc }) = chunk.copied() {
            let refuse = |why: String| Err(NamespaceError::Chunks { path: path.clone(), why });
            if generation != FIRST_GENERATION {
                return refuse(format!("chunk {chunk} has generation {FIRST_GENERATION}, not {generation}"));
            }
            if !(1..=u64::from(chunk_size)).contains(&length) {
                return refuse(format!("chunk {chunk} has {length} bytes of {chunk_size}"));
            }
            if !self.is_spare(chunk) {
                return Err(NamespaceError::NotSpare { path: path.clone(), chunk });
            }
            (body.size, body.crc, body.chunks) = (length, crc, ChunkList::new([chunk].into_iter()));
        }
        Ok(Whole { parent: place.parent, body, replaced: place.target })
    }

    pub(super) fn put_whole(
        &mut self,
        at_ms: i64,
        caller: &Caller,
        path: &NsPath,
        plan: Whole,
        mode: u16,
        chunk: Option<&WrittenChunk>,
    ) -> Answer {
        if let Some(WrittenChunk { chunk, generation, length, crc }) = chunk.copied() {
            self.chunks.insert(chunk, Packed::new(generation, length as u32, crc));
        }
        let owner = self.names.intern(&caller.user);
        let group = self.names.intern(caller.primary_group());
        let (owner, group, mode) = self.kept(plan.replaced).unwrap_or((owner, group, mode));
        let body = BodyStatus::from(&plan.body);
        let content = Content::File(plan.body);
        let file = self.slab.insert(Inode { owner, group, mode, mtime_ms: at_ms, content });
        self.appear(at_ms, plan.parent, path, (file, body.size), plan.replaced);
        let (path, mtime_ms) = (path.clone(), at_ms);
        Answer::Completed(Arc::new(Completed { file, path, owner, group, mode, mtime_ms, body }))
    }
}
