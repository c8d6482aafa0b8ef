//! The send direction of a socket on epoll.
//!
//! A send that finds nobody ahead and room in the peer's queue is one system call. One that has to
//! wait hands in a payload and stands in line; the first in line waits for epoll, and when that tells
//! of room, sends for all who stand there, in order. So a queue that fills and empties costs one
//! wake-up for each message that waited, and none for the others.

use std::convert::Infallible;
use std::io::{self, IoSlice};
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use filedesc::FileDesc;
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;
use tokio::task::coop;

use super::operation::{Direction, poll_call, try_call};
use crate::ancillary::AncillaryBuffer;
use crate::buffer::Parts;
use crate::lane::{After, SendLane};
use crate::outgoing::{Outgoing, Spares};
use crate::runtime::{self, Life};
use crate::sys;

#[derive(Debug)]
pub(super) struct SendGate {
    state: Mutex<State>,
    settled: Notify,
    life: Arc<Life>,
}

#[derive(Debug)]
struct State {
    /// Nothing is ever in flight: the kernel has a message or it has not.
    lane: SendLane<Box<Outgoing>, Infallible>,
    spares: Spares,
}

impl SendGate {
    pub(super) fn new(life: &Arc<Life>) -> Self {
        let state = State { lane: SendLane::new(), spares: Spares::default() };
        Self { state: Mutex::new(state), settled: Notify::new(), life: life.clone() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing under this lock panics half-way or runs foreign code.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn carry_out(&self, after: After<Box<Outgoing>>) {
        drop(after.release);
        after.wake.wake(&self.settled);
    }

    pub(super) fn is_idle(&self) -> bool {
        self.lock().lane.is_idle()
    }

    /// Idle, or the task is woken when that may be so.
    pub(super) fn poll_idle(&self, waker: &Waker) -> Poll<()> {
        let mut state = self.lock();
        if state.lane.is_idle() {
            return Poll::Ready(());
        }
        let replaced = state.lane.watchers().park(waker);
        drop(state);
        drop(replaced);
        Poll::Pending
    }

    /// Completes when the lane is idle, which may be over by then.
    pub(super) async fn idle(&self) {
        loop {
            let notified = self.settled.notified();
            {
                let mut state = self.lock();
                if state.lane.is_idle() {
                    return;
                }
                state.lane.watchers().announce();
            }
            notified.await;
        }
    }

    /// Send from a `poll_*` function: nothing waits in line between two calls.
    pub(super) fn poll_send(
        &self,
        io: &AsyncFd<FileDesc>,
        cx: &mut Context<'_>,
        call: impl FnMut(BorrowedFd<'_>) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        self.life.check()?;
        let mut state = self.lock();
        let polled = if state.lane.is_idle() {
            poll_call(io, Direction::Write, cx, call)
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
        io: &AsyncFd<FileDesc>,
        call: impl FnMut(BorrowedFd<'_>) -> io::Result<usize>,
    ) -> io::Result<usize> {
        self.life.check()?;
        let state = self.lock();
        if !state.lane.is_idle() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        try_call(io, Direction::Write, call)
    }

    /// Send what the caller lends.
    pub(super) async fn send(
        &self,
        io: &AsyncFd<FileDesc>,
        call: impl FnMut(BorrowedFd<'_>) -> io::Result<usize>,
        message: &[IoSlice<'_>],
        control: &[u8],
    ) -> io::Result<usize> {
        if let Some(sent) = self.directly(io, call).await {
            return sent;
        }
        let spare = self.lock().spares.take();
        let payload = Outgoing::copy(message, control, spare)?;
        let (sent, payload) = self.in_line(io, payload).await;
        self.keep(payload.and_then(Outgoing::emptied));
        sent
    }

    fn keep(&self, spare: Option<Box<Outgoing>>) {
        if let Some(spare) = spare {
            self.lock().spares.keep(spare);
        }
    }

    /// Send what the caller gives away.
    pub(super) async fn send_owned<P: Parts>(
        &self,
        io: &AsyncFd<FileDesc>,
        parts: P,
        ancillary: AncillaryBuffer,
    ) -> (io::Result<usize>, P, AncillaryBuffer) {
        let sent = {
            let message = parts.slices();
            let call = |fd: BorrowedFd<'_>| sys::send_with_ancillary(fd, &message, &ancillary);
            self.directly(io, call).await
        };
        if let Some(sent) = sent {
            return (sent, parts, ancillary);
        }
        let spare = self.lock().spares.take();
        let payload = match Outgoing::given(parts, ancillary, spare) {
            Ok(payload) => payload,
            Err((error, parts, ancillary)) => return (Err(error), parts, ancillary),
        };
        let (sent, payload) = self.in_line(io, payload).await;
        let payload = payload.expect("a payload in line comes back");
        let (parts, ancillary, spare) = payload.take();
        self.keep(spare);
        (sent, parts, ancillary)
    }

    /// One system call, if nobody is ahead. `None` if the send has to wait.
    async fn directly(
        &self,
        io: &AsyncFd<FileDesc>,
        mut call: impl FnMut(BorrowedFd<'_>) -> io::Result<usize>,
    ) -> Option<io::Result<usize>> {
        std::future::poll_fn(|cx| {
            let coop = ready!(coop::poll_proceed(cx));
            if let Err(gone) = self.life.check() {
                return Poll::Ready(Some(Err(gone)));
            }
            if !self.lock().lane.take_turn() {
                return Poll::Ready(None);
            }
            let result = call(io.get_ref().as_fd());
            let (others, after) = self.lock().lane.give_turn();
            self.carry_out(after);
            match result {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    // Whoever came meanwhile is ahead now.
                    if others {
                        self.wake_next();
                    }
                    Poll::Ready(None)
                }
                result => {
                    if others && self.send_waiting(io) {
                        self.wake_next();
                    }
                    coop.made_progress();
                    Poll::Ready(Some(result))
                }
            }
        })
        .await
    }

    /// Stand in line. Between the poll that found the lane busy and this nothing is awaited: the place
    /// in line is that of the first poll.
    async fn in_line(
        &self,
        io: &AsyncFd<FileDesc>,
        payload: Box<Outgoing>,
    ) -> (io::Result<usize>, Option<Box<Outgoing>>) {
        // The waker is replaced by the first poll, which follows at once.
        let (slot, after) = self.lock().lane.enqueue(Waker::noop(), payload);
        let mut waiting = Waiting { gate: self, io, slot: Some(slot) };
        self.carry_out(after);
        std::future::poll_fn(|cx| waiting.poll(cx)).await
    }

    /// Somebody is first in line and does not know.
    fn wake_next(&self) {
        let next = self.lock().lane.wake_next();
        if let Some(waker) = next {
            waker.wake();
        }
    }

    /// Send for those who wait, in order, as long as there is room. Whether it ended for lack of room.
    fn send_waiting(&self, io: &AsyncFd<FileDesc>) -> bool {
        let mut state = self.lock();
        while let Some((slot, payload)) = state.lane.next() {
            drop(state);
            let sent = payload.send_now(io.get_ref().as_fd());
            state = self.lock();
            let (after, full) = match sent {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    (state.lane.put_back(slot, payload), true)
                }
                result => (state.lane.settle(slot, payload, result), false),
            };
            drop(state);
            self.carry_out(after);
            if full {
                return true;
            }
            state = self.lock();
        }
        false
    }
}

/// A send in line; leaves it when dropped.
struct Waiting<'a> {
    gate: &'a SendGate,
    io: &'a AsyncFd<FileDesc>,
    slot: Option<usize>,
}

impl Waiting<'_> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<(io::Result<usize>, Option<Box<Outgoing>>)> {
        let gate = self.gate;
        let slot = self.slot.expect("not polled after completion");
        let coop = ready!(coop::poll_proceed(cx));
        loop {
            let mut state = gate.lock();
            let polled = state.lane.poll(slot, cx.waker());
            let is_next = state.lane.is_next(slot);
            drop(state);
            match polled {
                Ok((result, payload)) => {
                    coop.made_progress();
                    self.slot = None;
                    gate.wake_next();
                    return Poll::Ready((result, Some(payload)));
                }
                Err(replaced) => drop(replaced),
            }
            if gate.life.check().is_err() {
                return Poll::Ready((Err(runtime::gone()), self.leave()));
            }
            if !is_next {
                return Poll::Pending;
            }
            match ready!(self.io.poll_write_ready(cx)) {
                Ok(mut guard) => {
                    if gate.send_waiting(self.io) {
                        guard.clear_ready();
                    }
                }
                Err(error) => return Poll::Ready((Err(error), self.leave())),
            }
        }
    }

    /// Leave the line; the payload, unless another task is sending it just now.
    fn leave(&mut self) -> Option<Box<Outgoing>> {
        let mut after = self.gate.lock().lane.forget(self.slot.take()?);
        let payload = after.release.take();
        self.gate.carry_out(after);
        self.gate.wake_next();
        payload
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        drop(self.leave());
    }
}
