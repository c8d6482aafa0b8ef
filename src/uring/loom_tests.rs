//! Both lanes under loom: every interleaving, within a bound, of threads that drop calls, complete
//! operations, wake, and end the driver, around the lanes' locks. `.ci/loom` runs this.
//!
//! The lanes and the line are the real ones. What a shard and a driver do is done here with the same
//! calls in the same order as `state.rs`, `op.rs` and `driver.rs` do it, without a kernel: an operation
//! completes when a thread of the test says so.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::sync::atomic::Ordering;
use std::task::Poll;

use loom::future::block_on;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, AtomicUsize};
use loom::thread;

use super::lane::{ReceiveLane, Received, Ticket};
use crate::lane::{After, Outcome, Step, Withdrawn};
use crate::line::Line;
use crate::outgoing::Outgoing;
use crate::sync::Mutex;
use crate::watch::Bell;

const KEY: u64 = 7;

/// Preemptions in one interleaving: `.ci/long` asks for more.
fn check(test: impl Fn() + Sync + Send + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound =
        Some(std::env::var("LOOM_BOUND").ok().and_then(|n| n.parse().ok()).unwrap_or(3));
    model.check(test);
}

// ----- send -----

struct SendSide {
    line: Line<Box<Outgoing>>,
    dead: AtomicBool,
    /// Messages that went out.
    sent: AtomicUsize,
}

impl SendSide {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            line: Line::new(),
            dead: AtomicBool::new(false),
            sent: AtomicUsize::new(0),
        })
    }

    /// With one send in line, and its operation in flight.
    fn in_flight(waker: &std::task::Waker) -> (Arc<Self>, usize) {
        let side = Self::new();
        let (slot, after) = side.line.lock().lane.enqueue(waker, payload());
        side.carry_out(after);
        side.attend();
        (side, slot)
    }

    fn carry_out(&self, after: After<Box<Outgoing>>) {
        if after.attend && self.dead.load(Ordering::Acquire) {
            self.give_up();
        }
        drop(after.release);
        after.wake.wake(&Bell::default());
    }

    fn give_up(&self) {
        let (woken, _) = self.line.lock().lane.give_up();
        woken.into_iter().for_each(std::task::Waker::wake);
    }

    fn attend(&self) {
        let mut line = self.line.lock();
        if line.lane.attend() == Step::Submit
            && let Some((slot, payload)) = line.lane.next()
        {
            line.lane.armed(slot, KEY, payload);
        }
    }

    /// The operation in flight has sent its message; then those who wait go out directly.
    fn complete(&self) {
        let reaped = self.line.lock().lane.reaped(KEY);
        let Some((mut slot, mut payload)) = reaped else { return };
        loop {
            self.sent.fetch_add(1, Ordering::Relaxed);
            let mut line = self.line.lock();
            let after = line.lane.settle(slot, Some(payload), Ok(1));
            let next = line.lane.next();
            drop(line);
            self.carry_out(after);
            match next {
                Some(next) => (slot, payload) = next,
                None => return,
            }
        }
    }

    /// It was cancelled.
    fn cancelled(&self) {
        let reaped = self.line.lock().lane.reaped(KEY);
        if let Some((slot, payload)) = reaped {
            let after = self.line.lock().lane.put_back(slot, payload);
            self.carry_out(after);
        }
    }

    /// The driver dies, and the kernel forgets its ring.
    fn die(&self) {
        self.dead.store(true, Ordering::Release);
        let abandoned = self.line.lock().lane.abandon();
        self.give_up();
        if let Some((slot, payload)) = abandoned {
            let error = Err(io::Error::other("no driver"));
            let after = self.line.lock().lane.settle(slot, Some(payload), error);
            self.carry_out(after);
        }
    }

    /// As `Sending::poll`.
    async fn wait(&self, slot: usize) -> (io::Result<usize>, Option<Box<Outgoing>>) {
        poll_fn(|cx| {
            let polled = self.line.lock().lane.poll(slot, cx.waker());
            match polled {
                Ok(settled) => return Poll::Ready(settled),
                Err(replaced) => drop(replaced),
            }
            if !self.dead.load(Ordering::Acquire) {
                return Poll::Pending;
            }
            let withdrawn = self.line.lock().lane.withdraw(slot);
            match withdrawn {
                Withdrawn::Settled(result, payload) => Poll::Ready((result, payload)),
                Withdrawn::Lent => {
                    thread::yield_now();
                    cx.waker().wake_by_ref();
                    Poll::Pending
                }
                Withdrawn::Unsent(mut after) => {
                    let payload = after.release.take();
                    self.carry_out(after);
                    Poll::Ready((Err(io::Error::other("no driver")), payload))
                }
            }
        })
        .await
    }

    fn check_idle(&self) {
        assert!(self.line.lock().lane.is_idle());
        assert!(self.line.is_idle(), "what is seen without the lock is what is there");
    }
}

fn payload() -> Box<Outgoing> {
    Outgoing::copy(&[IoSlice::new(b"message")], &[], None).unwrap()
}

fn nobody() -> std::task::Waker {
    std::task::Waker::noop().clone()
}

#[test]
fn loom_a_send_is_woken_when_its_operation_completes() {
    check(|| {
        let (side, slot) = SendSide::in_flight(&nobody());
        let other = side.clone();
        let driver = thread::spawn(move || other.complete());
        let (result, payload) = block_on(side.wait(slot));
        assert!(result.is_ok() && payload.is_some());
        driver.join().unwrap();
        side.check_idle();
    });
}

#[test]
fn loom_a_send_dropped_while_it_completes_leaves_nothing_and_the_next_goes_out() {
    check(|| {
        let (side, slot) = SendSide::in_flight(&nobody());
        let (second, after) = side.line.lock().lane.enqueue(&nobody(), payload());
        side.carry_out(after);
        let other = side.clone();
        let driver = thread::spawn(move || other.complete());
        let other = side.clone();
        let dropping = thread::spawn(move || {
            let after = other.line.lock().lane.forget(slot);
            other.carry_out(after);
        });
        let (result, payload) = block_on(side.wait(second));
        assert!(result.is_ok() && payload.is_some());
        driver.join().unwrap();
        dropping.join().unwrap();
        assert_eq!(side.sent.load(Ordering::Relaxed), 2);
        side.check_idle();
    });
}

#[test]
fn loom_a_send_dropped_while_it_is_cancelled_never_goes_out_again() {
    check(|| {
        let (side, slot) = SendSide::in_flight(&nobody());
        let other = side.clone();
        let driver = thread::spawn(move || other.cancelled());
        let after = side.line.lock().lane.forget(slot);
        side.carry_out(after);
        driver.join().unwrap();
        assert!(side.line.lock().lane.next().is_none(), "nobody wants it");
        side.check_idle();
    });
}

#[test]
fn loom_a_send_that_comes_while_the_driver_dies_gets_its_payload_back() {
    check(|| {
        let side = SendSide::new();
        let other = side.clone();
        let driver = thread::spawn(move || other.die());
        let (slot, after) = side.line.lock().lane.enqueue(&nobody(), payload());
        side.carry_out(after);
        let (result, payload) = block_on(side.wait(slot));
        assert!(result.is_err() && payload.is_some());
        driver.join().unwrap();
        side.check_idle();
    });
}

#[test]
fn loom_the_driver_dies_while_a_shard_completes_and_the_next_send_gets_its_payload_back() {
    check(|| {
        let (side, first) = SendSide::in_flight(&nobody());
        let (second, after) = side.line.lock().lane.enqueue(&nobody(), payload());
        side.carry_out(after);
        let other = side.clone();
        let shard = thread::spawn(move || other.complete());
        let other = side.clone();
        let driver = thread::spawn(move || other.die());
        let (result, payload) = block_on(side.wait(second));
        assert!(payload.is_some(), "whatever came of it: {result:?}");
        let (result, payload) = block_on(side.wait(first));
        assert!(payload.is_some(), "whatever came of it: {result:?}");
        shard.join().unwrap();
        driver.join().unwrap();
        side.check_idle();
    });
}

#[test]
fn loom_who_polls_in_vain_is_woken_when_the_lane_settles() {
    check(|| {
        let (side, slot) = SendSide::in_flight(&nobody());
        let other = side.clone();
        let driver = thread::spawn(move || other.complete());
        let other = side.clone();
        let dropping = thread::spawn(move || {
            let after = other.line.lock().lane.forget(slot);
            other.carry_out(after);
        });
        block_on(poll_fn(|cx| {
            let mut line = side.line.lock();
            if line.lane.is_idle() {
                return Poll::Ready(());
            }
            let replaced = line.lane.watchers().park(cx.waker());
            drop(line);
            drop(replaced);
            Poll::Pending
        }));
        driver.join().unwrap();
        dropping.join().unwrap();
        side.check_idle();
    });
}

#[test]
fn loom_who_comes_after_somebody_stands_in_line_sees_it_without_the_lock() {
    check(|| {
        let side = SendSide::new();
        let stands = Arc::new(AtomicBool::new(false));
        // Somebody else comes and goes, whose guard must not overwrite what a later one has left.
        let other = side.clone();
        let passing = thread::spawn(move || {
            let (slot, after) = other.line.lock().lane.enqueue(&nobody(), payload());
            other.carry_out(after);
            let after = other.line.lock().lane.forget(slot);
            other.carry_out(after);
        });
        let (other, flag) = (side.clone(), stands.clone());
        let standing = thread::spawn(move || {
            let (slot, after) = other.line.lock().lane.enqueue(&nobody(), payload());
            other.carry_out(after);
            flag.store(true, Ordering::Release);
            slot
        });
        if stands.load(Ordering::Acquire) {
            assert!(!side.line.is_idle(), "somebody is ahead");
        }
        let slot = standing.join().unwrap();
        passing.join().unwrap();
        assert!(!side.line.is_idle());
        let after = side.line.lock().lane.forget(slot);
        side.carry_out(after);
        side.check_idle();
    });
}

// ----- receive -----

/// A payload is the room that a caller gave, a message a number and the room it lies in.
struct ReceiveSide {
    lane: Mutex<ReceiveLane<u64, (u64, u64), u64>>,
    dead: AtomicBool,
    /// Rooms that came back.
    rooms: AtomicUsize,
}

impl ReceiveSide {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            lane: Mutex::new(ReceiveLane::new()),
            dead: AtomicBool::new(false),
            rooms: AtomicUsize::new(0),
        })
    }

    fn come(&self, room: u64) -> Ticket {
        let (ticket, after) = self.lane.lock().unwrap().enqueue(&nobody(), Some(room), 0);
        self.carry_out(after);
        ticket
    }

    fn carry_out(&self, after: After<(u64, u64)>) {
        assert!(after.release.is_none(), "no message is thrown away");
        if after.attend && self.dead.load(Ordering::Acquire) {
            self.give_up();
        }
        after.wake.wake(&Bell::default());
    }

    fn give_up(&self) {
        let (woken, _) = self.lane.lock().unwrap().give_up();
        woken.into_iter().for_each(std::task::Waker::wake);
    }

    fn attend(&self) {
        let mut lane = self.lane.lock().unwrap();
        if lane.attend() == Step::Submit {
            let room = lane.room_to_arm();
            lane.armed(KEY, room.unwrap_or(0));
        }
    }

    fn complete(&self, message: u64) {
        let mut lane = self.lane.lock().unwrap();
        let Some(room) = lane.reaped(KEY) else { return };
        let (room, after) = lane.complete(Outcome::Done((message, room)), None);
        assert!(room.is_none());
        self.move_orphan(&mut lane);
        drop(lane);
        self.carry_out(after);
    }

    fn move_orphan(&self, lane: &mut ReceiveLane<u64, (u64, u64), u64>) {
        if let Some((_, room @ 1..)) = lane.orphan() {
            *room = 0;
            self.rooms.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn room_is_back(&self, room: Option<u64>) {
        if room.is_some_and(|room| room != 0) {
            self.rooms.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn forget(&self, ticket: Ticket) {
        let mut lane = self.lane.lock().unwrap();
        let (room, after) = lane.forget(ticket);
        self.move_orphan(&mut lane);
        drop(lane);
        self.room_is_back(room);
        self.carry_out(after);
    }

    fn die(&self) {
        self.dead.store(true, Ordering::Release);
        let abandoned = self.lane.lock().unwrap().abandon();
        self.give_up();
        if let Some(room) = abandoned {
            let (room, waker) = self.lane.lock().unwrap().room_is_back(Some(room));
            self.room_is_back(room);
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }

    /// As `Receiving::poll_waiting`. `None` without a driver.
    async fn wait(&self, ticket: Ticket) -> Option<Received<(u64, u64)>> {
        poll_fn(|cx| {
            let polled = self.lane.lock().unwrap().poll(ticket, cx.waker());
            match polled {
                Ok((delivery, after)) => {
                    self.carry_out(after);
                    self.room_is_back(delivery.room);
                    self.room_is_back(delivery.received.ok().map(|(_, room)| room));
                    return Poll::Ready(Some(delivery.received));
                }
                Err(replaced) => drop(replaced),
            }
            if !self.dead.load(Ordering::Acquire) {
                return Poll::Pending;
            }
            let mut lane = self.lane.lock().unwrap();
            if lane.is_lent(ticket) {
                drop(lane);
                thread::yield_now();
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let (room, after) = lane.forget(ticket);
            self.move_orphan(&mut lane);
            drop(lane);
            self.room_is_back(room);
            self.carry_out(after);
            Poll::Ready(None)
        })
        .await
    }
}

#[test]
fn loom_a_message_for_a_receive_that_is_dropped_wakes_the_next() {
    check(|| {
        let side = ReceiveSide::new();
        let (first, second) = (side.come(1), side.come(2));
        side.attend();
        let other = side.clone();
        let driver = thread::spawn(move || other.complete(5));
        let other = side.clone();
        let dropping = thread::spawn(move || other.forget(first));
        let received = block_on(side.wait(second));
        assert!(matches!(received, Some(Ok((5, _)))));
        driver.join().unwrap();
        dropping.join().unwrap();
        assert!(side.lane.lock().unwrap().is_idle());
        assert_eq!(side.rooms.load(Ordering::Relaxed), 2, "each room came back");
    });
}

#[test]
fn loom_a_message_for_nobody_is_kept() {
    check(|| {
        let side = ReceiveSide::new();
        let ticket = side.come(1);
        side.attend();
        let other = side.clone();
        let driver = thread::spawn(move || other.complete(5));
        side.forget(ticket);
        driver.join().unwrap();
        assert_eq!(side.lane.lock().unwrap().take_stash(), Some(Ok((5, 0))));
        assert_eq!(side.rooms.load(Ordering::Relaxed), 1, "the room came back");
    });
}

#[test]
fn loom_a_receive_ends_with_its_room_while_the_driver_arms_completes_or_dies() {
    check(|| {
        let side = ReceiveSide::new();
        let ticket = side.come(1);
        let other = side.clone();
        let shard = thread::spawn(move || {
            other.attend();
            other.complete(5);
        });
        let other = side.clone();
        let driver = thread::spawn(move || other.die());
        let received = block_on(side.wait(ticket));
        assert_eq!(side.rooms.load(Ordering::Relaxed), 1, "the room came back");
        shard.join().unwrap();
        driver.join().unwrap();
        let stashed = side.lane.lock().unwrap().take_stash();
        assert!(!matches!(received, Some(Ok(_))) || stashed.is_none(), "a message comes once");
    });
}
