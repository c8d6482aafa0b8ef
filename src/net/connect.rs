//! Connecting, also to a listener whose backlog is full, and connected pairs.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use crate::net::backoff::Backoff;
use crate::net::listener::socket_file::SocketFile;
use crate::net::options::Options;
use crate::net::socket::UnixSeqpacket;
use crate::sys;
use crate::types::socket_addr::SocketAddr;

impl UnixSeqpacket {
    /// Connect to a listener.
    ///
    /// A leading NUL byte makes the address a name in the abstract namespace. While the listener's
    /// backlog is full this waits, trying again every 1 to 32 ms, until the connection is queued or
    /// refused. Cancel safe. Where a test has paused tokio's clock, these waits are tokio's, in its time.
    ///
    /// # Errors
    /// `InvalidInput` for a path over 108 bytes, an empty one, or one with a NUL byte inside;
    /// `ECONNREFUSED` if nobody listens, `ENOENT`, `EACCES`, `EPROTOTYPE` as in `connect(2)`.
    /// Outside a runtime, or in one without its I/O driver.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use tokio_seqpacket::{UnixSeqpacket, UnixSeqpacketListener};
    ///
    /// # let name = format!("\0seqpacket-example-{}", std::process::id());
    /// // A name in the abstract namespace; a path of a file works alike.
    /// let _listener = UnixSeqpacketListener::bind(&name)?;
    /// let socket = UnixSeqpacket::connect(&name).await?;
    /// assert!(socket.local_addr()?.is_unnamed());
    /// # Ok(()) }
    /// ```
    pub async fn connect<P: AsRef<Path>>(address: P) -> io::Result<Self> {
        Options::new().connect(address).await
    }

    /// Connect to a listener, waiting on this thread while its backlog is full. See
    /// [`Options::connect_blocking`].
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
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

    /// Two connected sockets.
    ///
    /// # Errors
    /// What `socketpair(2)` says; outside a runtime, or in one without its I/O driver.
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
        let backend = self.select()?;
        let (fd, file) = self.connecting(address)?;
        let fd = connect(fd, address).await?;
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
        let backend = self.select()?;
        let address = SocketAddr::from_path(address)?;
        let (fd, file) = self.connecting(&address)?;
        sys::connect_waiting(fd.as_fd(), &address)?;
        let socket = self.socket_on(backend, fd)?;
        file.into_iter().for_each(SocketFile::keep);
        Ok(socket)
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
        let backend = self.select()?;
        let (a, b) = sys::socketpair()?;
        self.prepare(a.as_fd())?;
        self.prepare(b.as_fd())?;
        Ok((self.socket_on(backend, a)?, self.socket_on(backend, b)?))
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
}

const FIRST_WAIT: Duration = Duration::from_millis(1);
const LONGEST_WAIT: Duration = Duration::from_millis(32);

/// The socket, connected to `address`.
///
/// `connect(2)` on a non-blocking Unix socket succeeds or fails at once. While the backlog is full
/// it fails with EAGAIN, and nothing tells when there is room again: poll(2) reports the
/// unconnected socket as writable. So the call is repeated, after a wait that doubles up to a bound
/// and is drawn at random, lest many clients knock in step.
async fn connect(socket: OwnedFd, address: &SocketAddr) -> io::Result<OwnedFd> {
    let mut backoff = None;
    loop {
        match sys::connect(socket.as_fd(), address) {
            Ok(()) => return Ok(socket),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        let backoff = match &mut backoff {
            Some(backoff) => backoff,
            None => backoff.insert(Backoff::new(FIRST_WAIT, LONGEST_WAIT)?),
        };
        backoff.wait().await?;
    }
}
