//! The cluster of a run, and what is done to it.

use std::collections::{BTreeMap, HashSet};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use distrifs_proto::types::HostPort;

use super::relay::Relay;
use super::schedule::{Fault, Schedule};
use super::small_disks::SmallDisks;
use crate::error::CommandError;
use crate::local_cluster::{Links, LocalCluster, LocalClusterConfig};

/// One leads, one waits.
const MASTERS: usize = 2;

/// The ways of a datanode to the others: what its name stands for there.
struct Ways {
    /// To each master.
    control: Vec<Relay>,
    data: Relay,
}

/// The cluster, and what is done to it.
pub(super) struct Stage {
    // Dropped in this order: nobody is left on the disks when they go.
    cluster: LocalCluster,
    config: LocalClusterConfig,
    ways: Vec<Ways>,
    disks: SmallDisks,
    /// Chunks one replica of which was damaged: never another one.
    damaged: HashSet<String>,
    faults: BTreeMap<&'static str, u64>,
}

impl Stage {
    pub(super) async fn start(folder: &Path, datanodes: u32) -> Result<Self, CommandError> {
        let failed = |error| CommandError::Check(format!("a relay: {error}"));
        let disks = SmallDisks::mount(folder);
        let mut ways = Vec::new();
        for _ in 0..datanodes {
            let mut control = Vec::new();
            for _ in 0..MASTERS {
                control.push(Relay::start().await.map_err(failed)?);
            }
            ways.push(Ways { control, data: Relay::start().await.map_err(failed)? });
        }
        let quick = [
            ("DISTRIFS_REPLICATION_FACTOR", "3"),
            ("DISTRIFS_CHUNK_SIZE", "1M"),
            ("DISTRIFS_HEARTBEAT_INTERVAL", "0.3"),
            ("DISTRIFS_HEARTBEAT_TIMEOUT", "3"),
            ("DISTRIFS_LEADER_LEASE", "1"),
            ("DISTRIFS_RECOVERY_INTERVAL", "0.5"),
            ("DISTRIFS_GC_INTERVAL", "1"),
            ("DISTRIFS_GC_DELAY", "2"),
            ("DISTRIFS_PENDING_TIMEOUT", "20"),
            // What nobody reads is found all the same before the end.
            ("DISTRIFS_SCRUB_INTERVAL", "5"),
        ];
        let link = |way: &Ways| Links {
            masters: way.control.iter().map(|relay| relay.address().clone()).collect(),
            advertise: way.data.address().clone(),
        };
        let config = LocalClusterConfig {
            folder: folder.to_owned(),
            datanodes,
            port: 0,
            environment: quick.map(|(name, value)| (name, value.to_owned())).to_vec(),
            without: &["DISTRIFS_MASTER_WAL", "DISTRIFS_MASTER_LOCK_PATH"],
            settings: None,
            links: ways.iter().map(link).collect(),
            standby: true,
        };
        let cluster = LocalCluster::start(&config).await?;
        let stage = Self { cluster, config, ways, disks, damaged: HashSet::new(), faults: BTreeMap::new() };
        for (at, way) in stage.ways.iter().enumerate() {
            for (relay, address) in way.control.iter().zip(stage.cluster.addresses()) {
                relay.lead_to(address.clone());
            }
            stage.lead_to_datanode(at)?;
        }
        Ok(stage)
    }

    /// Where masters may lead.
    pub(super) fn masters(&self) -> &[HostPort] {
        self.cluster.addresses()
    }

    /// Faults by kind.
    pub(super) fn faults(&self) -> BTreeMap<&'static str, u64> {
        self.faults.clone()
    }

    /// Datanodes whose disks can be filled.
    pub(super) fn small_disks(&self) -> usize {
        self.disks.len()
    }

    pub(super) async fn stop(self) {
        self.cluster.stop().await;
    }

    /// A datanode has another port after each start.
    fn lead_to_datanode(&self, at: usize) -> Result<(), CommandError> {
        let address = self.cluster.datanodes()[at].field("data")?;
        let address = address.parse().map_err(|error| CommandError::Check(format!("{address}: {error}")))?;
        self.ways[at].data.lead_to(address);
        Ok(())
    }

    /// One fault after the other; at the end everybody is back.
    pub(super) async fn cause_faults(
        &mut self,
        mut schedule: Schedule,
        began: Instant,
        until: Instant,
    ) -> Result<(), CommandError> {
        let too_late = loop {
            let (at, fault) = schedule.next();
            if began + at >= until {
                break fault;
            }
            tokio::time::sleep_until((began + at).into()).await;
            self.cause(fault).await?;
        };
        tokio::time::sleep_until(until.into()).await;
        // The one that came too late may have been the end of another.
        let ends = Some(too_late).filter(|fault| fault.is_end());
        for fault in ends.into_iter().chain(schedule.calm()) {
            self.cause(fault).await?;
        }
        Ok(())
    }

    async fn cause(&mut self, fault: Fault) -> Result<(), CommandError> {
        tracing::info!(?fault, "fault");
        let name = match fault {
            Fault::Kill(node) => {
                self.cluster.cut_datanode(node);
                "kill"
            }
            Fault::Restart(node) => {
                self.cluster.restart_datanode(node, &self.config).await?;
                self.lead_to_datanode(node)?;
                "restart"
            }
            Fault::Pause(node) => {
                self.cluster.pause_datanode(node, true);
                "pause"
            }
            Fault::Resume(node) => {
                self.cluster.pause_datanode(node, false);
                "resume"
            }
            Fault::Cut(node) | Fault::Mute(node) | Fault::Mend(node) => {
                let cut = !matches!(fault, Fault::Mend(_));
                self.ways[node].data.cut(cut);
                if !matches!(fault, Fault::Mute(_)) {
                    self.ways[node].control.iter().for_each(|relay| relay.cut(cut));
                }
                match fault {
                    Fault::Cut(_) => "cut",
                    Fault::Mute(_) => "mute",
                    _ => "mend",
                }
            }
            Fault::Fill(node) | Fault::Empty(node) => {
                let (done, name) = match fault {
                    Fault::Fill(_) => (self.disks.fill(node), "fill"),
                    _ => (self.disks.empty(node), "empty"),
                };
                done.map_err(|error| CommandError::Check(format!("{name} a disk: {error}")))?;
                name
            }
            Fault::Flip(number) | Fault::Lose(number) => {
                let flips = matches!(fault, Fault::Flip(_));
                if !self.damage(number, if flips { flip_byte } else { remove_replica }) {
                    return Ok(());
                }
                if flips { "flip" } else { "lose" }
            }
            Fault::KillMaster => {
                self.cluster.replace_master(&self.config).await?;
                "kill-master"
            }
            Fault::StopMaster => {
                self.cluster.supersede_master(&self.config).await?;
                "stop-master"
            }
        };
        *self.faults.entry(name).or_default() += 1;
        Ok(())
    }

    /// Does this to a replica of a chunk of which no other one was damaged; whether there was one.
    fn damage(&mut self, number: u64, how: fn(&Path, u64) -> std::io::Result<()>) -> bool {
        let datanodes = self.cluster.datanodes().len() as u64;
        let datanode = self.config.folder.join(format!("datanode-{}", number % datanodes + 1));
        let mut replicas = chunk_files(&datanode.join("chunks"));
        replicas.sort();
        replicas.retain(|path| !self.damaged.contains(&name_of(path)));
        if replicas.is_empty() {
            return false;
        }
        let path = &replicas[(number / datanodes % replicas.len() as u64) as usize];
        // It may be deleted at this moment.
        let damaged = how(path, number).is_ok();
        if damaged {
            self.damaged.insert(name_of(path));
        }
        damaged
    }
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn flip_byte(path: &Path, number: u64) -> std::io::Result<()> {
    let file = std::fs::OpenOptions::new().read(true).write(true).open(path)?;
    let length = file.metadata()?.len().max(1);
    let at = number.rotate_left(17) % length;
    let mut byte = [0];
    file.read_exact_at(&mut byte, at)?;
    byte[0] ^= 1 << (number % 8);
    file.write_all_at(&byte, at)?;
    file.sync_all()
}

fn remove_replica(path: &Path, _: u64) -> std::io::Result<()> {
    std::fs::remove_file(path)
}

/// The data files of all chunks.
fn chunk_files(chunks: &Path) -> Vec<PathBuf> {
    let entries = |folder: &Path| -> Vec<PathBuf> {
        std::fs::read_dir(folder).map(|all| all.flatten().map(|it| it.path()).collect()).unwrap_or_default()
    };
    let all = entries(chunks).into_iter().flat_map(|folder| entries(&folder));
    all.filter(|path| path.extension().is_none()).collect()
}
