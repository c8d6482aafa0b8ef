//! G2 and G9: receives whose message another descriptor takes, and receives that are forgotten.

use std::os::fd::AsFd;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::task::Poll;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::runtime::Runtime;

use crate::harness::descriptors::{base_line, descriptors, submitted};
use crate::harness::messages::echoes;
use crate::harness::syscalls::{is_at_end, recv, send, would_block};
use crate::harness::waiting::{soon, until};
use crate::harness::{Need, Test};
use crate::{current_thread, half, multi_thread, pair, parked};

pub fn tests() -> Vec<Test> {
    tests![[Need::Uring];
        forty_receives_survive_that_twenty_messages_are_taken_by_others,
        forgotten_receives_do_not_hinder_other_sockets,
    ]
}

fn forty_receives_survive_that_twenty_messages_are_taken_by_others() {
    let mut taken = 0;
    for _ in 0..5 {
        taken += forty_receives(&current_thread());
        taken += forty_receives(&multi_thread(2));
    }
    // The kernel may be quicker at times, but not always.
    assert!(taken > 20, "only {taken} messages could be taken away");
}

/// How many messages were taken by others.
fn forty_receives(runtime: &Runtime) -> usize {
    let before = submitted();
    let scene = async move {
        let halves: Vec<_> = (0..40).map(|_| half()).collect();
        let duplicates: Vec<_> = halves
            .iter()
            .map(|(socket, _)| socket.as_fd().try_clone_to_owned().expect("a duplicate"))
            .collect();
        let (sockets, peers): (Vec<_>, Vec<_>) = halves.into_iter().unzip();
        let peers = Arc::new(peers);
        let receives: Vec<_> = sockets
            .into_iter()
            .map(|socket| {
                tokio::spawn(async move {
                    let mut message = [0; 16];
                    let len = socket.recv(&mut message).await.expect("a message");
                    (socket, message[..len].to_vec())
                })
            })
            .collect();

        let go = Arc::new(AtomicBool::new(false));
        let done = Arc::new(AtomicBool::new(false));
        let (ready, is_ready) = mpsc::channel();
        let thief = std::thread::spawn({
            let (go, done, peers) = (go.clone(), done.clone(), peers.clone());
            move || {
                ready.send(()).expect("waited for");
                while !go.load(Ordering::Acquire) {
                    std::hint::spin_loop();
                }
                for (number, peer) in peers.iter().enumerate() {
                    send(peer, format!("first {number}").as_bytes()).expect("capacity");
                }
                let taken: Vec<bool> = duplicates
                    .iter()
                    .enumerate()
                    .map(|(number, duplicate)| number % 2 == 0 && recv(duplicate).is_ok())
                    .collect();
                done.store(true, Ordering::Release);
                (taken, duplicates)
            }
        });
        parked(before + 40).await;
        is_ready.recv().expect("the thief is there");
        // On one thread no receive is woken while the thief is at work.
        go.store(true, Ordering::Release);
        while !done.load(Ordering::Acquire) {
            std::hint::spin_loop();
        }
        let (taken, duplicates) = thief.join().expect("no panic");

        let mut waiting = Vec::new();
        for (number, receive) in receives.into_iter().enumerate() {
            if taken[number] {
                waiting.push((number, receive));
                continue;
            }
            let (socket, message) = soon(receive).await.expect("no panic");
            assert_eq!(message, format!("first {number}").as_bytes());
            would_block(socket.try_recv(&mut [0]));
            would_block(recv(&duplicates[number]));
        }
        for (number, receive) in waiting {
            assert!(!receive.is_finished(), "{number} received what was taken away");
            send(&peers[number], format!("second {number}").as_bytes()).expect("capacity");
            let (socket, message) = soon(receive).await.expect("no panic");
            assert_eq!(message, format!("second {number}").as_bytes());
            would_block(socket.try_recv(&mut [0]));
        }
        taken.into_iter().filter(|taken| *taken).count()
    };
    let handle = runtime.handle().clone();
    runtime.block_on(async move { handle.spawn(scene).await }).expect("no panic")
}

fn forgotten_receives_do_not_hinder_other_sockets() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })
        .expect("the soft limit");
    let most = limit.maximum.unwrap_or(u64::MAX);
    let count = 2000.min((most.saturating_sub(200) / 2) as usize);

    let base = base_line();
    let runtime = current_thread();
    runtime.block_on(tokio::task::unconstrained(async {
        let (sockets, peers): (Vec<_>, Vec<_>) = (0..count).map(|_| half()).unzip();
        let mut futures: Vec<Pin<Box<dyn Future<Output = ()>>>> = Vec::new();
        for (number, socket) in sockets.iter().enumerate() {
            futures.push(if number % 2 == 0 {
                let buffer = vec![0; 64].leak();
                Box::pin(async move { drop(socket.recv(buffer).await) })
            } else {
                Box::pin(async move { drop(socket.recv_owned(vec![0; 64]).await) })
            });
        }
        soon(std::future::poll_fn(|cx| {
            for future in &mut futures {
                assert!(future.as_mut().poll(cx).is_pending());
            }
            if submitted() >= count as u64 {
                return Poll::Ready(());
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        }))
        .await;
        parked(count as u64).await;
        futures.into_iter().for_each(std::mem::forget);

        let (early_a, early_b) = pair();
        for peer in &peers {
            send(peer, b"for no task").expect("capacity");
        }
        echoes(&early_a, &early_b, 100).await;
        let (late_a, late_b) = pair();
        echoes(&late_a, &late_b, 100).await;

        drop(sockets);
        for peer in &peers {
            assert!(is_at_end(peer), "a socket with a forgotten receive is still open");
        }
        echoes(&late_a, &late_b, 100).await;
    }));
    drop(runtime);
    until("all descriptors are closed", || descriptors().len() <= base);
}
