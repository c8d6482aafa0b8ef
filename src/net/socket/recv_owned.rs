//! The calls that take the buffers they receive into, and return them with the result.
#![expect(
    clippy::manual_async_fn,
    reason = "calls with owned buffers promise Send in their signature: for an async fn the compiler \
              cannot prove it where it holds associated types of a `&'static str`"
)]

use std::io;

use crate::ancillary::AncillaryBuffer;
use crate::backend::PlainSink;
use crate::buf::owned::{self, Capacity, One, PartsMut, Scatter};
use crate::buf::{BoundedBufMut, BufResult};
use crate::net::socket::UnixSeqpacket;
use crate::net::socket::recv::{Receiving, RecvPlain};
use crate::types::message_info::MessageInfo;

impl UnixSeqpacket {
    /// Receives a message into an owned buffer, from the start of its bounds, and returns the
    /// buffer.
    ///
    /// The message overwrites the content of the buffer. The buffer is marked as initialized as far
    /// as the message reached, so a longer vector keeps its length. [`MessageInfo`] reports whether
    /// the message was truncated. Ancillary data is discarded, which is not always reported: see
    /// [`MessageInfo::ancillary_truncated`].
    ///
    /// # Cancel safety
    /// Dropping the future loses no message: the next receive gets it. The buffer is dropped with
    /// the future, or at the latest when the receive is complete.
    ///
    /// # Errors
    /// See [`UnixSeqpacket`].
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// a.send(b"message").await?;
    /// let (received, buffer) = b.recv_owned(Vec::with_capacity(4)).await;
    /// let info = received?;
    /// assert_eq!(buffer, b"mess");
    /// assert!(info.truncated());
    /// assert_eq!((info.bytes_read(), info.message_len()), (4, 7));
    /// # Ok(()) }
    /// ```
    pub fn recv_owned<B>(&self, buffer: B) -> impl Future<Output = BufResult<MessageInfo, B>> + Send
    where
        B: BoundedBufMut<Buf: Send, Bounds: Send> + Send,
    {
        async move {
            let (mut slice, bounds) = owned::lend(buffer);
            let mut capacity = Capacity::of(&mut slice);
            let received = RecvPlain(Receiving::New(self, Some(PlainSink(&mut capacity)))).await;
            let written = capacity.written();
            owned::note_written(&mut slice, written);
            (received, owned::restore(slice, bounds))
        }
    }

    /// Receives a message with its ancillary data into an owned buffer.
    ///
    /// Otherwise this is like [`recv_owned`](Self::recv_owned).
    ///
    /// # Errors
    /// See [`UnixSeqpacket`].
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use tokio_seqpacket::ancillary::AncillaryBuffer;
    ///
    /// let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// # let ancillary = AncillaryBuffer::from_iter([std::fs::File::open("/dev/null")?.into()]);
    /// # a.send_owned_with_ancillary("a file", ancillary).await.0?;
    /// let (received, bytes, mut ancillary) =
    ///     b.recv_owned_with_ancillary(Vec::with_capacity(64), AncillaryBuffer::new()).await;
    /// assert_eq!((received?.bytes_read(), &bytes[..]), (6, &b"a file"[..]));
    /// assert_eq!(ancillary.take_fds().len(), 1);
    /// # Ok(()) }
    /// ```
    pub fn recv_owned_with_ancillary<B>(
        &self,
        buffer: B,
        mut ancillary: AncillaryBuffer,
    ) -> impl Future<Output = (io::Result<MessageInfo>, B, AncillaryBuffer)> + Send
    where
        B: BoundedBufMut<Buf: Send, Bounds: Send> + Send,
    {
        async move {
            let (slice, bounds) = owned::lend(buffer);
            let (received, One(slice)) = self.recv_parts(One(slice), Some(&mut ancillary)).await;
            (received, owned::restore(slice, bounds), ancillary)
        }
    }

    /// Receives a message into several owned buffers, in order.
    ///
    /// Otherwise this is like [`recv_owned`](Self::recv_owned).
    ///
    /// # Errors
    /// See [`UnixSeqpacket`].
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// a.send(b"headbody").await?;
    /// let parts = vec![Vec::with_capacity(4), Vec::with_capacity(60)];
    /// let (received, parts) = b.recv_owned_vectored(parts).await;
    /// assert_eq!(received?.bytes_read(), 8);
    /// assert_eq!(parts, [b"head", b"body"]);
    /// # Ok(()) }
    /// ```
    pub fn recv_owned_vectored<B>(
        &self,
        buffers: Vec<B>,
    ) -> impl Future<Output = BufResult<MessageInfo, Vec<B>>> + Send
    where
        B: BoundedBufMut<Buf: Send, Bounds: Send> + Send,
    {
        async move {
            let (slices, lent) = owned::lend_all(buffers);
            let (received, slices) = self.recv_parts(slices, None).await;
            (received, lent.restore(slices))
        }
    }

    /// Receives a message with its ancillary data into several owned buffers, in order.
    ///
    /// Otherwise this is like [`recv_owned`](Self::recv_owned).
    ///
    /// # Errors
    /// See [`UnixSeqpacket`].
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use tokio_seqpacket::ancillary::AncillaryBuffer;
    ///
    /// let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// # let ancillary = AncillaryBuffer::from_iter([std::fs::File::open("/dev/null")?.into()]);
    /// # a.send_owned_with_ancillary("a file", ancillary).await.0?;
    /// let parts = vec![Vec::with_capacity(2), Vec::with_capacity(60)];
    /// let (received, parts, ancillary) =
    ///     b.recv_owned_vectored_with_ancillary(parts, AncillaryBuffer::new()).await;
    /// received?;
    /// assert_eq!(parts, [&b"a "[..], b"file"]);
    /// assert_eq!(ancillary.fds().len(), 1);
    /// # Ok(()) }
    /// ```
    pub fn recv_owned_vectored_with_ancillary<B>(
        &self,
        buffers: Vec<B>,
        mut ancillary: AncillaryBuffer,
    ) -> impl Future<Output = (io::Result<MessageInfo>, Vec<B>, AncillaryBuffer)> + Send
    where
        B: BoundedBufMut<Buf: Send, Bounds: Send> + Send,
    {
        async move {
            let (slices, lent) = owned::lend_all(buffers);
            let (received, slices) = self.recv_parts(slices, Some(&mut ancillary)).await;
            (received, lent.restore(slices), ancillary)
        }
    }

    async fn recv_parts<P: PartsMut>(
        &self,
        parts: P,
        ancillary: Option<&mut AncillaryBuffer>,
    ) -> (io::Result<MessageInfo>, P) {
        let ancillary = cleared(ancillary);
        self.stream_end().await;
        let mut scatter = Scatter::new(parts);
        let received = self.inner.recv_owned(&mut scatter, ancillary).await;
        (received, scatter.into_parts())
    }

    /// Receives a message into an owned buffer, if there is one.
    ///
    /// The buffer comes back with every result. Otherwise this is like
    /// [`recv_owned`](Self::recv_owned).
    ///
    /// # Errors
    /// Those of [`try_recv`](Self::try_recv).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use std::io::ErrorKind;
    ///
    /// let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// let (received, buffer) = b.try_recv_owned(Vec::with_capacity(64));
    /// assert_eq!(received.unwrap_err().kind(), ErrorKind::WouldBlock);
    /// a.send(b"message").await?;
    /// let (received, buffer) = b.try_recv_owned(buffer);
    /// assert_eq!((received?.bytes_read(), &buffer[..]), (7, &b"message"[..]));
    /// # Ok(()) }
    /// ```
    pub fn try_recv_owned<B>(&self, buffer: B) -> BufResult<MessageInfo, B>
    where
        B: BoundedBufMut<Buf: Send, Bounds: Send> + Send,
    {
        let (slice, bounds) = owned::lend(buffer);
        let (received, One(slice)) = self.try_recv_parts(One(slice), None);
        (received, owned::restore(slice, bounds))
    }

    /// Receives a message with its ancillary data into an owned buffer, if there is one.
    ///
    /// Otherwise this is like [`recv_owned_with_ancillary`](Self::recv_owned_with_ancillary).
    ///
    /// # Errors
    /// Those of [`try_recv`](Self::try_recv). `ancillary` comes back empty then.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use tokio_seqpacket::ancillary::AncillaryBuffer;
    ///
    /// let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// let file = AncillaryBuffer::from_iter([std::fs::File::open("/dev/null")?.into()]);
    /// a.send_owned_with_ancillary("a file", file).await.0?;
    /// let ancillary = AncillaryBuffer::new();
    /// let (received, bytes, ancillary) = b.try_recv_owned_with_ancillary(vec![0; 6], ancillary);
    /// assert_eq!((received?.bytes_read(), ancillary.fds().len()), (6, 1));
    /// # drop(bytes);
    /// # Ok(()) }
    /// ```
    pub fn try_recv_owned_with_ancillary<B>(
        &self,
        buffer: B,
        mut ancillary: AncillaryBuffer,
    ) -> (io::Result<MessageInfo>, B, AncillaryBuffer)
    where
        B: BoundedBufMut<Buf: Send, Bounds: Send> + Send,
    {
        let (slice, bounds) = owned::lend(buffer);
        let (received, One(slice)) = self.try_recv_parts(One(slice), Some(&mut ancillary));
        (received, owned::restore(slice, bounds), ancillary)
    }

    /// Receives a message into several owned buffers, in order, if there is one.
    ///
    /// Otherwise this is like [`recv_owned_vectored`](Self::recv_owned_vectored).
    ///
    /// # Errors
    /// Those of [`try_recv`](Self::try_recv).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// a.send(b"headbody").await?;
    /// let parts = vec![Vec::with_capacity(4), Vec::with_capacity(60)];
    /// let (received, parts) = b.try_recv_owned_vectored(parts);
    /// assert_eq!(received?.bytes_read(), 8);
    /// assert_eq!(parts, [b"head", b"body"]);
    /// # Ok(()) }
    /// ```
    pub fn try_recv_owned_vectored<B>(&self, buffers: Vec<B>) -> BufResult<MessageInfo, Vec<B>>
    where
        B: BoundedBufMut<Buf: Send, Bounds: Send> + Send,
    {
        let (slices, lent) = owned::lend_all(buffers);
        let (received, slices) = self.try_recv_parts(slices, None);
        (received, lent.restore(slices))
    }

    /// Receives a message with its ancillary data into several owned buffers, in order, if there is
    /// one.
    ///
    /// Otherwise this is like
    /// [`recv_owned_vectored_with_ancillary`](Self::recv_owned_vectored_with_ancillary).
    ///
    /// # Errors
    /// Those of [`try_recv`](Self::try_recv). `ancillary` comes back empty then.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use tokio_seqpacket::ancillary::AncillaryBuffer;
    ///
    /// let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// b.set_pass_credentials(true)?;
    /// a.send(b"headbody").await?;
    /// let (parts, ancillary) = (vec![vec![0; 4]; 2], AncillaryBuffer::new());
    /// let (received, parts, ancillary) =
    ///     b.try_recv_owned_vectored_with_ancillary(parts, ancillary);
    /// assert_eq!((received?.bytes_read(), &parts[1][..]), (8, &b"body"[..]));
    /// assert!(ancillary.credentials().is_some());
    /// # Ok(()) }
    /// ```
    pub fn try_recv_owned_vectored_with_ancillary<B>(
        &self,
        buffers: Vec<B>,
        mut ancillary: AncillaryBuffer,
    ) -> (io::Result<MessageInfo>, Vec<B>, AncillaryBuffer)
    where
        B: BoundedBufMut<Buf: Send, Bounds: Send> + Send,
    {
        let (slices, lent) = owned::lend_all(buffers);
        let (received, slices) = self.try_recv_parts(slices, Some(&mut ancillary));
        (received, lent.restore(slices), ancillary)
    }

    fn try_recv_parts<P: PartsMut>(
        &self,
        parts: P,
        ancillary: Option<&mut AncillaryBuffer>,
    ) -> (io::Result<MessageInfo>, P) {
        let ancillary = cleared(ancillary);
        if let Err(busy) = self.without_stream() {
            return (Err(busy), parts);
        }
        let mut scatter = Scatter::new(parts);
        let received = self.inner.try_recv_owned(&mut scatter, ancillary);
        (received, scatter.into_parts())
    }
}

/// Closes the descriptors that the caller left in it. That can take long, so it happens before the lock.
fn cleared(mut ancillary: Option<&mut AncillaryBuffer>) -> Option<&mut AncillaryBuffer> {
    if let Some(ancillary) = &mut ancillary {
        ancillary.clear();
    }
    ancillary
}
