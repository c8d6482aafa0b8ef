//! G5 and G8: received descriptors are owned and close-on-exec, and none leaks; truncation is reported. And credentials.

use std::future::poll_fn;
use std::io::IoSliceMut;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::net::sockopt;
use tokio_seqpacket::UCred;
use tokio_seqpacket::ancillary::{
    AncillaryBuffer, AncillaryMessage, AncillaryMessageWriter, OwnedAncillaryMessage,
};
use tokio_test::task;

use crate::harness::call_variants::{self, CONTROL, RecvBy, Room, SendBy};
use crate::harness::descriptors::{Trace, content, file, is_close_on_exec, traced};
use crate::harness::messages::{fill, nothing_is_left, recv};
use crate::harness::peer::Peer;
use crate::harness::waiting::{arm, breathe, once, soon, starts_waiting, until_woken};
use crate::harness::{Cell, Test};

pub fn tests() -> Vec<Test> {
    tasks![
        descriptors_arrive_open_and_close_on_exec,
        an_owned_send_gives_its_descriptors_back,
        descriptors_that_are_not_taken_are_closed,
        descriptors_of_an_owned_control_buffer_are_closed_when_it_is_used_again,
        the_surplus_descriptor_in_capacity_for_one_is_owned_and_closed,
        too_little_control_capacity_is_reported_and_the_rest_closed,
        data_and_control_truncation_are_distinguished,
        a_borrowed_receive_says_all_that_is_known,
        control_truncation_is_reported_for_a_message_left_by_a_dropped_receive,
        descriptors_in_a_message_left_by_a_dropped_receive_are_closed_with_the_socket,
        descriptors_in_the_queue_are_closed_with_the_socket,
        an_empty_message_carries_descriptors,
        a_control_buffer_may_lie_anywhere,
        two_hundred_and_fifty_three_descriptors_arrive,
        two_hundred_and_fifty_four_descriptors_are_refused_naming_the_limit,
        descriptors_in_two_control_messages_arrive_together,
        the_file_that_was_passed_arrives_though_its_number_was_reused,
        a_polled_send_passes_the_file_of_the_call_that_succeeds,
        credentials_come_with_every_message_while_they_are_asked_for,
        credentials_come_with_descriptors,
        credentials_without_capacity_are_reported,
        credentials_can_be_sent,
        credentials_of_no_process_are_refused_and_nothing_is_sent,
        a_socket_can_be_passed_over_a_socket,
    ]
}

async fn descriptors_arrive_open_and_close_on_exec(cell: Cell) {
    let (a, b) = cell.pair();
    for sending in SendBy::ALL.into_iter().filter(|way| way.carries_fds()) {
        for receiving in RecvBy::ALL.into_iter().filter(|way| way.carries_fds()) {
            for waiting in [false, true] {
                let text = format!("{sending:?} to {receiving:?}");
                let fds = [file(&text), file("another")];
                let mut receive = task::spawn(call_variants::recv(receiving, &b, Room::AMPLE));
                if waiting {
                    starts_waiting(&mut receive);
                }
                soon(call_variants::send(sending, &a, text.as_bytes(), &fds)).await.unwrap();
                let got = soon(receive).await.unwrap();
                assert_eq!(got.bytes, text.as_bytes());
                assert_eq!(got.control_truncated, Some(false), "{text}");
                assert_eq!(got.fds.len(), 2, "{text}");
                assert_eq!(content(&got.fds[0]), text);
                assert_eq!(content(&got.fds[1]), "another", "{text}");
                assert!(got.fds.iter().all(is_close_on_exec), "{text}");
            }
        }
    }
}

async fn an_owned_send_gives_its_descriptors_back(cell: Cell) {
    let (a, peer) = cell.half();
    let fd = file("kept");
    let number = fd.as_raw_fd();
    let mut ancillary = AncillaryBuffer::new();
    ancillary.push_fd(fd).unwrap();
    for parked in [false, true] {
        if parked {
            fill(&a);
        }
        let mut send = task::spawn(a.send_owned_with_ancillary(b"message".to_vec(), ancillary));
        if parked {
            arm(&mut send).await;
            peer.drain();
        }
        let (sent, bytes, back) = soon(send).await;
        assert_eq!((sent.unwrap(), &bytes[..]), (7, &b"message"[..]));
        assert_eq!(back.fds()[0].as_raw_fd(), number);
        assert_eq!(content(&back.fds()[0]), "kept");
        assert_eq!(peer.arrived(), [b"message"]);
        ancillary = back;
    }
}

/// Send a message with a descriptor that leaves no duplicate here.
fn send_traced(peer: &Peer, count: usize) -> Vec<Trace> {
    let (traces, fds): (Vec<_>, Vec<_>) = (0..count).map(|_| traced()).unzip();
    peer.send_fds(b"message", &fds);
    traces
}

async fn all_closed(traces: Vec<Trace>) {
    for trace in traces {
        trace.closed().await;
    }
}

async fn descriptors_that_are_not_taken_are_closed(cell: Cell) {
    let (a, peer) = cell.half();
    for way in RecvBy::ALL {
        for waiting in [false, true] {
            let mut receive =
                task::spawn(call_variants::recv(way, &a, Room { bytes: 3, control: CONTROL }));
            if waiting {
                arm(&mut receive).await;
            }
            let traces = send_traced(&peer, 3);
            let got = soon(receive).await.unwrap();
            assert_eq!(got.bytes, b"mes");
            if way.carries_fds() {
                assert!(traces.iter().all(Trace::is_open), "{way:?}");
            }
            drop(got);
            all_closed(traces).await;
        }
    }

    // With the reader.
    let traces = send_traced(&peer, 3);
    let (mut buffer, mut control) = ([0; 16], [0; CONTROL]);
    let (_, reader) = soon(a.recv_with_ancillary(&mut buffer, &mut control)).await.unwrap();
    assert_eq!(reader.messages().count(), 1);
    assert!(traces.iter().all(Trace::is_open));
    drop(reader);
    all_closed(traces).await;

    // With iterators that are not used up.
    let traces = send_traced(&peer, 3);
    let (_, reader) = soon(a.recv_with_ancillary(&mut buffer, &mut control)).await.unwrap();
    drop(reader.into_messages());
    all_closed(traces).await;

    let traces = send_traced(&peer, 3);
    let (_, reader) = soon(a.recv_with_ancillary(&mut buffer, &mut control)).await.unwrap();
    let taken = match reader.into_messages().next() {
        Some(OwnedAncillaryMessage::FileDescriptors(mut fds)) => {
            assert_eq!(fds.len(), 3);
            fds.next().unwrap()
        }
        _ => panic!("no descriptors"),
    };
    let mut traces = traces.into_iter();
    let first = traces.next().unwrap();
    all_closed(traces.collect()).await;
    assert!(first.is_open());
    drop(taken);
    first.closed().await;
}

async fn descriptors_of_an_owned_control_buffer_are_closed_when_it_is_used_again(cell: Cell) {
    let (a, peer) = cell.half();
    let first = send_traced(&peer, 2);
    let (info, _, ancillary) =
        soon(a.recv_owned_with_ancillary(Vec::with_capacity(16), AncillaryBuffer::new())).await;
    assert_eq!((info.unwrap().bytes_read(), ancillary.fds().len()), (7, 2));
    assert!(first.iter().all(Trace::is_open));
    let second = send_traced(&peer, 1);
    let (_, _, mut ancillary) =
        soon(a.recv_owned_with_ancillary(Vec::with_capacity(16), ancillary)).await;
    all_closed(first).await;
    assert_eq!(ancillary.fds().len(), 1);
    assert!(second.iter().all(Trace::is_open));
    drop(ancillary.drain_fds());
    assert!(ancillary.is_empty());
    all_closed(second).await;
    // A message without any empties it, too.
    ancillary.push_fd(file("old")).unwrap();
    peer.send(b"plain");
    let (_, _, ancillary) =
        soon(a.recv_owned_with_ancillary(Vec::with_capacity(16), ancillary)).await;
    assert!(ancillary.is_empty(), "{ancillary:?}");
}

/// `CMSG_SPACE` for one descriptor, in which the kernel finds space for two (alignment).
const CAPACITY_FOR_ONE: usize = 24;

async fn the_surplus_descriptor_in_capacity_for_one_is_owned_and_closed(cell: Cell) {
    let (a, peer) = cell.half();
    let borrowed = [RecvBy::Ancillary, RecvBy::PollVectoredAncillary, RecvBy::TryVectoredAncillary];
    for way in borrowed {
        for waiting in [false, true] {
            let room = Room { bytes: 16, control: CAPACITY_FOR_ONE };
            let mut receive = task::spawn(call_variants::recv(way, &a, room));
            if waiting {
                arm(&mut receive).await;
            }
            let traces = send_traced(&peer, 2);
            let got = soon(receive).await.unwrap();
            // Two, or one and a report of truncation.
            assert_eq!(got.fds.len() == 1, got.control_truncated.unwrap(), "{way:?}");
            assert_eq!(got.fds.len(), traces.iter().filter(|trace| trace.is_open()).count());
            drop(got);
            all_closed(traces).await;
        }
    }
}

async fn too_little_control_capacity_is_reported_and_the_rest_closed(cell: Cell) {
    let (a, peer) = cell.half();
    let borrowed = [
        RecvBy::Ancillary,
        RecvBy::VectoredAncillary,
        RecvBy::PollVectoredAncillary,
        RecvBy::TryVectoredAncillary,
    ];
    for way in borrowed {
        for waiting in [false, true] {
            for control in [0, 1, 15, 16, CAPACITY_FOR_ONE, 32] {
                let mut receive =
                    task::spawn(call_variants::recv(way, &a, Room { bytes: 16, control }));
                if waiting {
                    arm(&mut receive).await;
                }
                let traces = send_traced(&peer, 9);
                let got = soon(receive).await.unwrap();
                assert_eq!(got.bytes, b"message");
                assert_eq!(got.control_truncated, Some(true), "{way:?} {control}");
                let most = control.saturating_sub(size_of::<libc::cmsghdr>()) / 4;
                assert!(got.fds.len() <= most, "{way:?} {control}: {}", got.fds.len());
                if control >= CAPACITY_FOR_ONE {
                    assert!(!got.fds.is_empty(), "{way:?} {control}");
                }
                assert!(got.fds.iter().all(is_close_on_exec));
                drop(got);
                all_closed(traces).await;
            }
        }
    }
}

async fn data_and_control_truncation_are_distinguished(cell: Cell) {
    let (a, peer) = cell.half();
    for way in RecvBy::ALL {
        for bytes in [3, 7] {
            for with_fd in [false, true] {
                for waiting in [false, true] {
                    let mut receive =
                        task::spawn(call_variants::recv(way, &a, Room { bytes, control: 0 }));
                    if waiting {
                        starts_waiting(&mut receive);
                    }
                    let traces = if with_fd {
                        send_traced(&peer, 1)
                    } else {
                        peer.send(b"message");
                        Vec::new()
                    };
                    let got = soon(receive).await.unwrap();
                    assert_eq!(got.bytes, b"message"[..bytes]);
                    // An owned control buffer has capacity in any case.
                    let expected = with_fd && !(way.is_owned() && way.carries_fds());
                    if let Some(info) = got.info {
                        assert_eq!(info.bytes_read(), bytes);
                        assert_eq!(info.message_len(), 7);
                        assert_eq!(info.truncated(), bytes < 7);
                        // Without capacity for descriptors the call need not report them.
                        if way.carries_fds() || !expected {
                            assert_eq!(info.ancillary_truncated(), expected, "{way:?}");
                        }
                    }
                    if let Some(truncated) = got.control_truncated {
                        assert_eq!(truncated, expected, "{way:?} {bytes} {with_fd}");
                    }
                    drop(got);
                    all_closed(traces).await;
                }
            }
        }
    }
}

async fn a_borrowed_receive_says_all_that_is_known(cell: Cell) {
    let (a, peer) = cell.half();
    let (mut buffer, mut control) = ([0; 4], [0; CONTROL]);
    peer.send_fds(b"longer", &[file("one")]);
    peer.send(b"");
    peer.send_fds(b"four", &[file("one")]);
    {
        let mut parts = [IoSliceMut::new(&mut buffer)];
        let (info, reader) = soon(a.recv_message(&mut parts, &mut control)).await.unwrap();
        assert_eq!((info.bytes_read(), info.message_len()), (4, 6));
        assert!(info.truncated() && !info.ancillary_truncated());
        assert_ne!(info.end_of_stream(), Some(true));
        assert_eq!(reader.messages().count(), 1);
    }
    {
        let mut parts = [IoSliceMut::new(&mut buffer)];
        let (info, _) = soon(a.recv_message(&mut parts, &mut control)).await.unwrap();
        assert_eq!(info.message_len(), 0);
        assert_ne!(info.end_of_stream(), Some(true));
    }
    {
        let mut parts = [IoSliceMut::new(&mut buffer)];
        let (info, reader) = soon(a.recv_message(&mut parts, &mut [])).await.unwrap();
        assert!(!info.truncated() && info.ancillary_truncated() && reader.is_truncated());
    }
    peer.send_fds(b"poll", &[file("one")]);
    let polled = poll_fn(|cx| {
        let polled = a.poll_recv_with_ancillary(cx, &mut buffer, &mut control);
        polled.map_ok(|(len, reader)| (len, reader.messages().count()))
    });
    assert_eq!(soon(polled).await.unwrap(), (4, 1));
    drop(peer);
    let mut parts = [IoSliceMut::new(&mut buffer)];
    let (info, _) = soon(a.recv_message(&mut parts, &mut control)).await.unwrap();
    assert_eq!(info.message_len(), 0);
    assert_ne!(info.end_of_stream(), Some(false));
}

async fn control_truncation_is_reported_for_a_message_left_by_a_dropped_receive(cell: Cell) {
    let (a, peer) = cell.half();
    for way in RecvBy::ALL {
        let mut receive = task::spawn(call_variants::recv(RecvBy::OwnedAncillary, &a, Room::AMPLE));
        arm(&mut receive).await;
        let traces = send_traced(&peer, 5);
        drop(receive);
        let got = soon(call_variants::recv(way, &a, Room { bytes: 3, control: CAPACITY_FOR_ONE }))
            .await
            .unwrap();
        assert_eq!(got.bytes, b"mes");
        let expected = !(way.is_owned() && way.carries_fds());
        if let Some(info) = got.info {
            assert_eq!((info.message_len(), info.truncated()), (7, true));
            assert_eq!(info.ancillary_truncated(), expected, "{way:?}");
        }
        if let Some(truncated) = got.control_truncated {
            assert_eq!(truncated, expected, "{way:?}");
        }
        drop(got);
        all_closed(traces).await;
    }
}

async fn descriptors_in_a_message_left_by_a_dropped_receive_are_closed_with_the_socket(cell: Cell) {
    for way in RecvBy::QUEUED {
        for completed in [false, true] {
            let (a, peer) = cell.half();
            let mut receive = task::spawn(call_variants::recv(way, &a, Room::AMPLE));
            arm(&mut receive).await;
            let traces = send_traced(&peer, 2);
            if completed {
                until_woken(&mut receive).await;
            }
            drop(receive);
            drop(a);
            all_closed(traces).await;
            soon(peer.ended()).await;
        }
    }
}

async fn descriptors_in_the_queue_are_closed_with_the_socket(cell: Cell) {
    let (a, peer) = cell.half();
    let mut traces = send_traced(&peer, 2);
    traces.extend(send_traced(&peer, 1));
    drop(a);
    all_closed(traces).await;
}

async fn an_empty_message_carries_descriptors(cell: Cell) {
    let (a, b) = cell.pair();
    for sending in SendBy::ALL.into_iter().filter(|way| way.carries_fds()) {
        soon(call_variants::send(sending, &a, b"", &[file("beside nothing")])).await.unwrap();
        let got = soon(call_variants::recv(RecvBy::OwnedAncillary, &b, Room::AMPLE)).await.unwrap();
        assert_eq!((got.bytes.len(), got.fds.len()), (0, 1));
        assert_eq!(content(&got.fds[0]), "beside nothing");
    }
}

async fn a_control_buffer_may_lie_anywhere(cell: Cell) {
    let (a, b) = cell.pair();
    let fds = [file("a file")];
    for shift in 0..9 {
        for waiting in [false, true] {
            let mut memory = [0xff; 128];
            let control = &mut memory[shift..shift + 64];
            let mut bytes = [0; 16];
            let mut parts = [IoSliceMut::new(&mut bytes)];
            let mut receive = task::spawn(b.recv_vectored_with_ancillary(&mut parts, control));
            if waiting {
                starts_waiting(&mut receive);
            }
            let mut memory = [0xff; 128];
            let mut writer = AncillaryMessageWriter::new(&mut memory[shift..]);
            writer.add_fds(&[&fds[0]]).unwrap();
            soon(a.send_with_ancillary(b"message", &mut writer)).await.unwrap();
            let (_, reader) = soon(receive).await.unwrap();
            let Some(AncillaryMessage::FileDescriptors(fds)) = reader.messages().next() else {
                panic!("no descriptors");
            };
            let fd = fds.get(0).unwrap().try_clone_to_owned().unwrap();
            assert_eq!(content(&fd), "a file");
        }
    }
}

fn many(count: usize) -> Vec<OwnedFd> {
    let one = file("one of many");
    (0..count).map(|_| one.try_clone().unwrap()).collect()
}

async fn two_hundred_and_fifty_three_descriptors_arrive(cell: Cell) {
    let (a, b) = cell.pair();
    let fds = many(253);
    for sending in SendBy::ALL.into_iter().filter(|way| way.carries_fds()) {
        for receiving in [RecvBy::VectoredAncillary, RecvBy::OwnedAncillary] {
            soon(call_variants::send(sending, &a, b"message", &fds)).await.unwrap();
            let got = soon(call_variants::recv(receiving, &b, Room::AMPLE)).await.unwrap();
            assert_eq!(got.fds.len(), 253, "{sending:?} to {receiving:?}");
            assert_eq!(got.control_truncated, Some(false));
            assert_eq!(content(&got.fds[252]), "one of many");
        }
    }
}

async fn two_hundred_and_fifty_four_descriptors_are_refused_naming_the_limit(cell: Cell) {
    let fds = many(254);
    for way in SendBy::ALL.into_iter().filter(|way| way.carries_fds()) {
        let (a, peer) = cell.half();
        let error = soon(call_variants::send(way, &a, b"message", &fds)).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput, "{way:?}");
        assert!(error.to_string().contains("253"), "{way:?}: {error}");
        soon(call_variants::send(way, &a, b"next", &fds[..1])).await.unwrap();
        assert_eq!(peer.arrived(), [b"next"], "{way:?}");
    }
    // Also from the middle of the queue.
    let (a, peer) = cell.half();
    fill(&a);
    let mut before = task::spawn(call_variants::send(SendBy::Ancillary, &a, b"before", &fds[..1]));
    starts_waiting(&mut before);
    let mut refused =
        task::spawn(call_variants::send(SendBy::OwnedAncillary, &a, b"refused", &fds));
    let early = refused.poll();
    let mut after = task::spawn(call_variants::send(SendBy::Plain, &a, b"after", &[]));
    starts_waiting(&mut after);
    peer.drain();
    soon(before).await.unwrap();
    let error = match early {
        std::task::Poll::Ready(sent) => sent.unwrap_err(),
        std::task::Poll::Pending => soon(refused).await.unwrap_err(),
    };
    assert!(error.to_string().contains("253"), "{error}");
    soon(after).await.unwrap();
    assert_eq!(peer.arrived(), [b"before".to_vec(), b"after".to_vec()]);

    let mut ancillary = AncillaryBuffer::new();
    for fd in many(253) {
        ancillary.push_fd(fd).unwrap();
    }
    let error = ancillary.push_fd(file("one too many")).unwrap_err();
    assert!(error.to_string().contains("253"), "{error}");
}

async fn descriptors_in_two_control_messages_arrive_together(cell: Cell) {
    let (a, b) = cell.pair();
    let fds = [file("first"), file("second"), file("third")];
    let mut control = [0; 256];
    let mut writer = AncillaryMessageWriter::new(&mut control);
    writer.add_fds(&[&fds[0], &fds[1]]).unwrap();
    writer.add_fds(&[fds[2].as_fd()]).unwrap();
    soon(a.send_with_ancillary(b"message", &mut writer)).await.unwrap();
    let got = soon(call_variants::recv(RecvBy::Ancillary, &b, Room::AMPLE)).await.unwrap();
    let contents: Vec<_> = got.fds.iter().map(content).collect();
    assert_eq!(contents, ["first", "second", "third"]);
}

async fn the_file_that_was_passed_arrives_though_its_number_was_reused(cell: Cell) {
    for way in SendBy::QUEUED.into_iter().filter(|way| way.carries_fds()) {
        for armed in [false, true] {
            let (a, peer) = cell.half();
            fill(&a);
            let right = [file("right")];
            let mut send = task::spawn(call_variants::send(way, &a, b"message", &right));
            starts_waiting(&mut send);
            if armed {
                arm(&mut send).await;
            }
            // The borrow, or the duplicate that the send owns, ends here. So does the raw fd.
            drop(send);
            drop(right);
            let _wrong: Vec<_> = (0..8).map(|_| file("wrong")).collect();
            for _ in 0..3 {
                while let Ok((bytes, fds)) = peer.try_recv_fds() {
                    if bytes == b"message" {
                        assert_eq!(content(&fds[0]), "right", "{way:?}");
                    } else {
                        assert!(fds.is_empty());
                    }
                }
                breathe().await;
            }
        }
    }
}

async fn a_polled_send_passes_the_file_of_the_call_that_succeeds(cell: Cell) {
    let (a, peer) = cell.half();
    fill(&a);
    let poll = |text: &str| {
        let fd = file(text);
        let mut control = [0; 64];
        let mut writer = AncillaryMessageWriter::new(&mut control);
        writer.add_fds(&[&fd]).unwrap();
        once(|cx| a.poll_send_with_ancillary(cx, text.as_bytes(), &mut writer))
    };
    // Each closes its file, and the next one gets the raw fd.
    assert!(poll("first").is_pending());
    breathe().await;
    assert!(poll("second").is_pending());
    breathe().await;
    peer.drain();
    assert!(peer.arrived().is_empty());
    soon(a.writable()).await.unwrap();
    let sent = soon(async {
        loop {
            if let std::task::Poll::Ready(sent) = poll("third") {
                return sent;
            }
            breathe().await;
        }
    })
    .await;
    assert_eq!(sent.unwrap(), 5);
    let (bytes, fds) = peer.try_recv_fds().unwrap();
    assert_eq!((&bytes[..], &content(&fds[0])[..]), (&b"third"[..], "third"));
    breathe().await;
    assert!(peer.try_recv().is_err());
}

async fn credentials_come_with_every_message_while_they_are_asked_for(cell: Cell) {
    let (a, peer) = cell.half();
    sockopt::set_socket_passcred(&a, true).unwrap();
    let me = UCred::from_current_process();
    for waiting in [false, true] {
        for dropped in [false, true] {
            if dropped {
                let mut receive = task::spawn(call_variants::recv(RecvBy::Plain, &a, Room::TIGHT));
                arm(&mut receive).await;
            }
            let (mut bytes, mut control) = ([0; 16], [0; 64]);
            let mut receive = task::spawn(a.recv_with_ancillary(&mut bytes, &mut control));
            if waiting {
                starts_waiting(&mut receive);
            }
            peer.send(b"message");
            let (_, reader) = soon(receive).await.unwrap();
            assert!(!reader.is_truncated());
            let Some(AncillaryMessage::Credentials(credentials)) = reader.messages().next() else {
                panic!("no credentials");
            };
            assert_eq!((credentials.len(), credentials.get(0)), (1, Some(me)));

            let mut receive = task::spawn(
                a.recv_owned_with_ancillary(Vec::with_capacity(16), AncillaryBuffer::new()),
            );
            if waiting {
                starts_waiting(&mut receive);
            }
            peer.send(b"message");
            let (info, _, ancillary) = soon(receive).await;
            assert!(!info.unwrap().ancillary_truncated());
            assert_eq!(ancillary.credentials(), Some(me));
        }
    }
    // End of stream comes without.
    drop(peer);
    let (_, _, ancillary) =
        soon(a.recv_owned_with_ancillary(Vec::with_capacity(16), AncillaryBuffer::new())).await;
    assert!(ancillary.is_empty());
}

async fn credentials_come_with_descriptors(cell: Cell) {
    let (a, peer) = cell.half();
    sockopt::set_socket_passcred(&a, true).unwrap();
    peer.send_fds(b"message", &many(253));
    let got = soon(a.recv_owned_with_ancillary(vec![0; 16], AncillaryBuffer::new())).await;
    assert!(!got.0.unwrap().ancillary_truncated());
    assert_eq!(got.2.fds().len(), 253);
    assert_eq!(got.2.credentials(), Some(UCred::from_current_process()));
}

async fn credentials_without_capacity_are_reported(cell: Cell) {
    let (a, peer) = cell.half();
    a.set_pass_credentials(true).unwrap();
    for waiting in [false, true] {
        let mut receive = task::spawn(a.recv_owned(vec![0; 16]));
        if waiting {
            starts_waiting(&mut receive);
        }
        peer.send(b"message");
        let (info, _) = soon(receive).await;
        let info = info.unwrap();
        assert!(info.ancillary_truncated() && !info.truncated());
        peer.send(b"message");
        assert_eq!(recv(&a).await, b"message");
    }
}

async fn credentials_can_be_sent(cell: Cell) {
    let (a, b) = cell.pair();
    sockopt::set_socket_passcred(&b, true).unwrap();
    let me = UCred::from_current_process();
    let mut control = [0; 64];
    let mut writer = AncillaryMessageWriter::new(&mut control);
    writer.add_ucreds(&[me]).unwrap();
    soon(a.send_with_ancillary(b"message", &mut writer)).await.unwrap();
    let got = soon(b.recv_owned_with_ancillary(vec![0; 16], AncillaryBuffer::new())).await;
    assert_eq!(got.2.credentials(), Some(me));

    let mut ancillary = AncillaryBuffer::new();
    ancillary.set_credentials(Some(me));
    ancillary.push_fd(file("with credentials")).unwrap();
    let (sent, _, ancillary) = soon(a.send_owned_with_ancillary("message", ancillary)).await;
    assert_eq!(sent.unwrap(), 7);
    assert_eq!((ancillary.credentials(), ancillary.fds().len()), (Some(me), 1));
    let got = soon(b.recv_owned_with_ancillary(vec![0; 16], AncillaryBuffer::new())).await;
    assert_eq!((got.2.credentials(), got.2.fds().len()), (Some(me), 1));
}

async fn credentials_of_no_process_are_refused_and_nothing_is_sent(cell: Cell) {
    let (a, peer) = cell.half();
    let no_process = UCred::new(rustix::process::getuid().as_raw(), 0, i32::MAX - 1);
    let mut ancillary = AncillaryBuffer::new();
    ancillary.set_credentials(Some(no_process));
    let (sent, bytes, _) = soon(a.send_owned_with_ancillary(b"refused".to_vec(), ancillary)).await;
    // EPERM, or ESRCH for a process that may claim any identity.
    assert!(matches!(sent.unwrap_err().raw_os_error(), Some(libc::EPERM | libc::ESRCH)));
    assert_eq!(bytes, b"refused");
    let mut control = [0; 64];
    let mut writer = AncillaryMessageWriter::new(&mut control);
    writer.add_ucreds(&[no_process]).unwrap();
    soon(a.send_with_ancillary(b"refused", &mut writer)).await.unwrap_err();
    soon(a.send(b"next")).await.unwrap();
    assert_eq!(peer.arrived(), [b"next"]);
}

async fn a_socket_can_be_passed_over_a_socket(cell: Cell) {
    let (a, b) = cell.pair();
    let (passed, peer) = cell.half();
    // A receive was dropped, perhaps in flight. It must not take the message.
    let mut receive = task::spawn(call_variants::recv(RecvBy::Plain, &passed, Room::AMPLE));
    arm(&mut receive).await;
    drop(receive);
    let mut ancillary = AncillaryBuffer::new();
    ancillary.push_fd(passed).unwrap();
    soon(a.send_owned_with_ancillary("a socket", ancillary)).await.0.unwrap();
    let got = soon(call_variants::recv(RecvBy::OwnedAncillary, &b, Room::AMPLE)).await.unwrap();
    let socket = cell.options().socket_from_fd(got.fds.into_iter().next().unwrap()).unwrap();
    peer.send(b"for the new owner");
    assert_eq!(recv(&socket).await, b"for the new owner");
    nothing_is_left(&socket, &peer).await;
}
