//! G2, G5, G6 and G8 where many messages go through one call: streams of messages, and batches.

use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, OwnedFd};
use std::task::Poll;

use tokio::io::Interest;
use tokio_seqpacket::ancillary::AncillaryBuffer;
use tokio_seqpacket::{Message, MessageInfo, MessagesOptions, UnixSeqpacket};
use tokio_test::task;

use crate::harness::call_variants::{self, RecvBy, Room};
use crate::harness::descriptors::{content, file, is_close_on_exec, traced};
use crate::harness::messages::{FILLER, fill, recv};
use crate::harness::waiting::{arm, breathe, once, soon, starts_waiting, until_woken};
use crate::harness::{Cell, Test};

pub fn tests() -> Vec<Test> {
    let tests = tasks![
        an_empty_message_that_a_dropped_receive_left_does_not_end_a_stream,
        a_stream_yields_messages_in_order_and_then_the_end,
        an_empty_message_is_a_message_and_the_end_is_none,
        empty_messages_of_a_peer_that_closed_are_counted,
        a_stream_that_waits_gets_the_message_that_comes,
        a_next_that_is_dropped_loses_nothing,
        a_consumer_that_holds_all_buffers_stops_the_stream,
        a_buffer_that_comes_back_on_another_thread_resumes_the_stream,
        a_message_too_long_for_a_buffer_is_reported_as_truncated,
        descriptors_come_with_their_message_and_close_with_it,
        what_a_stream_leaves_goes_to_the_next_receives_in_order,
        what_a_stream_leaves_keeps_its_descriptors,
        a_stream_takes_what_a_dropped_receive_left,
        an_empty_message_left_by_a_dropped_receive_is_not_the_end,
        empty_messages_are_returned_when_the_mark_is_taken_away,
        a_stream_whose_mark_was_taken_away_ends,
        receives_wait_for_the_end_of_a_stream,
        readiness_waits_for_the_end_of_a_stream,
        what_a_stream_leaves_wakes_the_receives_that_waited_before_it,
        what_a_stream_leaves_comes_before_what_the_kernel_has,
        what_a_stream_leaves_wakes_those_that_wait_for_readiness,
        a_stream_that_is_polled_takes_no_wake_up_from_polls_before_it,
        a_wait_for_both_directions_is_woken_by_the_end_of_a_stream,
        what_a_stream_has_truncated_and_left_reports_its_length,
        a_peek_beside_a_stream_waits,
        a_second_stream_is_refused_while_there_is_one,
        a_size_beyond_all_messages_needs_no_such_memory,
        a_reset_is_returned_once_and_the_messages_before_it_follow,
        a_stream_of_a_flood_leaves_other_tasks_alive,
        poll_next_waits_and_is_woken,
        a_stream_of_buffered_messages_yields_to_others,
        credentials_come_with_messages,
        a_batch_goes_out_in_order_and_is_counted,
        a_batch_on_a_full_queue_stands_in_line,
        a_batch_send_that_is_dropped_goes_on_where_it_was,
        a_batch_that_is_dropped_takes_its_messages_out_of_the_line,
        an_error_in_a_batch_reports_how_many_went_out,
        a_batch_carries_descriptors,
        receiving_a_batch_takes_what_is_there,
        receiving_a_batch_waits_for_the_first_only,
        receiving_a_batch_at_the_end_reports_it_once,
        empty_messages_of_a_batch_that_are_not_at_the_end_are_all_returned,
        empty_messages_of_a_batch_with_credentials_are_all_returned,
        receiving_a_batch_takes_what_a_dropped_receive_left_first,
        a_batch_of_receives_that_is_dropped_loses_nothing,
    ];
    #[cfg(feature = "stream")]
    let tests = [tests, tasks![a_stream_is_a_stream]].concat();
    tests
}

async fn next(messages: &mut tokio_seqpacket::Messages<&UnixSeqpacket>) -> Message {
    soon(messages.next()).await.expect("not the end").expect("a message")
}

/// By `set_pass_credentials(false)`, or by another stream of the same socket, on a duplicate, that ends.
async fn empty_messages_are_returned_when_the_mark_is_taken_away(cell: Cell) {
    for by_duplicate in [false, true] {
        let (a, b) = cell.pair();
        let duplicate =
            cell.options().socket_from_fd(b.as_fd().try_clone_to_owned().unwrap()).unwrap();
        let other = by_duplicate.then(|| duplicate.messages(small()).unwrap());
        b.set_pass_credentials(!by_duplicate).unwrap();
        let mut messages = b.messages(small()).unwrap();
        for _ in 0..2 {
            b.set_pass_credentials(false).unwrap();
            for message in ["", "two", "", "", "five"] {
                a.send(message.as_bytes()).await.unwrap();
            }
            for message in ["", "two", "", "", "five"] {
                assert_eq!(next(&mut messages).await[..], *message.as_bytes());
            }
        }
        drop(other);
        a.send(b"").await.unwrap();
        a.send(b"two").await.unwrap();
        drop(a);
        assert_eq!(next(&mut messages).await[..], *b"");
        assert_eq!(next(&mut messages).await[..], *b"two");
        assert!(soon(messages.next()).await.is_none());
    }
}

async fn a_stream_whose_mark_was_taken_away_ends(cell: Cell) {
    for buffers in [1, 4] {
        let (a, b) = cell.pair();
        b.set_pass_credentials(true).unwrap();
        let mut messages = b.messages(small().buffers(buffers)).unwrap();
        b.set_pass_credentials(false).unwrap();
        a.send(b"one").await.unwrap();
        drop(a);
        assert_eq!(next(&mut messages).await[..], *b"one");
        assert!(soon(messages.next()).await.is_none());
        drop(messages);
        assert!(soon(b.messages(small()).unwrap().next()).await.is_none(), "the end again");
    }
}

/// A message that a dropped receive took has no mark: it came before the stream.
async fn an_empty_message_left_by_a_dropped_receive_is_not_the_end(cell: Cell) {
    let (a, b) = cell.pair();
    for _ in 0..50 {
        let mut receive = task::spawn(call_variants::recv(RecvBy::Plain, &b, Room::AMPLE));
        starts_waiting(&mut receive);
        a.send(b"").await.unwrap();
        a.send(b"two").await.unwrap();
        breathe().await;
        drop(receive);
        let mut messages = b.messages(small()).unwrap();
        assert_eq!(next(&mut messages).await[..], *b"");
        assert_eq!(next(&mut messages).await[..], *b"two");
    }
    let mut receive = task::spawn(call_variants::recv(RecvBy::Plain, &b, Room::AMPLE));
    starts_waiting(&mut receive);
    a.send(b"").await.unwrap();
    a.send(b"two").await.unwrap();
    drop(a);
    breathe().await;
    drop(receive);
    let mut messages = b.messages(small()).unwrap();
    assert_eq!(next(&mut messages).await[..], *b"");
    assert_eq!(next(&mut messages).await[..], *b"two");
    assert!(soon(messages.next()).await.is_none());
}

async fn empty_messages_of_a_batch_that_are_not_at_the_end_are_all_returned(cell: Cell) {
    let (a, b) = cell.pair();
    for message in ["", "", "x"] {
        a.send(message.as_bytes()).await.unwrap();
    }
    drop(a);
    assert_eq!(recv_batch(&b, 2).await, [b"", b""]);
    assert_eq!(recv_batch(&b, 2).await, [&b"x"[..], b""]);
}

async fn empty_messages_of_a_batch_with_credentials_are_all_returned(cell: Cell) {
    for (size, count) in [(2, 2), (4, 4), (5, 5), (8, 5)] {
        let (a, b) = cell.pair();
        b.set_pass_credentials(true).unwrap();
        for message in ["one", "", "", ""] {
            a.send(message.as_bytes()).await.unwrap();
        }
        drop(a);
        // The end is the fifth.
        assert_eq!(recv_batch(&b, size).await.len(), count);
    }
}

async fn a_size_beyond_all_messages_needs_no_such_memory(cell: Cell) {
    let (a, b) = cell.pair();
    let options = MessagesOptions::new().buffers(usize::MAX).size(usize::MAX);
    let mut messages = b.messages(options).unwrap();
    a.send(b"message").await.unwrap();
    assert_eq!(next(&mut messages).await[..], b"message"[..]);
}

fn small() -> MessagesOptions {
    MessagesOptions::new().buffers(4).size(32)
}

async fn a_stream_yields_messages_in_order_and_then_the_end(cell: Cell) {
    let (a, b) = cell.pair();
    let sender = tokio::spawn(async move {
        for n in 0..1000u32 {
            a.send(&n.to_ne_bytes()).await.unwrap();
        }
    });
    let mut messages = b.messages(MessagesOptions::new()).unwrap();
    for n in 0..1000u32 {
        assert_eq!(next(&mut messages).await[..], n.to_ne_bytes());
    }
    soon(sender).await.unwrap();
    assert!(soon(messages.next()).await.is_none());
    assert!(soon(messages.next()).await.is_none(), "the end is final");
}

async fn an_empty_message_is_a_message_and_the_end_is_none(cell: Cell) {
    let (a, b) = cell.half();
    let mut messages = a.messages(small()).unwrap();
    // Once while it waits, once from the queue.
    let mut waiting = task::spawn(messages.next());
    arm(&mut waiting).await;
    b.send(b"");
    let message = soon(waiting).await.unwrap().unwrap();
    assert_eq!((message.len(), message.info().message_len()), (0, 0));
    b.send(b"");
    b.send(b"after");
    assert_eq!(next(&mut messages).await[..], b""[..]);
    assert_eq!(next(&mut messages).await[..], b"after"[..]);
    let mut waiting = task::spawn(messages.next());
    arm(&mut waiting).await;
    drop(b);
    assert!(soon(waiting).await.is_none());
}

async fn empty_messages_of_a_peer_that_closed_are_counted(cell: Cell) {
    for empty in [1, 3, 40] {
        let (a, b) = cell.half();
        let mut messages = a.messages(MessagesOptions::new()).unwrap();
        b.send(b"first");
        for _ in 0..empty {
            b.send(b"");
        }
        drop(b);
        assert_eq!(next(&mut messages).await[..], b"first"[..]);
        let mut count = 0;
        while let Some(message) = soon(messages.next()).await {
            assert_eq!(message.unwrap().len(), 0);
            count += 1;
        }
        assert_eq!(count, empty);
    }
}

async fn a_stream_that_waits_gets_the_message_that_comes(cell: Cell) {
    let (a, b) = cell.half();
    let mut messages = a.messages(small()).unwrap();
    for n in 0..50u8 {
        let mut waiting = task::spawn(messages.next());
        arm(&mut waiting).await;
        b.send(&[n]);
        let message = soon(waiting).await.unwrap().unwrap();
        assert_eq!(message[..], [n]);
    }
}

async fn a_next_that_is_dropped_loses_nothing(cell: Cell) {
    let (a, b) = cell.half();
    let mut messages = a.messages(small()).unwrap();
    for n in 0..50u8 {
        let mut waiting = task::spawn(messages.next());
        if n % 2 == 0 {
            arm(&mut waiting).await;
        } else {
            starts_waiting(&mut waiting);
        }
        if n % 3 == 0 {
            b.send(&[n]);
            breathe().await;
            drop(waiting);
        } else {
            drop(waiting);
            b.send(&[n]);
        }
        assert_eq!(next(&mut messages).await[..], [n]);
    }
    // The buffers of the dropped ones are all there.
    for n in 0..4u8 {
        b.send(&[n]);
    }
    let mut held = Vec::new();
    for _ in 0..4 {
        held.push(next(&mut messages).await);
    }
}

async fn a_consumer_that_holds_all_buffers_stops_the_stream(cell: Cell) {
    let (a, b) = cell.half();
    let mut messages = a.messages(small()).unwrap();
    for n in 0..20u8 {
        b.send(&[n]);
    }
    let mut held = Vec::new();
    for n in 0..4u8 {
        held.push(next(&mut messages).await);
        assert_eq!(held[usize::from(n)][..], [n]);
    }
    let mut waiting = task::spawn(messages.next());
    assert!(waiting.poll().is_pending());
    breathe().await;
    assert!(waiting.poll().is_pending(), "no buffer, no message");
    drop(held.remove(2));
    until_woken(&mut waiting).await;
    assert_eq!(soon(waiting).await.unwrap().unwrap()[..], [4]);
    for n in 5..20u8 {
        assert_eq!(next(&mut messages).await[..], [n]);
    }
    assert_eq!(held.iter().map(|message| message[0]).collect::<Vec<_>>(), [0, 1, 3]);
}

async fn a_buffer_that_comes_back_on_another_thread_resumes_the_stream(cell: Cell) {
    let (a, b) = cell.half();
    let mut messages = a.messages(small().buffers(1)).unwrap();
    b.send(b"one");
    b.send(b"two");
    let held = next(&mut messages).await;
    let mut waiting = task::spawn(messages.next());
    assert!(waiting.poll().is_pending());
    std::thread::spawn(move || drop(held)).join().unwrap();
    assert_eq!(soon(waiting).await.unwrap().unwrap()[..], b"two"[..]);
}

async fn a_message_too_long_for_a_buffer_is_reported_as_truncated(cell: Cell) {
    let (a, b) = cell.half();
    let mut messages = a.messages(small()).unwrap();
    // From the queue, and while it waits.
    b.send(&[7; 100]);
    let truncated = next(&mut messages).await;
    assert_eq!((truncated.len(), truncated.info().message_len()), (32, 100));
    assert!(truncated.info().truncated());
    let mut waiting = task::spawn(messages.next());
    arm(&mut waiting).await;
    b.send(&[8; 101]);
    let truncated = soon(waiting).await.unwrap().unwrap();
    assert_eq!((truncated.len(), truncated.info().message_len(), truncated[31]), (32, 101, 8));
    b.send(&[9; 32]);
    assert!(!next(&mut messages).await.info().truncated());
}

async fn descriptors_come_with_their_message_and_close_with_it(cell: Cell) {
    let (a, b) = cell.half();
    let mut messages = a.messages(small()).unwrap();
    let (trace, fd) = traced();
    b.send_fds(b"one", &[file("content"), fd]);
    b.send(b"two");
    let mut message = next(&mut messages).await;
    assert_eq!(message.ancillary().fds().len(), 2);
    assert!(message.ancillary().fds().iter().all(is_close_on_exec));
    assert!(!message.info().ancillary_truncated());
    drop(messages);
    assert!(trace.is_open());
    let fds = message.take_fds();
    assert_eq!(content(&fds[0]), "content");
    drop(message);
    assert!(trace.is_open(), "taken");
    drop(fds);
    soon(trace.closed()).await;
    assert_eq!(recv(&a).await, b"two");
}

/// A stream that has received several messages and yielded one.
async fn one_yielded(socket: &UnixSeqpacket) {
    let mut messages = socket.messages(MessagesOptions::new()).unwrap();
    // It receives more at a time the more there are.
    loop {
        drop(next(&mut messages).await);
        if messages.next_buffered().is_some() {
            return;
        }
    }
}

async fn what_a_stream_leaves_goes_to_the_next_receives_in_order(cell: Cell) {
    for way in RecvBy::ALL {
        let (a, b) = cell.half();
        for n in 0..100u8 {
            b.send(&[n, n]);
        }
        one_yielded(&a).await;
        let mut expected = None;
        loop {
            let got = soon(call_variants::recv(way, &a, Room::AMPLE)).await.unwrap();
            let n = got.bytes[0];
            assert_eq!(got.bytes, [n, n]);
            assert_eq!(n, expected.unwrap_or(n), "{way:?}");
            expected = Some(n + 1);
            if n == 99 {
                break;
            }
        }
    }
}

async fn what_a_stream_leaves_keeps_its_descriptors(cell: Cell) {
    let (a, b) = cell.half();
    for _ in 0..40 {
        b.send_fds(b"left", &[file("one"), file("two"), file("three")]);
    }
    one_yielded(&a).await;
    let mut control = [0; size_of::<libc::cmsghdr>() + 8];
    let mut bytes = [0; 8];
    let mut buffers = [IoSliceMut::new(&mut bytes)];
    let (len, reader) =
        soon(a.recv_vectored_with_ancillary(&mut buffers, &mut control)).await.unwrap();
    assert_eq!(len, 4);
    assert!(reader.is_truncated(), "capacity for two of three");
    drop(reader);
    let (info, bytes, mut ancillary) =
        soon(a.recv_owned_with_ancillary(Vec::with_capacity(2), AncillaryBuffer::new())).await;
    let info = info.unwrap();
    assert_eq!((bytes, info.message_len(), info.truncated()), (b"le".to_vec(), 4, true));
    assert_eq!(content(&ancillary.take_fds()[2]), "three");
    let (info, _) = soon(a.recv_owned(Vec::with_capacity(8))).await;
    assert!(info.unwrap().ancillary_truncated(), "descriptors were discarded");
}

async fn a_stream_takes_what_a_dropped_receive_left(cell: Cell) {
    let (a, b) = cell.half();
    let mut buffer = [0; 8];
    let mut receive = task::spawn(a.recv(&mut buffer));
    arm(&mut receive).await;
    b.send(b"one");
    breathe().await;
    drop(receive);
    b.send(b"two");
    let mut messages = a.messages(small()).unwrap();
    assert_eq!(next(&mut messages).await[..], b"one"[..]);
    assert_eq!(next(&mut messages).await[..], b"two"[..]);
}

async fn receives_wait_for_the_end_of_a_stream(cell: Cell) {
    let (a, b) = cell.half();
    let mut messages = a.messages(small()).unwrap();
    let mut buffer = [0; 8];
    let mut receive = task::spawn(a.recv(&mut buffer));
    starts_waiting(&mut receive);
    let error = a.try_recv(&mut [0; 8]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    b.send(b"one");
    b.send(b"two");
    assert_eq!(next(&mut messages).await[..], b"one"[..]);
    assert!(receive.poll().is_pending());
    drop(messages);
    assert_eq!(soon(receive).await.unwrap(), 3);
    assert_eq!(buffer[..3], b"two"[..]);
}

async fn readiness_waits_for_the_end_of_a_stream(cell: Cell) {
    let (a, b) = cell.half();
    let messages = a.messages(small()).unwrap();
    b.send(b"one");
    let mut readable = task::spawn(a.readable());
    starts_waiting(&mut readable);
    let mut polled = task::spawn(std::future::poll_fn(|cx| a.poll_recv(cx, &mut [0; 8])));
    assert!(polled.poll().is_pending());
    soon(a.writable()).await.unwrap();
    drop(messages);
    until_woken(&mut polled).await;
    soon(readable).await.unwrap();
    assert_eq!(soon(polled).await.unwrap(), 3);
}

/// It has received several messages, yields the first, and is dropped: how many it has left.
async fn leaves_some(socket: &UnixSeqpacket, sent: u8) -> u8 {
    let mut messages = socket.messages(MessagesOptions::new()).unwrap();
    let mut left = sent;
    loop {
        drop(next(&mut messages).await);
        left -= 1;
        if !format!("{messages:?}").contains("buffered: 0") {
            return left;
        }
    }
}

/// As [`leaves_some`], and the kernel has none.
async fn leaves_the_last(socket: &UnixSeqpacket) -> u8 {
    let mut messages = socket.messages(MessagesOptions::new()).unwrap();
    let mut last = next(&mut messages).await[0];
    while rustix::io::ioctl_fionread(socket).unwrap() > 0 {
        last = next(&mut messages).await[0];
    }
    last
}

async fn what_a_stream_leaves_wakes_the_receives_that_waited_before_it(cell: Cell) {
    for way in RecvBy::QUEUED {
        let (a, b) = cell.half();
        let mut first = task::spawn(call_variants::recv(way, &a, Room::AMPLE));
        arm(&mut first).await;
        let mut second = task::spawn(call_variants::recv(way, &a, Room::AMPLE));
        arm(&mut second).await;
        for n in 0..100 {
            b.send(&[n, n]);
        }
        let n = 100 - leaves_some(&a, 100).await;
        until_woken(&mut first).await;
        assert_eq!(soon(first).await.unwrap().bytes, [n, n], "{way:?}");
        until_woken(&mut second).await;
        assert_eq!(soon(second).await.unwrap().bytes, [n + 1, n + 1], "{way:?}");
    }
}

async fn what_a_stream_leaves_comes_before_what_the_kernel_has(cell: Cell) {
    for way in RecvBy::ALL {
        let (a, b) = cell.half();
        let mut receive = task::spawn(call_variants::recv(way, &a, Room::AMPLE));
        arm(&mut receive).await;
        for n in 0..100 {
            b.send(&[n, n]);
        }
        let mut n = 100 - leaves_some(&a, 100).await;
        b.send(&[100, 100]);
        assert_eq!(soon(receive).await.unwrap().bytes, [n, n], "{way:?}");
        while n < 100 {
            n += 1;
            assert_eq!(recv(&a).await, [n, n], "{way:?}");
        }
    }
}

async fn what_a_stream_leaves_wakes_those_that_wait_for_readiness(cell: Cell) {
    let (a, b) = cell.half();
    let mut readable = task::spawn(a.readable());
    arm(&mut readable).await;
    let mut peek = task::spawn(a.peek(&mut []));
    arm(&mut peek).await;
    let mut polled = task::spawn(std::future::poll_fn(|cx| a.poll_recv_ready(cx)));
    arm(&mut polled).await;
    for n in 0..100 {
        b.send(&[n, n]);
    }
    let last = leaves_the_last(&a).await;
    assert!(last < 99, "some are left");
    soon(readable).await.unwrap();
    assert_eq!(soon(peek).await.unwrap().message_len(), 2);
    soon(polled).await.unwrap();
    assert_eq!(recv(&a).await, [last + 1; 2]);
}

async fn a_stream_that_is_polled_takes_no_wake_up_from_polls_before_it(cell: Cell) {
    for gets_one in [false, true] {
        let (a, b) = cell.half();
        let mut polled = task::spawn(std::future::poll_fn(|cx| a.poll_recv_ready(cx)));
        arm(&mut polled).await;
        let mut messages = a.messages(small()).unwrap();
        let mut next = task::spawn(std::future::poll_fn(|cx| messages.poll_next(cx)));
        starts_waiting(&mut next);
        if gets_one {
            b.send(b"one");
            until_woken(&mut polled).await;
            starts_waiting(&mut polled);
            assert_eq!(soon(next).await.unwrap().unwrap()[..], b"one"[..]);
        } else {
            drop(next);
        }
        drop(messages);
        b.send(b"two");
        until_woken(&mut polled).await;
        soon(polled).await.unwrap();
        assert_eq!(recv(&a).await, b"two");
    }
}

async fn a_wait_for_both_directions_is_woken_by_the_end_of_a_stream(cell: Cell) {
    let (a, b) = cell.pair();
    fill(&a);
    let messages = a.messages(small()).unwrap();
    let mut ready = task::spawn(a.ready(Interest::READABLE | Interest::WRITABLE));
    starts_waiting(&mut ready);
    breathe().await;
    b.send(b"one").await.unwrap();
    drop(messages);
    until_woken(&mut ready).await;
    assert!(soon(ready).await.unwrap().is_readable());
}

async fn what_a_stream_has_truncated_and_left_reports_its_length(cell: Cell) {
    let lengths = |info: MessageInfo| (info.bytes_read(), info.message_len(), info.truncated());
    let (a, b) = cell.half();
    for _ in 0..100 {
        b.send(b"a message");
    }
    {
        let mut messages = a.messages(MessagesOptions::new().size(1)).unwrap();
        while messages.next_buffered().is_none() {
            assert_eq!(lengths(next(&mut messages).await.info()), (1, 9, true));
        }
    }
    assert_eq!(lengths(soon(a.peek(&mut [0; 16])).await.unwrap()), (1, 9, true), "peeked");
    let mut messages = a.messages(small()).unwrap();
    let message = next(&mut messages).await;
    assert_eq!((&message[..], lengths(message.info())), (&b"a"[..], (1, 9, true)), "a stream");
    drop(messages);
    let (received, bytes) = soon(a.recv_owned(Vec::with_capacity(16))).await;
    assert_eq!((lengths(received.unwrap()), &bytes[..]), ((1, 9, true), &b"a"[..]));
}

/// While there is a stream, a peek waits: it does not poll in a loop.
async fn a_peek_beside_a_stream_waits(cell: Cell) {
    let (a, b) = cell.half();
    let messages = a.messages(small()).unwrap();
    b.send(b"one");
    let mut peek = task::spawn(a.peek(&mut []));
    starts_waiting(&mut peek);
    breathe().await;
    assert!(!peek.is_woken(), "for the end of the stream");
    drop(messages);
    assert_eq!(soon(peek).await.unwrap().message_len(), 3);
}

async fn a_second_stream_is_refused_while_there_is_one(cell: Cell) {
    let (a, b) = cell.half();
    let messages = a.messages(small()).unwrap();
    assert_eq!(a.messages(small()).unwrap_err().kind(), io::ErrorKind::ResourceBusy);
    drop(messages);
    b.send(b"one");
    assert_eq!(next(&mut a.messages(small()).unwrap()).await[..], b"one"[..]);
}

async fn a_reset_is_returned_once_and_the_messages_before_it_follow(cell: Cell) {
    let (a, b) = cell.half();
    a.send(b"unread").await.unwrap();
    for n in 0..10u8 {
        b.send(&[n]);
    }
    drop(b);
    let mut messages = a.messages(MessagesOptions::new()).unwrap();
    let (mut resets, mut got) = (0, Vec::new());
    while let Some(message) = soon(messages.next()).await {
        match message {
            Ok(message) => got.push(message[0]),
            Err(error) => {
                assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
                resets += 1;
            }
        }
    }
    assert_eq!((resets, got), (1, (0..10).collect()));
}

async fn a_stream_of_a_flood_leaves_other_tasks_alive(cell: Cell) {
    let (a, b) = cell.pair();
    let flood = tokio::spawn(async move { while b.send(FILLER).await.is_ok() {} });
    let stream = tokio::spawn(async move {
        let mut messages = a.messages(MessagesOptions::new()).unwrap();
        while let Some(message) = messages.next().await {
            assert_eq!(message.unwrap()[..], FILLER[..]);
        }
    });
    // Another stream on the same thread gets its messages.
    let (c, d) = cell.pair();
    let mut messages = c.messages(small()).unwrap();
    for n in 0..20u8 {
        d.send(&[n]).await.unwrap();
        assert_eq!(next(&mut messages).await[..], [n]);
    }
    stream.abort();
    let _ = soon(stream).await;
    soon(flood).await.unwrap();
}

async fn poll_next_waits_and_is_woken(cell: Cell) {
    let (a, b) = cell.half();
    let mut messages = a.messages(small().buffers(2)).unwrap();
    for n in 0..20u8 {
        let mut polled = task::spawn(std::future::poll_fn(|cx| messages.poll_next(cx)));
        assert!(polled.poll().is_pending());
        b.send(&[n]);
        until_woken(&mut polled).await;
        assert_eq!(soon(polled).await.unwrap().unwrap()[..], [n]);
    }
    b.send(b"one");
    b.send(b"two");
    b.send(b"three");
    let held = [next(&mut messages).await, next(&mut messages).await];
    let mut polled = task::spawn(std::future::poll_fn(|cx| messages.poll_next(cx)));
    assert!(polled.poll().is_pending());
    drop(held);
    until_woken(&mut polled).await;
    assert_eq!(soon(polled).await.unwrap().unwrap()[..], b"three"[..]);
    drop(b);
    assert!(soon(messages.next()).await.is_none());
    assert!(matches!(once(|cx| messages.poll_next(cx)), Poll::Ready(None)));
}

async fn a_stream_of_buffered_messages_yields_to_others(cell: Cell) {
    let (a, b) = cell.half();
    for n in 0..200u8 {
        b.send(&[n]);
    }
    soon(tokio::spawn(async move {
        let mut messages = a.messages(MessagesOptions::new().buffers(256)).unwrap();
        // Until some lie here.
        let mut got = 0;
        loop {
            drop(next(&mut messages).await);
            got += 1;
            let Some(_) = messages.next_buffered() else { continue };
            got += 1;
            break;
        }
        while task::spawn(tokio::task::consume_budget()).poll().is_ready() {}
        assert!(task::spawn(messages.next()).poll().is_pending(), "no budget, no message");
        assert!(once(|cx| messages.poll_next(cx)).is_pending(), "no budget, no message");
        for _ in got..200 {
            drop(next(&mut messages).await);
        }
    }))
    .await
    .unwrap();
}

#[cfg(feature = "stream")]
async fn a_stream_is_a_stream(cell: Cell) {
    use futures_util::StreamExt;

    let (a, b) = cell.half();
    for n in 0..40u8 {
        b.send(&[n]);
    }
    drop(b);
    let messages = a.messages(MessagesOptions::new()).unwrap();
    let bytes = soon(messages.map(|message| message.unwrap()[0]).collect::<Vec<_>>()).await;
    assert_eq!(bytes, (0..40).collect::<Vec<_>>());
}

async fn credentials_come_with_messages(cell: Cell) {
    let (a, b) = cell.pair();
    rustix::net::sockopt::set_socket_passcred(&b, true).unwrap();
    let mut messages = b.messages(small()).unwrap();
    a.send(b"").await.unwrap();
    let message = next(&mut messages).await;
    let pid = std::process::id().try_into().unwrap();
    assert_eq!(message.credentials().unwrap().pid(), Some(pid));
    drop((message, a));
    assert!(soon(messages.next()).await.is_none());
}

async fn a_batch_goes_out_in_order_and_is_counted(cell: Cell) {
    let (a, b) = cell.half();
    let messages: Vec<_> = (0..100u8).map(|n| vec![n; 1 + usize::from(n)]).collect();
    let mut batch = a.batch();
    messages.iter().for_each(|message| batch.push(message));
    assert_eq!((batch.len(), batch.sent()), (100, 0));
    assert_eq!(soon(batch.send()).await.unwrap(), 100);
    assert_eq!(batch.sent(), 100);
    assert_eq!(soon(batch.send()).await.unwrap(), 0);
    assert_eq!(b.arrived(), messages);
    batch.clear();
    batch.push(b"again");
    assert_eq!(soon(batch.send()).await.unwrap(), 1);
    assert_eq!(b.recv(), b"again");
}

async fn a_batch_on_a_full_queue_stands_in_line(cell: Cell) {
    let (a, b) = cell.half();
    fill(&a);
    let mut first = task::spawn(a.send(b"first"));
    arm(&mut first).await;
    let mut batch = a.batch();
    batch.push(b"second");
    batch.push(b"third");
    let mut sending = task::spawn(batch.send());
    arm(&mut sending).await;
    let mut last = task::spawn(a.send(b"last"));
    arm(&mut last).await;
    let reading = async {
        let mut got = Vec::new();
        while got.len() < 4 {
            let message = b.next().await.unwrap();
            if message != FILLER {
                got.push(message);
            }
        }
        got
    };
    let (first, sent, last, got) =
        soon(async { tokio::join!(first, sending, last, reading) }).await;
    first.unwrap();
    assert_eq!(sent.unwrap(), 2);
    last.unwrap();
    // A batch is not one message: another sender may come between two of its messages.
    let position = |what: &[u8]| got.iter().position(|message| message == what).unwrap();
    assert_eq!((position(b"first"), position(b"second")), (0, 1));
    assert!(position(b"second") < position(b"third"));
    assert!(position(b"second") < position(b"last"));
}

async fn a_batch_send_that_is_dropped_goes_on_where_it_was(cell: Cell) {
    let (a, b) = cell.pair();
    let filled = fill(&a);
    let messages: Vec<_> = (0..30u8).map(|n| [n]).collect();
    let mut batch = a.batch();
    messages.iter().for_each(|message| batch.push(message));
    for _ in 0..5 {
        let mut sending = task::spawn(batch.send());
        arm(&mut sending).await;
        drop(sending);
        breathe().await;
        assert_eq!(batch.sent(), 0);
    }
    let reading = async {
        for _ in 0..filled {
            assert_eq!(recv(&b).await, FILLER);
        }
        for n in 0..30u8 {
            assert_eq!(recv(&b).await, [n], "once and in order");
        }
    };
    let (sent, ()) = soon(async { tokio::join!(batch.send(), reading) }).await;
    assert_eq!(sent.unwrap(), 30);
}

async fn a_batch_that_is_dropped_takes_its_messages_out_of_the_line(cell: Cell) {
    let (a, b) = cell.pair();
    let filled = fill(&a);
    let mut batch = a.batch();
    batch.push(b"whole or never");
    batch.push(b"never");
    let mut sending = task::spawn(batch.send());
    arm(&mut sending).await;
    drop(sending);
    drop(batch);
    let after = a.send(b"after");
    let reading = async {
        for _ in 0..filled {
            assert_eq!(recv(&b).await, FILLER);
        }
        let mut next = recv(&b).await;
        // The send that waited is still with the kernel until the drop has completed.
        if next == b"whole or never" {
            next = recv(&b).await;
        }
        assert_eq!(next, b"after");
    };
    let (sent, ()) = soon(async { tokio::join!(after, reading) }).await;
    sent.unwrap();
}

async fn an_error_in_a_batch_reports_how_many_went_out(cell: Cell) {
    let (a, b) = cell.half();
    let long = vec![0; 8 << 20];
    let mut batch = a.batch();
    batch.push(b"one");
    batch.push(b"two");
    batch.push(&long);
    batch.push(b"four");
    let error = soon(batch.send()).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    assert!(error.to_string().contains("8388608"), "{error}");
    assert_eq!((batch.sent(), b.arrived()), (2, vec![b"one".to_vec(), b"two".to_vec()]));
    batch.skip();
    assert_eq!(soon(batch.send()).await.unwrap(), 1);
    assert_eq!(b.recv(), b"four");
    drop(b);
    batch.push(b"five");
    assert_eq!(soon(batch.send()).await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    assert_eq!(batch.sent(), 3);
}

async fn a_batch_carries_descriptors(cell: Cell) {
    for full in [false, true] {
        let (a, b) = cell.pair();
        let filled = if full { fill(&a) } else { 0 };
        let ancillaries: Vec<AncillaryBuffer> =
            (0..5).map(|n| (0..n).map(|at| file(&format!("{n}/{at}"))).collect()).collect();
        let mut batch = a.batch();
        for ancillary in &ancillaries {
            batch.push_with_ancillary(b"files", ancillary).unwrap();
        }
        let reading = async {
            for _ in 0..filled {
                assert_eq!(recv(&b).await, FILLER);
            }
            for n in 0..5 {
                let (info, _, mut ancillary) = b
                    .recv_owned_with_ancillary(Vec::with_capacity(8), AncillaryBuffer::new())
                    .await;
                assert_eq!(info.unwrap().bytes_read(), 5);
                let contents: Vec<_> = ancillary.drain_fds().map(|fd| content(&fd)).collect();
                let expected: Vec<_> = (0..n).map(|at| format!("{n}/{at}")).collect();
                assert_eq!(contents, expected);
            }
        };
        let (sent, ()) = soon(async { tokio::join!(batch.send(), reading) }).await;
        assert_eq!(sent.unwrap(), 5);
    }
    let (a, _b) = cell.pair();
    let too_many: AncillaryBuffer =
        (0..254).map(|_| file("")).collect::<Vec<OwnedFd>>().into_iter().collect();
    let mut batch = a.batch();
    let error = batch.push_with_ancillary(b"", &too_many).unwrap_err();
    assert_eq!((error.kind(), batch.len()), (io::ErrorKind::InvalidInput, 0));
}

async fn recv_batch(socket: &UnixSeqpacket, count: usize) -> Vec<Vec<u8>> {
    let mut bytes = vec![[0; 16]; count];
    let mut buffers: Vec<_> = bytes.iter_mut().map(|bytes| IoSliceMut::new(bytes)).collect();
    let mut infos = Vec::new();
    let received = soon(socket.recv_batch(&mut buffers, &mut infos)).await.unwrap();
    assert_eq!(received, infos.len());
    infos.iter().zip(bytes).map(|(info, bytes)| bytes[..info.bytes_read()].to_vec()).collect()
}

async fn receiving_a_batch_takes_what_is_there(cell: Cell) {
    let (a, b) = cell.half();
    for n in 0..50u8 {
        b.send(&[n]);
    }
    let mut got = Vec::new();
    while got.len() < 50 {
        let more = recv_batch(&a, 20).await;
        assert!(!more.is_empty() && more.len() <= 20);
        got.extend(more);
    }
    assert_eq!(got, (0..50u8).map(|n| vec![n]).collect::<Vec<_>>());
    b.send_fds(b"discarded", &[file("")]);
    let mut bytes = [0; 4];
    let mut infos = Vec::new();
    let mut buffers = [IoSliceMut::new(&mut bytes)];
    soon(a.recv_batch(&mut buffers, &mut infos)).await.unwrap();
    assert!(infos[0].truncated() && infos[0].ancillary_truncated());
    assert_eq!(
        soon(a.recv_batch(&mut [], &mut infos)).await.unwrap_err().kind(),
        io::ErrorKind::InvalidInput
    );
}

async fn receiving_a_batch_waits_for_the_first_only(cell: Cell) {
    let (a, b) = cell.half();
    let mut bytes = [[0; 16]; 3];
    let mut buffers: Vec<_> = bytes.iter_mut().map(|bytes| IoSliceMut::new(bytes)).collect();
    let mut infos = Vec::new();
    let mut receive = task::spawn(a.recv_batch(&mut buffers, &mut infos));
    arm(&mut receive).await;
    b.send(b"one");
    assert_eq!(soon(receive).await.unwrap(), 1);
    assert_eq!(bytes[0][..3], b"one"[..]);
}

async fn receiving_a_batch_at_the_end_reports_it_once(cell: Cell) {
    let (a, b) = cell.half();
    b.send(b"one");
    b.send(b"two");
    drop(b);
    assert_eq!(recv_batch(&a, 10).await, [b"one".to_vec(), b"two".to_vec(), vec![]]);
    assert_eq!(recv_batch(&a, 10).await, [vec![]]);
}

async fn receiving_a_batch_takes_what_a_dropped_receive_left_first(cell: Cell) {
    let (a, b) = cell.half();
    let mut buffer = [0; 8];
    let mut receive = task::spawn(a.recv(&mut buffer));
    arm(&mut receive).await;
    b.send(b"one");
    breathe().await;
    drop(receive);
    b.send(b"two");
    let mut got = recv_batch(&a, 10).await;
    if got.len() == 1 {
        got.extend(recv_batch(&a, 10).await);
    }
    assert_eq!(got, [b"one", b"two"]);
}

async fn a_batch_of_receives_that_is_dropped_loses_nothing(cell: Cell) {
    let (a, b) = cell.half();
    for n in 0..20u8 {
        let mut bytes = [[0; 16]; 3];
        let mut buffers: Vec<_> = bytes.iter_mut().map(|bytes| IoSliceMut::new(bytes)).collect();
        let mut infos = Vec::new();
        let mut receive = task::spawn(a.recv_batch(&mut buffers, &mut infos));
        arm(&mut receive).await;
        b.send(&[n]);
        drop(receive);
        assert_eq!(recv(&a).await, [n]);
    }
}

async fn an_empty_message_that_a_dropped_receive_left_does_not_end_a_stream(cell: Cell) {
    let (a, b) = cell.half();
    let mut buffer = [0; 8];
    let mut receive = task::spawn(a.recv(&mut buffer));
    assert!(receive.poll().is_pending());
    b.send(b"");
    breathe().await;
    drop(receive);
    b.send(b"second");
    let mut messages = a.messages(MessagesOptions::new()).unwrap();
    for expected in [&b""[..], b"second"] {
        let message = soon(messages.next()).await.expect("not the end").expect("a message");
        assert_eq!(message[..], *expected);
    }
    drop(b.fd);
    assert!(soon(messages.next()).await.is_none());
}
