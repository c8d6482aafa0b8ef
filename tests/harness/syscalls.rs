//! Ends of sockets as plain descriptors, with system calls that do not wait.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

pub fn socketpair() -> (OwnedFd, OwnedFd) {
    rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        None,
    )
    .expect("socketpair(2)")
}

pub fn send(fd: impl AsFd, message: &[u8]) -> io::Result<usize> {
    Ok(rustix::net::send(fd, message, SendFlags::NOSIGNAL | SendFlags::DONTWAIT)?)
}

pub fn recv(fd: impl AsFd) -> io::Result<Vec<u8>> {
    let mut message = vec![0; 4096];
    let (len, _) = rustix::net::recv(fd, &mut message, RecvFlags::DONTWAIT)?;
    message.truncate(len);
    Ok(message)
}

/// The number of an error, or of the error that it was made from.
pub fn errno(error: &io::Error) -> Option<i32> {
    let source = || std::error::Error::source(error)?.downcast_ref::<io::Error>();
    error.raw_os_error().or_else(|| source()?.raw_os_error())
}

#[track_caller]
pub fn would_block<T: std::fmt::Debug>(result: io::Result<T>) {
    match result {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
        other => panic!("expected WouldBlock, got {other:?}"),
    }
}

/// Whether the other end has been closed. Messages still queued are thrown away.
pub fn is_at_end(peer: &OwnedFd) -> bool {
    loop {
        match recv(peer) {
            Ok(message) if message.is_empty() => return true,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
            Err(error) => panic!("{error}"),
        }
    }
}
