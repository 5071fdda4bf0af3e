//! Requests whose answer was lost: asked again, each is answered as before and executed no second time, by the same
//! master and by the next one.

use std::path::Path;

use distrifs_proto::grpc::v1;
use distrifs_proto::types::Lsn;

use crate::Master;
use crate::namespace::Namespace;
use crate::serve_test::{Node, User, config, create, folder, id, start, with_nodes};

/// One change of each kind, with the ids that it is asked with again and again.
struct Asked {
    mkdir: v1::MkdirRequest,
    create: v1::CreateRequest,
    allocate: v1::AllocateChunkRequest,
    complete: v1::CompleteRequest,
    put_whole: v1::PutWholeRequest,
    put_empty: v1::PutWholeRequest,
    abandon: v1::AbandonRequest,
    rename: v1::RenameRequest,
    copy: v1::CopyRequest,
    set_mode: v1::SetModeRequest,
    set_owner: v1::SetOwnerRequest,
    set_replication: v1::SetReplicationRequest,
    remove: v1::RemoveRequest,
}

/// Asks, and gives the reply as text without what belongs to one leader: its epoch, and the nodes of a plan.
macro_rules! ask {
    ($user:expr, $method:ident($message:expr)) => {{
        let reply = $user.api().$method($user.ask($message.clone())).await;
        let mut reply = reply.unwrap_or_else(|error| panic!("{}: {error}", stringify!($method))).into_inner();
        reply.epoch = 0;
        reply
    }};
}

fn without_hops(plan: &mut Option<v1::WritePlan>) {
    plan.as_mut().expect("a plan").hops.clear();
}

impl Asked {
    /// Asks for all of it, in an order in which each can be done.
    async fn all(&self, user: &User) -> Vec<String> {
        let mut created = ask!(user, create(self.create));
        without_hops(&mut created.first_chunk);
        let mut allocated = ask!(user, allocate_chunk(self.allocate));
        without_hops(&mut allocated.plan);
        vec![
            format!("{:?}", ask!(user, mkdir(self.mkdir))),
            format!("{created:?}"),
            format!("{allocated:?}"),
            format!("{:?}", ask!(user, complete(self.complete))),
            format!("{:?}", ask!(user, put_whole(self.put_whole))),
            format!("{:?}", ask!(user, put_whole(self.put_empty))),
            format!("{:?}", ask!(user, abandon(self.abandon))),
            format!("{:?}", ask!(user, rename(self.rename))),
            format!("{:?}", ask!(user, copy(self.copy))),
            format!("{:?}", ask!(user, set_mode(self.set_mode))),
            format!("{:?}", ask!(user, set_owner(self.set_owner))),
            format!("{:?}", ask!(user, set_replication(self.set_replication))),
            format!("{:?}", ask!(user, remove(self.remove))),
        ]
    }

    /// What can be asked once files are open, ready to be asked for the first time.
    async fn prepare(user: &User) -> Self {
        for dir in ["/from", "/gone"] {
            user.mkdir(dir).await.expect("made");
        }
        for file in ["/file", "/changed"] {
            user.put(file, b"bytes").await.expect("put");
        }
        let written = user.create(create("/written")).await.expect("opened");
        let plan = written.first_chunk.expect("a plan");
        let chunk = v1::WrittenChunk {
            chunk_id: plan.chunk_id,
            generation: plan.generation,
            length: 5,
            crc32c: 7,
            nodes: plan.hops.iter().map(|hop| hop.node_id).collect(),
        };
        let granted = v1::GrantChunkRequest { path: "/whole".into(), length: 5, ..Default::default() };
        let granted = user.api().grant_chunk(user.ask(granted)).await.expect("granted").into_inner();
        let put_whole = v1::PutWholeRequest {
            request_id: id(),
            path: "/whole".into(),
            chunk: granted.plans.first().map(|plan| crate::serve_test::written(plan, b"whole")),
            grant_epoch: granted.epoch,
            ..Default::default()
        };
        let growing = user.create(create("/growing")).await.expect("opened");
        let given_up = user.create(create("/given-up")).await.expect("opened");
        let to = |target: &str| target.to_owned();
        Self {
            mkdir: v1::MkdirRequest { request_id: id(), path: to("/made"), parents: false, mode: 0o700 },
            create: create("/created"),
            allocate: v1::AllocateChunkRequest {
                request_id: id(),
                file_id: growing.file_id,
                ..Default::default()
            },
            complete: v1::CompleteRequest { request_id: id(), file_id: written.file_id, chunks: vec![chunk] },
            put_whole,
            put_empty: v1::PutWholeRequest {
                request_id: id(),
                path: to("/empty"),
                overwrite: true,
                ..Default::default()
            },
            abandon: v1::AbandonRequest { request_id: id(), file_id: given_up.file_id },
            rename: v1::RenameRequest {
                request_id: id(),
                source: to("/from"),
                target: to("/to"),
                overwrite: false,
            },
            copy: v1::CopyRequest {
                request_id: id(),
                source: to("/file"),
                target: to("/copy"),
                overwrite: false,
            },
            set_mode: v1::SetModeRequest { request_id: id(), path: to("/changed"), mode: 0o600 },
            set_owner: v1::SetOwnerRequest {
                request_id: id(),
                path: to("/changed"),
                owner: Some(to("alice")),
                group: None,
            },
            set_replication: v1::SetReplicationRequest {
                request_id: id(),
                path: to("/changed"),
                replication: 1,
            },
            remove: v1::RemoveRequest { request_id: id(), path: to("/gone"), recursive: true },
        }
    }
}

/// Puts everything into a state in which a second execution of any of them would show.
async fn undo(user: &User) {
    for path in ["/made", "/written", "/copy", "/whole", "/empty"] {
        let gone = v1::RemoveRequest { request_id: id(), path: path.into(), recursive: true };
        user.api().remove(user.ask(gone)).await.expect("removed");
    }
    for path in ["/from", "/gone"] {
        user.mkdir(path).await.expect("made again");
    }
    let back = v1::SetModeRequest { request_id: id(), path: "/changed".into(), mode: 0o644 };
    user.api().set_mode(user.ask(back)).await.expect("set");
    let owner = Some("op".to_owned());
    let back = v1::SetOwnerRequest { request_id: id(), path: "/changed".into(), owner, group: None };
    user.api().set_owner(user.ask(back)).await.expect("set");
    let back = v1::SetReplicationRequest { request_id: id(), path: "/changed".into(), replication: 2 };
    user.api().set_replication(user.ask(back)).await.expect("set");
}

async fn leader(dir: &Path) -> (Master, User, Vec<Node>) {
    // Nothing changes by itself: no lease ends, and nothing dereferenced is deleted.
    let mut config = config(dir);
    config.gc_delay = std::time::Duration::from_secs(3600);
    config.pending_timeout = std::time::Duration::from_secs(3600);
    let master = start(config).await;
    let nodes = with_nodes(&master, 2).await;
    let user = User::new(&master, "op").await;
    (master, user, nodes)
}

fn seen(master: &Master) -> (Namespace, Lsn) {
    (master.state().namespace().clone(), master.state().durable())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_again_is_answered_again_and_not_done_again() {
    let dir = folder();
    let (mut master, mut user, mut nodes) = leader(dir.path()).await;
    let asked = Asked::prepare(&user).await;
    let before = seen(&master);
    let answers = asked.all(&user).await;
    assert_eq!(seen(&master).1.0, before.1.0 + answers.len() as u64, "each was one change");
    undo(&user).await;
    let expected = seen(&master);
    for restart in ["none", "clean", "none", "crash", "none"] {
        match restart {
            "none" => {}
            stopped => {
                drop(nodes);
                match stopped {
                    "clean" => master.stop().await,
                    _ => drop(master),
                }
                (master, user, nodes) = leader(dir.path()).await;
            }
        }
        assert_eq!(asked.all(&user).await, answers, "restart: {restart}");
        let (namespace, durable) = seen(&master);
        assert!(namespace == expected.0, "restart: {restart}: something was done again");
        assert_eq!(durable, expected.1, "restart: {restart}: something was logged");
    }
    master.stop().await;
}
