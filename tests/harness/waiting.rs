//! What tests are made of: waiting, hand-polled futures, full queues, traceable files.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::panic::Location;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::unix::pipe;
use tokio_seqpacket::UnixSeqpacket;
use tokio_test::task::Spawn;

use super::Cell;

const SOON: Duration =
    Duration::from_secs(if option_env!("TESTS_ARE_SLOW").is_some() { 60 } else { 5 });

/// It did not come soon.
#[derive(Debug)]
pub struct Late;

/// What has to come soon. A timeout polls the future once more when the time is over: what is ready
/// only then was not woken, and is late.
pub async fn in_time<F: Future>(future: F) -> Result<F::Output, Late> {
    let begin = Instant::now();
    let output = tokio::time::timeout(SOON, future).await.map_err(|_| Late)?;
    if begin.elapsed() < SOON { Ok(output) } else { Err(Late) }
}

/// Wait for what has to come soon; if it does not, the failure says which line waited.
#[track_caller]
pub fn soon<F: Future>(future: F) -> impl Future<Output = F::Output> {
    let line = Location::caller();
    async move {
        match in_time(future).await {
            Ok(output) => output,
            Err(Late) => panic!("still waiting after {SOON:?} at {line}"),
        }
    }
}

/// Poll a hand-polled future once; it must not be done.
#[track_caller]
pub fn starts_waiting<F: Future>(task: &mut Spawn<F>) {
    assert!(task.poll().is_pending(), "done at once");
}

/// Have a hand-polled future wait in earnest: polled until it no longer asks for that by itself, then
/// submitted, where there is a ring.
#[track_caller]
pub fn arm<F: Future>(task: &mut Spawn<F>) -> impl Future<Output = ()> {
    arm_all(std::slice::from_mut(task))
}

#[track_caller]
pub fn arm_all<F: Future>(tasks: &mut [Spawn<F>]) -> impl Future<Output = ()> {
    tasks.iter_mut().for_each(starts_waiting);
    soon(async move {
        loop {
            breathe().await;
            let mut woken = tasks.iter_mut().filter(|task| task.is_woken()).peekable();
            if woken.peek().is_none() {
                return;
            }
            woken.for_each(starts_waiting);
        }
    })
}

/// Call a `poll_*` method once, for nobody to be woken.
pub fn once<T>(poll: impl FnOnce(&mut Context<'_>) -> Poll<T>) -> Poll<T> {
    poll(&mut Context::from_waker(Waker::noop()))
}

/// Let the runtime do what it has put off (a ring: submit, cancel, reap). There is nothing to wait
/// for where nothing has to happen.
pub async fn breathe() {
    for _ in 0..3 {
        tokio::task::yield_now().await;
    }
    tokio::time::sleep(Duration::from_millis(1)).await;
}

/// Wait until a hand-polled future has been woken, without polling it.
#[track_caller]
pub fn until_woken<F: Future>(task: &mut Spawn<F>) -> impl Future<Output = ()> {
    soon(async move {
        while !task.is_woken() {
            tokio::task::yield_now().await;
        }
    })
}

/// Poll all futures until all are done.
pub async fn all<F: Future + Unpin>(futures: Vec<F>) -> Vec<F::Output> {
    let mut done = all_as_completed(futures).await;
    done.sort_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, output)| output).collect()
}

/// Poll all futures, which wait in this order, until all are done. Their outputs in the order of service: that in which
/// they wait on one thread, else that in which they complete, since a driver on another thread can have a message between
/// two of these polls.
pub async fn all_served<F: Future + Unpin>(cell: Cell, futures: Vec<F>) -> Vec<F::Output> {
    if cell.flavor.is_single_threaded() {
        return all(futures).await;
    }
    all_as_completed(futures).await.into_iter().map(|(_, output)| output).collect()
}

async fn all_as_completed<F: Future + Unpin>(futures: Vec<F>) -> Vec<(usize, F::Output)> {
    let mut futures: Vec<_> = futures.into_iter().enumerate().collect();
    let mut done = Vec::new();
    std::future::poll_fn(|cx| {
        futures.retain_mut(|(index, future)| match std::pin::Pin::new(future).poll(cx) {
            Poll::Ready(output) => {
                done.push((*index, output));
                false
            }
            Poll::Pending => true,
        });
        if futures.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    done
}

pub const FILLER: &[u8] = b"filler";

/// Send until the peer's queue is full; returns the number of messages.
pub fn fill(socket: &UnixSeqpacket) -> usize {
    let mut count = 0;
    loop {
        match socket.try_send(FILLER) {
            Ok(_) => count += 1,
            Err(error) => {
                assert_eq!(error.kind(), io::ErrorKind::WouldBlock, "{error}");
                assert!(count > 10, "a queue of {count} messages");
                return count;
            }
        }
    }
}

/// Receive a message whole.
pub async fn recv(socket: &UnixSeqpacket) -> Vec<u8> {
    let mut buffer = [0; 4096];
    let len = soon(socket.recv(&mut buffer)).await.expect("a message");
    buffer[..len].to_vec()
}

/// Receive messages up to and with `last`, without the [`FILLER`]s.
pub async fn recv_up_to(socket: &UnixSeqpacket, last: &[u8]) -> Vec<Vec<u8>> {
    let mut messages = Vec::new();
    loop {
        let message = recv(socket).await;
        assert_ne!(message, b"", "end of stream before {}", last.escape_ascii());
        let done = message == last;
        if message != FILLER {
            messages.push(message);
        }
        if done {
            return messages;
        }
    }
}

/// Nothing is left for this socket to receive: what is sent now comes next.
#[track_caller]
pub fn nothing_is_left<'a>(
    socket: &'a UnixSeqpacket,
    peer: &'a super::peer::Peer,
) -> impl Future<Output = ()> + 'a {
    let line = Location::caller();
    async move {
        peer.send(b"the end");
        let message = recv(socket).await;
        assert_eq!(message, b"the end", "another message first, at {line}");
    }
}

pub fn escaped(messages: &[Vec<u8>]) -> Vec<String> {
    messages.iter().map(|message| message.escape_ascii().to_string()).collect()
}

/// A file with this content that exists nowhere else.
pub fn file(content: &str) -> OwnedFd {
    let mut file = File::from(
        rustix::fs::memfd_create("contract", rustix::fs::MemfdFlags::CLOEXEC).expect("memfd"),
    );
    file.write_all(content.as_bytes()).expect("room");
    file.into()
}

/// The content of a file.
pub fn content(fd: &OwnedFd) -> String {
    let mut file = File::from(fd.try_clone().expect("a duplicate"));
    let mut text = String::new();
    file.rewind().expect("a file");
    file.read_to_string(&mut text).expect("text");
    text
}

pub fn is_close_on_exec(fd: impl AsFd) -> bool {
    rustix::io::fcntl_getfd(fd).expect("F_GETFD").contains(rustix::io::FdFlags::CLOEXEC)
}

pub fn is_nonblocking(fd: impl AsFd) -> bool {
    rustix::fs::fcntl_getfl(fd).expect("F_GETFL").contains(rustix::fs::OFlags::NONBLOCK)
}

/// Tells when all duplicates of a descriptor are closed, wherever they are: in this process, in a
/// socket's queue, in a ring.
pub struct Trace(pipe::Receiver);

/// A descriptor to be passed around, and its trace.
pub fn traced() -> (Trace, OwnedFd) {
    let (read, write) = rustix::pipe::pipe_with(
        rustix::pipe::PipeFlags::CLOEXEC | rustix::pipe::PipeFlags::NONBLOCK,
    )
    .expect("a pipe");
    (Trace(pipe::Receiver::from_owned_fd(read).expect("a pipe")), write)
}

impl Trace {
    pub fn is_open(&self) -> bool {
        match self.0.try_read(&mut [0]) {
            Ok(0) => false,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => true,
            other => panic!("an unexpected answer: {other:?}"),
        }
    }

    /// Wait until the last duplicate is closed.
    #[track_caller]
    pub fn closed(&self) -> impl Future<Output = ()> {
        soon(async {
            while self.is_open() {
                self.0.readable().await.expect("a pipe");
            }
        })
    }
}

/// Descriptors up to the limit, which is lowered so that there are few. For tests in a process of their own.
pub struct Full {
    filler: Vec<File>,
    before: Rlimit,
}

impl Full {
    pub fn new() -> Self {
        let before = getrlimit(Resource::Nofile);
        let highest = std::fs::read_dir("/proc/self/fd")
            .unwrap()
            .map(|entry| entry.unwrap().file_name().to_str().unwrap().parse::<u64>().unwrap())
            .max()
            .unwrap();
        let low = Rlimit { current: Some(highest + 5), maximum: before.maximum };
        setrlimit(Resource::Nofile, low).unwrap();
        let mut filler = Vec::new();
        while let Ok(file) = File::open("/dev/null") {
            filler.push(file);
        }
        Self { filler, before }
    }

    pub fn free(&mut self, count: usize) {
        for _ in 0..count {
            self.filler.pop().unwrap();
        }
    }
}

impl Drop for Full {
    fn drop(&mut self) {
        setrlimit(Resource::Nofile, self.before).unwrap();
    }
}

/// Numbers that look random and are the same every time.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}
