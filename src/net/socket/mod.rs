//! [`UnixSeqpacket`]: the public API of a connected socket.

// rustdoc lists the methods of the socket in the order of these modules.
mod send;
mod send_owned;

mod recv;
mod recv_owned;

mod peek;
mod readiness;

pub(crate) mod counters;
mod properties;

pub(crate) mod peer;

pub(crate) mod split;
pub(crate) mod split_owned;

pub(crate) mod exclusive;

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};
use std::sync::OnceLock;

use filedesc::FileDesc;
use tokio::io::unix::AsyncFd;

use crate::backend::{self, Choice};
use crate::common::trace::Span;
use crate::net::places::Place;
use crate::net::send_batch::SendBatch;
use crate::net::socket::exclusive::Exclusive;
use crate::types::backend::Backend;
use crate::types::socket_addr::SocketAddr;

/// A connected Unix seqpacket socket.
///
/// Any number of tasks may send and receive through `&self`. Dropping the socket closes it.
///
/// # Which call to use
///
/// - `send`, `recv` and their vectored and ancillary forms borrow their buffers, as in
///   tokio-seqpacket.
/// - `send_owned`, `recv_owned` and their forms take the buffer and return it with the result. They
///   report more about a message ([`MessageInfo`](crate::MessageInfo)).
/// - `try_*` return `WouldBlock` instead of waiting.
/// - `poll_*` are for hand-written futures.
/// - `peek` and its forms copy the next message and leave it in the socket.
/// - [`into_split`](Self::into_split) makes halves for different tasks, where dropping the writing
///   half should end the peer's stream. Otherwise an `Arc` of the socket is enough.
///
/// # Errors common to all receive calls
/// - `ECONNRESET` once, if the peer closed while messages for it were unread. Messages that the
///   peer had sent still follow, and then end of stream. A send can return this error instead.
/// - `WouldBlock` from `try_*`.
///
/// # Errors common to all send calls
/// - `BrokenPipe` if the peer closed or shut down. No signal is raised.
/// - `InvalidInput` for a message larger than the send buffer allows, and for more than 253 file
///   descriptors. The error names the limit, and nothing is sent.
/// - `EBADF`, `EPERM`, `ETOOMANYREFS` for ancillary data, see `unix(7)`. `EPERM` also where the
///   peer accepts no descriptors ([`set_pass_rights`](Self::set_pass_rights)).
///
/// # Errors common to all calls
/// - `Other` once the runtime in which the socket was made is gone.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
/// use tokio_seqpacket::{UnixSeqpacket, UnixSeqpacketListener};
///
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("service.sock");
/// let listener = UnixSeqpacketListener::bind(&path)?;
/// let client = UnixSeqpacket::connect(&path).await?;
/// let server = listener.accept().await?;
///
/// client.send(b"question").await?;
/// let mut buffer = [0; 64];
/// let len = server.recv(&mut buffer).await?;
/// assert_eq!(&buffer[..len], b"question");
/// println!("{:?} on {}", server.peer_cred()?, server.backend());
///
/// drop(client);
/// assert_eq!(server.recv(&mut buffer).await?, 0);
/// # Ok(()) }
/// ```
pub struct UnixSeqpacket {
    pub(crate) inner: backend::Socket,
    /// Created at the first use of one of its fields.
    extras: OnceLock<Box<Extras>>,
    #[expect(dead_code, reason = "its drop ends the span together with the socket")]
    span: Span,
}

/// State that few sockets need.
#[derive(Debug, Default)]
struct Extras {
    exclusive: Exclusive,
    async_fd: OnceLock<AsyncFd<FileDesc>>,
    /// Its drop frees the place, after `inner` is closed or given away.
    place: Option<Place>,
    /// Paths that the kernel knows only as short ones.
    local: Option<SocketAddr>,
    peer: Option<SocketAddr>,
}

impl UnixSeqpacket {
    pub(crate) fn on(choice: Choice, fd: OwnedFd) -> io::Result<Self> {
        let inner = backend::Socket::on(choice, fd)?;
        let span = Span::socket(inner.backend(), inner.fd());
        Ok(Self { inner, extras: OnceLock::new(), span })
    }

    /// Makes a new socket hold its place among the connections of its listener.
    pub(crate) fn in_place(mut self, place: Place) -> Self {
        self.extras_of_new().place = Some(place);
        self
    }

    /// Keeps those of the addresses that the kernel does not report as they were given. The socket is new.
    pub(crate) fn with_long_paths(
        mut self,
        local: Option<&SocketAddr>,
        peer: Option<&SocketAddr>,
    ) -> Self {
        let long = |address: Option<&SocketAddr>| {
            address.filter(|address| address.long_path().is_some()).cloned()
        };
        let (local, peer) = (long(local), long(peer));
        if local.is_some() || peer.is_some() {
            let extras = self.extras_of_new();
            (extras.local, extras.peer) = (local, peer);
        }
        self
    }

    fn extras_of_new(&mut self) -> &mut Extras {
        self.extras.get_or_init(Box::default);
        self.extras.get_mut().expect("just made")
    }

    /// Returns the backend that the socket runs on.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// let (a, _b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// println!("runs on {}", a.backend());
    /// # Ok(()) }
    /// ```
    pub fn backend(&self) -> Backend {
        self.inner.backend()
    }

    /// Returns the raw fd.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use std::os::fd::{AsFd, AsRawFd};
    ///
    /// let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// assert_eq!(a.as_raw_fd(), a.as_fd().as_raw_fd());
    /// assert_ne!(a.as_raw_fd(), b.as_raw_fd());
    /// # Ok(()) }
    /// ```
    pub fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }

    /// Leaves the runtime and returns the raw fd, which the caller then has to close.
    ///
    /// On io_uring a message that a dropped receive has left is lost. Take it with
    /// [`try_recv`](Self::try_recv) first, or use [`try_into_fd`](Self::try_into_fd).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use std::os::fd::{FromRawFd, OwnedFd};
    ///
    /// let (a, _b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// let raw_fd = a.into_raw_fd();
    /// // SAFETY: `into_raw_fd` has just released the open descriptor.
    /// let fd = unsafe { OwnedFd::from_raw_fd(raw_fd) };
    /// # drop(fd);
    /// # Ok(()) }
    /// ```
    pub fn into_raw_fd(self) -> RawFd {
        OwnedFd::from(self).into_raw_fd()
    }

    /// Leaves the runtime and returns the file descriptor, unless that would lose a message.
    ///
    /// # Errors
    /// Returns the socket if an operation or a message of it is left:
    ///
    /// - A message that a stream has left, or on io_uring a dropped receive.
    ///   [`try_recv`](Self::try_recv) takes it.
    /// - A receive that is in a batch, or a send. Both are complete after the runtime has run for a
    ///   moment.
    ///
    /// [`guide::containers`](crate::guide::containers#restarts-without-a-gap) has the steps for a
    /// handover that loses nothing.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// let (a, _b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// let fd = a.try_into_fd().expect("nothing was left unfinished");
    /// # drop(fd); Ok(()) }
    /// ```
    pub fn try_into_fd(self) -> Result<OwnedFd, Self> {
        if self.inner.close_if_idle() { Ok(self.into()) } else { Err(self) }
    }

    /// Returns an empty batch, for messages that are sent together. See [`SendBatch`].
    ///
    /// It borrows the socket and the messages. An [`OwnedSendBatch`](crate::OwnedSendBatch) borrows
    /// neither.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// let mut batch = a.batch();
    /// batch.push(b"one");
    /// batch.push(b"two");
    /// assert_eq!(batch.send().await?, 2);
    /// # drop(b);
    /// # Ok(()) }
    /// ```
    pub fn batch(&self) -> SendBatch<'_> {
        SendBatch::new(&self.inner)
    }

    /// The claim to the messages, for a stream.
    pub(crate) fn exclusive(&self) -> &Exclusive {
        &self.extras().exclusive
    }

    fn extras(&self) -> &Extras {
        self.extras.get_or_init(Box::default)
    }
}

impl fmt::Debug for UnixSeqpacket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UnixSeqpacket")
            .field("fd", &self.as_raw_fd())
            .field("backend", &self.backend())
            .finish()
    }
}

impl AsFd for UnixSeqpacket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.fd()
    }
}

impl AsRef<UnixSeqpacket> for UnixSeqpacket {
    fn as_ref(&self) -> &UnixSeqpacket {
        self
    }
}

impl AsRawFd for UnixSeqpacket {
    fn as_raw_fd(&self) -> RawFd {
        self.as_raw_fd()
    }
}

impl IntoRawFd for UnixSeqpacket {
    fn into_raw_fd(self) -> RawFd {
        self.into_raw_fd()
    }
}

impl From<UnixSeqpacket> for OwnedFd {
    fn from(socket: UnixSeqpacket) -> Self {
        socket.inner.into_fd()
    }
}
