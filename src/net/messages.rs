//! [`Messages`]: a stream of messages, each in a buffer that it leases.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use crate::backend;
use crate::buf::pool::Pool;
use crate::common::message::Message;
use crate::common::recv_batch::RecvBatch;
use crate::net::socket::UnixSeqpacket;
use crate::sys::LARGEST_MESSAGE;
use crate::util::coop as budget;

/// Options of a stream of messages: the number of its buffers and their capacity.
///
/// ```
/// use tokio_seqpacket::MessagesOptions;
///
/// let options = MessagesOptions::new().buffers(256).size(4096);
/// # let _ = options;
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub struct MessagesOptions {
    buffers: usize,
    size: usize,
}

impl Default for MessagesOptions {
    fn default() -> Self {
        Self { buffers: 64, size: 16 << 10 }
    }
}

impl MessagesOptions {
    /// Returns the defaults: 64 buffers of 16 KiB each.
    ///
    /// ```
    /// use tokio_seqpacket::MessagesOptions;
    ///
    /// assert_eq!(MessagesOptions::new(), MessagesOptions::new().buffers(64).size(16 << 10));
    /// ```
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets how many messages can be held at a time, that is received and not yet dropped.
    ///
    /// The minimum is 1, and 0 counts as 1. While all buffers are held, [`Messages::next`] waits.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use std::time::Duration;
    /// use tokio::time::timeout;
    /// # use tokio_seqpacket::MessagesOptions;
    ///
    /// # let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// a.send(b"one").await?;
    /// a.send(b"two").await?;
    /// let mut messages = b.messages(MessagesOptions::new().buffers(1))?;
    /// let one = messages.next().await.unwrap()?;
    /// // The second has to wait for the only buffer.
    /// assert!(timeout(Duration::from_millis(10), messages.next()).await.is_err());
    /// drop(one);
    /// assert_eq!(&messages.next().await.unwrap()?[..], b"two");
    /// # Ok(()) }
    /// ```
    pub fn buffers(self, buffers: usize) -> Self {
        Self { buffers: buffers.max(1), ..self }
    }

    /// Sets the capacity of each buffer, in bytes.
    ///
    /// A longer message is truncated, which [`Message::info`] reports. A capacity above the largest
    /// message that a socket can carry is lowered to that.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// # use tokio_seqpacket::MessagesOptions;
    /// # let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// a.send(b"too long").await?;
    /// let mut messages = b.messages(MessagesOptions::new().size(3))?;
    /// let message = messages.next().await.unwrap()?;
    /// assert_eq!((&message[..], message.info().message_len()), (&b"too"[..], 8));
    /// # Ok(()) }
    /// ```
    pub fn size(self, size: usize) -> Self {
        Self { size, ..self }
    }
}

impl UnixSeqpacket {
    /// Returns a stream of the received messages, each in a buffer that it leases.
    ///
    /// It borrows the socket. [`Messages::new`] makes one that owns or shares it.
    ///
    /// # Errors
    /// `ResourceBusy` if the socket already has a stream.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use tokio_seqpacket::MessagesOptions;
    ///
    /// let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// a.send(b"one").await?;
    /// a.send(b"two").await?;
    /// drop(a);
    ///
    /// let mut messages = b.messages(MessagesOptions::new())?;
    /// let mut count = 0;
    /// while let Some(message) = messages.next().await {
    ///     assert_eq!(message?.len(), 3);
    ///     count += 1;
    /// }
    /// assert_eq!(count, 2);
    /// # Ok(()) }
    /// ```
    pub fn messages(&self, options: MessagesOptions) -> io::Result<Messages<&Self>> {
        Messages::new(self, options)
    }
}

/// A stream of the messages that a socket receives.
///
/// [`UnixSeqpacket::messages`] makes one that borrows the socket. [`Messages::new`] makes one that
/// owns or shares it, to return it, to keep it in a struct or to move it to a task.
///
/// Each [`Message`] leases its buffer. One system call (`recvmmsg(2)`) receives all messages that
/// have arrived, on both backends. Where none has arrived, the stream waits as a receive does.
///
/// While there is a stream, other receive calls of the socket wait until it is dropped, and `try_*`
/// calls return `WouldBlock`. Only a receive that was already waiting goes on beside it. The next
/// receives get the messages that the stream has not yielded by its end, in order.
///
/// A stream that is forgotten ([`std::mem::forget`]) never ends: other receive calls of the socket
/// wait for good, and messages that it has not yielded are lost. Sends go on. A stream that owns its
/// socket also leaves it open.
///
/// A consumer that holds all buffers stops the stream, and so in time the sender. No message is
/// lost.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
/// use tokio_seqpacket::{MessagesOptions, UnixSeqpacket};
///
/// let (a, b) = UnixSeqpacket::pair()?;
/// a.send(b"one").await?;
/// a.send(b"").await?;
/// drop(a);
///
/// let mut messages = b.messages(MessagesOptions::new())?;
/// assert_eq!(&messages.next().await.unwrap()?[..], b"one");
/// assert_eq!(&messages.next().await.unwrap()?[..], b"");
/// assert!(messages.next().await.is_none());
/// # Ok(()) }
/// ```
pub struct Messages<S: AsRef<UnixSeqpacket> = UnixSeqpacket> {
    received: Received,
    /// `Some` until [`into_inner`](Self::into_inner).
    socket: Option<S>,
}

impl<S: AsRef<UnixSeqpacket>> Messages<S> {
    /// Creates a stream of the messages that `socket` receives.
    ///
    /// `S` is a socket, an [`Arc`] of one, a half, or a reference to one of these. A type of your own
    /// has to refer to the same socket each time. The stream is `Send` and `'static` if `S` is.
    ///
    /// # Errors
    /// `ResourceBusy` if the socket already has a stream. `socket` is dropped with every error: pass
    /// a clone of an `Arc` to keep it.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use std::io;
    /// use std::sync::Arc;
    /// use tokio_seqpacket::{Messages, MessagesOptions, UnixSeqpacket};
    ///
    /// struct Client {
    ///     socket: Arc<UnixSeqpacket>,
    ///     messages: Messages<Arc<UnixSeqpacket>>,
    /// }
    ///
    /// impl Client {
    ///     fn new(socket: UnixSeqpacket) -> io::Result<Self> {
    ///         let socket = Arc::new(socket);
    ///         let messages = Messages::new(socket.clone(), MessagesOptions::new())?;
    ///         Ok(Self { socket, messages })
    ///     }
    /// }
    ///
    /// let (a, b) = UnixSeqpacket::pair()?;
    /// let mut client = Client::new(b)?;
    /// client.socket.send(b"question").await?;
    /// assert_eq!(a.recv(&mut [0; 16]).await?, 8);
    /// a.send(b"answer").await?;
    /// assert_eq!(&client.messages.next().await.unwrap()?[..], b"answer");
    /// # Ok(()) }
    /// ```
    pub fn new(socket: S, options: MessagesOptions) -> io::Result<Self> {
        let claimed = socket.as_ref();
        claimed.exclusive().claim()?;
        if let Err(error) = claimed.inner.mark_messages() {
            claimed.exclusive().release();
            return Err(error);
        }
        Ok(Self { received: Received::new(options), socket: Some(socket) })
    }

    /// Returns the socket, for instance to send.
    ///
    /// Its receive calls wait for the end of this stream.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// # use tokio_seqpacket::{Messages, MessagesOptions, UnixSeqpacket};
    /// # let (a, b) = UnixSeqpacket::pair()?;
    /// a.send(b"question").await?;
    /// drop(a.into_split().1);
    /// let mut messages = Messages::new(b, MessagesOptions::new())?;
    /// while let Some(message) = messages.next().await {
    ///     println!("{} bytes for {:?}", message?.len(), messages.get_ref().peer_cred()?);
    /// }
    /// # Ok(()) }
    /// ```
    pub fn get_ref(&self) -> &S {
        self.socket.as_ref().expect("there until `into_inner`")
    }

    /// Ends the stream and returns the socket.
    ///
    /// The next receives of the socket get the messages that the stream has not yielded, in order.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// # use tokio_seqpacket::{Messages, MessagesOptions, UnixSeqpacket};
    /// # let (a, b) = UnixSeqpacket::pair()?;
    /// a.send(b"one").await?;
    /// a.send(b"three").await?;
    /// let mut messages = Messages::new(b, MessagesOptions::new())?;
    /// assert_eq!(&messages.next().await.unwrap()?[..], b"one");
    ///
    /// let b = messages.into_inner();
    /// assert_eq!(b.recv(&mut [0; 16]).await?, 5);
    /// # Ok(()) }
    /// ```
    pub fn into_inner(mut self) -> S {
        self.end();
        self.socket.take().expect("there until now")
    }

    /// Leaves what was not yielded to the next receives, and lets them go on.
    fn end(&mut self) {
        let Some(socket) = &self.socket else { return };
        let socket = socket.as_ref();
        // Copied here, before `end_stream` locks the socket.
        let left: Vec<_> = self.received.batch.messages.drain(..).map(Message::leave).collect();
        socket.inner.end_stream(left);
        socket.exclusive().release();
    }

    /// Returns the next message, or `None` at end of stream.
    ///
    /// The end is final. An empty message is a message. An error does not end the stream: after
    /// `ECONNRESET`, the messages that the peer sent before still follow, and then end of stream.
    ///
    /// # Cancel safety
    /// Dropping the future loses no message.
    ///
    /// # Errors
    /// See [`UnixSeqpacket`](crate::UnixSeqpacket#errors-common-to-all-receive-calls).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use std::io::ErrorKind;
    /// # use tokio_seqpacket::MessagesOptions;
    ///
    /// # let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// a.send(b"message").await?;
    /// b.send(b"never read").await?;
    /// drop(a);
    /// let mut messages = b.messages(MessagesOptions::new())?;
    /// let reset = messages.next().await.unwrap().unwrap_err();
    /// assert_eq!(reset.kind(), ErrorKind::ConnectionReset);
    /// // The error does not end the stream.
    /// assert_eq!(&messages.next().await.unwrap()?[..], b"message");
    /// assert!(messages.next().await.is_none());
    /// # Ok(()) }
    /// ```
    pub async fn next(&mut self) -> Option<io::Result<Message>> {
        let (received, socket) = self.parts();
        match received.fill(socket).await {
            Ok(()) => received.batch.messages.pop_front().map(Ok),
            Err(error) => Some(Err(error)),
        }
    }

    /// Appends all messages that have arrived to `batch`, and returns how many.
    ///
    /// Waits for the first message only. The number is 0 at end of stream.
    ///
    /// # Cancel safety
    /// Dropping the future loses no message.
    ///
    /// # Errors
    /// Those of [`next`](Self::next). No message is lost with an error.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use tokio_seqpacket::MessagesOptions;
    ///
    /// let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// a.send(b"one").await?;
    /// a.send(b"two").await?;
    /// drop(a);
    /// let mut messages = b.messages(MessagesOptions::new())?;
    /// let mut batch = Vec::new();
    /// while messages.next_batch(&mut batch).await? > 0 {}
    /// assert_eq!(batch.len(), 2);
    /// # Ok(()) }
    /// ```
    pub async fn next_batch(&mut self, batch: &mut Vec<Message>) -> io::Result<usize> {
        let (received, socket) = self.parts();
        received.fill(socket).await?;
        let count = received.batch.messages.len();
        batch.extend(received.batch.messages.drain(..));
        Ok(count)
    }

    /// Returns a message that was already received along with another.
    ///
    /// Never waits and makes no system call. `None` means that the next message has yet to be
    /// received.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// # use tokio_seqpacket::MessagesOptions;
    /// # let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// a.send(b"one").await?;
    /// a.send(b"two").await?;
    /// drop(a);
    /// let mut messages = b.messages(MessagesOptions::new())?;
    /// let mut count = 0;
    /// while let Some(message) = messages.next().await {
    ///     // This message, and those received along with it.
    ///     let rest = std::iter::from_fn(|| messages.next_buffered());
    ///     count += std::iter::once(message?).chain(rest).count();
    /// }
    /// assert_eq!(count, 2);
    /// # Ok(()) }
    /// ```
    pub fn next_buffered(&mut self) -> Option<Message> {
        self.received.batch.messages.pop_front()
    }

    /// Polls for the next message, and wakes the task when there may be one.
    ///
    /// This is for hand-written futures and `Stream`. Between two calls nothing is in flight.
    /// Otherwise this is like [`next`](Self::next).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use std::future::poll_fn;
    /// # use tokio_seqpacket::MessagesOptions;
    ///
    /// # let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// a.send(b"message").await?;
    /// drop(a);
    /// let mut messages = b.messages(MessagesOptions::new())?;
    /// let message = poll_fn(|cx| messages.poll_next(cx)).await.unwrap()?;
    /// assert_eq!(&message[..], b"message");
    /// assert!(poll_fn(|cx| messages.poll_next(cx)).await.is_none());
    /// # Ok(()) }
    /// ```
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Message>>> {
        let (received, socket) = self.parts();
        match ready!(received.poll_fill(socket, cx)) {
            Ok(()) => Poll::Ready(received.batch.messages.pop_front().map(Ok)),
            Err(error) => Poll::Ready(Some(Err(error))),
        }
    }

    fn parts(&mut self) -> (&mut Received, &backend::Socket) {
        let socket = self.socket.as_ref().expect("there until `into_inner`");
        (&mut self.received, &socket.as_ref().inner)
    }
}

/// What a stream has received, and the buffers for more. It does not depend on the type of the
/// stream's socket, so it is compiled once, in this crate.
struct Received {
    pool: Arc<Pool>,
    batch: RecvBatch,
}

impl Received {
    fn new(options: MessagesOptions) -> Self {
        let pool = Pool::new(options.buffers, options.size.min(LARGEST_MESSAGE));
        Self { pool, batch: RecvBatch::default() }
    }

    fn wants_more(&self) -> bool {
        self.batch.messages.is_empty() && !self.batch.has_ended()
    }

    /// Restores the marks on messages if an empty one came without: the option may have been reset.
    fn mark(&self, socket: &backend::Socket) -> io::Result<()> {
        if self.batch.is_in_doubt() { socket.mark_messages() } else { Ok(()) }
    }

    /// Receives messages if it has none. Afterwards it has some, or the stream has ended.
    async fn fill(&mut self, socket: &backend::Socket) -> io::Result<()> {
        if !self.batch.messages.is_empty() {
            budget::done().await;
        }
        while self.wants_more() {
            self.mark(socket)?;
            std::future::poll_fn(|cx| self.batch.poll_buffers(&self.pool, cx)).await;
            socket.recv_many(&mut self.batch).await?;
        }
        Ok(())
    }

    /// As [`fill`](Self::fill), without an operation that waits between two calls.
    fn poll_fill(
        &mut self,
        socket: &backend::Socket,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        // Consumed for messages that were already received, too: a loop over them must yield.
        ready!(budget::poll_done(cx));
        while self.wants_more() {
            ready!(self.batch.poll_buffers(&self.pool, cx));
            self.mark(socket)?;
            ready!(socket.poll_recv_many(cx, &mut self.batch))?;
        }
        Poll::Ready(Ok(()))
    }
}

/// The socket is not pinned with the stream.
impl<S: AsRef<UnixSeqpacket>> Unpin for Messages<S> {}

#[cfg(feature = "stream")]
impl<S: AsRef<UnixSeqpacket>> futures_core::Stream for Messages<S> {
    type Item = io::Result<Message>;

    fn poll_next(self: std::pin::Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Messages::poll_next(self.get_mut(), cx)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.received.batch.messages.len(), None)
    }
}

impl<S: AsRef<UnixSeqpacket>> fmt::Debug for Messages<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Messages")
            .field("buffered", &self.received.batch.messages.len())
            .finish_non_exhaustive()
    }
}

impl<S: AsRef<UnixSeqpacket>> Drop for Messages<S> {
    fn drop(&mut self) {
        self.end();
    }
}
