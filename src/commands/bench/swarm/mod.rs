//! `bench swarm`: thousands of simulated datanodes against a real master, with measured clients beside them.
//!
//! The master is a child process; the datanodes are tasks of this one that speak the real protocol over real sockets
//! and hold chunk ids instead of bytes. So the control plane is measured at sizes that one machine cannot otherwise
//! host: reports, placement, failure detection, repair decisions, restart, garbage collection.

mod closed_loop;
mod creates;
mod data_port;
mod deletes;
mod fleet;
mod interval;
mod layout;
mod master_process;
mod metrics;
mod namespace_calls;
mod observation;
mod registrations;
mod report;
mod sim_node;

use std::path::Path;
use std::time::Duration;

use clap::Args;
use tokio::time::{Instant, sleep};

use self::fleet::{Fleet, FleetConfig};
use self::layout::{Layout, REPLICATION};
use self::master_process::MasterProcess;
pub(super) use self::master_process::{PLANT, Plant};
use self::metrics::Holds;
use self::namespace_calls::NamespaceCalls;
use self::observation::{Deaths, StatLoad, dead_nodes, observe, wait_reported};
use self::report::SwarmReport;
use crate::context::Context;
use crate::descriptors;
use crate::error::CommandError;
use crate::output::Output;
use crate::progress::TransferBar;

/// Identity of the first simulated datanode.
const FIRST_ID: u64 = 1;
/// Files in the namespace at most: chunk ids are reserved with a 32-bit count.
const FILES_MAX: u64 = 100_000_000;
/// File descriptors beside one for each datanode: data port, clients, children.
const DESCRIPTORS_SPARE: u64 = 1536;
/// How long all nodes may take to register, and the master to have all their reports.
const REPORTED_TIMEOUT: Duration = Duration::from_secs(600);
/// How often the gauge of replicas is looked at.
const REPLICAS_POLL: Duration = Duration::from_millis(50);
/// For how long false deaths are looked for after a restart, at most.
const RESTART_WATCH_MAX: Duration = Duration::from_secs(15);
/// Windows of the pairs of create rates in one `--window`.
const CREATE_WINDOWS: u32 = 5;
/// The master that only serves for comparison: what is deleted is collected at once.
const REFERENCE_ENVIRONMENT: [(&str, &str); 2] = [("DISTRIFS_GC_DELAY", "1"), ("DISTRIFS_GC_INTERVAL", "1")];
const REFERENCE_NODES: u64 = 3;

/// The load of a swarm of datanodes on one master.
#[derive(Debug, Args)]
#[command(
    after_help = "It starts masters of its own, as child processes with the settings of the environment, in a temporary \
    folder (TMPDIR), which it removes. --master and --running do not apply. Each datanode is a task that keeps a real \
    session and holds chunk ids instead of bytes; copies take no time. Files have one chunk and three replicas.\n\n\
    Phases: fill the namespace; register all, then report all blocks (bytes_per_replica is what the master's resident \
    memory grows by from the first report to the last); create and abandon files in turns with a master of 3 datanodes \
    (create_ratio: median of 11 pairs, with its 95 % bootstrap interval); kill PERCENT of the nodes, whole racks first, \
    and watch with 8 clients in stat, 4 in mkdir (--rate) and a scrape every 100 ms; let them return (needless_copies: copies \
    ordered within two windows after all have reported); kill -9 the master and start it again; put and remove small \
    files on an empty master of 3 datanodes for four windows, of which the last three count; register --register new \
    identities.\n\n\
    Of the JSON keys: first_copy_order_ms counts from when the first killed node has been silent for the heartbeat \
    timeout; false_dead is the largest number of nodes shown as dead at any scrape, or in the list of nodes, that were \
    not down for that long; deletes_per_s is (files removed - growth of distrifs_namespace_tombstones) / seconds, \
    delete_ratio its share of the puts in the same seconds, above 1 while the tombstones of the first window go; \
    longest_hold_ms is the largest distrifs_lock_hold_seconds_max at the end of any phase, in wall time: where other \
    threads took the processor from the holder, that time counts. longest_hold_cpu_ms is its processor time, taken for \
    one hold in 16, and most_hold_items how many nodes, chunks and replicas one hold looked at, which does not depend on \
    the machine; kill_holds counts the holds of all locks while the nodes were dead, kill_holds_beyond_5_ms those of \
    more than 5 ms; latencies count from the intended start of a call, in a closed loop they are corrected for coordinated omission; driver_lag_ms is how late the simulated nodes were at most because this machine was busy: beyond the heartbeat interval, false_dead says nothing about the master. Goals are shown and not judged: the exit \
    status is 0 when the run was completed.\n\n\
    Example:\n  distrifs bench swarm\n  distrifs bench swarm --nodes 2000 --replicas 3000 --kill 10 --json\n  \
    distrifs bench swarm --nodes 1000 --racks 20 --kill 5 --watch 60 --clients 128\n  \
    distrifs bench swarm --nodes 40 --replicas 30 --window 1 --watch 12 --seed 7\n  \
    distrifs bench swarm --nodes 100 --register 65536"
)]
pub(crate) struct Swarm {
    /// Datanodes
    #[arg(long, value_name = "N", default_value_t = 300,
          value_parser = clap::value_parser!(u64).range(6..=60_000))]
    nodes: u64,
    /// Replicas on each of them
    #[arg(long, value_name = "M", default_value_t = 300,
          value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    replicas: u64,
    /// How many of the nodes fail at once
    #[arg(long, value_name = "PERCENT", default_value_t = 10, value_parser = clap::value_parser!(u64).range(0..=50))]
    kill: u64,
    /// Racks
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u64).range(3..=10_000))]
    racks: u64,
    /// Creations, and puts, in flight
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..=4096))]
    clients: u64,
    /// Stats and mkdirs a second while nodes are dead or the master starts again; 0: as fast as they go
    #[arg(long, value_name = "OPS", default_value_t = 1000,
          value_parser = clap::value_parser!(u64).range(0..=1_000_000))]
    rate: u64,
    /// Length of a measuring window; a fifth of it for each of the 22 windows of creations
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = crate::options::seconds)]
    window: Duration,
    /// For how long the cluster is watched after the kill: longer than the heartbeat timeout
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = crate::options::seconds)]
    watch: Duration,
    /// In the end, also register so many new datanodes, each for a moment
    #[arg(long, value_name = "COUNT", default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=10_000_000))]
    register: u64,
    /// For the placement of replicas, the files that are looked up and the ids of requests
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// The phase that is shown on standard error.
struct Phase {
    quiet: bool,
    bar: Option<TransferBar>,
}

impl Phase {
    fn begin(&mut self, what: &str) {
        self.end();
        tracing::info!(phase = what, "bench swarm");
        self.bar = Some(TransferBar::new(self.quiet, &format!("bench swarm: {what}")));
    }

    fn end(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish();
        }
    }
}

impl Drop for Phase {
    fn drop(&mut self) {
        self.end();
    }
}

/// A master, its datanodes and a connection to it.
struct Side {
    // Dropped in this order: datanodes that lose their master would only try to find it again.
    fleet: Fleet,
    calls: NamespaceCalls,
    master: MasterProcess,
}

/// A run in progress.
struct Run<'a> {
    swarm: &'a Swarm,
    context: &'a Context,
    folder: &'a Path,
    layout: Layout,
    report: SwarmReport,
    holds: Holds,
    phase: Phase,
}

impl Swarm {
    /// # Errors
    /// Options that do not fit together.
    pub(super) fn check(&self, foreign: bool) -> Result<(), CommandError> {
        let refuse = |why: String| Err(CommandError::Usage(why));
        if foreign {
            return refuse(
                "bench swarm starts masters of its own: leave out --master and --running".to_owned(),
            );
        }
        if self.racks > self.nodes {
            return refuse(format!("--racks {} is more than --nodes {}", self.racks, self.nodes));
        }
        let files = self.nodes.saturating_mul(self.replicas) / REPLICATION;
        if files > FILES_MAX {
            return refuse(format!("{files} files are more than {FILES_MAX}: lower --nodes or --replicas"));
        }
        if self.window.is_zero() {
            return refuse("--window must be longer than 0".to_owned());
        }
        Ok(())
    }

    /// Runs all phases in a folder of its own and prints what they found. Dropped before its end, it kills its masters
    /// and then removes the folder.
    pub(super) async fn run(&self, context: &Context, output: &mut Output) -> Result<(), CommandError> {
        let timeout = context.settings.heartbeat_timeout;
        if self.watch <= timeout {
            let why = format!("--watch must be longer than the heartbeat timeout of {timeout:?}");
            return Err(CommandError::Usage(why));
        }
        descriptors::require(self.nodes + DESCRIPTORS_SPARE).map_err(CommandError::Check)?;
        let folder = tempfile::Builder::new().prefix("distrifs-bench-").tempdir();
        let folder =
            folder.map_err(|e| CommandError::local(&std::env::temp_dir(), "make a folder in it", e))?;
        let mut run = Run {
            swarm: self,
            context,
            folder: folder.path(),
            layout: Layout::new(self.nodes, self.racks, self.replicas, self.seed),
            report: SwarmReport { load_average: load_average(), ..SwarmReport::default() },
            holds: Holds::default(),
            phase: Phase { quiet: context.options.quiet, bar: None },
        };
        run.all().await?;
        run.phase.end();
        let report = run.report;
        let path = folder.path().to_owned();
        folder.close().map_err(|e| CommandError::local(&path, "remove it", e))?;
        report.print(output)
    }
}

impl Run<'_> {
    async fn all(&mut self) -> Result<(), CommandError> {
        self.phase.begin("fill the namespace");
        let mut main = self.start_main().await?;
        self.report_blocks(&main).await?;
        self.creates(&main).await?;
        self.kill(&main).await?;
        self.power_on(&main).await?;
        self.restart(&mut main).await?;
        self.deletes().await?;
        self.register(&main).await?;
        self.report.master_cpu_s = main.master.cpu_seconds();
        self.report.driver_lag_ms = ms(main.fleet.lag_max());
        if let Some(hold) = self.holds.longest() {
            self.report.longest_hold_ms = Some(hold.seconds * 1000.0);
            self.report.longest_hold_lock = Some(hold.lock.clone());
            self.report.longest_hold_items = hold.items.map(|items| items as u64);
            self.report.longest_hold_phase = Some(hold.phase);
            let (cpu, items) = self.holds.most();
            self.report.longest_hold_cpu_ms = cpu.map(|seconds| seconds * 1000.0);
            self.report.most_hold_items = items.map(|items| items as u64);
        }
        Ok(())
    }

    async fn note_holds(&mut self, phase: &'static str, main: &Side) -> Result<(), CommandError> {
        self.holds.note(phase, &main.master.scrape().await?);
        Ok(())
    }

    /// Phase 1: the namespace, the main master on it, and its datanodes.
    async fn start_main(&mut self) -> Result<Side, CommandError> {
        let folder = self.folder.join("main");
        let files = self.layout.chunks();
        let first_chunk = master_process::plant(&folder, files).await?;
        self.phase.begin("start the master");
        let master = MasterProcess::start(self.context, folder, &[]).await?;
        (self.report.nodes, self.report.replicas) = (self.layout.nodes(), self.layout.replicas());
        self.report.files = files;
        let began = Instant::now();
        self.phase.begin("register the datanodes");
        let side = self.join(master, self.layout, Some(first_chunk)).await?;
        self.report.register_s = began.elapsed().as_secs_f64();
        observation::prepare(&side.calls).await?;
        self.note_holds("register", &side).await?;
        Ok(side)
    }

    /// Datanodes and a connection for a master. The nodes have registered, and have not sent their reports.
    async fn join(
        &self,
        master: MasterProcess,
        layout: Layout,
        first_chunk: Option<u64>,
    ) -> Result<Side, CommandError> {
        let fleet = Fleet::start(FleetConfig {
            layout,
            master: master.address().clone(),
            first_id: FIRST_ID,
            first_chunk,
            patience: self.context.settings.socket_timeout,
        })?;
        fleet.wait_registered(REPORTED_TIMEOUT).await?;
        let calls = NamespaceCalls::connect(master.address(), self.swarm.seed).await?;
        Ok(Side { fleet, calls, master })
    }

    /// A master of three empty datanodes.
    async fn start_reference(&self, name: &str) -> Result<Side, CommandError> {
        let master =
            MasterProcess::start(self.context, self.folder.join(name), &REFERENCE_ENVIRONMENT).await?;
        let layout = Layout::new(REFERENCE_NODES, REFERENCE_NODES, 1, self.swarm.seed);
        let side = self.join(master, layout, None).await?;
        side.fleet.open_reports();
        wait_reported(&side.calls, &side.fleet, REPORTED_TIMEOUT).await?;
        Ok(side)
    }

    /// Phase 3: all block reports at once.
    async fn report_blocks(&mut self, main: &Side) -> Result<(), CommandError> {
        self.phase.begin("report all blocks");
        let before = main.master.resident_bytes();
        let began = Instant::now();
        main.fleet.open_reports();
        let wanted = self.layout.replicas();
        loop {
            let scrape = main.master.scrape().await?;
            let known = scrape.value("distrifs_cluster_replicas").unwrap_or_default() as u64;
            if known >= wanted {
                break;
            }
            if began.elapsed() > REPORTED_TIMEOUT {
                let text =
                    format!("the master knows {known} of {wanted} replicas after {REPORTED_TIMEOUT:?}");
                return Err(CommandError::TimedOut(text));
            }
            sleep(REPLICAS_POLL).await;
        }
        self.report.report_s = began.elapsed().as_secs_f64();
        let grown = main.master.resident_bytes().saturating_sub(before);
        self.report.bytes_per_replica = grown as f64 / wanted as f64;
        wait_reported(&main.calls, &main.fleet, REPORTED_TIMEOUT).await?;
        self.note_holds("report", main).await
    }

    /// Phase 4: creations, against a master that has only three datanodes to choose from.
    async fn creates(&mut self, main: &Side) -> Result<(), CommandError> {
        self.phase.begin("create and abandon files");
        let reference = self.start_reference("reference").await?;
        let window = self.swarm.window / CREATE_WINDOWS;
        let clients = self.swarm.clients;
        let rates = creates::compare(&main.calls, &reference.calls, clients, window, self.swarm.seed).await?;
        let report = &mut self.report;
        (report.creates_per_s, report.creates_per_s_3_nodes) = (rates.main, rates.reference);
        (report.create_ratio, report.create_errors) = (rates.ratio.median, rates.errors);
        (report.create_ratio_low, report.create_ratio_high) = (rates.ratio.low, rates.ratio.high);
        self.note_holds("create", main).await
    }

    fn stat_load(&self) -> StatLoad {
        StatLoad { files: self.layout.chunks(), seed: self.swarm.seed, rate: self.swarm.rate as f64 }
    }

    fn note_false_dead(&mut self, seen: u64) {
        self.report.false_dead = self.report.false_dead.max(seen);
    }

    /// Phase 5: the first nodes lose their power.
    async fn kill(&mut self, main: &Side) -> Result<(), CommandError> {
        self.phase.begin("kill datanodes");
        let timeout = self.context.settings.heartbeat_timeout;
        let killed = self.layout.killed(self.swarm.kill);
        let copies_before = main.fleet.copies_ordered();
        let (holds, beyond) = Holds::counted(&main.master.scrape().await?);
        let at = Instant::now();
        main.fleet.kill(killed);
        let watch = (timeout, self.swarm.watch);
        let http = main.master.http()?;
        let seen = observe(&main.calls, http, &main.fleet, self.stat_load(), watch).await?;
        let (declared_dead, others) = dead_nodes(&main.calls, &main.fleet).await?;
        self.note_false_dead(seen.deaths.unexpected.max(others));
        let after = Holds::counted(&main.master.scrape().await?);
        (self.report.kill_holds, self.report.kill_holds_beyond_5_ms) = (after.0 - holds, after.1 - beyond);
        let since = |from: Instant| move |it: Instant| ms(it.saturating_duration_since(from));
        let first_copy = main.fleet.first_copy();
        let report = &mut self.report;
        report.killed = killed;
        report.kill_seconds = self.swarm.watch.as_secs_f64();
        report.declared_dead = declared_dead;
        report.first_dead_after_kill_ms = seen.deaths.first_seen.map(since(at));
        report.first_copy_after_kill_ms = first_copy.map(since(at));
        let death = main.fleet.first_death(timeout);
        report.first_copy_order_ms = first_copy.zip(death).map(|(copy, death)| since(death)(copy));
        report.copies_ordered = main.fleet.copies_ordered() - copies_before;
        (report.stat_p99_ms, report.stat_max_ms) = (seen.stat.p99_ms(), seen.stat.max_ms());
        (report.mkdir_p99_ms, report.mkdir_max_ms) = (seen.mkdir.p99_ms(), seen.mkdir.max_ms());
        (report.stat_errors, report.mkdir_errors) = (seen.stat.errors, seen.mkdir.errors);
        self.note_holds("kill", main).await
    }

    /// Phase 6: the killed nodes come back with all that they had.
    async fn power_on(&mut self, main: &Side) -> Result<(), CommandError> {
        self.phase.begin("let the datanodes return");
        let began = Instant::now();
        main.fleet.power_on();
        wait_reported(&main.calls, &main.fleet, REPORTED_TIMEOUT).await?;
        self.report.return_s = began.elapsed().as_secs_f64();
        self.report.returned = self.report.killed;
        let before = main.fleet.copies_ordered();
        sleep(2 * self.swarm.window).await;
        self.report.needless_copies = main.fleet.copies_ordered() - before;
        let (_, dead) = dead_nodes(&main.calls, &main.fleet).await?;
        self.note_false_dead(dead);
        self.note_holds("return", main).await
    }

    /// Phase 7: kill -9 of the master, and its start on the same folder.
    async fn restart(&mut self, main: &mut Side) -> Result<(), CommandError> {
        self.phase.begin("restart the master");
        let began = Instant::now();
        main.master.restart().await?;
        self.report.restart_ready_s = began.elapsed().as_secs_f64();
        main.calls = NamespaceCalls::connect(main.master.address(), self.swarm.seed ^ 1).await?;
        let reported = async {
            wait_reported(&main.calls, &main.fleet, REPORTED_TIMEOUT).await?;
            Ok::<_, CommandError>(began.elapsed())
        };
        let (stat, restarted) = self.stat_load().run_until(&main.calls, reported).await?;
        self.report.restart_s = restarted?.as_secs_f64();
        (self.report.restart_stat_p99_ms, self.report.restart_stat_errors) = (stat.p99_ms(), stat.errors);
        self.phase.begin("watch the restarted master");
        let until = Instant::now() + self.swarm.watch.min(RESTART_WATCH_MAX);
        let timeout = self.context.settings.heartbeat_timeout;
        let deaths = Deaths::watch(main.master.http()?, &main.fleet, timeout, until).await;
        let (_, dead) = dead_nodes(&main.calls, &main.fleet).await?;
        self.note_false_dead(deaths.unexpected.max(dead));
        self.note_holds("restart", main).await
    }

    /// Phase 8: removals at full speed, on a master without tombstones of earlier phases.
    async fn deletes(&mut self) -> Result<(), CommandError> {
        self.phase.begin("put and remove files");
        let side = self.start_reference("deletes").await?;
        let (clients, window) = (self.swarm.clients, self.swarm.window);
        let rates = deletes::measure(&side.master, &side.calls, &side.fleet, clients, window).await?;
        let report = &mut self.report;
        report.delete_creates_per_s = rates.creates_per_s;
        report.deletes_per_s = rates.deletes_per_s;
        report.delete_ratio = rates.deletes_per_s / rates.creates_per_s.max(1e-9);
        report.delete_errors = rates.errors;
        self.holds.note("deletes", &side.master.scrape().await?);
        Ok(())
    }

    /// Phase 10: many new identities.
    async fn register(&mut self, main: &Side) -> Result<(), CommandError> {
        if self.swarm.register == 0 {
            return Ok(());
        }
        self.phase.begin("register new datanodes");
        let (address, patience) = (main.master.address(), self.context.settings.socket_timeout);
        let data_address = &main.fleet.shared().data_address;
        let done = registrations::register(address, self.swarm.register, data_address, patience).await?;
        if let Some(why) = done.refusal {
            tracing::warn!(taken = done.taken, why, "not all registrations were taken");
        }
        self.report.registered = Some(done.taken);
        self.note_holds("registrations", main).await
    }
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// Of the last minute: how busy the machine was before the run.
fn load_average() -> Option<f64> {
    std::fs::read_to_string("/proc/loadavg").ok()?.split(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit_status::ExitStatus;

    fn swarm(nodes: u64, racks: u64, replicas: u64) -> Swarm {
        Swarm {
            nodes,
            replicas,
            kill: 10,
            racks,
            clients: 1,
            rate: 0,
            window: Duration::from_secs(1),
            watch: Duration::from_secs(20),
            register: 0,
            seed: 1,
        }
    }

    #[test]
    fn options_that_do_not_fit_are_refused() {
        assert!(swarm(300, 10, 300).check(false).is_ok());
        let short = Swarm { window: Duration::ZERO, ..swarm(300, 10, 300) };
        for (name, refused) in [
            ("a running cluster", swarm(300, 10, 300).check(true)),
            ("more racks than nodes", swarm(6, 7, 300).check(false)),
            ("too many files", swarm(60_000, 10, 10_000_000).check(false)),
            ("no window", short.check(false)),
        ] {
            assert!(refused.is_err_and(|error| error.status() == ExitStatus::Usage), "{name}");
        }
    }
}
