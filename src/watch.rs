//! Who wants to know when a lane settles, without standing in line: `poll_*` calls and readiness.

use std::task::Waker;

use tokio::sync::Notify;

use crate::foreign;

/// Kept by a lane, under its lock.
#[derive(Debug, Default)]
pub(crate) struct Watchers {
    /// The task that last called a `poll_*` function in vain. One, as with tokio's own.
    parked: Option<Waker>,
    /// Futures wait on the [`Notify`] beside the lane.
    announce: bool,
}

/// Whom to tell, after the lock is gone.
#[derive(Debug, Default)]
#[must_use]
pub(crate) struct Settled {
    parked: Option<Waker>,
    announce: bool,
}

impl Watchers {
    /// Have this task woken. Returns the waker that this replaces, to be dropped after the lock is
    /// gone.
    pub(crate) fn park(&mut self, waker: &Waker) -> Option<Waker> {
        match &self.parked {
            Some(known) if known.will_wake(waker) => None,
            _ => self.parked.replace(waker.clone()),
        }
    }

    /// Have everybody told who waits on the [`Notify`].
    pub(crate) fn announce(&mut self) {
        self.announce = true;
    }

    pub(crate) fn settled(&mut self) -> Settled {
        Settled { parked: self.parked.take(), announce: std::mem::take(&mut self.announce) }
    }
}

/// Completes when `check` has said yes, which may be over by then. A check that says no asks for the next
/// announcement.
pub(crate) async fn until(settled: &Notify, mut check: impl FnMut() -> bool) {
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
    pub(crate) fn tell(self, notify: &Notify) {
        if let Some(waker) = self.parked {
            foreign::wake(waker);
        }
        if self.announce {
            notify.notify_waiters();
        }
    }
}
