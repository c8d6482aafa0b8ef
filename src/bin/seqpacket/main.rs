//! The command-line tool: what this machine offers, a netcat and a relay for seqpacket sockets, a short benchmark.
//!
//! [`EXIT_CODES`] are part of each help text.

mod bench;
mod doctor;
mod endpoint;
mod fds;
mod format;
mod many;
mod relay;
mod run;
mod show;
mod stdio;
mod talk;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use tokio_seqpacket::{Options, Selection};

/// Unix seqpacket sockets from the command line: messages that keep their boundaries, file
/// descriptors and credentials.
#[derive(Debug, Parser)]
#[command(name = "seqpacket", version, max_term_width = 100, after_help = EXIT_CODES)]
struct Cli {
    /// What to run on; by default the value of the environment variable TOKIO_SEQPACKET_BACKEND, else
    /// the best that is available
    #[arg(long, global = true, value_enum)]
    backend: Option<BackendArg>,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum BackendArg {
    Auto,
    Uring,
    Epoll,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show which backend this machine offers and why, what the kernel can do, the limits, and what to
    /// change
    #[command(after_help = doctor::KEYS)]
    Doctor(doctor::Doctor),
    /// Wait for a connection; send the lines of stdin as messages, write messages to stdout
    #[command(after_help = EXAMPLES_LISTEN)]
    Listen(Listen),
    /// Connect; send the lines of stdin as messages, write messages to stdout
    #[command(after_help = EXAMPLES_CONNECT)]
    Connect(Connect),
    /// Stand between clients and a server: pass messages both ways, and show them on stdout
    #[command(after_help = relay::HELP)]
    Relay(relay::Relay),
    /// Compare the backends on this machine, in a few seconds
    Bench(bench::Bench),
    /// Write a completion script for a shell to stdout
    #[command(after_help = "Example:\n  seqpacket completions bash > \
                            ~/.local/share/bash-completion/completions/seqpacket")]
    Completions {
        /// For which shell
        shell: clap_complete::Shell,
    },
}

const EXIT_CODES: &str = "\
Exit codes:
  0        success; also if stdout is not read any more
  1        a failure, which stderr names
  2        a command line that cannot be parsed
  128 + N  ended by signal N: HUP, INT or TERM. What was received is written first, unless that
           takes more than a second. Socket files are removed";

const EXAMPLES_LISTEN: &str = "\
Examples:
  seqpacket listen /tmp/a.sock                  one connection, then the end
  seqpacket listen --keep --mode 600 /tmp/a.sock
  seqpacket listen --hex @name                  in the abstract namespace
  seqpacket listen --clients 100 /tmp/a.sock < /dev/null
  seqpacket listen --save-fds received --separator '\\0' /tmp/a.sock";

const EXAMPLES_CONNECT: &str = "\
Examples:
  echo hello | seqpacket connect /tmp/a.sock
  seqpacket connect --hex @name <<< '00 ff 10'
  seqpacket connect --chunk 65536 /tmp/a.sock < file
  printf 'two\\nlines\\n' | seqpacket connect --raw /tmp/a.sock
  echo 'here is a file' | seqpacket connect --fd /etc/hostname /tmp/a.sock
  printf 'hello\\na file\\n' | seqpacket connect --fd-at 2:/etc/hostname /tmp/a.sock";

#[derive(Debug, Args)]
struct Listen {
    /// A path, or @name in the abstract namespace; ./@name is a path
    #[arg(required_unless_present = "activation")]
    address: Option<PathBuf>,

    /// Take connections one after the other, for ever
    #[arg(long, short)]
    keep: bool,

    /// Take up to this many connections at once, for ever. In stdout `3: ` stands before a message of the
    /// third client, with --length-prefix its number as 4 bytes big-endian that the length counts. Each
    /// message of stdin goes to all clients that are connected: the slowest holds the others up. While
    /// there is none, it waits
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u16).range(1..))]
    clients: Option<u16>,

    #[command(flatten)]
    file: endpoint::SocketFile,

    /// Take the listening socket that systemd has passed under this name, instead of an address
    #[arg(long, value_name = "NAME", conflicts_with_all = ["address", "mode", "replace"])]
    activation: Option<String>,

    #[command(flatten)]
    talk: talk::TalkArgs,
}

#[derive(Debug, Args)]
struct Connect {
    /// A path, or @name in the abstract namespace; ./@name is a path
    address: PathBuf,

    /// Bind to this path or @name first, which the other side sees
    #[arg(long, value_name = "ADDRESS")]
    bind: Option<PathBuf>,

    #[command(flatten)]
    talk: talk::TalkArgs,
}

fn with(error: &io::Error, what: String) -> io::Error {
    io::Error::new(error.kind(), format!("{what}: {error}"))
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match start(cli) {
        Ok(code) => code,
        // stdout is not read any more, which is no failure.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe && is_mere_kind(&error) => {
            ExitCode::SUCCESS
        }
        Err(error) => {
            let _ = writeln!(io::stderr(), "seqpacket: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Returns whether an error has no more than its kind, as that of [`write_out`].
fn is_mere_kind(error: &io::Error) -> bool {
    error.raw_os_error().is_none() && error.get_ref().is_none()
}

fn start(cli: Cli) -> io::Result<ExitCode> {
    let options = match cli.backend {
        None => Options::new(),
        Some(BackendArg::Auto) => Options::new().backend(Selection::Auto),
        Some(BackendArg::Uring) => Options::new().backend(Selection::Uring),
        Some(BackendArg::Epoll) => Options::new().backend(Selection::Epoll),
    };
    if !matches!(cli.command, Command::Completions { .. }) {
        run::descriptors_suffice()?;
    }
    match cli.command {
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "seqpacket", &mut script);
            write_out(&script)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Doctor(args) => doctor::run(&args, &options),
        Command::Bench(bench) => bench::run(bench, cli.backend.map(|_| options)),
        Command::Listen(listen) => run::run(|stop| talk::listen(listen, options, stop)),
        Command::Connect(connect) => run::run(|stop| talk::connect(connect, options, stop)),
        Command::Relay(relay) => run::run(|stop| relay::run(relay, options, stop)),
    }
}

/// Writes all of it. A reader that has gone is no failure.
fn write_out(text: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        written => written,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
