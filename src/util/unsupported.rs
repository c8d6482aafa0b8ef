//! Errors that name what the kernel lacks.

use std::io;

/// `Unsupported` for an option of a later kernel.
pub(crate) fn too_old(error: io::Error, option: &str, version: &str) -> io::Error {
    unsupported(error, || format!("this kernel does not know {option}: Linux {version} does"))
}

/// `Unsupported` for an option that the kernel does not know.
pub(crate) fn unsupported(error: io::Error, what: impl FnOnce() -> String) -> io::Error {
    match error.raw_os_error() {
        Some(libc::ENOPROTOOPT) => io::Error::new(io::ErrorKind::Unsupported, what()),
        _ => error,
    }
}
