//! Messages that a stream has received and not yielded, and whether there is a stream: what the other
//! receive calls of a socket ask first.

use std::collections::VecDeque;
use std::io;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use tokio::sync::{Mutex as AsyncMutex, MutexGuard as AsyncMutexGuard};

use crate::foreign;
use crate::stream::Message;

#[derive(Debug, Default)]
pub(crate) struct Backlog {
    /// There is a stream, or it has left messages.
    in_use: AtomicBool,
    queue: AsyncMutex<VecDeque<Message>>,
    /// The task that last called a `poll_*` function in vain. One, as with tokio's own.
    parked: Mutex<Option<Waker>>,
}

impl Backlog {
    pub(crate) fn is_in_use(&self) -> bool {
        self.in_use.load(Ordering::Acquire)
    }

    fn hold<'a>(&'a self, queue: AsyncMutexGuard<'a, VecDeque<Message>>) -> Held<'a> {
        Held { backlog: self, queue: Some(queue) }
    }

    fn parked(&self) -> MutexGuard<'_, Option<Waker>> {
        self.parked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For a stream, which holds it as long as it lives.
    ///
    /// # Errors
    /// `ResourceBusy` if there is one.
    pub(crate) fn reserve(&self) -> io::Result<Held<'_>> {
        let queue = self.queue.try_lock().map_err(|_| {
            io::Error::new(
                io::ErrorKind::ResourceBusy,
                "the socket has a stream of messages already, or a receive that takes what one left",
            )
        })?;
        self.in_use.store(true, Ordering::Release);
        Ok(self.hold(queue))
    }

    /// The first message that a stream has left; waits for the end of one that is there. `None` if
    /// there is none, and the kernel is to be asked.
    pub(crate) async fn next(&self) -> Option<Message> {
        self.hold(self.queue.lock().await).pop_front()
    }

    /// As [`next`](Self::next), now.
    ///
    /// # Errors
    /// `WouldBlock` while there is a stream.
    pub(crate) fn try_next(&self) -> io::Result<Option<Message>> {
        let queue = self.queue.try_lock().map_err(|_| io::ErrorKind::WouldBlock)?;
        Ok(self.hold(queue).pop_front())
    }

    /// Look at the first message that a stream has left.
    ///
    /// # Errors
    /// `WouldBlock` while there is a stream.
    pub(crate) fn try_peek<T>(&self, look: impl FnOnce(&Message) -> T) -> io::Result<Option<T>> {
        let queue = self.queue.try_lock().map_err(|_| io::ErrorKind::WouldBlock)?;
        Ok(self.hold(queue).front().map(look))
    }

    /// As [`next`](Self::next), or have the task woken when the stream ends.
    pub(crate) fn poll_next(&self, cx: &mut Context<'_>) -> Poll<Option<Message>> {
        self.poll_hold(cx).map(|mut queue| queue.pop_front())
    }

    /// Wait for the end of a stream. Whether it has left messages.
    pub(crate) fn poll_free(&self, cx: &mut Context<'_>) -> Poll<bool> {
        self.poll_hold(cx).map(|queue| !queue.is_empty())
    }

    fn poll_hold(&self, cx: &mut Context<'_>) -> Poll<Held<'_>> {
        let mut parked = self.parked();
        if let Ok(queue) = self.queue.try_lock() {
            drop(parked);
            return Poll::Ready(self.hold(queue));
        }
        // Whoever has it will look here when he has let go.
        let replaced = parked.replace(cx.waker().clone());
        drop(parked);
        drop(replaced);
        Poll::Pending
    }

    /// Whether a stream has left messages; `None` while there is one.
    pub(crate) fn try_free(&self) -> Option<bool> {
        self.queue.try_lock().ok().map(|queue| !queue.is_empty())
    }

    /// As [`poll_free`](Self::poll_free).
    pub(crate) async fn free(&self) -> bool {
        !self.queue.lock().await.is_empty()
    }
}

/// The queue, held; whoever waits is told when that is over.
#[derive(Debug)]
pub(crate) struct Held<'a> {
    backlog: &'a Backlog,
    /// `None` only while being dropped.
    queue: Option<AsyncMutexGuard<'a, VecDeque<Message>>>,
}

impl Deref for Held<'_> {
    type Target = VecDeque<Message>;

    fn deref(&self) -> &Self::Target {
        self.queue.as_deref().expect("only drop takes it")
    }
}

impl DerefMut for Held<'_> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        self.queue.as_deref_mut().expect("only drop takes it")
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.backlog.in_use.store(!self.is_empty(), Ordering::Release);
        self.queue = None;
        let waker = self.backlog.parked().take();
        if let Some(waker) = waker {
            foreign::wake(waker);
        }
    }
}
