//! What a master is told at its start.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use distrifs_engine::io::IoMode;
use distrifs_proto::latency::Delay;
use distrifs_proto::limits::{
    BLOCK_BYTES, CHUNK_BYTES_DEFAULT, CHUNK_BYTES_MAX, CHUNK_BYTES_MIN, REPLICATION_DEFAULT, REPLICATION_MAX,
};
use distrifs_proto::types::HostPort;

use crate::error::StartError;

/// Less log than this is not worth a checkpoint.
const CHECKPOINT_LOG_BYTES_MIN: u64 = 4096;

/// The leader's lease. Shorter ones take over faster from a leader that stands still, and sooner from one that only
/// waits for a slow disk. With the margin of whoever watches it, it ends well within the time that a client tries.
const LEASE_DEFAULT: Duration = Duration::from_secs(6);
/// A leader that has less time than this loses its lease for nothing, and a standby could not look at it often enough to
/// be sure that it was awake itself.
const LEASE_MIN: Duration = Duration::from_millis(500);

/// Everything that a master is told; [`MasterConfig::new`] has the documented defaults.
#[derive(Debug, Clone)]
pub struct MasterConfig {
    /// Its folder: identity, epoch, lock, lease, and the log unless `wal_dir` says otherwise.
    pub data_dir: PathBuf,
    /// Where the control plane listens; port 0 picks a free one.
    pub listen: HostPort,
    /// Where `/health` and `/metrics` are served; port 0 picks a free one, `None` serves none.
    pub http: Option<HostPort>,
    /// The log's folder (`DISTRIFS_MASTER_WAL`); `None`: `wal` in the data folder.
    pub wal_dir: Option<PathBuf>,
    /// The leader's lock (`DISTRIFS_MASTER_LOCK_PATH`); `None`: `leader.lock` in the data folder.
    pub lock_path: Option<PathBuf>,
    /// How long the leader may be silent before a standby takes over (`DISTRIFS_LEADER_LEASE`); `None`: only when its
    /// process is gone, as it must be on a file system that does not show one process what another has just written.
    pub lease: Option<Duration>,
    /// How the log reaches the disk.
    pub log_mode: IoMode,
    /// Groups and their members; `None`: as the operating system's group database has them.
    pub groups: Option<BTreeMap<String, Vec<String>>>,
    /// The user that runs the master: the superuser, beside `root`.
    pub superuser: String,
    /// The chunk size of files whose creator names none.
    pub chunk_size: u64,
    /// The replication factor of files whose creator names none.
    pub replication: u32,
    /// How often datanodes are told to send heartbeats.
    pub heartbeat_interval: Duration,
    /// Silence after which a datanode is dead.
    pub heartbeat_timeout: Duration,
    /// How often datanodes are told to send their full block report.
    pub block_report_interval: Duration,
    /// How often all files are looked through for chunks to repair.
    pub recovery_interval: Duration,
    /// How often tombstones are looked through.
    pub gc_interval: Duration,
    /// How long a dereferenced chunk is kept.
    pub gc_delay: Duration,
    /// How much log may gather before a checkpoint is taken, in bytes: what a start replays at most, twice over.
    pub checkpoint_log_bytes: u64,
    /// How long an unfinished write is kept without renewal of its lease.
    pub pending_timeout: Duration,
    /// Whether to go on when a datanode was shown more than the log has, without what was lost.
    pub accept_data_loss: bool,
    /// Stages that are held up, for tests of what names them.
    pub delays: Vec<Delay>,
}

impl MasterConfig {
    /// The documented defaults for a master on `data_dir` whose superuser is `superuser`.
    #[must_use]
    pub fn new(data_dir: impl Into<PathBuf>, superuser: impl Into<String>) -> Self {
        let local = |port| HostPort { host: "127.0.0.1".to_owned(), port };
        Self {
            data_dir: data_dir.into(),
            listen: local(9000),
            http: Some(local(9001)),
            wal_dir: None,
            lock_path: None,
            lease: Some(LEASE_DEFAULT),
            log_mode: IoMode::Auto,
            groups: None,
            superuser: superuser.into(),
            chunk_size: CHUNK_BYTES_DEFAULT,
            replication: REPLICATION_DEFAULT,
            heartbeat_interval: Duration::from_secs(3),
            heartbeat_timeout: Duration::from_secs(9),
            block_report_interval: Duration::from_secs(600),
            recovery_interval: Duration::from_secs(2),
            gc_interval: Duration::from_secs(10),
            gc_delay: Duration::from_secs(60),
            pending_timeout: Duration::from_secs(60),
            checkpoint_log_bytes: 128 << 20,
            accept_data_loss: false,
            delays: Vec::new(),
        }
    }

    /// The log's folder.
    #[must_use]
    pub fn wal_dir(&self) -> PathBuf {
        self.wal_dir.clone().unwrap_or_else(|| self.data_dir.join("wal"))
    }

    /// The folder of the checkpoints.
    #[must_use]
    pub fn checkpoint_dir(&self) -> PathBuf {
        self.data_dir.join("checkpoints")
    }

    /// The leader's lock.
    #[must_use]
    pub fn lock_path(&self) -> PathBuf {
        self.lock_path.clone().unwrap_or_else(|| self.data_dir.join("leader.lock"))
    }

    /// Refuses values that no master can work with.
    ///
    /// # Errors
    /// [`StartError::Config`] naming the first one.
    pub fn check(&self) -> Result<(), StartError> {
        let bad = |what: &'static str, why: String| Err(StartError::Config { what, why });
        if !chunk_size_fits(self.chunk_size) {
            return bad("chunk size", chunk_size_rule(self.chunk_size));
        }
        if !(1..=REPLICATION_MAX).contains(&self.replication) {
            return bad(
                "replication factor",
                format!("{} is not in 1..={REPLICATION_MAX}", self.replication),
            );
        }
        if self.checkpoint_log_bytes < CHECKPOINT_LOG_BYTES_MIN {
            return bad("checkpoint log bytes", format!("at least {CHECKPOINT_LOG_BYTES_MIN}"));
        }
        if self.superuser.is_empty() {
            return bad("superuser", "the name is empty".to_owned());
        }
        if self.data_dir == Path::new("") {
            return bad("data folder", "the path is empty".to_owned());
        }
        for (what, period) in [
            ("heartbeat interval", self.heartbeat_interval),
            ("heartbeat timeout", self.heartbeat_timeout),
            ("block report interval", self.block_report_interval),
            ("gc interval", self.gc_interval),
            ("pending timeout", self.pending_timeout),
        ] {
            if period < Duration::from_millis(1) {
                return bad(what, "it must be at least a millisecond".to_owned());
            }
        }
        if self.lease.is_some_and(|lease| lease < LEASE_MIN) {
            return bad("leader lease", format!("it must be 0 (none) or at least {LEASE_MIN:?}"));
        }
        if self.heartbeat_timeout <= self.heartbeat_interval {
            return bad("heartbeat timeout", "it must be longer than the heartbeat interval".to_owned());
        }
        Ok(())
    }
}

/// Whether files may have chunks of this size.
pub(crate) fn chunk_size_fits(bytes: u64) -> bool {
    (CHUNK_BYTES_MIN..=CHUNK_BYTES_MAX).contains(&bytes) && bytes.is_multiple_of(BLOCK_BYTES as u64)
}

/// Why [`chunk_size_fits`] said no.
pub(crate) fn chunk_size_rule(bytes: u64) -> String {
    format!("{bytes} is not a multiple of {BLOCK_BYTES} in {CHUNK_BYTES_MIN}..={CHUNK_BYTES_MAX}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_pass_and_nonsense_is_named() {
        let good = MasterConfig::new("/d", "u");
        assert!(good.check().is_ok());
        let cases: [(MasterConfig, &str); 6] = [
            (MasterConfig { chunk_size: 4097, ..good.clone() }, "chunk size"),
            (MasterConfig { replication: 0, ..good.clone() }, "replication factor"),
            (MasterConfig { superuser: String::new(), ..good.clone() }, "superuser"),
            (MasterConfig { lease: Some(Duration::ZERO), ..good.clone() }, "leader lease"),
            (MasterConfig { gc_interval: Duration::ZERO, ..good.clone() }, "gc interval"),
            (MasterConfig { heartbeat_timeout: good.heartbeat_interval, ..good }, "heartbeat timeout"),
        ];
        for (config, named) in cases {
            assert!(matches!(config.check(), Err(StartError::Config { what, .. }) if what == named));
        }
    }
}
