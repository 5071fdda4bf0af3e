//! The whole namespace as bytes: what a checkpoint holds.
//!
//! ```text
//! image   = frame*
//! frame   = length u32 LE | section u8 | length - 1 bytes of records
//! section = 1 head, 2 names, 3 requests, 4 open files, 5 tombstones, 6 chunks, 7 inodes, 9 doomed trees, 8 end
//! ```
//! Sections come in this order, the first and the last as one frame each, the others as any number of frames.
//! Numbers are LEB128 varints (as protobuf has them) unless said otherwise; ids of chunks are differences within
//! a frame. The head begins with the version; a newer one is refused. Version 1 had no `history` at the head's
//! end; version 2 had no count of doomed trees and no `bounded` behind it, and no section 9. The checkpoint's file around
//! it has the checksums.
//!
//! [`Snapshot`] makes it page by page while the namespace goes on changing, [`Restorer`] reads it back.

mod decode;
mod encode;

pub(crate) use decode::{ImageError, Restorer};
pub(crate) use encode::Snapshot;

const VERSION: u64 = 3;
/// So much of an image is encoded while the namespace is locked: less than a millisecond's work.
pub(crate) const PAGE_BYTES: usize = 64 << 10;
/// The longest frame: a page, and the longest record (a file with all the chunks it may have).
const FRAME_BYTES_MAX: usize = 16 << 20;
/// Bytes of one chunk id in a record at most, twice (an unfinished file), must fit.
const _: () = assert!(FRAME_BYTES_MAX > PAGE_BYTES + 10 * distrifs_proto::limits::FILE_CHUNKS_MAX + 8192);

/// What a frame holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Section {
    Head = 1,
    Names = 2,
    Requests = 3,
    Open = 4,
    Tombstones = 5,
    Chunks = 6,
    Inodes = 7,
    End = 8,
    Doomed = 9,
}

impl Section {
    /// In the order in which they come.
    const ALL: [Self; 9] = [
        Self::Head,
        Self::Names,
        Self::Requests,
        Self::Open,
        Self::Tombstones,
        Self::Chunks,
        Self::Inodes,
        Self::Doomed,
        Self::End,
    ];

    /// The one that comes next in an image of this version.
    fn next(self, version: u64) -> Option<Self> {
        let known = Self::ALL.into_iter().filter(|section| version >= 3 || *section != Self::Doomed);
        known.skip_while(|section| *section != self).nth(1)
    }
}

/// The kinds of records among inodes.
mod inode_tag {
    pub(super) const FREE: u8 = 0;
    pub(super) const DIRECTORY: u8 = 1;
    pub(super) const FILE: u8 = 2;
    pub(super) const ENTRY: u8 = 3;
}

/// The kinds of remembered answers.
mod answer_tag {
    pub(super) const DONE: u8 = 0;
    pub(super) const CREATED: u8 = 1;
    pub(super) const ALLOCATED: u8 = 2;
    pub(super) const COMPLETED: u8 = 3;
}

#[cfg(test)]
mod tests;
