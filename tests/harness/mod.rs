//! Runs every test body on every backend and in every kind of runtime.
//!
//! A body is written once. [`tasks!`] lists bodies that are async: they run inside a runtime, on
//! {epoll, io_uring, io_uring with every operation through the ring} x {current_thread, multi_thread,
//! `tokio_uring::start`}. [`blocking!`] lists
//! bodies that make and drive runtimes themselves (not in tokio-uring's). A body that is not listed
//! is dead code, which clippy refuses.
//!
//! What cannot run here is listed as ignored, with the reason in its kind, and reported loudly on
//! stderr; with `SEQPACKET_TESTS_NO_SKIP=1` it fails instead. No test can hang: async bodies end after
//! [`PATIENCE`], everything else after twice that, as a failure under the test's own name.

#![allow(dead_code, reason = "each of the two test binaries uses its own part")]

pub mod call_variants;
pub mod peer;
pub mod syscalls;
pub mod waiting;

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::pin::Pin;
use std::process::{Command, ExitCode};
use std::sync::{OnceLock, mpsc};
use std::time::Duration;

use libtest_mimic::{Arguments, Failed, Trial};
use tokio::runtime::{Builder, Runtime};
use tokio_seqpacket::{Backend, Options, Submission, UnixSeqpacket, UnixSeqpacketListener};

use peer::Peer;

/// How long an async body may take. They take milliseconds, without sanitizers.
const PATIENCE: Duration =
    Duration::from_secs(if option_env!("TESTS_ARE_SLOW").is_some() { 120 } else { 10 });

/// Set in the child process of a test that wants one for itself.
const IN_CHILD: &str = "SEQPACKET_TESTS_IN_CHILD";
const NO_SKIP: &str = "SEQPACKET_TESTS_NO_SKIP";

/// Where a body runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Flavor {
    CurrentThread,
    MultiThread,
    TokioUring,
}

impl Flavor {
    pub const ALL: [Self; 3] = [Self::CurrentThread, Self::MultiThread, Self::TokioUring];
    /// Those that [`Cell::runtime`] can make.
    pub const OWN: [Self; 2] = [Self::CurrentThread, Self::MultiThread];

    fn name(self) -> &'static str {
        match self {
            Self::CurrentThread => "current_thread",
            Self::MultiThread => "multi_thread",
            Self::TokioUring => "tokio_uring",
        }
    }

    /// Whether tasks, the driver and the body share one thread.
    pub fn is_single_threaded(self) -> bool {
        self != Self::MultiThread
    }
}

/// One cell of the matrix: what a body runs on.
#[derive(Debug, Clone, Copy)]
pub struct Cell {
    pub backend: Backend,
    pub submission: Submission,
    pub flavor: Flavor,
    /// Ancillary data of a message that a dropped plain receive leaves is kept in every case.
    pub keep_ancillary: bool,
}

impl Cell {
    fn all() -> impl Iterator<Item = Self> {
        let places = [
            (Backend::Epoll, Submission::Adaptive),
            (Backend::Uring, Submission::Adaptive),
            (Backend::Uring, Submission::Ring),
        ];
        places.into_iter().flat_map(|(backend, submission)| {
            Flavor::ALL.into_iter().map(move |flavor| Self {
                backend,
                submission,
                flavor,
                keep_ancillary: false,
            })
        })
    }

    pub fn keeping_ancillary(self) -> Self {
        Self { keep_ancillary: true, ..self }
    }

    pub fn options(self) -> Options {
        Options::new()
            .backend(self.backend)
            .submission(self.submission)
            .keep_ancillary(self.keep_ancillary)
    }

    pub fn pair(self) -> (UnixSeqpacket, UnixSeqpacket) {
        let (a, b) = self.options().pair().expect("a pair");
        assert_eq!((a.backend(), b.backend()), (self.backend, self.backend));
        (a, b)
    }

    /// A socket of the library, and its other end in plain system calls.
    pub fn half(self) -> (UnixSeqpacket, Peer) {
        let (ours, peer) = peer::socketpair();
        (self.options().socket_from_fd(ours).expect("a socket"), peer.into())
    }

    pub fn bind(self, path: impl AsRef<Path>) -> UnixSeqpacketListener {
        let listener = self.options().bind(path, 128).expect("a listener");
        assert_eq!(listener.backend(), self.backend);
        listener
    }

    pub async fn connect(self, path: impl AsRef<Path>) -> UnixSeqpacket {
        self.options().connect(path).await.expect("a connection")
    }

    pub fn builder(self) -> Builder {
        match self.flavor {
            Flavor::CurrentThread => Builder::new_current_thread(),
            Flavor::MultiThread => {
                let mut builder = Builder::new_multi_thread();
                builder.worker_threads(2);
                builder
            }
            Flavor::TokioUring => panic!("tokio-uring makes its runtime itself"),
        }
    }

    /// A runtime of this flavor, for bodies that drive it themselves.
    pub fn runtime(self) -> Runtime {
        self.builder().enable_all().build().expect("a runtime")
    }

    /// Run a future in a runtime of this flavor: on a worker, where there are workers.
    fn run<F: Future<Output = ()> + Send + 'static>(self, body: F) {
        let body = async {
            if tokio::time::timeout(PATIENCE, body).await.is_err() {
                panic!("not done after {PATIENCE:?}");
            }
        };
        match self.flavor {
            Flavor::CurrentThread => self.runtime().block_on(body),
            Flavor::TokioUring => tokio_uring::start(body),
            Flavor::MultiThread => {
                let runtime = self.runtime();
                if let Err(error) = runtime.block_on(runtime.spawn(body)) {
                    resume_unwind(error.into_panic());
                }
            }
        }
    }

    /// Why nothing can be tested in this cell.
    fn available(self) -> Result<(), String> {
        if self.flavor == Flavor::TokioUring {
            tokio_uring::Runtime::new(&tokio_uring::builder())
                .map_err(|error| format!("no tokio-uring runtime here: {error}"))?;
        }
        let (tell, told) = mpsc::channel();
        let _ = guarded(move || {
            self.run(async move {
                let _ = tell.send(self.options().pair().map(drop).map_err(|e| e.to_string()));
            });
        });
        told.recv().unwrap_or_else(|_| Err("probing panicked".into()))
    }
}

#[derive(Clone, Copy)]
enum Body {
    Task(fn(Cell) -> Pin<Box<dyn Future<Output = ()> + Send>>),
    Blocking(fn(Cell)),
}

/// A body and where it runs.
#[derive(Clone)]
pub struct Test {
    name: &'static str,
    body: Body,
    flavors: Vec<Flavor>,
    alone: bool,
    /// Why it cannot run here, in any cell.
    missing: Option<String>,
}

impl Test {
    pub fn task(
        name: &'static str,
        body: fn(Cell) -> Pin<Box<dyn Future<Output = ()> + Send>>,
    ) -> Self {
        let (body, flavors) = (Body::Task(body), Flavor::ALL.to_vec());
        Self { name, body, flavors, alone: false, missing: None }
    }

    pub fn blocking(name: &'static str, body: fn(Cell)) -> Self {
        let (body, flavors) = (Body::Blocking(body), Flavor::OWN.to_vec());
        Self { name, body, flavors, alone: false, missing: None }
    }

    fn run(&self, cell: Cell) -> Result<(), Failed> {
        match self.body {
            Body::Task(body) => guarded(move || cell.run(body(cell))),
            Body::Blocking(body) => guarded(move || body(cell)),
        }
    }
}

/// List async bodies.
macro_rules! tasks {
    ($($name:ident),* $(,)?) => {
        vec![$($crate::harness::Test::task(stringify!($name), |cell| Box::pin($name(cell)))),*]
    };
}

/// List bodies that make their runtimes themselves.
macro_rules! blocking {
    ($($name:ident),* $(,)?) => {
        vec![$($crate::harness::Test::blocking(stringify!($name), $name)),*]
    };
}

/// Restrict tests to some flavors.
pub fn only(flavors: &[Flavor], tests: Vec<Test>) -> Vec<Test> {
    tests.into_iter().map(|test| Test { flavors: flavors.to_vec(), ..test }).collect()
}

/// Give each test a process for itself, because it changes limits, forks, or looks at everything
/// the process has.
pub fn alone(tests: Vec<Test>) -> Vec<Test> {
    tests.into_iter().map(|test| Test { alone: true, ..test }).collect()
}

/// Tests that need pidfds with messages and of peers: Linux 6.5.
pub fn with_pidfds(tests: Vec<Test>) -> Vec<Test> {
    static MISSING: OnceLock<Option<String>> = OnceLock::new();
    let missing = MISSING.get_or_init(|| {
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        let asked = runtime.block_on(async {
            let (socket, _peer) = Options::new().backend(Backend::Epoll).pair().expect("a pair");
            socket.set_pass_pidfd(true).and_then(|()| socket.peer_pidfd())
        });
        let error = asked.err()?;
        assert_eq!(error.kind(), std::io::ErrorKind::Unsupported);
        assert!(error.to_string().contains("6.5"), "{error}");
        Some(error.to_string())
    });
    tests.into_iter().map(|test| Test { missing: missing.clone(), ..test }).collect()
}

/// Run a closure on a thread of its own; a panic is a failure, and so is not coming to an end.
fn guarded(body: impl FnOnce() + Send + 'static) -> Result<(), Failed> {
    let (tell, told) = mpsc::channel();
    let name = std::thread::current().name().unwrap_or("test").to_owned();
    let thread = std::thread::Builder::new()
        .name(name)
        .spawn(move || {
            let _ = tell.send(catch_unwind(AssertUnwindSafe(body)));
        })
        .expect("a thread");
    match told.recv_timeout(2 * PATIENCE) {
        Ok(result) => {
            let _ = thread.join();
            result.map_err(|panic| words(&*panic).into())
        }
        Err(_) => Err(format!("hangs: not done after {:?}", 2 * PATIENCE).into()),
    }
}

fn words(panic: &(dyn Any + Send)) -> String {
    match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(words), _) => (*words).to_owned(),
        (_, Some(words)) => words.clone(),
        _ => "a panic without words".to_owned(),
    }
}

/// Run one test of this binary in a child process.
fn in_child(name: &str) -> Result<(), Failed> {
    let output = Command::new(std::env::current_exe()?)
        .args(["--exact", name, "--test-threads=1", "--color=never"])
        .env(IN_CHILD, "1")
        .output()?;
    // A filter that matches nothing is no success either.
    if output.status.success() && String::from_utf8_lossy(&output.stdout).contains("1 passed") {
        return Ok(());
    }
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    Err(format!("in a child process, {}:\n{}", output.status, String::from_utf8_lossy(&text))
        .into())
}

/// What `main` does.
pub fn main(tests: Vec<Test>) -> ExitCode {
    let mut args = Arguments::from_args();
    // Most of them wait most of the time.
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    args.test_threads.get_or_insert(2 * cores);
    let names: BTreeSet<_> = tests.iter().map(|test| test.name).collect();
    assert_eq!(names.len(), tests.len(), "two tests with one name");

    let in_a_child = std::env::var_os(IN_CHILD).is_some();
    let no_skip = std::env::var_os(NO_SKIP).is_some_and(|value| value == "1");
    let mut skipped = BTreeMap::<String, usize>::new();
    let mut trials = Vec::new();
    for cell in Cell::all() {
        let refused = cell.available().err();
        let place = match (cell.backend, cell.submission) {
            (Backend::Epoll, _) => "epoll",
            (Backend::Uring, Submission::Ring) => "ring",
            (Backend::Uring, _) => "io_uring",
        };
        for test in tests.iter().filter(|test| test.flavors.contains(&cell.flavor)).cloned() {
            let name = format!("{place}::{}::{}", cell.flavor.name(), test.name);
            if let Some(reason) = refused.as_ref().or(test.missing.as_ref()) {
                *skipped.entry(reason.clone()).or_default() += 1;
                let reason = format!("skipped: {reason}");
                let trial = Trial::test(name, {
                    let reason = reason.clone();
                    move || Err(reason.into())
                });
                trials.push(trial.with_kind(reason).with_ignored_flag(!no_skip));
                continue;
            }
            let trial_name = name.clone();
            trials.push(Trial::test(name, move || {
                if test.alone && !in_a_child { in_child(&trial_name) } else { test.run(cell) }
            }));
        }
    }
    let conclusion = libtest_mimic::run(&args, trials);
    if !in_a_child && !args.list {
        for (reason, count) in &skipped {
            eprintln!("\n*** {count} TESTS WERE SKIPPED: {reason}\n");
        }
    }
    conclusion.exit_code()
}
