//! A process without descriptors to spare uses fewer rings, or epoll.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Barrier};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::runtime::Runtime;
use tokio_seqpacket::{Backend, Options, Submission};

use crate::harness::descriptors::{base_line, descriptors, rings};
use crate::harness::messages::echoes;
use crate::harness::syscalls::socketpair;
use crate::harness::waiting::{soon, until};
use crate::harness::{Need, Test};
use crate::{current_thread, multi_thread};

pub fn tests() -> Vec<Test> {
    tests![[Need::Uring];
        without_a_descriptor_for_the_probe_epoll_is_used,
        without_a_descriptor_for_the_ring_epoll_is_used,
        a_ring_is_one_descriptor_for_each_worker,
        few_descriptors_for_four_workers_mean_fewer_rings_or_epoll,
    ]
}

/// Have so many descriptors left, and no more. What fills the gaps is returned.
fn squeeze(left: u64) -> Vec<OwnedFd> {
    let limit = getrlimit(Resource::Nofile);
    let highest = descriptors().iter().map(|(number, _)| *number).max().expect("one");
    let some = rustix::fs::open("/dev/null", rustix::fs::OFlags::CLOEXEC, 0.into()).expect("open");
    let current = Some(u64::from(highest) + 64);
    setrlimit(Resource::Nofile, Rlimit { current, ..limit }).expect("a lower limit");
    let mut filling = Vec::new();
    while let Ok(one) = some.as_fd().try_clone_to_owned() {
        filling.push(one);
    }
    for _ in 0..left {
        filling.pop();
    }
    filling.push(some);
    filling
}

fn without_a_descriptor_for_the_probe_epoll_is_used() {
    let (a, b) = socketpair();
    let (c, _d) = socketpair();
    let runtime = current_thread();
    runtime.block_on(async {
        let _filling = squeeze(0);
        let words = tokio_seqpacket::probe().to_string();
        assert!(words.contains("RLIMIT_NOFILE"), "{words}");
        let a = Options::new().socket_from_fd(a).expect("a socket");
        let b = Options::new().socket_from_fd(b).expect("a socket");
        assert_eq!((a.backend(), b.backend()), (Backend::Epoll, Backend::Epoll));
        echoes(&a, &b, 10).await;
        // Last: this one is closed.
        let error = Options::new().backend(Backend::Uring).socket_from_fd(c).unwrap_err();
        assert!(error.to_string().contains("RLIMIT_NOFILE"), "{error}");
    });
}

fn without_a_descriptor_for_the_ring_epoll_is_used() {
    // A success is remembered.
    assert!(tokio_seqpacket::probe().to_string().contains("available"));
    let (mut on_epoll, mut on_uring) = (0, 0);
    for left in 0..6 {
        let base = base_line();
        let (a, b) = socketpair();
        let (c, d) = socketpair();
        let runtime = current_thread();
        runtime.block_on(async {
            let filling = squeeze(left);
            let a = Options::new().socket_from_fd(a).expect("a socket, whatever is missing");
            let b = Options::new().socket_from_fd(b).expect("a socket, whatever is missing");
            assert_eq!(a.backend(), b.backend());
            let explicit = Options::new().backend(Backend::Uring).socket_from_fd(c);
            if let Err(error) = &explicit {
                assert_eq!(a.backend(), Backend::Epoll, "{left} descriptors left");
                assert!(error.to_string().contains("RLIMIT_NOFILE"), "{left} left: {error}");
                on_epoll += 1;
            } else {
                on_uring += 1;
            }
            echoes(&a, &b, 10).await;
            drop(filling);
            // What was missing is there again.
            let again = Options::new().backend(Backend::Uring).socket_from_fd(d);
            assert!(again.is_ok(), "{again:?}");
        });
        drop(runtime);
        until("all descriptors are closed", || descriptors().len() <= base);
    }
    assert!(on_epoll > 0 && on_uring > 0, "{on_epoll} on epoll, {on_uring} on io_uring");
}

const WORKERS: usize = 4;

/// Sockets are made on every worker of these pairs, and used there; what they run on.
fn on_every_worker(
    runtime: &Runtime,
    options: &Options,
    pairs: [(OwnedFd, OwnedFd); WORKERS],
) -> [Backend; WORKERS] {
    let all = Arc::new(Barrier::new(WORKERS));
    runtime.block_on(async {
        let mut backends = [Backend::Epoll; WORKERS];
        let tasks = pairs.map(|(a, b)| {
            let (all, options) = (all.clone(), options.clone());
            tokio::spawn(async move {
                all.wait();
                let a = options.socket_from_fd(a).expect("a socket, whatever is missing");
                let b = options.socket_from_fd(b).expect("a socket, whatever is missing");
                // All exist at once, on all workers.
                all.wait();
                assert_eq!(a.backend(), b.backend());
                echoes(&a, &b, 50).await;
                a.backend()
            })
        });
        for (backend, task) in backends.iter_mut().zip(tasks) {
            *backend = soon(task).await.expect("no panic");
        }
        backends
    })
}

fn pairs() -> [(OwnedFd, OwnedFd); WORKERS] {
    std::array::from_fn(|_| socketpair())
}

fn a_ring_is_one_descriptor_for_each_worker() {
    let options = Options::new().submission(Submission::Ring);
    let used = |backend| {
        let runtime = multi_thread(WORKERS);
        let options = options.clone().backend(backend);
        assert_eq!(on_every_worker(&runtime, &options, pairs()), [backend; WORKERS]);
        assert_eq!(rings().len(), if backend == Backend::Uring { WORKERS } else { 0 });
        descriptors().len()
    };
    let epoll = used(Backend::Epoll);
    assert_eq!(used(Backend::Uring), epoll + WORKERS);
}

fn few_descriptors_for_four_workers_mean_fewer_rings_or_epoll() {
    let options = Options::new().submission(Submission::Ring);
    // As `ulimit -n 32`: enough for all of it.
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(32), ..limit }).expect("a lower limit");
    let backends = on_every_worker(&multi_thread(WORKERS), &options, pairs());
    assert_eq!(backends, [Backend::Uring; WORKERS]);
    for left in 0..=WORKERS {
        setrlimit(Resource::Nofile, limit).expect("the limit there was");
        let (runtime, pairs) = (multi_thread(WORKERS), pairs());
        let filling = squeeze(left as u64);
        let backends = on_every_worker(&runtime, &options, pairs);
        drop(filling);
        // The ring of the first worker is enough for sockets on io_uring. Other workers make system calls.
        let expected = if left == 0 { Backend::Epoll } else { Backend::Uring };
        assert_eq!(backends, [expected; WORKERS], "{left} left");
    }
}
