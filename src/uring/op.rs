//! The futures: a call from its first poll to its result or its drop.

use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::sync::{Arc, MutexGuard};
use std::task::{Context, Poll, ready};

use tokio_uring::buf::{BoundedBuf, Slice};

use super::graveyard;
use super::lane::{Received as LaneReceived, Ticket};
use super::payload::{Message, Rooms};
use super::state::{Core, Direction, Receive, lock};
use crate::ancillary::{AncillaryBuffer, AncillaryMessageReader};
use crate::budget;
use crate::buffer::{One, PartsMut, Scatter};
use crate::lane::{After, Withdrawn};
use crate::look::{self, AfterLook, Aside, Busy};
use crate::outgoing::Outgoing;
use crate::stream::{Filler, Lease};
use crate::sys::{self, Received};
use crate::{MessageInfo, batch};

pub(super) fn from_errno<T>(received: LaneReceived<T>) -> io::Result<T> {
    received.map_err(io::Error::from_raw_os_error)
}

/// How one kind of receive call wants its message.
pub(crate) trait Sink {
    type Output;

    /// Straight from the kernel, without waiting. Called under the lane's lock: runs nothing of the
    /// user's.
    fn direct(&mut self, fd: BorrowedFd<'_>) -> io::Result<Self::Output>;

    /// Room to lend to the kernel, if the caller gave some away.
    fn room(&mut self, _spare: Option<Rooms>) -> Option<Rooms> {
        None
    }

    /// What the kernel has received. `room` is the caller's, if the message is not in it. Returns
    /// an emptied room to be kept. Runs the buffers' own methods.
    fn deliver(&mut self, message: Message, room: Option<Rooms>) -> (Self::Output, Option<Rooms>);

    /// The caller's room comes back without a message.
    fn withdraw(&mut self, _room: Rooms) {}
}

impl<S: Sink> Sink for &mut S {
    type Output = S::Output;

    fn direct(&mut self, fd: BorrowedFd<'_>) -> io::Result<S::Output> {
        S::direct(self, fd)
    }

    fn room(&mut self, spare: Option<Rooms>) -> Option<Rooms> {
        S::room(self, spare)
    }

    fn deliver(&mut self, message: Message, room: Option<Rooms>) -> (S::Output, Option<Rooms>) {
        S::deliver(self, message, room)
    }

    fn withdraw(&mut self, room: Rooms) {
        S::withdraw(self, room);
    }
}

/// A caller who lends one buffer, and wants no ancillary data.
pub(crate) struct Bytes<'b>(pub(super) &'b mut [u8]);

impl Sink for Bytes<'_> {
    type Output = usize;

    fn direct(&mut self, fd: BorrowedFd<'_>) -> io::Result<usize> {
        sys::recv(fd, self.0)
    }

    fn deliver(&mut self, message: Message, _room: Option<Rooms>) -> (usize, Option<Rooms>) {
        (message.deliver(self.0), None)
    }
}

/// A caller who lends buffers, and room for control data.
pub(super) struct Borrowed<'b, 'v, 'c> {
    pub(super) buffers: &'b mut [IoSliceMut<'v>],
    pub(super) control: &'c mut [u8],
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

/// A caller who gives buffers away.
pub(super) struct Owned<'a, P> {
    parts: Given<P>,
    ancillary: Option<&'a mut AncillaryBuffer>,
}

enum Given<P> {
    /// To be received into directly.
    Here(Scatter<P>),
    /// The lane or the kernel has them.
    Lent,
    Back(P),
}

impl<'a, P: PartsMut> Owned<'a, P> {
    pub(super) fn new(parts: Scatter<P>, ancillary: Option<&'a mut AncillaryBuffer>) -> Self {
        Self { parts: Given::Here(parts), ancillary }
    }

    /// The buffers, when the call is over. Runs their own methods.
    pub(super) fn settle(self) -> P {
        match self.parts {
            Given::Here(scatter) => scatter.settle(),
            Given::Back(parts) => parts,
            Given::Lent => unreachable!("delivered or withdrawn"),
        }
    }
}

impl<P: PartsMut> Sink for Owned<'_, P> {
    type Output = Received;

    fn direct(&mut self, fd: BorrowedFd<'_>) -> io::Result<Received> {
        let Given::Here(scatter) = &mut self.parts else {
            unreachable!("tried before the parts are given away");
        };
        sys::recv_scattered(fd, scatter, self.ancillary.as_deref_mut())
    }

    fn room(&mut self, spare: Option<Rooms>) -> Option<Rooms> {
        match std::mem::replace(&mut self.parts, Given::Lent) {
            Given::Here(scatter) => Some(Rooms::new(scatter, spare)),
            other => {
                self.parts = other;
                None
            }
        }
    }

    fn deliver(&mut self, message: Message, room: Option<Rooms>) -> (Received, Option<Rooms>) {
        let room = room.or_else(|| self.room(None));
        let (received, parts, room) = message.deliver_owned(room, self.ancillary.as_deref_mut());
        self.parts = Given::Back(parts);
        (received, Some(room))
    }

    fn withdraw(&mut self, mut room: Rooms) {
        self.parts = Given::Back(room.take());
    }
}

/// A stream, with its buffers.
pub(super) struct Stream<'f, 's>(pub(super) &'f mut Filler<'s>);

impl Sink for Stream<'_, '_> {
    type Output = ();

    fn direct(&mut self, fd: BorrowedFd<'_>) -> io::Result<()> {
        self.0.receive(fd)
    }

    fn room(&mut self, spare: Option<Rooms>) -> Option<Rooms> {
        self.0.leases.pop().map(|lease| Rooms::new(Scatter::new(One(lease.slice_full())), spare))
    }

    fn deliver(&mut self, message: Message, room: Option<Rooms>) -> ((), Option<Rooms>) {
        let room = room.or_else(|| self.room(None));
        let mut ancillary = AncillaryBuffer::new();
        let (received, One(slice), room) =
            message.deliver_owned::<One<Slice<Lease>>>(room, Some(&mut ancillary));
        self.0.deliver(slice.into_inner(), received, ancillary);
        ((), Some(room))
    }

    fn withdraw(&mut self, mut room: Rooms) {
        let One(slice) = room.take::<One<Slice<Lease>>>();
        self.0.leases.push(slice.into_inner());
    }
}

/// A caller who lends buffers for a message each.
pub(super) struct Many<'b, 'v> {
    pub(super) buffers: &'b mut [IoSliceMut<'v>],
    pub(super) infos: &'b mut Vec<MessageInfo>,
}

impl Sink for Many<'_, '_> {
    type Output = ();

    fn direct(&mut self, fd: BorrowedFd<'_>) -> io::Result<()> {
        batch::receive(fd, self.buffers, self.infos)
    }

    fn deliver(&mut self, message: Message, _room: Option<Rooms>) -> ((), Option<Rooms>) {
        let buffers = &mut self.buffers[..1];
        let capacity = buffers[0].len();
        let (received, _) = message.deliver_message(buffers, &mut []);
        self.infos.push(MessageInfo::new(&received, capacity));
        ((), None)
    }
}

/// A receive call: joins the lane's queue at its first poll if it has to wait, leaves it when
/// dropped.
pub(crate) struct Receiving<'a, S> {
    pub(super) core: &'a Arc<Core>,
    pub(super) sink: S,
    pub(super) ticket: Option<Ticket>,
    pub(super) aside: Aside,
    pub(super) busy: Busy,
}

// Nothing in it is pinned: a sink is not a future.
impl<S> Unpin for Receiving<'_, S> {}

impl<S: Sink> Future for Receiving<'_, S> {
    type Output = io::Result<S::Output>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<S::Output>> {
        let coop = ready!(tokio::task::coop::poll_proceed(cx));
        look::note_poll();
        let result = ready!(match self.ticket {
            None => self.poll_first(cx),
            Some(ticket) => self.poll_waiting(ticket, cx),
        });
        budget::take(coop);
        Poll::Ready(result)
    }
}

impl<S: Sink> Receiving<'_, S> {
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
                            let unused = receive.did_without();
                            drop(receive);
                            drop(unused);
                            return Poll::Ready(result);
                        }
                    }
                }
                self.busy = Busy::new(core.driver.busy_until());
                let looks = match receive.looks.second_looks() {
                    0 if self.busy.is_on() => 1,
                    looks => looks,
                };
                if looks == 0 && receive.prefers_readiness(&core.driver) {
                    let (ticket, after) = receive.lane.enqueue(cx.waker(), None, 1);
                    receive.lane.waits_himself();
                    self.aside = Aside::now();
                    self.ticket = Some(ticket);
                    let polled = self.poll_readiness(receive, cx);
                    core.carry_out(Direction::Receive, after);
                    return polled;
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
        loop {
            if let Some(polled) = self.poll_once(ticket, cx) {
                return polled;
            }
            std::hint::spin_loop();
        }
    }

    /// `None` if it is to look again at once.
    fn poll_once(
        &mut self,
        ticket: Ticket,
        cx: &mut Context<'_>,
    ) -> Option<Poll<io::Result<S::Output>>> {
        let core = self.core;
        let mut receive = lock(&core.receive);
        if receive.lane.is_waiting_himself(ticket) {
            return Some(self.poll_readiness(receive, cx));
        }
        if receive.lane.may_look(ticket) {
            let worth_it = !core.driver.is_multi_thread() || self.aside.others_ran();
            match self.sink.direct(core.fd.as_fd()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if worth_it && let looks @ 1.. = receive.lane.looked() {
                        drop(receive);
                        self.aside = look::stand_aside(cx, looks);
                        return Some(Poll::Pending);
                    }
                    match self.busy.looked(self.aside) {
                        AfterLook::Park => {}
                        AfterLook::LookAgain => {
                            receive.lane.looks_again();
                            return None;
                        }
                        AfterLook::LetOthersRun => {
                            receive.lane.looks_again();
                            drop(receive);
                            self.aside = look::let_events_in(cx);
                            return Some(Poll::Pending);
                        }
                    }
                    receive.looks.second_found(false);
                    if receive.prefers_readiness(&core.driver) {
                        receive.lane.waits_himself();
                        return Some(self.poll_readiness(receive, cx));
                    }
                    drop(receive);
                    return Some(self.arm(cx));
                }
                result => {
                    receive.looks.second_found(worth_it);
                    let after = receive.lane.found();
                    let unused = receive.did_without();
                    drop(receive);
                    drop(unused);
                    self.ticket = None;
                    core.carry_out(Direction::Receive, after);
                    return Some(Poll::Ready(result));
                }
            }
        }
        let polled = receive.lane.poll(ticket, cx.waker());
        drop(receive);
        let (delivery, after) = match polled {
            Ok(delivered) => delivered,
            Err(replaced) => {
                drop(replaced);
                return Some(self.pending_unless_dead(cx));
            }
        };
        if self.aside.many_ran() {
            // There is load by now.
            lock(&core.receive).looks.second_may_pay();
        }
        self.ticket = None;
        core.carry_out(Direction::Receive, after);
        match delivery.received {
            Ok(message) => {
                let (output, spare) = self.sink.deliver(message, delivery.room);
                if let Some(spare) = spare {
                    let replaced = lock(&core.receive).spare.replace(spare);
                    drop(replaced);
                }
                Some(Poll::Ready(Ok(output)))
            }
            Err(errno) => {
                if let Some(room) = delivery.room {
                    self.sink.withdraw(room);
                }
                Some(Poll::Ready(Err(io::Error::from_raw_os_error(errno))))
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
        mut receive: MutexGuard<'_, Receive>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<S::Output>> {
        let core = self.core;
        loop {
            let waits = match receive.waits.take().map_or_else(|| core.register_to_wait(), Ok) {
                Ok(waits) => receive.waits.insert(waits),
                // A ring needs no registration.
                Err(_) => {
                    drop(receive);
                    return self.arm(cx);
                }
            };
            let mut guard = match waits.poll_read_ready(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(guard)) => guard,
                Poll::Ready(Err(_)) => {
                    drop(receive);
                    self.leave();
                    return Poll::Ready(Err(core.driver.error()));
                }
            };
            match self.sink.direct(core.fd.as_fd()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => guard.clear_ready(),
                result => {
                    let after = receive.lane.found();
                    receive.unused = 0;
                    if self.aside.many_ran() {
                        receive.looks.second_may_pay();
                    }
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
        graveyard::sweep();
        // One step: between two, a driver in its last cycle may lend the room.
        let left = self.ticket.map(|ticket| self.core.withdraw(ticket));
        match left {
            Some(None) => {
                // The driver may be about to settle or bury it: a matter of milliseconds.
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            Some(Some((room, after))) => self.left(room, after),
            None => {}
        }
        Poll::Ready(Err(self.core.driver.error()))
    }

    /// Deliver a message that was received for nobody to a caller who has not waited.
    fn deliver_stashed(&mut self, message: Message) -> S::Output {
        let room = self.sink.room(None);
        self.sink.deliver(message, room).0
    }

    fn leave(&mut self) {
        if let Some(ticket) = self.ticket {
            let (room, after) = self.core.forget(ticket);
            self.left(room, after);
        }
    }

    fn left(&mut self, room: Option<Rooms>, after: After<Message>) {
        self.ticket = None;
        if let Some(room) = room {
            self.sink.withdraw(room);
        }
        self.core.carry_out(Direction::Receive, after);
    }
}

impl<S> Drop for Receiving<'_, S> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            let (room, after) = self.core.forget(ticket);
            self.core.carry_out(Direction::Receive, after);
            drop(room);
        }
    }
}

/// A send that waits in the lane; leaves it when dropped.
pub(crate) struct Sending<'a> {
    pub(super) core: &'a Arc<Core>,
    /// Until the first poll.
    pub(super) payload: Option<Box<Outgoing>>,
    pub(super) slot: Option<usize>,
}

impl Sending<'_> {
    fn poll_first(
        &mut self,
        cx: &mut Context<'_>,
        payload: Box<Outgoing>,
    ) -> Poll<(io::Result<usize>, Option<Box<Outgoing>>)> {
        let (slot, after) = self.core.send.lock().lane.enqueue(cx.waker(), payload);
        self.slot = Some(slot);
        self.core.carry_out(Direction::Send, after);
        // The driver may have died meanwhile.
        if self.core.driver.is_dead() { self.poll(cx) } else { Poll::Pending }
    }

    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<(io::Result<usize>, Option<Box<Outgoing>>)> {
        if let Some(payload) = self.payload.take() {
            return self.poll_first(cx, payload);
        }
        let core = self.core;
        let slot = self.slot.expect("not polled after completion");
        let coop = ready!(tokio::task::coop::poll_proceed(cx));
        let polled = core.send.lock().lane.poll(slot, cx.waker());
        match polled {
            Ok((result, payload)) => {
                budget::take(coop);
                self.slot = None;
                return Poll::Ready((result, payload));
            }
            Err(replaced) => drop(replaced),
        }
        if core.driver.is_dead() { self.give_up(cx) } else { Poll::Pending }
    }

    /// Nothing goes out any more. The driver may be settling this send, or sending it for another,
    /// just now.
    fn give_up(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<(io::Result<usize>, Option<Box<Outgoing>>)> {
        let (core, slot) = (self.core, self.slot.expect("it waits"));
        graveyard::sweep();
        let withdrawn = core.send.lock().lane.withdraw(slot);
        let settled = match withdrawn {
            Withdrawn::Settled(result, payload) => (result, payload),
            Withdrawn::Lent => {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            Withdrawn::Unsent(mut after) => {
                let payload = after.release.take();
                core.carry_out(Direction::Send, after);
                (Err(core.driver.error()), payload)
            }
        };
        self.slot = None;
        Poll::Ready(settled)
    }
}

impl Drop for Sending<'_> {
    fn drop(&mut self) {
        if let Some(slot) = self.slot {
            #[cfg(planted = "freed_on_drop")]
            if let Some(payload) = self.core.send.lock().lane.lent(slot) {
                payload.reuse();
            }
            let mut after = self.core.send.lock().lane.forget(slot);
            let payload = after.release.take();
            self.core.carry_out(Direction::Send, after);
            drop(payload);
        }
    }
}
