//! System calls of the ring fail at the Nth call, for every N: `strace -e inject`, until a run injects
//! nothing.
//!
//! The workload is this binary again, under strace. It must end, with every call answered, nothing
//! doubled, and nothing lost but what the kernel had taken for a receive that failed with the ring.

use std::collections::BTreeSet;
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio_seqpacket::ancillary::AncillaryBuffer;
use tokio_seqpacket::{Backend, Options, UnixSeqpacket};

use crate::trials::{Need, Test, descriptors, is_long, rings};
use crate::{Cell, base_line, is_at_end, recv, send, soon, until_in_runtime};

/// Set for the workload: `auto` or `uring`, and the kind of runtime.
const WORKLOAD: &str = "SEQPACKET_FAULTS_WORKLOAD";

/// How long a run of the workload may take.
const PATIENCE: Duration = Duration::from_secs(15);

pub fn tests() -> Vec<Test> {
    let mut tests = Vec::new();
    for call in [Call::Setup, Call::Register, Call::Enter] {
        for multi_thread in [false, true] {
            for explicit in [false, true] {
                let flavor = if multi_thread { "multi_thread" } else { "current_thread" };
                let mode = if explicit { "explicit" } else { "auto" };
                tests.push(Test {
                    name: format!("{flavor}::{}_fails_at_every_call_{mode}", call.name()),
                    needs: &[Need::Uring, Need::Strace],
                    body: Box::new(move || fails_at_every_call(call, multi_thread, explicit)),
                });
            }
        }
    }
    tests
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Call {
    Setup,
    Register,
    Enter,
}

impl Call {
    fn name(self) -> &'static str {
        match self {
            Self::Setup => "io_uring_setup",
            Self::Register => "io_uring_register",
            Self::Enter => "io_uring_enter",
        }
    }

    fn errors(self) -> &'static [&'static str] {
        match self {
            Self::Setup => &["EPERM", "ENOMEM", "EMFILE", "ENOSYS", "EINVAL"],
            Self::Register => &["EPERM", "ENOMEM", "EINVAL"],
            // Those that are to be tried again, too.
            Self::Enter => &["EPERM", "EINTR", "EBADF", "EAGAIN", "EBUSY", "ENOMEM"],
        }
    }

    /// Once, or from then on. An error that says "again" does not last.
    fn lasting(self, error: &str) -> &'static [bool] {
        match error {
            "EINTR" | "EAGAIN" | "EBUSY" => &[false],
            _ => &[false, true],
        }
    }
}

fn fails_at_every_call(call: Call, multi_thread: bool, explicit: bool) {
    let mut runs = 0;
    for lasting in [false, true] {
        let errors: Vec<_> =
            call.errors().iter().filter(|error| call.lasting(error).contains(&lasting)).collect();
        // Every error number at every call, or a different one at each.
        let at_once = if is_long() { errors.len() } else { 1 };
        let mut at = 1;
        loop {
            let mut injected = 0;
            for number in 0..at_once {
                let error = errors[(at + number) % errors.len()];
                injected += run(call, error, at, lasting, multi_thread, explicit);
                runs += 1;
            }
            if injected == 0 {
                break;
            }
            at += 1;
        }
        let times = if lasting { "for good" } else { "once" };
        eprintln!("*** {}, {multi_thread}, {explicit}, {times}: N up to {at}", call.name());
    }
    assert!(runs > 2, "nothing was injected");
}

/// Run the workload; how many errors were injected.
fn run(
    call: Call,
    error: &str,
    at: usize,
    lasting: bool,
    multi_thread: bool,
    explicit: bool,
) -> usize {
    let directory = tempfile::tempdir().expect("a directory");
    let log = directory.path().join("log");
    let out = directory.path().join("out");
    let file = fs::File::create(&out).expect("a file");
    let when = format!("{at}{}", if lasting { "+" } else { "" });
    let inject = format!("inject={}:error={error}:when={when}", call.name());
    let mode = if explicit { "uring" } else { "auto" };
    let flavor = if multi_thread { "multi" } else { "current" };
    let mut child = Command::new("strace")
        .args(["-f", "--seccomp-bpf", "-qq", "-e", "signal=none"])
        .args(["-e", &format!("trace={}", call.name()), "-e", &inject, "-o"])
        .arg(&log)
        .arg(std::env::current_exe().expect("this binary"))
        .env(WORKLOAD, format!("{mode} {flavor}"))
        .env("RUST_BACKTRACE", "0")
        .stdin(Stdio::null())
        .stdout(file.try_clone().expect("a duplicate"))
        .stderr(file)
        .spawn()
        .expect("strace(1)");
    let begin = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().expect("a child") {
            break Some(status);
        }
        if begin.elapsed() > PATIENCE {
            let _ = child.kill();
            let _ = child.wait();
            break None;
        }
        std::thread::sleep(Duration::from_millis(1));
    };
    let injected = fs::read_to_string(&log).expect("a log").matches("(INJECTED)").count();
    let words = fs::read_to_string(&out).expect("its output");
    let what = format!("{inject}, {mode}, {flavor}, {injected} injected");
    match status {
        Some(status) => {
            assert!(status.success(), "{what}: {status}\n{words}");
            if !words.is_empty() {
                eprintln!("{what}: {words}");
            }
        }
        None => panic!("{what}: hangs\n{words}"),
    }
    injected
}

// ----- the workload -----

/// Run the workload, if this process was started for that.
pub fn workload() -> bool {
    let Ok(what) = std::env::var(WORKLOAD) else { return false };
    let cell = Cell { backend: Backend::Uring, multi_thread: what.ends_with("multi") };
    let explicit = what.starts_with("uring");
    // Also where everything hangs.
    std::thread::spawn(|| {
        std::thread::sleep(PATIENCE - Duration::from_secs(2));
        eprintln!("the workload hangs");
        std::process::abort();
    });
    let base = base_line();
    let runtime = cell.runtime();
    cell.run(&runtime, scene(explicit));
    drop(runtime);
    let begin = Instant::now();
    while descriptors().len() > base {
        let left = descriptors();
        assert!(begin.elapsed() < Duration::from_secs(20), "descriptors are left: {left:#?}");
        // Whoever asks for a ring looks after the remains of others, whether he gets one or not.
        cell.runtime().block_on(async { drop(options(explicit).pair()) });
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(rings().len(), 0);
    true
}

fn options(explicit: bool) -> Options {
    if explicit { Options::new().backend(Backend::Uring) } else { Options::new() }
}

fn is_explicit(error: &std::io::Error) {
    let words = error.to_string();
    assert!(words.contains("io_uring"), "not explicit: {words}");
}

/// Sockets of the library and what is sent through them.
struct Line {
    a: Arc<UnixSeqpacket>,
    b: Arc<UnixSeqpacket>,
    /// Of `b`: what is left in the queue when the library has given up.
    rest: OwnedFd,
}

fn line(explicit: bool) -> Option<Line> {
    match options(explicit).pair() {
        Ok((a, b)) => {
            let rest = b.as_fd().try_clone_to_owned().expect("a duplicate");
            Some(Line { a: Arc::new(a), b: Arc::new(b), rest })
        }
        Err(error) => {
            assert!(explicit, "automatic mode has no such errors: {error}");
            None
        }
    }
}

async fn scene(explicit: bool) {
    let wait_over = Arc::new(AtomicUsize::new(0));
    let mut tasks = Vec::new();
    for number in 0..4u8 {
        let wait_over = wait_over.clone();
        tasks.push(tokio::spawn(async move {
            for round in 0..2 {
                match number {
                    0 => messages(explicit).await,
                    1 => descriptors_passed(explicit).await,
                    2 => cancels(explicit).await,
                    _ => drops(explicit).await,
                }
                wait_over.fetch_add(round, Ordering::Relaxed);
            }
        }));
    }
    for task in tasks {
        // Every wait in there is limited itself.
        task.await.expect("no panic");
    }
    // Whatever has happened: sockets can be made, in automatic mode, and work.
    if let Some(Line { a, b, .. }) = line(explicit) {
        assert_eq!(a.backend(), b.backend());
        let on_ring = a.backend() == Backend::Uring;
        let result = soon(async {
            a.send(b"the last").await?;
            b.recv(&mut [0; 16]).await
        })
        .await;
        match result {
            Ok(len) => assert_eq!(len, 8),
            Err(error) => {
                assert!(on_ring, "on epoll: {error}");
                is_explicit(&error);
                // Now it is known to be broken.
                match options(explicit).pair() {
                    Ok((a, _)) => assert_eq!((a.backend(), explicit), (Backend::Epoll, false)),
                    Err(error) => {
                        assert!(explicit);
                        is_explicit(&error);
                    }
                }
            }
        }
    }
}

/// Numbers go one way, with senders that have to wait and receivers that have to wait.
async fn messages(explicit: bool) {
    let Some(Line { a, b, rest }) = line(explicit) else { return };
    const COUNT: u32 = 350;
    let sending = tokio::spawn({
        let a = a.clone();
        async move {
            let mut sent = BTreeSet::new();
            for number in 0..COUNT {
                match soon(a.send(&number.to_ne_bytes())).await {
                    Ok(len) => {
                        assert_eq!(len, 4);
                        sent.insert(number);
                    }
                    Err(error) => is_explicit(&error),
                }
            }
            sent
        }
    });
    // Let the queue fill up.
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    let mut received = Vec::new();
    let mut failures = 0;
    while received.last() != Some(&(COUNT - 1)) {
        let mut message = [0; 4];
        match soon(b.recv(&mut message)).await {
            Ok(len) => {
                assert_eq!(len, 4);
                received.push(u32::from_ne_bytes(message));
            }
            Err(error) => {
                is_explicit(&error);
                failures += 1;
                break;
            }
        }
    }
    let sent = if failures > 0 {
        // The other end may be on epoll, if the ring broke between the two: it waits for room.
        let mut ends = Some((a, b));
        // What the library did not take.
        until_in_runtime("the end of stream", || {
            if sending.is_finished() {
                drop(ends.take());
            }
            loop {
                match recv(&rest) {
                    Ok(message) if message.is_empty() => return true,
                    Ok(message) => {
                        received.push(u32::from_ne_bytes(message.try_into().expect("four bytes")));
                    }
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return false,
                    Err(error) => panic!("{error}"),
                }
            }
        })
        .await;
        soon(sending).await.expect("no panic")
    } else {
        soon(sending).await.expect("no panic")
    };
    let numbers = |set: BTreeSet<u32>| set.into_iter().collect::<Vec<_>>();
    let order = received.windows(2).find(|pair| pair[0] >= pair[1]);
    assert_eq!(order, None, "out of order or doubled, of {}", received.len());
    let received: BTreeSet<_> = received.into_iter().collect();
    // What was in flight when the ring broke fails, whether the kernel did it or not: one operation
    // in each direction.
    let lost = numbers(&sent - &received);
    assert!(lost.len() <= failures, "lost with {failures} failed receives: {lost:?}");
    let unsure = numbers(&received - &sent);
    assert!(unsure.len() <= failures, "sent, though {failures} ring failed: {unsure:?}");
    if !lost.is_empty() || !unsure.is_empty() {
        eprintln!("in flight when the ring broke: {lost:?} received, {unsure:?} sent");
    }
}

/// Ends of pipes go one way; all their duplicates are closed in the end.
async fn descriptors_passed(explicit: bool) {
    let Some(Line { a, b, rest }) = line(explicit) else { return };
    let mut traces = Vec::new();
    for waits in [false, true, false, true] {
        let (read, write) = rustix::pipe::pipe_with(
            rustix::pipe::PipeFlags::CLOEXEC | rustix::pipe::PipeFlags::NONBLOCK,
        )
        .expect("a pipe");
        traces.push(read);
        let receiving = {
            let b = b.clone();
            tokio::spawn(async move {
                let (received, _, ancillary) =
                    b.recv_owned_with_ancillary(vec![0; 16], AncillaryBuffer::new()).await;
                received.map(|received| {
                    assert_eq!(received.bytes_read(), 4);
                    ancillary
                })
            })
        };
        if waits {
            for _ in 0..5 {
                tokio::task::yield_now().await;
            }
        }
        let mut ancillary = AncillaryBuffer::new();
        ancillary.push_fd(write).expect("room for one");
        let (sent, _, ancillary) =
            soon(a.send_owned_with_ancillary(b"pipe".to_vec(), ancillary)).await;
        drop(ancillary);
        if let Err(error) = sent {
            is_explicit(&error);
            receiving.abort();
            let _ = soon(receiving).await;
            break;
        }
        match soon(receiving).await.expect("no panic") {
            Ok(ancillary) => drop(ancillary),
            Err(error) => {
                is_explicit(&error);
                break;
            }
        }
    }
    drop((a, b, rest));
    for read in traces {
        let mut byte = [0];
        soon(async {
            while rustix::io::read(&read, &mut byte) != Ok(0) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
        .await;
    }
}

/// Receives are dropped; their messages come to others.
async fn cancels(explicit: bool) {
    let Some(Line { a, b, rest }) = line(explicit) else { return };
    let mut failed = false;
    for round in 0..8u8 {
        let mut message = [0; 1];
        tokio::select! {
            biased;
            result = b.recv(&mut message) => {
                is_explicit(&result.expect_err("nothing has been sent"));
                failed = true;
            }
            () = async { for _ in 0..round { tokio::task::yield_now().await; } } => {}
        }
        if let Err(error) = soon(a.send(&[round])).await {
            is_explicit(&error);
            failed = true;
        }
        if failed {
            break;
        }
        match soon(b.recv(&mut message)).await {
            Ok(_) => assert_eq!(message, [round]),
            Err(error) => {
                is_explicit(&error);
                break;
            }
        }
    }
    drop((a, b));
    // Not a wait that keeps the worker: drivers run there.
    until_in_runtime("end of stream", || is_at_end(&rest)).await;
}

/// Sockets are dropped with calls that wait; the other end hears of it.
async fn drops(explicit: bool) {
    for sends in [false, true] {
        let (ours, peer) = crate::socketpair();
        let socket = match options(explicit).socket_from_fd(ours) {
            Ok(socket) => socket,
            Err(error) => {
                assert!(explicit, "automatic mode has no such errors: {error}");
                return;
            }
        };
        let waiting = tokio::spawn(async move {
            if sends {
                while socket.try_send(b"filler").is_ok() {}
                socket.send_owned(vec![0; 16]).await.0.map(drop)
            } else {
                socket.recv_owned(vec![0; 16]).await.0.map(drop)
            }
        });
        for _ in 0..6 {
            tokio::task::yield_now().await;
        }
        waiting.abort();
        if let Ok(Err(error)) = soon(waiting).await {
            is_explicit(&error);
        }
        soon(async {
            while !is_at_end(&peer) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
        .await;
        let error = send(&peer, b"hello?").unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::BrokenPipe);
    }
}
