//! The send direction of a socket on epoll.
//!
//! A send that finds nobody ahead and room in the peer's queue is one system call. One that has to
//! wait hands in a payload and stands in line; the first in line waits for epoll, and when that tells
//! of room, sends for all who stand there, in order. So a queue that fills and empties costs one
//! wake-up for each message that waited, and none for the others.

use std::convert::Infallible;
use std::io::{self, IoSlice};
use std::os::fd::BorrowedFd;
use std::task::{Context, Poll, Waker, ready};

use tokio::task::coop;

use super::operation::{Direction, Gate, InLine, poll_call};
use crate::ancillary::AncillaryBuffer;
use crate::budget;
use crate::buffer::Parts;
use crate::foreign;
use crate::lane::{After, Withdrawn};
use crate::line::{AT_ONCE, Line};
use crate::outgoing::Outgoing;
use crate::runtime;
use crate::sys;
use crate::watch;

#[derive(Debug)]
pub(super) struct SendGate {
    /// Nothing is ever in flight: the kernel has a message or it has not.
    line: Line<Infallible>,
}

impl SendGate {
    pub(super) fn new() -> Self {
        Self { line: Line::new() }
    }

    pub(super) fn is_idle(&self) -> bool {
        self.line.is_idle()
    }

    /// Idle, or the task is woken when that may be so.
    pub(super) fn poll_idle(&self, waker: &Waker) -> Poll<()> {
        let Some(mut state) = self.line.lock_if_busy() else { return Poll::Ready(()) };
        let replaced = state.lane.watchers().park(waker);
        drop(state);
        drop(replaced);
        Poll::Pending
    }

    /// Completes when the lane is idle, which may be over by then.
    pub(super) async fn idle(&self, socket: &Gate) {
        watch::until(socket.settled(), || {
            let Some(mut state) = self.line.lock_if_busy() else { return true };
            state.lane.watchers().announce();
            false
        })
        .await;
    }

    /// Send from a `poll_*` function: nothing waits in line between two calls.
    pub(super) fn poll_send(
        &self,
        socket: &Gate,
        cx: &mut Context<'_>,
        call: impl FnMut(BorrowedFd<'_>) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        socket.life().check()?;
        let registration = socket.lasting_registration()?;
        let mut state = self.line.lock();
        let polled = if state.lane.is_idle() {
            poll_call(&registration, Direction::Write, cx, call)
        } else {
            Poll::Pending
        };
        if polled.is_pending() {
            // Also where the lane is idle: a send that comes and waits takes over the one waker that
            // tokio keeps for a direction.
            let replaced = state.lane.watchers().park(cx.waker());
            drop(state);
            drop(replaced);
        }
        polled
    }

    /// Send now, if nobody waits in line.
    pub(super) fn try_send(
        &self,
        socket: &Gate,
        call: impl FnMut(BorrowedFd<'_>) -> io::Result<usize>,
    ) -> io::Result<usize> {
        socket.life().check()?;
        if !self.line.is_idle() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        socket.call_now(Direction::Write, call)
    }

    /// Send what the caller lends.
    pub(super) async fn send(
        &self,
        socket: &Gate,
        call: impl FnMut(BorrowedFd<'_>) -> io::Result<usize>,
        message: &[IoSlice<'_>],
        control: &[u8],
    ) -> io::Result<usize> {
        match self.directly(socket, call).await {
            Ok(sent) => sent,
            Err(spare) => self.in_line(socket, Outgoing::copy(message, control, spare)?).await.0,
        }
    }

    /// Send what the caller gives away.
    pub(super) async fn send_owned<P: Parts>(
        &self,
        socket: &Gate,
        parts: P,
        ancillary: AncillaryBuffer,
    ) -> (io::Result<usize>, P, AncillaryBuffer) {
        let sent = {
            let message = parts.slices();
            let call = |fd: BorrowedFd<'_>| sys::send_with_ancillary(fd, &message, &ancillary);
            self.directly(socket, call).await
        };
        let spare = match sent {
            Ok(sent) => return (sent, parts, ancillary),
            Err(spare) => spare,
        };
        let payload = match Outgoing::given(parts, ancillary, spare) {
            Ok(payload) => payload,
            Err((error, parts, ancillary)) => return (Err(error), parts, ancillary),
        };
        let (sent, payload) = self.in_line(socket, payload).await;
        let payload = payload.expect("a payload in line comes back");
        let (parts, ancillary, spare) = payload.take();
        if let Some(spare) = spare {
            self.line.lock().spares.keep(spare);
        }
        (sent, parts, ancillary)
    }

    /// One system call, if nobody is ahead; else the send has to wait, and a spare payload comes
    /// with that answer.
    pub(super) async fn directly(
        &self,
        socket: &Gate,
        mut call: impl FnMut(BorrowedFd<'_>) -> io::Result<usize>,
    ) -> Result<io::Result<usize>, Option<Box<Outgoing>>> {
        let mut done = None;
        std::future::poll_fn(|cx| {
            let coop = coop::poll_proceed(cx);
            if done.is_none() {
                if let Err(gone) = socket.life().check() {
                    return Poll::Ready(Ok(Err(gone)));
                }
                if !self.line.is_idle() {
                    return Poll::Ready(Err(self.line.spare()));
                }
                match call(socket.fd()) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        return Poll::Ready(Err(self.line.spare()));
                    }
                    // Also without budget, for the first poll decides the order; then the task yields
                    // before it learns of it.
                    result => done = Some(result),
                }
                socket.sent_directly();
            }
            budget::take(ready!(coop));
            Poll::Ready(Ok(done.take().expect("called, not polled after completion")))
        })
        .await
    }

    /// Stand in line. Between the poll that found the lane busy and the first of this nothing is
    /// awaited: the place in line is that of the first poll.
    async fn in_line(
        &self,
        socket: &Gate,
        payload: Box<Outgoing>,
    ) -> (io::Result<usize>, Option<Box<Outgoing>>) {
        let mut waiting = self.wait(socket, payload);
        std::future::poll_fn(|cx| waiting.poll(cx)).await
    }

    /// As [`in_line`](Self::in_line), to be polled by hand.
    pub(super) fn wait<'a>(&'a self, socket: &'a Gate, payload: Box<Outgoing>) -> Waiting<'a> {
        Waiting { gate: self, socket, payload: Some(payload), place: None }
    }

    /// Send for those who wait, in order, as long as there is room, but not for ever. They are woken
    /// in the end: who is woken earlier may be stolen by another worker, and come to stand in line
    /// again meanwhile.
    fn send_waiting(&self, socket: &Gate) -> Ended {
        let (mut next, mut wakes) = {
            let mut state = self.line.lock();
            (state.lane.next(), std::mem::take(&mut state.wakes))
        };
        let mut ended = Ended::AllSent;
        let mut sent_for = 0;
        while let Some((slot, payload)) = next {
            let mut sent = payload.send_now(socket.fd());
            if is_full(&sent) {
                // Once more, or the readiness that this disproves would stay.
                sent = socket.call_now(Direction::Write, |fd| payload.send_now(fd));
            }
            if is_full(&sent) {
                let after = self.line.lock().lane.put_back(slot, payload);
                carry_out(socket, after);
                ended = Ended::Full;
                break;
            }
            sent_for += 1;
            let (spare, payload) = payload.sent();
            let mut state = self.line.lock();
            if let Some(spare) = spare {
                state.spares.keep(spare);
            }
            let mut after = state.lane.settle(slot, payload, sent);
            wakes.extend(after.wake.one.take());
            next = if sent_for < AT_ONCE { state.lane.next() } else { None };
            if next.is_none() && !state.lane.is_idle() {
                ended = Ended::Enough;
            }
            drop(state);
            carry_out(socket, after);
        }
        wakes.drain(..).for_each(foreign::wake);
        self.line.lock().wakes = wakes;
        ended
    }

    /// Somebody is first in line and does not know.
    fn wake_next(&self) {
        let next = self.line.lock().lane.wake_next();
        if let Some(waker) = next {
            foreign::wake(waker);
        }
    }
}

/// Do what the lane decided. Not under its lock.
fn carry_out(socket: &Gate, after: After<Box<Outgoing>>) {
    foreign::release(after.release);
    after.wake.wake(socket.settled());
}

/// How sending for those in line ended.
#[derive(PartialEq)]
enum Ended {
    AllSent,
    Full,
    Enough,
}

fn is_full(sent: &io::Result<usize>) -> bool {
    matches!(sent, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
}

/// A send in line; leaves it when dropped.
#[derive(Debug)]
pub(crate) struct Waiting<'a> {
    gate: &'a SendGate,
    socket: &'a Gate,
    /// Until the first poll.
    payload: Option<Box<Outgoing>>,
    /// From then on, until it leaves the line.
    place: Option<Place<'a>>,
}

/// A place in line. As long as there is one, the socket's registration is not given up.
#[derive(Debug)]
struct Place<'a> {
    slot: usize,
    _in_line: InLine<'a>,
}

impl Waiting<'_> {
    fn slot(&self) -> Option<usize> {
        self.place.as_ref().map(|place| place.slot)
    }

    fn poll_first(
        &mut self,
        cx: &mut Context<'_>,
        payload: Box<Outgoing>,
    ) -> Poll<(io::Result<usize>, Option<Box<Outgoing>>)> {
        let in_line = self.socket.in_line();
        let mut state = self.gate.line.lock();
        let (slot, after) = state.lane.enqueue(cx.waker(), payload);
        let is_next = state.lane.is_next(slot);
        drop(state);
        self.place = Some(Place { slot, _in_line: in_line });
        carry_out(self.socket, after);
        if is_next { self.poll(cx) } else { Poll::Pending }
    }

    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<(io::Result<usize>, Option<Box<Outgoing>>)> {
        if let Some(payload) = self.payload.take() {
            return self.poll_first(cx, payload);
        }
        let gate = self.gate;
        let slot = self.slot().expect("not polled after completion");
        let coop = ready!(coop::poll_proceed(cx));
        let mut left_others = false;
        loop {
            let mut state = gate.line.lock();
            let polled = state.lane.poll(slot, cx.waker());
            let is_next = state.lane.is_next(slot);
            drop(state);
            match polled {
                Ok((result, payload)) => {
                    budget::take(coop);
                    self.place = None;
                    if left_others {
                        gate.wake_next();
                    }
                    return Poll::Ready((result, payload));
                }
                Err(replaced) => drop(replaced),
            }
            if self.socket.life().check().is_err() {
                return self.give_up(cx, runtime::gone());
            }
            if !is_next {
                return Poll::Pending;
            }
            match ready!(self.socket.poll_writable(cx)) {
                Ok(()) => left_others |= gate.send_waiting(self.socket) != Ended::AllSent,
                Err(error) => return self.give_up(cx, error),
            }
        }
    }

    /// Wait no longer. Another task may be sending this just now; it settles before that task's poll
    /// ends.
    fn give_up(
        &mut self,
        cx: &mut Context<'_>,
        error: io::Error,
    ) -> Poll<(io::Result<usize>, Option<Box<Outgoing>>)> {
        let (gate, slot) = (self.gate, self.slot().expect("it waits"));
        let withdrawn = gate.line.lock().lane.withdraw(slot);
        let settled = match withdrawn {
            Withdrawn::Settled(result, payload) => (result, payload),
            Withdrawn::Lent => {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            Withdrawn::Unsent(mut after) => {
                let payload = after.release.take();
                carry_out(self.socket, after);
                (Err(error), payload)
            }
        };
        self.place = None;
        gate.wake_next();
        Poll::Ready(settled)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(slot) = self.slot() {
            let after = self.gate.line.lock().lane.forget(slot);
            carry_out(self.socket, after);
            self.gate.wake_next();
        }
    }
}
