//! [`Options`]: how a socket is to be made.

use std::io;
use std::os::fd::OwnedFd;
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

    /// See [`UnixSeqpacket::connect`].
    ///
    /// # Errors
    /// As [`UnixSeqpacket::connect`], and if the backend cannot be had.
    pub async fn connect<P: AsRef<Path>>(&self, address: P) -> io::Result<UnixSeqpacket> {
        let backend = backend::select(self.selection)?;
        let address = SocketAddr::from_path(address)?;
        let fd = connect::connect(&address).await?;
        UnixSeqpacket::on(backend, fd)
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
        use std::os::fd::AsFd;
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
        use std::os::fd::AsFd;
        let backend = backend::select(self.selection)?;
        let address = SocketAddr::from_path(address)?;
        let fd = sys::socket()?;
        sys::bind(fd.as_fd(), &address)?;
        // Registered once it listens, not before: a socket that does not listen yet counts as hung
        // up, which tokio remembers for good, and then accept(2) would be tried without end.
        let listener =
            sys::listen(fd.as_fd(), backlog).and_then(|()| UnixSeqpacketListener::on(backend, fd));
        if listener.is_err()
            && let Some(path) = address.as_pathname()
        {
            // The file that bind(2) has just made.
            let _ = std::fs::remove_file(path);
        }
        listener
    }

    /// Take over a listening socket; it is made non-blocking.
    ///
    /// # Errors
    /// `InvalidInput` if it is not a listening Unix seqpacket socket; if the backend cannot be had.
    /// The descriptor is closed then.
    pub fn listener_from_fd(&self, fd: OwnedFd) -> io::Result<UnixSeqpacketListener> {
        use std::os::fd::AsFd;
        sys::adopt(fd.as_fd(), true)?;
        UnixSeqpacketListener::on(backend::select(self.selection)?, fd)
    }
}
