//! Receives, and callers who wait until there is one to make: as `backend/recv.rs` and `backend/socket.rs`.

use std::pin::Pin;
use std::task::Context;

use tokio::sync::futures::OwnedNotified;

use super::driver::ModelWork;
use super::kernel::number;
use super::{Gone, Model, Task};
use crate::common::policy::{ATTEMPTS, COPY_MAX, Conditions, Decision, RecvState, note_poll};
use crate::common::recv_queue::Outcome;
use crate::common::wait_queue::WaiterId;
use crate::epoll::readiness::Direction;

#[derive(Debug)]
pub(super) struct Receiver {
    id: Option<WaiterId>,
    state: RecvState,
    may_batch: bool,
    has_yielded: bool,
    has_parked: bool,
    pub(super) task: Task,
    /// It is never polled again.
    pub(super) frozen: bool,
}

/// A future that waits for readiness.
#[derive(Debug)]
pub(super) struct Readable {
    notified: Option<Pin<Box<OwnedNotified>>>,
    pub(super) task: Task,
}

/// Polls it. `None` while pending.
type Polled = Option<Result<Outcome<u64>, Gone>>;

impl Model {
    pub(super) fn deliver(&mut self, outcome: Outcome<u64>) {
        assert_eq!(number(outcome), self.delivered, "each once, and in order");
        self.delivered += 1;
    }

    pub(super) fn new_receive(&mut self, may_batch: bool) {
        self.receivers.push(Receiver {
            id: None,
            state: RecvState::new(),
            may_batch,
            has_yielded: false,
            has_parked: false,
            task: Task::new(),
            frozen: false,
        });
        self.poll_receive(self.receivers.len() - 1, false);
    }

    pub(super) fn poll_receive(&mut self, at: usize, busy: bool) {
        if self.receivers.get(at).is_none_or(|receiver| receiver.frozen) {
            return;
        }
        let mut receiver = self.receivers.remove(at);
        receiver.task.take_woken();
        note_poll();
        match self.poll_once(&mut receiver, busy) {
            Some(Ok(outcome)) => {
                assert!(receiver.id.is_none(), "it has left the queue");
                self.deliver(outcome);
            }
            Some(Err(Gone)) => assert!(receiver.id.is_none(), "it has left the queue"),
            None => self.receivers.insert(at, receiver),
        }
    }

    /// `busy` stands for `busy_poll`.
    fn poll_once(&mut self, receiver: &mut Receiver, busy: bool) -> Polled {
        if self.over {
            self.leave(receiver);
            return Some(Err(Gone));
        }
        if self.recv.completed().is_some() {
            return Some(Ok(self.claim(&mut receiver.id)));
        }
        if self.recv.is_submitted() || receiver.id.is_some() && self.recv.is_parked() {
            return self.wait(receiver);
        }
        let worker = if receiver.may_batch { self.batching_worker() } else { None };
        let conditions = Conditions {
            multi_thread: self.multi_thread,
            batched: worker.is_some(),
            alone: !self.recv.has_other_waiters(receiver.id),
            busy_until: None,
        };
        let mut decision = if self.recv.take_direct_next() {
            Decision::Call
        } else {
            self.policy.polled(&mut receiver.state, &conditions)
        };
        if decision == Decision::Call {
            receiver.state.asking();
            match self.kernel_receive() {
                None => {
                    self.recv.found_nothing();
                    decision = self.policy.found_nothing(&mut receiver.state, &conditions);
                }
                Some(found) => return Some(Ok(self.found(receiver, &conditions, found))),
            }
        }
        let is_retrying = receiver.has_yielded && !receiver.has_parked && conditions.alone;
        if decision == Decision::Park && busy && is_retrying {
            decision = Decision::YieldToEvents;
        }
        match decision {
            Decision::Call | Decision::Spin => unreachable!("no time is set for busy polling"),
            Decision::Yield | Decision::YieldToEvents => {
                drop(self.recv.retry(&mut receiver.id));
                receiver.state.yielding();
                receiver.has_yielded = true;
                receiver.task.waker.wake_by_ref();
                None
            }
            Decision::Queue => {
                let list = self.recv.queue_attempt();
                if list {
                    self.attempts_left = ATTEMPTS;
                }
                let pending = self.wait(receiver);
                if list && let Some(worker) = worker {
                    self.list(worker, ModelWork::Receive);
                }
                pending
            }
            Decision::Park => {
                receiver.has_parked = true;
                if !self.recv.is_parked() {
                    match self.park(Direction::Read, Self::kernel_receive) {
                        Ok(None) => self.recv.park(),
                        Ok(Some(found)) => {
                            return Some(Ok(self.found(receiver, &conditions, found)));
                        }
                        Err(gone) => {
                            self.policy.found(&receiver.state, &conditions);
                            let wakes = self.recv.served(&mut receiver.id);
                            self.called();
                            self.apply_wakes(wakes);
                            return Some(Err(gone));
                        }
                    }
                }
                receiver.state.yielding();
                self.wait(receiver)
            }
        }
    }

    fn wait(&mut self, receiver: &mut Receiver) -> Polled {
        drop(self.recv.wait(&mut receiver.id, &receiver.task.waker));
        if self.over {
            self.leave(receiver);
            return Some(Err(Gone));
        }
        None
    }

    fn found(
        &mut self,
        receiver: &mut Receiver,
        conditions: &Conditions,
        (outcome, bulky): (Outcome<u64>, bool),
    ) -> Outcome<u64> {
        self.policy.found(&receiver.state, conditions);
        if outcome.is_ok() {
            self.policy.note_message(if bulky { COPY_MAX + 1 } else { 1 }, false);
        }
        let wakes = self.recv.served(&mut receiver.id);
        self.called();
        self.apply_wakes(wakes);
        outcome
    }

    fn leave(&mut self, receiver: &mut Receiver) {
        let wakes = self.recv.leave(&mut receiver.id, receiver.state.has_asked());
        self.apply_wakes(wakes);
    }

    pub(super) fn drop_receive(&mut self, at: usize) {
        if at < self.receivers.len() {
            let mut receiver = self.receivers.remove(at);
            if receiver.id.is_some() {
                self.leave(&mut receiver);
            }
        }
    }

    fn claim(&mut self, id: &mut Option<WaiterId>) -> Outcome<u64> {
        let outcome = self.recv.take_completed().expect("the caller has seen it");
        let wakes = self.recv.served(id);
        self.did_without();
        self.apply_wakes(wakes);
        outcome
    }

    /// `None` stands for `WouldBlock`.
    pub(super) fn try_receive(&mut self) -> Result<Option<Outcome<u64>>, Gone> {
        self.check_runtime()?;
        if self.recv.completed().is_some() {
            return Ok(Some(self.claim(&mut None)));
        }
        if self.recv.is_submitted() {
            return Ok(None);
        }
        let Some((outcome, bulky)) = self.kernel_receive() else {
            self.recv.found_nothing();
            if self.recv.needs_parking() {
                match self.park_until_readable() {
                    Ok(true) => self.recv.park(),
                    Ok(false) | Err(Gone) => {
                        let wakes = self.recv.hand_over();
                        self.apply_wakes(wakes);
                    }
                }
            }
            return Ok(None);
        };
        if outcome.is_ok() {
            self.policy.note_message(if bulky { COPY_MAX + 1 } else { 1 }, false);
        }
        let wakes = self.recv.served(&mut None);
        self.called();
        self.apply_wakes(wakes);
        Ok(Some(outcome))
    }

    /// As `Messages`, and `Socket::end_stream`.
    pub(super) fn stream(&mut self, most: usize) {
        let mut messages = Vec::new();
        while messages.len() < most
            && let Ok(Some(outcome)) = self.try_receive()
        {
            match outcome {
                Ok(message) => messages.push(message),
                // It asks the kernel again once it has yielded what it had.
                Err(_) => {
                    messages.drain(..).for_each(|message| self.deliver(Ok(message)));
                    self.deliver(outcome);
                }
            }
        }
        let wakes = self.recv.leave_messages(messages.into_iter());
        self.apply_wakes(wakes);
    }

    /// The task that calls `poll_recv`.
    pub(super) fn poll_recv(&mut self) {
        let task = self.poller.take().unwrap_or_else(Task::new);
        task.take_woken();
        loop {
            match self.try_receive() {
                Ok(Some(outcome)) => return self.deliver(outcome),
                Ok(None) => {}
                Err(Gone) => return,
            }
            match self.poll_readable_waker(&task) {
                Ok(true) => break,
                Ok(false) => {}
                Err(Gone) => return,
            }
        }
        self.poller = Some(task);
    }

    fn poll_readable_waker(&mut self, task: &Task) -> Result<bool, Gone> {
        if self.recv.completed().is_some() {
            return Ok(false);
        }
        if !self.recv.is_submitted() && !self.recv.is_parked() {
            if !self.park_until_readable()? {
                return Ok(false);
            }
            self.recv.park();
        }
        drop(self.recv.observers.park(&task.waker));
        self.check_runtime()?;
        Ok(true)
    }

    pub(super) fn new_readable(&mut self) {
        self.readable.push(Readable { notified: None, task: Task::new() });
        self.poll_readable(self.readable.len() - 1);
    }

    /// As `Socket::ready`.
    pub(super) fn poll_readable(&mut self, at: usize) {
        let mut readable = self.readable.remove(at);
        readable.task.take_woken();
        loop {
            if let Some(notified) = &mut readable.notified {
                let polled = notified.as_mut().poll(&mut Context::from_waker(&readable.task.waker));
                if polled.is_pending() {
                    return self.readable.insert(at, readable);
                }
            }
            let notified = self.notify.notified_owned();
            let Ok(announced) = self.announce_readable() else { return };
            if self.is_readable_now() || self.over {
                return;
            }
            readable.notified = announced.then(|| Box::pin(notified));
        }
    }

    fn announce_readable(&mut self) -> Result<bool, Gone> {
        self.recv.observers.announce();
        let waits = self.recv.is_submitted() || self.recv.is_parked();
        if waits { Ok(true) } else { self.park_until_readable() }
    }

    fn is_readable_now(&mut self) -> bool {
        if self.recv.completed().is_some() {
            return true;
        }
        !self.recv.is_submitted() && !self.kernel.inbound.is_empty()
    }

    /// Checks the invariant of `recv_queue.rs`.
    pub(super) fn check_receives(&self) {
        assert!(
            !self.recv.is_queued() || self.recv.has_waiters(),
            "an attempt is queued for no receive: {:?}",
            self.recv
        );
        if self.closed || self.over || !self.recv.has_sleeping_waiter() {
            return;
        }
        let queue = &self.recv;
        let parked = queue.is_parked() && self.readiness.will_wake(Direction::Read);
        let attempted = queue.is_queued() && self.is_listed(ModelWork::Receive)
            || queue.is_submitted() && self.has_attempt();
        let relayed = queue.is_relaying() && self.is_listed(ModelWork::Relay);
        assert!(
            parked || attempted || relayed,
            "a waiter sleeps that nothing will wake: {queue:?}, {:?}",
            self.readiness
        );
    }
}
