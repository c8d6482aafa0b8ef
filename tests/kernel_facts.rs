//! What the library takes for granted about the kernel, shown without it: a ring, a socket, and plain system
//! calls.
//!
//! G6, G7, G8 and G11 rest on these. A failure here says that the kernel has changed, and which of the library's rules to check.

#![allow(unsafe_code, reason = "a ring in the raw")]

#[path = "harness/mod.rs"]
#[macro_use]
mod harness;

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::process::ExitCode;
use std::task::{Context, Waker};
use std::time::Duration;

use harness::descriptors::{content, file, is_close_on_exec, submitted};
use harness::syscalls::{recv, send, socketpair, would_block};
use harness::{AtOnce, Need};
use io_uring::{IoUring, cqueue, opcode, squeue, types};
use rustix::event::{PollFd, PollFlags, Timespec, epoll, poll};
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use tokio_seqpacket::{Backend, Options, Submission};

fn main() -> ExitCode {
    let mut tests = tests![[Need::Uring];
        what_must_not_wait_completes_within_the_call_that_submits_it,
        a_receive_behind_a_send_in_the_same_batch_finds_its_message,
        a_failing_entry_does_not_end_the_batch,
        what_a_batch_receives_is_no_event_any_more,
        parked_sends_are_completed_in_an_order_of_the_kernels_choice,
        a_new_send_overtakes_a_parked_one,
        a_closed_socket_stays_open_until_its_armed_receive_is_cancelled,
        an_armed_receive_of_a_closed_socket_swallows_the_next_message,
        a_watched_socket_stays_open_when_it_is_closed,
        trunc_gives_the_real_length,
        a_message_fills_one_vector_after_the_other,
        the_header_reports_the_lengths_and_flags,
        received_descriptors_are_close_on_exec_through_a_ring_too,
        a_receive_at_the_end_of_the_stream_completes_with_nothing,
        a_reset_comes_before_the_messages_that_are_left,
        several_threads_may_enter_a_plain_ring,
        a_ring_can_be_closed_by_another_thread_between_two_batches,
        a_write_to_a_closed_peer_raises_no_signal,
    ];
    tests.extend(tests![[];
        a_registration_reports_at_once_what_is_there_already,
        what_the_peer_takes_is_an_event_for_a_registration_for_sending_only,
        a_message_that_was_received_is_no_event_any_more,
        a_socket_that_is_writable_takes_a_message,
        a_number_is_registered_once,
        inaccessible_memory_that_is_opened_later_is_not_locked,
        a_datagram_socket_finds_out_whether_a_socket_is_bound_to_a_file,
    ]);
    tests.extend(tests![[Need::Uring, Need::Root];
        the_largest_message_fits_into_an_attempt,
    ]);
    harness::main(AtOnce::One, tests)
}

// ----- tools -----

/// As the library makes it.
fn ring(entries: u32) -> IoUring {
    IoUring::builder().setup_submit_all().build(entries).expect("a ring")
}

fn submit(ring: &mut IoUring, entry: &squeue::Entry) {
    // SAFETY: every test keeps what its entries point to until it has their completions, or for ever.
    unsafe { ring.submission().push(entry) }.expect("capacity in the queue");
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
    let parts = |entry: cqueue::Entry| (entry.user_data(), entry.result());
    ring.completion().map(parts).collect()
}

/// Have deferred work done.
fn enter(ring: &IoUring) {
    const GETEVENTS: u32 = 1;
    // SAFETY: no argument is passed.
    let entered = unsafe { ring.submitter().enter::<libc::sigset_t>(0, 0, GETEVENTS, None) };
    entered.expect("io_uring_enter");
}

/// Runs a batch by one call that asks for no completion and does no deferred work; what has completed by then.
fn run(ring: &mut IoUring, entries: &[squeue::Entry]) -> Vec<(u64, i32)> {
    for entry in entries {
        // SAFETY: as for `submit`.
        unsafe { ring.submission().push(entry) }.expect("capacity in the queue");
    }
    // SAFETY: no argument is passed.
    let entered =
        unsafe { ring.submitter().enter::<libc::sigset_t>(entries.len() as u32, 0, 0, None) };
    assert_eq!(entered.expect("io_uring_enter"), entries.len());
    ring.completion().map(|entry| (entry.user_data(), entry.result())).collect()
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
    _vectors: Vec<libc::iovec>,
    buffers: Vec<Vec<u8>>,
    control: Vec<u64>,
}

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
        Self { header, _vectors: vectors, buffers, control }
    }

    fn entry(&mut self, fd: &OwnedFd, key: u64, flags: i32) -> squeue::Entry {
        let flags = (libc::MSG_CMSG_CLOEXEC | libc::MSG_TRUNC | flags) as u32;
        let fd = types::Fd(fd.as_raw_fd());
        opcode::RecvMsg::new(fd, &raw mut *self.header).flags(flags).build().user_data(key)
    }

    /// As the library receives: now or not at all.
    fn attempt(&mut self, ring: &mut IoUring, fd: &OwnedFd) -> i32 {
        let entry = self.entry(fd, 1, libc::MSG_DONTWAIT);
        match run(ring, &[entry])[..] {
            [(1, result)] => result,
            ref other => panic!("{other:?}"),
        }
    }

    /// As it does not.
    fn arm(&mut self, ring: &mut IoUring, fd: &OwnedFd, key: u64) {
        let entry = self.entry(fd, key, 0);
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

/// A RECV, as the library makes it.
fn recv_entry(fd: &OwnedFd, buffer: &mut [u8], key: u64) -> squeue::Entry {
    let fd = types::Fd(fd.as_raw_fd());
    let flags = libc::MSG_DONTWAIT | libc::MSG_TRUNC | libc::MSG_CMSG_CLOEXEC;
    let recv = opcode::Recv::new(fd, buffer.as_mut_ptr(), buffer.len() as u32);
    recv.flags(flags).build().user_data(key)
}

/// A SEND, as the library makes it.
fn send_now(fd: &OwnedFd, message: &'static [u8], key: u64) -> squeue::Entry {
    let fd = types::Fd(fd.as_raw_fd());
    opcode::Send::new(fd, message.as_ptr(), message.len() as u32)
        .flags(libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT)
        .build()
        .user_data(key)
}

/// Threads of this process in which the kernel runs operations that it does not run inline.
fn kernel_workers() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").expect("/proc");
    let names =
        tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
    names.filter(|name| name.starts_with("iou-")).count()
}

// ----- batches -----

/// So nothing of an operation is in the kernel between two batches: nothing is cancelled, or lent for longer.
fn what_must_not_wait_completes_within_the_call_that_submits_it() {
    const SOCKETS: usize = 16;
    // What the peer has done, and what each operation answers then.
    for full in [false, true] {
        for (queued, received) in [(0, -libc::EAGAIN), (1, 7), (5, 7)] {
            let halves: Vec<_> = (0..SOCKETS).map(|_| socketpair()).collect();
            let mut ring = ring(64);
            for (ours, peer) in &halves {
                (0..queued).for_each(|_| assert_eq!(send(peer, b"message").expect("capacity"), 7));
                if full {
                    fill(ours);
                }
            }
            let sent = if full { -libc::EAGAIN } else { 5 };
            let mut receives: Vec<_> = (0..SOCKETS).map(|_| Receive::new(&[64])).collect();
            let mut buffers = vec![[0; 64]; SOCKETS];
            let vector = libc::iovec { iov_base: b"hello".as_ptr().cast_mut().cast(), iov_len: 5 };
            // SAFETY: a C struct of integers and pointers.
            let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
            (header.msg_iov, header.msg_iovlen) = ((&raw const vector).cast_mut(), 1);
            let mut entries = Vec::new();
            for (key, (ours, _)) in halves.iter().enumerate() {
                let entry = if key % 2 == 0 {
                    send_now(ours, b"hello", key as u64)
                } else {
                    let flags = (libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT) as u32;
                    let fd = types::Fd(ours.as_raw_fd());
                    let send = opcode::SendMsg::new(fd, &raw const header).flags(flags);
                    send.build().user_data(key as u64)
                };
                entries.push(entry);
            }
            for (key, (ours, _)) in halves.iter().enumerate() {
                let (receive, buffer) = (&mut receives[key], &mut buffers[key]);
                let key = (SOCKETS + key) as u64;
                entries.push(if key.is_multiple_of(2) {
                    recv_entry(ours, buffer, key)
                } else {
                    receive.entry(ours, key, libc::MSG_DONTWAIT)
                });
            }
            let results = run(&mut ring, &entries);
            // In order, too.
            let expected: Vec<_> = (0..2 * SOCKETS)
                .map(|key| (key as u64, if key < SOCKETS { sent } else { received }))
                .collect();
            assert_eq!(results, expected);
            assert_eq!(kernel_workers(), 0);
            // Nothing is armed: what comes later stays in the queue, and the socket closes at once.
            for (ours, peer) in halves {
                (1..queued).for_each(|_| assert_eq!(recv(&ours).expect("a message"), b"message"));
                send(&peer, b"later").expect("capacity");
                assert_eq!(recv(&ours).expect("a message"), b"later");
                drop(ours);
                drain(&peer);
                assert_eq!(recv(&peer).expect("end of stream"), b"");
            }
            assert_eq!(completed(&mut ring), []);
        }
    }
}

/// So sends come before receives in a batch.
fn a_receive_behind_a_send_in_the_same_batch_finds_its_message() {
    let halves: Vec<_> = (0..16).map(|_| socketpair()).collect();
    let mut ring = ring(64);
    let mut buffers = vec![[0; 64]; halves.len()];
    let sends = halves.iter().map(|(ours, _)| send_now(ours, b"hello", 0));
    let receives =
        halves.iter().zip(&mut buffers).map(|((_, peer), buffer)| recv_entry(peer, buffer, 1));
    let (sends, receives): (Vec<_>, Vec<_>) = (sends.collect(), receives.collect());
    let batch = |first: &[squeue::Entry], second: &[squeue::Entry]| [first, second].concat();
    let results = run(&mut ring, &batch(&sends, &receives));
    assert!(results.iter().all(|(_, result)| *result == 5), "{results:?}");
    // The other way round it finds nothing, and takes the message with the next batch.
    let results = run(&mut ring, &batch(&receives, &sends));
    assert!(results[..16].iter().all(|(_, result)| *result == -libc::EAGAIN), "{results:?}");
    let results = run(&mut ring, &receives);
    assert!(results.iter().all(|(_, result)| *result == 5), "{results:?}");
    assert!(buffers.iter().all(|buffer| buffer.starts_with(b"hello")));
}

fn a_failing_entry_does_not_end_the_batch() {
    let (ours, peer) = socketpair();
    let (closed, its_peer) = socketpair();
    drop(its_peer);
    let file = file("no socket");
    let mut ring = ring(8);
    let mut buffer = [0; 64];
    let mut too_many = Receive::new(&[64]);
    // EMSGSIZE, while the entry is prepared.
    too_many.header.msg_iovlen = 5000;
    let entries = [
        send_now(&closed, b"hello", 0),
        send_now(&file, b"hello", 1),
        opcode::Recv::new(types::Fd(-1), std::ptr::null_mut(), 0).build().user_data(2),
        too_many.entry(&ours, 3, libc::MSG_DONTWAIT),
        send_now(&ours, b"hello", 4),
        recv_entry(&peer, &mut buffer, 5),
    ];
    let results = run(&mut ring, &entries);
    let errors = [-libc::EPIPE, -libc::ENOTSOCK, -libc::EBADF, -libc::EMSGSIZE, 5, 5];
    assert_eq!(results, (0..6).zip(errors).collect::<Vec<_>>());
}

/// A ring is a file of the process, and not the thread's.
fn a_ring_can_be_closed_by_another_thread_between_two_batches() {
    let (ours, peer) = socketpair();
    let mut ring = ring(8);
    let mut buffer = [0; 64];
    let results = run(&mut ring, &[recv_entry(&ours, &mut buffer, 1)]);
    assert_eq!(results, [(1, -libc::EAGAIN)]);
    std::thread::spawn(move || drop(ring)).join().expect("no panic");
    send(&peer, b"message").expect("capacity");
    assert_eq!(recv(&ours).expect("a message"), b"message");
    drop(ours);
    assert_eq!(recv(&peer).expect("end of stream"), b"");
    assert_eq!(buffer, [0; 64]);
}

// ----- why nothing waits in the ring -----

/// Last in, first out on Linux 6.18; first in, first out on 6.1.
fn parked_sends_are_completed_in_an_order_of_the_kernels_choice() {
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
    let sent = [&b"first"[..], b"second", b"third"];
    let is_reversed = received.iter().rev().eq(&sent);
    eprintln!("{}", if is_reversed { "last in, first out" } else { "first in, first out" });
    assert!(is_reversed || received == sent, "{received:?}");
}

fn a_new_send_overtakes_a_parked_one() {
    let (ours, peer) = socketpair();
    let mut ring = ring(8);
    fill(&ours);
    submit(&mut ring, &send_entry(&ours, b"parked", 1));
    // Capacity for one. The kernel wakes the parked send only when there is more.
    assert_eq!(recv(&peer).expect("a filler"), b"filler");
    assert_eq!(completed(&mut ring), []);
    send(&ours, b"new").expect("capacity for one");
    let mut received = drain(&peer);
    assert_eq!(next(&mut ring), (1, 6));
    received.extend(drain(&peer));
    assert_eq!(received, [&b"new"[..], b"parked"]);
}

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

fn a_watched_socket_stays_open_when_it_is_closed() {
    let (ours, peer) = socketpair();
    let mut ring = ring(8);
    let watch = opcode::PollAdd::new(types::Fd(ours.as_raw_fd()), libc::POLLIN as u32);
    submit(&mut ring, &watch.build().user_data(1));
    drop(ours);
    would_block(recv(&peer));
    submit(&mut ring, &cancel(1));
    let mut results = [next(&mut ring), next(&mut ring)];
    results.sort_unstable();
    assert_eq!(results, [(1, -libc::ECANCELED), (u64::MAX, 0)]);
    assert_eq!(recv(&peer).expect("end of stream"), b"");
}

fn several_threads_may_enter_a_plain_ring() {
    let (ours, peer) = socketpair();
    let mut ring = ring(8);
    for _ in 0..4 {
        std::thread::scope(|scope| {
            let (ring, ours, peer) = (&mut ring, &ours, &peer);
            scope.spawn(move || {
                let mut receive = Receive::new(&[64]);
                assert_eq!(receive.attempt(ring, ours), -libc::EAGAIN);
                send(peer, b"here").expect("capacity");
                assert_eq!(receive.attempt(ring, ours), 4);
            });
        });
    }
}

// ----- readiness -----

fn registered(fd: &OwnedFd, flags: epoll::EventFlags) -> OwnedFd {
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
    epoll::add(&epoll, fd, epoll::EventData::new_u64(0), flags | epoll::EventFlags::ET).unwrap();
    epoll
}

/// What an epoll instance with one descriptor reports now.
fn reported(epoll: &OwnedFd) -> epoll::EventFlags {
    let mut events = Vec::with_capacity(1);
    let space = rustix::buffer::spare_capacity(&mut events);
    epoll::wait(epoll, space, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap();
    events.first().map_or(epoll::EventFlags::empty(), |event| event.flags)
}

/// So a socket can be registered when a call has to wait, and not before.
fn a_registration_reports_at_once_what_is_there_already() {
    let (a, b) = socketpair();
    send(&b, b"message").unwrap();
    let epoll = registered(&a, epoll::EventFlags::IN);
    assert_eq!(reported(&epoll), epoll::EventFlags::IN);
    assert_eq!(reported(&epoll), epoll::EventFlags::empty());
    send(&b, b"another").unwrap();
    assert_eq!(reported(&epoll), epoll::EventFlags::IN);
}

/// So a registration for receiving alone is the cheaper one.
fn what_the_peer_takes_is_an_event_for_a_registration_for_sending_only() {
    let (a, b) = socketpair();
    let (receiving, sending) =
        (registered(&a, epoll::EventFlags::IN), registered(&a, epoll::EventFlags::OUT));
    assert_eq!(reported(&sending), epoll::EventFlags::OUT);
    send(&a, b"message").unwrap();
    assert_eq!(recv(&b).unwrap(), b"message");
    assert_eq!(reported(&receiving), epoll::EventFlags::empty());
    assert_eq!(reported(&sending), epoll::EventFlags::OUT);
}

fn a_number_is_registered_once() {
    let (a, _b) = socketpair();
    let epoll = registered(&a, epoll::EventFlags::IN);
    let add =
        |fd: &OwnedFd| epoll::add(&epoll, fd, epoll::EventData::new_u64(0), epoll::EventFlags::OUT);
    assert_eq!(add(&a), Err(rustix::io::Errno::EXIST));
    add(&a.try_clone().unwrap()).unwrap();
}

/// So a message that an attempt takes costs no wake-up.
fn a_message_that_was_received_is_no_event_any_more() {
    let (a, b) = socketpair();
    let epoll = registered(&a, epoll::EventFlags::IN);
    assert_eq!(reported(&epoll), epoll::EventFlags::empty());
    send(&b, b"message").unwrap();
    assert_eq!(recv(&a).unwrap(), b"message");
    assert_eq!(reported(&epoll), epoll::EventFlags::empty());
    send(&b, b"another").unwrap();
    assert_eq!(reported(&epoll), epoll::EventFlags::IN);
}

fn what_a_batch_receives_is_no_event_any_more() {
    let (a, b) = socketpair();
    let epoll = registered(&a, epoll::EventFlags::IN);
    let mut ring = ring(8);
    let mut buffer = [0; 64];
    let batch = [send_now(&b, b"message", 1), recv_entry(&a, &mut buffer, 2)];
    assert_eq!(run(&mut ring, &batch), [(1, 7), (2, 7)]);
    assert_eq!(reported(&epoll), epoll::EventFlags::empty());
    assert_eq!(run(&mut ring, &batch[..1]), [(1, 7)]);
    assert_eq!(reported(&epoll), epoll::EventFlags::IN);
}

/// So a send that waits for readiness does not spin. The other way round does not hold: a send can succeed before.
fn a_socket_that_is_writable_takes_a_message() {
    let writable = |fd: &OwnedFd| {
        let mut fds = [PollFd::new(fd, PollFlags::OUT)];
        poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).expect("poll(2)");
        fds[0].revents().contains(PollFlags::OUT)
    };
    for message in [&[7][..], &[7; 100], &[7; 4000], &[7; 40_000]] {
        let (ours, peer) = socketpair();
        assert!(writable(&ours));
        let mut queued = 0;
        while send(&ours, message).is_ok() {
            queued += 1;
        }
        let mut became_writable = 0;
        while queued > 0 {
            recv(&peer).expect("a message");
            queued -= 1;
            if writable(&ours) {
                assert_eq!(send(&ours, message).expect("capacity"), message.len());
                queued += 1;
                became_writable += 1;
                recv(&peer).expect("a message");
                queued -= 1;
            }
        }
        assert!(became_writable > 0);
    }
}

/// So slots for receives cost a program that locks all memory no more than others.
fn inaccessible_memory_that_is_opened_later_is_not_locked() {
    const LEN: usize = 4 << 20;
    let resident = || {
        let text = std::fs::read_to_string("/proc/self/statm").expect("/proc");
        let pages = text.split(' ').nth(1).expect("a field").parse::<usize>().expect("a number");
        pages * rustix::param::page_size()
    };
    let map = |protection| {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a new mapping at an address of the kernel's choice touches no other.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), LEN, protection, flags, -1, 0) };
        assert_ne!(start, libc::MAP_FAILED, "{}", std::io::Error::last_os_error());
        start
    };
    let open = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: mlockall takes flags only.
    assert_eq!(unsafe { libc::mlockall(libc::MCL_FUTURE) }, 0);
    let before = resident();
    map(open);
    assert!(resident() >= before + LEN * 3 / 4, "nothing is locked");

    let before = resident();
    let start = map(libc::PROT_NONE);
    // SAFETY: the range is the mapping's.
    unsafe {
        assert_eq!(libc::munlock(start, LEN), 0);
        assert_eq!(libc::mprotect(start, LEN, open), 0);
        start.cast::<u8>().write(1);
    }
    assert!(resident() < before + LEN / 4, "{} more are resident", resident() - before);
    // Without the unlocking it would be.
    let start = map(libc::PROT_NONE);
    // SAFETY: the range is the mapping's.
    assert_eq!(unsafe { libc::mprotect(start, LEN, open) }, 0);
    assert!(resident() >= before + LEN * 3 / 4, "opened, and not populated");
}

// ----- messages -----

fn trunc_gives_the_real_length() {
    let (ours, peer) = socketpair();
    let mut ring = ring(8);
    let mut receive = Receive::new(&[4]);
    send(&peer, b"twelve bytes").expect("capacity");
    assert_eq!(receive.attempt(&mut ring, &ours), 12);
    assert_eq!(receive.buffers[0], b"twel");
    assert_ne!(receive.header.msg_flags & libc::MSG_TRUNC, 0);
    let mut buffer = [0; 8];
    send(&peer, b"twelve bytes").expect("capacity");
    assert_eq!(run(&mut ring, &[recv_entry(&ours, &mut buffer[..4], 2)]), [(2, 12)]);
    assert_eq!(&buffer, b"twel\0\0\0\0");
}

fn a_message_fills_one_vector_after_the_other() {
    let (ours, peer) = socketpair();
    let mut ring = ring(8);
    let mut receive = Receive::new(&[4, 3, 64]);
    send(&peer, b"twelve bytes").expect("capacity");
    assert_eq!(receive.attempt(&mut ring, &ours), 12);
    assert_eq!(receive.buffers[0], b"twel");
    assert_eq!(receive.buffers[1], b"ve ");
    assert_eq!(&receive.buffers[2][..6], b"bytes\0");
    assert_eq!(receive.header.msg_flags & libc::MSG_TRUNC, 0);
}

fn the_header_reports_the_lengths_and_flags() {
    let (ours, peer) = socketpair();
    let mut ring = ring(8);
    let mut receive = Receive::new(&[64]);
    send(&peer, b"plain").expect("capacity");
    assert_eq!(receive.attempt(&mut ring, &ours), 5);
    assert_eq!(receive.header.msg_controllen, 0);
    assert_eq!(receive.header.msg_flags & (libc::MSG_CTRUNC | libc::MSG_TRUNC), 0);

    let mut receive = Receive::new(&[64]);
    receive.header.msg_controllen = 0;
    send_fds(&peer, b"one", &[file("one")]);
    assert_eq!(receive.attempt(&mut ring, &ours), 3);
    assert_ne!(receive.header.msg_flags & libc::MSG_CTRUNC, 0);
}

fn send_fds(socket: &OwnedFd, message: &[u8], fds: &[OwnedFd]) {
    let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
    let rights = SendAncillaryMessage::ScmRights(&fds);
    let mut space = vec![MaybeUninit::uninit(); rights.size()];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(control.push(rights));
    let vectors = [IoSlice::new(message)];
    rustix::net::sendmsg(socket, &vectors, &mut control, SendFlags::NOSIGNAL).expect("capacity");
}

fn received_descriptors_are_close_on_exec_through_a_ring_too() {
    let (ours, peer) = socketpair();
    let mut ring = ring(8);
    let mut receive = Receive::new(&[64]);
    send_fds(&peer, b"two", &[file("one"), file("another")]);
    assert_eq!(receive.attempt(&mut ring, &ours), 3);
    let fds = receive.fds();
    assert_eq!(fds.len(), 2);
    assert!(fds.iter().all(is_close_on_exec));
    assert_ne!(receive.header.msg_flags & libc::MSG_CMSG_CLOEXEC, 0);
    let contents: Vec<_> = fds.iter().map(content).collect();
    assert_eq!(contents, ["one", "another"]);
    assert!(receive.control[0] > 0);
}

fn a_receive_at_the_end_of_the_stream_completes_with_nothing() {
    let (ours, peer) = socketpair();
    let mut ring = ring(8);
    let mut receive = Receive::new(&[64]);
    drop(peer);
    assert_eq!(receive.attempt(&mut ring, &ours), 0);
}

fn a_reset_comes_before_the_messages_that_are_left() {
    let (ours, peer) = socketpair();
    let mut ring = ring(8);
    let mut receive = Receive::new(&[64]);
    send(&ours, b"never read").expect("capacity");
    send(&peer, b"last words").expect("capacity");
    drop(peer);
    assert_eq!(receive.attempt(&mut ring, &ours), -libc::ECONNRESET);
    assert_eq!(receive.attempt(&mut ring, &ours), 10);
    assert_eq!(receive.attempt(&mut ring, &ours), 0);
}

fn a_write_to_a_closed_peer_raises_no_signal() {
    let (ours, peer) = socketpair();
    drop(peer);
    // SAFETY: as the process of a program in C has it: the signal ends it.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    let mut ring = ring(8);
    assert_eq!(run(&mut ring, &[send_now(&ours, b"hello?", 1)]), [(1, -libc::EPIPE)]);
}

/// `SLOT_LEN` in src/uring/recv_slots.rs.
fn the_largest_message_fits_into_an_attempt() {
    let emptied = || {
        let (ours, peer) = socketpair();
        rustix::net::sockopt::set_socket_send_buffer_size_force(&peer, 256 << 20).expect("root");
        (ours, peer)
    };
    let (ours, peer) = emptied();
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
        // A socket calls directly once it has carried a large message: a new one each time.
        for (capacity, is_dropped) in
            [(message.len(), false), (longest, false), (1000, false), (1, false), (longest, true)]
        {
            let (ours, peer) = emptied();
            let options = Options::new().backend(Backend::Uring).submission(Submission::Ring);
            let socket = options.socket_from_fd(ours).expect("a socket");
            let before = submitted();
            // The memory for it may be short for a moment.
            while let Err(error) = send(&peer, &message[..longest]) {
                assert_eq!(error.raw_os_error(), Some(libc::ENOBUFS), "{error}");
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            if is_dropped {
                // Received for no one, it is kept whole.
                let mut small = [0; 100];
                let mut receiving = Box::pin(socket.recv(&mut small));
                let mut cx = Context::from_waker(Waker::noop());
                assert!(receiving.as_mut().poll(&mut cx).is_pending());
                tokio::time::sleep(Duration::from_millis(10)).await;
                assert_eq!(submitted(), before + 1);
                drop(receiving);
                would_block(recv(&socket));
            }
            let receiving = socket.recv_owned(vec![0; capacity]);
            let (received, buffer) =
                tokio::time::timeout(Duration::from_secs(10), receiving).await.expect("in time");
            assert_eq!(submitted(), before + 1);
            let info = received.expect("a message");
            assert_eq!(info.message_len(), longest);
            assert_eq!(info.bytes_read(), longest.min(capacity));
            assert_eq!(info.truncated(), longest > capacity);
            assert!(buffer[..info.bytes_read()] == message[..info.bytes_read()], "other bytes");
        }
    });
}

/// Unlike a socket of the same type, which is refused before listen(2) as well. `replace_stale` does that.
fn a_datagram_socket_finds_out_whether_a_socket_is_bound_to_a_file() {
    use rustix::io::Errno;
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, bind, connect, listen, socket};
    let new = |kind| socket(AddressFamily::UNIX, kind, None).expect("a socket");
    for kind in [SocketType::SEQPACKET, SocketType::STREAM, SocketType::DGRAM] {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("socket");
        let address = SocketAddrUnix::new(&path).expect("a short path");
        let ask = || connect(new(SocketType::DGRAM), &address);
        assert_eq!(ask(), Err(Errno::NOENT));
        let bound = new(kind);
        bind(&bound, &address).expect("a free path");
        if kind == SocketType::DGRAM {
            assert_eq!(ask(), Ok(()));
            connect(&bound, &address).expect("with itself");
            assert_eq!(ask(), Err(Errno::PERM));
        } else {
            assert_eq!(ask(), Err(Errno::PROTOTYPE));
            listen(&bound, 0).expect("bound");
            assert_eq!(ask(), Err(Errno::PROTOTYPE));
        }
        drop(bound);
        assert_eq!(ask(), Err(Errno::CONNREFUSED));
        std::fs::remove_file(&path).expect("its file");
        std::fs::write(&path, "no socket").expect("a file");
        assert_eq!(ask(), Err(Errno::CONNREFUSED));
    }
}
