//! Options of a socket: `getsockopt(2)` and `setsockopt(2)`, by rustix where it has the option.
#![allow(unsafe_code, reason = "options that rustix does not have, through libc")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::net::sockopt;

use crate::ancillary::wire::{FD_LEN, space};
use crate::types::ucred::UCred;
use crate::util::unsupported::too_old;

/// Bytes of a security label (`SO_PASSSEC`) for which there is capacity. Labels have some tens.
const LONGEST_LABEL: usize = 256;

/// `SO_PASSRIGHTS` (Linux 6.16), which the libc crate does not have yet: `asm/socket.h`.
const SO_PASSRIGHTS: libc::c_int =
    if cfg!(any(target_arch = "sparc", target_arch = "sparc64")) { 0x5c } else { 83 };

pub(crate) fn take_error(fd: BorrowedFd<'_>) -> io::Result<Option<io::Error>> {
    Ok(sockopt::socket_error(fd)?.err().map(io::Error::from))
}

/// Returns the size of the send buffer in bytes, as the kernel accounts for it: twice the value of `SO_SNDBUF`.
pub(crate) fn send_buffer_size(fd: BorrowedFd<'_>) -> io::Result<usize> {
    Ok(sockopt::socket_send_buffer_size(fd)?)
}

/// Returns whether every message comes with control data: credentials (`SO_PASSCRED`) or the time of its arrival
/// (`SO_TIMESTAMP`).
pub(crate) fn marks_messages(fd: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(pass_credentials(fd)? || timestamps(fd)?)
}

/// Returns how many bytes of control data options of the socket add to each message: in front of descriptors, and behind them.
/// An option that this kernel does not have adds none.
pub(crate) fn added_control(fd: BorrowedFd<'_>) -> (usize, usize) {
    let is_on = |option| {
        let value = socket_option(fd, option, size_of::<libc::c_int>());
        value.is_ok_and(|value| value.iter().any(|byte| *byte != 0))
    };
    let mut before = 0;
    if TIMESTAMPS.into_iter().any(is_on) {
        before += space(size_of::<libc::timeval>());
    }
    if is_on(libc::SO_PASSCRED) {
        before += space(UCred::WIRE_LEN);
    }
    if is_on(libc::SO_PASSSEC) {
        before += space(LONGEST_LABEL);
    }
    (before, if is_on(libc::SO_PASSPIDFD) { space(FD_LEN) } else { 0 })
}

fn timestamps(fd: BorrowedFd<'_>) -> io::Result<bool> {
    for option in TIMESTAMPS {
        if socket_option(fd, option, size_of::<libc::c_int>())?.iter().any(|byte| *byte != 0) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// At most one of these is on: setting one unsets the others. The last two have 64 bits on every architecture.
pub(crate) const TIMESTAMPS: [libc::c_int; 4] =
    if cfg!(any(target_arch = "sparc", target_arch = "sparc64")) {
        [libc::SO_TIMESTAMP, libc::SO_TIMESTAMPNS, 0x46, 0x42]
    } else {
        [libc::SO_TIMESTAMP, libc::SO_TIMESTAMPNS, 63, 64]
    };

/// Sets whether every message comes with the time of its arrival (`SO_TIMESTAMP`).
pub(crate) fn set_timestamps(fd: BorrowedFd<'_>, on: bool) -> io::Result<()> {
    set_socket_option(fd, libc::SO_TIMESTAMP, on.into())
}

/// Returns the size of the receive buffer in bytes: see [`send_buffer_size`].
pub(crate) fn recv_buffer_size(fd: BorrowedFd<'_>) -> io::Result<usize> {
    Ok(sockopt::socket_recv_buffer_size(fd)?)
}

pub(crate) fn set_send_buffer_size(fd: BorrowedFd<'_>, size: usize) -> io::Result<()> {
    Ok(sockopt::set_socket_send_buffer_size(fd, size)?)
}

pub(crate) fn set_recv_buffer_size(fd: BorrowedFd<'_>, size: usize) -> io::Result<()> {
    Ok(sockopt::set_socket_recv_buffer_size(fd, size)?)
}

/// Returns the credentials of the peer (`SO_PEERCRED`).
///
/// rustix does not fit: its process id cannot be zero. The kernel reports zero for a peer in a process namespace that is not
/// visible from here.
pub(crate) fn peer_credentials(fd: RawFd) -> io::Result<libc::ucred> {
    let mut credentials = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut len = size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: both out-pointers are locals, of the size in `len`, and getsockopt(2) writes no more than that. It returns
    // EBADF for a raw fd that is not open.
    let result = unsafe {
        libc::getsockopt(
            fd,
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut credentials).cast(),
            &mut len,
        )
    };
    if result == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(credentials)
}

/// Returns the value of a socket option in bytes.
///
/// `first` is the capacity for it. If the kernel returns `ERANGE`, the call is made again with the length that it reported.
pub(crate) fn socket_option(
    fd: BorrowedFd<'_>,
    option: libc::c_int,
    first: usize,
) -> io::Result<Vec<u8>> {
    let mut value = vec![0; first];
    loop {
        let mut len = value.len() as libc::socklen_t;
        // SAFETY: `value` is `len` bytes long. getsockopt(2) writes no more than that, and stores how much it wrote.
        let result = unsafe {
            libc::getsockopt(
                fd.as_raw_fd(),
                libc::SOL_SOCKET,
                option,
                value.as_mut_ptr().cast(),
                &mut len,
            )
        };
        if result == 0 {
            value.truncate(len as usize);
            return Ok(value);
        }
        match io::Error::last_os_error() {
            error if error.raw_os_error() == Some(libc::ERANGE) && len as usize > value.len() => {
                value.resize(len as usize, 0);
            }
            error => return Err(error),
        }
    }
}

/// Sets a socket option that is an `int`.
pub(crate) fn set_socket_option(
    fd: BorrowedFd<'_>,
    option: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    // SAFETY: the pointer is to a local `int`, and setsockopt(2) reads as many bytes as the size that is passed with it.
    let result = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            option,
            (&raw const value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Returns a descriptor of the process at the other end (`SO_PEERPIDFD`, Linux 6.5).
pub(crate) fn peer_pidfd(fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let value = socket_option(fd, libc::SO_PEERPIDFD, size_of::<libc::c_int>())?;
    let fd = value.first_chunk().map(|bytes| libc::c_int::from_ne_bytes(*bytes));
    match fd {
        // SAFETY: the kernel has just installed this descriptor for this call (SO_PEERPIDFD), close-on-exec, and its raw fd
        // is in no other place than `value`.
        Some(fd @ 0..) => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::from_raw_os_error(libc::ESRCH)),
    }
}

pub(crate) fn pass_rights(fd: BorrowedFd<'_>) -> io::Result<bool> {
    let value = socket_option(fd, SO_PASSRIGHTS, size_of::<libc::c_int>())
        .map_err(|error| too_old(error, "SO_PASSRIGHTS", "6.16"))?;
    Ok(value.iter().any(|byte| *byte != 0))
}

pub(crate) fn set_pass_rights(fd: BorrowedFd<'_>, pass: bool) -> io::Result<()> {
    set_socket_option(fd, SO_PASSRIGHTS, pass.into())
        .map_err(|error| too_old(error, "SO_PASSRIGHTS", "6.16"))
}

pub(crate) fn pass_credentials(fd: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(sockopt::socket_passcred(fd)?)
}

pub(crate) fn set_pass_credentials(fd: BorrowedFd<'_>, pass: bool) -> io::Result<()> {
    Ok(sockopt::set_socket_passcred(fd, pass)?)
}
