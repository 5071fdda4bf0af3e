//! The control plane: what clients, datanodes and operators ask over gRPC. Thin: messages in, the cores asked,
//! messages out.

mod admin;
mod check;
mod client;
mod convert;
mod datanode;
mod reads;
mod whole;
mod writes;

use std::sync::Arc;

use distrifs_proto::grpc::{USER_KEY, code_of};
use distrifs_proto::types::RequestId;
use distrifs_proto::{ErrorCode, grpc};
use tokio::sync::watch;
use tonic::metadata::MetadataMap;
use tonic::{Response, Status};

pub(crate) use admin::AdminApi;
pub(crate) use client::ClientApi;
pub(crate) use datanode::DatanodeApi;

use crate::namespace::NsPath;
use crate::permission::{Caller, MODE_MAX, bad_name};
use crate::refusal::Refusal;
use crate::state::State;
use crate::writer::Proposer;

/// What every service has.
#[derive(Debug, Clone)]
pub(crate) struct Api {
    state: Arc<State>,
    proposer: Proposer,
    stop: watch::Receiver<bool>,
}

impl Api {
    /// Services over this state.
    pub(crate) fn new(state: Arc<State>, proposer: Proposer, stop: watch::Receiver<bool>) -> Self {
        Self { state, proposer, stop }
    }

    /// Who asks, with the groups that the master knows of.
    async fn caller(&self, metadata: &MetadataMap) -> Result<Arc<Caller>, Status> {
        let name = metadata.get(USER_KEY).map(|value| value.to_str().unwrap_or("\0"));
        let Some(name) = name else {
            return Err(invalid(format!("no user: metadata key {USER_KEY} is missing")));
        };
        if let Some(why) = bad_name(name) {
            return Err(invalid(format!("metadata key {USER_KEY}: the user's name {why}")));
        }
        if let Some(known) = self.state.groups.known(name) {
            return Ok(known);
        }
        let (state, name) = (self.state.clone(), name.to_owned());
        let asked = tokio::task::spawn_blocking(move || state.groups.ask(&name)).await;
        asked.map_err(|error| grpc::status(ErrorCode::Internal, format!("the groups of the caller: {error}")))
    }

    /// Counts a request under its outcome, which is told as long as this master leads for certain.
    fn counted<T>(&self, method: &'static str, outcome: Result<T, Status>) -> Result<Response<T>, Status> {
        let outcome = match self.state.may_answer() {
            true => outcome,
            // It may have been done all the same; whoever leads knows, and takes the same request again.
            false => Err(grpc::status(
                ErrorCode::Unknown,
                format!(
                    "{method}: the lease of this leader (epoch {}) has run out: ask the next one",
                    self.state.epoch
                ),
            )),
        };
        let code = outcome.as_ref().err().map(code_of);
        self.state.metrics.answered(method, code);
        outcome.map(Response::new)
    }
}

fn invalid(text: String) -> Status {
    Refusal::Invalid(text).into()
}

fn path(text: &str) -> Result<NsPath, Status> {
    NsPath::parse(text).map_err(|error| invalid(error.to_string()))
}

/// The id that makes a retry harmless.
fn request_id(id: Option<grpc::v1::RequestId>) -> Result<RequestId, Status> {
    match id.map(RequestId::from) {
        Some(id) if id != RequestId::default() => Ok(id),
        _ => Err(invalid("a change needs a request id of 128 random bits".to_owned())),
    }
}

/// Permission bits; 0 stands for the default.
fn mode(bits: u32, default: u16, place: &NsPath) -> Result<u16, Status> {
    match u16::try_from(bits) {
        Ok(0) => Ok(default),
        Ok(mode) if mode <= MODE_MAX => Ok(mode),
        _ => Err(invalid(format!("{place}: mode {bits:o} is larger than {MODE_MAX:o}"))),
    }
}

/// An answer that this kind of change does not give: a bug.
fn mismatch(method: &str) -> Status {
    grpc::status(ErrorCode::Internal, format!("{method}: the namespace gave another kind of answer"))
}
