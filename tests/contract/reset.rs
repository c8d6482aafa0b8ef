//! G6 and G7: how a connection ends.

use std::io::{self, ErrorKind};

use tokio_seqpacket::UnixSeqpacket;
use tokio_test::task;

use crate::harness::call_variants::{self, RecvBy, Room, SendBy};
use crate::harness::messages::{FILLER, escaped, fill};
use crate::harness::peer::Peer;
use crate::harness::waiting::{
    all, all_served, arm, arm_all, breathe, once, soon, starts_waiting, until_woken,
};
use crate::harness::{Cell, Test};

pub fn tests() -> Vec<Test> {
    tasks![
        end_of_stream_comes_after_all_messages_and_again,
        a_reset_comes_once_and_queued_messages_are_delivered,
        a_reset_reaches_a_waiting_receive_and_then_comes_end_of_stream,
        a_reset_for_a_dropped_receive_is_reported_once,
        a_reset_with_several_waiting_receives_is_reported_once,
        end_of_stream_reaches_all_waiting_receives,
        a_reset_while_several_sends_go_out_is_reported,
        sending_to_a_closed_peer_is_a_broken_pipe,
        a_peer_that_closes_ends_waiting_sends,
        an_empty_message_is_not_the_end,
    ]
}

/// Receive to the end. Returns the messages, and how often ECONNRESET was reported.
async fn to_the_end(socket: &UnixSeqpacket, way: RecvBy) -> (Vec<Vec<u8>>, usize) {
    let (mut messages, mut resets) = (Vec::new(), 0);
    loop {
        match soon(call_variants::recv(way, socket, Room::AMPLE)).await {
            Ok(got) if got.bytes.is_empty() => break,
            Ok(got) => messages.push(got.bytes),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{way:?}: {error}");
                resets += 1;
                assert!(resets < 10, "{way:?}: reset again and again");
            }
        }
    }
    for way in RecvBy::ALL {
        assert_eq!(soon(call_variants::recv(way, socket, Room::AMPLE)).await.unwrap().bytes, b"");
    }
    (messages, resets)
}

async fn end_of_stream_comes_after_all_messages_and_again(cell: Cell) {
    for way in RecvBy::ALL {
        let (a, peer) = cell.half();
        peer.send(b"one");
        peer.send(b"two");
        drop(peer);
        let (messages, resets) = to_the_end(&a, way).await;
        assert_eq!((messages, resets), (vec![b"one".to_vec(), b"two".to_vec()], 0), "{way:?}");
    }
}

async fn a_reset_comes_once_and_queued_messages_are_delivered(cell: Cell) {
    for way in RecvBy::ALL {
        let (a, peer) = cell.half();
        peer.send(b"one");
        peer.send(b"two");
        peer.send(b"three");
        soon(a.send(b"never read")).await.unwrap();
        drop(peer);
        let (messages, resets) = to_the_end(&a, way).await;
        assert_eq!(messages, [b"one".to_vec(), b"two".to_vec(), b"three".to_vec()], "{way:?}");
        assert_eq!(resets, 1, "{way:?}");
    }
}

async fn a_reset_reaches_a_waiting_receive_and_then_comes_end_of_stream(cell: Cell) {
    for way in RecvBy::ALL {
        let (a, peer) = cell.half();
        soon(a.send(b"never read")).await.unwrap();
        let mut receive = task::spawn(call_variants::recv(way, &a, Room::AMPLE));
        arm(&mut receive).await;
        drop(peer);
        let error = soon(receive).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{way:?}");
        assert_eq!(to_the_end(&a, way).await, (vec![], 0), "{way:?}");
    }
}

async fn a_reset_for_a_dropped_receive_is_reported_once(cell: Cell) {
    for way in RecvBy::ALL {
        for (armed, completed, queued) in [
            (false, false, false),
            (true, false, false),
            (true, true, false),
            (true, false, true),
            (true, true, true),
        ] {
            let (a, peer) = cell.half();
            soon(a.send(b"never read")).await.unwrap();
            let mut receive = task::spawn(call_variants::recv(RecvBy::Owned, &a, Room::TIGHT));
            starts_waiting(&mut receive);
            if armed {
                arm(&mut receive).await;
            }
            if queued {
                peer.send(b"one");
                peer.send(b"two");
            }
            drop(peer);
            if completed {
                until_woken(&mut receive).await;
            }
            drop(receive);
            let (messages, resets) = to_the_end(&a, way).await;
            let expected = if queued { vec![b"one".to_vec(), b"two".to_vec()] } else { vec![] };
            assert_eq!(messages, expected, "{way:?}");
            assert_eq!(resets, 1, "{way:?}, {armed}, {completed}, {queued}");
        }
    }
}

async fn a_reset_with_several_waiting_receives_is_reported_once(cell: Cell) {
    let (a, peer) = cell.half();
    soon(a.send(b"never read")).await.unwrap();
    let mut receives: Vec<_> = RecvBy::QUEUED
        .into_iter()
        .map(|way| task::spawn(call_variants::recv(way, &a, Room::AMPLE)))
        .collect();
    arm_all(&mut receives).await;
    peer.send(b"one");
    peer.send(b"two");
    drop(peer);
    let got = soon(all_served(cell, receives)).await;
    let resets = got.iter().filter(|got| got.is_err()).count();
    let messages: Vec<_> = got.into_iter().flatten().map(|got| got.bytes).collect();
    assert_eq!(resets, 1);
    let expected = [&b"one"[..], b"two", b"", b"", b"", b"", b""];
    assert_eq!(messages, expected, "{:?}", escaped(&messages));
}

/// The kernel reports it once, to the send or receive that comes first. `sendmmsg(2)` keeps it to itself if an earlier
/// message of the same call went out: then the connection seems to end cleanly.
async fn a_reset_while_several_sends_go_out_is_reported(cell: Cell) {
    const TRIALS: u32 = 1500;
    let (tx, rx) = std::sync::mpsc::channel();
    let closing = std::thread::spawn(move || {
        for (peer, spins) in rx {
            (0..spins).for_each(|_| std::hint::spin_loop());
            drop::<Peer>(peer);
        }
    });
    for trial in 0..TRIALS {
        let (a, peer) = cell.half();
        a.send(b"never read").await.unwrap();
        tx.send((peer, trial % 1200)).unwrap();
        let sends =
            (0..8).map(|_| task::spawn(call_variants::send(SendBy::Plain, &a, &[1; 4000], &[])));
        let sent = soon(all(sends.collect())).await;
        let mut reset = sent
            .iter()
            .flat_map(|sent| sent.as_ref().err())
            .any(|error| error.kind() == ErrorKind::ConnectionReset);
        // The kernel sets the end and the reset one after the other: a receive in between sees only the end.
        for _ in 0..4 {
            let received = soon(call_variants::recv(RecvBy::Plain, &a, Room::AMPLE)).await;
            reset |= received.is_err_and(|error| error.kind() == ErrorKind::ConnectionReset);
        }
        assert!(reset, "trial {trial}: {sent:?}");
    }
    drop(tx);
    closing.join().unwrap();
}

async fn end_of_stream_reaches_all_waiting_receives(cell: Cell) {
    let (a, b) = cell.pair();
    let mut receives: Vec<_> = RecvBy::QUEUED
        .into_iter()
        .map(|way| task::spawn(call_variants::recv(way, &a, Room::AMPLE)))
        .collect();
    arm_all(&mut receives).await;
    drop(b);
    for got in soon(all(receives)).await {
        assert_eq!(got.unwrap().bytes, b"");
    }
}

async fn sending_to_a_closed_peer_is_a_broken_pipe(cell: Cell) {
    let (a, peer) = cell.half();
    drop(peer);
    for way in SendBy::ALL {
        let error = soon(call_variants::send(way, &a, b"late", &[])).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BrokenPipe, "{way:?}");
    }
}

async fn a_peer_that_closes_ends_waiting_sends(cell: Cell) {
    for read in [false, true] {
        let (a, peer) = cell.half();
        fill(&a);
        let mut sends: Vec<_> = SendBy::QUEUED
            .into_iter()
            .map(|way| task::spawn(call_variants::send(way, &a, b"waiting", &[])))
            .collect();
        arm_all(&mut sends).await;
        if read {
            // Not enough capacity for any send.
            assert_eq!(peer.recv(), FILLER);
        }
        drop(peer);
        let errors: Vec<io::Error> =
            soon(all(sends)).await.into_iter().map(|sent| sent.unwrap_err()).collect();
        let resets =
            errors.iter().filter(|error| error.kind() == ErrorKind::ConnectionReset).count();
        let broken = errors.iter().filter(|error| error.kind() == ErrorKind::BrokenPipe).count();
        assert!(resets <= 1 && resets + broken == errors.len(), "{errors:?}");
        // The reset was taken by a send, or is still there for a receive.
        let (messages, more) = to_the_end(&a, RecvBy::Plain).await;
        assert_eq!((messages.len(), resets + more), (0, 1));
    }
}

async fn an_empty_message_is_not_the_end(cell: Cell) {
    for way in RecvBy::ALL {
        let (a, peer) = cell.half();
        let mut receive = task::spawn(call_variants::recv(way, &a, Room::AMPLE));
        arm(&mut receive).await;
        peer.send(b"");
        assert_eq!(soon(receive).await.unwrap().bytes, b"");
        // Nothing to receive: end of stream would be there at once.
        breathe().await;
        assert!(once(|cx| a.poll_recv(cx, &mut [0; 8])).is_pending());
        peer.send(b"after");
        assert_eq!(soon(call_variants::recv(way, &a, Room::AMPLE)).await.unwrap().bytes, b"after");
    }
}
