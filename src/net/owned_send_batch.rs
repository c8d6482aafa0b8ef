//! [`OwnedSendBatch`]: a batch of messages that it owns, for any socket.

use std::fmt;
use std::io;

use crate::ancillary::AncillaryBuffer;
use crate::ancillary::wire::MAX_CONTROL;
use crate::backend::WaitingSend;
use crate::net::send_batch::Batch;
use crate::net::socket::UnixSeqpacket;

/// Messages that the batch owns, and that are sent in order and with few system calls.
///
/// `B` holds the bytes of a message: `Vec<u8>`, `Bytes`, `Arc<[u8]>`, `&'static [u8]`. The batch has
/// no lifetime and belongs to no socket, so it can be a field of a struct or move to another task. It
/// keeps its memory when it is cleared, so a batch that is used again allocates nothing.
///
/// Messages and their descriptors stay in the batch after they have been sent, until
/// [`drain_sent`](Self::drain_sent) or [`clear`](Self::clear) takes them out. For messages that
/// the caller keeps, [`SendBatch`](crate::SendBatch) borrows them.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
/// use std::io;
/// use tokio_seqpacket::{OwnedSendBatch, UnixSeqpacket};
///
/// struct Log {
///     socket: UnixSeqpacket,
///     lines: OwnedSendBatch<String>,
/// }
///
/// impl Log {
///     async fn flush(&mut self) -> io::Result<()> {
///         self.lines.send(&self.socket).await?;
///         self.lines.clear();
///         Ok(())
///     }
/// }
///
/// let (a, b) = UnixSeqpacket::pair()?;
/// let mut log = Log { socket: a, lines: OwnedSendBatch::new() };
/// for n in 0..10 {
///     log.lines.push(format!("line {n}"));
///     if log.lines.len() == 5 {
///         log.flush().await?;
///     }
/// }
/// for _ in 0..10 {
///     assert_eq!(b.recv(&mut [0; 16]).await?, 6);
/// }
/// # Ok(()) }
/// ```
pub struct OwnedSendBatch<B>(Batch<B, AncillaryBuffer>);

impl<B> OwnedSendBatch<B> {
    /// Creates an empty batch.
    ///
    /// ```
    /// use tokio_seqpacket::OwnedSendBatch;
    ///
    /// let batch = OwnedSendBatch::<Vec<u8>>::new();
    /// assert!(batch.is_empty());
    /// ```
    pub fn new() -> Self {
        Self(Batch::new())
    }

    /// Adds a message.
    ///
    /// ```
    /// use tokio_seqpacket::OwnedSendBatch;
    ///
    /// let mut batch = OwnedSendBatch::new();
    /// batch.push(b"message".to_vec());
    /// assert_eq!(batch.len(), 1);
    /// ```
    pub fn push(&mut self, message: B) {
        self.0.push(message, AncillaryBuffer::new(), &[]);
    }

    /// Adds a message with ancillary data.
    ///
    /// The peer gets duplicates of the descriptors. Those of the batch stay open as long as the
    /// message is in it.
    ///
    /// # Errors
    /// `InvalidInput` for more than 253 descriptors (`SCM_MAX_FD`, see `unix(7)`). The message is
    /// not added then, and its descriptors are closed.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use tokio_seqpacket::OwnedSendBatch;
    /// use tokio_seqpacket::ancillary::AncillaryBuffer;
    ///
    /// let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// let (mut reader, writer) = std::io::pipe()?;
    /// let mut batch = OwnedSendBatch::new();
    /// batch.push("without");
    /// batch.push_with_ancillary("with a pipe", AncillaryBuffer::from_iter([writer.into()]))?;
    /// assert_eq!(batch.send(&a).await?, 2);
    ///
    /// // Closes the descriptor of the batch. The one in the peer's queue is closed with it.
    /// batch.clear();
    /// drop(b);
    /// assert_eq!(std::io::Read::read(&mut reader, &mut [0])?, 0);
    /// # Ok(()) }
    /// ```
    pub fn push_with_ancillary(
        &mut self,
        message: B,
        ancillary: AncillaryBuffer,
    ) -> io::Result<()> {
        let mut control = [0; MAX_CONTROL];
        let len = ancillary.encode(&mut control)?;
        self.0.push(message, ancillary, &control[..len]);
        Ok(())
    }

    /// Returns the number of messages in the batch, sent or not.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// # let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// # let mut batch = tokio_seqpacket::OwnedSendBatch::new();
    /// batch.push("one");
    /// batch.send(&a).await?;
    /// batch.push("two");
    /// assert_eq!((batch.len(), batch.sent()), (2, 1));
    /// # drop(b);
    /// # Ok(()) }
    /// ```
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns whether the batch has no messages, sent or not.
    ///
    /// ```
    /// # let mut batch = tokio_seqpacket::OwnedSendBatch::new();
    /// assert!(batch.is_empty());
    /// batch.push("message");
    /// assert!(!batch.is_empty());
    /// ```
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns how many messages of the batch have gone out.
    ///
    /// After an error this is the index of the message that the error is about.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// # use tokio_seqpacket::{OwnedSendBatch, UnixSeqpacket};
    /// use std::time::Duration;
    ///
    /// let (a, b) = UnixSeqpacket::pair()?;
    /// let mut batch = OwnedSendBatch::new();
    /// (0..2000_u32).for_each(|n| batch.push(n.to_ne_bytes()));
    /// // The peer receives nothing, so some messages do not go out.
    /// let sent = tokio::time::timeout(Duration::from_millis(10), batch.send(&a)).await;
    /// assert!(sent.is_err());
    /// assert!((1..2000).contains(&batch.sent()));
    /// # drop(b);
    /// # Ok(()) }
    /// ```
    pub fn sent(&self) -> usize {
        self.0.sent()
    }

    /// Takes out the next message that has not been sent, for instance after an error about it.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// # let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// # let mut batch = tokio_seqpacket::OwnedSendBatch::new();
    /// batch.push(b"one".to_vec());
    /// batch.push(vec![0; 8 << 20]);
    /// batch.push(b"three".to_vec());
    /// // The second is larger than the send buffer. The first has gone out.
    /// assert!(batch.send(&a).await.is_err());
    /// let (too_long, _) = batch.skip().expect("not sent");
    /// assert_eq!(too_long.len(), 8 << 20);
    /// assert_eq!(batch.send(&a).await?, 1);
    /// assert_eq!(b.recv(&mut [0; 8]).await?, 3);
    /// assert_eq!(b.recv(&mut [0; 8]).await?, 5);
    /// # Ok(()) }
    /// ```
    pub fn skip(&mut self) -> Option<(B, AncillaryBuffer)> {
        self.0.skip()
    }

    /// Takes out the messages that have gone out, with their ancillary data. The others stay.
    ///
    /// [`sent`](Self::sent) is 0 afterwards. What the iterator has not yielded when it is dropped is
    /// dropped with it, which closes descriptors.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// # let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// # let mut batch = tokio_seqpacket::OwnedSendBatch::new();
    /// let mut spare: Vec<Vec<u8>> = Vec::new();
    /// for n in 0..100_u32 {
    ///     let mut message = spare.pop().unwrap_or_default();
    ///     message.extend_from_slice(&n.to_ne_bytes());
    ///     batch.push(message);
    ///     if batch.len() == 10 {
    ///         batch.send(&a).await?;
    ///         // The next ten messages use the memory of these.
    ///         spare.extend(batch.drain_sent().map(|(mut message, _)| {
    ///             message.clear();
    ///             message
    ///         }));
    ///     }
    /// }
    /// assert_eq!((batch.len(), batch.sent(), spare.len()), (0, 0, 10));
    /// # drop(b);
    /// # Ok(()) }
    /// ```
    pub fn drain_sent(&mut self) -> impl ExactSizeIterator<Item = (B, AncillaryBuffer)> + '_ {
        self.0.drain_sent()
    }

    /// Removes all messages, sent or not, and keeps the memory for others.
    ///
    /// Closes their descriptors.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// # let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// # let mut batch = tokio_seqpacket::OwnedSendBatch::new();
    /// for round in [["one", "two"], ["six", "ten"]] {
    ///     round.into_iter().for_each(|message| batch.push(message));
    ///     assert_eq!(batch.send(&a).await?, 2);
    ///     batch.clear();
    /// }
    /// assert_eq!((batch.len(), batch.sent()), (0, 0));
    /// # drop(b);
    /// # Ok(()) }
    /// ```
    pub fn clear(&mut self) {
        self.0.clear();
    }
}

impl<B: AsRef<[u8]>> OwnedSendBatch<B> {
    /// Sends on `socket` all messages that have not been sent yet, and returns how many went out in
    /// this call.
    ///
    /// While no other send waits and the peer's queue has capacity, one `sendmmsg(2)` sends up to
    /// 32 messages. A message that finds the queue full is copied and waits in the send queue, as
    /// a [send] does.
    ///
    /// # Cancel safety
    /// Dropping the future loses no message and sends none twice: [`sent`](Self::sent) messages have
    /// gone out, the others have not, and the next call goes on with them, in order. A message that
    /// waits leaves the send queue. If another thread sends it just then, the drop waits for the
    /// result, some microseconds. A future that is forgotten ([`std::mem::forget`]) can leave one
    /// message in the send queue. The batch counts it as sent: it goes out in its turn, once, unless
    /// the connection ends before.
    ///
    /// # Errors
    /// Those of [`SendBatch::send`](crate::SendBatch::send). An error is about the message at index
    /// [`sent()`](Self::sent): all before it have gone out, it and all behind it have not.
    ///
    /// [send]: UnixSeqpacket::send
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use tokio_seqpacket::{OwnedSendBatch, UnixSeqpacket};
    ///
    /// let (a, b) = UnixSeqpacket::pair()?;
    /// let mut batch = OwnedSendBatch::new();
    /// batch.push("one");
    /// batch.push("two");
    /// assert_eq!(batch.send(&a).await?, 2);
    /// // Messages that were sent are not sent again.
    /// batch.push("three");
    /// assert_eq!(batch.send(&a).await?, 1);
    /// for len in [3, 3, 5] {
    ///     assert_eq!(b.recv(&mut [0; 8]).await?, len);
    /// }
    /// # Ok(()) }
    /// ```
    pub async fn send(&mut self, socket: &UnixSeqpacket) -> io::Result<usize> {
        let mut place = Place { batch: &mut self.0, waiting: None };
        place.batch.send(&socket.inner, &mut place.waiting).await
    }
}

/// The place in the send queue of a batch's next message, for the time of one call.
struct Place<'b, 's, B> {
    batch: &'b mut Batch<B, AncillaryBuffer>,
    waiting: Option<WaitingSend<'s>>,
}

impl<B> Drop for Place<'_, '_, B> {
    fn drop(&mut self) {
        self.batch.withdraw(&mut self.waiting);
    }
}

impl<B> Default for OwnedSendBatch<B> {
    fn default() -> Self {
        Self::new()
    }
}

impl<B> fmt::Debug for OwnedSendBatch<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt_as("OwnedSendBatch", self.sent(), f)
    }
}
