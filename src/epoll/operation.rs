//! The receiving direction of a socket, and one call in it. Keeps the registration for readiness, too.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use tokio::io::Interest;
use tokio::task::coop;

use super::lane::{Lane, Ticket};
use super::registration::{self, GivenUp, Registration, Waits};
use crate::async_fd;
use crate::budget;
use crate::foreign;
use crate::lane::remember;
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
    io: &Registration,
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
/// registration; through `try_io`, so that readiness found wrong is cleared.
pub(super) fn try_call<T>(
    io: &Registration,
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

/// The receiving direction, or that of accepting: its line, what looks have found in it, and the
/// registration, which the sending direction borrows.
#[derive(Debug)]
pub(super) struct Gate {
    /// Shared with the registration.
    fd: Arc<OwnedFd>,
    state: Mutex<State>,
    /// Whether there is a registration, as the last who had the lock left it.
    registered: AtomicBool,
    /// It is for both directions; else for receiving only, and sends that the peer takes cost no events.
    is_wide: AtomicBool,
    /// One that was given up is being dropped.
    giving_up: AtomicBool,
    /// How many calls in a row did without it.
    unused: AtomicU8,
    /// How many sends stand in line.
    senders: AtomicU32,
    /// Told when a direction settles that somebody watches.
    settled: Bell,
    life: Arc<Life>,
}

#[derive(Debug, Default)]
struct State {
    lane: Lane,
    looks: Looks,
    waits: Waits,
    /// The receive that was last parked with a registration for receiving only.
    parked: Option<Waker>,
}

/// A send stands in line until this is dropped.
#[derive(Debug)]
pub(super) struct InLine<'a>(&'a AtomicU32);

impl Drop for InLine<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The registration is given up after so many calls that did not need it. To give it up and make it anew
/// costs as much as some ten events.
const UNUSED: u8 = 64;

impl Gate {
    /// # Errors
    /// The runtime has no I/O driver, or it is going.
    pub(super) fn new(fd: OwnedFd, life: &Arc<Life>) -> io::Result<Self> {
        let gate = Self {
            fd: Arc::new(fd),
            state: Mutex::default(),
            registered: AtomicBool::new(false),
            is_wide: AtomicBool::new(false),
            giving_up: AtomicBool::new(false),
            unused: AtomicU8::new(0),
            senders: AtomicU32::new(0),
            settled: Bell::default(),
            life: life.clone(),
        };
        if !life.has_driver() {
            // Registering tells, and nothing else does.
            gate.needed(&mut gate.lock())?;
            life.found_driver();
        }
        Ok(gate)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing under this lock panics half-way or runs foreign code.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    pub(super) fn into_fd(self) -> OwnedFd {
        drop(self.state);
        Arc::into_inner(self.fd).expect("no call is under way, and the registration is gone")
    }

    /// Room in the peer's queue, or the task is woken when there may be some.
    pub(super) fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.needed(&mut self.lock_wide())?.poll_write_ready(cx))?.retain_ready();
        Poll::Ready(Ok(()))
    }

    /// Call the kernel at once; readiness found wrong is cleared, where anybody looks at it.
    pub(super) fn call_now<T>(
        &self,
        direction: Direction,
        mut call: impl FnMut(BorrowedFd<'_>) -> io::Result<T>,
    ) -> io::Result<T> {
        if self.registered.load(Ordering::Acquire) {
            self.call_with(&self.lock(), direction, call)
        } else {
            call(self.fd())
        }
    }

    fn call_with<T>(
        &self,
        state: &State,
        direction: Direction,
        mut call: impl FnMut(BorrowedFd<'_>) -> io::Result<T>,
    ) -> io::Result<T> {
        match state.waits.registration() {
            Some(registration) => try_call(registration, direction, call),
            None => call(self.fd()),
        }
    }

    /// A registration for who stands in no line.
    pub(super) fn lasting_registration(&self) -> io::Result<Arc<Registration>> {
        self.lasting(&mut self.lock_wide())
    }

    /// As [`lock`](Self::lock); a registration is for both directions.
    fn lock_wide(&self) -> MutexGuard<'_, State> {
        loop {
            let mut state = self.lock();
            if self.is_wide.load(Ordering::Relaxed) {
                return state;
            }
            self.is_wide.store(true, Ordering::Relaxed);
            // Made anew for both. A receive that is parked with the old one has to hear of that.
            let narrow = state.waits.is_passing().then(|| state.waits.give_up(&self.giving_up));
            let parked = state.parked.take();
            drop(state);
            drop(narrow);
            if let Some(waker) = parked {
                foreign::wake(waker);
            }
        }
    }

    fn lasting(&self, state: &mut State) -> io::Result<Arc<Registration>> {
        let registration = state.waits.lasting(|| self.register())?;
        self.registered.store(true, Ordering::Release);
        Ok(registration)
    }

    /// The registration, for who has to wait now; made if there is none.
    fn needed<'s>(&self, state: &'s mut State) -> io::Result<&'s Registration> {
        let registration = state.waits.needed(|| self.register())?;
        self.unused.store(0, Ordering::Relaxed);
        if !self.registered.load(Ordering::Relaxed) {
            self.registered.store(true, Ordering::Release);
        }
        Ok(registration)
    }

    fn register(&self) -> io::Result<Registration> {
        let is_wide = self.is_wide.load(Ordering::Relaxed);
        let interest = if is_wide { async_fd::BOTH } else { Interest::READABLE };
        registration::make(&self.fd, interest, &self.life, &self.giving_up)
    }

    /// Count a call that did not need the registration; whether there have been enough of them to give
    /// that up. Begins anew then.
    fn did_enough_without(&self) -> bool {
        // Not exact where several threads count, and need not be.
        let unused = self.unused.load(Ordering::Relaxed) + 1;
        self.unused.store(unused % UNUSED, Ordering::Relaxed);
        unused == UNUSED
    }

    /// A receive did not need the registration. It comes back if it is to be given up, to be dropped after
    /// the lock is gone: there may be wakers in it.
    fn did_without(&self, state: &mut State) -> Option<GivenUp<'_>> {
        if state.waits.is_passing() && self.did_enough_without() {
            self.give_up(state)
        } else {
            None
        }
    }

    fn give_up(&self, state: &mut State) -> Option<GivenUp<'_>> {
        // A send that comes to wait after this makes another.
        if !state.waits.is_passing() || self.senders.load(Ordering::Relaxed) > 0 {
            return None;
        }
        self.registered.store(false, Ordering::Relaxed);
        self.is_wide.store(false, Ordering::Relaxed);
        Some(state.waits.give_up(&self.giving_up))
    }

    /// A send went out without waiting.
    pub(super) fn sent_directly(&self) {
        if self.registered.load(Ordering::Relaxed) && self.did_enough_without() {
            let mut state = self.lock();
            let given_up = if state.lane.is_idle() { self.give_up(&mut state) } else { None };
            drop(state);
            drop(given_up);
        }
    }

    /// A send is about to stand in line.
    pub(super) fn in_line(&self) -> InLine<'_> {
        self.senders.fetch_add(1, Ordering::Relaxed);
        InLine(&self.senders)
    }

    pub(super) fn life(&self) -> &Life {
        &self.life
    }

    pub(super) fn settled(&self) -> &Bell {
        &self.settled
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
        cx: &mut Context<'_>,
        call: impl FnMut(BorrowedFd<'_>) -> io::Result<T>,
    ) -> Poll<io::Result<T>> {
        self.life.check()?;
        let mut state = self.lock_wide();
        // Also where the lane is idle: a call that comes and waits takes over the one waker that
        // tokio keeps for a direction.
        let polled = if state.lane.is_idle() {
            poll_call(&*self.lasting(&mut state)?, Direction::Read, cx, call)
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
        call: impl FnMut(BorrowedFd<'_>) -> io::Result<T>,
    ) -> io::Result<T> {
        self.life.check()?;
        let state = self.lock();
        if !state.lane.is_idle() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.call_with(&state, Direction::Read, call)
    }

    /// Wait in line, then call the kernel.
    pub(super) fn operation<T, F>(&self, call: F) -> Operation<'_, F>
    where
        F: FnMut(BorrowedFd<'_>) -> io::Result<T>,
    {
        self.request(call)
    }

    /// As [`operation`](Self::operation), of a type that has a name.
    pub(super) fn request<F: Request>(&self, call: F) -> Operation<'_, F> {
        let (aside, busy) = (Aside::now(), Busy::default());
        Operation { gate: self, call, ticket: None, aside, busy }
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
            match self.call.call(self.gate.fd()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    state.looks.first_found(false);
                }
                result => {
                    state.looks.first_found(true);
                    let given_up = self.gate.did_without(&mut state);
                    drop(state);
                    drop(given_up);
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
            let polled = self.poll_readiness(&mut state, cx);
            if polled.is_pending() {
                self.aside = Aside::now();
                self.ticket = Some(state.lane.enqueue(cx.waker(), 0));
                self.parked(state, cx);
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
        let State { lane, looks, .. } = &mut *state;
        if let Some(left @ 1..) = lane.looks() {
            let worth_it = !self.gate.life.is_multi_thread() || self.aside.others_ran();
            match self.call.call(self.gate.fd()) {
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
                    let given_up = self.gate.did_without(&mut state);
                    return Some(self.served(ticket, state, given_up, result));
                }
            }
        }
        let Poll::Ready(result) = self.poll_readiness(&mut state, cx) else {
            self.parked(state, cx);
            return Some(Poll::Pending);
        };
        if self.aside.many_ran() {
            state.looks.second_may_pay();
        }
        Some(self.served(ticket, state, None, result))
    }

    /// Call the kernel when epoll says so.
    fn poll_readiness(&mut self, state: &mut State, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        if state.waits.registration().is_none() {
            // Of a message that is there already a new registration learns later.
            match self.call.call(self.gate.fd()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result),
            }
        }
        let gate = self.gate;
        poll_call(gate.needed(state)?, Direction::Read, cx, |fd| self.call.call(fd))
    }

    /// It waits for readiness.
    fn parked(&self, mut state: MutexGuard<'_, State>, cx: &Context<'_>) {
        if !self.gate.is_wide.load(Ordering::Relaxed) {
            let replaced = remember(&mut state.parked, cx.waker());
            drop(state);
            drop(replaced);
        }
    }

    fn served(
        &mut self,
        ticket: Ticket,
        mut state: MutexGuard<'_, State>,
        given_up: Option<GivenUp<'_>>,
        result: io::Result<T>,
    ) -> Poll<io::Result<T>> {
        self.ticket = None;
        let wakers = state.lane.leave(ticket);
        drop(state);
        // Before anybody is woken: who registers anew waits for this.
        drop(given_up);
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
