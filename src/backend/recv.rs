//! A receive, from its first poll to its message or its drop. Accepting is the same without attempts.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, MutexGuard};
use std::task::{Context, Poll, ready};

use tokio::task::coop;

use super::core::{Core, RecvDirection};
use super::sink::Sink;
use crate::common::completed::Completed;
use crate::common::policy::{self, Conditions, Decision, RecvState};
use crate::common::recv_queue::{Outcome, RecvQueue};
use crate::common::wait_queue::WaiterId;
use crate::epoll::readiness::Direction;

/// A receive. It joins the queue at its first poll if it has to wait, and leaves it when it is dropped.
pub(crate) struct Receive<'a, S> {
    core: &'a Arc<Core>,
    sink: S,
    id: Option<WaiterId>,
    state: RecvState,
}

// Nothing in it is pinned: a sink is not a future.
impl<S> Unpin for Receive<'_, S> {}

impl<'a, S: Sink> Receive<'a, S> {
    pub(super) fn new(core: &'a Arc<Core>, sink: S) -> Self {
        Self { core, sink, id: None, state: RecvState::new() }
    }
}

impl<S: Sink> Future for Receive<'_, S> {
    type Output = io::Result<S::Output>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<S::Output>> {
        let coop = ready!(coop::poll_proceed(cx));
        policy::note_poll();
        let result = ready!(self.poll_once(cx));
        S::pay(coop);
        Poll::Ready(result)
    }
}

impl<S: Sink> Receive<'_, S> {
    fn poll_once(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<S::Output>> {
        let core = self.core;
        if let Err(gone) = core.runtime.check() {
            self.leave();
            return Poll::Ready(Err(gone));
        }
        loop {
            let mut recv = core.lock_recv();
            if recv.queue.completed().is_some() {
                return Poll::Ready(claim(core, recv, &mut self.id, &mut self.sink));
            }
            // An attempt is in a batch just now, or the receive is polled without having been woken.
            if recv.queue.is_submitted() || self.id.is_some() && recv.queue.is_parked() {
                return self.wait(recv, cx);
            }
            let worker = if self.sink.may_batch() { core.batching_worker() } else { None };
            let conditions = core.conditions(&recv.queue, self.id, worker.is_some());
            let mut decision = if recv.queue.take_direct_next() {
                Decision::Call
            } else {
                recv.policy.polled(&mut self.state, &conditions)
            };
            if decision == Decision::Call {
                self.state.asking();
                match self.sink.direct(&mut core.source(&mut recv.marks)) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        recv.queue.found_nothing();
                        decision = recv.policy.found_nothing(&mut self.state, &conditions);
                    }
                    result => return Poll::Ready(self.found(recv, &conditions, result)),
                }
            }
            match decision {
                Decision::Call | Decision::Spin => {
                    drop(recv);
                    std::hint::spin_loop();
                }
                Decision::Yield | Decision::YieldToEvents => {
                    let replaced = recv.queue.retry(&mut self.id);
                    drop(recv);
                    drop(replaced);
                    self.state.yielding();
                    policy::yield_now(cx, decision);
                    return Poll::Pending;
                }
                Decision::Queue => {
                    let list = recv.queue.queue_attempt();
                    if list {
                        recv.attempts_left = policy::ATTEMPTS;
                    }
                    let pending = self.wait(recv, cx);
                    if list && let Some(worker) = worker {
                        core.list_receive(worker);
                    }
                    return pending;
                }
                Decision::Park => return self.park(recv, &conditions, cx),
            }
        }
    }

    fn park(
        &mut self,
        mut recv: MutexGuard<'_, RecvDirection>,
        conditions: &Conditions,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<S::Output>> {
        let core = self.core;
        if !recv.queue.is_parked() {
            match core
                .park(Direction::Read, || self.sink.direct(&mut core.source(&mut recv.marks)))
                .transpose()
            {
                None => recv.queue.park(),
                Some(result) => return Poll::Ready(self.found(recv, conditions, result)),
            }
        }
        self.state.yielding();
        self.wait(recv, cx)
    }

    fn wait(
        &mut self,
        mut recv: MutexGuard<'_, RecvDirection>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<S::Output>> {
        let replaced = recv.queue.wait(&mut self.id, cx.waker());
        drop(recv);
        drop(replaced);
        // What waited when the runtime ended has been woken. This receive may have come after that.
        if let Err(gone) = self.core.runtime.check() {
            self.leave();
            return Poll::Ready(Err(gone));
        }
        Poll::Pending
    }

    /// Completes the receive with the message or error of a direct call.
    fn found(
        &mut self,
        mut recv: MutexGuard<'_, RecvDirection>,
        conditions: &Conditions,
        result: io::Result<S::Output>,
    ) -> io::Result<S::Output> {
        recv.policy.found(&self.state, conditions);
        self.core.received_directly(recv, &mut self.id, &self.sink, result)
    }

    fn leave(&mut self) {
        let wakes = self.core.lock_recv().queue.leave(&mut self.id, self.state.has_asked());
        self.core.apply(wakes);
    }
}

impl<S> Drop for Receive<'_, S> {
    fn drop(&mut self) {
        if self.id.is_some() {
            let wakes = self.core.lock_recv().queue.leave(&mut self.id, self.state.has_asked());
            self.core.apply(wakes);
        }
    }
}

/// Claims the completed message or error.
fn claim<S: Sink>(
    core: &Arc<Core>,
    mut recv: MutexGuard<'_, RecvDirection>,
    id: &mut Option<WaiterId>,
    sink: &mut S,
) -> io::Result<S::Output> {
    let outcome = recv.queue.take_completed();
    let wakes = recv.queue.served(id);
    match outcome {
        Some(Ok(mut message)) if message.control.is_empty() => {
            let control = std::mem::take(&mut message.control);
            let output = sink.deliver(&message.bytes, message.received, control);
            count_claimed(core, message.counted, sink, &output);
            if message.bytes.capacity() <= policy::COPY_MAX {
                recv.spare = Some(message);
            }
            drop(recv);
            core.did_without();
            core.apply(wakes);
            output
        }
        outcome => {
            drop(recv);
            core.did_without();
            core.apply(wakes);
            // Closing descriptors that the receive does not take can be slow, so it is not done under the lock.
            let Completed { bytes, control, received, counted } = *from_errno(outcome)?;
            let output = sink.deliver(&bytes, received, control);
            count_claimed(core, counted, sink, &output);
            output
        }
    }
}

/// Counts a completed message, unless the stream that left it has counted it.
fn count_claimed<S: Sink>(core: &Core, counted: bool, sink: &S, output: &io::Result<S::Output>) {
    if let Ok(output) = output
        && !counted
    {
        core.received.add(sink.measure(output));
    }
}

fn from_errno(outcome: Option<Outcome<Box<Completed>>>) -> io::Result<Box<Completed>> {
    match outcome {
        Some(outcome) => outcome.map_err(io::Error::from_raw_os_error),
        None => Err(io::ErrorKind::WouldBlock.into()),
    }
}

impl Core {
    /// Receives without waiting.
    ///
    /// # Errors
    /// Returns `WouldBlock` if there is nothing, or if an attempt is in a batch just now.
    pub(super) fn try_receive<S: Sink>(self: &Arc<Self>, sink: &mut S) -> io::Result<S::Output> {
        self.runtime.check()?;
        let mut recv = self.lock_recv();
        if recv.queue.completed().is_some() {
            recv.polled = RecvState::new();
            return claim(self, recv, &mut None, sink);
        }
        if recv.queue.is_submitted() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        match sink.direct(&mut self.source(&mut recv.marks)) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                recv.queue.found_nothing();
                if recv.queue.needs_parking() {
                    match self.park_until_readable() {
                        Ok(true) => recv.queue.park(),
                        // The waiters ask by themselves.
                        Ok(false) | Err(_) => {
                            let wakes = recv.queue.hand_over();
                            drop(recv);
                            self.apply(wakes);
                        }
                    }
                }
                Err(error)
            }
            result => {
                let polled = std::mem::replace(&mut recv.polled, RecvState::new());
                let conditions = self.conditions(&recv.queue, None, false);
                recv.policy.found(&polled, &conditions);
                self.received_directly(recv, &mut None, sink, result)
            }
        }
    }

    /// Completes a receive with the message or error of a direct call.
    fn received_directly<S: Sink>(
        self: &Arc<Self>,
        mut recv: MutexGuard<'_, RecvDirection>,
        id: &mut Option<WaiterId>,
        sink: &S,
        result: io::Result<S::Output>,
    ) -> io::Result<S::Output> {
        if let Ok(output) = &result {
            let carried = sink.measure(output);
            self.received.add(carried);
            recv.policy.note_message(sink.message_len(output), carried.fds > 0);
        }
        let wakes = recv.queue.served(id);
        drop(recv);
        self.called();
        self.apply(wakes);
        result
    }

    /// Receives, or registers the task to be woken when there may be a message. Only the waker is left waiting.
    ///
    /// With [`Sink::POLL_RETRIES`] it yields and calls again before that, as [`Receive`] does.
    pub(super) fn poll_receive<S: Sink>(
        self: &Arc<Self>,
        cx: &mut Context<'_>,
        sink: &mut S,
    ) -> Poll<io::Result<S::Output>> {
        let coop = ready!(coop::poll_proceed(cx));
        policy::note_poll();
        loop {
            match self.try_receive(sink) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => {
                    S::pay(coop);
                    return Poll::Ready(result);
                }
            }
            let decision = if S::POLL_RETRIES { self.poll_found_nothing() } else { Decision::Park };
            match decision {
                Decision::Yield | Decision::YieldToEvents => {
                    policy::yield_now(cx, decision);
                    return Poll::Pending;
                }
                Decision::Spin => {
                    std::hint::spin_loop();
                    continue;
                }
                Decision::Call | Decision::Queue | Decision::Park => {}
            }
            // Between the two the message may have come: it is asked for again once the waker is registered.
            if ready!(self.poll_readable_waker(cx, S::IS_STREAM))? {
                return Poll::Pending;
            }
        }
    }

    /// Returns what a receive by `poll_*` calls does after the kernel had nothing.
    fn poll_found_nothing(&self) -> Decision {
        let mut recv = self.lock_recv();
        let RecvDirection { queue, policy, polled, .. } = &mut *recv;
        let decision = policy.found_nothing(polled, &self.conditions(queue, None, false));
        if decision != Decision::Spin {
            polled.yielding();
        }
        decision
    }

    fn conditions(
        &self,
        queue: &RecvQueue<Box<Completed>>,
        id: Option<WaiterId>,
        batched: bool,
    ) -> Conditions {
        Conditions {
            multi_thread: self.runtime.is_multi_thread(),
            batched,
            alone: !queue.has_other_waiters(id),
            busy_until: self.runtime.busy_until(),
        }
    }

    /// Registers the waker of a `poll_*` call. Returns `Ready(false)` if something has come since the kernel was asked.
    pub(super) fn poll_readable_waker(
        self: &Arc<Self>,
        cx: &mut Context<'_>,
        is_stream: bool,
    ) -> Poll<io::Result<bool>> {
        let mut recv = self.lock_recv();
        if recv.queue.completed().is_some() {
            return Poll::Ready(Ok(false));
        }
        if !recv.queue.is_submitted() && !recv.queue.is_parked() {
            if !self.park_until_readable()? {
                return Poll::Ready(Ok(false));
            }
            recv.queue.park();
        }
        let observers = &mut recv.queue.observers;
        let replaced =
            if is_stream { observers.park_stream(cx.waker()) } else { observers.park(cx.waker()) };
        drop(recv);
        drop(replaced);
        self.runtime.check()?;
        Poll::Ready(Ok(true))
    }
}
