//! System calls: a borrowed descriptor in, an owned descriptor or an `io::Result` out.
//!
//! Calls that rustix offers safely are made with rustix. These are made through libc:
//! - `sendmsg(2)` and `recvmsg(2)`: the control data is raw bytes here, which rustix does not take. They are made with
//!   `syscall(2)`. The functions of musl refuse more than 1 KiB of control data to send, and on 32-bit processors rewrite what
//!   came. The layout of a header is the kernel's in both libraries: musl pads its narrower fields, here with zeros.
//! - `getsockname(2)`, `getpeername(2)` and some `getsockopt(2)`: rustix would narrow the answers, or does not have them.
//! - The `getsockopt(2)` of [`peer_credentials`], which takes a raw fd.
#![allow(unsafe_code, reason = "sendmsg and recvmsg by number, getsockname through libc")]

mod options;
pub(crate) mod short_path;

pub(crate) use options::*;

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvFlags, ReturnFlags, SendFlags, Shutdown,
    SocketAddrUnix, SocketFlags, SocketType, sockopt,
};

use tokio::io::{Interest, Ready};

use crate::ancillary::wire::MAX_CONTROL;
use crate::ancillary::{AncillaryBuffer, AncillaryMessageReader};
use crate::buf::owned::{Capacity, Scatter};
use crate::types::socket_addr::SocketAddr;

/// The flags of every send and every receive, in a ring too.
pub(crate) const SEND_FLAGS: libc::c_int = libc::MSG_NOSIGNAL | libc::MSG_EOR;
pub(crate) const RECV_FLAGS: libc::c_int = libc::MSG_CMSG_CLOEXEC | libc::MSG_TRUNC;

/// The same flags for calls that do not wait.
pub(crate) const SEND_NOW: libc::c_int = SEND_FLAGS | libc::MSG_DONTWAIT;
pub(crate) const RECV_NOW: libc::c_int = RECV_FLAGS | libc::MSG_DONTWAIT;

/// The longest message that the kernel holds in one piece of memory (`KMALLOC_MAX_SIZE`), in bytes, on x86-64 and arm64
/// with 4 KiB pages. A message of that length can be sent where the send buffer allows it.
pub(crate) const ONE_PIECE: usize = 4 << 20;

/// The longest message in bytes: one piece and `MAX_SKB_FRAGS` pages beside it, 17 by default and 45 at most, rounded up.
/// A receive needs no more memory. A kernel with 64 KiB pages sends longer ones, which are reported as truncated.
pub(crate) const LARGEST_MESSAGE: usize = ONE_PIECE + (256 << 10);

/// Creates a non-blocking, close-on-exec socket that is not connected.
pub(crate) fn socket() -> io::Result<OwnedFd> {
    Ok(rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        None,
    )?)
}

/// Creates a datagram socket, non-blocking and close-on-exec.
fn datagram_socket() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(rustix::net::socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None)?)
}

/// Creates two connected sockets, non-blocking and close-on-exec.
pub(crate) fn socketpair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        None,
    )?)
}

/// Calls `bind(2)`. The address fits `sun_path`.
pub(crate) fn bind(fd: BorrowedFd<'_>, address: &SocketAddr) -> io::Result<()> {
    Ok(rustix::net::bind(fd, &address.to_rustix()?)?)
}

/// Calls `listen(2)`. The kernel caps the backlog at `net.core.somaxconn` and holds one connection more.
pub(crate) fn listen(fd: BorrowedFd<'_>, backlog: i32) -> io::Result<()> {
    Ok(rustix::net::listen(fd, backlog)?)
}

/// Calls `connect(2)`. On a non-blocking socket `WouldBlock` means that the backlog is full.
///
/// A path that does not fit `sun_path` is opened, and the socket connects to the open file.
pub(crate) fn connect(fd: BorrowedFd<'_>, address: &SocketAddr) -> io::Result<()> {
    let connect = |address: &SocketAddrUnix| retry_on_intr(|| rustix::net::connect(fd, address));
    let Some(path) = address.long_path() else { return Ok(connect(&address.to_rustix()?)?) };
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let file = retry_on_intr(|| rustix::fs::openat(CWD, path, flags, Mode::empty()))?;
    let short = SocketAddrUnix::new(short_path::of(file.as_fd()))?;
    connect(&short).map_err(|error| short_path::of_long_path(error.into(), file.as_fd()))
}

/// What is bound at an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bound {
    Nothing,
    Datagram,
    /// A seqpacket or a stream socket, which need not listen.
    Connection,
}

/// Returns what is bound at an address, without being noticed there.
///
/// `connect(2)` looks for a socket that is bound to the file, and refuses the connection if there is none. It then compares
/// the types. For a datagram socket it rejects a listener (`EPROTOTYPE`), which does not notice.
pub(crate) fn bound_at(address: &SocketAddr) -> io::Result<Bound> {
    match connect(datagram_socket()?.as_fd(), address) {
        Ok(()) => Ok(Bound::Datagram),
        Err(error) => match error.raw_os_error() {
            // ENOENT: there is no file.
            Some(libc::ECONNREFUSED | libc::ENOENT) => Ok(Bound::Nothing),
            // A datagram socket that is connected to another.
            Some(libc::EPERM) => Ok(Bound::Datagram),
            Some(libc::EPROTOTYPE) => Ok(Bound::Connection),
            _ => Err(error),
        },
    }
}

/// Connects a socket to `address`, and blocks this thread while the backlog is full. The socket is non-blocking once it is
/// connected.
pub(crate) fn connect_waiting(fd: BorrowedFd<'_>, address: &SocketAddr) -> io::Result<()> {
    rustix::io::ioctl_fionbio(fd, false)?;
    connect(fd, address)?;
    Ok(rustix::io::ioctl_fionbio(fd, true)?)
}

/// Accepts one connection. The new socket is non-blocking and close-on-exec.
///
/// # Errors
/// Returns `WouldBlock` if there is none, and `InvalidInput` if the listener was shut down and there will be none.
pub(crate) fn accept(fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    // O_NONBLOCK belongs to the open file: a process that shares the listener can have cleared it. accept4(2) has no MSG_DONTWAIT.
    let flags = rustix::fs::fcntl_getfl(fd)?;
    if !flags.contains(OFlags::NONBLOCK) {
        rustix::fs::fcntl_setfl(fd, flags | OFlags::NONBLOCK)?;
    }
    let accepted = retry_on_intr(|| {
        rustix::net::accept_with(fd, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)
    });
    match accepted {
        // A non-blocking listener that was shut down answers this for ever, and is ready all the time.
        Err(Errno::AGAIN) if has_ended(fd)? => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "the listener was shut down, by this process or another that shares it",
        )),
        accepted => Ok(accepted?),
    }
}

pub(crate) fn shutdown(fd: BorrowedFd<'_>, how: std::net::Shutdown) -> io::Result<()> {
    let how = match how {
        std::net::Shutdown::Read => Shutdown::Read,
        std::net::Shutdown::Write => Shutdown::Write,
        std::net::Shutdown::Both => Shutdown::Both,
    };
    Ok(rustix::net::shutdown(fd, how)?)
}

/// Returns whether the peer has closed or shut down its sending direction, or this side reading (`POLLRDHUP`).
pub(crate) fn has_ended(fd: BorrowedFd<'_>) -> io::Result<bool> {
    let mut polled = [PollFd::from_borrowed_fd(fd, PollFlags::RDHUP)];
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    retry_on_intr(|| poll(&mut polled, Some(&at_once)))?;
    Ok(polled[0].revents().intersects(PollFlags::RDHUP | PollFlags::HUP))
}

/// Returns whether the peer has closed or shut down its sending direction, and only empty messages are left. Then, and only
/// then, the kernel returns 0 for the end at every receive.
pub(crate) fn is_at_end(fd: BorrowedFd<'_>) -> io::Result<bool> {
    // In this order: nothing is sent after the end.
    Ok(has_ended(fd)? && rustix::io::ioctl_fionread(fd)? == 0)
}

/// Peeks at the next message, and returns its length and whether ancillary data came with it.
pub(crate) fn peek(
    fd: BorrowedFd<'_>,
    buffers: &mut [IoSliceMut<'_>],
) -> io::Result<(usize, bool)> {
    let flags = RecvFlags::PEEK | RecvFlags::TRUNC | RecvFlags::DONTWAIT;
    let message = retry_on_intr(|| {
        rustix::net::recvmsg(fd, buffers, &mut RecvAncillaryBuffer::default(), flags)
    })?;
    Ok((message.bytes, message.flags.contains(ReturnFlags::CTRUNC)))
}

pub(crate) fn is_would_block<T>(result: &io::Result<T>) -> bool {
    matches!(result, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
}

fn poll_now(fd: BorrowedFd<'_>, events: PollFlags) -> io::Result<PollFlags> {
    let mut polled = [PollFd::from_borrowed_fd(fd, events)];
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    retry_on_intr(|| poll(&mut polled, Some(&at_once)))?;
    Ok(polled[0].revents())
}

/// Returns whether a receive would find a message, the end of the stream or an error.
pub(crate) fn is_readable(fd: BorrowedFd<'_>) -> io::Result<bool> {
    let wanted = PollFlags::IN | PollFlags::RDHUP;
    Ok(poll_now(fd, wanted)?.intersects(wanted | PollFlags::HUP | PollFlags::ERR))
}

/// Returns whether a send would find capacity in the peer's queue, or an error.
pub(crate) fn is_writable(fd: BorrowedFd<'_>) -> io::Result<bool> {
    let found = poll_now(fd, PollFlags::OUT)?;
    Ok(found.intersects(PollFlags::OUT | PollFlags::ERR | PollFlags::HUP))
}

/// Returns the readiness now, in tokio's terms: those that `interest` asks for, with what tokio adds to each.
pub(crate) fn ready(fd: BorrowedFd<'_>, interest: Interest) -> io::Result<Ready> {
    let mut events = PollFlags::empty();
    if interest.is_readable() {
        events |= PollFlags::IN | PollFlags::RDHUP;
    }
    if interest.is_writable() {
        events |= PollFlags::OUT;
    }
    if interest.is_priority() {
        events |= PollFlags::PRI;
    }
    let found = poll_now(fd, events)?;
    let has = |flags| found.intersects(flags);
    let mut ready = Ready::EMPTY;
    if interest.is_readable() && has(PollFlags::IN) {
        ready |= Ready::READABLE;
    }
    if interest.is_readable() && has(PollFlags::HUP | PollFlags::RDHUP) {
        ready |= Ready::READ_CLOSED;
    }
    if interest.is_writable() && has(PollFlags::OUT) {
        ready |= Ready::WRITABLE;
    }
    if interest.is_writable() && has(PollFlags::HUP | PollFlags::ERR) {
        ready |= Ready::WRITE_CLOSED;
    }
    if interest.is_priority() && has(PollFlags::PRI) {
        ready |= Ready::PRIORITY | Ready::READ_CLOSED;
    }
    if has(PollFlags::ERR) {
        ready |= Ready::ERROR;
    }
    Ok(ready)
}

/// Checks that a descriptor is what its new owner takes it for, and makes it non-blocking.
pub(crate) fn adopt(fd: BorrowedFd<'_>, listening: bool) -> io::Result<()> {
    let refused = |what: String| {
        io::Error::new(io::ErrorKind::InvalidInput, format!("fd {}: {what}", fd.as_raw_fd()))
    };
    match sockopt::socket_domain(fd) {
        Ok(AddressFamily::UNIX) => {}
        Ok(other) => {
            return Err(refused(format!(
                "not a Unix socket (address family {}, AF_UNIX wanted)",
                other.as_raw()
            )));
        }
        Err(Errno::NOTSOCK) => return Err(refused("not a socket".into())),
        Err(error) => return Err(error.into()),
    }
    let kind = sockopt::socket_type(fd)?;
    if kind != SocketType::SEQPACKET {
        let kind = match kind {
            SocketType::STREAM => "stream",
            SocketType::DGRAM => "datagram",
            _ => "other",
        };
        return Err(refused(format!(
            "a Unix {kind} socket, not SOCK_SEQPACKET (ListenSequentialPacket= in a unit)"
        )));
    }
    if sockopt::socket_acceptconn(fd)? != listening {
        return Err(refused(if listening {
            "not a listening socket (listen(2) was not called)".into()
        } else {
            "a listening socket, not a connection".into()
        }));
    }
    // A connected socket keeps the credentials of its peer, also after the peer has gone.
    if !listening && peer_credentials(fd.as_raw_fd())?.uid == u32::MAX {
        return Err(refused("not connected (connect(2) or socketpair(2) comes first)".into()));
    }
    Ok(rustix::io::ioctl_fionbio(fd, true)?)
}

/// Calls `send(2)` without waiting.
pub(crate) fn send(fd: BorrowedFd<'_>, message: &[u8]) -> io::Result<usize> {
    let flags = SendFlags::NOSIGNAL | SendFlags::EOR | SendFlags::DONTWAIT;
    Ok(retry_on_intr(|| rustix::net::send(fd, message, flags))?)
}

/// Calls `recv(2)` without waiting. What does not fit into `buffer` is discarded, descriptors too.
pub(crate) fn recv(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    let received = retry_on_intr(|| rustix::net::recv(fd, &mut *buffer, RecvFlags::DONTWAIT));
    #[cfg(planted = "stop_at_reset")]
    if let Err(error) = received {
        stop_at_reset(fd, error.raw_os_error());
    }
    let (_, len) = received?;
    Ok(len)
}

/// Calls `sendmsg(2)` without waiting.
pub(crate) fn send_message(
    fd: BorrowedFd<'_>,
    message: &[IoSlice<'_>],
    control: &[u8],
) -> io::Result<usize> {
    // IoSlice is ABI compatible with iovec (std's documented guarantee).
    let mut header = header(message.as_ptr() as *mut libc::iovec, message.len());
    if !control.is_empty() {
        set_control(&mut header, control.as_ptr().cast_mut(), control.len());
    }
    // SAFETY: `header` points to `message` and `control`, which are borrowed until this function returns.
    retry(|| unsafe { sendmsg(fd, &header) })
}

/// Calls `recvmsg(2)` without waiting, into initialized buffers.
///
/// Descriptors that the kernel installs are close-on-exec and owned by the reader. `control` is taken when a message was
/// received, and left in place on an error.
pub(crate) fn recv_message<'a>(
    fd: BorrowedFd<'_>,
    buffers: &mut [IoSliceMut<'_>],
    control: &mut &'a mut [u8],
) -> io::Result<(usize, AncillaryMessageReader<'a>)> {
    // IoSliceMut is ABI compatible with iovec (std's documented guarantee).
    let header = header(buffers.as_mut_ptr().cast(), buffers.len());
    // SAFETY: each iovec describes an IoSliceMut of the caller's, borrowed exclusively until this function returns.
    unsafe { recv_with_header(fd, header, control) }
}

/// Calls `sendmsg(2)` without waiting, or `send(2)` where that is enough.
pub(crate) fn send_with_ancillary(
    fd: BorrowedFd<'_>,
    message: &[IoSlice<'_>],
    ancillary: &AncillaryBuffer,
) -> io::Result<usize> {
    if ancillary.is_empty() {
        return match message {
            [one] => send(fd, one),
            _ => send_message(fd, message, &[]),
        };
    }
    let mut control = [0; MAX_CONTROL];
    let len = ancillary.encode(&mut control)?;
    send_message(fd, message, &control[..len])
}

/// Calls `recvmsg(2)` without waiting, into owned buffers.
pub(crate) fn recv_scattered<'a, P>(
    fd: BorrowedFd<'_>,
    scatter: &mut Scatter<P>,
    mut control: &'a mut [u8],
) -> io::Result<(usize, AncillaryMessageReader<'a>)> {
    let vectors = scatter.vectors();
    // The kernel does not write to the iovecs themselves.
    let header = header(vectors.as_ptr().cast_mut(), vectors.len());
    // SAFETY: the iovecs describe the memory of buffers in `scatter`, by the contract of `IoBufMut`. They are borrowed
    // exclusively until this function returns. recvmsg(2) writes to them and never reads.
    let (message_len, reader) = unsafe { recv_with_header(fd, header, &mut control)? };
    // SAFETY: recvmsg(2) has just written that message into the vectors, in order.
    unsafe { scatter.received(message_len) };
    Ok((message_len, reader))
}

/// Calls `recvmsg(2)` without waiting, into one owned buffer.
pub(crate) fn recvmsg_plain<'a>(
    fd: BorrowedFd<'_>,
    capacity: &mut Capacity<'_>,
    mut control: &'a mut [u8],
) -> io::Result<(usize, AncillaryMessageReader<'a>)> {
    let mut vector = capacity.vector();
    let header = header(&raw mut vector, 1);
    // SAFETY: the iovec describes the memory of `capacity`, borrowed exclusively until this function returns. recvmsg(2)
    // writes to it and never reads.
    let (message_len, reader) = unsafe { recv_with_header(fd, header, &mut control)? };
    // SAFETY: recvmsg(2) has just written a message of that length there, as far as it fits.
    unsafe { capacity.received(message_len) };
    Ok((message_len, reader))
}

/// Calls `recv(2)` without waiting, into one owned buffer. Returns the length of the message. Ancillary data is discarded.
pub(crate) fn recv_plain(fd: BorrowedFd<'_>, capacity: &mut Capacity<'_>) -> io::Result<usize> {
    let vector = capacity.vector();
    // SAFETY: the iovec describes the memory of `capacity`, borrowed exclusively until this function returns. recv(2)
    // writes at most `iov_len` bytes, and never reads.
    let message_len =
        retry(|| unsafe { libc::recv(fd.as_raw_fd(), vector.iov_base, vector.iov_len, RECV_NOW) })?;
    // SAFETY: recv(2) has just written a message of that length there, as far as it fits.
    unsafe { capacity.received(message_len) };
    Ok(message_len)
}

/// Calls `recvmsg(2)` without waiting, with the iovecs of `header`.
///
/// # Safety
/// The iovecs of `header` describe memory that is valid for writes, and that nothing else accesses during the call.
unsafe fn recv_with_header<'a>(
    fd: BorrowedFd<'_>,
    mut header: libc::msghdr,
    control: &mut &'a mut [u8],
) -> io::Result<(usize, AncillaryMessageReader<'a>)> {
    if !control.is_empty() {
        set_control(&mut header, control.as_mut_ptr(), control.len());
    }
    // SAFETY: the iovecs are valid for writes by this function's contract. `control` is borrowed exclusively until this
    // function returns. `fd` is open, as it is borrowed.
    let received = retry(|| unsafe {
        libc::syscall(libc::SYS_recvmsg, fd.as_raw_fd(), &raw mut header, RECV_NOW)
    });
    #[cfg(planted = "stop_at_reset")]
    if let Err(error) = &received {
        stop_at_reset(fd, error.raw_os_error().unwrap_or(0));
    }
    let message_len = received?;
    let control_truncated =
        header.msg_flags & libc::MSG_CTRUNC != 0 && !cfg!(planted = "control_truncation");
    let control = std::mem::take(control);
    let len = control_len(&header).min(control.len());
    // SAFETY: recvmsg(2) has just written `msg_controllen` bytes of control data there, and nothing else has read them. It
    // leaves padding as it was, and the buffer was initialized before: it is a slice of u8.
    let reader = unsafe { AncillaryMessageReader::new(&mut control[..len], control_truncated) };
    Ok((message_len, reader))
}

/// Takes `ECONNRESET` for the end: what the peer had sent before it closed is never read.
#[cfg(planted = "stop_at_reset")]
pub(crate) fn stop_at_reset(fd: BorrowedFd<'_>, errno: i32) {
    let read = || rustix::net::recv(fd, &mut [0_u8; 1], RecvFlags::DONTWAIT);
    while errno == libc::ECONNRESET && read().is_ok_and(|(_, len)| len > 0) {}
}

pub(crate) fn empty_header() -> libc::msghdr {
    // SAFETY: msghdr is a C struct of integers and pointers (recvmsg(2)), for which zero is a valid value.
    unsafe { std::mem::zeroed() }
}

pub(crate) fn header(vectors: *mut libc::iovec, count: usize) -> libc::msghdr {
    let mut header = empty_header();
    header.msg_iov = vectors;
    header.msg_iovlen = count.min(MOST) as _;
    header
}

/// Sets where the control data of a message is read from or written to.
pub(crate) fn set_control(header: &mut libc::msghdr, control: *mut u8, len: usize) {
    header.msg_control = control.cast();
    header.msg_controllen = len.min(MOST) as _;
}

/// Returns the length of the control data that the kernel has written.
#[allow(clippy::unnecessary_cast, reason = "musl has a narrower field than glibc")]
pub(crate) fn control_len(header: &libc::msghdr) -> usize {
    header.msg_controllen as usize
}

/// The largest number that the fields of a header hold in every C library. The kernel refuses smaller ones.
const MOST: usize = i32::MAX as usize;

/// Calls `sendmsg(2)` without waiting.
///
/// # Safety
/// `header` was made by [`header`]. It points to a message and its control data, which are valid for reads.
pub(crate) unsafe fn sendmsg(fd: BorrowedFd<'_>, header: *const libc::msghdr) -> libc::c_long {
    // SAFETY: sendmsg(2) only reads what the header points to, which is valid by this function's contract.
    unsafe { libc::syscall(libc::SYS_sendmsg, fd.as_raw_fd(), header, SEND_NOW) }
}

/// Returns the address of the socket (`getsockname(2)`).
pub(crate) fn local_address(fd: BorrowedFd<'_>) -> io::Result<SocketAddr> {
    address(fd, libc::getsockname)
}

/// Returns the address of the peer (`getpeername(2)`).
pub(crate) fn peer_address(fd: BorrowedFd<'_>) -> io::Result<SocketAddr> {
    address(fd, libc::getpeername)
}

type GetName =
    unsafe extern "C" fn(libc::c_int, *mut libc::sockaddr, *mut libc::socklen_t) -> libc::c_int;

fn address(fd: BorrowedFd<'_>, get: GetName) -> io::Result<SocketAddr> {
    // SAFETY: sockaddr_un is a C struct of integers (unix(7)), for which zero is a valid value.
    let mut address: libc::sockaddr_un = unsafe { std::mem::zeroed() };
    let mut len = size_of::<libc::sockaddr_un>() as libc::socklen_t;
    // SAFETY: `get` is getsockname(2) or getpeername(2). Both out-pointers are locals, of the size in `len`. The kernel
    // writes no more than that, and reports the untruncated length.
    let result = unsafe { get(fd.as_raw_fd(), (&raw mut address).cast(), &mut len) };
    if result == -1 {
        return Err(io::Error::last_os_error());
    }
    SocketAddr::from_raw(&address, len as usize)
}

/// Makes a system call of libc's that returns a count or -1, and repeats it where a signal interrupts it.
pub(crate) fn retry<T>(mut call: impl FnMut() -> T) -> io::Result<usize>
where
    usize: TryFrom<T>,
{
    loop {
        if let Ok(done) = usize::try_from(call()) {
            return Ok(done);
        }
        match io::Error::last_os_error() {
            error if error.kind() == io::ErrorKind::Interrupted => continue,
            error => return Err(error),
        }
    }
}

fn retry_on_intr<T>(mut call: impl FnMut() -> rustix::io::Result<T>) -> rustix::io::Result<T> {
    loop {
        match call() {
            Err(Errno::INTR) => continue,
            result => return result,
        }
    }
}
