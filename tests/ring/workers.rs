//! G9 and G10: rings and the threads that drive them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use crate::harness::descriptors::{rings, submitted};
use crate::harness::messages::echoes;
use crate::harness::syscalls::{is_at_end, recv, send};
use crate::harness::waiting::{soon, until};
use crate::harness::{Need, Test};
use crate::refusal::forbid;
use crate::{current_thread, half, multi_thread, pair, parked};

pub fn tests() -> Vec<Test> {
    tests![[Need::Uring];
        a_runtime_driven_by_many_threads_in_turn_has_one_ring,
        a_runtime_has_at_most_one_ring_for_each_worker,
        others_go_on_while_the_worker_that_submitted_computes,
        what_waits_on_a_worker_that_can_have_no_ring_goes_on,
    ]
}

fn a_runtime_driven_by_many_threads_in_turn_has_one_ring() {
    let runtime = Arc::new(current_thread());
    // Queued by the first thread, which ends long before the message comes.
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
                parked(before + 1).await;
                send(&peer, &vec![0; number]).expect("capacity");
                assert_eq!(soon(receive).await.expect("no panic"), number);
                // New sockets find the same driver.
                drop(pair());
            });
        });
        turn.join().expect("no panic");
        assert_eq!(rings().len(), 1, "after {number} threads");
    }
    send(&its_peer, b"at last").expect("capacity");
    let message = runtime.block_on(async { soon(patient).await }).expect("no panic");
    assert_eq!(message, b"at last");
    drop(runtime);
    until("the ring is closed", || rings().is_empty());
}

fn a_runtime_has_at_most_one_ring_for_each_worker() {
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
        assert!(rings().len() <= 2, "{} rings for two workers", rings().len());
    }
}

fn others_go_on_while_the_worker_that_submitted_computes() {
    let runtime = multi_thread(2);
    let best = (0..5).map(|_| receives_during_computation(&runtime)).min().expect("five");
    assert!(best < Duration::from_millis(50), "receives took {best:?} while a worker computed");
}

/// Eight receives are queued by one worker, which then computes without entering the kernel. How
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
            parked(before + 8).await;
            // Have the other worker woken: otherwise tokio may leave no worker with the I/O driver.
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
        send(peer, b"while it computes").expect("capacity");
    }
    // The tasks are not awaited, for the hog has their handles: they drop their sockets.
    let start = Instant::now();
    until("all receives are done while one worker computes", || halves.iter().all(is_at_end));
    let took = start.elapsed();
    done.store(true, Ordering::Release);
    let (receives, computed) = runtime.block_on(hog).expect("no panic");
    assert!(computed < Duration::from_secs(2), "the receives waited for the computation to end");
    for receive in receives {
        assert_eq!(runtime.block_on(soon(receive)).expect("no panic"), 16);
    }
    took
}

fn what_waits_on_a_worker_that_can_have_no_ring_goes_on() {
    let runtime = multi_thread(2);
    runtime.block_on(async {
        // The sockets give one worker its ring. Then no more can be made.
        let (sockets, peers): (Vec<_>, Vec<_>) = (0..32).map(|_| half()).unzip();
        assert_eq!(rings().len(), 1);
        forbid(&[libc::SYS_io_uring_setup], libc::EPERM);
        let both = Arc::new(Barrier::new(2));
        let tasks: Vec<_> = sockets
            .into_iter()
            .enumerate()
            .map(|(number, socket)| {
                let both = both.clone();
                tokio::spawn(async move {
                    if number < 2 {
                        // One on each worker.
                        both.wait();
                    }
                    let mut filled = 0;
                    if number % 2 == 0 {
                        while socket.try_send(b"filler").is_ok() {
                            filled += 1;
                        }
                    }
                    socket.send(b"request").await.expect("sent");
                    let mut answer = [0; 16];
                    let len = socket.recv(&mut answer).await.expect("an answer");
                    assert_eq!(&answer[..len], b"answer");
                    filled
                })
            })
            .collect();
        tokio::time::sleep(Duration::from_millis(20)).await;
        let mut fillers = vec![0; peers.len()];
        for (number, peer) in peers.iter().enumerate() {
            soon(async {
                loop {
                    match recv(peer) {
                        Ok(message) if message == b"filler" => fillers[number] += 1,
                        Ok(message) => break assert_eq!(message, b"request"),
                        Err(_) => tokio::time::sleep(Duration::from_millis(1)).await,
                    }
                }
            })
            .await;
            send(peer, b"answer").expect("capacity");
        }
        for (task, fillers) in tasks.into_iter().zip(fillers) {
            assert_eq!(soon(task).await.expect("no panic"), fillers);
        }
        assert_eq!(rings().len(), 1);
    });
}
