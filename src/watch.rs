//! Who wants to know when a lane settles, without standing in line: `poll_*` calls and readiness.
//! Few sockets have any, so what they need is made with the first of them.

use std::sync::{Arc, OnceLock};
use std::task::Waker;

use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use crate::foreign;

/// Kept by a lane, under its lock.
#[derive(Debug, Default)]
pub(crate) struct Watchers(Option<Box<Watching>>);

#[derive(Debug, Default)]
struct Watching {
    /// The task that last called a `poll_*` function in vain. One, as with tokio's own.
    parked: Option<Waker>,
    /// Futures wait on the [`Bell`] beside the lane.
    announce: bool,
}

/// Whom to tell, after the lock is gone.
#[derive(Debug, Default)]
#[must_use]
pub(crate) struct Settled {
    parked: Option<Waker>,
    announce: bool,
}

/// What futures wait on, beside the lanes of a socket.
#[derive(Debug, Default)]
pub(crate) struct Bell(OnceLock<Arc<Notify>>);

impl Bell {
    /// The future is to be made before the lane is asked to [`announce`](Watchers::announce).
    pub(crate) fn notified(&self) -> Notified<'_> {
        self.0.get_or_init(Arc::default).notified()
    }

    /// For the models, which keep those who wait.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn notified_owned(&self) -> tokio::sync::futures::OwnedNotified {
        self.0.get_or_init(Arc::default).clone().notified_owned()
    }

    fn ring(&self) {
        if let Some(notify) = self.0.get() {
            notify.notify_waiters();
        }
    }
}

impl Watchers {
    /// Have this task woken. Returns the waker that this replaces, to be dropped after the lock is
    /// gone.
    pub(crate) fn park(&mut self, waker: &Waker) -> Option<Waker> {
        let parked = &mut self.0.get_or_insert_default().parked;
        match parked {
            Some(known) if known.will_wake(waker) => None,
            _ => parked.replace(waker.clone()),
        }
    }

    /// Have everybody told who waits on the [`Bell`].
    pub(crate) fn announce(&mut self) {
        self.0.get_or_insert_default().announce = true;
    }

    pub(crate) fn settled(&mut self) -> Settled {
        let Some(watching) = &mut self.0 else { return Settled::default() };
        Settled { parked: watching.parked.take(), announce: std::mem::take(&mut watching.announce) }
    }
}

/// Completes when `check` has said yes, which may be over by then. A check that says no asks for the next
/// announcement.
pub(crate) async fn until(settled: &Bell, mut check: impl FnMut() -> bool) {
    loop {
        // Before the check: what settles in between is noticed.
        let notified = settled.notified();
        if check() {
            return;
        }
        notified.await;
    }
}

impl Settled {
    pub(crate) fn tell(self, bell: &Bell) {
        if let Some(waker) = self.parked {
            foreign::wake(waker);
        }
        if self.announce {
            bell.ring();
        }
    }
}
