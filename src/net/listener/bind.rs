//! Making listeners: binding to an address and listening there.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use crate::net::address_error::of_bind;
use crate::net::listener::UnixSeqpacketListener;
use crate::net::listener::socket_file;
use crate::net::options::Options;
use crate::sys;
use crate::types::socket_addr::SocketAddr;

impl UnixSeqpacketListener {
    /// Listens at `address`, with a backlog of 128.
    ///
    /// A leading NUL byte makes the address a name in the abstract namespace. A path may have more
    /// than the 108 bytes of `sun_path`: see [`SocketAddr`].
    ///
    /// # Errors
    /// - `InvalidInput` for an empty path, one over 4095 bytes or with a NUL byte inside, and for an
    ///   abstract name over 107 bytes. Also for a path that ends in a slash, in `.` or in `..`, and for a file name that is
    ///   too long in a path over 108 bytes: up to 83 bytes always work, a few more while raw fds are small.
    /// - `EADDRINUSE` if the path exists, even if no socket listens there any more.
    /// - `ENOENT`, `EACCES`, `EROFS`, `EMFILE` and others of `socket(2)`, `bind(2)` and `listen(2)`.
    /// - `Unsupported` for a path over 108 bytes where `/proc` cannot be used.
    /// - An error outside a runtime, or in one without its I/O driver.
    ///
    /// The text of an error of the operating system names the address and the cause. The error
    /// itself is the `source()`, as for [`connect`](crate::UnixSeqpacket::connect).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use std::io::ErrorKind;
    /// use tokio_seqpacket::UnixSeqpacketListener;
    ///
    /// # let name = format!("\0seqpacket-example-bind-{}", std::process::id());
    /// let listener = UnixSeqpacketListener::bind(&name)?;
    /// let taken = UnixSeqpacketListener::bind(&name).unwrap_err();
    /// assert_eq!(taken.kind(), ErrorKind::AddrInUse);
    /// // A name in the abstract namespace ends with its socket. A file would stay.
    /// drop(listener);
    /// UnixSeqpacketListener::bind(&name)?;
    /// # Ok(()) }
    /// ```
    pub fn bind<P: AsRef<Path>>(address: P) -> io::Result<Self> {
        Self::bind_with_backlog(address, 128)
    }

    /// Listens at `address`, with a backlog of `backlog` connections.
    ///
    /// The kernel limits it to `net.core.somaxconn`, and holds one connection more than that. See
    /// `listen(2)`.
    ///
    /// # Errors
    /// Those of [`bind`](Self::bind).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use tokio_seqpacket::UnixSeqpacketListener;
    ///
    /// # let directory = tempfile::tempdir()?;
    /// # let path = directory.path().join("service.sock");
    /// let listener = UnixSeqpacketListener::bind_with_backlog(&path, 1024)?;
    /// # drop(listener);
    /// # Ok(()) }
    /// ```
    pub fn bind_with_backlog<P: AsRef<Path>>(address: P, backlog: i32) -> io::Result<Self> {
        Options::new().bind(address, backlog)
    }
}

impl Options {
    /// Listens at `address` with these options. See [`UnixSeqpacketListener::bind_with_backlog`].
    ///
    /// Accepted sockets run on the listener's backend.
    ///
    /// # Errors
    /// Those of [`UnixSeqpacketListener::bind`], and an error if the backend is not available.
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

    /// Listens at a [`SocketAddr`]. Otherwise this is like [`bind`](Self::bind).
    ///
    /// For [`SocketAddr::unnamed`] the kernel chooses a free name in the abstract namespace
    /// (autobind). [`local_socket_addr`](UnixSeqpacketListener::local_socket_addr) returns that
    /// name.
    ///
    /// # Errors
    /// Those of [`bind`](Self::bind).
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
        let backend = self.select()?;
        let fd = sys::socket().map_err(|error| of_bind(error, address))?;
        self.prepare(fd.as_fd())?;
        // Registered only once it listens. Until then tokio would see the socket as hung up, and
        // remember that for good. Then accept(2) would be retried without end.
        let file = socket_file::listen(fd.as_fd(), address, backlog, &self.file)?;
        let listener = UnixSeqpacketListener::on(backend, fd)?;
        self.set_up(&listener);
        Ok(listener.with_file(file, self.file.unlink_on_drop).with_long_path(address))
    }

    /// Sets what the sockets inherit that the listener accepts.
    pub(in crate::net) fn set_up(&self, listener: &UnixSeqpacketListener) {
        if self.wants_control() {
            listener.inner.want_control();
        }
        if let Some(most) = self.max_fds {
            listener.inner.set_max_fds(most);
        }
    }
}
