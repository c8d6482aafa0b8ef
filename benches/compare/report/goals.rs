//! The ratios that the project has set itself, and whether they were reached.

use std::fmt::Write;

use super::{Measured, Report};
use crate::contestants::{EPOLL, URING};
use crate::stats::Spread;

/// One row's goal for one backend.
pub struct Goal<'a> {
    pub row: &'a Measured,
    pub backend: &'static str,
    pub wanted: f64,
    /// Not measured if the row or the contestant was left out.
    pub reached: Option<Spread>,
    /// The best that a raw loop reached in this row.
    pub floor: Option<f64>,
}

impl Goal<'_> {
    pub fn verdict(&self) -> &'static str {
        let Some(reached) = self.reached else { return "not measured" };
        // As it is printed: to two digits.
        if (reached.median * 100.0).round() >= (self.wanted * 100.0).round() {
            return "met";
        }
        // Not to be slower is the goal, and nothing says that it is.
        let is_level = self.wanted <= 1.0 && reached.high >= self.wanted;
        if is_level { "level" } else { "NOT MET" }
    }

    /// What to say beside the verdict: where the goal is not met, what was to be had.
    pub fn remark(&self) -> String {
        match (self.verdict(), self.reached, self.floor) {
            ("level", Some(reached), _) => {
                format!(": quartiles {:.2} to {:.2}", reached.low, reached.high)
            }
            ("NOT MET", _, Some(floor)) => format!(", the best raw loop is at {floor:.2}"),
            _ => String::new(),
        }
    }
}

pub fn goals(report: &Report) -> Vec<Goal<'_>> {
    let mut goals = Vec::new();
    for row in &report.rows {
        let raw = report.contestants.iter().zip(&row.cells);
        let raw = raw.filter(|(contestant, _)| contestant.name.starts_with("raw "));
        let floor = raw.filter_map(|(_, cell)| Some(cell.ratio?.median)).reduce(f64::max);
        for (backend, wanted) in [(URING, row.goal_uring), (EPOLL, row.goal_epoll)] {
            let Some(wanted) = wanted else { continue };
            let reached = report.place(backend).and_then(|place| row.cells[place].ratio);
            goals.push(Goal { row, backend, wanted, reached, floor });
        }
    }
    goals
}

pub fn table(report: &Report) -> String {
    let goals = goals(report);
    let width = goals.iter().map(|goal| goal.row.name.len()).max().unwrap_or(0);
    let mut text = String::from("Goals: the least ratio, borrowed calls\n\n");
    for goal in &goals {
        let reached = goal.reached.map_or("-".into(), |reached| format!("{:.2}", reached.median));
        let _ = writeln!(
            text,
            "{:width$}  {:8}  {:4.2}  {reached:>5}  {}{}",
            goal.row.name,
            goal.backend,
            goal.wanted,
            goal.verdict(),
            goal.remark()
        );
    }
    let count = |verdict| goals.iter().filter(|goal| goal.verdict() == verdict).count();
    let _ = writeln!(text, "\n{} of {} met, {} level", count("met"), goals.len(), count("level"));
    if report.quick {
        text.push_str("--quick: rounds are too short to decide anything.\n");
    }
    text
}
