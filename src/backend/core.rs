//! A socket or listener as its calls, its runtime's drivers and its waker know it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Wake, Waker};

use super::runtime;
use super::worker::{self, Listed, Work};
use crate::ancillary::wire::{MAX_CONTROL, MAX_FDS};
use crate::common::completed::Completed;
use crate::common::idle_notify::{IdleNotify, WakeList};
use crate::common::marks::Marks;
use crate::common::metrics::{Carried, Counter, Traffic};
use crate::common::pending_send::PendingSend;
use crate::common::policy::{RecvPolicy, RecvState};
use crate::common::recv_queue::{RecvQueue, Wakes};
use crate::common::send_queue::{Effects, SendQueue, SharedSendQueue};
use crate::common::source::Source;
use crate::epoll::readiness::{Direction, Readiness};
use crate::sys;
use crate::types::backend::Submission;
use crate::uring::ring::{Completion, Operation};
use crate::util::catch_panic;

/// The runtime of a socket.
pub(crate) type Runtime = runtime::Runtime<Core>;

/// A worker of a runtime.
pub(crate) type Worker = worker::Worker<Core>;

/// A socket's shared state. Its descriptor is closed when the last owner releases it: the socket, or a driver in a pass for it.
#[derive(Debug)]
pub(crate) struct Core {
    /// Shared with the registration in `readiness`.
    pub(super) fd: Arc<OwnedFd>,
    pub(super) runtime: Arc<Runtime>,
    /// How a socket on io_uring submits. `None` on epoll.
    submission: Option<Submission>,
    /// A receive had capacity for ancillary data, or messages carry some. From then on attempts take ancillary data along.
    wants_control: AtomicBool,
    /// How many descriptors a message may bring: [`MAX_FDS`] unless limited.
    max_fds: AtomicU8,
    /// The socket is dropped or its descriptor handed out. No inbox takes it any more.
    closed: AtomicBool,
    pub(super) recv: Mutex<RecvDirection>,
    pub(super) send: SharedSendQueue,
    pub(super) readiness: Readiness,
    pub(super) notify: IdleNotify,
    pub(super) sent: Traffic,
    pub(super) received: Traffic,
}

/// The receive direction.
#[derive(Debug)]
pub(super) struct RecvDirection {
    pub(super) queue: RecvQueue<Box<Completed>>,
    pub(super) policy: RecvPolicy,
    /// The state of a receive by `poll_*` calls. Only the last task that polled is woken, so there is one at a time.
    pub(super) polled: RecvState,
    /// How many more batches the attempt goes through before the socket parks.
    pub(super) attempts_left: u8,
    pub(super) marks: Marks,
    /// The last completed message, empty, for its allocations. A socket that never had one has no memory for it.
    pub(super) spare: Option<Box<Completed>>,
}

/// What a pass does with a listed send direction.
pub(super) enum NextSend {
    /// One send waits: it goes into the batch.
    Batch(usize, Box<PendingSend>),
    /// Several sends wait, or there is no ring: see [`Core::send_waiting`].
    Call,
    Nothing,
}

/// The result of an attempt.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Attempted {
    /// The kernel had nothing.
    pub(super) empty: bool,
    /// What to list the socket for.
    pub(super) again: Option<Work>,
}

impl Listed for Core {
    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }
}

impl Core {
    pub(super) fn new(
        fd: OwnedFd,
        runtime: Arc<Runtime>,
        submission: Option<Submission>,
    ) -> io::Result<Arc<Self>> {
        runtime.check_io_driver(fd.as_fd())?;
        Ok(Arc::new(Self {
            fd: Arc::new(fd),
            runtime,
            submission,
            wants_control: AtomicBool::new(false),
            max_fds: AtomicU8::new(MAX_FDS as u8),
            closed: AtomicBool::new(false),
            recv: Mutex::new(RecvDirection {
                queue: RecvQueue::new(),
                policy: RecvPolicy::default(),
                polled: RecvState::new(),
                attempts_left: 0,
                marks: Marks::default(),
                spare: None,
            }),
            send: SharedSendQueue::new(),
            readiness: Readiness::default(),
            notify: IdleNotify::default(),
            sent: Traffic::default(),
            received: Traffic::default(),
        }))
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    pub(super) fn is_uring(&self) -> bool {
        self.submission.is_some()
    }

    /// Makes attempts take ancillary data along from now on.
    pub(super) fn want_control(&self) {
        if !self.wants_control.load(Ordering::Relaxed) {
            self.wants_control.store(true, Ordering::Relaxed);
        }
    }

    pub(super) fn wants_control(&self) -> bool {
        self.wants_control.load(Ordering::Relaxed)
    }

    /// Limits how many descriptors a message brings from now on.
    pub(super) fn set_max_fds(&self, most: usize) {
        // MAX_FDS is 253.
        self.max_fds.store(most.min(MAX_FDS) as u8, Ordering::Relaxed);
    }

    pub(super) fn max_fds(&self) -> usize {
        self.max_fds.load(Ordering::Relaxed).into()
    }

    /// Returns where a receive that asks the kernel gets its message from.
    pub(super) fn source<'a>(&'a self, marks: &'a mut Marks) -> Source<'a> {
        Source::new(self.fd(), self.wants_control(), self.max_fds(), marks)
    }

    pub(super) fn lock_recv(&self) -> MutexGuard<'_, RecvDirection> {
        // The queue's methods do not panic half-way, and no user code runs under this lock.
        self.recv.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns whether the socket's operations are left to batches here, where the worker can have a ring.
    fn is_batched(&self) -> bool {
        match self.submission {
            None | Some(Submission::Direct) => false,
            Some(Submission::Ring) => true,
            Some(Submission::Adaptive) => self.runtime.is_batched(),
        }
    }

    /// Returns the worker to whose next batch an operation is left. `None` where it calls directly.
    pub(super) fn batching_worker(self: &Arc<Self>) -> Option<&Arc<Worker>> {
        if !self.is_batched() {
            return None;
        }
        let worker = self.runtime.worker(self.runtime.own_index()?);
        worker.may_have_ring().then_some(worker)
    }

    /// Notes that an operation was a direct call.
    pub(super) fn called(&self) {
        self.did_without();
        if self.is_uring() {
            let adapts = self.submission == Some(Submission::Adaptive);
            self.runtime.some_worker().called(adapts, |worker| self.runtime.parks(worker));
        }
    }

    /// Notes that an operation did not wait for readiness.
    pub(super) fn did_without(&self) {
        if self.readiness.did_without() {
            let mut recv = self.lock_recv();
            let sends_wait = !self.send.is_idle()
                || self.send.lock_if_used().is_some_and(|send| send.queue.observers.any());
            if recv.queue.unpark() || sends_wait {
                self.readiness.is_used();
            } else {
                self.readiness.drop_unused();
            }
        }
    }

    pub(super) fn list(self: &Arc<Self>, worker: &Worker, work: Work) {
        if worker.list(self, work).is_err() {
            let mut wakes = WakeList::default();
            self.wake_all(&mut wakes);
            wakes.wake_all();
        }
    }

    /// Applies what a receive queue decided. The caller holds no lock.
    pub(super) fn apply(self: &Arc<Self>, wakes: Wakes) {
        if wakes.is_nothing() {
            return;
        }
        if wakes.relay {
            self.list(self.runtime.some_worker(), Work::Relay);
        }
        if let Some(waker) = wakes.one {
            catch_panic::wake(waker);
        }
        let mut list = WakeList::default();
        wakes.observers.collect(&self.notify, &mut list);
        list.wake_all();
        catch_panic::release(wakes.unused);
    }

    /// Applies what a send queue decided. The caller holds no lock.
    pub(super) fn apply_send(&self, effects: Effects<Box<PendingSend>>) {
        let mut list = WakeList::default();
        self.collect_send(effects, &mut list);
        list.wake_all();
    }

    fn collect_send(&self, effects: Effects<Box<PendingSend>>, wakes: &mut WakeList) {
        wakes.push(effects.one);
        effects.observers.collect(&self.notify, wakes);
        catch_panic::release(effects.release);
        catch_panic::release(effects.unused);
    }

    /// Lists the socket for an attempt that was queued.
    pub(super) fn list_receive(self: &Arc<Self>, worker: &Worker) {
        self.list(worker, Work::Receive);
    }

    /// Lists the socket if sends wait and it is in no worker's inbox.
    pub(super) fn list_send(self: &Arc<Self>, worker: &Worker) {
        let list = self.send.lock_if_used().is_some_and(|mut send| send.queue.list());
        if list {
            self.list(worker, Work::Send);
        }
    }

    /// Waits for readiness: see [`Readiness::park`].
    pub(super) fn park<T>(
        self: &Arc<Self>,
        direction: Direction,
        call: impl FnMut() -> io::Result<T>,
    ) -> io::Result<Option<T>> {
        self.runtime.check()?;
        let waker = Waker::from(self.clone());
        let handle = self.runtime.handle();
        let found = self.readiness.park(direction, &self.fd, handle, &waker, call)?;
        if found.is_none() {
            self.runtime.some_worker().counters.add(Counter::Parked, 1);
            let traffic = match direction {
                Direction::Read => &self.received,
                Direction::Write => &self.sent,
            };
            traffic.parked.add(1);
        }
        Ok(found)
    }

    /// Waits until the socket is readable. Returns false if it is now.
    pub(super) fn park_until_readable(self: &Arc<Self>) -> io::Result<bool> {
        let found = self.park(Direction::Read, || sys::is_readable(self.fd()).and_then(ready))?;
        Ok(found.is_none())
    }

    /// Waits until the socket is writable. Returns false if it is now.
    pub(super) fn park_until_writable(self: &Arc<Self>) -> io::Result<bool> {
        let found = self.park(Direction::Write, || sys::is_writable(self.fd()).and_then(ready))?;
        Ok(found.is_none())
    }

    // ----- for the driver -----

    pub(super) fn next_send(&self, may_batch: bool) -> NextSend {
        let Some(mut send) = self.send.lock_if_used() else { return NextSend::Nothing };
        send.queue.unlist();
        match send.queue.waiting() {
            0 => NextSend::Nothing,
            1 if may_batch => match send.queue.next() {
                Some((slot, payload)) => NextSend::Batch(slot, payload),
                None => NextSend::Nothing,
            },
            _ => NextSend::Call,
        }
    }

    /// Sends what waits, in order, until the peer's queue is full or `most` were sent. Returns how many were sent, and whether to
    /// list the socket again.
    pub(super) fn send_waiting(self: &Arc<Self>, most: u32, wakes: &mut WakeList) -> (u32, bool) {
        let mut next = self.send.lock().queue.next();
        let mut sent = 0;
        while let Some((slot, payload)) = next {
            let result = payload.send_now(self.fd());
            if sys::is_would_block(&result) {
                return (sent, self.full(slot, payload, wakes));
            }
            sent += 1;
            next = self.complete_send(slot, payload, result, wakes, |queue| {
                if sent < most { queue.next() } else { None }
            });
        }
        (sent, self.relist_send())
    }

    /// Parks a send, since the peer's queue is full. Returns whether to list the socket again.
    fn full(
        self: &Arc<Self>,
        slot: usize,
        payload: Box<PendingSend>,
        wakes: &mut WakeList,
    ) -> bool {
        self.send_put_back(slot, payload, wakes) && self.park_send(wakes) && self.relist_send()
    }

    /// Completes a send with the answer of a batch. Returns whether to list the socket again.
    pub(super) fn sent_in_batch(
        self: &Arc<Self>,
        slot: usize,
        payload: Box<PendingSend>,
        mut result: io::Result<usize>,
        worker: &Worker,
        wakes: &mut WakeList,
    ) -> bool {
        if result.as_ref().is_err_and(is_refusal) {
            // The ring may refuse the operation where the kernel would not refuse the message.
            worker.counters.add(Counter::Refused, 1);
            result = payload.send_now(self.fd());
        }
        if result.as_ref().is_err_and(is_no_answer) {
            return self.full(slot, payload, wakes);
        }
        let list = self.complete_send(slot, payload, result, wakes, SendQueue::list);
        // Now that it does not wait itself.
        self.did_without();
        list
    }

    /// Completes a send with its result. `then` handles those behind it.
    fn complete_send<T>(
        &self,
        slot: usize,
        payload: Box<PendingSend>,
        result: io::Result<usize>,
        wakes: &mut WakeList,
        then: impl FnOnce(&mut SendQueue<Box<PendingSend>>) -> T,
    ) -> T {
        if let Ok(len) = &result {
            // Before the lock, so that no other send counts at the same time.
            self.sent.add(Carried::message(*len, payload.count_fds()));
        }
        let (spare, payload) = payload.sent();
        let mut send = self.send.lock();
        if let Some(spare) = spare {
            send.spares.keep(spare);
        }
        let effects = send.queue.complete(slot, payload, result);
        let then = then(&mut send.queue);
        drop(send);
        self.collect_send(effects, wakes);
        then
    }

    /// Puts back a send that a batch did not take. Returns whether to list the socket again.
    pub(super) fn send_not_taken(
        &self,
        slot: usize,
        payload: Box<PendingSend>,
        wakes: &mut WakeList,
    ) -> bool {
        self.send_put_back(slot, payload, wakes) && self.relist_send()
    }

    /// Puts back a send that was not made. Returns whether one waits now.
    fn send_put_back(&self, slot: usize, payload: Box<PendingSend>, wakes: &mut WakeList) -> bool {
        let mut send = self.send.lock();
        let effects = send.queue.put_back(slot, payload);
        let waits = send.queue.waiting() > 0;
        drop(send);
        self.collect_send(effects, wakes);
        waits
    }

    /// Completes a send that the kernel has taken without a result.
    pub(super) fn send_lost(&self, slot: usize, wakes: &mut WakeList) -> bool {
        let error =
            io::Error::other("io_uring stopped working: whether the message was sent is unknown");
        let effects = self.send.lock().queue.complete(slot, None, Err(error));
        self.collect_send(effects, wakes);
        self.relist_send()
    }

    /// Returns whether sends wait that came while the driver had the first. They are listed in this worker's inbox then.
    fn relist_send(&self) -> bool {
        self.send.lock().queue.list()
    }

    /// Waits for readiness, since the peer's queue is full. Returns true if it has capacity by now.
    pub(super) fn park_send(self: &Arc<Self>, wakes: &mut WakeList) -> bool {
        match self.park_until_writable() {
            Ok(parked) => !parked,
            Err(error) => {
                // No readiness will come, so those that wait get the error.
                let mut next = self.send.lock().queue.next();
                while let Some((slot, payload)) = next {
                    let error = match error.raw_os_error() {
                        Some(errno) => io::Error::from_raw_os_error(errno),
                        None => runtime::gone(),
                    };
                    next = self.complete_send(slot, payload, Err(error), wakes, SendQueue::next);
                }
                false
            }
        }
    }

    /// Returns whether the attempt that was listed is still needed. It goes into the batch then.
    pub(super) fn submit_attempt(&self) -> bool {
        let mut recv = self.lock_recv();
        let submitted = recv.queue.submit();
        if submitted {
            recv.marks.submitted(self.fd());
        }
        submitted
    }

    pub(super) fn attempt(&self) -> Operation<'_> {
        if self.wants_control() {
            let control_len = match self.max_fds() {
                MAX_FDS => MAX_CONTROL,
                most => self.lock_recv().marks.control_len(self.fd(), most),
            };
            Operation::RecvMsg(self.fd(), control_len)
        } else {
            Operation::Recv(self.fd())
        }
    }

    /// Completes the attempt with the answer of a batch.
    pub(super) fn attempt_done(
        self: &Arc<Self>,
        mut done: Completion<'_>,
        worker: &Worker,
        wakes: &mut WakeList,
    ) -> Attempted {
        if let Completion::Received { control: Some(control), .. } = &mut done
            && self.max_fds() < MAX_FDS
        {
            control.limit_fds(self.max_fds());
        }
        let mut recv = self.lock_recv();
        let (woken, closed) = match done {
            Completion::Received { bytes, message_len, control } => {
                let (received, control) = recv.marks.attempted(self.fd(), message_len, control);
                recv.policy.note_message(message_len, control.count_fds() > 0);
                let message = Completed::of(recv.spare.take(), bytes, received, control);
                recv.queue.complete(Ok(message))
            }
            Completion::NotReceived(errno) => {
                let error = io::Error::from_raw_os_error(errno);
                if is_no_answer(&error) {
                    return self.attempt_was_empty(recv, wakes);
                }
                if is_refusal(&error) {
                    // The ring may refuse the operation. A receive asks the kernel by itself, and gets its answer.
                    worker.counters.add(Counter::Refused, 1);
                    recv.queue.attempt_over(false);
                    (recv.queue.hand_over(), None)
                } else {
                    recv.queue.complete(Err(errno))
                }
            }
            _ => {
                recv.queue.attempt_over(false);
                (recv.queue.hand_over(), None)
            }
        };
        drop(recv);
        drop(closed);
        let relay = self.collect(woken, wakes);
        Attempted { empty: false, again: relay.then_some(Work::Relay) }
    }

    fn attempt_was_empty(
        self: &Arc<Self>,
        mut recv: MutexGuard<'_, RecvDirection>,
        wakes: &mut WakeList,
    ) -> Attempted {
        let nothing = Attempted { empty: true, again: None };
        recv.queue.attempt_over(true);
        if !recv.queue.has_waiters() || recv.queue.is_closed() {
            // They may have relied on the attempt.
            let observers = recv.queue.observers.wake();
            drop(recv);
            observers.collect(&self.notify, wakes);
            return nothing;
        }
        recv.attempts_left = recv.attempts_left.saturating_sub(1);
        if recv.attempts_left == 0 {
            match self.park_until_readable() {
                Ok(true) => {
                    recv.queue.park();
                    return nothing;
                }
                // Something has come meanwhile.
                Ok(false) => recv.attempts_left = 1,
                Err(_) => {
                    // A receive that is polled now gets the same error, and returns it.
                    let woken = recv.queue.hand_over();
                    drop(recv);
                    let relay = self.collect(woken, wakes);
                    return Attempted { again: relay.then_some(Work::Relay), ..nothing };
                }
            }
        }
        let list = recv.queue.queue_attempt();
        Attempted { again: list.then_some(Work::Receive), ..nothing }
    }

    /// Wakes the next waiter if what the last was woken for is still there. Returns whether to list the socket again.
    pub(super) fn relay(&self, wakes: &mut WakeList) -> bool {
        let woken = self.lock_recv().queue.relay();
        self.collect(woken, wakes)
    }

    /// Collects what to wake. Returns whether a relay is needed.
    #[must_use]
    fn collect(&self, woken: Wakes, wakes: &mut WakeList) -> bool {
        wakes.push(woken.one);
        woken.observers.collect(&self.notify, wakes);
        woken.relay
    }

    /// Wakes everything that waits, because the runtime is gone.
    pub(super) fn wake_all(&self, wakes: &mut WakeList) {
        let observers = self.lock_recv().queue.wake_all(&mut wakes.wakers);
        observers.collect(&self.notify, wakes);
        if let Some(mut send) = self.send.lock_if_used() {
            let observers = send.queue.wake_all(&mut wakes.wakers);
            drop(send);
            observers.collect(&self.notify, wakes);
        }
    }

    /// Closes the queues and the registration, when the socket is dropped or its descriptor handed out. Afterwards nothing keeps
    /// it open. Returns a message that no receive has claimed, and what forgotten sends own.
    pub(super) fn close(self: &Arc<Self>) -> impl Sized + use<> {
        // Read under an inbox's lock: sockets listed before this are unlisted below, and none is listed after it.
        self.closed.store(true, Ordering::Relaxed);
        let unclaimed = self.lock_recv().queue.close();
        let payloads = self.send.lock_if_used().map(|mut send| send.queue.close());
        // It may be in the inbox of any worker, unless it has no other owner.
        if Arc::strong_count(self) > 1 {
            for worker in self.runtime.known_workers() {
                worker.unlist(self);
            }
        }
        self.readiness.close();
        (unclaimed, payloads)
    }
}

/// The socket's own waker, which is called when readiness has come.
impl Wake for Core {
    fn wake(self: Arc<Self>) {
        self.readiness.fired();
        let mut wakes = WakeList::default();
        if self.runtime.check().is_err() {
            self.wake_all(&mut wakes);
        } else {
            self.signal(&mut wakes);
        }
        // A task that is woken may need the descriptor, of which this may be the last other owner.
        drop(self);
        wakes.wake_all();
    }
}

impl Core {
    fn signal(self: &Arc<Self>, wakes: &mut WakeList) {
        let worker = self.runtime.some_worker();
        let batched = self.is_batched() && worker.may_have_ring();
        let mut recv = self.lock_recv();
        // The runtime runs its I/O driver just now, so it will run this driver too.
        let attempts = batched && recv.queue.has_waiters() && recv.policy.may_batch();
        let woken = if attempts { recv.queue.signal_observers() } else { recv.queue.signal() };
        let list = attempts && recv.queue.queue_attempt();
        if list {
            recv.attempts_left = 1;
        }
        drop(recv);
        if list {
            self.list(worker, Work::Receive);
        }
        if self.collect(woken, wakes) {
            self.list(worker, Work::Relay);
        }
        if let Some(mut send) = self.send.lock_if_used() {
            let list = send.queue.list();
            let observers = send.queue.observers.wake();
            drop(send);
            if list {
                self.list(worker, Work::Send);
            }
            observers.collect(&self.notify, wakes);
        }
    }
}

fn ready(is_ready: bool) -> io::Result<()> {
    if is_ready { Ok(()) } else { Err(io::ErrorKind::WouldBlock.into()) }
}

/// Returns whether an error may be the ring's own, and not the kernel's answer to the message: io_uring's filters, an
/// operation it does not know, and -ENOMEM for -EAGAIN (Linux 6.1 to 6.9).
fn is_refusal(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::EACCES
                | libc::EPERM
                | libc::EINVAL
                | libc::EOPNOTSUPP
                | libc::ENOSYS
                | libc::ENOMEM
        )
    )
}

/// Returns whether nothing was sent or received, which says nothing about the next try.
fn is_no_answer(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::ECANCELED | libc::EINTR))
}
