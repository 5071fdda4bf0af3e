//! Small files: their one chunk is granted, written, and then made a file of, which is the only change that is logged.

use std::sync::Arc;

use distrifs_proto::grpc::v1;
use distrifs_proto::limits::GRANTS_PER_CALL_MAX;
use distrifs_proto::types::ChunkId;
use tonic::Status;

use super::writes::{demand_nodes, excluded};
use super::{Api, convert, invalid, mismatch, mode, path, request_id};
use crate::cluster::{Endpoint, GRANTS_MAX, RESERVED_IDS, Wanted};
use crate::namespace::{
    Answer, Command, FILE_MODE, FIRST_GENERATION, NamespaceError, NsPath, Operation, Place, WrittenChunk,
};
use crate::permission::Caller;
use crate::refusal::Refusal;
use crate::trail::{self, Trail};

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
        let count = ask.count.clamp(1, GRANTS_PER_CALL_MAX) as usize;
        let granted = self.grant(&path, &caller, wanted, count).await?;
        let plan = |(chunk, hops): Granted| v1::WritePlan {
            chunk_id: chunk.0,
            generation: FIRST_GENERATION.0,
            hops: hops.into_iter().map(convert::node).collect(),
        };
        let plans = granted.into_iter().map(plan).collect();
        let grant_ms = self.lease_ms().unsigned_abs();
        Ok(v1::GrantChunkReply { epoch: self.state.epoch.0, plans, replication, chunk_size, grant_ms })
    }

    async fn grant(
        &self,
        path: &NsPath,
        caller: &Arc<Caller>,
        wanted: Wanted<'_>,
        count: usize,
    ) -> Result<Vec<Granted>, Refusal> {
        for _ in 0..GRANT_TRIES_MAX {
            let (granted, runs_low) = self.try_grant(path, caller, wanted, count)?;
            let reserving = runs_low.then(|| {
                // It goes on when whoever asked has gone: what is reserved is for the next ones.
                let (api, waits) = (self.clone(), granted.is_empty());
                let trail = Trail::current().filter(|_| waits);
                tokio::spawn(trail::follow(trail, async move { api.reserve().await }))
            });
            if !granted.is_empty() {
                return Ok(granted);
            }
            match reserving {
                Some(reserving) => match reserving.await {
                    Ok(reserved) => reserved?,
                    Err(_) => return Err(Refusal::Stopping { place: Place::Path(path.clone()) }),
                },
                None => drop(self.state.reserving.lock().await),
            }
        }
        Err(Refusal::Busy { place: Place::Path(path.clone()) })
    }

    /// Grants as many chunks, or as there are ids for; says whether more of those should be reserved.
    fn try_grant(
        &self,
        path: &NsPath,
        caller: &Arc<Caller>,
        wanted: Wanted<'_>,
        count: usize,
    ) -> Result<(Vec<Granted>, bool), Refusal> {
        let now_ms = self.state.clock.now_ms();
        let until_ms = now_ms.saturating_add(self.lease_ms().unsigned_abs());
        let mut cluster = self.state.cluster();
        cluster.behind().cloned().map_or(Ok(()), Err)?;
        // Where nothing can be written, nothing is reserved.
        let nowhere = |source| Refusal::Placement { path: path.clone(), source };
        cluster.placeable(now_ms, wanted).map_err(nowhere)?;
        if cluster.grants.is_full() {
            let (path, max) = (path.to_string(), GRANTS_MAX as u64);
            return Err(NamespaceError::Limit { path, what: "granted chunks", max }.into());
        }
        let mut granted = Vec::with_capacity(count);
        while granted.len() < count && !cluster.grants.is_dry() && !cluster.grants.is_full() {
            // Each takes room from the next one.
            let Ok(hops) = cluster.place(now_ms, wanted, rand::random()) else { break };
            let nodes = hops.iter().map(|hop| hop.node).collect();
            let Some(chunk) = cluster.grants.grant(caller.clone(), nodes, until_ms) else { break };
            granted.push((chunk, hops));
        }
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
