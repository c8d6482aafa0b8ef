//! A socket's send lane and the spare payloads of its sends, under one lock; and whether the lane is
//! idle, to be seen without it.

use std::ops::{Deref, DerefMut};
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::task::Waker;

use crate::lane::SendLane;
use crate::outgoing::{Outgoing, Spares};
use crate::sync::{AtomicBool, Mutex, MutexGuard};

/// For so many sends that wait does one task send before it lets others run.
pub(crate) const AT_ONCE: usize = 128;

#[derive(Debug)]
pub(crate) struct Line<F> {
    /// As the last who had the lock left it. Nobody needs more: whoever came to stand in line before
    /// this call began has left the lock before it began.
    idle: AtomicBool,
    /// Made with the first send that waits. Most sockets never have one.
    state: Mutex<Option<Box<State<F>>>>,
}

#[derive(Debug)]
pub(crate) struct State<F> {
    pub(crate) lane: SendLane<Box<Outgoing>, F>,
    pub(crate) spares: Spares,
    /// Emptied, for the next who collects wakers.
    pub(crate) wakes: Vec<Waker>,
}

impl<F> Line<F> {
    pub(crate) fn new() -> Self {
        Self { idle: AtomicBool::new(true), state: Mutex::new(None) }
    }

    /// Whether a send may call the kernel directly.
    pub(crate) fn is_idle(&self) -> bool {
        self.idle.load(Ordering::Acquire)
    }

    pub(crate) fn lock(&self) -> Guard<'_, F> {
        let mut state = self.lock_state();
        state.get_or_insert_with(|| {
            Box::new(State { lane: SendLane::new(), spares: Spares::default(), wakes: Vec::new() })
        });
        Guard { idle: &self.idle, state }
    }

    /// `None` if no send has ever waited.
    pub(crate) fn lock_if_used(&self) -> Option<Guard<'_, F>> {
        let state = self.lock_state();
        state.is_some().then(|| Guard { idle: &self.idle, state })
    }

    /// `None` if the lane is idle, as it is if no send has ever waited.
    pub(crate) fn lock_if_busy(&self) -> Option<Guard<'_, F>> {
        self.lock_if_used().filter(|state| !state.lane.is_idle())
    }

    /// For the next send that has to wait.
    pub(crate) fn spare(&self) -> Option<Box<Outgoing>> {
        self.lock_if_used()?.spares.take()
    }

    fn lock_state(&self) -> MutexGuard<'_, Option<Box<State<F>>>> {
        // The lane's methods do not panic half-way, and nothing foreign runs under this lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(crate) struct Guard<'a, F> {
    idle: &'a AtomicBool,
    /// `Some`.
    state: MutexGuard<'a, Option<Box<State<F>>>>,
}

impl<F> Deref for Guard<'_, F> {
    type Target = State<F>;

    fn deref(&self) -> &State<F> {
        self.state.as_ref().expect("made when it was locked")
    }
}

impl<F> DerefMut for Guard<'_, F> {
    fn deref_mut(&mut self) -> &mut State<F> {
        self.state.as_mut().expect("made when it was locked")
    }
}

impl<F> Drop for Guard<'_, F> {
    fn drop(&mut self) {
        let idle = self.lane.is_idle();
        // Direct sends read it all the time: no store that changes nothing.
        if self.idle.load(Ordering::Relaxed) != idle {
            self.idle.store(idle, Ordering::Release);
        }
    }
}
