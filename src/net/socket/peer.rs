//! Who is at the other end: what the kernel can be asked, and what its answers are worth.
//!
//! Two kinds of answer. About the *peer*: the process that called `connect(2)`, `listen(2)` or `socketpair(2)`
//! at the other end, as it was then. About the *sender* of one message: the process that
//! called `sendmsg(2)`, as it is at that moment, checked by the kernel. A socket can be inherited and
//! passed on, so that the two need not be the same process.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use libc::gid_t;

use crate::net::socket::UnixSeqpacket;
use crate::sys;
use crate::types::ucred::UCred;
use crate::util::unsupported::{too_old, unsupported};

impl UnixSeqpacket {
    /// Have the sender's credentials come with every message from now on (`SO_PASSCRED`,
    /// `SCM_CREDENTIALS`; see `unix(7)`), to be found in
    /// [`AncillaryBuffer::credentials`](crate::ancillary::AncillaryBuffer::credentials) or with the
    /// [`AncillaryMessageReader`](crate::ancillary::AncillaryMessageReader).
    ///
    /// **Proves** that the process which sent *this* message has these ids, or the privilege to claim
    /// them: the kernel fills in the sender's process id and real user and group id, or checks what
    /// the sender claims. **Does not prove** that the process still exists when the message is looked at:
    /// its id can have been given to another. A message that was sent before either end had set this
    /// may carry process id 0 and the overflow ids (65534) instead: set it on the listener, whose
    /// accepted sockets have it from the start.
    ///
    /// While this is set, the kernel binds an unbound socket to a name in the abstract namespace
    /// (autobind) when it sends or connects.
    ///
    /// While this is set, a receive call without room for ancillary data reports it as cut, if it returns a
    /// [`MessageInfo`](crate::MessageInfo::ancillary_truncated).
    ///
    /// # Errors
    /// What `setsockopt(2)` says.
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

    /// Whether the sender's credentials come with every message.
    ///
    /// # Errors
    /// What `getsockopt(2)` says.
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

    /// Have a descriptor of the sending process come with every message from now on (`SO_PASSPIDFD`,
    /// `SCM_PIDFD`; Linux 6.5): see
    /// [`AncillaryBuffer::take_pidfd`](crate::ancillary::AncillaryBuffer::take_pidfd).
    ///
    /// **Proves** which process sent this message, and stays that process: a pidfd never comes to
    /// mean another, see `pidfd_open(2)`. Credentials read by way of it (in `/proc`, after a check
    /// that it is still alive) are those of the sender. **Does not prove** that it is alive, nor that
    /// it has not changed its ids or its program since. It costs a descriptor a message, which the
    /// ancillary buffer closes with the next one.
    ///
    /// The byte-array reader of tokio-seqpacket's API shows it as
    /// [`Other`](crate::ancillary::OwnedAncillaryMessage::Other), whose
    /// [`into_pidfd`](crate::ancillary::OwnedUnknownMessage::into_pidfd) takes it.
    ///
    /// # Errors
    /// `Unsupported` before Linux 6.5; else what `setsockopt(2)` says.
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
        set_pass_pidfd(self.as_fd(), pass)
    }

    /// Whether a descriptor of the sending process comes with every message.
    ///
    /// # Errors
    /// As [`set_pass_pidfd`](Self::set_pass_pidfd).
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

    /// The credentials of the process that connected or made the pair, or that listened, as they
    /// were then (`SO_PEERCRED`): its effective user and group id. Not necessarily of the process that
    /// holds the other end now; see [`guide::credentials`](crate::guide::credentials).
    ///
    /// # Errors
    /// What `getsockopt(2)` says.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// let (a, _b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// // Both ends were made by this process.
    /// assert_eq!(a.peer_cred()?.pid(), Some(std::process::id() as i32));
    /// # Ok(()) }
    /// ```
    pub fn peer_cred(&self) -> io::Result<UCred> {
        UCred::from_socket_peer(self)
    }

    /// A descriptor of the peer's process (`SO_PEERPIDFD`, Linux 6.5), close-on-exec.
    ///
    /// **Proves** which process connected, listened or made the pair, and stays that process, where
    /// the number in [`peer_cred`](Self::peer_cred) can be given to another once it has ended.
    /// **Does not prove** that this process holds the other end now: a socket can be inherited and
    /// passed on.
    ///
    /// # Errors
    /// `Unsupported` before Linux 6.5. `ESRCH` or `EINVAL` if the process has ended and been waited
    /// for, on kernels that make no pidfd for such a one.
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

    /// The supplementary groups of the peer's process (`SO_PEERGROUPS`, Linux 4.13).
    ///
    /// **Proves** what groups the process had that connected, listened or made the pair, when it did.
    /// The group of [`peer_cred`](Self::peer_cred) need not be among them. **Does not prove** that it
    /// has them still, nor whose the other end is now. Groups are those of this process's user
    /// namespace; such as it has no number for come as the overflow id (65534).
    ///
    /// # Errors
    /// `Unsupported` before Linux 4.13; else what `getsockopt(2)` says.
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

    /// The security label of the peer (`SO_PEERSEC`), as the active security module writes it, without
    /// a terminating NUL byte: under SELinux a context such as `system_u:system_r:init_t:s0`, under
    /// AppArmor a profile and mode.
    ///
    /// **Proves** what label the peer's socket had when the connection was made, by the policy of
    /// this machine. **Does not prove** anything where no module labels sockets, and is no substitute
    /// for the policy itself.
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
    /// The credentials of the process that connected, or listened on, the other end of a Unix
    /// socket, as they were at that time: its effective ids (`SO_PEERCRED`, see `unix(7)`).
    ///
    /// # Errors
    /// What `getsockopt(2)` says: `EBADF`, `ENOTSOCK`.
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
