//! The `from_raw_fd` constructors of tokio-seqpacket.
#![allow(unsafe_code, reason = "unsafe fn from_raw_fd is part of the drop-in API")]

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use crate::net::listener::UnixSeqpacketListener;
use crate::net::socket::UnixSeqpacket;

impl UnixSeqpacket {
    /// Takes over a connected socket by its raw fd.
    ///
    /// `TryFrom<OwnedFd>` does the same without `unsafe`.
    ///
    /// # Errors
    /// Those of `TryFrom<OwnedFd>`. The descriptor is closed on an error.
    ///
    /// # Safety
    /// `fd` is open and has no other owner, as [`OwnedFd::from_raw_fd`] requires.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use std::os::fd::IntoRawFd;
    /// use tokio_seqpacket::UnixSeqpacket;
    ///
    /// let (a, _b) = UnixSeqpacket::pair()?;
    /// let raw_fd = a.into_raw_fd();
    /// // SAFETY: `into_raw_fd` has just released this open descriptor.
    /// let a = unsafe { UnixSeqpacket::from_raw_fd(raw_fd)? };
    /// # drop(a);
    /// # Ok(()) }
    /// ```
    pub unsafe fn from_raw_fd(fd: RawFd) -> io::Result<Self> {
        // SAFETY: this function's `# Safety` section makes the caller ensure what
        // `OwnedFd::from_raw_fd` requires: `fd` is open and has no other owner.
        Self::try_from(unsafe { OwnedFd::from_raw_fd(fd) })
    }
}

impl UnixSeqpacketListener {
    /// Takes over a listening socket by its raw fd.
    ///
    /// `TryFrom<OwnedFd>` does the same without `unsafe`.
    ///
    /// # Errors
    /// Those of `TryFrom<OwnedFd>`. The descriptor is closed on an error.
    ///
    /// # Safety
    /// `fd` is open and has no other owner, as [`OwnedFd::from_raw_fd`] requires.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use tokio_seqpacket::{Options, SocketAddr, UnixSeqpacketListener};
    ///
    /// let listener = Options::new().bind_addr(&SocketAddr::unnamed(), 16)?;
    /// let address = listener.local_socket_addr()?;
    /// let raw_fd = listener.into_raw_fd();
    /// // SAFETY: `into_raw_fd` has just released this open descriptor.
    /// let listener = unsafe { UnixSeqpacketListener::from_raw_fd(raw_fd)? };
    /// assert_eq!(listener.local_socket_addr()?, address);
    /// # Ok(()) }
    /// ```
    pub unsafe fn from_raw_fd(fd: RawFd) -> io::Result<Self> {
        // SAFETY: this function's `# Safety` section makes the caller ensure what
        // `OwnedFd::from_raw_fd` requires: `fd` is open and has no other owner.
        Self::try_from(unsafe { OwnedFd::from_raw_fd(fd) })
    }
}
