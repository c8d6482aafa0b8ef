//! Little memory for the receives of a batch: fewer at once, or epoll.

#![allow(unsafe_code, reason = "mlockall(2)")]

use rustix::process::{Resource, Rlimit, setrlimit};
use tokio_seqpacket::{Backend, Options};

use crate::harness::descriptors::submitted;
use crate::harness::messages::echoes;
use crate::harness::syscalls::{send, socketpair};
use crate::harness::waiting::soon;
use crate::harness::{Need, Test};
use crate::refusal::become_user;
use crate::{current_thread, parked, through_the_ring};

pub fn tests() -> Vec<Test> {
    let mut tests = tests![[Need::Uring];
        without_address_space_a_ring_has_fewer_receives_at_once_or_epoll_is_used,
        a_hundred_receives_that_wait_need_no_address_space,
    ];
    tests.extend(tests![[Need::Uring, Need::Root];
        locking_all_memory_does_not_populate_that_of_receives,
        a_hundred_receives_that_wait_lock_no_memory,
        locking_all_memory_without_the_right_to_means_epoll_or_a_ring,
    ]);
    tests
}

/// A field of `/proc/self/status`, in KiB.
fn status(field: &str) -> usize {
    let text = std::fs::read_to_string("/proc/self/status").expect("/proc");
    let line = text.lines().find_map(|line| line.strip_prefix(field)).expect("a field");
    line.trim_start_matches(':').trim().trim_end_matches(" kB").parse().expect("a number")
}

/// Forty pairs at work, whose receives are more than a ring with little memory runs at once.
async fn traffic(options: &Options) -> Backend {
    let (a, b) = options.pair().expect("a pair");
    let backend = a.backend();
    let mut tasks = vec![tokio::spawn(async move { echoes(&a, &b, 30).await })];
    for _ in 0..39 {
        let (a, b) = options.pair().expect("a pair");
        tasks.push(tokio::spawn(async move { echoes(&a, &b, 30).await }));
    }
    for task in tasks {
        soon(task).await.expect("no panic");
    }
    backend
}

fn without_address_space_a_ring_has_fewer_receives_at_once_or_epoll_is_used() {
    // What the test itself needs is there.
    let runtime = current_thread();
    runtime.block_on(async { traffic(&Options::new().backend(Backend::Epoll)).await });
    assert!(tokio_seqpacket::probe().to_string().contains("available"));
    let mut seen = Vec::new();
    for spare in [6, 20, 60, 400] {
        let runtime = current_thread();
        let before = status("VmSize");
        let limit = Rlimit { current: Some((before as u64 + (spare << 10)) << 10), maximum: None };
        setrlimit(Resource::As, limit).expect("a limit");
        let backend = runtime.block_on(async {
            let options = Options::new().submission(tokio_seqpacket::Submission::Ring);
            let backend = traffic(&options).await;
            if backend == Backend::Epoll {
                let error = Options::new().backend(Backend::Uring).pair().unwrap_err();
                assert!(error.to_string().contains("RLIMIT_AS"), "{error}");
            }
            backend
        });
        let mapped = (status("VmSize") - before) >> 10;
        eprintln!("{spare} MiB to spare: {backend}, {mapped} MiB more");
        seen.push((backend, mapped));
        drop(runtime);
        setrlimit(Resource::As, Rlimit { current: None, maximum: None }).expect("no limit");
    }
    let [none, few, some, all] = seen[..] else { panic!("four") };
    assert_eq!(none.0, Backend::Epoll);
    for (backend, mapped, slots) in [(few.0, few.1, 2), (some.0, some.1, 8), (all.0, all.1, 32)] {
        assert_eq!(backend, Backend::Uring);
        assert!((slots * 4..slots * 4 + 16).contains(&mapped), "{mapped} MiB for {slots} slots");
    }
}

/// As a program does that must not wait for pages: all memory that is mapped from now on is locked.
fn lock_memory() {
    // SAFETY: mlockall takes flags only.
    let locked = unsafe { libc::mlockall(libc::MCL_FUTURE) };
    assert_eq!(locked, 0, "mlockall: {}", std::io::Error::last_os_error());
}

fn locking_all_memory_does_not_populate_that_of_receives() {
    let runtime = current_thread();
    runtime.block_on(async { traffic(&Options::new().backend(Backend::Epoll)).await });
    lock_memory();
    let (locked, resident) = (status("VmLck"), status("VmRSS"));
    runtime.block_on(async { traffic(&through_the_ring()).await });
    assert!(submitted() > 100, "{} submitted", submitted());
    let (locked, resident) = (status("VmLck") - locked, status("VmRSS") - resident);
    assert!(locked < 16 << 10, "{locked} KiB more are locked");
    assert!(resident < 16 << 10, "{resident} KiB more are resident");
}

fn locking_all_memory_without_the_right_to_means_epoll_or_a_ring() {
    lock_memory();
    become_user(Some(8 << 20));
    let runtime = current_thread();
    runtime.block_on(async {
        let options = Options::new().submission(tokio_seqpacket::Submission::Ring);
        eprintln!("on {}", traffic(&options).await);
        // Receives that wait, too.
        let (ours, peer) = socketpair();
        let socket = options.socket_from_fd(ours).expect("a socket");
        let receive = tokio::spawn(async move { socket.recv(&mut [0; 16]).await });
        parked(0).await;
        send(&peer, b"message").expect("capacity");
        assert_eq!(soon(receive).await.expect("no panic").expect("a message"), 7);
    });
}

/// A hundred receives that wait, all at once: how much more address space and locked memory the process has for them, in
/// KiB. Then each gets its message.
async fn a_hundred_wait(options: &Options) -> (usize, usize) {
    let halves: Vec<_> = (0..100)
        .map(|_| {
            let (ours, peer) = socketpair();
            (options.socket_from_fd(ours).expect("a socket"), peer)
        })
        .collect();
    let before = (status("VmSize"), status("VmLck"), submitted());
    let (receives, peers): (Vec<_>, Vec<_>) = halves
        .into_iter()
        .map(|(socket, peer)| {
            let receive = tokio::spawn(async move {
                let mut message = [0; 16];
                let len = socket.recv(&mut message).await?;
                std::io::Result::Ok(message[..len].to_vec())
            });
            (receive, peer)
        })
        .unzip();
    parked(before.2 + 100).await;
    let space = status("VmSize").saturating_sub(before.0);
    let locked = status("VmLck").saturating_sub(before.1);
    for (number, peer) in peers.iter().enumerate() {
        send(peer, &number.to_ne_bytes()).expect("capacity");
    }
    for (number, receive) in receives.into_iter().enumerate() {
        let message = soon(receive).await.expect("no panic").expect("a message");
        assert_eq!(message, number.to_ne_bytes());
    }
    (space, locked)
}

fn a_hundred_receives_that_wait_need_no_address_space() {
    for workers in [0, 1, 2, 4] {
        let runtime = if workers == 0 { current_thread() } else { crate::multi_thread(workers) };
        // Threads have stacks and heaps of their own, which are there by now.
        runtime.block_on(async { traffic(&Options::new().backend(Backend::Epoll)).await });
        // Enough for one ring, and not for one on each of several workers.
        let limit = status("VmSize") as u64 + (160 << 10);
        let limit = Rlimit { current: Some(limit << 10), maximum: None };
        setrlimit(Resource::As, limit).expect("a limit");
        runtime.block_on(async {
            let (space, _) = a_hundred_wait(&through_the_ring()).await;
            // A thread of many may have got a heap of its own meanwhile.
            assert!(workers > 0 || space < 4 << 10, "{space} KiB of address space");
        });
        drop(runtime);
        setrlimit(Resource::As, Rlimit { current: None, maximum: None }).expect("no limit");
    }
}

fn a_hundred_receives_that_wait_lock_no_memory() {
    lock_memory();
    current_thread().block_on(async {
        let (space, locked) = a_hundred_wait(&through_the_ring()).await;
        assert!(space < 4 << 10 && locked < 4 << 10, "{space} KiB, {locked} KiB are locked");
    });
    crate::multi_thread(2).block_on(a_hundred_wait(&through_the_ring()));
}
