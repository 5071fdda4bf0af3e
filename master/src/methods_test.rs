//! Every method of the services has a rule, and no method is a way into a closed directory.

use std::collections::BTreeSet;

use distrifs_proto::ErrorCode;
use distrifs_proto::grpc::{code_of, text_of, v1};
use prost::Message;
use prost_types::FileDescriptorSet;
use tonic::Status;

use crate::permission::RULES;
use crate::serve_test::{Node, User, config, create, id, start, written};

/// Service and method, as the protocol's own description has them.
fn methods() -> BTreeSet<(String, String)> {
    let set = FileDescriptorSet::decode(v1::DESCRIPTORS).expect("descriptors");
    let services = set.file.into_iter().flat_map(|file| file.service);
    services
        .flat_map(|service| {
            let name = service.name().to_owned();
            service.method.into_iter().map(move |method| (name.clone(), method.name().to_owned()))
        })
        .collect()
}

#[test]
fn every_method_has_its_rule() {
    let ruled: BTreeSet<(String, String)> =
        RULES.iter().map(|(service, method, _)| ((*service).to_owned(), (*method).to_owned())).collect();
    assert_eq!(ruled, methods());
    assert_eq!(ruled.len(), RULES.len(), "each once");
}

/// What bob gets when he tries `method` on `path`, in every way there is.
async fn tries(bob: &User, method: &str, path: &str, alices_file: u64) -> Vec<Result<(), Status>> {
    let mut api = bob.api();
    let p = || path.to_owned();
    let own = || "/all/bobs".to_owned();
    macro_rules! call {
        ($method:ident, $message:expr) => {
            api.$method(bob.ask($message)).await.map(|_| ())
        };
    }
    match method {
        "Mkdir" => vec![
            call!(mkdir, v1::MkdirRequest { request_id: id(), path: p(), parents: false, mode: 0 }),
            call!(mkdir, v1::MkdirRequest { request_id: id(), path: p(), parents: true, mode: 0 }),
            call!(mkdir, v1::MkdirRequest { request_id: id(), path: p() + "/a/b", parents: true, mode: 0 }),
        ],
        "List" => vec![
            call!(list, v1::ListRequest { path: p(), ..v1::ListRequest::default() }),
            call!(list, v1::ListRequest { path: p(), recursive: true, ..v1::ListRequest::default() }),
        ],
        "Stat" => vec![
            call!(stat, v1::StatRequest { path: p() }),
            call!(stat, v1::StatRequest { path: p() + "/below" }),
        ],
        "Rename" => {
            let ask =
                |source, target, overwrite| v1::RenameRequest { request_id: id(), source, target, overwrite };
            vec![
                call!(rename, ask(p(), "/all/taken".into(), true)),
                call!(rename, ask(own(), p(), false)),
                call!(rename, ask(own(), p(), true)),
            ]
        }
        "Remove" => vec![
            call!(remove, v1::RemoveRequest { request_id: id(), path: p(), recursive: false }),
            call!(remove, v1::RemoveRequest { request_id: id(), path: p(), recursive: true }),
        ],
        "Copy" => {
            let ask =
                |source, target, overwrite| v1::CopyRequest { request_id: id(), source, target, overwrite };
            vec![
                call!(copy, ask(p(), "/all/taken".into(), true)),
                call!(copy, ask(own(), p(), false)),
                call!(copy, ask(own(), p(), true)),
            ]
        }
        "SetMode" => vec![call!(set_mode, v1::SetModeRequest { request_id: id(), path: p(), mode: 0o777 })],
        "SetOwner" => {
            let owner = Some("bob".to_owned());
            vec![call!(set_owner, v1::SetOwnerRequest { request_id: id(), path: p(), owner, group: None })]
        }
        "SetReplication" => vec![call!(
            set_replication,
            v1::SetReplicationRequest { request_id: id(), path: p(), replication: 1 }
        )],
        "CheckFiles" => {
            vec![call!(check_files, v1::CheckFilesRequest { path: p(), ..v1::CheckFilesRequest::default() })]
        }
        "Usage" => vec![call!(usage, v1::UsageRequest { path: p() })],
        "Create" => {
            let mut over = create(path);
            over.overwrite = true;
            vec![call!(create, create(path)), call!(create, over)]
        }
        "ReadPlan" => {
            vec![call!(read_plan, v1::ReadPlanRequest { path: p(), ..v1::ReadPlanRequest::default() })]
        }
        // Of files that are being written only the id is known; another's is as good as none.
        "AllocateChunk" => {
            let ask = |file_id| v1::AllocateChunkRequest {
                request_id: id(),
                file_id,
                ..v1::AllocateChunkRequest::default()
            };
            vec![call!(allocate_chunk, ask(alices_file)), call!(allocate_chunk, ask(alices_file + 1))]
        }
        "Complete" => {
            let ask = |file_id| v1::CompleteRequest { request_id: id(), file_id, chunks: Vec::new() };
            vec![call!(complete, ask(alices_file)), call!(complete, ask(alices_file + 1))]
        }
        "Abandon" => {
            let ask = |file_id| v1::AbandonRequest { request_id: id(), file_id };
            vec![call!(abandon, ask(alices_file)), call!(abandon, ask(alices_file + 1))]
        }
        "RenewLease" => {
            let file_ids = vec![alices_file, alices_file + 1];
            let ask = v1::RenewLeaseRequest { request_id: id(), file_ids: file_ids.clone() };
            let reply = api.renew_lease(bob.ask(ask)).await.expect("answers").into_inner();
            assert_eq!(reply.expired, file_ids, "neither is bob's");
            Vec::new()
        }
        "GrantChunk" => {
            let ask = |overwrite| v1::GrantChunkRequest {
                path: p(),
                overwrite,
                length: 1,
                ..v1::GrantChunkRequest::default()
            };
            vec![call!(grant_chunk, ask(false)), call!(grant_chunk, ask(true))]
        }
        "PutWhole" => {
            let ask = |overwrite, chunk| v1::PutWholeRequest {
                request_id: id(),
                path: p(),
                overwrite,
                chunk,
                grant_epoch: 1,
                ..v1::PutWholeRequest::default()
            };
            let granted =
                v1::GrantChunkRequest { path: own(), overwrite: true, length: 1, ..Default::default() };
            let granted = api.grant_chunk(bob.ask(granted)).await.expect("granted").into_inner();
            let mine = written(&granted.plans[0], b"x");
            let mut nobodys = mine.clone();
            nobodys.chunk_id = 1 << 60;
            vec![
                call!(put_whole, ask(false, None)),
                call!(put_whole, ask(true, None)),
                call!(put_whole, ask(true, Some(mine))),
                call!(put_whole, ask(true, Some(nobodys))),
            ]
        }
        "GiveUpGrant" => {
            let ask = |chunk_id| v1::GiveUpGrantRequest { chunk_id };
            let known = api.give_up_grant(bob.ask(ask(1))).await.expect("answers").into_inner();
            let unknown = api.give_up_grant(bob.ask(ask(1 << 60))).await.expect("answers").into_inner();
            assert_eq!(known, unknown, "nothing is learnt from it");
            Vec::new()
        }
        "ReportBadReplica" => {
            let ask = v1::ReportBadReplicaRequest { chunk_id: 1, node_id: 1, code: 1 };
            let known = api.report_bad_replica(bob.ask(ask)).await.expect("answers").into_inner();
            let ask = v1::ReportBadReplicaRequest { chunk_id: 1 << 60, node_id: 77, code: 1 };
            let unknown = api.report_bad_replica(bob.ask(ask)).await.expect("answers").into_inner();
            assert_eq!(known, unknown, "nothing is learnt from a complaint");
            Vec::new()
        }
        other => panic!("nobody tried {other} on a closed directory: add what it could give away"),
    }
}

#[tokio::test]
async fn no_method_is_a_way_into_a_closed_directory() {
    let dir = tempfile::tempdir().expect("a folder");
    let master = start(config(dir.path())).await;
    let _nodes = (Node::join(&master, 1, 0, Vec::new()).await, Node::join(&master, 2, 0, Vec::new()).await);
    let (op, alice, bob) =
        (User::new(&master, "op").await, User::new(&master, "alice").await, User::new(&master, "bob").await);
    while alice.put("/probe", b"x").await.is_err_and(|error| code_of(&error) != ErrorCode::PermissionDenied) {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    for (path, mode) in [("/all", 0o777), ("/alice", 0o777)] {
        op.mkdir(path).await.expect("made");
        let ask = v1::SetModeRequest { request_id: id(), path: path.into(), mode };
        op.api().set_mode(op.ask(ask)).await.expect("opened");
    }
    alice.mkdir("/alice/own").await.expect("made");
    alice.put("/alice/own/file", b"secret").await.expect("put");
    alice.mkdir("/alice/own/dir").await.expect("made");
    let ask = v1::SetModeRequest { request_id: id(), path: "/alice/own".into(), mode: 0o700 };
    alice.api().set_mode(alice.ask(ask)).await.expect("closed");
    let open = alice.create(create("/alice/own/open")).await.expect("opened").file_id;
    bob.put("/all/bobs", b"mine").await.expect("put");

    for (service, method) in methods() {
        if service != "ClientService" {
            continue;
        }
        let mut answers: Vec<Vec<(ErrorCode, String)>> = Vec::new();
        for name in ["file", "dir", "none", "open"] {
            let path = format!("/alice/own/{name}");
            let tried = tries(&bob, &method, &path, open).await;
            let tried = tried.into_iter().map(|outcome| {
                let error = outcome.expect_err("refused");
                (code_of(&error), text_of(&error).replace(&path, "PATH"))
            });
            answers.push(tried.collect());
        }
        for (code, text) in answers.iter().flatten() {
            let expected = match method.as_str() {
                "AllocateChunk" | "Complete" | "Abandon" => ErrorCode::LeaseExpired,
                _ => ErrorCode::PermissionDenied,
            };
            assert_eq!(*code, expected, "{method}: {text}");
        }
        for other in &answers[1..] {
            assert_eq!(*other, answers[0], "{method} tells what is there from what is not");
        }
    }
    let mut api = alice.api();
    let ask = v1::ListRequest { path: "/alice/own".into(), ..v1::ListRequest::default() };
    let listed = api.list(alice.ask(ask)).await.expect("lists").into_inner().entries;
    let names: Vec<String> = listed.into_iter().map(|entry| entry.path).collect();
    assert_eq!(names, ["dir", "file"], "nothing has changed");
    master.stop().await;
}
