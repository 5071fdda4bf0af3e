//! `--html`: one page that needs nothing else: curves, bars and the table, light or dark as the reader's system is.
//! Pure.

mod bars;
mod curves;

use std::fmt::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use hdrhistogram::Histogram;

use super::snapshot::{ALL, Cell, Snapshot};
use super::table::human_us;
use crate::output::utc_time;
use curves::Curve;

/// Colours that the style has; further curves begin again with the first.
const COLOURS: usize = 11;
/// What stages are shown as that are of no one operation.
const CALLS: &str = "calls";

/// The operations whose stages belong together, and what they are called.
const OPERATIONS: [(&str, &str); 4] = [
    ("write", "Writing a chunk, at each datanode"),
    ("read", "Reading a chunk, at its datanode"),
    ("change", "A change in the master"),
    (CALLS, "Calls of the master, and its log"),
];

/// The page.
pub(super) fn render(snapshot: &Snapshot, at: SystemTime) -> String {
    let ms = at.duration_since(UNIX_EPOCH).map_or(0, |it| i64::try_from(it.as_millis()).unwrap_or(i64::MAX));
    let mut nodes: Vec<&str> = Vec::new();
    for cell in &snapshot.cells {
        if !nodes.contains(&cell.node.as_str()) {
            nodes.push(&cell.node);
        }
    }
    let mut out = String::new();
    // Writing to a string does not fail, here and below.
    let _ = write!(
        out,
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
        <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
        <meta name=\"color-scheme\" content=\"light dark\"><title>DistriFS latency</title>\
        <style>{}</style></head>\n<body><header><h1>DistriFS latency</h1><p>{} UTC · {} nodes</p></header>\n<main>",
        include_str!("style.css"),
        utc_time(ms),
        nodes.len()
    );
    for (operation, title) in OPERATIONS {
        let stages: Vec<&str> = snapshot
            .stages()
            .into_iter()
            .filter(|stage| operation_of(stage) == operation && !snapshot.merged(stage).is_empty())
            .collect();
        if !stages.is_empty() {
            section(&mut out, snapshot, title, &stages);
        }
    }
    table(&mut out, snapshot);
    out.push_str("</main></body></html>\n");
    out
}

fn operation_of(stage: &str) -> &str {
    match stage.split_once('.') {
        Some((operation, _)) if operation != "log" => operation,
        _ => CALLS,
    }
}

/// The part of a stage's name behind its operation.
fn short(stage: &str) -> &str {
    match operation_of(stage) {
        CALLS => stage,
        operation => &stage[operation.len() + 1..],
    }
}

fn section(out: &mut String, snapshot: &Snapshot, title: &str, stages: &[&str]) {
    let _ = write!(out, "<section><h2>{title}</h2>");
    if stages.iter().any(|stage| operation_of(stage) != CALLS) {
        bars::draw(out, snapshot, stages);
    }
    let merged: Vec<Histogram<u64>> = stages.iter().map(|stage| snapshot.merged(stage)).collect();
    let curves: Vec<Curve<'_>> = stages
        .iter()
        .zip(&merged)
        .enumerate()
        .map(|(at, (stage, histogram))| Curve { name: short(stage), colour: at % COLOURS, histogram })
        .collect();
    out.push_str("<figure><figcaption>Percentiles of each stage, all nodes together</figcaption>");
    curves::draw(out, &curves, curves::WIDE);
    out.push_str("</figure>");
    if stages.iter().any(|stage| snapshot.of_stage(stage).count() > 1) {
        out.push_str("<details><summary>Each stage, node by node</summary><div class=\"small\">");
        stages.iter().for_each(|stage| of_nodes(out, snapshot, stage));
        out.push_str("</div></details>");
    }
    out.push_str("</section>\n");
}

/// One stage, a curve for each node.
fn of_nodes(out: &mut String, snapshot: &Snapshot, stage: &str) {
    let cells: Vec<&Cell> = snapshot.of_stage(stage).filter(|cell| !cell.histogram.is_empty()).collect();
    let curves: Vec<Curve<'_>> = cells
        .iter()
        .enumerate()
        .map(|(at, cell)| Curve {
            name: short_node(&cell.node),
            colour: at % COLOURS,
            histogram: &cell.histogram,
        })
        .collect();
    let _ = write!(out, "<figure><figcaption>{}</figcaption>", escape(stage));
    curves::draw(out, &curves, curves::SMALL);
    out.push_str("</figure>");
}

/// As much of a node's identity as tells it apart.
fn short_node(node: &str) -> &str {
    node.get(..8).unwrap_or(node)
}

fn table(out: &mut String, snapshot: &Snapshot) {
    out.push_str("<section><h2>All numbers</h2><div class=\"scroll\"><table><thead><tr><th>stage<th>node");
    for head in ["count", "mean", "p50", "p90", "p99", "p99.9", "max"] {
        let _ = write!(out, "<th class=\"n\">{head}");
    }
    out.push_str("</thead><tbody>");
    for stage in snapshot.stages() {
        let merged = snapshot.merged(stage);
        row(out, Some(stage), ALL, &merged);
        snapshot.of_stage(stage).for_each(|cell| row(out, None, &cell.node, &cell.histogram));
    }
    out.push_str("</tbody></table></div></section>");
}

fn row(out: &mut String, stage: Option<&str>, node: &str, histogram: &Histogram<u64>) {
    let class = if stage.is_some() { " class=\"all\"" } else { "" };
    let stage = stage.map(escape).unwrap_or_default();
    let _ = write!(out, "<tr{class}><td>{stage}<td>{}<td class=\"n\">{}", escape(node), histogram.len());
    let at = |quantile| histogram.value_at_quantile(quantile) as f64;
    let times = [histogram.mean(), at(0.5), at(0.9), at(0.99), at(0.999), histogram.max() as f64];
    for time in times {
        let text = if histogram.is_empty() { "–".to_owned() } else { human_us(time) };
        let _ = write!(out, "<td class=\"n\">{text}");
    }
}

/// Text of others as it may stand in a page.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::snapshot::tests::cell;
    use super::*;

    #[test]
    fn names_of_others_cannot_leave_their_place() {
        let evil = "<script>alert('x')</script>&\"";
        let cells =
            vec![cell("write.<b>", evil, &[5, 9]), cell(evil, "1", &[7]), cell("write.<b>", "2", &[5])];
        let page = render(&Snapshot { cells }, UNIX_EPOCH);
        assert!(!page.contains("<script") && !page.contains("<b>"), "{page}");
        assert!(page.contains("&lt;script&gt;"));
    }

    #[test]
    fn a_page_needs_nothing_else() {
        let cells = vec![cell("write.sync", "1", &[5, 9]), cell("log.sync", "master", &[7])];
        let page = render(&Snapshot { cells }, UNIX_EPOCH);
        assert!(!page.contains("http://") && !page.contains("https://") && !page.contains("url("));
        assert!(page.contains("prefers-color-scheme: dark") && page.matches("<svg").count() >= 3);
    }

    #[test]
    fn an_empty_snapshot_is_a_page_too() {
        assert!(render(&Snapshot::default(), UNIX_EPOCH).contains("All numbers"));
        let cells = vec![cell("write.sync", "1", &[])];
        assert!(!render(&Snapshot { cells }, UNIX_EPOCH).contains("<svg"));
    }
}
