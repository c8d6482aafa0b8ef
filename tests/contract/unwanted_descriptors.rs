//! G8 against hostile peers: descriptors that are sent to a socket whose user asks for none cost the process none, not even
//! while a receive waits.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio_seqpacket::UnixSeqpacket;
use tokio_test::task;

use crate::harness::call_variants::{self, RecvBy, Room};
use crate::harness::descriptors::{count, file};
use crate::harness::messages::recv;
use crate::harness::peer::Peer;
use crate::harness::waiting::{arm_all, breathe, soon};
use crate::harness::{Cell, Test, alone};

pub fn tests() -> Vec<Test> {
    // They count the descriptors of the process.
    alone(tasks![
        descriptors_for_plain_receives_that_are_not_polled_open_none,
        descriptors_for_plain_receives_in_tasks_open_none,
        descriptors_for_plain_receives_leave_room_at_the_limit,
        descriptors_for_dropped_plain_receives_are_closed_with_their_message,
    ])
}

const PEERS: usize = 5;
/// The most that one message carries.
pub const MOST: usize = 253;

/// A worker may make its ring meanwhile, or a socket be registered. Far less than one message carries.
pub const ALLOWED: usize = 12;

/// As many as fit in a message, of one file.
pub fn most() -> Vec<OwnedFd> {
    let one = file("passed");
    (0..MOST).map(|_| one.try_clone().expect("a duplicate")).collect()
}

/// Sockets on which only `recv()` is ever called, and what sends to them.
fn victims(cell: Cell) -> Vec<(UnixSeqpacket, Peer)> {
    (0..PEERS).map(|_| cell.half()).collect()
}

async fn descriptors_for_plain_receives_that_are_not_polled_open_none(cell: Cell) {
    let fds = most();
    let victims = victims(cell);
    for _ in 0..3 {
        let mut receives: Vec<_> = victims
            .iter()
            .map(|(a, _)| task::spawn(call_variants::recv(RecvBy::Plain, a, Room::AMPLE)))
            .collect();
        arm_all(&mut receives).await;
        let before = count();
        for (_, peer) in &victims {
            peer.send_fds(b"message", &fds);
        }
        for _ in 0..5 {
            breathe().await;
            let more = count().saturating_sub(before);
            assert!(more <= ALLOWED, "{more} descriptors more");
        }
        for receive in receives {
            assert_eq!(soon(receive).await.unwrap().bytes, b"message");
        }
    }
}

/// Counts, on a thread of its own, until it is told to stop. Says the most there were.
pub struct Watch {
    stop: Arc<AtomicBool>,
    looked: Arc<AtomicUsize>,
    thread: thread::JoinHandle<usize>,
}

impl Watch {
    pub fn new() -> Self {
        let (stop, looked) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let thread = thread::spawn({
            let (stop, looked) = (stop.clone(), looked.clone());
            move || {
                let mut most = 0;
                while !stop.load(Ordering::Acquire) {
                    most = most.max(count());
                    looked.fetch_add(1, Ordering::Release);
                }
                most
            }
        });
        Self { stop, looked, thread }
    }

    pub fn ends(self) -> usize {
        self.stop.store(true, Ordering::Release);
        self.thread.join().expect("no panic")
    }
}

async fn descriptors_for_plain_receives_in_tasks_open_none(cell: Cell) {
    const MESSAGES: usize = 100;
    let fds = most();
    let (mut tasks, mut peers) = (Vec::new(), Vec::new());
    for (a, peer) in victims(cell) {
        peers.push(peer);
        tasks.push(tokio::spawn(async move {
            for n in 0..MESSAGES {
                assert_eq!(recv(&a).await, n.to_ne_bytes());
            }
            a
        }));
    }
    breathe().await;
    let before = count();
    let watch = Watch::new();
    for n in 0..MESSAGES {
        for peer in &peers {
            peer.send_fds(&n.to_ne_bytes(), &fds);
        }
        let looked = watch.looked.load(Ordering::Acquire);
        tokio::task::yield_now().await;
        if n % 5 == 0 {
            // Most tasks wait again by then, and the next messages find them parked.
            breathe().await;
            soon(async {
                while watch.looked.load(Ordering::Acquire) == looked {
                    breathe().await;
                }
            })
            .await;
        }
    }
    let mut sockets = Vec::new();
    for task in tasks {
        sockets.push(soon(task).await.unwrap());
    }
    let more = watch.ends().saturating_sub(before);
    assert!(more <= ALLOWED, "{more} descriptors more");
    drop(sockets);
}

async fn descriptors_for_plain_receives_leave_room_at_the_limit(cell: Cell) {
    let fds = most();
    let victims = victims(cell);
    let mut receives: Vec<_> = victims
        .iter()
        .map(|(a, _)| task::spawn(call_variants::recv(RecvBy::Plain, a, Room::AMPLE)))
        .collect();
    arm_all(&mut receives).await;
    // Less than two messages carry are free.
    let limit = getrlimit(Resource::Nofile);
    let low = Some((count() + MOST + MOST / 2) as u64);
    setrlimit(Resource::Nofile, Rlimit { current: low, ..limit }).unwrap();
    for (_, peer) in &victims {
        peer.send_fds(b"message", &fds);
        breathe().await;
        let free: Vec<_> = (0..MOST).map(|_| File::open("/dev/null")).collect();
        assert!(free.iter().all(Result::is_ok), "the limit is used up: {:?}", free.last());
    }
    for receive in receives {
        assert_eq!(soon(receive).await.unwrap().bytes, b"message");
    }
    setrlimit(Resource::Nofile, limit).unwrap();
}

async fn descriptors_for_dropped_plain_receives_are_closed_with_their_message(cell: Cell) {
    let fds = most();
    let victims = victims(cell);
    let before = count();
    for n in 0..4 {
        for (a, peer) in &victims {
            let mut receive = task::spawn(call_variants::recv(RecvBy::Plain, a, Room::AMPLE));
            let _ = receive.poll();
            if n % 2 == 0 {
                breathe().await;
            }
            peer.send_fds(b"message", &fds);
            if n < 2 {
                breathe().await;
            }
        }
        for (a, _) in &victims {
            assert_eq!(recv(a).await, b"message");
        }
        breathe().await;
        let more = count().saturating_sub(before);
        assert!(more <= ALLOWED, "{more} descriptors more");
    }
}
