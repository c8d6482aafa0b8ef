//! G2, G3 and G4: a dropped future loses no message, no descriptor and no connection, and a dropped send never goes out late.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio_test::task::{self, Spawn};

use crate::harness::call_variants::{self, Boxed, Got, RecvBy, Room, SendBy};
use crate::harness::descriptors::{content, file, traced};
use crate::harness::messages::{FILLER, Random, escaped, fill, nothing_is_left, recv};
use crate::harness::peer::Peer;
use crate::harness::waiting::{
    all, all_served, arm, arm_all, breathe, once, soon, starts_waiting, until_woken,
};
use crate::harness::{Cell, Test};

pub fn tests() -> Vec<Test> {
    tasks![
        a_receive_dropped_before_arrival_loses_nothing,
        a_receive_dropped_before_it_was_submitted_loses_nothing,
        a_receive_dropped_after_arrival_loses_nothing,
        a_receive_dropped_at_the_moment_of_completion_loses_nothing,
        a_receive_dropped_and_settled_loses_nothing,
        what_a_dropped_receive_leaves_comes_before_later_messages,
        a_message_left_behind_wakes_a_wait_for_readiness,
        receives_dropped_out_of_the_middle_of_the_line_cost_no_message,
        a_receive_dropped_when_its_turn_has_come_passes_the_turn_on,
        a_receive_dropped_at_the_head_of_the_line_wakes_the_next,
        receives_dropped_in_races_with_arrival_lose_and_double_nothing,
        receives_dropped_in_races_with_arrival_lose_no_descriptor,
        a_receive_in_select_and_timeout_loses_nothing,
        an_aborted_task_that_was_receiving_loses_nothing,
        an_empty_message_for_a_dropped_receive_is_not_lost,
        end_of_stream_for_a_dropped_receive_is_not_lost,
        a_waiting_send_dropped_goes_out_whole_or_never,
        a_waiting_send_dropped_before_it_was_submitted_goes_out_whole_or_never,
        a_send_dropped_at_the_moment_of_completion_goes_out_whole_or_never,
        a_send_dropped_out_of_the_middle_of_the_line_leaves_the_others_in_order,
        a_send_dropped_at_the_head_of_the_line_wakes_the_next,
        a_dropped_send_closes_the_descriptors_it_was_to_carry,
        sends_dropped_in_races_with_a_draining_peer_keep_the_order,
        poll_send_may_come_back_with_other_bytes,
        poll_recv_may_come_back_with_another_buffer,
        futures_that_were_never_polled_do_nothing,
        a_forgotten_receive_leaves_other_calls_at_work,
        a_forgotten_send_leaves_other_calls_at_work,
        a_hundred_forgotten_receives_with_messages_leave_other_sockets_at_work,
        forty_pending_receives_of_which_twenty_lose_their_message_to_a_duplicate_all_complete,
    ]
}

/// Receives that are dropped: with little capacity and much, with and without ancillary data.
const DROPPED: [(RecvBy, Room); 6] = [
    (RecvBy::Plain, Room::TIGHT),
    (RecvBy::VectoredAncillary, Room::AMPLE),
    (RecvBy::VectoredAncillary, Room::TIGHT),
    (RecvBy::Owned, Room::TIGHT),
    (RecvBy::OwnedAncillary, Room::TIGHT),
    (RecvBy::OwnedVectored, Room::AMPLE),
];

type Receive<'a> = Spawn<Boxed<'a, io::Result<Got>>>;

/// For every kind of dropped receive and every kind of next receive: `interleave` gets a receive
/// that was polled once, sends a message, and drops the receive somewhere.
async fn next_receive_gets_all<F>(cell: Cell, interleave: F)
where
    F: for<'a> Fn(Receive<'a>, Sender<'a>) -> Boxed<'a, ()> + Send,
{
    for (dropped, room) in DROPPED {
        let (a, peer) = cell.half();
        for next in RecvBy::ALL {
            let message = format!("{dropped:?} then {next:?}");
            let mut receive = task::spawn(call_variants::recv(dropped, &a, room));
            starts_waiting(&mut receive);
            interleave(receive, Sender { peer: &peer, text: message.clone() }).await;

            let got = soon(call_variants::recv(next, &a, Room::AMPLE)).await.unwrap();
            assert_eq!(got.bytes, message.as_bytes(), "capacity {room:?}");
            if let Some(info) = got.info {
                assert_eq!((info.message_len(), info.truncated()), (message.len(), false));
            }
            if next.carries_fds() {
                assert_eq!(got.fds.len(), 1, "{message}");
                assert_eq!(content(&got.fds[0]), message);
                assert_eq!(got.control_truncated, Some(false), "{message}");
            }
        }
        nothing_is_left(&a, &peer).await;
    }
}

struct Sender<'a> {
    peer: &'a Peer,
    text: String,
}

impl Sender<'_> {
    /// The text as a message, and in a file that goes with it.
    fn send(self) {
        self.peer.send_fds(self.text.as_bytes(), &[file(&self.text)]);
    }
}

async fn a_receive_dropped_before_arrival_loses_nothing(cell: Cell) {
    next_receive_gets_all(cell, |mut receive, sender| {
        Box::pin(async move {
            arm(&mut receive).await;
            drop(receive);
            sender.send();
        })
    })
    .await;
}

async fn a_receive_dropped_before_it_was_submitted_loses_nothing(cell: Cell) {
    next_receive_gets_all(cell, |receive, sender| {
        Box::pin(async move {
            sender.send();
            drop(receive);
        })
    })
    .await;
}

async fn a_receive_dropped_after_arrival_loses_nothing(cell: Cell) {
    next_receive_gets_all(cell, |mut receive, sender| {
        Box::pin(async move {
            arm(&mut receive).await;
            sender.send();
            drop(receive);
        })
    })
    .await;
}

async fn a_receive_dropped_at_the_moment_of_completion_loses_nothing(cell: Cell) {
    let cell = cell.keeping_ancillary();
    next_receive_gets_all(cell, |mut receive, sender| {
        Box::pin(async move {
            arm(&mut receive).await;
            sender.send();
            until_woken(&mut receive).await;
            drop(receive);
        })
    })
    .await;
}

async fn a_receive_dropped_and_settled_loses_nothing(cell: Cell) {
    next_receive_gets_all(cell, |mut receive, sender| {
        Box::pin(async move {
            arm(&mut receive).await;
            sender.send();
            drop(receive);
            breathe().await;
        })
    })
    .await;
}

async fn what_a_dropped_receive_leaves_comes_before_later_messages(cell: Cell) {
    let (a, peer) = cell.half();
    let mut number = 0u8;
    for next in RecvBy::ALL {
        let mut receive = task::spawn(call_variants::recv(RecvBy::Plain, &a, Room::TIGHT));
        arm(&mut receive).await;
        peer.send(&[number; 30]);
        until_woken(&mut receive).await;
        peer.send(&[number + 1; 30]);
        drop(receive);
        peer.send(&[number + 2; 30]);
        for _ in 0..3 {
            let got = soon(call_variants::recv(next, &a, Room::AMPLE)).await.unwrap();
            assert_eq!(got.bytes, [number; 30], "{next:?}");
            number += 1;
        }
    }
}

async fn a_message_left_behind_wakes_a_wait_for_readiness(cell: Cell) {
    let (a, peer) = cell.half();
    let mut receive = task::spawn(call_variants::recv(RecvBy::Plain, &a, Room::AMPLE));
    arm(&mut receive).await;
    let mut readable = task::spawn(a.readable());
    let mut polled = task::spawn(std::future::poll_fn(|cx| a.poll_recv_ready(cx)));
    starts_waiting(&mut readable);
    starts_waiting(&mut polled);
    peer.send(b"left behind");
    until_woken(&mut receive).await;
    drop(receive);
    soon(readable).await.unwrap();
    soon(polled).await.unwrap();
    assert_eq!(
        soon(call_variants::recv(RecvBy::Try, &a, Room::AMPLE)).await.unwrap().bytes,
        b"left behind"
    );
}

async fn receives_dropped_out_of_the_middle_of_the_line_cost_no_message(cell: Cell) {
    let (a, peer) = cell.half();
    for armed in [false, true] {
        let mut receives: Vec<_> = (0..9)
            .map(|n| Some(task::spawn(call_variants::recv(RecvBy::QUEUED[n % 8], &a, Room::AMPLE))))
            .collect();
        receives.iter_mut().flatten().for_each(starts_waiting);
        for receive in receives.iter_mut().flatten().filter(|_| armed) {
            arm(receive).await;
        }
        for n in [0, 1, 4, 8] {
            receives[n] = None;
        }
        for n in 0..5u8 {
            peer.send(&[n; 20]);
        }
        let got = soon(all_served(cell, receives.into_iter().flatten().collect())).await;
        for (n, got) in got.into_iter().enumerate() {
            assert_eq!(got.unwrap().bytes, [n as u8; 20]);
        }
        nothing_is_left(&a, &peer).await;
    }
}

async fn a_receive_dropped_when_its_turn_has_come_passes_the_turn_on(cell: Cell) {
    let (a, peer) = cell.half();
    let mut first = task::spawn(call_variants::recv(RecvBy::Plain, &a, Room::AMPLE));
    let mut second = task::spawn(call_variants::recv(RecvBy::Plain, &a, Room::TIGHT));
    let mut third = task::spawn(call_variants::recv(RecvBy::Plain, &a, Room::AMPLE));
    starts_waiting(&mut first);
    starts_waiting(&mut second);
    starts_waiting(&mut third);
    peer.send(b"first");
    assert_eq!(soon(first).await.unwrap().bytes, b"first");
    // The second is next, whether it has been woken or not.
    arm(&mut second).await;
    peer.send(b"second");
    until_woken(&mut second).await;
    drop(second);
    assert_eq!(soon(third).await.unwrap().bytes, b"second");
    nothing_is_left(&a, &peer).await;
}

async fn a_receive_dropped_at_the_head_of_the_line_wakes_the_next(cell: Cell) {
    for armed in [false, true] {
        for moment in 0..3 {
            let (a, peer) = cell.half();
            let a = Arc::new(a);
            let mut head = task::spawn(a.recv(&mut []));
            starts_waiting(&mut head);
            let tasks: Vec<_> = (0..2)
                .map(|_| {
                    let a = a.clone();
                    tokio::spawn(async move { recv(&a).await })
                })
                .collect();
            breathe().await;
            if armed {
                arm(&mut head).await;
            }
            if moment > 0 {
                peer.send(b"one");
                peer.send(b"two");
                if moment > 1 {
                    until_woken(&mut head).await;
                }
                drop(head);
            } else {
                drop(head);
                breathe().await;
                peer.send(b"one");
                peer.send(b"two");
            }
            let mut got = Vec::new();
            for task in tasks {
                got.push(soon(task).await.unwrap());
            }
            got.sort();
            assert_eq!(got, [b"one", b"two"]);
        }
    }
}

async fn receives_dropped_in_races_with_arrival_lose_and_double_nothing(cell: Cell) {
    const MESSAGES: u32 = 3000;
    let (a, peer) = cell.half();
    peer.set_blocking();
    let sender = std::thread::spawn(move || {
        let mut random = Random(7);
        for n in 0..MESSAGES {
            peer.send_waiting(&n.to_ne_bytes());
            for _ in 0..random.below(200) {
                std::hint::spin_loop();
            }
        }
        peer
    });
    let mut random = Random(1);
    let mut expected = 0;
    while expected < MESSAGES {
        let way = RecvBy::ALL[random.below(14) as usize];
        let polls = random.below(5);
        let room = Room { bytes: 4, control: 0 };
        let mut receive = task::spawn(call_variants::recv(way, &a, room));
        let mut got = None;
        if polls == 4 {
            got = Some(soon(receive).await);
        } else {
            for _ in 0..polls {
                if let Poll::Ready(result) = receive.poll() {
                    got = Some(result);
                    break;
                }
                tokio::task::yield_now().await;
            }
        }
        if let Some(got) = got {
            let number = u32::from_ne_bytes(got.unwrap().bytes.try_into().expect("4 bytes"));
            assert_eq!(number, expected, "{way:?}");
            expected += 1;
        }
    }
    let peer = sender.join().unwrap();
    nothing_is_left(&a, &peer).await;
}

async fn receives_dropped_in_races_with_arrival_lose_no_descriptor(cell: Cell) {
    const MESSAGES: usize = 400;
    let (a, peer) = cell.half();
    let sender = tokio::spawn(async move {
        for n in 0..MESSAGES {
            let text = n.to_string();
            // The receiving task may be slower than this one.
            while let Err(error) = peer.try_send_fds(text.as_bytes(), &[file(&text)]) {
                assert_eq!(error.kind(), io::ErrorKind::WouldBlock, "{error}");
                tokio::task::yield_now().await;
            }
            if n % 3 == 0 {
                tokio::task::yield_now().await;
            }
            if n % 100 == 99 {
                breathe().await;
            }
        }
        peer
    });
    let mut random = Random(3);
    let mut expected = 0;
    let ways = [RecvBy::OwnedAncillary, RecvBy::Ancillary, RecvBy::TryVectoredAncillary];
    while expected < MESSAGES {
        let way = ways[random.below(3) as usize];
        let mut receive = task::spawn(call_variants::recv(way, &a, Room::AMPLE));
        let got = match random.below(4) {
            0 => soon(receive).await.unwrap(),
            polls => {
                let mut got = None;
                for _ in 0..polls {
                    if let Poll::Ready(result) = receive.poll() {
                        got = Some(result.unwrap());
                        break;
                    }
                    tokio::task::yield_now().await;
                }
                let Some(got) = got else { continue };
                got
            }
        };
        assert_eq!(got.bytes, expected.to_string().as_bytes(), "{way:?}");
        assert_eq!(got.fds.len(), 1, "{way:?}");
        assert_eq!(content(&got.fds[0]), expected.to_string());
        expected += 1;
    }
    let peer = soon(sender).await.unwrap();
    nothing_is_left(&a, &peer).await;
}

async fn a_receive_in_select_and_timeout_loses_nothing(cell: Cell) {
    let (a, b) = cell.pair();
    let sender = tokio::spawn(async move {
        for n in 0..300u32 {
            a.send(&n.to_ne_bytes()).await.unwrap();
            if n % 10 == 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        a
    });
    let mut expected = 0u32;
    while expected < 300 {
        let mut buffer = [0; 4];
        let received = if expected.is_multiple_of(2) {
            tokio::select! {
                biased;
                () = tokio::task::yield_now() => None,
                received = b.recv(&mut buffer) => Some(received),
            }
        } else {
            tokio::time::timeout(Duration::from_micros(200), b.recv(&mut buffer)).await.ok()
        };
        match received {
            Some(received) => received.unwrap(),
            None => soon(b.recv(&mut buffer)).await.unwrap(),
        };
        assert_eq!(u32::from_ne_bytes(buffer), expected);
        expected += 1;
    }
    drop(soon(sender).await.unwrap());
    assert_eq!(recv(&b).await, b"");
}

async fn an_aborted_task_that_was_receiving_loses_nothing(cell: Cell) {
    let (a, peer) = cell.half();
    let a = Arc::new(a);
    for n in 0..50u8 {
        let task = tokio::spawn({
            let a = a.clone();
            async move { a.recv(&mut [0; 1]).await }
        });
        if n % 2 == 0 {
            breathe().await;
        }
        task.abort();
        peer.send(&[n; 10]);
        match soon(task).await {
            // It was faster than the abort, or a ring's completion was.
            Ok(received) => assert_eq!(received.unwrap(), 1),
            Err(error) => {
                assert!(error.is_cancelled());
                assert_eq!(recv(&a).await, [n; 10]);
            }
        }
    }
    nothing_is_left(&a, &peer).await;
}

async fn an_empty_message_for_a_dropped_receive_is_not_lost(cell: Cell) {
    let (a, peer) = cell.half();
    for next in RecvBy::ALL {
        let mut receive = task::spawn(call_variants::recv(RecvBy::Owned, &a, Room::AMPLE));
        arm(&mut receive).await;
        peer.send_fds(b"", &[file("beside nothing")]);
        peer.send(b"after");
        drop(receive);
        let got = soon(call_variants::recv(next, &a, Room::AMPLE)).await.unwrap();
        assert_eq!(got.bytes, b"", "{next:?}");
        if next.carries_fds() {
            assert_eq!(content(&got.fds[0]), "beside nothing", "{next:?}");
        }
        assert_eq!(soon(call_variants::recv(next, &a, Room::AMPLE)).await.unwrap().bytes, b"after");
    }
}

async fn end_of_stream_for_a_dropped_receive_is_not_lost(cell: Cell) {
    for (dropped, room) in DROPPED {
        let (a, peer) = cell.half();
        let mut receive = task::spawn(call_variants::recv(dropped, &a, room));
        arm(&mut receive).await;
        drop(peer);
        drop(receive);
        for next in RecvBy::ALL {
            assert_eq!(soon(call_variants::recv(next, &a, Room::AMPLE)).await.unwrap().bytes, b"");
        }
    }
}

/// The sends that can be tried with and without a descriptor to carry.
fn descriptors(way: SendBy, n: usize) -> Vec<OwnedFd> {
    if way.carries_fds() { vec![file(&format!("dropped {n}"))] } else { Vec::new() }
}

/// For every kind of send: one is dropped while it waits, one follows. Returns nothing: the dropped
/// one came before the other, whole, or not at all, and does not come later.
async fn whole_or_never<F>(cell: Cell, interleave: F)
where
    F: for<'a> Fn(Spawn<Boxed<'a, io::Result<usize>>>, &'a Peer) -> Boxed<'a, Vec<Vec<u8>>>,
{
    for (n, way) in SendBy::QUEUED.into_iter().enumerate() {
        let (a, peer) = cell.half();
        fill(&a);
        let message = format!("dropped {n}").into_bytes();
        let fds = descriptors(way, n);
        let mut send = task::spawn(call_variants::send(way, &a, &message, &fds));
        starts_waiting(&mut send);
        let mut messages = interleave(send, &peer).await;
        let mut after = task::spawn(call_variants::send(way, &a, b"after", &[]));
        let early = after.poll();
        messages.extend(drain_checked(&peer, &message, !fds.is_empty()));
        match early {
            Poll::Ready(sent) => sent.unwrap(),
            Poll::Pending => soon(after).await.unwrap(),
        };
        messages.extend(drain_checked(&peer, &message, !fds.is_empty()));
        breathe().await;
        messages.extend(drain_checked(&peer, &message, !fds.is_empty()));
        messages.retain(|message| message != FILLER);
        let allowed = [vec![b"after".to_vec()], vec![message, b"after".to_vec()]];
        assert!(allowed.contains(&messages), "{way:?}: {:?}", escaped(&messages));
    }
}

/// What is in the queue. `message` comes with the file of its name, if it comes with one.
fn drain_checked(peer: &Peer, message: &[u8], with_file: bool) -> Vec<Vec<u8>> {
    let mut messages = Vec::new();
    while let Ok((bytes, fds)) = peer.try_recv_fds() {
        if bytes == message && with_file {
            assert_eq!(content(&fds[0]).as_bytes(), message);
        }
        messages.push(bytes);
    }
    messages
}

async fn a_waiting_send_dropped_goes_out_whole_or_never(cell: Cell) {
    whole_or_never(cell, |mut send, _| {
        Box::pin(async move {
            arm(&mut send).await;
            drop(send);
            Vec::new()
        })
    })
    .await;
}

async fn a_waiting_send_dropped_before_it_was_submitted_goes_out_whole_or_never(cell: Cell) {
    whole_or_never(cell, |send, _| {
        Box::pin(async move {
            drop(send);
            Vec::new()
        })
    })
    .await;
}

async fn a_send_dropped_at_the_moment_of_completion_goes_out_whole_or_never(cell: Cell) {
    whole_or_never(cell, |mut send, peer| {
        Box::pin(async move {
            arm(&mut send).await;
            let messages = peer.everything();
            until_woken(&mut send).await;
            drop(send);
            messages
        })
    })
    .await;
}

async fn a_send_dropped_out_of_the_middle_of_the_line_leaves_the_others_in_order(cell: Cell) {
    for armed in [false, true] {
        let (a, peer) = cell.half();
        fill(&a);
        let mut sends: Vec<_> = call_variants::waiting_sends(&a).into_iter().map(Some).collect();
        for send in sends.iter_mut().flatten().filter(|_| armed) {
            arm(send).await;
        }
        for n in [1, 3, 4] {
            sends[n] = None;
        }
        peer.drain();
        let sent = soon(all(sends.into_iter().flatten().collect())).await;
        assert!(sent.iter().all(Result::is_ok), "{sent:?}");
        breathe().await;
        let arrived: String = peer.arrived().concat().into_iter().map(char::from).collect();
        let kept: String = arrived.chars().filter(|letter| !"bde".contains(*letter)).collect();
        assert_eq!(kept, "acfgh", "{arrived}");
        assert!(arrived.chars().is_sorted(), "{arrived}");
    }
}

async fn a_send_dropped_at_the_head_of_the_line_wakes_the_next(cell: Cell) {
    for armed in [false, true] {
        for moment in 0..3 {
            let (a, peer) = cell.half();
            fill(&a);
            let a = Arc::new(a);
            let mut head = task::spawn(a.send(b"dropped"));
            starts_waiting(&mut head);
            let tasks: Vec<_> = (0..2)
                .map(|_| {
                    let a = a.clone();
                    tokio::spawn(async move { a.send(b"sent").await })
                })
                .collect();
            breathe().await;
            if armed {
                arm(&mut head).await;
            }
            if moment > 0 {
                peer.drain();
                if moment > 1 {
                    until_woken(&mut head).await;
                }
                drop(head);
            } else {
                drop(head);
                breathe().await;
                peer.drain();
            }
            for task in tasks {
                soon(task).await.unwrap().unwrap();
            }
            let mut arrived = peer.arrived();
            arrived.retain(|message| message != b"dropped");
            assert_eq!(arrived, [b"sent", b"sent"]);
        }
    }
}

async fn a_dropped_send_closes_the_descriptors_it_was_to_carry(cell: Cell) {
    for way in SendBy::QUEUED.into_iter().filter(|way| way.carries_fds()) {
        for armed in [false, true] {
            let (a, peer) = cell.half();
            fill(&a);
            let (trace, fd) = traced();
            let fds = [fd];
            let mut send = task::spawn(call_variants::send(way, &a, b"with a descriptor", &fds));
            starts_waiting(&mut send);
            if armed {
                arm(&mut send).await;
            }
            drop(send);
            drop(fds);
            peer.drain();
            // The message may have gone out. Then the peer has the file, and drops it here.
            soon(async {
                while trace.is_open() {
                    peer.drain();
                    breathe().await;
                }
            })
            .await;
        }
    }
}

async fn sends_dropped_in_races_with_a_draining_peer_keep_the_order(cell: Cell) {
    const MESSAGES: u32 = 3000;
    let (a, b) = cell.pair();
    let receiver = tokio::spawn(async move {
        let mut received = Vec::new();
        loop {
            let mut buffer = [0; 1000];
            match b.recv(&mut buffer).await.unwrap() {
                0 => return received,
                1000 => received.push(u32::from_ne_bytes(*buffer.first_chunk().unwrap())),
                len => panic!("a message of {len} bytes"),
            }
            if received.len() % 50 == 0 {
                tokio::task::yield_now().await;
            }
        }
    });
    let mut random = Random(5);
    let mut sent = Vec::new();
    for n in 0..MESSAGES {
        let mut message = vec![0; 1000];
        message[..4].copy_from_slice(&n.to_ne_bytes());
        let way = SendBy::QUEUED[random.below(8) as usize];
        let mut send = task::spawn(call_variants::send(way, &a, &message, &[]));
        let polls = random.below(5);
        if polls == 4 {
            soon(send).await.unwrap();
            sent.push(n);
        } else {
            for _ in 0..polls {
                if let Poll::Ready(result) = send.poll() {
                    result.unwrap();
                    sent.push(n);
                    break;
                }
                tokio::task::yield_now().await;
            }
        }
    }
    drop(a);
    let received = soon(receiver).await.unwrap();
    assert!(received.is_sorted_by(|a, b| a < b), "out of order or doubled");
    let lost: Vec<_> = sent.iter().filter(|n| received.binary_search(n).is_err()).collect();
    assert_eq!(lost, [&0u32; 0], "sent, but not received");
}

async fn poll_send_may_come_back_with_other_bytes(cell: Cell) {
    let (a, peer) = cell.half();
    fill(&a);
    assert!(once(|cx| a.poll_send(cx, b"first thought")).is_pending());
    breathe().await;
    assert!(once(|cx| a.poll_send(cx, b"second thought")).is_pending());
    breathe().await;
    peer.drain();
    let sent = soon(std::future::poll_fn(|cx| a.poll_send(cx, b"third thought"))).await.unwrap();
    assert_eq!(sent, 13);
    breathe().await;
    assert_eq!(peer.arrived(), [b"third thought".to_vec()]);
}

async fn poll_recv_may_come_back_with_another_buffer(cell: Cell) {
    let (a, peer) = cell.half();
    assert!(once(|cx| a.poll_recv(cx, &mut [0; 1])).is_pending());
    breathe().await;
    peer.send(b"a whole message");
    breathe().await;
    let mut buffer = [0; 64];
    let len = soon(std::future::poll_fn(|cx| a.poll_recv(cx, &mut buffer))).await.unwrap();
    assert_eq!(&buffer[..len], b"a whole message");
    nothing_is_left(&a, &peer).await;
}

async fn futures_that_were_never_polled_do_nothing(cell: Cell) {
    let (a, peer) = cell.half();
    peer.send(b"message");
    for way in RecvBy::ALL {
        drop(call_variants::recv(way, &a, Room::TIGHT));
    }
    for way in SendBy::ALL {
        drop(call_variants::send(way, &a, b"never", &[]));
    }
    breathe().await;
    assert_eq!(recv(&a).await, b"message");
    assert!(peer.arrived().is_empty());
}

/// Both directions of a fresh pair, and what is left of `used`.
async fn works(cell: Cell) {
    let (a, b) = cell.pair();
    for n in 0..5u8 {
        soon(a.send(&[n; 100])).await.unwrap();
        assert_eq!(recv(&b).await, [n; 100]);
        soon(b.send(&[n; 10])).await.unwrap();
        assert_eq!(recv(&a).await, [n; 10]);
    }
}

async fn a_forgotten_receive_leaves_other_calls_at_work(cell: Cell) {
    for (n, way) in RecvBy::QUEUED.into_iter().enumerate() {
        let (a, peer) = cell.half();
        let mut receive = task::spawn(call_variants::recv(way, &a, Room::AMPLE));
        starts_waiting(&mut receive);
        if n % 2 == 0 {
            arm(&mut receive).await;
        }
        std::mem::forget(receive);
        peer.send(b"for no task");
        breathe().await;
        soon(a.send(b"the other direction")).await.unwrap();
        assert_eq!(peer.recv(), b"the other direction");
        works(cell).await;
        drop(a);
        soon(peer.ended()).await;
    }
}

async fn a_forgotten_send_leaves_other_calls_at_work(cell: Cell) {
    for (n, way) in SendBy::QUEUED.into_iter().enumerate() {
        let (a, peer) = cell.half();
        fill(&a);
        let message = b"forgotten".to_vec().leak();
        let mut send = task::spawn(call_variants::send(way, &a, message, &[]));
        starts_waiting(&mut send);
        if n % 2 == 0 {
            arm(&mut send).await;
        }
        std::mem::forget(send);
        peer.send(b"the other direction");
        assert_eq!(recv(&a).await, b"the other direction");
        works(cell).await;
        peer.drain();
        breathe().await;
        works(cell).await;
        drop(a);
        peer.drain();
        breathe().await;
        let late = peer.arrived();
        assert!(late.is_empty() || late == [b"forgotten".to_vec()], "{:?}", escaped(&late));
        soon(peer.ended()).await;
    }
}

async fn a_hundred_forgotten_receives_with_messages_leave_other_sockets_at_work(cell: Cell) {
    let mut halves = Vec::new();
    for n in 0..100 {
        let (a, peer) = cell.half();
        let mut receive = task::spawn(call_variants::recv(
            RecvBy::QUEUED[n % 8],
            &a,
            Room { bytes: 2000, control: 64 },
        ));
        starts_waiting(&mut receive);
        std::mem::forget(receive);
        halves.push((a, peer));
        // Budget for the next first poll.
        tokio::task::yield_now().await;
    }
    breathe().await;
    for (_, peer) in &halves {
        peer.send(&[7; 2000]);
    }
    breathe().await;
    for _ in 0..100 {
        works(cell).await;
    }
    let peers: Vec<_> = halves.into_iter().map(|(_, peer)| peer).collect();
    for peer in peers {
        soon(peer.ended()).await;
    }
}

async fn forty_pending_receives_of_which_twenty_lose_their_message_to_a_duplicate_all_complete(
    cell: Cell,
) {
    let mut sockets = Vec::new();
    for _ in 0..40 {
        let (a, peer) = cell.half();
        let duplicate = Peer::from(std::os::fd::AsFd::as_fd(&a).try_clone_to_owned().unwrap());
        sockets.push((a, peer, duplicate));
    }
    let mut receives: Vec<_> = sockets
        .iter()
        .map(|(a, ..)| task::spawn(call_variants::recv(RecvBy::Plain, a, Room::AMPLE)))
        .collect();
    arm_all(&mut receives).await;
    // All at once, before the runtime runs. Twenty are aborted.
    let mut taken = 0;
    for (n, (_, peer, duplicate)) in sockets.iter().enumerate() {
        peer.send(b"first");
        if n < 20 && duplicate.try_recv().is_ok() {
            taken += 1;
        }
    }
    let missing = all(receives);
    let again = async {
        breathe().await;
        for (_, peer, _) in &sockets[..20] {
            peer.send(b"second");
        }
    };
    let (got, ()) = soon(async { tokio::join!(missing, again) }).await;
    let (mut first, mut second) = (0, 0);
    for got in got {
        match got.unwrap().bytes.as_slice() {
            b"first" => first += 1,
            b"second" => second += 1,
            other => panic!("{}", other.escape_ascii()),
        }
    }
    assert_eq!((first, second), (40 - taken, taken));
}
