//! The `from_raw_fd` constructors of tokio-seqpacket.
#![allow(unsafe_code, reason = "unsafe fn from_raw_fd is part of the drop-in API")]

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use crate::net::listener::UnixSeqpacketListener;
use crate::net::socket::UnixSeqpacket;

impl UnixSeqpacket {
    /// Take over a connected socket by its number.
    ///
    /// `TryFrom<OwnedFd>` does the same without `unsafe`.
    ///
    /// # Errors
    /// As `TryFrom<OwnedFd>`; the descriptor is closed then.
    ///
    /// # Safety
    /// `fd` is open and nobody else owns it.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use std::os::fd::IntoRawFd;
    /// use tokio_seqpacket::UnixSeqpacket;
    ///
    /// let (a, _b) = UnixSeqpacket::pair()?;
    /// let number = a.into_raw_fd();
    /// // SAFETY: it is open, and was given away just now.
    /// let a = unsafe { UnixSeqpacket::from_raw_fd(number)? };
    /// # drop(a);
    /// # Ok(()) }
    /// ```
    pub unsafe fn from_raw_fd(fd: RawFd) -> io::Result<Self> {
        // SAFETY: the caller's promise is the one that OwnedFd wants.
        Self::try_from(unsafe { OwnedFd::from_raw_fd(fd) })
    }
}

impl UnixSeqpacketListener {
    /// Take over a listening socket by its number.
    ///
    /// `TryFrom<OwnedFd>` does the same without `unsafe`.
    ///
    /// # Errors
    /// As `TryFrom<OwnedFd>`; the descriptor is closed then.
    ///
    /// # Safety
    /// `fd` is open and nobody else owns it.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use tokio_seqpacket::{Options, SocketAddr, UnixSeqpacketListener};
    ///
    /// let listener = Options::new().bind_addr(&SocketAddr::unnamed(), 16)?;
    /// let address = listener.local_socket_addr()?;
    /// let number = listener.into_raw_fd();
    /// // SAFETY: it is open, and was given away just now.
    /// let listener = unsafe { UnixSeqpacketListener::from_raw_fd(number)? };
    /// assert_eq!(listener.local_socket_addr()?, address);
    /// # Ok(()) }
    /// ```
    pub unsafe fn from_raw_fd(fd: RawFd) -> io::Result<Self> {
        // SAFETY: the caller's promise is the one that OwnedFd wants.
        Self::try_from(unsafe { OwnedFd::from_raw_fd(fd) })
    }
}
