//! What was measured, as it is written to compare.json. The other reports are made from it.

pub mod goals;
pub mod html;
pub mod plot;
pub mod terminal;

use serde::{Deserialize, Serialize};

use crate::machine::Machine;
use crate::stats::Spread;
use crate::work::Goal;

#[derive(Serialize)]
pub struct Report {
    pub machine: Machine,
    pub quick: bool,
    pub rounds: usize,
    pub reference: &'static str,
    pub contestants: Vec<Name>,
    /// Contestants that cannot run here, and why.
    pub absent: Vec<String>,
    pub rows: Vec<Measured>,
    pub notes: Vec<String>,
}

#[derive(Serialize, Clone)]
pub struct Name {
    pub name: &'static str,
    pub short: &'static str,
}

#[derive(Serialize)]
pub struct Measured {
    pub id: String,
    pub name: String,
    /// What the values count. Less is better.
    pub unit: &'static str,
    pub pairs: Option<usize>,
    /// What a trivial system call cost, in nanoseconds.
    pub call: f64,
    pub goals: Vec<Goal>,
    /// One for each contestant, in the same order.
    pub cells: Vec<Cell>,
}

#[derive(Serialize, Deserialize, Default, Clone)]
pub struct Cell {
    /// Why there is no value.
    pub reason: Option<String>,
    pub value: Option<Spread>,
    /// The reference's value divided by this one, round by round: above 1 is better than it.
    pub ratio: Option<Spread>,
    /// Processor time of the whole process, in nanoseconds.
    pub cpu: Option<Spread>,
    pub cpu_ratio: Option<Spread>,
    /// Of all single operations, where they were timed, in nanoseconds.
    pub percentiles: Vec<Percentile>,
}

#[derive(Serialize, Deserialize, Clone, Copy)]
pub struct Percentile {
    pub percent: f64,
    pub nanoseconds: f64,
}

impl Report {
    pub fn row(&self, id: &str) -> Option<&Measured> {
        self.rows.iter().find(|row| row.id == id)
    }

    /// The place of a contestant.
    pub fn place(&self, name: &str) -> Option<usize> {
        self.contestants.iter().position(|contestant| contestant.name == name)
    }
}

/// Three significant digits, with a unit that fits.
pub fn amount(value: f64, unit: &str) -> String {
    if unit.starts_with("ns") {
        return match value {
            ..1e4 => format!("{value:.0} ns"),
            ..1e6 => format!("{:.1} us", value / 1e3),
            _ => format!("{:.2} ms", value / 1e6),
        };
    }
    if unit.starts_with("bytes") { format!("{value:.0} B") } else { format!("{value:.2}") }
}
