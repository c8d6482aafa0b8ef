//! The command line.

use std::path::PathBuf;

pub const HELP: &str = "\
Compare ways of passing messages over Unix sockets: speed, latency, memory, system calls.

    cargo bench --manifest-path benches/Cargo.toml -- [OPTIONS]

    --quick             short rounds, about a minute in all; for a first look
    --filter TEXT       only rows whose name or id contains TEXT (may be repeated)
    --only CONTESTANT   only contestants whose name contains CONTESTANT (may be repeated);
                        tokio-seqpacket 0.8.2 always runs, since the ratios are to it
    --syscall-cost NS   a trivial system call costs at least NS nanoseconds, by a seccomp filter;
                        the report says what it costs without it
    --out DIR           where compare.json, compare.html and speed.svg go; target/compare if not given
    --list              name rows and contestants, and end
    --help              this

The page compare.html says how to read the figures; so does BENCHMARKS.md.";

#[derive(Debug, Default)]
pub struct Options {
    pub quick: bool,
    pub list: bool,
    pub filter: Vec<String>,
    pub only: Vec<String>,
    pub syscall_cost: Option<f64>,
    pub out: Option<PathBuf>,
}

pub enum Command {
    Compare(Options),
    Help,
    /// For processes that the program starts itself.
    Child(Vec<String>),
}

pub fn parse(arguments: impl Iterator<Item = String>) -> Result<Command, String> {
    let mut options = Options::default();
    let mut arguments = arguments.peekable();
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
        match argument.as_str() {
            // What cargo bench adds.
            "--bench" => {}
            "--quick" => options.quick = true,
            "--list" => options.list = true,
            "--filter" => options.filter.push(value()?),
            "--only" => options.only.push(value()?),
            "--syscall-cost" => {
                let nanoseconds = value()?.parse();
                let nanoseconds = nanoseconds.map_err(|_| "--syscall-cost needs a number")?;
                options.syscall_cost = Some(nanoseconds);
            }
            "--out" => options.out = Some(value()?.into()),
            "--help" | "-h" => return Ok(Command::Help),
            "--child" => return Ok(Command::Child(arguments.collect())),
            other => return Err(format!("unknown argument {other}\n\n{HELP}")),
        }
    }
    Ok(Command::Compare(options))
}
