//! The log and the checkpoints together, through power cuts at any moment: what was acknowledged is in the newest
//! checkpoint that can be read, or in the log behind it.
//!
//! The state is the list of all records. Again and again: some appends, a checkpoint of the state so far, all but two
//! checkpoints removed, the log released up to the *older* of the two. The power goes off within one operation of one of
//! the two folders, which do not share a journal; both are torn, and everything is recovered.

use std::path::PathBuf;

use bytes::Bytes;
use distrifs_proto::types::{Epoch, Lsn};

use super::super::reader::CheckpointReader;
use super::{CLUSTER, sim};
use crate::folder::{Body, Fault, Folder, SimDisk};
use crate::log::{Log, LogOptions};

const LIVES: u64 = 3;
const ROUNDS: u64 = 4;
const APPENDS: u64 = 5;

/// A wrong order, or a lie of the disk, that must be noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mutant {
    None,
    /// The log is released before the checkpoint is finished.
    ReleaseFirst,
    /// The folder of the checkpoints is not synced.
    NoFolderSync,
    /// The file of a checkpoint is not synced.
    NoFileSync,
    /// Segments are removed before the witness says so.
    NoWitness,
}

fn mix(seed: u64, salt: u64) -> u64 {
    let mut z = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ salt.wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 29)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 32)
}

/// The record with this LSN: its bytes follow from it, so that nothing else needs to be remembered.
fn record(lsn: u64) -> Bytes {
    Bytes::from(format!("record {lsn} {}", "x".repeat(lsn as usize * 37 % 700)))
}

/// The state as an image: each record with its length in front.
fn encode(state: &[Bytes]) -> Vec<u8> {
    let length = |record: &Bytes| u32::try_from(record.len()).expect("short").to_le_bytes();
    state.iter().flat_map(|record| [&length(record)[..], record].concat()).collect()
}

fn decode(mut image: &[u8]) -> Vec<Bytes> {
    let mut state = Vec::new();
    while let Some((length, rest)) = image.split_first_chunk::<4>() {
        let (record, rest) = rest.split_at(u32::from_le_bytes(*length) as usize);
        state.push(Bytes::copy_from_slice(record));
        image = rest;
    }
    state
}

/// The newest checkpoint that verifies, and the log behind it.
fn recover(wal: &SimDisk, images: &SimDisk) -> Result<(Vec<Bytes>, crate::log::Recovered), String> {
    let folder = sim(images);
    let mut state = Vec::new();
    for listed in folder.list().map_err(|error| error.to_string())? {
        let name = listed.path.file_name().and_then(|name| name.to_str()).expect("a name").to_owned();
        let reader = CheckpointReader::open_in(&Folder::Sim(images.clone()), &name, Some(CLUSTER));
        if let Ok(image) = reader.and_then(super::read_all) {
            state = decode(&image);
            assert_eq!(state.len() as u64, listed.lsn.0);
            break;
        }
    }
    let after = Lsn(state.len() as u64);
    let recovered =
        crate::log::recover_folder(&Folder::Sim(wal.clone()), CLUSTER, after, &mut |lsn, _, record| {
            assert_eq!(lsn.0, state.len() as u64 + 1);
            state.push(Bytes::copy_from_slice(record));
            Ok(())
        });
    recovered.map(|recovered| (state, recovered)).map_err(|error| error.to_string())
}

/// One life: returns the last LSN that was acknowledged. Every failure is the power cut.
async fn live(log: &Log, images: &SimDisk, mut state: Vec<Bytes>, mutant: Mutant, wal: &SimDisk) -> u64 {
    let folder = sim(images);
    for _ in 0..ROUNDS {
        for _ in 0..APPENDS {
            let next = record(state.len() as u64 + 1);
            if log.append(vec![next.clone()]).await.is_err() {
                return state.len() as u64;
            }
            state.push(next);
        }
        let acknowledged = state.len() as u64;
        if mutant == Mutant::ReleaseFirst && log.release(Lsn(acknowledged)).await.is_err() {
            return acknowledged;
        }
        let checkpoint = || -> Result<Option<Lsn>, super::CheckpointError> {
            let mut writer = folder.create(CLUSTER, Lsn(acknowledged), Epoch(1))?;
            writer.write(&encode(&state))?;
            writer.finish()?;
            folder.retain(2, Epoch(1))?;
            Ok(folder.list()?.get(1).map(|older| older.lsn))
        };
        match checkpoint() {
            Ok(None) => {}
            Ok(Some(older)) => {
                if mutant == Mutant::NoWitness {
                    // What a release does, without its first step.
                    remove_covered(wal, older);
                } else if log.release(older).await.is_err() {
                    return acknowledged;
                }
            }
            Err(_) => return acknowledged,
        }
    }
    state.len() as u64
}

/// Removes the segments that hold nothing after `upto`, by what their headers say.
fn remove_covered(wal: &SimDisk, upto: Lsn) {
    let folder = Folder::Sim(wal.clone());
    let Ok(mut names) = folder.list() else { return };
    names.retain(|(name, _)| name.ends_with(".log"));
    names.sort();
    let first = |name: &str| {
        let block = wal.content(name);
        u64::from_le_bytes(block[40..48].try_into().expect("eight bytes"))
    };
    for pair in names.windows(2) {
        let next = first(&pair[1].0);
        if next == 0 || next > upto.0 + 1 || folder.remove(&pair[0].0).is_err() {
            return;
        }
    }
    let _ = folder.sync_folder();
}

/// Several lives; in the last of them the power goes off after `cut` operations, in the others by chance.
fn run(seed: u64, cut: u64, mutant: Mutant) -> Result<(), String> {
    let segment_bytes = [8192, 12288][mix(seed, 1) as usize % 2];
    let mut wal = SimDisk::new(seed);
    let mut images = SimDisk::new(mix(seed, 2)).with_power_of(&wal);
    let mut acknowledged = 0;
    for life in 0..LIVES {
        images.set(Fault::LyingFolderSync, mutant == Mutant::NoFolderSync);
        images.set(Fault::LyingSync, mutant == Mutant::NoFileSync);
        wal.cut_after(if life + 1 == LIVES { cut } else { mix(seed, 10 + life) % 200 });
        if let Ok((state, recovered)) = recover(&wal, &images) {
            let options =
                LogOptions { segment_bytes, ..LogOptions::new(PathBuf::new(), CLUSTER, Epoch(life + 1)) };
            let folder = Folder::Sim(wal.clone());
            if let Ok(log) = Log::start_in(folder, Body::Sim, &options, recovered, rand::random) {
                let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
                acknowledged = acknowledged.max(runtime.block_on(live(&log, &images, state, mutant, &wal)));
                // Waits until its threads have let go of the disk; after a power cut it cannot end well.
                let _ = runtime.block_on(log.close());
            }
        }
        wal = wal.after_power_cut();
        images = images.after_power_cut().with_power_of(&wal);
        // A look at a copy, since the next life's recovery may be cut itself.
        let (state, _) = recover(&wal.snapshot(), &images.snapshot())?;
        if (state.len() as u64) < acknowledged {
            return Err(format!("{} records of {acknowledged}", state.len()));
        }
        if let Some(wrong) = (1..).zip(&state).find(|(lsn, found)| **found != record(*lsn)) {
            return Err(format!("record {} is another", wrong.0));
        }
        acknowledged = state.len() as u64;
    }
    Ok(())
}

#[test]
fn acknowledged_records_survive_a_power_cut_after_every_operation() {
    let checked: Vec<_> = std::thread::scope(|scope| {
        let work = |half| {
            move || {
                (0..260).filter(|cut| cut % 2 == half).try_for_each(|cut| {
                    (0..4).try_for_each(|seed| {
                        run(seed * 1000 + cut, cut, Mutant::None)
                            .map_err(|what| format!("seed {seed} cut {cut}: {what}"))
                    })
                })
            }
        };
        let threads: Vec<_> = (0..2).map(|half| scope.spawn(work(half))).collect();
        threads.into_iter().map(|thread| thread.join().expect("a thread")).collect()
    });
    for result in checked {
        result.expect("every acknowledged record");
    }
}

/// The test above must be able to fail.
#[test]
fn every_wrong_order_is_caught() {
    for mutant in [Mutant::ReleaseFirst, Mutant::NoFolderSync, Mutant::NoFileSync, Mutant::NoWitness] {
        let caught = (0..120u64).any(|seed| run(seed, mix(seed, 99) % 150, mutant).is_err());
        assert!(caught, "{mutant:?} was not noticed");
    }
}
