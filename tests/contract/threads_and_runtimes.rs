//! G10 and G12: threads, runtimes, and how sockets end with them.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::task::Poll;
use std::thread;
use std::time::{Duration, Instant};

use tokio::io::Interest;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::oneshot;
use tokio_seqpacket::{ReadHalf, UnixSeqpacket, UnixSeqpacketListener, WriteHalf};
use tokio_test::task;

use crate::harness::call_variants::{self, RecvBy, Room, SendBy};
use crate::harness::messages::{fill, recv};
use crate::harness::peer::{self, Peer};
use crate::harness::waiting::{Late, arm, breathe, in_time, once, soon, starts_waiting};
use crate::harness::{Cell, Flavor, Test, only};

pub fn tests() -> Vec<Test> {
    [
        tasks![
            futures_are_send_and_types_are_send_and_sync,
            dropping_a_socket_on_its_own_thread_ends_the_stream_at_once,
            dropping_a_socket_ends_the_stream,
            dropping_a_socket_with_a_waiting_send_ends_the_stream,
            a_duplicate_outlives_the_socket,
            a_task_that_ends_takes_its_sockets_along,
            a_socket_may_move_between_tasks,
            a_socket_may_be_dropped_on_any_thread,
            a_socket_works_in_another_runtime,
            shutdown_background_from_async_code_ends_all_calls,
        ],
        blocking![
            calls_after_the_runtime_are_errors,
            calls_that_wait_when_the_runtime_ends_are_errors,
            a_runtime_shut_down_with_a_timeout_ends_its_calls,
            a_runtime_dropped_on_another_thread_with_calls_waiting_ends_them,
            tasks_of_a_dropped_runtime_close_their_sockets,
            sockets_may_outlive_their_runtime,
            many_runtimes_one_after_the_other,
            a_socket_given_away_after_its_runtime_keeps_working,
            a_runtime_driven_from_two_threads_in_turn_ten_thousand_times,
            the_thread_that_first_polled_a_receive_ends,
            the_thread_that_first_polled_a_send_ends,
            a_hundred_threads_in_turn_drive_one_runtime,
            a_blocking_task_that_waits_in_block_on_ends,
            block_on_beside_the_workers,
            a_socket_made_outside_block_on_works_inside,
        ],
        only(
            &[Flavor::CurrentThread],
            blocking![
                without_a_runtime_making_a_socket_is_an_error,
                a_socket_whose_runtime_is_not_driven_waits,
                a_socket_dropped_on_another_thread_ends_the_stream_when_its_runtime_is_driven,
            ],
        ),
        only(
            &[Flavor::MultiThread],
            [
                tasks![a_worker_that_computes_does_not_stop_the_others],
                blocking![
                    a_runtime_that_shuts_itself_down,
                    the_peer_of_a_runtimes_first_socket_may_be_gone,
                ],
            ]
            .concat(),
        ),
    ]
    .concat()
}

async fn futures_are_send_and_types_are_send_and_sync(cell: Cell) {
    fn is_send_and_sync<T: Send + Sync + 'static>() {}
    fn is_send<T: Send>(_: T) {}
    is_send_and_sync::<UnixSeqpacket>();
    is_send_and_sync::<UnixSeqpacketListener>();
    is_send_and_sync::<ReadHalf<'static>>();
    is_send_and_sync::<WriteHalf<'static>>();
    is_send_and_sync::<tokio_seqpacket::Incoming<'static>>();
    is_send_and_sync::<tokio_seqpacket::Options>();
    is_send_and_sync::<tokio_seqpacket::ancillary::AncillaryBuffer>();
    let (a, _b) = cell.pair();
    let listener = cell.bind(tempfile::tempdir().unwrap().path().join("socket"));
    for way in SendBy::ALL {
        // Boxed as Send.
        is_send(call_variants::send(way, &a, b"", &[]));
    }
    for way in RecvBy::ALL {
        is_send(call_variants::recv(way, &a, Room::AMPLE));
    }
    is_send(listener.accept());
    is_send(a.readable());
    is_send(a.writable());
    is_send(a.ready(Interest::READABLE));
    is_send(UnixSeqpacket::connect("path"));
    is_send(cell.options().connect("path"));
}

/// What is done to a socket before it is dropped, in [`dropping_a_socket`].
#[derive(Debug, Clone, Copy)]
enum Before {
    Nothing,
    Exchange,
    /// A receive that was polled, and dropped before the runtime ran.
    Polled,
    /// A receive that a ring has in flight.
    Armed,
    Forgotten,
    /// `poll_recv` and readiness.
    Waited,
}

const BEFORE: [Before; 6] = [
    Before::Nothing,
    Before::Exchange,
    Before::Polled,
    Before::Armed,
    Before::Forgotten,
    Before::Waited,
];

async fn dropping_a_socket(cell: Cell, before: Before) -> (UnixSeqpacket, Peer) {
    let (a, peer) = cell.half();
    let mut receive = task::spawn(call_variants::recv(RecvBy::Plain, &a, Room::AMPLE));
    match before {
        Before::Nothing => {}
        Before::Exchange => {
            starts_waiting(&mut receive);
            peer.send(b"message");
            soon(receive).await.unwrap();
            soon(a.send(b"message")).await.unwrap();
            assert_eq!(peer.recv(), b"message");
            return (a, peer);
        }
        Before::Polled => starts_waiting(&mut receive),
        Before::Armed => {
            arm(&mut receive).await;
        }
        Before::Forgotten => {
            arm(&mut receive).await;
            std::mem::forget(receive);
            return (a, peer);
        }
        Before::Waited => {
            drop(receive);
            assert!(once(|cx| a.poll_recv(cx, &mut [0; 1])).is_pending());
            starts_waiting(&mut task::spawn(a.readable()));
            return (a, peer);
        }
    }
    drop(receive);
    (a, peer)
}

async fn dropping_a_socket_on_its_own_thread_ends_the_stream_at_once(cell: Cell) {
    for before in BEFORE {
        let (a, peer) = dropping_a_socket(cell, before).await;
        assert!(!peer.sees_end(), "{before:?}");
        drop(a);
        if cell.flavor.is_single_threaded() {
            assert!(peer.sees_end(), "{before:?}");
        } else {
            soon(peer.ended()).await;
        }
        let error = peer.try_send(b"late").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe, "{before:?}");
    }
}

async fn dropping_a_socket_ends_the_stream(cell: Cell) {
    // Many at once, all kinds, and with a message that arrives just before.
    let mut peers = Vec::new();
    for n in 0..30 {
        let (a, peer) = dropping_a_socket(cell, BEFORE[n % 6]).await;
        if n % 2 == 0 {
            peer.send(b"just before");
        }
        drop(a);
        peers.push(peer);
    }
    for peer in peers {
        soon(peer.ended()).await;
    }
}

async fn dropping_a_socket_with_a_waiting_send_ends_the_stream(cell: Cell) {
    for (n, way) in SendBy::QUEUED.into_iter().enumerate() {
        let (a, peer) = cell.half();
        let filled = fill(&a);
        let mut send = task::spawn(call_variants::send(way, &a, b"waiting", &[]));
        starts_waiting(&mut send);
        if n % 2 == 0 {
            arm(&mut send).await;
        }
        drop(send);
        drop(a);
        let mut messages = peer.everything();
        breathe().await;
        messages.extend(peer.everything());
        assert!(messages.len() == filled || messages.pop().unwrap() == b"waiting");
        assert_eq!(messages.len(), filled);
        soon(peer.ended()).await;
    }
}

async fn a_duplicate_outlives_the_socket(cell: Cell) {
    for before in BEFORE {
        let (a, peer) = dropping_a_socket(cell, before).await;
        let duplicate = Peer::from(a.as_fd().try_clone_to_owned().unwrap());
        drop(a);
        breathe().await;
        assert!(!peer.sees_end(), "{before:?}");
        duplicate.send(b"from a duplicate");
        assert_eq!(peer.recv(), b"from a duplicate");
        // No operation is left in flight that would take this.
        peer.send(b"to a duplicate");
        breathe().await;
        assert_eq!(duplicate.recv(), b"to a duplicate", "{before:?}");
        drop(duplicate);
        // The socket itself may be closed a little later, where its driver runs on another thread.
        soon(peer.ended()).await;
    }
}

async fn a_task_that_ends_takes_its_sockets_along(cell: Cell) {
    for aborted in [false, true] {
        let (a, peer) = cell.half();
        let (b, other) = cell.half();
        let task = tokio::spawn(async move {
            let (mut one, mut two) = ([0; 16], [0; 16]);
            tokio::select! {
                received = a.recv(&mut one) => received.unwrap(),
                received = b.recv(&mut two) => received.unwrap(),
            }
        });
        breathe().await;
        if aborted {
            task.abort();
        } else {
            peer.send(b"message");
        }
        assert_eq!(soon(task).await.is_err(), aborted);
        soon(peer.ended()).await;
        soon(other.ended()).await;
    }
}

async fn a_socket_may_move_between_tasks(cell: Cell) {
    let (mut a, peer) = cell.half();
    for n in 0..50u8 {
        let (back, answer) = oneshot::channel();
        tokio::spawn(async move {
            let mut receive = task::spawn(call_variants::recv(
                RecvBy::QUEUED[usize::from(n % 8)],
                &a,
                Room::TIGHT,
            ));
            if n % 3 == 0 {
                starts_waiting(&mut receive);
            }
            if n % 2 == 0 {
                tokio::task::yield_now().await;
            }
            drop(receive);
            let _ = back.send(a);
        });
        a = soon(answer).await.ok().unwrap();
        peer.send(&[n; 3]);
        assert_eq!(recv(&a).await, [n; 3]);
    }
}

async fn a_socket_may_be_dropped_on_any_thread(cell: Cell) {
    for before in BEFORE {
        let (a, peer) = dropping_a_socket(cell, before).await;
        thread::spawn(move || drop(a)).join().unwrap();
        soon(peer.ended()).await;
    }
    // While a call waits in it.
    let (a, peer) = cell.half();
    let a = Arc::new(a);
    let task = tokio::spawn({
        let a = a.clone();
        async move { a.recv(&mut [0; 16]).await }
    });
    breathe().await;
    thread::spawn(move || drop(a)).join().unwrap();
    peer.send(b"message");
    assert_eq!(soon(task).await.unwrap().unwrap(), 7);
    soon(peer.ended()).await;
}

/// A runtime of the most ordinary kind, in a thread of its own.
fn elsewhere<T: Send + 'static>(
    future: impl Future<Output = T> + Send + 'static,
) -> oneshot::Receiver<T> {
    let (tx, rx) = oneshot::channel();
    thread::spawn(move || {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let _ = tx.send(runtime.block_on(future));
    });
    rx
}

async fn a_socket_works_in_another_runtime(cell: Cell) {
    let (a, b) = cell.pair();
    let (a, b) = (Arc::new(a), Arc::new(b));
    // One end there and one here, then both ends there, with calls from here meanwhile.
    let there = elsewhere({
        let b = b.clone();
        async move {
            for n in 0..200u8 {
                assert_eq!(recv(&b).await, [n]);
                soon(b.send(&[n, n])).await.unwrap();
            }
        }
    });
    for n in 0..200u8 {
        soon(a.send(&[n])).await.unwrap();
        assert_eq!(recv(&a).await, [n, n]);
    }
    soon(there).await.unwrap();
    let there = elsewhere({
        let (a, b) = (a.clone(), b.clone());
        async move {
            for n in 0..200u8 {
                soon(a.send(&[n])).await.unwrap();
                assert_eq!(recv(&b).await, [n]);
                let mut dropped = task::spawn(call_variants::recv(RecvBy::Owned, &b, Room::TIGHT));
                starts_waiting(&mut dropped);
            }
            // A full queue, and a send that waits there.
            fill(&a);
            soon(async {
                tokio::join!(a.send(b"last"), async { while recv(&b).await != b"last" {} })
            })
            .await
            .0
            .unwrap();
        }
    });
    soon(there).await.unwrap();
    // And the socket is dropped there.
    soon(elsewhere(async move { drop(a) })).await.unwrap();
    assert_eq!(recv(&b).await, b"");
}

type Call = Pin<Box<dyn Future<Output = io::Result<()>> + Send>>;

/// Everything that can wait, waiting, and what comes of it.
struct Waiting {
    calls: Vec<(String, Call)>,
    _peers: Vec<Peer>,
    _directory: tempfile::TempDir,
}

impl Waiting {
    /// In the runtime whose end the test observes.
    fn new(cell: Cell) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut calls = Vec::<(String, Call)>::new();
        let mut peers = Vec::new();
        for way in RecvBy::ALL {
            let (a, peer) = cell.half();
            calls.push((
                format!("receive {way:?}"),
                Box::pin(async move { call_variants::recv(way, &a, Room::AMPLE).await.map(drop) }),
            ));
            peers.push(peer);
        }
        for way in SendBy::ALL {
            let (a, peer) = cell.half();
            fill(&a);
            calls.push((
                format!("send {way:?}"),
                Box::pin(
                    async move { call_variants::send(way, &a, b"waiting", &[]).await.map(|_| ()) },
                ),
            ));
            peers.push(peer);
        }
        let (a, peer) = cell.half();
        peers.push(peer);
        calls.push(("readable".into(), Box::pin(async move { a.readable().await })));
        let (a, peer) = cell.half();
        peers.push(peer);
        calls.push((
            "poll_recv_ready".into(),
            Box::pin(async move { std::future::poll_fn(|cx| a.poll_recv_ready(cx)).await }),
        ));
        // Two that wait for one that waits.
        let (a, peer) = cell.half();
        peers.push(peer);
        let a = Arc::new(a);
        for n in 0..3 {
            let a = a.clone();
            calls.push((
                format!("receive {n} in line"),
                Box::pin(async move { a.recv(&mut [0; 1]).await.map(|_| ()) }),
            ));
        }
        let listener = cell.bind(directory.path().join("accept"));
        calls.push(("accept".into(), Box::pin(async move { listener.accept().await.map(drop) })));
        let listener = cell.bind(directory.path().join("poll"));
        calls.push((
            "poll_accept".into(),
            Box::pin(
                async move { std::future::poll_fn(|cx| listener.poll_accept(cx)).await.map(drop) },
            ),
        ));
        let full = cell.options().bind(directory.path().join("full"), 0).unwrap();
        let mut first = task::spawn({
            let (options, path) = (cell.options(), directory.path().join("full"));
            async move { options.connect(path).await }
        });
        let Poll::Ready(Ok(first)) = first.poll() else { panic!("no connection") };
        let (options, path) = (cell.options(), directory.path().join("full"));
        calls.push((
            "connect".into(),
            Box::pin(async move {
                let result = options.connect(path).await.map(drop);
                drop((full, first));
                result
            }),
        ));
        let mut waiting = Self { calls, _peers: peers, _directory: directory };
        for (name, call) in &mut waiting.calls {
            let early = once(|cx| call.as_mut().poll(cx));
            assert!(early.is_pending(), "{name}: {early:?}");
        }
        waiting
    }

    /// In another runtime, after the end.
    async fn all_fail(self) {
        for (name, call) in self.calls {
            let error = match in_time(call).await {
                Ok(result) => result.expect_err(&name),
                Err(Late) => panic!("{name} still waits, or was not woken"),
            };
            assert_ne!(error.kind(), io::ErrorKind::WouldBlock, "{name}: {error}");
        }
    }
}

fn ordinary() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

fn calls_that_wait_when_the_runtime_ends_are_errors(cell: Cell) {
    let runtime = cell.runtime();
    let waiting = runtime.block_on(async move {
        let waiting = Waiting::new(cell);
        breathe().await;
        waiting
    });
    drop(runtime);
    ordinary().block_on(waiting.all_fail());
}

fn a_runtime_shut_down_with_a_timeout_ends_its_calls(cell: Cell) {
    let runtime = cell.runtime();
    let waiting = runtime.block_on(async move { Waiting::new(cell) });
    runtime.shutdown_timeout(Duration::from_secs(1));
    ordinary().block_on(waiting.all_fail());
}

fn a_runtime_dropped_on_another_thread_with_calls_waiting_ends_them(cell: Cell) {
    let runtime = cell.runtime();
    let waiting = runtime.block_on(async move {
        let waiting = Waiting::new(cell);
        breathe().await;
        waiting
    });
    // They wait in another runtime and are woken there.
    let (ready, started) = oneshot::channel();
    let all_fail = elsewhere(async move {
        let waiting = tokio::spawn(waiting.all_fail());
        breathe().await;
        ready.send(()).unwrap();
        waiting.await.unwrap();
    });
    started.blocking_recv().unwrap();
    thread::spawn(move || drop(runtime)).join().unwrap();
    all_fail.blocking_recv().unwrap();
}

async fn shutdown_background_from_async_code_ends_all_calls(cell: Cell) {
    if cell.flavor == Flavor::TokioUring {
        return shut_down(Cell { flavor: Flavor::CurrentThread, ..cell }).await;
    }
    shut_down(cell).await;
}

async fn shut_down(cell: Cell) {
    let other = cell.runtime();
    // Made there, polled here; on current_thread no thread ever drives it.
    let (waiting, (a, b)) = {
        let _entered = other.enter();
        (Waiting::new(cell), cell.pair())
    };
    breathe().await;
    let before = Instant::now();
    other.shutdown_background();
    assert!(before.elapsed() < Duration::from_secs(2), "shutdown_background blocked");
    soon(waiting.all_fail()).await;
    all_calls_fail(&a).await;
    drop(a);
    let peer = Peer::from(OwnedFd::from(b));
    peer.drain();
    soon(peer.ended()).await;
    // The runtime we are in is untouched.
    let (a, b) = cell.pair();
    soon(a.send(b"message")).await.unwrap();
    assert_eq!(recv(&b).await, b"message");
}

/// After the end of the runtime of `socket`, also where there is a message and capacity for one.
async fn all_calls_fail(socket: &UnixSeqpacket) {
    let check = |name: &str, error: io::Error| {
        assert_ne!(error.kind(), io::ErrorKind::WouldBlock, "{name}: {error}");
    };
    for way in RecvBy::ALL {
        let error = soon(call_variants::recv(way, socket, Room::AMPLE)).await.unwrap_err();
        check(&format!("{way:?}"), error);
    }
    for way in SendBy::ALL {
        let error = soon(call_variants::send(way, socket, b"message", &[])).await.unwrap_err();
        check(&format!("{way:?}"), error);
    }
    check("readable", soon(socket.readable()).await.unwrap_err());
    check("writable", soon(socket.writable()).await.unwrap_err());
    check("try_recv", socket.try_recv(&mut [0; 16]).unwrap_err());
    check("try_send", socket.try_send(b"message").unwrap_err());
    let _ = (format!("{socket:?}"), socket.take_error(), socket.peer_cred());
}

fn calls_after_the_runtime_are_errors(cell: Cell) {
    let directory = tempfile::tempdir().unwrap();
    let runtime = cell.runtime();
    let (used, fresh, listener) = runtime.block_on(async {
        let (used, fresh) = (cell.half(), cell.half());
        soon(used.0.send(b"message")).await.unwrap();
        used.1.send(b"message");
        recv(&used.0).await;
        used.1.send(b"for no task");
        fresh.1.send(b"for no task");
        (used, fresh, cell.bind(directory.path().join("socket")))
    });
    drop(runtime);
    ordinary().block_on(async {
        all_calls_fail(&used.0).await;
        all_calls_fail(&fresh.0).await;
        soon(listener.accept()).await.unwrap_err();
        soon(std::future::poll_fn(|cx| listener.poll_accept(cx))).await.unwrap_err();
        used.1.drain();
        drop(used.0);
        soon(used.1.ended()).await;
    });
}

fn tasks_of_a_dropped_runtime_close_their_sockets(cell: Cell) {
    let runtime = cell.runtime();
    let peers: Vec<_> = runtime.block_on(async {
        let peers = (0..20)
            .map(|n| {
                let (a, peer) = cell.half();
                tokio::spawn(async move {
                    if n % 2 == 0 {
                        fill(&a);
                        a.send(b"waiting").await.unwrap();
                    }
                    a.recv(&mut [0; 16]).await
                });
                peer
            })
            .collect();
        breathe().await;
        peers
    });
    drop(runtime);
    ordinary().block_on(async {
        for peer in peers {
            peer.drain();
            soon(peer.ended()).await;
        }
    });
}

fn sockets_may_outlive_their_runtime(cell: Cell) {
    for before in BEFORE {
        let runtime = cell.runtime();
        let (a, peer) = runtime.block_on(dropping_a_socket(cell, before));
        drop(runtime);
        // It still is open.
        assert!(!peer.sees_end(), "{before:?}");
        drop(a);
        ordinary().block_on(soon_ended(&peer));
    }
}

async fn soon_ended(peer: &Peer) {
    soon(peer.ended()).await;
}

fn many_runtimes_one_after_the_other(cell: Cell) {
    // Ids of runtimes, and addresses of their drivers, may come again.
    let mut old: Vec<(UnixSeqpacket, UnixSeqpacket)> = Vec::new();
    for n in 0..30u8 {
        let runtime = cell.runtime();
        let kept = runtime.block_on(async {
            let (a, b) = cell.pair();
            soon(a.send(&[n])).await.unwrap();
            assert_eq!(recv(&b).await, [n]);
            let mut receive = task::spawn(call_variants::recv(RecvBy::Owned, &a, Room::AMPLE));
            starts_waiting(&mut receive);
            if n % 2 == 0 {
                arm(&mut receive).await;
            }
            drop(receive);
            for (one, other) in &old {
                assert!(soon(one.recv(&mut [0; 1])).await.is_err());
                assert!(soon(other.readable()).await.is_err());
            }
            (a, b)
        });
        old.push(kept);
        if n % 5 == 4 {
            old.clear();
        }
    }
}

fn a_socket_given_away_after_its_runtime_keeps_working(cell: Cell) {
    for before in BEFORE {
        let runtime = cell.runtime();
        let (a, peer) = runtime.block_on(dropping_a_socket(cell, before));
        drop(runtime);
        let mine = Peer::from(OwnedFd::from(a));
        mine.send(b"from the descriptor");
        assert_eq!(peer.recv(), b"from the descriptor", "{before:?}");
        peer.send(b"to the descriptor");
        assert_eq!(mine.recv(), b"to the descriptor", "{before:?}");
        // And in a new runtime.
        let runtime = cell.runtime();
        runtime.block_on(async {
            let a = cell.options().socket_from_fd(mine.fd).unwrap();
            peer.send(b"message");
            assert_eq!(recv(&a).await, b"message");
        });
    }
}

type Pending = Option<Pin<Box<dyn Future<Output = Vec<u8>> + Send>>>;

/// A receive of its own that can move between threads.
fn receive(socket: &Arc<UnixSeqpacket>) -> Pin<Box<dyn Future<Output = Vec<u8>> + Send>> {
    let socket = socket.clone();
    Box::pin(async move {
        let mut buffer = [0; 64];
        let len = socket.recv(&mut buffer).await.unwrap();
        buffer[..len].to_vec()
    })
}

fn a_runtime_driven_from_two_threads_in_turn_ten_thousand_times(cell: Cell) {
    const TURNS: u32 = 10_000;
    let runtime = cell.runtime();
    let (a, b) = runtime.block_on(async { cell.pair() });
    let (a, b) = (Arc::new(a), Arc::new(b));
    // Each turn finishes the receive that the other thread began, and begins one.
    let turn = Mutex::<(u32, Pending)>::new((0, None));
    let passed = Condvar::new();
    thread::scope(|scope| {
        for me in 0..2 {
            let (runtime, turn, passed, a, b) = (&runtime, &turn, &passed, &a, &b);
            scope.spawn(move || {
                loop {
                    let mut turn = passed
                        .wait_while(turn.lock().unwrap(), |(n, _)| *n < TURNS && *n % 2 != me)
                        .unwrap();
                    let n = turn.0;
                    if n == TURNS {
                        return;
                    }
                    let pending = turn.1.take();
                    let next = runtime.block_on(async {
                        if let Some(pending) = pending {
                            a.send(&n.to_ne_bytes()).await.unwrap();
                            assert_eq!(pending.await, n.to_ne_bytes());
                        }
                        let mut next = receive(b);
                        assert!(once(|cx| next.as_mut().poll(cx)).is_pending());
                        if n % 3 == 0 {
                            tokio::task::yield_now().await;
                        }
                        Some(next)
                    });
                    *turn = (n + 1, next);
                    passed.notify_all();
                }
            });
        }
    });
}

/// Poll it once on a thread that drives the runtime, and ends.
fn poll_on_a_thread<T: Send + 'static>(
    handle: Handle,
    runtime: Option<Arc<Runtime>>,
    mut future: Pin<Box<dyn Future<Output = T> + Send>>,
    armed: bool,
) -> Pin<Box<dyn Future<Output = T> + Send>> {
    thread::spawn(move || {
        let poll = async {
            assert!(once(|cx| future.as_mut().poll(cx)).is_pending());
            if armed {
                breathe().await;
            }
        };
        match runtime {
            Some(runtime) => runtime.block_on(poll),
            None => handle.block_on(poll),
        }
        future
    })
    .join()
    .unwrap()
}

fn the_thread_that_first_polled_a_receive_ends(cell: Cell) {
    let runtime = Arc::new(cell.runtime());
    let (a, peer) = runtime.block_on(async { cell.half() });
    let a = Arc::new(a);
    for round in 0..20u8 {
        let driver = (round % 4 < 2).then(|| runtime.clone());
        let armed = round % 2 == 0 && (driver.is_some() || cell.flavor == Flavor::MultiThread);
        let pending = poll_on_a_thread(runtime.handle().clone(), driver, receive(&a), armed);
        if round % 5 == 4 {
            // Dropped instead: the next one gets the message.
            drop(pending);
            peer.send(&[round; 3]);
            assert_eq!(runtime.block_on(recv(&a)), [round; 3]);
            continue;
        }
        if round % 3 == 0 {
            peer.send(&[round; 3]);
            assert_eq!(runtime.block_on(soon_of(pending)), [round; 3]);
        } else {
            let message = runtime.block_on(async {
                let message = tokio::spawn(pending);
                breathe().await;
                peer.send(&[round; 3]);
                soon(message).await.unwrap()
            });
            assert_eq!(message, [round; 3]);
        }
    }
}

async fn soon_of<T>(future: Pin<Box<dyn Future<Output = T> + Send>>) -> T {
    soon(future).await
}

fn the_thread_that_first_polled_a_send_ends(cell: Cell) {
    let runtime = Arc::new(cell.runtime());
    for round in 0..10 {
        let (a, peer) = runtime.block_on(async { cell.half() });
        fill(&a);
        let a = Arc::new(a);
        let send = Box::pin({
            let a = a.clone();
            async move { a.send_owned(b"waiting".to_vec()).await.0 }
        });
        let driver = (round % 2 == 0).then(|| runtime.clone());
        let armed = driver.is_some() || cell.flavor == Flavor::MultiThread;
        let send = poll_on_a_thread(runtime.handle().clone(), driver, send, armed);
        let mut messages = peer.everything();
        runtime.block_on(soon_of(send)).unwrap();
        messages.extend(peer.everything());
        assert_eq!(messages.iter().filter(|message| *message == b"waiting").count(), 1);
        runtime.block_on(async { soon(a.send(b"next")).await }).unwrap();
        assert_eq!(peer.arrived(), [b"next"]);
    }
}

fn a_hundred_threads_in_turn_drive_one_runtime(cell: Cell) {
    let runtime = Arc::new(cell.runtime());
    let (a, b) = runtime.block_on(async { cell.pair() });
    let (a, b) = (Arc::new(a), Arc::new(b));
    // One receive waits all along, in a task.
    let (kept, far) = runtime.block_on(async { cell.half() });
    let task = runtime.spawn(async move { kept.recv(&mut [0; 16]).await });
    for n in 0..100u8 {
        let (runtime, a, b) = (runtime.clone(), a.clone(), b.clone());
        thread::spawn(move || {
            runtime.block_on(async {
                soon(a.send(&[n])).await.unwrap();
                assert_eq!(recv(&b).await, [n]);
                let mut dropped = task::spawn(call_variants::recv(RecvBy::Plain, &b, Room::AMPLE));
                starts_waiting(&mut dropped);
            });
        })
        .join()
        .unwrap();
    }
    far.send(b"message");
    assert_eq!(runtime.block_on(async { soon(task).await }).unwrap().unwrap(), 7);
}

fn a_blocking_task_that_waits_in_block_on_ends(cell: Cell) {
    let mut builder = cell.builder();
    let runtime = builder.enable_all().thread_keep_alive(Duration::from_millis(1)).build().unwrap();
    let (a, peer) = runtime.block_on(async { cell.half() });
    let a = Arc::new(a);
    for n in 0..10u8 {
        let message = runtime.block_on(async {
            let pending = tokio::task::spawn_blocking({
                let (a, handle) = (a.clone(), Handle::current());
                move || {
                    let mut pending = receive(&a);
                    handle.block_on(async {
                        assert!(once(|cx| pending.as_mut().poll(cx)).is_pending());
                        breathe().await;
                    });
                    pending
                }
            });
            let pending = soon(pending).await.unwrap();
            // Longer than the thread is kept.
            for _ in 0..3 {
                breathe().await;
            }
            peer.send(&[n; 3]);
            soon(pending).await
        });
        assert_eq!(message, [n; 3]);
    }
    // And one that does the whole thing on such a thread.
    runtime.block_on(async {
        let blocking = tokio::task::spawn_blocking({
            let (a, handle) = (a.clone(), Handle::current());
            move || handle.block_on(async { recv(&a).await })
        });
        breathe().await;
        peer.send(b"message");
        assert_eq!(soon(blocking).await.unwrap(), b"message");
    });
}

fn block_on_beside_the_workers(cell: Cell) {
    let runtime = cell.runtime();
    let (a, b) = runtime.block_on(async { cell.pair() });
    let echo = runtime.spawn(async move {
        loop {
            let message = recv(&b).await;
            if message.is_empty() {
                return;
            }
            soon(b.send(&message)).await.unwrap();
        }
    });
    runtime.block_on(async {
        for n in 0..500u32 {
            soon(a.send(&n.to_ne_bytes())).await.unwrap();
            assert_eq!(recv(&a).await, n.to_ne_bytes());
        }
    });
    drop(a);
    runtime.block_on(async { soon(echo).await }).unwrap();
}

fn a_socket_made_outside_block_on_works_inside(cell: Cell) {
    let runtime = cell.runtime();
    let (a, b) = {
        let _entered = runtime.enter();
        cell.pair()
    };
    // Polled outside as well, before the runtime ever ran.
    let mut early = task::spawn(call_variants::recv(RecvBy::Plain, &b, Room::AMPLE));
    starts_waiting(&mut early);
    runtime.block_on(async {
        soon(a.send(b"message")).await.unwrap();
        assert_eq!(soon(early).await.unwrap().bytes, b"message");
    });
}

fn without_a_runtime_making_a_socket_is_an_error(cell: Cell) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let (ours, theirs) = peer::socketpair();
    let listening = std::os::unix::net::UnixListener::bind(directory.path().join("other")).unwrap();
    let mut connect = task::spawn(UnixSeqpacket::connect(directory.path().join("other")));
    let errors = [
        cell.options().pair().unwrap_err(),
        cell.options().bind(&path, 1).unwrap_err(),
        cell.options().socket_from_fd(ours).unwrap_err(),
    ];
    for error in errors {
        assert!(error.to_string().contains("runtime"), "{error}");
    }
    assert!(matches!(connect.poll(), Poll::Ready(Err(_))));
    assert!(!path.exists(), "a file is left");
    // What was refused is closed.
    assert!(Peer::from(theirs).sees_end());
    drop(listening);
}

fn a_socket_whose_runtime_is_not_driven_waits(cell: Cell) {
    let idle = cell.runtime();
    let (a, peer, full, full_peer) = {
        let _entered = idle.enter();
        let (a, peer) = cell.half();
        let (full, full_peer) = cell.half();
        (a, peer, full, full_peer)
    };
    fill(&full);
    let (a, full) = (Arc::new(a), Arc::new(full));
    let elsewhere = ordinary();
    let calls = elsewhere.block_on(async {
        let receive = tokio::spawn(receive(&a));
        let send = tokio::spawn({
            let full = full.clone();
            async move { full.send(b"waiting").await }
        });
        let readable = tokio::spawn({
            let a = a.clone();
            async move { a.readable().await }
        });
        // Wait, whatever happens to their sockets: no error, no panic.
        for _ in 0..10 {
            breathe().await;
            assert!(!receive.is_finished() && !send.is_finished() && !readable.is_finished());
        }
        peer.send(b"message");
        peer.send(b"another");
        full_peer.drain();
        breathe().await;
        (receive, send, readable)
    });
    // Driven, for as long as it takes.
    let (stop, stopped) = oneshot::channel::<()>();
    thread::scope(|scope| {
        scope.spawn(|| idle.block_on(stopped));
        elsewhere.block_on(async {
            assert_eq!(soon(calls.0).await.unwrap(), b"message");
            soon(calls.1).await.unwrap().unwrap();
            soon(calls.2).await.unwrap().unwrap();
            assert_eq!(recv(&a).await, b"another");
            assert_eq!(full_peer.recv(), b"waiting");
        });
        stop.send(()).unwrap();
    });
}

fn a_socket_dropped_on_another_thread_ends_the_stream_when_its_runtime_is_driven(cell: Cell) {
    for before in BEFORE {
        let runtime = cell.runtime();
        let (a, peer) = runtime.block_on(dropping_a_socket(cell, before));
        thread::spawn(move || drop(a)).join().unwrap();
        // Now, or when it is driven, or when it is gone.
        runtime.block_on(soon_ended(&peer));

        let (a, peer) = runtime.block_on(dropping_a_socket(cell, before));
        thread::spawn(move || drop(a)).join().unwrap();
        drop(runtime);
        ordinary().block_on(soon_ended(&peer));
    }
}

async fn a_worker_that_computes_does_not_stop_the_others(cell: Cell) {
    // More sockets than workers, so that some have been submitted by the worker that then computes.
    let mut echoes = Vec::new();
    let mut clients = Vec::new();
    let over = Arc::new(AtomicBool::new(false));
    for _ in 0..8 {
        let (a, b) = cell.pair();
        echoes.push(tokio::spawn(async move {
            while b.recv(&mut [0; 16]).await.unwrap() > 0 {
                b.send(b"answer").await.unwrap();
            }
        }));
        clients.push(tokio::spawn(async move {
            for _ in 0..25 {
                soon(a.send(b"question")).await.unwrap();
                assert_eq!(recv(&a).await, b"answer");
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }));
    }
    // 50 ms of computing in every 60, until the others are done. Not without a pause: tokio leaves its
    // I/O driver alone while the worker that had it last computes and the others sleep.
    let computing = tokio::spawn({
        let over = over.clone();
        async move {
            while !over.load(Ordering::Relaxed) {
                let begin = Instant::now();
                while begin.elapsed() < Duration::from_millis(50) {
                    std::hint::spin_loop();
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    });
    for task in clients.into_iter().chain(echoes) {
        task.await.unwrap();
    }
    over.store(true, Ordering::Relaxed);
    soon(computing).await.unwrap();
}

fn a_runtime_that_shuts_itself_down(cell: Cell) {
    let runtime = cell.runtime();
    let (a, peer) = runtime.block_on(async { cell.half() });
    let (give, given) = oneshot::channel::<Runtime>();
    let (tx, rx) = std::sync::mpsc::channel();
    runtime.spawn(async move {
        let mut receive = task::spawn(call_variants::recv(RecvBy::Owned, &a, Room::AMPLE));
        arm(&mut receive).await;
        let runtime = given.await.unwrap();
        runtime.shutdown_background();
        // Nothing is certain but that this neither panics nor hangs.
        let _ = receive.poll();
        drop(receive);
        let _ = once(|cx| a.poll_recv(cx, &mut [0; 1]));
        let _ = (a.try_recv(&mut [0; 1]), a.try_send(b"message"));
        drop(a);
        tx.send(()).unwrap();
    });
    give.send(runtime).unwrap();
    rx.recv_timeout(Duration::from_secs(5)).unwrap();
    ordinary().block_on(async {
        peer.drain();
        soon(peer.ended()).await;
    });
}

/// Registered with the I/O driver, its hang-up is reported to another worker at once.
fn the_peer_of_a_runtimes_first_socket_may_be_gone(cell: Cell) {
    for _ in 0..1000 {
        let (ours, peer) = peer::socketpair();
        drop(peer);
        let runtime = cell.runtime();
        let _inside = runtime.enter();
        drop(cell.options().socket_from_fd(ours).expect("a socket"));
    }
}
