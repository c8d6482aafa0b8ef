//! What only a ring can get wrong.
//!
//! Every test has a process of its own ([`harness::runner`]), so it may count descriptors, set limits, install
//! filters, and become another user.

#[path = "../harness/mod.rs"]
#[macro_use]
mod harness;

mod batches;
mod contended_receives;
mod descriptor_shortage;
mod fork;
mod memory_shortage;
mod refusal;
mod teardown;
mod workers;

use std::os::fd::OwnedFd;
use std::process::ExitCode;
use std::task::{Context, Waker};
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio_seqpacket::{Backend, Options, Submission, UnixSeqpacket};

use harness::descriptors::submitted;
use harness::syscalls::socketpair;
use harness::{AtOnce, need};

fn main() -> ExitCode {
    if std::env::var_os(need::MEASURES).is_some() {
        print!("{}", if refusal::counts_rings() { "counted" } else { "not counted" });
        return ExitCode::SUCCESS;
    }
    let tests = [
        contended_receives::tests(),
        teardown::tests(),
        workers::tests(),
        refusal::tests(),
        fork::tests(),
        batches::tests(),
        memory_shortage::tests(),
        descriptor_shortage::tests(),
    ];
    harness::main(AtOnce::One, tests.concat())
}

fn current_thread() -> Runtime {
    Builder::new_current_thread().enable_all().build().expect("a runtime")
}

fn multi_thread(workers: usize) -> Runtime {
    Builder::new_multi_thread().worker_threads(workers).enable_all().build().expect("a runtime")
}

/// Sockets whose operations always go through the ring, if called on a worker.
fn through_the_ring() -> Options {
    Options::new().backend(Backend::Uring).submission(Submission::Ring)
}

/// A socket on io_uring, and its other end in plain system calls.
fn half() -> (UnixSeqpacket, OwnedFd) {
    let (ours, peer) = socketpair();
    (through_the_ring().socket_from_fd(ours).expect("a socket"), peer)
}

fn pair() -> (UnixSeqpacket, UnixSeqpacket) {
    through_the_ring().pair().expect("a pair")
}

/// Polls a receive once. What it waits for is left to the driver.
fn begin<F: Future>(receive: std::pin::Pin<&mut F>) {
    let polled = receive.poll(&mut Context::from_waker(Waker::noop()));
    assert!(polled.is_pending(), "done at once");
}

/// Waits until the rings have run so many operations in all, and run no more: what waits then is parked.
async fn parked(total: u64) {
    let (mut before, mut quiet) = (0, 0);
    for _ in 0..5000 {
        tokio::time::sleep(Duration::from_millis(1)).await;
        let now = submitted();
        quiet = if now == before { quiet + 1 } else { 0 };
        if now >= total && quiet >= 3 {
            return;
        }
        before = now;
    }
    panic!("waited for nothing: {before} operations of {total} submitted, {quiet} ms ago");
}
