//! [`Messages`]: a stream of messages, each in a buffer that it leases.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use crate::backend;
use crate::buf::pool::Pool;
use crate::common::message::Message;
use crate::common::recv_batch::RecvBatch;
use crate::net::socket::exclusive::{Exclusive, StreamClaim};
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

/// A stream of the messages that a socket receives, made by
/// [`UnixSeqpacket::messages`](crate::UnixSeqpacket::messages).
///
/// Each [`Message`] leases its buffer. One system call (`recvmmsg(2)`) receives all messages that
/// have arrived, on both backends. Where none has arrived, the stream waits as a receive does.
///
/// While there is a stream, other receive calls of the socket wait until it is dropped, and `try_*`
/// calls return `WouldBlock`. Only a receive that was already waiting goes on beside it. The next
/// receives get the messages that the stream has not yielded by its end, in order.
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
pub struct Messages<'a> {
    socket: &'a backend::Socket,
    pool: Arc<Pool>,
    batch: RecvBatch,
    _claim: StreamClaim<'a>,
}

impl<'a> Messages<'a> {
    pub(crate) fn new(
        socket: &'a backend::Socket,
        exclusive: &'a Exclusive,
        options: MessagesOptions,
    ) -> io::Result<Self> {
        let claim = exclusive.claim()?;
        socket.mark_messages()?;
        let pool = Pool::new(options.buffers, options.size.min(LARGEST_MESSAGE));
        Ok(Self { socket, pool, batch: RecvBatch::default(), _claim: claim })
    }

    /// Restores the marks on messages if an empty one came without: the option may have been reset.
    fn mark(&self) -> io::Result<()> {
        if self.batch.is_in_doubt() { self.socket.mark_messages() } else { Ok(()) }
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
        if !self.batch.messages.is_empty() {
            budget::done().await;
        }
        while self.batch.messages.is_empty() && !self.batch.has_ended() {
            if let Err(error) = self.fill().await {
                return Some(Err(error));
            }
        }
        self.batch.messages.pop_front().map(Ok)
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
        if !self.batch.messages.is_empty() {
            budget::done().await;
        }
        while self.batch.messages.is_empty() && !self.batch.has_ended() {
            self.fill().await?;
        }
        let count = self.batch.messages.len();
        batch.extend(self.batch.messages.drain(..));
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
        self.batch.messages.pop_front()
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
        // Consumed for messages that were already received, too: a loop over them must yield.
        ready!(budget::poll_done(cx));
        while self.batch.messages.is_empty() && !self.batch.has_ended() {
            ready!(self.batch.poll_buffers(&self.pool, cx));
            if let Err(error) = self.mark() {
                return Poll::Ready(Some(Err(error)));
            }
            if let Err(error) = ready!(self.socket.poll_recv_many(cx, &mut self.batch)) {
                return Poll::Ready(Some(Err(error)));
            }
        }
        Poll::Ready(self.batch.messages.pop_front().map(Ok))
    }

    async fn fill(&mut self) -> io::Result<()> {
        self.mark()?;
        std::future::poll_fn(|cx| self.batch.poll_buffers(&self.pool, cx)).await;
        self.socket.recv_many(&mut self.batch).await
    }
}

#[cfg(feature = "stream")]
impl futures_core::Stream for Messages<'_> {
    type Item = io::Result<Message>;

    fn poll_next(self: std::pin::Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Messages::poll_next(self.get_mut(), cx)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.batch.messages.len(), None)
    }
}

impl fmt::Debug for Messages<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Messages")
            .field("buffered", &self.batch.messages.len())
            .finish_non_exhaustive()
    }
}

impl Drop for Messages<'_> {
    fn drop(&mut self) {
        // Copied here, before `end_stream` locks the socket.
        let left: Vec<_> = self.batch.messages.drain(..).map(Message::leave).collect();
        self.socket.end_stream(left);
    }
}
