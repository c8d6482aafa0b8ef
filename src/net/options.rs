//! [`Options`]: how a socket is to be made.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use crate::backend::{self, Selection, Submission};
use crate::net::connect;
use crate::net::listener::UnixSeqpacketListener;
use crate::net::listener::socket_file::{self, SocketFile, Wishes};
use crate::net::socket::UnixSeqpacket;
use crate::sys;
use crate::types::socket_addr::SocketAddr;
use crate::util::close;
use libc::gid_t;
use libc::uid_t;

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
    keep_ancillary: bool,
    pass_rights: Option<bool>,
    local: Option<SocketAddr>,
    file: Wishes,
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

    fn prepare(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        self.pass_rights.map_or(Ok(()), |pass| sys::set_pass_rights(fd, pass))
    }

    fn socket_on(&self, choice: backend::Choice, fd: OwnedFd) -> io::Result<UnixSeqpacket> {
        let socket = UnixSeqpacket::on(choice, fd)?;
        if self.keep_ancillary {
            socket.inner.want_control();
        }
        Ok(socket)
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

    /// See [`UnixSeqpacket::connect`].
    ///
    /// # Errors
    /// As [`UnixSeqpacket::connect`], if the backend cannot be had, and what `bind(2)` says to
    /// [`local_addr`](Self::local_addr).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use tokio_seqpacket::{Backend, Options, UnixSeqpacketListener};
    ///
    /// # let directory = tempfile::tempdir()?;
    /// # let path = directory.path().join("service.sock");
    /// let listener = UnixSeqpacketListener::bind(&path)?;
    /// let socket = Options::new().backend(Backend::Epoll).connect(&path).await?;
    /// assert_eq!(socket.backend(), Backend::Epoll);
    /// # drop(listener);
    /// # Ok(()) }
    /// ```
    pub async fn connect<P: AsRef<Path>>(&self, address: P) -> io::Result<UnixSeqpacket> {
        self.connect_addr(&SocketAddr::from_path(address)?).await
    }

    /// Connect to a listener at an address. Else as [`connect`](Self::connect).
    ///
    /// # Errors
    /// As [`connect`](Self::connect); `InvalidInput` for an unnamed address.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use std::io::ErrorKind;
    /// use tokio_seqpacket::{Options, SocketAddr};
    ///
    /// let listener = Options::new().bind_addr(&SocketAddr::unnamed(), 16)?;
    /// let client = Options::new().connect_addr(&listener.local_socket_addr()?).await?;
    /// client.send(b"hello").await?;
    /// // That address leads to no listener.
    /// let refused = Options::new().connect_addr(&SocketAddr::unnamed()).await.unwrap_err();
    /// assert_eq!(refused.kind(), ErrorKind::InvalidInput);
    /// # Ok(()) }
    /// ```
    pub async fn connect_addr(&self, address: &SocketAddr) -> io::Result<UnixSeqpacket> {
        let backend = backend::select(self.selection, self.submission)?;
        let (fd, file) = self.connecting(address)?;
        let fd = connect::connect(fd, address).await?;
        let socket = self.socket_on(backend, fd)?;
        file.into_iter().for_each(SocketFile::keep);
        Ok(socket)
    }

    /// Connect to a listener, waiting on this thread while its backlog is full: for code that is not
    /// async but runs where there is a runtime ([`tokio::runtime::Runtime::enter`],
    /// `spawn_blocking`). The socket that comes back is like any other.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use tokio_seqpacket::{Options, UnixSeqpacketListener};
    ///
    /// # let name = format!("\0seqpacket-example-blocking-{}", std::process::id());
    /// let listener = UnixSeqpacketListener::bind(&name)?;
    /// let connecting = tokio::task::spawn_blocking(|| Options::new().connect_blocking(name));
    /// let client = connecting.await??;
    /// client.send(b"hello").await?;
    /// assert_eq!(listener.accept().await?.recv(&mut [0; 16]).await?, 5);
    /// # Ok(()) }
    /// ```
    pub fn connect_blocking<P: AsRef<Path>>(&self, address: P) -> io::Result<UnixSeqpacket> {
        let backend = backend::select(self.selection, self.submission)?;
        let address = SocketAddr::from_path(address)?;
        let (fd, file) = self.connecting(&address)?;
        sys::connect_waiting(fd.as_fd(), &address)?;
        let socket = self.socket_on(backend, fd)?;
        file.into_iter().for_each(SocketFile::keep);
        Ok(socket)
    }

    /// A socket that is to be connected to `to`, bound if that was asked for.
    fn connecting(&self, to: &SocketAddr) -> io::Result<(OwnedFd, Option<SocketFile>)> {
        if to.is_unnamed() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "an unnamed address leads to no listener",
            ));
        }
        let fd = sys::socket()?;
        self.prepare(fd.as_fd())?;
        let file = match &self.local {
            Some(local) => SocketFile::bind(fd.as_fd(), local)?,
            None => None,
        };
        Ok((fd, file))
    }

    /// See [`UnixSeqpacket::pair`].
    ///
    /// # Errors
    /// As [`UnixSeqpacket::pair`], and if the backend cannot be had.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use tokio_seqpacket::{Backend, Options};
    ///
    /// let (a, b) = Options::new().backend(Backend::Epoll).pair()?;
    /// assert_eq!((a.backend(), b.backend()), (Backend::Epoll, Backend::Epoll));
    /// # Ok(()) }
    /// ```
    pub fn pair(&self) -> io::Result<(UnixSeqpacket, UnixSeqpacket)> {
        let backend = backend::select(self.selection, self.submission)?;
        let (a, b) = sys::socketpair()?;
        self.prepare(a.as_fd())?;
        self.prepare(b.as_fd())?;
        Ok((self.socket_on(backend, a)?, self.socket_on(backend, b)?))
    }

    /// Checks a descriptor that is taken over. What it runs on, and whether its messages carry control data.
    fn adopt(
        &self,
        fd: OwnedFd,
        listening: bool,
    ) -> io::Result<(OwnedFd, (backend::Choice, bool))> {
        close::checked(fd, |fd| {
            sys::adopt(fd, listening)?;
            self.prepare(fd)?;
            let marked = sys::marks_messages(fd)?;
            Ok((backend::select(self.selection, self.submission)?, marked))
        })
    }

    /// Take over a connected socket; it is made non-blocking.
    ///
    /// # Errors
    /// `InvalidInput` if it is not a Unix seqpacket socket, listens, or is not connected; if the backend cannot be had.
    /// The descriptor is closed then.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use std::os::fd::OwnedFd;
    /// use tokio_seqpacket::{Options, UnixSeqpacket};
    ///
    /// let (a, b) = UnixSeqpacket::pair()?;
    /// let inherited = OwnedFd::from(a);
    /// let a = Options::new().socket_from_fd(inherited)?;
    /// a.send(b"message").await?;
    /// assert_eq!(b.recv(&mut [0; 16]).await?, 7);
    ///
    /// let file = std::fs::File::open("/dev/null")?;
    /// assert!(Options::new().socket_from_fd(file.into()).is_err());
    /// # Ok(()) }
    /// ```
    pub fn socket_from_fd(&self, fd: OwnedFd) -> io::Result<UnixSeqpacket> {
        let (fd, (choice, marked)) = self.adopt(fd, false)?;
        let socket = self.socket_on(choice, fd)?;
        if marked {
            socket.inner.want_control();
        }
        Ok(socket)
    }

    /// See [`UnixSeqpacketListener::bind_with_backlog`]. Accepted sockets run on the listener's
    /// backend.
    ///
    /// # Errors
    /// As [`UnixSeqpacketListener::bind`], and if the backend cannot be had.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use tokio_seqpacket::{Options, UnixSeqpacket};
    ///
    /// # let name = format!("\0seqpacket-example-options-{}", std::process::id());
    /// let listener = Options::new().bind(&name, 1024)?;
    /// let client = UnixSeqpacket::connect(&name).await?;
    /// assert_eq!(listener.accept().await?.backend(), listener.backend());
    /// # drop(client);
    /// # Ok(()) }
    /// ```
    pub fn bind<P: AsRef<Path>>(
        &self,
        address: P,
        backlog: i32,
    ) -> io::Result<UnixSeqpacketListener> {
        self.bind_addr(&SocketAddr::from_path(address)?, backlog)
    }

    /// Listen at an address. [`SocketAddr::unnamed`] has the kernel choose a free name in the abstract
    /// namespace (autobind), which
    /// [`local_socket_addr`](UnixSeqpacketListener::local_socket_addr) tells. Else as
    /// [`bind`](Self::bind).
    ///
    /// # Errors
    /// As [`bind`](Self::bind).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use tokio_seqpacket::{Options, SocketAddr};
    ///
    /// # let name = format!("seqpacket-example-bind-addr-{}", std::process::id());
    /// let address = SocketAddr::from_abstract_name(name)?;
    /// let listener = Options::new().bind_addr(&address, 128)?;
    /// assert_eq!(listener.local_socket_addr()?, address);
    /// assert!(Options::new().bind_addr(&address, 128).is_err());
    /// # Ok(()) }
    /// ```
    pub fn bind_addr(
        &self,
        address: &SocketAddr,
        backlog: i32,
    ) -> io::Result<UnixSeqpacketListener> {
        let backend = backend::select(self.selection, self.submission)?;
        let fd = sys::socket()?;
        self.prepare(fd.as_fd())?;
        // Registered once it listens, not before: a socket that does not listen yet counts as hung
        // up, which tokio remembers for good, and then accept(2) would be tried without end.
        let file = socket_file::listen(fd.as_fd(), address, backlog, &self.file)?;
        let listener = UnixSeqpacketListener::on(backend, fd)?;
        if self.keep_ancillary {
            listener.inner.want_control();
        }
        Ok(listener.with_file(file, self.file.unlink_on_drop))
    }

    /// Take over a listening socket; it is made non-blocking.
    ///
    /// # Errors
    /// `InvalidInput` if it is not a listening Unix seqpacket socket; if the backend cannot be had.
    /// The descriptor is closed then.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use std::os::fd::OwnedFd;
    /// use tokio_seqpacket::{Options, SocketAddr};
    ///
    /// let inherited = OwnedFd::from(Options::new().bind_addr(&SocketAddr::unnamed(), 16)?);
    /// let listener = Options::new().listener_from_fd(inherited)?;
    /// # drop(listener);
    /// # Ok(()) }
    /// ```
    pub fn listener_from_fd(&self, fd: OwnedFd) -> io::Result<UnixSeqpacketListener> {
        let (fd, (choice, marked)) = self.adopt(fd, true)?;
        let listener = UnixSeqpacketListener::on(choice, fd)?;
        if marked || self.keep_ancillary {
            listener.inner.want_control();
        }
        Ok(listener)
    }
}
