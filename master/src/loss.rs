//! A master whose log lost records that a datanode knows of, and which was told to go on without them.
//!
//! It takes one more record, which says so ([`Operation::AcceptLoss`]); as of its epoch what was shown to datanodes
//! before is no evidence any more. That epoch is above every one that the witness was shown, and the master's own has to
//! be, too: if it is not, as with an old copy of the whole folder, it is raised and the master has to start again. The
//! record comes first: with the higher epoch alone the next start would look to such datanodes as any other, and would
//! hand out chunk ids a second time.
//!
//! A datanode that shows the loss gets no answer before the record is durable: else it would be shown this epoch with
//! the loss not accepted yet, and would go on to show the loss as one of this epoch.

use std::path::Path;
use std::sync::Arc;

use distrifs_proto::types::Epoch;

use crate::cluster::Behind;
use crate::error::{MasterFailure, StartError};
use crate::leadership::Leadership;
use crate::namespace::{Command, Operation};
use crate::refusal::Refusal;
use crate::state::State;
use crate::writer::Proposer;

/// A datanode's word for a higher epoch is not believed: no cluster lives to reach it, and there have to be higher ones.
const EPOCH_BELIEVED_MAX: Epoch = Epoch(1 << 48);

/// Accepts the loss if there is one and this master was told to.
///
/// # Errors
/// The refusal; this master is behind as before, or gives up to start again in a higher epoch.
pub(crate) async fn settle(state: &Arc<State>, proposer: &Proposer) -> Result<(), Refusal> {
    if !state.config.accept_data_loss {
        return Ok(());
    }
    // All datanodes come at once: the first one has it settled for those that were shown no more.
    let _turn = state.settling.lock().await;
    let Some(behind) = state.cluster().behind().cloned() else { return Ok(()) };
    let gave_up = state.failure().borrow().is_some();
    if gave_up || behind.epoch_seen > EPOCH_BELIEVED_MAX {
        return Err(Refusal::Behind(behind));
    }
    let history = state.epoch.max(behind.epoch_seen.next());
    let operation = Operation::AcceptLoss { epoch: history };
    proposer.propose(Command::own(state.clock.wall_ms(), operation)).await?;
    if history > state.epoch {
        tell(&behind, history);
        raise_epoch(state, behind.epoch_seen).await;
        return Err(Refusal::Behind(behind));
    }
    if let Some(behind) = state.cluster().loss_accepted(history) {
        tell(&behind, history);
        state.wake_repair();
    }
    Ok(())
}

/// Refuses a start whose epoch is not that of the accepted loss yet, and sees to it that the next one's is.
///
/// # Errors
/// [`StartError::EpochRaised`], or why it cannot be raised.
pub(crate) fn check_epoch(data_dir: &Path, found: Epoch, history: Epoch) -> Result<(), StartError> {
    if found >= history {
        return Ok(());
    }
    Leadership::raise(data_dir, Epoch(history.0 - 1))?;
    Err(StartError::EpochRaised { path: data_dir.to_owned(), history, found })
}

fn tell(behind: &Behind, history: Epoch) {
    let Behind { node, epoch_seen, lsn_seen, epoch: _, lsn } = behind;
    tracing::warn!(
        %history,
        "DATA LOSS ACCEPTED. The records behind LSN {lsn} are given up; datanode {node} was shown LSN {lsn_seen} in epoch \
         {epoch_seen}. Files and directories that were made, changed or removed in them are again as they were before; \
         the bytes of a file that was removed in them may be gone (fsck tells). Unfinished writes are given up. \
         Chunks that nothing refers to any more are moved to `quarantine/` at their datanodes, never deleted. \
         Changes, repair and gc go on"
    );
}

/// The next start has an epoch above `seen`; this one is over.
async fn raise_epoch(state: &Arc<State>, seen: Epoch) {
    let folder = state.config.data_dir.clone();
    let raised = tokio::task::spawn_blocking(move || Leadership::raise(&folder, seen)).await;
    match raised {
        Ok(Ok(())) => state.fail(MasterFailure::EpochRaised { ours: state.epoch, seen }),
        Ok(Err(error)) => tracing::error!(%error, "the epoch cannot be raised: read-only as before"),
        Err(error) => tracing::error!(%error, "the epoch cannot be raised: read-only as before"),
    }
}

#[cfg(test)]
#[path = "loss_test.rs"]
mod tests;
