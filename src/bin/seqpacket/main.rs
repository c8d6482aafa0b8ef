//! The command-line tool: what this machine offers, a netcat for seqpacket sockets, a short benchmark.
//!
//! Exit codes: 0 for success, 1 for a failure, 2 for a command line that cannot be parsed. Where a signal ended it, 128 plus
//! the number of the signal.

mod bench;
mod doctor;
mod lines;
mod talk;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};
use tokio_seqpacket::{Options, Selection, SocketAddr};

/// Unix seqpacket sockets from the command line: messages that keep their boundaries, file
/// descriptors and credentials.
#[derive(Debug, Parser)]
#[command(name = "seqpacket", version, max_term_width = 100)]
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
    Doctor,
    /// Wait for a connection; send the lines of stdin as messages, write messages to stdout
    #[command(after_help = EXAMPLES_LISTEN)]
    Listen(Listen),
    /// Connect; send the lines of stdin as messages, write messages to stdout
    #[command(after_help = EXAMPLES_CONNECT)]
    Connect(Connect),
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

const EXAMPLES_LISTEN: &str = "\
Examples:
  seqpacket listen /tmp/a.sock                  one connection, then the end
  seqpacket listen --keep --mode 600 /tmp/a.sock
  seqpacket listen --hex @name                  in the abstract namespace";

const EXAMPLES_CONNECT: &str = "\
Examples:
  echo hello | seqpacket connect /tmp/a.sock
  seqpacket connect --hex @name <<< '00 ff 10'
  seqpacket connect --chunk 65536 /tmp/a.sock < file
  echo 'here is a file' | seqpacket connect --fd /etc/hostname /tmp/a.sock";

#[derive(Debug, Args)]
struct Listen {
    /// A path, or @name in the abstract namespace; ./@name is a path
    #[arg(required_unless_present = "activation")]
    address: Option<PathBuf>,

    /// Take connections one after the other, for ever
    #[arg(long, short)]
    keep: bool,

    /// Permissions of the socket file, in octal
    #[arg(long, value_parser = octal, value_name = "OCTAL")]
    mode: Option<u32>,

    /// Replace a socket file that no process listens at
    #[arg(long)]
    replace: bool,

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

fn octal(text: &str) -> Result<u32, String> {
    match u32::from_str_radix(text, 8) {
        Ok(mode @ 0..=0o777) => Ok(mode),
        _ => Err("not an octal number up to 777".into()),
    }
}

/// `@name` is a name in the abstract namespace, anything else a path.
fn address(text: &PathBuf) -> io::Result<SocketAddr> {
    use std::os::unix::ffi::OsStrExt;
    match text.as_os_str().as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
        _ => SocketAddr::from_path(text),
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match start(cli) {
        Ok(code) => code,
        // stdout is not read any more, which is no failure.
        Err(error)
            if error.kind() == io::ErrorKind::BrokenPipe && error.raw_os_error().is_none() =>
        {
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("seqpacket: {error}");
            ExitCode::FAILURE
        }
    }
}

fn start(cli: Cli) -> io::Result<ExitCode> {
    let options = match cli.backend {
        None => Options::new(),
        Some(BackendArg::Auto) => Options::new().backend(Selection::Auto),
        Some(BackendArg::Uring) => Options::new().backend(Selection::Uring),
        Some(BackendArg::Epoll) => Options::new().backend(Selection::Epoll),
    };
    match cli.command {
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "seqpacket", &mut script);
            write_out(&script)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Doctor => doctor::run(&options),
        Command::Bench(bench) => bench::run(bench, cli.backend.map(|_| options)),
        Command::Listen(listen) => run(talk::listen(listen, options)),
        Command::Connect(connect) => run(talk::connect(connect, options)),
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

/// Runs until the future completes or a signal comes. In both cases everything is dropped, which removes socket files.
fn run(work: impl Future<Output = io::Result<()>>) -> io::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        // Before anything is made that would have to be removed.
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut hangup = signal(SignalKind::hangup())?;
        tokio::select! {
            done = work => done.map(|()| ExitCode::SUCCESS),
            _ = interrupt.recv() => Ok(ExitCode::from(128 + 2)),
            _ = terminate.recv() => Ok(ExitCode::from(128 + 15)),
            _ = hangup.recv() => Ok(ExitCode::from(128 + 1)),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn an_at_sign_is_the_abstract_namespace() {
        assert_eq!(address(&"@name".into()).unwrap().as_abstract_name(), Some(&b"name"[..]));
        assert!(address(&"./@name".into()).unwrap().as_pathname().is_some());
    }

    #[test]
    fn modes_are_octal() {
        assert_eq!(octal("600"), Ok(0o600));
        assert!(octal("888").is_err() && octal("1777").is_err());
    }
}
