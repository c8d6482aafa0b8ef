//! A socket's queues against a fake kernel, fake readiness and fake drivers, in any order of their steps.
//!
//! The queues, the retry policy and the observers are the real ones. What the backend does around them is repeated here with
//! the same calls in the same order. `receive.rs` and `send.rs` follow `recv.rs` and `send.rs` in `backend/`, and `driver.rs`
//! follows `driver.rs` and `core.rs`. `kernel.rs` has the kernel's queues and `epoll/readiness.rs`.
//!
//! An event is one step of one party: a call, the driver of one of two workers, the kernel, tokio's I/O driver. What happens
//! under one lock is one step. After each step the model checks
//!
//! - that a waiter with a stored waker is followed by something that will wake it (`recv_queue.rs` states it);
//! - that sends that wait are listed, or wait for readiness, or are in a driver's pass;
//! - that messages are delivered once and in order, and sent once and in the order of their first polls;
//! - that a send that was dropped while it waited is never sent.
//!
//! At the end everything runs that can, except for futures that are never polled again. Then nothing may be left that a future
//! waits for. `MODEL_SCHEDULES` sets how many schedules the test runs. Fuzzing reads its scripts from bytes.

mod driver;
mod kernel;
mod receive;
mod send;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Wake, Waker};

use driver::ModelWorker;
use kernel::{Kernel, Kind, ModelReadiness};
use receive::{Readable, Receiver};
use send::{Sender, Sends, Writable};

use crate::common::idle_notify::{IdleNotify, WakeList};
use crate::common::policy::RecvPolicy;
use crate::common::recv_queue::RecvQueue;
use crate::common::send_queue::SendQueue;

/// A task: whether it has been woken since it was last polled.
#[derive(Debug, Default)]
struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[derive(Debug)]
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
        self.flag.0.load(Ordering::Relaxed)
    }

    fn take_woken(&self) -> bool {
        self.flag.0.swap(false, Ordering::Relaxed)
    }
}

/// The runtime is gone, or no readiness will come.
#[derive(Debug)]
struct Gone;

#[derive(Debug, Clone, Copy)]
pub(crate) struct Event {
    /// The thread that makes the step: a worker, or another one.
    on: usize,
    step: Step,
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Arrive(Kind),
    /// A message arrives right after the call that finds nothing after so many others. The flag says whether the I/O driver
    /// gets the event before that call continues.
    Surprise {
        after: u8,
        heard: bool,
    },
    /// Registering for readiness fails once.
    Refuse,
    Receive {
        may_batch: bool,
    },
    PollReceive {
        at: usize,
        busy: bool,
    },
    DropReceive(usize),
    /// It is never polled again.
    FreezeReceive(usize),
    /// It is never dropped either.
    ForgetReceive(usize),
    TryReceive,
    /// A stream receives so many messages and ends without having yielded any.
    Stream(usize),
    PollRecv,
    Readable,
    DropReadable(usize),
    Send {
        may_batch: bool,
    },
    /// One step of a first poll, or a later poll.
    PollSend(usize),
    DropSend(usize),
    FreezeSend(usize),
    ForgetSend(usize),
    TrySend,
    PollSendReady,
    Writable,
    DropWritable(usize),
    /// The peer takes a message.
    Read,
    /// One step of a worker's driver.
    Drive {
        fate: Fate,
    },
    /// The driver runs to the end of its pass.
    Pass,
    /// The I/O driver gets the event of readiness.
    Hear,
    /// The socket's waker, which the I/O driver has called, continues.
    Fire,
    Batched(bool),
    MultiThread(bool),
    /// A ring that had refused service counts as working again, as another socket's worker would have it.
    Mend,
    /// From now on its ring refuses each operation, or does not.
    Filter(bool),
    Die,
    Close,
}

/// What the ring does with a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Normal,
    /// It refuses the operations, which the kernel would not.
    Refused,
    /// They are canceled.
    Cancelled,
    /// The kernel takes none of them.
    NotTaken,
    /// It takes the send, which is sent, and reports no result.
    Unknown,
}

#[derive(Debug)]
pub(crate) struct Model {
    /// The thread that makes the step.
    on: usize,
    now: u64,
    kernel: Kernel,
    readiness: ModelReadiness,
    workers: [ModelWorker; 2],
    multi_thread: bool,
    over: bool,
    closed: bool,

    // As in `Core`.
    recv: RecvQueue<u64>,
    policy: RecvPolicy,
    attempts_left: u8,
    send: SendQueue<u64>,
    notify: IdleNotify,

    receivers: Vec<Receiver>,
    /// The task that called `poll_recv` last.
    poller: Option<Task>,
    readable: Vec<Readable>,
    /// How many messages and errors were delivered.
    delivered: u64,

    senders: Vec<Sender>,
    sends: Sends,
    /// The task that called `poll_send` last.
    writer: Option<Task>,
    writable: Vec<Writable>,
}

impl Model {
    fn new() -> Self {
        Self {
            on: 0,
            now: 0,
            kernel: Kernel::default(),
            readiness: ModelReadiness::default(),
            // One batches from the start.
            workers: [ModelWorker::new(true), ModelWorker::new(false)],
            multi_thread: false,
            over: false,
            closed: false,
            recv: RecvQueue::new(),
            policy: RecvPolicy::default(),
            attempts_left: 0,
            send: SendQueue::new(),
            notify: IdleNotify::default(),
            receivers: Vec::new(),
            poller: None,
            readable: Vec::new(),
            delivered: 0,
            senders: Vec::new(),
            sends: Sends::default(),
            writer: None,
            writable: Vec::new(),
        }
    }

    /// Runs a schedule from beginning to end.
    pub(crate) fn run(events: impl IntoIterator<Item = Event>) {
        let mut model = Self::new();
        for event in events {
            model.apply(event);
        }
        model.end();
    }

    fn apply(&mut self, Event { on, step }: Event) {
        self.on = on;
        self.now += 1;
        self.step(step);
        self.check();
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Arrive(kind) => self.arrive(kind),
            Step::Surprise { after, heard } => self.kernel.surprise = Some((after, heard)),
            Step::Refuse => self.readiness.refuses = true,
            Step::Read => self.peer_reads(),
            Step::Drive { fate } => self.drive(self.some_worker(), fate),
            Step::Pass => self.pass(self.some_worker()),
            Step::Hear => self.hear(),
            Step::Fire => self.fire(),
            Step::Batched(batched) => {
                let worker = self.some_worker();
                self.workers[worker].batched = batched && self.workers[worker].has_ring;
            }
            Step::MultiThread(multi_thread) => self.multi_thread = multi_thread,
            Step::Mend => {
                let worker = self.some_worker();
                self.workers[worker].has_ring = true;
            }
            Step::Filter(filtered) => {
                let worker = self.some_worker();
                self.workers[worker].filtered = filtered;
            }
            Step::Die => self.die(),
            _ if self.closed => {}
            Step::Close => self.close(),
            Step::Receive { may_batch } => self.new_receive(may_batch),
            Step::PollReceive { at, busy } => self.poll_receive(at, busy),
            Step::DropReceive(at) => self.drop_receive(at),
            Step::FreezeReceive(at) => {
                self.receivers.get_mut(at).into_iter().for_each(|receiver| receiver.frozen = true);
            }
            Step::ForgetReceive(at) if at < self.receivers.len() => drop(self.receivers.remove(at)),
            Step::TryReceive => {
                if let Ok(Some(outcome)) = self.try_receive() {
                    self.deliver(outcome);
                }
            }
            Step::Stream(most) => self.stream(most),
            Step::PollRecv => self.poll_recv(),
            Step::Readable => self.new_readable(),
            Step::DropReadable(at) if at < self.readable.len() => drop(self.readable.remove(at)),
            Step::Send { may_batch } => self.new_send(may_batch),
            Step::PollSend(at) => self.poll_send(at),
            Step::DropSend(at) => self.drop_send(at),
            Step::FreezeSend(at) => self.freeze_send(at),
            Step::ForgetSend(at) => self.forget_send(at),
            Step::TrySend => drop(self.try_send()),
            Step::PollSendReady => self.poll_send_observer(),
            Step::Writable => self.new_writable(),
            Step::DropWritable(at) if at < self.writable.len() => drop(self.writable.remove(at)),
            Step::ForgetReceive(_) | Step::DropReadable(_) | Step::DropWritable(_) => {}
        }
    }

    fn some_worker(&self) -> usize {
        if self.on < self.workers.len() { self.on } else { 0 }
    }

    /// As `Core::batching_worker`.
    fn batching_worker(&self) -> Option<usize> {
        let worker = self.workers.get(self.on)?;
        (worker.batched && worker.has_ring).then_some(self.on)
    }

    fn check_runtime(&self) -> Result<(), Gone> {
        if self.over { Err(Gone) } else { Ok(()) }
    }

    /// Closes the socket as `Core::close` does, after all futures were dropped.
    fn close(&mut self) {
        while !self.receivers.is_empty() {
            self.drop_receive(0);
        }
        while !self.senders.is_empty() {
            self.drop_send(0);
        }
        (self.poller, self.writer) = (None, None);
        self.readable.clear();
        self.writable.clear();
        self.closed = true;
        let _unclaimed = self.recv.close();
        for message in self.send.close().0 {
            self.sends.unsent.insert(message);
        }
        for worker in &mut self.workers {
            worker.listed.clear();
        }
        self.readiness.close();
    }

    /// Drops the runtime, one driver after the other, and then its I/O driver.
    fn die(&mut self) {
        if let Some(worker) = self.workers.iter().position(|worker| !worker.dead) {
            // A task is not dropped while it is polled.
            while self.workers[worker].pass.is_some() {
                self.drive(worker, Fate::Normal);
            }
            self.over = true;
            self.workers[worker].dead = true;
            self.workers[worker].waker = false;
            let mut wakers = WakeList::default();
            for _ in std::mem::take(&mut self.workers[worker].listed) {
                self.wake_all(&mut wakers);
            }
            wakers.wake_all();
        } else if !std::mem::replace(&mut self.readiness.over, true) {
            self.readiness.take_wakers();
        }
    }

    fn is_dead(&self) -> bool {
        self.readiness.over && !self.readiness.is_firing()
    }

    // ----- checks -----

    fn check(&mut self) {
        self.check_receives();
        self.check_sends();
    }

    /// Runs everything that can run.
    fn settle(&mut self) {
        let woken = |task: &Option<Task>| task.as_ref().is_some_and(Task::is_woken);
        for _ in 0..1000 {
            let mut quiet = true;
            for worker in 0..self.workers.len() {
                quiet &= !self.workers[worker].is_runnable();
                self.on = worker;
                self.poll_driver(worker);
                self.check();
            }
            quiet &= !self.readiness.has_event() && !self.readiness.is_firing();
            while self.readiness.has_event() {
                self.hear();
            }
            while self.readiness.is_firing() {
                self.fire();
                self.check();
            }
            for at in (0..self.receivers.len()).rev() {
                if !self.receivers[at].frozen && self.receivers[at].task.is_woken() {
                    quiet = false;
                    self.poll_receive(at, false);
                    self.check();
                }
            }
            for at in (0..self.readable.len()).rev() {
                if self.readable[at].task.is_woken() {
                    quiet = false;
                    self.poll_readable(at);
                    self.check();
                }
            }
            for at in (0..self.senders.len()).rev() {
                let sender = &self.senders[at];
                if sender.is_in_poll() || !sender.frozen && sender.task.is_woken() {
                    quiet = false;
                    self.poll_send(at);
                    self.check();
                }
            }
            for at in (0..self.writable.len()).rev() {
                if self.writable[at].task.is_woken() {
                    quiet = false;
                    self.poll_writable(at);
                    self.check();
                }
            }
            if woken(&self.poller) {
                quiet = false;
                self.poll_recv();
            }
            if woken(&self.writer) {
                quiet = false;
                self.poll_send_observer();
            }
            if self.kernel.outbound > 0 {
                quiet = false;
                self.peer_reads();
            }
            if self.over && !self.is_dead() {
                quiet = false;
                self.die();
            }
            self.check();
            if quiet {
                return self.check_quiet();
            }
        }
        panic!("this never comes to an end");
    }

    /// Asserts that nothing is left that a future waits for which is polled when it is woken.
    fn check_quiet(&self) {
        assert!(self.workers.iter().all(|worker| worker.listed.is_empty() || worker.dead));
        let waits = self.receivers.iter().any(|receiver| !receiver.frozen);
        let sends = self.senders.iter().any(|sender| !sender.frozen);
        if self.over {
            assert!(!waits && !sends, "the runtime is gone, and each call got an error");
            assert!(self.poller.is_none() && self.readable.is_empty(), "so was each observer");
            assert!(self.writer.is_none() && self.writable.is_empty(), "also of sends");
        } else if self.closed {
            assert_eq!(self.send.waiting(), 0);
        } else {
            let left = self.recv.completed().is_some() || !self.kernel.inbound.is_empty();
            assert!(!(left && waits), "a receive waits for a message that is there: {self:?}");
            let observed = self.poller.is_some() || !self.readable.is_empty();
            assert!(!(left && observed), "an observer waits for a message that is there");
            assert!(!sends, "a send waits while the peer reads: {self:?}");
            assert!(self.send.is_idle(), "a send that is not polled goes out");
            let observed = self.writer.is_some() || !self.writable.is_empty();
            assert!(!observed, "an observer waits for capacity that is there");
        }
    }

    /// Checks what holds when everything has run that can, and how the queues continue from there.
    fn end(&mut self) {
        self.kernel.surprise = None;
        self.readiness.refuses = false;
        self.settle();
        if !self.over && !self.closed {
            self.end_alive();
        }
        self.on = 2;
        if self.now.is_multiple_of(2) && !self.closed {
            self.close();
            self.settle();
        }
        while !self.is_dead() {
            self.die();
            while self.readiness.is_firing() {
                self.fire();
            }
        }
        self.settle();
        if !self.closed {
            self.close();
        }
        assert!(self.send.is_idle());
        assert!(self.recv.completed().is_none(), "nothing is kept for a socket that is gone");
    }

    fn end_alive(&mut self) {
        // What is left is for the next receive.
        while self.recv.completed().is_some() || !self.kernel.inbound.is_empty() {
            let before = self.delivered;
            self.on = self.delivered as usize % 3;
            self.new_receive(true);
            self.settle();
            assert!(self.delivered > before, "the next receive has what was left");
        }
        // A message reaches a receive that is polled, and wakes an observer, whichever others are not polled.
        self.on = 0;
        self.new_receive(true);
        self.settle();
        self.arrive(Kind::Message);
        self.settle();
        assert_eq!(self.delivered, self.kernel.arrived);
        self.drop_polled();
        self.poll_recv();
        self.arrive(Kind::Message);
        self.settle();
        assert_eq!(self.delivered, self.kernel.arrived);
        // Futures that are dropped after one poll, in a loop that never yields.
        self.arrive(Kind::Message);
        for _ in 0..3 {
            self.new_receive(true);
            self.drop_polled();
        }
        assert_eq!(self.delivered, self.kernel.arrived, "a loop of receives gets its message");
        let before = self.kernel.went_out.len();
        for _ in 0..3 {
            self.new_send(true);
            let at = self.senders.len() - 1;
            self.drop_send(at);
        }
        assert!(self.kernel.went_out.len() > before, "a loop of sends gets through");
        self.check();
        self.settle();
    }

    fn drop_polled(&mut self) {
        for at in (0..self.receivers.len()).rev() {
            if !self.receivers[at].frozen {
                self.drop_receive(at);
                self.check();
            }
        }
    }
}

impl Event {
    /// Decodes an event from two bytes of a script: its kind, and its argument.
    pub(crate) fn from_bytes([kind, detail]: [u8; 2]) -> Self {
        let at = usize::from(detail % 4);
        let odd = detail & 4 != 0;
        let on = usize::from(detail >> 6) % 3;
        let step = match kind % 100 {
            0..7 => Step::Arrive(Kind::Message),
            7 => Step::Arrive(if odd { Kind::Bulky } else { Kind::Error }),
            8..10 => Step::Surprise { after: detail % 4, heard: odd },
            10 => Step::Refuse,
            11..19 => Step::Receive { may_batch: detail & 0x38 != 0 },
            19..27 => Step::PollReceive { at, busy: odd },
            27..31 => Step::DropReceive(at),
            31..33 => Step::FreezeReceive(at),
            33 => Step::ForgetReceive(at),
            34 if odd => Step::Stream(at + 1),
            34 => Step::TryReceive,
            35..37 => Step::PollRecv,
            37 => Step::Readable,
            38 => Step::DropReadable(at),
            39..46 => Step::Send { may_batch: detail & 0x38 != 0 },
            46..53 => Step::PollSend(at),
            53..57 => Step::DropSend(at),
            57..58 => Step::FreezeSend(at),
            58 => Step::ForgetSend(at),
            59 => Step::TrySend,
            60 => Step::PollSendReady,
            61 => Step::Writable,
            62 => Step::DropWritable(at),
            63..67 => Step::Read,
            67..81 => Step::Drive {
                fate: match detail & 0x3f {
                    0..54 => Fate::Normal,
                    54..56 => Fate::Refused,
                    56..58 => Fate::Cancelled,
                    58..62 => Fate::NotTaken,
                    _ => Fate::Unknown,
                },
            },
            81..84 => Step::Pass,
            84..88 => Step::Hear,
            88..93 => Step::Fire,
            93..95 => Step::Batched(detail & 0x30 != 0),
            95 => Step::Batched(true),
            96 => Step::MultiThread(odd),
            97 if odd => Step::Filter(at > 0),
            97 => Step::Mend,
            98 => Step::Die,
            _ => Step::Close,
        };
        Self { on, step }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn config() -> ProptestConfig {
        let schedules = std::env::var("MODEL_SCHEDULES").ok().and_then(|n| n.parse().ok());
        ProptestConfig {
            cases: schedules.unwrap_or(20_000),
            failure_persistence: None,
            max_shrink_iters: 20_000,
            ..ProptestConfig::default()
        }
    }

    /// Events of one direction, of both, and few ends.
    fn script(kinds: impl Strategy<Value = u8> + 'static) -> impl Strategy<Value = Vec<Event>> {
        let event =
            (kinds, any::<u8>()).prop_map(|(kind, detail)| Event::from_bytes([kind, detail]));
        prop::collection::vec(event, 0..60)
    }

    proptest! {
        #![proptest_config(config())]

        #[test]
        fn receives_keep_their_promises_in_any_schedule(
            script in script(prop_oneof![40 => 0..39u8, 34 => 67..98u8, 1 => 98..100u8])
        ) {
            Model::run(script);
        }

        #[test]
        fn sends_keep_their_promises_in_any_schedule(
            script in script(prop_oneof![60 => 39..98u8, 1 => 98..100u8])
        ) {
            Model::run(script);
        }

        #[test]
        fn a_socket_keeps_its_promises_in_any_schedule(
            script in script(prop_oneof![100 => 0..98u8, 1 => 98..100u8])
        ) {
            Model::run(script);
        }
    }
}
