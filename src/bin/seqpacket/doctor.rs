//! `doctor`: what this machine offers, and why.

use std::fmt::Write;
use std::fs;
use std::io;
use std::process::ExitCode;

use rustix::process::{Resource, getrlimit};
use tokio_seqpacket::{Backend, Metrics, Options, UnixSeqpacket, UringSupport, metrics, probe};

pub fn run(options: &Options) -> io::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (report, works) = runtime.block_on(async { report(options) });
    crate::write_out(report.as_bytes())?;
    Ok(if works { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

struct Report(String);

impl Report {
    fn title(&mut self, title: &str) {
        let _ = writeln!(self.0, "\n{title}");
    }

    fn line(&mut self, what: &str, value: impl std::fmt::Display) {
        let _ = writeln!(self.0, "  {what:<36} {value}");
    }
}

fn report(options: &Options) -> (String, bool) {
    let mut report = Report(String::new());
    let mut advice = Vec::new();
    let system = rustix::system::uname();
    let _ = writeln!(report.0, "seqpacket {}", env!("CARGO_PKG_VERSION"));

    report.title("Backend");
    let support = probe();
    let pair = options.pair();
    match &pair {
        Ok((socket, _)) => report.line("sockets run on", socket.backend()),
        Err(error) => {
            report.line("no socket can be made", error);
            if let UringSupport::Available { .. } = support {
                advice.push(format!("To have sockets: {error}."));
            }
        }
    }
    let variable = std::env::var_os("TOKIO_SEQPACKET_BACKEND");
    let variable = variable.map_or("not set".into(), |value| value.display().to_string());
    report.line("TOKIO_SEQPACKET_BACKEND", &variable);
    let variable = std::env::var_os("TOKIO_SEQPACKET_SUBMISSION");
    let variable = variable.map_or("not set".into(), |value| value.display().to_string());
    report.line("TOKIO_SEQPACKET_SUBMISSION", &variable);
    if let Ok(Metrics { threshold: Some(threshold), .. }) = metrics() {
        report.line("a batch pays from", format_args!("{threshold:.1} operations on"));
    }
    match &support {
        UringSupport::Unavailable(why) => {
            report.line("io_uring", "not available");
            advice.push(format!("To have io_uring: {why}."));
        }
        _ => report.line("io_uring", "available"),
    }
    if let (Ok((socket, _)), UringSupport::Available { .. }) = (&pair, &support)
        && socket.backend() == Backend::Epoll
    {
        advice.push(match Options::new().backend(Backend::Uring).pair() {
            Ok(_) => {
                "io_uring is available and not used: because of --backend, or of the environment \
                      variable TOKIO_SEQPACKET_BACKEND."
                    .into()
            }
            // A ring as small as the probe's is possible, and no other.
            Err(error) => format!("To have io_uring: {error}."),
        });
    }

    report.title("Kernel");
    let release = system.release().to_string_lossy();
    let machine = system.machine().to_string_lossy();
    report.line("Linux", format!("{release} on {machine}"));
    sysctl(&mut report, "kernel.io_uring_disabled");
    if let Ok((socket, _)) = &pair {
        features(&mut report, socket);
    }

    report.title("Limits");
    for (resource, name) in [
        (Resource::Nofile, "open files (ulimit -n)"),
        (Resource::Memlock, "locked memory, bytes (ulimit -l)"),
    ] {
        let limit = getrlimit(resource);
        let words = |limit: Option<u64>| limit.map_or("unlimited".into(), |n| n.to_string());
        report.line(name, format!("{}, at most {}", words(limit.current), words(limit.maximum)));
        if resource == Resource::Nofile && limit.current.is_some_and(|files| files <= 1024) {
            advice.push(
                "1024 open files are few for a server: raise the limit (ulimit -n, LimitNOFILE= in \
                 systemd)."
                    .into(),
            );
        }
    }
    if let Ok((socket, _)) = &pair {
        for (name, bytes) in [
            ("send buffer, bytes", socket.send_buffer_size()),
            ("largest message by default, bytes", socket.max_message_size()),
        ] {
            match bytes {
                Ok(bytes) => report.line(name, bytes),
                Err(error) => report.line(name, error),
            }
        }
    }
    for name in ["net.core.wmem_max", "net.core.somaxconn", "net.unix.max_dgram_qlen"] {
        sysctl(&mut report, name);
    }

    report.title("What to change");
    if advice.is_empty() {
        let _ = writeln!(report.0, "  Nothing.");
    }
    for advice in advice {
        let _ = writeln!(report.0, "  {advice}");
    }
    (report.0, pair.is_ok())
}

fn features(report: &mut Report, socket: &UnixSeqpacket) {
    let words = |answer: io::Result<()>| match answer {
        Ok(()) => "yes".to_owned(),
        Err(error) => format!("no: {error}"),
    };
    let groups = socket.peer_groups().map(drop);
    report.line("the peer's groups (SO_PEERGROUPS)", words(groups));
    report.line("the peer's pidfd (SO_PEERPIDFD)", words(socket.peer_pidfd().map(drop)));
    report.line("pidfds with messages (SO_PASSPIDFD)", words(socket.set_pass_pidfd(true)));
    report.line("refusing descriptors (SO_PASSRIGHTS)", words(socket.pass_rights().map(drop)));
    report.line("security labels (SO_PEERSEC)", words(socket.peer_security_label().map(drop)));
}

fn sysctl(report: &mut Report, name: &str) {
    let value = fs::read_to_string(format!("/proc/sys/{}", name.replace('.', "/")));
    match value {
        Ok(value) => report.line(name, value.trim()),
        Err(_) => report.line(name, "not there"),
    }
}
