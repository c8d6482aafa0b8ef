//! G1 and G11: batches that are larger than the queues of a ring, or than its memory for receives.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use tokio::runtime::Runtime;
use tokio_seqpacket::ancillary::AncillaryBuffer;
use tokio_seqpacket::{Options, UnixSeqpacket};

use crate::harness::descriptors::{base_line, descriptors, rings, submitted};
use crate::harness::messages::echoes;
use crate::harness::syscalls::{is_at_end, recv, send, would_block};
use crate::harness::waiting::{soon, until};
use crate::harness::{Need, Test};
use crate::refusal::become_user;
use crate::{current_thread, half, multi_thread, pair, parked};

pub fn tests() -> Vec<Test> {
    let mut tests = tests![[Need::Uring];
        a_batch_of_600_pairs_loses_nothing,
        batches_of_1200_pairs_on_two_workers_lose_nothing,
        messages_for_600_receives_that_are_parked_all_arrive,
        descriptors_of_messages_that_no_receive_claims_are_closed,
    ];
    tests.extend(tests![[Need::Uring, Need::Root, Need::CountedRings];
        a_small_ring_does_everything_with_32_submissions_at_a_time,
        small_rings_lose_nothing_on_two_workers,
        a_small_ring_closes_what_is_aborted_in_mid_batch,
    ]);
    tests
}

/// How many entries the submission queue of the only ring has.
fn submission_queue() -> u32 {
    let info =
        std::fs::read_to_string(format!("/proc/self/fdinfo/{}", rings()[0])).expect("a ring");
    let mask = info.lines().find_map(|line| line.strip_prefix("SqMask:")).expect("SqMask");
    1 + u32::from_str_radix(mask.trim().trim_start_matches("0x"), 16).expect("a number")
}

const ROUNDS: u32 = 4;

/// Every socket sends and receives at once: all sends and receives of a worker's tasks are one batch.
async fn all_pairs_at_once(count: u32) {
    let before = submitted();
    let tasks: Vec<_> = (0..count)
        .flat_map(|pair| {
            let (a, b) = crate::pair();
            let sending = tokio::spawn(async move {
                for round in 0..ROUNDS {
                    let message = [pair.to_ne_bytes(), round.to_ne_bytes()].concat();
                    assert_eq!(a.send(&message).await.expect("sent"), 8);
                }
                a
            });
            let receiving = tokio::spawn(async move {
                for round in 0..ROUNDS {
                    let mut message = [0; 16];
                    assert_eq!(b.recv(&mut message).await.expect("a message"), 8);
                    assert_eq!(message[..8], [pair.to_ne_bytes(), round.to_ne_bytes()].concat());
                }
                b
            });
            [sending, receiving]
        })
        .collect();
    for task in tasks {
        let socket = soon(task).await.expect("no panic");
        would_block(socket.try_recv(&mut [0]));
        std::mem::forget(socket);
    }
    let submitted = submitted() - before;
    assert!(submitted >= u64::from(2 * count), "only {submitted} went through a ring");
}

/// On a worker.
fn run(runtime: &Runtime, scene: impl Future<Output = ()> + Send + 'static) {
    runtime.block_on(runtime.spawn(scene)).expect("no panic");
}

fn a_batch_of_600_pairs_loses_nothing() {
    let runtime = current_thread();
    run(&runtime, all_pairs_at_once(600));
    assert_eq!(submission_queue(), 256);
}

fn batches_of_1200_pairs_on_two_workers_lose_nothing() {
    run(&multi_thread(2), all_pairs_at_once(1200));
}

/// All sockets receive and are parked, then all messages come while this thread runs no driver.
async fn all_messages_at_once(halves: &[(Arc<UnixSeqpacket>, OwnedFd)]) {
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
    parked(before + halves.len() as u64).await;
    for (number, (_, peer)) in halves.iter().enumerate() {
        send(peer, &number.to_ne_bytes()).expect("capacity");
    }
    for (number, receive) in receives.into_iter().enumerate() {
        assert_eq!(soon(receive).await.expect("no panic"), number.to_ne_bytes());
    }
    for (_, peer) in halves {
        would_block(recv(peer));
    }
}

fn messages_for_600_receives_that_are_parked_all_arrive() {
    for runtime in [current_thread(), multi_thread(2)] {
        run(&runtime, async {
            let halves: Vec<_> =
                (0..600).map(|_| half()).map(|(socket, peer)| (Arc::new(socket), peer)).collect();
            for _ in 0..3 {
                all_messages_at_once(&halves).await;
            }
            let (a, b) = pair();
            echoes(&a, &b, 100).await;
        });
    }
}

fn descriptors_of_messages_that_no_receive_claims_are_closed() {
    let base = base_line();
    let runtime = current_thread();
    run(&runtime, async {
        drop(pair());
        let base = descriptors().len();
        for steps in 0..6 {
            let before = submitted();
            let (sockets, peers): (Vec<_>, Vec<_>) = (0..100).map(|_| half()).unzip();
            for peer in &peers {
                send_fd(peer, b"with descriptors", peer.as_fd());
            }
            let receives: Vec<_> = sockets
                .into_iter()
                .map(|socket| {
                    tokio::spawn(async move {
                        let ancillary = AncillaryBuffer::new();
                        let (received, ..) =
                            socket.recv_owned_with_ancillary(vec![0; 16], ancillary).await;
                        assert_eq!(received.expect("a message").bytes_read(), 16);
                    })
                })
                .collect();
            // Queued, submitted, completed, or claimed.
            for _ in 0..steps {
                tokio::task::yield_now().await;
            }
            receives.iter().for_each(|receive| receive.abort());
            let mut claimed = 0;
            for receive in receives {
                claimed += usize::from(soon(receive).await.is_ok());
            }
            eprintln!("{steps} steps: {claimed} claimed, {} submitted", submitted() - before);
            for peer in &peers {
                assert!(is_at_end(peer));
            }
            drop(peers);
            assert!(descriptors().len() <= base, "{steps} steps: {:#?}", descriptors());
        }
    });
    drop(runtime);
    until("all descriptors are closed", || descriptors().len() <= base);
}

fn send_fd(peer: &OwnedFd, message: &[u8], fd: BorrowedFd<'_>) {
    let fds = [fd];
    let mut space = [MaybeUninit::uninit(); 64];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    rustix::net::sendmsg(peer, &[IoSlice::new(message)], &mut control, flags).expect("capacity");
}

/// With 16 KiB of locked memory there is a ring with 32 submissions and 64 completions, and no other.
const FOR_A_SMALL_RING: u64 = 16 << 10;

fn a_small_ring_does_everything_with_32_submissions_at_a_time() {
    become_user(Some(FOR_A_SMALL_RING));
    let runtime = current_thread();
    run(&runtime, async {
        all_pairs_at_once(150).await;
        let halves: Vec<_> =
            (0..100).map(|_| half()).map(|(socket, peer)| (Arc::new(socket), peer)).collect();
        all_messages_at_once(&halves).await;
        assert_eq!(submission_queue(), 32);
        let (a, _b) = Options::new().pair().expect("a pair");
        assert_eq!(a.backend(), tokio_seqpacket::Backend::Uring);
    });
}

fn small_rings_lose_nothing_on_two_workers() {
    become_user(Some(2 * FOR_A_SMALL_RING - 4096));
    run(&multi_thread(2), all_pairs_at_once(200));
}

fn a_small_ring_closes_what_is_aborted_in_mid_batch() {
    become_user(Some(FOR_A_SMALL_RING));
    let runtime = current_thread();
    run(&runtime, async {
        let echoing: Vec<_> = (0..50)
            .map(|_| {
                let (a, b) = pair();
                tokio::spawn(async move { echoes(&a, &b, 50).await })
            })
            .collect();
        for steps in 0..12 {
            let (sockets, peers): (Vec<_>, Vec<_>) = (0..100).map(|_| half()).unzip();
            let receives: Vec<_> = sockets
                .into_iter()
                .map(|socket| tokio::spawn(async move { drop(socket.recv(&mut [0; 16]).await) }))
                .collect();
            for _ in 0..steps {
                tokio::task::yield_now().await;
            }
            receives.iter().for_each(|receive| receive.abort());
            for receive in receives {
                let _ = soon(receive).await;
            }
            for peer in &peers {
                assert!(is_at_end(peer));
            }
        }
        for echo in echoing {
            soon(echo).await.expect("no panic");
        }
    });
}
