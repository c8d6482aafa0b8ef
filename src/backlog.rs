//! Messages that a stream has received and not yielded, and whether there is a stream: what the other receive calls of a
//! socket ask first.

use std::collections::VecDeque;
use std::io;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use crate::common::idle_notify::{IdleNotify, IdleWakers, WakeList};
use crate::stream::Message;

#[derive(Debug, Default)]
pub(crate) struct Backlog {
    /// There is a stream, or it has left messages.
    in_use: AtomicBool,
    state: Mutex<State>,
    notify: IdleNotify,
}

#[derive(Debug, Default)]
struct State {
    /// There is a stream, which has the queue.
    held: bool,
    queue: VecDeque<Message>,
    waiting: IdleWakers,
}

impl Backlog {
    pub(crate) fn is_in_use(&self) -> bool {
        self.in_use.load(Ordering::Acquire)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing under this lock panics half-way or runs user code, but for cloning wakers.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For a stream, which holds it as long as it lives.
    ///
    /// # Errors
    /// `ResourceBusy` if there is one.
    pub(crate) fn reserve(&self) -> io::Result<Held<'_>> {
        let mut state = self.lock();
        if std::mem::replace(&mut state.held, true) {
            return Err(io::Error::new(
                io::ErrorKind::ResourceBusy,
                "the socket has a stream of messages already",
            ));
        }
        self.in_use.store(true, Ordering::Release);
        Ok(Held { backlog: self, queue: std::mem::take(&mut state.queue) })
    }

    /// The first message that a stream has left; waits for the end of one that is there. `None` if
    /// there is none: ask the kernel.
    pub(crate) async fn next(&self) -> Option<Message> {
        self.freed().await;
        self.pop(&mut self.lock())
    }

    /// As [`next`](Self::next), now.
    ///
    /// # Errors
    /// `WouldBlock` while there is a stream.
    pub(crate) fn try_next(&self) -> io::Result<Option<Message>> {
        let mut state = self.lock();
        if state.held { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(self.pop(&mut state)) }
    }

    fn pop(&self, state: &mut State) -> Option<Message> {
        if state.held {
            return None;
        }
        let next = state.queue.pop_front();
        self.in_use.store(!state.queue.is_empty(), Ordering::Release);
        next
    }

    /// Looks at the first message that a stream has left.
    ///
    /// # Errors
    /// `WouldBlock` while there is a stream.
    pub(crate) fn try_peek<T>(&self, look: impl FnOnce(&Message) -> T) -> io::Result<Option<T>> {
        let state = self.lock();
        if state.held {
            Err(io::ErrorKind::WouldBlock.into())
        } else {
            Ok(state.queue.front().map(look))
        }
    }

    /// As [`next`](Self::next), or the task is woken when the stream ends.
    pub(crate) fn poll_next(&self, cx: &mut Context<'_>) -> Poll<Option<Message>> {
        self.poll_held(cx).map(|mut state| self.pop(&mut state))
    }

    /// Waits for the end of a stream. Whether it has left messages.
    pub(crate) fn poll_free(&self, cx: &mut Context<'_>) -> Poll<bool> {
        self.poll_held(cx).map(|state| !state.queue.is_empty())
    }

    fn poll_held(&self, cx: &mut Context<'_>) -> Poll<MutexGuard<'_, State>> {
        let mut state = self.lock();
        if !state.held {
            return Poll::Ready(state);
        }
        let replaced = state.waiting.park(cx.waker());
        drop(state);
        drop(replaced);
        Poll::Pending
    }

    /// Whether a stream has left messages; `None` while there is one.
    pub(crate) fn try_free(&self) -> Option<bool> {
        let state = self.lock();
        (!state.held).then(|| !state.queue.is_empty())
    }

    /// As [`poll_free`](Self::poll_free).
    pub(crate) async fn free(&self) -> bool {
        self.freed().await;
        !self.lock().queue.is_empty()
    }

    async fn freed(&self) {
        loop {
            // Before the check: what ends in between is noticed.
            let notified = self.notify.notified();
            {
                let mut state = self.lock();
                if !state.held {
                    return;
                }
                state.waiting.announce();
            }
            notified.await;
        }
    }
}

/// The queue, held by a stream. Whatever waits is woken when that is over.
#[derive(Debug)]
pub(crate) struct Held<'a> {
    backlog: &'a Backlog,
    queue: VecDeque<Message>,
}

impl Deref for Held<'_> {
    type Target = VecDeque<Message>;

    fn deref(&self) -> &Self::Target {
        &self.queue
    }
}

impl DerefMut for Held<'_> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.queue
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let mut wakes = WakeList::default();
        {
            let mut state = self.backlog.lock();
            state.held = false;
            state.queue = std::mem::take(&mut self.queue);
            self.backlog.in_use.store(!state.queue.is_empty(), Ordering::Release);
            state.waiting.wake().collect(&self.backlog.notify, &mut wakes);
        }
        wakes.wake_all();
    }
}
