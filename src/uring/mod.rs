//! The io_uring backend: receives and sends that have to wait are operations of a ring, and
//! complete with their message.
//!
//! # What goes to the ring
//!
//! A call that can be served at once is a direct system call, made under its lane's lock with nobody
//! ahead: a send whose peer has room, a receive whose message is there ([`crate::look`] says when a
//! receive looks). The ring is for waiting. What waits costs no wake-up and no system call of its
//! own: the driver submits and reaps for all of them together. Where there is nothing to batch, since
//! message after message comes alone, the first in line waits for readiness instead
//! ([`state::Receive::prefers_readiness`]), until receives find their messages without waiting.
//!
//! # Lanes and their states
//!
//! A socket has two lanes, [`lane::ReceiveLane`] and [`crate::lane::SendLane`], each under one lock, each
//! with at most one operation in flight, because the kernel does not keep the order of parked
//! operations: they are woken last in, first out. Everybody else stands in line, in the order of
//! first polls. A lane is
//!
//! - *idle*: nobody waits, nothing is in flight;
//! - *queued*: it stands on a shard's list, once, for the driver to attend to it;
//! - *in flight*: the kernel has an operation with this lane's key. A receive in flight may serve
//!   another caller than the one it was armed for, so it always has room for the largest message,
//!   for 253 descriptors, credentials and a pidfd ([`payload::ReceivePayload`]);
//! - *cancelling*: in flight, and nobody wants it. The operation's own completion is the truth, not
//!   the cancel's: it was cancelled, or it completed first;
//! - with a *stash*: one message that was received for nobody, or for the first in line who has not
//!   polled yet. The next caller takes it, whoever that is. While there is a stash nothing is armed.
//!
//! # From submission to the last completion
//!
//! 1. A call that has to wait joins the lane's line and puts the lane on the list of its worker's
//!    [`shard::Shard`], which wakes the driver task unless that is awake.
//! 2. The driver's cycle ([`driver`]) attends to the lanes that were listed before its last cycle:
//!    between two cycles every task that was ready has run, so a message that one of them sends is
//!    there by then. For each lane it builds a payload in its final place, notes the lane under a
//!    new key in the shard's table, and writes the submission; one `io_uring_enter` takes all.
//! 3. From then on the payload belongs to the kernel. [`payload::InFlight`] is all that is left of
//!    it in the lane; only the [`ring::Completion`] with its key, or the proof that the ring's
//!    context is gone, gives it back. No future ever owns it.
//! 4. The shard reaps: the key finds the lane, the lane decides under its lock, and what it decided
//!    (wake, list again, drop) is done once the lock is gone. A message wakes the first in line and
//!    waits in the stash until he polls. `-EAGAIN` and `-ECANCELED` are no answers, asked for or not:
//!    the operation is submitted again if somebody still waits. Any other error is one caller's
//!    answer, once.
//! 5. A receive that is dropped leaves the line. If nobody is left, its operation is cancelled; if a
//!    message came all the same, it goes to the stash, and out of the dropped caller's buffer. A send
//!    that is dropped in line is never sent; one in flight is cancelled, and the next waits for the
//!    outcome.
//! 6. Dropping the socket closes both lanes, cancels what is in flight from whatever thread this is,
//!    and reaps once. The descriptor is closed with the last operation that knows it: at once where
//!    this thread submitted it, else when that thread next enters the kernel.
//!
//! # Who may enter
//!
//! Anybody, at any time: the rings are plain ones ([`ring`]), one per worker on a multi-thread
//! runtime, one on a current-thread runtime. Only a shard's driver submits operations; other threads
//! enter to cancel. A ring that only one thread may enter (`SINGLE_ISSUER | DEFER_TASKRUN`) was
//! measured 4 to 6 % faster for parked receives in a raw loop, level from 128 pairs on, and it dies
//! with its thread; receives that are not parked, which is what an echo's are here, do not see the
//! difference.
//!
//! # Parking
//!
//! The ring's eventfd is silent while the driver is awake. To sleep the driver has it written again,
//! looks once more at the completion queue and at the flag for deferred work, and only then waits
//! for the eventfd and for its list ([`ring::Ring::listen`]). Rings without `COOP_TASKRUN`
//! ([`crate::coop_taskrun`]) have no such flag and no need of it: the kernel interrupts the thread that
//! submitted, and the completion that it posts there writes the eventfd.
//!
//! # Death
//!
//! The driver task is dropped with its runtime. It fails what waits, cancels what is in flight, reaps
//! for a millisecond at most, and closes the ring, always: a ring that is leaked keeps sockets open.
//! What has not settled by then stays in the [`graveyard`] until the kernel has forgotten the ring.
//! A ring that refuses service dies the same way, but for the cancels; what has completed by then is
//! delivered, the other operations fail, and new sockets of its runtime go to epoll. Whoever is
//! refused while he cancels leaves that to the driver, which then finds out.
//!
//! # Locks
//!
//! A lane's lock may be held while a shard's table or list is locked, or the pool of payloads; no
//! lane's lock while a ring is entered, a waker called, or a caller's buffer touched by its own
//! methods or dropped. Only the cloning of a waker happens under a lane's lock, as under tokio's own.

mod buffers;

mod driver;
mod graveyard;
mod lane;
#[cfg(all(test, seqpacket_loom))]
mod loom_tests;
#[cfg(any(test, fuzzing))]
pub(crate) mod model;
mod op;
mod payload;
pub(crate) mod probe;
#[cfg(any(test, quarantine))]
mod quarantine;
mod ring;
mod shard;
mod socket;
mod state;

pub(crate) use op::Sending;
pub(crate) use socket::{Recv, Socket};
