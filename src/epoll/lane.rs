//! One direction of one socket: who may call the kernel now.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
use std::task::{Context, Poll, Waker};

use tokio::sync::futures::Notified;
use tokio::sync::{Notify, Semaphore, SemaphorePermit};

/// A direction of a socket. The turn is the only permit of a fair semaphore: waiters get it in the
/// order in which they first asked, and whoever asks without waiting gets it only when nobody waits.
#[derive(Debug)]
pub(super) struct Lane {
    turn: Semaphore,
    /// Tasks in a `poll_*` call that found the lane busy.
    parked: Mutex<Option<Waker>>,
    has_parked: AtomicBool,
    /// Futures that wait for the lane to become idle (`readable` and the like).
    settled: Notify,
    watchers: AtomicUsize,
}

/// The right to call the kernel in this direction, until dropped.
pub(super) struct Turn<'a> {
    lane: &'a Lane,
    permit: Option<SemaphorePermit<'a>>,
}

impl Lane {
    pub(super) fn new() -> Self {
        Self {
            turn: Semaphore::new(1),
            parked: Mutex::new(None),
            has_parked: AtomicBool::new(false),
            settled: Notify::new(),
            watchers: AtomicUsize::new(0),
        }
    }

    /// Wait for the turn, first polled, first served.
    pub(super) async fn turn(&self) -> Turn<'_> {
        if let Some(turn) = self.try_turn() {
            return turn;
        }
        let permit = self.turn.acquire().await;
        self.taken(permit.expect("the lane's semaphore is never closed"))
    }

    /// The turn, if nobody has it or waits for it.
    pub(super) fn try_turn(&self) -> Option<Turn<'_>> {
        Some(self.taken(self.turn.try_acquire().ok()?))
    }

    /// The turn, or a wake-up for this task once the lane is idle. As with tokio's `poll_*`
    /// functions, only the last task that called is woken.
    pub(super) fn poll_turn(&self, cx: &mut Context<'_>) -> Poll<Turn<'_>> {
        if let Some(turn) = self.try_turn() {
            return Poll::Ready(turn);
        }
        let replaced = {
            let mut parked = self.parked.lock().expect("no panic under this lock");
            self.has_parked.store(true, Ordering::Relaxed);
            parked.replace(cx.waker().clone())
        };
        drop(replaced);
        // Pairs with the fence in `Turn::drop`: either the turn's holder sees `has_parked`, or this
        // task sees the turn given back.
        fence(Ordering::SeqCst);
        match self.try_turn() {
            Some(turn) => Poll::Ready(turn),
            None => Poll::Pending,
        }
    }

    pub(super) fn is_idle(&self) -> bool {
        self.turn.available_permits() > 0
    }

    /// Complete when the lane has become idle, which may be over by then.
    pub(super) async fn settled(&self) {
        struct Watch<'a>(&'a AtomicUsize);
        impl Drop for Watch<'_> {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::Relaxed);
            }
        }
        self.watchers.fetch_add(1, Ordering::Relaxed);
        let _watch = Watch(&self.watchers);
        // From its creation on a Notified is told by notify_waiters.
        let notified: Notified<'_> = self.settled.notified();
        fence(Ordering::SeqCst);
        if !self.is_idle() {
            notified.await;
        }
    }

    fn taken<'a>(&'a self, permit: SemaphorePermit<'a>) -> Turn<'a> {
        Turn { lane: self, permit: Some(permit) }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        // Goes to the first waiter, if there is one.
        drop(self.permit.take());
        fence(Ordering::SeqCst);
        let lane = self.lane;
        let has_parked = lane.has_parked.load(Ordering::Relaxed);
        let has_watchers = lane.watchers.load(Ordering::Relaxed) > 0;
        if (has_parked || has_watchers) && lane.is_idle() {
            let parked = {
                let mut parked = lane.parked.lock().expect("no panic under this lock");
                lane.has_parked.store(false, Ordering::Relaxed);
                parked.take()
            };
            lane.settled.notify_waiters();
            if let Some(waker) = parked {
                waker.wake();
            }
        }
    }
}
