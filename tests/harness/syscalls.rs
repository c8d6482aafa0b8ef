//! Ends of sockets as plain descriptors, with system calls that do not wait; and waiting for what comes
//! from the library.

#![allow(dead_code, reason = "each test binary uses its own part")]

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use tokio_seqpacket::UnixSeqpacket;

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

/// Wait for what has to come; if it does not, the failure says which line waited.
#[track_caller]
pub fn soon<F: Future>(future: F) -> impl Future<Output = F::Output> {
    let line = std::panic::Location::caller();
    async move {
        match tokio::time::timeout(Duration::from_secs(20), future).await {
            Ok(output) => output,
            Err(_) => panic!("waited in vain at {line}"),
        }
    }
}

/// Messages go back and forth between two sockets.
pub async fn echoes(a: &UnixSeqpacket, b: &UnixSeqpacket, rounds: u32) {
    let (mut here, mut there) = ([0; 16], [0; 16]);
    for round in 0..rounds {
        let request = round.to_ne_bytes();
        let asking = async {
            a.send(&request).await.expect("sent");
            a.recv(&mut here).await.expect("an answer")
        };
        let answering = async {
            let len = b.recv(&mut there).await.expect("a request");
            b.send(&there[..len]).await.expect("sent");
        };
        let (len, ()) = soon(async { tokio::join!(asking, answering) }).await;
        assert_eq!(here[..len], request);
    }
}
