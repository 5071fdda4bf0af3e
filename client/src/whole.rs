//! Writes a file of one chunk: takes a grant, writes the chunk, and makes a file of it in one step. Of an empty file
//! there is only that step.

use std::time::{Duration, Instant};

use distrifs_proto::ErrorCode;
use distrifs_proto::grpc::v1;
use distrifs_proto::limits::FRAME_PAYLOAD_BYTES_MAX;
use distrifs_proto::types::{ChunkId, Crc32c};

use crate::chunk_writer::{OpenFile, Origin, write_chunk};
use crate::context::Context;
use crate::error::{ClientError, Result};
use crate::grants::{Granted, Next, Shape};
use crate::master_link::new_request_id;
use crate::meter::Meter;
use crate::plan::Plan;
use crate::progress::Progress;
use crate::put::{Feed, check_recorded};
use crate::source::ChunkSource;
use crate::status::FileStatus;
use crate::transfer::PutOptions;

/// Longer files are opened, and keep a lease while they are written.
pub(crate) const SMALL_FILE_BYTES_MAX: u64 = 1 << 20;
const _: () = assert!(SMALL_FILE_BYTES_MAX <= FRAME_PAYLOAD_BYTES_MAX as u64);
/// How often a small file is written anew because its grant had ended. One that takes longer than grants last, again
/// and again, needs a lease, which is renewed.
const GRANTS_ENDED_MAX: u32 = 2;

/// Writes a small file; `None` when it has to be opened instead, which also tells what is wrong with the request.
pub(crate) async fn put_whole(
    context: &Context,
    feed: &Feed,
    path: &str,
    options: &PutOptions,
    progress: &dyn Progress,
) -> Option<Result<FileStatus>> {
    let asked = Shape::asked(options, &context.config);
    let mut file = v1::PutWholeRequest {
        request_id: new_request_id(),
        path: path.to_owned(),
        overwrite: options.overwrite,
        mode: options.mode,
        replication: asked.replication,
        chunk_size: asked.chunk_size,
        chunk: None,
        grant_epoch: 0,
    };
    let Some(mut source) = feed.small_chunk(context) else {
        return Some(match feed.check_unchanged(path) {
            Ok(()) => appear(context, file).await,
            Err(error) => Err(error),
        });
    };
    let granted = match grant(context, &file, source.length()).await {
        // Too long for one chunk, too many grants, or no request at all: Create knows which.
        Err(ClientError::Refused { code: ErrorCode::InvalidArgument | ErrorCode::LimitExceeded, .. }) => {
            return None;
        }
        Err(error) => return Some(Err(error)),
        Ok(granted) => granted,
    };
    (file.replication, file.chunk_size) = (granted.made.replication, granted.made.chunk_size);
    let mut plan = Some(granted.plan);
    if source.length() > file.chunk_size {
        give_up(context, path, plan.map(|plan| plan.chunk)).await;
        return None;
    }
    let ask = Box::new(ask_for(&file, source.length()));
    let open = OpenFile::new(path, Origin::Granted(ask), file.replication);
    for _ in 0..GRANTS_ENDED_MAX {
        match write(context, &open, &mut source, &mut plan, feed, &file).await {
            Err(ClientError::Refused { code: ErrorCode::LeaseExpired, .. }) => {
                plan = None;
                context.grants().forget();
            }
            Err(error) => {
                give_up(context, path, plan.map(|plan| plan.chunk)).await;
                return Some(Err(error));
            }
            Ok(status) => {
                progress.advanced(source.length());
                return Some(Ok(status));
            }
        }
    }
    None
}

/// A grant that was kept, or one that the master gives now.
async fn grant(context: &Context, file: &v1::PutWholeRequest, length: u64) -> Result<Granted> {
    let asked = Shape { replication: file.replication, chunk_size: file.chunk_size };
    let next = context.grants().next(Instant::now(), asked, context.master.epoch());
    let count = match next {
        Next::Kept(granted) => return Ok(*granted),
        Next::Ask(count) => count,
    };
    let ask = v1::GrantChunkRequest { count, ..ask_for(file, length) };
    let reply = context.master.grant_chunk(&file.path, ask).await?;
    let malformed = |what| ClientError::Protocol { path: file.path.clone(), peer: "the master".into(), what };
    let made = Shape { replication: reply.replication, chunk_size: reply.chunk_size };
    if made.replication == 0 {
        return Err(malformed("a replication factor of 0".into()));
    }
    let checked = |plan| Plan::check(Some(plan), reply.epoch, made.replication);
    let plans = reply.plans.into_iter().take(count as usize).map(checked);
    let mut plans = plans.collect::<Result<Vec<Plan>, _>>().map_err(malformed)?.into_iter();
    let first = plans.next().ok_or_else(|| malformed("no plan in the answer".into()))?;
    let lasts = Duration::from_millis(reply.grant_ms);
    context.grants().keep(Instant::now(), lasts, asked, plans.map(|plan| Granted { plan, made }));
    Ok(Granted { plan: first, made })
}

fn ask_for(file: &v1::PutWholeRequest, length: u64) -> v1::GrantChunkRequest {
    v1::GrantChunkRequest {
        path: file.path.clone(),
        overwrite: file.overwrite,
        mode: file.mode,
        replication: file.replication,
        chunk_size: file.chunk_size,
        length,
        ..Default::default()
    }
}

/// Writes the chunk, and makes a file of it.
async fn write(
    context: &Context,
    open: &OpenFile,
    source: &mut ChunkSource,
    plan: &mut Option<Plan>,
    feed: &Feed,
    file: &v1::PutWholeRequest,
) -> Result<FileStatus> {
    // What is sent twice counts once: it is told when the file is there.
    let chunk = write_chunk(context, open, 0, source, plan, &Meter::default()).await?;
    feed.check_unchanged(&open.path)?;
    let grant_epoch = plan.as_ref().map_or(0, |plan| plan.epoch.0);
    let request_id = new_request_id();
    appear(context, v1::PutWholeRequest { request_id, chunk: Some(chunk), grant_epoch, ..file.clone() }).await
}

async fn appear(context: &Context, file: v1::PutWholeRequest) -> Result<FileStatus> {
    let path = file.path.clone();
    let (sent, length) =
        file.chunk.as_ref().map_or((Crc32c::default(), 0), |chunk| (Crc32c(chunk.crc32c), chunk.length));
    let reply = context.master.put_whole(&path, file).await?;
    check_recorded(&path, reply.status, sent, length)
}

async fn give_up(context: &Context, path: &str, chunk: Option<ChunkId>) {
    let Some(chunk) = chunk else { return };
    if let Err(error) = context.master.give_up_grant(path, v1::GiveUpGrantRequest { chunk_id: chunk.0 }).await
    {
        // Nothing is visible anyway; the grant will end.
        tracing::debug!(path, %error, "a grant was not given up");
    }
}
