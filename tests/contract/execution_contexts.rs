//! G10: wherever tokio can run a future. Local tasks, sections that block in place, threads of `spawn_blocking`, plain
//! threads, another runtime, and several calls in one task.

use std::cell::RefCell;
use std::io;
use std::panic::resume_unwind;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier, mpsc};
use std::thread;
use std::time::Duration;

use tokio::runtime::{Builder, Handle};
use tokio::sync::{oneshot, watch};
use tokio::task::{LocalSet, block_in_place, spawn_blocking, spawn_local};
use tokio_seqpacket::UnixSeqpacket;
use tokio_test::task;

use crate::harness::call_variants::{self, RecvBy, Room, SendBy};
use crate::harness::messages::{fill, recv, recv_up_to};
use crate::harness::waiting::{arm, breathe, soon, starts_waiting};
use crate::harness::{Cell, Flavor, Test, only};

pub fn tests() -> Vec<Test> {
    [
        tasks![
            local_tasks_on_a_thread_of_their_own_share_a_socket_in_an_rc,
            threads_of_spawn_blocking_receive_what_tasks_send,
            threads_of_spawn_blocking_send_what_tasks_receive,
            plain_threads_make_sockets_and_talk_through_handle_block_on,
            a_plain_thread_that_stops_waiting_takes_no_message,
            tasks_of_two_runtimes_stand_in_one_line,
            a_runtime_that_ends_while_its_tasks_receive_from_anothers_socket_loses_no_message,
            a_select_loop_over_two_sockets_and_a_channel_loses_no_message,
            calls_that_are_joined_are_served_in_the_order_of_their_polls,
            joined_directions_move_more_than_the_queues_hold,
        ],
        blocking![
            local_tasks_share_a_socket_in_an_rc,
            local_tasks_that_are_dropped_close_their_sockets,
            a_plain_thread_that_waits_in_block_on_fails_when_the_runtime_ends,
        ],
        only(
            &[Flavor::TokioUring],
            tasks![local_tasks_of_tokio_uring_itself_share_a_socket_in_an_rc],
        ),
        // Others refuse `block_in_place`.
        only(
            &[Flavor::MultiThread],
            tasks![
                messages_arrive_for_others_while_every_worker_blocks_in_place,
                a_section_that_blocks_in_place_sends_and_receives_while_others_go_on,
                a_call_may_begin_before_a_block_in_place_and_end_inside_it,
                a_call_may_begin_inside_a_block_in_place_and_end_after_it,
            ],
        ),
    ]
    .concat()
}

/// Answers every message with itself, to the end of the stream.
async fn echo(socket: impl AsRef<UnixSeqpacket>) {
    loop {
        let message = recv(socket.as_ref()).await;
        if message.is_empty() {
            return;
        }
        soon(socket.as_ref().send(&message)).await.unwrap();
    }
}

async fn asks(socket: &UnixSeqpacket, question: &[u8]) {
    soon(socket.send(question)).await.unwrap();
    assert_eq!(recv(socket).await, question);
}

/// Run on a plain thread, from now on. The output is for the runtime, which goes on meanwhile.
fn on_a_thread<T: Send + 'static>(
    body: impl FnOnce(Handle) -> T + Send + 'static,
) -> impl Future<Output = T> {
    let handle = Handle::current();
    let (tx, rx) = oneshot::channel();
    let thread = thread::spawn(move || {
        let _ = tx.send(body(handle));
    });
    async move {
        let output = rx.await;
        if let Err(panic) = thread.join() {
            resume_unwind(panic);
        }
        output.expect("output of a thread that did not panic")
    }
}

/// With tasks that cannot leave their thread. `driven_here`: it runs the I/O driver, too.
async fn share_in_an_rc(cell: Cell, driven_here: bool) {
    let (a, b) = cell.pair();
    let b = Rc::new(b);
    let log = Rc::new(RefCell::new(Vec::new()));
    let receivers: Vec<_> = (0..4u8)
        .map(|me| {
            let (b, log) = (b.clone(), log.clone());
            spawn_local(async move {
                let message = recv(&b).await;
                log.borrow_mut().push((me, message));
            })
        })
        .collect();
    breathe().await;
    receivers[1].abort();
    for n in 0..3 {
        soon(a.send(&[n])).await.unwrap();
    }
    for (me, receiver) in receivers.into_iter().enumerate() {
        assert_eq!(soon(receiver).await.is_err(), me == 1);
    }
    let mut log = log.take();
    let what: Vec<_> = log.iter().map(|(_, message)| message.clone()).collect();
    assert_eq!(what, [[0], [1], [2]]);
    // They are woken in order. With the I/O driver on another thread they need not run in it.
    log.sort();
    if driven_here {
        assert_eq!(log, [(0, vec![0]), (2, vec![1]), (3, vec![2])]);
    }
    let order: Vec<_> = log.into_iter().map(|(me, _)| me).collect();
    assert_eq!(order, [0, 2, 3]);

    let echoing = spawn_local(echo(b));
    for n in 0..100 {
        asks(&a, &[n]).await;
    }
    drop(a);
    soon(echoing).await.unwrap();
}

fn local_tasks_share_a_socket_in_an_rc(cell: Cell) {
    let shared = share_in_an_rc(cell, cell.flavor.is_single_threaded());
    LocalSet::new().block_on(&cell.runtime(), shared);
}

async fn local_tasks_of_tokio_uring_itself_share_a_socket_in_an_rc(cell: Cell) {
    let task = spawn_local(share_in_an_rc(cell, true));
    task.await.unwrap();
}

async fn local_tasks_on_a_thread_of_their_own_share_a_socket_in_an_rc(cell: Cell) {
    on_a_thread(move |handle| {
        handle.block_on(LocalSet::new().run_until(share_in_an_rc(cell, false)))
    })
    .await;
}

fn local_tasks_that_are_dropped_close_their_sockets(cell: Cell) {
    let runtime = cell.runtime();
    let local = LocalSet::new();
    let peers: Vec<_> = local.block_on(&runtime, async {
        let peers = (0..8).map(|_| {
            let (a, peer) = cell.half();
            fill(&a);
            let a = Rc::new(a);
            spawn_local({
                let a = a.clone();
                async move { a.send(b"waiting").await.map(drop) }
            });
            spawn_local(async move { a.recv(&mut [0; 16]).await.map(drop) });
            peer
        });
        let peers = peers.collect();
        breathe().await;
        peers
    });
    // Outside of the runtime.
    drop(local);
    runtime.block_on(async {
        for peer in peers {
            // Fillers come first, perhaps what waited, and a reset where something was not read.
            while !soon(peer.next()).await.is_ok_and(|message| message.is_empty()) {}
        }
    });
}

/// A receive that can be begun in one place and go on in another.
fn receive(socket: UnixSeqpacket) -> impl Future<Output = Vec<u8>> + Send + Unpin {
    Box::pin(async move { recv(&socket).await })
}

async fn messages_arrive_for_others_while_every_worker_blocks_in_place(cell: Cell) {
    for settled in [true, false] {
        // As many as workers, and they block at the same time.
        let all = Arc::new(Barrier::new(2));
        let blocking = [all.clone(), all].map(|all| {
            tokio::spawn(async move {
                let (tx, rx) = mpsc::channel();
                let mut peers = Vec::new();
                for n in 0..8 {
                    let (a, peer) = cell.half();
                    peers.push(peer);
                    let mut receive = task::spawn(receive(a));
                    if n % 2 == 0 {
                        // On the ring of this worker, which then blocks.
                        starts_waiting(&mut receive);
                    }
                    let (receive, tx) = (receive.into_inner(), tx.clone());
                    tokio::spawn(async move { tx.send(receive.await) });
                }
                if settled {
                    breathe().await;
                }
                block_in_place(|| {
                    all.wait();
                    for (n, peer) in (0..8u8).zip(&peers) {
                        peer.send(&[n]);
                    }
                    let arrived = || rx.recv_timeout(Duration::from_secs(5)).expect("a message");
                    let mut messages: Vec<_> = peers.iter().map(|_| arrived()).collect();
                    messages.sort();
                    assert_eq!(messages.concat(), [0, 1, 2, 3, 4, 5, 6, 7]);
                });
            })
        });
        for task in blocking {
            soon(task).await.unwrap();
        }
    }
}

async fn a_section_that_blocks_in_place_sends_and_receives_while_others_go_on(cell: Cell) {
    let over = Arc::new(AtomicBool::new(false));
    let (count, rounds) = watch::channel(0_u32);
    let mut tasks = Vec::new();
    for n in 0..4 {
        let (a, b) = cell.pair();
        tasks.push(tokio::spawn(echo(Arc::new(b))));
        let (over, count) = (over.clone(), count.clone());
        tasks.push(tokio::spawn(async move {
            while !over.load(Ordering::Relaxed) {
                asks(&a, &[n]).await;
                count.send_modify(|rounds| *rounds += 1);
            }
        }));
    }
    // More than workers.
    let sections: Vec<_> = (0..4)
        .map(|_| {
            let (a, b) = cell.pair();
            tasks.push(tokio::spawn(echo(Arc::new(b))));
            let mut rounds = rounds.clone();
            tokio::spawn(async move {
                for n in 0..10 {
                    asks(&a, b"outside").await;
                    block_in_place(|| {
                        let handle = Handle::current();
                        handle.block_on(async {
                            asks(&a, &[n]).await;
                            soon(a.send(b"and once more")).await.unwrap();
                            let answer = block_in_place(|| handle.block_on(recv(&a)));
                            assert_eq!(answer, b"and once more");
                            let now = *rounds.borrow_and_update();
                            soon(rounds.wait_for(|rounds| *rounds >= now + 8)).await.unwrap();
                        });
                    });
                }
            })
        })
        .collect();
    for section in sections {
        section.await.unwrap();
    }
    over.store(true, Ordering::Relaxed);
    for task in tasks {
        soon(task).await.unwrap();
    }
}

/// Have a future wait, in a section that blocks the worker.
fn arm_blocking<F: Future>(future: F) -> task::Spawn<F> {
    let mut future = task::spawn(future);
    block_in_place(|| Handle::current().block_on(arm(&mut future)));
    future
}

async fn a_call_may_begin_before_a_block_in_place_and_end_inside_it(cell: Cell) {
    for way in RecvBy::QUEUED {
        let (a, peer) = cell.half();
        let mut receive = task::spawn(call_variants::recv(way, &a, Room::AMPLE));
        arm(&mut receive).await;
        let got = block_in_place(|| {
            peer.send(b"inside");
            Handle::current().block_on(soon(receive))
        });
        assert_eq!(got.unwrap().bytes, b"inside", "{way:?}");
    }
    for way in SendBy::QUEUED {
        let (a, peer) = cell.half();
        fill(&a);
        let mut send = task::spawn(call_variants::send(way, &a, b"waiting", &[]));
        arm(&mut send).await;
        let sent = block_in_place(|| {
            peer.drain();
            Handle::current().block_on(soon(send))
        });
        assert_eq!(sent.unwrap(), 7, "{way:?}");
        assert_eq!(peer.arrived(), [b"waiting"], "{way:?}");
    }
}

async fn a_call_may_begin_inside_a_block_in_place_and_end_after_it(cell: Cell) {
    for way in RecvBy::QUEUED {
        let (a, peer) = cell.half();
        let begun = || arm_blocking(call_variants::recv(way, &a, Room::AMPLE));
        let receive = begun();
        peer.send(b"after it");
        assert_eq!(soon(receive).await.unwrap().bytes, b"after it", "{way:?}");
        // Dropped, by the thread that began it or by this one.
        drop(begun());
        peer.send(b"for the next");
        assert_eq!(recv(&a).await, b"for the next", "{way:?}");
    }
    for way in SendBy::QUEUED {
        let (a, peer) = cell.half();
        fill(&a);
        let send = arm_blocking(call_variants::send(way, &a, b"waiting", &[]));
        peer.drain();
        assert_eq!(soon(send).await.unwrap(), 7, "{way:?}");
        assert_eq!(peer.arrived(), [b"waiting"], "{way:?}");
    }
}

/// From each sender so many.
const EACH: u32 = 100;
const SENDERS: u32 = 3;

/// Numbers of which each sender has its hundred, in so long messages that the queue is soon full.
async fn sends(socket: &UnixSeqpacket, sender: u32) {
    for number in sender * EACH..(sender + 1) * EACH {
        soon(socket.send(&number.to_ne_bytes().repeat(1000))).await.unwrap();
    }
}

async fn takes(socket: &UnixSeqpacket) -> Option<u32> {
    let message = recv(socket).await;
    let number = message.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes));
    number.inspect(|number| assert_eq!(message, number.to_ne_bytes().repeat(1000)))
}

/// Every message was received once, and each receiver got those of one sender in order.
fn all_numbers_are_there(receivers: Vec<Vec<u32>>) {
    for numbers in &receivers {
        for sender in 0..SENDERS {
            assert!(numbers.iter().filter(|number| **number / EACH == sender).is_sorted());
        }
    }
    let mut numbers = receivers.concat();
    numbers.sort_unstable();
    assert!(numbers.into_iter().eq(0..SENDERS * EACH), "lost or doubled");
}

async fn threads_of_spawn_blocking_receive_what_tasks_send(cell: Cell) {
    let (a, b) = cell.pair();
    let (a, b) = (Arc::new(a), Arc::new(b));
    let receivers = [(); 4].map(|()| {
        let (b, handle) = (b.clone(), Handle::current());
        // Every receive in a `block_on` of its own.
        spawn_blocking(move || std::iter::from_fn(|| handle.block_on(takes(&b))).collect())
    });
    let senders: Vec<_> = (0..SENDERS)
        .map(|sender| {
            let a = a.clone();
            tokio::spawn(async move { sends(&a, sender).await })
        })
        .collect();
    for sender in senders {
        sender.await.unwrap();
    }
    drop(a);
    let mut received = Vec::<Vec<u32>>::new();
    for receiver in receivers {
        received.push(soon(receiver).await.unwrap());
    }
    all_numbers_are_there(received);
}

async fn threads_of_spawn_blocking_send_what_tasks_receive(cell: Cell) {
    let (a, b) = cell.pair();
    let (a, b) = (Arc::new(a), Arc::new(b));
    let receivers = [(); 4].map(|()| {
        let b = b.clone();
        tokio::spawn(async move {
            let mut numbers = Vec::new();
            while let Some(number) = takes(&b).await {
                numbers.push(number);
            }
            numbers
        })
    });
    let senders: Vec<_> = (0..SENDERS)
        .map(|sender| {
            let (a, handle) = (a.clone(), Handle::current());
            spawn_blocking(move || handle.block_on(sends(&a, sender)))
        })
        .collect();
    for sender in senders {
        sender.await.unwrap();
    }
    drop(a);
    let mut received = Vec::new();
    for receiver in receivers {
        received.push(soon(receiver).await.unwrap());
    }
    all_numbers_are_there(received);
}

async fn plain_threads_make_sockets_and_talk_through_handle_block_on(cell: Cell) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let (bound, listening) = mpsc::channel();
    let server = on_a_thread({
        let path = path.clone();
        move |handle| {
            let listener = {
                let _entered = handle.enter();
                cell.bind(path)
            };
            bound.send(()).unwrap();
            let socket = handle.block_on(soon(listener.accept())).unwrap();
            assert_eq!(socket.backend(), cell.backend);
            while let message @ [_, ..] = &handle.block_on(recv(&socket))[..] {
                handle.block_on(soon(socket.send(message))).unwrap();
            }
        }
    });
    let client = on_a_thread(move |handle| {
        listening.recv().unwrap();
        let socket = handle.block_on(soon(cell.connect(path)));
        for n in 0..100 {
            handle.block_on(asks(&socket, &[n]));
        }
    });
    client.await;
    server.await;
}

async fn a_plain_thread_that_stops_waiting_takes_no_message(cell: Cell) {
    for way in RecvBy::QUEUED {
        let (a, peer) = cell.half();
        let a = Arc::new(a);
        let (tx, waits) = oneshot::channel();
        let (stop, stopped) = oneshot::channel();
        let thread = on_a_thread({
            let a = a.clone();
            move |handle| {
                handle.block_on(async {
                    let mut receive = task::spawn(call_variants::recv(way, &a, Room::AMPLE));
                    arm(&mut receive).await;
                    tx.send(()).unwrap();
                    tokio::select! {
                        got = receive => panic!("{got:?}"),
                        stopped = stopped => stopped.unwrap(),
                    }
                });
            }
        });
        soon(waits).await.unwrap();
        stop.send(()).unwrap();
        thread.await;
        peer.send(b"for the next");
        assert_eq!(recv(&a).await, b"for the next", "{way:?}");
    }
}

fn a_plain_thread_that_waits_in_block_on_fails_when_the_runtime_ends(cell: Cell) {
    for round in 0..4 {
        let runtime = cell.runtime();
        let (a, peer) = runtime.block_on(async { cell.half() });
        let (tx, begins) = mpsc::channel();
        let handle = runtime.handle().clone();
        let thread = thread::spawn(move || {
            tx.send(()).unwrap();
            // Without a timer, which would panic without its runtime.
            handle.block_on(a.recv(&mut [0; 16]))
        });
        begins.recv().unwrap();
        if round % 2 == 0 {
            runtime.block_on(breathe());
        }
        drop(runtime);
        let error = thread.join().unwrap().unwrap_err();
        assert_ne!(error.kind(), io::ErrorKind::WouldBlock, "{error}");
        cell.runtime().block_on(async { soon(peer.ended()).await });
    }
}

async fn tasks_of_two_runtimes_stand_in_one_line(cell: Cell) {
    let (give, given) = oneshot::channel();
    let (stop, stopped) = oneshot::channel::<()>();
    let driving = on_a_thread(move |_| {
        let other = Builder::new_current_thread().enable_all().build().unwrap();
        give.send(other.handle().clone()).unwrap();
        other.block_on(stopped).unwrap();
    });
    let there = soon(given).await.unwrap();
    let here = Handle::current();
    let (a, peer) = cell.half();
    let a = Arc::new(a);
    let mut line = Vec::new();
    for (n, runtime) in (0..6u8).zip([&here, &there].into_iter().cycle()) {
        let a = a.clone();
        let (tx, waits) = oneshot::channel();
        let task = runtime.spawn(async move {
            let mut receive = task::spawn(call_variants::recv(RecvBy::Plain, &a, Room::AMPLE));
            arm(&mut receive).await;
            tx.send(()).unwrap();
            soon(receive).await.unwrap().bytes
        });
        soon(waits).await.unwrap();
        line.push((n, task));
    }
    for (n, _) in &line {
        peer.send(&[*n]);
    }
    // They are woken in order, and run in the order of their runtimes.
    let mut got = Vec::new();
    for (_, task) in line {
        got.extend(soon(task).await.unwrap());
    }
    got.sort_unstable();
    assert_eq!(got, [0, 1, 2, 3, 4, 5]);
    stop.send(()).unwrap();
    driving.await;
}

async fn a_runtime_that_ends_while_its_tasks_receive_from_anothers_socket_loses_no_message(
    cell: Cell,
) {
    for round in 0..10 {
        let (a, peer) = cell.half();
        let a = Arc::new(a);
        let (tx, wait) = oneshot::channel();
        let (end, ended) = oneshot::channel();
        let (taken, there) = mpsc::channel();
        let thread = on_a_thread({
            let a = a.clone();
            move |_| {
                let mut builder = match round % 2 {
                    0 => Builder::new_current_thread(),
                    _ => Builder::new_multi_thread(),
                };
                let other = builder.worker_threads(1).enable_all().build().unwrap();
                for taken in [taken.clone(), taken] {
                    let a = a.clone();
                    other.spawn(async move { while taken.send(recv(&a).await).is_ok() {} });
                }
                other.block_on(async {
                    breathe().await;
                    tx.send(()).unwrap();
                    ended.await.unwrap();
                });
            }
        });
        soon(wait).await.unwrap();
        peer.send(b"1");
        end.send(()).unwrap();
        peer.send(b"2");
        thread.await;
        peer.send(b"3");
        let here = recv_up_to(&a, b"3").await;
        assert!(here.is_sorted(), "{here:?}");
        let mut messages: Vec<_> = there.try_iter().chain(here).collect();
        messages.sort();
        assert_eq!(messages, [b"1", b"2", b"3"]);
    }
}

async fn a_select_loop_over_two_sockets_and_a_channel_loses_no_message(cell: Cell) {
    let (one, from_one) = cell.pair();
    let (two, from_two) = cell.pair();
    let (tick, mut ticks) = tokio::sync::mpsc::channel(1);
    for (socket, pause) in [(one, 3), (two, 7)] {
        let tick = tick.clone();
        tokio::spawn(async move {
            for number in 0..200_u8 {
                soon(socket.send(&[number])).await.unwrap();
                if number % pause == 0 {
                    // Every branch that is not taken is dropped, and begun again.
                    tick.send(()).await.unwrap();
                    tokio::task::yield_now().await;
                }
            }
        });
    }
    drop(tick);
    let mut buffer = [0; 16];
    let mut numbers = [Vec::new(), Vec::new()];
    let (mut one_is_open, mut two_is_open) = (true, true);
    soon(async {
        while one_is_open || two_is_open {
            tokio::select! {
                received = from_one.recv(&mut buffer), if one_is_open => {
                    let len = received.unwrap();
                    one_is_open = len > 0;
                    numbers[0].extend_from_slice(&buffer[..len]);
                }
                (received, bytes) = from_two.recv_owned(Vec::with_capacity(16)), if two_is_open => {
                    two_is_open = received.unwrap().bytes_read() > 0;
                    numbers[1].extend(bytes);
                }
                Some(()) = ticks.recv() => {}
            }
        }
    })
    .await;
    for numbers in numbers {
        assert!(numbers.into_iter().eq(0..200), "lost, doubled or in another order");
    }
}

async fn calls_that_are_joined_are_served_in_the_order_of_their_polls(cell: Cell) {
    let (a, b) = cell.pair();
    fill(&a);
    let (x, y, z, messages) = soon(async {
        tokio::join!(biased; a.send(b"1"), a.send(b"2"), a.send(b"3"), recv_up_to(&b, b"3"))
    })
    .await;
    assert_eq!((x.unwrap(), y.unwrap(), z.unwrap()), (1, 1, 1));
    assert_eq!(messages, [b"1", b"2", b"3"]);
    let sends = async {
        for message in [b"1", b"2", b"3"] {
            a.send(message).await.unwrap();
        }
    };
    let (x, y, z, ()) = tokio::join!(biased; recv(&b), recv(&b), recv(&b), sends);
    let mut got = [x, y, z];
    if !cell.flavor.is_single_threaded() {
        // A message can come between two of these polls.
        got.sort();
    }
    assert_eq!(got, [b"1", b"2", b"3"]);
}

async fn joined_directions_move_more_than_the_queues_hold(cell: Cell) {
    let (a, b) = cell.pair();
    let sides = [a, b].map(|socket| {
        tokio::spawn(async move {
            let sending = async {
                for number in 0..500_u16 {
                    soon(socket.send(&number.to_ne_bytes().repeat(500))).await.unwrap();
                }
            };
            let receiving = async {
                for number in 0..500_u16 {
                    assert_eq!(recv(&socket).await, number.to_ne_bytes().repeat(500));
                }
            };
            tokio::join!(sending, receiving);
        })
    });
    for side in sides {
        side.await.unwrap();
    }
}
