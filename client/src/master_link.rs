//! Calls to the master that leads, whichever of those configured that is.
//!
//! A call goes to the last known leader and moves on to the next master when that one is gone, silent or no
//! leader; while it is silent, the others are asked whether one of them leads. It is tried again, with the same
//! request id, for as long as [`ClientConfig::socket_timeout`], but only where nothing was refused: after transport
//! failures and codes that say `retryable`. An answer from a leader of an older epoch than one seen before is not
//! believed.

use std::future::Future;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use distrifs_proto::ErrorCode;
use distrifs_proto::error_code::METADATA_KEY;
use distrifs_proto::grpc::v1::admin_service_client::AdminServiceClient;
use distrifs_proto::grpc::v1::client_service_client::ClientServiceClient;
use distrifs_proto::grpc::{TRACE_KEY, USER_KEY, code_of, leading, text_of, v1};
use distrifs_proto::limits::GRPC_MESSAGE_BYTES_MAX;
use distrifs_proto::types::{Epoch, RequestId};
use tokio::time::{Instant, sleep, timeout};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Response, Status};

use crate::config::ClientConfig;
use crate::error::{ClientError, Result};
use crate::retry::Retry;
use crate::tracer::Tracer;

/// Tries that fit in a call's time even when each gets no answer at all.
const TRIES_PER_CALL: u32 = 3;
const CONNECT_TIMEOUT_MAX: Duration = Duration::from_secs(3);
/// How long the leader is waited for before the others are asked whether they lead, and how often.
const ASK_OTHERS_AFTER: Duration = Duration::from_millis(500);
/// A master that does not answer this ping in time is taken for gone, and so are the calls under way to it.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(5);
/// A page of a plan or of a listing comes without waiting for its window.
const REPLY_WINDOW_BYTES: u32 = 1 << 20;

/// The identity of a mutation; its retries carry the same one.
pub(crate) fn new_request_id() -> Option<v1::RequestId> {
    Some(RequestId(rand::random()).into())
}

/// What every reply carries.
trait Reply {
    fn epoch(&self) -> u64;
}

/// The masters of a cluster.
#[derive(Debug)]
pub(crate) struct MasterLink {
    config: Arc<ClientConfig>,
    /// One for each configured master; made at the first call, since that needs a running tokio.
    channels: OnceLock<Vec<Channel>>,
    /// The index of the master that answered last.
    leader: AtomicUsize,
    /// The highest epoch seen in an answer.
    epoch: AtomicU64,
    /// Of the operation that the calls are part of, where it is to be explained.
    tracer: Option<Arc<Tracer>>,
}

/// Why one try gave no reply.
enum Failure {
    /// The answer is no, and stays no.
    Refused(ErrorCode, String),
    /// An answer that may be another one later.
    NotNow(ErrorCode, String),
    /// No answer.
    Lost(String),
}

impl MasterLink {
    pub(crate) fn new(config: Arc<ClientConfig>, tracer: Option<Arc<Tracer>>) -> Self {
        let (channels, leader, epoch) = (OnceLock::new(), AtomicUsize::new(0), AtomicU64::new(0));
        Self { config, channels, leader, epoch, tracer }
    }

    /// The highest epoch seen.
    pub(crate) fn epoch(&self) -> Epoch {
        Epoch(self.epoch.load(Ordering::Relaxed))
    }

    async fn call<Q, R, F, Fut>(&self, method: &'static str, subject: &str, message: Q, send: F) -> Result<R>
    where
        Q: Clone,
        R: Reply,
        F: Fn(Channel, Request<Q>) -> Fut,
        Fut: Future<Output = Result<Response<R>, Status>>,
    {
        let invalid = |what: &str| ClientError::Invalid { path: subject.to_owned(), what: what.to_owned() };
        // Other bytes would travel, and be no name to the master.
        let user = Some(self.config.user.as_str()).filter(|user| user.is_ascii());
        let user: Option<MetadataValue<Ascii>> = user.and_then(|user| user.parse().ok());
        let user = user.ok_or_else(|| invalid("the user name has characters beyond ASCII"))?;
        let channels = self.channels.get_or_init(|| self.connect_lazily());
        if channels.is_empty() {
            return Err(invalid("no master is configured: give --master HOST:PORT"));
        }

        let total = self.config.socket_timeout;
        let begun = Instant::now();
        let mut retry = Retry::new(total, channels.len());
        loop {
            let leader = self.leader.load(Ordering::Relaxed) % channels.len();
            let mut request = Request::new(message.clone());
            request.metadata_mut().insert(USER_KEY, user.clone());
            let traced = self.tracer.as_ref().map(|tracer| (tracer, tracer.next_call(), tracer.now_us()));
            if let Some((_, (_, text), _)) = &traced
                && let Ok(text) = text.parse()
            {
                request.metadata_mut().insert(TRACE_KEY, text);
            }
            let patience = (total / TRIES_PER_CALL).min(total.saturating_sub(begun.elapsed()));
            let mut next = (leader + 1) % channels.len();
            let answer = tokio::select! {
                answer = timeout(patience, send(channels[leader].clone(), request)) => Some(answer),
                other = self.other_leader(channels, leader) => {
                    next = other;
                    None
                }
            };
            if let Some((tracer, (part, _), since_us)) = traced {
                tracer.called(method, part, since_us);
            }
            let failure = match answer {
                Some(Ok(Ok(reply))) => match self.believe(reply.into_inner()) {
                    Ok(reply) => return Ok(reply),
                    Err(failure) => failure,
                },
                Some(Ok(Err(status))) => Failure::of(&status),
                Some(Err(_)) => Failure::Lost(format!("no answer within {} ms", patience.as_millis())),
                None => Failure::Lost("silent, and another master leads".to_owned()),
            };
            if let Failure::Refused(code, text) = failure {
                return Err(ClientError::Refused { path: subject.to_owned(), code, text });
            }
            let _ = self.leader.compare_exchange(leader, next, Ordering::Relaxed, Ordering::Relaxed);

            let pause = retry.after_failure(begun.elapsed(), rand::random());
            match pause.filter(|_| self.config.retries > 0) {
                Some(pause) => sleep(pause).await,
                None => return Err(self.gave_up(subject, failure, begun.elapsed())),
            }
        }
    }

    /// Resolves when another master than `leader` says that it leads: one that stands still is silent, although its
    /// machine still takes connections in. The request that was sent there is sent again, with the same id.
    async fn other_leader(&self, channels: &[Channel], leader: usize) -> usize {
        if channels.len() < 2 {
            return std::future::pending().await;
        }
        loop {
            sleep(ASK_OTHERS_AFTER).await;
            // Not before: nearly every call is answered by now.
            let others: Vec<(usize, Channel)> =
                channels.iter().cloned().enumerate().filter(|(index, _)| *index != leader).collect();
            if let Some((index, epoch)) = leading(&others, self.epoch(), ASK_OTHERS_AFTER).await
                && epoch >= self.epoch()
            {
                return index;
            }
        }
    }

    /// A reply, unless it is that of a leader who was replaced.
    fn believe<R: Reply>(&self, reply: R) -> Result<R, Failure> {
        let epoch = reply.epoch();
        let seen = self.epoch.fetch_max(epoch, Ordering::Relaxed);
        if epoch != 0 && epoch < seen {
            let text = format!("an answer of epoch {epoch}, but epoch {seen} leads");
            return Err(Failure::NotNow(ErrorCode::StaleEpoch, text));
        }
        Ok(reply)
    }

    fn gave_up(&self, subject: &str, failure: Failure, waited: Duration) -> ClientError {
        let path = subject.to_owned();
        match failure {
            Failure::Refused(code, text) | Failure::NotNow(code, text) => {
                ClientError::Refused { path, code, text }
            }
            Failure::Lost(last) => {
                let masters: Vec<String> = self.config.masters.iter().map(ToString::to_string).collect();
                ClientError::NoMaster { path, masters: masters.join(","), waited, last }
            }
        }
    }

    fn connect_lazily(&self) -> Vec<Channel> {
        let connect_timeout = self.config.socket_timeout.min(CONNECT_TIMEOUT_MAX);
        let endpoint = |master: &distrifs_proto::types::HostPort| {
            // A host that makes no URI is one that nobody answers at: the call says which.
            let uri = format!("http://{master}");
            let endpoint =
                Endpoint::from_shared(uri).unwrap_or_else(|_| Endpoint::from_static("http://invalid."));
            endpoint
                .connect_timeout(connect_timeout)
                .tcp_nodelay(true)
                .initial_stream_window_size(REPLY_WINDOW_BYTES)
                .initial_connection_window_size(REPLY_WINDOW_BYTES)
                .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
                .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
                .connect_lazy()
        };
        self.config.masters.iter().map(endpoint).collect()
    }
}

impl Failure {
    fn of(status: &Status) -> Self {
        let (code, text) = (code_of(status), text_of(status));
        if status.metadata().get(METADATA_KEY).is_some() {
            // A replaced leader refuses with StaleEpoch; the one that replaced it will not.
            return if code.retryable() || code == ErrorCode::StaleEpoch {
                Self::NotNow(code, text)
            } else {
                Self::Refused(code, text)
            };
        }
        // Not the master's own words: the transport's, unless they judge the request.
        match status.code() {
            Code::Unavailable
            | Code::DeadlineExceeded
            | Code::Cancelled
            | Code::Unknown
            | Code::Internal
            | Code::Aborted => Self::Lost(innermost(status)),
            _ => Self::Refused(code, text),
        }
    }
}

/// The transport's deepest cause, such as "connection refused".
fn innermost(status: &Status) -> String {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = std::error::Error::source(status);
    let mut text = text_of(status);
    while let Some(error) = cause {
        text = error.to_string().replace(|c: char| c.is_control(), " ");
        cause = error.source();
    }
    text
}

macro_rules! calls {
    ($($stub:ident { $($method:ident: $request:ident => $reply:ident,)* })*) => {
        $($(
            impl Reply for v1::$reply {
                fn epoch(&self) -> u64 {
                    self.epoch
                }
            }
        )*)*

        impl MasterLink {
            $($(
                pub(crate) async fn $method(&self, subject: &str, message: v1::$request) -> Result<v1::$reply> {
                    let send = |channel, request| async move {
                        $stub::new(channel)
                            .max_decoding_message_size(GRPC_MESSAGE_BYTES_MAX)
                            .max_encoding_message_size(GRPC_MESSAGE_BYTES_MAX)
                            .$method(request)
                            .await
                    };
                    self.call(stringify!($method), subject, message, send).await
                }
            )*)*
        }
    };
}

calls! {
    ClientServiceClient {
        mkdir: MkdirRequest => MkdirReply,
        list: ListRequest => ListReply,
        stat: StatRequest => StatReply,
        rename: RenameRequest => RenameReply,
        remove: RemoveRequest => RemoveReply,
        copy: CopyRequest => CopyReply,
        set_mode: SetModeRequest => SetModeReply,
        set_owner: SetOwnerRequest => SetOwnerReply,
        set_replication: SetReplicationRequest => SetReplicationReply,
        usage: UsageRequest => UsageReply,
        create: CreateRequest => CreateReply,
        allocate_chunk: AllocateChunkRequest => AllocateChunkReply,
        complete: CompleteRequest => CompleteReply,
        abandon: AbandonRequest => AbandonReply,
        renew_lease: RenewLeaseRequest => RenewLeaseReply,
        grant_chunk: GrantChunkRequest => GrantChunkReply,
        give_up_grant: GiveUpGrantRequest => GiveUpGrantReply,
        put_whole: PutWholeRequest => PutWholeReply,
        read_plan: ReadPlanRequest => ReadPlanReply,
        report_bad_replica: ReportBadReplicaRequest => ReportBadReplicaReply,
        check_files: CheckFilesRequest => CheckFilesReply,
    }
    AdminServiceClient {
        list_nodes: ListNodesRequest => ListNodesReply,
        cluster_status: ClusterStatusRequest => ClusterStatusReply,
        explain_chunk: ExplainChunkRequest => ExplainChunkReply,
        latency: LatencyRequest => LatencyReply,
        trace: TraceRequest => TraceReply,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use distrifs_proto::grpc::status;

    #[test]
    fn only_what_may_turn_out_otherwise_is_tried_again() {
        for &code in ErrorCode::ALL {
            let again = matches!(Failure::of(&status(code, "x")), Failure::NotNow(..));
            let expected = code.retryable() || code == ErrorCode::StaleEpoch;
            assert_eq!(again, expected, "{code:?}");
        }
        assert!(matches!(Failure::of(&Status::unavailable("x")), Failure::Lost(_)));
        assert!(matches!(Failure::of(&Status::internal("h2 error")), Failure::Lost(_)));
        assert!(matches!(Failure::of(&Status::unimplemented("x")), Failure::Refused(..)));
    }

    #[test]
    fn a_leader_of_an_older_epoch_is_not_believed() {
        let link = MasterLink::new(Arc::new(ClientConfig::new(Vec::new(), "me")), None);
        assert!(link.believe(v1::MkdirReply { epoch: 7 }).is_ok());
        assert!(link.believe(v1::MkdirReply { epoch: 6 }).is_err());
        assert!(link.believe(v1::MkdirReply { epoch: 8 }).is_ok());
        assert_eq!(link.epoch(), Epoch(8));
    }

    #[tokio::test]
    async fn a_user_whose_name_cannot_travel_is_told_so() {
        let nowhere = vec!["127.0.0.1:1".parse().expect("an address")];
        let link = MasterLink::new(Arc::new(ClientConfig::new(nowhere, "b\u{f6}b")), None);
        let refused = link.stat("/", v1::StatRequest { path: "/".into() }).await.expect_err("refused");
        assert_eq!(refused.to_string(), "/: the user name has characters beyond ASCII");
    }
}
