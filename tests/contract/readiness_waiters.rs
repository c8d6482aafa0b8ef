//! G9: readiness where one direction is in use. It neither spins nor loses a wake-up to a receive or send that waits on the
//! same socket, and needs no free descriptor.

use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;

use tokio::io::{Interest, Ready};
use tokio_seqpacket::{MessagesOptions, UnixSeqpacket};
use tokio_test::task::{self, Spawn};

use crate::harness::call_variants::{self, Boxed, RecvBy, Room, SendBy};
use crate::harness::descriptors::Full;
use crate::harness::messages::{FILLER, fill, recv};
use crate::harness::peer::Peer;
use crate::harness::waiting::{arm, breathe, soon, starts_waiting, until_woken};
use crate::harness::{Cell, Test, alone};

pub fn tests() -> Vec<Test> {
    [
        // One that spins takes its process along.
        alone(tasks![
            ready_for_both_is_writable_while_a_receive_waits,
            ready_for_both_is_readable_while_a_send_waits,
            ready_for_both_lets_a_receive_run_that_was_just_given_a_message,
            ready_for_both_lets_a_send_run_that_just_got_capacity,
            ready_for_both_waits_without_spinning_while_a_send_waits,
            ready_for_both_waits_without_spinning_while_both_directions_are_in_use,
            ready_for_both_does_not_spin_beside_a_receive_that_is_not_polled,
            ready_for_both_does_not_spin_beside_a_send_that_is_not_polled,
            ready_for_both_in_a_loop_leaves_other_tasks_alive,
            the_first_readiness_call_without_a_free_descriptor_finds_the_message,
            the_first_readiness_call_without_a_free_descriptor_finds_capacity,
        ]),
        tasks![
            poll_recv_ready_keeps_its_wake_up_beside_a_waiting_receive,
            poll_peek_keeps_its_wake_up_beside_a_waiting_receive,
            poll_recv_keeps_its_wake_up_beside_a_waiting_receive,
            poll_send_ready_keeps_its_wake_up_beside_a_waiting_send,
            poll_send_keeps_its_wake_up_beside_a_waiting_send,
            a_waiting_receive_keeps_its_wake_up_beside_polls,
            a_waiting_send_keeps_its_wake_up_beside_polls,
            a_stream_dropped_with_messages_left_wakes_readable_and_poll_recv,
            a_message_wakes_readable_and_poll_recv,
            a_forgotten_readiness_future_leaves_the_socket_convertible,
        ],
    ]
    .concat()
}

const BOTH: Interest = Interest::READABLE.add(Interest::WRITABLE);

/// Counts the polls of a future.
struct Counted<F> {
    future: F,
    polls: Arc<AtomicUsize>,
}

impl<F: Future + Unpin> Future for Counted<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> Poll<F::Output> {
        self.polls.fetch_add(1, Ordering::Relaxed);
        Pin::new(&mut self.future).poll(cx)
    }
}

/// `ready(BOTH)` in a task of its own, and how often it is polled there.
struct Asking {
    task: tokio::task::JoinHandle<std::io::Result<Ready>>,
    polls: Arc<AtomicUsize>,
}

impl Asking {
    fn new(socket: &Arc<UnixSeqpacket>) -> Self {
        let (socket, polls) = (socket.clone(), Arc::<AtomicUsize>::default());
        let future: Boxed<'static, _> = Box::pin(async move {
            loop {
                let ready = socket.ready(BOTH).await?;
                // Readiness may be stale: then `WouldBlock` corrects it.
                if !ready.is_writable() || socket.try_send(FILLER).is_ok() {
                    return Ok(ready);
                }
            }
        });
        let task = tokio::spawn(Counted { future, polls: polls.clone() });
        Self { task, polls }
    }

    /// Still waits after a while, in which it was polled a few times at most.
    async fn waits(&self) {
        self.does_not_spin().await;
        assert!(!self.task.is_finished(), "nothing is ready");
    }

    async fn does_not_spin(&self) {
        let before = self.polls.load(Ordering::Relaxed);
        for _ in 0..10 {
            breathe().await;
        }
        let polls = self.polls.load(Ordering::Relaxed) - before;
        assert!(polls < 100, "polled {polls} times while nothing happened");
    }

    #[track_caller]
    fn says(self, expected: Ready) -> impl Future<Output = ()> {
        let ready = soon(self.task);
        async move { assert_eq!(ready.await.unwrap().unwrap(), expected) }
    }
}

/// A receive in a task of its own, which has come to wait.
async fn receiving(socket: &Arc<UnixSeqpacket>) -> tokio::task::JoinHandle<Vec<u8>> {
    let socket = socket.clone();
    let task = tokio::spawn(async move { recv(&socket).await });
    breathe().await;
    assert!(!task.is_finished());
    task
}

/// A send in a task of its own, which has come to wait for capacity.
async fn sending(socket: &Arc<UnixSeqpacket>) -> tokio::task::JoinHandle<std::io::Result<usize>> {
    let socket = socket.clone();
    let task = tokio::spawn(async move { socket.send(b"waiting").await });
    breathe().await;
    assert!(!task.is_finished());
    task
}

fn shared_half(cell: Cell) -> (Arc<UnixSeqpacket>, Peer) {
    let (a, peer) = cell.half();
    (Arc::new(a), peer)
}

/// Known for readiness, with what it caches of it.
async fn registered(cell: Cell) -> (Arc<UnixSeqpacket>, Peer) {
    let (a, peer) = shared_half(cell);
    soon(a.ready(BOTH)).await.unwrap();
    (a, peer)
}

async fn ready_for_both_is_writable_while_a_receive_waits(cell: Cell) {
    for (a, peer) in [shared_half(cell), registered(cell).await] {
        let receive = receiving(&a).await;
        Asking::new(&a).says(Ready::WRITABLE).await;
        peer.send(b"message");
        assert_eq!(soon(receive).await.unwrap(), b"message");
    }
}

async fn ready_for_both_is_readable_while_a_send_waits(cell: Cell) {
    for (a, peer) in [shared_half(cell), registered(cell).await] {
        fill(&a);
        let send = sending(&a).await;
        peer.send(b"message");
        Asking::new(&a).says(Ready::READABLE).await;
        assert_eq!(recv(&a).await, b"message");
        peer.drain();
        soon(send).await.unwrap().unwrap();
    }
}

async fn ready_for_both_lets_a_receive_run_that_was_just_given_a_message(cell: Cell) {
    for (a, peer) in [shared_half(cell), registered(cell).await] {
        let receive = receiving(&a).await;
        fill(&a);
        let ready = Asking::new(&a);
        ready.waits().await;
        // Readable, but the message is for the receive.
        peer.send(b"message");
        assert_eq!(soon(receive).await.unwrap(), b"message");
        peer.drain();
        let ready = soon(ready.task).await.unwrap().unwrap();
        assert!(!ready.is_empty());
    }
}

async fn ready_for_both_lets_a_send_run_that_just_got_capacity(cell: Cell) {
    for (a, peer) in [shared_half(cell), registered(cell).await] {
        fill(&a);
        let send = sending(&a).await;
        peer.drain();
        // At once: the send has not run yet.
        soon(a.ready(BOTH)).await.unwrap();
        soon(send).await.unwrap().unwrap();
        assert_eq!(peer.arrived(), [b"waiting"]);
    }
}

async fn ready_for_both_waits_without_spinning_while_a_send_waits(cell: Cell) {
    for (a, peer) in [shared_half(cell), registered(cell).await] {
        fill(&a);
        let send = sending(&a).await;
        let ready = Asking::new(&a);
        ready.waits().await;
        peer.send(b"message");
        ready.says(Ready::READABLE).await;
        peer.drain();
        soon(send).await.unwrap().unwrap();
    }
}

async fn ready_for_both_waits_without_spinning_while_both_directions_are_in_use(cell: Cell) {
    for (a, peer) in [shared_half(cell), registered(cell).await] {
        fill(&a);
        let (receive, send) = (receiving(&a).await, sending(&a).await);
        let ready = Asking::new(&a);
        ready.waits().await;
        peer.drain();
        soon(send).await.unwrap().unwrap();
        assert!(soon(ready.task).await.unwrap().unwrap().is_writable());
        peer.send(b"message");
        assert_eq!(soon(receive).await.unwrap(), b"message");
    }
}

async fn ready_for_both_does_not_spin_beside_a_receive_that_is_not_polled(cell: Cell) {
    for (a, peer) in [shared_half(cell), registered(cell).await] {
        fill(&a);
        let mut receive = task::spawn(call_variants::recv(RecvBy::Plain, &a, Room::AMPLE));
        starts_waiting(&mut receive);
        breathe().await;
        let ready = Asking::new(&a);
        breathe().await;
        peer.send(b"message");
        breathe().await;
        // Whether it says READABLE or leaves the message to the receive: it must not spin.
        ready.does_not_spin().await;
        assert_eq!(soon(receive).await.unwrap().bytes, b"message");
        peer.drain();
        soon(ready.task).await.unwrap().unwrap();
    }
}

async fn ready_for_both_does_not_spin_beside_a_send_that_is_not_polled(cell: Cell) {
    for (a, peer) in [shared_half(cell), registered(cell).await] {
        fill(&a);
        let mut send = task::spawn(call_variants::send(SendBy::Plain, &a, b"waiting", &[]));
        starts_waiting(&mut send);
        breathe().await;
        let ready = Asking::new(&a);
        breathe().await;
        peer.drain();
        breathe().await;
        ready.does_not_spin().await;
        soon(send).await.unwrap();
        assert!(soon(ready.task).await.unwrap().unwrap().is_writable());
        assert_eq!(peer.arrived(), [b"waiting"]);
    }
}

async fn ready_for_both_in_a_loop_leaves_other_tasks_alive(cell: Cell) {
    let (a, peer) = shared_half(cell);
    // Both directions are in use now and then, by tasks that have to get their turns.
    let receiver = tokio::spawn({
        let a = a.clone();
        async move {
            for n in 0..200u8 {
                assert_eq!(recv(&a).await, [n]);
            }
        }
    });
    let sender = tokio::spawn({
        let a = a.clone();
        async move {
            for n in 0..2000u32 {
                a.send(&n.to_ne_bytes()).await.unwrap();
            }
        }
    });
    let asking = tokio::spawn(async move {
        loop {
            a.ready(BOTH).await.unwrap();
        }
    });
    for n in 0..200u8 {
        peer.send(&[n]);
        peer.drain();
        tokio::task::yield_now().await;
    }
    soon(receiver).await.unwrap();
    soon(async {
        while !sender.is_finished() {
            peer.drain();
            tokio::task::yield_now().await;
        }
    })
    .await;
    let sent: Vec<_> = (0..2000u32).map(|n| n.to_ne_bytes().to_vec()).collect();
    assert_eq!(peer.everything(), sent);
    asking.abort();
}

async fn the_first_readiness_call_without_a_free_descriptor_finds_the_message(cell: Cell) {
    let halves: Vec<_> = (0..5).map(|_| cell.half()).collect();
    halves.iter().for_each(|(_, peer)| peer.send(b"message"));
    let full = Full::new();
    soon(halves[0].0.readable()).await.unwrap();
    assert!(soon(halves[1].0.ready(Interest::READABLE)).await.unwrap().is_readable());
    soon(halves[2].0.ready(BOTH)).await.unwrap();
    soon(std::future::poll_fn(|cx| halves[3].0.poll_recv_ready(cx))).await.unwrap();
    let mut buffer = [0; 16];
    let info = soon(std::future::poll_fn(|cx| halves[4].0.poll_peek(cx, &mut buffer))).await;
    assert_eq!(info.unwrap().bytes_read(), 7);
    for (a, _) in &halves {
        assert_eq!(a.try_recv(&mut buffer).unwrap(), 7);
    }
    drop(full);
}

async fn the_first_readiness_call_without_a_free_descriptor_finds_capacity(cell: Cell) {
    let halves: Vec<_> = (0..4).map(|_| cell.half()).collect();
    let full = Full::new();
    soon(halves[0].0.writable()).await.unwrap();
    assert!(soon(halves[1].0.ready(Interest::WRITABLE)).await.unwrap().is_writable());
    assert!(soon(halves[2].0.ready(BOTH)).await.unwrap().is_writable());
    soon(std::future::poll_fn(|cx| halves[3].0.poll_send_ready(cx))).await.unwrap();
    for (a, peer) in &halves {
        assert_eq!(a.try_send(b"message").unwrap(), 7);
        assert_eq!(peer.recv(), b"message");
    }
    drop(full);
}

/// The output of a future that is polled only when it has been woken.
#[track_caller]
fn woken<F: Future>(task: &mut Spawn<F>) -> impl Future<Output = F::Output> {
    soon(async move {
        loop {
            if task.is_woken()
                && let Poll::Ready(output) = task.poll()
            {
                return output;
            }
            tokio::task::yield_now().await;
        }
    })
}

/// A `poll_*` call comes to wait before a receive or behind it. The receive gets a message. The poll
/// is woken for the next one, without another event.
async fn beside_a_receive<F>(cell: Cell, poll: F)
where
    F: for<'a> Fn(&'a UnixSeqpacket) -> Boxed<'a, ()>,
{
    for way in [RecvBy::Plain, RecvBy::Owned, RecvBy::VectoredAncillary] {
        for poll_first in [false, true] {
            for settled in [false, true] {
                let (a, peer) = cell.half();
                let mut polled = task::spawn(poll(&a));
                let mut receive = task::spawn(call_variants::recv(way, &a, Room::AMPLE));
                if poll_first {
                    starts_waiting(&mut polled);
                    starts_waiting(&mut receive);
                } else {
                    starts_waiting(&mut receive);
                    starts_waiting(&mut polled);
                }
                if settled {
                    arm(&mut receive).await;
                }
                peer.send(b"first");
                let first = woken(&mut receive).await.unwrap();
                assert_eq!(first.bytes, b"first", "{way:?}");
                // Woken for nothing, perhaps: then it waits again.
                if polled.is_woken() {
                    starts_waiting(&mut polled);
                }
                peer.send(b"second");
                woken(&mut polled).await;
            }
        }
    }
}

async fn poll_recv_ready_keeps_its_wake_up_beside_a_waiting_receive(cell: Cell) {
    beside_a_receive(cell, |a| {
        Box::pin(async {
            // Readiness may be stale: then `WouldBlock` corrects it.
            loop {
                std::future::poll_fn(|cx| a.poll_recv_ready(cx)).await.unwrap();
                if a.try_recv(&mut [0; 16]).is_ok() {
                    return;
                }
            }
        })
    })
    .await;
}

async fn poll_peek_keeps_its_wake_up_beside_a_waiting_receive(cell: Cell) {
    beside_a_receive(cell, |a| {
        Box::pin(async {
            let mut buffer = [0; 16];
            let info = std::future::poll_fn(|cx| a.poll_peek(cx, &mut buffer)).await.unwrap();
            assert_eq!(&buffer[..info.bytes_read()], b"second");
        })
    })
    .await;
}

async fn poll_recv_keeps_its_wake_up_beside_a_waiting_receive(cell: Cell) {
    beside_a_receive(cell, |a| {
        Box::pin(async {
            let mut buffer = [0; 16];
            std::future::poll_fn(|cx| a.poll_recv(cx, &mut buffer)).await.unwrap();
            assert_eq!(&buffer[..6], b"second");
        })
    })
    .await;
}

/// As [`beside_a_receive`]: the peer frees capacity, for the send and for what polls.
async fn beside_a_send<F>(cell: Cell, poll: F)
where
    F: for<'a> Fn(&'a UnixSeqpacket) -> Boxed<'a, ()>,
{
    for way in [SendBy::Plain, SendBy::Owned, SendBy::VectoredAncillary] {
        for poll_first in [false, true] {
            for settled in [false, true] {
                let (a, peer) = cell.half();
                fill(&a);
                let mut polled = task::spawn(poll(&a));
                let mut send = task::spawn(call_variants::send(way, &a, b"first", &[]));
                if poll_first {
                    starts_waiting(&mut polled);
                    starts_waiting(&mut send);
                } else {
                    starts_waiting(&mut send);
                    starts_waiting(&mut polled);
                }
                if settled {
                    arm(&mut send).await;
                }
                peer.drain();
                assert_eq!(woken(&mut send).await.unwrap(), 5, "{way:?}");
                woken(&mut polled).await;
            }
        }
    }
}

async fn poll_send_ready_keeps_its_wake_up_beside_a_waiting_send(cell: Cell) {
    beside_a_send(cell, |a| {
        Box::pin(async {
            loop {
                std::future::poll_fn(|cx| a.poll_send_ready(cx)).await.unwrap();
                if a.try_send(b"polled").is_ok() {
                    return;
                }
            }
        })
    })
    .await;
}

async fn poll_send_keeps_its_wake_up_beside_a_waiting_send(cell: Cell) {
    beside_a_send(cell, |a| {
        Box::pin(async {
            std::future::poll_fn(|cx| a.poll_send(cx, b"polled")).await.unwrap();
        })
    })
    .await;
}

async fn a_waiting_receive_keeps_its_wake_up_beside_polls(cell: Cell) {
    for way in RecvBy::QUEUED {
        let (a, peer) = cell.half();
        let mut receive = task::spawn(call_variants::recv(way, &a, Room::AMPLE));
        arm(&mut receive).await;
        let mut ready = task::spawn(std::future::poll_fn(|cx| a.poll_recv_ready(cx)));
        let mut buffer = [0; 16];
        let mut peek = task::spawn(std::future::poll_fn(|cx| a.poll_peek(cx, &mut buffer)));
        for _ in 0..3 {
            starts_waiting(&mut ready);
            starts_waiting(&mut peek);
        }
        peer.send(b"message");
        assert_eq!(woken(&mut receive).await.unwrap().bytes, b"message", "{way:?}");
    }
}

async fn a_waiting_send_keeps_its_wake_up_beside_polls(cell: Cell) {
    for way in SendBy::QUEUED {
        let (a, peer) = cell.half();
        fill(&a);
        let mut send = task::spawn(call_variants::send(way, &a, b"message", &[]));
        arm(&mut send).await;
        let mut ready = task::spawn(std::future::poll_fn(|cx| a.poll_send_ready(cx)));
        for _ in 0..3 {
            starts_waiting(&mut ready);
        }
        peer.drain();
        assert_eq!(woken(&mut send).await.unwrap(), 7, "{way:?}");
        assert_eq!(peer.arrived(), [b"message"], "{way:?}");
    }
}

async fn a_stream_dropped_with_messages_left_wakes_readable_and_poll_recv(cell: Cell) {
    for readable_first in [false, true] {
        let (a, peer) = cell.half();
        for n in 0..100u8 {
            peer.send(&[n]);
        }
        let mut messages = a.messages(MessagesOptions::new()).unwrap();
        // It receives more at a time the more there are.
        while messages.next_buffered().is_none() {
            soon(messages.next()).await.unwrap().unwrap();
        }
        let mut readable = task::spawn(a.readable());
        let mut polled = task::spawn(call_variants::recv(RecvBy::Poll, &a, Room::AMPLE));
        if readable_first {
            starts_waiting(&mut readable);
            starts_waiting(&mut polled);
        } else {
            starts_waiting(&mut polled);
            starts_waiting(&mut readable);
        }
        drop(messages);
        until_woken(&mut readable).await;
        until_woken(&mut polled).await;
        woken(&mut polled).await.unwrap();
        woken(&mut readable).await.unwrap();
        recv(&a).await;
    }
}

async fn a_message_wakes_readable_and_poll_recv(cell: Cell) {
    let (a, peer) = cell.half();
    for readable_first in [false, true] {
        let mut readable = task::spawn(a.readable());
        let mut polled = task::spawn(std::future::poll_fn(|cx| a.poll_recv_ready(cx)));
        if readable_first {
            starts_waiting(&mut readable);
            starts_waiting(&mut polled);
        } else {
            starts_waiting(&mut polled);
            starts_waiting(&mut readable);
        }
        peer.send(b"message");
        woken(&mut readable).await.unwrap();
        woken(&mut polled).await.unwrap();
        assert_eq!(recv(&a).await, b"message");
        let refused = a.try_recv(&mut [0; 16]).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::WouldBlock);
    }
}

async fn a_forgotten_readiness_future_leaves_the_socket_convertible(cell: Cell) {
    for interest in [Interest::READABLE, Interest::WRITABLE, BOTH] {
        for settled in [false, true] {
            let (a, peer) = cell.half();
            fill(&a);
            let mut ready = Box::new(task::spawn(a.ready(interest)));
            starts_waiting(&mut ready);
            if settled {
                breathe().await;
            }
            std::mem::forget(ready);
            let fd = Peer::from(OwnedFd::from(a));
            peer.send(b"to the descriptor");
            assert_eq!(fd.recv(), b"to the descriptor");
            peer.drain();
            fd.send(b"from the descriptor");
            assert_eq!(peer.recv(), b"from the descriptor");
        }
    }
}
