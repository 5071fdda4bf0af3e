//! Sends a small chunk to all of its nodes at the same time, where a large one passes from node to node.
//!
//! A pipeline spreads the bytes of a large chunk over all links, at the price of one way more for each node; of a small
//! chunk those ways are most of the time it takes, and its bytes cost the client nothing. Each node is asked for a
//! pipeline of its own, with nobody behind it.

use std::time::Instant;

use distrifs_proto::frame::{Header, Op, WriteOpen, patience};
use distrifs_proto::types::Crc32c;
use futures_util::future::try_join_all;

use crate::chunk_writer::{OpenFile, Pipeline, Stopped};
use crate::context::Context;
use crate::plan::Plan;
use crate::source::{ChunkSource, Frame};
use crate::status::Node;
use crate::tracer::{ClientStage, timed};
use crate::writer_state::{Failure, WriterState};

/// Sends the chunk, a [small](distrifs_proto::limits::SMALL_CHUNK_BYTES_MAX) one, to all its nodes and waits until each
/// has committed it. Returns its checksum. The first failure ends it: the other nodes may have committed the chunk or
/// not. `anew` is as for [`Pool::connect`](crate::pool::Pool::connect).
pub(crate) async fn fan_out(
    context: &Context,
    file: &OpenFile,
    plan: &Plan,
    source: &mut ChunkSource,
    anew: bool,
) -> Result<Crc32c, Stopped> {
    let frame = timed(context.tracer.as_deref(), ClientStage::Source, None, source.frame(0)).await;
    let frame = frame.map_err(Stopped::Source)?;
    try_join_all(plan.hops.iter().map(|node| send_to(context, file, plan, node, frame, anew))).await?;
    Ok(frame.crc())
}

/// Sends the chunk to one of its nodes and waits until it has committed it.
async fn send_to(
    context: &Context,
    file: &OpenFile,
    plan: &Plan,
    node: &Node,
    frame: &Frame,
    anew: bool,
) -> Result<(), Failure> {
    let silence = patience(context.config.socket_timeout, 0);
    let tracer = context.tracer.as_deref();
    let connecting = context.pool.connect(node, anew, silence);
    let connected = timed(tracer, ClientStage::Connect, None, connecting).await;
    let fresh = |request| WriterState::new(request, plan.chunk, vec![node.id], silence, Instant::now());
    let mut connection = connected.map_err(|error| fresh(0).on_lost(&error.to_string()))?;
    let request_id = connection.next_request_id();
    let (header, traced) = file.data_header(context, plan, request_id);
    let length = frame.len();
    let open = WriteOpen { reserve: length as u64, hops: Vec::new() }.encode();
    // One send, and one arrival at the node.
    let mut bytes = connection.opening(Header { op: Op::WriteOpen, flags: traced, ..header }, &open);
    frame.append_to(&mut bytes, &Header { flags: Header::LAST, length: length as u32, ..header });
    let request = tracer.and_then(|tracer| tracer.requested(plan.chunk, 0, vec![node.clone()]));

    let mut pipeline = Pipeline::new(&mut connection, fresh(request_id));
    timed(tracer, ClientStage::Send, request, pipeline.send(&bytes)).await?;
    pipeline.state.on_all_sent(length as u64, frame.crc(), Instant::now());
    timed(tracer, ClientStage::Ack, request, pipeline.committed()).await?;
    context.pool.give_back(connection);
    Ok(())
}
