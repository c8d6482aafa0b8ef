//! Properties of a connected socket: addresses, buffer sizes, options, shutdown.

use std::io;
use std::os::fd::AsFd;

use crate::net::send_error::SEND_BUFFER_OVERHEAD;
use crate::net::socket::UnixSeqpacket;
use crate::sys::{self, short_path};
use crate::types::socket_addr::SocketAddr;

impl UnixSeqpacket {
    /// Returns the address that this socket is bound to (`getsockname(2)`).
    ///
    /// An accepted socket has the listener's address. A socket that connected without
    /// [`Options::local_addr`](crate::Options::local_addr) is unnamed. For paths over 108 bytes see
    /// [`SocketAddr`].
    ///
    /// # Errors
    /// Those of `getsockname(2)`.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// assert!(a.local_addr()?.is_unnamed() && b.peer_addr()?.is_unnamed());
    /// # Ok(()) }
    /// ```
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        match self.extras.get().and_then(|extras| extras.local.as_ref()) {
            Some(given) => Ok(given.clone()),
            None => sys::local_address(self.as_fd()),
        }
    }

    /// Returns the address that the other end is bound to (`getpeername(2)`). See
    /// [`local_addr`](Self::local_addr).
    ///
    /// The address does not identify the peer: any process may bind to a free name.
    ///
    /// # Errors
    /// Those of `getpeername(2)`. After the peer has closed this is no error.
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
        let reported = sys::peer_address(self.as_fd())?;
        let given = self.extras.get().and_then(|extras| extras.peer.as_ref());
        match (given, reported.as_pathname()) {
            (Some(given), Some(path)) if path.starts_with(short_path::DIRECTORY) => {
                Ok(given.clone())
            }
            _ => Ok(reported),
        }
    }

    /// Returns the size of the send buffer in bytes (`SO_SNDBUF`, see `socket(7)`).
    ///
    /// That many bytes may wait on their way to the peer. Each message counts with some 256 bytes
    /// or more for the kernel's bookkeeping. A send waits while the buffer is full.
    ///
    /// # Errors
    /// Those of `getsockopt(2)`.
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

    /// Sets the size of the send buffer in bytes.
    ///
    /// The kernel limits the size to `net.core.wmem_max`, then doubles it. The result is never
    /// below some 4 KiB, and [`send_buffer_size`](Self::send_buffer_size) returns it. It also
    /// bounds the size of a message: see [`max_message_size`](Self::max_message_size).
    ///
    /// # Errors
    /// Those of `setsockopt(2)`.
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

    /// Returns the size of the receive buffer in bytes (`SO_RCVBUF`).
    ///
    /// On Unix sockets it bounds nothing. Queued messages count against the sender's send buffer.
    ///
    /// # Errors
    /// Those of `getsockopt(2)`.
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

    /// Sets the size of the receive buffer in bytes.
    ///
    /// The kernel limits the size to `net.core.rmem_max`, then doubles it. It has no effect on Unix
    /// sockets: see [`recv_buffer_size`](Self::recv_buffer_size).
    ///
    /// # Errors
    /// Those of `setsockopt(2)`.
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

    /// Returns the largest size of a message, in bytes, that this socket can certainly send.
    ///
    /// That is the send buffer without the kernel's share, and at most 4 MiB. The kernel can hold that
    /// much in one piece (some kernels take a little more). Memory in such pieces can be short. A send
    /// of hundreds of KiB may then fail with `ENOBUFS` or `ENOMEM`. The peer has a limit of its own for
    /// the other direction.
    ///
    /// # Errors
    /// Those of `getsockopt(2)`.
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

    /// Sets how many file descriptors one message may bring to this socket.
    ///
    /// The default is 253, the most that a message carries (`SCM_MAX_FD`), and a higher number
    /// counts as that. The limit holds for every receive: calls with ancillary data, streams, and
    /// messages that a dropped receive has left for the next. It applies to messages that are
    /// received from now on. It belongs to this value, not to duplicates of the socket.
    ///
    /// A message that brings more is received with all its bytes and its first descriptors.
    /// [`ancillary_truncated`](crate::MessageInfo::ancillary_truncated) reports it. The surplus never
    /// gets into the process: the kernel closes it within the receive. So one message takes at most
    /// this many raw fds. While [`set_pass_pidfd`](Self::set_pass_pidfd) is on, the kernel may
    /// install up to seven more, which are closed before the call returns. Such a message can come
    /// without its pidfd.
    ///
    /// Credentials and other ancillary data of the kernel do not count. If they are switched on
    /// through a duplicate of the socket, and not by the calls of this value, the next message can
    /// lose descriptors that were allowed. That is reported, too.
    ///
    /// The limit has a price: where the surplus includes a descriptor that takes long to close, the
    /// receive waits for that, and with it the thread. Without a limit the library closes such a
    /// descriptor beside the runtime. See
    /// [`guide::hostile_peers`](crate::guide::hostile_peers#descriptors). A service that takes no
    /// descriptors is better served by [`set_pass_rights`](Self::set_pass_rights), from Linux 6.16
    /// on.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use std::fs::File;
    /// use tokio_seqpacket::UnixSeqpacket;
    /// use tokio_seqpacket::ancillary::AncillaryBuffer;
    ///
    /// let (a, b) = UnixSeqpacket::pair()?;
    /// b.set_max_fds(1);
    /// let fds = [File::open("/dev/null")?.into(), File::open("/dev/zero")?.into()];
    /// a.send_owned_with_ancillary("two files", AncillaryBuffer::from_iter(fds)).await.0?;
    ///
    /// let (received, bytes, ancillary) =
    ///     b.recv_owned_with_ancillary(Vec::with_capacity(64), AncillaryBuffer::new()).await;
    /// assert!(received?.ancillary_truncated());
    /// assert_eq!((&bytes[..], ancillary.fds().len()), (&b"two files"[..], 1));
    /// # Ok(()) }
    /// ```
    pub fn set_max_fds(&self, most: usize) {
        self.inner.set_max_fds(most);
    }

    /// Returns how many file descriptors one message may bring to this socket.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// let (a, _b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// assert_eq!(a.max_fds(), 253);
    /// a.set_max_fds(8);
    /// assert_eq!(a.max_fds(), 8);
    /// # Ok(()) }
    /// ```
    pub fn max_fds(&self) -> usize {
        self.inner.max_fds()
    }

    /// Sets whether messages to this socket may carry file descriptors (`SO_PASSRIGHTS`, Linux
    /// 6.16).
    ///
    /// They may by default. While they may not, the kernel rejects a peer's send that has
    /// descriptors with `EPERM`. This suits a service that takes no descriptors. The kernel closes
    /// a descriptor inside a receive without capacity for it, and the peer chooses how long that
    /// takes. See
    /// [`guide::descriptors`](crate::guide::descriptors#descriptors-that-nothing-asked-for).
    ///
    /// Descriptors that were already sent still arrive. To take effect before the first message,
    /// use [`Options::pass_rights`](crate::Options::pass_rights) or [the option of a
    /// listener](crate::UnixSeqpacketListener::set_pass_rights). The option belongs to the socket.
    /// It holds for all its duplicates, in other processes too.
    ///
    /// # Errors
    /// `Unsupported` before Linux 6.16, otherwise those of `setsockopt(2)`.
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
    /// Those of [`set_pass_rights`](Self::set_pass_rights).
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

    /// Takes the pending error of the socket (`SO_ERROR`), if there is one.
    ///
    /// # Errors
    /// Those of `getsockopt(2)`.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// a.send(b"never read").await?;
    /// drop(b);
    /// let reset = a.take_error()?.expect("the peer has closed with a message unread");
    /// assert_eq!(reset.kind(), std::io::ErrorKind::ConnectionReset);
    /// assert!(a.take_error()?.is_none());
    /// # Ok(()) }
    /// ```
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        sys::take_error(self.as_fd())
    }

    /// Shuts down reading, writing or both, for all duplicates of the socket in all processes.
    ///
    /// Waiting calls return, see `shutdown(2)`. After `Shutdown::Write` a send that waits on a full
    /// queue returns only once the peer has taken a message or has closed. The kernel reports no
    /// event before.
    ///
    /// # Errors
    /// Those of `shutdown(2)`.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// a.send(b"the last").await?;
    /// a.shutdown(std::net::Shutdown::Write)?;
    /// assert_eq!(b.recv(&mut [0; 16]).await?, 8);
    /// assert_eq!(b.recv(&mut [0; 16]).await?, 0);
    /// b.send(b"still heard").await?;
    /// assert_eq!(a.recv(&mut [0; 16]).await?, 11);
    /// # Ok(()) }
    /// ```
    pub fn shutdown(&self, how: std::net::Shutdown) -> io::Result<()> {
        sys::shutdown(self.as_fd(), how)
    }
}
