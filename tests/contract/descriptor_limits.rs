//! `max_fds`: how many descriptors a message may bring. G5 and G8: what is beyond the limit is closed and reported, and never gets
//! into the process.

use std::io::{PipeReader, pipe};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::sockopt;
use tokio_seqpacket::ancillary::AncillaryBuffer;
use tokio_seqpacket::{MessagesOptions, Options, SocketAddr, UnixSeqpacket};
use tokio_test::task;

use super::unwanted_descriptors::{ALLOWED, MOST, Watch, most};
use crate::harness::call_variants::{self, RecvBy, Room};
use crate::harness::descriptors::{content, count, file};
use crate::harness::need::Need;
use crate::harness::peer::Peer;
use crate::harness::waiting::{arm, breathe, soon, starts_waiting};
use crate::harness::{Cell, Test, alone};

pub fn tests() -> Vec<Test> {
    let mut tests = tasks![
        a_message_brings_no_more_descriptors_than_allowed,
        a_stream_yields_no_more_descriptors_than_allowed,
        an_option_that_a_duplicate_sets_is_noticed,
        an_option_that_changes_during_a_receive_costs_no_descriptor,
        sockets_have_the_limit_of_their_options_and_their_listener,
    ];
    let with_pidfds = tasks![beside_a_pidfd_there_are_no_more_descriptors_than_allowed];
    tests.extend(with_pidfds.into_iter().map(|test| test.needs([Need::Pidfds])));
    // They count the descriptors of the process, or see when the last is closed: a child process of another test has a copy of
    // every descriptor for a moment.
    tests.extend(alone(tasks![
        what_is_beyond_the_limit_is_closed_by_the_time_a_receive_returns,
        a_flood_of_253_descriptors_each_never_opens_more_than_allowed,
        a_receive_dropped_in_the_window_leaves_no_more_than_allowed,
    ]));
    tests
}

/// Files with their numbers as content.
fn numbered(count: usize) -> Vec<OwnedFd> {
    (0..count).map(|n| file(&n.to_string())).collect()
}

fn assert_first(fds: &[OwnedFd], expected: usize, what: &str) {
    let numbers: Vec<_> = fds.iter().map(content).collect();
    assert!(
        numbers.iter().eq(&(0..expected).map(|n| n.to_string()).collect::<Vec<_>>()),
        "{what}: {numbers:?}"
    );
}

async fn a_message_brings_no_more_descriptors_than_allowed(cell: Cell) {
    let fds = numbered(6);
    for credentials in [false, true] {
        let (a, peer) = cell.half();
        a.set_pass_credentials(credentials).unwrap();
        for way in RecvBy::ALL {
            for (most, sent) in
                [(0, 0), (0, 1), (0, 6), (1, 1), (1, 2), (2, 2), (2, 3), (3, 6), (6, 6), (7, 6)]
            {
                a.set_max_fds(most);
                peer.send_fds(b"message", &fds[..sent]);
                let got = soon(call_variants::recv(way, &a, Room::AMPLE)).await.unwrap();
                let what =
                    format!("{way:?}, {sent} sent, {most} allowed, credentials {credentials}");
                assert_eq!(got.bytes, b"message", "{what}");
                if way.carries_fds() {
                    assert_first(&got.fds, sent.min(most), &what);
                    assert_eq!(got.control_truncated, Some(sent > most), "{what}");
                }
            }
        }
    }
}

async fn beside_a_pidfd_there_are_no_more_descriptors_than_allowed(cell: Cell) {
    let fds = numbered(20);
    let (a, peer) = cell.half();
    a.set_pass_pidfd(true).unwrap();
    for credentials in [false, true] {
        a.set_pass_credentials(credentials).unwrap();
        for (most, sent) in (0..5).flat_map(|most| (0..20).map(move |sent| (most, sent))) {
            a.set_max_fds(most);
            peer.send_fds(b"message", &fds[..sent]);
            let (info, _, ancillary) =
                soon(a.recv_owned_with_ancillary(vec![0; 8], AncillaryBuffer::new())).await;
            let what = format!("{sent} sent, {most} allowed");
            assert_first(ancillary.fds(), sent.min(most), &what);
            assert_eq!(info.unwrap().ancillary_truncated(), sent > most, "{what}");
            assert_eq!(ancillary.credentials().is_some(), credentials, "{what}");
            assert!(ancillary.pidfd().is_some() || sent > most, "{what}");
        }
    }
}

async fn a_stream_yields_no_more_descriptors_than_allowed(cell: Cell) {
    let fds = numbered(4);
    for most in 0..4 {
        let (a, peer) = cell.half();
        a.set_max_fds(most);
        let mut messages = a.messages(MessagesOptions::new().buffers(8)).unwrap();
        // One by one, then several at once.
        for together in [1, 1, 8, 8, 8, 8] {
            for n in 0..together {
                peer.send_fds(&[n], &fds[..usize::from(n) % 5]);
            }
            for n in 0..together {
                let message = soon(messages.next()).await.unwrap().unwrap();
                let sent = usize::from(n) % 5;
                assert_eq!(message[..], [n]);
                assert_first(message.ancillary().fds(), sent.min(most), &format!("{n} of {most}"));
                assert_eq!(message.info().ancillary_truncated(), sent > most);
            }
        }
    }
}

/// Whether a writing end of the pipe is open anywhere.
fn is_open(reader: &PipeReader) -> bool {
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut [PollFd::new(reader, PollFlags::IN)], Some(&at_once)) == Ok(0)
}

async fn what_is_beyond_the_limit_is_closed_by_the_time_a_receive_returns(cell: Cell) {
    let (a, peer) = cell.half();
    a.set_max_fds(1);
    for way in RecvBy::ALL {
        let [(within, first), (beyond, second)] = [pipe().unwrap(), pipe().unwrap()];
        peer.send_fds(b"message", &[first.into(), second.into()]);
        let got = soon(call_variants::recv(way, &a, Room::AMPLE)).await.unwrap();
        assert!(!is_open(&beyond), "{way:?}");
        assert_eq!(is_open(&within), !got.fds.is_empty(), "{way:?}");
    }
}

/// The capacity depends on options, which the library reads when it changes them.
async fn an_option_that_a_duplicate_sets_is_noticed(cell: Cell) {
    let fds = numbered(2);
    let (a, peer) = cell.half();
    a.set_max_fds(1);
    let duplicate = a.as_fd().try_clone_to_owned().unwrap();
    let receive = async || {
        peer.send_fds(b"message", &fds);
        let (info, _, ancillary) =
            soon(a.recv_owned_with_ancillary(vec![0; 8], AncillaryBuffer::new())).await;
        assert!(info.unwrap().ancillary_truncated());
        ancillary
    };
    assert_eq!(receive().await.fds().len(), 1);
    for on in [true, false] {
        sockopt::set_socket_passcred(&duplicate, on).unwrap();
        // It learns of it by the report that something did not fit.
        assert!(receive().await.fds().len() <= 1);
        let ancillary = receive().await;
        assert_eq!((ancillary.fds().len(), ancillary.credentials().is_some()), (1, on));
    }
}

/// Capacity that was right when a receive went into a batch is too small when the batch runs.
async fn an_option_that_changes_during_a_receive_costs_no_descriptor(cell: Cell) {
    const MESSAGES: usize = 2000;
    let (a, peer) = cell.half();
    a.set_max_fds(1);
    let a = Arc::new(a);
    let done = Arc::new(AtomicBool::new(false));
    let changes = thread::spawn({
        let (a, done) = (a.clone(), done.clone());
        move || {
            while !done.load(Ordering::Relaxed) {
                for on in [true, false] {
                    a.set_pass_credentials(on).unwrap();
                    a.set_max_fds(1 + usize::from(on));
                    // Messages are marked by their time. A receive that waits already goes on beside the stream.
                    drop(a.messages(MessagesOptions::new()).unwrap());
                }
            }
        }
    });
    let fds = numbered(1);
    let mut without = 0;
    for _ in 0..MESSAGES {
        // Without it the library expects descriptors, for which it does not use a batch.
        peer.send(b"plain");
        assert_eq!(soon(a.recv(&mut [0; 8])).await.unwrap(), 5);
        let mut receive =
            task::spawn(a.recv_owned_with_ancillary(vec![0; 8], AncillaryBuffer::new()));
        let _ = receive.poll();
        peer.send_fds(b"message", &fds);
        let (info, _, ancillary) = soon(receive).await;
        assert_eq!(info.unwrap().message_len(), 7);
        without += usize::from(ancillary.fds().is_empty());
    }
    done.store(true, Ordering::Relaxed);
    changes.join().unwrap();
    assert_eq!(without, 0);
}

async fn sockets_have_the_limit_of_their_options_and_their_listener(cell: Cell) {
    let options = cell.options().max_fds(2);
    let (a, b) = options.pair().unwrap();
    assert_eq!((a.max_fds(), b.max_fds()), (2, 2));
    let a = options.socket_from_fd(a.into()).unwrap();
    assert_eq!(a.max_fds(), 2);
    // It belongs to the value, not to the socket.
    assert_eq!(cell.options().socket_from_fd(a.into()).unwrap().max_fds(), MOST);
    assert_eq!(cell.options().max_fds(1000).pair().unwrap().0.max_fds(), MOST);
    let bound = options.bind_addr(&SocketAddr::unnamed(), 8).unwrap();
    let inherited = cell.options().bind_addr(&SocketAddr::unnamed(), 8).unwrap();
    let taken_over = options.listener_from_fd(inherited.into()).unwrap();
    for listener in [bound, taken_over] {
        let address = listener.local_socket_addr().unwrap();
        let client = soon(options.connect_addr(&address)).await.unwrap();
        let other = soon(Options::new().connect_addr(&address)).await.unwrap();
        assert_eq!((client.max_fds(), other.max_fds()), (2, MOST));
        assert_eq!(soon(listener.accept()).await.unwrap().max_fds(), 2);
        let mut incoming = listener.incoming().unwrap();
        assert_eq!(soon(incoming.accept()).await.unwrap().max_fds(), 2);
    }
}

const PEERS: usize = 5;

fn victims(cell: Cell, most: usize) -> Vec<(UnixSeqpacket, Peer)> {
    let victims: Vec<_> = (0..PEERS).map(|_| cell.half()).collect();
    victims.iter().for_each(|(a, _)| a.set_max_fds(most));
    victims
}

/// Tasks that receive with capacity for all: by calls, and as streams.
async fn a_flood_of_253_descriptors_each_never_opens_more_than_allowed(cell: Cell) {
    const MESSAGES: usize = 60;
    const BUFFERS: usize = 4;
    let fds = most();
    for (streams, most) in [(false, 0), (true, 0), (false, 2), (true, 2)] {
        let (mut tasks, mut peers) = (Vec::new(), Vec::new());
        for (a, peer) in victims(cell, most) {
            peers.push(peer);
            tasks.push(tokio::spawn(async move {
                if streams {
                    let options = MessagesOptions::new().buffers(BUFFERS);
                    let mut messages = a.messages(options).unwrap();
                    for _ in 0..MESSAGES {
                        let message = soon(messages.next()).await.unwrap().unwrap();
                        assert_eq!(message.ancillary().fds().len(), most);
                    }
                } else {
                    for _ in 0..MESSAGES {
                        let ancillary = AncillaryBuffer::new();
                        let received = a.recv_owned_with_ancillary(vec![0; 8], ancillary);
                        assert_eq!(soon(received).await.2.fds().len(), most);
                    }
                }
                a
            }));
        }
        breathe().await;
        let before = count();
        let watch = Watch::new();
        for n in 0..MESSAGES {
            for peer in &peers {
                peer.send_fds(b"message", &fds);
            }
            tokio::task::yield_now().await;
            if n % 5 == 0 {
                breathe().await;
            }
        }
        let mut sockets = Vec::new();
        for task in tasks {
            sockets.push(soon(task).await.unwrap());
        }
        let more = watch.ends().saturating_sub(before);
        // A socket holds one message, and has completed another. A stream has as many as buffers.
        let held = PEERS * most * if streams { BUFFERS + 1 } else { 2 };
        assert!(more <= held + ALLOWED, "{more} descriptors more, {most} allowed");
    }
}

async fn a_receive_dropped_in_the_window_leaves_no_more_than_allowed(cell: Cell) {
    let fds = most();
    let victims = victims(cell, 2);
    for n in 0..4 {
        let before = count();
        for (a, peer) in &victims {
            let mut receive =
                task::spawn(call_variants::recv(RecvBy::OwnedAncillary, a, Room::AMPLE));
            if n % 2 == 0 {
                arm(&mut receive).await;
            } else {
                starts_waiting(&mut receive);
            }
            peer.send_fds(b"message", &fds);
            if n < 2 {
                breathe().await;
            }
            // On a ring it may have its message by now.
            drop(receive);
        }
        breathe().await;
        let more = count().saturating_sub(before);
        assert!(more <= PEERS * 2 + ALLOWED, "{more} descriptors more");
        for (a, _) in &victims {
            let got =
                soon(call_variants::recv(RecvBy::OwnedAncillary, a, Room::AMPLE)).await.unwrap();
            assert_eq!((&got.bytes[..], got.fds.len()), (&b"message"[..], 2));
            assert_eq!(got.control_truncated, Some(true));
        }
    }
}
