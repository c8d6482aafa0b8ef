//! G1, G3, G8 and G13 of batches that own their messages.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use tokio_seqpacket::OwnedSendBatch;
use tokio_seqpacket::ancillary::AncillaryBuffer;
use tokio_test::task;

use crate::harness::descriptors::{content, file, traced};
use crate::harness::messages::fill;
use crate::harness::waiting::{arm, breathe, soon, starts_waiting, until_in_runtime};
use crate::harness::{Cell, Test};

pub fn tests() -> Vec<Test> {
    tasks![
        a_batch_goes_out_in_order_on_the_socket_that_is_given,
        a_batch_is_a_field_and_moves_between_tasks,
        a_batch_on_a_full_queue_waits_for_its_turn,
        a_dropped_send_leaves_the_rest_unsent_and_in_order,
        the_rest_of_a_dropped_send_can_go_to_another_socket,
        a_forgotten_send_sends_no_message_twice,
        a_batch_is_usable_after_a_message_that_panics_when_it_is_dropped,
        sends_that_are_dropped_while_the_peer_reads_count_each_message_once,
        an_error_names_the_limit_and_the_message_can_be_taken_out,
        descriptors_stay_open_until_their_message_is_taken_out,
        descriptors_of_a_dropped_send_close_with_the_batch,
        what_is_not_drained_keeps_its_descriptors,
        too_many_descriptors_are_refused_and_closed,
    ]
}

fn numbers(range: std::ops::Range<u8>) -> OwnedSendBatch<Vec<u8>> {
    let mut batch = OwnedSendBatch::new();
    range.for_each(|n| batch.push(vec![n]));
    batch
}

fn with(fd: OwnedFd) -> AncillaryBuffer {
    AncillaryBuffer::from_iter([fd])
}

async fn a_batch_goes_out_in_order_on_the_socket_that_is_given(cell: Cell) {
    let mut batch = OwnedSendBatch::new();
    for _ in 0..2 {
        let (a, peer) = cell.half();
        let messages: Vec<_> = (0..100u8).map(|n| vec![n; 1 + usize::from(n)]).collect();
        messages.iter().for_each(|message| batch.push(message.clone()));
        assert_eq!((batch.len(), batch.sent()), (100, 0));
        assert_eq!(soon(batch.send(&a)).await.unwrap(), 100);
        assert_eq!(soon(batch.send(&a)).await.unwrap(), 0);
        assert_eq!((batch.len(), batch.sent()), (100, 100));
        assert_eq!(peer.arrived(), messages);
        batch.clear();
        assert_eq!((batch.is_empty(), batch.sent()), (true, 0));
    }
}

async fn a_batch_is_a_field_and_moves_between_tasks(cell: Cell) {
    struct Writer<B> {
        socket: tokio_seqpacket::UnixSeqpacket,
        batch: OwnedSendBatch<B>,
    }
    let (a, peer) = cell.half();
    let mut writer = Writer { socket: a, batch: OwnedSendBatch::new() };
    writer.batch.push(Arc::<[u8]>::from(*b"one"));
    let sending = tokio::spawn(async move {
        writer.batch.send(&writer.socket).await.unwrap();
        writer.batch.push(Arc::<[u8]>::from(*b"two"));
        writer
    });
    let mut writer = soon(sending).await.unwrap();
    assert_eq!(soon(writer.batch.send(&writer.socket)).await.unwrap(), 1);
    assert_eq!(peer.arrived(), [b"one", b"two"]);
    #[cfg(feature = "bytes")]
    {
        let mut batch = OwnedSendBatch::new();
        batch.push(bytes::Bytes::from_static(b"three"));
        soon(tokio::spawn(async move { batch.send(&writer.socket).await })).await.unwrap().unwrap();
        assert_eq!(peer.arrived(), [b"three"]);
    }
}

async fn a_batch_on_a_full_queue_waits_for_its_turn(cell: Cell) {
    let (a, peer) = cell.half();
    fill(&a);
    let mut first = task::spawn(a.send(b"first"));
    arm(&mut first).await;
    let mut batch = numbers(0..2);
    let mut sending = task::spawn(batch.send(&a));
    arm(&mut sending).await;
    let mut last = task::spawn(a.send(b"last"));
    arm(&mut last).await;
    peer.drain();
    let (first, sent, last) = soon(async { tokio::join!(first, sending, last) }).await;
    first.unwrap();
    assert_eq!(sent.unwrap(), 2);
    last.unwrap();
    let arrived = peer.arrived();
    assert_eq!(arrived[..2], [&b"first"[..], &[0]]);
    // A batch is not one message: another send may come between two of its messages.
    let position = |what: &[u8]| arrived.iter().position(|message| message == what).unwrap();
    assert!(position(&[0]) < position(&[1]) && position(&[0]) < position(b"last"));
    assert_eq!(arrived.len(), 4);
}

async fn a_dropped_send_leaves_the_rest_unsent_and_in_order(cell: Cell) {
    for settled in [false, true] {
        let (a, peer) = cell.half();
        fill(&a);
        let mut batch = numbers(0..40);
        for _ in 0..3 {
            let mut sending = task::spawn(batch.send(&a));
            starts_waiting(&mut sending);
            if settled {
                breathe().await;
            }
            drop(sending);
            assert_eq!((batch.len(), batch.sent()), (40, 0));
        }
        // Nothing of it goes out by itself, and nothing of it holds up another send.
        peer.drain();
        breathe().await;
        assert_eq!(soon(a.send(b"another")).await.unwrap(), 7);
        assert_eq!(peer.arrived(), [b"another"]);
        assert_eq!(batch.sent(), 0);
        assert_eq!(soon(batch.send(&a)).await.unwrap(), 40);
        assert_eq!(peer.arrived(), (0..40).map(|n| vec![n]).collect::<Vec<_>>());
    }
}

async fn the_rest_of_a_dropped_send_can_go_to_another_socket(cell: Cell) {
    let ((a, first), (b, second)) = (cell.half(), cell.half());
    fill(&a);
    let mut batch = numbers(0..40);
    // Makes capacity for some.
    first.recv();
    first.recv();
    let mut sending = task::spawn(batch.send(&a));
    starts_waiting(&mut sending);
    drop(sending);
    let sent = batch.sent();
    assert!(sent < 40);
    drop(a);
    assert_eq!(soon(batch.send(&b)).await.unwrap(), 40 - sent);
    let arrived = [first.arrived(), second.arrived()].concat();
    assert_eq!(arrived, (0..40).map(|n| vec![n]).collect::<Vec<_>>());
}

async fn a_forgotten_send_sends_no_message_twice(cell: Cell) {
    for settled in [false, true] {
        let (a, peer) = cell.half();
        fill(&a);
        let mut batch = numbers(0..40);
        for forgotten in 1..=3 {
            let mut sending = task::spawn(batch.send(&a));
            starts_waiting(&mut sending);
            if settled {
                breathe().await;
            }
            std::mem::forget(sending);
            // It goes out by itself, in its turn.
            assert_eq!(batch.sent(), forgotten);
        }
        assert_eq!(batch.skip().unwrap().0, [3]);
        peer.drain();
        assert_eq!(soon(batch.send(&a)).await.unwrap(), 36);
        let expected: Vec<_> = (0..40).filter(|n| *n != 3).map(|n| vec![n]).collect();
        assert_eq!(peer.arrived(), expected);
    }
}

async fn a_batch_is_usable_after_a_message_that_panics_when_it_is_dropped(cell: Cell) {
    struct Fragile(bool);
    impl AsRef<[u8]> for Fragile {
        fn as_ref(&self) -> &[u8] {
            b"message"
        }
    }
    impl Drop for Fragile {
        fn drop(&mut self) {
            if std::mem::take(&mut self.0) {
                std::panic::resume_unwind(Box::new(()));
            }
        }
    }
    let (a, peer) = cell.half();
    let mut batch = OwnedSendBatch::new();
    batch.push(Fragile(true));
    batch.push(Fragile(false));
    assert_eq!(soon(batch.send(&a)).await.unwrap(), 2);
    let clear = std::panic::AssertUnwindSafe(|| batch.clear());
    assert!(std::panic::catch_unwind(clear).is_err());
    assert_eq!((batch.len(), batch.sent()), (0, 0));
    batch.push(Fragile(false));
    assert_eq!(soon(batch.send(&a)).await.unwrap(), 1);
    assert_eq!(peer.arrived().len(), 3);
}

async fn sends_that_are_dropped_while_the_peer_reads_count_each_message_once(cell: Cell) {
    const MESSAGES: usize = 400;
    for round in 0..20 {
        let (a, peer) = cell.half();
        a.set_send_buffer_size(4096).unwrap();
        let mut batch = OwnedSendBatch::new();
        (0..MESSAGES).for_each(|n| batch.push(n.to_ne_bytes()));
        let arrived = Arc::new(AtomicUsize::new(0));
        let counted = arrived.clone();
        let reader = thread::spawn(move || {
            loop {
                match peer.try_recv() {
                    Ok(message) if message.is_empty() => return,
                    Ok(message) => {
                        let before = counted.fetch_add(1, Ordering::Relaxed);
                        assert_eq!(message, before.to_ne_bytes(), "once and in order");
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        thread::sleep(Duration::from_micros(20));
                    }
                    Err(error) => panic!("{error}"),
                }
            }
        });
        for _ in 0..1 + round % 3 {
            let _ = tokio::time::timeout(Duration::from_micros(round * 30), batch.send(&a)).await;
            let sent = batch.sent();
            until_in_runtime("all that was sent", || arrived.load(Ordering::Relaxed) >= sent).await;
            breathe().await;
            assert_eq!((arrived.load(Ordering::Relaxed), batch.sent()), (sent, sent));
        }
        let sent = batch.sent();
        assert_eq!(soon(batch.send(&a)).await.unwrap(), MESSAGES - sent);
        drop(a);
        tokio::task::spawn_blocking(|| reader.join().unwrap()).await.unwrap();
        assert_eq!(arrived.load(Ordering::Relaxed), MESSAGES);
    }
}

async fn an_error_names_the_limit_and_the_message_can_be_taken_out(cell: Cell) {
    let (a, peer) = cell.half();
    let mut batch = numbers(0..2);
    let (trace, fd) = traced();
    batch.push_with_ancillary(vec![7; 8 << 20], with(fd)).unwrap();
    batch.push(vec![3]);
    let error = soon(batch.send(&a)).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    assert!(error.to_string().contains("8388608"), "{error}");
    assert_eq!((batch.len(), batch.sent(), peer.arrived().len()), (4, 2, 2));
    let (refused, ancillary) = batch.skip().expect("not sent");
    assert_eq!((refused.len(), ancillary.fds().len()), (8 << 20, 1));
    assert!(trace.is_open());
    drop(ancillary);
    soon(trace.closed()).await;
    assert_eq!(soon(batch.send(&a)).await.unwrap(), 1);
    assert_eq!((batch.len(), batch.sent(), peer.recv()), (3, 3, vec![3]));
    assert!(batch.skip().is_none(), "all were sent");

    // The error of a message that has waited is about the same message.
    fill(&a);
    batch.push(vec![4]);
    let mut sending = task::spawn(batch.send(&a));
    arm(&mut sending).await;
    drop(peer);
    let error = soon(sending).await.unwrap_err();
    assert!(
        matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset),
        "{error}"
    );
    assert_eq!((batch.len(), batch.sent()), (4, 3));
    assert_eq!(batch.skip().unwrap().0, [4]);
}

async fn descriptors_stay_open_until_their_message_is_taken_out(cell: Cell) {
    for way in ["drain_sent", "clear", "drop"] {
        for full in [false, true] {
            let (a, peer) = cell.half();
            let mut batch = OwnedSendBatch::new();
            let (trace, fd) = traced();
            batch.push_with_ancillary("a pipe", with(fd)).unwrap();
            if full {
                fill(&a);
                let mut sending = task::spawn(batch.send(&a));
                arm(&mut sending).await;
                peer.drain();
                soon(sending).await.unwrap();
            } else {
                soon(batch.send(&a)).await.unwrap();
            }
            // Closes the peer's duplicate.
            assert_eq!(peer.arrived(), [b"a pipe"]);
            assert!(trace.is_open(), "{way}: that of the batch");
            match way {
                "drain_sent" => assert_eq!(batch.drain_sent().len(), 1),
                "clear" => batch.clear(),
                _ => drop(std::mem::take(&mut batch)),
            }
            soon(trace.closed()).await;
            assert!(batch.is_empty());
        }
    }
}

async fn descriptors_of_a_dropped_send_close_with_the_batch(cell: Cell) {
    let (a, peer) = cell.half();
    fill(&a);
    let mut batch = OwnedSendBatch::new();
    let (trace, fd) = traced();
    batch.push_with_ancillary("never sent", with(fd)).unwrap();
    let mut sending = task::spawn(batch.send(&a));
    arm(&mut sending).await;
    drop(sending);
    assert!(trace.is_open(), "the batch has it");
    drop(batch);
    soon(trace.closed()).await;
    assert!(peer.arrived().is_empty());
}

async fn what_is_not_drained_keeps_its_descriptors(cell: Cell) {
    let (a, peer) = cell.half();
    let mut batch = OwnedSendBatch::new();
    let mut fds_of = Vec::new();
    for n in 0..12 {
        // Some without, so that the control data of the others moves.
        let count = n % 3;
        let fds = (0..count).map(|at| file(&format!("{n}/{at}"))).collect();
        batch.push_with_ancillary(vec![n], fds).unwrap();
        fds_of.push((0..count).map(|at| format!("{n}/{at}")).collect::<Vec<_>>());
        if n % 5 == 4 {
            soon(batch.send(&a)).await.unwrap();
        } else if n % 5 == 1 {
            let sent = batch.sent();
            let drained = batch.drain_sent();
            assert_eq!(drained.len(), sent);
            drop(drained);
            assert_eq!((batch.len(), batch.sent()), (2, 0));
        }
    }
    soon(batch.send(&a)).await.unwrap();
    for (n, expected) in fds_of.iter().enumerate() {
        let (bytes, fds) = peer.try_recv_fds().unwrap();
        assert_eq!(bytes, [n as u8]);
        assert_eq!(fds.iter().map(content).collect::<Vec<_>>(), *expected);
    }
}

async fn too_many_descriptors_are_refused_and_closed(_: Cell) {
    let mut batch = OwnedSendBatch::new();
    let (trace, fd) = traced();
    let fds: Vec<OwnedFd> = (0..254).map(|_| fd.try_clone().unwrap()).collect();
    drop(fd);
    let error = batch.push_with_ancillary("", fds.into_iter().collect()).unwrap_err();
    assert_eq!((error.kind(), batch.len()), (io::ErrorKind::InvalidInput, 0));
    assert!(error.to_string().contains("253"), "{error}");
    soon(trace.closed()).await;
}
