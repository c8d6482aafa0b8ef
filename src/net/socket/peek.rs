//! Looking at the next message without taking it.
//!
//! Never an operation in flight: readiness, then a call. A message that a dropped receive has left in
//! the library is looked at there.

use std::io::{self, IoSliceMut};
use std::task::{Context, Poll, ready};

use crate::net::socket::UnixSeqpacket;
use crate::types::message_info::MessageInfo;

impl UnixSeqpacket {
    /// Look at the next message: copy its bytes, and leave it where it is.
    ///
    /// Waits until there is one that nobody waits to receive. [`MessageInfo::message_len`] is its
    /// whole length, also where `buffer` is shorter, even empty; ancillary data stays with the
    /// message, and [`MessageInfo::ancillary_truncated`] says that there is some. Nothing is promised
    /// to the caller: another task may receive the message meanwhile. 0 bytes stand for an empty
    /// message and for end of stream, as in [`recv`](Self::recv).
    ///
    /// It is `MSG_PEEK` of `recvmsg(2)`.
    ///
    /// # Cancel safety
    /// A future that is dropped has changed nothing.
    ///
    /// # Errors
    /// See [`UnixSeqpacket`]. An error that is reported here is not reported again.
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

    /// Look at the next message, scattered into several buffers. Else as [`peek`](Self::peek).
    ///
    /// # Errors
    /// As [`peek`](Self::peek).
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

    /// Look at the next message, if there is one. Else as [`peek`](Self::peek).
    ///
    /// # Errors
    /// `WouldBlock` if there is none, or another task is receiving or waits to receive. Else as
    /// [`peek`](Self::peek).
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
    /// // It is still there.
    /// assert_eq!(b.try_recv(&mut [0; 16])?, 7);
    /// # Ok(()) }
    /// ```
    pub fn try_peek(&self, buffer: &mut [u8]) -> io::Result<MessageInfo> {
        self.try_peek_vectored(&mut [IoSliceMut::new(buffer)])
    }

    /// Look at the next message, scattered into several buffers, if there is one. Else as
    /// [`peek`](Self::peek).
    ///
    /// # Errors
    /// As [`try_peek`](Self::try_peek).
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

    /// Look at the next message, or have this task woken when there may be one. Only the last task
    /// that called this or another receiving `poll_*` function is woken. Else as [`peek`](Self::peek).
    ///
    /// # Errors
    /// As [`peek`](Self::peek).
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

    /// Look at the next message, scattered into several buffers. Else as
    /// [`poll_peek`](Self::poll_peek).
    ///
    /// # Errors
    /// As [`peek`](Self::peek).
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
