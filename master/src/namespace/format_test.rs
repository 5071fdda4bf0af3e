use super::*;

fn path(text: &str) -> NsPath {
    NsPath::parse(text).expect("a path")
}

fn written((chunk, length, crc): (u64, u64, u32)) -> WrittenChunk {
    let (chunk, generation, crc) = (ChunkId(chunk), GenerationStamp(1), Crc32c(crc));
    WrittenChunk { chunk, generation, length, crc }
}

/// One command of each kind, with every field set.
pub(crate) fn samples() -> Vec<Command> {
    let operations = [
        Operation::Mkdir { path: path("/d"), parents: true, mode: 0o755 },
        Operation::Create {
            path: path("/d/f"),
            overwrite: true,
            mode: 0o644,
            replication: 3,
            chunk_size: 64 << 20,
            lease_until_ms: 61_000,
            chunk: Some(ChunkId(7)),
        },
        Operation::AllocateChunk { file: FileId(1 << 32), chunk: ChunkId(8), abandon: Some(ChunkId(7)) },
        Operation::Complete {
            file: FileId(1 << 32),
            chunks: [(8, 64 << 20, 0xdead_beef), (11, 5, 1)].map(written).to_vec(),
        },
        Operation::Abandon { file: FileId(2) },
        Operation::RenewLeases { files: vec![FileId(2)], until_ms: 62_000 },
        Operation::ExpireLeases { before_ms: 63_000 },
        Operation::Rename { source: path("/d"), target: path("/e"), overwrite: true },
        Operation::Remove { path: path("/e"), recursive: true },
        Operation::ForgetTombstones { chunks: vec![ChunkId(7), ChunkId(8)] },
        Operation::Copy { source: path("/d"), target: path("/e"), overwrite: true },
        Operation::SetMode { path: path("/d"), mode: 0o1777 },
        Operation::SetOwner { path: path("/d"), owner: Some("al".into()), group: None },
        Operation::SetOwner { path: path("/d"), owner: None, group: Some("gr".into()) },
        Operation::SetReplication { path: path("/d"), replication: 5 },
        Operation::AcceptLoss { epoch: Epoch(300) },
        Operation::ReserveChunks { count: 4096 },
        Operation::PutWhole {
            path: path("/d/f"),
            overwrite: true,
            mode: 0o644,
            replication: 3,
            chunk_size: 64 << 20,
            chunk: Some(written((9, 4096, 0xdead_beef))),
        },
        Operation::BuryChunks { chunks: vec![ChunkId(7), ChunkId(8), ChunkId(300)] },
        Operation::Reap { items: 1024 },
    ];
    let caller = Arc::new(Caller { user: "bob".into(), groups: vec!["bob".into()], superuser: false });
    operations
        .into_iter()
        .map(|operation| Command {
            at_ms: 1_000,
            request: Some(RequestId(1 << 64 | 2)),
            caller: caller.clone(),
            operation,
        })
        .collect()
}

/// What version 1 wrote. These bytes are on disks: a change here breaks every log there is.
const GOLDEN: [&str; 20] = [
    "0108e80712120901000000000000001102000000000000001a0a0a03626f621203626f6252090a022f64100118ed03",
    "0108e80712120901000000000000001102000000000000001a0a0a03626f621203626f625a1f0a042f642f66100118a4032003288080802030c8dc03390700000000000000",
    "0108e80712120901000000000000001102000000000000001a0a0a03626f621203626f62621b090000000001000000110800000000000000190700000000000000",
    "0108e80712120901000000000000001102000000000000001a0a0a03626f621203626f626a25090000000001000000120210061a020101220880808040f5ffff3f2a08efbeadde01000000",
    "0108e80712120901000000000000001102000000000000001a0a0a03626f621203626f627209090200000000000000",
    "0108e80712120901000000000000001102000000000000001a0a0a03626f621203626f627a0e0a08020000000000000010b0e403",
    "0108e80712120901000000000000001102000000000000001a0a0a03626f621203626f628201040898ec03",
    "0108e80712120901000000000000001102000000000000001a0a0a03626f621203626f628a010a0a022f6412022f651801",
    "0108e80712120901000000000000001102000000000000001a0a0a03626f621203626f629201060a022f651001",
    "0108e80712120901000000000000001102000000000000001a0a0a03626f621203626f629a01120a1007000000000000000800000000000000",
    "0108e80712120901000000000000001102000000000000001a0a0a03626f621203626f62a2010a0a022f6412022f651801",
    "0108e80712120901000000000000001102000000000000001a0a0a03626f621203626f62aa01070a022f6410ff07",
    "0108e80712120901000000000000001102000000000000001a0a0a03626f621203626f62b201080a022f641202616c",
    "0108e80712120901000000000000001102000000000000001a0a0a03626f621203626f62b201080a022f641a026772",
    "0108e80712120901000000000000001102000000000000001a0a0a03626f621203626f62ba01060a022f641005",
    "0108e80712120901000000000000001102000000000000001a0a0a03626f621203626f62c2010308ac02",
    "0108e80712120901000000000000001102000000000000001a0a0a03626f621203626f62ca0103088020",
    "0108e80712120901000000000000001102000000000000001a0a0a03626f621203626f62d201200a042f642f66100118a40320032880808020320c0809100118802025efbeadde",
    "0108e80712120901000000000000001102000000000000001a0a0a03626f621203626f62da01060a040e02c804",
    "0108e80712120901000000000000001102000000000000001a0a0a03626f621203626f62e20103088008",
];

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len() / 2).map(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).expect("hex")).collect()
}

#[test]
fn commands_have_the_bytes_they_always_had() {
    let written: Vec<String> = samples().iter().map(|command| hex(&encode(command))).collect();
    assert_eq!(written, GOLDEN);
}

#[test]
fn what_version_1_wrote_is_read() {
    for (golden, command) in GOLDEN.iter().zip(samples()) {
        assert_eq!(decode(&unhex(golden)), Ok(command));
    }
}

#[test]
fn a_chunk_of_a_completion_takes_seven_bytes() {
    let chunks = (0..100_000u64).map(|i| written((1_000_000 + i, 64 << 20, i as u32))).collect();
    let operation = Operation::Complete { file: FileId(1), chunks };
    let command = Command { operation, ..samples().remove(0) };
    let bytes = encode(&command);
    assert!(bytes.len() < 700_100, "{} bytes", bytes.len());
    assert_eq!(decode(&bytes), Ok(command));
}

#[test]
fn newer_and_damaged_records_are_refused() {
    let good = encode(&samples()[0]);
    let mut newer = good.to_vec();
    newer[0] = 2;
    assert_eq!(decode(&newer), Err(FormatError::Newer(2)));
    assert_eq!(decode(&[]), Err(FormatError::Empty));
    assert_eq!(decode(&[1]), Err(FormatError::Field("caller")));
    assert_eq!(decode(&[0]), Err(FormatError::Field("version")));
    assert!(matches!(decode(&good[..good.len() - 1]), Err(FormatError::Encoding(_))));
}

proptest::proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
        let mut versioned = vec![VERSION];
        versioned.extend(&bytes);
        let _ = (decode(&bytes).is_ok(), decode(&versioned).is_ok());
    }
}
