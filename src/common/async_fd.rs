//! The one caller of [`AsyncFd::register`].
#![allow(unsafe_code, reason = "AsyncFd::register wants a promise about the descriptor")]

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use filedesc::FileDesc;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::runtime::Handle;

/// Both directions, for a socket whose owner may want either.
pub(crate) const BOTH: Interest = Interest::READABLE.add(Interest::WRITABLE);

/// Register a descriptor with the I/O driver of the current runtime.
///
/// # Errors
/// Without a runtime, or in a runtime without its I/O driver; what `epoll_ctl(2)` says. The
/// descriptor is closed then.
pub(crate) fn register(fd: OwnedFd, interest: Interest) -> io::Result<AsyncFd<FileDesc>> {
    // SAFETY: FileDesc owns its descriptor and neither replaces nor closes it while it lives (there is
    // no interior mutability), and AsyncFd hands it out by shared reference only: this module's
    // callers never use `get_mut`.
    unsafe { register_unchanging(FileDesc::new(fd), interest) }
}

/// As [`register`], for one of several owners. A descriptor can be registered once.
pub(crate) fn register_shared(
    fd: Arc<OwnedFd>,
    interest: Interest,
) -> io::Result<AsyncFd<Arc<OwnedFd>>> {
    // SAFETY: as above; an OwnedFd that is shared cannot be replaced, and is closed with its last owner.
    unsafe { register_unchanging(fd, interest) }
}

/// # Safety
/// `fd` is the same open descriptor as long as it lives.
unsafe fn register_unchanging<T: AsRawFd>(fd: T, interest: Interest) -> io::Result<AsyncFd<T>> {
    if Handle::try_current().is_err() {
        return Err(no_runtime());
    }
    // tokio offers no way to ask whether the I/O driver is enabled, and panics if it is not.
    let registered = catch_unwind(AssertUnwindSafe(|| {
        // SAFETY: the caller's promise.
        unsafe { AsyncFd::register_with_interest(fd, interest) }
    }));
    match registered {
        Ok(result) => result.map_err(|error| error.into_parts().1),
        Err(_) => Err(io::Error::other(
            "this tokio runtime has no I/O driver: build it with Builder::enable_io or enable_all",
        )),
    }
}

pub(crate) fn no_runtime() -> io::Error {
    io::Error::other(
        "no tokio runtime here: sockets are created inside one (Runtime::enter, block_on or a task)",
    )
}
