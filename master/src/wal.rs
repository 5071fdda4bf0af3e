//! The log of the master: recovered into a namespace, then continued.

use std::path::Path;

use distrifs_engine::log::{Log, LogOptions, recover};
use distrifs_proto::types::{ClusterId, Epoch, Lsn};

use crate::config::MasterConfig;
use crate::error::StartError;
use crate::folder::{make_folder, write_durably};
use crate::namespace::{Namespace, format};

/// Says that a log was begun: from then on a folder without one means a loss, not a new cluster.
const BEGUN_FILE: &str = "log-begun";
const BEGUN_TEXT: &str = "distrifs-log-begun 1\n";

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
    let begun = config.data_dir.join(BEGUN_FILE);
    let was_begun = begun.exists();
    if was_begun && is_empty(&dir)? {
        let why = "the log that this master has written is not there: is its disk mounted? Bring it back, or restore \
                   the whole folder from a backup";
        return Err(StartError::Damaged { path: dir, why: why.to_owned() });
    }
    let mut namespace = Namespace::new(&config.superuser);
    let recovered = recover(&dir, cluster, Lsn(0), &mut |lsn, _epoch, record| {
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
    if !was_begun {
        write_durably(&begun, BEGUN_TEXT.as_bytes())?;
    }
    Ok((log, namespace))
}

/// Whether the folder has no segment, whatever else is in it: a fresh file system has its `lost+found`.
fn is_empty(dir: &Path) -> Result<bool, StartError> {
    let listed = || {
        for entry in std::fs::read_dir(dir)? {
            if entry?.path().extension().is_some_and(|extension| extension == "log") {
                return Ok(false);
            }
        }
        Ok(true)
    };
    listed().map_err(|source| StartError::Folder { path: dir.to_owned(), doing: "list", source })
}
