//! What a datanode is told at its start.

use std::path::PathBuf;
use std::time::Duration;

use distrifs_engine::io::IoMode;
use distrifs_proto::latency::Delay;
use distrifs_proto::types::HostPort;

/// Everything a datanode is told at its start; it reads no environment and no file beside its data folders.
#[derive(Debug, Clone)]
pub struct DatanodeConfig {
    /// Its data folders, at least one; made when missing.
    pub data_dirs: Vec<PathBuf>,
    /// The masters; the leader is found among them.
    pub masters: Vec<HostPort>,
    /// The data plane; port 0 takes a free one.
    pub listen: HostPort,
    /// Where others reach the data plane, where that is not `listen`.
    pub advertise: Option<HostPort>,
    /// Health and metrics; `None` for none.
    pub http: Option<HostPort>,
    /// Where the machine stands; replicas go to distinct racks where there are several.
    pub rack: String,
    /// Shard threads; `None` for one per core.
    pub shards: Option<usize>,
    /// Which body of the I/O seam.
    pub io: IoMode,
    /// The longest that a replica may go without being read whole, so that rot is found before it is met; zero: none
    /// is. Users go first as long as that time can be kept.
    pub scrub_interval: Duration,
    /// How long a silent peer is waited for.
    pub socket_timeout: Duration,
    /// Stages that are held up, for tests of what names them.
    pub delays: Vec<Delay>,
}
