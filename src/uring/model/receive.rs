//! The receive lane of a model.

use std::collections::{BTreeSet, VecDeque};

use super::{EXHAUSTED, FAILURE, Operation, Ring, Task, Watching};
use crate::lane::{After, Outcome, Step};
use crate::uring::lane::{ReceiveLane, Received, Ticket};

#[derive(Debug, Clone, Copy)]
pub(crate) enum Event {
    /// The peer sends the next message.
    Arrive,
    /// A call comes; whether it gives a room away, how often it looks by itself, and whether it waits
    /// for readiness after that.
    Come {
        room: bool,
        looks: u8,
        himself: bool,
    },
    /// A call is polled, woken or not.
    Poll(usize),
    /// A call is dropped.
    Drop(usize),
    /// A call does not wait: it takes what was received for nobody, or asks the kernel.
    Try,
    /// A `poll_*` call waits for the lane to be open.
    Watch,
    /// `ready` does.
    Announce,
    Ring(Ring),
}

/// A message, and whose room it lies in, if it does.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
struct Message {
    number: u64,
    room: u64,
}

struct Receiver {
    ticket: Ticket,
    task: Task,
    gives_room: bool,
    /// The room that it gave away.
    room: u64,
    himself: bool,
}

/// Rooms are numbers; 0 is none.
#[derive(Default)]
pub(super) struct Model {
    lane: Option<ReceiveLane<u64, Message, u64>>,
    kernel: VecDeque<u64>,
    operation: Option<Operation<Message>>,
    listed: bool,
    receivers: Vec<Receiver>,
    sent: u64,
    delivered: Vec<u64>,
    next_key: u64,
    /// Rooms that calls gave away and have not come back.
    rooms: BTreeSet<u64>,
    watching: Watching,
    /// Errors that the ring made, and that calls were told.
    errors: (usize, usize),
    /// Receives that ended because there is no driver.
    refused: usize,
    dead: bool,
    closed: bool,
    /// The payload of an operation whose ring is gone, until the kernel has forgotten it.
    buried: Option<u64>,
    /// What an operation had received whose completion nobody saw.
    lost: Option<u64>,
}

impl Model {
    fn lane(&mut self) -> &mut ReceiveLane<u64, Message, u64> {
        self.lane.get_or_insert_with(ReceiveLane::new)
    }

    fn carry_out(&mut self, after: After<Message>) {
        if let Some(message) = after.release {
            assert!(self.closed, "no message is thrown away while the socket lives");
            self.room_is_back(message.room);
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

    fn new_room(&mut self) -> u64 {
        self.next_key += 1;
        self.rooms.insert(self.next_key);
        self.next_key
    }

    fn room_is_back(&mut self, room: u64) {
        if room != 0 {
            assert!(self.rooms.remove(&room), "a room comes back once");
        }
    }

    /// A message that lies in the room of somebody who is gone is moved.
    fn move_orphan(&mut self) {
        if let Some(message) = self.lane().orphan() {
            let room = std::mem::take(&mut message.room);
            self.room_is_back(room);
        }
    }

    /// What a call gets that has not waited, or has `mine`.
    fn deliver(&mut self, received: Received<Message>, mine: u64) {
        match received {
            Ok(message) => {
                assert!(message.room == 0 || message.room == mine, "in his own room, or nobody's");
                self.room_is_back(message.room);
                self.delivered.push(message.number);
            }
            Err(_) => self.errors.1 += 1,
        }
    }

    pub(super) fn apply(&mut self, event: Event) {
        match event {
            Event::Arrive => {
                self.kernel.push_back(self.sent);
                self.sent += 1;
            }
            Event::Come { room, looks, himself } => self.come(room, looks, himself),
            Event::Poll(at) => self.poll(at),
            Event::Drop(at) => self.drop_receiver(at),
            Event::Try => {
                if self.closed {
                    return;
                }
                if let Some(received) = self.lane().take_stash() {
                    self.deliver(received, 0);
                } else if !self.dead
                    && self.lane().is_idle()
                    && let Some(message) = self.kernel.pop_front()
                {
                    self.delivered.push(message);
                }
            }
            // One who comes when there is no driver any more is told so.
            Event::Watch if !self.dead && !self.closed && !self.lane().is_open() => {
                let lane = self.lane.get_or_insert_with(ReceiveLane::new);
                self.watching.park(lane.watchers());
            }
            Event::Announce if !self.dead && !self.closed && !self.lane().is_open() => {
                let lane = self.lane.get_or_insert_with(ReceiveLane::new);
                self.watching.announce(lane.watchers());
            }
            Event::Watch | Event::Announce => {}
            Event::Ring(step) => self.ring(step),
        }
    }

    fn come(&mut self, gives_room: bool, looks: u8, himself: bool) {
        if self.closed {
            return;
        }
        if let Some(received) = self.lane().take_stash() {
            self.deliver(received, 0);
            return;
        }
        // Also where the driver is dead: it may have died after the call had looked.
        let looks = if self.lane().is_idle() { looks } else { 0 };
        let given = (gives_room && looks == 0).then(|| self.new_room());
        let task = if looks > 0 || self.dead { Task::woken() } else { Task::new() };
        let (ticket, after) = self.lane().enqueue(&task.waker, given, looks);
        let room = given.unwrap_or(0);
        self.receivers.push(Receiver { ticket, task, gives_room, room, himself });
        self.carry_out(after);
    }

    fn drop_receiver(&mut self, at: usize) {
        if at < self.receivers.len() {
            let receiver = self.receivers.remove(at);
            let (room, after) = self.lane().forget(receiver.ticket);
            self.move_orphan();
            self.room_is_back(room.unwrap_or(0));
            self.carry_out(after);
        }
    }

    fn poll(&mut self, at: usize) {
        let Some(receiver) = self.receivers.get(at) else { return };
        receiver.task.take_woken();
        let (ticket, waker, gives_room, himself) =
            (receiver.ticket, receiver.task.waker.clone(), receiver.gives_room, receiver.himself);
        if self.lane().is_waiting_himself(ticket) {
            if self.dead {
                // Its registration has ended with the runtime.
                self.refused += 1;
                self.drop_receiver(at);
            } else if let Some(message) = self.kernel.pop_front() {
                self.find(at, message);
            }
            return;
        }
        if self.lane().may_look(ticket) {
            assert_eq!(at, 0, "only the first looks");
            if let Some(message) = self.kernel.pop_front() {
                self.find(at, message);
            } else if self.lane().looked() > 0 {
                waker.wake();
            } else if himself {
                self.lane().waits_himself();
                if self.dead {
                    waker.wake();
                }
            } else {
                let room = gives_room.then(|| self.new_room());
                self.receivers[at].room = room.unwrap_or(0);
                let after = self.lane().arm(&waker, room);
                self.carry_out(after);
                self.end_if_dead(at);
            }
            return;
        }
        if let Ok((delivery, after)) = self.lane().poll(ticket, &waker) {
            assert_eq!(at, 0, "first in, first out");
            self.room_is_back(delivery.room.unwrap_or(0));
            let receiver = self.receivers.remove(at);
            self.deliver(delivery.received, receiver.room);
            self.carry_out(after);
            if receiver.room != 0 {
                assert!(!self.rooms.contains(&receiver.room), "a call ends with its room");
            }
        } else {
            self.end_if_dead(at);
        }
    }

    fn find(&mut self, at: usize, message: u64) {
        assert_eq!(at, 0, "only the first finds");
        let after = self.lane().found();
        self.receivers.remove(at);
        self.delivered.push(message);
        self.carry_out(after);
    }

    /// Without a driver a call ends, as soon as it has its room back.
    fn end_if_dead(&mut self, at: usize) {
        if !self.dead {
            return;
        }
        let (ticket, room) = (self.receivers[at].ticket, self.receivers[at].room);
        if self.lane().is_lent(ticket) {
            self.receivers[at].task.waker.wake_by_ref();
            return;
        }
        self.refused += 1;
        self.drop_receiver(at);
        assert!(!self.rooms.contains(&room), "a call ends with its room");
    }

    fn ring(&mut self, step: Ring) {
        match step {
            Ring::Attend | Ring::Exhausted => {
                if !std::mem::take(&mut self.listed) {
                    return;
                }
                match self.lane().attend() {
                    Step::Submit => self.arm(matches!(step, Ring::Exhausted)),
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
                    let (room, cancel_asked) = (operation.payload, operation.cancel_asked);
                    // A cancel loses against a message that is there: either may win.
                    let completion = match self.kernel.pop_front() {
                        Some(number) => Some(Outcome::Done(Message { number, room })),
                        None => cancel_asked.then_some(Outcome::Void),
                    };
                    self.finish(completion);
                }
            }
            Ring::Void => self.finish(Some(Outcome::Void)),
            Ring::Fail => self.finish(Some(Outcome::Failed(FAILURE))),
            Ring::Reap => self.reap(),
        }
    }

    fn unfinished(&mut self) -> Option<&mut Operation<Message>> {
        self.operation.as_mut().filter(|operation| operation.completion.is_none())
    }

    fn finish(&mut self, completion: Option<Outcome<Message>>) {
        if let Some(operation) = self.unfinished() {
            operation.completion = completion;
        }
    }

    fn arm(&mut self, exhausted: bool) {
        assert!(self.operation.is_none(), "one operation in flight");
        let room = self.lane().room_to_arm();
        if exhausted {
            self.errors.0 += 1;
            let after = self.lane().not_armed(EXHAUSTED, room);
            self.carry_out(after);
            return;
        }
        self.next_key += 1;
        let (key, payload) = (self.next_key, room.unwrap_or(0));
        self.lane().armed(key, payload);
        self.operation = Some(Operation { key, payload, cancel_asked: false, completion: None });
    }

    fn reap(&mut self) {
        let ready = |operation: &mut Operation<Message>| operation.completion.is_some();
        let Some(operation) = self.operation.take_if(ready) else { return };
        assert!(self.lane().reaped(operation.key + 1).is_none(), "not another's key");
        let payload = self.lane().reaped(operation.key).expect("known to the lane");
        assert_eq!(payload, operation.payload);
        let outcome = operation.completion.expect("checked");
        // A message lies in the room, and goes out with it.
        let is_message = matches!(outcome, Outcome::Done(_));
        let room = (!is_message && payload != 0).then_some(payload);
        if let Outcome::Failed(_) = outcome
            && !self.closed
        {
            self.errors.0 += 1;
        }
        let (room, after) = self.lane().complete(outcome, room);
        self.move_orphan();
        self.room_is_back(room.unwrap_or(0));
        self.carry_out(after);
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
        if let Some(payload) = self.lane().abandon() {
            assert!(in_flight, "the kernel has it");
            self.buried = Some(payload);
        }
        if std::mem::take(&mut self.listed) || in_flight {
            self.give_up();
        }
        if let Some(Outcome::Done(message)) = self.operation.take().and_then(|o| o.completion) {
            self.lost = Some(message.number);
        }
        // Registrations end with the runtime.
        for at in 0..self.receivers.len() {
            let ticket = self.receivers[at].ticket;
            if self.lane().is_waiting_himself(ticket) {
                self.receivers[at].task.waker.wake_by_ref();
            }
        }
    }

    /// The kernel has forgotten the ring.
    pub(super) fn exhume(&mut self) {
        if let Some(payload) = self.buried.take() {
            let (room, waker) = self.lane().room_is_back((payload != 0).then_some(payload));
            self.room_is_back(room.unwrap_or(0));
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }

    /// The socket is dropped; its futures were before.
    pub(super) fn close(&mut self) {
        if self.closed {
            return;
        }
        while !self.receivers.is_empty() {
            self.drop_receiver(0);
        }
        self.closed = true;
        let (after, rooms) = self.lane().close();
        assert!(rooms.is_empty(), "nobody waits");
        if let Step::Cancel(key) = self.lane().attend() {
            let operation = self.operation.as_mut().expect("something to cancel");
            assert_eq!(operation.key, key);
            operation.cancel_asked = true;
        }
        self.listed = false;
        self.carry_out(After { attend: false, ..after });
    }

    /// Let everything run that can, polling only tasks that have been woken.
    pub(super) fn settle(&mut self) {
        self.exhume();
        loop {
            let before =
                (self.delivered.len(), self.next_key, self.errors, self.operation.is_some());
            for step in [Ring::Attend, Ring::Finish, Ring::Reap] {
                self.ring(step);
            }
            if !self.kernel.is_empty()
                && let Some(ticket) = self.receivers.first().map(|first| first.ticket)
                && self.lane().is_waiting_himself(ticket)
            {
                self.receivers[0].task.waker.wake_by_ref();
            }
            let mut polled = false;
            for at in (0..self.receivers.len()).rev() {
                if self.receivers[at].task.is_woken() {
                    polled = true;
                    self.poll(at);
                }
            }
            let after =
                (self.delivered.len(), self.next_key, self.errors, self.operation.is_some());
            if before == after && !polled && !self.listed {
                return;
            }
        }
    }

    pub(super) fn check(&mut self) {
        let mut expected = 0;
        for number in &self.delivered {
            expected += u64::from(self.lost == Some(expected));
            assert_eq!(*number, expected, "in order, none lost, none doubled");
            expected += 1;
        }
        assert!(self.errors.1 <= self.errors.0, "an error is told once");
        if self.lane().is_open() && !self.closed {
            self.watching.check_told();
        }
    }

    /// All that is left when everything has run that can.
    pub(super) fn check_end(&mut self) {
        self.settle();
        self.check();
        if self.dead {
            assert!(self.receivers.is_empty(), "without a driver nobody waits");
        }
        assert!(
            self.receivers.is_empty() || self.kernel.is_empty(),
            "nobody sleeps while a message is there"
        );
        // Whoever still waits goes; what was received for nobody is still to be had.
        while !self.receivers.is_empty() {
            self.drop_receiver(0);
        }
        self.settle();
        assert!(self.operation.is_none(), "an operation that nobody wants is cancelled");
        self.watching.check_told();
        for _ in 0..=self.sent as usize + self.errors.0 {
            self.apply(Event::Try);
        }
        self.check();
        if !self.dead && !self.closed {
            assert_eq!(self.delivered.len() as u64, self.sent, "every message was delivered");
        }
        if !self.closed {
            assert_eq!(self.errors.0, self.errors.1, "every error was told");
        }
        assert!(self.rooms.is_empty(), "every room came back");
        assert!(self.lane().is_idle());
    }
}
