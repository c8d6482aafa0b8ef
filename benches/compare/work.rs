//! What is measured: the rows of the table, and the ratios that the project has set itself.

pub const SMALL: usize = 64;

/// Where the two sides of a connection run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Setting {
    /// Both sides in one current_thread runtime.
    CurrentThread,
    /// Servers in one current_thread runtime, clients in another, each on its thread.
    TwoRuntimes,
    /// Both sides are tasks of a multi_thread runtime with two workers.
    MultiThread,
    /// As before, but the client runs in `block_on`, on a thread that is no worker.
    BlockOn,
}

impl Setting {
    pub fn name(self) -> &'static str {
        match self {
            Self::CurrentThread => "current_thread",
            Self::TwoRuntimes => "two runtimes",
            Self::MultiThread => "multi_thread",
            Self::BlockOn => "client in block_on",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// Every pair makes round trips, with a file descriptor in each message or without.
    Echo { pairs: usize, size: usize, descriptor: bool },
    /// Round trips of one pair, then of all pairs, and so on: load that comes and goes.
    Changing { pairs: usize },
    /// One side sends, the other receives.
    OneWay,
    /// Tasks that send on one socket.
    Flood { tasks: usize },
    /// A connection is made, accepted and closed.
    Connect,
    /// Single round trips with pauses between them, each timed.
    Paced,
    /// From a send to its arrival, beside tasks that compute for 100 us at each poll.
    Beside { tasks: usize },
    /// Resident memory of a connection that waits for a message. In a process of its own.
    Memory,
    /// System calls of a round trip. In a process of its own.
    Calls { pairs: usize },
}

impl Work {
    /// What a number of this row counts. Less is better in all of them.
    pub fn unit(self) -> &'static str {
        match self {
            Self::Echo { .. } | Self::Changing { .. } => "ns per round trip",
            Self::OneWay | Self::Flood { .. } => "ns per message",
            Self::Connect => "ns per connection",
            Self::Paced => "ns per round trip, median",
            Self::Beside { .. } => "ns to arrival, median",
            Self::Memory => "bytes per connection",
            Self::Calls { .. } => "system calls per round trip",
        }
    }

    /// File descriptors of one contestant, with room for what a library makes beside its sockets.
    pub fn descriptors(self) -> usize {
        match self {
            Self::Echo { pairs, .. } | Self::Changing { pairs } => 4 * pairs + 64,
            _ => 64,
        }
    }
}

/// The least ratio to tokio-seqpacket 0.8.2, for borrowed calls.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    pub uring: f64,
    pub epoll: f64,
}

#[derive(Debug, Clone)]
pub struct Row {
    /// For options and JSON: no spaces.
    pub id: String,
    pub name: String,
    pub setting: Setting,
    pub work: Work,
    pub target: Option<Target>,
}

pub fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    let mut add = |id: String, name: String, setting, work, target: Option<(f64, f64)>| {
        let target = target.map(|(uring, epoll)| Target { uring, epoll });
        rows.push(Row { id, name, setting, work, target });
    };
    let echo = |pairs| Work::Echo { pairs, size: SMALL, descriptor: false };

    for (setting, id, goals) in [
        (Setting::CurrentThread, "current", [1.0, 1.2, 1.45, 1.4, 1.25]),
        (Setting::TwoRuntimes, "two", [0.0, 0.0, 1.5, 1.7, 0.0]),
        (Setting::MultiThread, "multi", [1.0, 1.25, 1.5, 1.5, 0.0]),
    ] {
        for (pairs, goal) in [1, 4, 16, 128, 1024].into_iter().zip(goals) {
            let name = format!("echo, {}, {}", setting.name(), plural(pairs));
            let target = (goal > 0.0).then_some((goal, 1.0));
            add(format!("echo-{id}-{pairs}"), name, setting, echo(pairs), target);
        }
    }
    add(
        "echo-block-on".into(),
        "echo, client in block_on of multi_thread, 1 pair".into(),
        Setting::BlockOn,
        echo(1),
        Some((1.0, 1.0)),
    );
    for (setting, id) in [(Setting::CurrentThread, "current"), (Setting::MultiThread, "multi")] {
        let name = format!("load changes, 1 to 16 pairs and back, {}", setting.name());
        add(format!("changing-{id}"), name, setting, Work::Changing { pairs: 16 }, None);
    }
    for (setting, id) in [(Setting::CurrentThread, "current"), (Setting::MultiThread, "multi")] {
        let name = format!("64 tasks send on one socket, {}", setting.name());
        add(format!("flood-{id}"), name, setting, Work::Flood { tasks: 64 }, Some((1.0, 1.0)));
    }
    for (setting, id) in [(Setting::CurrentThread, "current"), (Setting::TwoRuntimes, "two")] {
        let name = format!("one way, {}, 1 pair", setting.name());
        add(format!("one-way-{id}"), name, setting, Work::OneWay, Some((1.0, 1.0)));
    }
    for (kib, goal) in [(1, 1.35), (16, 1.2), (64, 1.0)] {
        add(
            format!("echo-{kib}k"),
            format!("echo of {kib} KiB, current_thread, 16 pairs"),
            Setting::CurrentThread,
            Work::Echo { pairs: 16, size: kib * 1024, descriptor: false },
            Some((goal, 1.0)),
        );
    }
    add(
        "descriptor".into(),
        "one fd per message, current_thread, 16 pairs".into(),
        Setting::CurrentThread,
        Work::Echo { pairs: 16, size: SMALL, descriptor: true },
        Some((1.2, 1.0)),
    );
    let connect = "connect, accept, close, current_thread";
    add("connect".into(), connect.into(), Setting::CurrentThread, Work::Connect, Some((1.1, 1.0)));
    let paced = "latency under light load, two runtimes";
    add("latency".into(), paced.into(), Setting::TwoRuntimes, Work::Paced, None);
    for (setting, id) in [(Setting::MultiThread, "multi"), (Setting::CurrentThread, "current")] {
        let name = format!("send to arrival beside 32 busy tasks, {}", setting.name());
        add(format!("beside-{id}"), name, setting, Work::Beside { tasks: 32 }, Some((0.95, 0.95)));
    }
    let memory = "resident memory per idle connection, receive pending";
    add("memory".into(), memory.into(), Setting::CurrentThread, Work::Memory, Some((1.0, 1.0)));
    for pairs in [1, 16, 128] {
        let name = format!("system calls, echo, current_thread, {}", plural(pairs));
        add(format!("calls-{pairs}"), name, Setting::CurrentThread, Work::Calls { pairs }, None);
    }
    rows
}

fn plural(pairs: usize) -> String {
    if pairs == 1 { "1 pair".into() } else { format!("{pairs} pairs") }
}
