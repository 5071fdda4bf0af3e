//! What tells two requests apart that have the same id.
//!
//! The CRC32C of: the operation's number in the log's format, the caller's name, and every field that the client
//! chose, texts with their length (u32 LE) in front, numbers as u64 LE. What the leader fills in (times, new chunk
//! ids) is left out, so that a retry has the same. It is kept with the answers, on disk: it never changes.

use distrifs_proto::types::Crc32c;

use super::command::{Command, Operation};

#[derive(Default)]
struct Fields(Vec<u8>);

impl Fields {
    fn text(&mut self, text: &str) -> &mut Self {
        self.0.extend_from_slice(&(text.len() as u32).to_le_bytes());
        self.0.extend_from_slice(text.as_bytes());
        self
    }

    fn number(&mut self, number: impl Into<u64>) -> &mut Self {
        self.0.extend_from_slice(&number.into().to_le_bytes());
        self
    }

    fn optional(&mut self, text: Option<&str>) -> &mut Self {
        self.number(text.is_some()).text(text.unwrap_or_default())
    }
}

/// The fingerprint of a command.
pub(super) fn of(command: &Command) -> u32 {
    let mut fields = Fields(Vec::with_capacity(128));
    fields.text(&command.caller.user);
    match &command.operation {
        Operation::Mkdir { path, parents, mode } => {
            fields.number(10u32).text(path.as_str()).number(*parents).number(*mode);
        }
        Operation::Create { path, overwrite, mode, replication, chunk_size, lease_until_ms: _, chunk } => {
            fields.number(11u32).text(path.as_str()).number(*overwrite).number(*mode);
            fields.number(*replication).number(*chunk_size).number(chunk.is_some());
        }
        Operation::AllocateChunk { file, chunk: _, abandon } => {
            fields.number(12u32).number(file.0).number(abandon.map_or(0, |chunk| chunk.0));
        }
        Operation::Complete { file, chunks } => {
            fields.number(13u32).number(file.0);
            for it in chunks {
                fields.number(it.chunk.0).number(it.generation.0).number(it.length).number(it.crc.0);
            }
        }
        Operation::Abandon { file } => {
            fields.number(14u32).number(file.0);
        }
        Operation::Rename { source, target, overwrite } => {
            fields.number(17u32).text(source.as_str()).text(target.as_str()).number(*overwrite);
        }
        Operation::Remove { path, recursive } => {
            fields.number(18u32).text(path.as_str()).number(*recursive);
        }
        Operation::Copy { source, target, overwrite } => {
            fields.number(20u32).text(source.as_str()).text(target.as_str()).number(*overwrite);
        }
        Operation::SetMode { path, mode } => {
            fields.number(21u32).text(path.as_str()).number(*mode);
        }
        Operation::SetOwner { path, owner, group } => {
            fields.number(22u32).text(path.as_str()).optional(owner.as_deref()).optional(group.as_deref());
        }
        Operation::SetReplication { path, replication } => {
            fields.number(23u32).text(path.as_str()).number(*replication);
        }
        Operation::PutWhole { path, overwrite, mode, replication, chunk_size, chunk } => {
            fields.number(26u32).text(path.as_str()).number(*overwrite).number(*mode);
            fields.number(*replication).number(*chunk_size).number(chunk.is_some());
            if let Some(it) = chunk {
                fields.number(it.chunk.0).number(it.generation.0).number(it.length).number(it.crc.0);
            }
        }
        // Never remembered: repeating them is harmless.
        Operation::RenewLeases { .. }
        | Operation::ExpireLeases { .. }
        | Operation::ForgetTombstones { .. }
        | Operation::ReserveChunks { .. }
        | Operation::BuryChunks { .. }
        | Operation::AcceptLoss { .. }
        | Operation::Reap { .. } => {}
    }
    Crc32c::of(&fields.0).0
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use distrifs_proto::types::ChunkId;

    use super::super::format::samples;
    use super::*;

    #[test]
    fn what_the_leader_fills_in_makes_no_difference_and_all_else_does() {
        let mut seen: HashMap<u32, Command> = HashMap::new();
        for command in samples() {
            let print = of(&command);
            let mut again = command.clone();
            again.at_ms += 1;
            again.assign_chunk(&mut ChunkId(99));
            if let Operation::Create { lease_until_ms, .. } = &mut again.operation {
                *lease_until_ms += 1;
            }
            assert_eq!(of(&again), print, "{command:?}");
            std::sync::Arc::make_mut(&mut again.caller).user.push('x');
            assert_ne!(of(&again), print, "another user's {command:?}");
            if command.request.is_some() && seen.insert(print, command.clone()).is_some() {
                assert_eq!(command.place().to_string(), "/", "two of the same: {command:?}");
            }
        }
    }

    #[test]
    fn it_is_what_it_always_was() {
        let prints: Vec<String> = samples().iter().map(|it| format!("{:08x}", of(it))).collect();
        assert_eq!(prints.join(" "), GOLDEN);
    }

    const GOLDEN: &str = "4cf038b6 9e5a7917 8daac335 259b5048 85639d7d 8d6dfa9b 8d6dfa9b 3ff53734 454e73f4 \
        8d6dfa9b 1e6e7d32 ced9629b af8ca852 8e773ab9 b9c30544 8d6dfa9b 8d6dfa9b 245a93b7 8d6dfa9b 8d6dfa9b";
}
