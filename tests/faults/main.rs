//! Something breaks, or somebody is hostile: what it costs, and whom.
//!
//! Every test has a process of its own (`tests/harness/runner.rs`) and most run in six cells: {epoll,
//! io_uring, io_uring with every operation through the ring} x {current_thread, multi_thread}.

#[path = "../harness/syscalls.rs"]
mod syscalls;
#[path = "../harness/runner.rs"]
#[macro_use]
mod runner;

mod hostile;
mod inject;
mod kill;
mod panics;
mod sockopt;

use std::os::fd::OwnedFd;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Runtime};
use tokio_seqpacket::{Backend, Options, Submission, UnixSeqpacket};

use runner::{Need, Test, descriptors, rings, until};
use syscalls::{echoes, is_at_end, recv, send, socketpair, soon};

fn main() -> ExitCode {
    if inject::workload() || kill::victim() {
        return ExitCode::SUCCESS;
    }
    runner::main(
        [panics::tests(), inject::tests(), kill::tests(), hostile::tests()]
            .into_iter()
            .flatten()
            .collect(),
    )
}

/// Where a test runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cell {
    backend: Backend,
    submission: Submission,
    multi_thread: bool,
}

impl Cell {
    fn all() -> impl Iterator<Item = Self> {
        let places = [
            (Backend::Epoll, Submission::Adaptive),
            (Backend::Uring, Submission::Adaptive),
            (Backend::Uring, Submission::Ring),
        ];
        places.into_iter().flat_map(|(backend, submission)| {
            [false, true].map(|multi_thread| Self { backend, submission, multi_thread })
        })
    }

    fn name(self) -> String {
        let place = match (self.backend, self.submission) {
            (Backend::Epoll, _) => "epoll",
            (Backend::Uring, Submission::Ring) => "ring",
            (Backend::Uring, _) => "io_uring",
        };
        let flavor = if self.multi_thread { "multi_thread" } else { "current_thread" };
        format!("{place}::{flavor}")
    }

    fn is_uring(self) -> bool {
        self.backend == Backend::Uring
    }

    fn options(self) -> Options {
        Options::new().backend(self.backend).submission(self.submission)
    }

    fn runtime(self) -> Runtime {
        let mut builder = match self.multi_thread {
            false => Builder::new_current_thread(),
            true => Builder::new_multi_thread(),
        };
        builder.worker_threads(2).enable_all().build().expect("a runtime")
    }

    fn pair(self) -> (UnixSeqpacket, UnixSeqpacket) {
        self.options().pair().expect("a pair")
    }

    /// A socket of the library, and its other end for plain system calls.
    fn half(self) -> (UnixSeqpacket, OwnedFd) {
        let (ours, peer) = socketpair();
        (self.options().socket_from_fd(ours).expect("a socket"), peer)
    }

    /// Run on a worker, where there are workers.
    fn run<T: Send + 'static>(
        self,
        runtime: &Runtime,
        body: impl Future<Output = T> + Send + 'static,
    ) -> T {
        if self.multi_thread {
            runtime.block_on(runtime.spawn(body)).expect("no panic")
        } else {
            runtime.block_on(body)
        }
    }

    /// Run in a runtime of its own, after whose end nothing is left.
    fn leaves_nothing<T: Send + 'static>(
        self,
        body: impl Future<Output = T> + Send + 'static,
    ) -> T {
        let base = base_line();
        let runtime = self.runtime();
        let output = self.run(&runtime, body);
        drop(runtime);
        nothing_is_left(base);
        output
    }
}

type Body = fn(Cell);

/// One test for each cell.
fn in_all_cells(tests: Vec<(&'static str, Body)>) -> Vec<Test> {
    let each = |cell: Cell| {
        let needs: &'static [Need] = if cell.is_uring() { &[Need::Uring] } else { &[] };
        tests.iter().map(move |(name, body)| {
            let (name, body) = (format!("{}::{name}", cell.name()), *body);
            Test { name, needs, body: Box::new(move || body(cell)) }
        })
    };
    Cell::all().flat_map(each).collect()
}

/// List bodies that run in every cell.
macro_rules! cells {
    ($($name:ident),* $(,)?) => {
        $crate::in_all_cells(vec![$((stringify!($name), $name as $crate::Body)),*])
    };
}
use cells;

/// How many descriptors this process has; tokio keeps some for ever once there was a runtime.
fn base_line() -> usize {
    Cell::all().for_each(|cell| drop(cell.runtime()));
    descriptors().len()
}

/// Everything is closed again.
fn nothing_is_left(base: usize) {
    until("all descriptors are closed", || descriptors().len() <= base);
    assert_eq!(rings().len(), 0);
}

/// Wait for something that tells nobody.
async fn until_in_runtime(what: &str, mut holds: impl FnMut() -> bool) {
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(20) {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("waited for nothing: {what}");
}
