//! What the kernel may touch while an operation is in flight: buffers, headers, control data,
//! descriptors to pass.
//!
//! A payload is built in a box, at its final place. [`InFlight`] takes the box apart into a bare
//! pointer before the operation is submitted, and is the only trace of it until the completion has
//! been reaped: nothing moves, reads or frees the payload meanwhile, because nothing else can reach
//! it. Dropping an `InFlight` leaks the payload, which is what must happen if the completion is
//! never seen.
#![allow(unsafe_code, reason = "headers that point into buffers; payloads lent to the kernel")]

use std::io::{self, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::{Mutex, PoisonError};

use io_uring::{opcode, types};

use super::buffers::{SLOT_LEN, SMALL, Slot};
#[cfg(any(test, quarantine))]
use super::quarantine::Memory;
use super::ring::{Completion, ContextGone, Submission};
use crate::ancillary::wire::MAX_CONTROL;
use crate::ancillary::{AncillaryBuffer, AncillaryMessageReader};
use crate::buffer::{PartsMut, RoomWriter, Scatter, Shell, spread};
use crate::outgoing::{Outgoing, vector};
use crate::sys::{RECV_FLAGS, Received, SEND_FLAGS, empty_header};

/// In `msg_flags` until the kernel has received a message, which writes them (`recvmsg(2)`).
const UNTOUCHED: libc::c_int = -1;

/// Payloads of receives that are kept for the next ones.
const KEPT: usize = 1024;

/// A payload that the kernel has, and the key of the operation.
#[derive(Debug)]
pub(super) struct InFlight<P> {
    payload: NonNull<P>,
    key: u64,
}

// SAFETY: it stands for exclusive ownership of a P, as a Box<P> would, and gives no access to it.
unsafe impl<P: Send> Send for InFlight<P> {}

impl<P> InFlight<P> {
    fn new(payload: Box<P>, key: u64) -> Self {
        Self { payload: NonNull::from(Box::leak(payload)), key }
    }

    /// Have the payload back, now that the operation has completed.
    ///
    /// # Panics
    /// If the completion is another operation's.
    pub(super) fn completed(self, completion: &Completion) -> Box<P> {
        assert_eq!(self.key, completion.key(), "the lane matched the key");
        // SAFETY: the pointer came from a box in `new`, and `self` is consumed. A Completion comes
        // from the ring only, and with this key once: the kernel is done with the payload.
        unsafe { Box::from_raw(self.payload.as_ptr()) }
    }

    /// Have the payload back, now that nothing of the ring is left.
    pub(super) fn exhumed(self, _gone: &ContextGone) -> Box<P> {
        // SAFETY: as above, and the kernel has released the context that knew the operation, as
        // whoever made the ContextGone has seen.
        unsafe { Box::from_raw(self.payload.as_ptr()) }
    }
}

#[cfg(planted = "freed_on_drop")]
impl InFlight<Outgoing> {
    /// As if the payload had been freed, and its memory were somebody else's.
    pub(super) fn reuse(&mut self) {
        // SAFETY: the allocation lives, and only the kernel refers to it, which reads it: the bug.
        unsafe { self.payload.as_mut() }.overwrite();
    }
}

// ----- receive -----

/// The caller's owned buffers, without their type, and where they are. In a box: most sockets have none,
/// and a place for one.
pub(crate) struct Rooms(Box<RoomsParts>);

struct RoomsParts {
    shell: Box<dyn Shell>,
    /// While they are lent, the payload's own follow.
    vectors: Vec<libc::iovec>,
}

// SAFETY: the iovecs point into the buffers in `shell`, which is Send and owned with them.
unsafe impl Send for Rooms {}

impl Rooms {
    /// Take the buffers to their final place. `spare` is an emptied box of an earlier operation.
    pub(super) fn new<P: PartsMut>(scatter: Scatter<P>, mut spare: Option<Rooms>) -> Self {
        let fits = |spare: &mut Rooms| spare.0.shell.as_any().is::<Option<P>>();
        let new = || Self(Box::new(RoomsParts { shell: Box::new(None::<P>), vectors: Vec::new() }));
        let mut rooms = spare.take_if(fits).unwrap_or_else(new);
        rooms.0.vectors.clear();
        rooms.0.vectors.extend_from_slice(scatter.rooms());
        let slot =
            rooms.0.shell.as_any().downcast_mut::<Option<P>>().expect("checked or made above");
        *slot = Some(scatter.into_parts());
        rooms
    }

    /// Take the buffers out again; the empty box can be reused.
    pub(super) fn take<P: PartsMut>(&mut self) -> P {
        let slot = self.0.shell.as_any().downcast_mut::<Option<P>>();
        slot.and_then(Option::take).expect("taken once, by the caller who knows the type")
    }
}

/// A receive: room for the largest message, wherever it may end up, and for all control data.
pub(super) struct ReceivePayload {
    header: libc::msghdr,
    /// The slot: for small messages, and the rest.
    own: [libc::iovec; 2],
    /// The caller's buffers, which are filled first.
    rooms: Option<Rooms>,
    slot: Slot,
}

// SAFETY: the pointers lead into what the payload owns.
unsafe impl Send for ReceivePayload {}

#[expect(clippy::vec_box, reason = "a payload stays in its box")]
static POOL: Mutex<Vec<Box<ReceivePayload>>> = Mutex::new(Vec::new());

impl ReceivePayload {
    /// Room of the library's own, and that of the caller in front of it if there is one.
    ///
    /// # Errors
    /// No address space; the caller's room comes back.
    pub(super) fn new(rooms: Option<Rooms>) -> Result<Box<Self>, (io::Error, Option<Rooms>)> {
        let pooled = POOL.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut payload = match pooled {
            Some(payload) => payload,
            None => match Slot::take() {
                Ok(slot) => Box::new(Self {
                    header: empty_header(),
                    own: [vector(slot.small_ptr(), SMALL), vector(slot.as_ptr(), SLOT_LEN)],
                    rooms: None,
                    slot,
                }),
                Err(error) => return Err((error, rooms)),
            },
        };
        payload.rooms = rooms;
        if let Some(rooms) = &mut payload.rooms {
            rooms.0.vectors.extend_from_slice(&payload.own);
        }
        Ok(payload)
    }

    /// The caller's buffers, then those of the slot.
    fn vectors(&self) -> &[libc::iovec] {
        self.rooms.as_ref().map_or(&self.own, |rooms| &rooms.0.vectors)
    }

    fn take_rooms(&mut self) -> Option<Rooms> {
        let mut rooms = self.rooms.take()?;
        rooms.0.vectors.truncate(rooms.0.vectors.len() - self.own.len());
        Some(rooms)
    }

    /// Lend the payload to the kernel.
    pub(super) fn submit(
        mut self: Box<Self>,
        fd: BorrowedFd<'_>,
        key: u64,
    ) -> (InFlight<Self>, Submission) {
        self.header = empty_header();
        self.header.msg_flags = UNTOUCHED;
        self.header.msg_iovlen = self.vectors().len();
        self.header.msg_controllen = MAX_CONTROL;
        let in_flight = InFlight::new(self, key);
        let payload = in_flight.payload.as_ptr();
        // SAFETY: `payload` is a live allocation that nothing else refers to; from here on it is
        // reached through this pointer only. What the entry points to lies in the payload or is
        // owned by it, and stays until `InFlight` is given a proof that the kernel is
        // done with it.
        let submission = unsafe {
            (*payload).header.msg_iov = match &mut (*payload).rooms {
                Some(rooms) => rooms.0.vectors.as_mut_ptr(),
                None => (&raw mut (*payload).own).cast(),
            };
            (*payload).header.msg_control = (*payload).slot.control_ptr().cast();
            let entry = opcode::RecvMsg::new(types::Fd(fd.as_raw_fd()), &raw mut (*payload).header)
                .flags(RECV_FLAGS as u32)
                .build();
            Submission::new(entry, key)
        };
        (in_flight, submission)
    }

    /// Nobody has seen a completion, and none will come: the caller's room comes back. A message that
    /// the kernel had received all the same is lost, but its descriptors are closed.
    pub(super) fn bury(mut self: Box<Self>) -> Option<Rooms> {
        if self.header.msg_flags == UNTOUCHED {
            return self.release();
        }
        let rooms = self.take_rooms();
        // How much of the slot it used is not known.
        drop(Message { payload: Some(self), message_len: SLOT_LEN, len: SLOT_LEN });
        rooms
    }

    /// The completion was no message: the caller's room comes back, the rest is kept for another.
    pub(super) fn release(mut self: Box<Self>) -> Option<Rooms> {
        let rooms = self.take_rooms();
        self.keep(0);
        rooms
    }

    /// Write to the library's own room, `at` bytes from its start.
    ///
    /// # Safety
    /// `bytes` is not of this payload.
    unsafe fn write_own(&mut self, at: usize, bytes: &[u8]) {
        assert!(at + bytes.len() <= SMALL + SLOT_LEN);
        let in_small = SMALL.saturating_sub(at).min(bytes.len());
        let (small, rest) = bytes.split_at(in_small);
        if !small.is_empty() {
            self.slot.small()[at..][..in_small].copy_from_slice(small);
        }
        if !rest.is_empty() {
            let to = (at + in_small) - SMALL;
            // SAFETY: the slot is SLOT_LEN bytes that only this payload uses, and the range lies
            // within them (asserted above).
            unsafe {
                self.slot.as_ptr().add(to).copy_from_nonoverlapping(rest.as_ptr(), rest.len());
            }
        }
    }

    #[cfg(quarantine)]
    fn keep(self: Box<Self>, used: usize) {
        if let Some((payload, used)) = super::quarantine::exchange((self, used)) {
            payload.pool(used);
        }
    }

    #[cfg(not(quarantine))]
    fn keep(self: Box<Self>, used: usize) {
        self.pool(used);
    }

    fn pool(self: Box<Self>, used: usize) {
        let mut pool = POOL.lock().unwrap_or_else(PoisonError::into_inner);
        if pool.len() < KEPT && used <= 64 << 10 {
            pool.push(self);
        } else {
            drop(pool);
            self.slot.give_back(used);
        }
    }
}

#[cfg(any(test, quarantine))]
impl Memory for (Box<ReceivePayload>, usize) {
    fn pieces(&mut self) -> [&mut [u8]; 3] {
        self.0.slot.pieces()
    }
}

/// A message that the kernel has written into a payload. Owns the descriptors that came with it.
pub(crate) struct Message {
    /// `None` only while being dropped.
    payload: Option<Box<ReceivePayload>>,
    /// As it was sent.
    message_len: usize,
    /// As much of it as the kernel has written.
    len: usize,
}

impl Message {
    /// The completion of `payload` said that a message of `len` bytes was received.
    pub(super) fn new(payload: Box<ReceivePayload>, message_len: usize) -> Self {
        let room = payload.vectors().iter().map(|vector| vector.iov_len).sum();
        Self { payload: Some(payload), message_len, len: message_len.min(room) }
    }

    fn payload(&mut self) -> &mut ReceivePayload {
        self.payload.as_mut().expect("only drop takes the payload")
    }

    /// The caller's buffers; as much of the message as lies in them is theirs.
    fn take_rooms(&mut self) -> Option<Rooms> {
        let rooms = self.payload().take_rooms()?;
        let room = rooms.0.vectors.iter().map(|vector| vector.iov_len).sum();
        self.len = self.len.saturating_sub(room);
        Some(rooms)
    }

    /// Length of the message, and whether control data was discarded by the kernel.
    fn received(&mut self) -> Received {
        let message_len = self.message_len;
        let header = &self.payload().header;
        let control_truncated =
            header.msg_flags & libc::MSG_CTRUNC != 0 && !cfg!(planted = "control_truncation");
        let has_control = header.msg_controllen > 0 || control_truncated;
        Received { message_len, control_truncated, has_control }
    }

    /// The pieces of memory that the message fills, in order.
    fn pieces(&mut self) -> impl Iterator<Item = &[u8]> {
        let mut rest = self.len;
        let pieces = self.payload().vectors().iter().map(move |vector| {
            let len = rest.min(vector.iov_len);
            rest -= len;
            (vector.iov_base.cast::<u8>(), len)
        });
        // A caller's room can be empty, and the message go on behind it.
        pieces.filter(|(_, len)| *len > 0).map(|(start, len)| {
            // SAFETY: the iovecs point to memory owned by this payload, and the kernel filled them
            // one after the other with `self.len` bytes, as its completion said.
            unsafe { std::slice::from_raw_parts(start, len) }
        })
    }

    /// Copy as many bytes as fit.
    fn copy_into(&mut self, mut write: impl FnMut(&[u8]) -> usize) {
        for piece in self.pieces() {
            if write(piece) < piece.len() {
                return;
            }
        }
    }

    fn control(&mut self) -> AncillaryMessageReader<'_> {
        let truncated = self.received().control_truncated;
        let payload = self.payload();
        let len = std::mem::take(&mut payload.header.msg_controllen).min(MAX_CONTROL);
        // SAFETY: the kernel wrote these bytes, as its completion said, and the length has just been
        // set to zero, so that nobody reads them again.
        unsafe { AncillaryMessageReader::new(&mut payload.slot.control()[..len], truncated) }
    }

    /// Move the message out of the room of a caller who is gone; that is returned, to be dropped.
    /// Without memory for it the message stays where it is.
    pub(super) fn detach(&mut self) -> Option<Rooms> {
        self.payload().rooms.as_ref()?;
        let payload = ReceivePayload::new(None).ok()?;
        let mut detached = Self { payload: Some(payload), message_len: self.message_len, len: 0 };
        let to = detached.payload();
        let mut at = 0;
        for piece in self.pieces() {
            // What was beyond the largest message, with the caller's room in front, is cut.
            let piece = &piece[..piece.len().min(SMALL + SLOT_LEN - at)];
            // SAFETY: the pieces are the other payload's.
            unsafe { to.write_own(at, piece) };
            at += piece.len();
        }
        let from = self.payload();
        let len = std::mem::take(&mut from.header.msg_controllen).min(MAX_CONTROL);
        to.slot.control()[..len].copy_from_slice(&from.slot.control()[..len]);
        to.header.msg_controllen = len;
        to.header.msg_flags = from.header.msg_flags;
        let rooms = self.take_rooms();
        detached.len = at;
        drop(std::mem::replace(self, detached));
        rooms
    }

    /// Deliver to a caller who lent a buffer and wants no ancillary data.
    pub(super) fn deliver(mut self, mut buffer: &mut [u8]) -> usize {
        let room = buffer.len();
        self.copy_into(|piece| {
            let len = piece.len().min(buffer.len());
            let (head, tail) = std::mem::take(&mut buffer).split_at_mut(len);
            head.copy_from_slice(&piece[..len]);
            buffer = tail;
            len
        });
        self.len.min(room)
    }

    /// Deliver to a caller who lent buffers.
    pub(super) fn deliver_message<'a>(
        mut self,
        buffers: &mut [IoSliceMut<'_>],
        control: &'a mut [u8],
    ) -> (Received, AncillaryMessageReader<'a>) {
        self.scatter(buffers);
        let mut received = self.received();
        let reader = self.control().move_into(control);
        received.control_truncated = reader.is_truncated();
        (received, reader)
    }

    /// Show the bytes to a caller who lent buffers, and whether there is ancillary data; the message
    /// stays.
    pub(super) fn peek(&mut self, buffers: &mut [IoSliceMut<'_>]) -> Received {
        self.scatter(buffers);
        let mut received = self.received();
        received.control_truncated |= self.payload().header.msg_controllen > 0;
        received
    }

    fn scatter(&mut self, buffers: &mut [IoSliceMut<'_>]) {
        let mut rest = &mut *buffers;
        let mut at = 0;
        self.copy_into(|mut piece| {
            let len = piece.len();
            while let Some(buffer) = rest.first_mut() {
                let room = &mut buffer[at..];
                let now = room.len().min(piece.len());
                room[..now].copy_from_slice(&piece[..now]);
                piece = &piece[now..];
                at += now;
                if piece.is_empty() {
                    break;
                }
                (rest, at) = (&mut std::mem::take(&mut rest)[1..], 0);
            }
            len - piece.len()
        });
    }

    /// Deliver to a caller who gave buffers away. `mine` are those buffers if the message was
    /// received elsewhere; else it lies in them already. Runs the buffers' own methods.
    pub(super) fn deliver_owned<P: PartsMut>(
        mut self,
        mine: Option<Rooms>,
        ancillary: Option<&mut AncillaryBuffer>,
    ) -> (Received, P, Rooms) {
        let len = self.len;
        let mut received = self.received();
        match ancillary {
            Some(ancillary) => ancillary.fill(self.control()),
            None => received.control_truncated |= !self.control().is_empty(),
        }
        let (mut rooms, mut parts) = match mine {
            Some(mut mine) => {
                // SAFETY: the rooms are those of buffers that `mine` owns; the message lies elsewhere.
                let mut writer = unsafe { RoomWriter::new(&mine.0.vectors) };
                self.copy_into(|piece| writer.write(piece));
                let parts = mine.take::<P>();
                (mine, parts)
            }
            None => {
                let own = self.take_rooms();
                let mut own = own.expect("a caller without buffers has them in the payload");
                let parts = own.take::<P>();
                (own, parts)
            }
        };
        // SAFETY: so much of the message was written into the rooms, by the kernel or above.
        unsafe { parts.set_received(spread(len, &rooms.0.vectors)) };
        rooms.0.vectors.clear();
        (received, parts, rooms)
    }
}

impl Drop for Message {
    fn drop(&mut self) {
        drop(self.control());
        let len = self.len;
        if let Some(mut payload) = self.payload.take() {
            // What went beyond the caller's buffers and the place for small messages.
            let vectors = payload.vectors();
            let elsewhere: usize =
                vectors[..vectors.len() - 1].iter().map(|vector| vector.iov_len).sum();
            // Somebody's buffers, if he did not wait for the message. Dropped last: what they do is
            // not ours.
            let rooms = payload.rooms.take();
            payload.keep(len.saturating_sub(elsewhere));
            drop(rooms);
        }
    }
}

/// Lend a send to the kernel.
pub(super) fn submit_send(
    message: Box<Outgoing>,
    fd: BorrowedFd<'_>,
    key: u64,
) -> (InFlight<Outgoing>, Submission) {
    let in_flight = InFlight::new(message, key);
    let fd = types::Fd(fd.as_raw_fd());
    // SAFETY: the message is a live allocation that only `in_flight` refers to, and this reference
    // ends here. What the entry points to lies in the message or is owned by it, and stays until
    // `InFlight` is given a proof that the kernel is done with it.
    let submission = unsafe {
        let entry = match in_flight.payload.as_ref().pointers() {
            (_, Some(plain)) => opcode::Send::new(fd, plain.iov_base.cast(), plain.iov_len as u32)
                .flags(SEND_FLAGS)
                .build(),
            (header, None) => opcode::SendMsg::new(fd, header).flags(SEND_FLAGS as u32).build(),
        };
        Submission::new(entry, key)
    };
    (in_flight, submission)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::AsFd;

    use rustix::pipe::PipeFlags;

    use super::super::quarantine::{Quarantine, Written};
    use super::*;
    use crate::sys;

    #[test]
    fn a_message_whose_completion_is_never_seen_leaves_no_descriptor() {
        let (a, b) = sys::socketpair().unwrap();
        let flags = PipeFlags::CLOEXEC | PipeFlags::NONBLOCK;
        let (reader, writer) = rustix::pipe::pipe_with(flags).unwrap();
        let mut ancillary = AncillaryBuffer::new();
        ancillary.push_fd(writer).unwrap();
        sys::send_with_ancillary(a.as_fd(), &[io::IoSlice::new(b"one")], &ancillary).unwrap();
        drop(ancillary);

        let payload = ReceivePayload::new(None).ok().unwrap();
        let (in_flight, _) = payload.submit(b.as_fd(), 1);
        let payload = in_flight.payload.as_ptr();
        // SAFETY: this test is the kernel: the payload is lent to it, and the submission goes nowhere.
        let (received, payload) = unsafe {
            let header = &raw mut (*payload).header;
            let received = libc::recvmsg(b.as_raw_fd(), header, RECV_FLAGS);
            (received, Box::from_raw(payload))
        };
        assert_eq!(received, 3);
        assert!(payload.bury().is_none());
        assert_eq!(rustix::io::read(&reader, &mut [0_u8]), Ok(0), "the end of the pipe");
    }

    fn payload() -> (Box<ReceivePayload>, usize) {
        (ReceivePayload::new(None).map_err(|(error, _)| error).unwrap(), 0)
    }

    #[test]
    fn what_the_kernel_writes_after_memory_was_given_back_is_found() {
        let mut quarantine = Quarantine::new(1);
        assert!(quarantine.exchange(payload()).unwrap().is_none());
        let (late, used) = payload();
        let slot = late.slot.as_ptr();
        assert!(quarantine.exchange((late, used)).unwrap().is_some(), "nobody wrote to the first");
        let (reader, mut writer) = io::pipe().unwrap();
        writer.write_all(b"late").unwrap();
        // SAFETY: mapped memory that nobody refers to between two calls of the quarantine.
        let written = unsafe { libc::read(reader.as_raw_fd(), slot.add(100).cast(), 4) };
        assert_eq!(written, 4);
        let found = quarantine.exchange(payload()).err();
        assert_eq!(found, Some(Written { piece: 2, at: 100 }));
    }
}
