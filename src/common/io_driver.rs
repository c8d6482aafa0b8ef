//! Whether a runtime has an I/O driver. tokio 1.54 has no call to ask, and panics where one is missing.
//!
//! A caught panic still runs the program's panic hook, and with `panic = "abort"` ends the program. So [`exists`] first
//! looks for a reason not to try: the driver of a runtime is an epoll instance, and a process that has none has no driver.
//! Only where another part of the process has one does it try.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::fd::BorrowedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, PoisonError};

use tokio::io::Interest;
use tokio::runtime::Builder;

use crate::common::async_fd;

/// Returns whether the current runtime has an I/O driver. `fd` is registered and removed again to find out.
pub(crate) fn exists(fd: BorrowedFd<'_>) -> bool {
    if none_exists().unwrap_or(false) {
        return false;
    }
    // Only the missing driver panics. An error comes from one that is there.
    let register = || drop(async_fd::register_borrowed(fd, Interest::READABLE));
    catch_unwind(AssertUnwindSafe(register)).is_ok()
}

/// Returns whether it is certain that no runtime of this process has an I/O driver.
fn none_exists() -> io::Result<bool> {
    // Another thread's control is no driver of the program.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    if has_epoll()? {
        return Ok(false);
    }
    // A check of the check: the driver of this runtime has to be found. It would not be if tokio stopped using epoll, or
    // where `/proc` names descriptors otherwise.
    let control = Builder::new_current_thread().enable_io().build()?;
    let is_found = has_epoll();
    // Dropping it could block, which tokio does not allow in a task.
    control.shutdown_background();
    is_found
}

/// Returns whether this process has an epoll instance.
fn has_epoll() -> io::Result<bool> {
    for entry in fs::read_dir("/proc/thread-self/fd")? {
        match fs::read_link(entry?.path()) {
            Ok(file) if file.as_os_str() == "anon_inode:[eventpoll]" => return Ok(true),
            Ok(_) => {}
            // It was closed meanwhile.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(false)
}
