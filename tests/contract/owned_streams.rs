//! G2, G8, G9 and G12 of streams that own or share their socket.

use std::io;
use std::sync::Arc;
use std::thread;

use tokio_seqpacket::ancillary::AncillaryBuffer;
use tokio_seqpacket::{Message, Messages, MessagesOptions, UnixSeqpacket};
use tokio_test::task;

use crate::harness::call_variants::{self, RecvBy, Room};
use crate::harness::descriptors::{content, file, traced};
use crate::harness::messages::recv;
use crate::harness::peer::Peer;
use crate::harness::waiting::{arm, breathe, soon, starts_waiting, until_woken};
use crate::harness::{Cell, Test};

pub fn tests() -> Vec<Test> {
    tasks![
        an_owned_stream_is_returned_and_moves_between_tasks,
        a_stream_of_a_reference_or_a_half_borrows_it,
        what_an_owned_stream_leaves_goes_to_the_next_receives_with_descriptors,
        descriptors_that_a_stream_leaves_close_with_its_socket,
        a_second_stream_of_a_shared_socket_is_refused_until_the_first_ends,
        receives_are_woken_when_the_stream_is_dropped_in_another_task,
        a_receive_that_races_with_the_end_of_a_stream_is_woken,
        a_task_that_is_aborted_while_its_stream_waits_loses_no_message,
        the_socket_closes_with_a_stream_that_owns_it,
        the_socket_stays_open_after_a_stream_that_shares_it,
        halves_are_put_together_again_after_a_stream,
        a_forgotten_stream_never_ends_and_sends_go_on,
        a_forgotten_stream_that_borrows_keeps_no_socket_open,
        a_stream_that_owns_its_socket_is_send_and_static,
    ]
}

fn small() -> MessagesOptions {
    MessagesOptions::new().buffers(4).size(32)
}

async fn next<S: AsRef<UnixSeqpacket>>(messages: &mut Messages<S>) -> Message {
    soon(messages.next()).await.expect("not the end").expect("a message")
}

/// Takes messages until the stream has received more than it has yielded. Returns how many it took.
async fn until_some_are_left<S: AsRef<UnixSeqpacket>>(messages: &mut Messages<S>) -> usize {
    let mut taken = 0;
    loop {
        drop(next(messages).await);
        taken += 1;
        if !format!("{messages:?}").contains("buffered: 0") {
            return taken;
        }
    }
}

async fn an_owned_stream_is_returned_and_moves_between_tasks(cell: Cell) {
    async fn moves<S>(messages: Messages<S>, peer: &Peer)
    where
        S: AsRef<UnixSeqpacket> + Send + 'static,
    {
        let mut messages = messages;
        for n in 0..5 {
            // Once it waits in the other task, once the message is there.
            if n % 2 == 0 {
                peer.send(&[n]);
            }
            let receiving = tokio::spawn(async move {
                let message = next(&mut messages).await;
                (message, messages)
            });
            if n % 2 == 1 {
                breathe().await;
                peer.send(&[n]);
            }
            let message;
            (message, messages) = soon(receiving).await.unwrap();
            assert_eq!(message[..], [n]);
        }
    }
    fn returned(socket: UnixSeqpacket) -> Messages {
        Messages::new(socket, small()).unwrap()
    }
    let (a, peer) = cell.half();
    moves(returned(a), &peer).await;
    let (a, peer) = cell.half();
    moves(Messages::new(Arc::new(a), small()).unwrap(), &peer).await;
    let (a, peer) = cell.half();
    let (reader, _writer) = a.into_split();
    moves(Messages::new(reader, small()).unwrap(), &peer).await;
}

async fn a_stream_of_a_reference_or_a_half_borrows_it(cell: Cell) {
    let (a, peer) = cell.half();
    for n in 0..3 {
        peer.send(&[n]);
        let (reader, writer) = a.split();
        let message = match n {
            0 => next(&mut Messages::new(&a, small()).unwrap()).await,
            1 => next(&mut Messages::new(reader, small()).unwrap()).await,
            _ => next(&mut Messages::new(writer, small()).unwrap()).await,
        };
        assert_eq!(message[..], [n]);
    }
}

async fn what_an_owned_stream_leaves_goes_to_the_next_receives_with_descriptors(cell: Cell) {
    for dropped in [false, true] {
        let (a, peer) = cell.half();
        for n in 0..40u8 {
            peer.send_fds(&[n], &[file(&format!("content {n}"))]);
        }
        let a = Arc::new(a);
        let mut messages = Messages::new(a.clone(), MessagesOptions::new()).unwrap();
        let taken = until_some_are_left(&mut messages).await;
        if dropped {
            drop(messages);
        } else {
            assert!(Arc::ptr_eq(&messages.into_inner(), &a));
        }
        for n in taken..40 {
            let ancillary = AncillaryBuffer::new();
            let (received, bytes, mut ancillary) =
                soon(a.recv_owned_with_ancillary(Vec::with_capacity(8), ancillary)).await;
            assert!(!received.unwrap().ancillary_truncated());
            assert_eq!(bytes, [n as u8]);
            assert_eq!(content(&ancillary.take_fds()[0]), format!("content {n}"));
        }
    }
}

async fn descriptors_that_a_stream_leaves_close_with_its_socket(cell: Cell) {
    let (a, peer) = cell.half();
    for _ in 0..40 {
        peer.send(b"without");
    }
    let (trace, fd) = traced();
    peer.send_fds(b"with", &[fd]);
    let mut messages = Messages::new(a, MessagesOptions::new()).unwrap();
    // The last of 41 is among those that it has received by then.
    while rustix::io::ioctl_fionread(messages.get_ref()).unwrap() > 0 {
        drop(next(&mut messages).await);
    }
    assert!(trace.is_open());
    drop(messages);
    soon(trace.closed()).await;
}

async fn a_second_stream_of_a_shared_socket_is_refused_until_the_first_ends(cell: Cell) {
    let (a, peer) = cell.half();
    let a = Arc::new(a);
    let mut first = Messages::new(a.clone(), small()).unwrap();
    for _ in 0..2 {
        let refused = Messages::new(a.clone(), small()).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ResourceBusy);
        assert_eq!(a.messages(small()).unwrap_err().kind(), io::ErrorKind::ResourceBusy);
        // The refused stream has not ended the claim of the first.
        assert_eq!(a.try_recv(&mut [0; 8]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        peer.send(b"one");
        assert_eq!(next(&mut first).await[..], b"one"[..]);
    }
    assert_eq!(Arc::strong_count(&a), 2, "a refused stream keeps no socket");
    drop(first);
    let mut second = Messages::new(a.clone(), small()).unwrap();
    peer.send(b"two");
    assert_eq!(next(&mut second).await[..], b"two"[..]);
    let a = second.into_inner();
    assert!(a.messages(small()).is_ok(), "after into_inner");
}

async fn receives_are_woken_when_the_stream_is_dropped_in_another_task(cell: Cell) {
    for way in RecvBy::QUEUED {
        let (a, peer) = cell.half();
        let a = Arc::new(a);
        let messages = Messages::new(a.clone(), small()).unwrap();
        peer.send(b"one");
        let mut receive = task::spawn(call_variants::recv(way, &a, Room::AMPLE));
        starts_waiting(&mut receive);
        let mut readable = task::spawn(a.readable());
        starts_waiting(&mut readable);
        soon(tokio::spawn(async move { drop(messages) })).await.unwrap();
        until_woken(&mut receive).await;
        until_woken(&mut readable).await;
        assert_eq!(soon(receive).await.unwrap().bytes, b"one", "{way:?}");
    }
}

async fn a_receive_that_races_with_the_end_of_a_stream_is_woken(cell: Cell) {
    let (a, peer) = cell.half();
    let a = Arc::new(a);
    for n in 0..200u8 {
        let messages = Messages::new(a.clone(), small()).unwrap();
        peer.send(&[n]);
        let ending = thread::spawn(move || drop(messages));
        assert_eq!(recv(&a).await, [n]);
        ending.join().unwrap();
    }
}

async fn a_task_that_is_aborted_while_its_stream_waits_loses_no_message(cell: Cell) {
    for n in 0..20u8 {
        let (a, peer) = cell.half();
        let a = Arc::new(a);
        let mut messages = Messages::new(a.clone(), small()).unwrap();
        let waiting = tokio::spawn(async move { messages.next().await.map(drop) });
        breathe().await;
        waiting.abort();
        peer.send(&[n]);
        // It may have been faster than the abort.
        if soon(waiting).await.is_err() {
            assert_eq!(recv(&a).await, [n]);
        }
    }
}

async fn the_socket_closes_with_a_stream_that_owns_it(cell: Cell) {
    for waiting in [false, true] {
        let (a, peer) = cell.half();
        let mut messages = Messages::new(a, small()).unwrap();
        if waiting {
            let mut next = task::spawn(messages.next());
            arm(&mut next).await;
        }
        assert!(!peer.sees_end());
        drop(messages);
        soon(peer.ended()).await;
    }
    // Also with messages that it has not yielded.
    let (a, peer) = cell.half();
    (0..40).for_each(|n| peer.send(&[n]));
    let mut messages = Messages::new(a, MessagesOptions::new()).unwrap();
    until_some_are_left(&mut messages).await;
    drop(messages);
    soon(peer.ended()).await;
}

async fn the_socket_stays_open_after_a_stream_that_shares_it(cell: Cell) {
    let (a, peer) = cell.half();
    let a = Arc::new(a);
    drop(Messages::new(a.clone(), small()).unwrap());
    assert!(!peer.sees_end());
    let a = Messages::new(Arc::into_inner(a).unwrap(), small()).unwrap().into_inner();
    soon(a.send(b"message")).await.unwrap();
    assert_eq!(peer.recv(), b"message");
    drop(a);
    soon(peer.ended()).await;
}

async fn halves_are_put_together_again_after_a_stream(cell: Cell) {
    let (a, peer) = cell.half();
    let (reader, writer) = a.into_split();
    let mut messages = Messages::new(reader, small()).unwrap();
    soon(writer.send(b"question")).await.unwrap();
    assert_eq!(peer.recv(), b"question");
    peer.send(b"answer");
    assert_eq!(next(&mut messages).await[..], b"answer"[..]);
    let a = messages.into_inner().reunite(writer).unwrap();
    peer.send(b"another");
    assert_eq!(recv(&a).await, b"another");
    assert!(!peer.sees_end());
}

async fn a_forgotten_stream_never_ends_and_sends_go_on(cell: Cell) {
    let (a, peer) = cell.half();
    let a = Arc::new(a);
    std::mem::forget(Messages::new(a.clone(), small()).unwrap());
    peer.send(b"message");
    let mut buffer = [0; 8];
    let mut receive = task::spawn(a.recv(&mut buffer));
    starts_waiting(&mut receive);
    breathe().await;
    assert!(!receive.is_woken(), "it waits for the end of the stream");
    drop(receive);
    assert_eq!(a.try_recv(&mut [0; 8]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    assert_eq!(a.messages(small()).unwrap_err().kind(), io::ErrorKind::ResourceBusy);
    soon(a.send(b"sent")).await.unwrap();
    assert_eq!(peer.recv(), b"sent");
}

async fn a_forgotten_stream_that_borrows_keeps_no_socket_open(cell: Cell) {
    for waiting in [false, true] {
        let (a, peer) = cell.half();
        let mut messages = Box::new(a.messages(small()).unwrap());
        if waiting {
            let mut next = task::spawn(messages.next());
            arm(&mut next).await;
        }
        std::mem::forget(messages);
        drop(a);
        soon(peer.ended()).await;
    }
}

async fn a_stream_that_owns_its_socket_is_send_and_static(_: Cell) {
    fn moves<T: Send + Unpin + 'static>() {}
    moves::<Messages>();
    moves::<Messages<Arc<UnixSeqpacket>>>();
    moves::<Messages<tokio_seqpacket::OwnedReadHalf>>();
    #[cfg(feature = "stream")]
    {
        fn streams<T: futures_util::Stream<Item = io::Result<Message>>>() {}
        streams::<Messages>();
    }
}
