//! Exponential backoff with jitter, for events that the kernel does not signal.

use std::future::{Future, poll_fn};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::os::fd::AsFd;
use std::panic::catch_unwind;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use filedesc::FileDesc;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::Sleep;

use crate::backend::runtimes;
use crate::common::async_fd;

/// A wait on a timer of its own, made in advance. So a wait needs neither tokio's time driver nor a
/// free descriptor.
///
/// Where a test has paused tokio's clock, a wait uses one of tokio's timers instead. An idle
/// runtime moves a paused clock to its next timer, which would otherwise be the caller's timeout.
#[derive(Debug)]
pub(crate) struct Backoff {
    timer: AsyncFd<FileDesc>,
    /// The started wait, if the clock was paused.
    paused: Option<Pin<Box<Sleep>>>,
    /// Whether this runtime has no time driver.
    timeless: bool,
    first: Duration,
    next: Duration,
    longest: Duration,
    random: RandomState,
    waits: u32,
}

impl Backoff {
    pub(crate) fn new(first: Duration, longest: Duration) -> io::Result<Self> {
        let timer = timerfd_create(
            TimerfdClockId::Monotonic,
            TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK,
        )?;
        runtimes::here()?.check_io_driver(timer.as_fd())?;
        Ok(Self {
            timer: async_fd::register(timer, Interest::READABLE)?,
            paused: None,
            timeless: false,
            first,
            next: first,
            longest,
            random: RandomState::new(),
            waits: 0,
        })
    }

    pub(crate) async fn wait(&mut self) -> io::Result<()> {
        self.start()?;
        poll_fn(|cx| self.poll(cx)).await
    }

    /// Starts the next wait. It lasts between half and all of the current duration, which then
    /// doubles up to the bound.
    pub(crate) fn start(&mut self) -> io::Result<()> {
        let nanos = self.next.as_nanos() as u64;
        self.waits = self.waits.wrapping_add(1);
        let wait = nanos / 2 + self.random.hash_one(self.waits) % (nanos / 2);
        self.next = (self.next * 2).min(self.longest);
        self.paused = None;
        if !self.timeless && clock_is_paused() {
            // Without a time driver `sleep` panics, and tokio 1.54 has no call to ask for one. A
            // paused clock does not move there, so the timer serves as well. Only tests pause it.
            let sleep = || Box::pin(tokio::time::sleep(Duration::from_nanos(wait)));
            self.paused = catch_unwind(sleep).ok();
            self.timeless = self.paused.is_none();
            if !self.timeless {
                return Ok(());
            }
        }

        let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
        let wait =
            Timespec { tv_sec: (wait / 1_000_000_000) as _, tv_nsec: (wait % 1_000_000_000) as _ };
        let once = Itimerspec { it_interval: zero, it_value: wait };
        timerfd_settime(self.timer.get_ref().as_fd(), TimerfdTimerFlags::empty(), &once)?;
        Ok(())
    }

    /// Polls for the end of the started wait.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(sleep) = &mut self.paused {
            return sleep.as_mut().poll(cx).map(Ok);
        }
        loop {
            let mut guard = ready!(self.timer.poll_read_ready(cx))?;
            match rustix::io::read(guard.get_inner().as_fd(), &mut [0; 8]) {
                Err(rustix::io::Errno::AGAIN) => guard.clear_ready(),
                Err(error) => return Poll::Ready(Err(error.into())),
                Ok(_) => return Poll::Ready(Ok(())),
            }
        }
    }

    /// Makes the next wait a short one again, after a success.
    pub(crate) fn reset(&mut self) {
        self.next = self.first;
    }
}

/// Returns whether tokio's clock stands still while real time passes. tokio has no call to ask.
fn clock_is_paused() -> bool {
    let before = tokio::time::Instant::now();
    let start = Instant::now();
    while Instant::now() == start {}
    tokio::time::Instant::now() == before
}
