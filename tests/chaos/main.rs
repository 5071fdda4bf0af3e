//! A short run of faults by chance: nothing acknowledged is lost, and every replica is back and sound afterwards.

use distrifs_testkit::{bare_command, run};

const BINARY: &str = env!("CARGO_BIN_EXE_distrifs");

fn chaos(folder: &std::path::Path, arguments: &[&str]) -> distrifs_testkit::Outcome {
    let mut command = bare_command(BINARY);
    command.env("TMPDIR", folder).args(["--json", "chaos"]).args(arguments);
    run(&mut command, b"")
}

#[test]
fn nothing_acknowledged_is_lost() {
    let folder = tempfile::tempdir().expect("a folder");
    let outcome = chaos(folder.path(), &["--seed", "7", "--duration", "8", "--clients", "2"]).ok();
    let report = outcome.json().remove(0);
    assert_eq!((&report["lost"], &report["divergent"]), (&0.into(), &0.into()), "{report}");
    assert_eq!(report["restored"], true, "{report}");
    let faults = report["faults"].as_object().expect("faults by kind");
    assert!(faults.values().filter_map(serde_json::Value::as_u64).sum::<u64>() >= 3, "{report}");
    for (what, least) in [("checked_during", 1), ("files_checked", 1), ("replicas_checked", 3)] {
        assert!(report[what].as_u64() >= Some(least), "{what}: {report}");
    }
    let left = std::fs::read_dir(folder.path()).expect("a folder").count();
    assert_eq!(left, 0, "its folder is gone");
}

#[test]
fn what_cannot_be_run_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    for arguments in [&["--duration", "soon"][..], &["--datanodes", "4"], &["--clients", "0"]] {
        let refused = chaos(folder.path(), arguments).fails_with(2);
        assert!(refused.stderr.contains(arguments[0]), "{}", refused.stderr);
    }
}
