//! G5, G6 and G13 through a codec: values over a socket, one a message, and `bytes` buffers.

use std::io::ErrorKind;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::{SinkExt, StreamExt};
use tokio_seqpacket::{Framed, metrics};
use tokio_test::task;
use tokio_util::codec::{BytesCodec, Encoder, LengthDelimitedCodec, LinesCodec};

use crate::harness::messages::{fill, recv};
use crate::harness::waiting::{arm, soon};
use crate::harness::{Cell, Test};

pub fn tests() -> Vec<Test> {
    tasks![
        a_frame_is_a_message,
        frames_of_a_busy_task_are_not_parked_for,
        frames_that_are_kept_stay_as_they_came,
        a_frame_that_does_not_encode_leaves_nothing_behind,
        empty_messages_and_the_end_of_a_framed_stream,
        frames_behind_an_empty_message_come_after_the_peer_has_closed,
        a_message_longer_than_the_capacity_is_an_error_and_the_stream_goes_on,
        a_message_that_exceeds_either_limit_is_refused_at_once_and_the_sink_goes_on,
        one_option_sets_both_limits_or_says_which_is_too_low,
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

/// Each frame is answered before the next, and both ends yield until it has come.
async fn frames_of_a_busy_task_are_not_parked_for(cell: Cell) {
    const FRAMES: u64 = 1000;
    if !cell.flavor.is_single_threaded() {
        // Where another worker runs the other end, parking is cheaper.
        return;
    }
    let (a, b) = cell.pair();
    let (mut a, mut b) = (Framed::new(a, BytesCodec::new()), Framed::new(b, BytesCodec::new()));
    let echo = tokio::spawn(async move {
        while let Some(frame) = b.next().await {
            b.send(frame.unwrap().freeze()).await.unwrap();
        }
    });
    let before = metrics().unwrap().total().parked;
    for _ in 0..FRAMES {
        soon(a.send(Bytes::from_static(b"question"))).await.unwrap();
        assert_eq!(soon(a.next()).await.unwrap().unwrap(), &b"question"[..]);
    }
    let parked = metrics().unwrap().total().parked - before;
    assert!(parked < FRAMES / 10, "parked {parked} times for {FRAMES} frames");
    drop(a);
    echo.await.unwrap();
}

/// Small frames share memory, and a large one takes the buffer along.
async fn frames_that_are_kept_stay_as_they_came(cell: Cell) {
    const LENS: [usize; 8] = [64, 1, 2048, 2049, 8192, 16_384, 16_385, 60_000];
    let (a, peer) = cell.half();
    let mut a = Framed::new(a, BytesCodec::new());
    let mut kept = Vec::new();
    for round in 0..20_u8 {
        for (at, len) in LENS.into_iter().enumerate() {
            let message = vec![round.wrapping_mul(16) + at as u8; len];
            peer.send(&message);
            kept.push((soon(a.next()).await.unwrap().unwrap(), message));
        }
    }
    // What is appended to one does not reach the next.
    for (frame, message) in &mut kept {
        frame.extend_from_slice(b"more");
        message.extend_from_slice(b"more");
    }
    assert!(kept.iter().all(|(frame, message)| frame == message));
}

/// Writes a part of its frame before it finds that it cannot.
struct FailsHalfway;

impl Encoder<u8> for FailsHalfway {
    type Error = std::io::Error;

    fn encode(&mut self, item: u8, into: &mut BytesMut) -> std::io::Result<()> {
        into.extend_from_slice(&[item; 8]);
        if item == 0 { Err(ErrorKind::InvalidInput.into()) } else { Ok(()) }
    }
}

async fn a_frame_that_does_not_encode_leaves_nothing_behind(cell: Cell) {
    let (a, peer) = cell.half();
    let mut a = Framed::new(a, FailsHalfway);
    soon(a.send(1)).await.unwrap();
    assert!(soon(a.send(0)).await.is_err());
    soon(SinkExt::<u8>::flush(&mut a)).await.unwrap();
    soon(a.send(2)).await.unwrap();
    assert_eq!(peer.arrived(), [[1; 8], [2; 8]]);
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

async fn a_message_that_exceeds_either_limit_is_refused_at_once_and_the_sink_goes_on(cell: Cell) {
    let (a, peer) = cell.half();
    a.set_send_buffer_size(16 << 10).unwrap();
    let sendable = a.max_message_size().unwrap();
    let mut a = Framed::with_capacity(a, BytesCodec::new(), 40_000);
    let limits = [(40_000, "this Framed"), (sendable, "send buffer")];
    for (limit, whose) in limits {
        let error = a.start_send_unpin(Bytes::from(vec![7; limit + 1])).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        let text = error.to_string();
        for words in [whose, "Framed::with_max_message", &limit.to_string()] {
            assert!(text.contains(words), "{text}, without {words}");
        }
        soon(a.send(Bytes::from_static(b"short"))).await.unwrap();
        assert_eq!(peer.arrived(), [b"short"]);
    }
    soon(a.send(Bytes::from(vec![7; sendable]))).await.unwrap();
    assert_eq!(peer.recv().len(), sendable);
    // The default is the same in both directions.
    let mut a = Framed::new(a.into_inner(), BytesCodec::new());
    let error = a.start_send_unpin(Bytes::from(vec![7; (64 << 10) + 1])).unwrap_err();
    assert!(error.to_string().contains("65536"), "{error}");
}

async fn one_option_sets_both_limits_or_says_which_is_too_low(cell: Cell) {
    let wmem_max: usize =
        std::fs::read_to_string("/proc/sys/net/core/wmem_max").unwrap().trim().parse().unwrap();
    let longest = (2 * wmem_max - 32).min(4 << 20);
    let (a, b) = cell.pair();
    let before = b.send_buffer_size().unwrap();
    let mut a = Framed::with_max_message(a, BytesCodec::new(), longest).unwrap();
    let mut b = Framed::with_max_message(Arc::new(b), BytesCodec::new(), longest).unwrap();
    let message = Bytes::from(vec![7; longest]);
    let (sent, received) = soon(async { tokio::join!(a.send(message), b.next()) }).await;
    sent.unwrap();
    assert_eq!(received.unwrap().unwrap().len(), longest);

    // A send buffer that is large enough stays.
    let raised = b.get_ref().send_buffer_size().unwrap();
    assert!(raised > before);
    let b = Framed::with_max_message(b.into_inner(), BytesCodec::new(), 10).unwrap();
    assert_eq!(b.get_ref().send_buffer_size().unwrap(), raised);

    let refused = |longest| {
        let error = Framed::with_max_message(b.get_ref(), BytesCodec::new(), longest).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        error.to_string()
    };
    assert!(refused((4 << 20) + 1).contains("4194304 bytes (SealedMemory"));
    if longest < 4 << 20 {
        let text = refused(longest + 1);
        let wanted = format!("net.core.wmem_max has to be {} or more", wmem_max + 1);
        assert!(text.contains(&longest.to_string()) && text.contains(&wanted), "{text}");
    }
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
