//! The identity of the peer and of each sender: what the kernel reports, and what that proves.
//!
//! The kernel gives two kinds of answers. One is about the *peer*: the process that called
//! `connect(2)`, `listen(2)` or `socketpair(2)` at the other end, as it was then. The other is
//! about the *sender* of one message: the process that called `sendmsg(2)`, checked by the kernel
//! at that moment. A socket can be inherited and passed on, so the two need not be the same
//! process.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use libc::gid_t;

use crate::net::socket::UnixSeqpacket;
use crate::sys;
use crate::types::ucred::UCred;
use crate::util::unsupported::{too_old, unsupported};

impl UnixSeqpacket {
    /// Sets whether the sender's credentials come with every message from now on (`SO_PASSCRED`,
    /// `SCM_CREDENTIALS`; see `unix(7)`).
    ///
    /// They are in [`AncillaryBuffer::credentials`](crate::ancillary::AncillaryBuffer::credentials)
    /// or in the [`AncillaryMessageReader`](crate::ancillary::AncillaryMessageReader).
    ///
    /// **Proves** that the process which sent *this* message has these ids, or the privilege to
    /// claim them. The kernel fills in the sender's process id and real user and group id, or
    /// checks the ids that the sender claims. **Does not prove** that the process still exists when
    /// the message is read. Its id can have been given to another process.
    ///
    /// A message that was sent before either end had set this may carry process id 0 and the
    /// overflow ids (65534) instead. Set it on the listener, so that accepted sockets have it from
    /// the start.
    ///
    /// While this is set, the kernel binds an unbound socket to a name in the abstract namespace
    /// (autobind) when it sends or connects.
    ///
    /// While this is set, a receive without capacity for ancillary data reports it as truncated, if
    /// it returns a [`MessageInfo`](crate::MessageInfo::ancillary_truncated).
    ///
    /// # Errors
    /// Those of `setsockopt(2)`.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use tokio_seqpacket::UnixSeqpacket;
    /// use tokio_seqpacket::ancillary::AncillaryBuffer;
    ///
    /// let (a, b) = UnixSeqpacket::pair()?;
    /// b.set_pass_credentials(true)?;
    /// a.send(b"who am I?").await?;
    /// let (received, _, ancillary) =
    ///     b.recv_owned_with_ancillary(Vec::with_capacity(64), AncillaryBuffer::new()).await;
    /// received?;
    /// let sender = ancillary.credentials().expect("credentials come with every message");
    /// assert_eq!(sender.pid(), Some(std::process::id() as i32));
    /// # Ok(()) }
    /// ```
    pub fn set_pass_credentials(&self, pass: bool) -> io::Result<()> {
        self.inner.want_control();
        self.inner.change_marks(|fd| sys::set_pass_credentials(fd, pass))
    }

    /// Returns whether the sender's credentials come with every message.
    ///
    /// # Errors
    /// Those of `getsockopt(2)`.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// let (a, _b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// assert!(!a.pass_credentials()?);
    /// a.set_pass_credentials(true)?;
    /// assert!(a.pass_credentials()?);
    /// # Ok(()) }
    /// ```
    pub fn pass_credentials(&self) -> io::Result<bool> {
        sys::pass_credentials(self.as_fd())
    }

    /// Sets whether a pidfd of the sending process comes with every message from now on
    /// (`SO_PASSPIDFD`, `SCM_PIDFD`; Linux 6.5).
    ///
    /// It is in [`AncillaryBuffer::take_pidfd`](crate::ancillary::AncillaryBuffer::take_pidfd). The
    /// byte-array reader of tokio-seqpacket's API shows it as
    /// [`Other`](crate::ancillary::OwnedAncillaryMessage::Other), whose
    /// [`into_pidfd`](crate::ancillary::OwnedUnknownMessage::into_pidfd) takes it.
    ///
    /// **Proves** which process sent this message, for good: a pidfd never comes to mean another
    /// process, see `pidfd_open(2)`. Credentials read through it (in `/proc`, after a check that
    /// the process is alive) are those of the sender. **Does not prove** that the process is alive,
    /// nor that it has kept its ids or its program.
    ///
    /// Each message costs a descriptor, which the ancillary buffer closes with the next message.
    ///
    /// # Errors
    /// `Unsupported` before Linux 6.5, otherwise those of `setsockopt(2)`.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use tokio_seqpacket::UnixSeqpacket;
    /// use tokio_seqpacket::ancillary::AncillaryBuffer;
    ///
    /// let (a, b) = UnixSeqpacket::pair()?;
    /// match b.set_pass_pidfd(true) {
    ///     Err(error) if error.kind() == std::io::ErrorKind::Unsupported => return Ok(()),
    ///     set => set?,
    /// }
    /// a.send(b"message").await?;
    /// let (received, _, mut ancillary) =
    ///     b.recv_owned_with_ancillary(Vec::with_capacity(64), AncillaryBuffer::new()).await;
    /// received?;
    /// assert!(ancillary.take_pidfd().is_some());
    /// # Ok(()) }
    /// ```
    pub fn set_pass_pidfd(&self, pass: bool) -> io::Result<()> {
        self.inner.want_control();
        self.inner.change_marks(|fd| set_pass_pidfd(fd, pass))
    }

    /// Returns whether a pidfd of the sending process comes with every message.
    ///
    /// # Errors
    /// Those of [`set_pass_pidfd`](Self::set_pass_pidfd).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use std::io::ErrorKind;
    ///
    /// let (a, _b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// match a.pass_pidfd() {
    ///     Ok(passes) => assert!(!passes),
    ///     Err(error) => assert_eq!(error.kind(), ErrorKind::Unsupported),
    /// }
    /// # Ok(()) }
    /// ```
    pub fn pass_pidfd(&self) -> io::Result<bool> {
        let value = sys::socket_option(self.as_fd(), libc::SO_PASSPIDFD, 4);
        let value = value.map_err(|error| too_old(error, "SO_PASSPIDFD", "6.5"))?;
        Ok(value.iter().any(|byte| *byte != 0))
    }

    /// Returns the credentials of the peer's process, with its effective user and group id
    /// (`SO_PEERCRED`).
    ///
    /// That is the process that connected, listened or made the pair, as it was then. It need not
    /// be the process that holds the other end now. See
    /// [`guide::credentials`](crate::guide::credentials).
    ///
    /// # Errors
    /// Those of `getsockopt(2)`.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// let (a, _b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// // This process made both ends.
    /// assert_eq!(a.peer_cred()?.pid(), Some(std::process::id() as i32));
    /// # Ok(()) }
    /// ```
    pub fn peer_cred(&self) -> io::Result<UCred> {
        UCred::from_socket_peer(self)
    }

    /// Returns a pidfd of the peer's process (`SO_PEERPIDFD`, Linux 6.5), close-on-exec.
    ///
    /// **Proves** which process connected, listened or made the pair, for good. The process id in
    /// [`peer_cred`](Self::peer_cred), by contrast, can be given to another process once that one
    /// has ended. **Does not prove** that this process holds the other end now: a socket can be
    /// inherited and passed on.
    ///
    /// # Errors
    /// `Unsupported` before Linux 6.5. `ESRCH` or `EINVAL` if the process has ended and its parent
    /// has waited for it, on kernels that make no pidfd for such a process.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// let (a, _b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// match a.peer_pidfd() {
    ///     Ok(pidfd) => drop(pidfd),
    ///     Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::Unsupported),
    /// }
    /// # Ok(()) }
    /// ```
    pub fn peer_pidfd(&self) -> io::Result<OwnedFd> {
        sys::peer_pidfd(self.as_fd()).map_err(|error| too_old(error, "SO_PEERPIDFD", "6.5"))
    }

    /// Returns the supplementary groups of the peer's process (`SO_PEERGROUPS`, Linux 4.13).
    ///
    /// **Proves** which groups the process had when it connected, listened or made the pair. The
    /// group of [`peer_cred`](Self::peer_cred) need not be among them. **Does not prove** that it
    /// still has them, nor which process holds the other end now. Groups are ids in this process's
    /// user namespace. A group without an id there is the overflow id (65534).
    ///
    /// # Errors
    /// `Unsupported` before Linux 4.13, otherwise those of `getsockopt(2)`.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// let (a, _b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// let may_control = a.peer_cred()?.gid() == 27 || a.peer_groups()?.contains(&27);
    /// # let _ = may_control; Ok(()) }
    /// ```
    pub fn peer_groups(&self) -> io::Result<Vec<gid_t>> {
        let groups = sys::socket_option(self.as_fd(), libc::SO_PEERGROUPS, 32 * size_of::<gid_t>())
            .map_err(|error| too_old(error, "SO_PEERGROUPS", "4.13"))?;
        let groups = groups.as_chunks::<{ size_of::<gid_t>() }>().0;
        Ok(groups.iter().map(|bytes| gid_t::from_ne_bytes(*bytes)).collect())
    }

    /// Returns the security label of the peer (`SO_PEERSEC`), in the form of the active security
    /// module.
    ///
    /// It has no terminating NUL byte. Under SELinux it is a context such as
    /// `system_u:system_r:init_t:s0`, under AppArmor a profile and mode.
    ///
    /// **Proves** which label the peer's socket had when the connection was made, by the policy of
    /// this machine. **Does not prove** anything where no module labels sockets, and does not
    /// replace the policy itself.
    ///
    /// # Errors
    /// `Unsupported` if no security module here labels Unix sockets (`ENOPROTOOPT`).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// let (a, _b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// match a.peer_security_label() {
    ///     Ok(label) => println!("{}", label.escape_ascii()),
    ///     Err(error) => println!("none: {error}"),
    /// }
    /// # Ok(()) }
    /// ```
    pub fn peer_security_label(&self) -> io::Result<Vec<u8>> {
        let mut label =
            sys::socket_option(self.as_fd(), libc::SO_PEERSEC, 256).map_err(|error| {
                unsupported(error, || {
                    "no security module here labels Unix sockets (SO_PEERSEC)".into()
                })
            })?;
        if label.last() == Some(&0) {
            label.pop();
        }
        Ok(label)
    }
}

impl UCred {
    /// Returns the credentials of the process at the other end of a Unix socket (`SO_PEERCRED`, see
    /// `unix(7)`).
    ///
    /// That is the process that connected or listened there, with its effective ids at that time.
    ///
    /// # Errors
    /// Those of `getsockopt(2)`: `EBADF`, `ENOTSOCK`.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// use std::os::unix::net::UnixStream;
    /// use tokio_seqpacket::UCred;
    ///
    /// // Any Unix socket will do.
    /// let (a, _b) = UnixStream::pair()?;
    /// assert_eq!(UCred::from_socket_peer(&a)?.pid(), Some(std::process::id() as i32));
    /// // A file has no peer.
    /// assert!(UCred::from_socket_peer(&std::fs::File::open("/dev/null")?).is_err());
    /// # Ok(()) }
    /// ```
    pub fn from_socket_peer<T: AsRawFd>(socket: &T) -> io::Result<Self> {
        sys::peer_credentials(socket.as_raw_fd()).map(Self::from_raw)
    }
}

pub(crate) fn set_pass_pidfd(fd: BorrowedFd<'_>, pass: bool) -> io::Result<()> {
    sys::set_socket_option(fd, libc::SO_PASSPIDFD, pass.into())
        .map_err(|error| too_old(error, "SO_PASSPIDFD", "6.5"))
}
