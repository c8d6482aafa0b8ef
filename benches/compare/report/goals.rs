//! The ratios that the project has set itself, and whether they were reached.

use std::fmt::Write;

use super::{Measured, Report};
use crate::stats::Spread;

/// What is wanted of a contestant in a row, and what it reached.
pub struct Judged<'a> {
    pub row: &'a Measured,
    pub contestant: &'static str,
    pub ratio: Option<Judgment>,
    pub processor: Option<Judgment>,
}

pub struct Judgment {
    pub wanted: f64,
    /// Not measured if the row or the contestant was left out.
    pub reached: Option<Spread>,
    /// The best that a raw loop reached in this row.
    floor: Option<f64>,
    /// What a trivial system call costs, and what it has to cost, where that is more.
    undecided: Option<(f64, f64)>,
}

impl Judgment {
    pub fn verdict(&self) -> &'static str {
        let Some(reached) = self.reached else { return "not measured" };
        if self.undecided.is_some() {
            return "not decided";
        }
        // As it is printed: to two digits.
        if (reached.median * 100.0).round() >= (self.wanted * 100.0).round() {
            return "met";
        }
        // Not to be slower is the goal, and nothing says that it is.
        let is_level = self.wanted <= 1.0 && reached.high >= self.wanted;
        if is_level { "level" } else { "NOT MET" }
    }

    pub fn here(&self) -> String {
        self.reached.map_or("-".into(), |reached| format!("{:.2}", reached.median))
    }

    /// What to say beside the verdict: where the goal is not met, what a raw loop reached.
    pub fn remark(&self) -> Option<String> {
        Some(match (self.verdict(), self.reached) {
            ("level", Some(reached)) => {
                format!("quartiles {:.2} to {:.2}", reached.low, reached.high)
            }
            ("NOT MET", _) => format!("the best raw loop is at {:.2}", self.floor?),
            ("not decided", _) => {
                let (here, wanted) = self.undecided?;
                format!("a system call costs {here:.0} ns, see --syscall-cost {wanted:.0}")
            }
            _ => return None,
        })
    }
}

pub fn goals(report: &Report) -> Vec<Judged<'_>> {
    let mut goals = Vec::new();
    for row in &report.rows {
        let raw = report.contestants.iter().zip(&row.cells);
        let raw = raw.filter(|(contestant, _)| contestant.name.starts_with("raw "));
        let floor = raw.filter_map(|(_, cell)| Some(cell.ratio?.median)).reduce(f64::max);
        for goal in &row.goals {
            let cell = report.place(goal.contestant).map(|place| &row.cells[place]);
            // A call costs that up to what a measurement and a filter are off by.
            let undecided = (row.call < 0.95 * goal.call).then_some((row.call, goal.call));
            let ratio = goal.ratio.map(|wanted| {
                let reached = cell.and_then(|cell| cell.ratio);
                Judgment { wanted, reached, floor, undecided }
            });
            let processor = goal.processor.map(|wanted| {
                let reached = cell.and_then(|cell| cell.cpu_ratio);
                Judgment { wanted, reached, floor: None, undecided: None }
            });
            goals.push(Judged { row, contestant: goal.contestant, ratio, processor });
        }
    }
    goals
}

pub fn table(report: &Report) -> String {
    let goals = goals(report);
    let width = goals.iter().map(|goal| goal.row.name.len()).max().unwrap_or(0);
    let mut text = format!(
        "Goals: the least ratio, and the least ratio of processor times\n\n{:width$}  {:15}  goal   here  \
         {:12}  goal   here\n",
        "", "", ""
    );
    for goal in &goals {
        let _ = write!(text, "{:width$}  {:15}", goal.row.name, goal.contestant);
        let mut remarks = Vec::new();
        for judgment in [&goal.ratio, &goal.processor] {
            let Some(judgment) = judgment else {
                let _ = write!(text, "  {:25}", "");
                continue;
            };
            let (here, verdict) = (judgment.here(), judgment.verdict());
            let _ = write!(text, "  {:4.2}  {here:>5}  {verdict:12}", judgment.wanted);
            remarks.extend(judgment.remark());
        }
        let _ = writeln!(text, "  {}", remarks.join("; "));
    }
    let judgments = || goals.iter().flat_map(|goal| [&goal.ratio, &goal.processor]).flatten();
    let count = |verdict| judgments().filter(|judgment| judgment.verdict() == verdict).count();
    let _ =
        write!(text, "\n{} of {} met, {} level", count("met"), judgments().count(), count("level"));
    let undecided = count("not decided");
    if undecided > 0 {
        let _ = write!(text, ", {undecided} not decided");
    }
    text.push('\n');
    if report.quick {
        text.push_str("--quick: rounds are too short to decide anything.\n");
    }
    text
}
