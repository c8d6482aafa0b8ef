//! Runtimes that come and go, and the threads that drive them.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use fastrand::Rng;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::life::live;
use crate::plan::Plan;
use crate::report::Count;
use crate::side::{Shared, Side};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flavor {
    CurrentThread,
    MultiThread,
    Both,
}

type Inbox = mpsc::UnboundedReceiver<(Plan, OwnedFd)>;

/// So many runtimes at a time in one process.
const WORKERS: usize = 3;

pub struct Workers {
    inboxes: Vec<mpsc::UnboundedSender<(Plan, OwnedFd)>>,
    threads: Vec<JoinHandle<()>>,
}

impl Workers {
    pub fn start(shared: &Arc<Shared>, flavor: Flavor, rng: &mut Rng) -> Self {
        let mut workers = Self { inboxes: Vec::new(), threads: Vec::new() };
        for number in 0..WORKERS {
            let multi_thread = match flavor {
                Flavor::CurrentThread => false,
                Flavor::MultiThread => true,
                Flavor::Both => number % 2 == 1,
            };
            let (to, inbox) = mpsc::unbounded_channel();
            let (shared, rng) = (shared.clone(), rng.fork());
            workers.inboxes.push(to);
            workers.threads.push(std::thread::spawn(move || {
                work(&shared, multi_thread, inbox, rng);
            }));
        }
        workers
    }

    pub fn assign(&self, plan: Plan, fd: OwnedFd) {
        // Not by slot alone: each slot meets all workers.
        let worker = (u64::from(plan.slot) + plan.life) as usize % self.inboxes.len();
        // The panic of a worker has been reported.
        let _ = self.inboxes[worker].send((plan, fd));
    }

    /// No more connections. Returns when all runtimes are gone.
    pub fn finish(self) {
        drop(self.inboxes);
        for thread in self.threads {
            let _ = thread.join();
        }
    }
}

fn work(shared: &Arc<Shared>, multi_thread: bool, mut inbox: Inbox, mut rng: Rng) {
    let mut open = true;
    while open {
        let runtime = runtime(shared, multi_thread);
        let closing = Arc::new(AtomicBool::new(false));
        // Each stint drives the runtime from another thread, which ends. Nothing cancels what
        // that thread has submitted to a ring.
        for _ in 0..rng.u8(4..20) {
            let time = Duration::from_millis(rng.u64(50..400));
            let stint = stint(shared, &closing, multi_thread, &mut inbox, time);
            let thread = || runtime.block_on(stint);
            open = std::thread::scope(|scope| scope.spawn(thread).join()).unwrap_or(false);
            shared.counters.add(Count::Threads, 1);
            if !open {
                break;
            }
        }
        closing.store(true, Ordering::SeqCst);
        drop(runtime);
        shared.counters.add(Count::Runtimes, 1);
    }
}

fn runtime(shared: &Shared, multi_thread: bool) -> Runtime {
    let _need = shared.limit.need();
    let mut builder = match multi_thread {
        true => Builder::new_multi_thread(),
        false => Builder::new_current_thread(),
    };
    builder.worker_threads(2).thread_keep_alive(Duration::from_millis(20));
    builder.enable_io().enable_time().build().expect("a runtime")
}

/// Whether there may be more connections.
async fn stint(
    shared: &Arc<Shared>,
    closing: &Arc<AtomicBool>,
    multi_thread: bool,
    inbox: &mut Inbox,
    time: Duration,
) -> bool {
    if multi_thread {
        // A worker's thread leaves its work to another, and ends.
        let counted = shared.clone();
        tokio::spawn(async move {
            tokio::task::block_in_place(|| std::thread::sleep(Duration::from_millis(1)));
            counted.counters.add(Count::Threads, 1);
        });
    }
    let end = Instant::now() + time;
    loop {
        match tokio::time::timeout_at(end, inbox.recv()).await {
            Err(_) => return true,
            Ok(None) => return false,
            Ok(Some((plan, fd))) => match Side::adopt(shared, closing, plan, fd) {
                Ok(side) => drop(tokio::spawn(live(side))),
                Err(error) => shared.fail(format!("a socket cannot be taken over: {error}")),
            },
        }
    }
}
