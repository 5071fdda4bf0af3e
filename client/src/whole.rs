//! Writes a file of one chunk: takes a grant, writes the chunk, and makes a file of it in one step. Of an empty file
//! there is only that step.

use distrifs_proto::ErrorCode;
use distrifs_proto::grpc::v1;
use distrifs_proto::limits::FRAME_PAYLOAD_BYTES_MAX;
use distrifs_proto::types::{ChunkId, Crc32c};

use crate::chunk_writer::{OpenFile, Origin, write_chunk};
use crate::context::Context;
use crate::error::{ClientError, Result};
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
    let mut file = v1::PutWholeRequest {
        request_id: new_request_id(),
        path: path.to_owned(),
        overwrite: options.overwrite,
        mode: options.mode,
        replication: options.replication.or(context.config.replication).unwrap_or(0),
        chunk_size: options.chunk_size.or(context.config.chunk_size).unwrap_or(0),
        chunk: None,
        grant_epoch: 0,
    };
    let Some(mut source) = feed.small_chunk(context) else {
        return Some(appear(context, file).await);
    };
    let (ask, granted) = match grant(context, &mut file, source.length()).await {
        Err(ClientError::Refused { code: ErrorCode::InvalidArgument, .. }) => return None,
        Err(error) => return Some(Err(error)),
        Ok(granted) => granted,
    };
    let open = OpenFile::new(path, Origin::Granted(Box::new(ask)), file.replication);
    let mut plan = Some(granted);
    for _ in 0..GRANTS_ENDED_MAX {
        match write(context, &open, &mut source, &mut plan, feed, &file).await {
            Err(ClientError::Refused { code: ErrorCode::LeaseExpired, .. }) => plan = None,
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

/// Takes the first grant, which says what the master's defaults are; with what the next one is asked for.
async fn grant(
    context: &Context,
    file: &mut v1::PutWholeRequest,
    length: u64,
) -> Result<(v1::GrantChunkRequest, Plan)> {
    let ask = v1::GrantChunkRequest {
        path: file.path.clone(),
        overwrite: file.overwrite,
        mode: file.mode,
        replication: file.replication,
        chunk_size: file.chunk_size,
        length,
        ..Default::default()
    };
    let reply = context.master.grant_chunk(&file.path, ask.clone()).await?;
    (file.replication, file.chunk_size) = (reply.replication, reply.chunk_size);
    let malformed = |what| ClientError::Protocol { path: file.path.clone(), peer: "the master".into(), what };
    if reply.replication == 0 {
        return Err(malformed("a replication factor of 0".into()));
    }
    let plan = Plan::check(reply.plan, reply.epoch, reply.replication).map_err(malformed)?;
    let ask = v1::GrantChunkRequest { replication: reply.replication, chunk_size: reply.chunk_size, ..ask };
    Ok((ask, plan))
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
