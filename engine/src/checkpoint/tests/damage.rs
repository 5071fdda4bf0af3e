//! Damage of every kind is refused, and what is read before the refusal is a beginning of what was written.

use super::super::error::{CheckpointError, Damage};
use super::super::format::{BLOCK_PAYLOAD_MAX, PIECE_BYTES, temporary_name};
use super::{image, read_sim, sim, write};
use crate::folder::SimDisk;

const NAME: &str = "checkpoint-0000000000000007.ckpt";

fn built(len: usize) -> (SimDisk, Vec<u8>) {
    let (disk, content) = (SimDisk::new(1), image(len, 7));
    write(&sim(&disk), 7, &content).expect("written");
    (disk, content)
}

fn refused(disk: &SimDisk, what: &str) -> (u64, Damage) {
    match read_sim(disk, NAME) {
        Err(CheckpointError::Corrupt { file, offset, what }) => {
            assert!(file.ends_with(NAME));
            (offset, what)
        }
        other => panic!("{what}: {:?}", other.map(|content| content.len())),
    }
}

#[test]
fn every_flipped_bit_of_a_small_one_is_refused_at_its_place() {
    let (disk, content) = built(5000);
    let len = disk.content(NAME).len();
    assert_eq!(len, 4 * 4096);
    for bit in 0..len * 8 {
        disk.tamper(NAME, |bytes| bytes[bit / 8] ^= 1 << (bit % 8));
        let (offset, _) = refused(&disk, &format!("bit {bit}"));
        let place = [0, 4096, 4096, 3 * 4096][bit / 8 / 4096];
        assert_eq!(offset, place, "bit {bit}");
        disk.tamper(NAME, |bytes| bytes[bit / 8] ^= 1 << (bit % 8));
    }
    assert_eq!(read_sim(&disk, NAME).expect("mended"), content);
}

#[test]
fn every_cut_and_every_addition_is_refused() {
    let (disk, _) = built(20_000);
    let whole = disk.content(NAME);
    for len in 0..whole.len() {
        // Every length near the borders, and one in seven elsewhere.
        if len % 4096 > 2 && len % 7 != 0 {
            continue;
        }
        disk.tamper(NAME, |bytes| *bytes = whole[..len].to_vec());
        refused(&disk, &format!("cut to {len}"));
        if len.is_multiple_of(512) {
            disk.tamper(NAME, |bytes| {
                *bytes = whole.clone();
                bytes[len..].fill(0);
            });
            refused(&disk, &format!("zero from {len}"));
        }
    }
    for more in [1, 512, 4096, 8192, PIECE_BYTES] {
        for filling in [0, 0xa5] {
            disk.tamper(NAME, |bytes| {
                *bytes = whole.clone();
                bytes.resize(whole.len() + more, filling);
            });
            refused(&disk, &format!("{more} more"));
        }
    }
    // The footer once more, or the last blocks once more.
    for again in [4096, 8192] {
        disk.tamper(NAME, |bytes| *bytes = [&whole[..], &whole[whole.len() - again..]].concat());
        refused(&disk, "added again");
    }
}

#[test]
fn blocks_in_the_place_of_others_are_refused() {
    let (disk, _) = built(3 * BLOCK_PAYLOAD_MAX);
    let whole = disk.content(NAME);
    let at = |i: usize| 4096 + i * PIECE_BYTES..4096 + (i + 1) * PIECE_BYTES;
    let swapped = disk.snapshot();
    swapped.tamper(NAME, |bytes| {
        bytes[at(0)].copy_from_slice(&whole[at(1)]);
        bytes[at(1)].copy_from_slice(&whole[at(0)]);
    });
    assert_eq!(refused(&swapped, "swapped"), (4096, Damage::Order { expected: 0, found: 1 }));
    let missing = disk.snapshot();
    missing.tamper(NAME, |bytes| drop(bytes.drain(at(2))));
    let (offset, what) = refused(&missing, "without the last block");
    assert_eq!((offset, what), (at(2).start as u64, Damage::Sum));
    let twice = disk.snapshot();
    twice.tamper(NAME, |bytes| bytes[at(2)].copy_from_slice(&whole[at(1)]));
    assert_eq!(refused(&twice, "twice").1, Damage::Order { expected: 2, found: 1 });
    // The same place in another checkpoint.
    let other = SimDisk::new(2);
    write(&sim(&other), 8, &image(3 * BLOCK_PAYLOAD_MAX, 7)).expect("written");
    let foreign = other.content("checkpoint-0000000000000008.ckpt");
    disk.tamper(NAME, |bytes| bytes[at(1)].copy_from_slice(&foreign[at(1)]));
    assert_eq!(refused(&disk, "foreign"), (at(1).start as u64, Damage::Block { number: 1 }));
    disk.tamper(NAME, |bytes| *bytes = foreign);
    assert!(matches!(refused(&disk, "under another's name"), (32, Damage::Name { .. })));
}

#[test]
fn an_image_that_is_not_what_was_written_never_gets_its_name() {
    let disk = SimDisk::new(1);
    write(&sim(&disk), 7, b"the good one").expect("written");
    let mut writer = sim(&disk).create(super::CLUSTER, super::Lsn(7), super::Epoch(9)).expect("begun");
    writer.write(&image(2 << 20, 1)).expect("written");
    let temporary = temporary_name(super::Lsn(7), super::Epoch(9));
    disk.tamper(&temporary, |bytes| bytes[5000] ^= 1);
    assert!(matches!(writer.finish(), Err(CheckpointError::Corrupt { offset: 4096, .. })));
    assert_eq!(read_sim(&disk, NAME).expect("still there"), b"the good one");
    assert_eq!(sim(&disk).list().expect("a list").len(), 1);
}
