//! The registration for readiness: made when a call has to wait, given up when calls do without.
//!
//! While there is one, every message that arrives costs an event, needed or not, and so does every
//! message that the peer takes: a quarter of a round trip where nobody waits (BENCHMARKS.md).

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use tokio::io::unix::AsyncFd;

use crate::async_fd;
use crate::runtime::Life;

pub(super) type Registration = AsyncFd<Arc<OwnedFd>>;

/// It is given up after so many calls that did not need it. To give it up and make it anew costs as much
/// as some ten events.
const UNUSED: u8 = 64;

/// The registration of one socket, under the lock of its receiving direction.
#[derive(Debug, Default)]
pub(super) struct Waits {
    registration: Option<Arc<Registration>>,
    /// How many calls in a row did without.
    unused: u8,
    lasting: bool,
}

impl Waits {
    pub(super) fn are_registered(&self) -> bool {
        self.registration.is_some()
    }

    pub(super) fn registered(&self) -> Option<Arc<Registration>> {
        self.registration.clone()
    }

    /// It is not given up any more.
    pub(super) fn keep(&mut self) {
        self.lasting = true;
    }

    /// Somebody has to wait.
    ///
    /// # Errors
    /// The runtime is gone or has no I/O driver; what `epoll_ctl(2)` says.
    pub(super) fn needed(
        &mut self,
        fd: &Arc<OwnedFd>,
        life: &Life,
    ) -> io::Result<&Arc<Registration>> {
        self.unused = 0;
        let registration = match self.registration.take() {
            Some(registration) => registration,
            None => Arc::new(register(fd, life)?),
        };
        Ok(self.registration.insert(registration))
    }

    /// So many calls did not need it. It comes back if it is to be given up, which `nobody_else` waiting
    /// allows.
    pub(super) fn did_without(
        &mut self,
        calls: u8,
        nobody_else: bool,
    ) -> Option<Arc<Registration>> {
        if self.registration.is_none() || self.lasting {
            return None;
        }
        self.unused = self.unused.saturating_add(calls);
        if self.unused < UNUSED || !nobody_else {
            return None;
        }
        self.registration.take()
    }
}

fn register(fd: &Arc<OwnedFd>, life: &Life) -> io::Result<Registration> {
    loop {
        match life.enter(|| async_fd::register_shared(fd.clone(), async_fd::BOTH)) {
            // The last one is being dropped on another thread just now. tokio takes it from the epoll
            // instance before it drops the wakers, so this does not wait for anybody's code.
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => std::thread::yield_now(),
            result => return result,
        }
    }
}
