//! G9: `try_*`, `poll_*` and readiness beside calls that wait; shutdown; the halves.

use std::io::ErrorKind;
use std::net::Shutdown;
use std::sync::Arc;

use tokio::io::Interest;
use tokio_seqpacket::UnixSeqpacket;
use tokio_test::task;

use crate::harness::call_variants::{self, RecvBy, Room, SendBy};
use crate::harness::messages::{FILLER, fill, nothing_is_left, recv};
use crate::harness::peer::Peer;
use crate::harness::waiting::{
    all, arm, arm_all, breathe, once, soon, starts_waiting, until_woken,
};
use crate::harness::{Cell, Test};

pub fn tests() -> Vec<Test> {
    tasks![
        readable_waits_for_a_message_and_takes_nothing,
        writable_waits_for_capacity,
        ready_says_which_direction,
        all_waits_for_readiness_are_woken,
        try_recv_with_nothing_there_would_block,
        try_send_without_capacity_would_block,
        try_recv_takes_a_message_that_a_waiting_receive_has_not_taken,
        readable_completes_beside_a_waiting_receive,
        writable_waits_while_another_task_sends,
        ready_for_both_waits_for_the_first_direction_that_settles,
        poll_recv_is_woken_beside_a_receive_that_waits_or_is_dropped,
        poll_recv_and_a_later_receive_both_get_a_message,
        poll_send_waits_for_a_send_and_is_woken_when_it_settles,
        poll_ready_waits_and_wakes,
        readiness_futures_may_be_dropped,
        a_closed_peer_makes_ready,
        shutdown_of_reading_ends_waiting_receives,
        shutdown_of_writing_ends_waiting_sends_and_the_peers_stream,
        shutdown_leaves_the_other_direction_alone,
        the_async_fd_waits_for_raw_calls,
        halves_work_at_once,
        calls_work_through_an_exclusive_reference,
        wakers_may_use_the_socket,
    ]
}

async fn readable_waits_for_a_message_and_takes_nothing(cell: Cell) {
    let (a, peer) = cell.half();
    let mut readable = task::spawn(a.readable());
    arm(&mut readable).await;
    starts_waiting(&mut readable);
    peer.send(b"message");
    soon(readable).await.unwrap();
    soon(a.readable()).await.unwrap();
    let mut buffer = [0; 64];
    assert_eq!(a.try_recv(&mut buffer).unwrap(), 7);
    nothing_is_left(&a, &peer).await;
}

async fn writable_waits_for_capacity(cell: Cell) {
    let (a, peer) = cell.half();
    soon(a.writable()).await.unwrap();
    fill(&a);
    let mut writable = task::spawn(a.writable());
    arm(&mut writable).await;
    starts_waiting(&mut writable);
    peer.drain();
    soon(writable).await.unwrap();
    assert_eq!(a.try_send(b"message").unwrap(), 7);
    assert_eq!(peer.arrived(), [b"message"]);
}

async fn ready_says_which_direction(cell: Cell) {
    let both = Interest::READABLE | Interest::WRITABLE;
    let (a, peer) = cell.half();
    let ready = soon(a.ready(both)).await.unwrap();
    assert!(ready.is_writable() && !ready.is_readable(), "{ready:?}");
    fill(&a);
    peer.send(b"message");
    let ready = soon(async {
        // Readiness may be stale once.
        loop {
            let ready = a.ready(both).await.unwrap();
            if !ready.is_writable() || a.try_send(FILLER).is_ok() {
                return ready;
            }
        }
    })
    .await;
    assert!(ready.is_readable() && !ready.is_writable(), "{ready:?}");
    peer.drain();
    let ready = soon(a.ready(Interest::WRITABLE)).await.unwrap();
    assert!(ready.is_writable() && !ready.is_readable(), "{ready:?}");
    let ready = soon(a.ready(Interest::READABLE)).await.unwrap();
    assert!(ready.is_readable() && !ready.is_writable(), "{ready:?}");
}

async fn all_waits_for_readiness_are_woken(cell: Cell) {
    let (a, peer) = cell.half();
    let mut waiting: Vec<_> = (0..10).map(|_| task::spawn(a.readable())).collect();
    waiting.iter_mut().for_each(starts_waiting);
    peer.send(b"message");
    assert!(soon(all(waiting)).await.iter().all(Result::is_ok));
}

async fn try_recv_with_nothing_there_would_block(cell: Cell) {
    let (a, _peer) = cell.half();
    for _ in 0..2 {
        let errors = [
            a.try_recv(&mut [0; 1]).unwrap_err(),
            a.try_recv_vectored(&mut []).unwrap_err(),
            a.try_recv_vectored_with_ancillary(&mut [], &mut [0; 64]).unwrap_err(),
        ];
        assert!(errors.iter().all(|error| error.kind() == ErrorKind::WouldBlock), "{errors:?}");
        breathe().await;
    }
}

async fn try_send_without_capacity_would_block(cell: Cell) {
    let (a, peer) = cell.half();
    let filled = fill(&a);
    let mut control = [0; 64];
    let mut writer = tokio_seqpacket::ancillary::AncillaryMessageWriter::new(&mut control);
    let errors = [
        a.try_send(b"late").unwrap_err(),
        a.try_send_vectored(&[]).unwrap_err(),
        a.try_send_vectored_with_ancillary(&[], &mut writer).unwrap_err(),
    ];
    assert!(errors.iter().all(|error| error.kind() == ErrorKind::WouldBlock), "{errors:?}");
    breathe().await;
    assert_eq!(peer.everything().len(), filled);
}

async fn try_recv_takes_a_message_that_a_waiting_receive_has_not_taken(cell: Cell) {
    let (a, peer) = cell.half();
    for armed in [false, true] {
        let mut receive = task::spawn(call_variants::recv(RecvBy::Plain, &a, Room::AMPLE));
        starts_waiting(&mut receive);
        if armed {
            arm(&mut receive).await;
        }
        let refused = a.try_recv(&mut [0; 64]).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::WouldBlock);
        peer.send(b"first");
        let got = soon(call_variants::recv(RecvBy::Try, &a, Room::AMPLE)).await.unwrap();
        assert_eq!(got.bytes, b"first");
        peer.send(b"second");
        assert_eq!(soon(receive).await.unwrap().bytes, b"second");
    }
}

async fn readable_completes_beside_a_waiting_receive(cell: Cell) {
    let (a, peer) = cell.half();
    let mut receive = task::spawn(call_variants::recv(RecvBy::Plain, &a, Room::AMPLE));
    arm(&mut receive).await;
    let mut readable = task::spawn(a.readable());
    arm(&mut readable).await;
    peer.send(b"first");
    soon(readable).await.unwrap();
    assert_eq!(soon(receive).await.unwrap().bytes, b"first");
}

async fn writable_waits_while_another_task_sends(cell: Cell) {
    let (a, peer) = cell.half();
    fill(&a);
    let mut send = task::spawn(a.send(b"first"));
    arm(&mut send).await;
    let mut writable = task::spawn(a.writable());
    let mut polled = task::spawn(std::future::poll_fn(|cx| a.poll_send_ready(cx)));
    starts_waiting(&mut writable);
    arm(&mut polled).await;
    peer.drain();
    soon(send).await.unwrap();
    soon(writable).await.unwrap();
    soon(polled).await.unwrap();
    soon(call_variants::send(SendBy::Try, &a, b"second", &[])).await.unwrap();
    assert_eq!(peer.arrived(), [b"first".to_vec(), b"second".to_vec()]);
}

async fn ready_for_both_waits_for_the_first_direction_that_settles(cell: Cell) {
    let (a, peer) = cell.half();
    fill(&a);
    let mut send = task::spawn(a.send(b"first"));
    let mut receive = task::spawn(call_variants::recv(RecvBy::Plain, &a, Room::AMPLE));
    starts_waiting(&mut send);
    arm(&mut receive).await;
    let mut ready = task::spawn(a.ready(Interest::READABLE | Interest::WRITABLE));
    starts_waiting(&mut ready);
    peer.drain();
    soon(send).await.unwrap();
    let ready = soon(ready).await.unwrap();
    assert!(ready.is_writable() && !ready.is_readable(), "{ready:?}");
    starts_waiting(&mut receive);
}

async fn poll_recv_is_woken_beside_a_receive_that_waits_or_is_dropped(cell: Cell) {
    for dropped in [false, true] {
        let (a, peer) = cell.half();
        let mut receive = task::spawn(call_variants::recv(RecvBy::Owned, &a, Room::AMPLE));
        arm(&mut receive).await;
        let mut polled = task::spawn(call_variants::recv(RecvBy::Poll, &a, Room::AMPLE));
        arm(&mut polled).await;
        if dropped {
            drop(receive);
        } else {
            peer.send(b"first");
            assert_eq!(soon(receive).await.unwrap().bytes, b"first");
            starts_waiting(&mut polled);
        }
        peer.send(b"second");
        until_woken(&mut polled).await;
        assert_eq!(soon(polled).await.unwrap().bytes, b"second");
    }
}

async fn poll_recv_and_a_later_receive_both_get_a_message(cell: Cell) {
    let (a, peer) = cell.half();
    let mut polled = task::spawn(call_variants::recv(RecvBy::Poll, &a, Room::AMPLE));
    starts_waiting(&mut polled);
    let mut receive = task::spawn(call_variants::recv(RecvBy::Plain, &a, Room::AMPLE));
    arm(&mut receive).await;
    peer.send(b"x");
    peer.send(b"y");
    let (polled, receive) = soon(async { tokio::join!(polled, receive) }).await;
    let mut got = [polled.unwrap().bytes, receive.unwrap().bytes];
    got.sort();
    assert_eq!(got, [b"x", b"y"]);
}

async fn poll_send_waits_for_a_send_and_is_woken_when_it_settles(cell: Cell) {
    let (a, peer) = cell.half();
    fill(&a);
    let mut send = task::spawn(a.send_owned(b"first".to_vec()));
    arm(&mut send).await;
    let mut polled = task::spawn(call_variants::send(SendBy::PollVectored, &a, b"second", &[]));
    arm(&mut polled).await;
    drop(send);
    peer.drain();
    until_woken(&mut polled).await;
    assert_eq!(soon(polled).await.unwrap(), 6);
    let messages = peer.everything();
    assert_eq!(messages.last().unwrap(), b"second");
}

async fn poll_ready_waits_and_wakes(cell: Cell) {
    let (a, peer) = cell.half();
    assert!(soon(std::future::poll_fn(|cx| a.poll_send_ready(cx))).await.is_ok());
    let mut readable = task::spawn(std::future::poll_fn(|cx| a.poll_recv_ready(cx)));
    starts_waiting(&mut readable);
    peer.send(b"message");
    until_woken(&mut readable).await;
    soon(readable).await.unwrap();
    assert_eq!(a.try_recv(&mut [0; 64]).unwrap(), 7);

    fill(&a);
    let mut writable = task::spawn(std::future::poll_fn(|cx| a.poll_send_ready(cx)));
    starts_waiting(&mut writable);
    peer.drain();
    until_woken(&mut writable).await;
    soon(writable).await.unwrap();
    assert!(a.try_send(b"message").is_ok());
}

async fn readiness_futures_may_be_dropped(cell: Cell) {
    let (a, peer) = cell.half();
    fill(&a);
    for interest in
        [Interest::READABLE, Interest::WRITABLE, Interest::READABLE | Interest::WRITABLE]
    {
        let mut ready = task::spawn(a.ready(interest));
        starts_waiting(&mut ready);
        drop(ready);
    }
    peer.send(b"message");
    peer.drain();
    assert_eq!(recv(&a).await, b"message");
    soon(a.send(b"message")).await.unwrap();
    assert_eq!(peer.arrived(), [b"message"]);
}

async fn a_closed_peer_makes_ready(cell: Cell) {
    let (a, peer) = cell.half();
    fill(&a);
    let mut readable = task::spawn(a.readable());
    let mut writable = task::spawn(a.writable());
    starts_waiting(&mut readable);
    starts_waiting(&mut writable);
    peer.drain();
    drop(peer);
    soon(readable).await.unwrap();
    soon(writable).await.unwrap();
    let mut tries = 0;
    let len = loop {
        match a.try_recv(&mut [0; 64]) {
            Err(error) if error.kind() == ErrorKind::WouldBlock && tries < 1000 => {
                tries += 1;
                soon(a.readable()).await.unwrap();
            }
            result => break result.unwrap(),
        }
    };
    assert_eq!(len, 0);
    assert_eq!(a.try_send(b"late").unwrap_err().kind(), ErrorKind::BrokenPipe);
}

async fn shutdown_of_reading_ends_waiting_receives(cell: Cell) {
    let (a, _peer) = cell.half();
    let mut receives: Vec<_> = RecvBy::QUEUED
        .into_iter()
        .map(|way| task::spawn(call_variants::recv(way, &a, Room::AMPLE)))
        .collect();
    arm_all(&mut receives).await;
    a.shutdown(Shutdown::Read).unwrap();
    for got in soon(all(receives)).await {
        assert_eq!(got.unwrap().bytes, b"");
    }
    assert_eq!(recv(&a).await, b"");
}

async fn shutdown_of_writing_ends_waiting_sends_and_the_peers_stream(cell: Cell) {
    for how in [Shutdown::Write, Shutdown::Both] {
        let (a, peer) = cell.half();
        let filled = fill(&a);
        let mut sends: Vec<_> = SendBy::QUEUED
            .into_iter()
            .map(|way| task::spawn(call_variants::send(way, &a, b"late", &[])))
            .collect();
        arm_all(&mut sends).await;
        a.shutdown(how).unwrap();
        if how == Shutdown::Write {
            // The kernel does not call this writable before there is capacity (Both, it does).
            assert_eq!(peer.everything(), vec![FILLER; filled]);
        }
        for sent in soon(all(sends)).await {
            assert_eq!(sent.unwrap_err().kind(), ErrorKind::BrokenPipe);
        }
        for way in SendBy::ALL {
            let sent = soon(call_variants::send(way, &a, b"later", &[])).await;
            assert_eq!(sent.unwrap_err().kind(), ErrorKind::BrokenPipe, "{way:?}");
        }
        let left = if how == Shutdown::Write { 0 } else { filled };
        assert_eq!(peer.everything(), vec![FILLER; left]);
        assert!(peer.sees_end());
    }
}

async fn shutdown_leaves_the_other_direction_alone(cell: Cell) {
    let (a, b) = cell.pair();
    let mut receive = task::spawn(call_variants::recv(RecvBy::Plain, &a, Room::AMPLE));
    arm(&mut receive).await;
    a.shutdown(Shutdown::Write).unwrap();
    assert_eq!(recv(&b).await, b"");
    soon(b.send(b"still")).await.unwrap();
    assert_eq!(soon(receive).await.unwrap().bytes, b"still");
}

async fn the_async_fd_waits_for_raw_calls(cell: Cell) {
    let (a, peer) = cell.half();
    let fd = a.as_async_fd();
    let mut readable = task::spawn(fd.readable());
    starts_waiting(&mut readable);
    peer.send(b"message");
    let mut guard = soon(readable).await.unwrap();
    let received = guard.try_io(|fd| {
        Peer::from(std::os::fd::AsFd::as_fd(&fd.get_ref().as_fd()).try_clone_to_owned()?).try_recv()
    });
    assert_eq!(received.unwrap().unwrap(), b"message");
    drop(guard);
    soon(fd.writable()).await.unwrap().retain_ready();
    soon(a.send(b"answer")).await.unwrap();
    assert_eq!(peer.recv(), b"answer");
}

async fn halves_work_at_once(cell: Cell) {
    let (mut a, b) = cell.pair();
    let a = &mut a;
    let (reader, writer) = a.split();
    let (reader_too, writer_too) = (reader, writer);
    assert_eq!(reader.backend(), writer.backend());
    let receive = async {
        let mut buffer = [0; 16];
        let len = reader.recv(&mut buffer).await.unwrap();
        assert_eq!(&buffer[..len], b"to a");
        reader_too.recv(&mut buffer).await.unwrap()
    };
    let send = async {
        writer.send(b"to b").await.unwrap();
        assert_eq!(recv(&b).await, b"to b");
        b.send(b"to a").await.unwrap();
        writer_too.send(b"more").await.unwrap();
        b.send(b"to a too").await.unwrap();
    };
    let (len, ()) = soon(async { tokio::join!(receive, send) }).await;
    assert_eq!(len, 8);
}

async fn calls_work_through_an_exclusive_reference(cell: Cell) {
    async fn echo(socket: &mut UnixSeqpacket) {
        let mut buffer = [0; 64];
        let len = socket.recv(&mut buffer).await.unwrap();
        socket.send(&buffer[..len]).await.unwrap();
    }
    let (mut a, b) = cell.pair();
    soon(b.send(b"message")).await.unwrap();
    soon(echo(&mut a)).await;
    assert_eq!(recv(&b).await, b"message");
}

/// A waker that calls into the socket: no lock may be held across a wake.
struct Busy(Arc<UnixSeqpacket>);

impl std::task::Wake for Busy {
    fn wake(self: Arc<Self>) {
        let _ = self.0.try_recv(&mut [0; 64]);
        let _ = self.0.try_send(b"from a waker");
        let _ = once(|cx| self.0.poll_recv_ready(cx));
        let _ = once(|cx| self.0.poll_send_ready(cx));
        let mut receive = task::spawn(self.0.recv_owned(vec![0; 64]));
        let _ = receive.poll();
        drop(receive);
        let mut send = task::spawn(self.0.send_owned(b"from a waker".to_vec()));
        let _ = send.poll();
    }
}

async fn wakers_may_use_the_socket(cell: Cell) {
    let (a, peer) = cell.half();
    let a = Arc::new(a);
    let waker = std::task::Waker::from(Arc::new(Busy(a.clone())));
    let poll = |future: &mut std::pin::Pin<Box<dyn Future<Output = ()> + Send + '_>>| {
        future.as_mut().poll(&mut std::task::Context::from_waker(&waker)).is_ready()
    };
    for round in 0..12 {
        // Not always full: what a waker sent may not be complete yet.
        while a.try_send(FILLER).is_ok() {}
        // Two of each are queued: the first, served or dropped, wakes the second.
        let mut calls: Vec<std::pin::Pin<Box<dyn Future<Output = ()> + Send + '_>>> = vec![
            Box::pin(async { drop(a.recv(&mut [0; 64]).await) }),
            Box::pin(async { drop(a.send(b"send").await) }),
            Box::pin(async { drop(a.recv_owned(vec![0; 64]).await) }),
            Box::pin(async { drop(a.send_owned(b"send".to_vec()).await) }),
            Box::pin(async { drop(a.readable().await) }),
            Box::pin(async { drop(a.writable().await) }),
            Box::pin(std::future::poll_fn(|cx| a.poll_recv_ready(cx).map(drop))),
            Box::pin(std::future::poll_fn(|cx| a.poll_send_ready(cx).map(drop))),
        ];
        calls.retain_mut(|call| !poll(call));
        if round % 2 == 0 {
            breathe().await;
            calls.retain_mut(|call| !poll(call));
            breathe().await;
        }
        peer.send(b"one");
        peer.send(b"two");
        peer.drain();
        breathe().await;
        if round % 3 > 0 {
            calls.retain_mut(|call| !poll(call));
            breathe().await;
        }
        for call in calls {
            drop(call);
            if round % 4 == 0 {
                breathe().await;
            }
        }
        peer.drain();
    }
    // Whatever the wakers took and sent: it still works.
    soon(a.send(b"the end")).await.unwrap();
    soon(async { while peer.next().await.unwrap() != b"the end" {} }).await;
}
