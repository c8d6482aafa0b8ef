//! Ways of passing messages over Unix sockets, compared on this machine: this library on io_uring and on
//! epoll, others for tokio, monoio, and raw loops that show what the kernel allows.
//!
//! All contestants of a row run in one process, in alternating rounds, so that noise meets all of them. A
//! ratio is the median of the ratios of neighboring rounds. Above 1 it means better than tokio-seqpacket 0.8.2.
//!
//! `cargo bench --manifest-path benches/Cargo.toml -- --help`

mod children;
mod cli;
mod contestants;
mod libraries;
mod loops;
mod machine;
mod measure;
mod pipes;
mod progress;
mod report;
mod rig;
mod stats;
mod syscall_cost;
mod work;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use cli::{Command, Options};
use contestants::{Contestant, REFERENCE};
use measure::Plan;
use pipes::Pipes;
use progress::Progress;
use report::{Cell, Measured, Name, Report, goals, html, plot, terminal};
use work::{Row, Work};

fn main() -> ExitCode {
    let done = match cli::parse(std::env::args().skip(1)) {
        Ok(Command::Help) => {
            println!("{}", cli::HELP);
            Ok(())
        }
        Ok(Command::Child(arguments)) => {
            descriptors();
            children::main(&arguments, contestants::candidates())
        }
        Ok(Command::Compare(options)) => compare(&options),
        Err(usage) => Err(usage),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Raise the limit on file descriptors as far as this user may. Returns the limit.
fn descriptors() -> usize {
    const WANTED: u64 = 1 << 17;
    let limit = getrlimit(Resource::Nofile);
    // Beyond the hard limit only with privileges.
    let beyond = Rlimit { current: Some(WANTED), maximum: Some(WANTED) };
    let allowed = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if limit.maximum.is_some_and(|most| most < WANTED)
        && setrlimit(Resource::Nofile, beyond).is_ok()
    {
        return WANTED as usize;
    }
    let _ = setrlimit(Resource::Nofile, allowed);
    getrlimit(Resource::Nofile).current.map_or(WANTED as usize, |most| most as usize)
}

fn compare(options: &Options) -> Result<(), String> {
    let wanted = |text: &str, filter: &[String]| {
        filter.is_empty() || filter.iter().any(|part| text.contains(part.as_str()))
    };
    let mut rows = work::rows();
    rows.retain(|row| wanted(&format!("{} {}", row.name, row.id), &options.filter));
    if rows.is_empty() {
        return Err("no row has that in its name or id; --list names them".into());
    }
    if options.list {
        for row in &rows {
            println!("{:18} {}", row.id, row.name);
        }
        println!();
        for contestant in contestants::candidates() {
            println!("{:18} {}", contestant.short(), contestant.name());
        }
        return Ok(());
    }

    // Before there are threads, which inherit the filter.
    let call = syscall_cost::trivial();
    let raised_call = options.syscall_cost.map(syscall_cost::raise).transpose();
    let raised_call = raised_call.map_err(|error| format!("--syscall-cost: {error}"))?;
    let cheapest = raised_call.unwrap_or(call);

    let descriptors = descriptors();
    let (mut contestants, absent) = contestants::able();
    contestants.retain(|one| one.name() == REFERENCE || wanted(one.name(), &options.only));
    if contestants.first().is_none_or(|first| first.name() != REFERENCE) {
        return Err(format!("{REFERENCE} does not run here: {}", absent.join("; ")));
    }
    let plan = Plan::new(options.quick);
    let mut report = Report {
        machine: machine::Machine::this(call, raised_call),
        quick: options.quick,
        rounds: plan.all_rounds(),
        reference: REFERENCE,
        contestants: contestants
            .iter()
            .map(|one| Name { name: one.name(), short: one.short() })
            .collect(),
        absent,
        rows: Vec::new(),
        notes: Vec::new(),
    };
    for row in rows.iter().filter(|row| too_cheap(row, cheapest)) {
        report.notes.push(format!("{}: skipped, a call costs {cheapest:.0} ns", row.name));
    }
    rows.retain(|row| !too_cheap(row, cheapest));
    println!("{}", terminal::heading(&report, &plan));

    let progress = Progress::new(rows.len());
    let mut pipes = Pipes::default();
    for (at, row) in rows.iter().enumerate() {
        progress.begin(at, &row.name);
        let (call, cells) = match row.call {
            Some(_) => match children::expensive(&contestants, row, options.quick, descriptors) {
                Ok(measured) => measured,
                Err(reason) => (cheapest, absent_cells(contestants.len(), reason)),
            },
            None => {
                let notes = &mut report.notes;
                let cells = match row.work {
                    Work::Pipe { way, size } => {
                        pipes.row(&contestants, way, size, &plan, &progress, notes)
                    }
                    _ => measure_row(&contestants, row, &plan, descriptors, &progress, notes),
                };
                (cheapest, cells)
            }
        };
        let measured = Measured {
            id: row.id.clone(),
            name: row.name.clone(),
            unit: row.work.unit(),
            pairs: match row.work {
                Work::Echo { pairs, .. } | Work::Calls { pairs } => Some(pairs),
                _ => None,
            },
            call,
            goals: row.goals.clone(),
            cells,
        };
        progress.print(&terminal::row(&report, &measured));
        report.rows.push(measured);
    }
    progress.end();
    println!("{}", terminal::grid(&report));
    println!("{}", goals::table(&report));

    let directory = options.out.as_deref().map_or_else(default_directory, as_typed);
    let written = write(&directory, &report);
    written.map_err(|error| format!("{}: {error}", directory.display()))?;
    println!("written: compare.html, compare.json, speed.svg in {}", directory.display());
    Ok(())
}

/// A filter makes no call cheaper.
fn too_cheap(row: &Row, call: f64) -> bool {
    row.call.is_some_and(|wanted| call > 1.1 * f64::from(wanted))
}

fn absent_cells(count: usize, reason: String) -> Vec<Cell> {
    vec![Cell { reason: Some(reason), ..Cell::default() }; count]
}

fn measure_row(
    contestants: &[Box<dyn Contestant>],
    row: &Row,
    plan: &Plan,
    descriptors: usize,
    progress: &Progress,
    notes: &mut Vec<String>,
) -> Vec<Cell> {
    match row.work {
        Work::Memory => {
            // With those that a library makes beside its sockets.
            let connections = plan.idle.min(descriptors.saturating_sub(256));
            if connections < 10_000 {
                let why =
                    if connections < plan.idle { "the limit on descriptors" } else { "--quick" };
                notes.push(format!("{}: {connections} connections, not 10000 ({why})", row.name));
            }
            children::memory(contestants, connections, plan)
        }
        Work::Calls { pairs } => match children::Counter::find() {
            Ok(counter) => counter.calls(contestants, pairs),
            Err(reason) => {
                let note = format!("{}: skipped, nothing counts them here ({reason})", row.name);
                notes.push(note);
                absent_cells(contestants.len(), reason)
            }
        },
        _ => measure::row(contestants, row, plan, descriptors, progress),
    }
}

/// A path as the shell understands it: cargo starts the program in `benches/`, but leaves `PWD` as it was.
fn as_typed(path: &Path) -> PathBuf {
    std::env::var_os("PWD").map_or_else(|| path.to_owned(), |shell| Path::new(&shell).join(path))
}

/// target/compare, wherever the target directory is: the program lies in target/release/deps.
fn default_directory() -> PathBuf {
    let program = std::env::current_exe().unwrap_or_default();
    let target = program.ancestors().nth(3).unwrap_or(Path::new("target"));
    target.join("compare")
}

fn write(directory: &Path, report: &Report) -> std::io::Result<()> {
    fs::create_dir_all(directory)?;
    fs::write(directory.join("compare.json"), serde_json::to_string_pretty(report)?)?;
    fs::write(directory.join("compare.html"), html::page(report))?;
    fs::write(directory.join("speed.svg"), plot::speed(report))
}
