//! What the library takes for granted about the kernel, shown without it: a ring, a socket, and plain system
//! calls.
//!
//! A failure here says that the kernel has changed, and which of the library's rules to look at.

#![allow(unsafe_code, reason = "a ring in the raw")]

#[path = "harness/plain.rs"]
mod plain;
#[path = "ring/trials.rs"]
#[macro_use]
mod trials;

use std::fs::File;
use std::io::{IoSlice, IoSliceMut, Read, Seek, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use io_uring::{IoUring, cqueue, opcode, squeue, types};
use plain::{recv, send, socketpair, would_block};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, epoll, eventfd, poll};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use tokio_seqpacket::{Backend, Options};
use trials::{Need, submitted, until};

fn main() -> ExitCode {
    let mut tests = tests![&[Need::Uring];
        a_cancelled_receive_leaves_its_message_in_the_queue,
        a_cancel_that_races_with_a_message_loses_and_doubles_nothing,
        a_cancel_from_another_thread_settles_on_the_one_that_submitted,
        parked_sends_are_completed_in_reverse_order,
        a_new_send_overtakes_a_parked_one,
        a_closed_socket_stays_open_until_its_armed_receive_is_cancelled,
        an_armed_receive_of_a_closed_socket_swallows_the_next_message,
        a_silenced_eventfd_tells_nothing_and_a_look_after_listening_finds_it,
        work_put_off_shows_in_the_shared_flags,
        a_look_after_listening_finds_what_came_meanwhile,
        trunc_gives_the_real_length,
        a_message_fills_one_vector_after_the_other,
        the_header_tells_the_lengths_and_flags,
        the_header_and_its_vectors_are_copied_when_submitted,
        descriptors_to_pass_are_looked_up_again_at_a_retry,
        received_descriptors_are_close_on_exec_through_a_ring_too,
        a_pipe_registered_with_a_ring_hangs_up_once_its_operations_are_over,
        a_message_for_a_thread_that_ended_cancels_the_receive_and_stays,
        a_cancel_reaches_the_receive_of_a_thread_that_ended,
        completions_that_do_not_fit_are_kept_by_the_kernel,
        a_receive_at_the_end_of_the_stream_completes_with_nothing,
        a_reset_comes_before_the_messages_that_are_left,
        several_threads_may_enter_a_plain_ring,
        a_write_to_a_closed_peer_raises_no_signal,
    ];
    tests.extend(tests![&[];
        a_registration_tells_at_once_what_is_there_already,
        what_the_peer_takes_is_an_event_for_who_registered_for_sending_only,
        a_number_is_registered_once,
    ]);
    tests.extend(tests![&[Need::Uring, Need::Root];
        the_largest_message_fits_into_an_armed_receive,
    ]);
    trials::main(tests)
}

// ----- tools -----

/// As the library makes it.
fn ring(entries: u32) -> IoUring {
    IoUring::builder()
        .setup_coop_taskrun()
        .setup_taskrun_flag()
        .setup_submit_all()
        .build(entries)
        .expect("a ring")
}

fn submit(ring: &mut IoUring, entry: &squeue::Entry) {
    // SAFETY: every test keeps what its entries point to until it has their completions, or for ever.
    unsafe { ring.submission().push(entry) }.expect("room in the queue");
    assert_eq!(ring.submit().expect("io_uring_enter"), 1);
}

/// The next completion, waited for.
fn next(ring: &mut IoUring) -> (u64, i32) {
    let patience = types::Timespec::new().sec(5);
    let args = types::SubmitArgs::new().timespec(&patience);
    if let Err(error) = ring.submitter().submit_with_args(1, &args) {
        panic!("no completion: {error}");
    }
    let entry = ring.completion().next().expect("waited for");
    (entry.user_data(), entry.result())
}

/// What has completed, without waiting.
fn completed(ring: &mut IoUring) -> Vec<(u64, i32)> {
    enter(ring);
    let told = |entry: cqueue::Entry| (entry.user_data(), entry.result());
    ring.completion().map(told).collect()
}

/// Have deferred work done.
fn enter(ring: &IoUring) {
    const GETEVENTS: u32 = 1;
    // SAFETY: no argument is passed.
    let entered = unsafe { ring.submitter().enter::<libc::sigset_t>(0, 0, GETEVENTS, None) };
    entered.expect("io_uring_enter");
}

fn cancel(key: u64) -> squeue::Entry {
    opcode::AsyncCancel::new(key).build().user_data(u64::MAX)
}

/// Fill the peer's queue.
fn fill(fd: &OwnedFd) -> usize {
    let sent = std::iter::from_fn(|| send(fd, b"filler").ok());
    let count = sent.count();
    assert!(count > 10, "a queue of {count}");
    count
}

/// What arrives, without fillers.
fn drain(fd: &OwnedFd) -> Vec<Vec<u8>> {
    let messages = std::iter::from_fn(|| recv(fd).ok().filter(|message| !message.is_empty()));
    messages.filter(|message| message != b"filler").collect()
}

/// What a RECVMSG needs, each in its place.
struct Receive {
    header: Box<libc::msghdr>,
    vectors: Vec<libc::iovec>,
    buffers: Vec<Vec<u8>>,
    control: Vec<u64>,
}

// SAFETY: the pointers lead into what it owns.
unsafe impl Send for Receive {}

impl Receive {
    fn new(sizes: &[usize]) -> Self {
        let mut buffers: Vec<_> = sizes.iter().map(|size| vec![0; *size]).collect();
        let mut vectors: Vec<_> = buffers
            .iter_mut()
            .map(|buffer| libc::iovec {
                iov_base: buffer.as_mut_ptr().cast(),
                iov_len: buffer.len(),
            })
            .collect();
        let mut control = vec![0_u64; 64];
        // SAFETY: a C struct of integers and pointers.
        let mut header: Box<libc::msghdr> = Box::new(unsafe { std::mem::zeroed() });
        header.msg_iov = vectors.as_mut_ptr();
        header.msg_iovlen = vectors.len();
        header.msg_control = control.as_mut_ptr().cast();
        header.msg_controllen = 8 * control.len();
        Self { header, vectors, buffers, control }
    }

    fn entry(&mut self, fd: &OwnedFd, key: u64) -> squeue::Entry {
        let flags = (libc::MSG_CMSG_CLOEXEC | libc::MSG_TRUNC) as u32;
        let fd = types::Fd(fd.as_raw_fd());
        opcode::RecvMsg::new(fd, &raw mut *self.header).flags(flags).build().user_data(key)
    }

    fn arm(&mut self, ring: &mut IoUring, fd: &OwnedFd, key: u64) {
        let entry = self.entry(fd, key);
        submit(ring, &entry);
        assert_eq!(completed(ring), []);
    }

    /// The descriptors that came with the message.
    fn fds(&self) -> Vec<OwnedFd> {
        let mut fds = Vec::new();
        // SAFETY: the header and what it points to are as recvmsg(2) left them.
        unsafe {
            let mut item = libc::CMSG_FIRSTHDR(&raw const *self.header);
            while let Some(head) = item.as_ref() {
                assert_eq!((head.cmsg_level, head.cmsg_type), (libc::SOL_SOCKET, libc::SCM_RIGHTS));
                let count = (head.cmsg_len - libc::CMSG_LEN(0) as usize) / size_of::<i32>();
                let data = libc::CMSG_DATA(item).cast::<i32>();
                fds.extend(
                    (0..count).map(|at| OwnedFd::from_raw_fd(data.add(at).read_unaligned())),
                );
                item = libc::CMSG_NXTHDR(&raw const *self.header, item);
            }
        }
        fds
    }
}

fn send_entry(fd: &OwnedFd, message: &'static [u8], key: u64) -> squeue::Entry {
    let fd = types::Fd(fd.as_raw_fd());
    opcode::Send::new(fd, message.as_ptr(), message.len() as u32)
        .flags(libc::MSG_NOSIGNAL)
        .build()
        .user_data(key)
}

fn file(content: &str) -> OwnedFd {
    let fd = rustix::fs::memfd_create("fact", rustix::fs::MemfdFlags::CLOEXEC).expect("memfd");
    let mut file = File::from(fd);
    file.write_all(content.as_bytes()).expect("room");
    file.into()
}

fn content(fd: OwnedFd) -> String {
    let mut file = File::from(fd);
    let mut text = String::new();
    file.rewind().expect("a file");
    file.read_to_string(&mut text).expect("text");
    text
}

fn has_hung_up(pipe: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(pipe, PollFlags::empty())];
    poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).expect("poll(2)");
    fds[0].revents().contains(PollFlags::HUP)
}

// ----- cancel -----

fn a_cancelled_receive_leaves_its_message_in_the_queue() {
    let (ours, peer) = socketpair();
    let mut ring = ring(8);
    let mut receive = Receive::new(&[64]);
    receive.arm(&mut ring, &ours, 1);
    submit(&mut ring, &cancel(1));
    let mut results = [next(&mut ring), next(&mut ring)];
    results.sort_unstable();
    assert_eq!(results, [(1, -libc::ECANCELED), (u64::MAX, 0)]);
    // The header is as it was.
    assert_eq!(receive.header.msg_controllen, 512);
    send(&peer, b"after").expect("room");
    assert_eq!(recv(&ours).expect("a message"), b"after");
    // Nor does a cancel that comes too late do harm.
    submit(&mut ring, &cancel(1));
    assert_eq!(next(&mut ring), (u64::MAX, -libc::ENOENT));
}

fn a_cancel_that_races_with_a_message_loses_and_doubles_nothing() {
    const ROUNDS: u64 = 3000;
    let (ours, peer) = socketpair();
    let start = Arc::new(Barrier::new(2));
    let sender = std::thread::spawn({
        let start = start.clone();
        move || {
            for round in 0..ROUNDS {
                start.wait();
                send(&peer, &round.to_ne_bytes()).expect("room");
                start.wait();
            }
            peer
        }
    });
    let mut ring = ring(8);
    let mut receive = Receive::new(&[64]);
    let mut cancelled = 0;
    for round in 0..ROUNDS {
        receive.header.msg_controllen = 512;
        receive.arm(&mut ring, &ours, round);
        start.wait();
        for _ in 0..round % 64 * 8 {
            std::hint::spin_loop();
        }
        submit(&mut ring, &cancel(round));
        let results = [next(&mut ring), next(&mut ring)];
        start.wait();
        let (_, result) = results.into_iter().find(|(key, _)| *key == round).expect("the target's");
        if result == -libc::ECANCELED {
            cancelled += 1;
            assert_eq!(recv(&ours).expect("still queued"), round.to_ne_bytes());
        } else {
            assert_eq!(result, 8);
            assert_eq!(receive.buffers[0][..8], round.to_ne_bytes());
        }
        would_block(recv(&ours));
    }
    drop(sender.join().expect("no panic"));
    assert!((1..ROUNDS).contains(&cancelled), "{cancelled} of {ROUNDS} were cancelled: no race");
}

fn a_cancel_from_another_thread_settles_on_the_one_that_submitted() {
    let (ours, _peer) = socketpair();
    let mut ring = ring(8);
    let mut receive = Receive::new(&[64]);
    receive.arm(&mut ring, &ours, 1);
    std::thread::scope(|scope| {
        let ring = &mut ring;
        scope.spawn(move || submit(ring, &cancel(1))).join().expect("no panic");
    });
    let mut results = [next(&mut ring), next(&mut ring)];
    results.sort_unstable();
    assert_eq!(results, [(1, -libc::ECANCELED), (u64::MAX, 0)]);
}

// ----- order -----

fn parked_sends_are_completed_in_reverse_order() {
    let (ours, peer) = socketpair();
    let mut ring = ring(8);
    fill(&ours);
    for (key, message) in [&b"first"[..], b"second", b"third"].into_iter().enumerate() {
        submit(&mut ring, &send_entry(&ours, message, key as u64));
    }
    assert_eq!(completed(&mut ring), []);
    let mut received = drain(&peer);
    for _ in 0..3 {
        assert!(next(&mut ring).1 > 0);
    }
    received.extend(drain(&peer));
    // Therefore a lane has one send in flight.
    assert_eq!(received, [&b"third"[..], b"second", b"first"]);
}

fn a_new_send_overtakes_a_parked_one() {
    let (ours, peer) = socketpair();
    let mut ring = ring(8);
    fill(&ours);
    submit(&mut ring, &send_entry(&ours, b"parked", 1));
    // Room for one; the parked send is told of room only when there is more.
    assert_eq!(recv(&peer).expect("a filler"), b"filler");
    assert_eq!(completed(&mut ring), []);
    send(&ours, b"new").expect("room for one");
    let mut received = drain(&peer);
    assert_eq!(next(&mut ring), (1, 6));
    received.extend(drain(&peer));
    // Therefore nobody calls the kernel while a send is in flight.
    assert_eq!(received, [&b"new"[..], b"parked"]);
}

// ----- closing -----

fn a_closed_socket_stays_open_until_its_armed_receive_is_cancelled() {
    let (ours, peer) = socketpair();
    let mut ring = ring(8);
    let mut receive = Receive::new(&[64]);
    receive.arm(&mut ring, &ours, 1);
    drop(ours);
    would_block(recv(&peer));
    submit(&mut ring, &cancel(1));
    let mut results = [next(&mut ring), next(&mut ring)];
    results.sort_unstable();
    assert_eq!(results, [(1, -libc::ECANCELED), (u64::MAX, 0)]);
    assert_eq!(recv(&peer).expect("end of stream"), b"");
}

fn an_armed_receive_of_a_closed_socket_swallows_the_next_message() {
    let (ours, peer) = socketpair();
    let duplicate = ours.try_clone().expect("a duplicate");
    let mut ring = ring(8);
    let mut receive = Receive::new(&[64]);
    receive.arm(&mut ring, &ours, 1);
    drop(ours);
    send(&peer, b"lost").expect("open");
    assert_eq!(next(&mut ring), (1, 4));
    would_block(recv(&duplicate));
}

fn a_pipe_registered_with_a_ring_hangs_up_once_its_operations_are_over() {
    let (ours, peer) = socketpair();
    let mut ring = ring(8);
    let mut receive = Receive::new(&[64]);
    receive.arm(&mut ring, &ours, 1);
    drop(ours);
    let (watch, tied) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).expect("a pipe");
    ring.submitter().register_files(&[tied.as_raw_fd()]).expect("a registered file");
    drop(tied);
    assert!(!has_hung_up(&watch));
    drop(ring);
    let start = Instant::now();
    until("the pipe hangs up", || has_hung_up(&watch));
    eprintln!("gone {:?} after it was closed", start.elapsed());
    // The receive is over: the socket that only it had is closed, and its buffer as it was.
    assert_eq!(recv(&peer).expect("end of stream"), b"");
    assert_eq!(receive.buffers[0], [0; 64]);
}

/// A receive that was submitted by a thread which is no more.
fn orphaned(ring: &mut IoUring, receive: &mut Receive, fd: &OwnedFd) {
    let entry = receive.entry(fd, 1);
    std::thread::scope(|scope| {
        scope.spawn(|| submit(ring, &entry)).join().expect("no panic");
    });
}

fn a_message_for_a_thread_that_ended_cancels_the_receive_and_stays() {
    let (ours, peer) = socketpair();
    let mut ring = ring(8);
    let mut receive = Receive::new(&[64]);
    orphaned(&mut ring, &mut receive, &ours);
    send(&peer, b"still there").expect("room");
    // Nobody asked for it; therefore ECANCELED is no answer for a caller, but a reason to try again.
    assert_eq!(next(&mut ring), (1, -libc::ECANCELED));
    assert_eq!(recv(&ours).expect("a message"), b"still there");
}

fn a_cancel_reaches_the_receive_of_a_thread_that_ended() {
    let (ours, peer) = socketpair();
    let mut ring = ring(8);
    let mut receive = Receive::new(&[64]);
    orphaned(&mut ring, &mut receive, &ours);
    drop(ours);
    submit(&mut ring, &cancel(1));
    let mut results = [next(&mut ring), next(&mut ring)];
    results.sort_unstable();
    assert_eq!(results, [(1, -libc::ECANCELED), (u64::MAX, 0)]);
    until("end of stream", || recv(&peer).is_ok_and(|message| message.is_empty()));
}

// ----- telling -----

fn signals(eventfd: &OwnedFd) -> u64 {
    let mut count = [0; 8];
    match rustix::io::read(eventfd, &mut count) {
        Ok(_) => u64::from_ne_bytes(count),
        Err(rustix::io::Errno::AGAIN) => 0,
        Err(error) => panic!("{error}"),
    }
}

fn listened_to(ring: &IoUring) -> OwnedFd {
    let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).expect("an eventfd");
    ring.submitter().register_eventfd(fd.as_raw_fd()).expect("registered");
    fd
}

fn a_silenced_eventfd_tells_nothing_and_a_look_after_listening_finds_it() {
    let (ours, peer) = socketpair();
    let mut ring = ring(8);
    let eventfd = listened_to(&ring);
    let mut receive = Receive::new(&[64]);

    receive.arm(&mut ring, &ours, 1);
    signals(&eventfd);
    ring.completion().disable_eventfd();
    send(&peer, b"silent").expect("room");
    enter(&ring);
    ring.completion().enable_eventfd();
    assert_eq!(signals(&eventfd), 0);
    // Nothing will be told of it: therefore the driver looks before it sleeps.
    assert_eq!(completed(&mut ring), [(1, 6)]);
    assert_eq!(signals(&eventfd), 0);

    receive.arm(&mut ring, &ours, 2);
    signals(&eventfd);
    send(&peer, b"loud").expect("room");
    enter(&ring);
    assert!(signals(&eventfd) > 0);
    assert_eq!(completed(&mut ring), [(2, 4)]);
}

/// Another thread sends, then `look` is called; this thread stays out of the kernel meanwhile.
fn sent_meanwhile<T>(peer: &OwnedFd, look: impl FnOnce() -> T) -> T {
    let (ready, go, sent) =
        (AtomicBool::new(false), AtomicBool::new(false), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            ready.store(true, Ordering::Release);
            while !go.load(Ordering::Acquire) {
                std::hint::spin_loop();
            }
            send(peer, b"meanwhile").expect("room");
            sent.store(true, Ordering::Release);
        });
        while !ready.load(Ordering::Acquire) {
            std::thread::yield_now();
        }
        go.store(true, Ordering::Release);
        while !sent.load(Ordering::Acquire) {
            std::hint::spin_loop();
        }
        look()
    })
}

fn work_put_off_shows_in_the_shared_flags() {
    let (ours, peer) = socketpair();
    let mut ring = ring(8);
    let mut receive = Receive::new(&[64]);
    let (mut seen, begin) = (0, Instant::now());
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    // Both threads can be on one processor for long, if others are busy.
    for key in 0.. {
        let enough = seen > 0 || processors == 1;
        if key >= 50 && (enough || begin.elapsed() > Duration::from_secs(10)) {
            break;
        }
        receive.arm(&mut ring, &ours, key);
        assert!(!ring.submission().taskrun());
        // The work is done already if this thread was interrupted; else the flag is up.
        let (flagged, done) = sent_meanwhile(&peer, || {
            let flagged = ring.submission().taskrun();
            (flagged, !ring.completion().is_empty())
        });
        assert!(flagged || done, "neither flag nor completion");
        seen += u32::from(flagged && !done);
        assert_eq!(completed(&mut ring), [(key, 9)]);
        assert!(!ring.submission().taskrun());
    }
    // Where the other thread has to interrupt this one, the work is done on the way back.
    assert!(seen > 0 || processors == 1, "the flag was never up");
}

fn a_look_after_listening_finds_what_came_meanwhile() {
    let (ours, peer) = socketpair();
    let mut ring = ring(8);
    let eventfd = listened_to(&ring);
    let mut receive = Receive::new(&[64]);
    for key in 0..50 {
        ring.completion().disable_eventfd();
        receive.arm(&mut ring, &ours, key);
        // As the driver does before it sleeps: a look at what is shared, without a system call.
        let found = sent_meanwhile(&peer, || {
            ring.completion().enable_eventfd();
            fence(Ordering::SeqCst);
            !ring.completion().is_empty() || ring.submission().taskrun()
        });
        assert!(found || signals(&eventfd) > 0, "round {key}: a message that nobody is told of");
        assert_eq!(completed(&mut ring), [(key, 9)]);
    }
}

fn completions_that_do_not_fit_are_kept_by_the_kernel() {
    let mut ring = ring(4);
    let room = ring.completion().capacity();
    let halves: Vec<_> = (0..room * 4).map(|_| socketpair()).collect();
    let mut receives: Vec<_> = halves.iter().map(|_| Receive::new(&[16])).collect();
    for (key, (receive, (ours, _))) in receives.iter_mut().zip(&halves).enumerate() {
        receive.arm(&mut ring, ours, key as u64);
    }
    for (_, peer) in &halves {
        send(peer, b"more").expect("room");
    }
    enter(&ring);
    assert!(ring.submission().cq_overflow());
    let mut keys = Vec::new();
    until("all completions", || {
        keys.extend(completed(&mut ring).into_iter().map(|(key, result)| {
            assert_eq!(result, 4);
            key
        }));
        keys.len() >= halves.len()
    });
    keys.sort_unstable();
    assert_eq!(keys, (0..halves.len() as u64).collect::<Vec<_>>());
}

fn several_threads_may_enter_a_plain_ring() {
    let (ours, peer) = socketpair();
    let mut ring = ring(8);
    for key in 0..4 {
        let mut receive = Receive::new(&[64]);
        std::thread::scope(|scope| {
            let (ring, receive, ours) = (&mut ring, &mut receive, &ours);
            scope.spawn(|| {
                receive.arm(ring, ours, key);
                send(&peer, b"here").expect("room");
                assert_eq!(next(ring), (key, 4));
            });
        });
    }
}

// ----- messages -----

fn registered(fd: &OwnedFd, flags: epoll::EventFlags) -> OwnedFd {
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
    epoll::add(&epoll, fd, epoll::EventData::new_u64(0), flags | epoll::EventFlags::ET).unwrap();
    epoll
}

/// What an epoll instance with one descriptor tells just now.
fn told(epoll: &OwnedFd) -> epoll::EventFlags {
    let mut events = Vec::with_capacity(1);
    let room = rustix::buffer::spare_capacity(&mut events);
    epoll::wait(epoll, room, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap();
    events.first().map_or(epoll::EventFlags::empty(), |event| event.flags)
}

/// So a socket can be registered when a call has to wait, and not before.
fn a_registration_tells_at_once_what_is_there_already() {
    let (a, b) = socketpair();
    send(&b, b"message").unwrap();
    let epoll = registered(&a, epoll::EventFlags::IN);
    assert_eq!(told(&epoll), epoll::EventFlags::IN);
    assert_eq!(told(&epoll), epoll::EventFlags::empty());
    send(&b, b"another").unwrap();
    assert_eq!(told(&epoll), epoll::EventFlags::IN);
}

/// So a registration for receiving alone is the cheaper one.
fn what_the_peer_takes_is_an_event_for_who_registered_for_sending_only() {
    let (a, b) = socketpair();
    let (receiving, sending) =
        (registered(&a, epoll::EventFlags::IN), registered(&a, epoll::EventFlags::OUT));
    assert_eq!(told(&sending), epoll::EventFlags::OUT);
    send(&a, b"message").unwrap();
    assert_eq!(recv(&b).unwrap(), b"message");
    assert_eq!(told(&receiving), epoll::EventFlags::empty());
    assert_eq!(told(&sending), epoll::EventFlags::OUT);
}

fn a_number_is_registered_once() {
    let (a, _b) = socketpair();
    let epoll = registered(&a, epoll::EventFlags::IN);
    let add =
        |fd: &OwnedFd| epoll::add(&epoll, fd, epoll::EventData::new_u64(0), epoll::EventFlags::OUT);
    assert_eq!(add(&a), Err(rustix::io::Errno::EXIST));
    add(&a.try_clone().unwrap()).unwrap();
}

fn trunc_gives_the_real_length() {
    let (ours, peer) = socketpair();
    let mut ring = ring(8);
    let mut receive = Receive::new(&[4]);
    receive.arm(&mut ring, &ours, 1);
    send(&peer, b"twelve bytes").expect("room");
    assert_eq!(next(&mut ring), (1, 12));
    assert_eq!(receive.buffers[0], b"twel");
    assert_ne!(receive.header.msg_flags & libc::MSG_TRUNC, 0);
}

fn a_message_fills_one_vector_after_the_other() {
    let (ours, peer) = socketpair();
    let mut ring = ring(8);
    let mut receive = Receive::new(&[4, 3, 64]);
    receive.arm(&mut ring, &ours, 1);
    send(&peer, b"twelve bytes").expect("room");
    assert_eq!(next(&mut ring), (1, 12));
    assert_eq!(receive.buffers[0], b"twel");
    assert_eq!(receive.buffers[1], b"ve ");
    assert_eq!(&receive.buffers[2][..6], b"bytes\0");
    assert_eq!(receive.header.msg_flags & libc::MSG_TRUNC, 0);
}

fn the_header_tells_the_lengths_and_flags() {
    let (ours, peer) = socketpair();
    let mut ring = ring(8);
    let mut receive = Receive::new(&[64]);
    receive.arm(&mut ring, &ours, 1);
    send(&peer, b"plain").expect("room");
    assert_eq!(next(&mut ring), (1, 5));
    assert_eq!(receive.header.msg_controllen, 0);
    assert_eq!(receive.header.msg_flags & (libc::MSG_CTRUNC | libc::MSG_TRUNC), 0);

    let mut receive = Receive::new(&[64]);
    receive.header.msg_controllen = 0;
    receive.arm(&mut ring, &ours, 2);
    send_fds(&peer, b"cut", &[file("cut")]);
    assert_eq!(next(&mut ring), (2, 3));
    assert_ne!(receive.header.msg_flags & libc::MSG_CTRUNC, 0);
}

fn the_header_and_its_vectors_are_copied_when_submitted() {
    let (ours, peer) = socketpair();
    let mut ring = ring(8);
    let mut receive = Receive::new(&[64]);
    receive.arm(&mut ring, &ours, 1);
    // The kernel does not look at these again, only at the buffer.
    receive.vectors[0].iov_len = 1;
    receive.header.msg_iovlen = 0;
    send(&peer, b"whole").expect("room");
    assert_eq!(next(&mut ring), (1, 5));
    assert_eq!(&receive.buffers[0][..6], b"whole\0");
}

fn send_fds(socket: &OwnedFd, message: &[u8], fds: &[OwnedFd]) {
    let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
    let rights = SendAncillaryMessage::ScmRights(&fds);
    let mut room = vec![MaybeUninit::uninit(); rights.size()];
    let mut control = SendAncillaryBuffer::new(&mut room);
    assert!(control.push(rights));
    let vectors = [IoSlice::new(message)];
    rustix::net::sendmsg(socket, &vectors, &mut control, SendFlags::NOSIGNAL).expect("room");
}

fn descriptors_to_pass_are_looked_up_again_at_a_retry() {
    let (ours, peer) = socketpair();
    let mut ring = ring(8);
    let (meant, other) = (file("meant"), file("other"));
    let number = meant.as_raw_fd();

    let mut message = *b"with a file";
    let vector = libc::iovec { iov_base: message.as_mut_ptr().cast(), iov_len: message.len() };
    let mut control = [0_u64; 3];
    // SAFETY: the macros compute within `control`, which has CMSG_SPACE(4) bytes.
    let header = unsafe {
        let mut header: libc::msghdr = std::mem::zeroed();
        header.msg_iov = (&raw const vector).cast_mut();
        header.msg_iovlen = 1;
        header.msg_control = control.as_mut_ptr().cast();
        header.msg_controllen = libc::CMSG_SPACE(4) as usize;
        let item = libc::CMSG_FIRSTHDR(&raw const header);
        (*item).cmsg_level = libc::SOL_SOCKET;
        (*item).cmsg_type = libc::SCM_RIGHTS;
        (*item).cmsg_len = libc::CMSG_LEN(4) as usize;
        libc::CMSG_DATA(item).cast::<i32>().write_unaligned(number);
        header
    };
    fill(&ours);
    let fd = types::Fd(ours.as_raw_fd());
    let entry = opcode::SendMsg::new(fd, &raw const header).flags(libc::MSG_NOSIGNAL as u32);
    submit(&mut ring, &entry.build().user_data(1));
    assert_eq!(completed(&mut ring), []);
    // The number is another file's now.
    // SAFETY: dup2 takes numbers only; both are this test's own.
    assert_eq!(unsafe { libc::dup2(other.as_raw_fd(), number) }, number);

    let mut passed = Vec::new();
    let mut receive_all = || {
        let mut bytes = [0; 64];
        let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut room);
        let mut vectors = [IoSliceMut::new(&mut bytes)];
        while rustix::net::recvmsg(&peer, &mut vectors, &mut control, RecvFlags::DONTWAIT).is_ok() {
            for item in control.drain() {
                if let RecvAncillaryMessage::ScmRights(fds) = item {
                    passed.extend(fds);
                }
            }
        }
    };
    receive_all();
    assert_eq!(next(&mut ring), (1, 11));
    receive_all();
    // Therefore the library passes duplicates of its own.
    assert_eq!(passed.into_iter().map(content).collect::<Vec<_>>(), ["other"]);
}

fn received_descriptors_are_close_on_exec_through_a_ring_too() {
    let (ours, peer) = socketpair();
    let mut ring = ring(8);
    let mut receive = Receive::new(&[64]);
    receive.arm(&mut ring, &ours, 1);
    send_fds(&peer, b"two", &[file("one"), file("another")]);
    assert_eq!(next(&mut ring), (1, 3));
    let fds = receive.fds();
    assert_eq!(fds.len(), 2);
    for fd in &fds {
        let flags = rustix::io::fcntl_getfd(fd).expect("F_GETFD");
        assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
    }
    assert_ne!(receive.header.msg_flags & libc::MSG_CMSG_CLOEXEC, 0);
    let contents: Vec<_> = fds.into_iter().map(content).collect();
    assert_eq!(contents, ["one", "another"]);
    assert!(receive.control[0] > 0);
}

fn a_receive_at_the_end_of_the_stream_completes_with_nothing() {
    let (ours, peer) = socketpair();
    let mut ring = ring(8);
    let mut receive = Receive::new(&[64]);
    receive.arm(&mut ring, &ours, 1);
    drop(peer);
    assert_eq!(next(&mut ring), (1, 0));
}

fn a_reset_comes_before_the_messages_that_are_left() {
    let (ours, peer) = socketpair();
    let mut ring = ring(8);
    let mut receive = Receive::new(&[64]);
    send(&ours, b"never read").expect("room");
    receive.arm(&mut ring, &ours, 1);
    drop(peer);
    assert_eq!(next(&mut ring), (1, -libc::ECONNRESET));
    let entry = receive.entry(&ours, 2);
    submit(&mut ring, &entry);
    assert_eq!(next(&mut ring), (2, 0));
}

fn a_write_to_a_closed_peer_raises_no_signal() {
    let (ours, peer) = socketpair();
    drop(peer);
    // SAFETY: as the process of a program in C has it: the signal ends it.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    let mut ring = ring(8);
    submit(&mut ring, &send_entry(&ours, b"hello?", 1));
    assert_eq!(next(&mut ring), (1, -libc::EPIPE));
}

/// `SLOT_LEN` in src/uring/buffers.rs.
fn the_largest_message_fits_into_an_armed_receive() {
    let (ours, peer) = socketpair();
    rustix::net::sockopt::set_socket_send_buffer_size_force(&peer, 256 << 20).expect("root");
    let message: Vec<u8> = (0..16_u32 << 20).map(|at| (at / 61 % 251) as u8).collect();
    // How long a message may be: more and more, until memory in one piece cannot be had.
    let fits = |len: usize| match send(&peer, &message[..len]) {
        Ok(sent) => {
            assert_eq!(sent, len);
            let mut rest = [0];
            rustix::net::recv(&ours, &mut rest, RecvFlags::DONTWAIT).expect("the message");
            true
        }
        Err(error) => {
            let errno = error.raw_os_error();
            assert!(matches!(errno, Some(libc::ENOBUFS | libc::EMSGSIZE)), "{len}: {error}");
            false
        }
    };
    let (mut longest, mut too_long) = (1 << 10, message.len());
    while too_long - longest > 1 {
        let middle = longest.midpoint(too_long);
        // Such memory may be short at times.
        if (0..3).any(|_| fits(middle)) { longest = middle } else { too_long = middle }
    }
    eprintln!("the largest message has {longest} bytes");
    assert!(longest > 1 << 20, "{longest}");

    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let socket = Options::new().backend(Backend::Uring).socket_from_fd(ours).expect("a socket");
        for room in [message.len(), longest, 1000, 1] {
            let before = submitted();
            let receiving = socket.recv_owned(vec![0; room]);
            let sending = async {
                until_submitted(before + 1).await;
                // The memory for it may be short for a moment.
                while let Err(error) = send(&peer, &message[..longest]) {
                    assert_eq!(error.raw_os_error(), Some(libc::ENOBUFS), "{error}");
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            };
            let both = async { tokio::join!(receiving, sending) };
            let ((received, buffer), ()) =
                tokio::time::timeout(Duration::from_secs(10), both).await.expect("in time");
            let info = received.expect("a message");
            assert_eq!(info.message_len(), longest);
            assert_eq!(info.bytes_read(), longest.min(room));
            assert_eq!(info.truncated(), longest > room);
            assert!(buffer[..info.bytes_read()] == message[..info.bytes_read()], "other bytes");
        }
        // Received for nobody, it is stashed whole.
        let before = submitted();
        {
            let receiving = socket.recv_owned(vec![0; 100]);
            tokio::select! {
                biased;
                (received, _) = receiving => panic!("{received:?}"),
                () = until_submitted(before + 1) => {}
            }
            while send(&peer, &message[..longest]).is_err() {}
        }
        let mut buffer = vec![0; longest];
        let len = socket.recv(&mut buffer).await.expect("the message");
        assert_eq!(len, longest);
        assert!(buffer == message[..longest], "other bytes");
    });
}

async fn until_submitted(total: u64) {
    let start = Instant::now();
    while submitted() < total {
        assert!(start.elapsed() < Duration::from_secs(5), "nothing is submitted");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
