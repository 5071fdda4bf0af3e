//! From the bytes of an image to a namespace. Everything is checked that the namespace relies on when it looks
//! things up; that the whole is a tree with exact counts is [`Namespace::check_invariants`].

use std::collections::BTreeMap;
use std::sync::Arc;

use distrifs_proto::types::{ChunkId, Crc32c, Epoch, FileId, GenerationStamp, Lsn, RequestId};
use prost::encoding::decode_varint;

use super::super::command::{Answer, Completed};
use super::super::inode::{Children, ChunkList, Content, FileBody, Inode};
use super::super::names::{NameId, Names};
use super::super::path::{NsPath, PathError};
use super::super::query::BodyStatus;
use super::super::reap::{Doomed, DoomedStack};
use super::super::requests::Requests;
use super::super::slab::{Restore, Slab};
use super::super::table::Table;
use super::super::{Counts, Namespace, OpenFile, OpenFiles, Packed, Tombstone};
use super::{FRAME_BYTES_MAX, Section, VERSION, answer_tag, inode_tag};
use crate::chunk_map::ChunkMap;

/// Why bytes are not an image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ImageError {
    /// Written by a newer version.
    #[error("image version {0}, this one reads up to {VERSION}")]
    Newer(u64),
    /// Not what we write.
    #[error("byte {at} of the image: {what}")]
    Malformed {
        /// In the image.
        at: u64,
        /// What does not fit.
        what: &'static str,
    },
    /// A path that the namespace does not take.
    #[error("a path: {0}")]
    Path(#[from] PathError),
}

/// What the head says.
#[derive(Debug, Default, PartialEq)]
struct Head {
    version: u64,
    applied: Lsn,
    root: FileId,
    next_chunk: ChunkId,
    counts: Counts,
    slots: u64,
    free: Option<u32>,
    names: u64,
    chunks: u64,
    open: u64,
    tombstones: u64,
    history: Epoch,
    doomed: u64,
    bounded: bool,
}

/// Puts a namespace together from the bytes of its image, in pieces of any size.
#[derive(Debug)]
pub(crate) struct Restorer {
    /// Bytes that do not make a frame yet.
    rest: Vec<u8>,
    /// Bytes before `rest`.
    at: u64,
    section: Option<Section>,
    head: Head,
    names: Names,
    requests: Requests,
    open: BTreeMap<FileId, OpenFile>,
    open_chunks: ChunkMap<FileId>,
    tombstones: BTreeMap<ChunkId, Tombstone>,
    chunks: ChunkMap<Packed>,
    slab: Restore,
    doomed: BTreeMap<u32, Doomed>,
}

impl Restorer {
    /// Nothing was read yet.
    pub(crate) fn new() -> Self {
        Self {
            rest: Vec::new(),
            at: 0,
            section: None,
            head: Head::default(),
            names: Names::default(),
            requests: Requests::default(),
            open: BTreeMap::new(),
            open_chunks: ChunkMap::default(),
            tombstones: BTreeMap::new(),
            chunks: ChunkMap::default(),
            slab: Slab::restore(None),
            doomed: BTreeMap::new(),
        }
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// [`ImageError`]: they are not those of an image.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Result<(), ImageError> {
        self.rest.extend_from_slice(bytes);
        let rest = std::mem::take(&mut self.rest);
        let mut at = 0;
        while let Some(length) = rest.get(at..at + 4).and_then(|it| <[u8; 4]>::try_from(it).ok()) {
            let length = u32::from_le_bytes(length) as usize;
            if length == 0 || length > FRAME_BYTES_MAX {
                return Err(ImageError::Malformed { at: self.at + at as u64, what: "length of a frame" });
            }
            let Some(frame) = rest.get(at + 4..at + 4 + length) else { break };
            self.frame(frame).map_err(|error| match error {
                ImageError::Malformed { at: within, what } => {
                    ImageError::Malformed { at: self.at + at as u64 + 4 + within, what }
                }
                other => other,
            })?;
            at += 4 + length;
        }
        self.at += at as u64;
        self.rest = rest;
        self.rest.drain(..at);
        Ok(())
    }

    /// The namespace, once all bytes were fed.
    ///
    /// # Errors
    /// [`ImageError::Malformed`] when something is missing or the parts do not fit together.
    pub(crate) fn finish(self) -> Result<Namespace, ImageError> {
        let bad = |what| Err(ImageError::Malformed { at: self.at, what });
        if self.section != Some(Section::End) || !self.rest.is_empty() {
            return bad("the image ends too early");
        }
        let head = self.head;
        let slab = self.slab.finish();
        let counted = [
            (slab.shape().0.into(), head.slots),
            (self.names.len() as u64, head.names),
            (self.chunks.len() as u64, head.chunks),
            (self.open.len() as u64, head.open),
            (self.tombstones.len() as u64, head.tombstones),
            (self.doomed.len() as u64, head.doomed),
        ];
        if counted.iter().any(|(found, said)| found != said) {
            return bad("another count than the head says");
        }
        if !slab.get(head.root).is_some_and(Inode::is_directory) {
            return bad("the root is no directory");
        }
        Ok(Namespace {
            applied: head.applied,
            slab,
            names: self.names,
            root: head.root,
            next_chunk: head.next_chunk,
            chunks: Table::new(self.chunks),
            open: OpenFiles::new(self.open),
            open_chunks: self.open_chunks,
            tombstones: Table::new(self.tombstones),
            requests: self.requests,
            counts: head.counts,
            history: head.history,
            doomed: DoomedStack::new(self.doomed),
            bounded: head.bounded,
        })
    }

    fn frame(&mut self, frame: &[u8]) -> Result<(), ImageError> {
        let mut fields = Fields { rest: frame, whole: frame.len() };
        let tag = fields.byte()?;
        let Some(section) = Section::ALL.into_iter().find(|section| *section as u8 == tag) else {
            return Err(fields.malformed("an unknown section"));
        };
        let follows = match self.section {
            None => section == Section::Head,
            Some(Section::Head) => section == Section::Names,
            Some(Section::End) => false,
            Some(before) => section == before || before.next(self.head.version) == Some(section),
        };
        if !follows {
            return Err(fields.malformed("a section out of order"));
        }
        self.section = Some(section);
        match section {
            Section::Head => self.head(&mut fields)?,
            Section::End => {
                if fields.number()? != self.head.applied.0 {
                    return Err(fields.malformed("the end of another image"));
                }
            }
            _ => {
                let mut last = 0;
                while !fields.rest.is_empty() {
                    self.record(section, &mut last, &mut fields)?;
                }
            }
        }
        if fields.rest.is_empty() { Ok(()) } else { Err(fields.malformed("more than was expected")) }
    }

    fn head(&mut self, fields: &mut Fields<'_>) -> Result<(), ImageError> {
        let version = fields.number()?;
        if version > VERSION {
            return Err(ImageError::Newer(version));
        }
        self.head = Head {
            version,
            applied: Lsn(fields.number()?),
            root: FileId(fields.number()?),
            next_chunk: ChunkId(fields.number()?),
            counts: Counts {
                files: fields.number()?,
                directories: fields.number()?,
                bytes: fields.number()?,
            },
            slots: fields.number()?,
            free: fields.slot()?,
            names: fields.number()?,
            chunks: fields.number()?,
            open: fields.number()?,
            tombstones: fields.number()?,
            history: Epoch(if version >= 2 { fields.number()? } else { 0 }),
            doomed: if version >= 3 { fields.number()? } else { 0 },
            bounded: version >= 3 && fields.number()? != 0,
        };
        self.slab = Slab::restore(self.head.free);
        Ok(())
    }

    fn record(
        &mut self,
        section: Section,
        last: &mut u64,
        fields: &mut Fields<'_>,
    ) -> Result<(), ImageError> {
        match section {
            Section::Names => {
                self.names.intern(fields.text()?);
            }
            Section::Requests => {
                let (request, print, answer) = fields.remembered(&self.names)?;
                self.requests.remember(request, print, answer);
            }
            Section::Open => {
                let (file, open) = fields.open_file(&self.names)?;
                for chunk in &open.chunks {
                    self.open_chunks.insert(*chunk, file);
                }
                self.open.insert(file, open);
            }
            Section::Tombstones => {
                let chunk = fields.chunk_after(last)?;
                let generation = GenerationStamp(fields.number()?);
                let (at_ms, completed) = (fields.signed()?, fields.byte()? != 0);
                self.tombstones.insert(chunk, Tombstone { generation, at_ms, completed });
            }
            Section::Chunks => {
                let chunk = fields.chunk_after(last)?;
                let (generation, length) = (fields.small()?, fields.small()?);
                let (crc, refs) = (fields.crc()?, fields.small()?);
                self.chunks.insert(chunk, Packed { generation, length, crc, refs });
            }
            Section::Inodes => self.inode(fields)?,
            Section::Doomed => {
                let (top, freed) = (FileId(fields.number()?), fields.small()?);
                let height = u32::try_from(self.doomed.len());
                let height = height.map_err(|_| fields.malformed("a count of doomed trees"))?;
                self.doomed.insert(height, Doomed { top, freed });
            }
            Section::Head | Section::End => {}
        }
        Ok(())
    }

    fn inode(&mut self, fields: &mut Fields<'_>) -> Result<(), ImageError> {
        let tag = fields.byte()?;
        if tag == inode_tag::ENTRY {
            let (name, child) = (fields.text()?, FileId(fields.number()?));
            return if self.slab.entry(name, child) {
                Ok(())
            } else {
                Err(fields.malformed("a name outside of a directory"))
            };
        }
        let use_count = fields.small()?;
        if tag == inode_tag::FREE {
            self.slab.free(use_count, fields.slot()?);
            return Ok(());
        }
        let (owner, group) = (fields.name(&self.names)?, fields.name(&self.names)?);
        let (mode, mtime_ms) = (fields.mode()?, fields.signed()?);
        let content = match tag {
            inode_tag::DIRECTORY => Content::Directory(Children::new()),
            inode_tag::FILE => {
                let (size, crc) = (fields.number()?, fields.crc()?);
                let (chunk_size, replication) = (fields.small()?, fields.byte()?);
                let chunks = ChunkList::new(fields.chunk_ids()?.into_iter());
                Content::File(FileBody { size, crc, chunk_size, replication, chunks })
            }
            _ => return Err(fields.malformed("an unknown kind of inode")),
        };
        self.slab.used(use_count, Inode { owner, group, mode, mtime_ms, content });
        Ok(())
    }
}

/// The fields of one frame.
struct Fields<'a> {
    rest: &'a [u8],
    whole: usize,
}

impl<'a> Fields<'a> {
    fn malformed(&self, what: &'static str) -> ImageError {
        ImageError::Malformed { at: (self.whole - self.rest.len()) as u64, what }
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], ImageError> {
        let Some((taken, rest)) = self.rest.split_at_checked(count) else {
            return Err(self.malformed("a record that ends too early"));
        };
        self.rest = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, ImageError> {
        Ok(self.take(1)?[0])
    }

    fn number(&mut self) -> Result<u64, ImageError> {
        decode_varint(&mut self.rest).map_err(|_| self.malformed("a number"))
    }

    fn small(&mut self) -> Result<u32, ImageError> {
        u32::try_from(self.number()?).map_err(|_| self.malformed("a number of more than 32 bits"))
    }

    fn slot(&mut self) -> Result<Option<u32>, ImageError> {
        let number = self.number()?;
        let Some(slot) = number.checked_sub(1) else { return Ok(None) };
        u32::try_from(slot).map(Some).map_err(|_| self.malformed("a slot"))
    }

    fn signed(&mut self) -> Result<i64, ImageError> {
        let number = self.number()?;
        Ok((number >> 1) as i64 ^ -((number & 1) as i64))
    }

    fn crc(&mut self) -> Result<Crc32c, ImageError> {
        let bytes = self.take(4)?;
        Ok(Crc32c(u32::from_le_bytes(bytes.try_into().unwrap_or_default())))
    }

    fn text(&mut self) -> Result<&'a str, ImageError> {
        let length = self.small()? as usize;
        let bytes = self.take(length)?;
        std::str::from_utf8(bytes).map_err(|_| self.malformed("text that is not UTF-8"))
    }

    fn name(&mut self, names: &Names) -> Result<NameId, ImageError> {
        let number = self.small()?;
        if (number as usize) < names.len() {
            Ok(NameId(number))
        } else {
            Err(self.malformed("an unknown name"))
        }
    }

    fn mode(&mut self) -> Result<u16, ImageError> {
        u16::try_from(self.number()?).map_err(|_| self.malformed("permission bits"))
    }

    /// The id so far behind the one before.
    fn chunk_after(&mut self, last: &mut u64) -> Result<ChunkId, ImageError> {
        let step = self.number()?;
        *last = last.checked_add(step).ok_or_else(|| self.malformed("a chunk id"))?;
        Ok(ChunkId(*last))
    }

    fn chunk_ids(&mut self) -> Result<Vec<ChunkId>, ImageError> {
        let count = self.small()? as usize;
        // Each takes a byte at least.
        if count > self.rest.len() {
            return Err(self.malformed("a count of chunks"));
        }
        let mut ids = Vec::with_capacity(count);
        let mut last = 0u64;
        for _ in 0..count {
            last = last.wrapping_add(self.signed()? as u64);
            ids.push(ChunkId(last));
        }
        Ok(ids)
    }

    fn open_file(&mut self, names: &Names) -> Result<(FileId, OpenFile), ImageError> {
        let file = FileId(self.number()?);
        let path = NsPath::parse(self.text()?)?;
        let (parent, overwrite) = (FileId(self.number()?), self.byte()? != 0);
        let (writer, lease_until_ms) = (self.name(names)?, self.signed()?);
        let chunks = self.chunk_ids()?;
        if !chunks.is_sorted_by(|a, b| a < b) {
            return Err(self.malformed("chunks of an unfinished file that are not sorted"));
        }
        Ok((file, OpenFile { path, parent, overwrite, writer, lease_until_ms, chunks }))
    }

    fn remembered(&mut self, names: &Names) -> Result<(RequestId, u32, Answer), ImageError> {
        let id = self.take(16)?;
        let request = RequestId(u128::from_le_bytes(id.try_into().unwrap_or_default()));
        let print = self.crc()?.0;
        let answer = match self.byte()? {
            answer_tag::DONE => Answer::Done,
            answer_tag::CREATED => {
                let (file, chunk) = (FileId(self.number()?), self.number()?);
                Answer::Created { file, chunk: (chunk != 0).then_some(ChunkId(chunk)) }
            }
            answer_tag::ALLOCATED => {
                Answer::Allocated { file: FileId(self.number()?), chunk: ChunkId(self.number()?) }
            }
            answer_tag::COMPLETED => {
                let (file, path) = (FileId(self.number()?), NsPath::parse(self.text()?)?);
                let (owner, group) = (self.name(names)?, self.name(names)?);
                let (mode, mtime_ms) = (self.mode()?, self.signed()?);
                let (size, crc, chunk_size) = (self.number()?, self.crc()?, self.small()?);
                let replication =
                    u8::try_from(self.number()?).map_err(|_| self.malformed("a replication factor"))?;
                let body = BodyStatus { size, crc, chunk_size, replication, chunks: self.number()? };
                Answer::Completed(Arc::new(Completed { file, path, owner, group, mode, mtime_ms, body }))
            }
            _ => return Err(self.malformed("an unknown kind of answer")),
        };
        Ok((request, print, answer))
    }
}
