//! A file that is read at many places: the master is asked once where a part of it lies, and not for each read.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use distrifs_proto::types::Epoch;

use crate::chunk_reader::ReadFile;
use crate::context::Context;
use crate::error::{ClientError, Result};
use crate::read_plan::ReadPlan;
use crate::small_read::SmallRead;
use crate::status::{ChunkLocation, FileStatus};

/// What one read brings at most: it is held in memory until all of it is checked.
pub const READ_BYTES_MAX: u64 = 64 << 20;
/// Chunks whose places are kept, 64 MiB each unless told otherwise; of a longer file they are asked for again.
const CHUNKS_KEPT_MAX: usize = 1 << 16;

/// A file as it was when it was opened. Reads may run at the same time.
#[derive(Debug)]
pub struct OpenFile {
    context: Arc<Context>,
    file: Arc<ReadFile>,
    status: FileStatus,
    /// By index.
    places: Mutex<BTreeMap<u64, Arc<Place>>>,
    /// Past the page cache of the datanodes.
    direct: bool,
}

/// A chunk, and the epoch of the leader that named its place.
type Place = (ChunkLocation, Epoch);

impl OpenFile {
    pub(crate) async fn open(context: &Arc<Context>, path: &str, direct: bool) -> Result<Self> {
        // No byte of it: what the file is, and not yet where it lies.
        let plan = ReadPlan::open(context, path, Some((0, 0))).await?;
        let (trace_id, file_id) = (rand::random(), plan.status.file_id);
        let file = Arc::new(ReadFile { path: path.to_owned(), file_id, trace_id });
        Ok(Self { context: context.clone(), file, status: plan.status, places: Mutex::default(), direct })
    }

    /// Of the file when it was opened.
    #[must_use]
    pub fn status(&self) -> &FileStatus {
        &self.status
    }

    /// Reads `length` bytes at `offset`, fewer at the end of the file and none behind it. All of them have passed their
    /// checksums.
    ///
    /// # Errors
    /// [`ClientError::Invalid`] for more than [`READ_BYTES_MAX`]; [`ClientError::Replaced`] when the file is another one
    /// by now, as far as that is noticed: its chunks are kept for a while; as [`Client::get`](crate::Client::get).
    pub async fn read_at(&self, offset: u64, length: u64) -> Result<Vec<u8>> {
        if length > READ_BYTES_MAX {
            let what = format!("{length} bytes in one read: {READ_BYTES_MAX} at most");
            return Err(ClientError::Invalid { path: self.file.path.clone(), what });
        }
        let end = offset.saturating_add(length).min(self.status.size);
        let mut bytes = Vec::new();
        let mut at = offset;
        while at < end {
            let outcome = self.read_part(at..end).await;
            if outcome.is_err() {
                self.context.flush_reports().await;
            }
            let part = outcome?;
            at += part.len() as u64;
            if bytes.is_empty() {
                bytes = part;
                bytes.reserve_exact((end - at) as usize);
            } else {
                bytes.extend(part);
            }
        }
        Ok(bytes)
    }

    /// Reads what the first chunk of a range has of it: at least a byte.
    async fn read_part(&self, range: Range<u64>) -> Result<Vec<u8>> {
        let chunk_size = self.status.chunk_size;
        let (index, start) = (range.start / chunk_size, range.start / chunk_size * chunk_size);
        let place = self.place(index).await?;
        let (chunk, epoch) = &*place;
        let wanted = range.start - start..(range.end - start).min(chunk.length);
        let (context, file, direct) = (&self.context, &self.file, self.direct);
        let read = SmallRead { context, file, chunk, epoch: *epoch, start, wanted, direct }.run().await;
        if read.is_err() {
            // It may be elsewhere by now.
            self.places.lock().unwrap_or_else(PoisonError::into_inner).remove(&index);
        }
        read
    }

    async fn place(&self, index: u64) -> Result<Arc<Place>> {
        let known = |places: &BTreeMap<u64, Arc<Place>>| places.get(&index).cloned();
        if let Some(found) = known(&self.places.lock().unwrap_or_else(PoisonError::into_inner)) {
            return Ok(found);
        }
        let from = index * self.status.chunk_size;
        let mut plan = ReadPlan::again(&self.file.path, &self.status, from..self.status.size);
        let page = plan.next_page(&self.context).await?.unwrap_or_default();
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        if places.len() + page.len() > CHUNKS_KEPT_MAX {
            places.clear();
        }
        places.extend(page.into_iter().map(|chunk| (chunk.index, Arc::new((chunk, plan.epoch)))));
        // A page begins with what was asked for: it was checked.
        known(&places).ok_or_else(|| ClientError::Replaced { path: self.file.path.clone() })
    }
}
