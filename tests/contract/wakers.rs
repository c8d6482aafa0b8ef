//! G9 and G10: wakers that do more than wake. Their destructors use the socket, and they panic.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Wake, Waker};

use tokio_seqpacket::UnixSeqpacket;
use tokio_test::task;

use crate::harness::messages::recv;
use crate::harness::waiting::{breathe, soon};
use crate::harness::{Cell, Test};

pub fn tests() -> Vec<Test> {
    tasks![
        a_wakers_destructor_may_use_the_socket,
        a_panic_in_the_waker_of_readable_ends_nothing_else
    ]
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
