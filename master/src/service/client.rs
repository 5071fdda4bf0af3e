//! What clients ask. The answers are worked out in `writes`, `whole` and `reads`.

use distrifs_proto::grpc::v1;
use distrifs_proto::grpc::v1::client_service_server::ClientService;
use tonic::{Request, Response, Status};

use super::Api;
use crate::stage::stage_of;
use crate::trail;

/// The service of clients.
#[derive(Debug, Clone)]
pub(crate) struct ClientApi(pub(crate) Api);

macro_rules! answer {
    ($api:expr, $request:expr, $name:literal, $method:ident) => {{
        let (metadata, _, message) = $request.into_parts();
        let served = async {
            match $api.caller(&metadata).await {
                Ok(caller) => $api.$method(caller, message).await,
                Err(refused) => Err(refused),
            }
        };
        let outcome = trail::serve(&$api.state, stage_of($name), &metadata, served).await;
        $api.counted($name, outcome)
    }};
}

#[tonic::async_trait]
impl ClientService for ClientApi {
    async fn mkdir(&self, request: Request<v1::MkdirRequest>) -> Result<Response<v1::MkdirReply>, Status> {
        answer!(self.0, request, "Mkdir", mkdir)
    }

    async fn list(&self, request: Request<v1::ListRequest>) -> Result<Response<v1::ListReply>, Status> {
        answer!(self.0, request, "List", list)
    }

    async fn stat(&self, request: Request<v1::StatRequest>) -> Result<Response<v1::StatReply>, Status> {
        answer!(self.0, request, "Stat", stat)
    }

    async fn rename(&self, request: Request<v1::RenameRequest>) -> Result<Response<v1::RenameReply>, Status> {
        answer!(self.0, request, "Rename", rename)
    }

    async fn remove(&self, request: Request<v1::RemoveRequest>) -> Result<Response<v1::RemoveReply>, Status> {
        answer!(self.0, request, "Remove", remove)
    }

    async fn copy(&self, request: Request<v1::CopyRequest>) -> Result<Response<v1::CopyReply>, Status> {
        answer!(self.0, request, "Copy", copy)
    }

    async fn set_mode(
        &self,
        request: Request<v1::SetModeRequest>,
    ) -> Result<Response<v1::SetModeReply>, Status> {
        answer!(self.0, request, "SetMode", set_mode)
    }

    async fn set_owner(
        &self,
        request: Request<v1::SetOwnerRequest>,
    ) -> Result<Response<v1::SetOwnerReply>, Status> {
        answer!(self.0, request, "SetOwner", set_owner)
    }

    async fn set_replication(
        &self,
        request: Request<v1::SetReplicationRequest>,
    ) -> Result<Response<v1::SetReplicationReply>, Status> {
        answer!(self.0, request, "SetReplication", set_replication)
    }

    async fn usage(&self, request: Request<v1::UsageRequest>) -> Result<Response<v1::UsageReply>, Status> {
        answer!(self.0, request, "Usage", usage)
    }

    async fn create(&self, request: Request<v1::CreateRequest>) -> Result<Response<v1::CreateReply>, Status> {
        answer!(self.0, request, "Create", create)
    }

    async fn allocate_chunk(
        &self,
        request: Request<v1::AllocateChunkRequest>,
    ) -> Result<Response<v1::AllocateChunkReply>, Status> {
        answer!(self.0, request, "AllocateChunk", allocate_chunk)
    }

    async fn complete(
        &self,
        request: Request<v1::CompleteRequest>,
    ) -> Result<Response<v1::CompleteReply>, Status> {
        answer!(self.0, request, "Complete", complete)
    }

    async fn abandon(
        &self,
        request: Request<v1::AbandonRequest>,
    ) -> Result<Response<v1::AbandonReply>, Status> {
        answer!(self.0, request, "Abandon", abandon)
    }

    async fn renew_lease(
        &self,
        request: Request<v1::RenewLeaseRequest>,
    ) -> Result<Response<v1::RenewLeaseReply>, Status> {
        answer!(self.0, request, "RenewLease", renew_lease)
    }

    async fn grant_chunk(
        &self,
        request: Request<v1::GrantChunkRequest>,
    ) -> Result<Response<v1::GrantChunkReply>, Status> {
        answer!(self.0, request, "GrantChunk", grant_chunk)
    }

    async fn give_up_grant(
        &self,
        request: Request<v1::GiveUpGrantRequest>,
    ) -> Result<Response<v1::GiveUpGrantReply>, Status> {
        answer!(self.0, request, "GiveUpGrant", give_up_grant)
    }

    async fn put_whole(
        &self,
        request: Request<v1::PutWholeRequest>,
    ) -> Result<Response<v1::PutWholeReply>, Status> {
        answer!(self.0, request, "PutWhole", put_whole)
    }

    async fn read_plan(
        &self,
        request: Request<v1::ReadPlanRequest>,
    ) -> Result<Response<v1::ReadPlanReply>, Status> {
        answer!(self.0, request, "ReadPlan", read_plan)
    }

    async fn report_bad_replica(
        &self,
        request: Request<v1::ReportBadReplicaRequest>,
    ) -> Result<Response<v1::ReportBadReplicaReply>, Status> {
        answer!(self.0, request, "ReportBadReplica", report_bad_replica)
    }

    async fn check_files(
        &self,
        request: Request<v1::CheckFilesRequest>,
    ) -> Result<Response<v1::CheckFilesReply>, Status> {
        answer!(self.0, request, "CheckFiles", check_files)
    }
}
