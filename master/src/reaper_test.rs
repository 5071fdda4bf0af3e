//! The reaper and the expiry of leases on a running master: both go on until nothing is left, one bounded command after
//! the other, and a restart agrees with what they did.

use std::time::Duration;

use crate::Master;
use crate::namespace::{Answer, Command, NsPath, Operation};
use crate::serve_test::{config, folder, start};

/// Far beyond what either takes: a test that hangs is to end.
const DEADLINE: Duration = Duration::from_secs(60);

fn path(text: &str) -> NsPath {
    NsPath::parse(text).expect("a path")
}

async fn propose(master: &Master, operation: Operation) -> Answer {
    master.proposer().propose(Command::own(1, operation)).await.expect("done")
}

async fn wait(master: &Master, what: &str, done: impl Fn(&Master) -> bool) {
    let waiting = async {
        while !done(master) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(DEADLINE, waiting).await.is_ok(), "{what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_tree_is_freed_and_a_restart_agrees() {
    let dir = folder();
    let master = start(config(dir.path())).await;
    propose(&master, Operation::Mkdir { path: path("/d"), parents: false, mode: 0o755 }).await;
    for file in 0..1500 {
        let put = Operation::PutWhole {
            path: path(&format!("/d/{file}")),
            overwrite: false,
            mode: 0o644,
            replication: 1,
            chunk_size: 64 << 10,
            chunk: None,
        };
        propose(&master, put).await;
    }
    assert!(!master.state().namespace().wants_bounded_rules(), "they came with one of the mutations");
    propose(&master, Operation::Remove { path: path("/d"), recursive: true }).await;
    wait(&master, "all is freed", |it| it.state().namespace().counts().files == 0).await;
    wait(&master, "nothing waits", |it| it.state().namespace().doomed_count() == 0).await;
    let expected = master.state().namespace().clone();
    assert_eq!(expected.check_invariants(), Ok(()));
    assert_eq!(expected.counts().directories, 1, "the root");
    master.stop().await;
    let master = start(config(dir.path())).await;
    assert!(*master.state().namespace() == expected, "replay differs from live");
    master.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_leases_that_ended_expire_although_one_command_takes_some_of_them() {
    let dir = folder();
    let mut config = config(dir.path());
    config.pending_timeout = Duration::from_millis(100);
    let master = start(config).await;
    for file in 0..700 {
        let create = Operation::Create {
            path: path(&format!("/{file}")),
            overwrite: false,
            mode: 0o644,
            replication: 1,
            chunk_size: 64 << 10,
            lease_until_ms: 5,
            chunk: None,
        };
        propose(&master, create).await;
    }
    wait(&master, "all have expired", |it| it.state().namespace().open_count() == 0).await;
    master.stop().await;
}
