//! Options of a listener that its accepted sockets inherit, effective from their first message on.

use std::io;
use std::os::fd::AsFd;

use crate::net::listener::UnixSeqpacketListener;
use crate::net::socket::peer::set_pass_pidfd;
use crate::sys;

impl UnixSeqpacketListener {
    /// Sets whether the sender's credentials come with every message on accepted sockets.
    ///
    /// They also come with messages that were sent before the socket was accepted. See
    /// [`UnixSeqpacket::set_pass_credentials`](crate::UnixSeqpacket::set_pass_credentials).
    ///
    /// # Errors
    /// Those of `setsockopt(2)`.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use tokio_seqpacket::ancillary::AncillaryBuffer;
    /// use tokio_seqpacket::{Options, SocketAddr, UCred};
    ///
    /// let listener = Options::new().bind_addr(&SocketAddr::unnamed(), 16)?;
    /// listener.set_pass_credentials(true)?;
    /// let client = Options::new().connect_addr(&listener.local_socket_addr()?).await?;
    /// client.send(b"first words").await?;
    ///
    /// let server = listener.accept().await?;
    /// let (received, _, ancillary) =
    ///     server.recv_owned_with_ancillary(vec![0; 64], AncillaryBuffer::new()).await;
    /// received?;
    /// assert_eq!(ancillary.credentials(), Some(UCred::from_current_process()));
    /// # Ok(()) }
    /// ```
    pub fn set_pass_credentials(&self, pass: bool) -> io::Result<()> {
        self.inner.want_control();
        sys::set_pass_credentials(self.as_fd(), pass)
    }

    /// Sets whether a pidfd of the sending process comes with every message on accepted sockets.
    ///
    /// See [`UnixSeqpacket::set_pass_pidfd`](crate::UnixSeqpacket::set_pass_pidfd).
    ///
    /// # Errors
    /// Those of [`UnixSeqpacket::set_pass_pidfd`](crate::UnixSeqpacket::set_pass_pidfd).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use std::io::ErrorKind;
    /// use tokio_seqpacket::{Options, SocketAddr};
    ///
    /// let listener = Options::new().bind_addr(&SocketAddr::unnamed(), 16)?;
    /// match listener.set_pass_pidfd(true) {
    ///     Err(error) if error.kind() == ErrorKind::Unsupported => return Ok(()),
    ///     set => set?,
    /// }
    /// let client = Options::new().connect_addr(&listener.local_socket_addr()?).await?;
    /// assert!(listener.accept().await?.pass_pidfd()?);
    /// # drop(client);
    /// # Ok(()) }
    /// ```
    pub fn set_pass_pidfd(&self, pass: bool) -> io::Result<()> {
        self.inner.want_control();
        set_pass_pidfd(self.as_fd(), pass)
    }

    /// Sets whether messages to accepted sockets may carry file descriptors, from their first
    /// message on.
    ///
    /// A connection that waits to be accepted keeps the setting that the listener had when it
    /// connected. See [`UnixSeqpacket::set_pass_rights`](crate::UnixSeqpacket::set_pass_rights).
    ///
    /// # Errors
    /// Those of [`UnixSeqpacket::set_pass_rights`](crate::UnixSeqpacket::set_pass_rights).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use std::io::ErrorKind;
    /// use tokio_seqpacket::{Options, SocketAddr};
    ///
    /// let listener = Options::new().bind_addr(&SocketAddr::unnamed(), 16)?;
    /// match listener.set_pass_rights(false) {
    ///     Err(error) if error.kind() == ErrorKind::Unsupported => return Ok(()),
    ///     set => set?,
    /// }
    /// let client = Options::new().connect_addr(&listener.local_socket_addr()?).await?;
    /// assert!(!listener.accept().await?.pass_rights()?);
    /// # drop(client);
    /// # Ok(()) }
    /// ```
    pub fn set_pass_rights(&self, pass: bool) -> io::Result<()> {
        sys::set_pass_rights(self.as_fd(), pass)
    }
}
