//! Sends, as in `backend/send.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::pin::Pin;
use std::task::Context;

use tokio::sync::futures::OwnedNotified;

use super::driver::ModelWork;
use super::{Gone, Model, Task};
use crate::common::send_queue::{Effects, Withdrawn};
use crate::epoll::readiness::Direction;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ModelReason {
    Queued,
    Full,
}

/// How far a send has got. The first three are one poll.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// As `send_directly`.
    Begin,
    /// As the first part of `poll_first`.
    Join(ModelReason),
    /// As the second.
    Attend(ModelReason),
    Waiting,
}

#[derive(Debug)]
pub(super) struct Sender {
    message: u64,
    slot: usize,
    stage: Stage,
    may_batch: bool,
    pub(super) task: Task,
    /// It is never polled again.
    pub(super) frozen: bool,
}

impl Sender {
    pub(super) fn is_in_poll(&self) -> bool {
        self.stage != Stage::Waiting
    }
}

/// A future that waits for readiness.
#[derive(Debug)]
pub(super) struct Writable {
    notified: Option<Pin<Box<OwnedNotified>>>,
    pub(super) task: Task,
}

#[derive(Debug, Default)]
pub(super) struct Sends {
    messages: u64,
    /// When the first poll of each began, and when it had its place.
    first_polls: BTreeMap<u64, (u64, u64)>,
    /// The latest beginning among those that were sent.
    latest: u64,
    /// They will never be sent.
    pub(super) unsent: BTreeSet<u64>,
    /// The kernel reports no result for them.
    pub(super) lost: BTreeSet<u64>,
}

impl Model {
    pub(super) fn goes_out(&mut self, message: u64) {
        let (began, placed) = self.sends.first_polls[&message];
        assert!(!self.kernel.went_out.contains(&message), "{message} goes out once");
        assert!(!self.sends.unsent.contains(&message), "{message} was dropped, or has failed");
        assert!(placed >= self.sends.latest, "{message} goes out after one that came later");
        self.sends.latest = self.sends.latest.max(began);
        self.kernel.went_out.push(message);
    }

    fn next_message(&mut self) -> u64 {
        self.sends.messages += 1;
        self.sends.first_polls.insert(self.sends.messages, (self.now, u64::MAX));
        self.sends.messages
    }

    fn is_placed(&mut self, message: u64) {
        self.sends.first_polls.get_mut(&message).expect("made when it began").1 = self.now;
    }

    fn fails(&mut self, message: u64) {
        if !self.sends.lost.contains(&message) {
            assert!(!self.kernel.went_out.contains(&message), "an error means that it did not");
            self.sends.unsent.insert(message);
        }
    }

    pub(super) fn new_send(&mut self, may_batch: bool) {
        let message = self.next_message();
        self.senders.push(Sender {
            message,
            slot: usize::MAX,
            stage: Stage::Begin,
            may_batch,
            task: Task::new(),
            frozen: false,
        });
    }

    pub(super) fn poll_send(&mut self, at: usize) {
        if self.senders.get(at).is_none_or(|sender| sender.frozen) {
            return;
        }
        let mut sender = self.senders.remove(at);
        if matches!(sender.stage, Stage::Begin | Stage::Waiting) {
            sender.task.take_woken();
        }
        let is_pending = match sender.stage {
            Stage::Begin => self.begin(&mut sender),
            Stage::Join(reason) => self.join(&mut sender, reason),
            Stage::Attend(reason) => self.attend(&mut sender, reason),
            Stage::Waiting => self.poll_waiting(&mut sender),
        };
        if is_pending {
            self.senders.insert(at, sender);
        }
    }

    fn begin(&mut self, sender: &mut Sender) -> bool {
        if self.over {
            self.fails(sender.message);
            return false;
        }
        let reason = if !self.send.is_idle()
            || sender.may_batch && self.batching_worker().is_some() && !self.send.take_direct_next()
        {
            ModelReason::Queued
        } else if self.kernel_send(sender.message).is_some() {
            self.is_placed(sender.message);
            self.called();
            return false;
        } else {
            ModelReason::Full
        };
        sender.stage = Stage::Join(reason);
        true
    }

    fn join(&mut self, sender: &mut Sender, reason: ModelReason) -> bool {
        let is_first = self.send.is_idle();
        sender.slot = self.send.enqueue(&sender.task.waker, sender.message);
        self.is_placed(sender.message);
        sender.stage = Stage::Waiting;
        if is_first {
            sender.stage = Stage::Attend(reason);
            return true;
        }
        self.is_pending_unless_gone(sender)
    }

    fn attend(&mut self, sender: &mut Sender, reason: ModelReason) -> bool {
        let parked = match reason {
            ModelReason::Full => self.park_until_writable().unwrap_or(false),
            ModelReason::Queued => false,
        };
        if !parked {
            self.list_send(self.some_worker());
        }
        sender.stage = Stage::Waiting;
        self.is_pending_unless_gone(sender)
    }

    fn poll_waiting(&mut self, sender: &mut Sender) -> bool {
        match self.send.poll(sender.slot, &sender.task.waker) {
            Ok((result, payload)) => {
                self.ended(sender, result, payload);
                false
            }
            Err(replaced) => {
                drop(replaced);
                self.is_pending_unless_gone(sender)
            }
        }
    }

    fn is_pending_unless_gone(&mut self, sender: &mut Sender) -> bool {
        if !self.over {
            return true;
        }
        match self.send.withdraw(sender.slot) {
            Withdrawn::Done(result, payload) => self.ended(sender, result, payload),
            Withdrawn::Taken => {
                sender.task.waker.wake_by_ref();
                return true;
            }
            Withdrawn::Unsent(mut effects) => {
                let payload = effects.release.take();
                assert_eq!(payload, Some(sender.message), "each has its own back");
                self.fails(sender.message);
                self.apply_effects(effects);
            }
        }
        false
    }

    fn ended(&mut self, sender: &Sender, result: io::Result<usize>, payload: Option<u64>) {
        match result {
            Ok(_) => {
                assert_eq!(payload, Some(sender.message), "each has its own back");
                assert!(
                    self.kernel.went_out.contains(&sender.message),
                    "Ok means that it went out"
                );
            }
            Err(_) => self.fails(sender.message),
        }
    }

    /// Lets a poll come to its end before the future is dropped, forgotten or left alone.
    fn end_poll(&mut self, at: usize) -> bool {
        let Some(message) = self.senders.get(at).map(|sender| sender.message) else { return false };
        while let Some(sender) = self.senders.get(at)
            && sender.message == message
            && sender.is_in_poll()
        {
            self.poll_send(at);
        }
        self.senders.get(at).is_some_and(|sender| sender.message == message)
    }

    pub(super) fn drop_send(&mut self, at: usize) {
        if !self.end_poll(at) {
            return;
        }
        let sender = self.senders.remove(at);
        if self.send.has_gone_out(sender.slot) == Some(false) {
            self.fails(sender.message);
        }
        let mut effects = self.send.cancel(sender.slot);
        effects.release.take();
        self.apply_effects(effects);
    }

    pub(super) fn freeze_send(&mut self, at: usize) {
        if self.end_poll(at) {
            self.senders[at].frozen = true;
        }
    }

    pub(super) fn forget_send(&mut self, at: usize) {
        if self.end_poll(at) {
            drop(self.senders.remove(at));
        }
    }

    pub(super) fn apply_effects(&mut self, effects: Effects<u64>) {
        let mut list = crate::common::idle_notify::WakeList::default();
        self.collect_effects(effects, &mut list);
        list.wake_all();
    }

    /// Returns whether it was sent.
    pub(super) fn try_send(&mut self) -> Result<bool, Gone> {
        self.check_runtime()?;
        if !self.send.is_idle() {
            return Ok(false);
        }
        let message = self.next_message();
        self.is_placed(message);
        let sent = self.kernel_send(message).is_some();
        if sent {
            self.called();
        }
        Ok(sent)
    }

    /// The task that calls `poll_send`.
    pub(super) fn poll_send_observer(&mut self) {
        let task = self.writer.take().unwrap_or_else(Task::new);
        task.take_woken();
        loop {
            match self.try_send() {
                Ok(true) | Err(Gone) => return,
                Ok(false) => {}
            }
            match self.poll_writable_waker(&task) {
                Ok(true) => break,
                Ok(false) => {}
                Err(Gone) => return,
            }
        }
        self.writer = Some(task);
    }

    fn poll_writable_waker(&mut self, task: &Task) -> Result<bool, Gone> {
        drop(self.send.observers.park(&task.waker));
        let is_idle = self.send.is_idle();
        self.check_runtime()?;
        Ok(!is_idle || self.park_until_writable()?)
    }

    pub(super) fn new_writable(&mut self) {
        self.writable.push(Writable { notified: None, task: Task::new() });
        self.poll_writable(self.writable.len() - 1);
    }

    /// As `Socket::ready`.
    pub(super) fn poll_writable(&mut self, at: usize) {
        let mut writable = self.writable.remove(at);
        writable.task.take_woken();
        loop {
            if let Some(notified) = &mut writable.notified {
                let polled = notified.as_mut().poll(&mut Context::from_waker(&writable.task.waker));
                if polled.is_pending() {
                    return self.writable.insert(at, writable);
                }
            }
            let notified = self.notify.notified_owned();
            self.send.observers.announce();
            let announced = if self.send.is_idle() { self.park_until_writable() } else { Ok(true) };
            let Ok(announced) = announced else { return };
            let is_ready = self.send.is_idle() && self.kernel_is_writable().is_some();
            if is_ready || self.over {
                return;
            }
            writable.notified = announced.then(|| Box::pin(notified));
        }
    }

    /// Lets sends that wait continue.
    pub(super) fn check_sends(&self) {
        if self.closed || self.over || self.send.waiting() == 0 || self.send.is_taken() {
            return;
        }
        let attends = |sender: &Sender| matches!(sender.stage, Stage::Attend(_));
        assert!(
            self.is_listed(ModelWork::Send)
                || self.has_sends_in_hand()
                || self.readiness.will_wake(Direction::Write)
                || self.senders.iter().any(attends),
            "sends wait that no driver knows of: {:?}, {:?}",
            self.send,
            self.readiness
        );
    }
}
