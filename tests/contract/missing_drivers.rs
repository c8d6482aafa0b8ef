//! G10: runtimes without their I/O driver or their timers. What is missing is an error, and no panic hook runs.
//!
//! Each test has a process of its own: the hook is the process's, and so are the epoll instances that are looked for.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Barrier};

use tokio::runtime::{Builder, Runtime};
use tokio_seqpacket::Backend;
use tokio_test::task;

use crate::harness::descriptors::Full;
use crate::harness::peer;
use crate::harness::waiting::starts_waiting;
use crate::harness::{Cell, Test, alone};

pub fn tests() -> Vec<Test> {
    alone(blocking![
        without_an_io_driver_making_a_socket_is_an_error_and_no_panic,
        threads_that_look_at_the_same_time_find_no_driver_and_do_not_panic,
        beside_another_io_driver_a_runtime_without_one_panics_once_for_all_errors,
        a_runtime_with_the_only_io_driver_of_its_process_makes_sockets,
        where_no_descriptor_is_left_the_io_driver_is_found,
        without_timers_connect_waits_and_incoming_is_made_without_a_panic,
    ])
}

fn without_an_io_driver_making_a_socket_is_an_error_and_no_panic(cell: Cell) {
    let panics = Panics::counted();
    for _ in 0..2 {
        making_a_socket_is_an_error(cell, &cell.builder().enable_time().build().unwrap());
    }
    assert_eq!(panics.count(), 0);
}

fn threads_that_look_at_the_same_time_find_no_driver_and_do_not_panic(cell: Cell) {
    const THREADS: usize = 4;
    let panics = Panics::counted();
    let together = Barrier::new(THREADS);
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                for _ in 0..100 {
                    let runtime = cell.builder().build().unwrap();
                    together.wait();
                    runtime.block_on(async { cell.options().pair() }).unwrap_err();
                }
            });
        }
    });
    assert_eq!(panics.count(), 0);
}

/// tokio has no call to ask. What the process has says nothing of this runtime, so it is tried.
fn beside_another_io_driver_a_runtime_without_one_panics_once_for_all_errors(cell: Cell) {
    let panics = Panics::counted();
    let _other = Builder::new_current_thread().enable_io().build().unwrap();
    for runtimes in 1..3 {
        let runtime = cell.builder().enable_time().build().unwrap();
        making_a_socket_is_an_error(cell, &runtime);
        making_a_socket_is_an_error(cell, &runtime);
        assert_eq!(panics.count(), runtimes);
    }
}

fn making_a_socket_is_an_error(cell: Cell, runtime: &Runtime) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    // One to connect to, which has nothing to do with that runtime.
    let listening = peer::socket();
    let there = directory.path().join("there");
    rustix::net::bind(&listening, &rustix::net::SocketAddrUnix::new(&there).unwrap()).unwrap();
    rustix::net::listen(&listening, 0).unwrap();
    let errors = runtime.block_on(async {
        [
            cell.options().pair().unwrap_err(),
            cell.options().bind(&path, 1).unwrap_err(),
            cell.options().connect(&there).await.unwrap_err(),
            // It waits: the first has filled the backlog.
            cell.options().connect(&there).await.unwrap_err(),
            cell.options().socket_from_fd(peer::socketpair().0).unwrap_err(),
        ]
    });
    for error in errors {
        assert!(error.to_string().contains("enable_io"), "{error}");
    }
    assert!(!path.exists(), "a file is left");
}

fn a_runtime_with_the_only_io_driver_of_its_process_makes_sockets(cell: Cell) {
    let panics = Panics::counted();
    for _ in 0..2 {
        let runtime = cell.builder().enable_io().build().unwrap();
        runtime.block_on(async {
            let (a, b) = cell.pair();
            a.send(b"message").await.unwrap();
            assert_eq!(b.recv(&mut [0; 16]).await.unwrap(), 7);
        });
    }
    assert_eq!(panics.count(), 0);
}

fn where_no_descriptor_is_left_the_io_driver_is_found(cell: Cell) {
    let panics = Panics::counted();
    let runtime = cell.builder().enable_io().build().unwrap();
    let _entered = runtime.enter();
    let (ours, _peer) = peer::socketpair();
    let full = Full::new();
    let made = Cell { backend: Backend::Epoll, ..cell }.options().socket_from_fd(ours);
    drop(full);
    made.unwrap();
    assert_eq!(panics.count(), 0);
}

fn without_timers_connect_waits_and_incoming_is_made_without_a_panic(cell: Cell) {
    let panics = Panics::counted();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let runtime = cell.builder().enable_io().build().unwrap();
    runtime.block_on(async {
        let listener = cell.options().bind(&path, 0).unwrap();
        let _first = cell.connect(&path).await;
        let options = cell.options();
        let mut second = task::spawn(options.connect(&path));
        starts_waiting(&mut second);
        let mut incoming = listener.incoming().unwrap();
        incoming.accept().await.unwrap();
        second.await.unwrap();
    });
    assert_eq!(panics.count(), 0);
}

/// How often the panic hook has run.
struct Panics(Arc<AtomicU32>);

impl Panics {
    fn counted() -> Self {
        let count = Arc::new(AtomicU32::new(0));
        let counted = count.clone();
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            counted.fetch_add(1, Ordering::SeqCst);
            usual(info);
        }));
        Self(count)
    }

    fn count(&self) -> u32 {
        self.0.load(Ordering::SeqCst)
    }
}
