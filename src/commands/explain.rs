//! `put --explain` and `get --explain`: where the time of one operation went.

/// What `--help` says of it.
macro_rules! explain_help {
    () => {
        "--explain shows where the time went, from a trace that the master and the datanodes keep \
    of this one operation. Much runs at once, so the time is split: every instant is charged to one stage, of all that \
    work then to the one that ends last, for that one holds up the rest; a stage that sends not while the other side is busy \
    otherwise; one that waits only while nobody works. `charged` adds up to what is accounted for; `busy` is how long the stage \
    took in all its passes, beside others. Stages: source, connect, send, ack, receive, land are the client's (reading what \
    is sent, connecting, sending, from the last acknowledgement to its arrival, waiting for bytes, checking and writing \
    what came), own is what lies between them; rpc is the way to the master and back; write.await and write.ack are the way of bytes and \
    acknowledgements between two datanodes; `distrifs help latency` has the others."
    };
}
pub(crate) use explain_help;

use std::time::Duration;

use distrifs_client::{Explanation, Row, Who};
use serde::Serialize;

use super::latency::human_us;
use crate::error::CommandError;
use crate::output::{Output, Table};

/// The stable keys of `--json`.
#[derive(Serialize)]
struct Json<'a> {
    operation: &'a str,
    path: &'a str,
    wall_us: u128,
    accounted_us: u128,
    /// Datanodes that do not remember what they were asked about.
    missing: Vec<String>,
    /// The one that is charged most.
    largest: Option<JsonRow<'a>>,
    stages: Vec<JsonRow<'a>>,
}

#[derive(Serialize)]
struct JsonRow<'a> {
    who: &'static str,
    node: Option<String>,
    hop: Option<usize>,
    call: Option<&'static str>,
    chunk: Option<String>,
    stage: &'a str,
    charged_us: u128,
    busy_us: u128,
}

impl<'a> JsonRow<'a> {
    fn new(row: &'a Row) -> Self {
        let (who, node, hop, call) = match &row.who {
            Who::Client => ("client", None, None, None),
            Who::Master { call } => ("master", None, None, Some(*call)),
            Who::Datanode { node, hop } => ("datanode", Some(node.to_string()), Some(*hop), None),
        };
        Self {
            who,
            node,
            hop,
            call,
            chunk: row.chunk.map(|chunk| chunk.to_string()),
            stage: &row.stage,
            charged_us: row.charged.as_micros(),
            busy_us: row.busy.as_micros(),
        }
    }
}

/// Prints an explanation.
pub(crate) fn print(
    output: &mut Output,
    operation: &str,
    path: &str,
    explanation: &Explanation,
) -> Result<(), CommandError> {
    if output.json() {
        return output.object(&Json {
            operation,
            path,
            wall_us: explanation.wall.as_micros(),
            accounted_us: explanation.accounted().as_micros(),
            missing: explanation.missing.iter().map(ToString::to_string).collect(),
            largest: explanation.rows.iter().max_by_key(|row| row.charged).map(JsonRow::new),
            stages: explanation.rows.iter().map(JsonRow::new).collect(),
        });
    }
    let accounted = percent(explanation.accounted(), explanation.wall);
    let name = output.name(path).into_owned();
    output
        .line(format_args!("{operation} {name}: {}, {accounted} accounted for", human(explanation.wall)))?;
    let mut table = Table::new(&[1, 2, 3]);
    table.row(["".into(), "charged".into(), "".into(), "busy".into()]);
    let mut before = None;
    for row in &explanation.rows {
        let head = head(row);
        if before.as_ref() != Some(&head) {
            let same = |other: &&Row| self::head(other) == head;
            let charged = explanation.rows.iter().filter(same).map(|row| row.charged).sum();
            let share = percent(charged, explanation.wall);
            table.row([head.clone(), human(charged), share, String::new()]);
            before = Some(head);
        }
        table.row([
            format!("    {}", row.stage),
            human(row.charged),
            percent(row.charged, explanation.wall),
            human(row.busy),
        ]);
    }
    table.lines().try_for_each(|line| output.line(line))?;
    for node in &explanation.missing {
        output.line(format_args!("node {node} does not remember all it was asked about"))?;
    }
    Ok(())
}

/// What a row stands below.
fn head(row: &Row) -> String {
    let chunk = row.chunk.map(|chunk| format!("chunk {chunk}, ")).unwrap_or_default();
    match &row.who {
        Who::Client => "client".to_owned(),
        Who::Master { call } => format!("master, {call}"),
        Who::Datanode { node, hop } => format!("{chunk}hop {hop}, node {node}"),
    }
}

fn human(time: Duration) -> String {
    human_us(time.as_micros() as f64)
}

fn percent(part: Duration, whole: Duration) -> String {
    if whole.is_zero() {
        return String::new();
    }
    format!("{:.1} %", part.as_secs_f64() / whole.as_secs_f64() * 100.0)
}
