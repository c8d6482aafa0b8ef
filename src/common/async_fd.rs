//! The one caller of [`AsyncFd::register`].
#![allow(unsafe_code, reason = "AsyncFd::register is unsafe: the descriptor must stay what it is")]

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use filedesc::FileDesc;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::runtime::Handle;

/// Both directions, for a socket whose owner may use either.
pub(crate) const BOTH: Interest = Interest::READABLE.add(Interest::WRITABLE);

/// Registers a descriptor with the I/O driver of the current runtime.
///
/// # Errors
/// Fails without a runtime, or in a runtime without its I/O driver, and with the errors of
/// `epoll_ctl(2)`. The descriptor is closed then.
pub(crate) fn register(fd: OwnedFd, interest: Interest) -> io::Result<AsyncFd<FileDesc>> {
    // SAFETY: FileDesc owns its descriptor, and neither replaces nor closes it while it lives: it has
    // no interior mutability. AsyncFd lends it as a shared reference only, unless `get_mut` is called,
    // which this crate never does.
    unsafe { register_unchanging(FileDesc::new(fd), interest) }
}

/// Registers a descriptor that has several owners. Otherwise as [`register`]. A descriptor can be registered once.
pub(crate) fn register_shared(
    fd: Arc<OwnedFd>,
    interest: Interest,
) -> io::Result<AsyncFd<Arc<OwnedFd>>> {
    // SAFETY: a shared OwnedFd cannot be replaced, and std closes it with its last owner.
    unsafe { register_unchanging(fd, interest) }
}

/// Registers a descriptor, unless there is no I/O driver.
///
/// # Safety
/// `fd` stays the same open descriptor while it lives.
unsafe fn register_unchanging<T: AsRawFd>(fd: T, interest: Interest) -> io::Result<AsyncFd<T>> {
    if Handle::try_current().is_err() {
        return Err(no_runtime());
    }
    // tokio has no way to ask whether the I/O driver is enabled, and panics if it is not.
    let registered = catch_unwind(AssertUnwindSafe(|| {
        // SAFETY: tokio requires that `fd` stays the same open descriptor while it is registered, which
        // this function's own contract requires of its callers.
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
