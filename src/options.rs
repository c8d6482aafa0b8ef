//! [`Options`]: how a socket is to be made.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use crate::address::SocketAddr;
use crate::backend::{self, Selection};
use crate::{UnixSeqpacket, UnixSeqpacketListener, connect, sys};

/// How sockets are made: for now, which backend they run on.
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
    local: Option<SocketAddr>,
}

impl Options {
    /// What the short-hand constructors use.
    pub fn new() -> Self {
        Self::default()
    }

    /// The backend to run on. [`Selection::Auto`], the default, follows the environment variable
    /// `TOKIO_SEQPACKET_BACKEND`; anything else overrides it, and is an error where it cannot be
    /// had.
    pub fn backend(mut self, selection: impl Into<Selection>) -> Self {
        self.selection = selection.into();
        self
    }

    /// Bind a connecting socket to this address first, which the listener's side sees as
    /// [`peer_addr`](UnixSeqpacket::peer_addr). [`SocketAddr::unnamed`] has the kernel choose a free
    /// name in the abstract namespace (autobind, see `unix(7)`).
    ///
    /// A path must not exist; the socket file stays when the socket is closed, and is removed if
    /// connecting fails. [`bind`](Self::bind) and [`pair`](Self::pair) take no notice of this.
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

    /// See [`UnixSeqpacket::connect`].
    ///
    /// # Errors
    /// As [`UnixSeqpacket::connect`], if the backend cannot be had, and what `bind(2)` says to
    /// [`local_addr`](Self::local_addr).
    pub async fn connect<P: AsRef<Path>>(&self, address: P) -> io::Result<UnixSeqpacket> {
        self.connect_addr(&SocketAddr::from_path(address)?).await
    }

    /// Connect to a listener at an address. Else as [`connect`](Self::connect).
    ///
    /// # Errors
    /// As [`connect`](Self::connect); `InvalidInput` for an unnamed address.
    pub async fn connect_addr(&self, address: &SocketAddr) -> io::Result<UnixSeqpacket> {
        let backend = backend::select(self.selection)?;
        let (fd, file) = self.connecting(address)?;
        let fd = connect::connect(fd, address).await?;
        let socket = UnixSeqpacket::on(backend, fd)?;
        file.keep();
        Ok(socket)
    }

    /// Connect to a listener, waiting on this thread while its backlog is full: for code that is not
    /// async but runs where there is a runtime ([`tokio::runtime::Runtime::enter`],
    /// `spawn_blocking`). The socket that comes back is like any other.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub fn connect_blocking<P: AsRef<Path>>(&self, address: P) -> io::Result<UnixSeqpacket> {
        let backend = backend::select(self.selection)?;
        let address = SocketAddr::from_path(address)?;
        let (fd, file) = self.connecting(&address)?;
        sys::connect_waiting(fd.as_fd(), &address)?;
        let socket = UnixSeqpacket::on(backend, fd)?;
        file.keep();
        Ok(socket)
    }

    /// A socket that is to be connected to `to`, bound if that was asked for.
    fn connecting(&self, to: &SocketAddr) -> io::Result<(OwnedFd, NewFile<'_>)> {
        if to.is_unnamed() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "an unnamed address leads to no listener",
            ));
        }
        let fd = sys::socket()?;
        let mut file = NewFile(None);
        if let Some(local) = &self.local {
            sys::bind(fd.as_fd(), local)?;
            file = NewFile(local.as_pathname());
        }
        Ok((fd, file))
    }

    /// See [`UnixSeqpacket::pair`].
    ///
    /// # Errors
    /// As [`UnixSeqpacket::pair`], and if the backend cannot be had.
    pub fn pair(&self) -> io::Result<(UnixSeqpacket, UnixSeqpacket)> {
        let backend = backend::select(self.selection)?;
        let (a, b) = sys::socketpair()?;
        Ok((UnixSeqpacket::on(backend, a)?, UnixSeqpacket::on(backend, b)?))
    }

    /// Take over a connected socket; it is made non-blocking.
    ///
    /// # Errors
    /// `InvalidInput` if it is not a Unix seqpacket socket or listens; if the backend cannot be had.
    /// The descriptor is closed then.
    pub fn socket_from_fd(&self, fd: OwnedFd) -> io::Result<UnixSeqpacket> {
        sys::adopt(fd.as_fd(), false)?;
        UnixSeqpacket::on(backend::select(self.selection)?, fd)
    }

    /// See [`UnixSeqpacketListener::bind_with_backlog`]. Accepted sockets run on the listener's
    /// backend.
    ///
    /// # Errors
    /// As [`UnixSeqpacketListener::bind`], and if the backend cannot be had.
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
    pub fn bind_addr(
        &self,
        address: &SocketAddr,
        backlog: i32,
    ) -> io::Result<UnixSeqpacketListener> {
        let backend = backend::select(self.selection)?;
        let fd = sys::socket()?;
        sys::bind(fd.as_fd(), address)?;
        let file = NewFile(address.as_pathname());
        // Registered once it listens, not before: a socket that does not listen yet counts as hung
        // up, which tokio remembers for good, and then accept(2) would be tried without end.
        sys::listen(fd.as_fd(), backlog)?;
        let listener = UnixSeqpacketListener::on(backend, fd)?;
        file.keep();
        Ok(listener)
    }

    /// Take over a listening socket; it is made non-blocking.
    ///
    /// # Errors
    /// `InvalidInput` if it is not a listening Unix seqpacket socket; if the backend cannot be had.
    /// The descriptor is closed then.
    pub fn listener_from_fd(&self, fd: OwnedFd) -> io::Result<UnixSeqpacketListener> {
        sys::adopt(fd.as_fd(), true)?;
        UnixSeqpacketListener::on(backend::select(self.selection)?, fd)
    }
}

/// The file that `bind(2)` has just made; removed if nothing comes of the socket.
struct NewFile<'a>(Option<&'a Path>);

impl NewFile<'_> {
    fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for NewFile<'_> {
    fn drop(&mut self) {
        if let Some(path) = self.0 {
            let _ = std::fs::remove_file(path);
        }
    }
}
