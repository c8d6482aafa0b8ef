//! The file of a listening socket: who may connect, what becomes of one that was left behind, and who
//! removes it.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, Stat, Uid};
use rustix::io::Errno;

use crate::net::options::Wishes;
use crate::sys;
use crate::types::socket_addr::SocketAddr;

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
        Ok(identity(&file))
    }

    /// What is there, which is not followed. As long as it is held, no other file has its inode.
    fn hold(&self) -> io::Result<Held> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.directory, &self.name, flags, Mode::empty())?;
        Ok(Held { stat: rustix::fs::fstat(&file)?, file })
    }

    fn unlink(&self) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(&self.directory, &self.name, AtFlags::empty())?)
    }

    /// The path of another name in the directory, wherever that is by now. It has few bytes.
    fn beside(&self, name: &str) -> io::Result<SocketAddr> {
        SocketAddr::from_path(format!("/proc/self/fd/{}/{name}", self.directory.as_raw_fd()))
    }
}

fn identity(file: &Stat) -> (u64, u64) {
    (file.st_dev, file.st_ino)
}

/// A file, kept from going.
struct Held {
    file: OwnedFd,
    stat: Stat,
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
            let _ = self.place.unlink();
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
    let file = if wishes.replace_stale {
        Some(bind_in_place_of_stale(fd, address, path, CLAIMS)?)
    } else {
        SocketFile::bind(fd, address)?
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
    let Held { file, stat: found } = made.place.hold()?;
    if identity(&found) != made.identity {
        let name = Path::new(&made.place.name);
        return Err(in_use(name, "another file has been put in its place"));
    }
    if wishes.user.is_some() || wishes.group.is_some() {
        let (user, group) = (wishes.user.map(Uid::from_raw), wishes.group.map(Gid::from_raw));
        rustix::fs::chownat(&file, "", user, group, AtFlags::EMPTY_PATH)?;
    }
    if let Some(mode) = wishes.mode {
        let mode = mode & 0o777;
        if found.st_mode & 0o7777 != mode {
            // What the umask has taken away. A descriptor of this kind has no fchmod(2).
            let by_number = format!("/proc/self/fd/{}", file.as_raw_fd());
            fs::set_permissions(by_number, fs::Permissions::from_mode(mode))?;
        }
    }
    Ok(())
}

/// How often a file that others remove or replace meanwhile is looked at.
const TRIES: u32 = 16;

/// Claims of claims that were left behind: as many processes died between two system calls.
const CLAIMS: u32 = 4;

/// `bind(2)`. A socket file that is in the way is removed if no socket is bound to it.
///
/// Two that find the same stale file must not both remove what is at the path: the second would remove the socket that the
/// first has bound there by then. No system call removes a file only if it is a certain one. So the one that removes a
/// stale file holds a *claim* to its inode: a socket bound beside it, under a name made of the inode's number, which
/// `bind(2)` gives to one alone. A claim ends with its process. One that was left behind is itself a stale file.
///
/// A program that makes no claim, and removes what is at its path without looking, is not kept away.
fn bind_in_place_of_stale(
    fd: BorrowedFd<'_>,
    address: &SocketAddr,
    path: &Path,
    claims: u32,
) -> io::Result<SocketFile> {
    for _ in 0..TRIES {
        let place = Place::of(path)?;
        match sys::bind(fd, address) {
            Ok(()) => return SocketFile::made(place),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            Err(error) => return Err(error),
        }
        let old = match place.hold() {
            // It has gone by itself.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            old => old?,
        };
        if FileType::from_raw_mode(old.stat.st_mode) != FileType::Socket {
            return Err(in_use(path, "exists and is no socket"));
        }
        if is_bound(path, address)? {
            return Err(in_use(path, "a socket is bound to it"));
        }
        let claim = claim(&place, &old, claims);
        if matches!(claim, Claim::OfAnother) {
            return Err(in_use(path, "another process is replacing it"));
        }
        // bind(2) makes the file before it binds the socket to it, and has locked the directory until both are done. The
        // claim has waited for that lock: a socket that is to be bound to this file is so by now.
        if is_bound(path, address)? {
            return Err(in_use(path, "a socket is bound to it"));
        }
        if !place.identity().is_ok_and(|found| found == identity(&old.stat)) {
            continue;
        }
        crate::common::trace::removes_stale(path);
        match place.unlink() {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                let what = format!("{}: a stale socket file stays: {error}", path.display());
                return Err(io::Error::new(error.kind(), what));
            }
            _ => sys::bind(fd, address)?,
        }
        return SocketFile::made(place);
    }
    Err(in_use(path, "others keep replacing it"))
}

/// Whether a socket is bound to the file at the path, be it one that does not listen yet.
///
/// `connect(2)` looks for a socket that is bound to the file, and refuses the connection if there is none. It then compares
/// the types: where a datagram socket asks, no listener is the right one (`EPROTOTYPE`), nor does it notice.
fn is_bound(path: &Path, address: &SocketAddr) -> io::Result<bool> {
    match sys::connect(sys::datagram_socket()?.as_fd(), address) {
        Err(error) => match error.raw_os_error() {
            // There is no file: the caller looks again.
            Some(libc::ECONNREFUSED | libc::ENOENT) => Ok(false),
            // EPERM: of a datagram socket that is connected to another.
            Some(libc::EPROTOTYPE | libc::EPERM) => Ok(true),
            _ => Err(in_use(path, &format!("cannot find out whether it is in use: {error}"))),
        },
        Ok(()) => Ok(true),
    }
}

/// What keeps others from removing a stale file.
enum Claim {
    /// Dropped in this order: an own claim is never found stale.
    Own {
        _file: SocketFile,
        _socket: OwnedFd,
    },
    OfAnother,
    /// It cannot be made: no file of that name is allowed here, or there is no `/proc`.
    Impossible,
}

fn claim(place: &Place, old: &Held, claims: u32) -> Claim {
    let name = format!(".seqpacket-{:x}", old.stat.st_ino);
    let bound = || {
        let Some(claims) = claims.checked_sub(1) else { return Err(Errno::LOOP.into()) };
        let address = place.beside(&name)?;
        let path = address.as_pathname().unwrap_or(Path::new(""));
        let socket = sys::socket()?;
        let file = bind_in_place_of_stale(socket.as_fd(), &address, path, claims)?;
        Ok(Claim::Own { _file: file, _socket: socket })
    };
    match bound() {
        Ok(claim) => claim,
        Err(error) if is_in_use(&error) && may_claim(place, old, &name) => Claim::OfAnother,
        Err(_) => Claim::Impossible,
    }
}

fn is_in_use(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrInUse
}

/// Whether the owner of a claim may remove the file. In a sticky directory others can make claims, to keep it from being
/// replaced.
fn may_claim(place: &Place, old: &Held, name: &str) -> bool {
    let flags = AtFlags::SYMLINK_NOFOLLOW;
    let (Ok(claim), Ok(directory)) =
        (rustix::fs::statat(&place.directory, name, flags), rustix::fs::fstat(&place.directory))
    else {
        // It has ended meanwhile. Or nothing is known.
        return true;
    };
    let own = rustix::process::geteuid().as_raw();
    let entitled = [0, own, old.stat.st_uid, directory.st_uid];
    directory.st_mode & libc::S_ISVTX == 0 || entitled.contains(&claim.st_uid)
}

fn in_use(path: &Path, why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::AddrInUse, format!("{}: {why}", path.display()))
}
