//! Whether a stream has a socket's messages to itself: what other receive calls look at first.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use crate::common::idle_notify::{IdleNotify, IdleWakers, WakeList};

#[derive(Debug, Default)]
pub(crate) struct Exclusive {
    /// Changes under the lock of `waiting`.
    claimed: AtomicBool,
    waiting: Mutex<IdleWakers>,
    notify: IdleNotify,
}

impl Exclusive {
    pub(crate) fn is_claimed(&self) -> bool {
        self.claimed.load(Ordering::Acquire)
    }

    fn lock(&self) -> MutexGuard<'_, IdleWakers> {
        // Nothing under this lock panics half-way or runs user code, but for cloning wakers.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For a stream, as long as it lives.
    ///
    /// # Errors
    /// `ResourceBusy` if there is one.
    pub(crate) fn claim(&self) -> io::Result<Claim<'_>> {
        let _waiting = self.lock();
        if self.claimed.swap(true, Ordering::AcqRel) {
            return Err(io::Error::new(
                io::ErrorKind::ResourceBusy,
                "the socket has a stream of messages already",
            ));
        }
        Ok(Claim { exclusive: self })
    }

    /// Waits for the end of a stream that is there, or has the task woken then.
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

    /// As [`poll_freed`](Self::poll_freed).
    pub(crate) async fn freed(&self) {
        loop {
            // Before the check: what ends in between is noticed.
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

/// Held by a stream. Whatever waits is woken when that is over.
#[derive(Debug)]
pub(crate) struct Claim<'a> {
    exclusive: &'a Exclusive,
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        let mut wakes = WakeList::default();
        {
            let mut waiting = self.exclusive.lock();
            self.exclusive.claimed.store(false, Ordering::Release);
            waiting.wake().collect(&self.exclusive.notify, &mut wakes);
        }
        wakes.wake_all();
    }
}
