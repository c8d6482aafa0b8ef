//! [`Incoming`]: accepting connections without end, also while descriptors are short.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use crate::net::backoff::Backoff;
use crate::net::listener::UnixSeqpacketListener;
use crate::net::places::Places;
use crate::net::socket::UnixSeqpacket;
use crate::sys;
use crate::util::close::close;

/// The first wait after a shortage, before jitter.
const FIRST_ACCEPT_WAIT: Duration = Duration::from_millis(5);
/// The bound of the waits after a shortage.
const LONGEST_ACCEPT_WAIT: Duration = Duration::from_millis(500);

/// The connections of a listener in order, from [`UnixSeqpacketListener::incoming`].
///
/// The process or the system can be short of descriptors or memory (`EMFILE`, `ENFILE`, `ENOBUFS`,
/// `ENOMEM`). The connection then stays in the kernel's queue. This waits and retries instead of
/// failing or spinning. The wait is 5 ms at first and doubles up to 500 ms, with jitter. A test
/// that has paused tokio's clock controls these waits. A connection that is gone before it is
/// accepted (`ECONNABORTED`) is skipped.
///
/// It never ends. With the feature `stream` it is a `futures_core::Stream`.
///
/// It can limit the connections, in all ([`max_connections`](Self::max_connections)) and for each
/// user ([`max_per_user`](Self::max_per_user)), and ask whether a peer is welcome
/// ([`authorize`](Self::authorize)).
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
/// use tokio_seqpacket::{Options, SocketAddr};
///
/// let listener = Options::new().bind_addr(&SocketAddr::unnamed(), 16)?;
/// # let address = listener.local_socket_addr()?;
/// # let client = Options::new().connect_addr(&address).await?;
/// let serving = tokio::spawn(async move {
///     let mut incoming = listener.incoming()?;
///     while let Ok(socket) = incoming.accept().await {
///         tokio::spawn(async move { socket.send(b"welcome").await });
///     }
///     std::io::Result::Ok(())
/// });
/// # assert_eq!(client.recv(&mut [0; 16]).await?, 7);
/// # serving.abort();
/// # Ok(()) }
/// ```
pub struct Incoming<'a> {
    listener: &'a UnixSeqpacketListener,
    backoff: Backoff,
    waits: bool,
    places: Places,
    authorize: Option<Box<Authorize>>,
    refused: u64,
}

/// Without a lifetime, so that the listener is borrowed only as long as this is used, not until it is dropped.
type Authorize = dyn Fn(&UnixSeqpacket) -> bool + Send + Sync;

impl UnixSeqpacketListener {
    /// Accepts connections without end, and waits while no descriptors are free for them.
    ///
    /// See [`Incoming`].
    ///
    /// # Errors
    /// Those of `timerfd_create(2)`. The timer for the waits is made now, while descriptors are
    /// free.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use tokio_seqpacket::{Options, SocketAddr, UnixSeqpacket};
    ///
    /// let listener = Options::new().bind_addr(&SocketAddr::unnamed(), 16)?;
    /// let client = Options::new().connect_addr(&listener.local_socket_addr()?).await?;
    /// client.send(b"hello").await?;
    ///
    /// let mut incoming = listener.incoming()?;
    /// // In a service: while let Ok(socket) = incoming.accept().await { ... }
    /// let socket: UnixSeqpacket = incoming.accept().await?;
    /// assert_eq!(socket.recv(&mut [0; 16]).await?, 5);
    /// # Ok(()) }
    /// ```
    pub fn incoming(&self) -> io::Result<Incoming<'_>> {
        Ok(Incoming {
            listener: self,
            backoff: Backoff::new(FIRST_ACCEPT_WAIT, LONGEST_ACCEPT_WAIT)?,
            waits: false,
            places: Places::default(),
            authorize: None,
            refused: 0,
        })
    }
}

impl Incoming<'_> {
    /// Limits how many of its connections exist at a time.
    ///
    /// At the limit it accepts none until one ends. Clients that connect meanwhile wait in the
    /// kernel's queue, whose length is the listener's `backlog`. A client that finds the queue full
    /// waits in its `connect` call.
    ///
    /// A connection ends when its socket is dropped, or its descriptor given away. After
    /// [`into_split`](UnixSeqpacket::into_split) that is when both halves are dropped. Only
    /// connections of this `Incoming` count, also after it is dropped itself.
    ///
    /// The minimum is 1, and 0 counts as 1. Choose a limit well below `RLIMIT_NOFILE`, and well
    /// above that of [`max_per_user`](Self::max_per_user). Otherwise one user can take all places.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use std::time::Duration;
    /// use tokio::time::timeout;
    /// # use tokio_seqpacket::{Options, SocketAddr};
    ///
    /// let listener = Options::new().bind_addr(&SocketAddr::unnamed(), 16)?;
    /// let address = listener.local_socket_addr()?;
    /// let mut incoming = listener.incoming()?.max_connections(1);
    ///
    /// let _one = Options::new().connect_addr(&address).await?;
    /// let socket = incoming.accept().await?;
    /// // The second client has connected, and is not served yet.
    /// let other = Options::new().connect_addr(&address).await?;
    /// assert!(timeout(Duration::from_millis(10), incoming.accept()).await.is_err());
    /// drop(socket);
    /// incoming.accept().await?.send(b"your turn").await?;
    /// assert_eq!(other.recv(&mut [0; 16]).await?, 9);
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn max_connections(mut self, most: usize) -> Self {
        self.places.limit(most);
        self
    }

    /// Limits how many of its connections one user has at a time.
    ///
    /// A connection beyond the limit is closed at once and not yielded. It does not wait in the
    /// kernel's queue, where it would hold up other users. The client gets end of stream, or
    /// `ECONNRESET` if it has sent something. See [`refused`](Self::refused).
    ///
    /// The user is that of `SO_PEERCRED` (`unix(7)`): the effective user id of the process that
    /// called `connect(2)`. Users of a namespace that are not mapped here count as one user.
    /// Otherwise this is like [`max_connections`](Self::max_connections).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// # use tokio_seqpacket::{Options, SocketAddr};
    /// let listener = Options::new().bind_addr(&SocketAddr::unnamed(), 16)?;
    /// let address = listener.local_socket_addr()?;
    /// let serving = tokio::spawn(async move {
    ///     let mut incoming = listener.incoming()?.max_connections(1000).max_per_user(1);
    ///     let mut sockets = Vec::new();
    ///     loop {
    ///         sockets.push(incoming.accept().await?);
    ///     }
    ///     # #[expect(unreachable_code)]
    ///     # std::io::Result::Ok(())
    /// });
    /// let _one = Options::new().connect_addr(&address).await?;
    /// let too_many = Options::new().connect_addr(&address).await?;
    /// assert_eq!(too_many.recv(&mut [0; 16]).await?, 0);
    /// # serving.abort();
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn max_per_user(mut self, most: usize) -> Self {
        self.places.limit_per_user(most);
        self
    }

    /// Sets a check that decides whether a connection is yielded.
    ///
    /// It is called once for each connection, after the limits. If it returns false, the connection
    /// is closed as by [`max_per_user`](Self::max_per_user). It can ask who the peer is
    /// ([`peer_cred`](UnixSeqpacket::peer_cred), [`peer_groups`](UnixSeqpacket::peer_groups)), and
    /// say why it refuses ([`try_send`](UnixSeqpacket::try_send)). It runs while the next connection
    /// is polled for, so it must not block. A second call replaces the check.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// # use tokio_seqpacket::{Options, SocketAddr, UCred};
    /// let listener = Options::new().bind_addr(&SocketAddr::unnamed(), 16)?;
    /// # let client = Options::new().connect_addr(&listener.local_socket_addr()?).await?;
    /// let own = UCred::from_current_process().uid();
    /// let mut incoming = listener
    ///     .incoming()?
    ///     .authorize(move |socket| socket.peer_cred().is_ok_and(|peer| peer.uid() == own));
    /// let socket = incoming.accept().await?;
    /// assert_eq!(socket.peer_cred()?.uid(), own);
    /// # drop(client);
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn authorize(
        mut self,
        check: impl Fn(&UnixSeqpacket) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.authorize = Some(Box::new(check));
        self
    }

    /// Returns how many connections were closed instead of yielded: those beyond
    /// [`max_per_user`](Self::max_per_user), and those that [`authorize`](Self::authorize) refused.
    ///
    /// With the feature `tracing` each is an event, with the user and the reason.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// # use std::time::Duration;
    /// # use tokio::time::timeout;
    /// # use tokio_seqpacket::{Options, SocketAddr};
    /// let listener = Options::new().bind_addr(&SocketAddr::unnamed(), 16)?;
    /// let client = Options::new().connect_addr(&listener.local_socket_addr()?).await?;
    /// let mut incoming = listener.incoming()?.authorize(|socket| {
    ///     let _ = socket.try_send(b"closed today");
    ///     false
    /// });
    /// assert!(timeout(Duration::from_millis(10), incoming.accept()).await.is_err());
    /// assert_eq!(incoming.refused(), 1);
    /// assert_eq!(client.recv(&mut [0; 16]).await?, 12);
    /// # Ok(()) }
    /// ```
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// Accepts the next connection.
    ///
    /// It waits in the same queue as [`UnixSeqpacketListener::accept`]: several tasks that accept are
    /// woken in the order of their first polls. While it waits for a place or a descriptor, it is
    /// not in the queue.
    ///
    /// # Cancel safety
    /// Dropping the future loses no connection.
    ///
    /// # Errors
    /// Those of `accept4(2)` except the shortages named above, and an error once the runtime is
    /// gone.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// # use tokio_seqpacket::{Options, SocketAddr};
    /// let listener = Options::new().bind_addr(&SocketAddr::unnamed(), 16)?;
    /// let address = listener.local_socket_addr()?;
    /// let one = Options::new().connect_addr(&address).await?;
    /// let other = Options::new().connect_addr(&address).await?;
    ///
    /// let mut incoming = listener.incoming()?;
    /// incoming.accept().await?.send(b"one").await?;
    /// incoming.accept().await?.send(b"other").await?;
    /// assert_eq!(one.recv(&mut [0; 16]).await?, 3);
    /// assert_eq!(other.recv(&mut [0; 16]).await?, 5);
    /// # Ok(()) }
    /// ```
    pub async fn accept(&mut self) -> io::Result<UnixSeqpacket> {
        loop {
            poll_fn(|cx| self.poll_may_accept(cx)).await?;
            let accepted = self.listener.inner.accept().await;
            if let Some(done) = self.accepted(accepted).transpose() {
                return done;
            }
        }
    }

    /// Polls for the next connection, and wakes the task when there may be one.
    ///
    /// Only the task that called a `poll_*` function of the listener last is woken, as for tokio's
    /// listeners. Otherwise this is like [`accept`](Self::accept).
    ///
    /// # Errors
    /// Those of [`accept`](Self::accept).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use std::future::poll_fn;
    /// # use tokio_seqpacket::{Options, SocketAddr};
    ///
    /// let listener = Options::new().bind_addr(&SocketAddr::unnamed(), 16)?;
    /// let client = Options::new().connect_addr(&listener.local_socket_addr()?).await?;
    /// let mut incoming = listener.incoming()?;
    /// let server = poll_fn(|cx| incoming.poll_accept(cx)).await?;
    /// server.send(b"welcome").await?;
    /// assert_eq!(client.recv(&mut [0; 16]).await?, 7);
    /// # Ok(()) }
    /// ```
    pub fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<UnixSeqpacket>> {
        loop {
            ready!(self.poll_may_accept(cx))?;
            let accepted = ready!(self.listener.inner.poll_accept(cx));
            if let Some(done) = self.accepted(accepted).transpose() {
                return Poll::Ready(done);
            }
        }
    }

    /// Waits until there may be one more connection, and its descriptor.
    fn poll_may_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.waits {
            ready!(self.backoff.poll(cx))?;
            self.waits = false;
        }
        self.places.poll_free(cx).map(Ok)
    }

    /// Returns what the caller gets for the answer of `accept4(2)`. `None`: it has to accept again.
    fn accepted(&mut self, accepted: io::Result<OwnedFd>) -> io::Result<Option<UnixSeqpacket>> {
        match accepted {
            Err(error) if is_shortage(&error) => {
                self.listener.span.accept_waits(&error);
                self.backoff.start()?;
                self.waits = true;
                Ok(None)
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {
                self.listener.span.connection_aborted(&error);
                Ok(None)
            }
            Err(error) => Err(error),
            Ok(fd) => {
                self.backoff.reset();
                self.admit(fd)
            }
        }
    }

    /// Makes a socket of an accepted connection, unless it is refused. It is closed aside then: the
    /// peer chooses what lies in its queue.
    fn admit(&mut self, fd: OwnedFd) -> io::Result<Option<UnixSeqpacket>> {
        if !self.places.are_limited() && self.authorize.is_none() {
            return self.listener.accepted(fd).map(Some);
        }
        let user = sys::peer_credentials(fd.as_raw_fd())?.uid;
        let Some(place) = self.places.take(user) else {
            self.refuse(fd, user, "the user has as many connections as allowed");
            return Ok(None);
        };
        let socket = self.listener.accepted(fd)?.in_place(place);
        if self.authorize.as_ref().is_some_and(|check| !check(&socket)) {
            self.refuse(socket.into(), user, "the peer is not authorized");
            return Ok(None);
        }
        Ok(Some(socket))
    }

    fn refuse(&mut self, fd: OwnedFd, user: libc::uid_t, why: &str) {
        self.refused += 1;
        self.listener.span.connection_refused(user, why);
        close(fd);
    }
}

impl fmt::Debug for Incoming<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Incoming")
            .field("listener", self.listener)
            .field("refused", &self.refused)
            .finish_non_exhaustive()
    }
}

fn is_shortage(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM))
}

#[cfg(feature = "stream")]
impl futures_core::Stream for Incoming<'_> {
    type Item = io::Result<UnixSeqpacket>;

    fn poll_next(self: std::pin::Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let coop = ready!(tokio::task::coop::poll_proceed(cx));
        let accepted = ready!(self.get_mut().poll_accept(cx));
        coop.made_progress();
        Poll::Ready(Some(accepted))
    }
}
