//! Socket options that rustix does not have.

#![allow(unsafe_code, reason = "setsockopt(2)")]

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Switch a `SOL_SOCKET` option on.
pub fn switch_on(fd: impl AsFd, option: i32) -> io::Result<()> {
    let one: libc::c_int = 1;
    // SAFETY: the value is a local of the size that is given; the kernel reads it during the call.
    let result = unsafe {
        libc::setsockopt(
            fd.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            option,
            (&raw const one).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
