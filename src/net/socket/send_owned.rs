//! The calls that take the buffers they send from, and return them with the result.
#![expect(
    clippy::manual_async_fn,
    reason = "calls with owned buffers promise Send in their signature: for an async fn the compiler \
              cannot prove it where it holds associated types of a `&'static str`"
)]

use std::io;
use std::os::fd::BorrowedFd;

use crate::ancillary::AncillaryBuffer;
use crate::buf::owned::{self, One, Parts};
use crate::buf::{BoundedBuf, BufResult};
use crate::common::metrics::Carried;
use crate::common::policy::COPY_MAX;
use crate::net::socket::UnixSeqpacket;
use crate::sys;

impl UnixSeqpacket {
    /// Sends a message from an owned buffer, and returns the buffer with the result.
    ///
    /// The message is the initialized bytes within the buffer's bounds. Otherwise this is like
    /// [`send`](Self::send).
    ///
    /// A dropped future drops the buffer, at the latest when the send is complete. That can happen
    /// on another thread, so a buffer that is not `Send` does not compile:
    ///
    /// ```compile_fail,E0277
    /// # use tokio_seqpacket::{UnixSeqpacket, buf::IoBuf};
    /// struct Local(std::rc::Rc<[u8]>);
    /// # unsafe impl IoBuf for Local {
    /// #     fn stable_ptr(&self) -> *const u8 { self.0.as_ptr() }
    /// #     fn bytes_init(&self) -> usize { self.0.len() }
    /// #     fn bytes_total(&self) -> usize { self.0.len() }
    /// # }
    /// # async fn f(socket: &UnixSeqpacket) {
    /// socket.send_owned(Local([1, 2, 3].into())).await.0.unwrap();
    /// # }
    /// ```
    ///
    /// # Errors
    /// See [`UnixSeqpacket`].
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// let (sent, buffer) = a.send_owned(b"message".to_vec()).await;
    /// assert_eq!(sent?, 7);
    /// assert_eq!(buffer, b"message");
    /// # drop(b);
    /// # Ok(()) }
    /// ```
    pub fn send_owned<B>(&self, buffer: B) -> impl Future<Output = BufResult<usize, B>> + Send
    where
        B: BoundedBuf<Buf: Send, Bounds: Send> + Send,
    {
        async move {
            let (slice, bounds) = owned::lend(buffer);
            let len = owned::filled(&slice).len();
            let (sent, slice) = if len <= COPY_MAX {
                // A copy is cheaper than giving the buffer to a send that waits, and needs no
                // allocation.
                (self.inner.send(owned::filled(&slice)).await, slice)
            } else {
                let message = owned::filled(&slice);
                let call = move |fd: BorrowedFd<'_>| {
                    sys::send(fd, message).map(|len| Carried::message(len, 0))
                };
                match self.inner.send_directly(call).await {
                    Ok(sent) => (sent.map(|sent| sent.bytes), slice),
                    Err(waits) => {
                        let waiting =
                            self.inner.wait_owned(One(slice), AncillaryBuffer::new(), waits);
                        // Boxed, because this future would otherwise enlarge every send.
                        let (sent, One(slice), _) = Box::pin(waiting).await;
                        (sent, slice)
                    }
                }
            };
            (self.explained(sent, || len, &[]), owned::restore(slice, bounds))
        }
    }

    /// Sends a message with ancillary data from an owned buffer.
    ///
    /// The peer gets duplicates of the file descriptors. Otherwise this is like
    /// [`send_owned`](Self::send_owned).
    ///
    /// # Errors
    /// See [`UnixSeqpacket`].
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use tokio_seqpacket::ancillary::AncillaryBuffer;
    ///
    /// let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// let mut ancillary = AncillaryBuffer::new();
    /// ancillary.push_fd(std::fs::File::open("/dev/null")?)?;
    /// let (sent, _bytes, ancillary) = a.send_owned_with_ancillary("a file", ancillary).await;
    /// sent?;
    /// // The peer has a duplicate. This descriptor is still open.
    /// assert_eq!(ancillary.fds().len(), 1);
    /// # drop(b);
    /// # Ok(()) }
    /// ```
    pub fn send_owned_with_ancillary<B>(
        &self,
        buffer: B,
        ancillary: AncillaryBuffer,
    ) -> impl Future<Output = (io::Result<usize>, B, AncillaryBuffer)> + Send
    where
        B: BoundedBuf<Buf: Send, Bounds: Send> + Send,
    {
        async move {
            let (slice, bounds) = owned::lend(buffer);
            let (sent, One(slice), ancillary) = self.send_parts(One(slice), ancillary).await;
            (sent, owned::restore(slice, bounds), ancillary)
        }
    }

    /// Sends a message from several owned buffers, in order.
    ///
    /// Otherwise this is like [`send_owned`](Self::send_owned).
    ///
    /// # Errors
    /// See [`UnixSeqpacket`].
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// let (sent, parts) = a.send_owned_vectored(vec![b"head".to_vec(), b"body".to_vec()]).await;
    /// assert_eq!((sent?, parts.len()), (8, 2));
    /// # drop(b);
    /// # Ok(()) }
    /// ```
    pub fn send_owned_vectored<B>(
        &self,
        buffers: Vec<B>,
    ) -> impl Future<Output = BufResult<usize, Vec<B>>> + Send
    where
        B: BoundedBuf<Buf: Send, Bounds: Send> + Send,
    {
        async move {
            let (slices, lent) = owned::lend_all(buffers);
            let (sent, slices, _) = self.send_parts(slices, AncillaryBuffer::new()).await;
            (sent, lent.restore(slices))
        }
    }

    /// Sends a message with ancillary data from several owned buffers, in order.
    ///
    /// Otherwise this is like [`send_owned`](Self::send_owned).
    ///
    /// # Errors
    /// See [`UnixSeqpacket`].
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use tokio_seqpacket::ancillary::AncillaryBuffer;
    ///
    /// let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// let mut ancillary = AncillaryBuffer::new();
    /// ancillary.push_fd(std::fs::File::open("/dev/null")?)?;
    /// let parts = vec!["a", " file"];
    /// let (sent, _parts, _ancillary) = a.send_owned_vectored_with_ancillary(parts, ancillary).await;
    /// assert_eq!(sent?, 6);
    /// # drop(b);
    /// # Ok(()) }
    /// ```
    pub fn send_owned_vectored_with_ancillary<B>(
        &self,
        buffers: Vec<B>,
        ancillary: AncillaryBuffer,
    ) -> impl Future<Output = (io::Result<usize>, Vec<B>, AncillaryBuffer)> + Send
    where
        B: BoundedBuf<Buf: Send, Bounds: Send> + Send,
    {
        async move {
            let (slices, lent) = owned::lend_all(buffers);
            let (sent, slices, ancillary) = self.send_parts(slices, ancillary).await;
            (sent, lent.restore(slices), ancillary)
        }
    }

    async fn send_parts<P: Parts>(
        &self,
        parts: P,
        ancillary: AncillaryBuffer,
    ) -> (io::Result<usize>, P, AncillaryBuffer) {
        let (sent, parts, ancillary) = self.inner.send_owned(parts, ancillary).await;
        (self.explained(sent, || parts.total(), &[]), parts, ancillary)
    }

    /// Sends a message from an owned buffer, if that is possible at once.
    ///
    /// The buffer comes back with every result.
    ///
    /// # Errors
    /// Those of [`try_send`](Self::try_send).
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

    /// Sends a message with ancillary data from an owned buffer, if that is possible at once.
    ///
    /// Buffer and ancillary data come back with every result. The peer gets duplicates of the file
    /// descriptors.
    ///
    /// # Errors
    /// Those of [`try_send`](Self::try_send).
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

    /// Sends a message from several owned buffers, in order, if that is possible at once.
    ///
    /// Otherwise this is like [`try_send_owned`](Self::try_send_owned).
    ///
    /// # Errors
    /// Those of [`try_send`](Self::try_send).
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

    /// Sends a message with ancillary data from several owned buffers, in order, if that is
    /// possible at once.
    ///
    /// Otherwise this is like
    /// [`try_send_owned_with_ancillary`](Self::try_send_owned_with_ancillary).
    ///
    /// # Errors
    /// Those of [`try_send`](Self::try_send).
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
}
