//! One connection of the data plane: its greeting, then its requests: one after the other, but
//! for small reads, of which many may be under way.

use std::net::TcpStream;
use std::rc::Rc;
use std::time::Duration;

use distrifs_engine::io::SendHalf;
use distrifs_proto::ErrorCode;
use distrifs_proto::frame::{ErrorBody, Header, Hello, Op, TraceReport, WriteOpen};
use distrifs_proto::types::ClusterId;

use super::intake::Intake;
use super::outlet::Outlet;
use super::read_batch::is_small_read;
use super::wire::{WireError, recv_control, send_control};
use super::{Shard, read, read_batch, write};
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
    let (recv, send) = stream.into_split();
    let outlet = Outlet::new(send, shard.small_reads.clone());
    if let Err(error) = requests(&shard, &mut Intake::new(recv), &outlet).await {
        match error {
            WireError::Closed | WireError::Io(_) => tracing::debug!(%error, "a connection ended"),
            WireError::Frame(_) => {
                Counters::add(&shard.node.counters.frames_refused, 1);
                tracing::debug!(%error, "a connection was closed: not our protocol");
            }
        }
    }
    // Half-closed first, so that an error just sent is read before the connection goes.
    let _ = outlet.alone().await.shutdown().await;
}

async fn requests(shard: &Rc<Shard>, intake: &mut Intake, outlet: &Outlet) -> Result<(), WireError> {
    let greeting = async {
        let header = intake.request().await?;
        Ok::<_, WireError>((header, greet(shard, intake, &header).await?))
    };
    // Whoever connects and says nothing is not waited for.
    let greeted = shard.io.timeout(shard.socket_timeout, greeting).await;
    if let (header, Err(error)) = greeted.map_err(|_| WireError::Closed)?? {
        return refuse(&mut *outlet.alone().await, &header, &error).await;
    }
    loop {
        let next = shard.io.timeout(IDLE_TIMEOUT, intake.request()).await;
        let header = next.map_err(|_| WireError::Closed)??;
        if is_small_read(&header) {
            read_batch::serve(shard, header, intake, outlet).await?;
            continue;
        }
        let mut alone = outlet.alone().await;
        let send = &mut *alone;
        match header.op {
            Op::Read => {
                drop(alone);
                read::serve(shard, header, outlet).await?;
            }
            Op::WriteOpen => {
                let open = WriteOpen::decode(&recv_control(intake, &header).await?)?;
                match write::serve(shard, header, open, intake, send).await {
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
    intake: &mut Intake,
    header: &Header,
) -> Result<Result<(), ErrorBody>, WireError> {
    let own = shard.node.id;
    let refuse = |code, text| Ok(Err(ErrorBody { code, node: own, text }));
    if header.op != Op::Hello {
        Counters::add(&shard.node.counters.frames_refused, 1);
        return refuse(ErrorCode::Protocol, format!("{:?} before the greeting", header.op));
    }
    let hello = Hello::decode(&recv_control(intake, header).await?)?;
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
