//! Small files over real gRPC: granted, made in one change, or given up.

use std::time::Duration;

use distrifs_proto::ErrorCode;
use distrifs_proto::grpc::v1::admin_service_client::AdminServiceClient;
use distrifs_proto::grpc::{code_of, text_of, v1};
use tonic::Status;

use crate::serve_test::{Node, User, config, create, folder, id, replica, start, until, with_nodes, written};
use crate::{Master, MasterConfig};

fn ask(path: &str) -> v1::GrantChunkRequest {
    v1::GrantChunkRequest { path: path.into(), overwrite: true, length: 5, ..Default::default() }
}

async fn grant(user: &User, path: &str) -> v1::GrantChunkReply {
    user.api().grant_chunk(user.ask(ask(path))).await.expect("granted").into_inner()
}

fn chunk_of(granted: &v1::GrantChunkReply, bytes: &[u8]) -> v1::WrittenChunk {
    written(&granted.plans[0], bytes)
}

fn whole(path: &str, epoch: u64, chunk: &v1::WrittenChunk) -> v1::PutWholeRequest {
    v1::PutWholeRequest {
        request_id: id(),
        path: path.into(),
        overwrite: true,
        chunk: Some(chunk.clone()),
        grant_epoch: epoch,
        ..Default::default()
    }
}

async fn put(user: &User, message: v1::PutWholeRequest) -> Result<v1::FileStatus, Status> {
    let reply = user.api().put_whole(user.ask(message)).await?.into_inner();
    Ok(reply.status.expect("a status"))
}

fn durable(master: &Master) -> u64 {
    master.state().durable().0
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_file_is_one_logged_change() {
    let dir = folder();
    let master = start(config(dir.path())).await;
    let _nodes = with_nodes(&master, 2).await;
    let op = User::new(&master, "op").await;
    assert_eq!(durable(&master), 0, "nothing is reserved before it is needed");
    for (at, path) in ["/a", "/b", "/c"].into_iter().enumerate() {
        let granted = grant(&op, path).await;
        assert_eq!((granted.replication, granted.chunk_size), (2, 64 << 10));
        assert_eq!(code_of(&op.stat(path).await.expect_err("not yet")), ErrorCode::NotFound);
        let chunk = chunk_of(&granted, b"hello");
        let status = put(&op, whole(path, granted.epoch, &chunk)).await.expect("put");
        assert_eq!((status.size, status.crc32c, status.path.as_str()), (5, chunk.crc32c, path));
        assert_eq!(op.stat(path).await.expect("there"), status);
        let read = op.read_plan(path).await.expect("planned");
        assert_eq!(read.chunks[0].replicas.len(), 2, "the writer's word is enough to read at once");
        assert_eq!(durable(&master), at as u64 + 2, "with the one reservation");
    }
    let empty = v1::PutWholeRequest { request_id: id(), path: "/e".into(), ..Default::default() };
    let status = put(&op, empty).await.expect("an empty file needs no grant");
    assert_eq!((status.size, status.chunk_count, durable(&master)), (0, 0, 5));
    master.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn as_many_chunks_are_granted_as_are_wanted_within_reason() {
    let dir = folder();
    let master = start(config(dir.path())).await;
    let _nodes = with_nodes(&master, 2).await;
    let op = User::new(&master, "op").await;
    let mut ids = std::collections::BTreeSet::new();
    // One reservation after the other, most of them before they are needed.
    for (count, plans) in [(0, 1), (1, 1), (5, 5), (16, 16), (17, 16), (u32::MAX, 16)].repeat(100) {
        let message = v1::GrantChunkRequest { count, ..ask("/f") };
        let granted = op.api().grant_chunk(op.ask(message)).await.expect("granted").into_inner();
        // Those of a reservation that runs out may be fewer.
        assert!(
            (1..=plans).contains(&granted.plans.len()),
            "{count} wanted, {} granted",
            granted.plans.len()
        );
        assert!(
            granted.plans.iter().all(|plan| ids.insert(plan.chunk_id) && plan.hops.len() == 2),
            "each once"
        );
    }
    let reserved = durable(&master);
    assert!(ids.len() > 4096 && (2..=3).contains(&reserved), "{} granted, {reserved} reserved", ids.len());
    master.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_made_of_the_callers_own_grant_alone() {
    let dir = folder();
    let master = start(config(dir.path())).await;
    let _nodes = with_nodes(&master, 3).await;
    let (op, root) = (User::new(&master, "op").await, User::new(&master, "root").await);
    let (files, open) = (op.put("/file", b"bytes").await.expect("put").1, op.create(create("/open")).await);
    let opens = written(&open.expect("opened").first_chunk.expect("a plan"), b"bytes");
    let granted = grant(&op, "/f").await;
    let (epoch, chunk) = (granted.epoch, chunk_of(&granted, b"hello"));
    let before = master.state().namespace().clone();
    let lacks = |nodes: &[u64]| v1::WrittenChunk { nodes: nodes.to_vec(), ..chunk.clone() };
    let other = (1..=3).find(|node| !chunk.nodes.contains(node)).expect("three nodes");
    let numbered = |chunk_id| v1::WrittenChunk { chunk_id, ..chunk.clone() };
    let cases = [
        ("someone else's grant", &root, whole("/f", epoch, &chunk), ErrorCode::LeaseExpired),
        ("never granted", &op, whole("/f", epoch, &numbered(chunk.chunk_id + 1)), ErrorCode::LeaseExpired),
        ("beyond the mark", &op, whole("/f", epoch, &numbered(1 << 50)), ErrorCode::LeaseExpired),
        ("a file's chunk", &op, whole("/f", epoch, &files), ErrorCode::LeaseExpired),
        ("an unfinished file's chunk", &op, whole("/f", epoch, &opens), ErrorCode::LeaseExpired),
        ("another epoch", &op, whole("/f", epoch + 1, &chunk), ErrorCode::LeaseExpired),
        ("too few nodes", &op, whole("/f", epoch, &lacks(&chunk.nodes[..1])), ErrorCode::InvalidArgument),
        ("one twice", &op, whole("/f", epoch, &lacks(&[chunk.nodes[0]; 2])), ErrorCode::InvalidArgument),
        (
            "other nodes",
            &op,
            whole("/f", epoch, &lacks(&[chunk.nodes[0], other])),
            ErrorCode::InvalidArgument,
        ),
    ];
    for (name, user, message, code) in cases {
        let refused = put(user, message).await.expect_err(name);
        assert_eq!(code_of(&refused), code, "{name}: {refused}");
    }
    assert!(*master.state().namespace() == before, "nothing has changed");
    let give_up = v1::GiveUpGrantRequest { chunk_id: chunk.chunk_id };
    root.api().give_up_grant(root.ask(give_up)).await.expect("answered");
    put(&op, whole("/f", epoch, &chunk)).await.expect("it is op's, and still granted");
    let again = put(&op, whole("/g", epoch, &chunk)).await.expect_err("spent");
    assert_eq!(code_of(&again), ErrorCode::LeaseExpired);
    master.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_puts_to_one_path_the_later_wins_and_the_other_chunk_is_deleted() {
    let dir = folder();
    let master = start(config(dir.path())).await;
    let mut nodes = with_nodes(&master, 2).await;
    let op = User::new(&master, "op").await;
    let granted = [grant(&op, "/f").await, grant(&op, "/f").await];
    let chunks = [chunk_of(&granted[0], b"first"), chunk_of(&granted[1], b"later")];
    let (one, two) = tokio::join!(
        put(&op, whole("/f", granted[0].epoch, &chunks[0])),
        put(&op, whole("/f", granted[1].epoch, &chunks[1])),
    );
    let (one, two) = (one.expect("put"), two.expect("put"));
    let there = op.stat("/f").await.expect("there");
    let (winner, loser) = if there.file_id == one.file_id { (0, 1) } else { (1, 0) };
    assert_eq!(there, if winner == 0 { one } else { two });
    for node in &mut nodes {
        assert_eq!(node.order().await.1.chunk_id, chunks[loser].chunk_id);
    }
    assert_eq!(op.read_plan("/f").await.expect("planned").chunks[0].chunk_id, chunks[winner].chunk_id);
    let new = v1::PutWholeRequest { overwrite: false, ..whole("/f", 1, &chunks[winner]) };
    assert_eq!(code_of(&put(&op, new).await.expect_err("there")), ErrorCode::AlreadyExists);
    let remove = v1::RemoveRequest { request_id: id(), path: "/f".into(), recursive: false };
    op.api().remove(op.ask(remove)).await.expect("removed");
    for node in &mut nodes {
        node.changed(Vec::new(), vec![chunks[loser].chunk_id]).await;
        while node.order().await.1.chunk_id != chunks[winner].chunk_id {}
    }
    master.stop().await;
}

/// As the master sees a client that was killed between the write and the put, and one that gave up.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_granted_in_vain_is_deleted_and_no_file_is_made_of_it_any_more() {
    for given_up in [false, true] {
        let dir = folder();
        let timeout = Duration::from_millis(if given_up { 60_000 } else { 2000 });
        let master = start(MasterConfig { pending_timeout: timeout, ..config(dir.path()) }).await;
        let mut nodes = with_nodes(&master, 2).await;
        let op = User::new(&master, "op").await;
        let granted = grant(&op, "/f").await;
        let chunk = chunk_of(&granted, b"hello");
        for node in &nodes {
            node.changed(vec![replica(&chunk)], Vec::new()).await;
        }
        let explain = v1::ExplainChunkRequest { chunk_id: chunk.chunk_id };
        let mut admin = AdminServiceClient::new(op.channel.clone());
        let story = admin.explain_chunk(explain).await.expect("answers").into_inner();
        assert_eq!(story.state, "unfinished");
        if given_up {
            let mut next = ask("/f");
            (next.give_up_chunk, next.exclude, next.exclude_codes) =
                (Some(chunk.chunk_id), vec![77], vec![18]);
            let next = op.api().grant_chunk(op.ask(next)).await.expect("granted").into_inner();
            assert_ne!(next.plans[0].chunk_id, chunk.chunk_id);
        }
        for node in &mut nodes {
            let (_, order) = node.order().await;
            assert_eq!((order.chunk_id, order.generation), (chunk.chunk_id, chunk.generation));
        }
        let late = put(&op, whole("/f", granted.epoch, &chunk)).await.expect_err("too late");
        assert_eq!(code_of(&late), ErrorCode::LeaseExpired, "{late}");
        if !given_up {
            for node in &nodes {
                node.changed(Vec::new(), vec![chunk.chunk_id]).await;
            }
            until("the tombstone is forgotten", async || op.status().await.chunks_to_delete == 0).await;
            let later = put(&op, whole("/f", granted.epoch, &chunk)).await.expect_err("far too late");
            assert_eq!(code_of(&later), ErrorCode::LeaseExpired, "{later}");
        }
        master.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_ends_with_its_leader_and_its_id_is_not_granted_again() {
    let dir = folder();
    let mut master = start(config(dir.path())).await;
    let mut nodes = with_nodes(&master, 2).await;
    let mut seen = Vec::new();
    for _ in 0..3 {
        let op = User::new(&master, "op").await;
        let granted = grant(&op, "/f").await;
        let chunk = chunk_of(&granted, b"hello");
        assert!(seen.iter().all(|id| *id != chunk.chunk_id), "{} again, of {seen:?}", chunk.chunk_id);
        let created = op.create(create("/open")).await.expect("opened").first_chunk.expect("a plan");
        assert!(created.chunk_id != chunk.chunk_id && !seen.contains(&created.chunk_id));
        seen.extend([chunk.chunk_id, created.chunk_id]);
        drop(nodes);
        // As in a crash.
        drop(master);
        master = start(config(dir.path())).await;
        nodes = with_nodes(&master, 2).await;
        let op = User::new(&master, "op").await;
        for epoch in [granted.epoch, master.epoch().0] {
            let late = put(&op, whole("/f", epoch, &chunk)).await.expect_err("another leader");
            assert_eq!(code_of(&late), ErrorCode::LeaseExpired, "{late}");
        }
        let anew = grant(&op, "/f").await;
        seen.push(anew.plans[0].chunk_id);
        put(&op, whole("/f", anew.epoch, &chunk_of(&anew, b"hello"))).await.expect("put");
    }
    drop(nodes);
    master.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nothing_may_be_written_nothing_is_granted_or_reserved() {
    let dir = folder();
    let master = start(config(dir.path())).await;
    let _one = with_nodes(&master, 1).await;
    let op = User::new(&master, "op").await;
    let refused = op.api().grant_chunk(op.ask(ask("/f"))).await.expect_err("one node for two copies");
    assert_eq!(code_of(&refused), ErrorCode::NotEnoughDatanodes);
    let text = text_of(&refused);
    assert!(text.starts_with("/f: write denied: not enough datanodes: 1 live, 2 needed"), "{text}");
    let empty = v1::PutWholeRequest { request_id: id(), path: "/e".into(), ..Default::default() };
    let refused = put(&op, empty).await.expect_err("nothing may be written");
    assert_eq!(code_of(&refused), ErrorCode::NotEnoughDatanodes);
    let _witness = Node::join(&master, 9, 1000, Vec::new()).await;
    let refused = op.api().grant_chunk(op.ask(ask("/f"))).await.expect_err("behind");
    assert_eq!(code_of(&refused), ErrorCode::SafeMode);
    assert_eq!(durable(&master), 0);
    master.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_of_before_an_accepted_loss_is_none() {
    let dir = folder();
    let master = start(MasterConfig { accept_data_loss: true, ..config(dir.path()) }).await;
    let _nodes = with_nodes(&master, 2).await;
    let op = User::new(&master, "op").await;
    let granted = grant(&op, "/f").await;
    let chunk = chunk_of(&granted, b"hello");
    // It saw more in this very epoch, so that this leader goes on.
    let _witness = Node::join(&master, 9, 1000, Vec::new()).await;
    until("the loss is accepted", async || {
        op.status().await.why_not_writable.is_empty() && durable(&master) >= 2
    })
    .await;
    let refused =
        put(&op, whole("/f", granted.epoch, &chunk)).await.expect_err("lost records may have used it");
    assert_eq!(code_of(&refused), ErrorCode::LeaseExpired, "{refused}");
    let anew = grant(&op, "/f").await;
    let chunk = chunk_of(&anew, b"hello");
    assert!(chunk.chunk_id > 1 << 40, "{}", chunk.chunk_id);
    put(&op, whole("/f", anew.epoch, &chunk)).await.expect("put");
    master.stop().await;
}
