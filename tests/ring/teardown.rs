//! G8, G10, G11 and G12: sockets and runtimes end while their operations are queued or wait.

#![allow(unsafe_code, reason = "a buffer whose memory outlives it, so that a test can read it")]

use std::cell::UnsafeCell;
use std::io::ErrorKind;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio_seqpacket::UnixSeqpacket;
use tokio_seqpacket::buf::{IoBuf, IoBufMut};

use crate::harness::descriptors::{base_line, descriptors, rings, submitted};
use crate::harness::syscalls::{is_at_end, recv, send, would_block};
use crate::harness::waiting::{soon, until};
use crate::harness::{Need, Test};
use crate::{begin, current_thread, half, multi_thread, parked};

pub fn tests() -> Vec<Test> {
    tests![[Need::Uring];
        a_runtime_dropped_on_a_foreign_thread_leaves_nothing_behind,
        a_runtime_dropped_while_its_thread_computes_leaves_nothing_behind,
        dropping_a_socket_closes_it_at_once_when_a_receive_was_forgotten,
        a_socket_that_is_dropped_swallows_no_message,
        a_socket_that_is_given_away_swallows_no_message,
        dropping_a_socket_closes_it_at_once_when_a_receive_was_dropped,
        dropping_a_socket_closes_it_at_once_when_sends_are_queued_or_wait,
        a_receive_into_a_buffer_outlives_its_runtime,
        a_multi_thread_runtime_dropped_elsewhere_leaves_nothing_behind,
    ]
}

const SIZE: usize = 4096;
/// What a buffer is filled with when it is dropped.
const DEAD: u8 = 0xAA;

/// Memory that is never freed, so that a test can read it when its buffer is gone.
struct Memory {
    bytes: UnsafeCell<[u8; SIZE]>,
    is_dead: AtomicBool,
}

// SAFETY: the bytes are touched by the buffer alone, and once that is gone by the test.
unsafe impl Sync for Memory {}

impl Memory {
    fn is_dead(&self) -> bool {
        self.is_dead.load(Ordering::Acquire)
    }

    fn is_untouched(&self) -> bool {
        assert!(self.is_dead());
        // SAFETY: the buffer is gone. A kernel that still writes is what this detects.
        let bytes = unsafe { std::ptr::read_volatile(self.bytes.get()) };
        bytes.iter().all(|byte| *byte == DEAD)
    }
}

/// Marks its memory when it is dropped.
struct Watched(&'static Memory);

fn watched() -> Watched {
    let memory = Memory { bytes: UnsafeCell::new([0; SIZE]), is_dead: AtomicBool::new(false) };
    Watched(Box::leak(Box::new(memory)))
}

// SAFETY: the memory is never freed, and all of it is initialized.
unsafe impl IoBuf for Watched {
    fn stable_ptr(&self) -> *const u8 {
        self.0.bytes.get().cast()
    }

    fn bytes_init(&self) -> usize {
        SIZE
    }

    fn bytes_total(&self) -> usize {
        SIZE
    }
}

// SAFETY: as above; there is one Watched for each memory.
unsafe impl IoBufMut for Watched {
    fn stable_mut_ptr(&mut self) -> *mut u8 {
        self.0.bytes.get().cast()
    }

    unsafe fn set_init(&mut self, _pos: usize) {}
}

impl Drop for Watched {
    fn drop(&mut self) {
        // SAFETY: the buffer still has its memory for itself.
        unsafe { self.0.bytes.get().write([DEAD; SIZE]) };
        self.0.is_dead.store(true, Ordering::Release);
    }
}

/// A runtime with receives that have been given buffers: some are parked, some are in the queue for a batch.
fn busy(runtime: &Runtime) -> (Vec<&'static Memory>, Vec<OwnedFd>) {
    let before = submitted();
    runtime.block_on(async move {
        let (mut memories, mut peers) = (Vec::new(), Vec::new());
        let mut receive = || {
            let (socket, peer) = half();
            let buffer = watched();
            memories.push(buffer.0);
            peers.push(peer);
            tokio::spawn(async move { socket.recv_owned(buffer).await });
        };
        (0..100).for_each(|_| receive());
        parked(before + 100).await;
        (0..20).for_each(|_| receive());
        tokio::task::yield_now().await;
        (memories, peers)
    })
}

/// The runtime is gone, and so is all that it had.
fn nothing_is_left(memories: &[&'static Memory], peers: Vec<OwnedFd>, base: usize) {
    assert!(memories.iter().all(|memory| memory.is_dead()), "buffers are kept");
    assert!(peers.iter().all(is_at_end), "sockets are kept");
    for peer in &peers {
        assert_eq!(send(peer, &[1; SIZE]).unwrap_err().kind(), ErrorKind::BrokenPipe);
    }
    assert!(memories.iter().all(|memory| memory.is_untouched()), "written to after its end");
    drop(peers);
    assert_eq!(rings().len(), 0);
    assert!(descriptors().len() <= base, "{:#?}", descriptors());
}

fn a_runtime_dropped_on_a_foreign_thread_leaves_nothing_behind() {
    let base = base_line();
    let runtime = current_thread();
    let (memories, peers) = busy(&runtime);
    std::thread::spawn(move || drop(runtime)).join().expect("no panic");
    nothing_is_left(&memories, peers, base);
}

fn a_runtime_dropped_while_its_thread_computes_leaves_nothing_behind() {
    let base = base_line();
    let runtime = current_thread();
    let (memories, peers) = busy(&runtime);
    let dropping = drop_elsewhere(runtime);
    nothing_is_left(&memories, peers, base);
    dropping.join().expect("no panic");
}

fn a_multi_thread_runtime_dropped_elsewhere_leaves_nothing_behind() {
    let base = base_line();
    for background in [false, true] {
        let runtime = multi_thread(2);
        let (memories, peers) = busy(&runtime);
        let dropping = std::thread::spawn(move || {
            if background { runtime.shutdown_background() } else { drop(runtime) }
        });
        dropping.join().expect("no panic");
        if background {
            until("buffers are dropped", || memories.iter().all(|memory| memory.is_dead()));
            until("rings and runtimes are closed", || descriptors().len() <= base + peers.len());
        }
        nothing_is_left(&memories, peers, base);
    }
}

/// How far a receive has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// For the next batch.
    Queued,
    Parked,
}

const STAGES: [Stage; 2] = [Stage::Queued, Stage::Parked];

/// A socket with a receive that the caller has dropped or forgotten.
fn left(runtime: &Runtime, stage: Stage, forget: bool) -> (UnixSeqpacket, OwnedFd) {
    let before = submitted();
    runtime.block_on(async {
        let (socket, peer) = half();
        {
            let mut receive = Box::pin(socket.recv_owned(vec![0; 64]));
            begin(receive.as_mut());
            if stage == Stage::Parked {
                parked(before + 1).await;
            }
            if forget {
                std::mem::forget(receive);
            }
        }
        (socket, peer)
    })
}

/// Without driving the runtime.
fn closes_at_once(forget: bool) {
    let runtime = Arc::new(current_thread());
    for stage in STAGES {
        for on_another_thread in [false, true] {
            let (socket, peer) = if on_another_thread {
                let driving = runtime.clone();
                let thread = std::thread::spawn(move || left(&driving, stage, forget));
                thread.join().expect("no panic")
            } else {
                left(&runtime, stage, forget)
            };
            would_block(recv(&peer));
            drop(socket);
            assert_eq!(recv(&peer).expect("end of stream"), b"", "{stage:?}");
            assert_eq!(send(&peer, b"hello?").unwrap_err().kind(), ErrorKind::BrokenPipe);
        }
    }
}

fn dropping_a_socket_closes_it_at_once_when_a_receive_was_forgotten() {
    closes_at_once(true);
}

fn dropping_a_socket_closes_it_at_once_when_a_receive_was_dropped() {
    closes_at_once(false);
}

fn dropping_a_socket_closes_it_at_once_when_sends_are_queued_or_wait() {
    let runtime = current_thread();
    for full in [false, true] {
        for forget in [false, true] {
            let (peer, fillers) = runtime.block_on(async {
                let (socket, peer) = half();
                let mut fillers = 0;
                while full && socket.try_send(b"filler").is_ok() {
                    fillers += 1;
                }
                {
                    let mut send = Box::pin(socket.send(b"never"));
                    begin(send.as_mut());
                    if full {
                        tokio::time::sleep(Duration::from_millis(2)).await;
                    }
                    if forget {
                        std::mem::forget(send);
                    }
                }
                drop(socket);
                (peer, fillers)
            });
            for _ in 0..fillers {
                assert_eq!(recv(&peer).expect("a filler"), b"filler");
            }
            // The driver runs, and must have nothing to do with it.
            runtime.block_on(async { tokio::time::sleep(Duration::from_millis(2)).await });
            assert_eq!(recv(&peer).expect("end of stream"), b"");
        }
    }
}

fn a_socket_that_is_dropped_swallows_no_message() {
    let runtime = current_thread();
    for (stage, forget) in STAGES.into_iter().flat_map(|stage| [(stage, false), (stage, true)]) {
        let (socket, peer) = left(&runtime, stage, forget);
        let duplicate = socket.as_fd().try_clone_to_owned().expect("a duplicate");
        drop(socket);
        send(&peer, b"for the duplicate").expect("open");
        runtime.block_on(async { tokio::time::sleep(Duration::from_millis(2)).await });
        assert_eq!(recv(&duplicate).expect("a message"), b"for the duplicate");
        would_block(recv(&duplicate));
    }
}

fn a_socket_that_is_given_away_swallows_no_message() {
    let runtime = current_thread();
    for (stage, forget) in STAGES.into_iter().flat_map(|stage| [(stage, false), (stage, true)]) {
        let (socket, peer) = left(&runtime, stage, forget);
        let given = OwnedFd::from(socket);
        send(&peer, b"for the new owner").expect("open");
        runtime.block_on(async { tokio::time::sleep(Duration::from_millis(2)).await });
        assert_eq!(recv(&given).expect("a message"), b"for the new owner");
        would_block(recv(&given));
    }
}

fn a_receive_into_a_buffer_outlives_its_runtime() {
    let runtime = current_thread();
    let before = submitted();
    let (socket, _peer) = runtime.block_on(async { half() });
    let mut receive = Box::pin(socket.recv_owned(vec![0; 64]));
    runtime.block_on(async {
        begin(receive.as_mut());
        parked(before + 1).await;
    });
    let dropping = drop_elsewhere(runtime);
    let (received, buffer) = current_thread().block_on(async { soon(receive).await });
    received.unwrap_err();
    assert_eq!(buffer.len(), 64);
    dropping.join().expect("no panic");
}

/// Drops the runtime on another thread, while this one, which has submitted, computes and does not enter the kernel.
fn drop_elsewhere(runtime: Runtime) -> std::thread::JoinHandle<()> {
    let gone = Arc::new(AtomicBool::new(false));
    let dropping = std::thread::spawn({
        let gone = gone.clone();
        move || {
            drop(runtime);
            gone.store(true, Ordering::Release);
        }
    });
    while !gone.load(Ordering::Acquire) {
        std::hint::spin_loop();
    }
    dropping
}
