//! The matrix: every body on {epoll, io_uring, io_uring with every operation through the ring} x {current_thread,
//! multi_thread, `tokio_uring::start`}.
//!
//! A body is written once. [`tasks!`] lists bodies that are async and run inside a runtime; [`blocking!`] lists bodies that
//! make and drive runtimes themselves, which tokio-uring's does not allow. A body that is not listed is dead code, which
//! clippy refuses.

use std::os::fd::OwnedFd;
use std::panic::resume_unwind;
use std::path::Path;
use std::pin::Pin;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio_seqpacket::{Backend, Options, Submission, UnixSeqpacket, UnixSeqpacketListener};

use super::descriptors;
use super::need::Need;
use super::peer::Peer;
use super::runner::{self, Test};
use super::syscalls::socketpair;

/// How long an async body may take. They take milliseconds, without sanitizers. Longer than what has to come soon, and
/// shorter than a test.
const PATIENCE: Duration = runner::PATIENCE.checked_div(2).unwrap();

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
        let submissions = [
            (Backend::Epoll, Submission::Adaptive),
            (Backend::Uring, Submission::Adaptive),
            (Backend::Uring, Submission::Ring),
        ];
        submissions.into_iter().flat_map(|(backend, submission)| {
            Flavor::ALL.into_iter().map(move |flavor| Self {
                backend,
                submission,
                flavor,
                keep_ancillary: false,
            })
        })
    }

    pub fn name(self) -> String {
        let submission = match (self.backend, self.submission) {
            (Backend::Epoll, _) => "epoll",
            (Backend::Uring, Submission::Ring) => "ring",
            (Backend::Uring, _) => "io_uring",
        };
        format!("{submission}::{}", self.flavor.name())
    }

    fn needs(self) -> Vec<Need> {
        let uring = (self.backend == Backend::Uring).then_some(Need::Uring);
        let tokio_uring = (self.flavor == Flavor::TokioUring).then_some(Need::TokioUring);
        uring.into_iter().chain(tokio_uring).collect()
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
        let (socket, peer) = self.half_fd();
        (socket, peer.into())
    }

    pub fn half_fd(self) -> (UnixSeqpacket, OwnedFd) {
        let (ours, peer) = socketpair();
        (self.options().socket_from_fd(ours).expect("a socket"), peer)
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

    /// Run a future in `runtime`, which is of this flavor: on a worker, where there are workers.
    pub fn run_in<T: Send + 'static>(
        self,
        runtime: &Runtime,
        body: impl Future<Output = T> + Send + 'static,
    ) -> T {
        if self.flavor.is_single_threaded() {
            return runtime.block_on(body);
        }
        match runtime.block_on(runtime.spawn(body)) {
            Ok(output) => output,
            Err(error) => resume_unwind(error.into_panic()),
        }
    }

    /// Run a future in a runtime of its own, after whose end nothing is left. In a process of its own.
    pub fn leaves_nothing<T: Send + 'static>(
        self,
        body: impl Future<Output = T> + Send + 'static,
    ) -> T {
        let base = descriptors::base_line();
        let runtime = self.runtime();
        let output = self.run_in(&runtime, body);
        drop(runtime);
        descriptors::all_closed(base);
        output
    }

    /// Run a future in a runtime of this flavor.
    fn run<F: Future<Output = ()> + Send + 'static>(self, body: F) {
        let body = async {
            if tokio::time::timeout(PATIENCE, body).await.is_err() {
                panic!("not done after {PATIENCE:?}");
            }
        };
        match self.flavor {
            #[cfg(not(target_env = "gnu"))]
            Flavor::TokioUring => unreachable!("skipped: Need::TokioUring is missing"),
            #[cfg(target_env = "gnu")]
            Flavor::TokioUring => tokio_uring::start(body),
            Flavor::CurrentThread | Flavor::MultiThread => self.run_in(&self.runtime(), body),
        }
    }
}

type AsyncBody = fn(Cell) -> Pin<Box<dyn Future<Output = ()> + Send>>;

/// One test for each cell, of a body that is async.
pub fn tasks(name: &str, body: AsyncBody) -> Vec<Test> {
    in_cells(name, &Flavor::ALL, move |cell| cell.run(body(cell)))
}

/// One test for each cell, of a body that makes its runtimes itself.
pub fn blocking(name: &str, body: fn(Cell)) -> Vec<Test> {
    in_cells(name, &Flavor::OWN, body)
}

fn in_cells(
    name: &str,
    flavors: &[Flavor],
    body: impl Fn(Cell) + Copy + Send + Sync + 'static,
) -> Vec<Test> {
    Cell::all()
        .filter(|cell| flavors.contains(&cell.flavor))
        .map(|cell| {
            let test = Test::new(format!("{}::{name}", cell.name()), move || body(cell));
            Test { cell: Some(cell), ..test }.needs(cell.needs())
        })
        .collect()
}

/// List async bodies.
macro_rules! tasks {
    ($($name:ident),* $(,)?) => {
        [$($crate::harness::matrix::tasks(stringify!($name), |cell| Box::pin($name(cell)))),*].concat()
    };
}

/// List bodies that make their runtimes themselves.
macro_rules! blocking {
    ($($name:ident),* $(,)?) => {
        [$($crate::harness::matrix::blocking(stringify!($name), $name)),*].concat()
    };
}

/// Restrict tests to some flavors.
pub fn only(flavors: &[Flavor], mut tests: Vec<Test>) -> Vec<Test> {
    tests.retain(|test| test.cell.is_some_and(|cell| flavors.contains(&cell.flavor)));
    tests
}

/// Tests that need pidfds.
pub fn with_pidfds(tests: Vec<Test>) -> Vec<Test> {
    tests.into_iter().map(|test| test.needs([Need::Pidfds])).collect()
}
