//! What clients get wrong, or send on purpose: one table over real gRPC. Each request gets its code and one clear line,
//! and changes nothing: neither the namespace nor the log.

use std::future::Future;
use std::pin::Pin;

use distrifs_proto::ErrorCode;
use distrifs_proto::grpc::{USER_KEY, code_of, text_of, v1};
use distrifs_proto::limits::{
    CHUNK_BYTES_MAX, ERROR_TEXT_BYTES_MAX, NAME_BYTES_MAX, PATH_BYTES_MAX, PATH_DEPTH_MAX,
};
use prost::Message;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::{Request, Status};
use tonic_prost::ProstCodec;

use crate::Master;
use crate::serve_test::{Folder, Node, User, config, create, folder, id, start, with_nodes};

type Refused = Pin<Box<dyn Future<Output = Result<(), Status>> + Send>>;

/// A row: what is wrong, the request, the code, and what the line says of it.
struct Row {
    name: String,
    request: Refused,
    code: ErrorCode,
    says: &'static str,
}

/// A row over a method of the client's service.
macro_rules! row {
    ($user:expr, $name:expr, $method:ident($message:expr) => $code:ident, $says:expr) => {{
        let (user, message) = ($user.clone(), $message);
        Row {
            name: format!("{}: {}", stringify!($method), $name),
            request: Box::pin(async move { user.api().$method(user.ask(message)).await.map(|_| ()) }),
            code: ErrorCode::$code,
            says: $says,
        }
    }};
}

/// The state with which the rows begin and end: `/d/f` of one chunk, `/d/sub`, and a file that is being written.
struct World {
    master: Master,
    _nodes: Vec<Node>,
    _folder: Folder,
    op: User,
    /// The file that is being written, and its chunk.
    open: u64,
    chunk: v1::WrittenChunk,
    /// The request that made `/d`.
    used: Option<v1::RequestId>,
}

impl World {
    async fn new() -> Self {
        let folder = folder();
        let master = start(config(folder.path())).await;
        let nodes = with_nodes(&master, 2).await;
        let op = User::new(&master, "op").await;
        let used = id();
        let made = v1::MkdirRequest { request_id: used, path: "/d".into(), parents: false, mode: 0o755 };
        op.api().mkdir(op.ask(made)).await.expect("made");
        op.mkdir("/d/sub").await.expect("made");
        op.put("/d/f", b"bytes").await.expect("put");
        let opened = op.create(create("/d/open")).await.expect("opened");
        let plan = opened.first_chunk.expect("a plan");
        let chunk = v1::WrittenChunk {
            chunk_id: plan.chunk_id,
            generation: plan.generation,
            length: 5,
            crc32c: 7,
            nodes: plan.hops.iter().map(|hop| hop.node_id).collect(),
        };
        Self { master, _nodes: nodes, _folder: folder, op, open: opened.file_id, chunk, used }
    }
}

/// Paths that are none, and what is said of them.
fn bad_paths() -> Vec<(&'static str, String, &'static str)> {
    vec![
        ("no path", String::new(), "not an absolute path"),
        ("a relative path", "d/f".into(), "not an absolute path"),
        ("..", "/d/../d/f".into(), ".. is not taken"),
        ("NUL", "/d/a\0b".into(), "cannot contain NUL"),
        ("a long name", format!("/{}", "n".repeat(NAME_BYTES_MAX + 1)), "longer than 255"),
        ("a long path", "/n".repeat(PATH_BYTES_MAX / 2) + "/", "longer than 4096"),
        ("a deep path", "/n".repeat(PATH_DEPTH_MAX + 1), "longer than 256"),
        ("a huge path", "/n".repeat(1 << 20), "longer than 4096"),
        ("line feeds", "d\nPANIC: all is lost\n".into(), "not an absolute path"),
    ]
}

/// A small file that could be granted.
fn grant() -> v1::GrantChunkRequest {
    v1::GrantChunkRequest { path: "/m".into(), length: 1, ..Default::default() }
}

/// A small file that could be put, if the chunk were granted.
fn whole(chunk: Option<&v1::WrittenChunk>) -> v1::PutWholeRequest {
    let chunk = chunk.cloned();
    v1::PutWholeRequest { request_id: id(), path: "/m".into(), chunk, grant_epoch: 1, ..Default::default() }
}

/// Each bad path in each place of each method that takes one.
fn path_rows(world: &World) -> Vec<Row> {
    let op = &world.op;
    let good = || "/d/f".to_owned();
    let mut rows = Vec::new();
    for (name, path, says) in bad_paths() {
        let p = || path.clone();
        rows.extend([
            row!(op, name, mkdir(v1::MkdirRequest { request_id: id(), path: p(), parents: true, mode: 0 }) => InvalidArgument, says),
            row!(op, name, list(v1::ListRequest { path: p(), ..Default::default() }) => InvalidArgument, says),
            row!(op, name, stat(v1::StatRequest { path: p() }) => InvalidArgument, says),
            row!(op, name, rename(v1::RenameRequest { request_id: id(), source: p(), target: "/x".into(), overwrite: true }) => InvalidArgument, says),
            row!(op, name, rename(v1::RenameRequest { request_id: id(), source: good(), target: p(), overwrite: true }) => InvalidArgument, says),
            row!(op, name, remove(v1::RemoveRequest { request_id: id(), path: p(), recursive: true }) => InvalidArgument, says),
            row!(op, name, copy(v1::CopyRequest { request_id: id(), source: p(), target: "/x".into(), overwrite: true }) => InvalidArgument, says),
            row!(op, name, copy(v1::CopyRequest { request_id: id(), source: good(), target: p(), overwrite: true }) => InvalidArgument, says),
            row!(op, name, set_mode(v1::SetModeRequest { request_id: id(), path: p(), mode: 0 }) => InvalidArgument, says),
            row!(op, name, set_owner(v1::SetOwnerRequest { request_id: id(), path: p(), owner: Some("al".into()), group: None }) => InvalidArgument, says),
            row!(op, name, set_replication(v1::SetReplicationRequest { request_id: id(), path: p(), replication: 1 }) => InvalidArgument, says),
            row!(op, name, usage(v1::UsageRequest { path: p() }) => InvalidArgument, says),
            row!(op, name, create(v1::CreateRequest { path: p(), ..create("/") }) => InvalidArgument, says),
            row!(op, name, grant_chunk(v1::GrantChunkRequest { path: p(), length: 1, ..Default::default() }) => InvalidArgument, says),
            row!(op, name, put_whole(v1::PutWholeRequest { request_id: id(), path: p(), ..Default::default() }) => InvalidArgument, says),
            row!(op, name, read_plan(v1::ReadPlanRequest { path: p(), ..Default::default() }) => InvalidArgument, says),
        ]);
    }
    rows
}

/// Numbers and names beyond their limits, and things that cannot be done to a tree.
fn field_rows(world: &World) -> Vec<Row> {
    let op = &world.op;
    let mut rows = Vec::new();
    for mode in [0o10000, u32::MAX] {
        rows.extend([
            row!(op, mode, mkdir(v1::MkdirRequest { request_id: id(), path: "/m".into(), parents: false, mode }) => InvalidArgument, "larger than 7777"),
            row!(op, mode, create(v1::CreateRequest { mode, ..create("/m") }) => InvalidArgument, "larger than 7777"),
            row!(op, mode, grant_chunk(v1::GrantChunkRequest { mode, ..grant() }) => InvalidArgument, "larger than 7777"),
            row!(op, mode, put_whole(v1::PutWholeRequest { mode, ..whole(None) }) => InvalidArgument, "larger than 7777"),
            row!(op, mode, set_mode(v1::SetModeRequest { request_id: id(), path: "/d/f".into(), mode }) => InvalidArgument, "7777"),
        ]);
    }
    for chunk_size in [1, 4095, 4097, CHUNK_BYTES_MAX + 4096, 1 << 32, u64::MAX] {
        rows.extend([
            row!(op, chunk_size, create(v1::CreateRequest { chunk_size, ..create("/m") }) => InvalidArgument, "chunk size"),
            row!(op, chunk_size, grant_chunk(v1::GrantChunkRequest { chunk_size, ..grant() }) => InvalidArgument, "chunk size"),
            row!(op, chunk_size, put_whole(v1::PutWholeRequest { chunk_size, ..whole(None) }) => InvalidArgument, "chunk size"),
        ]);
    }
    for replication in [17, 255, 256, 257, u32::MAX] {
        rows.extend([
            row!(op, replication, create(v1::CreateRequest { replication, ..create("/m") }) => InvalidArgument, "replication factor"),
            row!(op, replication, grant_chunk(v1::GrantChunkRequest { replication, ..grant() }) => InvalidArgument, "replication factor"),
            row!(op, replication, put_whole(v1::PutWholeRequest { replication, ..whole(None) }) => InvalidArgument, "replication factor"),
            row!(op, replication, set_replication(v1::SetReplicationRequest { request_id: id(), path: "/d/f".into(), replication }) => InvalidArgument, "replication factor"),
        ]);
    }
    for length in [0, 65_537, u64::MAX] {
        rows.push(row!(op, length, grant_chunk(v1::GrantChunkRequest { length, ..grant() }) => InvalidArgument, "none of 1 to 65536"));
    }
    rows.push(row!(op, "zero", set_replication(v1::SetReplicationRequest { request_id: id(), path: "/d/f".into(), replication: 0 }) => InvalidArgument, "replication factor"));
    for (name, owner) in
        [("no name", ""), ("a colon", "a:b"), ("NUL", "a\0"), ("a line feed", "a\nb"), ("a long name", LONG)]
    {
        for (owner, group) in [(Some(owner.to_owned()), None), (None, Some(owner.to_owned()))] {
            rows.push(row!(op, name, set_owner(v1::SetOwnerRequest { request_id: id(), path: "/d/f".into(), owner, group }) => InvalidArgument, "name"));
        }
    }
    rows.push(row!(op, "nobody", set_owner(v1::SetOwnerRequest { request_id: id(), path: "/d/f".into(), owner: None, group: None }) => InvalidArgument, "neither"));

    let rename = |source: &str, target: &str| v1::RenameRequest {
        request_id: id(),
        source: source.into(),
        target: target.into(),
        overwrite: true,
    };
    let copy = |source: &str, target: &str| v1::CopyRequest {
        request_id: id(),
        source: source.into(),
        target: target.into(),
        overwrite: true,
    };
    rows.extend([
        row!(op, "into itself", rename(rename("/d", "/d/sub/d")) => InvalidArgument, "into itself"),
        row!(op, "the root", rename(rename("/", "/x")) => InvalidArgument, "root"),
        row!(op, "onto the root", rename(rename("/d/f", "/")) => AlreadyExists, "already exists"),
        row!(op, "below a file", rename(rename("/d/sub", "/d/f/x")) => NotADirectory, "not a directory"),
        row!(op, "a file onto a directory", rename(rename("/d/f", "/d/sub")) => AlreadyExists, "a directory"),
        row!(op, "of nothing", rename(rename("/none", "/x")) => NotFound, "/none"),
        row!(op, "to nowhere", rename(rename("/d/f", "/none/x")) => NotFound, "/none"),
        row!(op, "a directory", copy(copy("/d", "/x")) => IsADirectory, "is a directory"),
        row!(op, "onto a directory", copy(copy("/d/f", "/d/sub")) => IsADirectory, "is a directory"),
        row!(op, "the root", remove(v1::RemoveRequest { request_id: id(), path: "//./".into(), recursive: true }) => InvalidArgument, "root"),
        row!(op, "a full directory", remove(v1::RemoveRequest { request_id: id(), path: "/d".into(), recursive: false }) => NotEmpty, "not empty"),
        row!(op, "a directory", set_replication(v1::SetReplicationRequest { request_id: id(), path: "/d".into(), replication: 1 }) => IsADirectory, "is a directory"),
        row!(op, "a directory", read_plan(v1::ReadPlanRequest { path: "/d".into(), ..Default::default() }) => IsADirectory, "is a directory"),
        row!(op, "another file's id", read_plan(v1::ReadPlanRequest { path: "/d/f".into(), file_id: u64::MAX, ..Default::default() }) => NotFound, "replaced"),
        row!(op, "the root", create(create("/")) => IsADirectory, "is a directory"),
        row!(op, "the root", grant_chunk(v1::GrantChunkRequest { path: "/".into(), ..grant() }) => IsADirectory, "is a directory"),
        row!(op, "the root", put_whole(v1::PutWholeRequest { path: "/".into(), ..whole(None) }) => IsADirectory, "is a directory"),
        row!(op, "a file that is there", grant_chunk(v1::GrantChunkRequest { path: "/d/f".into(), ..grant() }) => AlreadyExists, "-f"),
        row!(op, "a file that is there", put_whole(v1::PutWholeRequest { path: "/d/f".into(), ..whole(None) }) => AlreadyExists, "-f"),
        row!(op, "to nowhere", grant_chunk(v1::GrantChunkRequest { path: "/none/x".into(), ..grant() }) => NotFound, "/none"),
        row!(op, "too many to exclude", grant_chunk(v1::GrantChunkRequest { exclude: vec![0; 5000], ..grant() }) => InvalidArgument, "more than 4096"),
        row!(op, "more nodes than there are", grant_chunk(v1::GrantChunkRequest { replication: 3, ..grant() }) => NotEnoughDatanodes, "2 live, 3 needed"),
        row!(op, "no request id", put_whole(v1::PutWholeRequest { request_id: None, ..whole(None) }) => InvalidArgument, "request id"),
        row!(op, "another's request id", put_whole(v1::PutWholeRequest { request_id: world.used, ..whole(None) }) => InvalidArgument, "request id used before"),
        row!(op, "a chunk of an unfinished file", put_whole(whole(Some(&world.chunk))) => LeaseExpired, "not to be written"),
        row!(op, "a chunk of nobody", put_whole(whole(Some(&v1::WrittenChunk { chunk_id: 1 << 60, ..world.chunk.clone() }))) => LeaseExpired, "not to be written"),
        row!(op, "chunk -1", put_whole(whole(Some(&v1::WrittenChunk { chunk_id: u64::MAX, ..world.chunk.clone() }))) => LeaseExpired, "not to be written"),
        row!(op, "length 0", put_whole(whole(Some(&v1::WrittenChunk { length: 0, ..world.chunk.clone() }))) => InvalidArgument, "0 bytes"),
        row!(op, "length 2^32 + 5", put_whole(whole(Some(&v1::WrittenChunk { length: (1 << 32) + 5, ..world.chunk.clone() }))) => InvalidArgument, "bytes of"),
        row!(op, "generation -1", put_whole(whole(Some(&v1::WrittenChunk { generation: u64::MAX, ..world.chunk.clone() }))) => InvalidArgument, "generation"),
    ]);
    rows
}

const LONG: &str = match std::str::from_utf8(&[b'n'; 256]) {
    Ok(text) => text,
    Err(_) => panic!("ASCII"),
};

/// Completions and allocations that do not fit what was handed out; ids that are none, or another's.
fn write_rows(world: &World) -> Vec<Row> {
    let (op, open, good) = (&world.op, world.open, &world.chunk);
    let complete =
        |chunks: Vec<v1::WrittenChunk>| v1::CompleteRequest { request_id: id(), file_id: open, chunks };
    let with = |change: fn(&mut v1::WrittenChunk)| {
        let mut chunk = good.clone();
        change(&mut chunk);
        complete(vec![chunk])
    };
    let allocate = |change: fn(&mut v1::AllocateChunkRequest)| {
        let mut ask = v1::AllocateChunkRequest { request_id: id(), file_id: open, ..Default::default() };
        change(&mut ask);
        ask
    };
    let reused = world.used;
    vec![
        row!(op, "length 0", complete(with(|it| it.length = 0)) => InvalidArgument, "0 bytes"),
        row!(op, "length beyond the chunk", complete(with(|it| it.length = 65_537)) => InvalidArgument, "65537 bytes"),
        row!(op, "length -1", complete(with(|it| it.length = u64::MAX)) => InvalidArgument, "bytes of"),
        row!(op, "length 2^32 + 5", complete(with(|it| it.length = (1 << 32) + 5)) => InvalidArgument, "bytes of"),
        row!(op, "generation 0", complete(with(|it| it.generation = 0)) => InvalidArgument, "generation"),
        row!(op, "generation -1", complete(with(|it| it.generation = u64::MAX)) => InvalidArgument, "generation"),
        row!(op, "a chunk of nobody", complete(with(|it| it.chunk_id = 1 << 60)) => InvalidArgument, "chunk"),
        row!(op, "chunk -1", complete(with(|it| it.chunk_id = u64::MAX)) => InvalidArgument, "chunk"),
        row!(op, "nodes that it is not on", complete(with(|it| it.nodes = vec![77, u64::MAX])) => InvalidArgument, "was not to be written on"),
        row!(op, "one node twice", complete(with(|it| it.nodes = vec![it.nodes[0]; 2])) => InvalidArgument, "on 1 nodes"),
        row!(op, "a chunk twice", complete(complete(vec![good.clone(), good.clone()])) => InvalidArgument, "twice"),
        row!(op, "file -1", complete(v1::CompleteRequest { request_id: id(), file_id: u64::MAX, chunks: Vec::new() }) => LeaseExpired, "file"),
        row!(op, "a file that is whole", complete(v1::CompleteRequest { request_id: id(), file_id: 1, chunks: Vec::new() }) => LeaseExpired, "file"),
        row!(op, "nobody's chunk to abandon", allocate_chunk(allocate(|it| it.abandon_chunk = Some(1 << 60))) => InvalidArgument, "to abandon"),
        row!(op, "too many to exclude", allocate_chunk(allocate(|it| it.exclude = vec![0; 5000])) => InvalidArgument, "more than 4096"),
        row!(op, "no file", abandon(v1::AbandonRequest { request_id: id(), file_id: 0 }) => LeaseExpired, "file"),
        row!(op, "too many leases", renew_lease(v1::RenewLeaseRequest { request_id: id(), file_ids: vec![0; 5000] }) => InvalidArgument, "more than 4096"),
        row!(op, "no request id", mkdir(v1::MkdirRequest { path: "/m".into(), ..Default::default() }) => InvalidArgument, "request id"),
        row!(op, "request id 0", mkdir(v1::MkdirRequest { request_id: Some(v1::RequestId::default()), path: "/m".into(), ..Default::default() }) => InvalidArgument, "request id"),
        row!(op, "another's request id", mkdir(v1::MkdirRequest { request_id: reused, path: "/m".into(), ..Default::default() }) => InvalidArgument, "request id used before"),
        row!(op, "another's request id", remove(v1::RemoveRequest { request_id: reused, path: "/d".into(), recursive: true }) => InvalidArgument, "request id used before"),
        row!(op, "another's request id", create(v1::CreateRequest { request_id: reused, ..create("/m") }) => InvalidArgument, "request id used before"),
        row!(op, "another's request id", complete(v1::CompleteRequest { request_id: reused, file_id: open, chunks: Vec::new() }) => InvalidArgument, "request id used before"),
    ]
}

/// Callers who say who they are in ways that nobody is called.
fn user_rows(world: &World) -> Vec<Row> {
    let named: [(&str, Option<&[u8]>, &'static str); 8] = [
        ("nobody", None, "is missing"),
        ("an empty name", Some(b""), "is empty"),
        ("spaces", Some(b"a b"), "space"),
        ("a tab", Some(b"a\tb"), "space"),
        ("a colon", Some(b"root:root"), "colon"),
        ("a slash", Some(b"../root"), "slash"),
        ("bytes beyond ASCII", Some(b"b\xf6b\xff"), "control character"),
        ("a long name", Some(LONG.as_bytes()), "longer than 255"),
    ];
    let rows = named.into_iter().map(|(name, bytes, says)| {
        let user = world.op.clone();
        let message = v1::MkdirRequest { request_id: id(), path: "/m".into(), parents: false, mode: 0 };
        let mut request = Request::new(message);
        if let Some(bytes) = bytes {
            let value: MetadataValue<Ascii> = MetadataValue::try_from(bytes).expect("may travel");
            request.metadata_mut().insert(USER_KEY, value);
        }
        Row {
            name: format!("x-user: {name}"),
            request: Box::pin(async move { user.api().mkdir(request).await.map(|_| ()) }),
            code: ErrorCode::InvalidArgument,
            says,
        }
    });
    rows.collect()
}

/// The fields of a request for a directory, as bytes.
#[derive(Clone, PartialEq, Message)]
struct RawMkdir {
    #[prost(message, optional, tag = "1")]
    request_id: Option<v1::RequestId>,
    #[prost(bytes = "vec", tag = "2")]
    path: Vec<u8>,
}

/// What no client of ours would send: the code is the transport's own.
fn raw_rows(world: &World) -> Vec<Row> {
    let paths: [(&str, Vec<u8>); 3] = [
        ("invalid UTF-8", b"/\xff\xfe".to_vec()),
        ("half a character", b"/\xc3".to_vec()),
        ("a surrogate", b"/\xed\xa0\x80".to_vec()),
    ];
    let rows = paths.into_iter().map(|(name, path)| {
        let user = world.op.clone();
        Row {
            name: format!("raw: {name}"),
            request: Box::pin(async move {
                let mut grpc = Grpc::new(user.channel.clone());
                grpc.ready().await.expect("connected");
                let method = PathAndQuery::from_static("/distrifs.v1.ClientService/Mkdir");
                let codec: ProstCodec<RawMkdir, v1::MkdirReply> = ProstCodec::default();
                let message = RawMkdir { request_id: id(), path };
                grpc.unary(user.ask(message), method, codec).await.map(|_| ())
            }),
            code: ErrorCode::Internal,
            says: "UTF-8",
        }
    });
    rows.collect()
}

/// Questions that are odd and have an answer all the same: nothing.
async fn odd_questions(op: &User) {
    for (offset, length) in [(u64::MAX, u64::MAX), (1 << 40, 0), (5, u64::MAX), (u64::MAX, 1)] {
        let ask = v1::ReadPlanRequest { path: "/d/f".into(), offset, length, ..Default::default() };
        let plan = op.api().read_plan(op.ask(ask)).await.expect("answered").into_inner();
        assert!(plan.chunks.is_empty(), "{offset} {length}");
    }
    for start_after in ["f", "zzz", "\u{10ffff}", "f/../..", "f\0"] {
        for recursive in [false, true] {
            let (path, start_after) = ("/d".to_owned(), start_after.to_owned());
            let ask = v1::ListRequest { path, recursive, start_after: start_after.clone(), limit: u32::MAX };
            let page = op.api().list(op.ask(ask)).await.expect("answered").into_inner();
            let names: Vec<&str> = page.entries.iter().map(|entry| entry.path.as_str()).collect();
            let expected: &[&str] = if start_after.starts_with('f') { &["sub"] } else { &[] };
            assert_eq!((names.as_slice(), page.more), (expected, false), "{start_after:?} {recursive}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_is_refused_in_one_line_and_changes_nothing() {
    let world = World::new().await;
    let state = world.master.state();
    let (before, durable) = (state.namespace().clone(), state.durable());
    let mut rows = path_rows(&world);
    rows.extend(field_rows(&world));
    rows.extend(write_rows(&world));
    rows.extend(user_rows(&world));
    rows.extend(raw_rows(&world));
    let mut wrong = Vec::new();
    for row in rows {
        let name = row.name;
        let Err(error) = row.request.await else {
            wrong.push(format!("{name}: was taken"));
            continue;
        };
        let (code, text) = (code_of(&error), text_of(&error));
        if code != row.code {
            wrong.push(format!("{name}: {code:?} instead of {:?}: {text}", row.code));
        }
        if !text.contains(row.says) {
            wrong.push(format!("{name}: {text:?} does not say {:?}", row.says));
        }
        if text.contains(char::is_control) || text.len() > ERROR_TEXT_BYTES_MAX {
            wrong.push(format!("{name}: {text:?} is not one line of {ERROR_TEXT_BYTES_MAX} bytes"));
        }
        if state.durable() != durable {
            wrong.push(format!("{name}: something was logged"));
            break;
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    odd_questions(&world.op).await;
    assert!(*state.namespace() == before, "the namespace has changed");
    // The file that was being written all the while is as good as before.
    let chunks = vec![world.chunk.clone()];
    let complete = v1::CompleteRequest { request_id: id(), file_id: world.open, chunks };
    world.op.api().complete(world.op.ask(complete)).await.expect("completed");
    world.master.stop().await;
}
