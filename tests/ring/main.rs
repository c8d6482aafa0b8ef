//! What only a ring can get wrong.
//!
//! Every test has a process of its own ([`trials`]), so it may count descriptors, set limits, install
//! filters, and become another user.

#[macro_use]
mod trials;

mod descriptors;
mod fork;
mod life;
mod overflow;
mod refusal;
mod unclaimed;
mod workers;

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;
use std::time::Duration;

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use tokio::runtime::{Builder, Runtime};
use tokio_seqpacket::{Backend, Options, UnixSeqpacket};

fn main() -> ExitCode {
    let tests = [
        unclaimed::tests(),
        life::tests(),
        workers::tests(),
        refusal::tests(),
        fork::tests(),
        overflow::tests(),
        descriptors::tests(),
    ];
    trials::main(tests.into_iter().flatten().collect())
}

/// How many descriptors this process has; tokio keeps some for ever once there was a runtime.
fn base_line() -> usize {
    drop((current_thread(), multi_thread(1)));
    trials::descriptors().len()
}

fn current_thread() -> Runtime {
    Builder::new_current_thread().enable_all().build().expect("a runtime")
}

fn multi_thread(workers: usize) -> Runtime {
    Builder::new_multi_thread().worker_threads(workers).enable_all().build().expect("a runtime")
}

fn socketpair() -> (OwnedFd, OwnedFd) {
    rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        None,
    )
    .expect("socketpair(2)")
}

/// A socket on io_uring, and its other end in plain system calls.
fn half() -> (UnixSeqpacket, OwnedFd) {
    let (ours, peer) = socketpair();
    let socket = Options::new().backend(Backend::Uring).socket_from_fd(ours).expect("a socket");
    (socket, peer)
}

fn pair() -> (UnixSeqpacket, UnixSeqpacket) {
    Options::new().backend(Backend::Uring).pair().expect("a pair")
}

/// Send by a system call that does not wait.
fn send(fd: impl AsFd, message: &[u8]) -> io::Result<usize> {
    Ok(rustix::net::send(fd, message, SendFlags::NOSIGNAL | SendFlags::DONTWAIT)?)
}

/// Receive by a system call that does not wait.
fn recv(fd: impl AsFd) -> io::Result<Vec<u8>> {
    let mut message = vec![0; 4096];
    let (len, _) = rustix::net::recv(fd, &mut message, RecvFlags::DONTWAIT)?;
    message.truncate(len);
    Ok(message)
}

#[track_caller]
fn would_block<T: std::fmt::Debug>(result: io::Result<T>) {
    match result {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
        other => panic!("expected WouldBlock, got {other:?}"),
    }
}

/// Whether the other end has been closed. Messages still queued are thrown away.
fn is_at_end(peer: &OwnedFd) -> bool {
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

/// Wait until the rings have been given so many operations.
async fn armed(total: u64) {
    for _ in 0..5000 {
        if trials::submitted() >= total {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("waited in vain: {} operations of {total} submitted", trials::submitted());
}

#[track_caller]
fn soon<F: Future>(future: F) -> impl Future<Output = F::Output> {
    let line = std::panic::Location::caller();
    async move {
        match tokio::time::timeout(Duration::from_secs(20), future).await {
            Ok(output) => output,
            Err(_) => panic!("waited in vain at {line}"),
        }
    }
}

/// Messages go back and forth between two sockets.
async fn echoes(a: &UnixSeqpacket, b: &UnixSeqpacket, rounds: u32) {
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
