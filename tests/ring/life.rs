//! The end of sockets and runtimes while the kernel has operations of theirs.

#![allow(unsafe_code, reason = "a buffer whose memory outlives it, to be looked at")]

use std::cell::UnsafeCell;
use std::io::ErrorKind;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;
use tokio_seqpacket::UnixSeqpacket;
use tokio_seqpacket::buf::{IoBuf, IoBufMut};

use crate::trials::{Need, Test, descriptors, rings, submitted, until};
use crate::{
    armed, base_line, current_thread, half, is_at_end, multi_thread, recv, send, soon, would_block,
};

pub fn tests() -> Vec<Test> {
    let mut tests = tests![&[Need::Uring];
        a_runtime_dropped_on_a_foreign_thread_leaves_nothing_behind,
        a_runtime_dropped_while_its_thread_computes_leaves_nothing_behind,
        dropping_a_socket_closes_it_at_once_when_a_receive_was_forgotten,
        dropping_a_socket_closes_it_when_the_thread_that_submitted_has_ended,
        a_socket_that_is_dropped_swallows_no_message,
        a_socket_that_is_given_away_swallows_no_message,
        dropping_a_socket_closes_it_at_once_when_a_receive_was_dropped,
        a_receive_into_a_buffer_outlives_its_runtime,
    ];
    tests.extend(tests![&[Need::Uring];
        a_multi_thread_runtime_dropped_elsewhere_leaves_nothing_behind,
    ]);
    tests
}

const SIZE: usize = 4096;
/// What a buffer is filled with when it is dropped.
const DEAD: u8 = 0xAA;

/// Memory that is never freed, so that it can be looked at when its buffer is gone.
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
        // SAFETY: the buffer is gone. A kernel that writes all the same is what this looks for.
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

// SAFETY: the memory is never freed, and all of it is initialised.
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

/// A runtime with receives in flight that have been given buffers.
fn busy(runtime: &Runtime) -> (Vec<&'static Memory>, Vec<OwnedFd>) {
    let before = submitted();
    runtime.block_on(async move {
        let (mut memories, mut peers) = (Vec::new(), Vec::new());
        for _ in 0..100 {
            let (socket, peer) = half();
            let buffer = watched();
            memories.push(buffer.0);
            peers.push(peer);
            tokio::spawn(async move { socket.recv_owned(buffer).await });
        }
        armed(before + 100).await;
        (memories, peers)
    })
}

/// The runtime is gone, and so is, soon, all that it had.
fn nothing_is_left(memories: &[&'static Memory], peers: Vec<OwnedFd>, base: usize) {
    // The kernel may still take these into buffers that it has; not into others.
    for peer in &peers {
        let _ = send(peer, &[1; SIZE]);
    }
    let start = Instant::now();
    while !memories.iter().all(|memory| memory.is_dead()) {
        assert!(start.elapsed() < Duration::from_secs(20), "buffers are kept for ever");
        std::thread::sleep(Duration::from_millis(5));
    }
    for peer in &peers {
        until("end of stream", || is_at_end(peer));
    }
    assert!(memories.iter().all(|memory| memory.is_untouched()), "written to after its end");
    drop(peers);
    // Without another ring that would come and look after them.
    until("all descriptors are closed", || descriptors().len() <= base);
    assert_eq!(rings().len(), 0);
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
    let gone = Arc::new(AtomicBool::new(false));
    let dropping = std::thread::spawn({
        let gone = gone.clone();
        move || {
            drop(runtime);
            gone.store(true, Ordering::Release);
        }
    });
    // The kernel finishes what this thread has submitted when it enters the kernel, which it does not.
    while !gone.load(Ordering::Acquire) {
        std::hint::spin_loop();
    }
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
        nothing_is_left(&memories, peers, base);
    }
}

/// A socket with a receive in flight, which the caller has dropped or forgotten.
fn armed_and_left(runtime: &Runtime, forget: bool) -> (UnixSeqpacket, OwnedFd) {
    let before = submitted();
    runtime.block_on(async {
        let (socket, peer) = half();
        {
            let mut receive = Box::pin(socket.recv_owned(vec![0; 64]));
            tokio::select! {
                biased;
                (result, _) = &mut receive => panic!("{result:?}"),
                () = armed(before + 1) => {}
            }
            if forget {
                std::mem::forget(receive);
            }
        }
        (socket, peer)
    })
}

/// On the owner thread, without driving the runtime.
fn closes_at_once(forget: bool) {
    let runtime = current_thread();
    let (socket, peer) = armed_and_left(&runtime, forget);
    would_block(recv(&peer));
    drop(socket);
    assert_eq!(recv(&peer).expect("end of stream"), b"");
    assert_eq!(send(&peer, b"hello?").unwrap_err().kind(), ErrorKind::BrokenPipe);
}

fn dropping_a_socket_closes_it_at_once_when_a_receive_was_forgotten() {
    closes_at_once(true);
}

fn dropping_a_socket_closes_it_at_once_when_a_receive_was_dropped() {
    closes_at_once(false);
}

fn dropping_a_socket_closes_it_when_the_thread_that_submitted_has_ended() {
    let runtime = Arc::new(current_thread());
    let driving = runtime.clone();
    let thread = std::thread::spawn(move || armed_and_left(&driving, true));
    let (socket, peer) = thread.join().expect("no panic");
    drop(socket);
    // The kernel settles it in a thread of its own, and a driven runtime hears of that.
    until("end of stream", || {
        runtime.block_on(async { tokio::time::sleep(Duration::from_millis(1)).await });
        is_at_end(&peer)
    });
}

fn a_socket_that_is_dropped_swallows_no_message() {
    let runtime = current_thread();
    for forget in [false, true] {
        let (socket, peer) = armed_and_left(&runtime, forget);
        let duplicate = socket.as_fd().try_clone_to_owned().expect("a duplicate");
        drop(socket);
        send(&peer, b"for the duplicate").expect("open");
        assert_eq!(recv(&duplicate).expect("a message"), b"for the duplicate");
        would_block(recv(&duplicate));
    }
}

fn a_socket_that_is_given_away_swallows_no_message() {
    let runtime = current_thread();
    for forget in [false, true] {
        let (socket, peer) = armed_and_left(&runtime, forget);
        let given = OwnedFd::from(socket);
        send(&peer, b"for the new owner").expect("open");
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
        tokio::select! {
            biased;
            (result, _) = &mut receive => panic!("{result:?}"),
            () = armed(before + 1) => {}
        }
    });
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
    let (received, buffer) = current_thread().block_on(async { soon(receive).await });
    received.unwrap_err();
    assert_eq!(buffer.len(), 64);
    dropping.join().expect("no panic");
}
