//! The receiving direction of a registered descriptor, and one call in it.

use std::io;
use std::os::fd::BorrowedFd;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use filedesc::FileDesc;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::task::coop;

use super::lane::{Lane, Ticket};
use crate::budget;
use crate::look::{self, AfterLook, Aside, Busy, Looks};
use crate::runtime::Life;
use crate::sys;
use crate::watch::{self, Bell};

/// Reading or writing, as epoll has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    Read,
    Write,
}

/// Call the kernel when epoll says so.
pub(super) fn poll_call<T>(
    io: &AsyncFd<FileDesc>,
    direction: Direction,
    cx: &mut Context<'_>,
    mut call: impl FnMut(BorrowedFd<'_>) -> io::Result<T>,
) -> Poll<io::Result<T>> {
    loop {
        let mut guard = ready!(match direction {
            Direction::Read => io.poll_read_ready(cx),
            Direction::Write => io.poll_write_ready(cx),
        })?;
        match call(io.get_ref().as_fd()) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => guard.clear_ready(),
            result => return Poll::Ready(result),
        }
    }
}

/// Call the kernel at once. Also where tokio has not heard of readiness yet, as it has not for a new
/// socket; through `try_io`, so that readiness found wrong is cleared.
pub(super) fn try_call<T>(
    io: &AsyncFd<FileDesc>,
    direction: Direction,
    mut call: impl FnMut(BorrowedFd<'_>) -> io::Result<T>,
) -> io::Result<T> {
    let interest = match direction {
        Direction::Read => Interest::READABLE,
        Direction::Write => Interest::WRITABLE,
    };
    let mut called = false;
    let result = io.try_io(interest, |fd| {
        called = true;
        call(fd.as_fd())
    });
    if called { result } else { call(io.get_ref().as_fd()) }
}

/// The receiving direction, or that of accepting: its line, and what looks have found in it.
#[derive(Debug)]
pub(super) struct Gate {
    state: Mutex<State>,
    settled: Bell,
    life: Arc<Life>,
}

#[derive(Debug, Default)]
struct State {
    lane: Lane,
    looks: Looks,
}

impl Gate {
    pub(super) fn new(life: &Arc<Life>) -> Self {
        Self { state: Mutex::default(), settled: Bell::default(), life: life.clone() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing under this lock panics half-way or runs foreign code.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
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
        watch::until(&self.settled, || {
            let mut state = self.lock();
            let idle = state.lane.is_idle();
            if !idle {
                state.lane.watchers().announce();
            }
            idle
        })
        .await;
    }

    /// Call the kernel from a `poll_*` function: nothing waits in line between two calls.
    pub(super) fn poll_operation<T>(
        &self,
        io: &AsyncFd<FileDesc>,
        cx: &mut Context<'_>,
        call: impl FnMut(BorrowedFd<'_>) -> io::Result<T>,
    ) -> Poll<io::Result<T>> {
        self.life.check()?;
        let mut state = self.lock();
        // Also where the lane is idle: a call that comes and waits takes over the one waker that
        // tokio keeps for a direction.
        let polled = if state.lane.is_idle() {
            poll_call(io, Direction::Read, cx, call)
        } else {
            Poll::Pending
        };
        if polled.is_pending() {
            let replaced = state.lane.watchers().park(cx.waker());
            drop(state);
            drop(replaced);
        }
        polled
    }

    /// Call the kernel now, if nobody waits in line.
    pub(super) fn try_operation<T>(
        &self,
        io: &AsyncFd<FileDesc>,
        call: impl FnMut(BorrowedFd<'_>) -> io::Result<T>,
    ) -> io::Result<T> {
        self.life.check()?;
        let state = self.lock();
        if !state.lane.is_idle() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        try_call(io, Direction::Read, call)
    }

    /// Wait in line, then call the kernel.
    pub(super) fn operation<'a, T, F>(
        &'a self,
        io: &'a AsyncFd<FileDesc>,
        call: F,
    ) -> Operation<'a, F>
    where
        F: FnMut(BorrowedFd<'_>) -> io::Result<T>,
    {
        self.request(io, call)
    }

    /// As [`operation`](Self::operation), of a type that has a name.
    pub(super) fn request<'a, F: Request>(
        &'a self,
        io: &'a AsyncFd<FileDesc>,
        call: F,
    ) -> Operation<'a, F> {
        let (aside, busy) = (Aside::now(), Busy::default());
        Operation { gate: self, io, call, ticket: None, aside, busy }
    }
}

/// A system call.
pub(crate) trait Request {
    type Output;

    fn call(&mut self, fd: BorrowedFd<'_>) -> io::Result<Self::Output>;
}

impl<T, F: FnMut(BorrowedFd<'_>) -> io::Result<T>> Request for F {
    type Output = T;

    fn call(&mut self, fd: BorrowedFd<'_>) -> io::Result<T> {
        self(fd)
    }
}

/// `recv(2)`.
#[derive(Debug)]
pub(crate) struct Bytes<'b>(pub(super) &'b mut [u8]);

impl Request for Bytes<'_> {
    type Output = usize;

    fn call(&mut self, fd: BorrowedFd<'_>) -> io::Result<usize> {
        sys::recv(fd, self.0)
    }
}

/// A call that stands in line from its first poll on, if it has to wait, until it is dropped.
#[derive(Debug)]
pub(crate) struct Operation<'a, F> {
    gate: &'a Gate,
    io: &'a AsyncFd<FileDesc>,
    call: F,
    ticket: Option<Ticket>,
    aside: Aside,
    busy: Busy,
}

// Nothing in it is pinned: a call is not a future.
impl<F> Unpin for Operation<'_, F> {}

impl<T, F: Request<Output = T>> Future for Operation<'_, F> {
    type Output = io::Result<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        let coop = ready!(coop::poll_proceed(cx));
        look::note_poll();
        self.gate.life.check()?;
        let result = ready!(match self.ticket {
            None => self.poll_first(cx),
            Some(ticket) => self.poll_waiting(ticket, cx),
        });
        budget::take(coop);
        Poll::Ready(result)
    }
}

impl<T, F: Request<Output = T>> Operation<'_, F> {
    fn poll_first(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        let mut state = self.gate.lock();
        if !state.lane.is_idle() {
            self.ticket = Some(state.lane.enqueue(cx.waker(), 0));
            return Poll::Pending;
        }
        if state.looks.first_is_due() {
            match self.call.call(self.io.get_ref().as_fd()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    state.looks.first_found(false);
                }
                result => {
                    state.looks.first_found(true);
                    return Poll::Ready(result);
                }
            }
        }
        self.busy = Busy::new(self.gate.life.busy_until());
        let looks = match state.looks.second_looks() {
            0 if self.busy.is_on() => 1,
            looks => looks,
        };
        if looks == 0 {
            let polled = poll_call(self.io, Direction::Read, cx, |fd| self.call.call(fd));
            if polled.is_pending() {
                self.aside = Aside::now();
                self.ticket = Some(state.lane.enqueue(cx.waker(), 0));
            }
            return polled;
        }
        self.ticket = Some(state.lane.enqueue(cx.waker(), looks));
        drop(state);
        self.aside = look::stand_aside(cx, looks);
        Poll::Pending
    }

    fn poll_waiting(&mut self, ticket: Ticket, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        loop {
            if let Some(polled) = self.poll_once(ticket, cx) {
                return polled;
            }
            std::hint::spin_loop();
        }
    }

    /// `None` if it is to look again at once.
    fn poll_once(&mut self, ticket: Ticket, cx: &mut Context<'_>) -> Option<Poll<io::Result<T>>> {
        let mut state = self.gate.lock();
        if !state.lane.is_turn(ticket) {
            let replaced = state.lane.remember(ticket, cx.waker());
            drop(state);
            drop(replaced);
            return Some(Poll::Pending);
        }
        let State { lane, looks } = &mut *state;
        if let Some(left @ 1..) = lane.looks() {
            let worth_it = !self.gate.life.is_multi_thread() || self.aside.others_ran();
            match self.call.call(self.io.get_ref().as_fd()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    *left = if worth_it { *left - 1 } else { 0 };
                    if *left == 0 {
                        match self.busy.looked(self.aside) {
                            AfterLook::Park => {}
                            AfterLook::LetOthersRun => {
                                *left = 1;
                                drop(state);
                                self.aside = look::let_events_in(cx);
                                return Some(Poll::Pending);
                            }
                            AfterLook::LookAgain => {
                                *left = 1;
                                return None;
                            }
                        }
                    }
                    if let looks @ 1.. = *left {
                        drop(state);
                        self.aside = look::stand_aside(cx, looks);
                        return Some(Poll::Pending);
                    }
                    looks.second_found(false);
                }
                result => {
                    looks.second_found(worth_it);
                    return Some(self.served(ticket, state, result));
                }
            }
        }
        let Poll::Ready(result) = poll_call(self.io, Direction::Read, cx, |fd| self.call.call(fd))
        else {
            return Some(Poll::Pending);
        };
        if self.aside.many_ran() {
            state.looks.second_may_pay();
        }
        Some(self.served(ticket, state, result))
    }

    fn served(
        &mut self,
        ticket: Ticket,
        mut state: MutexGuard<'_, State>,
        result: io::Result<T>,
    ) -> Poll<io::Result<T>> {
        self.ticket = None;
        let wakers = state.lane.leave(ticket);
        drop(state);
        wakers.wake(&self.gate.settled);
        Poll::Ready(result)
    }
}

impl<F> Drop for Operation<'_, F> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket {
            let wakers = self.gate.lock().lane.leave(ticket);
            wakers.wake(&self.gate.settled);
        }
    }
}
