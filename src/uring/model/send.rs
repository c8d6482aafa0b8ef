//! The send lane of a model.

use std::collections::{BTreeMap, VecDeque};
use std::io;

use super::{FAILURE, Operation, Ring, Task, Watching};
use crate::lane::{After, Outcome, SendLane, Step, Withdrawn};

#[derive(Debug, Clone, Copy)]
pub(crate) enum Event {
    /// A call with the next message begins its first poll: it goes directly if it may, else in line.
    Come,
    /// The direct call of one whose first poll has begun: it ends with the message sent, or in line.
    Call(usize),
    Poll(usize),
    Drop(usize),
    /// The peer takes a message.
    Read,
    /// A `poll_*` call waits for the lane to be idle.
    Watch,
    /// `ready` does.
    Announce,
    Ring(Ring),
    /// Who sends for those who wait does the next step; whether that is enough.
    GoOn {
        enough: bool,
    },
}

/// Messages that the peer's queue holds.
const DEPTH: usize = 2;

struct Sender {
    slot: usize,
    message: u64,
    task: Task,
}

/// What somebody who sends for those who wait has in his hands, while he has no lock.
enum Hand {
    /// To be sent.
    Taken(usize, u64),
    /// With a result.
    Sent(usize, u64, io::Result<usize>),
}

#[derive(Default)]
pub(super) struct Model {
    lane: Option<SendLane<u64, u64>>,
    kernel: VecDeque<u64>,
    operation: Option<Operation<usize>>,
    hand: Option<Hand>,
    listed: bool,
    senders: Vec<Sender>,
    next_message: u64,
    next_key: u64,
    /// Those whose first poll found the lane idle, and has not called the kernel yet.
    calling: Vec<u64>,
    now: u64,
    /// When each message's first poll began, and when it ended.
    first_polls: BTreeMap<u64, (u64, u64)>,
    /// Everything that ever entered the kernel's queue, in order.
    went_out: Vec<u64>,
    ok: Vec<u64>,
    /// Calls that were told an error.
    failed: Vec<u64>,
    dropped: Vec<u64>,
    watching: Watching,
    dead: bool,
    closed: bool,
    /// The operation whose ring is gone, until the kernel has forgotten it.
    buried: Option<(usize, u64)>,
    /// What an operation had sent whose completion nobody saw: its caller is told an error.
    unseen: Option<u64>,
}

impl Model {
    fn lane(&mut self) -> &mut SendLane<u64, u64> {
        self.lane.get_or_insert_with(SendLane::new)
    }

    fn carry_out(&mut self, after: After<u64>) {
        if let Some(message) = after.release {
            assert!(self.dropped.contains(&message), "only what was dropped is released");
        }
        if let Some(waker) = after.wake.one {
            waker.wake();
        }
        self.watching.tell(after.wake.settled);
        if after.attend {
            if self.dead {
                self.give_up();
            } else {
                assert!(!self.listed, "a lane stands on the list once");
                self.listed = true;
            }
        }
    }

    fn give_up(&mut self) {
        let (woken, settled) = self.lane().give_up();
        woken.into_iter().for_each(std::task::Waker::wake);
        self.watching.tell(settled);
    }

    fn send_now(&mut self, message: u64) -> bool {
        if self.kernel.len() == DEPTH {
            return false;
        }
        self.kernel.push_back(message);
        self.went_out.push(message);
        true
    }

    fn enqueue(&mut self, message: u64) {
        let task = if self.dead { Task::woken() } else { Task::new() };
        let (slot, after) = self.lane().enqueue(&task.waker, message);
        self.senders.push(Sender { slot, message, task });
        self.carry_out(after);
        self.end_first_poll(message);
    }

    fn end_first_poll(&mut self, message: u64) {
        let now = self.now;
        if let Some((_, end)) = self.first_polls.get_mut(&message) {
            *end = now;
        }
    }

    pub(super) fn apply(&mut self, event: Event) {
        self.now += 1;
        match event {
            Event::Come => {
                if self.closed {
                    return;
                }
                let message = self.next_message;
                self.next_message += 1;
                self.first_polls.insert(message, (self.now, u64::MAX));
                // Also where the driver is dead: it may have died after the call had looked.
                if self.lane().is_idle() {
                    self.calling.push(message);
                } else {
                    self.enqueue(message);
                }
            }
            Event::Call(at) => {
                if at >= self.calling.len() {
                    return;
                }
                let message = self.calling.remove(at);
                if self.send_now(message) {
                    self.ok.push(message);
                    self.end_first_poll(message);
                } else {
                    self.enqueue(message);
                }
            }
            Event::Poll(at) => self.poll(at),
            Event::Drop(at) => self.drop_sender(at),
            Event::Read => {
                self.kernel.pop_front();
            }
            // One who comes when there is no driver any more is told so.
            Event::Watch if !self.dead && !self.closed && !self.lane().is_idle() => {
                let lane = self.lane.get_or_insert_with(SendLane::new);
                self.watching.park(lane.watchers());
            }
            Event::Announce if !self.dead && !self.closed && !self.lane().is_idle() => {
                let lane = self.lane.get_or_insert_with(SendLane::new);
                self.watching.announce(lane.watchers());
            }
            Event::Watch | Event::Announce => {}
            Event::Ring(step) => self.ring(step),
            Event::GoOn { enough } => self.go_on(enough),
        }
    }

    fn drop_sender(&mut self, at: usize) {
        if at < self.senders.len() {
            let sender = self.senders.remove(at);
            self.dropped.push(sender.message);
            let after = self.lane().forget(sender.slot);
            self.carry_out(after);
        }
    }

    fn poll(&mut self, at: usize) {
        let Some(sender) = self.senders.get(at) else { return };
        sender.task.take_woken();
        let (slot, message, waker) = (sender.slot, sender.message, sender.task.waker.clone());
        if let Ok((result, payload)) = self.lane().poll(slot, &waker) {
            self.end(at, result, payload);
        } else if self.dead {
            match self.lane().withdraw(slot) {
                Withdrawn::Settled(result, payload) => self.end(at, result, payload),
                Withdrawn::Lent => waker.wake(),
                Withdrawn::Unsent(mut after) => {
                    assert!(!self.went_out.contains(&message), "what was not sent was not sent");
                    let payload = after.release.take();
                    self.end(at, Err(io::Error::other("no driver")), payload);
                    self.carry_out(after);
                }
            }
        }
    }

    fn end(&mut self, at: usize, result: io::Result<usize>, payload: Option<u64>) {
        let sender = self.senders.remove(at);
        assert_eq!(payload, Some(sender.message), "everybody gets his own back");
        match result {
            Ok(_) => self.ok.push(sender.message),
            Err(_) => self.failed.push(sender.message),
        }
    }

    fn ring(&mut self, step: Ring) {
        match step {
            Ring::Attend | Ring::Exhausted => {
                if !std::mem::take(&mut self.listed) {
                    return;
                }
                match self.lane().attend() {
                    Step::Submit => {
                        assert!(self.operation.is_none(), "one operation in flight");
                        assert!(self.hand.is_none(), "nobody sends for those who wait");
                        let (slot, payload) = self.lane().next().expect("somebody waits");
                        self.next_key += 1;
                        let key = self.next_key;
                        self.lane().armed(slot, key, payload);
                        self.operation =
                            Some(Operation { key, payload, cancel_asked: false, completion: None });
                    }
                    Step::Cancel(key) => {
                        let operation = self.operation.as_mut().expect("something to cancel");
                        assert_eq!(operation.key, key);
                        operation.cancel_asked = true;
                    }
                    Step::Nothing => {}
                }
            }
            Ring::Finish => {
                if let Some(operation) = self.unfinished() {
                    let (payload, cancel_asked) = (operation.payload, operation.cancel_asked);
                    let completion = match self.send_now(payload) {
                        true => Some(Outcome::Done(1)),
                        false => cancel_asked.then_some(Outcome::Void),
                    };
                    self.finish(completion);
                }
            }
            Ring::Void => self.finish(Some(Outcome::Void)),
            Ring::Fail => self.finish(Some(Outcome::Failed(FAILURE))),
            Ring::Reap => self.reap(),
        }
    }

    fn unfinished(&mut self) -> Option<&mut Operation<usize>> {
        self.operation.as_mut().filter(|operation| operation.completion.is_none())
    }

    fn finish(&mut self, completion: Option<Outcome<usize>>) {
        if let Some(operation) = self.unfinished() {
            operation.completion = completion;
        }
    }

    fn reap(&mut self) {
        let ready = |operation: &mut Operation<usize>| operation.completion.is_some();
        let Some(operation) = self.operation.take_if(ready) else { return };
        assert!(self.lane().reaped(operation.key + 1).is_none(), "not another's key");
        let (slot, payload) = self.lane().reaped(operation.key).expect("known to the lane");
        assert_eq!(payload, operation.payload);
        let hand = match operation.completion.expect("checked") {
            Outcome::Done(len) => Hand::Sent(slot, payload, Ok(len)),
            Outcome::Failed(errno) => {
                Hand::Sent(slot, payload, Err(io::Error::from_raw_os_error(errno)))
            }
            Outcome::Void => {
                let after = self.lane().put_back(slot, payload);
                self.carry_out(after);
                return;
            }
        };
        assert!(self.hand.replace(hand).is_none(), "one at a time sends for those who wait");
    }

    fn go_on(&mut self, enough: bool) {
        match self.hand.take() {
            Some(Hand::Sent(slot, payload, result)) => {
                let after = self.lane().settle(slot, Some(payload), result);
                let next = if enough { None } else { self.lane().next() };
                self.hand = next.map(|(slot, payload)| Hand::Taken(slot, payload));
                self.carry_out(after);
            }
            Some(Hand::Taken(slot, payload)) => {
                if self.send_now(payload) {
                    self.hand = Some(Hand::Sent(slot, payload, Ok(1)));
                } else {
                    let after = self.lane().put_back(slot, payload);
                    self.carry_out(after);
                }
            }
            None => {}
        }
    }

    /// The driver goes. It reaps what has completed, if its ring lets it, and buries the rest.
    pub(super) fn die(&mut self, reaps: bool) {
        if std::mem::replace(&mut self.dead, true) {
            return;
        }
        if reaps {
            self.reap();
        }
        let in_flight = self.operation.is_some();
        if let Some(buried) = self.lane().abandon() {
            assert!(in_flight, "the kernel has it");
            self.buried = Some(buried);
        }
        if std::mem::take(&mut self.listed) || in_flight {
            self.give_up();
        }
        if let Some(operation) = self.operation.take()
            && let Some(Outcome::Done(_)) = operation.completion
        {
            self.unseen = Some(operation.payload);
        }
    }

    /// The kernel has forgotten the ring.
    pub(super) fn exhume(&mut self) {
        if let Some((slot, payload)) = self.buried.take() {
            let error = io::Error::other("no driver");
            let after = self.lane().settle(slot, Some(payload), Err(error));
            self.carry_out(after);
        }
    }

    /// The socket is dropped; its futures were before.
    pub(super) fn close(&mut self) {
        if self.closed {
            return;
        }
        while !self.senders.is_empty() {
            self.drop_sender(0);
        }
        self.dropped.append(&mut self.calling);
        self.closed = true;
        let (after, payloads) = self.lane().close();
        assert!(payloads.iter().all(|payload| self.dropped.contains(payload)), "nobody waits");
        if let Step::Cancel(key) = self.lane().attend() {
            let operation = self.operation.as_mut().expect("something to cancel");
            assert_eq!(operation.key, key);
            operation.cancel_asked = true;
        }
        self.listed = false;
        self.carry_out(After { attend: false, ..after });
    }

    pub(super) fn settle(&mut self) {
        self.exhume();
        loop {
            let before = (self.ok.len(), self.went_out.len(), self.failed.len(), self.next_key);
            self.apply(Event::Call(0));
            self.ring(Ring::Attend);
            self.apply(Event::Read);
            self.ring(Ring::Finish);
            self.ring(Ring::Reap);
            while self.hand.is_some() {
                self.go_on(false);
            }
            let mut polled = false;
            for at in (0..self.senders.len()).rev() {
                if self.senders[at].task.is_woken() {
                    polled = true;
                    self.poll(at);
                }
            }
            let after = (self.ok.len(), self.went_out.len(), self.failed.len(), self.next_key);
            let quiet = !polled && !self.listed && self.operation.is_none();
            if before == after && quiet && self.calling.is_empty() && self.kernel.is_empty() {
                return;
            }
        }
    }

    pub(super) fn check(&mut self) {
        for (at, later) in self.went_out.iter().enumerate() {
            let (_, end) = self.first_polls[later];
            for earlier in &self.went_out[..at] {
                assert_ne!(earlier, later, "none twice");
                let (start, _) = self.first_polls[earlier];
                assert!(end >= start, "in the order of the first polls: {:?}", self.went_out);
            }
        }
        for message in &self.ok {
            assert!(self.went_out.contains(message), "Ok means that it went out: {message}");
        }
        for message in &self.failed {
            let unseen = self.unseen == Some(*message);
            assert!(unseen || !self.went_out.contains(message), "an error: that it did not");
        }
        if self.lane().is_idle() && !self.closed {
            self.watching.check_told();
        }
    }

    /// All that is left when everything has run that can.
    pub(super) fn check_end(&mut self) {
        self.settle();
        self.check();
        assert!(self.senders.is_empty(), "nobody sleeps while there is room");
        let ends = self.ok.len() + self.failed.len() + self.dropped.len();
        assert_eq!(ends, self.next_message as usize, "every call ended once");
        for message in &self.went_out {
            let known = self.ok.contains(message) || self.dropped.contains(message);
            assert!(known || self.unseen == Some(*message), "who sent {message} knows");
        }
        self.watching.check_told();
        assert!(self.lane().is_idle());
    }
}
