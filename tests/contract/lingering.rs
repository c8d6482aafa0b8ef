//! G8 and G12 where a descriptor takes long to close: a TCP socket under `SO_LINGER` with unsent data, of which this process
//! has the last descriptor. What the library closes must not hold the thread up.

use std::io::{ErrorKind, IoSliceMut, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketAddrV4, SocketType, sockopt};
use rustix::process::{Pid, Resource, Rlimit, WaitOptions, getrlimit, setrlimit, waitpid};
use tokio_seqpacket::ancillary::AncillaryBuffer;
use tokio_seqpacket::{MessagesOptions, Options, SealedMemory, SocketAddr, UnixSeqpacket};
use tokio_test::task;

use crate::harness::call_variants::{self, RecvBy, Room};
use crate::harness::descriptors::{count, file};
use crate::harness::messages::recv;
use crate::harness::peer::{self, Peer};
use crate::harness::waiting::{arm, breathe, soon};
use crate::harness::{Cell, Test, alone};

pub fn tests() -> Vec<Test> {
    // Processes of their own: what is closed aside waits there.
    let mut tests = alone(tasks![
        no_receive_waits_for_a_descriptor_that_lingers,
        no_drop_waits_for_a_descriptor_that_lingers,
        what_a_receive_closes_holds_up_no_other_call,
        what_is_refused_is_closed_without_waiting,
        sockets_that_linger_use_up_no_descriptors,
        sockets_that_linger_use_up_no_threads,
        a_forked_child_closes_what_it_receives,
    ]);
    tests.extend(tasks![
        a_socket_that_takes_no_descriptors_gets_none,
        a_listener_passes_on_whether_descriptors_are_taken,
    ]);
    tests
}

/// For so long does the kernel wait where the last descriptor is closed.
const LINGER: Duration = Duration::from_secs(3);

/// A TCP socket that lingers, and the one that never reads what it has sent.
fn lingering() -> (OwnedFd, OwnedFd) {
    let listener = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    // A small window: what is written stays unsent.
    sockopt::set_socket_recv_buffer_size(&listener, 4096).unwrap();
    rustix::net::bind(&listener, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0)).unwrap();
    rustix::net::listen(&listener, 1).unwrap();
    let address = rustix::net::getsockname(&listener).unwrap();
    let address = SocketAddrV4::try_from(address).unwrap();
    let mut sender = TcpStream::connect(address).unwrap();
    let reader = rustix::net::accept(&listener).unwrap();
    sender.set_nonblocking(true).unwrap();
    while sender.write(&[0; 64 << 10]).is_ok() {}
    sockopt::set_socket_linger(&sender, Some(LINGER)).unwrap();
    (sender.into(), reader)
}

/// Passes one, and keeps none. Returned is what must not be closed meanwhile.
pub fn pass(peer: &Peer, message: &[u8]) -> OwnedFd {
    let (sender, reader) = lingering();
    peer.send_fds(message, &[sender]);
    reader
}

pub fn assert_in_time(what: &str, begin: Instant) {
    let took = begin.elapsed();
    assert!(took < LINGER / 2, "{what} took {took:?}");
}

async fn no_receive_waits_for_a_descriptor_that_lingers(cell: Cell) {
    for keeps in [false, true] {
        let (a, peer) = if keeps { cell.keeping_ancillary().half() } else { cell.half() };
        for way in RecvBy::ALL {
            // Without that, recv(2) discards it before a receive has shown interest in any.
            if !keeps && !way.carries_fds() {
                continue;
            }
            for control in [0, 20] {
                let _reader = pass(&peer, b"message");
                let begin = Instant::now();
                let got = soon(call_variants::recv(way, &a, Room { control, ..Room::AMPLE }))
                    .await
                    .unwrap();
                assert_in_time(&format!("{way:?}, {control} bytes of control data"), begin);
                assert_eq!(got.bytes, b"message");
                for fd in got.fds {
                    // Closed by this test.
                    sockopt::set_socket_linger(&fd, None).unwrap();
                }
            }
        }
    }
}

async fn received(a: &UnixSeqpacket) -> AncillaryBuffer {
    soon(a.recv_owned_with_ancillary(Vec::with_capacity(8), AncillaryBuffer::new())).await.2
}

async fn no_drop_waits_for_a_descriptor_that_lingers(cell: Cell) {
    let (a, peer) = cell.keeping_ancillary().half();
    let pass = || pass(&peer, b"message");
    let mut bytes = [0; 8];

    let _reader = pass();
    let mut ancillary = received(&a).await;
    let begin = Instant::now();
    drop(ancillary.drain_fds());
    assert_in_time("what is not drained", begin);

    let _reader = pass();
    ancillary = received(&a).await;
    let begin = Instant::now();
    ancillary.clear();
    assert_in_time("what is cleared", begin);

    let _reader = pass();
    let mut control = [0; 64];
    let (_, reader) = soon(a.recv_with_ancillary(&mut bytes, &mut control)).await.unwrap();
    let begin = Instant::now();
    drop(reader.into_messages().next());
    assert_in_time("a message of a reader", begin);

    let _reader = pass();
    let begin = Instant::now();
    let mut buffers = [IoSliceMut::new(&mut bytes)];
    soon(a.recv_batch(&mut buffers, &mut Vec::new())).await.unwrap();
    assert_in_time("a batch", begin);

    let _reader = pass();
    let begin = Instant::now();
    let error = soon(a.recv_large(&mut bytes, 8)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidData);
    assert_in_time("a payload that is none", begin);

    let _readers = [pass(), pass(), pass()];
    let mut messages = a.messages(MessagesOptions::new()).unwrap();
    let message = soon(messages.next()).await.unwrap().unwrap();
    let begin = Instant::now();
    drop((message, messages));
    // Of those that the stream has left.
    assert_eq!(recv(&a).await, b"message");
    assert_eq!(recv(&a).await, b"message");
    assert_in_time("messages of a stream", begin);

    let mut receive = task::spawn(call_variants::recv(RecvBy::OwnedAncillary, &a, Room::AMPLE));
    arm(&mut receive).await;
    let _reader = pass();
    breathe().await;
    let begin = Instant::now();
    drop(receive);
    assert_eq!(recv(&a).await, b"message");
    assert_in_time("what a dropped receive has left", begin);

    // In the queue of a socket that is passed.
    let (inner, outer) = peer::socketpair();
    let (sender, _reader) = lingering();
    Peer::from(outer).send_fds(b"", &[sender]);
    peer.send_fds(b"message", &[inner]);
    let begin = Instant::now();
    drop(received(&a).await);
    assert_in_time("a socket with a message in its queue", begin);
}

/// What the caller had in the buffer is the caller's to wait for, and no other's.
async fn what_a_receive_closes_holds_up_no_other_call(cell: Cell) {
    for waits in [true, false] {
        let (a, peer) = cell.half();
        let (sender, reader) = lingering();
        let path = format!("/proc/self/fd/{}", sender.as_raw_fd());
        let name = std::fs::read_link(&path).unwrap();
        peer.send(b"message");
        std::thread::scope(|scope| {
            let a = &a;
            scope.spawn(move || {
                let (bytes, ancillary) =
                    (Vec::with_capacity(8), AncillaryBuffer::from_iter([sender]));
                if waits {
                    let _ = task::spawn(a.recv_owned_with_ancillary(bytes, ancillary)).poll();
                } else {
                    let _ = a.try_recv_owned_with_ancillary(bytes, ancillary);
                }
            });
            while std::fs::read_link(&path).is_ok_and(|now| now == name) {
                std::thread::yield_now();
            }
            let begin = Instant::now();
            let _ = a.try_recv(&mut [0; 8]);
            assert_in_time("a call beside a receive that closes", begin);
            // That ends the lingering.
            drop(reader);
        });
    }
}

async fn what_is_refused_is_closed_without_waiting(cell: Cell) {
    let (sender, _reader) = lingering();
    let begin = Instant::now();
    assert!(cell.options().socket_from_fd(sender).is_err());
    assert_in_time("no Unix socket", begin);

    let (sender, _reader) = lingering();
    let begin = Instant::now();
    assert!(cell.options().listener_from_fd(sender).is_err());
    assert_in_time("no listener", begin);

    let (sender, _reader) = lingering();
    let begin = Instant::now();
    assert!(SealedMemory::try_from(sender).is_err());
    assert_in_time("no memory", begin);
}

/// How many close at a time.
const THREADS: usize = 8;

/// Has as many closed as hold up all threads that close, for as long as they linger. Returned is what must not be closed.
fn hold_up() -> Vec<OwnedFd> {
    let before = count();
    let (senders, readers): (Vec<_>, Vec<_>) = (0..THREADS).map(|_| lingering()).unzip();
    senders.into_iter().for_each(refuse);
    // What is being closed has no number any more.
    while count() > before + THREADS {
        std::thread::yield_now();
    }
    readers
}

fn refuse(fd: OwnedFd) {
    assert!(SealedMemory::try_from(fd).is_err());
}

/// A socket with a message in its queue.
fn full_socket() -> (OwnedFd, OwnedFd) {
    let (socket, peer) = peer::socketpair();
    rustix::io::write(&peer, b"unread").unwrap();
    (socket, peer)
}

async fn sockets_that_linger_use_up_no_descriptors(_: Cell) {
    let begin = Instant::now();
    let _readers = hold_up();
    let limit = getrlimit(Resource::Nofile);
    let few = count() + 60;
    setrlimit(Resource::Nofile, Rlimit { current: Some(few as u64), ..limit }).unwrap();
    for _ in 0..100 {
        refuse(full_socket().0);
        // The threads that are to close them may not have begun.
        while count() > few - 10 {
            assert_in_time("100 sockets behind those that linger", begin);
            std::thread::yield_now();
        }
    }
    setrlimit(Resource::Nofile, limit).unwrap();
}

async fn sockets_that_linger_use_up_no_threads(_: Cell) {
    let _readers = hold_up();
    let limit = getrlimit(Resource::Nofile);
    // A quarter of these may wait.
    setrlimit(Resource::Nofile, Rlimit { current: Some(200), ..limit }).unwrap();
    let (senders, _more_readers): (Vec<_>, Vec<_>) = (0..70).map(|_| lingering()).unzip();
    let begin = Instant::now();
    senders.into_iter().for_each(refuse);
    while closing_threads() > THREADS {
        assert_in_time("closing what is too much for these threads", begin);
        std::thread::yield_now();
    }
    setrlimit(Resource::Nofile, limit).unwrap();
}

fn closing_threads() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    // A thread may end meanwhile.
    let names = tasks.filter_map(|task| std::fs::read(task.ok()?.path().join("comm")).ok());
    names.filter(|name| name.starts_with(b"seqpacket-close")).count()
}

#[allow(unsafe_code, reason = "fork(2)")]
async fn a_forked_child_closes_what_it_receives(_: Cell) {
    let _readers = hold_up();
    let (socket, peer) = full_socket();
    // SAFETY: the other threads of this process wait in the kernel and hold no lock.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let failed = std::panic::catch_unwind(|| refuse(socket)).is_err();
        let mut polled = [PollFd::new(&peer, PollFlags::RDHUP)];
        let patience = Timespec { tv_sec: 10, tv_nsec: 0 };
        let closed = poll(&mut polled, Some(&patience)) == Ok(1);
        // SAFETY: nothing that the parent has set up for its exit runs.
        unsafe { libc::_exit((failed || !closed).into()) };
    }
    drop(socket);
    let child = Pid::from_raw(child).expect("a process");
    let status = waitpid(Some(child), WaitOptions::empty()).unwrap().unwrap().1;
    assert_eq!(status.exit_status(), Some(0), "{status:?}");
}

/// True, or skips out loud.
fn can_refuse(set: std::io::Result<()>) -> bool {
    match set {
        Ok(()) => true,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Unsupported);
            assert!(error.to_string().contains("6.16"), "{error}");
            eprintln!("*** SKIPPED: {error}");
            false
        }
    }
}

async fn assert_takes_none(to: &UnixSeqpacket, from: &UnixSeqpacket) {
    assert!(!to.pass_rights().unwrap());
    let ancillary = AncillaryBuffer::from_iter([file("refused")]);
    let (sent, _, ancillary) = soon(from.send_owned_with_ancillary("refused", ancillary)).await;
    assert_eq!(sent.unwrap_err().raw_os_error(), Some(libc::EPERM));
    assert_eq!(ancillary.fds().len(), 1);
    soon(from.send(b"words")).await.unwrap();
    assert_eq!(recv(to).await, b"words");
}

async fn a_socket_that_takes_no_descriptors_gets_none(cell: Cell) {
    let (a, b) = cell.pair();
    assert!(b.pass_rights().unwrap_or(true));
    if !can_refuse(b.set_pass_rights(false)) {
        return;
    }
    assert_takes_none(&b, &a).await;
    // The other direction, and this one again.
    assert!(a.pass_rights().unwrap());
    b.set_pass_rights(true).unwrap();
    for (from, to) in [(&a, &b), (&b, &a)] {
        let ancillary = AncillaryBuffer::from_iter([file("passed")]);
        soon(from.send_owned_with_ancillary("passed", ancillary)).await.0.unwrap();
        assert_eq!(received(to).await.fds().len(), 1);
    }
    let (c, d) = cell.options().pass_rights(false).pair().unwrap();
    assert_takes_none(&c, &d).await;
    assert_takes_none(&d, &c).await;
    let taken_over = Options::new().pass_rights(true).socket_from_fd(c.into()).unwrap();
    assert!(taken_over.pass_rights().unwrap());
}

async fn a_listener_passes_on_whether_descriptors_are_taken(cell: Cell) {
    let options = cell.options();
    let listener = options.bind_addr(&SocketAddr::unnamed(), 16).unwrap();
    if !can_refuse(listener.set_pass_rights(false)) {
        return;
    }
    let address = listener.local_socket_addr().unwrap();
    let client = options.clone().pass_rights(false).connect_addr(&address).await.unwrap();
    let server = soon(listener.accept()).await.unwrap();
    assert_takes_none(&server, &client).await;
    assert_takes_none(&client, &server).await;

    let listener = options.pass_rights(false).bind_addr(&SocketAddr::unnamed(), 16).unwrap();
    let address = listener.local_socket_addr().unwrap();
    let client = cell.options().connect_addr(&address).await.unwrap();
    // Before it is accepted.
    let ancillary = AncillaryBuffer::from_iter([file("refused")]);
    let (sent, ..) = soon(client.send_owned_with_ancillary("refused", ancillary)).await;
    assert_eq!(sent.unwrap_err().kind(), ErrorKind::PermissionDenied);
    assert_takes_none(&soon(listener.accept()).await.unwrap(), &client).await;
}
