//! Connected sockets: connecting, also to a listener whose backlog is full, and pairs.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use crate::backend::Choice;
use crate::net::address_error::of_connect;
use crate::net::backoff::Backoff;
use crate::net::listener::socket_file::SocketFile;
use crate::net::options::Options;
use crate::net::socket::UnixSeqpacket;
use crate::sys;
use crate::types::socket_addr::SocketAddr;

impl UnixSeqpacket {
    /// Connects to a listener.
    ///
    /// A leading NUL byte makes the address a name in the abstract namespace. While the listener's
    /// backlog is full, this retries every 1 to 32 ms until the connection is queued or refused. A
    /// test that has paused tokio's clock controls these waits. A path may have more than the 108
    /// bytes of `sun_path`: see [`SocketAddr`].
    ///
    /// # Cancel safety
    /// Dropping the future makes no connection: the socket is closed unconnected.
    ///
    /// # Errors
    /// - `InvalidInput` for an empty path, one over 4095 bytes or with a NUL byte inside, and for an
    ///   abstract name over 107 bytes.
    /// - `ECONNREFUSED` if no socket listens at the address.
    /// - `ENOENT`, `EACCES`, `EPROTOTYPE` (another type of socket), `EMFILE` and others of
    ///   `connect(2)` and `socket(2)`.
    /// - `Unsupported` for a path over 108 bytes where `/proc` cannot be used.
    /// - An error outside a runtime, or in one without its I/O driver.
    ///
    /// The text of an error of the operating system names the address and the cause, for example
    /// the missing directory. Its kind is as usual. The error itself, with its number
    /// (`raw_os_error`), is the [`source`](std::error::Error::source).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use tokio_seqpacket::{UnixSeqpacket, UnixSeqpacketListener};
    ///
    /// # let name = format!("\0seqpacket-example-{}", std::process::id());
    /// // A name in the abstract namespace. The path of a file works as well.
    /// let _listener = UnixSeqpacketListener::bind(&name)?;
    /// let socket = UnixSeqpacket::connect(&name).await?;
    /// assert!(socket.local_addr()?.is_unnamed());
    ///
    /// use std::error::Error;
    /// let error = UnixSeqpacket::connect("/nonexistent/socket").await.unwrap_err();
    /// assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
    /// assert!(error.to_string().contains("directory /nonexistent does not exist"));
    /// let source = error.source().and_then(|source| source.downcast_ref::<std::io::Error>());
    /// assert_eq!(source.and_then(std::io::Error::raw_os_error), Some(2));
    /// # Ok(()) }
    /// ```
    pub async fn connect<P: AsRef<Path>>(address: P) -> io::Result<Self> {
        Options::new().connect(address).await
    }

    /// Connects to a listener, and blocks the thread while the backlog is full.
    ///
    /// See [`Options::connect_blocking`].
    ///
    /// # Errors
    /// Those of [`connect`](Self::connect).
    ///
    /// ```no_run
    /// # fn main() -> std::io::Result<()> {
    /// use tokio_seqpacket::UnixSeqpacket;
    ///
    /// let runtime = tokio::runtime::Runtime::new()?;
    /// let _inside = runtime.enter();
    /// let socket = UnixSeqpacket::connect_blocking("/run/foo.sock")?;
    /// # drop(socket); Ok(()) }
    /// ```
    pub fn connect_blocking<P: AsRef<Path>>(address: P) -> io::Result<Self> {
        Options::new().connect_blocking(address)
    }

    /// Makes two connected sockets.
    ///
    /// # Errors
    /// Those of `socketpair(2)`, and an error outside a runtime or in one without its I/O driver.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// a.send(b"there").await?;
    /// b.send(b"and back").await?;
    /// assert_eq!(b.recv(&mut [0; 16]).await?, 5);
    /// assert_eq!(a.recv(&mut [0; 16]).await?, 8);
    /// # Ok(()) }
    /// ```
    pub fn pair() -> io::Result<(Self, Self)> {
        Options::new().pair()
    }
}

impl Options {
    /// Connects to a listener with these options. See [`UnixSeqpacket::connect`].
    ///
    /// # Errors
    /// Those of [`UnixSeqpacket::connect`], an error if the backend is not available, and those of
    /// `bind(2)` for [`local_addr`](Self::local_addr).
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

    /// Connects to the listener at a [`SocketAddr`]. Otherwise this is like
    /// [`connect`](Self::connect).
    ///
    /// # Errors
    /// Those of [`connect`](Self::connect), and `InvalidInput` for an unnamed address.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use std::io::ErrorKind;
    /// use tokio_seqpacket::{Options, SocketAddr};
    ///
    /// let listener = Options::new().bind_addr(&SocketAddr::unnamed(), 16)?;
    /// let client = Options::new().connect_addr(&listener.local_socket_addr()?).await?;
    /// client.send(b"hello").await?;
    /// // No listener has an unnamed address.
    /// let refused = Options::new().connect_addr(&SocketAddr::unnamed()).await.unwrap_err();
    /// assert_eq!(refused.kind(), ErrorKind::InvalidInput);
    /// # Ok(()) }
    /// ```
    pub async fn connect_addr(&self, address: &SocketAddr) -> io::Result<UnixSeqpacket> {
        let backend = self.select()?;
        let (fd, file) = self.connecting(address)?;
        let fd = connect(fd, address).await?;
        self.connected(backend, fd, file, address)
    }

    /// Connects to a listener, and blocks the thread while the backlog is full.
    ///
    /// This is for code that is not async but runs inside a runtime
    /// ([`tokio::runtime::Runtime::enter`], `spawn_blocking`). The socket is like any other.
    ///
    /// # Errors
    /// Those of [`connect`](Self::connect).
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
        let backend = self.select()?;
        let address = SocketAddr::from_path(address)?;
        let (fd, file) = self.connecting(&address)?;
        sys::connect_waiting(fd.as_fd(), &address).map_err(|error| of_connect(error, &address))?;
        self.connected(backend, fd, file, &address)
    }

    /// Makes two connected sockets with these options. See [`UnixSeqpacket::pair`].
    ///
    /// # Errors
    /// Those of [`UnixSeqpacket::pair`], and an error if the backend is not available.
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
        let backend = self.select()?;
        let (a, b) = sys::socketpair()?;
        self.prepare(a.as_fd())?;
        self.prepare(b.as_fd())?;
        Ok((self.socket_on(backend, a)?, self.socket_on(backend, b)?))
    }

    /// Makes the socket that will be connected to `to`, bound to its local address if it has one.
    fn connecting(&self, to: &SocketAddr) -> io::Result<(OwnedFd, Option<SocketFile>)> {
        if to.is_unnamed() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "an unnamed address leads to no listener",
            ));
        }
        let fd = sys::socket().map_err(|error| of_connect(error, to))?;
        self.prepare(fd.as_fd())?;
        let file = match &self.local {
            Some(local) => SocketFile::bind(fd.as_fd(), local)?,
            None => None,
        };
        Ok((fd, file))
    }

    fn connected(
        &self,
        choice: Choice,
        fd: OwnedFd,
        file: Option<SocketFile>,
        to: &SocketAddr,
    ) -> io::Result<UnixSeqpacket> {
        let socket = self.socket_on(choice, fd)?;
        file.into_iter().for_each(SocketFile::keep);
        Ok(socket.with_long_paths(self.local.as_ref(), Some(to)))
    }
}

/// The first wait between two attempts to connect, before jitter.
const FIRST_CONNECT_WAIT: Duration = Duration::from_millis(1);
/// The bound of the waits between two attempts to connect.
const LONGEST_CONNECT_WAIT: Duration = Duration::from_millis(32);

/// Connects the socket to `address`, and returns it.
///
/// `connect(2)` on a non-blocking Unix socket succeeds or fails at once. While the backlog is full
/// it fails with `EAGAIN`. No event reports free capacity in the backlog, because `poll(2)` reports
/// an unconnected socket as writable. So the call is repeated with exponential backoff. The jitter
/// keeps many clients from retrying at the same moments.
async fn connect(socket: OwnedFd, address: &SocketAddr) -> io::Result<OwnedFd> {
    let mut backoff = None;
    loop {
        match sys::connect(socket.as_fd(), address) {
            Ok(()) => return Ok(socket),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(of_connect(error, address)),
        }
        let backoff = match &mut backoff {
            Some(backoff) => backoff,
            None => backoff.insert(Backoff::new(FIRST_CONNECT_WAIT, LONGEST_CONNECT_WAIT)?),
        };
        backoff.wait().await?;
    }
}
