//! A connection's life: what both ends do with it, and when it ends. Main decides, and sends the plan to the peer.

use fastrand::Rng;
use tokio_seqpacket::Selection;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Main = 0,
    Peer = 1,
}

impl End {
    pub fn other(self) -> Self {
        match self {
            End::Main => End::Peer,
            End::Peer => End::Main,
        }
    }
}

/// How a life ends, unless the runtime of an end goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Both say which message is their last, and read to the other's.
    Orderly,
    /// One drops everything.
    Closes(End),
}

#[derive(Debug, Clone, Copy)]
pub enum Backend {
    Auto,
    Epoll,
    Uring,
}

impl Backend {
    pub fn selection(self) -> Selection {
        match self {
            Backend::Auto => Selection::Auto,
            Backend::Epoll => Selection::Epoll,
            Backend::Uring => Selection::Uring,
        }
    }
}

#[derive(Debug, Clone)]
pub struct Plan {
    pub slot: u16,
    pub life: u64,
    pub seed: u64,
    pub backends: [Backend; 2],
    pub ending: Ending,
    pub millis: u64,
    /// Messages in each direction at most.
    pub most: u64,
    /// Calls that wait on one socket at the same time.
    pub width: usize,
    /// The smallest send buffer there is.
    pub small: bool,
    /// In thousandths: empty messages, messages with descriptors, and those of them with all 253.
    pub empty: u64,
    pub with_fds: u64,
    pub full: u64,
    /// Empty messages in a row at most: more of them are the end of the stream.
    pub run: u64,
    /// In hundredths: calls dropped when they wait.
    pub drop_receives: u64,
    pub drop_sends: u64,
    /// Credentials come with every message: an empty one can be distinguished from the end.
    pub marked: bool,
    /// Options are changed in mid-traffic.
    pub toggles: bool,
    /// Calls go by readiness and peeks only.
    pub by_readiness: bool,
    /// Readiness and peeks are waited for beside all calls.
    pub watched: bool,
    /// Receives are streams of messages at times.
    pub streams: bool,
    /// The descriptors leave their sockets in mid-traffic, and come back.
    pub handovers: bool,
}

impl Plan {
    pub fn draw(slot: u16, life: u64, under_test: Backend, uring: bool, rng: &mut Rng) -> Self {
        let mut mixed = || if uring && rng.bool() { Backend::Uring } else { Backend::Epoll };
        let main = match under_test {
            Backend::Auto => mixed(),
            fixed => fixed,
        };
        let backends = [main, mixed()];
        let ending = match rng.u8(..10) {
            0..=5 => Ending::Orderly,
            6..=7 => Ending::Closes(End::Main),
            _ => Ending::Closes(End::Peer),
        };
        // Neighbors that flood: with empty messages, with descriptors.
        let (empty, run, with_fds, full) = match slot % 32 {
            30 => (950, 400, 0, 0),
            31 => (0, 8, 100, 200),
            _ => ([20, 20, 300][rng.usize(..3)], 8, 40, 5),
        };
        Self {
            slot,
            life,
            seed: rng.u64(..),
            backends,
            ending,
            millis: rng.u64(200..1500),
            most: 6_000,
            width: rng.usize(1..=4),
            small: slot.is_multiple_of(2),
            empty,
            with_fds,
            full,
            run,
            drop_receives: [0, 30, 60, 90][rng.usize(..4)],
            drop_sends: [0, 10, 30, 60][rng.usize(..4)],
            marked: rng.bool(),
            toggles: rng.u8(..3) == 0,
            by_readiness: rng.u8(..6) == 0,
            watched: rng.u8(..3) == 0,
            streams: rng.u8(..3) == 0,
            handovers: rng.u8(..3) == 0,
        }
    }

    pub fn backend(&self, end: End) -> Backend {
        self.backends[end as usize]
    }

    pub fn to_words(&self) -> Vec<u64> {
        let ending = match self.ending {
            Ending::Orderly => 0,
            Ending::Closes(End::Main) => 1,
            Ending::Closes(End::Peer) => 2,
        };
        let flags = [
            self.marked,
            self.toggles,
            self.by_readiness,
            self.watched,
            self.streams,
            self.handovers,
        ];
        vec![
            u64::from(self.slot),
            self.life,
            self.seed,
            self.backends[0] as u64,
            self.backends[1] as u64,
            ending,
            self.millis,
            self.most,
            self.width as u64,
            u64::from(self.small),
            self.empty,
            self.with_fds,
            self.full,
            self.run,
            self.drop_receives,
            self.drop_sends,
            flags.iter().rev().fold(0, |word, flag| word << 1 | u64::from(*flag)),
        ]
    }

    pub fn from_words(words: &[u64]) -> Self {
        let backend = |word| match word {
            0 => Backend::Auto,
            1 => Backend::Epoll,
            _ => Backend::Uring,
        };
        let flag = |at: u32| words[16] >> at & 1 != 0;
        Self {
            slot: words[0] as u16,
            life: words[1],
            seed: words[2],
            backends: [backend(words[3]), backend(words[4])],
            ending: match words[5] {
                0 => Ending::Orderly,
                1 => Ending::Closes(End::Main),
                _ => Ending::Closes(End::Peer),
            },
            millis: words[6],
            most: words[7],
            width: words[8] as usize,
            small: words[9] != 0,
            empty: words[10],
            with_fds: words[11],
            full: words[12],
            run: words[13],
            drop_receives: words[14],
            drop_sends: words[15],
            marked: flag(0),
            toggles: flag(1),
            by_readiness: flag(2),
            watched: flag(3),
            streams: flag(4),
            handovers: flag(5),
        }
    }
}
