//! The floor for batches: `sendmmsg(2)` and `recvmmsg(2)`, waiting only where there is nothing to do.

#![allow(unsafe_code, reason = "sendmmsg and recvmmsg in the raw")]

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::event::PollFlags;

use super::Turn;
use super::calls::patiently;
use crate::work::SMALL;

/// As many as a batch of the library.
const AT_ONCE: usize = 32;

/// Sends or receives at most so many messages at once; returns how many it did.
type Call = fn(&OwnedFd, usize) -> io::Result<usize>;

pub fn send(socket: OwnedFd) -> Turn {
    turn(socket, PollFlags::OUT, send_many)
}

pub fn receive(socket: OwnedFd) -> Turn {
    turn(socket, PollFlags::IN, receive_many)
}

fn turn(socket: OwnedFd, until: PollFlags, call: Call) -> Turn {
    Box::new(move |each| {
        let mut left = each;
        while left > 0 {
            left -= patiently(&socket, until, || call(&socket, left.min(AT_ONCE)))?;
        }
        Ok(Vec::new())
    })
}

fn with_headers(
    count: usize,
    call: impl FnOnce(*mut libc::mmsghdr) -> libc::c_int,
) -> io::Result<usize> {
    let mut buffers = [[7; SMALL]; AT_ONCE];
    let mut vectors = buffers
        .each_mut()
        .map(|buffer| libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: SMALL });
    let mut headers = vectors.each_mut().map(|vector| {
        // SAFETY: all zero is a header without name, control data and flags.
        let mut header: libc::mmsghdr = unsafe { std::mem::zeroed() };
        (header.msg_hdr.msg_iov, header.msg_hdr.msg_iovlen) = (vector, 1);
        header
    });
    assert!(count <= headers.len());
    usize::try_from(call(headers.as_mut_ptr())).map_err(|_| io::Error::last_os_error())
}

fn send_many(fd: &OwnedFd, count: usize) -> io::Result<usize> {
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    with_headers(count, |headers| {
        // SAFETY: `with_headers` made at least `count` headers, and keeps them and the buffers that they point to
        // until this call has returned.
        unsafe { libc::sendmmsg(fd.as_raw_fd(), headers, count as libc::c_uint, flags) }
    })
}

fn receive_many(fd: &OwnedFd, count: usize) -> io::Result<usize> {
    let flags = libc::MSG_DONTWAIT;
    with_headers(count, |headers| {
        let (count, no_timeout) = (count as libc::c_uint, std::ptr::null_mut());
        // SAFETY: `with_headers` made at least `count` headers, each with a buffer of its own that nothing else uses,
        // and keeps them until this call has returned.
        unsafe { libc::recvmmsg(fd.as_raw_fd(), headers, count, flags, no_timeout) }
    })
}
