//! Making files that a power cut leaves whole or not at all: written under a temporary name, synced, renamed,
//! and the folder synced.

use std::io;

use super::format::{TEMPORARY_SUFFIX, WITNESS_NAME, Witness, segment_name};
use crate::folder::Folder;

fn put_in_place(folder: &Folder, name: &str, make: impl FnOnce(&str) -> io::Result<()>) -> io::Result<()> {
    let temporary = format!("{name}{TEMPORARY_SUFFIX}");
    let made = make(&temporary).and_then(|()| folder.sync(&temporary));
    if let Err(error) = made {
        // A full disk gets its space back. The next recovery removes what stays.
        let _ = folder.remove(&temporary);
        return Err(error);
    }
    folder.rename(&temporary, name)?;
    folder.sync_folder()
}

/// Makes a segment of zeros, ready for its header; replaces an unused one of another size.
pub(super) fn prepare_segment(folder: &Folder, sequence: u64, bytes: u64) -> io::Result<()> {
    put_in_place(folder, &segment_name(sequence), |name| folder.create_zeroed(name, bytes))
}

/// Writes down how far the log is known to reach.
pub(super) fn write_witness(folder: &Folder, witness: &Witness) -> io::Result<()> {
    put_in_place(folder, WITNESS_NAME, |name| folder.create(name, &witness.encode()))
}
