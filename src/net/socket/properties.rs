//! What a connected socket can be asked and told beside messages: addresses, sizes, its descriptor.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net;

use crate::net::listener::UnixSeqpacketListener;
use crate::net::send_error::SEND_BUFFER_OVERHEAD;
use crate::net::socket::UnixSeqpacket;
use crate::sys;
use crate::types::socket_addr::SocketAddr;

impl UnixSeqpacket {
    /// The address that this socket is bound to: the listener's on an accepted socket, unnamed on one
    /// that has connected without
    /// [`Options::local_addr`](crate::Options::local_addr). See `getsockname(2)`.
    ///
    /// # Errors
    /// What `getsockname(2)` says.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// assert!(a.local_addr()?.is_unnamed() && b.peer_addr()?.is_unnamed());
    /// # Ok(()) }
    /// ```
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        sys::local_address(self.as_fd())
    }

    /// The address that the other end is bound to; see [`local_addr`](Self::local_addr). It says
    /// nothing of who the peer is: anybody may bind to a name that is free.
    ///
    /// # Errors
    /// What `getpeername(2)` says. That the peer has closed is no error.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use tokio_seqpacket::{Options, SocketAddr};
    ///
    /// let listener = Options::new().bind_addr(&SocketAddr::unnamed(), 16)?;
    /// let address = listener.local_socket_addr()?;
    /// let client = Options::new().connect_addr(&address).await?;
    /// assert_eq!(client.peer_addr()?, address);
    /// // The other end closes, and its address is still known.
    /// drop(listener.accept().await?);
    /// assert_eq!(client.recv(&mut [0; 8]).await?, 0);
    /// assert_eq!(client.peer_addr()?, address);
    /// # Ok(()) }
    /// ```
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        sys::peer_address(self.as_fd())
    }

    /// Bytes that may wait on their way to the peer, each message counted with the kernel's
    /// bookkeeping of some 256 bytes or more (`SO_SNDBUF`, see `socket(7)`). A send waits while that
    /// much is queued.
    ///
    /// # Errors
    /// What `getsockopt(2)` says.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// let (a, _b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// // Some of it is for the kernel's bookkeeping.
    /// assert!(a.send_buffer_size()? > a.max_message_size()?);
    /// # Ok(()) }
    /// ```
    pub fn send_buffer_size(&self) -> io::Result<usize> {
        sys::send_buffer_size(self.as_fd())
    }

    /// Set the size of the send buffer in bytes. The kernel doubles the number, after capping it at
    /// `net.core.wmem_max`, and never goes below some 4 KiB;
    /// [`send_buffer_size`](Self::send_buffer_size) says what came of it. It bounds the size of a
    /// message, too: see [`max_message_size`](Self::max_message_size).
    ///
    /// # Errors
    /// What `setsockopt(2)` says.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// let (a, _b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// a.set_send_buffer_size(64 << 10)?;
    /// assert_eq!(a.send_buffer_size()?, 128 << 10);
    /// assert_eq!(a.max_message_size()?, (128 << 10) - 32);
    /// # Ok(()) }
    /// ```
    pub fn set_send_buffer_size(&self, bytes: usize) -> io::Result<()> {
        sys::set_send_buffer_size(self.as_fd(), bytes)
    }

    /// The size of the receive buffer in bytes (`SO_RCVBUF`). On Unix sockets it bounds nothing: what
    /// is queued is counted against the sender's send buffer.
    ///
    /// # Errors
    /// What `getsockopt(2)` says.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// b.set_recv_buffer_size(4 << 10)?;
    /// let message = vec![0; 2 * b.recv_buffer_size()?];
    /// a.send(&message).await?;
    /// assert_eq!(b.recv(&mut vec![0; 64 << 10]).await?, message.len());
    /// # Ok(()) }
    /// ```
    pub fn recv_buffer_size(&self) -> io::Result<usize> {
        sys::recv_buffer_size(self.as_fd())
    }

    /// Set the size of the receive buffer in bytes, which the kernel doubles after capping it at
    /// `net.core.rmem_max`. Without effect on Unix sockets: see
    /// [`recv_buffer_size`](Self::recv_buffer_size).
    ///
    /// # Errors
    /// What `setsockopt(2)` says.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// let (a, _b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// a.set_recv_buffer_size(64 << 10)?;
    /// assert_eq!(a.recv_buffer_size()?, 128 << 10);
    /// # Ok(()) }
    /// ```
    pub fn set_recv_buffer_size(&self, bytes: usize) -> io::Result<()> {
        sys::set_recv_buffer_size(self.as_fd(), bytes)
    }

    /// Bytes that a message sent here may have for sure: the send buffer without what the kernel keeps
    /// of it, and no more than the 4 MiB that it can hold in one piece (some kernels take a little
    /// more). Memory in such pieces can be short: a send of hundreds of KiB may fail with `ENOBUFS`
    /// or `ENOMEM` at a bad moment. The peer's limit for the other direction is its own.
    ///
    /// # Errors
    /// What `getsockopt(2)` says.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// a.set_send_buffer_size(8 << 10)?;
    /// let largest = a.max_message_size()?;
    /// assert_eq!(a.send(&vec![0; largest]).await?, largest);
    /// assert!(a.send(&vec![0; largest + 1]).await.is_err());
    /// # drop(b);
    /// # Ok(()) }
    /// ```
    pub fn max_message_size(&self) -> io::Result<usize> {
        Ok(self.send_buffer_size()?.saturating_sub(SEND_BUFFER_OVERHEAD).min(sys::ONE_PIECE))
    }

    /// Sets whether messages to this socket may carry file descriptors (`SO_PASSRIGHTS`, Linux 6.16). They may by default.
    ///
    /// While they may not, the kernel refuses a peer's send that has descriptors with `EPERM`. This is what a service
    /// wants that takes none: the kernel closes a descriptor inside a receive without capacity for it, and a peer chooses
    /// how long that takes. See [`guide::descriptors`](crate::guide::descriptors#descriptors-that-nothing-asked-for).
    ///
    /// What is under way already still arrives. [`Options::pass_rights`](crate::Options::pass_rights), or
    /// [the same of a listener](UnixSeqpacketListener::set_pass_rights), comes before the first message. The option belongs
    /// to the socket: it holds for all its duplicates, in other processes too.
    ///
    /// # Errors
    /// `Unsupported` before Linux 6.16; else what `setsockopt(2)` says.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use std::io::ErrorKind;
    /// use tokio_seqpacket::UnixSeqpacket;
    /// use tokio_seqpacket::ancillary::AncillaryBuffer;
    ///
    /// let (a, b) = UnixSeqpacket::pair()?;
    /// match b.set_pass_rights(false) {
    ///     Err(error) if error.kind() == ErrorKind::Unsupported => return Ok(()),
    ///     set => set?,
    /// }
    /// let file = AncillaryBuffer::from_iter([std::fs::File::open("/dev/null")?.into()]);
    /// let (sent, ..) = a.send_owned_with_ancillary("a file", file).await;
    /// assert_eq!(sent.unwrap_err().kind(), ErrorKind::PermissionDenied);
    /// assert_eq!(a.send(b"only words").await?, 10);
    /// # Ok(()) }
    /// ```
    pub fn set_pass_rights(&self, pass: bool) -> io::Result<()> {
        sys::set_pass_rights(self.as_fd(), pass)
    }

    /// Returns whether messages to this socket may carry file descriptors.
    ///
    /// # Errors
    /// As [`set_pass_rights`](Self::set_pass_rights).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use std::io::ErrorKind;
    ///
    /// let (a, _b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// match a.pass_rights() {
    ///     Ok(passes) => assert!(passes),
    ///     Err(error) => assert_eq!(error.kind(), ErrorKind::Unsupported),
    /// }
    /// # Ok(()) }
    /// ```
    pub fn pass_rights(&self) -> io::Result<bool> {
        sys::pass_rights(self.as_fd())
    }

    /// Leave the runtime and give the file descriptor away, unless a message would be lost by that.
    ///
    /// # Errors
    /// The socket comes back if something is not settled. A message that a dropped receive has left, on io_uring, or a
    /// stream: [`try_recv`](Self::try_recv) takes it. A receive that is queued for a batch, or a send: both are over when
    /// the runtime has run for a moment.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// let (a, _b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// let fd = a.try_into_fd().expect("nothing was left unfinished");
    /// # drop(fd); Ok(()) }
    /// ```
    pub fn try_into_fd(self) -> Result<OwnedFd, Self> {
        if self.inner.is_idle() { Ok(self.into()) } else { Err(self) }
    }
}

impl UnixSeqpacketListener {
    /// Sets whether messages to the sockets that are accepted may carry file descriptors, from their first message on. See
    /// [`UnixSeqpacket::set_pass_rights`].
    ///
    /// A connection that waits to be accepted already has what the listener had when it connected.
    ///
    /// # Errors
    /// As [`UnixSeqpacket::set_pass_rights`].
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

/// std has no type for seqpacket sockets; its other Unix sockets serve to carry one at times.
macro_rules! from_std {
    ($std:ident, $ours:ident, $what:literal) => {
        impl TryFrom<net::$std> for $ours {
            type Error = io::Error;

            #[doc = $what]
            /// as std has no type of its own for one: the descriptor is checked and made non-blocking,
            /// and refused with `InvalidInput` if it is what its type says.
            fn try_from(socket: net::$std) -> io::Result<Self> {
                OwnedFd::from(socket).try_into()
            }
        }
    };
}

from_std!(UnixStream, UnixSeqpacket, "Take over a connected seqpacket socket in std's clothes,");
from_std!(UnixDatagram, UnixSeqpacket, "Take over a connected seqpacket socket in std's clothes,");
from_std!(
    UnixListener,
    UnixSeqpacketListener,
    "Take over a listening seqpacket socket in std's clothes,"
);

impl From<UnixSeqpacket> for net::UnixDatagram {
    /// The descriptor in std's clothes, still non-blocking: a datagram socket's calls keep message
    /// boundaries, too.
    fn from(socket: UnixSeqpacket) -> Self {
        OwnedFd::from(socket).into()
    }
}

impl From<UnixSeqpacketListener> for net::UnixListener {
    /// The descriptor in std's clothes, still non-blocking. What it accepts is a seqpacket socket.
    fn from(listener: UnixSeqpacketListener) -> Self {
        OwnedFd::from(listener).into()
    }
}
