//! `doctor`: what this machine offers, and why.

use std::fmt::{Display, Write};
use std::fs;
use std::io;
use std::process::ExitCode;

use clap::Args;
use rustix::process::{Resource, Rlimit, getrlimit};
use serde_json::{Map, Value, json};
use tokio_seqpacket::{Backend, Metrics, Options, UnixSeqpacket, UringSupport, metrics, probe};

use crate::format::LARGEST;

#[derive(Debug, Args)]
pub struct Doctor {
    /// Write one JSON object, for programs: see below
    #[arg(long)]
    json: bool,
}

pub const KEYS: &str = "\
The exit code is 1 if no socket can be made.

Keys of --json, which stay as they are; later versions may add some:
  version        of this tool
  works          whether sockets can be made
  backend        on which they run, \"io_uring\" or \"epoll\"; null if there are none
  error          why there are none, or null
  io_uring       {\"available\", \"reason\"}: true or false, and why not or null
  environment    values of TOKIO_SEQPACKET_BACKEND and TOKIO_SEQPACKET_SUBMISSION, or null
  batch_pays_from  operations from which on a batch pays, or null
  kernel         \"release\", \"machine\", and \"io_uring_disabled\" as the sysctl has it, or null
  features       SO_PEERGROUPS, SO_PEERPIDFD, SO_PASSPIDFD, SO_PASSRIGHTS and SO_PEERSEC, each with
                 \"available\" and \"reason\"; null if no socket can be made
  limits         \"open_files\" and \"locked_memory\" with \"current\" and \"maximum\", null for unlimited;
                 \"send_buffer\" and \"largest_message\" of a new socket in bytes, and
                 \"largest_message_settable\" with the largest send buffer; \"wmem_max\",
                 \"somaxconn\" and \"max_dgram_qlen\" as the sysctls have them; null for what
                 cannot be found out
  advice         what to change: an array of sentences";

pub fn run(args: &Doctor, options: &Options) -> io::Result<ExitCode> {
    let findings = crate::run::runtime()?.block_on(async { examine(options) });
    let report = if args.json { findings.json() } else { findings.text() };
    crate::write_out(report.as_bytes())?;
    Ok(if findings.backend.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

struct Findings {
    /// Of a socket that was made with the options, or why none was.
    backend: Result<Backend, String>,
    io_uring: UringSupport,
    environment: [(&'static str, Option<String>); 2],
    threshold: Option<f32>,
    release: String,
    machine: String,
    /// Words for people, name of the option, and why it is missing.
    features: Vec<(&'static str, &'static str, Result<(), String>)>,
    open_files: Rlimit,
    locked_memory: Rlimit,
    send_buffer: Option<Result<usize, String>>,
    largest_message: Option<Result<usize, String>>,
    /// With the largest send buffer that a socket can have.
    largest_message_settable: Option<Result<usize, String>>,
    advice: Vec<String>,
}

fn examine(options: &Options) -> Findings {
    let support = probe();
    let pair = options.pair();
    let socket = pair.as_ref().map(|(socket, _)| socket);
    let system = rustix::system::uname();
    let open_files = getrlimit(Resource::Nofile);
    let threshold = metrics().ok().and_then(|Metrics { threshold, .. }| threshold);
    Findings {
        backend: socket.map(UnixSeqpacket::backend).map_err(ToString::to_string),
        advice: advice(socket, &support, &open_files),
        io_uring: support,
        environment: ["TOKIO_SEQPACKET_BACKEND", "TOKIO_SEQPACKET_SUBMISSION"]
            .map(|name| (name, std::env::var_os(name).map(|value| value.display().to_string()))),
        threshold,
        release: system.release().to_string_lossy().into(),
        machine: system.machine().to_string_lossy().into(),
        features: socket.map(features).unwrap_or_default(),
        open_files,
        locked_memory: getrlimit(Resource::Memlock),
        send_buffer: socket.ok().map(|it| it.send_buffer_size().map_err(|error| error.to_string())),
        largest_message: socket
            .ok()
            .map(|it| it.max_message_size().map_err(|error| error.to_string())),
        // After them: it changes the socket.
        largest_message_settable: socket.ok().map(|it| {
            let largest = it.set_send_buffer_size(LARGEST).and_then(|()| it.max_message_size());
            largest.map_err(|error| error.to_string())
        }),
    }
}

fn advice(
    socket: Result<&UnixSeqpacket, &io::Error>,
    support: &UringSupport,
    open_files: &Rlimit,
) -> Vec<String> {
    let mut advice = Vec::new();
    match (support, socket) {
        (UringSupport::Unavailable(why), _) => advice.push(format!("To have io_uring: {why}.")),
        (UringSupport::Available { .. }, Err(error)) => {
            advice.push(format!("To have sockets: {error}."));
        }
        (UringSupport::Available { .. }, Ok(socket)) if socket.backend() == Backend::Epoll => {
            advice.push(match Options::new().backend(Backend::Uring).pair() {
                Ok(_) => "io_uring is available and not used: because of --backend, or of the \
                          environment variable TOKIO_SEQPACKET_BACKEND."
                    .into(),
                // A ring as small as the probe's is possible, and no other.
                Err(error) => format!("To have io_uring: {error}."),
            });
        }
        _ => {}
    }
    if open_files.current.is_some_and(|files| files <= 1024) {
        advice.push(
            "1024 open files are few for a server: raise the limit (ulimit -n, LimitNOFILE= in \
             systemd)."
                .into(),
        );
    }
    advice
}

fn features(socket: &UnixSeqpacket) -> Vec<(&'static str, &'static str, Result<(), String>)> {
    let groups = socket.peer_groups().map(drop);
    [
        ("the peer's groups", "SO_PEERGROUPS", groups),
        ("the peer's pidfd", "SO_PEERPIDFD", socket.peer_pidfd().map(drop)),
        ("pidfds with messages", "SO_PASSPIDFD", socket.set_pass_pidfd(true)),
        ("refusing descriptors", "SO_PASSRIGHTS", socket.pass_rights().map(drop)),
        ("security labels", "SO_PEERSEC", socket.peer_security_label().map(drop)),
    ]
    .map(|(words, name, there)| (words, name, there.map_err(|error| error.to_string())))
    .into()
}

fn sysctl(name: &str) -> Option<String> {
    let value = fs::read_to_string(format!("/proc/sys/{}", name.replace('.', "/"))).ok()?;
    Some(value.trim().to_owned())
}

impl Findings {
    fn text(&self) -> String {
        let mut text = format!("seqpacket {}\n", env!("CARGO_PKG_VERSION"));
        let text_of = |value: Option<String>, none: &str| value.unwrap_or_else(|| none.into());
        let title = |text: &mut String, title: &str| {
            let _ = writeln!(text, "\n{title}");
        };
        let line = |text: &mut String, what: &str, value: &dyn Display| {
            let _ = writeln!(text, "  {what:<36} {value}");
        };
        let sysctl_line = |text: &mut String, name: &str| {
            line(text, name, &text_of(sysctl(name), "not there"));
        };

        title(&mut text, "Backend");
        match &self.backend {
            Ok(backend) => line(&mut text, "sockets run on", backend),
            Err(error) => line(&mut text, "no socket can be made", error),
        }
        for (name, value) in &self.environment {
            line(&mut text, name, &text_of(value.clone(), "not set"));
        }
        if let Some(threshold) = self.threshold {
            let operations = format!("{threshold:.1} operations on");
            line(&mut text, "a batch pays from", &operations);
        }
        let is_there = !matches!(self.io_uring, UringSupport::Unavailable(_));
        line(&mut text, "io_uring", &if is_there { "available" } else { "not available" });

        title(&mut text, "Kernel");
        line(&mut text, "Linux", &format_args!("{} on {}", self.release, self.machine));
        sysctl_line(&mut text, "kernel.io_uring_disabled");
        for (words, name, there) in &self.features {
            let there = match there {
                Ok(()) => "yes".to_owned(),
                Err(error) => format!("no: {error}"),
            };
            line(&mut text, &format!("{words} ({name})"), &there);
        }

        title(&mut text, "Limits");
        for (name, limit) in [
            ("open files (ulimit -n)", &self.open_files),
            ("locked memory, bytes (ulimit -l)", &self.locked_memory),
        ] {
            let words = |limit: Option<u64>| text_of(limit.map(|n| n.to_string()), "unlimited");
            let (current, maximum) = (words(limit.current), words(limit.maximum));
            line(&mut text, name, &format_args!("{current}, at most {maximum}"));
        }
        for (name, bytes) in [
            ("send buffer, bytes", &self.send_buffer),
            ("largest message by default, bytes", &self.largest_message),
            ("with a larger send buffer, bytes", &self.largest_message_settable),
        ] {
            match bytes {
                Some(Ok(bytes)) => line(&mut text, name, bytes),
                Some(Err(error)) => line(&mut text, name, error),
                None => {}
            }
        }
        for name in ["net.core.wmem_max", "net.core.somaxconn", "net.unix.max_dgram_qlen"] {
            sysctl_line(&mut text, name);
        }

        title(&mut text, "What to change");
        if self.advice.is_empty() {
            let _ = writeln!(text, "  Nothing.");
        }
        for advice in &self.advice {
            let _ = writeln!(text, "  {advice}");
        }
        text
    }

    fn json(&self) -> String {
        let availability = |there: Result<(), &str>| {
            let reason = there.err();
            json!({ "available": reason.is_none(), "reason": reason })
        };
        let limit = |limit: &Rlimit| json!({ "current": limit.current, "maximum": limit.maximum });
        let bytes = |bytes: &Option<Result<usize, String>>| match bytes {
            Some(Ok(bytes)) => Some(*bytes),
            _ => None,
        };
        let sysctl = |name| sysctl(name).and_then(|value| value.parse::<i64>().ok());
        let io_uring = match &self.io_uring {
            UringSupport::Unavailable(why) => Err(why.to_string()),
            _ => Ok(()),
        };
        let environment = self.environment.iter();
        let features: Map<String, Value> = (self.features.iter())
            .map(|(_, name, there)| {
                let there = there.as_ref().copied().map_err(|why| &why[..]);
                ((*name).to_owned(), availability(there))
            })
            .collect();
        let report = json!({
            "version": env!("CARGO_PKG_VERSION"),
            "works": self.backend.is_ok(),
            "backend": self.backend.as_ref().ok().map(|backend| backend.to_string()),
            "error": self.backend.as_ref().err(),
            "io_uring": availability(io_uring.as_ref().copied().map_err(|why| &why[..])),
            "environment": environment
                .map(|(name, value)| ((*name).to_owned(), json!(value)))
                .collect::<Map<_, _>>(),
            // As exact as it is in the text.
            "batch_pays_from": self.threshold.map(|from| f64::from((from * 10.0).round()) / 10.0),
            "kernel": {
                "release": self.release,
                "machine": self.machine,
                "io_uring_disabled": sysctl("kernel.io_uring_disabled"),
            },
            "features": (!features.is_empty()).then_some(features),
            "limits": {
                "open_files": limit(&self.open_files),
                "locked_memory": limit(&self.locked_memory),
                "send_buffer": bytes(&self.send_buffer),
                "largest_message": bytes(&self.largest_message),
                "largest_message_settable": bytes(&self.largest_message_settable),
                "wmem_max": sysctl("net.core.wmem_max"),
                "somaxconn": sysctl("net.core.somaxconn"),
                "max_dgram_qlen": sysctl("net.unix.max_dgram_qlen"),
            },
            "advice": self.advice,
        });
        format!("{report:#}\n")
    }
}
