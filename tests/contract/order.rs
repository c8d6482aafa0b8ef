//! G1 and G9: sends are delivered whole, exactly once and in the order of their first polls. Waiters are served first in, first
//! out.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::oneshot;
use tokio_test::task;

use crate::harness::call_variants::{self, RecvBy, Room, SendBy};
use crate::harness::messages::{FILLER, fill, recv, recv_up_to};
use crate::harness::waiting::{
    all, all_served, arm, arm_all, breathe, once, soon, starts_waiting, until_woken,
};
use crate::harness::{Cell, Test};

pub fn tests() -> Vec<Test> {
    tasks![
        a_call_that_is_polled_after_completion_does_nothing_twice,
        sends_on_a_full_queue_go_out_in_the_order_of_their_first_poll,
        sends_of_all_kinds_share_one_line,
        sends_of_several_tasks_go_out_in_the_order_of_their_first_poll,
        a_send_that_comes_when_there_is_capacity_again_does_not_overtake_a_waiting_one,
        sends_first_polled_without_budget_keep_their_order,
        try_send_does_not_overtake_a_waiting_send,
        poll_send_does_not_overtake_a_waiting_send,
        receives_are_served_in_the_order_of_their_first_poll,
        receives_of_several_tasks_are_served_first_in_first_out,
        no_message_is_lost_or_doubled_between_many_senders_and_receivers,
        a_full_queue_does_not_keep_the_socket_from_receiving,
        message_boundaries_are_kept,
        every_way_to_send_reaches_every_way_to_receive,
        both_ends_send_under_pressure_at_once,
    ]
}

async fn sends_on_a_full_queue_go_out_in_the_order_of_their_first_poll(cell: Cell) {
    let (a, b) = cell.pair();
    fill(&a);
    let messages: Vec<_> = (0..40).map(|n| format!("message {n}").into_bytes()).collect();
    let mut sends: Vec<_> = messages.iter().map(|m| task::spawn(a.send(m))).collect();
    arm_all(&mut sends).await;
    let (sent, received) =
        soon(async { tokio::join!(all(sends), recv_up_to(&b, messages.last().unwrap())) }).await;
    for (sent, message) in sent.into_iter().zip(&messages) {
        assert_eq!(sent.unwrap(), message.len());
    }
    assert_eq!(received, messages);
}

async fn sends_of_all_kinds_share_one_line(cell: Cell) {
    let (a, b) = cell.pair();
    fill(&a);
    let kinds = [SendBy::QUEUED, SendBy::QUEUED].concat();
    let messages: Vec<_> = (0..kinds.len()).map(|n| format!("message {n}").into_bytes()).collect();
    let mut sends: Vec<_> = kinds
        .iter()
        .zip(&messages)
        .map(|(way, message)| task::spawn(call_variants::send(*way, &a, message, &[])))
        .collect();
    sends.iter_mut().for_each(starts_waiting);
    let (sent, received) =
        soon(async { tokio::join!(all(sends), recv_up_to(&b, messages.last().unwrap())) }).await;
    assert!(sent.iter().all(Result::is_ok), "{sent:?}");
    assert_eq!(received, messages);
}

async fn sends_of_several_tasks_go_out_in_the_order_of_their_first_poll(cell: Cell) {
    let (a, b) = cell.pair();
    let a = Arc::new(a);
    fill(&a);
    let mut tasks = Vec::new();
    for n in 0..20 {
        let (a, (tx, rx)) = (a.clone(), oneshot::channel());
        tasks.push(tokio::spawn(async move {
            let message = format!("message {n}");
            let mut send = task::spawn(a.send(message.as_bytes()));
            starts_waiting(&mut send);
            tx.send(()).unwrap();
            send.await.unwrap();
        }));
        soon(rx).await.unwrap();
    }
    let received = recv_up_to(&b, b"message 19").await;
    assert_eq!(received, (0..20).map(|n| format!("message {n}").into_bytes()).collect::<Vec<_>>());
    for task in tasks {
        soon(task).await.unwrap();
    }
}

async fn a_send_that_comes_when_there_is_capacity_again_does_not_overtake_a_waiting_one(
    cell: Cell,
) {
    for armed in [false, true] {
        let (a, peer) = cell.half();
        fill(&a);
        let mut first = task::spawn(a.send(b"first"));
        starts_waiting(&mut first);
        if armed {
            arm(&mut first).await;
        }
        peer.drain();
        let mut second = task::spawn(a.send(b"second"));
        let early = second.poll().is_ready();
        soon(first).await.unwrap();
        if !early {
            soon(second).await.unwrap();
        }
        assert_eq!(peer.arrived(), [b"first".to_vec(), b"second".to_vec()]);
    }
}

async fn sends_first_polled_without_budget_keep_their_order(cell: Cell) {
    for full in [false, true] {
        let (a, b) = cell.pair();
        let filled = if full { fill(&a) } else { 0 };
        // In a task of its own, for block_on has no budget to run out of.
        soon(tokio::spawn(async move {
            while task::spawn(tokio::task::consume_budget()).poll().is_ready() {}
            assert!(!tokio::task::coop::has_budget_remaining());
            let mut first = task::spawn(a.send(b"first"));
            let mut second = task::spawn(a.send(b"second"));
            starts_waiting(&mut first);
            starts_waiting(&mut second);
            tokio::task::yield_now().await;
            let sending = async {
                // The second is polled first.
                let second = if full { None } else { Some(second.await.unwrap()) };
                first.await.unwrap();
                second
            };
            let reading = async {
                for _ in 0..filled {
                    assert_eq!(recv(&b).await, FILLER);
                }
                assert_eq!(recv(&b).await, b"first");
                if !full {
                    assert_eq!(recv(&b).await, b"second");
                }
            };
            tokio::join!(sending, reading);
        }))
        .await
        .unwrap();
    }
}

async fn try_send_does_not_overtake_a_waiting_send(cell: Cell) {
    let (a, peer) = cell.half();
    fill(&a);
    let mut waiting = task::spawn(a.send(b"waiting"));
    arm(&mut waiting).await;
    peer.drain();
    // On a ring the waiting one may have gone out by itself by now. Then this may go out, too.
    let early = a.try_send(b"try");
    soon(waiting).await.unwrap();
    if let Err(error) = early {
        assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
        soon(call_variants::send(SendBy::Try, &a, b"try", &[])).await.unwrap();
    }
    assert_eq!(peer.arrived(), [b"waiting".to_vec(), b"try".to_vec()]);
}

async fn poll_send_does_not_overtake_a_waiting_send(cell: Cell) {
    let (a, peer) = cell.half();
    fill(&a);
    let mut waiting = task::spawn(a.send(b"waiting"));
    arm(&mut waiting).await;
    let mut polled = task::spawn(std::future::poll_fn(|cx| a.poll_send(cx, b"polled")));
    starts_waiting(&mut polled);
    peer.drain();
    // The runtime learns that there is capacity before the waiting one does.
    breathe().await;
    // On a ring the waiting one may have gone out by itself by now. Then this may go out, too.
    let early = polled.poll().is_ready();
    soon(waiting).await.unwrap();
    if !early {
        until_woken(&mut polled).await;
        soon(polled).await.unwrap();
    }
    assert_eq!(peer.arrived(), [b"waiting".to_vec(), b"polled".to_vec()]);
}

async fn receives_are_served_in_the_order_of_their_first_poll(cell: Cell) {
    let (a, peer) = cell.half();
    let kinds = [RecvBy::QUEUED, RecvBy::QUEUED].concat();
    let mut receives: Vec<_> =
        kinds.iter().map(|way| task::spawn(call_variants::recv(*way, &a, Room::AMPLE))).collect();
    receives.iter_mut().for_each(starts_waiting);
    for n in 0..receives.len() {
        peer.send(format!("message {n}").as_bytes());
        if n % 3 == 0 {
            breathe().await;
        }
    }
    let got = soon(all_served(cell, receives)).await;
    let got: Vec<_> = got.into_iter().map(|got| got.unwrap().bytes).collect();
    let sent: Vec<_> = (0..kinds.len()).map(|n| format!("message {n}").into_bytes()).collect();
    assert_eq!(got, sent);
}

/// They are woken in that order: tokio runs them in it on one thread.
async fn receives_of_several_tasks_are_served_first_in_first_out(cell: Cell) {
    let (a, peer) = cell.half();
    let a = Arc::new(a);
    let mut tasks = Vec::new();
    for _ in 0..20 {
        let (a, (tx, rx)) = (a.clone(), oneshot::channel());
        tasks.push(tokio::spawn(async move {
            let mut buffer = [0; 64];
            let mut receive = task::spawn(a.recv(&mut buffer));
            starts_waiting(&mut receive);
            tx.send(()).unwrap();
            let len = receive.await.unwrap();
            String::from_utf8_lossy(&buffer[..len]).into_owned()
        }));
        soon(rx).await.unwrap();
    }
    for n in 0..20 {
        peer.send(format!("message {n}").as_bytes());
    }
    let mut got = Vec::new();
    for task in tasks {
        got.push(soon(task).await.unwrap());
    }
    let sent: Vec<_> = (0..20).map(|n| format!("message {n}")).collect();
    in_order_on_one_thread(cell, got, sent);
}

fn in_order_on_one_thread<T: Ord + std::fmt::Debug>(cell: Cell, mut got: Vec<T>, mut sent: Vec<T>) {
    if !cell.flavor.is_single_threaded() {
        got.sort();
        sent.sort();
    }
    assert_eq!(got, sent);
}

async fn no_message_is_lost_or_doubled_between_many_senders_and_receivers(cell: Cell) {
    const SENDERS: u32 = 4;
    const RECEIVERS: usize = 4;
    const EACH: u32 = 500;
    let (a, b) = cell.pair();
    let (a, b) = (Arc::new(a), Arc::new(b));
    let senders: Vec<_> = (0..SENDERS)
        .map(|sender| {
            let a = a.clone();
            tokio::spawn(async move {
                for n in 0..EACH {
                    let message = [sender.to_ne_bytes(), n.to_ne_bytes()].concat();
                    let way = SendBy::QUEUED[(n % 8) as usize];
                    assert_eq!(call_variants::send(way, &a, &message, &[]).await.unwrap(), 8);
                }
            })
        })
        .collect();
    let receivers: Vec<_> = (0..RECEIVERS)
        .map(|receiver| {
            let b = b.clone();
            tokio::spawn(async move {
                let mut seen = BTreeMap::<u32, Vec<u32>>::new();
                for n in receiver.. {
                    let way = RecvBy::QUEUED[n % 8];
                    let got =
                        call_variants::recv(way, &b, Room { bytes: 16, control: 0 }).await.unwrap();
                    match got.bytes.as_chunks::<4>().0 {
                        [sender, n] => seen
                            .entry(u32::from_ne_bytes(*sender))
                            .or_default()
                            .push(u32::from_ne_bytes(*n)),
                        _ => break,
                    }
                }
                seen
            })
        })
        .collect();
    for sender in senders {
        soon(sender).await.unwrap();
    }
    drop(a);
    let mut all = BTreeMap::<u32, Vec<u32>>::new();
    for receiver in receivers {
        for (sender, numbers) in soon(receiver).await.unwrap() {
            assert!(numbers.is_sorted(), "one receiver saw them out of order: {numbers:?}");
            all.entry(sender).or_default().extend(numbers);
        }
    }
    assert_eq!(all.len(), SENDERS as usize);
    for (_, mut numbers) in all {
        numbers.sort_unstable();
        assert_eq!(numbers, (0..EACH).collect::<Vec<_>>());
    }
}

async fn a_full_queue_does_not_keep_the_socket_from_receiving(cell: Cell) {
    let (a, peer) = cell.half();
    fill(&a);
    let mut send = task::spawn(a.send(b"waiting"));
    starts_waiting(&mut send);
    for n in 0..10u8 {
        peer.send(&[n]);
        assert_eq!(recv(&a).await, [n]);
    }
    starts_waiting(&mut send);
    peer.drain();
    soon(send).await.unwrap();
    assert_eq!(peer.arrived(), [b"waiting"]);
}

async fn message_boundaries_are_kept(cell: Cell) {
    let (a, b) = cell.pair();
    let sizes = [1, 0, 4095, 2, 0, 0, 1000, 4096, 1];
    for (n, size) in sizes.into_iter().enumerate() {
        soon(a.send(&vec![n as u8; size])).await.unwrap();
    }
    for (n, size) in sizes.into_iter().enumerate() {
        assert_eq!(recv(&b).await, vec![n as u8; size]);
    }
}

async fn every_way_to_send_reaches_every_way_to_receive(cell: Cell) {
    let (a, b) = cell.pair();
    for sending in SendBy::ALL {
        for receiving in RecvBy::ALL {
            let message = format!("{sending:?} to {receiving:?}").into_bytes();
            // The receive waits first in one half of the cases, the message in the other.
            let mut receive = task::spawn(call_variants::recv(receiving, &b, Room::AMPLE));
            let early = message.len() % 2 == 0;
            if early {
                starts_waiting(&mut receive);
            }
            let sent = soon(call_variants::send(sending, &a, &message, &[])).await;
            assert_eq!(sent.unwrap(), message.len(), "{sending:?}");
            let got = soon(receive).await.unwrap();
            assert_eq!(got.bytes, message);
            if let Some(info) = got.info {
                assert_eq!((info.bytes_read(), info.message_len()), (message.len(), message.len()));
                assert!(!info.truncated() && !info.ancillary_truncated());
            }
        }
    }
}

async fn both_ends_send_under_pressure_at_once(cell: Cell) {
    let (a, b) = cell.pair();
    let (a, b) = (Arc::new(a), Arc::new(b));
    let mut tasks = Vec::new();
    for (from, to) in [(a.clone(), b.clone()), (b, a)] {
        tasks.push(tokio::spawn(async move {
            for n in 0..2000u32 {
                from.send(&n.to_ne_bytes()).await.unwrap();
            }
        }));
        tasks.push(tokio::spawn(async move {
            let mut buffer = [0; 4];
            for n in 0..2000u32 {
                to.recv(&mut buffer).await.unwrap();
                assert_eq!(u32::from_ne_bytes(buffer), n);
            }
        }));
    }
    for task in tasks {
        soon(task).await.unwrap();
    }
}

async fn a_call_that_is_polled_after_completion_does_nothing_twice(cell: Cell) {
    let (a, b) = cell.pair();
    for message in [vec![1; 8], vec![2; 8 << 10]] {
        let mut send = std::pin::pin!(a.send(&message));
        assert_eq!(soon(send.as_mut()).await.unwrap(), message.len());
        a.send(b"next").await.unwrap();
        panics(|| once(|cx| send.as_mut().poll(cx)));
        let mut bytes = vec![0; message.len()];
        let mut receive = std::pin::pin!(b.recv(&mut bytes));
        assert_eq!(soon(receive.as_mut()).await.unwrap(), message.len());
        panics(|| once(|cx| receive.as_mut().poll(cx)));
        assert_eq!(recv(&b).await, b"next");
        breathe().await;
        assert!(b.try_recv(&mut []).is_err(), "sent twice");
    }
}

fn panics<T>(call: impl FnOnce() -> T) {
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(call));
    assert!(caught.is_err(), "polled after completion");
}
