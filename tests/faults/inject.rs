//! G1, G2, G8 and G12 while system calls of the ring fail at the Nth call, for many an N: `strace -e inject`, until a run injects
//! nothing.
//!
//! The workload is this binary again, under strace. Sockets on io_uring may be refused where they were requested. Those
//! that were made do all their work, whatever becomes of the ring: nothing fails, is lost or comes twice.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio_seqpacket::ancillary::AncillaryBuffer;
use tokio_seqpacket::{Backend, Options, Submission, UnixSeqpacket};

use crate::harness::runner::is_long;
use crate::harness::syscalls::{is_at_end, recv, send, socketpair};
use crate::harness::{Cell, Flavor, Need, Test, waiting};

/// Set for the workload: `auto` or `uring`, and the kind of runtime.
const WORKLOAD: &str = "SEQPACKET_FAULTS_WORKLOAD";

/// How long a run of the workload may take. With every call of the ring a stop under strace it takes a tenth of a second, and
/// half a minute where other programs have the processors.
const PATIENCE: Duration = Duration::from_secs(50);

/// How long it may run without a step. Longer than a step may take, whose failure names the line that waited.
const NO_STEP: Duration = waiting::SOON.saturating_add(Duration::from_secs(2));

/// What the workload has awaited so far.
static STEPS: AtomicU64 = AtomicU64::new(0);

#[track_caller]
fn soon<F: Future>(future: F) -> impl Future<Output = F::Output> {
    let limited = waiting::soon(future);
    async {
        let done = limited.await;
        STEPS.fetch_add(1, Ordering::Relaxed);
        done
    }
}

pub fn tests() -> Vec<Test> {
    let mut tests = Vec::new();
    for call in [Call::Setup, Call::Enter] {
        for multi_thread in [false, true] {
            for explicit in [false, true] {
                let flavor = if multi_thread { "multi_thread" } else { "current_thread" };
                let mode = if explicit { "explicit" } else { "auto" };
                let name = format!("{flavor}::{}_fails_at_every_call_{mode}", call.name());
                let body = move || fails_at_every_call(call, multi_thread, explicit);
                tests.push(Test::new(name, body).needs([Need::Uring, Need::Strace]).alone());
            }
        }
    }
    tests
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Call {
    Setup,
    Enter,
}

impl Call {
    fn name(self) -> &'static str {
        match self {
            Self::Setup => "io_uring_setup",
            Self::Enter => "io_uring_enter",
        }
    }

    fn errors(self) -> &'static [&'static str] {
        match self {
            Self::Setup => &["EPERM", "ENOMEM", "EMFILE", "ENOSYS", "EINVAL"],
            // Those that must be retried, too.
            Self::Enter => &["EPERM", "EINTR", "EBADF", "EAGAIN", "EBUSY", "ENOMEM"],
        }
    }

    /// From the Nth call to the next one that fails. Every batch is a call of `io_uring_enter(2)`: far too many to try all.
    fn step(self, at: usize) -> usize {
        match self {
            Self::Setup => 1,
            Self::Enter => 1 + at / if is_long() { 24 } else { 6 },
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
            at += call.step(at);
        }
        let times = if lasting { "for good" } else { "once" };
        eprintln!("*** {}, {multi_thread}, {explicit}, {times}: N up to {at}", call.name());
    }
    assert!(runs > 2, "nothing was injected");
}

/// Run the workload. Returns how many errors were injected.
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
    let flavor = if what.ends_with("multi") { Flavor::MultiThread } else { Flavor::CurrentThread };
    let (backend, submission) = (Backend::Uring, Submission::Ring);
    let cell = Cell { backend, submission, flavor, keep_ancillary: false };
    let explicit = what.starts_with("uring");
    // Also where everything hangs.
    std::thread::spawn(|| {
        let mut before = u64::MAX;
        loop {
            let steps = STEPS.load(Ordering::Relaxed);
            if steps == before {
                eprintln!("the workload hangs after {steps} steps");
                std::process::abort();
            }
            before = steps;
            std::thread::sleep(NO_STEP);
        }
    });
    cell.leaves_nothing(scene(explicit));
    true
}

fn options(explicit: bool) -> Options {
    let options = Options::new().submission(Submission::Ring);
    if explicit { options.backend(Backend::Uring) } else { options }
}

/// Sockets of the library and what is sent through them.
struct Line {
    a: Arc<UnixSeqpacket>,
    b: Arc<UnixSeqpacket>,
    /// The other end of neither: a duplicate of `b`, to see what is left in its queue.
    rest: OwnedFd,
}

fn line(explicit: bool) -> Option<Line> {
    let (a, b) = made(explicit, options(explicit).pair())?;
    let rest = b.as_fd().try_clone_to_owned().expect("a duplicate");
    Some(Line { a: Arc::new(a), b: Arc::new(b), rest })
}

/// An explicit wish can be refused, with the reason.
fn made<T>(explicit: bool, made: std::io::Result<T>) -> Option<T> {
    match made {
        Ok(made) => Some(made),
        Err(error) => {
            assert!(explicit, "automatic mode has no such errors: {error}");
            assert!(error.to_string().contains("io_uring"), "not explicit: {error}");
            None
        }
    }
}

async fn scene(explicit: bool) {
    let mut tasks = Vec::new();
    for number in 0..4u8 {
        tasks.push(tokio::spawn(async move {
            for _ in 0..2 {
                match number {
                    0 => messages(explicit).await,
                    1 => descriptors_passed(explicit).await,
                    2 => cancels(explicit).await,
                    _ => drops(explicit).await,
                }
            }
        }));
    }
    for task in tasks {
        // Every wait in there is limited itself.
        task.await.expect("no panic");
    }
    // Whatever has happened: sockets can be made, in automatic mode, and work.
    if let Some(Line { a, b, .. }) = line(explicit) {
        soon(a.send(b"the last")).await.expect("sent");
        assert_eq!(soon(b.recv(&mut [0; 16])).await.expect("a message"), 8);
    }
}

/// Numbers go one way, with senders that have to wait and receivers that have to wait.
async fn messages(explicit: bool) {
    let Some(Line { a, b, rest }) = line(explicit) else { return };
    const COUNT: u32 = 350;
    let sending = tokio::spawn(async move {
        for number in 0..COUNT {
            assert_eq!(soon(a.send(&number.to_ne_bytes())).await.expect("sent"), 4);
        }
    });
    // Let the queue fill up.
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    for number in 0..COUNT {
        let mut message = [0; 8];
        assert_eq!(soon(b.recv(&mut message)).await.expect("a message"), 4);
        assert_eq!(message[..4], number.to_ne_bytes(), "lost, doubled or out of order");
    }
    soon(sending).await.expect("no panic");
    assert_eq!(soon(b.recv(&mut [0; 8])).await.expect("end of stream"), 0);
    drop(b);
    assert_eq!(recv(&rest).expect("end of stream"), b"");
}

/// Ends of pipes go one way. All their duplicates are closed in the end.
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
                assert_eq!(received.expect("a message").bytes_read(), 4);
                ancillary
            })
        };
        if waits {
            for _ in 0..5 {
                tokio::task::yield_now().await;
            }
        }
        let mut ancillary = AncillaryBuffer::new();
        ancillary.push_fd(write).expect("capacity for one");
        let (sent, ..) = soon(a.send_owned_with_ancillary(b"pipe".to_vec(), ancillary)).await;
        sent.expect("sent");
        let ancillary = soon(receiving).await.expect("no panic");
        assert_eq!(ancillary.fds().len(), 1);
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

/// Receives are dropped, and their messages go to others.
async fn cancels(explicit: bool) {
    let Some(Line { a, b, rest }) = line(explicit) else { return };
    for round in 0..8u8 {
        let mut message = [0; 1];
        tokio::select! {
            biased;
            result = b.recv(&mut message) => panic!("nothing has been sent: {result:?}"),
            () = async { for _ in 0..round { tokio::task::yield_now().await; } } => {}
        }
        soon(a.send(&[round])).await.expect("sent");
        soon(b.recv(&mut message)).await.expect("a message");
        assert_eq!(message, [round]);
    }
    drop((a, b));
    assert!(is_at_end(&rest));
}

/// Sockets are dropped with calls that wait. The other end sees it.
async fn drops(explicit: bool) {
    for sends in [false, true] {
        let (ours, peer) = socketpair();
        let Some(socket) = made(explicit, options(explicit).socket_from_fd(ours)) else { return };
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
        assert!(soon(waiting).await.is_err(), "it waits until it is aborted");
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
