//! Where the bytes of a range are: the master's pages, checked to cover the range without a gap.

use std::ops::Range;

use distrifs_proto::ErrorCode;
use distrifs_proto::grpc::v1;
use distrifs_proto::limits::PLAN_CHUNKS_MAX;
use distrifs_proto::types::{Epoch, FileId};

use crate::context::Context;
use crate::error::{ClientError, Result};
use crate::status::{ChunkLocation, FileKind, FileStatus};

/// The pages of one range of one file, in order.
#[derive(Debug)]
pub(crate) struct ReadPlan {
    path: String,
    /// Of the file as it was when the plan began.
    pub(crate) status: FileStatus,
    /// The leader that gave the latest page.
    pub(crate) epoch: Epoch,
    /// The bytes, cut at the end of the file.
    pub(crate) range: Range<u64>,
    /// Up to where pages have been asked for.
    asked: u64,
    page: Option<Vec<ChunkLocation>>,
}

impl ReadPlan {
    /// Of a file, or of `(offset, length)` of it.
    pub(crate) async fn open(context: &Context, path: &str, range: Option<(u64, u64)>) -> Result<Self> {
        let (offset, length) = range.unwrap_or((0, 0));
        // A length of 0 would mean all of it.
        let nothing = range.is_some() && length == 0;
        let asked_length = if nothing { 1 } else { length.min(u64::MAX - offset) };
        let reply = ask(context, path, offset, asked_length, FileId(0)).await?;
        let status = reply.status.ok_or_else(|| malformed(path, "no status in the answer".into()))?;
        let status = FileStatus::try_from(status).map_err(|what| malformed(path, what))?;
        if status.kind != FileKind::File {
            let (path, text) = (path.to_owned(), ErrorCode::IsADirectory.to_string());
            return Err(ClientError::Refused { path, code: ErrorCode::IsADirectory, text });
        }
        if offset > status.size {
            let what = format!("offset {offset} is behind the end of the file at {}", status.size);
            return Err(ClientError::Invalid { path: path.to_owned(), what });
        }
        let end = if range.is_some() { offset.saturating_add(length).min(status.size) } else { status.size };
        let epoch = Epoch(reply.epoch);
        let mut plan =
            Self { path: path.to_owned(), status, epoch, range: offset..end, asked: offset, page: None };
        if offset < end {
            plan.page = Some(plan.check(reply.chunks)?);
        }
        Ok(plan)
    }

    /// Of a range of a file that was looked at before.
    pub(crate) fn again(path: &str, status: &FileStatus, range: Range<u64>) -> Self {
        let (asked, epoch) = (range.start, Epoch(0));
        Self { path: path.to_owned(), status: status.clone(), epoch, range, asked, page: None }
    }

    /// The next chunks of the range; `None` behind the last.
    pub(crate) async fn next_page(&mut self, context: &Context) -> Result<Option<Vec<ChunkLocation>>> {
        if let Some(page) = self.page.take() {
            return Ok(Some(page));
        }
        if self.asked >= self.range.end {
            return Ok(None);
        }
        let length = self.range.end - self.asked;
        let reply = ask(context, &self.path, self.asked, length, self.status.file_id).await?;
        self.epoch = Epoch(reply.epoch);
        self.check(reply.chunks).map(Some)
    }

    /// The bytes of a chunk that the range wants.
    pub(crate) fn wanted(&self, chunk: &ChunkLocation) -> Range<u64> {
        let start = chunk.index * self.status.chunk_size;
        self.range.start.max(start) - start..self.range.end.min(start + chunk.length) - start
    }

    /// That a page goes on where the one before ended, with chunks of the sizes that the status implies.
    fn check(&mut self, page: Vec<v1::ChunkLocation>) -> Result<Vec<ChunkLocation>> {
        let bad = |what: String| malformed(&self.path, what);
        let (size, chunk_size) = (self.status.size, self.status.chunk_size);
        if page.is_empty() || page.len() > PLAN_CHUNKS_MAX || chunk_size == 0 {
            return Err(bad(format!("a page of {} chunks of {chunk_size} bytes", page.len())));
        }
        let mut at = self.asked;
        let mut chunks = Vec::with_capacity(page.len());
        for message in page {
            let chunk = ChunkLocation::try_from(message).map_err(bad)?;
            let index = at / chunk_size;
            let start = index * chunk_size;
            if at >= size || chunk.index != index || chunk.length != chunk_size.min(size - start) {
                return Err(bad(format!(
                    "chunk {} of {} bytes at offset {at} of {size}, chunk size {chunk_size}",
                    chunk.index, chunk.length
                )));
            }
            at = start + chunk.length;
            chunks.push(chunk);
        }
        self.asked = at;
        Ok(chunks)
    }
}

/// The newer word on one chunk that a plan named.
pub(crate) async fn locate(
    context: &Context,
    path: &str,
    file_id: FileId,
    offset: u64,
    chunk: &ChunkLocation,
) -> Result<ChunkLocation> {
    let reply = ask(context, path, offset, 1, file_id).await?;
    let same_file = reply.status.is_some_and(|status| status.file_id == file_id.0);
    let found = reply.chunks.into_iter().next().map(ChunkLocation::try_from).transpose();
    match found.map_err(|what| malformed(path, what))? {
        Some(found) if same_file && found.id == chunk.id && found.generation == chunk.generation => Ok(found),
        _ => Err(ClientError::Replaced { path: path.to_owned() }),
    }
}

async fn ask(
    context: &Context,
    path: &str,
    offset: u64,
    length: u64,
    file_id: FileId,
) -> Result<v1::ReadPlanReply> {
    let message = v1::ReadPlanRequest { path: path.to_owned(), offset, length, file_id: file_id.0 };
    match context.master.read_plan(path, message).await {
        Err(ClientError::Refused { code: ErrorCode::NotFound, path, .. }) if file_id != FileId(0) => {
            Err(ClientError::Replaced { path })
        }
        outcome => outcome,
    }
}

fn malformed(path: &str, what: String) -> ClientError {
    ClientError::Protocol { path: path.to_owned(), peer: "the master".into(), what }
}
