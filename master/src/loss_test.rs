//! What a datanode that was shown more brings about, over real gRPC.

use distrifs_proto::ErrorCode;
use distrifs_proto::grpc::v1::datanode_service_client::DatanodeServiceClient;
use distrifs_proto::grpc::v1::from_datanode::Body;
use distrifs_proto::grpc::{code_of, v1};
use distrifs_proto::types::{Epoch, NodeId};
use tonic::Status;

use crate::serve_test::{User, config, create, folder, start, with_nodes};
use crate::{Master, MasterConfig, MasterFailure, StartError};

/// The first answer to a node that was shown so much.
async fn register(master: &Master, node: NodeId, epoch: u64, lsn: u64) -> Result<v1::ToDatanode, Status> {
    let (cluster_id_high, cluster_id_low) = master.cluster_id().to_halves();
    let register = v1::Register {
        cluster_id_high,
        cluster_id_low,
        node_id: node.0,
        data_address: "127.0.0.1:1".into(),
        epoch_seen: epoch,
        lsn_seen: lsn,
        ..v1::Register::default()
    };
    let stream = tokio_stream::once(v1::FromDatanode { body: Some(Body::Register(register)) });
    let uri = format!("http://{}", master.grpc_address());
    let mut api = DatanodeServiceClient::connect(uri).await.expect("connects");
    let mut answers = api.session(stream).await?.into_inner();
    Ok(answers.message().await?.expect("an answer"))
}

async fn first_chunk(master: &Master) -> u64 {
    let op = User::new(master, "op").await;
    op.create(create("/f")).await.expect("opened").first_chunk.expect("a plan").chunk_id
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loss_is_accepted_before_its_witness_is_answered_and_for_good() {
    let dir = folder();
    let accepting = MasterConfig { accept_data_loss: true, ..config(dir.path()) };
    start(accepting.clone()).await.stop().await;
    let master = start(accepting).await;
    let op = User::new(&master, "op").await;
    op.mkdir("/a").await.expect("made");
    let shown = register(&master, NodeId(8), 1, 1).await.expect("registers");
    assert_eq!((shown.epoch, shown.lsn, shown.history), (2, 1, 0), "nothing is lost");
    let shown = register(&master, NodeId(9), 1, 1000).await.expect("registers");
    assert_eq!((shown.epoch, shown.lsn, shown.history), (2, 2, 2));
    op.mkdir("/b").await.expect("changes go on");
    let again = register(&master, NodeId(9), 2, 2).await.expect("registers");
    assert_eq!((again.lsn, again.history), (3, 2), "accepted once");
    master.stop().await;

    let master = start(config(dir.path())).await;
    let late = register(&master, NodeId(7), 1, 1000).await.expect("registers");
    assert_eq!((late.epoch, late.lsn, late.history), (3, 3, 2));
    let _nodes = with_nodes(&master, 2).await;
    assert!(first_chunk(&master).await > 1 << 40, "no id of the lost records");
    // What is lost of the new history is a loss.
    register(&master, NodeId(7), 2, 1000).await.expect("registers");
    let refused = User::new(&master, "op").await.mkdir("/c").await.expect_err("read-only");
    assert_eq!(code_of(&refused), ErrorCode::SafeMode);
    master.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_nothing_lost_nothing_is_accepted() {
    let dir = folder();
    let master = start(MasterConfig { accept_data_loss: true, ..config(dir.path()) }).await;
    let _nodes = with_nodes(&master, 2).await;
    assert_eq!(first_chunk(&master).await, 1);
    assert_eq!(master.state().namespace().history(), Epoch(0));
    master.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_epoch_that_a_datanode_was_shown_before_is_raised() {
    // This start is the first one. What the node was shown, and whether the process died before the epoch was raised.
    for (seen, lsn, died) in [(1, 1000, false), (7, 1000, false), (7, 0, false), (7, 1000, true)] {
        let dir = folder();
        let accepting = MasterConfig { accept_data_loss: true, ..config(dir.path()) };
        let master = start(accepting.clone()).await;
        let epoch_file = std::fs::read(dir.path().join("epoch")).expect("there");
        register(&master, NodeId(9), seen, lsn).await.expect_err("not in this epoch");
        assert_eq!(master.failed().await, MasterFailure::EpochRaised { ours: Epoch(1), seen: Epoch(seen) });
        let refused = User::new(&master, "op").await.mkdir("/a").await.expect_err("read-only");
        assert_eq!(code_of(&refused), ErrorCode::SafeMode);
        master.stop().await;
        if died {
            std::fs::write(dir.path().join("epoch"), epoch_file).expect("put back");
            let refused = Master::start(config(dir.path())).await.expect_err("not in this epoch");
            assert!(matches!(refused, StartError::EpochRaised { history: Epoch(8), .. }), "{refused}");
        }
        // The flag is not needed any more.
        let master = start(config(dir.path())).await;
        let shown = register(&master, NodeId(9), seen, lsn).await.expect("registers");
        assert_eq!((shown.epoch, shown.history), (seen + 1, seen + 1), "{seen} {lsn}");
        User::new(&master, "op").await.mkdir("/a").await.expect("changes go on");
        let _nodes = with_nodes(&master, 2).await;
        assert!(first_chunk(&master).await > 1 << 40, "no id of the lost records");
        master.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_epoch_that_nobody_lives_to_see_is_not_believed() {
    let dir = folder();
    let master = start(MasterConfig { accept_data_loss: true, ..config(dir.path()) }).await;
    register(&master, NodeId(9), u64::MAX, 1).await.expect_err("refused");
    let refused = User::new(&master, "op").await.mkdir("/a").await.expect_err("read-only");
    assert_eq!(code_of(&refused), ErrorCode::SafeMode);
    master.stop().await;
    let master = start(config(dir.path())).await;
    assert_eq!((master.epoch(), master.state().namespace().history()), (Epoch(2), Epoch(0)));
    master.stop().await;
}
