//! The send direction of a socket: the sends that wait, in the order of their first polls.
//!
//! Pure: makes no system call, takes no lock, wakes no task. Each method decides under the queue's lock, and returns what to
//! do once that is released ([`Effects`]).
//!
//! A send that has to wait hands in a payload of its own, and makes progress without being polled. A driver takes the first
//! one out, sends it ([`next`](SendQueue::next)), and continues until the peer's queue is full. One driver at a time does
//! so, on any worker, which keeps the order. A send that finds the queue idle may call the kernel directly.
//!
//! | state of a send | its message | when its future is dropped |
//! |---|---|---|
//! | `Waiting` | here | is never sent |
//! | `Taken` | the driver has it, in a batch or a system call | is sent whole or not at all; nothing overtakes it |
//! | `Done` | sent, or refused | the result is dropped |

use std::collections::VecDeque;
use std::io;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::task::Waker;

use slab::Slab;

use crate::common::idle_notify::{IdleWakers, PendingWakes, remember};
use crate::common::pending_send::{PendingSend, SparePayloads};
use crate::util::sync::{AtomicBool, Mutex, MutexGuard};

/// What to do after the lock is released.
#[derive(Debug)]
#[must_use]
pub(crate) struct Effects<P> {
    pub(crate) one: Option<Waker>,
    pub(crate) observers: PendingWakes,
    /// A payload to drop, or to keep as a spare.
    pub(crate) release: Option<P>,
    /// The waker of a send that has left, which is dropped.
    pub(crate) unused: Option<Waker>,
}

impl<P> Default for Effects<P> {
    fn default() -> Self {
        Self { one: None, observers: PendingWakes::default(), release: None, unused: None }
    }
}

/// What becomes of a send that is withdrawn.
#[derive(Debug)]
pub(crate) enum Withdrawn<P> {
    /// It has a result all the same.
    Done(io::Result<usize>, Option<P>),
    /// A driver has the payload. Ask again.
    Taken,
    /// It will never be sent.
    Unsent(Effects<P>),
}

#[derive(Debug)]
enum SendState<P> {
    Waiting(P),
    Taken,
    Done(io::Result<usize>, Option<P>),
}

#[derive(Debug)]
struct QueuedSend<P> {
    state: SendState<P>,
    waker: Option<Waker>,
    /// The future was dropped while the driver had the payload.
    abandoned: bool,
}

/// `P` is a payload.
#[derive(Debug)]
pub(crate) struct SendQueue<P> {
    sends: Slab<QueuedSend<P>>,
    /// The sends that wait, in the order of their first polls.
    order: VecDeque<usize>,
    /// A driver has taken the first out.
    taken: bool,
    /// The socket is in a worker's inbox, for its driver to send.
    listed: bool,
    /// A queued send was dropped before any driver had it: the next send asks the kernel at once.
    direct_next: bool,
    closed: bool,
    pub(crate) observers: IdleWakers,
}

impl<P> SendQueue<P> {
    pub(crate) fn new() -> Self {
        Self {
            sends: Slab::new(),
            order: VecDeque::new(),
            taken: false,
            listed: false,
            direct_next: false,
            closed: false,
            observers: IdleWakers::default(),
        }
    }

    /// Returns whether a send may call the kernel directly: no other is ahead of it.
    pub(crate) fn is_idle(&self) -> bool {
        (!self.taken || cfg!(planted = "two_sends")) && self.order.is_empty()
    }

    /// Returns whether a driver has taken one out.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn is_taken(&self) -> bool {
        self.taken
    }

    /// Returns how many sends wait.
    pub(crate) fn waiting(&self) -> usize {
        self.order.len()
    }

    /// Returns whether the next send has to ask the kernel at once, and resets that.
    pub(crate) fn take_direct_next(&mut self) -> bool {
        std::mem::take(&mut self.direct_next)
    }

    /// Joins the queue. The caller has found it not idle, or the peer's queue full, or leaves the send to the next batch.
    pub(crate) fn enqueue(&mut self, waker: &Waker, payload: P) -> usize {
        if cfg!(planted = "writer_overwritten") && self.observers.any() {
            drop(self.observers.park(waker));
        }
        let state = SendState::Waiting(payload);
        let slot =
            self.sends.insert(QueuedSend { state, waker: Some(waker.clone()), abandoned: false });
        self.order.push_back(slot);
        slot
    }

    /// Takes the result. If there is none, remembers the waker, and returns the one that it replaces.
    pub(crate) fn poll(
        &mut self,
        slot: usize,
        waker: &Waker,
    ) -> Result<(io::Result<usize>, Option<P>), Option<Waker>> {
        let Some(send) = self.sends.get_mut(slot) else { return Err(None) };
        if !matches!(send.state, SendState::Done(..)) {
            return Err(remember(&mut send.waker, waker));
        }
        match self.sends.remove(slot).state {
            SendState::Done(result, payload) => Ok((result, payload)),
            SendState::Waiting(_) | SendState::Taken => Err(None),
        }
    }

    /// Returns whether a send has been sent. `None` while a driver has it.
    pub(crate) fn has_gone_out(&self, slot: usize) -> Option<bool> {
        match &self.sends.get(slot)?.state {
            SendState::Waiting(_) => Some(false),
            SendState::Taken => None,
            SendState::Done(result, _) => Some(result.is_ok()),
        }
    }

    /// Notes that the future is dropped.
    pub(crate) fn cancel(&mut self, slot: usize) -> Effects<P> {
        let Some(send) = self.sends.get_mut(slot) else {
            return Effects::default();
        };
        let is_taken = matches!(send.state, SendState::Taken)
            || cfg!(planted = "drop_leaves_queued") && matches!(send.state, SendState::Waiting(_));
        if is_taken {
            send.abandoned = true;
            return Effects::default();
        }
        let QueuedSend { state, waker: unused, .. } = self.sends.remove(slot);
        let release = match state {
            SendState::Waiting(payload) => {
                self.order.retain(|waiting| *waiting != slot);
                self.direct_next |= self.order.is_empty();
                Some(payload)
            }
            SendState::Done(_, payload) => payload,
            SendState::Taken => None,
        };
        Effects { release, unused, ..self.after_one_left() }
    }

    /// Withdraws a send, whose caller wants its payload back.
    pub(crate) fn withdraw(&mut self, slot: usize) -> Withdrawn<P> {
        let state = self.sends.get(slot).map(|send| &send.state);
        match state {
            Some(SendState::Taken) => return Withdrawn::Taken,
            Some(SendState::Waiting(_)) | None => return Withdrawn::Unsent(self.cancel(slot)),
            Some(SendState::Done(..)) => {}
        }
        match self.sends.remove(slot).state {
            SendState::Done(result, payload) => Withdrawn::Done(result, payload),
            SendState::Waiting(_) | SendState::Taken => Withdrawn::Taken,
        }
    }

    /// Returns whether to list the socket in a worker's inbox: sends wait for a driver, and it is not listed yet.
    pub(crate) fn list(&mut self) -> bool {
        let list = !self.listed && !self.order.is_empty() && !self.taken && !self.closed;
        self.listed |= list;
        list
    }

    /// Notes that the driver has taken the socket from its inbox.
    pub(crate) fn unlist(&mut self) {
        self.listed = false;
    }

    /// Takes out the payload of the next send. The caller calls [`complete`](Self::complete) or
    /// [`put_back`](Self::put_back) afterwards.
    pub(crate) fn next(&mut self) -> Option<(usize, P)> {
        if self.taken || self.closed {
            return None;
        }
        let slot = self.order.pop_front()?;
        self.taken = true;
        match std::mem::replace(&mut self.sends[slot].state, SendState::Taken) {
            SendState::Waiting(payload) => Some((slot, payload)),
            other => {
                self.sends[slot].state = other;
                None
            }
        }
    }

    /// Puts a send back in front, since the peer's queue is full, unless its future was dropped meanwhile.
    pub(crate) fn put_back(&mut self, slot: usize, payload: P) -> Effects<P> {
        self.taken = false;
        if self.closed || self.sends[slot].abandoned {
            let unused = self.sends.remove(slot).waker;
            return Effects { release: Some(payload), unused, ..self.after_one_left() };
        }
        self.sends[slot].state = SendState::Waiting(payload);
        self.order.push_front(slot);
        Effects::default()
    }

    /// Completes a send with its result. Its payload, unless it has another use already, is for its future.
    pub(crate) fn complete(
        &mut self,
        slot: usize,
        payload: Option<P>,
        result: io::Result<usize>,
    ) -> Effects<P> {
        self.taken = false;
        let send = &mut self.sends[slot];
        if send.abandoned || self.closed {
            let unused = self.sends.remove(slot).waker;
            return Effects { release: payload, unused, ..self.after_one_left() };
        }
        send.state = SendState::Done(result, payload);
        let one = send.waker.take();
        Effects { one, ..self.after_one_left() }
    }

    /// Wakes every send that waits, because the runtime is gone. Each asks again, and gets an error.
    pub(crate) fn wake_all(&mut self, wakers: &mut Vec<Waker>) -> PendingWakes {
        self.listed = false;
        wakers.extend(self.sends.iter_mut().filter_map(|(_, send)| send.waker.take()));
        self.observers.wake()
    }

    /// Closes the queue. Sends that wait were forgotten. Returns their payloads and wakers, which are dropped after the lock is
    /// released.
    pub(crate) fn close(&mut self) -> (Vec<P>, Vec<Waker>) {
        self.closed = true;
        self.order.clear();
        let (mut payloads, mut wakers) = (Vec::new(), Vec::new());
        self.sends.retain(|_, send| {
            wakers.extend(send.waker.take());
            match std::mem::replace(&mut send.state, SendState::Taken) {
                SendState::Waiting(payload) => payloads.push(payload),
                SendState::Done(_, payload) => payloads.extend(payload),
                SendState::Taken => return true,
            }
            false
        });
        (payloads, wakers)
    }

    fn after_one_left(&mut self) -> Effects<P> {
        let observers =
            if self.is_idle() { self.observers.wake() } else { PendingWakes::default() };
        Effects { observers, ..Effects::default() }
    }
}

/// A socket's send queue and its spare payloads, under one lock. Whether the queue is idle can be read without the lock.
#[derive(Debug)]
pub(crate) struct SharedSendQueue {
    /// As the last holder of the lock left it. A send needs no more: a send that was queued before this call began has released
    /// the lock before that.
    idle: AtomicBool,
    /// Whether a send has ever waited.
    used: AtomicBool,
    /// Made with the first send that waits. Most sockets never have one.
    state: Mutex<Option<Box<SendDirection>>>,
}

#[derive(Debug)]
pub(crate) struct SendDirection {
    pub(crate) queue: SendQueue<Box<PendingSend>>,
    pub(crate) spares: SparePayloads,
}

impl SharedSendQueue {
    pub(crate) fn new() -> Self {
        Self { idle: AtomicBool::new(true), used: AtomicBool::new(false), state: Mutex::new(None) }
    }

    /// Returns whether a send may call the kernel directly.
    pub(crate) fn is_idle(&self) -> bool {
        self.idle.load(Ordering::Acquire)
    }

    pub(crate) fn lock(&self) -> Guard<'_> {
        let mut state = self.lock_state();
        state.get_or_insert_with(|| {
            // The lock has ordered this before every task that has to know: a send that waits parks after this.
            self.used.store(true, Ordering::Release);
            Box::new(SendDirection { queue: SendQueue::new(), spares: SparePayloads::default() })
        });
        Guard { idle: &self.idle, state }
    }

    /// Locks the queue, or returns `None` if no send has ever waited.
    pub(crate) fn lock_if_used(&self) -> Option<Guard<'_>> {
        if !self.used.load(Ordering::Acquire) {
            return None;
        }
        let state = self.lock_state();
        state.is_some().then(|| Guard { idle: &self.idle, state })
    }

    /// Returns a payload for the next send that has to wait, if one is kept.
    pub(crate) fn spare(&self) -> Option<Box<PendingSend>> {
        self.lock_if_used()?.spares.take()
    }

    fn lock_state(&self) -> MutexGuard<'_, Option<Box<SendDirection>>> {
        // The queue's methods do not panic half-way, and no user code runs under this lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(crate) struct Guard<'a> {
    idle: &'a AtomicBool,
    /// `Some`.
    state: MutexGuard<'a, Option<Box<SendDirection>>>,
}

impl std::ops::Deref for Guard<'_> {
    type Target = SendDirection;

    fn deref(&self) -> &SendDirection {
        self.state.as_ref().expect("made when it was locked")
    }
}

impl std::ops::DerefMut for Guard<'_> {
    fn deref_mut(&mut self) -> &mut SendDirection {
        self.state.as_mut().expect("made when it was locked")
    }
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        let idle = self.queue.is_idle();
        // Direct sends read it all the time, so a store that changes nothing is left out.
        if self.idle.load(Ordering::Relaxed) != idle {
            self.idle.store(idle, Ordering::Release);
        }
    }
}
