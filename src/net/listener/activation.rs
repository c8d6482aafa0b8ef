//! [`Activation`]: sockets that a service manager has opened or stored, by the protocol of
//! `sd_listen_fds(3)`.
#![allow(unsafe_code, reason = "raw fds that the environment names become owned descriptors")]

use std::env;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::FdFlags;

use crate::net::listener::UnixSeqpacketListener;
use crate::net::options::Options;
use crate::net::socket::UnixSeqpacket;

/// The raw fd of the first descriptor that is passed (`SD_LISTEN_FDS_START`).
const FIRST_FD: RawFd = 3;

/// The name that systemd gives to a descriptor without one.
const DEFAULT_NAME: &str = "unknown";

/// The upper bound of `LISTEN_FDS`: the default of the sysctl `fs.nr_open`, see `proc(5)`.
const MAX_LISTEN_FDS: usize = 1 << 20;

/// The descriptors that systemd passes to this process, or another manager with its protocol.
///
/// This unit passes a listening socket under the name `control`:
///
/// ```ini
/// [Socket]
/// ListenSequentialPacket=/run/service.sock
/// FileDescriptorName=control
/// ```
/// Without `FileDescriptorName=` the name is that of the unit, such as `service.socket`. With
/// `Accept=yes` it is `connection`, and `unknown` where the manager passes no names.
///
/// ```no_run
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
/// use tokio_seqpacket::{Activation, Options};
///
/// let mut passed = Activation::from_env()?;
/// let options = Options::new().replace_stale(true);
/// // Binds where the service was started without systemd.
/// let listener =
///     options.activated_or_bind(passed.as_mut(), "control", "/run/service.sock", 128)?;
/// # drop(listener); Ok(()) }
/// ```
/// For a trial without a unit: `systemd-socket-activate --seqpacket --fdname=control
/// --listen=/tmp/service.sock ./service`.
///
/// # Restarting without a gap
///
/// Descriptors that the service gave to systemd's fd store (`FileDescriptorStoreMax=`) come back in
/// the same way, under the names that it chose. Listeners, connections and other files can be
/// mixed. [`guide::containers`](crate::guide::containers#restarts-without-a-gap) shows how, and the
/// example `restart` does it.
///
/// Dropping this closes the descriptors that were not taken.
#[derive(Debug)]
pub struct Activation {
    fds: Vec<(String, OwnedFd)>,
}

impl Activation {
    /// Takes over the descriptors that `LISTEN_FDS`, `LISTEN_PID` and `LISTEN_FDNAMES` announce.
    ///
    /// They become close-on-exec. Returns `None` if no descriptor was passed to this process.
    ///
    /// This works once in the life of a process: later calls return `None`. Call it early, and use
    /// no raw fd from 3 on before. A second library that reads these variables would own the same
    /// descriptors.
    ///
    /// The variables stay. `LISTEN_PID` keeps child processes from using them. A program that
    /// executes itself anew keeps its process id, so its variables announce descriptors that it no
    /// longer has. Such a program uses [`from_env_once`](Self::from_env_once).
    ///
    /// # Errors
    /// `InvalidData` for variables that contradict the protocol, or that name a descriptor which is
    /// not open or is close-on-exec. Rust programs open all their own descriptors close-on-exec.
    /// Nothing is taken over on an error.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// use tokio_seqpacket::Activation;
    ///
    /// // LISTEN_PID names another process, if it is set at all.
    /// assert!(Activation::from_env()?.is_none());
    /// # Ok(()) }
    /// ```
    pub fn from_env() -> io::Result<Option<Self>> {
        static TAKEN: AtomicBool = AtomicBool::new(false);
        let value = |name| env::var(name).ok();
        let announced = Announced::parse(
            value("LISTEN_PID").as_deref(),
            value("LISTEN_FDS").as_deref(),
            value("LISTEN_FDNAMES").as_deref(),
            std::process::id(),
        )?;
        let Some(Announced { names }) = announced else { return Ok(None) };
        if TAKEN.load(Ordering::Relaxed) {
            return Ok(None);
        }
        // All are checked before the first is taken over: a wrong count must not close descriptors
        // that have other owners.
        for (raw_fd, _) in (FIRST_FD..).zip(&names) {
            if let Err(why) = is_passed(raw_fd) {
                // Another thread has taken them over just now.
                if TAKEN.load(Ordering::Relaxed) {
                    return Ok(None);
                }
                return Err(wrong(format!("LISTEN_FDS names descriptor {raw_fd}: {why}")));
            }
        }
        if TAKEN.swap(true, Ordering::Relaxed) {
            return Ok(None);
        }
        let take = |(raw_fd, name)| {
            // SAFETY: `is_passed` has found an open file at `raw_fd` that is not close-on-exec, so
            // no code that opens descriptors as Rust's standard library does owns it. By
            // sd_listen_fds(3) it was passed to this process (`LISTEN_PID`), for the first reader
            // of these variables. `TAKEN` makes that this call. The documentation of `from_env`
            // excludes other readers.
            let fd = unsafe { OwnedFd::from_raw_fd(raw_fd) };
            rustix::io::fcntl_setfd(&fd, FdFlags::CLOEXEC).map(|()| (name, fd))
        };
        let fds = (FIRST_FD..).zip(names).map(take).collect::<Result<_, _>>()?;
        Ok(Some(Self { fds }))
    }

    /// Takes over the descriptors as [`from_env`](Self::from_env), and removes the variables in any
    /// case.
    ///
    /// A program that this process executes, for example itself, then does not take the variables
    /// for its own. It is `sd_listen_fds(3)` with `unset_environment`.
    ///
    /// # Errors
    /// Those of [`from_env`](Self::from_env).
    ///
    /// # Safety
    /// That of [`std::env::remove_var`]: no other thread reads or writes the environment during the
    /// call. At the beginning of `main`, before there is a runtime, there is no other thread.
    ///
    /// ```
    /// use tokio_seqpacket::Activation;
    ///
    /// fn main() -> std::io::Result<()> {
    ///     // SAFETY: no other thread has been started, so none uses the environment.
    ///     let passed = unsafe { Activation::from_env_once()? };
    ///     assert!(passed.is_none() && std::env::var("LISTEN_FDS").is_err());
    ///     Ok(())
    /// }
    /// ```
    pub unsafe fn from_env_once() -> io::Result<Option<Self>> {
        let taken = Self::from_env();
        for name in ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"] {
            // SAFETY: this function's `# Safety` section makes the caller ensure what `remove_var`
            // requires: no other thread uses the environment.
            unsafe { env::remove_var(name) };
        }
        taken
    }

    /// Returns the names of the descriptors that are left, in the order in which they were passed.
    ///
    /// A descriptor without a name is called `unknown`. Several can have the same name.
    ///
    /// ```no_run
    /// # fn main() -> std::io::Result<()> {
    /// use tokio_seqpacket::Activation;
    ///
    /// // A service with two socket units, started by systemd.
    /// let passed = Activation::from_env()?.expect("started by systemd");
    /// assert!(passed.names().eq(["control", "data"]));
    /// # Ok(()) }
    /// ```
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.fds.iter().map(|(name, _)| name.as_str())
    }

    /// Takes the first descriptor of that name, which can be any file: a socket, a FIFO
    /// (`ListenFIFO=`), memory from the fd store.
    ///
    /// Use it with [`Options::listener_from_fd`] or [`Options::socket_from_fd`], for example.
    /// Returns `None` if none of that name is left.
    ///
    /// ```no_run
    /// # fn main() -> std::io::Result<()> {
    /// use std::os::unix::net::UnixDatagram;
    /// use tokio_seqpacket::Activation;
    ///
    /// let mut passed = Activation::from_env()?.expect("started by systemd");
    /// // A socket of another kind, ListenDatagram=.
    /// let requests = UnixDatagram::from(passed.take("requests").expect("it is in the unit"));
    /// assert!(passed.take("requests").is_none());
    /// # drop(requests);
    /// # Ok(()) }
    /// ```
    pub fn take(&mut self, name: &str) -> Option<OwnedFd> {
        let index = self.fds.iter().position(|(own, _)| own == name)?;
        Some(self.fds.remove(index).1)
    }

    /// Takes the first descriptor of that name as a listener (`Accept=no`, systemd's default).
    ///
    /// # Errors
    /// `NotFound` if none of that name is left. The error lists the names that are. For other kinds
    /// of sockets those of [`Options::listener_from_fd`].
    ///
    /// ```no_run
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use tokio_seqpacket::Activation;
    ///
    /// let mut passed = Activation::from_env()?.expect("started by systemd");
    /// let (control, data) = (passed.listener("control")?, passed.listener("data")?);
    /// tokio::select! {
    ///     socket = control.accept() => socket?.send(b"control").await?,
    ///     socket = data.accept() => socket?.send(b"data").await?,
    /// };
    /// # Ok(()) }
    /// ```
    pub fn listener(&mut self, name: &str) -> io::Result<UnixSeqpacketListener> {
        Options::new().listener_from_fd(self.wanted(name)?)
    }

    /// Takes the first descriptor of that name as a connection (`Accept=yes`).
    ///
    /// For a trial without a unit: `systemd-socket-activate --seqpacket --accept
    /// --fdname=connection --listen=/tmp/service.sock ./service`.
    ///
    /// # Errors
    /// `NotFound` if none of that name is left. The error lists the names that are. For other kinds
    /// of sockets those of [`Options::socket_from_fd`].
    ///
    /// ```no_run
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use tokio_seqpacket::Activation;
    ///
    /// // With one process for each client, systemd calls its socket so.
    /// let mut passed = Activation::from_env()?.expect("started by systemd with Accept=yes");
    /// let client = passed.connection("connection")?;
    /// client.send(b"welcome").await?;
    /// # Ok(()) }
    /// ```
    pub fn connection(&mut self, name: &str) -> io::Result<UnixSeqpacket> {
        Options::new().socket_from_fd(self.wanted(name)?)
    }

    fn wanted(&mut self, name: &str) -> io::Result<OwnedFd> {
        self.take(name).ok_or_else(|| {
            let names: Vec<_> = self.names().collect();
            io::Error::new(
                io::ErrorKind::NotFound,
                format!("no descriptor was passed under the name {name:?}; left are {names:?}"),
            )
        })
    }

    /// Returns the descriptors that are left, with their names.
    ///
    /// ```no_run
    /// # fn main() -> std::io::Result<()> {
    /// use std::os::fd::AsRawFd;
    /// use tokio_seqpacket::Activation;
    ///
    /// let passed = Activation::from_env()?.expect("started by systemd");
    /// let raw_fds: Vec<_> = passed.iter().map(|(name, fd)| (name, fd.as_raw_fd())).collect();
    /// assert_eq!(raw_fds, [("control", 3), ("data", 4)]);
    /// # Ok(()) }
    /// ```
    pub fn iter(&self) -> impl Iterator<Item = (&str, BorrowedFd<'_>)> {
        self.fds.iter().map(|(name, fd)| (name.as_str(), fd.as_fd()))
    }
}

impl Options {
    /// Takes the first descriptor of that name as a listener, or listens at `address` if the manager
    /// has passed nothing.
    ///
    /// These options apply in both cases, except those for the socket file and the backlog. A
    /// listener that was passed has its file and its backlog from the unit: `SocketMode=`,
    /// `SocketUser=`, `SocketGroup=`, `RemoveOnStop=`, `Backlog=`. `address` is not compared with its
    /// address.
    ///
    /// # Errors
    /// - `NotFound` if descriptors were passed, but none of that name. Nothing is bound then, since
    ///   the unit and the program disagree. The error lists the names that are left.
    /// - Those of [`listener_from_fd`](Self::listener_from_fd) and [`bind`](Self::bind).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use tokio_seqpacket::{Activation, Options};
    ///
    /// # let directory = tempfile::tempdir()?;
    /// # let (path, admin_path) = (directory.path().join("s"), directory.path().join("admin"));
    /// // Once, for any number of listeners.
    /// let mut passed = Activation::from_env()?;
    /// let options = Options::new().mode(0o600).replace_stale(true);
    /// let listener = options.activated_or_bind(passed.as_mut(), "control", &path, 128)?;
    /// let admin = options.activated_or_bind(passed.as_mut(), "admin", &admin_path, 128)?;
    /// # assert_eq!((listener.local_addr()?, admin.local_addr()?), (path, admin_path));
    /// # Ok(()) }
    /// ```
    pub fn activated_or_bind<P: AsRef<Path>>(
        &self,
        passed: Option<&mut Activation>,
        name: &str,
        address: P,
        backlog: i32,
    ) -> io::Result<UnixSeqpacketListener> {
        match passed {
            Some(passed) => self.listener_from_fd(passed.wanted(name)?),
            None => self.bind(address, backlog),
        }
    }
}

/// Checks that `raw_fd` may be a descriptor that was passed, and returns the reason if it is not.
fn is_passed(raw_fd: RawFd) -> Result<(), String> {
    // SAFETY: `raw_fd` is not -1, it is at least `FIRST_FD`. By sd_listen_fds(3) it is open until
    // this process closes it. The borrow ends with this function and serves one query, fcntl(2). If
    // the variables are wrong and it is closed, that fails with EBADF.
    let fd = unsafe { BorrowedFd::borrow_raw(raw_fd) };
    let flags = rustix::io::fcntl_getfd(fd).map_err(|error| error.to_string())?;
    if flags.contains(FdFlags::CLOEXEC) {
        return Err("it is close-on-exec, so it was not passed".into());
    }
    Ok(())
}

/// The content of the variables, if they are meant for this process.
#[derive(Debug, PartialEq, Eq)]
struct Announced {
    /// One name for each descriptor.
    names: Vec<String>,
}

impl Announced {
    fn parse(
        pid: Option<&str>,
        count: Option<&str>,
        names: Option<&str>,
        own_pid: u32,
    ) -> io::Result<Option<Self>> {
        let (Some(pid), Some(count)) = (pid, count) else { return Ok(None) };
        let pid: u32 =
            pid.parse().map_err(|_| wrong(format!("LISTEN_PID={pid} is no process id")))?;
        if pid != own_pid {
            return Ok(None);
        }
        let count: usize = match count.parse() {
            Ok(count @ 0..=MAX_LISTEN_FDS) => count,
            _ => return Err(wrong(format!("LISTEN_FDS={count} is no number of descriptors"))),
        };
        if count == 0 {
            return Ok(None);
        }
        let names: Vec<String> = match names {
            None | Some("") => vec![DEFAULT_NAME.to_owned(); count],
            Some(names) => names.split(':').map(str::to_owned).collect(),
        };
        if names.len() != count {
            return Err(wrong(format!(
                "LISTEN_FDNAMES has {} names for {count} descriptors",
                names.len()
            )));
        }
        Ok(Some(Self { names }))
    }
}

fn wrong(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(pid: &str, count: &str, names: Option<&str>) -> Option<Vec<String>> {
        Announced::parse(Some(pid), Some(count), names, 7).unwrap().map(|announced| announced.names)
    }

    #[test]
    fn variables_meant_for_another_process_are_not_ours() {
        assert_eq!(names("8", "1", Some("a")), None);
        assert_eq!(names("7", "0", None), None);
        assert_eq!(Announced::parse(None, Some("1"), None, 7).unwrap(), None);
        assert_eq!(Announced::parse(Some("7"), None, None, 7).unwrap(), None);
    }

    #[test]
    fn descriptors_have_names() {
        assert_eq!(names("7", "2", Some("a:b")).unwrap(), ["a", "b"]);
        assert_eq!(names("7", "2", Some("a:")).unwrap(), ["a", ""]);
        assert_eq!(names("7", "2", None).unwrap(), ["unknown", "unknown"]);
    }

    /// Raw fd 3 of a program that has executed itself anew is one of the program's own.
    #[test]
    fn what_was_not_passed_is_not_taken_for_it() {
        use std::os::fd::AsRawFd;
        let refused = |raw_fd: RawFd| is_passed(raw_fd).unwrap_err();
        assert!(refused(RawFd::MAX).contains("Bad file descriptor"));
        let (socket, _peer) = crate::sys::socketpair().unwrap();
        assert!(refused(socket.as_raw_fd()).contains("close-on-exec"));
        rustix::io::fcntl_setfd(&socket, FdFlags::empty()).unwrap();
        assert_eq!(is_passed(socket.as_raw_fd()), Ok(()));
    }

    #[test]
    fn nonsense_is_refused() {
        for (pid, count, names) in [
            ("x", "1", None),
            ("7", "x", None),
            ("7", "-1", None),
            ("7", "99999999999", None),
            ("7", "2", Some("a")),
            ("7", "1", Some("a:b")),
        ] {
            let refused = Announced::parse(Some(pid), Some(count), names, 7).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::InvalidData);
        }
    }
}
