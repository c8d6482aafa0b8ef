//! G5 and G6: what is reported of a message is decided when it is received. Options that change before or after have no
//! effect on it.

use std::io::IoSliceMut;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rustix::net::sockopt;
use tokio_seqpacket::ancillary::AncillaryBuffer;
use tokio_seqpacket::{MessageInfo, MessagesOptions, UnixSeqpacket};
use tokio_test::task;

use crate::harness::descriptors::file;
use crate::harness::peer::Peer;
use crate::harness::waiting::{arm, breathe, soon};
use crate::harness::{Cell, Test};

pub fn tests() -> Vec<Test> {
    tasks![
        an_option_switched_on_behind_an_empty_message_says_nothing_of_it,
        an_option_that_a_duplicate_switches_says_nothing_of_what_came_before,
        an_option_that_changes_all_the_time_makes_no_empty_message_the_end,
        an_option_switched_on_while_a_receive_waits_counts,
        the_time_that_a_stream_asks_for_reaches_no_other_call,
        a_stream_takes_no_capacity_from_a_receive_that_waits,
        an_empty_message_of_a_stream_is_none_of_doubt,
    ]
}

async fn info_of(a: &UnixSeqpacket) -> MessageInfo {
    let received = a.recv_owned_with_ancillary(Vec::with_capacity(8), AncillaryBuffer::new());
    soon(received).await.0.unwrap()
}

/// Has an empty message, the last, taken by a receive that is dropped; on a ring it lies in the library then.
async fn leaves_an_empty_message(a: &UnixSeqpacket, peer: Peer) {
    let received = a.recv_owned_with_ancillary(Vec::with_capacity(8), AncillaryBuffer::new());
    let mut receive = task::spawn(received);
    arm(&mut receive).await;
    peer.send(b"");
    drop(peer);
    breathe().await;
}

/// The empty message is none that ends the stream, and the end comes behind it.
async fn assert_no_end_yet(a: &UnixSeqpacket) {
    let peeked = a.try_peek(&mut [0; 8]).unwrap();
    assert_ne!(peeked.end_of_stream(), Some(true), "peeked");
    let first = info_of(a).await;
    assert_eq!(first.message_len(), 0);
    assert_ne!(first.end_of_stream(), Some(true));
    let mut ends = Vec::new();
    while ends.len() < 3 && ends.last() != Some(&Some(true)) {
        ends.push(info_of(a).await.end_of_stream());
    }
    assert_eq!(ends.last(), Some(&Some(true)), "{ends:?}");
    assert!(!ends.contains(&Some(false)), "{ends:?}");
}

async fn an_option_switched_on_behind_an_empty_message_says_nothing_of_it(cell: Cell) {
    for was_on in [false, true] {
        let (a, peer) = cell.half();
        a.set_pass_credentials(was_on).unwrap();
        a.set_pass_credentials(false).unwrap();
        leaves_an_empty_message(&a, peer).await;
        a.set_pass_credentials(true).unwrap();
        assert_no_end_yet(&a).await;
    }
}

async fn an_option_that_a_duplicate_switches_says_nothing_of_what_came_before(cell: Cell) {
    for was_on in [false, true] {
        let (a, peer) = cell.half();
        let duplicate: OwnedFd = a.as_fd().try_clone_to_owned().unwrap();
        a.set_pass_credentials(was_on).unwrap();
        sockopt::set_socket_passcred(&duplicate, false).unwrap();
        leaves_an_empty_message(&a, peer).await;
        sockopt::set_socket_passcred(&duplicate, true).unwrap();
        assert_no_end_yet(&a).await;
    }
}

async fn an_option_that_changes_all_the_time_makes_no_empty_message_the_end(cell: Cell) {
    for round in 0..40 {
        let (a, peer) = cell.half();
        let a = Arc::new(a);
        let (stop, changes) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let toggling = std::thread::spawn({
            let (a, stop, changes) = (a.clone(), stop.clone(), changes.clone());
            move || {
                while !stop.load(Ordering::Relaxed) {
                    for on in [true, false] {
                        a.set_pass_credentials(on).unwrap();
                        changes.fetch_add(1, Ordering::Release);
                    }
                }
            }
        });
        soon(async {
            while changes.load(Ordering::Acquire) < 4 {
                breathe().await;
            }
        })
        .await;
        peer.send(b"");
        drop(peer);
        let info = match round % 4 {
            0 => soon(a.recv_owned(Vec::with_capacity(8))).await.0.unwrap(),
            1 => {
                let (mut bytes, mut infos) = ([0; 8], Vec::new());
                let mut buffers = [IoSliceMut::new(&mut bytes)];
                soon(a.recv_batch(&mut buffers, &mut infos)).await.unwrap();
                infos[0]
            }
            2 => soon(a.peek(&mut [0; 8])).await.unwrap(),
            _ => info_of(&a).await,
        };
        stop.store(true, Ordering::Relaxed);
        toggling.join().unwrap();
        assert_ne!(info.end_of_stream(), Some(true), "round {round}");
    }
}

async fn an_option_switched_on_while_a_receive_waits_counts(cell: Cell) {
    let (a, peer) = cell.half();
    let mut receive = task::spawn(a.recv_owned(Vec::with_capacity(8)));
    arm(&mut receive).await;
    a.set_pass_credentials(true).unwrap();
    peer.send(b"message");
    let info = soon(receive).await.0.unwrap();
    assert!(info.ancillary_truncated(), "the credentials were discarded");
    let receive = a.recv_owned(Vec::with_capacity(8));
    drop(peer);
    assert_eq!(soon(receive).await.0.unwrap().end_of_stream(), Some(true));
}

/// A receive of the stream is dropped when it has taken its message, and so is the stream.
async fn a_stream_leaves_a_message(a: &UnixSeqpacket, peer: &Peer) {
    let mut messages = a.messages(MessagesOptions::new()).unwrap();
    let mut next = task::spawn(messages.next());
    arm(&mut next).await;
    peer.send(b"message");
    breathe().await;
}

async fn the_time_that_a_stream_asks_for_reaches_no_other_call(cell: Cell) {
    let (a, peer) = cell.keeping_ancillary().half();
    let mut bytes = [0; 8];

    a_stream_leaves_a_message(&a, &peer).await;
    let info = a.try_peek(&mut bytes).unwrap();
    assert!(!info.ancillary_truncated(), "peeked");
    let info = soon(a.recv_owned(Vec::with_capacity(8))).await.0.unwrap();
    assert!(!info.ancillary_truncated(), "received without capacity");

    a_stream_leaves_a_message(&a, &peer).await;
    let mut infos = Vec::new();
    soon(a.recv_batch(&mut [IoSliceMut::new(&mut bytes)], &mut infos)).await.unwrap();
    assert!(!infos[0].ancillary_truncated(), "received in a batch");

    for capacity in [0, 64] {
        a_stream_leaves_a_message(&a, &peer).await;
        let mut control = vec![0; capacity];
        let mut buffers = [IoSliceMut::new(&mut bytes)];
        let (info, reader) = soon(a.recv_message(&mut buffers, &mut control)).await.unwrap();
        assert!(!info.ancillary_truncated(), "received with capacity of {capacity}");
        assert_eq!(reader.messages().count(), 0);
    }
}

async fn a_stream_takes_no_capacity_from_a_receive_that_waits(cell: Cell) {
    let (a, peer) = cell.half();
    let (mut bytes, mut control) = ([0; 8], [0; 24]);
    let mut buffers = [IoSliceMut::new(&mut bytes)];
    let mut receive = task::spawn(a.recv_message(&mut buffers, &mut control));
    arm(&mut receive).await;
    // It was there before the stream, which is not polled.
    let messages = a.messages(MessagesOptions::new()).unwrap();
    peer.send_fds(b"message", &[file("passed")]);
    let (info, reader) = soon(receive).await.unwrap();
    assert!(!info.ancillary_truncated());
    assert_eq!(reader.messages().count(), 1);
    drop((reader, messages));

    let mut receive = task::spawn(a.recv_owned_vectored(vec![Vec::with_capacity(8)]));
    arm(&mut receive).await;
    let messages = a.messages(MessagesOptions::new()).unwrap();
    peer.send(b"message");
    assert!(!soon(receive).await.0.unwrap().ancillary_truncated());
    drop(messages);
}

async fn an_empty_message_of_a_stream_is_none_of_doubt(cell: Cell) {
    let (a, peer) = cell.half();
    a.set_pass_credentials(true).unwrap();
    let mut messages = a.messages(MessagesOptions::new()).unwrap();
    // From here on nothing marks them.
    a.set_pass_credentials(false).unwrap();
    peer.send(b"");
    peer.send(b"");
    peer.send(b"last");
    drop(peer);
    for expected in [&b""[..], b"", b"last"] {
        let message = soon(messages.next()).await.unwrap().unwrap();
        assert_eq!(&message[..], expected);
        assert_eq!(message.info().end_of_stream(), Some(false));
    }
    assert!(soon(messages.next()).await.is_none());
}
