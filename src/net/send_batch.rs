//! Many messages with one system call: [`SendBatch`], and receiving into lent buffers.

use std::fmt;
use std::io::{self, IoSlice};
use std::ops::Range;

use crate::ancillary::AncillaryBuffer;
use crate::ancillary::wire::MAX_CONTROL;
use crate::backend::{self, WaitingSend};
use crate::common::mmsg;
use crate::common::pending_send::PendingSend;
use crate::net::send_error::refused_send;

/// Messages to be sent with as few system calls as possible, in order; made by
/// [`UnixSeqpacket::batch`](crate::UnixSeqpacket::batch).
///
/// The batch knows at any time how many of them have gone out. It borrows messages and descriptors, and
/// can be sent, added to and sent again.
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
    messages: Vec<Entry<'a>>,
    /// Control data of the messages that have some.
    controls: Vec<u8>,
    sent: usize,
    /// The message that is next, if it waits for room in the peer's queue.
    waiting: Option<WaitingSend<'a>>,
}

struct Entry<'a> {
    bytes: &'a [u8],
    control: Range<usize>,
}

impl<'a> SendBatch<'a> {
    pub(crate) fn new(socket: &'a backend::Socket) -> Self {
        Self { socket, messages: Vec::new(), controls: Vec::new(), sent: 0, waiting: None }
    }

    /// Add a message.
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
        self.messages.push(Entry { bytes: message, control: 0..0 });
    }

    /// Add a message with ancillary data. Descriptors are lent: they have to stay open until the
    /// message has been sent.
    ///
    /// # Errors
    /// `InvalidInput` for more than 253 descriptors; the message is not added.
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
        let from = self.controls.len();
        self.controls.extend_from_slice(&control[..len]);
        self.messages.push(Entry { bytes: message, control: from..from + len });
        Ok(())
    }

    /// Messages in the batch, sent or not.
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
        self.messages.len()
    }

    /// Whether there are none.
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
        self.messages.is_empty()
    }

    /// How many messages have gone out. After an error this is the index of the message that it is
    /// about.
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
    /// // Nobody receives, so that some have to wait.
    /// let sent = tokio::time::timeout(Duration::from_millis(10), batch.send()).await;
    /// assert!(sent.is_err());
    /// assert!((1..16).contains(&batch.sent()));
    /// # drop(b);
    /// # Ok(()) }
    /// ```
    pub fn sent(&self) -> usize {
        self.sent + usize::from(self.waiting.as_ref().is_some_and(WaitingSend::has_gone_out))
    }

    /// Leave out the message that is next, for instance after an error.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// let large = vec![0; 8 << 20];
    /// let mut batch = a.batch();
    /// batch.push(b"one");
    /// batch.push(&large);
    /// batch.push(b"three");
    /// // The second is larger than the send buffer; the first has gone out.
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
        if let Some(waiting) = self.waiting.take() {
            self.sent += usize::from(waiting.withdraw());
        }
        if self.sent < self.messages.len() {
            self.messages.remove(self.sent);
        }
    }

    /// Empty the batch, for other messages. Its memory is kept.
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
        self.messages.clear();
        self.controls.clear();
        self.sent = 0;
    }

    /// Send what has not been sent yet. Returns how many messages went out in this call.
    ///
    /// While nobody is ahead and the peer's queue has room, up to 32 messages go with one
    /// `sendmmsg(2)`. A message that finds the queue full stands in line as a [send] does.
    ///
    /// # Cancel safety
    /// A future that is dropped loses nothing and sends nothing twice: the message that waits stays in
    /// line as long as the batch lives, and the next call goes on from there. Dropping the batch takes
    /// it out: it goes out whole or never will.
    ///
    /// # Errors
    /// As [send]. It is about the message at [`sent()`](Self::sent); those before have gone out, it
    /// and those behind it have not.
    ///
    /// If the peer closes with unread messages while a batch goes out, [`BrokenPipe`] may be all that is
    /// reported: `sendmmsg(2)` drops the reset if it has sent a message before it.
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
    /// // What was sent is not sent again.
    /// batch.push(b"three");
    /// assert_eq!(batch.send().await?, 1);
    /// for len in [3, 3, 5] {
    ///     assert_eq!(b.recv(&mut [0; 8]).await?, len);
    /// }
    /// # Ok(()) }
    /// ```
    pub async fn send(&mut self) -> io::Result<usize> {
        let before = self.sent();
        loop {
            if let Some(waiting) = &mut self.waiting {
                let (sent, _) = std::future::poll_fn(|cx| waiting.poll(cx)).await;
                self.waiting = None;
                self.explained(sent)?;
                self.sent += 1;
                continue;
            }
            let rest = &self.messages[self.sent..];
            let Some(next) = rest.first() else { return Ok(self.sent - before) };
            let controls = &self.controls;
            // Counted when they go, which can be before this future learns of it.
            let count = &mut self.sent;
            let sent = self
                .socket
                .send_directly(|fd| {
                    let messages =
                        rest.iter().map(|entry| (entry.bytes, &controls[entry.control.clone()]));
                    let sent = mmsg::send_many(fd, messages)?;
                    *count += sent;
                    Ok(sent)
                })
                .await;
            match sent {
                Ok(sent) => {
                    self.explained(sent)?;
                }
                Err((reason, spare)) => {
                    let control = &controls[next.control.clone()];
                    let payload = PendingSend::copy(&[IoSlice::new(next.bytes)], control, spare)?;
                    self.waiting = Some(self.socket.wait(payload, reason));
                }
            }
        }
    }

    fn explained(&self, sent: io::Result<usize>) -> io::Result<usize> {
        sent.map_err(|error| match self.messages.get(self.sent) {
            Some(entry) => refused_send(
                error,
                self.socket.fd(),
                entry.bytes.len(),
                &self.controls[entry.control.clone()],
            ),
            None => error,
        })
    }
}

impl fmt::Debug for SendBatch<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendBatch")
            .field("len", &self.messages.len())
            .field("sent", &self.sent)
            .finish_non_exhaustive()
    }
}
