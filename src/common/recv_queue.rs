//! The receive direction of a socket, or the accepting of a listener: which receives wait, and what is done for them.
//!
//! Pure: makes no system call, takes no lock, wakes no task. Each method decides under the caller's lock, and returns what
//! to wake once the lock is released ([`Wakes`]).
//!
//! # Who receives
//!
//! A message goes to the receive that asks first. So a receive that is alive but not polled blocks no other. Waiters are
//! *woken* in the order of their first polls, one for each message. While something may be there and others wait, the
//! driver's next pass wakes the next ([`relay`](RecvQueue::relay)). So a waiter that does not come when it is woken does not
//! keep others from their messages.
//!
//! # Attempts
//!
//! On io_uring a receive can be an *attempt* that a driver makes for the socket in its next batch. An attempt belongs to no
//! waiter. Its message is *completed*, and the next receive that is polled claims it. The same holds for messages that a
//! stream leaves when it ends.
//!
//! | attempt | the message | a receive that is dropped |
//! |---|---|---|
//! | `None` | in the kernel, or completed | leaves; a completed message stays for the next receive |
//! | `Queued` | in the kernel | cancels the attempt if no other receive waits; so does one that is served otherwise |
//! | `Submitted` | unknown until the batch returns | leaves; the message is for the next receive |
//!
//! While an attempt is submitted or a message is unclaimed, no receive calls the kernel: it would get message 2 before
//! message 1.
//!
//! # Invariant
//!
//! A waiter with a stored waker is always followed by one of these:
//! - The socket is *parked*: registered for readiness, and nothing was there when it was.
//! - An attempt is queued or submitted.
//! - Something is *unseen*, and another waiter was woken or a relay is under way.
//!
//! The model in `backend/model` checks it after every step.

use std::task::Waker;

use crate::common::idle_notify::{IdleWakers, PendingWakes, remember};
use crate::common::wait_queue::{WaitQueue, WaiterId, WaiterIds};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Attempt {
    None,
    Queued,
    Submitted,
}

#[derive(Debug)]
struct Waiter {
    id: WaiterId,
    /// `None` once it was woken, until it is polled again.
    waker: Option<Waker>,
}

/// What to wake after the lock is released.
#[derive(Debug, Default)]
#[must_use]
pub(crate) struct Wakes {
    pub(crate) one: Option<Waker>,
    pub(crate) observers: PendingWakes,
    /// Whether a driver has to call [`RecvQueue::relay`] behind the tasks that are ready now.
    pub(crate) relay: bool,
    /// The waker of a receive that has left, which is dropped after the lock is released.
    pub(crate) unused: Option<Waker>,
}

impl Wakes {
    pub(crate) fn is_nothing(&self) -> bool {
        self.one.is_none() && !self.relay && self.observers.is_nothing() && self.unused.is_none()
    }
}

/// The outcome of a receive: a message, or an errno that is reported once.
pub(crate) type Outcome<M> = Result<M, i32>;

#[derive(Debug)]
pub(crate) struct RecvQueue<M> {
    waiters: WaitQueue<Waiter>,
    ids: WaiterIds,
    /// Received by an attempt, not claimed yet.
    completed: Option<Outcome<M>>,
    /// Received by a stream and not yielded, the first last. They come before `completed`.
    #[expect(clippy::box_collection, reason = "one pointer in each of many sockets")]
    left: Option<Box<Vec<Outcome<M>>>>,
    attempt: Attempt,
    /// The socket is in a worker's inbox for an attempt.
    listed: bool,
    /// Registered for readiness, which has not come since the kernel had nothing.
    parked: bool,
    /// Something may be in the kernel's queue, and no receive has asked for it.
    unseen: bool,
    relaying: bool,
    /// The next receive asks the kernel at once.
    direct_next: bool,
    closed: bool,
    pub(crate) observers: IdleWakers,
}

impl<M> RecvQueue<M> {
    pub(crate) fn new() -> Self {
        Self {
            waiters: WaitQueue::default(),
            ids: WaiterIds::default(),
            completed: None,
            left: None,
            attempt: Attempt::None,
            listed: false,
            parked: false,
            unseen: true,
            relaying: false,
            direct_next: false,
            closed: false,
            observers: IdleWakers::default(),
        }
    }

    // ----- receives -----

    /// Takes the first completed message or error, for the caller to claim.
    pub(crate) fn take_completed(&mut self) -> Option<Outcome<M>> {
        let left = self.left.as_mut().and_then(|left| left.pop());
        left.or_else(|| self.completed.take())
    }

    /// Returns the first completed message or error, and leaves it in place.
    pub(crate) fn completed(&self) -> Option<&Outcome<M>> {
        let left = self.left.as_ref().and_then(|left| left.last());
        left.or(self.completed.as_ref())
    }

    /// Returns whether an attempt is in a batch just now. The kernel must not be asked for another message then.
    pub(crate) fn is_submitted(&self) -> bool {
        self.attempt == Attempt::Submitted
    }

    /// Returns whether an attempt waits for the next batch.
    pub(crate) fn is_queued(&self) -> bool {
        self.attempt == Attempt::Queued
    }

    /// Returns whether the kernel is known to have nothing, and readiness will be reported.
    pub(crate) fn is_parked(&self) -> bool {
        self.parked && !self.unseen
    }

    /// Returns whether another receive waits to be woken. A receive that retries by itself registers for readiness first then:
    /// the others depend on it.
    pub(crate) fn has_other_waiters(&self, id: Option<WaiterId>) -> bool {
        self.waiters.front().is_some_and(|first| Some(first.id) != id || self.waiters.has_second())
    }

    /// Returns whether the next receive has to ask the kernel at once, and resets that.
    pub(crate) fn take_direct_next(&mut self) -> bool {
        std::mem::take(&mut self.direct_next)
    }

    /// Joins the queue, or stays in it, to be woken. Returns the waker that it replaces, which is dropped after the lock is
    /// released.
    pub(crate) fn wait(&mut self, id: &mut Option<WaiterId>, waker: &Waker) -> Option<Waker> {
        if cfg!(planted = "wake_overwritten") && self.observers.any() {
            drop(self.observers.park(waker));
        }
        remember(&mut self.join(id).waker, waker)
    }

    /// Joins the queue, or stays in it, without being woken: the receive is polled again by itself.
    pub(crate) fn retry(&mut self, id: &mut Option<WaiterId>) -> Option<Waker> {
        self.join(id).waker.take()
    }

    fn join(&mut self, id: &mut Option<WaiterId>) -> &mut Waiter {
        let wanted = *id.get_or_insert_with(|| self.ids.next());
        // Most queues have one waiter at most.
        if self.waiters.front().is_some_and(|first| first.id == wanted) {
            return self.waiters.front_mut().expect("looked at above");
        }
        if !self.waiters.iter().any(|waiter| waiter.id == wanted) {
            self.waiters.push_back(Waiter { id: wanted, waker: None });
        }
        self.waiters.iter_mut().find(|waiter| waiter.id == wanted).expect("found or pushed above")
    }

    /// Removes a receive that has a message or an error. There may be more for the next.
    pub(crate) fn served(&mut self, id: &mut Option<WaiterId>) -> Wakes {
        let unused = self.remove(id).and_then(|waiter| waiter.waker);
        self.unseen = true;
        let wakes = match self.cancel_for_none() {
            Some(observers) => Wakes { observers, ..Wakes::default() },
            None => self.wake_next(),
        };
        Wakes { unused, ..wakes }
    }

    /// Cancels a queued attempt after the last waiter has left, since no receive waits for its message. Returns `None` if there
    /// is no such attempt.
    fn cancel_for_none(&mut self) -> Option<PendingWakes> {
        if !self.waiters.is_empty() || !self.is_queued() || cfg!(planted = "cancel_lost") {
            return None;
        }
        self.attempt = Attempt::None;
        // They may have relied on the attempt.
        Some(self.observers.wake())
    }

    /// Removes a receive that leaves without a message: dropped, or failed.
    ///
    /// What it was woken for is for the next receive. If it never asked the kernel, the next one does so at once: a loop of
    /// receives that are dropped after one poll must get its message.
    pub(crate) fn leave(&mut self, id: &mut Option<WaiterId>, has_asked: bool) -> Wakes {
        let Some(Waiter { waker: unused, .. }) = self.remove(id) else { return Wakes::default() };
        self.direct_next |= !has_asked;
        if let Some(observers) = self.cancel_for_none() {
            return Wakes { observers, unused, ..Wakes::default() };
        }
        if unused.is_none() && self.has_something() {
            return self.wake_next();
        }
        Wakes { unused, ..Wakes::default() }
    }

    /// Notes that the kernel had nothing.
    pub(crate) fn found_nothing(&mut self) {
        self.unseen = false;
    }

    /// Notes that the socket is registered for readiness, and that the kernel had nothing when it was last asked.
    pub(crate) fn park(&mut self) {
        (self.parked, self.unseen) = (true, false);
    }

    /// Returns whether a receive or observer waits for readiness. If not, the socket counts as not parked from now on.
    pub(crate) fn unpark(&mut self) -> bool {
        let waits = !self.waiters.is_empty() || self.observers.any();
        self.parked &= waits;
        waits
    }

    // ----- readiness and the driver -----

    /// Notes that readiness has come, and wakes the next waiter and the observers.
    pub(crate) fn signal(&mut self) -> Wakes {
        (self.parked, self.unseen) = (false, true);
        let observers = self.observers.wake();
        Wakes { observers, ..self.wake_next() }
    }

    /// Notes that readiness has come, where an attempt will be queued for the waiters. Only observers are woken.
    pub(crate) fn signal_observers(&mut self) -> Wakes {
        (self.parked, self.unseen) = (false, true);
        Wakes { observers: self.observers.wake(), ..Wakes::default() }
    }

    /// Wakes the next waiter, behind the tasks that were ready, if what the last was woken for is still there.
    pub(crate) fn relay(&mut self) -> Wakes {
        self.relaying = false;
        if self.has_something() { self.wake_next() } else { Wakes::default() }
    }

    /// Queues an attempt for the next batch. Returns whether the socket has to be listed for it in a worker's inbox.
    pub(crate) fn queue_attempt(&mut self) -> bool {
        let has_message = self.completed().is_some() && !cfg!(planted = "completed_overwritten");
        if self.attempt != Attempt::None || has_message || self.closed {
            return false;
        }
        self.attempt = Attempt::Queued;
        !std::mem::replace(&mut self.listed, true)
    }

    /// Returns whether some receive waits.
    pub(crate) fn has_waiters(&self) -> bool {
        !self.waiters.is_empty()
    }

    /// Notes that the driver has taken the socket from its inbox. Returns whether to submit an attempt.
    pub(crate) fn submit(&mut self) -> bool {
        self.listed = false;
        let wanted = self.is_queued();
        if wanted {
            debug_assert!(self.completed.is_none() && !self.closed);
            self.attempt = Attempt::Submitted;
        }
        wanted
    }

    /// Completes the submitted attempt with a message or an error. Returns the outcome, for the caller to drop, if the socket is
    /// closed.
    pub(crate) fn complete(&mut self, outcome: Outcome<M>) -> (Wakes, Option<Outcome<M>>) {
        self.attempt = Attempt::None;
        if self.closed || cfg!(planted = "completed_after_drop") && self.waiters.is_empty() {
            return (Wakes::default(), Some(outcome));
        }
        debug_assert!(self.completed.is_none(), "one message at a time");
        self.completed = Some(outcome);
        // There may be more behind it.
        self.unseen = true;
        let observers = self.observers.wake();
        (Wakes { observers, ..self.wake_next() }, None)
    }

    /// Keeps messages that a stream has received and not yielded when it ended. The next receives claim them. No receive has had
    /// a later message, except for one that waits since before the stream.
    pub(crate) fn leave_messages(&mut self, messages: impl DoubleEndedIterator<Item = M>) -> Wakes {
        let mut messages = messages.rev().map(Ok).peekable();
        if messages.peek().is_none() {
            return Wakes::default();
        }
        self.left.get_or_insert_default().extend(messages);
        self.unseen = true;
        if cfg!(planted = "left_unheard") {
            return Wakes::default();
        }
        let observers = self.observers.wake();
        Wakes { observers, ..self.wake_next() }
    }

    /// Ends the submitted attempt without a message. `asked` says whether the kernel was asked and had nothing.
    pub(crate) fn attempt_over(&mut self, asked: bool) {
        self.attempt = Attempt::None;
        if asked {
            self.unseen = false;
        }
    }

    /// Wakes one waiter, which has to ask the kernel by itself, and all observers.
    pub(crate) fn hand_over(&mut self) -> Wakes {
        if cfg!(planted = "attempt_forgotten") {
            return Wakes::default();
        }
        self.unseen = true;
        self.direct_next = true;
        let observers = self.observers.wake();
        Wakes { observers, ..self.wake_next() }
    }

    /// Wakes everything that waits, because the runtime is gone. It asks again, and gets an error.
    pub(crate) fn wake_all(&mut self, wakers: &mut Vec<Waker>) -> PendingWakes {
        if self.is_queued() {
            self.attempt = Attempt::None;
        }
        (self.listed, self.relaying, self.unseen) = (false, false, true);
        wakers.extend(self.waiters.iter_mut().filter_map(|waiter| waiter.waker.take()));
        self.observers.wake()
    }

    /// Closes the queue. Waiters are receives that were forgotten. Returns the unclaimed messages.
    pub(crate) fn close(&mut self) -> impl Iterator<Item = Outcome<M>> + use<M> {
        self.closed = true;
        if self.is_queued() && !cfg!(planted = "cancel_lost") {
            self.attempt = Attempt::None;
        }
        let left = self.left.take().into_iter().flat_map(|left| left.into_iter().rev());
        left.chain(self.completed.take())
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Returns whether waiters are left that nothing will wake, after a call that found nothing. The caller parks the socket
    /// then.
    pub(crate) fn needs_parking(&self) -> bool {
        !self.parked
            && !self.unseen
            && self.attempt == Attempt::None
            && self.waiters.iter().any(|waiter| waiter.waker.is_some())
    }

    /// Returns whether a waiter relies on being woken.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn has_sleeping_waiter(&self) -> bool {
        self.waiters.iter().any(|waiter| waiter.waker.is_some())
    }

    #[cfg(any(test, fuzzing))]
    pub(crate) fn is_relaying(&self) -> bool {
        self.relaying
    }

    /// Returns whether a waiter may find something that no attempt is going to find.
    fn has_something(&self) -> bool {
        self.completed().is_some() || self.unseen && self.attempt == Attempt::None
    }

    fn remove(&mut self, id: &mut Option<WaiterId>) -> Option<Waiter> {
        let id = id.take()?;
        let at = self.waiters.iter().position(|waiter| waiter.id == id)?;
        self.waiters.remove(at)
    }

    fn wake_next(&mut self) -> Wakes {
        if cfg!(planted = "next_not_woken") && self.waiters.iter().count() > 1 {
            return Wakes::default();
        }
        let mut sleeping = self.waiters.iter_mut().filter(|waiter| waiter.waker.is_some());
        let one = sleeping.next().and_then(|waiter| waiter.waker.take());
        let relay = one.is_some()
            && sleeping.next().is_some()
            && !self.relaying
            && !cfg!(planted = "relay_lost");
        self.relaying |= relay;
        Wakes { one, relay, ..Wakes::default() }
    }
}
