//! Rings and the threads that drive them.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio_seqpacket::coop_taskrun;

use crate::trials::{Need, Test, rings, submitted};
use crate::{armed, current_thread, echoes, half, multi_thread, pair, send, soon};

pub fn tests() -> Vec<Test> {
    let mut tests = tests![&[Need::Uring];
        a_runtime_driven_by_many_threads_in_turn_has_at_most_two_rings,
        a_runtime_has_at_most_one_ring_more_than_workers,
        others_go_on_while_the_worker_that_submitted_computes,
        others_go_on_while_the_worker_that_submitted_computes_on_cooperative_rings,
        how_rings_are_made_can_be_chosen_until_there_is_one,
    ];
    tests.extend(tests![&[Need::Uring, Need::Strace];
        rings_are_made_as_was_chosen,
    ]);
    tests
}

fn how_rings_are_made_can_be_chosen_until_there_is_one() {
    coop_taskrun(true).expect_err("no runtime");
    for runtime in [current_thread(), multi_thread(2)] {
        for last in [true, false] {
            let _inside = runtime.enter();
            coop_taskrun(!last).expect("no ring yet");
            coop_taskrun(last).expect("no ring yet");
        }
        runtime.block_on(async {
            let (a, b) = pair();
            let error = coop_taskrun(true).unwrap_err();
            assert!(error.to_string().contains("COOP_TASKRUN"), "{error}");
            coop_taskrun(false).expect("as it is");
            echoes(&a, &b, 50).await;
            let (receiver, peer) = half();
            let receiving = tokio::spawn(async move { receiver.recv(&mut [0; 16]).await });
            tokio::time::sleep(Duration::from_millis(5)).await;
            send(&peer, b"to a parked receive").expect("room");
            assert_eq!(soon(receiving).await.expect("no panic").expect("a message"), 16);
        });
    }
}

/// Seen from outside: this binary again, under strace.
fn rings_are_made_as_was_chosen() {
    const CHOICE: &str = "SEQPACKET_CHOICE";
    if let Ok(choice) = std::env::var(CHOICE) {
        let runtime = if choice.starts_with("multi") { multi_thread(2) } else { current_thread() };
        runtime.block_on(async {
            match choice.split(' ').next_back() {
                Some("with") => coop_taskrun(true).expect("no ring yet"),
                Some("without") => coop_taskrun(false).expect("no ring yet"),
                _ => {}
            }
            let (a, b) = pair();
            soon(tokio::spawn(async move { echoes(&a, &b, 50).await })).await.expect("no panic");
        });
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let log = directory.path().join("log");
    for (choice, cooperative) in [
        ("current", true),
        ("current with", true),
        ("current without", false),
        ("multi", true),
        ("multi with", true),
        ("multi without", false),
    ] {
        let status = Command::new("strace")
            .args(["-f", "-qq", "-e", "signal=none", "-e", "trace=io_uring_setup", "-o"])
            .arg(&log)
            .arg(std::env::current_exe().expect("this binary"))
            .env(CHOICE, choice)
            .status();
        assert!(status.expect("strace(1)").success(), "{choice}");
        let calls = std::fs::read_to_string(&log).expect("a log");
        // Not the ring of the probe.
        let rings: Vec<_> = calls.lines().filter(|call| call.contains("SUBMIT_ALL")).collect();
        assert!(!rings.is_empty(), "{choice}: {calls}");
        for ring in rings {
            assert_eq!(ring.contains("SETUP_COOP_TASKRUN"), cooperative, "{choice}: {ring}");
            assert_eq!(ring.contains("SETUP_TASKRUN_FLAG"), cooperative, "{choice}: {ring}");
        }
    }
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
    others_go_on(false);
}

fn others_go_on_while_the_worker_that_submitted_computes_on_cooperative_rings() {
    others_go_on(true);
}

fn others_go_on(cooperative: bool) {
    let runtime = multi_thread(2);
    runtime.block_on(async { coop_taskrun(cooperative) }).expect("no ring yet");
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
