//! What users do meanwhile, through the SDK.

use std::io::Cursor;
use std::time::{Duration, Instant};

use anyhow::Context;
use bytes::Bytes;
use distrifs_client::{Client, GetTarget, NoProgress, PutOptions, PutSource};
use hdrhistogram::Histogram;
use tokio::task::JoinSet;

pub(crate) const READ_BYTES: u64 = 4 << 10;
pub(crate) const READS_IN_FLIGHT: u64 = 4;
pub(crate) const PUT_BYTES: usize = 1 << 20;
pub(crate) const PUTS_IN_FLIGHT: u64 = 2;
/// Where the puts go.
pub(crate) const PUTS: &str = "/puts";
/// Operations before the first that is measured: connections are made, caches of names filled.
const WARM_UP: Duration = Duration::from_millis(500);

/// Everything that is read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Files {
    pub(crate) count: u64,
    pub(crate) bytes: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Load {
    None,
    Reads,
    Puts,
}

impl Files {
    pub(crate) fn path(file: u64) -> String {
        format!("/data-{file}")
    }

    /// Writes them, one chunk each.
    pub(crate) async fn put(self, client: &Client) -> anyhow::Result<()> {
        let options = PutOptions { chunk_size: Some(self.bytes), ..PutOptions::default() };
        for file in 0..self.count {
            let content = some_bytes(file, self.bytes as usize);
            put(client, content, &Self::path(file), options.clone()).await?;
        }
        Ok(())
    }
}

impl Load {
    /// Microseconds of each operation.
    pub(crate) async fn run(
        self,
        client: &Client,
        files: Files,
        seed: u64,
        length: Duration,
    ) -> anyhow::Result<Histogram<u64>> {
        let mut tasks = JoinSet::new();
        let in_flight = match self {
            Self::None => 0,
            Self::Reads => READS_IN_FLIGHT,
            Self::Puts => PUTS_IN_FLIGHT,
        };
        let begin = Instant::now() + WARM_UP;
        for task in 0..in_flight {
            let client = client.clone();
            tasks.spawn(async move {
                let mut latencies = Histogram::<u64>::new(3)?;
                let content = some_bytes(task, PUT_BYTES);
                for step in 0.. {
                    let began = Instant::now();
                    if began >= begin + length {
                        break;
                    }
                    if self == Self::Puts {
                        let path = format!("{PUTS}/{task}-{step}");
                        put(&client, content.clone(), &path, PutOptions::default()).await?;
                    } else {
                        let at = some(seed ^ task, step);
                        let blocks = files.bytes / READ_BYTES;
                        let range = Some((at / files.count % blocks * READ_BYTES, READ_BYTES));
                        let target = GetTarget::Stream(Box::new(tokio::io::sink()));
                        client.get(&Files::path(at % files.count), range, target, &NoProgress).await?;
                    }
                    if began >= begin {
                        latencies.record(began.elapsed().as_micros() as u64)?;
                    }
                }
                anyhow::Ok(latencies)
            });
        }
        let mut all = Histogram::<u64>::new(3)?;
        while let Some(latencies) = tasks.join_next().await {
            all.add(latencies??).context("histograms of one kind")?;
        }
        tokio::time::sleep((begin + length).saturating_duration_since(Instant::now())).await;
        Ok(all)
    }
}

async fn put(client: &Client, content: Bytes, path: &str, options: PutOptions) -> anyhow::Result<()> {
    let source = PutSource::Stream(Box::new(Cursor::new(content)));
    client.put(source, path, options, &NoProgress).await?;
    Ok(())
}

/// Bytes that neither compress nor repeat.
fn some_bytes(seed: u64, length: usize) -> Bytes {
    (0..length as u64 / 8).flat_map(|step| some(seed, step).to_le_bytes()).collect()
}

/// Some number for a seed and a step (splitmix64).
fn some(seed: u64, step: u64) -> u64 {
    let mut z = ((seed << 32) ^ step).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
