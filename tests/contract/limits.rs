//! G5 and G13: bad input is an error that names the limit, nothing is sent, and the next message goes through. And what happens at
//! the limits.

use std::io::{ErrorKind, IoSlice, IoSliceMut};
use std::os::fd::OwnedFd;
use std::task::Poll;

use rustix::net::sockopt;
use tokio_test::task;

use crate::harness::call_variants::{self, RecvBy, Room, SendBy};
use crate::harness::descriptors::is_nonblocking;
use crate::harness::messages::{fill, nothing_is_left, recv};
use crate::harness::peer::{self, Peer};
use crate::harness::waiting::{arm, breathe, soon, starts_waiting};
use crate::harness::{Cell, Test};

pub fn tests() -> Vec<Test> {
    tasks![
        a_message_of_any_size_up_to_the_limit_arrives_whole,
        a_message_above_the_limit_is_refused_naming_it,
        a_message_far_above_the_limit_is_refused,
        a_message_above_the_limit_is_refused_behind_waiting_ones,
        a_larger_send_buffer_raises_the_limit,
        a_waiting_send_at_the_limit_arrives_whole,
        what_does_not_fit_is_truncated_and_the_next_message_is_whole,
        a_receive_without_capacity_takes_the_message,
        a_thousand_parts_make_one_message,
        too_many_parts_are_refused,
        what_is_no_seqpacket_socket_is_refused,
        a_listener_is_no_connection_and_a_connection_no_listener,
        an_inherited_blocking_socket_is_made_non_blocking,
        a_socket_given_away_keeps_its_messages,
        into_raw_fd_leaves_nothing_in_flight,
        debug_output_names_descriptor_and_backend,
    ]
}

fn limit(socket: impl std::os::fd::AsFd) -> usize {
    sockopt::socket_send_buffer_size(socket).unwrap() - 32
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|n| (n % 251) as u8).collect()
}

async fn a_message_of_any_size_up_to_the_limit_arrives_whole(cell: Cell) {
    let (a, b) = cell.pair();
    let limit = limit(&a);
    let sizes = [0, 1, 100, 4095, 4096, 4097, 65536, limit - 1, limit];
    for (n, size) in sizes.into_iter().enumerate() {
        let message = pattern(size);
        for sending in SendBy::ALL {
            let receiving =
                [RecvBy::Plain, RecvBy::OwnedVectored, RecvBy::VectoredAncillary][n % 3];
            let mut receive =
                task::spawn(call_variants::recv(receiving, &b, Room { bytes: limit, control: 64 }));
            let waiting = sending == SendBy::Plain || sending == SendBy::OwnedVectored;
            if waiting {
                starts_waiting(&mut receive);
            }
            assert_eq!(soon(call_variants::send(sending, &a, &message, &[])).await.unwrap(), size);
            assert!(soon(receive).await.unwrap().bytes == message, "{size} bytes, {sending:?}");
        }
    }
}

async fn a_message_above_the_limit_is_refused_naming_it(cell: Cell) {
    let (a, peer) = cell.half();
    let limit = limit(&a);
    for size in [limit + 1, limit + 5000] {
        let message = pattern(size);
        for way in SendBy::ALL {
            let error = soon(call_variants::send(way, &a, &message, &[])).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{way:?}");
            assert!(error.to_string().contains(&limit.to_string()), "{way:?}: {error}");
            assert!(error.to_string().contains(&size.to_string()), "{way:?}: {error}");
            soon(call_variants::send(way, &a, b"next", &[])).await.unwrap();
            assert_eq!(peer.arrived(), [b"next"], "{way:?}");
        }
    }
}

async fn a_message_far_above_the_limit_is_refused(cell: Cell) {
    let (a, peer) = cell.half();
    let message = pattern(8 << 20);
    for way in [SendBy::Plain, SendBy::Owned, SendBy::Vectored, SendBy::OwnedVectored, SendBy::Try]
    {
        let error = soon(call_variants::send(way, &a, &message, &[])).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{way:?}");
        assert!(error.to_string().contains(&limit(&a).to_string()), "{way:?}: {error}");
    }
    // Where the send buffer would hold it, the kernel's memory does not.
    if sockopt::set_socket_send_buffer_size_force(&a, 16 << 20).is_ok() {
        for way in [SendBy::Plain, SendBy::Owned, SendBy::Vectored, SendBy::Try] {
            let error = soon(call_variants::send(way, &a, &message, &[])).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{way:?}: {error}");
            assert!(error.to_string().contains("4 MiB"), "{way:?}: {error}");
        }
    }
    soon(a.send(b"next")).await.unwrap();
    assert_eq!(peer.arrived(), [b"next"]);
}

async fn a_message_above_the_limit_is_refused_behind_waiting_ones(cell: Cell) {
    let too_long = pattern(limit(&cell.half().0) + 1);
    for way in SendBy::QUEUED {
        let (a, peer) = cell.half();
        fill(&a);
        let mut before = task::spawn(a.send(b"before"));
        arm(&mut before).await;
        let mut refused = task::spawn(call_variants::send(way, &a, &too_long, &[]));
        let early = refused.poll();
        let mut after = task::spawn(a.send_owned("after"));
        arm(&mut after).await;
        peer.drain();
        soon(before).await.unwrap();
        let refused = match early {
            Poll::Ready(sent) => sent,
            Poll::Pending => soon(refused).await,
        };
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::InvalidInput, "{way:?}");
        soon(after).await.0.unwrap();
        assert_eq!(peer.arrived(), [b"before".to_vec(), b"after".to_vec()], "{way:?}");
    }
}

async fn a_larger_send_buffer_raises_the_limit(cell: Cell) {
    let (a, b) = cell.pair();
    let small = limit(&a);
    sockopt::set_socket_send_buffer_size(&a, 20_000).unwrap();
    let less = limit(&a);
    assert!(less < small);
    let error = soon(a.send(&pattern(less + 1))).await.unwrap_err();
    assert!(error.to_string().contains(&less.to_string()), "{error}");
    if sockopt::set_socket_send_buffer_size_force(&a, 1 << 20).is_ok() {
        for size in [small + 1, 1_000_000] {
            let message = pattern(size);
            for (sending, receiving) in
                [(SendBy::Plain, RecvBy::Plain), (SendBy::OwnedVectored, RecvBy::Owned)]
            {
                let mut receive = task::spawn(call_variants::recv(
                    receiving,
                    &b,
                    Room { bytes: 1 << 20, control: 0 },
                ));
                starts_waiting(&mut receive);
                soon(call_variants::send(sending, &a, &message, &[])).await.unwrap();
                assert!(soon(receive).await.unwrap().bytes == message, "{size} {receiving:?}");
            }
        }
    }
}

async fn a_waiting_send_at_the_limit_arrives_whole(cell: Cell) {
    for way in SendBy::QUEUED {
        let (a, peer) = cell.half();
        let message = pattern(limit(&a));
        fill(&a);
        let mut send = task::spawn(call_variants::send(way, &a, &message, &[]));
        arm(&mut send).await;
        peer.drain();
        assert_eq!(soon(send).await.unwrap(), message.len());
        assert!(peer.arrived() == [message], "{way:?}");
    }
}

async fn what_does_not_fit_is_truncated_and_the_next_message_is_whole(cell: Cell) {
    let (a, peer) = cell.half();
    let message = pattern(100_000);
    for way in RecvBy::ALL {
        for waiting in [false, true] {
            for bytes in [1, 2, 99, 5000, 99_999] {
                let mut receive =
                    task::spawn(call_variants::recv(way, &a, Room { bytes, control: 0 }));
                if waiting {
                    starts_waiting(&mut receive);
                }
                peer.send(&message);
                peer.send(b"next");
                let got = soon(receive).await.unwrap();
                assert!(got.bytes == message[..bytes], "{way:?} {bytes}");
                if let Some(info) = got.info {
                    assert_eq!((info.message_len(), info.truncated()), (100_000, true));
                }
                assert_eq!(recv(&a).await, b"next", "{way:?} {bytes}");
                tokio::task::yield_now().await;
            }
        }
    }
}

async fn a_receive_without_capacity_takes_the_message(cell: Cell) {
    let (a, peer) = cell.half();
    for way in RecvBy::ALL {
        for waiting in [false, true] {
            let mut receive =
                task::spawn(call_variants::recv(way, &a, Room { bytes: 0, control: 0 }));
            if waiting {
                arm(&mut receive).await;
            }
            peer.send(b"message");
            let got = soon(receive).await.unwrap();
            assert_eq!(got.bytes, b"");
            if let Some(info) = got.info {
                assert_eq!((info.bytes_read(), info.message_len()), (0, 7));
                assert!(info.truncated());
            }
            nothing_is_left(&a, &peer).await;
        }
    }
}

async fn a_thousand_parts_make_one_message(cell: Cell) {
    let (a, b) = cell.pair();
    let message = pattern(1024);
    let parts: Vec<_> = message.chunks(1).map(IoSlice::new).collect();
    assert_eq!(soon(a.send_vectored(&parts)).await.unwrap(), 1024);
    assert_eq!(recv(&b).await, message);
    let parts: Vec<_> = message.chunks(1).map(|part| part.to_vec()).collect();
    let (sent, parts) = soon(a.send_owned_vectored(parts)).await;
    assert_eq!((sent.unwrap(), parts.len()), (1024, 1024));

    let empty: Vec<_> = (0..1024).map(|_| Vec::with_capacity(1)).collect();
    let (info, parts) = soon(b.recv_owned_vectored(empty)).await;
    assert_eq!(info.unwrap().bytes_read(), 1024);
    assert_eq!(parts.concat(), message);

    soon(a.send(&message)).await.unwrap();
    let mut buffer = [0; 1024];
    let mut parts: Vec<_> = buffer.chunks_mut(1).map(IoSliceMut::new).collect();
    assert_eq!(soon(b.recv_vectored(&mut parts)).await.unwrap(), 1024);
    assert_eq!(buffer, *message);
}

async fn too_many_parts_are_refused(cell: Cell) {
    let (a, peer) = cell.half();
    let bytes = [7; 1025];
    let parts: Vec<_> = bytes.chunks(1).map(IoSlice::new).collect();
    // IOV_MAX is 1024. A library that gathers them itself may send them.
    let sent = soon(a.send_vectored(&parts)).await;
    let (sent_owned, back) =
        soon(a.send_owned_vectored(bytes.chunks(1).map(|part| part.to_vec()).collect())).await;
    assert_eq!(back.len(), 1025);
    let messages = peer.everything();
    for sent in [&sent, &sent_owned] {
        match sent {
            Ok(len) => assert_eq!(*len, 1025),
            Err(error) => assert!(error.to_string().contains("1024 buffers"), "{error}"),
        }
    }
    let delivered = [&sent, &sent_owned].iter().filter(|sent| sent.is_ok()).count();
    assert_eq!(messages, vec![bytes.to_vec(); delivered]);
    soon(a.send(b"next")).await.unwrap();
    assert_eq!(peer.arrived(), [b"next"]);
}

async fn what_is_no_seqpacket_socket_is_refused(cell: Cell) {
    let (stream, _) = std::os::unix::net::UnixStream::pair().unwrap();
    let (datagram, _) = std::os::unix::net::UnixDatagram::pair().unwrap();
    let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let (pipe, _) = rustix::pipe::pipe().unwrap();
    let wrong: [(OwnedFd, &str); 5] = [
        (std::fs::File::open("/dev/null").unwrap().into(), "not a socket"),
        (pipe, "not a socket"),
        (stream.into(), "SOCK_SEQPACKET"),
        (datagram.into(), "SOCK_SEQPACKET"),
        (udp.into(), "not a Unix socket"),
    ];
    for (fd, words) in wrong {
        let same = fd.try_clone().unwrap();
        let before = rustix::fs::fcntl_getfl(&same).unwrap();
        let error = cell.options().socket_from_fd(fd).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains(words), "{error}");
        let error = cell.options().listener_from_fd(same.try_clone().unwrap()).unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
        // And left as it was, for its other owners.
        assert_eq!(rustix::fs::fcntl_getfl(&same).unwrap(), before);
    }
}

async fn a_listener_is_no_connection_and_a_connection_no_listener(cell: Cell) {
    let directory = tempfile::tempdir().unwrap();
    let listener = cell.bind(directory.path().join("socket"));
    let error = cell.options().socket_from_fd(listener.into()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    let (a, _peer) = cell.half();
    let error = cell.options().listener_from_fd(a.into()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
}

async fn an_inherited_blocking_socket_is_made_non_blocking(cell: Cell) {
    let (ours, theirs) = peer::socketpair();
    let (ours, peer) = (Peer::from(ours), Peer::from(theirs));
    ours.set_blocking();
    assert!(!is_nonblocking(&ours.fd));
    let a = cell.options().socket_from_fd(ours.fd).unwrap();
    assert!(is_nonblocking(&a));
    let mut receive = task::spawn(call_variants::recv(RecvBy::Plain, &a, Room::AMPLE));
    arm(&mut receive).await;
    peer.send(b"message");
    assert_eq!(soon(receive).await.unwrap().bytes, b"message");
    fill(&a);
}

async fn a_socket_given_away_keeps_its_messages(cell: Cell) {
    for armed in [false, true] {
        let (a, peer) = cell.half();
        let mut receive = task::spawn(call_variants::recv(RecvBy::Owned, &a, Room::AMPLE));
        starts_waiting(&mut receive);
        if armed {
            arm(&mut receive).await;
        }
        drop(receive);
        let mine = Peer::from(OwnedFd::from(a));
        // No operation is in flight any more that could take this.
        peer.send(b"message");
        breathe().await;
        assert_eq!(mine.recv(), b"message");
        // It is still registered nowhere: it can be taken over again.
        let a = cell.options().socket_from_fd(mine.fd).unwrap();
        nothing_is_left(&a, &peer).await;
    }
}

async fn into_raw_fd_leaves_nothing_in_flight(cell: Cell) {
    let (a, peer) = cell.half();
    fill(&a);
    let mut send = task::spawn(a.send_owned(b"dropped".to_vec()));
    arm(&mut send).await;
    drop(send);
    let mine = Peer::from(OwnedFd::from(a));
    let before = peer.everything();
    breathe().await;
    assert!(peer.everything().is_empty(), "a send was in flight");
    assert!(before.iter().filter(|message| *message == b"dropped").count() <= 1);
    mine.send(b"mine");
    assert_eq!(peer.arrived(), [b"mine"]);
}

async fn debug_output_names_descriptor_and_backend(cell: Cell) {
    let directory = tempfile::tempdir().unwrap();
    let listener = cell.bind(directory.path().join("socket"));
    let (a, _b) = cell.pair();
    for (text, fd) in [
        (format!("{a:?}"), a.as_raw_fd()),
        (format!("{:?}", a.split().0), a.as_raw_fd()),
        (format!("{listener:?}"), listener.as_raw_fd()),
    ] {
        assert!(text.contains(&format!("fd: {fd}")), "{text}");
        assert!(text.contains(&format!("{:?}", cell.backend)), "{text}");
    }
}
