//! What many messages per call, busy polling and sealed memory give.
//!
//! `cargo bench --bench streams` in `benches/`. `-- --quick` makes a smoke run, `-- ROW` selects rows that contain it.
//! All contestants of a row run in one process, in alternating rounds. The ratio is the first contestant's time divided
//! by each one's, round by round. The median is shown.

#![allow(unsafe_code, reason = "sendmmsg(2) and recvmmsg(2) without a library, for comparison")]

use std::io::IoSliceMut;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use tokio::runtime::{Builder, Runtime};
use tokio_seqpacket::{Backend, MessagesOptions, Options, SealedMemory, Selection, UnixSeqpacket};
use tokio_seqpacket_upstream::UnixSeqpacket as Upstream;

const MESSAGE: usize = 64;

/// Makes this many messages or trips, and says how long they took.
type Round = Box<dyn FnMut(usize) -> Duration>;
type Row = (String, usize, Vec<(String, Round)>);

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

fn socketpair() -> (OwnedFd, OwnedFd) {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap()
}

/// Make a socket of a descriptor in the current runtime.
trait Adopt: Sized + Send + 'static {
    fn adopt(fd: OwnedFd, backend: Backend) -> Self;
}

impl Adopt for UnixSeqpacket {
    fn adopt(fd: OwnedFd, backend: Backend) -> Self {
        Options::new().backend(Selection::from(backend)).socket_from_fd(fd).unwrap()
    }
}

impl Adopt for Upstream {
    fn adopt(fd: OwnedFd, _backend: Backend) -> Self {
        Self::try_from(fd).unwrap()
    }
}

/// Run both ends on a thread and runtime of their own. The first returns how long it took.
fn two_threads<A, B>(
    backend: Backend,
    near: impl AsyncFnOnce(A) -> Duration + Send + 'static,
    far: impl AsyncFnOnce(B) + Send + 'static,
) -> Duration
where
    A: Adopt,
    B: Adopt,
{
    let (a, b) = socketpair();
    let (ready, is_ready) = mpsc::channel();
    let far = thread::spawn(move || {
        runtime().block_on(async move {
            let b = B::adopt(b, backend);
            ready.send(()).unwrap();
            far(b).await;
        });
    });
    is_ready.recv().unwrap();
    let took = runtime().block_on(async move {
        let a = A::adopt(a, backend);
        near(a).await
    });
    far.join().unwrap();
    took
}

// ----- one way -----

macro_rules! plain_one_way {
    ($name:expr, $socket:ty, $backend:expr) => {{
        let round: Round = Box::new(move |count| {
            two_threads(
                $backend,
                async move |receiver: $socket| {
                    let begin = Instant::now();
                    let mut buffer = [0; MESSAGE];
                    for _ in 0..count {
                        assert_eq!(receiver.recv(&mut buffer).await.unwrap(), MESSAGE);
                    }
                    begin.elapsed()
                },
                async move |sender: $socket| {
                    for _ in 0..count {
                        sender.send(&[7; MESSAGE]).await.unwrap();
                    }
                },
            )
        });
        ($name, round)
    }};
}

async fn send_batches(sender: &UnixSeqpacket, mut count: usize) {
    let message = [7; MESSAGE];
    let mut batch = sender.batch();
    while count > 0 {
        batch.clear();
        for _ in 0..count.min(32) {
            batch.push(&message);
        }
        count -= batch.send().await.unwrap();
    }
}

fn one_way(name: &str, backend: Backend) -> Vec<(String, Round)> {
    let plain = plain_one_way!(format!("{name}, plain"), UnixSeqpacket, backend);
    let stream: Round = Box::new(move |count| {
        two_threads(
            backend,
            async move |receiver: UnixSeqpacket| {
                let begin = Instant::now();
                let mut messages = receiver.messages(MessagesOptions::new().size(256)).unwrap();
                for _ in 0..count {
                    assert_eq!(messages.next().await.unwrap().unwrap().len(), MESSAGE);
                }
                begin.elapsed()
            },
            async move |sender: UnixSeqpacket| send_batches(&sender, count).await,
        )
    });
    let batch: Round = Box::new(move |count| {
        two_threads(
            backend,
            async move |receiver: UnixSeqpacket| {
                let begin = Instant::now();
                let mut bytes = [[0; MESSAGE]; 32];
                let mut infos = Vec::new();
                let mut left = count;
                while left > 0 {
                    let mut buffers = bytes.each_mut().map(|bytes| IoSliceMut::new(bytes));
                    infos.clear();
                    receiver.recv_batch(&mut buffers, &mut infos).await.unwrap();
                    // The end comes as an empty message.
                    left -= infos.iter().filter(|info| info.bytes_read() > 0).count();
                }
                begin.elapsed()
            },
            async move |sender: UnixSeqpacket| send_batches(&sender, count).await,
        )
    });
    vec![
        plain,
        (format!("{name}, batch to stream"), stream),
        (format!("{name}, batch to batch"), batch),
    ]
}

/// System calls only, with one message each or [`AT_ONCE`].
fn raw_one_way(batches: bool) -> Round {
    Box::new(move |count| {
        let (a, b) = socketpair();
        let sender = thread::spawn(move || {
            let mut left = count;
            while left > 0 {
                let sent = if batches {
                    send_many(&b, left.min(AT_ONCE))
                } else {
                    rustix::net::send(&b, &[7; MESSAGE], SendFlags::NOSIGNAL).ok().map(|_| 1)
                };
                match sent {
                    Some(sent) => left -= sent,
                    None => wait_for(&b, PollFlags::OUT),
                }
            }
        });
        let begin = Instant::now();
        let mut left = count;
        while left > 0 {
            let received = if batches {
                receive_many(&a, left.min(AT_ONCE))
            } else {
                rustix::net::recv(&a, &mut [0; MESSAGE], RecvFlags::DONTWAIT).ok().map(|_| 1)
            };
            match received {
                Some(received) => left -= received,
                None => wait_for(&a, PollFlags::IN),
            }
        }
        let took = begin.elapsed();
        sender.join().unwrap();
        took
    })
}

/// As many as a batch of the library.
const AT_ONCE: usize = 32;

fn wait_for(fd: &OwnedFd, what: PollFlags) {
    poll(&mut [PollFd::new(fd, what)], None).unwrap();
}

/// `None` if the call fails, as it does where it would block.
fn with_headers(count: usize, call: impl FnOnce(*mut libc::mmsghdr) -> i32) -> Option<usize> {
    let mut buffers = [[7; MESSAGE]; AT_ONCE];
    let mut vectors = buffers
        .each_mut()
        .map(|buffer| libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: MESSAGE });
    let mut headers = vectors.each_mut().map(|vector| {
        // SAFETY: all zero is a header without name, control data and flags.
        let mut header: libc::mmsghdr = unsafe { std::mem::zeroed() };
        (header.msg_hdr.msg_iov, header.msg_hdr.msg_iovlen) = (vector, 1);
        header
    });
    assert!(count <= headers.len());
    usize::try_from(call(headers.as_mut_ptr())).ok()
}

fn send_many(fd: &OwnedFd, count: usize) -> Option<usize> {
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    with_headers(count, |headers| {
        // SAFETY: there are `count` headers, and what they point to lives until the call returns.
        unsafe { libc::sendmmsg(fd.as_raw_fd(), headers, count as u32, flags) }
    })
}

fn receive_many(fd: &OwnedFd, count: usize) -> Option<usize> {
    let flags = libc::MSG_DONTWAIT;
    with_headers(count, |headers| {
        // SAFETY: there are `count` headers, and what they point to lives until the call returns. Only this call uses the
        // buffers.
        unsafe {
            libc::recvmmsg(fd.as_raw_fd(), headers, count as u32, flags, std::ptr::null_mut())
        }
    })
}

// ----- echo on one thread -----

/// `pairs` sockets that echo, and a round of trips over all of them.
fn echo<S: Adopt>(
    pairs: usize,
    backend: Backend,
    server: impl AsyncFn(S) + Copy + 'static,
    client: impl AsyncFn(&S, usize) + Copy + 'static,
) -> Round {
    let runtime = runtime();
    let local = tokio::task::LocalSet::new();
    let mut clients = {
        let _guard = runtime.enter();
        let mut clients = Vec::new();
        for _ in 0..pairs {
            let (a, b) = socketpair();
            clients.push(S::adopt(a, backend));
            let b = S::adopt(b, backend);
            local.spawn_local(async move { server(b).await });
        }
        clients
    };
    Box::new(move |count| {
        let each = (count / pairs).max(1);
        let begin = Instant::now();
        let back = local.block_on(&runtime, async {
            let tasks: Vec<_> = clients
                .drain(..)
                .map(|socket| {
                    tokio::task::spawn_local(async move {
                        client(&socket, each).await;
                        socket
                    })
                })
                .collect();
            let mut back = Vec::new();
            for task in tasks {
                back.push(task.await.unwrap());
            }
            back
        });
        clients = back;
        begin.elapsed() * count as u32 / (each * pairs) as u32
    })
}

macro_rules! plain_echo {
    ($socket:ty, $pairs:expr, $backend:expr, $len:expr) => {
        echo::<$socket>(
            $pairs,
            $backend,
            async |socket| {
                let mut buffer = vec![0; $len];
                while let Ok(len @ 1..) = socket.recv(&mut buffer).await {
                    socket.send(&buffer[..len]).await.unwrap();
                }
            },
            async |socket, trips| {
                let mut buffer = vec![7; $len];
                for _ in 0..trips {
                    socket.send(&buffer).await.unwrap();
                    assert_eq!(socket.recv(&mut buffer).await.unwrap(), $len);
                }
            },
        )
    };
}

fn stream_echo(pairs: usize, backend: Backend) -> Round {
    let options = MessagesOptions::new().buffers(8).size(256);
    echo::<UnixSeqpacket>(
        pairs,
        backend,
        async move |socket| {
            let mut messages = socket.messages(options).unwrap();
            while let Some(Ok(message)) = messages.next().await {
                socket.send(&message).await.unwrap();
            }
        },
        async move |socket, trips| {
            let mut messages = socket.messages(options).unwrap();
            for _ in 0..trips {
                socket.send(&[7; MESSAGE]).await.unwrap();
                assert_eq!(messages.next().await.unwrap().unwrap().len(), MESSAGE);
            }
        },
    )
}

/// Messages that a client has on the way at a time.
const IN_FLIGHT: usize = 16;

macro_rules! plain_in_flight {
    ($socket:ty, $pairs:expr, $backend:expr) => {
        echo::<$socket>(
            $pairs,
            $backend,
            async |socket| {
                let mut buffer = [0; MESSAGE];
                while let Ok(len @ 1..) = socket.recv(&mut buffer).await {
                    socket.send(&buffer[..len]).await.unwrap();
                }
            },
            async |socket, trips| {
                let mut buffer = [7; MESSAGE];
                for _ in 0..trips.div_ceil(IN_FLIGHT) {
                    for _ in 0..IN_FLIGHT {
                        socket.send(&buffer).await.unwrap();
                    }
                    for _ in 0..IN_FLIGHT {
                        assert_eq!(socket.recv(&mut buffer).await.unwrap(), MESSAGE);
                    }
                }
            },
        )
    };
}

fn stream_in_flight(pairs: usize, backend: Backend) -> Round {
    let options = MessagesOptions::new().buffers(2 * IN_FLIGHT).size(256);
    echo::<UnixSeqpacket>(
        pairs,
        backend,
        async move |socket| {
            let mut messages = socket.messages(options).unwrap();
            let mut received = Vec::new();
            while let Ok(1..) = messages.next_batch(&mut received).await {
                let mut batch = socket.batch();
                received.iter().for_each(|message| batch.push(message));
                batch.send().await.unwrap();
                drop(batch);
                received.clear();
            }
        },
        async move |socket, trips| {
            let mut messages = socket.messages(options).unwrap();
            let mut received = Vec::new();
            for _ in 0..trips.div_ceil(IN_FLIGHT) {
                let mut batch = socket.batch();
                for _ in 0..IN_FLIGHT {
                    batch.push(&[7; MESSAGE]);
                }
                batch.send().await.unwrap();
                while received.len() < IN_FLIGHT {
                    messages.next_batch(&mut received).await.unwrap();
                }
                received.clear();
            }
        },
    )
}

fn owned_echo<const LEN: usize>(backend: Backend) -> Round {
    async fn back(socket: &UnixSeqpacket, buffer: Vec<u8>) -> Option<Vec<u8>> {
        let (received, buffer) = socket.recv_owned(buffer).await;
        (received.ok()?.bytes_read() > 0).then_some(buffer)
    }
    echo::<UnixSeqpacket>(
        1,
        backend,
        async |socket| {
            let mut buffer = Vec::with_capacity(LEN);
            while let Some(received) = back(&socket, buffer).await {
                let (sent, returned) = socket.send_owned(received).await;
                sent.unwrap();
                buffer = returned;
            }
        },
        async |socket, trips| {
            let mut buffer = vec![7; LEN];
            for _ in 0..trips {
                let (sent, returned) = socket.send_owned(buffer).await;
                sent.unwrap();
                buffer = back(socket, returned).await.expect("an answer");
            }
        },
    )
}

// ----- ping-pong on two threads -----

/// Trips before those that are measured.
const WARM_UP: usize = 1000;

macro_rules! ping_pong {
    ($socket:ty, $backend:expr, $busy:expr) => {{
        let round: Round = Box::new(move |count| {
            two_threads(
                $backend,
                async move |socket: $socket| {
                    tokio_seqpacket::busy_poll($busy).unwrap();
                    let mut buffer = [7; MESSAGE];
                    let mut begin = Instant::now();
                    for trip in 0..count + WARM_UP {
                        // Two threads that are new share a core at first.
                        if trip == WARM_UP {
                            begin = Instant::now();
                        }
                        socket.send(&buffer).await.unwrap();
                        assert_eq!(socket.recv(&mut buffer).await.unwrap(), MESSAGE);
                    }
                    begin.elapsed()
                },
                async move |socket: $socket| {
                    tokio_seqpacket::busy_poll($busy).unwrap();
                    let mut buffer = [0; MESSAGE];
                    for _ in 0..count + WARM_UP {
                        assert_eq!(socket.recv(&mut buffer).await.unwrap(), MESSAGE);
                        socket.send(&buffer).await.unwrap();
                    }
                },
            )
        });
        round
    }};
}

fn spin_recv(fd: &OwnedFd, buffer: &mut [u8]) -> usize {
    loop {
        match rustix::net::recv(fd, &mut *buffer, RecvFlags::DONTWAIT) {
            Ok((_, len)) => return len,
            Err(rustix::io::Errno::AGAIN) => std::hint::spin_loop(),
            Err(error) => panic!("recv on {}: {error}", fd.as_raw_fd()),
        }
    }
}

fn raw_spinning() -> Round {
    Box::new(|count| {
        let (a, b) = socketpair();
        let echo = thread::spawn(move || {
            let mut buffer = [0; MESSAGE];
            for _ in 0..count + WARM_UP {
                assert_eq!(spin_recv(&b, &mut buffer), MESSAGE);
                rustix::net::send(&b, &buffer, SendFlags::NOSIGNAL).unwrap();
            }
        });
        let mut buffer = [7; MESSAGE];
        let mut begin = Instant::now();
        for trip in 0..count + WARM_UP {
            if trip == WARM_UP {
                begin = Instant::now();
            }
            rustix::net::send(&a, &buffer, SendFlags::NOSIGNAL).unwrap();
            assert_eq!(spin_recv(&a, &mut buffer), MESSAGE);
        }
        let took = begin.elapsed();
        echo.join().unwrap();
        took
    })
}

// ----- payloads of 1 MiB -----

const PAYLOAD: usize = 1 << 20;
const CHUNK: usize = 64 << 10;

fn chunked(backend: Backend) -> Round {
    let payload = vec![7; PAYLOAD];
    let runtime = runtime();
    Box::new(move |count| {
        runtime.block_on(async {
            let (a, b) = socketpair();
            let (a, b) = (UnixSeqpacket::adopt(a, backend), UnixSeqpacket::adopt(b, backend));
            let mut received = vec![0; PAYLOAD];
            let begin = Instant::now();
            for _ in 0..count {
                let sending = async {
                    for chunk in payload.chunks(CHUNK) {
                        a.send(chunk).await.unwrap();
                    }
                };
                let receiving = async {
                    for chunk in received.chunks_mut(CHUNK) {
                        assert_eq!(b.recv(chunk).await.unwrap(), CHUNK);
                    }
                };
                tokio::join!(sending, receiving);
                std::hint::black_box(sum(&received));
            }
            begin.elapsed()
        })
    })
}

fn sealed(backend: Backend, anew: bool) -> Round {
    let payload = vec![7; PAYLOAD];
    let runtime = runtime();
    Box::new(move |count| {
        runtime.block_on(async {
            let (a, b) = socketpair();
            let (a, b) = (UnixSeqpacket::adopt(a, backend), UnixSeqpacket::adopt(b, backend));
            let mut memory = SealedMemory::new(&payload).unwrap();
            let begin = Instant::now();
            for _ in 0..count {
                if anew {
                    memory = SealedMemory::new(&payload).unwrap();
                }
                a.send_large(b"payload", &memory).await.unwrap();
                let (_, received) = b.recv_large(&mut [0; 16], PAYLOAD).await.unwrap();
                std::hint::black_box(sum(&received.unwrap().map().unwrap()));
            }
            begin.elapsed()
        })
    })
}

/// The receiver reads the whole payload.
fn sum(bytes: &[u8]) -> u64 {
    bytes.as_chunks::<8>().0.iter().fold(0, |sum, word| sum ^ u64::from_ne_bytes(*word))
}

// ----- the table -----

fn rows(has_ring: bool) -> Vec<Row> {
    let mut both = vec![("epoll", Backend::Epoll)];
    if has_ring {
        both.push(("io_uring", Backend::Uring));
    } else {
        println!("io_uring: skipped");
    }
    let upstream = |round| ("tokio-seqpacket 0.8.2".to_owned(), round);
    let mut rows = Vec::new();

    let (name, round) =
        plain_one_way!("tokio-seqpacket 0.8.2".to_owned(), Upstream, Backend::Epoll);
    let mut contestants = vec![(name, round)];
    for &(name, backend) in &both {
        contestants.extend(one_way(name, backend));
    }
    contestants.push(("raw send, recv".to_owned(), raw_one_way(false)));
    contestants.push(("raw sendmmsg, recvmmsg".to_owned(), raw_one_way(true)));
    rows.push(("one way, two threads, 64 bytes".to_owned(), 200_000, contestants));

    for pairs in [1, 16, 128] {
        let mut contestants = vec![upstream(plain_echo!(Upstream, pairs, Backend::Epoll, MESSAGE))];
        for &(name, backend) in &both {
            let plain = plain_echo!(UnixSeqpacket, pairs, backend, MESSAGE);
            contestants.push((format!("{name}, plain"), plain));
            contestants.push((format!("{name}, stream"), stream_echo(pairs, backend)));
        }
        rows.push((format!("echo, current_thread, {pairs} pairs"), 20_000, contestants));
    }
    for pairs in [1, 128] {
        let mut contestants = vec![upstream(plain_in_flight!(Upstream, pairs, Backend::Epoll))];
        for &(name, backend) in &both {
            let plain = plain_in_flight!(UnixSeqpacket, pairs, backend);
            contestants.push((format!("{name}, plain"), plain));
            contestants
                .push((format!("{name}, stream and batches"), stream_in_flight(pairs, backend)));
        }
        let name = format!("echo, current_thread, {pairs} pairs, {IN_FLIGHT} in flight each");
        rows.push((name, 40_960, contestants));
    }

    let mut contestants = vec![upstream(ping_pong!(Upstream, Backend::Epoll, Duration::ZERO))];
    for &(name, backend) in &both {
        let parked = ping_pong!(UnixSeqpacket, backend, Duration::ZERO);
        contestants.push((format!("{name}, parked"), parked));
        let busy = ping_pong!(UnixSeqpacket, backend, Duration::from_micros(200));
        contestants.push((format!("{name}, busy"), busy));
    }
    contestants.push(("raw calls, spinning".to_owned(), raw_spinning()));
    rows.push(("ping-pong, two threads".to_owned(), 10_000, contestants));

    macro_rules! sizes {
        ($($len:literal)*) => {$({
            let mut contestants = vec![upstream(plain_echo!(Upstream, 1, Backend::Epoll, $len))];
            for &(name, backend) in &both {
                let plain = plain_echo!(UnixSeqpacket, 1, backend, $len);
                contestants.push((format!("{name}, borrowed"), plain));
                contestants.push((format!("{name}, owned"), owned_echo::<$len>(backend)));
            }
            let trips = (64 << 20) / $len;
            rows.push((format!("echo of {} KiB", $len >> 10), trips.min(5_000), contestants));
        })*};
    }
    sizes!(4096 16384 65536 131072);

    let mut contestants = Vec::new();
    for &(name, backend) in &both {
        contestants.push((format!("{name}, in chunks of 64 KiB"), chunked(backend)));
        contestants.push((format!("{name}, copied into sealed memory"), sealed(backend, true)));
        contestants.push((format!("{name}, the same memory again"), sealed(backend, false)));
    }
    rows.push(("payloads of 1 MiB".to_owned(), 100, contestants));
    rows
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    let mut quick = false;
    let mut filter = None;
    for argument in std::env::args().skip(1) {
        match argument.as_str() {
            "--bench" => {}
            "--quick" => quick = true,
            other => filter = Some(other.to_owned()),
        }
    }
    let support = tokio_seqpacket::probe();
    println!("{support}");
    let has_ring =
        runtime().block_on(async { Options::new().backend(Selection::Uring).pair() }).is_ok();
    for (name, count, mut contestants) in rows(has_ring) {
        if filter.as_ref().is_some_and(|filter| !name.contains(filter)) {
            continue;
        }
        let (rounds, count) = if quick { (2, count / 50 + 1) } else { (11, count) };
        let mut nanos = vec![Vec::new(); contestants.len()];
        for round in 0..=rounds {
            for at in 0..contestants.len() {
                let at = (at + round) % contestants.len();
                let took = contestants[at].1(count);
                // The first round warms up.
                if round > 0 {
                    nanos[at].push(took.as_nanos() as f64 / count as f64);
                }
            }
        }
        println!("{name} (ns each, ratio to the first)");
        for ((contestant, _), mine) in contestants.iter().zip(&nanos) {
            let ratios = nanos[0].iter().zip(mine).map(|(first, mine)| first / mine).collect();
            let (nanos, ratio) = (median(mine.clone()), median(ratios));
            println!("  {contestant:36} {nanos:11.0} ns   {ratio:6.2}");
        }
    }
}
