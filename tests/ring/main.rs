//! What only a ring can get wrong.
//!
//! Every test has a process of its own ([`trials`]), so it may count descriptors, set limits, install
//! filters, and become another user.

#[path = "../harness/plain.rs"]
mod plain;
#[macro_use]
mod trials;

mod descriptors;
mod fork;
mod life;
mod overflow;
mod refusal;
mod unclaimed;
mod workers;

use std::os::fd::OwnedFd;
use std::process::ExitCode;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio_seqpacket::{Backend, Options, UnixSeqpacket};

use plain::{echoes, is_at_end, recv, send, socketpair, soon, would_block};

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

/// A socket on io_uring, and its other end in plain system calls.
fn half() -> (UnixSeqpacket, OwnedFd) {
    let (ours, peer) = socketpair();
    let socket = Options::new().backend(Backend::Uring).socket_from_fd(ours).expect("a socket");
    (socket, peer)
}

fn pair() -> (UnixSeqpacket, UnixSeqpacket) {
    Options::new().backend(Backend::Uring).pair().expect("a pair")
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
