//! The lanes against a fake ring: any order of completions, late ones, uninvited `-EAGAIN` and
//! `-ECANCELED`, success after a cancel, calls that are dropped at any point; compared with a plain
//! queue. `MODEL_SCHEDULES` sets how many schedules each test runs.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Wake, Waker};

use proptest::prelude::*;
use tokio::sync::Notify;

use super::lane::{ReceiveLane, Ticket};
use crate::lane::{After, Outcome, SendLane, Step};

fn config() -> ProptestConfig {
    let cases = std::env::var("MODEL_SCHEDULES").ok().and_then(|n| n.parse().ok());
    ProptestConfig {
        cases: cases.unwrap_or(100_000),
        failure_persistence: None,
        max_shrink_iters: 20_000,
        ..ProptestConfig::default()
    }
}

/// A task: whether it has been woken since it was last polled.
#[derive(Default)]
struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

struct Task {
    flag: Arc<Flag>,
    waker: Waker,
}

impl Task {
    fn new() -> Self {
        let flag = Arc::new(Flag::default());
        Self { waker: flag.clone().into(), flag }
    }

    fn is_woken(&self) -> bool {
        self.flag.0.swap(false, Ordering::Relaxed)
    }
}

/// What the kernel has of a lane: one operation at most.
struct Operation<T> {
    key: u64,
    payload: u64,
    cancel_asked: bool,
    /// The completion, once there is one, until it is reaped.
    completion: Option<Outcome<T>>,
}

// ----- receive -----

#[derive(Debug, Clone, Copy)]
enum ReceiveEvent {
    /// The peer sends the next message.
    Send,
    /// A call comes; whether it gives a room away, and how often it looks by itself.
    Come { room: bool, looks: u8 },
    /// A call is polled, woken or not.
    Poll(usize),
    /// A call is dropped.
    Drop(usize),
    /// A call does not wait: it takes what was received for nobody, or asks the kernel.
    Try,
    /// The driver attends to the lane, if that is on its list.
    Attend,
    /// The kernel finishes the operation, if it can.
    Finish,
    /// The kernel ends the operation for no reason.
    Void,
    /// The completion is reaped.
    Reap,
}

fn receive_event() -> impl Strategy<Value = ReceiveEvent> {
    prop_oneof![
        3 => Just(ReceiveEvent::Send),
        3 => (any::<bool>(), 0..3u8).prop_map(|(room, looks)| ReceiveEvent::Come { room, looks }),
        4 => (0..4usize).prop_map(ReceiveEvent::Poll),
        2 => (0..4usize).prop_map(ReceiveEvent::Drop),
        1 => Just(ReceiveEvent::Try),
        4 => Just(ReceiveEvent::Attend),
        4 => Just(ReceiveEvent::Finish),
        1 => Just(ReceiveEvent::Void),
        4 => Just(ReceiveEvent::Reap),
    ]
}

struct Receiver {
    ticket: Ticket,
    task: Task,
    has_room: bool,
}

#[derive(Default)]
struct ReceiveModel {
    lane: Option<ReceiveLane<u64, u64, u64>>,
    kernel: VecDeque<u64>,
    operation: Option<Operation<u64>>,
    listed: bool,
    receivers: Vec<Receiver>,
    sent: u64,
    delivered: Vec<u64>,
    next_key: u64,
    /// Rooms that calls gave away and have not come back.
    rooms: BTreeMap<u64, ()>,
}

impl ReceiveModel {
    fn lane(&mut self) -> &mut ReceiveLane<u64, u64, u64> {
        self.lane.get_or_insert_with(ReceiveLane::new)
    }

    fn carry_out(&mut self, after: After<u64>) {
        if after.attend {
            assert!(!self.listed, "a lane stands on the list once");
            self.listed = true;
        }
        assert_eq!(after.release, None, "no message is thrown away while the socket lives");
        after.wake.wake(&Notify::new());
    }

    fn new_room(&mut self) -> u64 {
        self.next_key += 1;
        self.rooms.insert(self.next_key, ());
        self.next_key
    }

    fn room_is_back(&mut self, room: Option<u64>) {
        if let Some(room) = room {
            assert!(self.rooms.remove(&room).is_some(), "a room comes back once");
        }
    }

    fn deliver(&mut self, message: u64) {
        self.delivered.push(message);
    }

    fn apply(&mut self, event: ReceiveEvent) {
        match event {
            ReceiveEvent::Send => {
                self.kernel.push_back(self.sent);
                self.sent += 1;
            }
            ReceiveEvent::Come { room, looks } => {
                if let Some(received) = self.lane().take_stash() {
                    self.deliver(received.expect("no errors in this model"));
                    return;
                }
                let looks = if self.lane().is_idle() { looks } else { 0 };
                let given = (room && looks == 0).then(|| self.new_room());
                let task = Task::new();
                let (ticket, after) = self.lane().enqueue(&task.waker, given, looks);
                self.carry_out(after);
                task.flag.0.store(looks > 0, Ordering::Relaxed);
                self.receivers.push(Receiver { ticket, task, has_room: room });
            }
            ReceiveEvent::Poll(at) => self.poll(at),
            ReceiveEvent::Drop(at) => {
                if at < self.receivers.len() {
                    let receiver = self.receivers.remove(at);
                    let (room, after) = self.lane().forget(receiver.ticket);
                    self.room_is_back(room);
                    self.carry_out(after);
                }
            }
            ReceiveEvent::Try => {
                if let Some(received) = self.lane().take_stash() {
                    self.deliver(received.expect("no errors in this model"));
                } else if self.lane().is_idle()
                    && let Some(message) = self.kernel.pop_front()
                {
                    self.deliver(message);
                }
            }
            ReceiveEvent::Attend => {
                if !std::mem::take(&mut self.listed) {
                    return;
                }
                match self.lane().attend() {
                    Step::Submit => {
                        assert!(self.operation.is_none(), "one operation in flight");
                        let room = self.lane().room_to_arm();
                        self.next_key += 1;
                        let key = self.next_key;
                        let payload = room.unwrap_or(0);
                        self.lane().armed(key, payload);
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
            ReceiveEvent::Finish => {
                if let Some(operation) = &mut self.operation
                    && operation.completion.is_none()
                {
                    // A cancel loses against a message that is there: either may win.
                    if let Some(message) = self.kernel.pop_front() {
                        operation.completion = Some(Outcome::Done(message));
                    } else if operation.cancel_asked {
                        operation.completion = Some(Outcome::Void);
                    }
                }
            }
            ReceiveEvent::Void => {
                if let Some(operation) = &mut self.operation
                    && operation.completion.is_none()
                {
                    operation.completion = Some(Outcome::Void);
                }
            }
            ReceiveEvent::Reap => {
                let ready = |operation: &mut Operation<u64>| operation.completion.is_some();
                if let Some(operation) = self.operation.take_if(ready) {
                    assert!(self.lane().reaped(operation.key + 1).is_none(), "not another's key");
                    let payload = self.lane().reaped(operation.key).expect("known to the lane");
                    assert_eq!(payload, operation.payload);
                    let outcome = operation.completion.expect("checked");
                    let void = outcome == Outcome::Void;
                    let room = (void && payload != 0).then_some(payload);
                    if !void && payload != 0 {
                        // The room goes out with the message, in it.
                        self.room_is_back(Some(payload));
                    }
                    let (room, after) = self.lane().complete(outcome, room);
                    self.room_is_back(room);
                    self.carry_out(after);
                }
            }
        }
    }

    fn poll(&mut self, at: usize) {
        let Some(receiver) = self.receivers.get(at) else { return };
        receiver.task.is_woken();
        let (ticket, waker, has_room) =
            (receiver.ticket, receiver.task.waker.clone(), receiver.has_room);
        if self.lane().may_look(ticket) {
            assert_eq!(at, 0, "only the first looks");
            if let Some(message) = self.kernel.pop_front() {
                let after = self.lane().found();
                self.receivers.remove(at);
                self.deliver(message);
                self.carry_out(after);
            } else if self.lane().looked() > 0 {
                waker.wake();
            } else {
                let room = has_room.then(|| self.new_room());
                let after = self.lane().arm(&waker, room);
                self.carry_out(after);
            }
            return;
        }
        if let Ok((delivery, after)) = self.lane().poll(ticket, &waker) {
            assert_eq!(at, 0, "first in, first out");
            self.room_is_back(delivery.room);
            self.receivers.remove(at);
            self.deliver(delivery.received.expect("no errors in this model"));
            self.carry_out(after);
        }
    }

    /// Let everything run that can, polling only tasks that have been woken.
    fn settle(&mut self) {
        loop {
            let before =
                (self.delivered.len(), self.listed, self.next_key, self.operation.is_some());
            for event in [ReceiveEvent::Attend, ReceiveEvent::Finish, ReceiveEvent::Reap] {
                self.apply(event);
            }
            let mut polled = false;
            for at in (0..self.receivers.len()).rev() {
                if self.receivers[at].task.is_woken() {
                    polled = true;
                    self.poll(at);
                }
            }
            let after =
                (self.delivered.len(), self.listed, self.next_key, self.operation.is_some());
            if before == after && !polled && !self.listed {
                return;
            }
        }
    }

    fn check(&self) {
        let expected: Vec<u64> = (0..self.delivered.len() as u64).collect();
        assert_eq!(self.delivered, expected, "in order, none lost, none doubled");
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn receives_deliver_every_message_once_in_order_and_wake_whoever_waits(
        events in prop::collection::vec(receive_event(), 0..40)
    ) {
        let mut model = ReceiveModel::default();
        for event in events {
            model.apply(event);
            model.check();
        }
        model.settle();
        model.check();
        assert!(
            model.receivers.is_empty() || model.kernel.is_empty(),
            "nobody sleeps while a message is there"
        );
        // Whoever still waits goes; what was received for nobody is still to be had.
        while !model.receivers.is_empty() {
            model.apply(ReceiveEvent::Drop(0));
        }
        model.settle();
        assert!(model.operation.is_none(), "an operation that nobody wants is cancelled");
        for _ in 0..=model.sent {
            model.apply(ReceiveEvent::Try);
        }
        model.check();
        assert_eq!(model.delivered.len() as u64, model.sent, "every message was delivered");
        assert!(model.rooms.is_empty(), "every room came back");
    }
}

// ----- send -----

#[derive(Debug, Clone, Copy)]
enum SendEvent {
    /// A call with the next message begins its first poll: it goes directly if it may, else in line.
    Come,
    /// The direct call of one whose first poll has begun: it ends with the message sent, or in line.
    Call(usize),
    Poll(usize),
    Drop(usize),
    /// The peer takes a message.
    Read,
    Attend,
    Finish,
    Void,
    Reap,
}

fn send_event() -> impl Strategy<Value = SendEvent> {
    prop_oneof![
        5 => Just(SendEvent::Come),
        5 => (0..3usize).prop_map(SendEvent::Call),
        3 => (0..4usize).prop_map(SendEvent::Poll),
        2 => (0..4usize).prop_map(SendEvent::Drop),
        3 => Just(SendEvent::Read),
        4 => Just(SendEvent::Attend),
        4 => Just(SendEvent::Finish),
        1 => Just(SendEvent::Void),
        4 => Just(SendEvent::Reap),
    ]
}

/// Messages that the peer's queue holds.
const DEPTH: usize = 2;

struct Sender {
    slot: usize,
    message: u64,
    task: Task,
}

#[derive(Default)]
struct SendModel {
    lane: Option<SendLane<u64, u64>>,
    kernel: VecDeque<u64>,
    operation: Option<Operation<usize>>,
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
    dropped: Vec<u64>,
}

impl SendModel {
    fn lane(&mut self) -> &mut SendLane<u64, u64> {
        self.lane.get_or_insert_with(SendLane::new)
    }

    fn carry_out(&mut self, after: After<u64>) {
        if after.attend {
            assert!(!self.listed, "a lane stands on the list once");
            self.listed = true;
        }
        if let Some(message) = after.release {
            assert!(self.dropped.contains(&message), "only what was dropped is released");
        }
        after.wake.wake(&Notify::new());
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
        let task = Task::new();
        let (slot, after) = self.lane().enqueue(&task.waker, message);
        self.carry_out(after);
        self.senders.push(Sender { slot, message, task });
        self.end_first_poll(message);
    }

    fn end_first_poll(&mut self, message: u64) {
        let now = self.now;
        if let Some((_, end)) = self.first_polls.get_mut(&message) {
            *end = now;
        }
    }

    fn apply(&mut self, event: SendEvent) {
        self.now += 1;
        match event {
            SendEvent::Come => {
                let message = self.next_message;
                self.next_message += 1;
                self.first_polls.insert(message, (self.now, u64::MAX));
                if self.lane().is_idle() {
                    self.calling.push(message);
                } else {
                    self.enqueue(message);
                }
            }
            SendEvent::Call(at) => {
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
            SendEvent::Poll(at) => self.poll(at),
            SendEvent::Drop(at) => {
                if at < self.senders.len() {
                    let sender = self.senders.remove(at);
                    self.dropped.push(sender.message);
                    let after = self.lane().forget(sender.slot);
                    self.carry_out(after);
                }
            }
            SendEvent::Read => {
                self.kernel.pop_front();
            }
            SendEvent::Attend => {
                if !std::mem::take(&mut self.listed) {
                    return;
                }
                match self.lane().attend() {
                    Step::Submit => {
                        assert!(self.operation.is_none(), "one operation in flight");
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
            SendEvent::Finish => {
                let Some(operation) = &self.operation else { return };
                if operation.completion.is_some() {
                    return;
                }
                let (payload, cancel_asked) = (operation.payload, operation.cancel_asked);
                let completion = if self.send_now(payload) {
                    Some(Outcome::Done(1))
                } else {
                    cancel_asked.then_some(Outcome::Void)
                };
                if let Some(operation) = &mut self.operation {
                    operation.completion = completion;
                }
            }
            SendEvent::Void => {
                if let Some(operation) = &mut self.operation
                    && operation.completion.is_none()
                {
                    operation.completion = Some(Outcome::Void);
                }
            }
            SendEvent::Reap => {
                let ready = |operation: &mut Operation<usize>| operation.completion.is_some();
                let Some(operation) = self.operation.take_if(ready) else { return };
                let (slot, payload) = self.lane().reaped(operation.key).expect("known to the lane");
                assert_eq!(payload, operation.payload);
                let outcome = operation.completion.expect("checked");
                let went_out = outcome != Outcome::Void;
                let after = match outcome {
                    Outcome::Done(len) => self.lane().settle(slot, Some(payload), Ok(len)),
                    Outcome::Failed(_) | Outcome::Void => self.lane().put_back(slot, payload),
                };
                self.carry_out(after);
                // As the socket does: those that wait follow directly.
                while went_out && let Some((slot, payload)) = self.lane().next() {
                    if self.send_now(payload) {
                        let after = self.lane().settle(slot, Some(payload), Ok(1));
                        self.carry_out(after);
                    } else {
                        let after = self.lane().put_back(slot, payload);
                        self.carry_out(after);
                        break;
                    }
                }
            }
        }
    }

    fn poll(&mut self, at: usize) {
        let Some(sender) = self.senders.get(at) else { return };
        sender.task.is_woken();
        let (slot, waker) = (sender.slot, sender.task.waker.clone());
        if let Ok((result, payload)) = self.lane().poll(slot, &waker) {
            let sender = self.senders.remove(at);
            assert_eq!(payload, Some(sender.message), "everybody gets his own back");
            result.expect("no errors in this model");
            self.ok.push(sender.message);
        }
    }

    fn settle(&mut self) {
        loop {
            let before = (self.ok.len(), self.went_out.len(), self.listed, self.next_key);
            let events = [
                SendEvent::Call(0),
                SendEvent::Attend,
                SendEvent::Read,
                SendEvent::Finish,
                SendEvent::Reap,
            ];
            for event in events {
                self.apply(event);
            }
            let mut polled = false;
            for at in (0..self.senders.len()).rev() {
                if self.senders[at].task.is_woken() {
                    polled = true;
                    self.poll(at);
                }
            }
            let after = (self.ok.len(), self.went_out.len(), self.listed, self.next_key);
            let quiet = !polled && !self.listed && self.operation.is_none();
            if before == after && quiet && self.calling.is_empty() && self.kernel.is_empty() {
                return;
            }
        }
    }

    fn check(&self) {
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
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn sends_go_out_once_in_the_order_of_their_first_poll(
        events in prop::collection::vec(send_event(), 0..40)
    ) {
        let mut model = SendModel::default();
        for event in events {
            model.apply(event);
            model.check();
        }
        model.settle();
        model.check();
        assert!(model.senders.is_empty(), "nobody sleeps while there is room");
        let mut expected: Vec<u64> = model.ok.clone();
        expected.extend(model.went_out.iter().filter(|out| model.dropped.contains(out)));
        expected.sort_unstable();
        let mut went_out = model.went_out.clone();
        went_out.sort_unstable();
        assert_eq!(went_out, expected, "what went out was sent by somebody, or dropped");
        assert_eq!(model.ok.len() + model.dropped.len(), model.next_message as usize);
        assert!(model.lane().is_idle());
    }
}
