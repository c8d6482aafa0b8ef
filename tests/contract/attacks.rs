//! Faults that an attack on the engine found: one test each.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use tokio::sync::Notify;
use tokio_seqpacket::{MessagesOptions, UnixSeqpacket, busy_poll};
use tokio_test::task;

use crate::harness::messages::recv;
use crate::harness::waiting::{breathe, once, soon};
use crate::harness::{Cell, Flavor, Test, only, peer};

pub fn tests() -> Vec<Test> {
    [
        only(&[Flavor::MultiThread], blocking![the_peer_of_a_runtimes_first_socket_may_be_gone]),
        tasks![
            a_busy_receive_leaves_nobody_behind_it_asleep,
            a_wakers_destructor_may_use_the_socket,
            a_panic_in_the_waker_of_readable_ends_nothing_else,
            an_empty_message_that_a_dropped_receive_left_does_not_end_a_stream,
            a_call_that_is_polled_after_completion_does_nothing_twice,
        ],
    ]
    .concat()
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

/// Tells when it is woken.
#[derive(Default)]
struct Told(AtomicUsize, Notify);

impl Wake for Told {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
        self.1.notify_one();
    }
}

type Receive<'a> = Pin<Box<dyn Future<Output = std::io::Result<usize>> + Send + 'a>>;

fn polls(receive: &mut Receive<'_>, told: &Arc<Told>) -> Poll<()> {
    let waker = Waker::from(told.clone());
    receive
        .as_mut()
        .poll(&mut Context::from_waker(&waker))
        .map(|result| assert!(result.unwrap() > 0))
}

async fn a_busy_receive_leaves_nobody_behind_it_asleep(cell: Cell) {
    busy_poll(Duration::from_secs(60)).unwrap();
    let (a, b) = cell.half();
    let mut buffers = [[0; 8]; 4];
    let mut receives: Vec<Receive<'_>> =
        buffers.iter_mut().map(|buffer| Box::pin(a.recv(buffer)) as Receive<'_>).collect();
    let told: Vec<Arc<Told>> = receives.iter().map(|_| Arc::default()).collect();
    for (receive, told) in receives.iter_mut().zip(&told) {
        assert!(polls(receive, told).is_pending());
    }
    b.send(b"one");
    // The first polls busily, the second is woken, and leaves the message to a try_recv, which wakes the third.
    soon(told[1].1.notified()).await;
    let _ = a.try_recv(&mut [0; 8]);
    let _ = polls(&mut receives[0], &told[0]);
    let mut last = receives.pop().unwrap();
    drop(receives);
    loop {
        breathe().await;
        let before = told[3].0.swap(0, Ordering::SeqCst);
        if before == 0 {
            break;
        }
        assert!(polls(&mut last, &told[3]).is_pending());
    }
    b.send(b"two");
    soon(async {
        while told[3].0.load(Ordering::SeqCst) == 0 {
            breathe().await;
        }
    })
    .await;
    drop(last);
    busy_poll(Duration::ZERO).unwrap();
}

struct Uses(Arc<UnixSeqpacket>);

impl Wake for Uses {
    fn wake(self: Arc<Self>) {}
}

impl Drop for Uses {
    fn drop(&mut self) {
        let _ = self.0.try_recv(&mut [0; 8]);
        let _ = task::spawn(self.0.send(b"from a destructor")).poll();
    }
}

async fn a_wakers_destructor_may_use_the_socket(cell: Cell) {
    let (a, _peer) = cell.half();
    let a = Arc::new(a);
    let waker = || Waker::from(Arc::new(Uses(a.clone())));
    let mut buffer = [0; 8];
    let mut receive = Box::pin(a.recv(&mut buffer));
    for _ in 0..100 {
        assert!(receive.as_mut().poll(&mut Context::from_waker(&waker())).is_pending());
        breathe().await;
    }
    drop(receive);
    while a.try_send(b"filler").is_ok() {}
    let mut send = Box::pin(a.send(b"waits"));
    assert!(send.as_mut().poll(&mut Context::from_waker(&waker())).is_pending());
    breathe().await;
    drop(send);
}

struct Bomb(AtomicUsize);

impl Wake for Bomb {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
        // Not a panic of this test, so the hook stays silent.
        std::panic::resume_unwind(Box::new("as planned"));
    }
}

async fn a_panic_in_the_waker_of_readable_ends_nothing_else(cell: Cell) {
    let (a, b) = cell.half();
    let (c, d) = cell.pair();
    let bomb = Arc::new(Bomb(AtomicUsize::new(0)));
    let waker = Waker::from(bomb.clone());
    let mut readable = Box::pin(a.readable());
    assert!(readable.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    b.send(b"message");
    soon(async {
        while bomb.0.load(Ordering::SeqCst) == 0 {
            breathe().await;
        }
    })
    .await;
    assert_eq!(recv(&a).await, b"message");
    soon(c.send(b"alive")).await.unwrap();
    assert_eq!(recv(&d).await, b"alive");
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
