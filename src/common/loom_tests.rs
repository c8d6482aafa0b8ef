//! Both queues of a socket under loom: every interleaving, within a bound, of threads that drop calls, make a driver's
//! pass, wake, close, and end the runtime, around the queues' locks. `.ci/loom` runs this.
//!
//! The queues are the real ones. What the backend does around them is done here with the same calls in the same order. Each
//! step of a driver's pass stands by itself: submitting, completing, waking.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::sync::Mutex as Plain;
use std::task::{Poll, Waker};

use loom::future::block_on;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, Ordering};
use loom::thread;

use super::idle_notify::{IdleNotify, WakeList};
use super::pending_send::PendingSend;
use super::recv_queue::{Outcome, RecvQueue, Wakes};
use super::send_queue::{Effects, SharedSendQueue, Withdrawn};
use super::wait_queue::WaiterId;
use crate::util::sync::Mutex;

/// Preemptions in one interleaving. `.ci/long` sets more.
fn check(test: impl Fn() + Sync + Send + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound =
        Some(std::env::var("LOOM_BOUND").ok().and_then(|n| n.parse().ok()).unwrap_or(3));
    model.check(test);
}

/// What a driver takes out, and whether there still is a driver.
#[derive(Default)]
struct LoomInbox {
    listed: usize,
    dead: bool,
}

// ----- send -----

struct SendSide {
    send: SharedSendQueue,
    inbox: Mutex<LoomInbox>,
    over: AtomicBool,
    /// Messages that were sent, by slot. Not loom's type: it adds no interleavings.
    sent: Plain<Vec<usize>>,
}

impl SendSide {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            send: SharedSendQueue::new(),
            inbox: Mutex::new(LoomInbox::default()),
            over: AtomicBool::new(false),
            sent: Plain::new(Vec::new()),
        })
    }

    fn apply(&self, effects: Effects<Box<PendingSend>>) {
        drop(effects.release);
        effects.one.into_iter().for_each(Waker::wake);
        let mut list = WakeList::default();
        effects.observers.collect(&IdleNotify::default(), &mut list);
        list.wake_all();
    }

    /// As `WaitingSend::poll_first`.
    fn join(&self, waker: &Waker) -> usize {
        let payload = PendingSend::copy(&[IoSlice::new(b"message")], &[], None).unwrap();
        let mut send = self.send.lock();
        let is_first = send.queue.is_idle();
        let slot = send.queue.enqueue(waker, payload);
        drop(send);
        if is_first && self.send.lock().queue.list() {
            self.list();
        }
        slot
    }

    fn list(&self) {
        let mut inbox = self.inbox.lock().unwrap();
        inbox.listed += 1;
        let dead = inbox.dead;
        drop(inbox);
        if dead {
            self.wake_all();
        }
    }

    fn wake_all(&self) {
        let mut wakers = Vec::new();
        let _observers = self.send.lock().queue.wake_all(&mut wakers);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Makes a driver's pass. Returns whether the socket was listed.
    fn pass(&self) -> bool {
        let listed = std::mem::take(&mut self.inbox.lock().unwrap().listed);
        for _ in 0..listed {
            self.send.lock().queue.unlist();
            loop {
                let next = self.send.lock().queue.next();
                let Some((slot, payload)) = next else { break };
                self.sent.lock().unwrap().push(slot);
                let effects = self.send.lock().queue.complete(slot, Some(payload), Ok(1));
                self.apply(effects);
            }
            if self.send.lock().queue.list() {
                self.list();
            }
        }
        listed > 0
    }

    /// Drops the driver's task.
    fn die(&self) {
        self.over.store(true, Ordering::Release);
        let mut inbox = self.inbox.lock().unwrap();
        inbox.dead = true;
        let listed = std::mem::take(&mut inbox.listed);
        drop(inbox);
        (0..listed).for_each(|_| self.wake_all());
    }

    fn forget(&self, slot: usize) {
        let effects = self.send.lock().queue.cancel(slot);
        self.apply(effects);
    }

    /// As `WaitingSend::poll`.
    async fn wait(&self, slot: usize) -> (io::Result<usize>, Option<Box<PendingSend>>) {
        poll_fn(|cx| {
            let polled = self.send.lock().queue.poll(slot, cx.waker());
            match polled {
                Ok(completed) => return Poll::Ready(completed),
                Err(replaced) => drop(replaced),
            }
            if !self.over.load(Ordering::Acquire) {
                return Poll::Pending;
            }
            let withdrawn = self.send.lock().queue.withdraw(slot);
            match withdrawn {
                Withdrawn::Done(result, payload) => Poll::Ready((result, payload)),
                Withdrawn::Taken => {
                    thread::yield_now();
                    cx.waker().wake_by_ref();
                    Poll::Pending
                }
                Withdrawn::Unsent(mut effects) => {
                    let payload = effects.release.take();
                    self.apply(effects);
                    Poll::Ready((Err(io::Error::other("the runtime is gone")), payload))
                }
            }
        })
        .await
    }

    fn check_idle(&self) {
        assert!(self.send.lock().queue.is_idle());
        assert!(self.send.is_idle(), "what is seen without the lock is what is there");
    }
}

fn no_task() -> Waker {
    Waker::noop().clone()
}

#[test]
fn loom_a_send_is_woken_and_one_that_is_dropped_meanwhile_leaves_nothing() {
    check(|| {
        let side = SendSide::new();
        let (first, second) = (side.join(&no_task()), side.join(&no_task()));
        let other = side.clone();
        let driver = thread::spawn(move || while other.pass() {});
        let other = side.clone();
        let dropping = thread::spawn(move || other.forget(first));
        let (result, payload) = block_on(side.wait(second));
        assert!(result.is_ok() && payload.is_some());
        driver.join().unwrap();
        dropping.join().unwrap();
        side.check_idle();
    });
}

#[test]
fn loom_two_drivers_keep_the_order() {
    check(|| {
        let side = SendSide::new();
        let first = side.join(&no_task());
        let other = side.clone();
        let driver = thread::spawn(move || while other.pass() {});
        let second = side.join(&no_task());
        let third = side.join(&no_task());
        while side.pass() {}
        driver.join().unwrap();
        while side.pass() {}
        assert_eq!(*side.sent.lock().unwrap(), [first, second, third]);
        [first, second, third].into_iter().for_each(|slot| side.forget(slot));
        side.check_idle();
    });
}

#[test]
fn loom_a_send_that_is_put_back_while_it_is_dropped_never_goes_out() {
    check(|| {
        let side = SendSide::new();
        let slot = side.join(&no_task());
        let other = side.clone();
        let driver = thread::spawn(move || {
            let next = other.send.lock().queue.next();
            let Some((slot, payload)) = next else { return };
            let effects = other.send.lock().queue.put_back(slot, payload);
            other.apply(effects);
        });
        side.forget(slot);
        driver.join().unwrap();
        assert!(side.send.lock().queue.next().is_none());
        side.check_idle();
    });
}

#[test]
fn loom_a_send_that_joins_while_the_runtime_ends_has_its_payload_back() {
    check(|| {
        let side = SendSide::new();
        let other = side.clone();
        let driver = thread::spawn(move || {
            other.pass();
            other.die();
        });
        let slot = side.join(&no_task());
        let (result, payload) = block_on(side.wait(slot));
        assert!(payload.is_some(), "whatever came of it: {result:?}");
        driver.join().unwrap();
        side.check_idle();
    });
}

#[test]
fn loom_a_send_sees_without_the_lock_that_another_is_ahead() {
    check(|| {
        let side = SendSide::new();
        let waits = Arc::new(AtomicBool::new(false));
        // Another comes and goes. Its guard must not overwrite what a later one has left.
        let other = side.clone();
        let passing = thread::spawn(move || {
            let slot = other.join(&no_task());
            other.forget(slot);
        });
        let (other, flag) = (side.clone(), waits.clone());
        let waiting = thread::spawn(move || {
            let slot = other.join(&no_task());
            flag.store(true, Ordering::Release);
            slot
        });
        if waits.load(Ordering::Acquire) {
            assert!(!side.send.is_idle(), "one is ahead");
        }
        let slot = waiting.join().unwrap();
        passing.join().unwrap();
        assert!(!side.send.is_idle());
        side.forget(slot);
        side.check_idle();
    });
}

// ----- receive -----

struct ReceiveSide {
    recv: Mutex<RecvQueue<u64>>,
    kernel: Plain<VecDeque<u64>>,
    over: AtomicBool,
    /// Dropped with the socket.
    thrown_away: Plain<Vec<Outcome<u64>>>,
}

type Id = Option<WaiterId>;

impl ReceiveSide {
    /// Creates a queue in which so many receives wait, with a queued attempt if there are any.
    fn new(receives: usize, messages: usize) -> (Arc<Self>, Vec<Id>) {
        let side = Arc::new(Self {
            recv: Mutex::new(RecvQueue::new()),
            kernel: Plain::new((0..messages as u64).collect()),
            over: AtomicBool::new(false),
            thrown_away: Plain::new(Vec::new()),
        });
        let ids = (0..receives).map(|_| {
            let (mut recv, mut id) = (side.recv.lock().unwrap(), None);
            recv.queue_attempt();
            drop(recv.wait(&mut id, &no_task()));
            id
        });
        let ids = ids.collect();
        (side, ids)
    }

    fn apply(&self, wakes: Wakes) {
        wakes.one.into_iter().for_each(Waker::wake);
        let mut list = WakeList::default();
        wakes.observers.collect(&IdleNotify::default(), &mut list);
        list.wake_all();
        if wakes.relay {
            let wakes = self.recv.lock().unwrap().relay();
            self.apply(wakes);
        }
    }

    /// Makes a driver's pass: submits the attempt, runs it, reports it.
    fn pass(&self) {
        if !self.recv.lock().unwrap().submit() {
            return;
        }
        let message = self.kernel.lock().unwrap().pop_front();
        let mut recv = self.recv.lock().unwrap();
        let (wakes, closed) = match message {
            Some(message) => recv.complete(Ok(message)),
            None => {
                // As where the kernel did not take it.
                recv.attempt_over(false);
                (recv.hand_over(), None)
            }
        };
        drop(recv);
        self.thrown_away.lock().unwrap().extend(closed);
        self.apply(wakes);
    }

    fn drop_receive(&self, mut id: Id) {
        let wakes = self.recv.lock().unwrap().leave(&mut id, false);
        self.apply(wakes);
    }

    fn close(&self) {
        let unclaimed = self.recv.lock().unwrap().close();
        self.thrown_away.lock().unwrap().extend(unclaimed);
    }

    /// Ends the runtime.
    fn die(&self) {
        self.over.store(true, Ordering::Release);
        let mut wakers = Vec::new();
        let _observers = self.recv.lock().unwrap().wake_all(&mut wakers);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// As `Receive::poll_once`. `None` without a runtime.
    async fn receive(&self, mut id: Id) -> Option<Outcome<u64>> {
        poll_fn(|cx| {
            if self.over.load(Ordering::Acquire) {
                self.drop_receive(id.take());
                return Poll::Ready(None);
            }
            let mut recv = self.recv.lock().unwrap();
            let found = match recv.take_completed() {
                None if recv.is_submitted() => None,
                None => self.kernel.lock().unwrap().pop_front().map(Ok),
                completed => completed,
            };
            if let Some(found) = found {
                let wakes = recv.served(&mut id);
                drop(recv);
                self.apply(wakes);
                return Poll::Ready(Some(found));
            }
            // Readiness is not tested here: the attempt wakes.
            drop(recv.wait(&mut id, cx.waker()));
            drop(recv);
            if self.over.load(Ordering::Acquire) {
                self.drop_receive(id.take());
                return Poll::Ready(None);
            }
            Poll::Pending
        })
        .await
    }

    fn left(&self) -> usize {
        let recv = self.recv.lock().unwrap();
        usize::from(recv.completed().is_some()) + self.kernel.lock().unwrap().len()
    }
}

#[test]
fn loom_a_message_for_a_receive_that_is_dropped_wakes_the_next() {
    check(|| {
        let (side, ids) = ReceiveSide::new(2, 1);
        let other = side.clone();
        let driver = thread::spawn(move || other.pass());
        let (other, first) = (side.clone(), ids[0]);
        let dropping = thread::spawn(move || other.drop_receive(first));
        assert_eq!(block_on(side.receive(ids[1])), Some(Ok(0)));
        driver.join().unwrap();
        dropping.join().unwrap();
        assert_eq!(side.left(), 0);
    });
}

#[test]
fn loom_two_receives_have_both_messages_in_order_while_a_batch_runs() {
    check(|| {
        let (side, ids) = ReceiveSide::new(1, 2);
        let other = side.clone();
        let driver = thread::spawn(move || other.pass());
        let first = block_on(side.receive(ids[0]));
        let second = block_on(side.receive(None));
        driver.join().unwrap();
        assert_eq!((first, second), (Some(Ok(0)), Some(Ok(1))));
    });
}

#[test]
fn loom_a_message_whose_receive_is_dropped_is_kept_until_the_socket_goes() {
    for closes in [false, true] {
        check(move || {
            let (side, ids) = ReceiveSide::new(1, 1);
            let other = side.clone();
            let driver = thread::spawn(move || other.pass());
            side.drop_receive(ids[0]);
            if closes {
                side.close();
            }
            driver.join().unwrap();
            let kept = side.left() + side.thrown_away.lock().unwrap().len();
            assert_eq!(kept, 1, "it is in one place");
            if closes {
                assert!(side.recv.lock().unwrap().completed().is_none());
            } else {
                assert_eq!(block_on(side.receive(None)), Some(Ok(0)));
            }
        });
    }
}

#[test]
fn loom_a_poll_is_woken_by_the_attempt_that_it_waits_for() {
    check(|| {
        let (side, ids) = ReceiveSide::new(1, 1);
        let other = side.clone();
        let driver = thread::spawn(move || other.pass());
        let (other, first) = (side.clone(), ids[0]);
        let dropping = thread::spawn(move || other.drop_receive(first));
        // As `poll_receive`, where the attempt is the only thing to wait for.
        let received = block_on(poll_fn(|cx| {
            let mut recv = side.recv.lock().unwrap();
            if let Some(completed) = recv.take_completed() {
                return Poll::Ready(completed);
            }
            if !recv.is_submitted() {
                let message = side.kernel.lock().unwrap().pop_front();
                return Poll::Ready(Ok(message.expect("the attempt has not taken it")));
            }
            drop(recv.observers.park(cx.waker()));
            Poll::Pending
        }));
        assert_eq!(received, Ok(0));
        driver.join().unwrap();
        dropping.join().unwrap();
    });
}

#[test]
fn loom_a_receive_that_waits_while_the_runtime_ends_is_woken() {
    check(|| {
        let (side, ids) = ReceiveSide::new(1, 0);
        let other = side.clone();
        let driver = thread::spawn(move || {
            other.pass();
            other.die();
        });
        assert_eq!(block_on(side.receive(ids[0])), None);
        driver.join().unwrap();
        assert!(!side.recv.lock().unwrap().has_waiters());
    });
}
