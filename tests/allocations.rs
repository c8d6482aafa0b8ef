//! No heap allocation on the steady path: borrowed and owned calls, on epoll, on io_uring as it is by default, and with
//! every operation through the ring. Nor where `Bytes` or frames go through memory that is used again.
//!
//! The allocator counts what the runtime's thread asks for. Everything happens there: the tasks, the
//! driver, tokio.

#![allow(unsafe_code, reason = "an allocator that counts")]

#[path = "harness/mod.rs"]
#[macro_use]
mod harness;

use std::alloc::{GlobalAlloc, Layout, System};
use std::backtrace::Backtrace;
use std::cell::Cell;
use std::io;
use std::os::fd::OwnedFd;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread::JoinHandle;

use bytes::{Bytes, BytesMut};
use futures_util::{SinkExt, StreamExt};
use harness::descriptors::submitted;
use harness::{AtOnce, Need, Test};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use tokio::sync::Notify;
use tokio_seqpacket::{Backend, Framed, Messages, MessagesOptions, Options, OwnedSendBatch};
use tokio_seqpacket::{Submission, UnixSeqpacket};
use tokio_util::codec::BytesCodec;

struct Counting;

thread_local! {
    static COUNTED: Cell<Option<u64>> = const { Cell::new(None) };
}

fn count() {
    // Without a destructor, so it is there as long as the thread is.
    let Some(counted) = COUNTED.get() else { return };
    COUNTED.set(None);
    if counted == 0 && std::env::var_os("SEQPACKET_TEST_BACKTRACE").is_some() {
        eprintln!("the first allocation:\n{}", Backtrace::force_capture());
    }
    COUNTED.set(Some(counted + 1));
}

// SAFETY: all calls are System's.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promise.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: the caller's promise.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const WARM_UP: usize = 1000;
const MESSAGES: usize = 1000;
const SIZE: usize = 64;

/// What a scene runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Epoll,
    Uring,
    Ring,
}

impl Place {
    fn options(self) -> Options {
        match self {
            Self::Epoll => Options::new().backend(Backend::Epoll),
            Self::Uring => Options::new().backend(Backend::Uring),
            Self::Ring => Options::new().backend(Backend::Uring).submission(Submission::Ring),
        }
    }

    fn pair(self) -> (UnixSeqpacket, UnixSeqpacket) {
        self.options().pair().expect("a pair")
    }

    fn socket(self, fd: OwnedFd) -> UnixSeqpacket {
        self.options().socket_from_fd(fd).expect("a socket")
    }

    /// With [`Place::Ring`] so many operations have gone through the ring since.
    fn went_through(self, before: u64, least: usize) {
        if self == Self::Ring {
            let submitted = submitted() - before;
            assert!(submitted >= least as u64, "only {submitted} went through the ring");
        }
    }
}

/// How a message is sent and received.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Call {
    Borrowed,
    Owned,
}

/// One end of an echo, with buffers that are used again and again.
struct End {
    socket: UnixSeqpacket,
    call: Call,
    incoming: Vec<u8>,
    outgoing: Vec<u8>,
}

impl End {
    fn new(socket: UnixSeqpacket, call: Call) -> Self {
        Self { socket, call, incoming: vec![0; SIZE], outgoing: vec![7; SIZE] }
    }

    async fn send(&mut self) {
        let sent = match self.call {
            Call::Borrowed => self.socket.send(&self.outgoing).await,
            Call::Owned => {
                let (sent, buffer) =
                    self.socket.send_owned(std::mem::take(&mut self.outgoing)).await;
                self.outgoing = buffer;
                sent
            }
        };
        assert_eq!(sent.expect("sent"), SIZE);
    }

    async fn recv(&mut self) {
        let received = match self.call {
            Call::Borrowed => self.socket.recv(&mut self.incoming).await,
            Call::Owned => {
                let (received, buffer) =
                    self.socket.recv_owned(std::mem::take(&mut self.incoming)).await;
                self.incoming = buffer;
                received.map(|info| info.bytes_read())
            }
        };
        assert_eq!(received.expect("received"), SIZE);
    }
}

/// Drive `round` until everything is warm. A thousand more allocate nothing.
async fn measured(round: impl AsyncFnMut()) {
    assert_eq!(counted(round).await, 0, "allocations in {MESSAGES} rounds");
}

/// Drive `round` until everything is warm, then count the allocations of a thousand.
async fn counted(mut round: impl AsyncFnMut()) -> u64 {
    for _ in 0..WARM_UP {
        round().await;
    }
    COUNTED.set(Some(0));
    for _ in 0..MESSAGES {
        round().await;
    }
    COUNTED.take().expect("set above")
}

fn run(body: impl Future<Output = ()>) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(body);
}

/// Two tasks of one thread.
fn echo(place: Place, call: Call) {
    run(async move {
        let (a, b) = place.pair();
        let (mut client, mut server) = (End::new(a, call), End::new(b, call));
        let before = submitted();
        let echoing = tokio::spawn(async move {
            loop {
                server.recv().await;
                server.send().await;
            }
        });
        measured(async || {
            client.send().await;
            client.recv().await;
        })
        .await;
        place.went_through(before, 2 * (WARM_UP + MESSAGES));
        echoing.abort();
    });
}

fn socketpair() -> (OwnedFd, OwnedFd) {
    let flags = SocketFlags::CLOEXEC;
    rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
        .expect("socketpair(2)")
}

/// Whether a thread of this process sleeps in the kernel.
fn sleeps(thread: i32) -> bool {
    let stat =
        std::fs::read_to_string(format!("/proc/self/task/{thread}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('S'))
}

/// Answers every message once the requesting thread sleeps in the kernel. Ends with the stream.
fn answerer(fd: OwnedFd) -> JoinHandle<()> {
    let asking = rustix::thread::gettid().as_raw_nonzero().get();
    std::thread::spawn(move || {
        let mut message = [0; SIZE];
        while let Ok((1.., _)) = rustix::net::recv(&fd, &mut message, RecvFlags::empty()) {
            while !sleeps(asking) {
                std::thread::yield_now();
            }
            if rustix::net::send(&fd, &message, SendFlags::NOSIGNAL).is_err() {
                return;
            }
        }
    })
}

/// Two receives wait at a time, and their messages come together.
fn parked_receives(place: Place, call: Call) {
    let (ours, theirs): (Vec<_>, Vec<_>) = [socketpair(), socketpair()].into_iter().unzip();
    run(async move {
        let ends: Vec<_> = ours.into_iter().map(|fd| End::new(place.socket(fd), call)).collect();
        let [mut one, mut two] = <[End; 2]>::try_from(ends).ok().expect("two");
        let before = submitted();
        measured(async || {
            let answer = async {
                // All attempts find nothing, and the sockets park.
                for _ in 0..30 {
                    tokio::task::yield_now().await;
                }
                for fd in &theirs {
                    rustix::net::send(fd, &[7; SIZE], SendFlags::NOSIGNAL).expect("sent");
                }
            };
            tokio::join!(one.recv(), two.recv(), answer);
        })
        .await;
        place.went_through(before, 2 * (WARM_UP + MESSAGES));
    });
}

/// Every receive waits, for a message that comes alone.
fn lone_receives(place: Place, call: Call) {
    let (ours, theirs) = socketpair();
    let peer = answerer(theirs);
    run(async move {
        let mut client = End::new(place.socket(ours), call);
        measured(async || {
            client.send().await;
            client.recv().await;
        })
        .await;
    });
    peer.join().expect("no panic");
}

/// Sends that find the peer's queue full. A thread frees capacity when the runtime sleeps.
fn parked_sends(place: Place, call: Call) {
    let (ours, theirs) = socketpair();
    let waiting = rustix::thread::gettid().as_raw_nonzero().get();
    // Capacity for a handful of messages.
    rustix::net::sockopt::set_socket_send_buffer_size(&ours, 1).expect("SO_SNDBUF");
    let (tx, rx) = std::sync::mpsc::channel::<()>();
    let peer = std::thread::spawn(move || {
        let mut message = [0; SIZE];
        let _ = rx.recv();
        loop {
            while !sleeps(waiting) {
                std::thread::yield_now();
            }
            // The wake-up comes when all but a quarter of the capacity is free again.
            match rustix::net::recv(&theirs, &mut message, RecvFlags::DONTWAIT) {
                Ok((1.., _)) | Err(rustix::io::Errno::AGAIN) => {}
                Ok(_) => return,
                Err(error) => panic!("{error}"),
            }
        }
    });
    run(async move {
        let mut client = End::new(place.socket(ours), call);
        loop {
            match client.socket.try_send(&client.outgoing) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => panic!("{error}"),
            }
        }
        tx.send(()).expect("the peer waits");
        let before = submitted();
        measured(async || client.send().await).await;
        place.went_through(before, (WARM_UP + MESSAGES) / 10);
    });
    peer.join().expect("no panic");
}

/// Sixteen pairs at work, so that operations come in batches.
fn busy_echo(place: Place, call: Call) {
    run(async move {
        let stop = Arc::new(Notify::new());
        for _ in 0..15 {
            let (a, b) = place.pair();
            let (mut client, mut server) = (End::new(a, call), End::new(b, call));
            tokio::spawn(async move {
                loop {
                    server.recv().await;
                    server.send().await;
                }
            });
            let stop = stop.clone();
            tokio::spawn(async move {
                let work = async {
                    loop {
                        client.send().await;
                        client.recv().await;
                    }
                };
                tokio::select! { () = stop.notified() => {} () = work => {} }
            });
        }
        let (a, b) = place.pair();
        let (mut client, mut server) = (End::new(a, call), End::new(b, call));
        tokio::spawn(async move {
            loop {
                server.recv().await;
                server.send().await;
            }
        });
        let before = submitted();
        measured(async || {
            client.send().await;
            client.recv().await;
        })
        .await;
        place.went_through(before, 16 * 3 * MESSAGES);
        stop.notify_waiters();
    });
}

/// Batches that are used again, to a stream. The messages of the owned batch are the memory of those
/// that were sent before.
fn reused_batches(place: Place, call: Call) {
    const BATCH: usize = 16;
    run(async move {
        let (a, b) = place.pair();
        let message = [7; SIZE];
        let mut borrowed = a.batch();
        let mut owned = OwnedSendBatch::new();
        let mut spare = vec![message.to_vec(); BATCH];
        let mut messages = Messages::new(b, MessagesOptions::new()).expect("a stream");
        measured(async || {
            let sent = match call {
                Call::Borrowed => {
                    borrowed.clear();
                    (0..BATCH).for_each(|_| borrowed.push(&message));
                    borrowed.send().await
                }
                Call::Owned => {
                    spare.drain(..).for_each(|message| owned.push(message));
                    let sent = owned.send(&a).await;
                    spare.extend(owned.drain_sent().map(|(message, _)| message));
                    sent
                }
            };
            assert_eq!(sent.expect("sent"), BATCH);
            for _ in 0..BATCH {
                let message = messages.next().await.expect("not the end").expect("received");
                assert_eq!(message.len(), SIZE);
            }
        })
        .await;
    });
}

/// `Bytes` that are sent, and buffers that messages are split off, which all are dropped at once.
fn bytes(place: Place) {
    run(async move {
        let (a, b) = place.pair();
        let (message, mut buffer) = (Bytes::from(vec![7; SIZE]), BytesMut::with_capacity(8 * SIZE));
        measured(async || {
            let (sent, _) = a.send_owned(message.clone()).await;
            assert_eq!(sent.expect("sent"), SIZE);
            buffer.reserve(SIZE);
            let (received, filled) = b.recv_owned(std::mem::take(&mut buffer)).await;
            assert_eq!(received.expect("received").bytes_read(), SIZE);
            buffer = filled;
            assert_eq!(buffer.split().freeze(), message);
        })
        .await;
    });
}

/// Frames go and come through memory that is used again.
fn frames(place: Place, receiver_waits: bool) {
    run(async move {
        let (a, b) = place.pair();
        let message = Bytes::from(vec![7; SIZE]);
        let (mut a, mut b) = (Framed::new(a, BytesCodec::new()), Framed::new(b, BytesCodec::new()));
        measured(async || {
            let send = async {
                // All attempts find nothing, and the socket parks.
                for _ in 0..if receiver_waits { 30 } else { 0 } {
                    tokio::task::yield_now().await;
                }
                a.send(message.clone()).await.expect("sent");
            };
            let ((), frame) = if receiver_waits {
                let (frame, sent) = tokio::join!(b.next(), send);
                (sent, frame)
            } else {
                (send.await, b.next().await)
            };
            assert_eq!(frame.expect("a frame").expect("received"), message);
        })
        .await;
    });
}

/// Frames that are kept need memory, and many share one allocation.
fn kept_frames(place: Place) {
    run(async move {
        let (a, b) = place.pair();
        let message = Bytes::from(vec![7; SIZE]);
        let (mut a, mut b) = (Framed::new(a, BytesCodec::new()), Framed::new(b, BytesCodec::new()));
        let mut kept = Vec::with_capacity(WARM_UP + MESSAGES);
        let counted = counted(async || {
            a.send(message.clone()).await.expect("sent");
            kept.push(b.next().await.expect("a frame").expect("received"));
        })
        .await;
        assert!(kept.iter().all(|frame| *frame == message));
        // The memory and its count of frames, for 8 KiB of them.
        let blocks = (MESSAGES * SIZE).div_ceil(8 << 10) as u64 + 1;
        assert!(counted <= 2 * blocks, "{counted} allocations for {MESSAGES} frames");
    });
}

type Scene = fn(Place, Call);
type SceneOfBytes = fn(Place);

fn main() -> ExitCode {
    let scenes: [(&str, Scene); 6] = [
        ("an_echo_allocates_nothing", echo),
        ("an_echo_of_many_allocates_nothing", busy_echo),
        ("receives_that_wait_allocate_nothing", parked_receives),
        ("receives_of_messages_that_come_alone_allocate_nothing", lone_receives),
        ("sends_that_wait_allocate_nothing", parked_sends),
        ("batches_that_are_used_again_allocate_nothing", reused_batches),
    ];
    let mut tests = Vec::new();
    for (place, name, needs) in [
        (Place::Epoll, "epoll", vec![]),
        (Place::Uring, "io_uring", vec![Need::Uring]),
        (Place::Ring, "ring", vec![Need::Uring]),
    ] {
        let of_bytes: [(&str, SceneOfBytes); 4] = [
            ("bytes_allocate_nothing", bytes),
            ("frames_allocate_nothing", |place| frames(place, false)),
            ("frames_that_are_waited_for_allocate_nothing", |place| frames(place, true)),
            ("frames_that_are_kept_share_allocations", kept_frames),
        ];
        for (scene_name, scene) in of_bytes {
            let name = format!("{name}::{scene_name}");
            tests.push(Test::new(name, move || scene(place)).needs(needs.clone()).alone());
        }
        for (call, how) in [(Call::Borrowed, "borrowed"), (Call::Owned, "owned")] {
            for (scene_name, scene) in scenes {
                let name = format!("{name}::{how}::{scene_name}");
                tests
                    .push(Test::new(name, move || scene(place, call)).needs(needs.clone()).alone());
            }
        }
    }
    harness::main(AtOnce::One, tests)
}
