//! Asks one datanode about itself.

use std::time::Duration;

use distrifs_proto::ErrorCode;
use distrifs_proto::frame::{ErrorBody, Header, LatencyReport, Op, TraceReport, verify};
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use crate::connection::{Connection, Receiver};
use crate::context::Context;
use crate::error::{ClientError, Result};
use crate::status::Node;

/// How long a node may take to tell of itself.
const PATIENCE_MAX: Duration = Duration::from_secs(3);

/// How long the stages of a node take.
pub(crate) async fn latency(context: &Context, node: &Node) -> Result<LatencyReport> {
    let bytes = ask(context, node, Op::Latency, Op::LatencyReport, 0).await?;
    LatencyReport::decode(&bytes).map_err(|error| failed(node, ErrorCode::Protocol, error.to_string()))
}

/// What a node remembers of a trace.
pub(crate) async fn trace(context: &Context, node: &Node, trace: u64) -> Result<TraceReport> {
    let bytes = ask(context, node, Op::Trace, Op::TraceReport, trace).await?;
    TraceReport::decode(&bytes).map_err(|error| failed(node, ErrorCode::Protocol, error.to_string()))
}

async fn ask(context: &Context, node: &Node, op: Op, answer: Op, trace_id: u64) -> Result<Vec<u8>> {
    let patience = context.config.socket_timeout.min(PATIENCE_MAX);
    let lost = |text: String| failed(node, ErrorCode::Unavailable, text);
    let asked = async {
        let mut connection =
            Connection::open(node, patience).await.map_err(|error| lost(error.to_string()))?;
        let header = Header { trace_id, ..Header::new(op, connection.next_request_id()) };
        let opening = connection.opening(header, &[]);
        connection.stream.write_all(&opening).await.map_err(|error| lost(error.to_string()))?;
        let (mut receiver, mut buffer) = (Receiver::default(), context.buffers.take());
        let (header, place) = receiver
            .receive(&mut connection.stream, &mut buffer)
            .await
            .map_err(|error| lost(error.to_string()))?;
        let broken = |text: String| failed(node, ErrorCode::Protocol, text);
        verify(&buffer, &place).map_err(|error| broken(error.to_string()))?;
        let body = &buffer[place.payload];
        match header.op {
            op if op == answer => Ok(body.to_vec()),
            Op::Error => {
                let error = ErrorBody::decode(body).map_err(|error| broken(error.to_string()))?;
                Err(failed(node, error.code, error.text))
            }
            op => Err(broken(format!("answered {op:?}"))),
        }
    };
    let late = |_| lost(format!("no answer within {} ms", patience.as_millis()));
    timeout(patience, asked).await.map_err(late)?
}

fn failed(node: &Node, code: ErrorCode, text: String) -> ClientError {
    ClientError::Datanode { node: node.id, code, text }
}
