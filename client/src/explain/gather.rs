//! Asks everybody who took part what they remember.

use std::collections::BTreeMap;
use std::time::Duration;

use distrifs_proto::frame::TraceReport;
use distrifs_proto::grpc::v1;
use distrifs_proto::latency::TracedOperation;
use distrifs_proto::types::NodeId;

use super::{Known, Remembered};
use crate::ask;
use crate::context::Context;
use crate::status::Node;
use crate::tracer::{Notes, Tracer};

/// An answer may overtake the note that its sender takes of it: then it is asked again, so often.
const ROUNDS_MAX: u32 = 5;
const ROUND_PAUSE: Duration = Duration::from_millis(20);

/// What all of them remember of an operation, and which nodes do not.
pub(crate) async fn gather(context: &Context, tracer: &Tracer) -> (Known, Vec<NodeId>) {
    let notes = tracer.notes();
    let mut nodes: BTreeMap<NodeId, Node> = BTreeMap::new();
    for hop in notes.requests.iter().flat_map(|request| &request.hops) {
        nodes.insert(hop.id, hop.clone());
    }
    let (mut hops, mut missing) = (Vec::new(), Vec::new());
    for node in nodes.values() {
        for round in 0..ROUNDS_MAX {
            if round > 0 {
                tokio::time::sleep(ROUND_PAUSE).await;
            }
            let operations = match ask::trace(context, node, tracer.id).await {
                Ok(report) => report.operations,
                Err(error) => {
                    tracing::debug!(node = %node.id, %error, "a node does not tell of a trace");
                    Vec::new()
                }
            };
            let (found, complete) = match_up(&notes, node.id, &operations);
            if complete || round + 1 == ROUNDS_MAX {
                hops.extend(found);
                missing.extend((!complete).then_some(node.id));
                break;
            }
        }
    }
    let calls = match context.master.trace("trace", v1::TraceRequest { trace_id: tracer.id }).await {
        Ok(reply) => TraceReport::decode(&reply.report).map(|it| it.operations).unwrap_or_default(),
        Err(error) => {
            tracing::debug!(%error, "the master does not tell of a trace");
            Vec::new()
        }
    };
    (Known { notes, hops, calls }, missing)
}

/// Which request and hop each operation of a node belongs to; whether each has its own.
fn match_up(notes: &Notes, node: NodeId, operations: &[TracedOperation]) -> (Vec<Remembered>, bool) {
    let mut left: Vec<&TracedOperation> = operations.iter().collect();
    let (mut found, mut complete) = (Vec::new(), true);
    for (request, requested) in notes.requests.iter().enumerate() {
        let Some(hop) = requested.hops.iter().position(|hop| hop.id == node) else { continue };
        let of_it = |it: &&TracedOperation| it.chunk == requested.chunk.0 && it.part == requested.part;
        match left.iter().position(of_it) {
            Some(at) => found.push(Remembered { request, hop, operation: left.remove(at).clone() }),
            None => complete = false,
        }
    }
    (found, complete)
}
