//! Text for people at a terminal.

use std::fmt::Write;

use super::{Cell, Measured, Report, amount};
use crate::measure::Plan;

pub fn heading(report: &Report, plan: &Plan) -> String {
    let mut text = String::new();
    for (name, value) in report.machine.lines() {
        let _ = writeln!(text, "{name:12} {value}");
    }
    for reason in &report.absent {
        let _ = writeln!(text, "not here     {reason}");
    }
    let _ = write!(
        text,
        "\n{} rounds of {:?} for each. Median (quartiles), processor time and its ratio, and the ratio\n\
         to {}: above 1 is better than it.\n",
        plan.all_rounds(),
        plan.slice,
        report.reference
    );
    text
}

/// A row with all its contestants.
pub fn row(report: &Report, row: &Measured) -> String {
    let mut text = format!("{} ({}; a system call costs {:.0} ns)\n", row.name, row.unit, row.call);
    for (contestant, cell) in report.contestants.iter().zip(&row.cells) {
        let _ = write!(text, "  {:31}", contestant.name);
        let _ = match (&cell.value, &cell.reason) {
            (Some(value), _) => {
                let spread =
                    format!("({} - {})", amount(value.low, row.unit), amount(value.high, row.unit));
                write!(text, "{:>10} {spread:25}", amount(value.median, row.unit))
            }
            (None, reason) => write!(text, "{:>10} {}", "-", reason.as_deref().unwrap_or("")),
        };
        if let Some(cpu) = cell.cpu {
            let _ = write!(text, " cpu {:>9}", amount(cpu.median, "ns"));
        }
        if let Some(ratio) = cell.cpu_ratio {
            let _ = write!(text, " {:5.2}", ratio.median);
        }
        if let Some(ratio) = cell.ratio {
            let _ = write!(text, "  {:5.2} ({:.2} - {:.2})", ratio.median, ratio.low, ratio.high);
        }
        text.push('\n');
        if !cell.percentiles.is_empty() {
            let shown =
                cell.percentiles.iter().filter(|one| [50.0, 99.0, 99.9].contains(&one.percent));
            let shown: Vec<_> = shown
                .map(|one| format!("p{} {}", one.percent, amount(one.nanoseconds, "ns")))
                .collect();
            let _ = writeln!(text, "  {:31}  {}", "", shown.join(", "));
        }
    }
    text
}

/// All ratios, and below them why some are missing.
pub fn grid(report: &Report) -> String {
    let width = report.rows.iter().map(|row| row.name.len()).max().unwrap_or(0);
    let mut text = format!("Ratios to {} (above 1 is better)\n\n{:width$}", report.reference, "");
    for contestant in &report.contestants {
        let _ = write!(text, " {:>7}", contestant.short);
    }
    text.push('\n');
    let mut notes = Notes::default();
    for row in &report.rows {
        let _ = write!(text, "{:width$}", row.name);
        for cell in &row.cells {
            let _ = write!(text, " {:>7}", notes.cell(cell));
        }
        text.push('\n');
    }
    text.push('\n');
    for (at, reason) in notes.reasons.iter().enumerate() {
        let _ = writeln!(text, "[{}] {reason}", at + 1);
    }
    for note in &report.notes {
        let _ = writeln!(text, "{note}");
    }
    text
}

/// Reasons, each once.
#[derive(Default)]
pub struct Notes {
    pub reasons: Vec<String>,
}

impl Notes {
    /// A ratio, or a dash and the number of its reason.
    pub fn cell(&mut self, cell: &Cell) -> String {
        if let Some(ratio) = cell.ratio {
            return format!("{:.2}", ratio.median);
        }
        let Some(reason) = &cell.reason else {
            return if cell.value.is_some() { "(only)".into() } else { "-".into() };
        };
        let known = self.reasons.iter().position(|known| known == reason);
        let at = known.unwrap_or_else(|| {
            self.reasons.push(reason.clone());
            self.reasons.len() - 1
        });
        format!("- [{}]", at + 1)
    }
}
