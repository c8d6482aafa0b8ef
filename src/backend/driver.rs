//! The driver of a worker: a task that works for all sockets of its runtime.
//!
//! Sockets are *listed* in the inbox of a worker when there is work for them that no future does: sends that wait, receives
//! that are left to the next batch, waiters that are woken behind others. The driver runs behind the ready tasks, so each of
//! them has queued its operation by then. It makes one pass:
//!
//! 1. It takes the inbox. From here until the end of the pass it keeps the sockets alive.
//! 2. Sends: one of each socket goes into the batch. Several of one socket are sent by system calls, in order: the kernel
//!    does not keep the order of several entries of one socket.
//! 3. Receives that are still needed: an attempt each.
//! 4. One `io_uring_enter(2)` runs the batch, sends first. On epoll, and where a ring is missing or refuses, the same
//!    operations are system calls, of the driver or of the futures.
//! 5. What found nothing is listed again or parks. Then sockets are released, and then tasks are woken. If all found nothing,
//!    the I/O driver runs before the next pass.
//!
//! No operation is left in the kernel between two passes. So there is nothing to cancel, and a driver that dies only has to
//! wake what waits.
//!
//! Locks: the inbox is released before any other is taken. The ring is locked for the batch, and under it a receive queue
//! for each answer. A queue's lock is released before anything is woken, dropped or listed.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};

use super::core::{Core, NextSend, Runtime, Worker};
use super::worker::{Listed, RingState, Work, lock};
use crate::common::idle_notify::WakeList;
use crate::common::metrics::Counter;
use crate::common::pending_send::PendingSend;
use crate::common::policy::{self, Decision, WorkerLoad};
use crate::uring::ring::{Completion, Operation};

/// How many sends of one socket the driver makes by system calls before it turns to other sockets.
const SENDS_AT_ONCE: u32 = 128;

/// A worker reports its operations to its runtime after so many.
const OPERATIONS_PER_REPORT: u32 = 128;

/// A send that is in a batch.
struct Sending {
    core: Arc<Core>,
    slot: usize,
    payload: Box<PendingSend>,
}

/// The task that makes the passes of one worker.
pub(super) struct DriverTask {
    runtime: Arc<Runtime>,
    worker: Arc<Worker>,
    mode: WorkerLoad,
    /// Whether it has let the tasks run that were ready when it was woken.
    is_behind: bool,
    /// How many direct calls there were when it began to let them run.
    calls_before: u32,
    /// Operations that the driver made, without attempts that found nothing.
    passed: u32,
    /// Operations of both kinds that its runtime knows of.
    reported: u32,
    /// Its runtime counts it as one at work for batches.
    counts: bool,
    /// The last pass sent nothing and found no message.
    found_nothing: bool,
    // Kept for their allocations, and empty between two passes.
    listed: Vec<(Arc<Core>, Work)>,
    sends: Vec<Sending>,
    sent: Vec<SendOutcome>,
    receives: Vec<Arc<Core>>,
    again: Vec<(Arc<Core>, Work)>,
    wakers: WakeList,
}

enum SendOutcome {
    Done(io::Result<usize>),
    NotTaken,
    Unknown,
}

impl DriverTask {
    pub(super) fn new(runtime: Arc<Runtime>, worker: Arc<Worker>) -> Self {
        Self {
            runtime,
            worker,
            mode: WorkerLoad::new(),
            is_behind: false,
            calls_before: 0,
            passed: 0,
            reported: 0,
            counts: false,
            found_nothing: false,
            listed: Vec::new(),
            sends: Vec::new(),
            sent: Vec::new(),
            receives: Vec::new(),
            again: Vec::new(),
            wakers: WakeList::default(),
        }
    }

    /// Makes one pass. Returns whether there was anything to do.
    fn pass(&mut self) -> bool {
        std::mem::swap(&mut lock(&self.worker.inbox).listed, &mut self.listed);
        let had_work = !self.listed.is_empty();
        self.found_nothing = self.listed.iter().all(|(_, work)| *work == Work::Receive);
        for (core, work) in self.listed.drain(..) {
            match work {
                Work::Send => {
                    match core.next_send(core.is_uring() && self.worker.may_have_ring()) {
                        NextSend::Batch(slot, payload) => {
                            self.sends.push(Sending { core, slot, payload })
                        }
                        NextSend::Call => {
                            let (sent, again) = core.send_waiting(SENDS_AT_ONCE, &mut self.wakers);
                            self.passed = self.passed.wrapping_add(sent);
                            if again {
                                self.again.push((core, Work::Send));
                            }
                        }
                        NextSend::Nothing => {}
                    }
                }
                Work::Receive => {
                    if core.submit_attempt() {
                        self.receives.push(core);
                    }
                }
                Work::Relay => {
                    if core.relay(&mut self.wakers) {
                        self.again.push((core, Work::Relay));
                    }
                }
            }
        }
        if !self.sends.is_empty() || !self.receives.is_empty() {
            self.run_batch();
        }
        had_work
    }

    fn run_batch(&mut self) {
        let worker = &self.worker;
        // Also where it was not made before: another worker of the runtime had one, and this one batches by now.
        let made = worker.ensure_ring();
        let mut state = lock(&worker.ring);
        let (sends, receives) = (&self.sends, &self.receives);
        let (sent, wakers, again) = (&mut self.sent, &mut self.wakers, &mut self.again);
        sent.extend(sends.iter().map(|_| SendOutcome::NotTaken));
        let mut reported = sends.len();
        let mut empty = 0;
        let refused = match &mut *state {
            RingState::Working(ring, costs) if made.is_ok() => {
                let operations = sends
                    .iter()
                    .map(|send| Operation::Send(send.core.fd(), &send.payload))
                    .chain(receives.iter().map(|core| core.attempt()));
                let count = sends.len();
                let result = ring.run(operations, &worker.counters, |index, done| {
                    if let Some(receive) = index.checked_sub(count) {
                        reported = index + 1;
                        let core = &receives[receive];
                        let attempted = core.attempt_done(done, worker, wakers);
                        empty += u64::from(attempted.empty);
                        again.extend(attempted.again.map(|work| (core.clone(), work)));
                        return;
                    }
                    sent[index] = match done {
                        Completion::Sent(result) => SendOutcome::Done(result),
                        Completion::Unknown => SendOutcome::Unknown,
                        _ => SendOutcome::NotTaken,
                    };
                });
                worker.counters.add(Counter::EmptyAttempts, empty);
                let useful = (count + receives.len()) as u32 - empty as u32;
                self.found_nothing &= useful == 0;
                self.mode.note_batch(useful, costs);
                self.passed = self.passed.wrapping_add(useful);
                result.err().map(|why| format!("io_uring stopped working in this process: {why}"))
            }
            _ => Some(made.map_or_else(|error| error.to_string(), |()| "there is no ring".into())),
        };
        if let Some(why) = refused {
            crate::common::trace::lost_ring(&why);
            worker.ring_gone.store(true, Ordering::Relaxed);
            if let RingState::Working(..) = *state {
                *state = RingState::Gone(why);
            }
            // Otherwise it could not be made: the next socket made here tries again.
        }
        drop(state);
        // Those that the kernel never got.
        for core in &receives[(reported - sends.len()).min(receives.len())..] {
            let attempted = core.attempt_done(Completion::NotTaken, worker, wakers);
            again.extend(attempted.again.map(|work| (core.clone(), work)));
        }
        for (Sending { core, slot, payload }, sent) in self.sends.drain(..).zip(self.sent.drain(..))
        {
            let list = match sent {
                SendOutcome::Done(result) => {
                    core.sent_in_batch(slot, payload, result, worker, &mut self.wakers)
                }
                SendOutcome::NotTaken => core.send_not_taken(slot, payload, &mut self.wakers),
                SendOutcome::Unknown => {
                    std::mem::forget(payload);
                    core.send_lost(slot, &mut self.wakers)
                }
            };
            if list {
                self.again.push((core, Work::Send));
            }
        }
        self.receives.clear();
    }

    /// Lists again what was not finished, releases sockets, and wakes tasks, in this order.
    fn finish(&mut self, waker: &Waker) {
        let mut replaced = None;
        let dead = {
            let mut inbox = lock(&self.worker.inbox);
            if !inbox.dead {
                // Sockets that were closed meanwhile are released below.
                let open = self.again.extract_if(.., |(core, _)| !core.is_closed());
                self.listed.extend(open);
                inbox.awake |= !self.listed.is_empty();
                self.found_nothing &= inbox.listed.is_empty();
                if self.found_nothing {
                    // It lets the I/O driver run, but what is listed before that has a pass at once.
                    inbox.awake = false;
                    replaced = inbox.waker.replace(waker.clone());
                }
                // In front of what was listed meanwhile.
                self.listed.append(&mut inbox.listed);
                std::mem::swap(&mut inbox.listed, &mut self.listed);
            }
            inbox.dead
        };
        drop(replaced);
        for (core, _) in self.again.drain(..) {
            if dead {
                core.wake_all(&mut self.wakers);
            }
        }
        self.wakers.wake_all();
    }

    /// Publishes whether operations are queued here. While there are some, other workers queue theirs, too.
    fn choose_mode(&mut self, had_work: bool) {
        let average = self.mode.average();
        self.worker.average.store(average.to_bits(), Ordering::Relaxed);
        let loaded = self.mode.is_batched() && self.worker.may_have_ring();
        if self.worker.loaded.swap(loaded, Ordering::Relaxed) && !loaded {
            self.runtime.load_is_gone();
        }
        self.report_operations(loaded);
        let batched = loaded && self.runtime.prefers_batches();
        if batched != self.worker.is_batched() {
            let counter = if batched { Counter::Batched } else { Counter::Direct };
            self.worker.counters.add(counter, 1);
            crate::common::trace::changed_mode(batched, average);
            self.worker.batched.store(batched, Ordering::Relaxed);
        }
        let counts = loaded && had_work;
        if std::mem::replace(&mut self.counts, counts) != counts {
            self.runtime.count_batching(counts);
        }
    }

    /// Reports how much was done, so that the runtime can find out which way is faster.
    fn report_operations(&mut self, loaded: bool) {
        let made = self.passed.wrapping_add(self.worker.calls.load(Ordering::Relaxed));
        let more = made.wrapping_sub(self.reported);
        if !loaded || more >= OPERATIONS_PER_REPORT {
            self.reported = made;
        }
        if loaded && more >= OPERATIONS_PER_REPORT {
            self.runtime.note_operations(more);
        }
    }
}

impl Future for DriverTask {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        let calls = this.worker.calls.load(Ordering::Relaxed);
        if !std::mem::replace(&mut this.is_behind, true) {
            // Behind the tasks that are ready now.
            this.calls_before = calls;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if !(this.worker.is_loaded() && this.runtime.prefers_batches())
            && calls != this.calls_before
            && let Some(costs) = crate::uring::costs::known_costs()
        {
            this.mode.note_turn(calls.wrapping_sub(this.calls_before), costs);
        }
        let had_work = this.pass();
        this.choose_mode(had_work);
        this.finish(cx.waker());
        this.calls_before = this.worker.calls.load(Ordering::Relaxed);
        if had_work && this.found_nothing {
            // The task that sends next may itself be parked, and is not woken before the I/O driver has run.
            policy::yield_now(cx, Decision::YieldToEvents);
            return Poll::Pending;
        }
        if had_work {
            // Still behind: the tasks woken just now come first.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        this.is_behind = false;
        let mut inbox = lock(&this.worker.inbox);
        if inbox.listed.is_empty() {
            inbox.awake = false;
            let replaced = inbox.waker.replace(cx.waker().clone());
            drop(inbox);
            drop(replaced);
        } else {
            drop(inbox);
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }
}

impl Drop for DriverTask {
    fn drop(&mut self) {
        self.runtime.end();
        let listed = {
            let mut inbox = lock(&self.worker.inbox);
            (inbox.dead, inbox.waker) = (true, None);
            std::mem::take(&mut inbox.listed)
        };
        *lock(&self.worker.ring) = RingState::Gone("the runtime is gone".into());
        for (core, _) in listed {
            core.wake_all(&mut self.wakers);
        }
        self.wakers.wake_all();
    }
}
