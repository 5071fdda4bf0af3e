//! A snapshot: the namespace at one moment, page by page.

use distrifs_proto::types::{ChunkId, Lsn, RequestId};
use prost::encoding::encode_varint;

use super::super::command::Answer;
use super::super::inode::{Content, Inode};
use super::super::query::BodyStatus;
use super::super::slab::SlabRecord;
use super::super::{Namespace, OpenFile, Packed, Tombstone};
use super::{FRAME_BYTES_MAX, Section, VERSION, answer_tag, inode_tag};

/// A snapshot under way. There is at most one; [`Namespace::thaw`] ends it.
#[derive(Debug)]
pub(crate) struct Snapshot {
    applied: Lsn,
    /// What the next page is of; `None`: all was handed out.
    section: Option<Section>,
    head: Vec<u8>,
    /// Names are never forgotten: those of the snapshot are the first so many.
    names: std::ops::Range<usize>,
}

impl Snapshot {
    /// The position in the log of the moment that it shows.
    pub(crate) fn applied(&self) -> Lsn {
        self.applied
    }
}

impl Namespace {
    /// Begins a snapshot of this moment. Costs no more than the time to say so.
    pub(crate) fn freeze(&mut self) -> Snapshot {
        self.slab.freeze();
        self.chunks.freeze();
        self.open.freeze();
        self.doomed.freeze();
        self.tombstones.freeze();
        self.requests.freeze();
        let mut head = Vec::new();
        let (slots, free) = self.slab.shape();
        for number in [
            VERSION,
            self.applied.0,
            self.root.0,
            self.next_chunk.0,
            self.counts.files,
            self.counts.directories,
            self.counts.bytes,
            u64::from(slots),
            free.map_or(0, |slot| u64::from(slot) + 1),
            self.names.len() as u64,
            self.chunks.len() as u64,
            self.open.len() as u64,
            self.tombstones.len() as u64,
            self.history.0,
            u64::from(self.doomed.len()),
            u64::from(self.bounded),
        ] {
            encode_varint(number, &mut head);
        }
        let names = 0..self.names.len();
        Snapshot { applied: self.applied, section: Some(Section::Head), head, names }
    }

    /// Ends the snapshot, finished or not. What was kept for it is to be dropped without the lock.
    pub(crate) fn thaw(&mut self) -> impl Sized + use<> {
        // Bounded: the answers that are remembered.
        self.requests.thaw();
        let tables = (self.chunks.thaw(), self.open.thaw(), self.doomed.thaw(), self.tombstones.thaw());
        (self.slab.thaw(), tables)
    }

    /// Appends one more frame to `out`, of about `page_bytes`; false when there is none.
    pub(crate) fn page(&mut self, snapshot: &mut Snapshot, page_bytes: usize, out: &mut Vec<u8>) -> bool {
        let Some(section) = snapshot.section else { return false };
        let start = out.len();
        out.extend_from_slice(&[0; 4]);
        out.push(section as u8);
        let more = self.records(section, snapshot, start + page_bytes, out);
        if !more {
            snapshot.section = section.next(VERSION);
        }
        let length = out.len() - start - 4;
        debug_assert!(length <= FRAME_BYTES_MAX, "see the assertion of its bound");
        out[start..start + 4].copy_from_slice(&(length as u32).to_le_bytes());
        true
    }

    /// Until `out` has `full` bytes; says whether there may be more.
    fn records(&mut self, section: Section, snapshot: &mut Snapshot, full: usize, out: &mut Vec<u8>) -> bool {
        let mut last = 0;
        match section {
            Section::Head => {
                out.extend_from_slice(&snapshot.head);
                false
            }
            Section::Names => {
                for number in snapshot.names.by_ref() {
                    text(self.names.nth(number), out);
                    if out.len() >= full {
                        return true;
                    }
                }
                false
            }
            Section::Requests => self.requests.page(|request, print, answer| {
                remembered(request, print, answer, out);
                out.len() < full
            }),
            Section::Open => self.open.page(|file, open| {
                encode_varint(file.0, out);
                open_file(open, out);
                out.len() < full
            }),
            Section::Tombstones => self.tombstones.page(|chunk, it| {
                tombstone(step(&mut last, chunk), it, out);
                out.len() < full
            }),
            Section::Chunks => self.chunks.page(|chunk, it| {
                packed(step(&mut last, chunk), it, out);
                out.len() < full
            }),
            Section::Inodes => self.slab.page(|record| {
                slab_record(&record, out);
                out.len() < full
            }),
            Section::Doomed => self.doomed.page(|entry| {
                encode_varint(entry.top.0, out);
                encode_varint(u64::from(entry.freed), out);
                out.len() < full
            }),
            Section::End => {
                encode_varint(snapshot.applied.0, out);
                false
            }
        }
    }
}

/// The difference to the id before; ids ascend.
fn step(last: &mut u64, chunk: ChunkId) -> u64 {
    chunk.0 - std::mem::replace(last, chunk.0)
}

fn text(text: &str, out: &mut Vec<u8>) {
    encode_varint(text.len() as u64, out);
    out.extend_from_slice(text.as_bytes());
}

/// Signed numbers with small ones short (zigzag).
fn signed(number: i64, out: &mut Vec<u8>) {
    encode_varint(((number << 1) ^ (number >> 63)) as u64, out);
}

fn chunk_ids(ids: impl ExactSizeIterator<Item = ChunkId>, out: &mut Vec<u8>) {
    encode_varint(ids.len() as u64, out);
    let mut last = 0u64;
    for id in ids {
        signed(id.0.wrapping_sub(last) as i64, out);
        last = id.0;
    }
}

fn optional_chunk(chunk: Option<ChunkId>, out: &mut Vec<u8>) {
    // No chunk has the id 0.
    encode_varint(chunk.map_or(0, |chunk| chunk.0), out);
}

fn remembered(request: RequestId, print: u32, answer: &Answer, out: &mut Vec<u8>) {
    out.extend_from_slice(&request.0.to_le_bytes());
    out.extend_from_slice(&print.to_le_bytes());
    match answer {
        Answer::Created { file, chunk } => {
            out.push(answer_tag::CREATED);
            encode_varint(file.0, out);
            optional_chunk(*chunk, out);
        }
        Answer::Allocated { file, chunk } => {
            out.push(answer_tag::ALLOCATED);
            encode_varint(file.0, out);
            encode_varint(chunk.0, out);
        }
        Answer::Completed(completed) => {
            out.push(answer_tag::COMPLETED);
            encode_varint(completed.file.0, out);
            text(completed.path.as_str(), out);
            for number in [completed.owner.0, completed.group.0, u32::from(completed.mode)] {
                encode_varint(u64::from(number), out);
            }
            signed(completed.mtime_ms, out);
            let BodyStatus { size, crc, chunk_size, replication, chunks } = completed.body;
            encode_varint(size, out);
            out.extend_from_slice(&crc.0.to_le_bytes());
            for number in [u64::from(chunk_size), u64::from(replication), chunks] {
                encode_varint(number, out);
            }
        }
        // The others are not remembered: see `Command::fits`.
        Answer::Done
        | Answer::Renewed { .. }
        | Answer::Expired { .. }
        | Answer::Forgotten
        | Answer::Reserved(_) => {
            out.push(answer_tag::DONE);
        }
    }
}

fn open_file(open: &OpenFile, out: &mut Vec<u8>) {
    text(open.path.as_str(), out);
    encode_varint(open.parent.0, out);
    out.push(u8::from(open.overwrite));
    encode_varint(u64::from(open.writer.0), out);
    signed(open.lease_until_ms, out);
    chunk_ids(open.chunks.iter().copied(), out);
}

fn tombstone(step: u64, it: &Tombstone, out: &mut Vec<u8>) {
    encode_varint(step, out);
    encode_varint(it.generation.0, out);
    signed(it.at_ms, out);
    out.push(u8::from(it.completed));
}

fn packed(step: u64, it: &Packed, out: &mut Vec<u8>) {
    encode_varint(step, out);
    encode_varint(u64::from(it.generation), out);
    encode_varint(u64::from(it.length), out);
    out.extend_from_slice(&it.crc.0.to_le_bytes());
    encode_varint(u64::from(it.refs), out);
}

fn slab_record(record: &SlabRecord<'_>, out: &mut Vec<u8>) {
    match record {
        SlabRecord::Free { use_count, next } => {
            out.push(inode_tag::FREE);
            encode_varint(u64::from(*use_count), out);
            encode_varint(next.map_or(0, |slot| u64::from(slot) + 1), out);
        }
        SlabRecord::Used { use_count, inode } => {
            let Inode { owner, group, mode, mtime_ms, content } = inode;
            out.push(if inode.is_directory() { inode_tag::DIRECTORY } else { inode_tag::FILE });
            for number in [*use_count, owner.0, group.0, u32::from(*mode)] {
                encode_varint(u64::from(number), out);
            }
            signed(*mtime_ms, out);
            if let Content::File(body) = content {
                encode_varint(body.size, out);
                out.extend_from_slice(&body.crc.0.to_le_bytes());
                encode_varint(u64::from(body.chunk_size), out);
                out.push(body.replication);
                chunk_ids(body.chunks.as_slice().iter().copied(), out);
            }
        }
        SlabRecord::Entry { name, child } => {
            out.push(inode_tag::ENTRY);
            text(name, out);
            encode_varint(child.0, out);
        }
    }
}
