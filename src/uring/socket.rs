//! A connected socket: two lanes under their locks, the calls that use them, and the hooks through
//! which a shard submits and settles their operations.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use filedesc::FileDesc;
use tokio::io::unix::AsyncFd;
use tokio::io::{Interest, Ready};
use tokio::sync::Notify;

use super::driver::Driver;
use super::graveyard::{self, Remains};
use super::lane::{ReceiveLane, Received as LaneReceived, Ticket};
use super::payload::{InFlight, Message, ReceivePayload, Rooms, submit_send};
use super::ring::{Completion, Submission};
use super::shard::{Lane, Listed, Shard};
use crate::ancillary::{AncillaryBuffer, AncillaryMessageReader};
use crate::async_fd;
use crate::buffer::{Parts, PartsMut};
use crate::lane::{After, Outcome, SendLane, Step};
use crate::look::{self, Aside, Looks};
use crate::outgoing::Outgoing;
use crate::sys::{self, Received};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    Receive,
    Send,
}

/// The socket as its operations in flight know it; closed when the last of them has settled.
pub(super) struct Core {
    fd: OwnedFd,
    driver: Arc<Driver>,
    receive: Mutex<Receive>,
    send: Mutex<Send>,
    /// Told when a lane settles that somebody watches.
    settled: Notify,
    /// A duplicate, registered for readiness when somebody first asks for that.
    readiness: OnceLock<AsyncFd<FileDesc>>,
}

struct Send {
    lane: SendLane<Box<Outgoing>, InFlight<Outgoing>>,
    /// Emptied payloads of sends that had to wait.
    #[expect(clippy::vec_box, reason = "payloads stay in their boxes")]
    spares: Vec<Box<Outgoing>>,
}

/// How many payloads of sends are kept.
const SPARES: usize = 64;

struct Receive {
    lane: ReceiveLane<InFlight<ReceivePayload>, Message, Rooms>,
    looks: Looks,
    /// In which cycle of its shard the lane was armed.
    armed_in: u64,
    /// How many completions in a row came to the driver alone: there was nothing to batch.
    alone: u8,
    /// A duplicate, registered for arriving messages, while receives wait for readiness; and how
    /// many receives in a row did without.
    waits: Option<Arc<AsyncFd<FileDesc>>>,
    unused: u8,
    /// An emptied box of an earlier receive into owned buffers.
    spare: Option<Rooms>,
}

/// A registration for readiness costs every message that arrives an event, needed or not: it is
/// given up after so many receives that did not need it.
const UNUSED: u8 = 16;

/// After so many completions that came alone, a receive on a multi-thread runtime waits for
/// readiness instead. The kernel finishes a parked operation on the worker that submitted it, and
/// then tells the one that has the I/O driver: two wake-ups where epoll needs one, worth it for a
/// batch only.
const QUIET: u8 = 8;

impl Receive {
    /// Whether a receive that has to wait does so for readiness instead of a completion.
    fn prefers_readiness(&self, driver: &Driver) -> bool {
        driver.is_far() || (self.alone >= QUIET && driver.is_multi_thread())
    }

    /// A receive needed no registration; the registration, if it has not been needed for long.
    fn did_without(&mut self) -> Option<Arc<AsyncFd<FileDesc>>> {
        self.waits.as_ref()?;
        self.unused += 1;
        if self.unused < UNUSED {
            return None;
        }
        (self.unused, self.alone) = (0, 0);
        self.waits.take()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // The lanes' methods do not panic half-way, and nothing foreign runs under their locks.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Core {
    fn listed(self: &Arc<Self>, direction: Direction) -> Listed {
        Listed { core: Arc::downgrade(self), direction }
    }

    fn attend_later(self: &Arc<Self>, direction: Direction) {
        if self.driver.attend(self.listed(direction)).is_err() {
            let mut wakes = Vec::new();
            self.give_up(direction, &mut wakes);
            wakes.into_iter().for_each(Waker::wake);
        }
    }

    /// Do what the lane decided. Not under its lock.
    fn carry_out<T>(self: &Arc<Self>, direction: Direction, after: After<T>) {
        if after.attend {
            self.attend_later(direction);
        }
        drop(after.release);
        after.wake.wake(&self.settled);
    }

    /// As [`carry_out`](Self::carry_out), within a shard's cycle: wake-ups are collected.
    fn carry_out_in<T>(
        self: &Arc<Self>,
        direction: Direction,
        after: After<T>,
        shard: &Shard,
        wakes: &mut Vec<Waker>,
    ) {
        if after.attend && shard.push(self.listed(direction)).is_err() {
            // What was in flight has just completed.
            self.give_up(direction, wakes);
        }
        wakes.extend(after.wake.one);
        after.wake.settled.tell(&self.settled);
        drop(after.release);
    }

    /// A receive leaves. Returns the room it had given, unless the kernel still has it.
    fn forget(&self, ticket: Ticket) -> (Option<Rooms>, After<Message>) {
        let mut receive = lock(&self.receive);
        let (room, after) = receive.lane.forget(ticket);
        let orphaned = receive.lane.orphan().and_then(Message::detach);
        (room.or(orphaned), after)
    }

    /// Hook for the driver: submit what the lane wants submitted.
    pub(super) fn attend(
        self: Arc<Self>,
        direction: Direction,
        shard: &Shard,
        submissions: &mut Vec<Submission>,
        wakes: &mut Vec<Waker>,
    ) {
        let step = match direction {
            Direction::Receive => {
                let mut receive = lock(&self.receive);
                match receive.lane.attend() {
                    Step::Submit => {
                        let room = receive.lane.room_to_arm();
                        match ReceivePayload::new(room) {
                            Ok(payload) => {
                                let key = shard.reserve(Lane { core: self.clone(), direction });
                                let (payload, submission) = payload.submit(self.fd.as_fd(), key);
                                receive.lane.armed(key, payload);
                                receive.armed_in = shard.cycle();
                                submissions.push(submission);
                                return;
                            }
                            Err((error, room)) => {
                                let errno = error.raw_os_error().unwrap_or(libc::ENOMEM);
                                let after = receive.lane.not_armed(errno, room);
                                drop(receive);
                                self.carry_out_in(direction, after, shard, wakes);
                                return;
                            }
                        }
                    }
                    step => step,
                }
            }
            Direction::Send => {
                let lane = &mut lock(&self.send).lane;
                match lane.attend() {
                    Step::Submit => {
                        if let Some((slot, payload)) = lane.next() {
                            let key = shard.reserve(Lane { core: self.clone(), direction });
                            let (payload, submission) = submit_send(payload, self.fd.as_fd(), key);
                            lane.armed(slot, key, payload);
                            submissions.push(submission);
                        }
                        return;
                    }
                    step => step,
                }
            }
        };
        if let Step::Cancel(key) = step {
            let owner = Shard::index_of(key);
            match self.driver.shard(owner) {
                Some(other) if !std::ptr::eq(Arc::as_ptr(other), shard) => {
                    // In flight on another worker's ring, which any thread may enter to cancel. A
                    // ring that refuses is noticed by its own driver.
                    let _ = other.cancel_now(key);
                }
                _ => submissions.push(Submission::cancel(key)),
            }
        }
    }

    /// Hook for the shard: an operation has completed.
    pub(super) fn complete(
        self: &Arc<Self>,
        direction: Direction,
        completion: Completion,
        shard: &Shard,
        alone: bool,
        wakes: &mut Vec<Waker>,
    ) {
        match direction {
            Direction::Receive => self.complete_receive(completion, shard, alone, wakes),
            Direction::Send => self.complete_send(completion, shard, wakes),
        }
    }

    fn complete_receive(
        self: &Arc<Self>,
        completion: Completion,
        shard: &Shard,
        alone: bool,
        wakes: &mut Vec<Waker>,
    ) {
        let mut receive = lock(&self.receive);
        receive.alone = if alone { receive.alone.saturating_add(1) } else { 0 };
        let Some(payload) = receive.lane.reaped(completion.key()) else { return };
        let payload = payload.completed(&completion);
        let (outcome, room) = match completion.result() {
            len @ 0.. => {
                if receive.armed_in == shard.cycle() {
                    // The message was there already: looking would have found it.
                    receive.looks.second_found(true);
                }
                (Outcome::Done(Message::new(payload, len as usize)), None)
            }
            error => (failure(error), payload.release()),
        };
        let (room, after) = receive.lane.complete(outcome, room);
        let orphaned = receive.lane.orphan().and_then(Message::detach);
        drop(receive);
        drop((room, orphaned));
        self.carry_out_in(Direction::Receive, after, shard, wakes);
    }

    fn complete_send(
        self: &Arc<Self>,
        completion: Completion,
        shard: &Shard,
        wakes: &mut Vec<Waker>,
    ) {
        let mut send = lock(&self.send);
        let Some((slot, payload)) = send.lane.reaped(completion.key()) else { return };
        let payload = payload.completed(&completion);
        let outcome = match completion.result() {
            len @ 0.. => Outcome::Done(len as usize),
            error => failure(error),
        };
        let went_out = matches!(outcome, Outcome::Done(_));
        let mut after = send.lane.complete(slot, payload, outcome);
        drop(send);
        if went_out {
            after = self.send_waiting(after, wakes);
        }
        self.carry_out_in(Direction::Send, after, shard, wakes);
    }

    /// There is room in the peer's queue: those that wait go out directly, in order. What is to be
    /// done in the end is returned.
    fn send_waiting(
        self: &Arc<Self>,
        mut after: After<Box<Outgoing>>,
        wakes: &mut Vec<Waker>,
    ) -> After<Box<Outgoing>> {
        // Listed already, perhaps: then the driver finds what this leaves.
        let mut attend = after.attend;
        loop {
            let Some((slot, payload)) = lock(&self.send).lane.next() else { break };
            wakes.extend(after.wake.one.take());
            after.wake.settled.tell(&self.settled);
            drop(after.release);
            let sent = payload.send_now(self.fd.as_fd());
            let is_full = is_would_block(&sent);
            after = if is_full {
                lock(&self.send).lane.put_back(slot, payload)
            } else {
                lock(&self.send).lane.settle(slot, payload, sent)
            };
            attend |= after.attend;
            if is_full {
                break;
            }
        }
        after.attend = attend;
        after
    }

    /// Hook for the driver: the ring is gone, or going with operations that did not settle.
    pub(super) fn abandon(
        self: &Arc<Self>,
        direction: Direction,
        remains: &mut Remains,
        wakes: &mut Vec<Waker>,
    ) {
        match direction {
            Direction::Receive => {
                let payload = lock(&self.receive).lane.abandon();
                remains.receives.extend(payload.map(|payload| (Arc::downgrade(self), payload)));
            }
            Direction::Send => {
                let payload = lock(&self.send).lane.abandon();
                let own = |(slot, payload)| (Arc::downgrade(self), slot, payload);
                remains.sends.extend(payload.map(own));
            }
        }
        self.give_up(direction, wakes);
    }

    /// Hook for the graveyard: the kernel has given up a caller's room.
    pub(super) fn room_is_back(&self, room: Option<Rooms>) {
        let (room, waker) = lock(&self.receive).lane.room_is_back(room);
        drop(room);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Hook for the graveyard: the kernel has given up a send's payload.
    pub(super) fn payload_is_back(self: &Arc<Self>, slot: usize, payload: Box<Outgoing>) {
        let after = lock(&self.send).lane.settle(slot, payload, Err(self.driver.error()));
        self.carry_out(Direction::Send, after);
    }

    /// Everybody who waits is to be told that there is no driver any more.
    fn give_up(&self, direction: Direction, wakes: &mut Vec<Waker>) {
        let (mut woken, settled) = match direction {
            Direction::Receive => lock(&self.receive).lane.give_up(),
            Direction::Send => lock(&self.send).lane.give_up(),
        };
        wakes.append(&mut woken);
        settled.tell(&self.settled);
    }

    fn readiness(&self) -> io::Result<&AsyncFd<FileDesc>> {
        if let Some(registered) = self.readiness.get() {
            return Ok(registered);
        }
        let registered = self.register(async_fd::BOTH)?;
        Ok(self.readiness.get_or_init(|| registered))
    }

    fn waits(&self) -> io::Result<Arc<AsyncFd<FileDesc>>> {
        if let Some(waits) = &lock(&self.receive).waits {
            return Ok(waits.clone());
        }
        let registered = Arc::new(self.register(Interest::READABLE)?);
        Ok(lock(&self.receive).waits.get_or_insert(registered).clone())
    }

    fn register(&self, interest: Interest) -> io::Result<AsyncFd<FileDesc>> {
        if self.driver.is_dead() {
            return Err(self.driver.error());
        }
        let duplicate = self.fd.try_clone()?;
        self.driver.enter(|| async_fd::register(duplicate, interest))
    }
}

/// The driver is dead, and the kernel still has something that a caller is to get back: a matter of
/// milliseconds. Whether the task has to come again for it.
fn await_settling(cx: &mut Context<'_>, is_lent: impl Fn() -> bool) -> bool {
    graveyard::sweep();
    if !is_lent() {
        return false;
    }
    // The driver may be about to settle or bury it.
    cx.waker().wake_by_ref();
    true
}

fn is_would_block<T>(result: &io::Result<T>) -> bool {
    matches!(result, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
}

/// What a negative result means.
fn failure<T>(result: i32) -> Outcome<T> {
    match -result {
        libc::ECANCELED | libc::EAGAIN | libc::EINTR => Outcome::Void,
        errno => Outcome::Failed(errno),
    }
}

fn from_errno<T>(received: LaneReceived<T>) -> io::Result<T> {
    received.map_err(io::Error::from_raw_os_error)
}

/// How one kind of receive call wants its message.
trait Sink {
    type Output;

    /// Straight from the kernel, without waiting.
    fn direct(&mut self, fd: BorrowedFd<'_>) -> io::Result<Self::Output>;

    /// Room to lend to the kernel, if the caller gave some away. Runs the buffers' own methods.
    fn room(&mut self, _spare: Option<Rooms>) -> Option<Rooms> {
        None
    }

    /// What the kernel has received. `room` is the caller's, if the message is not in it. Returns
    /// an emptied room to be kept. Runs the buffers' own methods.
    fn deliver(&mut self, message: Message, room: Option<Rooms>) -> (Self::Output, Option<Rooms>);

    /// The caller's room comes back without a message.
    fn withdraw(&mut self, _room: Rooms) {}
}

/// [`Socket::recv`].
struct Bytes<'b>(&'b mut [u8]);

impl Sink for Bytes<'_> {
    type Output = usize;

    fn direct(&mut self, fd: BorrowedFd<'_>) -> io::Result<usize> {
        sys::recv(fd, self.0)
    }

    fn deliver(&mut self, message: Message, _room: Option<Rooms>) -> (usize, Option<Rooms>) {
        (message.deliver(self.0), None)
    }
}

/// [`Socket::recv_message`].
struct Borrowed<'b, 'v, 'c> {
    buffers: &'b mut [IoSliceMut<'v>],
    control: &'c mut [u8],
}

impl<'c> Sink for Borrowed<'_, '_, 'c> {
    type Output = (Received, AncillaryMessageReader<'c>);

    fn direct(&mut self, fd: BorrowedFd<'_>) -> io::Result<Self::Output> {
        sys::recv_message(fd, self.buffers, &mut self.control)
    }

    fn deliver(&mut self, message: Message, _room: Option<Rooms>) -> (Self::Output, Option<Rooms>) {
        (message.deliver_message(self.buffers, std::mem::take(&mut self.control)), None)
    }
}

/// [`Socket::recv_owned`].
struct Owned<'a, P> {
    /// `None` while the lane or the kernel has them.
    parts: Option<P>,
    ancillary: Option<&'a mut AncillaryBuffer>,
}

impl<P: PartsMut> Sink for Owned<'_, P> {
    type Output = Received;

    fn direct(&mut self, fd: BorrowedFd<'_>) -> io::Result<Received> {
        let parts = self.parts.as_mut().expect("tried before the parts are given away");
        sys::recv_parts(fd, parts, self.ancillary.as_deref_mut())
    }

    fn room(&mut self, spare: Option<Rooms>) -> Option<Rooms> {
        self.parts.take().map(|parts| Rooms::new(parts, spare))
    }

    fn deliver(&mut self, message: Message, room: Option<Rooms>) -> (Received, Option<Rooms>) {
        let room = room.or_else(|| self.room(None));
        let (received, parts, room) = message.deliver_owned(room, self.ancillary.as_deref_mut());
        self.parts = Some(parts);
        (received, Some(room))
    }

    fn withdraw(&mut self, mut room: Rooms) {
        self.parts = Some(room.take());
    }
}

/// A receive call: joins the lane's queue at its first poll if it has to wait, leaves it when
/// dropped.
struct Receiving<'a, 's, S> {
    core: &'a Arc<Core>,
    sink: &'s mut S,
    ticket: Option<Ticket>,
    aside: Aside,
}

impl<S: Sink> Receiving<'_, '_, S> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<S::Output>> {
        let coop = ready!(tokio::task::coop::poll_proceed(cx));
        look::note_poll();
        let result = ready!(match self.ticket {
            None => self.poll_first(cx),
            Some(ticket) => self.poll_waiting(ticket, cx),
        });
        coop.made_progress();
        Poll::Ready(result)
    }

    fn poll_first(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<S::Output>> {
        let core = self.core;
        let spare = {
            let mut receive = lock(&core.receive);
            if let Some(received) = receive.lane.take_stash() {
                drop(receive);
                return Poll::Ready(
                    from_errno(received).map(|message| self.deliver_stashed(message)),
                );
            }
            if core.driver.is_dead() {
                return Poll::Ready(Err(core.driver.error()));
            }
            if receive.lane.is_idle() {
                if receive.looks.first_is_due() {
                    match self.sink.direct(core.fd.as_fd()) {
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                            receive.looks.first_found(false);
                        }
                        result => {
                            receive.looks.first_found(true);
                            return Poll::Ready(result);
                        }
                    }
                }
                let looks = receive.looks.second_looks();
                if looks == 0 && receive.prefers_readiness(&core.driver) {
                    let (ticket, after) = receive.lane.enqueue(cx.waker(), None, 1);
                    receive.lane.waits_himself();
                    self.ticket = Some(ticket);
                    drop(receive);
                    core.carry_out(Direction::Receive, after);
                    return self.poll_readiness(ticket, cx);
                }
                if looks > 0 {
                    let (ticket, after) = receive.lane.enqueue(cx.waker(), None, looks);
                    drop(receive);
                    self.ticket = Some(ticket);
                    core.carry_out(Direction::Receive, after);
                    self.aside = look::stand_aside(cx, looks);
                    return Poll::Pending;
                }
            }
            receive.spare.take()
        };
        let room = self.sink.room(spare);
        let (ticket, after) = lock(&core.receive).lane.enqueue(cx.waker(), room, 0);
        self.ticket = Some(ticket);
        core.carry_out(Direction::Receive, after);
        // A message may have come for nobody meanwhile, and the driver may have died.
        self.poll_waiting(ticket, cx)
    }

    fn poll_waiting(
        &mut self,
        ticket: Ticket,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<S::Output>> {
        let core = self.core;
        let mut receive = lock(&core.receive);
        if receive.lane.is_waiting_himself(ticket) {
            drop(receive);
            return self.poll_readiness(ticket, cx);
        }
        if receive.lane.may_look(ticket) {
            let worth_it = !core.driver.is_multi_thread() || self.aside.others_ran();
            match self.sink.direct(core.fd.as_fd()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if worth_it && let looks @ 1.. = receive.lane.looked() {
                        drop(receive);
                        self.aside = look::stand_aside(cx, looks);
                        return Poll::Pending;
                    }
                    receive.looks.second_found(false);
                    if receive.prefers_readiness(&core.driver) {
                        receive.lane.waits_himself();
                        drop(receive);
                        return self.poll_readiness(ticket, cx);
                    }
                    drop(receive);
                    return self.arm(cx);
                }
                result => {
                    receive.looks.second_found(worth_it);
                    let after = receive.lane.found();
                    let unused = receive.did_without();
                    drop(receive);
                    drop(unused);
                    self.ticket = None;
                    core.carry_out(Direction::Receive, after);
                    return Poll::Ready(result);
                }
            }
        }
        let polled = receive.lane.poll(ticket, cx.waker());
        drop(receive);
        let (delivery, after) = match polled {
            Ok(delivered) => delivered,
            Err(replaced) => {
                drop(replaced);
                return self.pending_unless_dead(cx);
            }
        };
        self.ticket = None;
        core.carry_out(Direction::Receive, after);
        match delivery.received {
            Ok(message) => {
                let (output, spare) = self.sink.deliver(message, delivery.room);
                if let Some(spare) = spare {
                    let replaced = lock(&core.receive).spare.replace(spare);
                    drop(replaced);
                }
                Poll::Ready(Ok(output))
            }
            Err(errno) => {
                if let Some(room) = delivery.room {
                    self.sink.withdraw(room);
                }
                Poll::Ready(Err(io::Error::from_raw_os_error(errno)))
            }
        }
    }

    /// First in line, wait for a completion.
    fn arm(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<S::Output>> {
        let core = self.core;
        let spare = lock(&core.receive).spare.take();
        let room = self.sink.room(spare);
        let after = lock(&core.receive).lane.arm(cx.waker(), room);
        core.carry_out(Direction::Receive, after);
        self.pending_unless_dead(cx)
    }

    /// Wait for readiness, first in line, with nothing in flight.
    fn poll_readiness(
        &mut self,
        ticket: Ticket,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<S::Output>> {
        let core = self.core;
        loop {
            let waits = match core.waits() {
                Ok(waits) => waits,
                // No descriptor is left for it: a ring needs none.
                Err(_) => return self.arm(cx),
            };
            let mut guard = match ready!(waits.poll_read_ready(cx)) {
                Ok(guard) => guard,
                Err(_) => {
                    self.leave();
                    return Poll::Ready(Err(core.driver.error()));
                }
            };
            let mut receive = lock(&core.receive);
            if !receive.lane.is_waiting_himself(ticket) {
                drop(receive);
                return self.poll_waiting(ticket, cx);
            }
            match self.sink.direct(core.fd.as_fd()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => guard.clear_ready(),
                result => {
                    let after = receive.lane.found();
                    receive.unused = 0;
                    drop(receive);
                    self.ticket = None;
                    core.carry_out(Direction::Receive, after);
                    return Poll::Ready(result);
                }
            }
        }
    }

    fn pending_unless_dead<T>(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        if !self.core.driver.is_dead() {
            return Poll::Pending;
        }
        let is_lent =
            || self.ticket.is_some_and(|ticket| lock(&self.core.receive).lane.is_lent(ticket));
        if is_lent() && await_settling(cx, is_lent) {
            return Poll::Pending;
        }
        self.leave();
        Poll::Ready(Err(self.core.driver.error()))
    }

    /// Deliver a message that was received for nobody to a caller who has not waited.
    fn deliver_stashed(&mut self, message: Message) -> S::Output {
        let room = self.sink.room(None);
        self.sink.deliver(message, room).0
    }

    fn leave(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            let (room, after) = self.core.forget(ticket);
            if let Some(room) = room {
                self.sink.withdraw(room);
            }
            self.core.carry_out(Direction::Receive, after);
        }
    }
}

impl<S> Drop for Receiving<'_, '_, S> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            let (room, after) = self.core.forget(ticket);
            self.core.carry_out(Direction::Receive, after);
            drop(room);
        }
    }
}

/// A send that waits in the lane; leaves it when dropped.
struct Sending<'a> {
    core: &'a Arc<Core>,
    slot: Option<usize>,
}

impl Sending<'_> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<(io::Result<usize>, Option<Box<Outgoing>>)> {
        let core = self.core;
        let slot = self.slot.expect("not polled after completion");
        let coop = ready!(tokio::task::coop::poll_proceed(cx));
        let polled = lock(&core.send).lane.poll(slot, cx.waker());
        match polled {
            Ok((result, payload)) => {
                coop.made_progress();
                self.slot = None;
                return Poll::Ready((result, Some(payload)));
            }
            Err(replaced) => drop(replaced),
        }
        if core.driver.is_dead() {
            let is_lent = || lock(&core.send).lane.is_lent(slot);
            if is_lent() && await_settling(cx, is_lent) {
                return Poll::Pending;
            }
            // It may have settled just now.
            if let Ok((result, payload)) = lock(&core.send).lane.poll(slot, cx.waker()) {
                self.slot = None;
                return Poll::Ready((result, Some(payload)));
            }
            self.slot = None;
            let mut after = lock(&core.send).lane.forget(slot);
            let payload = after.release.take();
            core.carry_out(Direction::Send, after);
            return Poll::Ready((Err(core.driver.error()), payload));
        }
        Poll::Pending
    }
}

impl Drop for Sending<'_> {
    fn drop(&mut self) {
        if let Some(slot) = self.slot {
            let after = lock(&self.core.send).lane.forget(slot);
            self.core.carry_out(Direction::Send, after);
        }
    }
}

/// A connected socket of a runtime with a driver.
pub(crate) struct Socket {
    core: Arc<Core>,
}

impl std::fmt::Debug for Socket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Socket").field("fd", &self.core.fd).finish_non_exhaustive()
    }
}

impl Socket {
    /// `fd` is non-blocking. It is returned if there is no driver to be had.
    pub(crate) fn new(fd: OwnedFd) -> Result<Self, (io::Error, OwnedFd)> {
        let driver = match Driver::here() {
            Ok(driver) => driver,
            Err(error) => return Err((error, fd)),
        };
        let receive = Receive {
            lane: ReceiveLane::new(),
            looks: Looks::default(),
            armed_in: 0,
            alone: 0,
            waits: None,
            unused: 0,
            spare: None,
        };
        let core = Core {
            fd,
            driver,
            receive: Mutex::new(receive),
            send: Mutex::new(Send { lane: SendLane::new(), spares: Vec::new() }),
            settled: Notify::new(),
            readiness: OnceLock::new(),
        };
        Ok(Self { core: Arc::new(core) })
    }

    /// Whether a socket made here and now would have a driver.
    pub(crate) fn check() -> io::Result<()> {
        Driver::here().map(drop)
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.core.fd.as_fd()
    }

    /// # Panics
    /// If no descriptor is left for the duplicate, or the runtime is gone.
    pub(crate) fn as_async_fd(&self) -> &AsyncFd<FileDesc> {
        match self.core.readiness() {
            Ok(readiness) => readiness,
            Err(error) => panic!("the socket cannot be registered for readiness: {error}"),
        }
    }

    pub(crate) fn into_fd(self) -> OwnedFd {
        let core = self.core.clone();
        // Cancels what is in flight, and usually settles it.
        drop(self);
        match Arc::try_unwrap(core) {
            Ok(core) => core.fd,
            // Still known to an operation that settles on another thread.
            Err(core) => loop {
                if let Ok(duplicate) = core.fd.try_clone() {
                    break duplicate;
                }
                std::thread::yield_now();
            },
        }
    }

    pub(crate) async fn send(&self, message: &[u8]) -> io::Result<usize> {
        let slice = [IoSlice::new(message)];
        let copy = |spare| Outgoing::copy(&slice, &[], spare);
        self.send_with(|fd| sys::send(fd, message), copy).await
    }

    pub(crate) async fn send_message(
        &self,
        message: &[IoSlice<'_>],
        control: &[u8],
    ) -> io::Result<usize> {
        self.send_with(
            |fd| sys::send_message(fd, message, control),
            |spare| Outgoing::copy(message, control, spare),
        )
        .await
    }

    async fn send_with(
        &self,
        mut direct: impl FnMut(BorrowedFd<'_>) -> io::Result<usize>,
        copy: impl FnOnce(Option<Box<Outgoing>>) -> io::Result<Box<Outgoing>>,
    ) -> io::Result<usize> {
        if let Some(result) = self.send_directly(&mut direct).await {
            return result;
        }
        // Between the two polls of the lane nothing is awaited: the place in the queue is that of
        // the first poll.
        let spare = lock(&self.core.send).spares.pop();
        let (sent, payload) = self.wait_for(copy(spare)?).await;
        self.keep(payload.and_then(Outgoing::emptied));
        sent
    }

    fn keep(&self, spare: Option<Box<Outgoing>>) {
        if let Some(spare) = spare {
            let mut send = lock(&self.core.send);
            if send.spares.len() < SPARES {
                send.spares.push(spare);
            }
        }
    }

    /// Try the kernel, if nobody is ahead. `None` if the send has to wait.
    async fn send_directly(
        &self,
        mut direct: impl FnMut(BorrowedFd<'_>) -> io::Result<usize>,
    ) -> Option<io::Result<usize>> {
        std::future::poll_fn(|cx| {
            let coop = ready!(tokio::task::coop::poll_proceed(cx));
            if self.core.driver.is_dead() {
                return Poll::Ready(Some(Err(self.core.driver.error())));
            }
            if !lock(&self.core.send).lane.take_turn() {
                return Poll::Ready(None);
            }
            let result = direct(self.core.fd.as_fd());
            let is_full = is_would_block(&result);
            let mut wakes = Vec::new();
            let (others, after) = lock(&self.core.send).lane.give_turn();
            if others && !is_full {
                let after = self.core.send_waiting(after, &mut wakes);
                self.core.carry_out(Direction::Send, after);
                wakes.into_iter().for_each(Waker::wake);
            } else {
                self.core.carry_out(Direction::Send, after);
            }
            if is_full {
                return Poll::Ready(None);
            }
            coop.made_progress();
            Poll::Ready(Some(result))
        })
        .await
    }

    async fn wait_for(&self, payload: Box<Outgoing>) -> (io::Result<usize>, Option<Box<Outgoing>>) {
        let (slot, after) = {
            // The waker is replaced by the first poll, which follows at once.
            lock(&self.core.send).lane.enqueue(Waker::noop(), payload)
        };
        let mut sending = Sending { core: &self.core, slot: Some(slot) };
        self.core.carry_out(Direction::Send, after);
        std::future::poll_fn(|cx| sending.poll(cx)).await
    }

    pub(crate) async fn send_owned<P: Parts>(
        &self,
        parts: P,
        ancillary: AncillaryBuffer,
    ) -> (io::Result<usize>, P, AncillaryBuffer) {
        let sent = {
            let message = parts.slices();
            self.send_directly(|fd| sys::send_with_ancillary(fd, &message, &ancillary)).await
        };
        if let Some(sent) = sent {
            return (sent, parts, ancillary);
        }
        let spare = lock(&self.core.send).spares.pop();
        let payload = match Outgoing::given(parts, ancillary, spare) {
            Ok(payload) => payload,
            Err((error, parts, ancillary)) => return (Err(error), parts, ancillary),
        };
        let (sent, payload) = self.wait_for(payload).await;
        let payload = payload.expect("only an operation that is abandoned keeps its payload");
        let (parts, ancillary, spare) = payload.take();
        self.keep(spare);
        (sent, parts, ancillary)
    }

    async fn receive<S: Sink>(&self, sink: &mut S) -> io::Result<S::Output> {
        let mut receiving = Receiving { core: &self.core, sink, ticket: None, aside: Aside::now() };
        std::future::poll_fn(|cx| receiving.poll(cx)).await
    }

    pub(crate) async fn recv(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.receive(&mut Bytes(buffer)).await
    }

    pub(crate) async fn recv_message<'a>(
        &self,
        buffers: &mut [IoSliceMut<'_>],
        control: &'a mut [u8],
    ) -> io::Result<(Received, AncillaryMessageReader<'a>)> {
        self.receive(&mut Borrowed { buffers, control }).await
    }

    pub(crate) async fn recv_owned<P: PartsMut>(
        &self,
        parts: P,
        ancillary: Option<&mut AncillaryBuffer>,
    ) -> (io::Result<Received>, P) {
        let mut sink = Owned { parts: Some(parts), ancillary };
        let result = self.receive(&mut sink).await;
        (result, sink.parts.expect("delivered or withdrawn"))
    }

    // ----- without an operation in flight -----

    pub(crate) fn try_send(&self, message: &[u8]) -> io::Result<usize> {
        self.try_send_with(|fd| sys::send(fd, message))
    }

    pub(crate) fn try_send_message(
        &self,
        message: &[IoSlice<'_>],
        control: &[u8],
    ) -> io::Result<usize> {
        self.try_send_with(|fd| sys::send_message(fd, message, control))
    }

    fn try_send_with(
        &self,
        mut call: impl FnMut(BorrowedFd<'_>) -> io::Result<usize>,
    ) -> io::Result<usize> {
        if self.core.driver.is_dead() {
            return Err(self.core.driver.error());
        }
        let send = lock(&self.core.send);
        if !send.lane.is_idle() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.call_now(Interest::WRITABLE, || call(self.fd()))
    }

    pub(crate) fn try_recv(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.try_receive(&mut Bytes(buffer))
    }

    pub(crate) fn try_recv_message<'a>(
        &self,
        buffers: &mut [IoSliceMut<'_>],
        control: &'a mut [u8],
    ) -> io::Result<(Received, AncillaryMessageReader<'a>)> {
        self.try_receive(&mut Borrowed { buffers, control })
    }

    fn try_receive<S: Sink>(&self, sink: &mut S) -> io::Result<S::Output> {
        let mut receive = lock(&self.core.receive);
        if let Some(received) = receive.lane.take_stash() {
            drop(receive);
            return from_errno(received).map(|message| sink.deliver(message, None).0);
        }
        if self.core.driver.is_dead() {
            return Err(self.core.driver.error());
        }
        if !receive.lane.is_idle() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.call_now(Interest::READABLE, || sink.direct(self.fd()))
    }

    /// Call the kernel; readiness found wrong is cleared, where anybody looks at it.
    fn call_now<T>(
        &self,
        interest: Interest,
        mut call: impl FnMut() -> io::Result<T>,
    ) -> io::Result<T> {
        let Some(readiness) = self.core.readiness.get() else { return call() };
        let mut called = false;
        let result = readiness.try_io(interest, |_| {
            called = true;
            call()
        });
        if called { result } else { call() }
    }

    pub(crate) fn poll_send(
        &self,
        cx: &mut Context<'_>,
        message: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_send_with(cx, || self.try_send(message))
    }

    pub(crate) fn poll_send_message(
        &self,
        cx: &mut Context<'_>,
        message: &[IoSlice<'_>],
        control: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_send_with(cx, || self.try_send_message(message, control))
    }

    fn poll_send_with(
        &self,
        cx: &mut Context<'_>,
        mut call: impl FnMut() -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.poll_ready(cx, Interest::WRITABLE))?;
            match call() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result),
            }
        }
    }

    pub(crate) fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_receive(cx, &mut Bytes(buffer))
    }

    pub(crate) fn poll_recv_message<'a>(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        control: &'a mut [u8],
    ) -> Poll<io::Result<(Received, AncillaryMessageReader<'a>)>> {
        self.poll_receive(cx, &mut Borrowed { buffers, control })
    }

    fn poll_receive<S: Sink>(
        &self,
        cx: &mut Context<'_>,
        sink: &mut S,
    ) -> Poll<io::Result<S::Output>> {
        loop {
            ready!(self.poll_ready(cx, Interest::READABLE))?;
            match self.try_receive(sink) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result),
            }
        }
    }

    /// Ready for a direct call, or the task is woken when that may be so. A lane in use is watched
    /// until it settles.
    pub(crate) fn poll_ready(
        &self,
        cx: &mut Context<'_>,
        interest: Interest,
    ) -> Poll<io::Result<()>> {
        if interest.is_readable() {
            let mut receive = lock(&self.core.receive);
            if receive.lane.has_stash() {
                return Poll::Ready(Ok(()));
            }
            if !receive.lane.is_open() {
                let replaced = receive.lane.watchers().park(cx.waker());
                drop(receive);
                drop(replaced);
                return self.alive();
            }
        } else {
            let mut send = lock(&self.core.send);
            if !send.lane.is_idle() {
                let replaced = send.lane.watchers().park(cx.waker());
                drop(send);
                drop(replaced);
                return self.alive();
            }
        }
        let readiness = self.core.readiness()?;
        let guard = if interest.is_readable() {
            ready!(readiness.poll_read_ready(cx))
        } else {
            ready!(readiness.poll_write_ready(cx))
        };
        guard?.retain_ready();
        Poll::Ready(Ok(()))
    }

    fn alive<T>(&self) -> Poll<io::Result<T>> {
        if self.core.driver.is_dead() {
            return Poll::Ready(Err(self.core.driver.error()));
        }
        Poll::Pending
    }

    pub(crate) async fn ready(&self, interest: Interest) -> io::Result<Ready> {
        let (read, write) = (interest.is_readable(), interest.is_writable());
        loop {
            let notified = self.core.settled.notified();
            // Wait for a lane that is asked for to be open.
            let mut open = !(read || write);
            if read {
                let mut receive = lock(&self.core.receive);
                if receive.lane.has_stash() {
                    return Ok(Ready::READABLE);
                }
                open |= receive.lane.is_open();
                receive.lane.watchers().announce();
            }
            if write {
                let mut send = lock(&self.core.send);
                open |= send.lane.is_idle();
                send.lane.watchers().announce();
            }
            if self.core.driver.is_dead() {
                return Err(self.core.driver.error());
            }
            if !open {
                notified.await;
                continue;
            }
            let mut ready = {
                let mut guard = self.core.readiness()?.ready(interest).await?;
                guard.retain_ready();
                guard.ready()
            };
            if !lock(&self.core.receive).lane.is_open() {
                ready = ready - (Ready::READABLE | Ready::READ_CLOSED);
            }
            if !lock(&self.core.send).lane.is_idle() {
                ready = ready - (Ready::WRITABLE | Ready::WRITE_CLOSED);
            }
            if !ready.is_empty() {
                return Ok(ready);
            }
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let core = &self.core;
        let (receive_after, receive_step, rooms) = {
            let mut receive = lock(&core.receive);
            let (after, rooms) = receive.lane.close();
            (after, receive.lane.attend(), rooms)
        };
        let (send_after, send_step, payloads) = {
            let lane = &mut lock(&core.send).lane;
            let (after, payloads) = lane.close();
            (after, lane.attend(), payloads)
        };
        drop((receive_after.release, rooms, send_after.release, payloads));
        receive_after.wake.wake(&core.settled);
        send_after.wake.wake(&core.settled);
        for step in [receive_step, send_step] {
            if let Step::Cancel(key) = step
                && let Some(shard) = core.driver.shard(Shard::index_of(key))
            {
                // A ring that refuses is noticed by its driver.
                let _ = shard.cancel_now(key);
            }
        }
    }
}
