//! G2, G9 and G10: a first poll that only queues an operation keeps no call from being served. Not where the future is dropped
//! at once, not where the task never yields, and not where no driver runs behind the poll.

use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use tokio_seqpacket::UnixSeqpacket;
use tokio_test::task;

use crate::harness::call_variants::{self, RecvBy, Room, SendBy};
use crate::harness::descriptors::file;
use crate::harness::messages::recv;
use crate::harness::peer::Peer;
use crate::harness::waiting::{breathe, soon};
use crate::harness::{Cell, Flavor, Test, only};

pub fn tests() -> Vec<Test> {
    [
        tasks![
            now_or_never_receives_a_message_that_is_there,
            a_timeout_of_zero_receives_a_message_that_is_there,
            a_biased_select_beside_a_ready_branch_receives_a_message_that_is_there,
            a_receive_polled_once_a_turn_receives_a_message_that_is_there,
            now_or_never_sends_where_there_is_capacity,
            a_timeout_of_zero_sends_where_there_is_capacity,
            a_biased_select_beside_a_ready_branch_sends_where_there_is_capacity,
            now_or_never_of_a_stream_and_of_batches_is_served,
            a_receive_behind_one_descriptor_is_made_at_once,
        ],
        blocking![
            a_foreign_executor_receives_what_is_there,
            a_foreign_executor_sends_where_there_is_capacity,
            a_foreign_executor_on_a_thread_that_has_entered_the_runtime_is_served,
            another_runtime_receives_and_sends_while_nothing_drives_this_one,
            block_on_is_served_beside_idle_workers,
        ],
        only(&[Flavor::CurrentThread], tasks![a_round_trip_takes_few_batches]),
        only(
            &[Flavor::MultiThread],
            blocking![
                a_task_that_never_yields_does_not_stop_the_other_worker,
                a_task_that_never_yields_after_calls_of_its_own_does_not_stop_the_other_worker,
                block_on_is_served_while_all_workers_compute,
            ],
        ),
    ]
    .concat()
}

/// A call that is dropped while it is queued makes the next one direct.
const CALLS: usize = 2;
/// Where the runtime, or a timer, may come in between.
const FEW: usize = 5;

/// The output of a call that is made [`CALLS`] times in a row. With several workers one that was dropped
/// may be in flight on another worker. Then the call is made again a moment later.
#[track_caller]
fn served<T>(cell: Cell, mut call: impl FnMut() -> Option<T>) -> impl Future<Output = T> {
    let line = std::panic::Location::caller();
    async move {
        for _ in 0..if cell.flavor.is_single_threaded() { 1 } else { FEW } {
            if let Some(output) = (0..CALLS).find_map(|_| call()) {
                return output;
            }
            breathe().await;
        }
        panic!("not served at {line}");
    }
}

/// Between the rounds of a loop that does not yield by itself: as in [`served`].
async fn next_round(cell: Cell, rounds: usize) {
    if rounds >= CALLS && !cell.flavor.is_single_threaded() {
        breathe().await;
    }
    assert!(rounds < FEW, "not served in {FEW} rounds");
}

async fn now_or_never_receives_a_message_that_is_there(cell: Cell) {
    let (a, peer) = cell.half();
    for way in RecvBy::QUEUED {
        for _ in 0..5 {
            // For tokio's budget.
            tokio::task::yield_now().await;
            peer.send(b"message");
            let receive = || call_variants::recv(way, &a, Room::AMPLE).now_or_never();
            let got = served(cell, receive).await.unwrap();
            assert_eq!(got.bytes, b"message", "{way:?}");
        }
    }
}

async fn a_timeout_of_zero_receives_a_message_that_is_there(cell: Cell) {
    let (a, peer) = cell.half();
    for way in RecvBy::QUEUED {
        for _ in 0..5 {
            peer.send(b"message");
            let mut calls = 0;
            let got = loop {
                let receive = call_variants::recv(way, &a, Room::AMPLE);
                if let Ok(got) = tokio::time::timeout(Duration::ZERO, receive).await {
                    break got.unwrap();
                }
                calls += 1;
                assert!(calls < FEW, "{way:?}: not in {FEW} calls");
            };
            assert_eq!(got.bytes, b"message", "{way:?}");
        }
    }
}

async fn a_biased_select_beside_a_ready_branch_receives_a_message_that_is_there(cell: Cell) {
    let (a, peer) = cell.half();
    for way in RecvBy::QUEUED {
        for _ in 0..5 {
            tokio::task::yield_now().await;
            peer.send(b"message");
            let mut rounds = 0;
            let got = loop {
                tokio::select! {
                    biased;
                    got = call_variants::recv(way, &a, Room::AMPLE) => break got.unwrap(),
                    () = std::future::ready(()) => rounds += 1,
                }
                next_round(cell, rounds).await;
            };
            assert_eq!(got.bytes, b"message", "{way:?}");
        }
    }
}

async fn a_receive_polled_once_a_turn_receives_a_message_that_is_there(cell: Cell) {
    let (a, peer) = cell.half();
    for way in RecvBy::QUEUED {
        for _ in 0..5 {
            peer.send(b"message");
            let mut turns = 0;
            let got = loop {
                // Dropped each time, and the runtime runs in between.
                if let Some(got) = call_variants::recv(way, &a, Room::AMPLE).now_or_never() {
                    break got.unwrap();
                }
                breathe().await;
                turns += 1;
                assert!(turns < FEW, "{way:?}: not in {FEW} turns");
            };
            assert_eq!(got.bytes, b"message", "{way:?}");
        }
    }
}

/// A send that was dropped may have gone out, whole. One that returned has.
fn went_out(peer: &Peer, calls: usize, way: SendBy) {
    let arrived = peer.arrived();
    assert!(arrived.iter().all(|message| message == b"message"), "{way:?}: {arrived:?}");
    assert!((1..=calls).contains(&arrived.len()), "{way:?}: {} of {calls}", arrived.len());
}

async fn now_or_never_sends_where_there_is_capacity(cell: Cell) {
    let (a, peer) = cell.half();
    for way in SendBy::QUEUED {
        for _ in 0..5 {
            tokio::task::yield_now().await;
            let mut calls = 0;
            let send = || {
                calls += 1;
                call_variants::send(way, &a, b"message", &[]).now_or_never()
            };
            assert_eq!(served(cell, send).await.unwrap(), 7, "{way:?}");
            went_out(&peer, calls, way);
        }
    }
}

async fn a_timeout_of_zero_sends_where_there_is_capacity(cell: Cell) {
    let (a, peer) = cell.half();
    for way in SendBy::QUEUED {
        for _ in 0..5 {
            let mut calls = 0;
            loop {
                calls += 1;
                let send = call_variants::send(way, &a, b"message", &[]);
                if let Ok(sent) = tokio::time::timeout(Duration::ZERO, send).await {
                    assert_eq!(sent.unwrap(), 7, "{way:?}");
                    break;
                }
                assert!(calls < FEW, "{way:?}: not in {FEW} calls");
            }
            went_out(&peer, calls, way);
        }
    }
}

async fn a_biased_select_beside_a_ready_branch_sends_where_there_is_capacity(cell: Cell) {
    let (a, peer) = cell.half();
    for way in SendBy::QUEUED {
        for _ in 0..5 {
            tokio::task::yield_now().await;
            let mut rounds = 1;
            loop {
                tokio::select! {
                    biased;
                    sent = call_variants::send(way, &a, b"message", &[]) => {
                        assert_eq!(sent.unwrap(), 7, "{way:?}");
                        break;
                    }
                    () = std::future::ready(()) => rounds += 1,
                }
                next_round(cell, rounds - 1).await;
            }
            went_out(&peer, rounds, way);
        }
    }
}

async fn now_or_never_of_a_stream_and_of_batches_is_served(cell: Cell) {
    let (a, peer) = cell.half();
    for _ in 0..5 {
        tokio::task::yield_now().await;
        peer.send(b"one");
        peer.send(b"two");
        let mut messages = a.messages(tokio_seqpacket::MessagesOptions::new()).unwrap();
        let message = served(cell, || messages.next().now_or_never()).await;
        assert_eq!(message.unwrap().unwrap()[..], b"one"[..]);
        drop(messages);
        let mut buffer = [0; 16];
        let mut infos = Vec::new();
        let receive = || {
            let mut buffers = [std::io::IoSliceMut::new(&mut buffer)];
            a.recv_batch(&mut buffers, &mut infos).now_or_never()
        };
        assert_eq!(served(cell, receive).await.unwrap(), 1);
        assert_eq!(&buffer[..3], b"two");
        let mut batch = a.batch();
        batch.push(b"one");
        batch.push(b"two");
        // A batch keeps its place in the queue: it is served once this task yields.
        let mut turns = 0;
        while batch.send().now_or_never().is_none() {
            breathe().await;
            turns += 1;
            assert!(turns < FEW, "not in {FEW} turns");
        }
        assert_eq!((batch.sent(), peer.arrived().len()), (2, 2));
    }
}

/// Wakes a thread.
struct Unpark(Thread, AtomicBool);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.1.store(true, Ordering::Release);
        self.0.unpark();
    }
}

/// An executor that has nothing to do with tokio: polls when it is woken, on this thread.
#[track_caller]
fn foreign<F: Future>(future: F) -> F::Output {
    const PATIENCE: Duration = Duration::from_secs(5);
    let line = std::panic::Location::caller();
    let begin = Instant::now();
    let unpark = Arc::new(Unpark(thread::current(), AtomicBool::new(false)));
    let waker = Waker::from(unpark.clone());
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        while !unpark.1.swap(false, Ordering::Acquire) {
            assert!(begin.elapsed() < PATIENCE, "not woken in {PATIENCE:?} at {line}");
            thread::park_timeout(Duration::from_millis(50));
        }
    }
}

/// On a plain thread, to its end.
fn on_a_thread(body: impl FnOnce() + Send) {
    thread::scope(|scope| {
        if let Err(panic) = scope.spawn(body).join() {
            std::panic::resume_unwind(panic);
        }
    });
}

fn receives(a: &UnixSeqpacket, peer: &Peer) {
    // Those that wait for readiness before they call need the runtime.
    for way in RecvBy::QUEUED {
        for n in 0..3u8 {
            peer.send(&[n]);
            let got = foreign(call_variants::recv(way, a, Room::AMPLE)).unwrap();
            assert_eq!(got.bytes, [n], "{way:?}");
        }
    }
}

fn sends(a: &UnixSeqpacket, peer: &Peer) {
    for way in SendBy::QUEUED {
        for n in 0..3u8 {
            assert_eq!(foreign(call_variants::send(way, a, &[n], &[])).unwrap(), 1, "{way:?}");
            assert_eq!(peer.recv(), [n], "{way:?}");
        }
    }
}

fn a_foreign_executor_receives_what_is_there(cell: Cell) {
    let runtime = cell.runtime();
    let (a, peer) = runtime.block_on(async { cell.half() });
    on_a_thread(|| receives(&a, &peer));
    // And on this thread, which has driven the runtime.
    receives(&a, &peer);
}

fn a_foreign_executor_sends_where_there_is_capacity(cell: Cell) {
    let runtime = cell.runtime();
    let (a, peer) = runtime.block_on(async { cell.half() });
    on_a_thread(|| sends(&a, &peer));
    sends(&a, &peer);
}

fn a_foreign_executor_on_a_thread_that_has_entered_the_runtime_is_served(cell: Cell) {
    let runtime = cell.runtime();
    let (a, peer) = runtime.block_on(async { cell.half() });
    on_a_thread(|| {
        let _entered = runtime.enter();
        receives(&a, &peer);
        sends(&a, &peer);
        // And sockets that are made there.
        let (a, peer) = cell.half();
        sends(&a, &peer);
        receives(&a, &peer);
    });
    let _entered = runtime.enter();
    receives(&a, &peer);
    sends(&a, &peer);
}

fn another_runtime_receives_and_sends_while_nothing_drives_this_one(cell: Cell) {
    let idle = cell.runtime();
    let (a, peer) = idle.block_on(async { cell.half() });
    cell.runtime().block_on(async {
        // Those that need no readiness: its registration is with the runtime that is idle.
        for way in RecvBy::QUEUED {
            peer.send(b"message");
            assert_eq!(
                soon(call_variants::recv(way, &a, Room::AMPLE)).await.unwrap().bytes,
                b"message"
            );
        }
        for way in SendBy::QUEUED {
            assert_eq!(soon(call_variants::send(way, &a, b"message", &[])).await.unwrap(), 7);
            assert_eq!(peer.recv(), b"message");
        }
    });
}

fn block_on_is_served_beside_idle_workers(cell: Cell) {
    let runtime = cell.runtime();
    let (a, peer) = runtime.block_on(async { cell.half() });
    runtime.block_on(async {
        for way in RecvBy::QUEUED {
            peer.send(b"message");
            let got =
                (0..CALLS).find_map(|_| call_variants::recv(way, &a, Room::AMPLE).now_or_never());
            assert_eq!(got.expect("served").unwrap().bytes, b"message", "{way:?}");
            // One that waits is woken.
            let mut receive = task::spawn(call_variants::recv(way, &a, Room::AMPLE));
            assert!(receive.poll().is_pending());
            peer.send(b"later");
            assert_eq!(soon(receive).await.unwrap().bytes, b"later", "{way:?}");
        }
        for way in SendBy::QUEUED {
            let sent =
                (0..CALLS).find_map(|_| call_variants::send(way, &a, b"x", &[]).now_or_never());
            assert_eq!(sent.expect("served").unwrap(), 1, "{way:?}");
            peer.drain();
        }
    });
}

/// Tasks that compute until this is dropped.
struct Computing(Arc<AtomicBool>);

impl Computing {
    /// `first` is what a task does before.
    fn new<F>(runtime: &tokio::runtime::Runtime, count: usize, first: impl Fn() -> F) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (over, begun) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        for _ in 0..count {
            let (over, begun) = (over.clone(), begun.clone());
            let mut first: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(first());
            runtime.spawn(std::future::poll_fn(move |cx| {
                // Not polled to its end: this task never yields.
                let _ = first.as_mut().poll(cx);
                begun.fetch_add(1, Ordering::Release);
                while !over.load(Ordering::Acquire) {
                    // As good as computing, and leaves the core to other tests.
                    thread::sleep(Duration::from_micros(200));
                }
                Poll::Ready(())
            }));
        }
        while begun.load(Ordering::Acquire) < count {
            thread::yield_now();
        }
        Self(over)
    }
}

impl Drop for Computing {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Two tasks whose messages go back and forth, spawned from outside, and a third that answers a plain
/// peer. To the end, or a failure.
fn goes_on(cell: Cell, runtime: &tokio::runtime::Runtime) {
    let (a, b, c, peer) = {
        let _entered = runtime.enter();
        let ((a, b), (c, peer)) = (cell.pair(), cell.half());
        (a, b, c, peer)
    };
    let (done, is_done) = mpsc::channel();
    runtime.spawn(async move {
        for n in 0..200u32 {
            assert_eq!(recv(&b).await, n.to_ne_bytes());
            soon(b.send(b"answer")).await.unwrap();
        }
    });
    runtime.spawn({
        let done = done.clone();
        async move {
            for n in 0..200u32 {
                soon(a.send(&n.to_ne_bytes())).await.unwrap();
                assert_eq!(recv(&a).await, b"answer");
            }
            done.send(()).unwrap();
        }
    });
    runtime.spawn(async move {
        for n in 0..20u8 {
            assert_eq!(recv(&c).await, [n]);
        }
        done.send(()).unwrap();
    });
    for n in 0..20u8 {
        thread::sleep(Duration::from_micros(500));
        peer.send(&[n]);
    }
    for _ in 0..2 {
        is_done.recv_timeout(Duration::from_secs(5)).expect("the other worker goes on");
    }
}

fn a_task_that_never_yields_does_not_stop_the_other_worker(cell: Cell) {
    let runtime = cell.runtime();
    for _ in 0..5 {
        let computing = Computing::new(&runtime, 1, || std::future::ready(()));
        goes_on(cell, &runtime);
        drop(computing);
    }
}

fn a_task_that_never_yields_after_calls_of_its_own_does_not_stop_the_other_worker(cell: Cell) {
    let runtime = cell.runtime();
    for receives in [false, true] {
        for sends in [false, true] {
            let (a, _peer) = runtime.block_on(async { cell.half() });
            let a = Arc::new(a);
            let computing = Computing::new(&runtime, 1, || {
                let a = a.clone();
                async move {
                    if sends {
                        let _ = a.send(b"message").now_or_never();
                    }
                    if receives {
                        let _ = a.recv(&mut [0; 16]).await;
                    }
                }
            });
            goes_on(cell, &runtime);
            drop(computing);
        }
    }
}

fn block_on_is_served_while_all_workers_compute(cell: Cell) {
    let runtime = cell.runtime();
    let (a, peer) = runtime.block_on(async { cell.half() });
    let computing = Computing::new(&runtime, 2, || std::future::ready(()));
    runtime.block_on(async {
        for way in RecvBy::QUEUED {
            peer.send(b"message");
            let got =
                (0..CALLS).find_map(|_| call_variants::recv(way, &a, Room::AMPLE).now_or_never());
            assert_eq!(got.expect("served").unwrap().bytes, b"message", "{way:?}");
        }
        for way in SendBy::QUEUED {
            let sent =
                (0..CALLS).find_map(|_| call_variants::send(way, &a, b"x", &[]).now_or_never());
            assert_eq!(sent.expect("served").unwrap(), 1, "{way:?}");
            peer.drain();
        }
    });
    drop(computing);
}

/// So that the descriptors of the next message are claimed when they arrive.
async fn a_receive_behind_one_descriptor_is_made_at_once(cell: Cell) {
    let (a, peer) = cell.half();
    peer.send_fds(b"one", &[file("passed")]);
    let first = call_variants::recv(RecvBy::OwnedAncillary, &a, Room::AMPLE);
    assert_eq!(soon(first).await.unwrap().bytes, b"one");
    peer.send(b"two");
    let mut second = task::spawn(call_variants::recv(RecvBy::OwnedAncillary, &a, Room::AMPLE));
    assert!(second.poll().is_ready());
}

/// Where both sides were parked once, each must find out soon that the other has sent. If the I/O driver runs but every
/// so many polls, all attempts of each receive find nothing.
async fn a_round_trip_takes_few_batches(cell: Cell) {
    const TRIPS: u64 = 100;
    let (a, b) = cell.pair();
    let echo = tokio::spawn(async move {
        let mut buffer = [0; 8];
        while b.recv(&mut buffer).await.unwrap() > 0 {
            b.send(b"pong").await.unwrap();
        }
    });
    // Both are parked now.
    breathe().await;
    let empty = || tokio_seqpacket::metrics().unwrap().total().empty_attempts;
    let before = empty();
    let mut buffer = [0; 8];
    for _ in 0..TRIPS {
        a.send(b"ping").await.unwrap();
        assert_eq!(soon(a.recv(&mut buffer)).await.unwrap(), 4);
    }
    let each = (empty() - before) as f64 / TRIPS as f64;
    assert!(each < 6.0, "{each} empty attempts a round trip");
    drop(a);
    echo.await.unwrap();
}
