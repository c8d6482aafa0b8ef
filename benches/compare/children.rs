//! Rows that need processes of their own. Each contestant has one where memory is measured or system calls are counted from
//! outside. A row has one where system calls are made expensive.

use std::fs;
use std::io;
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;

use crate::contestants::{Contestant, REFERENCE};
use crate::measure::{self, Plan};
use crate::pipes;
use crate::progress::Progress;
use crate::report::Cell;
use crate::stats::Spread;
use crate::syscall_cost;
use crate::work::{self, Row, Setting, Work};

/// The main function of such a process: `memory NAME CONNECTIONS`, `calls NAME PAIRS TRIPS`,
/// `pipe NAME WAY SIZE COUNT` (see [`pipes`]), or `row ID quick|full DESCRIPTORS NAME...`. No thread but this one runs yet.
pub fn main(arguments: &[String], contestants: Vec<Box<dyn Contestant>>) -> Result<(), String> {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let number = |text: &str| text.parse::<usize>().map_err(|error| error.to_string());
    let find = |name: &str| {
        let found = contestants.iter().find(|contestant| contestant.name() == name);
        found.ok_or(format!("no contestant {name}"))
    };
    match arguments[..] {
        ["memory", name, connections] => {
            let connections = number(connections)?;
            let mut samples = Vec::new();
            find(name)?.idle(connections, &mut || samples.push(resident()))?;
            let samples: Vec<u64> = samples.into_iter().collect::<Result<_, _>>()?;
            let [before, after] = samples[..] else { return Err("no two samples".into()) };
            println!("{}", (after as f64 - before as f64) / connections as f64);
            Ok(())
        }
        ["calls", name, pairs, trips] => {
            let work = Work::Calls { pairs: number(pairs)? };
            find(name)?.rig(Setting::CurrentThread, work)?.round(number(trips)?).map(drop)
        }
        [side @ ("pipe" | "pipe-sender"), name, way, size, count] => {
            pipes::child(side, name, way, number(size)?, number(count)?)
        }
        ["row", id, length, descriptors, ref names @ ..] => {
            let row = work::rows().into_iter().find(|row| row.id == id).ok_or("no such row")?;
            let wanted = f64::from(row.call.ok_or("not a row for a child")?);
            let call = syscall_cost::raise(wanted).map_err(|error| error.to_string())?;
            let mut contestants = contestants;
            contestants.retain(|contestant| names.contains(&contestant.name()));
            let plan = Plan::new(length == "quick");
            let descriptors = number(descriptors)?;
            let cells = measure::row(&contestants, &row, &plan, descriptors, &Progress::silent());
            let measured = serde_json::to_string(&Measured { call, cells });
            println!("{}", measured.map_err(|error| error.to_string())?);
            Ok(())
        }
        _ => Err("no such child".into()),
    }
}

/// What a child measured in a row.
#[derive(Serialize, Deserialize)]
struct Measured {
    /// Nanoseconds of a trivial system call.
    call: f64,
    cells: Vec<Cell>,
}

/// A row whose system calls are made expensive. Also what a trivial one cost.
pub fn expensive(
    contestants: &[Box<dyn Contestant>],
    row: &Row,
    quick: bool,
    descriptors: usize,
) -> Result<(f64, Vec<Cell>), String> {
    let takes_part = |contestant: &dyn Contestant| {
        let name = contestant.name();
        name == REFERENCE || OF_INTEREST.iter().any(|start| name.starts_with(start))
    };
    let names = contestants.iter().filter(|one| takes_part(&***one)).map(|one| one.name());
    let length = if quick { "quick" } else { "full" };
    let mut command = Command::new(this_program()?);
    command.args(["--child", "row", &row.id, length, &descriptors.to_string()]).args(names);
    let text = output(&mut command)?;
    let line = text.lines().next_back().unwrap_or_default();
    let Measured { call, cells } = serde_json::from_str(line).map_err(|error| error.to_string())?;
    let mut cells = cells.into_iter();
    let cells = contestants.iter().map(|contestant| match takes_part(&**contestant) {
        true => cells.next().unwrap_or_default(),
        false => Cell { reason: Some(NOT_OF_INTEREST.into()), ..Cell::default() },
    });
    Ok((call, cells.collect()))
}

/// The beginnings of the names of contestants in rows with expensive system calls.
const OF_INTEREST: [&str; 4] = ["io_uring", "epoll", "monoio", "raw "];
const NOT_OF_INTEREST: &str = "not measured with expensive system calls, to save time";

fn resident() -> Result<u64, String> {
    let statm = fs::read_to_string("/proc/self/statm").map_err(|error| error.to_string())?;
    let pages: Option<u64> = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok());
    Ok(pages.ok_or("no second number in statm")? * rustix::param::page_size() as u64)
}

pub fn this_program() -> Result<std::path::PathBuf, String> {
    std::env::current_exe().map_err(|error| error.to_string())
}

/// What the command printed, or its last error line if it failed.
pub fn output(command: &mut Command) -> Result<String, String> {
    let done = command.stdin(Stdio::null()).output().map_err(|error| error.to_string())?;
    if done.status.success() {
        return Ok(String::from_utf8_lossy(&done.stdout).into_owned());
    }
    let complaint = String::from_utf8_lossy(&done.stderr);
    Err(complaint.lines().next_back().unwrap_or("failed without a word").to_owned())
}

pub fn memory(contestants: &[Box<dyn Contestant>], connections: usize, plan: &Plan) -> Vec<Cell> {
    let mut values = vec![Vec::new(); contestants.len()];
    let mut reasons = vec![None; contestants.len()];
    for _ in 0..plan.idle_rounds {
        for (at, contestant) in contestants.iter().enumerate() {
            let printed = this_program().and_then(|program| {
                let count = connections.to_string();
                let arguments = ["--child", "memory", contestant.name(), &count];
                output(Command::new(program).args(arguments))
            });
            match printed.and_then(|text| text.trim().parse().map_err(|_| format!("said {text}"))) {
                Ok(bytes) => values[at].push(bytes),
                Err(reason) => reasons[at] = Some(reason),
            }
        }
    }
    cells(values, reasons)
}

fn cells(values: Vec<Vec<f64>>, reasons: Vec<Option<String>>) -> Vec<Cell> {
    let reference = values[0].clone();
    let cell = |(values, reason): (Vec<f64>, _)| Cell {
        reason,
        ratio: Spread::of(
            reference.iter().zip(&values).map(|(theirs, mine)| theirs / mine).collect(),
        ),
        value: Spread::of(values),
        ..Cell::default()
    };
    values.into_iter().zip(reasons).map(cell).collect()
}

/// What counts system calls here.
pub enum Counter {
    Perf,
    Strace,
}

impl Counter {
    /// The first that works, or why none does.
    pub fn find() -> Result<Self, String> {
        let mut reasons = Vec::new();
        for (name, counter) in [("perf", Self::Perf), ("strace", Self::Strace)] {
            match counter.count(&Command::new("true")) {
                Ok(_) => return Ok(counter),
                Err(reason) => reasons.push(format!("{name}: {reason}")),
            }
        }
        Err(reasons.join("; "))
    }

    fn count(&self, command: &Command) -> Result<u64, String> {
        let file = NamedTempFile::new().map_err(|error: io::Error| error.to_string())?;
        let mut counting = match self {
            Self::Perf => {
                let mut perf = Command::new("perf");
                perf.args(["stat", "-x", ",", "-e", "raw_syscalls:sys_enter", "-o"]);
                perf.arg(file.path()).arg("--");
                perf
            }
            Self::Strace => {
                let mut strace = Command::new("strace");
                strace.args(["-f", "-c", "-o"]).arg(file.path());
                strace
            }
        };
        output(counting.arg(command.get_program()).args(command.get_args()))?;
        let text = fs::read_to_string(file.path()).map_err(|error| error.to_string())?;
        self.read(&text).ok_or_else(|| format!("not understood: {text}"))
    }

    fn read(&self, text: &str) -> Option<u64> {
        match self {
            Self::Perf => {
                let line = text.lines().find(|line| line.contains("raw_syscalls"))?;
                line.split(',').next()?.parse().ok()
            }
            Self::Strace => {
                let line = text.lines().find(|line| line.trim_end().ends_with("total"))?;
                line.split_whitespace().nth(3)?.parse().ok()
            }
        }
    }

    /// Of a round trip: the difference between few of them and many.
    pub fn calls(&self, contestants: &[Box<dyn Contestant>], pairs: usize) -> Vec<Cell> {
        let trips = (4_000 / pairs).max(20);
        let mut values = vec![Vec::new(); contestants.len()];
        let mut reasons = vec![None; contestants.len()];
        for (at, contestant) in contestants.iter().enumerate() {
            let count = |trips: usize| {
                let mut command = Command::new(this_program()?);
                command.args(["--child", "calls", contestant.name()]);
                self.count(command.args([pairs.to_string(), trips.to_string()]))
            };
            match count(trips).and_then(|few| Ok((few, count(3 * trips)?))) {
                Ok((few, many)) => {
                    values[at].push((many as f64 - few as f64) / (2 * trips * pairs) as f64);
                }
                Err(reason) => reasons[at] = Some(reason),
            }
        }
        debug_assert_eq!(contestants[0].name(), REFERENCE);
        cells(values, reasons)
    }
}
