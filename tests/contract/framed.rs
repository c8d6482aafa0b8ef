//! G5 and G6 through a codec: values over a socket, one a message, and `bytes` buffers.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::{SinkExt, StreamExt};
use tokio_seqpacket::Framed;
use tokio_test::task;
use tokio_util::codec::{BytesCodec, LengthDelimitedCodec, LinesCodec};

use crate::harness::messages::{fill, recv};
use crate::harness::waiting::{arm, soon};
use crate::harness::{Cell, Test};

pub fn tests() -> Vec<Test> {
    tasks![
        a_frame_is_a_message,
        empty_messages_and_the_end_of_a_framed_stream,
        frames_behind_an_empty_message_come_after_the_peer_has_closed,
        a_message_longer_than_the_capacity_is_an_error_and_the_stream_goes_on,
        a_message_with_more_than_its_frame_is_an_error,
        a_sink_waits_while_the_queue_is_full,
        closing_the_sink_ends_the_peers_stream,
        halves_are_framed_apart,
        owned_calls_take_bytes,
    ]
}

async fn a_frame_is_a_message(cell: Cell) {
    let (a, peer) = cell.half();
    let mut a = Framed::new(a, BytesCodec::new());
    for len in [1, 100, 20_000, 60_000] {
        let message = Bytes::from(vec![7; len]);
        soon(a.send(message.clone())).await.unwrap();
        assert_eq!(peer.recv(), message);
        peer.send(&message);
        peer.send(b"next");
        assert_eq!(soon(a.next()).await.unwrap().unwrap(), message);
        assert_eq!(soon(a.next()).await.unwrap().unwrap(), &b"next"[..]);
    }
    let mut waiting = task::spawn(a.next());
    arm(&mut waiting).await;
    drop(waiting);
    peer.send(b"not lost");
    assert_eq!(soon(a.next()).await.unwrap().unwrap(), &b"not lost"[..]);
    assert!(a.get_ref().peer_cred().is_ok());
    recv_after(a.into_inner(), &peer).await;
}

async fn recv_after(socket: tokio_seqpacket::UnixSeqpacket, peer: &crate::harness::peer::Peer) {
    peer.send(b"plain");
    assert_eq!(recv(&socket).await, b"plain");
}

async fn empty_messages_and_the_end_of_a_framed_stream(cell: Cell) {
    let (a, peer) = cell.half();
    let mut a = Framed::new(a, LinesCodec::new());
    peer.send(b"");
    peer.send(b"line\n");
    assert_eq!(soon(a.next()).await.unwrap().unwrap(), "line");
    drop(peer);
    assert!(soon(a.next()).await.is_none());
    assert!(soon(a.next()).await.is_none());
}

async fn frames_behind_an_empty_message_come_after_the_peer_has_closed(cell: Cell) {
    let (a, peer) = cell.half();
    for message in ["one\n", "", "two\n"] {
        peer.send(message.as_bytes());
    }
    drop(peer);
    let mut a = Framed::new(a, LinesCodec::new());
    assert_eq!(soon(a.next()).await.unwrap().unwrap(), "one");
    assert_eq!(soon(a.next()).await.unwrap().unwrap(), "two");
    assert!(soon(a.next()).await.is_none());
}

async fn a_message_longer_than_the_capacity_is_an_error_and_the_stream_goes_on(cell: Cell) {
    let (a, peer) = cell.half();
    let mut a = Framed::with_capacity(a, BytesCodec::new(), 8);
    peer.send(b"123456789");
    peer.send(b"12345678");
    let error = soon(a.next()).await.unwrap().unwrap_err();
    assert!(error.to_string().contains("9 bytes") && error.to_string().contains("8 bytes"));
    assert_eq!(soon(a.next()).await.unwrap().unwrap(), &b"12345678"[..]);
}

async fn a_message_with_more_than_its_frame_is_an_error(cell: Cell) {
    let (a, peer) = cell.half();
    let mut a = Framed::new(a, LengthDelimitedCodec::new());
    let messages =
        [(&b"\0\0\0\x01ab"[..], true), (b"\0\0\0\x02ab", false), (b"\0\0\0\x03ab", true)];
    for (message, fault) in messages {
        peer.send(message);
        assert_eq!(soon(a.next()).await.unwrap().is_err(), fault, "{}", message.escape_ascii());
    }
}

async fn a_sink_waits_while_the_queue_is_full(cell: Cell) {
    let (a, peer) = cell.half();
    fill(&a);
    let mut a = Framed::new(a, BytesCodec::new());
    let mut send = task::spawn(a.send(Bytes::from_static(b"patience")));
    arm(&mut send).await;
    peer.drain();
    soon(send).await.unwrap();
    assert_eq!(peer.arrived(), [b"patience"]);
}

async fn closing_the_sink_ends_the_peers_stream(cell: Cell) {
    let (a, peer) = cell.half();
    let mut a = Framed::new(a, BytesCodec::new());
    soon(a.feed(Bytes::from_static(b"the last"))).await.unwrap();
    soon(SinkExt::<Bytes>::close(&mut a)).await.unwrap();
    assert_eq!(peer.recv(), b"the last");
    assert!(peer.sees_end());
    peer.send(b"still read");
    assert_eq!(soon(a.next()).await.unwrap().unwrap(), &b"still read"[..]);
}

async fn halves_are_framed_apart(cell: Cell) {
    let (a, b) = cell.pair();
    let (reader, writer) = a.into_split();
    let mut reader = Framed::new(reader, LinesCodec::new());
    let mut writer = Framed::new(writer, LinesCodec::new());
    let b = Arc::new(b);
    let mut peer = Framed::new(b.clone(), LinesCodec::new());
    soon(writer.send("one")).await.unwrap();
    assert_eq!(soon(peer.next()).await.unwrap().unwrap(), "one");
    soon(peer.send("two")).await.unwrap();
    assert_eq!(soon(reader.next()).await.unwrap().unwrap(), "two");
    drop(writer);
    assert!(soon(peer.next()).await.is_none());
}

async fn owned_calls_take_bytes(cell: Cell) {
    let (a, b) = cell.pair();
    let message = Bytes::from_static(b"message");
    let (sent, message) = soon(a.send_owned(message)).await;
    assert_eq!((sent.unwrap(), &message[..]), (7, &b"message"[..]));
    let (sent, _) = soon(a.send_owned_vectored(vec![message.slice(..3), message.slice(3..)])).await;
    assert_eq!(sent.unwrap(), 7);
    for _ in 0..2 {
        let (info, bytes) = soon(b.recv_owned(BytesMut::with_capacity(64))).await;
        assert_eq!((info.unwrap().bytes_read(), &bytes.freeze()[..]), (7, &b"message"[..]));
    }
}
