//! The log of the master: recovered into a namespace, then continued.

use distrifs_engine::log::{Log, LogOptions, recover};
use distrifs_proto::types::{ClusterId, Epoch};

use crate::config::MasterConfig;
use crate::error::StartError;
use crate::folder::make_folder;
use crate::namespace::{Namespace, format};

/// Reads what was acknowledged and makes the log ready for more. Blocks.
///
/// # Errors
/// The log is damaged, another cluster's, in use, or holds what this version does not read.
pub(crate) fn open(
    config: &MasterConfig,
    cluster: ClusterId,
    epoch: Epoch,
) -> Result<(Log, Namespace), StartError> {
    let dir = config.wal_dir();
    make_folder(&dir)?;
    let mut namespace = Namespace::new(&config.superuser);
    let recovered = recover(&dir, cluster, &mut |lsn, _epoch, record| {
        let command = format::decode(record)?;
        if let Err(refused) = namespace.apply(lsn, &command) {
            // It was refused when it was live, too, and its caller told so.
            tracing::debug!(%lsn, %refused, "a logged command that was refused");
        }
        Ok(())
    })?;
    if let Some(cut) = recovered.cut() {
        tracing::warn!(
            segment = cut.sequence,
            offset = cut.offset,
            bytes = cut.bytes,
            "a torn write was cut"
        );
    }
    // A walk over everything: in debug builds, where it is no matter of minutes.
    if cfg!(debug_assertions) {
        namespace.check_invariants().map_err(|why| StartError::Broken(format!("recovered state: {why}")))?;
    }
    let mut options = LogOptions::new(dir, cluster, epoch);
    options.mode = config.log_mode;
    let log = Log::start(options, recovered)?;
    Ok((log, namespace))
}
