//! The calls that send from borrowed buffers.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::os::fd::AsFd;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use crate::ancillary::AncillaryMessageWriter;
use crate::net::send_error::refused_send;
use crate::net::socket::UnixSeqpacket;

impl UnixSeqpacket {
    /// Sends a message.
    ///
    /// Returns the number of bytes, which is the length of the message: a message is sent whole or
    /// not at all. Waits while the peer's queue is full. Sends on one socket go out in the order in
    /// which they were first polled.
    ///
    /// # Cancel safety
    /// After the future is dropped, the message either was sent whole or never will be.
    ///
    /// # Errors
    /// See [`UnixSeqpacket`].
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// assert_eq!(a.send(b"message").await?, 7);
    /// assert_eq!(b.recv(&mut [0; 16]).await?, 7);
    /// # Ok(()) }
    /// ```
    pub fn send<'a>(&'a self, buffer: &'a [u8]) -> impl Future<Output = io::Result<usize>> + Send {
        let mut call = self.inner.send(buffer);
        // An `async fn` would take a third more memory.
        poll_fn(move |cx| {
            let sent = ready!(Pin::new(&mut call).poll(cx));
            Poll::Ready(self.explained(sent, || buffer.len(), &[]))
        })
    }

    /// Sends a message from several buffers, in order. Otherwise this is like [`send`](Self::send).
    ///
    /// # Errors
    /// See [`UnixSeqpacket`].
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use std::io::IoSlice;
    ///
    /// let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// a.send_vectored(&[IoSlice::new(b"head"), IoSlice::new(b"body")]).await?;
    /// // The peer gets one message.
    /// assert_eq!(b.recv(&mut [0; 16]).await?, 8);
    /// # Ok(()) }
    /// ```
    pub async fn send_vectored(&self, buffer: &[IoSlice<'_>]) -> io::Result<usize> {
        let sent = self.inner.send_message(buffer, &[]).await;
        self.explained(sent, || total(buffer), &[])
    }

    /// Sends a message with ancillary data. Otherwise this is like [`send`](Self::send).
    ///
    /// # Errors
    /// See [`UnixSeqpacket`].
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
    /// a.send_with_ancillary(b"a file", &mut ancillary).await?;
    /// # drop(b);
    /// # Ok(()) }
    /// ```
    pub async fn send_with_ancillary(
        &self,
        buffer: &[u8],
        ancillary: &mut AncillaryMessageWriter<'_>,
    ) -> io::Result<usize> {
        self.send_vectored_with_ancillary(&[IoSlice::new(buffer)], ancillary).await
    }

    /// Sends a message with ancillary data from several buffers, in order.
    ///
    /// Otherwise this is like [`send`](Self::send).
    ///
    /// # Errors
    /// See [`UnixSeqpacket`].
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use std::io::IoSlice;
    /// use tokio_seqpacket::ancillary::AncillaryMessageWriter;
    ///
    /// let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// let file = std::fs::File::open("/dev/null")?;
    /// let mut control = [0; 32];
    /// let mut ancillary = AncillaryMessageWriter::new(&mut control);
    /// ancillary.add_fds(&[&file])?;
    /// let parts = [IoSlice::new(b"a"), IoSlice::new(b" file")];
    /// a.send_vectored_with_ancillary(&parts, &mut ancillary).await?;
    /// # drop(b);
    /// # Ok(()) }
    /// ```
    pub async fn send_vectored_with_ancillary(
        &self,
        buffer: &[IoSlice<'_>],
        ancillary: &mut AncillaryMessageWriter<'_>,
    ) -> io::Result<usize> {
        let sent = self.inner.send_message(buffer, ancillary.control()).await;
        self.explained(sent, || total(buffer), ancillary.control())
    }

    /// Sends a message if that is possible at once.
    ///
    /// # Errors
    /// `WouldBlock` if the peer's queue is full, or if another task sends or waits to send. For
    /// others see [`UnixSeqpacket`].
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use std::io::ErrorKind;
    ///
    /// let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// let full = loop {
    ///     if let Err(error) = a.try_send(b"message") {
    ///         break error;
    ///     }
    /// };
    /// assert_eq!(full.kind(), ErrorKind::WouldBlock);
    /// assert_eq!(b.recv(&mut [0; 16]).await?, 7);
    /// # Ok(()) }
    /// ```
    pub fn try_send(&self, buffer: &[u8]) -> io::Result<usize> {
        self.explained(self.inner.try_send(buffer), || buffer.len(), &[])
    }

    /// Sends a message from several buffers, in order, if that is possible at once.
    ///
    /// # Errors
    /// Those of [`try_send`](Self::try_send).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use std::io::IoSlice;
    ///
    /// let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// assert_eq!(a.try_send_vectored(&[IoSlice::new(b"head"), IoSlice::new(b"body")])?, 8);
    /// # drop(b);
    /// # Ok(()) }
    /// ```
    pub fn try_send_vectored(&self, buffer: &[IoSlice<'_>]) -> io::Result<usize> {
        self.explained(self.inner.try_send_message(buffer, &[]), || total(buffer), &[])
    }

    /// Sends a message with ancillary data, if that is possible at once.
    ///
    /// # Errors
    /// Those of [`try_send`](Self::try_send).
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

    /// Sends a message with ancillary data from several buffers, in order, if that is possible at
    /// once.
    ///
    /// # Errors
    /// Those of [`try_send`](Self::try_send).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use std::io::IoSlice;
    /// use tokio_seqpacket::ancillary::AncillaryMessageWriter;
    ///
    /// let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// let file = std::fs::File::open("/dev/null")?;
    /// let mut control = [0; 32];
    /// let mut ancillary = AncillaryMessageWriter::new(&mut control);
    /// ancillary.add_fds(&[&file])?;
    /// a.try_send_vectored_with_ancillary(&[IoSlice::new(b"a file")], &mut ancillary)?;
    /// # drop(b);
    /// # Ok(()) }
    /// ```
    pub fn try_send_vectored_with_ancillary(
        &self,
        buffer: &[IoSlice<'_>],
        ancillary: &mut AncillaryMessageWriter<'_>,
    ) -> io::Result<usize> {
        let sent = self.inner.try_send_message(buffer, ancillary.control());
        self.explained(sent, || total(buffer), ancillary.control())
    }

    /// Polls to send a message, and wakes the task when that may be possible.
    ///
    /// Nothing is in flight between two calls, so a later call may have other bytes. Only the last
    /// task that polled is woken. While other tasks send, this waits for them.
    ///
    /// # Errors
    /// See [`UnixSeqpacket`].
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use std::future::poll_fn;
    ///
    /// let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// assert_eq!(poll_fn(|cx| a.poll_send(cx, b"message")).await?, 7);
    /// # drop(b);
    /// # Ok(()) }
    /// ```
    pub fn poll_send(&self, cx: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        let sent = ready!(self.inner.poll_send(cx, buffer));
        Poll::Ready(self.explained(sent, || buffer.len(), &[]))
    }

    /// Polls to send a message from several buffers, in order. Otherwise this is like
    /// [`poll_send`](Self::poll_send).
    ///
    /// # Errors
    /// See [`UnixSeqpacket`].
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use std::future::poll_fn;
    /// use std::io::IoSlice;
    ///
    /// let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// let parts = [IoSlice::new(b"head"), IoSlice::new(b"body")];
    /// assert_eq!(poll_fn(|cx| a.poll_send_vectored(cx, &parts)).await?, 8);
    /// # drop(b);
    /// # Ok(()) }
    /// ```
    pub fn poll_send_vectored(
        &self,
        cx: &mut Context<'_>,
        buffer: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let sent = ready!(self.inner.poll_send_message(cx, buffer, &[]));
        Poll::Ready(self.explained(sent, || total(buffer), &[]))
    }

    /// Polls to send a message with ancillary data. Otherwise this is like
    /// [`poll_send`](Self::poll_send).
    ///
    /// # Errors
    /// See [`UnixSeqpacket`].
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use std::future::poll_fn;
    /// use tokio_seqpacket::ancillary::AncillaryMessageWriter;
    ///
    /// let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// let file = std::fs::File::open("/dev/null")?;
    /// let mut control = [0; 32];
    /// let mut ancillary = AncillaryMessageWriter::new(&mut control);
    /// ancillary.add_fds(&[&file])?;
    /// poll_fn(|cx| a.poll_send_with_ancillary(cx, b"a file", &mut ancillary)).await?;
    /// # drop(b);
    /// # Ok(()) }
    /// ```
    pub fn poll_send_with_ancillary(
        &self,
        cx: &mut Context<'_>,
        buffer: &[u8],
        ancillary: &mut AncillaryMessageWriter<'_>,
    ) -> Poll<io::Result<usize>> {
        self.poll_send_vectored_with_ancillary(cx, &[IoSlice::new(buffer)], ancillary)
    }

    /// Polls to send a message with ancillary data from several buffers, in order.
    ///
    /// Otherwise this is like [`poll_send`](Self::poll_send).
    ///
    /// # Errors
    /// See [`UnixSeqpacket`].
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use std::future::poll_fn;
    /// use std::io::IoSlice;
    /// use tokio_seqpacket::ancillary::AncillaryMessageWriter;
    ///
    /// let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// let file = std::fs::File::open("/dev/null")?;
    /// let mut control = [0; 32];
    /// let mut ancillary = AncillaryMessageWriter::new(&mut control);
    /// ancillary.add_fds(&[&file])?;
    /// let parts = [IoSlice::new(b"a"), IoSlice::new(b" file")];
    /// let send = poll_fn(|cx| a.poll_send_vectored_with_ancillary(cx, &parts, &mut ancillary));
    /// assert_eq!(send.await?, 6);
    /// # drop(b);
    /// # Ok(()) }
    /// ```
    pub fn poll_send_vectored_with_ancillary(
        &self,
        cx: &mut Context<'_>,
        buffer: &[IoSlice<'_>],
        ancillary: &mut AncillaryMessageWriter<'_>,
    ) -> Poll<io::Result<usize>> {
        let sent = ready!(self.inner.poll_send_message(cx, buffer, ancillary.control()));
        Poll::Ready(self.explained(sent, || total(buffer), ancillary.control()))
    }

    pub(crate) fn explained(
        &self,
        sent: io::Result<usize>,
        len: impl FnOnce() -> usize,
        control: &[u8],
    ) -> io::Result<usize> {
        sent.map_err(|error| refused_send(error, self.as_fd(), len(), control))
    }
}

fn total(buffers: &[IoSlice<'_>]) -> usize {
    buffers.iter().map(|buffer| buffer.len()).sum()
}
