//! The store of checkpoints: opaque images, each of them "the state at an LSN".
//!
//! What it promises:
//! - **A file under its finished name is whole**: it was written under a temporary name, synced, read back from the
//!   disk and checked block by block before it was renamed, and the folder was synced before [`CheckpointWriter::finish`]
//!   returned. So a bad image never displaces a good one, and a power cut leaves the file whole or not at all.
//! - **Damage is found**: a cut file, a block in another's place, trailing garbage and every flipped bit are refused by
//!   the reader with file and offset, at the latest after the last block.
//! - Images are written and read with O_DIRECT: hundreds of megabytes leave the page cache alone.
//!
//! It does not know what is in an image, when to make one, or which log belongs to it. Everything here blocks: use it
//! from a thread of its own. One writer and one caller of [`CheckpointFolder::retain`] at a time for each epoch: a leader
//! that was replaced and does not know it yet gets in nobody's way, and what it finishes is true.
//!
//! Reading order: `format.rs`, `reader.rs`, `writer.rs`, `store.rs`.

mod error;
mod format;
mod inspect;
mod reader;
mod store;
#[cfg(test)]
mod tests;
mod writer;

pub use error::{CheckpointError, Damage};
pub use format::{BLOCK_PAYLOAD_MAX, CheckpointHeader};
pub use inspect::{CheckpointFacts, inspect};
pub use reader::CheckpointReader;
pub use store::{CheckpointFolder, Listed};
pub use writer::{CheckpointWriter, Written};
