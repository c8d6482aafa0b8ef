//! Connecting, also to a listener whose backlog is full.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use filedesc::FileDesc;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::address::SocketAddr;
use crate::{async_fd, sys};

const FIRST_WAIT: Duration = Duration::from_millis(1);
const LONGEST_WAIT: Duration = Duration::from_millis(32);

/// The socket, connected to `address`.
///
/// `connect(2)` on a non-blocking Unix socket succeeds or fails at once. While the backlog is full
/// it fails with EAGAIN, and nothing tells when there is room again: poll(2) reports the
/// unconnected socket as writable. So the call is repeated, after a wait that doubles up to a bound
/// and is drawn at random, lest many clients knock in step.
pub(crate) async fn connect(socket: OwnedFd, address: &SocketAddr) -> io::Result<OwnedFd> {
    let mut backoff = None;
    loop {
        match sys::connect(socket.as_fd(), address) {
            Ok(()) => return Ok(socket),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        let backoff = match &mut backoff {
            Some(backoff) => backoff,
            None => backoff.insert(Backoff::new()?),
        };
        backoff.wait().await?;
    }
}

/// Waits on a timer of its own: the runtime need not have tokio's time driver.
struct Backoff {
    timer: AsyncFd<FileDesc>,
    next: Duration,
    random: RandomState,
    waits: u32,
}

impl Backoff {
    fn new() -> io::Result<Self> {
        let timer = timerfd_create(
            TimerfdClockId::Monotonic,
            TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK,
        )?;
        Ok(Self {
            timer: async_fd::register(timer, Interest::READABLE)?,
            next: FIRST_WAIT,
            random: RandomState::new(),
            waits: 0,
        })
    }

    async fn wait(&mut self) -> io::Result<()> {
        let nanos = self.next.as_nanos() as u64;
        self.waits += 1;
        let wait = nanos / 2 + self.random.hash_one(self.waits) % (nanos / 2);
        self.next = (self.next * 2).min(LONGEST_WAIT);

        let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
        let once =
            Itimerspec { it_interval: zero, it_value: Timespec { tv_sec: 0, tv_nsec: wait as _ } };
        timerfd_settime(self.timer.get_ref().as_fd(), TimerfdTimerFlags::empty(), &once)?;
        self.timer
            .async_io(Interest::READABLE, |timer| {
                rustix::io::read(timer.as_fd(), &mut [0; 8]).map_err(io::Error::from)
            })
            .await?;
        Ok(())
    }
}
