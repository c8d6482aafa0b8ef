//! The kernel refuses rings, or refuses them later.

#![allow(unsafe_code, reason = "seccomp(2), setresuid(2)")]

use std::io::{BufRead, BufReader};
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, setrlimit};
use tokio::runtime::Runtime;
use tokio_seqpacket::{
    Backend, Options, Submission, Unavailable, UnixSeqpacket, UringSupport, probe,
};

use crate::harness::descriptors::{rings, submitted};
use crate::harness::messages::echoes;
use crate::harness::need::SYSCTL;
use crate::harness::syscalls::{is_at_end, recv, send, socketpair, would_block};
use crate::harness::waiting::soon;
use crate::harness::{Need, Test};
use crate::{current_thread, half, multi_thread, pair, parked};

pub fn tests() -> Vec<Test> {
    let mut tests = tests![[Need::Uring];
        a_filter_before_the_first_ring_means_epoll,
        a_filter_that_hides_the_system_calls_means_epoll,
        a_denial_of_any_call_means_epoll_and_is_named,
        a_filter_of_register_alone_leaves_io_uring,
        a_filter_after_the_first_ring_leaves_sockets_working_and_means_epoll,
        a_filter_of_enter_after_the_first_ring_leaves_sockets_working,
        a_filter_after_the_first_ring_leaves_sockets_working_on_all_workers,
        what_is_queued_when_the_ring_breaks_is_called_directly,
        a_socket_dropped_when_the_ring_breaks_is_closed,
    ];
    tests.extend(tests![[Need::Uring, Need::Strace];
        a_denial_of_any_call_is_not_asked_about_for_every_socket,
    ]);
    tests.extend(tests![[Need::Uring, Need::Root];
        the_smallest_usual_memory_lock_gives_a_working_ring,
        no_memory_lock_means_epoll_where_rings_are_counted,
        a_memory_lock_for_a_small_ring_gives_that,
        the_usual_memory_lock_gives_64_workers_rings,
    ]);
    tests.extend(tests![[Need::Uring, Need::Root, Need::Sysctl];
        a_sysctl_of_2_means_epoll_for_all,
        a_sysctl_of_1_means_epoll_for_the_unprivileged,
        a_sysctl_of_1_leaves_the_privileged_their_rings,
        a_sysctl_set_later_leaves_rings_alone,
    ]);
    tests
}

/// Automatic mode has fallen back, in words that contain `why`; asking for io_uring is an error that
/// says so too. With rings that can be had, but later.
fn means_epoll(runtime: &Runtime, why: &str) {
    runtime.block_on(async {
        let (a, b) = Options::new().pair().expect("a pair on whatever there is");
        assert_eq!((a.backend(), b.backend()), (Backend::Epoll, Backend::Epoll));
        echoes(&a, &b, 10).await;
        let error = Options::new().backend(Backend::Uring).pair().unwrap_err();
        assert!(error.to_string().contains(why), "{error}");
    });
}

fn is_unavailable(expected: &Unavailable, why: &str) {
    let support = probe();
    assert_eq!(support, UringSupport::Unavailable(expected.clone()));
    assert!(support.to_string().contains(why), "{support}");
}

// ----- seccomp -----

pub const RING: [i64; 3] =
    [libc::SYS_io_uring_setup, libc::SYS_io_uring_enter, libc::SYS_io_uring_register];

/// From now on these system calls fail with `errno`, on every thread of this process.
pub fn forbid(calls: &[i64], errno: i32) {
    let filter = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
    let answer = |value| filter(libc::BPF_RET | libc::BPF_K, 0, 0, value);
    // The number of the call is the first word of seccomp_data.
    let mut program = vec![filter(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0)];
    for call in calls {
        program.push(filter(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, *call as u32));
        program.push(answer(libc::SECCOMP_RET_ERRNO | errno as u32));
    }
    program.push(answer(libc::SECCOMP_RET_ALLOW));
    let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: PR_SET_NO_NEW_PRIVS takes numbers only.
    assert_eq!(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }, 0);
    // SAFETY: the program outlives the call, which copies it.
    let installed = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_TSYNC,
            &raw const program,
        )
    };
    assert_eq!(installed, 0, "seccomp: {}", std::io::Error::last_os_error());
}

fn a_filter_before_the_first_ring_means_epoll() {
    forbid(&RING, libc::EPERM);
    is_unavailable(&Unavailable::Denied, "seccomp");
    means_epoll(&current_thread(), "seccomp");
    means_epoll(&multi_thread(2), "seccomp");
}

fn a_filter_that_hides_the_system_calls_means_epoll() {
    forbid(&RING, libc::ENOSYS);
    is_unavailable(&Unavailable::Missing, "io_uring");
    means_epoll(&current_thread(), "io_uring");
}

/// What a filter can do to the calls of a ring, and what the error message contains. The process asks once.
const DENIALS: [(i64, &str, i32); 9] = [
    (libc::SYS_io_uring_setup, "io_uring_setup", libc::EPERM),
    (libc::SYS_io_uring_setup, "io_uring_setup", libc::EACCES),
    (libc::SYS_io_uring_setup, "io_uring_setup", libc::ENOSYS),
    (libc::SYS_io_uring_setup, "io_uring_setup", libc::EINVAL),
    (libc::SYS_io_uring_enter, "io_uring_enter", libc::EPERM),
    (libc::SYS_io_uring_enter, "io_uring_enter", libc::EACCES),
    (libc::SYS_io_uring_enter, "io_uring_enter", libc::ENOSYS),
    (libc::SYS_io_uring_enter, "io_uring_enter", libc::EINVAL),
    // It succeeds and does nothing.
    (libc::SYS_io_uring_enter, "io_uring_enter", 0),
];
/// What can pass: the process asks again, but not for every socket.
const SHORTAGES: [(i64, &str, i32); 4] = [
    (libc::SYS_io_uring_enter, "io_uring_enter", libc::EBADF),
    (libc::SYS_io_uring_enter, "io_uring_enter", libc::ENOMEM),
    (libc::SYS_io_uring_setup, "RLIMIT_NOFILE", libc::EMFILE),
    (libc::SYS_io_uring_setup, "RLIMIT_MEMLOCK", libc::ENOMEM),
];

/// This binary again, in the same test, for one thing out of many: a filter is never taken away again.
fn once_more(what: &str, prefix: &[&str]) -> std::process::Output {
    let this = std::env::current_exe().expect("this binary");
    let mut command = match prefix {
        [] => Command::new(this),
        [program, arguments @ ..] => {
            let mut command = Command::new(program);
            command.args(arguments).arg(this);
            command
        }
    };
    let output = command.env(ONCE_MORE, what).output().expect("a process");
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{what}: {}\n{words}", output.status);
    output
}

const ONCE_MORE: &str = "SEQPACKET_ONCE_MORE";

fn once_more_for() -> Option<String> {
    std::env::var(ONCE_MORE).ok()
}

fn a_denial_of_any_call_means_epoll_and_is_named() {
    let all = || DENIALS.into_iter().chain(SHORTAGES);
    let Some(at) = once_more_for() else {
        return (0..all().count()).for_each(|at| drop(once_more(&at.to_string(), &[])));
    };
    let (call, name, errno) = all().nth(at.parse().expect("a number")).expect("a denial");
    forbid(&[call], errno);
    let words = probe().to_string();
    assert!(matches!(probe(), UringSupport::Unavailable(_)), "{words}");
    let named = |words: &str| {
        words.contains(name) && (name != "io_uring_enter" || !words.contains("io_uring_setup:"))
    };
    assert!(named(&words), "{errno}: {words}");
    for runtime in [current_thread(), multi_thread(2)] {
        means_epoll(&runtime, name);
        runtime.block_on(async {
            let error = Options::new().backend(Backend::Uring).pair().unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::Unsupported);
            assert!(named(&error.to_string()), "{errno}: {error}");
        });
    }
}

/// No call of a ring needs it.
fn a_filter_of_register_alone_leaves_io_uring() {
    if once_more_for().is_none() {
        return ["EPERM", "EINVAL"].iter().for_each(|errno| drop(once_more(errno, &[])));
    }
    let errno =
        if once_more_for().as_deref() == Some("EPERM") { libc::EPERM } else { libc::EINVAL };
    forbid(&[libc::SYS_io_uring_register], errno);
    assert!(matches!(probe(), UringSupport::Available { .. }), "{}", probe());
    means_uring(&current_thread());
    let before = submitted();
    current_thread().block_on(async {
        let (a, b) = pair();
        echoes(&a, &b, 10).await;
        assert!(submitted() >= before + 40, "{} operations", submitted() - before);
    });
}

/// Seen from outside, by strace.
fn a_denial_of_any_call_is_not_asked_about_for_every_socket() {
    const SOCKETS: usize = 50;
    if let Some(what) = once_more_for() {
        let (backend, at) = what.split_once(' ').expect("two words");
        let mut all = DENIALS.into_iter().chain(SHORTAGES);
        let (call, _, errno) = all.nth(at.parse().expect("a number")).expect("a denial");
        forbid(&[call], errno);
        return current_thread().block_on(async {
            let begin = Instant::now();
            for _ in 0..SOCKETS {
                match backend {
                    "uring" => drop(Options::new().backend(Backend::Uring).pair().unwrap_err()),
                    _ => {
                        let (a, _b) = Options::new().pair().expect("a pair");
                        assert_eq!(a.backend(), Backend::Epoll);
                    }
                }
            }
            println!("{}", begin.elapsed().as_millis());
        });
    }
    let directory = tempfile::tempdir().expect("a directory");
    let log = directory.path().join("log");
    let strace = ["strace", "-f", "-qq", "-e", "signal=none", "-e"];
    for (at, (_, name, errno)) in DENIALS.into_iter().chain(SHORTAGES).enumerate() {
        let lasts = at < DENIALS.len();
        for backend in ["auto", "uring"] {
            // An explicit choice is refused with today's reason, if that can change.
            if backend == "uring" && !lasts {
                continue;
            }
            let rest = ["trace=io_uring_setup", "-o", log.to_str().expect("a name")];
            let output = once_more(&format!("{backend} {at}"), &[&strace[..], &rest].concat());
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            let took: usize = text.trim().parse().expect("a number");
            let asked = std::fs::read_to_string(&log).expect("a log").lines().count();
            let most = if lasts { 1 } else { 1 + took / 100 };
            assert!((1..=most).contains(&asked), "{name} {errno}, {backend}: {asked} in {took} ms");
        }
    }
}

/// Everything that a filter may come upon: receives that are parked, sends that wait for capacity, pairs in
/// mid-traffic. All of it goes on without the ring, nothing is lost, nothing comes twice.
fn goes_on<F>(runtime: &Runtime, forbidden: &[i64], receive: impl Fn(UnixSeqpacket) -> F)
where
    F: Future<Output = Vec<u8>> + Send + 'static,
{
    runtime.block_on(async {
        let before = submitted();
        let mut receives = Vec::new();
        for _ in 0..16 {
            let (socket, peer) = half();
            let duplicate = socket.as_fd().try_clone_to_owned().expect("a duplicate");
            receives.push((tokio::spawn(receive(socket)), peer, duplicate));
        }
        let mut sends = Vec::new();
        for _ in 0..16 {
            let (socket, peer) = half();
            sends.push((tokio::spawn(fill_and_send(socket)), peer));
        }
        parked(before + 16).await;

        let stop = Arc::new(AtomicBool::new(false));
        let mut pairs = Vec::new();
        for _ in 0..16 {
            let (a, b) = pair();
            let sending = tokio::spawn(count_up(a, stop.clone()));
            pairs.push((sending, tokio::spawn(count_along(b))));
        }
        let (kept, its_peer) = half();
        tokio::time::sleep(Duration::from_millis(3)).await;
        let before = submitted();
        forbid(forbidden, libc::EPERM);

        for (number, (receive, peer, duplicate)) in receives.into_iter().enumerate() {
            let message = format!("message {number}").into_bytes();
            send(&peer, &message).expect("capacity");
            assert_eq!(soon(receive).await.expect("no panic"), message);
            would_block(recv(&duplicate));
        }
        for (sending, peer) in sends {
            let mut received = Vec::new();
            soon(async {
                while received.last().is_none_or(|last: &Vec<u8>| last != b"the third") {
                    match recv(&peer) {
                        Ok(message) => received.push(message),
                        Err(_) => tokio::time::sleep(Duration::from_millis(1)).await,
                    }
                }
            })
            .await;
            let fillers = soon(sending).await.expect("no panic");
            assert_eq!(received.len(), fillers + 3);
            assert_eq!(received[fillers..], [&b"the first"[..], b"the second", b"the third"]);
        }
        tokio::time::sleep(Duration::from_millis(3)).await;
        stop.store(true, Ordering::Relaxed);
        for (sending, receiving) in pairs {
            let sent = soon(sending).await.expect("no panic");
            assert_eq!(soon(receiving).await.expect("no panic"), sent);
            assert!(sent > 0);
        }
        assert!(submitted() <= before, "a ring is still entered");
        // A socket that did nothing meanwhile.
        soon(kept.send(b"hello?")).await.expect("sent");
        assert_eq!(recv(&its_peer).expect("a message"), b"hello?");
        send(&its_peer, b"hello!").expect("capacity");
        assert_eq!(soon(kept.recv(&mut [0; 16])).await.expect("a message"), 6);
        // New ones are on whatever there is.
        for _ in 0..16 {
            let (a, b) = Options::new().pair().expect("a pair");
            soon(tokio::spawn(async move { echoes(&a, &b, 20).await })).await.expect("no panic");
        }
    });
}

/// Sends until it must stop. How many went out.
async fn count_up(socket: UnixSeqpacket, stop: Arc<AtomicBool>) -> u32 {
    let mut sent = 0_u32;
    while !stop.load(Ordering::Relaxed) {
        assert_eq!(socket.send(&sent.to_ne_bytes()).await.expect("sent"), 4);
        sent += 1;
    }
    sent
}

/// Receives what [`count_up`] sends, to the end.
async fn count_along(socket: UnixSeqpacket) -> u32 {
    let mut message = [0; 8];
    for number in 0.. {
        match socket.recv(&mut message).await.expect("a message") {
            0 => return number,
            len => assert_eq!(message[..len], u32::to_ne_bytes(number), "lost or doubled"),
        }
    }
    unreachable!("so many are not sent")
}

async fn receive(socket: UnixSeqpacket) -> Vec<u8> {
    let mut message = [0; 16];
    let len = socket.recv(&mut message).await.expect("a message");
    message[..len].to_vec()
}

async fn receive_owned(socket: UnixSeqpacket) -> Vec<u8> {
    let (received, message) = socket.recv_owned(vec![0; 16]).await;
    message[..received.expect("a message").bytes_read()].to_vec()
}

/// Fills the peer's queue and has three sends wait. How many fillers there are.
async fn fill_and_send(socket: UnixSeqpacket) -> usize {
    let mut fillers = 0;
    while socket.try_send(b"filler").is_ok() {
        fillers += 1;
    }
    let owned = socket.send_owned(b"the second".to_vec());
    let (first, (second, _), third) =
        tokio::join!(socket.send(b"the first"), owned, socket.send(b"the third"));
    assert_eq!((first.unwrap(), second.unwrap(), third.unwrap()), (9, 10, 9));
    fillers
}

fn a_filter_after_the_first_ring_leaves_sockets_working_and_means_epoll() {
    let runtime = current_thread();
    goes_on(&runtime, &RING, receive);
    means_epoll(&runtime, "io_uring");
    // Nor does another runtime get a ring.
    means_epoll(&current_thread(), "io_uring");
}

fn a_filter_of_enter_after_the_first_ring_leaves_sockets_working() {
    let runtime = current_thread();
    goes_on(&runtime, &[libc::SYS_io_uring_enter], receive_owned);
    means_epoll(&runtime, "io_uring");
}

fn a_filter_after_the_first_ring_leaves_sockets_working_on_all_workers() {
    let both = Arc::new(Barrier::new(2));
    let number = AtomicU32::new(0);
    goes_on(&multi_thread(2), &[libc::SYS_io_uring_enter], |socket| {
        let number = number.fetch_add(1, Ordering::Relaxed);
        let both = both.clone();
        async move {
            if number < 2 {
                // One on each worker.
                both.wait();
            }
            receive(socket).await
        }
    });
}

/// Operations wait in the queue of the driver, which finds that it cannot run them.
fn what_is_queued_when_the_ring_breaks_is_called_directly() {
    for count in [1, 20, 600] {
        let runtime = current_thread();
        runtime.block_on(async {
            let halves: Vec<_> = (0..count)
                .map(|_| {
                    let (socket, peer) = socketpair();
                    let options = Options::new().submission(Submission::Ring);
                    (Arc::new(options.socket_from_fd(socket).expect("a socket")), peer)
                })
                .collect();
            let mut tasks = Vec::new();
            for (number, (socket, peer)) in halves.iter().enumerate() {
                send(peer, &number.to_ne_bytes()).expect("capacity");
                let receiving = socket.clone();
                tasks.push(tokio::spawn(async move { receive_shared(&receiving).await }));
                let sending = socket.clone();
                tasks.push(tokio::spawn(async move {
                    sending.send(&(!number).to_ne_bytes()).await.expect("sent");
                    (!number).to_ne_bytes().to_vec()
                }));
            }
            // They are queued, then the filter comes, then the driver runs.
            tokio::spawn(async { forbid(&[libc::SYS_io_uring_enter], libc::EPERM) });
            for (number, task) in tasks.into_iter().enumerate() {
                let message = soon(task).await.expect("no panic");
                let expected = if number % 2 == 0 { number / 2 } else { !(number / 2) };
                assert_eq!(message, expected.to_ne_bytes());
            }
            for (number, (socket, peer)) in halves.iter().enumerate() {
                would_block(socket.try_recv(&mut [0; 16]));
                assert_eq!(recv(peer).expect("a message"), (!number).to_ne_bytes());
                would_block(recv(peer));
            }
        });
    }
}

async fn receive_shared(socket: &UnixSeqpacket) -> Vec<u8> {
    let mut message = [0; 16];
    let len = socket.recv(&mut message).await.expect("a message");
    message[..len].to_vec()
}

fn a_socket_dropped_when_the_ring_breaks_is_closed() {
    let runtime = current_thread();
    let before = submitted();
    runtime.block_on(async {
        let (socket, peer) = half();
        let mut receive = Box::pin(socket.recv_owned(vec![0; 16]));
        crate::begin(receive.as_mut());
        parked(before + 1).await;
        forbid(&RING, libc::EPERM);
        std::mem::forget(receive);
        drop(socket);
        assert!(is_at_end(&peer));
        // The driver learns of it from other calls.
        let (a, b) = pair();
        echoes(&a, &b, 10).await;
    });
    means_epoll(&runtime, "io_uring");
}

// ----- the memory lock -----

/// Become a user without other processes, with this limit on locked memory.
pub fn become_user(memory_lock: Option<u64>) {
    if let Some(limit) = memory_lock {
        let limit = Rlimit { current: Some(limit), maximum: Some(limit) };
        setrlimit(Resource::Memlock, limit).expect("a lower limit");
    }
    // What is locked is counted for each user.
    let id = 1_000_000_000 + std::process::id();
    // SAFETY: these calls take numbers only. Other threads, of which there are none, would follow.
    unsafe {
        assert_eq!(libc::setgroups(0, std::ptr::null()), 0);
        assert_eq!(libc::setresgid(id, id, id), 0);
        assert_eq!(libc::setresuid(id, id, id), 0, "{}", std::io::Error::last_os_error());
        // Else /proc/self is root's.
        assert_eq!(libc::prctl(libc::PR_SET_DUMPABLE, 1, 0, 0, 0), 0);
    }
}

/// The automatic choice is io_uring, and works.
fn means_uring(runtime: &Runtime) {
    runtime.block_on(async {
        let (a, b) = Options::new().pair().expect("a pair");
        assert_eq!((a.backend(), b.backend()), (Backend::Uring, Backend::Uring), "{}", probe());
        echoes(&a, &b, 100).await;
    });
}

fn the_smallest_usual_memory_lock_gives_a_working_ring() {
    become_user(Some(64 << 10));
    means_uring(&current_thread());
}

/// Becomes a user without locked memory, and finds out whether the kernel has rings for it. By system calls only.
pub fn counts_rings() -> bool {
    become_user(Some(4096));
    io_uring::IoUring::new(1).is_err()
}

fn no_memory_lock_means_epoll_where_rings_are_counted() {
    // Root is not counted: the ring of the children is what counts.
    if !counts_rings() {
        eprintln!("this kernel does not count rings against RLIMIT_MEMLOCK");
        means_uring(&current_thread());
        return means_uring(&multi_thread(2));
    }
    is_unavailable(&Unavailable::MemoryLock { limit: Some(4096) }, "RLIMIT_MEMLOCK");
    means_epoll(&current_thread(), "RLIMIT_MEMLOCK");
    let limit = Rlimit { current: Some(0), maximum: Some(0) };
    setrlimit(Resource::Memlock, limit).expect("a lower limit");
    is_unavailable(&Unavailable::MemoryLock { limit: Some(0) }, "RLIMIT_MEMLOCK");
    means_epoll(&multi_thread(2), "RLIMIT_MEMLOCK");
}

fn a_memory_lock_for_a_small_ring_gives_that() {
    become_user(Some(16 << 10));
    means_uring(&current_thread());
}

fn the_usual_memory_lock_gives_64_workers_rings() {
    become_user(Some(8 << 20));
    let runtime = multi_thread(64);
    means_uring(&runtime);
    let before = submitted();
    let all = Arc::new(Barrier::new(64));
    runtime.block_on(async {
        let (mut receives, mut peers) = (Vec::new(), Vec::new());
        for number in 0..64 {
            let all = all.clone();
            let (socket, peer) = half();
            receives.push(tokio::spawn(async move {
                // One on every worker.
                all.wait();
                let mut message = [0; 64];
                assert_eq!(socket.recv(&mut message).await.expect("a message"), number);
            }));
            peers.push(peer);
        }
        parked(before + 16).await;
        for (number, peer) in peers.iter().enumerate() {
            send(peer, &vec![0; number]).expect("capacity");
        }
        for receive in receives {
            soon(receive).await.expect("no panic");
        }
    });
    let rings = rings().len();
    assert!((16..=64).contains(&rings), "{rings} rings");
}

// ----- kernel.io_uring_disabled -----

/// The sysctl has another value. It is put back by a process of its own, whatever becomes of this one.
struct Disabled(Child);

impl Disabled {
    fn set(value: u32) -> Self {
        use std::os::unix::process::CommandExt;
        let script = "old=$(cat $0) && trap '' INT TERM HUP && echo $1 > $0 && echo set && \
                      cat > /dev/null; echo $old > $0";
        let mut keeper = Command::new("sh")
            .args(["-c", script, SYSCTL, &value.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // Not reached by an interrupt from the terminal.
            .process_group(0)
            .spawn()
            .expect("sh");
        let mut line = String::new();
        let output = keeper.stdout.take().expect("piped");
        BufReader::new(output).read_line(&mut line).expect("a line");
        assert_eq!(line, "set\n");
        Self(keeper)
    }
}

impl Drop for Disabled {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

fn a_sysctl_of_2_means_epoll_for_all() {
    let _disabled = Disabled::set(2);
    is_unavailable(&Unavailable::DisabledBySysctl { value: 2 }, "kernel.io_uring_disabled");
    means_epoll(&current_thread(), "kernel.io_uring_disabled");
}

fn a_sysctl_of_1_means_epoll_for_the_unprivileged() {
    let _disabled = Disabled::set(1);
    become_user(None);
    is_unavailable(&Unavailable::DisabledBySysctl { value: 1 }, "kernel.io_uring_disabled");
    means_epoll(&current_thread(), "kernel.io_uring_disabled");
}

fn a_sysctl_of_1_leaves_the_privileged_their_rings() {
    let _disabled = Disabled::set(1);
    means_uring(&current_thread());
}

fn a_sysctl_set_later_leaves_rings_alone() {
    let runtime = current_thread();
    let (a, b) = runtime.block_on(async { pair() });
    let _disabled = Disabled::set(2);
    runtime.block_on(echoes(&a, &b, 100));
    // The runtime has its ring already; another one gets none.
    means_uring(&runtime);
    means_epoll(&current_thread(), "kernel.io_uring_disabled");
}
