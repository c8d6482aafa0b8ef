//! [`Options`]: how a socket is made.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use libc::{gid_t, uid_t};

use crate::backend::{self, Choice};
use crate::net::socket::UnixSeqpacket;
use crate::sys;
use crate::types::backend::{Selection, Submission};
use crate::types::socket_addr::SocketAddr;

/// Options for making sockets: the backend, the address of a client, the socket file of a listener.
///
/// The options for that file are [`mode`](Self::mode), [`owner`](Self::owner),
/// [`replace_stale`](Self::replace_stale) and [`unlink_on_drop`](Self::unlink_on_drop). They apply
/// only to sockets that these options bind: [`listener_from_fd`](Self::listener_from_fd) ignores
/// them.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
/// use tokio_seqpacket::{Backend, Options};
///
/// let (a, b) = Options::new().backend(Backend::Epoll).pair()?;
/// assert_eq!(a.backend(), Backend::Epoll);
/// # drop(b); Ok(()) }
/// ```
#[derive(Debug, Clone, Default)]
pub struct Options {
    selection: Selection,
    submission: Option<Submission>,
    keep_ancillary: bool,
    pub(super) max_fds: Option<usize>,
    pass_credentials: Option<bool>,
    pass_rights: Option<bool>,
    pub(super) local: Option<SocketAddr>,
    pub(super) file: FileOptions,
}

/// The options for the socket file of a listener.
#[derive(Debug, Clone, Default)]
pub(crate) struct FileOptions {
    pub(crate) mode: Option<u32>,
    pub(crate) user: Option<uid_t>,
    pub(crate) group: Option<gid_t>,
    pub(crate) replace_stale: bool,
    pub(crate) unlink_on_drop: bool,
}

impl Options {
    /// Returns the options that [`UnixSeqpacket`] and its listener use by default.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use tokio_seqpacket::{Options, UnixSeqpacket};
    ///
    /// let (a, _b) = Options::new().pair()?;
    /// let (c, _d) = UnixSeqpacket::pair()?;
    /// assert_eq!(a.backend(), c.backend());
    /// # Ok(()) }
    /// ```
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the backend to run on.
    ///
    /// [`Selection::Auto`], the default, follows the environment variable
    /// `TOKIO_SEQPACKET_BACKEND`. Any other value overrides the variable. Making a socket then
    /// fails with `Unsupported` where that backend is not available.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use tokio_seqpacket::{Backend, Options};
    ///
    /// // io_uring or an error that says why it is not available.
    /// match Options::new().backend(Backend::Uring).pair() {
    ///     Ok((a, _b)) => assert_eq!(a.backend(), Backend::Uring),
    ///     Err(error) => assert!(error.to_string().contains("io_uring")),
    /// }
    /// # Ok(()) }
    /// ```
    pub fn backend(mut self, selection: impl Into<Selection>) -> Self {
        self.selection = selection.into();
        self
    }

    /// Sets how a socket on io_uring submits its operations.
    ///
    /// Without this call it follows the environment variable `TOKIO_SEQPACKET_SUBMISSION`
    /// (`adaptive`, `ring` or `direct`), and is adaptive where that is not set. Sockets on epoll
    /// ignore it.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use tokio_seqpacket::{Options, Submission};
    ///
    /// let (a, b) = Options::new().submission(Submission::Ring).pair()?;
    /// a.send(b"in a batch of one").await?;
    /// assert_eq!(b.recv(&mut [0; 32]).await?, 17);
    /// # Ok(()) }
    /// ```
    pub fn submission(mut self, submission: Submission) -> Self {
        self.submission = Some(submission);
        self
    }

    /// Sets whether every receive of the socket takes ancillary data along, from the first on.
    ///
    /// A receive through a ring can be dropped after it has taken its message. The next receive
    /// gets that message. It gets the ancillary data too, if an earlier receive of the socket had
    /// capacity for any. Before such a receive, ancillary data is discarded, as a plain receive
    /// discards it, and the next receive does not report that. With this option it is never
    /// discarded.
    ///
    /// The option adds some 15 % to the cost of a small message. Peers can then make the process
    /// hold descriptors that it did not ask for.
    ///
    /// With this option, a descriptor that takes long to close delays no receive, not even a plain
    /// one. The library closes the descriptors that no receive takes, and does so beside the
    /// runtime where it may take long. See
    /// [`guide::descriptors`](crate::guide::descriptors#descriptors-that-nothing-asked-for).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use tokio_seqpacket::Options;
    ///
    /// let (a, b) = Options::new().keep_ancillary(true).pair()?;
    /// # a.send(b"x").await?; b.recv(&mut [0; 4]).await?;
    /// # Ok(()) }
    /// ```
    pub fn keep_ancillary(mut self, keep: bool) -> Self {
        self.keep_ancillary = keep;
        self
    }

    /// Sets how many file descriptors one message may bring to the socket, or to the sockets that a
    /// listener accepts.
    ///
    /// The default is 253, the most that a message carries (`SCM_MAX_FD`). The limit applies from
    /// the first message on. See [`UnixSeqpacket::set_max_fds`].
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use tokio_seqpacket::{Options, SocketAddr};
    ///
    /// let listener = Options::new().max_fds(1).bind_addr(&SocketAddr::unnamed(), 16)?;
    /// let client = Options::new().connect_addr(&listener.local_socket_addr()?).await?;
    /// assert_eq!(listener.accept().await?.max_fds(), 1);
    /// # drop(client);
    /// # Ok(()) }
    /// ```
    pub fn max_fds(mut self, most: usize) -> Self {
        self.max_fds = Some(most);
        self
    }

    /// Sets whether the sender's credentials come with every message to the socket, or to the sockets
    /// that a listener accepts (`SO_PASSCRED`).
    ///
    /// The option takes effect before the first message can be sent. Without this call a new socket
    /// gets no credentials, and one that is taken over stays as it was. See
    /// [`UnixSeqpacket::set_pass_credentials`].
    ///
    /// A socket that connects with this option and has no address gets one from the kernel, in the
    /// abstract namespace (autobind, see `unix(7)`). The listener's side sees it.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use tokio_seqpacket::ancillary::AncillaryBuffer;
    /// use tokio_seqpacket::{Options, SocketAddr, UCred};
    ///
    /// let options = Options::new().pass_credentials(true);
    /// let listener = options.bind_addr(&SocketAddr::unnamed(), 16)?;
    /// let client = Options::new().connect_addr(&listener.local_socket_addr()?).await?;
    /// client.send(b"sent before it is accepted").await?;
    ///
    /// let server = listener.accept().await?;
    /// let (received, _, ancillary) =
    ///     server.recv_owned_with_ancillary(vec![0; 64], AncillaryBuffer::new()).await;
    /// received?;
    /// assert_eq!(ancillary.credentials(), Some(UCred::from_current_process()));
    /// # Ok(()) }
    /// ```
    pub fn pass_credentials(mut self, pass: bool) -> Self {
        self.pass_credentials = Some(pass);
        self
    }

    /// Sets whether messages to the socket may carry file descriptors, or messages to the sockets
    /// that a listener accepts (`SO_PASSRIGHTS`, Linux 6.16).
    ///
    /// The option takes effect before the first message can be sent. Without this call a new socket
    /// accepts descriptors, and one that is taken over stays as it was. With it, making a socket
    /// fails with `Unsupported` before Linux 6.16. Whether the peer accepts descriptors from this
    /// socket is the peer's choice. See [`UnixSeqpacket::set_pass_rights`].
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use std::io::ErrorKind;
    /// use tokio_seqpacket::Options;
    ///
    /// match Options::new().pass_rights(false).pair() {
    ///     Ok((a, b)) => assert!(!a.pass_rights()? && !b.pass_rights()?),
    ///     Err(error) => assert_eq!(error.kind(), ErrorKind::Unsupported),
    /// }
    /// # Ok(()) }
    /// ```
    pub fn pass_rights(mut self, pass: bool) -> Self {
        self.pass_rights = Some(pass);
        self
    }

    /// Sets the address that a socket is bound to before it connects.
    ///
    /// The listener's side sees it as [`peer_addr`](UnixSeqpacket::peer_addr). For
    /// [`SocketAddr::unnamed`] the kernel chooses a free name in the abstract namespace (autobind,
    /// see `unix(7)`).
    ///
    /// A path must not exist (`AddrInUse`), even with [`replace_stale`](Self::replace_stale). The
    /// socket file stays when the socket is closed, and is removed if connecting fails.
    /// [`bind`](Self::bind) and [`pair`](Self::pair) ignore this option.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use tokio_seqpacket::{Options, SocketAddr};
    ///
    /// let listener = Options::new().bind_addr(&SocketAddr::unnamed(), 16)?;
    /// let options = Options::new().local_addr(SocketAddr::unnamed());
    /// let client = options.connect_addr(&listener.local_socket_addr()?).await?;
    /// let server = listener.accept().await?;
    /// assert_eq!(server.peer_addr()?.as_abstract_name().map(<[u8]>::len), Some(5));
    /// # drop(client); Ok(()) }
    /// ```
    pub fn local_addr(mut self, address: SocketAddr) -> Self {
        self.local = Some(address);
        self
    }

    /// Sets the permissions of the file of a listening socket, for example `0o600`.
    ///
    /// Processes that may write to the file may connect (see `unix(7)`). The umask does not change
    /// these permissions. Without this call the umask alone decides.
    ///
    /// At no moment does the file have any permission beyond these. It has all of them before the
    /// first connection is possible. Binding to an abstract name, which has no permissions, fails
    /// with `InvalidInput`.
    ///
    /// Permissions that the umask removes are restored through `/proc`. Where that is not mounted, as in an empty
    /// chroot, binding fails with `Unsupported`. A mode from which the umask removes nothing needs no `/proc`.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use std::os::unix::fs::PermissionsExt;
    /// use tokio_seqpacket::Options;
    ///
    /// # let path = std::env::temp_dir().join(format!("seqpacket-mode-{}", std::process::id()));
    /// let options = Options::new().mode(0o600).unlink_on_drop(true);
    /// let listener = options.bind(&path, 128)?;
    /// assert_eq!(std::fs::metadata(&path)?.permissions().mode() & 0o777, 0o600);
    /// assert!(options.bind("\0service", 128).is_err());
    /// # drop(listener);
    /// # Ok(()) }
    /// ```
    pub fn mode(mut self, mode: u32) -> Self {
        self.file.mode = Some(mode);
        self
    }

    /// Sets the user and the group that own the file of a listening socket.
    ///
    /// `None` leaves the owner that the file gets by default. Giving a file to another user takes
    /// `CAP_CHOWN`. Giving it to another group of the process takes no privilege (see `chown(2)`).
    /// Binding to an abstract name, which has no owner, fails with `InvalidInput`.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use std::os::unix::fs::{MetadataExt, PermissionsExt};
    /// use tokio_seqpacket::Options;
    ///
    /// # let directory = tempfile::tempdir()?;
    /// # let path = directory.path().join("service.sock");
    /// // A group of this process, here that of the directory. Its members may connect.
    /// let group = std::fs::metadata(&directory)?.gid();
    /// let listener = Options::new().mode(0o660).owner(None, Some(group)).bind(&path, 128)?;
    /// let file = std::fs::metadata(&path)?;
    /// assert_eq!((file.permissions().mode() & 0o777, file.gid()), (0o660, group));
    /// # drop(listener);
    /// # Ok(()) }
    /// ```
    pub fn owner(mut self, user: Option<uid_t>, group: Option<gid_t>) -> Self {
        self.file.user = user;
        self.file.group = group;
        self
    }

    /// Sets whether binding a listener replaces a stale socket file, which a process left behind.
    ///
    /// A file is stale if no socket is bound to it. A socket that does not listen yet counts, so
    /// the file of a program between `bind(2)` and `listen(2)` stays. The test connects a datagram
    /// socket, which a listener does not notice. A file stays if it is in use, is no socket, or is
    /// not writable for this process. Binding then fails with `AddrInUse`.
    ///
    /// Of several processes that do this at once, one listens and the others get `AddrInUse`. For
    /// that, a socket `.seqpacket-<inode>` is bound in the same directory for some microseconds.
    /// The process does not wait, takes no lock, and needs no permission beyond those for `bind(2)`
    /// and `unlink(2)`. That socket can be impossible to bind, for example under a policy that
    /// names each path, or without `/proc`. Processes that start at the same time are then not kept
    /// apart. A program that removes the path without this test never is.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use std::io::ErrorKind;
    /// use tokio_seqpacket::{Options, UnixSeqpacketListener};
    ///
    /// # let directory = tempfile::tempdir()?;
    /// # let path = directory.path().join("service.sock");
    /// // The listener ends and leaves its file.
    /// drop(UnixSeqpacketListener::bind(&path)?);
    /// let in_use = UnixSeqpacketListener::bind(&path).unwrap_err();
    /// assert_eq!(in_use.kind(), ErrorKind::AddrInUse);
    ///
    /// let options = Options::new().replace_stale(true);
    /// let listener = options.bind(&path, 128)?;
    /// // A listener's file stays.
    /// assert!(options.bind(&path, 128).is_err());
    /// # drop(listener);
    /// # Ok(()) }
    /// ```
    pub fn replace_stale(mut self, replace: bool) -> Self {
        self.file.replace_stale = replace;
        self
    }

    /// Sets whether dropping the listener removes its socket file.
    ///
    /// The file is removed only if it is still the one that was made, and only by the process that
    /// made it. Its forks leave the file. It stays if the descriptor is given away.
    ///
    /// The option is off by default. A process that replaces this one may already have its own file
    /// at the path. And a signal that ends the process drops nothing: see the example `graceful`.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use tokio_seqpacket::Options;
    ///
    /// # let directory = tempfile::tempdir()?;
    /// let path = directory.path().join("service.sock");
    /// let options = Options::new().mode(0o600).replace_stale(true).unlink_on_drop(true);
    /// let listener = options.bind(&path, 128)?;
    /// assert!(path.exists());
    /// drop(listener);
    /// assert!(!path.exists());
    /// # Ok(()) }
    /// ```
    pub fn unlink_on_drop(mut self, unlink: bool) -> Self {
        self.file.unlink_on_drop = unlink;
        self
    }

    /// Selects the backend for a socket or a listener.
    pub(super) fn select(&self) -> io::Result<Choice> {
        backend::select(self.selection, self.submission)
    }

    pub(super) fn prepare(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        self.pass_credentials.map_or(Ok(()), |pass| sys::set_pass_credentials(fd, pass))?;
        self.pass_rights.map_or(Ok(()), |pass| sys::set_pass_rights(fd, pass))
    }

    /// Returns whether ancillary data is kept for receives that have capacity for it.
    pub(super) fn wants_control(&self) -> bool {
        self.keep_ancillary || self.pass_credentials == Some(true)
    }

    pub(super) fn socket_on(&self, choice: Choice, fd: OwnedFd) -> io::Result<UnixSeqpacket> {
        let socket = UnixSeqpacket::on(choice, fd)?;
        if self.wants_control() {
            socket.inner.want_control();
        }
        if let Some(most) = self.max_fds {
            socket.set_max_fds(most);
        }
        Ok(socket)
    }
}
