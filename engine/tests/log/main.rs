//! The log on a real disk, by both bodies: clean ends, crashes, rotation, damage of files.

mod fork;
mod kill;
mod rotation;
mod start;

use std::path::{Path, PathBuf};

use bytes::Bytes;
use distrifs_engine::io::IoMode;
use distrifs_engine::log::{Log, LogOptions, RecoverError, Recovered, recover};
use distrifs_proto::types::{ClusterId, Epoch, Lsn};

const CLUSTER: ClusterId = ClusterId(0xd15c);
const SEGMENT_BYTES: u64 = 64 << 10;

/// `Auto` is io_uring wherever it is to be had.
const MODES: [IoMode; 2] = [IoMode::Posix, IoMode::Auto];

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().build().expect("a runtime")
}

fn options(dir: &Path, mode: IoMode) -> LogOptions {
    LogOptions { mode, segment_bytes: SEGMENT_BYTES, ..LogOptions::new(dir.to_owned(), CLUSTER, Epoch(1)) }
}

fn try_open(dir: &Path) -> Result<(Vec<Vec<u8>>, Recovered), RecoverError> {
    let mut records = Vec::new();
    let recovered = recover(dir, CLUSTER, Lsn(0), &mut |lsn, _, record| {
        assert_eq!(lsn, Lsn(records.len() as u64 + 1));
        records.push(record.to_vec());
        Ok(())
    })?;
    Ok((records, recovered))
}

/// Recovers; waits for a log that was dropped to let go of the folder.
fn open(dir: &Path) -> (Vec<Vec<u8>>, Recovered) {
    loop {
        match try_open(dir) {
            Ok(found) => return found,
            Err(RecoverError::InUse { .. }) => std::thread::yield_now(),
            Err(error) => panic!("{error}"),
        }
    }
}

fn start(dir: &Path, mode: IoMode) -> Log {
    Log::start(options(dir, mode), open(dir).1).expect("a log")
}

fn record(number: usize) -> Bytes {
    Bytes::from(format!("record {number} {}", "x".repeat(number * 37 % 900)))
}

fn segments(dir: &Path) -> Vec<PathBuf> {
    let names = std::fs::read_dir(dir).expect("the folder").map(|entry| entry.expect("an entry").path());
    let mut names: Vec<_> = names.filter(|path| path.extension().is_some_and(|end| end == "log")).collect();
    names.sort();
    names
}
