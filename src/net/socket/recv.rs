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
    /// Receive a message.
    ///
    /// Returns the number of bytes that were written into `buffer`; 0 for an empty message and for
    /// end of stream. What does not fit is lost, and file descriptors that came with the message are
    /// closed, without a sign. [`recv_message`](Self::recv_message) reports both;
    /// [`recv_owned`](Self::recv_owned) the first.
    ///
    /// # Cancel safety
    /// A future that is dropped loses nothing: the message goes to the next receive.
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

    /// Receive a message scattered into several buffers. Else as [`recv`](Self::recv).
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

    /// Receive a message with its ancillary data. Else as
    /// [`recv_vectored_with_ancillary`](Self::recv_vectored_with_ancillary).
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

    /// Receive a message with its ancillary data.
    ///
    /// The reader owns the file descriptors that came with the message and closes those that are not
    /// taken; all are close-on-exec. It says whether ancillary data was cut. Else as
    /// [`recv`](Self::recv).
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

    /// Receive a message with ancillary data into lent buffers, with all that is known of it: how long it
    /// was, whether it or its ancillary data was cut, and whether it is the end of the stream or an empty
    /// message.
    ///
    /// # Errors and cancel safety
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

    /// Receive as many messages as have come, one into each buffer, with one system call for up to 32
    /// (`recvmmsg(2)`). Waits for the first only.
    ///
    /// Appends to `infos` what is known of each, and returns how many there are, at least one. A
    /// message of 0 bytes is an empty message or end of stream, as with [`recv`](Self::recv); of
    /// several such at the very end of the stream one is told. Ancillary data is discarded, which
    /// [`MessageInfo::ancillary_truncated`] tells. [`messages`](Self::messages) loses neither.
    ///
    /// # Cancel safety
    /// A future that is dropped loses nothing.
    ///
    /// # Errors
    /// `InvalidInput` without a buffer. Else see [`UnixSeqpacket`].
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use std::io::IoSliceMut;
    ///
    /// let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// a.send(b"one").await?;
    /// a.send(b"three").await?;
    /// let mut rooms = [[0; 64]; 8];
    /// let mut buffers = rooms.each_mut().map(|room| IoSliceMut::new(room));
    /// let mut infos = Vec::new();
    /// assert_eq!(b.recv_batch(&mut buffers, &mut infos).await?, 2);
    /// assert_eq!(&rooms[1][..infos[1].bytes_read()], b"three");
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

    /// Receive a message if there is one.
    ///
    /// # Errors
    /// `WouldBlock` if there is none, or another task is receiving or waits to receive. Else see
    /// [`UnixSeqpacket`].
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

    /// Receive a message scattered into several buffers, if there is one.
    ///
    /// # Errors
    /// As [`try_recv`](Self::try_recv).
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

    /// Receive a message with its ancillary data, if there is one. Else as
    /// [`try_recv_vectored_with_ancillary`](Self::try_recv_vectored_with_ancillary).
    ///
    /// # Errors
    /// As [`try_recv`](Self::try_recv).
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

    /// Receive a message with its ancillary data, if there is one.
    ///
    /// # Errors
    /// As [`try_recv`](Self::try_recv).
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

    /// Receive a message, or have this task woken when there may be one.
    ///
    /// Only the last task that called is woken; while other tasks receive, this waits for them.
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

    /// Receive a message scattered into several buffers. Else as [`poll_recv`](Self::poll_recv).
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
    /// let mut room = [0; 64];
    /// let mut buffers = [IoSliceMut::new(&mut room)];
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

    /// Receive a message with ancillary data into one buffer, or have this task woken when there may be
    /// one. Else as [`poll_recv_vectored_with_ancillary`](Self::poll_recv_vectored_with_ancillary).
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

    /// Receive a message with its ancillary data. Else as [`poll_recv`](Self::poll_recv).
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

    /// The stream, if there is one.
    pub(super) fn stream(&self) -> Option<&Exclusive> {
        self.extras.get().map(|extras| &extras.exclusive).filter(|exclusive| exclusive.is_claimed())
    }

    /// Waits for the end of a stream, if there is one.
    pub(super) async fn stream_end(&self) {
        if let Some(stream) = self.stream() {
            // In a box: every receive that waits would have room for this.
            Box::pin(stream.freed()).await;
        }
    }

    pub(crate) fn poll_stream_end(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.stream().map_or(Poll::Ready(()), |stream| stream.poll_freed(cx))
    }

    /// `WouldBlock` while there is a stream.
    pub(super) fn without_stream(&self) -> io::Result<()> {
        self.stream().map_or(Ok(()), |_| Err(io::ErrorKind::WouldBlock.into()))
    }
}

/// A receive into one buffer. By hand, for it is what idle connections wait in: as an `async fn` it
/// would take twice the memory.
pub(super) enum Receiving<'a, S> {
    New(&'a UnixSeqpacket, Option<S>),
    /// Waits for the end of a stream.
    Behind(Pin<Box<dyn Future<Output = ()> + Send + 'a>>, &'a UnixSeqpacket, Option<S>),
    Call(Receive<'a, S>),
    Done,
}

impl<S: Sink> Receiving<'_, S> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<S::Output>> {
        loop {
            let (socket, sink) = match self {
                Self::New(socket, sink) => match socket.stream() {
                    Some(stream) => {
                        *self = Self::Behind(Box::pin(stream.freed()), socket, sink.take());
                        continue;
                    }
                    None => (socket, sink),
                },
                Self::Behind(end, socket, sink) => {
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

/// Into a buffer that the caller lends.
struct Recv<'a>(Receiving<'a, BytesSink<'a>>);

/// Into a buffer that was given away. Whatever the buffer is, this is compiled here, with all that it calls: in a generic
/// call, which is compiled in the caller's crate, nothing of it would be inlined.
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
