//! [`Messages`]: a stream of messages, each in a buffer that it leases.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::ops::Deref;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use crate::ancillary::{AncillaryBuffer, ReceivedControl};
use crate::backend;
use crate::common::completed::Completed;
use crate::common::mmsg;
use crate::common::source::Source;
use crate::net::socket::exclusive::{Claim, Exclusive};
use crate::sys::{LARGEST_MESSAGE, Received};
use crate::types::message_info::MessageInfo;
use crate::types::ucred::UCred;
use crate::util::catch_panic;
use crate::util::coop as budget;

/// How a stream of messages receives: how many buffers, and how large.
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
    /// 64 buffers of 16 KiB.
    ///
    /// ```
    /// use tokio_seqpacket::MessagesOptions;
    ///
    /// assert_eq!(MessagesOptions::new(), MessagesOptions::new().buffers(64).size(16 << 10));
    /// ```
    pub fn new() -> Self {
        Self::default()
    }

    /// How many messages can be held at a time: received and not yet dropped. At least 1.
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

    /// Bytes of the longest message that is received whole. One that is longer is cut, and says so:
    /// [`Message::info`].
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

/// The buffers of a stream. Memory is taken when a buffer is first used.
#[derive(Debug)]
pub(crate) struct Pool {
    free: Mutex<Free>,
    size: usize,
}

#[derive(Debug)]
struct Free {
    buffers: Vec<Vec<u8>>,
    /// How many may still be made.
    unmade: usize,
    /// The stream, if it waits for a buffer.
    waiting: Option<Waker>,
}

impl Pool {
    fn new(options: MessagesOptions) -> Arc<Self> {
        let free = Free { buffers: Vec::new(), unmade: options.buffers, waiting: None };
        Arc::new(Self { free: Mutex::new(free), size: options.size.min(LARGEST_MESSAGE) })
    }

    fn lock(&self) -> MutexGuard<'_, Free> {
        // Nothing under this lock panics half-way or runs foreign code, but for cloning wakers.
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lease buffers until there are `want` in `leases`, or no more to be had. Ready once there is one.
    fn poll_lease(
        self: &Arc<Self>,
        cx: &mut Context<'_>,
        leases: &mut Vec<Lease>,
        want: usize,
    ) -> Poll<()> {
        if leases.len() >= want {
            return Poll::Ready(());
        }
        let mut free = self.lock();
        while leases.len() < want {
            let bytes = match free.buffers.pop() {
                Some(bytes) => bytes,
                None if free.unmade > 0 => {
                    free.unmade -= 1;
                    Vec::with_capacity(self.size)
                }
                None if !leases.is_empty() => break,
                None => {
                    let replaced = free.waiting.replace(cx.waker().clone());
                    drop(free);
                    drop(replaced);
                    return Poll::Pending;
                }
            };
            leases.push(Lease { bytes, pool: Some(self.clone()) });
        }
        Poll::Ready(())
    }

    fn give_back(&self, mut bytes: Vec<u8>) {
        bytes.clear();
        let mut free = self.lock();
        free.buffers.push(bytes);
        let waiting = free.waiting.take();
        drop(free);
        if let Some(waker) = waiting {
            catch_panic::wake(waker);
        }
    }
}

/// A buffer that goes back to its pool when it is dropped, wherever that happens.
pub(crate) struct Lease {
    pub(crate) bytes: Vec<u8>,
    /// `None` for no buffer at all.
    pool: Option<Arc<Pool>>,
}

impl AsMut<Vec<u8>> for Lease {
    fn as_mut(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(pool) = &self.pool {
            pool.give_back(std::mem::take(&mut self.bytes));
        }
    }
}

/// A received message in a buffer that it leases: dereferences to its bytes, and gives the buffer back
/// to its stream when it is dropped.
///
/// It owns what came with it: file descriptors that are not taken are closed with it. It may outlive
/// the stream, and be dropped on any thread.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
/// use tokio_seqpacket::MessagesOptions;
/// use tokio_seqpacket::ancillary::AncillaryBuffer;
///
/// let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
/// b.set_pass_credentials(true)?;
/// let file = AncillaryBuffer::from_iter([std::fs::File::open("/dev/null")?.into()]);
/// a.send_owned_with_ancillary("a file", file).await.0?;
///
/// let mut messages = b.messages(MessagesOptions::new())?;
/// let mut message = messages.next().await.expect("not the end")?;
/// assert_eq!(&message[..], b"a file");
/// assert!(!message.info().truncated());
/// assert_eq!(message.credentials().and_then(|sender| sender.pid()), Some(std::process::id() as i32));
/// assert_eq!(message.ancillary().fds().len(), 1);
/// assert_eq!(message.take_fds().len(), 1);
/// # Ok(()) }
/// ```
pub struct Message {
    lease: Lease,
    info: MessageInfo,
    ancillary: AncillaryBuffer,
}

impl Message {
    fn new(lease: Lease, received: Received, ancillary: AncillaryBuffer) -> Self {
        let info = MessageInfo::new(&received, lease.bytes.len());
        Self { lease, info, ancillary }
    }

    /// How long the message was, and whether it or its ancillary data was cut.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// # use tokio_seqpacket::MessagesOptions;
    /// # let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// a.send(b"message").await?;
    /// let mut messages = b.messages(MessagesOptions::new())?;
    /// let info = messages.next().await.unwrap()?.info();
    /// assert_eq!(info.bytes_read(), 7);
    /// assert!(!info.truncated() && !info.ancillary_truncated());
    /// # Ok(()) }
    /// ```
    pub fn info(&self) -> MessageInfo {
        self.info
    }

    /// What came with the message: file descriptors, credentials.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// # use tokio_seqpacket::MessagesOptions;
    /// # let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// b.set_pass_credentials(true)?;
    /// a.send(b"message").await?;
    /// let mut messages = b.messages(MessagesOptions::new())?;
    /// let message = messages.next().await.unwrap()?;
    /// let ancillary = message.ancillary();
    /// assert!(ancillary.credentials().is_some() && ancillary.fds().is_empty());
    /// # Ok(()) }
    /// ```
    pub fn ancillary(&self) -> &AncillaryBuffer {
        &self.ancillary
    }

    /// The credentials of its sender, if `SO_PASSCRED` is set on the receiving socket.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// # use tokio_seqpacket::MessagesOptions;
    /// # let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// let own = tokio_seqpacket::UCred::from_current_process();
    /// b.set_pass_credentials(true)?;
    /// a.send(b"message").await?;
    /// let mut messages = b.messages(MessagesOptions::new())?;
    /// assert_eq!(messages.next().await.unwrap()?.credentials(), Some(own));
    /// # Ok(()) }
    /// ```
    pub fn credentials(&self) -> Option<UCred> {
        self.ancillary.credentials()
    }

    /// Take the file descriptors that came with it.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use std::fs::File;
    /// # use tokio_seqpacket::MessagesOptions;
    /// # use tokio_seqpacket::ancillary::AncillaryBuffer;
    ///
    /// # let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// # let file = AncillaryBuffer::from_iter([File::open("/proc/self/comm")?.into()]);
    /// # a.send_owned_with_ancillary("a file", file).await.0?;
    /// let mut messages = b.messages(MessagesOptions::new())?;
    /// let mut message = messages.next().await.unwrap()?;
    /// let file = message.take_fds().pop().map(File::from).expect("it came with one");
    /// assert!(file.metadata()?.is_file());
    /// assert!(message.take_fds().is_empty());
    /// # Ok(()) }
    /// ```
    pub fn take_fds(&mut self) -> Vec<OwnedFd> {
        self.ancillary.take_fds()
    }

    /// For the next receive of the socket.
    fn leave(self) -> Box<Completed> {
        let received = Received {
            message_len: self.info.message_len(),
            control_truncated: self.info.ancillary_truncated(),
            end_of_stream: Some(false),
        };
        let control = ReceivedControl::of(self.ancillary, received.control_truncated);
        Completed::of(None, &self.lease.bytes, received, control)
    }

    /// Take all that came with it.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// # use tokio_seqpacket::MessagesOptions;
    /// # use tokio_seqpacket::ancillary::AncillaryBuffer;
    /// # let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// # let (c, d) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// # let file = AncillaryBuffer::from_iter([std::fs::File::open("/dev/null")?.into()]);
    /// # a.send_owned_with_ancillary("a file", file).await.0?;
    /// let mut messages = b.messages(MessagesOptions::new())?;
    /// let mut message = messages.next().await.unwrap()?;
    /// // Passed on to somebody else.
    /// let ancillary = message.take_ancillary();
    /// c.send_owned_with_ancillary(message.to_vec(), ancillary).await.0?;
    /// assert!(message.ancillary().is_empty());
    /// # drop(d);
    /// # Ok(()) }
    /// ```
    pub fn take_ancillary(&mut self) -> AncillaryBuffer {
        std::mem::take(&mut self.ancillary)
    }
}

impl Deref for Message {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.lease.bytes
    }
}

impl AsRef<[u8]> for Message {
    fn as_ref(&self) -> &[u8] {
        &self.lease.bytes
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("len", &self.lease.bytes.len())
            .field("info", &self.info)
            .field("ancillary", &self.ancillary)
            .finish()
    }
}

/// How many messages to ask the kernel for. One more call that finds nothing is dear where messages
/// come one by one, so it asks for more only after as many as it had asked for have come several times.
#[derive(Debug)]
struct Want {
    count: usize,
    full: u32,
    patience: u32,
}

impl Want {
    const PATIENCE: u32 = 2;
    const LONGEST: u32 = 256;

    fn new() -> Self {
        Self { count: 1, full: 0, patience: Self::PATIENCE }
    }

    fn came(&mut self, count: usize) {
        if count < self.count {
            if self.full == 0 && self.count > 1 && count == 1 {
                // The last try for more was in vain.
                self.patience = (self.patience * 2).min(Self::LONGEST);
            }
            (self.count, self.full) = (count.max(1), 0);
            return;
        }
        self.full += 1;
        if self.full >= self.patience {
            (self.count, self.full) = ((self.count * 4).min(mmsg::AT_ONCE), 0);
            if self.count == mmsg::AT_ONCE {
                self.patience = Self::PATIENCE;
            }
        }
    }
}

/// Buffers to receive into, and what has been received: what a stream lends to its backend.
pub(crate) struct Filler<'a> {
    pub(crate) leases: &'a mut Vec<Lease>,
    want: usize,
    queue: &'a mut VecDeque<Message>,
    tail: &'a mut Tail,
    /// What is known of messages whose buffers have not been taken yet.
    arrived: &'a mut Vec<(Received, AncillaryBuffer)>,
    /// How many messages came.
    came: usize,
}

/// What a stream knows of its end.
#[derive(Debug, Default)]
struct Tail {
    ended: bool,
    /// Empty messages, or the end: received after the peer had closed, while nothing marked messages. What comes next
    /// tells.
    doubtful: usize,
}

impl Filler<'_> {
    /// Straight from the kernel, without waiting.
    pub(crate) fn receive(&mut self, source: &mut Source<'_>) -> io::Result<()> {
        let want = self.want.min(self.leases.len());
        let arrived = &mut *self.arrived;
        self.came = mmsg::receive_vectors(source, &mut self.leases[..want], |received, reader| {
            let mut ancillary = AncillaryBuffer::new();
            if !reader.is_empty() {
                ancillary.fill(reader);
            }
            arrived.push((received, ancillary));
        })?;
        for (lease, (received, ancillary)) in
            self.leases.drain(..self.came).zip(self.arrived.drain(..))
        {
            self.tail.arrive(self.queue, lease, received, ancillary);
        }
        Ok(())
    }

    /// Whether one message is asked for, for which an attempt will do.
    pub(crate) fn wants_one(&self) -> bool {
        self.want == 1
    }

    /// A message that was received elsewhere.
    pub(crate) fn deliver(&mut self, bytes: &[u8], received: Received, control: ReceivedControl) {
        let Some(mut lease) = self.leases.pop() else { return };
        let len = bytes.len().min(lease.bytes.capacity());
        lease.bytes.clear();
        lease.bytes.extend_from_slice(&bytes[..len]);
        let mut ancillary = AncillaryBuffer::new();
        control.fill(&mut ancillary);
        self.came = 1;
        self.tail.arrive(self.queue, lease, received, ancillary);
    }
}

impl Tail {
    /// A message, the end of the stream, or one of both.
    fn arrive(
        &mut self,
        queue: &mut VecDeque<Message>,
        lease: Lease,
        received: Received,
        ancillary: AncillaryBuffer,
    ) {
        match received.end_of_stream {
            Some(true) => *self = Self { ended: true, doubtful: 0 },
            None => self.doubtful += 1,
            Some(false) => {
                // Nothing follows the end, so those were empty messages.
                for _ in 0..std::mem::take(&mut self.doubtful) {
                    let nothing = Lease { bytes: Vec::new(), pool: None };
                    let empty = Received { message_len: 0, control_truncated: false, ..received };
                    queue.push_back(Message::new(nothing, empty, AncillaryBuffer::new()));
                }
                queue.push_back(Message::new(lease, received, ancillary));
            }
        }
    }
}

/// A stream of the messages that a socket receives; made by
/// [`UnixSeqpacket::messages`](crate::UnixSeqpacket::messages).
///
/// Each [`Message`] leases its buffer. As many as have come are received with one system call
/// (`recvmmsg(2)`), on both backends; where none has come, the stream waits as a receive does.
///
/// While there is a stream, other receive calls of the socket wait until it is dropped, `try_*` return
/// `WouldBlock`. Only a receive that has waited since before goes on beside it. Messages that the stream has
/// not yielded by its end are the first that the next receives get, in order.
///
/// A consumer that holds all buffers stops the stream, and so in time the sender; nothing is lost.
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
    /// Messages received and not yet yielded; the next receives claim them when the stream is dropped.
    queue: VecDeque<Message>,
    pool: Arc<Pool>,
    leases: Vec<Lease>,
    arrived: Vec<(Received, AncillaryBuffer)>,
    want: Want,
    tail: Tail,
    /// Given up last.
    _claim: Claim<'a>,
}

impl<'a> Messages<'a> {
    pub(crate) fn new(
        socket: &'a backend::Socket,
        exclusive: &'a Exclusive,
        options: MessagesOptions,
    ) -> io::Result<Self> {
        let claim = exclusive.claim()?;
        socket.mark_messages()?;
        Ok(Self {
            socket,
            queue: VecDeque::new(),
            pool: Pool::new(options),
            leases: Vec::new(),
            arrived: Vec::new(),
            want: Want::new(),
            tail: Tail::default(),
            _claim: claim,
        })
    }

    /// What was doubtful came without a mark: has those that follow marked, if that was taken away.
    fn mark(&self) -> io::Result<()> {
        if self.tail.doubtful > 0 { self.socket.mark_messages() } else { Ok(()) }
    }

    /// The next message, or `None` at end of stream, which is final. An empty message is a message.
    ///
    /// An error does not end the stream: after `ECONNRESET` the messages that were sent before it, and
    /// then end of stream, still follow.
    ///
    /// # Cancel safety
    /// A future that is dropped loses nothing.
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
    /// // That was not the end.
    /// assert_eq!(&messages.next().await.unwrap()?[..], b"message");
    /// assert!(messages.next().await.is_none());
    /// # Ok(()) }
    /// ```
    pub async fn next(&mut self) -> Option<io::Result<Message>> {
        if !self.queue.is_empty() {
            budget::done().await;
        }
        while self.queue.is_empty() && !self.tail.ended {
            if let Err(error) = self.fill().await {
                return Some(Err(error));
            }
        }
        self.queue.pop_front().map(Ok)
    }

    /// As many messages as have come, at least one; they are appended to `batch`. Returns how many, 0
    /// at end of stream.
    ///
    /// # Cancel safety
    /// A future that is dropped loses nothing.
    ///
    /// # Errors
    /// As [`next`](Self::next); nothing is lost with it.
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
        if !self.queue.is_empty() {
            budget::done().await;
        }
        while self.queue.is_empty() && !self.tail.ended {
            self.fill().await?;
        }
        let count = self.queue.len();
        batch.extend(self.queue.drain(..));
        Ok(count)
    }

    /// A message that has been received already: without waiting, and without a system call.
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
    ///     // This one, and those that came along with it.
    ///     let rest = std::iter::from_fn(|| messages.next_buffered());
    ///     count += std::iter::once(message?).chain(rest).count();
    /// }
    /// assert_eq!(count, 2);
    /// # Ok(()) }
    /// ```
    pub fn next_buffered(&mut self) -> Option<Message> {
        self.queue.pop_front()
    }

    /// The next message, or have the task woken when there may be one. For hand-written futures and
    /// `Stream`; between two calls nothing is in flight.
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
        // Also where nothing has to be received: a loop over what is here must yield, too.
        ready!(budget::poll_done(cx));
        while self.queue.is_empty() && !self.tail.ended {
            ready!(self.pool.poll_lease(cx, &mut self.leases, self.want.count));
            if let Err(error) = self.mark() {
                return Poll::Ready(Some(Err(error)));
            }
            let (socket, mut filler) = self.filler();
            let polled = ready!(socket.poll_recv_many(cx, &mut filler));
            let came = filler.came;
            self.want.came(came);
            if let Err(error) = polled {
                return Poll::Ready(Some(Err(error)));
            }
        }
        Poll::Ready(self.queue.pop_front().map(Ok))
    }

    async fn fill(&mut self) -> io::Result<()> {
        self.mark()?;
        let want = self.want.count;
        std::future::poll_fn(|cx| self.pool.poll_lease(cx, &mut self.leases, want)).await;
        let (socket, mut filler) = self.filler();
        let filled = socket.recv_many(&mut filler).await;
        let came = filler.came;
        self.want.came(came);
        filled
    }

    fn filler(&mut self) -> (&'a backend::Socket, Filler<'_>) {
        let filler = Filler {
            leases: &mut self.leases,
            want: self.want.count,
            queue: &mut self.queue,
            tail: &mut self.tail,
            arrived: &mut self.arrived,
            came: 0,
        };
        (self.socket, filler)
    }
}

#[cfg(feature = "stream")]
impl futures_core::Stream for Messages<'_> {
    type Item = io::Result<Message>;

    fn poll_next(self: std::pin::Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Messages::poll_next(self.get_mut(), cx)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.queue.len(), None)
    }
}

impl fmt::Debug for Messages<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Messages").field("buffered", &self.queue.len()).finish_non_exhaustive()
    }
}

impl Drop for Messages<'_> {
    fn drop(&mut self) {
        // Copied before the socket is locked for it.
        let left: Vec<_> = self.queue.drain(..).map(Message::leave).collect();
        self.socket.end_stream(left);
    }
}
