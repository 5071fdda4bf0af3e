//! A log of a thousand records under every single flipped bit of every byte, and under every cut at every 512 bytes:
//! recovery gives all of them, or refuses with the file, the offset and the LSN. Never fewer records in silence.
//!
//! The log ended cleanly, so that its witness is there: see [`recover`](crate::log::recover) for the one damage that
//! nothing else catches. The records are two bytes long, so that the four hundred thousand recoveries end soon.

use distrifs_proto::types::Lsn;

use super::super::error::RecoverError;
use super::super::format::{BLOCK_BYTES, SECTOR_BYTES, WITNESS_NAME, segment_name};
use super::super::recovery::recover_folder;
use super::{CLUSTER, block_on, fresh};
use crate::folder::{Folder, SimDisk};

const RECORDS: u64 = 1000;
/// A header block and two for groups.
const SEGMENT_BYTES: u64 = 3 * BLOCK_BYTES as u64;

/// A group: how many records, in which segment, from which block on, and how many blocks it takes.
struct Place {
    records: u64,
    sequence: u64,
    block: usize,
    blocks: usize,
}

const fn place(records: u64, sequence: u64, block: usize, blocks: usize) -> Place {
    Place { records, sequence, block, blocks }
}

/// From one record to seven hundred, which take two blocks. The last segment has a block to spare; another is ready.
const PLACES: [Place; 4] = [place(1, 1, 1, 1), place(2, 1, 2, 1), place(700, 2, 1, 2), place(297, 3, 1, 1)];
/// The last one was made ready and never used.
const SEGMENTS: u64 = 4;

fn record(lsn: u64) -> [u8; 2] {
    (lsn as u16).to_le_bytes()
}

fn built() -> SimDisk {
    let (disk, log) = fresh(11, SEGMENT_BYTES);
    block_on(async {
        let mut next = 1;
        for place in &PLACES {
            let records = (next..next + place.records).map(|lsn| record(lsn).to_vec().into()).collect();
            let lsns = log.append(records).await.expect("an append");
            assert_eq!(lsns.start, Lsn(next));
            next = lsns.end.0;
        }
        assert_eq!(next, RECORDS + 1);
        log.close().await.expect("a clean end");
    });
    disk
}

fn files() -> Vec<String> {
    (1..=SEGMENTS).map(segment_name).chain([WITNESS_NAME.to_owned()]).collect()
}

/// The first record that damage at this byte puts in doubt.
fn doubt(name: &str, byte: usize) -> Lsn {
    if name == WITNESS_NAME {
        return Lsn(1);
    }
    let mut next = 1;
    for place in &PLACES {
        let here = segment_name(place.sequence);
        let end = (place.block + place.blocks) * BLOCK_BYTES;
        if here.as_str() > name || (here == name && byte < end) {
            return Lsn(next);
        }
        next += place.records;
    }
    Lsn(next)
}

/// `None` when all records were found; what the refusal names otherwise.
fn recovered(disk: &SimDisk, what: &dyn Fn() -> String) -> Option<(String, u64, Lsn)> {
    let mut next = 1;
    let result = recover_folder(&Folder::Sim(disk.clone()), CLUSTER, Lsn(0), &mut |lsn, _, bytes| {
        assert_eq!((lsn, bytes), (Lsn(next), &record(next)[..]), "a record that nobody appended");
        next += 1;
        Ok(())
    });
    match result {
        Ok(recovered) => {
            assert_eq!((recovered.last_lsn(), next), (Lsn(RECORDS), RECORDS + 1), "{}: silent loss", what());
            None
        }
        Err(RecoverError::Corrupt { file, offset, lsn, .. }) => {
            let name = file.file_name().and_then(|name| name.to_str()).expect("a name").to_owned();
            Some((name, offset, lsn))
        }
        Err(error) => panic!("{}: {error}", what()),
    }
}

/// Flips every `step`th bit from `first` on. The caller gives every thread its own.
fn flip(disk: &SimDisk, first: usize, step: usize) -> usize {
    let (mut bit, mut refused) = (first, 0);
    for name in files() {
        let bits = disk.content(&name).len() * 8;
        while bit < bits {
            let byte = bit / 8;
            let what = || format!("{name} byte {byte} bit {}", bit % 8);
            disk.tamper(&name, |bytes| bytes[byte] ^= 1 << (bit % 8));
            let place = recovered(disk, &what);
            disk.tamper(&name, |bytes| bytes[byte] ^= 1 << (bit % 8));
            // Not even a bit of what was never used goes unnoticed.
            let (file, offset, lsn) = place.unwrap_or_else(|| panic!("{}: taken for whole", what()));
            assert_eq!((file.as_str(), lsn), (name.as_str(), doubt(&name, byte)), "{}", what());
            // The sector; the start for a header that is judged as a whole, and for a segment that has none.
            let sector = (byte / SECTOR_BYTES * SECTOR_BYTES) as u64;
            assert!(
                offset == sector || (offset == 0 && (byte < BLOCK_BYTES || name == segment_name(SEGMENTS))),
                "{}: names {offset}",
                what()
            );
            refused += 1;
            bit += step;
        }
        bit -= bits;
    }
    refused
}

#[test]
fn every_single_flipped_bit_is_refused_with_file_offset_and_lsn() {
    let disk = built();
    assert_eq!(recovered(&disk, &|| "undamaged".to_owned()), None);
    let bits: usize = files().iter().map(|name| disk.content(name).len() * 8).sum();
    let threads = std::thread::available_parallelism().map_or(2, usize::from).min(8);
    let refused: usize = std::thread::scope(|scope| {
        let start = |first| {
            let own = disk.snapshot();
            scope.spawn(move || flip(&own, first, threads))
        };
        let started: Vec<_> = (0..threads).map(start).collect();
        started.into_iter().map(|thread| thread.join().expect("every bit")).sum()
    });
    assert_eq!(refused, bits, "none was left out");
}

#[test]
fn every_cut_at_every_512_bytes_is_refused_or_changes_nothing() {
    let disk = built();
    for name in files() {
        let whole = disk.content(&name);
        for at in (0..whole.len()).step_by(SECTOR_BYTES) {
            let cut = disk.snapshot();
            cut.tamper(&name, |bytes| bytes.truncate(at));
            match recovered(&cut, &|| format!("{name} cut to {at}")) {
                Some((file, ..)) => assert_eq!(file, name),
                // Only zeros are gone, of a segment that may have any length.
                None => assert_eq!(name, segment_name(SEGMENTS), "cut to {at}: taken for whole"),
            }
            let zeroed = disk.snapshot();
            zeroed.tamper(&name, |bytes| bytes[at..].fill(0));
            let nothing = whole[at..].iter().all(|byte| *byte == 0);
            match recovered(&zeroed, &|| format!("{name} zero from {at}")) {
                Some((_, offset, lsn)) => {
                    assert!(!nothing && offset <= SEGMENT_BYTES && lsn <= doubt(&name, at), "{name} {at}");
                }
                None => assert!(nothing, "{name} zero from {at}: taken for whole"),
            }
        }
    }
}

/// Cuts that go on through all later segments: what a disk that lost its newest writes looks like.
#[test]
fn the_loss_of_everything_from_a_place_on_is_refused() {
    let disk = built();
    for (i, name) in files()[..SEGMENTS as usize].iter().enumerate() {
        let whole = disk.content(name);
        for at in (0..whole.len()).step_by(SECTOR_BYTES) {
            let lost = disk.snapshot();
            lost.tamper(name, |bytes| bytes[at..].fill(0));
            for later in &files()[i + 1..SEGMENTS as usize] {
                lost.tamper(later, |bytes| bytes.fill(0));
            }
            let nothing = doubt(name, at) == Lsn(RECORDS + 1);
            let refused = recovered(&lost, &|| format!("all lost from {name} {at} on")).is_some();
            assert!(refused != nothing, "all lost from {name} {at} on");
        }
    }
}
