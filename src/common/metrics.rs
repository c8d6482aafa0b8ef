//! The counters of one worker.

use std::sync::atomic::{AtomicU64, Ordering};

/// What is counted.
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

/// One thread writes nearly always, so an increment is a load and a store. Where two threads meet, one may be lost.
#[derive(Debug, Default)]
pub(crate) struct CounterCells([AtomicU64; COUNTERS]);

impl CounterCells {
    pub(crate) fn add(&self, counter: Counter, count: u64) {
        let counter = &self.0[counter as usize];
        counter.store(counter.load(Ordering::Relaxed) + count, Ordering::Relaxed);
    }

    pub(crate) fn get(&self, counter: Counter) -> u64 {
        self.0[counter as usize].load(Ordering::Relaxed)
    }
}
