//! G2 and G7: a message that is peeked at stays, wherever it lies, and no waiter loses its turn.

use std::io::{ErrorKind, IoSliceMut};
use std::task::Poll;

use tokio_seqpacket::ancillary::AncillaryBuffer;
use tokio_test::task;

use crate::harness::descriptors::{content, file};
use crate::harness::messages::recv;
use crate::harness::waiting::{arm, breathe, once, soon, starts_waiting, until_woken};
use crate::harness::{Cell, Test};

pub fn tests() -> Vec<Test> {
    tasks![
        a_message_that_was_peeked_at_is_still_received,
        a_message_left_by_a_dropped_receive_is_peeked_at,
        ancillary_data_stays_with_a_message_that_was_peeked_at,
        a_peek_returns_the_length_of_a_truncated_message,
        a_peek_waits_for_a_message_and_then_for_other_receives,
        a_peek_dropped_loses_nothing,
        a_polled_peek_is_woken,
        a_peek_sees_the_end,
        a_reset_is_reported_to_a_peek_once,
    ]
}

async fn a_message_that_was_peeked_at_is_still_received(cell: Cell) {
    let (a, peer) = cell.half();
    let mut buffer = [0; 16];
    assert_eq!(a.try_peek(&mut buffer).unwrap_err().kind(), ErrorKind::WouldBlock);
    peer.send(b"first");
    peer.send(b"second");
    for _ in 0..3 {
        let info = soon(a.peek(&mut buffer)).await.unwrap();
        assert_eq!((info.bytes_read(), info.message_len()), (5, 5));
        assert_eq!(&buffer[..5], b"first");
        assert!(!info.ancillary_truncated() && info.end_of_stream() == Some(false));
        assert_eq!(a.try_peek(&mut buffer).unwrap(), info);
    }
    let (mut front, mut back) = ([0; 2], [0; 16]);
    let mut parts = [IoSliceMut::new(&mut front), IoSliceMut::new(&mut back)];
    assert_eq!(soon(a.peek_vectored(&mut parts)).await.unwrap().bytes_read(), 5);
    assert_eq!((&front, &back[..3]), (b"fi", &b"rst"[..]));
    assert_eq!(recv(&a).await, b"first");
    assert_eq!(recv(&a).await, b"second");
    assert_eq!(a.try_peek(&mut buffer).unwrap_err().kind(), ErrorKind::WouldBlock);
}

async fn a_message_left_by_a_dropped_receive_is_peeked_at(cell: Cell) {
    let cell = cell.keeping_ancillary();
    let (a, peer) = cell.half();
    let fds = [file("passed")];
    for owned in [false, true] {
        let mut buffer = [0; 16];
        if owned {
            let mut receive = task::spawn(a.recv_owned(Vec::with_capacity(3)));
            arm(&mut receive).await;
            peer.send_fds(b"left behind", &fds);
            breathe().await;
        } else {
            let mut receive = task::spawn(a.recv(&mut buffer));
            arm(&mut receive).await;
            peer.send_fds(b"left behind", &fds);
            breathe().await;
        }
        peer.send(b"next");
        for _ in 0..2 {
            let info = soon(a.peek(&mut buffer)).await.unwrap();
            assert_eq!((info.bytes_read(), info.message_len()), (11, 11));
            assert_eq!(&buffer[..11], b"left behind");
            assert!(info.ancillary_truncated(), "there is a descriptor");
        }
        let info = a.try_peek(&mut buffer[..4]).unwrap();
        assert!((info.bytes_read(), info.message_len()) == (4, 11) && info.truncated());
        let (info, bytes, ancillary) =
            soon(a.recv_owned_with_ancillary(Vec::with_capacity(64), AncillaryBuffer::new())).await;
        assert!(!info.unwrap().ancillary_truncated());
        assert_eq!(bytes, b"left behind");
        assert_eq!(content(&ancillary.fds()[0]), "passed");
        assert_eq!(recv(&a).await, b"next");
    }
}

async fn ancillary_data_stays_with_a_message_that_was_peeked_at(cell: Cell) {
    let (a, peer) = cell.half();
    peer.send_fds(b"message", &[file("passed")]);
    assert!(soon(a.peek(&mut [0; 16])).await.unwrap().ancillary_truncated());
    let (info, _, ancillary) =
        soon(a.recv_owned_with_ancillary(Vec::with_capacity(64), AncillaryBuffer::new())).await;
    assert!(!info.unwrap().ancillary_truncated());
    assert_eq!(content(&ancillary.fds()[0]), "passed");
}

async fn a_peek_returns_the_length_of_a_truncated_message(cell: Cell) {
    let (a, peer) = cell.half();
    let message = vec![7; 100_000];
    peer.send(&message);
    let len = soon(a.peek(&mut [])).await.unwrap().message_len();
    assert_eq!(len, message.len());
    let (info, bytes) = soon(a.recv_owned(Vec::with_capacity(len))).await;
    assert!(!info.unwrap().truncated());
    assert_eq!(bytes, message);
}

async fn a_peek_waits_for_a_message_and_then_for_other_receives(cell: Cell) {
    let (a, peer) = cell.half();
    let (mut bytes, mut buffer) = ([0; 16], [0; 16]);
    let mut receive = task::spawn(a.recv(&mut bytes));
    arm(&mut receive).await;
    let mut peek = task::spawn(a.peek(&mut buffer));
    starts_waiting(&mut peek);
    assert_eq!(a.try_peek(&mut [0; 4]).unwrap_err().kind(), ErrorKind::WouldBlock);
    peer.send(b"for the receive");
    assert_eq!(soon(&mut receive).await.unwrap(), 15);
    drop(receive);
    breathe().await;
    if peek.is_woken() {
        starts_waiting(&mut peek);
    }
    peer.send(b"for both");
    assert_eq!(soon(peek).await.unwrap().bytes_read(), 8);
    assert_eq!(&buffer[..8], b"for both");
    assert_eq!(recv(&a).await, b"for both");
}

async fn a_peek_dropped_loses_nothing(cell: Cell) {
    let (a, peer) = cell.half();
    let mut buffer = [0; 16];
    let mut peek = task::spawn(a.peek(&mut buffer));
    arm(&mut peek).await;
    peer.send(b"message");
    until_woken(&mut peek).await;
    drop(peek);
    assert_eq!(recv(&a).await, b"message");
}

async fn a_polled_peek_is_woken(cell: Cell) {
    let (a, peer) = cell.half();
    let mut buffer = [0; 16];
    let mut peek = task::spawn(std::future::poll_fn(|cx| a.poll_peek(cx, &mut buffer)));
    starts_waiting(&mut peek);
    breathe().await;
    if peek.is_woken() {
        starts_waiting(&mut peek);
    }
    peer.send(b"message");
    until_woken(&mut peek).await;
    assert_eq!(soon(peek).await.unwrap().bytes_read(), 7);
    assert!(matches!(once(|cx| a.poll_peek(cx, &mut buffer)), Poll::Ready(Ok(_))));
    assert_eq!(recv(&a).await, b"message");
}

async fn a_peek_sees_the_end(cell: Cell) {
    let (a, peer) = cell.half();
    a.set_pass_credentials(true).unwrap();
    peer.send(b"");
    let info = soon(a.peek(&mut [0; 4])).await.unwrap();
    assert_eq!((info.message_len(), info.end_of_stream()), (0, Some(false)));
    assert_eq!(recv(&a).await, b"");
    drop(peer);
    for _ in 0..2 {
        let info = soon(a.peek(&mut [0; 4])).await.unwrap();
        assert_eq!((info.message_len(), info.end_of_stream()), (0, Some(true)));
    }
}

async fn a_reset_is_reported_to_a_peek_once(cell: Cell) {
    let (a, peer) = cell.half();
    a.send(b"unread").await.unwrap();
    peer.send(b"message");
    drop(peer);
    let error = soon(a.peek(&mut [0; 16])).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert_eq!(soon(a.peek(&mut [0; 16])).await.unwrap().bytes_read(), 7);
    assert_eq!(recv(&a).await, b"message");
    assert_eq!(recv(&a).await, b"");
}
