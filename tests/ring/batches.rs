//! More completions than the queue holds, while nobody reaps.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use tokio::runtime::Runtime;
use tokio_seqpacket::{Options, UnixSeqpacket};

use crate::refusal::{RING, become_user, forbid};
use crate::trials::{Need, Test, descriptors, rings, submitted, until};
use crate::{armed, current_thread, echoes, half, multi_thread, pair, send, soon};

pub fn tests() -> Vec<Test> {
    let mut tests = tests![&[Need::Uring];
        completions_beyond_the_queue_are_all_seen,
        completions_beyond_the_queues_of_two_workers_are_all_seen,
        descriptors_of_completions_that_nobody_sees_are_closed,
    ];
    tests.extend(tests![&[Need::Uring, Need::Root];
        a_small_ring_does_everything_with_32_submissions_at_a_time,
        a_small_ring_loses_no_completion_beyond_its_64,
        small_rings_lose_no_completion_on_two_workers,
    ]);
    tests
}

/// Completions that wait in the kernel for room in the queue, of all rings.
fn overflown() -> usize {
    let field = |number: &u32| {
        let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{number}")).ok()?;
        let (_, list) = info.split_once("CqOverflowList:")?;
        Some(list.lines().filter(|line| line.contains("user_data")).count())
    };
    rings().iter().filter_map(field).sum()
}

/// All sockets receive, and all messages come while this thread, which has submitted for them, does
/// not reap. How many completions did not fit.
async fn all_at_once(halves: &[(Arc<UnixSeqpacket>, OwnedFd)]) -> usize {
    let before = submitted();
    let receives: Vec<_> = halves
        .iter()
        .map(|(socket, _)| {
            let socket = socket.clone();
            tokio::spawn(async move {
                let (received, message) = socket.recv_owned(vec![0; 16]).await;
                message[..received.expect("a message").bytes_read()].to_vec()
            })
        })
        .collect();
    armed(before + halves.len() as u64).await;
    for (number, (_, peer)) in halves.iter().enumerate() {
        send(peer, &number.to_ne_bytes()).expect("room");
    }
    let overflown = overflown();
    for (number, receive) in receives.into_iter().enumerate() {
        assert_eq!(soon(receive).await.expect("no panic"), number.to_ne_bytes());
    }
    for (_, peer) in halves {
        crate::would_block(crate::recv(peer));
    }
    overflown
}

fn overflow(runtime: &Runtime, count: usize) -> usize {
    let scene = async move {
        let halves: Vec<_> =
            (0..count).map(|_| half()).map(|(socket, peer)| (Arc::new(socket), peer)).collect();
        let overflown = all_at_once(&halves).await;
        // The ring is as good as before.
        let (a, b) = pair();
        echoes(&a, &b, 100).await;
        overflown
    };
    let handle = runtime.handle().clone();
    runtime.block_on(async move { handle.spawn(scene).await }).expect("no panic")
}

fn completions_beyond_the_queue_are_all_seen() {
    let overflown = overflow(&current_thread(), 600);
    assert!(overflown >= 600 - 512, "{overflown} overflown");
}

fn completions_beyond_the_queues_of_two_workers_are_all_seen() {
    overflow(&multi_thread(2), 1200);
}

fn descriptors_of_completions_that_nobody_sees_are_closed() {
    let base = crate::base_line();
    let runtime = current_thread();
    let scene = async {
        let before = submitted();
        let (sockets, peers): (Vec<_>, Vec<_>) = (0..600).map(|_| half()).unzip();
        let receives: Vec<_> = sockets
            .into_iter()
            .map(|socket| tokio::spawn(async move { socket.recv(&mut [0; 16]).await }))
            .collect();
        armed(before + 600).await;
        for peer in &peers {
            send_fd(peer, b"with a descriptor", peer.as_fd());
        }
        let overflown = overflown();
        assert!(overflown >= 600 - 512, "{overflown} overflown");
        forbid(&RING, libc::EPERM);
        let mut failed = 0;
        for receive in receives {
            if let Err(error) = soon(receive).await.expect("no panic") {
                assert!(error.to_string().contains("io_uring"), "{error}");
                failed += 1;
            }
        }
        assert_eq!(failed, overflown);
    };
    let handle = runtime.handle().clone();
    runtime.block_on(async move { handle.spawn(scene).await }).expect("no panic");
    drop(runtime);
    until("all descriptors are closed", || {
        // Whoever asks for a ring looks after the remains of others.
        current_thread().block_on(async { drop(Options::new().pair()) });
        descriptors().len() <= base
    });
}

fn send_fd(peer: &OwnedFd, message: &[u8], fd: BorrowedFd<'_>) {
    let fds = [fd];
    let mut room = [MaybeUninit::uninit(); 64];
    let mut control = SendAncillaryBuffer::new(&mut room);
    assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    rustix::net::sendmsg(peer, &[IoSlice::new(message)], &mut control, flags).expect("room");
}

/// With 16 KiB of locked memory there is a ring with 32 submissions and 64 completions, and no other.
const FOR_A_SMALL_RING: u64 = 16 << 10;

fn a_small_ring_does_everything_with_32_submissions_at_a_time() {
    become_user(Some(FOR_A_SMALL_RING));
    let runtime = current_thread();
    runtime.block_on(async {
        let before = submitted();
        let sockets: Vec<_> = (0..200).map(|_| pair()).collect();
        let tasks: Vec<_> = sockets
            .into_iter()
            .map(|(a, b)| tokio::spawn(async move { echoes(&a, &b, 20).await }))
            .collect();
        // And cancels, as many at once.
        let halves: Vec<_> = (0..200).map(|_| half()).collect();
        let (sockets, peers): (Vec<_>, Vec<_>) = halves.into_iter().unzip();
        let receives: Vec<_> = sockets
            .into_iter()
            .map(|socket| tokio::spawn(async move { drop(socket.recv(&mut [0; 16]).await) }))
            .collect();
        armed(before + 200).await;
        receives.iter().for_each(|receive| receive.abort());
        for receive in receives {
            let _ = soon(receive).await;
        }
        for peer in &peers {
            soon(async {
                while !crate::is_at_end(peer) {
                    tokio::task::yield_now().await;
                }
            })
            .await;
        }
        for task in tasks {
            task.await.expect("no panic");
        }
    });
}

fn a_small_ring_loses_no_completion_beyond_its_64() {
    become_user(Some(FOR_A_SMALL_RING));
    let overflown = overflow(&current_thread(), 300);
    assert!(overflown >= 300 - 64, "{overflown} overflown");
}

fn small_rings_lose_no_completion_on_two_workers() {
    become_user(Some(2 * FOR_A_SMALL_RING - 4096));
    overflow(&multi_thread(2), 600);
}
