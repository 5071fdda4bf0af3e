use std::sync::Arc;

use distrifs_proto::types::{ChunkId, ClusterId, Crc32c, Epoch, GenerationStamp, Lsn, NodeId};

use super::{Cluster, Leader, Registration, Replica, SessionId, Timing, Verdict};
use crate::namespace::Reserved;
use crate::permission::Caller;

const TIMING: Timing = Timing { heartbeat_interval_ms: 10, heartbeat_timeout_ms: 30, return_ms: 0 };
const LEADER: Leader =
    Leader { cluster: ClusterId(7), epoch: Epoch(5), durable: Lsn(100), history: Epoch(0) };
const AGE_MS: u64 = 1000;
const NOW: u64 = 100;

/// A cluster with one node that has seen this LSN and holds these chunks.
fn world(lsn_seen: u64, held: &[u64]) -> (Cluster, SessionId) {
    let mut cluster = Cluster::new(TIMING, 0);
    let registration = Registration {
        cluster: Some(ClusterId(7)),
        id: NodeId(1),
        address: "n1:1".to_owned(),
        rack: String::new(),
        epoch_seen: Epoch(5),
        lsn_seen: Lsn(lsn_seen),
    };
    let session = cluster.register(NOW, LEADER, registration).expect("joins");
    let replica = |id: &u64| {
        let chunk = ChunkId(*id);
        Replica { chunk, generation: GenerationStamp(2), length: 9, crc: Crc32c(5), corrupt: false }
    };
    let held: Vec<Replica> = held.iter().map(replica).collect();
    cluster.report_part(NOW, session, &held, (true, true), |_| Verdict::Fine).expect("reports");
    (cluster, session)
}

#[test]
fn what_stays_unknown_is_moved_and_what_is_known_is_not() {
    let (mut cluster, session) = world(100, &[1, 2, 3]);
    let unknown = |chunk: ChunkId| chunk != ChunkId(2);
    assert!(cluster.orphans(NOW, AGE_MS, unknown).is_empty(), "just seen");
    assert_eq!(cluster.orphan_count(), 2);
    assert!(cluster.orphans(NOW + AGE_MS - 1, AGE_MS, unknown).is_empty(), "not old enough");
    // One of them is of a file that was in the making.
    let unknown = |chunk: ChunkId| chunk == ChunkId(3);
    let of_three = vec![(session, vec![(ChunkId(3), GenerationStamp(2))])];
    assert_eq!(cluster.orphans(NOW + AGE_MS, AGE_MS, unknown), of_three);
    assert_eq!(cluster.orphans(NOW + AGE_MS, AGE_MS, unknown), of_three, "until it is gone");
    cluster.changed(NOW, session, &[], &[ChunkId(3)]).expect("fine");
    assert!(cluster.orphans(NOW + AGE_MS, AGE_MS, unknown).is_empty());
    assert_eq!(cluster.orphan_count(), 0);
}

#[test]
fn nothing_is_moved_when_the_master_may_be_the_one_that_forgot() {
    let all = |_| true;
    let late = NOW + 10 * AGE_MS;
    let (mut behind, _) = world(101, &[1]);
    assert!(behind.orphans(NOW, AGE_MS, all).is_empty());
    assert!(behind.orphans(late, AGE_MS, all).is_empty(), "its node was shown more than this master knows");
    let (mut early, _) = world(100, &[1]);
    assert!(early.orphans(29, 0, all).is_empty(), "safe mode");
    let (mut gone, session) = world(100, &[1]);
    assert!(gone.orphans(NOW, AGE_MS, all).is_empty());
    gone.session_ended(session);
    assert!(gone.orphans(late, AGE_MS, all).is_empty(), "nobody to tell");
}

#[test]
fn what_is_granted_is_not_unknown_and_what_was_granted_is_not_before_it_is_buried() {
    let (mut cluster, session) = world(100, &[]);
    let caller = Arc::new(Caller { user: "al".into(), groups: Vec::new(), superuser: false });
    cluster.grants.reserved(Reserved { first: ChunkId(1), end: ChunkId(9), history: Epoch(0) });
    for _ in 0..2 {
        cluster.grants.grant(caller.clone(), vec![NodeId(1)], NOW + 100).expect("reserved");
    }
    cluster.grants.give_up(&caller, ChunkId(2));
    let replica = |id| {
        let chunk = ChunkId(id);
        Replica { chunk, generation: GenerationStamp(1), length: 9, crc: Crc32c(5), corrupt: false }
    };
    let held = [1, 2, 3].map(replica);
    cluster.report_part(NOW, session, &held, (true, true), |_| Verdict::Unknown).expect("reports");
    assert_eq!(cluster.views(NOW)[0].oddities.unknown, 1, "the third was reserved, not granted");
    let all = |_| true;
    assert!(cluster.orphans(NOW, AGE_MS, all).is_empty());
    assert_eq!(cluster.orphan_count(), 1);
    let moved = |ids: &[u64]| -> Vec<(SessionId, Vec<(ChunkId, GenerationStamp)>)> {
        vec![(session, ids.iter().map(|id| (ChunkId(*id), GenerationStamp(1))).collect())]
    };
    assert_eq!(cluster.orphans(NOW + AGE_MS, AGE_MS, all), moved(&[3]));
    // From here on the tombstones are what knows of them. Without these they are as good as unknown.
    assert_eq!(cluster.grants.take_ended(NOW + 100).chunks, [ChunkId(1), ChunkId(2)]);
    assert_eq!(cluster.orphans(NOW + AGE_MS, AGE_MS, all), moved(&[3]), "for as long as any others");
    assert_eq!(cluster.orphans(NOW + 2 * AGE_MS, AGE_MS, all), moved(&[1, 2, 3]));
}
