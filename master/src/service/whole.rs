//! Small files: their one chunk is granted, written, and then made a file of, which is the only change that is logged.

use std::sync::Arc;

use distrifs_proto::grpc::v1;
use distrifs_proto::types::ChunkId;
use tonic::Status;

use super::writes::{demand_nodes, excluded};
use super::{Api, convert, invalid, mismatch, mode, path, request_id};
use crate::cluster::{Endpoint, RESERVED_IDS, Wanted};
use crate::namespace::{
    Answer, Command, FILE_MODE, FIRST_GENERATION, NsPath, Operation, Place, WrittenChunk,
};
use crate::permission::Caller;
use crate::refusal::Refusal;

/// How often a grant is tried: others may take what was reserved meanwhile.
const GRANT_TRIES_MAX: u32 = 3;

/// A chunk, and the hops of its pipeline.
type Granted = (ChunkId, Vec<Endpoint>);

/// A file that is to appear in one step.
struct Whole {
    path: NsPath,
    operation: Operation,
    replication: u32,
    chunk_size: u64,
}

impl Api {
    pub(super) async fn grant_chunk(
        &self,
        caller: Arc<Caller>,
        ask: v1::GrantChunkRequest,
    ) -> Result<v1::GrantChunkReply, Status> {
        let shape = self.shape(ask.replication, ask.chunk_size);
        let Whole { path, operation, replication, chunk_size } =
            whole(&ask.path, ask.overwrite, ask.mode, shape, None)?;
        let exclude = excluded(&ask.exclude)?;
        if let Some(failed) = ask.give_up_chunk {
            self.pipeline_failed(&exclude, &ask.exclude_codes);
            self.state.cluster().grants.give_up(&caller, ChunkId(failed));
        }
        let at_ms = self.state.clock.wall_ms();
        self.check(&Command { at_ms, request: None, caller: caller.clone(), operation })?;
        if !(1..=chunk_size).contains(&ask.length) {
            let length = ask.length;
            return Err(invalid(format!("{path}: a chunk of {length} bytes is none of 1 to {chunk_size}")));
        }
        let wanted = Wanted { replicas: replication as usize, bytes: ask.length, exclude: &exclude };
        let (chunk, hops) = self.grant(&path, &caller, wanted).await?;
        let plan = v1::WritePlan {
            chunk_id: chunk.0,
            generation: FIRST_GENERATION.0,
            hops: hops.into_iter().map(convert::node).collect(),
        };
        Ok(v1::GrantChunkReply { epoch: self.state.epoch.0, plan: Some(plan), replication, chunk_size })
    }

    async fn grant(
        &self,
        path: &NsPath,
        caller: &Arc<Caller>,
        wanted: Wanted<'_>,
    ) -> Result<Granted, Refusal> {
        for _ in 0..GRANT_TRIES_MAX {
            let (granted, runs_low) = self.try_grant(path, caller, wanted)?;
            let reserving = runs_low.then(|| {
                // It goes on when whoever asked has gone: what is reserved is for the next ones.
                let api = self.clone();
                tokio::spawn(async move { api.reserve().await })
            });
            match (granted, reserving) {
                (Some(granted), _) => return Ok(granted),
                (None, Some(reserving)) => match reserving.await {
                    Ok(reserved) => reserved?,
                    Err(_) => return Err(Refusal::Stopping { place: Place::Path(path.clone()) }),
                },
                (None, None) => {}
            }
        }
        Err(Refusal::Busy { place: Place::Path(path.clone()) })
    }

    /// Grants a chunk if an id is left; says whether more of them should be reserved.
    fn try_grant(
        &self,
        path: &NsPath,
        caller: &Arc<Caller>,
        wanted: Wanted<'_>,
    ) -> Result<(Option<Granted>, bool), Refusal> {
        let now_ms = self.state.clock.now_ms();
        let mut cluster = self.state.cluster();
        cluster.behind().cloned().map_or(Ok(()), Err)?;
        let nowhere = |source| Refusal::Placement { path: path.clone(), source };
        if cluster.grants.is_dry() {
            // Where nothing can be written, nothing is reserved.
            cluster.placeable(now_ms, wanted).map_err(nowhere)?;
            return Ok((None, true));
        }
        if cluster.grants.is_full() {
            return Err(Refusal::Busy { place: Place::Path(path.clone()) });
        }
        let hops = cluster.place(now_ms, wanted, rand::random()).map_err(nowhere)?;
        let nodes = hops.iter().map(|hop| hop.node).collect();
        let until_ms = now_ms.saturating_add(self.lease_ms().unsigned_abs());
        let granted = cluster.grants.grant(caller.clone(), nodes, until_ms).map(|chunk| (chunk, hops));
        // One that is under way will do.
        let wants_more = cluster.grants.runs_low() && self.state.reserving.try_lock().is_ok();
        Ok((granted, wants_more))
    }

    /// Has more chunk ids reserved, unless somebody else just did.
    async fn reserve(&self) -> Result<(), Refusal> {
        let _turn = self.state.reserving.lock().await;
        if !self.state.cluster().grants.runs_low() {
            return Ok(());
        }
        let reserve = Operation::ReserveChunks { count: RESERVED_IDS };
        let answer = self.proposer.propose(Command::own(self.state.clock.wall_ms(), reserve)).await?;
        if let Answer::Reserved(ids) = answer {
            self.state.cluster().grants.reserved(ids);
        }
        Ok(())
    }

    pub(super) async fn give_up_grant(
        &self,
        caller: Arc<Caller>,
        ask: v1::GiveUpGrantRequest,
    ) -> Result<v1::GiveUpGrantReply, Status> {
        self.state.cluster().grants.give_up(&caller, ChunkId(ask.chunk_id));
        Ok(v1::GiveUpGrantReply { epoch: self.state.epoch.0 })
    }

    pub(super) async fn put_whole(
        &self,
        caller: Arc<Caller>,
        ask: v1::PutWholeRequest,
    ) -> Result<v1::PutWholeReply, Status> {
        let request = request_id(ask.request_id)?;
        let shape = self.shape(ask.replication, ask.chunk_size);
        let chunk = ask.chunk.as_ref().map(convert::written);
        let Whole { path, operation, replication, chunk_size } =
            whole(&ask.path, ask.overwrite, ask.mode, shape, chunk)?;
        let command = self.command(request, caller, operation);
        let replicas = replication as usize;
        let answer = match &ask.chunk {
            None => {
                let wanted = Wanted { replicas, bytes: chunk_size, exclude: &[] };
                self.planned(command, &path, wanted, false).await?.0
            }
            Some(written) => {
                let proposed = {
                    let cluster = self.state.cluster();
                    let epoch = ask.grant_epoch == self.state.epoch.0;
                    let now_ms = self.state.clock.now_ms();
                    let chunk = ChunkId(written.chunk_id);
                    let granted = cluster.grants.nodes_of(now_ms, &command.caller, chunk);
                    let granted = match granted.filter(|_| epoch) {
                        Some(nodes) => demand_nodes(&path, written, Some(nodes), replicas),
                        None => Err(Refusal::NotGranted { path: path.clone(), chunk }),
                    };
                    // Begun before the lock is let go of: whoever ends the grant comes behind it.
                    match granted.and_then(|()| cluster.behind().cloned().map_or(Ok(()), |it| Err(it.into())))
                    {
                        Ok(()) => Ok(self.proposer.propose(command)),
                        Err(refusal) => Err((refusal, command)),
                    }
                };
                match proposed {
                    Ok(proposed) => proposed.await?,
                    // What the namespace says of it comes first, and so does the answer that was given before.
                    Err((refusal, command)) => self.check(&command)?.ok_or(refusal)?,
                }
            }
        };
        let Answer::Completed(completed) = answer else {
            return Err(mismatch("PutWhole"));
        };
        let status = Some(self.appeared(&completed, ask.chunk.as_slice()));
        Ok(v1::PutWholeReply { epoch: self.state.epoch.0, status })
    }
}

fn whole(
    at: &str,
    overwrite: bool,
    bits: u32,
    (replication, chunk_size): (u32, u64),
    chunk: Option<WrittenChunk>,
) -> Result<Whole, Status> {
    let path = path(at)?;
    let operation = Operation::PutWhole {
        mode: mode(bits, FILE_MODE, &path)?,
        path: path.clone(),
        overwrite,
        // Values that do not fit are out of the limits and refused as such.
        replication: u8::try_from(replication).unwrap_or(u8::MAX),
        chunk_size: u32::try_from(chunk_size).unwrap_or(u32::MAX),
        chunk,
    };
    Ok(Whole { path, operation, replication, chunk_size })
}
