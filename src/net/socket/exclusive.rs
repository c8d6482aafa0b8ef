//! [`Exclusive`]: whether a stream has a socket's messages to itself. Other receive calls check it
//! first.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use crate::common::idle_notify::{IdleNotify, IdleWakers, WakeList};

/// Whether a stream has claimed the socket's messages, and the tasks that wait for its end.
#[derive(Debug, Default)]
pub(crate) struct Exclusive {
    /// Changes only under the lock of `waiting`.
    claimed: AtomicBool,
    waiting: Mutex<IdleWakers>,
    notify: IdleNotify,
}

impl Exclusive {
    pub(crate) fn is_claimed(&self) -> bool {
        self.claimed.load(Ordering::Acquire)
    }

    fn lock(&self) -> MutexGuard<'_, IdleWakers> {
        // No code under this lock panics half-way. No user code runs under it, except to clone
        // wakers.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Claims the messages for a stream, until [`release`](Self::release).
    ///
    /// # Errors
    /// `ResourceBusy` if another stream has claimed them.
    pub(crate) fn claim(&self) -> io::Result<()> {
        let _waiting = self.lock();
        if self.claimed.swap(true, Ordering::AcqRel) {
            return Err(io::Error::new(
                io::ErrorKind::ResourceBusy,
                "the socket has a stream of messages already",
            ));
        }
        Ok(())
    }

    /// Ends the claim of the stream, and wakes all tasks that wait for that.
    pub(crate) fn release(&self) {
        let mut wakes = WakeList::default();
        {
            let mut waiting = self.lock();
            self.claimed.store(false, Ordering::Release);
            waiting.wake().collect(&self.notify, &mut wakes);
        }
        wakes.wake_all();
    }

    /// Polls for the end of the current stream, and wakes the task then.
    pub(crate) fn poll_freed(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut waiting = self.lock();
        if !self.is_claimed() {
            return Poll::Ready(());
        }
        let replaced = waiting.park(cx.waker());
        drop(waiting);
        drop(replaced);
        Poll::Pending
    }

    /// Waits for the end of the current stream.
    pub(crate) async fn freed(&self) {
        loop {
            // Created before the check, so that an end in between is noticed.
            let notified = self.notify.notified();
            {
                let mut waiting = self.lock();
                if !self.is_claimed() {
                    return;
                }
                waiting.announce();
            }
            notified.await;
        }
    }
}
