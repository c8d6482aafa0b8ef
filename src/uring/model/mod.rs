//! The lanes against a fake ring: any order of completions, late ones, uninvited `-EAGAIN` and
//! `-ECANCELED`, success after a cancel, operations that fail or cannot be made, calls that are dropped
//! at any point, and the end of the driver or of the socket in the middle; compared with a plain queue.
//!
//! An event does one step of one party: a call, the driver, the kernel. A [`socket::Model`] applies them
//! to both lanes of a socket, and in the end lets everything run that can and checks what is left.
//! Fuzzing reads its scripts from bytes; `MODEL_SCHEDULES` sets how many schedules the test runs.

mod receive;
mod send;
pub(crate) mod socket;

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Wake, Waker};

use crate::watch::Bell;
use tokio::sync::futures::OwnedNotified;

use crate::lane::Outcome;
use crate::watch::{Settled, Watchers};

/// A task: whether it has been woken since it was last polled.
#[derive(Default)]
struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

struct Task {
    flag: Arc<Flag>,
    waker: Waker,
}

impl Task {
    fn new() -> Self {
        let flag = Arc::new(Flag::default());
        Self { waker: flag.clone().into(), flag }
    }

    fn woken() -> Self {
        let task = Self::new();
        task.waker.wake_by_ref();
        task
    }

    fn is_woken(&self) -> bool {
        self.flag.0.load(Ordering::Relaxed)
    }

    fn take_woken(&self) -> bool {
        self.flag.0.swap(false, Ordering::Relaxed)
    }
}

/// What the kernel has of a lane: one operation at most.
struct Operation<T> {
    key: u64,
    payload: u64,
    cancel_asked: bool,
    /// The completion, once there is one, until it is reaped.
    completion: Option<Outcome<T>>,
}

/// The steps of the driver and the kernel, the same in both directions.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Ring {
    /// The driver attends to the lane, if that is on its list.
    Attend,
    /// The driver attends to it, and an operation cannot be made: no memory for a payload.
    Exhausted,
    /// The kernel finishes the operation, if it can.
    Finish,
    /// The kernel ends the operation for no reason.
    Void,
    /// The kernel fails it.
    Fail,
    /// The completion is reaped.
    Reap,
}

/// `errno` of what [`Ring::Fail`] and [`Ring::Exhausted`] do.
const FAILURE: i32 = libc::ECONNRESET;
const EXHAUSTED: i32 = libc::ENOMEM;

/// Those who want to know when a lane settles.
#[derive(Default)]
struct Watching {
    parked: Option<Task>,
    waiting: Vec<(Pin<Box<OwnedNotified>>, Task)>,
    bell: Bell,
}

impl Watching {
    /// As `poll_*` does: the last to come replaces the others.
    fn park(&mut self, watchers: &mut Watchers) {
        let task = Task::new();
        drop(watchers.park(&task.waker));
        self.parked = Some(task);
    }

    /// As `ready` does.
    fn announce(&mut self, watchers: &mut Watchers) {
        let mut notified = Box::pin(self.bell.notified_owned());
        watchers.announce();
        let task = Task::new();
        let ready = notified.as_mut().poll(&mut Context::from_waker(&task.waker));
        assert!(ready.is_pending());
        self.waiting.push((notified, task));
    }

    fn tell(&mut self, settled: Settled) {
        settled.tell(&self.bell);
        self.parked.take_if(|task| task.is_woken());
        self.waiting.retain(|(_, task)| !task.is_woken());
    }

    /// That nobody sleeps who should have been told.
    fn check_told(&self) {
        assert!(self.parked.is_none(), "the lane has settled, and the one who polls knows");
        assert!(self.waiting.is_empty(), "the lane has settled, and those who wait know");
    }
}
