//! Stacked bars: what one operation spends in each stage, node by node.

use std::fmt::Write;

use super::super::snapshot::Snapshot;
use super::super::table::human_us;
use super::{COLOURS, escape, short, short_node};

const WIDTH: f64 = 880.0;
const LEFT: f64 = 92.0;
const RIGHT: f64 = 92.0;
const BAR: f64 = 26.0;
const GAP: f64 = 10.0;
/// A part is named where its name has room.
const LETTER: f64 = 7.0;
/// Has the stages of the hops behind in it, which have bars of their own.
const OF_OTHERS: &str = "write.ack";

/// One bar: the node, and the mean microseconds of each stage for one operation.
struct Bar<'a> {
    node: &'a str,
    parts: Vec<f64>,
}

/// Draws a bar for each node, and says what the colours mean.
pub(super) fn draw(out: &mut String, snapshot: &Snapshot, stages: &[&str]) {
    let bars = bars(snapshot, stages);
    let longest = bars.iter().map(|bar| bar.parts.iter().sum::<f64>()).fold(0.0, f64::max);
    if longest == 0.0 {
        return;
    }
    out.push_str("<figure><figcaption>Mean time in each stage for one operation; stages may run at once");
    if stages.contains(&OF_OTHERS) {
        out.push_str("; without the wait for the next hop");
    }
    let height = bars.len() as f64 * (BAR + GAP);
    let _ = write!(out, "</figcaption><svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\">");
    for (at, bar) in bars.iter().enumerate() {
        draw_bar(out, bar, stages, (at as f64 * (BAR + GAP), (WIDTH - LEFT - RIGHT) / longest));
    }
    out.push_str("</svg><p class=\"legend\">");
    for (at, stage) in stages.iter().enumerate().filter(|(_, stage)| **stage != OF_OTHERS) {
        let _ = write!(out, "<span><i class=\"b{}\"></i>{}</span>", at % COLOURS, escape(short(stage)));
    }
    out.push_str("</p></figure>");
}

fn draw_bar(out: &mut String, bar: &Bar<'_>, stages: &[&str], (y, per_us): (f64, f64)) {
    let middle = y + BAR / 2.0 + 4.0;
    let name = escape(short_node(bar.node));
    let _ = write!(
        out,
        "<text class=\"axis\" text-anchor=\"end\" x=\"{:.1}\" y=\"{middle:.1}\">{name}</text>",
        LEFT - 8.0
    );
    let mut x = LEFT;
    for (at, (us, stage)) in bar.parts.iter().zip(stages).enumerate().filter(|(_, (us, _))| **us > 0.0) {
        let width = us * per_us;
        let (name, time) = (escape(short(stage)), human_us(*us));
        let _ = write!(
            out,
            "<rect class=\"f{}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{BAR}\"><title>{name} {time}</title></rect>",
            at % COLOURS
        );
        if width > (short(stage).len() + 1) as f64 * LETTER {
            let _ = write!(
                out,
                "<text class=\"in\" text-anchor=\"middle\" x=\"{:.1}\" y=\"{middle:.1}\">{name}</text>",
                x + width / 2.0
            );
        }
        x += width;
    }
    let sum = human_us(bar.parts.iter().sum());
    let _ = write!(out, "<text class=\"axis\" x=\"{:.1}\" y=\"{middle:.1}\">{sum}</text>", x + 8.0);
}

/// The bars of the nodes that had such an operation.
fn bars<'a>(snapshot: &'a Snapshot, stages: &[&str]) -> Vec<Bar<'a>> {
    let mut nodes: Vec<&str> = Vec::new();
    for cell in snapshot.cells.iter().filter(|cell| stages.contains(&cell.stage.as_str())) {
        if !nodes.contains(&cell.node.as_str()) {
            nodes.push(&cell.node);
        }
    }
    let bar = |node: &&'a str| {
        let of = |stage: &str| {
            snapshot
                .cells
                .iter()
                .find(|cell| cell.node == *node && cell.stage == stage)
                .map(|cell| &cell.histogram)
        };
        // Each operation passes its first stage once.
        let operations = stages.first().and_then(|first| of(first)).map_or(0, |first| first.len());
        let part = |stage: &&str| match of(stage) {
            Some(histogram) if operations > 0 && *stage != OF_OTHERS => {
                histogram.mean() * histogram.len() as f64 / operations as f64
            }
            _ => 0.0,
        };
        Bar { node, parts: stages.iter().map(part).collect() }
    };
    nodes.iter().map(bar).filter(|bar| bar.parts.iter().any(|us| *us > 0.0)).collect()
}

#[cfg(test)]
mod tests {
    use super::super::super::snapshot::tests::cell;
    use super::*;

    #[test]
    fn a_bar_is_the_time_of_one_operation() {
        let cells = vec![
            cell("write.queue", "1", &[2, 2]),
            cell("write.crc", "1", &[10, 10, 10, 10]),
            cell("write.ack", "1", &[500, 500]),
        ];
        let snapshot = Snapshot { cells };
        let bars = bars(&snapshot, &snapshot.stages());
        assert_eq!(bars[0].parts, [2.0, 20.0, 0.0]);
    }
}
