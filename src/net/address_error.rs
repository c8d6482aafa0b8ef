//! Errors of `bind(2)` and `connect(2)` that name the address and the cause. The cause is looked for only after a failure.

use std::error::Error;
use std::fmt;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use rustix::process::{Resource, getrlimit};

use crate::sys::{self, Bound};
use crate::types::socket_addr::SocketAddr;

/// What an `io::Error` with the kind of `source` carries.
#[derive(Debug)]
struct AddressError {
    text: String,
    source: io::Error,
}

impl fmt::Display for AddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.text, self.source)
    }
}

impl Error for AddressError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.source)
    }
}

fn with_text(source: io::Error, text: String) -> io::Error {
    io::Error::new(source.kind(), AddressError { text, source })
}

/// Returns `AddrInUse` for a path that cannot be bound to.
pub(crate) fn in_use(path: &Path, why: &str) -> io::Error {
    with_text(io::Error::from_raw_os_error(libc::EADDRINUSE), format!("{}: {why}", path.display()))
}

/// Adds the address and the reason to an error of the operating system.
pub(crate) fn with_reason(error: io::Error, address: &SocketAddr, reason: &str) -> io::Error {
    match error.raw_os_error() {
        Some(_) => with_text(error, format!("{}: {reason}", name(address))),
        None => error,
    }
}

/// Adds the address to the error of a connect, and the cause if it is found.
pub(crate) fn of_connect(error: io::Error, address: &SocketAddr) -> io::Error {
    explained(error, address, |errno| match address.as_pathname() {
        Some(path) => connect_cause(errno, path, address),
        None if errno == libc::ECONNREFUSED => Some(
            "no seqpacket socket listens under this abstract name in the network namespace of \
             this process"
                .into(),
        ),
        None => None,
    })
}

/// Adds the address to the error of a bind, and the cause if it is found.
pub(crate) fn of_bind(error: io::Error, address: &SocketAddr) -> io::Error {
    explained(error, address, |errno| match address.as_pathname() {
        Some(path) => bind_cause(errno, path, address),
        None if errno == libc::EADDRINUSE => Some("another socket has this abstract name".into()),
        None => None,
    })
}

fn explained(
    error: io::Error,
    address: &SocketAddr,
    cause: impl FnOnce(i32) -> Option<String>,
) -> io::Error {
    // Without an errno it has a text of its own.
    let Some(errno) = error.raw_os_error() else { return error };
    let cause = match errno {
        libc::EMFILE => Some(format!(
            "this process has as many open files as it may have, {} (RLIMIT_NOFILE)",
            getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
        )),
        libc::ENFILE => {
            Some("the system has as many open files as it may have (fs.file-max)".into())
        }
        errno => cause(errno),
    };
    let text = match cause {
        Some(cause) => format!("{}: {cause}", name(address)),
        None => name(address),
    };
    with_text(error, text)
}

fn name(address: &SocketAddr) -> String {
    match (address.as_pathname(), address.as_abstract_name()) {
        (Some(path), _) => path.display().to_string(),
        (_, Some(name)) => format!("@{}", name.escape_ascii()),
        _ => "unnamed address".into(),
    }
}

/// Returns why a connect failed, where that can be found out.
pub(crate) fn connect_cause(errno: i32, path: &Path, address: &SocketAddr) -> Option<String> {
    match errno {
        libc::ENOENT | libc::ENOTDIR => unreachable_part(path).or_else(|| {
            Some(match fs::symlink_metadata(path) {
                _ if leads_to_directory(path) => ONLY_A_DIRECTORY.into(),
                Ok(_) => "it is a symbolic link that leads nowhere".into(),
                Err(_) if path.as_os_str().as_bytes().starts_with(b"@") => {
                    "there is no file of this name. A name in the abstract namespace begins with a \
                     NUL byte, not with @"
                        .into()
                }
                Err(_) => "its directory exists, and has no file of this name".into(),
            })
        }),
        libc::EACCES => unreachable_part(path).or_else(|| {
            Some(format!("no permission to write to the file, {}", owner_and_mode(path)?))
        }),
        libc::ECONNREFUSED => {
            let kind = fs::metadata(path).ok()?.file_type();
            if !kind.is_socket() {
                return Some(format!("it is a {}, no socket", described(kind)));
            }
            match sys::bound_at(address).ok()? {
                Bound::Nothing => Some(
                    "no socket listens there: the socket file is stale, left by a process that \
                     has ended. `Options::replace_stale` makes a listener replace it"
                        .into(),
                ),
                _ => Some("a socket is bound there, and does not listen".into()),
            }
        }
        libc::EPROTOTYPE => match sys::bound_at(address).ok()? {
            Bound::Nothing => None,
            Bound::Datagram => Some("a datagram socket is bound there, no seqpacket socket".into()),
            Bound::Connection => Some("a stream socket is bound there, no seqpacket socket".into()),
        },
        _ => None,
    }
}

fn bind_cause(errno: i32, path: &Path, address: &SocketAddr) -> Option<String> {
    match errno {
        libc::ENOENT | libc::ENOTDIR => unreachable_part(path),
        libc::EACCES => unreachable_part(path).or_else(|| {
            let directory = directory_of(path);
            Some(format!(
                "no permission to make files in {}, {}",
                directory.display(),
                owner_and_mode(directory)?
            ))
        }),
        libc::EROFS => Some("the file system is read-only".into()),
        libc::EADDRINUSE => {
            let kind = fs::symlink_metadata(path).ok()?.file_type();
            if !kind.is_socket() {
                return Some(format!("it exists, as a {}", described(kind)));
            }
            match sys::bound_at(address).ok()? {
                Bound::Nothing => Some(
                    "no socket is bound to the socket file: it is stale, left by a process that \
                     has ended. `Options::replace_stale` makes a listener replace it"
                        .into(),
                ),
                _ => Some("a socket is bound to it".into()),
            }
        }
        _ => None,
    }
}

/// Why no socket is at a path that [leads to a directory](leads_to_directory).
pub(crate) const ONLY_A_DIRECTORY: &str =
    "only a directory can have a path that ends in a slash, in `.` or in `..`";

/// Returns whether a path leads to a directory or nowhere, whatever is there.
pub(crate) fn leads_to_directory(path: &Path) -> bool {
    let last = path.as_os_str().as_bytes().rsplit(|byte| *byte == b'/').next();
    matches!(last, Some(b"" | b"." | b".."))
}

/// Returns the directory that a path is in.
pub(crate) fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Finds the first part of the way to a file that is missing, no directory, or closed to this process.
fn unreachable_part(path: &Path) -> Option<String> {
    // From the root on.
    let parts: Vec<_> = path.ancestors().filter(|part| !part.as_os_str().is_empty()).collect();
    for part in parts.into_iter().rev() {
        let found = fs::metadata(part);
        let is_link = fs::symlink_metadata(part).is_ok_and(|found| found.is_symlink());
        if matches!(&found, Err(error) if error.kind() == io::ErrorKind::PermissionDenied) {
            if is_link {
                return Some(format!(
                    "no permission to follow the symbolic link {}",
                    part.display()
                ));
            }
            let directory = directory_of(part);
            let modes = owner_and_mode(directory).unwrap_or_default();
            return Some(format!("no permission to search {}, {modes}", directory.display()));
        }
        if part == path {
            break;
        }
        match found {
            Ok(file) if file.is_dir() => {}
            Ok(_) => return Some(format!("{} is no directory", part.display())),
            Err(_) if is_link => {
                return Some(format!("{} is a symbolic link that leads nowhere", part.display()));
            }
            Err(_) => return Some(format!("the directory {} does not exist", part.display())),
        }
    }
    None
}

fn owner_and_mode(path: &Path) -> Option<String> {
    let file = fs::metadata(path).ok()?;
    let (mode, user, group) = (file.mode() & 0o7777, file.uid(), file.gid());
    Some(format!("which has mode {mode:04o}, user {user} and group {group}"))
}

fn described(kind: fs::FileType) -> &'static str {
    if kind.is_file() {
        "regular file"
    } else if kind.is_dir() {
        "directory"
    } else if kind.is_symlink() {
        "symbolic link"
    } else if kind.is_fifo() {
        "FIFO"
    } else {
        "device"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_of_the_system_is_the_source_and_its_kind_stays() {
        let address = SocketAddr::from_path("/nowhere/socket").unwrap();
        for (errno, cause) in [
            (libc::EROFS, "the file system is read-only"),
            (libc::ENFILE, "fs.file-max"),
            (libc::ENOSPC, "/nowhere/socket"),
        ] {
            let error = of_bind(io::Error::from_raw_os_error(errno), &address);
            assert!(error.to_string().starts_with("/nowhere/socket"), "{error}");
            assert!(error.to_string().contains(cause), "{error}");
            assert_eq!(error.kind(), io::Error::from_raw_os_error(errno).kind());
            let source = error.source().unwrap().downcast_ref::<io::Error>().unwrap();
            assert_eq!(source.raw_os_error(), Some(errno));
        }
    }

    #[test]
    fn an_error_with_a_text_of_its_own_stays_as_it_is() {
        let own = in_use(Path::new("path"), "own words").to_string();
        let address = SocketAddr::from_path("other").unwrap();
        for explain in [of_bind, of_connect] {
            assert_eq!(explain(in_use(Path::new("path"), "own words"), &address).to_string(), own);
        }
    }
}
