//! The registration for readiness: made when a call has to wait, given up when calls do without.
//!
//! While there is one, every message that arrives costs an event, needed or not: a quarter of a round trip
//! where nobody waits (BENCHMARKS.md). If it is for sending, too, so does every message that the peer takes;
//! so it is for receiving only until a send has to wait.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::async_fd;
use crate::runtime::Life;

pub(super) type Registration = AsyncFd<Arc<OwnedFd>>;

/// Of one socket, under the lock of its receiving direction.
#[derive(Debug, Default)]
pub(super) enum Waits {
    #[default]
    Unregistered,
    Registered(Registration),
    /// For good: its readiness, or the wakers in it, are somebody's who stands in no line.
    Lasting(Arc<Registration>),
}

impl Waits {
    pub(super) fn registration(&self) -> Option<&Registration> {
        match self {
            Self::Unregistered => None,
            Self::Registered(registration) => Some(registration),
            Self::Lasting(registration) => Some(registration),
        }
    }

    /// Somebody has to wait.
    pub(super) fn needed(
        &mut self,
        make: impl FnOnce() -> io::Result<Registration>,
    ) -> io::Result<&Registration> {
        if let Self::Unregistered = self {
            *self = Self::Registered(make()?);
        }
        Ok(self.registration().expect("made above"))
    }

    /// As [`needed`](Self::needed), for good.
    pub(super) fn lasting(
        &mut self,
        make: impl FnOnce() -> io::Result<Registration>,
    ) -> io::Result<Arc<Registration>> {
        let registration = match std::mem::take(self) {
            Self::Unregistered => Arc::new(make()?),
            Self::Registered(registration) => Arc::new(registration),
            Self::Lasting(registration) => registration,
        };
        *self = Self::Lasting(registration.clone());
        Ok(registration)
    }

    /// Whether there is one that may be given up.
    pub(super) fn is_passing(&self) -> bool {
        matches!(self, Self::Registered(_))
    }

    pub(super) fn give_up<'a>(&mut self, giving_up: &'a AtomicBool) -> GivenUp<'a> {
        giving_up.store(true, Ordering::Relaxed);
        GivenUp { _waits: std::mem::take(self), _until: Until(giving_up) }
    }
}

/// A registration that goes when this is dropped.
pub(super) struct GivenUp<'a> {
    _waits: Waits,
    /// Behind it, also if the destructor of a waker panics.
    _until: Until<'a>,
}

struct Until<'a>(&'a AtomicBool);

impl Drop for Until<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

/// Register the descriptor of a socket. `giving_up`: its last registration is being dropped.
///
/// # Errors
/// The runtime is gone or has no I/O driver; what `epoll_ctl(2)` says.
pub(super) fn make(
    fd: &Arc<OwnedFd>,
    interest: Interest,
    life: &Life,
    giving_up: &AtomicBool,
) -> io::Result<Registration> {
    let register = |fd| life.enter(|| async_fd::register_shared(fd, interest));
    loop {
        let still_there = giving_up.load(Ordering::Acquire);
        match register(fd.clone()) {
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => {}
            result => return result,
        }
        if !still_there {
            // The user has registered the number himself. A duplicate does as well.
            return register(Arc::new(fd.try_clone()?));
        }
        // On another thread, just now. tokio takes it from the epoll instance before it drops the wakers,
        // so this does not wait for anybody's code.
        std::thread::yield_now();
    }
}
