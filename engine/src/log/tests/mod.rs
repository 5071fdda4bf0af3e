//! The log over the simulated disk: crashes, damage, faults and grouping.

mod after;
mod crash;
mod damage;
mod every_bit;
mod faults;
mod fork;
mod grouping;
mod inspect;
mod release;

use std::future::Future;
use std::ops::Range;
use std::path::PathBuf;
use std::pin::Pin;
use std::task::{Context, Waker};

use bytes::Bytes;
use distrifs_proto::types::{ClusterId, Epoch, Lsn};

use super::error::{LogError, RecoverError};
use super::handle::Log;
use super::options::LogOptions;
use super::recovery::{Recovered, recover_folder};
use crate::folder::{Body, Folder, SimDisk};

const CLUSTER: ClusterId = ClusterId(0xc1);

/// An append that is under way.
type Pending = Pin<Box<dyn Future<Output = Result<Range<Lsn>, LogError>>>>;

/// What a recovery handed out.
type Records = Vec<(Lsn, Epoch, Vec<u8>)>;

fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(future)
}

fn recover_sim(disk: &SimDisk) -> (Records, Result<Recovered, RecoverError>) {
    recover_after(disk, 0)
}

fn recover_after(disk: &SimDisk, after: u64) -> (Records, Result<Recovered, RecoverError>) {
    let mut records = Vec::new();
    let recovered =
        recover_folder(&Folder::Sim(disk.clone()), CLUSTER, Lsn(after), &mut |lsn, epoch, record| {
            records.push((lsn, epoch, record.to_vec()));
            Ok(())
        });
    (records, recovered)
}

fn start_sim(disk: &SimDisk, recovered: Recovered, epoch: u64, segment_bytes: u64) -> Result<Log, LogError> {
    let options = LogOptions { segment_bytes, ..LogOptions::new(PathBuf::new(), CLUSTER, Epoch(epoch)) };
    Log::start_in(Folder::Sim(disk.clone()), Body::Sim, &options, recovered, rand::random)
}

/// A new log on a new disk.
fn fresh(seed: u64, segment_bytes: u64) -> (SimDisk, Log) {
    let disk = SimDisk::new(seed);
    let (_, recovered) = recover_sim(&disk);
    let log = start_sim(&disk, recovered.expect("an empty log"), 1, segment_bytes).expect("a log");
    (disk, log)
}

fn record(number: usize, len: usize) -> Bytes {
    let mut bytes = vec![number as u8 | 1; len.max(8)];
    bytes[..8].copy_from_slice(&(number as u64).to_le_bytes());
    Bytes::from(bytes)
}

/// Hands an append in, as far as the queue takes it, without waiting for its outcome.
fn submit(log: &Log, records: Vec<Bytes>) -> Pending {
    let log = log.clone();
    let mut append: Pending = Box::pin(async move { log.append(records).await });
    let pending = append.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending();
    assert!(pending, "nothing is durable while the gate is closed");
    append
}
