//! A socket's registration with tokio's I/O driver: how its operations wait, on both backends.
//!
//! A registration costs an event for every message that arrives, expected or not. That is a quarter of a round trip where
//! no operation waits. If it is for sending too, it also costs an event for every message that the peer takes.
//!
//! So it is made when an operation has to wait, and for sending only once a send has to. It is dropped after
//! [`UNUSED_OPERATIONS`] operations that did not wait.
//!
//! epoll reports changes only. tokio remembers them until the kernel was asked and had nothing ([`Readiness::park`]).

use std::future::poll_fn;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::runtime::Handle;
use tokio::task::coop;

use crate::common::async_fd;

type Registration = AsyncFd<Arc<OwnedFd>>;

/// The registration is dropped after so many operations in a row that did not need it. Making it again costs as much as
/// ten events.
const UNUSED_OPERATIONS: u8 = 16;

/// What to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    Read,
    Write,
}

#[derive(Debug, Default)]
pub(crate) struct Readiness {
    state: Mutex<RegistrationState>,
    /// Whether there is a registration, as the last holder of the lock left it.
    registered: AtomicBool,
}

#[derive(Debug, Default)]
struct RegistrationState {
    registration: Option<Registration>,
    /// Whether it is for both directions.
    wide: bool,
    /// Whether the socket's waker is stored in it.
    armed: bool,
    unused: u8,
    closed: bool,
}

impl Readiness {
    /// Waits for readiness. Returns `None` if `waker` is going to be called.
    ///
    /// While tokio says that the descriptor is ready, `call` asks the kernel. Its answer is returned unless it is
    /// `WouldBlock`. `None` means that the kernel had nothing when it was last asked, and that nothing has come since.
    ///
    /// `waker` is the socket's own. It is never called in here for [`Direction::Read`], which is waited for under the
    /// receive queue's lock. No lock of the socket is held for [`Direction::Write`].
    ///
    /// # Errors
    /// Fails if the runtime is gone, and with the errors of `epoll_ctl(2)` and of `call`.
    pub(crate) fn park<T>(
        &self,
        direction: Direction,
        fd: &Arc<OwnedFd>,
        runtime: &Handle,
        waker: &Waker,
        mut call: impl FnMut() -> io::Result<T>,
    ) -> io::Result<Option<T>> {
        let mut state = self.lock();
        if state.closed {
            return Ok(None);
        }
        let widens = direction == Direction::Write && !state.wide;
        // A receive that was parked in the narrow registration is woken, and asks again.
        let lost = widens && state.armed;
        if widens {
            // A descriptor can be registered once (EEXIST in epoll_ctl(2)).
            self.drop_registration(&mut state);
            state.wide = true;
        }
        let parked = self.park_in(&mut state, direction, fd, runtime, waker, &mut call);
        drop(state);
        if lost {
            waker.wake_by_ref();
        }
        parked
    }

    fn park_in<T>(
        &self,
        state: &mut RegistrationState,
        direction: Direction,
        fd: &Arc<OwnedFd>,
        runtime: &Handle,
        waker: &Waker,
        call: &mut dyn FnMut() -> io::Result<T>,
    ) -> io::Result<Option<T>> {
        state.unused = 0;
        if state.registration.is_none() {
            // A new registration reports later what is there already.
            match call() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return result.map(Some),
            }
            let interest = if state.wide { async_fd::BOTH } else { Interest::READABLE };
            let _guard = runtime.enter();
            state.registration = Some(make(fd, interest)?);
            self.registered.store(true, Ordering::Relaxed);
        }
        let Some(registration) = &state.registration else { return Ok(None) };
        loop {
            // Without tokio's budget, which would call the waker at once where it is used up.
            let polled = std::pin::pin!(coop::unconstrained(poll_fn(|cx| match direction {
                Direction::Read => registration.poll_read_ready(cx),
                Direction::Write => registration.poll_write_ready(cx),
            })))
            .poll(&mut Context::from_waker(waker));
            let Poll::Ready(guard) = polled else {
                state.armed = true;
                return Ok(None);
            };
            // The guard is from before the call: an event that comes after it is not cleared.
            let mut guard = guard?;
            match call() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => guard.clear_ready(),
                result => return result.map(Some),
            }
        }
    }

    /// Notes that the waker was called.
    pub(crate) fn fired(&self) {
        self.lock().armed = false;
    }

    /// Notes an operation that did not wait.
    ///
    /// Returns true if so many did not that the registration can be dropped, unless an operation waits for it.
    pub(crate) fn did_without(&self) -> bool {
        if !self.registered.load(Ordering::Relaxed) {
            return false;
        }
        let mut state = self.lock();
        state.unused = state.unused.saturating_add(1);
        state.unused >= UNUSED_OPERATIONS
    }

    /// Drops the registration if no operation waits for it. None did when the caller checked, before the lock was taken.
    pub(crate) fn drop_unused(&self) -> bool {
        let mut state = self.lock();
        let unused = state.unused >= UNUSED_OPERATIONS;
        if unused {
            self.drop_registration(&mut state);
        }
        unused
    }

    /// Notes that an operation waits for the registration.
    pub(crate) fn is_used(&self) {
        self.lock().unused = 0;
    }

    /// Drops the registration for good: the socket closes, or its descriptor is handed out.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        self.drop_registration(&mut state);
    }

    /// Drops the registration. The waker in it is the socket's own, so no user code runs under the lock.
    fn drop_registration(&self, state: &mut RegistrationState) {
        state.registration = None;
        (state.wide, state.armed, state.unused) = (false, false, 0);
        self.registered.store(false, Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, RegistrationState> {
        // Nothing under this lock panics half-way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn make(fd: &Arc<OwnedFd>, interest: Interest) -> io::Result<Registration> {
    match async_fd::register_shared(fd.clone(), interest) {
        // The caller has registered this raw fd. A duplicate has another one.
        Err(error) if error.raw_os_error() == Some(libc::EEXIST) => {
            async_fd::register_shared(Arc::new(fd.try_clone()?), interest)
        }
        made => made,
    }
}
