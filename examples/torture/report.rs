//! Counters, and their report.

use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// What is counted, in all parts of a process.
#[derive(Debug, Clone, Copy)]
pub enum Count {
    Messages,
    Empty,
    Truncated,
    DroppedReceives,
    DroppedSends,
    Waited,
    Fds,
    Pipes,
    Refused,
    Resets,
    Aborts,
    LeftAlone,
    ByReadiness,
    Peeks,
    Watched,
    Batched,
    Streams,
    StreamsLeft,
    SignaledEnds,
    Toggles,
    Handovers,
    WholeHandovers,
    RefusedHandovers,
    Elsewhere,
    Runtimes,
    Threads,
    Squeezes,
}

const NAMES: [&str; 27] = [
    "messages received",
    "  of these empty",
    "  of these truncated, and reported",
    "receives cancelled",
    "sends cancelled",
    "sends that waited",
    "descriptors passed",
    "  of these ends of pipes",
    "sends refused",
    "ECONNRESET",
    "tasks aborted",
    "calls left alone after one poll",
    "messages sent or received when readiness or a peek said so",
    "peeks that saw a message or the end",
    "waits for readiness and peeks beside all calls",
    "messages received in batches",
    "streams of messages",
    "  of these dropped with messages left",
    "ends distinguished from empty messages",
    "options changed in mid-traffic",
    "descriptors taken out of their sockets, and back",
    "  of these with no receive dropped before",
    "  refused, as something was left",
    "sockets and futures dropped on a thread outside of all runtimes",
    "runtimes ended",
    "submitting threads ended",
    "squeezes of the descriptor limit",
];

#[derive(Debug, Default)]
pub struct Counters([AtomicU64; NAMES.len()]);

impl Counters {
    pub fn add(&self, count: Count, number: u64) {
        self.0[count as usize].fetch_add(number, Ordering::Relaxed);
    }

    pub fn read(&self) -> Counts {
        Counts(std::array::from_fn(|at| self.0[at].load(Ordering::Relaxed)))
    }
}

#[derive(Debug, Default, Clone, Copy)]
pub struct Counts([u64; NAMES.len()]);

impl Counts {
    pub fn to_words(self) -> Vec<u64> {
        self.0.to_vec()
    }

    pub fn from_words(words: &[u64]) -> Self {
        Self(std::array::from_fn(|at| words.get(at).copied().unwrap_or(0)))
    }

    pub fn plus(self, other: Self) -> Self {
        Self(std::array::from_fn(|at| self.0[at] + other.0[at]))
    }

    pub fn of(&self, count: Count) -> u64 {
        self.0[count as usize]
    }
}

/// One line that is written over, on a terminal; else a line now and then.
pub fn progress(elapsed: Duration, counts: Counts, lives: u64) {
    let line = format!(
        "{:4} s  {} messages  {} receives and {} sends cancelled  {} fds  {lives} connections",
        elapsed.as_secs(),
        counts.of(Count::Messages),
        counts.of(Count::DroppedReceives),
        counts.of(Count::DroppedSends),
        counts.of(Count::Fds),
    );
    let mut stderr = std::io::stderr();
    let _ = if stderr.is_terminal() {
        write!(stderr, "\r\x1b[2K{line}")
    } else {
        writeln!(stderr, "{line}")
    };
}

pub fn summary(counts: Counts, lives: u64, kills: u64) {
    if std::io::stderr().is_terminal() {
        eprintln!();
    }
    for (name, number) in NAMES.iter().zip(counts.0) {
        println!("{number:>12}  {name}");
    }
    println!("{lives:>12}  connections, all ends compared");
    println!("{kills:>12}  times the peer was killed");
}
