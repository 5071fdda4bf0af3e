//! The bare pump: what it rounds to, and how it ends.

use std::sync::atomic::AtomicBool;

use super::pump::{Feed, Journal, PIECE, Rounds, fan, ranges};

#[test]
fn a_chain_takes_whole_blocks_and_above_a_piece_whole_pieces() {
    let whole = |bytes| Rounds { streams: 2, rounds: 3, bytes }.whole().bytes;
    assert_eq!([0, 1, 4096, 4097].map(whole), [4096, 4096, 4096, 8192]);
    assert_eq!([PIECE as u64, PIECE as u64 + 1].map(whole), [PIECE as u64, 2 * PIECE as u64]);
    assert_eq!(Rounds { streams: 2, rounds: 3, bytes: 5 }.all_bytes(), 30);
    // Of large rounds the files are as large as chunks.
    let held = |bytes| Rounds { streams: 2, rounds: 3, bytes }.hop_bytes() / 6;
    assert_eq!(
        [5, PIECE as u64 + 1, 64 << 20, (64 << 20) + 1].map(held),
        [4096, 64 << 20, 64 << 20, 128 << 20]
    );
}

#[test]
fn cached_ranges_arrive_and_a_stop_ends_them() {
    let file = tempfile::tempfile().expect("a file");
    file.set_len(3 * PIECE as u64).expect("room");
    let what = Rounds { streams: 2, rounds: 3, bytes: PIECE as u64 + 7 };
    let pumped = ranges(&file, what, &|stream, round| stream * 4096 + round, &AtomicBool::new(false));
    let pumped = pumped.expect("all arrive");
    assert_eq!((pumped.bytes, pumped.times.len()), (what.all_bytes(), 6));
    assert!(ranges(&file, what, &|_, _| 0, &AtomicBool::new(true)).is_err());
}

#[test]
fn a_journal_has_its_blocks_and_begins_anew_behind_its_end() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("journal");
    // Three places, and a block that makes none; then a piece for which there is no room.
    for (room, piece, places) in [(7 * 4096, 8192, 3), (4096, 8192, 1)] {
        let journal = Journal::create(&path, room, piece).expect("room");
        let size = places * piece;
        assert_eq!(std::fs::read(&path).expect("it is there"), vec![0; size as usize]);
        let mut bytes = distrifs_engine::io::Buf::alloc(piece as usize);
        for round in 1..=places + 1 {
            bytes.fill(round as u8);
            journal.append(&bytes).expect("written and synced");
        }
        let all = std::fs::read(&path).expect("it is there");
        let firsts: Vec<u64> = all.chunks(piece as usize).map(|place| u64::from(place[0])).collect();
        let expected: Vec<u64> = std::iter::once(places + 1).chain(2..=places).collect();
        assert_eq!((all.len() as u64, firsts), (size, expected));
    }
}

#[test]
fn a_fan_takes_small_pieces_only() {
    let folder = tempfile::tempdir().expect("a folder");
    let program = || panic!("no hop is started");
    let what = Rounds { streams: 1, rounds: 1, bytes: PIECE as u64 + 1 };
    let refused = fan(&program, folder.path(), 1, what, &AtomicBool::new(false)).err().expect("too large");
    assert_eq!(refused.kind(), std::io::ErrorKind::InvalidInput);
}

#[test]
fn a_chain_is_fed_with_the_file_and_with_what_was_there_behind_its_end() {
    let mut file = tempfile::tempfile().expect("a file");
    std::io::Write::write_all(&mut file, &[7; 100]).expect("room");
    let feed = Feed { source: Some(&file), ..Feed::BARE };
    let mut piece = [1; 10];
    feed.bring(&mut piece, 90).expect("a whole piece");
    assert_eq!(piece, [7; 10]);
    piece = [1; 10];
    feed.bring(&mut piece, 95).expect("a part of one");
    assert!(piece.starts_with(&[7; 5]) && piece.len() == 10);
    Feed::BARE.bring(&mut piece, 0).expect("nothing is read");
}
