//! Whether the runtime of a socket still exists, how its receives wait, and what its rings are to be.
//!
//! A look into the kernel succeeds without tokio, also where the runtime is gone; but then calls are
//! to fail, whatever the kernel has. So each runtime with sockets has one task that does nothing
//! and whose end is the runtime's.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::runtime::{Handle, Id, RuntimeFlavor};

use crate::async_fd;

/// An id can be used again when its runtime is gone; the entry is removed before.
static LIVES: Mutex<Option<HashMap<Id, Weak<Life>>>> = Mutex::new(None);

/// Shared by the sockets of one runtime.
#[derive(Debug)]
pub(crate) struct Life {
    over: AtomicBool,
    /// Something has been registered with the I/O driver: there is one.
    has_driver: AtomicBool,
    /// The task that holds this ends with the runtime.
    handle: Handle,
    multi_thread: bool,
    /// How long receives look before they are parked, in nanoseconds.
    busy: AtomicU64,
    /// [`COOPERATIVE`] and [`MADE`].
    rings: AtomicU8,
}

/// The rings of this runtime are cooperative, see [`coop_taskrun`].
const COOPERATIVE: u8 = 1;
/// There are rings: it cannot be changed any more.
const MADE: u8 = 2;

/// Have the receives of the current runtime's sockets poll busily: one that finds no message looks for
/// one for at most `duration` before it is parked. Zero, as it is from the start, parks at once.
///
/// For two sides on different threads that answer each other quickly: waking a parked thread takes
/// longer than most answers. The price is a core that looks busy while it waits: one
/// `recv(2)` after the other, 4 µs at a time, then ready tasks, I/O events and timers have their turn.
/// It pays while other tasks are not kept waiting, so best on a runtime whose threads have nothing else
/// to do. Applies to receives that begin after this call, on both backends.
///
/// # Errors
/// Without a runtime, or while it shuts down.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
/// tokio_seqpacket::busy_poll(std::time::Duration::from_micros(50))?;
/// # Ok(()) }
/// ```
pub fn busy_poll(duration: Duration) -> io::Result<()> {
    let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    Life::here()?.busy.store(nanos, Ordering::Relaxed);
    Ok(())
}

/// Have the rings of the current runtime made with `IORING_SETUP_COOP_TASKRUN`, as they are if nobody
/// asks, or without. To be called before the runtime's first socket or listener, with which its first ring is made.
///
/// The kernel finishes an operation that had to wait on the thread that submitted it. With
/// `COOP_TASKRUN` it does so when that thread next enters the kernel, or with the next tick of its timer
/// (1 to 10 ms; none comes on a `nohz_full` core). Without, it interrupts the thread, so that another
/// worker learns of a message also while this one computes. On a current_thread runtime there is no
/// other, and nothing is gained.
///
/// What may be lost is a system call of the interrupted thread: those with a timeout (a receive from a
/// socket with `SO_RCVTIMEO`, `poll(2)`) fail with `EINTR` as after a signal, see `signal(7)`. tokio
/// and std's `sleep`, locks and `read_exact` begin again; other code that blocks a worker, in
/// `block_in_place` for example, may not be prepared for it.
///
/// Does nothing on epoll.
///
/// # Errors
/// If the runtime has rings of the other kind. Without a runtime, or while it shuts down.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
/// tokio_seqpacket::coop_taskrun(false)?;
/// let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
/// # drop((a, b)); Ok(()) }
/// ```
pub fn coop_taskrun(cooperative: bool) -> io::Result<()> {
    Life::here()?.choose_rings(cooperative)
}

impl Life {
    /// That of the current runtime.
    ///
    /// # Errors
    /// Without a runtime, or while it shuts down.
    pub(crate) fn here() -> io::Result<Arc<Self>> {
        let handle = Handle::try_current().map_err(|_| async_fd::no_runtime())?;
        let life = {
            let mut lives = lives();
            let lives = lives.get_or_insert_default();
            if let Some(life) = lives.get(&handle.id()).and_then(Weak::upgrade) {
                return life.check().map(|()| life);
            }
            let life = Arc::new(Self {
                over: AtomicBool::new(false),
                has_driver: AtomicBool::new(false),
                handle: handle.clone(),
                multi_thread: handle.runtime_flavor() != RuntimeFlavor::CurrentThread,
                busy: AtomicU64::new(0),
                rings: AtomicU8::new(COOPERATIVE),
            });
            lives.insert(handle.id(), Arc::downgrade(&life));
            life
        };
        let task = Task { life: life.clone(), id: handle.id() };
        handle.spawn(async move {
            let _task = task;
            std::future::pending::<()>().await;
        });
        life.check().map(|()| life)
    }

    /// Until when a receive that begins now looks before it is parked.
    pub(crate) fn busy_until(&self) -> Option<Instant> {
        match self.busy.load(Ordering::Relaxed) {
            0 => None,
            nanos => Instant::now().checked_add(Duration::from_nanos(nanos)),
        }
    }

    fn choose_rings(&self, cooperative: bool) -> io::Result<()> {
        let wanted = if cooperative { COOPERATIVE } else { 0 };
        let choose =
            |rings| (rings & MADE == 0 || rings == MADE | wanted).then_some(rings & MADE | wanted);
        match self.rings.fetch_update(Ordering::Relaxed, Ordering::Relaxed, choose) {
            Ok(_) => Ok(()),
            Err(_) => Err(io::Error::other(format!(
                "the rings of this runtime are made, {} COOP_TASKRUN: choose before the first socket",
                if cooperative { "without" } else { "with" }
            ))),
        }
    }

    /// Whether the rings that are made now are cooperative; no other choice from now on.
    pub(crate) fn make_rings(&self) -> bool {
        self.rings.fetch_or(MADE, Ordering::Relaxed) & COOPERATIVE != 0
    }

    pub(crate) fn is_multi_thread(&self) -> bool {
        self.multi_thread
    }

    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Run `f` where tokio finds this runtime.
    pub(crate) fn enter<T>(&self, f: impl FnOnce() -> T) -> T {
        let _guard = self.handle.enter();
        f()
    }

    /// Whether the runtime is known to have its I/O driver.
    pub(crate) fn has_driver(&self) -> bool {
        self.has_driver.load(Ordering::Relaxed)
    }

    pub(crate) fn found_driver(&self) {
        self.has_driver.store(true, Ordering::Relaxed);
    }

    /// # Errors
    /// The runtime is gone.
    pub(crate) fn check(&self) -> io::Result<()> {
        if self.over.load(Ordering::Relaxed) { Err(gone()) } else { Ok(()) }
    }
}

/// Held by the task; dropped with the runtime.
struct Task {
    life: Arc<Life>,
    id: Id,
}

impl Drop for Task {
    fn drop(&mut self) {
        self.life.over.store(true, Ordering::Relaxed);
        if let Some(lives) = lives().as_mut()
            && lives.get(&self.id).is_some_and(|life| life.as_ptr() == Arc::as_ptr(&self.life))
        {
            lives.remove(&self.id);
        }
    }
}

fn lives() -> MutexGuard<'static, Option<HashMap<Id, Weak<Life>>>> {
    LIVES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The error of every call on a socket whose runtime is gone.
pub(crate) fn gone() -> io::Error {
    io::Error::other("the tokio runtime that this socket belongs to is gone")
}
