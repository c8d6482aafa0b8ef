//! G2 and G9 while receives poll busily: no other task is held up, and no message is lost.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio_seqpacket::busy_poll;
use tokio_test::task;

use crate::harness::messages::recv;
use crate::harness::waiting::{arm, breathe, soon, starts_waiting};
use crate::harness::{Cell, Test};

pub fn tests() -> Vec<Test> {
    tasks![
        a_receive_that_polls_busily_gets_its_message,
        a_receive_that_polls_busily_lets_others_run_and_timers_fire,
        a_receive_that_has_polled_long_enough_is_parked,
        a_receive_that_is_dropped_while_it_polls_busily_loses_nothing,
        a_busy_receive_leaves_no_receive_behind_it_asleep,
    ]
}

async fn a_receive_that_polls_busily_gets_its_message(cell: Cell) {
    busy_poll(Duration::from_secs(5)).unwrap();
    let (a, b) = cell.pair();
    let echo = tokio::spawn(async move {
        let mut buffer = [0; 16];
        while let len @ 1.. = b.recv(&mut buffer).await.unwrap() {
            b.send(&buffer[..len]).await.unwrap();
        }
    });
    for n in 0..500u16 {
        a.send(&n.to_ne_bytes()).await.unwrap();
        assert_eq!(recv(&a).await, n.to_ne_bytes());
    }
    drop(a);
    soon(echo).await.unwrap();
    busy_poll(Duration::ZERO).unwrap();
}

async fn a_receive_that_polls_busily_lets_others_run_and_timers_fire(cell: Cell) {
    busy_poll(Duration::from_secs(60)).unwrap();
    let (a, b) = cell.pair();
    let (c, d) = cell.pair();
    let receive = tokio::spawn(async move { a.recv(&mut [0; 16]).await });
    // A timer, I/O of tokio's own, and tasks.
    soon(tokio::time::sleep(Duration::from_millis(20))).await;
    let (write, read) = tokio::net::unix::pipe::pipe().unwrap();
    let reading = tokio::spawn(async move {
        read.readable().await.unwrap();
    });
    breathe().await;
    write.try_write(b"x").unwrap();
    soon(reading).await.unwrap();
    let waits = tokio::spawn(async move { d.recv(&mut [0; 16]).await });
    breathe().await;
    c.send(b"message").await.unwrap();
    assert_eq!(soon(waits).await.unwrap().unwrap(), 7);
    assert!(!receive.is_finished());
    b.send(b"message").await.unwrap();
    assert_eq!(soon(receive).await.unwrap().unwrap(), 7);
    busy_poll(Duration::ZERO).unwrap();
}

async fn a_receive_that_has_polled_long_enough_is_parked(cell: Cell) {
    let limit = Duration::from_millis(20);
    busy_poll(limit).unwrap();
    let (a, b) = cell.half();
    let mut buffer = [0; 16];
    let mut receive = task::spawn(a.recv(&mut buffer));
    let begin = Instant::now();
    arm(&mut receive).await;
    assert!(begin.elapsed() >= limit);
    b.send(b"message");
    assert_eq!(soon(receive).await.unwrap(), 7);
    busy_poll(Duration::ZERO).unwrap();
}

async fn a_receive_that_is_dropped_while_it_polls_busily_loses_nothing(cell: Cell) {
    busy_poll(Duration::from_secs(60)).unwrap();
    let (a, b) = cell.half();
    for n in 0..20u8 {
        let mut buffer = [0; 16];
        let mut receive = task::spawn(a.recv(&mut buffer));
        starts_waiting(&mut receive);
        let mut second = task::spawn(recv(&a));
        starts_waiting(&mut second);
        b.send(&[n]);
        drop(receive);
        assert_eq!(soon(second).await, [n]);
    }
    busy_poll(Duration::ZERO).unwrap();
}

/// Counts and signals wake-ups.
#[derive(Default)]
struct Woken(AtomicUsize, Notify);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
        self.1.notify_one();
    }
}

type Receive<'a> = Pin<Box<dyn Future<Output = std::io::Result<usize>> + Send + 'a>>;

fn polls(receive: &mut Receive<'_>, woken: &Arc<Woken>) -> Poll<()> {
    let waker = Waker::from(woken.clone());
    receive
        .as_mut()
        .poll(&mut Context::from_waker(&waker))
        .map(|result| assert!(result.unwrap() > 0))
}

async fn a_busy_receive_leaves_no_receive_behind_it_asleep(cell: Cell) {
    busy_poll(Duration::from_secs(60)).unwrap();
    let (a, b) = cell.half();
    let mut buffers = [[0; 8]; 4];
    let mut receives: Vec<Receive<'_>> =
        buffers.iter_mut().map(|buffer| Box::pin(a.recv(buffer)) as Receive<'_>).collect();
    let woken: Vec<Arc<Woken>> = receives.iter().map(|_| Arc::default()).collect();
    for (receive, woken) in receives.iter_mut().zip(&woken) {
        assert!(polls(receive, woken).is_pending());
    }
    b.send(b"one");
    // The first polls busily, the second is woken, and leaves the message to a try_recv, which wakes the third.
    soon(woken[1].1.notified()).await;
    let _ = a.try_recv(&mut [0; 8]);
    let _ = polls(&mut receives[0], &woken[0]);
    let mut last = receives.pop().unwrap();
    drop(receives);
    loop {
        breathe().await;
        let before = woken[3].0.swap(0, Ordering::SeqCst);
        if before == 0 {
            break;
        }
        assert!(polls(&mut last, &woken[3]).is_pending());
    }
    b.send(b"two");
    soon(async {
        while woken[3].0.load(Ordering::SeqCst) == 0 {
            breathe().await;
        }
    })
    .await;
    drop(last);
    busy_poll(Duration::ZERO).unwrap();
}
