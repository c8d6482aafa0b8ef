//! Listening at an address.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use crate::net::listener::UnixSeqpacketListener;
use crate::net::listener::socket_file;
use crate::net::options::Options;
use crate::sys;
use crate::types::socket_addr::SocketAddr;

impl UnixSeqpacketListener {
    /// Listen at `address`, with a backlog of 128.
    ///
    /// A leading NUL byte makes the address a name in the abstract namespace.
    ///
    /// # Errors
    /// `InvalidInput` for a path over 108 bytes, an empty one, or one with a NUL byte inside;
    /// `EADDRINUSE` if the path exists, also where nobody listens any more; else what `bind(2)` and
    /// `listen(2)` say. Outside a runtime, or in one without its I/O driver.
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
    /// // A name in the abstract namespace goes with its socket; a file would stay.
    /// drop(listener);
    /// UnixSeqpacketListener::bind(&name)?;
    /// # Ok(()) }
    /// ```
    pub fn bind<P: AsRef<Path>>(address: P) -> io::Result<Self> {
        Self::bind_with_backlog(address, 128)
    }

    /// Listen at `address`, with a backlog of the given length.
    ///
    /// The kernel caps it at `net.core.somaxconn`, and holds one connection more than that. See
    /// `listen(2)`.
    ///
    /// # Errors
    /// As [`bind`](Self::bind).
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
        let backend = self.select()?;
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
}
