//! G8, G9 and G12 while user code panics: in a task, in a waker, in a buffer's destructor, in a buffer's methods.
//! All other tasks go on, and nothing is left behind.

#![allow(unsafe_code, reason = "buffer types of the tests' own implement unsafe traits")]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use tokio_seqpacket::UnixSeqpacket;
use tokio_seqpacket::buf::{IoBuf, IoBufMut};

use crate::harness::descriptors::{all_closed, base_line, submitted};
use crate::harness::messages::echoes;
use crate::harness::syscalls::{is_at_end, recv, send};
use crate::harness::waiting::{soon, until, until_in_runtime};
use crate::harness::{Cell, Test, alone};

pub fn tests() -> Vec<Test> {
    alone(blocking![
        a_panic_in_a_task_closes_its_socket_and_no_other,
        a_panic_in_a_waker_stays_there,
        a_panic_in_the_waker_of_the_next_in_line_stays_there,
        a_panic_in_the_destructor_of_a_dropped_receive_stays_there,
        a_panic_in_the_destructor_of_a_dropped_send_does_not_stop_those_behind,
        a_panic_in_a_destructor_while_a_socket_is_dropped_closes_it,
        a_panic_in_a_destructor_while_a_runtime_is_dropped_leaves_nothing,
        a_panic_in_a_buffers_method_ends_that_call_only,
    ])
}

/// After this what waits is parked.
const PARKED: Duration = Duration::from_millis(5);

const PLANNED: &str = "as planned";

/// Run with planned panics not printed. Nothing of the runtime is left.
fn quietly<T: Send + 'static>(cell: Cell, body: impl Future<Output = T> + Send + 'static) -> T {
    silence_what_is_planned();
    cell.leaves_nothing(body)
}

fn silence_what_is_planned() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        let planned = info.payload().downcast_ref::<&str>().is_some_and(|it| *it == PLANNED);
        if !planned {
            usual(info);
        }
    }));
}

/// A waker that panics once it is set to, and counts.
#[derive(Default)]
struct Bomb {
    live: AtomicBool,
    woken: AtomicUsize,
}

impl Wake for Bomb {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.woken.fetch_add(1, Ordering::SeqCst);
        if self.live.load(Ordering::SeqCst) {
            std::panic::panic_any(PLANNED);
        }
    }
}

/// A buffer whose destructor panics, and whose methods panic at the call with a given number.
struct Buffer {
    bytes: Vec<u8>,
    drops: Option<Arc<AtomicU32>>,
    calls: Arc<AtomicU32>,
    fails_at: u32,
}

impl Buffer {
    /// Whose destructor panics. Its runs are counted.
    fn explosive(drops: &Arc<AtomicU32>) -> Self {
        let mut buffer = Self::failing(u32::MAX, &Arc::default());
        buffer.drops = Some(drops.clone());
        buffer
    }

    fn failing(fails_at: u32, calls: &Arc<AtomicU32>) -> Self {
        Self { bytes: vec![b'x'; 64], drops: None, calls: calls.clone(), fails_at }
    }

    fn called(&self) {
        if self.calls.fetch_add(1, Ordering::SeqCst) + 1 == self.fails_at {
            std::panic::panic_any(PLANNED);
        }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if let Some(drops) = &self.drops {
            drops.fetch_add(1, Ordering::SeqCst);
            if !std::thread::panicking() {
                std::panic::panic_any(PLANNED);
            }
        }
    }
}

// SAFETY: the pointer is that of a Vec that does not change.
unsafe impl IoBuf for Buffer {
    fn stable_ptr(&self) -> *const u8 {
        self.called();
        self.bytes.as_ptr()
    }

    fn bytes_init(&self) -> usize {
        self.called();
        self.bytes.len()
    }

    fn bytes_total(&self) -> usize {
        self.called();
        self.bytes.len()
    }
}

// SAFETY: as above.
unsafe impl IoBufMut for Buffer {
    fn stable_mut_ptr(&mut self) -> *mut u8 {
        self.called();
        self.bytes.as_mut_ptr()
    }

    unsafe fn set_init(&mut self, _pos: usize) {
        self.called();
    }
}

type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Poll until the future no longer wakes itself and the rings, if there are any, are idle. Then it is
/// parked, or waits in a queue.
async fn arm<T>(future: &mut Boxed<'_, T>, bomb: &Arc<Bomb>) {
    let waker = Waker::from(bomb.clone());
    let (mut seen, mut before, mut quiet) = (usize::MAX, 0, 0);
    until_in_runtime("it waits", || {
        let woken = bomb.woken.load(Ordering::SeqCst);
        if woken != seen {
            (seen, quiet) = (woken, 0);
            assert!(future.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
            return false;
        }
        let now = submitted();
        quiet = if now == before { quiet + 1 } else { 0 };
        before = now;
        quiet >= 3
    })
    .await;
}

fn receive(socket: &Arc<UnixSeqpacket>) -> Boxed<'static, Vec<u8>> {
    let socket = socket.clone();
    Box::pin(async move {
        let mut message = [0; 64];
        let len = socket.recv(&mut message).await.expect("a message");
        message[..len].to_vec()
    })
}

/// Sockets made before and after go on.
async fn all_is_well(cell: Cell, old: &(UnixSeqpacket, UnixSeqpacket)) {
    echoes(&old.0, &old.1, 20).await;
    let (a, b) = cell.pair();
    assert_eq!(a.backend(), cell.backend);
    echoes(&a, &b, 20).await;
}

fn a_panic_in_a_task_closes_its_socket_and_no_other(cell: Cell) {
    quietly(cell, async move {
        let neighbors = cell.pair();
        for waiting_to_send in [false, true] {
            let (socket, peer) = cell.half_fd();
            let task = tokio::spawn(async move {
                let mut buffer = [0; 16];
                let other = async {
                    tokio::task::yield_now().await;
                    std::panic::panic_any(PLANNED);
                };
                if waiting_to_send {
                    while socket.try_send(b"filler").is_ok() {}
                    tokio::join!(socket.send(b"never"), other).0.map(drop)
                } else {
                    tokio::join!(socket.recv(&mut buffer), other).0.map(drop)
                }
            });
            assert!(soon(task).await.unwrap_err().is_panic());
            until_in_runtime("end of stream", || is_at_end(&peer)).await;
            all_is_well(cell, &neighbors).await;
        }
    });
}

fn a_panic_in_a_waker_stays_there(cell: Cell) {
    quietly(cell, async move {
        let neighbors = cell.pair();
        let bomb = Arc::new(Bomb::default());
        let (socket, peer) = cell.half_fd();
        let socket = Arc::new(socket);
        let mut waiting = receive(&socket);
        arm(&mut waiting, &bomb).await;
        let (other, its_peer) = cell.half_fd();
        let task = tokio::spawn(async move { other.recv(&mut [0; 16]).await });
        tokio::time::sleep(PARKED).await;

        let woken = bomb.woken.load(Ordering::SeqCst);
        bomb.live.store(true, Ordering::SeqCst);
        // Both are reaped together, or one after the other in either order.
        send(&peer, b"for the bomb").expect("capacity");
        send(&its_peer, b"for the task").expect("capacity");
        assert_eq!(soon(task).await.expect("no panic").expect("a message"), 12);
        until_in_runtime("the bomb goes off", || bomb.woken.load(Ordering::SeqCst) > woken).await;
        all_is_well(cell, &neighbors).await;
        assert_eq!(soon(waiting).await, b"for the bomb");
        send(&peer, b"more").expect("capacity");
        assert_eq!(soon(receive(&socket)).await, b"more");
    });
}

fn a_panic_in_the_waker_of_the_next_in_line_stays_there(cell: Cell) {
    quietly(cell, async move {
        let neighbors = cell.pair();
        let (socket, peer) = cell.half_fd();
        let socket = Arc::new(socket);
        let mut first = receive(&socket);
        arm(&mut first, &Arc::default()).await;
        let bomb = Arc::new(Bomb::default());
        let mut second = receive(&socket);
        arm(&mut second, &bomb).await;
        let mut third = receive(&socket);
        arm(&mut third, &Arc::default()).await;
        bomb.live.store(true, Ordering::SeqCst);
        for message in [b"1", b"2", b"3"] {
            send(&peer, message).expect("capacity");
        }
        // A receive that leaves wakes the next.
        assert_eq!(soon(first).await, b"1");
        all_is_well(cell, &neighbors).await;
        assert_eq!(soon(second).await, b"2");
        assert_eq!(soon(third).await, b"3");
        all_is_well(cell, &neighbors).await;
    });
}

fn a_panic_in_the_destructor_of_a_dropped_receive_stays_there(cell: Cell) {
    quietly(cell, async move {
        let neighbors = cell.pair();
        let drops = Arc::new(AtomicU32::new(0));
        for (round, message_first) in [false, true].into_iter().enumerate() {
            let (socket, peer) = cell.half_fd();
            let socket = Arc::new(socket);
            let mut waiting: Boxed<'static, ()> = Box::pin({
                let (socket, buffer) = (socket.clone(), Buffer::explosive(&drops));
                async move { std::mem::forget(socket.recv_owned(buffer).await) }
            });
            arm(&mut waiting, &Arc::default()).await;
            if message_first {
                send(&peer, b"early").expect("capacity");
            }
            // The buffer is the future's, whose drop panics.
            let _ = catch_unwind(AssertUnwindSafe(|| drop(waiting)));
            if !message_first {
                send(&peer, b"early").expect("capacity");
            }
            assert_eq!(soon(receive(&socket)).await, b"early");
            let dropped = || drops.load(Ordering::SeqCst) as usize > round;
            until_in_runtime("the buffer is dropped", dropped).await;
            all_is_well(cell, &neighbors).await;
            send(&peer, b"late").expect("capacity");
            assert_eq!(soon(receive(&socket)).await, b"late");
            drop(socket);
            until_in_runtime("end of stream", || is_at_end(&peer)).await;
        }
        assert_eq!(drops.load(Ordering::SeqCst), 2);
    });
}

fn a_panic_in_the_destructor_of_a_dropped_send_does_not_stop_those_behind(cell: Cell) {
    quietly(cell, async move {
        let neighbors = cell.pair();
        let (socket, peer) = cell.half_fd();
        let socket = Arc::new(socket);
        while socket.try_send(b"filler").is_ok() {}
        let drops = Arc::new(AtomicU32::new(0));
        let bomb = |socket: &Arc<UnixSeqpacket>| -> Boxed<'static, ()> {
            let (socket, buffer) = (socket.clone(), Buffer::explosive(&drops));
            Box::pin(async move { std::mem::forget(socket.send_owned(buffer).await) })
        };
        let mut first = bomb(&socket);
        arm(&mut first, &Arc::default()).await;
        let mut second = bomb(&socket);
        arm(&mut second, &Arc::default()).await;
        let behind: Vec<_> = (0..3u8)
            .map(|number| {
                let socket = socket.clone();
                tokio::spawn(async move { socket.send(&[number]).await })
            })
            .collect();
        tokio::task::yield_now().await;
        for waiting in [first, second] {
            let _ = catch_unwind(AssertUnwindSafe(|| drop(waiting)));
        }
        let mut arrived = Vec::new();
        until_in_runtime("those behind arrive", || {
            while let Ok(message) = recv(&peer) {
                if message != b"filler" {
                    arrived.push(message);
                }
            }
            arrived.iter().filter(|message| message.len() == 1).count() == 3
        })
        .await;
        for send in behind {
            assert_eq!(soon(send).await.expect("no panic").expect("sent"), 1);
        }
        // The first may have been in the peer's queue already.
        arrived.retain(|message| message.len() == 1);
        arrived.sort();
        assert_eq!(arrived, [[0], [1], [2]]);
        until_in_runtime("the buffers are dropped", || drops.load(Ordering::SeqCst) == 2).await;
        all_is_well(cell, &neighbors).await;
        soon(socket.send(b"again")).await.expect("sent");
        assert_eq!(recv(&peer).expect("a message"), b"again");
    });
}

fn a_panic_in_a_destructor_while_a_socket_is_dropped_closes_it(cell: Cell) {
    quietly(cell, async move {
        let neighbors = cell.pair();
        let (socket, peer) = cell.half_fd();
        while socket.try_send(b"filler").is_ok() {}
        let drops = Arc::new(AtomicU32::new(0));
        {
            // Forgotten: the queues keep the buffers until the socket goes.
            let socket = &socket;
            for sends in [true, false] {
                let mut waiting: Boxed<'_, ()> = if sends {
                    let buffer = Buffer::explosive(&drops);
                    Box::pin(async move { std::mem::forget(socket.send_owned(buffer).await) })
                } else {
                    let buffer = Buffer::explosive(&drops);
                    Box::pin(async move { std::mem::forget(socket.recv_owned(buffer).await) })
                };
                arm(&mut waiting, &Arc::default()).await;
                std::mem::forget(waiting);
            }
            // Behind it.
            let buffer = Buffer::explosive(&drops);
            let mut waiting: Boxed<'_, ()> =
                Box::pin(async move { std::mem::forget(socket.send_owned(buffer).await) });
            arm(&mut waiting, &Arc::default()).await;
            std::mem::forget(waiting);
        }
        let _ = catch_unwind(AssertUnwindSafe(|| drop(socket)));
        until_in_runtime("end of stream", || is_at_end(&peer)).await;
        all_is_well(cell, &neighbors).await;
    });
    // A forgotten receive has its buffer for ever.
}

fn a_panic_in_a_destructor_while_a_runtime_is_dropped_leaves_nothing(cell: Cell) {
    silence_what_is_planned();
    let base = base_line();
    let runtime = cell.runtime();
    let drops = Arc::new(AtomicU32::new(0));
    let peers = cell.run_in(&runtime, {
        let drops = drops.clone();
        async move {
            let mut peers = Vec::new();
            for _ in 0..8 {
                let (socket, peer) = cell.half_fd();
                let buffer = Buffer::explosive(&drops);
                // An error may come, as the runtime goes: then the task drops the buffer.
                tokio::spawn(async move { drop(socket.recv_owned(buffer).await) });
                peers.push(peer);
            }
            tokio::time::sleep(PARKED).await;
            peers
        }
    });
    drop(runtime);
    for peer in &peers {
        until("end of stream", || is_at_end(peer));
    }
    until("the buffers are dropped", || drops.load(Ordering::SeqCst) == 8);
    let other = cell.runtime();
    cell.run_in(&other, async move {
        let neighbors = cell.pair();
        all_is_well(cell, &neighbors).await;
    });
    drop((peers, other));
    all_closed(base);
}

fn a_panic_in_a_buffers_method_ends_that_call_only(cell: Cell) {
    let failures = quietly(cell, async move {
        let neighbors = cell.pair();
        let mut failures = 0;
        for (receives, waits) in [(true, false), (true, true), (false, false), (false, true)] {
            let mut fails_at = 1;
            loop {
                let (socket, peer) = cell.half_fd();
                let socket = Arc::new(socket);
                let calls = Arc::new(AtomicU32::new(0));
                let buffer = Buffer::failing(fails_at, &calls);
                if !receives && waits {
                    while socket.try_send(b"filler").is_ok() {}
                }
                if receives && !waits {
                    send(&peer, b"message").expect("capacity");
                }
                let call: Boxed<'static, bool> = Box::pin({
                    let socket = socket.clone();
                    async move {
                        if receives {
                            let (received, buffer) = socket.recv_owned(buffer).await;
                            let _ = received.expect("a message");
                            buffer.bytes.starts_with(b"message")
                        } else {
                            socket.send_owned(buffer).await.0.expect("sent") == 64
                        }
                    }
                });
                let mut task = tokio::spawn(call);
                if waits {
                    tokio::time::sleep(PARKED).await;
                    if receives {
                        send(&peer, b"message").expect("capacity");
                    } else {
                        while recv(&peer).is_ok_and(|message| message == b"filler") {}
                    }
                }
                let failed = match soon(&mut task).await {
                    Ok(as_expected) => {
                        assert!(as_expected);
                        false
                    }
                    Err(error) => {
                        assert!(error.is_panic());
                        true
                    }
                };
                failures += u32::from(failed);
                // The socket can be used by the next.
                send(&peer, b"next").expect("capacity");
                let next = soon(receive(&socket)).await;
                if failed && receives && next == b"message" {
                    assert_eq!(soon(receive(&socket)).await, b"next");
                } else {
                    assert_eq!(next, b"next", "{receives} {waits} {fails_at}");
                }
                soon(socket.send(b"answer")).await.expect("sent");
                let mut answers = Vec::new();
                until_in_runtime("an answer", || {
                    answers.extend(recv(&peer));
                    answers.last().is_some_and(|last: &Vec<u8>| last == b"answer")
                })
                .await;
                drop(socket);
                until_in_runtime("end of stream", || is_at_end(&peer)).await;
                if !failed {
                    break;
                }
                fails_at += 1;
            }
        }
        all_is_well(cell, &neighbors).await;
        failures
    });
    assert!(failures >= 8, "only {failures} methods failed");
}
