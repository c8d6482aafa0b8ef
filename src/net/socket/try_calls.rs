//! The `try_*` calls with ancillary data and with owned buffers.

use std::io::{self, IoSlice, IoSliceMut};

use tokio_uring::BufResult;
use tokio_uring::buf::{BoundedBuf, BoundedBufMut};

use crate::ancillary::{AncillaryBuffer, AncillaryMessageReader, AncillaryMessageWriter};
use crate::buf::owned::{self, One, Parts, PartsMut, Scatter};
use crate::net::socket::UnixSeqpacket;
use crate::types::message_info::MessageInfo;

impl UnixSeqpacket {
    /// Send a message with ancillary data, if that is possible at once.
    ///
    /// # Errors
    /// As [`try_send`](Self::try_send).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use tokio_seqpacket::ancillary::AncillaryMessageWriter;
    ///
    /// let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// let file = std::fs::File::open("/dev/null")?;
    /// let mut control = [0; 32];
    /// let mut ancillary = AncillaryMessageWriter::new(&mut control);
    /// ancillary.add_fds(&[&file])?;
    /// assert_eq!(a.try_send_with_ancillary(b"a file", &mut ancillary)?, 6);
    /// # drop(b);
    /// # Ok(()) }
    /// ```
    pub fn try_send_with_ancillary(
        &self,
        buffer: &[u8],
        ancillary: &mut AncillaryMessageWriter<'_>,
    ) -> io::Result<usize> {
        self.try_send_vectored_with_ancillary(&[IoSlice::new(buffer)], ancillary)
    }

    /// Send a message from an owned buffer, if that is possible at once. The buffer comes back with
    /// the result, whatever it is.
    ///
    /// # Errors
    /// As [`try_send`](Self::try_send).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use std::io::ErrorKind;
    ///
    /// let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// let (sent, message) = a.try_send_owned(b"message".to_vec());
    /// assert_eq!(sent?, 7);
    /// assert_eq!(b.recv(&mut [0; 16]).await?, 7);
    /// drop(b);
    /// let (refused, message) = a.try_send_owned(message);
    /// assert_eq!(refused.unwrap_err().kind(), ErrorKind::BrokenPipe);
    /// assert_eq!(message, b"message");
    /// # Ok(()) }
    /// ```
    pub fn try_send_owned<B>(&self, buffer: B) -> BufResult<usize, B>
    where
        B: BoundedBuf<Buf: Send, Bounds: Send> + Send,
    {
        let (slice, bounds) = owned::lend(buffer);
        let (sent, One(slice), _) = self.try_send_parts(One(slice), AncillaryBuffer::new());
        (sent, owned::restore(slice, bounds))
    }

    /// Send a message from an owned buffer, with ancillary data, if that is possible at once. Both
    /// come back with the result; the peer gets duplicates of the file descriptors.
    ///
    /// # Errors
    /// As [`try_send`](Self::try_send).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use tokio_seqpacket::ancillary::AncillaryBuffer;
    ///
    /// let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// let file = AncillaryBuffer::from_iter([std::fs::File::open("/dev/null")?.into()]);
    /// let (sent, _, file) = a.try_send_owned_with_ancillary("a file", file);
    /// assert_eq!((sent?, file.fds().len()), (6, 1));
    /// # drop(b);
    /// # Ok(()) }
    /// ```
    pub fn try_send_owned_with_ancillary<B>(
        &self,
        buffer: B,
        ancillary: AncillaryBuffer,
    ) -> (io::Result<usize>, B, AncillaryBuffer)
    where
        B: BoundedBuf<Buf: Send, Bounds: Send> + Send,
    {
        let (slice, bounds) = owned::lend(buffer);
        let (sent, One(slice), ancillary) = self.try_send_parts(One(slice), ancillary);
        (sent, owned::restore(slice, bounds), ancillary)
    }

    /// Send a message gathered from several owned buffers, if that is possible at once. Else as
    /// [`try_send_owned`](Self::try_send_owned).
    ///
    /// # Errors
    /// As [`try_send`](Self::try_send).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// let (sent, parts) = a.try_send_owned_vectored(vec!["head", "body"]);
    /// assert_eq!((sent?, parts), (8, vec!["head", "body"]));
    /// assert_eq!(b.recv(&mut [0; 16]).await?, 8);
    /// # Ok(()) }
    /// ```
    pub fn try_send_owned_vectored<B>(&self, buffers: Vec<B>) -> BufResult<usize, Vec<B>>
    where
        B: BoundedBuf<Buf: Send, Bounds: Send> + Send,
    {
        let (slices, lent) = owned::lend_all(buffers);
        let (sent, slices, _) = self.try_send_parts(slices, AncillaryBuffer::new());
        (sent, lent.restore(slices))
    }

    /// Send a message gathered from several owned buffers, with ancillary data, if that is possible at
    /// once. Else as [`try_send_owned_with_ancillary`](Self::try_send_owned_with_ancillary).
    ///
    /// # Errors
    /// As [`try_send`](Self::try_send).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use tokio_seqpacket::ancillary::AncillaryBuffer;
    ///
    /// let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// let file = AncillaryBuffer::from_iter([std::fs::File::open("/dev/null")?.into()]);
    /// let parts = vec!["a", " file"];
    /// let (sent, parts, _file) = a.try_send_owned_vectored_with_ancillary(parts, file);
    /// assert_eq!((sent?, parts.len()), (6, 2));
    /// # drop(b);
    /// # Ok(()) }
    /// ```
    pub fn try_send_owned_vectored_with_ancillary<B>(
        &self,
        buffers: Vec<B>,
        ancillary: AncillaryBuffer,
    ) -> (io::Result<usize>, Vec<B>, AncillaryBuffer)
    where
        B: BoundedBuf<Buf: Send, Bounds: Send> + Send,
    {
        let (slices, lent) = owned::lend_all(buffers);
        let (sent, slices, ancillary) = self.try_send_parts(slices, ancillary);
        (sent, lent.restore(slices), ancillary)
    }

    fn try_send_parts<P: Parts>(
        &self,
        parts: P,
        ancillary: AncillaryBuffer,
    ) -> (io::Result<usize>, P, AncillaryBuffer) {
        let sent = self.inner.try_send_owned(&parts, &ancillary);
        (self.explained(sent, || parts.total(), &[]), parts, ancillary)
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

    /// Receive a message into an owned buffer, if there is one. The buffer comes back with the result,
    /// whatever it is. Else as [`recv_owned`](Self::recv_owned).
    ///
    /// # Errors
    /// As [`try_recv`](Self::try_recv).
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

    /// Receive a message into an owned buffer, with its ancillary data, if there is one. Else as
    /// [`recv_owned_with_ancillary`](Self::recv_owned_with_ancillary).
    ///
    /// # Errors
    /// As [`try_recv`](Self::try_recv); `ancillary` comes back as it was then.
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

    /// Receive a message scattered into several owned buffers, if there is one. Else as
    /// [`recv_owned_vectored`](Self::recv_owned_vectored).
    ///
    /// # Errors
    /// As [`try_recv`](Self::try_recv).
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

    /// Receive a message scattered into several owned buffers, with its ancillary data, if there is
    /// one. Else as
    /// [`recv_owned_vectored_with_ancillary`](Self::recv_owned_vectored_with_ancillary).
    ///
    /// # Errors
    /// As [`try_recv`](Self::try_recv); `ancillary` comes back as it was then.
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
        mut ancillary: Option<&mut AncillaryBuffer>,
    ) -> (io::Result<MessageInfo>, P) {
        if let Some(ancillary) = &mut ancillary {
            // As for a receive that waits.
            ancillary.clear();
        }
        if let Err(busy) = self.without_stream() {
            return (Err(busy), parts);
        }
        let mut scatter = Scatter::new(parts);
        let received = self.inner.try_recv_owned(&mut scatter, ancillary);
        (received, scatter.into_parts())
    }
}
