//! The drivers of two workers, as in `backend/driver.rs`, and what they do for a socket, as in `backend/core.rs`.

use std::collections::VecDeque;
use std::io;

use super::{Fate, Gone, Model};
use crate::common::idle_notify::WakeList;
use crate::common::policy::COPY_MAX;
use crate::common::recv_queue::{Outcome, Wakes};
use crate::common::send_queue::Effects;

const SENDS_AT_ONCE: usize = 3;
const MODEL_CALLS_PER_SAMPLE: u32 = 3;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ModelWork {
    Send,
    Receive,
    Relay,
}

#[derive(Debug)]
pub(super) struct ModelWorker {
    pub(super) listed: Vec<ModelWork>,
    awake: bool,
    pub(super) waker: bool,
    pub(super) dead: bool,
    pub(super) batched: bool,
    pub(super) has_ring: bool,
    pub(super) filtered: bool,
    calls: u32,
    /// The driver's task has been woken.
    woken: bool,
    is_behind: bool,
    pub(super) pass: Option<Pass>,
}

impl ModelWorker {
    pub(super) fn new(batched: bool) -> Self {
        Self {
            listed: Vec::new(),
            awake: false,
            waker: false,
            dead: false,
            batched,
            has_ring: true,
            filtered: false,
            calls: 0,
            // It was spawned.
            woken: true,
            is_behind: false,
            pass: None,
        }
    }

    pub(super) fn is_runnable(&self) -> bool {
        !self.dead && (self.woken || self.pass.is_some())
    }

    fn wake(&mut self) {
        if !std::mem::replace(&mut self.awake, true) {
            self.woken |= std::mem::take(&mut self.waker);
        }
    }
}

/// What a pass does next.
#[derive(Debug, Clone, Copy)]
enum Next {
    /// The next of the sockets that were listed.
    Listed,
    /// One of the sends that are made by system calls, and how many more.
    Call(usize),
    /// The batch, operation by operation.
    RunSend,
    RunReceive,
    ReportReceive,
    ReportSend,
    /// A send was not made.
    PutBack {
        send: (usize, u64),
        park: bool,
        batched: bool,
    },
    ParkSend {
        batched: bool,
    },
    Finish,
    Wake,
}

#[derive(Debug)]
enum ModelSent {
    Done(io::Result<usize>),
    NotTaken,
    Unknown,
}

#[derive(Debug, Clone, Copy)]
enum ModelAttempt {
    RecvMeta(Outcome<u64>, bool),
    Nothing,
    Refused,
    NotTaken,
}

#[derive(Debug)]
pub(super) struct Pass {
    next: Next,
    had_work: bool,
    listed: VecDeque<ModelWork>,
    send: Option<(usize, u64)>,
    sent: Option<ModelSent>,
    receives: bool,
    attempt: ModelAttempt,
    again: Vec<ModelWork>,
    wakers: WakeList,
}

impl Model {
    pub(super) fn list(&mut self, worker: usize, work: ModelWork) {
        if self.workers[worker].dead {
            let mut wakers = WakeList::default();
            self.wake_all(&mut wakers);
            wakers.wake_all();
            return;
        }
        self.workers[worker].listed.push(work);
        self.workers[worker].wake();
    }

    pub(super) fn list_send(&mut self, worker: usize) {
        if self.send.list() {
            self.list(worker, ModelWork::Send);
        }
    }

    pub(super) fn is_listed(&self, work: ModelWork) -> bool {
        self.workers.iter().any(|worker| {
            let pass = worker.pass.iter();
            let in_pass = |pass: &Pass| pass.listed.contains(&work) || pass.again.contains(&work);
            worker.listed.contains(&work) || pass.into_iter().any(in_pass)
        })
    }

    pub(super) fn has_attempt(&self) -> bool {
        self.workers.iter().any(|worker| worker.pass.as_ref().is_some_and(|pass| pass.receives))
    }

    /// Whether a driver continues with the sends that wait.
    pub(super) fn has_sends_in_hand(&self) -> bool {
        self.workers.iter().any(|worker| {
            worker.pass.as_ref().is_some_and(|pass| {
                matches!(pass.next, Next::Call(_) | Next::PutBack { .. } | Next::ParkSend { .. })
            })
        })
    }

    pub(super) fn called(&mut self) {
        self.did_without();
        let worker = self.some_worker();
        let worker = &mut self.workers[worker];
        worker.calls += 1;
        if worker.calls.is_multiple_of(MODEL_CALLS_PER_SAMPLE) {
            worker.wake();
        }
    }

    pub(super) fn did_without(&mut self) {
        if self.readiness.did_without() {
            let sends_wait = !self.send.is_idle() || self.send.observers.any();
            if self.recv.unpark() || sends_wait {
                self.readiness.is_used();
            } else {
                self.readiness.drop_unused();
            }
        }
    }

    pub(super) fn apply_wakes(&mut self, wakes: Wakes) {
        if wakes.relay {
            self.list(self.some_worker(), ModelWork::Relay);
        }
        if let Some(waker) = wakes.one {
            waker.wake();
        }
        let mut list = WakeList::default();
        wakes.observers.collect(&self.notify, &mut list);
        list.wake_all();
    }

    pub(super) fn collect_effects(&mut self, effects: Effects<u64>, wakers: &mut WakeList) {
        wakers.wakers.extend(effects.one);
        effects.observers.collect(&self.notify, wakers);
    }

    fn collect(&mut self, wakes: Wakes, wakers: &mut WakeList) -> bool {
        wakers.wakers.extend(wakes.one);
        wakes.observers.collect(&self.notify, wakers);
        wakes.relay
    }

    pub(super) fn wake_all(&mut self, wakers: &mut WakeList) {
        let observers = self.recv.wake_all(&mut wakers.wakers);
        observers.collect(&self.notify, wakers);
        let observers = self.send.wake_all(&mut wakers.wakers);
        observers.collect(&self.notify, wakers);
    }

    /// `Core::wake`, without `fired`.
    pub(super) fn signal_or_wake_all(&mut self) {
        let mut wakers = WakeList::default();
        if self.over {
            self.wake_all(&mut wakers);
        } else {
            self.signal(&mut wakers);
        }
        wakers.wake_all();
    }

    fn signal(&mut self, wakers: &mut WakeList) {
        let worker = self.some_worker();
        let batched = self.workers[worker].batched;
        let attempts = batched && self.recv.has_waiters() && self.policy.may_batch();
        let woken = if attempts { self.recv.signal_observers() } else { self.recv.signal() };
        let list = attempts && self.recv.queue_attempt();
        if list {
            self.attempts_left = 1;
            self.list(worker, ModelWork::Receive);
        }
        if self.collect(woken, wakers) {
            self.list(worker, ModelWork::Relay);
        }
        let list = self.send.list();
        let observers = self.send.observers.wake();
        if list {
            self.list(worker, ModelWork::Send);
        }
        observers.collect(&self.notify, wakers);
    }

    // ----- the driver's task -----

    /// Runs to the end of a pass, if one has begun or is about to begin.
    pub(super) fn pass(&mut self, worker: usize) {
        let before = self.workers[worker].is_behind;
        self.poll_driver(worker);
        if !before {
            self.poll_driver(worker);
        }
    }

    pub(super) fn poll_driver(&mut self, worker: usize) {
        self.drive(worker, Fate::Normal);
        while self.workers[worker].pass.is_some() {
            self.drive(worker, Fate::Normal);
        }
    }

    /// Runs one step.
    pub(super) fn drive(&mut self, at: usize, fate: Fate) {
        let worker = &mut self.workers[at];
        if worker.dead {
            return;
        }
        let Some(mut pass) = worker.pass.take() else {
            if !std::mem::take(&mut worker.woken) {
                return;
            }
            if !std::mem::replace(&mut worker.is_behind, true) {
                worker.woken = true;
                return;
            }
            let listed = VecDeque::from(std::mem::take(&mut worker.listed));
            worker.pass = Some(Pass {
                next: Next::Listed,
                had_work: !listed.is_empty(),
                listed,
                send: None,
                sent: None,
                receives: false,
                attempt: ModelAttempt::NotTaken,
                again: Vec::new(),
                wakers: WakeList::default(),
            });
            return;
        };
        if let Some(next) = self.drive_pass(at, &mut pass, fate) {
            pass.next = next;
            self.workers[at].pass = Some(pass);
            return;
        }
        let worker = &mut self.workers[at];
        if pass.had_work {
            worker.woken = true;
            return;
        }
        worker.is_behind = false;
        if worker.listed.is_empty() {
            (worker.awake, worker.waker) = (false, true);
        } else {
            worker.woken = true;
        }
    }

    fn drive_pass(&mut self, at: usize, pass: &mut Pass, fate: Fate) -> Option<Next> {
        let fate = if self.workers[at].filtered { Fate::Refused } else { fate };
        let next = match pass.next {
            Next::Listed => match pass.listed.pop_front() {
                Some(work) => self.attend_to(at, work, pass),
                None if pass.send.is_some() => Next::RunSend,
                None if pass.receives => Next::RunReceive,
                None => Next::Finish,
            },
            Next::Call(0) => {
                self.relist_send(pass);
                Next::Listed
            }
            Next::Call(left) => match self.send.next() {
                None => Next::Listed,
                Some(send) if self.kernel_send(send.1).is_none() => {
                    Next::PutBack { send, park: true, batched: false }
                }
                Some(send) => {
                    self.complete_send(send, Ok(1), &mut pass.wakers);
                    Next::Call(left - 1)
                }
            },
            Next::RunSend => {
                let (_, message) = pass.send.expect("checked before");
                pass.sent = Some(self.run_send(at, message, fate));
                if pass.receives { Next::RunReceive } else { Next::ReportSend }
            }
            Next::RunReceive => {
                pass.attempt = self.run_receive(at, fate);
                Next::ReportReceive
            }
            Next::ReportReceive => {
                pass.receives = false;
                self.attempt_done(pass);
                Next::ReportSend
            }
            Next::ReportSend => match (pass.send.take(), pass.sent.take()) {
                (Some(send), Some(sent)) => self.report_send(send, sent, pass),
                _ => Next::Finish,
            },
            Next::PutBack { send, park, batched } => self.put_back(send, park, batched, pass),
            Next::ParkSend { batched } => {
                if self.park_send(&mut pass.wakers) {
                    self.relist_send(pass);
                }
                after_send(batched)
            }
            Next::Finish => {
                let worker = &mut self.workers[at];
                worker.batched &= worker.has_ring;
                if !self.closed || !pass.again.is_empty() {
                    worker.awake |= !pass.again.is_empty();
                    pass.again.append(&mut worker.listed);
                    std::mem::swap(&mut worker.listed, &mut pass.again);
                }
                Next::Wake
            }
            Next::Wake => {
                pass.wakers.wake_all();
                return None;
            }
        };
        Some(next)
    }

    fn attend_to(&mut self, at: usize, work: ModelWork, pass: &mut Pass) -> Next {
        match work {
            ModelWork::Send => {
                self.send.unlist();
                match self.send.waiting() {
                    0 => {}
                    1 if self.workers[at].has_ring => pass.send = pass.send.or(self.send.next()),
                    _ => return Next::Call(SENDS_AT_ONCE),
                }
            }
            ModelWork::Receive => pass.receives |= self.recv.submit(),
            ModelWork::Relay => {
                let woken = self.recv.relay();
                if self.collect(woken, &mut pass.wakers) {
                    pass.again.push(ModelWork::Relay);
                }
            }
        }
        Next::Listed
    }

    fn run_send(&mut self, at: usize, message: u64, fate: Fate) -> ModelSent {
        let would_block = || ModelSent::Done(Err(io::ErrorKind::WouldBlock.into()));
        match fate {
            _ if !self.workers[at].has_ring => ModelSent::NotTaken,
            Fate::Normal => {
                self.kernel_send(message).map_or_else(would_block, |()| ModelSent::Done(Ok(1)))
            }
            Fate::Cancelled => would_block(),
            // `sent_in_batch` makes the call then.
            Fate::Refused => ModelSent::Done(Err(io::ErrorKind::PermissionDenied.into())),
            Fate::NotTaken => {
                self.workers[at].has_ring = false;
                ModelSent::NotTaken
            }
            Fate::Unknown => {
                self.workers[at].has_ring = false;
                self.sends.lost.insert(message);
                let _ = self.kernel_send(message);
                ModelSent::Unknown
            }
        }
    }

    fn run_receive(&mut self, at: usize, fate: Fate) -> ModelAttempt {
        match fate {
            _ if !self.workers[at].has_ring => ModelAttempt::NotTaken,
            Fate::Normal => {
                self.kernel_receive().map_or(ModelAttempt::Nothing, |(outcome, bulky)| {
                    ModelAttempt::RecvMeta(outcome, bulky)
                })
            }
            Fate::Cancelled => ModelAttempt::Nothing,
            Fate::Refused => ModelAttempt::Refused,
            Fate::NotTaken | Fate::Unknown => {
                self.workers[at].has_ring = false;
                ModelAttempt::NotTaken
            }
        }
    }

    fn attempt_done(&mut self, pass: &mut Pass) {
        let (woken, closed) = match pass.attempt {
            ModelAttempt::RecvMeta(outcome, bulky) => {
                if outcome.is_ok() {
                    self.policy.note_message(if bulky { COPY_MAX + 1 } else { 1 }, false);
                }
                self.recv.complete(outcome)
            }
            ModelAttempt::Nothing => return self.attempt_was_empty(pass),
            ModelAttempt::Refused | ModelAttempt::NotTaken => {
                self.recv.attempt_over(false);
                (self.recv.hand_over(), None)
            }
        };
        assert!(closed.is_none() || self.closed, "no message is thrown away");
        if self.collect(woken, &mut pass.wakers) {
            pass.again.push(ModelWork::Relay);
        }
    }

    fn attempt_was_empty(&mut self, pass: &mut Pass) {
        self.recv.attempt_over(true);
        if !self.recv.has_waiters() || self.recv.is_closed() {
            let observers = self.recv.observers.wake();
            observers.collect(&self.notify, &mut pass.wakers);
            return;
        }
        self.attempts_left = self.attempts_left.saturating_sub(1);
        if self.attempts_left == 0 {
            match self.park_until_readable() {
                Ok(true) => return self.recv.park(),
                Ok(false) => self.attempts_left = 1,
                Err(Gone) => {
                    let woken = self.recv.hand_over();
                    if self.collect(woken, &mut pass.wakers) {
                        pass.again.push(ModelWork::Relay);
                    }
                    return;
                }
            }
        }
        if self.recv.queue_attempt() {
            pass.again.push(ModelWork::Receive);
        }
    }

    fn report_send(&mut self, send: (usize, u64), sent: ModelSent, pass: &mut Pass) -> Next {
        let result = match sent {
            ModelSent::NotTaken => return Next::PutBack { send, park: false, batched: true },
            ModelSent::Unknown => {
                let error = io::Error::other("unknown");
                let effects = self.send.complete(send.0, None, Err(error));
                self.collect_effects(effects, &mut pass.wakers);
                self.relist_send(pass);
                return Next::Finish;
            }
            ModelSent::Done(Err(error)) if error.kind() == io::ErrorKind::PermissionDenied => self
                .kernel_send(send.1)
                .map_or_else(|| Err(io::ErrorKind::WouldBlock.into()), |()| Ok(1)),
            ModelSent::Done(result) => result,
        };
        if result.is_err() {
            return Next::PutBack { send, park: true, batched: true };
        }
        self.complete_send(send, result, &mut pass.wakers);
        self.did_without();
        self.relist_send(pass);
        Next::Finish
    }

    fn complete_send(
        &mut self,
        (slot, message): (usize, u64),
        result: io::Result<usize>,
        wakers: &mut WakeList,
    ) {
        let effects = self.send.complete(slot, Some(message), result);
        self.collect_effects(effects, wakers);
    }

    fn put_back(
        &mut self,
        (slot, message): (usize, u64),
        park: bool,
        batched: bool,
        pass: &mut Pass,
    ) -> Next {
        let effects = self.send.put_back(slot, message);
        if effects.release.is_some() {
            self.sends.unsent.insert(message);
        }
        let waits = self.send.waiting() > 0;
        self.collect_effects(effects, &mut pass.wakers);
        if waits && park {
            return Next::ParkSend { batched };
        }
        if waits {
            self.relist_send(pass);
        }
        after_send(batched)
    }

    fn relist_send(&mut self, pass: &mut Pass) {
        if self.send.list() {
            pass.again.push(ModelWork::Send);
        }
    }

    fn park_send(&mut self, wakers: &mut WakeList) -> bool {
        match self.park_until_writable() {
            Ok(parked) => !parked,
            Err(Gone) => {
                while let Some(send) = self.send.next() {
                    self.complete_send(send, Err(io::Error::other("no readiness")), wakers);
                }
                false
            }
        }
    }
}

fn after_send(batched: bool) -> Next {
    if batched { Next::Finish } else { Next::Listed }
}
