//! The bare pump: what it rounds to, and how it ends.

use std::sync::atomic::AtomicBool;

use super::pump::{Feed, PIECE, Rounds, ranges};

#[test]
fn a_chain_takes_whole_blocks_and_above_a_piece_whole_pieces() {
    let whole = |bytes| Rounds { streams: 2, rounds: 3, bytes }.whole().bytes;
    assert_eq!([0, 1, 4096, 4097].map(whole), [4096, 4096, 4096, 8192]);
    assert_eq!([PIECE as u64, PIECE as u64 + 1].map(whole), [PIECE as u64, 2 * PIECE as u64]);
    assert_eq!(Rounds { streams: 2, rounds: 3, bytes: 5 }.all_bytes(), 30);
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
