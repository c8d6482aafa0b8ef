//! [`Source`]: where a receive gets its message from, and what is decided about it there and then.
//!
//! The kernel closes a descriptor for which a receive has no capacity inside the call, which takes as long as the peer
//! likes (see [`crate::close`]). So every `recvmsg(2)` here has capacity for all that can come with a message, whatever
//! the caller wants of it.

use std::io::{self, IoSliceMut};
use std::os::fd::BorrowedFd;

use crate::ancillary::wire::MAX_CONTROL;
use crate::ancillary::{AncillaryBuffer, AncillaryMessageReader};
use crate::buffer::{Capacity, Scatter};
use crate::sys::{self, Received};

/// A socket to receive from. Nothing here waits.
pub(crate) struct Source<'a> {
    fd: BorrowedFd<'a>,
    /// A receive of the socket had capacity for ancillary data, or messages carry some: from then on the kernel discards
    /// none. Before that a plain receive is `recv(2)`, which costs less.
    keeps_control: bool,
}

impl<'a> Source<'a> {
    pub(crate) fn new(fd: BorrowedFd<'a>, keeps_control: bool) -> Self {
        Self { fd, keeps_control }
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'a> {
        self.fd
    }

    /// Into one lent buffer. How much was written there.
    pub(crate) fn recv(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.keeps_control {
            return self.recv_vectored(&mut [IoSliceMut::new(buffer)]);
        }
        sys::recv(self.fd, buffer)
    }

    /// Into lent buffers. How much was written there.
    pub(crate) fn recv_vectored(&mut self, buffers: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        let capacity = buffers.iter().map(|buffer| buffer.len()).sum();
        let mut control = [0; MAX_CONTROL];
        let (message_len, _) = sys::recv_message(self.fd, buffers, &mut &mut control[..])?;
        Ok(message_len.min(capacity))
    }

    /// Into lent buffers, ancillary data too. `control` is taken with a message, and left where it is on an error.
    pub(crate) fn recv_message<'c>(
        &mut self,
        buffers: &mut [IoSliceMut<'_>],
        control: &mut &'c mut [u8],
    ) -> io::Result<(Received, AncillaryMessageReader<'c>)> {
        if control.len() >= MAX_CONTROL {
            let (message_len, reader) = sys::recv_message(self.fd, buffers, control)?;
            return Ok((received(message_len, &reader), reader));
        }
        let mut all = [0; MAX_CONTROL];
        let (message_len, reader) = sys::recv_message(self.fd, buffers, &mut &mut all[..])?;
        let mut received = received(message_len, &reader);
        let reader = reader.move_into(std::mem::take(control));
        received.control_truncated |= reader.is_truncated();
        Ok((received, reader))
    }

    /// Into owned buffers, which are told later ([`Scatter::settle`]): none of their methods runs here. Without an
    /// ancillary buffer ancillary data is discarded.
    pub(crate) fn recv_scattered<P>(
        &mut self,
        scatter: &mut Scatter<P>,
        ancillary: Option<&mut AncillaryBuffer>,
    ) -> io::Result<Received> {
        let mut control = [0; MAX_CONTROL];
        let (message_len, reader) = sys::recv_scattered(self.fd, scatter, &mut control)?;
        let received = received(message_len, &reader);
        match ancillary {
            Some(ancillary) => {
                ancillary.fill(reader);
                Ok(received)
            }
            None => Ok(received.without(&reader)),
        }
    }

    /// Into one owned buffer. Ancillary data is discarded.
    pub(crate) fn recv_plain(&mut self, capacity: &mut Capacity<'_>) -> io::Result<Received> {
        if self.keeps_control {
            let mut control = [0; MAX_CONTROL];
            let (message_len, reader) = sys::recvmsg_plain(self.fd, capacity, &mut control)?;
            return Ok(received(message_len, &reader).without(&reader));
        }
        let message_len = sys::recv_plain(self.fd, capacity)?;
        Ok(Received { message_len, control_unknown: true, ..Received::default() })
    }
}

fn received(message_len: usize, reader: &AncillaryMessageReader<'_>) -> Received {
    let has_control = !reader.is_empty() || reader.was_cut();
    let control_truncated = reader.is_truncated();
    Received { message_len, control_truncated, has_control, control_unknown: false }
}
