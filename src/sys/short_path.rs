//! Short paths through `/proc/self/fd`, for paths that do not fit `sun_path`.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD};

use crate::types::socket_addr::{CAPACITY, SocketAddr};

/// Where all short paths lie.
pub(crate) const DIRECTORY: &str = "/proc/self/fd";

/// Returns a path that leads to the open file, wherever it is by now.
pub(crate) fn of(file: BorrowedFd<'_>) -> PathBuf {
    Path::new(DIRECTORY).join(file.as_raw_fd().to_string())
}

/// Returns the address of a name in an open directory.
///
/// # Errors
/// Returns `InvalidInput` for a name that does not fit `sun_path` even so.
pub(crate) fn in_directory(directory: BorrowedFd<'_>, name: &OsStr) -> io::Result<SocketAddr> {
    let directory = of(directory);
    let limit = CAPACITY - directory.as_os_str().len() - 1;
    if name.len() > limit {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!(
                "{}: file name of {} bytes exceeds the limit of {limit} bytes where the path has \
                 over {CAPACITY} bytes (sun_path)",
                name.display(),
                name.len()
            ),
        ));
    }
    SocketAddr::from_path(directory.join(name))
}

/// Returns the address of an open file, wherever it is by now.
///
/// # Errors
/// Returns `Unsupported` without `/proc`.
pub(crate) fn to(file: BorrowedFd<'_>) -> io::Result<SocketAddr> {
    SocketAddr::from_path(reachable(file, &long_path())?)
}

/// Returns what a call with a short path in place of a long one failed with. See [`explained`].
pub(crate) fn of_long_path(error: io::Error, file: BorrowedFd<'_>) -> io::Error {
    explained(error, file, &long_path())
}

/// Returns what a call with a short path through `file` failed with: its own error, or the lack of `/proc`, which `what`
/// takes.
pub(crate) fn explained(error: io::Error, file: BorrowedFd<'_>, what: &str) -> io::Error {
    reachable(file, what).err().unwrap_or(error)
}

fn long_path() -> String {
    format!("a path of over {CAPACITY} bytes")
}

fn reachable(file: BorrowedFd<'_>, what: &str) -> io::Result<PathBuf> {
    let path = of(file);
    match rustix::fs::statat(CWD, &path, AtFlags::empty()) {
        Ok(_) => Ok(path),
        Err(missing) => Err(io::Error::new(
            io::ErrorKind::Unsupported,
            format!(
                "{what} takes {DIRECTORY}, which cannot be used here (is /proc mounted?): {missing}"
            ),
        )),
    }
}
