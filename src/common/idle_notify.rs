//! Wakes callers when a direction may have something for them, without a place in its wait queue: `poll_*` calls and waits
//! for readiness. Few sockets have any. Memory for them is allocated with the first.

use std::sync::{Arc, OnceLock};
use std::task::Waker;

use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use crate::util::catch_panic;

/// Kept by a queue, under its lock.
#[derive(Debug, Default)]
pub(crate) struct IdleWakers(Option<Box<Waiting>>);

#[derive(Debug, Default)]
struct Waiting {
    /// The task that called a `poll_*` function last. One, as for tokio's own sockets.
    parked: Option<Waker>,
    /// The task that polled a stream last. The task in `parked` waits for more than the stream's messages.
    stream: Option<Waker>,
    /// Futures wait on the [`IdleNotify`] beside the queue.
    announce: bool,
}

/// What to wake after the lock is released.
#[derive(Debug, Default)]
#[must_use]
pub(crate) struct PendingWakes {
    parked: Option<Waker>,
    stream: Option<Waker>,
    announce: bool,
}

/// What futures wait on, beside the queues of a socket.
#[derive(Debug, Default)]
pub(crate) struct IdleNotify(OnceLock<Arc<Notify>>);

impl IdleNotify {
    /// Returns a future that completes with any [`announce`](IdleWakers::announce) from now on. It is created before the
    /// queue is asked to announce.
    pub(crate) fn notified(&self) -> Notified<'_> {
        self.0.get_or_init(Arc::default).notified()
    }

    /// Returns the same future for the model, which stores it.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn notified_owned(&self) -> tokio::sync::futures::OwnedNotified {
        self.0.get_or_init(Arc::default).clone().notified_owned()
    }
}

impl IdleWakers {
    /// Registers the task of a `poll_*` call. Returns the waker that it replaces, which is dropped after the lock is released.
    pub(crate) fn park(&mut self, waker: &Waker) -> Option<Waker> {
        remember(&mut self.0.get_or_insert_default().parked, waker)
    }

    /// Registers the task that polls a stream. Otherwise as [`park`](Self::park).
    pub(crate) fn park_stream(&mut self, waker: &Waker) -> Option<Waker> {
        remember(&mut self.0.get_or_insert_default().stream, waker)
    }

    /// Makes the next [`wake`](Self::wake) notify all futures that wait on the [`IdleNotify`].
    pub(crate) fn announce(&mut self) {
        self.0.get_or_insert_default().announce = true;
    }

    /// Returns whether a task or future waits to be woken.
    pub(crate) fn any(&self) -> bool {
        self.0.as_ref().is_some_and(|waiting| {
            waiting.parked.is_some() || waiting.stream.is_some() || waiting.announce
        })
    }

    /// Takes the wakers out, to wake them after the lock is released.
    pub(crate) fn wake(&mut self) -> PendingWakes {
        let Some(watching) = &mut self.0 else { return PendingWakes::default() };
        PendingWakes {
            parked: watching.parked.take(),
            stream: watching.stream.take(),
            announce: std::mem::take(&mut watching.announce),
        }
    }
}

/// Keeps the waker of the task that polled last. Returns the one that it replaces, which is dropped after the lock is
/// released.
pub(crate) fn remember(known: &mut Option<Waker>, waker: &Waker) -> Option<Waker> {
    match known {
        Some(known) if known.will_wake(waker) => None,
        known => known.replace(waker.clone()),
    }
}

impl PendingWakes {
    pub(crate) fn is_nothing(&self) -> bool {
        self.parked.is_none() && self.stream.is_none() && !self.announce
    }

    pub(crate) fn collect(self, notify: &IdleNotify, into: &mut WakeList) {
        into.push(self.parked);
        into.push(self.stream);
        if self.announce {
            into.notify.extend(notify.0.get().cloned());
        }
    }
}

/// Tasks to wake once no lock is held and no socket is kept.
#[derive(Debug, Default)]
pub(crate) struct WakeList {
    /// Before `wakers`. Often the only one, which needs no allocation here.
    first: Option<Waker>,
    pub(crate) wakers: Vec<Waker>,
    notify: Vec<Arc<Notify>>,
}

impl WakeList {
    pub(crate) fn push(&mut self, waker: Option<Waker>) {
        if self.first.is_none() && self.wakers.is_empty() {
            self.first = waker;
        } else {
            self.wakers.extend(waker);
        }
    }

    pub(crate) fn wake_all(&mut self) {
        self.first.take().into_iter().for_each(catch_panic::wake);
        self.wakers.drain(..).for_each(catch_panic::wake);
        self.notify.drain(..).for_each(|notify| catch_panic::announce(&notify));
    }
}
