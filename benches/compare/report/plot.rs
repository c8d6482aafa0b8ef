//! Pictures, as SVG text that needs nothing else.

use std::fmt::Write;

use super::{Report, amount};
use crate::contestants::{EPOLL, REFERENCE, URING};

const COLORS: [&str; 8] =
    ["#d1495b", "#2e86ab", "#3a9d5d", "#8d5fb0", "#c98a1b", "#5b6770", "#17a2a2", "#a3562a"];

/// For one contestant the same everywhere.
fn color(place: usize) -> &'static str {
    COLORS[place % COLORS.len()]
}

/// Beyond the eighth contestant colors come again, dashed.
fn dashes(place: usize) -> &'static str {
    if place < COLORS.len() { "" } else { " stroke-dasharray=\"5 3\"" }
}

pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn svg(width: f64, height: f64, title: &str, body: &str) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" \
         height=\"{height}\" role=\"img\" font-family=\"sans-serif\" font-size=\"12\">\
         <title>{}</title><rect width=\"100%\" height=\"100%\" rx=\"6\" fill=\"#fff\"/>{body}</svg>\n",
        escape(title)
    )
}

fn label(x: f64, y: f64, anchor: &str, text: &str) -> String {
    let text = escape(text);
    format!("<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" fill=\"#222\">{text}</text>")
}

/// One picture of the speed, for README: messages in a second, some rows, some contestants. On a ground
/// of its own, so that it can be read on a dark page as well.
pub fn speed(report: &Report) -> String {
    let rows =
        ["echo-current-1", "echo-current-16", "echo-current-128", "echo-multi-16", "echo-two-16"];
    let names = [URING, EPOLL, REFERENCE, "tokio-seqpacket 0.9", "uds", "monoio"];
    let trips = |id: &str, name: &str| {
        let value = report.row(id)?.cells[report.place(name)?].value?;
        Some((1e6 / value.median, 1e6 / value.high, 1e6 / value.low))
    };
    let rows: Vec<&str> = rows.into_iter().filter(|id| report.row(id).is_some()).collect();
    let most = rows
        .iter()
        .flat_map(|id| names.iter().filter_map(|name| trips(id, name)))
        .fold(1e-9, |most: f64, (_, _, high)| most.max(high));
    let (left, top, bar, full) = (185.0, 52.0, 15.0, 420.0);
    let bold = |text: String| format!("<g font-weight=\"bold\">{text}</g>");
    let mut bars = String::new();
    let mut y = top;
    for id in &rows {
        let Some(row) = report.row(id) else { continue };
        bars += &bold(label(10.0, y + 12.0, "start", &row.name));
        y += 20.0;
        for name in names {
            let Some((median, low, high)) = trips(id, name) else { continue };
            let (width, middle) = (median / most * full, y + bar / 2.0 - 1.0);
            let fill = match name {
                URING => "#1668a8",
                EPOLL => "#5aa9dd",
                _ => "#aab2b7",
            };
            let _ = write!(
                bars,
                "{}<rect x=\"{left}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{:.1}\" fill=\"{fill}\"/>\
                 <path d=\"M{:.1} {middle:.1}H{:.1}\" stroke=\"#222\"/>{}",
                label(left - 8.0, y + 11.0, "end", name),
                bar - 2.0,
                left + low / most * full,
                left + high / most * full,
                label(left + high / most * full + 6.0, y + 11.0, "start", &format!("{median:.0}")),
            );
            y += bar;
        }
        y += 12.0;
    }
    let title = "Round trips of 64 bytes over a Unix seqpacket socket";
    let quick = if report.quick { " -- --quick" } else { "" };
    let command = format!("cargo bench --manifest-path benches/Cargo.toml{quick}");
    let mut body = bold(label(10.0, 22.0, "start", title));
    body += &label(
        10.0,
        40.0,
        "start",
        "Medians; the line across the end of a bar spans the quartiles",
    );
    let step = nice_step(most / 5.0);
    let mut tick = 0.0;
    while tick <= most {
        let x = left + tick / most * full;
        let _ = write!(body, "<path d=\"M{x:.1} {top}V{:.1}\" stroke=\"#ddd\"/>", y - 8.0);
        body += &label(x, y + 6.0, "middle", &format!("{tick:.0}"));
        tick += step;
    }
    body += &bars;
    let axis = "thousand round trips per second, all pairs together (longer is better)";
    body += &label(left + full / 2.0, y + 24.0, "middle", axis);
    let machine = format!(
        "{}, {} cores, {}",
        report.machine.cpu, report.machine.cores, report.machine.kernel
    );
    body += &label(10.0, y + 48.0, "start", &machine);
    body += &label(10.0, y + 64.0, "start", &format!("Source: {command}"));
    svg(680.0, y + 76.0, title, &body)
}

/// 1, 2 or 5 times a power of ten, `at_least` so much.
fn nice_step(at_least: f64) -> f64 {
    let power = 10_f64.powf(at_least.log10().floor());
    [1.0, 2.0, 5.0]
        .map(|step| step * power)
        .into_iter()
        .find(|step| *step >= at_least)
        .unwrap_or(10.0 * power)
}

pub struct Line {
    pub place: usize,
    pub points: Vec<(f64, f64)>,
}

/// An axis whose values have been brought between 0 and 1, and what stands beside it.
struct Axis {
    from: f64,
    to: f64,
}

impl Axis {
    fn log(values: impl Iterator<Item = f64>) -> Option<Self> {
        let (mut from, mut to) = (f64::INFINITY, 0.0_f64);
        for value in values.filter(|value| *value > 0.0) {
            (from, to) = (from.min(value), to.max(value));
        }
        (to > 0.0).then(|| Self { from: from.ln() - 0.03, to: to.ln() + 0.03 })
    }

    fn at(&self, value: f64) -> f64 {
        (value.ln() - self.from) / (self.to - self.from)
    }

    /// 1, 2 and 5 times the powers of ten.
    fn ticks(&self) -> Vec<f64> {
        let decades = -3..12;
        let ticks = decades.flat_map(|power| [1.0, 2.0, 5.0].map(|step| step * 10_f64.powi(power)));
        ticks.filter(|tick| (0.0..=1.0).contains(&self.at(*tick))).collect()
    }
}

/// Lines on logarithmic axes. `ticks` are those of the x axis, with their names.
pub fn lines(
    report: &Report,
    title: &str,
    ticks: &[(f64, String)],
    lines: &[Line],
    unit: &str,
) -> String {
    let (left, top, width, height) = (70.0, 30.0, 470.0, 300.0);
    let xs = Axis::log(ticks.iter().map(|(value, _)| *value));
    let ys = Axis::log(lines.iter().flat_map(|line| line.points.iter().map(|point| point.1)));
    let (Some(xs), Some(ys)) = (xs, ys) else { return String::new() };
    let x = |value: f64| left + xs.at(value) * width;
    let y = |value: f64| top + (1.0 - ys.at(value)) * height;
    let mut body = label(10.0, 18.0, "start", title);
    for tick in ys.ticks() {
        let at = y(tick);
        let _ = write!(body, "<path d=\"M{left} {at:.1}h{width}\" stroke=\"#ddd\"/>");
        body += &label(left - 6.0, at + 4.0, "end", &amount(tick, unit));
    }
    for (tick, name) in ticks {
        let at = x(*tick);
        let _ = write!(body, "<path d=\"M{at:.1} {top}v{height}\" stroke=\"#eee\"/>");
        body += &label(at, top + height + 18.0, "middle", name);
    }
    for (at, line) in lines.iter().enumerate() {
        let (color, dashes) = (color(line.place), dashes(line.place));
        // Those that the page is about stand out.
        let name = report.contestants[line.place].name;
        let stroke = if [URING, EPOLL, REFERENCE].contains(&name) { 3.0 } else { 1.3 };
        let path: Vec<_> = line
            .points
            .iter()
            .map(|point| format!("{:.1} {:.1}", x(point.0), y(point.1)))
            .collect();
        let _ = write!(
            body,
            "<path d=\"M{}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"{stroke}\"{dashes}>\
             <title>{}</title></path>",
            path.join("L"),
            escape(name)
        );
        let below = top + 8.0 + 18.0 * at as f64;
        let from = left + width + 16.0;
        let _ = write!(
            body,
            "<path d=\"M{from} {below}h22\" stroke=\"{color}\" stroke-width=\"{stroke}\"{dashes}/>"
        );
        body += &label(from + 28.0, below + 4.0, "start", name);
    }
    svg(left + width + 240.0, top + height + 30.0, title, &body)
}
