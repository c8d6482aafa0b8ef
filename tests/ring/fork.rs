//! G8 and G12: child processes.

#![allow(unsafe_code, reason = "fork(2)")]

use std::process::Stdio;

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

use tokio_seqpacket::UnixSeqpacket;

use crate::harness::descriptors::{rings, submitted};
use crate::harness::messages::echoes;
use crate::harness::syscalls::{is_at_end, recv, send};
use crate::harness::waiting::{soon, until};
use crate::harness::{Need, Test};
use crate::{current_thread, half, multi_thread, pair, parked};

pub fn tests() -> Vec<Test> {
    tests![[Need::Uring];
        a_program_started_in_mid_traffic_inherits_nothing,
        a_forked_child_that_only_exits_disturbs_nothing,
        a_forked_child_leaves_its_parents_ring_alone,
    ]
}

fn a_program_started_in_mid_traffic_inherits_nothing() {
    for runtime in [current_thread(), multi_thread(2)] {
        runtime.block_on(async {
            let before = submitted();
            let (socket, peer) = half();
            let receive = tokio::spawn(async move {
                let mut message = [0; 16];
                let len = socket.recv(&mut message).await.expect("a message");
                (socket, message[..len].to_vec())
            });
            parked(before + 1).await;
            let (a, b) = pair();
            let busy = tokio::spawn(async move {
                echoes(&a, &b, 2000).await;
                (a, b)
            });
            // Ends with its input.
            let mut child = std::process::Command::new("cat")
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .spawn()
                .expect("cat");
            let links = std::fs::read_dir(format!("/proc/{}/fd", child.id()))
                .expect("a process")
                .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
            for link in links {
                let link = link.to_string_lossy().into_owned();
                assert!(
                    !["io_uring", "eventfd", "socket:"].iter().any(|kind| link.contains(kind)),
                    "inherited: {link}"
                );
            }
            soon(busy).await.expect("no panic");
            send(&peer, b"still here").expect("capacity");
            let (socket, message) = soon(receive).await.expect("no panic");
            assert_eq!(message, b"still here");
            // The child has no part in it.
            drop(socket);
            assert!(is_at_end(&peer));
            drop(child.stdin.take());
            child.wait().expect("a child");
        });
    }
}

/// Fork; the child does nothing but wait for the pipe to be closed here, and exits.
fn fork_and_wait() -> (libc::pid_t, std::os::fd::OwnedFd) {
    use std::os::fd::AsRawFd;
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).expect("a pipe");
    // SAFETY: the child calls nothing but close, read and _exit, which are async-signal-safe.
    let child = unsafe { libc::fork() };
    assert!(child >= 0, "{}", std::io::Error::last_os_error());
    if child == 0 {
        // SAFETY: as above; the byte is the child's own.
        unsafe {
            libc::close(write.as_raw_fd());
            let mut byte = 0_u8;
            libc::read(read.as_raw_fd(), (&raw mut byte).cast(), 1);
            libc::_exit(0);
        }
    }
    (child, write)
}

fn reap(child: libc::pid_t) {
    let child = rustix::process::Pid::from_raw(child).expect("a process");
    let status =
        rustix::process::waitpid(Some(child), rustix::process::WaitOptions::empty()).expect("ours");
    let (_, status) = status.expect("waited for");
    assert_eq!(status.exit_status(), Some(0), "{status:?}");
}

fn a_forked_child_that_only_exits_disturbs_nothing() {
    for runtime in [current_thread(), multi_thread(2)] {
        let (its_peer, waiting) = runtime.block_on(async {
            let before = submitted();
            let (socket, peer) = half();
            let receive = tokio::spawn(async move {
                let (received, message) = socket.recv_owned(vec![0; 16]).await;
                message[..received.expect("a message").bytes_read()].to_vec()
            });
            parked(before + 1).await;
            let (a, b) = pair();
            let busy = tokio::spawn(async move { echoes(&a, &b, 1000).await });

            let (child, write) = fork_and_wait();
            // While the child has copies of everything.
            soon(busy).await.expect("no panic");
            let (a, b) = pair();
            echoes(&a, &b, 100).await;
            send(&peer, b"to the parent").expect("capacity");
            assert_eq!(soon(receive).await.expect("no panic"), b"to the parent");
            drop(write);
            reap(child);
            // After its end.
            echoes(&a, &b, 100).await;
            assert!(is_at_end(&peer));

            let before = submitted();
            let (socket, peer) = half();
            let waiting = tokio::spawn(async move { drop(socket.recv(&mut [0; 16]).await) });
            parked(before + 1).await;
            (peer, waiting)
        });
        // A child that outlives the runtime keeps the files open, as forks do; and no longer.
        let (child, write) = fork_and_wait();
        drop(runtime);
        drop(waiting);
        drop(write);
        reap(child);
        until("end of stream", || is_at_end(&its_peer));
        assert_eq!(recv(&its_peer).expect("end of stream"), b"");
    }
}

/// Forks; the child does this and exits. Nothing else runs in this process, so the child has all locks.
fn in_forked_child(body: impl FnOnce()) {
    // SAFETY: the other threads of this process wait and hold no lock, the allocator's and the standard library's included.
    let child = unsafe { libc::fork() };
    assert!(child >= 0, "{}", std::io::Error::last_os_error());
    if child == 0 {
        let failed = catch_unwind(AssertUnwindSafe(body)).is_err();
        // SAFETY: nothing that the parent has set up for its exit runs.
        unsafe { libc::_exit(failed.into()) };
    }
    reap(child);
}

fn a_forked_child_leaves_its_parents_ring_alone() {
    let runtime = current_thread();
    let echo = async |(a, b): &(UnixSeqpacket, UnixSeqpacket)| {
        let before = tokio_seqpacket::metrics().expect("a runtime").total().submissions;
        soon(echoes(a, b, 100)).await;
        let made = tokio_seqpacket::metrics().expect("a runtime").total().submissions - before;
        assert!(made >= 200, "{made} operations through a ring");
    };
    let (used, dropped) = runtime.block_on(async {
        let (one, other) = (pair(), pair());
        echo(&one).await;
        (one, other)
    });
    let before = (submitted(), rings().len());
    assert_eq!(before.1, 1);

    // The child goes on with the runtime, through a ring of its own which replaces the parent's.
    in_forked_child(|| {
        runtime.block_on(async {
            echo(&used).await;
            echo(&pair()).await;
        });
        assert_eq!(rings().len(), 1);
    });
    assert_eq!((submitted(), rings().len()), before);

    // It drops what it has inherited. These sockets are not used here again: the epoll set is shared.
    let inherited = Cell::new(Some((used, dropped, runtime)));
    in_forked_child(|| drop(inherited.take()));
    assert_eq!((submitted(), rings().len()), before);
    let (_used, _dropped, runtime) = inherited.take().expect("the child has dropped its copy");
    runtime.block_on(async { echo(&pair()).await });
}
