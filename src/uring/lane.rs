//! The receive direction of a socket: the state machine. Pure, as [`crate::lane`] is.
//!
//! Each lane keeps one operation in flight at most (the kernel does not keep the order of parked
//! operations), and is *attended* to by the shard's driver: [`attend`](ReceiveLane::attend) says what
//! to submit, if anything. `queued` is true while the lane stands on a shard's list, so that it stands
//! there once. A lane that was closed takes no more callers.

use std::task::Waker;

use crate::lane::{After, Outcome, Step, Wakers, remember};
pub(super) use crate::queue::Ticket;
use crate::queue::{Queue, Tickets};
use crate::watch::{Settled, Watchers};

/// Instead of a number of looks: the caller looks whenever epoll tells him to.
const HIMSELF: u8 = u8::MAX;

#[derive(Debug)]
enum Receiving<F> {
    Idle,
    InFlight { key: u64, payload: F, cancelling: bool },
}

#[derive(Debug)]
struct Waiter<R> {
    ticket: Ticket,
    /// `None` once woken, until it is polled again.
    waker: Option<Waker>,
    /// Where the caller wants the message, until that is lent to the kernel.
    room: Option<R>,
    /// He has only stepped aside for the tasks that are ready, and looks again himself, so often.
    looks: u8,
}

/// What was received: a message, or an error number that is to be reported once.
pub(super) type Received<M> = Result<M, i32>;

/// A message handed out: which of the caller's rooms it is in.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Delivery<M, R> {
    pub(super) received: Received<M>,
    /// The caller's room, if the message was received elsewhere.
    pub(super) room: Option<R>,
}

/// A message and what to do after it, or the waker that a poll in vain replaced.
type Polled<T, M> = Result<(T, After<M>), Option<Waker>>;

/// The receive lane. `F` is a payload in flight, `M` a message, `R` a caller's room.
#[derive(Debug)]
pub(super) struct ReceiveLane<F, M, R> {
    state: Receiving<F>,
    waiters: Queue<Waiter<R>>,
    /// A message received for nobody yet, or for the first waiter; and in whose room it is.
    stash: Option<(Received<M>, Option<Ticket>)>,
    /// Whose room the operation in flight has.
    armed_for: Option<Ticket>,
    /// How many have stood here.
    tickets: Tickets,
    queued: bool,
    closed: bool,
    watchers: Watchers,
}

impl<F, M, R> ReceiveLane<F, M, R> {
    pub(super) fn new() -> Self {
        Self {
            state: Receiving::Idle,
            waiters: Queue::default(),
            stash: None,
            armed_for: None,
            tickets: Tickets::default(),
            queued: false,
            closed: false,
            watchers: Watchers::default(),
        }
    }

    /// Whether a receive may call the kernel directly: nothing is in flight, stashed or waited for.
    pub(super) fn is_idle(&self) -> bool {
        matches!(self.state, Receiving::Idle) && self.waiters.is_empty() && self.stash.is_none()
    }

    /// Whether a receive would not have to wait for others: idle, or a message lies ready.
    pub(super) fn is_open(&self) -> bool {
        self.waiters.is_empty() && (self.stash.is_some() || matches!(self.state, Receiving::Idle))
    }

    /// Whether a message lies ready for whoever comes first.
    pub(super) fn has_stash(&self) -> bool {
        self.waiters.is_empty() && self.stash.is_some()
    }

    /// The message that lies ready, if nobody waits for it.
    pub(super) fn stash(&mut self) -> Option<&mut Received<M>> {
        if !self.waiters.is_empty() {
            return None;
        }
        self.stash.as_mut().map(|(received, _)| received)
    }

    /// Take the message that lies ready, if nobody waits for it.
    pub(super) fn take_stash(&mut self) -> Option<Received<M>> {
        if !self.waiters.is_empty() {
            return None;
        }
        self.stash.take().map(|(received, _)| received)
    }

    /// The message that lies in the room of a caller who is gone, if there is one; it has to move,
    /// for his room is to be dropped. Returned once.
    pub(super) fn orphan(&mut self) -> Option<&mut M> {
        let (Ok(message), owner @ Some(_)) = self.stash.as_mut()? else { return None };
        if self.waiters.iter().any(|waiter| Some(waiter.ticket) == *owner) {
            return None;
        }
        *owner = None;
        Some(message)
    }

    /// Join the queue. The caller has found the lane not idle, or the kernel without a message.
    ///
    /// A caller who is first looks into the kernel himself, so many times more, before the lane is
    /// armed for him with [`arm`](Self::arm).
    pub(super) fn enqueue(
        &mut self,
        waker: &Waker,
        room: Option<R>,
        looks: u8,
    ) -> (Ticket, After<M>) {
        let ticket = self.tickets.next();
        let looks = if self.is_idle() { looks } else { 0 };
        let waker = (looks == 0).then(|| waker.clone());
        self.waiters.push_back(Waiter { ticket, waker, room, looks });
        (ticket, After { attend: self.wants_attention(), ..After::default() })
    }

    /// Whether this caller came back to look into the kernel himself, and may: it is his turn, and
    /// nothing has come for him meanwhile.
    pub(super) fn may_look(&self, ticket: Ticket) -> bool {
        let first = self.waiters.front();
        first.is_some_and(|first| first.ticket == ticket && first.looks > 0)
            && matches!(self.state, Receiving::Idle)
            && self.stash.is_none()
    }

    /// The caller who came back has found a message, and leaves.
    pub(super) fn found(&mut self) -> After<M> {
        self.waiters.pop_front();
        self.settled()
    }

    /// The caller who came back has found nothing; how often he looks again.
    pub(super) fn looked(&mut self) -> u8 {
        self.waiters.front_mut().map_or(0, |first| {
            first.looks = first.looks.saturating_sub(1);
            first.looks
        })
    }

    /// The caller who came back has found nothing, and looks once more.
    pub(super) fn looks_again(&mut self) {
        if let Some(first) = self.waiters.front_mut() {
            first.looks = 1;
        }
    }

    /// The caller who came back has looked often enough, and waits for readiness by himself. Nothing
    /// is in flight for him; he still is the first in line.
    pub(super) fn waits_himself(&mut self) {
        if let Some(first) = self.waiters.front_mut() {
            first.looks = HIMSELF;
        }
    }

    /// Whether this caller waits for readiness by himself.
    pub(super) fn is_waiting_himself(&self, ticket: Ticket) -> bool {
        self.waiters.front().is_some_and(|first| first.ticket == ticket && first.looks == HIMSELF)
    }

    /// The caller who came back has looked often enough: from now on the lane waits for him.
    pub(super) fn arm(&mut self, waker: &Waker, room: Option<R>) -> After<M> {
        if let Some(first) = self.waiters.front_mut() {
            first.looks = 0;
            first.room = room;
            first.waker = Some(waker.clone());
        }
        After { attend: self.wants_attention(), ..After::default() }
    }

    /// Take the message, if there is one and it is this caller's turn; else remember the waker, and
    /// return the one which that replaces. The first in the queue is served first.
    pub(super) fn poll(&mut self, ticket: Ticket, waker: &Waker) -> Polled<Delivery<M, R>, M> {
        let first = self.waiters.front().is_some_and(|waiter| waiter.ticket == ticket);
        if first && let Some((received, _)) = self.stash.take() {
            let mut waiter = self.waiters.pop_front().expect("looked at above");
            let room = waiter.room.take();
            let after = self.settled();
            return Ok((Delivery { received, room }, after));
        }
        let waiter = self.waiters.iter_mut().find(|waiter| waiter.ticket == ticket);
        Err(waiter.and_then(|waiter| remember(&mut waiter.waker, waker)))
    }

    /// A caller leaves without a message. His room, if the kernel does not have it, is returned; a
    /// message that was for him is for the next.
    pub(super) fn forget(&mut self, ticket: Ticket) -> (Option<R>, After<M>) {
        let Some(at) = self.waiters.iter().position(|waiter| waiter.ticket == ticket) else {
            return (None, After::default());
        };
        let room = self.waiters.remove(at).and_then(|waiter| waiter.room);
        let mut after = self.settled();
        if self.stash.is_some() {
            after.wake.one = self.waiters.front_mut().and_then(|first| first.waker.take());
        }
        (room, after)
    }

    /// What to submit now. Clears `queued`.
    pub(super) fn attend(&mut self) -> Step {
        self.queued = false;
        let needs_arming = self.needs_arming();
        let unwanted = self.waiters.is_empty() || self.closed;
        match &mut self.state {
            Receiving::Idle if needs_arming => Step::Submit,
            Receiving::InFlight { key, cancelling, .. } if unwanted && !*cancelling => {
                *cancelling = true;
                Step::Cancel(*key)
            }
            _ => Step::Nothing,
        }
    }

    /// Whether the kernel has this caller's room, or what is left of its ring.
    pub(super) fn is_lent(&self, ticket: Ticket) -> bool {
        self.armed_for == Some(ticket)
    }

    /// The room of an operation that was abandoned. It goes to its caller, if he still waits, and
    /// else back for the caller of this to drop.
    pub(super) fn room_is_back(&mut self, room: Option<R>) -> (Option<R>, Option<Waker>) {
        let owner = self.armed_for.take();
        let waiter = self.waiters.iter_mut().find(|waiter| Some(waiter.ticket) == owner);
        let waker = waiter.and_then(|waiter| waiter.waker.take());
        (self.room_back(owner, room), waker)
    }

    /// The room of the caller for whom the lane is about to be armed.
    pub(super) fn room_to_arm(&mut self) -> Option<R> {
        let first = self.waiters.front_mut()?;
        let room = first.room.take();
        self.armed_for = room.is_some().then_some(first.ticket);
        room
    }

    /// The operation that [`Step::Submit`] asked for is on its way.
    pub(super) fn armed(&mut self, key: u64, payload: F) {
        self.state = Receiving::InFlight { key, payload, cancelling: false };
    }

    /// The operation could not be made: tell the caller for whom it was, and give his room back.
    pub(super) fn not_armed(&mut self, errno: i32, room: Option<R>) -> After<M> {
        if let Some(first) = self.waiters.front_mut() {
            first.room = room;
        }
        self.armed_for = None;
        self.stash = Some((Err(errno), None));
        self.front_wakes()
    }

    /// The payload of the operation with this key, whose completion has been reaped. `None` for a
    /// key that is not in flight.
    pub(super) fn reaped(&mut self, key: u64) -> Option<F> {
        match std::mem::replace(&mut self.state, Receiving::Idle) {
            Receiving::InFlight { key: in_flight, payload, .. } if in_flight == key => {
                Some(payload)
            }
            other => {
                self.state = other;
                None
            }
        }
    }

    /// How the operation ended whose payload [`reaped`](Self::reaped) has just given out. `room` is
    /// the caller's room that a void operation had.
    pub(super) fn complete(
        &mut self,
        outcome: Outcome<M>,
        room: Option<R>,
    ) -> (Option<R>, After<M>) {
        let owner = self.armed_for.take();
        match outcome {
            Outcome::Done(message) => {
                let unwanted = cfg!(planted = "completed_after_drop") && self.waiters.is_empty();
                if self.closed || unwanted {
                    return (room, After { release: Some(message), ..After::default() });
                }
                self.stash = Some((Ok(message), owner));
                (room, self.front_wakes())
            }
            Outcome::Failed(errno) => {
                let room = self.room_back(owner, room);
                if self.closed {
                    return (room, After::default());
                }
                self.stash = Some((Err(errno), None));
                (room, self.front_wakes())
            }
            Outcome::Void => {
                let room = self.room_back(owner, room);
                (room, self.settled())
            }
        }
    }

    /// Give a caller his room back; if he is gone, it is for the caller of this to drop.
    fn room_back(&mut self, owner: Option<Ticket>, room: Option<R>) -> Option<R> {
        match self.waiters.iter_mut().find(|waiter| Some(waiter.ticket) == owner) {
            Some(waiter) => {
                waiter.room = room;
                None
            }
            None => room,
        }
    }

    /// The socket is going. Nobody waits on it, save those who have been forgotten; what is in
    /// flight is cancelled.
    pub(super) fn close(&mut self) -> (After<M>, Vec<Option<R>>) {
        self.closed = true;
        let waiters = std::iter::from_fn(|| self.waiters.pop_front());
        let rooms = waiters.map(|waiter| waiter.room).collect();
        let release = self.stash.take().and_then(|(received, _)| received.ok());
        let attend = self.wants_attention();
        let wake = Wakers { one: None, settled: self.watchers.settled() };
        (After { wake, attend, release }, rooms)
    }

    /// There is no driver any more: everybody who waits is to ask again, and to be told so.
    pub(super) fn give_up(&mut self) -> (Vec<Waker>, Settled) {
        self.queued = false;
        let wake = self.waiters.iter_mut().filter_map(|waiter| waiter.waker.take()).collect();
        (wake, self.watchers.settled())
    }

    /// The ring is gone. What was in flight is returned.
    pub(super) fn abandon(&mut self) -> Option<F> {
        match std::mem::replace(&mut self.state, Receiving::Idle) {
            Receiving::InFlight { payload, .. } => Some(payload),
            Receiving::Idle => None,
        }
    }

    /// Those who want to know when the lane may be open.
    pub(super) fn watchers(&mut self) -> &mut Watchers {
        &mut self.watchers
    }

    fn needs_arming(&self) -> bool {
        self.waiters.front().is_some_and(|first| first.looks == 0)
            && self.stash.is_none()
            && !self.closed
    }

    /// Whether the driver has something to do here; sets `queued` if it has.
    fn wants_attention(&mut self) -> bool {
        let wants = match &self.state {
            Receiving::Idle => self.needs_arming(),
            Receiving::InFlight { cancelling, .. } => {
                (self.waiters.is_empty() || self.closed) && !cancelling
            }
        };
        let attend = wants && !self.queued;
        self.queued |= attend;
        attend
    }

    fn settled(&mut self) -> After<M> {
        let settled = if self.is_open() { self.watchers.settled() } else { Settled::default() };
        let wake = Wakers { one: None, settled };
        After { wake, attend: self.wants_attention(), release: None }
    }

    fn front_wakes(&mut self) -> After<M> {
        let mut after = self.settled();
        after.wake.one = self.waiters.front_mut().and_then(|first| first.waker.take());
        after
    }
}
