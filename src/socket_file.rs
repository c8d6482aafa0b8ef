//! The file of a listening socket: who may connect, what becomes of one that was left behind, and who
//! removes it.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use libc::{gid_t, uid_t};
use rustix::fs::{AtFlags, CWD, FlockOperation, Gid, Mode, OFlags, Uid};

use crate::{SocketAddr, sys};

/// What is wanted of the file, beside that it be there.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wishes {
    pub(crate) mode: Option<u32>,
    pub(crate) user: Option<uid_t>,
    pub(crate) group: Option<gid_t>,
    pub(crate) replace_stale: bool,
    pub(crate) unlink_on_drop: bool,
}

fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Where a socket's file is going to be. Opened before it is: the process can change its directory, and the path lead
/// elsewhere.
#[derive(Debug)]
struct Place {
    directory: OwnedFd,
    name: OsString,
}

impl Place {
    fn of(path: &Path) -> io::Result<Self> {
        // `bind(2)` says what is wrong with a path that has no last component.
        let name = path.file_name().unwrap_or_default().to_owned();
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self {
            directory: rustix::fs::openat(CWD, directory_of(path), flags, Mode::empty())?,
            name,
        })
    }

    /// Device and inode of what is there, which is not followed.
    fn identity(&self) -> io::Result<(u64, u64)> {
        let file = rustix::fs::statat(&self.directory, &self.name, AtFlags::SYMLINK_NOFOLLOW)?;
        Ok((file.st_dev, file.st_ino))
    }
}

/// The file that `bind(2)` has made, told from any other by its inode. Removed when this is dropped,
/// if it is still the same, and by the process that made it only.
#[derive(Debug)]
pub(crate) struct SocketFile {
    place: Place,
    identity: (u64, u64),
    process: u32,
    removes: bool,
}

impl SocketFile {
    /// `bind(2)`, which makes the file. `None` for an address that is none.
    pub(crate) fn bind(fd: BorrowedFd<'_>, address: &SocketAddr) -> io::Result<Option<Self>> {
        let place = address.as_pathname().map(Place::of).transpose()?;
        sys::bind(fd, address)?;
        place.map(Self::made).transpose()
    }

    /// Just now.
    fn made(place: Place) -> io::Result<Self> {
        let identity = place.identity()?;
        Ok(Self { place, identity, process: std::process::id(), removes: true })
    }

    /// Leave it where it is.
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
            let _ = rustix::fs::unlinkat(&self.place.directory, &self.place.name, AtFlags::empty());
        }
    }
}

/// `bind(2)` and `listen(2)` with all wishes. The file, where there is one, is removed with the value
/// that comes back, unless that is told to [`keep`](SocketFile::keep) it.
pub(crate) fn listen(
    fd: BorrowedFd<'_>,
    address: &SocketAddr,
    backlog: i32,
    wishes: &Wishes,
) -> io::Result<Option<SocketFile>> {
    let Some(path) = address.as_pathname() else {
        if wishes.mode.is_some() || wishes.user.is_some() || wishes.group.is_some() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "a name in the abstract namespace has neither mode nor owner: anybody in the network \
                 namespace may connect",
            ));
        }
        sys::bind(fd, address)?;
        sys::listen(fd, backlog)?;
        return Ok(None);
    };
    if let Some(mode) = wishes.mode {
        // bind(2) gives the file the mode of the socket, without the umask's bits: from its first
        // moment it has no permission more than was asked for.
        rustix::fs::fchmod(fd, Mode::from_raw_mode(mode & 0o777))?;
    }
    // Held until it listens, so that nobody who takes the lock, too, finds it bound but deaf.
    let _lock = if wishes.replace_stale { Some(lock_directory(path)?) } else { None };
    let file = match SocketFile::bind(fd, address) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && wishes.replace_stale => {
            remove_stale(path, address)?;
            SocketFile::bind(fd, address)?
        }
        bound => bound?,
    };
    // Nobody can connect before listen(2).
    if let Some(file) = &file {
        set_owner_and_mode(file, wishes)?;
    }
    sys::listen(fd, backlog)?;
    Ok(file)
}

/// Changes the file that `bind(2)` made, and no other file that has replaced it meanwhile.
fn set_owner_and_mode(made: &SocketFile, wishes: &Wishes) -> io::Result<()> {
    if wishes.mode.is_none() && wishes.user.is_none() && wishes.group.is_none() {
        return Ok(());
    }
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let Place { directory, name } = &made.place;
    let file = rustix::fs::openat(directory, name, flags, Mode::empty())?;
    let found = rustix::fs::fstat(&file)?;
    if (found.st_dev, found.st_ino) != made.identity {
        return Err(io::Error::new(
            io::ErrorKind::AddrInUse,
            format!("{}: somebody has put another file in its place", name.display()),
        ));
    }
    if wishes.user.is_some() || wishes.group.is_some() {
        let (user, group) = (wishes.user.map(Uid::from_raw), wishes.group.map(Gid::from_raw));
        rustix::fs::chownat(&file, "", user, group, AtFlags::EMPTY_PATH)?;
    }
    if let Some(mode) = wishes.mode {
        let mode = mode & 0o777;
        if found.st_mode & 0o7777 != mode {
            // What the umask has taken away. A descriptor of this kind has no fchmod(2).
            use std::os::fd::AsRawFd;
            let by_number = format!("/proc/self/fd/{}", file.as_raw_fd());
            fs::set_permissions(by_number, fs::Permissions::from_mode(mode))?;
        }
    }
    Ok(())
}

const LOCK_TRIES: u32 = 100;
const LOCK_PAUSE: Duration = Duration::from_millis(5);

/// One at a time: whoever finds a stale file must not remove the one that another has just put in its
/// place. An advisory lock of the directory itself leaves no lock file behind.
fn lock_directory(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::openat(CWD, directory_of(path), flags, Mode::empty())?;
    for _ in 0..LOCK_TRIES {
        match rustix::fs::flock(&directory, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(directory),
            Err(rustix::io::Errno::WOULDBLOCK) => std::thread::sleep(LOCK_PAUSE),
            Err(error) => return Err(error.into()),
        }
    }
    Err(io::Error::new(
        io::ErrorKind::AddrInUse,
        format!("somebody else holds the lock of the directory of {} (flock(2))", path.display()),
    ))
}

/// Remove a socket file at which nobody listens, else say why not.
fn remove_stale(path: &Path, address: &SocketAddr) -> io::Result<()> {
    let in_use = |why: String| {
        Err(io::Error::new(io::ErrorKind::AddrInUse, format!("{}: {why}", path.display())))
    };
    match fs::symlink_metadata(path) {
        Ok(file) if !file.file_type().is_socket() => {
            return in_use("exists and is no socket".into());
        }
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    }
    let probe = sys::socket()?;
    match sys::connect(probe.as_fd(), address) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
        // It has gone by itself.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Ok(()) => return in_use("somebody listens there".into()),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            return in_use("somebody listens there, with a full backlog".into());
        }
        Err(error) => return in_use(format!("cannot find out whether somebody listens: {error}")),
    }
    crate::events::removes_stale(path);
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
