//! A tokio runtime as its sockets know it: whether it still exists, how its receives wait, and its workers' drivers.
//!
//! A system call succeeds without tokio, also where the runtime is gone. But calls must fail then, whatever the kernel has.
//! The driver task of the first worker is dropped with the runtime, which shows that it is gone.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use tokio::runtime::{Handle, RuntimeFlavor};

use super::worker::{Listed, Worker};
use crate::common::io_driver;
use crate::common::trial::{Trial, Way};

/// What the layers above do for a runtime.
#[derive(Debug)]
pub(super) struct Hooks<S> {
    /// Spawns the driver of a worker that has had none.
    pub(super) drive: fn(&Arc<Runtime<S>>, &Arc<Worker<S>>),
    /// Called when the runtime is being dropped.
    pub(super) ended: fn(&Arc<Runtime<S>>),
}

/// A runtime, shared by its sockets.
#[derive(Debug)]
pub(crate) struct Runtime<S> {
    over: AtomicBool,
    /// Whether there is an I/O driver, once that was found out.
    has_io_driver: OnceLock<bool>,
    handle: Handle,
    multi_thread: bool,
    /// How long receives spin before they park, in nanoseconds.
    busy: AtomicU64,
    /// How many drivers are at work whose workers have load for batches.
    batching: AtomicUsize,
    /// Operations under such load.
    operations: AtomicU64,
    /// Finds out which way is faster under it.
    trial: Mutex<Trial>,
    /// The last answer of `trial`.
    prefers_batches: AtomicBool,
    hooks: Hooks<S>,
    /// By worker. The first always exists.
    workers: Box<[OnceLock<Arc<Worker<S>>>]>,
}

impl<S: Listed> Runtime<S> {
    pub(super) fn new(handle: Handle, hooks: Hooks<S>) -> Self {
        let multi_thread = handle.runtime_flavor() != RuntimeFlavor::CurrentThread;
        let workers = if multi_thread { handle.metrics().num_workers() } else { 1 };
        let trial = Trial::new();
        Self {
            over: AtomicBool::new(false),
            has_io_driver: OnceLock::new(),
            handle,
            multi_thread,
            busy: AtomicU64::new(0),
            batching: AtomicUsize::new(0),
            operations: AtomicU64::new(0),
            prefers_batches: AtomicBool::new(trial.way() == Way::Batched),
            trial: Mutex::new(trial),
            hooks,
            workers: (0..workers.clamp(1, 1 << 15)).map(|_| OnceLock::new()).collect(),
        }
    }

    pub(super) fn set_busy(&self, nanos: u64) {
        self.busy.store(nanos, Ordering::Relaxed);
    }

    /// Returns until when a receive that begins now spins before it is parked.
    pub(crate) fn busy_until(&self) -> Option<Instant> {
        match self.busy.load(Ordering::Relaxed) {
            0 => None,
            nanos => Instant::now().checked_add(Duration::from_nanos(nanos)),
        }
    }

    pub(crate) fn is_multi_thread(&self) -> bool {
        self.multi_thread
    }

    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Runs `f` where tokio finds this runtime.
    pub(crate) fn enter<T>(&self, f: impl FnOnce() -> T) -> T {
        let _guard = self.handle.enter();
        f()
    }

    /// Checks that the runtime has its I/O driver. `fd` may be registered and removed again for that.
    ///
    /// # Errors
    /// Fails if it has none.
    pub(crate) fn check_io_driver(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        let exists = self.has_io_driver.get().copied().unwrap_or_else(|| {
            // Not within `get_or_init`: a panic hook may run in here, and make a socket itself.
            let exists = self.enter(|| io_driver::exists(fd));
            *self.has_io_driver.get_or_init(|| exists)
        });
        if exists { Ok(()) } else { Err(no_io_driver()) }
    }

    /// Returns the worker with that index, and gives it a driver.
    pub(crate) fn worker(self: &Arc<Self>, index: usize) -> &Arc<Worker<S>> {
        let index = index % self.workers.len();
        self.workers[index].get_or_init(|| {
            let worker = Arc::new(Worker::new(index));
            (self.hooks.drive)(self, &worker);
            worker
        })
    }

    /// Returns the worker with that index, if it has a driver already.
    pub(crate) fn known_worker(&self, index: usize) -> Option<&Arc<Worker<S>>> {
        self.workers[index % self.workers.len()].get()
    }

    /// Returns whether all workers batch: this one has load for batches, or the driver of another that has is at work.
    ///
    /// Where one calls directly what another batches, the messages of a pair keep waiting for the other's batch. That costs more
    /// than either way.
    pub(super) fn is_batched(&self) -> bool {
        self.prefers_batches()
            && (self.batching.load(Ordering::Relaxed) > 0
                || self
                    .known_worker(tokio::runtime::worker_index().unwrap_or(0))
                    .is_some_and(|worker| worker.is_loaded()))
    }

    /// Returns whether batches are the faster way under load, or are being tried.
    pub(super) fn prefers_batches(&self) -> bool {
        self.prefers_batches.load(Ordering::Relaxed)
    }

    /// Notes that a worker has made more operations under load for batches.
    pub(super) fn note_operations(&self, more: u32) {
        self.operations.fetch_add(more.into(), Ordering::Relaxed);
        let mut trial = match self.trial.try_lock() {
            Ok(trial) => trial,
            Err(TryLockError::Poisoned(trial)) => trial.into_inner(),
            // Another worker reports just now. This one does so next time.
            Err(TryLockError::WouldBlock) => return,
        };
        // Under the lock, so that the counts for the trial never fall.
        let operations = self.operations.load(Ordering::Relaxed);
        let load = self.known_workers().map(|worker| worker.average()).fold(0.0, f32::max);
        trial.note(operations, load, Instant::now());
        self.prefers_batches.store(trial.way() == Way::Batched, Ordering::Relaxed);
    }

    /// Notes that a worker's load is not one for batches any more.
    pub(super) fn load_is_gone(&self) {
        if self.known_workers().any(|worker| worker.is_loaded()) {
            return;
        }
        let mut trial = self.trial.lock().unwrap_or_else(PoisonError::into_inner);
        trial.pause();
        self.prefers_batches.store(trial.way() == Way::Batched, Ordering::Relaxed);
    }

    /// Counts one more driver at work for batches, or one fewer.
    pub(super) fn count_batching(&self, more: bool) {
        if more {
            self.batching.fetch_add(1, Ordering::Relaxed);
        } else {
            self.batching.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Returns how often a worker has parked. `None` where tokio does not count.
    pub(super) fn parks(&self, _worker: usize) -> Option<u64> {
        #[cfg(target_has_atomic = "64")]
        return Some(self.handle.metrics().worker_park_count(_worker));
        #[cfg(not(target_has_atomic = "64"))]
        None
    }

    /// Returns a worker for work that has no deadline: that of this thread, if it has a driver, and otherwise the first. It may
    /// be another runtime's thread.
    pub(crate) fn some_worker(self: &Arc<Self>) -> &Arc<Worker<S>> {
        let index = tokio::runtime::worker_index().unwrap_or(0);
        self.known_worker(index).unwrap_or_else(|| self.worker(0))
    }

    /// Returns the workers that have a driver.
    pub(crate) fn known_workers(&self) -> impl Iterator<Item = &Arc<Worker<S>>> {
        self.workers.iter().filter_map(OnceLock::get)
    }

    /// Returns the index of the current thread, if it is a worker whose driver runs once this task yields. On other threads an
    /// operation must not be left to a driver: the runtime may not be driven by any thread.
    pub(crate) fn own_index(&self) -> Option<usize> {
        let index = tokio::runtime::worker_index()?;
        // A worker of another runtime can run a multi_thread runtime's task, which its own threads drive.
        let own = self.multi_thread
            || Handle::try_current().is_ok_and(|handle| handle.id() == self.handle.id());
        own.then_some(index % self.workers.len())
    }

    /// Notes that the runtime is being dropped.
    pub(super) fn end(self: &Arc<Self>) {
        self.over.store(true, Ordering::Release);
        (self.hooks.ended)(self);
    }

    /// Checks that the runtime still exists.
    ///
    /// # Errors
    /// Fails if the runtime is gone.
    pub(crate) fn check(&self) -> io::Result<()> {
        if self.over.load(Ordering::Acquire) { Err(gone()) } else { Ok(()) }
    }
}

/// Returns the error of calls that make a socket outside a runtime.
pub(super) fn missing() -> io::Error {
    io::Error::other(
        "no tokio runtime here: sockets are created inside one (Runtime::enter, block_on or a task)",
    )
}

fn no_io_driver() -> io::Error {
    io::Error::other(
        "this tokio runtime has no I/O driver: build it with Builder::enable_io or enable_all \
         (if tokio has panicked over it just now, that was caught)",
    )
}

/// Returns the error of every call on a socket whose runtime is gone.
pub(crate) fn gone() -> io::Error {
    io::Error::other("the tokio runtime that this socket belongs to is gone")
}
