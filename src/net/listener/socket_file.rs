//! [`SocketFile`]: the file of a bound socket, its permissions, its removal, and the replacement of
//! a stale one.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, Stat, Uid};
use rustix::io::Errno;

use crate::net::address_error::{
    self, ONLY_A_DIRECTORY, connect_cause, directory_of, in_use, leads_to_directory, with_reason,
};
use crate::net::options::FileOptions;
use crate::sys::{self, Bound, short_path};
use crate::types::socket_addr::SocketAddr;

/// The directory and the name of a socket's file. The directory is opened before `bind(2)` makes
/// the file: the process can change its directory, and the path can come to lead elsewhere.
#[derive(Debug)]
struct Place {
    directory: OwnedFd,
    name: OsString,
}

impl Place {
    fn of(path: &Path) -> io::Result<Self> {
        let name = match path.file_name() {
            // `Path` leaves out what follows the name.
            Some(name) if !leads_to_directory(path) => name.to_owned(),
            _ => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidInput,
                    format!("{}: {ONLY_A_DIRECTORY}", path.display()),
                ));
            }
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self {
            directory: rustix::fs::openat(CWD, directory_of(path), flags, Mode::empty())?,
            name,
        })
    }

    /// Returns the device and inode of the file. A symbolic link is not followed.
    fn identity(&self) -> io::Result<(u64, u64)> {
        let file = rustix::fs::statat(&self.directory, &self.name, AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(identity(&file))
    }

    /// Opens the file, without following a symbolic link. While it is open, no other file has its
    /// inode.
    fn hold(&self) -> io::Result<Held> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.directory, &self.name, flags, Mode::empty())?;
        Ok(Held { stat: rustix::fs::fstat(&file)?, file })
    }

    fn unlink(&self) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(&self.directory, &self.name, AtFlags::empty())?)
    }

    /// Returns a short path of another name in the directory, valid wherever the directory is by
    /// now.
    fn beside(&self, name: &str) -> io::Result<SocketAddr> {
        short_path::in_directory(self.directory.as_fd(), OsStr::new(name))
    }

    /// Calls `bind(2)`, with a short path if the address does not fit `sun_path`. Returns the
    /// identity of the file that it has made.
    fn bind(&self, fd: BorrowedFd<'_>, address: &SocketAddr) -> io::Result<(u64, u64)> {
        let Some(path) = address.as_pathname().filter(|_| address.long_path().is_none()) else {
            let directory = self.directory.as_fd();
            let short = short_path::in_directory(directory, &self.name)?;
            sys::bind(fd, &short).map_err(|error| short_path::of_long_path(error, directory))?;
            return self.identity();
        };
        // Held, so that the new file does not get its inode.
        let before = self.hold().ok();
        sys::bind(fd, address)?;
        let before = before.as_ref().map(|file| identity(&file.stat));
        match self.identity() {
            // bind(2) makes a new file. If it is not here, the path led to another directory.
            Ok(made) if Some(made) != before => Ok(made),
            _ => Err(io::Error::other(format!(
                "{}: its directory was replaced while the socket was bound",
                path.display()
            ))),
        }
    }
}

fn identity(file: &Stat) -> (u64, u64) {
    (file.st_dev, file.st_ino)
}

/// An open file (`O_PATH`), whose inode is not reused while it is held.
struct Held {
    file: OwnedFd,
    stat: Stat,
}

/// The file that `bind(2)` has made, identified by its inode. Dropping this removes the file, if it
/// is still the same one, and only in the process that made it.
#[derive(Debug)]
pub(crate) struct SocketFile {
    place: Place,
    identity: (u64, u64),
    process: u32,
    removes: bool,
}

impl SocketFile {
    /// Calls `bind(2)`, which makes the file. Returns `None` for an address that is not a path.
    pub(crate) fn bind(fd: BorrowedFd<'_>, address: &SocketAddr) -> io::Result<Option<Self>> {
        let bind = || {
            let Some(path) = address.as_pathname() else {
                return sys::bind(fd, address).map(|()| None);
            };
            let place = Place::of(path)?;
            let made = place.bind(fd, address)?;
            Ok(Some(Self::made(place, made)))
        };
        bind().map_err(|error| address_error::of_bind(error, address))
    }

    /// Takes the file that `bind(2)` has just made.
    fn made(place: Place, identity: (u64, u64)) -> Self {
        Self { place, identity, process: std::process::id(), removes: true }
    }

    /// Leaves the file where it is.
    pub(crate) fn keep(mut self) {
        self.removes = false;
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.removes
            && std::process::id() == self.process
            && self.place.identity().is_ok_and(|identity| identity == self.identity)
        {
            let _ = self.place.unlink();
        }
    }
}

/// Calls `bind(2)` and `listen(2)` with the options. Dropping the returned value removes the file,
/// unless [`keep`](SocketFile::keep) is called.
pub(crate) fn listen(
    fd: BorrowedFd<'_>,
    address: &SocketAddr,
    backlog: i32,
    options: &FileOptions,
) -> io::Result<Option<SocketFile>> {
    let Some(path) = address.as_pathname() else {
        if options.mode.is_some() || options.user.is_some() || options.group.is_some() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "a name in the abstract namespace has neither mode nor owner: anybody in the network \
                 namespace may connect",
            ));
        }
        let file = SocketFile::bind(fd, address)?;
        sys::listen(fd, backlog)?;
        return Ok(file);
    };
    if let Some(mode) = options.mode {
        // bind(2) gives the file the mode of the socket, without the bits of the umask. So at no
        // moment does it have any permission beyond these.
        rustix::fs::fchmod(fd, Mode::from_raw_mode(mode & 0o777))?;
    }
    let file = if options.replace_stale {
        let bound = bind_in_place_of_stale(fd, address, path, MAX_CLAIM_DEPTH);
        Some(bound.map_err(|error| address_error::of_bind(error, address))?)
    } else {
        SocketFile::bind(fd, address)?
    };
    // No client can connect before listen(2).
    if let Some(file) = &file {
        set_owner_and_mode(file, options).map_err(|error| {
            with_reason(error, address, "the owner or the mode of the socket file cannot be set")
        })?;
    }
    sys::listen(fd, backlog)?;
    Ok(file)
}

/// Changes the file that `bind(2)` made, and no other file that has replaced it since.
fn set_owner_and_mode(made: &SocketFile, options: &FileOptions) -> io::Result<()> {
    if options.mode.is_none() && options.user.is_none() && options.group.is_none() {
        return Ok(());
    }
    let Held { file, stat: found } = made.place.hold()?;
    if identity(&found) != made.identity {
        let name = Path::new(&made.place.name);
        return Err(in_use(name, "another file has been put in its place"));
    }
    if options.user.is_some() || options.group.is_some() {
        let (user, group) = (options.user.map(Uid::from_raw), options.group.map(Gid::from_raw));
        rustix::fs::chownat(&file, "", user, group, AtFlags::EMPTY_PATH)?;
    }
    if let Some(mode) = options.mode {
        let mode = mode & 0o777;
        if found.st_mode & 0o7777 != mode {
            // Restores the bits that the umask removed. An `O_PATH` descriptor has no fchmod(2).
            let permissions = fs::Permissions::from_mode(mode);
            fs::set_permissions(short_path::of(file.as_fd()), permissions).map_err(|error| {
                let what = format!("mode {mode:04o} under a umask that removes a part of it");
                short_path::explained(error, file.as_fd(), &what)
            })?;
        }
    }
    Ok(())
}

/// How often a bind is retried while other processes remove or replace the file.
const MAX_BIND_ATTEMPTS: u32 = 16;

/// How deep claims may nest: one level for each claim that a process left behind when it ended
/// between two system calls.
const MAX_CLAIM_DEPTH: u32 = 4;

/// Calls `bind(2)`, and removes a socket file that is in the way if no socket is bound to it.
///
/// Two processes that find the same stale file must not both remove what is at the path. The second
/// would remove the socket that the first has bound there by then. No system call removes a file
/// only if it is a certain one. So a process that removes a stale file holds a *claim* to its
/// inode. A claim is a socket bound beside the file, under a name made of the inode number.
/// `bind(2)` succeeds for one process alone. A claim ends with its process. A claim that was left
/// behind is itself a stale file.
///
/// A program that removes what is at its path without a claim is not kept away.
fn bind_in_place_of_stale(
    fd: BorrowedFd<'_>,
    address: &SocketAddr,
    path: &Path,
    claims: u32,
) -> io::Result<SocketFile> {
    for _ in 0..MAX_BIND_ATTEMPTS {
        let place = Place::of(path)?;
        match place.bind(fd, address) {
            Ok(made) => return Ok(SocketFile::made(place, made)),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            Err(error) => return Err(error),
        }
        let old = match place.hold() {
            // The file has gone meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            old => old?,
        };
        if FileType::from_raw_mode(old.stat.st_mode) != FileType::Socket {
            return Err(in_use(path, "exists and is no socket"));
        }
        if is_bound(&old, path, address)? {
            return Err(in_use(path, "a socket is bound to it"));
        }
        let claim = claim(&place, &old, claims);
        if matches!(claim, InodeClaim::OfAnother) {
            return Err(in_use(path, "another process is replacing it"));
        }
        // bind(2) makes the file before it binds the socket to it, and holds a lock on the
        // directory until both are done. Binding the claim has waited for that lock. So a socket
        // that was being bound to this file is bound by now.
        if is_bound(&old, path, address)? {
            return Err(in_use(path, "a socket is bound to it"));
        }
        if !place.identity().is_ok_and(|found| found == identity(&old.stat)) {
            continue;
        }
        crate::common::trace::removes_stale(path);
        match place.unlink() {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(with_reason(error, address, "the stale socket file cannot be removed"));
            }
            _ => {}
        }
        let made = place.bind(fd, address)?;
        return Ok(SocketFile::made(place, made));
    }
    Err(in_use(path, "others keep replacing it"))
}

/// Returns whether a socket is bound to the file, even one that does not listen yet. The path can
/// lead to another file by now, so it is asked only without `/proc`.
fn is_bound(file: &Held, path: &Path, address: &SocketAddr) -> io::Result<bool> {
    let held = short_path::to(file.file.as_fd());
    match sys::bound_at(held.as_ref().unwrap_or(address)) {
        Ok(bound) => Ok(bound != Bound::Nothing),
        Err(error) => {
            let cause = error.raw_os_error().and_then(|errno| connect_cause(errno, path, address));
            let why = cause.unwrap_or_else(|| error.to_string());
            Err(in_use(path, &format!("cannot find out whether it is in use: {why}")))
        }
    }
}

/// A claim to the inode of a stale file, which keeps other processes from removing it.
enum InodeClaim {
    /// The fields are dropped in this order, so that this claim is never found stale.
    Own {
        _file: SocketFile,
        _socket: OwnedFd,
    },
    OfAnother,
    /// No claim can be made: no file of that name is allowed here, or there is no `/proc`.
    Impossible,
}

fn claim(place: &Place, old: &Held, claims: u32) -> InodeClaim {
    let name = format!(".seqpacket-{:x}", old.stat.st_ino);
    let bound = || {
        let Some(claims) = claims.checked_sub(1) else { return Err(Errno::LOOP.into()) };
        let address = place.beside(&name)?;
        let path = address.as_pathname().unwrap_or(Path::new(""));
        let socket = sys::socket()?;
        let file = bind_in_place_of_stale(socket.as_fd(), &address, path, claims)?;
        Ok(InodeClaim::Own { _file: file, _socket: socket })
    };
    match bound() {
        Ok(claim) => claim,
        Err(error) if is_in_use(&error) && may_claim(place, old, &name) => InodeClaim::OfAnother,
        Err(_) => InodeClaim::Impossible,
    }
}

fn is_in_use(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrInUse
}

/// Returns whether the owner of a claim may remove the file. In a sticky directory other users can
/// make claims only to keep the file from being replaced.
fn may_claim(place: &Place, old: &Held, name: &str) -> bool {
    let flags = AtFlags::SYMLINK_NOFOLLOW;
    let (Ok(claim), Ok(directory)) =
        (rustix::fs::statat(&place.directory, name, flags), rustix::fs::fstat(&place.directory))
    else {
        // The claim has ended meanwhile, or its owner is unknown.
        return true;
    };
    let own = rustix::process::geteuid().as_raw();
    let entitled = [0, own, old.stat.st_uid, directory.st_uid];
    directory.st_mode & libc::S_ISVTX == 0 || entitled.contains(&claim.st_uid)
}
