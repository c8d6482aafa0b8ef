//! The one caller of [`AsyncFd::register`].
#![allow(unsafe_code, reason = "AsyncFd::register is unsafe: the descriptor must stay what it is")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use filedesc::FileDesc;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Both directions, for a socket whose owner may use either.
pub(crate) const BOTH: Interest = Interest::READABLE.add(Interest::WRITABLE);

/// Registers a descriptor with the I/O driver of the current runtime.
///
/// # Errors
/// Fails while the runtime shuts down, and with the errors of `epoll_ctl(2)`. The descriptor is closed then.
///
/// # Panics
/// Panics without a runtime, or in one without its I/O driver: see [`exists`](crate::common::io_driver::exists).
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

/// Registers a borrowed descriptor. Otherwise as [`register_shared`].
pub(crate) fn register_borrowed(
    fd: BorrowedFd<'_>,
    interest: Interest,
) -> io::Result<AsyncFd<BorrowedFd<'_>>> {
    // SAFETY: what is borrowed stays open and the same until the borrow ends, and AsyncFd keeps the borrow.
    unsafe { register_unchanging(fd, interest) }
}

/// Registers a descriptor.
///
/// # Safety
/// `fd` stays the same open descriptor while it lives.
unsafe fn register_unchanging<T: AsRawFd>(fd: T, interest: Interest) -> io::Result<AsyncFd<T>> {
    // SAFETY: tokio requires that `fd` stays the same open descriptor while it is registered, which
    // this function's own contract requires of its callers.
    let registered = unsafe { AsyncFd::register_with_interest(fd, interest) };
    registered.map_err(|error| error.into_parts().1)
}
