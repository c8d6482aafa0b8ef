//! The calls that receive into borrowed buffers, and the futures of receives into one buffer.

use std::io::{self, IoSliceMut};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use crate::ancillary::AncillaryMessageReader;
use crate::backend::{BytesSink, PlainSink, Receive, Sink};
use crate::net::socket::UnixSeqpacket;
use crate::net::socket::exclusive::Exclusive;
use crate::types::message_info::MessageInfo;

impl UnixSeqpacket {
    /// Receives a message.
    ///
    /// Returns the number of bytes that were written into `buffer`. It is 0 for an empty message
    /// and for end of stream. Bytes beyond the buffer are lost, and file descriptors that came with
    /// the message are closed, both silently. [`recv_message`](Self::recv_message) reports both,
    /// [`recv_owned`](Self::recv_owned) the lost bytes.
    ///
    /// # Cancel safety
    /// Dropping the future loses no message: the next receive gets it.
    ///
    /// # Errors
    /// See [`UnixSeqpacket`].
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// a.send(b"message").await?;
    /// let mut buffer = [0; 64];
    /// let len = b.recv(&mut buffer).await?;
    /// assert_eq!(&buffer[..len], b"message");
    /// drop(a);
    /// assert_eq!(b.recv(&mut buffer).await?, 0);
    /// # Ok(()) }
    /// ```
    pub fn recv<'a>(
        &'a self,
        buffer: &'a mut [u8],
    ) -> impl Future<Output = io::Result<usize>> + Send {
        Recv(Receiving::New(self, Some(BytesSink(buffer))))
    }

    /// Receives a message into several buffers, in order. Otherwise this is like
    /// [`recv`](Self::recv).
    ///
    /// # Errors
    /// See [`UnixSeqpacket`].
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use std::io::IoSliceMut;
    ///
    /// let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// a.send(b"headbody").await?;
    /// let (mut head, mut body) = ([0; 4], [0; 60]);
    /// let mut buffers = [IoSliceMut::new(&mut head), IoSliceMut::new(&mut body)];
    /// assert_eq!(b.recv_vectored(&mut buffers).await?, 8);
    /// assert_eq!((&head, &body[..4]), (b"head", &b"body"[..]));
    /// # Ok(()) }
    /// ```
    pub async fn recv_vectored(&self, buffer: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        self.stream_end().await;
        self.inner.recv_vectored(buffer).await
    }

    /// Receives a message with its ancillary data.
    ///
    /// Otherwise this is like [`recv_vectored_with_ancillary`](Self::recv_vectored_with_ancillary).
    ///
    /// # Errors
    /// See [`UnixSeqpacket`].
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use tokio_seqpacket::ancillary::OwnedAncillaryMessage;
    ///
    /// let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// # let file = std::fs::File::open("/dev/null")?;
    /// # let mut control = [0; 32];
    /// # let mut writer = tokio_seqpacket::ancillary::AncillaryMessageWriter::new(&mut control);
    /// # writer.add_fds(&[&file])?;
    /// # a.send_with_ancillary(b"a file", &mut writer).await?;
    /// let (mut bytes, mut control) = ([0; 64], [0; 64]);
    /// let (len, ancillary) = b.recv_with_ancillary(&mut bytes, &mut control).await?;
    /// let mut files = Vec::new();
    /// for message in ancillary.into_messages() {
    ///     if let OwnedAncillaryMessage::FileDescriptors(fds) = message {
    ///         files.extend(fds.map(std::fs::File::from));
    ///     }
    /// }
    /// assert_eq!((len, files.len()), (6, 1));
    /// # Ok(()) }
    /// ```
    pub async fn recv_with_ancillary<'a>(
        &self,
        buffer: &mut [u8],
        ancillary_buffer: &'a mut [u8],
    ) -> io::Result<(usize, AncillaryMessageReader<'a>)> {
        self.recv_vectored_with_ancillary(&mut [IoSliceMut::new(buffer)], ancillary_buffer).await
    }

    /// Receives a message with its ancillary data into several buffers, in order.
    ///
    /// The reader owns the file descriptors that came with the message, and closes those that are
    /// not taken. All are close-on-exec. The reader also reports whether ancillary data was
    /// truncated. Otherwise this is like [`recv`](Self::recv).
    ///
    /// # Errors
    /// See [`UnixSeqpacket`].
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use std::io::IoSliceMut;
    /// use tokio_seqpacket::ancillary::OwnedAncillaryMessage;
    ///
    /// let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// # let file = std::fs::File::open("/dev/null")?;
    /// # let mut control = [0; 32];
    /// # let mut writer = tokio_seqpacket::ancillary::AncillaryMessageWriter::new(&mut control);
    /// # writer.add_fds(&[&file])?;
    /// # a.send_with_ancillary(b"a file", &mut writer).await?;
    /// let (mut bytes, mut control) = ([0; 64], [0; 64]);
    /// let mut buffers = [IoSliceMut::new(&mut bytes)];
    /// let (len, ancillary) = b.recv_vectored_with_ancillary(&mut buffers, &mut control).await?;
    /// assert!(!ancillary.is_truncated());
    /// let mut files = Vec::new();
    /// for message in ancillary.into_messages() {
    ///     if let OwnedAncillaryMessage::FileDescriptors(fds) = message {
    ///         files.extend(fds.map(std::fs::File::from));
    ///     }
    /// }
    /// assert_eq!((len, files.len()), (6, 1));
    /// # Ok(()) }
    /// ```
    pub async fn recv_vectored_with_ancillary<'a>(
        &self,
        buffer: &mut [IoSliceMut<'_>],
        ancillary_buffer: &'a mut [u8],
    ) -> io::Result<(usize, AncillaryMessageReader<'a>)> {
        let (info, reader) = self.recv_message(buffer, ancillary_buffer).await?;
        Ok((info.bytes_read(), reader))
    }

    /// Receives a message with its ancillary data, and returns its [`MessageInfo`].
    ///
    /// The info holds the length of the message and whether it is truncated. It also reports
    /// whether its ancillary data is truncated, and tells an empty message from end of stream.
    ///
    /// # Cancel safety
    /// As for [`recv`](Self::recv): dropping the future loses no message.
    ///
    /// # Errors
    /// See [`UnixSeqpacket`].
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use std::io::IoSliceMut;
    ///
    /// let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// a.send(b"twelve bytes").await?;
    /// let (mut buffer, mut control) = ([0; 8], [0; 64]);
    /// let (info, _) = b.recv_message(&mut [IoSliceMut::new(&mut buffer)], &mut control).await?;
    /// assert_eq!((info.bytes_read(), info.message_len(), info.truncated()), (8, 12, true));
    /// # Ok(()) }
    /// ```
    pub async fn recv_message<'a>(
        &self,
        buffers: &mut [IoSliceMut<'_>],
        control: &'a mut [u8],
    ) -> io::Result<(MessageInfo, AncillaryMessageReader<'a>)> {
        self.stream_end().await;
        self.inner.recv_message(buffers, control).await
    }

    /// Receives all messages that have arrived, one into each buffer.
    ///
    /// Waits for the first message only. One system call receives up to 32 (`recvmmsg(2)`). Appends
    /// the [`MessageInfo`] of each to `infos`, and returns how many there are, at least one.
    ///
    /// A message of 0 bytes is an empty message or end of stream, as with [`recv`](Self::recv). Of
    /// several such at the end of the stream only one is reported. Ancillary data is discarded,
    /// which [`MessageInfo::ancillary_truncated`] reports. [`messages`](Self::messages) loses
    /// neither. That stream is also the batch that owns its messages: [`Messages::next_batch`] adds
    /// all that have arrived to a vector.
    ///
    /// [`Messages::next_batch`]: crate::Messages::next_batch
    ///
    /// # Cancel safety
    /// Dropping the future loses no message.
    ///
    /// # Errors
    /// `InvalidInput` without a buffer. For others see [`UnixSeqpacket`].
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use std::io::IoSliceMut;
    ///
    /// let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// a.send(b"one").await?;
    /// a.send(b"three").await?;
    /// let mut bytes = [[0; 64]; 8];
    /// let mut buffers = bytes.each_mut().map(|part| IoSliceMut::new(part));
    /// let mut infos = Vec::new();
    /// assert_eq!(b.recv_batch(&mut buffers, &mut infos).await?, 2);
    /// assert_eq!(&bytes[1][..infos[1].bytes_read()], b"three");
    /// # Ok(()) }
    /// ```
    pub async fn recv_batch(
        &self,
        buffers: &mut [IoSliceMut<'_>],
        infos: &mut Vec<MessageInfo>,
    ) -> io::Result<usize> {
        let before = infos.len();
        if buffers.is_empty() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "no buffer to receive into"));
        }
        self.stream_end().await;
        self.inner.recv_batch(buffers, infos).await?;
        Ok(infos.len() - before)
    }

    /// Receives a message if there is one.
    ///
    /// # Errors
    /// `WouldBlock` if there is none, or if another task receives or waits to receive. For others
    /// see [`UnixSeqpacket`].
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use std::io::ErrorKind;
    ///
    /// let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// let mut buffer = [0; 64];
    /// assert_eq!(b.try_recv(&mut buffer).unwrap_err().kind(), ErrorKind::WouldBlock);
    /// a.send(b"message").await?;
    /// assert_eq!(b.try_recv(&mut buffer)?, 7);
    /// # Ok(()) }
    /// ```
    pub fn try_recv(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.without_stream()?;
        self.inner.try_recv(buffer)
    }

    /// Receives a message into several buffers, in order, if there is one.
    ///
    /// # Errors
    /// Those of [`try_recv`](Self::try_recv).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use std::io::IoSliceMut;
    ///
    /// let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// a.send(b"headbody").await?;
    /// let (mut head, mut body) = ([0; 4], [0; 60]);
    /// let mut buffers = [IoSliceMut::new(&mut head), IoSliceMut::new(&mut body)];
    /// assert_eq!(b.try_recv_vectored(&mut buffers)?, 8);
    /// # Ok(()) }
    /// ```
    pub fn try_recv_vectored(&self, buffer: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        self.without_stream()?;
        self.inner.try_recv_vectored(buffer)
    }

    /// Receives a message with its ancillary data, if there is one.
    ///
    /// Otherwise this is like
    /// [`try_recv_vectored_with_ancillary`](Self::try_recv_vectored_with_ancillary).
    ///
    /// # Errors
    /// Those of [`try_recv`](Self::try_recv).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use std::io::ErrorKind;
    ///
    /// let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// let (mut bytes, mut control) = ([0; 64], [0; 64]);
    /// let none = b.try_recv_with_ancillary(&mut bytes, &mut control).unwrap_err();
    /// assert_eq!(none.kind(), ErrorKind::WouldBlock);
    /// a.send(b"message").await?;
    /// let (len, ancillary) = b.try_recv_with_ancillary(&mut bytes, &mut control)?;
    /// assert_eq!((len, ancillary.is_empty()), (7, true));
    /// # Ok(()) }
    /// ```
    pub fn try_recv_with_ancillary<'a>(
        &self,
        buffer: &mut [u8],
        ancillary_buffer: &'a mut [u8],
    ) -> io::Result<(usize, AncillaryMessageReader<'a>)> {
        self.try_recv_vectored_with_ancillary(&mut [IoSliceMut::new(buffer)], ancillary_buffer)
    }

    /// Receives a message with its ancillary data into several buffers, in order, if there is one.
    ///
    /// # Errors
    /// Those of [`try_recv`](Self::try_recv).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use std::io::IoSliceMut;
    ///
    /// let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// # let file = std::fs::File::open("/dev/null")?;
    /// # let mut control = [0; 32];
    /// # let mut writer = tokio_seqpacket::ancillary::AncillaryMessageWriter::new(&mut control);
    /// # writer.add_fds(&[&file])?;
    /// # a.send_with_ancillary(b"a file", &mut writer).await?;
    /// let (mut bytes, mut control) = ([0; 64], [0; 64]);
    /// let mut buffers = [IoSliceMut::new(&mut bytes)];
    /// let (len, ancillary) = b.try_recv_vectored_with_ancillary(&mut buffers, &mut control)?;
    /// assert_eq!((len, ancillary.is_empty()), (6, false));
    /// # Ok(()) }
    /// ```
    pub fn try_recv_vectored_with_ancillary<'a>(
        &self,
        buffer: &mut [IoSliceMut<'_>],
        ancillary_buffer: &'a mut [u8],
    ) -> io::Result<(usize, AncillaryMessageReader<'a>)> {
        self.without_stream()?;
        let (info, reader) = self.inner.try_recv_message(buffer, ancillary_buffer)?;
        Ok((info.bytes_read(), reader))
    }

    /// Polls to receive a message, and wakes the task when there may be one.
    ///
    /// Only the last task that polled is woken. While other tasks receive, this waits for them.
    ///
    /// # Errors
    /// See [`UnixSeqpacket`].
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use std::future::poll_fn;
    ///
    /// let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// a.send(b"message").await?;
    /// let mut buffer = [0; 64];
    /// assert_eq!(poll_fn(|cx| b.poll_recv(cx, &mut buffer)).await?, 7);
    /// # Ok(()) }
    /// ```
    pub fn poll_recv(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_stream_end(cx));
        self.inner.poll_recv(cx, buffer)
    }

    /// Polls to receive a message into several buffers, in order. Otherwise this is like
    /// [`poll_recv`](Self::poll_recv).
    ///
    /// # Errors
    /// See [`UnixSeqpacket`].
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use std::future::poll_fn;
    /// use std::io::IoSliceMut;
    ///
    /// let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// a.send(b"message").await?;
    /// let mut bytes = [0; 64];
    /// let mut buffers = [IoSliceMut::new(&mut bytes)];
    /// assert_eq!(poll_fn(|cx| b.poll_recv_vectored(cx, &mut buffers)).await?, 7);
    /// # Ok(()) }
    /// ```
    pub fn poll_recv_vectored(
        &self,
        cx: &mut Context<'_>,
        buffer: &mut [IoSliceMut<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_stream_end(cx));
        self.inner.poll_recv_vectored(cx, buffer)
    }

    /// Polls to receive a message with its ancillary data, and wakes the task when there may be
    /// one.
    ///
    /// Otherwise this is like
    /// [`poll_recv_vectored_with_ancillary`](Self::poll_recv_vectored_with_ancillary).
    ///
    /// # Errors
    /// See [`UnixSeqpacket`].
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use std::future::poll_fn;
    ///
    /// let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// b.set_pass_credentials(true)?;
    /// a.send(b"message").await?;
    /// let mut bytes = [0; 64];
    /// let came = poll_fn(|cx| {
    ///     let mut control = [0; 64];
    ///     let polled = b.poll_recv_with_ancillary(cx, &mut bytes, &mut control);
    ///     polled.map_ok(|(len, ancillary)| (len, ancillary.is_empty()))
    /// });
    /// assert_eq!(came.await?, (7, false));
    /// # Ok(()) }
    /// ```
    pub fn poll_recv_with_ancillary<'a>(
        &self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
        ancillary_buffer: &'a mut [u8],
    ) -> Poll<io::Result<(usize, AncillaryMessageReader<'a>)>> {
        let mut buffer = [IoSliceMut::new(buffer)];
        self.poll_recv_vectored_with_ancillary(cx, &mut buffer, ancillary_buffer)
    }

    /// Polls to receive a message with its ancillary data into several buffers, in order.
    ///
    /// Otherwise this is like [`poll_recv`](Self::poll_recv).
    ///
    /// # Errors
    /// See [`UnixSeqpacket`].
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use std::future::poll_fn;
    /// use std::io::IoSliceMut;
    ///
    /// let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// # let file = std::fs::File::open("/dev/null")?;
    /// # let mut control = [0; 32];
    /// # let mut writer = tokio_seqpacket::ancillary::AncillaryMessageWriter::new(&mut control);
    /// # writer.add_fds(&[&file])?;
    /// # a.send_with_ancillary(b"a file", &mut writer).await?;
    /// let (mut bytes, mut fds) = ([0; 64], 0);
    /// let len = poll_fn(|cx| {
    ///     let mut control = [0; 64];
    ///     let mut buffers = [IoSliceMut::new(&mut bytes)];
    ///     let polled = b.poll_recv_vectored_with_ancillary(cx, &mut buffers, &mut control);
    ///     polled.map_ok(|(len, ancillary)| {
    ///         fds = ancillary.messages().count();
    ///         len
    ///     })
    /// })
    /// .await?;
    /// assert_eq!((len, fds), (6, 1));
    /// # Ok(()) }
    /// ```
    pub fn poll_recv_vectored_with_ancillary<'a>(
        &self,
        cx: &mut Context<'_>,
        buffer: &mut [IoSliceMut<'_>],
        ancillary_buffer: &'a mut [u8],
    ) -> Poll<io::Result<(usize, AncillaryMessageReader<'a>)>> {
        ready!(self.poll_stream_end(cx));
        let (info, reader) = ready!(self.inner.poll_recv_message(cx, buffer, ancillary_buffer))?;
        Poll::Ready(Ok((info.bytes_read(), reader)))
    }

    /// Returns the claim of the stream, if there is one.
    pub(super) fn stream(&self) -> Option<&Exclusive> {
        self.extras.get().map(|extras| &extras.exclusive).filter(|exclusive| exclusive.is_claimed())
    }

    /// Waits for the end of the stream, if there is one.
    pub(super) async fn stream_end(&self) {
        if let Some(stream) = self.stream() {
            // Boxed, because this future would otherwise enlarge every receive that waits.
            Box::pin(stream.freed()).await;
        }
    }

    pub(crate) fn poll_stream_end(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.stream().map_or(Poll::Ready(()), |stream| stream.poll_freed(cx))
    }

    /// Returns `WouldBlock` while there is a stream.
    pub(super) fn without_stream(&self) -> io::Result<()> {
        self.stream().map_or(Ok(()), |_| Err(io::ErrorKind::WouldBlock.into()))
    }
}

/// A receive into one buffer. It is a hand-written future because idle connections wait in it: an
/// `async fn` would take twice the memory.
pub(super) enum Receiving<'a, S> {
    New(&'a UnixSeqpacket, Option<S>),
    /// Waits for the end of a stream.
    StreamEnd(Pin<Box<dyn Future<Output = ()> + Send + 'a>>, &'a UnixSeqpacket, Option<S>),
    Call(Receive<'a, S>),
    Done,
}

impl<S: Sink> Receiving<'_, S> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<S::Output>> {
        loop {
            let (socket, sink) = match self {
                Self::New(socket, sink) => match socket.stream() {
                    Some(stream) => {
                        *self = Self::StreamEnd(Box::pin(stream.freed()), socket, sink.take());
                        continue;
                    }
                    None => (socket, sink),
                },
                Self::StreamEnd(end, socket, sink) => {
                    ready!(end.as_mut().poll(cx));
                    (socket, sink)
                }
                Self::Call(call) => {
                    let received = ready!(Pin::new(call).poll(cx));
                    *self = Self::Done;
                    return Poll::Ready(received);
                }
                Self::Done => panic!("a receive is not polled after completion"),
            };
            *self = Self::Call(socket.inner.receive(sink.take().expect("taken once")));
        }
    }
}

/// A receive into a buffer that the caller lends.
struct Recv<'a>(Receiving<'a, BytesSink<'a>>);

/// A receive into an owned buffer. For every buffer type it is compiled in this crate, with all
/// calls that it makes. In a generic call, which is compiled in the caller's crate, none of them
/// would be inlined.
pub(super) struct RecvPlain<'a, 'b>(pub(super) Receiving<'a, PlainSink<'a, 'b>>);

impl Future for Recv<'_> {
    type Output = io::Result<usize>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.0.poll(cx)
    }
}

impl Future for RecvPlain<'_, '_> {
    type Output = io::Result<MessageInfo>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<MessageInfo>> {
        self.0.poll(cx)
    }
}
