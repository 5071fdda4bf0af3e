//! A process that is killed in the middle of appending: this program, started again as a child.

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use distrifs_engine::io::IoMode;
use tokio::task::JoinSet;

use super::{MODES, open, record, runtime, start};

const DIR: &str = "DISTRIFS_TEST_LOG_DIR";
const MODE: &str = "DISTRIFS_TEST_LOG_MODE";
const TASKS: usize = 8;

/// The child: appends until it is killed.
#[test]
#[ignore = "started by the test below"]
fn child_appends_until_it_is_killed() {
    let (Ok(dir), Ok(mode)) = (std::env::var(DIR), std::env::var(MODE)) else { return };
    let log = start(&PathBuf::from(dir), mode.parse::<IoMode>().expect("a mode"));
    runtime().block_on(async {
        let mut tasks = JoinSet::new();
        for task in 0..TASKS {
            let log = log.clone();
            tasks.spawn(async move {
                for i in 0.. {
                    let lsns = log.append(vec![record(task * 100_000 + i)]).await.expect("an append");
                    let mut out = std::io::stdout().lock();
                    writeln!(out, "acknowledged {} {}", lsns.start, task * 100_000 + i).expect("the parent");
                }
            });
        }
        while tasks.join_next().await.is_some() {}
    });
}

#[test]
fn what_a_killed_process_had_acknowledged_is_there() {
    for mode in MODES {
        let dir = tempfile::tempdir().expect("a folder");
        let mut before = 0;
        for lines in [1, 40, 400] {
            let mut child = Command::new(std::env::current_exe().expect("this program"))
                .args([
                    "--ignored",
                    "--exact",
                    "kill::child_appends_until_it_is_killed",
                    "--nocapture",
                    "--test-threads=1",
                ])
                .env(DIR, dir.path())
                .env(MODE, mode.to_string())
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .expect("a child");
            let mut out = BufReader::new(child.stdout.take().expect("its output"));
            let mut acknowledged = Vec::new();
            let mut line = String::new();
            let mut killed = false;
            // What it had said before it died counts as well.
            while out.read_line(&mut line).expect("its output") > 0 {
                if let Some((_, said)) = line.trim_end_matches('\n').split_once("acknowledged ")
                    && line.ends_with('\n')
                    && let Some((lsn, number)) = said.split_once(' ')
                {
                    acknowledged
                        .push((lsn.parse::<usize>().expect("an LSN"), number.parse().expect("a number")));
                }
                line.clear();
                if acknowledged.len() >= lines && !killed {
                    child.kill().expect("a kill");
                    killed = true;
                }
            }
            child.wait().expect("its end");
            assert!(acknowledged.len() >= lines, "{mode}: the child said only {acknowledged:?}");

            let (found, _) = open(dir.path());
            for (lsn, number) in &acknowledged {
                assert_eq!(found.get(lsn - 1), Some(&record(*number).to_vec()), "{mode}: LSN {lsn}");
            }
            assert!(found.len() >= before + acknowledged.len());
            before = found.len();
        }
    }
}
