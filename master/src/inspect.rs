//! The records of the log as people read them.

use std::fmt::Write;

use crate::namespace::{Operation, format};

/// A record of the log in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordText {
    /// The leader's time, in milliseconds since 1970.
    pub at_ms: i64,
    /// What it does, on whose behalf: `mkdir /a/b mode=0755 parents user=bob`. A path in it may hold any character.
    pub text: String,
}

/// What a record of the log says.
///
/// # Errors
/// One line that says why these bytes are not a record of this or an older version.
pub fn describe_record(bytes: &[u8]) -> Result<RecordText, String> {
    let command = format::decode(bytes).map_err(|error| error.to_string())?;
    let mut text = describe(&command.operation);
    // Writing to a string cannot fail.
    let _ = write!(text, " user={}", command.caller.user);
    if let Some(request) = command.request {
        let _ = write!(text, " request={:032x}", request.0);
    }
    Ok(RecordText { at_ms: command.at_ms, text })
}

fn describe(operation: &Operation) -> String {
    let flag = |set: bool, word: &'static str| if set { word } else { "" };
    match operation {
        Operation::Mkdir { path, parents, mode } => {
            format!("mkdir {path} mode={mode:04o}{}", flag(*parents, " parents"))
        }
        Operation::Create { path, overwrite, mode, replication, chunk_size, lease_until_ms, chunk } => {
            let chunk = chunk.map(|chunk| format!(" chunk={chunk}")).unwrap_or_default();
            format!(
                "create {path} mode={mode:04o} replication={replication} chunk_size={chunk_size} \
                 lease_until_ms={lease_until_ms}{chunk}{}",
                flag(*overwrite, " overwrite")
            )
        }
        Operation::AllocateChunk { file, chunk, abandon } => {
            let abandon = abandon.map(|chunk| format!(" abandon={chunk}")).unwrap_or_default();
            format!("allocate file={file} chunk={chunk}{abandon}")
        }
        Operation::Complete { file, chunks } => {
            let bytes: u64 = chunks.iter().map(|chunk| chunk.length).sum();
            format!("complete file={file} chunks={} bytes={bytes}", chunks.len())
        }
        Operation::Abandon { file } => format!("abandon file={file}"),
        Operation::RenewLeases { files, until_ms } => {
            format!("renew-leases files={} until_ms={until_ms}", files.len())
        }
        Operation::ExpireLeases { before_ms } => format!("expire-leases before_ms={before_ms}"),
        Operation::Rename { source, target, overwrite } => {
            format!("rename {source} {target}{}", flag(*overwrite, " overwrite"))
        }
        Operation::Remove { path, recursive } => format!("remove {path}{}", flag(*recursive, " recursive")),
        Operation::Copy { source, target, overwrite } => {
            format!("copy {source} {target}{}", flag(*overwrite, " overwrite"))
        }
        Operation::SetMode { path, mode } => format!("set-mode {path} mode={mode:04o}"),
        Operation::SetOwner { path, owner, group } => {
            let field = |key, name: &Option<String>| name.as_ref().map(|name| format!(" {key}={name}"));
            let (owner, group) = (field("owner", owner), field("group", group));
            format!("set-owner {path}{}{}", owner.unwrap_or_default(), group.unwrap_or_default())
        }
        Operation::SetReplication { path, replication } => {
            format!("set-replication {path} replication={replication}")
        }
        Operation::ForgetTombstones { chunks } => format!("forget-tombstones chunks={}", chunks.len()),
        Operation::ReserveChunks { count } => format!("reserve-chunks count={count}"),
        Operation::PutWhole { path, overwrite, mode, replication, chunk_size, chunk } => {
            let chunk = chunk.map(|it| format!(" chunk={} bytes={}", it.chunk, it.length));
            format!(
                "put-whole {path} mode={mode:04o} replication={replication} chunk_size={chunk_size}{}{}",
                chunk.unwrap_or_default(),
                flag(*overwrite, " overwrite")
            )
        }
        Operation::BuryChunks { chunks } => format!("bury-chunks chunks={}", chunks.len()),
        Operation::AcceptLoss { epoch } => format!("accept-loss epoch={epoch}"),
        Operation::Reap { items } => format!("reap items={items}"),
    }
}

#[cfg(test)]
mod tests {
    use distrifs_proto::types::{ChunkId, Crc32c, FileId, GenerationStamp, RequestId};

    use super::describe_record;
    use crate::groups::Groups;
    use crate::namespace::{Command, NsPath, Operation, WrittenChunk, format};

    #[test]
    fn records_are_told_in_one_line() {
        let path = |text: &str| NsPath::parse(text).expect("a path");
        let cases = [
            (
                Operation::Mkdir { path: path("/a/b"), parents: true, mode: 0o755 },
                "mkdir /a/b mode=0755 parents user=bob request=0000000000000000000000000000002a",
            ),
            (
                Operation::Rename { source: path("/a"), target: path("/b"), overwrite: false },
                "rename /a /b user=bob request=0000000000000000000000000000002a",
            ),
            (
                Operation::RenewLeases { files: vec![FileId(1), FileId(2)], until_ms: 9 },
                "renew-leases files=2 until_ms=9 user=bob request=0000000000000000000000000000002a",
            ),
            (
                Operation::PutWhole {
                    path: path("/a/b"),
                    overwrite: true,
                    mode: 0o644,
                    replication: 3,
                    chunk_size: 65536,
                    chunk: Some(WrittenChunk {
                        chunk: ChunkId(18),
                        generation: GenerationStamp(1),
                        length: 9,
                        crc: Crc32c(7),
                    }),
                },
                "put-whole /a/b mode=0644 replication=3 chunk_size=65536 chunk=0000000000000012 bytes=9 \
                 overwrite user=bob request=0000000000000000000000000000002a",
            ),
            (
                Operation::BuryChunks { chunks: vec![ChunkId(1), ChunkId(2)] },
                "bury-chunks chunks=2 user=bob request=0000000000000000000000000000002a",
            ),
            (
                Operation::ReserveChunks { count: 4096 },
                "reserve-chunks count=4096 user=bob request=0000000000000000000000000000002a",
            ),
        ];
        for (operation, expected) in cases {
            let caller = Groups::nobody("op").caller("bob");
            let command = Command { at_ms: 7, request: Some(RequestId(42)), caller, operation };
            let told = describe_record(&format::encode(&command)).expect("a record");
            assert_eq!((told.at_ms, told.text.as_str()), (7, expected));
        }
        assert!(describe_record(&[]).is_err() && describe_record(&[9, 1, 2]).is_err());
    }
}
