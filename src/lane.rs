//! The send direction of a socket: the state machine, and the vocabulary it shares with the receive
//! direction of a ring. Pure: knows no kernel, takes no lock, wakes nobody. Every method decides and
//! says what is to be done; the caller does it without the lock.
//!
//! A send that has to wait hands in a payload of its own and stands in line. Whoever finds room in the
//! peer's queue sends for all who wait, in order: the completion of the one operation in flight on a
//! ring, on epoll the first in line when epoll wakes him.

use std::collections::VecDeque;
use std::io;
use std::task::Waker;

use slab::Slab;

use crate::foreign;
use crate::watch::{Bell, Settled, Watchers};

/// What to submit for a lane.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Nothing,
    /// Submit an operation: for a receive the first waiter's, for a send the first in order.
    Submit,
    /// Cancel the operation with this key; nobody wants it any more.
    Cancel(u64),
}

/// What is to be done after the lock is gone.
#[derive(Debug)]
#[must_use]
pub(crate) struct After<T> {
    /// Tasks to wake.
    pub(crate) wake: Wakers,
    /// Put the lane on a shard's list (`queued` has been set).
    pub(crate) attend: bool,
    /// Something to drop, or to give back to the pool.
    pub(crate) release: Option<T>,
}

impl<T> Default for After<T> {
    fn default() -> Self {
        Self { wake: Wakers::default(), attend: false, release: None }
    }
}

/// Whom to wake: one caller, and those who watch for the lane to settle.
#[derive(Debug, Default)]
pub(crate) struct Wakers {
    pub(crate) one: Option<Waker>,
    pub(crate) settled: Settled,
}

impl Wakers {
    pub(crate) fn wake(self, bell: &Bell) {
        if let Some(waker) = self.one {
            foreign::wake(waker);
        }
        self.settled.tell(bell);
    }
}

/// How an operation ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome<T> {
    /// The kernel did it.
    Done(T),
    /// It failed, and that is an answer for the caller.
    Failed(i32),
    /// `-ECANCELED` or `-EAGAIN`: nothing was received or sent. Not an answer: a cancel may have come
    /// from nobody (the submitting thread ended).
    Void,
}

/// What a send that gives up waiting comes to.
#[derive(Debug)]
pub(crate) enum Withdrawn<P> {
    /// It has a result all the same.
    Settled(io::Result<usize>, Option<P>),
    /// Somebody has the payload: the kernel, or who sends it just now. To be asked again.
    Lent,
    /// It will never be sent. The payload is to be released.
    Unsent(After<P>),
}

/// Keep the waker of the task that polled last. The one it replaces is for the caller to drop.
pub(crate) fn remember(known: &mut Option<Waker>, waker: &Waker) -> Option<Waker> {
    match known {
        Some(known) if known.will_wake(waker) => None,
        known => known.replace(waker.clone()),
    }
}

#[derive(Debug)]
enum Sending<P> {
    /// In `order`, its payload not yet lent to the kernel.
    Waiting(P),
    /// The kernel has it.
    InFlight,
    /// Settled, for the caller to fetch.
    Settled(io::Result<usize>, Option<P>),
}

#[derive(Debug)]
struct Send<P> {
    state: Sending<P>,
    waker: Option<Waker>,
    abandoned: bool,
}

/// The send lane. `P` is a payload, `F` the same in flight.
#[derive(Debug)]
pub(crate) struct SendLane<P, F> {
    sends: Slab<Send<P>>,
    /// Those that wait, in the order of their first poll.
    order: VecDeque<usize>,
    in_flight: Option<SendInFlight<F>>,
    /// Somebody has taken the next out, and is sending it directly.
    taken: bool,
    queued: bool,
    closed: bool,
    watchers: Watchers,
}

#[derive(Debug)]
struct SendInFlight<F> {
    key: u64,
    slot: usize,
    payload: F,
    cancelling: bool,
}

impl<P, F> SendLane<P, F> {
    pub(crate) fn new() -> Self {
        Self {
            sends: Slab::new(),
            order: VecDeque::new(),
            in_flight: None,
            taken: false,
            queued: false,
            closed: false,
            watchers: Watchers::default(),
        }
    }

    /// Whether a send may call the kernel directly: none is in flight and none waits. Direct calls
    /// need no turn among themselves: whose polls overlap have no order to keep.
    pub(crate) fn is_idle(&self) -> bool {
        let in_flight = self.in_flight.is_some() && !cfg!(planted = "two_sends");
        !in_flight && !self.taken && self.order.is_empty()
    }

    /// Join the queue. The caller has found the lane not idle, or the kernel's queue full.
    pub(crate) fn enqueue(&mut self, waker: &Waker, payload: P) -> (usize, After<P>) {
        let state = Sending::Waiting(payload);
        let slot = self.sends.insert(Send { state, waker: Some(waker.clone()), abandoned: false });
        self.order.push_back(slot);
        (slot, After { attend: self.wants_attention(), ..After::default() })
    }

    /// Fetch the result; else remember the waker, and return the one which that replaces.
    pub(crate) fn poll(
        &mut self,
        slot: usize,
        waker: &Waker,
    ) -> Result<(io::Result<usize>, Option<P>), Option<Waker>> {
        let Some(send) = self.sends.get_mut(slot) else { return Err(None) };
        if !matches!(send.state, Sending::Settled(..)) {
            return Err(remember(&mut send.waker, waker));
        }
        match self.sends.remove(slot).state {
            Sending::Settled(result, payload) => Ok((result, payload)),
            Sending::Waiting(_) | Sending::InFlight => Err(None),
        }
    }

    /// A caller leaves. What the kernel does not have is returned to be dropped and will never be
    /// sent; what it has is cancelled.
    pub(crate) fn forget(&mut self, slot: usize) -> After<P> {
        let Some(send) = self.sends.get_mut(slot) else {
            return After::default();
        };
        if let Sending::InFlight = send.state {
            send.abandoned = true;
            return After { attend: self.wants_attention(), ..After::default() };
        }
        let release = match self.sends.remove(slot).state {
            Sending::Waiting(payload) => {
                self.order.retain(|waiting| *waiting != slot);
                Some(payload)
            }
            Sending::Settled(_, payload) => payload,
            Sending::InFlight => None,
        };
        After { release, ..self.settled() }
    }

    /// A caller gives up, and is to have his payload back. One step: between two, whoever sends for
    /// those who wait may take it out.
    pub(crate) fn withdraw(&mut self, slot: usize) -> Withdrawn<P> {
        let state = self.sends.get(slot).map(|send| &send.state);
        match state {
            Some(Sending::InFlight) => return Withdrawn::Lent,
            Some(Sending::Waiting(_)) | None => return Withdrawn::Unsent(self.forget(slot)),
            Some(Sending::Settled(..)) => {}
        }
        match self.sends.remove(slot).state {
            Sending::Settled(result, payload) => Withdrawn::Settled(result, payload),
            Sending::Waiting(_) | Sending::InFlight => Withdrawn::Lent,
        }
    }

    /// What to submit now. Clears `queued`.
    pub(crate) fn attend(&mut self) -> Step {
        self.queued = false;
        match &mut self.in_flight {
            None if !self.order.is_empty() && !self.taken && !self.closed => Step::Submit,
            Some(flight) if !flight.cancelling => {
                if self.closed || self.sends.get(flight.slot).is_none_or(|send| send.abandoned) {
                    flight.cancelling = true;
                    return Step::Cancel(flight.key);
                }
                Step::Nothing
            }
            _ => Step::Nothing,
        }
    }

    /// The payload of the send that is next, to be lent to the kernel or sent directly. It is
    /// followed by [`armed`](Self::armed), [`settle`](Self::settle) or [`put_back`](Self::put_back).
    pub(crate) fn next(&mut self) -> Option<(usize, P)> {
        if self.in_flight.is_some() || self.taken || self.closed {
            return None;
        }
        let slot = self.order.pop_front()?;
        self.taken = true;
        match std::mem::replace(&mut self.sends[slot].state, Sending::InFlight) {
            Sending::Waiting(payload) => Some((slot, payload)),
            other => {
                self.sends[slot].state = other;
                None
            }
        }
    }

    pub(crate) fn armed(&mut self, slot: usize, key: u64, payload: F) {
        self.taken = false;
        self.in_flight = Some(SendInFlight { key, slot, payload, cancelling: false });
    }

    /// Whether this send is the next, and nobody has taken it out.
    pub(crate) fn is_next(&self, slot: usize) -> bool {
        !self.taken && self.order.front() == Some(&slot)
    }

    /// How to wake the send that is next.
    pub(crate) fn wake_next(&mut self) -> Option<Waker> {
        let next = *self.order.front()?;
        self.sends[next].waker.take()
    }

    /// It is first in order again, unless nobody wants it any more.
    pub(crate) fn put_back(&mut self, slot: usize, payload: P) -> After<P> {
        self.taken = false;
        if self.closed || self.sends[slot].abandoned {
            self.sends.remove(slot);
            return After { release: Some(payload), ..self.settled() };
        }
        self.sends[slot].state = Sending::Waiting(payload);
        self.order.push_front(slot);
        After { attend: self.wants_attention(), ..After::default() }
    }

    /// The payload of the operation with this key, whose completion has been reaped, and its slot.
    /// It is followed by [`settle`](Self::settle) or [`put_back`](Self::put_back).
    pub(crate) fn reaped(&mut self, key: u64) -> Option<(usize, F)> {
        let flight = self.in_flight.take_if(|flight| flight.key == key)?;
        self.taken = true;
        Some((flight.slot, flight.payload))
    }

    /// The send has a result. Its payload, unless it has another use already, is for the caller.
    pub(crate) fn settle(
        &mut self,
        slot: usize,
        payload: Option<P>,
        result: io::Result<usize>,
    ) -> After<P> {
        self.taken = false;
        let send = &mut self.sends[slot];
        if send.abandoned || self.closed {
            self.sends.remove(slot);
            return After { release: payload, ..self.settled() };
        }
        send.state = Sending::Settled(result, payload);
        let one = send.waker.take();
        let mut after = self.settled();
        after.wake.one = one;
        after
    }

    /// The socket is going. Nobody waits, save those who have been forgotten.
    pub(crate) fn close(&mut self) -> (After<P>, Vec<P>) {
        self.closed = true;
        self.order.clear();
        let mut payloads = Vec::new();
        self.sends.retain(|_, send| {
            match std::mem::replace(&mut send.state, Sending::InFlight) {
                Sending::Waiting(payload) => payloads.push(payload),
                Sending::Settled(_, payload) => payloads.extend(payload),
                Sending::InFlight => return true,
            }
            false
        });
        (After { attend: self.wants_attention(), ..After::default() }, payloads)
    }

    /// There is no driver any more: everybody who waits is to ask again, and to be told so.
    pub(crate) fn give_up(&mut self) -> (Vec<Waker>, Settled) {
        self.queued = false;
        let wake = self.sends.iter_mut().filter_map(|(_, send)| send.waker.take()).collect();
        (wake, self.watchers.settled())
    }

    /// The ring is gone. What was in flight is returned, and its slot; it is to be settled when the
    /// payload is back.
    pub(crate) fn abandon(&mut self) -> Option<(usize, F)> {
        self.in_flight.take().map(|flight| (flight.slot, flight.payload))
    }

    #[cfg(planted = "freed_on_drop")]
    pub(crate) fn lent(&mut self, slot: usize) -> Option<&mut F> {
        self.in_flight
            .as_mut()
            .filter(|flight| flight.slot == slot)
            .map(|flight| &mut flight.payload)
    }

    /// Those who want to know when the lane may be idle.
    pub(crate) fn watchers(&mut self) -> &mut Watchers {
        &mut self.watchers
    }

    fn wants_attention(&mut self) -> bool {
        let wants = match &self.in_flight {
            None => !self.order.is_empty() && !self.taken && !self.closed,
            Some(flight) => {
                !flight.cancelling
                    && (self.closed
                        || self.sends.get(flight.slot).is_none_or(|send| send.abandoned))
            }
        };
        let attend = wants && !self.queued;
        self.queued |= attend;
        attend
    }

    fn settled(&mut self) -> After<P> {
        let settled = if self.is_idle() { self.watchers.settled() } else { Settled::default() };
        let wake = Wakers { one: None, settled };
        After { wake, attend: self.wants_attention(), release: None }
    }
}
