//! Percentile curves: the further right, the rarer; both axes are logarithmic, so that the slowest one of ten thousand
//! has as much room as half of all.

use std::fmt::Write;

use hdrhistogram::Histogram;

use super::super::table::human_us;
use super::escape;

/// One histogram as a curve.
pub(super) struct Curve<'a> {
    pub(super) name: &'a str,
    pub(super) colour: usize,
    pub(super) histogram: &'a Histogram<u64>,
}

/// The size of a chart.
#[derive(Clone, Copy)]
pub(super) struct Size {
    width: f64,
    height: f64,
}

/// Alone in its row.
pub(super) const WIDE: Size = Size { width: 880.0, height: 340.0 };
/// One of many.
pub(super) const SMALL: Size = Size { width: 420.0, height: 220.0 };

const LEFT: f64 = 62.0;
const RIGHT: f64 = 92.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 26.0;
/// Labels stand at least so far apart.
const LABEL_GAP: f64 = 13.0;
/// Points of a curve to each nine of its percentile.
const POINTS_PER_NINE: u32 = 24;
/// 99.999 %: beyond it nobody looks.
const NINES_MAX: f64 = 5.0;
const NINES: [&str; 6] = ["0 %", "90 %", "99 %", "99.9 %", "99.99 %", "99.999 %"];

/// Where values lie in a chart.
struct Scale {
    size: Size,
    nines: f64,
    /// Powers of ten of microseconds.
    low: f64,
    high: f64,
}

impl Scale {
    fn of(curves: &[Curve<'_>], size: Size) -> Self {
        let most = curves.iter().map(|curve| curve.histogram.len()).max().unwrap_or(1);
        let max = curves.iter().map(|curve| curve.histogram.max()).max().unwrap_or(1);
        let min = curves.iter().map(|curve| curve.histogram.min()).min().unwrap_or(1);
        let low = power(min).floor();
        Self {
            size,
            nines: (most as f64).log10().clamp(1.0, NINES_MAX),
            low,
            high: power(max).ceil().max(low + 1.0),
        }
    }

    fn x(&self, nines: f64) -> f64 {
        LEFT + nines / self.nines * (self.size.width - LEFT - RIGHT)
    }

    fn y(&self, us: u64) -> f64 {
        let share = (power(us) - self.low) / (self.high - self.low);
        self.size.height - BOTTOM - share * (self.size.height - TOP - BOTTOM)
    }
}

/// Less than a microsecond counts as one.
fn power(us: u64) -> f64 {
    (us.max(1) as f64).log10()
}

/// Draws curves, each with its name at its end.
pub(super) fn draw(out: &mut String, curves: &[Curve<'_>], size: Size) {
    let scale = Scale::of(curves, size);
    let _ = write!(out, "<svg viewBox=\"0 0 {} {}\" role=\"img\">", size.width, size.height);
    grid(out, &scale);
    for curve in curves {
        let _ = write!(
            out,
            "<path class=\"curve s{}\" d=\"{}\"><title>{}: p50 {}, p99 {}, max {}</title></path>",
            curve.colour,
            path(curve.histogram, &scale),
            escape(curve.name),
            human_us(curve.histogram.value_at_quantile(0.5) as f64),
            human_us(curve.histogram.value_at_quantile(0.99) as f64),
            human_us(curve.histogram.max() as f64),
        );
    }
    labels(out, curves, &scale);
    out.push_str("</svg>");
}

fn grid(out: &mut String, scale: &Scale) {
    let (right, bottom) = (scale.size.width - RIGHT, scale.size.height - BOTTOM);
    for (nines, name) in NINES.iter().enumerate() {
        let nines = nines as f64;
        if nines <= scale.nines {
            let x = scale.x(nines);
            let _ = write!(
                out,
                "<line class=\"grid\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{bottom}\"/>"
            );
            let y = scale.size.height - 8.0;
            let _ = write!(
                out,
                "<text class=\"axis\" text-anchor=\"middle\" x=\"{x:.1}\" y=\"{y}\">{name}</text>"
            );
        }
    }
    for step in scale.low as i32..=scale.high as i32 {
        let us = 10f64.powi(step);
        let y = scale.y(us as u64);
        let _ =
            write!(out, "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>");
        let _ = write!(
            out,
            "<text class=\"axis\" text-anchor=\"end\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            LEFT - 8.0,
            y + 4.0,
            round_us(step)
        );
    }
}

/// A power of ten of microseconds without zeros behind a point.
fn round_us(power: i32) -> String {
    let (of, unit) =
        [(6, "s"), (3, "ms"), (0, "us")].into_iter().find(|(of, _)| power >= *of).unwrap_or((0, "us"));
    format!("{} {unit}", 10u64.pow((power - of).max(0) as u32))
}

/// The curve up to the rarest that was counted.
fn path(histogram: &Histogram<u64>, scale: &Scale) -> String {
    let end = (histogram.len() as f64).log10().min(scale.nines);
    let steps = (end * f64::from(POINTS_PER_NINE)).ceil() as u32;
    let mut out = String::new();
    for step in 0..=steps {
        let nines = (f64::from(step) / f64::from(POINTS_PER_NINE)).min(end);
        let quantile = 1.0 - 10f64.powf(-nines);
        let command = if step == 0 { 'M' } else { 'L' };
        let _ = write!(
            out,
            "{command}{:.1} {:.1}",
            scale.x(nines),
            scale.y(histogram.value_at_quantile(quantile))
        );
    }
    let _ = write!(out, "L{:.1} {:.1}", scale.x(end), scale.y(histogram.max()));
    out
}

fn labels(out: &mut String, curves: &[Curve<'_>], scale: &Scale) {
    let mut at: Vec<(f64, &Curve<'_>)> =
        curves.iter().map(|curve| (scale.y(curve.histogram.max()) + 4.0, curve)).collect();
    at.sort_by(|a, b| a.0.total_cmp(&b.0));
    spread(&mut at, scale.size.height - BOTTOM + 4.0);
    for (y, curve) in at {
        let x = scale.size.width - RIGHT + 8.0;
        let _ = write!(
            out,
            "<text class=\"label t{}\" x=\"{x:.1}\" y=\"{y:.1}\">{}</text>",
            curve.colour,
            escape(curve.name)
        );
    }
}

/// Moves labels apart, down as far as there is room, then up.
fn spread<T>(sorted: &mut [(f64, T)], lowest: f64) {
    for i in 1..sorted.len() {
        sorted[i].0 = sorted[i].0.max(sorted[i - 1].0 + LABEL_GAP);
    }
    let mut limit = lowest;
    for (y, _) in sorted.iter_mut().rev() {
        *y = y.min(limit);
        limit = *y - LABEL_GAP;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_do_not_lie_on_each_other() {
        let mut labels: Vec<(f64, ())> = [90.0, 95.0, 96.0, 99.0].map(|y| (y, ())).to_vec();
        spread(&mut labels, 100.0);
        assert!(labels.windows(2).all(|pair| pair[1].0 - pair[0].0 >= LABEL_GAP) && labels[3].0 <= 100.0);
    }

    #[test]
    fn powers_are_read_easily() {
        for (power, text) in [(0, "1 us"), (2, "100 us"), (3, "1 ms"), (5, "100 ms"), (7, "10 s")] {
            assert_eq!(round_us(power), text);
        }
    }

    #[test]
    fn a_single_value_is_a_curve() {
        let mut histogram = Histogram::new(2).unwrap();
        histogram.record(0).unwrap();
        let mut out = String::new();
        draw(&mut out, &[Curve { name: "a", colour: 0, histogram: &histogram }], SMALL);
        assert!(!out.contains("NaN") && !out.contains("inf"), "{out}");
    }
}
