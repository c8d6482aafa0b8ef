//! Rings and the threads that drive them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::trials::{Need, Test, rings, submitted};
use crate::{armed, current_thread, echoes, half, multi_thread, pair, send, soon};

pub fn tests() -> Vec<Test> {
    tests![&[Need::Uring];
        a_runtime_driven_by_many_threads_in_turn_has_at_most_two_rings,
        a_runtime_has_at_most_one_ring_more_than_workers,
        others_go_on_while_the_worker_that_submitted_computes,
    ]
}

fn a_runtime_driven_by_many_threads_in_turn_has_at_most_two_rings() {
    let runtime = Arc::new(current_thread());
    // Submitted by the first thread, which ends long before the message comes.
    let (patient, its_peer) = runtime.block_on(async { half() });
    let patient = runtime.spawn(async move {
        let (received, message) = patient.recv_owned(vec![0; 16]).await;
        message[..received.expect("a message").bytes_read()].to_vec()
    });
    for number in 0..16 {
        let runtime = runtime.clone();
        let turn = std::thread::spawn(move || {
            runtime.block_on(async {
                let (socket, peer) = half();
                let before = submitted();
                let receive = tokio::spawn(async move {
                    let mut message = [0; 16];
                    socket.recv(&mut message).await.expect("a message")
                });
                armed(before + 1).await;
                send(&peer, &vec![0; number]).expect("room");
                assert_eq!(soon(receive).await.expect("no panic"), number);
            });
        });
        turn.join().expect("no panic");
        assert!(rings().len() <= 2, "{} rings after {number} threads", rings().len());
    }
    send(&its_peer, b"at last").expect("room");
    let message = runtime.block_on(soon(patient)).expect("no panic");
    assert_eq!(message, b"at last");
}

fn a_runtime_has_at_most_one_ring_more_than_workers() {
    let runtime = multi_thread(2);
    for _ in 0..4 {
        runtime.block_on(async {
            let echoing: Vec<_> = (0..16)
                .map(|_| {
                    let (a, b) = pair();
                    tokio::spawn(async move { echoes(&a, &b, 50).await })
                })
                .collect();
            // Not from a worker.
            let (a, b) = pair();
            echoes(&a, &b, 50).await;
            for echo in echoing {
                echo.await.expect("no panic");
            }
        });
        assert!(rings().len() <= 3, "{} rings for two workers", rings().len());
    }
}

fn others_go_on_while_the_worker_that_submitted_computes() {
    let runtime = multi_thread(2);
    let best = (0..5).map(|_| receives_during_computation(&runtime)).min().expect("five");
    assert!(best < Duration::from_millis(50), "receives took {best:?} while a worker computed");
}

/// Eight receives are submitted by one worker, which then computes without entering the kernel. How
/// long their messages take.
fn receives_during_computation(runtime: &tokio::runtime::Runtime) -> Duration {
    let (halves, sockets): (Vec<_>, Vec<_>) = runtime.block_on(async {
        (0..8).map(|_| half()).map(|(socket, peer)| (peer, Arc::new(socket))).unzip()
    });
    let done = Arc::new(AtomicBool::new(false));
    let computing = Arc::new(AtomicBool::new(false));
    let before = submitted();
    let hog = runtime.spawn({
        let (done, computing) = (done.clone(), computing.clone());
        async move {
            let receives: Vec<_> = sockets
                .into_iter()
                .map(|socket| {
                    tokio::spawn(async move {
                        let mut message = [0; 16];
                        socket.recv(&mut message).await.expect("a message")
                    })
                })
                .collect();
            armed(before + 8).await;
            // Have the other worker woken: tokio itself may leave nobody with the I/O driver else.
            for _ in 0..4 {
                tokio::spawn(async {});
            }
            computing.store(true, Ordering::Release);
            let start = Instant::now();
            // Reading the clock does not enter the kernel.
            while !done.load(Ordering::Acquire) && start.elapsed() < Duration::from_secs(2) {
                std::hint::spin_loop();
            }
            (receives, start.elapsed())
        }
    });
    while !computing.load(Ordering::Acquire) {
        std::thread::yield_now();
    }
    for peer in &halves {
        send(peer, b"while it computes").expect("room");
    }
    // The tasks are not awaited, for the hog has their handles: they drop their sockets.
    let start = Instant::now();
    crate::trials::until("all receives are done while one worker computes", || {
        halves.iter().all(crate::is_at_end)
    });
    let took = start.elapsed();
    done.store(true, Ordering::Release);
    let (receives, computed) = runtime.block_on(hog).expect("no panic");
    assert!(computed < Duration::from_secs(2), "the receives waited for the computation to end");
    for receive in receives {
        assert_eq!(runtime.block_on(soon(receive)).expect("no panic"), 16);
    }
    took
}
