//! One connection of the data plane: its greeting, then one request after the other.

use std::net::TcpStream;
use std::rc::Rc;
use std::time::Duration;

use distrifs_engine::io::{RecvHalf, SendHalf};
use distrifs_proto::ErrorCode;
use distrifs_proto::frame::{ErrorBody, Header, Hello, Op, TraceReport, WriteOpen};
use distrifs_proto::types::ClusterId;

use super::wire::{WireError, recv_control, recv_header, send_control};
use super::{Shard, read, write};
use crate::node::Counters;

/// A connection without a request for so long is closed; callers open another one when they need it.
const IDLE_TIMEOUT: Duration = Duration::from_secs(300);

/// Serves a connection to its end.
pub(crate) async fn serve(shard: Rc<Shard>, socket: TcpStream) {
    let stream = match shard.io.adopt(socket) {
        Ok(stream) => stream,
        Err(error) => {
            tracing::warn!(%error, "a connection could not be taken over");
            return;
        }
    };
    let (mut recv, mut send) = stream.into_split();
    if let Err(error) = requests(&shard, &mut recv, &mut send).await {
        match error {
            WireError::Closed | WireError::Io(_) => tracing::debug!(%error, "a connection ended"),
            WireError::Frame(_) => {
                Counters::add(&shard.node.counters.frames_refused, 1);
                tracing::debug!(%error, "a connection was closed: not our protocol");
            }
        }
    }
    // Half-closed first, so that an error just sent is read before the connection goes.
    let _ = send.shutdown().await;
}

async fn requests(shard: &Rc<Shard>, recv: &mut RecvHalf, send: &mut SendHalf) -> Result<(), WireError> {
    let mut scratch = None;
    let greeting = async {
        let header = recv_header(recv, &mut scratch).await?;
        Ok::<_, WireError>((header, greet(shard, recv, &header).await?))
    };
    // Whoever connects and says nothing is not waited for.
    let greeted = shard.io.timeout(shard.socket_timeout, greeting).await;
    if let (header, Err(error)) = greeted.map_err(|_| WireError::Closed)?? {
        return refuse(send, &header, &error).await;
    }
    loop {
        let next = shard.io.timeout(IDLE_TIMEOUT, recv_header(recv, &mut scratch)).await;
        let header = next.map_err(|_| WireError::Closed)??;
        match header.op {
            Op::Read => match read::serve(shard, header, send).await {
                Ok(()) => {}
                Err(read::ReadEnd::Refused(error)) => refuse(send, &header, &error).await?,
                Err(read::ReadEnd::Gone) => return Err(WireError::Closed),
            },
            Op::WriteOpen => {
                let open = WriteOpen::decode(&recv_control(recv, &header).await?)?;
                match write::serve(shard, header, open, recv, send).await {
                    write::Outcome::Done(ack) => {
                        send_control(send, header.answer(Op::WriteAck), &ack.encode()).await?;
                    }
                    write::Outcome::Refused(error) => {
                        tracing::info!(chunk = %header.chunk, error = error.text, "a write was refused");
                        return refuse(send, &header, &error).await;
                    }
                    write::Outcome::Gone => return Err(WireError::Closed),
                }
            }
            Op::Latency => {
                let report = shard.node.latency_report().encode();
                send_control(send, header.answer(Op::LatencyReport), &report).await?;
            }
            Op::Trace => {
                let report = TraceReport { operations: shard.node.traces().of(header.trace_id) }.encode();
                send_control(send, header.answer(Op::TraceReport), &report).await?;
            }
            Op::Ping => send_control(send, header.answer(Op::Pong), &[]).await?,
            op => {
                Counters::add(&shard.node.counters.frames_refused, 1);
                let text = format!("{op:?} is no request");
                let error = ErrorBody { code: ErrorCode::Protocol, node: shard.node.id, text };
                return refuse(send, &header, &error).await;
            }
        }
    }
}

/// Whether the caller means us.
async fn greet(
    shard: &Rc<Shard>,
    recv: &mut RecvHalf,
    header: &Header,
) -> Result<Result<(), ErrorBody>, WireError> {
    let own = shard.node.id;
    let refuse = |code, text| Ok(Err(ErrorBody { code, node: own, text }));
    if header.op != Op::Hello {
        Counters::add(&shard.node.counters.frames_refused, 1);
        return refuse(ErrorCode::Protocol, format!("{:?} before the greeting", header.op));
    }
    let hello = Hello::decode(&recv_control(recv, header).await?)?;
    if hello.node != own {
        return refuse(ErrorCode::WrongCluster, format!("this is node {own}, not {}", hello.node));
    }
    let cluster = shard.node.cluster.get().copied().unwrap_or_default();
    if hello.cluster != ClusterId::default() && hello.cluster != cluster {
        return refuse(ErrorCode::WrongCluster, format!("this node belongs to cluster {cluster}"));
    }
    Ok(Ok(()))
}

async fn refuse(send: &mut SendHalf, request: &Header, error: &ErrorBody) -> Result<(), WireError> {
    Ok(send_control(send, request.answer(Op::Error), &error.encode()).await?)
}
