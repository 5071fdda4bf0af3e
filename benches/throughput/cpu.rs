//! CPU seconds and memory of processes, from `/proc`.

use anyhow::Context;

/// CPU seconds spent so far.
pub(crate) struct CpuSeconds(f64);

impl CpuSeconds {
    /// Of this process, of its children that have ended, and of `others`.
    pub(crate) fn of(others: &[u32]) -> anyhow::Result<Self> {
        let own = stat_fields("self")?;
        let mut ticks: u64 = own[..4].iter().sum();
        for pid in others {
            ticks += stat_fields(&pid.to_string())?[..2].iter().sum::<u64>();
        }
        Ok(Self(ticks as f64 / rustix::param::clock_ticks_per_second() as f64))
    }

    pub(crate) fn since(&self, before: &Self) -> f64 {
        self.0 - before.0
    }
}

/// utime, stime, cutime and cstime (proc_pid_stat(5), fields 14 to 17).
fn stat_fields(pid: &str) -> anyhow::Result<[u64; 4]> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name in parentheses may hold anything; behind it comes field 3.
    let rest = text.rsplit_once(')').context("a process's stat")?.1;
    let mut fields = rest.split_whitespace().skip(11);
    let mut next = || fields.next().context("a process's stat")?.parse::<u64>().context("ticks");
    Ok([next()?, next()?, next()?, next()?])
}

/// The most memory a process ever had resident, in KiB.
pub(crate) fn peak_resident_kib(pid: u32) -> anyhow::Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("VmHWM")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}
