//! What is measured: the rows of the table, and the ratios that the project has set itself.

use serde::Serialize;

use crate::contestants::{EPOLL, URING, URING_OWNED};
use crate::pipes;

pub const SMALL: usize = 64;
pub const PAYLOAD: usize = 1 << 20;
pub const CHUNK: usize = 64 << 10;

/// Where the two sides of a connection run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Setting {
    /// Both sides in one current_thread runtime.
    CurrentThread,
    /// Servers in one current_thread runtime, clients in another, each on its thread.
    TwoRuntimes,
    /// As before, and receives poll busily where the library can.
    TwoBusy,
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
            Self::TwoBusy => "two runtimes that poll busily",
            Self::MultiThread => "multi_thread",
            Self::BlockOn => "client in block_on",
        }
    }
}

/// How messages are passed. All but the first are what only this library has: the reference does the same work
/// plainly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Each by a call of its own.
    Plain,
    /// Batches are sent, a stream of messages receives.
    Streams,
    /// Batches are sent and received.
    Batches,
}

/// How messages are passed between two processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Pipe {
    Plain,
    Batches,
    /// By owned calls: clones of one `Bytes` are sent, and each message is received into a `BytesMut` of its own.
    Bytes,
    /// The same through a codec.
    Framed,
}

/// How a large payload is passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Payload {
    Chunks,
    /// Copied into sealed memory, which is passed.
    Sealed,
    /// The same sealed memory, over and over.
    SealedBefore,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// Every pair makes round trips, with a file descriptor in each message or without.
    Echo { pairs: usize, size: usize, descriptor: bool },
    /// Round trips of one pair, then of all pairs, and so on: load that comes and goes.
    Changing { pairs: usize },
    /// Every pair makes round trips, `at_once` messages at a time.
    Volleys { pairs: usize, at_once: usize, way: Way },
    /// One side sends, the other receives.
    OneWay { way: Way },
    /// The same between two processes, with messages of this size.
    Pipe { way: Pipe, size: usize },
    /// One side sends [`PAYLOAD`] bytes, which the other reads.
    Large { payload: Payload },
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
            Self::Echo { .. } | Self::Changing { .. } | Self::Volleys { .. } => "ns per round trip",
            Self::Large { .. } => "ns per payload",
            Self::OneWay { .. } | Self::Pipe { .. } | Self::Flood { .. } => "ns per message",
            Self::Connect => "ns per connection",
            Self::Paced => "ns per round trip, median",
            Self::Beside { .. } => "ns to arrival, median",
            Self::Memory => "bytes per connection",
            Self::Calls { .. } => "system calls per round trip",
        }
    }

    /// File descriptors of one contestant, with those that a library makes beside its sockets.
    pub fn descriptors(self) -> usize {
        match self {
            Self::Echo { pairs, .. } | Self::Changing { pairs } | Self::Volleys { pairs, .. } => {
                4 * pairs + 64
            }
            _ => 64,
        }
    }

    /// The same work without streams, batches and sealed memory.
    pub fn plain(self) -> Self {
        match self {
            Self::Volleys { pairs, at_once, .. } => {
                Self::Volleys { pairs, at_once, way: Way::Plain }
            }
            Self::OneWay { .. } => Self::OneWay { way: Way::Plain },
            Self::Large { .. } => Self::Large { payload: Payload::Chunks },
            other => other,
        }
    }
}

/// What the project wants of one contestant in one row: the least ratios to tokio-seqpacket 0.8.2.
#[derive(Debug, Clone, Serialize)]
pub struct Goal {
    pub contestant: &'static str,
    pub ratio: Option<f64>,
    /// The ratio is wanted where a trivial system call costs this many nanoseconds or more.
    pub call: f64,
    /// The ratio of processor times.
    pub processor: Option<f64>,
}

/// Wanted ratios: of calls on io_uring that borrow, of those that own, and of borrowed calls on epoll.
#[derive(Debug, Clone, Copy, Default)]
struct Wanted {
    uring: Option<f64>,
    owned: Option<f64>,
    epoll: Option<f64>,
    call: f64,
}

impl Wanted {
    fn both(goal: f64, epoll: Option<f64>, call: f64) -> Self {
        Self { uring: Some(goal), owned: Some(goal), epoll, call }
    }

    fn borrowed(uring: f64, epoll: f64) -> Self {
        Self { uring: Some(uring), epoll: Some(epoll), ..Self::default() }
    }

    fn goals(self, work: Work) -> Vec<Goal> {
        // A round trip never takes more processor time.
        let trips = matches!(work, Work::Echo { .. } | Work::Changing { .. });
        let processor = trips.then_some(1.0);
        let goals = [
            Goal { contestant: URING, ratio: self.uring, call: self.call, processor },
            Goal { contestant: URING_OWNED, ratio: self.owned, call: self.call, processor },
            Goal { contestant: EPOLL, ratio: self.epoll, call: 0.0, processor: None },
        ];
        goals.into_iter().filter(|goal| goal.ratio.or(goal.processor).is_some()).collect()
    }
}

#[derive(Debug, Clone)]
pub struct Row {
    /// For options and JSON: no spaces.
    pub id: String,
    pub name: String,
    pub setting: Setting,
    pub work: Work,
    /// What a trivial system call is made to cost, in nanoseconds. In a process of its own.
    pub call: Option<u16>,
    pub goals: Vec<Goal>,
}

/// The goals for echo hold where a trivial system call costs this many nanoseconds.
const DECIDES: f64 = 165.0;
/// Rows of echo are repeated with system calls that cost this.
const CALLS: [u16; 2] = [300, 500];

/// Pairs, the goals for io_uring with calls of 165 ns and of 300 ns, the goal for epoll.
type EchoRow = (usize, Option<(f64, f64)>, Option<f64>);
const CURRENT: [EchoRow; 5] = [
    (1, Some((1.5, 1.5)), Some(1.0)),
    (4, Some((1.6, 1.8)), Some(1.0)),
    (16, Some((1.9, 2.3)), Some(1.0)),
    (128, Some((1.85, 2.1)), Some(1.0)),
    (1024, Some((1.6, 1.8)), Some(1.0)),
];
const TWO: [EchoRow; 5] = [
    (1, Some((1.5, 1.5)), None),
    (4, Some((1.4, 1.4)), None),
    (16, Some((1.6, 1.8)), Some(1.0)),
    (128, Some((1.7, 1.8)), Some(1.0)),
    (1024, None, None),
];
const MULTI: [EchoRow; 5] = [
    (1, Some((1.0, 1.0)), Some(1.0)),
    (4, Some((2.2, 2.2)), Some(1.0)),
    (16, Some((2.1, 2.3)), Some(1.0)),
    (128, Some((1.65, 1.8)), Some(1.0)),
    (1024, None, None),
];
const ECHO: [(Setting, &str, [EchoRow; 5]); 3] = [
    (Setting::CurrentThread, "current", CURRENT),
    (Setting::TwoRuntimes, "two", TWO),
    (Setting::MultiThread, "multi", MULTI),
];

pub fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    let mut add = |id: String, name: String, setting, work: Work, call, wanted: Wanted| {
        rows.push(Row { id, name, setting, work, call, goals: wanted.goals(work) });
    };
    let echo = |pairs| Work::Echo { pairs, size: SMALL, descriptor: false };

    for (setting, id, table) in ECHO {
        for (pairs, goals, epoll) in table {
            let name = format!("echo, {}, {}", setting.name(), plural(pairs));
            let wanted = match goals {
                Some((goal, _)) => Wanted::both(goal, epoll, DECIDES),
                None => Wanted::default(),
            };
            add(format!("echo-{id}-{pairs}"), name, setting, echo(pairs), None, wanted);
        }
    }
    for call in CALLS {
        for (setting, id, table) in ECHO {
            for (pairs, goals, _) in table {
                let Some((_, goal)) = goals else { continue };
                let pairs_name = plural(pairs);
                let name = format!("calls of {call} ns: echo, {}, {pairs_name}", setting.name());
                let wanted = match call {
                    300 => Wanted::both(goal, None, f64::from(call)),
                    _ => Wanted::default(),
                };
                let id = format!("at{call}-echo-{id}-{pairs}");
                add(id, name, setting, echo(pairs), Some(call), wanted);
            }
        }
    }
    let mut add = |id, name, setting, work, wanted: Option<Wanted>| {
        add(id, name, setting, work, None, wanted.unwrap_or_default());
    };
    add(
        "echo-block-on".into(),
        "echo, client in block_on of multi_thread, 1 pair".into(),
        Setting::BlockOn,
        echo(1),
        Some(Wanted::borrowed(1.0, 1.0)),
    );
    for (setting, id) in [(Setting::CurrentThread, "current"), (Setting::MultiThread, "multi")] {
        let name = format!("load changes, 1 to 16 pairs and back, {}", setting.name());
        let wanted = Wanted::both(1.2, None, 0.0);
        add(format!("changing-{id}"), name, setting, Work::Changing { pairs: 16 }, Some(wanted));
    }
    for (setting, id) in [(Setting::CurrentThread, "current"), (Setting::MultiThread, "multi")] {
        let name = format!("64 tasks send on one socket, {}", setting.name());
        add(
            format!("flood-{id}"),
            name,
            setting,
            Work::Flood { tasks: 64 },
            Some(Wanted::borrowed(1.0, 1.0)),
        );
    }
    for (setting, id) in [(Setting::CurrentThread, "current"), (Setting::TwoRuntimes, "two")] {
        let name = format!("one way, {}, 1 pair", setting.name());
        let work = Work::OneWay { way: Way::Plain };
        add(format!("one-way-{id}"), name, setting, work, Some(Wanted::borrowed(1.0, 1.0)));
    }
    let goal = |least| Some(Wanted::borrowed(least, 1.0));
    let sizes = [(1, goal(1.35)), (4, None), (16, goal(1.2)), (64, goal(1.0)), (128, None)];
    for (kib, wanted) in sizes {
        add(
            format!("echo-{kib}k"),
            format!("echo of {kib} KiB, current_thread, 16 pairs"),
            Setting::CurrentThread,
            Work::Echo { pairs: 16, size: kib * 1024, descriptor: false },
            wanted,
        );
    }
    add(
        "descriptor".into(),
        "one fd per message, current_thread, 16 pairs".into(),
        Setting::CurrentThread,
        Work::Echo { pairs: 16, size: SMALL, descriptor: true },
        Some(Wanted::borrowed(1.2, 1.0)),
    );
    let connect = "connect, accept, close, current_thread";
    add(
        "connect".into(),
        connect.into(),
        Setting::CurrentThread,
        Work::Connect,
        Some(Wanted::borrowed(1.1, 1.0)),
    );
    let paced = "latency under light load, two runtimes";
    add("latency".into(), paced.into(), Setting::TwoRuntimes, Work::Paced, None);
    for (setting, id) in [(Setting::MultiThread, "multi"), (Setting::CurrentThread, "current")] {
        let name = format!("send to arrival beside 32 busy tasks, {}", setting.name());
        add(
            format!("beside-{id}"),
            name,
            setting,
            Work::Beside { tasks: 32 },
            Some(Wanted::borrowed(0.95, 0.95)),
        );
    }
    let memory = "resident memory per idle connection, receive pending";
    add(
        "memory".into(),
        memory.into(),
        Setting::CurrentThread,
        Work::Memory,
        Some(Wanted::borrowed(1.0, 1.0)),
    );
    for pairs in [1, 16, 128] {
        let name = format!("system calls, echo, current_thread, {}", plural(pairs));
        add(format!("calls-{pairs}"), name, Setting::CurrentThread, Work::Calls { pairs }, None);
    }
    rows.extend(only_here());
    rows
}

/// What only this library has, beside the same work done plainly. No goals: they are measured, not wanted.
fn only_here() -> Vec<Row> {
    let mut rows = Vec::new();
    let mut add = |id: String, name: String, setting, work| {
        rows.push(Row { id, name, setting, work, call: None, goals: Vec::new() });
    };
    for (way, id, what) in [
        (Way::Streams, "stream", "batches to a stream"),
        (Way::Batches, "batch", "batches to batches"),
    ] {
        let name = format!("one way, two runtimes, 1 pair, {what}");
        add(format!("one-way-two-{id}"), name, Setting::TwoRuntimes, Work::OneWay { way });
    }
    for (size, of) in [(SMALL, "64 bytes"), (1024, "1 KiB")] {
        for (way, id, what) in pipes::WAYS {
            let name = format!("one way, two processes, {of}, {what}");
            let work = Work::Pipe { way, size };
            add(format!("one-way-processes-{id}-{size}"), name, Setting::TwoRuntimes, work);
        }
    }
    let here = Setting::CurrentThread;
    for pairs in [1, 16, 128] {
        let name = format!("echo through streams, {}, {}", here.name(), plural(pairs));
        let work = Work::Volleys { pairs, at_once: 1, way: Way::Streams };
        add(format!("stream-{pairs}"), name, here, work);
    }
    for pairs in [1, 128] {
        for (way, id, what) in
            [(Way::Plain, "flight", ""), (Way::Streams, "flight-stream", ", streams and batches")]
        {
            let name = format!("16 in flight each, {}, {}{what}", here.name(), plural(pairs));
            add(format!("{id}-{pairs}"), name, here, Work::Volleys { pairs, at_once: 16, way });
        }
    }
    let work = Work::Echo { pairs: 1, size: SMALL, descriptor: false };
    let name = format!("echo, {}, 1 pair", Setting::TwoBusy.name());
    add("busy".into(), name, Setting::TwoBusy, work);
    for (payload, id, what) in [
        (Payload::Chunks, "payload", "in chunks of 64 KiB"),
        (Payload::Sealed, "payload-sealed", "as sealed memory, made anew"),
        (Payload::SealedBefore, "payload-again", "as the same sealed memory"),
    ] {
        add(id.into(), format!("payloads of 1 MiB, {what}"), here, Work::Large { payload });
    }
    rows
}

fn plural(pairs: usize) -> String {
    if pairs == 1 { "1 pair".into() } else { format!("{pairs} pairs") }
}
