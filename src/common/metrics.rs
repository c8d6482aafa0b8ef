//! The counters of one worker, and of one direction of a socket.

use std::sync::atomic::{AtomicU64, Ordering};

/// A counter that one thread increments nearly always, so an increment is a load and a store. Where two threads meet, one may be
/// lost.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    pub(crate) fn add(&self, count: u64) {
        self.set(self.get() + count);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn set(&self, count: u64) {
        self.0.store(count, Ordering::Relaxed);
    }
}

/// What is counted for a worker.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Counter {
    DirectCalls,
    Submissions,
    Enters,
    EmptyAttempts,
    Parked,
    Refused,
    Batched,
    Direct,
}

const COUNTERS: usize = Counter::Direct as usize + 1;

#[derive(Debug, Default)]
pub(crate) struct CounterCells([Count; COUNTERS]);

impl CounterCells {
    pub(crate) fn add(&self, counter: Counter, count: u64) {
        self.0[counter as usize].add(count);
    }

    pub(crate) fn get(&self, counter: Counter) -> u64 {
        self.0[counter as usize].get()
    }
}

/// What a call has sent or received.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Carried {
    pub(crate) messages: usize,
    pub(crate) bytes: usize,
    pub(crate) fds: usize,
    /// Receives of no byte that may have been empty messages, or the end of the stream. They come behind `messages`.
    pub(crate) doubtful: usize,
}

impl Carried {
    /// One message.
    pub(crate) fn message(bytes: usize, fds: usize) -> Self {
        Self { messages: 1, bytes, fds, doubtful: 0 }
    }

    /// What one receive has returned. `end_of_stream` is `None` where it cannot distinguish an empty message from the end.
    pub(crate) fn received(
        message_len: usize,
        end_of_stream: Option<bool>,
        bytes: usize,
        fds: usize,
    ) -> Self {
        match end_of_stream {
            Some(true) => Self::default(),
            None if message_len == 0 => Self { doubtful: 1, ..Self::default() },
            _ => Self::message(bytes, fds),
        }
    }
}

impl std::ops::AddAssign for Carried {
    fn add_assign(&mut self, more: Self) {
        self.messages += more.messages;
        self.bytes += more.bytes;
        self.fds += more.fds;
        self.doubtful += more.doubtful;
    }
}

/// The counters of one direction of a socket.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    pub(crate) messages: Count,
    pub(crate) bytes: Count,
    pub(crate) fds: Count,
    /// How often the direction had to wait for readiness.
    pub(crate) parked: Count,
    /// What may have been the end of the stream. If a message follows, it was not.
    doubtful: Count,
}

impl Traffic {
    pub(crate) fn add(&self, carried: Carried) {
        if carried.messages > 0 {
            let doubtful = self.doubtful.get();
            self.messages.add(carried.messages as u64 + doubtful);
            self.bytes.add(carried.bytes as u64);
            if carried.fds > 0 {
                self.fds.add(carried.fds as u64);
            }
            if doubtful > 0 {
                self.doubtful.set(0);
            }
        }
        if carried.doubtful > 0 {
            self.doubtful.add(carried.doubtful as u64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_counts_as_empty_messages_once_a_message_follows() {
        let traffic = Traffic::default();
        let nothing = Carried::received(0, None, 0, 0);
        traffic.add(Carried::received(7, None, 4, 2));
        traffic.add(nothing);
        traffic.add(nothing);
        assert_eq!(traffic.messages.get(), 1);
        traffic.add(Carried::received(0, Some(false), 0, 0));
        assert_eq!(traffic.messages.get(), 4);
        traffic.add(nothing);
        traffic.add(Carried::received(0, Some(true), 0, 0));
        assert_eq!(traffic.messages.get(), 4);
        assert_eq!((traffic.bytes.get(), traffic.fds.get()), (4, 2));
    }
}
