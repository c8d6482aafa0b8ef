//! [`Options`]: how a socket is to be made.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use libc::{gid_t, uid_t};

use crate::backend::{self, Choice};
use crate::net::socket::UnixSeqpacket;
use crate::sys;
use crate::types::backend::{Selection, Submission};
use crate::types::socket_addr::SocketAddr;

/// How sockets are made: which backend they run on, where a client is bound, and what becomes of a
/// listener's socket file.
///
/// The options for that file ([`mode`](Self::mode), [`owner`](Self::owner), [`replace_stale`](Self::replace_stale),
/// [`unlink_on_drop`](Self::unlink_on_drop)) do nothing for sockets that are not bound here:
/// [`listener_from_fd`](Self::listener_from_fd) ignores them.
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
    pub(super) keep_ancillary: bool,
    pass_rights: Option<bool>,
    pub(super) local: Option<SocketAddr>,
    pub(super) file: Wishes,
}

/// What is wanted of the socket file of a listener.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wishes {
    pub(crate) mode: Option<u32>,
    pub(crate) user: Option<uid_t>,
    pub(crate) group: Option<gid_t>,
    pub(crate) replace_stale: bool,
    pub(crate) unlink_on_drop: bool,
}

impl Options {
    /// What the short-hand constructors use.
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

    /// The backend to run on. [`Selection::Auto`], the default, follows the environment variable
    /// `TOKIO_SEQPACKET_BACKEND`; anything else overrides it, and is an error (`Unsupported`) where it cannot be
    /// had.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use tokio_seqpacket::{Backend, Options};
    ///
    /// // io_uring or nothing: an error tells why not, where there is none.
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

    /// Sets how a socket on io_uring submits its operations. Without this call it follows the environment variable
    /// `TOKIO_SEQPACKET_SUBMISSION` (`adaptive`, `ring` or `direct`), and is adaptive where that is not set. Does
    /// nothing on epoll.
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

    /// Makes every receive of the socket take ancillary data along, from the first on.
    ///
    /// A receive through a ring can be dropped after it has taken its message. The message then goes to the next receive;
    /// its ancillary data too, once some receive of the socket had capacity for any. Before that ancillary data is
    /// discarded, as a plain receive discards it anyway, and the next receive does not learn of it. With this option it never
    /// is. It costs some 15 % of a small
    /// message, and peers can make the process hold descriptors that nothing asked for.
    ///
    /// A descriptor that takes long to close then holds up no receive either, plain ones included: the library closes what
    /// is not taken, and that beside the runtime where it may take long. See
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

    /// Sets whether messages to the socket, or to those that a listener accepts, may carry file descriptors
    /// (`SO_PASSRIGHTS`, Linux 6.16): before the first message can be sent. See [`UnixSeqpacket::set_pass_rights`].
    ///
    /// Without this call a new socket lets them in, and one that is taken over stays as it was. With it, making a socket fails
    /// with `Unsupported` before Linux 6.16. What the socket itself may send is the peer's choice.
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

    /// Bind a connecting socket to this address first, which the listener's side sees as
    /// [`peer_addr`](UnixSeqpacket::peer_addr). [`SocketAddr::unnamed`] has the kernel choose a free
    /// name in the abstract namespace (autobind, see `unix(7)`).
    ///
    /// A path must not exist (`AddrInUse`), whatever [`replace_stale`](Self::replace_stale) says. The socket file stays
    /// when the socket is closed, and is removed if connecting fails. [`bind`](Self::bind) and [`pair`](Self::pair) ignore
    /// this.
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

    /// The permissions of the file of a listening socket, `0o600` for example. Who may write to it may
    /// connect (see `unix(7)`). The umask does not count; without this, it alone decides.
    ///
    /// The file has no permission more than these from its first moment, and all of them before the
    /// first connection is possible. An abstract name has no permissions and is refused.
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

    /// The user and the group that the file of a listening socket is to belong to, `None` for what it
    /// would be anyway. Giving files to others takes `CAP_CHOWN`; a group of one's own does not. An
    /// abstract name has no owner and is refused.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use std::os::unix::fs::{MetadataExt, PermissionsExt};
    /// use tokio_seqpacket::Options;
    ///
    /// # let directory = tempfile::tempdir()?;
    /// # let path = directory.path().join("service.sock");
    /// // A group of one's own, here that of the directory: its members may connect.
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

    /// Replaces a socket file that was left by a process that has ended, where a listener is bound to its path.
    ///
    /// A file is stale if no socket is bound to it. A socket that does not listen yet counts, so the file of a program
    /// between `bind(2)` and `listen(2)` stays. It is found out by connecting a datagram socket, which a listener does not
    /// notice. A file that is in use, that is no socket, or that this process may not write to, stays and is
    /// `AddrInUse`.
    ///
    /// Of several processes that do this at once one listens, and the others get `AddrInUse`. For that, a socket
    /// `.seqpacket-<inode>` is bound in the same directory for some microseconds. Nothing waits, no lock is taken, and
    /// no permission is needed that `bind(2)` and `unlink(2)` do not need themselves. Where that socket cannot be bound
    /// (a policy that names each path, no `/proc`), processes that start at the same time are not kept apart. A program
    /// that removes the path without looking never is.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use std::io::ErrorKind;
    /// use tokio_seqpacket::{Options, UnixSeqpacketListener};
    ///
    /// # let directory = tempfile::tempdir()?;
    /// # let path = directory.path().join("service.sock");
    /// // Ends and leaves its file.
    /// drop(UnixSeqpacketListener::bind(&path)?);
    /// let in_use = UnixSeqpacketListener::bind(&path).unwrap_err();
    /// assert_eq!(in_use.kind(), ErrorKind::AddrInUse);
    ///
    /// let options = Options::new().replace_stale(true);
    /// let listener = options.bind(&path, 128)?;
    /// // Not while somebody listens.
    /// assert!(options.bind(&path, 128).is_err());
    /// # drop(listener);
    /// # Ok(()) }
    /// ```
    pub fn replace_stale(mut self, replace: bool) -> Self {
        self.file.replace_stale = replace;
        self
    }

    /// Remove the socket file when the listener is dropped: if it is still the file that was made, and
    /// by the process that made it (not by its forks). Not if the descriptor is given away.
    ///
    /// Off by default, since a process that replaces this one may have its own file there by then, and
    /// because a signal that ends the process drops nothing: see the example `graceful`.
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

    /// What a socket or a listener is going to run on.
    pub(super) fn select(&self) -> io::Result<Choice> {
        backend::select(self.selection, self.submission)
    }

    pub(super) fn prepare(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        self.pass_rights.map_or(Ok(()), |pass| sys::set_pass_rights(fd, pass))
    }

    pub(super) fn socket_on(&self, choice: Choice, fd: OwnedFd) -> io::Result<UnixSeqpacket> {
        let socket = UnixSeqpacket::on(choice, fd)?;
        if self.keep_ancillary {
            socket.inner.want_control();
        }
        Ok(socket)
    }
}
