//! Sockets that a service manager has opened: the protocol of `sd_listen_fds(3)`.
#![allow(unsafe_code, reason = "numbers that the environment names become owned descriptors")]

use std::env;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::FileType;
use rustix::io::FdFlags;

use crate::net::listener::UnixSeqpacketListener;
use crate::net::options::Options;
use crate::net::socket::UnixSeqpacket;

/// `SD_LISTEN_FDS_START`.
const FIRST: RawFd = 3;

/// The name of a descriptor that was given none, as systemd has it.
const UNNAMED: &str = "unknown";

/// The sockets that systemd, or another service manager with its protocol, has opened for this process.
///
/// A unit that passes one, listening, under the name `control`:
///
/// ```ini
/// [Socket]
/// ListenSequentialPacket=/run/service.sock
/// FileDescriptorName=control
/// ```
///
/// Without `FileDescriptorName=` its name is that of the unit, such as `service.socket`, or with `Accept=yes`
/// `connection`.
///
/// ```no_run
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
/// use tokio_seqpacket::{Activation, UnixSeqpacketListener};
///
/// let listener = match Activation::from_env()? {
///     Some(mut passed) => passed.listener("control")?,
///     // Started by hand.
///     None => UnixSeqpacketListener::bind("/run/service.sock")?,
/// };
/// # drop(listener); Ok(()) }
/// ```
///
/// Without a unit, to try it: `systemd-socket-activate --seqpacket --fdname=control
/// --listen=/tmp/service.sock ./service`.
///
/// What is not taken out is closed when this is dropped.
#[derive(Debug)]
pub struct Activation {
    fds: Vec<(String, OwnedFd)>,
}

impl Activation {
    /// Take over the descriptors that `LISTEN_FDS`, `LISTEN_PID` and `LISTEN_FDNAMES` announce; they
    /// become close-on-exec. `None` if nothing was passed to this process.
    ///
    /// Once in the life of a process: later calls return `None`. Call it early and leave the numbers
    /// from 3 on alone, as with any reader of these variables; a second library that takes them over
    /// would own the same descriptors. The variables stay: `LISTEN_PID` tells child processes that
    /// they are not meant. A program that executes itself anew has the same process id, and its variables
    /// announce what it does not have any more: use [`from_env_once`](Self::from_env_once) there.
    ///
    /// # Errors
    /// `InvalidData` for variables that contradict the protocol, or that name a descriptor which is not open, no socket, or
    /// close-on-exec, as everything is that Rust programs open themselves. Nothing is taken over then. So a unit cannot pass
    /// FIFOs or files beside its sockets (`ListenFIFO=`, `OpenFile=`).
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
        // All of them before the first is taken over: a false count must not close descriptors that have other owners.
        for (number, _) in (FIRST..).zip(&names) {
            if let Err(why) = is_passed(number) {
                // By another thread, just now.
                if TAKEN.load(Ordering::Relaxed) {
                    return Ok(None);
                }
                return Err(wrong(format!("LISTEN_FDS names descriptor {number}: {why}")));
            }
        }
        if TAKEN.swap(true, Ordering::Relaxed) {
            return Ok(None);
        }
        let take = |(number, name)| {
            // SAFETY: it is an open socket (looked at above), and by the protocol it was passed to this process (LISTEN_PID)
            // for the first reader of these variables, which is this call, as TAKEN says. What this process has opened by Rust's
            // standard library is close-on-exec, and was refused above.
            let fd = unsafe { OwnedFd::from_raw_fd(number) };
            rustix::io::fcntl_setfd(&fd, FdFlags::CLOEXEC).map(|()| (name, fd))
        };
        let fds = (FIRST..).zip(names).map(take).collect::<Result<_, _>>()?;
        Ok(Some(Self { fds }))
    }

    /// As [`from_env`](Self::from_env), and removes the variables in any case: what this process executes, itself for
    /// example, does not take them for its own. It is `sd_listen_fds(3)` with `unset_environment`.
    ///
    /// # Errors
    /// As [`from_env`](Self::from_env).
    ///
    /// # Safety
    /// That of [`std::env::remove_var`]: no other thread reads or writes the environment meanwhile. At the
    /// beginning of `main`, before there is a runtime, there is none.
    ///
    /// ```
    /// use tokio_seqpacket::Activation;
    ///
    /// fn main() -> std::io::Result<()> {
    ///     // SAFETY: the first thing that this program does, on its only thread.
    ///     let passed = unsafe { Activation::from_env_once()? };
    ///     assert!(passed.is_none() && std::env::var("LISTEN_FDS").is_err());
    ///     Ok(())
    /// }
    /// ```
    pub unsafe fn from_env_once() -> io::Result<Option<Self>> {
        let taken = Self::from_env();
        for name in ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"] {
            // SAFETY: the caller's promise.
            unsafe { env::remove_var(name) };
        }
        taken
    }

    /// The names of the descriptors that are left, in the order in which they were passed; `unknown`
    /// for one without. Several can have the same.
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

    /// Take the first descriptor of that name, a socket of any kind, for [`Options::listener_from_fd`] for example.
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

    /// Take the first descriptor of that name, which listens (`Accept=no`, systemd's default).
    ///
    /// # Errors
    /// `NotFound` if there is none, with the names that there are; as
    /// [`Options::listener_from_fd`] if it is something else.
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

    /// Take the first descriptor of that name, which is a connection (`Accept=yes`).
    ///
    /// # Errors
    /// `NotFound` if there is none, with the names that there are; as [`Options::socket_from_fd`] if
    /// it is something else.
    ///
    /// ```no_run
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use tokio_seqpacket::Activation;
    ///
    /// // One process for each client; systemd calls its socket so.
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

    /// The descriptors that are left, with their names.
    ///
    /// ```no_run
    /// # fn main() -> std::io::Result<()> {
    /// use std::os::fd::AsRawFd;
    /// use tokio_seqpacket::Activation;
    ///
    /// let passed = Activation::from_env()?.expect("started by systemd");
    /// let numbers: Vec<_> = passed.iter().map(|(name, fd)| (name, fd.as_raw_fd())).collect();
    /// assert_eq!(numbers, [("control", 3), ("data", 4)]);
    /// # Ok(()) }
    /// ```
    pub fn iter(&self) -> impl Iterator<Item = (&str, BorrowedFd<'_>)> {
        self.fds.iter().map(|(name, fd)| (name.as_str(), fd.as_fd()))
    }
}

/// Whether this may be a descriptor that was passed. If not, why.
fn is_passed(number: RawFd) -> Result<(), String> {
    // SAFETY: the borrow ends with this function, in which the descriptor is only asked; a number that is not open is
    // answered with EBADF.
    let fd = unsafe { BorrowedFd::borrow_raw(number) };
    let flags = rustix::io::fcntl_getfd(fd).map_err(|error| error.to_string())?;
    if flags.contains(FdFlags::CLOEXEC) {
        return Err("it is close-on-exec, so it was not passed".into());
    }
    let file = rustix::fs::fstat(fd).map_err(|error| error.to_string())?;
    match FileType::from_raw_mode(file.st_mode) {
        FileType::Socket => Ok(()),
        _ => Err("it is not a socket".into()),
    }
}

/// What the variables say, if they are meant for this process.
#[derive(Debug, PartialEq, Eq)]
struct Announced {
    /// One for each descriptor.
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
            // As many as a process can have (sysctl fs.nr_open, by default).
            Ok(count @ 0..=1_048_576) => count,
            _ => return Err(wrong(format!("LISTEN_FDS={count} is no number of descriptors"))),
        };
        if count == 0 {
            return Ok(None);
        }
        let names: Vec<String> = match names {
            None | Some("") => vec![UNNAMED.to_owned(); count],
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

    /// Descriptor 3 of a program that has executed itself anew is one of its own.
    #[test]
    fn what_was_not_passed_is_not_taken_for_it() {
        use std::os::fd::AsRawFd;
        let refused = |number: RawFd| is_passed(number).unwrap_err();
        assert!(refused(RawFd::MAX).contains("Bad file descriptor"));
        let (socket, _peer) = crate::sys::socketpair().unwrap();
        assert!(refused(socket.as_raw_fd()).contains("close-on-exec"));
        rustix::io::fcntl_setfd(&socket, FdFlags::empty()).unwrap();
        assert_eq!(is_passed(socket.as_raw_fd()), Ok(()));
        let file = std::fs::File::open("/dev/null").unwrap();
        rustix::io::fcntl_setfd(&file, FdFlags::empty()).unwrap();
        assert!(refused(file.as_raw_fd()).contains("not a socket"));
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
