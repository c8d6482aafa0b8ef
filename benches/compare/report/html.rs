//! The page, for a reader with five minutes.

use std::fmt::Write;

use super::plot::{self, Line, escape};
use super::terminal::Notes;
use super::{Cell, Measured, Report, amount, goals};
use crate::stats::Spread;

const STYLE: &str = "body{font:15px/1.5 sans-serif;max-width:1100px;margin:2em auto;padding:0 1em;color:#222;\
background:#fff}table{border-collapse:collapse;font-size:13px}td,th{padding:.25em .5em;text-align:right;\
border:1px solid #ddd}td:first-child,th:first-child{text-align:left;white-space:nowrap}th{background:#f4f4f4}\
.wide{overflow-x:auto}.no{color:#999}.bad{background:#f6c9c9}.good{background:#cfead3}svg{max-width:100%;\
height:auto}details{margin:1em 0}li{margin:.3em 0}";

pub fn page(report: &Report) -> String {
    let mut page = format!(
        "<!DOCTYPE html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width\"><title>tokio-seqpacket-uring: comparison</title>\
         <style>{STYLE}</style><h1>Messages over Unix sockets, compared</h1>"
    );
    page += "<p>What it costs to pass messages between two sides of a Unix socket, for this library \
        (<b>io_uring</b> and <b>epoll</b>), for others, and for bare loops that show what the kernel itself \
        takes. Everything on this page was measured on the machine below, in one run.</p>";
    if report.quick {
        page +=
            "<p class=\"bad\"><b>A quick run:</b> its rounds are too short to decide anything.</p>";
    }
    machine(&mut page, report);
    page += "<h2>In one picture</h2>";
    page += &plot::speed(report);
    grid(&mut page, report);
    connections(&mut page, report);
    latency(&mut page, report);
    goal_table(&mut page, report);
    details(&mut page, report);
    page += "</html>\n";
    page
}

fn machine(page: &mut String, report: &Report) {
    page.push_str("<table>");
    for (name, value) in report.machine.lines() {
        let value = escape(&value);
        let _ = write!(page, "<tr><td>{name}<td style=\"text-align:left\">{value}");
    }
    page.push_str("</table>");
}

fn grid(page: &mut String, report: &Report) {
    let _ = write!(
        page,
        "<h2>Everything at a glance</h2><p>Ratios to {}: how many times as fast, as small, as soon. \
         1 is level, <span class=\"good\">green</span> is better, <span class=\"bad\">red</span> is worse. \
         Each is the median of {} rounds in which the contestants took turns; point at a number for its \
         spread. Read differences below 5 % as none.</p>",
        escape(report.reference),
        report.rounds
    );
    let mut notes = Notes::default();
    page.push_str(&ratios(report, |cell, row| {
        let value = cell.value.map_or(String::new(), |value| amount(value.median, row.unit));
        (cell.ratio, value, notes.cell(cell))
    }));
    page.push_str("<ol>");
    for (at, reason) in notes.reasons.iter().enumerate() {
        let _ = write!(page, "<li value=\"{}\">{}", at + 1, escape(reason));
    }
    page.push_str("</ol>");
    for note in report.notes.iter().chain(&report.absent) {
        let _ = write!(page, "<p>{}</p>", escape(note));
    }
    page.push_str(
        "<h2>The same for processor time</h2><p>How many times less processor time an operation takes, all \
         threads together: what counts where the machine has other things to do.</p>",
    );
    page.push_str(&ratios(report, |cell, _| {
        let value = cell.cpu.map_or(String::new(), |cpu| amount(cpu.median, "ns"));
        let text = cell.cpu_ratio.map_or("-".into(), |ratio| format!("{:.2}", ratio.median));
        (cell.cpu_ratio, value, text)
    }));
}

/// Colored cells. `show` gives a ratio, the value behind it, and the text for the cell.
fn ratios(
    report: &Report,
    mut show: impl FnMut(&Cell, &Measured) -> (Option<Spread>, String, String),
) -> String {
    let mut table = String::from("<div class=\"wide\"><table><tr><th>");
    for contestant in &report.contestants {
        let _ = write!(table, "<th>{}", escape(contestant.name));
    }
    for row in &report.rows {
        let cells: Vec<_> = row.cells.iter().map(|cell| show(cell, row)).collect();
        if cells.iter().all(|(ratio, ..)| ratio.is_none()) {
            continue;
        }
        let _ = write!(table, "<tr><td>{}", escape(&row.name));
        for (ratio, value, text) in cells {
            let Some(ratio) = ratio else {
                let _ = write!(table, "<td class=\"no\">{text}");
                continue;
            };
            // Twice as good is the full color, half as good too.
            let strength = ratio.median.log2().clamp(-1.0, 1.0);
            let hue = if strength < 0.0 { 0 } else { 130 };
            let light = 100.0 - 28.0 * strength.abs();
            let _ = write!(
                table,
                "<td style=\"background:hsl({hue},60%,{light:.0}%)\" \
                 title=\"{:.2} to {:.2}; {value}\">{text}",
                ratio.low, ratio.high
            );
        }
    }
    table.push_str("</table></div>");
    table
}

fn connections(page: &mut String, report: &Report) {
    page.push_str(
        "<h2>Cost against connections</h2><p>Time of a round trip of 64 bytes, all pairs busy. Both axes are \
         logarithmic; lower is better.</p>",
    );
    for (setting, title) in [
        ("current", "Both sides in one thread (current_thread)"),
        ("two", "A thread for each side (two runtimes)"),
        ("multi", "Tasks on two workers (multi_thread)"),
    ] {
        let rows: Vec<_> = report
            .rows
            .iter()
            .filter(|row| row.id.starts_with(&format!("echo-{setting}-")))
            .filter_map(|row| Some((row.pairs? as f64, row)))
            .collect();
        let ticks: Vec<_> = rows.iter().map(|(pairs, _)| (*pairs, format!("{pairs}"))).collect();
        let lines: Vec<_> = (0..report.contestants.len())
            .map(|place| {
                let points = rows
                    .iter()
                    .filter_map(|(pairs, row)| Some((*pairs, row.cells[place].value?.median)));
                Line { place, points: points.collect() }
            })
            .filter(|line| !line.points.is_empty())
            .collect();
        page.push_str(&plot::lines(report, title, &ticks, &lines, "ns"));
    }
}

fn latency(page: &mut String, report: &Report) {
    page.push_str(
        "<h2>Latency</h2><p>Single messages, each timed: how many in a hundred took no longer than this. \
         Lower is better; the right end is the worst in a thousand.</p>",
    );
    for row in &report.rows {
        // From the right: what is left of the hundred.
        let shown = |percent: f64| 100.0 / (100.0 - percent);
        let lines: Vec<_> = row
            .cells
            .iter()
            .enumerate()
            .filter(|(_, cell)| !cell.percentiles.is_empty())
            .map(|(place, cell)| Line {
                place,
                points: cell
                    .percentiles
                    .iter()
                    .map(|one| (shown(one.percent), one.nanoseconds))
                    .collect(),
            })
            .collect();
        if lines.is_empty() {
            continue;
        }
        let ticks = [1.0, 50.0, 90.0, 99.0, 99.9].map(|at| (shown(at), format!("{at} %")));
        page.push_str(&plot::lines(report, &row.name, &ticks, &lines, "ns"));
    }
}

fn goal_table(page: &mut String, report: &Report) {
    page.push_str(
        "<h2>Goals</h2><p>The least ratios that this project has set itself: of the time, and of the processor \
         time of a round trip.</p><table><tr><th>row<th>contestant<th>goal<th>here<th><th>processor time<th>\
         here<th>",
    );
    for goal in goals::goals(report) {
        let _ = write!(page, "<tr><td>{}<td>{}", escape(&goal.row.name), goal.contestant);
        for judgment in [&goal.ratio, &goal.processor] {
            let Some(judgment) = judgment else {
                page.push_str("<td><td><td>");
                continue;
            };
            let class = match judgment.verdict() {
                "met" => "good",
                "not measured" | "level" | "not decided" => "no",
                _ => "bad",
            };
            let _ = write!(
                page,
                "<td>{:.2}<td>{}<td class=\"{class}\">{}{}",
                judgment.wanted,
                judgment.here(),
                judgment.verdict(),
                judgment.remark().map_or(String::new(), |remark| format!(": {remark}"))
            );
        }
    }
    page.push_str("</table>");
}

fn details(page: &mut String, report: &Report) {
    page.push_str(
        "<h2>All figures</h2><p>Medians with quartiles, and the processor time of an operation, all threads \
         together. These move by a fifth from run to run; ratios do not.</p>",
    );
    for row in &report.rows {
        let _ = write!(
            page,
            "<details><summary>{} ({})</summary><table><tr><th>contestant<th>median<th>quartiles<th>processor \
             time<th>ratio<th>p50<th>p99<th>p99.9",
            escape(&row.name),
            row.unit
        );
        for (contestant, cell) in report.contestants.iter().zip(&row.cells) {
            let Some(value) = cell.value else { continue };
            let spread =
                format!("{} to {}", amount(value.low, row.unit), amount(value.high, row.unit));
            let percentile = |percent: f64| {
                let found = cell.percentiles.iter().find(|one| one.percent == percent);
                found.map_or(String::new(), |one| amount(one.nanoseconds, "ns"))
            };
            let _ = write!(
                page,
                "<tr><td>{}<td>{}<td>{spread}<td>{}<td>{}<td>{}<td>{}<td>{}",
                escape(contestant.name),
                amount(value.median, row.unit),
                cell.cpu.map_or(String::new(), |cpu| amount(cpu.median, "ns")),
                cell.ratio.map_or(String::new(), |ratio| format!("{:.2}", ratio.median)),
                percentile(50.0),
                percentile(99.0),
                percentile(99.9)
            );
        }
        page.push_str("</table></details>");
    }
}
