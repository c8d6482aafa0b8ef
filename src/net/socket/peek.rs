//! Copying the next message without taking it.
//!
//! A peek is never an operation in flight: it waits for readiness, then makes a call. It also sees
//! a message that a dropped receive has left in the library.

use std::io::{self, IoSliceMut};
use std::task::{Context, Poll, ready};

use crate::net::socket::UnixSeqpacket;
use crate::types::message_info::MessageInfo;

impl UnixSeqpacket {
    /// Copies the next message into `buffer`, and leaves it in the socket.
    ///
    /// Waits until there is a message that no other task waits to receive.
    /// [`MessageInfo::message_len`] is its whole length in bytes, even if `buffer` is shorter or
    /// empty. Ancillary data stays with the message, and [`MessageInfo::ancillary_truncated`]
    /// reports whether there is some. Another task may receive the message before this one does. 0
    /// bytes are an empty message or end of stream, as in [`recv`](Self::recv).
    ///
    /// It is `MSG_PEEK` of `recvmsg(2)`.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    ///
    /// # Errors
    /// See [`UnixSeqpacket`]. An error that this call returns is not returned again.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// a.send(b"of unknown length").await?;
    /// let len = b.peek(&mut []).await?.message_len();
    /// let mut buffer = vec![0; len];
    /// assert_eq!(b.recv(&mut buffer).await?, 17);
    /// # Ok(()) }
    /// ```
    pub async fn peek(&self, buffer: &mut [u8]) -> io::Result<MessageInfo> {
        self.peek_vectored(&mut [IoSliceMut::new(buffer)]).await
    }

    /// Copies the next message into several buffers, in order. Otherwise this is like
    /// [`peek`](Self::peek).
    ///
    /// # Errors
    /// Those of [`peek`](Self::peek).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use std::io::IoSliceMut;
    ///
    /// let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// a.send(b"headbody").await?;
    /// let (mut head, mut body) = ([0; 4], [0; 60]);
    /// let mut parts = [IoSliceMut::new(&mut head), IoSliceMut::new(&mut body)];
    /// assert_eq!(b.peek_vectored(&mut parts).await?.bytes_read(), 8);
    /// assert_eq!((&head, &body[..4]), (b"head", &b"body"[..]));
    /// # Ok(()) }
    /// ```
    pub async fn peek_vectored(&self, buffer: &mut [IoSliceMut<'_>]) -> io::Result<MessageInfo> {
        loop {
            tokio::task::coop::consume_budget().await;
            match self.try_peek_vectored(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.readable().await?;
                }
                result => return result,
            }
        }
    }

    /// Copies the next message if there is one. Otherwise this is like [`peek`](Self::peek).
    ///
    /// # Errors
    /// `WouldBlock` if there is none, or if another task receives or waits to receive. Others are
    /// those of [`peek`](Self::peek).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use std::io::ErrorKind;
    ///
    /// let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// assert_eq!(b.try_peek(&mut []).unwrap_err().kind(), ErrorKind::WouldBlock);
    /// a.send(b"message").await?;
    /// let mut first = [0; 1];
    /// assert_eq!(b.try_peek(&mut first)?.message_len(), 7);
    /// assert_eq!(&first, b"m");
    /// // The message is still in the socket.
    /// assert_eq!(b.try_recv(&mut [0; 16])?, 7);
    /// # Ok(()) }
    /// ```
    pub fn try_peek(&self, buffer: &mut [u8]) -> io::Result<MessageInfo> {
        self.try_peek_vectored(&mut [IoSliceMut::new(buffer)])
    }

    /// Copies the next message into several buffers, if there is one. Otherwise this is like
    /// [`peek`](Self::peek).
    ///
    /// # Errors
    /// Those of [`try_peek`](Self::try_peek).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use std::io::IoSliceMut;
    ///
    /// let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// a.send(b"kind 7 and the rest").await?;
    /// let (mut word, mut kind) = ([0; 5], [0; 1]);
    /// b.try_peek_vectored(&mut [IoSliceMut::new(&mut word), IoSliceMut::new(&mut kind)])?;
    /// assert_eq!(&kind, b"7");
    /// # Ok(()) }
    /// ```
    pub fn try_peek_vectored(&self, buffer: &mut [IoSliceMut<'_>]) -> io::Result<MessageInfo> {
        self.without_stream()?;
        self.inner.try_peek(buffer)
    }

    /// Polls to copy the next message, and wakes the task when there may be one.
    ///
    /// Only the last task that polled with this or another receiving `poll_*` function is woken.
    /// Otherwise this is like [`peek`](Self::peek).
    ///
    /// # Errors
    /// Those of [`peek`](Self::peek).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use std::future::poll_fn;
    ///
    /// let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// a.send(b"message").await?;
    /// assert_eq!(poll_fn(|cx| b.poll_peek(cx, &mut [])).await?.message_len(), 7);
    /// # Ok(()) }
    /// ```
    pub fn poll_peek(
        &self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<MessageInfo>> {
        self.poll_peek_vectored(cx, &mut [IoSliceMut::new(buffer)])
    }

    /// Polls to copy the next message into several buffers. Otherwise this is like
    /// [`poll_peek`](Self::poll_peek).
    ///
    /// # Errors
    /// Those of [`peek`](Self::peek).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use std::future::poll_fn;
    /// use std::io::IoSliceMut;
    ///
    /// let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// a.send(b"message").await?;
    /// let (mut one, mut two) = ([0; 2], [0; 2]);
    /// let mut parts = [IoSliceMut::new(&mut one), IoSliceMut::new(&mut two)];
    /// let info = poll_fn(|cx| b.poll_peek_vectored(cx, &mut parts)).await?;
    /// assert_eq!((info.bytes_read(), info.message_len(), &two), (4, 7, b"ss"));
    /// # Ok(()) }
    /// ```
    pub fn poll_peek_vectored(
        &self,
        cx: &mut Context<'_>,
        buffer: &mut [IoSliceMut<'_>],
    ) -> Poll<io::Result<MessageInfo>> {
        loop {
            ready!(self.poll_recv_ready(cx))?;
            match self.try_peek_vectored(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result),
            }
        }
    }
}
