//! [`UnixSeqpacketListener`]: the public API of a listening socket.

pub(crate) mod activation;
mod bind;
pub(crate) mod incoming;
mod properties;
pub(crate) mod socket_file;

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};
use std::path::PathBuf;
use std::task::{Context, Poll, ready};

use crate::backend::{self, Choice};
use crate::common::trace::Span;
use crate::net::listener::socket_file::SocketFile;
use crate::net::socket::UnixSeqpacket;
use crate::sys;
use crate::types::backend::Backend;
use crate::types::socket_addr::SocketAddr;

/// A listening Unix seqpacket socket.
///
/// Dropping it closes it. The socket file stays, unless
/// [`Options::unlink_on_drop`](crate::Options::unlink_on_drop) was set. Connections that were not
/// accepted are closed, and the next call of each client fails with `ECONNRESET`.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
/// use tokio_seqpacket::{UnixSeqpacket, UnixSeqpacketListener};
///
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("service.sock");
/// let listener = UnixSeqpacketListener::bind(&path)?;
/// assert_eq!(listener.local_addr()?, path);
/// let client = UnixSeqpacket::connect(&path).await?;
/// let server = listener.accept().await?;
/// assert_eq!(server.backend(), listener.backend());
/// # drop(client);
/// # Ok(()) }
/// ```
pub struct UnixSeqpacketListener {
    /// The file to remove. Dropped first, so that the file never exists without its listening
    /// socket.
    file: Option<SocketFile>,
    /// The path that it is bound to, where the kernel knows only a short one.
    long_path: Option<SocketAddr>,
    pub(crate) inner: backend::Listener,
    pub(crate) span: Span,
}

impl UnixSeqpacketListener {
    pub(crate) fn on(choice: Choice, fd: OwnedFd) -> io::Result<Self> {
        let inner = backend::Listener::new(choice, fd)?;
        let span = Span::listener(inner.backend(), inner.fd());
        Ok(Self { file: None, long_path: None, inner, span })
    }

    pub(crate) fn with_file(self, file: Option<SocketFile>, unlink: bool) -> Self {
        match file {
            Some(file) if !unlink => {
                file.keep();
                self
            }
            file => Self { file, ..self },
        }
    }

    pub(crate) fn with_long_path(self, address: &SocketAddr) -> Self {
        let long_path = address.long_path().map(|_| address.clone());
        Self { long_path, ..self }
    }

    /// Accepts a connection.
    ///
    /// Tasks that wait are served first in, first out.
    ///
    /// # Cancel safety
    /// Dropping the future loses no connection.
    ///
    /// # Errors
    /// - Those of `accept4(2)`. At `EMFILE` and `ENFILE` the connection stays in the queue. Close
    ///   descriptors or wait before the next call, as [`incoming`](Self::incoming) does.
    /// - `InvalidInput` once the listener was shut down (`shutdown(2)`), which each process that
    ///   shares it can do.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use std::sync::Arc;
    /// use tokio_seqpacket::{UnixSeqpacket, UnixSeqpacketListener};
    ///
    /// # let directory = tempfile::tempdir()?;
    /// # let path = directory.path().join("service.sock");
    /// let listener = Arc::new(UnixSeqpacketListener::bind(&path)?);
    /// let accepting = tokio::spawn({
    ///     let listener = listener.clone();
    ///     async move { listener.accept().await }
    /// });
    /// let client = UnixSeqpacket::connect(&path).await?;
    /// let server = accepting.await??;
    /// server.send(b"welcome").await?;
    /// assert_eq!(client.recv(&mut [0; 16]).await?, 7);
    /// # Ok(()) }
    /// ```
    pub async fn accept(&self) -> io::Result<UnixSeqpacket> {
        let fd = self.inner.accept().await?;
        self.accepted(fd)
    }

    /// Polls for a connection, and wakes the task when there is one.
    ///
    /// Only the last task that polled is woken. While another task waits in
    /// [`accept`](Self::accept), this waits too.
    ///
    /// # Errors
    /// Those of [`accept`](Self::accept).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use std::future::poll_fn;
    /// # use tokio_seqpacket::{UnixSeqpacket, UnixSeqpacketListener};
    ///
    /// # let directory = tempfile::tempdir()?;
    /// # let path = directory.path().join("service.sock");
    /// let listener = UnixSeqpacketListener::bind(&path)?;
    /// let client = UnixSeqpacket::connect(&path).await?;
    /// let server = poll_fn(|cx| listener.poll_accept(cx)).await?;
    /// # drop((client, server));
    /// # Ok(()) }
    /// ```
    pub fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<UnixSeqpacket>> {
        let fd = ready!(self.inner.poll_accept(cx))?;
        Poll::Ready(self.accepted(fd))
    }

    pub(super) fn accepted(&self, fd: OwnedFd) -> io::Result<UnixSeqpacket> {
        let socket = self.span.accept(fd, |fd| UnixSeqpacket::on(self.inner.choice(), fd))?;
        if self.inner.wants_control() {
            // An accepted socket inherits the socket options that make messages carry control data.
            socket.inner.want_control();
        }
        socket.inner.set_max_fds(self.inner.max_fds());
        Ok(socket.with_long_paths(self.long_path.as_ref(), None))
    }

    /// Returns the address that it listens at, as a path.
    ///
    /// A leading NUL byte marks a name in the abstract namespace.
    ///
    /// # Errors
    /// Those of `getsockname(2)`.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use std::path::Path;
    /// use tokio_seqpacket::UnixSeqpacketListener;
    ///
    /// # let name = format!("\0seqpacket-example-local-{}", std::process::id());
    /// let listener = UnixSeqpacketListener::bind(&name)?;
    /// assert_eq!(listener.local_addr()?, Path::new(&name));
    /// # Ok(()) }
    /// ```
    pub fn local_addr(&self) -> io::Result<PathBuf> {
        self.local_socket_addr().map(SocketAddr::into_path_buf)
    }

    /// Returns the address that it listens at.
    ///
    /// For a path over 108 bytes see [`SocketAddr`].
    ///
    /// # Errors
    /// Those of `getsockname(2)`.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use tokio_seqpacket::{Options, SocketAddr};
    ///
    /// let listener = Options::new().bind_addr(&SocketAddr::unnamed(), 16)?;
    /// let address = listener.local_socket_addr()?;
    /// // The kernel chose a name of five digits.
    /// assert_eq!(address.as_abstract_name().map(<[u8]>::len), Some(5));
    /// # Ok(()) }
    /// ```
    pub fn local_socket_addr(&self) -> io::Result<SocketAddr> {
        match &self.long_path {
            Some(path) => Ok(path.clone()),
            None => sys::local_address(self.as_fd()),
        }
    }

    /// Takes the pending error of the socket (`SO_ERROR`), if there is one.
    ///
    /// # Errors
    /// Those of `getsockopt(2)`.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// # use tokio_seqpacket::{Options, SocketAddr};
    /// let listener = Options::new().bind_addr(&SocketAddr::unnamed(), 16)?;
    /// assert!(listener.take_error()?.is_none());
    /// # Ok(()) }
    /// ```
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        sys::take_error(self.as_fd())
    }

    /// Returns the backend that it runs on. Accepted sockets run on the same.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use tokio_seqpacket::{Backend, Options, SocketAddr};
    ///
    /// let options = Options::new().backend(Backend::Epoll);
    /// let listener = options.bind_addr(&SocketAddr::unnamed(), 16)?;
    /// assert_eq!(listener.backend(), Backend::Epoll);
    /// # Ok(()) }
    /// ```
    pub fn backend(&self) -> Backend {
        self.inner.backend()
    }

    /// Returns the raw fd.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// # use tokio_seqpacket::{Options, SocketAddr};
    /// let listener = Options::new().bind_addr(&SocketAddr::unnamed(), 16)?;
    /// let raw_fd = listener.as_raw_fd();
    /// let link = std::fs::read_link(format!("/proc/self/fd/{raw_fd}"))?;
    /// assert!(link.to_string_lossy().starts_with("socket:"));
    /// # Ok(()) }
    /// ```
    pub fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }

    /// Leaves the runtime and returns the raw fd, which the caller then has to close.
    ///
    /// The socket file stays.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use std::os::fd::{FromRawFd, OwnedFd};
    /// # use tokio_seqpacket::{Options, SocketAddr};
    ///
    /// let listener = Options::new().bind_addr(&SocketAddr::unnamed(), 16)?;
    /// let raw_fd = listener.into_raw_fd();
    /// // SAFETY: `into_raw_fd` has just released the open descriptor.
    /// let fd = unsafe { OwnedFd::from_raw_fd(raw_fd) };
    /// # drop(fd);
    /// # Ok(()) }
    /// ```
    pub fn into_raw_fd(self) -> RawFd {
        OwnedFd::from(self).into_raw_fd()
    }
}

impl fmt::Debug for UnixSeqpacketListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UnixSeqpacketListener")
            .field("fd", &self.as_raw_fd())
            .field("backend", &self.backend())
            .finish()
    }
}

impl AsFd for UnixSeqpacketListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.fd()
    }
}

impl AsRawFd for UnixSeqpacketListener {
    fn as_raw_fd(&self) -> RawFd {
        self.as_raw_fd()
    }
}

impl IntoRawFd for UnixSeqpacketListener {
    fn into_raw_fd(self) -> RawFd {
        self.into_raw_fd()
    }
}

impl From<UnixSeqpacketListener> for OwnedFd {
    fn from(listener: UnixSeqpacketListener) -> Self {
        let UnixSeqpacketListener { file, inner, long_path: _, span: _span } = listener;
        if let Some(file) = file {
            file.keep();
        }
        inner.into_fd()
    }
}
