//! G9: a future that is alive but not polled, or forgotten, holds no other up. Waiters are woken first
//! in, first out. G1 stays: sends are delivered in the order of their first polls.

use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use tokio_seqpacket::UnixSeqpacket;
use tokio_test::task;

use crate::harness::call_variants::{self, Boxed, LETTERS, RecvBy, Room, SendBy};
use crate::harness::messages::{fill, nothing_is_left, recv};
use crate::harness::peer::Peer;
use crate::harness::waiting::{all, breathe, soon, starts_waiting};
use crate::harness::{Cell, Test};

pub fn tests() -> Vec<Test> {
    tasks![
        a_send_behind_one_that_is_not_polled_completes,
        a_send_behind_a_forgotten_one_completes,
        a_send_behind_a_batch_whose_send_timed_out_completes,
        a_heartbeat_beside_a_send_pinned_in_select_goes_out,
        a_waiting_send_goes_out_without_being_polled_again,
        several_waiting_sends_go_out_in_order_without_being_polled_again,
        a_receive_behind_one_that_is_not_polled_gets_the_message,
        a_receive_behind_one_that_was_polled_just_before_the_message_gets_it,
        a_receive_behind_a_forgotten_one_gets_the_message,
        a_receive_behind_one_that_is_dropped_later_gets_the_message,
        several_receives_behind_several_that_are_not_polled_get_the_messages,
        a_receive_that_is_not_polled_gets_a_later_message_when_it_is_polled,
        a_peek_behind_a_receive_that_is_not_polled_sees_the_message,
        readable_behind_a_receive_that_is_not_polled_returns,
        readable_and_try_recv_behind_a_receive_that_is_not_polled_get_the_message,
        a_stream_behind_a_receive_that_is_not_polled_yields_the_message,
        the_end_of_the_stream_reaches_a_receive_behind_one_that_is_not_polled,
        an_accept_behind_one_that_is_not_polled_gets_the_connection,
        waiting_receives_are_woken_in_order_as_messages_come_one_at_a_time,
        waiting_receives_are_woken_in_order_when_messages_come_together,
        waiting_sends_are_woken_in_order,
    ]
}

/// Receives that are pinned: with and without capacity for ancillary data, borrowed and owned.
const PINNED: [RecvBy; 4] =
    [RecvBy::Plain, RecvBy::VectoredAncillary, RecvBy::Owned, RecvBy::OwnedAncillary];

/// Receives that come to wait behind those.
const BEHIND: [RecvBy; 9] = [
    RecvBy::Plain,
    RecvBy::Vectored,
    RecvBy::Ancillary,
    RecvBy::VectoredAncillary,
    RecvBy::Owned,
    RecvBy::OwnedVectored,
    RecvBy::OwnedAncillary,
    RecvBy::OwnedVectoredAncillary,
    RecvBy::Poll,
];

/// Waits until these messages, and no others, have arrived at the peer. Polls nothing else.
#[track_caller]
fn until_arrived<'a>(peer: &'a Peer, expected: &'a [&[u8]]) -> impl Future<Output = ()> + 'a {
    soon(async move {
        let mut arrived = Vec::new();
        while arrived.len() < expected.len() {
            breathe().await;
            arrived.extend(peer.arrived());
        }
        assert_eq!(arrived, expected);
    })
}

/// Both before the runtime has run since the first poll, and after.
async fn settles(settled: bool) {
    if settled {
        breathe().await;
    }
}

async fn a_send_behind_one_that_is_not_polled_completes(cell: Cell) {
    for way in SendBy::QUEUED {
        for settled in [false, true] {
            let (a, peer) = cell.half();
            fill(&a);
            let mut pinned = task::spawn(call_variants::send(way, &a, b"first", &[]));
            starts_waiting(&mut pinned);
            settles(settled).await;
            let mut later = task::spawn(a.send(b"second"));
            starts_waiting(&mut later);
            settles(settled).await;
            peer.drain();
            assert_eq!(soon(later).await.unwrap(), 6, "{way:?}");
            // In the order of the first polls, and each once.
            assert_eq!(peer.arrived(), [&b"first"[..], b"second"], "{way:?}");
            assert_eq!(soon(pinned).await.unwrap(), 5, "{way:?}");
            assert!(peer.arrived().is_empty(), "{way:?}");
        }
    }
}

async fn a_send_behind_a_forgotten_one_completes(cell: Cell) {
    for way in SendBy::QUEUED {
        for settled in [false, true] {
            let (a, peer) = cell.half();
            fill(&a);
            let mut forgotten = Box::new(task::spawn(call_variants::send(way, &a, b"first", &[])));
            starts_waiting(&mut forgotten);
            settles(settled).await;
            std::mem::forget(forgotten);
            let mut later = task::spawn(a.send(b"second"));
            starts_waiting(&mut later);
            settles(settled).await;
            peer.drain();
            assert_eq!(soon(later).await.unwrap(), 6, "{way:?}");
            assert_eq!(peer.arrived(), [&b"first"[..], b"second"], "{way:?}");
        }
    }
}

async fn a_send_behind_a_batch_whose_send_timed_out_completes(cell: Cell) {
    let (a, peer) = cell.half();
    fill(&a);
    let mut batch = a.batch();
    batch.push(b"in a batch");
    let sent = tokio::time::timeout(Duration::from_millis(5), batch.send()).await;
    assert!(sent.is_err(), "the queue is full");
    let mut later = task::spawn(a.send(b"later"));
    starts_waiting(&mut later);
    breathe().await;
    peer.drain();
    assert_eq!(soon(later).await.unwrap(), 5);
    assert_eq!(peer.arrived(), [&b"in a batch"[..], b"later"]);
    // The batch counts it as sent, and sends nothing twice.
    soon(batch.send()).await.unwrap();
    assert_eq!(batch.sent(), 1);
    assert!(peer.arrived().is_empty());
}

async fn a_heartbeat_beside_a_send_pinned_in_select_goes_out(cell: Cell) {
    let (a, peer) = cell.half();
    fill(&a);
    let mut slow = std::pin::pin!(a.send(b"slow"));
    tokio::select! {
        biased;
        sent = &mut slow => panic!("{sent:?} on a full queue"),
        () = breathe() => {
            peer.drain();
            // `slow` is alive and is not polled here.
            soon(a.send(b"heartbeat")).await.unwrap();
        }
    }
    assert_eq!(soon(slow).await.unwrap(), 4);
    assert_eq!(peer.arrived(), [&b"slow"[..], b"heartbeat"]);
}

async fn a_waiting_send_goes_out_without_being_polled_again(cell: Cell) {
    for way in SendBy::QUEUED {
        for settled in [false, true] {
            let (a, peer) = cell.half();
            fill(&a);
            let mut send = task::spawn(call_variants::send(way, &a, b"message", &[]));
            starts_waiting(&mut send);
            settles(settled).await;
            peer.drain();
            until_arrived(&peer, &[b"message"]).await;
            assert_eq!(soon(send).await.unwrap(), 7, "{way:?}");
            assert!(peer.arrived().is_empty(), "{way:?}");
        }
    }
}

async fn several_waiting_sends_go_out_in_order_without_being_polled_again(cell: Cell) {
    for settled in [false, true] {
        let (a, peer) = cell.half();
        fill(&a);
        let sends = call_variants::waiting_sends(&a);
        settles(settled).await;
        peer.drain();
        until_arrived(&peer, &LETTERS.each_ref().map(|letter| &letter[..])).await;
        let sent = soon(all(sends)).await;
        assert!(sent.iter().all(|sent| matches!(sent, Ok(1))), "{sent:?}");
    }
}

async fn a_receive_behind_one_that_is_not_polled_gets_the_message(cell: Cell) {
    for pinned in PINNED {
        for behind in BEHIND {
            let (a, peer) = cell.half();
            let mut receive = task::spawn(call_variants::recv(pinned, &a, Room::AMPLE));
            starts_waiting(&mut receive);
            breathe().await;
            let mut second = task::spawn(call_variants::recv(behind, &a, Room::AMPLE));
            starts_waiting(&mut second);
            breathe().await;
            peer.send(b"message");
            let got = soon(second).await.unwrap();
            assert_eq!(got.bytes, b"message", "{behind:?} behind {pinned:?}");
        }
    }
}

async fn a_receive_behind_one_that_was_polled_just_before_the_message_gets_it(cell: Cell) {
    for pinned in PINNED {
        for behind in BEHIND {
            let (a, peer) = cell.half();
            // The runtime has not run since: the first may be queued, and be served in its absence.
            let mut receive = task::spawn(call_variants::recv(pinned, &a, Room::AMPLE));
            starts_waiting(&mut receive);
            peer.send(b"message");
            let got = soon(call_variants::recv(behind, &a, Room::AMPLE)).await.unwrap();
            assert_eq!(got.bytes, b"message", "{behind:?} behind {pinned:?}");
        }
    }
}

async fn a_receive_behind_a_forgotten_one_gets_the_message(cell: Cell) {
    for pinned in PINNED {
        for settled in [false, true] {
            let (a, peer) = cell.half();
            let mut receive = Box::new(task::spawn(call_variants::recv(pinned, &a, Room::AMPLE)));
            starts_waiting(&mut receive);
            settles(settled).await;
            std::mem::forget(receive);
            for n in 0..3u8 {
                peer.send(&[n]);
                assert_eq!(recv(&a).await, [n], "behind {pinned:?}");
            }
            nothing_is_left(&a, &peer).await;
        }
    }
}

async fn a_receive_behind_one_that_is_dropped_later_gets_the_message(cell: Cell) {
    for pinned in PINNED {
        // Dropped before the message, between the message and the receive behind, after that.
        for moment in 0..3 {
            let (a, peer) = cell.half();
            let mut first = Some(task::spawn(call_variants::recv(pinned, &a, Room::AMPLE)));
            first.iter_mut().for_each(starts_waiting);
            let mut second = task::spawn(call_variants::recv(RecvBy::Plain, &a, Room::AMPLE));
            starts_waiting(&mut second);
            breathe().await;
            if moment == 0 {
                first = None;
            }
            peer.send(b"message");
            breathe().await;
            if moment == 1 {
                first = None;
            }
            assert_eq!(soon(second).await.unwrap().bytes, b"message", "behind {pinned:?}");
            drop(first);
            nothing_is_left(&a, &peer).await;
        }
    }
}

async fn several_receives_behind_several_that_are_not_polled_get_the_messages(cell: Cell) {
    const EACH: usize = 4;
    let (a, peer) = cell.half();
    let a = Arc::new(a);
    let mut pinned: Vec<_> =
        PINNED.iter().map(|way| task::spawn(call_variants::recv(*way, &a, Room::AMPLE))).collect();
    pinned.iter_mut().for_each(starts_waiting);
    let tasks: Vec<_> = BEHIND[..EACH]
        .iter()
        .map(|way| {
            let (a, way) = (a.clone(), *way);
            tokio::spawn(
                async move { call_variants::recv(way, &a, Room::AMPLE).await.unwrap().bytes },
            )
        })
        .collect();
    breathe().await;
    for n in 0..EACH {
        peer.send(&[n as u8]);
    }
    let mut got = BTreeSet::new();
    for task in tasks {
        got.extend(soon(task).await.unwrap());
    }
    assert!(got.iter().copied().eq(0..EACH as u8), "{got:?}");
    // Those in front have kept their places.
    for n in 0..PINNED.len() {
        peer.send(&[n as u8]);
    }
    for (n, got) in soon(all(pinned)).await.into_iter().enumerate() {
        assert_eq!(got.unwrap().bytes, [n as u8]);
    }
    nothing_is_left(&a, &peer).await;
}

async fn a_receive_that_is_not_polled_gets_a_later_message_when_it_is_polled(cell: Cell) {
    for pinned in PINNED {
        let (a, peer) = cell.half();
        let mut receive = task::spawn(call_variants::recv(pinned, &a, Room::AMPLE));
        starts_waiting(&mut receive);
        for n in 0..3u8 {
            peer.send(&[n]);
            assert_eq!(recv(&a).await, [n], "behind {pinned:?}");
        }
        peer.send(b"later");
        assert_eq!(soon(receive).await.unwrap().bytes, b"later", "{pinned:?}");
        nothing_is_left(&a, &peer).await;
    }
}

async fn a_peek_behind_a_receive_that_is_not_polled_sees_the_message(cell: Cell) {
    for pinned in PINNED {
        for polled in [false, true] {
            let (a, peer) = cell.half();
            let mut receive = task::spawn(call_variants::recv(pinned, &a, Room::AMPLE));
            starts_waiting(&mut receive);
            breathe().await;
            let mut buffer = [0; 16];
            let mut peek: task::Spawn<Boxed<'_, _>> = task::spawn(if polled {
                Box::pin(std::future::poll_fn(|cx| a.poll_peek(cx, &mut buffer)))
            } else {
                Box::pin(a.peek(&mut buffer))
            });
            starts_waiting(&mut peek);
            peer.send(b"message");
            let info = soon(peek).await.unwrap();
            assert_eq!((info.bytes_read(), info.message_len()), (7, 7), "behind {pinned:?}");
            assert_eq!(&buffer[..7], b"message");
            // It is still there.
            assert_eq!(soon(receive).await.unwrap().bytes, b"message", "{pinned:?}");
        }
    }
}

async fn readable_behind_a_receive_that_is_not_polled_returns(cell: Cell) {
    for pinned in PINNED {
        for polled in [false, true] {
            let (a, peer) = cell.half();
            let mut receive = task::spawn(call_variants::recv(pinned, &a, Room::AMPLE));
            starts_waiting(&mut receive);
            breathe().await;
            let mut ready: task::Spawn<Boxed<'_, _>> = task::spawn(if polled {
                Box::pin(std::future::poll_fn(|cx| a.poll_recv_ready(cx)))
            } else {
                Box::pin(a.readable())
            });
            starts_waiting(&mut ready);
            peer.send(b"message");
            soon(ready).await.unwrap();
            assert_eq!(recv(&a).await, b"message", "behind {pinned:?}");
        }
    }
}

async fn readable_and_try_recv_behind_a_receive_that_is_not_polled_get_the_message(cell: Cell) {
    for pinned in PINNED {
        let (a, peer) = cell.half();
        let mut receive = task::spawn(call_variants::recv(pinned, &a, Room::AMPLE));
        starts_waiting(&mut receive);
        breathe().await;
        peer.send(b"message");
        let got = soon(call_variants::recv(RecvBy::Try, &a, Room::AMPLE)).await.unwrap();
        assert_eq!(got.bytes, b"message", "behind {pinned:?}");
    }
}

async fn a_stream_behind_a_receive_that_is_not_polled_yields_the_message(cell: Cell) {
    for pinned in PINNED {
        let (a, peer) = cell.half();
        let mut receive = task::spawn(call_variants::recv(pinned, &a, Room::AMPLE));
        starts_waiting(&mut receive);
        breathe().await;
        let mut messages = a.messages(tokio_seqpacket::MessagesOptions::new()).unwrap();
        peer.send(b"message");
        let message = soon(messages.next()).await.expect("not the end").unwrap();
        assert_eq!(message[..], b"message"[..], "behind {pinned:?}");
    }
}

async fn the_end_of_the_stream_reaches_a_receive_behind_one_that_is_not_polled(cell: Cell) {
    for pinned in PINNED {
        for behind in BEHIND {
            let (a, peer) = cell.half();
            let mut receive = task::spawn(call_variants::recv(pinned, &a, Room::AMPLE));
            starts_waiting(&mut receive);
            breathe().await;
            let mut second = task::spawn(call_variants::recv(behind, &a, Room::AMPLE));
            starts_waiting(&mut second);
            drop(peer);
            assert_eq!(soon(second).await.unwrap().bytes, b"", "{behind:?} behind {pinned:?}");
            assert_eq!(soon(receive).await.unwrap().bytes, b"", "{pinned:?}");
        }
    }
}

async fn an_accept_behind_one_that_is_not_polled_gets_the_connection(cell: Cell) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let listener = cell.bind(&path);
    let mut pinned = task::spawn(listener.accept());
    starts_waiting(&mut pinned);
    breathe().await;
    let mut second = task::spawn(listener.accept());
    starts_waiting(&mut second);
    let client = Peer::connect(&path);
    client.send(b"message");
    let socket = soon(second).await.unwrap();
    assert_eq!(recv(&socket).await, b"message");
    let client = Peer::connect(&path);
    client.send(b"another");
    let socket = soon(pinned).await.unwrap();
    assert_eq!(recv(&socket).await, b"another");
}

/// Records its wake-ups.
struct Woken {
    name: usize,
    log: Arc<Mutex<Vec<usize>>>,
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.log.lock().unwrap().push(self.name);
    }
}

/// Futures with wakers of their own, polled when they are woken, in that order.
struct Watched<'a, T> {
    futures: Vec<Option<Boxed<'a, T>>>,
    wakers: Vec<Waker>,
    log: Arc<Mutex<Vec<usize>>>,
    /// The names of those woken since this was last emptied, each once.
    order: Vec<usize>,
    done: Vec<(usize, T)>,
}

impl<'a, T> Watched<'a, T> {
    fn new(futures: Vec<Boxed<'a, T>>) -> Self {
        let log = Arc::<Mutex<Vec<usize>>>::default();
        let wakers = (0..futures.len())
            .map(|name| Waker::from(Arc::new(Woken { name, log: log.clone() })))
            .collect();
        let futures = futures.into_iter().map(Some).collect();
        Self { futures, wakers, log, order: Vec::new(), done: Vec::new() }
    }

    fn poll(&mut self, name: usize) {
        let Some(future) = &mut self.futures[name] else { return };
        let mut cx = Context::from_waker(&self.wakers[name]);
        if let Poll::Ready(output) = Pin::new(future).poll(&mut cx) {
            self.futures[name] = None;
            self.done.push((name, output));
        }
    }

    /// Polls those that have been woken. Returns whether there were any.
    fn turn(&mut self) -> bool {
        let woken = std::mem::take(&mut *self.log.lock().unwrap());
        for name in &woken {
            if self.futures[*name].is_some() && !self.order.contains(name) {
                self.order.push(*name);
            }
            self.poll(*name);
        }
        !woken.is_empty()
    }

    /// Polls all of them in order, then those that wake themselves, until none does.
    async fn wait(&mut self) {
        (0..self.futures.len()).for_each(|name| self.poll(name));
        loop {
            breathe().await;
            if !self.turn() {
                break;
            }
        }
        assert!(self.done.is_empty(), "done at once");
        self.order.clear();
    }

    /// Until so many are done.
    #[track_caller]
    fn until_done(&mut self, count: usize) -> impl Future<Output = ()> {
        soon(async move {
            while self.done.len() < count {
                self.turn();
                tokio::task::yield_now().await;
            }
        })
    }
}

fn three(a: &UnixSeqpacket) -> Watched<'_, std::io::Result<call_variants::Got>> {
    Watched::new((0..3).map(|_| call_variants::recv(RecvBy::Plain, a, Room::AMPLE)).collect())
}

async fn waiting_receives_are_woken_in_order_as_messages_come_one_at_a_time(cell: Cell) {
    for _ in 0..20 {
        let (a, peer) = cell.half();
        let mut receives = three(&a);
        receives.wait().await;
        for name in 0..3 {
            receives.order.clear();
            peer.send(&[name as u8]);
            receives.until_done(name + 1).await;
            // Others may be woken, too, but later.
            assert_eq!(receives.order.first(), Some(&name), "woken: {:?}", receives.order);
            let (done, got) = receives.done.last().unwrap();
            assert_eq!((*done, &got.as_ref().unwrap().bytes[..]), (name, &[name as u8][..]));
            // Those that were woken for nothing, if any, wait again.
            while receives.turn() {
                breathe().await;
            }
        }
    }
}

async fn waiting_receives_are_woken_in_order_when_messages_come_together(cell: Cell) {
    for _ in 0..20 {
        let (a, peer) = cell.half();
        let mut receives = three(&a);
        receives.wait().await;
        (0..3).for_each(|n| peer.send(&[n]));
        receives.until_done(3).await;
        if !cell.flavor.is_single_threaded() {
            // The driver and the receive that was served first choose in order, and then wake, each on its own thread.
            receives.order.sort();
        }
        assert_eq!(receives.order, [0, 1, 2]);
        let got = receives.done.into_iter().map(|(_, got)| got.unwrap().bytes);
        assert!(got.eq([[0], [1], [2]]), "in another order than sent");
    }
}

async fn waiting_sends_are_woken_in_order(cell: Cell) {
    for _ in 0..10 {
        let (a, peer) = cell.half();
        fill(&a);
        let sends = [b"a", b"b", b"c"];
        let mut sends = Watched::new(
            sends
                .iter()
                .map(|message| call_variants::send(SendBy::Plain, &a, *message, &[]))
                .collect(),
        );
        sends.wait().await;
        peer.drain();
        sends.until_done(3).await;
        assert_eq!(sends.order, [0, 1, 2]);
        assert_eq!(peer.arrived(), [b"a", b"b", b"c"]);
    }
}
