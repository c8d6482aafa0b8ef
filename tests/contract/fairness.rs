//! A socket that is always ready leaves timers and other tasks alive: every call pays tokio's
//! cooperative budget.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::harness::call_variants::{self, RecvBy, Room, SendBy};
use crate::harness::messages::recv;
use crate::harness::peer::Peer;
use crate::harness::waiting::soon;
use crate::harness::{Cell, Test};

pub fn tests() -> Vec<Test> {
    tasks![
        an_endless_receive_loop_leaves_a_timer_alive,
        an_endless_send_loop_leaves_a_timer_alive,
        an_endless_accept_loop_leaves_a_timer_alive,
        endless_loops_in_tasks_leave_a_timer_alive,
        a_fast_pair_does_not_starve_a_slow_one,
        an_endless_loop_is_left_by_a_timeout_around_it,
    ]
}

/// Three times a 10 ms timer, against `endless` in the same task. The timer is polled first: it pays
/// the budget, too.
async fn timer_against(endless: impl Future<Output = ()>) {
    let timer = async {
        for _ in 0..3 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::select! {
        biased;
        () = timer => {}
        () = endless => panic!("an endless loop ended"),
    }
}

async fn an_endless_receive_loop_leaves_a_timer_alive(cell: Cell) {
    let (a, peer) = cell.half();
    for way in RecvBy::ALL {
        // There always is a message: nothing but the budget makes this wait.
        timer_against(async {
            loop {
                peer.send(b"message");
                let got =
                    call_variants::recv(way, &a, Room { bytes: 16, control: 0 }).await.unwrap();
                assert_eq!(got.bytes, b"message");
            }
        })
        .await;
        // The loop may have been left between its two halves.
        peer.send(b"the end");
        while recv(&a).await != b"the end" {}
    }
}

async fn an_endless_send_loop_leaves_a_timer_alive(cell: Cell) {
    let (a, peer) = cell.half();
    for way in SendBy::ALL {
        timer_against(async {
            loop {
                assert_eq!(call_variants::send(way, &a, b"message", &[]).await.unwrap(), 7);
                peer.drain();
            }
        })
        .await;
        peer.drain();
    }
}

async fn an_endless_accept_loop_leaves_a_timer_alive(cell: Cell) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let listener = cell.bind(&path);
    for poll in [false, true] {
        timer_against(async {
            loop {
                let _client = Peer::connect(&path);
                let accepted = if poll {
                    std::future::poll_fn(|cx| listener.poll_accept(cx)).await
                } else {
                    listener.accept().await
                };
                accepted.unwrap();
            }
        })
        .await;
    }
}

async fn endless_loops_in_tasks_leave_a_timer_alive(cell: Cell) {
    let mut tasks = Vec::new();
    for _ in 0..2 {
        let (a, b) = cell.pair();
        tasks.push(tokio::spawn(async move { while a.send(b"message").await.is_ok() {} }));
        tasks.push(tokio::spawn(async move { while b.recv(&mut [0; 16]).await.is_ok() {} }));
        let (a, peer) = cell.half();
        tasks.push(tokio::spawn(async move {
            loop {
                peer.send(b"message");
                a.recv(&mut [0; 16]).await.unwrap();
            }
        }));
    }
    let mut ticks = tokio::time::interval(Duration::from_millis(10));
    for _ in 0..10 {
        soon(ticks.tick()).await;
    }
    tasks.iter().for_each(|task| task.abort());
    for task in tasks {
        // Some end by themselves, when their peer is gone.
        let _ = soon(task).await;
    }
}

async fn a_fast_pair_does_not_starve_a_slow_one(cell: Cell) {
    let stop = Arc::new(AtomicBool::new(false));
    let rounds = Arc::new(AtomicU64::new(0));
    let mut fast = Vec::new();
    for _ in 0..4 {
        let (a, b) = cell.pair();
        let (stop, rounds) = (stop.clone(), rounds.clone());
        fast.push(tokio::spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                a.send(b"message").await.unwrap();
                b.recv(&mut [0; 16]).await.unwrap();
                rounds.fetch_add(1, Ordering::Relaxed);
            }
        }));
    }
    let (a, b) = cell.pair();
    let echo = tokio::spawn(async move {
        while b.recv(&mut [0; 16]).await.unwrap() > 0 {
            b.send(b"answer").await.unwrap();
        }
    });
    for _ in 0..50 {
        soon(a.send(b"question")).await.unwrap();
        assert_eq!(recv(&a).await, b"answer");
    }
    drop(a);
    soon(echo).await.unwrap();
    stop.store(true, Ordering::Relaxed);
    for fast in fast {
        soon(fast).await.unwrap();
    }
    assert!(rounds.load(Ordering::Relaxed) > 0);
}

async fn an_endless_loop_is_left_by_a_timeout_around_it(cell: Cell) {
    let (a, peer) = cell.half();
    let endless = async {
        loop {
            peer.send(b"message");
            a.recv(&mut [0; 16]).await.unwrap();
        }
    };
    assert!(tokio::time::timeout(Duration::from_millis(10), endless).await.is_err());
}
