//! G12: a socket that is dropped closes at once, whatever waited in it. And sends to a peer that has
//! shut down one direction neither spin nor hang.

use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::thread;
use std::time::Duration;

use rustix::net::{RecvFlags, Shutdown};
use rustix::time::{ClockId, clock_gettime};
use tokio_seqpacket::UnixSeqpacket;
use tokio_test::task;

use crate::harness::call_variants::{self, Boxed, LETTERS, RecvBy, Room, SendBy};
use crate::harness::messages::fill;
use crate::harness::peer::Peer;
use crate::harness::waiting::{all, arm, arm_all, breathe, soon, starts_waiting};
use crate::harness::{Cell, Flavor, Test, alone, only};

pub fn tests() -> Vec<Test> {
    [
        only(
            &[Flavor::CurrentThread],
            blocking![
                a_socket_dropped_while_nothing_drives_its_runtime_ends_a_blocking_read,
                a_socket_dropped_on_another_thread_ends_a_blocking_read,
                a_socket_dropped_with_a_waiting_send_ends_a_blocking_read,
                a_socket_dropped_with_its_pending_receive_ends_a_blocking_read,
            ],
        ),
        // They measure the processor time of the process.
        alone(tasks![
            a_send_to_a_half_closed_peer_with_a_full_queue_waits_without_spinning,
            a_receive_from_a_peer_that_reads_no_more_waits_without_spinning,
        ]),
        tasks![
            a_send_to_a_half_closed_peer_completes_when_the_peer_reads,
            a_send_to_a_half_closed_peer_fails_when_the_peer_closes,
            sends_behind_one_to_a_half_closed_peer_keep_their_order,
            writable_for_a_half_closed_peer_waits_for_capacity,
            a_send_to_a_peer_that_shuts_down_while_it_waits_completes,
        ],
    ]
    .concat()
}

/// What was left waiting in the socket that is dropped.
const WAITED: [Waited; 5] =
    [Waited::Polled, Waited::Parked, Waited::Cancelled, Waited::Forgotten, Waited::Readable];

#[derive(Debug, Clone, Copy)]
enum Waited {
    /// A receive polled once, and dropped before the runtime ran.
    Polled,
    /// A receive that is parked, dropped just before its socket.
    Parked,
    /// A receive that was parked and dropped before the runtime ran last.
    Cancelled,
    Forgotten,
    Readable,
}

impl Waited {
    async fn in_socket(self, socket: &UnixSeqpacket, way: RecvBy) {
        let mut receive = task::spawn(call_variants::recv(way, socket, Room::AMPLE));
        match self {
            Self::Polled => starts_waiting(&mut receive),
            Self::Parked => arm(&mut receive).await,
            Self::Cancelled => {
                arm(&mut receive).await;
                drop(receive);
                breathe().await;
            }
            Self::Forgotten => {
                arm(&mut receive).await;
                std::mem::forget(receive);
            }
            Self::Readable => arm(&mut task::spawn(socket.readable())).await,
        }
    }
}

/// Reads to the end of the stream as a program that knows of no runtime does: blocked in recv(2).
#[track_caller]
fn reads_the_end(peer: &Peer, before: &str) {
    peer.set_blocking();
    let patience = Some(Duration::from_secs(2));
    rustix::net::sockopt::set_socket_timeout(
        &peer.fd,
        rustix::net::sockopt::Timeout::Recv,
        patience,
    )
    .expect("SO_RCVTIMEO");
    loop {
        let mut buffer = [0; 64];
        match rustix::net::recv(&peer.fd, &mut buffer, RecvFlags::empty()) {
            Ok((0, _)) => return,
            Ok(_) | Err(rustix::io::Errno::CONNRESET | rustix::io::Errno::INTR) => {}
            Err(error) => panic!("{before}: no end of the stream: {error}"),
        }
    }
}

/// A socket in which a receive of each kind has waited in each way, its peer, and what that was.
fn each_that_has_waited(cell: Cell, then: impl Fn(UnixSeqpacket, Peer, String)) {
    let runtime = cell.runtime();
    for waited in WAITED {
        for way in RecvBy::QUEUED {
            let (a, peer) = runtime.block_on(async {
                let (a, peer) = cell.half();
                waited.in_socket(&a, way).await;
                (a, peer)
            });
            then(a, peer, format!("{waited:?} {way:?}"));
        }
    }
}

fn a_socket_dropped_while_nothing_drives_its_runtime_ends_a_blocking_read(cell: Cell) {
    each_that_has_waited(cell, |a, peer, before| {
        drop(a);
        reads_the_end(&peer, &before);
    });
}

fn a_socket_dropped_on_another_thread_ends_a_blocking_read(cell: Cell) {
    each_that_has_waited(cell, |a, peer, before| {
        // This thread does nothing meanwhile.
        let reader = thread::spawn(move || {
            drop(a);
            reads_the_end(&peer, &before);
        });
        reader.join().unwrap();
    });
}

fn a_socket_dropped_with_a_waiting_send_ends_a_blocking_read(cell: Cell) {
    let runtime = cell.runtime();
    for way in SendBy::QUEUED {
        for armed in [false, true] {
            for elsewhere in [false, true] {
                let (a, peer) = runtime.block_on(async {
                    let (a, peer) = cell.half();
                    fill(&a);
                    let mut send = task::spawn(call_variants::send(way, &a, b"waiting", &[]));
                    starts_waiting(&mut send);
                    if armed {
                        arm(&mut send).await;
                    }
                    drop(send);
                    (a, peer)
                });
                if elsewhere {
                    thread::spawn(move || drop(a)).join().unwrap();
                } else {
                    drop(a);
                }
                reads_the_end(&peer, &format!("{way:?}"));
            }
        }
    }
}

fn a_socket_dropped_with_its_pending_receive_ends_a_blocking_read(cell: Cell) {
    let runtime = cell.runtime();
    for way in RecvBy::QUEUED {
        for elsewhere in [false, true] {
            let (receive, peer) = runtime.block_on(async {
                let (a, peer) = cell.half();
                let receive: Boxed<'static, io::Result<usize>> = Box::pin(async move {
                    call_variants::recv(way, &a, Room::AMPLE).await.map(|got| got.bytes.len())
                });
                let mut receive = task::spawn(receive);
                arm(&mut receive).await;
                (receive, peer)
            });
            if elsewhere {
                thread::spawn(move || drop(receive)).join().unwrap();
            } else {
                drop(receive);
            }
            reads_the_end(&peer, &format!("{way:?}"));
        }
    }
}

/// Processor time of this process.
fn processor_time() -> Duration {
    clock_gettime(ClockId::ProcessCPUTime).try_into().expect("a time of day")
}

/// Counts the polls of a future.
struct Counted<'a, T> {
    future: Boxed<'a, T>,
    polls: Arc<AtomicUsize>,
}

impl<T> Future for Counted<'_, T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        self.polls.fetch_add(1, Ordering::Relaxed);
        self.future.as_mut().poll(cx)
    }
}

/// Nothing happens for a while: it has to cost nothing.
async fn costs_nothing(polls: &AtomicUsize) {
    const WHILE: Duration = Duration::from_millis(100);
    breathe().await;
    let before = (processor_time(), polls.load(Ordering::Relaxed));
    tokio::time::sleep(WHILE).await;
    let spent = processor_time() - before.0;
    let polls = polls.load(Ordering::Relaxed) - before.1;
    assert!(spent < WHILE / 3, "{spent:?} of processor time in {WHILE:?}");
    assert!(polls < 50, "{polls} polls in {WHILE:?}");
}

fn shut_down(peer: &Peer, how: Shutdown) {
    rustix::net::shutdown(&peer.fd, how).expect("shutdown(2)");
}

/// The peer sends no more, and the queue of what is sent to it is full.
fn half_closed(cell: Cell) -> (UnixSeqpacket, Peer) {
    let (a, peer) = cell.half();
    fill(&a);
    shut_down(&peer, Shutdown::Write);
    (a, peer)
}

async fn a_send_to_a_half_closed_peer_with_a_full_queue_waits_without_spinning(cell: Cell) {
    for way in [SendBy::Plain, SendBy::Owned, SendBy::VectoredAncillary, SendBy::Poll] {
        let (a, peer) = half_closed(cell);
        let polls = Arc::<AtomicUsize>::default();
        let task = tokio::spawn({
            let polls = polls.clone();
            async move {
                let future = call_variants::send(way, &a, b"waiting", &[]);
                Counted { future, polls }.await.map(|_| ())
            }
        });
        costs_nothing(&polls).await;
        assert!(!task.is_finished(), "{way:?}: there is no capacity");
        peer.drain();
        soon(task).await.unwrap().unwrap();
        assert_eq!(peer.arrived(), [b"waiting"], "{way:?}");
    }
}

async fn a_receive_from_a_peer_that_reads_no_more_waits_without_spinning(cell: Cell) {
    for way in [RecvBy::Plain, RecvBy::OwnedAncillary, RecvBy::Poll] {
        let (a, peer) = cell.half();
        shut_down(&peer, Shutdown::Read);
        let polls = Arc::<AtomicUsize>::default();
        let task = tokio::spawn({
            let polls = polls.clone();
            async move {
                let future = call_variants::recv(way, &a, Room::AMPLE);
                Counted { future, polls }.await.map(|got| got.bytes)
            }
        });
        costs_nothing(&polls).await;
        assert!(!task.is_finished(), "{way:?}: there is no message");
        peer.send(b"message");
        assert_eq!(soon(task).await.unwrap().unwrap(), b"message", "{way:?}");
    }
}

async fn a_send_to_a_half_closed_peer_completes_when_the_peer_reads(cell: Cell) {
    for way in SendBy::QUEUED {
        for armed in [false, true] {
            let (a, peer) = half_closed(cell);
            let mut send = task::spawn(call_variants::send(way, &a, b"waiting", &[]));
            starts_waiting(&mut send);
            if armed {
                breathe().await;
            }
            peer.drain();
            assert_eq!(soon(send).await.unwrap(), 7, "{way:?}");
            assert_eq!(peer.arrived(), [b"waiting"], "{way:?}");
            // Our side sees the end of its stream, and sends on.
            let got = soon(call_variants::recv(RecvBy::Plain, &a, Room::AMPLE)).await.unwrap();
            assert_eq!(got.bytes, b"");
            soon(a.send(b"more")).await.unwrap();
            assert_eq!(peer.recv(), b"more");
        }
    }
}

fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset)
}

async fn a_send_to_a_half_closed_peer_fails_when_the_peer_closes(cell: Cell) {
    for way in SendBy::QUEUED {
        for armed in [false, true] {
            let (a, peer) = half_closed(cell);
            let mut send = task::spawn(call_variants::send(way, &a, b"waiting", &[]));
            starts_waiting(&mut send);
            if armed {
                breathe().await;
            }
            drop(peer);
            let error = soon(send).await.unwrap_err();
            assert!(is_gone(&error), "{way:?}: {error}");
        }
    }
}

async fn sends_behind_one_to_a_half_closed_peer_keep_their_order(cell: Cell) {
    let (a, peer) = half_closed(cell);
    let sends = call_variants::waiting_sends(&a);
    breathe().await;
    peer.drain();
    let sent = soon(all(sends)).await;
    assert!(sent.iter().all(Result::is_ok), "{sent:?}");
    assert_eq!(peer.arrived(), LETTERS);
}

async fn writable_for_a_half_closed_peer_waits_for_capacity(cell: Cell) {
    let (a, peer) = half_closed(cell);
    let mut send = task::spawn(call_variants::send(SendBy::Try, &a, b"message", &[]));
    starts_waiting(&mut send);
    breathe().await;
    peer.drain();
    assert_eq!(soon(send).await.unwrap(), 7);
    assert_eq!(peer.arrived(), [b"message"]);
}

async fn a_send_to_a_peer_that_shuts_down_while_it_waits_completes(cell: Cell) {
    let sockets: Vec<_> = SendBy::QUEUED.iter().map(|_| cell.half()).collect();
    let mut sends = Vec::new();
    for ((a, _), way) in sockets.iter().zip(SendBy::QUEUED) {
        fill(a);
        sends.push(task::spawn(call_variants::send(way, a, b"waiting", &[])));
    }
    arm_all(&mut sends).await;
    for (_, peer) in &sockets {
        shut_down(peer, Shutdown::Write);
    }
    breathe().await;
    for (n, (_, peer)) in sockets.iter().enumerate() {
        assert!(!sends[n].is_woken() || sends[n].poll().is_pending(), "there is no capacity");
        peer.drain();
    }
    assert!(soon(all(sends)).await.iter().all(Result::is_ok));
    for (a, peer) in sockets {
        assert_eq!(peer.arrived(), [b"waiting"]);
        // Taken away with everything that waited.
        drop(Peer::from(OwnedFd::from(a)));
        assert!(peer.try_send(b"late").is_err());
    }
}
