//! What the machine can do, measured in the same run as the cluster: the bare pump and the raw disk.

use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use distrifs_proto::SplitMix;
use rustix::fs::OFlags;
use tempfile::TempDir;

use super::content::Content;
use super::device::Device;
use super::disk::{self, RawDisk};
use super::figures::{BareSample, By};
use super::load::{Sample, record};
use super::mix::starts;
use super::pump::{self, Feed, Pumped, Rounds};
use super::target::Target;
use crate::error::CommandError;
use crate::usage::cpu_with_ended_children;

/// Writes to the device.
const DEVICE_WRITES: u64 = 200;

/// The bare chain with as many hops as there are copies, fed with a file's bytes or with always the same.
pub(super) async fn chain(
    target: &Target,
    copies: u32,
    what: Rounds,
    source: Option<&Arc<Content>>,
    by: By,
) -> Result<BareSample, CommandError> {
    let name = format!("bare chain of {copies}{}", source.map_or("", |_| ", fed from the file"));
    let source = source.cloned();
    let pumped = in_folder(target, move |folder, stop| {
        let feed = Feed { source: source.as_deref().map(Content::file), ..Feed::BARE };
        at_cost(|| pump::chain(&hop, folder, u64::from(copies), what, feed, stop))
    });
    Ok(bare(name, pumped.await?, by))
}

/// The bare fan to as many hops as there are copies and to a log: the fewest steps to a small file.
pub(super) async fn fan(target: &Target, copies: u32, what: Rounds) -> Result<BareSample, CommandError> {
    let pumped = in_folder(target, move |folder, stop| {
        at_cost(|| pump::fan(&hop, folder, u64::from(copies), what, stop))
    });
    Ok(bare(format!("bare fan of {copies} and a log"), pumped.await?, By::Ops))
}

/// This program, as a hop.
fn hop() -> io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["bench", super::PUMP_HOP]);
    Ok(command)
}

/// The bare cached read of ranges, at multiples of a number of bytes, by a seed.
pub(super) async fn cached(
    target: &Target,
    content: &Arc<Content>,
    what: Rounds,
    places: (u64, u64),
    by: By,
) -> Result<BareSample, CommandError> {
    let (content, start) = (content.clone(), starts_of(content, what, places));
    let pumped =
        in_folder(target, move |_, stop| at_cost(|| pump::ranges(content.file(), what, &start, stop)));
    Ok(bare("bare cached read".to_owned(), pumped.await?, by))
}

/// The bare read of ranges of the same bytes, in a file that is read past the page cache.
pub(super) async fn direct(
    target: &Target,
    content: &Arc<Content>,
    what: Rounds,
    places: (u64, u64),
    by: By,
) -> Result<BareSample, CommandError> {
    let (content, start) = (content.clone(), starts_of(content, what, places));
    let pumped = in_folder(target, move |folder, stop| {
        let path = folder.join("content");
        let mut file = File::create_new(&path)?;
        content.copy_to(&mut file)?;
        file.sync_all()?;
        let file = File::options().read(true).custom_flags(OFlags::DIRECT.bits() as i32).open(&path)?;
        at_cost(|| pump::ranges(&file, what, &start, stop))
    });
    Ok(bare("bare direct read".to_owned(), pumped.await?, by))
}

/// What was pumped, and the CPU seconds that it took.
fn at_cost(pump: impl FnOnce() -> io::Result<Pumped>) -> io::Result<(Pumped, f64)> {
    let cpu = cpu_with_ended_children();
    let pumped = pump()?;
    Ok((pumped, cpu_with_ended_children() - cpu))
}

/// Where the range of each stream and round begins: at multiples of the first number, by the second as a seed.
fn starts_of(
    content: &Content,
    what: Rounds,
    (align, seed): (u64, u64),
) -> impl Fn(u64, u64) -> u64 + Send + Sync + 'static {
    let places = starts(content.size(), what.bytes, align);
    move |stream, round| SplitMix::new(seed ^ stream << 40 ^ round).next() % places * align
}

/// The raw disk, written: of its bytes `copies` make one of the user's.
pub(super) async fn disk_write(target: &Target, bytes: u64, copies: u32) -> Result<BareSample, CommandError> {
    let disk = raw_disk(target, bytes).await?;
    let sample = Sample { ops: 1, seconds: disk.write_seconds, ..Sample::default() };
    let (name, bytes) = (format!("raw disk, {copies} copies"), disk.bytes / u64::from(copies.max(1)));
    Ok(BareSample { name, sample, bytes, cpu: None, by: By::Bytes })
}

/// The raw disk, read: bytes that were written just before. It is timed where it reads as many as that.
pub(super) async fn disk_read(target: &Target, bytes: u64) -> Result<BareSample, CommandError> {
    let disk = raw_disk(target, bytes).await?;
    let mut sample = Sample { ops: 1, seconds: disk.read_seconds, ..Sample::default() };
    if disk.bytes == bytes {
        record(&mut sample.times, Duration::from_secs_f64(disk.read_seconds));
    }
    Ok(BareSample { name: "raw disk".to_owned(), sample, bytes: disk.bytes, cpu: None, by: By::Bytes })
}

async fn raw_disk(target: &Target, bytes: u64) -> Result<RawDisk, CommandError> {
    in_folder(target, move |folder, stop| disk::measure(folder, bytes, stop)).await
}

/// One durable write of 4 KiB after the other.
pub(super) async fn device(target: &Target) -> Result<BareSample, CommandError> {
    let sample = in_folder(target, |folder, _| {
        let (mut device, mut sample) = (Device::new(folder, DEVICE_WRITES)?, Sample::default());
        for _ in 0..DEVICE_WRITES {
            let began = Instant::now();
            device.write()?;
            sample.add(began);
        }
        Ok(sample)
    });
    let (sample, name) = (sample.await?, "device sync, alone".to_owned());
    Ok(BareSample { name, sample, bytes: DEVICE_WRITES * 4096, cpu: None, by: By::Time })
}

fn bare(name: String, (pumped, cpu): (Pumped, f64), by: By) -> BareSample {
    let Pumped { bytes, seconds, times } = pumped;
    let sample = Sample { ops: times.len(), seconds, times, ..Sample::default() };
    BareSample { name, sample, bytes, cpu: Some(cpu), by }
}

/// Blocking work in a folder of its own, which is removed: on the file system of the embedded cluster, else below TMPDIR.
async fn in_folder<T: Send + 'static>(
    target: &Target,
    work: impl FnOnce(&std::path::Path, &AtomicBool) -> io::Result<T> + Send + 'static,
) -> Result<T, CommandError> {
    let parent: PathBuf = target.folder().map_or_else(std::env::temp_dir, PathBuf::from);
    let run = move |stop: &AtomicBool| {
        let failed = |e| CommandError::local(&parent, "measure the machine below it", e);
        let folder: TempDir =
            tempfile::Builder::new().prefix("distrifs-ceiling-").tempdir_in(&parent).map_err(failed)?;
        let done = work(folder.path(), stop).map_err(failed)?;
        folder.close().map_err(failed)?;
        // What comes next finds the room again: a file system gives it back once the removal is logged.
        File::open(&parent).and_then(|parent| parent.sync_all()).map_err(failed)?;
        Ok(done)
    };
    target.blocking.run(run).await
}
