//! Power cuts at any moment: what was acknowledged is there, in order, and of the rest only a beginning.
//!
//! The seed decides what is appended, when the power goes and what survives. How the appenders, the log's thread
//! and the preparation of segments interleave is left to the scheduler, so a seed that failed may have to be run
//! more than once.

use std::collections::BTreeMap;

use bytes::Bytes;
use distrifs_proto::types::Lsn;
use tokio::task::JoinSet;

use super::super::error::LogError;
use super::super::handle::Log;
use super::{block_on, recover_sim, start_sim};
use crate::folder::{Fault, SimDisk};

const TASKS: usize = 4;
const LIVES: u64 = 4;
const APPENDS_MAX: usize = 12;

/// What the callers know.
#[derive(Default)]
struct Known {
    /// Records that were acknowledged, or were handed out by a recovery.
    durable: BTreeMap<Lsn, Vec<u8>>,
    /// Appends whose outcome is unknown.
    unknown: Vec<Vec<Bytes>>,
}

/// Each append's records say whose they are, so that no two are equal.
fn records(life: u64, task: usize, append: usize, chance: u64) -> Vec<Bytes> {
    let len = [0, 20, 700, 1200][chance as usize % 4];
    (0..1 + chance as usize / 4 % 3)
        .map(|i| {
            let mut text = format!("{life}/{task}/{append}/{i}").into_bytes();
            text.resize(text.len() + len, b'.');
            Bytes::from(text)
        })
        .collect()
}

fn mix(seed: u64, salt: u64) -> u64 {
    let mut z = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ salt.wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 29)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 32)
}

/// Appends from several tasks until the power goes off, or they have done their share.
async fn live(log: &Log, seed: u64, life: u64, known: &mut Known) {
    let mut tasks = JoinSet::new();
    for task in 0..TASKS {
        let log = log.clone();
        tasks.spawn(async move {
            let mut acknowledged = Vec::new();
            for append in 0..APPENDS_MAX {
                let records =
                    records(life, task, append, mix(seed, (life << 32) + (task << 16 | append) as u64));
                match log.append(records.clone()).await {
                    Ok(lsns) => acknowledged.push((lsns, records)),
                    Err(LogError::Poisoned { .. }) => return (acknowledged, Some(records)),
                    Err(error) => panic!("{error}"),
                }
            }
            (acknowledged, None)
        });
    }
    while let Some(done) = tasks.join_next().await {
        let (acknowledged, unknown) = done.expect("a task");
        for (lsns, records) in acknowledged {
            assert_eq!(lsns.end.0 - lsns.start.0, records.len() as u64);
            for (lsn, record) in (lsns.start.0..).map(Lsn).zip(records) {
                let before = known.durable.insert(lsn, record.to_vec());
                assert_eq!(before, None, "{lsn} was given out twice");
            }
        }
        known.unknown.extend(unknown);
    }
}

/// Compares what a recovery found with what the callers know.
fn check(known: &mut Known, found: Vec<(Lsn, Vec<u8>)>) -> Result<(), String> {
    for (i, (lsn, _)) in found.iter().enumerate() {
        if lsn.0 != i as u64 + 1 {
            return Err(format!("LSN {lsn} in place {i}"));
        }
    }
    let found: BTreeMap<_, _> = found.into_iter().collect();
    for (lsn, record) in &known.durable {
        if found.get(lsn) != Some(record) {
            return Err(format!("acknowledged record {lsn} is {:?}", found.get(lsn).map(Vec::len)));
        }
    }
    // The others belong to appends of unknown outcome, each of them whole.
    let mut rest: Vec<&Vec<u8>> =
        found.iter().filter(|(lsn, _)| !known.durable.contains_key(lsn)).map(|(_, record)| record).collect();
    while let Some(first) = rest.first() {
        let append = known.unknown.iter().find(|append| append[0] == **first);
        let append = append.ok_or_else(|| "a record that nobody appended".to_owned())?;
        if rest.len() < append.len() || append.iter().zip(&rest).any(|(a, b)| a != *b) {
            return Err("a part of an append".to_owned());
        }
        rest.drain(..append.len());
    }
    // What was handed out is durable from now on.
    known.durable = found;
    known.unknown.clear();
    Ok(())
}

/// Several lives of one log, each ended by a power cut, and each followed by a check.
fn run(seed: u64, fault: Option<Fault>) -> Result<(), String> {
    let segment_bytes = [8192, 16384, 65536][mix(seed, 1) as usize % 3];
    let mut disk = SimDisk::new(seed);
    let mut known = Known::default();
    for life in 0..LIVES {
        if let Some(fault) = fault {
            disk.set(fault, true);
        }
        disk.cut_after(mix(seed, 100 + life) % 60);
        if let (_, Ok(recovered)) = recover_sim(&disk)
            && let Ok(log) = start_sim(&disk, recovered, life + 1, segment_bytes)
        {
            block_on(live(&log, seed, life, &mut known));
        }
        disk = disk.after_power_cut();
        // A look at a copy, since the next life's recovery may be cut itself.
        let (found, recovered) = recover_sim(&disk.snapshot());
        let recovered = recovered.map_err(|error| error.to_string())?;
        if recovered.last_lsn().0 != found.len() as u64 {
            return Err(format!("{} records, last LSN {}", found.len(), recovered.last_lsn()));
        }
        drop(recovered);
        check(&mut known, found.into_iter().map(|(lsn, _, record)| (lsn, record)).collect())?;
    }
    Ok(())
}

#[test]
fn acknowledged_records_survive_power_cuts_at_any_moment() {
    for seed in 0..250 {
        if let Err(what) = run(seed, None) {
            panic!("seed {seed}: {what}");
        }
    }
}

/// The test above must be able to fail.
#[test]
fn a_disk_that_acknowledges_before_it_has_synced_is_caught() {
    for fault in [Fault::LyingWrites, Fault::LyingFolderSync] {
        let caught = (0..40).filter(|seed| run(*seed, Some(fault)).is_err()).count();
        assert!(caught > 0, "{fault:?} was not noticed");
    }
}
