//! One worker of a runtime as its sockets know it: the inbox of its driver, its ring, its load.
//!
//! `S` is a socket as the driver knows it ([`Core`](super::core::Core)). A worker only keeps it.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use crate::common::metrics::{Counter, CounterCells};
use crate::common::policy::Costs;
use crate::uring::costs::{costs, known_costs};
use crate::uring::ring::Ring;

/// In direct mode the driver takes a sample of the load after so many calls.
const CALLS_PER_SAMPLE: u32 = 256;

/// What an inbox needs to know of a socket.
pub(crate) trait Listed {
    /// Returns whether no inbox takes it any more. Called under an inbox's lock.
    fn is_closed(&self) -> bool;
}

/// What a driver does for a listed socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    Send,
    Receive,
    /// Wake the next waiter, if what the last was woken for is still there.
    Relay,
}

/// One worker of a runtime, as its sockets know it.
#[derive(Debug)]
pub(crate) struct Worker<S> {
    index: usize,
    pub(super) inbox: Mutex<Inbox<S>>,
    pub(super) ring: Mutex<RingState>,
    /// Its load is one for batches.
    pub(super) loaded: AtomicBool,
    /// Its load is one for batches, and its runtime finds them faster.
    pub(super) batched: AtomicBool,
    /// Calls that were made directly, for the sample.
    pub(super) calls: AtomicU32,
    /// The average operations of a batch, as [`WorkerLoad`](crate::common::policy::WorkerLoad) last reported: the bits of an `f32`.
    pub(super) average: AtomicU32,
    /// How often the worker had parked at the last sample.
    parks: AtomicU64,
    pub(super) ring_gone: AtomicBool,
    pub(crate) counters: CounterCells,
}

#[derive(Debug)]
pub(super) struct Inbox<S> {
    pub(super) listed: Vec<(Arc<S>, Work)>,
    /// The driver is going to check the inbox without being woken.
    pub(super) awake: bool,
    pub(super) waker: Option<Waker>,
    pub(super) dead: bool,
}

#[derive(Debug, Default)]
pub(super) enum RingState {
    #[default]
    Unmade,
    Working(Box<Ring>, Costs),
    /// The ring could not be made, or refused service.
    Gone(String),
}

/// The driver is dead, since its runtime is gone.
#[derive(Debug)]
pub(crate) struct Dead;

impl<S: Listed> Worker<S> {
    pub(super) fn new(index: usize) -> Self {
        Self {
            index,
            inbox: Mutex::new(Inbox { listed: Vec::new(), awake: false, waker: None, dead: false }),
            ring: Mutex::default(),
            loaded: AtomicBool::new(false),
            batched: AtomicBool::new(false),
            calls: AtomicU32::new(0),
            average: AtomicU32::new(0),
            parks: AtomicU64::new(0),
            ring_gone: AtomicBool::new(false),
            counters: CounterCells::default(),
        }
    }

    /// Makes the driver attend to a socket. The caller has noted in the socket's queue that it is listed here.
    pub(crate) fn list(&self, socket: &Arc<S>, work: Work) -> Result<(), Dead> {
        let waker = {
            let mut inbox = lock(&self.inbox);
            if inbox.dead {
                return Err(Dead);
            }
            if socket.is_closed() {
                return Ok(());
            }
            inbox.listed.push((socket.clone(), work));
            inbox.wake()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        Ok(())
    }

    /// Releases a socket that is closed.
    pub(super) fn unlist(&self, socket: &Arc<S>) {
        let mut removed = Vec::new();
        lock(&self.inbox).listed.retain_mut(|(listed, work)| {
            let keep = !Arc::ptr_eq(listed, socket);
            if !keep {
                removed.push((listed.clone(), *work));
            }
            keep
        });
        drop(removed);
    }

    /// Makes the ring, if there is none yet, or if it is that of a process which this one was forked from.
    ///
    /// # Errors
    /// Fails if no ring can be made, or if it refused service before.
    pub(super) fn ensure_ring(&self) -> io::Result<()> {
        let mut state = lock(&self.ring);
        match &*state {
            RingState::Working(ring, _) if ring.is_own() => Ok(()),
            RingState::Gone(why) => Err(io::Error::other(why.clone())),
            RingState::Unmade | RingState::Working(..) => {
                *state = RingState::Unmade;
                let mut ring = Ring::new()?;
                let costs = costs(&mut ring)?;
                *state = RingState::Working(Box::new(ring), costs);
                self.ring_gone.store(false, Ordering::Relaxed);
                Ok(())
            }
        }
    }

    /// Returns whether the worker's load is one for batches.
    pub(crate) fn is_loaded(&self) -> bool {
        self.loaded.load(Ordering::Relaxed)
    }

    /// Returns whether adaptive sockets batch for its load.
    pub(crate) fn is_batched(&self) -> bool {
        self.batched.load(Ordering::Relaxed)
    }

    /// Returns the average operations of a batch.
    pub(crate) fn average(&self) -> f32 {
        f32::from_bits(self.average.load(Ordering::Relaxed))
    }

    /// Returns whether a batch can go through a ring here. The first batch makes one.
    pub(crate) fn may_have_ring(&self) -> bool {
        !self.ring_gone.load(Ordering::Relaxed)
    }

    /// Notes a direct call that a ring could have carried. Returns whether it would under another load.
    pub(crate) fn called(&self, adapts: bool, parks: impl FnOnce(usize) -> Option<u64>) {
        self.counters.add(Counter::DirectCalls, 1);
        if !adapts {
            return;
        }
        let calls = self.calls.load(Ordering::Relaxed).wrapping_add(1);
        self.calls.store(calls, Ordering::Relaxed);
        if calls.is_multiple_of(CALLS_PER_SAMPLE) && self.is_busy(parks(self.index)) {
            let waker = lock(&self.inbox).wake();
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }

    /// Returns whether a sample may show enough load for batches. On a multi_thread runtime, waking the driver for one also
    /// wakes another worker, which costs as much as some hundred calls.
    fn is_busy(&self, parks: Option<u64>) -> bool {
        let (Some(parks), Some(costs)) = (parks, known_costs()) else {
            return true;
        };
        let parked = parks.wrapping_sub(self.parks.swap(parks, Ordering::Relaxed));
        CALLS_PER_SAMPLE as f32 > 2.0 * costs.threshold() * parked as f32
    }
}

impl<S> Inbox<S> {
    fn wake(&mut self) -> Option<Waker> {
        if std::mem::replace(&mut self.awake, true) { None } else { self.waker.take() }
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing under these locks runs user code or panics half-way.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
