//! Waiting for what nothing tells of: doubling, bounded, drawn at random.

use std::future::poll_fn;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use filedesc::FileDesc;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::async_fd;

/// Waits on a timer of its own: the runtime need not have tokio's time driver, and there need not be
/// a descriptor left when it comes to waiting.
#[derive(Debug)]
pub(crate) struct Backoff {
    timer: AsyncFd<FileDesc>,
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
        Ok(Self {
            timer: async_fd::register(timer, Interest::READABLE)?,
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

    /// Start the next wait: half of it at least, and twice as long as the last up to the bound.
    pub(crate) fn start(&mut self) -> io::Result<()> {
        let nanos = self.next.as_nanos() as u64;
        self.waits = self.waits.wrapping_add(1);
        let wait = nanos / 2 + self.random.hash_one(self.waits) % (nanos / 2);
        self.next = (self.next * 2).min(self.longest);

        let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
        let wait =
            Timespec { tv_sec: (wait / 1_000_000_000) as _, tv_nsec: (wait % 1_000_000_000) as _ };
        let once = Itimerspec { it_interval: zero, it_value: wait };
        timerfd_settime(self.timer.get_ref().as_fd(), TimerfdTimerFlags::empty(), &once)?;
        Ok(())
    }

    /// Whether the wait that was started is over.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut guard = ready!(self.timer.poll_read_ready(cx))?;
            match rustix::io::read(guard.get_inner().as_fd(), &mut [0; 8]) {
                Err(rustix::io::Errno::AGAIN) => guard.clear_ready(),
                Err(error) => return Poll::Ready(Err(error.into())),
                Ok(_) => return Poll::Ready(Ok(())),
            }
        }
    }

    /// It worked: the next wait is a short one again.
    pub(crate) fn reset(&mut self) {
        self.next = self.first;
    }
}
