//! [`SendBatch`]: many messages with one system call. [`Batch`] is what it shares with
//! [`OwnedSendBatch`].
//!
//! [`OwnedSendBatch`]: crate::net::owned_send_batch::OwnedSendBatch

use std::fmt;
use std::io::{self, IoSlice};
use std::ops::Range;

use crate::ancillary::AncillaryBuffer;
use crate::ancillary::wire::MAX_CONTROL;
use crate::backend::{self, WaitingSend};
use crate::common::mmsg;
use crate::common::pending_send::PendingSend;
use crate::net::send_error::refused_send;

/// Messages that are sent in order and with few system calls, from
/// [`UnixSeqpacket::batch`](crate::UnixSeqpacket::batch).
///
/// The batch always knows how many of its messages have gone out. It borrows messages and
/// descriptors. It can be sent, extended and sent again. [`OwnedSendBatch`] owns its messages, and
/// borrows a socket only while it is sent.
///
/// [`OwnedSendBatch`]: crate::OwnedSendBatch
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
/// use tokio_seqpacket::UnixSeqpacket;
///
/// let (a, b) = UnixSeqpacket::pair()?;
/// let mut batch = a.batch();
/// batch.push(b"one");
/// batch.push(b"two");
/// assert_eq!(batch.send().await?, 2);
///
/// let mut buffer = [0; 8];
/// assert_eq!(b.recv(&mut buffer).await?, 3);
/// # Ok(()) }
/// ```
pub struct SendBatch<'a> {
    socket: &'a backend::Socket,
    /// The batch borrows the ancillary data as long as the messages.
    batch: Batch<&'a [u8], ()>,
    /// The next message, while it waits for capacity in the peer's queue.
    waiting: Option<WaitingSend<'a>>,
}

impl<'a> SendBatch<'a> {
    pub(crate) fn new(socket: &'a backend::Socket) -> Self {
        Self { socket, batch: Batch::new(), waiting: None }
    }

    /// Adds a message.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// # let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// let lines = String::from("first line\nand the second\nthird\n");
    /// let mut batch = a.batch();
    /// for line in lines.lines() {
    ///     batch.push(line.as_bytes());
    /// }
    /// assert_eq!(batch.send().await?, 3);
    /// # drop(b);
    /// # Ok(()) }
    /// ```
    pub fn push(&mut self, message: &'a [u8]) {
        self.batch.push(message, (), &[]);
    }

    /// Adds a message with ancillary data.
    ///
    /// The descriptors are borrowed, so they stay open until the message has been sent.
    ///
    /// # Errors
    /// `InvalidInput` for more than 253 descriptors (`SCM_MAX_FD`, see `unix(7)`). The message is
    /// not added then.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use tokio_seqpacket::ancillary::AncillaryBuffer;
    ///
    /// let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// let file = AncillaryBuffer::from_iter([std::fs::File::open("/dev/null")?.into()]);
    /// let mut batch = a.batch();
    /// batch.push(b"without");
    /// batch.push_with_ancillary(b"with a file", &file)?;
    /// assert_eq!((batch.len(), batch.sent()), (2, 0));
    /// batch.send().await?;
    /// assert_eq!(batch.sent(), 2);
    /// # drop(b);
    /// # Ok(()) }
    /// ```
    pub fn push_with_ancillary(
        &mut self,
        message: &'a [u8],
        ancillary: &'a AncillaryBuffer,
    ) -> io::Result<()> {
        let mut control = [0; MAX_CONTROL];
        let len = ancillary.encode(&mut control)?;
        self.batch.push(message, (), &control[..len]);
        Ok(())
    }

    /// Returns the number of messages in the batch, sent or not.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// # let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// let mut batch = a.batch();
    /// batch.push(b"one");
    /// batch.push(b"two");
    /// batch.send().await?;
    /// batch.push(b"three");
    /// assert_eq!((batch.len(), batch.sent()), (3, 2));
    /// # drop(b);
    /// # Ok(()) }
    /// ```
    pub fn len(&self) -> usize {
        self.batch.messages.len()
    }

    /// Returns whether the batch has no messages.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// # let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// let mut batch = a.batch();
    /// assert!(batch.is_empty());
    /// assert_eq!(batch.send().await?, 0);
    /// batch.push(b"message");
    /// assert!(!batch.is_empty());
    /// # drop(b);
    /// # Ok(()) }
    /// ```
    pub fn is_empty(&self) -> bool {
        self.batch.messages.is_empty()
    }

    /// Returns how many messages have gone out.
    ///
    /// After an error this is the index of the message that the error is about.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use std::time::Duration;
    ///
    /// # let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// a.set_send_buffer_size(64 << 10)?;
    /// let message = vec![0; 32 << 10];
    /// let mut batch = a.batch();
    /// (0..16).for_each(|_| batch.push(&message));
    /// // The peer receives nothing, so some messages have to wait.
    /// let sent = tokio::time::timeout(Duration::from_millis(10), batch.send()).await;
    /// assert!(sent.is_err());
    /// assert!((1..16).contains(&batch.sent()));
    /// # drop(b);
    /// # Ok(()) }
    /// ```
    pub fn sent(&self) -> usize {
        self.batch.gone_out(self.waiting.as_ref())
    }

    /// Skips the next message, for instance after an error about it.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// let large = vec![0; 8 << 20];
    /// let mut batch = a.batch();
    /// batch.push(b"one");
    /// batch.push(&large);
    /// batch.push(b"three");
    /// // The second is larger than the send buffer. The first has gone out.
    /// assert!(batch.send().await.is_err());
    /// assert_eq!(batch.sent(), 1);
    /// batch.skip();
    /// assert_eq!(batch.send().await?, 1);
    /// assert_eq!(b.recv(&mut [0; 8]).await?, 3);
    /// assert_eq!(b.recv(&mut [0; 8]).await?, 5);
    ///
    /// batch.clear();
    /// assert!(batch.is_empty());
    /// # Ok(()) }
    /// ```
    pub fn skip(&mut self) {
        self.batch.withdraw(&mut self.waiting);
        self.batch.skip();
    }

    /// Removes all messages, and keeps the memory for others.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// # let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// let mut batch = a.batch();
    /// for round in [[b"one", b"two"], [b"six", b"ten"]] {
    ///     round.into_iter().for_each(|message| batch.push(message));
    ///     assert_eq!(batch.send().await?, 2);
    ///     batch.clear();
    /// }
    /// assert_eq!((batch.len(), batch.sent()), (0, 0));
    /// # drop(b);
    /// # Ok(()) }
    /// ```
    pub fn clear(&mut self) {
        self.waiting = None;
        self.batch.clear();
    }

    /// Sends all messages that have not been sent yet, and returns how many went out in this call.
    ///
    /// While no other send waits and the peer's queue has capacity, one `sendmmsg(2)` sends up to
    /// 32 messages. A message that finds the queue full waits in the send queue, as a [send] does.
    ///
    /// # Cancel safety
    /// Dropping the future loses no message and sends none twice. A message that waits keeps its
    /// place in the send queue while the batch lives, and the next call goes on from there.
    /// Dropping the batch removes that message from the queue: either all of it has gone out, or
    /// none of it ever will.
    ///
    /// # Errors
    /// Those of [send]. An error is about the message at index [`sent()`](Self::sent): all before
    /// it have gone out, it and all behind it have not.
    ///
    /// If the peer closes with unread messages while a batch goes out, [`BrokenPipe`] may be the
    /// only error. `sendmmsg(2)` drops the reset if it has sent a message before it.
    ///
    /// [`BrokenPipe`]: io::ErrorKind::BrokenPipe
    ///
    /// [send]: crate::UnixSeqpacket::send
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// # let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// let mut batch = a.batch();
    /// batch.push(b"one");
    /// batch.push(b"two");
    /// assert_eq!(batch.send().await?, 2);
    /// // Messages that were sent are not sent again.
    /// batch.push(b"three");
    /// assert_eq!(batch.send().await?, 1);
    /// for len in [3, 3, 5] {
    ///     assert_eq!(b.recv(&mut [0; 8]).await?, len);
    /// }
    /// # Ok(()) }
    /// ```
    pub async fn send(&mut self) -> io::Result<usize> {
        self.batch.send(self.socket, &mut self.waiting).await
    }
}

impl fmt::Debug for SendBatch<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.batch.fmt_as("SendBatch", self.sent(), f)
    }
}

/// Messages, and how many of them have gone out. `B` is the bytes of a message. `A` owns what its
/// control data refers to, unless that is borrowed.
pub(crate) struct Batch<B, A> {
    messages: Vec<Entry<B, A>>,
    /// The control data of all messages, in their order.
    controls: Vec<u8>,
    /// How many have gone out. One that waits counts from the start, and is uncounted if it does not
    /// go out: so it is never sent again, even if the future that waits is forgotten.
    sent: usize,
}

struct Entry<B, A> {
    bytes: B,
    ancillary: A,
    control: Range<usize>,
}

impl<B, A> Batch<B, A> {
    pub(crate) fn new() -> Self {
        Self { messages: Vec::new(), controls: Vec::new(), sent: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.messages.len()
    }

    pub(crate) fn sent(&self) -> usize {
        self.sent
    }

    /// Returns how many messages have gone out. The last one counted is `waiting`, if there is one.
    fn gone_out(&self, waiting: Option<&WaitingSend<'_>>) -> usize {
        self.sent - usize::from(waiting.is_some_and(|last| !last.has_gone_out()))
    }

    /// Withdraws the message that waits, and uncounts it unless it has gone out.
    pub(crate) fn withdraw(&mut self, waiting: &mut Option<WaitingSend<'_>>) {
        if let Some(last) = waiting.take() {
            self.sent -= usize::from(!last.withdraw());
        }
    }

    pub(crate) fn push(&mut self, bytes: B, ancillary: A, control: &[u8]) {
        let from = self.controls.len();
        self.controls.extend_from_slice(control);
        self.messages.push(Entry { bytes, ancillary, control: from..self.controls.len() });
    }

    /// Takes out the next message that has not been sent. None of the batch may be waiting.
    pub(crate) fn skip(&mut self) -> Option<(B, A)> {
        let next = self.sent < self.messages.len();
        next.then(|| self.messages.remove(self.sent)).map(Entry::into_parts)
    }

    /// Takes out the messages that have gone out, and counts from 0 again.
    pub(crate) fn drain_sent(&mut self) -> impl ExactSizeIterator<Item = (B, A)> {
        let sent = std::mem::take(&mut self.sent);
        let kept = self.messages.get(sent).map_or(self.controls.len(), |next| next.control.start);
        self.controls.drain(..kept);
        for Entry { control, .. } in &mut self.messages[sent..] {
            *control = control.start - kept..control.end - kept;
        }
        self.messages.drain(..sent).map(Entry::into_parts)
    }

    pub(crate) fn clear(&mut self) {
        self.controls.clear();
        self.sent = 0;
        // Last, since a message's destructor may panic.
        self.messages.clear();
    }

    pub(crate) fn fmt_as(
        &self,
        name: &str,
        sent: usize,
        f: &mut fmt::Formatter<'_>,
    ) -> fmt::Result {
        f.debug_struct(name)
            .field("len", &self.messages.len())
            .field("sent", &sent)
            .finish_non_exhaustive()
    }
}

impl<B: AsRef<[u8]>, A> Batch<B, A> {
    /// Sends what has not been sent yet, and returns how many went out in this call. `waiting` is
    /// the place of the next message in the send queue, which a dropped call leaves behind.
    pub(crate) async fn send<'s>(
        &mut self,
        socket: &'s backend::Socket,
        waiting: &mut Option<WaitingSend<'s>>,
    ) -> io::Result<usize> {
        let before = self.gone_out(waiting.as_ref());
        loop {
            if let Some(send) = waiting {
                let (sent, _) = std::future::poll_fn(|cx| send.poll(cx)).await;
                *waiting = None;
                self.sent -= usize::from(sent.is_err());
                self.explained(sent, socket)?;
                continue;
            }
            let rest = &self.messages[self.sent..];
            let Some(next) = rest.first() else { return Ok(self.sent - before) };
            let controls = &self.controls;
            // Counted as soon as they are sent, which can be before this future is polled again.
            let count = &mut self.sent;
            let sent = socket
                .send_directly(|fd| {
                    let messages = rest
                        .iter()
                        .map(|entry| (entry.bytes.as_ref(), &controls[entry.control.clone()]));
                    let sent = mmsg::send_many(fd, messages)?;
                    *count += sent.messages;
                    Ok(sent)
                })
                .await;
            match sent {
                Ok(sent) => {
                    self.explained(sent, socket)?;
                }
                Err((reason, spare)) => {
                    let control = &controls[next.control.clone()];
                    let bytes = IoSlice::new(next.bytes.as_ref());
                    let payload = PendingSend::copy(&[bytes], control, spare)?;
                    *waiting = Some(socket.wait(payload, reason));
                    self.sent += 1;
                }
            }
        }
    }

    fn explained<T>(&self, sent: io::Result<T>, socket: &backend::Socket) -> io::Result<T> {
        sent.map_err(|error| match self.messages.get(self.sent) {
            Some(entry) => refused_send(
                error,
                socket.fd(),
                entry.bytes.as_ref().len(),
                &self.controls[entry.control.clone()],
            ),
            None => error,
        })
    }
}

impl<B, A> Entry<B, A> {
    fn into_parts(self) -> (B, A) {
        (self.bytes, self.ancillary)
    }
}
