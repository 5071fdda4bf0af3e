//! What the processes cost: CPU time and peak memory, from `/proc`.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::local_cluster::LocalCluster;

/// The last look at each process; one that was killed since keeps its last numbers.
pub(crate) struct Usage {
    seen: BTreeMap<u32, Seen>,
}

struct Seen {
    role: Role,
    cpu_seconds: f64,
    peak_bytes: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Client,
    Master,
    Datanode,
}

/// The largest resident memory of each kind of process.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Memory {
    /// This process.
    pub(crate) client_bytes: u64,
    /// The master.
    pub(crate) master_bytes: u64,
    /// The largest datanode.
    pub(crate) datanode_bytes: u64,
}

impl Usage {
    /// The first look.
    pub(crate) fn start(cluster: &LocalCluster) -> Self {
        let mut usage = Self { seen: BTreeMap::new() };
        usage.sample(cluster);
        usage
    }

    /// Looks at all processes that live.
    pub(crate) fn sample(&mut self, cluster: &LocalCluster) {
        self.look(std::process::id(), Role::Client);
        self.look(cluster.master().pid(), Role::Master);
        for daemon in cluster.datanodes() {
            self.look(daemon.pid(), Role::Datanode);
        }
    }

    fn look(&mut self, pid: u32, role: Role) {
        let read = |file| std::fs::read_to_string(format!("/proc/{pid}/{file}")).ok();
        let cpu_seconds = read("stat").and_then(|text| cpu_seconds(&text));
        let peak_bytes = read("status").and_then(|text| peak_bytes(&text));
        if let (Some(cpu_seconds), Some(peak_bytes)) = (cpu_seconds, peak_bytes) {
            self.seen.insert(pid, Seen { role, cpu_seconds, peak_bytes });
        }
    }

    /// CPU seconds of all processes together since they began.
    pub(crate) fn cpu(&self) -> f64 {
        self.seen.values().map(|seen| seen.cpu_seconds).sum()
    }

    /// Peak memory by kind.
    pub(crate) fn memory(&self) -> Memory {
        let peak = |role| {
            self.seen.values().filter(|seen| seen.role == role).map(|seen| seen.peak_bytes).max().unwrap_or(0)
        };
        Memory {
            client_bytes: peak(Role::Client),
            master_bytes: peak(Role::Master),
            datanode_bytes: peak(Role::Datanode),
        }
    }
}

/// User and system time of `/proc/PID/stat`, of all threads.
fn cpu_seconds(stat: &str) -> Option<f64> {
    // The name of the program stands in parentheses and may hold anything.
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut times = fields.split(' ').skip(11).map(str::parse::<u64>);
    let (user, system) = (times.next()?.ok()?, times.next()?.ok()?);
    Some((user + system) as f64 / rustix::param::clock_ticks_per_second() as f64)
}

/// `VmHWM` of `/proc/PID/status`.
fn peak_bytes(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kib| kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_found_behind_any_program_name() {
        let ticks = rustix::param::clock_ticks_per_second() as f64;
        let stat = "7 (a) b ) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0 20";
        assert_eq!(cpu_seconds(stat), Some(300.0 / ticks));
        assert_eq!(cpu_seconds("7 (a) S 1 2"), None);
    }

    #[test]
    fn peak_memory_is_read_in_bytes() {
        assert_eq!(peak_bytes("Name:\tx\nVmHWM:\t    2048 kB\nVmRSS:\t 1 kB\n"), Some(2 << 20));
        assert_eq!(peak_bytes("Name:\tx\n"), None);
    }
}
