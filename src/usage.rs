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
    name: String,
    cpu_seconds: f64,
    peak_bytes: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
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

/// What one process cost.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct ProcessUsage {
    /// Such as `client`, `master` or `datanode-1`.
    pub(crate) name: String,
    /// User and system time of the span that was looked at.
    pub(crate) cpu_seconds: f64,
    /// The largest resident memory since it began.
    pub(crate) peak_bytes: u64,
}

impl Usage {
    /// The first look.
    pub(crate) fn start(cluster: &LocalCluster) -> Self {
        let mut usage = Self { seen: BTreeMap::new() };
        usage.sample(cluster);
        usage
    }

    /// A look at this process alone.
    pub(crate) fn own() -> Self {
        let mut usage = Self { seen: BTreeMap::new() };
        usage.look(std::process::id(), Role::Client, "client");
        usage
    }

    /// Looks at all processes that live.
    pub(crate) fn sample(&mut self, cluster: &LocalCluster) {
        self.look(std::process::id(), Role::Client, "client");
        self.look(cluster.master().pid(), Role::Master, "master");
        for daemon in cluster.datanodes() {
            self.look(daemon.pid(), Role::Datanode, daemon.name());
        }
    }

    /// Each process: what it spent since an earlier look. The client is the first, then the master.
    pub(crate) fn since(&self, before: &Self) -> Vec<ProcessUsage> {
        let spent = |(pid, seen): (&u32, &Seen)| ProcessUsage {
            name: seen.name.clone(),
            cpu_seconds: seen.cpu_seconds - before.seen.get(pid).map_or(0.0, |earlier| earlier.cpu_seconds),
            peak_bytes: seen.peak_bytes,
        };
        let mut all: Vec<&u32> = self.seen.keys().collect();
        all.sort_by_key(|pid| (self.seen[*pid].role, &self.seen[*pid].name));
        all.into_iter().map(|pid| spent((pid, &self.seen[pid]))).collect()
    }

    fn look(&mut self, pid: u32, role: Role, name: &str) {
        let read = |file| std::fs::read_to_string(format!("/proc/{pid}/{file}")).ok();
        let cpu_seconds = read("stat").and_then(|text| cpu_seconds(&text));
        let peak_bytes = read("status").and_then(|text| peak_bytes(&text));
        if let (Some(cpu_seconds), Some(peak_bytes)) = (cpu_seconds, peak_bytes) {
            self.seen.insert(pid, Seen { role, name: name.to_owned(), cpu_seconds, peak_bytes });
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

/// CPU seconds of this process and of its children that have ended.
pub(crate) fn cpu_with_ended_children() -> f64 {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    times(&text).map_or(0.0, |[user, system, of_children, system_of_children]| {
        seconds(user + system + of_children + system_of_children)
    })
}

/// CPU seconds of a process, of all its threads; `None` when it is not there.
pub(crate) fn cpu_seconds_of(pid: u32) -> Option<f64> {
    cpu_seconds(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// Resident memory of a process; `None` when it is not there.
pub(crate) fn resident_bytes_of(pid: u32) -> Option<u64> {
    status_bytes(&std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?, "VmRSS:")
}

/// User and system time of `/proc/PID/stat`, of all threads.
fn cpu_seconds(stat: &str) -> Option<f64> {
    times(stat).map(|[user, system, ..]| seconds(user + system))
}

/// Ticks of user and system time; the same of the children that were waited for.
fn times(stat: &str) -> Option<[u64; 4]> {
    // The name of the program stands in parentheses and may hold anything.
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut times = fields.split(' ').skip(11).map_while(|field| field.parse::<u64>().ok());
    Some([times.next()?, times.next()?, times.next()?, times.next()?])
}

fn seconds(ticks: u64) -> f64 {
    ticks as f64 / rustix::param::clock_ticks_per_second() as f64
}

/// `VmHWM` of `/proc/PID/status`.
fn peak_bytes(status: &str) -> Option<u64> {
    status_bytes(status, "VmHWM:")
}

/// A size in `/proc/PID/status`.
fn status_bytes(status: &str, key: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
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
    fn each_process_is_told_with_what_it_spent_since() {
        let seen =
            |role, name: &str, cpu_seconds| Seen { role, name: name.into(), cpu_seconds, peak_bytes: 5 };
        let usage = |seen: Vec<(u32, Seen)>| Usage { seen: seen.into_iter().collect() };
        let before = usage(vec![(9, seen(Role::Client, "client", 1.0))]);
        let after = usage(vec![
            (7, seen(Role::Datanode, "datanode-1", 2.0)),
            (8, seen(Role::Master, "master", 3.0)),
            (9, seen(Role::Client, "client", 1.5)),
        ]);
        let told: Vec<_> = after.since(&before).into_iter().map(|it| (it.name, it.cpu_seconds)).collect();
        let expected = [("client", 0.5), ("master", 3.0), ("datanode-1", 2.0)];
        assert_eq!(told, expected.map(|(name, cpu)| (name.to_owned(), cpu)));
    }

    #[test]
    fn peak_memory_is_read_in_bytes() {
        assert_eq!(peak_bytes("Name:\tx\nVmHWM:\t    2048 kB\nVmRSS:\t 1 kB\n"), Some(2 << 20));
        assert_eq!(peak_bytes("Name:\tx\n"), None);
        assert_eq!(status_bytes("VmHWM:\t 2 kB\nVmRSS:\t    1 kB\n", "VmRSS:"), Some(1024));
    }
}
