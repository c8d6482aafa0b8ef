//! [`Source`]: where a receive gets its message from. What is known of the message is decided here, too.
//!
//! The kernel closes a descriptor for which a receive has no capacity within the call, which takes as long as the peer likes
//! (see [`crate::util::close`]). So every `recvmsg(2)` here has capacity for everything that can come with a message, whether
//! its caller asks for it or not. Where the socket has a limit on descriptors, that comes first: the kernel installs no more,
//! and closes the others.

use std::io::{self, IoSliceMut};
use std::os::fd::BorrowedFd;

use crate::ancillary::wire::{MAX_CONTROL, MAX_FDS};
use crate::ancillary::{AncillaryBuffer, AncillaryMessageReader};
use crate::buf::owned::{Capacity, Scatter};
use crate::common::marks::{self, Marks};
use crate::sys::{self};
use crate::types::recv_meta::RecvMeta;

/// A socket to receive from. Nothing here waits.
pub(crate) struct Source<'a> {
    fd: BorrowedFd<'a>,
    /// A receive of the socket had capacity for ancillary data, or messages carry some. From then on the kernel discards none.
    /// Before that a plain receive is `recv(2)`, which costs less.
    keeps_control: bool,
    /// How many descriptors a message may bring.
    max_fds: usize,
    pub(crate) marks: &'a mut Marks,
}

impl<'a> Source<'a> {
    pub(crate) fn new(
        fd: BorrowedFd<'a>,
        keeps_control: bool,
        max_fds: usize,
        marks: &'a mut Marks,
    ) -> Self {
        Self { fd, keeps_control, max_fds, marks }
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'a> {
        self.fd
    }

    /// Returns the capacity for control data of every receive that has any.
    pub(crate) fn control_len(&mut self) -> usize {
        self.marks.control_len(self.fd, self.max_fds)
    }

    /// Closes the descriptors beyond the limit that the kernel has installed.
    pub(crate) fn limit_fds(&self, reader: &mut AncillaryMessageReader<'_>) {
        if self.max_fds < MAX_FDS {
            reader.limit_fds(self.max_fds);
        }
    }

    /// Receives into one lent buffer, and returns how many bytes were written there.
    pub(crate) fn recv(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.keeps_control {
            return self.recv_vectored(&mut [IoSliceMut::new(buffer)]);
        }
        sys::recv(self.fd, buffer)
    }

    /// Receives into lent buffers, and returns how many bytes were written there.
    pub(crate) fn recv_vectored(&mut self, buffers: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        let capacity = buffers.iter().map(|buffer| buffer.len()).sum();
        let mut control = [0; MAX_CONTROL];
        let control = &mut control[..self.control_len()];
        let (message_len, _) = sys::recv_message(self.fd, buffers, &mut &mut *control)?;
        Ok(message_len.min(capacity))
    }

    /// Receives into lent buffers, with ancillary data. `control` is taken with a message, and left in place on an error.
    pub(crate) fn recv_message<'c>(
        &mut self,
        buffers: &mut [IoSliceMut<'_>],
        control: &mut &'c mut [u8],
    ) -> io::Result<(RecvMeta, AncillaryMessageReader<'c>)> {
        self.marks.read_first(self.fd);
        if control.len() >= MAX_CONTROL && self.max_fds >= MAX_FDS {
            let (message_len, mut reader) = sys::recv_message(self.fd, buffers, control)?;
            return Ok((self.marks.received(self.fd, message_len, &mut reader), reader));
        }
        let mut all = [0; MAX_CONTROL];
        let all = &mut all[..self.control_len()];
        let (message_len, mut reader) = sys::recv_message(self.fd, buffers, &mut &mut *all)?;
        self.limit_fds(&mut reader);
        let mut received = self.marks.received(self.fd, message_len, &mut reader);
        let reader = reader.move_into(std::mem::take(control));
        received.control_truncated |= reader.is_truncated();
        Ok((received, reader))
    }

    /// Receives into owned buffers. Their own methods run later ([`Scatter::into_parts`]), and none of them here. Without an
    /// ancillary buffer, ancillary data is discarded.
    pub(crate) fn recv_scattered<P>(
        &mut self,
        scatter: &mut Scatter<P>,
        ancillary: Option<&mut AncillaryBuffer>,
    ) -> io::Result<RecvMeta> {
        self.marks.read_first(self.fd);
        let mut control = [0; MAX_CONTROL];
        let control = &mut control[..self.control_len()];
        let (message_len, mut reader) = sys::recv_scattered(self.fd, scatter, control)?;
        self.limit_fds(&mut reader);
        let received = self.marks.received(self.fd, message_len, &mut reader);
        match ancillary {
            Some(ancillary) => {
                ancillary.fill(reader);
                Ok(received)
            }
            None => Ok(received.without(reader.is_empty())),
        }
    }

    /// Receives into one owned buffer. Ancillary data is discarded.
    pub(crate) fn recv_plain(&mut self, capacity: &mut Capacity<'_>) -> io::Result<RecvMeta> {
        if self.keeps_control {
            self.marks.read_first(self.fd);
            let mut control = [0; MAX_CONTROL];
            let control = &mut control[..self.control_len()];
            let (message_len, mut reader) = sys::recvmsg_plain(self.fd, capacity, control)?;
            let received = self.marks.received(self.fd, message_len, &mut reader);
            return Ok(received.without(reader.is_empty()));
        }
        Ok(marks::unasked(self.fd, sys::recv_plain(self.fd, capacity)?))
    }

    /// Peeks at the next message. Ancillary data that came with it counts as truncated.
    pub(crate) fn peek(&mut self, buffers: &mut [IoSliceMut<'_>]) -> io::Result<RecvMeta> {
        self.marks.read_first(self.fd);
        let (message_len, control_truncated) = sys::peek(self.fd, buffers)?;
        let is_message = message_len > 0 || control_truncated;
        let end_of_stream = if is_message { Some(false) } else { self.marks.nothing(self.fd) };
        Ok(RecvMeta { message_len, control_truncated, end_of_stream })
    }
}
