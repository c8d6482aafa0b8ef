//! A socket as its operations in flight know it: two lanes under their locks, and the hooks through
//! which a shard submits and settles their operations.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::Waker;

use filedesc::FileDesc;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::driver::Driver;
use super::graveyard::Remains;
use super::lane::{ReceiveLane, Ticket};
use super::payload::{InFlight, Message, ReceivePayload, Rooms, submit_send};
use super::ring::{Completion, Submission};
use super::shard::{Lane, Listed, Shard};
use crate::async_fd;
use crate::foreign;
use crate::lane::{After, Outcome, Step};
use crate::line::{AT_ONCE, Line};
use crate::look::Looks;
use crate::outgoing::Outgoing;
use crate::watch::Bell;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    Receive,
    Send,
}

/// The socket as its operations in flight know it; closed when the last of them has settled.
pub(super) struct Core {
    /// Shared with the registration in [`Receive::waits`].
    pub(super) fd: Arc<OwnedFd>,
    pub(super) driver: Arc<Driver>,
    pub(super) receive: Mutex<Receive>,
    pub(super) send: Line<InFlight<Outgoing>>,
    /// Told when a lane settles that somebody watches.
    pub(super) settled: Bell,
    /// A duplicate, registered for readiness when somebody first asks for that.
    pub(super) readiness: OnceLock<Box<AsyncFd<FileDesc>>>,
}

pub(super) type Registration = AsyncFd<Arc<OwnedFd>>;

pub(super) struct Receive {
    pub(super) lane: ReceiveLane<InFlight<ReceivePayload>, Message, Rooms>,
    pub(super) looks: Looks,
    /// In which cycle of its shard the lane was armed.
    pub(super) armed_in: u64,
    /// How many completions in a row came to the driver alone: there was nothing to batch.
    pub(super) alone: u8,
    /// The registration for arriving messages, while receives wait for readiness; and how many receives
    /// in a row did without.
    pub(super) waits: Option<Box<Registration>>,
    pub(super) unused: u8,
    /// An emptied box of an earlier receive into owned buffers.
    pub(super) spare: Option<Rooms>,
}

/// A registration for readiness costs every message that arrives an event, needed or not: it is
/// given up after so many receives that did not need it.
const UNUSED: u8 = 16;

/// After so many completions that came alone, a receive waits for readiness instead. A completion is
/// told to the I/O driver, then to the ring's driver, then to the receive; on a multi-thread runtime the
/// kernel finishes the operation on the worker that submitted it, besides. All that is worth it for a
/// batch only.
const QUIET: u8 = 8;

impl Receive {
    /// Whether a receive that has to wait does so for readiness instead of a completion.
    pub(super) fn prefers_readiness(&self, driver: &Driver) -> bool {
        driver.is_far() || self.alone >= QUIET
    }

    fn forget(&mut self, ticket: Ticket) -> (Option<Rooms>, After<Message>) {
        let (room, after) = self.lane.forget(ticket);
        let orphaned = self.lane.orphan().and_then(Message::detach);
        (room.or(orphaned), after)
    }

    /// A receive needed no registration; the registration, if it has not been needed for long.
    pub(super) fn did_without(&mut self) -> Option<Box<Registration>> {
        self.waits.as_ref()?;
        self.unused += 1;
        if self.unused < UNUSED {
            return None;
        }
        (self.unused, self.alone) = (0, 0);
        self.waits.take()
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // The lanes' methods do not panic half-way, and nothing foreign runs under their locks.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Core {
    fn listed(self: &Arc<Self>, direction: Direction) -> Listed {
        Listed { core: Arc::downgrade(self), direction }
    }

    pub(super) fn attend_later(self: &Arc<Self>, direction: Direction) {
        if self.driver.attend(self.listed(direction)).is_err() {
            let mut wakes = Vec::new();
            self.give_up(direction, &mut wakes);
            wakes.into_iter().for_each(foreign::wake);
        }
    }

    /// Do what the lane decided. Not under its lock.
    pub(super) fn carry_out<T>(self: &Arc<Self>, direction: Direction, after: After<T>) {
        if after.attend {
            self.attend_later(direction);
        }
        foreign::release(after.release);
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
        foreign::release(after.release);
    }

    /// A receive leaves. Returns the room it had given, unless the kernel still has it.
    pub(super) fn forget(&self, ticket: Ticket) -> (Option<Rooms>, After<Message>) {
        lock(&self.receive).forget(ticket)
    }

    /// As [`forget`](Self::forget), for a caller who is to have his room back: `None`, and he stays,
    /// while the kernel has it.
    pub(super) fn withdraw(&self, ticket: Ticket) -> Option<(Option<Rooms>, After<Message>)> {
        let mut receive = lock(&self.receive);
        if receive.lane.is_lent(ticket) {
            return None;
        }
        Some(receive.forget(ticket))
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
                let Some(mut send) = self.send.lock_if_used() else { return };
                let lane = &mut send.lane;
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
                    // In flight on another worker's ring, which any thread may enter to cancel.
                    other.cancel_now(key);
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
            error => {
                #[cfg(planted = "stop_at_reset")]
                crate::sys::stop_at_reset(self.fd.as_fd(), -error);
                (failure(error), payload.release())
            }
        };
        let (room, after) = receive.lane.complete(outcome, room);
        let orphaned = receive.lane.orphan().and_then(Message::detach);
        drop(receive);
        foreign::release(room);
        foreign::release(orphaned);
        self.carry_out_in(Direction::Receive, after, shard, wakes);
    }

    fn complete_send(
        self: &Arc<Self>,
        completion: Completion,
        shard: &Shard,
        wakes: &mut Vec<Waker>,
    ) {
        let reaped = self.send.lock().lane.reaped(completion.key());
        let Some((slot, payload)) = reaped else { return };
        let payload = payload.completed(&completion);
        let after = match completion.result() {
            len @ 0.. => self.settle_and_go_on(slot, payload, Ok(len as usize), wakes),
            error => match failure::<usize>(error) {
                Outcome::Failed(errno) => {
                    let error = io::Error::from_raw_os_error(errno);
                    self.settle_and_go_on(slot, payload, Err(error), wakes)
                }
                Outcome::Done(_) | Outcome::Void => self.send.lock().lane.put_back(slot, payload),
            },
        };
        self.carry_out_in(Direction::Send, after, shard, wakes);
    }

    /// A send that waited has a result: there is room in the peer's queue, or it was wrong. Those that
    /// wait go out directly, in order. What is to be done in the end is returned.
    fn settle_and_go_on(
        &self,
        mut slot: usize,
        mut payload: Box<Outgoing>,
        mut sent: io::Result<usize>,
        wakes: &mut Vec<Waker>,
    ) -> After<Box<Outgoing>> {
        // Listed once is enough: the driver finds what this leaves.
        let mut attend = false;
        let mut sent_for = 0;
        let mut after = loop {
            let (spare, given) = payload.sent();
            let mut send = self.send.lock();
            if let Some(spare) = spare {
                send.spares.keep(spare);
            }
            let after = send.lane.settle(slot, given, sent);
            sent_for += 1;
            let next = if sent_for < AT_ONCE { send.lane.next() } else { None };
            drop(send);
            let Some(next) = next else { break after };
            attend |= after.attend;
            wakes.extend(after.wake.one);
            after.wake.settled.tell(&self.settled);
            foreign::release(after.release);
            (slot, payload) = next;
            sent = payload.send_now(self.fd.as_fd());
            if is_would_block(&sent) {
                break self.send.lock().lane.put_back(slot, payload);
            }
        };
        after.attend |= attend;
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
                let payload = self.send.lock().lane.abandon();
                let own = |(slot, payload)| (Arc::downgrade(self), slot, payload);
                remains.sends.extend(payload.map(own));
            }
        }
        self.give_up(direction, wakes);
    }

    /// Hook for the graveyard: the kernel has given up a caller's room.
    pub(super) fn room_is_back(&self, room: Option<Rooms>) {
        let (room, waker) = lock(&self.receive).lane.room_is_back(room);
        foreign::release(room);
        if let Some(waker) = waker {
            foreign::wake(waker);
        }
    }

    /// Hook for the graveyard: the kernel has given up a send's payload.
    pub(super) fn payload_is_back(self: &Arc<Self>, slot: usize, payload: Box<Outgoing>) {
        let after = self.send.lock().lane.settle(slot, Some(payload), Err(self.driver.error()));
        self.carry_out(Direction::Send, after);
    }

    /// Everybody who waits is to be told that there is no driver any more.
    fn give_up(&self, direction: Direction, wakes: &mut Vec<Waker>) {
        let (mut woken, settled) = match direction {
            Direction::Receive => lock(&self.receive).lane.give_up(),
            Direction::Send => self.send.lock().lane.give_up(),
        };
        wakes.append(&mut woken);
        settled.tell(&self.settled);
    }

    pub(super) fn readiness(&self) -> io::Result<&AsyncFd<FileDesc>> {
        if let Some(registered) = self.readiness.get() {
            return Ok(registered);
        }
        let registered = self.register_duplicate()?;
        Ok(self.readiness.get_or_init(|| Box::new(registered)))
    }

    pub(super) fn register_duplicate(&self) -> io::Result<AsyncFd<FileDesc>> {
        let duplicate = self.fd.try_clone()?;
        self.register(|| async_fd::register(duplicate, async_fd::BOTH))
    }

    /// Register for arriving messages.
    pub(super) fn register_to_wait(&self) -> io::Result<Box<Registration>> {
        let register = || async_fd::register_shared(self.fd.clone(), Interest::READABLE);
        self.register(register).map(Box::new)
    }

    fn register<T>(&self, register: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        if self.driver.is_dead() {
            return Err(self.driver.error());
        }
        self.driver.enter(register)
    }
}

pub(super) fn is_would_block<T>(result: &io::Result<T>) -> bool {
    matches!(result, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
}

/// What a negative result means.
fn failure<T>(result: i32) -> Outcome<T> {
    match -result {
        libc::ECANCELED if cfg!(planted = "uninvited_cancel") => Outcome::Failed(libc::ECANCELED),
        libc::ECANCELED | libc::EAGAIN | libc::EINTR => Outcome::Void,
        errno => Outcome::Failed(errno),
    }
}
