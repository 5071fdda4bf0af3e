use super::*;
use crate::status::Node;
use crate::tracer::{Call, Pass};
use distrifs_proto::latency::Span;

const CHUNK: ChunkId = ChunkId(5);

fn span(stage: &'static str, start_us: u32, end_us: u32) -> Span {
    Span { stage: stage.into(), start_us, end_us }
}

fn hop(hop: usize, next_us: Option<u32>, took_us: u32, spans: Vec<Span>) -> Remembered {
    let operation = TracedOperation { chunk: CHUNK.0, part: 0, next_us, took_us, spans };
    Remembered { request: 0, hop, operation }
}

/// A chunk of one frame through two hops: the second one takes `slow` longer in one of its stages.
fn chunk(slow_stage: &str, slow: u32) -> (Known, u64) {
    let mut at = 0;
    let mut lap = |stage: &'static str, takes: u32| {
        let start = at;
        at += takes + if stage == slow_stage { slow } else { 0 };
        span(stage, start, at)
    };
    let second: Vec<Span> = vec![
        lap("write.queue", 10),
        lap("write.create", 100),
        lap("write.await", 50),
        lap("write.receive", 100),
        lap("write.crc", 50),
        lap("write.disk", 300),
        lap("write.sync", 500),
        lap("write.publish", 400),
    ];
    let took = second.last().expect("a span").end_us;
    // The first one begins 60 before it, has the same to do, and waits for it.
    let first = vec![
        span("write.queue", 0, 10),
        span("write.create", 10, 110),
        span("write.link", 10, 60),
        span("write.await", 110, 150),
        span("write.receive", 150, 200),
        span("write.crc", 200, 230),
        span("write.forward", 230, 300),
        span("write.disk", 230, 500),
        span("write.sync", 500, 1000),
        span("write.publish", 1000, 1400),
        span("write.ack", 230, 60 + took + 40),
    ];
    let node = |id| Node { id: NodeId(id), address: "127.0.0.1:1".parse().expect("an address") };
    let wall = u64::from(took) + 200;
    let pass = |stage, start_us, end_us| Pass { stage, request: Some(0), start_us, end_us };
    let notes = Notes {
        passes: vec![
            pass(ClientStage::Connect, 0, 50),
            pass(ClientStage::Send, 50, 200),
            pass(ClientStage::Ack, 200, wall),
        ],
        requests: vec![Requested { chunk: CHUNK, part: 0, hops: vec![node(1), node(2)], at_us: 50 }],
        calls: Vec::new(),
    };
    let hops = vec![hop(0, Some(60), took + 110, first), hop(1, None, took, second)];
    (Known { notes, hops, calls: Vec::new() }, wall)
}

fn largest(explanation: &Explanation) -> &Row {
    explanation.rows.iter().max_by_key(|row| row.charged).expect("a row")
}

#[test]
fn a_slow_stage_of_the_second_hop_is_named_with_all_its_time() {
    for stage in [
        "write.queue",
        "write.create",
        "write.receive",
        "write.crc",
        "write.disk",
        "write.sync",
        "write.publish",
    ] {
        let (known, wall) = chunk(stage, 200_000);
        let explanation = explain(&known, wall, Vec::new());
        let row = largest(&explanation);
        assert_eq!((row.stage.as_ref(), &row.who), (stage, &Who::Datanode { node: NodeId(2), hop: 2 }));
        assert!(row.charged >= Duration::from_micros(200_000), "{stage}: {row:?}");
        assert!(explanation.accounted() * 100 >= explanation.wall * 95, "{explanation:?}");
    }
}

#[test]
fn a_send_that_is_held_up_by_a_busy_hop_is_not_blamed() {
    let (mut known, wall) = chunk("write.crc", 200_000);
    // The first hop has more to send, which the second one does not take as long as it compares checksums.
    known.hops[0].operation.spans.push(span("write.forward", 330, 200_500));
    let explanation = explain(&known, wall, Vec::new());
    assert_eq!(largest(&explanation).stage, "write.crc");
}

#[test]
fn a_slow_way_to_the_second_hop_is_named() {
    let (mut known, wall) = chunk("write.await", 200_000);
    let forward = known.hops[0].operation.spans.iter_mut().find(|span| span.stage == "write.forward");
    forward.expect("it forwards").end_us = 200_290;
    let explanation = explain(&known, wall, Vec::new());
    let row = largest(&explanation);
    assert_eq!((row.stage.as_ref(), &row.who), ("write.forward", &Who::Datanode { node: NodeId(1), hop: 1 }));
    assert!(row.charged >= Duration::from_micros(200_000), "{row:?}");
}

#[test]
fn without_the_second_hops_word_its_time_is_not_accounted_for() {
    let (mut known, wall) = chunk("write.sync", 200_000);
    known.hops.pop();
    let explanation = explain(&known, wall, vec![NodeId(2)]);
    // Whoever waits for it says so: that is all that is known.
    assert_eq!(largest(&explanation).stage, "write.ack");
    assert_eq!(explanation.missing, [NodeId(2)]);
}

#[test]
fn the_masters_stages_lie_within_its_call() {
    let operation = TracedOperation {
        part: 3,
        took_us: 80,
        spans: vec![span("change.log", 10, 70), span("change", 0, 80)],
        ..TracedOperation::default()
    };
    let call = Call { method: "create", part: 3, start_us: 100, end_us: 200 };
    let notes = Notes { calls: vec![call], ..Notes::default() };
    let known = Known { notes, hops: Vec::new(), calls: vec![operation] };
    let explanation = explain(&known, 200, Vec::new());
    let charged: Vec<(&str, u128)> =
        explanation.rows.iter().map(|row| (row.stage.as_ref(), row.charged.as_micros())).collect();
    assert_eq!(charged, [("own", 100), ("rpc", 20), ("change.log", 60), ("change", 20)]);
    assert_eq!(explanation.accounted(), Duration::from_micros(200));
}
