//! One driver for each runtime: found when a socket is made, alive as long as the runtime.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use filedesc::FileDesc;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::runtime::{Handle, Id};

use super::graveyard::{self, Remains};
use super::ring::{Completion, ContextWatch, Refused, Ring, Submission};
use super::shard::{Dead, Lane, Listed, Shard};
use crate::runtime::{self, Life};
use crate::{async_fd, foreign};

/// How long a dying driver waits for cancelled operations to settle. Those that another thread
/// submitted settle on that thread.
const LAST_WAIT: Duration = Duration::from_millis(1);

/// The drivers of all runtimes. An id can be used again when its runtime is gone; the entry is
/// removed before, when the driver task is dropped.
static REGISTRY: Mutex<Option<HashMap<Id, Registered>>> = Mutex::new(None);

enum Registered {
    Alive(Weak<Driver>),
    /// The ring refused service: new sockets of this runtime go to epoll.
    Broken(String),
}

/// What the sockets of one runtime share.
pub(super) struct Driver {
    life: Arc<Life>,
    dead: AtomicBool,
    broken: OnceLock<String>,
    /// By worker. The first always exists; `None` where a ring could not be had.
    shards: Box<[OnceLock<Option<Arc<Shard>>>]>,
}

impl Driver {
    /// The driver of the current runtime, made if there is none yet.
    ///
    /// # Errors
    /// Without a runtime or its I/O driver; if no ring can be had.
    pub(super) fn here() -> io::Result<Arc<Self>> {
        let handle = Handle::try_current().map_err(|_| async_fd::no_runtime())?;
        let id = handle.id();
        {
            let registry = registry();
            match registry.as_ref().and_then(|drivers| drivers.get(&id)) {
                Some(Registered::Alive(driver)) => {
                    if let Some(driver) = driver.upgrade().filter(|driver| !driver.is_dead()) {
                        return Ok(driver);
                    }
                }
                Some(Registered::Broken(why)) => return Err(io::Error::other(why.clone())),
                None => {}
            }
        }
        graveyard::sweep();
        let life = Life::here()?;
        let workers = if life.is_multi_thread() { handle.metrics().num_workers() } else { 1 };
        let count = workers.clamp(1, 1 << 15);
        let driver = Arc::new(Self {
            life,
            dead: AtomicBool::new(false),
            broken: OnceLock::new(),
            shards: (0..count).map(|_| OnceLock::new()).collect(),
        });
        let task = DriverTask::new(&driver, 0)?;
        // Before anybody can find the driver.
        let _ = driver.shards[0].set(Some(task.shard.clone()));
        // Two threads of a runtime may come here together: the first to register wins.
        {
            let mut registry = registry();
            let drivers = registry.get_or_insert_default();
            if let Some(Registered::Alive(other)) = drivers.get(&id)
                && let Some(other) = other.upgrade().filter(|driver| !driver.is_dead())
            {
                driver.dead.store(true, Ordering::Release);
                return Ok(other);
            }
            drivers.insert(id, Registered::Alive(Arc::downgrade(&driver)));
        }
        driver.life.handle().spawn(task);
        if driver.is_dead() {
            return Err(driver.error());
        }
        Ok(driver)
    }

    pub(super) fn is_dead(&self) -> bool {
        self.dead.load(Ordering::Acquire)
    }

    /// Why calls fail.
    pub(super) fn error(&self) -> io::Error {
        match self.broken.get() {
            Some(why) => io::Error::other(why.clone()),
            None => runtime::gone(),
        }
    }

    /// Until when a receive that begins now looks before it is parked.
    pub(super) fn busy_until(&self) -> Option<Instant> {
        self.life.busy_until()
    }

    pub(super) fn is_multi_thread(&self) -> bool {
        self.life.is_multi_thread()
    }

    /// Whether the current thread is none of a multi-thread runtime's workers: there, waiting for a
    /// driver costs a hop to another thread.
    pub(super) fn is_far(&self) -> bool {
        self.is_multi_thread() && tokio::runtime::worker_index().is_none()
    }

    /// Run `f` where tokio finds this driver's runtime.
    pub(super) fn enter<T>(&self, f: impl FnOnce() -> T) -> T {
        self.life.enter(f)
    }

    /// Have a lane attended to, by the shard of this worker.
    pub(super) fn attend(self: &Arc<Self>, listed: Listed) -> Result<(), Dead> {
        if self.is_dead() {
            return Err(Dead);
        }
        self.shard_here().push(listed)
    }

    pub(super) fn shard(&self, index: u16) -> Option<&Arc<Shard>> {
        self.shards.get(usize::from(index))?.get()?.as_ref()
    }

    fn shard_here(self: &Arc<Self>) -> &Arc<Shard> {
        let first = || self.shard(0).expect("set before the driver is handed out");
        if self.shards.len() == 1 {
            return first();
        }
        // Of another runtime, perhaps: any shard will do.
        let Some(index) = tokio::runtime::worker_index().map(|index| index % self.shards.len())
        else {
            return first();
        };
        let shard = self.shards[index].get_or_init(|| {
            let task = self.enter(|| DriverTask::new(self, index as u16)).ok()?;
            let shard = task.shard.clone();
            self.life.handle().spawn(task);
            Some(shard)
        });
        shard.as_ref().unwrap_or_else(first)
    }

    /// Nothing goes through this driver any more.
    fn die(&self, broken: Option<String>) {
        if let Some(why) = broken {
            let _ = self.broken.set(why);
        }
        let was_dead = self.dead.swap(true, Ordering::AcqRel);
        if !was_dead {
            self.shards
                .iter()
                .filter_map(|shard| shard.get()?.as_ref())
                .for_each(|shard| shard.rouse());
        }
        if let Some(drivers) = registry().as_mut() {
            let mine = match drivers.get(&self.life.handle().id()) {
                Some(Registered::Alive(driver)) => std::ptr::eq(driver.as_ptr(), self),
                _ => false,
            };
            match self.broken.get() {
                Some(why) if mine => {
                    drivers.insert(self.life.handle().id(), Registered::Broken(why.clone()));
                }
                None if mine => drop(drivers.remove(&self.life.handle().id())),
                _ => {}
            }
        }
    }

    /// The runtime is going: its id may be used again.
    fn unregister_broken(&self) {
        if self.broken.get().is_some()
            && let Some(drivers) = registry().as_mut()
            && let Some(Registered::Broken(_)) = drivers.get(&self.life.handle().id())
        {
            drivers.remove(&self.life.handle().id());
        }
    }
}

fn registry() -> MutexGuard<'static, Option<HashMap<Id, Registered>>> {
    REGISTRY.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The task that submits and reaps for one shard.
struct DriverTask {
    driver: Arc<Driver>,
    shard: Arc<Shard>,
    /// `None` when the shard is dead.
    ring: Option<Arc<Ring>>,
    /// Of the ring. Tells when that is gone, whoever closes it.
    watch: Option<ContextWatch>,
    eventfd: AsyncFd<FileDesc>,
    /// What was pushed before the last poll and is to be submitted in the next.
    held: Vec<Listed>,
    pushed: Vec<Listed>,
    listening: bool,
    // Kept for their allocations.
    submissions: Vec<Submission>,
    completions: Vec<Completion>,
    wakes: Vec<Waker>,
}

impl DriverTask {
    fn new(driver: &Arc<Driver>, index: u16) -> io::Result<Self> {
        let (shard, ring, watch) = Shard::new(index, driver.life.make_rings())?;
        let eventfd: OwnedFd = ring.eventfd().try_clone_to_owned()?;
        Ok(Self {
            driver: driver.clone(),
            shard,
            ring: Some(ring),
            watch: Some(watch),
            eventfd: async_fd::register(eventfd, Interest::READABLE)?,
            held: Vec::new(),
            pushed: Vec::new(),
            listening: false,
            submissions: Vec::new(),
            completions: Vec::new(),
            wakes: Vec::new(),
        })
    }

    /// One cycle: submit what has been held, reap, wake. Whether anything happened.
    fn cycle(&mut self, ring: &Ring) -> Result<bool, Refused> {
        // What was pushed since the last cycle is held until the next, so that every task which is
        // ready runs before it is submitted: messages that those tasks send are there by then, and a
        // receive that finds its message need not be parked in the kernel, which is what costs most.
        self.shard.next_cycle();
        self.shard.take_pushed(&mut self.pushed);
        let due = !self.held.is_empty();
        for Lane { core, direction } in self.held.drain(..).filter_map(Listed::upgrade) {
            core.attend(direction, &self.shard, &mut self.submissions, &mut self.wakes);
        }
        std::mem::swap(&mut self.held, &mut self.pushed);
        if !self.submissions.is_empty() {
            let shard = &self.shard;
            ring.submit(&self.submissions, || shard.reap_all(ring))?;
            self.submissions.clear();
        } else if ring.has_deferred_work() {
            ring.get_events()?;
        }
        let reaped = self.shard.reap(ring, &mut self.completions, &mut self.wakes);
        self.wakes.drain(..).for_each(foreign::wake);
        Ok(due || reaped > 0 || !self.held.is_empty())
    }

    /// The end of this shard: fail what waits, cancel what is in flight, close the ring.
    fn die(&mut self, broken: Option<&Refused>) {
        let Some(ring) = self.ring.take() else { return };
        self.driver.die(broken.map(|refused| {
            format!("io_uring stopped working in this process: io_uring_enter: {}", refused.error)
        }));
        let (mut lanes, shared) = self.shard.kill();
        drop(shared);
        lanes.append(&mut self.held);
        lanes.append(&mut self.pushed);
        self.submissions.clear();
        if broken.is_some() {
            // What has completed can be seen without entering: messages that are received already.
            self.shard.reap(&ring, &mut self.completions, &mut self.wakes);
        } else if self.shard.in_flight() > 0 {
            let until = Instant::now() + LAST_WAIT;
            let mut refused = ring.cancel_all();
            self.shard.reap(&ring, &mut self.completions, &mut self.wakes);
            while refused.is_ok() && self.shard.in_flight() > 0 && Instant::now() < until {
                std::thread::yield_now();
                refused = ring.get_events();
                self.shard.reap(&ring, &mut self.completions, &mut self.wakes);
            }
        }
        let listed = lanes.into_iter().filter_map(Listed::upgrade);
        let mut remains = Remains::default();
        for Lane { core, direction } in self.shard.take_in_flight().into_iter().chain(listed) {
            core.abandon(direction, &mut remains, &mut self.wakes);
        }
        // Another thread may be using the ring for the drop of a socket; the last one closes it.
        drop(ring);
        if let Some(watch) = self.watch.take()
            && !remains.is_empty()
        {
            graveyard::bury(watch, remains);
        }
        graveyard::sweep();
        self.wakes.drain(..).for_each(foreign::wake);
    }
}

impl Future for DriverTask {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        // Without a ring the task stays, to know when the runtime goes.
        let Some(ring) = this.ring.clone() else { return Poll::Pending };
        if this.driver.is_dead() {
            // Another shard's ring has refused.
            drop(ring);
            this.die(None);
            return Poll::Pending;
        }
        if std::mem::take(&mut this.listening) {
            ring.silence();
        }
        match this.cycle(&ring) {
            Ok(false) => {}
            Ok(true) => {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            Err(refused) => {
                drop(ring);
                this.die(Some(&refused));
                // The task stays, to know when the runtime goes.
                return Poll::Pending;
            }
        }
        // Nothing to do: sleep until something is pushed or the eventfd is written.
        loop {
            if ring.listen() {
                ring.silence();
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            match this.eventfd.poll_read_ready(cx) {
                // Written for something that has been reaped, or that the next look finds.
                Poll::Ready(Ok(mut guard)) => guard.clear_ready(),
                // The runtime is shutting down; the drop of this task does the rest.
                Poll::Ready(Err(_)) | Poll::Pending => break,
            }
        }
        this.listening = true;
        if !this.shard.park(cx.waker()) {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }
}

impl Drop for DriverTask {
    fn drop(&mut self) {
        self.die(None);
        self.driver.unregister_broken();
        // What a broken ring left when it died, long ago.
        graveyard::sweep();
    }
}
