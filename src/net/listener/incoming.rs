//! [`Incoming`]: accepting connections without end, also while descriptors are short.

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use crate::net::backoff::Backoff;
use crate::net::listener::UnixSeqpacketListener;
use crate::net::socket::UnixSeqpacket;

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
#[derive(Debug)]
pub struct Incoming<'a> {
    listener: &'a UnixSeqpacketListener,
    backoff: Backoff,
    waits: bool,
}

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
        })
    }
}

impl Incoming<'_> {
    /// Accepts the next connection.
    ///
    /// Unlike [`UnixSeqpacketListener::accept`] it does not queue: several tasks that accept take
    /// the connections in no order.
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
        tokio::task::coop::consume_budget().await;
        poll_fn(|cx| self.poll_accept(cx)).await
    }

    /// Polls for the next connection, and wakes the task when there may be one.
    ///
    /// Otherwise this is like [`accept`](Self::accept).
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
            if self.waits {
                ready!(self.backoff.poll(cx))?;
                self.waits = false;
            }
            match ready!(self.listener.poll_accept(cx)) {
                Err(error) if is_shortage(&error) => {
                    self.listener.span.accept_waits(&error);
                    self.backoff.start()?;
                    self.waits = true;
                }
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {
                    self.listener.span.connection_aborted(&error);
                }
                accepted => {
                    self.backoff.reset();
                    return Poll::Ready(accepted);
                }
            }
        }
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
