//! What is measured of a cluster beside the time: its memory; and its replicas brought into the page cache.

use std::path::Path;

use distrifs_testkit::files_below;

use crate::cpu::peak_resident_kib;

/// The peaks of the master and of each datanode, for people.
pub(crate) fn peak_memory(pids: &[u32]) -> anyhow::Result<String> {
    let mib = |&pid| Ok::<_, anyhow::Error>((peak_resident_kib(pid)? >> 10).to_string());
    let all: Vec<_> = pids.iter().map(mib).collect::<Result<_, _>>()?;
    Ok(format!("master {}, datanodes {}", all[0], all[1..].join(" ")))
}

/// Reads every file of the cluster once.
pub(crate) fn cache_replicas(folder: &Path) -> anyhow::Result<()> {
    for file in files_below(folder) {
        std::io::copy(&mut std::fs::File::open(file)?, &mut std::io::sink())?;
    }
    Ok(())
}
